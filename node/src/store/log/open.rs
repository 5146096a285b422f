//! Opening the file, and what is found in it.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::{fs, io};

use omnimesh_protocol::log::{StoreError, StoredLog};
use omnimesh_protocol::{MeshId, NodeId};
use redb::{Database, ReadableTable, StorageError};

use super::super::database::Lasting;
use super::super::guard::{discard, guarded};
use super::salvage::salvage;
use super::{
    CACHE_BYTES, CHECKPOINTS, CHUNKS, Damage, FORMAT, Failure, LOG_FILE, LOGS, LogStore, META, OpenError,
    Opened, PROOFS, RECORDS, SNAPSHOTS, attempt, decode_row,
};

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
        Self::open_within(data_dir, mesh, message_bytes_max, CACHE_BYTES)
    }

    /// The same with so many bytes of memory for pages of the database.
    ///
    /// # Errors
    /// As [`LogStore::open`].
    pub fn open_within(
        data_dir: &Path,
        mesh: MeshId,
        message_bytes_max: usize,
        cache_bytes: usize,
    ) -> Result<(Self, Opened), OpenError> {
        let path = data_dir.join(LOG_FILE);
        let (database, mut damage) = match open_whole(&path, mesh, cache_bytes)? {
            Whole::Sound(database) => (database, Vec::new()),
            Whole::Broken(reason) => salvage(&path, mesh, message_bytes_max, &reason, cache_bytes)?,
        };
        let database = Lasting::new(database, path, cache_bytes);
        let store =
            LogStore { message_bytes_max, database, freed: AtomicU64::new(0), folded: Mutex::default() };
        let failed = |error: StoreError| store.failed_to_open(&error);
        let logs = store.check_heads(&mut damage).map_err(failed)?;
        let checkpoints = store.check_checkpoints(&mut damage).map_err(failed)?;
        // If it is damaged still, there is no checkpoint to make it of.
        let base = store.base().map(|base| base.cut).unwrap_or_default();
        Ok((store, Opened { logs, damage, checkpoints, base }))
    }

    pub(super) fn failed_to_open(&self, error: &StoreError) -> OpenError {
        OpenError::Failed { path: self.path().display().to_string(), reason: error.to_string() }
    }

    /// Reads where every log ends, and whether its last record is there.
    pub(super) fn check_heads(&self, damage: &mut Vec<Damage>) -> Result<Vec<StoredLog>, StoreError> {
        let (mut logs, mut suspects) = (Vec::new(), Vec::new());
        self.database.read(|read| {
            let (table, records, proofs) =
                (read.open_table(LOGS)?, read.open_table(RECORDS)?, read.open_table(PROOFS)?);
            for row in table.range::<&[u8; 32]>(..)? {
                let (key, value) = row?;
                let author = NodeId::from_bytes(*key.value());
                let proof = proofs.get(key.value())?.map(|value| self.proof(&author, value.value()));
                let log = decode_row(&author, value.value()).map(|row| row.log);
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
}

/// A database's file as it was found.
pub(super) enum Whole {
    Sound(Database),
    /// Its structure is damaged, and how.
    Broken(String),
}

pub(super) fn open_whole(path: &Path, mesh: MeshId, cache_bytes: usize) -> Result<Whole, OpenError> {
    let name = || path.display().to_string();
    let failed = |reason: String| OpenError::Failed { path: name(), reason };
    let length = fs::metadata(path).map(|file| file.len()).ok();
    if length == Some(0) {
        return Ok(Whole::Broken("it is empty".to_owned()));
    }
    let is_new = length.is_none();
    let opened = guarded(|| Database::builder().set_cache_size(cache_bytes).create(path));
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
        Err(reason) => return Ok(Whole::Broken(reason)),
    };
    if !is_new {
        match guarded(|| database.check_integrity().map_err(|error| error.to_string())).flatten() {
            Ok(true) => {}
            // What it could not repair itself is an error.
            Ok(false) => tracing::warn!(path = name(), "the log was damaged and has been repaired"),
            Err(reason) => {
                discard(Some(database));
                return Ok(Whole::Broken(reason));
            }
        }
    }
    let found = match attempt(|| label(&database, mesh)) {
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
        write.open_table(CHECKPOINTS)?;
        write.open_table(CHUNKS)?;
        write.commit()?;
    }
    Ok(found)
}
