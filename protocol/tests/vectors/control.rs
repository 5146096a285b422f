//! `control_frames.json`

use omnimesh_protocol::control::{
    AGENT_BYTES_MAX, Agent, DecodeError, FRAME_BYTES_MAX, Frame, Goodbye, SWIM_BYTES_MAX,
};
use omnimesh_protocol::{Identity, Mesh};
use serde::{Deserialize, Serialize};

use crate::{Hex, Num, cbor, secret, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    /// `frame`, `drop` (an unknown kind: read on) or `close`.
    outcome: String,
    frame: Hex,
    /// With the length before it, as on a stream.
    on_stream: Hex,
    kind: Option<String>,
    version: Option<u16>,
    proof: Option<Hex>,
    agent: Option<String>,
    nonce: Option<Num>,
    mesh_time_ns: Option<Num>,
    proposal_ns: Option<Num>,
    packet: Option<Hex>,
    reason: Option<u16>,
}

/// An unsigned varint: seven bits in each byte, the lowest first; the highest bit says that more follow.
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn bare(comment: &str, outcome: &str, bytes: &[u8]) -> Case {
    Case {
        comment: comment.to_owned(),
        outcome: outcome.to_owned(),
        frame: bytes.into(),
        on_stream: [varint(bytes.len()), bytes.to_vec()].concat().into(),
        kind: None,
        version: None,
        proof: None,
        agent: None,
        nonce: None,
        mesh_time_ns: None,
        proposal_ns: None,
        packet: None,
        reason: None,
    }
}

fn describe(frame: &Frame, case: &mut Case) {
    let kind = match frame {
        Frame::Hello { version, proof, agent } => {
            (case.version, case.proof) = (Some(*version), Some(proof.into()));
            case.agent = Some(agent.as_str().to_owned());
            "Hello"
        }
        Frame::StepRequest { nonce } => {
            case.nonce = Some(Num(*nonce));
            "StepRequest"
        }
        Frame::StepReply { nonce, mesh_time_ns, proposal_ns } => {
            (case.nonce, case.proposal_ns) = (Some(Num(*nonce)), Some(Num(*proposal_ns)));
            case.mesh_time_ns = mesh_time_ns.map(Num);
            "StepReply"
        }
        Frame::StepAnnounce { mesh_time_ns } => {
            case.mesh_time_ns = Some(Num(*mesh_time_ns));
            "StepAnnounce"
        }
        Frame::Swim(packet) => {
            case.packet = Some(packet.into());
            "Swim"
        }
        Frame::Goodbye(reason) => {
            case.reason = Some(reason.code());
            "Goodbye"
        }
    };
    case.kind = Some(kind.to_owned());
}

fn good(comment: &str, frame: &Frame) -> Case {
    let mut case = bare(comment, "frame", &frame.encode());
    describe(frame, &mut case);
    case
}

fn good_cases() -> Vec<Case> {
    let [prover, verifier] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).id());
    let proof = Mesh::new("kitchen", secret()).unwrap().member_proof(&prover, &verifier);
    let hello = |version, agent: &str| Frame::Hello { version, proof, agent: Agent::new(agent) };
    let packet = |length| Frame::Swim(vec![0x5a; length].into());
    let mut cases = vec![
        good("node 1 to node 2 of the mesh `kitchen`", &hello(1, "omnimesh/0.1.0")),
        good("an empty agent", &hello(1, "")),
        good("the longest agent, of another version", &hello(u16::MAX, &"ü".repeat(AGENT_BYTES_MAX / 2))),
        good("smallest", &Frame::StepRequest { nonce: 0 }),
        good("largest", &Frame::StepRequest { nonce: u64::MAX }),
        good("not synchronised", &Frame::StepReply { nonce: 24, mesh_time_ns: None, proposal_ns: 256 }),
        good(
            "synchronised",
            &Frame::StepReply {
                nonce: 0x0123_4567_89ab_cdef,
                mesh_time_ns: Some(1_000_500_000_000),
                proposal_ns: 1_000_500_000_000,
            },
        ),
        good("", &Frame::StepAnnounce { mesh_time_ns: 65_536 }),
        good("an empty packet", &packet(0)),
        good("a packet of 300 bytes", &packet(300)),
    ];
    for code in [0, 1, 2, 3, 4, 5, 6, u16::MAX] {
        let reason = Goodbye::from_code(code);
        cases.push(good(&reason.to_string(), &Frame::Goodbye(reason)));
    }
    cases
}

fn bad_cases() -> Vec<Case> {
    let hello = |proof: Vec<u8>, agent: Vec<u8>| cbor::array(&[cbor::uint(0), cbor::uint(1), proof, agent]);
    let proof = || cbor::bytes([0xab; 32]);
    let mut cases = vec![
        bare("kind 6", "drop", &[0x82, 0x06, 0x01]),
        bare("kind 6 with no field", "drop", &[0x81, 0x06]),
        bare("kind 2^64 - 1 with fields of any kind", "drop", &{
            cbor::array(&[cbor::uint(u64::MAX), cbor::text("x"), cbor::array(&[cbor::uint(1)])])
        }),
    ];
    let close: [(&str, Vec<u8>); 22] = [
        ("no bytes", Vec::new()),
        ("a number", vec![0x01]),
        ("a map", vec![0xa1, 0x01, 0x02]),
        ("an empty array", vec![0x80]),
        ("text for the kind", vec![0x82, 0x61, 0x61, 0x01]),
        ("a field is missing", vec![0x81, 0x01]),
        ("a field too many", vec![0x83, 0x01, 0x01, 0x01]),
        ("cut", vec![0x82, 0x01]),
        ("a negative nonce", vec![0x82, 0x01, 0x20]),
        ("null for a nonce", vec![0x82, 0x01, 0xf6]),
        ("a reason of more than 16 bits", vec![0x82, 0x05, 0x1a, 0x00, 0x01, 0x00, 0x00]),
        ("a proof of 31 bytes", hello(cbor::bytes([0xab; 31]), cbor::text("x"))),
        ("text for the proof", hello(cbor::text([b'a'; 32]), cbor::text("x"))),
        ("bytes for the agent", hello(proof(), cbor::bytes("x"))),
        ("an agent of 65 bytes", hello(proof(), cbor::text("a".repeat(65)))),
        ("an agent with an escape character", hello(proof(), cbor::text("\u{1b}[2J"))),
        ("an agent with a control character of two bytes", hello(proof(), cbor::text("\u{9b}"))),
        ("an agent that is not UTF-8", hello(proof(), cbor::text([0xff]))),
        ("a byte more", vec![0x82, 0x01, 0x01, 0x00]),
        ("a nonce in two bytes where one does", vec![0x82, 0x01, 0x18, 0x01]),
        ("an array of indefinite length", vec![0x9f, 0x01, 0x01, 0xff]),
        ("a tag before the frame", vec![0xc1, 0x82, 0x01, 0x01]),
    ];
    cases.extend(close.map(|(comment, bytes)| bare(comment, "close", &bytes)));
    cases
}

#[test]
fn control_frames() {
    let mut cases = good_cases();
    cases.extend(bad_cases());
    let description = "Frames of the control stream. `outcome` is `frame` where the frame is good, `drop` where its \
                       kind is unknown (the stream goes on), `close` where it must be refused and the connection \
                       closed. Fields that the kind does not have are null; so is `mesh_time_ns` in the reply of a \
                       node that is not synchronised.";
    for case in settle("control_frames.json", description, cases) {
        assert_eq!(case.on_stream.0, [varint(case.frame.0.len()), case.frame.0.clone()].concat());
        match Frame::decode(&case.frame.0) {
            Ok(frame) => {
                let mut read = bare(&case.comment, "frame", &case.frame.0);
                describe(&frame, &mut read);
                let [read, case] = [read, case].map(|case| serde_json::to_string(&case).unwrap());
                assert_eq!(read, case);
            }
            Err(DecodeError::UnknownKind(_)) => assert_eq!(case.outcome, "drop", "{}", case.comment),
            Err(_) => assert_eq!(case.outcome, "close", "{}", case.comment),
        }
    }
}

#[test]
fn the_limits_are_those_of_the_document() {
    assert_eq!((AGENT_BYTES_MAX, SWIM_BYTES_MAX, FRAME_BYTES_MAX), (64, 61_440, 65_536));
    let long = cbor::array(&[cbor::uint(4), cbor::bytes(vec![0; SWIM_BYTES_MAX + 1])]);
    assert_eq!(Frame::decode(&long), Err(DecodeError::SwimTooLong));
    assert_eq!(varint(300), [0xac, 0x02]);
}
