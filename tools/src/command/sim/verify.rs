//! `sim verify` and `sim rerun`: is it the same each time?

use omnimesh_sim::experiment::{self, Folder, Rerun, Verified};
use omnimesh_sim::model::{Happening, Options};
use omnimesh_sim::scenario::ScenarioFile;
use serde_json::json;

use super::progress::Bar;
use super::{load, runner, threads};
use crate::cli::{RerunArgs, VerifyArgs};
use crate::error::{CliError, Code};
use crate::output::{self, Format};

pub(super) fn verify(format: Format, args: &VerifyArgs) -> Result<(), CliError> {
    args.threads.iter().try_for_each(|asked| threads("--threads", *asked).map(|_| ()))?;
    let file = load(&args.scenario, &args.with, &args.set)?;
    let mut bar = (0, Bar::new("run 1"));
    let verified = experiment::verify(runner(), &file, &args.threads, |run, now| {
        if run != bar.0 {
            bar = (run, Bar::new(format!("run {}", run + 1)));
        }
        bar.1.set(now);
    })?;
    drop(bar);
    show(format, &file, &verified)?;
    difference(&verified)
}

fn show(format: Format, file: &ScenarioFile, verified: &Verified) -> Result<(), CliError> {
    let runs: Vec<_> = verified
        .runs
        .iter()
        .map(|run| {
            json!({
                "scenario": file.scenario.name,
                "seed": file.scenario.seed,
                "threads": run.threads,
                "events": run.events,
                "wall_seconds": run.wall_seconds,
                "trace_hash": data_encoding::HEXLOWER.encode(&run.trace_hash),
            })
        })
        .collect();
    if format == Format::Json {
        let second = verified.first_difference().map(|(second, _)| second);
        let equal = verified.is_equal();
        let event = verified.parting.map(|parting| {
            json!({
                "run": parting.run + 1,
                "event": parting.first.map(|event| event.to_string()),
                "event_of_run": parting.other.map(|event| event.to_string()),
            })
        });
        return output::document(&json!({
            "equal": equal, "first_difference_s": second, "first_differing_event": event, "runs": runs,
        }));
    }
    output::list(format, &runs, &["threads", "events", "trace hash"], |run| {
        ["threads", "events", "trace_hash"].map(|field| output::cell(run.get(field))).to_vec()
    })
}

fn difference(verified: &Verified) -> Result<(), CliError> {
    let Some((second, other)) = verified.first_difference() else { return Ok(()) };
    let threads = verified.runs.get(other).map_or(1, |run| run.threads);
    let number = other + 1;
    let place = match verified.parting {
        Some(parting) => {
            let event = |event: Option<Happening>| event.map_or("nothing more".to_owned(), |e| e.to_string());
            let (first, other) = (event(parting.first), event(parting.other));
            format!("\n  first differing event\n  run 1: {first}\n  run {number}: {other}")
        }
        None => "; no event differed when both were run again".to_owned(),
    };
    let message = format!(
        "run {number} (threads: {threads}) differs from run 1 (threads: 1): first between {second} s and {} s{place}",
        second + 1
    );
    let hint = "this is a bug in the simulator or the protocol: something is read that is not a function of the seed";
    Err(CliError::new(Code::Failed, message).hint(hint))
}

pub(super) fn rerun(format: Format, args: &RerunArgs) -> Result<(), CliError> {
    let threads = threads("--threads", args.threads)?;
    let folder = Folder::open(&args.dir)?;
    let rerun = {
        let bar = Bar::new(folder.manifest.scenario.clone());
        let mut tell = |now| bar.set(now);
        experiment::rerun(runner(), &folder, Options { threads, progress: Some(&mut tell) })?
    };
    output::record(format, &rerun, || {
        vec![
            ("scenario", folder.manifest.scenario.clone()),
            ("seed", folder.manifest.seed.to_string()),
            ("before", rerun.before.clone()),
            ("after", rerun.after.clone()),
            ("same", rerun.is_same.to_string()),
        ]
    })?;
    same(&rerun)
}

fn same(rerun: &Rerun) -> Result<(), CliError> {
    if rerun.is_same {
        return Ok(());
    }
    let error = CliError::new(Code::Failed, "the run is not the same as before");
    Err(match rerun.code_before == rerun.code_after {
        true => error
            .hint("scenario, seed and code are those of then: `omnimesh sim verify` says where it differs"),
        false => {
            error.hint(format!("the code differs: {} then, {} now", rerun.code_before, rerun.code_after))
        }
    })
}
