//! What the program prints: results on standard output, everything else on standard error.

mod arrivals;
pub(crate) mod course;
mod dashboard;
mod format;
mod progress;
mod show;
mod table;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub(crate) use arrivals::Arrivals;
pub(crate) use dashboard::{Dashboard, screen::give_back as give_back_screen};
pub(crate) use format::{bytes, duration, percent};
pub(crate) use kiln_nn::grouped as count;
pub(crate) use progress::{Progress, Spinner};
pub(crate) use show::Show;
pub(crate) use table::{Align, Table};

use crate::{Failure, arguments::Output};

/// Where results, messages and progress go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    verbose: bool,
    terminal: bool,
}

impl Ui {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            json: output.json,
            quiet: output.quiet,
            verbose: output.verbose,
            terminal: io::stderr().is_terminal(),
        }
    }

    /// True if more is to be said than usual.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// True if standard error is a terminal on which everything may be drawn.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal && !self.quiet && !self.json
    }

    /// A part of the result, for people: standard output, nothing with `--json`.
    pub(crate) fn result(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print(text) }
    }

    /// The result for programs: one line on standard output, nothing without `--json`.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::Message(format!("the result cannot be written as JSON: {error}")))?;
        print(&text)
    }

    /// A message on standard error, nothing with `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// Something that is not as it should be, also with `--quiet`.
    pub(crate) fn warn(&self, text: &str) {
        complain(&format!("kiln: {text}"));
    }

    /// A message that only `--verbose` asks for.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            complain(text);
        }
    }
}

/// Says that the first Ctrl-C was heard.
pub(crate) fn interrupted() {
    complain("finishing this step, then saving; Ctrl-C again stops at once");
}

/// What is said when a signal ends the program, on a line of its own: a bar may stand on the last one.
pub(crate) fn last_words(text: &str) {
    let line_end = if io::stderr().is_terminal() { "\n" } else { "" };
    complain(&format!("{line_end}{text}"));
}

/// One text and a line end to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", printable(text.trim_end_matches('\n')))
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// One line to standard error, once a dashboard has left the screen; where even that fails, there is nobody left to
/// tell.
pub(crate) fn complain(text: &str) {
    if dashboard::screen::hold(text) {
        return;
    }
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// The text without control characters other than line ends and tabs: names come from files, and must not
/// steer the terminal.
fn printable(text: &str) -> String {
    let shown =
        |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[31m\r\u{9b}b\n\tµ"), "a\u{fffd}[31m\u{fffd}\u{fffd}b\n\tµ");
    }
}
