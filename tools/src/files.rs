//! Files that a command line names. They are read no further than they may be long, since a name can lead to a device or a
//! pipe that never ends.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::{CliError, Code};

/// The bytes of a file; `remedy` says what to do about one of more than `bytes_max`.
pub(crate) fn bytes(path: &Path, bytes_max: u64, remedy: &str) -> Result<Vec<u8>, CliError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| cannot_read(&name, &error))?;
    bytes_from(&name, file, bytes_max, remedy)
}

/// The same of what is open already. `name` is what messages call it.
pub(crate) fn bytes_from(
    name: &str,
    from: impl Read,
    bytes_max: u64,
    remedy: &str,
) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    from.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(name, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(
            CliError::new(Code::Refused, format!("{name} has more than {bytes_max} bytes")).hint(remedy)
        );
    }
    Ok(bytes)
}

/// The text of a file.
pub(crate) fn text(path: &Path, bytes_max: u64, remedy: &str) -> Result<String, CliError> {
    text_of(&path.display().to_string(), bytes(path, bytes_max, remedy)?)
}

/// The text of what is open already.
pub(crate) fn text_from(
    name: &str,
    from: impl Read,
    bytes_max: u64,
    remedy: &str,
) -> Result<String, CliError> {
    text_of(name, bytes_from(name, from, bytes_max, remedy)?)
}

fn text_of(name: &str, bytes: Vec<u8>) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|error| {
        let message = format!("{name} is no text: {}", error.utf8_error());
        CliError::new(Code::ConfigInvalid, message).hint("save it as UTF-8, or name another file")
    })
}

/// Why a file cannot be read. One that is not there is not found, whatever it was to be.
pub(crate) fn cannot_read(name: &str, error: &io::Error) -> CliError {
    let (code, hint) = match error.kind() {
        io::ErrorKind::NotFound => (Code::NotFound, "check the path"),
        io::ErrorKind::PermissionDenied => (Code::Failed, "give yourself the right to read it"),
        io::ErrorKind::IsADirectory => (Code::Failed, "name a file in it"),
        _ => (Code::Failed, "check the path, and the disk that it is on"),
    };
    CliError::new(code, format!("cannot read {name}: {error}")).hint(hint)
}

/// Why a file or directory cannot be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no directory {}: make it first, or name another place", parent.display())
        }
        io::ErrorKind::StorageFull => "make room on that disk, or name another place".to_owned(),
        io::ErrorKind::IsADirectory => "name a file in it".to_owned(),
        _ => format!("check the rights to {}, or name another place", parent.display()),
    };
    CliError::new(Code::Failed, format!("cannot write {}: {error}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_read_to_the_limit() {
        let error = bytes(Path::new("/dev/zero"), 10, "name another").unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Refused, "/dev/zero has more than 10 bytes"));
        assert_eq!(error.hint.as_deref(), Some("name another"));
        assert_eq!(bytes_from("it", &b"0123456789"[..], 10, "").unwrap(), b"0123456789");
        assert_eq!(bytes_from("it", &b"0123456789x"[..], 10, "").unwrap_err().code, Code::Refused);
    }

    #[test]
    fn every_failure_has_a_remedy() {
        let temp = tempfile::tempdir().unwrap();
        let missing = text(&temp.path().join("no"), 10, "").unwrap_err();
        assert_eq!((missing.code, missing.hint.as_deref()), (Code::NotFound, Some("check the path")));
        let directory = text(temp.path(), 10, "").unwrap_err();
        assert_eq!((directory.code, directory.hint.as_deref()), (Code::Failed, Some("name a file in it")));
        let binary = text_from("it", &[0xff][..], 10, "").unwrap_err();
        assert!(binary.code == Code::ConfigInvalid && binary.hint.is_some(), "{binary}");
        let to = temp.path().join("no/file");
        let error = File::create(&to).unwrap_err();
        let hint = cannot_write(&to, &error).hint.unwrap();
        assert!(hint.contains(&format!("no directory {}", temp.path().join("no").display())), "{hint}");
    }
}
