//! Real networks on loopback: connections, streams, frames, bounds and faults.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod connections;
mod streams;
