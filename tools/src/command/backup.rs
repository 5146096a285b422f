//! `backup` and `restore`: the log as a file.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use omnimesh_node::api::types::Status;
use omnimesh_node::data_dir::{self, DataDir, IDENTITY_FILE, MESH_FILE};
use omnimesh_node::store::restore::{self, RestoreError};
use serde_json::json;

use crate::cli::{BackupArgs, Globals, RestoreArgs};
use crate::client::Client;
use crate::error::{CliError, Code};
use crate::files;
use crate::output;
use crate::settings::{self, Flags};

pub(super) fn backup(globals: &Globals, args: &BackupArgs) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let to = if args.to.is_dir() {
        let status: Status = client.get("/api/v1/status")?;
        args.to.join(format!("omnimesh-log-{}-{}.redb", status.peer_id, status.step))
    } else {
        args.to.clone()
    };
    if fs::symlink_metadata(&to).is_ok() {
        return Err(exists(&to));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let bytes = copy(&client, &part, &to);
    if bytes.is_err() {
        let _ = fs::remove_file(&part);
    }
    let bytes = bytes?;
    let file = to.display().to_string();
    let item = json!({ "file": file, "bytes": bytes, "identity": false, "mesh_secret": false });
    output::record(globals.output, &item, || {
        vec![
            ("file", file),
            ("bytes", bytes.to_string()),
            ("contains", "the log; not the node's identity and not the mesh secret".to_owned()),
        ]
    })
}

fn exists(to: &Path) -> CliError {
    CliError::new(Code::Refused, format!("{} is there already", to.display())).hint("name another file")
}

fn copy(client: &Client, part: &Path, to: &Path) -> Result<u64, CliError> {
    let failed = |error: std::io::Error| files::cannot_write(part, &error);
    let mut open = OpenOptions::new();
    let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(part).map_err(failed)?;
    let bytes = client.download("/api/v1/log/backup", &mut file)?;
    file.flush().and_then(|()| file.sync_all()).map_err(failed)?;
    // Not `rename`, which would replace what came meanwhile.
    fs::hard_link(part, to).and_then(|()| fs::remove_file(part)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(to),
        _ => failed(error),
    })?;
    if let Some(dir) = to.parent() {
        let _ = File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
            .and_then(|dir| dir.sync_all());
    }
    Ok(bytes)
}

pub(super) fn restore(globals: &Globals, args: &RestoreArgs) -> Result<(), CliError> {
    let dir = settings::data_dir(globals)?;
    let config = settings::load(globals, &Flags::new(globals))?.config;
    if let Some(pid) = data_dir::holder(&dir) {
        let message = format!("a node runs in the data directory {} (pid {pid})", dir.display());
        return Err(CliError::new(Code::Failed, message).hint("stop it first, or name another --data-dir"));
    }
    if !args.file.is_file() {
        let message = format!("there is no file {}", args.file.display());
        return Err(CliError::new(Code::NotFound, message).hint("make one with `omnimesh backup`"));
    }
    // Holds the directory: no node starts meanwhile.
    let held = DataDir::open(&dir)?;
    let mesh = data_dir::read_mesh(&dir)?.map(|stored| stored.mesh.id());
    let restored = restore::restore(&args.file, held.path(), mesh, config.gossip.message_bytes_max);
    let restored = restored.map_err(|error| {
        let (code, hint) = match &error {
            RestoreError::LogExists(_) => {
                (Code::Refused, "restore into a data directory without a log; nothing was changed")
            }
            RestoreError::Open(_) => (Code::Refused, "nothing was changed"),
            RestoreError::Damaged { .. } | RestoreError::NoBackup { .. } => (
                Code::Failed,
                "nothing was changed; take another backup, or start the node without one: it fetches its log from peers",
            ),
            _ => (Code::Failed, "nothing was changed"),
        };
        CliError::new(code, error.to_string()).hint(hint)
    })?;
    let mesh_id = restored.mesh.to_string();
    let (authors, entries) = (restored.authors, restored.entries);
    let data_dir = dir.display().to_string();
    let item = json!({ "data_dir": data_dir, "mesh_id": mesh_id, "authors": authors, "entries": entries });
    output::record(globals.output, &item, || {
        vec![
            ("data directory", data_dir),
            ("mesh id", mesh_id),
            ("authors", authors.to_string()),
            ("entries", entries.to_string()),
        ]
    })?;
    if mesh.is_none() {
        output::tell(&format!(
            "before the first start: copy {MESH_FILE} and {IDENTITY_FILE} of the old node into {}, or start with an invite of its mesh",
            dir.display()
        ));
    }
    Ok(())
}
