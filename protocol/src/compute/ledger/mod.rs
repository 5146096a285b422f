//! The ledger: what has become of each job, a fold over the durable log, the same on every node.
//!
//! ```text
//!  submit ──► READY ──commit──► SUCCEEDED              PENDING: something that it waits for has not ended
//!     │         ▲        │
//!     │         │        ├─────► FAILED  ─► the job fails, what has not ended is CANCELLED
//!     └► PENDING┘        └─────► SKIPPED ─► what reads it is SKIPPED, or goes without
//!
//!  lease ──► who drives the job; commits of others do not count
//! ```
//!
//! [`State`] is a [projection](crate::projection) of the entries of category [`CATEGORY`]. That a task is running is
//! not in it: only its driver knows, and a second run does no harm.
//!
//! # Which commit counts
//! A task may be committed more than once: a driver was believed dead, or two halves of a mesh went on alone. Each
//! commit names the digest of what the task has read. Of those whose inputs are what the ledger
//! says by now,
//!
//! 1. a success counts before a failure,
//! 2. then the one that comes first in the total order of entries (step, author, sequence number).
//!
//! A commit that comes late and first may so change a result. What has read the old one does not count any more,
//! and is done again. Operations are deterministic, so the results are nearly always equal, and nothing changes.
//!
//! Only who drives can commit: the submitter, and who has *taken* the job before, in its own log.
//!
//! # Who drives
//! The submitter first. When it is dead or silent for longer than its lease, the first of those that are alive in the order
//! of [`JobId::rendezvous`](super::JobId::rendezvous) takes the job. The holder is the author of the last
//! take, in the total order; every entry about the job extends its lease. Two may believe to be the driver at once: they
//! waste work, and commit nothing twice.
//!
//! # Rounds
//! A retry begins a new round: failures and cancellations of earlier rounds do not count any more, successes do.
//!
//! # When a log is cut
//! Jobs that the lost entries have touched are dropped, and all entries applied once more.
//!
//! # Bounds
//! A payload is bounded, a job has at most [`Quota::MOST`](super::job::Quota::MOST) tasks, a task sixteen commits of each
//! author in each round. A task takes room only when something was said about it or about what it reads, so that memory is in
//! proportion to the bytes of the entries. How many jobs there are is bounded by the log alone, and by [`State::compact`].
//!
//! # Not here
//! Whether results are right: drivers have them verified ([`driver`](super::driver)).

mod cell;
mod operation;
mod snapshot;
mod state;
mod view;

pub use cell::{Holder, Record};
pub(crate) use operation::cut_detail;
pub use operation::{
    COMMITS_MAX, CancelReason, Commit, DETAIL_BYTES_MAX, FailReason, LEASE_JOBS_MAX, LEASE_STEPS_MAX,
    OPERATION_BYTES_MAX, Operation, Outcome, WORKERS_MAX,
};
pub use state::{Change, State};
pub use view::{Counts, JobState, JobView, Part, TaskState};

/// The channel of the durable envelopes whose payloads are operations.
pub const CATEGORY: &str = "job";
