//! The ledger: in whatever order, how often and in how many parts entries arrive, it is the same.

use omnimesh_protocol::compute::job::{
    Align, Each, InputSpec, JobSpec, OnFailure, Source, TaskSpec, WhenMissing,
};
use omnimesh_protocol::compute::ledger::{
    CATEGORY, CancelReason, Change, Commit, FailReason, JobState, Operation, Outcome, State, TaskState,
};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::projection::{EntryRef, Head, Outcome as Applied, Projection, Replay};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
use proptest::prelude::*;

const AUTHORS: u8 = 3;

fn author(n: u8) -> NodeId {
    NodeId::from_bytes([n + 1; 32])
}

/// Two chunks, each mapped; a merge of both that goes without what is missing; a last one that does not.
fn spec() -> JobSpec {
    let mut map = TaskSpec::new("map", "hash");
    map.each = Some(Each::Chunk { input: 0, bytes: 10, align: Align::Byte });
    map.on_failure = OnFailure::Skip;
    let mut merge = TaskSpec::new("merge", "concat");
    merge.sources = vec![Source::Task(0)];
    merge.when_missing = WhenMissing::Omit;
    let mut last = TaskSpec::new("last", "concat");
    last.sources = vec![Source::Task(1)];
    JobSpec {
        name: "laws".to_owned(),
        nonce: 0,
        deadline_s: 60,
        spot_check_per_mille: 0,
        inputs: vec![InputSpec { name: "in".to_owned(), blob: BlobRef { size: 20, ..BlobRef::of(b"in") } }],
        tasks: vec![map, merge, last],
        outputs: Vec::new(),
    }
}

fn job() -> JobId {
    JobId::of(&author(0), &spec().encode())
}

/// What the inputs of each task can be: computed by a ledger that is given commits one after another.
fn inputs(outputs: [u8; 2], merged: u8) -> [Hash; 4] {
    let mut state = State::new();
    let mut seq = 0;
    let mut apply = |state: &mut State, operation: &Operation| {
        seq += 1;
        let payload = operation.encode().unwrap();
        state.apply(&entry(0, seq, 1, &payload), &mut Outbox::new());
    };
    apply(&mut state, &Operation::Submit(spec().encode()));
    let of = |state: &State, task: TaskRef| {
        state.job(&job()).unwrap().inputs(task).unwrap_or(Hash::of(b"unknown"))
    };
    let mut hashes =
        [of(&state, TaskRef::new(0, 0)), of(&state, TaskRef::new(0, 1)), Hash::of(b""), Hash::of(b"")];
    for chunk in 0..2_u8 {
        let task = TaskRef::new(0, u32::from(chunk));
        let commit = commit(task, hashes[usize::from(chunk)], Some(outputs[usize::from(chunk)]));
        apply(&mut state, &Operation::Commit { job: job(), round: 0, commits: vec![commit] });
    }
    hashes[2] = of(&state, TaskRef::new(1, 0));
    let commit = commit(TaskRef::new(1, 0), hashes[2], Some(merged));
    apply(&mut state, &Operation::Commit { job: job(), round: 0, commits: vec![commit] });
    hashes[3] = of(&state, TaskRef::new(2, 0));
    hashes
}

#[test]
fn what_omits_a_skipped_output_still_reads_its_input() {
    let ended = |reads_input: bool| {
        let mut spec = spec();
        spec.tasks.truncate(2);
        if reads_input {
            spec.tasks[1].sources.push(Source::Input(0));
        }
        let job = JobId::of(&author(0), &spec.encode());
        let mut state = State::new();
        let apply = |state: &mut State, seq: u64, operation: &Operation| {
            let payload = operation.encode().unwrap();
            state.apply(&entry(0, seq, 1, &payload), &mut Outbox::new());
        };
        apply(&mut state, 1, &Operation::Submit(spec.encode()));
        let failed = [0, 1].map(|chunk| {
            let task = TaskRef::new(0, chunk);
            commit(task, state.job(&job).unwrap().inputs(task).unwrap(), None)
        });
        apply(&mut state, 2, &Operation::Commit { job, round: 0, commits: failed.to_vec() });
        state.check_invariants();
        state.job(&job).unwrap().task(TaskRef::new(1, 0)).unwrap()
    };
    assert_eq!(ended(false), TaskState::Skipped, "nothing is left to read");
    assert_eq!(ended(true), TaskState::Ready);
}

fn commit(task: TaskRef, inputs: Hash, output: Option<u8>) -> Commit {
    let outcome = match output {
        Some(output) => Outcome::Succeeded(BlobRef::of(&[output])),
        None => Outcome::Failed { reason: FailReason::Program, detail: "no".to_owned() },
    };
    let workers = [author(output.unwrap_or(0))].into_iter().collect();
    Commit {
        task,
        stage: 0,
        inputs,
        outcome,
        workers,
        dissenters: [].into_iter().collect(),
        cpu_ms: 1,
        wall_ms: 2,
    }
}

#[derive(Clone, Debug)]
struct Written {
    author: u8,
    seq: u64,
    step: u64,
    payload: Vec<u8>,
}

fn entry(author_: u8, seq: u64, step: u64, payload: &[u8]) -> EntryRef<'_> {
    EntryRef {
        author: author(author_),
        seq: Seq(seq),
        step: Step(step),
        hash: Hash::of(&[[author_].as_slice(), &seq.to_le_bytes()].concat()),
        category: CATEGORY,
        payload,
    }
}

fn apply_all<'a>(state: &mut State, written: impl IntoIterator<Item = &'a Written>) -> Vec<Change> {
    let mut out = Outbox::new();
    for written in written {
        state.apply(&entry(written.author, written.seq, written.step, &written.payload), &mut out);
    }
    state.check_invariants();
    out.drain().collect()
}

fn fold(written: &[Written]) -> State {
    let mut state = State::new();
    apply_all(&mut state, written);
    state
}

fn any_operation() -> impl Strategy<Value = Operation> {
    // Outputs are 0 or 1, so that what is committed often fits what the others say.
    let commit = (0_usize..4, any::<[bool; 2]>(), any::<bool>(), any::<Option<bool>>(), 0_u32..2).prop_map(
        |(place, outputs, merged, output, round)| {
            let hashes = inputs(outputs.map(u8::from), u8::from(merged));
            let task =
                [TaskRef::new(0, 0), TaskRef::new(0, 1), TaskRef::new(1, 0), TaskRef::new(2, 0)][place];
            let commits = vec![commit(task, hashes[place], output.map(u8::from))];
            Operation::Commit { job: job(), round, commits }
        },
    );
    prop_oneof![
        12 => commit,
        3 => (any::<bool>(), 1_u64..20).prop_map(|(is_taken, steps)| Operation::Lease { is_taken, steps, jobs: vec![job()] }),
        1 => (0_u32..2).prop_map(|round| Operation::Cancel { job: job(), round, reason: CancelReason::Requested, detail: String::new() }),
        1 => (1_u32..3).prop_map(|round| Operation::Retry { job: job(), round }),
        1 => (0_u32..2).prop_map(|round| Operation::Finish { job: job(), round }),
    ]
}

fn any_history(max: usize) -> impl Strategy<Value = Vec<Written>> {
    let written = (0..AUTHORS, 0_u64..3, any_operation());
    proptest::collection::vec(written, 0..max).prop_map(|list| {
        let mut history = vec![Written {
            author: 0,
            seq: 1,
            step: 1,
            payload: Operation::Submit(spec().encode()).encode().unwrap(),
        }];
        let mut last = [(1, 1), (0, 1), (0, 1)];
        for (author, more, operation) in list {
            let (seq, step) = &mut last[usize::from(author)];
            *seq += 1;
            *step += more;
            history.push(Written { author, seq: *seq, step: *step, payload: operation.encode().unwrap() });
        }
        history
    })
}

/// Another order in which each author's entries keep theirs.
fn interleave(history: &[Written], picks: &[u8]) -> Vec<Written> {
    let mut logs: Vec<Vec<Written>> = (0..AUTHORS)
        .map(|n| history.iter().filter(|written| written.author == n).cloned().rev().collect())
        .collect();
    let mut order = Vec::new();
    let mut picks = picks.iter().copied().chain(0..).cycle();
    while order.len() < history.len() {
        let pick = usize::from(picks.next().unwrap()) % logs.len();
        order.extend(logs[pick].pop());
    }
    order
}

fn assert_same(a: &State, b: &State) {
    assert_eq!(a.hash(), b.hash());
    assert_eq!(a.snapshot(), b.snapshot());
    let states = |state: &State| {
        state.job(&job()).map(|view| {
            let tasks: Vec<_> = view
                .plan()
                .tasks()
                .map(|task| (view.task(task), view.output(task), view.inputs(task)))
                .collect();
            (view.state(), view.counts(), view.holder(), view.round(), view.is_finished(), tasks)
        })
    };
    assert_eq!(states(a), states(b));
}

/// What the module's rules say, without any of its code: the first success, else failure, for the inputs that follow.
fn model(history: &[Written]) -> Vec<(TaskRef, Option<BlobRef>, bool)> {
    let mut sorted: Vec<_> = history.to_vec();
    sorted.sort_by_key(|written| (written.step, author(written.author), written.seq));
    let decoded = |written: &Written| Operation::decode(&written.payload).unwrap();
    let rounds: std::collections::BTreeSet<u32> = history
        .iter()
        .filter_map(|written| match decoded(written) {
            Operation::Retry { round, .. } => Some(round),
            _ => None,
        })
        .collect();
    let round = (1..).take_while(|round| rounds.contains(round)).last().unwrap_or(0);
    let may = |written: &Written| {
        written.author == 0
            || history.iter().any(|other| {
                other.author == written.author
                    && other.seq < written.seq
                    && matches!(decoded(other), Operation::Lease { is_taken: true, .. })
            })
    };
    let commits: Vec<_> = sorted
        .iter()
        .filter(|written| may(written))
        .filter_map(|written| match decoded(written) {
            Operation::Commit { round, commits, .. } => Some((round, commits[0].clone())),
            _ => None,
        })
        .collect();
    let find = |task: TaskRef, inputs: Hash| -> Option<Option<BlobRef>> {
        let fits = commits.iter().filter(|(_, commit)| commit.task == task && commit.inputs == inputs);
        let success = fits.clone().find_map(|(_, commit)| match commit.outcome {
            Outcome::Succeeded(blob) => Some(Some(blob)),
            Outcome::Failed { .. } => None,
        });
        success.or_else(|| {
            let mut failures =
                fits.filter(|(at, commit)| *at == round && matches!(commit.outcome, Outcome::Failed { .. }));
            failures.next().map(|_| None)
        })
    };
    let firsts = inputs([0, 0], 0);
    let maps = [find(TaskRef::new(0, 0), firsts[0]), find(TaskRef::new(0, 1), firsts[1])];
    let byte = |blob: BlobRef| u8::from(blob == BlobRef::of(&[1]));
    let mut all = vec![
        (TaskRef::new(0, 0), maps[0].flatten(), maps[0].is_some()),
        (TaskRef::new(0, 1), maps[1].flatten(), maps[1].is_some()),
    ];
    // Inputs with something missing are not among those that commits name here.
    let merge = match maps {
        [Some(Some(a)), Some(Some(b))] => find(TaskRef::new(1, 0), inputs([byte(a), byte(b)], 0)[2]),
        [Some(None), Some(None)] => Some(None),
        _ => None,
    };
    all.push((TaskRef::new(1, 0), merge.flatten(), merge.is_some()));
    let last = match (maps, merge) {
        ([Some(Some(a)), Some(Some(b))], Some(Some(merged))) => {
            find(TaskRef::new(2, 0), inputs([byte(a), byte(b)], byte(merged))[3])
        }
        // A failed merge fails the job; one that was skipped skips what reads it.
        ([Some(None), Some(None)], _) => Some(None),
        _ => None,
    };
    all.push((TaskRef::new(2, 0), last.flatten(), last.is_some()));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_ledger_is_what_the_model_says(history in any_history(30)) {
        let state = fold(&history);
        let view = state.job(&job()).unwrap();
        for (task, output, has_ended) in model(&history) {
            prop_assert_eq!(view.output(task), output, "{}", task);
            if has_ended {
                prop_assert!(view.task(task).unwrap().has_ended(), "{}", task);
            }
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter(history in any_history(30), picks in proptest::collection::vec(any::<u8>(), 40)) {
        let state = fold(&history);
        let order = interleave(&history, &picks);
        let mut other = fold(&order);
        assert_same(&state, &other);
        apply_all(&mut other, &history);
        assert_same(&state, &other);
    }

    #[test]
    fn changes_add_up(history in any_history(30), picks in proptest::collection::vec(any::<u8>(), 40)) {
        let mut tasks = std::collections::BTreeMap::new();
        let mut states = Vec::new();
        let mut state = State::new();
        for change in apply_all(&mut state, &interleave(&history, &picks)) {
            match change {
                Change::Task { task, old, new, .. } => {
                    let before = tasks.insert(task, new).unwrap_or(TaskState::Pending);
                    prop_assert_eq!(before, old, "{}", task);
                }
                Change::Tasks { first, to, old, new, .. } => {
                    for chunk in first.chunk..to {
                        let task = TaskRef::new(first.task, chunk);
                        let before = tasks.insert(task, new).unwrap_or(TaskState::Pending);
                        prop_assert_eq!(before, old, "{}", task);
                    }
                }
                Change::Job { old, new, .. } => {
                    prop_assert_eq!(states.last().copied().unwrap_or(JobState::Running), old);
                    states.push(new);
                }
                _ => {}
            }
        }
        let view = state.job(&job()).unwrap();
        for task in view.plan().tasks() {
            prop_assert_eq!(tasks.get(&task).copied().unwrap_or(TaskState::Pending), view.task(task).unwrap());
        }
        prop_assert_eq!(states.last().copied().unwrap_or(JobState::Running), view.state());
    }

    #[test]
    fn a_cut_takes_back(history in any_history(30), picks in proptest::collection::vec(any::<u8>(), 40), n in 0..AUTHORS, from in 1_u64..8) {
        let mut state = fold(&interleave(&history, &picks));
        let end = (from > 1).then(|| Head { seq: Seq(from - 1), hash: entry(n, from - 1, 0, &[]).hash });
        let has_some = history.iter().any(|written| written.author == n && written.seq >= from);
        let replay = state.cut(author(n), end, &mut Outbox::new());
        prop_assert_eq!(replay == Replay::Needed, has_some);
        // The log has dropped the rest; that it might not have makes no difference.
        apply_all(&mut state, &history);
        let kept: Vec<_> = history.iter().filter(|written| written.author != n || written.seq < from).cloned().collect();
        let mut other = fold(&kept);
        let _ = other.cut(author(n), end, &mut Outbox::new());
        assert_same(&state, &other);
    }

    #[test]
    fn snapshots_return(history in any_history(30), place: prop::sample::Index) {
        let state = fold(&history);
        let bytes = state.snapshot();
        let mut restored = State::new();
        restored.restore(&bytes).unwrap();
        restored.check_invariants();
        assert_same(&state, &restored);
        let mut bad = bytes.clone();
        bad[place.index(bytes.len())] ^= 1;
        prop_assert!(restored.restore(&bad).is_err());
        assert_same(&state, &restored);
    }

    #[test]
    fn any_payload_is_taken_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut state = State::new();
        state.apply(&entry(0, 1, 1, &payload), &mut Outbox::new());
        state.check_invariants();
    }

    #[test]
    fn an_operation_with_one_bit_changed_is_another_or_none(operation in any_operation(), place: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = operation.encode().unwrap();
        prop_assert_eq!(Operation::decode(&bytes), Ok(operation.clone()));
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Operation::decode(&bytes) {
            prop_assert_ne!(&other, &operation);
            prop_assert_eq!(other.encode(), Ok(bytes));
        }
    }
}

fn submit() -> Written {
    Written { author: 0, seq: 1, step: 1, payload: Operation::Submit(spec().encode()).encode().unwrap() }
}

#[test]
fn who_does_not_drive_cannot_commit() {
    let hashes = inputs([0, 0], 0);
    let commits = vec![commit(TaskRef::new(0, 0), hashes[0], Some(1))];
    let payload = Operation::Commit { job: job(), round: 0, commits }.encode().unwrap();
    let mut state = fold(&[submit(), Written { author: 1, seq: 1, step: 2, payload: payload.clone() }]);
    assert_eq!(state.job(&job()).unwrap().task(TaskRef::new(0, 0)), Some(TaskState::Ready));
    let lease = Operation::Lease { is_taken: true, steps: 10, jobs: vec![job()] }.encode().unwrap();
    apply_all(
        &mut state,
        &[
            Written { author: 1, seq: 2, step: 2, payload: lease },
            Written { author: 1, seq: 3, step: 2, payload },
        ],
    );
    let view = state.job(&job()).unwrap();
    assert_eq!(view.task(TaskRef::new(0, 0)), Some(TaskState::Succeeded));
    assert_eq!(view.holder().node, author(1));
}

#[test]
fn a_late_commit_that_comes_first_in_the_order_takes_what_follows_with_it() {
    let one = inputs([1, 1], 1);
    let make = |task: TaskRef, inputs: Hash, output: u8, seq: u64, step: u64| Written {
        author: 0,
        seq,
        step,
        payload: Operation::Commit {
            job: job(),
            round: 0,
            commits: vec![commit(task, inputs, Some(output))],
        }
        .encode()
        .unwrap(),
    };
    let mut state = fold(&[
        submit(),
        make(TaskRef::new(0, 0), one[0], 1, 2, 5),
        make(TaskRef::new(0, 1), one[1], 1, 3, 5),
        make(TaskRef::new(1, 0), one[2], 1, 4, 6),
        make(TaskRef::new(2, 0), one[3], 1, 5, 7),
    ]);
    assert_eq!(state.job(&job()).unwrap().state(), JobState::Succeeded);
    // Another driver, on an island: earlier, and with another result.
    let lease = Operation::Lease { is_taken: true, steps: 10, jobs: vec![job()] }.encode().unwrap();
    let late = make(TaskRef::new(0, 1), one[1], 0, 2, 4);
    apply_all(
        &mut state,
        &[Written { author: 1, seq: 1, step: 4, payload: lease }, Written { author: 1, ..late }],
    );
    let view = state.job(&job()).unwrap();
    assert_eq!(view.output(TaskRef::new(0, 1)), Some(BlobRef::of(&[0])));
    assert_eq!(view.task(TaskRef::new(1, 0)), Some(TaskState::Ready), "it had read the other result");
    assert_eq!(view.task(TaskRef::new(2, 0)), Some(TaskState::Pending));
    assert_eq!(view.state(), JobState::Running);
}

#[test]
fn a_job_that_makes_no_sense_is_refused_by_all() {
    let mut spec = spec();
    spec.tasks[0].sources = vec![Source::Task(2)];
    let payload = Operation::Submit(spec.encode()).encode().unwrap();
    let mut state = State::new();
    assert_eq!(state.apply(&entry(0, 1, 1, &payload), &mut Outbox::new()), Applied::Refused("cycle"));
    assert_eq!(state.jobs().count(), 0);
    assert_eq!(state.apply(&entry(0, 2, 1, &[0x80]), &mut Outbox::new()), Applied::Refused("truncated"));
}

#[test]
fn jobs_that_have_ended_are_forgotten_below_the_floor() {
    let finish = Operation::Finish { job: job(), round: 0 }.encode().unwrap();
    let mut state = fold(&[submit(), Written { author: 0, seq: 2, step: 9, payload: finish }]);
    let mut out = Outbox::new();
    state.compact(Step(9), &mut out);
    assert!(out.is_empty());
    state.compact(Step(10), &mut out);
    assert_eq!(out.as_slice(), [Change::Forgotten(job())]);
    assert_eq!(state.jobs().count(), 0);
    assert_eq!(state.apply(&entry(0, 1, 1, &submit().payload), &mut Outbox::new()), Applied::BelowFloor);
}
