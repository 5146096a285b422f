//! The node's embedded store: what must survive a crash.
//!
//! One `redb` database, `node.redb` in the data directory, each write its own synced transaction: what a
//! `save_*` returned `Ok` for is there after `kill -9`. Writes are few (one in eight steps, and one in tens of
//! thousands of messages), so they are made in place on a thread that may block.

pub mod blob;
mod database;
mod guard;
pub mod log;
pub mod restore;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use omnimesh_protocol::{Seq, Step};
use redb::{Database, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use database::{Failure, Lasting};
use guard::{discard, guarded};

/// The database's file in the data directory.
pub const STORE_FILE: &str = "node.redb";

/// Memory for its pages: it is small. A guess.
const CACHE_BYTES: usize = 1 << 20;

/// One table of small documents, CBOR by name.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// What the observer keeps: evidence, quarantines, pardons.
const OBSERVER: TableDefinition<&[u8], &[u8]> = TableDefinition::new("observer");
const SEQ: &str = "seq_reserved";
const MARK: &str = "step_mark";
const OFFSET: &str = "clock_offset";
const BOOK: &str = "address_book";
const TELEMETRY: &str = "telemetry";

/// How far this node had come in the mesh's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMark {
    /// A step that this node had.
    pub step: Step,
    /// The last step of which it may have accepted messages.
    pub accepted: Step,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("cannot open the store {path}: {reason}")]
    Open {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// It is not what was written.
    #[error("the store {path} is damaged: {reason}")]
    Damaged {
        /// Which file.
        path: String,
        /// How.
        reason: String,
    },
    /// It cannot be read or written.
    #[error("cannot {operation} `{what}` in the store: {reason}")]
    Access {
        /// `read` or `write`.
        operation: &'static str,
        /// Which document.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// An open store. Share it by reference or `Arc`; methods block for a disk's sync.
#[derive(Debug)]
pub struct Store {
    database: Lasting,
}

impl Store {
    /// Opens the store in a data directory, or makes it. Who holds the directory's lock is its only user.
    ///
    /// # Errors
    /// If the file cannot be opened, is no store, or is damaged: a sequence number that is lower than it was would have
    /// the node use it twice.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(STORE_FILE);
        let error = |reason: String| StoreError::Open { path: path.display().to_string(), reason };
        let damaged =
            |reason: &str| StoreError::Damaged { path: path.display().to_string(), reason: reason.into() };
        let length = path.metadata().map(|file| file.len()).ok();
        if length == Some(0) {
            return Err(damaged("it is empty"));
        }
        let failed = |failed: redb::Error| match failed {
            redb::Error::Corrupted(reason) => damaged(&reason),
            failed => error(failed.to_string()),
        };
        let created = guarded(|| Database::builder().set_cache_size(CACHE_BYTES).create(&path))
            .map_err(|reason| damaged(&reason))?;
        let mut database = created.map_err(|error| failed(error.into()))?;
        let checked = guarded(|| -> Result<bool, redb::Error> {
            let is_whole = length.is_none() || database.check_integrity()?;
            let write = database.begin_write()?;
            write.open_table(STATE)?;
            write.commit()?;
            Ok(is_whole)
        });
        let trouble = match checked {
            Ok(Ok(true)) => return Ok(Store { database: Lasting::new(database, path, CACHE_BYTES) }),
            Ok(Ok(false)) => damaged("its checksums do not fit"),
            Ok(Err(error)) => failed(error),
            Err(reason) => damaged(&reason),
        };
        discard(Some(database));
        Err(trouble)
    }

    /// The first sequence number that was never reserved; 1 for a new key.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn seq_reserved(&self) -> Result<Seq, StoreError> {
        Ok(self.read(SEQ)?.unwrap_or(Seq(1)))
    }

    /// Reserves the sequence numbers below `up_to`.
    ///
    /// # Errors
    /// If it cannot be written; then none of them may be used.
    pub fn save_seq_reserved(&self, up_to: Seq) -> Result<(), StoreError> {
        self.write(SEQ, &up_to)
    }

    /// How far an earlier run had come; `None` if there was none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn step_mark(&self) -> Result<Option<StepMark>, StoreError> {
        self.read(MARK)
    }

    /// Writes down how far this run has come.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_step_mark(&self, mark: StepMark) -> Result<(), StoreError> {
        self.write(MARK, &mark)
    }

    /// The clock's offset that an earlier run left.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn clock_offset<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        self.read(OFFSET)
    }

    /// Keeps the clock's offset.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_clock_offset<T: Serialize>(&self, offset: &T) -> Result<(), StoreError> {
        self.write(OFFSET, offset)
    }

    /// The address book that an earlier run left.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn address_book<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        self.read(BOOK)
    }

    /// Keeps the address book.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_address_book<T: Serialize>(&self, book: &T) -> Result<(), StoreError> {
        self.write(BOOK, book)
    }

    /// What telemetry of an earlier run left.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn telemetry<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        self.read(TELEMETRY)
    }

    /// Keeps what telemetry wants kept.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_telemetry<T: Serialize>(&self, kept: &T) -> Result<(), StoreError> {
        self.write(TELEMETRY, kept)
    }

    /// What the observer of an earlier run left.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn observer_entries(&self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read_with("observer", |read| {
            let table = match read.open_table(OBSERVER) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let entry = |entry: Result<_, redb::StorageError>| {
                let (key, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) = entry?;
                Ok((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
            };
            table.iter()?.map(entry).collect()
        })
    }

    /// Keeps what the observer wants kept, in one transaction; without a value: keeps it no longer.
    ///
    /// # Errors
    /// If it cannot be written; then nothing has changed.
    pub fn save_observer(&self, changes: &BTreeMap<Bytes, Option<Bytes>>) -> Result<(), StoreError> {
        self.write_with("observer", |write| {
            let mut table = write.open_table(OBSERVER)?;
            for (key, value) in changes {
                match value {
                    Some(value) => table.insert(key.as_ref(), value.as_ref())?,
                    None => table.remove(key.as_ref())?,
                };
            }
            Ok(())
        })
    }

    fn read<T: DeserializeOwned>(&self, what: &'static str) -> Result<Option<T>, StoreError> {
        let bytes = self.read_with(what, |read| {
            Ok(read.open_table(STATE)?.get(what)?.map(|bytes| bytes.value().to_vec()))
        })?;
        let read = |bytes: Vec<u8>| serde_cbor::from_slice(&bytes);
        bytes.map(read).transpose().map_err(|error| failed("read", what, &error))
    }

    fn write<T: Serialize>(&self, what: &'static str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_cbor::to_vec(value).map_err(|error| failed("write", what, &error))?;
        self.write_with(what, |write| {
            write.open_table(STATE)?.insert(what, bytes.as_slice())?;
            Ok(())
        })
    }

    fn read_with<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.database.read(work).map_err(|error| failed("read", what, &error))
    }

    fn write_with(
        &self,
        what: &'static str,
        work: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<(), StoreError> {
        self.database.write(work).map_err(|error| failed("write", what, &error))
    }
}

fn failed(operation: &'static str, what: &'static str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Access { operation, what, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let mark = StepMark { step: Step(7), accepted: Step(20) };
        {
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(store.seq_reserved().unwrap(), Seq(1));
            assert_eq!(store.step_mark().unwrap(), None);
            store.save_seq_reserved(Seq(65_537)).unwrap();
            store.save_step_mark(mark).unwrap();
            store.save_address_book(&vec!["a".to_owned()]).unwrap();
            assert_eq!(store.observer_entries().unwrap(), []);
            let key = |key| Bytes::from_static(key);
            let both = [(key(b"a"), Some(key(b"1"))), (key(b"b"), Some(key(b"2")))];
            store.save_observer(&both.into()).unwrap();
            store.save_observer(&[(key(b"a"), None)].into()).unwrap();
        }
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.seq_reserved().unwrap(), Seq(65_537));
        assert_eq!(store.step_mark().unwrap(), Some(mark));
        assert_eq!(store.observer_entries().unwrap(), [(Bytes::from_static(b"b"), Bytes::from_static(b"2"))]);
        assert_eq!(store.address_book::<Vec<String>>().unwrap(), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn a_file_that_is_no_store_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(STORE_FILE), b"not a database at all, but some text").unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Open { .. })));
    }
}
