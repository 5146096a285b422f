//! Keys for `encrypt` and `decrypt`: files of the data directory, by name. They never leave the node.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use omnimesh_protocol::compute::job::is_name;
use zeroize::{Zeroize, Zeroizing};

use super::task::Keys;

/// Where they are in the data directory: `NAME.key` has the key NAME, as 64 hexadecimal digits.
pub const KEY_DIR: &str = "keys";

/// The keys of a data directory. Each is read when it is used, so that adding one needs no restart.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    dir: PathBuf,
}

impl KeyFiles {
    /// Those of this data directory.
    pub fn new(data_dir: &Path) -> Self {
        KeyFiles { dir: data_dir.join(KEY_DIR) }
    }
}

impl Keys for KeyFiles {
    fn key(&self, name: &str) -> Option<Zeroizing<[u8; 32]>> {
        // Without a separator in it, and not of dots alone: it stays in the directory.
        if !is_name(name) || name.chars().all(|character| character == '.') {
            return None;
        }
        let mut text = std::fs::read_to_string(self.dir.join(format!("{name}.key"))).ok()?;
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok().map(Zeroizing::new);
        text.zeroize();
        let key = <[u8; 32]>::try_from(bytes?.as_slice()).ok();
        if key.is_none() {
            tracing::warn!(name, "a key of compute is not 64 hexadecimal digits");
        }
        key.map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_by_name_and_nothing_else_is() {
        let data = tempfile::tempdir().unwrap();
        let keys = KeyFiles::new(data.path());
        assert!(keys.key("backup").is_none());
        std::fs::create_dir(data.path().join(KEY_DIR)).unwrap();
        std::fs::write(data.path().join("keys/backup.key"), format!("{}\n", "0a".repeat(32))).unwrap();
        std::fs::write(data.path().join("keys/short.key"), "0a0a").unwrap();
        std::fs::write(data.path().join("secret.key"), "0b".repeat(32)).unwrap();
        assert_eq!(*keys.key("backup").unwrap(), [10; 32]);
        for name in ["short", "../secret", "..", "", "back/up", "BACKUP"] {
            assert!(keys.key(name).is_none(), "{name}");
        }
    }
}
