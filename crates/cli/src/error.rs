use std::io;

use kiln_data::DataError;
use kiln_graph::GraphError;
use kiln_kernel::BackendError;
use kiln_nn::NnError;
use kiln_plot::PlotError;

/// Why a command did not succeed. Printed as one line, `kiln: what happened`; exit status 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// Said in full where it was found.
    #[error("{0}")]
    Message(String),
    /// Ctrl-C, after saving: exit status 130. The message says how to go on.
    #[error("{0}")]
    Interrupted(String),
    /// From a device.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// From a data set or image.
    #[error(transparent)]
    Data(#[from] DataError),
    /// From a recipe, a model or training.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// From a network's shapes.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// From a picture.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// Standard output is gone or full.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl Failure {
    /// The whole message on one line.
    pub(crate) fn line(&self) -> String {
        one_line(&self.to_string())
    }

    /// True if the reader of standard output has gone away, as `head` does: nothing that went wrong here.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Line breaks as semicolons, without indentation; what is very long, as a name of a megabyte, without its middle.
pub(crate) fn one_line(text: &str) -> String {
    const MOST: usize = 1000;
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let count = line.chars().count();
    if count <= MOST {
        return line;
    }
    let start: String = line.chars().take(MOST / 2).collect();
    let end: String = line.chars().skip(count - MOST / 2).collect();
    format!("{start} … {end}")
}
