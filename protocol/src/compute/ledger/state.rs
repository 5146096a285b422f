//! The state of the ledger, and how entries of the log change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::compute::id::{JobId, TaskRef};
use crate::compute::job::{JobSpec, Plan, Quota};
use crate::id::{Hash, NodeId, Step};
use crate::machine::Outbox;
use crate::projection::{EntryRef, Frontier, Head, Outcome, Projection, Replay, SnapshotError, Stamp};

use super::cell::JobCell;
use super::operation::Operation;
use super::view::{JobState, JobView, Move, Moves, TaskState, Touched, View};
use super::{CATEGORY, snapshot};

const HASH_CONTEXT: &str = "omnimesh 2026-11 ledger";

/// What an entry of the log changed for those who look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a job.
    Submitted(JobId),
    /// Another node drives it.
    Driver {
        /// Which job.
        job: JobId,
        /// Who.
        node: NodeId,
    },
    /// A task is in another state.
    Task {
        /// Of which job.
        job: JobId,
        /// Which.
        task: TaskRef,
        /// Before.
        old: TaskState,
        /// Now.
        new: TaskState,
    },
    /// Chunks of one family that follow one another have all changed in the same way: as many as a job can have, in one.
    Tasks {
        /// Of which job.
        job: JobId,
        /// The first.
        first: TaskRef,
        /// The chunk after the last.
        to: u32,
        /// Before.
        old: TaskState,
        /// Now.
        new: TaskState,
    },
    /// The job is in another state.
    Job {
        /// Which.
        job: JobId,
        /// Before.
        old: JobState,
        /// Now.
        new: JobState,
    },
    /// A new round has begun.
    Retried {
        /// Of which job.
        job: JobId,
        /// Which.
        round: u32,
    },
    /// The driver has seen the end of the job.
    Finished(JobId),
    /// The job is not known any more: a log was cut, or it is older than the floor.
    Forgotten(JobId),
}

/// All jobs. See the [module](super).
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) jobs: BTreeMap<JobId, JobCell>,
    pub(super) frontier: Frontier,
    /// Jobs whose end no driver has seen. Follows from the above.
    unfinished: BTreeSet<JobId>,
    refused: u64,
}

impl State {
    /// An empty ledger.
    pub fn new() -> Self {
        State::default()
    }

    /// All jobs that were submitted.
    pub fn jobs(&self) -> impl Iterator<Item = JobView<'_>> {
        self.jobs.iter().filter_map(|(id, cell)| JobView::new(*id, cell))
    }

    /// One job.
    pub fn job(&self, id: &JobId) -> Option<JobView<'_>> {
        JobView::new(*id, self.jobs.get(id)?)
    }

    /// Those whose end no driver has seen.
    pub fn unfinished(&self) -> impl Iterator<Item = JobId> + '_ {
        self.unfinished.iter().copied()
    }

    /// How many payloads were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// True if the author's log ends for ever somewhere.
    pub fn is_cut(&self, author: &NodeId) -> bool {
        self.frontier.cuts.contains_key(author)
    }

    /// The step below which all entries of the log are contained or void.
    pub fn floor(&self) -> Step {
        self.frontier.floor
    }

    /// Raises the floor, and forgets jobs that were finished before it. Nodes with the same floor have the same hash.
    ///
    /// Only for who knows that no log will take an entry with a step below `floor` any more, nor be cut below it.
    pub fn compact(&mut self, floor: Step, out: &mut Outbox<Change>) {
        self.frontier.floor = self.frontier.floor.max(floor);
        let floor = self.frontier.floor;
        self.jobs.retain(|id, cell| {
            let last = cell.finishes.get(&cell.round());
            let is_kept = last.is_none_or(|stamp| stamp.step >= floor);
            if !is_kept {
                out.push(Change::Forgotten(*id));
            }
            is_kept
        });
    }

    fn perform(&mut self, stamp: Stamp, operation: Operation, out: &mut Outbox<Change>) -> Outcome {
        match operation {
            Operation::Submit(bytes) => return self.submit(stamp, &bytes, out),
            Operation::Lease { is_taken, steps, jobs } => {
                for job in jobs {
                    self.change(job, &stamp, out, |cell| {
                        cell.lease(&stamp, is_taken, steps);
                        Touched::Nothing
                    });
                }
            }
            Operation::Commit { job, .. }
            | Operation::Cancel { job, .. }
            | Operation::Retry { job, .. }
            | Operation::Finish { job, .. } => {
                self.change(job, &stamp, out, |cell| cell.perform(&stamp, operation));
            }
        }
        Outcome::Applied
    }

    fn submit(&mut self, stamp: Stamp, bytes: &[u8], out: &mut Outbox<Change>) -> Outcome {
        let spec = match JobSpec::decode(bytes) {
            Ok(spec) => spec,
            Err(fault) => return Outcome::Refused(fault.code()),
        };
        let plan = match Plan::new(&spec, &Quota::MOST) {
            Ok(plan) => plan,
            Err(problems) => {
                return Outcome::Refused(problems.first().map_or("bad_job", |problem| problem.code.code()));
            }
        };
        let job = JobId::of(&stamp.author, bytes);
        self.change(job, &stamp, out, |cell| cell.submit(stamp, spec, plan));
        Outcome::Applied
    }

    /// Changes a job, and says what is different then.
    fn change(
        &mut self,
        job: JobId,
        stamp: &Stamp,
        out: &mut Outbox<Change>,
        change: impl FnOnce(&mut JobCell) -> Touched,
    ) {
        let cell = self.jobs.entry(job).or_default();
        let before = Shown::of(cell);
        let touched = change(cell);
        let version = &mut cell.words.of(stamp.author).version;
        *version = (*version).max(Some(stamp.seq));
        cell.digest = OnceLock::new();
        let moves = cell.settle(touched);
        before.report(job, cell, moves, out);
        if cell.submission.is_some() && !cell.finishes.contains_key(&cell.round()) {
            self.unfinished.insert(job);
        } else {
            self.unfinished.remove(&job);
        }
    }

    /// After reading a snapshot: makes anew what follows.
    pub(super) fn derive(&mut self) {
        for (job, cell) in &mut self.jobs {
            let Some(submission) = &mut cell.submission else { continue };
            submission.view = View::new(&submission.plan);
            cell.settle(Touched::All);
            if !cell.finishes.contains_key(&cell.round()) {
                self.unfinished.insert(*job);
            }
        }
    }

    /// For tests: everything that follows from the entries is as if made anew.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let mut anew = self.clone();
        anew.unfinished.clear();
        anew.derive();
        assert_eq!(anew.unfinished, self.unfinished);
        for (job, cell) in &self.jobs {
            assert_eq!(
                anew.jobs[job].submission, cell.submission,
                "the states of {job} follow from its entries"
            );
        }
    }
}

/// What is seen of a job from outside.
struct Shown {
    state: Option<JobState>,
    driver: Option<NodeId>,
    round: u32,
    is_finished: bool,
    is_halted: bool,
}

impl Shown {
    fn of(cell: &JobCell) -> Self {
        let round = cell.round();
        Shown {
            state: cell.state(),
            driver: cell.holder().map(|holder| holder.node),
            round,
            is_finished: cell.submission.is_some() && cell.finishes.contains_key(&round),
            is_halted: cell.submission.is_some() && cell.is_halted(),
        }
    }

    fn report(self, job: JobId, cell: &JobCell, moves: Moves, out: &mut Outbox<Change>) {
        let now = Shown::of(cell);
        if self.state.is_none() && now.state.is_some() {
            out.push(Change::Submitted(job));
        }
        if let Some(node) = now.driver.filter(|node| self.driver != Some(*node)) {
            out.push(Change::Driver { job, node });
        }
        if now.round != self.round {
            out.push(Change::Retried { job, round: now.round });
        }
        let moves = match &cell.submission {
            Some(of) if now.is_halted != self.is_halted => of.view.with_open(&of.plan, &moves),
            _ => moves,
        };
        let shown = |state: TaskState, is_halted: bool| {
            if is_halted && !state.has_ended() { TaskState::Cancelled } else { state }
        };
        for Move { first, to, old, new } in moves.into_values() {
            let (old, new) = (shown(old, self.is_halted), shown(new, now.is_halted));
            if old == new {
                continue;
            }
            out.push(if to - first.chunk > 1 {
                Change::Tasks { job, first, to, old, new }
            } else {
                Change::Task { job, task: first, old, new }
            });
        }
        if let (Some(old), Some(new)) = (self.state.or(Some(JobState::Running)), now.state)
            && old != new
        {
            out.push(Change::Job { job, old, new });
        }
        if now.is_finished && !self.is_finished {
            out.push(Change::Finished(job));
        }
    }
}

impl Projection for State {
    type Change = Change;

    fn apply(&mut self, entry: &EntryRef<'_>, out: &mut Outbox<Change>) -> Outcome {
        if let Err(outcome) = self.frontier.admit(entry) {
            return outcome;
        }
        if entry.category != CATEGORY {
            return Outcome::OtherCategory;
        }
        let outcome = match Operation::decode(entry.payload) {
            Ok(operation) => self.perform(entry.stamp(), operation, out),
            Err(fault) => Outcome::Refused(fault.code()),
        };
        if matches!(outcome, Outcome::Refused(_)) {
            self.refused += 1;
        }
        outcome
    }

    fn cut(&mut self, author: NodeId, end: Option<Head>, out: &mut Outbox<Change>) -> Replay {
        let Some(from) = self.frontier.cut(author, end) else { return Replay::NotNeeded };
        let mut replay = Replay::NotNeeded;
        self.jobs.retain(|job, cell| {
            let version = cell.words.get(&author).and_then(|word| word.version);
            let is_touched = version.is_some_and(|last| last >= from);
            if is_touched {
                replay = Replay::Needed;
                self.unfinished.remove(job);
                out.push(Change::Forgotten(*job));
            }
            !is_touched
        });
        replay
    }

    fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
        for (job, cell) in &self.jobs {
            hasher.update(cell.digest(job).as_bytes());
        }
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    fn heads(&self) -> &BTreeMap<NodeId, Head> {
        &self.frontier.heads
    }

    fn snapshot(&self) -> Vec<u8> {
        snapshot::encode(self)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        *self = snapshot::decode(bytes)?;
        Ok(())
    }
}
