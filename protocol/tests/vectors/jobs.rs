//! `job_operations.json`

use std::collections::BTreeSet;

use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::job::{JobSpec, Plan, Quota};
use omnimesh_protocol::compute::ledger::{CATEGORY, Operation, State};
use omnimesh_protocol::projection::{EntryRef, Outcome, Projection};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
use serde::{Deserialize, Serialize};

use crate::job_specs::{self, least, most};
use crate::specs::{
    Commit, blob, cancel, commits, failed, failure, finish, job_id, lease, operation, retry, submit, success,
};
use crate::{GOOD, Hex, Listed, Piece, cbor, joined, settle};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Case {
    comment: String,
    author: Hex,
    /// Joined.
    payload: Vec<Piece>,
    /// `good` or the fault.
    outcome: String,
    /// The id, of a good submission.
    job: Option<Hex>,
}

const JOB: [u8; 32] = [0x4a; 32];

/// What the ledger says of a payload, and the job that there is then.
fn judge(author: [u8; 32], payload: &[u8]) -> (String, Option<JobId>) {
    let mut state = State::new();
    let entry = EntryRef {
        author: NodeId::from_bytes(author),
        seq: Seq(1),
        step: Step(1000),
        hash: Hash::of(b"entry"),
        category: CATEGORY,
        payload,
    };
    let outcome = match state.apply(&entry, &mut Outbox::new()) {
        Outcome::Applied => GOOD,
        Outcome::Refused(code) => code,
        other => panic!("{other:?}"),
    };
    (outcome.to_owned(), state.jobs().next().map(|job| job.id()))
}

fn case(comment: &str, author: u8, payload: Vec<Piece>, outcome: &str) -> Case {
    let (judged, job) = judge([author; 32], &joined(&payload));
    assert_eq!(judged, outcome, "{comment}");
    Case {
        comment: comment.to_owned(),
        author: [author; 32].into(),
        payload,
        outcome: judged,
        job: job.map(|job| job.as_bytes().into()),
    }
}

/// With each long run of one byte as a piece of its own.
fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        match pieces.last_mut() {
            _ if run.len() >= 64 => pieces.push(Piece { hex: [run[0]].into(), times: run.len() }),
            Some(last) if last.times == 1 => last.hex.0.extend_from_slice(run),
            _ => pieces.push(Piece::once(run)),
        }
    }
    if pieces.is_empty() { vec![Piece::once([])] } else { pieces }
}

fn commit() -> Commit {
    success(2, 70_000, [0x69; 32], blob(6, 300))
}

fn of_commit(change: impl FnOnce(&mut Commit)) -> Vec<u8> {
    commits(JOB, 0, &[commit().with(change)])
}

/// A commit of which one item is another.
fn of_commit_item(place: usize, item: Vec<u8>) -> Vec<u8> {
    let mut items = commit().items();
    items[place] = item;
    of_commit_items(&items)
}

fn of_commit_items(items: &[Vec<u8>]) -> Vec<u8> {
    operation(2, &[cbor::bytes(JOB), cbor::uint(0), cbor::array(&[cbor::array(items)])])
}

fn good_operations() -> Vec<Listed> {
    let failure = failure(65_535, u64::from(u32::MAX), [1; 32]).with(|commit| {
        commit.stage = 1;
        commit.outcome = failed(8, &"ü".repeat(100));
        (commit.workers, commit.dissenters) = (vec![], (1..=16).collect());
        (commit.cpu_ms, commit.wall_ms) = (u64::MAX, u64::MAX);
    });
    let outcomes = [commit(), failure, commit().with(|commit| commit.workers = (1..=16).collect())];
    vec![
        ("a submission of about the least that there is", submit(&least().bytes()), GOOD),
        ("a submission with one of everything", submit(&most().bytes()), GOOD),
        ("a lease, taken", lease(true, 120, &[JOB]), GOOD),
        ("a lease, renewed for the longest time, of two jobs", lease(false, 3600, &[JOB, [7; 32]]), GOOD),
        ("a lease for no time", lease(false, 0, &[JOB]), GOOD),
        ("a commit of a success", commits(JOB, 0, &[commit()]), GOOD),
        ("three commits, within all bounds", commits(JOB, u64::from(u32::MAX), &outcomes), GOOD),
        (
            "a failure for a reason of a later version",
            of_commit(|commit| commit.outcome = failed(14, "")),
            GOOD,
        ),
        ("a cancellation", cancel(JOB, 1, 0, "enough"), GOOD),
        (
            "a cancellation for a reason of a later version, with the longest text",
            cancel(JOB, 0, u64::MAX, &"x".repeat(200)),
            GOOD,
        ),
        ("a retry", retry(JOB, 1), GOOD),
        ("a retry that begins round 0, which has no effect", retry(JOB, 0), GOOD),
        ("a finish", finish(JOB, u64::from(u32::MAX)), GOOD),
    ]
}

fn bad_operations() -> Vec<Listed> {
    let (malformed, truncated) = ("malformed", "truncated");
    let good = submit(&least().bytes());
    let many = |jobs| operation(1, &[cbor::TRUE.to_vec(), cbor::uint(1), jobs]);
    let wide = 1 << 32;
    let mut indefinite = vec![0x83, 1, 0, 0x5f];
    indefinite.extend([cbor::bytes(least().bytes()), vec![0xff]].concat());
    vec![
        ("no bytes", vec![], truncated),
        ("49,153 bytes", vec![0; 49_153], "too_large"),
        ("49,152 bytes", vec![0; 49_152], malformed),
        ("a map", vec![0xa1, 1, 2], malformed),
        ("an empty array", vec![0x80], truncated),
        ("version 2", vec![0x81, 2], "unknown_version"),
        ("version 0", vec![0x83, 0, 0, 0x40], "unknown_version"),
        ("a negative version", vec![0x81, 0x20], malformed),
        ("version in two bytes", vec![0x82, 0x18, 1, 6], "not_canonical"),
        ("a version and no more", vec![0x81, 1], truncated),
        ("operation 6", vec![0x82, 1, 6], "unknown_operation"),
        ("operation 2^64 - 1", [vec![0x82, 1], cbor::uint(u64::MAX)].concat(), "unknown_operation"),
        ("a negative operation", vec![0x82, 1, 0x20], malformed),
        ("a submission without a spec", vec![0x82, 1, 0], malformed),
        ("an item too many", vec![0x84, 1, 0, 0x40, 0], malformed),
        ("text for the spec", operation(0, &[cbor::text("x")]), malformed),
        ("a spec in pieces", indefinite, "not_canonical"),
        ("cut", good[..good.len() - 1].to_vec(), truncated),
        ("a byte more", [good, vec![0]].concat(), "trailing_bytes"),
        ("a byte more, behind a spec that is none", [submit(b""), vec![0]].concat(), "trailing_bytes"),
        (
            "a number for whether the lease is taken",
            operation(1, &[cbor::uint(1), cbor::uint(1), cbor::array(&[cbor::bytes(JOB)])]),
            malformed,
        ),
        ("a lease that is too long", lease(true, 3601, &[JOB]), malformed),
        ("a lease of no jobs", lease(true, 1, &[]), malformed),
        ("a job of 31 bytes", many(cbor::array(&[cbor::bytes([1; 31])])), malformed),
        ("a job of 33 bytes", many(cbor::array(&[cbor::bytes([1; 33])])), malformed),
        ("text for a job", many(cbor::array(&[cbor::text([b'a'; 32])])), malformed),
        ("jobs that claim to be 2^64 - 1", many(cbor::head(4, u64::MAX)), truncated),
        ("no commits", commits(JOB, 0, &[]), malformed),
        ("a commit in a round of 33 bits", commits(JOB, wide, &[commit()]), "bad_number"),
        ("a cancellation of a round of 33 bits", cancel(JOB, wide, 0, ""), "bad_number"),
        ("a retry of a round of 33 bits", retry(JOB, wide), "bad_number"),
        ("a finish of a round of 33 bits", finish(JOB, wide), "bad_number"),
        ("a cancellation with a text of 201 bytes", cancel(JOB, 0, 0, &"x".repeat(201)), malformed),
        (
            "a cancellation with a text that is not UTF-8",
            operation(3, &[cbor::bytes(JOB), cbor::uint(0), cbor::uint(0), cbor::text([0xff])]),
            malformed,
        ),
        (
            "a negative reason",
            operation(3, &[cbor::bytes(JOB), cbor::uint(0), vec![0x20], cbor::text("")]),
            malformed,
        ),
        ("a retry with an item too many", operation(4, &[cbor::bytes(JOB), vec![1], vec![1]]), malformed),
        ("a finish with an item too few", operation(5, &[cbor::bytes(JOB)]), malformed),
    ]
}

fn bad_commits() -> Vec<Listed> {
    let malformed = "malformed";
    let outcome = |items: &[Vec<u8>]| of_commit_item(4, cbor::array(items));
    let nodes = |count| cbor::array(&vec![cbor::bytes([7; 32]); count]);
    let hash = || cbor::bytes([6; 32]);
    vec![
        ("a commit of eight items", of_commit_items(&commit().items()[..8]), malformed),
        (
            "a commit of ten items",
            of_commit_items(&[commit().items(), vec![cbor::uint(0)]].concat()),
            malformed,
        ),
        ("task 65,536", of_commit(|commit| commit.task = 65_536), "bad_number"),
        ("chunk 2^32", of_commit(|commit| commit.chunk = 1 << 32), "bad_number"),
        ("stage 2", of_commit(|commit| commit.stage = 2), malformed),
        ("stage 256", of_commit(|commit| commit.stage = 256), "bad_number"),
        ("inputs of 31 bytes", of_commit_item(3, cbor::bytes([7; 31])), malformed),
        ("null for the outcome", of_commit_item(4, cbor::NULL.to_vec()), malformed),
        ("a success without a size", outcome(&[cbor::uint(0), hash()]), malformed),
        ("a success with a size below zero", outcome(&[cbor::uint(0), hash(), vec![0x20]]), malformed),
        ("a failure without a text", outcome(&[cbor::uint(1), cbor::uint(0)]), malformed),
        ("outcome 2", outcome(&[cbor::uint(2), hash(), cbor::uint(1)]), malformed),
        (
            "a text of 201 bytes, of 101 characters",
            of_commit(|commit| commit.outcome = failed(0, &("ü".repeat(100) + "x"))),
            malformed,
        ),
        ("17 workers", of_commit_item(5, nodes(17)), malformed),
        ("17 dissenters", of_commit_item(6, nodes(17)), malformed),
        ("a worker of 33 bytes", of_commit_item(5, cbor::array(&[cbor::bytes([7; 33])])), malformed),
        ("null for a time", of_commit_item(7, cbor::NULL.to_vec()), malformed),
        ("a time in two bytes where one does", of_commit_item(8, vec![0x18, 0x17]), "not_canonical"),
    ]
}

/// Long ones, of which the pieces are known.
fn long_cases() -> Vec<Case> {
    let jobs = |count| {
        let head = [vec![0x85, 1, 1], cbor::TRUE.to_vec(), cbor::uint(60), cbor::head(4, count)].concat();
        vec![
            Piece::once(head),
            Piece { hex: cbor::bytes(JOB).into(), times: usize::try_from(count).unwrap() },
        ]
    };
    let of_commits = |count: u64, first: Commit, rest: Commit| {
        let head =
            [vec![0x85, 1, 2], cbor::bytes(JOB), cbor::uint(0), cbor::head(4, count), first.item()].concat();
        let times = usize::try_from(count).unwrap() - 1;
        vec![Piece::once(head), Piece { hex: rest.item().into(), times }]
    };
    // With a text of so many bytes.
    let broad = |text: usize| {
        let first = commit().with(|commit| {
            commit.outcome = failed(0, &"x".repeat(text));
            commit.workers = vec![7; 16];
        });
        let rest = commit().with(|commit| (commit.workers, commit.dissenters) = (vec![7; 16], vec![8; 4]));
        of_commits(64, first, rest)
    };
    let pad = 100 + 49_152 - joined(&broad(100)).len();
    let length = |pieces: &[Piece]| joined(pieces).len();
    assert_eq!((length(&broad(pad)), length(&broad(pad + 1))), (49_152, 49_153));
    vec![
        case("a lease of 256 jobs", 1, jobs(256), GOOD),
        case("a lease of 257 jobs", 1, jobs(257), "malformed"),
        case("64 commits", 1, of_commits(64, commit(), commit()), GOOD),
        case("65 commits", 1, of_commits(65, commit(), commit()), "malformed"),
        case("64 commits, 49,152 bytes", 1, broad(pad), GOOD),
        case("64 commits, 49,153 bytes", 1, broad(pad + 1), "too_large"),
    ]
}

fn cases() -> Vec<Case> {
    let lists = [good_operations(), bad_operations(), bad_commits(), job_specs::all()];
    let mut cases: Vec<_> = lists
        .into_iter()
        .flatten()
        .map(|(comment, payload, outcome)| case(comment, 1, pieces(&payload), outcome))
        .collect();
    cases.extend(long_cases());
    cases.push(case("the first by another author: another job", 2, cases[0].payload.clone(), GOOD));
    cases
}

#[test]
fn job_operations() {
    let description = "Payloads of durable envelopes of channel `job`, by their author. The pieces of `payload`, each repeated \
                       `times` times, are joined. `outcome` is `good` or why the payload is refused, for one thing that is wrong; \
                       `job` is the id of the job that a good submission makes. What is good need not have an effect.";
    let mut outcomes = BTreeSet::new();
    for case in settle("job_operations.json", description, cases()) {
        let payload = joined(&case.payload);
        let (outcome, job) = judge(case.author.array(), &payload);
        let job = job.map(|job| Hex::from(job.as_bytes()));
        assert_eq!((&outcome, &job), (&case.outcome, &case.job), "{}", case.comment);
        outcomes.insert(case.outcome);
        let operation = Operation::decode(&payload);
        if outcome == GOOD {
            assert_eq!(operation.as_ref().unwrap().encode().as_ref(), Ok(&payload), "{}", case.comment);
        }
        let Ok(Operation::Submit(bytes)) = operation else {
            assert_eq!(case.job, None);
            continue;
        };
        if outcome == GOOD {
            assert_eq!(JobSpec::decode(&bytes).unwrap().encode(), bytes, "{}", case.comment);
            assert_eq!(case.job, Some(job_id(&case.author.0, &bytes).into()), "{}", case.comment);
        } else if let Ok(spec) = JobSpec::decode(&bytes) {
            // So it does not matter where a reader begins to look.
            assert_eq!(Plan::new(&spec, &Quota::MOST).unwrap_err().len(), 1, "{}", case.comment);
        }
    }
    for outcome in OUTCOMES {
        assert!(outcomes.remove(outcome), "no case for {outcome}");
    }
    assert_eq!(outcomes, BTreeSet::new(), "not in the document");
}

/// Those of the document.
const OUTCOMES: [&str; 16] = [
    GOOD,
    "too_large",
    "truncated",
    "trailing_bytes",
    "not_canonical",
    "malformed",
    "unknown_version",
    "unknown_operation",
    "bad_number",
    "too_deep",
    "bad_name",
    "bad_value",
    "missing",
    "unknown_name",
    "cycle",
    "quota",
];
