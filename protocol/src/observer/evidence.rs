//! Evidence: what convinces anybody who knows the mesh secret, offline, that a key has misbehaved.
//!
//! ```text
//! evidence = CBOR [ 1, first: bytes, second: bytes ]        a forked log: two durable envelopes (log::Proof, as it is)
//!          | CBOR [ 1, 1, first: bytes, second: bytes ]     equivocation: two ephemeral envelopes
//!          | CBOR [ 1, 2, accusation: bytes ]               a false accusation
//! ```
//!
//! # What can be proved
//! | misdeed | proved by | why not, otherwise |
//! |---|---|---|
//! | equivocation, durable | two records of one number | |
//! | equivocation, ephemeral | two envelopes of one number | |
//! | false accusation | the accusation, which its reporter has signed | |
//! | bad result of a task | that it was signed, and that others have signed another: [`crate::compute::statement::Evidence`] | it convicts nobody: who is right, nobody can see from signatures |
//! | bad pattern, bad signature, malformed, wrong mesh | no | who forwarded it has not signed that it did, and whose name it bears did not write it; the tag is not under the signature, so a wrong tag convicts nobody |
//! | replay, stale or future step | no | whether it is late is a matter of who looks when |
//! | flood, silence, latency, drift, withholding | no | they are rates and absences, seen from one place |
//! | duplicate identity | only once it equivocates | two hosts may well have one owner |
//!
//! What cannot be proved lowers local trust and is told to nobody. An honest author never equivocates: its numbers
//! are reserved on disk before they are used, and its log is written before it is told of.
//!
//! # Order
//! Of two envelopes the one that begins first stands first; of two that begin together, the one with the lower digest.
//! So there is one encoding of each piece of evidence.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::{Blob, Envelope, Kind};
use crate::id::{Hash, MeshId, NodeId, Step};
use crate::identity::PublicKey;
use crate::log::{Proof, ProofError};
use crate::pattern::PatternGenerator;
use crate::refusal::Refusal;
use crate::shape;

use super::accusation::Accusation;
use super::finding::AnomalyKind;

/// The version of the format.
pub const VERSION: u64 = 1;
/// What the id of evidence is derived with.
const ID_CONTEXT: &str = "omnimesh 2026-11 evidence";
const PAIR: u64 = 1;
const FALSE_ACCUSATION: u64 = 2;
/// Accusations within accusations that are looked at: one of false accusation, of one, of something else.
const DEPTH_MAX: usize = 2;
/// Bytes that an accusation adds to its evidence, at most.
const ACCUSATION_BYTES_MAX: usize = 192;

/// Two ephemeral envelopes that prove that their author equivocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    first: Envelope,
    second: Envelope,
}

impl Pair {
    /// The evidence that these two make; `None` if they contradict each other in nothing.
    pub fn new(one: &Envelope, other: &Envelope) -> Option<Self> {
        let (a, b) = (one.header(), other.header());
        let are_ephemeral = a.kind == Kind::Ephemeral && b.kind == Kind::Ephemeral;
        if !are_ephemeral || a.author != b.author || a.mesh != b.mesh || one.digest() == other.digest() {
            return None;
        }
        let past_last =
            |envelope: &Envelope| envelope.header().seq.saturating_add(envelope.payloads().len() as u64);
        if a.seq >= past_last(other) || b.seq >= past_last(one) {
            return None;
        }
        let is_ordered = (a.seq, one.digest()) < (b.seq, other.digest());
        let (first, second) = if is_ordered { (one, other) } else { (other, one) };
        Some(Pair { first: first.clone(), second: second.clone() })
    }

    fn verify_signatures(&self) -> Result<(), EvidenceError> {
        let author = self.first.header().author;
        let key = PublicKey::new(&author).ok_or(EvidenceError::Envelope(Refusal::BadKey))?;
        if self.envelopes().iter().all(|envelope| envelope.is_signed_by(&key)) {
            Ok(())
        } else {
            Err(EvidenceError::Envelope(Refusal::BadSignature))
        }
    }

    /// The two, in their order.
    pub fn envelopes(&self) -> [&Envelope; 2] {
        [&self.first, &self.second]
    }
}

/// What convinces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one")]
pub enum Evidence {
    /// Two entries for one place in a log.
    Log(Proof),
    /// Two ephemeral messages with one number.
    Pair(Pair),
    /// An accusation that does not hold.
    FalseAccusation(Box<Accusation>),
}

/// Why evidence is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// More bytes than any evidence has.
    #[error("the evidence is larger than any can be")]
    TooLarge,
    /// Not in the one encoding.
    #[error("these bytes are not evidence")]
    Malformed,
    /// Of a later version, or of a kind that this node does not know: it may well be true.
    #[error("the evidence has a version or kind that this node does not know")]
    Unknown,
    /// An envelope in it is refused.
    #[error("an envelope in the evidence is refused: {0}")]
    Envelope(Refusal),
    /// An honest author may have signed both.
    #[error("the two envelopes of the evidence do not contradict each other")]
    NoContradiction,
    /// What is in it is in the wrong order.
    #[error("the parts of the evidence are not in their order")]
    NotCanonical,
    /// The accusation in it is not signed by whom it names.
    #[error("the accusation in the evidence is not signed by its reporter")]
    NotSigned,
    /// Its check says that bytes of it were changed.
    #[error("the evidence was changed after it was made")]
    Changed,
    /// The accusation in it is true.
    #[error("the accusation in the evidence is not false")]
    NotFalse,
    /// It is about another mesh.
    #[error("the evidence is about another mesh")]
    WrongMesh,
}

impl EvidenceError {
    /// The stable name in metrics, events and test vectors.
    pub const fn code(self) -> &'static str {
        match self {
            EvidenceError::TooLarge => "too_large",
            EvidenceError::Malformed => "malformed",
            EvidenceError::Unknown => "unknown",
            EvidenceError::Envelope(reason) => reason.code(),
            EvidenceError::NoContradiction => "no_contradiction",
            EvidenceError::NotCanonical => "not_canonical",
            EvidenceError::NotSigned => "not_signed",
            EvidenceError::Changed => "changed",
            EvidenceError::NotFalse => "not_false",
            EvidenceError::WrongMesh => "wrong_mesh",
        }
    }

    /// True if whoever signs that such evidence is good lies: no version of this protocol finds it good.
    pub const fn is_conclusive(self) -> bool {
        // A node of a later version may know more, also about an envelope's version; one with another limit may take
        // what is too large here.
        !matches!(
            self,
            EvidenceError::Unknown
                | EvidenceError::TooLarge
                | EvidenceError::Envelope(Refusal::UnknownVersion | Refusal::TooLarge)
        )
    }
}

impl From<ProofError> for EvidenceError {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::TooLarge => EvidenceError::TooLarge,
            ProofError::Malformed => EvidenceError::Malformed,
            ProofError::Changed => EvidenceError::Changed,
            ProofError::UnknownVersion => EvidenceError::Unknown,
            ProofError::Record(Refusal::WrongMesh) => EvidenceError::WrongMesh,
            ProofError::Record(reason) => EvidenceError::Envelope(reason),
            ProofError::NoContradiction => EvidenceError::NoContradiction,
            ProofError::NotCanonical => EvidenceError::NotCanonical,
        }
    }
}

impl Evidence {
    /// Whom it convicts.
    pub fn accused(&self) -> NodeId {
        match self {
            Evidence::Log(proof) => proof.author(),
            Evidence::Pair(pair) => pair.first.header().author,
            Evidence::FalseAccusation(accusation) => accusation.reporter(),
        }
    }

    /// The mesh in which it happened.
    pub fn mesh(&self) -> MeshId {
        match self {
            Evidence::Log(proof) => proof.mesh(),
            Evidence::Pair(pair) => pair.first.header().mesh,
            Evidence::FalseAccusation(accusation) => accusation.mesh(),
        }
    }

    /// Of what.
    pub fn kind(&self) -> AnomalyKind {
        match self {
            Evidence::Log(_) | Evidence::Pair(_) => AnomalyKind::Equivocation,
            Evidence::FalseAccusation(_) => AnomalyKind::FalseAccusation,
        }
    }

    /// What it says, for people.
    pub fn says(&self) -> &'static str {
        match self {
            Evidence::Log(_) => "it has signed two entries for one place in its log",
            Evidence::Pair(_) => "it has signed two messages with one sequence number",
            Evidence::FalseAccusation(_) => "it has signed an accusation that does not hold",
        }
    }

    /// The last step that its accused has signed in it: what a pardon up to this step covers.
    pub fn step(&self) -> Step {
        match self {
            Evidence::Log(proof) => {
                proof.records().map(|record| record.step()).into_iter().max().unwrap_or_default()
            }
            Evidence::Pair(pair) => pair.first.header().step.max(pair.second.header().step),
            Evidence::FalseAccusation(accusation) => accusation.step(),
        }
    }

    /// Its name: the same, whoever found it.
    pub fn id(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        match self {
            Evidence::Log(proof) => return proof.id(),
            Evidence::Pair(pair) => hasher
                .update(&[1])
                .update(pair.first.digest().as_bytes())
                .update(pair.second.digest().as_bytes()),
            Evidence::FalseAccusation(accusation) => {
                hasher.update(&[2]).update(accusation.digest().as_bytes())
            }
        };
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The bytes to keep, send and show.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        let written = match self {
            Evidence::Log(proof) => return proof.encode(),
            Evidence::Pair(pair) => {
                let parts = (Blob(pair.first.as_bytes()), Blob(pair.second.as_bytes()));
                serde_cbor::to_writer(&mut bytes, &PairWire(VERSION, PAIR, parts.0, parts.1))
            }
            Evidence::FalseAccusation(accusation) => {
                let accusation = accusation.encode();
                serde_cbor::to_writer(&mut bytes, &FalseWire(VERSION, FALSE_ACCUSATION, Blob(&accusation)))
            }
        };
        written.expect("writing numbers and bytes to memory does not fail");
        bytes.into()
    }

    /// Reads evidence whose envelopes have at most `message_bytes_max` bytes. Nothing is verified yet.
    ///
    /// # Errors
    /// The first fault. Memory stays bounded by the bytes given.
    pub fn decode(bytes: &Bytes, message_bytes_max: usize) -> Result<Self, EvidenceError> {
        Self::decode_within(bytes, message_bytes_max, 0)
    }

    pub(super) fn decode_within(
        bytes: &Bytes,
        message_bytes_max: usize,
        depth: usize,
    ) -> Result<Self, EvidenceError> {
        if bytes.len() > evidence_bytes_max(message_bytes_max) {
            return Err(EvidenceError::TooLarge);
        }
        shape::check(bytes).map_err(|_| EvidenceError::Malformed)?;
        if shape::first_unsigned(bytes).ok_or(EvidenceError::Malformed)? != VERSION {
            return Err(EvidenceError::Unknown);
        }
        match kind_of(bytes).ok_or(EvidenceError::Malformed)? {
            None => Ok(Evidence::Log(Proof::decode(bytes, message_bytes_max)?)),
            Some(PAIR) => {
                let PairWire(_, _, first, second) =
                    serde_cbor::from_slice(bytes).map_err(|_| EvidenceError::Malformed)?;
                let envelope = |part: &[u8]| {
                    Envelope::decode(&bytes.slice_ref(part), message_bytes_max)
                        .map_err(EvidenceError::Envelope)
                };
                let (first, second) = (envelope(first.0)?, envelope(second.0)?);
                let pair = Pair::new(&first, &second).ok_or(EvidenceError::NoContradiction)?;
                if pair.first != first {
                    return Err(EvidenceError::NotCanonical);
                }
                Ok(Evidence::Pair(pair))
            }
            Some(FALSE_ACCUSATION) if depth < DEPTH_MAX => {
                let FalseWire(_, _, accusation) =
                    serde_cbor::from_slice(bytes).map_err(|_| EvidenceError::Malformed)?;
                let accusation = Accusation::decode(&bytes.slice_ref(accusation.0), message_bytes_max)?;
                Ok(Evidence::FalseAccusation(Box::new(accusation)))
            }
            Some(_) => Err(EvidenceError::Unknown),
        }
    }

    /// Checks all signatures and tags, by what every member of the mesh knows. Costs two to four checks of
    /// signatures, 40 µs each.
    ///
    /// # Errors
    /// Why it convinces nobody.
    pub fn verify(
        &self,
        mesh: MeshId,
        patterns: &mut PatternGenerator,
        message_bytes_max: usize,
    ) -> Result<(), EvidenceError> {
        self.verify_within(mesh, patterns, message_bytes_max, 0)
    }

    /// Checks what can be checked without the mesh secret: signatures, and whether what is signed contradicts itself.
    /// Whoever signs a contradiction has misbehaved, in whichever mesh.
    ///
    /// # Errors
    /// Why it convinces nobody; [`EvidenceError::Unknown`] of an accusation that may be false by its tags only.
    pub fn verify_signatures(&self, message_bytes_max: usize) -> Result<(), EvidenceError> {
        self.verify_signatures_within(message_bytes_max, 0)
    }

    fn verify_signatures_within(&self, message_bytes_max: usize, depth: usize) -> Result<(), EvidenceError> {
        match self {
            Evidence::Log(proof) => Ok(proof.verify()?),
            Evidence::Pair(pair) => pair.verify_signatures(),
            Evidence::FalseAccusation(accusation) => {
                if !accusation.is_signed() {
                    return Err(EvidenceError::NotSigned);
                }
                let inner = Evidence::decode_within(accusation.evidence(), message_bytes_max, depth + 1);
                match inner.and_then(|inner| inner.verify_signatures_within(message_bytes_max, depth + 1)) {
                    Err(error) if error.is_conclusive() && error != EvidenceError::NotFalse => Ok(()),
                    _ => Err(EvidenceError::Unknown),
                }
            }
        }
    }

    pub(super) fn verify_within(
        &self,
        mesh: MeshId,
        patterns: &mut PatternGenerator,
        message_bytes_max: usize,
        depth: usize,
    ) -> Result<(), EvidenceError> {
        if self.mesh() != mesh {
            return Err(EvidenceError::WrongMesh);
        }
        match self {
            Evidence::Log(proof) => Ok(proof.verify_in_mesh(mesh, patterns)?),
            Evidence::Pair(pair) => {
                for envelope in pair.envelopes() {
                    if !envelope.is_tag_of(patterns.at(envelope.header().step)) {
                        return Err(EvidenceError::Envelope(Refusal::BadPattern));
                    }
                }
                pair.verify_signatures()
            }
            Evidence::FalseAccusation(accusation) => {
                if !accusation.is_signed() {
                    return Err(EvidenceError::NotSigned);
                }
                match accusation.judge_within(mesh, patterns, message_bytes_max, depth + 1) {
                    Ok(_) => Err(EvidenceError::NotFalse),
                    Err(error) if error.is_conclusive() => Ok(()),
                    // Whoever vouches for it may know more.
                    Err(_) => Err(EvidenceError::Unknown),
                }
            }
        }
    }
}

/// Bytes of the largest evidence, where envelopes have at most `message_bytes_max`.
pub const fn evidence_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(2).saturating_add(32 + DEPTH_MAX * ACCUSATION_BYTES_MAX)
}

/// The second item of an array that has passed the shape: a number, or `None` if it is bytes; the outer `None` if
/// it is neither.
fn kind_of(bytes: &[u8]) -> Option<Option<u64>> {
    // The version has been read: it is 1, in one byte; so is the head of an array of less than 24.
    let second = *bytes.get(2)?;
    match second >> 5 {
        0 => shape::argument(second, bytes.get(3..)?).ok().map(|(kind, _)| Some(kind)),
        2 => Some(None),
        _ => None,
    }
}

#[derive(Serialize, Deserialize)]
struct PairWire<'a>(u64, u64, #[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct FalseWire<'a>(u64, u64, #[serde(borrow)] Blob<'a>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Author, BYTES_MAX, mesh, patterns};
    use super::*;

    fn pair(author: u8) -> Evidence {
        let mut author = Author::new(author);
        let pair = Pair::new(&author.message(7, 3, 1_000, b"one"), &author.message(9, 1, 1_001, b"two"));
        Evidence::Pair(pair.unwrap())
    }

    fn false_accusation(of: u8, by: u8) -> Evidence {
        // The signature of the second envelope is not the author's.
        let mut bytes = pair(of).encode().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let reporter = Author::new(by).identity;
        let accusation = Accusation::sign(&reporter, mesh().id(), Step(1_005), bytes.into());
        Evidence::FalseAccusation(Box::new(accusation))
    }

    fn all() -> [Evidence; 3] {
        [Evidence::Log(Author::new(1).fork(3, 1_000)), pair(1), false_accusation(1, 2)]
    }

    fn verify(evidence: &Evidence) -> Result<(), EvidenceError> {
        evidence.verify(mesh().id(), &mut patterns(), BYTES_MAX)
    }

    #[test]
    fn each_kind_is_read_and_verified_by_anybody_with_the_secret() {
        let [one, two] = [Author::new(1).id(), Author::new(2).id()];
        let expected = [(one, 1_000), (one, 1_001), (two, 1_005)];
        for (evidence, (accused, step)) in all().iter().zip(expected) {
            let read = Evidence::decode(&evidence.encode(), BYTES_MAX).unwrap();
            assert_eq!(&read, evidence);
            assert_eq!((read.accused(), read.step(), read.id()), (accused, Step(step), evidence.id()));
            assert_eq!(verify(&read), Ok(()));
            assert_eq!(read.verify_signatures(BYTES_MAX), Ok(()), "without the secret, too");
            let other = crate::Mesh::open("other").unwrap();
            let elsewhere = read.verify(other.id(), &mut patterns(), BYTES_MAX);
            assert_eq!(elsewhere, Err(EvidenceError::WrongMesh));
        }
    }

    #[test]
    fn a_log_proof_is_evidence_as_it_is() {
        let proof = Author::new(1).fork(3, 1_000);
        let evidence = Evidence::decode(&proof.encode(), BYTES_MAX).unwrap();
        assert_eq!((evidence.id(), evidence.encode()), (proof.id(), proof.encode()));
    }

    #[test]
    fn what_an_honest_author_signs_is_no_evidence() {
        let (mut author, mut other) = (Author::new(1), Author::new(2));
        let one = author.message(7, 3, 1_000, b"one");
        assert_eq!(Pair::new(&one, &author.message(10, 1, 1_000, b"two")), None);
        assert_eq!(Pair::new(&one, &author.message(6, 1, 1_000, b"two")), None);
        assert_eq!(Pair::new(&one, &one), None);
        assert_eq!(Pair::new(&one, &other.message(7, 3, 1_000, b"two")), None);
        let fork = author.fork(7, 1_000);
        assert_eq!(Pair::new(&one, fork.records()[0].envelope()), None, "their numbers are others");
    }

    #[test]
    fn who_accuses_falsely_is_convicted_and_who_says_so_of_an_honest_one_is_too() {
        let by = Author::new(3).identity;
        let say_false = |accusation: &Accusation| {
            let evidence = Evidence::FalseAccusation(Box::new(accusation.clone())).encode();
            Accusation::sign(&by, mesh().id(), Step(1_010), evidence)
        };
        // 2 accuses 1 rightly; 3 says that this is false; whoever proves that convicts 3.
        let right = Accusation::sign(&Author::new(2).identity, mesh().id(), Step(1_002), pair(1).encode());
        assert_eq!(verify(&Evidence::FalseAccusation(Box::new(right.clone()))), Err(EvidenceError::NotFalse));
        let slander = Evidence::FalseAccusation(Box::new(say_false(&right)));
        let read = Evidence::decode(&slander.encode(), BYTES_MAX).unwrap();
        assert_eq!((verify(&read), read.accused()), (Ok(()), by.id()));
        // Deeper than that nobody looks, and nobody is convicted.
        let Evidence::FalseAccusation(slander) = slander else { panic!("it was made so") };
        let deep = Evidence::FalseAccusation(Box::new(say_false(&slander)));
        assert_eq!(verify(&deep), Err(EvidenceError::Unknown));
    }

    #[test]
    fn an_accusation_that_one_cannot_judge_convicts_nobody() {
        let by = Author::new(2).identity;
        let of = |evidence: &'static [u8]| {
            let accusation = Accusation::sign(&by, mesh().id(), Step(5), Bytes::from_static(evidence));
            verify(&Evidence::FalseAccusation(Box::new(accusation)))
        };
        assert_eq!(of(b"\x83\x02\x01\x40"), Err(EvidenceError::Unknown), "a later version");
        assert_eq!(of(b"\x83\x01\x09\x40"), Err(EvidenceError::Unknown), "a later kind");
        assert_eq!(of(b"\x83\x01\x01\x40"), Ok(()), "no version has this");
        assert_eq!(of(b""), Ok(()));
        let Evidence::FalseAccusation(accusation) = false_accusation(1, 2) else { panic!("it was made so") };
        let mut bytes = accusation.encode().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let forged = Accusation::decode(&bytes.into(), BYTES_MAX).unwrap();
        assert_eq!(verify(&Evidence::FalseAccusation(Box::new(forged))), Err(EvidenceError::NotSigned));
    }

    #[test]
    fn hostile_evidence_is_refused() {
        let decode = |bytes: &[u8]| Evidence::decode(&Bytes::copy_from_slice(bytes), BYTES_MAX).unwrap_err();
        let Evidence::Pair(Pair { first, second }) = pair(1) else { panic!("it was made so") };
        let wire = |version, kind, first: &Envelope, second: &Envelope| {
            let wire = PairWire(version, kind, Blob(first.as_bytes()), Blob(second.as_bytes()));
            serde_cbor::to_vec(&wire).unwrap()
        };
        assert_eq!(decode(&wire(1, 1, &second, &first)), EvidenceError::NotCanonical);
        assert_eq!(decode(&wire(1, 1, &first, &first)), EvidenceError::NoContradiction);
        assert_eq!(decode(&wire(2, 1, &first, &second)), EvidenceError::Unknown);
        assert_eq!(decode(&wire(1, 3, &first, &second)), EvidenceError::Unknown);
        assert_eq!(decode(&[]), EvidenceError::Malformed);
        assert_eq!(decode(b"\x82\x01\x60"), EvidenceError::Malformed);
        assert_eq!(decode(b"\x81\x01"), EvidenceError::Malformed);
        assert_eq!(decode(&vec![0; evidence_bytes_max(BYTES_MAX) + 1]), EvidenceError::TooLarge);
        let too_large = Evidence::decode(&pair(1).encode(), 100);
        assert_eq!(too_large, Err(EvidenceError::Envelope(Refusal::TooLarge)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Evidence::decode(&bytes.into(), BYTES_MAX);
        }

        #[test]
        fn any_bytes_behind_a_good_beginning_are_too(
            head in proptest::sample::select(vec![b"\x83\x01\x58".to_vec(), b"\x84\x01\x01\x58".to_vec(),
                b"\x83\x01\x02\x58".to_vec()]),
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = Evidence::decode(&[head, bytes].concat().into(), BYTES_MAX);
        }

        #[test]
        fn a_flipped_bit_convicts_nobody_else(
            which in 0_usize..2, at in any::<prop::sample::Index>(), bit in 0_u8..8
        ) {
            let mut bytes = all()[which].encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let read = Evidence::decode(&bytes.into(), BYTES_MAX);
            prop_assert!(read.and_then(|read| verify(&read)).is_err());
        }
    }
}
