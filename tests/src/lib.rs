//! What the end-to-end tests share: nodes as real processes.
//!
//! ```text
//! lab!() ─► Lab ── .node("a") ─► Spec ── .start() ─► Node ── .json(&["members"]), .publish(…), .kill(), .restart()
//!            └──── .run(&["start", …]) ─► Run { code, stdout, stderr }
//! ```
//!
//! A [`Lab`] is a directory and the command under test. A [`Node`] is an `omnimesh start` process in it; its
//! standard error goes to a file, from which addresses and readiness are read. A [`Subscriber`] is an
//! `omnimesh subscribe` process. Whoever waits polls a condition until a deadline ([`wait_for`]); nobody sleeps and hopes.
//!
//! Two nodes, one of which is killed and comes back as the same peer:
//!
//! ```no_run
//! use omnimesh_tests::{Lab, SOON, wait_for};
//!
//! // A test of this crate says `lab!()`: the command that was built with it.
//! let lab = Lab::new("target/debug/omnimesh");
//! let a = lab.node("a").open("example").start();
//! let mut b = lab.node("b").open("example").bootstrap(&a).start();
//! wait_for("both to see each other", SOON, || {
//!     a.expect_sees(&b, "alive")?;
//!     b.expect_sees(&a, "alive")
//! });
//! let before = b.peer_id().to_owned();
//! b.kill();
//! b.restart();
//! assert_eq!(b.peer_id(), before);
//! ```
//!
//! Nothing outlives a test: processes die with their handles, and nodes also end by themselves once the process of the tests is gone.
//! When a test fails, the ends of its nodes' logs are printed.

pub mod accept;
mod api;
pub mod fixtures;
pub mod http;
mod lab;
mod node;
mod process;
mod receiver;
mod wait;

pub use api::{Api, Entry, equal};
pub use lab::{Lab, Run};
pub use node::{Node, Spec, Subscriber};
pub use process::Process;
pub use receiver::Receiver;
pub use wait::{POLL, SOON, check, wait_for};

/// A [`Lab`] for the command that was built with the test that asks for it.
#[macro_export]
macro_rules! lab {
    () => {
        $crate::Lab::new(env!("CARGO_BIN_EXE_omnimesh-under-test"))
    };
}

/// Environment variables that shift a process's wall clock, by the `faketime` tool's library; its monotonic
/// clock stays true. `None` if the tool is not installed.
///
/// The variables do what the tool does, without its process in between, which a signal would hit instead of
/// the node.
pub fn wall_clock(offset: &str) -> Option<Vec<(String, String)>> {
    let output = std::process::Command::new("faketime").args(["-f", offset, "env"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let library = text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD="))?;
    let variables = [("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    Some(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
}
