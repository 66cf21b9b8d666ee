//! `kiln train --watch`: a training's curves and figures on the whole terminal while it goes on.

mod draw;
mod scale;
pub(crate) mod screen;
mod view;

use std::{
    io::{self, BufWriter, Stderr},
    mem::ManuallyDrop,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_device::Device;
use kiln_kernel::Backend;
use kiln_nn::{
    DeviceLoss, EpochReport, History, NnError, StepReport, Trainer,
    callbacks::{Callback, Flow, Prepared},
};
use ratatui::{Terminal, backend::CrosstermBackend, crossterm::terminal};

use self::view::{Place, View};
use super::{Ui, complain, course, course::Look, printable, show::device_lost};

/// Less than this, and the curves would show nothing.
const LEAST_WIDTH: u16 = 60;
const LEAST_HEIGHT: u16 = 15;

/// Least time between two pictures.
const PERIOD: Duration = Duration::from_millis(100);

/// A terminal that says it has more is none that anybody looks at.
const MOST_CELLS: u32 = 1 << 20;

/// Shows a fit on the whole terminal. The terminal is given back at the fit's end, when this is dropped, and by
/// [`screen::give_back`] where neither comes to be. After a fit that did not come to its end (an error, an interrupt) its
/// epochs are printed as a table, so that they are not gone with the screen.
pub(crate) struct Dashboard {
    view: View,
    look: Look,
    device: Arc<dyn Backend>,
    /// Never dropped: that would panic where the terminal is gone, and what it would restore is [`screen`]'s.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stderr>>>>,
    started: Instant,
    drawn: Option<Instant>,
    has_ended: bool,
    /// What is to be said of a device that was lost.
    lost: Option<String>,
}

impl Dashboard {
    /// Takes the screen; `title` says what is trained. None where plain lines serve better: standard error is no
    /// terminal, or one without a cursor or smaller than 60 by 15; with `--quiet` and `--json`.
    pub(crate) fn new(ui: &Ui, title: &str, device: &Device) -> Option<Self> {
        if !ui.is_live() || std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
            return None;
        }
        let (width, height) = terminal::size().ok()?;
        let cells = u32::from(width) * u32::from(height);
        if width < LEAST_WIDTH || height < LEAST_HEIGHT || cells > MOST_CELLS {
            return None;
        }
        let backend = CrosstermBackend::new(BufWriter::new(io::stderr()));
        let terminal = ManuallyDrop::new(Terminal::new(backend).ok()?);
        screen::take().ok()?;
        let mut dashboard = Self {
            view: View::new(&printable(&format!("{title} on {device}")), "compiling pipelines"),
            look: Look::of_terminal(),
            device: Arc::clone(device.backend()),
            terminal,
            started: Instant::now(),
            drawn: None,
            has_ended: false,
            lost: None,
        };
        dashboard.draw();
        Some(dashboard)
    }

    /// With the epochs that were done before this fit.
    pub(crate) fn with_epochs(mut self, epochs: &[EpochReport]) -> Self {
        epochs.iter().for_each(|report| self.view.epoch(report));
        self
    }

    /// Draws, unless it just has.
    fn refresh(&mut self) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PERIOD) {
            self.draw();
        }
    }

    fn draw(&mut self) {
        if !screen::is_taken() {
            return;
        }
        self.drawn = Some(Instant::now());
        self.view.elapsed = self.started.elapsed();
        self.view.device_bytes = self.device.counters().live_bytes;
        if let Some(message) = screen::last_held() {
            self.view.message = printable(&message).replace('\n', " ");
        }
        let (view, marks) = (&self.view, self.look.marks);
        // a terminal that cannot be drawn on is no reason to stop training
        let _ = self.terminal.draw(|frame| draw::draw(view, marks, frame.area(), frame.buffer_mut()));
    }
}

impl Callback for Dashboard {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.view.epochs = prepared.epochs;
        // those after the state that a fit went on from come again
        self.view.reports.truncate(prepared.epochs_done.saturating_sub(self.view.epochs_before));
        // the curves begin where the figures do
        self.view.epochs_before = prepared.epochs_done.saturating_sub(self.view.reports.len());
        self.view.message = self.lost.take().unwrap_or_else(|| "Ctrl-C ends the training".into());
        self.draw();
        Ok(())
    }

    fn on_device_lost(&mut self, trainer: &mut Trainer, loss: &DeviceLoss) -> Result<(), NnError> {
        self.device = Arc::clone(trainer.device().backend());
        self.lost = Some(device_lost(trainer, loss));
        Ok(())
    }

    fn on_step_end(&mut self, _: &mut Trainer, _: usize, _: usize) -> Result<Flow, NnError> {
        // where sums come back seldom, time goes on and the terminal may get another size
        self.refresh();
        Ok(Flow::Continue)
    }

    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        let place = Place { epoch: report.epoch, rows: report.rows, total_rows: report.total_rows };
        self.view.learning_rate = report.learning_rate;
        self.view.images_per_second = report.images_per_second;
        self.view.progress(place, report.scores, self.started.elapsed());
        self.refresh();
        Ok(Flow::Continue)
    }

    fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        self.view.epoch(report);
        self.refresh();
        Ok(Flow::Continue)
    }

    fn on_fit_end(&mut self, _: &mut Trainer, _: &History) -> Result<(), NnError> {
        self.has_ended = true;
        screen::give_back();
        Ok(())
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        screen::give_back();
        if !self.has_ended && !std::thread::panicking() && !self.view.reports.is_empty() {
            complain(&course::table_and_chart(&self.view.reports, None, self.look));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_nn::Scores;
    use kiln_plot::terminal::Marks;
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        draw,
        view::{Place, View},
    };
    use crate::output::course::tests::history;

    fn picture(view: &View, width: u16, height: u16, marks: Marks) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw::draw(view, marks, frame.area(), frame.buffer_mut())).unwrap();
        let cells = terminal.backend().buffer().content();
        let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
        match width {
            0 => String::new(),
            _ => cells.chunks(usize::from(width)).map(line).collect::<Vec<_>>().join("\n"),
        }
    }

    /// A training in the middle of its fifth epoch of eight.
    fn view() -> View {
        let mut view = View::new("digits-cnn on llvmpipe", "Ctrl-C ends the training");
        (view.epochs, view.device_bytes, view.elapsed) = (8, 12 << 20, Duration::from_secs(47));
        for report in &history(8)[..4] {
            for part in 1..=10 {
                let place = Place { epoch: report.epoch, rows: 200 * part, total_rows: 2000 };
                let now = Duration::from_millis((2000 * report.epoch + 200 * part) as u64);
                view.progress(place, report.train, now);
            }
            view.epoch(report);
        }
        let scores = Scores { loss: 0.1642, accuracy: Some(0.9261) };
        view.progress(Place { epoch: 5, rows: 1000, total_rows: 2000 }, scores, Duration::from_secs(11));
        (view.learning_rate, view.images_per_second) = (0.0005, 1000.4);
        view
    }

    #[test]
    fn everything_is_there() {
        for (width, height) in [(60, 15), (80, 24), (120, 40)] {
            let text = picture(&view(), width, height, Marks::Braille);
            for want in [
                "digits-cnn on llvmpipe",
                "47 s",
                "─ train 0.1642",
                "• val 0.3500",
                "epoch 5/8",
                "1,000/2,000, 1.00 s left",
                "all   56 %",
                "7.00 s left",
                "1,000 images/s",
                "learning rate 0.0005",
                "device memory 12 MiB",
                "best val loss 0.3500 in epoch 4",
                "f1_macro 0.5000",
                "Ctrl-C ends the training",
                "━━━",
                "4.5",
            ] {
                // the narrowest leaves out what is least needed
                let want =
                    if width == 60 { want.replace("train ", "").replace("val ", "") } else { want.into() };
                let want = want.replace("best ", "best val ").replace("val val", "val");
                assert!(text.contains(&want), "{want} at {width} by {height}:\n{text}");
            }
            assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "curves:\n{text}");
            assert_eq!(text.contains("val accuracy"), height >= 30, "a table where it is tall:\n{text}");
        }
        let text = picture(&view(), 80, 24, Marks::Ascii);
        assert!(!text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
    }

    #[test]
    fn a_small_terminal_has_the_figures() {
        let text = picture(&view(), 50, 10, Marks::Braille);
        for want in ["loss 0.1642, accuracy 92.61 %", "epoch 5/8", "1,000 images/s", "best val loss"] {
            assert!(text.contains(want), "{want}:\n{text}");
        }
    }

    #[test]
    fn every_size_can_be_drawn() {
        let mut lost = view();
        lost.progress(
            Place { epoch: 5, rows: 1500, total_rows: 2000 },
            Scores { loss: f64::NAN, accuracy: Some(0.1) },
            Duration::from_secs(20),
        );
        let mut infinite = View::new(&"\u{1f525} wide 火".repeat(9), "");
        infinite.epochs = 1;
        for report in &mut history(1) {
            (report.train.loss, report.train.accuracy) = (f64::INFINITY, None);
            report.validation = Some(Scores { loss: -1e308, accuracy: None });
            infinite.epoch(report);
        }
        let mut regression = View::new("", "");
        regression.epochs = 1_000_000;
        for step in 1..=40_000 {
            let place = Place { epoch: 1, rows: 25 * step, total_rows: 1_000_000 };
            let scores = Scores { loss: 1e3 / (step as f64).sqrt(), accuracy: None };
            regression.progress(place, scores, Duration::from_millis(step as u64));
        }
        let views = [View::new("", ""), view(), lost, infinite, regression];
        for width in (0..=200).step_by(7).chain([1, 59, 60, 61, 80]) {
            for height in (0..=60).step_by(5).chain([1, 2, 14, 15, 16, 24, 29, 30]) {
                for view in &views {
                    for marks in [Marks::Braille, Marks::Ascii] {
                        picture(view, width, height, marks);
                    }
                }
            }
        }
        let text = picture(&views[2], 100, 30, Marks::Braille);
        assert!(text.contains("train NaN"), "{text}");
        let text = picture(&views[4], 100, 30, Marks::Braille);
        assert!(text.contains("loss (log)") && !text.contains("accuracy"), "{text}");
    }
}
