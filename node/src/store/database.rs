//! A database that outlives a disk which failed once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use omnimesh_protocol::log::StoreError;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::guard::{discard, guarded};

/// What redb says, in the protocol's words.
#[derive(Debug)]
pub(super) struct Failure(pub(super) StoreError);

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

failure!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError
);

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

/// Does something with a database.
pub(super) fn attempt<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
    Ok(guarded(work).map_err(StoreError::Damaged)??)
}

/// A database in a file. After a write that failed redb does nothing more by itself, so the file is opened anew by whoever
/// needs it next.
#[derive(Debug)]
pub(super) struct Lasting {
    path: PathBuf,
    /// Memory for its pages.
    cache_bytes: usize,
    /// `None` after a write has failed.
    database: RwLock<Option<Database>>,
}

impl Lasting {
    pub(super) fn new(database: Database, path: PathBuf, cache_bytes: usize) -> Self {
        Lasting { path, cache_bytes, database: RwLock::new(Some(database)) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads; also while nothing can be written.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Writes all of it or nothing, and has it on disk.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let written = self.with(|database| {
            let write = database.begin_write()?;
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        });
        if written.is_err() {
            let broken = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
            discard(broken);
        }
        written
    }

    /// Makes the file smaller; `None` if somebody uses it at this moment.
    pub(super) fn compact(&self) -> Option<Result<(), StoreError>> {
        let mut database = self.database.try_write().ok()?;
        let open = database.as_mut()?;
        let done = attempt(|| Ok(open.compact()?));
        if done.is_err() {
            discard(database.take());
        }
        Some(done.map(|_| ()))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.reopen()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(StoreError::Failed("an earlier write failed".to_owned()));
        };
        attempt(|| work(database))
    }

    /// Opens the file anew after a write has failed.
    fn reopen(&self) -> Result<(), StoreError> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            let open = || Ok(Database::builder().set_cache_size(self.cache_bytes).open(&self.path)?);
            *database = Some(attempt(open)?);
        }
        Ok(())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        discard(self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    const TABLE: TableDefinition<'_, u8, u8> = TableDefinition::new("table");

    #[test]
    fn after_a_write_that_failed_the_next_one_works() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.redb");
        let database = Lasting::new(Database::create(&path).unwrap(), path, 1 << 20);
        let put = |key: u8, then: Result<(), Failure>| {
            database.write(|write| {
                write.open_table(TABLE)?.insert(key, key)?;
                then
            })
        };
        put(1, Ok(())).unwrap();
        assert_eq!(put(2, Err(Failure(StoreError::Full))), Err(StoreError::Full));
        put(3, Ok(())).unwrap();
        let keys = database.read(|read| {
            let mut keys = Vec::new();
            for row in read.open_table(TABLE)?.range::<u8>(..)? {
                keys.push(row?.0.value());
            }
            Ok(keys)
        });
        assert_eq!(keys, Ok(vec![1, 3]), "nothing of what failed, all of the rest");
    }
}
