//! The API token: who holds it may operate the node.
//!
//! It is kept in a file in the data directory that only the owner can read, made at the first start from 32
//! bytes of the operating system's randomness, in hex. An operator may put another in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// The name of the token file in the data directory.
pub const TOKEN_FILE: &str = "api-token";
/// The shortest token that is taken: what can be guessed is no token.
pub const TOKEN_CHARS_MIN: usize = 32;
/// The longest token that is taken; bounds what is read of a file that is something else.
pub const TOKEN_CHARS_MAX: usize = 1024;

/// The API token. Compared in constant time, never printed, wiped when dropped.
#[derive(Clone)]
pub struct ApiToken(Zeroizing<String>);

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(secret)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the API token {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the API token {path}: {error}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Others could have read it.
    #[error(
        "the API token {path} can be read by others (mode {mode:04o}): delete it, for others may know it, and \
         the node makes a new one at its next start; or `chmod 600` it, if it is not known to others",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What is in the file is no token.
    #[error(
        "{path} holds no API token ({TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} letters, digits or punctuation on one \
         line): delete it, and the node makes a new one at its next start",
        path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
}

impl ApiToken {
    /// A new one.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(TokenError::Random)?;
        Ok(ApiToken(Zeroizing::new(HEXLOWER.encode(&*bytes))))
    }

    /// The token in a file.
    ///
    /// # Errors
    /// The file cannot be read, can be read by others, or holds something else.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let read_error = |error| TokenError::Read { path: path.to_owned(), error };
        let file = File::open(path).map_err(read_error)?;
        check_mode(path, &file.metadata().map_err(read_error)?)?;
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS_MAX + 2));
        let limit = u64::try_from(TOKEN_CHARS_MAX + 2).unwrap_or(u64::MAX);
        file.take(limit).read_to_string(&mut text).map_err(read_error)?;
        let token = Zeroizing::new(text.trim().to_owned());
        if (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            Ok(ApiToken(token))
        } else {
            Err(TokenError::Malformed { path: path.to_owned() })
        }
    }

    /// The token in a file, which is made if it is missing. The caller holds the data directory's lock.
    ///
    /// # Errors
    /// As [`ApiToken::read`]; or the file cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        match Self::read(path) {
            Err(TokenError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let token = Self::generate()?;
        token.write(path).map_err(|error| TokenError::Write { path: path.to_owned(), error })?;
        Ok(token)
    }

    /// The value of an `Authorization` header that carries it.
    pub fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.0.as_str()))
    }

    /// Whether the value of an `Authorization` header carries it.
    pub fn is_carried_by(&self, authorization: &[u8]) -> bool {
        let Some((scheme, given)) = authorization.split_at_checked(7) else { return false };
        // The length of a token is no secret; its bytes are.
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.trim_ascii().ct_eq(self.0.as_bytes()))
    }

    /// Writes a whole file or none: into a file beside it, which then takes its name.
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        let mut line = format!("{}\n", self.0.as_str());
        let written = file.write_all(line.as_bytes());
        line.zeroize();
        written?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), TokenError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(TokenError::Exposed { path: path.to_owned(), mode }) }
}

/// Elsewhere the directory's access list is what protects the file.
#[cfg(not(unix))]
fn check_mode(_path: &Path, _metadata: &fs::Metadata) -> Result<(), TokenError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN_FILE);
        let first = ApiToken::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap().trim_end().len(), 64);
        let second = ApiToken::load_or_create(&path).unwrap();
        assert!(second.is_carried_by(first.bearer().as_bytes()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let other = ApiToken::generate().unwrap();
        assert!(!other.is_carried_by(first.bearer().as_bytes()));
        assert!(!format!("{first:?}").contains(first.0.as_str()));
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN_FILE);
        drop(ApiToken::load_or_create(&path).unwrap());
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = ApiToken::load_or_create(&path).unwrap_err();
            assert!(matches!(error, TokenError::Exposed { mode: m, .. } if m == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN_FILE);
        let long = "x".repeat(TOKEN_CHARS_MAX + 1);
        let gap = format!("{} {}", "x".repeat(20), "x".repeat(20));
        for text in ["", "\n", "short", &long, &gap, "ü".repeat(40).as_str()] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = ApiToken::load_or_create(&path).unwrap_err();
            assert!(matches!(error, TokenError::Malformed { .. }), "{text:?}: {error}");
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(matches!(ApiToken::read(&path), Err(TokenError::Read { .. })));
    }

    #[test]
    fn only_the_whole_token_is_taken() {
        let token = ApiToken::generate().unwrap();
        let text = token.0.as_str();
        assert!(token.is_carried_by(format!("bearer  {text} ").as_bytes()));
        for wrong in ["", "Bearer", "Bearer ", text, &format!("Basic  {text}"), &format!("Bearer {text}0")] {
            assert!(!token.is_carried_by(wrong.as_bytes()), "{wrong}");
        }
        for end in 0..text.len() {
            assert!(!token.is_carried_by(format!("Bearer {}", &text[..end]).as_bytes()), "{end}");
        }
    }
}
