//! Why a job, or a task of it, is not done, is slow, has failed or was cancelled: sentences, each with what to do.

use std::collections::BTreeMap;

use omnimesh_protocol::compute::TaskRef;
use omnimesh_protocol::compute::job::{OnFailure, WhenMissing};
use omnimesh_protocol::compute::ledger::{
    CancelReason, FailReason, JobState, JobView, Outcome, Record, TaskState,
};
use omnimesh_protocol::compute::placement::BreakerState;

use super::document::{self, counts_text, peers, task_name};
use super::history::{EventKind, JobHistory};
use super::stats::{self, Stats};
use super::{Clock, Seen, held_remedy, run_log};
use crate::api::types::{WhyJob, WhyJobReason};
use crate::words;

/// Failed attempts of a task that are told one by one.
const ATTEMPTS_MAX: usize = 5;

/// The reasons that were found.
#[derive(Default)]
struct Reasons(Vec<WhyJobReason>);

impl Reasons {
    fn add(&mut self, because: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(WhyJobReason { because: because.into(), remedy: remedy.into() });
    }

    fn note(&mut self, because: impl Into<String>) {
        self.add(because, "");
    }
}

/// Why a job is as it is.
pub fn why_job(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>) -> WhyJob {
    let mut reasons = Reasons::default();
    match view.state() {
        JobState::Running => why_running(seen, view, &mut reasons),
        JobState::Failed => why_failed(view, &mut reasons),
        JobState::Cancelled => why_cancelled(view, &mut reasons),
        JobState::Succeeded => {
            let log = run_log(seen, clock, view);
            let took = words::duration(log.times.elapsed_ms);
            reasons.note(format!("all of its {} tasks have ended, after {took}", view.plan().total()));
            reasons.note(log.bottleneck);
            log.suggestions.into_iter().for_each(|found| reasons.add(found.because, found.advice));
        }
    }
    why_troubled(seen, view, &mut reasons);
    WhyJob {
        job: view.id(),
        name: view.spec().name.clone(),
        task: None,
        state: view.state().code().to_owned(),
        reasons: reasons.0,
    }
}

fn why_running(seen: &Seen<'_>, view: &JobView<'_>, reasons: &mut Reasons) {
    let progress = seen.driver.progress(&view.id());
    let stats = Stats::of(seen, view);
    let unmet = if progress.is_some() { document::unmet(seen, view, &stats) } else { Vec::new() };
    let held = progress.as_ref().and_then(|progress| progress.held.clone());
    let held = held.filter(|(task, _)| unmet.iter().all(|(other, _)| other.task != task.task));
    for (task, reason) in unmet.iter().chain(&held) {
        let name = task_name(view.spec(), *task);
        reasons.add(format!("{name} is not placed: {reason}"), held_remedy(reason));
    }
    why_driver(seen, view, reasons);
    let Some(progress) = progress else { return };
    why_failing(seen, view, reasons);
    let counts = counts_text(&stats::counts(view, stats::running(Some(&progress)).len()));
    reasons.note(format!(
        "of its {} tasks {counts}; {} want a worker, {} attempts are under way",
        view.plan().total(),
        progress.waiting,
        progress.attempts.len()
    ));
    let slots: u64 = seen.driver.workers(seen.now).iter().map(|worker| u64::from(worker.offer.slots)).sum();
    if progress.waiting as u64 > slots && slots > 0 {
        let remedy = "more nodes, or more of compute.slots at those that there are, make it sooner";
        reasons.add(
            format!("{} tasks want one of {slots} places that all workers have together", progress.waiting),
            remedy,
        );
    }
    if let Some((family, spec)) = stats
        .families
        .iter()
        .zip(&view.spec().tasks)
        .filter(|(family, _)| family.counts.running > 0)
        .max_by_key(|(family, _)| family.times.p50_ms.saturating_mul(u64::from(family.counts.total())))
        && family.times.done > 0
    {
        reasons.note(format!(
            "{} of {} are running; one takes {} in the median, {} at the longest",
            family.counts.running,
            spec.name,
            words::duration(family.times.p50_ms),
            words::duration(family.times.max_ms)
        ));
    }
}

/// What most of the attempts that failed of late ended with: what is tried again and again is not placed for the lack of it.
fn why_failing(seen: &Seen<'_>, view: &JobView<'_>, reasons: &mut Reasons) {
    let Some(history) = seen.history.job(&view.id()) else { return };
    let events = history.events();
    let failed = || events.iter().filter(|event| event.kind == EventKind::AttemptFailed);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    failed().filter_map(|event| event.reason).for_each(|reason| *counts.entry(reason).or_default() += 1);
    let Some((code, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return };
    let Some(last) = failed().rfind(|event| event.reason == Some(code)) else { return };
    let name = last.task.map_or_else(String::new, |task| format!(" {}", task_name(view.spec(), task)));
    let at = last.worker.map_or_else(String::new, |worker| format!(" at {worker}"));
    let detail = last.detail.as_deref().unwrap_or_default();
    let remedy = match reason_of(code) {
        Some(FailReason::BlobMissing) => {
            "start the nodes that have it, or put it again with `omnimesh blob put` at any node"
        }
        Some(reason) => fail_remedy(reason),
        None => "",
    };
    reasons
        .add(format!("attempts end with {code}, {count} of late, the last of{name}{at}: {detail}"), remedy);
}

/// Who drives it, if that is not this node or nobody.
fn why_driver(seen: &Seen<'_>, view: &JobView<'_>, reasons: &mut Reasons) {
    let holder = view.holder();
    match seen.step {
        None => reasons.add(
            "this node does not know the mesh's step yet, and drives no jobs until then",
            "`omnimesh status` says what it waits for",
        ),
        Some(step) if step > holder.until => reasons.note(format!(
            "the lease of its driver {} has ended with step {}: another node takes it over within some steps",
            holder.node, holder.until
        )),
        Some(_) if !seen.driver.drives(&view.id()) => reasons.add(
            format!("{} drives it; this node knows of it what is in the log", holder.node),
            "ask that node, which knows the attempts and what it waits for",
        ),
        Some(_) => {}
    }
}

fn why_failed(view: &JobView<'_>, reasons: &mut Reasons) {
    for failure in document::failures(view) {
        let task = if view.spec().task(&failure.task).is_some_and(|place| view.plan().count(place) > 1) {
            format!("{}/{}", failure.task, failure.chunk)
        } else {
            failure.task
        };
        let workers = if failure.workers.is_empty() {
            String::new()
        } else {
            format!(" (tried at {})", peers(failure.workers))
        };
        let remedy = reason_of(&failure.reason).map_or("", fail_remedy);
        reasons.add(
            format!("{task} has failed for good: {}: {}{workers}", failure.reason, failure.detail),
            remedy,
        );
    }
    let (failed, all) = (view.counts().failed, view.plan().total());
    reasons.add(
        format!("{failed} of {all} tasks have failed, and with them the job"),
        "`omnimesh job retry` does again what has not succeeded; `on_failure = \"skip\"` or a fallback lets a job go on",
    );
}

fn why_cancelled(view: &JobView<'_>, reasons: &mut Reasons) {
    let Some((reason, detail)) = view.cancelled() else { return };
    let (because, remedy) = match reason {
        CancelReason::Requested => ("somebody wanted it to end", "`omnimesh job retry` goes on with it"),
        CancelReason::Deadline => (
            "it had not ended at its deadline",
            "`omnimesh job retry` goes on with it for as long again; a later `deadline` in the file gives it more time",
        ),
        CancelReason::Quota => ("it took more than its quota", "ask for less, or have the quota raised"),
        CancelReason::Other(_) => ("a node of a later version has ended it", ""),
    };
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    reasons.add(format!("{because}{detail}"), remedy);
}

/// What goes wrong on the way, whatever comes of it.
fn why_troubled(seen: &Seen<'_>, view: &JobView<'_>, reasons: &mut Reasons) {
    let wrong = document::wrong(seen, view);
    if !wrong.is_empty() {
        reasons.add(
            format!("{} has signed wrong results in it and is not asked any more", peers(wrong)),
            "`omnimesh anomalies --kind result_mismatch` shows the evidence",
        );
    }
    if view.state() != JobState::Running {
        return;
    }
    let open: Vec<_> = seen
        .driver
        .workers(seen.now)
        .into_iter()
        .filter(|worker| worker.breaker == BreakerState::Open)
        .collect();
    if !open.is_empty() {
        reasons.add(
            format!(
                "{} kept failing and is left alone for a while",
                peers(open.iter().map(|worker| worker.node))
            ),
            "it is tried again by itself within 2 minutes; its own log says why it fails",
        );
    }
    let Some(history) = seen.history.job(&view.id()) else { return };
    let sum = |count: fn(&super::Tally) -> u64| history.families().values().map(count).sum::<u64>();
    let (attempts, failures, losses) =
        (sum(|tally| tally.attempts), sum(|tally| tally.failures), sum(|tally| tally.losses));
    if failures + losses > 0 {
        reasons.add(
            format!(
                "of {attempts} attempts {failures} have failed by the task's fault and {losses} by the worker's; each is \
                 tried again"
            ),
            "`omnimesh job logs` shows them",
        );
    }
}

/// Why a task is as it is; `None` if the job has no such task. `name` or `name/chunk`.
pub fn why_task(seen: &Seen<'_>, _: &Clock, view: &JobView<'_>, text: &str) -> Option<WhyJob> {
    let (name, chunk) = text.rsplit_once('/').unwrap_or((text, "0"));
    let task = TaskRef::new(view.spec().task(name)?, chunk.parse().ok()?);
    if !view.plan().contains(task) {
        return None;
    }
    let progress = seen.driver.progress(&view.id());
    let running = stats::running(progress.as_ref());
    let state = stats::state_of(view, &running, task);
    let mut reasons = Reasons::default();
    match state {
        TaskState::Pending => why_pending(view, task, &mut reasons),
        TaskState::Ready => why_ready(seen, view, task, &mut reasons),
        TaskState::Running => why_at_work(seen, view, task, &mut reasons),
        TaskState::Cancelled => {
            reasons.note(format!("the job is {} and has ended before it", view.state().code()));
            why_cancelled(view, &mut reasons);
        }
        TaskState::Succeeded | TaskState::Failed | TaskState::Skipped => {
            why_ended(view, task, state, &mut reasons);
        }
    }
    if let Some(history) = seen.history.job(&view.id()) {
        tell_attempts(history, task, &mut reasons);
    }
    Some(WhyJob {
        job: view.id(),
        name: view.spec().name.clone(),
        task: Some(format!("{name}/{}", task.chunk)),
        state: state.code().to_owned(),
        reasons: reasons.0,
    })
}

fn why_pending(view: &JobView<'_>, task: TaskRef, reasons: &mut Reasons) {
    for wait in view.plan().waits(task.task) {
        let others: Vec<_> =
            view.plan().reach(task.chunk, wait).map(|chunk| TaskRef::new(wait.task, chunk)).collect();
        let is_open = |other: &&TaskRef| !view.task(**other).is_some_and(TaskState::has_ended);
        let open: Vec<_> = others.iter().filter(is_open).collect();
        let Some(first) = open.first() else { continue };
        let name = document::family_name(view.spec(), wait.task);
        reasons.add(
            format!("it waits for {} of {} tasks of {name}", open.len(), others.len()),
            format!(
                "`omnimesh why job {} {name}/{}` says why the first of them has not ended",
                view.id(),
                first.chunk
            ),
        );
    }
}

fn why_ready(seen: &Seen<'_>, view: &JobView<'_>, task: TaskRef, reasons: &mut Reasons) {
    let before = reasons.0.len();
    why_driver(seen, view, reasons);
    let Some(progress) = seen.driver.progress(&view.id()) else { return };
    let unmet = document::unmet(seen, view, &Stats::of(seen, view));
    let unmet = unmet.iter().find(|(unmet, _)| unmet.task == task.task);
    match unmet.or(progress.held.as_ref()) {
        Some((held, reason)) if held.task == task.task => {
            reasons.add(format!("it, or one like it, is not placed: {reason}"), held_remedy(reason));
        }
        _ => {}
    }
    if reasons.0.len() == before {
        reasons.note(format!(
            "it is one of {} tasks that want a worker; {} attempts of the job are under way",
            progress.waiting,
            progress.attempts.len()
        ));
    }
}

fn why_at_work(seen: &Seen<'_>, view: &JobView<'_>, task: TaskRef, reasons: &mut Reasons) {
    let progress = seen.driver.progress(&view.id());
    let here = progress.iter().flat_map(|progress| &progress.attempts);
    let workers: Vec<_> = here.filter(|(other, _)| *other == task).map(|(_, worker)| *worker).collect();
    let started = seen.history.job(&view.id()).and_then(|history| history.task(task).started);
    let since = started.map_or_else(String::new, |started| {
        let ms = u64::try_from(seen.now.since(started).as_millis()).unwrap_or(u64::MAX);
        format!("; the first attempt was given away {} ago", words::duration(ms))
    });
    reasons.note(format!("{} is at it{since}", peers(workers)));
    let stats = Stats::of(seen, view);
    if let Some(family) = stats.families.get(usize::from(task.task)).filter(|family| family.times.done > 0) {
        let times = family.times;
        reasons.note(format!(
            "its like take {} in the median and {} at the longest; one that takes much longer gets a second attempt",
            words::duration(times.p50_ms),
            words::duration(times.max_ms)
        ));
    }
    if let Some(spec) = view.spec().tasks.get(usize::from(task.task)) {
        reasons.note(format!("an attempt is given up after {}", words::duration(spec.limits.wall_ms)));
    }
}

fn why_ended(view: &JobView<'_>, task: TaskRef, state: TaskState, reasons: &mut Reasons) {
    let Some(record) = view.record(task) else {
        reasons.add(
            "something that it reads was skipped",
            "`when_missing = \"omit\"` lets it go without what is missing",
        );
        return;
    };
    let Record { commit, .. } = record;
    match &commit.outcome {
        Outcome::Succeeded(blob) => {
            let by = if commit.stage > 0 { " by its fallback" } else { "" };
            reasons.note(format!(
                "{} made its result of {} bytes{by} in {} ({} of CPU)",
                peers(commit.workers.iter().copied()),
                blob.size,
                words::duration(commit.wall_ms),
                words::duration(commit.cpu_ms)
            ));
        }
        Outcome::Failed { reason, detail } => {
            let tried = if commit.workers.is_empty() {
                String::new()
            } else {
                format!(" (tried at {})", peers(commit.workers.iter().copied()))
            };
            reasons.add(
                format!("it has failed for good: {}: {detail}{tried}", reason.code()),
                fail_remedy(*reason),
            );
        }
    }
    if !commit.dissenters.is_empty() {
        let wrong = peers(commit.dissenters.iter().copied());
        reasons.add(
            format!("{wrong} has signed another result than the majority"),
            "`omnimesh anomalies --kind result_mismatch` shows the evidence",
        );
    }
    let spec = view.spec().tasks.get(usize::from(task.task));
    if state == TaskState::Skipped && spec.is_some_and(|spec| spec.on_failure == OnFailure::Skip) {
        let readers = view.plan().waiters(task.task).iter();
        let mut names: Vec<_> = readers
            .filter_map(|(reader, _)| view.spec().tasks.get(usize::from(*reader)))
            .filter(|reader| reader.when_missing == WhenMissing::Skip)
            .map(|reader| reader.name.as_str())
            .collect();
        names.dedup();
        let then = if names.is_empty() { String::new() } else { format!(", and so is {}", names.join(", ")) };
        reasons.note(format!("its file says on_failure = \"skip\": the job goes on, it is skipped{then}"));
    }
}

/// The last attempts that failed.
fn tell_attempts(history: &JobHistory, task: TaskRef, reasons: &mut Reasons) {
    let events = history.events();
    let failed = events.iter().filter(|event| {
        event.task == Some(task)
            && matches!(
                event.kind,
                EventKind::AttemptFailed
                    | EventKind::Tie
                    | EventKind::Restoring
                    | EventKind::Straggler
                    | EventKind::WrongResult
            )
    });
    let failed: Vec<_> = failed.collect();
    for event in failed.iter().rev().take(ATTEMPTS_MAX).rev() {
        let at = event.worker.map_or_else(String::new, |worker| format!(" at {worker}"));
        let reason = event.reason.map_or_else(String::new, |reason| format!("{reason}: "));
        let detail = event.detail.as_deref().unwrap_or_default();
        let what = match event.kind {
            EventKind::AttemptFailed => "an attempt failed",
            EventKind::Straggler => "an attempt took long",
            EventKind::Tie => "no majority",
            EventKind::WrongResult => "a wrong result",
            _ => "made again",
        };
        reasons.note(format!("{what}{at}: {reason}{detail}"));
    }
}

fn reason_of(code: &str) -> Option<FailReason> {
    (0..64).map(FailReason::from_number).find(|reason| reason.code() == code)
}

/// What to do about a failure.
pub(super) const fn fail_remedy(reason: FailReason) -> &'static str {
    match reason {
        FailReason::Program => {
            "correct the program or its parameters; `omnimesh job tasks --state failed` shows which chunks"
        }
        FailReason::CpuLimit => "raise `limits.cpu` of the task, or give it shorter chunks",
        FailReason::MemoryLimit => "raise `limits.memory` of the task, or give it shorter chunks",
        FailReason::OutputLimit => "raise `limits.output` of the task, or give it shorter chunks",
        FailReason::WallLimit => "raise `limits.wall` of the task, or give it shorter chunks",
        FailReason::BadProgram => {
            "the module must import nothing and export what docs/compute.md names under Programs"
        }
        FailReason::BadInput => "the input is not what the operation reads: see docs/compute.md, Operations",
        FailReason::Unsupported => "correct the operation or its parameters: see docs/compute.md, Operations",
        FailReason::NoMajority => {
            "the operation must give the same bytes everywhere; if it does, too many workers lie: raise `redundancy`"
        }
        FailReason::BlobMissing => {
            "put the input back with `omnimesh blob put` at any node, then `omnimesh job retry`"
        }
        FailReason::WorkersLost => {
            "`omnimesh workers` shows who fails; a task that kills its workers may need more memory than they have"
        }
        FailReason::Busy | FailReason::Unavailable => "wait, or start more nodes, then `omnimesh job retry`",
        FailReason::KeyMissing => "put the key under that name into the key directory of the workers",
        FailReason::Other(_) => "",
    }
}
