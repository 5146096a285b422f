//! Gives tasks to workers.

use std::sync::Arc;

use rand_core::Rng;
use smallvec::SmallVec;

use crate::compute::id::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use crate::compute::ledger::Part;
use crate::compute::placement::{Unplaced, Wanted};
use crate::compute::wire::{ASK_MAX, Assignment, BATCH_MAX, FRAME_BYTES_MAX};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Time;

use super::api::{Event, Output};
use super::run::{Active, Attempt, Phase};
use super::state::State;
use super::wants::Place;

/// Tasks of a job that are tried in vain before the next job has its turn.
const TRIES: usize = 8;
/// Blobs that count for locality.
const NEAR_MAX: usize = 16;

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
    pub(super) fn slowness_max(&self) -> u64 {
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
        let places: SmallVec<[Place; TRIES]> = run.wants.next().take(TRIES).collect();
        for (_, task) in places.iter().copied() {
            if !self.ensure_active(now, job, task, rng) {
                continue;
            }
            if let Some(worker) = self.choose(now, job, task, slowness_max, explain, rng, out) {
                self.assign(now, job, task, worker, false, out);
                return true;
            }
            if self.pool.free() == 0 {
                return false;
            }
        }
        // Others are tried next time: these may have constraints that nobody meets now.
        if let Some(run) = self.runs.get_mut(&job) {
            run.wants.go_on(places.last().copied());
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
                run.wants.remove(task);
            }
            return needs;
        }
        // What is on its way into the log is not done again; if it does not count there, it will be wanted then.
        let (Some(view), Some(inputs), false) = (view, inputs, is_writing) else {
            run.wants.remove(task);
            return false;
        };
        let parts: Arc<[Part]> = view.parts(task).into();
        let asked = view.spec().tasks[usize::from(task.task)].redundancy;
        let mut redundancy = asked;
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
                is_hedged: false,
                may_wait: asked > 1,
                copies: 0,
                failures: 0,
                losses: 0,
                failed_on: SmallVec::new(),
                faulted_on: SmallVec::new(),
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
        let excluded = |node: &NodeId| banned.contains(node) || active.excludes(node);
        let wanted = Wanted {
            operation: &spec.action_at(active.stage).operation,
            constraints: &spec.constraints,
            memory_bytes: spec.limits.memory_bytes,
            inputs: &active.blobs,
            excluded: &excluded,
            slowness_max,
            is_urgent: active.copies > 0 || active.voters > active.redundancy,
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
        if is_excluded && run.active.get_mut(&task).is_some_and(|active| !active.forgive()) {
            self.decide_by_majority(now, job, task, out);
            return None;
        }
        let is_news = run.held.as_ref().is_none_or(|(_, known)| *known != reason);
        run.held = Some((task, reason.clone()));
        if is_news {
            out.push(Output::Event(Event::Held { job, task, reason }));
        }
        None
    }

    /// A worker has done tasks of a job for who drove it before, or is at it: it is asked for them, also if others are by now. It
    /// answers from memory, or when it is done.
    pub(super) fn on_has(
        &mut self,
        now: Time,
        from: NodeId,
        job: JobId,
        keys: &[TaskKey],
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) {
        if !self.pool.contains(&from) {
            return;
        }
        for key in keys {
            let (Some(view), Some(run)) = (self.ledger.job(&job), self.runs.get_mut(&job)) else { return };
            let is_full = run.attempts >= self.config.job_attempts_max || run.banned.contains(&from);
            let Some(task) = run.of_key(key, &view).filter(|_| !is_full) else { continue };
            self.ensure_active(now, job, task, rng);
            let active = self.runs.get_mut(&job).and_then(|run| run.active.get_mut(&task));
            let extra = usize::from(self.config.voters_extra);
            let is_wanted = |active: &&mut Active| {
                active.key == *key
                    && active.phase == Phase::Open
                    && !active.has_asked(&from)
                    && active.votes.len() + active.attempts.len() < usize::from(active.redundancy) + extra
            };
            if let Some(active) = active.filter(is_wanted) {
                // Beside those that are needed, until it answers: it may not have done what it says.
                active.copies += 1;
                self.assign(now, job, task, from, true, out);
            }
        }
    }

    fn assign(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        worker: NodeId,
        is_recalled: bool,
        out: &mut Outbox<Output>,
    ) {
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
            is_extra: is_recalled,
            is_recalled,
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
}

/// Asks a worker what it has done of jobs for others.
pub(super) fn ask(worker: NodeId, jobs: &[JobId], out: &mut Outbox<Output>) {
    for jobs in jobs.chunks(ASK_MAX) {
        out.push(Output::Ask { to: worker, jobs: jobs.to_vec() });
    }
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
