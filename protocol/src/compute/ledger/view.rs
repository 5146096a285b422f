//! What follows from a job's entries: the state of each task.

use std::collections::{BTreeMap, BTreeSet};

use crate::compute::id::{BlobRef, JobId, TaskRef};
use crate::compute::job::{Align, JobSpec, OnFailure, Plan, Reach, Slot, TaskSpec, WhenMissing};
use crate::id::{Hash, NodeId, Step};
use crate::registry::cbor::Writer;

use super::cell::{Holder, JobCell, Record};
use super::operation::{CancelReason, Outcome};

const INPUTS_CONTEXT: &str = "omnimesh 2026-11 task inputs";
const OUTPUTS_CONTEXT: &str = "omnimesh 2026-11 task outputs";

/// The states of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Something that it waits for has not ended.
    #[default]
    Pending,
    /// It can be done.
    Ready,
    /// It is being done. Only its driver says so.
    Running,
    /// It has an output.
    Succeeded,
    /// It has failed for good, and so has the job.
    Failed,
    /// It has no output, and the job goes on without.
    Skipped,
    /// The job has ended before it.
    Cancelled,
}

impl TaskState {
    /// The name.
    pub const fn code(self) -> &'static str {
        match self {
            TaskState::Pending => "PENDING",
            TaskState::Ready => "READY",
            TaskState::Running => "RUNNING",
            TaskState::Succeeded => "SUCCEEDED",
            TaskState::Failed => "FAILED",
            TaskState::Skipped => "SKIPPED",
            TaskState::Cancelled => "CANCELLED",
        }
    }

    /// True if it has ended; only a new round or a late commit changes it.
    pub const fn has_ended(self) -> bool {
        !matches!(self, TaskState::Pending | TaskState::Ready | TaskState::Running)
    }
}

/// The states of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Some tasks have not ended.
    Running,
    /// All have ended, none has failed.
    Succeeded,
    /// A task has failed.
    Failed,
    /// It was cancelled before its end.
    Cancelled,
}

impl JobState {
    /// The name.
    pub const fn code(self) -> &'static str {
        match self {
            JobState::Running => "RUNNING",
            JobState::Succeeded => "SUCCEEDED",
            JobState::Failed => "FAILED",
            JobState::Cancelled => "CANCELLED",
        }
    }
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait for others.
    pub pending: u32,
    /// Can be done, or are being done.
    pub ready: u32,
    /// Have an output.
    pub succeeded: u32,
    /// Have failed for good.
    pub failed: u32,
    /// Have no output.
    pub skipped: u32,
}

/// What one task is given to read: a part of a blob, or nothing where an output was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes `from` to `to` of a blob.
    Blob {
        /// Which.
        blob: BlobRef,
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
        /// What the ends mean.
        align: Align,
    },
    /// An output that was skipped.
    Missing,
}

/// One task as the entries have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    state: TaskState,
    /// The digest of what it reads, once that is known.
    inputs: Option<Hash>,
    output: Option<BlobRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FamilyView {
    /// Tasks that have ended and let others go on.
    ended: u32,
    /// The digest of all outputs; dropped when one changes.
    outputs: Option<Hash>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    tasks: Vec<Seen>,
    families: Vec<FamilyView>,
    /// The place of each family in the order.
    ranks: Vec<u16>,
    pub(super) counts: Counts,
}

/// A task's state before and after.
pub(super) type Moves = BTreeMap<TaskRef, (TaskState, TaskState)>;

impl View {
    pub(super) fn new(_spec: &JobSpec, plan: &Plan) -> Self {
        let mut ranks = vec![0; plan.families()];
        for (rank, family) in (0_u16..).zip(plan.order()) {
            ranks[usize::from(*family)] = rank;
        }
        View {
            tasks: vec![Seen::default(); plan.total() as usize],
            families: vec![FamilyView::default(); plan.families()],
            ranks,
            counts: Counts { pending: plan.total(), ..Counts::default() },
        }
    }

    fn seen(&self, plan: &Plan, task: TaskRef) -> Option<&Seen> {
        plan.index(task).and_then(|index| self.tasks.get(index))
    }
}

impl Counts {
    fn slot(&mut self, state: TaskState) -> &mut u32 {
        match state {
            TaskState::Pending | TaskState::Running | TaskState::Cancelled => &mut self.pending,
            TaskState::Ready => &mut self.ready,
            TaskState::Succeeded => &mut self.succeeded,
            TaskState::Failed => &mut self.failed,
            TaskState::Skipped => &mut self.skipped,
        }
    }
}

/// Tasks whose state may have changed, those that others wait for first.
type Queue = BTreeSet<(u16, TaskRef)>;

impl JobCell {
    /// Brings the states of these tasks, and of all that follows from them, up to date.
    pub(super) fn settle(&mut self, tasks: impl IntoIterator<Item = TaskRef>) -> Moves {
        let mut moves = Moves::new();
        let Some(submission) = self.submission.clone() else { return moves };
        let (spec, plan) = (&*submission.spec, &*submission.plan);
        let mut view = std::mem::take(&mut self.view);
        let round = self.round();
        let rank = |view: &View, task: TaskRef| (view.ranks[usize::from(task.task)], task);
        let mut queue: Queue =
            tasks.into_iter().filter(|task| plan.contains(*task)).map(|task| rank(&view, task)).collect();
        while let Some((_, task)) = queue.pop_first() {
            let index = plan.index(task).expect("only tasks of the plan are in the queue");
            let new = self.evaluate(&mut view, spec, plan, round, task);
            if view.tasks[index] == new {
                continue;
            }
            let old = std::mem::replace(&mut view.tasks[index], new.clone());
            moves.entry(task).or_insert((old.state, new.state)).1 = new.state;
            *view.counts.slot(old.state) -= 1;
            *view.counts.slot(new.state) += 1;
            let opens = |state| matches!(state, TaskState::Succeeded | TaskState::Skipped);
            let family = &mut view.families[usize::from(task.task)];
            let was_complete = family.ended == plan.count(task.task);
            family.ended = family.ended + u32::from(opens(new.state)) - u32::from(opens(old.state));
            family.outputs = None;
            let is_complete = family.ended == plan.count(task.task);
            for &(waiter, reach) in plan.waiters(task.task) {
                match reach {
                    Reach::Group(group) => {
                        queue.insert(rank(&view, TaskRef::new(waiter, task.chunk / group)));
                    }
                    Reach::All if was_complete || is_complete => {
                        queue.extend(
                            (0..plan.count(waiter)).map(|chunk| rank(&view, TaskRef::new(waiter, chunk))),
                        );
                    }
                    Reach::All => {}
                }
            }
        }
        self.view = view;
        moves.retain(|_, (old, new)| old != new);
        moves
    }

    fn evaluate(&self, view: &mut View, spec: &JobSpec, plan: &Plan, round: u32, task: TaskRef) -> Seen {
        let waits = plan.waits(task.task);
        let is_open = |view: &View, wait: &crate::compute::job::Wait| match wait.reach {
            Reach::All => view.families[usize::from(wait.task)].ended == plan.count(wait.task),
            Reach::Group(_) => plan.reach(task.chunk, wait).all(|chunk| {
                let seen = view.seen(plan, TaskRef::new(wait.task, chunk));
                seen.is_some_and(|seen| matches!(seen.state, TaskState::Succeeded | TaskState::Skipped))
            }),
        };
        if !waits.iter().all(|wait| is_open(view, wait)) {
            return Seen::default();
        }
        let of = &spec.tasks[usize::from(task.task)];
        let (mut present, mut absent) = (0_u32, 0_u32);
        for wait in waits.iter().filter(|wait| wait.is_read) {
            for chunk in plan.reach(task.chunk, wait) {
                let seen = view.seen(plan, TaskRef::new(wait.task, chunk));
                match seen.and_then(|seen| seen.output) {
                    Some(_) => present += 1,
                    None => absent += 1,
                }
            }
        }
        let has_nothing = present == 0 && !of.reads_input();
        if absent > 0 && (of.when_missing == WhenMissing::Skip || has_nothing) {
            return Seen { state: TaskState::Skipped, ..Seen::default() };
        }
        let inputs = inputs(view, spec, plan, task);
        let counting = self.counting(spec, round, task, &inputs);
        let (state, output) = match counting.map(|record| &record.commit.outcome) {
            None => (TaskState::Ready, None),
            Some(Outcome::Succeeded(blob)) => (TaskState::Succeeded, Some(*blob)),
            Some(Outcome::Failed { .. }) if of.on_failure == OnFailure::Skip => (TaskState::Skipped, None),
            Some(Outcome::Failed { .. }) => (TaskState::Failed, None),
        };
        Seen { state, inputs: Some(inputs), output }
    }

    /// The commit that counts for a task with these inputs.
    fn counting(&self, spec: &JobSpec, round: u32, task: TaskRef, inputs: &Hash) -> Option<&Record> {
        let last_stage = spec.tasks[usize::from(task.task)].last_stage();
        let records = self.commits.get(&task)?;
        let fits = |record: &&Record| record.commit.inputs == *inputs && record.commit.stage <= last_stage;
        let is_success = |record: &&Record| matches!(record.commit.outcome, Outcome::Succeeded(_));
        let failed = |record: &&Record| record.round == round && record.commit.stage == last_stage;
        let success = records.iter().filter(fits).find(is_success);
        success.or_else(|| records.iter().filter(fits).find(failed))
    }

    /// True if what has not ended will not be done.
    fn is_halted(&self) -> bool {
        self.view.counts.failed > 0 || self.cancelled().is_some()
    }

    pub(super) fn state(&self) -> Option<JobState> {
        self.submission.as_ref()?;
        let counts = &self.view.counts;
        Some(if counts.failed > 0 {
            JobState::Failed
        } else if counts.pending + counts.ready == 0 {
            JobState::Succeeded
        } else if self.cancelled().is_some() {
            JobState::Cancelled
        } else {
            JobState::Running
        })
    }

    /// As it is shown: what has not ended in a job that has is cancelled.
    pub(super) fn shown(&self, state: TaskState) -> TaskState {
        if self.is_halted() && !state.has_ended() { TaskState::Cancelled } else { state }
    }

    /// The tasks that have not ended.
    pub(super) fn open_tasks(&self) -> Vec<(TaskRef, TaskState)> {
        let Some(submission) = &self.submission else { return Vec::new() };
        let tasks = submission.plan.tasks().zip(&self.view.tasks);
        tasks.filter(|(_, seen)| !seen.state.has_ended()).map(|(task, seen)| (task, seen.state)).collect()
    }
}

/// The digest of what a task reads, once all of it is known.
fn inputs(view: &mut View, spec: &JobSpec, plan: &Plan, task: TaskRef) -> Hash {
    let mut writer = Writer::default();
    let slots = plan.slots(spec, task);
    writer.array(slots.len());
    for slot in slots {
        match slot {
            Slot::Blob { blob, from, to, align } => {
                writer.array(6);
                writer.unsigned(0);
                blob.write(&mut writer);
                writer.unsigned(from);
                writer.unsigned(to);
                align.write(&mut writer);
            }
            Slot::Outputs { task: family, from, to } => {
                let is_whole = from == 0 && to == plan.count(family);
                let known = view.families[usize::from(family)].outputs.filter(|_| is_whole);
                let digest = known.unwrap_or_else(|| outputs(view, plan, family, from, to));
                if is_whole {
                    view.families[usize::from(family)].outputs = Some(digest);
                }
                writer.array(2);
                writer.unsigned(1);
                writer.bytes(digest.as_bytes());
            }
        }
    }
    let digest = blake3::Hasher::new_derive_key(INPUTS_CONTEXT).update(&writer.bytes).finalize();
    Hash::from_bytes(*digest.as_bytes())
}

fn outputs(view: &View, plan: &Plan, family: u16, from: u32, to: u32) -> Hash {
    let mut writer = Writer::default();
    writer.array((to - from) as usize);
    for chunk in from..to {
        match view.seen(plan, TaskRef::new(family, chunk)).and_then(|seen| seen.output) {
            Some(blob) => {
                writer.array(2);
                blob.write(&mut writer);
            }
            None => writer.null(),
        }
    }
    let digest = blake3::Hasher::new_derive_key(OUTPUTS_CONTEXT).update(&writer.bytes).finalize();
    Hash::from_bytes(*digest.as_bytes())
}

/// A job, to be read.
#[derive(Clone, Copy, Debug)]
pub struct JobView<'a> {
    pub(super) id: JobId,
    pub(super) cell: &'a JobCell,
    pub(super) spec: &'a JobSpec,
    pub(super) plan: &'a Plan,
}

impl<'a> JobView<'a> {
    pub(super) fn new(id: JobId, cell: &'a JobCell) -> Option<Self> {
        let submission = cell.submission.as_ref()?;
        Some(JobView { id, cell, spec: &submission.spec, plan: &submission.plan })
    }

    /// Its name.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// What it says.
    pub fn spec(&self) -> &'a JobSpec {
        self.spec
    }

    /// What that means.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Who submitted it.
    pub fn submitter(&self) -> NodeId {
        self.submission().author
    }

    /// When.
    pub fn submitted(&self) -> Step {
        self.submission().step
    }

    fn submission(&self) -> crate::projection::Stamp {
        self.cell.submission.as_ref().expect("a view is made of a job that was submitted").stamp
    }

    /// Its state.
    pub fn state(&self) -> JobState {
        self.cell.state().expect("a view is made of a job that was submitted")
    }

    /// How many tasks are in which state.
    pub fn counts(&self) -> Counts {
        self.cell.view.counts
    }

    /// The round: 0, and one more with each retry.
    pub fn round(&self) -> u32 {
        self.cell.round()
    }

    /// When the round began: with the submission, or with a retry.
    pub fn began(&self) -> Step {
        self.cell.began()
    }

    /// Why it was cancelled in this round.
    pub fn cancelled(&self) -> Option<(CancelReason, &'a str)> {
        self.cell.cancelled().map(|(_, reason, detail)| (*reason, detail.as_str()))
    }

    /// Who drives it.
    pub fn holder(&self) -> Holder {
        self.cell.holder().expect("a view is made of a job that was submitted")
    }

    /// True if its driver has seen the end of this round.
    pub fn is_finished(&self) -> bool {
        self.cell.finishes.contains_key(&self.cell.round())
    }

    /// When its driver has seen the end of this round.
    pub fn finished(&self) -> Option<Step> {
        self.cell.finishes.get(&self.cell.round()).map(|stamp| stamp.step)
    }

    /// The state of a task.
    pub fn task(&self, task: TaskRef) -> Option<TaskState> {
        self.cell.view.seen(self.plan, task).map(|seen| self.cell.shown(seen.state))
    }

    /// Tasks that can be done.
    pub fn ready(&self) -> impl Iterator<Item = TaskRef> + 'a {
        let cell = self.cell;
        let is_halted = cell.is_halted();
        let tasks = self.plan.tasks().zip(&cell.view.tasks);
        tasks.filter(move |(_, seen)| !is_halted && seen.state == TaskState::Ready).map(|(task, _)| task)
    }

    /// The digest of what a task reads; `None` while that is not known.
    pub fn inputs(&self, task: TaskRef) -> Option<Hash> {
        self.cell.view.seen(self.plan, task)?.inputs
    }

    /// The output of a task.
    pub fn output(&self, task: TaskRef) -> Option<BlobRef> {
        self.cell.view.seen(self.plan, task)?.output
    }

    /// The commit of a task that counts.
    pub fn record(&self, task: TaskRef) -> Option<&'a Record> {
        let inputs = self.inputs(task)?;
        self.cell.counting(self.spec, self.cell.round(), task, &inputs)
    }

    /// True if a success of a task with these inputs is among its commits. It counts whenever these are its inputs.
    pub fn is_committed(&self, task: TaskRef, inputs: &Hash) -> bool {
        let last_stage = self.spec.tasks.get(usize::from(task.task)).map_or(0, TaskSpec::last_stage);
        self.records(task).iter().any(|record| {
            record.commit.inputs == *inputs
                && record.commit.stage <= last_stage
                && matches!(record.commit.outcome, Outcome::Succeeded(_))
        })
    }

    /// All commits of a task, in the total order.
    pub fn records(&self, task: TaskRef) -> &'a [Record] {
        self.cell.commits.get(&task).map_or(&[], Vec::as_slice)
    }

    /// What a task reads, once all of it is known.
    pub fn parts(&self, task: TaskRef) -> Vec<Part> {
        let mut parts = Vec::new();
        for slot in self.plan.slots(self.spec, task) {
            match slot {
                Slot::Blob { blob, from, to, align } => parts.push(Part::Blob { blob, from, to, align }),
                Slot::Outputs { task, from, to } => {
                    let part = |chunk| match self.output(TaskRef::new(task, chunk)) {
                        Some(blob) => Part::Blob { blob, from: 0, to: blob.size, align: Align::Byte },
                        None => Part::Missing,
                    };
                    parts.extend((from..to).map(part));
                }
            }
        }
        parts
    }

    /// Of the tasks whose outputs this one reads, those that made one of these, the first of each. Others are not looked at: who
    /// lacks a blob may name what it likes.
    pub fn makers_of(&self, task: TaskRef, hashes: &[Hash]) -> Vec<(TaskRef, Hash)> {
        let mut wanted: BTreeSet<Hash> = hashes.iter().copied().collect();
        let slots = self.plan.slots(self.spec, task).into_iter();
        let read = slots.flat_map(|slot| match slot {
            Slot::Outputs { task, from, to } => {
                (from..to).map(|chunk| TaskRef::new(task, chunk)).collect::<Vec<_>>()
            }
            Slot::Blob { .. } => Vec::new(),
        });
        read.filter_map(|maker| {
            let hash = self.output(maker)?.hash;
            wanted.remove(&hash).then_some((maker, hash))
        })
        .collect()
    }

    /// True if more than one worker has signed this result of a task.
    pub fn is_agreed(&self, task: TaskRef, result: BlobRef) -> bool {
        let mut records = self.records(task).iter().map(|record| &record.commit);
        records.any(|commit| commit.outcome == Outcome::Succeeded(result) && commit.workers.len() > 1)
    }

    /// The families that are the result, by name: those that the job names, or those that nobody reads from.
    pub fn outputs(&self) -> Vec<(String, u16)> {
        if self.spec.outputs.is_empty() {
            let name = |family: u16| self.spec.tasks[usize::from(family)].name.clone();
            return self.plan.sinks().map(|family| (name(family), family)).collect();
        }
        self.spec.outputs.iter().map(|output| (output.name.clone(), output.task)).collect()
    }

    /// Workers that have signed a wrong result in this job.
    pub fn dissenters(&self) -> BTreeSet<NodeId> {
        self.cell.dissenters()
    }
}
