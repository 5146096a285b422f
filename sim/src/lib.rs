//! The simulator: the node's own protocol machines, many in one process, in virtual time.
//!
//! [`Simulation`] runs the machines of [`omnimesh_protocol`] that the node runs (relay, with router and
//! validator, author and step synchronisation) on a random graph with delays and loss, with real
//! signatures. Time is an event queue: a run is a function of its [`Config`], bit for bit.
//!
//! ```
//! use omnimesh_sim::{Config, Simulation};
//!
//! let report = Simulation::new(Config { nodes: 20, messages: 10, ..Config::default() }).run();
//! assert_eq!(report.deliveries, report.expected);
//! assert_eq!(report.trace_hash, Simulation::new(Config { nodes: 20, messages: 10, ..Config::default() }).run().trace_hash);
//! ```

pub mod checkers;
pub mod experiment;
mod node;
pub mod outcome;
mod queue;
pub mod scenario;
mod simulation;
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

pub use simulation::{Config, Report, Simulation};
