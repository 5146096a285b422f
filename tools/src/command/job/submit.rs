//! `job submit`: reads and checks a job file, puts its files into blobs, and hands it to the node.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use omnimesh_node::api::types::{BlobPut, JobAccepted, JobFormat, JobRequest};
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::job::{self, Files, Format, ProblemCode, Problems, Quota};
use serde_json::Value;

use super::super::inspect::typed;
use super::wait;
use crate::cli::{Globals, SubmitArgs};
use crate::client::Client;
use crate::error::{CliError, Code};
use crate::{files, output};

/// The longest job file. A job goes into the log, and that takes no more than 32 KiB of it without its files.
const FILE_BYTES_MAX: u64 = 100 << 10;
/// A file is read in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

pub(super) fn submit(globals: &Globals, args: &SubmitArgs) -> Result<(), CliError> {
    let (name, text, dir) = read_file(&args.file)?;
    let is_json = args.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let format = if is_json { Format::Json } else { Format::Toml };
    let nonce = args.nonce.unwrap_or_else(fresh_nonce);
    let files = LocalFiles::new(dir);
    // What the node allows is its own; everything else can be said before it is asked.
    job::read(&name, &text, format, &files, nonce, &Quota::MOST).map_err(|problems| invalid(&problems))?;
    let files = files.into_blobs();
    let client = Client::new(globals)?;
    let request = JobRequest {
        file: Some(name),
        format: Some(if is_json { JobFormat::Json } else { JobFormat::Toml }),
        text: Some(text),
        job: None,
        files: files.iter().map(|(name, (_, blob))| (name.clone(), *blob)).collect(),
        nonce: Some(nonce),
    };
    let value: Value = client.post("/api/v1/jobs?check=true", &request)?;
    if args.check {
        return told(globals, &value);
    }
    upload(&client, &files, &typed::<JobAccepted>(&value)?.missing)?;
    let value: Value = client.post("/api/v1/jobs", &request)?;
    let accepted: JobAccepted = typed(&value)?;
    let Some(id) = accepted.id.filter(|_| args.wait) else { return told(globals, &value) };
    output::tell(&format!("submitted {id} ({} tasks)", accepted.tasks));
    wait::wait(globals, &client, &id.to_string())
}

fn told(globals: &Globals, value: &Value) -> Result<(), CliError> {
    let accepted: JobAccepted = typed(value)?;
    output::record(globals.output, value, || {
        let mut fields = Vec::new();
        fields.extend(accepted.id.map(|id| ("id", id.to_string())));
        fields.push(("name", accepted.name));
        fields.push(("tasks", accepted.tasks.to_string()));
        fields
    })
}

/// What the file is called, what it says, and where its own files are.
fn read_file(file: &Path) -> Result<(String, String, PathBuf), CliError> {
    let remedy = "put long parameters into files of their own, and use for_each in place of many like tasks";
    if file == Path::new("-") {
        let name = "standard input".to_owned();
        let text = files::text_from(&name, io::stdin().lock(), FILE_BYTES_MAX, remedy)?;
        return Ok((name, text, PathBuf::new()));
    }
    let text = files::text(file, FILE_BYTES_MAX, remedy)?;
    Ok((file.display().to_string(), text, file.parent().map(Path::to_path_buf).unwrap_or_default()))
}

/// Jobs that say the same are different jobs if they are submitted at different times.
fn fresh_nonce() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // 2^53 microseconds are reached in the year 2255: until then every reader of JSON keeps the number.
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn invalid(problems: &Problems) -> CliError {
    let is_quota = problems.faults.iter().all(|fault| fault.problem.code == ProblemCode::Quota);
    let code = if is_quota { Code::Refused } else { Code::ConfigInvalid };
    CliError::new(code, problems.to_string())
        .hint("docs/compute.md describes job files; nothing was uploaded")
}

/// The files that a job names, on this machine.
struct LocalFiles {
    dir: PathBuf,
    found: RefCell<BTreeMap<String, (PathBuf, BlobRef)>>,
}

impl LocalFiles {
    fn new(dir: PathBuf) -> Self {
        LocalFiles { dir, found: RefCell::new(BTreeMap::new()) }
    }

    fn into_blobs(self) -> BTreeMap<String, (PathBuf, BlobRef)> {
        self.found.into_inner()
    }
}

impl Files for LocalFiles {
    fn blob(&self, name: &str) -> Result<BlobRef, String> {
        if let Some((_, blob)) = self.found.borrow().get(name) {
            return Ok(*blob);
        }
        let path = self.dir.join(name);
        let blob = hash(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        self.found.borrow_mut().insert(name.to_owned(), (path, blob));
        Ok(blob)
    }
}

/// The name that a file's content has as a blob.
fn hash(path: &Path) -> io::Result<BlobRef> {
    let mut file = File::open(path)?;
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a directory; pack it first, for example with tar"));
    }
    let bar = Bar::new("reading", path, metadata.len());
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut size = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hasher.update(piece.get(..read).unwrap_or_default());
        size += read as u64;
        bar.0.set_position(size);
    }
    Ok(BlobRef { hash: Hash::from_bytes(*hasher.finalize().as_bytes()), size })
}

/// Brings to the node what it does not hold; what it holds is kept there.
fn upload(
    client: &Client,
    files: &BTreeMap<String, (PathBuf, BlobRef)>,
    missing: &[Hash],
) -> Result<(), CliError> {
    let mut done = BTreeSet::new();
    for (path, blob) in files.values() {
        if !done.insert(blob.hash) {
            continue;
        }
        if !missing.contains(&blob.hash) {
            // It may have come by itself, and would go again when there is need of room.
            let _: Value = client.put(&format!("/api/v1/blobs/{}/pin", blob.hash), &serde_json::json!({}))?;
            continue;
        }
        let file = File::open(path).map_err(|error| {
            CliError::new(Code::Failed, format!("cannot read {}: {error}", path.display()))
        })?;
        let bar = Bar::new("uploading", path, blob.size);
        let put: BlobPut = client.upload("/api/v1/blobs?pin=true", bar.0.wrap_read(file))?;
        if put.hash != blob.hash {
            let message = format!("{} was changed while it was uploaded", path.display());
            return Err(
                CliError::new(Code::Failed, message).hint("submit the job again when nobody writes to it")
            );
        }
    }
    Ok(())
}

/// A bar on a terminal, which vanishes with what it shows; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new(what: &str, path: &Path, bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let style =
            ProgressStyle::with_template("{prefix} {bar:30} {bytes} of {total_bytes}  {bytes_per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(format!("{what} {}", output::printable(&path.display().to_string())));
        Bar(bar)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_name_of_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let content = vec![7; PIECE_BYTES + 5];
        fs::write(dir.path().join("a"), &content).unwrap();
        let files = LocalFiles::new(dir.path().to_owned());
        assert_eq!(files.blob("a"), Ok(BlobRef::of(&content)));
        assert!(files.blob("b").unwrap_err().contains("cannot read"));
        assert!(files.blob(".").unwrap_err().contains("directory"));
        assert_eq!(files.into_blobs().len(), 1);
    }
}
