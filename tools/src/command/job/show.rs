//! `job show`: a job at a glance.

use omnimesh_node::api::types::{JobDetail, JobFamily, JobSummary, TaskCounts};
use omnimesh_node::words::{duration, moment};
use serde_json::Value;

use super::super::inspect::typed;
use super::path;
use crate::cli::Globals;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Format, printable};

/// Cells of a bar.
const BAR: u64 = 20;

pub(super) fn show(globals: &Globals, id: &str) -> Result<(), CliError> {
    let value: Value = Client::new(globals)?.get(&path(id)?)?;
    if globals.output.is_json() {
        return output::record(globals.output, &value, Vec::new);
    }
    let job: JobDetail = typed(&value)?;
    let summary = &job.summary;
    output::text(&printable(&format!(
        "{}  {}  {} {} %  {}",
        summary.name,
        summary.state,
        bar(&summary.counts),
        percent(summary),
        duration(summary.elapsed_ms)
    )))?;
    output::text("")?;
    output::record(Format::Table, &value, || fields(&job))?;
    output::text("")?;
    let heads =
        ["task", "operation", "progress", "ended", "running", "p50", "p95", "longest", "after", "fan-out"];
    output::list(Format::Table, &job.families, &heads, family_row)?;
    if job.families.iter().any(|family| family.on_critical_path) {
        output::text("* on the longest chain of tasks that wait for one another")?;
    }
    if !job.workers.is_empty() {
        output::text("")?;
        let heads = ["worker", "results", "share", "work", "cpu", "running"];
        output::list(Format::Table, &job.workers, &heads, |worker| {
            vec![
                worker.peer_id.to_string(),
                worker.tasks.to_string(),
                format!("{:.0} %", worker.share * 100.0),
                duration(worker.work_ms),
                duration(worker.cpu_ms),
                worker.running.to_string(),
            ]
        })?;
    }
    output::text("")?;
    let heads = ["output", "task", "chunks", "size", "blob"];
    output::list(Format::Table, &job.outputs, &heads, |output| {
        let blob = match output.blobs.as_slice() {
            [] => "-".to_owned(),
            [blob] => blob.hash.to_string(),
            [blob, ..] => format!("{} and {} more", blob.hash, output.done.saturating_sub(1)),
        };
        vec![
            output.name.clone(),
            output.task.clone(),
            format!("{}/{}", output.done, output.chunks),
            size(output.size),
            blob,
        ]
    })
}

fn fields(job: &JobDetail) -> Vec<(&'static str, String)> {
    let summary = &job.summary;
    let driver = if summary.driven_here {
        format!("{} (this node)", summary.driver)
    } else {
        summary.driver.to_string()
    };
    let parallel = if summary.elapsed_ms == 0 { 0.0 } else { job.work_ms as f64 / summary.elapsed_ms as f64 };
    let mut fields = vec![
        ("id", summary.id.to_string()),
        ("submitted", format!("{} by {}", moment(summary.submitted_ms), summary.submitter)),
        ("driver", driver),
        ("tasks", counts(&summary.counts)),
        (
            "work",
            format!(
                "{} ({} of CPU), {parallel:.1} workers busy in the mean; longest chain {}",
                duration(job.work_ms),
                duration(job.cpu_ms),
                duration(job.critical_path_ms)
            ),
        ),
        ("deadline", duration(job.deadline_s.saturating_mul(1000))),
    ];
    if summary.round > 0 {
        fields.push(("round", format!("{} (each retry begins one)", summary.round)));
    }
    fields.extend(job.inputs.iter().map(|input| ("input", format!("{} ({})", input.name, size(input.size)))));
    if let Some(held) = &job.held_task {
        fields.push(("held", format!("{}/{}: {}", held.task, held.chunk, held.reason)));
        fields.push(("remedy", held.remedy.clone()));
    }
    if let Some(cancelled) = &job.cancelled {
        fields.push(("cancelled", format!("{}: {}", cancelled.reason, cancelled.detail)));
    }
    for failure in &job.failures {
        let text = format!("{}/{}: {}: {}", failure.task, failure.chunk, failure.reason, failure.detail);
        fields.push(("failed", text));
    }
    fields.extend(job.dissenters.iter().map(|worker| ("was wrong", worker.to_string())));
    fields
}

fn family_row(family: &JobFamily) -> Vec<String> {
    let times = family.times;
    let time = |ms| if times.done == 0 { "-".to_owned() } else { duration(ms) };
    let mark = if family.on_critical_path { " *" } else { "" };
    let redundancy = if family.redundancy > 1 { format!(" x{}", family.redundancy) } else { String::new() };
    let after = if family.after.is_empty() { "-".to_owned() } else { family.after.join(" ") };
    vec![
        format!("{}{mark}", family.name),
        format!("{}{redundancy}", family.operation),
        bar(&family.counts),
        format!("{}/{}", ended_count(&family.counts), family.tasks),
        family.counts.running.to_string(),
        time(times.p50_ms),
        time(times.p95_ms),
        time(times.max_ms),
        after,
        family.fan_out.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// What has succeeded, what is under way, what has come to nothing, and what is left.
fn bar(counts: &TaskCounts) -> String {
    let lost = counts.failed + counts.skipped + counts.cancelled;
    let total = u64::from(counts.succeeded + counts.running + counts.ready + counts.pending + lost).max(1);
    let cells = |until: u32| u64::from(until) * BAR / total;
    let (done, gone, busy) = (
        cells(counts.succeeded),
        cells(counts.succeeded + lost),
        cells(counts.succeeded + lost + counts.running),
    );
    let part = |c: char, from: u64, to: u64| (from..to).map(move |_| c);
    part('█', 0, done)
        .chain(part('x', done, gone))
        .chain(part('▒', gone, busy))
        .chain(part('·', busy, BAR))
        .collect()
}

fn percent(job: &JobSummary) -> String {
    // 99.9 % is not done.
    format!("{:.0}", (job.progress * 100.0).floor())
}

/// The states that occur, with their counts.
pub(super) fn counts(counts: &TaskCounts) -> String {
    let all = [
        (counts.succeeded, "succeeded"),
        (counts.running, "running"),
        (counts.ready, "ready"),
        (counts.pending, "pending"),
        (counts.failed, "failed"),
        (counts.skipped, "skipped"),
        (counts.cancelled, "cancelled"),
    ];
    let texts: Vec<_> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    texts.join(", ")
}

fn ended_count(counts: &TaskCounts) -> u32 {
    counts.succeeded + counts.failed + counts.skipped + counts.cancelled
}

pub(super) fn ended(job: &JobSummary) -> u32 {
    ended_count(&job.counts)
}

pub(super) fn ended_of(job: &JobSummary) -> String {
    format!("{}/{}", ended(job), job.tasks)
}

/// A length for people.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// The end of a peer id: enough to tell the peers of a mesh apart.
pub(super) fn short(peer: &str) -> String {
    peer.get(peer.len().saturating_sub(8)..).unwrap_or(peer).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_always_as_long() {
        let counts = |succeeded, running, failed, pending| TaskCounts {
            succeeded,
            running,
            failed,
            pending,
            ..TaskCounts::default()
        };
        for (counts, expected) in [
            (counts(0, 0, 0, 0), "····················"),
            (counts(10, 0, 0, 0), "████████████████████"),
            (counts(10, 5, 0, 5), "██████████▒▒▒▒▒·····"),
            (counts(1, 0, 1, 2), "█████xxxxx··········"),
            (counts(2, 1, 0, 0), "█████████████▒▒▒▒▒▒▒"),
        ] {
            assert_eq!(bar(&counts), expected);
        }
    }
}
