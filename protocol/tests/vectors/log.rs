//! `log_frames.json`, `log_fingerprints.json` and `log_proofs.json`

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind, Payloads};
use omnimesh_protocol::log::checkpoint::{Checkpoint, Part, Sealed, Vote};
use omnimesh_protocol::log::reconcile::{Content, HeadSet, Range};
use omnimesh_protocol::log::wire::{Decline, DecodeError, Frame};
use omnimesh_protocol::log::{AuthorHead, Head, Proof, Record};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Seq, Step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Hex, cbor, secret, settle, varint};

const BYTES_MAX: usize = 65_536;

#[derive(Serialize, Deserialize)]
struct FrameCase {
    comment: String,
    /// `frame`, `drop` (an unknown kind: read on) or `close`.
    outcome: String,
    frame: Hex,
    on_stream: Hex,
    /// What a good frame says.
    says: Option<Value>,
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn head_says(head: &AuthorHead) -> Value {
    json!({
        "author": hex(head.author.as_bytes()), "last": head.head.seq.0.to_string(),
        "digest": hex(head.head.digest.as_bytes()), "proof": head.proof.map(|proof| hex(proof.as_bytes())),
    })
}

fn heads_say(heads: &[AuthorHead]) -> Value {
    heads.iter().map(head_says).collect()
}

fn range_says(range: &Range) -> Value {
    let (fingerprint, heads) = match &range.content {
        Content::Fingerprint(fingerprint) => (Some(hex(fingerprint)), None),
        Content::Heads(heads) => (None, Some(heads_say(heads))),
    };
    json!({
        "lower": hex(&range.lower), "upper": range.upper.as_ref().map(|upper| hex(upper)),
        "fingerprint": fingerprint, "heads": heads,
    })
}

fn code(reason: Decline) -> u64 {
    match reason {
        Decline::Missing => 0,
        Decline::Busy => 1,
        Decline::Truncated => 2,
        Decline::Other(code) => code,
    }
}

fn says(frame: &Frame) -> Value {
    let author = |author: &NodeId| hex(author.as_bytes());
    match frame {
        Frame::Compare { round, ranges } => {
            let ranges: Value = ranges.iter().map(range_says).collect();
            json!({ "kind": "Compare", "round": round.to_string(), "ranges": ranges })
        }
        Frame::Heads(heads) => json!({ "kind": "Heads", "heads": heads_say(heads) }),
        Frame::Fetch { id, author: whose, from, to, bytes_max } => json!({
            "kind": "Fetch", "id": id.to_string(), "author": author(whose), "from": from.0.to_string(),
            "to": to.0.to_string(), "bytes": bytes_max.to_string(),
        }),
        Frame::Records { id, next, records } => {
            let records: Vec<String> = records.iter().map(|record| hex(record)).collect();
            json!({ "kind": "Records", "id": id.to_string(), "next": next.0.to_string(), "records": records })
        }
        Frame::Decline { id, reason, seq } => json!({
            "kind": "Decline", "id": id.to_string(), "reason": code(*reason).to_string(), "seq": seq.0.to_string(),
        }),
        Frame::Find { id, author: whose, seq } => {
            json!({ "kind": "Find", "id": id.to_string(), "author": author(whose), "seq": seq.0.to_string() })
        }
        Frame::AskProof(whose) => json!({ "kind": "AskProof", "author": author(whose) }),
        Frame::Proof(proof) => json!({ "kind": "Proof", "proof": hex(proof) }),
        Frame::AskHead(whose) => json!({ "kind": "AskHead", "author": author(whose) }),
        Frame::HeadOf { author: whose, head } => {
            json!({ "kind": "HeadOf", "author": author(whose), "head": head.as_ref().map(head_says) })
        }
        Frame::AskCheckpoint { author: whose, seq } => {
            json!({ "kind": "AskCheckpoint", "author": author(whose), "seq": seq.0.to_string() })
        }
        Frame::Offer(sealed) => {
            json!({ "kind": "Offer", "sealed": sealed.as_ref().map(|sealed| hex(&sealed.encode())) })
        }
        Frame::Votes { step, checkpoint, votes } => {
            let votes: Vec<String> = votes.iter().map(|vote| hex(&vote.to_wire())).collect();
            json!({
                "kind": "Votes", "step": step.0.to_string(), "id": hex(checkpoint.as_bytes()), "votes": votes,
            })
        }
        Frame::AskChunk { id, checkpoint, part, index } => json!({
            "kind": "AskChunk", "id": id.to_string(), "checkpoint": hex(checkpoint.as_bytes()),
            "part": part.to_string(), "index": index.to_string(),
        }),
        Frame::Chunk { id, bytes } => {
            json!({ "kind": "Chunk", "id": id.to_string(), "chunk": hex(bytes) })
        }
    }
}

fn frame_case(comment: &str, outcome: &str, bytes: &[u8], says: Option<Value>) -> FrameCase {
    FrameCase {
        comment: comment.to_owned(),
        outcome: outcome.to_owned(),
        frame: bytes.into(),
        on_stream: [varint(bytes.len()), bytes.to_vec()].concat().into(),
        says,
    }
}

fn good(comment: &str, frame: &Frame) -> FrameCase {
    frame_case(comment, "frame", &frame.encode(), Some(says(frame)))
}

fn author(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn head(seed: u8, last: u64) -> AuthorHead {
    let digest = Hash::of(&[seed]);
    AuthorHead { author: author(seed).id(), head: Head { seq: Seq(last), digest }, proof: None }
}

fn frozen(seed: u8, last: u64) -> AuthorHead {
    AuthorHead { proof: Some(Hash::of(b"proof")), ..head(seed, last) }
}

/// A record of an author in the mesh `kitchen`.
fn record(seed: u8, first: u64, prev: Option<Hash>, payloads: &[&str]) -> Record {
    let mesh = Mesh::new("kitchen", secret()).unwrap();
    let mut patterns =
        PatternGenerator::new(mesh.secret().clone(), 100.try_into().unwrap(), 4.try_into().unwrap());
    let header = Header {
        mesh: mesh.id(),
        author: author(seed).id(),
        seq: Seq(first),
        step: Step(1000),
        kind: Kind::Durable,
        channel: Channel::new("log").unwrap(),
        prev,
        timestamp_us: None,
    };
    let payloads: Payloads = payloads.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    Record::new(Envelope::seal(&author(seed), patterns.at(Step(1000)), header, payloads).unwrap()).unwrap()
}

fn some_heads() -> Vec<AuthorHead> {
    let mut heads: Vec<AuthorHead> = (1..=20)
        .map(|seed| if seed == 7 { frozen(seed, 2) } else { head(seed, 100 * u64::from(seed)) })
        .collect();
    heads.sort_by_key(|head| head.author);
    heads
}

fn compares() -> Vec<FrameCase> {
    let compare = |round, ranges| Frame::Compare { round, ranges };
    let mut set = HeadSet::new();
    let nothing = set.all();
    some_heads().into_iter().for_each(|head| set.put(head));
    let whole = set.all();
    // What a node that has twenty heads answers to one that has none, and the other way round.
    let parts = set.answer(std::slice::from_ref(&nothing)).ranges;
    let leaf = HeadSet::new().answer(std::slice::from_ref(&whole)).ranges;
    let mut few = HeadSet::new();
    some_heads().into_iter().take(3).for_each(|head| few.put(head));
    let told = few.answer(std::slice::from_ref(&whole)).ranges;
    vec![
        good("all of a node that has nothing", &compare(1, vec![nothing])),
        good("all of twenty heads", &compare(u64::MAX, vec![whole])),
        good("parts of twenty heads", &compare(300, parts)),
        good("no heads in a range", &compare(301, leaf)),
        good("three heads in a range", &compare(302, told)),
        good("an answer without ranges ends the round", &compare(1, Vec::new())),
    ]
}

fn good_frames() -> Vec<FrameCase> {
    let me = author(1).id();
    let one = record(1, 1, None, &["first"]);
    let two = record(1, 2, Some(one.digest()), &["second", "third"]);
    let records = |records: &[&Record]| records.iter().map(|record| record.as_bytes().clone()).collect();
    let mut cases = compares();
    cases.extend([
        good("no heads", &Frame::Heads(Vec::new())),
        good("a head, and one of a frozen log", &Frame::Heads(vec![head(1, 3), frozen(2, 1)])),
        good(
            "a log that is frozen at its first entry",
            &Frame::Heads(vec![AuthorHead {
                head: Head { seq: Seq(0), digest: Hash::from_bytes([0; 32]) },
                ..frozen(2, 0)
            }]),
        ),
        good(
            "asks for entries 1 to 3",
            &Frame::Fetch { id: 4_000_000_000, author: me, from: Seq(1), to: Seq(3), bytes_max: 262_144 },
        ),
        good(
            "two records",
            &Frame::Records { id: 4_000_000_000, next: Seq(4), records: records(&[&one, &two]) },
        ),
        good(
            "no record begins before entry 9",
            &Frame::Records { id: 24, next: Seq(9), records: Vec::new() },
        ),
        good("finds the record that covers entry 3", &Frame::Find { id: 0, author: me, seq: Seq(3) }),
        good("asks for a proof", &Frame::AskProof(me)),
        good("a proof, whatever its bytes", &Frame::Proof(Bytes::from_static(b"\x01\x02"))),
        good("asks for a head", &Frame::AskHead(me)),
        good("a head that was asked for", &Frame::HeadOf { author: me, head: Some(head(1, 3)) }),
        good("nothing of that author", &Frame::HeadOf { author: me, head: None }),
    ]);
    cases.extend(checkpoint_frames());
    for reason in [Decline::Missing, Decline::Busy, Decline::Truncated] {
        let seq = Seq(if reason == Decline::Truncated { 17 } else { 0 });
        cases.push(good(&format!("declined: {reason:?}"), &Frame::Decline { id: 5, reason, seq }));
    }
    cases
}

/// Who signs a checkpoint that has nothing to do with any log.
fn sealed(signers: &[u8]) -> Sealed {
    let parts = vec![Part::new("cut", b"cut"), Part::new("registry", b"state")];
    let mesh = Mesh::new("kitchen", secret()).unwrap().id();
    let checkpoint = Checkpoint { mesh, step: Step(3600), parts };
    let mut votes: Vec<Vote> =
        signers.iter().map(|seed| Vote::new(&author(*seed), mesh, &checkpoint.id())).collect();
    votes.sort_by_key(|vote| vote.signer);
    Sealed { checkpoint, heads: Part::new("heads", b"heads"), votes }
}

fn checkpoint_frames() -> Vec<FrameCase> {
    let sealed = sealed(&[1, 2]);
    let (checkpoint, votes) = (sealed.checkpoint.id(), sealed.votes.clone());
    vec![
        good(
            "asks for a checkpoint that covers entry 7",
            &Frame::AskCheckpoint { author: author(1).id(), seq: Seq(7) },
        ),
        good("offers none", &Frame::Offer(None)),
        good("offers one", &Frame::Offer(Some(sealed))),
        good("two signatures", &Frame::Votes { step: Step(3600), checkpoint, votes }),
        good("asks for a chunk", &Frame::AskChunk { id: 9, checkpoint, part: 2, index: 300 }),
        good("a chunk", &Frame::Chunk { id: 9, bytes: Bytes::from_static(b"heads") }),
    ]
}

fn bad_frames() -> Vec<FrameCase> {
    use cbor::{NULL, array, bytes, uint};
    let me = author(1).id();
    let key = || bytes(me.as_bytes());
    let range = |lower: &[u8], upper: Option<&[u8]>, content: Vec<u8>| {
        array(&[bytes(lower), upper.map_or(NULL.to_vec(), bytes), content])
    };
    let compare = |ranges: &[Vec<u8>]| array(&[uint(0), uint(1), array(ranges)]);
    let print = || bytes([9; 16]);
    let heads = some_heads();
    let wire = |head: &AuthorHead| bytes(head.to_wire());
    let sealed = sealed(&[1, 2]);
    let offer = |sealed: &Sealed| array(&[uint(11), bytes(sealed.encode())]);
    let vote = bytes(sealed.votes[0].to_wire());
    let close: Vec<(&str, Vec<u8>)> = vec![
        (
            "an offer with its signatures out of order",
            offer(&Sealed { votes: sealed.votes.iter().rev().copied().collect(), ..sealed.clone() }),
        ),
        (
            "an offer that one has signed twice",
            offer(&Sealed { votes: vec![sealed.votes[0]; 2], ..sealed.clone() }),
        ),
        (
            "an offer without a word of heads",
            array(&[
                uint(11),
                bytes(array(&[bytes(sealed.checkpoint.encode()), array(std::slice::from_ref(&vote))])),
            ]),
        ),
        ("a signature of 95 bytes", array(&[uint(12), uint(3600), bytes([1; 32]), array(&[bytes([1; 95])])])),
        ("no bytes", Vec::new()),
        ("a number", vec![0x01]),
        ("an empty array", vec![0x80]),
        ("a field is missing", array(&[uint(6)])),
        ("a field too many", array(&[uint(6), key(), uint(1)])),
        ("an author of 31 bytes", array(&[uint(6), bytes([1; 31])])),
        ("text for the proof", array(&[uint(7), cbor::text("x")])),
        ("a head of 71 bytes", array(&[uint(1), array(&[bytes([1; 71])])])),
        ("a head with half a proof", array(&[uint(1), array(&[bytes([1; 88])])])),
        ("a head of another author than asked for", array(&[uint(9), key(), wire(&head(2, 3))])),
        ("a fingerprint of 15 bytes", compare(&[range(b"", None, bytes([9; 15]))])),
        ("a bound of 33 bytes", compare(&[range(&[1; 33], None, print())])),
        ("a range that ends where it begins", compare(&[range(b"a", Some(b"a"), print())])),
        (
            "a range behind the one that has no end",
            compare(&[range(b"", None, print()), range(b"b", None, print())]),
        ),
        ("ranges that overlap", compare(&[range(b"", Some(b"c"), print()), range(b"b", None, print())])),
        ("heads out of order", compare(&[range(b"", None, array(&[wire(&heads[1]), wire(&heads[0])]))])),
        ("a head outside its range", compare(&[range(b"", Some(b"\0"), array(&[wire(&heads[0])]))])),
        ("a number in two bytes where one does", vec![0x83, 0x00, 0x18, 0x01, 0x80]),
        ("a byte more", [array(&[uint(6), key()]), vec![0]].concat()),
        ("cut", array(&[uint(6), key()])[..20].to_vec()),
    ];
    let mut cases: Vec<FrameCase> =
        close.iter().map(|(comment, bytes)| frame_case(comment, "close", bytes, None)).collect();
    cases.push(frame_case("kind 15", "drop", &array(&[uint(15), uint(1)]), None));
    cases.push(frame_case("kind 2^64 - 1", "drop", &array(&[uint(u64::MAX), cbor::text("x")]), None));
    cases
}

#[test]
fn log_frames() {
    let mut cases = good_frames();
    cases.extend(bad_frames());
    let description = "Frames of the log stream. `outcome` is `frame` where the frame is good, `drop` where its kind is \
                       unknown (the stream goes on), `close` where it must be refused and the connection closed. \
                       `says` is what a good frame says; the fingerprints are of the heads of the frame `parts of twenty \
                       heads` and its neighbours.";
    for case in settle("log_frames.json", description, cases) {
        assert_eq!(case.on_stream.0, [varint(case.frame.0.len()), case.frame.0.clone()].concat());
        match Frame::decode(&case.frame.0.clone().into()) {
            Ok(frame) => {
                assert_eq!(frame.encode(), case.frame.0, "{}", case.comment);
                assert_eq!(
                    (case.outcome.as_str(), Some(says(&frame))),
                    ("frame", case.says),
                    "{}",
                    case.comment
                );
            }
            Err(DecodeError::UnknownKind(_)) => assert_eq!(case.outcome, "drop", "{}", case.comment),
            Err(DecodeError::Malformed) => assert_eq!(case.outcome, "close", "{}", case.comment),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct FingerprintCase {
    comment: String,
    heads: Vec<Hex>,
    /// Of each head.
    hashes: Vec<Hex>,
    fingerprint: Hex,
}

fn head_hash(head: &[u8]) -> [u8; 32] {
    blake3::derive_key("omnimesh 2026-11 log head", head)
}

#[test]
fn log_fingerprints() {
    let case = |comment: &str, heads: &[AuthorHead]| {
        let mut set = HeadSet::new();
        heads.iter().for_each(|head| set.put(*head));
        FingerprintCase {
            comment: comment.to_owned(),
            heads: heads.iter().map(|head| head.to_wire().into()).collect(),
            hashes: heads.iter().map(|head| head_hash(&head.to_wire()).into()).collect(),
            fingerprint: set.fingerprint().into(),
        }
    };
    let heads = some_heads();
    let cases = vec![
        case("no heads", &[]),
        case("one head", &heads[..1]),
        case("two heads", &heads[..2]),
        case("twenty heads, one of a frozen log", &heads),
    ];
    let description = "Heads on the wire, the hash of each, and the fingerprint of all of a case together.";
    for case in settle("log_fingerprints.json", description, cases) {
        let mut set = HeadSet::new();
        for (head, hash) in case.heads.iter().zip(&case.hashes) {
            let head = AuthorHead::from_wire(&head.0).unwrap();
            assert_eq!(head_hash(&head.to_wire())[..], hash.0, "{}", case.comment);
            set.put(head);
        }
        assert_eq!(set.fingerprint()[..], case.fingerprint.0, "{}", case.comment);
    }
}

#[derive(Serialize, Deserialize)]
struct ProofCase {
    comment: String,
    proof: Hex,
    /// `good`, or why it proves nothing.
    outcome: String,
    author: Option<Hex>,
    fork: Option<String>,
    id: Option<Hex>,
}

fn outcome(bytes: &[u8]) -> (String, Option<Proof>) {
    let proof = Proof::decode(&Bytes::copy_from_slice(bytes), BYTES_MAX);
    match proof.and_then(|proof| proof.verify().map(|()| proof)) {
        Ok(proof) => ("good".to_owned(), Some(proof)),
        Err(error) => (error.code().to_owned(), None),
    }
}

fn proof_case(comment: &str, bytes: &[u8]) -> ProofCase {
    let (outcome, proof) = outcome(bytes);
    ProofCase {
        comment: comment.to_owned(),
        proof: bytes.into(),
        outcome,
        author: proof.as_ref().map(|proof| proof.author().as_bytes().into()),
        fork: proof.as_ref().map(|proof| proof.fork().0.to_string()),
        id: proof.as_ref().map(|proof| proof.id().as_bytes().into()),
    }
}

/// A proof as the document says, whatever is in it.
fn proof_of(version: u64, first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("omnimesh 2026-11 equivocation check");
    let check = hasher.update(first).update(second).finalize();
    cbor::array(&[
        cbor::uint(version),
        cbor::bytes(first),
        cbor::bytes(second),
        cbor::bytes(&check.as_bytes()[..16]),
    ])
}

#[test]
fn log_proofs() {
    let root = record(1, 1, None, &["root"]);
    let prev = Some(root.digest());
    let pair = |one: &Record, other: &Record| Proof::new(one, other).unwrap().encode();
    let (yes, no) = (record(1, 2, prev, &["yes"]), record(1, 2, prev, &["no"]));
    let long = record(1, 2, prev, &["a", "b", "c"]);
    let late = record(1, 4, Some(no.digest()), &["late"]);
    let good = pair(&yes, &no);
    let changed = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let swapped = |one: &Record, other: &Record| {
        let proof = Proof::new(one, other).unwrap();
        let [first, second] = proof.records().map(|record| record.as_bytes().clone());
        proof_of(1, &second, &first)
    };
    let [first, second] = if yes.digest() < no.digest() { [&yes, &no] } else { [&no, &yes] };
    let signed_by_another = {
        let mut bytes = second.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        proof_of(1, first.as_bytes(), &bytes)
    };
    // The tag of the first record: before its signature, 2 + 64 bytes at its end.
    let tag =
        good.windows(first.as_bytes().len()).position(|window| window == &first.as_bytes()[..]).unwrap()
            + first.as_bytes().len()
            - 66
            - 1;
    let cases = vec![
        proof_case("two records with one number", &good),
        proof_case("two that begin a log", &pair(&root, &record(1, 1, None, &["another root"]))),
        proof_case("one record covers the number of the other", &pair(&long, &late)),
        proof_case("in the wrong order", &swapped(&yes, &no)),
        proof_case("one record twice", &proof_of(1, yes.as_bytes(), yes.as_bytes())),
        proof_case("no number in common", &proof_of(1, root.as_bytes(), yes.as_bytes())),
        proof_case("two authors", &proof_of(1, yes.as_bytes(), record(2, 2, prev, &["no"]).as_bytes())),
        proof_case("a signature of nobody", &signed_by_another),
        proof_case("a byte of a tag was changed", &changed(tag)),
        proof_case("a byte of the check was changed", &changed(good.len() - 1)),
        proof_case("of another version", &proof_of(2, first.as_bytes(), second.as_bytes())),
        proof_case("cut", &good[..good.len() - 1]),
        proof_case("a byte more", &[&good[..], &[0]].concat()),
        proof_case(
            "without a check",
            &cbor::array(&[cbor::uint(1), cbor::bytes(first.as_bytes()), cbor::bytes(second.as_bytes())]),
        ),
        proof_case("no bytes", b""),
    ];
    let description = "Proofs of equivocation, judged without the secret of their mesh. `outcome` is `good`, or why the bytes prove \
                       nothing; then there is nothing else. The mesh is `kitchen` of `envelopes.json`.";
    for case in settle("log_proofs.json", description, cases) {
        let (outcome, proof) = outcome(&case.proof.0);
        assert_eq!(outcome, case.outcome, "{}", case.comment);
        assert_eq!(proof.is_some(), case.id.is_some());
        if let Some(proof) = proof {
            let found = (Hex::from(proof.id().as_bytes()), Some(proof.fork().0.to_string()));
            assert_eq!(found, (case.id.unwrap(), case.fork), "{}", case.comment);
        }
    }
}
