//! What a simulated worker does with tasks: it gets their inputs, takes its time, and says what came out, or lies.

use std::time::Duration;

use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::ledger::{FailReason, Part};
use omnimesh_protocol::compute::wire::Assignment;
use omnimesh_protocol::compute::worker::{self, Done, RunId};
use rand::RngExt;

use super::super::compute_jobs::{Role, truth};
use super::super::node::{Ctx, Node};
use super::super::random::mix;
use super::Later;

/// Asking all for an output that nobody has.
const SEARCH: Duration = Duration::from_millis(50);
/// Outputs that a worker says it holds: the newest. Fewer than a node tells, which costs time with a thousand of them; who
/// has made an output is known from its result.
const HELD_MAX: usize = 4;

impl Node {
    pub(super) fn on_worker_output(&mut self, output: worker::Output, ctx: &mut Ctx<'_>) {
        match output {
            worker::Output::Run { run, assignment } => self.run_task(run, &assignment, ctx),
            worker::Output::Stop(run) => {
                if let Some(part) = self.part()
                    && let Some(Some(number)) = part.running.remove(&run)
                {
                    part.later.remove(&number);
                }
            }
            worker::Output::Send { to, frame } => self.send_frame(to, frame, ctx),
            worker::Output::Timer { at, timer } => drop(self.add_later_at(Later::Worker(timer), at)),
        }
    }

    fn run_task(&mut self, run: RunId, assignment: &Assignment, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let (Some(settings), Some(compute)) = (&shared.compute, &shared.scenario.compute) else { return };
        let Some(job) = settings.number_of(&assignment.job) else { return };
        let fetch = match self.fetch_inputs(assignment, ctx) {
            Ok(fetch) => fetch,
            Err(missing) => {
                let detail = "nobody has it".to_owned();
                let done = Done::Failed { reason: FailReason::BlobMissing, detail, missing };
                return self.done_after(run, done, SEARCH, ctx);
            }
        };
        let jitter = self.rng.random_range(0.95..1.05);
        let service = settings.service(job, assignment.task).mul_f64(settings.slowness(ctx.me) * jitter);
        let wall = fetch + service;
        let mut result = truth(assignment.task, &assignment.parts, compute.output_bytes);
        match settings.roles[ctx.me as usize] {
            Role::Honest => {}
            Role::Liar => result.hash = Hash::from_bytes(self.rng.random()),
            Role::Colluder => result.hash = Hash::of(result.hash.as_bytes()),
            Role::Staller => {
                if let Some(part) = self.part() {
                    part.running.insert(run, None);
                }
                return;
            }
        }
        let limit = Duration::from_millis(assignment.limits.wall_ms);
        let done = if service > limit {
            let detail = "it took longer than its limit".to_owned();
            Done::Failed { reason: FailReason::WallLimit, detail, missing: Vec::new() }
        } else {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Done::Output { result, cpu_ms: ms(service), wall_ms: ms(wall) }
        };
        self.done_after(run, done, wall.min(fetch + limit), ctx);
    }

    /// What the inputs take to come, or which of them nobody has.
    fn fetch_inputs(&mut self, assignment: &Assignment, ctx: &mut Ctx<'_>) -> Result<Duration, Vec<Hash>> {
        let shared = ctx.shared;
        let Some(settings) = &shared.compute else { return Ok(Duration::ZERO) };
        let (mut bytes, mut way, mut missing, mut fetched) = (0_u64, 0, Vec::new(), Vec::new());
        let submitter = settings.number_of(&assignment.job).map(|number| settings.jobs[number].submitter);
        for part in assignment.parts.iter() {
            let Part::Blob { blob, from, to, .. } = part else { continue };
            if self.kept_jobs.as_ref().is_some_and(|kept| kept.blobs.contains(&blob.hash)) {
                continue;
            }
            let holder = if settings.is_input(&blob.hash) {
                submitter
            } else {
                let holders = shared.blobs.get(&blob.hash).into_iter().flatten().copied();
                let holder = holders
                    .filter(|holder| {
                        shared.up.contains(*holder) && shared.links.cut(*holder, ctx.me).is_none()
                    })
                    .min_by_key(|holder| mix(u64::from(*holder) ^ u64::from(ctx.me) << 32));
                fetched.extend(holder.map(|_| blob.hash));
                holder
            };
            match holder {
                Some(holder) if holder == ctx.me => {}
                Some(holder) => {
                    bytes = bytes.saturating_add(to.saturating_sub(*from));
                    way = way.max(2 * shared.links.latency(ctx.me, holder));
                }
                None => missing.push(blob.hash),
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        for hash in fetched {
            self.hold(hash, ctx);
        }
        Ok(self.transfer(bytes, ctx) + Duration::from_nanos(way))
    }

    pub(super) fn transfer(&self, bytes: u64, ctx: &Ctx<'_>) -> Duration {
        let rate = ctx.shared.scenario.compute.as_ref().map_or(1, |compute| compute.fetch_bytes_per_s);
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX),
        )
    }

    fn done_after(&mut self, run: RunId, done: Done, after: Duration, ctx: &mut Ctx<'_>) {
        let number = self.add_later(Later::Done(run, done), after, ctx);
        if let Some(part) = self.part() {
            part.running.insert(run, number);
        }
    }

    pub(super) fn on_run_done(&mut self, run: RunId, done: Done, ctx: &mut Ctx<'_>) {
        if let Done::Output { result, .. } = &done {
            let mut word = [0; 8];
            word.copy_from_slice(&result.hash.as_bytes()[..8]);
            self.set_trace(u64::from_le_bytes(word));
            self.hold(result.hash, ctx);
        }
        if let Some(part) = self.part() {
            part.running.remove(&run);
            let held = part.held.iter().rev().copied().collect();
            self.work(worker::Input::Held(held), ctx);
        }
        self.work(worker::Input::Done { run, done }, ctx);
    }

    /// A blob is on the disk.
    pub(super) fn hold(&mut self, hash: Hash, ctx: &mut Ctx<'_>) {
        if self.kept_jobs.get_or_insert_default().blobs.insert(hash) {
            ctx.sink.blobs.push((hash, ctx.me));
            if let Some(part) = self.part() {
                part.held.push_back(hash);
                if part.held.len() > HELD_MAX {
                    part.held.pop_front();
                }
            }
        }
    }
}
