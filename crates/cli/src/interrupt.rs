//! Ctrl-C: while a model is trained, the first asks the training to finish its step and save, and the second ends the program;
//! otherwise the first ends it.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use crate::{Failure, INTERRUPTED, output};

/// Set by the first signal.
static FLAG: AtomicBool = AtomicBool::new(false);

/// Whether somebody looks at the flag.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// What is said when the first signal ends the program, while it does.
static LAST_WORDS: Mutex<Option<&'static str>> = Mutex::new(None);

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
    handle()?;
    IS_WATCHED.store(true, Ordering::Relaxed);
    Ok(&FLAG)
}

/// As long as the result lives, the first signal ends the program with these words and the status of an interruption. What is
/// done meanwhile must leave no file that an end at any moment could harm.
///
/// # Errors
/// As [`flag`].
pub(crate) fn at_once(words: &'static str) -> Result<AtOnce, Failure> {
    handle()?;
    *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    Ok(AtOnce(()))
}

/// See [`at_once`].
pub(crate) struct AtOnce(());

impl Drop for AtOnce {
    fn drop(&mut self) {
        *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn handle() -> Result<(), Failure> {
    let handled = HANDLED.get_or_init(|| ctrlc::set_handler(signalled).map_err(|error| error.to_string()));
    handled.clone().map_err(|error| Failure::Message(format!("Ctrl-C cannot be handled: {error}")))
}

fn signalled() {
    let words = *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    // whoever reads standard error may have stopped: nothing here waits for it
    if words.is_none() && IS_WATCHED.load(Ordering::Relaxed) && !FLAG.swap(true, Ordering::Relaxed) {
        thread::spawn(output::interrupted);
        return;
    }
    let (sender, given_back) = channel();
    thread::spawn(move || {
        output::give_back_screen();
        if let Some(words) = words {
            output::last_words(words);
        }
        let _ = sender.send(());
    });
    // late or not, the program ends now
    let _ = given_back.recv_timeout(PATIENCE);
    // without what runs at an exit, under which a driver's threads would lose their ground
    signal_hook::low_level::exit(INTERRUPTED.into());
}
