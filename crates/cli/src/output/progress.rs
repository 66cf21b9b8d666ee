//! How far a long task is: a bar on a terminal, a line every few seconds elsewhere.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Ui, complain, count, duration, percent};

/// Time between two plain lines.
const PLAIN_PERIOD: Duration = Duration::from_secs(5);

/// The progress of one epoch: images done, loss, accuracy, images/s, time left.
pub(crate) struct Progress {
    shape: Shape,
    title: String,
    images: u64,
}

enum Shape {
    /// `--quiet`.
    None,
    /// No terminal: plain lines, the last printed then.
    Lines(Instant),
    Bar(ProgressBar),
}

impl Progress {
    /// An epoch of `images` images, called `title` (`epoch 1/5`).
    pub(crate) fn new(ui: &Ui, title: impl Into<String>, images: u64) -> Self {
        let title = title.into();
        let shape = match (ui.quiet, ui.terminal) {
            (true, _) => Shape::None,
            (false, false) => Shape::Lines(Instant::now()),
            (false, true) => {
                let bar = ProgressBar::with_draw_target(Some(images), ProgressDrawTarget::stderr());
                // The template is fixed, so it either always parses or never; the plain style is the fallback.
                if let Ok(style) = ProgressStyle::with_template("{prefix} [{wide_bar}] {percent} %  {msg}") {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(title.clone());
                Shape::Bar(bar)
            }
        };
        Self { shape, title, images }
    }

    /// `done` images of the epoch are through; loss and accuracy as last read back from the device.
    pub(crate) fn update(&mut self, done: u64, loss: f64, accuracy: Option<f64>, rate: f64) {
        match &mut self.shape {
            Shape::None => {}
            Shape::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(status(self.images.saturating_sub(done), loss, accuracy, rate));
            }
            Shape::Lines(last) => {
                if last.elapsed() >= PLAIN_PERIOD && done < self.images {
                    *last = Instant::now();
                    let status = status(self.images.saturating_sub(done), loss, accuracy, rate);
                    complain(&format!("{}: {done}/{}  {status}", self.title, self.images));
                }
            }
        }
    }

    /// Says on the bar what goes on besides.
    pub(crate) fn say(&self, text: &'static str) {
        if let Shape::Bar(bar) = &self.shape {
            bar.set_message(text);
        }
    }

    /// Removes the bar without a word.
    pub(crate) fn clear(self) {
        if let Shape::Bar(bar) = self.shape {
            bar.finish_and_clear();
        }
    }

    /// Removes the bar and leaves one line about the whole epoch: `epoch 1/5: loss 0.1234 ...`.
    pub(crate) fn finish(self, line: &str) {
        match self.shape {
            Shape::None => {}
            Shape::Bar(bar) => {
                bar.finish_and_clear();
                complain(&format!("{}: {line}", self.title));
            }
            Shape::Lines(_) => complain(&format!("{}: {line}", self.title)),
        }
    }
}

/// `loss 0.1234  accuracy 96.12 %  1,234 images/s  2.50 s left`
fn status(to_do: u64, loss: f64, accuracy: Option<f64>, rate: f64) -> String {
    let mut text = format!("loss {loss:.4}");
    // Writing to a string does not fail.
    if let Some(accuracy) = accuracy {
        let _ = write!(text, "  accuracy {}", percent(accuracy));
    }
    if rate > 0.0 {
        let left = Duration::try_from_secs_f64(to_do as f64 / rate).unwrap_or_default();
        let _ = write!(text, "  {} images/s  {} left", count(rate as u64), duration(left));
    }
    text
}

/// A task of unknown length, as compiling pipelines: a spinner on a terminal, one line elsewhere.
pub(crate) struct Spinner {
    bar: Option<ProgressBar>,
    quiet: bool,
    /// When the last plain line was printed.
    said: Instant,
}

impl Spinner {
    /// Starts; `text` says what is going on.
    pub(crate) fn new(ui: &Ui, text: &str) -> Self {
        let said = Instant::now();
        if ui.quiet || !ui.terminal {
            ui.note(text);
            return Self { bar: None, quiet: ui.quiet, said };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // without one it would be an empty bar
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar: Some(bar), quiet: false, said }
    }

    /// Says how far it is; without a terminal every few seconds.
    pub(crate) fn update(&mut self, text: String) {
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => {
                if !self.quiet && self.said.elapsed() >= PLAIN_PERIOD {
                    self.said = Instant::now();
                    complain(&text);
                }
            }
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_what_is_known() {
        assert_eq!(
            status(4500, 0.25, Some(0.9), 1500.0),
            "loss 0.2500  accuracy 90.00 %  1,500 images/s  3.00 s left"
        );
        assert_eq!(status(10, 1.0, None, 0.0), "loss 1.0000");
        assert_eq!(status(0, f64::NAN, None, 5.0), "loss NaN  5 images/s  0 s left");
    }
}
