//! `audit`: what a node and its operators did, read and checked from its file. Needs no running node.

use std::collections::BTreeSet;
use std::path::PathBuf;

use omnimesh_node::audit::{AUDIT_FILE, read_file};
use omnimesh_node::data_dir::read_identity;
use omnimesh_protocol::NodeId;
use omnimesh_protocol::observer::audit::{self, Damage, Entry, Summary};
use serde_json::{Value, json};

use crate::cli::{AuditCommand, AuditFile, Globals};
use crate::error::{CliError, Code};
use crate::output;
use crate::settings;

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
            let Summary { entries, first, head, .. } = log.whole()?;
            let item = json!({
                "verified": true, "entries": entries, "first": first, "head": head, "peer_id": log.node,
            });
            output::record(globals.output, &item, || {
                vec![
                    (
                        "verified",
                        "yes: every entry is as the node signed it, and none is missing between".to_owned(),
                    ),
                    ("entries", format!("{entries}, the first is {first}")),
                    ("node", log.node.to_string()),
                    ("head", format!("{head}: write it down elsewhere, and a cut end can be seen later")),
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
            None => read_identity(&dir()?)?.map(|identity| identity.id()).ok_or_else(|| {
                CliError::new(Code::NotFound, "there is no identity in the data directory")
                    .hint("name the node that wrote the log with --peer, or its directory with --data-dir")
            })?,
        };
        if !path.exists() {
            return Err(CliError::new(Code::NotFound, format!("there is no audit log {}", path.display()))
                .hint("a node begins one when it starts; name another file with --file"));
        }
        let bytes = read_file(&path).map_err(|error| {
            CliError::new(Code::Failed, format!("cannot read {}: {error}", path.display()))
        })?;
        let mut entries = Vec::new();
        let found = audit::verify(&bytes, &node, |entry| entries.push(view(&entry)));
        Ok(Log { path, node, entries, found })
    }

    fn whole(&self) -> Result<Summary, CliError> {
        self.found.clone().map_err(|damage| {
            let message = format!("{} is not what the node wrote: {damage}", self.path.display());
            CliError::new(Code::Failed, message)
                .hint("the entries before it are whole; `audit show` prints them")
        })
    }
}

fn view(Entry { index, hash, action, .. }: &Entry) -> Value {
    let audit::Action { time_ms, step, kind, actor, detail } = action;
    json!({
        "index": index, "hash": hash, "time_ms": time_ms, "time": omnimesh_node::audit::time_of(*time_ms),
        "step": step, "kind": kind, "actor": actor, "detail": detail,
    })
}
