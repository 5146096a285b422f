//! A run log for people, as Markdown.

use std::fmt::Write as _;

use super::document::{bytes_text, counts_text};
use crate::api::types::{JobEventView, JobLog};
use crate::words::{duration, moment, precise_moment};

/// Events that are told: the newest.
const EVENTS_MAX: usize = 40;

/// Writes a run log down.
pub fn markdown(log: &JobLog) -> String {
    let mut text = String::new();
    head(log, &mut text);
    families(log, &mut text);
    workers(log, &mut text);
    bottleneck(log, &mut text);
    troubles(log, &mut text);
    events(log, &mut text);
    text
}

/// A line; writing to a text cannot fail.
macro_rules! line {
    ($text:expr, $($part:tt)*) => { let _ = writeln!($text, $($part)*); };
}

fn head(log: &JobLog, text: &mut String) {
    let (job, times) = (&log.job, &log.times);
    line!(text, "# Job `{}`: {}\n", job.name, job.state);
    line!(text, "| | |\n|---|---|");
    line!(text, "| id | `{}` |", job.id);
    line!(text, "| submitted | {} by `{}` |", moment(times.submitted_ms), job.submitter);
    if let Some(started) = times.started_ms {
        line!(text, "| first attempt | {} |", moment(started));
    }
    if let Some(ended) = times.ended_ms {
        line!(text, "| ended | {} |", moment(ended));
    }
    line!(text, "| took | {} |", duration(times.elapsed_ms));
    line!(text, "| driver | `{}` |", job.driver);
    line!(text, "| tasks | {} ({}) |", job.tasks, counts_text(&job.counts));
    line!(
        text,
        "| work | {} in all, {} of it CPU; {:.1} workers busy in the mean |",
        duration(times.work_ms),
        duration(times.cpu_ms),
        times.parallelism
    );
    line!(text, "| longest chain | {} |", duration(times.critical_path_ms));
    if job.round > 0 {
        line!(text, "| round | {} |", job.round);
    }
}

fn families(log: &JobLog, text: &mut String) {
    line!(text, "\n## Tasks\n");
    line!(
        text,
        "| task | operation | tasks | state | median | 95 % | longest | work | CPU | longest chain | output | attempts |"
    );
    line!(text, "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for family in &log.families {
        let times = family.times;
        line!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            family.name,
            family.operation,
            family.tasks,
            counts_text(&family.counts),
            duration(times.p50_ms),
            duration(times.p95_ms),
            duration(times.max_ms),
            duration(times.work_ms),
            duration(times.cpu_ms),
            duration(family.critical_ms),
            bytes_text(family.output_bytes),
            if family.attempts == 0 { "not seen here".to_owned() } else { family.attempts.to_string() }
        );
    }
}

fn workers(log: &JobLog, text: &mut String) {
    if log.workers.is_empty() {
        return;
    }
    line!(text, "\n## Workers\n");
    line!(text, "| worker | results | share | work | CPU |\n|---|--:|--:|--:|--:|");
    for worker in &log.workers {
        line!(
            text,
            "| `{}` | {} | {:.0} % | {} | {} |",
            worker.peer_id,
            worker.tasks,
            worker.share * 100.0,
            duration(worker.work_ms),
            duration(worker.cpu_ms)
        );
    }
}

fn bottleneck(log: &JobLog, text: &mut String) {
    line!(text, "\n## Bottleneck\n\n{}.", log.bottleneck);
    if !log.critical_path.is_empty() {
        line!(text, "\n| longest chain | took | at |\n|---|--:|---|");
        for step in &log.critical_path {
            let worker = step.worker.map_or_else(|| "-".to_owned(), |worker| format!("`{worker}`"));
            line!(text, "| `{}/{}` | {} | {worker} |", step.task, step.chunk, duration(step.wall_ms));
        }
    }
    line!(text, "\n## Suggestions\n");
    if log.suggestions.is_empty() {
        line!(text, "None: nothing stands out.");
    }
    for found in &log.suggestions {
        line!(text, "* {}: {}.", capital(&found.advice), found.because);
    }
}

fn troubles(log: &JobLog, text: &mut String) {
    let troubles = &log.troubles;
    line!(text, "\n## Troubles\n");
    if troubles.attempts == 0 {
        line!(text, "This node has not seen the attempts: the node that drove the job then has.");
        return;
    }
    let mut told: Vec<_> = [
        (troubles.failures, "failed by the task's fault"),
        (troubles.losses, "failed by the worker's fault"),
        (troubles.stragglers, "took so long that another was begun beside them"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if told.is_empty() {
        told.push("none failed".to_owned());
    }
    line!(text, "Of {} attempts: {}.", troubles.attempts, told.join("; "));
    for (count, what) in [
        (troubles.ties, "votes had no majority at first"),
        (troubles.restored, "outputs were lost and made again"),
        (troubles.drivers, "times another node became the driver"),
        (troubles.held, "times a task could not be given to a worker, each for another reason than before"),
    ] {
        if count > 0 {
            line!(text, "* {count} {what}.");
        }
    }
    for (reason, count) in &troubles.reasons {
        line!(text, "* {count} attempts failed with `{reason}`.");
    }
}

fn events(log: &JobLog, text: &mut String) {
    if log.events.is_empty() {
        return;
    }
    line!(text, "\n## Events\n");
    // What each task has is left out first.
    let is_routine = |event: &&JobEventView| event.kind == "task_state" || event.kind == "attempt";
    let is_long = log.events.len() > EVENTS_MAX;
    let told: Vec<_> = log.events.iter().filter(|event| !is_long || !is_routine(event)).collect();
    let left_out = told.len().saturating_sub(EVENTS_MAX);
    let all = log.events.len() as u64 + log.events_forgotten;
    if is_long || log.events_forgotten > 0 {
        line!(
            text,
            "{} of {all}, those of single tasks left out; `omnimesh job logs` has more.\n",
            told.len() - left_out
        );
    }
    line!(text, "| when | what | task | state | at | detail |\n|---|---|---|---|---|---|");
    for event in told.into_iter().skip(left_out) {
        line!(text, "{}", row(event));
    }
}

fn row(event: &JobEventView) -> String {
    let task = match (&event.task, event.chunk) {
        (Some(task), Some(chunk)) => format!("`{task}/{chunk}`"),
        _ => String::new(),
    };
    let state = match (&event.from, &event.state) {
        (Some(from), Some(state)) => format!("{from} → {state}"),
        (_, Some(state)) => state.clone(),
        _ => String::new(),
    };
    let worker = event.worker.map_or_else(String::new, |worker| format!("`{worker}`"));
    let detail: Vec<_> =
        [&event.reason, &event.detail].into_iter().flatten().map(|text| cell(text)).collect();
    format!(
        "| {} | {} | {task} | {state} | {worker} | {} |",
        precise_moment(event.at_ms),
        event.kind,
        detail.join(": ")
    )
}

/// What others have written, so that it stays within its cell.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '\\' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
