//! A file whose structure is broken is put aside; and copies of a whole one.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::log::{Record, StoreError, StoredLog};
use omnimesh_protocol::{MeshId, NodeId, Seq};
use redb::{Database, ReadTransaction, WriteTransaction};

use super::super::guard::guarded;
use super::open::{Whole, open_whole};
use super::{
    CACHE_BYTES, CHECKPOINTS, CHUNKS, Damage, Failure, LOGS, Lasting, LogStore, META, OpenError, PROOFS,
    RECORDS, Row, SNAPSHOTS, attempt, put_row, sealed,
};

/// Puts a broken file aside and carries over what can still be read.
pub(super) fn salvage(
    path: &Path,
    mesh: MeshId,
    message_bytes_max: usize,
    reason: &str,
    cache_bytes: usize,
) -> Result<(Database, Vec<Damage>), OpenError> {
    let failed = |reason: String| OpenError::Failed { path: path.display().to_string(), reason };
    let aside = (0..)
        .map(|number: u32| path.with_extension(format!("redb.damaged-{number}")))
        .find(|aside| !aside.exists())
        .ok_or_else(|| failed("there are too many damaged files beside it".to_owned()))?;
    fs::rename(path, &aside).map_err(|error| failed(error.to_string()))?;
    let database = match open_whole(path, mesh, cache_bytes)? {
        Whole::Sound(database) => database,
        Whole::Broken(reason) => return Err(failed(reason)),
    };
    let saved = carry_over(&aside, &database, message_bytes_max);
    let what = format!("the log's file is damaged ({reason})");
    let mended = format!(
        "it was put aside as {}, {saved} records were carried over, and what is missing is fetched from peers",
        aside.display()
    );
    Ok((database, vec![Damage { what, mended, log: None }]))
}

/// Copies what can be read of a broken file, author by author as far as the log is whole. Returns how many records.
fn carry_over(broken: &Path, into: &Database, message_bytes_max: usize) -> usize {
    let Ok(Ok(database)) = guarded(|| Database::open(broken)) else { return 0 };
    let store = LogStore {
        message_bytes_max,
        database: Lasting::new(database, broken.to_owned(), CACHE_BYTES),
        freed: AtomicU64::new(0),
        folded: Mutex::default(),
    };
    let mut saved = 0;
    for author in store.authors().unwrap_or_default() {
        let Ok(scan) = store.scan(author) else { continue };
        let mut next = scan.log.base;
        let carried = attempt(|| {
            let write = into.begin_write()?;
            {
                let mut records = write.open_table(RECORDS)?;
                let mut logs = write.open_table(LOGS)?;
                if let Some(proof) = &scan.log.proof {
                    let value = sealed(author.as_bytes(), &proof.encode());
                    write.open_table(PROOFS)?.insert(author.as_bytes(), value.as_slice())?;
                }
                let (before, step) = scan.before;
                let log = StoredLog { head: before, step, ..scan.log.clone() };
                put_row(&Row { log, floor: (before.digest, step), reached: scan.reached }, &mut logs)?;
                while next <= scan.log.head.seq {
                    let Ok(Some(bytes)) = store.find_unchecked(author, next) else { break };
                    let envelope = Envelope::decode(&bytes, message_bytes_max).ok();
                    let Some(record) = envelope.and_then(Record::new) else { break };
                    next = record.last().saturating_add(1);
                    store.append(&record, &mut records, &mut logs)?;
                    saved += 1;
                }
            }
            Ok(write.commit()?)
        });
        if let Err(error) = carried {
            tracing::warn!(%author, %error, "the log could not be carried over");
        }
    }
    let carried = store.database.read(|read| {
        let write = into.begin_write()?;
        copy_rest(read, &write)?;
        Ok(write.commit()?)
    });
    if let Err(error) = carried {
        tracing::warn!(%error, "the checkpoints could not be carried over");
    }
    saved
}

impl LogStore {
    /// The record that begins at `first`, without cutting anything if it is not there.
    fn find_unchecked(&self, author: NodeId, first: Seq) -> Result<Option<Bytes>, StoreError> {
        let mut found = None;
        self.database.read(|read| {
            let records = read.open_table(RECORDS)?;
            let value = records.get((author.as_bytes(), first.0))?;
            let record = value.and_then(|value| self.record(&author, first.0, value.value()));
            found = record.map(|record| record.as_bytes().clone());
            Ok(())
        })?;
        Ok(found)
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
        self.database.read(|read| copy_all(read, &copy))
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
        let mut meta = write.open_table(META)?;
        for row in read.open_table(META)?.range::<&str>(..)? {
            let (key, value) = row?;
            meta.insert(key.value(), value.value())?;
        }
    }
    copy_rest(read, &write)?;
    Ok(write.commit()?)
}

/// Copies what stands for entries that are not there. What is damaged of it shows when it is opened.
fn copy_rest(read: &ReadTransaction, write: &WriteTransaction) -> Result<(), Failure> {
    let mut snapshots = write.open_table(SNAPSHOTS)?;
    for row in read.open_table(SNAPSHOTS)?.range::<&str>(..)? {
        let (key, value) = row?;
        snapshots.insert(key.value(), value.value())?;
    }
    let mut checkpoints = write.open_table(CHECKPOINTS)?;
    for row in read.open_table(CHECKPOINTS)?.range::<&[u8; 32]>(..)? {
        let (key, value) = row?;
        checkpoints.insert(key.value(), value.value())?;
    }
    let mut chunks = write.open_table(CHUNKS)?;
    for row in read.open_table(CHUNKS)?.range::<(&[u8; 32], u64, u64)>(..)? {
        let (key, value) = row?;
        chunks.insert(key.value(), value.value())?;
    }
    Ok(())
}
