//! `sim sweep`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use omnimesh_sim::experiment::{
    self, Axis, Combination, Finished, Interval, Plan, RUNS, Swept, refuse_others, write_csv,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::progress::of_runs;
use super::{load, runner, threads};
use crate::cli::SweepArgs;
use crate::error::{CliError, Code};
use crate::output::{self, Format};

/// The numbers in the table; the CSV files have all.
const SHOWN: [(&str, &str); 5] = [
    ("delivery_ratio", "delivered"),
    ("latency_ms.p50", "p50 ms"),
    ("latency_ms.p95", "p95 ms"),
    ("duplicates", "duplicates"),
    ("rmr", "rmr"),
];
/// Of the runs that failed, so many are named.
const NAMED_MAX: usize = 10;

pub(super) fn sweep(format: Format, args: &SweepArgs) -> Result<(), CliError> {
    threads("--jobs", args.jobs.map_or(0, NonZeroUsize::get))?;
    let base = load(&args.scenario, &args.with, &[])?;
    let axes = args.set.iter().map(|text| Axis::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let plan = Plan::new(&base, &axes, args.seeds)?;
    let default_dir = || PathBuf::from(format!("omnimesh-sweep-{}", base.scenario.name));
    let dir = args.out.clone().unwrap_or_else(default_dir);
    refuse_others(&dir, RUNS)?;
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let jobs = args.jobs.or_else(|| NonZeroUsize::new(plan.jobs(cores.get()))).unwrap_or(NonZeroUsize::MIN);
    let bar = of_runs(plan.cases.len());
    let swept = experiment::sweep(runner(), &plan, jobs, |finished| {
        bar.inc(1);
        if !finished.is_ok() {
            bar.set_message(format!("seed {} failed", finished.seed));
        }
    });
    bar.finish_and_clear();
    let swept = swept?;
    write_csv(&dir, &swept)?;
    show(format, &swept)?;
    output::tell(&format!("the tables: {}", dir.display()));
    fail(&swept, &args.scenario)
}

/// A combination, as JSON and for a table.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    document: Value,
    #[serde(skip)]
    of: &'a Combination,
}

fn show(format: Format, swept: &Swept) -> Result<(), CliError> {
    let line = |of| Line { document: document(swept, of), of };
    let lines: Vec<_> = swept.combinations.iter().map(line).collect();
    if format == Format::Json {
        return output::document(&json!({ "combinations": lines, "runs": runs(swept) }));
    }
    let paths = swept.paths.iter().map(String::as_str);
    let heads: Vec<_> = paths.chain(["passed"]).chain(SHOWN.iter().map(|(_, head)| *head)).collect();
    output::list(format, &lines, &heads, |line| row(line.of))
}

fn runs(swept: &Swept) -> Vec<Value> {
    let run = |run: &Finished| {
        json!({
            "combination": run.combination,
            "seed": run.seed,
            "ok": run.is_ok(),
            "failed": run.failures,
            "trace_hash": run.trace_hash,
        })
    };
    swept.runs.iter().map(run).collect()
}

fn document(swept: &Swept, of: &Combination) -> Value {
    let values: serde_json::Map<_, _> =
        swept.paths.iter().cloned().zip(of.values.iter().map(|value| json!(value))).collect();
    let metrics: serde_json::Map<_, _> =
        of.metrics.iter().map(|(name, interval)| ((*name).to_owned(), json!(interval))).collect();
    json!({ "values": values, "runs": of.runs, "passed": of.passed, "metrics": metrics })
}

fn row(of: &Combination) -> Vec<String> {
    let shown = |name: &str| {
        let interval = of.metrics.iter().find(|(known, _)| *known == name).map(|(_, interval)| interval);
        interval.map_or_else(|| "-".to_owned(), with_confidence)
    };
    let passed = format!("{} of {}", of.passed, of.runs);
    of.values.iter().cloned().chain([passed]).chain(SHOWN.iter().map(|(name, _)| shown(name))).collect()
}

/// `12.30 ± 0.45`, with as many decimals as tell something.
fn with_confidence(interval: &Interval) -> String {
    let digits = if interval.mean.abs() >= 1_000.0 { 0 } else { 3 };
    let mean = format!("{:.digits$}", interval.mean);
    interval.half_width.map_or(mean.clone(), |half| format!("{mean} ± {half:.digits$}"))
}

fn fail(swept: &Swept, scenario: &str) -> Result<(), CliError> {
    let failed: Vec<_> = swept.failed().collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let values = |combination: usize| {
        let values = swept.combinations.get(combination).map_or(&[][..], |of| of.values.as_slice());
        swept
            .paths
            .iter()
            .zip(values)
            .map(|(path, value)| format!(" --set '{path}={value}'"))
            .collect::<String>()
    };
    let mut lines = vec![format!("{} of {} runs failed a check", failed.len(), swept.runs.len())];
    for run in failed.iter().take(NAMED_MAX) {
        for checked in &run.failures {
            let values = values(run.combination);
            lines.push(format!("--seed {}{values}: {}: {}", run.seed, checked.name, checked.detail));
        }
    }
    if failed.len() > NAMED_MAX {
        lines.push(format!("and {} more", failed.len() - NAMED_MAX));
    }
    let again = format!("omnimesh sim run {scenario} --seed {}{}", first.seed, values(first.combination));
    Err(CliError::new(Code::Failed, lines.join("\n")).hint(format!("do the first one again: {again}")))
}
