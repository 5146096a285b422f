use proptest::prelude::*;

use super::super::checkpoint::{Checkpoint, Part};
use super::super::record::Head;
use super::*;
use crate::id::Hash;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn head(n: u8, seq: u64, is_frozen: bool) -> AuthorHead {
    let head =
        if seq == 0 { Head::EMPTY } else { Head { seq: Seq(seq), digest: Hash::from_bytes([0xdd; 32]) } };
    AuthorHead { author: node(n), head, proof: is_frozen.then(|| Hash::from_bytes([0xee; 32])) }
}

fn sealed() -> Sealed {
    let parts = vec![Part::new("cut", b"cut"), Part::new("registry", b"state")];
    let checkpoint = Checkpoint { mesh: MeshId::from_bytes([1; 16]), step: Step(3600), parts };
    let vote = |n| Vote { signer: node(n), signature: [n; 64] };
    Sealed { checkpoint, heads: Part::new("heads", b"heads"), votes: vec![vote(1), vote(2)] }
}

fn frames() -> Vec<Frame> {
    let range = |lower: &[u8], upper: Option<&[u8]>, content| Range {
        lower: lower.into(),
        upper: upper.map(Into::into),
        content,
    };
    vec![
        Frame::Compare { round: 7, ranges: Vec::new() },
        Frame::Compare { round: 7, ranges: vec![range(&[], None, Content::Fingerprint([0xff; 16]))] },
        Frame::Compare {
            round: u64::MAX,
            ranges: vec![
                range(&[], Some(&[3]), Content::Fingerprint([1; 16])),
                range(&[3, 4], Some(&[9]), Content::Heads(vec![head(4, 1, false), head(5, 0, true)])),
                range(&[9], None, Content::Heads(Vec::new())),
            ],
        },
        Frame::Heads(vec![head(1, 300, true), head(0, 1, false)]),
        Frame::Fetch { id: 1, author: node(1), from: Seq(24), to: Seq(u64::MAX), bytes_max: 65_536 },
        Frame::Records { id: 2, next: Seq(9), records: vec![Bytes::from_static(b"abc"), Bytes::new()] },
        Frame::Decline { id: 3, reason: Decline::Truncated, seq: Seq(256) },
        Frame::Decline { id: 3, reason: Decline::Other(9), seq: Seq(0) },
        Frame::Find { id: 4, author: node(2), seq: Seq(1 << 40) },
        Frame::AskProof(node(3)),
        Frame::Proof(Bytes::from_static(b"proof")),
        Frame::AskHead(node(4)),
        Frame::HeadOf { author: node(5), head: None },
        Frame::HeadOf { author: node(5), head: Some(head(5, 5, false)) },
        Frame::AskCheckpoint { author: node(5), seq: Seq(300) },
        Frame::Offer(None),
        Frame::Offer(Some(sealed())),
        Frame::Votes { step: Step(3600), checkpoint: Hash::from_bytes([3; 32]), votes: sealed().votes },
        Frame::AskChunk { id: 6, checkpoint: Hash::from_bytes([3; 32]), part: 1, index: 300 },
        Frame::Chunk { id: 6, bytes: Bytes::from_static(b"chunk") },
    ]
}

#[test]
fn frames_round_trip_and_every_cut_is_an_error() {
    for frame in frames() {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes.slice(..cut)), Err(DecodeError::Malformed));
        }
        let longer: Bytes = [&bytes[..], &[0]].concat().into();
        assert_eq!(Frame::decode(&longer), Err(DecodeError::Malformed));
    }
}

#[test]
fn bytes_are_as_documented() {
    let equal = Frame::Compare {
        round: 1,
        ranges: vec![Range { lower: [].into(), upper: None, content: Content::Fingerprint([0xab; 16]) }],
    };
    let hex = |frame: &Frame| data_encoding::HEXLOWER.encode(&frame.encode());
    assert_eq!(hex(&equal), format!("83000181 8340f650{}", "ab".repeat(16)).replace(' ', ""));
    assert_eq!(hex(&Frame::Compare { round: 1, ranges: Vec::new() }), "83000180");
    assert_eq!(hex(&Frame::AskHead(node(1))), format!("82085820{}", "01".repeat(32)));
    let heads = Frame::Heads(vec![head(1, 258, false)]);
    let expected = format!("8201815848{}0201000000000000{}", "01".repeat(32), "dd".repeat(32));
    assert_eq!(hex(&heads), expected);
}

#[test]
fn hostile_frames_are_refused() {
    let refuse = |frame: Frame| assert_eq!(Frame::decode(&frame.encode()), Err(DecodeError::Malformed));
    let compare = |ranges| Frame::Compare { round: 1, ranges };
    let range = |lower: &[u8], upper: &[u8]| Range {
        lower: lower.into(),
        upper: Some(upper.into()),
        content: Content::Fingerprint([0; 16]),
    };
    refuse(compare(vec![range(&[2], &[2])]));
    refuse(compare(vec![range(&[2], &[1])]));
    refuse(compare(vec![range(&[], &[7; 33])]));
    refuse(compare(vec![range(&[1], &[3]), range(&[2], &[4])]));
    let heads = |heads| Range { lower: [2].into(), upper: Some([4].into()), content: Content::Heads(heads) };
    refuse(compare(vec![heads(vec![head(4, 1, false)])]));
    refuse(compare(vec![heads(vec![head(1, 1, false)])]));
    refuse(compare(vec![heads(vec![head(3, 1, false), head(3, 2, false)])]));
    refuse(Frame::Heads(vec![head(1, u64::MAX, false)]));
    refuse(Frame::Heads(vec![head(1, 1, false); 8193]));
    let mut twice = sealed();
    twice.votes[1] = twice.votes[0];
    refuse(Frame::Offer(Some(twice)));
    let unknown: Bytes = vec![0x81, 0x18, 77].into();
    assert_eq!(Frame::decode(&unknown), Err(DecodeError::UnknownKind(77)));
    refuse(Frame::HeadOf { author: node(1), head: Some(head(2, 1, false)) });
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn a_changed_frame_is_read_or_refused(which in 0_usize..14, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = frames()[which].encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(frame.encode() == bytes, "one encoding only");
        }
    }
}
