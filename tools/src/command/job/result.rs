//! `job result`: the content of an output, chunk after chunk, from whatever nodes hold it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use omnimesh_node::api::types::{JobDetail, JobOutput, JobTask};
use omnimesh_protocol::compute::BlobRef;
use serde_json::json;

use super::super::inspect::typed;
use super::{each_task, path};
use crate::cli::{Globals, ResultArgs};
use crate::client::{Client, segment};
use crate::error::{CliError, Code};
use crate::{files, output};

pub(super) fn result(globals: &Globals, args: &ResultArgs) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let detail: JobDetail = client.get(&path(&args.id)?)?;
    let output = choose(&detail, args.name.as_deref())?;
    if detail.summary.state != "SUCCEEDED" && output.done < output.chunks {
        let message = format!(
            "the job is {}: {} of {} chunks of {} are there",
            detail.summary.state, output.done, output.chunks, output.name
        );
        return Err(CliError::new(Code::Refused, message)
            .hint(format!("`omnimesh job show {}` shows how far it is", detail.summary.id)));
    }
    let blobs = blobs(&client, &detail, output)?;
    let Some(to) = &args.out else {
        output::content(|out| copy(&client, &blobs, out))?;
        return whole(output, &detail);
    };
    if fs::symlink_metadata(to).is_ok() {
        let message = format!("{} is there already", to.display());
        return Err(CliError::new(Code::Refused, message).hint("name another file"));
    }
    let size = copy_to_file(&client, &blobs, to)?;
    let file = to.display().to_string();
    let item = json!({ "job": detail.summary.id, "output": output.name, "file": file, "size": size, "blobs": blobs });
    output::record(globals.output, &item, || {
        vec![("output", output.name.clone()), ("file", file.clone()), ("size", size.to_string())]
    })?;
    whole(output, &detail)
}

/// What was skipped is not in what was written, and nobody could tell that from an empty output.
fn whole(output: &JobOutput, detail: &JobDetail) -> Result<(), CliError> {
    let skipped = output.chunks.saturating_sub(output.done);
    if skipped == 0 {
        return Ok(());
    }
    let message = format!("{skipped} of {} chunks of {} were skipped", output.chunks, output.name);
    let hint = format!(
        "`omnimesh job tasks {} --name {} --state skipped` lists them",
        detail.summary.id, output.task
    );
    Err(CliError::new(Code::PartlyDone, message).hint(hint))
}

fn choose<'a>(detail: &'a JobDetail, name: Option<&str>) -> Result<&'a JobOutput, CliError> {
    let names: Vec<_> = detail.outputs.iter().map(|output| output.name.as_str()).collect();
    let hint = format!("its outputs are {}", names.join(", "));
    match (name, detail.outputs.as_slice()) {
        (None, [output]) => Ok(output),
        (None, _) => {
            let message = format!("the job has {} outputs", names.len());
            Err(CliError::new(Code::Usage, message).hint(format!("name one with --name; {hint}")))
        }
        (Some(name), outputs) => outputs.iter().find(|output| output.name == name).ok_or_else(|| {
            CliError::new(Code::NotFound, format!("the job has no output {name:?}")).hint(hint)
        }),
    }
}

/// All blobs of an output in the order of its chunks.
fn blobs(client: &Client, detail: &JobDetail, output: &JobOutput) -> Result<Vec<BlobRef>, CliError> {
    let path = path(&detail.summary.id.to_string())?;
    let query = format!("&name={}&state=SUCCEEDED", segment(&output.task));
    let mut blobs = Vec::new();
    each_task(client, &path, &query, u64::MAX, |task| {
        blobs.extend(typed::<JobTask>(&task)?.output);
        Ok(())
    })?;
    Ok(blobs)
}

fn copy(client: &Client, blobs: &[BlobRef], into: &mut impl Write) -> Result<u64, CliError> {
    let mut size = 0_u64;
    for blob in blobs {
        let bytes = client.download(&format!("/api/v1/blobs/{}", blob.hash), into)?;
        if bytes != blob.size {
            let message = format!("blob {} ended after {bytes} of {} bytes", blob.hash, blob.size);
            return Err(CliError::new(Code::Failed, message).hint("ask again: what has arrived is kept"));
        }
        size = size.saturating_add(bytes);
    }
    Ok(size)
}

fn copy_to_file(client: &Client, blobs: &[BlobRef], to: &Path) -> Result<u64, CliError> {
    let failed = |error: io::Error| files::cannot_write(to, &error);
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).open(&part).map_err(failed)?;
    let copied = copy(client, blobs, &mut file).and_then(|size| {
        file.sync_all().and_then(|()| fs::rename(&part, to)).map_err(failed)?;
        Ok(size)
    });
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied
}
