//! Panics of other libraries that Kiln turns into errors, because what causes them is none of its own defects: a driver that
//! answers a wait with the device's loss, an image that a decoder was not written for.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread becomes an error: for panic hooks, which are called all the same.
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// Calls `work`, and gives what was said in its panic, in one line, if it panics. What it leaves half done is for the caller to
/// see to. Threads that `work` starts are not contained.
///
/// # Errors
/// If `work` panics.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let was_contained = CONTAINED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(was_contained);
    done.map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    said.unwrap_or("a panic without words").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        let nested = contain(|| {
            assert!(is_contained());
            assert_eq!(contain(|| 1), Ok(1));
            assert!(is_contained(), "the inner one ends only itself");
            panic!("two\n  lines: {}", 2);
        });
        assert_eq!(nested, Err::<(), _>("two lines: 2".to_owned()));
        assert!(!is_contained());
    }
}
