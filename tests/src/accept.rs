//! Acceptance tests come in two sizes: small ones that run with all others, and the full ones on demand.

use std::io::Write as _;
use std::time::SystemTime;

/// Asks for the full size.
const FULL: &str = "OMNIMESH_ACCEPT";
/// Asks for the random choices of an earlier run.
const SEED: &str = "OMNIMESH_SEED";

/// Whether the full size was asked for, by `OMNIMESH_ACCEPT=full`.
pub fn is_full() -> bool {
    std::env::var_os(FULL).is_some_and(|value| value == "full")
}

/// How many of something: the one or the other.
pub fn size(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

/// Says something to whoever runs the tests, also while they run.
pub fn tell(what: &str) {
    // Not `eprintln`, which is captured.
    let _ = writeln!(std::io::stderr(), "accept: {what}");
}

/// Says how a full run goes.
pub fn progress(what: impl FnOnce() -> String) {
    if is_full() {
        tell(&what());
    }
}

/// The seed of a test's random choices, another in each run unless it is given; it is told, with the command that makes the
/// same choices again. When processes do what, nobody can repeat.
pub fn seed(binary: &str, test: &str) -> u64 {
    let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("OMNIMESH_SEED is a number"));
    let seed = given
        .unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| u64::from(now.subsec_nanos())));
    tell(&format!("{test}: {SEED}={seed} cargo test -p omnimesh-tests --test {binary} {test}"));
    seed
}
