//! Waiting for a condition.

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
pub const POLL: Duration = Duration::from_millis(50);

/// How long to wait for what takes a moment: generous, because a machine may be busy. Where time itself is
/// tested, the test names its own limit.
pub const SOON: Duration = Duration::from_secs(60);

/// Looks until the condition holds and gives what it gave.
///
/// # Panics
/// If it does not hold when the deadline has passed; says what was waited for and why it did not hold.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if Instant::now() >= deadline => {
                panic!("waited {} s for {what}, but: {why}", limit.as_secs_f64())
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// A condition that says why it does not hold.
///
/// # Errors
/// What `otherwise` says, if `so` is false.
pub fn check(so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(otherwise()) }
}
