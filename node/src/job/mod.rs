//! A node's jobs, as people and programs see them.

mod history;
mod node;

use std::time::Duration;

use omnimesh_protocol::compute::driver::{self, Refusal};
use omnimesh_protocol::{NodeId, Step, Time};

pub use history::{History, JobEvent};

/// Why nothing became of what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The driver does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A node without a data directory keeps no log, and so no jobs.
    #[error("this node does no jobs: it has no data directory")]
    NoStore,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// What a node knows of jobs at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Which node.
    pub me: NodeId,
    /// Its clock.
    pub now: Time,
    /// The mesh's step, if it knows it.
    pub step: Option<Step>,
    /// How long a step is.
    pub step_interval: Duration,
    /// All jobs, and those that this node drives.
    pub driver: &'a driver::State,
    /// What happened to them, as far as this node has seen it.
    pub history: &'a History,
}
