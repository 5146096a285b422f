//! The simulator: thousands of nodes in one process, in virtual time, repeatable bit for bit.
//!
//! A [`Scenario`](scenario::Scenario) says what there is and what happens; [`model::run`] runs it with the protocol's
//! own machines; an [`Outcome`](outcome::Outcome) says what came of it.
//!
//! ```text
//!  Scenario ──► engine: model (virtual time) ────► Outcome ──► checkers ──► Summary ──► report.html, CSV
//!               or libp2p (real nodes, feature)
//! ```
//!
//! An experiment of one's own: does a mesh whose half drops out for ten seconds lose anything, and does it depend on
//! its degree?
//!
//! ```
//! use std::time::Duration;
//!
//! use omnimesh_sim::checkers;
//! use omnimesh_sim::model::{self, Options};
//! use omnimesh_sim::scenario::{Fault, FaultKind, Scenario, Who};
//! use omnimesh_sim::summary::Summary;
//!
//! let seconds = Duration::from_secs;
//! let mut scenario = Scenario { name: "halves".into(), duration: seconds(60), ..Scenario::default() };
//! scenario.network.nodes = 40;
//! scenario.workload.start = seconds(30);
//! scenario.faults.push(Fault {
//!     at: seconds(12),
//!     until: Some(seconds(22)),
//!     who: Who::Share(0.5),
//!     kind: FaultKind::Partition { one_way: false },
//! });
//! let mut duplicates = Vec::new();
//! for (low, degree) in [(3, 4), (7, 8)] {
//!     (scenario.gossip.mesh_degree_low, scenario.gossip.mesh_degree) = (low, degree);
//!     let outcome = model::run(&scenario, Options::default());
//!     let verdicts = checkers::check(&scenario, &outcome);
//!     assert!(verdicts.iter().all(|verdict| verdict.ok), "{verdicts:#?}");
//!     duplicates.push(Summary::new(&outcome, &verdicts).duplicates);
//! }
//! assert!(duplicates[0] < duplicates[1], "a higher degree costs copies: {duplicates:?}");
//! ```

pub mod checkers;
pub mod detection;
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
