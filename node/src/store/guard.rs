//! A page that makes no sense makes redb panic in places. That is damage like any other: an error, and no text of a
//! panic on standard error.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use redb::Database;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
    /// What the last guarded panic on this thread said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does work on a database that may be damaged.
///
/// # Errors
/// What is wrong with it, if it panicked.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if IS_GUARDED.get() {
                SAID.set(panic.payload_as_str().unwrap_or("no reason").to_owned());
            } else {
                others(panic);
            }
        }));
    });
    let was_guarded = IS_GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(was_guarded);
    done.map_err(|_| format!("its pages do not fit together: {}", SAID.take()))
}

/// Closes a database. One that is damaged panics when it is closed too.
pub(super) fn discard(database: Option<Database>) {
    if let Err(reason) = guarded(move || drop(database)) {
        tracing::warn!(reason, "a damaged store could not be closed in good order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_reason() {
        assert_eq!(guarded(|| 7), Ok(7));
        let inner = guarded(|| guarded(|| panic!("{} of {}", 2, 1)).map(|()| 1));
        assert_eq!(inner, Ok(Err("its pages do not fit together: 2 of 1".to_owned())));
        assert!(!IS_GUARDED.get(), "what comes behind it is told as ever");
    }
}
