//! A node's jobs, as people and programs see them.
//!
//! ```text
//!   driver::State ──┐                ┌─► document   lists, one job, its tasks, workers
//!   (ledger, runs,  ├─► Seen ────────┼─► graph      SVG
//!    workers)       │      │         ├─► run_log    times, bottleneck, advice: JSON and Markdown
//!   History ────────┘      └─► stats ┴─► why        sentences
//! ```
//!
//! All of it is pure: the same [`Seen`] gives the same documents. Moments are milliseconds since 1970 where people read
//! them; [`Seen::clock`] makes them of this node's clock and of steps, which count from 1970 as well.
//!
//! # What a node can know
//! Results, their times and who made them are in the log, so every node tells them. Attempts, stragglers and why a task is
//! not placed are known to the node that drives the job, and lost with it.

pub mod document;
mod graph;
mod history;
mod markdown;
mod node;
mod run_log;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod why;

use std::time::Duration;

use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::driver::{self, Refusal};
use omnimesh_protocol::compute::ledger::JobView;
use omnimesh_protocol::compute::placement::Unplaced;
use omnimesh_protocol::{NodeId, Step, Time};

pub use graph::graph;
pub use history::{EventKind, History, JobEvent, JobHistory, Tally, TaskTimes};
pub use markdown::markdown;
pub use run_log::run_log;
pub use stats::Stats;
pub use why::{why_job, why_task};

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

/// Why no job was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Not the beginning of an id.
    #[error("{0:?} is not the id of a job")]
    NotAnId(String),
    /// There is no such job.
    #[error("this node knows no job {0}")]
    Unknown(String),
    /// More than one begins so.
    #[error("{count} jobs begin with {text}")]
    Ambiguous {
        /// With what.
        text: String,
        /// How many.
        count: usize,
    },
}

impl<'a> Seen<'a> {
    /// The job whose id this is, or begins with this.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(&self, text: &str) -> Result<JobView<'a>, FindError> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_hex) {
            return Err(FindError::NotAnId(text.to_owned()));
        }
        let ledger = self.driver.ledger();
        if text.len() == 64 {
            let id: Result<JobId, _> = text.parse();
            return id.ok().and_then(|id| ledger.job(&id)).ok_or_else(|| FindError::Unknown(text.to_owned()));
        }
        let mut found = ledger.jobs().filter(|view| view.id().to_string().starts_with(text));
        match (found.next(), found.count()) {
            (None, _) => Err(FindError::Unknown(text.to_owned())),
            (Some(view), 0) => Ok(view),
            (Some(_), more) => Err(FindError::Ambiguous { text: text.to_owned(), count: more + 1 }),
        }
    }

    /// Tells moments to people; `wall_ms` is what a clock on the wall shows at [`Seen::now`].
    pub fn clock(&self, wall_ms: u64) -> Clock {
        let step_ms = u64::try_from(self.step_interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Clock { now: self.now, wall_ms, step_ms }
    }
}

/// Makes milliseconds since 1970 of other moments.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    now: Time,
    wall_ms: u64,
    step_ms: u64,
}

impl Clock {
    /// Of this node's clock.
    pub fn at(&self, time: Time) -> u64 {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (ago, ahead) = (self.now.since(time), time.since(self.now));
        self.wall_ms.saturating_sub(millis(ago)).saturating_add(millis(ahead))
    }

    /// Of the beginning of a step.
    pub fn of_step(&self, step: Step) -> u64 {
        step.0.saturating_mul(self.step_ms)
    }

    /// Of what the log says happened in a step, more exactly if this node has seen it then and not long after: a node that
    /// was away sees what is long past.
    pub fn precisely(&self, step: Step, seen: Option<(Time, Option<Step>)>) -> u64 {
        match seen {
            Some((time, Some(when))) if when.0.abs_diff(step.0) <= STEPS_LATE => self.at(time),
            _ => self.of_step(step),
        }
    }

    /// Now.
    pub fn now(&self) -> u64 {
        self.wall_ms
    }
}

/// An entry that is seen within so many steps was seen as it happened.
const STEPS_LATE: u64 = 2;

/// The stable name of why a task is not placed.
pub(crate) const fn held_code(reason: &Unplaced) -> &'static str {
    match reason {
        Unplaced::NoWorkers => "no_workers",
        Unplaced::NoMatch { .. } => "no_match",
        Unplaced::AllBusy { .. } => "all_busy",
        Unplaced::BreakersOpen { .. } => "breakers_open",
        Unplaced::Excluded { .. } => "excluded",
        Unplaced::TooSlow { .. } => "too_slow",
    }
}

/// What to do about it.
pub(crate) fn held_remedy(reason: &Unplaced) -> &'static str {
    match reason {
        Unplaced::NoWorkers => {
            "start nodes with compute.work = true, or wait until one that takes work has joined"
        }
        Unplaced::NoMatch { .. } => {
            "start a node that has what is missing (labels, region and memory are in the section [compute] of its \
             configuration), or ask for less in `needs` and `limits` and submit the job again"
        }
        Unplaced::AllBusy { .. } => {
            "nothing has to be done: it runs when one has room; more nodes make it sooner"
        }
        Unplaced::BreakersOpen { .. } => {
            "`omnimesh workers` shows which fail; they are tried again by themselves within 2 minutes"
        }
        Unplaced::Excluded { .. } => "start more nodes, or ask for less `redundancy`",
        Unplaced::TooSlow { .. } => "nothing has to be done: others will be done with it sooner",
    }
}
