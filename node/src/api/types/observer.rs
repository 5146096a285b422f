//! What the observer measures: probes, telemetry, alerts; and why this node is in its step.

use omnimesh_protocol::id::{Phase, Step};
pub use omnimesh_protocol::observer::telemetry::Level;
use serde::{Deserialize, Serialize};

use super::Anomaly;

/// What came of the known-answer probes of others: a part of the status and of the monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// The part that came, 0 to 1; 1 if there was nothing to come.
    pub delivery: f64,
    /// The part that came from the worst author.
    pub worst_delivery: f64,
    /// Authors of probes.
    pub origins: usize,
    /// Probes that came and are right.
    pub received: u64,
    /// Probes that did not come.
    pub lost: u64,
    /// Probes whose content is not what it must be.
    pub wrong: u64,
    /// Probes that came after a later one.
    pub out_of_order: u64,
    /// Bytes that are no probe.
    pub malformed: u64,
    /// Mean of the authors' smoothed latencies.
    pub latency_ms: f64,
    /// The mean deviation of that.
    pub jitter_ms: f64,
}

/// An alert and its incident: `GET /api/v1/alerts` answers a list, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertView {
    /// Counts from 1.
    pub id: u64,
    /// The code of what is the matter.
    pub metric: String,
    /// `open`, `acknowledged` or `resolved`.
    pub stage: String,
    /// How bad now; normal: it is over.
    pub level: Level,
    /// How bad at its worst.
    pub worst: Level,
    /// The value that changed its level last.
    pub value: f64,
    /// The same for people.
    pub detail: String,
    /// When it began, in Unix time by this node's clock.
    pub opened_ms: u64,
    /// When somebody took care.
    pub acknowledged_ms: Option<u64>,
    /// Who.
    pub acknowledged_by: Option<String>,
    /// When it was over.
    pub resolved_ms: Option<u64>,
}

/// Most characters of the name of who takes care of an alert; more would not be kept.
pub const ACK_CHARS_MAX: usize = 64;

/// Who takes care of an alert: the body of `POST /api/v1/alerts/{id}/ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// A name, as it is to be in the audit log: at most [`ACK_CHARS_MAX`] characters.
    pub by: String,
}

/// A metric as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricView {
    /// Its code.
    pub metric: String,
    /// For people.
    pub name: String,
    /// None: it is not known.
    pub value: Option<f64>,
    /// The same for people.
    pub text: String,
    /// How bad.
    pub level: Level,
    /// The limit of warning; none: it is not watched.
    pub warning: Option<f64>,
    /// The limit of critical.
    pub critical: Option<f64>,
    /// How much it has changed in an hour of late; none: no more than by chance.
    pub per_hour: Option<f64>,
    /// The next worse level, if that is reached within a day when it goes on like this.
    pub reaches: Option<Level>,
    /// In how many seconds.
    pub reaches_in_s: Option<u64>,
    /// How unusual the last minute is, in deviations from the hour before; none: it is not.
    pub unusual: Option<f64>,
    /// The same for people; none if there is nothing to say.
    pub outlook: Option<String>,
}

/// How the node and its mesh are: `GET /api/v1/monitor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    /// When, in Unix time by this node's clock.
    pub at_ms: u64,
    /// The current step; none while not synchronised.
    pub step: Option<Step>,
    /// The worst level of all metrics.
    pub level: Level,
    /// 0 (of no use) to 1 (all well).
    pub health: f64,
    /// Members alive or suspect.
    pub members: usize,
    /// Connected peers.
    pub peers: usize,
    /// Payloads verified per second.
    pub messages_per_second: f64,
    /// Messages refused per second.
    pub refused_per_second: f64,
    /// As in the status.
    pub verified_delivery: String,
    /// What came of probes.
    pub probes: Probes,
    /// How much this node doubts itself, 0 to 1.
    pub doubt: f64,
    /// All metrics.
    pub metrics: Vec<MetricView>,
    /// Alerts that are not over.
    pub alerts: Vec<AlertView>,
    /// Alerts so far.
    pub incidents: u64,
    /// Mean time between failures; none before the first.
    pub mtbf_s: Option<f64>,
    /// Mean time from opening to resolution; none before the first.
    pub mean_recovery_s: Option<f64>,
    /// Keys in quarantine.
    pub quarantined: usize,
    /// The last findings, newest last.
    pub findings: Vec<Anomaly>,
}

/// Why this node is in its step, or what it makes of another: `GET /api/v1/why/step` and `…/steps/{step}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyStep {
    /// The step that was asked for; the current one if none was.
    pub step: Option<Step>,
    /// Its phase.
    pub phase: Option<Phase>,
    /// The current step; none while not synchronised.
    pub current: Option<Step>,
    /// What this node makes of it, in sentences.
    pub explanation: Vec<String>,
    /// Why this node doubts itself.
    pub doubts: Vec<DoubtView>,
    /// What happened to the step here, oldest first.
    pub events: Vec<StepEventView>,
    /// What was found in that step.
    pub findings: Vec<Anomaly>,
}

/// A reason for which a node doubts itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoubtView {
    /// `lag`, `step`, `company` or `health`.
    pub reason: String,
    /// 0 to 1.
    pub value: f64,
}

/// Something that happened to the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEventView {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// What.
    pub detail: String,
}
