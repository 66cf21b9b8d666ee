//! What a device says outside any call: that it is gone, or that something was wrong.

use std::sync::{Mutex, PoisonError};

use kiln_kernel::{BackendError, panics::contain};

use crate::memory::translate;

/// Errors that arrive outside any call: reported by the next call.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<BackendError>>,
}

impl Incidents {
    /// Notes that the device is gone.
    pub(crate) fn lose(&self, message: String) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    /// Notes an error that no scope caught.
    pub(crate) fn note(&self, error: wgpu::Error) {
        let mut slot = self.uncaptured.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| translate(error, "device", 0));
    }

    /// What was said when the device was lost, if it was.
    pub(crate) fn loss(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports the loss, and once each other error.
    ///
    /// # Errors
    /// Where there is one.
    pub(crate) fn check(&self) -> Result<(), BackendError> {
        if let Some(message) = self.loss() {
            return Err(BackendError::DeviceLost(message));
        }
        match self.uncaptured.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Asks the device for news, and waits as `how` says. wgpu panics in a wait that a driver answers with the device's loss.
pub(crate) fn poll(
    device: &wgpu::Device,
    incidents: &Incidents,
    how: wgpu::PollType,
) -> Result<(), BackendError> {
    // no lock of wgpu's is held where it panics, and nothing is half done: it has noted the loss
    let problem = match contain(|| device.poll(how)) {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => format!("waiting for the device: {error}"),
        Err(problem) => {
            incidents.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem.clone());
            problem
        }
    };
    // what the driver said says more
    Err(BackendError::DeviceLost(incidents.loss().unwrap_or(problem)))
}
