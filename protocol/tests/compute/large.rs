//! The ledger of large jobs, and of such as are made to be large.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "how long it takes is what is asked"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use omnimesh_protocol::compute::job::{
    Align, Each, InputSpec, JobSpec, OnFailure, Source, TaskSpec, WhenMissing,
};
use omnimesh_protocol::compute::ledger::{
    CATEGORY, COMMITS_MAX, CancelReason, Change, Commit, Counts, FailReason, JobState, JobView, Operation,
    Outcome, State, TaskState,
};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::projection::{EntryRef, Outcome as Applied, Projection};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const AUTHOR: NodeId = NodeId::from_bytes([1; 32]);

fn chunks(bytes: u64) -> Option<Each> {
    Some(Each::Chunk { input: 0, bytes, align: Align::Byte })
}

fn groups(task: u16, group: u32) -> Option<Each> {
    Some(Each::Output { task, group })
}

fn task(name: &str, each: Option<Each>, sources: &[Source]) -> TaskSpec {
    TaskSpec { each, sources: sources.to_vec(), ..TaskSpec::new(name, "hash") }
}

/// A job with one input of so many bytes.
fn spec(nonce: u64, size: u64, tasks: Vec<TaskSpec>) -> JobSpec {
    let blob = BlobRef { size, ..BlobRef::of(b"in") };
    JobSpec {
        name: "large".to_owned(),
        nonce,
        deadline_s: 60,
        spot_check_per_mille: 0,
        inputs: vec![InputSpec { name: "in".to_owned(), blob }],
        tasks,
        outputs: Vec::new(),
    }
}

/// A ledger, and the one log that it is folded of.
#[derive(Default)]
struct Ledger {
    state: State,
    seq: u64,
    changes: Outbox<Change>,
}

impl Ledger {
    fn write(&mut self, operation: &Operation) -> Applied {
        self.seq += 1;
        let payload = operation.encode().unwrap();
        let hash = Hash::of(&self.seq.to_le_bytes());
        let entry = EntryRef {
            author: AUTHOR,
            seq: Seq(self.seq),
            step: Step(1),
            hash,
            category: CATEGORY,
            payload: &payload,
        };
        self.changes.drain();
        self.state.apply(&entry, &mut self.changes)
    }

    fn submit(&mut self, spec: &JobSpec) -> JobId {
        let bytes = spec.encode();
        let job = JobId::of(&AUTHOR, &bytes);
        assert_eq!(self.write(&Operation::Submit(bytes)), Applied::Applied);
        job
    }
}

fn success(task: TaskRef, inputs: Hash) -> Commit {
    Commit {
        task,
        stage: 0,
        inputs,
        outcome: Outcome::Succeeded(BlobRef::of(&task.chunk.to_le_bytes())),
        workers: [AUTHOR].into_iter().collect(),
        dissenters: [].into_iter().collect(),
        cpu_ms: 1,
        wall_ms: 2,
    }
}

/// Does a job to its end, and says how long the ledger took for that.
fn done(spec: &JobSpec) -> (Duration, u32) {
    let start = Instant::now();
    let mut ledger = Ledger::default();
    let job = ledger.submit(spec);
    loop {
        let view = ledger.state.job(&job).unwrap();
        let ready: Vec<_> = view.ready().map(|task| success(task, view.inputs(task).unwrap())).collect();
        if ready.is_empty() {
            break;
        }
        for commits in ready.chunks(COMMITS_MAX) {
            ledger.write(&Operation::Commit { job, round: 0, commits: commits.to_vec() });
        }
    }
    let view = ledger.state.job(&job).unwrap();
    assert_eq!(view.state(), JobState::Succeeded);
    (start.elapsed(), view.counts().succeeded)
}

/// `cargo test --workspace --test compute -- --ignored --nocapture how_long`
#[test]
#[ignore = "says how long the ledger takes"]
fn how_long_large_jobs_take() {
    let maps = || task("map", chunks(1), &[]);
    let jobs = [
        ("100,000 chunks", spec(1, 100_000, vec![maps()])),
        ("10,000 chunks, and all of them into one", {
            spec(2, 10_000, vec![maps(), task("sum", None, &[Source::Task(0)])])
        }),
        ("1,000 times 1,000", { spec(3, 1000, vec![maps(), task("reduce", chunks(1), &[Source::Task(0)])]) }),
        ("a tree of 65,536 leaves, 16 to 1", {
            let group = |name, of| task(name, groups(of, 16), &[]);
            spec(4, 65_536, vec![maps(), group("a", 0), group("b", 1), group("c", 2), group("d", 3)])
        }),
        ("10,000 chains of 5", {
            let link = |name, of| task(name, groups(of, 1), &[]);
            spec(5, 10_000, vec![maps(), link("a", 0), link("b", 1), link("c", 2), link("d", 3)])
        }),
    ];
    for (what, spec) in jobs {
        let best = (0..3).map(|_| done(&spec)).min().unwrap();
        println!("{what}: {} tasks in {:?}", best.1, best.0);
    }
}

#[test]
fn a_round_that_is_known_touches_nothing() {
    let mut ledger = Ledger::default();
    let job = ledger.submit(&spec(1, 100_000, vec![task("map", chunks(1), &[])]));
    let ready: Vec<_> = {
        let view = ledger.state.job(&job).unwrap();
        view.ready().map(|task| success(task, view.inputs(task).unwrap())).collect()
    };
    for commits in ready.chunks(COMMITS_MAX) {
        ledger.write(&Operation::Commit { job, round: 0, commits: commits.to_vec() });
    }
    let start = Instant::now();
    for _ in 0..1000 {
        ledger.write(&Operation::Retry { job, round: 1 });
    }
    // Looking at each task each time would take minutes.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn what_is_kept_of_the_commits_of_one_author_is_bounded() {
    let of = spec(1, 10, vec![task("map", chunks(1), &[])]);
    let (bytes, authors) = (of.encode(), [AUTHOR, NodeId::from_bytes([2; 32])]);
    let job = JobId::of(&AUTHOR, &bytes);
    let mut logs = [vec![Operation::Submit(bytes)], Vec::new()];
    for (n, log) in (0_u8..).zip(&mut logs) {
        log.push(Operation::Lease { is_taken: true, steps: 1, jobs: vec![job] });
        for entry in 0_u8..20 {
            let of = |at: u8, task| success(task, Hash::of(&[n, entry, at]));
            let task = |at: u8| TaskRef::new(0, 9 + u32::from(at % 2));
            let commits = (0..64).map(|at| of(at, task(at))).collect();
            log.push(Operation::Commit { job, round: u32::from(entry / 10), commits });
        }
    }
    let payloads: Vec<Vec<Vec<u8>>> =
        logs.iter().map(|log| log.iter().map(|operation| operation.encode().unwrap()).collect()).collect();
    // The steps of the second are lower.
    let apply = |state: &mut State, of: usize| {
        for (seq, payload) in (1..).zip(&payloads[of]) {
            let hash = Hash::of(format!("{of} {seq}").as_bytes());
            let (author, step) = (authors[of], Step(10 - 5 * of as u64 + seq));
            let entry = EntryRef { author, seq: Seq(seq), step, hash, category: CATEGORY, payload };
            assert_eq!(state.apply(&entry, &mut Outbox::new()), Applied::Applied);
        }
    };
    let mut state = State::new();
    [0, 1].iter().for_each(|of| apply(&mut state, *of));
    let mut other = State::new();
    [1, 0, 1, 0].iter().for_each(|of| apply(&mut other, *of));
    assert_eq!(state.snapshot(), other.snapshot(), "in another order, and twice");
    let mut restored = State::new();
    restored.restore(&state.snapshot()).unwrap();
    [0, 1].iter().for_each(|of| apply(&mut restored, *of));
    assert_eq!(state.snapshot(), restored.snapshot(), "once more after a start");
    let view = state.job(&job).unwrap();
    assert_eq!(view.records(TaskRef::new(0, 9)).count(), 2 * 2 * 16, "of two authors in two rounds");
    assert_eq!(view.records(TaskRef::new(0, 10)).count(), 0, "there is no such task");
}

/// The rules of the document, from the states of what a task waits for alone.
fn expected(view: &JobView<'_>, task: TaskRef) -> TaskState {
    let (plan, of) = (view.plan(), &view.spec().tasks[usize::from(task.task)]);
    let (mut present, mut absent) = (false, false);
    for wait in plan.waits(task.task) {
        for chunk in plan.reach(task.chunk, wait) {
            let other = TaskRef::new(wait.task, chunk);
            if !matches!(view.task(other), Some(TaskState::Succeeded | TaskState::Skipped)) {
                return TaskState::Pending;
            }
            present |= wait.is_read && view.output(other).is_some();
            absent |= wait.is_read && view.output(other).is_none();
        }
    }
    let has_nothing = !present && !of.reads_input();
    if absent && (of.when_missing == WhenMissing::Skip || has_nothing) {
        return TaskState::Skipped;
    }
    match view.record(task).map(|record| &record.commit.outcome) {
        None => TaskState::Ready,
        Some(Outcome::Succeeded(_)) => TaskState::Succeeded,
        Some(Outcome::Failed { .. }) if of.on_failure == OnFailure::Skip => TaskState::Skipped,
        Some(Outcome::Failed { .. }) => TaskState::Failed,
    }
}

fn check(state: &State, job: &JobId, told: &BTreeMap<TaskRef, TaskState>) {
    let view = state.job(job).unwrap();
    let mut counts = Counts::default();
    let halted = view.counts().failed > 0 || view.cancelled().is_some();
    for task in view.plan().tasks() {
        let expected = expected(&view, task);
        *match expected {
            TaskState::Pending => &mut counts.pending,
            TaskState::Ready => &mut counts.ready,
            TaskState::Succeeded => &mut counts.succeeded,
            TaskState::Failed => &mut counts.failed,
            _ => &mut counts.skipped,
        } += 1;
        let shown = if halted && !expected.has_ended() { TaskState::Cancelled } else { expected };
        assert_eq!(view.task(task), Some(shown), "{task}");
        assert_eq!(told.get(&task).copied().unwrap_or_default(), shown, "{task}, as the changes tell");
        let is_known = expected == TaskState::Ready || view.record(task).is_some();
        assert_eq!(view.inputs(task).is_some(), is_known, "{task}");
    }
    assert_eq!(view.counts(), counts);
    let ready = view.plan().tasks().filter(|task| view.task(*task) == Some(TaskState::Ready));
    assert_eq!(view.ready().collect::<Vec<_>>(), ready.collect::<Vec<_>>());
    state.check_invariants();
}

/// Families of all sorts, in an order that is not that in which they can be done.
fn tangled(rng: &mut ChaCha8Rng) -> JobSpec {
    let mut tasks = vec![
        task("last", None, &[Source::Task(3), Source::Task(2)]),
        task("map", chunks(3), &[]),
        task("pair", groups(1, 2), &[]),
        task("link", groups(2, 1), &[Source::Task(5)]),
        TaskSpec { after: vec![1], ..task("note", chunks(7), &[]) },
        task("head", None, &[Source::Input(0)]),
    ];
    for task in &mut tasks {
        if rng.random_bool(0.6) {
            task.on_failure = OnFailure::Skip;
        }
        if rng.random_bool(0.5) {
            task.when_missing = WhenMissing::Omit;
        }
    }
    spec(rng.random(), 25, tasks)
}

#[test]
fn what_is_not_said_follows_from_what_is() {
    for seed in crate::seeds(60) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ledger = Ledger::default();
        let mut told = BTreeMap::new();
        let of = tangled(&mut rng);
        let job = ledger.submit(&of);
        for _ in 0..40 {
            for change in ledger.changes.drain() {
                let mut note = |task, old, new| {
                    assert_eq!(told.insert(task, new).unwrap_or_default(), old, "seed {seed}: {task}");
                };
                match change {
                    Change::Task { task, old, new, .. } => note(task, old, new),
                    Change::Tasks { first, to, old, new, .. } => {
                        (first.chunk..to).for_each(|chunk| note(TaskRef::new(first.task, chunk), old, new));
                    }
                    _ => {}
                }
            }
            check(&ledger.state, &job, &told);
            let view = ledger.state.job(&job).unwrap();
            let round = view.round();
            let operation = match rng.random_range(0..12) {
                0 => Operation::Retry { job, round: round + rng.random_range(1..3) },
                1 => Operation::Cancel { job, round, reason: CancelReason::Requested, detail: String::new() },
                _ => {
                    let known = view.plan().tasks().filter_map(|task| Some((task, view.inputs(task)?)));
                    let mut commits = Vec::new();
                    for (task, inputs) in known {
                        let mut commit = success(task, inputs);
                        if rng.random_bool(0.2) {
                            commit.outcome =
                                Outcome::Failed { reason: FailReason::Program, detail: String::new() };
                        }
                        if rng.random_bool(0.3) {
                            commits.push(commit);
                        }
                    }
                    Operation::Commit { job, round, commits }
                }
            };
            if !matches!(&operation, Operation::Commit { commits, .. } if commits.is_empty()) {
                ledger.write(&operation);
            }
        }
    }
}
