//! What is kept of one job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use crate::compute::id::{JobId, TaskRef};
use crate::compute::job::{JobSpec, Plan};
use crate::id::{Hash, NodeId, Seq, Step};
use crate::projection::Stamp;

use super::operation::{CancelReason, Commit, Operation, Outcome};
use super::view::View;

/// Highest round of a job. Default: guess.
pub(super) const ROUNDS_MAX: u32 = 1000;
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
}

#[derive(Clone, Debug, Default)]
pub(super) struct JobCell {
    pub(super) submission: Option<Submission>,
    /// The first and the last take of each author.
    pub(super) takes: BTreeMap<NodeId, (Stamp, Stamp)>,
    /// To which step each author's word holds.
    pub(super) until: BTreeMap<NodeId, Step>,
    /// The retry that began each round.
    pub(super) rounds: BTreeMap<u32, Stamp>,
    pub(super) cancels: BTreeMap<u32, (Stamp, CancelReason, String)>,
    pub(super) finishes: BTreeMap<u32, Stamp>,
    /// Of each task, in the total order.
    pub(super) commits: BTreeMap<TaskRef, Vec<Record>>,
    /// The last entry of each author that touched the job.
    pub(super) versions: BTreeMap<NodeId, Seq>,
    /// Follows from the above.
    pub(super) view: View,
    pub(super) digest: OnceLock<Hash>,
}

impl JobCell {
    /// True if what its author writes there counts: it has submitted or taken the job before, in its own log. That
    /// does not depend on what was applied meanwhile.
    fn may_drive(&self, stamp: &Stamp) -> bool {
        let submitted = self.submission.as_ref().map(|submission| submission.stamp);
        let submitted = submitted.filter(|first| first.author == stamp.author);
        let taken = self.takes.get(&stamp.author).map(|(first, _)| *first);
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
        let taken = self.takes.values().map(|(_, last)| *last).max();
        let node = taken.map_or(submitter.author, |stamp| stamp.author);
        let until = self.until.get(&node).copied().unwrap_or_default();
        Some(Holder { node, until, taken })
    }

    fn extend(&mut self, stamp: &Stamp, steps: u64) {
        let until = self.until.entry(stamp.author).or_default();
        *until = (*until).max(stamp.step.saturating_add(steps));
    }

    pub(super) fn submit(&mut self, submission: Submission) {
        self.extend(&submission.stamp, FIRST_LEASE_STEPS);
        match &mut self.submission {
            Some(known) => known.stamp = known.stamp.min(submission.stamp),
            None => {
                self.view = View::new(&submission.spec, &submission.plan);
                self.submission = Some(submission);
            }
        }
    }

    pub(super) fn lease(&mut self, stamp: &Stamp, is_taken: bool, steps: u64) {
        if is_taken {
            let (first, last) = self.takes.entry(stamp.author).or_insert((*stamp, *stamp));
            (*first, *last) = ((*first).min(*stamp), (*last).max(*stamp));
        }
        self.extend(stamp, steps);
    }

    /// Takes an operation on the job in; false if it has no effect, for its author does not drive the job or the
    /// round is out of range.
    pub(super) fn perform(&mut self, stamp: &Stamp, operation: Operation) -> bool {
        let may_drive = self.may_drive(stamp);
        match operation {
            Operation::Commit { round, commits, .. } if may_drive => {
                self.extend(stamp, FIRST_LEASE_STEPS);
                commits.into_iter().for_each(|commit| self.commit(Record { stamp: *stamp, round, commit }));
            }
            Operation::Cancel { round, reason, detail, .. } if round <= ROUNDS_MAX => {
                let first = self.cancels.entry(round).or_insert_with(|| (*stamp, reason, detail.clone()));
                if *stamp < first.0 {
                    *first = (*stamp, reason, detail);
                }
            }
            Operation::Retry { round, .. } if (1..=ROUNDS_MAX).contains(&round) => {
                let first = self.rounds.entry(round).or_insert(*stamp);
                *first = (*first).min(*stamp);
            }
            Operation::Finish { round, .. } if may_drive && round <= ROUNDS_MAX => {
                let first = self.finishes.entry(round).or_insert(*stamp);
                *first = (*first).min(*stamp);
            }
            _ => return false,
        }
        true
    }

    /// Of one author, one task and one input only the first success counts, and the first failure of a round.
    fn commit(&mut self, record: Record) {
        let records = self.commits.entry(record.commit.task).or_default();
        let same = |known: &Record| {
            let outcome = |record: &Record| match record.commit.outcome {
                Outcome::Succeeded(_) => None,
                Outcome::Failed { .. } => Some(record.round),
            };
            known.stamp.author == record.stamp.author
                && known.commit.inputs == record.commit.inputs
                && outcome(known) == outcome(&record)
        };
        match records.iter().position(same) {
            Some(place) if records[place].stamp <= record.stamp => return,
            Some(place) => drop(records.remove(place)),
            None => {}
        }
        let place = records.partition_point(|known| known.stamp < record.stamp);
        records.insert(place, record);
    }

    /// All that were said to have signed a wrong result.
    pub(super) fn dissenters(&self) -> BTreeSet<NodeId> {
        let records = self.commits.values().flatten();
        records.flat_map(|record| record.commit.dissenters.iter().copied()).collect()
    }

    pub(super) fn digest(&self, job: &JobId) -> Hash {
        *self.digest.get_or_init(|| super::snapshot::cell_digest(job, self))
    }
}
