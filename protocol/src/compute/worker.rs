//! The worker: which attempts it takes, in which order, and what it tells drivers.
//!
//! ```text
//!  Assign ──► known already? ──► add the asker          done before? ──► Results at once
//!                │ no
//!                ▼
//!             room? ──no──► Failed(busy)
//!                │ yes
//!                ▼
//!             queue ──slot and memory──► Run ──► Started ──► Done ──► Results, Failed ──► all who asked
//! ```
//!
//! One task with the same inputs ([`TaskKey`]) runs once here, whoever asks and however often; results are remembered for
//! a while. So a driver that takes a job over gets the work of the one before it.
//!
//! Results are signed together when the shell has nothing else to do ([`State::wants_flush`], [`Input::Flush`]).
//!
//! # Bounds
//! Attempts under way and waiting, of all and of one job; memory of those that run; remembered results. What does not
//! fit is refused as busy.
//!
//! # Not here
//! Fetching inputs and running programs: the shell does that, within the limits of the assignment.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use rand_core::Rng;

use crate::id::{Hash, MeshId, NodeId};
use crate::identity::Identity;
use crate::machine::Outbox;
use crate::time::Time;

use super::blob::GROUP_BYTES;
use super::id::{AttemptId, BlobRef, JobId, TaskKey};
use super::job::{Align, Limits, Quota, Window, window};
use super::ledger::{FailReason, Part, cut_detail};
use super::placement::{HELD_MAX, Offer};
use super::statement::{SignedResults, Statement};
use super::wire::{ASK_MAX, Assignment, BATCH_MAX, Failure, Frame, MISSING_MAX, ResultItem};

/// What a worker gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Attempts that run at once; 0 takes no work. Default 2: guess, the shell gives the number of threads.
    pub slots: u32,
    /// Attempts that wait for a slot, at most. Default 256 (guess): so many only if they are short.
    pub queue_max: u32,
    /// As many wait as are begun within this time, and one for each slot. Default 500 ms (guess): some round trips. What waits here
    /// cannot be begun by somebody else who is quicker, nor can it be overtaken by what turns out to be urgent.
    pub ahead: Duration,
    /// Attempts of one job, running and waiting. Default: no limit of its own.
    pub job_attempts_max: u32,
    /// Memory of all attempts that run together, by their limits. Default 2 GiB (guess).
    pub memory_bytes: u64,
    /// Inputs and program of one attempt together, as they are in memory while it runs: many short parts take more than
    /// their bytes. Default 1 GiB (guess).
    pub input_bytes_max: u64,
    /// What one attempt may ask for. Default: as a job may (guess). A driver checks the same of jobs that it is given; this
    /// is against those that do not.
    pub limits_max: Limits,
    /// What this worker is: what constraints ask for.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub region: Option<String>,
    /// The operations that it does; all if there is none.
    pub operations: Vec<String>,
    /// Results that are remembered, about 100 bytes each. Default 16,384 (guess). Fewer do work twice after a driver
    /// has died.
    pub results_max: NonZeroUsize,
    /// How often it says what it is. Default 3 s (guess): a third of what makes it count as gone.
    pub heartbeat: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let quota = Quota::default();
        Config {
            slots: 2,
            queue_max: 256,
            ahead: Duration::from_millis(500),
            job_attempts_max: u32::MAX,
            memory_bytes: 2 << 30,
            input_bytes_max: 1 << 30,
            limits_max: Limits {
                cpu_ms: quota.cpu_ms_max,
                memory_bytes: quota.memory_bytes_max,
                output_bytes: quota.output_bytes_max,
                wall_ms: quota.wall_ms_max,
            },
            labels: BTreeMap::new(),
            region: None,
            operations: Vec::new(),
            results_max: NonZeroUsize::new(16_384).expect("not zero"),
            heartbeat: Duration::from_secs(3),
        }
    }
}

/// The worker's name for something that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// An output, which is in the blob store.
    Output {
        /// Which.
        result: BlobRef,
        /// CPU time in milliseconds.
        cpu_ms: u64,
        /// Duration in milliseconds.
        wall_ms: u64,
    },
    /// None.
    Failed {
        /// Why.
        reason: FailReason,
        /// For people; cut to what a frame holds.
        detail: String,
        /// With [`FailReason::BlobMissing`]: which.
        missing: Vec<Hash>,
    },
}

/// What happens to a worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// A member is connected and can be sent frames; this node itself too, if it drives jobs.
    Connected(NodeId),
    /// It no longer is.
    Disconnected(NodeId),
    /// A driver gives work.
    Assign {
        /// Who.
        from: NodeId,
        /// What.
        assignments: Vec<Assignment>,
    },
    /// A driver does not want it any more.
    Cancel {
        /// Who.
        from: NodeId,
        /// What.
        attempts: Vec<AttemptId>,
    },
    /// Somebody drives these jobs, and wants to know what was done of them for others.
    Ask {
        /// Who.
        from: NodeId,
        /// Which.
        jobs: Vec<JobId>,
    },
    /// Answers [`Output::Run`].
    Done {
        /// Which.
        run: RunId,
        /// What came of it.
        done: Done,
    },
    /// Blobs that this node holds, the newest; told to drivers.
    Held(Vec<Hash>),
    /// Take no more work; what runs goes on.
    Drain(bool),
    /// The shell has nothing else to read: sign and send what is done.
    Flush,
    /// A timer has come.
    Timer(Timer),
}

/// What a worker wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Fetch the inputs and run it. Answered by [`Input::Done`], whatever happens.
    Run {
        /// Its name.
        run: RunId,
        /// What.
        assignment: Assignment,
    },
    /// Stop it; its answer is not waited for any more.
    Stop(RunId),
    /// Send a frame to a driver.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: Frame,
    },
    /// Come back then.
    Timer {
        /// When.
        at: Time,
        /// With this.
        timer: Timer,
    },
}

/// A timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Tell all drivers what this worker is.
    Heartbeat,
}

#[derive(Clone, Debug)]
struct Task {
    run: RunId,
    /// `None` while it waits.
    started: Option<Time>,
    assignment: Assignment,
    /// Who wants it, and how they call it: each driver has one attempt at a task.
    askers: Vec<(NodeId, AttemptId)>,
}

/// A result that may be asked for again.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    number: u64,
    job: JobId,
    result: BlobRef,
    cpu_ms: u64,
    wall_ms: u64,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Attempts that were asked for.
    pub assigned: u64,
    /// Attempts refused for lack of room.
    pub busy: u64,
    /// Attempts answered from memory, or by a run that was under way.
    pub shared: u64,
    /// Runs begun.
    pub runs: u64,
    /// Runs stopped.
    pub stopped: u64,
}

/// A worker. See the [module](self).
#[derive(Debug)]
pub struct State {
    config: Config,
    identity: Identity,
    mesh: MeshId,
    drivers: BTreeMap<NodeId, Outgoing>,
    tasks: BTreeMap<TaskKey, Task>,
    runs: BTreeMap<RunId, TaskKey>,
    queue: VecDeque<TaskKey>,
    /// Drivers that were refused for lack of room, and are to hear when there is some: who waits longest first.
    refused: VecDeque<NodeId>,
    done: LruCache<TaskKey, Remembered>,
    /// The same by job, in the order in which they were done: who asks for a job costs no more than what is told.
    done_of: BTreeMap<JobId, BTreeMap<u64, TaskKey>>,
    held: Vec<Hash>,
    memory: u64,
    running: u32,
    /// Rolling mean of how long runs take, in nanoseconds.
    mean: Option<u64>,
    is_draining: bool,
    next_run: u64,
    next_result: u64,
    stats: Stats,
}

/// What waits to be sent to a driver.
#[derive(Debug, Default)]
struct Outgoing {
    started: Vec<AttemptId>,
    results: Vec<ResultItem>,
    failures: Vec<Failure>,
    /// Its last offer is out of date.
    is_stale: bool,
}

/// What a part takes in memory: its bytes, and what is held beside them.
fn part_held(part: &Part) -> (u64, u64) {
    let Part::Blob { blob, from, to, align } = part else { return (0, 0) };
    // Where row groups end the footer says: the shell counts what is more against the task's own memory.
    if *align == Align::RowGroup {
        return (to.saturating_sub(*from), 0);
    }
    let Window { from: begin, to: end } = window(blob.size, *from, *to, *align);
    let bytes = end.saturating_sub(begin);
    // It is read in whole groups; the shell copies what is less than half of what was read.
    let first = begin / GROUP_BYTES * GROUP_BYTES;
    let last = end.div_ceil(GROUP_BYTES).saturating_mul(GROUP_BYTES).min(blob.size);
    let read = last.saturating_sub(first);
    let held = if bytes.saturating_mul(2) < read { bytes } else { read };
    let wanted = (*to).min(blob.size).saturating_sub(*from);
    (wanted, held.saturating_sub(wanted))
}

/// What the program and the inputs of an attempt take in memory. What one part takes beside its own bytes is not counted, so
/// that a chunk may be as long as there is room.
fn inputs_held(assignment: &Assignment) -> u64 {
    let program = assignment.action.program.map_or(0, |program| program.size);
    let (mut sum, mut longest) = (program, 0);
    for (bytes, beside) in assignment.parts.iter().map(part_held) {
        sum = sum.saturating_add(bytes).saturating_add(beside);
        longest = beside.max(longest);
    }
    sum.saturating_sub(longest)
}

impl State {
    /// A worker that nobody has asked yet.
    pub fn new(
        config: Config,
        identity: Identity,
        mesh: MeshId,
        now: Time,
        out: &mut Outbox<Output>,
    ) -> Self {
        out.push(Output::Timer { at: now + config.heartbeat, timer: Timer::Heartbeat });
        State {
            done: LruCache::new(config.results_max),
            done_of: BTreeMap::new(),
            config,
            identity,
            mesh,
            drivers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            runs: BTreeMap::new(),
            queue: VecDeque::new(),
            refused: VecDeque::new(),
            held: Vec::new(),
            memory: 0,
            running: 0,
            mean: None,
            is_draining: false,
            next_run: 0,
            next_result: 0,
            stats: Stats::default(),
        }
    }

    /// Takes an input in. No randomness is needed yet; the argument keeps the shape of all machines.
    pub fn handle(&mut self, now: Time, input: Input, _rng: &mut impl Rng, out: &mut Outbox<Output>) {
        match input {
            Input::Connected(node) => {
                self.drivers.entry(node).or_default();
                self.offer(node, out);
            }
            Input::Disconnected(node) => self.on_disconnected(&node),
            Input::Assign { from, assignments } => {
                assignments.into_iter().for_each(|assignment| self.on_assign(from, assignment));
            }
            Input::Cancel { from, attempts } => {
                attempts.into_iter().for_each(|attempt| self.on_cancel(from, attempt, out));
            }
            Input::Ask { from, jobs } => self.on_ask(from, &jobs, out),
            Input::Done { run, done } => self.on_done(now, run, done),
            Input::Held(held) => {
                self.held = held;
                self.held.truncate(HELD_MAX);
            }
            Input::Drain(is_draining) => {
                self.is_draining = is_draining;
                self.drivers.values_mut().for_each(|driver| driver.is_stale = true);
            }
            Input::Flush => self.flush(out),
            Input::Timer(Timer::Heartbeat) => {
                let drivers: Vec<_> = self.drivers.keys().copied().collect();
                drivers.into_iter().for_each(|driver| self.offer(driver, out));
                out.push(Output::Timer { at: now + self.config.heartbeat, timer: Timer::Heartbeat });
            }
        }
        self.start(now, out);
    }

    /// True if there is something to be sent with [`Input::Flush`].
    pub fn wants_flush(&self) -> bool {
        self.drivers.values().any(|driver| {
            driver.is_stale
                || !driver.started.is_empty()
                || !driver.results.is_empty()
                || !driver.failures.is_empty()
        })
    }

    /// Attempts under way and waiting.
    pub fn active(&self) -> usize {
        self.tasks.len()
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn on_assign(&mut self, from: NodeId, assignment: Assignment) {
        self.stats.assigned += 1;
        let attempt = assignment.attempt;
        if let Some(&Remembered { result, cpu_ms, wall_ms, .. }) = self.done.get(&assignment.key) {
            self.stats.shared += 1;
            let statement = Statement { key: assignment.key, result };
            let results = &mut self.drivers.entry(from).or_default().results;
            return results.push(ResultItem { attempt, statement, cpu_ms, wall_ms });
        }
        if let Some(task) = self.tasks.get_mut(&assignment.key) {
            self.stats.shared += 1;
            let is_started = task.started.is_some();
            let before = match task.askers.iter_mut().find(|(asker, _)| *asker == from) {
                Some((_, known)) => std::mem::replace(known, attempt),
                None => {
                    task.askers.push((from, attempt));
                    attempt
                }
            };
            if before != attempt {
                let detail = format!("the same task was asked for again, as attempt {}", attempt.0);
                self.fail(from, before, FailReason::Busy, detail, Vec::new());
            }
            if is_started {
                self.drivers.entry(from).or_default().started.push(attempt);
            }
            return;
        }
        if let Some((reason, detail)) = self.refusal(&assignment) {
            self.stats.busy += 1;
            if !self.refused.contains(&from) {
                self.refused.push_back(from);
            }
            return self.fail(from, attempt, reason, detail, Vec::new());
        }
        let run = RunId(self.next_run);
        self.next_run += 1;
        let key = assignment.key;
        self.runs.insert(run, key);
        self.tasks.insert(key, Task { run, started: None, assignment, askers: vec![(from, attempt)] });
        self.queue.push_back(key);
    }

    /// Why an attempt is not taken.
    fn refusal(&self, assignment: &Assignment) -> Option<(FailReason, String)> {
        let Config { slots, memory_bytes, job_attempts_max, .. } = &self.config;
        if self.is_draining || *slots == 0 {
            return Some((FailReason::Unavailable, "takes no work at the moment".to_owned()));
        }
        if !self.offer_of(&self.identity.id()).does(&assignment.action.operation) {
            return Some((
                FailReason::Unsupported,
                format!("operation {} is not done here", assignment.action.operation),
            ));
        }
        if assignment.limits.memory_bytes > *memory_bytes {
            let detail = format!("has {memory_bytes} bytes of memory for tasks (compute.memory_bytes)");
            return Some((FailReason::Unavailable, detail));
        }
        let (asked, most) = (&assignment.limits, &self.config.limits_max);
        let asks = [
            ("cpu", asked.cpu_ms, most.cpu_ms),
            ("memory", asked.memory_bytes, most.memory_bytes),
            ("output", asked.output_bytes, most.output_bytes),
            ("wall", asked.wall_ms, most.wall_ms),
        ];
        if let Some((name, asked, most)) = asks.into_iter().find(|(_, asked, most)| asked > most) {
            let detail =
                format!("limits.{name} is {asked}, and {most} is the most here (compute.task_*_max)");
            return Some((FailReason::Unavailable, detail));
        }
        let inputs = inputs_held(assignment);
        if inputs > self.config.input_bytes_max {
            let detail = format!("the inputs have {inputs} bytes, more than fit here (compute.input_bytes)");
            return Some((FailReason::Unavailable, detail));
        }
        let all = slots.saturating_add(self.waiting_max());
        if self.tasks.len() as u64 >= u64::from(all) {
            return Some((FailReason::Busy, format!("has {all} attempts (compute.slots, compute.queue)")));
        }
        let of_job = self.tasks.values().filter(|task| task.assignment.job == assignment.job).count() as u64;
        (of_job >= u64::from(*job_attempts_max))
            .then(|| (FailReason::Busy, format!("has {of_job} attempts of this job (compute.tasks_per_job)")))
    }

    fn fail(
        &mut self,
        to: NodeId,
        attempt: AttemptId,
        reason: FailReason,
        detail: String,
        missing: Vec<Hash>,
    ) {
        let failures = &mut self.drivers.entry(to).or_default().failures;
        failures.push(Failure { attempt, reason, detail, missing });
    }

    fn on_cancel(&mut self, from: NodeId, attempt: AttemptId, out: &mut Outbox<Output>) {
        let of = |task: &Task| task.askers.contains(&(from, attempt));
        let Some(key) = self.tasks.iter().find(|(_, task)| of(task)).map(|(key, _)| *key) else { return };
        let task = self.tasks.get_mut(&key).expect("was just found");
        task.askers.retain(|asker| *asker != (from, attempt));
        if task.askers.is_empty() {
            let (run, is_running) = (task.run, task.started.is_some());
            self.remove(&key);
            if is_running {
                self.stats.stopped += 1;
                out.push(Output::Stop(run));
            }
        }
    }

    /// Says what runs of these jobs, and what was done of them, the newest first.
    fn on_ask(&self, from: NodeId, jobs: &[JobId], out: &mut Outbox<Output>) {
        let mut found: BTreeMap<JobId, Vec<TaskKey>> =
            jobs.iter().take(ASK_MAX).map(|job| (*job, Vec::new())).collect();
        for task in self.tasks.values().filter(|task| task.started.is_some()) {
            if let Some(keys) = found.get_mut(&task.assignment.job).filter(|keys| keys.len() < BATCH_MAX) {
                keys.push(task.assignment.key);
            }
        }
        for (job, keys) in &mut found {
            let done = self.done_of.get(job).into_iter().flat_map(|done| done.values().rev());
            keys.extend(done.take(BATCH_MAX - keys.len()));
        }
        for (job, keys) in found.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            out.push(Output::Send { to: from, frame: Frame::Has { job, keys } });
        }
    }

    /// What waits for a driver that is gone is not begun; what runs goes on, for the next driver will ask for it.
    fn on_disconnected(&mut self, node: &NodeId) {
        self.drivers.remove(node);
        self.refused.retain(|driver| driver != node);
        for task in self.tasks.values_mut() {
            task.askers.retain(|(driver, _)| driver != node);
        }
        let orphans = self.tasks.iter().filter(|(_, task)| task.askers.is_empty() && task.started.is_none());
        for key in orphans.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &TaskKey) -> Option<Task> {
        let task = self.tasks.remove(key)?;
        self.runs.remove(&task.run);
        if task.started.is_some() {
            self.running -= 1;
            self.memory -= task.assignment.limits.memory_bytes;
        } else {
            self.queue.retain(|waiting| waiting != key);
        }
        self.invite();
        Some(task)
    }

    /// Somebody who was refused hears of room: one, as all would come and all but one be refused again; all, if there is
    /// nothing left to do meanwhile.
    fn invite(&mut self) {
        let is_idle = self.queue.is_empty() && self.running < self.config.slots;
        let count = if is_idle { self.refused.len() } else { self.refused.len().min(1) };
        for driver in self.refused.drain(..count) {
            if let Some(outgoing) = self.drivers.get_mut(&driver) {
                outgoing.is_stale = true;
            }
        }
    }

    fn on_done(&mut self, now: Time, run: RunId, done: Done) {
        // One that was stopped is not known any more.
        let Some(task) = self.runs.get(&run).copied().and_then(|key| self.remove(&key)) else { return };
        let key = task.assignment.key;
        match done {
            Done::Output { result, cpu_ms, wall_ms } => {
                let took =
                    crate::time::nanos(task.started.map_or(Duration::ZERO, |started| now.since(started)));
                // An eighth of it is the newest.
                self.mean = Some(self.mean.map_or(took, |mean| mean / 8 * 7 + took / 8));
                let job = task.assignment.job;
                self.remember(key, job, result, cpu_ms, wall_ms);
                let statement = Statement { key, result };
                for (driver, attempt) in task.askers {
                    let results = &mut self.drivers.entry(driver).or_default().results;
                    results.push(ResultItem { attempt, statement, cpu_ms, wall_ms });
                }
            }
            Done::Failed { reason, mut detail, mut missing } => {
                cut_detail(&mut detail);
                missing.truncate(MISSING_MAX);
                for (driver, attempt) in task.askers {
                    self.fail(driver, attempt, reason, detail.clone(), missing.clone());
                }
            }
        }
    }

    fn remember(&mut self, key: TaskKey, job: JobId, result: BlobRef, cpu_ms: u64, wall_ms: u64) {
        let number = self.next_result;
        self.next_result += 1;
        // What is pushed out is an earlier result, of this task or of another.
        let remembered = Remembered { number, job, result, cpu_ms, wall_ms };
        if let Some((_, old)) = self.done.push(key, remembered)
            && let Entry::Occupied(mut of_job) = self.done_of.entry(old.job)
        {
            of_job.get_mut().remove(&old.number);
            if of_job.get().is_empty() {
                of_job.remove();
            }
        }
        self.done_of.entry(job).or_default().insert(number, key);
    }

    /// Begins what there is room for. The first that waits is begun first: others do not overtake it, or a large one
    /// would wait for ever.
    fn start(&mut self, now: Time, out: &mut Outbox<Output>) {
        while self.running < self.config.slots {
            let Some(key) = self.queue.front().copied() else { return };
            let task = self.tasks.get_mut(&key).expect("what waits is known");
            let memory = self.memory.saturating_add(task.assignment.limits.memory_bytes);
            if memory > self.config.memory_bytes {
                return;
            }
            self.queue.pop_front();
            task.started = Some(now);
            self.memory = memory;
            self.running += 1;
            self.stats.runs += 1;
            out.push(Output::Run { run: task.run, assignment: task.assignment.clone() });
            for (driver, attempt) in &task.askers {
                if let Some(driver) = self.drivers.get_mut(driver) {
                    driver.started.push(*attempt);
                }
            }
        }
    }

    /// How many attempts may wait.
    fn waiting_max(&self) -> u32 {
        let Config { slots, queue_max, ahead, .. } = &self.config;
        let within = self.mean.map_or(0, |mean| u64::from(*slots) * crate::time::nanos(*ahead) / mean.max(1));
        u32::try_from(within).unwrap_or(u32::MAX).max(*slots).min(*queue_max)
    }

    fn offer_of(&self, driver: &NodeId) -> Offer {
        let config = &self.config;
        let slots = if self.is_draining { 0 } else { config.slots };
        let all = if self.is_draining { 0 } else { slots.saturating_add(self.waiting_max()) };
        let of_driver = |task: &&Task| task.askers.iter().any(|(asker, _)| asker == driver);
        let own = u32::try_from(self.tasks.values().filter(of_driver).count()).unwrap_or(u32::MAX);
        let active = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        Offer {
            slots,
            // What it has of this driver counts as room that the driver uses.
            room: all.saturating_sub(active - own),
            active,
            memory_bytes: config.memory_bytes,
            labels: config.labels.clone(),
            region: config.region.clone(),
            operations: config.operations.clone(),
            held: self.held.clone(),
        }
    }

    fn offer(&mut self, driver: NodeId, out: &mut Outbox<Output>) {
        if let Some(outgoing) = self.drivers.get_mut(&driver) {
            outgoing.is_stale = false;
            out.push(Output::Send { to: driver, frame: Frame::Offer(self.offer_of(&driver)) });
        }
    }

    fn flush(&mut self, out: &mut Outbox<Output>) {
        let stale: Vec<_> =
            self.drivers.iter().filter(|(_, driver)| driver.is_stale).map(|(node, _)| *node).collect();
        stale.into_iter().for_each(|node| self.offer(node, out));
        for (&to, driver) in &mut self.drivers {
            for attempts in std::mem::take(&mut driver.started).chunks(BATCH_MAX) {
                out.push(Output::Send { to, frame: Frame::Started(attempts.to_vec()) });
            }
            for items in std::mem::take(&mut driver.results).chunks(BATCH_MAX) {
                let statements = items.iter().map(|item| item.statement).collect();
                let signed = SignedResults::sign(&self.identity, self.mesh, statements);
                let frame = Frame::Results { items: items.to_vec(), signature: signed.signature };
                out.push(Output::Send { to, frame });
            }
            for failures in std::mem::take(&mut driver.failures).chunks(BATCH_MAX) {
                out.push(Output::Send { to, frame: Frame::Failed(failures.to_vec()) });
            }
        }
    }

    /// For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let running = self.tasks.values().filter(|task| task.started.is_some());
        assert_eq!(running.clone().count(), self.running as usize);
        assert_eq!(running.map(|task| task.assignment.limits.memory_bytes).sum::<u64>(), self.memory);
        assert_eq!(self.queue.len() + self.running as usize, self.tasks.len());
        assert_eq!(self.runs.len(), self.tasks.len());
        let of_jobs: usize = self.done_of.values().map(BTreeMap::len).sum();
        assert!(of_jobs == self.done.len() && self.done_of.values().all(|done| !done.is_empty()));
        assert!(self.memory <= self.config.memory_bytes && self.running <= self.config.slots);
        assert!(self.tasks.len() as u64 <= u64::from(self.config.slots) + u64::from(self.config.queue_max));
    }

    /// The jobs that it works for.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.tasks.values().map(|task| task.assignment.job)
    }
}
