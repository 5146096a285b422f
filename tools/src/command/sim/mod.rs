//! `sim`: the simulator. What it does is in `omnimesh_sim::experiment`; here is how it is asked and shown.

mod compare;
mod progress;
mod run;
mod sweep;
mod verify;

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use omnimesh_sim::experiment::{Engines, RunError, Runner};
use omnimesh_sim::scenario::{Override, ScenarioError, ScenarioFile, shipped};
use serde_json::json;

use crate::cli::{Globals, ScenarioArgs, SimCommand};
use crate::error::{CliError, Code};
use crate::files;
use crate::output::{self, Format};

/// Longest scenario.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More threads than cores show that their number changes nothing; so many are enough for that.
const THREADS_PER_CORE: usize = 8;

pub(super) fn run(globals: &Globals, what: &SimCommand) -> Result<(), CliError> {
    match what {
        SimCommand::Run(args) => run::run(globals.output, args),
        SimCommand::Verify(args) => verify::verify(globals.output, args),
        SimCommand::Sweep(args) => sweep::sweep(globals.output, args),
        SimCommand::Compare(args) => compare::compare(globals.output, args),
        SimCommand::Rerun(args) => verify::rerun(globals.output, args),
        SimCommand::List => list(globals.output),
        SimCommand::Show { name } => show(globals.output, name),
    }
}

/// The engines of this program.
fn runner() -> &'static dyn Runner {
    &Engines
}

fn list(format: Format) -> Result<(), CliError> {
    let scenarios: Vec<_> = shipped::ALL
        .iter()
        .filter_map(|(name, text)| {
            let file = ScenarioFile::parse(name, text, &[]).ok()?;
            let nodes = file.scenario.network.nodes;
            Some(json!({ "name": name, "nodes": nodes, "description": file.scenario.description }))
        })
        .collect();
    output::list(format, &scenarios, &["name", "nodes", "description"], |item| {
        ["name", "nodes", "description"].map(|field| output::cell(item.get(field))).to_vec()
    })
}

fn show(format: Format, name: &str) -> Result<(), CliError> {
    let text = shipped::text(name).ok_or_else(|| {
        CliError::new(Code::NotFound, format!("there is no shipped scenario `{name}`"))
            .hint(shipped::hint(name))
    })?;
    match format {
        Format::Table => output::text(text),
        Format::Json => output::document(&json!({ "name": name, "text": text })),
        Format::Ndjson => output::line(&json!({ "name": name, "text": text })),
    }
}

/// The scenario with the values of the flags.
fn load(scenario: &str, with: &ScenarioArgs, set: &[String]) -> Result<ScenarioFile, CliError> {
    let mut overrides = flags(with);
    for pair in set {
        let (path, value) = pair.split_once('=').ok_or_else(|| {
            CliError::new(Code::Usage, format!("`{pair}` is not KEY=VALUE"))
                .hint("name a key with its sections, as in --set links.loss=0.1")
        })?;
        overrides.push(Override::new(path.trim(), value.trim(), format!("--set {pair}")));
    }
    let path = Path::new(scenario);
    if shipped::text(scenario).is_some() && !path.is_file() {
        return Ok(ScenarioFile::load(scenario, &overrides)?);
    }
    let text = files::text(path, FILE_BYTES_MAX, "no scenario is so long: name another file");
    let text = text.map_err(|error| match error.code {
        Code::NotFound => CliError::new(
            Code::NotFound,
            format!("there is no scenario {scenario}: neither a file nor a shipped one"),
        )
        .hint(shipped::hint(scenario)),
        _ => error,
    })?;
    Ok(ScenarioFile::parse_here(scenario, &text, &overrides)?)
}

/// How many threads to start, if that is no more than the machine has a use for: more only take long to be started.
fn threads(flag: &str, asked: usize) -> Result<usize, CliError> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = cores.saturating_mul(THREADS_PER_CORE);
    if asked <= most {
        return Ok(asked);
    }
    let message =
        format!("{flag} {asked} is more than {most}, {THREADS_PER_CORE} for each core of this machine");
    Err(CliError::new(Code::Usage, message).hint(format!(
        "the machine has {cores} cores: leave {flag} out to use them all, or give {most} at most"
    )))
}

fn flags(with: &ScenarioArgs) -> Vec<Override> {
    let engine = with
        .engine
        .as_ref()
        .map(|engine| Override::new("engine", format!("{engine:?}"), format!("--engine {engine}")));
    let nodes = with.nodes.map(|nodes| Override::new("network.nodes", nodes, format!("--nodes {nodes}")));
    let seed = with.seed.map(|seed| Override::new("seed", seed, format!("--seed {seed}")));
    [engine, nodes, seed].into_iter().flatten().collect()
}

/// The command that is running, for the manifest.
fn command_line() -> String {
    let arguments = std::env::args().skip(1);
    std::iter::once("omnimesh".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

impl From<ScenarioError> for CliError {
    fn from(error: ScenarioError) -> Self {
        CliError::new(Code::ConfigInvalid, error.to_string()).hint(error.hint())
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        let message = error.to_string();
        let of = |code| CliError::new(code, message.clone());
        match error {
            RunError::Scenario(error) => error.into(),
            RunError::Occupied(_) => of(Code::Refused).hint("name another folder with --out"),
            RunError::NoEngine(_) => of(Code::Failed).hint("leave out --engine, or take --engine model"),
            RunError::Folder { .. } => of(Code::NotFound)
                .hint("name a folder that `omnimesh sim run` has written, as it has written it"),
            RunError::RealTime(_) => of(Code::Refused)
                .hint("`--engine model` can be verified; `omnimesh sim run` runs the scenario again"),
            RunError::Sweep(_) => of(Code::Usage),
            RunError::Report(_) | RunError::Write { .. } => of(Code::Failed)
                .hint("check that path, its rights and the room on its disk, or name another with --out"),
            RunError::Failed { .. } => of(Code::Failed),
        }
    }
}
