//! One run: an engine, and the verdicts on what came of it.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::Duration;

use crate::checkers::{self, Checked};
use crate::model::{self, Options, Watched};
use crate::outcome::Outcome;
use crate::report::ReportError;
use crate::scenario::{Engine, ScenarioError, ScenarioFile};
use crate::summary::Summary;

/// What runs scenarios: one engine, or several.
pub trait Runner: Sync {
    /// Runs a scenario to its end, on the engine that it names.
    ///
    /// # Errors
    /// If there is no such engine here, or it failed.
    fn run(&self, file: &ScenarioFile, options: Options<'_>) -> Result<Outcome, RunError>;

    /// The same, and records what happens within a span of virtual time; nothing where an engine cannot.
    ///
    /// # Errors
    /// As [`Runner::run`].
    fn watch(
        &self,
        file: &ScenarioFile,
        options: Options<'_>,
        span: Range<Duration>,
    ) -> Result<Option<Watched>, RunError> {
        let _ = (file, options, span);
        Ok(None)
    }
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
    /// The folder of a run cannot be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A table cannot be written.
    #[error("cannot write to {}: {source}", path.display())]
    Write {
        /// Where.
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
    /// A folder holds something that is not ours to replace.
    #[error("{} is there already, and is not the folder of a run", .0.display())]
    Occupied(PathBuf),
    /// No two runs of this engine are the same.
    #[error("the engine `{}` runs in real time, so that no two of its runs are the same", .0.name())]
    RealTime(Engine),
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
        if file.engine != Engine::Model {
            return Err(RunError::NoEngine(file.engine));
        }
        guarded(file.engine, || model::run(&file.scenario, options))
    }

    fn watch(
        &self,
        file: &ScenarioFile,
        options: Options<'_>,
        span: Range<Duration>,
    ) -> Result<Option<Watched>, RunError> {
        if file.engine != Engine::Model {
            return Ok(None);
        }
        guarded(file.engine, || Some(model::watch(&file.scenario, options, span)))
    }
}

/// Every engine there is.
#[cfg(feature = "libp2p")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Engines;

#[cfg(feature = "libp2p")]
impl Runner for Engines {
    fn run(&self, file: &ScenarioFile, options: Options<'_>) -> Result<Outcome, RunError> {
        match file.engine {
            Engine::Model => Model.run(file, options),
            Engine::Libp2p => crate::emulation::run(&file.scenario, options)
                .map_err(|error| RunError::Failed { engine: file.engine, cause: error.to_string() }),
        }
    }

    fn watch(
        &self,
        file: &ScenarioFile,
        options: Options<'_>,
        span: Range<Duration>,
    ) -> Result<Option<Watched>, RunError> {
        Model.watch(file, options, span)
    }
}

/// An assertion of the protocol that fails is a finding, to be reported with its seed. The machines in which it
/// failed are gone with the run.
fn guarded<T>(engine: Engine, work: impl FnOnce() -> T) -> Result<T, RunError> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| RunError::Failed { engine, cause: said(panic.as_ref()) })
}

/// What somebody said who panicked.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let what = "pending";
        let told = |work: fn()| guarded(Engine::Model, work).unwrap_err().to_string();
        assert_eq!(told(|| panic!("no timer")), "the engine `model` failed: no timer");
        let result = guarded(Engine::Model, || assert!(what.is_empty(), "no timer is {what}"));
        assert_eq!(result.unwrap_err().to_string(), "the engine `model` failed: no timer is pending");
    }
}
