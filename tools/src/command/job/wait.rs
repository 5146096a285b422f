//! Waits for the end of a job, and shows on the way how far it is.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use omnimesh_node::api::types::{JobDetail, JobSummary};
use serde_json::Value;

use super::super::inspect::typed;
use super::show;
use crate::cli::Globals;
use crate::client::Client;
use crate::error::{CliError, Code};
use crate::output::{self, printable};

/// The first and the longest wait before the node is asked again: short jobs end at once, and long ones are no burden.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Waits until the job has ended, and prints how; an error if it has not succeeded.
pub(super) fn wait(globals: &Globals, client: &Client, id: &str) -> Result<(), CliError> {
    let began = Instant::now();
    let line = Line::new();
    let mut wait = WAIT_MIN;
    let value = loop {
        let mut found: Vec<Value> =
            client.get(&format!("/api/v1/jobs?prefix={id}&limit=1")).map_err(|error| {
                let hint =
                    format!("the job goes on without this command: `omnimesh job show {id}` at any node");
                if error.hint.is_some() { error } else { error.hint(hint) }
            })?;
        let Some(value) = found.pop() else {
            return Err(CliError::new(Code::NotFound, format!("the node knows no job {id} any more")));
        };
        let job: JobSummary = typed(&value)?;
        line.show(&job);
        if job.state != "RUNNING" {
            break value;
        }
        if globals.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            let message = format!("the job has not ended: {}", progress_text(&job));
            return Err(CliError::new(Code::Timeout, message).hint(format!(
                "it goes on: `omnimesh job show {id}`; `omnimesh why job {id}` says what holds it up"
            )));
        }
        thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
    };
    drop(line);
    super::summary(globals, &value)?;
    let job: JobSummary = typed(&value)?;
    if job.state == "SUCCEEDED" { Ok(()) } else { Err(failed(client, &job)) }
}

fn failed(client: &Client, job: &JobSummary) -> CliError {
    let mut message = format!("the job is {}", job.state);
    if let Ok(detail) = client.get::<JobDetail>(&format!("/api/v1/jobs/{}", job.id)) {
        for failure in detail.failures.iter().take(3) {
            message +=
                &format!("\n{}/{}: {}: {}", failure.task, failure.chunk, failure.reason, failure.detail);
        }
        if let Some(cancelled) = detail.cancelled {
            message += &format!(": {} {}", cancelled.reason, cancelled.detail);
        }
    }
    CliError::new(Code::Failed, message).hint(format!("`omnimesh why job {}` says more", job.id))
}

fn progress_text(job: &JobSummary) -> String {
    let counts = job.counts;
    let mut text = format!("{} {:.0} %", show::ended_of(job), job.progress * 100.0);
    for (count, name) in [(counts.running, "running"), (counts.failed, "failed"), (counts.skipped, "skipped")]
    {
        if count > 0 {
            text += &format!(", {count} {name}");
        }
    }
    if let Some(held) = &job.held {
        text += &format!(", held: {held}");
    }
    text
}

/// One line that is drawn again on a terminal; elsewhere a line for each change.
struct Line {
    bar: Option<ProgressBar>,
    last: std::cell::RefCell<String>,
}

impl Line {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1);
            let style = ProgressStyle::with_template("{prefix} {bar:30} {msg}  {elapsed}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Line { bar, last: std::cell::RefCell::default() }
    }

    fn show(&self, job: &JobSummary) {
        let text = printable(&progress_text(job));
        let Some(bar) = &self.bar else {
            if *self.last.borrow() != text {
                output::tell(&format!("{}  {}", job.state, text));
                *self.last.borrow_mut() = text;
            }
            return;
        };
        bar.set_prefix(printable(&job.name));
        bar.set_length(u64::from(job.tasks));
        bar.set_position(u64::from(show::ended(job)));
        bar.set_message(text);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
