//! Frames: what goes out comes in, and nothing else does.

use std::sync::Arc;

use bytes::Bytes;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::blob::{self, Groups};
use omnimesh_protocol::compute::job::{Action, Align, Limits};
use omnimesh_protocol::compute::ledger::{FailReason, Part};
use omnimesh_protocol::compute::placement::Offer;
use omnimesh_protocol::compute::statement::Statement;
use omnimesh_protocol::compute::wire::{Assignment, CONTENT_BYTES_MAX, Failure, Frame, ResultItem};
use omnimesh_protocol::compute::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use omnimesh_protocol::registry::Value;
use proptest::prelude::*;

fn frames() -> Vec<Frame> {
    let blob = BlobRef::of(b"blob");
    let params = [("n".to_owned(), Value::Float(0.5).encode().unwrap())].into();
    let assignment = Assignment {
        attempt: AttemptId(u64::MAX),
        job: JobId::from_bytes([1; 32]),
        task: TaskRef::new(2, 70_000),
        key: TaskKey::from_bytes([3; 32]),
        action: Arc::new(Action { operation: "wasm".to_owned(), program: Some(blob), params }),
        parts: [Part::Blob { blob, from: 1, to: 4, align: Align::Line }, Part::Missing].into(),
        limits: Limits::default(),
    };
    let offer = Offer {
        slots: 4,
        room: 6,
        active: 1,
        memory_bytes: 1 << 40,
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        region: Some("eu".to_owned()),
        operations: vec!["hash".to_owned()],
        held: vec![blob.hash],
    };
    let statement = Statement { key: TaskKey::from_bytes([3; 32]), result: blob };
    let item = ResultItem { attempt: AttemptId(9), statement, cpu_ms: 10, wall_ms: 300 };
    let failure = Failure {
        attempt: AttemptId(1),
        reason: FailReason::BlobMissing,
        detail: "ü".to_owned(),
        missing: vec![Hash::of(b"x")],
    };
    vec![
        Frame::Offer(Offer::default()),
        Frame::Offer(offer),
        Frame::Assign(vec![assignment.clone(), assignment]),
        Frame::Started(vec![AttemptId(0), AttemptId(300)]),
        Frame::Results { items: vec![item, item], signature: [5; 64] },
        Frame::Failed(vec![failure]),
        Frame::Cancel(vec![AttemptId(1 << 40)]),
        Frame::Ask(vec![JobId::from_bytes([3; 32]); 16]),
        Frame::Has { job: JobId::from_bytes([3; 32]), keys: vec![TaskKey::from_bytes([4; 32]); 256] },
        Frame::Contents(vec![Bytes::new(), Bytes::from(vec![1; CONTENT_BYTES_MAX])]),
    ]
}

fn blob_frames() -> Vec<blob::wire::Frame> {
    use blob::wire::{Frame, Held};
    let hash = Hash::of(b"x");
    let some = Held { hash, size: 9 << 20, groups: Groups::Some(vec![0b1011, 1]) };
    vec![
        Frame::Want { id: 1, hashes: vec![hash; 3] },
        Frame::Have { id: 1, held: vec![Held { hash, size: 3, groups: Groups::All }, some] },
        Frame::AskOutline { id: 2, hash },
        Frame::Outline { id: 2, size: 3 << 20, values: vec![7; 96].into() },
        Frame::Get { id: 3, hash, group: 1000 },
        Frame::Group { id: 3, bytes: Bytes::from_static(b"bytes") },
        Frame::Decline { id: 4, is_busy: true },
    ]
}

#[test]
fn frames_return() {
    for frame in frames() {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
    for frame in blob_frames() {
        assert_eq!(blob::wire::Frame::decode(&frame.encode()), Ok(frame));
    }
}

#[test]
fn unknown_kinds_are_nobodys_fault() {
    use omnimesh_protocol::compute::wire::DecodeError;
    assert_eq!(Frame::decode(&[0x81, 0x09]), Err(DecodeError::UnknownKind(9)));
    let long = Frame::Contents(vec![Bytes::from(vec![1; CONTENT_BYTES_MAX + 1])]);
    assert!(
        matches!(Frame::decode(&long.encode()), Err(DecodeError::Malformed(_))),
        "a content that is too long"
    );
    assert!(matches!(Frame::decode(&[0x82, 0x05, 0x80]), Err(DecodeError::Malformed(_))), "an empty batch");
}

proptest! {
    #[test]
    fn a_frame_with_one_bit_changed_is_another_or_none(which: prop::sample::Index, place: prop::sample::Index, bit in 0_u8..8) {
        let frames = frames();
        let frame = which.get(&frames);
        let mut bytes = frame.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Frame::decode(&bytes) {
            prop_assert_ne!(&other, frame);
            prop_assert_eq!(other.encode().to_vec(), bytes);
        }
    }

    #[test]
    fn a_blob_frame_with_one_bit_changed_is_another_or_none(which: prop::sample::Index, place: prop::sample::Index, bit in 0_u8..8) {
        let frames = blob_frames();
        let frame = which.get(&frames);
        let mut bytes = frame.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = blob::wire::Frame::decode(&bytes.clone().into()) {
            prop_assert_ne!(&other, frame);
        }
    }

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(&bytes);
        let _ = blob::wire::Frame::decode(&bytes.into());
    }
}
