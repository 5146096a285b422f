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
mod node;
pub mod outcome;
mod queue;
pub mod report;
pub mod scenario;
mod simulation;
pub mod stats;
pub mod summary;
mod words;

// The example's outcome is also that of the tests.
#[cfg(test)]
extern crate self as omnimesh_sim;
#[cfg(test)]
#[path = "../examples/report_demo/synthetic.rs"]
mod synthetic;

pub use simulation::{Config, Report, Simulation};
