//! Run folders: what a run leaves behind, and running it again from that.
//!
//! `scenario.toml` is the scenario with all overrides, `manifest.json` what identifies the run, `summary.json` its
//! numbers. They are enough to run it again.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Run, RunError, Runner};
use crate::CODE_VERSION;
use crate::model::Options;
use crate::scenario::ScenarioFile;
use crate::summary::{Manifest, Summary};

/// The file by which a run's folder is known.
pub const MANIFEST: &str = "manifest.json";
const SUMMARY: &str = "summary.json";
const SCENARIO: &str = "scenario.toml";

/// A folder that was read.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where.
    pub path: PathBuf,
    /// What the run was.
    pub manifest: Manifest,
    /// Its numbers.
    pub summary: Summary,
    /// The text of its scenario.
    pub text: String,
}

impl Folder {
    /// Whether this is the folder of a run.
    pub fn is_one(path: &Path) -> bool {
        path.join(MANIFEST).is_file()
    }

    /// Reads what a run left.
    ///
    /// # Errors
    /// If a file is missing or is not what it should be.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        if !Folder::is_one(path) {
            return Err(wrong(path, format!("is not the folder of a run: it has no {MANIFEST}")));
        }
        let manifest: Manifest = read_json(path, MANIFEST)?;
        let text = read(&path.join(SCENARIO))?;
        if HEXLOWER.encode(blake3::hash(text.as_bytes()).as_bytes()) != manifest.scenario_hash {
            return Err(wrong(path, format!("{SCENARIO} was changed after the run")));
        }
        Ok(Folder { path: path.to_owned(), manifest, summary: read_json(path, SUMMARY)?, text })
    }
}

/// Writes the folder of a run; one that is there already is replaced. `command` is what did it, if it was a command.
///
/// # Errors
/// If it cannot be written, or holds something else.
pub fn save(dir: &Path, file: &ScenarioFile, run: &Run, command: &str) -> Result<Manifest, RunError> {
    refuse_others(dir, MANIFEST)?;
    fs::create_dir_all(dir).map_err(|source| failed("write", dir, source))?;
    let identity = (file.engine.name(), CODE_VERSION, command);
    let manifest = Manifest::new(&file.scenario, &file.text, &run.outcome, identity);
    write(&dir.join(SCENARIO), file.text.as_bytes())?;
    write_json(dir, SUMMARY, &run.summary)?;
    write_json(dir, MANIFEST, &manifest)?;
    Ok(manifest)
}

/// Refuses a folder with something in it, unless it holds this file, by which we know one of ours.
///
/// # Errors
/// If it is refused.
pub fn refuse_others(dir: &Path, ours: &str) -> Result<(), RunError> {
    let is_empty = fs::read_dir(dir).map_or(!dir.exists(), |mut entries| entries.next().is_none());
    if is_empty || dir.join(ours).is_file() { Ok(()) } else { Err(RunError::Occupied(dir.to_owned())) }
}

/// What came of running it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rerun {
    /// The trace hash of the first run, in hex.
    pub before: String,
    /// The trace hash of this run, in hex.
    pub after: String,
    /// Whether they are equal.
    pub is_same: bool,
    /// The code of the first run.
    pub code_before: String,
    /// The code of this run.
    pub code_after: String,
}

/// Runs the scenario of a folder again.
///
/// # Errors
/// If its scenario cannot be simulated (here), or the engine fails.
pub fn rerun(runner: &dyn Runner, folder: &Folder, options: Options<'_>) -> Result<Rerun, RunError> {
    let name = folder.path.join(SCENARIO);
    let file = ScenarioFile::parse(&name.display().to_string(), &folder.text, &[])?;
    let Manifest { seed, engine, .. } = &folder.manifest;
    if file.scenario.seed != *seed || file.engine.name() != engine {
        return Err(wrong(
            &folder.path,
            format!("{MANIFEST} and {SCENARIO} name different seeds or engines"),
        ));
    }
    let outcome = runner.run(&file, options)?;
    let after = HEXLOWER.encode(&outcome.trace_hash);
    Ok(Rerun {
        is_same: after == folder.manifest.trace_hash,
        before: folder.manifest.trace_hash.clone(),
        after,
        code_before: folder.manifest.code_version.clone(),
        code_after: CODE_VERSION.to_owned(),
    })
}

fn read(path: &Path) -> Result<String, RunError> {
    fs::read_to_string(path).map_err(|source| failed("read", path, source))
}

fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<T, RunError> {
    let text = read(&dir.join(name))?;
    serde_json::from_str(&text)
        .map_err(|error| wrong(dir, format!("{name} is not what it should be: {error}")))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    fs::write(path, bytes).map_err(|source| failed("write", path, source))
}

fn write_json<T: Serialize>(dir: &Path, name: &str, item: &T) -> Result<(), RunError> {
    let mut text = serde_json::to_string_pretty(item).map_err(|error| wrong(dir, error.to_string()))?;
    text.push('\n');
    write(&dir.join(name), text.as_bytes())
}

fn failed(what: &'static str, path: &Path, source: std::io::Error) -> RunError {
    RunError::Io { what, path: path.to_owned(), source }
}

fn wrong(path: &Path, cause: String) -> RunError {
    RunError::Folder { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::fake::Fake;
    use crate::experiment::run;
    use crate::scenario::Override;

    fn saved(dir: &Path) -> ScenarioFile {
        let set = Override::new("network.nodes", 7, "--nodes 7");
        let file = ScenarioFile::parse("x.toml", "# Mine.\nseed = 3\n", &[set]).unwrap();
        let done = run(&Fake::default(), &file, Options::default()).unwrap();
        save(dir, &file, &done, "omnimesh sim run x.toml --nodes 7").unwrap();
        file
    }

    #[test]
    fn a_run_can_be_done_again_from_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("run");
        let file = saved(dir);
        let folder = Folder::open(dir).unwrap();
        assert_eq!((folder.manifest.nodes, folder.manifest.seed), (7, 3));
        assert_eq!((folder.text.as_str(), folder.summary.nodes), (file.text.as_str(), 7));
        let again = rerun(&Fake::default(), &folder, Options::default()).unwrap();
        assert!(again.is_same && again.before == again.after, "{again:?}");
        let other = rerun(&Fake { version: 1, ..Fake::default() }, &folder, Options::default()).unwrap();
        assert!(!other.is_same && other.before != other.after, "{other:?}");
        saved(dir);
    }

    #[test]
    fn a_folder_that_does_not_fit_together_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let told = || Folder::open(dir).unwrap_err().to_string();
        assert!(told().contains("is not the folder of a run"));
        saved(dir);
        fs::write(dir.join(SCENARIO), "seed = 4").unwrap();
        assert!(told().contains("scenario.toml was changed after the run"));
        saved(dir);
        fs::write(dir.join(SUMMARY), "{}").unwrap();
        assert!(told().contains("summary.json is not what it should be"));
    }

    #[test]
    fn other_peoples_folders_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "years of work").unwrap();
        let refused = |name: &str| refuse_others(&temp.path().join(name), MANIFEST).is_err();
        assert!(refused("") && refused("thesis.txt") && !refused("new"));
    }
}
