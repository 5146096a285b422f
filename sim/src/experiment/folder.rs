//! Running again what a folder holds.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{Run, RunError, Runner};
use crate::CODE_VERSION;
use crate::model::Options;
use crate::report::{self, MANIFEST, SCENARIO};
use crate::scenario::{Engine, ScenarioFile};
use crate::summary::{Manifest, Summary};

/// The folder of a run.
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
    /// Reads what a run left.
    ///
    /// # Errors
    /// If a file is missing or is not what it should be.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        if !path.join(MANIFEST).is_file() {
            return Err(wrong(path, format!("is not the folder of a run: it has no {MANIFEST}")));
        }
        let stored = report::read(path)?;
        let text = stored.scenario_text;
        if HEXLOWER.encode(blake3::hash(text.as_bytes()).as_bytes()) != stored.manifest.scenario_hash {
            return Err(wrong(path, format!("{SCENARIO} was changed after the run")));
        }
        Ok(Folder { path: path.to_owned(), manifest: stored.manifest, summary: stored.summary, text })
    }
}

/// Writes the folder of a run, with its report; one that is there already is replaced. `command` is what did it, if
/// it was a command.
///
/// # Errors
/// If it cannot be written, or holds something else.
pub fn save(dir: &Path, file: &ScenarioFile, run: &Run, command: &str) -> Result<Manifest, RunError> {
    refuse_others(dir, MANIFEST)?;
    let run = report::Run {
        scenario: &file.scenario,
        scenario_text: &file.text,
        engine: file.engine.name(),
        code_version: CODE_VERSION,
        command,
        outcome: &run.outcome,
        checked: &run.summary.checkers,
    };
    report::write(dir, &run)?;
    Ok(report::read(dir)?.manifest)
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
/// If its scenario cannot be simulated (here), no two runs of its engine are the same, or it fails.
pub fn rerun(runner: &dyn Runner, folder: &Folder, options: Options<'_>) -> Result<Rerun, RunError> {
    let name = folder.path.join(SCENARIO);
    let file = ScenarioFile::parse_here(&name.display().to_string(), &folder.text, &[])?;
    let Manifest { seed, engine, .. } = &folder.manifest;
    if file.scenario.seed != *seed || file.engine.name() != engine {
        return Err(wrong(
            &folder.path,
            format!("{MANIFEST} and {SCENARIO} name different seeds or engines"),
        ));
    }
    if file.engine == Engine::Libp2p {
        return Err(RunError::RealTime(file.engine));
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
    fn what_ran_in_real_time_is_not_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = ScenarioFile::parse("x.toml", "engine = \"libp2p\"\nseed = 3\n", &[]).unwrap();
        let done = run(&Fake::default(), &file, Options::default()).unwrap();
        save(dir.path(), &file, &done, "").unwrap();
        let again = rerun(&Fake::default(), &Folder::open(dir.path()).unwrap(), Options::default());
        assert!(matches!(again, Err(RunError::RealTime(Engine::Libp2p))), "{again:?}");
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
        fs::write(dir.join("summary.json"), "{}").unwrap();
        assert!(told().contains("summary.json is not what a run writes"));
    }

    #[test]
    fn other_peoples_folders_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "years of work").unwrap();
        let refused = |name: &str| refuse_others(&temp.path().join(name), MANIFEST).is_err();
        assert!(refused("") && refused("thesis.txt") && !refused("new"));
    }
}
