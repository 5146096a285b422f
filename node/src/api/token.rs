//! The API token: who holds it may operate the node.
//!
//! It is kept in a file in the data directory that only the owner can read, made at the first start from 32
//! bytes of the operating system's randomness, in hex. An operator may put another in its place.

use std::path::Path;

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::data_dir::{DataDirError, read_secret, write_secret};

/// The shortest token that is taken: what can be guessed is no token.
pub const TOKEN_CHARS_MIN: usize = 32;
/// The longest token that is taken: it has to fit into a header.
pub const TOKEN_CHARS_MAX: usize = 1024;

/// The API token. Compared in constant time, never printed, wiped when dropped.
#[derive(Clone)]
pub struct ApiToken(Zeroizing<String>);

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(secret)")
    }
}

impl ApiToken {
    /// A new one.
    ///
    /// # Errors
    /// [`DataDirError::Randomness`] if the operating system gives none.
    pub fn generate() -> Result<Self, DataDirError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(DataDirError::Randomness)?;
        Ok(ApiToken(Zeroizing::new(HEXLOWER.encode(&*bytes))))
    }

    /// The token in a file; `None` if there is no such file.
    ///
    /// # Errors
    /// [`DataDirError::Exposed`] if others can read it, [`DataDirError::Damaged`] if it holds something else.
    pub fn read(path: &Path) -> Result<Option<Self>, DataDirError> {
        let Some(text) = read_secret(path)? else { return Ok(None) };
        let token = text.trim();
        if (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Ok(Some(ApiToken(Zeroizing::new(token.to_owned()))));
        }
        Err(DataDirError::Damaged {
            path: path.to_owned(),
            detail: format!(
                "an API token is {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} letters, digits or punctuation on one line"
            ),
        })
    }

    /// The token in a file, which is made if it is missing. The caller holds the data directory's lock.
    ///
    /// # Errors
    /// As [`ApiToken::read`]; or the file cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, DataDirError> {
        if let Some(token) = Self::read(path)? {
            return Ok(token);
        }
        let token = Self::generate()?;
        write_secret(path, Zeroizing::new(format!("{}\n", token.0.as_str())).as_bytes())?;
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
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::data_dir::API_TOKEN_FILE;

    #[test]
    fn it_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_TOKEN_FILE);
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
        let path = dir.path().join(API_TOKEN_FILE);
        drop(ApiToken::load_or_create(&path).unwrap());
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = ApiToken::load_or_create(&path).unwrap_err();
            assert!(matches!(error, DataDirError::Exposed { mode: m, .. } if m == mode), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_TOKEN_FILE);
        let long = "x".repeat(TOKEN_CHARS_MAX + 1);
        let gap = format!("{} {}", "x".repeat(20), "x".repeat(20));
        for text in ["", "\n", "short", &long, &gap, "ü".repeat(40).as_str()] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = ApiToken::load_or_create(&path).unwrap_err();
            assert!(matches!(error, DataDirError::Damaged { .. }), "{text:?}: {error}");
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(matches!(ApiToken::read(&path), Err(DataDirError::Damaged { .. })));
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
