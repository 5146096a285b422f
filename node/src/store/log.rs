//! The durable log on disk.
//!
//! One `redb` database, `log.redb` in the data directory, of its own so that a long write does not hold up what the
//! rest of the node keeps.
//!
//! ```text
//!   meta     "format" │ "mesh"              this program's number, and whose entries these are
//!   records  (author, first seq)  ─►  checksum ‖ record      one signed envelope each
//!   logs     author               ─►  checksum ‖ base ‖ head ‖ digest ‖ step [‖ digest ‖ step before the base] [‖ reached]
//!   proofs   author               ─►  checksum ‖ proof
//!   snapshots name                ─►  checksum ‖ bytes       the registry as it was, and the base
//!   checkpoints id                ─►  checksum ‖ sealed checkpoint
//!   chunks   (id, part, index)    ─►  checksum ‖ bytes       of checkpoints, sealed or not yet
//! ```
//!
//! What was dropped because a checkpoint covers it is contained in the *base*: a cut and the registry's state. The base
//! is brought up to the checkpoint before the first record of it goes, so it may contain more than was dropped.
//!
//! Nothing is served that is not what was written. Every value carries a checksum over itself and its key; records of
//! an author are contiguous, so that one that has vanished is missed too. What is found damaged is reported once: the
//! author's log ends before it, in the same breath, and the log fetches the rest from peers again. How far it had come
//! stays known (*reached*), so that a node never signs a number of its own log twice; and sound records behind the damage
//! stay, and count again once the gap is filled. A file whose structure is broken is put aside, and what can still be
//! read of it is carried over.
//!
//! Methods block for the disk; there is one writer at a time.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::log::checkpoint::{Cut, StoredCheckpoint};
use omnimesh_protocol::log::{Head, Proof, Record, StoreError, StoredLog};
use omnimesh_protocol::{Hash, MeshId, NodeId, Seq, Step};
use redb::{ReadableTable, Table, TableDefinition};

use super::database::{Failure, Lasting, attempt};

mod checkpoint;
mod open;
mod read;
mod salvage;
mod write;

/// The log's file in the data directory.
pub const LOG_FILE: &str = "log.redb";
/// The number of this format. One that is higher is of a later program, and left alone.
pub const FORMAT: u64 = 1;

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const RECORDS: TableDefinition<(&[u8; 32], u64), &[u8]> = TableDefinition::new("records");
const LOGS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("logs");
const PROOFS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("proofs");
const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshots");
const CHECKPOINTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("checkpoints");
const CHUNKS: TableDefinition<(&[u8; 32], u64, u64), &[u8]> = TableDefinition::new("chunks");
/// What the key of checksums is derived with.
const CHECKSUM_CONTEXT: &str = "omnimesh 2026-11 log store checksum";
const CHECKSUM_BYTES: usize = 16;
/// Memory for pages of the database, unless it is said. A guess: heads of logs that are written to stay in it.
const CACHE_BYTES: usize = 32 << 20;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is another mesh's.
    #[error("{path} holds the log of another mesh, {found}; this node is of {wanted}")]
    OtherMesh {
        /// The file.
        path: String,
        /// Whose it is.
        found: String,
        /// Who asks.
        wanted: MeshId,
    },
    /// A later program has written it.
    #[error("{path} has format {found}; this program knows formats up to {FORMAT}")]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: u64,
    },
    /// It is in use, or cannot be read or written.
    #[error("cannot open the log {path}: {reason}")]
    Failed {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Something on disk was not what had been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {mended}")]
pub struct Damage {
    /// What is damaged, for people.
    pub what: String,
    /// What was done about it.
    pub mended: String,
    /// Where the author's log ends now; `None` if it concerns no single author's.
    pub log: Option<StoredLog>,
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// All logs.
    pub logs: Vec<StoredLog>,
    /// What was damaged. The logs are without it already.
    pub damage: Vec<Damage>,
    /// The sealed checkpoints.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// What stands for entries that were dropped covers this.
    pub base: Cut,
}

/// Why records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk does not do what it should.
    Store(StoreError),
    /// They are damaged; the log ends before them now.
    Damaged(Box<Damage>),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        ReadError::Store(error)
    }
}

/// An open log. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct LogStore {
    message_bytes_max: usize,
    database: Lasting,
    /// Bytes of records dropped since the file was last made smaller.
    freed: AtomicU64,
    /// The checkpoint that was made last.
    folded: Mutex<Option<Hash>>,
}

impl LogStore {
    /// The longest record, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// Bytes of the file.
    pub fn bytes_on_disk(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    fn record(&self, author: &NodeId, first: u64, value: &[u8]) -> Option<Record> {
        let bytes = opened(&record_key(author, first), value)?;
        let envelope = Envelope::decode(&Bytes::copy_from_slice(bytes), self.message_bytes_max).ok()?;
        Record::new(envelope).filter(|record| record.author() == *author && record.first().0 == first)
    }

    fn proof(&self, author: &NodeId, value: &[u8]) -> Option<Proof> {
        let bytes = opened(author.as_bytes(), value)?;
        let proof = Proof::decode(&Bytes::copy_from_slice(bytes), self.message_bytes_max).ok()?;
        (proof.author() == *author).then_some(proof)
    }
}

/// What is kept of a log beside its records.
#[derive(Clone, Debug)]
struct Row {
    log: StoredLog,
    /// The digest and step of the record before the base, if that is not the beginning.
    floor: (Hash, Step),
    /// How far the log had come before damage cut it; not beyond the head if nothing of it is missing.
    reached: Seq,
}

impl Row {
    fn new(log: StoredLog) -> Self {
        Row { log, floor: (Head::EMPTY.digest, Step(0)), reached: Seq(0) }
    }

    /// True if there may be sound records behind a gap.
    fn has_gap(&self) -> bool {
        self.reached > self.log.head.seq
    }

    /// What the first record comes behind.
    fn before(&self) -> (Head, Step) {
        let seq = self.log.base.saturating_sub(1);
        if seq == Seq(0) {
            return (Head::EMPTY, Step(0));
        }
        (Head { seq, digest: self.floor.0 }, self.floor.1)
    }
}

/// Bytes of where a log ends, of what comes before its base, and of how far it had come.
const LOG_BYTES: usize = 8 + 8 + 32 + 8 + (32 + 8) + 8;

fn put_row(row: &Row, logs: &mut Table<'_, &'static [u8; 32], &'static [u8]>) -> Result<(), Failure> {
    let Row { log, floor, reached } = row;
    let author = log.author.as_bytes();
    let mut value = Vec::with_capacity(LOG_BYTES);
    value.extend(log.base.0.to_le_bytes());
    value.extend(log.head.seq.0.to_le_bytes());
    value.extend(log.head.digest.as_bytes());
    value.extend(log.step.0.to_le_bytes());
    if log.base > Seq(1) {
        value.extend(floor.0.as_bytes());
        value.extend(floor.1.0.to_le_bytes());
    }
    if row.has_gap() {
        value.extend(reached.0.to_le_bytes());
    }
    logs.insert(author, sealed(author, &value).as_slice())?;
    Ok(())
}

fn decode_row(author: &NodeId, value: &[u8]) -> Option<Row> {
    let rest = opened(author.as_bytes(), value)?;
    let (base, rest) = rest.split_first_chunk::<8>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let (step, rest) = rest.split_first_chunk::<8>()?;
    let head = Head { seq: Seq(u64::from_le_bytes(*seq)), digest: Hash::from_bytes(*digest) };
    let base = Seq(u64::from_le_bytes(*base));
    let step = Step(u64::from_le_bytes(*step));
    let mut row = Row::new(StoredLog { author: *author, base, head, step, proof: None });
    let mut rest = rest;
    if base > Seq(1) {
        let (digest, behind) = rest.split_first_chunk::<32>()?;
        let (step, behind) = behind.split_first_chunk::<8>()?;
        row.floor = (Hash::from_bytes(*digest), Step(u64::from_le_bytes(*step)));
        rest = behind;
    }
    if !rest.is_empty() {
        row.reached = Seq(u64::from_le_bytes(rest.try_into().ok()?));
    }
    Some(row)
}

fn stored(
    author: NodeId,
    logs: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
) -> Result<Option<Row>, Failure> {
    Ok(logs.get(author.as_bytes())?.and_then(|value| decode_row(&author, value.value())))
}

fn record_key(author: &NodeId, first: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(author.as_bytes());
    key[32..].copy_from_slice(&first.to_be_bytes());
    key
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    static KEY: std::sync::LazyLock<[u8; 32]> =
        std::sync::LazyLock::new(|| blake3::derive_key(CHECKSUM_CONTEXT, b""));
    let mut hasher = blake3::Hasher::new_keyed(&KEY);
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut checksum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut checksum);
    checksum
}

fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    sealed.extend(checksum(key, value));
    sealed.extend(value);
    sealed
}

/// The value, if it is what was written under this key.
fn opened<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_first_chunk::<CHECKSUM_BYTES>()?;
    (*sum == checksum(key, value)).then_some(value)
}

#[cfg(test)]
mod tests;
