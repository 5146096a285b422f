//! One run: an engine, and the verdicts on what came of it.

use std::io;
use std::path::PathBuf;

use crate::checkers::{self, Checked};
use crate::model::{self, Options};
use crate::outcome::Outcome;
use crate::scenario::{Engine, ScenarioError, ScenarioFile};
use crate::summary::Summary;

/// What runs scenarios: one engine, or several.
pub trait Runner: Sync {
    /// Runs a scenario to its end, on the engine that it names.
    ///
    /// # Errors
    /// If there is no such engine here, or it failed.
    fn run(&self, file: &ScenarioFile, options: Options<'_>) -> Result<Outcome, RunError>;
}

/// Why an experiment came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario cannot be simulated.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// This program has no such engine.
    #[error("the engine `{}` is not part of this program", .0.name())]
    NoEngine(Engine),
    /// The engine gave up.
    #[error("the engine `{}` failed: {cause}", engine.name())]
    Failed {
        /// Which.
        engine: Engine,
        /// Why.
        cause: String,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder is not that of a run, or does not fit together.
    #[error("{}: {cause}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// What is asked of a sweep makes no sense.
    #[error("{0}")]
    Sweep(String),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The facts.
    pub outcome: Outcome,
    /// The numbers and verdicts.
    pub summary: Summary,
}

impl Run {
    /// The checks that are not fulfilled.
    pub fn failed(&self) -> impl Iterator<Item = &Checked> {
        self.summary.checkers.iter().filter(|checked| !checked.ok)
    }
}

/// Runs a scenario and judges it.
///
/// # Errors
/// As [`Runner::run`]. A check that is not fulfilled is none.
pub fn run(runner: &dyn Runner, file: &ScenarioFile, options: Options<'_>) -> Result<Run, RunError> {
    let outcome = runner.run(file, options)?;
    let checked = checkers::check(&file.scenario, &outcome);
    let summary = Summary::new(&outcome, &checked);
    Ok(Run { outcome, summary })
}

/// The engine in virtual time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Model;

impl Runner for Model {
    fn run(&self, file: &ScenarioFile, options: Options<'_>) -> Result<Outcome, RunError> {
        match file.engine {
            Engine::Model => Ok(model::run(&file.scenario, options)),
            other @ Engine::Libp2p => Err(RunError::NoEngine(other)),
        }
    }
}
