//! `sim compare`.

use std::path::Path;

use omnimesh_sim::experiment::{Comparison, Folder, Row, compare as side_by_side};
use omnimesh_sim::scenario::{Engine, ScenarioFile};
use omnimesh_sim::summary::Summary;
use serde_json::json;

use super::run::simulate;
use super::{load, threads};
use crate::cli::{CompareArgs, ScenarioArgs};
use crate::error::{CliError, Code};
use crate::output::{self, Format};

/// A run with its name.
struct Side {
    name: String,
    is_folder: bool,
    summary: Summary,
}

pub(super) fn compare(format: Format, args: &CompareArgs) -> Result<(), CliError> {
    threads("--threads", args.threads)?;
    let (a, b) = sides(args)?;
    let comparison = side_by_side(&a.summary, &b.summary, a.is_folder && b.is_folder);
    let beyond = args.within.map_or_else(Vec::new, |percent| comparison.beyond(percent));
    show(format, &a, &b, &comparison, args.within.map(|_| beyond.is_empty()))?;
    let Some(percent) = args.within.filter(|_| !beyond.is_empty()) else { return Ok(()) };
    let lines: Vec<_> = beyond.iter().map(|row| line(row, percent)).collect();
    Err(CliError::new(Code::Failed, lines.join("\n")))
}

fn line(row: &Row, percent: f64) -> String {
    match row.difference_percent {
        Some(difference) => format!("{} differs by {difference:+.1} %, more than {percent} %", row.metric),
        None => format!("{}: {} against {}", row.metric, number(row.a), number(row.b)),
    }
}

fn sides(args: &CompareArgs) -> Result<(Side, Side), CliError> {
    let with = |engine: &str| ScenarioArgs {
        engine: Some(engine.to_owned()),
        nodes: args.with.nodes,
        seed: args.with.seed,
    };
    match &args.b {
        Some(b) => {
            // Both are read before anything is run.
            let (a, b) = (Source::new(&args.a, &args.with, args)?, Source::new(b, &args.with, args)?);
            Ok((a.side(args.threads)?, b.side(args.threads)?))
        }
        None => {
            let of = |engine: &str| Ok::<_, CliError>(Box::new(load(&args.a, &with(engine), &args.set)?));
            let (model, libp2p) = (of(Engine::Model.name())?, of(Engine::Libp2p.name())?);
            // First the one that a program may lack.
            let mut libp2p = Source::Scenario(libp2p).side(args.threads)?;
            let mut model = Source::Scenario(model).side(args.threads)?;
            Engine::Model.name().clone_into(&mut model.name);
            Engine::Libp2p.name().clone_into(&mut libp2p.name);
            Ok((model, libp2p))
        }
    }
}

/// A run of before, or one to come.
enum Source {
    Folder(Box<Folder>),
    Scenario(Box<ScenarioFile>),
}

impl Source {
    fn new(name: &str, with: &ScenarioArgs, args: &CompareArgs) -> Result<Self, CliError> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Source::Folder(Box::new(Folder::open(path)?)));
        }
        Ok(Source::Scenario(Box::new(load(name, with, &args.set)?)))
    }

    fn side(self, threads: usize) -> Result<Side, CliError> {
        Ok(match self {
            Source::Folder(folder) => {
                let name = folder.path.file_name().map_or_else(
                    || folder.manifest.scenario.clone(),
                    |name| name.to_string_lossy().into_owned(),
                );
                Side { name, is_folder: true, summary: folder.summary }
            }
            Source::Scenario(file) => {
                let summary = simulate(&file, threads)?.summary;
                Side { name: file.scenario.name.clone(), is_folder: false, summary }
            }
        })
    }
}

fn show(
    format: Format,
    a: &Side,
    b: &Side,
    comparison: &Comparison,
    is_within: Option<bool>,
) -> Result<(), CliError> {
    if format == Format::Json {
        return output::document(
            &json!({ "a": a.name, "b": b.name, "within": is_within, "metrics": comparison.rows }),
        );
    }
    output::list(format, &comparison.rows, &["metric", &a.name, &b.name, "difference"], |row| {
        let difference =
            row.difference_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:+.1} %"));
        vec![row.metric.to_owned(), number(row.a), number(row.b), difference]
    })
}

/// Whole numbers as such, others with a few decimals.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.3}"),
    }
}
