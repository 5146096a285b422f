//! What is kept of one job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use crate::compute::id::{JobId, TaskRef};
use crate::compute::job::{JobSpec, Plan};
use crate::id::{Hash, NodeId, Seq, Step};
use crate::projection::Stamp;

use super::operation::{CancelReason, Commit, Operation, Outcome};
use super::view::{Touched, View};

/// Highest round of a job. Default: guess.
pub(super) const ROUNDS_MAX: u32 = 1000;
/// How many commits of one author, task and round are kept. Default: guess; an honest driver makes one of each task, and one more
/// each time that another changes under its hands what the task reads.
const COMMITS_KEPT: usize = 16;
/// For how many steps from the submission on the submitter need not renew. Default: guess.
pub(super) const FIRST_LEASE_STEPS: u64 = 60;

/// A commit, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the total order.
    pub stamp: Stamp,
    /// The round of the job that its author knew of.
    pub round: u32,
    /// What it says.
    pub commit: Commit,
}

/// Who drives a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub node: NodeId,
    /// The last step of its lease.
    pub until: Step,
    /// Its take; `None` for a submitter that has not taken its own job back.
    pub taken: Option<Stamp>,
}

/// That there is a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Submission {
    pub(super) stamp: Stamp,
    pub(super) spec: Arc<JobSpec>,
    pub(super) plan: Arc<Plan>,
    /// Follows from this and the rest of the cell.
    pub(super) view: View,
}

/// A place in one author's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    step: Step,
    seq: Seq,
}

impl Place {
    pub(super) const fn of(stamp: &Stamp) -> Self {
        Place { step: stamp.step, seq: stamp.seq }
    }

    pub(super) const fn by(self, author: NodeId) -> Stamp {
        Stamp { step: self.step, author, seq: self.seq }
    }
}

/// What is kept of one author, beside its commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Its first and its last take.
    pub(super) takes: Option<[Place; 2]>,
    /// To which step its word holds.
    pub(super) until: Option<Step>,
    /// Its last entry that touched the job.
    pub(super) version: Option<Seq>,
}

/// What is kept of each author, sorted. Anybody may name jobs that there are not, many in one entry: what is kept of such a
/// job is some hundred bytes in one piece, where a map takes a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(Vec<(NodeId, Word)>);

impl Words {
    pub(super) fn get(&self, author: &NodeId) -> Option<&Word> {
        let place = self.0.binary_search_by_key(author, |(author, _)| *author).ok()?;
        self.0.get(place).map(|(_, word)| word)
    }

    pub(super) fn of(&mut self, author: NodeId) -> &mut Word {
        let place = self.0.binary_search_by_key(&author, |(author, _)| *author).unwrap_or_else(|place| {
            if self.0.len() == self.0.capacity() {
                self.0.reserve_exact((self.0.len() / 2).max(1));
            }
            self.0.insert(place, (author, Word::default()));
            place
        });
        &mut self.0[place].1
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Word)> {
        self.0.iter().map(|(author, word)| (*author, word))
    }

    /// The first and the last take of each.
    pub(super) fn takes(&self) -> impl Iterator<Item = [Stamp; 2]> + '_ {
        self.iter().filter_map(|(author, word)| Some(word.takes?.map(|place| place.by(author))))
    }
}

/// Of which of several commits only the first is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    task: TaskRef,
    round: u32,
    author: NodeId,
    inputs: Hash,
    is_failure: bool,
}

impl Key {
    fn of(record: &Record) -> Self {
        Key {
            task: record.commit.task,
            round: record.round,
            author: record.stamp.author,
            inputs: record.commit.inputs,
            is_failure: matches!(record.commit.outcome, Outcome::Failed { .. }),
        }
    }

    const fn first(task: TaskRef) -> Self {
        let (author, inputs) = (NodeId::from_bytes([0; 32]), Hash::from_bytes([0; 32]));
        Key { task, round: 0, author, inputs, is_failure: false }
    }

    const fn last(task: TaskRef) -> Self {
        let (author, inputs) = (NodeId::from_bytes([0xff; 32]), Hash::from_bytes([0xff; 32]));
        Key { task, round: u32::MAX, author, inputs, is_failure: true }
    }

    /// All of this author, task and round.
    const fn like(self) -> std::ops::RangeInclusive<Self> {
        let (first, last) = (Self::first(self.task), Self::last(self.task));
        let (round, author) = (self.round, self.author);
        Key { round, author, ..first }..=Key { round, author, ..last }
    }
}

/// A commit that is kept, and its place among those of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    at: usize,
    record: Record,
}

/// What is kept of the commits of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commits(BTreeMap<Key, Kept>);

impl Commits {
    /// Takes in a commit, `at` its place among those of its entry. Of one author, task and round only the first of each
    /// outcome is kept for each input, and of those the first [`COMMITS_KEPT`]: the same ones in whatever order they come.
    pub(super) fn insert(&mut self, at: usize, record: Record) {
        let key = Key::of(&record);
        match self.0.get_mut(&key) {
            Some(known) if known.record.stamp <= record.stamp => return,
            Some(known) => {
                *known = Kept { at, record };
                return;
            }
            None => {}
        }
        let like = || self.0.range(key.like());
        if like().count() >= COMMITS_KEPT {
            let last = like().max_by_key(|(_, kept)| (kept.record.stamp, kept.at));
            // If it is of the same entry it was left out before, or comes later.
            match last.map(|(last, kept)| (*last, kept.record.stamp)) {
                Some((last, stamp)) if record.stamp < stamp => drop(self.0.remove(&last)),
                _ => return,
            }
        }
        self.0.insert(key, Kept { at, record });
    }

    /// All of a task.
    pub(super) fn of(&self, task: TaskRef) -> impl Iterator<Item = &Record> + Clone {
        self.0.range(Key::first(task)..=Key::last(task)).map(|(_, kept)| &kept.record)
    }

    /// Those of a task in the order of a snapshot: by stamp, and those of one entry in the reverse of their order there.
    pub(super) fn in_order(&self) -> Vec<&Record> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by_key(|kept| (kept.record.commit.task, kept.record.stamp, std::cmp::Reverse(kept.at)));
        all.into_iter().map(|kept| &kept.record).collect()
    }

    fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.values().map(|kept| &kept.record)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct JobCell {
    pub(super) submission: Option<Box<Submission>>,
    pub(super) words: Words,
    /// The retry that began each round.
    pub(super) rounds: BTreeMap<u32, Stamp>,
    pub(super) cancels: BTreeMap<u32, (Stamp, CancelReason, String)>,
    pub(super) finishes: BTreeMap<u32, Stamp>,
    pub(super) commits: Commits,
    pub(super) digest: OnceLock<Hash>,
}

impl JobCell {
    /// True if what its author writes there counts: it has submitted or taken the job before, in its own log. That
    /// does not depend on what was applied meanwhile.
    fn may_drive(&self, stamp: &Stamp) -> bool {
        let submitted = self.submission.as_ref().map(|submission| submission.stamp);
        let submitted = submitted.filter(|first| first.author == stamp.author);
        let taken = self.words.get(&stamp.author).and_then(|word| Some(word.takes?[0].by(stamp.author)));
        [submitted, taken].into_iter().flatten().any(|first| first.seq < stamp.seq)
    }

    /// The last round that began after all before it.
    pub(super) fn round(&self) -> u32 {
        (1..)
            .zip(self.rounds.keys())
            .take_while(|(expected, round)| expected == *round)
            .count()
            .try_into()
            .unwrap_or(0)
    }

    /// When the round began.
    pub(super) fn began(&self) -> Step {
        let submitted = self.submission.as_ref().map_or(Step(0), |submission| submission.stamp.step);
        self.rounds.get(&self.round()).map_or(submitted, |stamp| stamp.step)
    }

    pub(super) fn cancelled(&self) -> Option<&(Stamp, CancelReason, String)> {
        self.cancels.get(&self.round())
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        let submitter = self.submission.as_ref()?.stamp;
        let taken = self.words.takes().map(|[_, last]| last).max();
        let node = taken.map_or(submitter.author, |stamp| stamp.author);
        let until = self.words.get(&node).and_then(|word| word.until).unwrap_or_default();
        Some(Holder { node, until, taken })
    }

    fn extend(&mut self, stamp: &Stamp, steps: u64) {
        let until = &mut self.words.of(stamp.author).until;
        *until = (*until).max(Some(stamp.step.saturating_add(steps)));
    }

    pub(super) fn submit(&mut self, stamp: Stamp, spec: JobSpec, plan: Plan) -> Touched {
        self.extend(&stamp, FIRST_LEASE_STEPS);
        if let Some(known) = &mut self.submission {
            known.stamp = known.stamp.min(stamp);
            return Touched::Nothing;
        }
        // What the job does not have was kept only as long as nobody knew.
        self.commits.0.retain(|key, _| plan.contains(key.task));
        let view = View::new(&plan);
        self.submission =
            Some(Box::new(Submission { stamp, spec: Arc::new(spec), plan: Arc::new(plan), view }));
        Touched::All
    }

    pub(super) fn lease(&mut self, stamp: &Stamp, is_taken: bool, steps: u64) {
        if is_taken {
            let place = Place::of(stamp);
            let [first, last] = self.words.of(stamp.author).takes.get_or_insert([place; 2]);
            (*first, *last) = ((*first).min(place), (*last).max(place));
        }
        self.extend(stamp, steps);
    }

    /// Takes an operation on the job in. It has no effect if its author does not drive the job or the round is out of range.
    pub(super) fn perform(&mut self, stamp: &Stamp, operation: Operation) -> Touched {
        let may_drive = self.may_drive(stamp);
        match operation {
            Operation::Commit { round, commits, .. } if may_drive && round <= ROUNDS_MAX => {
                self.extend(stamp, FIRST_LEASE_STEPS);
                let mut tasks = Vec::new();
                for (at, commit) in commits.into_iter().enumerate() {
                    if self.has(commit.task) {
                        tasks.push(commit.task);
                        self.commits.insert(at, Record { stamp: *stamp, round, commit });
                    }
                }
                return Touched::Tasks(tasks);
            }
            Operation::Cancel { round, reason, detail, .. } if round <= ROUNDS_MAX => {
                let first = self.cancels.entry(round).or_insert_with(|| (*stamp, reason, detail.clone()));
                if *stamp < first.0 {
                    *first = (*stamp, reason, detail);
                }
            }
            Operation::Retry { round, .. } if (1..=ROUNDS_MAX).contains(&round) => {
                let before = self.round();
                let first = self.rounds.entry(round).or_insert(*stamp);
                *first = (*first).min(*stamp);
                return self.begun(before);
            }
            Operation::Finish { round, .. } if may_drive && round <= ROUNDS_MAX => {
                let first = self.finishes.entry(round).or_insert(*stamp);
                *first = (*first).min(*stamp);
            }
            _ => {}
        }
        Touched::Nothing
    }

    /// True if the job has this task, or nobody knows yet.
    pub(super) fn has(&self, task: TaskRef) -> bool {
        self.submission.as_ref().is_none_or(|of| of.plan.contains(task))
    }

    /// What a new round is a matter for: tasks with a failure in it or in the one before. Nothing, if there is none.
    fn begun(&self, before: u32) -> Touched {
        let now = self.round();
        if now == before {
            return Touched::Nothing;
        }
        let failed = |key: &&Key| key.is_failure && [before, now].contains(&key.round);
        Touched::Tasks(self.commits.0.keys().filter(failed).map(|key| key.task).collect())
    }

    /// The commits of a task that are kept.
    pub(super) fn records(&self, task: TaskRef) -> impl Iterator<Item = &Record> + Clone {
        self.commits.of(task)
    }

    /// The chunks of a family of which there are commits.
    pub(super) fn committed(&self, family: u16) -> impl Iterator<Item = u32> + '_ {
        let (first, last) = (TaskRef::new(family, 0), TaskRef::new(family, u32::MAX));
        self.commits.0.range(Key::first(first)..=Key::last(last)).map(|(key, _)| key.task.chunk)
    }

    /// All that were said to have signed a wrong result.
    pub(super) fn dissenters(&self) -> BTreeSet<NodeId> {
        self.commits.iter().flat_map(|record| record.commit.dissenters.iter().copied()).collect()
    }

    pub(super) fn digest(&self, job: &JobId) -> Hash {
        *self.digest.get_or_init(|| super::snapshot::cell_digest(job, self))
    }
}
