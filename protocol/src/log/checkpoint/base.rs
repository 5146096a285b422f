//! What stands for entries that are not kept, and how the next checkpoint is made.

use bytes::Bytes;

use crate::id::{MeshId, NodeId, Seq, Step};
use crate::machine::Outbox;
use crate::projection::Projection;
use crate::registry;

use super::super::{Head, Record};
use super::{CUT, Checkpoint, CheckpointError, Cut, CutHead, Part};

/// The fold of exactly the entries in a cut. To make the checkpoint of a step, begin with the node's base, joined with the
/// last checkpoint that it holds, and take every author's records in order up to the step.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// What is folded.
    pub cut: Cut,
    /// The registry's state.
    pub registry: registry::State,
}

/// Equal if they are the same bytes.
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
        self.cut.0.insert(author, CutHead { head: record.head(), step: record.step() });
        true
    }

    /// Joins another base into this one: what either has folded is.
    pub fn join(&mut self, other: &Base) {
        let _ = self.registry.merge(&other.registry, &mut Outbox::new());
        self.cut.join(&other.cut);
    }

    /// True if everything that `other` has folded is folded here.
    pub fn covers(&self, other: &Cut) -> bool {
        self.cut.covers(other)
    }

    /// The checkpoint of all entries before `step` and its parts' bytes, once they were taken.
    pub fn checkpoint(&self, mesh: MeshId, step: Step) -> (Checkpoint, Vec<Bytes>) {
        let parts = vec![self.cut.encode(), Bytes::from(self.registry.snapshot())];
        let named = [CUT, registry::CATEGORY].into_iter().zip(&parts);
        let named = named.map(|(name, bytes)| Part::new(name, bytes)).collect();
        (Checkpoint { mesh, step, parts: named }, parts)
    }

    /// The base that these parts of a checkpoint are.
    ///
    /// # Errors
    /// If they are not those that were signed, or cannot be read. Takes memory in proportion to their length.
    pub fn open(
        checkpoint: &Checkpoint,
        parts: &[Bytes],
        authors_max: usize,
    ) -> Result<Self, CheckpointError> {
        let [cut, registry] = parts else { return Err(CheckpointError::Malformed) };
        for (part, bytes) in checkpoint.parts.iter().zip(parts) {
            if *part != Part::new(&part.name, bytes) {
                return Err(CheckpointError::OtherPart);
            }
        }
        if checkpoint.parts.len() != 2
            || checkpoint.parts.get(1).is_none_or(|part| part.name != registry::CATEGORY)
        {
            return Err(CheckpointError::Malformed);
        }
        Self::decode(cut, registry, authors_max)
    }

    /// Reads a cut and a state of the registry.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn decode(cut: &Bytes, state: &[u8], authors_max: usize) -> Result<Self, CheckpointError> {
        let cut = Cut::decode(cut, authors_max).ok_or(CheckpointError::Malformed)?;
        let mut registry = registry::State::new();
        registry.restore(state).map_err(|_| CheckpointError::State)?;
        let has_heads = cut.0.len() == registry.heads().len()
            && cut.0.iter().zip(registry.heads()).all(|((author, cut), (other, head))| {
                author == other && cut.head == Head { seq: head.seq, digest: head.hash }
            });
        if has_heads && registry.is_bare() { Ok(Base { cut, registry }) } else { Err(CheckpointError::State) }
    }
}
