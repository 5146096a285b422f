//! The durable log on disk.
//!
//! One `redb` database, `log.redb` in the data directory, of its own so that a long write does not hold up what the
//! rest of the node keeps.
//!
//! ```text
//!   meta     "format" │ "mesh"              this program's number, and whose entries these are
//!   records  (author, first seq)  ─►  checksum ‖ record      one signed envelope each
//!   logs     author               ─►  checksum ‖ base ‖ head ‖ digest ‖ step
//!   proofs   author               ─►  checksum ‖ proof
//!   snapshots name                ─►  checksum ‖ bytes
//! ```
//!
//! Nothing is served that is not what was written. Every value carries a checksum over itself and its key; records of
//! an author are contiguous, so that one that has vanished is missed too. What is found damaged is reported once: the
//! author's log is cut before it, in the same breath, and the log fetches the rest from peers again. A file whose
//! structure is broken is put aside, and what can still be read of it is carried over.
//!
//! Methods block for the disk; there is one writer at a time.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::log::{Change, Head, Proof, Record, StoreError, StoredLog};
use omnimesh_protocol::{Hash, MeshId, NodeId, Seq, Step};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
    TableError,
};

/// The log's file in the data directory.
pub const LOG_FILE: &str = "log.redb";
/// The number of this format. One that is higher is of a later program, and left alone.
pub const FORMAT: u64 = 1;

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const RECORDS: TableDefinition<(&[u8; 32], u64), &[u8]> = TableDefinition::new("records");
const LOGS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("logs");
const PROOFS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("proofs");
const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshots");
/// What the key of checksums is derived with.
const CHECKSUM_CONTEXT: &str = "omnimesh 2026-11 log store checksum";
const CHECKSUM_BYTES: usize = 16;
/// Memory for pages of the database. A guess: heads of logs that are written to stay in it.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged, for people.
    pub what: String,
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
    path: PathBuf,
    message_bytes_max: usize,
    /// `None` after a write has failed, until the next one opens it anew: redb does nothing more by itself then.
    database: RwLock<Option<Database>>,
}

impl LogStore {
    /// Opens the log in a data directory, or makes it. Who holds the directory's lock is its only user. Records longer
    /// than `message_bytes_max` are damaged.
    ///
    /// # Errors
    /// If it is another mesh's or a later program's, or cannot be used. A damaged one is no error: what is left of it
    /// is used, and what is not is told.
    pub fn open(
        data_dir: &Path,
        mesh: MeshId,
        message_bytes_max: usize,
    ) -> Result<(Self, Opened), OpenError> {
        let path = data_dir.join(LOG_FILE);
        let (database, mut damage) = match open_whole(&path, mesh)? {
            Whole::Sound(database) => (database, Vec::new()),
            Whole::Broken(reason) => salvage(&path, mesh, message_bytes_max, &reason)?,
        };
        let store = LogStore { path, message_bytes_max, database: RwLock::new(Some(database)) };
        let logs = store.check_heads(&mut damage).map_err(|error| store.failed_to_open(&error))?;
        Ok((store, Opened { logs, damage }))
    }

    fn failed_to_open(&self, error: &StoreError) -> OpenError {
        OpenError::Failed { path: self.path.display().to_string(), reason: error.to_string() }
    }

    /// Reads where every log ends, and whether its last record is there.
    fn check_heads(&self, damage: &mut Vec<Damage>) -> Result<Vec<StoredLog>, StoreError> {
        let (mut logs, mut suspects) = (Vec::new(), Vec::new());
        self.with_read(|read| {
            let (table, records, proofs) =
                (read.open_table(LOGS)?, read.open_table(RECORDS)?, read.open_table(PROOFS)?);
            for row in table.range::<&[u8; 32]>(..)? {
                let (key, value) = row?;
                let author = NodeId::from_bytes(*key.value());
                let proof = proofs.get(key.value())?.map(|value| self.proof(&author, value.value()));
                let log = decode_log(&author, value.value());
                match (log, proof) {
                    (Some(mut log), proof @ (None | Some(Some(_)))) => {
                        log.proof = proof.flatten();
                        let is_there = log.head.seq < log.base || {
                            let last = records
                                .range((author.as_bytes(), log.base.0)..=(author.as_bytes(), log.head.seq.0))?
                                .next_back()
                                .transpose()?;
                            last.is_some_and(|(key, value)| {
                                let record = self.record(&author, key.value().1, value.value());
                                record.is_some_and(|record| record.head() == log.head)
                            })
                        };
                        if is_there { logs.push(log) } else { suspects.push(author) }
                    }
                    _ => suspects.push(author),
                }
            }
            Ok(())
        })?;
        for author in suspects {
            let found = self.cut_at_damage(author, "where the log ends")?;
            logs.extend(found.log.clone());
            damage.push(found);
        }
        logs.sort_by_key(|log| log.author);
        Ok(logs)
    }

    /// Makes all changes, or none. What it returned `Ok` for is there after `kill -9`, and after the power went.
    ///
    /// # Errors
    /// If the disk is full or fails. Some of the changes may be there then.
    pub fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.with_write(|write| {
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            let mut proofs = write.open_table(PROOFS)?;
            for change in changes {
                match change {
                    Change::Append(record) => append(record, &mut records, &mut logs)?,
                    Change::Freeze(proof) => {
                        let author = proof.author();
                        let value = sealed(author.as_bytes(), &proof.encode());
                        proofs.insert(author.as_bytes(), value.as_slice())?;
                        self.drop_from(author, proof.fork(), &mut records, &mut logs)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Drops the records of a log that end at `from` or later.
    fn drop_from(
        &self,
        author: NodeId,
        from: Seq,
        records: &mut Table<'_, (&'static [u8; 32], u64), &'static [u8]>,
        logs: &mut Table<'_, &'static [u8; 32], &'static [u8]>,
    ) -> Result<(), Failure> {
        let Some(mut log) = stored(author, logs)? else { return Ok(()) };
        let mut last = None;
        let mut first_dropped = None;
        for row in records.range((author.as_bytes(), 0)..=(author.as_bytes(), u64::MAX))?.rev() {
            let (key, value) = row?;
            let first = key.value().1;
            match self.record(&author, first, value.value()) {
                Some(record) if record.last() < from => {
                    last = Some(record);
                    break;
                }
                _ => first_dropped = Some(first),
            }
        }
        if let Some(first) = first_dropped {
            records.retain_in((author.as_bytes(), first)..=(author.as_bytes(), u64::MAX), |_, _| false)?;
        }
        if log.head.seq >= from {
            (log.head, log.step) = match &last {
                Some(record) => (record.head(), record.step()),
                None => (Head::EMPTY, Step(0)),
            };
            put_log(&log, logs)?;
        }
        Ok(())
    }

    /// The author's records whose first sequence number is in `from..=to`, in order, up to `bytes_max` bytes but at
    /// least one; none of a log that does not come that far.
    ///
    /// # Errors
    /// If they cannot be read, or are not what was written.
    pub fn read(
        &self,
        author: NodeId,
        from: Seq,
        to: Seq,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, ReadError> {
        let (mut found, mut is_damaged) = (Vec::new(), false);
        self.with_read(|read| {
            let (records, logs) = (read.open_table(RECORDS)?, read.open_table(LOGS)?);
            let Some(log) = stored(author, &logs)? else { return Ok(()) };
            let (from, to) = (from.max(log.base), to.min(log.head.seq));
            if from > to {
                return Ok(());
            }
            let (mut bytes, mut next) = (0, None);
            for row in records.range((author.as_bytes(), from.0)..=(author.as_bytes(), to.0))? {
                let (key, value) = row?;
                let record = self.record(&author, key.value().1, value.value());
                let Some(record) = record.filter(|record| next.is_none_or(|next| record.first() == next))
                else {
                    is_damaged = true;
                    return Ok(());
                };
                if !found.is_empty() && bytes + record.as_bytes().len() > bytes_max {
                    return Ok(());
                }
                bytes += record.as_bytes().len();
                next = Some(record.last().saturating_add(1));
                found.push(record.as_bytes().clone());
            }
            // One that begins before `from` may cover all that is asked for; one that vanished does not.
            is_damaged = next.is_some_and(|next| next <= to);
            Ok(())
        })?;
        match is_damaged {
            true => Err(ReadError::Damaged(Box::new(self.cut_at_damage(author, "a record")?))),
            false => Ok(found),
        }
    }

    /// The record that covers `seq`.
    ///
    /// # Errors
    /// As [`LogStore::read`].
    pub fn find(&self, author: NodeId, seq: Seq) -> Result<Option<Bytes>, ReadError> {
        let mut found = None;
        let mut is_damaged = false;
        self.with_read(|read| {
            let (records, logs) = (read.open_table(RECORDS)?, read.open_table(LOGS)?);
            let Some(log) = stored(author, &logs)? else { return Ok(()) };
            if seq < log.base || seq > log.head.seq {
                return Ok(());
            }
            let row = records
                .range((author.as_bytes(), 0)..=(author.as_bytes(), seq.0))?
                .next_back()
                .transpose()?;
            let record = row.and_then(|(key, value)| self.record(&author, key.value().1, value.value()));
            found = record.filter(|record| record.covers(seq)).map(|record| record.as_bytes().clone());
            is_damaged = found.is_none();
            Ok(())
        })?;
        match is_damaged {
            true => Err(ReadError::Damaged(Box::new(self.cut_at_damage(author, "a record")?))),
            false => Ok(found),
        }
    }

    /// Reads a log from its beginning and compares everything; where that breaks off, the log ends from now on.
    fn cut_at_damage(&self, author: NodeId, what: &str) -> Result<Damage, StoreError> {
        let scan = self.scan(author)?;
        let log = scan.log.clone();
        self.with_write(|write| {
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            let behind = log.head.seq.saturating_add(1).max(log.base).0;
            records.retain_in((author.as_bytes(), behind)..=(author.as_bytes(), u64::MAX), |_, _| false)?;
            put_log(&log, &mut logs)
        })?;
        let what = format!(
            "{what} of {author} is damaged: {}; it ends at {} for now, and the rest is fetched from peers",
            scan.reason.unwrap_or_else(|| "it is not what was written".to_owned()),
            log.head.seq.0
        );
        Ok(Damage { what, log: Some(log) })
    }

    /// Follows a log from its base.
    fn scan(&self, author: NodeId) -> Result<Scan, StoreError> {
        let empty = StoredLog { author, base: Seq(1), head: Head::EMPTY, step: Step(0), proof: None };
        let mut scan = Scan { log: empty, reason: None };
        self.with_read(|read| {
            let (records, logs, proofs) =
                (read.open_table(RECORDS)?, read.open_table(LOGS)?, read.open_table(PROOFS)?);
            if let Some(value) = proofs.get(author.as_bytes())? {
                scan.log.proof = self.proof(&author, value.value());
            }
            let row = stored(author, &logs)?;
            if let Some(log) = &row {
                scan.log.base = log.base;
            }
            let mut rows = records.range((author.as_bytes(), 0)..=(author.as_bytes(), u64::MAX))?;
            let mut previous = None::<Record>;
            loop {
                let expected =
                    previous.as_ref().map_or(scan.log.base, |record| record.last().saturating_add(1));
                let is_over = row.as_ref().is_some_and(|log| scan.log.head == log.head);
                let Some(next) = rows.next() else {
                    if !is_over {
                        scan.reason = Some(format!("entry {} is missing", expected.0));
                    }
                    return Ok(());
                };
                if is_over {
                    return Ok(());
                }
                let (key, value) = next?;
                let Some(record) = self.record(&author, key.value().1, value.value()) else {
                    scan.reason = Some(format!("the record at {} does not fit its checksum", key.value().1));
                    return Ok(());
                };
                if previous.is_none() && row.is_none() {
                    // Where it began is not known: what is there is as good a beginning as any.
                    scan.log.base = record.first();
                } else if record.first() != expected {
                    scan.reason = Some(format!("entry {} is missing", expected.0));
                    return Ok(());
                }
                if let Some(previous) = &previous
                    && record.prev() != Some(previous.digest())
                {
                    scan.reason =
                        Some(format!("entry {} does not follow the one before it", record.first().0));
                    return Ok(());
                }
                (scan.log.head, scan.log.step) = (record.head(), record.step());
                previous = Some(record);
            }
        })?;
        Ok(scan)
    }

    /// Reads a whole log and compares everything with what was written.
    ///
    /// # Errors
    /// If it cannot be read. Damage is no error: it is told, and the log cut.
    pub fn verify(&self, author: NodeId) -> Result<Option<Damage>, StoreError> {
        let scan = self.scan(author)?;
        match scan.reason {
            None => Ok(None),
            Some(_) => self.cut_at_damage(author, "the log").map(Some),
        }
    }

    /// The longest record, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Where an author's log ends; `None` if there is nothing of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn log(&self, author: NodeId) -> Result<Option<StoredLog>, StoreError> {
        let mut found = None;
        self.with_read(|read| {
            found = stored(author, &read.open_table(LOGS)?)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Where all logs end now.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn logs(&self) -> Result<Vec<StoredLog>, StoreError> {
        self.check_heads(&mut Vec::new())
    }

    /// The same, and what was found damaged on the way: those logs are cut.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn logs_and_damage(&self) -> Result<Opened, StoreError> {
        let mut damage = Vec::new();
        let logs = self.check_heads(&mut damage)?;
        Ok(Opened { logs, damage })
    }

    /// All authors there are.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn authors(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut authors = Vec::new();
        self.with_read(|read| {
            for row in read.open_table(LOGS)?.range::<&[u8; 32]>(..)? {
                authors.push(NodeId::from_bytes(*row?.0.value()));
            }
            Ok(())
        })?;
        Ok(authors)
    }

    /// Drops the records of a log that end before `base`. Returns where the log begins now: at a record's first entry.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn truncate(&self, author: NodeId, base: Seq) -> Result<Seq, StoreError> {
        let mut begins = Seq(1);
        self.with_write(|write| {
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            let Some(mut log) = stored(author, &logs)? else { return Ok(()) };
            // The record that covers the new base stays whole.
            let covering = records
                .range((author.as_bytes(), 0)..=(author.as_bytes(), base.0))?
                .next_back()
                .transpose()?;
            let first = covering.map(|(key, _)| key.value().1).unwrap_or(log.base.0);
            let first = if base > log.head.seq { log.head.seq.saturating_add(1).0 } else { first };
            log.base = Seq(first).max(log.base);
            records.retain_in((author.as_bytes(), 0)..(author.as_bytes(), log.base.0), |_, _| false)?;
            begins = log.base;
            put_log(&log, &mut logs)
        })?;
        Ok(begins)
    }

    /// Takes a log as complete up to its head without having it: a snapshot stands for it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn adopt(&self, log: &StoredLog) -> Result<(), StoreError> {
        self.with_write(|write| {
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            let author = log.author.as_bytes();
            records.retain_in((author, 0)..=(author, u64::MAX), |_, _| false)?;
            put_log(log, &mut logs)
        })
    }

    /// Keeps the snapshot of a projection in place of an earlier one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_snapshot(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.with_write(|write| {
            let value = sealed(name.as_bytes(), bytes);
            write.open_table(SNAPSHOTS)?.insert(name, value.as_slice())?;
            Ok(())
        })
    }

    /// The snapshot of a projection; `None` if there is none or it is damaged.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn snapshot(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.with_read(|read| {
            let table = read.open_table(SNAPSHOTS)?;
            found =
                table.get(name)?.and_then(|value| opened(name.as_bytes(), value.value()).map(<[u8]>::to_vec));
            Ok(())
        })?;
        Ok(found)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn bytes_on_disk(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Writes all there is at this moment into a new file, while others read and write.
    ///
    /// # Errors
    /// If the file is there already, or cannot be written.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if to.exists() {
            return Err(StoreError::Failed(format!("{} is there already", to.display())));
        }
        let copy = Database::builder().set_cache_size(CACHE_BYTES).create(to).map_err(Failure::from)?;
        self.with_read(|read| copy_all(read, &copy))
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

    fn with_read(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<(), Failure>,
    ) -> Result<(), StoreError> {
        // What is there can be read also while nothing can be written.
        self.reopen()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(StoreError::Failed("an earlier write failed".to_owned()));
        };
        guarded(|| work(&database.begin_read()?))
    }

    fn with_write(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), Failure>,
    ) -> Result<(), StoreError> {
        self.reopen()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &*database else {
            return Err(StoreError::Failed("an earlier write failed".to_owned()));
        };
        let written = guarded(|| {
            let write = open.begin_write()?;
            work(&write)?;
            Ok(write.commit()?)
        });
        drop(database);
        if written.is_err() {
            let broken = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
            discard(broken);
        }
        written
    }

    /// Opens the file anew after a write has failed.
    fn reopen(&self) -> Result<(), StoreError> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            let open = || Ok(Database::builder().set_cache_size(CACHE_BYTES).open(&self.path)?);
            *database = Some(guarded(open)?);
        }
        Ok(())
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        discard(self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Closes a database. One that is broken panics when it is closed too.
fn discard(database: Option<Database>) {
    if catch_unwind(AssertUnwindSafe(move || drop(database))).is_err() {
        tracing::warn!("a damaged log could not be closed in good order");
    }
}

/// What following a log has shown.
struct Scan {
    /// As far as it is unbroken.
    log: StoredLog,
    /// Why it goes no further, if it should.
    reason: Option<String>,
}

fn append(
    record: &Record,
    records: &mut Table<'_, (&'static [u8; 32], u64), &'static [u8]>,
    logs: &mut Table<'_, &'static [u8; 32], &'static [u8]>,
) -> Result<(), Failure> {
    let (author, first) = (record.author(), record.first().0);
    let left_over = (author.as_bytes(), first)..=(author.as_bytes(), u64::MAX);
    if records.range(left_over.clone())?.next().is_some() {
        records.retain_in(left_over, |_, _| false)?;
    }
    let value = sealed(&record_key(&author, first), record.as_bytes());
    records.insert((author.as_bytes(), first), value.as_slice())?;
    let base = stored(author, logs)?.map_or(record.first(), |log| log.base);
    let log = StoredLog { author, base, head: record.head(), step: record.step(), proof: None };
    put_log(&log, logs)
}

fn put_log(log: &StoredLog, logs: &mut Table<'_, &'static [u8; 32], &'static [u8]>) -> Result<(), Failure> {
    let author = log.author.as_bytes();
    let mut value = Vec::with_capacity(LOG_BYTES);
    value.extend(log.base.0.to_le_bytes());
    value.extend(log.head.seq.0.to_le_bytes());
    value.extend(log.head.digest.as_bytes());
    value.extend(log.step.0.to_le_bytes());
    logs.insert(author, sealed(author, &value).as_slice())?;
    Ok(())
}

/// Bytes of where a log ends.
const LOG_BYTES: usize = 8 + 8 + 32 + 8;

fn decode_log(author: &NodeId, value: &[u8]) -> Option<StoredLog> {
    let rest = opened(author.as_bytes(), value)?;
    let (base, rest) = rest.split_first_chunk::<8>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let step = u64::from_le_bytes(rest.try_into().ok()?);
    let head = Head { seq: Seq(u64::from_le_bytes(*seq)), digest: Hash::from_bytes(*digest) };
    let base = Seq(u64::from_le_bytes(*base));
    Some(StoredLog { author: *author, base, head, step: Step(step), proof: None })
}

fn stored(
    author: NodeId,
    logs: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
) -> Result<Option<StoredLog>, Failure> {
    Ok(logs.get(author.as_bytes())?.and_then(|value| decode_log(&author, value.value())))
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

/// A database's file as it was found.
enum Whole {
    Sound(Database),
    /// Its structure is damaged, and how.
    Broken(String),
}

fn open_whole(path: &Path, mesh: MeshId) -> Result<Whole, OpenError> {
    let name = || path.display().to_string();
    let failed = |reason: String| OpenError::Failed { path: name(), reason };
    let length = fs::metadata(path).map(|file| file.len()).ok();
    if length == Some(0) {
        return Ok(Whole::Broken("it is empty".to_owned()));
    }
    let is_new = length.is_none();
    let opened =
        catch_unwind(AssertUnwindSafe(|| Database::builder().set_cache_size(CACHE_BYTES).create(path)));
    let mut database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => {
            return Err(failed("another process uses it".to_owned()));
        }
        Ok(Err(redb::DatabaseError::Storage(StorageError::Io(error))))
            if error.kind() != io::ErrorKind::InvalidData && error.kind() != io::ErrorKind::UnexpectedEof =>
        {
            return Err(failed(error.to_string()));
        }
        Ok(Err(error)) => return Ok(Whole::Broken(error.to_string())),
        Err(_) => return Ok(Whole::Broken("its pages do not fit together".to_owned())),
    };
    if !is_new {
        match catch_unwind(AssertUnwindSafe(|| database.check_integrity())) {
            Ok(Ok(true)) => {}
            // What it could not repair itself is an error.
            Ok(Ok(false)) => tracing::warn!(path = name(), "the log was damaged and has been repaired"),
            Ok(Err(error)) => {
                discard(Some(database));
                return Ok(Whole::Broken(error.to_string()));
            }
            Err(_) => {
                discard(Some(database));
                return Ok(Whole::Broken("its pages do not fit together".to_owned()));
            }
        }
    }
    let found = match guarded(|| label(&database, mesh)) {
        Ok(Ok(())) => return Ok(Whole::Sound(database)),
        Ok(Err(Mislabelled::Newer(found))) => Err(OpenError::Newer { path: name(), found }),
        Ok(Err(Mislabelled::Mesh(found))) => Err(OpenError::OtherMesh { path: name(), found, wanted: mesh }),
        Err(StoreError::Full) => Err(failed(StoreError::Full.to_string())),
        Err(error) => Ok(Whole::Broken(error.to_string())),
    };
    discard(Some(database));
    found
}

/// Why a file is not ours.
enum Mislabelled {
    Newer(u64),
    Mesh(String),
}

/// Reads whose file it is, or says so in a new one.
fn label(database: &Database, mesh: MeshId) -> Result<Result<(), Mislabelled>, Failure> {
    let write = database.begin_write()?;
    let found = {
        let mut meta = write.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value().to_vec());
        let owner = meta.get("mesh")?.map(|value| value.value().to_vec());
        let number = format.map(|bytes| bytes.try_into().map_or(u64::MAX, u64::from_le_bytes));
        match (number, owner) {
            (Some(found), _) if found > FORMAT => Err(Mislabelled::Newer(found)),
            (_, Some(owner)) if owner != mesh.as_bytes() => {
                Err(Mislabelled::Mesh(data_encoding::HEXLOWER.encode(&owner)))
            }
            _ => {
                meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
                meta.insert("mesh", mesh.as_bytes().as_slice())?;
                Ok(())
            }
        }
    };
    if found.is_ok() {
        write.open_table(RECORDS)?;
        write.open_table(LOGS)?;
        write.open_table(PROOFS)?;
        write.open_table(SNAPSHOTS)?;
        write.commit()?;
    }
    Ok(found)
}

/// Puts a broken file aside and carries over what can still be read.
fn salvage(
    path: &Path,
    mesh: MeshId,
    message_bytes_max: usize,
    reason: &str,
) -> Result<(Database, Vec<Damage>), OpenError> {
    let failed = |reason: String| OpenError::Failed { path: path.display().to_string(), reason };
    let aside = (0..)
        .map(|number: u32| path.with_extension(format!("redb.damaged-{number}")))
        .find(|aside| !aside.exists())
        .ok_or_else(|| failed("there are too many damaged files beside it".to_owned()))?;
    fs::rename(path, &aside).map_err(|error| failed(error.to_string()))?;
    let database = match open_whole(path, mesh)? {
        Whole::Sound(database) => database,
        Whole::Broken(reason) => return Err(failed(reason)),
    };
    let saved = carry_over(&aside, &database, message_bytes_max);
    let what = format!(
        "the log's file is damaged ({reason}); it was put aside as {}, {saved} records were carried over, and what is \
         missing is fetched from peers",
        aside.display()
    );
    Ok((database, vec![Damage { what, log: None }]))
}

/// Copies what can be read of a broken file, author by author as far as the log is whole. Returns how many records.
fn carry_over(broken: &Path, into: &Database, message_bytes_max: usize) -> usize {
    let opened = catch_unwind(AssertUnwindSafe(|| Database::open(broken)));
    let Ok(Ok(database)) = opened else { return 0 };
    let store =
        LogStore { path: broken.to_owned(), message_bytes_max, database: RwLock::new(Some(database)) };
    let mut saved = 0;
    for author in store.authors().unwrap_or_default() {
        let Ok(scan) = store.scan(author) else { continue };
        let mut next = scan.log.base;
        let carried = guarded(|| {
            let write = into.begin_write()?;
            {
                let mut records = write.open_table(RECORDS)?;
                let mut logs = write.open_table(LOGS)?;
                if let Some(proof) = &scan.log.proof {
                    let value = sealed(author.as_bytes(), &proof.encode());
                    write.open_table(PROOFS)?.insert(author.as_bytes(), value.as_slice())?;
                }
                put_log(&StoredLog { head: Head::EMPTY, ..scan.log.clone() }, &mut logs)?;
                while next <= scan.log.head.seq {
                    let Ok(Some(bytes)) = store.find_unchecked(author, next) else { break };
                    let envelope = Envelope::decode(&bytes, message_bytes_max).ok();
                    let Some(record) = envelope.and_then(Record::new) else { break };
                    next = record.last().saturating_add(1);
                    append(&record, &mut records, &mut logs)?;
                    saved += 1;
                }
            }
            Ok(write.commit()?)
        });
        if let Err(error) = carried {
            tracing::warn!(%author, %error, "the log could not be carried over");
        }
    }
    saved
}

impl LogStore {
    /// The record that begins at `first`, without cutting anything if it is not there.
    fn find_unchecked(&self, author: NodeId, first: Seq) -> Result<Option<Bytes>, StoreError> {
        let mut found = None;
        self.with_read(|read| {
            let records = read.open_table(RECORDS)?;
            let value = records.get((author.as_bytes(), first.0))?;
            let record = value.and_then(|value| self.record(&author, first.0, value.value()));
            found = record.map(|record| record.as_bytes().clone());
            Ok(())
        })?;
        Ok(found)
    }
}

fn copy_all(read: &ReadTransaction, into: &Database) -> Result<(), Failure> {
    let write = into.begin_write()?;
    {
        let mut records = write.open_table(RECORDS)?;
        for row in read.open_table(RECORDS)?.range::<(&[u8; 32], u64)>(..)? {
            let (key, value) = row?;
            records.insert(key.value(), value.value())?;
        }
        for table in [LOGS, PROOFS] {
            let mut copy = write.open_table(table)?;
            for row in read.open_table(table)?.range::<&[u8; 32]>(..)? {
                let (key, value) = row?;
                copy.insert(key.value(), value.value())?;
            }
        }
        for table in [META, SNAPSHOTS] {
            let mut copy = write.open_table(table)?;
            for row in read.open_table(table)?.range::<&str>(..)? {
                let (key, value) = row?;
                copy.insert(key.value(), value.value())?;
            }
        }
    }
    Ok(write.commit()?)
}

/// What redb says, in the log's words.
#[derive(Debug)]
struct Failure(StoreError);

impl From<Failure> for StoreError {
    fn from(Failure(error): Failure) -> Self {
        error
    }
}

macro_rules! failure {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::of(error.into())
            }
        })*
    };
}

failure!(StorageError, TableError, redb::TransactionError, redb::CommitError, redb::DatabaseError);

impl Failure {
    fn of(error: redb::Error) -> Self {
        Failure(match error {
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                StoreError::Full
            }
            redb::Error::Corrupted(what) => StoreError::Damaged(what),
            error => StoreError::Failed(error.to_string()),
        })
    }
}

/// A page that makes no sense makes redb panic in places: that is damage like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Damaged("its pages do not fit together".to_owned())),
    }
}

#[cfg(test)]
mod tests;
