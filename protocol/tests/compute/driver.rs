//! One driver by itself: workers answer and others write as a test wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{Config, Event, Finding, Input, Output, State, Timer};
use omnimesh_protocol::compute::job::{Align, Each, InputSpec, JobSpec, Source, TaskSpec};
use omnimesh_protocol::compute::ledger::{
    CATEGORY, Commit, FailReason, JobState, Operation, Outcome, Part, TaskState,
};
use omnimesh_protocol::compute::placement::Offer;
use omnimesh_protocol::compute::statement::{SignedResults, Statement};
use omnimesh_protocol::compute::wire::{Assignment, Failure, ResultItem};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskKey, TaskRef};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::log::Entry;
use omnimesh_protocol::{Hash, Identity, NodeId, Outbox, Seq, Step, Time};
use rand_core::SeedableRng;

use crate::mesh::MESH;

/// Another driver.
const OTHER: NodeId = NodeId::from_bytes([1; 32]);

struct Bench {
    state: State,
    me: NodeId,
    rng: rand_chacha::ChaCha8Rng,
    now: Time,
    step: Step,
    workers: Vec<Identity>,
    /// What each has written so far.
    written: BTreeMap<NodeId, u64>,
    /// What the driver wants written.
    appends: Vec<bytes::Bytes>,
    /// What workers are at, in the order in which they were asked.
    assigned: Vec<(NodeId, Assignment)>,
    tick: Option<Timer>,
    events: Vec<Event>,
    findings: Vec<Finding>,
    /// Who was asked what it has done of which jobs.
    asks: Vec<(NodeId, Vec<JobId>)>,
    /// Who has no slot that is free.
    busy: Option<NodeId>,
}

impl Bench {
    fn new(workers: u8) -> Self {
        Bench::with(Config::default(), workers)
    }

    fn with(config: Config, workers: u8) -> Self {
        let me = Identity::from_seed(&[99; 32]).id();
        let mut bench = Bench {
            state: State::new(config, me),
            me,
            rng: rand_chacha::ChaCha8Rng::seed_from_u64(0),
            now: Time::ZERO,
            step: Step(100),
            workers: (0..workers).map(|n| Identity::from_seed(&[n; 32])).collect(),
            written: BTreeMap::new(),
            appends: Vec::new(),
            assigned: Vec::new(),
            tick: None,
            events: Vec::new(),
            findings: Vec::new(),
            asks: Vec::new(),
            busy: None,
        };
        bench.give(Input::Up(OTHER));
        bench.give(Input::Step(Some(Step(100))));
        bench.heartbeats();
        bench
    }

    fn give(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.state.check_invariants();
        for output in out.drain() {
            match output {
                Output::Append { payload, .. } => self.appends.push(payload),
                Output::Assign { to, assignments } => {
                    self.assigned.extend(assignments.into_iter().map(|assignment| (to, assignment)));
                }
                Output::Cancel { to, attempts } => {
                    self.assigned
                        .retain(|(of, assignment)| *of != to || !attempts.contains(&assignment.attempt));
                }
                Output::Timer { timer, .. } => self.tick = Some(timer),
                Output::Event(event) => self.events.push(event),
                Output::Finding(finding) => self.findings.push(finding),
                Output::Ask { to, jobs } => self.asks.push((to, jobs)),
                _ => {}
            }
        }
    }

    fn heartbeats(&mut self) {
        for worker in 0..self.workers.len() {
            let from = self.workers[worker].id();
            let active = if self.busy == Some(from) { 4 } else { 0 };
            let offer = Offer { slots: 4, room: 8, active, memory_bytes: 1 << 40, ..Offer::default() };
            self.give(Input::Offer { from, offer });
        }
    }

    /// Time passes.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(100);
            self.heartbeats();
            if let Some(tick) = self.tick.take() {
                self.give(Input::Timer(tick));
            }
        }
    }

    fn steps(&mut self, count: u64) {
        self.step = Step(self.step.0 + count);
        self.give(Input::Step(Some(self.step)));
    }

    fn entry(&mut self, author: NodeId, step: u64, payload: bytes::Bytes) {
        let seq = self.written.entry(author).or_default();
        *seq += 1;
        let entry = Entry {
            author,
            seq: Seq(*seq),
            prev: None,
            hash: Hash::of(&[author.as_bytes().as_slice(), &seq.to_le_bytes()].concat()),
            step: Step(step),
            category: Channel::new(CATEGORY).unwrap(),
            timestamp_us: None,
            data: payload,
        };
        self.give(Input::Entry(entry));
    }

    /// Another one has written something, at this step.
    fn other(&mut self, step: u64, operation: &Operation) {
        self.entry(OTHER, step, operation.encode().unwrap().into());
    }

    /// What the driver wants written is in the log.
    fn write(&mut self) {
        for payload in std::mem::take(&mut self.appends) {
            self.entry(self.me, self.step.0, payload);
        }
    }

    /// Nothing else is to be read: what is done goes to the log.
    fn flush(&mut self) {
        if self.state.wants_flush() {
            self.give(Input::Flush);
        }
    }

    fn submit(&mut self, spec: JobSpec) -> JobId {
        let job = JobId::of(&self.me, &spec.encode());
        self.give(Input::Submit { spec, ticket: Ticket(0) });
        self.write();
        job
    }

    /// Takes out who was asked for this task, in order.
    fn asked(&mut self, task: TaskRef) -> Vec<(NodeId, Assignment)> {
        let (asked, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.assigned).into_iter().partition(|(_, of)| of.task == task);
        self.assigned = others;
        asked
    }

    /// The worker has begun.
    fn begin(&mut self, (worker, assignment): &(NodeId, Assignment)) {
        self.give(Input::Started { from: *worker, attempts: vec![assignment.attempt] });
    }

    /// The same, and they have begun.
    fn begun(&mut self, task: TaskRef) -> Vec<(NodeId, Assignment)> {
        let asked = self.asked(task);
        asked.iter().for_each(|asked| self.begin(asked));
        asked
    }

    fn answer(&mut self, (worker, assignment): &(NodeId, Assignment), result: BlobRef) {
        let identity = self.workers.iter().find(|identity| identity.id() == *worker).unwrap();
        let statement = Statement { key: assignment.key, result };
        let signed = SignedResults::sign(identity, MESH, vec![statement]).assume_verified();
        let item = ResultItem { attempt: assignment.attempt, statement, cpu_ms: 1, wall_ms: 1 };
        self.give(Input::Results { items: vec![item], signed });
    }

    /// The worker says that nobody has these blobs.
    fn lack(&mut self, (worker, assignment): &(NodeId, Assignment), missing: Vec<Hash>) {
        let (reason, detail) = (FailReason::BlobMissing, "a test".to_owned());
        let failure = Failure { attempt: assignment.attempt, reason, detail, missing };
        self.give(Input::Failed { from: *worker, failures: vec![failure] });
    }

    fn fail(&mut self, (worker, assignment): &(NodeId, Assignment), reason: FailReason) {
        let detail = "a test".to_owned();
        let failure = Failure { attempt: assignment.attempt, reason, detail, missing: Vec::new() };
        self.give(Input::Failed { from: *worker, failures: vec![failure] });
    }

    /// The tasks that payloads commit.
    fn commits(payloads: &[bytes::Bytes]) -> Vec<TaskRef> {
        let commits = |payload: &bytes::Bytes| match Operation::decode(payload).unwrap() {
            Operation::Commit { commits, .. } => commits.iter().map(|commit| commit.task).collect(),
            _ => Vec::new(),
        };
        payloads.iter().flat_map(commits).collect()
    }

    /// What is in the log of a task's output, once all is there.
    fn written(&mut self, job: &JobId, task: TaskRef) -> Option<BlobRef> {
        self.flush();
        self.write();
        self.state.ledger().job(job).unwrap().output(task)
    }

    fn state(&self, job: &JobId, task: TaskRef) -> TaskState {
        self.state.ledger().job(job).unwrap().task(task).unwrap()
    }

    /// What another driver would commit.
    fn commit(&self, job: &JobId, task: TaskRef, result: BlobRef) -> Operation {
        let commit = Commit {
            task,
            stage: 0,
            inputs: self.state.ledger().job(job).unwrap().inputs(task).unwrap(),
            outcome: Outcome::Succeeded(result),
            workers: [self.workers[0].id()].into_iter().collect(),
            dissenters: std::iter::empty().collect(),
            cpu_ms: 1,
            wall_ms: 1,
        };
        Operation::Commit { job: *job, round: 0, commits: vec![commit] }
    }

    fn take(job: JobId) -> Operation {
        Operation::Lease { is_taken: true, steps: 20, jobs: vec![job] }
    }

    /// Another one drives the job for a while, dies, and the driver takes it back; what that writes is left to be written.
    fn lose_and_take_back(&mut self, job: JobId) {
        let step = self.step.0;
        self.other(step, &Self::take(job));
        assert!(!self.state.drives(&job));
        self.give(Input::Down(OTHER));
        self.steps(30);
    }
}

fn blob(text: &str) -> BlobRef {
    BlobRef::of(text.as_bytes())
}

const FIRST: TaskRef = TaskRef::new(0, 0);
const SECOND: TaskRef = TaskRef::new(1, 0);

/// Two tasks, the second of which reads what the first makes.
fn chain(redundancy: u8) -> JobSpec {
    let mut first = TaskSpec::new("first", "hash");
    first.each = Some(Each::Chunk { input: 0, bytes: 1000, align: Align::Byte });
    let mut second = TaskSpec::new("second", "hash");
    second.sources = vec![Source::Task(0)];
    let mut tasks = vec![first, second];
    tasks.iter_mut().for_each(|task| task.redundancy = redundancy);
    JobSpec {
        name: "chain".to_owned(),
        nonce: 1,
        deadline_s: 86_400,
        spot_check_per_mille: 0,
        inputs: vec![InputSpec { name: "text".to_owned(), blob: BlobRef { size: 1000, ..blob("input") } }],
        tasks,
        outputs: Vec::new(),
    }
}

#[test]
fn what_another_driver_has_committed_is_not_committed_again() {
    let mut bench = Bench::new(2);
    let job = bench.submit(chain(1));
    bench.lose_and_take_back(job);
    bench.write();
    assert!(bench.state.drives(&job));
    let asked = bench.asked(FIRST);
    bench.answer(asked.last().unwrap(), blob("a"));
    // Before it is written the other's commit arrives, late.
    let commit = bench.commit(&job, FIRST, blob("a"));
    bench.other(101, &commit);
    assert_eq!(bench.state(&job, FIRST), TaskState::Succeeded);
    bench.flush();
    assert_eq!(Bench::commits(&bench.appends), []);
    // The job goes on.
    let asked = bench.asked(SECOND);
    bench.answer(&asked[0], blob("b"));
    bench.flush();
    assert_eq!(Bench::commits(&bench.appends), [SECOND]);
    bench.write();
    assert_eq!(bench.state.ledger().job(&job).unwrap().state(), JobState::Succeeded);
}

#[test]
fn what_is_on_its_way_into_the_log_is_not_done_again_when_a_job_is_taken_back() {
    let mut bench = Bench::new(2);
    let job = bench.submit(chain(1));
    let asked = bench.asked(FIRST);
    bench.answer(&asked[0], blob("a"));
    bench.flush();
    let commit = std::mem::take(&mut bench.appends);
    assert_eq!(Bench::commits(&commit), [FIRST]);
    bench.lose_and_take_back(job);
    bench.write();
    assert!(bench.state.drives(&job));
    assert!(bench.asked(FIRST).is_empty(), "its outcome is being written");
    bench.appends = commit;
    bench.write();
    assert_eq!(bench.state(&job, FIRST), TaskState::Succeeded);
    assert_eq!(bench.asked(SECOND).len(), 1);
}

#[test]
fn a_task_that_reads_something_else_by_now_is_done_again_with_that() {
    let mut bench = Bench::new(5);
    let job = bench.submit(chain(2));
    bench.other(100, &Bench::take(job));
    bench.give(Input::Down(OTHER));
    bench.steps(30);
    bench.write();
    for asked in bench.asked(FIRST) {
        bench.answer(&asked, blob("a"));
    }
    bench.flush();
    bench.write();
    // One of two is slow, and a third has an answer before it.
    let asked = bench.asked(SECOND);
    asked.iter().for_each(|asked| bench.begin(asked));
    bench.answer(&asked[0], blob("b"));
    bench.wait(Duration::from_millis(500));
    let copy = bench.asked(SECOND);
    assert_eq!(copy.len(), 1);
    bench.answer(&copy[0], blob("b"));
    bench.flush();
    bench.write();
    assert_eq!(bench.state(&job, SECOND), TaskState::Succeeded);
    // The other has committed the first task before, with another output: that counts.
    let commit = bench.commit(&job, FIRST, blob("x"));
    bench.other(101, &commit);
    assert_eq!(bench.state(&job, SECOND), TaskState::Ready);
    let again = bench.asked(SECOND);
    assert_eq!(again.len(), 2);
    for (_, assignment) in &again {
        assert!(matches!(&assignment.parts[..], [Part::Blob { blob: read, .. }] if *read == blob("x")));
    }
    for asked in &again {
        bench.answer(asked, blob("y"));
    }
    bench.flush();
    bench.write();
    assert_eq!(bench.state.ledger().job(&job).unwrap().output(SECOND), Some(blob("y")));
}

#[test]
fn for_each_vote_against_another_worker_is_asked_at_once() {
    let mut bench = Bench::new(7);
    let job = bench.submit(chain(3));
    let asked = bench.begun(FIRST);
    assert_eq!(asked.len(), 3);
    bench.answer(&asked[0], blob("right"));
    bench.answer(&asked[1], blob("a lie"));
    // The third is not waited for: whatever it says, one more has to be asked.
    let more = bench.asked(FIRST);
    assert_eq!(more.len(), 1);
    bench.answer(&more[0], blob("another lie"));
    let more = bench.asked(FIRST);
    assert_eq!(more.len(), 1);
    let ties = |bench: &Bench| bench.events.iter().filter(|event| matches!(event, Event::Tie { .. })).count();
    assert_eq!(ties(&bench), 2);
    // The third is slow: there is a copy of it, and that has an answer before it.
    bench.begin(&more[0]);
    bench.answer(&more[0], blob("right"));
    bench.wait(Duration::from_millis(500));
    let copy = bench.asked(FIRST);
    assert_eq!(copy.len(), 1, "of the slow one");
    bench.answer(&copy[0], blob("a third lie"));
    assert_eq!((ties(&bench), bench.asked(FIRST).len()), (3, 1));
    bench.answer(&asked[2], blob("right"));
    assert_eq!(bench.written(&job, FIRST), Some(blob("right")));
}

#[test]
fn a_slow_vote_is_copied_soon_where_workers_have_nothing_else_to_do() {
    let mut bench = Bench::new(7);
    bench.submit(chain(3));
    let asked = bench.begun(FIRST);
    bench.wait(Duration::from_secs(2));
    asked[..2].iter().for_each(|asked| bench.answer(asked, blob("a")));
    bench.wait(Duration::from_millis(900));
    assert!(bench.asked(FIRST).is_empty(), "it has not taken half as long again as the others");
    bench.wait(Duration::from_millis(300));
    assert_eq!(bench.asked(FIRST).len(), 1);
}

/// All that happens on the way is that workers are lost: the copy of a straggler, and then the straggler itself.
#[test]
fn a_slow_copy_is_copied_when_the_straggler_is_lost() {
    let mut bench = Bench::new(7);
    bench.submit(chain(3));
    let asked = bench.begun(FIRST);
    bench.wait(Duration::from_secs(2));
    asked[..2].iter().for_each(|asked| bench.answer(asked, blob("a")));
    bench.wait(Duration::from_millis(1200));
    let copy = bench.asked(FIRST);
    assert_eq!(copy.len(), 1);
    bench.fail(&copy[0], FailReason::Unavailable);
    bench.wait(Duration::from_millis(300));
    let copy = bench.asked(FIRST);
    assert_eq!(copy.len(), 1, "another copy");
    bench.begin(&copy[0]);
    bench.fail(&asked[2], FailReason::Unavailable);
    bench.wait(Duration::from_secs(4));
    assert_eq!(bench.asked(FIRST).len(), 1, "a copy of the copy, which is slow as well");
}

/// A task is given up when its workers are lost again and again; copies of a straggler are not what it fails with.
#[test]
fn copies_that_are_lost_do_not_end_a_task() {
    let losses_max = 10;
    let mut bench = Bench::with(Config { losses_max, ..Config::default() }, 7);
    let job = bench.submit(chain(3));
    let asked = bench.begun(FIRST);
    bench.wait(Duration::from_secs(2));
    asked[..2].iter().for_each(|asked| bench.answer(asked, blob("a")));
    let mut lost = 0;
    while lost <= losses_max {
        bench.wait(Duration::from_millis(100));
        for copy in bench.asked(FIRST) {
            bench.fail(&copy, FailReason::Unavailable);
            lost += 1;
        }
        assert!(bench.now < Time::ZERO + Duration::from_secs(60), "only {lost} copies were asked for");
    }
    assert_eq!(bench.state(&job, FIRST), TaskState::Ready);
    bench.answer(&asked[2], blob("a"));
    assert_eq!(bench.written(&job, FIRST), Some(blob("a")));
}

/// One worker says that the program fails, again and again; of the others only two are there.
#[test]
fn one_worker_alone_cannot_have_a_task_fail() {
    let mut bench = Bench::new(3);
    let job = bench.submit(chain(3));
    let asked = bench.begun(FIRST);
    bench.fail(&asked[2], FailReason::Program);
    for _ in 0..10 {
        bench.wait(Duration::from_secs(2));
        for again in bench.asked(FIRST) {
            bench.fail(&again, FailReason::Program);
        }
    }
    assert_eq!(bench.state(&job, FIRST), TaskState::Ready);
    asked[..2].iter().for_each(|asked| bench.answer(asked, blob("a")));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.written(&job, FIRST), Some(blob("a")), "two of three");
}

#[test]
fn what_was_done_for_another_driver_counts_again() {
    let mut bench = Bench::new(7);
    let job = bench.submit(chain(3));
    let before = bench.asked(FIRST);
    before.iter().for_each(|asked| bench.begin(asked));
    bench.answer(&before[0], blob("right"));
    bench.answer(&before[1], blob("right"));
    // Its votes are gone with the job, and the workers have them.
    bench.asks.clear();
    bench.lose_and_take_back(job);
    bench.write();
    let workers: BTreeSet<_> = bench.workers.iter().map(Identity::id).collect();
    assert_eq!(bench.asks, workers.iter().map(|worker| (*worker, vec![job])).collect::<Vec<_>>());
    let again = bench.asked(FIRST);
    assert_eq!(again.len(), 3);
    let key = before[0].1.key;
    let has = |from, keys| Input::Has { from, job, keys };
    let idle = |worker: &NodeId| !again.iter().any(|(asked, _)| asked == worker);
    let free: Vec<NodeId> = workers.iter().copied().filter(idle).collect();
    // What is said of tasks that there are none of, and by who was asked already, changes nothing.
    bench.give(has(free[0], vec![TaskKey::from_bytes([1; 32])]));
    bench.give(has(again[0].0, vec![key]));
    assert!(bench.asked(FIRST).is_empty());
    bench.give(has(free[0], vec![key, key]));
    bench.give(has(free[1], vec![key]));
    let recalled = bench.asked(FIRST);
    assert_eq!(recalled.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), free[..2]);
    // They only say so: who has no room after all is replaced all the same.
    let (attempt, detail) = (again[2].1.attempt, "full".to_owned());
    let failure = Failure { attempt, reason: FailReason::Busy, detail, missing: Vec::new() };
    bench.give(Input::Failed { from: again[2].0, failures: vec![failure] });
    assert_eq!(bench.asked(FIRST).len(), 1);
    recalled.iter().for_each(|asked| bench.answer(asked, blob("right")));
    assert!(bench.asked(FIRST).is_empty(), "one of three is missing, and three are at it");
    bench.begin(&again[0]);
    bench.answer(&again[0], blob("right"));
    bench.flush();
    bench.write();
    assert_eq!(bench.state(&job, FIRST), TaskState::Succeeded);
}

#[test]
fn the_last_tasks_are_given_to_more_while_most_workers_are_idle() {
    let mut bench = Bench::new(40);
    let job = bench.submit(chain(3));
    let asked = bench.begun(FIRST);
    bench.wait(Duration::from_millis(200));
    let more = bench.asked(FIRST);
    assert_eq!((asked.len(), more.len()), (3, 2));
    // That one of them fails is not held against the task, and it is not asked again and again.
    let failed = |asked: &(NodeId, Assignment)| Input::Failed {
        from: asked.0,
        failures: vec![Failure {
            attempt: asked.1.attempt,
            reason: FailReason::Program,
            detail: "trap".to_owned(),
            missing: Vec::new(),
        }],
    };
    bench.give(failed(&more[0]));
    bench.give(failed(&more[1]));
    bench.wait(Duration::from_secs(1));
    assert!(bench.asked(FIRST).is_empty());
    bench.answer(&asked[0], blob("right"));
    bench.answer(&asked[1], blob("a lie"));
    bench.answer(&asked[2], blob("right"));
    let last = bench.asked(FIRST);
    assert_eq!(last.len(), 1, "for the vote against");
    bench.answer(&last[0], blob("right"));
    assert_eq!(bench.written(&job, FIRST), Some(blob("right")));
}

#[test]
fn one_workers_word_is_not_held_against_others() {
    for is_agreed in [false, true] {
        let mut bench = Bench::new(12);
        let job = bench.submit(chain(if is_agreed { 2 } else { 1 }));
        for asked in bench.asked(FIRST) {
            bench.answer(&asked, blob("what nobody can give"));
        }
        assert_eq!(bench.written(&job, FIRST), Some(blob("what nobody can give")));
        // Nobody has it, so it is to be made again; who makes something else may be right.
        let reader = bench.asked(SECOND).remove(0);
        bench.lack(&reader, vec![blob("what nobody can give").hash]);
        bench.wait(Duration::from_secs(5));
        let again = bench.asked(FIRST).remove(0);
        bench.answer(&again, blob("right"));
        let accused: Vec<NodeId> = bench.findings.iter().map(|finding| finding.accused).collect();
        assert_eq!(accused, if is_agreed { vec![again.0] } else { vec![] });
        bench.wait(Duration::from_secs(30));
        assert_ne!(bench.asked(FIRST).remove(0).0, again.0, "another one is asked");
    }
}

#[test]
fn a_worker_lacks_only_what_its_task_reads() {
    let mut bench = Bench::new(3);
    let mut spec = chain(1);
    spec.inputs[0].blob.size = 100_000;
    let job = bench.submit(spec);
    let done = bench.asked(FIRST).remove(0);
    bench.answer(&done, blob("an output"));
    assert_eq!(bench.written(&job, FIRST), Some(blob("an output")));
    let other = bench.asked(TaskRef::new(0, 1)).remove(0);
    bench.lack(&other, vec![blob("an output").hash]);
    bench.wait(Duration::from_secs(5));
    let is_restoring = |event: &Event| matches!(event, Event::Restoring { .. });
    assert!(!bench.events.iter().any(is_restoring) && bench.asked(FIRST).is_empty());
}

#[test]
fn where_results_are_compared_the_copies_of_short_tasks_come_last() {
    let mut bench = Bench::new(3);
    let mut spec = chain(2);
    spec.inputs[0].blob.size = 100_000;
    bench.submit(spec);
    let tasks = |assigned: &[(NodeId, Assignment)]| -> BTreeSet<u32> {
        assigned.iter().map(|(_, assignment)| assignment.task.chunk).collect()
    };
    let first = std::mem::take(&mut bench.assigned);
    assert_eq!((first.len(), tasks(&first).len()), (24, 24), "first each by one worker");
    // Some of each worker.
    let (long, short): (Vec<_>, Vec<_>) = (0..).zip(first.clone()).partition(|(place, _)| place % 8 < 3);
    let without = |found: Vec<(i32, _)>| found.into_iter().map(|(_, asked)| asked).collect::<Vec<_>>();
    let (long, short) = (without(long), without(short));
    long.iter().for_each(|asked| bench.begin(asked));
    bench.wait(Duration::from_secs(3));
    short.iter().for_each(|asked| bench.begin(asked));
    long.iter().for_each(|asked| bench.answer(asked, blob("a")));
    let second = tasks(&std::mem::take(&mut bench.assigned));
    assert!(second.is_disjoint(&tasks(&short)), "of these nobody knows how long they take");
    let at_once = second.intersection(&tasks(&long)).count();
    assert!(at_once >= 6, "what takes long is done by somebody else as soon as there is room: {at_once}");
    bench.wait(Duration::from_millis(200));
    short[..8].iter().for_each(|asked| bench.answer(asked, blob("b")));
    let third = tasks(&std::mem::take(&mut bench.assigned));
    assert!(third.is_disjoint(&tasks(&short)), "what is short waits behind those that nobody has done");
    assert!(third.iter().any(|task| !tasks(&first).contains(task)), "of which there are some: {third:?}");
}

#[test]
fn what_waits_behind_others_is_given_to_who_can_begin_at_once() {
    let mut bench = Bench::new(2);
    let job = bench.submit(chain(1));
    let asked = bench.asked(FIRST);
    // It is busy with the work of others, and the other one is not.
    bench.busy = Some(asked[0].0);
    bench.wait(Duration::from_secs(2));
    let again = bench.asked(FIRST);
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].0, asked[0].0);
    // What has begun stays.
    bench.begin(&again[0]);
    bench.busy = None;
    bench.wait(Duration::from_secs(5));
    assert!(bench.asked(FIRST).is_empty());
    bench.answer(&again[0], blob("a"));
    bench.flush();
    bench.write();
    assert_eq!(bench.state(&job, FIRST), TaskState::Succeeded);
}

#[test]
fn who_is_late_with_its_first_tasks_gets_no_more_and_has_what_waits_taken_back() {
    let mut bench = Bench::new(8);
    let mut spec = chain(1);
    spec.inputs[0].blob.size = 40_000;
    let _job = bench.submit(spec);
    let all = std::mem::take(&mut bench.assigned);
    assert_eq!(all.len(), 40);
    let slow = all[0].0;
    let (first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(worker, _)| *worker == slow);
    assert!(first.len() > 1);
    bench.begin(&first[0]);
    others.iter().for_each(|asked| bench.begin(asked));
    bench.wait(Duration::from_secs(1));
    others.iter().for_each(|asked| bench.answer(asked, blob("a")));
    // All others are done: the slow one keeps at most what it has begun.
    bench.wait(Duration::from_secs(4));
    let moved: Vec<_> = std::mem::take(&mut bench.assigned);
    assert!(moved.len() >= first.len() - 1, "{} of {}", moved.len(), first.len());
    assert!(moved.iter().all(|(worker, _)| *worker != slow));
}
