//! Who drives which job.

use crate::compute::id::JobId;
use crate::compute::ledger::{CancelReason, JobState, LEASE_JOBS_MAX, LEASE_STEPS_MAX, Operation};
use crate::id::{NodeId, Step};
use crate::machine::Outbox;
use crate::time::Time;

use super::api::{Event, Output};
use super::place::ask;
use super::run::Run;
use super::state::{Appending, State};

impl State {
    /// Looks at all jobs that have not ended.
    pub(super) fn duties(&mut self, now: Time, out: &mut Outbox<Output>) {
        let Some(step) = self.step else { return };
        let jobs: Vec<_> = self.ledger.unfinished().collect();
        let mut renewals = Vec::new();
        for job in jobs {
            self.duty(now, job, out);
            if self.runs.contains_key(&job) {
                self.check_deadline(job, step, out);
                let until = self.ledger.job(&job).map_or(Step(0), |view| view.holder().until);
                if until.0.saturating_sub(step.0) < self.config.lease_steps / 2 {
                    renewals.push(job);
                }
                self.check_end(job, out);
            }
        }
        let steps = self.config.lease_steps.min(LEASE_STEPS_MAX);
        for jobs in renewals.chunks(LEASE_JOBS_MAX) {
            let operation = Operation::Lease { is_taken: false, steps, jobs: jobs.to_vec() };
            self.append(&operation, Appending::Renew, out);
        }
    }

    /// Drives a job, leaves it, or takes it over, as the ledger and the members that are alive have it.
    pub(super) fn duty(&mut self, now: Time, job: JobId, out: &mut Outbox<Output>) {
        let Some(step) = self.step else { return };
        let Some(view) = self.ledger.job(&job) else { return };
        if view.is_finished() {
            return self.drop_run(now, job, out);
        }
        let holder = view.holder();
        if holder.node == self.me {
            if !self.runs.contains_key(&job) {
                self.start(now, job, out);
            }
            return;
        }
        let submitter = view.submitter();
        self.drop_run(now, job, out);
        let Some(since) = self.vacant_since(&holder.node, holder.until, step) else { return };
        let place = self.place_in_line(job, submitter, &holder.node);
        let due = since.saturating_add(place.saturating_mul(self.config.takeover_steps));
        let is_taking = self.taking.get(&job).is_some_and(|taken| {
            // An entry that has not come back by then never will.
            step.0.saturating_sub(taken.0) < 4 * self.config.takeover_steps
        });
        if step >= due && !is_taking {
            self.taking.insert(job, step);
            let steps = self.config.lease_steps.min(LEASE_STEPS_MAX);
            let operation = Operation::Lease { is_taken: true, steps, jobs: vec![job] };
            self.append(&operation, Appending::Take(job), out);
        }
    }

    /// Since when nobody drives the job; `None` while somebody does.
    fn vacant_since(&self, holder: &NodeId, until: Step, step: Step) -> Option<Step> {
        if step > until {
            return Some(until.saturating_add(1));
        }
        // Unknown is not dead: it may be about to join.
        self.down.get(holder).copied().flatten()
    }

    /// How many come before this node: the submitter, then by rendezvous, of those that are alive.
    fn place_in_line(&self, job: JobId, submitter: NodeId, holder: &NodeId) -> u64 {
        let rank = |node: &NodeId| (*node == submitter, job.rendezvous(node));
        let mine = rank(&self.me);
        let others = self.alive.iter().filter(|node| *node != holder && **node != self.me);
        others.filter(|node| rank(node) > mine).count() as u64
    }

    fn start(&mut self, now: Time, job: JobId, out: &mut Outbox<Output>) {
        let Some(view) = self.ledger.job(&job) else { return };
        let mut run = Run::new(view.plan(), view.dissenters());
        view.ready().for_each(|task| run.want(task, now));
        self.runs.insert(job, run);
        self.pool.nodes().for_each(|worker| ask(worker, &[job], out));
        self.taking.remove(&job);
        out.push(Output::Event(Event::Driving(job)));
        self.check_end(job, out);
    }

    fn check_deadline(&mut self, job: JobId, step: Step, out: &mut Outbox<Output>) {
        let Some(view) = self.ledger.job(&job) else { return };
        let interval = self.config.step_interval.as_millis().max(1);
        let steps = u128::from(view.spec().deadline_s) * 1000 / interval;
        let end = view.began().saturating_add(u64::try_from(steps).unwrap_or(u64::MAX));
        let Some(run) = self.runs.get_mut(&job) else { return };
        if step <= end || view.state() != JobState::Running || run.is_cancelling {
            return;
        }
        run.is_cancelling = true;
        let counts = view.counts();
        let detail = format!(
            "{} tasks had not ended after {} s",
            counts.pending + counts.ready,
            view.spec().deadline_s
        );
        let operation =
            Operation::Cancel { job, round: view.round(), reason: CancelReason::Deadline, detail };
        self.append(&operation, Appending::Deadline(job), out);
    }
}
