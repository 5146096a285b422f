//! The folder that a run leaves behind.
//!
//! ```text
//! manifest.json    what it was: scenario, engine, seed, hashes; written last, so a folder with it is whole
//! summary.json     what came of it, in numbers, and the verdicts
//! scenario.toml    the scenario as it was run
//! messages.csv     a line for each message
//! deliveries.csv   a line for each first delivery, up to [`DELIVERIES_ROWS_MAX`]
//! samples.csv      the state of the mesh, twice a second
//! plot-*.svg       plots for papers: text stays text, black on white
//! report.html      all of it on one page, which needs nothing else: no script, no network
//! ```
//!
//! A folder is a function of the run: no date, no name of a machine. Writing into an old folder replaces what was
//! there.

mod page;
mod plots;
mod settings;
mod style;
mod svg;
mod tables;
#[cfg(test)]
mod tests;
mod topology;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use tables::DELIVERIES_ROWS_MAX;

use crate::checkers::Checked;
use crate::outcome::Outcome;
use crate::scenario::Scenario;
use crate::summary::{Manifest, Summary, latencies_us};

/// A run that is over, and how it is to be described.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What was simulated.
    pub scenario: &'a Scenario,
    /// The same as text: as it was run, with what the command line changed, so that it can be run again.
    pub scenario_text: &'a str,
    /// Which engine: `model` or `libp2p`.
    pub engine: &'a str,
    /// The version of the simulator.
    pub code_version: &'a str,
    /// The command that did it; empty if it was not a command.
    pub command: &'a str,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// The verdicts ([`crate::checkers::check`]).
    pub checked: &'a [Checked],
}

/// What cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The disk is full, or we may not write there.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no folder of a run, or one of a run that was interrupted.
    #[error("cannot read {path}: {source}; is it the folder of a finished run?")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was changed, or written by a version that is not compatible.
    #[error("{path} is not what a run writes: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Writes the folder, which is made if it is missing, and says what stands in `summary.json`.
///
/// # Errors
/// If a file cannot be written; the others may have been.
pub fn write(dir: &Path, run: &Run<'_>) -> Result<Summary, ReportError> {
    fs::create_dir_all(dir).map_err(|source| ReportError::Write { path: dir.into(), source })?;
    let manifest_path = dir.join(MANIFEST);
    // Without it the folder counts as unfinished.
    remove(&manifest_path)?;
    let identity = (run.engine, run.code_version, run.command);
    let manifest = Manifest::new(run.scenario, run.scenario_text, run.outcome, identity);
    let summary = Summary::new(run.outcome, run.checked);

    write_file(&dir.join(SCENARIO), run.scenario_text.as_bytes())?;
    write_json(&dir.join(SUMMARY), &summary)?;
    for (name, write) in tables::ALL {
        let path = dir.join(name);
        write(&path, run.outcome).map_err(|source| ReportError::Write { path, source })?;
    }
    let (scenario, outcome) = (run.scenario, run.outcome);
    let latencies_us = latencies_us(outcome);
    let facts = Facts { scenario, outcome, summary: &summary, manifest: &manifest, latencies_us };
    let plots = plots::all(&facts);
    for id in plots::IDS {
        let path = dir.join(file_name(id));
        match plots.iter().find(|plot| plot.id == id) {
            Some(plot) => write_file(&path, clean(&plot.standalone()).as_bytes())?,
            None => remove(&path)?,
        }
    }
    let page = page::render(&facts, &plots, run.scenario_text);
    write_file(&dir.join("report.html"), clean(&page.into_string()).as_bytes())?;
    write_json(&manifest_path, &manifest)?;
    Ok(summary)
}

/// What a run left behind, to do it again or to compare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What it was.
    pub manifest: Manifest,
    /// What came of it.
    pub summary: Summary,
    /// The scenario as it was run.
    pub scenario_text: String,
}

/// Reads a folder that [`write()`] wrote.
///
/// # Errors
/// If it is not whole.
pub fn read(dir: &Path) -> Result<Stored, ReportError> {
    let scenario = dir.join(SCENARIO);
    let no_text = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    Ok(Stored {
        manifest: read_json(&dir.join(MANIFEST))?,
        summary: read_json(&dir.join(SUMMARY))?,
        scenario_text: String::from_utf8(read_file(&scenario)?)
            .map_err(|error| ReportError::Read { path: scenario, source: no_text(error) })?,
    })
}

/// What identifies the run; by it a folder is known as that of a run.
pub const MANIFEST: &str = "manifest.json";
const SUMMARY: &str = "summary.json";
/// The longest of the files that are read again. Default: guess.
const FILE_BYTES_MAX: u64 = 1 << 28;
/// The scenario as it was run.
pub const SCENARIO: &str = "scenario.toml";

/// All that the page and the plots are made of.
struct Facts<'a> {
    scenario: &'a Scenario,
    outcome: &'a Outcome,
    summary: &'a Summary,
    manifest: &'a Manifest,
    /// Of all deliveries to their audience, ascending.
    latencies_us: Vec<u32>,
}

impl Facts<'_> {
    fn region_names(&self) -> Vec<String> {
        self.scenario.network.regions.iter().map(|region| region.name.clone()).collect()
    }
}

/// Without characters that are not allowed in XML, however they are escaped. Names of a scenario can have them.
fn clean(text: &str) -> String {
    let is_fine = |c: char| !(c.is_control() && c != '\n' && c != '\t') && c != '\u{fffe}' && c != '\u{ffff}';
    text.chars().map(|c| if is_fine(c) { c } else { '\u{fffd}' }).collect()
}

fn file_name(plot: &str) -> String {
    format!("plot-{plot}.svg")
}

/// Writes a file in one step: who stops the program leaves the old one or the new one.
///
/// # Errors
///
/// What the operating system says; the old file is as it was then.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    fs::write(path, bytes).map_err(|source| ReportError::Write { path: path.into(), source })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ReportError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|source| ReportError::Write { path: path.into(), source: source.into() })?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Reads no further than a run would have written.
fn read_file(path: &Path) -> Result<Vec<u8>, ReportError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let read = read.and_then(|_| match bytes.len() as u64 {
        0..=FILE_BYTES_MAX => Ok(()),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    });
    read.map(|()| bytes).map_err(|source| ReportError::Read { path: path.into(), source })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ReportError> {
    let bytes = read_file(path)?;
    serde_json::from_slice(&bytes).map_err(|source| ReportError::Parse { path: path.into(), source })
}

fn remove(path: &Path) -> Result<(), ReportError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ReportError::Write { path: path.into(), source })
        }
        _ => Ok(()),
    }
}
