//! Jobs, tasks, workers and events as the API tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use omnimesh_protocol::compute::TaskRef;
use omnimesh_protocol::compute::job::{
    Align, Constraints, Each, JobSpec, OnFailure, Problem, ReadFault, TaskSpec,
};
use omnimesh_protocol::compute::ledger::{JobState, JobView, Outcome, TaskState};
use omnimesh_protocol::compute::placement::{Offer, Unplaced, WorkerView};
use omnimesh_protocol::{NodeId, Time};

use super::history::JobEvent;
use super::stats::{self, FamilyStats, Stats};
use super::{Clock, Seen, held_remedy};
use crate::api::types::{
    JobCancelled, JobDetail, JobEventView, JobFamily, JobHeld, JobInput, JobLimits, JobOutput, JobProblem,
    JobSummary, JobTask, JobTasks, TaskFailure, Worker, WorkerShare,
};

/// Failures of a job that are told with it.
const FAILURES_MAX: usize = 10;
/// Blobs of an output that are told with its job.
const BLOBS_MAX: usize = 64;

/// A job in a list.
pub fn summary(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>) -> JobSummary {
    let progress = seen.driver.progress(&view.id());
    let counts = stats::counts(view, stats::running(progress.as_ref()).len());
    let held = progress.and_then(|progress| progress.held).filter(|_| view.state() == JobState::Running);
    let (submitted_ms, ended_ms) = moments(seen, clock, view);
    let total = view.plan().total();
    JobSummary {
        id: view.id(),
        name: view.spec().name.clone(),
        state: view.state().code().to_owned(),
        round: view.round(),
        submitter: view.submitter(),
        driver: view.holder().node,
        driven_here: seen.driver.drives(&view.id()),
        tasks: total,
        counts,
        progress: ratio(u64::from(counts.ended()), u64::from(total)),
        submitted_step: view.submitted(),
        submitted_ms,
        elapsed_ms: ended_ms.unwrap_or(clock.now()).saturating_sub(submitted_ms),
        held: held.map(|held| held_text(view.spec(), &held)),
    }
}

fn held_text(spec: &JobSpec, (task, reason): &(TaskRef, Unplaced)) -> String {
    format!("{}: {reason}", task_name(spec, *task))
}

/// The same of a job that was looked at. A node that hears of all of it at once believes that it took no time.
pub(super) fn summary_of(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>, stats: &Stats) -> JobSummary {
    let summary = summary(seen, clock, view);
    JobSummary { elapsed_ms: summary.elapsed_ms.max(stats.done_ms()), ..summary }
}

/// Tasks that could be done, and that none of the workers may do, one of each family: whatever else goes on, they
/// wait.
pub(super) fn unmet(seen: &Seen<'_>, view: &JobView<'_>, stats: &Stats) -> Vec<(TaskRef, Unplaced)> {
    let workers = seen.driver.workers(seen.now);
    if view.state() != JobState::Running || workers.is_empty() {
        return Vec::new();
    }
    let families = (0_u16..).zip(&view.spec().tasks).zip(&stats.families);
    let unmet = families.filter(|(_, stats)| stats.counts.ready > 0).filter_map(|((place, task), _)| {
        let lacks: Option<Vec<String>> = workers.iter().map(|worker| lacks(&worker.offer, task)).collect();
        let lacks = lacks?.into_iter().next()?;
        let chunks = 0..view.plan().count(place);
        let mut ready = chunks
            .map(|chunk| TaskRef::new(place, chunk))
            .filter(|task| view.task(*task) == Some(TaskState::Ready));
        Some((ready.next()?, Unplaced::NoMatch { workers: workers.len(), lacks }))
    });
    unmet.collect()
}

/// What a worker lacks for a task.
fn lacks(offer: &Offer, task: &TaskSpec) -> Option<String> {
    let needs = &task.constraints;
    if let Some((name, value)) =
        needs.labels.iter().find(|(name, value)| offer.labels.get(*name) != Some(*value))
    {
        return Some(format!("the label {name} = {value}"));
    }
    if let Some(region) = needs.region.as_ref().filter(|_| offer.region != needs.region) {
        return Some(format!("the region {region}"));
    }
    let memory = needs.memory_bytes.max(task.limits.memory_bytes);
    if offer.memory_bytes < memory {
        return Some(format!("{memory} bytes of memory"));
    }
    let operation = &task.action.operation;
    (!offer.does(operation)).then(|| format!("the operation {operation}"))
}

/// When a job was submitted and when it has ended, in milliseconds since 1970.
pub(super) fn moments(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>) -> (u64, Option<u64>) {
    let history = seen.history.job(&view.id());
    let submitted =
        clock.precisely(view.submitted(), history.and_then(super::history::JobHistory::submitted));
    let ended = (view.state() != JobState::Running).then(|| {
        let seen = history.and_then(super::history::JobHistory::ended);
        match (view.finished(), seen) {
            (Some(step), seen) => clock.precisely(step, seen),
            (None, Some((time, _))) => clock.at(time),
            (None, None) => clock.now(),
        }
    });
    (submitted, ended.map(|ended| ended.max(submitted)))
}

/// A whole job.
pub fn detail(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>) -> JobDetail {
    detail_of(seen, clock, view, &Stats::of(seen, view))
}

pub(super) fn detail_of(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>, stats: &Stats) -> JobDetail {
    let (spec, plan) = (view.spec(), view.plan());
    let progress = seen.driver.progress(&view.id());
    let critical: BTreeSet<u16> = stats.critical_families().into_iter().collect();
    let families = (0_u16..).zip(&stats.families);
    let families = families.map(|(place, family)| family_of(view, place, family, critical.contains(&place)));
    let outputs = view.outputs().into_iter().map(|(name, family)| {
        let all = (0..plan.count(family)).filter_map(|chunk| view.output(TaskRef::new(family, chunk)));
        let blobs: Vec<_> = all.collect();
        JobOutput {
            name,
            task: family_name(spec, family).to_owned(),
            chunks: plan.count(family),
            done: u32::try_from(blobs.len()).unwrap_or(u32::MAX),
            size: blobs.iter().fold(0, |size, blob| size.saturating_add(blob.size)),
            blobs: blobs.into_iter().take(BLOBS_MAX).collect(),
        }
    });
    let held = progress.as_ref().and_then(|progress| progress.held.clone());
    let held = unmet(seen, view, stats).into_iter().next().or(held);
    let held = held.filter(|_| view.state() == JobState::Running && progress.is_some());
    let mut summary = summary_of(seen, clock, view, stats);
    summary.held = held.as_ref().map(|held| held_text(spec, held));
    JobDetail {
        summary,
        deadline_s: spec.deadline_s,
        spot_check: f64::from(spec.spot_check_per_mille) / 1000.0,
        lease_until_step: view.holder().until,
        inputs: inputs(spec),
        families: families.collect(),
        outputs: outputs.collect(),
        workers: shares(stats),
        dissenters: wrong(seen, view).into_iter().collect(),
        failures: failures(view),
        cancelled: view.cancelled().filter(|_| view.state() == JobState::Cancelled).map(
            |(reason, detail)| JobCancelled { reason: reason.code().to_owned(), detail: detail.to_owned() },
        ),
        held_task: held.map(|(task, reason)| JobHeld {
            task: family_name(spec, task.task).to_owned(),
            chunk: task.chunk,
            reason: reason.to_string(),
            remedy: held_remedy(&reason).to_owned(),
        }),
        attempts: progress.map_or(0, |progress| progress.attempts.len()),
        cpu_ms: stats.cpu_ms,
        work_ms: stats.work_ms,
        critical_path_ms: stats.critical_ms,
    }
}

/// Workers that have signed wrong results: those that the log names, and those that this node has found since.
pub(super) fn wrong(seen: &Seen<'_>, view: &JobView<'_>) -> BTreeSet<NodeId> {
    let mut wrong = view.dissenters();
    wrong.extend(seen.driver.progress(&view.id()).into_iter().flat_map(|progress| progress.banned));
    wrong
}

fn inputs(spec: &JobSpec) -> Vec<JobInput> {
    let input = |input: &omnimesh_protocol::compute::job::InputSpec| JobInput {
        name: input.name.clone(),
        hash: input.blob.hash,
        size: input.blob.size,
    };
    spec.inputs.iter().map(input).collect()
}

fn family_of(view: &JobView<'_>, place: u16, stats: &FamilyStats, on_critical_path: bool) -> JobFamily {
    let (spec, plan) = (view.spec(), view.plan());
    let task = &spec.tasks[usize::from(place)];
    let mut after: Vec<String> =
        plan.waits(place).iter().map(|wait| family_name(spec, wait.task).to_owned()).collect();
    after.dedup();
    let limits = task.limits;
    JobFamily {
        name: task.name.clone(),
        operation: task.action.operation.clone(),
        tasks: plan.count(place),
        counts: stats.counts,
        after,
        fan_out: fan_out(spec, task),
        limits: JobLimits {
            cpu_ms: limits.cpu_ms,
            memory_bytes: limits.memory_bytes,
            output_bytes: limits.output_bytes,
            wall_ms: limits.wall_ms,
        },
        redundancy: task.redundancy,
        retries: task.retry.max,
        on_failure: match task.on_failure {
            OnFailure::Fail => "fail",
            OnFailure::Skip => "skip",
            OnFailure::Fallback(_) => "fallback",
        }
        .to_owned(),
        needs: needs(&task.constraints),
        times: stats.times,
        on_critical_path,
    }
}

/// What a family is fanned out over, for people.
fn fan_out(spec: &JobSpec, task: &TaskSpec) -> Option<String> {
    Some(match task.each? {
        Each::Chunk { input, bytes, align } => {
            let name = spec.inputs.get(usize::from(input)).map_or("", |input| &input.name);
            let align = match align {
                Align::Byte => "",
                Align::Line => ", whole lines",
                Align::RowGroup => ", whole row groups",
            };
            format!("{name}, {} at a time{align}", bytes_text(bytes))
        }
        Each::Output { task, group: 1 } => format!("each output of {}", family_name(spec, task)),
        Each::Output { task, group } => {
            format!("outputs of {}, {group} at a time", family_name(spec, task))
        }
    })
}

fn needs(constraints: &Constraints) -> Option<String> {
    let mut needs: Vec<String> =
        constraints.labels.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if constraints.memory_bytes > 0 {
        needs.push(format!("{} of memory", bytes_text(constraints.memory_bytes)));
    }
    needs.extend(constraints.region.iter().map(|region| format!("region {region}")));
    (!needs.is_empty()).then(|| needs.join(", "))
}

pub(super) fn shares(stats: &Stats) -> Vec<WorkerShare> {
    let total: u64 = stats.workers.values().map(|worker| u64::from(worker.tasks)).sum();
    let share = |(peer_id, worker): (&NodeId, &stats::WorkerStats)| WorkerShare {
        peer_id: *peer_id,
        tasks: worker.tasks,
        share: ratio(u64::from(worker.tasks), total),
        work_ms: worker.work_ms,
        cpu_ms: worker.cpu_ms,
        running: worker.running,
    };
    let mut shares: Vec<_> = stats.workers.iter().map(share).collect();
    shares.sort_by(|a, b| b.tasks.cmp(&a.tasks).then(a.peer_id.cmp(&b.peer_id)));
    shares
}

/// The first tasks that have failed for good, those that were skipped for it among them.
pub(super) fn failures(view: &JobView<'_>) -> Vec<TaskFailure> {
    let counts = view.counts();
    if counts.failed + counts.skipped == 0 {
        return Vec::new();
    }
    let failure = |task: TaskRef| {
        if !matches!(view.task(task), Some(TaskState::Failed | TaskState::Skipped)) {
            return None;
        }
        let commit = &view.record(task)?.commit;
        let Outcome::Failed { reason, detail } = &commit.outcome else { return None };
        Some(TaskFailure {
            task: family_name(view.spec(), task.task).to_owned(),
            chunk: task.chunk,
            reason: reason.code().to_owned(),
            detail: detail.clone(),
            workers: commit.workers.to_vec(),
        })
    };
    view.plan().tasks().filter_map(failure).take(FAILURES_MAX).collect()
}

/// Which tasks are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskQuery {
    /// Only those of this family.
    pub name: Option<String>,
    /// Only those in one of these states; all if there is none.
    pub states: Vec<TaskState>,
    /// Begin with this one, in the order of the plan.
    pub from: u32,
    /// At most so many.
    pub limit: usize,
}

/// Some tasks of a job.
pub fn tasks(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>, query: &TaskQuery) -> JobTasks {
    let progress = seen.driver.progress(&view.id());
    let running = stats::running(progress.as_ref());
    let family = query.name.as_deref().map(|name| view.spec().task(name));
    let mut page = JobTasks { tasks: Vec::new(), next: None };
    for (index, task) in (0_u32..).zip(view.plan().tasks()).skip(query.from as usize) {
        if family.is_some_and(|family| family != Some(task.task)) {
            continue;
        }
        let state = stats::state_of(view, &running, task);
        if !query.states.is_empty() && !query.states.contains(&state) {
            continue;
        }
        if page.tasks.len() >= query.limit {
            page.next = Some(index);
            break;
        }
        let here = progress.iter().flat_map(|progress| &progress.attempts);
        let here = here.filter(|(other, _)| *other == task).map(|(_, worker)| *worker);
        let here = if state == TaskState::Running { here.collect() } else { Vec::new() };
        page.tasks.push(task_row(seen, clock, view, task, state, here));
    }
    page
}

fn task_row(
    seen: &Seen<'_>,
    clock: &Clock,
    view: &JobView<'_>,
    task: TaskRef,
    state: TaskState,
    running: Vec<NodeId>,
) -> JobTask {
    let times = seen.history.job(&view.id()).map(|history| history.task(task)).unwrap_or_default();
    let record = view.record(task).filter(|_| state.has_ended());
    let commit = record.map(|record| &record.commit);
    let failed = commit.and_then(|commit| match &commit.outcome {
        Outcome::Failed { reason, detail } => Some((reason.code().to_owned(), detail.clone())),
        Outcome::Succeeded(_) => None,
    });
    let ended = times.ended.map(|(time, step)| (time, Some(step)));
    JobTask {
        task: family_name(view.spec(), task.task).to_owned(),
        chunk: task.chunk,
        state: state.code().to_owned(),
        workers: commit.map_or(running, |commit| commit.workers.to_vec()),
        output: view.output(task),
        cpu_ms: commit.map_or(0, |commit| commit.cpu_ms),
        wall_ms: commit.map_or(0, |commit| commit.wall_ms),
        fallback: commit.is_some_and(|commit| commit.stage > 0),
        reason: failed.as_ref().map(|(reason, _)| reason.clone()),
        detail: failed.map(|(_, detail)| detail),
        dissenters: commit.map_or_else(Vec::new, |commit| commit.dissenters.to_vec()),
        attempts: times.attempts,
        started_ms: times.started.map(|time| clock.at(time)),
        ended_ms: record.map(|record| clock.precisely(record.stamp.step, ended)),
    }
}

/// A worker.
pub fn worker(now: Time, view: WorkerView) -> Worker {
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
    let WorkerView { node, offer, health, breaker, heard } = view;
    Worker {
        peer_id: node,
        slots: offer.slots,
        room: offer.room,
        active: offer.active,
        assigned: health.active,
        memory_bytes: offer.memory_bytes,
        labels: offer.labels,
        region: offer.region,
        operations: offer.operations,
        breaker: breaker.code().to_owned(),
        heard_ms: u64::try_from(now.since(heard).as_millis()).unwrap_or(u64::MAX),
        mean_ms: health.mean.map(millis),
        p50_ms: health.p50.map(millis),
        p95_ms: health.p95.map(millis),
        error_rate: f64::from(health.error_per_mille) / 1000.0,
        slowness: health.slowness_per_mille as f64 / 1000.0,
        succeeded: health.succeeded,
        failed: health.failed,
        dissents: health.dissents,
    }
}

/// An event; `names` are those of the job's families, if they are known.
pub fn event(clock: &Clock, names: &[String], event: &JobEvent) -> JobEventView {
    let name = |task: TaskRef| {
        names.get(usize::from(task.task)).cloned().unwrap_or_else(|| format!("#{}", task.task))
    };
    JobEventView {
        job: event.job,
        number: event.number,
        kind: event.kind.code().to_owned(),
        at_ms: clock.at(event.at),
        step: event.step,
        task: event.task.map(name),
        chunk: event.task.map(|task| task.chunk),
        from: event.from.map(str::to_owned),
        state: event.state.map(str::to_owned),
        worker: event.worker,
        reason: event.reason.map(str::to_owned),
        detail: event.detail.as_ref().map(ToString::to_string),
    }
}

/// The names of a job's families.
pub fn names(view: &JobView<'_>) -> Vec<String> {
    view.spec().tasks.iter().map(|task| task.name.clone()).collect()
}

/// What is wrong with a job file.
pub fn fault(fault: &ReadFault) -> JobProblem {
    JobProblem { line: fault.line, ..problem(&fault.problem) }
}

/// What is wrong with a job, wherever it comes from.
pub fn problem(problem: &Problem) -> JobProblem {
    JobProblem {
        line: 0,
        code: problem.code.code().to_owned(),
        path: problem.path.clone(),
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
    }
}

pub(super) fn family_name(spec: &JobSpec, family: u16) -> &str {
    spec.tasks.get(usize::from(family)).map_or("?", |task| &task.name)
}

/// A task, for people: with its chunk if there is more than one.
pub(super) fn task_name(spec: &JobSpec, task: TaskRef) -> String {
    let is_family = spec.tasks.get(usize::from(task.task)).is_some_and(|task| task.each.is_some());
    let name = family_name(spec, task.task);
    if is_family { format!("{name}/{}", task.chunk) } else { name.to_owned() }
}

pub(super) fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// A length for people.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A list of peers for people.
pub(super) fn peers(nodes: impl IntoIterator<Item = NodeId>) -> String {
    let mut text = String::new();
    for node in nodes {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{node}");
    }
    text
}

/// Counts, for people, the states that occur.
pub(super) fn counts_text(counts: &crate::api::types::TaskCounts) -> String {
    let states = BTreeMap::from([
        (0, (counts.succeeded, "succeeded")),
        (1, (counts.running, "running")),
        (2, (counts.ready, "ready")),
        (3, (counts.pending, "pending")),
        (4, (counts.failed, "failed")),
        (5, (counts.skipped, "skipped")),
        (6, (counts.cancelled, "cancelled")),
    ]);
    let texts: Vec<_> = states
        .values()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    texts.join(", ")
}
