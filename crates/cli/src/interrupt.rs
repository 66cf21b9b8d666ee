//! Ctrl-C: the first asks the training to finish its step and save, the second ends the program.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use crate::{Failure, INTERRUPTED, output};

/// Set by the first signal.
static FLAG: AtomicBool = AtomicBool::new(false);

/// Handlers stay for good: one is enough.
static HANDLED: OnceLock<Result<(), String>> = OnceLock::new();

/// How long a terminal may take to be given back when the program ends at once.
const PATIENCE: Duration = Duration::from_millis(300);

/// From now on the first Ctrl-C (or SIGTERM, or a closed terminal) only sets the flag that this gives; the second ends
/// the program at once, which harms no file: all are written whole or appended to.
///
/// # Errors
/// Where the system takes no handler.
pub(crate) fn flag() -> Result<&'static AtomicBool, Failure> {
    let handled = HANDLED.get_or_init(|| {
        ctrlc::set_handler(|| {
            // whoever reads standard error may have stopped: nothing here waits for it
            if !FLAG.swap(true, Ordering::Relaxed) {
                thread::spawn(output::interrupted);
                return;
            }
            let (sender, given_back) = channel();
            thread::spawn(move || {
                output::give_back_screen();
                let _ = sender.send(());
            });
            // late or not, the program ends now
            let _ = given_back.recv_timeout(PATIENCE);
            // without what runs at an exit, under which a driver's threads would lose their ground
            signal_hook::low_level::exit(INTERRUPTED.into());
        })
        .map_err(|error| error.to_string())
    });
    match handled {
        Ok(()) => Ok(&FLAG),
        Err(error) => Err(Failure::Message(format!("Ctrl-C cannot be handled: {error}"))),
    }
}
