//! What is on a node's disk, and records to put there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use omnimesh_protocol::envelope::{Envelope, Header, Kind};
use omnimesh_protocol::log::checkpoint::{Base, CHUNK_BYTES, Checkpoint, Cut, StoredCheckpoint};
use omnimesh_protocol::log::{Change, Head, Proof, Record, Start, StoreError, StoredLog};
use omnimesh_protocol::projection::{EntryRef, Projection};
use omnimesh_protocol::{Hash, Identity, NodeId, Outbox, Seq, Step, registry};

use crate::network::{category, mesh, patterns};

/// What is on disk for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// What logs begin behind, where it is not kept.
    pub(crate) floors: BTreeMap<NodeId, (Head, Step)>,
    /// What stands for it.
    pub(crate) base: Base,
    /// Sealed checkpoints and their parts, the newest last.
    pub(crate) held: Vec<(StoredCheckpoint, Vec<Bytes>)>,
    folded: Option<(Hash, Vec<Bytes>)>,
    staged: BTreeMap<Hash, BTreeMap<(usize, u64), Bytes>>,
    pub(crate) logs: BTreeMap<NodeId, BTreeMap<Seq, Bytes>>,
    pub(crate) proofs: BTreeMap<NodeId, Bytes>,
}

pub(crate) fn record(bytes: &Bytes) -> Record {
    Record::new(Envelope::decode(bytes, 65_536).unwrap()).unwrap()
}

impl Disk {
    pub(crate) fn change(&mut self, change: &Change) {
        match change {
            Change::Append(record) => {
                let log = self.logs.entry(record.author()).or_default();
                drop(log.split_off(&record.first()));
                log.insert(record.first(), record.as_bytes().clone());
            }
            Change::Freeze { proof, head } => {
                self.proofs.insert(proof.author(), proof.encode());
                let log = self.logs.entry(proof.author()).or_default();
                log.retain(|_, bytes| record(bytes).last() <= head.seq);
            }
            Change::Seal(stored) => {
                let id = stored.sealed.checkpoint.id();
                let folded = self.folded.as_ref().filter(|(folded, _)| *folded == id);
                let parts = folded.map(|(_, parts)| parts.clone());
                let parts = parts.or_else(|| self.staged_parts(&stored.sealed.checkpoint));
                self.held.retain(|(held, _)| held.sealed.checkpoint.id() != id);
                if self.held.len() > 1 {
                    self.held.remove(0);
                }
                self.held.push((StoredCheckpoint::clone(stored), parts.expect("its parts are on disk")));
                self.held.sort_by_key(|(held, _)| held.sealed.checkpoint.step);
                self.staged.remove(&id);
            }
            Change::Jump(log) => {
                self.join_held();
                assert_eq!(self.base.cut.head(&log.author), log.head, "the base covers what is dropped");
                assert_eq!(log.base.0, log.head.seq.0 + 1);
                self.floors.insert(log.author, (log.head, log.step));
                let records = self.logs.entry(log.author).or_default();
                *records = records.split_off(&log.base);
            }
        }
    }

    fn join_held(&mut self) {
        for (held, parts) in &self.held {
            self.base.join(&Base::open(&held.sealed.checkpoint, parts, 1000).unwrap());
        }
    }

    /// Makes the checkpoint of a step.
    pub(crate) fn fold(&mut self, step: Step) -> (Checkpoint, Cut) {
        let mut base = self.base.clone();
        if let Some((held, parts)) = self.held.last() {
            base.join(&Base::open(&held.sealed.checkpoint, parts, 1000).unwrap());
        }
        for log in self.logs.values() {
            let mut records = log.values().map(record);
            while records.next().is_some_and(|record| base.take(&record, step)) {}
        }
        let (checkpoint, parts) = base.checkpoint(mesh().id(), step);
        self.folded = Some((checkpoint.id(), parts));
        (checkpoint, base.cut)
    }

    pub(crate) fn stage(&mut self, checkpoint: Hash, part: usize, index: u64, bytes: Bytes) {
        self.staged.entry(checkpoint).or_default().insert((part, index), bytes);
    }

    fn staged_parts(&self, checkpoint: &Checkpoint) -> Option<Vec<Bytes>> {
        let staged = self.staged.get(&checkpoint.id())?;
        let part = |part: usize, chunks: u64| {
            let chunks = (0..chunks).map(|index| staged.get(&(part, index)).cloned());
            Some(Bytes::from(chunks.collect::<Option<Vec<Bytes>>>()?.concat()))
        };
        checkpoint.parts.iter().enumerate().map(|(index, named)| part(index, named.chunks())).collect()
    }

    pub(crate) fn open(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let damaged = |what: String| StoreError::Damaged(what);
        let parts = self.staged_parts(checkpoint).ok_or_else(|| damaged("not there".to_owned()))?;
        Base::open(checkpoint, &parts, 1000).map(drop).map_err(|error| damaged(error.to_string()))
    }

    pub(crate) fn chunk(&self, checkpoint: Hash, part: usize, index: u64) -> Vec<Bytes> {
        let held = self.held.iter().find(|(held, _)| held.sealed.checkpoint.id() == checkpoint);
        let part = held.and_then(|(_, parts)| parts.get(part));
        let from = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(CHUNK_BYTES);
        let chunk = part.filter(|part| from < part.len());
        chunk.map(|part| part.slice(from..part.len().min(from + CHUNK_BYTES))).into_iter().collect()
    }

    /// Drops what the newest checkpoint covers. Returns where logs begin now.
    pub(crate) fn truncate(&mut self, below: Step, bytes_max: Option<u64>) -> Vec<(NodeId, Seq)> {
        let Some((newest, _)) = self.held.last().cloned() else { return Vec::new() };
        self.join_held();
        let mut truncated = BTreeMap::new();
        for below in [below, Step(u64::MAX)] {
            if below == Step(u64::MAX) && bytes_max.is_none_or(|max| self.bytes() as u64 <= max) {
                continue;
            }
            for (author, log) in &mut self.logs {
                let end = newest.cut.head(author).seq;
                while let Some(first) = log.first_entry() {
                    let record = record(first.get());
                    if record.last() > end || record.step() >= below {
                        break;
                    }
                    first.remove();
                    self.floors.insert(*author, (record.head(), record.step()));
                    truncated.insert(*author, Seq(record.last().0 + 1));
                }
            }
        }
        truncated.into_iter().collect()
    }

    /// The registry as it follows from what is here.
    pub(crate) fn registry(&self) -> registry::State {
        let mut state = self.base.registry.clone();
        for author in self.proofs.keys() {
            let head = self.stored(*author).head;
            let end = omnimesh_protocol::projection::Head { seq: head.seq, hash: head.digest };
            let _ = state.cut(*author, (head.seq.0 > 0).then_some(end), &mut Outbox::new());
        }
        for bytes in self.logs.values().flat_map(|log| log.values()) {
            apply(&mut state, &record(bytes));
        }
        state
    }

    pub(crate) fn read(&self, author: &NodeId, from: Seq, to: Seq, bytes_max: usize) -> Vec<Bytes> {
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in self.logs.get(author).into_iter().flat_map(|log| log.range(from..=to)).map(|(_, r)| r) {
            bytes += record.len();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }
        records
    }

    pub(crate) fn find(&self, author: &NodeId, seq: Seq) -> Option<Bytes> {
        let (_, bytes) = self.logs.get(author)?.range(..=seq).next_back()?;
        record(bytes).covers(seq).then(|| bytes.clone())
    }

    pub(crate) fn start(&self, may_have_written: bool) -> Start {
        let authors = self.logs.keys().chain(self.proofs.keys()).chain(self.floors.keys());
        let authors: BTreeSet<NodeId> = authors.copied().collect();
        let logs = authors.into_iter().map(|author| self.stored(author)).collect();
        let checkpoint = self.held.last().map(|(held, _)| held.clone());
        Start { logs, may_have_written, checkpoint, ..Start::default() }
    }

    pub(crate) fn stored(&self, author: NodeId) -> StoredLog {
        let last =
            self.logs.get(&author).and_then(|log| log.last_key_value()).map(|(_, bytes)| record(bytes));
        let proof = self.proofs.get(&author).map(|bytes| Proof::decode(bytes, 65_536).unwrap());
        let (floor, step) = self.floor(&author);
        StoredLog {
            author,
            base: Seq(floor.seq.0 + 1),
            head: last.as_ref().map_or(floor, Record::head),
            step: last.as_ref().map_or(step, Record::step),
            proof,
        }
    }

    /// What the author's first record here comes behind.
    pub(crate) fn floor(&self, author: &NodeId) -> (Head, Step) {
        self.floors.get(author).copied().unwrap_or((Head::EMPTY, Step(0)))
    }

    /// Checks every chain from its beginning, signatures too.
    pub(crate) fn check(&self) {
        for (author, log) in &self.logs {
            let key = omnimesh_protocol::identity::PublicKey::new(author).unwrap();
            let (mut head, mut step) = self.floor(author);
            let mut hash = head.as_prev();
            for bytes in log.values() {
                let record = record(bytes);
                assert_eq!((record.author(), record.first().0), (*author, head.seq.0 + 1));
                assert_eq!(record.prev(), head.as_prev());
                assert!(record.step() >= step && record.envelope().is_signed_by(&key));
                for entry in record.to_entries() {
                    assert_eq!(entry.prev, hash, "entries are a chain too");
                    hash = Some(entry.hash);
                }
                (head, step) = (record.head(), record.step());
                assert_eq!(hash, Some(head.digest));
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.logs.values().flat_map(|log| log.values()).map(Bytes::len).sum()
    }

    /// Digests of all records: what has to be equal on all nodes.
    pub(crate) fn content(&self) -> Vec<(NodeId, Seq, Hash)> {
        let logs = self.logs.iter();
        logs.flat_map(|(author, log)| log.iter().map(|(seq, bytes)| (*author, *seq, record(bytes).digest())))
            .collect()
    }
}

/// Folds the entries of a record.
pub(crate) fn apply(state: &mut registry::State, record: &Record) {
    for entry in record.to_entries() {
        let entry = EntryRef {
            author: entry.author,
            seq: entry.seq,
            step: entry.step,
            hash: entry.hash,
            category: entry.category.as_str(),
            payload: &entry.data,
        };
        let _ = state.apply(&entry, &mut Outbox::new());
    }
}

/// Seals a record with a key, whatever its log says.
pub(crate) fn seal(
    identity: &Identity,
    step: Step,
    first: u64,
    prev: Option<Hash>,
    payloads: &[Bytes],
) -> Record {
    let header = Header {
        mesh: mesh().id(),
        author: identity.id(),
        seq: Seq(first),
        step,
        kind: Kind::Durable,
        channel: category(),
        prev,
        timestamp_us: None,
    };
    let payloads = payloads.iter().cloned().collect();
    Record::new(Envelope::seal(identity, patterns().at(step), header, payloads).unwrap()).unwrap()
}

/// A chain of records with so many entries each, behind `before`.
pub(crate) fn chain(
    identity: &Identity,
    step: Step,
    before: Option<&Record>,
    lengths: &[usize],
    text: &str,
) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for entries in lengths {
        let last = records.last().or(before);
        let (first, prev) = last.map_or((1, None), |last| (last.last().0 + 1, Some(last.digest())));
        let payloads: Vec<Bytes> =
            (0..*entries).map(|index| Bytes::from(format!("{text} {}", first + index as u64))).collect();
        records.push(seal(identity, step, first, prev, &payloads));
    }
    records
}

/// A disk that holds these records.
pub(crate) fn disk_of(records: &[Record]) -> Disk {
    let mut disk = Disk::default();
    for record in records {
        disk.change(&Change::Append(record.clone()));
    }
    disk
}
