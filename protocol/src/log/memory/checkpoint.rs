//! Checkpoints in a store in memory: made, fetched, sealed, and the records that go because of them.
//!
//! As in the node's store: of sealed checkpoints two are kept, and the base joins what goes and the newest does not
//! cover; what was made or fetched and not sealed is gone when the process is.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{Hash, MeshId, NodeId, Seq, Step};
use crate::machine::Outbox;
use crate::projection::{Projection, Replay};
use crate::registry;

use super::super::checkpoint::{Base, CHUNK_BYTES, Cut, CutHead, Part, Sealed, StoredCheckpoint, kept};
use super::super::{Head, StoreError, StoredLog};
use super::{Damaged, Kept, MemoryStore};

/// Authors there may be in a cut that this node has taken or made: it bounds them when it takes one.
const AUTHORS_MAX: usize = usize::MAX;

/// What stands for records that are not here, and what is to stand for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoints {
    /// What logs begin behind, where their beginning is not kept.
    pub(super) floors: BTreeMap<NodeId, CutHead>,
    base: Base,
    /// The newest sealed checkpoint, if the base contains all that are held.
    joined: Option<Hash>,
    /// Sealed ones, [those that are kept](kept), the newest last.
    held: Vec<Held>,
    /// The parts of the one that was made last.
    folded: Option<(Hash, Vec<Bytes>)>,
    /// Chunks of those that are fetched, by part and index.
    staged: BTreeMap<Hash, BTreeMap<(usize, u64), Bytes>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    id: Hash,
    stored: StoredCheckpoint,
    parts: Vec<Bytes>,
}

impl Held {
    fn open(&self) -> Base {
        let base = Base::open(&self.stored.sealed, &self.parts, AUTHORS_MAX);
        base.expect("it was opened before it was sealed")
    }
}

impl Checkpoints {
    /// The process is gone, and with it what was not sealed.
    pub(super) fn restart(&mut self) {
        self.folded = None;
        self.staged.clear();
    }

    /// What the author's first record comes behind.
    pub(super) fn floor(&self, author: &NodeId) -> CutHead {
        self.floors.get(author).copied().unwrap_or(CutHead { head: Head::EMPTY, step: Step(0) })
    }

    /// The parts of a checkpoint that was made here, or whose chunks are all here.
    fn parts(&self, sealed: &Sealed) -> Option<Vec<Bytes>> {
        let id = sealed.checkpoint.id();
        if let Some((_, parts)) = self.folded.as_ref().filter(|(folded, _)| *folded == id) {
            return Some(parts.clone());
        }
        if let Some(held) = self.held.iter().find(|held| held.id == id) {
            return Some(held.parts.clone());
        }
        let staged = self.staged.get(&id)?;
        let part = |(part, chunks): (usize, u64)| {
            let chunks = (0..chunks).map(|index| staged.get(&(part, index)).cloned());
            Some(Bytes::from(chunks.collect::<Option<Vec<Bytes>>>()?.concat()))
        };
        (0..).zip(sealed.parts().map(Part::chunks)).map(part).collect()
    }

    /// Whether the parts of this checkpoint are here, and are good.
    pub(super) fn open(&self, sealed: &Sealed) -> Result<Base, StoreError> {
        let missing = || StoreError::Damaged("a part of the checkpoint is not there".to_owned());
        let parts = self.parts(sealed).ok_or_else(missing)?;
        Ok(Base::open(sealed, &parts, AUTHORS_MAX)?)
    }

    /// Keeps a sealed checkpoint, and of the others what is to be kept.
    pub(super) fn seal(&mut self, stored: &StoredCheckpoint) {
        let id = stored.sealed.checkpoint.id();
        let Some(parts) = self.parts(&stored.sealed) else { return };
        self.held.retain(|held| held.id != id);
        self.held.push(Held { id, stored: stored.clone(), parts });
        self.held.sort_by_key(|held| (held.stored.sealed.checkpoint.step, held.id));
        self.staged.remove(&id);
        self.folded.take_if(|(folded, _)| *folded == id);
        // It may be older than one that the base contains, and yet cover more of some log.
        self.joined = None;
        let names =
            self.held.iter().map(|held| (held.stored.sealed.checkpoint.step, held.id, &held.stored.cut));
        let (newest, other) = kept(names);
        let stays = |place: usize| Some(place) == newest || Some(place) == other;
        let cut = newest.and_then(|newest| self.held.get(newest)).map(|newest| newest.stored.cut.clone());
        let mut going = (0..).zip(&self.held).filter(|(place, _)| !stays(*place)).map(|(_, held)| held);
        if going.any(|held| !cut.as_ref().is_some_and(|cut| cut.covers(&held.stored.cut))) {
            self.join();
        }
        let mut place = 0..;
        self.held.retain(|_| place.next().is_some_and(stays));
    }

    /// Brings the base up to the sealed checkpoints.
    pub(super) fn join(&mut self) {
        let Some(newest) = self.held.last().map(|held| held.id) else { return };
        if self.joined == Some(newest) {
            return;
        }
        for base in self.held.iter().map(Held::open) {
            if self.base.cut == Cut::default() {
                self.base = base;
            } else {
                self.base.join(&base);
            }
        }
        self.joined = Some(newest);
    }
}

impl MemoryStore {
    /// Answers [`Output::Fold`](crate::log::Output::Fold).
    ///
    /// # Errors
    /// If a record that it takes is damaged.
    pub fn fold(&mut self, mesh: MeshId, step: Step) -> Result<StoredCheckpoint, Damaged> {
        let checkpoints = &self.checkpoints;
        let mut folded = checkpoints.base.clone();
        if let Some(newest) = checkpoints.held.last().filter(|held| checkpoints.joined != Some(held.id)) {
            folded.join(&newest.open());
        }
        for (author, log) in &self.logs {
            for (first, kept) in log.range(folded.next(author)..) {
                let record = kept.sound().ok_or(Damaged { author: *author, first: *first })?;
                if !folded.take(record, step) {
                    break;
                }
            }
        }
        let (sealed, parts) = folded.checkpoint(mesh, step);
        self.checkpoints.folded = Some((sealed.checkpoint.id(), parts));
        Ok(StoredCheckpoint { sealed, cut: folded.cut })
    }

    /// Answers [`Output::Stage`](crate::log::Output::Stage).
    pub fn stage(&mut self, checkpoint: Hash, part: usize, index: u64, bytes: Bytes) {
        if (part, index) == (0, 0) {
            // What is left of others that were not fetched to the end.
            self.checkpoints.staged.retain(|staged, _| *staged == checkpoint);
        }
        self.checkpoints.staged.entry(checkpoint).or_default().insert((part, index), bytes);
    }

    /// Answers [`Output::Open`](crate::log::Output::Open).
    ///
    /// # Errors
    /// If parts are missing, are not those that were told, or cannot be read, or a log is cut where its author never was.
    pub fn open_checkpoint(&self, sealed: &Sealed) -> Result<(), StoreError> {
        Ok(self.checkpoints.open(sealed)?.verify(sealed.checkpoint.mesh)?)
    }

    /// Answers [`Output::ReadChunk`](crate::log::Output::ReadChunk).
    pub fn chunk(&self, checkpoint: Hash, part: usize, index: u64) -> Option<Bytes> {
        let held = self.checkpoints.held.iter().find(|held| held.id == checkpoint)?;
        let part = held.parts.get(part)?;
        let from = usize::try_from(index).ok()?.checked_mul(CHUNK_BYTES).filter(|from| *from < part.len())?;
        Some(part.slice(from..part.len().min(from + CHUNK_BYTES)))
    }

    /// Answers [`Output::Truncate`](crate::log::Output::Truncate): drops records that the newest sealed checkpoint
    /// covers, those of steps before `below`, and all if there are more than `bytes_max` bytes of records then. Returns
    /// the logs that are shorter now, and where they begin.
    pub fn drop_covered(&mut self, below: Step, bytes_max: Option<u64>) -> Vec<(NodeId, Seq)> {
        self.checkpoints.join();
        let Some(newest) = self.checkpoints.held.last() else { return Vec::new() };
        let cut = newest.stored.cut.clone();
        let mut shortened = BTreeMap::new();
        self.drop_below(&cut, below, &mut shortened);
        if bytes_max.is_some_and(|max| self.bytes() > max) {
            self.drop_below(&cut, Step(u64::MAX), &mut shortened);
        }
        shortened.into_iter().collect()
    }

    fn drop_below(&mut self, cut: &Cut, below: Step, shortened: &mut BTreeMap<NodeId, Seq>) {
        for (author, log) in &mut self.logs {
            let end = cut.head(author).seq;
            while let Some(first) = log.first_entry() {
                // A damaged one is found when it is read, and fetched again.
                let Some(record) = first.get().sound().filter(|r| r.last() <= end && r.step() < below) else {
                    break;
                };
                let floor = CutHead { head: record.head(), step: record.step() };
                self.checkpoints.floors.insert(*author, floor);
                shortened.insert(*author, floor.head.seq.saturating_add(1));
                first.remove();
            }
        }
    }

    /// A sealed checkpoint stands for the log up to its head.
    pub(super) fn jump(&mut self, log: &StoredLog) {
        self.checkpoints.join();
        let records = self.logs.entry(log.author).or_default();
        *records = records.split_off(&log.base);
        let floor = CutHead { head: log.head, step: log.step };
        self.checkpoints.floors.insert(log.author, floor);
        let reached = self.reached.entry(log.author).or_default();
        *reached = log.head.seq.max(*reached);
        self.keep(&log.author, |first, _| first > log.head.seq);
    }

    /// What stands for the records that are not here.
    pub fn base(&self) -> &Base {
        &self.checkpoints.base
    }

    /// What the author's first record here comes behind.
    pub fn floor(&self, author: &NodeId) -> CutHead {
        self.checkpoints.floor(author)
    }

    /// What logs begin behind whose beginning is not kept.
    pub fn floors(&self) -> &BTreeMap<NodeId, CutHead> {
        &self.checkpoints.floors
    }

    /// The newest sealed checkpoint, and its parts.
    pub fn checkpoint(&self) -> Option<(&StoredCheckpoint, &[Bytes])> {
        self.checkpoints.held.last().map(|held| (&held.stored, held.parts.as_slice()))
    }

    /// All sealed checkpoints, the newest last.
    pub fn checkpoints(&self) -> impl Iterator<Item = &StoredCheckpoint> {
        self.checkpoints.held.iter().map(|held| &held.stored)
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> u64 {
        self.logs.values().flatten().map(|(_, kept)| Kept::bytes(kept).len() as u64).sum()
    }

    /// The registry as it follows from what is here.
    pub fn registry(&self) -> registry::State {
        let mut state = self.checkpoints.base.registry.clone();
        let mut nobody = Outbox::new();
        let mut is_whole = true;
        for proof in self.proofs.values() {
            let end = proof.end_at(self.stored(proof.author()).head);
            is_whole &= state.cut(proof.author(), end, &mut nobody) == Replay::NotNeeded;
        }
        if !is_whole {
            let _ = state.merge(&self.checkpoints.base.registry, &mut nobody);
        }
        self.apply_all(&mut state);
        state
    }

    /// Gives a registry all that is here, as [`Replay::Needed`] asks for: the base, and every record.
    pub fn replay(&self, state: &mut registry::State) {
        let _ = state.merge(&self.checkpoints.base.registry, &mut Outbox::new());
        self.apply_all(state);
    }

    fn apply_all(&self, state: &mut registry::State) {
        let mut nobody = Outbox::new();
        for record in self.logs.values().flat_map(BTreeMap::values).filter_map(Kept::sound) {
            state.apply_record(record, &mut nobody);
            drop(nobody.drain());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Author, mesh};
    use super::super::Change;
    use super::*;

    /// A store with six entries of an author, two in each record.
    fn store(author: u8) -> MemoryStore {
        let mut store = MemoryStore::new();
        let records = Author::new(author).branch(None, &[2, 2, 2], 0);
        store.write(&records.into_iter().map(Change::Append).collect::<Vec<_>>()).unwrap();
        store
    }

    fn sealed(store: &mut MemoryStore, step: u64) -> StoredCheckpoint {
        store.fold(mesh().id(), Step(step)).unwrap()
    }

    fn seal(stored: &StoredCheckpoint) -> [Change; 1] {
        [Change::Seal(Box::new(stored.clone()))]
    }

    fn give(from: &MemoryStore, to: &mut MemoryStore, stored: &StoredCheckpoint) {
        let checkpoint = &stored.sealed.checkpoint;
        for (part, named) in stored.sealed.parts().enumerate() {
            for index in 0..named.chunks() {
                let bytes = from.chunk(checkpoint.id(), part, index).unwrap();
                to.stage(checkpoint.id(), part, index, bytes);
            }
        }
    }

    #[test]
    fn what_is_not_here_whole_is_not_sealed() {
        let (mut one, mut other) = (store(1), MemoryStore::new());
        let stored = sealed(&mut one, 20);
        let before = other.clone();
        assert!(matches!(other.write(&seal(&stored)), Err(StoreError::Damaged(_))));
        assert_eq!(other, before);
        one.write(&seal(&stored)).unwrap();
        give(&one, &mut other, &stored);
        assert_eq!(other.open_checkpoint(&stored.sealed), Ok(()));
        other.write(&seal(&stored)).unwrap();
        assert_eq!(other.checkpoint(), one.checkpoint());
        // A restart forgets what was not sealed, and nothing else.
        other.stage(Hash::of(b"another"), 0, 0, Bytes::from_static(b"chunk"));
        let _ = other.open();
        assert!(other.checkpoints.staged.is_empty() && other.checkpoint().is_some());
    }

    #[test]
    fn dropped_records_are_in_the_base_and_the_log_goes_on_behind_them() {
        let mut one = store(1);
        let author = one.authors()[0];
        let head = one.stored(author).head;
        let stored = sealed(&mut one, 20);
        assert_eq!(one.drop_covered(Step(u64::MAX), None), [], "nothing is sealed");
        one.write(&seal(&stored)).unwrap();
        assert_eq!(one.drop_covered(Step(5), None), [], "they are of step 10");
        assert_eq!(one.drop_covered(Step(11), None), [(author, Seq(7))]);
        assert_eq!((one.bytes(), one.base().cut.head(&author)), (0, head));
        assert_eq!((one.stored(author).head, one.stored(author).base), (head, Seq(7)));
        assert_eq!(one.registry().hash(), store(1).registry().hash());
        let gap = Author::new(1).record(9, 1, Some(head.digest), 12, 0);
        assert!(one.write(&[Change::Append(gap)]).is_err(), "it does not follow");
        let next = Author::new(1).record(7, 1, Some(head.digest), 12, 0);
        one.write(&[Change::Append(next.clone())]).unwrap();
        assert_eq!(one.stored(author).head, next.head());
    }

    #[test]
    fn an_older_checkpoint_that_covers_more_of_a_log_counts() {
        let (mut one, mut other) = (store(1), store(2));
        let (newer, older) = (sealed(&mut one, 30), sealed(&mut other, 20));
        one.write(&seal(&newer)).unwrap();
        let _ = one.drop_covered(Step(u64::MAX), None);
        other.write(&seal(&older)).unwrap();
        give(&other, &mut one, &older);
        let (author, cut) = older.cut.0.first_key_value().unwrap();
        let base = cut.head.seq.saturating_add(1);
        let log = StoredLog { author: *author, base, head: cut.head, step: cut.step, proof: None };
        one.write(&[Change::Seal(Box::new(older.clone())), Change::Jump(log)]).unwrap();
        assert_eq!(one.checkpoint().unwrap().0, &newer);
        assert!(one.base().covers(&older.cut) && one.base().covers(&newer.cut));
    }
}
