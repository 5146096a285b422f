//! Scenarios as TOML files.
//!
//! ```text
//! text ─► toml with spans ─► sections (every key noted) ─► Scenario ─► its problems ─► FILE:LINE: key = value: …
//!   ▲ overrides: `--nodes 500`, `network.nodes=500`
//! ```
//!
//! All problems of a file are reported at once, each with its line, the value and a remedy.

mod compute;
mod convert;
mod edit;
mod hits;
mod place;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use toml::de::DeTable;

use self::place::Places;
use self::read::{Notes, Section};
use super::{Check, Located, Problem, Scenario, memory, shipped};

/// What runs a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The protocol machines in virtual time.
    #[default]
    Model,
    /// The real node on real libp2p swarms in one process, in real time.
    Libp2p,
}

impl Engine {
    /// The names of all.
    pub const NAMES: [&'static str; 2] = ["model", "libp2p"];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Model => "model",
            Engine::Libp2p => "libp2p",
        }
    }
}

/// A value that takes the place of what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The key with its sections: `network.nodes`, `faults[0].share` or `faults.0.share`.
    pub path: String,
    /// The value as TOML; text that is no TOML stands for itself.
    pub value: String,
    /// Who says so, for messages: `--nodes 500`.
    pub origin: String,
}

impl Override {
    /// A value for a key.
    pub fn new(path: impl Into<String>, value: impl fmt::Display, origin: impl Into<String>) -> Self {
        Override { path: path.into(), value: value.to_string(), origin: origin.into() }
    }
}

/// A valid scenario, as it was written.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// Where it comes from: a path, or the name of a shipped one.
    pub origin: String,
    /// The file with all overrides applied: alone enough to run it again.
    pub text: String,
    /// What it says.
    pub scenario: Scenario,
    /// What is to run it.
    pub engine: Engine,
    /// Memory that a run may take, if the file sets it.
    pub memory_bytes: Option<u64>,
}

/// Why there is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// It cannot be simulated. Never empty.
    #[error("{}", lines(.0))]
    Invalid(Vec<Located>),
}

fn lines(problems: &[Located]) -> String {
    problems.iter().map(Located::to_string).collect::<Vec<_>>().join("\n")
}

/// What is read as one: an item of a list, all checks (which are compared with each other), or a key.
fn part_of(path: &str) -> &str {
    match path.find(']') {
        _ if path.starts_with("checks") => "checks",
        Some(end) => &path[..end],
        None => path,
    }
}

impl ScenarioError {
    /// What to do, one line for each problem.
    pub fn hint(&self) -> String {
        match self {
            ScenarioError::Unreadable { hint, .. } => hint.clone(),
            ScenarioError::Invalid(problems) => {
                let remedy = |located: &Located| match problems.len() {
                    1 => located.problem.remedy.clone(),
                    _ => format!("{}: {}", located.place, located.problem.remedy),
                };
                problems.iter().map(remedy).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

impl ScenarioFile {
    /// Reads a file, or a shipped scenario by its name, to run it on this machine.
    ///
    /// # Errors
    /// If there is none, or it cannot be simulated here.
    pub fn load(name: &str, overrides: &[Override]) -> Result<Self, ScenarioError> {
        let path = Path::new(name);
        if let Some(text) = shipped::text(name).filter(|_| !path.is_file()) {
            return ScenarioFile::parse_here(name, text, overrides);
        }
        match std::fs::read_to_string(path) {
            Ok(text) => ScenarioFile::parse_here(name, &text, overrides),
            Err(error) => Err(ScenarioError::Unreadable {
                path: name.to_owned(),
                cause: error.to_string(),
                hint: shipped::hint(name),
            }),
        }
    }

    /// Reads a text. `origin` is its name in messages.
    ///
    /// # Errors
    /// If it cannot be simulated.
    pub fn parse(origin: &str, text: &str, overrides: &[Override]) -> Result<Self, ScenarioError> {
        ScenarioFile::parse_within(origin, text, overrides, None)
    }

    /// The same, to run it on this machine.
    ///
    /// # Errors
    /// Also if it takes more memory than is free.
    pub fn parse_here(origin: &str, text: &str, overrides: &[Override]) -> Result<Self, ScenarioError> {
        ScenarioFile::parse_within(origin, text, overrides, memory::available_bytes())
    }

    fn parse_within(
        origin: &str,
        text: &str,
        overrides: &[Override],
        available: Option<u64>,
    ) -> Result<Self, ScenarioError> {
        let places = Places::new(origin, text, overrides)?;
        let (text, problems) = edit::apply(text, overrides);
        places.refuse(problems)?;
        let root = DeTable::parse(&text).map_err(|error| places.syntax(&text, &[error]))?;
        let notes = Notes::default();
        let converted = convert::convert(Section::new(String::new(), Some(root.get_ref()), &notes));
        let mut scenario = converted.scenario;
        if !root.get_ref().contains_key("name") {
            let stem = Path::new(origin).file_stem().map(|stem| stem.to_string_lossy().into_owned());
            scenario.name = stem.unwrap_or(scenario.name);
        }
        let mut problems = notes.into_problems();
        // What follows from the default of a value that could not be read is no problem.
        let unread: Vec<_> = problems.iter().map(|problem| part_of(&problem.path).to_owned()).collect();
        let follows = |problem: &Problem| unread.iter().any(|path| path == part_of(&problem.path));
        problems.extend(scenario.problems().into_iter().filter(|problem| !follows(problem)));
        let (engine, memory_bytes) = (converted.engine, converted.memory_bytes);
        if engine == Engine::Libp2p {
            problems.extend(scenario.problems_of_libp2p());
        }
        if problems.is_empty() {
            problems.extend(memory::problem(&scenario, engine, memory_bytes, available));
        }
        places.refuse(problems)?;
        if engine == Engine::Libp2p && !root.get_ref().contains_key("checks") {
            // The usual bound is for machines, not for swarms.
            scenario.checks.retain(|check| !matches!(check, Check::BoundedMemory { .. }));
        }
        Ok(ScenarioFile { origin: origin.to_owned(), text, scenario, engine, memory_bytes })
    }

    /// A hash of the effective text.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(self.text.as_bytes()).as_bytes()
    }
}
