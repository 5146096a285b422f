//! What stands for entries that are not kept, and how the next checkpoint is made.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::envelope::Envelope;
use crate::id::{MeshId, NodeId, Seq, Step};
use crate::identity::PublicKey;
use crate::machine::Outbox;
use crate::projection::Projection;
use crate::{registry, shape};

use super::super::wire::{Reader, Writer};
use super::super::{Head, Record};
use super::{CUT, Checkpoint, CheckpointError, Cut, CutHead, HEADS, Part, Sealed};

/// The fold of exactly the entries in a cut. To make the checkpoint of a step, begin with the node's base, joined with the
/// last checkpoint that it holds, and take every author's records in order up to the step.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// What is folded.
    pub cut: Cut,
    /// The registry's state.
    pub registry: registry::State,
    /// The record at which each log is cut.
    heads: BTreeMap<NodeId, Record>,
}

/// Equal if what is signed of them is the same bytes.
impl PartialEq for Base {
    fn eq(&self, other: &Self) -> bool {
        self.cut == other.cut && self.registry.snapshot() == other.registry.snapshot()
    }
}

impl Eq for Base {}

impl Base {
    /// The first sequence number of this author that is not folded.
    pub fn next(&self, author: &NodeId) -> Seq {
        self.cut.head(author).seq.saturating_add(1)
    }

    /// Folds the author's next record, if it is of a step before `below`. False if it is not, or is not the next
    /// one: then so are those behind it. One that is folded already changes nothing.
    pub fn take(&mut self, record: &Record, below: Step) -> bool {
        let author = record.author();
        if record.last() < self.next(&author) {
            return true;
        }
        let before = self.cut.head(&author);
        if record.step() >= below || record.first() != self.next(&author) || record.prev() != before.as_prev()
        {
            return false;
        }
        self.registry.apply_record(record, &mut Outbox::new());
        self.end_at(record);
        true
    }

    /// Cuts the author's log behind this record, whatever is folded.
    pub fn end_at(&mut self, record: &Record) {
        self.cut.0.insert(record.author(), CutHead { head: record.head(), step: record.step() });
        self.heads.insert(record.author(), record.clone());
    }

    /// Joins another base into this one: what either has folded is.
    pub fn join(&mut self, other: &Base) {
        let _ = self.registry.merge(&other.registry, &mut Outbox::new());
        for (author, record) in &other.heads {
            if record.last() > self.cut.head(author).seq {
                self.heads.insert(*author, record.clone());
            }
        }
        self.cut.join(&other.cut);
    }

    /// True if everything that `other` has folded is folded here.
    pub fn covers(&self, other: &Cut) -> bool {
        self.cut.covers(other)
    }

    /// The checkpoint of all entries before `step`, once they were taken, without signatures, and its parts' bytes.
    pub fn checkpoint(&self, mesh: MeshId, step: Step) -> (Sealed, Vec<Bytes>) {
        let (cut, registry) = (self.cut.encode(), Bytes::from(self.registry.snapshot()));
        let parts = vec![Part::new(CUT, &cut), Part::new(registry::CATEGORY, &registry)];
        let heads = self.encode_heads();
        let checkpoint = Checkpoint { mesh, step, parts };
        let sealed = Sealed { checkpoint, heads: Part::new(HEADS, &heads), votes: Vec::new() };
        (sealed, vec![cut, registry, heads])
    }

    /// The records at which the logs are cut, by author: `[ envelope, … ]`, each as a byte string.
    pub fn encode_heads(&self) -> Bytes {
        let mut out = Writer::default();
        out.open(self.heads.len());
        for record in self.heads.values() {
            out.bytes(record.as_bytes());
        }
        out.finish()
    }

    /// The base that these parts of a checkpoint are. Who wrote the records at which logs are cut is not checked: see
    /// [`Base::verify`].
    ///
    /// # Errors
    /// If they are not those that were told, or cannot be read. Takes memory in proportion to their length.
    pub fn open(sealed: &Sealed, parts: &[Bytes], authors_max: usize) -> Result<Self, CheckpointError> {
        let [cut, registry, heads] = parts else { return Err(CheckpointError::Malformed) };
        let named = &sealed.checkpoint.parts;
        if named.len() != 2 || named.get(1).is_none_or(|part| part.name != registry::CATEGORY) {
            return Err(CheckpointError::Malformed);
        }
        for (part, bytes) in sealed.parts().zip(parts) {
            if *part != Part::new(&part.name, bytes) {
                return Err(CheckpointError::OtherPart);
            }
        }
        Self::decode(cut, registry, heads, authors_max)
    }

    /// Reads a cut, a state of the registry, and the records at which logs are cut.
    ///
    /// # Errors
    /// If they cannot be read, or do not fit together.
    pub fn decode(
        cut: &Bytes,
        state: &[u8],
        heads: &Bytes,
        authors_max: usize,
    ) -> Result<Self, CheckpointError> {
        let cut = Cut::decode(cut, authors_max).ok_or(CheckpointError::Malformed)?;
        let mut registry = registry::State::new();
        registry.restore(state).map_err(|_| CheckpointError::State)?;
        let has_heads = cut.0.len() == registry.heads().len()
            && cut.0.iter().zip(registry.heads()).all(|((author, cut), (other, head))| {
                author == other && cut.head == Head { seq: head.seq, digest: head.hash }
            });
        if !has_heads || !registry.is_bare() {
            return Err(CheckpointError::State);
        }
        let heads = decode_heads(heads, &cut).ok_or(CheckpointError::Heads)?;
        Ok(Base { cut, registry, heads })
    }

    /// Sees that each author has signed the record at which its log is cut, for this mesh. One signature each: takes a while.
    ///
    /// # Errors
    /// If one has not.
    pub fn verify(&self, mesh: MeshId) -> Result<(), CheckpointError> {
        let is_its = |(author, record): (&NodeId, &Record)| {
            let key = PublicKey::new(author);
            record.mesh() == mesh && key.is_some_and(|key| record.envelope().is_signed_by(&key))
        };
        if self.heads.iter().all(is_its) { Ok(()) } else { Err(CheckpointError::Heads) }
    }
}

/// One record for each author of the cut, in its order, that ends where its log is cut.
fn decode_heads(bytes: &Bytes, cut: &Cut) -> Option<BTreeMap<NodeId, Record>> {
    shape::check(bytes).ok()?;
    let mut reader = Reader::new(bytes);
    reader.array(cut.0.len() as u64).filter(|items| *items == cut.0.len() as u64)?;
    let mut heads = BTreeMap::new();
    for (author, cut) in &cut.0 {
        // A copy, so that it does not keep all others in memory.
        let envelope = Bytes::copy_from_slice(reader.bytes()?);
        let record = Record::new(Envelope::decode(&envelope, envelope.len()).ok()?)?;
        let fits = record.author() == *author && record.head() == cut.head && record.step() == cut.step;
        heads.insert(*author, fits.then_some(record)?);
    }
    reader.is_at_end().then_some(heads)
}
