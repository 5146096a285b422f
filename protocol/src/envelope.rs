//! The envelope: what is signed, tagged and gossiped.
//!
//! ```text
//! envelope = CBOR [ signed: bytes, tag: bytes(32), signature: bytes(64) ]
//! signed   = CBOR [ version: 1, mesh: bytes(16), author: bytes(32), seq, step, kind: 0 | 1, channel: text,
//!                   prev: bytes(32) | null, timestamp_us: uint | null, payloads: [ bytes, … ] ]
//! digest    = BLAKE3(signed)
//! tag       = BLAKE3.keyed_hash(tag key of the step's pattern, signed)
//! signature = Ed25519(author, "omnimesh/1/envelope" ‖ digest)
//! ```
//!
//! One tag and one signature cover a *bundle* of 1 to [`PAYLOADS_MAX`] payloads; payload `i` has the
//! sequence number `seq + i`. There is one encoding only (see [`crate::shape`]), so nobody can make a
//! second message out of a first; what is verified are the bytes as received.
//!
//! Decoding checks shape alone. Whether to believe it is for [`crate::validate`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::Visitor;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use crate::id::{Hash, MeshId, MessageId, NodeId, Seq, Step};
use crate::identity::{Identity, PublicKey};
use crate::pattern::Pattern;
use crate::refusal::Refusal;
use crate::shape;

/// The version of the format.
pub const VERSION: u64 = 1;
/// Most payloads in one envelope. Source: a guess; at 64 B it makes a signature's share of a message 0.1 µs.
pub const PAYLOADS_MAX: usize = 256;
/// Longest channel name, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 64;
/// What precedes the digest under the signature, so that it can be no other protocol's.
const SIGNATURE_CONTEXT: &[u8] = b"omnimesh/1/envelope";
/// Bytes of an envelope beside its channel name and payloads, at most: heads, ids, counters, tag, signature.
const OVERHEAD_BYTES_MAX: usize = 256;
/// Bytes of a payload's head, at most.
const PAYLOAD_HEAD_BYTES_MAX: usize = 5;

/// The name of a channel: 1 to 64 ASCII letters, digits, `-`, `_` and `.`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Arc<str>);

/// The text cannot be the name of a channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel name {name:?} is not 1 to {CHANNEL_BYTES_MAX} ASCII letters, digits, '-', '_' and '.'")]
pub struct ChannelError {
    name: String,
}

impl Channel {
    /// The channel of this name.
    ///
    /// # Errors
    /// If the name is empty, too long or has other characters.
    pub fn new(name: &str) -> Result<Self, ChannelError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > CHANNEL_BYTES_MAX || !name.bytes().all(good) {
            return Err(ChannelError { name: name.chars().take(80).collect() });
        }
        Ok(Channel(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it is one of the protocol's own, which nobody else publishes on: its name begins with `_`.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The gossipsub topic of this channel in the mesh: `omnimesh/1/<mesh id>/<channel>`.
    pub fn topic(&self, mesh: &MeshId) -> String {
        format!("omnimesh/1/{mesh}/{}", self.0)
    }

    /// The channel of a gossipsub topic, if it is of this mesh.
    pub fn from_topic(topic: &str, mesh: &MeshId) -> Option<Self> {
        let (id, name) = topic.strip_prefix("omnimesh/1/")?.split_once('/')?;
        (id.parse::<MeshId>() == Ok(*mesh)).then(|| Channel::new(name).ok())?
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Whether a message is to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Delivered to who listens now.
    Ephemeral,
    /// An entry of its author's log.
    Durable,
}

/// What an envelope says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The mesh it is for.
    pub mesh: MeshId,
    /// Who wrote it.
    pub author: NodeId,
    /// The sequence number of its first payload, at least 1.
    pub seq: Seq,
    /// The mesh's step when it was written.
    pub step: Step,
    /// Whether it is to be remembered.
    pub kind: Kind,
    /// Where it belongs.
    pub channel: Channel,
    /// The digest of the author's entry before this one; durable envelopes only.
    pub prev: Option<Hash>,
    /// The author's mesh time when it was written, in microseconds.
    pub timestamp_us: Option<u64>,
}

impl Header {
    /// The channel on whose topic it is gossiped: its own, or for durable envelopes the log's.
    pub fn gossiped_on(&self) -> Channel {
        match self.kind {
            Kind::Ephemeral => self.channel.clone(),
            Kind::Durable => Channel(crate::log::CHANNEL.into()),
        }
    }
}

/// Payloads of one envelope; most often one.
pub type Payloads = SmallVec<[Bytes; 1]>;

/// An envelope of good shape. Cheap to clone: payloads are slices of the bytes as received.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    bytes: Bytes,
    signed: Bytes,
    tag: [u8; 32],
    signature: [u8; 64],
    header: Header,
    payloads: Payloads,
    digest: Digest,
}

/// The hash of the signed bytes, computed once: the signature, the chain and the store all ask for it. It follows from the
/// bytes, so whether it is there already makes no difference between two envelopes.
#[derive(Clone, Default)]
struct Digest(OnceLock<Hash>);

impl PartialEq for Digest {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Digest {}

/// What cannot be put into an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is nothing in it, or more than fits.
    #[error("an envelope holds 1 to {PAYLOADS_MAX} payloads, not {0}")]
    Payloads(usize),
    /// The author ran out of sequence numbers.
    #[error("no sequence number is left after {0}")]
    SeqExhausted(Seq),
}

impl Envelope {
    /// Writes, tags and signs an envelope. The author is `identity`, whatever `header.author` says.
    ///
    /// # Errors
    /// If there are no or too many payloads, or sequence numbers would overflow.
    pub fn seal(
        identity: &Identity,
        pattern: &Pattern,
        mut header: Header,
        payloads: Payloads,
    ) -> Result<Self, SealError> {
        if payloads.is_empty() || payloads.len() > PAYLOADS_MAX {
            return Err(SealError::Payloads(payloads.len()));
        }
        if header.seq.0.checked_add(payloads.len() as u64).is_none() {
            return Err(SealError::SeqExhausted(header.seq));
        }
        header.author = identity.id();
        let signed = Bytes::from(encode_signed(&header, &payloads));
        let tag = *blake3::keyed_hash(pattern.tag_key(), &signed).as_bytes();
        let digest = Hash::of(&signed);
        let signature = identity.sign(&signature_input(&digest));
        let bytes = encode_outer(&signed, &tag, &signature);
        Ok(Envelope { bytes, signed, tag, signature, header, payloads, digest: Digest(digest.into()) })
    }

    /// Reads an envelope of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// The first fault of its shape, or of what it says about itself.
    pub fn decode(bytes: &Bytes, bytes_max: usize) -> Result<Self, Refusal> {
        if bytes.len() > bytes_max {
            return Err(Refusal::TooLarge);
        }
        shape::check(bytes)?;
        let OuterWire(signed, tag, signature) =
            serde_cbor::from_slice(bytes).map_err(|_| Refusal::Malformed)?;
        shape::check(signed.0)?;
        let SignedWire(_, mesh, author, seq, step, kind, channel, prev, timestamp_us, payloads) =
            decode_signed(signed.0)?;
        let kind = match kind {
            0 => Kind::Ephemeral,
            1 => Kind::Durable,
            _ => return Err(Refusal::Malformed),
        };
        let past_last = seq.0.checked_add(payloads.0.len() as u64);
        if seq.0 == 0 || past_last.is_none() || (prev.is_some() && kind == Kind::Ephemeral) {
            return Err(Refusal::Malformed);
        }
        let channel = Channel::new(channel.0).map_err(|_| Refusal::Malformed)?;
        Ok(Envelope {
            signed: bytes.slice_ref(signed.0),
            tag: tag.0.try_into().map_err(|_| Refusal::Malformed)?,
            signature: signature.0.try_into().map_err(|_| Refusal::Malformed)?,
            header: Header { mesh, author, seq, step, kind, channel, prev, timestamp_us },
            payloads: payloads.0.iter().map(|payload| bytes.slice_ref(payload)).collect(),
            bytes: bytes.clone(),
            digest: Digest::default(),
        })
    }

    /// The bytes to be gossiped, as received or as sealed.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes under tag and signature.
    pub fn signed_bytes(&self) -> &Bytes {
        &self.signed
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it carries, in order.
    pub fn payloads(&self) -> &Payloads {
        &self.payloads
    }

    /// The tag, as received.
    pub fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// The signature, as received.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// The id under which it is gossiped.
    pub fn id(&self) -> MessageId {
        MessageId::of(&self.bytes)
    }

    /// The hash of the signed bytes, which the author's next durable envelope names.
    pub fn digest(&self) -> Hash {
        *self.digest.0.get_or_init(|| Hash::of(&self.signed))
    }

    /// True if the author knew the pattern of the step. Constant time.
    pub fn is_tag_of(&self, pattern: &Pattern) -> bool {
        blake3::keyed_hash(pattern.tag_key(), &self.signed).as_bytes().ct_eq(&self.tag).into()
    }

    /// True if the signature is that of `key`.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verify(&signature_input(&self.digest()), &self.signature)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Envelope {{ {:?}, {} payloads, {} bytes }}",
            self.header,
            self.payloads.len(),
            self.bytes.len()
        )
    }
}

/// The largest payload that fits alone into an envelope of `bytes_max` bytes on any channel.
pub const fn payload_bytes_max(bytes_max: usize) -> usize {
    bytes_max.saturating_sub(OVERHEAD_BYTES_MAX + CHANNEL_BYTES_MAX + PAYLOAD_HEAD_BYTES_MAX)
}

/// The room that one payload takes in an envelope, at most.
pub const fn payload_room(payload_bytes: usize) -> usize {
    payload_bytes.saturating_add(PAYLOAD_HEAD_BYTES_MAX)
}

/// The room that payloads may take together in an envelope of `bytes_max` bytes.
pub const fn payloads_room_max(bytes_max: usize) -> usize {
    bytes_max.saturating_sub(OVERHEAD_BYTES_MAX + CHANNEL_BYTES_MAX)
}

fn signature_input(digest: &Hash) -> [u8; SIGNATURE_CONTEXT.len() + Hash::LEN] {
    let mut input = [0; SIGNATURE_CONTEXT.len() + Hash::LEN];
    let (context, rest) = input.split_at_mut(SIGNATURE_CONTEXT.len());
    context.copy_from_slice(SIGNATURE_CONTEXT);
    rest.copy_from_slice(digest.as_bytes());
    input
}

fn encode_signed(header: &Header, payloads: &Payloads) -> Vec<u8> {
    let room: usize = payloads.iter().map(|payload| payload_room(payload.len())).sum();
    let mut bytes = Vec::with_capacity(OVERHEAD_BYTES_MAX + CHANNEL_BYTES_MAX + room);
    let wire = SignedWire(
        VERSION,
        header.mesh,
        header.author,
        header.seq,
        header.step,
        match header.kind {
            Kind::Ephemeral => 0,
            Kind::Durable => 1,
        },
        Text(header.channel.as_str()),
        header.prev,
        header.timestamp_us,
        PayloadsWire(payloads.iter().map(|payload| payload.as_ref()).collect()),
    );
    serde_cbor::to_writer(&mut bytes, &wire).expect("writing numbers and bytes to memory does not fail");
    bytes
}

fn encode_outer(signed: &[u8], tag: &[u8; 32], signature: &[u8; 64]) -> Bytes {
    let mut bytes = Vec::with_capacity(signed.len() + 112);
    serde_cbor::to_writer(&mut bytes, &OuterWire(Blob(signed), Blob(tag), Blob(signature)))
        .expect("writing bytes to memory does not fail");
    bytes.into()
}

/// Reads the signed part; a document of an unknown version may have any fields after the version.
fn decode_signed(signed: &[u8]) -> Result<SignedWire<'_>, Refusal> {
    if shape::first_unsigned(signed).ok_or(Refusal::Malformed)? != VERSION {
        return Err(Refusal::UnknownVersion);
    }
    serde_cbor::from_slice(signed).map_err(|_| Refusal::Malformed)
}

#[derive(Serialize, Deserialize)]
struct OuterWire<'a>(#[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct SignedWire<'a>(
    u64,
    MeshId,
    NodeId,
    Seq,
    Step,
    u8,
    #[serde(borrow)] Text<'a>,
    Option<Hash>,
    Option<u64>,
    #[serde(borrow)] PayloadsWire<'a>,
);

/// A byte string and nothing else; serde's own `&[u8]` would take a text string too.
#[derive(Clone, Copy)]
pub(crate) struct Blob<'a>(pub(crate) &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = &'de [u8];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(bytes)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BlobVisitor).map(Blob)
    }
}

/// A text string and nothing else; serde's own `&str` would take a byte string too, a second encoding.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = &'de str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(text)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

/// 1 to [`PAYLOADS_MAX`] byte strings.
struct PayloadsWire<'a>(Vec<&'a [u8]>);

impl Serialize for PayloadsWire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for payload in &self.0 {
            seq.serialize_element(&Blob(payload))?;
        }
        seq.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for PayloadsWire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PayloadsVisitor;

        impl<'de> Visitor<'de> for PayloadsVisitor {
            type Value = Vec<&'de [u8]>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "1 to {PAYLOADS_MAX} byte strings")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut payloads = Vec::new();
                while let Some(Blob(payload)) = seq.next_element()? {
                    if payloads.len() == PAYLOADS_MAX {
                        return Err(serde::de::Error::invalid_length(PAYLOADS_MAX + 1, &self));
                    }
                    payloads.push(payload);
                }
                if payloads.is_empty() {
                    Err(serde::de::Error::invalid_length(0, &self))
                } else {
                    Ok(payloads)
                }
            }
        }

        deserializer.deserialize_seq(PayloadsVisitor).map(PayloadsWire)
    }
}

/// The author that an envelope names, without a look at anything else; `None` if these bytes do not begin as an
/// envelope does. To sort messages by, not to believe.
pub(crate) fn peek_author(bytes: &[u8]) -> Option<&[u8; 32]> {
    // An array of 3; a byte string with its length in 1, 2 or 4 bytes; an array of 10; the version; the mesh.
    let signed = match bytes {
        [0x83, 0x58, _, signed @ ..] | [0x83, 0x59, _, _, signed @ ..] => signed,
        [0x83, 0x5a, _, _, _, _, signed @ ..] => signed,
        _ => return None,
    };
    let author = signed.strip_prefix(&[0x8a, 0x01, 0x50])?.get(16..)?.strip_prefix(&[0x58, 0x20])?;
    author.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Mesh;
    use crate::pattern::PatternGenerator;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 65_536;

    fn patterns() -> PatternGenerator {
        PatternGenerator::new(
            Mesh::open("test").unwrap().secret().clone(),
            100.try_into().unwrap(),
            16.try_into().unwrap(),
        )
    }

    fn header() -> Header {
        Header {
            mesh: Mesh::open("test").unwrap().id(),
            author: NodeId::from_bytes([0; 32]),
            seq: Seq(7),
            step: Step(1234),
            kind: Kind::Ephemeral,
            channel: Channel::new("news").unwrap(),
            prev: None,
            timestamp_us: Some(1_234_567_890),
        }
    }

    fn envelope(payloads: &[&'static [u8]]) -> Envelope {
        let payloads = payloads.iter().map(|p| Bytes::from_static(p)).collect();
        Envelope::seal(&Identity::from_seed(&[5; 32]), patterns().at(Step(1234)), header(), payloads).unwrap()
    }

    #[test]
    fn what_is_sealed_is_read_and_verified() {
        let sealed = envelope(&[b"one", b"", b"three"]);
        let read = Envelope::decode(sealed.as_bytes(), BYTES_MAX).unwrap();
        assert_eq!(read, sealed);
        assert!(read.is_tag_of(patterns().at(Step(1234))));
        assert!(!read.is_tag_of(patterns().at(Step(1235))));
        assert!(read.is_signed_by(&PublicKey::new(&read.header().author).unwrap()));
        assert!(!read.is_signed_by(&PublicKey::new(&Identity::from_seed(&[6; 32]).id()).unwrap()));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let sealed = envelope(&[b"hello"]);
        let key = PublicKey::new(&sealed.header().author).unwrap();
        for bit in 0..sealed.as_bytes().len() * 8 {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = Envelope::decode(&bytes.into(), BYTES_MAX) {
                let tag = read.is_tag_of(patterns().at(read.header().step));
                assert!(!tag || !read.is_signed_by(&key), "bit {bit}");
            }
        }
    }

    #[test]
    fn every_prefix_is_truncated_and_every_suffix_trails() {
        let sealed = envelope(&[b"hello"]);
        for end in 0..sealed.as_bytes().len() {
            let cut = sealed.as_bytes().slice(..end);
            assert_eq!(Envelope::decode(&cut, BYTES_MAX), Err(Refusal::Truncated), "{end}");
        }
        let mut more = sealed.as_bytes().to_vec();
        more.push(0);
        assert_eq!(Envelope::decode(&more.into(), BYTES_MAX), Err(Refusal::TrailingBytes));
        assert_eq!(Envelope::decode(sealed.as_bytes(), sealed.as_bytes().len() - 1), Err(Refusal::TooLarge));
    }

    /// Seals whatever `change` makes of the fields, as a hostile member could.
    fn forged(change: impl Fn(&mut serde_cbor::Value)) -> Result<Envelope, Refusal> {
        let mut fields = serde_cbor::from_slice(envelope(&[b"x"]).signed_bytes()).unwrap();
        change(&mut fields);
        let signed = serde_cbor::to_vec(&fields).unwrap();
        Envelope::decode(&encode_outer(&signed, &[0; 32], &[0; 64]), BYTES_MAX)
    }

    fn set(at: usize, value: serde_cbor::Value) -> impl Fn(&mut serde_cbor::Value) {
        move |fields| match fields {
            serde_cbor::Value::Array(items) => items[at] = value.clone(),
            _ => unreachable!("signed parts are arrays"),
        }
    }

    #[test]
    fn fields_that_cannot_be_are_refused() {
        use serde_cbor::Value::{Array, Bytes, Integer, Null, Text};
        forged(|_| ()).unwrap();
        assert_eq!(forged(set(0, Integer(2))), Err(Refusal::UnknownVersion));
        let many = Array(vec![Bytes(vec![]); PAYLOADS_MAX + 1]);
        let cases = [
            (1, Bytes(vec![0; 15])),
            (2, Bytes(vec![0; 33])),
            (3, Integer(0)),
            (3, Integer(i128::from(u64::MAX))),
            (4, Null),
            (5, Integer(2)),
            (6, Text("no/slash".into())),
            (6, Text(String::new())),
            (6, Bytes(b"news".to_vec())),
            (7, Bytes(vec![0; 32])),
            (8, Text("x".into())),
            (9, Array(vec![])),
            (9, Array(vec![Text("text".into())])),
            (9, many),
        ];
        for (at, value) in cases {
            assert_eq!(forged(set(at, value.clone())), Err(Refusal::Malformed), "{at} {value:?}");
        }
    }

    #[test]
    fn limits_hold_for_the_worst_header() {
        let mut header = header();
        header.channel = Channel::new(&"c".repeat(CHANNEL_BYTES_MAX)).unwrap();
        (header.seq, header.step) = (Seq(u64::MAX - 1000), Step(u64::MAX));
        (header.kind, header.prev, header.timestamp_us) =
            (Kind::Durable, Some(Hash::of(b"")), Some(u64::MAX));
        let largest = Bytes::from(vec![0; payload_bytes_max(BYTES_MAX)]);
        let identity = Identity::from_seed(&[5; 32]);
        let one = Envelope::seal(
            &identity,
            patterns().at(Step(0)),
            header.clone(),
            [largest].into_iter().collect(),
        );
        let len = one.unwrap().as_bytes().len();
        assert!(len <= BYTES_MAX && len > BYTES_MAX - 64, "{len}");
        assert_eq!(
            Envelope::seal(&identity, patterns().at(Step(0)), header.clone(), Payloads::new()),
            Err(SealError::Payloads(0))
        );
        header.seq = Seq(u64::MAX);
        let none_left =
            Envelope::seal(&identity, patterns().at(Step(0)), header, [Bytes::new()].into_iter().collect());
        assert_eq!(none_left, Err(SealError::SeqExhausted(Seq(u64::MAX))));
    }

    #[test]
    fn topics_name_mesh_and_channel() {
        let mesh = Mesh::open("test").unwrap().id();
        let channel = Channel::new("news").unwrap();
        let topic = channel.topic(&mesh);
        assert_eq!(Channel::from_topic(&topic, &mesh), Some(channel));
        assert_eq!(Channel::from_topic(&topic, &Mesh::open("other").unwrap().id()), None);
        assert_eq!(Channel::from_topic("omnimesh/1/zz/x", &mesh), None);
        assert_eq!(Channel::from_topic(&format!("{topic}/x"), &mesh), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Envelope::decode(&bytes.into(), BYTES_MAX);
        }

        #[test]
        fn any_payloads_come_back(sizes in proptest::collection::vec(0_u16..400, 1..20), durable: bool, step: u64) {
            let payloads: Payloads = sizes.iter().map(|n| Bytes::from(vec![n.to_le_bytes()[0]; usize::from(*n)])).collect();
            let mut header = header();
            header.step = Step(step);
            (header.kind, header.prev) = if durable { (Kind::Durable, Some(Hash::of(b"p"))) } else { (Kind::Ephemeral, None) };
            let sealed = Envelope::seal(&Identity::from_seed(&[5; 32]), patterns().at(Step(step)), header, payloads).unwrap();
            prop_assert_eq!(Envelope::decode(sealed.as_bytes(), BYTES_MAX).unwrap(), sealed);
        }
    }
}
