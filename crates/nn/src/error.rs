use std::path::{Path, PathBuf};

use kiln_data::DataError;
use kiln_graph::GraphError;
use kiln_kernel::BackendError;

use crate::{NonFinite, recovery::kept};

/// What can go wrong around a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// Shapes that do not fit, or a device that failed while a plan was made or run.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A data set could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file could not be read or written.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        message: String,
    },
    /// A recipe that is not understood.
    #[error("{origin}{}: {message}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Recipe {
        /// The file, or the name of a built-in recipe.
        origin: String,
        /// Where in the file, counted from 1.
        line: Option<usize>,
        /// What is wrong there.
        message: String,
    },
    /// A loss that is no number.
    #[error("{0}")]
    NotFinite(Box<NonFinite>),
    /// A device that was lost in the course of a fit and could not be opened anew.
    #[error("the device was lost ({lost}) and does not come back ({error}): {}", kept(*step, saved.as_ref()))]
    DeviceGone {
        /// What the driver said when it was lost.
        lost: String,
        /// Why it could not be opened anew.
        error: Box<NnError>,
        /// Optimizer steps of the last state that was kept.
        step: u64,
        /// Where it was written.
        saved: Option<PathBuf>,
    },
    /// Settings that do not fit together or the data.
    #[error("{0}")]
    Settings(String),
}

impl NnError {
    /// What is said of the device's loss, if that is the error.
    pub(crate) fn device_loss(&self) -> Option<&str> {
        match self {
            Self::Backend(BackendError::DeviceLost(message))
            | Self::Graph(GraphError::Backend(BackendError::DeviceLost(message))) => Some(message),
            _ => None,
        }
    }

    pub(crate) fn file(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_path_buf(), message: error.to_string() }
    }
}
