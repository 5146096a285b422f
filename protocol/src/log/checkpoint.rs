//! Checkpoints: what all entries before a step come to, signed by several nodes.
//!
//! ```text
//!            step < S                     step ≥ S
//!  author A  1 ── 2 ── 3 ── 4 │── 5 ── 6        cut = { A: 4, B: 2 }, each with digest and step
//!  author B  1 ── 2 ──────────│── 3             state = the fold of exactly the entries in the cut
//!                             │
//!  Checkpoint = mesh, S, (name, hash, length) of the cut and of each projection's state        id = its hash
//!  Sealed     = a checkpoint and the signatures of enough nodes over its id
//! ```
//!
//! Beside it goes a part that nobody signs: the records at which the logs are cut. Whoever takes a checkpoint sees by them that
//! each author has been there, so that no log can be made to end where its author never was, whoever has signed. It is no part of
//! what is signed, as an author can sign one record in several ways.
//!
//! Nodes with the same entries before S make the same bytes, hence the same id. What came late at some of them makes
//! the ids differ; then this checkpoint is not sealed, and the next one is. Nothing is refused because it is late: an
//! entry of a step before S that is not in the cut goes on behind the cut like any other.
//!
//! # What it is for
//! A node may drop the records in the cut of a sealed checkpoint that it holds; and who misses records that nobody
//! gives any more takes the checkpoint in their place: the logs go on behind the cut, the state stands for what came
//! before. The next record of an author names the digest in the cut.
//!
//! # The base
//! What stands for the entries that a node no longer has is its [`Base`]: a cut and a state. It begins empty, and joins
//! what it is replaced by, so that nothing in it is lost where two islands have sealed different checkpoints.
//!
//! # Not here
//! Who signs and when, and how checkpoints are fetched: that is the log's machine. Disks.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{Hash, MeshId, NodeId, Seq, Step};
use crate::identity::{Identity, PublicKey};
use crate::shape;

use super::Head;
use super::wire::{Reader, Writer};

mod base;

pub use base::Base;

/// Bytes of one chunk of a part; only the last one of a part is shorter.
pub const CHUNK_BYTES: usize = 128 << 10;
/// Votes that are kept and told for one checkpoint, at most. Source: guess, a majority of 4,000 nodes.
pub const VOTES_MAX: usize = 2048;
/// Parts of a checkpoint, at most: the cut, and one state for each projection.
pub const PARTS_MAX: usize = 16;
/// The name of the part that is the cut; it is the first.
pub const CUT: &str = "cut";
/// The name of the part that is not signed, and comes last: the records at which the logs are cut.
pub const HEADS: &str = "heads";
/// The version of this format.
const VERSION: u64 = 1;
/// What the id is derived with.
const ID_CONTEXT: &str = "omnimesh/1/checkpoint";
/// What is signed: this, the mesh and the id.
const VOTE_CONTEXT: &[u8] = b"omnimesh/1/checkpoint vote";
/// The longest name of a part.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of an author in the encoded cut, at most.
pub(super) const CUT_ENTRY_BYTES_MAX: usize = 100;

/// Why something is not a checkpoint, or not a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not what is written for a checkpoint.
    #[error("malformed checkpoint")]
    Malformed,
    /// It is another mesh's.
    #[error("the checkpoint of another mesh")]
    OtherMesh,
    /// A part is not the one that was signed.
    #[error("a part of the checkpoint is not the one that was signed")]
    OtherPart,
    /// The state cannot be read.
    #[error("the state in the checkpoint cannot be read")]
    State,
    /// A log is cut where its author has no record.
    #[error("a log is cut where its author has signed no record")]
    Heads,
}

/// The last record of an author that a checkpoint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutHead {
    /// Where the author's log is cut.
    pub head: Head,
    /// The step of that record.
    pub step: Step,
}

/// Where each author's log is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut(pub BTreeMap<NodeId, CutHead>);

impl Cut {
    /// The canonical bytes: `[ [author, seq, digest, step], … ]`, sorted by author.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.open(self.0.len());
        for (author, CutHead { head, step }) in &self.0 {
            out.open(4).bytes(author.as_bytes()).uint(head.seq.0).bytes(head.digest.as_bytes()).uint(step.0);
        }
        out.finish()
    }

    /// Reads them; `None` of anything else, and of more than `authors_max` authors.
    pub fn decode(bytes: &Bytes, authors_max: usize) -> Option<Self> {
        shape::check(bytes).ok()?;
        let mut reader = Reader::new(bytes);
        let mut cut = BTreeMap::new();
        for _ in 0..reader.array(authors_max as u64)? {
            reader.array(4).filter(|items| *items == 4)?;
            let author = reader.author()?;
            let head = Head { seq: reader.seq()?, digest: reader.hash()? };
            let step = Step(reader.uint()?);
            let is_next = cut.last_key_value().is_none_or(|(last, _)| *last < author);
            if !is_next || head.seq == Seq(0) || head.seq >= Seq(u64::MAX - 1) {
                return None;
            }
            cut.insert(author, CutHead { head, step });
        }
        reader.is_at_end().then_some(Cut(cut))
    }

    /// Where an author's log is cut; empty of one that is not in it.
    pub fn head(&self, author: &NodeId) -> Head {
        self.0.get(author).map_or(Head::EMPTY, |cut| cut.head)
    }

    /// Takes the later of both for every author.
    pub fn join(&mut self, other: &Cut) {
        for (author, theirs) in &other.0 {
            let ours = self.0.entry(*author).or_insert(*theirs);
            if theirs.head.seq > ours.head.seq {
                *ours = *theirs;
            }
        }
    }

    /// True if it reaches as far as `other` for every author.
    pub fn covers(&self, other: &Cut) -> bool {
        other.0.iter().all(|(author, cut)| cut.head.seq <= self.head(author).seq)
    }

    /// How many entries it covers.
    pub fn entries(&self) -> u64 {
        self.0.values().map(|cut| cut.head.seq.0).fold(0, u64::saturating_add)
    }
}

/// A part of a checkpoint: the cut, or a projection's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// [`CUT`], or the projection's name.
    pub name: String,
    /// The BLAKE3 hash of its bytes.
    pub hash: Hash,
    /// How many there are.
    pub bytes: u64,
}

impl Part {
    /// What names these bytes.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        Part { name: name.to_owned(), hash: Hash::of(bytes), bytes: bytes.len() as u64 }
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES as u64)
    }

    /// The length of one of its chunks; `None` behind the last.
    pub fn chunk_bytes(&self, index: u64) -> Option<usize> {
        let from = index.checked_mul(CHUNK_BYTES as u64).filter(|from| *from < self.bytes)?;
        usize::try_from(self.bytes - from).ok().map(|rest| rest.min(CHUNK_BYTES))
    }
}

/// What all entries before a step come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose.
    pub mesh: MeshId,
    /// Entries before it are covered.
    pub step: Step,
    /// The cut, then the projections' states by name.
    pub parts: Vec<Part>,
}

impl Checkpoint {
    /// `[ version, mesh, step, [ [name, hash, bytes], … ] ]`
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.open(4).uint(VERSION).bytes(self.mesh.as_bytes()).uint(self.step.0).open(self.parts.len());
        for part in &self.parts {
            out.open(3).bytes(part.name.as_bytes()).bytes(part.hash.as_bytes()).uint(part.bytes);
        }
        out.finish()
    }

    /// Reads what [`Checkpoint::encode`] wrote; `None` of anything else.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        shape::check(bytes).ok()?;
        let mut reader = Reader::new(bytes);
        reader.array(4).filter(|items| *items == 4)?;
        if reader.uint()? != VERSION {
            return None;
        }
        let mesh = MeshId::from_bytes(reader.bytes()?.try_into().ok()?);
        let step = Step(reader.uint()?);
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..reader.array(PARTS_MAX as u64)? {
            reader.array(3).filter(|items| *items == 3)?;
            let name =
                std::str::from_utf8(reader.bytes()?).ok().filter(|name| name.len() <= NAME_BYTES_MAX)?;
            parts.push(Part { name: name.to_owned(), hash: reader.hash()?, bytes: reader.uint()? });
        }
        let is_in_order = parts.get(1..)?.is_sorted_by(|a, b| a.name < b.name);
        let is_good = reader.is_at_end() && is_in_order && parts.first()?.name == CUT;
        is_good.then_some(Checkpoint { mesh, step, parts })
    }

    /// Its hash.
    pub fn id(&self) -> Hash {
        Hash::from_bytes(blake3::derive_key(ID_CONTEXT, &self.encode()))
    }

    /// The length of the cut and of all states.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }
}

/// One node's signature of a checkpoint: it has folded the entries itself and come to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub signer: NodeId,
    /// Over the mesh and the checkpoint's id.
    pub signature: [u8; 64],
}

impl Vote {
    /// Signs.
    pub fn new(identity: &Identity, mesh: MeshId, checkpoint: &Hash) -> Self {
        Vote { signer: identity.id(), signature: identity.sign(&signed(mesh, checkpoint)) }
    }

    /// True if the signature is the signer's.
    pub fn verify(&self, mesh: MeshId, checkpoint: &Hash) -> bool {
        PublicKey::new(&self.signer).is_some_and(|key| key.verify(&signed(mesh, checkpoint), &self.signature))
    }

    /// `signer ‖ signature`
    pub fn to_wire(&self) -> [u8; 96] {
        let mut bytes = [0; 96];
        bytes[..32].copy_from_slice(self.signer.as_bytes());
        bytes[32..].copy_from_slice(&self.signature);
        bytes
    }

    /// Reads what [`Vote::to_wire`] wrote.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let (signer, signature) = bytes.split_first_chunk::<32>()?;
        Some(Vote { signer: NodeId::from_bytes(*signer), signature: signature.try_into().ok()? })
    }
}

fn signed(mesh: MeshId, checkpoint: &Hash) -> Vec<u8> {
    [VOTE_CONTEXT, mesh.as_bytes(), checkpoint.as_bytes()].concat()
}

/// A checkpoint and who has signed it, sorted by key: nobody yet, when it was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// [`HEADS`], which is not. Two that differ in it alone may both be good.
    pub heads: Part,
    /// By whom.
    pub votes: Vec<Vote>,
}

impl Sealed {
    /// `[ checkpoint, [hash, bytes], [ vote, … ] ]`, checkpoint and votes as byte strings.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.open(3).bytes(&self.checkpoint.encode());
        out.open(2).bytes(self.heads.hash.as_bytes()).uint(self.heads.bytes).open(self.votes.len());
        for vote in &self.votes {
            out.bytes(&vote.to_wire());
        }
        out.finish()
    }

    /// Reads what [`Sealed::encode`] wrote: the signers differ and are in order. The signatures are not checked.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        shape::check(bytes).ok()?;
        let mut reader = Reader::new(bytes);
        reader.array(3).filter(|items| *items == 3)?;
        let checkpoint = Checkpoint::decode(&Bytes::copy_from_slice(reader.bytes()?))?;
        reader.array(2).filter(|items| *items == 2)?;
        let heads = Part { name: HEADS.to_owned(), hash: reader.hash()?, bytes: reader.uint()? };
        let votes = reader.votes()?;
        let is_good = reader.is_at_end() && votes.is_sorted_by(|a, b| a.signer < b.signer);
        is_good.then_some(Sealed { checkpoint, heads, votes })
    }

    /// All parts, in the order of their numbers on the wire: those that are signed, and [`HEADS`].
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.checkpoint.parts.iter().chain([&self.heads])
    }

    /// The length of all parts.
    pub fn bytes(&self) -> u64 {
        self.checkpoint.bytes().saturating_add(self.heads.bytes)
    }

    /// True if every signature is good.
    pub fn verify(&self) -> bool {
        let id = self.checkpoint.id();
        self.votes.iter().all(|vote| vote.verify(self.checkpoint.mesh, &id))
    }
}

/// A sealed checkpoint that is on disk whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The checkpoint.
    pub sealed: Sealed,
    /// Its cut.
    pub cut: Cut,
}

/// Which of a node's sealed checkpoints are kept: the place of the newest one, and of the one beside it. That is one that the
/// newest does not cover, if there is any, so that nodes can still take it, and else the newest of the others.
///
/// Each is given as its step, its id and its cut.
pub fn kept<'a>(sealed: impl IntoIterator<Item = (Step, Hash, &'a Cut)>) -> (Option<usize>, Option<usize>) {
    let sealed: Vec<(Step, Hash, &Cut)> = sealed.into_iter().collect();
    let newest = (0..sealed.len()).zip(&sealed).max_by_key(|(_, (step, id, _))| (*step, *id));
    let Some((newest, (_, _, cut))) = newest else { return (None, None) };
    let others = (0..sealed.len()).zip(&sealed).filter(|(place, _)| *place != newest);
    let other = others.max_by_key(|(_, (step, id, other))| (!cut.covers(other), *step, *id));
    (Some(newest), other.map(|(place, _)| place))
}

#[cfg(test)]
mod tests;
