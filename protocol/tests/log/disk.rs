//! What is on a node's disk, and records to put there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use omnimesh_protocol::envelope::{Envelope, Header, Kind};
use omnimesh_protocol::log::{Change, Head, Proof, Record, Start, StoredLog};
use omnimesh_protocol::{Hash, Identity, NodeId, Seq, Step};

use crate::network::{category, mesh, patterns};

/// What is on disk for good.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Disk {
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
            Change::Freeze(proof) => {
                self.proofs.insert(proof.author(), proof.encode());
                let log = self.logs.entry(proof.author()).or_default();
                log.retain(|_, bytes| record(bytes).last() < proof.fork());
            }
        }
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
        let authors: BTreeSet<NodeId> = self.logs.keys().chain(self.proofs.keys()).copied().collect();
        let logs = authors.into_iter().map(|author| self.stored(author)).collect();
        Start { logs, may_have_written }
    }

    pub(crate) fn stored(&self, author: NodeId) -> StoredLog {
        let last =
            self.logs.get(&author).and_then(|log| log.last_key_value()).map(|(_, bytes)| record(bytes));
        let proof = self.proofs.get(&author).map(|bytes| Proof::decode(bytes, 65_536).unwrap());
        StoredLog {
            author,
            base: Seq(1),
            head: last.as_ref().map_or(Head::EMPTY, Record::head),
            step: last.as_ref().map_or(Step(0), Record::step),
            proof,
        }
    }

    /// Checks every chain from its beginning, signatures too.
    pub(crate) fn check(&self) {
        for (author, log) in &self.logs {
            let key = omnimesh_protocol::identity::PublicKey::new(author).unwrap();
            let (mut head, mut step) = (Head::EMPTY, Step(0));
            let mut hash = None;
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
