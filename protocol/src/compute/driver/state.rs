//! The state of a driver and its inputs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_core::Rng;

use crate::author::Ticket;
use crate::compute::id::{AttemptId, JobId, TaskRef};
use crate::compute::job::Plan;
use crate::compute::ledger::{self, CATEGORY, CancelReason, Change, Commit, JobState, Operation, TaskState};
use crate::compute::placement::{Pool, Unplaced, WorkerView};
use crate::compute::wire::Assignment;
use crate::id::{Hash, NodeId, Step};
use crate::log::Entry;
use crate::machine::Outbox;
use crate::projection::{EntryRef, Head, Projection, Replay};
use crate::time::Time;

use super::api::{Config, Event, Input, Output, Refusal, Timer};
use super::place::ask;
use super::run::{Phase, Run};

/// Most dead members that are remembered. One that is forgotten keeps its jobs until its leases end. Default: guess.
const DOWN_MAX: usize = 4096;

/// The driver of one node. See the [module](super).
#[derive(Debug)]
pub struct State {
    pub(super) config: Config,
    pub(super) me: NodeId,
    pub(super) ledger: ledger::State,
    pub(super) pool: Pool,
    pub(super) runs: BTreeMap<JobId, Run>,
    /// Which task each attempt under way is for.
    pub(super) attempts: BTreeMap<AttemptId, (JobId, TaskRef)>,
    /// Entries on their way into the log, by the hash of their payload.
    appends: BTreeMap<Hash, Vec<Append>>,
    /// Commits on their way into the log: which task, with which inputs. They outlive the run that made them, as a job may be
    /// left and taken back meanwhile.
    writing: BTreeSet<(JobId, TaskRef, Hash)>,
    pub(super) alive: BTreeSet<NodeId>,
    /// Since when others are dead: from before this node knew a step, if there is none.
    pub(super) down: BTreeMap<NodeId, Option<Step>>,
    pub(super) step: Option<Step>,
    /// Jobs that this node is about to take over, and since when.
    pub(super) taking: BTreeMap<JobId, Step>,
    pub(super) next_attempt: u64,
    next_ticket: u64,
    tick: u64,
    is_ticking: bool,
    /// The log has refused something: commits wait for the next tick.
    is_held_up: bool,
    /// What is to be sent at the end of this round.
    pub(super) assigned: BTreeMap<NodeId, Vec<Assignment>>,
    pub(super) cancelled: BTreeMap<NodeId, Vec<AttemptId>>,
    /// The job that got a worker last.
    pub(super) last_job: Option<JobId>,
    /// Find out why what cannot be placed cannot.
    pub(super) explain: bool,
}

#[derive(Clone, Debug)]
struct Append {
    ticket: Ticket,
    what: Appending,
}

/// What waits for an entry.
#[derive(Clone, Debug)]
pub(super) enum Appending {
    Submit { ticket: Ticket, job: JobId },
    Request { ticket: Ticket },
    Commits { job: JobId, commits: Vec<Commit> },
    Take(JobId),
    Renew,
    Finish(JobId),
    Deadline(JobId),
}

/// How far a job is that this node drives, beyond what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that want a worker.
    pub waiting: usize,
    /// Tasks that are being done.
    pub active: usize,
    /// Attempts under way: which task, where.
    pub attempts: Vec<(TaskRef, NodeId)>,
    /// Workers that were wrong in this job.
    pub banned: BTreeSet<NodeId>,
    /// A task that cannot be placed, and why.
    pub held: Option<(TaskRef, Unplaced)>,
}

impl State {
    /// A driver of a node that knows no job yet.
    pub fn new(config: Config, me: NodeId) -> Self {
        State {
            pool: Pool::new(config.pool.clone()),
            config,
            me,
            ledger: ledger::State::new(),
            runs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            appends: BTreeMap::new(),
            writing: BTreeSet::new(),
            alive: BTreeSet::new(),
            down: BTreeMap::new(),
            step: None,
            taking: BTreeMap::new(),
            next_attempt: 0,
            next_ticket: 0,
            tick: 0,
            is_ticking: false,
            is_held_up: false,
            assigned: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            last_job: None,
            explain: false,
        }
    }

    /// How it works.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All jobs.
    pub fn ledger(&self) -> &ledger::State {
        &self.ledger
    }

    /// Puts the fold of earlier entries in, before the first input.
    pub fn restore(&mut self, ledger: ledger::State) {
        self.ledger = ledger;
    }

    /// The workers, for people.
    pub fn workers(&self, now: Time) -> Vec<WorkerView> {
        self.pool.view(now)
    }

    /// True if this node drives the job.
    pub fn drives(&self, job: &JobId) -> bool {
        self.runs.contains_key(job)
    }

    /// How far a job is that this node drives.
    pub fn progress(&self, job: &JobId) -> Option<Progress> {
        let run = self.runs.get(job)?;
        let attempts = run
            .active
            .iter()
            .flat_map(|(task, active)| active.attempts.iter().map(|attempt| (*task, attempt.worker)));
        Some(Progress {
            waiting: run.wants.len(),
            active: run.active.len(),
            attempts: attempts.collect(),
            banned: run.banned.clone(),
            held: run.held.clone(),
        })
    }

    /// True if there is something to be written with [`Input::Flush`].
    pub fn wants_flush(&self) -> bool {
        !self.is_held_up && self.step.is_some() && self.runs.values().any(|run| !run.commits.is_empty())
    }

    /// Takes an input in. What is to be done comes out in `out`.
    pub fn handle(&mut self, now: Time, input: Input, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        match input {
            Input::Submit { spec, ticket } => self.on_submit(&spec, ticket, out),
            Input::Cancel { job, detail, ticket } => self.on_cancel(job, detail, ticket, out),
            Input::Retry { job, ticket } => self.on_retry(job, ticket, out),
            Input::Entry(entry) => self.on_entry(now, &entry, out),
            Input::Cut { author, end } => self.on_cut(now, author, end, out),
            Input::AppendFailed { ticket } => self.on_append_failed(ticket, out),
            Input::Up(node) => {
                self.alive.insert(node);
                self.down.remove(&node);
            }
            Input::Down(node) => {
                self.alive.remove(&node);
                if self.down.len() >= DOWN_MAX {
                    self.down.pop_first();
                }
                self.down.entry(node).or_insert(self.step);
                self.duties(now, out);
            }
            Input::Step(step) => {
                self.step = step;
                self.down.values_mut().for_each(|since| *since = since.or(step));
                self.duties(now, out);
            }
            Input::Offer { from, offer } => {
                let is_new = !self.pool.contains(&from);
                if self.pool.on_offer(now, from, offer) && is_new {
                    let jobs: Vec<JobId> = self.runs.keys().copied().collect();
                    ask(from, &jobs, out);
                }
            }
            Input::Has { from, job, keys } => self.on_has(now, from, job, &keys, rng, out),
            Input::Started { from, attempts } => self.on_started(now, from, &attempts),
            Input::Results { items, signed } => self.on_results(now, &items, &signed, rng, out),
            Input::Failed { from, failures } => {
                for failure in failures {
                    self.on_failure(now, from, failure, rng, out);
                }
            }
            Input::Gone(node) => self.on_gone(now, node, rng, out),
            Input::Holds(hash) => self.pool.on_holds(self.me, hash),
            Input::Flush => self.flush(out),
            Input::Timer(Timer::Tick(token)) => {
                if token != self.tick {
                    return;
                }
                self.is_ticking = false;
                self.is_held_up = false;
                self.explain = true;
                self.look_after(now, rng, out);
            }
        }
        self.place(now, rng, out);
        self.send(out);
        if !self.is_ticking && !self.runs.is_empty() {
            self.is_ticking = true;
            self.tick += 1;
            out.push(Output::Timer { at: now + self.config.tick, timer: Timer::Tick(self.tick) });
        }
    }

    fn on_submit(&mut self, spec: &crate::compute::job::JobSpec, ticket: Ticket, out: &mut Outbox<Output>) {
        if let Err(problems) = Plan::new(spec, &self.config.quota) {
            return out.push(Output::Refused { ticket, reason: Refusal::BadJob(problems) });
        }
        let bytes = spec.encode();
        let job = JobId::of(&self.me, &bytes);
        if self.ledger.job(&job).is_some() {
            // To submit twice is to submit once.
            return out.push(Output::Submitted { ticket, job });
        }
        let under_way =
            |append: &Append| matches!(append.what, Appending::Submit { job: other, .. } if other == job);
        if self.appends.values().flatten().any(under_way) {
            return out.push(Output::Refused { ticket, reason: Refusal::Twice });
        }
        let own = |id: &JobId| self.ledger.job(id).is_some_and(|job| job.submitter() == self.me);
        let jobs = self.ledger.unfinished().filter(own).count();
        if jobs >= self.config.jobs_max {
            return out.push(Output::Refused { ticket, reason: Refusal::TooManyJobs { jobs } });
        }
        self.append(&Operation::Submit(bytes), Appending::Submit { ticket, job }, out);
    }

    fn on_cancel(&mut self, job: JobId, mut detail: String, ticket: Ticket, out: &mut Outbox<Output>) {
        let Some(view) = self.ledger.job(&job) else {
            return out.push(Output::Refused { ticket, reason: Refusal::UnknownJob });
        };
        if view.state() != JobState::Running {
            let reason = Refusal::WrongState(view.state().code());
            return out.push(Output::Refused { ticket, reason });
        }
        ledger::cut_detail(&mut detail);
        let operation =
            Operation::Cancel { job, round: view.round(), reason: CancelReason::Requested, detail };
        self.append(&operation, Appending::Request { ticket }, out);
    }

    fn on_retry(&mut self, job: JobId, ticket: Ticket, out: &mut Outbox<Output>) {
        let Some(view) = self.ledger.job(&job) else {
            return out.push(Output::Refused { ticket, reason: Refusal::UnknownJob });
        };
        if !matches!(view.state(), JobState::Failed | JobState::Cancelled) {
            let reason = Refusal::WrongState(view.state().code());
            return out.push(Output::Refused { ticket, reason });
        }
        let operation = Operation::Retry { job, round: view.round() + 1 };
        self.append(&operation, Appending::Request { ticket }, out);
    }

    pub(super) fn append(&mut self, operation: &Operation, what: Appending, out: &mut Outbox<Output>) {
        let payload: Bytes = operation.encode().expect("was made to fit").into();
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.appends.entry(Hash::of(&payload)).or_default().push(Append { ticket, what });
        out.push(Output::Append { ticket, payload });
    }

    fn on_entry(&mut self, now: Time, entry: &Entry, out: &mut Outbox<Output>) {
        let reference = EntryRef {
            author: entry.author,
            seq: entry.seq,
            step: entry.step,
            hash: entry.hash,
            category: entry.category.as_str(),
            payload: &entry.data,
        };
        let mut changes = Outbox::new();
        self.ledger.apply(&reference, &mut changes);
        self.on_changes(now, &mut changes, out);
        if entry.author != self.me || reference.category != CATEGORY {
            return;
        }
        let hash = Hash::of(&entry.data);
        let Some(waiting) = self.appends.get_mut(&hash) else { return };
        let append = waiting.remove(0);
        if waiting.is_empty() {
            self.appends.remove(&hash);
        }
        self.on_appended(now, append.what, out);
    }

    fn on_appended(&mut self, now: Time, what: Appending, out: &mut Outbox<Output>) {
        match what {
            Appending::Submit { ticket, job } => out.push(Output::Submitted { ticket, job }),
            Appending::Request { ticket } => out.push(Output::Accepted { ticket }),
            Appending::Commits { job, commits } => {
                for commit in &commits {
                    self.writing.remove(&(job, commit.task, commit.inputs));
                }
                for commit in &commits {
                    self.on_committed(now, job, commit, out);
                }
                self.check_end(job, out);
            }
            Appending::Take(job) => drop(self.taking.remove(&job)),
            Appending::Renew | Appending::Finish(_) | Appending::Deadline(_) => {}
        }
    }

    /// A commit is in the log. If it does not count, because what the task reads has changed, the task is done again.
    fn on_committed(&mut self, now: Time, job: JobId, commit: &Commit, out: &mut Outbox<Output>) {
        let task = commit.task;
        if self.ledger.job(&job).and_then(|view| view.task(task)) != Some(TaskState::Ready) {
            return;
        }
        let Some(run) = self.runs.get_mut(&job) else { return };
        // Nobody is at it if the job was taken back while the commit was on its way.
        let is_of_it = run
            .active
            .get(&task)
            .is_none_or(|active| matches!(active.phase, Phase::Decided(_)) && active.inputs == commit.inputs);
        if is_of_it {
            self.want_anew(now, job, task, out);
        }
    }

    /// A task is to be done from the beginning.
    fn want_anew(&mut self, now: Time, job: JobId, task: TaskRef, out: &mut Outbox<Output>) {
        self.release(now, job, task, out);
        if let Some(run) = self.runs.get_mut(&job) {
            run.want(task, now);
        }
    }

    /// True if the outcome of a task with these inputs is on its way into the log.
    pub(super) fn is_writing(&self, job: JobId, task: TaskRef, inputs: Hash) -> bool {
        let is_queued =
            |run: &Run| run.commits.iter().any(|commit| (commit.task, commit.inputs) == (task, inputs));
        self.writing.contains(&(job, task, inputs)) || self.runs.get(&job).is_some_and(is_queued)
    }

    fn on_append_failed(&mut self, ticket: Ticket, out: &mut Outbox<Output>) {
        let mut found = None;
        self.appends.retain(|_, waiting| {
            if let Some(place) = waiting.iter().position(|append| append.ticket == ticket) {
                found = Some(waiting.remove(place).what);
            }
            !waiting.is_empty()
        });
        self.is_held_up = true;
        match found {
            Some(Appending::Submit { ticket, .. } | Appending::Request { ticket }) => {
                out.push(Output::Refused { ticket, reason: Refusal::Log });
            }
            Some(Appending::Commits { job, commits }) => {
                for commit in &commits {
                    self.writing.remove(&(job, commit.task, commit.inputs));
                }
                if let Some(run) = self.runs.get_mut(&job) {
                    run.commits.extend(commits);
                }
            }
            Some(Appending::Take(job)) => drop(self.taking.remove(&job)),
            Some(Appending::Finish(job)) => {
                if let Some(run) = self.runs.get_mut(&job) {
                    run.is_finishing = false;
                }
            }
            Some(Appending::Deadline(job)) => {
                if let Some(run) = self.runs.get_mut(&job) {
                    run.is_cancelling = false;
                }
            }
            Some(Appending::Renew) | None => {}
        }
    }

    fn on_cut(&mut self, now: Time, author: NodeId, end: Option<Head>, out: &mut Outbox<Output>) {
        let mut changes = Outbox::new();
        let replay = self.ledger.cut(author, end, &mut changes);
        self.on_changes(now, &mut changes, out);
        if replay == Replay::Needed {
            out.push(Output::Replay);
        }
    }

    fn on_changes(&mut self, now: Time, changes: &mut Outbox<Change>, out: &mut Outbox<Output>) {
        let mut ended = BTreeSet::new();
        for change in changes.drain() {
            if let Change::Retried { job, .. } = &change
                && let Some(run) = self.runs.get_mut(job)
            {
                // What failed in the round before is no word on this one.
                run.commits.retain(|commit| matches!(commit.outcome, ledger::Outcome::Succeeded(_)));
            }
            match &change {
                Change::Submitted(job) | Change::Driver { job, .. } | Change::Retried { job, .. } => {
                    self.duty(now, *job, out);
                    ended.insert(*job);
                }
                Change::Task { job, task, new, .. } => self.on_task(now, *job, *task, *new, out),
                // Of jobs that this node does not drive there may be any number.
                Change::Tasks { job, first, to, new, .. } if self.runs.contains_key(job) => {
                    for chunk in first.chunk..*to {
                        self.on_task(now, *job, TaskRef::new(first.task, chunk), *new, out);
                    }
                }
                Change::Tasks { .. } => {}
                Change::Job { job, .. } => drop(ended.insert(*job)),
                Change::Finished(job) | Change::Forgotten(job) => self.drop_run(now, *job, out),
            }
            out.push(Output::Event(Event::Ledger(change)));
        }
        for job in ended {
            self.check_end(job, out);
        }
    }

    fn on_task(&mut self, now: Time, job: JobId, task: TaskRef, new: TaskState, out: &mut Outbox<Output>) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        match new {
            // If somebody is at it, then with inputs that do not hold any more.
            TaskState::Ready => self.want_anew(now, job, task, out),
            TaskState::Running => {}
            // Some of those asked are still at it, and may show that they are liars.
            TaskState::Succeeded
                if run.active.get(&task).is_some_and(|active| {
                    active.redundancy > 1
                        && !active.attempts.is_empty()
                        && matches!(active.phase, Phase::Decided(_))
                }) => {}
            _ => self.release(now, job, task, out),
        }
    }

    /// Forgets a task, and takes back what is under way of it.
    pub(super) fn release(&mut self, now: Time, job: JobId, task: TaskRef, out: &mut Outbox<Output>) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        run.wants.remove(task);
        let Some(active) = run.active.remove(&task) else { return };
        run.attempts -= active.attempts.len();
        run.unblock(task, now);
        for attempt in &active.attempts {
            self.attempts.remove(&attempt.id);
            self.pool.on_returned(now, attempt.worker);
            self.cancelled.entry(attempt.worker).or_default().push(attempt.id);
        }
        self.send_cancels(out);
    }

    pub(super) fn drop_run(&mut self, now: Time, job: JobId, out: &mut Outbox<Output>) {
        let Some(run) = self.runs.get(&job) else { return };
        let tasks: Vec<_> = run.active.keys().copied().collect();
        for task in tasks {
            self.release(now, job, task, out);
        }
        self.runs.remove(&job);
        out.push(Output::Event(Event::NotDriving(job)));
    }

    /// If the job has ended, and all is in the log, says so there.
    pub(super) fn check_end(&mut self, job: JobId, out: &mut Outbox<Output>) {
        let Some(view) = self.ledger.job(&job) else { return };
        let Some(run) = self.runs.get_mut(&job) else { return };
        let has_ended = view.state() != JobState::Running;
        let first = (job, TaskRef::default(), Hash::from_bytes([0; 32]));
        let is_writing = self.writing.range(first..).next().is_some_and(|(of, ..)| *of == job);
        let is_written = run.commits.is_empty() && !is_writing;
        if !has_ended || view.is_finished() || run.is_finishing || !is_written || self.step.is_none() {
            return;
        }
        run.is_finishing = true;
        let round = view.round();
        let mut keep = Vec::new();
        if view.state() == JobState::Succeeded {
            for (_, family) in view.outputs() {
                let chunks = 0..view.plan().count(family);
                keep.extend(chunks.filter_map(|chunk| view.output(TaskRef::new(family, chunk))));
            }
        }
        for blob in keep {
            self.keep(blob, out);
        }
        self.append(&Operation::Finish { job, round }, Appending::Finish(job), out);
    }

    /// Asks for a copy of a blob at this node.
    pub(super) fn keep(&mut self, blob: crate::compute::id::BlobRef, out: &mut Outbox<Output>) {
        let holders = self.pool.holders(&blob.hash).to_vec();
        if !holders.is_empty() && !holders.contains(&self.me) {
            out.push(Output::Keep { blob, holders });
        }
    }

    fn flush(&mut self, out: &mut Outbox<Output>) {
        if self.step.is_none() {
            return;
        }
        let jobs: Vec<_> =
            self.runs.iter().filter(|(_, run)| !run.commits.is_empty()).map(|(job, _)| *job).collect();
        for job in jobs {
            let Some(view) = self.ledger.job(&job) else { continue };
            let round = view.round();
            let Some(run) = self.runs.get_mut(&job) else { continue };
            let mut left = std::mem::take(&mut run.commits);
            // Another driver may have committed it meanwhile.
            left.retain(|commit| !view.is_committed(commit.task, &commit.inputs));
            while !left.is_empty() {
                let mut count = left.len().min(self.config.commits_max.max(1));
                // Long texts and many voters: fewer fit.
                let operation = loop {
                    let operation = Operation::Commit { job, round, commits: left[..count].to_vec() };
                    if count == 1 || operation.encode().is_ok() {
                        break operation;
                    }
                    count /= 2;
                };
                let commits: Vec<_> = left.drain(..count).collect();
                self.writing.extend(commits.iter().map(|commit| (job, commit.task, commit.inputs)));
                self.append(&operation, Appending::Commits { job, commits }, out);
            }
        }
    }

    /// For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        self.pool.check_invariants();
        let mut count = 0;
        for (job, run) in &self.runs {
            let mut of_run = 0;
            for (task, active) in &run.active {
                for attempt in &active.attempts {
                    assert_eq!(
                        self.attempts.get(&attempt.id),
                        Some(&(*job, *task)),
                        "each attempt has its task"
                    );
                    of_run += 1;
                }
                let workers: BTreeSet<_> = active
                    .attempts
                    .iter()
                    .map(|attempt| attempt.worker)
                    .chain(active.votes.iter().map(|vote| vote.worker))
                    .collect();
                assert_eq!(
                    workers.len(),
                    active.attempts.len() + active.votes.len(),
                    "nobody is asked twice"
                );
                let max = usize::from(active.redundancy) + usize::from(self.config.voters_extra);
                assert!(
                    workers.len() <= max + usize::from(self.config.copies_max_now(true)),
                    "attempts are bounded"
                );
            }
            assert_eq!(of_run, run.attempts);
            run.wants.check_invariants();
            count += of_run;
        }
        assert_eq!(count, self.attempts.len(), "no attempt without a task");
    }
}
