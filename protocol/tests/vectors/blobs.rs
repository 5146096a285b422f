//! `blob_frames.json`, `blobs.json`

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root};
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::wire::{DecodeError, Frame, Held};
use omnimesh_protocol::compute::blob::{Groups, Outline, OutlineError};
use serde::{Deserialize, Serialize};

use crate::compute::LATER;
use crate::{GOOD, Hex, Listed, Num, Piece, cbor, joined, settle};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Case {
    comment: String,
    /// Joined.
    frame: Vec<Piece>,
    /// `good`, the fault, or `later version`.
    outcome: String,
    /// Of a good frame.
    kind: Option<u8>,
}

fn judge(frame: &[u8]) -> Result<Frame, &'static str> {
    Frame::decode(&frame.to_vec().into()).map_err(|error| match error {
        DecodeError::Malformed(fault) => fault.code(),
        DecodeError::UnknownKind(_) => LATER,
    })
}

const fn kind(frame: &Frame) -> u8 {
    match frame {
        Frame::Want { .. } => 0,
        Frame::Have { .. } => 1,
        Frame::AskOutline { .. } => 2,
        Frame::Outline { .. } => 3,
        Frame::Get { .. } => 4,
        Frame::Group { .. } => 5,
        Frame::Decline { .. } => 6,
    }
}

fn case(comment: &str, frame: Vec<Piece>, outcome: &str) -> Case {
    let judged = judge(&joined(&frame));
    assert_eq!(judged.as_ref().map_or_else(|code| *code, |_| GOOD), outcome, "{comment}");
    Case {
        comment: comment.to_owned(),
        frame,
        outcome: outcome.to_owned(),
        kind: judged.as_ref().ok().map(kind),
    }
}

const GROUP: u64 = 1 << 20;

/// A frame with id 300.
fn frame(kind: u64, fields: &[Vec<u8>]) -> Vec<u8> {
    cbor::array(&[&[cbor::uint(kind), cbor::uint(300)], fields].concat())
}

fn hash(byte: u8) -> Vec<u8> {
    cbor::bytes([byte; 32])
}

fn held(size: u64, groups: Vec<u8>) -> Vec<u8> {
    cbor::array(&[hash(7), cbor::uint(size), groups])
}

fn have(size: u64, groups: Vec<u8>) -> Vec<u8> {
    frame(1, &[cbor::array(&[held(size, groups)])])
}

/// One frame of each kind, and what the crate calls it.
fn one_of_each() -> Vec<(&'static str, Vec<u8>, Frame)> {
    let by_hash = Hash::from_bytes([7; 32]);
    let id = 300;
    let some = vec![0b1011, 1];
    let both = [held(3, cbor::NULL.to_vec()), held(9 * GROUP, cbor::bytes(&some))];
    let all = Held { hash: by_hash, size: 3, groups: Groups::All };
    let parts = Held { hash: by_hash, size: 9 * GROUP, groups: Groups::Some(some) };
    let values = vec![5; 96];
    vec![
        (
            "a question for two blobs",
            frame(0, &[cbor::array(&[hash(7), hash(7)])]),
            Frame::Want { id, hashes: vec![by_hash; 2] },
        ),
        (
            "all of one blob, and groups 0, 1, 3 and 8 of another",
            frame(1, &[cbor::array(&both)]),
            Frame::Have { id, held: vec![all, parts] },
        ),
        ("a question for an outline", frame(2, &[hash(7)]), Frame::AskOutline { id, hash: by_hash }),
        (
            "an outline",
            frame(3, &[cbor::uint(3 * GROUP), cbor::bytes(&values)]),
            Frame::Outline { id, size: 3 * GROUP, values: values.into() },
        ),
        (
            "a question for a group",
            frame(4, &[hash(7), cbor::uint(1000)]),
            Frame::Get { id, hash: by_hash, group: 1000 },
        ),
        (
            "a group",
            frame(5, &[cbor::bytes("content")]),
            Frame::Group { id, bytes: b"content".to_vec().into() },
        ),
        ("not here", frame(6, &[cbor::uint(0)]), Frame::Decline { id, is_busy: false }),
        ("busy", frame(6, &[cbor::uint(1)]), Frame::Decline { id, is_busy: true }),
    ]
}

fn shapes() -> Vec<Listed> {
    let malformed = "malformed";
    let good = frame(2, &[hash(7)]);
    vec![
        ("no bytes", vec![], "truncated"),
        ("a number", vec![2], malformed),
        ("a map", vec![0xa1, 2, 2], malformed),
        ("an empty array", vec![0x80], "truncated"),
        ("a negative kind", vec![0x83, 0x20, 1, 0x80], malformed),
        ("a kind in two bytes", vec![0x83, 0x18, 0, 1, 0x80], "not_canonical"),
        ("a field is missing", vec![0x82, 0, 1], malformed),
        ("a field too many", frame(0, &[cbor::array(&[]), vec![0]]), malformed),
        ("cut", good[..good.len() - 1].to_vec(), "truncated"),
        ("a byte more", [good, vec![0]].concat(), "trailing_bytes"),
        ("null for the id", vec![0x83, 0, 0xf6, 0x80], malformed),
        ("kind 7", vec![0x83, 7, 1, 0x80], LATER),
        ("kind 7 with no field", vec![0x81, 7], LATER),
        ("kind 2^64 - 1, and then no CBOR", [vec![0x82], cbor::uint(u64::MAX), vec![0xff]].concat(), LATER),
    ]
}

fn bounds() -> Vec<Listed> {
    let malformed = "malformed";
    let bits = |bytes: &[u8]| cbor::bytes(bytes);
    let null = || cbor::NULL.to_vec();
    let largest = cbor::array(&[vec![4], cbor::uint(u64::MAX), hash(7), cbor::uint(u64::MAX)]);
    vec![
        ("asks for nothing", frame(0, &[cbor::array(&[])]), GOOD),
        ("a hash of 31 bytes", frame(0, &[cbor::array(&[cbor::bytes([7; 31])])]), malformed),
        ("has nothing", frame(1, &[cbor::array(&[])]), GOOD),
        ("two items for a blob", frame(1, &[cbor::array(&[cbor::array(&[hash(7), vec![1]])])]), malformed),
        ("all of an empty blob", have(0, null()), GOOD),
        ("none of an empty blob, which has one group", have(0, bits(&[0])), GOOD),
        ("an empty blob and no bits", have(0, bits(&[])), malformed),
        ("eight groups in one byte", have(8 * GROUP, bits(&[0xff])), GOOD),
        ("eight groups in two bytes", have(8 * GROUP, bits(&[0xff, 0])), malformed),
        ("nine groups in two bytes", have(8 * GROUP + 1, bits(&[0, 1])), GOOD),
        ("nine groups in one byte", have(8 * GROUP + 1, bits(&[0xff])), malformed),
        ("bits of groups that there are not", have(GROUP, bits(&[0xff])), GOOD),
        ("text for the bits", have(GROUP, cbor::text("x")), malformed),
        ("all of 2^64 - 1 bytes", have(u64::MAX, null()), GOOD),
        ("bits for 2^64 - 1 bytes", have(u64::MAX, bits(&[0xff])), malformed),
        ("an empty outline", frame(3, &[cbor::uint(5), bits(&[])]), GOOD),
        ("an outline of 33 bytes, which is none", frame(3, &[cbor::uint(5), bits(&[5; 33])]), GOOD),
        ("null for an outline", frame(3, &[cbor::uint(5), null()]), malformed),
        ("the largest numbers", largest, GOOD),
        ("an empty group", frame(5, &[bits(&[])]), GOOD),
        ("text for a group", frame(5, &[cbor::text("x")]), malformed),
        ("a negative reason", frame(6, &[vec![0x20]]), malformed),
    ]
}

fn long_cases() -> Vec<Case> {
    let many = |kind: u64, item: &[u8], count: u64| {
        let head = [vec![0x83], cbor::uint(kind), cbor::uint(1), cbor::head(4, count)].concat();
        vec![Piece::once(head), Piece { hex: item.into(), times: usize::try_from(count).unwrap() }]
    };
    let group = |length: u64| {
        let head = [vec![0x83, 5, 1], cbor::head(2, length)].concat();
        vec![Piece::once(head), Piece::zeros(usize::try_from(length).unwrap())]
    };
    let outline = |length: u64| {
        let head = [vec![0x84, 3], cbor::uint(u64::MAX), cbor::uint(1 << 40), cbor::head(2, length)].concat();
        vec![Piece::once(head), Piece::zeros(usize::try_from(length).unwrap())]
    };
    let zeros = |length: usize| vec![Piece::once([0x82, 7]), Piece::zeros(length - 2)];
    let all = held(5, cbor::NULL.to_vec());
    vec![
        case("asks for 1,024 blobs", many(0, &hash(7), 1024), GOOD),
        case("asks for 1,025 blobs", many(0, &hash(7), 1025), "too_many_fields"),
        case("has 1,024 blobs", many(1, &all, 1024), GOOD),
        case("has 1,025 blobs", many(1, &all, 1025), "too_many_fields"),
        case("a group of 1,048,576 bytes", group(GROUP), GOOD),
        case("a group of 1,048,577 bytes", group(GROUP + 1), "too_large"),
        case("the outline of a TiB", outline(1 << 25), GOOD),
        case("33,554,496 bytes of a later version", zeros(33_554_496), LATER),
        case("33,554,497 bytes", zeros(33_554_497), "too_large"),
    ]
}

/// Declined for a reason of a later version: read as if it were 0.
const UNKNOWN_REASON: &str = "declined for a reason of a later version";

#[test]
fn blob_frames() {
    let mut cases = Vec::new();
    for (comment, bytes, frame) in one_of_each() {
        assert_eq!(judge(&bytes), Ok(frame), "{comment}");
        cases.push(case(comment, vec![Piece::once(bytes)], GOOD));
    }
    let listed = [shapes(), bounds()].into_iter().flatten();
    cases.extend(listed.map(|(comment, bytes, outcome)| case(comment, vec![Piece::once(bytes)], outcome)));
    cases.extend(long_cases());
    let unknown = frame(6, &[cbor::uint(2)]);
    assert_eq!(judge(&unknown), Ok(Frame::Decline { id: 300, is_busy: false }));
    cases.push(case(UNKNOWN_REASON, vec![Piece::once(unknown)], GOOD));
    let description = "Frames of the blob stream. The pieces of `frame`, each repeated `times` times, are joined. `outcome` is `good`, the \
                       fault, or `later version` where the frame is passed over.";
    for case in settle("blob_frames.json", description, cases) {
        let bytes = joined(&case.frame);
        let judged = judge(&bytes);
        assert_eq!(judged.as_ref().map_or_else(|code| *code, |_| GOOD), case.outcome, "{}", case.comment);
        assert_eq!(judged.as_ref().ok().map(kind), case.kind, "{}", case.comment);
        let is_returned = judged.is_ok_and(|frame| frame.encode() == bytes);
        assert_eq!(is_returned, case.outcome == GOOD && case.comment != UNKNOWN_REASON, "{}", case.comment);
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct BlobCase {
    length: Num,
    hash: Hex,
    outline: Hex,
}

/// Byte i is `(i * 7 + (i >> 10) * 13) mod 256`: no two chunks of BLAKE3 that follow each other are equal.
fn content(length: u64) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + (i >> 10) * 13).to_le_bytes()[0]).collect()
}

/// The chaining value of the subtree of these bytes, of which the first is this one, chunk by chunk.
fn subtree(bytes: &[u8], first: u64) -> ChainingValue {
    if bytes.len() <= 1024 {
        return blake3::Hasher::new().set_input_offset(first).update(bytes).finalize_non_root();
    }
    let left = left_subtree_len(bytes.len() as u64);
    let (one, other) = bytes.split_at(usize::try_from(left).unwrap());
    merge_subtrees_non_root(&subtree(one, first), &subtree(other, first + left), Mode::Hash)
}

#[test]
fn blobs() {
    let lengths =
        [0, 1, 1023, 1024, 1025, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 2 * GROUP + 1, 3 * GROUP + 12_345];
    let cases = lengths.map(|length| {
        let outline = Outline::of(&content(length));
        BlobCase {
            length: Num(length),
            hash: outline.blob().hash.as_bytes().into(),
            outline: outline.to_bytes().into(),
        }
    });
    let description = "Blobs: hash and outline of a content of this length, of which byte i is `(i * 7 + (i >> 10) * 13) mod 256`.";
    for case in settle("blobs.json", description, cases.into()) {
        let bytes = content(case.length.0);
        assert_eq!(case.hash, blake3::hash(&bytes).as_bytes().into());
        let values: Vec<_> =
            (0..).step_by(1 << 20).zip(bytes.chunks(1 << 20)).map(|(at, group)| subtree(group, at)).collect();
        let expected = if values.len() > 1 { values.concat() } else { Vec::new() };
        assert_eq!(case.outline, expected.into());
        let blob = BlobRef { hash: Hash::from_bytes(case.hash.array()), size: case.length.0 };
        let outline = Outline::from_bytes(blob, &case.outline.0).unwrap();
        assert!((0..).zip(bytes.chunks(1 << 20)).all(|(group, bytes)| outline.is_group(group, bytes)));
        if !case.outline.0.is_empty() {
            let mut other = case.outline.0;
            other[0] ^= 1;
            assert_eq!(Outline::from_bytes(blob, &other), Err(OutlineError::WrongHash));
        }
    }
}
