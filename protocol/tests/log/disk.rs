//! What is on a node's disk, and records to put there.

use bytes::Bytes;
use omnimesh_protocol::envelope::{Envelope, Header, Kind};
use omnimesh_protocol::identity::PublicKey;
use omnimesh_protocol::log::{Change, MemoryStore, Record, Start};
use omnimesh_protocol::{Hash, Identity, NodeId, Seq, Step};

use crate::network::{category, mesh, patterns};

/// What is on disk for good.
pub(crate) type Disk = MemoryStore;

/// What a node that starts knows of it.
pub(crate) fn start(disk: &mut Disk, may_have_written: bool) -> Start {
    let (logs, damage) = disk.open();
    assert!(damage.is_empty(), "{damage:?}");
    let (checkpoints, base) = (disk.checkpoints().cloned().collect(), disk.base().cut.clone());
    Start { logs, may_have_written, checkpoints, base, ..Start::default() }
}

/// The record that covers an entry.
pub(crate) fn find(disk: &Disk, author: &NodeId, seq: Seq) -> Option<Record> {
    let bytes = disk.find(author, seq).unwrap()?;
    Some(Record::new(Envelope::decode(&bytes, 65_536).unwrap()).unwrap())
}

/// Entries that are not kept.
pub(crate) fn dropped(disk: &Disk) -> u64 {
    disk.floors().values().map(|floor| floor.head.seq.0).sum()
}

/// Checks every chain from its beginning, signatures too.
pub(crate) fn check(disk: &Disk) {
    for author in disk.authors() {
        let key = PublicKey::new(&author).unwrap();
        let floor = disk.floor(&author);
        let (mut head, mut step) = (floor.head, floor.step);
        let mut hash = head.as_prev();
        for record in disk.records(&author) {
            assert_eq!((record.author(), record.first().0), (author, head.seq.0 + 1));
            assert_eq!(record.prev(), head.as_prev());
            assert!(record.step() >= step && record.envelope().is_signed_by(&key));
            for entry in record.to_entries() {
                assert_eq!(entry.prev, hash, "entries are a chain too");
                hash = Some(entry.hash);
            }
            (head, step) = (record.head(), record.step());
            assert_eq!(hash, Some(head.digest));
        }
        assert!(disk.base().cut.head(&author).seq >= floor.head.seq, "the base covers what is dropped");
    }
}

/// Digests of all records: what has to be equal on all nodes.
pub(crate) fn content(disk: &Disk) -> Vec<(NodeId, Seq, Hash)> {
    let records = disk.logs().flat_map(|(_, records)| records.flatten());
    records.map(|record| (record.author(), record.first(), record.digest())).collect()
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
    let changes: Vec<Change> = records.iter().cloned().map(Change::Append).collect();
    disk.write(&changes).unwrap();
    disk
}
