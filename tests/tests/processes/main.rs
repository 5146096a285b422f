//! Nodes as real processes on one machine, as an operator runs them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod away;
mod blobs;
mod clock;
mod common;
mod devnet;
mod durable;
mod failure;
mod inspect;
mod job_faults;
mod jobs;
mod join;
mod kills;
mod misuse;
mod observer;
mod soak;
mod store;
