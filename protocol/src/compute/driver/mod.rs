//! The driver: has the tasks of a job done.
//!
//! ```text
//!               ┌───────────── ledger: READY ◄──────────────── entries of the log ◄───────────┐
//!               ▼                                                                            │
//!   place ─► Assign ─► worker ─► Results ─► votes ─► majority? ─yes─► commits ─Flush─► Append ┘
//!     ▲                   │                            │ tie: one more voter
//!     │                   └─► Failed, silence ─────────┤
//!     └──────── backoff, another worker, fallback ◄────┘            straggler ─► a second attempt
//! ```
//!
//! Every node has a driver and the whole [`ledger`](super::ledger); it is active for the jobs that it holds the lease
//! of. What it knows beyond the ledger (attempts, votes, waits) dies with it; the next driver begins with what is READY, asks all
//! workers what they have done of the job ([`Output::Ask`]), and has it from them again.
//!
//! # Whose result counts
//! A task with redundancy r is done by r different workers. A result counts when r have signed it. For each vote against the
//! leading result one more is asked, at once, up to [`Config::voters_extra`]. So fewer than r
//! liars are not believed, also if they agree on what they say, while r honest workers can be asked. When nobody else
//! can be asked, the result counts that more than half of those asked, and of r at least, have signed; without one, the
//! task waits for other workers. Who has signed another result is reported with what everybody has signed ([`Finding`]), loses its votes
//! on other tasks of the job, is not asked again for this job, and less for others. With redundancy 1 a random share of the
//! tasks ([`JobSpec::spot_check_per_mille`](super::job::JobSpec::spot_check_per_mille)) is done as with 2.
//!
//! # Failures
//! What the task itself has failed with counts against its retries, then its fallback is tried. Who says so is not asked again while others
//! have done it or are at it, and is not believed while more have done it than say so. What the worker has failed with (it died, is
//! silent, cannot fetch) does not count; the task goes to another one, at most [`Config::losses_max`] times, besides copies of what others
//! are at. A lack of room is no failure: the task waits until there is some. So every task ends, with the job's deadline at the latest.
//!
//! # Who comes first
//! What others wait for, then what is long, as far as that is known: where results are compared, the first worker for a task shows it to
//! those that come after, and the copies of the short ones fill the gaps at the end (`wants.rs`).
//!
//! # What takes long
//! An attempt that has not begun is taken back when it waits at a worker that shows to be slow, or when somebody could begin it at
//! once. One that has begun and takes much longer than its like gets a copy elsewhere, while there is room; one that takes
//! somewhat longer only where a slot would be idle otherwise. The first answer counts.
//!
//! # Outputs that were lost
//! An output lives where it was made. When nobody has it any more, and a task that reads it says so, its task is run
//! again, and has to make the same output.
//!
//! # Invariants ([`State::check_invariants`])
//! Each attempt belongs to one task; a worker is asked once for a task at a time; the number of attempts of a task is bounded by
//! its voters and copies; nothing is committed twice by one driver while its first commit counts.
//!
//! # Not here
//! Streams, signatures and blobs: the shell's. Doing tasks: [`worker`](super::worker).

mod api;
mod duty;
mod late;
mod place;
mod results;
mod run;
mod state;
mod wants;

pub use api::{Config, Event, Finding, Input, Output, Refusal, Timer};
pub use state::{Progress, State};
