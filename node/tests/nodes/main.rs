//! Real nodes with data directories, over TCP on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blob;
mod checkpoint;
mod common;
mod job;
mod log;
