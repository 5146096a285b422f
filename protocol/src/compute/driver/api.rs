//! What a driver is told and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::author::Ticket;
use crate::compute::id::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use crate::compute::job::{JobSpec, Problem, Quota};
use crate::compute::ledger::{Change, FailReason};
use crate::compute::placement::{Offer, PoolConfig, Unplaced};
use crate::compute::statement::{Evidence, VerifiedResults};
use crate::compute::wire::{Assignment, Failure, ResultItem};
use crate::id::{Hash, NodeId, Step};
use crate::log::Entry;
use crate::projection::Head;
use crate::time::Time;

/// How a driver works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Workers and the choice among them.
    pub pool: PoolConfig,
    /// How much one job may ask for at this node.
    pub quota: Quota,
    /// Jobs that this node has submitted and that have not ended. Default 256 (guess). More are refused.
    pub jobs_max: usize,
    /// Attempts of one job under way. Default: no limit of its own.
    pub job_attempts_max: usize,
    /// How long a step is; deadlines are counted in steps.
    pub step_interval: Duration,
    /// For how many steps a lease holds. Default 60 (guess). It is renewed at the half; what is committed renews it as
    /// well. Shorter costs entries in the log, longer makes a mesh that cannot tell who is dead wait longer.
    pub lease_steps: u64,
    /// After so many steps the next in the order takes a job over that the one before it should have taken. Default
    /// 5 (guess): what an entry needs to get everywhere, and some.
    pub takeover_steps: u64,
    /// How often it looks after attempts. Default 100 ms (guess): waits for retries are as exact as that.
    pub tick: Duration,
    /// Commits in one entry at most. Default 64, the most there is.
    pub commits_max: usize,
    /// An attempt that takes longer than this quantile of the times of its like, in thousandths, ... Default 900.
    pub straggler_per_mille: u16,
    /// ... times this factor, in thousandths, gets a second one. Default 1,500, as Spark's `spark.speculation.multiplier`.
    pub straggler_factor: u64,
    /// While workers are idle anyway, this factor of the median is enough. Default 1,500 (guess).
    pub idle_factor: u64,
    /// So many times have to be known first. Default 5 (guess).
    pub straggler_samples_min: usize,
    /// Additional attempts of a task at once; twice as many while workers are idle anyway. Default 2 (guess).
    pub copies_max: u8,
    /// How much longer than its own limit an attempt may be silent before it counts as lost. Default 15 s (guess): to
    /// fetch inputs. Inputs of which 10 MB/s would take longer than that get that time.
    pub grace: Duration,
    /// How often a task's worker may be lost before it is the task's fault. Default 50 (guess).
    pub losses_max: u16,
    /// How many workers beyond the redundancy may be asked when there is no majority. Default 4 (guess).
    pub voters_extra: u8,
    /// Outputs of at most so many bytes are fetched by the driver's node as well. Default 1 MiB (guess). Others
    /// are made again if their only holder is lost.
    pub keep_bytes_max: u64,
}

impl Config {
    /// Additional attempts of a task at once, now.
    pub(super) fn copies_max_now(&self, is_idle: bool) -> u8 {
        if is_idle { self.copies_max.saturating_mul(2) } else { self.copies_max }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            pool: PoolConfig::default(),
            quota: Quota::default(),
            jobs_max: 256,
            job_attempts_max: usize::MAX,
            step_interval: Duration::from_secs(1),
            lease_steps: 60,
            takeover_steps: 5,
            tick: Duration::from_millis(100),
            commits_max: crate::compute::ledger::COMMITS_MAX,
            straggler_per_mille: 900,
            straggler_factor: 1500,
            idle_factor: 1500,
            straggler_samples_min: 5,
            copies_max: 2,
            grace: Duration::from_secs(15),
            losses_max: 50,
            voters_extra: 4,
            keep_bytes_max: 1 << 20,
        }
    }
}

/// What happens to a driver.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants a job done. Answered by [`Output::Submitted`] or [`Output::Refused`].
    Submit {
        /// What.
        spec: JobSpec,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Somebody wants a job cancelled. Answered by [`Output::Accepted`] or [`Output::Refused`].
    Cancel {
        /// Which.
        job: JobId,
        /// Why, for people.
        detail: String,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Somebody wants what has failed done again. Answered by [`Output::Accepted`] or [`Output::Refused`].
    Retry {
        /// Which.
        job: JobId,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// An entry of the log, of any category; each author's in order.
    Entry(Entry),
    /// An author's log ends there, for ever. See [`Projection::cut`](crate::projection::Projection::cut).
    Cut {
        /// Whose.
        author: NodeId,
        /// The last entry that is left.
        end: Option<Head>,
    },
    /// An [`Output::Append`] was refused; one that was taken comes as an [`Input::Entry`].
    AppendFailed {
        /// Its ticket.
        ticket: Ticket,
    },
    /// A member is alive.
    Up(NodeId),
    /// A member is dead or has left.
    Down(NodeId),
    /// The mesh has come to this step; `None` while the node is not synchronised, or has not read its log yet: it drives
    /// nothing then.
    Step(Option<Step>),
    /// A worker says what it is.
    Offer {
        /// Who.
        from: NodeId,
        /// What.
        offer: Offer,
    },
    /// A worker has done, or is doing, these of a job.
    Has {
        /// Which worker.
        from: NodeId,
        /// Of which job.
        job: JobId,
        /// Tasks with their inputs.
        keys: Vec<TaskKey>,
    },
    /// A worker has begun.
    Started {
        /// Who.
        from: NodeId,
        /// What.
        attempts: Vec<AttemptId>,
    },
    /// A worker has results; its signature was checked.
    Results {
        /// Each attempt with its statement.
        items: Vec<ResultItem>,
        /// The signature over these statements.
        signed: VerifiedResults,
    },
    /// A worker has failed.
    Failed {
        /// Who.
        from: NodeId,
        /// What.
        failures: Vec<Failure>,
    },
    /// A worker cannot be reached any more.
    Gone(NodeId),
    /// This node holds a blob now.
    Holds(Hash),
    /// The shell has nothing else to read: write what is done. To be given when [`State::wants_flush`] says so.
    ///
    /// [`State::wants_flush`]: super::State::wants_flush
    Flush,
    /// A timer has come.
    Timer(Timer),
}

/// A timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Look after attempts. A stale token does nothing.
    Tick(u64),
}

/// What a driver wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Append this to the node's log, in category [`CATEGORY`](crate::compute::ledger::CATEGORY).
    Append {
        /// Comes back if that fails.
        ticket: Ticket,
        /// What.
        payload: Bytes,
    },
    /// The job is in the log of this node.
    Submitted {
        /// Of the submission.
        ticket: Ticket,
        /// Its name.
        job: JobId,
    },
    /// What was wanted is in the log of this node.
    Accepted {
        /// Of the request.
        ticket: Ticket,
    },
    /// It cannot be done.
    Refused {
        /// Of the request.
        ticket: Ticket,
        /// Why.
        reason: Refusal,
    },
    /// Give work to a worker, this node perhaps.
    Assign {
        /// To whom.
        to: NodeId,
        /// What.
        assignments: Vec<Assignment>,
    },
    /// Ask a worker what it has done of jobs for others.
    Ask {
        /// Whom.
        to: NodeId,
        /// Of which.
        jobs: Vec<JobId>,
    },
    /// Tell a worker that it need not go on.
    Cancel {
        /// Whom.
        to: NodeId,
        /// With what.
        attempts: Vec<AttemptId>,
    },
    /// Fetch a blob from one of these and keep it: the mesh would have to make it again if they were lost.
    Keep {
        /// Which.
        blob: BlobRef,
        /// Who has it.
        holders: Vec<NodeId>,
    },
    /// Something happened.
    Event(Event),
    /// A worker has signed a result that the majority does not have.
    Finding(Finding),
    /// The ledger wants all entries once more, see [`Replay::Needed`](crate::projection::Replay::Needed).
    Replay,
    /// Come back then.
    Timer {
        /// When.
        at: Time,
        /// With this.
        timer: Timer,
    },
}

/// Why something cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The job makes no sense, or asks for too much.
    #[error("the job is refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    BadJob(Vec<Problem>),
    /// Too many jobs of this node have not ended.
    #[error("{jobs} jobs of this node have not ended; wait, cancel some, or raise compute.jobs_max")]
    TooManyJobs {
        /// How many.
        jobs: usize,
    },
    /// There is no such job.
    #[error("there is no such job here; see `omnimesh job list`")]
    UnknownJob,
    /// The job has not ended, or has ended, respectively.
    #[error("the job is {0}")]
    WrongState(&'static str),
    /// The log refused it.
    #[error("the log of this node takes no entries at the moment; try again")]
    Log,
    /// The same job is being submitted.
    #[error("this job was submitted already")]
    Twice,
}

/// What a driver tells those who watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The ledger has changed.
    Ledger(Change),
    /// This node drives a job from now on.
    Driving(JobId),
    /// It does not any more.
    NotDriving(JobId),
    /// A task runs at a worker.
    Running {
        /// Of which job.
        job: JobId,
        /// Which.
        task: TaskRef,
        /// Which attempt.
        attempt: AttemptId,
        /// Where.
        worker: NodeId,
    },
    /// A task gets another attempt beside one that takes long.
    Straggler {
        /// Of which job.
        job: JobId,
        /// Which.
        task: TaskRef,
        /// Who takes long.
        worker: NodeId,
        /// How long by now.
        after: Duration,
    },
    /// An attempt has failed.
    AttemptFailed {
        /// Of which job.
        job: JobId,
        /// Which.
        task: TaskRef,
        /// Where.
        worker: NodeId,
        /// Why.
        reason: FailReason,
        /// For people.
        detail: Arc<str>,
        /// True if it will be tried again.
        will_retry: bool,
    },
    /// Workers have signed different results, and more will be asked.
    Tie {
        /// Of which job.
        job: JobId,
        /// Which.
        task: TaskRef,
        /// How many different results.
        results: usize,
    },
    /// An output was lost with its holder, and is made again.
    Restoring {
        /// Of which job.
        job: JobId,
        /// The task that makes it.
        task: TaskRef,
    },
    /// A task cannot be placed.
    Held {
        /// Of which job.
        job: JobId,
        /// Which.
        task: TaskRef,
        /// Why.
        reason: Unplaced,
    },
    /// The breaker of a worker has opened.
    BreakerOpened {
        /// Whose.
        worker: NodeId,
    },
}

/// A worker has signed a result that the majority does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which job.
    pub job: JobId,
    /// Which task.
    pub task: TaskRef,
    /// Who.
    pub accused: NodeId,
    /// What everybody can check; `None` if fewer than two others have signed the result that counts.
    pub evidence: Option<Evidence>,
}
