//! Looks after attempts: who is silent, what waits too long, what takes too long.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;

use crate::compute::id::TaskRef;
use crate::compute::job::Limits;
use crate::compute::ledger::{FailReason, Part};
use crate::compute::wire::Failure;
use crate::machine::Outbox;
use crate::time::Time;

use super::api::{Event, Output};
use super::run::{Active, Phase};
use super::state::State;
use super::wants::Class;

/// An attempt that takes so many times as long as another one of the same task is a straggler, in thousandths; and while workers
/// have nothing else to do. Default: guesses.
const VOTE_FACTOR: u32 = 2000;
const VOTE_FACTOR_IDLE: u32 = 1500;
/// How many more are asked for the last tasks than have to agree, while so many workers for each of these have an idle slot. Default:
/// guesses.
const HEDGE: u8 = 2;
const HEDGE_PART: usize = 8;
/// Attempts that wait no longer than this are left where they are: they may have begun, and the news is on its way. Default:
/// guess.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// So long at most an attempt may wait at a worker that seems to have a slot for it. Default: guess.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes in a second that fetching inputs may be expected to reach at least.
const FETCH_BYTES_PER_S: u64 = 10_000_000;

impl State {
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
                // What turns out to be long does not wait any more.
                let is_long = || typical.is_some_and(|typical| active.takes(now) >= typical);
                let becomes_long = run.wants.class(*task) == Some(Class::Short) && is_long();
                if becomes_long || matches!(active.phase, Phase::Waiting(until) if until <= now) {
                    due.push(*task);
                }
            }
            due.into_iter().for_each(|task| run.settle(task, now));
            // Those at the front may have waited for a worker that there is by now.
            run.wants.go_on(None);
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
        if is_idle {
            self.hedge(now);
        }
        let config = &self.config;
        let copies_max = config.copies_max_now(is_idle);
        let mut found = Vec::new();
        for (job, run) in &self.runs {
            for (task, active) in &run.active {
                if active.phase != Phase::Open || active.copies >= copies_max {
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
                if let Some(fastest) = active.votes.iter().map(|vote| vote.took).min() {
                    // Others have done this very task: that says more than its like. But a liar answers at once, so not sooner than
                    // its like usually take.
                    let per_mille = if is_idle { VOTE_FACTOR_IDLE } else { VOTE_FACTOR };
                    limit = fastest.max(config.tick).saturating_mul(per_mille) / 1000;
                    limit = limit.max(scaled(500, 1000));
                } else if times.len() < config.straggler_samples_min {
                    continue;
                }
                let running = active.attempts.iter().filter(|attempt| attempt.started.is_some());
                for attempt in running.filter(|attempt| !attempt.is_extra) {
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
            if active.copies >= copies_max {
                continue;
            }
            active.copies += 1;
            if let Some(attempt) = active.attempts.iter_mut().find(|attempt| attempt.id == id) {
                attempt.is_extra = true;
            }
            run.settle(task, now);
            out.push(Output::Event(Event::Straggler { job, task, worker, after }));
        }
    }

    /// The last tasks of jobs, while many workers are idle: more are asked than have to agree, before it is known that one of those asked
    /// is slow or a liar. Later each would cost as long as the task takes.
    fn hedge(&mut self, now: Time) {
        let is_open = |active: &&Active| active.phase == Phase::Open;
        let open: usize = self.runs.values().map(|run| run.active.values().filter(is_open).count()).sum();
        if open == 0 || self.pool.idle() / HEDGE_PART < open {
            return;
        }
        let more = HEDGE.min(self.config.voters_extra);
        for run in self.runs.values_mut() {
            let may = |active: &Active| active.may_wait && !active.is_hedged;
            let tasks: Vec<TaskRef> =
                run.active.iter().filter(|(_, a)| is_open(a) && may(a)).map(|(task, _)| *task).collect();
            for task in tasks {
                if let Some(active) = run.active.get_mut(&task) {
                    active.is_hedged = true;
                    active.voters = active.voters.max(active.redundancy.saturating_add(more));
                }
                run.settle(task, now);
            }
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
