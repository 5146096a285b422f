//! What has happened to jobs, the newest of it.
//!
//! Fed with every [`Event`] of this node's driver: changes of the ledger reach every node, attempts only the node that
//! drives the job. Events of single tasks and those that are rarer are kept apart, so that a job of 100,000 tasks does not
//! wash away why its driver changed.
//!
//! Bounds: [`JOBS_MAX`] jobs, the one untouched longest goes first; of each the newest [`NOTABLE_MAX`] and
//! [`ROUTINE_MAX`] events and the times of [`TASKS_MAX`] tasks. What is forgotten is counted.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use omnimesh_protocol::compute::driver::{Event, Finding};
use omnimesh_protocol::compute::ledger::{Change, TaskState};
use omnimesh_protocol::compute::{JobId, TaskRef};
use omnimesh_protocol::{Hash, NodeId, Step, Time};

/// Jobs whose history is kept. Default: guess; some 500 kB each at most.
pub(super) const JOBS_MAX: usize = 64;
/// Events of a job that are kept, but for those of the next. Default: guess.
pub(super) const NOTABLE_MAX: usize = 512;
/// Events of a job that are kept of those that each of its tasks has. Default: guess.
pub(super) const ROUTINE_MAX: usize = 512;
/// Tasks of a job whose times are kept: the first that run. Default: guess.
pub(super) const TASKS_MAX: usize = 8192;
/// What an event takes, without its text.
const EVENT_BYTES: usize = 200;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// There is a job.
    Submitted,
    /// The job is in another state.
    JobState,
    /// A retry has begun a new round.
    Retried,
    /// The driver has seen the end of the job.
    Finished,
    /// The job is not known any more.
    Forgotten,
    /// Another node drives it.
    Driver,
    /// This node drives it from now on.
    Driving,
    /// This node does not any more.
    NotDriving,
    /// A task is in another state.
    TaskState,
    /// A task has another attempt.
    Attempt,
    /// An attempt has failed.
    AttemptFailed,
    /// An attempt takes long, and gets another one beside it.
    Straggler,
    /// Workers have signed different results, and none has the majority.
    Tie,
    /// An output was lost, and is made again.
    Restoring,
    /// A task cannot be placed.
    Held,
    /// A worker has signed another result than the one that counts.
    WrongResult,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 16] = [
        EventKind::Submitted,
        EventKind::JobState,
        EventKind::Retried,
        EventKind::Finished,
        EventKind::Forgotten,
        EventKind::Driver,
        EventKind::Driving,
        EventKind::NotDriving,
        EventKind::TaskState,
        EventKind::Attempt,
        EventKind::AttemptFailed,
        EventKind::Straggler,
        EventKind::Tie,
        EventKind::Restoring,
        EventKind::Held,
        EventKind::WrongResult,
    ];

    /// The stable name.
    pub const fn code(self) -> &'static str {
        match self {
            EventKind::Submitted => "submitted",
            EventKind::JobState => "job_state",
            EventKind::Retried => "retried",
            EventKind::Finished => "finished",
            EventKind::Forgotten => "forgotten",
            EventKind::Driver => "driver",
            EventKind::Driving => "driving",
            EventKind::NotDriving => "not_driving",
            EventKind::TaskState => "task_state",
            EventKind::Attempt => "attempt",
            EventKind::AttemptFailed => "attempt_failed",
            EventKind::Straggler => "straggler",
            EventKind::Tie => "tie",
            EventKind::Restoring => "restoring",
            EventKind::Held => "held",
            EventKind::WrongResult => "wrong_result",
        }
    }
}

/// One thing that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// Its place among what happened to the job, from 1, at this node.
    pub number: u64,
    /// To which.
    pub job: JobId,
    /// What.
    pub kind: EventKind,
    /// When, by this node's clock.
    pub at: Time,
    /// In which step, if the node knew it.
    pub step: Option<Step>,
    /// To which task.
    pub task: Option<TaskRef>,
    /// The state before.
    pub from: Option<&'static str>,
    /// The state now.
    pub state: Option<&'static str>,
    /// Who has to do with it.
    pub worker: Option<NodeId>,
    /// A stable code.
    pub reason: Option<&'static str>,
    /// For people.
    pub detail: Option<Arc<str>>,
}

impl JobEvent {
    fn new(job: JobId, kind: EventKind) -> Self {
        JobEvent {
            number: 0,
            job,
            kind,
            at: Time::ZERO,
            step: None,
            task: None,
            from: None,
            state: None,
            worker: None,
            reason: None,
            detail: None,
        }
    }

    fn of_task(job: JobId, task: TaskRef, kind: EventKind) -> Self {
        JobEvent { task: Some(task), ..JobEvent::new(job, kind) }
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        EVENT_BYTES + self.detail.as_ref().map_or(0, |detail| detail.len())
    }

    /// True for what each task of a job has, also if nothing is the matter with it.
    fn is_routine(&self) -> bool {
        match self.kind {
            EventKind::Attempt => true,
            EventKind::TaskState => self.state != Some(TaskState::Failed.code()),
            // It comes and goes as long as there is more work than workers.
            EventKind::Held => matches!(self.reason, Some("all_busy" | "too_slow")),
            _ => false,
        }
    }
}

/// When a task was done, as far as this node has seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskTimes {
    /// When its first attempt was given to a worker; only its driver knows.
    pub started: Option<Time>,
    /// When its end was in the log here, and the step of this node then.
    pub ended: Option<(Time, Step)>,
    /// How often it was given to a worker.
    pub attempts: u32,
}

/// How often what happened to a family's tasks. Only the driver knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts.
    pub attempts: u64,
    /// Attempts that failed by the task's fault.
    pub failures: u64,
    /// Attempts that failed by the worker's fault.
    pub losses: u64,
    /// Attempts that took so long that another was begun beside them.
    pub stragglers: u64,
    /// Votes without a majority.
    pub ties: u64,
    /// Outputs that were made again.
    pub restored: u64,
    /// Failed attempts by reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// What has happened to one job.
#[derive(Debug, Default)]
pub struct JobHistory {
    notable: VecDeque<JobEvent>,
    routine: VecDeque<JobEvent>,
    count: u64,
    tasks: BTreeMap<TaskRef, TaskTimes>,
    families: BTreeMap<u16, Tally>,
    /// When its submission was seen, and the step of this node then.
    submitted: Option<(Time, Option<Step>)>,
    ended: Option<(Time, Option<Step>)>,
    drivers: u64,
    held: u64,
}

impl JobHistory {
    /// The newest events in their order.
    pub fn events(&self) -> Vec<&JobEvent> {
        let mut events: Vec<_> = self.notable.iter().chain(&self.routine).collect();
        events.sort_by_key(|event| event.number);
        events
    }

    /// How many events are forgotten.
    pub fn forgotten(&self) -> u64 {
        self.count - (self.notable.len() + self.routine.len()) as u64
    }

    /// When a task was done; nothing if that is not known or forgotten.
    pub fn task(&self, task: TaskRef) -> TaskTimes {
        self.tasks.get(&task).copied().unwrap_or_default()
    }

    /// When the first attempt began.
    pub fn started(&self) -> Option<Time> {
        self.tasks.values().filter_map(|times| times.started).min()
    }

    /// When its submission was seen, and the step of this node then.
    pub fn submitted(&self) -> Option<(Time, Option<Step>)> {
        self.submitted
    }

    /// When its end was seen, and the step of this node then.
    pub fn ended(&self) -> Option<(Time, Option<Step>)> {
        self.ended
    }

    /// How often what happened to the tasks of each family.
    pub fn families(&self) -> &BTreeMap<u16, Tally> {
        &self.families
    }

    /// How often another node became the driver.
    pub fn drivers(&self) -> u64 {
        self.drivers
    }

    /// How often a new reason was found why a task cannot be placed.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn times(&mut self, task: TaskRef) -> Option<&mut TaskTimes> {
        if !self.tasks.contains_key(&task) && self.tasks.len() >= TASKS_MAX {
            return None;
        }
        Some(self.tasks.entry(task).or_default())
    }

    /// Counts what happened.
    fn count(&mut self, now: Time, step: Option<Step>, event: &Event) {
        match event {
            Event::Ledger(Change::Submitted(_)) => self.submitted = Some((now, step)),
            Event::Ledger(Change::Driver { .. }) => self.drivers += 1,
            Event::Ledger(Change::Job { new, .. }) => {
                let has_ended = *new != omnimesh_protocol::compute::ledger::JobState::Running;
                self.ended = has_ended.then_some((now, step));
            }
            Event::Ledger(Change::Task { task, new, .. }) if new.has_ended() => {
                if let (Some(step), Some(times)) = (step, self.times(*task)) {
                    times.ended = Some((now, step));
                }
            }
            Event::Ledger(Change::Task { task, .. }) => {
                if let Some(times) = self.tasks.get_mut(task) {
                    times.ended = None;
                }
            }
            Event::Running { task, .. } => {
                self.families.entry(task.task).or_default().attempts += 1;
                if let Some(times) = self.times(*task) {
                    times.started.get_or_insert(now);
                    times.attempts = times.attempts.saturating_add(1);
                }
            }
            Event::AttemptFailed { task, reason, .. } => {
                let tally = self.families.entry(task.task).or_default();
                let count = if reason.is_of_the_worker() { &mut tally.losses } else { &mut tally.failures };
                *count += 1;
                *tally.reasons.entry(reason.code()).or_default() += 1;
            }
            Event::Straggler { task, .. } => self.families.entry(task.task).or_default().stragglers += 1,
            Event::Tie { task, .. } => self.families.entry(task.task).or_default().ties += 1,
            Event::Restoring { task, .. } => self.families.entry(task.task).or_default().restored += 1,
            Event::Held { .. } => self.held += 1,
            _ => {}
        }
    }

    /// Keeps that a worker was wrong, and the name of the blob that proves it; the event as it is told to those who watch.
    fn find(&mut self, now: Time, step: Option<Step>, finding: &Finding, evidence: Option<Hash>) -> JobEvent {
        let what = "has signed another result than the one that counts";
        let detail = match evidence {
            Some(hash) => format!("{what}: blob {hash} proves it (omnimesh evidence verify)"),
            None => format!("{what}; one witness is no proof"),
        };
        self.count += 1;
        let event = JobEvent {
            number: self.count,
            at: now,
            step,
            worker: Some(finding.accused),
            detail: Some(detail.into()),
            ..JobEvent::of_task(finding.job, finding.task, EventKind::WrongResult)
        };
        self.keep(event.clone());
        event
    }

    fn keep(&mut self, event: JobEvent) {
        let (events, max) = if event.is_routine() {
            (&mut self.routine, ROUTINE_MAX)
        } else {
            (&mut self.notable, NOTABLE_MAX)
        };
        if events.len() >= max {
            events.pop_front();
        }
        events.push_back(event);
    }
}

/// What has happened to jobs. Bounded: so many events of each job, and so many jobs.
#[derive(Debug)]
pub struct History {
    jobs: LruCache<JobId, JobHistory>,
}

impl Default for History {
    fn default() -> Self {
        History { jobs: LruCache::new(NonZeroUsize::new(JOBS_MAX).expect("not zero")) }
    }
}

impl History {
    /// Keeps that a worker was wrong, and the name of the blob that proves it; the event as it is told to those who watch.
    pub fn find(
        &mut self,
        now: Time,
        step: Option<Step>,
        finding: &Finding,
        evidence: Option<Hash>,
    ) -> JobEvent {
        self.jobs.get_or_insert_mut(finding.job, JobHistory::default).find(now, step, finding, evidence)
    }

    /// Keeps what a driver has told; the event as it is told to those who watch, if it is about a job.
    pub fn record(&mut self, now: Time, step: Option<Step>, event: &Event) -> Option<JobEvent> {
        let mut told = describe(event)?;
        let history = self.jobs.get_or_insert_mut(told.job, JobHistory::default);
        if let Event::Running { task, .. } = event
            && history.task(*task).attempts == 0
        {
            told.kind = EventKind::TaskState;
            told.from = Some(TaskState::Ready.code());
        }
        // The ledger does not know that it was running.
        if let Event::Ledger(Change::Task { task, old: TaskState::Ready, new, .. }) = event
            && new.has_ended()
            && history.task(*task).started.is_some()
        {
            told.from = Some(TaskState::Running.code());
        }
        history.count(now, step, event);
        history.count += 1;
        (told.number, told.at, told.step) = (history.count, now, step);
        history.keep(told.clone());
        Some(told)
    }

    /// What has happened to a job; `None` if nothing is known or it is forgotten.
    pub fn job(&self, job: &JobId) -> Option<&JobHistory> {
        self.jobs.peek(job)
    }
}

fn describe(event: &Event) -> Option<JobEvent> {
    let with_detail = |event: JobEvent, detail: String| JobEvent { detail: Some(detail.into()), ..event };
    Some(match event {
        Event::Ledger(change) => describe_change(change),
        Event::Driving(job) => JobEvent::new(*job, EventKind::Driving),
        Event::NotDriving(job) => JobEvent::new(*job, EventKind::NotDriving),
        Event::Running { job, task, worker, .. } => JobEvent {
            worker: Some(*worker),
            state: Some(TaskState::Running.code()),
            ..JobEvent::of_task(*job, *task, EventKind::Attempt)
        },
        Event::Straggler { job, task, worker, after } => {
            let event = JobEvent::of_task(*job, *task, EventKind::Straggler);
            let detail = format!("has taken {} ms and gets another attempt beside it", after.as_millis());
            with_detail(JobEvent { worker: Some(*worker), ..event }, detail)
        }
        Event::AttemptFailed { job, task, worker, reason, detail, will_retry } => {
            let event = JobEvent::of_task(*job, *task, EventKind::AttemptFailed);
            let next = if *will_retry { "is tried again" } else { "was its last attempt" };
            let event = JobEvent { worker: Some(*worker), reason: Some(reason.code()), ..event };
            with_detail(event, format!("{detail}; {next}"))
        }
        Event::Tie { job, task, results } => with_detail(
            JobEvent::of_task(*job, *task, EventKind::Tie),
            format!("workers have signed {results} different results, and more are asked"),
        ),
        Event::Restoring { job, task } => with_detail(
            JobEvent::of_task(*job, *task, EventKind::Restoring),
            "its output was lost with who held it, and is made again".to_owned(),
        ),
        Event::Held { job, task, reason } => {
            let event = JobEvent::of_task(*job, *task, EventKind::Held);
            with_detail(JobEvent { reason: Some(super::held_code(reason)), ..event }, reason.to_string())
        }
        Event::BreakerOpened { .. } => return None,
    })
}

fn describe_change(change: &Change) -> JobEvent {
    match change {
        Change::Submitted(job) => JobEvent::new(*job, EventKind::Submitted),
        Change::Driver { job, node } => {
            JobEvent { worker: Some(*node), ..JobEvent::new(*job, EventKind::Driver) }
        }
        // Who has many gives each by itself.
        Change::Task { job, task, old, new } | Change::Tasks { job, first: task, old, new, .. } => JobEvent {
            from: Some(old.code()),
            state: Some(new.code()),
            ..JobEvent::of_task(*job, *task, EventKind::TaskState)
        },
        Change::Job { job, old, new } => JobEvent {
            from: Some(old.code()),
            state: Some(new.code()),
            ..JobEvent::new(*job, EventKind::JobState)
        },
        Change::Retried { job, round } => JobEvent {
            detail: Some(format!("round {round}").into()),
            ..JobEvent::new(*job, EventKind::Retried)
        },
        Change::Finished(job) => JobEvent::new(*job, EventKind::Finished),
        Change::Forgotten(job) => JobEvent::new(*job, EventKind::Forgotten),
    }
}
