//! What comes back from workers.

use std::time::Duration;

use rand_core::Rng;
use smallvec::SmallVec;

use crate::compute::id::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use crate::compute::ledger::{Commit, FailReason, Outcome, Part, WORKERS_MAX, cut_detail};
use crate::compute::statement::{Evidence, VerifiedResults};
use crate::compute::wire::{Failure, ResultItem};
use crate::id::{Hash, NodeId};
use crate::machine::Outbox;
use crate::time::Time;

use super::api::{Event, Finding, Output};
use super::run::{Active, Attempt, Phase, Vote};
use super::state::State;

/// How long to wait before somebody is asked again who, or whose like, was lost, for each time.
const LOSS_WAIT: Duration = Duration::from_millis(50);
const LOSS_WAIT_MAX: Duration = Duration::from_secs(5);

impl State {
    /// Takes an attempt off the books; `None` if it is not known, or not of this worker.
    pub(super) fn take_attempt(
        &mut self,
        id: AttemptId,
        worker: NodeId,
    ) -> Option<(JobId, TaskRef, Attempt)> {
        let (job, task) = *self.attempts.get(&id)?;
        let run = self.runs.get_mut(&job)?;
        let active = run.active.get_mut(&task)?;
        let place =
            active.attempts.iter().position(|attempt| attempt.id == id && attempt.worker == worker)?;
        let attempt = active.attempts.remove(place);
        if attempt.is_extra {
            active.copies -= 1;
        }
        run.attempts -= 1;
        self.attempts.remove(&id);
        Some((job, task, attempt))
    }

    pub(super) fn on_results(
        &mut self,
        now: Time,
        items: &[ResultItem],
        signed: &VerifiedResults,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) {
        let worker = signed.worker();
        // The shell has made one of the other: what was not signed is not looked at.
        for (item, statement) in items.iter().zip(signed.statements()) {
            if item.statement != *statement {
                return;
            }
            self.on_result(now, worker, item, signed, rng, out);
        }
    }

    fn on_result(
        &mut self,
        now: Time,
        worker: NodeId,
        item: &ResultItem,
        signed: &VerifiedResults,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) {
        let Some((job, task)) = self.attempts.get(&item.attempt).copied() else { return };
        let Some(limits) = self.ledger.job(&job).map(|view| view.spec().tasks[usize::from(task.task)].limits)
        else {
            return;
        };
        let result = item.statement.result;
        let key = self.runs.get(&job).and_then(|run| run.active.get(&task)).map(|active| active.key);
        let fault = if key != Some(item.statement.key) {
            Some((FailReason::Unavailable, "the worker has answered another question".to_owned()))
        } else if result.size > limits.output_bytes {
            let detail = format!("the output has {} bytes, more than {}", result.size, limits.output_bytes);
            Some((FailReason::OutputLimit, detail))
        } else {
            None
        };
        if let Some((reason, detail)) = fault {
            let failure = Failure { attempt: item.attempt, reason, detail, missing: Vec::new() };
            return self.on_failure(now, worker, failure, rng, out);
        }
        let Some((_, _, attempt)) = self.take_attempt(item.attempt, worker) else { return };
        let Some(run) = self.runs.get_mut(&job) else { return };
        let time = if attempt.is_recalled { Duration::from_millis(item.wall_ms) } else { attempt.since(now) };
        let typical = run.typical(task);
        let Some(active) = run.active.get_mut(&task) else { return };
        if attempt.is_recalled {
            self.pool.on_returned(now, worker);
        } else {
            if active.restores.is_none() {
                run.times[usize::from(task.task)].add(time);
            }
            self.pool.on_success(now, worker, time, typical);
        }
        self.pool.on_holds(worker, result.hash);
        // Who has read a chunk of a blob does not hold the others.
        if let Some(longest) = active.blobs.first()
            && active.parts.iter().any(|part| is_whole(part, longest.hash))
        {
            self.pool.on_holds(worker, longest.hash);
        }
        if run.banned.contains(&worker) {
            return run.settle(task, now);
        }
        let vote = Vote {
            worker,
            took: time,
            result,
            signed: signed.clone(),
            cpu_ms: item.cpu_ms,
            wall_ms: item.wall_ms,
        };
        if let Phase::Decided(known) = active.phase {
            return self.on_late(now, job, task, known, &vote, out);
        }
        active.votes.push(vote);
        self.decide(now, job, task, out);
    }

    /// A result of a task that was decided before.
    fn on_late(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        known: Option<Hash>,
        vote: &Vote,
        out: &mut Outbox<Output>,
    ) {
        if known.is_some_and(|known| known != vote.result.hash) {
            self.dissent(now, job, task, vote, out);
        }
        self.release_if_over(now, job, task, out);
    }

    /// Forgets a task that was decided, once that is in the log and nobody is at it any more.
    pub(super) fn release_if_over(&mut self, now: Time, job: JobId, task: TaskRef, out: &mut Outbox<Output>) {
        let active = self.runs.get(&job).and_then(|run| run.active.get(&task));
        let is_over = active.is_some_and(|active| active.attempts.is_empty());
        let view = self.ledger.job(&job);
        if is_over && view.and_then(|view| view.task(task)).is_some_and(|state| state.has_ended()) {
            self.release(now, job, task, out);
        }
    }

    /// Looks whether the votes are enough.
    pub(super) fn decide(&mut self, now: Time, job: JobId, task: TaskRef, out: &mut Outbox<Output>) {
        let voters_extra = self.config.voters_extra;
        let Some(run) = self.runs.get_mut(&job) else { return };
        let Some(active) = run.active.get_mut(&task) else { return };
        if matches!(active.phase, Phase::Decided(_)) {
            return; // With another worker that was found out, or before its last attempt was taken back.
        }
        if let Some(expected) = active.restores {
            return self.on_restored(now, job, task, expected, out);
        }
        if let Some(result) = active.quorum() {
            return self.conclude(now, job, task, result, out);
        }
        // Each vote against the leading result has to be made up for by one more worker, who is asked without waiting for the others.
        let voters = active.voters_needed(voters_extra);
        if voters > active.voters {
            active.voters = voters;
            let results = active.results();
            out.push(Output::Event(Event::Tie { job, task, results }));
        } else if active.votes.len() >= usize::from(active.voters) && active.attempts.is_empty() {
            let results = active.results();
            if let Some(result) = active.majority() {
                return self.conclude(now, job, task, result, out);
            } else {
                let detail = format!("{} workers have {results} different results", active.votes.len());
                return self.fail_for_good(now, job, task, FailReason::NoMajority, detail, out);
            }
        }
        run.settle(task, now);
    }

    /// Nobody else can be asked: the majority of those who were counts, if there is one.
    pub(super) fn decide_by_majority(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        out: &mut Outbox<Output>,
    ) {
        let active = self.runs.get(&job).and_then(|run| run.active.get(&task));
        let active = active.filter(|active| active.attempts.is_empty() && active.restores.is_none());
        if let Some(result) = active.and_then(Active::majority) {
            self.conclude(now, job, task, result, out);
        }
    }

    /// A result counts.
    fn conclude(&mut self, now: Time, job: JobId, task: TaskRef, result: BlobRef, out: &mut Outbox<Output>) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        let Some(active) = run.active.get_mut(&task) else { return };
        active.phase = Phase::Decided(Some(result.hash));
        let (right, wrong): (Vec<Vote>, Vec<Vote>) =
            active.votes.iter().cloned().partition(|vote| vote.result == result);
        let Some(first) = right.first() else { return };
        let workers = |votes: &[Vote]| votes.iter().map(|vote| vote.worker).take(WORKERS_MAX).collect();
        run.commits.push(Commit {
            task,
            stage: active.stage,
            inputs: active.inputs,
            outcome: Outcome::Succeeded(result),
            workers: workers(&right),
            dissenters: workers(&wrong),
            cpu_ms: first.cpu_ms,
            wall_ms: first.wall_ms,
        });
        run.wants.remove(task);
        // Where results are compared, those that are being made are waited for: they may find another liar.
        let is_compared = active.redundancy > 1;
        self.overtake(now, job, task, is_compared, out);
        for vote in &wrong {
            self.dissent(now, job, task, vote, out);
        }
        if result.size <= self.config.keep_bytes_max {
            self.keep(result, out);
        }
    }

    /// Takes the other attempts of a task back; of those that have begun, only if they are not to be kept.
    fn overtake(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        keep_started: bool,
        out: &mut Outbox<Output>,
    ) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        let typical = run.typical(task);
        let Some(active) = run.active.get_mut(&task) else { return };
        let (kept, taken): (SmallVec<[Attempt; 1]>, SmallVec<[Attempt; 1]>) =
            std::mem::take(&mut active.attempts)
                .into_iter()
                .partition(|attempt| keep_started && attempt.started.is_some());
        active.copies =
            u8::try_from(kept.iter().filter(|attempt| attempt.is_extra).count()).unwrap_or(u8::MAX);
        active.attempts = kept;
        for attempt in taken {
            run.attempts -= 1;
            self.attempts.remove(&attempt.id);
            match attempt.started {
                Some(_) => self.pool.on_overtaken(now, attempt.worker, attempt.since(now), typical),
                None => self.pool.on_returned(now, attempt.worker),
            }
            self.cancelled.entry(attempt.worker).or_default().push(attempt.id);
        }
        self.send_cancels(out);
    }

    /// A worker was wrong: it is reported, and has no part in this job any more.
    fn dissent(&mut self, now: Time, job: JobId, task: TaskRef, vote: &Vote, out: &mut Outbox<Output>) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        let evidence = run.active.get(&task).and_then(|active| {
            let Phase::Decided(Some(hash)) = active.phase else { return None };
            let witnesses: Vec<_> = active
                .votes
                .iter()
                .filter(|other| other.result.hash == hash)
                .map(|other| other.signed.clone())
                .collect();
            Evidence::new(active.key, &vote.signed, &witnesses)
        });
        let is_new = run.banned.insert(vote.worker);
        self.pool.on_dissent(&vote.worker);
        out.push(Output::Finding(Finding { job, task, accused: vote.worker, evidence }));
        if is_new {
            self.disregard(now, job, vote.worker, out);
        }
    }

    /// Takes the votes and attempts of a worker on all that is not decided out of a job.
    fn disregard(&mut self, now: Time, job: JobId, worker: NodeId, out: &mut Outbox<Output>) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        let mut touched = Vec::new();
        for (task, active) in &mut run.active {
            if matches!(active.phase, Phase::Decided(_)) {
                continue;
            }
            let before = active.votes.len() + active.attempts.len();
            active.votes.retain(|vote| vote.worker != worker);
            let (mut copies, mut gone) = (0, 0);
            active.attempts.retain(|attempt| {
                let is_kept = attempt.worker != worker;
                if !is_kept {
                    copies += u8::from(attempt.is_extra);
                    gone += 1;
                    self.attempts.remove(&attempt.id);
                    self.cancelled.entry(worker).or_default().push(attempt.id);
                }
                is_kept
            });
            active.copies -= copies;
            run.attempts -= gone;
            (0..gone).for_each(|_| self.pool.on_returned(now, worker));
            if active.votes.len() + active.attempts.len() < before {
                touched.push(*task);
            }
        }
        for task in touched {
            if let Some(run) = self.runs.get_mut(&job) {
                run.settle(task, now);
            }
            self.decide(now, job, task, out);
        }
        self.send_cancels(out);
    }

    pub(super) fn on_gone(&mut self, now: Time, node: NodeId, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let of_node = |(job, task): (JobId, TaskRef), id: &AttemptId| {
            let active = self.runs.get(&job).and_then(|run| run.active.get(&task));
            active.is_some_and(|active| {
                active.attempts.iter().any(|attempt| attempt.id == *id && attempt.worker == node)
            })
        };
        let lost: Vec<_> =
            self.attempts.iter().filter(|(id, of)| of_node(**of, id)).map(|(id, _)| *id).collect();
        self.pool.on_gone(&node);
        self.assigned.remove(&node);
        for attempt in lost {
            let detail = "the worker is gone".to_owned();
            let failure = Failure { attempt, reason: FailReason::WorkersLost, detail, missing: Vec::new() };
            self.on_failure(now, node, failure, rng, out);
        }
    }

    pub(super) fn on_failure(
        &mut self,
        now: Time,
        worker: NodeId,
        failure: Failure,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) {
        let Failure { attempt, reason, mut detail, missing } = failure;
        let Some((job, task, _)) = self.take_attempt(attempt, worker) else { return };
        cut_detail(&mut detail);
        match reason {
            FailReason::Busy => self.pool.on_busy(now, worker),
            FailReason::Unavailable | FailReason::WorkersLost => {
                if self.pool.on_failure(now, worker) {
                    out.push(Output::Event(Event::BreakerOpened { worker }));
                }
            }
            _ => self.pool.on_returned(now, worker),
        }
        let Some(run) = self.runs.get_mut(&job) else { return };
        let Some(active) = run.active.get_mut(&task) else { return };
        if matches!(active.phase, Phase::Decided(_)) {
            return self.release_if_over(now, job, task, out);
        }
        if active.votes.len() >= usize::from(active.voters) {
            // It was one beside those that were asked, for a straggler: their answers decide.
            return self.decide(now, job, task, out);
        }
        let needed = active.voters_needed(self.config.voters_extra);
        if active.voters > needed && active.votes.len() + active.attempts.len() >= usize::from(needed) {
            // It was asked beside those that have to agree: what it failed with is not held against the task.
            active.voters -= 1;
            active.add_failed(worker, reason);
            return self.decide(now, job, task, out);
        }
        let retry = match self.ledger.job(&job) {
            Some(view) => view.spec().tasks[usize::from(task.task)].retry,
            None => return,
        };
        if reason != FailReason::Busy {
            active.add_failed(worker, reason);
        }
        let (is_final, wait) = if reason == FailReason::Busy {
            // Nothing went wrong: the pool knows by now that there is no room, and when there is some it is asked again.
            (false, Duration::ZERO)
        } else if reason.is_of_the_worker() {
            // Where others have done it or are at it, as many as are needed, all that is lost is a copy.
            let is_needed = active.votes.len() + active.attempts.len() < usize::from(active.voters);
            active.losses += u16::from(is_needed);
            let wait = (LOSS_WAIT * u32::from(active.losses)).min(LOSS_WAIT_MAX);
            // The first worker that is lost is no reason to wait.
            let wait = if active.losses == 1 && missing.is_empty() { Duration::ZERO } else { wait };
            (active.losses > self.config.losses_max, wait)
        } else {
            active.failures = active.failures.saturating_add(1);
            (active.is_at_fault(retry.max), backoff(&retry, active.failures, rng))
        };
        let will_retry = !is_final;
        let text = detail.as_str().into();
        out.push(Output::Event(Event::AttemptFailed { job, task, worker, reason, detail: text, will_retry }));
        if is_final {
            return self.fail_for_good(now, job, task, reason, detail, out);
        }
        active.phase = if wait.is_zero() { Phase::Open } else { Phase::Waiting(now + wait) };
        run.settle(task, now);
        if !missing.is_empty() {
            self.restore_outputs(now, job, task, worker, &missing, out);
        }
    }

    /// A task reads outputs that nobody has: their tasks are run again.
    fn restore_outputs(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        worker: NodeId,
        missing: &[Hash],
        out: &mut Outbox<Output>,
    ) {
        let Some(view) = self.ledger.job(&job) else { return };
        for (maker, hash) in view.makers_of(task, missing) {
            for holder in self.pool.holders(&hash).to_vec() {
                // The worker has asked them all.
                if holder != worker {
                    self.pool.on_lacks(&holder, &hash);
                }
            }
            let Some(run) = self.runs.get_mut(&job) else { return };
            // One that is being made, or is on its way into the log, is waited for as well.
            let is_new = !run.active.contains_key(&maker);
            if is_new {
                run.want(maker, now);
                out.push(Output::Event(Event::Restoring { job, task: maker }));
            } else if let Some(active) = run.active.get(&maker)
                && matches!(active.phase, Phase::Decided(_))
            {
                continue;
            }
            run.blocked.entry(maker).or_default().insert(task);
            if let Some(active) = run.active.get_mut(&task) {
                active.phase = Phase::Blocked;
            }
            run.settle(task, now);
        }
    }

    /// An output was made again.
    fn on_restored(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        expected: BlobRef,
        out: &mut Outbox<Output>,
    ) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        let Some(active) = run.active.get_mut(&task) else { return };
        let Some(vote) = active.votes.pop() else { return run.settle(task, now) };
        if vote.result != expected {
            active.losses += 1;
            let is_final = active.losses > self.config.losses_max;
            active.add_other(vote.worker);
            run.settle(task, now);
            // One worker's word against another's tells nothing of either.
            if self.ledger.job(&job).is_some_and(|view| view.is_agreed(task, expected)) {
                self.dissent(now, job, task, &vote, out);
            }
            if is_final {
                self.release(now, job, task, out);
            }
            return;
        }
        if expected.size <= self.config.keep_bytes_max {
            self.keep(expected, out);
        }
        self.release(now, job, task, out);
    }

    /// A task has no more tries: its fallback, or the end.
    fn fail_for_good(
        &mut self,
        now: Time,
        job: JobId,
        task: TaskRef,
        reason: FailReason,
        mut detail: String,
        out: &mut Outbox<Output>,
    ) {
        self.overtake(now, job, task, false, out);
        let Some(view) = self.ledger.job(&job) else { return };
        let last_stage = view.spec().tasks[usize::from(task.task)].last_stage();
        let Some(run) = self.runs.get_mut(&job) else { return };
        let Some(active) = run.active.get_mut(&task) else { return };
        if active.restores.is_some() {
            // Its output is in the ledger; that it cannot be made again is a matter for those who read it.
            return self.release(now, job, task, out);
        }
        if active.stage < last_stage {
            active.next_stage(&job, task);
            return run.settle(task, now);
        }
        cut_detail(&mut detail);
        active.phase = Phase::Decided(None);
        run.commits.push(Commit {
            task,
            stage: active.stage,
            inputs: active.inputs,
            outcome: Outcome::Failed { reason, detail },
            workers: active.faulted_on.iter().chain(&active.failed_on).copied().take(WORKERS_MAX).collect(),
            dissenters: SmallVec::new(),
            cpu_ms: 0,
            wall_ms: 0,
        });
        run.wants.remove(task);
    }
}

/// True if all of this blob is read.
fn is_whole(part: &Part, of: Hash) -> bool {
    matches!(part, Part::Blob { blob, from: 0, to, .. } if blob.hash == of && *to >= blob.size)
}

impl Active {
    /// Begins the fallback.
    fn next_stage(&mut self, job: &JobId, task: TaskRef) {
        self.stage += 1;
        self.key = TaskKey::of(job, task, self.stage, &self.inputs);
        self.phase = Phase::Open;
        self.votes.clear();
        (self.voters, self.is_hedged) = (self.redundancy, false);
        (self.copies, self.failures, self.losses) = (0, 0, 0);
        self.failed_on.clear();
        self.faulted_on.clear();
    }
}

/// The wait before the next try: doubles each time, and a random share of it is left out.
fn backoff(retry: &crate::compute::job::Retry, failures: u16, rng: &mut impl Rng) -> Duration {
    let doubled = retry.backoff_ms.saturating_mul(1 << u32::from(failures.saturating_sub(1)).min(30));
    let wait_us = doubled.min(retry.backoff_max_ms).saturating_mul(1000);
    let jitter = wait_us / 1000 * u64::from(retry.jitter_per_mille.min(1000));
    let left_out = if jitter == 0 { 0 } else { rng.next_u64() % jitter };
    Duration::from_micros(wait_us.saturating_sub(left_out))
}
