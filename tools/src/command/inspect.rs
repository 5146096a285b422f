//! What a running node sees: `status`, `members`, `peers`, `step`, `metrics`, `anomalies`, `invite`, `why`.
//!
//! JSON is passed on as the node sent it, so that fields of a later version are not lost; tables are made
//! from the fields that are known.

use std::thread;
use std::time::{Duration, Instant};

use omnimesh_node::api::types::WhyPeer as Reasons;
use omnimesh_node::api::types::{
    InviteView, Member, MemberState, MemoryPart, Outcome, Peer, Standing, Status, StepView, WhyMessage,
    WhyRecord, WhyStep,
};
use omnimesh_protocol::{NodeId, Step};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::{AnomaliesArgs, Globals, QuarantineCommand, StatusArgs, WhyCommand};
use crate::client::{Client, segment};
use crate::error::{CliError, Code};
use crate::output::{self, Format, millis, printable};

/// How long to wait for a node, unless told otherwise.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two questions whether it is ready.
const POLL: Duration = Duration::from_millis(100);

pub(super) fn invite(globals: &Globals) -> Result<(), CliError> {
    let view: InviteView = Client::new(globals)?.get("/api/v1/invite")?;
    if view.this_machine_only {
        output::tell(
            "this invite works on this machine only, since the node listens on loopback alone: for other machines, start it with \
             --listen /ip4/0.0.0.0/tcp/7411, or set network.external to where they reach it",
        );
    }
    match globals.output {
        Format::Table => output::text(&view.invite),
        Format::Json => output::document(&view),
        Format::Ndjson => output::line(&view),
    }
}

pub(super) fn status(globals: &Globals, args: &StatusArgs) -> Result<(), CliError> {
    let value = if args.wait { wait_ready(globals)? } else { read_status(globals)? };
    let status: Status = typed(&value)?;
    output::record(globals.output, &value, || {
        let ready = match (status.ready, &status.not_ready_reason) {
            (true, _) => "yes".to_owned(),
            (false, Some(reason)) => format!("no: {reason}"),
            (false, None) => "no".to_owned(),
        };
        vec![
            ("peer id", status.peer_id.to_string()),
            ("mesh", format!("{} (id {})", status.mesh_name, status.mesh_id)),
            ("ready", ready),
            ("step", step_of(&status)),
            ("members", status.members.to_string()),
            ("peers", status.peers.to_string()),
            ("verified delivery", status.verified_delivery),
            ("memory", memory(&status.memory)),
            ("uptime", seconds(status.uptime_s)),
            ("listen", status.listen.join(" ")),
            (
                "log",
                status.log_trouble.map_or_else(|| "ok".to_owned(), |trouble| format!("trouble: {trouble}")),
            ),
            ("api", status.api),
            ("version", status.version),
        ]
    })
}

/// The step, if the node has one: before it has heard of the mesh's, it counts none.
fn step_of(status: &Status) -> String {
    if !status.ready && status.step == Step(0) {
        return "-".to_owned();
    }
    format!("{} (phase {}, {} ms each)", status.step, status.phase, status.step_interval_ms)
}

/// What is held of the budget, and what was shed for want of room.
fn memory(parts: &[MemoryPart]) -> String {
    let mib = |bytes: usize| bytes / (1 << 20);
    let budget = parts.iter().map(|part| part.budget_bytes).sum();
    let used = parts.iter().filter_map(|part| part.used_bytes).sum();
    let shed: Vec<String> =
        parts.iter().filter(|p| p.shed > 0).map(|p| format!("{} shed {}", p.part.name(), p.shed)).collect();
    let shed = if shed.is_empty() { "nothing shed".to_owned() } else { shed.join(", ") };
    format!("{} of {} MiB held, {shed}", mib(used), mib(budget))
}

fn read_status(globals: &Globals) -> Result<Value, CliError> {
    Client::new(globals)?.get("/api/v1/status")
}

/// The status of the node, once there is one that is ready.
fn wait_ready(globals: &Globals) -> Result<Value, CliError> {
    let limit = globals.timeout.unwrap_or(READY_WITHIN);
    let deadline = Instant::now() + limit;
    loop {
        let because = match read_status(globals) {
            Ok(value) if value["ready"] == json!(true) => return Ok(value),
            Ok(value) => output::cell(value.get("not_ready_reason")),
            Err(error) if error.code == Code::Unreachable => error.message,
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            let waited = limit.as_secs_f64();
            return Err(CliError::new(Code::Timeout, format!("not ready after {waited} s: {because}"))
                .hint("--timeout SECONDS waits longer; the node's log tells more"));
        }
        thread::sleep(POLL);
    }
}

pub(super) fn members(globals: &Globals) -> Result<(), CliError> {
    let heads = ["peer id", "state", "step", "last seen", "rtt", "addresses"];
    passed_on::<Member>(globals, "/api/v1/members", &heads, |member| {
        vec![
            member.peer_id.to_string(),
            state(member.state).to_owned(),
            member.step.map_or_else(|| "-".to_owned(), |step| step.to_string()),
            if member.this_node { "this node".to_owned() } else { format!("{} ms", member.last_seen_ms) },
            millis(member.rtt_ms),
            member.addresses.join(" "),
        ]
    })
}

pub(super) fn peers(globals: &Globals) -> Result<(), CliError> {
    let heads = ["peer id", "member", "direction", "protocol", "score", "rtt", "connected", "addresses"];
    passed_on::<Peer>(globals, "/api/v1/peers", &heads, |peer| {
        vec![
            peer.peer_id.clone(),
            if peer.member { "yes" } else { "no" }.to_owned(),
            name(&peer.direction),
            peer.protocol.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{:.2}", peer.score),
            millis(peer.rtt_ms),
            seconds(peer.connected_s),
            peer.addresses.join(" "),
        ]
    })
}

pub(super) fn step(globals: &Globals) -> Result<(), CliError> {
    let value: Value = Client::new(globals)?.get("/api/v1/step")?;
    let view: StepView = typed(&value)?;
    // A clock that nobody has told anything stands at the beginning; one that runs does not stay there for a millisecond.
    let has_time = view.step > Step(0) || view.mesh_time_ms > 0;
    let if_any = |text: String| if has_time { text } else { "-".to_owned() };
    output::record(globals.output, &value, || {
        vec![
            ("step", if_any(view.step.to_string())),
            ("phase", if_any(view.phase.to_string())),
            ("mesh time", if_any(format!("{} ms", view.mesh_time_ms))),
            ("offset", millis(Some(view.offset_ms))),
            ("skew", millis(Some(view.skew_ms))),
            ("samples", view.samples.to_string()),
        ]
    })
}

pub(super) fn anomalies(globals: &Globals, args: &AnomaliesArgs) -> Result<(), CliError> {
    let filters = [
        ("kind", args.kind.clone()),
        ("accused", args.accused.clone()),
        ("since", args.since.map(|since| since.to_string())),
        ("severity", args.severity.clone()),
    ];
    let filters =
        filters.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_ref()?))));
    let filters = filters.collect::<Vec<_>>().join("&");
    let path = if filters.is_empty() { String::new() } else { format!("?{filters}") };
    let values: Vec<Value> = Client::new(globals)?.get(&format!("/api/v1/anomalies{path}"))?;
    let heads = ["step", "kind", "severity", "accused", "reporter", "detail"];
    output::list(globals.output, &values, &heads, |value| {
        let fields = ["step", "kind", "severity", "accused", "reporter", "detail"];
        fields.iter().map(|field| output::cell(value.get(*field))).collect()
    })
}

pub(super) fn quarantine(globals: &Globals, what: &QuarantineCommand) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    match what {
        QuarantineCommand::List => {
            let all: Vec<Value> = client.get("/api/v1/quarantine")?;
            let heads = ["peer id", "for", "since step", "until step", "evidence"];
            output::list(globals.output, &all, &heads, |value| {
                let fields = ["peer_id", "kind", "since", "until", "evidence"];
                fields.iter().map(|field| output::cell(value.get(*field))).collect()
            })
        }
        QuarantineCommand::Lift { peer } => {
            let lifted: Value = client.delete(&format!("/api/v1/quarantine/{}", segment(peer)))?;
            output::record(globals.output, &lifted, || {
                vec![
                    ("lifted", peer.clone()),
                    ("was in for", output::cell(lifted.get("kind"))),
                    ("since step", output::cell(lifted.get("since"))),
                ]
            })
        }
    }
}

pub(super) fn metrics(globals: &Globals) -> Result<(), CliError> {
    let text = Client::new(globals)?.text("/metrics")?;
    match globals.output {
        Format::Table => output::text(&text),
        format => {
            let samples: Vec<_> = text.lines().filter_map(sample).collect();
            output::list(format, &samples, &[], |_| Vec::new())
        }
    }
}

pub(super) fn why(globals: &Globals, what: &WhyCommand) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    match what {
        WhyCommand::Message { id } => why_message(globals, &client, id),
        WhyCommand::Job { id, task } => super::job::why(globals, &client, id, task.as_deref()),
        WhyCommand::Peer { id } => why_peer(globals, &client, id),
        WhyCommand::Step { id } => why_step(globals, &client, *id),
    }
}

fn why_message(globals: &Globals, client: &Client, id: &str) -> Result<(), CliError> {
    let value: Value = client.get(&format!("/api/v1/why/messages/{}", segment(id)))?;
    let why: WhyMessage = typed(&value)?;
    if globals.output.is_json() {
        return output::record(globals.output, &value, Vec::new);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    output::record(Format::Table, &value, || {
        vec![
            ("message", why.id.to_string()),
            ("outcome", format!("{}: {}", outcome(why.outcome), why.explanation)),
            ("author", or_dash(why.author.map(|author| author.to_string()))),
            ("channel", or_dash(why.channel)),
            ("step", or_dash(why.step.map(|step| step.to_string()))),
            ("first seen", or_dash(why.first_seen_step.map(|step| format!("step {step}")))),
            ("copies", why.copies.to_string()),
        ]
    })?;
    output::text("")?;
    let heads = ["step", "outcome", "reason", "from", "explanation"];
    output::list(Format::Table, &why.records, &heads, |record: &WhyRecord| {
        vec![
            record.step.to_string(),
            outcome(record.outcome).to_owned(),
            or_dash(record.reason.clone()),
            or_dash(record.from.clone()),
            record.explanation.clone(),
        ]
    })?;
    for stands in &why.standings {
        let Standing { peer_id, role, trust, standing, findings } = stands;
        output::text("")?;
        output::text(&printable(&format!("{role} {peer_id}: {standing} (trust {trust:.2})")))?;
        for found in findings {
            output::text(&printable(&format!("  {}: {}", found.kind.code(), found.detail)))?;
        }
    }
    Ok(())
}

fn why_step(globals: &Globals, client: &Client, step: Option<u64>) -> Result<(), CliError> {
    let path = step.map_or_else(|| "/api/v1/why/step".to_owned(), |step| format!("/api/v1/why/steps/{step}"));
    let value: Value = client.get(&path)?;
    let why: WhyStep = typed(&value)?;
    output::record(globals.output, &value, || {
        let mut fields = vec![("step", output::cell(value.get("step")))];
        fields.extend(why.explanation.into_iter().map(|reason| ("because", reason)));
        let doubts = why.doubts.iter().filter(|doubt| doubt.value > 0.0);
        fields.extend(doubts.map(|doubt| ("own doubt", format!("{} {:.2}", doubt.reason, doubt.value))));
        fields.extend(
            why.events
                .iter()
                .map(|event| ("happened", format!("{} ago: {}", seconds(event.ago_ms / 1000), event.detail))),
        );
        fields.extend(
            why.findings.iter().map(|found| {
                ("found", format!("{} of {}: {}", found.kind.code(), found.accused, found.detail))
            }),
        );
        fields
    })
}

/// All that this node knows of one peer.
#[derive(Serialize)]
struct WhyPeer {
    peer_id: String,
    member: Option<Value>,
    connection: Option<Value>,
    anomalies: Vec<Value>,
    why: Reasons,
}

fn why_peer(globals: &Globals, client: &Client, id: &str) -> Result<(), CliError> {
    let with = |path: &str, field: &str| -> Result<Vec<Value>, CliError> {
        let items: Vec<Value> = client.get(path)?;
        Ok(items.into_iter().filter(|item| item[field] == id).collect())
    };
    // Not every peer is a node of ours with an id of that sort, so that the lists are asked first.
    let known = with("/api/v1/members", "peer_id")?.pop();
    let connection = with("/api/v1/peers", "peer_id")?.pop();
    let anomalies = with("/api/v1/anomalies", "accused")?;
    let is_quarantined = !with("/api/v1/quarantine", "peer_id")?.is_empty();
    if known.is_none() && connection.is_none() && anomalies.is_empty() && !is_quarantined {
        if let Err(error) = id.parse::<NodeId>() {
            return Err(CliError::new(Code::Usage, format!("{id:?} is not the id of a peer: {error}"))
                .hint("`omnimesh members` and `omnimesh peers` list those that this node knows"));
        }
        return Err(CliError::new(Code::NotFound, format!("this node knows no peer {id:?}"))
            .hint("`omnimesh members` and `omnimesh peers` list those it knows"));
    }
    let why = WhyPeer {
        peer_id: id.to_owned(),
        member: known,
        connection,
        anomalies,
        why: client.get(&format!("/api/v1/why/peers/{}", segment(id)))?,
    };
    if globals.output.is_json() {
        return output::record(globals.output, &why, Vec::new);
    }
    output::record(Format::Table, &why, || in_brief(&why))?;
    for way in &why.why.way_back {
        output::text(&format!("way back: {way}"))?;
    }
    for change in &why.why.history {
        let cause = change.cause.map_or("good conduct", |cause| cause.code());
        let ago = change.ago_ms / 1000;
        output::text(&format!("{ago} s ago: trust {:.2} after {cause}", change.trust))?;
    }
    if why.anomalies.is_empty() {
        return Ok(());
    }
    output::text("")?;
    let columns = ["step", "kind", "severity", "reporter", "detail"];
    output::list(Format::Table, &why.anomalies, &columns, |anomaly| {
        columns.map(|field| output::cell(anomaly.get(field))).to_vec()
    })
}

/// What is known of a peer, a line each.
fn in_brief(why: &WhyPeer) -> Vec<(&'static str, String)> {
    let member = why.member.as_ref().map_or_else(
        || "not a known member".to_owned(),
        |member| {
            format!("{}, last seen {} ms ago", output::cell(member.get("state")), member["last_seen_ms"])
        },
    );
    let connection = why.connection.as_ref().map_or_else(
        || "none".to_owned(),
        |peer| {
            let score = peer["score"].as_f64().unwrap_or_default();
            format!("{}, score {score:.2}", output::cell(peer.get("direction")))
        },
    );
    vec![
        ("peer", why.peer_id.clone()),
        ("member", member),
        ("connection", connection),
        ("standing", why.why.standing.clone()),
        ("trust", format!("{:.2} (a stranger has 0.50)", why.why.trust)),
        (
            "made of",
            format!(
                "good {:.2}, suspicion {:.2}, fault {:.2}",
                why.why.good, why.why.suspicion, why.why.fault
            ),
        ),
        ("gossip is told", format!("{:.2}", why.why.score)),
        ("own doubt", format!("{:.2}", why.why.doubt)),
        ("anomalies", why.anomalies.len().to_string()),
    ]
}

/// Prints a list of the node: as it is, or as a table.
pub(super) fn passed_on<T: DeserializeOwned>(
    globals: &Globals,
    path: &str,
    heads: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), CliError> {
    let items: Vec<Value> = Client::new(globals)?.get(path)?;
    if globals.output.is_json() {
        return output::list(globals.output, &items, &[], |_| Vec::new());
    }
    let items = items.iter().map(typed::<T>).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<_> = items.iter().map(row).collect();
    output::list(Format::Table, &rows, heads, Clone::clone)
}

pub(super) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, CliError> {
    T::deserialize(value).map_err(|error| {
        CliError::new(Code::Failed, format!("the node's answer is not understood: {error}"))
            .hint("is the node of the same version as this command?")
    })
}

pub(super) fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Dead => "dead",
        MemberState::Left => "left",
        MemberState::Quarantined => "quarantined",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::Delivered => "delivered",
        Outcome::Forwarded => "forwarded",
        Outcome::Ignored => "ignored",
        Outcome::Refused => "refused",
    }
}

/// The name of a variant as it is in JSON.
fn name(variant: &impl Serialize) -> String {
    output::cell(serde_json::to_value(variant).ok().as_ref())
}

fn seconds(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A line of the metrics' text form: `name{label="value",…} number`.
fn sample(line: &str) -> Option<Value> {
    if line.starts_with('#') {
        return None;
    }
    let (head, labels, rest) = match line.find('{') {
        Some(open) => {
            let close = line.rfind('}')?;
            (line.get(..open)?, line.get(open + 1..close)?, line.get(close + 1..)?)
        }
        None => {
            let (head, rest) = line.split_once(' ')?;
            (head, "", rest)
        }
    };
    let text = rest.split_whitespace().next()?;
    let value = text.parse::<i64>().map_or_else(|_| json!(text.parse::<f64>().ok()), |number| json!(number));
    Some(json!({ "name": head, "labels": read_labels(labels), "value": value }))
}

fn read_labels(text: &str) -> serde_json::Map<String, Value> {
    let mut labels = serde_json::Map::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => break,
                },
                other => value.push(other),
            }
        }
        labels.insert(name.trim_start_matches(',').trim().to_owned(), value.into());
        rest = &after[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text =
            "# TYPE x counter\nx_total{reason=\"bad \\\"tag\\\", {1}\",peer=\"a\"} 3\ny 0.5\nz NaN\n# EOF";
        let samples: Vec<_> = text.lines().filter_map(sample).collect();
        assert_eq!(
            samples,
            [
                json!({"name": "x_total", "labels": {"reason": "bad \"tag\", {1}", "peer": "a"}, "value": 3}),
                json!({"name": "y", "labels": {}, "value": 0.5}),
                json!({"name": "z", "labels": {}, "value": null}),
            ]
        );
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!([5, 65, 3660, 90_000].map(seconds), ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn names_are_those_of_the_json() {
        for variant in [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left] {
            assert_eq!(name(&variant), state(variant));
        }
        for variant in [Outcome::Published, Outcome::Delivered, Outcome::Ignored, Outcome::Refused] {
            assert_eq!(name(&variant), outcome(variant));
        }
    }
}
