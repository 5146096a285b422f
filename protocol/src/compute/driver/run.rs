//! What a driver knows of a job beyond the ledger.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::compute::id::{AttemptId, BlobRef, TaskKey, TaskRef};
use crate::compute::job::Plan;
use crate::compute::ledger::{Commit, FailReason, JobView, Part};
use crate::compute::placement::{Times, Unplaced};
use crate::compute::statement::VerifiedResults;
use crate::id::{Hash, NodeId};
use crate::time::{Time, nanos};

use super::wants::{Class, Rank, Wants};

/// Durations that are remembered for each family. Default: guess.
const TIMES_MAX: usize = 256;

/// A job that this node drives.
#[derive(Debug)]
pub(super) struct Run {
    /// Tasks that want a worker.
    pub(super) wants: Wants,
    /// How many families follow on each, one after the other.
    heights: Vec<u16>,
    pub(super) active: BTreeMap<TaskRef, Active>,
    /// How long the tasks of each family take.
    pub(super) times: Vec<Times>,
    /// Who was wrong in this job.
    pub(super) banned: BTreeSet<NodeId>,
    /// What is not in the log yet.
    pub(super) commits: Vec<Commit>,
    pub(super) is_finishing: bool,
    pub(super) is_cancelling: bool,
    /// Tasks that wait for an output to be made again, by the task that makes it.
    pub(super) blocked: BTreeMap<TaskRef, BTreeSet<TaskRef>>,
    /// Why the last task that could not be placed was not.
    pub(super) held: Option<(TaskRef, Unplaced)>,
    pub(super) attempts: usize,
    /// The tasks that were ready when somebody first said what was done of the job before.
    keys: Option<BTreeMap<TaskKey, TaskRef>>,
}

impl Run {
    pub(super) fn new(plan: &Plan, banned: BTreeSet<NodeId>) -> Self {
        Run {
            wants: Wants::default(),
            heights: heights(plan),
            active: BTreeMap::new(),
            times: (0..plan.families()).map(|_| Times::new(TIMES_MAX)).collect(),
            banned,
            commits: Vec::new(),
            is_finishing: false,
            is_cancelling: false,
            blocked: BTreeMap::new(),
            held: None,
            attempts: 0,
            keys: None,
        }
    }

    /// The median duration of a family.
    pub(super) fn typical(&self, task: TaskRef) -> Option<Duration> {
        self.times.get(usize::from(task.task))?.quantile(500)
    }

    /// The task with this key, of those that were ready when this was first asked.
    pub(super) fn of_key(&mut self, key: &TaskKey, view: &JobView<'_>) -> Option<TaskRef> {
        let keys = self.keys.get_or_insert_with(|| {
            let job = view.id();
            let key = |task| Some((TaskKey::of(&job, task, 0, &view.inputs(task)?), task));
            view.ready().filter_map(key).collect()
        });
        keys.get(key).copied()
    }

    /// Lets those go on that wait for this task to make its output again, unless they wait for others as well.
    pub(super) fn unblock(&mut self, task: TaskRef, now: Time) {
        for waiting in self.blocked.remove(&task).unwrap_or_default() {
            if self.blocked.values().any(|others| others.contains(&waiting)) {
                continue;
            }
            if let Some(active) = self.active.get_mut(&waiting)
                && active.phase == Phase::Blocked
            {
                active.phase = Phase::Open;
                active.failed_on.clear();
            }
            self.settle(waiting, now);
        }
    }

    /// Brings the list of those that want a worker up to date with what this task needs. One whose wait is over waits no more, also if it
    /// needs nobody now: somebody at it may turn out to be a straggler.
    pub(super) fn settle(&mut self, task: TaskRef, now: Time) {
        if let Some(active) = self.active.get_mut(&task)
            && matches!(active.phase, Phase::Waiting(until) if until <= now)
        {
            active.phase = Phase::Open;
        }
        let needs = self.active.get(&task).is_some_and(|active| active.needs(now) > 0);
        if needs {
            self.want(task, now);
        } else {
            self.wants.remove(task);
        }
    }

    /// Puts a task where it belongs among those that want a worker.
    pub(super) fn want(&mut self, task: TaskRef, now: Time) {
        let height = self.heights.get(usize::from(task.task)).copied().unwrap_or(0);
        let (class, takes) = match self.active.get(&task) {
            None => (Class::New, 0),
            Some(active) if active.votes.is_empty() && active.attempts.is_empty() => (Class::New, 0),
            Some(active) => {
                let takes = active.takes(now);
                let is_long = self.typical(task).is_some_and(|typical| takes >= typical);
                let is_long = is_long || !active.may_wait || active.voters > active.redundancy;
                (if is_long { Class::Long } else { Class::Short }, nanos(takes))
            }
        };
        self.wants.insert(task, Rank { height: Reverse(height), class, takes: Reverse(takes) });
    }
}

/// How many families follow on each, one after the other.
fn heights(plan: &Plan) -> Vec<u16> {
    let mut heights = vec![0_u16; plan.families()];
    for family in plan.order().iter().rev() {
        let behind = plan.waiters(*family).iter().map(|(waiter, _)| heights[usize::from(*waiter)] + 1);
        heights[usize::from(*family)] = behind.max().unwrap_or(0);
    }
    heights
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Workers are asked.
    Open,
    /// It is to be tried again then.
    Waiting(Time),
    /// Outputs that it reads are being made again.
    Blocked,
    /// The outcome is on its way into the log.
    Decided(Option<Hash>),
}

/// A task that is being done.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) key: TaskKey,
    pub(super) inputs: Hash,
    pub(super) stage: u8,
    pub(super) parts: Arc<[Part]>,
    /// The blobs that it reads.
    pub(super) blobs: Vec<BlobRef>,
    pub(super) phase: Phase,
    pub(super) attempts: SmallVec<[Attempt; 1]>,
    pub(super) votes: SmallVec<[Vote; 1]>,
    /// How many have to be asked at least.
    pub(super) redundancy: u8,
    /// How many are asked by now: more after ties.
    pub(super) voters: u8,
    /// Some more were asked than have to agree, in case one of them is slow or a liar.
    pub(super) is_hedged: bool,
    /// The job asked for several workers: those after the first may come later, when it is known how long it takes.
    pub(super) may_wait: bool,
    /// Attempts beside those that are needed that were wanted so far and have not come back.
    pub(super) copies: u8,
    pub(super) failures: u16,
    pub(super) losses: u16,
    /// Who could not do it just now: others are asked first.
    pub(super) failed_on: SmallVec<[NodeId; 1]>,
    /// Who says that the task itself is at fault: not asked again while others have done it, or are at it.
    pub(super) faulted_on: SmallVec<[NodeId; 1]>,
    /// The output is known; it is only to be made again.
    pub(super) restores: Option<BlobRef>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) id: AttemptId,
    pub(super) worker: NodeId,
    pub(super) assigned: Time,
    pub(super) started: Option<Time>,
    /// It does not count among those that are needed: it takes long and another one was asked for, or its worker only says that it has
    /// done it.
    pub(super) is_extra: bool,
    /// Its worker did it for another driver, or is at it: how long that takes is for the worker to say.
    pub(super) is_recalled: bool,
}

impl Attempt {
    pub(super) fn since(&self, now: Time) -> Duration {
        now.since(self.started.unwrap_or(self.assigned))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Vote {
    pub(super) worker: NodeId,
    /// How long it took, as the driver has seen it.
    pub(super) took: Duration,
    pub(super) result: BlobRef,
    pub(super) signed: VerifiedResults,
    pub(super) cpu_ms: u64,
    pub(super) wall_ms: u64,
}

impl Active {
    /// How many more workers have to be asked.
    pub(super) fn needs(&self, now: Time) -> usize {
        let is_open = match self.phase {
            Phase::Open => true,
            Phase::Waiting(until) => until <= now,
            Phase::Blocked | Phase::Decided(_) => false,
        };
        let wanted = usize::from(self.voters) + usize::from(self.copies);
        if is_open { wanted.saturating_sub(self.votes.len() + self.attempts.len()) } else { 0 }
    }

    /// How long it takes, as far as is known: as long as the fastest took, or as somebody has been at it.
    pub(super) fn takes(&self, now: Time) -> Duration {
        let done = self.votes.iter().map(|vote| vote.took).min();
        let begun = || self.attempts.iter().filter(|attempt| attempt.started.is_some());
        done.or_else(|| begun().map(|attempt| attempt.since(now)).max()).unwrap_or_default()
    }

    /// Who has done it, or is at it.
    pub(super) fn has_asked(&self, node: &NodeId) -> bool {
        self.attempts.iter().any(|attempt| attempt.worker == *node)
            || self.votes.iter().any(|vote| vote.worker == *node)
    }

    /// Who is not asked now.
    pub(super) fn excludes(&self, node: &NodeId) -> bool {
        self.failed_on.contains(node) || self.faulted_on.contains(node) || self.has_asked(node)
    }

    /// Somebody has failed with it.
    pub(super) fn add_failed(&mut self, worker: NodeId, reason: FailReason) {
        let failed = if reason.is_of_the_worker() { &mut self.failed_on } else { &mut self.faulted_on };
        if !failed.contains(&worker) {
            failed.push(worker);
        }
    }

    /// Somebody has done it, and has something else than is expected: others are asked before him.
    pub(super) fn add_other(&mut self, worker: NodeId) {
        if !self.failed_on.contains(&worker) {
            self.failed_on.push(worker);
        }
    }

    /// Who has failed may try again before nobody does. False if there is nobody.
    pub(super) fn forgive(&mut self) -> bool {
        if self.votes.is_empty() && self.attempts.is_empty() {
            self.failed_on.append(&mut self.faulted_on);
        }
        let any = !self.failed_on.is_empty();
        self.failed_on.clear();
        any
    }

    /// True if it has no more tries. One worker may say again and again that the task is at fault: while more have done it than say so, they
    /// are believed.
    pub(super) fn is_at_fault(&self, retries: u8) -> bool {
        let done = self.leader().map_or(0, |(_, votes)| votes);
        self.failures > u16::from(retries) && self.faulted_on.len() > done
    }

    /// How many have to be asked by what is known: those that have to agree, and one for each vote against the leading result.
    pub(super) fn voters_needed(&self, extra_max: u8) -> u8 {
        let against = self.votes.len() - self.leader().map_or(0, |(_, votes)| votes);
        self.redundancy.saturating_add(u8::try_from(against).unwrap_or(u8::MAX).min(extra_max))
    }

    /// The result that as many have signed as are asked at least.
    pub(super) fn quorum(&self) -> Option<BlobRef> {
        self.leader().filter(|(_, votes)| *votes >= usize::from(self.redundancy)).map(|(result, _)| result)
    }

    /// The result that a strict majority of those asked has signed.
    pub(super) fn majority(&self) -> Option<BlobRef> {
        let asked = self.votes.len().max(usize::from(self.redundancy));
        self.leader().filter(|(_, votes)| votes * 2 > asked).map(|(result, _)| result)
    }

    /// The result that most have signed, and how many.
    pub(super) fn leader(&self) -> Option<(BlobRef, usize)> {
        let votes = |result: &BlobRef| self.votes.iter().filter(|vote| vote.result == *result).count();
        self.votes.iter().map(|vote| (vote.result, votes(&vote.result))).max_by_key(|(_, votes)| *votes)
    }

    /// How many different results there are.
    pub(super) fn results(&self) -> usize {
        self.votes.iter().map(|vote| vote.result).collect::<BTreeSet<_>>().len()
    }
}
