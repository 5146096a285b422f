//! `audit`: what a node and its operators did, read and checked from its file. Needs no running node.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use omnimesh_node::audit::{self as log_file, AUDIT_FILE};
use omnimesh_node::data_dir::read_identity;
use omnimesh_protocol::NodeId;
use omnimesh_protocol::observer::audit::{self, Damage, ENTRY_BYTES_MAX, Entry, Mark, Summary};
use serde_json::{Value, json};

use crate::cli::{AuditCommand, AuditFile, Globals};
use crate::error::{CliError, Code};
use crate::settings;
use crate::{files, output};

/// Longest log that is read; a node does a few things in an hour.
const LOG_BYTES_MAX: u64 = 1 << 30;

pub(super) fn run(globals: &Globals, what: &AuditCommand) -> Result<(), CliError> {
    match what {
        AuditCommand::Show { file, kind } => {
            let log = Log::read(globals, file)?;
            let is_wanted = |entry: &&Value| kind.as_ref().is_none_or(|kind| entry["kind"] == *kind);
            let entries: Vec<&Value> = log.entries.iter().filter(is_wanted).collect();
            if let (Some(kind), true) = (kind, entries.is_empty()) {
                let kinds: BTreeSet<&str> =
                    log.entries.iter().filter_map(|entry| entry["kind"].as_str()).collect();
                let kinds = Vec::from_iter(kinds).join(", ");
                output::tell(&format!("no entry is of kind {kind:?}; those in this log are {kinds}"));
            }
            let heads = ["entry", "time", "step", "kind", "by", "detail"];
            output::list(globals.output, &entries, &heads, |entry| {
                let fields = ["index", "time", "step", "kind", "actor", "detail"];
                fields.iter().map(|field| output::cell(entry.get(*field))).collect()
            })?;
            log.whole().map(|_| ())
        }
        AuditCommand::Verify { file } => {
            let log = Log::read(globals, file)?;
            let (Summary { entries, first, head, .. }, is_marked) = log.whole()?;
            if entries == 0 {
                let message =
                    format!("{} has no entry, and every node that starts writes one", log.path.display());
                return Err(CliError::new(Code::Failed, message).hint("find out who has emptied it"));
            }
            let item = json!({
                "verified": true, "entries": entries, "first": first, "head": head, "peer_id": log.node,
                "ends_verified": is_marked,
            });
            let missing = if is_marked {
                "none is missing"
            } else {
                "none is missing between; whether one is at an end is not known, as there is no mark beside the file"
            };
            output::record(globals.output, &item, || {
                vec![
                    ("verified", format!("yes: every entry is as the node signed it, and {missing}")),
                    ("entries", format!("{entries}, the first is {first}")),
                    ("node", log.node.to_string()),
                    (
                        "head",
                        format!(
                            "{head}: write it down elsewhere, and an older log put in its place can be seen later"
                        ),
                    ),
                ]
            })
        }
    }
}

/// A log as far as it is whole.
struct Log {
    path: PathBuf,
    node: NodeId,
    entries: Vec<Value>,
    mark: Result<Option<Mark>, CliError>,
    found: Result<Summary, Damage>,
}

impl Log {
    fn read(globals: &Globals, file: &AuditFile) -> Result<Log, CliError> {
        let dir = || settings::data_dir(globals);
        let path = file.file.clone().map_or_else(|| dir().map(|dir| dir.join(AUDIT_FILE)), Ok)?;
        let node = match &file.peer {
            Some(peer) => peer.parse::<NodeId>().map_err(|error| {
                CliError::new(Code::Usage, format!("{peer:?} is no peer id: {error}"))
                    .hint("`omnimesh key show` prints that of the data directory")
            })?,
            None => {
                let dir = dir()?;
                read_identity(&dir)?.map(|identity| identity.id()).ok_or_else(|| {
                    let message = format!("there is no identity in the data directory {}", dir.display());
                    CliError::new(Code::NotFound, message).hint(
                        "name the node that wrote the log with --peer, or its directory with --data-dir",
                    )
                })?
            }
        };
        let mark = read_mark(&path, &node);
        let bytes = read(&path)?;
        let mut entries = Vec::new();
        let ends = mark.as_ref().ok().and_then(Option::as_ref);
        let found = audit::verify(&bytes, &node, ends, |entry| entries.push(view(&entry)));
        Ok(Log { path, node, entries, mark, found })
    }

    /// The log, and whether there is a mark of its ends.
    fn whole(&self) -> Result<(Summary, bool), CliError> {
        let summary = self.found.clone().map_err(|damage| {
            let message = format!("{} is not what the node wrote: {damage}", self.path.display());
            CliError::new(Code::Failed, message)
                .hint("the entries before it are whole; `audit show` prints them")
        })?;
        Ok((summary, self.mark.clone()?.is_some()))
    }
}

/// Where a log begins and ends, if there is a mark beside it. To be read before the log.
pub(super) fn read_mark(log: &Path, node: &NodeId) -> Result<Option<Mark>, CliError> {
    let read = log_file::read_mark(log, node);
    let read = read.map_err(|error| files::cannot_read(&format!("the mark of {}", log.display()), &error))?;
    read.map_err(|_| {
        let message = format!("the mark beside {} is not what the node signed", log.display());
        CliError::new(Code::Failed, message)
            .hint("find out who changed it; entries may be missing at an end of the log")
    })
}

/// The bytes of a log as far as entries follow on one another. Behind what can be none nothing is read: the log is damaged
/// there, and the file may be a device that never ends.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::new(Code::NotFound, format!("there is no audit log {}", path.display()))
                .hint("a node begins one when it starts; name another file with --file")
        }
        _ => files::cannot_read(&path.display().to_string(), &error),
    })?;
    let mut file = BufReader::new(file).take(LOG_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    let mut is_good = Ok(true);
    while let Ok(true) = is_good {
        is_good = read_entry(&mut file, &mut bytes);
    }
    is_good.map_err(|error| files::cannot_read(&path.display().to_string(), &error))?;
    if bytes.len() as u64 > LOG_BYTES_MAX {
        let message = format!("{} has more than {LOG_BYTES_MAX} bytes", path.display());
        return Err(
            CliError::new(Code::Refused, message).hint("no node writes so long a log: name another file")
        );
    }
    Ok(bytes)
}

/// Appends the next entry with its length, or what there is in its place; true if another may follow.
fn read_entry(from: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let at = bytes.len();
    from.by_ref().take(4).read_to_end(bytes)?;
    let length = bytes.get(at..).and_then(|head| <[u8; 4]>::try_from(head).ok()).map(u32::from_le_bytes);
    let most = ENTRY_BYTES_MAX as u64;
    let Some(length) = length.map(u64::from).filter(|length| (1..=most).contains(length)) else {
        return Ok(false);
    };
    Ok(from.by_ref().take(length).read_to_end(bytes)? as u64 == length)
}

fn view(Entry { index, hash, action, .. }: &Entry) -> Value {
    let audit::Action { time_ms, step, kind, actor, detail } = action;
    json!({
        "index": index, "hash": hash, "time_ms": time_ms, "time": log_file::time_of(*time_ms),
        "step": step, "kind": kind, "actor": actor, "detail": detail,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use omnimesh_protocol::Identity;
    use omnimesh_protocol::observer::audit::{Action, Chain, Wrong};

    use super::*;

    #[test]
    fn a_log_is_read_as_far_as_it_is_one() {
        let (identity, mut chain) = (Identity::from_seed(&[1; 32]), Chain::default());
        let action = |n: u64| Action {
            time_ms: n,
            step: None,
            kind: "lift".to_owned(),
            actor: "api".to_owned(),
            detail: "x".repeat(100),
        };
        let whole: Vec<u8> = (0..50).flat_map(|n| chain.append(&identity, &action(n))).collect();
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit.log");
        fs::write(&path, &whole).unwrap();
        assert_eq!(read(&path).unwrap(), whole);
        // What cannot be an entry ends it, and is what is said to be damaged.
        for (tail, wrong) in [(vec![0; 100], Wrong::Unreadable), (vec![0xff; 100], Wrong::CutOff)] {
            fs::write(&path, [&whole[..], &tail].concat()).unwrap();
            let bytes = read(&path).unwrap();
            assert_eq!(bytes.len(), whole.len() + 4);
            let damage = audit::verify(&bytes, &identity.id(), None, |_| {}).unwrap_err();
            assert_eq!((damage.index, damage.from, damage.what), (50, whole.len(), wrong));
        }
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(read(&path).unwrap().len(), whole.len() - 5);
        assert_eq!(read(Path::new("/dev/zero")).unwrap(), [0; 4]);
        assert_eq!(read(&temp.path().join("none")).unwrap_err().code, Code::NotFound);
    }
}
