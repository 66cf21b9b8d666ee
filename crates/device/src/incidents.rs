//! What a device says outside any call: that it is gone, or that something was wrong.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use kiln_kernel::BackendError;

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

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and becomes [`BackendError::DeviceLost`]: for panic hooks, which are called all the
/// same. wgpu panics in a wait that a driver answers with the device's loss.
pub fn panic_is_loss() -> bool {
    ASKING.get()
}

/// Asks the device for news, and waits as `how` says.
pub(crate) fn poll(
    device: &wgpu::Device,
    incidents: &Incidents,
    how: wgpu::PollType,
) -> Result<(), BackendError> {
    let was_asking = ASKING.replace(true);
    // no lock of wgpu's is held where it panics, and nothing is half done: it has noted the loss
    let polled = catch_unwind(AssertUnwindSafe(|| device.poll(how)));
    ASKING.set(was_asking);
    let problem = match polled {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => format!("waiting for the device: {error}"),
        Err(panic) => {
            let problem = said(&*panic);
            incidents.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem.clone());
            problem
        }
    };
    // what the driver said says more
    Err(BackendError::DeviceLost(incidents.loss().unwrap_or(problem)))
}

/// What was said in a panic, in one line.
fn said(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    said.unwrap_or("waiting for the device").split_whitespace().collect::<Vec<_>>().join(" ")
}
