//! `monitor`: the node as it is now, again and again.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Instant;

use omnimesh_node::api::types::{Level, MetricView, Monitor};
use serde_json::Value;

use super::inspect::typed;
use crate::cli::{Globals, MonitorArgs};
use crate::client::Client;
use crate::error::{CliError, Code};
use crate::output::{self, Format, printable};

/// Clears the screen and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(globals: &Globals, args: &MonitorArgs) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let is_screen = globals.output == Format::Table && io::stdout().is_terminal();
    let began = Instant::now();
    let mut looks = 0;
    loop {
        let value: Value = client.get("/api/v1/monitor")?;
        match globals.output {
            Format::Table => {
                let screen = screen(&typed(&value)?);
                output::text(&if is_screen { format!("{CLEAR}{screen}") } else { screen })?;
            }
            Format::Json | Format::Ndjson => output::line(&value)?,
        }
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        let left = globals.timeout.map_or(args.interval, |timeout| timeout.saturating_sub(began.elapsed()));
        thread::sleep(args.interval.min(left));
        if left < args.interval {
            let of = args.count.map_or_else(String::new, |count| format!(" of {count}"));
            let times = if looks == 1 && args.count.is_none() { "time" } else { "times" };
            let message = format!("looked {looks}{of} {times} in the time it was given");
            return Err(CliError::new(Code::Timeout, message)
                .hint("give it longer with --timeout SECONDS, or none to go on until Ctrl-C"));
        }
    }
}

fn screen(view: &Monitor) -> String {
    let mut lines = vec![
        format!(
            "step {}  health {:.2}  {}  members {}  peers {}",
            view.step.map_or_else(|| "-".to_owned(), |step| step.to_string()),
            view.health,
            view.level.code().to_uppercase(),
            view.members,
            view.peers
        ),
        format!(
            "verified delivery {}  {:.1} messages/s  {:.1} refused/s  own doubt {:.2}  in quarantine {}",
            view.verified_delivery,
            view.messages_per_second,
            view.refused_per_second,
            view.doubt,
            view.quarantined
        ),
        String::new(),
    ];
    lines.extend(view.metrics.iter().map(metric));
    lines.push(String::new());
    if view.alerts.is_empty() {
        lines.push("no alerts".to_owned());
    }
    for alert in &view.alerts {
        let by = alert.acknowledged_by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
        lines.push(format!("alert {} ({}{by}): {}", alert.id, alert.stage, alert.detail));
    }
    for found in &view.findings {
        let (kind, accused) = (found.kind.code(), &found.accused);
        lines.push(format!("step {}: {kind} of {accused}: {}", found.step, found.detail));
    }
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

fn metric(view: &MetricView) -> String {
    let mark = match view.level {
        Level::Normal => " ",
        Level::Warning => "!",
        Level::Critical => "!!",
    };
    let outlook = view.outlook.as_ref().map_or_else(String::new, |outlook| format!("  {outlook}"));
    format!("{mark:2} {:24} {}{outlook}", view.name, view.text)
}
