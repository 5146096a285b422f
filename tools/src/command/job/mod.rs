//! `job`, `workers` and `why job`: what the mesh computes.

mod result;
mod show;
mod submit;
mod wait;

use std::fs;
use std::path::Path;

use omnimesh_node::api::types::{
    JobEventView, JobLog, JobSummary, JobTask, JobTasks, Lagged, WhyJob, Worker,
};
use omnimesh_node::words;
use serde_json::{Value, json};

use super::inspect::{passed_on, typed};
use crate::cli::{Globals, JobCommand, JobListArgs, LogFormat, LogsArgs, TasksArgs};
use crate::client::{Client, Event, segment};
use crate::error::{CliError, Code};
use crate::files;
use crate::output::{self, Format, printable};

/// Tasks that are asked for at once.
const PAGE: u64 = 1000;

pub(super) fn run(globals: &Globals, what: &JobCommand) -> Result<(), CliError> {
    match what {
        JobCommand::Submit(args) => submit::submit(globals, args),
        JobCommand::List(args) => list(globals, args),
        JobCommand::Show { id } => show::show(globals, id),
        JobCommand::Tasks(args) => tasks(globals, args),
        JobCommand::Graph { id, out } => graph(globals, id, out.as_deref()),
        JobCommand::Logs(args) => logs(globals, args),
        JobCommand::Result(args) => result::result(globals, args),
        JobCommand::Cancel { id, reason } => {
            let client = Client::new(globals)?;
            let value: Value = client.post(&format!("{}/cancel", path(id)?), &json!({ "reason": reason }))?;
            summary(globals, &value)
        }
        JobCommand::Retry { id, wait } => {
            let client = Client::new(globals)?;
            let value: Value = client.post(&format!("{}/retry", path(id)?), &json!({}))?;
            if *wait {
                let job: JobSummary = typed(&value)?;
                return wait::wait(globals, &client, &job.id.to_string());
            }
            summary(globals, &value)
        }
    }
}

fn path(id: &str) -> Result<String, CliError> {
    if id.is_empty() {
        return Err(
            CliError::new(Code::Usage, "the id of the job is empty").hint("`omnimesh job list` shows ids")
        );
    }
    Ok(format!("/api/v1/jobs/{}", segment(&id.to_ascii_lowercase())))
}

/// How a job stands, in a few lines.
fn summary(globals: &Globals, value: &Value) -> Result<(), CliError> {
    let job: JobSummary = typed(value)?;
    output::record(globals.output, value, || {
        vec![
            ("id", job.id.to_string()),
            ("name", job.name.clone()),
            ("state", job.state.clone()),
            ("tasks", show::counts(&job.counts)),
            ("driver", job.driver.to_string()),
        ]
    })
}

fn list(globals: &Globals, args: &JobListArgs) -> Result<(), CliError> {
    let limit = args.limit.unwrap_or(100);
    let states: String = args.states.iter().map(|state| format!("&state={}", segment(state))).collect();
    let heads = ["id", "name", "state", "tasks", "submitted", "took", "driver", "held"];
    passed_on::<JobSummary>(globals, &format!("/api/v1/jobs?limit={limit}{states}"), &heads, |job| {
        let id = job.id.to_string();
        vec![
            id.get(..12).unwrap_or(&id).to_owned(),
            job.name.clone(),
            job.state.clone(),
            show::ended_of(job),
            words::moment(job.submitted_ms),
            words::duration(job.elapsed_ms),
            if job.driven_here { "this node".to_owned() } else { show::short(&job.driver.to_string()) },
            job.held.clone().unwrap_or_default(),
        ]
    })
}

/// The tasks of a job that are asked for, page after page.
fn each_task(
    client: &Client,
    path: &str,
    query: &str,
    limit: u64,
    mut each: impl FnMut(Value) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let (mut from, mut left) = (0, limit);
    while left > 0 {
        let page = left.min(PAGE);
        let value: Value = client.get(&format!("{path}/tasks?from={from}&limit={page}{query}"))?;
        let next = typed::<JobTasks>(&value)?.next;
        let tasks = value.get("tasks").and_then(Value::as_array).cloned().unwrap_or_default();
        left = left.saturating_sub(tasks.len() as u64);
        tasks.into_iter().try_for_each(&mut each)?;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(())
}

fn tasks(globals: &Globals, args: &TasksArgs) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let mut query: String = args.states.iter().map(|state| format!("&state={}", segment(state))).collect();
    if let Some(name) = &args.name {
        query.push_str(&format!("&name={}", segment(name)));
    }
    let limit = args.limit.unwrap_or(u64::MAX);
    if globals.output == Format::Ndjson {
        return each_task(&client, &path(&args.id)?, &query, limit, |task| output::line(&task));
    }
    let mut all = Vec::new();
    each_task(&client, &path(&args.id)?, &query, limit, |task| {
        all.push(task);
        Ok(())
    })?;
    if globals.output.is_json() {
        return output::document(&all);
    }
    let rows = all.iter().map(|task| Ok(task_row(&typed(task)?))).collect::<Result<Vec<_>, CliError>>()?;
    let heads = ["task", "state", "took", "cpu", "worker", "output", "detail"];
    output::list(Format::Table, &rows, &heads, Clone::clone)
}

fn task_row(task: &JobTask) -> Vec<String> {
    let workers: Vec<_> = task.workers.iter().map(|worker| show::short(&worker.to_string())).collect();
    let mut detail = match (&task.reason, &task.detail) {
        (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
        _ => String::new(),
    };
    if task.fallback {
        detail = format!("by its fallback {detail}").trim_end().to_owned();
    }
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let has_times = task.output.is_some();
    vec![
        format!("{}/{}", task.task, task.chunk),
        task.state.clone(),
        if has_times { words::duration(task.wall_ms) } else { "-".to_owned() },
        if has_times { words::duration(task.cpu_ms) } else { "-".to_owned() },
        or_dash(workers.join(" ")),
        task.output.map_or_else(
            || "-".to_owned(),
            |blob| {
                format!("{} ({})", blob.hash.to_string().get(..12).unwrap_or_default(), show::size(blob.size))
            },
        ),
        detail,
    ]
}

fn graph(globals: &Globals, id: &str, out: Option<&Path>) -> Result<(), CliError> {
    let svg = Client::new(globals)?.text(&format!("{}/graph", path(id)?))?;
    let Some(to) = out else {
        return if globals.output.is_json() {
            output::record(globals.output, &json!({ "svg": svg }), Vec::new)
        } else {
            output::text(&svg)
        };
    };
    fs::write(to, &svg).map_err(|error| files::cannot_write(to, &error))?;
    let item = json!({ "file": to.display().to_string(), "bytes": svg.len() });
    output::record(globals.output, &item, || {
        vec![("file", to.display().to_string()), ("bytes", svg.len().to_string())]
    })
}

fn logs(globals: &Globals, args: &LogsArgs) -> Result<(), CliError> {
    if args.format == LogFormat::Md && (args.follow || globals.output.is_json()) {
        let other =
            if args.follow { "--follow shows events as they happen" } else { "--output asks for JSON" };
        return Err(CliError::new(Code::Usage, format!("--format md is a report in Markdown, and {other}"))
            .hint("leave one of the two out; --format json is the report as JSON"));
    }
    let client = Client::new(globals)?;
    let base = path(&args.id)?;
    if args.format == LogFormat::Md {
        return output::text(&client.text(&format!("{base}/log?format=md"))?);
    }
    // The stream first: what happens between the two comes twice, and has a number.
    let mut stream = if args.follow { Some(client.events(&format!("{base}/events"))?) } else { None };
    let value: Value = client.get(&format!("{base}/log"))?;
    if args.format == LogFormat::Json && !args.follow {
        return if globals.output == Format::Ndjson {
            output::line(&value)
        } else {
            output::document(&value)
        };
    }
    let is_json = globals.output.is_json() || args.format == LogFormat::Json;
    let log: JobLog = typed(&value)?;
    if log.events_forgotten > 0 {
        output::tell(&format!("{} earlier events are forgotten", log.events_forgotten));
    }
    if globals.output == Format::Json && !args.follow {
        return output::document(&value["events"]);
    }
    let mut last = 0;
    for (value, event) in value["events"].as_array().into_iter().flatten().zip(&log.events) {
        print_event(is_json, value, event)?;
        last = event.number;
    }
    if log.job.state != "RUNNING" {
        return Ok(());
    }
    while let Some(stream) = &mut stream {
        let Some(event) = stream.next()? else {
            return Err(CliError::new(Code::Unreachable, "the node ended the stream of events"));
        };
        let Some((value, event)) = read_event(&event)? else { continue };
        if event.number <= last {
            continue;
        }
        print_event(is_json, &value, &event)?;
        if event.kind == "job_state" && event.state.as_deref() != Some("RUNNING") {
            break;
        }
    }
    Ok(())
}

fn read_event(event: &Event) -> Result<Option<(Value, JobEventView)>, CliError> {
    let failed = |error| {
        CliError::new(Code::Failed, format!("the node sent an event that is not understood: {error}"))
    };
    let value: Value = serde_json::from_str(&event.data).map_err(failed)?;
    if event.name == "lagged" {
        let lagged: Lagged = typed(&value)?;
        output::tell(&format!(
            "warning: {} events were lost: they came faster than they were read",
            lagged.lost
        ));
        return Ok(None);
    }
    let event = typed(&value)?;
    Ok(Some((value, event)))
}

fn print_event(is_json: bool, value: &Value, event: &JobEventView) -> Result<(), CliError> {
    if is_json { output::line(value) } else { output::text(&printable(&event_line(event))) }
}

fn event_line(event: &JobEventView) -> String {
    let mut line = format!("{}  {:<14}", words::precise_moment(event.at_ms), event.kind);
    if let (Some(task), Some(chunk)) = (&event.task, event.chunk) {
        line.push_str(&format!("  {task}/{chunk}"));
    }
    match (&event.from, &event.state) {
        (Some(from), Some(state)) => line.push_str(&format!("  {from} -> {state}")),
        (None, Some(state)) => line.push_str(&format!("  {state}")),
        _ => {}
    }
    for (name, text) in [
        ("at", event.worker.map(|worker| show::short(&worker.to_string()))),
        ("because", event.reason.clone()),
        ("", event.detail.clone()),
    ] {
        if let Some(text) = text {
            line.push_str(&format!("  {name}{}{text}", if name.is_empty() { "" } else { " " }));
        }
    }
    line
}

/// Why a job, or a task of it, is as it is.
pub(super) fn why(globals: &Globals, client: &Client, id: &str, task: Option<&str>) -> Result<(), CliError> {
    let task = task.map_or_else(String::new, |task| format!("?task={}", segment(task)));
    let id = id.to_ascii_lowercase();
    let value: Value = client.get(&format!("/api/v1/why/jobs/{}{task}", segment(&id)))?;
    let why: WhyJob = typed(&value)?;
    output::record(globals.output, &value, || {
        let mut fields = vec![("job", format!("{} ({})", why.name, why.job))];
        fields.extend(why.task.map(|task| ("task", task)));
        fields.push(("state", why.state));
        for reason in why.reasons {
            fields.push(("because", reason.because));
            if !reason.remedy.is_empty() {
                fields.push(("remedy", reason.remedy));
            }
        }
        fields
    })
}

/// Those who take work.
pub(super) fn workers(globals: &Globals) -> Result<(), CliError> {
    let heads = [
        "peer id", "slots", "room", "active", "memory", "breaker", "done", "failed", "wrong", "p50", "p95",
        "slowness", "labels",
    ];
    passed_on::<Worker>(globals, "/api/v1/workers", &heads, |worker| {
        let mut labels: Vec<_> =
            worker.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        labels.extend(worker.region.iter().map(|region| format!("region={region}")));
        vec![
            worker.peer_id.to_string(),
            worker.slots.to_string(),
            worker.room.to_string(),
            worker.active.to_string(),
            show::size(worker.memory_bytes),
            worker.breaker.clone(),
            worker.succeeded.to_string(),
            worker.failed.to_string(),
            worker.dissents.to_string(),
            output::millis(worker.p50_ms),
            output::millis(worker.p95_ms),
            format!("{:.2}", worker.slowness),
            labels.join(" "),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event: JobEventView = serde_json::from_value(json!({
            "job": "00".repeat(32), "number": 3, "kind": "attempt_failed", "at_ms": 0, "step": 5,
            "task": "count", "chunk": 7, "from": null, "state": null, "worker": null,
            "reason": "memory_limit", "detail": "17 bytes too much; is tried again",
        }))
        .unwrap();
        assert_eq!(
            event_line(&event),
            "1970-01-01T00:00:00.000Z  attempt_failed  count/7  because memory_limit  17 bytes too much; is tried again"
        );
        let event = JobEventView {
            kind: "task_state".to_owned(),
            from: Some("READY".to_owned()),
            state: Some("RUNNING".to_owned()),
            reason: None,
            detail: None,
            ..event
        };
        assert_eq!(event_line(&event), "1970-01-01T00:00:00.000Z  task_state      count/7  READY -> RUNNING");
    }

    #[test]
    fn a_path_is_of_a_job() {
        assert_eq!(path("AB12").unwrap(), "/api/v1/jobs/ab12");
        assert_eq!(path("").unwrap_err().code, Code::Usage);
    }
}
