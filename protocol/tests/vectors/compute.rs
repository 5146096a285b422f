//! `compute_frames.json`

use std::sync::Arc;

use omnimesh_protocol::compute::job::{Action, Align, Limits};
use omnimesh_protocol::compute::ledger::{FailReason, Part};
use omnimesh_protocol::compute::placement::Offer;
use omnimesh_protocol::compute::statement::Statement;
use omnimesh_protocol::compute::wire::{Assignment, DecodeError, Failure, Frame, ResultItem};
use omnimesh_protocol::compute::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use omnimesh_protocol::registry::Value;
use omnimesh_protocol::{Hash, Identity, MeshId, NodeId};
use serde::{Deserialize, Serialize};

use crate::draft::mesh;
use crate::specs::{Blob, action, blob, labels, numbers};
use crate::{GOOD, Hex, Listed, Piece, cbor, curve, joined, settle};

pub(crate) const LATER: &str = "later version";

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Case {
    comment: String,
    /// Joined.
    frame: Vec<Piece>,
    /// `good`, the fault, or `later version`.
    outcome: String,
    /// Of a good frame.
    kind: Option<u8>,
    /// Of good results, as are the next: in which mesh they came from which worker, and whether it has signed them.
    mesh_id: Option<Hex>,
    worker: Option<Hex>,
    is_signed: Option<bool>,
}

fn judge(frame: &[u8]) -> Result<Frame, &'static str> {
    Frame::decode(frame).map_err(|error| match error {
        DecodeError::Malformed(fault) => fault.code(),
        DecodeError::UnknownKind(_) => LATER,
    })
}

const fn kind(frame: &Frame) -> u8 {
    match frame {
        Frame::Offer(_) => 0,
        Frame::Assign(_) => 1,
        Frame::Started(_) => 2,
        Frame::Results { .. } => 3,
        Frame::Failed(_) => 4,
        Frame::Cancel(_) => 5,
        Frame::Ask(_) => 6,
        Frame::Has { .. } => 7,
        Frame::Contents(_) => 8,
    }
}

/// Judged as if it came from node 1 in the mesh of the drafts.
fn case(comment: &str, frame: Vec<Piece>, outcome: &str) -> Case {
    let judged = judge(&joined(&frame));
    assert_eq!(judged.as_ref().map_or_else(|code| *code, |_| GOOD), outcome, "{comment}");
    let worker = Identity::from_seed(&[1; 32]).id();
    let signed = judged.as_ref().ok().and_then(|frame| frame.signed_results(mesh().id(), worker));
    Case {
        comment: comment.to_owned(),
        frame,
        outcome: outcome.to_owned(),
        kind: judged.as_ref().ok().map(kind),
        mesh_id: signed.is_some().then(|| mesh().id().as_bytes().into()),
        worker: signed.is_some().then(|| worker.as_bytes().into()),
        is_signed: signed.map(|signed| signed.verify().is_some()),
    }
}

fn frame(kind: u64, fields: &[Vec<u8>]) -> Vec<u8> {
    cbor::array(&[&[cbor::uint(kind)], fields].concat())
}

/// A frame with an array of so many like items.
fn many(kind: u64, item: &[u8], count: u64) -> Vec<Piece> {
    let head = [vec![0x82], cbor::uint(kind), cbor::head(4, count)].concat();
    vec![Piece::once(head), Piece { hex: item.into(), times: usize::try_from(count).unwrap() }]
}

fn hash(byte: u8) -> Vec<u8> {
    cbor::bytes([byte; 32])
}

/// The items of an offer.
fn offer() -> Vec<Vec<u8>> {
    let region = cbor::text("eu");
    let operations = cbor::array(&[cbor::text("hash"), cbor::text("of-later_1.0")]);
    let labels = labels(&[("disk", "ssd"), ("arch-2", "x86_64")]);
    let [slots, room, active, memory] = [4, 6, 1, 1 << 40].map(cbor::uint);
    vec![slots, room, active, memory, labels, region, operations, cbor::array(&[hash(1), hash(2)])]
}

fn offers(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut items = offer();
    change(&mut items);
    frame(0, &[cbor::array(&items)])
}

fn with_offer(place: usize, item: Vec<u8>) -> Vec<u8> {
    offers(|items| items[place] = item)
}

/// A part of a blob, to be read.
fn part(blob: Blob, from: u64, to: u64, align: u64) -> Vec<u8> {
    let [hash, size] = blob.items();
    cbor::array(&[hash, size, cbor::uint(from), cbor::uint(to), cbor::uint(align)])
}

/// The items of an assignment.
fn assignment() -> Vec<Vec<u8>> {
    let params = [("n", [&[0xfb][..], &0.5_f64.to_be_bytes()].concat())];
    let parts = [part(blob(7, 25), 10, 20, 1), cbor::NULL.to_vec()];
    vec![
        cbor::uint(u64::MAX),
        hash(3),
        cbor::uint(2),
        cbor::uint(70_000),
        hash(4),
        action("wasm", Some(blob(5, 18_231)), &params),
        cbor::array(&parts),
        numbers(&[60_000, 1 << 28, 1 << 26, 120_000]),
    ]
}

fn assigns(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut items = assignment();
    change(&mut items);
    frame(1, &[cbor::array(&[cbor::array(&items)])])
}

fn with_assignment(place: usize, item: Vec<u8>) -> Vec<u8> {
    assigns(|items| items[place] = item)
}

fn with_part(part: Vec<u8>) -> Vec<u8> {
    with_assignment(6, cbor::array(&[part]))
}

fn failure(reason: u64, text: &str, missing: usize) -> Vec<u8> {
    let missing = cbor::array(&vec![hash(9); missing]);
    cbor::array(&[cbor::uint(1), cbor::uint(reason), cbor::text(text), missing])
}

/// What a worker states: key and result.
pub(crate) type Stated = ([u8; 32], Blob);

pub(crate) fn statements(stated: &[Stated]) -> Vec<u8> {
    let items = stated.iter().map(|(key, blob)| {
        let [hash, size] = blob.items();
        cbor::array(&[cbor::bytes(key), hash, size])
    });
    cbor::array(&items.collect::<Vec<_>>())
}

/// What a worker signs.
fn message(mesh: [u8; 16], stated: &[Stated]) -> Vec<u8> {
    [&b"omnimesh/1/results"[..], &mesh, &statements(stated)].concat()
}

pub(crate) fn signature(seed: u8, mesh: [u8; 16], stated: &[Stated]) -> [u8; 64] {
    Identity::from_seed(&[seed; 32]).sign(&message(mesh, stated))
}

fn results(stated: &[Stated], signature: &[u8]) -> Vec<u8> {
    let items = (300..).zip(stated).map(|(attempt, (key, blob))| {
        let [hash, size] = blob.items();
        let [attempt, cpu, wall] = [attempt, 10, 1 << 33].map(cbor::uint);
        cbor::array(&[attempt, cbor::bytes(key), hash, size, cpu, wall])
    });
    frame(3, &[cbor::array(&items.collect::<Vec<_>>()), cbor::bytes(signature)])
}

const STATED: [Stated; 2] = [([3; 32], blob(7, 300)), ([4; 32], blob(8, 0))];

pub(crate) fn own_mesh() -> [u8; 16] {
    *mesh().id().as_bytes()
}

/// One frame of each kind, and what the crate calls it.
fn one_of_each() -> Vec<(&'static str, Vec<u8>, Frame)> {
    let by_hash = |byte| Hash::from_bytes([byte; 32]);
    let job = JobId::from_bytes([3; 32]);
    let key = TaskKey::from_bytes([4; 32]);
    let blob_ref = |byte, size| BlobRef { hash: by_hash(byte), size };
    let text = |text: &str| text.to_owned();
    let offer = Offer {
        slots: 4,
        room: 6,
        active: 1,
        memory_bytes: 1 << 40,
        labels: [(text("disk"), text("ssd")), (text("arch-2"), text("x86_64"))].into(),
        region: Some(text("eu")),
        operations: vec![text("hash"), text("of-later_1.0")],
        held: vec![by_hash(1), by_hash(2)],
    };
    let params = [(text("n"), Value::Float(0.5).encode().unwrap())].into();
    let assignment = Assignment {
        attempt: AttemptId(u64::MAX),
        job,
        task: TaskRef::new(2, 70_000),
        key,
        action: Arc::new(Action { operation: text("wasm"), program: Some(blob_ref(5, 18_231)), params }),
        parts: [Part::Blob { blob: blob_ref(7, 25), from: 10, to: 20, align: Align::Line }, Part::Missing]
            .into(),
        limits: Limits { cpu_ms: 60_000, memory_bytes: 1 << 28, output_bytes: 1 << 26, wall_ms: 120_000 },
    };
    let item = |attempt, (key, blob): Stated| ResultItem {
        attempt: AttemptId(attempt),
        statement: Statement { key: TaskKey::from_bytes(key), result: blob_ref(blob.hash[0], blob.size) },
        cpu_ms: 10,
        wall_ms: 1 << 33,
    };
    let signature = signature(1, own_mesh(), &STATED);
    let missing = Failure {
        attempt: AttemptId(1),
        reason: FailReason::BlobMissing,
        detail: text("ü"),
        missing: vec![by_hash(9); 2],
    };
    let contents = [cbor::bytes([]), cbor::bytes(b"output")];
    vec![
        ("an offer", frame(0, &[cbor::array(&self::offer())]), Frame::Offer(offer)),
        ("an assignment", assigns(|_| {}), Frame::Assign(vec![assignment])),
        (
            "two attempts were begun",
            frame(2, &[numbers(&[0, 300])]),
            Frame::Started(vec![AttemptId(0), AttemptId(300)]),
        ),
        (
            "two results, signed",
            results(&STATED, &signature),
            Frame::Results { items: vec![item(300, STATED[0]), item(301, STATED[1])], signature },
        ),
        ("a failure", frame(4, &[cbor::array(&[failure(9, "ü", 2)])]), Frame::Failed(vec![missing])),
        ("a cancellation", frame(5, &[numbers(&[1 << 40])]), Frame::Cancel(vec![AttemptId(1 << 40)])),
        ("a question", frame(6, &[cbor::array(&[hash(3)])]), Frame::Ask(vec![job])),
        (
            "an answer to it",
            frame(7, &[cbor::array(&[hash(4), hash(4)]), hash(3)]),
            Frame::Has { job, keys: vec![key; 2] },
        ),
        (
            "contents, one of them empty",
            frame(8, &[cbor::array(&contents)]),
            Frame::Contents(vec![vec![].into(), b"output".to_vec().into()]),
        ),
    ]
}

/// What is wrong in every frame.
fn shapes() -> Vec<Listed> {
    let malformed = "malformed";
    let good = frame(2, &[numbers(&[1])]);
    vec![
        ("no bytes", vec![], "truncated"),
        ("a number", vec![2], malformed),
        ("a map", vec![0xa1, 2, 2], malformed),
        ("an empty array", vec![0x80], "truncated"),
        ("text for the kind", vec![0x82, 0x61, b'a', 0x81, 1], malformed),
        ("a negative kind", vec![0x82, 0x20, 0x81, 1], malformed),
        ("a kind in two bytes", vec![0x82, 0x18, 2, 0x81, 1], "not_canonical"),
        ("a field is missing", vec![0x81, 2], malformed),
        ("a field too many", vec![0x83, 2, 0x81, 1, 0], malformed),
        ("cut", good[..good.len() - 1].to_vec(), "truncated"),
        ("a byte more", [good, vec![0]].concat(), "trailing_bytes"),
        ("a number for the attempts", vec![0x82, 2, 1], malformed),
        ("attempts of indefinite length", vec![0x82, 2, 0x9f, 1, 0xff], "not_canonical"),
        ("a negative attempt", vec![0x82, 2, 0x81, 0x20], malformed),
        ("a tag before the frame", vec![0xc1, 0x82, 2, 0x81, 1], malformed),
        ("kind 9", vec![0x82, 9, 0x81, 1], LATER),
        ("kind 9 with no field", vec![0x81, 9], LATER),
        ("kind 9, and then no CBOR", vec![0x82, 9, 0xff], LATER),
        ("kind 2^64 - 1", frame(u64::MAX, &[cbor::text("x"), cbor::FALSE.to_vec()]), LATER),
    ]
}

fn offers_in_bounds() -> Vec<Listed> {
    let (malformed, bad_number, bad_name, too_many) =
        ("malformed", "bad_number", "bad_name", "too_many_fields");
    let least = [0, 0, 0, 0].map(cbor::uint);
    let none = [labels(&[]), cbor::NULL.to_vec(), cbor::array(&[]), cbor::array(&[])];
    // Of two digits each, so that they are in order.
    let names: Vec<String> = (10..43).map(|name| name.to_string()).collect();
    let labelled = |count: usize| {
        let pairs: Vec<_> = names[..count].iter().map(|name| (name.as_str(), "x")).collect();
        with_offer(4, labels(&pairs))
    };
    let operations = |name: &str, count| with_offer(6, cbor::array(&vec![cbor::text(name); count]));
    let u32_max = u64::from(u32::MAX);
    vec![
        ("an offer of nothing", frame(0, &[cbor::array(&[least, none].concat())]), GOOD),
        ("an offer of seven items", offers(|items| drop(items.pop())), malformed),
        ("an offer of nine items", offers(|items| items.push(vec![0])), malformed),
        ("4,096 slots", with_offer(0, cbor::uint(4096)), GOOD),
        ("4,097 slots", with_offer(0, cbor::uint(4097)), bad_number),
        ("room for 4,096", with_offer(1, cbor::uint(4096)), GOOD),
        ("room for 2^32", with_offer(1, cbor::uint(1 << 32)), bad_number),
        ("2^32 - 1 attempts under way", with_offer(2, cbor::uint(u32_max)), GOOD),
        ("2^32 attempts under way", with_offer(2, cbor::uint(1 << 32)), bad_number),
        ("2^64 - 1 bytes of memory", with_offer(3, cbor::uint(u64::MAX)), GOOD),
        ("null for the memory", with_offer(3, cbor::NULL.to_vec()), malformed),
        ("32 labels", labelled(32), GOOD),
        ("33 labels", labelled(33), too_many),
        ("labels out of order", with_offer(4, labels(&[("aa", "x"), ("b", "x")])), "not_canonical"),
        ("an empty value of a label", with_offer(4, labels(&[("a", "")])), bad_name),
        ("a label with a space", with_offer(4, labels(&[("a b", "x")])), bad_name),
        ("an empty region", with_offer(5, cbor::text("")), bad_name),
        ("a region of 64 bytes", with_offer(5, cbor::text([b'r'; 64])), GOOD),
        ("a region of 65 bytes", with_offer(5, cbor::text([b'r'; 65])), bad_name),
        ("bytes for the region", with_offer(5, cbor::bytes("eu")), malformed),
        ("64 operations", operations("o", 64), GOOD),
        ("65 operations", operations("o", 65), too_many),
        ("an operation with a slash", operations("a/b", 1), bad_name),
        ("a hash of 31 bytes", with_offer(7, cbor::array(&[cbor::bytes([1; 31])])), malformed),
    ]
}

fn assignments_in_bounds() -> Vec<Listed> {
    let (malformed, bad_number) = ("malformed", "bad_number");
    let text = blob(7, 25);
    let value = |bytes| {
        let params = [("x", cbor::bytes(vec![7; bytes]))];
        with_assignment(5, action("wasm", Some(blob(5, 1)), &params))
    };
    vec![
        ("an assignment of seven items", assigns(|items| drop(items.pop())), malformed),
        ("a job of 31 bytes", with_assignment(1, cbor::bytes([3; 31])), malformed),
        ("task 65,535", with_assignment(2, cbor::uint(65_535)), GOOD),
        ("task 65,536", with_assignment(2, cbor::uint(65_536)), bad_number),
        ("chunk 2^32 - 1", with_assignment(3, cbor::uint((1 << 32) - 1)), GOOD),
        ("chunk 2^32", with_assignment(3, cbor::uint(1 << 32)), bad_number),
        ("an operation that nobody knows", with_assignment(5, action("", None, &[])), GOOD),
        ("a parameter of 16,385 bytes", value(16_382), "too_large"),
        ("nothing to read", with_assignment(6, cbor::array(&[])), GOOD),
        ("all of a blob", with_part(part(text, 0, 25, 0)), GOOD),
        ("no byte of a blob", with_part(part(text, 25, 25, 2)), GOOD),
        ("a part that ends before it begins", with_part(part(text, 2, 1, 0)), malformed),
        ("a part that ends behind its blob", with_part(part(text, 0, 26, 0)), malformed),
        ("a part with align 3", with_part(part(text, 0, 25, 3)), malformed),
        ("a part of four items", with_part(cbor::array(&[hash(7), vec![9], vec![0], vec![9]])), malformed),
        ("limits of 0, which leave nothing", with_assignment(7, numbers(&[0; 4])), GOOD),
        ("three limits", with_assignment(7, numbers(&[1; 3])), malformed),
    ]
}

fn answers_in_bounds() -> Vec<Listed> {
    let (malformed, too_large) = ("malformed", "too_large");
    let good = signature(1, own_mesh(), &STATED);
    let other = signature(1, [7; 16], &STATED);
    let reversed = signature(1, own_mesh(), &[STATED[1], STATED[0]]);
    let small =
        curve::signature_with_identity_as_r(1, &curve::small_order_keys()[0], &message(own_mesh(), &STATED));
    let one_failure = |failure: Vec<u8>| frame(4, &[cbor::array(&[failure])]);
    let five = cbor::array(&[cbor::uint(1), hash(3), hash(7), vec![1], vec![1]]);
    vec![
        ("results that another has signed", results(&STATED, &signature(2, own_mesh(), &STATED)), GOOD),
        ("results that were signed for another mesh", results(&STATED, &other), GOOD),
        ("results that were signed in another order", results(&STATED, &reversed), GOOD),
        ("results of which one was left out afterwards", results(&STATED[..1], &good), GOOD),
        ("a signature with R of small order; the ordinary check takes it", results(&STATED, &small), GOOD),
        ("a signature of 63 bytes", results(&STATED, &good[..63]), malformed),
        ("results without a signature", frame(3, &[cbor::array(&[])]), malformed),
        ("no results", results(&[], &good), malformed),
        ("a result of five items", frame(3, &[cbor::array(&[five]), cbor::bytes(good)]), malformed),
        ("a failure with a text of 200 bytes", one_failure(failure(14, &"ü".repeat(100), 0)), GOOD),
        ("a failure with a text of 201 bytes", one_failure(failure(0, &"x".repeat(201), 0)), too_large),
        ("a failure for a reason of a later version", one_failure(failure(u64::MAX, "", 0)), GOOD),
        ("a failure of three items", one_failure(cbor::array(&[vec![1], vec![1], vec![0x60]])), malformed),
        ("keys of no job", frame(7, &[cbor::array(&[hash(4)])]), malformed),
        ("no keys of a job", frame(7, &[cbor::array(&[]), hash(3)]), malformed),
        ("text for a content", frame(8, &[cbor::array(&[cbor::text("x")])]), malformed),
    ]
}

/// Long ones, of which the pieces are known.
fn long_cases() -> Vec<Case> {
    let malformed = "malformed";
    let begun = |items: &[Vec<u8>], rest: usize| [items.concat(), cbor::head(4, rest as u64)].concat();
    let held = |count: usize| {
        let head = [vec![0x82, 0, 0x88], begun(&offer()[..7], count)].concat();
        vec![Piece::once(head), Piece { hex: hash(1).into(), times: count }]
    };
    let read = |count: usize| {
        let items = assignment();
        let head = [vec![0x82, 1, 0x81, 0x88], begun(&items[..6], count)].concat();
        vec![Piece::once(head), Piece { hex: [0xf6].into(), times: count }, Piece::once(&items[7])]
    };
    let missing = |count: usize| {
        let head = [vec![0x82, 4, 0x81, 0x84, 1, 9, 0x60], cbor::head(4, count as u64)].concat();
        vec![Piece::once(head), Piece { hex: hash(9).into(), times: count }]
    };
    let keys = |count: u64| {
        let mut pieces = many(7, &hash(4), count);
        pieces[0].hex.0[0] = 0x83;
        pieces.push(Piece::once(hash(3)));
        pieces
    };
    let content = |length: usize| {
        let head = [vec![0x82, 8, 0x81], cbor::head(2, length as u64)].concat();
        vec![Piece::once(head), Piece::zeros(length)]
    };
    let zeros = |length: usize| vec![Piece::once([0x82, 9]), Piece::zeros(length - 2)];
    let assignment = cbor::array(&assignment());
    let mut cases = vec![
        case("256 hashes that are held", held(256), GOOD),
        case("257 hashes that are held", held(257), "too_many_fields"),
        case("a task that reads 16,640 parts", read(16_640), GOOD),
        case("a task that reads 16,641 parts", read(16_641), "too_many_fields"),
        case("256 blobs are missing", missing(256), GOOD),
        case("257 blobs are missing", missing(257), "too_large"),
        case("asks after 16 jobs", many(6, &hash(3), 16), GOOD),
        case("asks after 17 jobs", many(6, &hash(3), 17), "too_many_fields"),
        case("asks after 256 jobs", many(6, &hash(3), 256), "too_many_fields"),
        case("256 keys of a job", keys(256), GOOD),
        case("257 keys of a job", keys(257), malformed),
        case("a content of 4,096 bytes", content(4096), GOOD),
        case("a content of 4,097 bytes", content(4097), "too_large"),
        case("2,097,152 bytes of a later version", zeros(2_097_152), LATER),
        case("2,097,153 bytes", zeros(2_097_153), "too_large"),
    ];
    let items = [
        (1, assignment, "assignments"),
        (2, cbor::uint(1), "attempts that were begun"),
        (4, failure(0, "no", 0), "failures"),
        (5, cbor::uint(1), "attempts that are cancelled"),
        (8, cbor::bytes("x"), "contents"),
    ];
    for (kind, item, what) in items {
        for (count, outcome) in [(0, malformed), (256, GOOD), (257, malformed)] {
            cases.push(case(&format!("{count} {what}"), many(kind, &item, count), outcome));
        }
    }
    cases.push(case("asks after no jobs", many(6, &hash(3), 0), malformed));
    cases.push(case("asks after 257 jobs", many(6, &hash(3), 257), malformed));
    let stated = vec![STATED[0]; 257];
    for (count, outcome) in [(256, GOOD), (257, malformed)] {
        let stated = &stated[..count];
        let one = results(&STATED[..1], &[]);
        let mut pieces = many(3, cbor::items(cbor::items(&one)[1])[0], count as u64);
        pieces[0].hex.0[0] = 0x83;
        pieces.push(Piece::once(cbor::bytes(signature(1, own_mesh(), stated))));
        cases.push(case(&format!("{count} results, signed"), pieces, outcome));
    }
    cases
}

#[test]
fn compute_frames() {
    let mut cases = Vec::new();
    for (comment, bytes, frame) in one_of_each() {
        assert_eq!(judge(&bytes), Ok(frame), "{comment}");
        cases.push(case(comment, vec![Piece::once(bytes)], GOOD));
    }
    let lists = [shapes(), offers_in_bounds(), assignments_in_bounds(), answers_in_bounds()];
    let listed = lists.into_iter().flatten();
    cases.extend(listed.map(|(comment, bytes, outcome)| case(comment, vec![Piece::once(bytes)], outcome)));
    cases.extend(long_cases());
    let description = "Frames of the compute stream. The pieces of `frame`, each repeated `times` times, are joined. `outcome` is `good`, \
                       the fault, or `later version` where the frame is passed over. `is_signed` says of good results whether \
                       `worker` has signed them in the mesh of this id.";
    for case in settle("compute_frames.json", description, cases) {
        let bytes = joined(&case.frame);
        let judged = judge(&bytes);
        assert_eq!(judged.as_ref().map_or_else(|code| *code, |_| GOOD), case.outcome, "{}", case.comment);
        assert_eq!(judged.as_ref().ok().map(kind), case.kind, "{}", case.comment);
        let Ok(frame) = judged else { continue };
        assert_eq!(frame.encode(), bytes, "{}", case.comment);
        assert_eq!(case.kind == Some(3), case.is_signed.is_some());
        let Some(is_signed) = case.is_signed else { continue };
        let (mesh, worker) = (case.mesh_id.unwrap().array(), case.worker.unwrap().array());
        let found = frame.signed_results(MeshId::from_bytes(mesh), NodeId::from_bytes(worker)).unwrap();
        assert_eq!(found.verify().is_some(), is_signed, "{}", case.comment);
        let [_, items, signature] = cbor::items(&bytes)[..] else { panic!("three items") };
        let statements = cbor::items(items).into_iter().map(|item| {
            let item: Vec<_> = cbor::items(item)[1..4].iter().map(|item| item.to_vec()).collect();
            cbor::array(&item)
        });
        let statements = cbor::array(&statements.collect::<Vec<_>>());
        let message = [&b"omnimesh/1/results"[..], &mesh, &statements].concat();
        let by_the_document = curve::verify(&worker, &message, signature[2..].try_into().unwrap());
        assert_eq!(by_the_document.is_ok(), is_signed, "{}", case.comment);
    }
}
