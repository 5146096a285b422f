//! `job_ledgers.json`

use omnimesh_protocol::compute::ledger::{JobView, State};
use omnimesh_protocol::projection::{Head, Projection, Replay};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
use serde::{Deserialize, Serialize};

use crate::registry::{self, EntryCase, Log};
use crate::specs::{
    Blob, Commit, OMIT, SKIP, Source, action, blob, cancel, chunks, commits, failure, fallback, finish,
    groups, input, job_id, lease, numbers, retry, sources, spec, submit, success, task,
};
use crate::tasks::{inputs, outputs, part, whole};
use crate::{Hex, Num, cbor, settle};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Case {
    comment: String,
    cut_author: Option<Hex>,
    cut_seq: Option<Num>,
    cut_hash: Option<Hex>,
    entries: Vec<EntryCase>,
    compact: Option<Num>,
    jobs: Vec<JobCase>,
    hash: Hex,
    snapshot: Hex,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct JobCase {
    id: Hex,
    state: String,
    round: u32,
    /// Why it was cancelled in this round.
    cancelled: Option<Num>,
    is_finished: bool,
    driver: Hex,
    /// When its lease ends.
    until: Num,
    /// The nodes 1 to 3, in the order in which they would take the job if it were nobody's.
    line: Vec<Hex>,
    results: Vec<TaskCase>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct TaskCase {
    task: u16,
    chunk: u32,
    state: String,
    /// What it reads, once that is known.
    inputs: Option<Hex>,
    /// The entry with the commit that counts.
    author: Option<Hex>,
    seq: Option<Num>,
}

fn job_case(view: &JobView<'_>) -> JobCase {
    let results = view.plan().tasks().map(|task| {
        let stamp = view.record(task).map(|record| record.stamp);
        TaskCase {
            task: task.task,
            chunk: task.chunk,
            state: view.task(task).unwrap().code().to_owned(),
            inputs: view.inputs(task).map(|inputs| inputs.as_bytes().into()),
            author: stamp.map(|stamp| stamp.author.as_bytes().into()),
            seq: stamp.map(|stamp| Num(stamp.seq.0)),
        }
    });
    let mut line = [1, 2, 3].map(|node| NodeId::from_bytes([node; 32]));
    line.sort_by_key(|node| std::cmp::Reverse((*node == view.submitter(), view.id().rendezvous(node))));
    JobCase {
        id: view.id().as_bytes().into(),
        state: view.state().code().to_owned(),
        round: view.round(),
        cancelled: view.cancelled().map(|(reason, _)| Num(reason.number())),
        is_finished: view.is_finished(),
        driver: view.holder().node.as_bytes().into(),
        until: Num(view.holder().until.0),
        line: line.iter().map(|node| node.as_bytes().into()).collect(),
        results: results.collect(),
    }
}

/// A history, and what was done to the ledger beside it.
struct Given {
    comment: &'static str,
    entries: Vec<EntryCase>,
    cut: Option<(u8, u64)>,
    compact: Option<u64>,
}

fn given(comment: &'static str, entries: Vec<EntryCase>) -> Given {
    Given { comment, entries, cut: None, compact: None }
}

fn fold(given: Given) -> Case {
    let Given { comment, mut entries, cut, compact } = given;
    let mut state = State::new();
    let cut = cut.map(|(author, seq)| {
        let end = Head { seq: Seq(seq), hash: Hash::of(&[author, u8::try_from(seq).unwrap()]) };
        (NodeId::from_bytes([author; 32]), end)
    });
    if let Some((author, end)) = cut {
        assert_eq!(state.cut(author, Some(end), &mut Outbox::new()), Replay::NotNeeded);
    }
    entries.iter_mut().for_each(|entry| registry::apply(&mut state, entry));
    if let Some(floor) = compact {
        state.compact(Step(floor), &mut Outbox::new());
    }
    state.check_invariants();
    Case {
        comment: comment.to_owned(),
        cut_author: cut.map(|(author, _)| author.as_bytes().into()),
        cut_seq: cut.map(|(_, end)| Num(end.seq.0)),
        cut_hash: cut.map(|(_, end)| end.hash.as_bytes().into()),
        entries,
        compact: compact.map(Num),
        jobs: state.jobs().map(|view| job_case(&view)).collect(),
        hash: state.hash().as_bytes().into(),
        snapshot: state.snapshot().into(),
    }
}

const TEXT: Blob = blob(1, 25);
const A: [u8; 32] = [1; 32];

/// Three chunks, two pairs of those, a total with a fallback, and what comes after it without reading it.
fn words() -> Vec<u8> {
    let tasks = [
        task("map", "hash", |task| {
            task.each = chunks(0, 10, 0);
            task.on_failure = SKIP.to_vec();
        }),
        task("pair", "concat", |task| {
            task.each = groups(0, 2);
            task.when_missing = OMIT.to_vec();
        }),
        task("total", "concat", |task| {
            task.sources = sources(&[Source::Task(1)]);
            task.on_failure = fallback(action("hash", None, &[]));
        }),
        task("note", "pattern", |task| task.after = numbers(&[2])),
    ];
    spec(&[input("t", TEXT)], &tasks).bytes()
}

/// What the tasks of `words` read.
fn chunk(place: u64) -> [u8; 32] {
    inputs(&[part(TEXT, place * 10, TEXT.size.min((place + 1) * 10), 0)])
}

fn of(blobs: &[Option<Blob>]) -> [u8; 32] {
    inputs(&[outputs(blobs)])
}

/// Two chunks, and one task that reads what comes of both.
fn pair() -> Vec<u8> {
    let tasks = [
        task("a", "hash", |task| task.each = chunks(0, 15, 0)),
        task("b", "concat", |task| task.each = groups(0, 2)),
    ];
    spec(&[input("t", TEXT)], &tasks).bytes()
}

/// The inputs of the two chunks.
fn halves() -> [[u8; 32]; 2] {
    [inputs(&[part(TEXT, 0, 15, 0)]), inputs(&[part(TEXT, 15, 25, 0)])]
}

/// A task with a fallback, and what comes after it without reading it.
fn careful() -> Vec<u8> {
    let tasks = [
        task("a", "hash", |task| {
            task.sources = sources(&[Source::Input(0)]);
            task.on_failure = fallback(action("concat", None, &[]));
        }),
        task("b", "pattern", |task| task.after = numbers(&[0])),
    ];
    spec(&[input("t", TEXT)], &tasks).bytes()
}

/// One task that reads an input.
fn single() -> Vec<u8> {
    let task = task("a", "hash", |task| task.sources = sources(&[Source::Input(0)]));
    spec(&[input("t", TEXT)], &[task]).bytes()
}

/// The inputs of what reads all of it.
fn all() -> [u8; 32] {
    inputs(&[whole(TEXT)])
}

const fn out(byte: u8) -> Blob {
    blob(byte, byte as u64)
}

/// The log of an author, of which all entries are operations.
struct Writer(Log);

impl Writer {
    fn at(&mut self, step: u64, payload: Vec<u8>) -> EntryCase {
        self.0.entry(step, "job", payload)
    }
}

fn writers() -> [Writer; 3] {
    [1, 2, 3].map(|author| Writer(Log::new(author)))
}

/// The log of an author that goes on behind so many entries.
fn later(author: u8, entries: u64) -> Writer {
    let mut log = Writer(Log::new(author));
    (0..entries).for_each(|_| drop(log.at(0, Vec::new())));
    log
}

/// A job by its submitter alone, to its end.
fn alone() -> Vec<EntryCase> {
    let job = job_id(&A, &words());
    let [mut a, ..] = writers();
    let [one, two, three, pair, rest, total] = [0x11, 0x12, 0x13, 0x21, 0x22, 0x31].map(out);
    let map = [one, two, three];
    let map: Vec<_> = (0..).zip(map).map(|(at, output)| success(0, at, chunk(at), output)).collect();
    let pairs = [success(1, 0, of(&[Some(one), Some(two)]), pair), success(1, 1, of(&[Some(three)]), rest)];
    let total = success(2, 0, of(&[Some(pair), Some(rest)]), total);
    vec![
        a.at(10, submit(&words())),
        a.at(10, commits(job, 0, &map)),
        a.at(11, lease(false, 120, &[job])),
        a.at(12, commits(job, 0, &pairs)),
        a.at(12, commits(job, 0, &[total])),
        a.at(13, commits(job, 0, &[success(3, 0, inputs(&[]), out(0x41))])),
        a.at(14, finish(job, 0)),
    ]
}

/// Two drivers at once, and a third that takes over from both: logs by author.
fn rivals() -> [Vec<EntryCase>; 3] {
    let job = job_id(&A, &pair());
    let [mut a, mut b, mut c] = writers();
    let commit = |commit: Commit| commits(job, 0, &[commit]);
    let [one, other_one, two, other_two] = [0x11, 0x91, 0x12, 0x92].map(out);
    let [first_half, second_half] = halves();
    let first = vec![
        a.at(10, submit(&pair())),
        a.at(11, commit(success(0, 0, first_half, one))),
        // Later than that of the other.
        a.at(20, commit(success(0, 1, second_half, two))),
        // So this has read what does not count.
        a.at(21, commit(success(1, 0, of(&[Some(one), Some(two)]), out(0x21)))),
        a.at(22, lease(true, 60, &[job])),
    ];
    let differing = success(0, 0, first_half, other_one).with(|commit| commit.dissenters = vec![1, 0x21]);
    let second = vec![
        b.at(15, lease(true, 60, &[job])),
        b.at(16, commit(differing)),
        b.at(17, commit(success(0, 1, second_half, other_two))),
        b.at(19, commit(success(1, 0, of(&[Some(one), Some(other_two)]), out(0x22)))),
    ];
    // In the same step as the first: the higher author is the later.
    let third = vec![c.at(22, lease(true, 10, &[job]))];
    [first, second, third]
}

/// Whatever the order, but for each author's own, the ledger is the same.
fn drivers() -> Vec<Given> {
    let [first, second, third] = rivals();
    let in_turn = [first.clone(), second.clone(), third.clone()].concat();
    let other = [&third, &second, &first, &first[1..3]].concat();
    let mixed = [&first[..1], &second[..2], &first[1..3], &third, &second[2..], &first[3..]].concat();
    let [one, two, three] = [&in_turn, &other, &mixed].map(|entries| fold(given("", entries.clone())));
    assert_eq!((&one.hash, &one.snapshot), (&two.hash, &two.snapshot));
    assert_eq!((&one.hash, &one.snapshot), (&three.hash, &three.snapshot));
    let job = job_id(&A, &single());
    let [mut a, mut b, mut c] = writers();
    let again = vec![
        a.at(10, submit(&single())),
        b.at(11, lease(true, 60, &[job])),
        c.at(12, lease(true, 60, &[job])),
        b.at(13, lease(true, 60, &[job])),
    ];
    vec![
        given("two drivers at once, and two that take over in the same step", in_turn),
        given("the same, with the submission last, and some of it twice", other),
        given("taken by one, by another, and by the first again", again),
    ]
}

/// Who may write what.
fn rights() -> Vec<Given> {
    let job = job_id(&A, &single());
    let done = |byte| commits(job, 0, &[success(0, 0, all(), out(byte))]);
    let early = {
        let [mut a, _, mut c] = writers();
        vec![
            a.at(10, submit(&single())),
            c.at(11, done(0x11)),
            c.at(12, finish(job, 0)),
            c.at(12, lease(true, 30, &[job])),
        ]
    };
    let renewed = {
        let [mut a, mut b, _] = writers();
        vec![a.at(10, submit(&single())), b.at(11, lease(false, 300, &[job])), b.at(12, done(0x11))]
    };
    let late = [&early[..], &[later(3, 3).at(13, done(0x12))]].concat();
    let before = {
        let [mut a, _, mut c] = writers();
        vec![
            c.at(9, done(0x11)),
            c.at(9, lease(true, 3, &[job])),
            c.at(9, done(0x12)),
            a.at(10, submit(&single())),
        ]
    };
    let unknown = {
        let [mut a, mut b, _] = writers();
        vec![
            a.at(10, lease(true, 5, &[[0x77; 32], job, [0x77; 32]])),
            a.at(11, commits(job, 2, &[success(9, 9, [9; 32], out(9))])),
            a.at(12, commits([0x78; 32], 0, &[success(0, 0, all(), out(9))])),
            b.at(12, cancel(job, 0, 2, "quota")),
            b.at(13, retry(job, 1)),
            b.at(14, finish(job, 0)),
        ]
    };
    let twice = {
        let [mut a, mut b, mut c] = writers();
        vec![
            a.at(10, submit(&single())),
            b.at(10, submit(&single())),
            a.at(50, submit(&single())),
            c.at(u64::MAX, lease(false, 3600, &[job])),
        ]
    };
    vec![
        given("written by one who has not taken the job yet: no effect, also later", early),
        given("what comes after that it took the job counts", late.clone()),
        Given { cut: Some((3, 3)), ..given("its log is cut before that", late) },
        given("to renew is not to take", renewed),
        given("taken and done before the job was submitted", before),
        given("jobs that were never submitted", unknown),
        given("the same spec twice by one author, and by another; a lease at the last step", twice),
    ]
}

/// Retries, cancellations, failures.
fn rounds() -> Vec<Given> {
    let job = job_id(&A, &single());
    let fails = |round| commits(job, round, &[failure(0, 0, all())]);
    let [mut a, mut b, mut c] = writers();
    let failed = vec![a.at(10, submit(&single())), a.at(11, fails(0))];
    let done =
        [b.at(15, lease(true, 60, &[job])), b.at(16, commits(job, 0, &[success(0, 0, all(), out(0x11))]))];
    let retried = [c.at(12, retry(job, 1)), c.at(12, retry(job, 3)), c.at(13, retry(job, 1))];
    let again = [a.at(14, fails(1)), a.at(14, finish(job, 1))];
    let [_, mut b, mut c] = writers();
    let cancelled = [
        c.at(12, cancel(job, 0, 0, "enough")),
        b.at(12, cancel(job, 0, 1, "too late")),
        c.at(12, cancel(job, 1, 2, "for later")),
    ];
    let then = [c.at(13, retry(job, 2)), c.at(14, retry(job, 1)), b.at(14, cancel(job, 2, 3, ""))];
    let out_of_range = {
        let [mut a, _, _] = writers();
        vec![
            a.at(10, submit(&single())),
            a.at(11, retry(job, 0)),
            a.at(11, retry(job, 1001)),
            a.at(11, cancel(job, 1001, 0, "")),
            a.at(11, finish(job, 1001)),
            a.at(12, retry(job, 1000)),
            a.at(12, cancel(job, 1000, 0, "")),
            a.at(12, finish(job, 1000)),
            a.at(12, commits(job, 1000, &[failure(0, 0, all())])),
            a.at(13, commits(job, 1001, &[success(0, 0, all(), out(9))])),
        ]
    };
    let only = |end: &[EntryCase]| [&failed[..1], end].concat();
    let and = |end: &[EntryCase]| [&failed[..], end].concat();
    let ended = [
        later(1, 1).at(11, commits(job, 0, &[success(0, 0, all(), out(0x11))])),
        later(3, 0).at(12, cancel(job, 0, 1, "")),
    ];
    vec![
        given("a failure", failed.clone()),
        given("a failure, and a later success by another driver", and(&done)),
        given("a failure, and a retry by anybody; one of round 3 without one of round 2", and(&retried)),
        given("a failure in each of two rounds, and the end", and(&[&retried[..], &again].concat())),
        given("cancelled by two in the same step: the lower author is the first", only(&cancelled)),
        given("cancelled, and a task had failed", and(&cancelled)),
        given("cancelled, two retries, the second first, and cancelled for a new reason", {
            only(&[&cancelled[..], &then].concat())
        }),
        given("cancelled when all tasks had ended", only(&ended)),
        given("rounds that are out of range, and just within", out_of_range),
    ]
}

/// What is skipped, falls back, or waits.
fn flow() -> Vec<Given> {
    let job = job_id(&A, &words());
    let [mut a, ..] = writers();
    let map = [success(0, 0, chunk(0), out(0x11)), failure(0, 1, chunk(1)), failure(0, 2, chunk(2))];
    let pair = success(1, 0, of(&[Some(out(0x11)), None]), out(0x21));
    // Nothing is left of its group, so this does not count.
    let rest = success(1, 1, of(&[None]), out(0x22));
    let skipped = vec![
        a.at(10, submit(&words())),
        a.at(11, commits(job, 0, &map)),
        a.at(12, commits(job, 0, &[pair, rest])),
    ];
    let early = {
        let job = job_id(&A, &careful());
        let [mut a, ..] = writers();
        let next = success(1, 0, inputs(&[]), out(0x41));
        vec![a.at(10, submit(&careful())), a.at(11, commits(job, 0, &[next]))]
    };
    let with_input = {
        let tasks = [
            task("a", "hash", |task| {
                task.sources = sources(&[Source::Input(0)]);
                task.on_failure = SKIP.to_vec();
            }),
            task("b", "concat", |task| {
                task.sources = sources(&[Source::Task(0), Source::Input(0)]);
                task.when_missing = OMIT.to_vec();
            }),
        ];
        let spec = spec(&[input("t", TEXT)], &tasks).bytes();
        let job = job_id(&A, &spec);
        let [mut a, ..] = writers();
        let read = inputs(&[outputs(&[None]), whole(TEXT)]);
        let both = [failure(0, 0, all()), success(1, 0, read, out(0x11))];
        vec![a.at(10, submit(&spec)), a.at(11, commits(job, 0, &both))]
    };
    vec![
        given("a job, submitted", alone()[..1].to_vec()),
        given("a job, done by its submitter", alone()),
        given("what waits for another task counts only when that has ended", early),
        given("skipped: a group goes without, one has nothing left, and the total is skipped, too", skipped),
        given("skipped, and there is an input left to read", with_input),
    ]
}

/// Failures and successes at both stages of a task with a fallback, and of one without.
fn stages() -> Vec<Given> {
    let job = job_id(&A, &careful());
    let write = |log: &mut Writer, step, stage, commit: Commit| {
        log.at(step, commits(job, 0, &[commit.with(|commit| commit.stage = stage)]))
    };
    let good = || success(0, 0, all(), out(0x31));
    let bad = || failure(0, 0, all());
    let submitted = later(1, 0).at(10, submit(&careful()));
    let mut a = later(1, 1);
    let first = write(&mut a, 12, 0, bad());
    let hidden = write(&mut a, 12, 1, bad());
    let fails = write(&mut later(1, 1), 12, 1, bad());
    let succeeds = write(&mut later(1, 1), 12, 1, good());
    let [_, mut b, _] = writers();
    let other = [b.at(13, lease(true, 60, &[job])), write(&mut b, 14, 1, bad())];
    let with = |end: &[EntryCase]| [std::slice::from_ref(&submitted), end].concat();
    let without = {
        let job = job_id(&A, &single());
        let [mut a, ..] = writers();
        let both = [good(), bad()].map(|commit| commit.with(|commit| commit.stage = 1));
        vec![a.at(10, submit(&single())), a.at(11, commits(job, 0, &both))]
    };
    vec![
        given("a failure before the fallback does not count", with(std::slice::from_ref(&first))),
        given("a success of the fallback", with(&[succeeds])),
        given("a failure of the fallback", with(&[fails])),
        given("a failure before the fallback hides that of the fallback by the same author", {
            with(&[first.clone(), hidden.clone()])
        }),
        given("and not that by another", with(&[&[first, hidden], &other[..]].concat())),
        given("a stage that the task does not have", without),
    ]
}

/// What is kept, and in which order.
fn kept() -> Vec<Given> {
    let job = job_id(&A, &single());
    let good = |read, byte| success(0, 0, read, out(byte));
    let many = {
        let [mut a, mut b, _] = writers();
        let two_failures = [failure(0, 0, all()), failure(0, 0, all()).with(|commit| commit.cpu_ms = 11)];
        vec![
            a.at(10, submit(&single())),
            b.at(10, lease(true, 0, &[job])),
            // Three of one task in one entry, with different inputs; and of each only the first.
            a.at(11, commits(job, 0, &[good([7; 32], 1), good(all(), 2), good([6; 32], 3), good(all(), 4)])),
            a.at(12, commits(job, 0, &[good(all(), 5), good([5; 32], 6)])),
            b.at(11, commits(job, 0, &[good(all(), 7)])),
            b.at(12, commits(job, 4, &two_failures)),
            b.at(13, commits(job, 3, &two_failures)),
            // In another round.
            a.at(13, commits(job, 1, &[good(all(), 10)])),
            // Of no task of the job: not kept.
            b.at(14, commits(job, 0, &[success(1, 0, all(), out(8)), success(0, 1, all(), out(9))])),
        ]
    };
    // So many of one author, task and round, of which the last one has read what is to be read; all in one entry.
    let crowd = |count: u8| {
        let [mut a, ..] = writers();
        let last = |n| if n == count { all() } else { [n; 32] };
        let crowd: Vec<_> = (1..=count).map(|n| good(last(n), n)).collect();
        vec![a.at(10, submit(&single())), a.at(11, commits(job, 0, &crowd))]
    };
    let beyond = || crowd(17);
    let but = |end: &dyn Fn(&mut [Writer; 3]) -> EntryCase| {
        let mut writers = writers();
        writers[0] = later(1, 2);
        [beyond(), vec![end(&mut writers)]].concat()
    };
    // When they come, nobody knows what the job has.
    let early = {
        let [mut a, mut b, _] = writers();
        let wrong = [success(0, 1, all(), out(0x21)), success(1, 0, all(), out(0x22)), good(all(), 0x23)];
        vec![
            b.at(10, lease(true, 60, &[job])),
            b.at(11, commits(job, 0, &wrong)),
            a.at(10, submit(&single())),
        ]
    };
    let foreign = {
        let [mut a, mut b, mut c] = writers();
        vec![
            a.at(10, submit(&single())),
            a.0.entry(11, "log", submit(&words())),
            b.at(11, submit(b"")),
            c.at(11, b"no operation".to_vec()),
        ]
    };
    let finished = {
        let [mut a, mut b, _] = writers();
        vec![
            a.at(10, submit(&single())),
            a.at(11, commits(job, 0, &[good(all(), 1)])),
            a.at(14, finish(job, 0)),
            b.at(14, submit(&single())),
        ]
    };
    let retried = {
        let [mut a, ..] = writers();
        vec![
            a.at(10, submit(&single())),
            a.at(11, commits(job, 0, &[failure(0, 0, all())])),
            a.at(12, finish(job, 0)),
            a.at(13, retry(job, 1)),
        ]
    };
    let never = {
        let [_, mut b, _] = writers();
        vec![b.at(10, lease(true, 60, &[job])), b.at(11, finish(job, 0))]
    };
    let old = |comment, floor| Given { compact: Some(floor), ..given(comment, finished.clone()) };
    vec![
        given("nothing", vec![]),
        given("several commits of one task", many),
        given("sixteen commits of one task in one round, the last of which counts", crowd(16)),
        given("a seventeenth is not kept", beyond()),
        given("nor is it in a later entry", but(&|[a, ..]| a.at(12, commits(job, 0, &[good(all(), 20)])))),
        given("one of another round is", but(&|[a, ..]| a.at(12, commits(job, 1, &[good(all(), 20)])))),
        given("commits of tasks that the job does not have, before it was submitted", early),
        given("entries of another channel and refused payloads: only the heads tell of them", foreign),
        old("compacted at the step in which the first job was finished", 14),
        old("compacted one step later", 15),
        Given {
            compact: Some(20),
            ..given("finished in a round before the present one, and compacted", retried)
        },
        Given { compact: Some(20), ..given("never submitted, but finished, and compacted", never) },
    ]
}

fn cases() -> Vec<Case> {
    let lists = [kept(), flow(), rights(), rounds(), stages(), drivers()];
    lists.into_iter().flatten().map(fold).collect()
}

/// The hash as the document says it, of what the snapshot holds.
fn hash_of_snapshot(snapshot: &[u8]) -> Hex {
    let (body, check) = snapshot.split_last_chunk::<32>().unwrap();
    assert_eq!(*check, blake3::derive_key("omnimesh 2026-11 ledger snapshot", body));
    let digests = cbor::items(cbor::items(body)[4])
        .into_iter()
        .flat_map(|job| blake3::derive_key("omnimesh 2026-11 ledger job", job));
    blake3::derive_key("omnimesh 2026-11 ledger", &digests.collect::<Vec<_>>()).into()
}

fn line_of(job: &Hex, submitter: [u8; 32]) -> Vec<Hex> {
    let mut nodes = [1, 2, 3].map(|node| [node; 32]);
    let rank =
        |node: &[u8; 32]| blake3::derive_key("omnimesh 2026-11 job rendezvous", &[&job.0[..], node].concat());
    nodes.sort_by_key(|node| std::cmp::Reverse((*node == submitter, rank(node))));
    nodes.map(Hex::from).into()
}

#[test]
fn job_ledgers() {
    let description = "Entries of logs, in the order in which they came, and the ledger of jobs that they make. Where a log is cut it was \
                       cut before; `compact` is the floor, set after them. `results` are the tasks of a job, with the entry of which \
                       the commit counts. `line` is in which order nodes 1 to 3 (32 bytes each of `01` to `03`) would take the job.";
    for case in settle("job_ledgers.json", description, cases()) {
        assert_eq!(case.hash, hash_of_snapshot(&case.snapshot.0), "{}", case.comment);
        let mut state = State::new();
        state.restore(&case.snapshot.0).unwrap();
        let jobs: Vec<_> = state.jobs().map(|view| job_case(&view)).collect();
        assert_eq!(jobs, case.jobs, "{}", case.comment);
        assert_eq!(state.hash().as_bytes()[..], case.hash.0, "{}", case.comment);
        for (view, job) in state.jobs().zip(&case.jobs) {
            assert_eq!(line_of(&job.id, *view.submitter().as_bytes()), job.line);
        }
        let mut again = fold(Given {
            comment: "",
            entries: case.entries.clone(),
            cut: case.cut_author.as_ref().map(|author| (author.0[0], case.cut_seq.unwrap().0)),
            compact: case.compact.map(|floor| floor.0),
        });
        again.comment.clone_from(&case.comment);
        assert_eq!(again, case);
    }
}
