//! Accusations: evidence, signed by who vouches for it, and how they travel.
//!
//! ```text
//! accusation = CBOR [ body: bytes, signature: bytes(64) ]
//! body       = CBOR [ 1, mesh: bytes(16), reporter: bytes(32), step, evidence: bytes ]
//! signature  = Ed25519(reporter, "omnimesh/1/accusation" ‖ BLAKE3(body))
//!
//! payload on channel _evidence = accusation
//!                              | CBOR [ 1, id: bytes(32), index, count, part: bytes ]     if it does not fit into one
//! ```
//!
//! An accusation travels as the payload of an ephemeral envelope of its reporter. One with two large envelopes in it
//! does not fit into one, so it is cut into at most [`PARTS_MAX`] parts; `id` is the hash of the accusation.
//!
//! Evidence speaks for itself; the signature is there so that it costs something to make others check evidence that
//! is none: such an accusation is itself evidence against its reporter.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::{Blob, payload_bytes_max};
use crate::id::{Hash, MeshId, NodeId, Step};
use crate::identity::{Identity, PublicKey};
use crate::pattern::PatternGenerator;
use crate::shape;
use crate::time::Time;

use super::evidence::{Evidence, EvidenceError, evidence_bytes_max};

/// The version of the format.
pub const VERSION: u64 = 1;
/// The gossip channel of accusations.
pub const CHANNEL: &str = "_evidence";
/// Parts of one accusation, at most.
pub const PARTS_MAX: usize = 4;
/// What precedes the hash under the signature.
const SIGNATURE_CONTEXT: &[u8] = b"omnimesh/1/accusation";
/// Bytes of an accusation beside its evidence, at most.
const OVERHEAD_BYTES_MAX: usize = 192;
/// Bytes of a payload that carries a part, beside the part, at most.
const PART_OVERHEAD_BYTES_MAX: usize = 64;
/// What a gossip frame adds to the envelope, at most.
const FRAME_BYTES_MAX: usize = 512;
/// Reporters of whom parts are put together at a time.
const ASSEMBLIES_MAX: usize = 16;
/// How long the parts of an accusation may take.
const ASSEMBLY_TIME: Duration = Duration::from_secs(30);

/// Signed evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accusation {
    body: Bytes,
    signature: [u8; 64],
    mesh: MeshId,
    reporter: NodeId,
    step: Step,
    evidence: Bytes,
}

impl Accusation {
    /// Signs evidence. Only who has verified it should.
    pub fn sign(reporter: &Identity, mesh: MeshId, step: Step, evidence: Bytes) -> Self {
        let body = Bytes::from(
            serde_cbor::to_vec(&BodyWire(VERSION, mesh, reporter.id(), step, Blob(&evidence)))
                .expect("writing numbers and bytes to memory does not fail"),
        );
        let signature = reporter.sign(&signature_input(&Hash::of(&body)));
        Accusation { body, signature, mesh, reporter: reporter.id(), step, evidence }
    }

    /// Reads an accusation; neither its signature nor its evidence is looked at.
    ///
    /// # Errors
    /// [`EvidenceError::TooLarge`], [`EvidenceError::Malformed`] or [`EvidenceError::Unknown`].
    pub fn decode(bytes: &Bytes, message_bytes_max: usize) -> Result<Self, EvidenceError> {
        if bytes.len() > accusation_bytes_max(message_bytes_max) {
            return Err(EvidenceError::TooLarge);
        }
        let malformed = |_| EvidenceError::Malformed;
        shape::check(bytes).map_err(|_| EvidenceError::Malformed)?;
        let OuterWire(body, signature) = serde_cbor::from_slice(bytes).map_err(malformed)?;
        let body = bytes.slice_ref(body.0);
        shape::check(&body).map_err(|_| EvidenceError::Malformed)?;
        if shape::first_unsigned(&body).ok_or(EvidenceError::Malformed)? != VERSION {
            return Err(EvidenceError::Unknown);
        }
        let BodyWire(_, mesh, reporter, step, evidence) = serde_cbor::from_slice(&body).map_err(malformed)?;
        let signature = signature.0.try_into().map_err(|_| EvidenceError::Malformed)?;
        let evidence = body.slice_ref(evidence.0);
        Ok(Accusation { signature, mesh, reporter, step, evidence, body })
    }

    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        let wire = OuterWire(Blob(&self.body), Blob(&self.signature));
        serde_cbor::to_vec(&wire).expect("writing bytes to memory does not fail").into()
    }

    /// Who vouches for it.
    pub fn reporter(&self) -> NodeId {
        self.reporter
    }

    /// The mesh in which it is made.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The reporter's step when it was made.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The evidence, in bytes.
    pub fn evidence(&self) -> &Bytes {
        &self.evidence
    }

    /// The hash of what is signed.
    pub fn digest(&self) -> Hash {
        Hash::of(&self.body)
    }

    /// True if the reporter has signed it.
    pub fn is_signed(&self) -> bool {
        PublicKey::new(&self.reporter)
            .is_some_and(|key| key.verify(&signature_input(&self.digest()), &self.signature))
    }

    /// The evidence in it, if that convinces.
    ///
    /// # Errors
    /// Why not; if [`EvidenceError::is_conclusive`], the accusation is false.
    pub fn judge(
        &self,
        mesh: MeshId,
        patterns: &mut PatternGenerator,
        message_bytes_max: usize,
    ) -> Result<Evidence, EvidenceError> {
        self.judge_within(mesh, patterns, message_bytes_max, 0)
    }

    pub(super) fn judge_within(
        &self,
        mesh: MeshId,
        patterns: &mut PatternGenerator,
        message_bytes_max: usize,
        depth: usize,
    ) -> Result<Evidence, EvidenceError> {
        let evidence = Evidence::decode_within(&self.evidence, message_bytes_max, depth)?;
        evidence.verify_within(mesh, patterns, message_bytes_max, depth)?;
        Ok(evidence)
    }

    /// The payloads that carry it, each small enough for an envelope of its own.
    pub fn to_payloads(&self, message_bytes_max: usize) -> Vec<Bytes> {
        let whole = self.encode();
        let room = payload_bytes_max(message_bytes_max).saturating_sub(FRAME_BYTES_MAX);
        if whole.len() <= room {
            return vec![whole];
        }
        let id = Hash::of(&whole);
        let parts: Vec<&[u8]> = whole.chunks(room.saturating_sub(PART_OVERHEAD_BYTES_MAX).max(1)).collect();
        let count = parts.len() as u64;
        (0..)
            .zip(parts)
            .map(|(index, part)| {
                let wire = PartWire(VERSION, id, index, count, Blob(part));
                serde_cbor::to_vec(&wire).expect("writing numbers and bytes to memory does not fail").into()
            })
            .collect()
    }
}

/// Bytes of the largest accusation.
pub const fn accusation_bytes_max(message_bytes_max: usize) -> usize {
    evidence_bytes_max(message_bytes_max).saturating_add(OVERHEAD_BYTES_MAX)
}

/// Puts parts together.
#[derive(Debug, Default)]
pub struct Assembler {
    under_way: BTreeMap<NodeId, Assembly>,
}

#[derive(Debug)]
struct Assembly {
    id: Hash,
    parts: Vec<Option<Bytes>>,
    since: Time,
}

impl Assembler {
    /// Takes a payload that `author` published; an accusation once it is whole.
    ///
    /// # Errors
    /// As [`Accusation::decode`]. A part that fits nothing is none: its accusation may be under way.
    pub fn take(
        &mut self,
        now: Time,
        author: NodeId,
        payload: &Bytes,
        message_bytes_max: usize,
    ) -> Result<Option<Accusation>, EvidenceError> {
        if payload.len() > accusation_bytes_max(message_bytes_max) {
            return Err(EvidenceError::TooLarge);
        }
        shape::check(payload).map_err(|_| EvidenceError::Malformed)?;
        if payload.first() != Some(&0x85) {
            return Accusation::decode(payload, message_bytes_max).map(Some);
        }
        if shape::first_unsigned(payload).ok_or(EvidenceError::Malformed)? != VERSION {
            return Err(EvidenceError::Unknown);
        }
        let PartWire(_, id, index, count, part) =
            serde_cbor::from_slice(payload).map_err(|_| EvidenceError::Malformed)?;
        let (index, count) = (usize::try_from(index), usize::try_from(count));
        let (Ok(index), Ok(count)) = (index, count) else { return Err(EvidenceError::Malformed) };
        if !(2..=PARTS_MAX).contains(&count) || index >= count {
            return Err(EvidenceError::Malformed);
        }
        // A copy: the part is a slice of a larger buffer.
        self.put(now, author, (id, index, count), Bytes::copy_from_slice(part.0));
        let Some(whole) = self.poll_whole(&author) else { return Ok(None) };
        if Hash::of(&whole) != id {
            return Err(EvidenceError::Malformed);
        }
        Accusation::decode(&whole, message_bytes_max).map(Some)
    }

    /// Accusations of which parts are missing, and the bytes that are there.
    pub fn sizes(&self) -> (usize, usize) {
        let parts = self.under_way.values().flat_map(|assembly| assembly.parts.iter().flatten());
        (self.under_way.len(), parts.map(Bytes::len).sum())
    }

    fn put(&mut self, now: Time, author: NodeId, (id, index, count): (Hash, usize, usize), part: Bytes) {
        self.under_way.retain(|_, assembly| now.since(assembly.since) <= ASSEMBLY_TIME);
        let is_new =
            self.under_way.get(&author).is_none_or(|known| known.id != id || known.parts.len() != count);
        if is_new {
            if self.under_way.len() >= ASSEMBLIES_MAX && !self.under_way.contains_key(&author) {
                let oldest = self.under_way.iter().min_by_key(|(_, a)| a.since).map(|(author, _)| *author);
                oldest.map(|oldest| self.under_way.remove(&oldest));
            }
            self.under_way.insert(author, Assembly { id, parts: vec![None; count], since: now });
        }
        let place = self.under_way.get_mut(&author).and_then(|assembly| assembly.parts.get_mut(index));
        if let Some(place) = place {
            *place = Some(part);
        }
    }

    fn poll_whole(&mut self, author: &NodeId) -> Option<Bytes> {
        let parts: Option<Vec<&Bytes>> =
            self.under_way.get(author)?.parts.iter().map(Option::as_ref).collect();
        let whole = parts?.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
        self.under_way.remove(author);
        Some(whole.into())
    }
}

fn signature_input(digest: &Hash) -> [u8; SIGNATURE_CONTEXT.len() + Hash::LEN] {
    let mut input = [0; SIGNATURE_CONTEXT.len() + Hash::LEN];
    let (context, rest) = input.split_at_mut(SIGNATURE_CONTEXT.len());
    context.copy_from_slice(SIGNATURE_CONTEXT);
    rest.copy_from_slice(digest.as_bytes());
    input
}

#[derive(Serialize, Deserialize)]
struct OuterWire<'a>(#[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct BodyWire<'a>(u64, MeshId, NodeId, Step, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct PartWire<'a>(u64, Hash, u64, u64, #[serde(borrow)] Blob<'a>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::evidence::Pair;
    use super::super::testing::{Author, BYTES_MAX, mesh, patterns};
    use super::*;

    fn accusation(payload_bytes: usize) -> Accusation {
        let mut author = Author::new(1);
        let payload = vec![7; payload_bytes];
        let pair = Pair::new(&author.message(7, 1, 1_000, &payload), &author.message(7, 1, 1_001, &payload));
        let evidence = Evidence::Pair(pair.unwrap()).encode();
        Accusation::sign(&Author::new(2).identity, mesh().id(), Step(1_002), evidence)
    }

    #[test]
    fn it_is_read_and_judged_by_others() {
        let accusation = accusation(10);
        let read = Accusation::decode(&accusation.encode(), BYTES_MAX).unwrap();
        assert_eq!(read, accusation);
        assert!(read.is_signed());
        let evidence = read.judge(mesh().id(), &mut patterns(), BYTES_MAX).unwrap();
        assert_eq!(evidence.accused(), Author::new(1).id());
        assert_eq!(
            (read.reporter(), read.step(), read.mesh()),
            (Author::new(2).id(), Step(1_002), mesh().id())
        );
    }

    #[test]
    fn the_largest_travels_in_parts_in_any_order() {
        let accusation = accusation(payload_bytes_max(BYTES_MAX));
        let mut payloads = accusation.to_payloads(BYTES_MAX);
        assert!((2..=PARTS_MAX).contains(&payloads.len()), "{}", payloads.len());
        assert!(payloads.iter().all(|payload| payload.len() <= payload_bytes_max(BYTES_MAX)));
        payloads.reverse();
        let (mut assembler, author) = (Assembler::default(), Author::new(2).id());
        let mut take = |payload| assembler.take(Time::ZERO, author, payload, BYTES_MAX).unwrap();
        let (last, first) = payloads.split_last().unwrap();
        for payload in first.iter().chain(first) {
            assert_eq!(take(payload), None);
        }
        assert_eq!(take(last), Some(accusation));
        assert_eq!(assembler.sizes(), (0, 0));
    }

    #[test]
    fn parts_of_many_reporters_are_bounded() {
        let payloads = accusation(payload_bytes_max(BYTES_MAX)).to_payloads(BYTES_MAX);
        let mut assembler = Assembler::default();
        for n in 0..=255 {
            let author = NodeId::from_bytes([n; 32]);
            assert_eq!(assembler.take(Time::ZERO, author, &payloads[0], BYTES_MAX), Ok(None));
        }
        assert_eq!(assembler.sizes().0, ASSEMBLIES_MAX);
        let late = Time::ZERO + 2 * ASSEMBLY_TIME;
        let author = NodeId::from_bytes([1; 32]);
        assert_eq!(assembler.take(late, author, &payloads[1], BYTES_MAX), Ok(None));
        assert_eq!(assembler.sizes().0, 1);
        for (index, count) in [(0, 1), (4, 4), (0, 5), (u64::MAX, u64::MAX)] {
            let wire = PartWire(1, Hash::of(b""), index, count, Blob(b"x"));
            let payload = serde_cbor::to_vec(&wire).unwrap().into();
            assert_eq!(assembler.take(late, author, &payload, BYTES_MAX), Err(EvidenceError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), part in any::<bool>()) {
            let bytes = if part { [b"\x85\x01\x58\x20".to_vec(), bytes].concat() } else { bytes };
            let _ = Assembler::default().take(Time::ZERO, NodeId::from_bytes([1; 32]), &bytes.into(), BYTES_MAX);
        }

        #[test]
        fn a_flipped_bit_is_seen(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = accusation(10).encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let read = Accusation::decode(&bytes.into(), BYTES_MAX);
            prop_assert!(!read.is_ok_and(|read| read.is_signed()));
        }
    }
}
