//! Puts a backup of the log into a data directory that has none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use omnimesh_protocol::MeshId;
use redb::{Database, ReadableDatabase};

use super::guard::guarded;
use super::log::{LOG_FILE, LogStore, META, OpenError};

/// Where the copy is looked at before it counts.
const SCRATCH: &str = "restore.tmp";

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The mesh that it is of.
    pub mesh: MeshId,
    /// How many authors' logs there are.
    pub authors: usize,
    /// How many entries, truncated ones included.
    pub entries: u64,
}

/// Why a backup was not restored. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is a log already.
    #[error("{} has a log already", .0.display())]
    LogExists(PathBuf),
    /// The file cannot be read, or the data directory not be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not a log.
    #[error("{} is not a backup of a log: {reason}", path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file was a log once.
    #[error("the backup {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        what: String,
    },
    /// It is another mesh's or a later program's.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Copies a backup into a data directory that the caller holds, once every record of it has been read and found sound.
/// `mesh` is the directory's mesh, if it has one.
///
/// # Errors
/// If there is a log already, or the backup cannot be used; then nothing has changed.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    mesh: Option<MeshId>,
    message_bytes_max: usize,
) -> Result<Restored, RestoreError> {
    let target = data_dir.join(LOG_FILE);
    if fs::symlink_metadata(&target).is_ok() {
        return Err(RestoreError::LogExists(data_dir.to_owned()));
    }
    let scratch = data_dir.join(SCRATCH);
    let outcome = checked_copy(backup, &scratch, mesh, message_bytes_max).and_then(|restored| {
        let failed = |source| RestoreError::Io { action: "write", path: target.clone(), source };
        fs::rename(scratch.join(LOG_FILE), &target).map_err(failed)?;
        File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(restored)
    });
    let _ = fs::remove_dir_all(&scratch);
    outcome
}

fn checked_copy(
    backup: &Path,
    scratch: &Path,
    mesh: Option<MeshId>,
    message_bytes_max: usize,
) -> Result<Restored, RestoreError> {
    let io_error = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { action, path, source }
    };
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir(scratch).map_err(io_error("write", scratch))?;
    let copy = scratch.join(LOG_FILE);
    let mut from = File::open(backup).map_err(io_error("read", backup))?;
    let mut into = File::create_new(&copy).map_err(io_error("write", &copy))?;
    io::copy(&mut from, &mut into).map_err(io_error("copy", backup))?;
    into.sync_all().map_err(io_error("write", &copy))?;
    drop(into);
    let no_backup = |reason: String| RestoreError::NoBackup { path: backup.to_owned(), reason };
    let found = mesh_of(&copy).map_err(no_backup)?;
    let damaged = |what: String| RestoreError::Damaged { path: backup.to_owned(), what };
    let (store, opened) = LogStore::open(scratch, mesh.unwrap_or(found), message_bytes_max)?;
    if let Some(damage) = opened.damage.into_iter().next() {
        return Err(damaged(damage.what));
    }
    for log in &opened.logs {
        match store.verify(log.author) {
            Ok(None) => {}
            Ok(Some(damage)) => return Err(damaged(damage.what)),
            Err(error) => return Err(damaged(error.to_string())),
        }
    }
    let entries = opened.logs.iter().map(|log| log.head.seq.0).sum();
    Ok(Restored { mesh: found, authors: opened.logs.len(), entries })
}

/// Whose log it is.
fn mesh_of(path: &Path) -> Result<MeshId, String> {
    let found = guarded(|| {
        let database = Database::open(path).map_err(|error| error.to_string())?;
        let read = database.begin_read().map_err(|error| error.to_string())?;
        let meta = read.open_table(META).map_err(|error| error.to_string())?;
        let owner = meta.get("mesh").map_err(|error| error.to_string())?;
        let owner = owner.and_then(|owner| <[u8; 16]>::try_from(owner.value()).ok());
        owner.map(MeshId::from_bytes).ok_or_else(|| "it does not say whose log it is".to_owned())
    });
    found.flatten()
}
