//! A store in memory that keeps the contract of [`Output::Write`](super::Output::Write), [`Read`](super::Output::Read),
//! [`Find`](super::Output::Find), and what is asked for checkpoints: for simulation and tests.
//!
//! It stands for what is on disk: what was changed is there for good. When a write is done, what a crash leaves of one
//! that is not, and how long anything takes, is for its owner to say. As the node's store does, it gives out nothing
//! that is not what was written: a record is kept with a checksum, and a log that is damaged is cut before the damage.
//!
//! Records are shared, not copied: a thousand stores of one log cost little more than one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::envelope::Envelope;
use crate::id::{Hash, NodeId, Seq};

use super::{Change, Proof, Record, StoreError, StoredLog};

mod checkpoint;

/// All logs that a node has on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    /// By the first sequence number of each record.
    logs: BTreeMap<NodeId, BTreeMap<Seq, Kept>>,
    proofs: BTreeMap<NodeId, Proof>,
    /// How far logs had come, whatever was cut off since because it was damaged.
    reached: BTreeMap<NodeId, Seq>,
    /// Sound records that came behind a damaged one.
    kept: BTreeMap<NodeId, BTreeMap<Seq, Record>>,
    checkpoints: checkpoint::Checkpoints,
}

/// A record of a log is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Whose log.
    pub author: NodeId,
    /// The place of the first record that is damaged.
    pub first: Seq,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Sound(Record),
    /// Rare, and out of the way.
    Flipped(Box<Flipped>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Flipped {
    bytes: Bytes,
    checksum: Hash,
}

impl Kept {
    fn bytes(&self) -> &Bytes {
        match self {
            Kept::Sound(record) => record.as_bytes(),
            Kept::Flipped(flipped) => &flipped.bytes,
        }
    }

    /// The record, if it fits its checksum.
    fn sound(&self) -> Option<&Record> {
        match self {
            Kept::Sound(record) => Some(record),
            Kept::Flipped(_) => None,
        }
    }
}

impl MemoryStore {
    /// A store without any log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers [`Output::Write`](super::Output::Write): makes all changes, for good, or none.
    ///
    /// # Errors
    /// If a record is to be appended behind one that is not there: damage was found and cut off after the log had asked
    /// for the write. A hole would stay unnoticed if the process died now. Or if a sealed checkpoint cannot be read.
    pub fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut written = BTreeSet::new();
        for change in changes {
            let record = match change {
                Change::Append(record) => record,
                Change::Freeze { .. } => continue,
                Change::Seal(stored) => {
                    self.checkpoints.open(&stored.sealed)?;
                    continue;
                }
                Change::Jump(log) => {
                    written.insert((log.author, log.head.seq));
                    continue;
                }
            };
            let before = record.first().saturating_sub(1);
            let follows = record.first() == Seq(1)
                || written.contains(&(record.author(), before))
                || self.is_whole_to(&record.author(), before);
            if !follows {
                return Err(StoreError::Damaged(format!(
                    "entry {} of {} is missing",
                    before.0,
                    record.author()
                )));
            }
            written.insert((record.author(), record.last()));
        }
        changes.iter().for_each(|change| self.change(change));
        Ok(())
    }

    /// True if a record ends with this entry; a damaged one counts, it is found later.
    fn is_whole_to(&self, author: &NodeId, seq: Seq) -> bool {
        let log = self.logs.get(author);
        let last = log.and_then(|log| log.range(..=seq).next_back());
        let floor = self.floor(author).head.seq;
        last.map_or(floor == seq, |(_, kept)| kept.sound().is_none_or(|record| record.last() == seq))
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Append(record) => {
                let log = self.logs.entry(record.author()).or_default();
                if log.last_key_value().is_some_and(|(last, _)| *last >= record.first()) {
                    drop(log.split_off(&record.first()));
                    self.kept.remove(&record.author());
                }
                log.insert(record.first(), Kept::Sound(record.clone()));
                let reached = self.reached.entry(record.author()).or_default();
                *reached = record.last().max(*reached);
                self.keep(&record.author(), |first, kept| {
                    let is_next = first == record.last().saturating_add(1);
                    first > record.last() && (!is_next || kept.prev() == Some(record.digest()))
                });
            }
            Change::Freeze { proof, head } => {
                // A damaged record before the fork stays, to be found and fetched again.
                let log = self.logs.entry(proof.author()).or_default();
                drop(log.split_off(&head.seq.saturating_add(1)));
                self.proofs.insert(proof.author(), proof.clone());
                let end = self.stored(proof.author()).head.seq;
                self.reached.insert(proof.author(), end);
                self.keep(&proof.author(), |_, kept| kept.last() <= head.seq);
            }
            Change::Seal(stored) => self.checkpoints.seal(stored),
            Change::Jump(log) => self.jump(log),
        }
    }

    /// Answers [`Output::Read`](super::Output::Read).
    ///
    /// # Errors
    /// If a record that is asked for is damaged.
    pub fn read(&self, author: &NodeId, from: Seq, to: Seq, bytes_max: usize) -> Result<Vec<Bytes>, Damaged> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        if from > to {
            return Ok(records);
        }
        for (first, kept) in self.logs.get(author).into_iter().flat_map(|log| log.range(from..=to)) {
            let record = kept.sound().ok_or(Damaged { author: *author, first: *first })?;
            bytes += record.as_bytes().len();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(record.as_bytes().clone());
        }
        Ok(records)
    }

    /// Answers [`Output::Find`](super::Output::Find).
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn find(&self, author: &NodeId, seq: Seq) -> Result<Option<Bytes>, Damaged> {
        let log = self.logs.get(author);
        let Some((first, kept)) = log.and_then(|log| log.range(..=seq).next_back()) else { return Ok(None) };
        let record = kept.sound().ok_or(Damaged { author: *author, first: *first })?;
        Ok(record.covers(seq).then(|| record.as_bytes().clone()))
    }

    /// What a node finds when it starts: where each log ends. Logs whose last record is damaged are cut first; they
    /// are told, too.
    pub fn open(&mut self) -> (Vec<StoredLog>, Vec<Damaged>) {
        self.checkpoints.restart();
        let authors = self.authors();
        let mut damage = Vec::new();
        for author in &authors {
            let last = self.logs.get(author).and_then(|log| log.last_key_value());
            if last.is_some_and(|(_, kept)| kept.sound().is_none())
                && let Err(damaged) = self.verify(author)
            {
                self.cut(&damaged);
                damage.push(damaged);
            }
        }
        (authors.into_iter().map(|author| self.stored(author)).collect(), damage)
    }

    /// Reads a whole log and compares everything with what was written.
    ///
    /// # Errors
    /// Where the damage begins.
    pub fn verify(&self, author: &NodeId) -> Result<(), Damaged> {
        let log = self.logs.get(author);
        match log.into_iter().flatten().find(|(_, kept)| kept.sound().is_none()) {
            Some((first, _)) => Err(Damaged { author: *author, first: *first }),
            None => Ok(()),
        }
    }

    /// Drops what is damaged; the log ends before it from now on. Sound records behind it are [kept](Self::kept).
    pub fn cut(&mut self, damaged: &Damaged) -> StoredLog {
        let Some(log) = self.logs.get_mut(&damaged.author) else { return self.stored(damaged.author) };
        let behind = log.split_off(&damaged.first);
        let sound = behind.into_iter().filter_map(|(first, kept)| Some((first, kept.sound()?.clone())));
        self.kept.entry(damaged.author).or_default().extend(sound);
        self.keep(&damaged.author, |_, _| true);
        self.stored(damaged.author)
    }

    /// Keeps of an author's records behind a gap what is to be kept.
    fn keep(&mut self, author: &NodeId, is_kept: impl Fn(Seq, &Record) -> bool) {
        if let Some(kept) = self.kept.get_mut(author) {
            kept.retain(|first, record| is_kept(*first, record));
            if kept.is_empty() {
                self.kept.remove(author);
            }
        }
    }

    /// Logs that end before something that was damaged, with sound records behind it.
    pub fn gaps(&self) -> impl Iterator<Item = NodeId> {
        self.kept.keys().copied()
    }

    /// Records that follow the end of a log and do not count yet, because something before them had been damaged: none as
    /// long as that is missing. For [`Input::Kept`](super::Input::Kept).
    pub fn kept(&self, author: &NodeId) -> Vec<Record> {
        let mut head = self.stored(*author).head;
        let mut found = Vec::new();
        for record in self.kept.get(author).into_iter().flat_map(BTreeMap::values) {
            if record.first() != head.seq.saturating_add(1) || record.prev() != head.as_prev() {
                break;
            }
            head = record.head();
            found.push(record.clone());
        }
        found
    }

    /// How far an author's log had come before damage was cut off, at this start or an earlier one. A node signs no number
    /// of its own log up to there: see [`Start::reached`](super::Start::reached).
    pub fn reached(&self, author: &NodeId) -> Seq {
        self.reached.get(author).copied().unwrap_or_default()
    }

    /// Where an author's log ends: its last record that is whole.
    pub fn stored(&self, author: NodeId) -> StoredLog {
        let log = self.logs.get(&author);
        let last = log.and_then(|log| log.values().rev().find_map(Kept::sound));
        let floor = self.floor(&author);
        StoredLog {
            author,
            base: floor.head.seq.saturating_add(1),
            head: last.map_or(floor.head, Record::head),
            step: last.map_or(floor.step, Record::step),
            proof: self.proofs.get(&author).cloned(),
        }
    }

    /// All authors of whom there is something.
    pub fn authors(&self) -> Vec<NodeId> {
        let all = self.logs.keys().chain(self.proofs.keys()).chain(self.floors().keys());
        all.copied().collect::<BTreeSet<NodeId>>().into_iter().collect()
    }

    /// All authors of whom there are records, and these in order; `None` in the place of a damaged one.
    pub fn logs(&self) -> impl Iterator<Item = (&NodeId, impl DoubleEndedIterator<Item = Option<&Record>>)> {
        self.logs.iter().map(|(author, log)| (author, log.values().map(Kept::sound)))
    }

    /// An author's records in order, without damaged ones.
    pub fn records(&self, author: &NodeId) -> impl Iterator<Item = &Record> {
        self.logs.get(author).into_iter().flat_map(|log| log.values().filter_map(Kept::sound))
    }

    /// Where an author's records are.
    pub fn places(&self, author: &NodeId) -> impl DoubleEndedIterator<Item = Seq> {
        self.logs.get(author).into_iter().flat_map(|log| log.keys().copied())
    }

    /// The proofs that froze logs.
    pub fn proofs(&self) -> impl Iterator<Item = &Proof> {
        self.proofs.values()
    }

    /// Flips one bit of a record as it is stored. Returns whether there is such a record.
    pub fn flip(&mut self, author: &NodeId, first: Seq, bit: u64) -> bool {
        let Some(kept) = self.logs.get_mut(author).and_then(|log| log.get_mut(&first)) else { return false };
        let mut bytes = kept.bytes().to_vec();
        let bits = (bytes.len() as u64).saturating_mul(8).max(1);
        let at = bit % bits;
        let place = usize::try_from(at / 8).ok().and_then(|place| bytes.get_mut(place));
        let Some(byte) = place else { return false };
        *byte ^= 1 << (at % 8);
        let checksum = match kept {
            Kept::Sound(record) => Hash::of(record.as_bytes()),
            Kept::Flipped(flipped) => flipped.checksum,
        };
        let bytes = Bytes::from(bytes);
        let mended = (Hash::of(&bytes) == checksum).then(|| Envelope::decode(&bytes, bytes.len()).ok());
        *kept = match mended.flatten().and_then(Record::new) {
            Some(record) => Kept::Sound(record),
            None => Kept::Flipped(Box::new(Flipped { bytes, checksum })),
        };
        true
    }

    /// The bytes of a record as they are, damaged or not: what a store without checksums would give.
    #[doc(hidden)]
    pub fn unchecked(&self, author: &NodeId, from: Seq, to: Seq) -> Vec<Bytes> {
        let log = self.logs.get(author).filter(|_| from <= to);
        log.into_iter().flat_map(|log| log.range(from..=to)).map(|(_, kept)| kept.bytes().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::super::testing::Author;
    use super::*;

    /// Three records of two entries each.
    fn store() -> (MemoryStore, Vec<Record>) {
        let mut author = Author::new(1);
        let records = author.branch(None, &[2, 2, 2], 0);
        let mut store = MemoryStore::new();
        records.iter().for_each(|record| store.write(&[Change::Append(record.clone())]).unwrap());
        (store, records)
    }

    #[test]
    fn what_was_written_is_read_and_replaced_from_where_it_is_written_again() {
        let (mut store, records) = store();
        let author = records[0].author();
        let all: Vec<Bytes> = records.iter().map(|record| record.as_bytes().clone()).collect();
        assert_eq!(store.read(&author, Seq(1), Seq(9), usize::MAX), Ok(all.clone()));
        assert_eq!(store.read(&author, Seq(2), Seq(9), 1), Ok(vec![all[1].clone()]), "at least one");
        assert_eq!(store.find(&author, Seq(4)), Ok(Some(all[1].clone())));
        assert_eq!(store.find(&author, Seq(7)), Ok(None));
        store.write(&[Change::Append(records[1].clone())]).unwrap();
        assert_eq!(store.stored(author).head, records[1].head());
    }

    #[test]
    fn a_frozen_log_ends_before_the_fork() {
        let (mut store, records) = store();
        let author = records[0].author();
        let other = Author::new(1).branch(Some(&records[0]), &[1], 7);
        let proof = Proof::new(&records[1], &other[0]).unwrap();
        store.write(&[Change::Freeze { proof: proof.clone(), head: records[0].head() }]).unwrap();
        let (logs, damage) = store.open();
        assert!(damage.is_empty());
        assert_eq!(
            logs,
            [StoredLog {
                author,
                base: Seq(1),
                head: records[0].head(),
                step: records[0].step(),
                proof: Some(proof)
            }]
        );
    }

    #[test]
    fn a_write_that_would_leave_a_hole_fails_as_a_whole() {
        let (mut store, records) = store();
        let author = records[0].author();
        store.cut(&Damaged { author, first: Seq(3) });
        let before = store.clone();
        let mut other = Author::new(2);
        let changes = [Change::Append(other.record(1, 1, None, 10, 0)), Change::Append(records[2].clone())];
        assert!(matches!(store.write(&changes), Err(StoreError::Damaged(_))));
        assert_eq!(store, before);
        let whole: Vec<Change> = records[1..].iter().cloned().map(Change::Append).collect();
        assert_eq!(store.write(&whole), Ok(()));
        assert_eq!(store.stored(author).head, records[2].head());
    }

    #[test]
    fn sound_records_behind_damage_follow_once_the_gap_is_filled() {
        let (mut store, records) = store();
        let author = records[0].author();
        assert!(store.flip(&author, Seq(1), 3));
        store.cut(&Damaged { author, first: Seq(1) });
        assert_eq!((store.stored(author).head, store.reached(&author)), (Head::EMPTY, Seq(6)));
        assert_eq!((store.gaps().collect::<Vec<_>>(), store.kept(&author)), (vec![author], vec![]));
        let mut other = store.clone();
        store.write(&[Change::Append(records[0].clone())]).unwrap();
        assert_eq!(store.kept(&author), records[1..]);
        records[1..].iter().for_each(|record| store.write(&[Change::Append(record.clone())]).unwrap());
        assert_eq!((store.gaps().count(), store.stored(author).head), (0, records[2].head()));
        // Another history of the same author: what is kept does not follow it.
        let fork = Author::new(1).branch(None, &[2], 7);
        other.write(&[Change::Append(fork[0].clone())]).unwrap();
        assert_eq!(other.kept(&author), []);
    }

    #[test]
    fn damage_before_a_fork_is_found_after_the_freeze() {
        let (mut store, records) = store();
        let author = records[0].author();
        let other = Author::new(1).branch(Some(&records[1]), &[1], 7);
        let proof = Proof::new(&records[2], &other[0]).unwrap();
        assert!(store.flip(&author, Seq(3), 11));
        assert_eq!(store.write(&[Change::Freeze { proof, head: records[1].head() }]), Ok(()));
        assert_eq!(store.verify(&author), Err(Damaged { author, first: Seq(3) }));
    }

    #[test]
    fn a_flipped_bit_is_found_at_the_start_or_when_it_is_read_and_never_given_out() {
        let (store, records) = store();
        let author = records[0].author();
        let bits = records[1].as_bytes().len() as u64 * 8;
        for bit in 0..bits {
            let mut store = store.clone();
            assert!(store.flip(&author, Seq(3), bit));
            let damaged = Damaged { author, first: Seq(3) };
            assert_eq!(store.read(&author, Seq(1), Seq(6), usize::MAX), Err(damaged));
            assert_eq!(store.find(&author, Seq(4)), Err(damaged));
            assert_eq!(store.verify(&author), Err(damaged));
            assert_eq!(store.cut(&damaged).head, records[0].head());
            assert_eq!(store.verify(&author), Ok(()));
        }
        let mut store = store;
        assert!(store.flip(&author, Seq(5), 11));
        let (logs, damage) = store.open();
        assert_eq!((logs[0].head, damage.len()), (records[1].head(), 1));
        assert_eq!(store.reached(&author), records[2].last(), "it had come further");
        assert!(!store.flip(&author, Seq(5), 11), "it is gone");
        assert!(store.flip(&author, Seq(3), 0) && store.flip(&author, Seq(3), 0));
        assert_eq!(store.verify(&author), Ok(()), "flipped back");
    }
}
