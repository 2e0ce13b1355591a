//! Calls into tract, a few of whose paths panic on odd graphs: a panic there is an error here, and prints
//! nothing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// How many guarded calls this thread is in.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

static HOOK: Once = Once::new();

/// That a guarded call panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// What `run` gives, or that it panicked.
///
/// The first call wraps the process's panic hook, which stays as it is for every panic outside guarded calls.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if GUARDED.get() == 0 {
                usual(info);
            }
        }));
    });
    GUARDED.set(GUARDED.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(GUARDED.get() - 1);
    outcome.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(guarded(|| 3), Ok(3));
        assert_eq!(guarded(|| -> i32 { panic!("never printed") }), Err(Panicked));
        assert_eq!(guarded(|| guarded(|| -> i32 { panic!("nor this") })), Ok(Err(Panicked)));
        assert_eq!(GUARDED.get(), 0);
    }
}
