//! `blob`: content by its hash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use omnimesh_node::api::types::{Blob, BlobPut};
use serde_json::{Value, json};

use super::inspect::{passed_on, typed};
use crate::cli::{BlobCommand, GetArgs, Globals};
use crate::client::{Client, segment};
use crate::error::{CliError, Code};
use crate::{files, output};

pub(super) fn run(globals: &Globals, what: &BlobCommand) -> Result<(), CliError> {
    match what {
        BlobCommand::Put { file, no_pin } => put(globals, file, !no_pin),
        BlobCommand::Get(args) => get(globals, args),
        BlobCommand::List => {
            let heads = ["hash", "size", "here", "pinned"];
            passed_on::<Blob>(globals, "/api/v1/blobs", &heads, |blob| {
                let pinned = if blob.pinned { "yes" } else { "no" };
                vec![
                    blob.hash.to_string(),
                    blob.size.to_string(),
                    blob.here_bytes.to_string(),
                    pinned.to_owned(),
                ]
            })
        }
        BlobCommand::Pin { hash } => {
            show(globals, &Client::new(globals)?.put(&format!("{}/pin", path(hash)), &json!({}))?)
        }
        BlobCommand::Unpin { hash } => {
            show(globals, &Client::new(globals)?.delete(&format!("{}/pin", path(hash)))?)
        }
        BlobCommand::Remove { hash } => show(globals, &Client::new(globals)?.delete(&path(hash))?),
    }
}

fn path(hash: &str) -> String {
    format!("/api/v1/blobs/{}", segment(hash))
}

fn show(globals: &Globals, value: &Value) -> Result<(), CliError> {
    let blob: Blob = typed(value)?;
    output::record(globals.output, value, || {
        vec![
            ("hash", blob.hash.to_string()),
            ("size", blob.size.to_string()),
            ("here", blob.here_bytes.to_string()),
            ("pinned", if blob.pinned { "yes" } else { "no" }.to_owned()),
        ]
    })
}

fn put(globals: &Globals, file: &Path, pin: bool) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let path = format!("/api/v1/blobs?pin={pin}");
    let value: Value = if file == Path::new("-") {
        client.upload(&path, io::stdin().lock())?
    } else {
        let failed = |error: io::Error| files::cannot_read(&file.display().to_string(), &error);
        let open = File::open(file).map_err(failed)?;
        if open.metadata().map_err(failed)?.is_dir() {
            return Err(CliError::new(Code::Usage, format!("{} is a directory", file.display()))
                .hint("a blob is one file; pack the directory first, for example with tar"));
        }
        client.upload(&path, open)?
    };
    let blob: BlobPut = typed(&value)?;
    output::record(globals.output, &value, || {
        vec![("hash", blob.hash.to_string()), ("size", blob.size.to_string())]
    })
}

fn get(globals: &Globals, args: &GetArgs) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let Some(to) = &args.out else {
        return output::content(|out| client.download(&path(&args.hash), out)).map(|_| ());
    };
    if fs::symlink_metadata(to).is_ok() {
        let message = format!("{} is there already", to.display());
        return Err(CliError::new(Code::Refused, message).hint("name another file"));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let copied = copy(&client, &args.hash, &part, to);
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    let size = copied?;
    let item = json!({ "hash": args.hash, "size": size, "file": to.display().to_string() });
    output::record(globals.output, &item, || {
        vec![("file", to.display().to_string()), ("size", size.to_string())]
    })
}

fn copy(client: &Client, hash: &str, part: &Path, to: &Path) -> Result<u64, CliError> {
    let failed = |error: io::Error| files::cannot_write(to, &error);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(part).map_err(failed)?;
    let size = client.download(&path(hash), &mut file)?;
    file.sync_all().and_then(|()| fs::rename(part, to)).map_err(failed)?;
    Ok(size)
}
