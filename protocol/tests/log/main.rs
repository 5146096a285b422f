//! Tests of the durable log from outside: many nodes in virtual time, over links that lose, on disks that forget what was
//! not synced, among peers that lie.

#![expect(clippy::unwrap_used, reason = "a test: a panic is its report")]

mod checkpoints;
mod covered;
mod disk;
mod faults;
mod forks;
mod liars;
mod measure;
mod network;
mod quiet;
mod rules;

/// The seeds of a random test: one if it is given, to replay it.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("OMNIMESH_SEED") {
        Ok(seed) => vec![seed.parse().expect("OMNIMESH_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}

/// How to replay one run of a random test.
fn replay(test: &str, seed: u64) -> String {
    format!("seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-protocol --test log {test}")
}

/// How many times as many seeds as usual are to be run: `OMNIMESH_SCALE`.
fn scale() -> u64 {
    std::env::var("OMNIMESH_SCALE").map_or(1, |scale| scale.parse().expect("OMNIMESH_SCALE is a number"))
}
