//! Ctrl-C: the first asks the training to finish its step and save, the second ends the program.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use crate::{Failure, INTERRUPTED, output};

/// Set by the first signal.
static FLAG: AtomicBool = AtomicBool::new(false);

/// Handlers stay for good: one is enough.
static HANDLED: OnceLock<Result<(), String>> = OnceLock::new();

/// From now on the first Ctrl-C (or SIGTERM, or a closed terminal) only sets the flag that this gives; the second ends
/// the program at once, which harms no file: all are written whole or appended to.
///
/// # Errors
/// Where the system takes no handler.
pub(crate) fn flag() -> Result<&'static AtomicBool, Failure> {
    let handled = HANDLED.get_or_init(|| {
        ctrlc::set_handler(|| {
            if FLAG.swap(true, Ordering::Relaxed) {
                output::give_back_screen();
                std::process::exit(INTERRUPTED.into());
            }
            output::interrupted();
        })
        .map_err(|error| error.to_string())
    });
    match handled {
        Ok(()) => Ok(&FLAG),
        Err(error) => Err(Failure::Message(format!("Ctrl-C cannot be handled: {error}"))),
    }
}
