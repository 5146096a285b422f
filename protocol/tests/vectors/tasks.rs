//! `task_keys.json`

use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::ledger::State;
use omnimesh_protocol::compute::{JobId, TaskKey, TaskRef};
use serde::{Deserialize, Serialize};

use crate::registry::{self, Log};
use crate::specs::{
    Blob, OMIT, SKIP, Source, action, blob, chunks, commits, failure, fallback, groups, input, job_id,
    numbers, sources, spec, submit, success, task,
};
use crate::{Hex, Num, cbor, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    job: Hex,
    task: u16,
    chunk: u32,
    stage: u8,
    slots: Vec<Slot>,
    inputs: Hex,
    key: Hex,
}

/// A part of an input, or outputs of a task.
#[derive(Clone, Serialize, Deserialize, Default)]
pub(crate) struct Slot {
    hash: Option<Hex>,
    size: Option<Num>,
    from: Option<Num>,
    to: Option<Num>,
    align: Option<u64>,
    /// In order; null for what was skipped.
    outputs: Option<Vec<Option<Output>>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Output {
    hash: Hex,
    size: Num,
}

impl Slot {
    fn item(&self) -> Vec<u8> {
        let uint = |number: Option<Num>| cbor::uint(number.unwrap().0);
        match &self.outputs {
            Some(outputs) => {
                let outputs = outputs.iter().map(|output| match output {
                    Some(output) => cbor::array(&[cbor::bytes(&output.hash.0), cbor::uint(output.size.0)]),
                    None => cbor::NULL.to_vec(),
                });
                let outputs = cbor::array(&outputs.collect::<Vec<_>>());
                let digest = blake3::derive_key("omnimesh 2026-11 task outputs", &outputs);
                cbor::array(&[cbor::uint(1), cbor::bytes(digest)])
            }
            None => cbor::array(&[
                cbor::uint(0),
                cbor::bytes(&self.hash.as_ref().unwrap().0),
                uint(self.size),
                uint(self.from),
                uint(self.to),
                cbor::uint(self.align.unwrap()),
            ]),
        }
    }
}

pub(crate) fn part(blob: Blob, from: u64, to: u64, align: u64) -> Slot {
    Slot {
        hash: Some(blob.hash.into()),
        size: Some(Num(blob.size)),
        from: Some(Num(from)),
        to: Some(Num(to)),
        align: Some(align),
        outputs: None,
    }
}

pub(crate) fn whole(blob: Blob) -> Slot {
    part(blob, 0, blob.size, 0)
}

pub(crate) fn outputs(outputs: &[Option<Blob>]) -> Slot {
    let output = |blob: &Blob| Output { hash: blob.hash.into(), size: Num(blob.size) };
    Slot { outputs: Some(outputs.iter().map(|blob| blob.as_ref().map(output)).collect()), ..Slot::default() }
}

/// As the document says it.
pub(crate) fn inputs(slots: &[Slot]) -> [u8; 32] {
    let slots = cbor::array(&slots.iter().map(Slot::item).collect::<Vec<_>>());
    blake3::derive_key("omnimesh 2026-11 task inputs", &slots)
}

fn key(job: &[u8], task: u16, chunk: u32, stage: u8, inputs: &[u8]) -> [u8; 32] {
    let key = [job, &task.to_le_bytes(), &chunk.to_le_bytes(), &[stage], inputs].concat();
    blake3::derive_key("omnimesh 2026-11 task key", &key)
}

const TEXT: Blob = blob(1, 25);
const VAST: Blob = blob(2, u64::MAX);
const EMPTY: Blob = blob(3, 0);
const COUNTED: [Option<Blob>; 3] = [Some(blob(0x11, 100)), None, Some(blob(0x13, 0))];
const MERGED: [Option<Blob>; 2] = [Some(blob(0x21, 1 << 40)), Some(blob(0x22, 7))];

/// A job in which tasks read all that tasks can.
fn job() -> Vec<u8> {
    let tasks = [
        task("count", "hash", |task| {
            task.each = chunks(0, 10, 1);
            task.on_failure = SKIP.to_vec();
        }),
        task("merge", "concat", |task| {
            task.each = groups(0, 2);
            task.when_missing = OMIT.to_vec();
        }),
        task("total", "concat", |task| {
            task.sources = sources(&[Source::Task(1), Source::Input(0), Source::Task(0)]);
            task.when_missing = OMIT.to_vec();
            task.on_failure = fallback(action("hash", None, &[]));
        }),
        task("vast", "analyze", |task| task.each = chunks(1, 1 << 63, 2)),
        task("empty", "hash", |task| {
            task.each = chunks(2, 10, 0);
            task.sources = sources(&[Source::Input(2), Source::Input(1)]);
        }),
        task("nothing", "pattern", |task| task.after = numbers(&[4])),
        task("twice", "hash", |task| {
            task.each = groups(4, 1);
            task.sources = sources(&[Source::Task(4)]);
        }),
    ];
    spec(&[input("t", TEXT), input("v", VAST), input("e", EMPTY)], &tasks).bytes()
}

fn cases() -> Vec<Case> {
    let spec = job();
    let job = job_id(&[1; 32], &spec);
    let counted = [(0, 10), (10, 20), (20, 25)].map(|(from, to)| part(TEXT, from, to, 1));
    let merged = [&COUNTED[..2], &COUNTED[2..]].map(|read| vec![outputs(read)]);
    let emptied = vec![part(EMPTY, 0, 0, 0), whole(EMPTY), whole(VAST)];
    let digest = outputs(&[Some(EMPTY)]);
    let half = 1 << 63;
    let tasks: Vec<(&str, u16, u32, u8, Vec<Slot>)> = vec![
        ("the first chunk of lines", 0, 0, 0, vec![counted[0].clone()]),
        ("the last, shorter chunk of lines", 0, 2, 0, vec![counted[2].clone()]),
        ("a group of two outputs, of which one was skipped", 1, 0, 0, merged[0].clone()),
        ("the last, shorter group", 1, 1, 0, merged[1].clone()),
        (
            "all outputs of two tasks, and an input between them",
            2,
            0,
            0,
            vec![outputs(&MERGED), whole(TEXT), outputs(&COUNTED)],
        ),
        (
            "its fallback: the same inputs, another key",
            2,
            0,
            1,
            vec![outputs(&MERGED), whole(TEXT), outputs(&COUNTED)],
        ),
        ("the first row groups", 3, 0, 0, vec![part(VAST, 0, half, 2)]),
        ("the last row groups: numbers of 64 bits", 3, 1, 0, vec![part(VAST, half, u64::MAX, 2)]),
        ("the one chunk of an empty input, and whole inputs behind it", 4, 0, 0, emptied.clone()),
        ("nothing; what it only waits for is not read", 5, 0, 0, vec![]),
        ("the same outputs twice: a group of all, and all", 6, 0, 0, vec![digest.clone(), digest]),
    ];
    let mut log = Log::new(1);
    let mut state = State::new();
    let mut write = |payload| registry::apply(&mut state, &mut log.entry(1000, "job", payload));
    write(submit(&spec));
    let chunk = |chunk: usize| inputs(&counted[chunk..=chunk]);
    let [one, two] = [0, 2].map(|at| success(0, at as u64, chunk(at), COUNTED[at].unwrap()));
    write(commits(job, 0, &[one, two, failure(0, 1, chunk(1))]));
    let merged: Vec<_> = (0..)
        .zip(MERGED)
        .map(|(at, output)| success(1, at as u64, inputs(&merged[at]), output.unwrap()))
        .collect();
    write(commits(job, 0, &merged));
    write(commits(job, 0, &[success(4, 0, inputs(&emptied), EMPTY)]));
    let view = state.job(&JobId::from_bytes(job)).unwrap();
    let case = |(comment, task, chunk, stage, slots): (&str, u16, u32, u8, Vec<Slot>)| {
        let inputs = inputs(&slots);
        Case {
            comment: comment.to_owned(),
            job: job.into(),
            task,
            chunk,
            stage,
            slots,
            inputs: inputs.into(),
            key: key(&job, task, chunk, stage, &inputs).into(),
        }
    };
    let mut cases: Vec<_> = tasks.into_iter().map(case).collect();
    // What the ledger makes of the job is what the slots say.
    for case in &cases {
        let found = view.inputs(TaskRef::new(case.task, case.chunk));
        assert_eq!(found, Some(Hash::from_bytes(case.inputs.array())), "{}", case.comment);
    }
    cases.push(case(("the largest numbers", u16::MAX, u32::MAX, 1, vec![])));
    cases
}

#[test]
fn task_keys() {
    let description = "Tasks of jobs (section 22): what they read, the digest of that, and their keys. A slot is a part of an input, or \
                       `outputs` of a task, with null for one that was skipped.";
    for case in settle("task_keys.json", description, cases()) {
        assert_eq!(case.inputs, inputs(&case.slots).into(), "{}", case.comment);
        let task = TaskRef::new(case.task, case.chunk);
        let found = TaskKey::of(
            &JobId::from_bytes(case.job.array()),
            task,
            case.stage,
            &Hash::from_bytes(case.inputs.array()),
        );
        assert_eq!(case.key, found.as_bytes().into(), "{}", case.comment);
        assert_eq!(case.key, key(&case.job.0, case.task, case.chunk, case.stage, &case.inputs.0).into());
    }
}
