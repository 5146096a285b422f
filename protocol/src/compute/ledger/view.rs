//! What follows from a job's entries: the state of each task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::compute::id::{BlobRef, JobId, TaskRef};
use crate::compute::job::{Align, JobSpec, OnFailure, Plan, Reach, Slot, TaskSpec, Wait, WhenMissing};
use crate::id::{Hash, NodeId, Step};
use crate::registry::cbor::Writer;

use super::cell::{Holder, JobCell, Record, Submission};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    state: TaskState,
    /// What the commit that counts says; `None` if there is none.
    known: Option<Box<Known>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// The digest of what it has read.
    inputs: Hash,
    output: Option<BlobRef>,
}

impl Seen {
    /// Of a task of which there is no commit that counts.
    const fn of(state: TaskState) -> Self {
        Seen { state, known: None }
    }

    fn output(&self) -> Option<BlobRef> {
        self.known.as_ref()?.output
    }
}

/// The tasks of a family. A job of a few hundred bytes may have a hundred thousand, so that only those take room that differ
/// from the rest: of which something was said, or of what they read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FamilyView {
    /// The state of all that are not in `marked`: pending, ready, or skipped for what all of them read.
    base: TaskState,
    marked: BTreeMap<u32, Seen>,
    /// Tasks that have ended and let others go on.
    ended: u32,
    /// Those of them that have no output.
    absent: u32,
    /// The digest of all outputs; dropped when one changes.
    outputs: Cached,
}

/// A digest that was asked for. It follows from the rest, and so makes no difference.
#[derive(Clone, Debug, Default)]
struct Cached(OnceLock<Hash>);

impl PartialEq for Cached {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cached {}

impl FamilyView {
    fn state(&self, chunk: u32) -> TaskState {
        self.marked.get(&chunk).map_or(self.base, |seen| seen.state)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    families: Vec<FamilyView>,
    /// The place of each family in the order.
    ranks: Vec<u16>,
    pub(super) counts: Counts,
}

/// Tasks that follow one another, and their state before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) first: TaskRef,
    /// The chunk after the last.
    pub(super) to: u32,
    pub(super) old: TaskState,
    pub(super) new: TaskState,
}

/// What has moved, in the order of the tasks; each task once.
pub(super) type Moves = BTreeMap<TaskRef, Move>;

/// Which tasks may have another state than before.
pub(super) enum Touched {
    Nothing,
    Tasks(Vec<TaskRef>),
    All,
}

/// What of a family is to be looked at.
#[derive(Default)]
struct Dirty {
    is_whole: bool,
    chunks: BTreeSet<u32>,
}

/// The families to be looked at by their place in the order: those that others wait for come first.
type Queue = BTreeMap<u16, Dirty>;

impl View {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut ranks = vec![0; plan.families()];
        for (rank, family) in (0_u16..).zip(plan.order()) {
            ranks[usize::from(*family)] = rank;
        }
        View {
            families: vec![FamilyView::default(); plan.families()],
            ranks,
            counts: Counts { pending: plan.total(), ..Counts::default() },
        }
    }

    fn family(&self, family: u16) -> &FamilyView {
        &self.families[usize::from(family)]
    }

    fn state(&self, plan: &Plan, task: TaskRef) -> Option<TaskState> {
        plan.contains(task).then(|| self.family(task.task).state(task.chunk))
    }

    /// What the commit that counts for a task says.
    fn known(&self, task: TaskRef) -> Option<&Known> {
        self.families.get(usize::from(task.task))?.marked.get(&task.chunk)?.known.as_deref()
    }

    fn dirty<'q>(&self, queue: &'q mut Queue, family: u16) -> &'q mut Dirty {
        queue.entry(self.ranks[usize::from(family)]).or_default()
    }

    /// The tasks in such a state, family by family.
    fn in_state<'a>(&'a self, plan: &'a Plan, state: TaskState) -> impl Iterator<Item = TaskRef> + 'a {
        (0_u16..).zip(&self.families).flat_map(move |(task, family)| {
            let is_base = family.base == state;
            let all = if is_base { 0..plan.count(task) } else { 0..0 };
            let rest = all.filter(move |chunk| family.state(*chunk) == state);
            let marked = family.marked.iter().filter(move |(_, seen)| !is_base && seen.state == state);
            rest.chain(marked.map(|(chunk, _)| *chunk)).map(move |chunk| TaskRef::new(task, chunk))
        })
    }

    /// Joins to the moves all tasks that have not ended and have not moved: they are shown otherwise than before.
    pub(super) fn with_open(&self, plan: &Plan, moves: &Moves) -> Moves {
        let mut all = Moves::new();
        for (task, family) in (0_u16..).zip(&self.families) {
            let count = plan.count(task);
            let moved = || moves.range(TaskRef::new(task, 0)..=TaskRef::new(task, u32::MAX));
            let mut ends = BTreeSet::from([0, count]);
            ends.extend(family.marked.keys().flat_map(|chunk| [*chunk, chunk + 1]));
            ends.extend(moved().flat_map(|(first, moved)| [first.chunk, moved.to]));
            for (from, to) in ends.iter().zip(ends.iter().skip(1)) {
                let first = TaskRef::new(task, *from);
                let new = family.state(*from);
                let before = moves.range(TaskRef::new(task, 0)..=first).next_back();
                let old = before.filter(|(_, moved)| *from < moved.to).map_or(new, |(_, moved)| moved.old);
                if old != new || !new.has_ended() {
                    all.insert(first, Move { first, to: *to, old, new });
                }
            }
        }
        all
    }
}

/// True if it lets others go on.
const fn opens(state: TaskState) -> bool {
    matches!(state, TaskState::Succeeded | TaskState::Skipped)
}

/// What the tasks of a family find of all that every one of them waits for.
#[derive(Clone, Copy)]
struct Gate {
    is_open: bool,
    /// True if there is an output to read.
    is_present: bool,
    /// True if there is none where one is read.
    is_absent: bool,
    /// What each reads a group of.
    group: Option<Wait>,
}

impl Gate {
    fn of(view: &View, plan: &Plan, family: u16) -> Self {
        let mut gate = Gate { is_open: true, is_present: false, is_absent: false, group: None };
        for wait in plan.waits(family) {
            if matches!(wait.reach, Reach::Group(_)) {
                gate.group = Some(*wait);
                continue;
            }
            let other = view.family(wait.task);
            gate.is_open &= other.ended == plan.count(wait.task);
            gate.is_present |= wait.is_read && other.ended > other.absent;
            gate.is_absent |= wait.is_read && other.absent > 0;
        }
        gate
    }

    /// The state of what no commit is known of: of a task that finds this.
    fn state(&self, spec: &TaskSpec) -> TaskState {
        let has_nothing = !self.is_present && !spec.reads_input();
        if !self.is_open {
            TaskState::Pending
        } else if self.is_absent && (spec.when_missing == WhenMissing::Skip || has_nothing) {
            TaskState::Skipped
        } else {
            TaskState::Ready
        }
    }

    /// With a group of which nothing is in another state than the rest of its family.
    fn with_base(mut self, view: &View) -> Self {
        if let Some(wait) = self.group {
            let base = view.family(wait.task).base;
            self.is_open &= opens(base);
            self.is_absent = true;
        }
        self
    }

    /// With the group of a task.
    fn with_group(mut self, view: &View, plan: &Plan, chunk: u32) -> Self {
        let Some(wait) = self.group else { return self };
        let (chunks, other) = (plan.reach(chunk, &wait), view.family(wait.task));
        let mut rest = chunks.len();
        for (_, seen) in other.marked.range(chunks) {
            if !opens(seen.state) {
                return Gate { is_open: false, ..self };
            }
            rest -= 1;
            let is_present = seen.output().is_some();
            self.is_present |= is_present;
            self.is_absent |= !is_present;
        }
        if rest > 0 { self.with_base(view) } else { self }
    }
}

/// The family that is looked at, and what it is looked at with.
struct Of<'a> {
    spec: &'a JobSpec,
    plan: &'a Plan,
    round: u32,
    family: u16,
}

impl FamilyView {
    /// So many tasks are in another state, or have an output now, or none any more.
    fn shift(
        &mut self,
        tasks: u32,
        (old, had_output): (TaskState, bool),
        (new, has_output): (TaskState, bool),
    ) {
        let absent = |state, has_output: bool| tasks * u32::from(opens(state) && !has_output);
        self.ended = self.ended + tasks * u32::from(opens(new)) - tasks * u32::from(opens(old));
        self.absent = self.absent + absent(new, has_output) - absent(old, had_output);
    }
}

impl Counts {
    fn shift(&mut self, moved: &Move) {
        let tasks = moved.to - moved.first.chunk;
        *self.slot(moved.old) -= tasks;
        *self.slot(moved.new) += tasks;
    }

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

impl JobCell {
    /// Brings the states of these tasks, and of all that follows from them, up to date.
    pub(super) fn settle(&mut self, touched: Touched) -> Moves {
        let mut moves = Moves::new();
        let mut queue = Queue::new();
        let Some(mut submission) = self.submission.take() else { return moves };
        let (plan, view) = (&submission.plan, &mut submission.view);
        match touched {
            Touched::Nothing => {}
            Touched::Tasks(tasks) => {
                for task in tasks.into_iter().filter(|task| plan.contains(*task)) {
                    view.dirty(&mut queue, task.task).chunks.insert(task.chunk);
                }
            }
            Touched::All => {
                for family in plan.order() {
                    view.dirty(&mut queue, *family).is_whole = true;
                }
            }
        }
        let round = self.round();
        // What waits for a family comes after it, so that each is looked at once.
        while let Some((rank, dirty)) = queue.pop_first() {
            let family = plan.order()[usize::from(rank)];
            let of = Of { spec: &submission.spec, plan, round, family };
            self.settle_family(view, &of, dirty, &mut queue, &mut moves);
        }
        self.submission = Some(submission);
        moves
    }

    fn settle_family(
        &self,
        view: &mut View,
        of: &Of<'_>,
        dirty: Dirty,
        queue: &mut Queue,
        moves: &mut Moves,
    ) {
        let (plan, family) = (of.plan, of.family);
        let gate = Gate::of(view, plan, family);
        let mut this = std::mem::take(&mut view.families[usize::from(family)]);
        let count = plan.count(family);
        let was_complete = this.ended == count;
        let (old_base, mut chunks) = (this.base, dirty.chunks);
        let mut has_changed = false;
        if dirty.is_whole {
            this.base = gate.with_base(view).state(&of.spec.tasks[usize::from(family)]);
            chunks.extend(this.marked.keys());
            chunks.extend(self.committed(family));
            if let Some(Wait { task, reach: Reach::Group(group), .. }) = gate.group {
                chunks.extend(view.family(task).marked.keys().map(|chunk| chunk / group));
            }
            if this.base != old_base {
                // All others, as runs between these.
                let ends = chunks.iter().copied().chain([count]);
                let mut from = 0;
                for to in ends {
                    if from < to {
                        let first = TaskRef::new(family, from);
                        let moved = Move { first, to, old: old_base, new: this.base };
                        moves.insert(first, moved);
                        view.counts.shift(&moved);
                        this.shift(to - from, (old_base, false), (this.base, false));
                        has_changed = true;
                    }
                    from = to.saturating_add(1);
                }
            }
        }
        let is_rebased = this.base != old_base;
        let mut changed = Vec::new();
        for chunk in chunks {
            let task = TaskRef::new(family, chunk);
            let old = this.marked.remove(&chunk).unwrap_or(Seen::of(old_base));
            let new = self.evaluate(view, of, gate, chunk);
            if new != old {
                this.shift(1, (old.state, old.output().is_some()), (new.state, new.output().is_some()));
                changed.push(chunk);
            }
            if new.state != old.state {
                let moved = Move { first: task, to: chunk + 1, old: old.state, new: new.state };
                moves.insert(task, moved);
                view.counts.shift(&moved);
            }
            if new != Seen::of(this.base) {
                this.marked.insert(chunk, new);
            }
        }
        has_changed |= !changed.is_empty();
        let is_complete = this.ended == count;
        if has_changed {
            this.outputs = Cached::default();
        }
        view.families[usize::from(family)] = this;
        for &(waiter, reach) in plan.waiters(family) {
            match reach {
                Reach::Group(_) if is_rebased => view.dirty(queue, waiter).is_whole = true,
                Reach::Group(group) if has_changed => {
                    view.dirty(queue, waiter).chunks.extend(changed.iter().map(|chunk| chunk / group));
                }
                Reach::All if has_changed && (was_complete || is_complete) => {
                    view.dirty(queue, waiter).is_whole = true;
                }
                _ => {}
            }
        }
    }

    fn evaluate(&self, view: &View, of: &Of<'_>, gate: Gate, chunk: u32) -> Seen {
        let task = TaskRef::new(of.family, chunk);
        let spec = &of.spec.tasks[usize::from(of.family)];
        let state = gate.with_group(view, of.plan, chunk).state(spec);
        // Without a commit nobody needs to know what it reads.
        if state != TaskState::Ready || self.records(task).next().is_none() {
            return Seen::of(state);
        }
        let inputs = inputs(view, of.spec, of.plan, task);
        let Some(record) = self.counting(of.spec, of.round, task, &inputs) else { return Seen::of(state) };
        let (state, output) = match &record.commit.outcome {
            Outcome::Succeeded(blob) => (TaskState::Succeeded, Some(*blob)),
            Outcome::Failed { .. } if spec.on_failure == OnFailure::Skip => (TaskState::Skipped, None),
            Outcome::Failed { .. } => (TaskState::Failed, None),
        };
        Seen { state, known: Some(Box::new(Known { inputs, output })) }
    }

    /// The commit that counts for a task with these inputs.
    fn counting(&self, spec: &JobSpec, round: u32, task: TaskRef, inputs: &Hash) -> Option<&Record> {
        let last_stage = spec.tasks[usize::from(task.task)].last_stage();
        let fits = |record: &&Record| record.commit.inputs == *inputs && record.commit.stage <= last_stage;
        let (mut success, mut failure) = (None, None);
        for record in self.records(task).filter(fits) {
            let best = match record.commit.outcome {
                Outcome::Succeeded(_) => &mut success,
                Outcome::Failed { .. } if record.round == round && record.commit.stage == last_stage => {
                    &mut failure
                }
                Outcome::Failed { .. } => continue,
            };
            if best.is_none_or(|best: &Record| record.stamp < best.stamp) {
                *best = Some(record);
            }
        }
        success.or(failure)
    }

    /// True if what has not ended will not be done.
    pub(super) fn is_halted(&self) -> bool {
        let has_failed = self.submission.as_ref().is_some_and(|of| of.view.counts.failed > 0);
        has_failed || self.cancelled().is_some()
    }

    pub(super) fn state(&self) -> Option<JobState> {
        let counts = self.submission.as_ref()?.view.counts;
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
}

/// The digest of what a task reads, once all of it is known.
fn inputs(view: &View, spec: &JobSpec, plan: &Plan, task: TaskRef) -> Hash {
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
                let family_view = view.family(family);
                let digest = if from == 0 && to == plan.count(family) {
                    *family_view.outputs.0.get_or_init(|| outputs(family_view, from, to))
                } else {
                    outputs(family_view, from, to)
                };
                writer.array(2);
                writer.unsigned(1);
                writer.bytes(digest.as_bytes());
            }
        }
    }
    let digest = blake3::Hasher::new_derive_key(INPUTS_CONTEXT).update(&writer.bytes).finalize();
    Hash::from_bytes(*digest.as_bytes())
}

fn outputs(family: &FamilyView, from: u32, to: u32) -> Hash {
    let mut writer = Writer::default();
    writer.array((to - from) as usize);
    let mut next = from;
    for (chunk, seen) in family.marked.range(from..to) {
        (next..*chunk).for_each(|_| writer.null());
        next = chunk + 1;
        match seen.output() {
            Some(blob) => {
                writer.array(2);
                blob.write(&mut writer);
            }
            None => writer.null(),
        }
    }
    (next..to).for_each(|_| writer.null());
    let digest = blake3::Hasher::new_derive_key(OUTPUTS_CONTEXT).update(&writer.bytes).finalize();
    Hash::from_bytes(*digest.as_bytes())
}

/// A job, to be read.
#[derive(Clone, Copy, Debug)]
pub struct JobView<'a> {
    pub(super) id: JobId,
    pub(super) cell: &'a JobCell,
    pub(super) of: &'a Submission,
}

impl<'a> JobView<'a> {
    pub(super) fn new(id: JobId, cell: &'a JobCell) -> Option<Self> {
        let submission = cell.submission.as_ref()?;
        Some(JobView { id, cell, of: submission })
    }

    /// Its name.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// What it says.
    pub fn spec(&self) -> &'a JobSpec {
        &self.of.spec
    }

    /// What that means.
    pub fn plan(&self) -> &'a Plan {
        &self.of.plan
    }

    /// Who submitted it.
    pub fn submitter(&self) -> NodeId {
        self.of.stamp.author
    }

    /// When.
    pub fn submitted(&self) -> Step {
        self.of.stamp.step
    }

    /// Its state.
    pub fn state(&self) -> JobState {
        self.cell.state().expect("a view is made of a job that was submitted")
    }

    /// How many tasks are in which state.
    pub fn counts(&self) -> Counts {
        self.of.view.counts
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
        self.of.view.state(&self.of.plan, task).map(|state| self.cell.shown(state))
    }

    /// Tasks that can be done.
    pub fn ready(&self) -> impl Iterator<Item = TaskRef> + 'a {
        let is_halted = self.cell.is_halted();
        let tasks = self.of.view.in_state(&self.of.plan, TaskState::Ready);
        tasks.filter(move |_| !is_halted)
    }

    /// The digest of what a task reads; `None` while that is not known. Of one without a commit that counts it is computed.
    pub fn inputs(&self, task: TaskRef) -> Option<Hash> {
        let Submission { spec, plan, view, .. } = self.of;
        if let Some(known) = view.known(task) {
            return Some(known.inputs);
        }
        let is_ready = view.state(plan, task) == Some(TaskState::Ready);
        is_ready.then(|| inputs(view, spec, plan, task))
    }

    /// The output of a task.
    pub fn output(&self, task: TaskRef) -> Option<BlobRef> {
        self.of.view.known(task)?.output
    }

    /// The commit of a task that counts.
    pub fn record(&self, task: TaskRef) -> Option<&'a Record> {
        let known = self.of.view.known(task)?;
        self.cell.counting(&self.of.spec, self.cell.round(), task, &known.inputs)
    }

    /// True if a success of a task with these inputs is among its commits. It counts whenever these are its inputs.
    pub fn is_committed(&self, task: TaskRef, inputs: &Hash) -> bool {
        let last_stage = self.spec().tasks.get(usize::from(task.task)).map_or(0, TaskSpec::last_stage);
        self.records(task).any(|record| {
            record.commit.inputs == *inputs
                && record.commit.stage <= last_stage
                && matches!(record.commit.outcome, Outcome::Succeeded(_))
        })
    }

    /// All commits of a task that are kept.
    pub fn records(&self, task: TaskRef) -> impl Iterator<Item = &'a Record> + Clone {
        self.cell.records(task)
    }

    /// What a task reads, once all of it is known.
    pub fn parts(&self, task: TaskRef) -> Vec<Part> {
        let mut parts = Vec::new();
        for slot in self.of.plan.slots(&self.of.spec, task) {
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
        let slots = self.plan().slots(self.spec(), task).into_iter();
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
        let mut records = self.records(task).map(|record| &record.commit);
        records.any(|commit| commit.outcome == Outcome::Succeeded(result) && commit.workers.len() > 1)
    }

    /// The families that are the result, by name: those that the job names, or those that nobody reads from.
    pub fn outputs(&self) -> Vec<(String, u16)> {
        if self.of.spec.outputs.is_empty() {
            let name = |family: u16| self.of.spec.tasks[usize::from(family)].name.clone();
            return self.of.plan.sinks().map(|family| (name(family), family)).collect();
        }
        self.of.spec.outputs.iter().map(|output| (output.name.clone(), output.task)).collect()
    }

    /// Workers that have signed a wrong result in this job.
    pub fn dissenters(&self) -> BTreeSet<NodeId> {
        self.cell.dissenters()
    }
}
