//! The alternate screen: taken, and given back however the program goes on.
//!
//! The terminal stays in its usual mode, so that Ctrl-C interrupts as ever; only what is typed is not echoed into the
//! picture. What the rest of the program says meanwhile is held back, and printed when the screen is given back.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ratatui::crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};

/// None while the screen is not ours.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

struct Taken {
    /// Messages to print afterwards.
    held: Vec<String>,
    echo: Echo,
}

fn taken() -> MutexGuard<'static, Option<Taken>> {
    // a thread that panicked with it has left a whole value behind
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the screen.
pub(super) fn take() -> io::Result<()> {
    execute!(io::stderr(), EnterAlternateScreen, Clear(ClearType::All), Hide)?;
    *taken() = Some(Taken { held: Vec::new(), echo: Echo::off() });
    Ok(())
}

/// True while the screen is ours.
pub(super) fn is_taken() -> bool {
    taken().is_some()
}

/// Gives the screen back and prints what was held; nothing where it is not taken. From any thread, any number of times;
/// not from a signal handler.
pub(crate) fn give_back() {
    // held until all is restored: who comes second must not end the program before
    let mut taken = taken();
    let Some(Taken { held, echo }) = taken.take() else { return };
    // a terminal that is gone needs no restoring
    let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
    echo.restore();
    drop(taken);
    for text in held {
        crate::output::complain(&text);
    }
}

/// Keeps a message until the screen is given back; false if it is not taken, and the message can be printed.
pub(crate) fn hold(text: &str) -> bool {
    taken().as_mut().map(|taken| taken.held.push(text.into())).is_some()
}

/// The message that was held last.
pub(super) fn last_held() -> Option<String> {
    taken().as_ref()?.held.last().cloned()
}

/// Whether the terminal shows what is typed.
#[cfg(unix)]
struct Echo(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl Echo {
    /// Not any more; Ctrl-Z, which would leave a shell on our screen, does nothing either.
    fn off() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
        let before = tcgetattr(rustix::stdio::stderr()).ok();
        if let Some(mut now) = before.clone() {
            now.local_modes.remove(LocalModes::ECHO);
            now.special_codes[SpecialCodeIndex::VSUSP] = 0;
            // where it is refused, typing only looks bad
            let _ = tcsetattr(rustix::stdio::stderr(), OptionalActions::Now, &now);
        }
        Self(before)
    }

    fn restore(self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        if let Some(before) = self.0 {
            let _ = tcsetattr(rustix::stdio::stderr(), OptionalActions::Now, &before);
        }
    }
}

/// Windows shows only what a program reads.
#[cfg(not(unix))]
struct Echo;

#[cfg(not(unix))]
impl Echo {
    fn off() -> Self {
        Self
    }

    fn restore(self) {}
}
