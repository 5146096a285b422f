//! Equivocation: two records that no honest author signs both.
//!
//! ```text
//! proof = CBOR [ version: 1, first: bytes, second: bytes, check: bytes ]     two envelopes, as they were gossiped
//! id    = derive_key("omnimesh 2026-11 equivocation", digest of first ‖ digest of second)
//! check = first 16 bytes of derive_key("omnimesh 2026-11 equivocation check", first ‖ second)
//! ```
//!
//! An honest author uses a sequence number once: the record is on its disk before anybody else sees it. So two
//! validly signed durable records of one author that share a sequence number and differ are a proof against it,
//! for everybody and for ever. It needs nothing but itself to be checked; with the mesh secret one can check
//! also that its records were written by a member of the mesh. The check is for those who cannot: signatures do not
//! cover the records' tags, and a byte that was changed there on the way would not be seen.
//!
//! # Which proof
//! Nodes see an author's conflicting records in any order, and have to end with one proof. So proofs of one
//! author are ordered, and the least one known counts: by the lower of the two first sequence numbers, which
//! is the *fork point*, then by the higher of them, then by the digests, the lower first. Each node remembers
//! its log up to the fork point and the two records of the proof; that is enough to know the least proof of all
//! records that it ever saw ([`super::chain`] says why), so what nodes end with does not depend on the order.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::{Blob, Envelope};
use crate::id::{Hash, MeshId, NodeId, Seq};
use crate::identity::PublicKey;
use crate::pattern::PatternGenerator;
use crate::projection;
use crate::refusal::Refusal;
use crate::shape;

use super::{Head, Record};

/// The version of the format.
pub const VERSION: u64 = 1;
/// What the id of a proof is derived with.
const ID_CONTEXT: &str = "omnimesh 2026-11 equivocation";
/// What the check of a proof is derived with.
const CHECK_CONTEXT: &str = "omnimesh 2026-11 equivocation check";
/// Bytes of it.
const CHECK_BYTES: usize = 16;

/// Two records that prove that their author equivocated. Made only of records that do; whether these are validly
/// signed is known of records that passed the gates, and of a decoded proof after [`Proof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The one that begins first; of two that begin together, the one with the lower digest.
    first: Record,
    second: Record,
}

/// Why a proof is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// More bytes than two of the largest envelopes have.
    #[error("the proof is larger than two of the largest messages")]
    TooLarge,
    /// Not a proof in its one encoding.
    #[error("these bytes are not a proof of equivocation")]
    Malformed,
    /// Its check says that bytes of it were changed.
    #[error("the proof was changed after it was made")]
    Changed,
    /// A proof of a later version.
    #[error("the proof has a format version that this node does not know")]
    UnknownVersion,
    /// One of its records is refused.
    #[error("a record in the proof is refused: {0}")]
    Record(Refusal),
    /// The two records may both be of an honest author.
    #[error("the two records of the proof do not contradict each other")]
    NoContradiction,
    /// The records are right, and in the wrong order.
    #[error("the two records of the proof are not in their order")]
    NotCanonical,
}

impl ProofError {
    /// The stable name in metrics and events.
    pub const fn code(self) -> &'static str {
        match self {
            ProofError::TooLarge => "too_large",
            ProofError::Malformed => "malformed",
            ProofError::Changed => "changed",
            ProofError::UnknownVersion => "unknown_version",
            ProofError::Record(reason) => reason.code(),
            ProofError::NoContradiction => "no_contradiction",
            ProofError::NotCanonical => "not_canonical",
        }
    }
}

/// What orders the proofs of one author.
type Rank = (Seq, Seq, Hash, Hash);

impl Proof {
    /// The proof that these two make; `None` if they contradict each other in nothing.
    pub fn new(one: &Record, other: &Record) -> Option<Self> {
        let same_log = one.author() == other.author() && one.mesh() == other.mesh();
        if !same_log || one.digest() == other.digest() || !one.overlaps(other) {
            return None;
        }
        let is_ordered = (one.first(), one.digest()) < (other.first(), other.digest());
        let (first, second) = if is_ordered { (one, other) } else { (other, one) };
        Some(Proof { first: first.clone(), second: second.clone() })
    }

    /// The least proof that any two of these records make.
    pub fn least(records: &[&Record]) -> Option<Self> {
        let mut least: Option<Proof> = None;
        for (index, one) in records.iter().enumerate() {
            for other in records.iter().skip(index + 1) {
                if let Some(proof) = Proof::new(one, other)
                    && least.as_ref().is_none_or(|least| proof.rank() < least.rank())
                {
                    least = Some(proof);
                }
            }
        }
        least
    }

    /// The two records, in their order.
    pub fn records(&self) -> [&Record; 2] {
        [&self.first, &self.second]
    }

    /// Whom it convicts.
    pub fn author(&self) -> NodeId {
        self.first.author()
    }

    /// The mesh in which it happened.
    pub fn mesh(&self) -> MeshId {
        self.first.mesh()
    }

    /// The first sequence number that nobody can trust any more: entries from it on are dropped.
    pub fn fork(&self) -> Seq {
        self.first.first()
    }

    /// The entry before the fork, with which the log ends on every node; `None` if it is frozen from its first entry on. A
    /// node that is behind gets what is missing up to here, so this, and not its head, is where projections cut.
    pub fn end(&self) -> Option<projection::Head> {
        self.first.prev().map(|hash| projection::Head { seq: self.fork().saturating_sub(1), hash })
    }

    /// Where it ends for projections at a node whose log ends with `head`: before the fork, or where a sealed checkpoint
    /// cuts it behind that. The head alone does not tell: what was damaged is not there yet.
    pub fn end_at(&self, head: Head) -> Option<projection::Head> {
        let head = (head.seq > Seq(0)).then_some(projection::Head { seq: head.seq, hash: head.digest });
        self.end().max(head)
    }

    /// The name of the proof: two proofs of the same records are one, whoever made them.
    pub fn id(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(self.first.digest().as_bytes()).update(self.second.digest().as_bytes());
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// True if this one counts and not `other`, of the same author.
    pub fn is_less_than(&self, other: &Proof) -> bool {
        self.rank() < other.rank()
    }

    fn rank(&self) -> Rank {
        let (one, other) = (self.first.digest(), self.second.digest());
        (self.first.first(), self.second.first(), one.min(other), one.max(other))
    }

    /// The bytes to keep, send and show.
    pub fn encode(&self) -> Bytes {
        let (first, second) = (self.first.as_bytes(), self.second.as_bytes());
        let mut bytes = Vec::with_capacity(first.len() + second.len() + ROOM);
        let check = check(first, second);
        serde_cbor::to_writer(&mut bytes, &ProofWire(VERSION, Blob(first), Blob(second), Blob(&check)))
            .expect("writing numbers and bytes to memory does not fail");
        bytes.into()
    }

    /// Reads a proof whose envelopes have at most `message_bytes_max` bytes. Its signatures are not checked yet.
    ///
    /// # Errors
    /// The first fault. Memory stays bounded by the bytes given.
    pub fn decode(bytes: &Bytes, message_bytes_max: usize) -> Result<Self, ProofError> {
        if bytes.len() > proof_bytes_max(message_bytes_max) {
            return Err(ProofError::TooLarge);
        }
        shape::check(bytes).map_err(|_| ProofError::Malformed)?;
        if shape::first_unsigned(bytes).ok_or(ProofError::Malformed)? != VERSION {
            return Err(ProofError::UnknownVersion);
        }
        let ProofWire(_, first, second, told) =
            serde_cbor::from_slice(bytes).map_err(|_| ProofError::Malformed)?;
        if told.0 != check(first.0, second.0) {
            return Err(ProofError::Changed);
        }
        let record = |part: &[u8]| {
            let envelope =
                Envelope::decode(&bytes.slice_ref(part), message_bytes_max).map_err(ProofError::Record)?;
            Record::new(envelope).ok_or(ProofError::Record(Refusal::WrongKind))
        };
        let (first, second) = (record(first.0)?, record(second.0)?);
        let proof = Proof::new(&first, &second).ok_or(ProofError::NoContradiction)?;
        if proof.first != first {
            return Err(ProofError::NotCanonical);
        }
        Ok(proof)
    }

    /// Checks both signatures. This is all that can be checked, and enough, without the secret of the mesh.
    ///
    /// # Errors
    /// What is wrong with a record.
    pub fn verify(&self) -> Result<(), ProofError> {
        let key = PublicKey::new(&self.author()).ok_or(ProofError::Record(Refusal::BadKey))?;
        let is_signed = |record: &&Record| record.envelope().is_signed_by(&key);
        if self.records().iter().all(is_signed) {
            Ok(())
        } else {
            Err(ProofError::Record(Refusal::BadSignature))
        }
    }

    /// Checks also that both records are tagged by a member of the mesh whose patterns these are.
    ///
    /// # Errors
    /// What is wrong with a record.
    pub fn verify_in_mesh(&self, mesh: MeshId, patterns: &mut PatternGenerator) -> Result<(), ProofError> {
        if self.mesh() != mesh {
            return Err(ProofError::Record(Refusal::WrongMesh));
        }
        for record in self.records() {
            if !record.envelope().is_tag_of(patterns.at(record.step())) {
                return Err(ProofError::Record(Refusal::BadPattern));
            }
        }
        self.verify()
    }
}

/// Bytes of the largest proof, where envelopes have at most `message_bytes_max`.
pub const fn proof_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(2).saturating_add(ROOM)
}

/// Bytes of a proof beside its envelopes: heads, the version and the check.
const ROOM: usize = 32;

fn check(first: &[u8], second: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CHECK_CONTEXT);
    let mut check = [0; CHECK_BYTES];
    hasher.update(first).update(second).finalize_xof().fill(&mut check);
    check
}

#[derive(Serialize, Deserialize)]
struct ProofWire<'a>(u64, #[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Author, mesh, patterns};
    use super::*;

    const BYTES_MAX: usize = 65_536;

    fn proof() -> Proof {
        let mut author = Author::new(1);
        Proof::new(&author.record(3, 3, None, 10, 1), &author.record(4, 1, None, 11, 2)).unwrap()
    }

    fn wire(version: u64, first: &Record, second: &Record) -> Bytes {
        wire_of(version, first.as_bytes(), second.as_bytes())
    }

    fn wire_of(version: u64, first: &[u8], second: &[u8]) -> Bytes {
        let check = check(first, second);
        serde_cbor::to_vec(&ProofWire(version, Blob(first), Blob(second), Blob(&check))).unwrap().into()
    }

    #[test]
    fn a_proof_is_read_and_verified_with_and_without_the_secret() {
        let proof = proof();
        let read = Proof::decode(&proof.encode(), BYTES_MAX).unwrap();
        assert_eq!((&read, read.id(), read.fork()), (&proof, proof.id(), Seq(3)));
        assert_eq!(read.end().map(|end| end.seq), Some(Seq(2)), "the entry before the fork");
        read.verify().unwrap();
        read.verify_in_mesh(mesh().id(), &mut patterns()).unwrap();
        let other = crate::Mesh::open("other").unwrap();
        let refused = ProofError::Record(Refusal::WrongMesh);
        assert_eq!(read.verify_in_mesh(other.id(), &mut patterns()), Err(refused));
        let interval = 100.try_into().unwrap();
        let mut strange = PatternGenerator::new(other.secret().clone(), interval, 4.try_into().unwrap());
        let refused = ProofError::Record(Refusal::BadPattern);
        assert_eq!(read.verify_in_mesh(mesh().id(), &mut strange), Err(refused));
    }

    #[test]
    fn what_an_honest_author_writes_proves_nothing() {
        let (mut author, mut other) = (Author::new(1), Author::new(2));
        let branch = author.branch(None, &[2, 2], 0);
        assert_eq!(Proof::new(&branch[0], &branch[1]), None, "no number in common");
        assert_eq!(Proof::new(&branch[0], &branch[0]), None, "the same record");
        assert_eq!(Proof::new(&branch[0], &other.record(1, 2, None, 10, 9)), None, "two authors");
        let same = Proof::decode(&wire(1, &branch[0], &branch[0]), BYTES_MAX);
        assert_eq!(same, Err(ProofError::NoContradiction));
    }

    #[test]
    fn hostile_proofs_are_refused() {
        let proof = proof();
        let [first, second] = proof.records();
        let decode = |bytes: Bytes| Proof::decode(&bytes, BYTES_MAX).unwrap_err();
        assert_eq!(decode(wire(1, second, first)), ProofError::NotCanonical);
        assert_eq!(decode(wire(2, first, second)), ProofError::UnknownVersion);
        assert_eq!(decode(vec![0; proof_bytes_max(BYTES_MAX) + 1].into()), ProofError::TooLarge);
        assert_eq!(decode(Bytes::from_static(b"\x82\x01\x40")), ProofError::Malformed);
        assert_eq!(decode(Bytes::new()), ProofError::Malformed);
        let mut long = proof.encode().to_vec();
        long.push(0);
        assert_eq!(decode(long.into()), ProofError::Malformed);
        // A signature by somebody else, under a right check.
        let mut bytes = second.as_bytes().to_vec();
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        let forged = Proof::decode(&wire_of(1, first.as_bytes(), &bytes), BYTES_MAX).unwrap();
        assert_eq!(forged.verify(), Err(ProofError::Record(Refusal::BadSignature)));
        let mut bytes = proof.encode().to_vec();
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        assert_eq!(decode(bytes.into()), ProofError::Changed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Proof::decode(&bytes.into(), BYTES_MAX);
        }

        #[test]
        fn a_flipped_bit_is_seen(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let proof = proof();
            let mut bytes = proof.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let read = Proof::decode(&bytes.into(), BYTES_MAX);
            // Without the secret, too.
            let good = read.and_then(|read| read.verify());
            prop_assert!(good.is_err());
        }
    }
}
