//! `envelopes.json`

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind, Payloads};
use omnimesh_protocol::identity::PublicKey;
use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Seq, Step};
use serde::{Deserialize, Serialize};

use crate::draft::{self, Draft, PHASE_INTERVAL};
use crate::{Hex, Num, curve, secret, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    mesh_name: String,
    mesh_secret: Hex,
    phase_interval: Num,
    author_seed: Hex,
    mesh_id: Hex,
    author: Hex,
    seq: Num,
    step: Num,
    kind: u64,
    channel: String,
    prev: Option<Hex>,
    timestamp_us: Option<Num>,
    payloads: Vec<Hex>,
    signed: Hex,
    digest: Hex,
    tag_key: Hex,
    tag: Hex,
    signature_input: Hex,
    signature: Hex,
    envelope: Hex,
    message_id: Hex,
    topic: String,
}

/// Seals the draft with the crate's own functions.
fn seal(draft: &Draft, seed: u8) -> Envelope {
    let header = Header {
        mesh: draft::mesh().id(),
        author: NodeId::from_bytes(draft.author),
        seq: Seq(draft.seq),
        step: Step(draft.step),
        kind: if draft.kind == 0 { Kind::Ephemeral } else { Kind::Durable },
        channel: Channel::new(&draft.channel).unwrap(),
        prev: draft.prev.map(Hash::from_bytes),
        timestamp_us: draft.timestamp_us,
    };
    let payloads: Payloads = draft.payloads.iter().cloned().map(Bytes::from).collect();
    let one = 1.try_into().unwrap();
    let mut patterns = PatternGenerator::new(secret(), PHASE_INTERVAL.try_into().unwrap(), one);
    Envelope::seal(&Identity::from_seed(&[seed; 32]), patterns.at(header.step), header, payloads).unwrap()
}

fn case(name: &str, seed: u8, change: impl FnOnce(&mut Draft)) -> Case {
    let mut draft = draft::draft();
    draft.author = *Identity::from_seed(&[seed; 32]).id().as_bytes();
    change(&mut draft);
    let sealed = seal(&draft, seed);
    let header = sealed.header();
    Case {
        name: name.to_owned(),
        mesh_name: draft::mesh().name().to_owned(),
        mesh_secret: secret().as_bytes().into(),
        phase_interval: Num(PHASE_INTERVAL),
        author_seed: [seed; 32].into(),
        mesh_id: header.mesh.as_bytes().into(),
        author: header.author.as_bytes().into(),
        seq: Num(draft.seq),
        step: Num(draft.step),
        kind: draft.kind,
        prev: draft.prev.map(Hex::from),
        timestamp_us: draft.timestamp_us.map(Num),
        payloads: draft.payloads.iter().map(Hex::from).collect(),
        signed: sealed.signed_bytes().into(),
        digest: sealed.digest().as_bytes().into(),
        tag_key: draft::tag_key(&secret(), draft.step).into(),
        tag: sealed.tag().into(),
        signature_input: draft::signature_input(sealed.signed_bytes()).into(),
        signature: sealed.signature().into(),
        envelope: sealed.as_bytes().into(),
        message_id: sealed.id().as_bytes().into(),
        topic: header.gossiped_on().topic(&header.mesh),
        channel: draft.channel,
    }
}

fn cases() -> Vec<Case> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let first = |draft: &mut Draft| {
        (draft.kind, draft.seq) = (1, 1);
        draft.payloads = vec![b"first entry".to_vec(), b"and its second payload".to_vec()];
    };
    let first_entry = case("durable, the first of its author's log, two payloads", 3, first);
    let head = first_entry.digest.array();
    vec![
        case("ephemeral, one payload: the walk-through of the document", 1, |_| ()),
        case("with a timestamp", 1, |draft| draft.timestamp_us = Some(1_700_000_000_000_000)),
        case("an empty payload", 2, |draft| draft.payloads = vec![Vec::new()]),
        case("three payloads, one of them empty", 2, |draft| {
            draft.payloads = vec![b"a".to_vec(), Vec::new(), b"ccc".to_vec()];
        }),
        case("every byte there is, in a payload of 256 bytes", 2, |draft| draft.payloads = vec![every_byte]),
        case("as many payloads as there may be", 2, |draft| {
            draft.payloads = (0..=255).map(|n| vec![n]).collect();
        }),
        case("payloads of 23, 24 and 255 bytes", 2, |draft| {
            draft.payloads = [23, 24, 255].map(|n| vec![0xa5; n]).into();
        }),
        case("smallest values", 1, |draft| {
            (draft.seq, draft.step, draft.timestamp_us) = (1, 0, Some(0));
            draft.channel = "-".to_owned();
        }),
        case("numbers of one, two, four and eight bytes", 1, |draft| {
            (draft.seq, draft.step, draft.timestamp_us) = (24, 256, Some(65_536));
        }),
        case("the last step of a phase", 1, |draft| draft.step = 1099),
        case("the first step of a phase", 1, |draft| draft.step = 1100),
        first_entry,
        case("durable, the next entry of the same log", 3, |draft| {
            (draft.kind, draft.seq, draft.step) = (1, 3, 1001);
            (draft.prev, draft.payloads) = (Some(head), vec![b"second entry".to_vec()]);
        }),
        case("largest values", 4, |draft| {
            (draft.kind, draft.prev) = (1, Some([0xff; 32]));
            (draft.seq, draft.step, draft.timestamp_us) = (u64::MAX - 1, u64::MAX, Some(u64::MAX));
            draft.channel = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.".to_owned();
        }),
    ]
}

/// Puts the envelope together anew from the fields of the case, by the document alone.
fn check(case: &Case) {
    let secret = MeshSecret::from_bytes(case.mesh_secret.array());
    let mesh = Mesh::new(&case.mesh_name, secret.clone()).unwrap();
    let draft = Draft {
        mesh: case.mesh_id.array(),
        author: case.author.array(),
        seq: case.seq.0,
        step: case.step.0,
        kind: case.kind,
        channel: case.channel.clone(),
        prev: case.prev.as_ref().map(Hex::array),
        timestamp_us: case.timestamp_us.map(|us| us.0),
        payloads: case.payloads.iter().map(|payload| payload.0.clone()).collect(),
    };
    assert_eq!(case.mesh_id, mesh.id().as_bytes().into());
    assert_eq!(case.signed, draft.signed().into());
    assert_eq!(case.digest, blake3::hash(&case.signed.0).as_bytes().into());
    assert_eq!(case.tag_key, draft::tag_key(&secret, case.step.0).into());
    assert_eq!(case.tag, blake3::keyed_hash(&case.tag_key.array(), &case.signed.0).as_bytes().into());
    assert_eq!(case.signature_input, [&b"omnimesh/1/envelope"[..], &case.digest.0].concat().into());
    let signed_by = Identity::from_seed(&case.author_seed.array());
    assert_eq!(case.signature, signed_by.sign(&case.signature_input.0).into());
    curve::verify(&case.author.array(), &case.signature_input.0, &case.signature.array()).unwrap();
    assert_eq!(case.envelope, draft::outer(&case.signed.0, &case.tag.0, &case.signature.0).into());
    assert_eq!(case.message_id, blake3::hash(&case.envelope.0).as_bytes()[..20].into());
    let gossiped_on = if case.kind == 1 { "_log" } else { &case.channel };
    assert_eq!(case.topic, format!("omnimesh/1/{}/{gossiped_on}", mesh.id()));

    let read = Envelope::decode(&case.envelope.0.clone().into(), case.envelope.0.len()).unwrap();
    assert!(read.is_signed_by(&PublicKey::new(&read.header().author).unwrap()));
    assert_eq!((read.header().seq, read.header().step), (Seq(case.seq.0), Step(case.step.0)));
    assert!(read.payloads().iter().eq(case.payloads.iter().map(|payload| &payload.0)));
    assert_eq!(case.message_id, read.id().as_bytes().into());
}

#[test]
fn envelopes() {
    let description = "Envelopes that are good, and every value on the way to them. Numbers of 64 bits are decimal \
                       text, bytes lower-case hex. `kind` is 0 for ephemeral and 1 for durable.";
    for case in settle("envelopes.json", description, cases()) {
        check(&case);
    }
}

#[test]
fn the_walk_through_of_the_document_is_the_first_case() {
    let document = include_str!("../../../docs/protocol.md");
    let begin = document.find("### One envelope, byte by byte").unwrap();
    let listing = document[begin..].split("```").nth(1).unwrap();
    let is_hex = |word: &&str| {
        word.len().is_multiple_of(2) && word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    };
    // In each line the bytes stand before the explanation, from which they are set off by two spaces.
    let bytes_of = |line: &str| {
        let bytes = line.trim().split("  ").next().unwrap_or_default().to_owned();
        bytes.split(' ').filter(is_hex).collect::<String>()
    };
    let (envelope, rest) = listing.split_once("digest").unwrap();
    let written: String = envelope.lines().map(bytes_of).collect();
    let case = &cases()[0];
    let hex = |bytes: &Hex| data_encoding::HEXLOWER.encode(&bytes.0);
    assert_eq!(written, hex(&case.envelope));
    for value in [&case.digest, &case.tag_key, &case.message_id] {
        assert!(rest.contains(&hex(value)), "{} is missing", hex(value));
    }
}
