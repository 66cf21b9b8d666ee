//! How far downloads are: a bar for each file on a terminal, a line every few seconds elsewhere.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_data::Progress;

use super::{Ui, bytes, complain, duration, percent};

/// Time between two plain lines.
const PLAIN_PERIOD: Duration = Duration::from_secs(5);

/// The progress of the downloads of one data set.
pub(crate) struct Arrivals<'a> {
    ui: &'a Ui,
    dataset: &'a str,
    bar: Option<ProgressBar>,
    /// The address that was last told of, and when the last plain line was.
    told: Option<String>,
    line: Instant,
}

impl<'a> Arrivals<'a> {
    pub(crate) fn new(ui: &'a Ui, dataset: &'a str) -> Self {
        Self { ui, dataset, bar: None, told: None, line: Instant::now() }
    }

    /// Something happened.
    pub(crate) fn tell(&mut self, progress: &Progress<'_>) {
        if !matches!(progress, Progress::Received { .. }) {
            self.clear();
        }
        match progress {
            Progress::Waiting { folder } => {
                self.ui.note(&format!("another process fetches into {}: waiting for it", folder.display()));
            }
            Progress::Checking { path } => self.ui.detail(&format!("checking {}", path.display())),
            Progress::Damaged { path, why } => {
                self.ui.warn(&format!("{} {why}: fetching it anew", path.display()));
            }
            Progress::Asking { file, url } => {
                if self.told.as_deref() != Some(*url) {
                    self.ui.note(&format!("fetching {}/{file} from {url}", self.dataset));
                    self.told = Some((*url).to_owned());
                }
                self.line = Instant::now();
            }
            Progress::Received { file, bytes, total } => self.received(file, *bytes, *total),
            Progress::Again { why, wait, .. } => {
                self.ui.note(&format!("  it {why}; asking again in {}", duration(*wait)));
            }
            Progress::Failed { why, .. } => self.ui.note(&format!("  it {why}")),
            Progress::Unpacking { path } => self.ui.note(&format!("unpacking {}", name(path))),
            Progress::Ready(file) => {
                if let Some(replaced) = &file.replaced {
                    self.ui.note(&format!("what was there is kept as {}", replaced.display()));
                }
            }
            // told of by a later version of the library
            _ => {}
        }
    }

    fn received(&mut self, file: &str, done: u64, total: Option<u64>) {
        if self.ui.quiet {
            return;
        }
        if self.ui.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
                // The template is fixed, so it either always parses or never; the plain style is the fallback.
                let template = match total {
                    Some(_) => "  {prefix} [{wide_bar}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
                    None => "  {prefix} {spinner} {bytes}  {bytes_per_sec}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(file.to_owned());
                // a transfer that is gone on with has not brought all of it now
                let bar = bar.with_position(done);
                bar.reset_eta();
                bar
            });
            bar.set_position(done);
        } else if self.line.elapsed() >= PLAIN_PERIOD {
            self.line = Instant::now();
            complain(&match total {
                Some(total) if total > 0 => {
                    let part = percent(done as f64 / total as f64);
                    format!("  {file}: {} of {} ({part})", bytes(done), bytes(total))
                }
                _ => format!("  {file}: {}", bytes(done)),
            });
        }
    }

    /// Takes the bar from the screen.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Arrivals<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The file's name without its folder.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.strip_suffix(".part").unwrap_or(&name).to_owned()
}
