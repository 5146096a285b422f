//! The simulator: thousands of nodes in one process, in virtual time, repeatable bit for bit.
//!
//! A [`Scenario`](scenario::Scenario) says what there is and what happens; [`model::run`] runs it with the protocol's
//! own machines; an [`Outcome`](outcome::Outcome) says what came of it.
//!
//! ```
//! use omnimesh_sim::model::{self, Options};
//! use omnimesh_sim::scenario::Scenario;
//!
//! let mut scenario = Scenario::default();
//! scenario.network.nodes = 20;
//! let outcome = model::run(&scenario, Options::default());
//! assert!(outcome.messages.iter().all(|message| message.missed == 0));
//! assert_eq!(outcome.trace_hash, model::run(&scenario, Options { threads: 1, ..Options::default() }).trace_hash);
//! ```

pub mod checkers;
#[cfg(feature = "libp2p")]
pub mod emulation;
pub mod experiment;
pub mod model;
pub mod outcome;
mod process;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod suggest;
pub mod summary;
mod words;

// The example's outcome is also that of the tests.
#[cfg(test)]
extern crate self as omnimesh_sim;
#[cfg(test)]
#[path = "../examples/report_demo/synthetic.rs"]
mod synthetic;

/// The version of the simulator and a hash of the sources that decide what a run does.
pub const CODE_VERSION: &str = env!("OMNIMESH_CODE_VERSION");
