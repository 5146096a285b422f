//! The data directory: who the node is and which mesh it belongs to.
//!
//! ```text
//! <data-dir>/             mode 0700
//!   lock                  held while a process uses the directory; holds its process id
//!   identity              the Ed25519 seed, 64 hexadecimal digits, mode 0600
//!   mesh.toml             name, secret and bootstrap addresses of the mesh, mode 0600
//!   api-address           host:port of the running node's API
//!   api-token             the token of that API, mode 0600
//! ```
//!
//! Files are replaced as a whole (write beside, fsync, rename, fsync the directory), so that a crash at any
//! moment leaves the old or the new one. Secrets that others could read are refused, not repaired: they
//! may have been read.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use omnimesh_protocol::Identity;
use omnimesh_protocol::config::SecretHex;
use omnimesh_protocol::mesh::{Mesh, MeshNameError, MeshSecret};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::store::log::LOG_FILE;

/// The file in which the node leaves the address of its API.
pub const API_ADDRESS_FILE: &str = "api-address";
/// The file in which the node leaves the token of its API.
pub const API_TOKEN_FILE: &str = "api-token";

/// The file with the seed of the node's key.
pub const IDENTITY_FILE: &str = "identity";
/// The file with the mesh's name and secret.
pub const MESH_FILE: &str = "mesh.toml";
const LOCK_FILE: &str = "lock";

/// Longest file that is read here, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Something about the data directory is not as it must be. Each message says what; [`DataDirError::hint`]
/// says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("data directory {} is in use by another process{}", path.display(), pid.as_ref().map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it can be told.
        pid: Option<String>,
    },
    /// A secret is not kept.
    #[error("{} is readable by others (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong; shows nothing of a secret.
        detail: String,
    },
    /// There is an identity already.
    #[error("there is an identity in {} already", path.display())]
    IdentityExists {
        /// The file.
        path: PathBuf,
    },
    /// The directory belongs to another mesh than the one asked for.
    #[error(
        "the data directory belongs to mesh {stored:?} (id {stored_id}), not to mesh {wanted:?} (id {wanted_id}) that was asked for"
    )]
    OtherMesh {
        /// The name of the mesh in the directory.
        stored: String,
        /// Its id.
        stored_id: String,
        /// The name of the mesh asked for.
        wanted: String,
        /// Its id.
        wanted_id: String,
        /// The mesh file.
        path: PathBuf,
    },
    /// The directory has a log, but does not say of which mesh, as after a restore.
    #[error("there is a log in {}, but no {MESH_FILE} that says of which mesh it is", path.display())]
    MeshUnknown {
        /// The directory.
        path: PathBuf,
    },
    /// A mesh cannot have that name.
    #[error(transparent)]
    Name(#[from] MeshNameError),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Randomness(getrandom::Error),
}

impl DataDirError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            DataDirError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room on that disk".to_owned())
            }
            DataDirError::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("give the owner of this process the right to {}", path.display()))
            }
            DataDirError::Io { .. } => Some("check that path, and the disk that it is on".to_owned()),
            DataDirError::Randomness(_) => None,
            DataDirError::InUse { .. } => {
                Some("stop that node first, or give this one its own with --data-dir".to_owned())
            }
            DataDirError::Exposed { path, .. } => Some(format!(
                "run `chmod 600 {0}`; if somebody else may have read it, delete it instead and start anew",
                path.display()
            )),
            DataDirError::Damaged { path, .. } => {
                Some(format!("restore {} from a backup, or delete it and start anew", path.display()))
            }
            DataDirError::IdentityExists { path } => {
                Some(format!("use another --data-dir, or move {} away first", path.display()))
            }
            DataDirError::OtherMesh { path, .. } => Some(format!(
                "use another --data-dir for the new mesh, or delete {} to leave the old one",
                path.display()
            )),
            DataDirError::MeshUnknown { path } => Some(format!(
                "copy the {MESH_FILE} that was beside the log into {}, or start with an invite of its mesh; to found a new mesh, \
                 move {LOG_FILE} away",
                path.display()
            )),
            DataDirError::Name(_) => Some("choose another name".to_owned()),
        }
    }
}

/// A mesh as the directory remembers it.
#[derive(Clone, Debug)]
pub struct StoredMesh {
    /// The mesh.
    pub mesh: Mesh,
    /// The addresses that came with its invite.
    pub bootstrap: Vec<String>,
}

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Unlocks when closed.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if there is none, and locks it.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] if another process has it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| io_error("create", path, source))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| io_error("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse { path: path.to_owned(), pid: read_pid(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &lock_path, source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(|source| io_error("write", &lock_path, source))?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's identity; made and stored if there is none. True if it was made now.
    ///
    /// # Errors
    /// [`DataDirError::Exposed`] if others could read it.
    pub fn identity(&self) -> Result<(Identity, bool), DataDirError> {
        match read_identity(&self.path)? {
            Some(identity) => Ok((identity, false)),
            None => Ok((self.create_identity()?, true)),
        }
    }

    /// Makes and stores an identity where there is none.
    ///
    /// # Errors
    /// [`DataDirError::IdentityExists`] if there is one.
    pub fn create_identity(&self) -> Result<Identity, DataDirError> {
        let path = self.path.join(IDENTITY_FILE);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(DataDirError::IdentityExists { path });
        }
        let seed = random_bytes()?;
        let mut text = Zeroizing::new(HEXLOWER.encode(seed.as_slice()));
        text.push('\n');
        write_secret(&path, text.as_bytes())?;
        Ok(Identity::from_seed(&seed))
    }

    /// The mesh to take part in: the one that is stored, else the one that is `wanted`, else a new one called
    /// `name`. What was not stored yet is, with the bootstrap addresses.
    ///
    /// # Errors
    /// [`DataDirError::OtherMesh`] if one is stored and another one is wanted.
    pub fn mesh(&self, wanted: Option<&StoredMesh>, name: &str) -> Result<StoredMesh, DataDirError> {
        let path = self.path.join(MESH_FILE);
        let stored = read_mesh(&self.path)?;
        let chosen = match (stored, wanted) {
            (Some(stored), None) => return Ok(stored),
            (Some(stored), Some(wanted)) if stored.mesh != wanted.mesh => {
                return Err(DataDirError::OtherMesh {
                    stored: stored.mesh.name().to_owned(),
                    stored_id: stored.mesh.id().to_string(),
                    wanted: wanted.mesh.name().to_owned(),
                    wanted_id: wanted.mesh.id().to_string(),
                    path,
                });
            }
            (Some(stored), Some(wanted))
                if wanted.bootstrap.is_empty() || wanted.bootstrap == stored.bootstrap =>
            {
                return Ok(stored);
            }
            (_, Some(wanted)) => wanted.clone(),
            (None, None) if self.path.join(LOG_FILE).exists() => {
                return Err(DataDirError::MeshUnknown { path: self.path.clone() });
            }
            (None, None) => StoredMesh {
                mesh: Mesh::new(name, MeshSecret::from_bytes(*random_bytes()?))?,
                bootstrap: Vec::new(),
            },
        };
        let wire = MeshFile {
            name: chosen.mesh.name().to_owned(),
            secret: SecretHex::from(chosen.mesh.secret()),
            bootstrap: chosen.bootstrap.clone(),
        };
        let text = Zeroizing::new(toml::to_string(&wire).expect("strings always encode"));
        write_secret(&path, text.as_bytes())?;
        Ok(chosen)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshFile {
    name: String,
    secret: SecretHex,
    #[serde(default)]
    bootstrap: Vec<String>,
}

/// Where the data is unless told otherwise: `$XDG_DATA_HOME/omnimesh`, else `~/.local/share/omnimesh`; `None`
/// if neither variable is set.
pub fn default_path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("omnimesh"))
}

/// The process that holds the directory, if any does. Does not wait and leaves no trace.
pub fn holder(path: &Path) -> Option<String> {
    let mut lock = File::open(path.join(LOCK_FILE)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_pid(&mut lock).unwrap_or_else(|| "unknown".to_owned())),
        _ => None,
    }
}

/// The identity in the directory; `None` if there is none.
///
/// # Errors
/// [`DataDirError::Exposed`] if others can read it, [`DataDirError::Damaged`] if it is none.
pub fn read_identity(dir: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = dir.join(IDENTITY_FILE);
    let Some(text) = read_secret(&path)? else { return Ok(None) };
    let mut bytes = HEXLOWER.decode(text.trim().as_bytes()).unwrap_or_default();
    let seed = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    bytes.zeroize();
    let seed =
        seed.map_err(|_| DataDirError::Damaged { path, detail: "not 64 hexadecimal digits".to_owned() })?;
    Ok(Some(Identity::from_seed(&seed)))
}

/// The mesh in the directory; `None` if there is none.
///
/// # Errors
/// As [`read_identity`].
pub fn read_mesh(dir: &Path) -> Result<Option<StoredMesh>, DataDirError> {
    let path = dir.join(MESH_FILE);
    let Some(text) = read_secret(&path)? else { return Ok(None) };
    let damaged = |detail: String| DataDirError::Damaged { path: path.clone(), detail };
    // The parser's own display would quote the line, and with it the secret.
    let file: MeshFile = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
    let secret =
        file.secret.decode().ok_or_else(|| damaged("secret is not 64 hexadecimal digits".to_owned()))?;
    let mesh = Mesh::new(&file.name, secret).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(StoredMesh { mesh, bootstrap: file.bootstrap }))
}

/// The text of a file that only its owner may read; `None` if there is no such file.
///
/// # Errors
/// [`DataDirError::Exposed`] if the group or others have any right to it.
pub fn read_secret(path: &Path) -> Result<Option<Zeroizing<String>>, DataDirError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", path, source)),
    };
    let mode = file.metadata().map_err(|source| io_error("read", path, source))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DataDirError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|source| io_error("read", path, source))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| DataDirError::Damaged {
        path: path.to_owned(),
        detail: "it is binary, not text".to_owned(),
    })?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Writes a file that only its owner may read, as a whole or not at all.
///
/// # Errors
/// As the operating system says.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), DataDirError> {
    write_atomic(path, content, 0o600)
}

/// Writes a file as a whole or not at all, and returns when it is on the disk.
///
/// # Errors
/// As the operating system says.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), DataDirError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || {
        // What a crash left there may have another mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|source| io_error("write", path, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io { action, path: path.to_owned(), source }
}

fn read_pid(lock: &mut File) -> Option<String> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())).then(|| pid.to_owned())
}

fn random_bytes() -> Result<Zeroizing<[u8; 32]>, DataDirError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(DataDirError::Randomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_is_made_once_and_kept_secret() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let id = {
            let dir = DataDir::open(&path).unwrap();
            let (identity, is_new) = dir.identity().unwrap();
            assert!(is_new);
            let id = identity.id();
            let (again, is_new) = dir.identity().unwrap();
            assert_eq!((again.id(), is_new), (id, false));
            assert!(matches!(dir.create_identity(), Err(DataDirError::IdentityExists { .. })));
            id
        };
        assert_eq!(read_identity(&path).unwrap().unwrap().id(), id);
        assert_eq!((mode(&path), mode(&path.join("identity"))), (0o700, 0o600));

        fs::set_permissions(path.join("identity"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_identity(&path).unwrap_err();
        assert!(error.to_string().ends_with("is readable by others (mode 640)"), "{error}");
        assert!(error.hint().unwrap().contains("chmod 600"));
    }

    #[test]
    fn a_damaged_identity_is_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        write_secret(&temp.path().join("identity"), b"abc").unwrap();
        assert!(matches!(dir.identity(), Err(DataDirError::Damaged { .. })));
    }

    #[test]
    fn a_log_of_an_unknown_mesh_is_no_new_mesh() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        fs::write(temp.path().join(LOG_FILE), "a log").unwrap();
        let error = dir.mesh(None, "new").unwrap_err();
        assert!(matches!(error, DataDirError::MeshUnknown { .. }), "{error}");
        assert!(!temp.path().join(MESH_FILE).exists());
        assert!(error.hint().unwrap().contains("invite"));
        let known = StoredMesh {
            mesh: Mesh::new("old", MeshSecret::from_bytes([1; 32])).unwrap(),
            bootstrap: vec![],
        };
        dir.mesh(Some(&known), "new").unwrap();
        dir.mesh(None, "new").unwrap();
    }

    #[test]
    fn a_directory_has_one_user() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(holder(temp.path()), None);
        let dir = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        let pid = std::process::id().to_string();
        assert!(error.to_string().contains(&format!("in use by another process (pid {pid})")), "{error}");
        assert_eq!(holder(temp.path()), Some(pid));
        drop(dir);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn the_mesh_is_founded_kept_and_not_changed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let founded = dir.mesh(None, "home").unwrap();
        assert_eq!(founded.mesh.name(), "home");
        assert_eq!(dir.mesh(None, "other name").unwrap().mesh, founded.mesh);
        assert_eq!(mode(&temp.path().join("mesh.toml")), 0o600);

        // The same mesh with new addresses: they are taken over.
        let again = StoredMesh { mesh: founded.mesh.clone(), bootstrap: vec!["/x".into()] };
        dir.mesh(Some(&again), "").unwrap();
        assert_eq!(read_mesh(temp.path()).unwrap().unwrap().bootstrap, ["/x"]);
        let without = StoredMesh { mesh: founded.mesh, bootstrap: vec![] };
        assert_eq!(dir.mesh(Some(&without), "").unwrap().bootstrap, ["/x"]);

        let other = StoredMesh { mesh: Mesh::open("demo").unwrap(), bootstrap: vec![] };
        let error = dir.mesh(Some(&other), "").unwrap_err();
        assert!(error.to_string().contains("belongs to mesh \"home\""), "{error}");
        assert!(error.hint().unwrap().contains("mesh.toml"));
    }

    #[test]
    fn a_damaged_mesh_file_shows_no_secret() {
        let temp = tempfile::tempdir().unwrap();
        let secret = "ab".repeat(32);
        for text in [
            format!("name = \"a\"\nsecret = \"{secret}\"\nmore = 1\n"),
            format!("name = \"a\"\nsecret = \"{secret}\n"),
            format!("name = \"a\"\nsecret = \"{secret}ab\"\n"),
        ] {
            write_secret(&temp.path().join("mesh.toml"), text.as_bytes()).unwrap();
            let error = read_mesh(temp.path()).unwrap_err().to_string();
            assert!(error.contains("is damaged") && !error.contains("abab"), "{error}");
        }
    }
}
