//! Frames of the control stream: what two neighbours say to each other outside gossip.
//!
//! Between two connected peers there is one long-lived stream in each direction under the protocol name
//! of [`protocol_name`], `/omnimesh/1/<mesh id hex>/control`. A stream is a sequence of messages, each
//! one frame; the shell puts an unsigned varint with its length before each. The first frame on each
//! stream is `Hello`; without it, or with a wrong proof in it, nothing else is read.
//!
//! ```text
//!  dialler                                    listener
//!     │ ── Hello(version, proof, agent) ──────────► │   each proves that it knows the mesh secret
//!     │ ◄────────── Hello(version, proof, agent) ── │   (see `Mesh::member_proof`)
//!     │ ── StepRequest(nonce) ────────────────────► │
//!     │ ◄────── StepReply(nonce, time, proposal) ── │
//!     │ ◄──────────────────────── Swim(packet) ──── │
//!     │ ── Goodbye(reason) ───────────────────────► │   a polite end; the stream closes after it
//! ```
//!
//! # The bytes
//! A frame is one CBOR array (RFC 8949) of definite length: its kind, then its fields, in this order.
//!
//! | kind | frame        | fields                                                                          |
//! |------|--------------|---------------------------------------------------------------------------------|
//! | 0    | Hello        | version: uint, 16 bits · proof: bytes, 32 · agent: text, at most 64 bytes       |
//! | 1    | StepRequest  | nonce: uint, 64 bits                                                            |
//! | 2    | StepReply    | nonce: uint, 64 bits · mesh time: uint, 64 bits, or null · proposal: uint, 64 bits |
//! | 3    | StepAnnounce | mesh time: uint, 64 bits                                                        |
//! | 4    | Swim         | packet: bytes, at most 61,440                                                   |
//! | 5    | Goodbye      | reason: uint, 16 bits                                                           |
//!
//! Times are nanoseconds. The agent holds no control characters. Every integer and length has its
//! shortest form, so a frame has exactly one encoding; every other encoding of it is refused, with tags,
//! indefinite lengths and bytes after the array among them. So `[1, 500]` is `82 01 19 01f4`.
//!
//! A receiver that meets an unknown kind drops that frame and goes on: a later version may add kinds, but
//! it never adds fields to these. Every other refusal ends the connection, as the peer is broken or hostile.
//!
//! Frames carry no signature: the transport has authenticated the peer, and none of them is ever passed on.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::id::{FixedBytes, MeshId};

/// The version in `Hello`.
pub const VERSION: u16 = 1;
/// Longest frame, in bytes; the shell refuses a longer one by its length, before it reads it.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Longest packet in a `Swim` frame, in bytes. SWIM's own packets stay far below.
pub const SWIM_BYTES_MAX: usize = 60 * 1024;
/// Longest agent text, in bytes of UTF-8.
pub const AGENT_BYTES_MAX: usize = 64;

/// The name under which the control streams of this mesh are negotiated.
pub fn protocol_name(mesh: MeshId) -> String {
    format!("/omnimesh/1/{mesh}/control")
}

/// One message on a control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first on every stream.
    Hello {
        /// The sender's [`VERSION`]; what to do about another one is the receiver's choice.
        version: u16,
        /// [`Mesh::member_proof`](crate::Mesh::member_proof) of the sender for the receiver.
        proof: [u8; 32],
        /// The sender's software, for people.
        agent: Agent,
    },
    /// Asks for the peer's mesh time.
    StepRequest {
        /// Comes back in the reply; unpredictable, so that no reply is made before its request.
        nonce: u64,
    },
    /// Answers a `StepRequest`.
    StepReply {
        /// That of the request.
        nonce: u64,
        /// The sender's mesh time in nanoseconds; `None` while it is not synchronised.
        mesh_time_ns: Option<u64>,
        /// What the sender would take as mesh time if it had to found the mesh now, in nanoseconds.
        proposal_ns: u64,
    },
    /// Says that the sender's mesh time has changed in a way that peers should look at.
    StepAnnounce {
        /// The sender's mesh time in nanoseconds.
        mesh_time_ns: u64,
    },
    /// A packet of the membership protocol, at most [`SWIM_BYTES_MAX`].
    Swim(Bytes),
    /// The sender is about to close.
    Goodbye(Goodbye),
}

/// Why a peer closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// 0: its process ends in good order.
    Shutdown,
    /// 1: the proof in `Hello` is not of this mesh.
    WrongMesh,
    /// 2: it does not speak the version in `Hello`.
    Version,
    /// 3: it has as many connections as it wants.
    Full,
    /// 4: it has quarantined the receiver.
    Quarantined,
    /// 5: a frame was refused.
    BadFrame,
    /// 6: the receiver is not on its list of allowed members.
    NotAllowed,
    /// 7: the receiver did not say Hello in time.
    HelloTimeout,
    /// Any other code: one of a later version.
    Other(u16),
}

impl Goodbye {
    /// The code on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Goodbye::Shutdown => 0,
            Goodbye::WrongMesh => 1,
            Goodbye::Version => 2,
            Goodbye::Full => 3,
            Goodbye::Quarantined => 4,
            Goodbye::BadFrame => 5,
            Goodbye::NotAllowed => 6,
            Goodbye::HelloTimeout => 7,
            Goodbye::Other(code) => code,
        }
    }

    /// The reason with this code.
    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => Goodbye::Shutdown,
            1 => Goodbye::WrongMesh,
            2 => Goodbye::Version,
            3 => Goodbye::Full,
            4 => Goodbye::Quarantined,
            5 => Goodbye::BadFrame,
            6 => Goodbye::NotAllowed,
            7 => Goodbye::HelloTimeout,
            code => Goodbye::Other(code),
        }
    }
}

impl fmt::Display for Goodbye {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goodbye::Shutdown => f.write_str("shuts down"),
            Goodbye::WrongMesh => f.write_str("not of one mesh"),
            Goodbye::Version => f.write_str("version not supported"),
            Goodbye::Full => f.write_str("has no room for more connections"),
            Goodbye::Quarantined => f.write_str("has quarantined this node"),
            Goodbye::BadFrame => f.write_str("was sent a frame that it refused"),
            Goodbye::NotAllowed => f.write_str("this node is not on its list of allowed members"),
            Goodbye::HelloTimeout => f.write_str("was not greeted in time"),
            Goodbye::Other(code) => write!(f, "unknown reason {code}"),
        }
    }
}

/// The name and version of a peer's software: short text that is safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent(String);

impl Agent {
    /// Makes an agent of any text: leaves out control characters, cuts what is too long.
    pub fn new(text: &str) -> Self {
        let mut agent = String::new();
        for c in text.chars().filter(|c| !c.is_control()) {
            if agent.len() + c.len_utf8() > AGENT_BYTES_MAX {
                break;
            }
            agent.push(c);
        }
        Agent(agent)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than a frame may have; the rest was not looked at.
    #[error("a control frame of {len} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong {
        /// How many bytes there were.
        len: usize,
    },
    /// Cut short, not CBOR, or not an array of fields of the right types.
    #[error("malformed control frame")]
    Malformed,
    /// A kind of a later version. The one refusal that leaves the connection open.
    #[error("unknown kind of control frame: {0}")]
    UnknownKind(u64),
    /// More or fewer fields than this kind has.
    #[error("a control frame of kind {kind} has {fields} fields")]
    WrongFieldCount {
        /// The kind.
        kind: u64,
        /// How many fields there are, the kind not counted.
        fields: usize,
    },
    /// The agent is too long or has control characters.
    #[error("the agent in a control frame is longer than {AGENT_BYTES_MAX} bytes or not printable")]
    BadAgent,
    /// The membership packet is too long.
    #[error("the membership packet in a control frame is longer than {SWIM_BYTES_MAX} bytes")]
    SwimTooLong,
    /// Not the one encoding that the frame has, or bytes after it.
    #[error("a control frame is followed by other bytes or not in its shortest form")]
    NotCanonical,
}

impl DecodeError {
    /// The stable name in metrics and events.
    pub const fn code(&self) -> &'static str {
        match self {
            DecodeError::TooLong { .. } => "too_long",
            DecodeError::Malformed => "malformed",
            DecodeError::UnknownKind(_) => "unknown_kind",
            DecodeError::WrongFieldCount { .. } => "wrong_field_count",
            DecodeError::BadAgent => "bad_agent",
            DecodeError::SwimTooLong => "swim_too_long",
            DecodeError::NotCanonical => "not_canonical",
        }
    }
}

const HELLO: u64 = 0;
const STEP_REQUEST: u64 = 1;
const STEP_REPLY: u64 = 2;
const STEP_ANNOUNCE: u64 = 3;
const SWIM: u64 = 4;
const GOODBYE: u64 = 5;

/// How many fields follow the kind.
const fn field_count(kind: u64) -> Option<usize> {
    match kind {
        HELLO | STEP_REPLY => Some(3),
        STEP_REQUEST | STEP_ANNOUNCE | SWIM | GOODBYE => Some(1),
        _ => None,
    }
}

impl Frame {
    /// The bytes of the frame, without the length before it.
    ///
    /// # Panics
    /// If a SWIM packet is longer than [`SWIM_BYTES_MAX`]: its maker is configured to stay far below.
    pub fn encode(&self) -> Vec<u8> {
        if let Frame::Swim(packet) = self {
            assert!(packet.len() <= SWIM_BYTES_MAX, "a membership packet of {} bytes", packet.len());
        }
        self.to_cbor()
    }

    /// Reads the bytes of one frame.
    ///
    /// # Errors
    /// Says what is wrong with them. Memory and depth stay bounded whatever the bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLong { len: bytes.len() });
        }
        let mut reason = None;
        let mut deserializer = serde_cbor::Deserializer::from_slice(bytes);
        let frame = FrameSeed(&mut reason).deserialize(&mut deserializer);
        let frame = frame.map_err(|_| reason.unwrap_or(DecodeError::Malformed))?;
        // The CBOR library lets tags, long integers and indefinite strings pass; this does not.
        if frame.to_cbor() == bytes { Ok(frame) } else { Err(DecodeError::NotCanonical) }
    }

    fn to_cbor(&self) -> Vec<u8> {
        serde_cbor::to_vec(self).expect("integers, bytes and text always encode")
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Frame::Hello { version, proof, agent } => {
                (HELLO, version, RawBytes(proof), &agent.0).serialize(serializer)
            }
            Frame::StepRequest { nonce } => (STEP_REQUEST, nonce).serialize(serializer),
            Frame::StepReply { nonce, mesh_time_ns, proposal_ns } => {
                (STEP_REPLY, nonce, mesh_time_ns, proposal_ns).serialize(serializer)
            }
            Frame::StepAnnounce { mesh_time_ns } => (STEP_ANNOUNCE, mesh_time_ns).serialize(serializer),
            Frame::Swim(packet) => (SWIM, RawBytes(packet)).serialize(serializer),
            Frame::Goodbye(reason) => (GOODBYE, reason.code()).serialize(serializer),
        }
    }
}

/// A byte string: by itself a slice would become an array of integers.
struct RawBytes<'a>(&'a [u8]);

impl Serialize for RawBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Reads a frame; leaves the reason here where the CBOR library has no word for it.
struct FrameSeed<'r>(&'r mut Option<DecodeError>);

impl<'de> DeserializeSeed<'de> for FrameSeed<'_> {
    type Value = Frame;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Frame, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FrameSeed<'_> {
    type Value = Frame;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of kind and fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Frame, A::Error> {
        let kind: u64 = next(&mut seq)?;
        let Some(expected) = field_count(kind) else {
            return Err(refuse(self.0, DecodeError::UnknownKind(kind)));
        };
        // An array of indefinite length has no hint.
        match seq.size_hint() {
            Some(fields) if fields == expected => {}
            Some(fields) => return Err(refuse(self.0, DecodeError::WrongFieldCount { kind, fields })),
            None => return Err(refuse(self.0, DecodeError::NotCanonical)),
        }
        Ok(match kind {
            HELLO => Frame::Hello {
                version: next(&mut seq)?,
                proof: next_seed(&mut seq, ProofSeed)?,
                agent: next_seed(&mut seq, AgentSeed(self.0))?,
            },
            STEP_REQUEST => Frame::StepRequest { nonce: next(&mut seq)? },
            STEP_REPLY => Frame::StepReply {
                nonce: next(&mut seq)?,
                mesh_time_ns: next(&mut seq)?,
                proposal_ns: next(&mut seq)?,
            },
            STEP_ANNOUNCE => Frame::StepAnnounce { mesh_time_ns: next(&mut seq)? },
            SWIM => Frame::Swim(next_seed(&mut seq, SwimSeed(self.0))?),
            _ => Frame::Goodbye(Goodbye::from_code(next(&mut seq)?)),
        })
    }
}

fn next<'de, T: serde::Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A) -> Result<T, A::Error> {
    next_seed(seq, std::marker::PhantomData)
}

fn next_seed<'de, S: DeserializeSeed<'de>, A: SeqAccess<'de>>(
    seq: &mut A,
    seed: S,
) -> Result<S::Value, A::Error> {
    seq.next_element_seed(seed)?.ok_or_else(|| serde::de::Error::custom("too few fields"))
}

fn refuse<E: serde::de::Error>(reason: &mut Option<DecodeError>, why: DecodeError) -> E {
    let error = E::custom(&why);
    *reason = Some(why);
    error
}

struct ProofSeed;

impl<'de> DeserializeSeed<'de> for ProofSeed {
    type Value = [u8; 32];

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<[u8; 32], D::Error> {
        deserializer.deserialize_bytes(FixedBytes::<32>)
    }
}

/// Reads an agent, and looks at the length and the characters before it keeps anything.
struct AgentSeed<'r>(&'r mut Option<DecodeError>);

impl<'de> DeserializeSeed<'de> for AgentSeed<'_> {
    type Value = Agent;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Agent, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for AgentSeed<'_> {
    type Value = Agent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a short text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Agent, E> {
        if text.len() > AGENT_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(refuse(self.0, DecodeError::BadAgent));
        }
        Ok(Agent(text.to_owned()))
    }
}

/// Reads a packet, and looks at the length before it copies it.
struct SwimSeed<'r>(&'r mut Option<DecodeError>);

impl<'de> DeserializeSeed<'de> for SwimSeed<'_> {
    type Value = Bytes;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for SwimSeed<'_> {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        if bytes.len() > SWIM_BYTES_MAX {
            return Err(refuse(self.0, DecodeError::SwimTooLong));
        }
        Ok(Bytes::copy_from_slice(bytes))
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap()
    }

    fn hello(agent: &str) -> Frame {
        Frame::Hello { version: VERSION, proof: [0xab; 32], agent: Agent::new(agent) }
    }

    #[test]
    fn bytes_are_as_documented() {
        let cases = [
            (hello("om/1"), format!("84 00 01 5820{} 64 6f6d2f31", "ab".repeat(32))),
            (Frame::StepRequest { nonce: 500 }, "82 01 1901f4".into()),
            (
                Frame::StepReply { nonce: u64::MAX, mesh_time_ns: None, proposal_ns: 0 },
                "84 02 1bffffffffffffffff f6 00".into(),
            ),
            (
                Frame::StepReply { nonce: 1, mesh_time_ns: Some(1 << 60), proposal_ns: 24 },
                "84 02 01 1b1000000000000000 1818".into(),
            ),
            (Frame::StepAnnounce { mesh_time_ns: 65_536 }, "82 03 1a00010000".into()),
            (Frame::Swim(Bytes::from_static(b"\x01\x02")), "82 04 42 0102".into()),
            (Frame::Goodbye(Goodbye::Shutdown), "82 05 00".into()),
            (Frame::Goodbye(Goodbye::Other(999)), "82 05 1903e7".into()),
        ];
        for (frame, hex) in cases {
            assert_eq!(frame.encode(), bytes(&hex), "{frame:?}");
            assert_eq!(Frame::decode(&bytes(&hex)), Ok(frame));
        }
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let long_agent = format!("84 00 01 5820{} 7841{}", "00".repeat(32), "61".repeat(65));
        let control_agent = format!("84 00 01 5820{} 61 1b", "00".repeat(32));
        let short_proof = format!("84 00 01 581f{} 61 61", "00".repeat(31));
        let long_swim = format!("82 04 59f001{}", "00".repeat(SWIM_BYTES_MAX + 1));
        let cases: [(&str, DecodeError); 18] = [
            ("", DecodeError::Malformed),
            ("82 01", DecodeError::Malformed),
            ("01", DecodeError::Malformed),
            ("a1 01 02", DecodeError::Malformed),
            ("82 61 61 01", DecodeError::Malformed),
            ("82 01 20", DecodeError::Malformed),
            ("82 05 1a00010000", DecodeError::Malformed),
            (&short_proof, DecodeError::Malformed),
            ("80", DecodeError::Malformed),
            ("82 06 01", DecodeError::UnknownKind(6)),
            ("83 01 01 01", DecodeError::WrongFieldCount { kind: 1, fields: 2 }),
            ("81 02", DecodeError::WrongFieldCount { kind: 2, fields: 0 }),
            (&long_agent, DecodeError::BadAgent),
            (&control_agent, DecodeError::BadAgent),
            (&long_swim, DecodeError::SwimTooLong),
            ("82 01 01 00", DecodeError::NotCanonical),
            ("82 01 1801", DecodeError::NotCanonical),
            ("9f 01 01 ff", DecodeError::NotCanonical),
        ];
        for (hex, error) in cases {
            assert_eq!(Frame::decode(&bytes(hex)), Err(error), "{:.80}", hex);
        }
        // A tag before the array, and a byte string in pieces.
        assert_eq!(Frame::decode(&bytes("c1 82 01 01")), Err(DecodeError::NotCanonical));
        assert_eq!(Frame::decode(&bytes("82 04 5f 41 01 ff")), Err(DecodeError::NotCanonical));
        let long = vec![0; FRAME_BYTES_MAX + 1];
        assert_eq!(Frame::decode(&long), Err(DecodeError::TooLong { len: FRAME_BYTES_MAX + 1 }));
    }

    #[test]
    fn deep_nesting_and_long_lengths_cost_nothing() {
        for byte in [0x81, 0x9f, 0xa1, 0xc6, 0xd8, 0x5f, 0x7f] {
            assert!(Frame::decode(&vec![byte; FRAME_BYTES_MAX]).is_err(), "{byte:x}");
            let nested = [&[0x82, 0x01], vec![byte; FRAME_BYTES_MAX - 2].as_slice()].concat();
            assert!(Frame::decode(&nested).is_err(), "{byte:x}");
        }
        // Lengths that claim far more than there is.
        for hex in ["82 04 5bffffffffffffffff 00", "82 04 5a7fffffff 00", "9bffffffffffffffff 01 01"] {
            assert!(Frame::decode(&bytes(hex)).is_err(), "{hex}");
        }
    }

    #[test]
    fn the_longest_frame_fits() {
        let packet = Frame::Swim(Bytes::from(vec![7; SWIM_BYTES_MAX]));
        let encoded = packet.encode();
        assert!(encoded.len() <= FRAME_BYTES_MAX);
        assert_eq!(Frame::decode(&encoded), Ok(packet));
    }

    #[test]
    fn agents_are_short_and_printable() {
        assert_eq!(Agent::new("a\u{1b}[31m\nb").as_str(), "a[31mb");
        assert_eq!(Agent::new(&"ü".repeat(40)).as_str(), "ü".repeat(32));
    }

    #[test]
    fn goodbye_codes_round_trip() {
        for code in 0..=u16::MAX {
            assert_eq!(Goodbye::from_code(code).code(), code);
        }
    }

    #[test]
    fn the_protocol_name_holds_the_mesh_id() {
        let name = protocol_name(MeshId::from_bytes([0x1f; 16]));
        assert_eq!(name, "/omnimesh/1/1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f/control");
    }

    fn frames() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (any::<u16>(), any::<[u8; 32]>(), ".{0,80}").prop_map(|(version, proof, agent)| Frame::Hello {
                version,
                proof,
                agent: Agent::new(&agent)
            }),
            any::<u64>().prop_map(|nonce| Frame::StepRequest { nonce }),
            (any::<u64>(), any::<Option<u64>>(), any::<u64>()).prop_map(
                |(nonce, mesh_time_ns, proposal_ns)| Frame::StepReply { nonce, mesh_time_ns, proposal_ns }
            ),
            any::<u64>().prop_map(|mesh_time_ns| Frame::StepAnnounce { mesh_time_ns }),
            prop::collection::vec(any::<u8>(), 0..2000).prop_map(|packet| Frame::Swim(packet.into())),
            any::<u16>().prop_map(|code| Frame::Goodbye(Goodbye::from_code(code))),
        ]
    }

    proptest! {
        #[test]
        fn frames_round_trip(frame in frames()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn cut_and_changed_frames_never_pass_for_the_frame(frame in frames(), at: prop::sample::Index, bit in 0..8) {
            let good = frame.encode();
            let at = at.index(good.len());
            prop_assert!(Frame::decode(&good[..at]).is_err());
            let mut bad = good.clone();
            bad[at] ^= 1u8 << bit;
            if let Ok(other) = Frame::decode(&bad) {
                prop_assert_ne!(&other, &frame);
                prop_assert_eq!(other.encode(), bad);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}
