//! Gives tasks to workers, and looks after attempts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng;
use smallvec::SmallVec;

use crate::compute::id::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use crate::compute::job::Limits;
use crate::compute::ledger::{FailReason, Part};
use crate::compute::placement::{Unplaced, Wanted};
use crate::compute::wire::{Assignment, BATCH_MAX, FRAME_BYTES_MAX, Failure};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Time;

use super::api::{Event, Output};
use super::run::{Active, Attempt, Phase};
use super::state::State;

/// Tasks of a job that are tried in vain before the next job has its turn.
const TRIES: usize = 8;
/// An attempt that takes so many times as long as another one of the same task is a straggler, in thousandths; and while workers
/// have nothing else to do. Default: guesses.
const VOTE_FACTOR: u32 = 3000;
const VOTE_FACTOR_IDLE: u32 = 1500;
/// Attempts that wait no longer than this are left where they are: they may have begun, and the news is on its way. Default:
/// guess.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// So long at most an attempt may wait at a worker that seems to have a slot for it. Default: guess.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Blobs that count for locality.
const NEAR_MAX: usize = 16;
/// Bytes in a second that fetching inputs may be expected to reach at least.
const FETCH_BYTES_PER_S: u64 = 10_000_000;

impl State {
    /// Gives tasks to workers as long as there are both. Jobs take turns.
    pub(super) fn place(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        if self.step.is_none() || self.runs.values().all(|run| run.wants.is_empty()) {
            self.explain = false;
            return;
        }
        let explain = std::mem::take(&mut self.explain);
        let slowness_max = self.slowness_max();
        let mut jobs: Vec<JobId> = self.runs.keys().copied().collect();
        if let Some(last) = self.last_job {
            let behind = jobs.partition_point(|job| *job <= last);
            jobs.rotate_left(behind);
        }
        let mut is_first = true;
        loop {
            let mut any = false;
            for job in &jobs {
                if self.pool.free() == 0 && !(explain && is_first) {
                    return;
                }
                if self.place_one(now, *job, slowness_max, explain && is_first, rng, out) {
                    self.last_job = Some(*job);
                    any = true;
                }
            }
            is_first = false;
            if !any {
                return;
            }
        }
    }

    /// How slow a worker may be to get something: it has to be done before the others have done all that waits.
    fn slowness_max(&self) -> u64 {
        if self.attempts.is_empty() {
            return u64::MAX;
        }
        let waiting: usize = self.runs.values().map(|run| run.wants.len()).sum();
        2000 + (waiting as u64).saturating_mul(1000) / self.pool.slots().max(1)
    }

    fn place_one(
        &mut self,
        now: Time,
        job: JobId,
        slowness_max: u64,
        explain: bool,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) -> bool {
        let Some(run) = self.runs.get(&job) else { return false };
        if run.attempts >= self.config.job_attempts_max {
            return false;
        }
        let behind = run.wants.range(run.cursor..).chain(run.wants.range(..run.cursor));
        let tasks: SmallVec<[TaskRef; TRIES]> = behind.copied().take(TRIES).collect();
        for task in tasks.iter().copied() {
            if !self.ensure_active(now, job, task, rng) {
                continue;
            }
            if let Some(worker) = self.choose(now, job, task, slowness_max, explain, rng, out) {
                self.assign(now, job, task, worker, out);
                return true;
            }
            if self.pool.free() == 0 {
                return false;
            }
        }
        // Others are tried next time: these may have constraints that nobody meets now.
        if let (Some(run), Some(last)) = (self.runs.get_mut(&job), tasks.last()) {
            run.cursor = TaskRef::new(last.task, last.chunk.saturating_add(1));
        }
        false
    }

    /// Begins a task, if that was not done yet; false if it is not to be done.
    fn ensure_active(&mut self, now: Time, job: JobId, task: TaskRef, rng: &mut impl Rng) -> bool {
        let view = self.ledger.job(&job);
        let inputs = view.and_then(|view| view.inputs(task));
        let is_writing = inputs.is_some_and(|inputs| self.is_writing(job, task, inputs));
        let Some(run) = self.runs.get_mut(&job) else { return false };
        if let Some(active) = run.active.get(&task) {
            let needs = active.needs(now) > 0;
            if !needs {
                run.wants.remove(&task);
            }
            return needs;
        }
        // What is on its way into the log is not done again; if it does not count there, it will be wanted then.
        let (Some(view), Some(inputs), false) = (view, inputs, is_writing) else {
            run.wants.remove(&task);
            return false;
        };
        let parts: Arc<[Part]> = view.parts(task).into();
        let mut redundancy = view.spec().tasks[usize::from(task.task)].redundancy;
        if redundancy == 1 && rng.next_u64() % 1000 < u64::from(view.spec().spot_check_per_mille) {
            redundancy = 2;
        }
        run.active.insert(
            task,
            Active {
                key: TaskKey::of(&job, task, 0, &inputs),
                inputs,
                stage: 0,
                blobs: longest(&parts),
                parts,
                phase: Phase::Open,
                attempts: SmallVec::new(),
                votes: SmallVec::new(),
                redundancy,
                voters: redundancy,
                copies: 0,
                failures: 0,
                losses: 0,
                failed_on: SmallVec::new(),
                restores: view.output(task),
            },
        );
        if view.output(task).is_some() {
            // It is only made again: one worker is enough, as the output is known.
            if let Some(active) = run.active.get_mut(&task) {
                (active.redundancy, active.voters) = (1, 1);
            }
        }
        true
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are needed, and it is private")]
    fn choose(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        slowness_max: u64,
        explain: bool,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) -> Option<NodeId> {
        let view = self.ledger.job(&job)?;
        let run = self.runs.get_mut(&job)?;
        let active = run.active.get(&task)?;
        let spec = &view.spec().tasks[usize::from(task.task)];
        let banned = &run.banned;
        let excluded = |node: &NodeId| {
            banned.contains(node) || active.failed_on.contains(node) || active.has_asked(node)
        };
        let wanted = Wanted {
            operation: &spec.action_at(active.stage).operation,
            constraints: &spec.constraints,
            memory_bytes: spec.limits.memory_bytes,
            inputs: &active.blobs,
            excluded: &excluded,
            slowness_max,
        };
        if let Some(worker) = self.pool.pick(&wanted, rng) {
            run.held = None;
            return Some(worker);
        }
        if !explain {
            return None;
        }
        let reason = self.pool.why_not(now, &wanted);
        let is_excluded = matches!(reason, Unplaced::Excluded { .. });
        if is_excluded && let Some(active) = run.active.get_mut(&task) {
            if active.failed_on.is_empty() {
                self.decide_by_majority(now, job, task, out);
                return None;
            }
            // Who has failed may try again before nobody does.
            active.failed_on.clear();
        }
        let is_news = run.held.as_ref().is_none_or(|(_, known)| *known != reason);
        run.held = Some((task, reason.clone()));
        if is_news {
            out.push(Output::Event(Event::Held { job, task, reason }));
        }
        None
    }

    fn assign(&mut self, now: Time, job: JobId, task: TaskRef, worker: NodeId, out: &mut Outbox<Output>) {
        let Some(view) = self.ledger.job(&job) else { return };
        let Some(run) = self.runs.get_mut(&job) else { return };
        let Some(active) = run.active.get_mut(&task) else { return };
        let spec = &view.spec().tasks[usize::from(task.task)];
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        active.phase = Phase::Open;
        active.attempts.push(Attempt {
            id: attempt,
            worker,
            assigned: now,
            started: None,
            is_straggler: false,
        });
        let assignment = Assignment {
            attempt,
            job,
            task,
            key: active.key,
            action: Arc::new(spec.action_at(active.stage).clone()),
            parts: active.parts.clone(),
            limits: spec.limits,
        };
        run.attempts += 1;
        run.settle(task, now);
        self.attempts.insert(attempt, (job, task));
        self.pool.on_assigned(now, worker);
        self.assigned.entry(worker).or_default().push(assignment);
        out.push(Output::Event(Event::Running { job, task, attempt, worker }));
    }

    /// Sends what was assigned and taken back in this round.
    pub(super) fn send(&mut self, out: &mut Outbox<Output>) {
        self.send_cancels(out);
        for (to, assignments) in std::mem::take(&mut self.assigned) {
            let mut batch = Vec::new();
            let mut bytes = 0;
            for assignment in assignments {
                let more = assignment.bytes();
                if !batch.is_empty() && (batch.len() >= BATCH_MAX || bytes + more > FRAME_BYTES_MAX / 2) {
                    out.push(Output::Assign { to, assignments: std::mem::take(&mut batch) });
                    bytes = 0;
                }
                bytes += more;
                batch.push(assignment);
            }
            if !batch.is_empty() {
                out.push(Output::Assign { to, assignments: batch });
            }
        }
    }

    pub(super) fn send_cancels(&mut self, out: &mut Outbox<Output>) {
        for (to, attempts) in std::mem::take(&mut self.cancelled) {
            // What was assigned in this very round is not sent at all.
            let unsent = self.assigned.get_mut(&to);
            let mut attempts = attempts;
            if let Some(unsent) = unsent {
                let known: Vec<_> = unsent.iter().map(|assignment| assignment.attempt).collect();
                unsent.retain(|assignment| !attempts.contains(&assignment.attempt));
                attempts.retain(|attempt| !known.contains(attempt));
            }
            for attempts in attempts.chunks(BATCH_MAX) {
                out.push(Output::Cancel { to, attempts: attempts.to_vec() });
            }
        }
    }

    pub(super) fn on_started(&mut self, now: Time, from: NodeId, attempts: &[AttemptId]) {
        for id in attempts {
            let Some((job, task)) = self.attempts.get(id) else { continue };
            let active = self.runs.get_mut(job).and_then(|run| run.active.get_mut(task));
            let attempt =
                active.and_then(|active| active.attempts.iter_mut().find(|attempt| attempt.id == *id));
            if let Some(attempt) = attempt.filter(|attempt| attempt.worker == from) {
                attempt.started.get_or_insert(now);
            }
        }
    }

    /// With each tick: who is silent, what takes too long, what is to be tried again.
    pub(super) fn look_after(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        self.pool.refresh(now);
        for node in self.pool.silent(now) {
            self.on_gone(now, node, rng, out);
        }
        let mut lost = Vec::new();
        let mut late = BTreeMap::new();
        for (job, run) in &mut self.runs {
            let Some(view) = self.ledger.job(job) else { continue };
            let mut due = Vec::new();
            for (task, active) in &run.active {
                let limits = &view.spec().tasks[usize::from(task.task)].limits;
                let patience = patience(limits, &active.parts, self.config.grace);
                let times = &run.times[usize::from(task.task)];
                let typical =
                    times.quantile(500).filter(|_| times.len() >= self.config.straggler_samples_min);
                for attempt in &active.attempts {
                    let most = match attempt.started {
                        Some(_) => patience,
                        // It may wait behind another one.
                        None => patience + Duration::from_millis(limits.wall_ms),
                    };
                    if attempt.since(now) > most {
                        lost.push((attempt.worker, attempt.id));
                    }
                    if let (Some(_), Some(typical)) = (attempt.started, typical.map(crate::time::nanos)) {
                        let ratio =
                            crate::time::nanos(attempt.since(now)).saturating_mul(1000) / typical.max(1);
                        let known: &mut u64 = late.entry(attempt.worker).or_default();
                        *known = ratio.max(*known);
                    }
                }
                if matches!(active.phase, Phase::Waiting(until) if until <= now) {
                    due.push(*task);
                }
            }
            due.into_iter().for_each(|task| run.settle(task, now));
        }
        for (worker, attempt) in lost {
            let failure = Failure {
                attempt,
                reason: FailReason::WorkersLost,
                detail: "no answer in time".to_owned(),
                missing: Vec::new(),
            };
            self.cancelled.entry(worker).or_default().push(attempt);
            self.on_failure(now, worker, failure, rng, out);
        }
        self.pool.set_late(late);
        self.take_back(now, out);
        self.stragglers(now, out);
    }

    /// Attempts that wait behind others, while somebody could begin them at once, or at somebody who turned out to be slow, while
    /// others have room, are given to those.
    fn take_back(&mut self, now: Time, out: &mut Outbox<Output>) {
        let slowness_max = self.slowness_max();
        let mut idle = self.pool.idle();
        let mut room = self.pool.free();
        if room == 0 {
            return;
        }
        let mut waiting = Vec::new();
        for run in self.runs.values() {
            for active in run.active.values() {
                let unstarted = active.attempts.iter().filter(|attempt| attempt.started.is_none());
                waiting.extend(
                    unstarted.map(|attempt| (attempt.since(now), attempt.id, attempt.worker)).filter(
                        |(since, _, worker)| {
                            // Who seems to have a slot is about to begin, or else does not answer.
                            *since >= if self.pool.is_idle(worker) { WAIT_MAX } else { WAIT_MIN }
                        },
                    ),
                );
            }
        }
        waiting.sort_by(|a, b| b.cmp(a));
        for (_, id, worker) in waiting {
            let is_slow = self.pool.slowness(&worker) > slowness_max;
            if room == 0 || (idle == 0 && !is_slow) {
                continue;
            }
            let Some((job, task, _)) = self.take_attempt(id, worker) else { continue };
            idle = idle.saturating_sub(1);
            room -= 1;
            self.pool.on_returned(now, worker);
            self.cancelled.entry(worker).or_default().push(id);
            let Some(run) = self.runs.get_mut(&job) else { continue };
            let Some(active) = run.active.get_mut(&task) else { continue };
            if !active.failed_on.contains(&worker) {
                active.failed_on.push(worker); // Others first.
            }
            let is_last_vote = active.votes.len() >= usize::from(active.voters);
            run.settle(task, now);
            if is_last_vote {
                self.decide(now, job, task, out);
            }
        }
    }

    /// Attempts that take much longer than their like get a second one, the longest first (Zaharia et al., *Improving
    /// MapReduce performance in heterogeneous environments*, 2008), as far as there is room.
    fn stragglers(&mut self, now: Time, out: &mut Outbox<Output>) {
        let is_idle = self.runs.values().all(|run| run.wants.is_empty());
        let config = &self.config;
        let mut found = Vec::new();
        for (job, run) in &self.runs {
            for (task, active) in &run.active {
                if active.phase != Phase::Open || active.copies >= config.copies_max {
                    continue;
                }
                let times = &run.times[usize::from(task.task)];
                let scaled = |per_mille, factor: u64| {
                    let nanos = crate::time::nanos(times.quantile(per_mille).unwrap_or_default());
                    Duration::from_nanos((nanos / 1000).saturating_mul(factor))
                };
                let mut limit = scaled(config.straggler_per_mille, config.straggler_factor);
                if is_idle {
                    limit = limit.min(scaled(500, config.idle_factor));
                }
                if times.len() < config.straggler_samples_min {
                    // Of its like too little is known; but others have done this very task.
                    let Some(fastest) = active.votes.iter().map(|vote| vote.took).min() else { continue };
                    let per_mille = if is_idle { VOTE_FACTOR_IDLE } else { VOTE_FACTOR };
                    limit = fastest.max(config.tick).saturating_mul(per_mille) / 1000;
                }
                let running = active.attempts.iter().filter(|attempt| attempt.started.is_some());
                for attempt in running.filter(|attempt| !attempt.is_straggler) {
                    let after = attempt.since(now);
                    if after > limit {
                        found.push((after, *job, *task, attempt.id, attempt.worker));
                    }
                }
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        let room = if is_idle { self.pool.idle() } else { self.pool.free() };
        for (after, job, task, id, worker) in found.into_iter().take(room) {
            let Some(run) = self.runs.get_mut(&job) else { continue };
            let Some(active) = run.active.get_mut(&task) else { continue };
            if active.copies >= self.config.copies_max {
                continue;
            }
            active.copies += 1;
            if let Some(attempt) = active.attempts.iter_mut().find(|attempt| attempt.id == id) {
                attempt.is_straggler = true;
            }
            run.settle(task, now);
            out.push(Output::Event(Event::Straggler { job, task, worker, after }));
        }
    }
}

/// How long an attempt may be silent.
fn patience(limits: &Limits, parts: &[Part], grace: Duration) -> Duration {
    let bytes: u64 = parts
        .iter()
        .map(|part| match part {
            Part::Blob { from, to, .. } => to.saturating_sub(*from),
            Part::Missing => 0,
        })
        .fold(0, u64::saturating_add);
    let fetch = Duration::from_millis(bytes / (FETCH_BYTES_PER_S / 1000));
    Duration::from_millis(limits.wall_ms).saturating_add(grace.max(fetch))
}

/// The longest blobs that a task reads.
fn longest(parts: &[Part]) -> Vec<BlobRef> {
    let blobs = parts.iter().filter_map(|part| match part {
        Part::Blob { blob, from, to, .. } => Some((to.saturating_sub(*from), *blob)),
        Part::Missing => None,
    });
    let mut blobs: Vec<_> = blobs.collect();
    blobs.sort_by(|a, b| b.cmp(a));
    blobs.dedup();
    blobs.truncate(NEAR_MAX);
    // How much of it is read is what counts.
    blobs.into_iter().map(|(bytes, blob)| BlobRef { hash: blob.hash, size: bytes }).collect()
}
