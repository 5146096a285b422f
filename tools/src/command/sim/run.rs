//! `sim run`.

use std::path::{Path, PathBuf};

use omnimesh_sim::experiment::{self, Run, refuse_others};
use omnimesh_sim::model::Options;
use omnimesh_sim::report::MANIFEST;
use omnimesh_sim::scenario::{Engine, ScenarioFile};
use omnimesh_sim::summary::{ComputeSummary, LogSummary, Manifest, Summary};
use serde_json::{Value, json};

use super::progress::{Bar, short};
use super::{command_line, load, runner, threads};
use crate::cli::RunArgs;
use crate::error::{CliError, Code};
use crate::output::{self, Format, millis};

pub(super) fn run(format: Format, args: &RunArgs) -> Result<(), CliError> {
    let threads = threads("--threads", args.threads)?;
    let file = load(&args.scenario, &args.with, &args.set)?;
    let dir = args.out.clone().unwrap_or_else(|| default_dir(&file));
    refuse_others(&dir, MANIFEST)?;
    let done = simulate(&file, threads)?;
    let manifest = experiment::save(&dir, &file, &done, &command_line())?;
    show(format, &manifest, &done.summary, &dir)?;
    output::tell(&format!("report: {}", dir.join("report.html").display()));
    fail(&manifest, &done, &dir)
}

fn default_dir(file: &ScenarioFile) -> PathBuf {
    PathBuf::from(format!("omnimesh-run-{}-{}", file.scenario.name, file.scenario.seed))
}

/// Runs it with a bar for people.
pub(super) fn simulate(file: &ScenarioFile, threads: usize) -> Result<Run, CliError> {
    let bar = Bar::new(file.scenario.name.clone());
    let mut tell = |now| bar.set(now);
    Ok(experiment::run(runner(), file, Options { threads, progress: Some(&mut tell) })?)
}

fn show(format: Format, manifest: &Manifest, summary: &Summary, dir: &Path) -> Result<(), CliError> {
    let mut document = json!(summary);
    if let Value::Object(fields) = &mut document {
        fields.insert("manifest".to_owned(), json!(manifest));
        fields.insert("folder".to_owned(), json!(dir.display().to_string()));
    }
    output::record(format, &document, || fields(manifest, summary))
}

/// A figure, if there is one.
fn text(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn fields(manifest: &Manifest, summary: &Summary) -> Vec<(&'static str, String)> {
    let latency = &summary.latency_ms;
    let mut fields = vec![
        ("scenario", manifest.scenario.clone()),
        ("engine", manifest.engine.clone()),
        ("nodes", manifest.nodes.to_string()),
        ("seed", manifest.seed.to_string()),
        (
            "delivered",
            format!("{} of {} ({})", summary.deliveries, summary.expected, percent(summary.delivery_ratio)),
        ),
        (
            "latency",
            format!(
                "p50 {}, p95 {}, p99 {}, max {}",
                millis(latency.p50),
                millis(latency.p95),
                millis(latency.p99),
                millis(latency.max)
            ),
        ),
        ("duplicates", format!("{} (rmr {})", summary.duplicates, text(summary.rmr, 2))),
        ("last hop", text(summary.ldh, 1)),
        (
            "step skew",
            format!("p50 {}, max {}", millis(summary.step_skew_ms.p50), millis(summary.step_skew_ms.max)),
        ),
    ];
    if summary.log.appends > 0 {
        fields.extend(log_fields(&summary.log));
    }
    if summary.compute.jobs > 0 {
        fields.extend(compute_fields(&summary.compute));
    }
    if summary.detector.adversaries > 0 {
        let detector = &summary.detector;
        let found = format!(
            "{} of {} found, {} honest ones shut out",
            detector.quarantined, detector.adversaries, detector.false_quarantined
        );
        fields.push(("adversaries", found));
    }
    fields.extend(summary.faults.iter().map(|effect| {
        (
            "fault",
            format!("{}: took effect {} times ({} planned)", effect.name, effect.effective, effect.planned),
        )
    }));
    fields.extend(summary.checkers.iter().map(|checked| {
        let verdict = if checked.ok { "ok" } else { "FAILED" };
        ("check", format!("{verdict} {}: {}", checked.name, checked.detail))
    }));
    fields.push((
        "took",
        format!(
            "{:.1} s for {:.1} virtual s, {} events, {} events/s, {} B",
            summary.wall_seconds,
            summary.sim_seconds,
            short(summary.events as f64),
            summary.events_per_second.map_or_else(|| "-".to_owned(), short),
            short(summary.peak_rss_bytes as f64)
        ),
    ));
    fields.push(("trace hash", manifest.trace_hash.clone()));
    fields
}

/// The durable log: what was asked for, what is there, and whether it is the same everywhere.
fn log_fields(log: &LogSummary) -> Vec<(&'static str, String)> {
    let (took, everywhere) = (&log.acknowledged_ms, &log.everywhere_ms);
    let mut fields = vec![
        (
            "appended",
            format!(
                "{} of {} acknowledged (p50 {}, p99 {}), {} refused, {} unanswered",
                log.acknowledged,
                log.appends,
                millis(took.p50),
                millis(took.p99),
                log.refused,
                log.unanswered
            ),
        ),
        ("lost", format!("{} of {}", log.lost, log.acknowledged)),
        (
            "everywhere",
            format!("{} (p50 {}, p99 {})", log.everywhere, millis(everywhere.p50), millis(everywhere.p99)),
        ),
        ("equal logs", format!("{} of {} nodes, and their registries", log.equal_nodes, log.nodes)),
    ];
    if log.checkpoints > 0 {
        let text = format!(
            "{} sealed, taken in place of entries {} times; a node has dropped up to {} entries",
            log.checkpoints, log.checkpoints_adopted, log.entries_dropped
        );
        fields.push(("checkpoints", text));
    }
    fields
}

/// Jobs: whether they ended and right, how long they took, and what that cost.
fn compute_fields(compute: &ComputeSummary) -> Vec<(&'static str, String)> {
    let seconds = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} s"));
    vec![
        (
            "jobs",
            format!(
                "{} of {} succeeded, {} tasks, {} results wrong, driven on by others {} times",
                compute.succeeded, compute.jobs, compute.tasks, compute.wrong, compute.takeovers
            ),
        ),
        (
            "makespan",
            format!(
                "{}, {} times the bound of {}",
                seconds(compute.makespan_s),
                text(compute.makespan_ratio, 3),
                seconds(compute.bound_s)
            ),
        ),
        (
            "attempts",
            format!(
                "{} run, {} stopped, {} lost, {} refused for lack of room, {} beside stragglers, {} more voters",
                compute.runs, compute.stopped, compute.lost, compute.busy, compute.stragglers, compute.ties
            ),
        ),
        (
            "liars",
            format!(
                "{} of {} found, {} honest workers accused",
                compute.liars_found, compute.liars, compute.honest_accused
            ),
        ),
    ]
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0))
}

/// The checks that are not fulfilled, if there are any.
fn fail(manifest: &Manifest, run: &Run, dir: &Path) -> Result<(), CliError> {
    let failed: Vec<_> = run
        .failed()
        .map(|checked| format!("the check `{}` failed: {}", checked.name, checked.detail))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let again = match manifest.engine == Engine::Libp2p.name() {
        true => String::new(),
        false => "; `omnimesh sim rerun` with this folder does it again".to_owned(),
    };
    let hint = format!("see {}{again}", dir.display());
    Err(CliError::new(Code::Failed, failed.join("\n")).hint(hint))
}
