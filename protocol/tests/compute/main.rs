//! Compute from outside: many drivers and workers in virtual time, over logs that arrive in any order, among workers that
//! die, lie, stall and straggle.

#![expect(clippy::unwrap_used, reason = "a test: a panic is its report")]

mod driver;
mod faults;
mod files;
mod large;
mod laws;
mod mesh;
mod rules;
mod wire;
mod workers;

/// The seeds of a random test: one if it is given, to replay it.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("OMNIMESH_SEED") {
        Ok(seed) => vec![seed.parse().expect("OMNIMESH_SEED is a number")],
        Err(_) => (0..count * scale()).collect(),
    }
}

/// How to replay one run of a random test.
fn replay(test: &str, seed: u64) -> String {
    format!("seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-protocol --test compute {test}")
}

/// How many times as many seeds as usual are to be run: `OMNIMESH_SCALE`.
fn scale() -> u64 {
    std::env::var("OMNIMESH_SCALE").map_or(1, |scale| scale.parse().expect("OMNIMESH_SCALE is a number"))
}
