//! The command as a person or a script meets it: the binary is run, and its output and exit code are looked at.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod common;
mod durable;
mod job;
mod offline;
mod sim;
