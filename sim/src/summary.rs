//! A run in numbers: `summary.json`, and what identifies it: `manifest.json`.
//!
//! Both are stable interfaces: fields are added, never renamed. What has no value, as the latency of a run without
//! deliveries, is `null`. [`crate::stats`] defines the statistics.

mod compute;
mod log;

use std::time::Duration;

pub use compute::ComputeSummary;
pub use log::LogSummary;

use data_encoding::HEXLOWER;
use omnimesh_protocol::gossip;
use serde::{Deserialize, Serialize};

use crate::checkers::Checked;
use crate::detection::{Row, Scores};
use crate::outcome::{Delivery, Outcome, Published, Traffic};
use crate::scenario::Scenario;
use crate::stats::{self, Verdicts, mean, percentile, rmr};

/// What a run was, so that it can be done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The scenario's name.
    pub scenario: String,
    /// Which engine ran it: `model` or `libp2p`.
    pub engine: String,
    /// Nodes at the start.
    pub nodes: u32,
    /// Whence all randomness came.
    pub seed: u64,
    /// BLAKE3 of the scenario's text as stored beside this, in hex.
    pub scenario_hash: String,
    /// The version of the simulator.
    pub code_version: String,
    /// A hash of everything that happened, in hex. Equal for equal scenario, seed and code.
    pub trace_hash: String,
    /// Threads that worked. They do not change what happens.
    pub threads: usize,
    /// The command that did it; empty if it was not a command.
    #[serde(default)]
    pub command: String,
}

impl Manifest {
    /// Identifies a run of `scenario`, which `scenario_text` describes.
    pub fn new(
        scenario: &Scenario,
        scenario_text: &str,
        outcome: &Outcome,
        (engine, code_version, command): (&str, &str, &str),
    ) -> Manifest {
        Manifest {
            scenario: scenario.name.clone(),
            engine: engine.into(),
            nodes: outcome.nodes,
            seed: scenario.seed,
            scenario_hash: HEXLOWER.encode(blake3::hash(scenario_text.as_bytes()).as_bytes()),
            code_version: code_version.into(),
            trace_hash: HEXLOWER.encode(&outcome.trace_hash),
            threads: outcome.cost.threads,
            command: command.into(),
        }
    }
}

/// What came of a run, in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Nodes at the start.
    pub nodes: u32,
    /// First deliveries to nodes of the message's audience.
    pub deliveries: u64,
    /// Deliveries there should be: the audiences of all messages.
    pub expected: u64,
    /// `deliveries / expected`.
    pub delivery_ratio: Option<f64>,
    /// From publishing to delivery, of `deliveries`.
    pub latency_ms: Latency,
    /// Copies of the workload's messages beyond each node's first one. What adversaries make is not among them; nor
    /// is that in `rmr`. Where the engine does not tell messages apart: all that routers counted.
    pub duplicates: u64,
    /// Relative message redundancy, the mean over messages; over all copies if they were not counted by message.
    pub rmr: Option<f64>,
    /// Last delivery hop, the mean over messages.
    pub ldh: Option<f64>,
    /// Distance of the first and the last mesh time, in samples from the first one in which all nodes have a step.
    pub step_skew_ms: Skew,
    /// How well misbehaving nodes were found.
    pub detector: Detector,
    /// Planned faults and adversaries, and what they did.
    pub faults: Vec<Effect>,
    /// The verdicts.
    pub checkers: Vec<Checked>,
    /// Events worked off.
    pub events: u64,
    /// Virtual time.
    pub sim_seconds: f64,
    /// Real time.
    pub wall_seconds: f64,
    /// `events / wall_seconds`.
    pub events_per_second: Option<f64>,
    /// The most memory that the process held.
    pub peak_rss_bytes: u64,

    /// Messages published.
    pub messages: u64,
    /// Deliveries beyond the audiences: to nodes that were cut off or down meanwhile, and got the message all the
    /// same.
    pub deliveries_unexpected: u64,
    /// Last delivery hop: the greatest of all messages.
    pub ldh_max: Option<u16>,
    /// Bytes that a node holds, on average, at the end.
    pub bytes_per_node: u64,
    /// What went over the links.
    pub traffic: Traffic,
    /// Counters of all honest routers.
    pub gossip: GossipSummary,
    /// Refusals of honest validators.
    pub refusals: Vec<Refusal>,
    /// The durable log; all zero if nodes keep none.
    #[serde(default)]
    pub log: LogSummary,
    /// The jobs; all zero if there are none.
    #[serde(default)]
    pub compute: ComputeSummary,
}

/// Percentiles of a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: Option<f64>,
    /// 95 % are not above it.
    pub p95: Option<f64>,
    /// 99 % are not above it.
    pub p99: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
}

/// Percentiles of the step skew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Skew {
    /// The median.
    pub p50: Option<f64>,
    /// 99 % are not above it.
    pub p99: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
}

/// How well misbehaving nodes were found, by honest nodes. [`crate::detection`] defines the figures; where nodes have no
/// observers, who is shut out counts for who is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    /// Of what honest nodes held against others, the part that was right.
    pub precision: Option<f64>,
    /// Of the pairs of a node that misbehaves and an honest one that can know, the part with a right verdict. Without
    /// observers: of the nodes that misbehave, the part that was shut out.
    pub recall: Option<f64>,
    /// Honest nodes that an honest node shut out.
    pub false_quarantined: u64,
    /// From the beginning of its misbehaviour until the first honest node found it: the median over those that were.
    pub time_to_detect_ms: Option<f64>,
    /// The same: the longest.
    pub time_to_detect_max_ms: Option<f64>,
    /// The same: 99 % are not above it.
    #[serde(default)]
    pub time_to_detect_p99_ms: Option<f64>,
    /// Nodes that misbehave.
    pub adversaries: u64,
    /// Of these, those found.
    #[serde(default)]
    pub found: u64,
    /// Of these, those shut out.
    pub quarantined: u64,
    /// Connections that observers refused: of keys in quarantine, or of too many new keys in one place.
    #[serde(default)]
    pub connections_refused: u64,
    /// Each adversary of the scenario by itself; empty where nodes have no observers.
    #[serde(default)]
    pub kinds: Vec<DetectorKind>,
    /// What honest nodes held against honest nodes, by kind of finding.
    #[serde(default)]
    pub false_verdicts: Vec<FalseVerdicts>,
}

/// How well one adversary of a scenario was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DetectorKind {
    /// Kind and place in the scenario: `tamper#1`.
    pub name: String,
    /// Whether what it does can be proved.
    pub provable: bool,
    /// Nodes of it that misbehaved.
    pub nodes: u64,
    /// Nodes of it that found no occasion to.
    #[serde(default)]
    pub idle: u64,
    /// Of these, those found.
    pub found: u64,
    /// Of what honest nodes held against others under a name of this, the part that was right.
    pub precision: Option<f64>,
    /// Of `witnesses`, the part with a right verdict.
    pub recall: Option<f64>,
    /// Pairs of one of these nodes and an honest one that can know what it does.
    #[serde(default)]
    pub witnesses: u64,
    /// As of [`Detector`].
    pub time_to_detect_ms: Option<f64>,
    /// As of [`Detector`].
    pub time_to_detect_p99_ms: Option<f64>,
    /// Of what can be proved: those in quarantine at 99 % of the honest nodes at the end.
    pub everywhere: u64,
    /// From the first quarantine until then, 99 % are not above it.
    pub spread_p99_ms: Option<f64>,
}

/// What honest nodes held against honest nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FalseVerdicts {
    /// The kind of finding.
    pub kind: String,
    /// How many pairs of nodes.
    pub count: u64,
}

/// A planned fault or adversary, and what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Kind and place in the scenario: `partition#1`.
    pub name: String,
    /// How often it was to act.
    pub planned: u64,
    /// How often it had an effect.
    pub effective: u64,
    /// `fault` or `adversary`.
    pub role: Role,
    /// From when.
    pub at_s: f64,
    /// Until when, if it has an end.
    pub until_s: Option<f64>,
}

/// What breaks, or who misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Something breaks.
    Fault,
    /// Somebody misbehaves.
    Adversary,
}

/// The more telling part of [`gossip::Stats`] in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `gossip::Stats`")]
pub struct GossipSummary {
    pub copies_received: u64,
    pub duplicates: u64,
    pub accepted: u64,
    pub ignored: u64,
    pub rejected: u64,
    pub copies_sent_own: u64,
    pub copies_sent_forwarded: u64,
    pub copies_sent_iwant: u64,
    pub copies_saved: u64,
    pub ihave_received: u64,
    pub ihave_sent: u64,
    pub iwant_received: u64,
    pub iwant_sent: u64,
    pub graft_received: u64,
    pub graft_sent: u64,
    pub prune_received: u64,
    pub prune_sent: u64,
    pub idontwant_received: u64,
    pub idontwant_sent: u64,
    pub shed_messages: u64,
    pub broken_promises: u64,
    pub graylisted: u64,
}

/// Messages refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The validator's code of the reason.
    pub reason: String,
    /// How often.
    pub count: u64,
}

impl Summary {
    /// Counts up a run and its verdicts.
    pub fn new(outcome: &Outcome, checked: &[Checked]) -> Summary {
        let latencies = latencies_us(outcome);
        let recorded: u64 = outcome.deliveries.iter().map(|of_message| of_message.len() as u64).sum();
        let expected = outcome.messages.iter().map(|message| u64::from(message.audience)).sum();
        let missed: u64 = outcome.messages.iter().map(|message| u64::from(message.missed)).sum();
        let deliveries = expected - missed.min(expected);
        let hops: Vec<u16> = outcome.deliveries.iter().filter_map(|of_message| ldh(of_message)).collect();
        let wall_seconds = outcome.cost.wall.as_secs_f64();
        Summary {
            nodes: outcome.nodes,
            deliveries,
            expected,
            delivery_ratio: stats::part(deliveries, expected),
            latency_ms: Latency::of(&latencies),
            duplicates: match outcome.traffic.copies {
                0 => outcome.gossip.duplicates,
                copies => copies.saturating_sub(recorded),
            },
            rmr: mean_rmr(outcome),
            ldh: mean(hops.iter().map(|&hops| f64::from(hops))),
            step_skew_ms: Skew::of(outcome),
            detector: Detector::of(outcome),
            faults: effects(outcome),
            checkers: checked.to_vec(),
            events: outcome.events,
            sim_seconds: outcome.ended.as_secs_f64(),
            wall_seconds,
            events_per_second: (wall_seconds > 0.0).then(|| outcome.events as f64 / wall_seconds),
            peak_rss_bytes: outcome.cost.peak_rss_bytes,
            messages: outcome.messages.len() as u64,
            deliveries_unexpected: recorded.saturating_sub(deliveries),
            ldh_max: hops.iter().max().copied(),
            bytes_per_node: outcome.bytes_per_node,
            traffic: outcome.traffic,
            gossip: (&outcome.gossip).into(),
            refusals: refusals(outcome),
            log: LogSummary::of(outcome),
            compute: ComputeSummary::of(outcome),
        }
    }

    /// Whether all checks are fulfilled.
    pub fn is_ok(&self) -> bool {
        self.checkers.iter().all(|checked| checked.ok)
    }
}

/// Of all deliveries to their audience, ascending.
pub(crate) fn latencies_us(outcome: &Outcome) -> Vec<u32> {
    let expected = outcome.deliveries.iter().flatten().filter(|delivery| delivery.is_expected);
    let mut latencies: Vec<u32> = expected.map(|delivery| delivery.latency_us).collect();
    latencies.sort_unstable();
    latencies
}

/// Over how many links the last node of the audience got the message.
pub(crate) fn ldh(deliveries: &[Delivery]) -> Option<u16> {
    deliveries.iter().filter(|delivery| delivery.is_expected).map(|delivery| delivery.hops).max()
}

/// From publishing to each delivery, in milliseconds.
pub(crate) fn us_to_ms(us: u32) -> f64 {
    f64::from(us) / 1e3
}

fn mean_rmr(outcome: &Outcome) -> Option<f64> {
    let audience = |message: &Published| u64::from(message.audience);
    if outcome.copies.len() == outcome.messages.len() {
        let each = outcome.messages.iter().zip(&outcome.copies);
        return mean(each.filter_map(|(message, &copies)| rmr(copies.into(), audience(message))));
    }
    rmr(outcome.traffic.copies, outcome.messages.iter().map(audience).sum())
}

fn effects(outcome: &Outcome) -> Vec<Effect> {
    let faults = outcome.faults.iter().map(|effect| (Role::Fault, effect));
    let adversaries = outcome.adversaries.iter().map(|effect| (Role::Adversary, effect));
    let effects = faults.chain(adversaries).map(|(role, effect)| Effect {
        name: effect.name.clone(),
        planned: effect.planned,
        effective: effect.effective,
        role,
        at_s: effect.at.as_secs_f64(),
        until_s: effect.until.map(|until| until.as_secs_f64()),
    });
    effects.collect()
}

fn refusals(outcome: &Outcome) -> Vec<Refusal> {
    let refusals = outcome.refusals.iter();
    refusals.map(|&(reason, count)| Refusal { reason: reason.into(), count }).collect()
}

impl Latency {
    /// Of ascending microseconds.
    fn of(ascending: &[u32]) -> Latency {
        let at = |per_mille| percentile(ascending, per_mille).map(us_to_ms);
        let mean = mean(ascending.iter().map(|&us| us_to_ms(us)));
        Latency { p50: at(500), p95: at(950), p99: at(990), max: at(1000), mean }
    }
}

impl Skew {
    fn of(outcome: &Outcome) -> Skew {
        let mut skews: Vec<f64> = since_synchronised(outcome).map(|sample| sample.skew_ms).collect();
        skews.sort_unstable_by(f64::total_cmp);
        Skew { p50: percentile(&skews, 500), p99: percentile(&skews, 990), max: percentile(&skews, 1000) }
    }
}

/// The samples from the first one on in which all nodes that are up have a step.
fn since_synchronised(outcome: &Outcome) -> impl Iterator<Item = &crate::outcome::Sample> {
    outcome.samples.iter().skip_while(|sample| sample.up == 0 || sample.synchronised < sample.up)
}

impl Detector {
    fn of(outcome: &Outcome) -> Detector {
        let first = first_quarantines(outcome);
        let mut falsely: Vec<u32> = outcome.false_quarantines.iter().map(|&(_, whom, _)| whom).collect();
        falsely.sort_unstable();
        falsely.dedup();
        let adversaries = outcome.adversary_nodes.len() as u64;
        let quarantined = first.len() as u64;
        let verdicts = Verdicts {
            true_positives: quarantined,
            false_positives: falsely.len() as u64,
            false_negatives: adversaries.saturating_sub(quarantined),
        };
        let mut took: Vec<f64> = first
            .iter()
            .map(|&(node, at)| at.saturating_sub(misbehaves_from(outcome, node)).as_secs_f64() * 1e3)
            .collect();
        took.sort_unstable_by(f64::total_cmp);
        Detector {
            precision: verdicts.precision(),
            recall: verdicts.recall(),
            false_quarantined: verdicts.false_positives,
            time_to_detect_ms: percentile(&took, 500),
            time_to_detect_max_ms: percentile(&took, 1000),
            time_to_detect_p99_ms: percentile(&took, 990),
            adversaries,
            found: quarantined,
            quarantined,
            ..Detector::default()
        }
        .with_findings(outcome)
    }

    /// Where nodes have observers, what these say counts.
    fn with_findings(self, outcome: &Outcome) -> Detector {
        let Some(scores) = Scores::of(outcome) else { return self };
        let mut took: Vec<f64> = scores.rows.iter().flat_map(|row| &row.times_ms).copied().collect();
        took.sort_unstable_by(f64::total_cmp);
        let found = took.len() as u64;
        let falsely: u64 = scores.verdicts_false.values().sum();
        let kind = |row: &Row| DetectorKind {
            name: row.name.clone(),
            provable: row.is_provable,
            nodes: row.nodes,
            idle: row.idle,
            found: row.found,
            precision: row.precision(),
            recall: row.recall(),
            witnesses: row.witnesses,
            time_to_detect_ms: row.time_ms(500),
            time_to_detect_p99_ms: row.time_ms(990),
            everywhere: row.everywhere,
            spread_p99_ms: row.spread_at_ms(990),
        };
        Detector {
            precision: stats::part(scores.verdicts, scores.verdicts + falsely),
            recall: stats::part(
                scores.rows.iter().map(|row| row.witnesses_right).sum(),
                scores.rows.iter().map(|row| row.witnesses).sum(),
            ),
            time_to_detect_ms: percentile(&took, 500),
            time_to_detect_max_ms: percentile(&took, 1000),
            time_to_detect_p99_ms: percentile(&took, 990),
            found,
            connections_refused: outcome.detection.as_ref().map_or(0, |facts| facts.connections_refused),
            kinds: scores.rows.iter().map(kind).collect(),
            false_verdicts: scores
                .verdicts_false
                .iter()
                .map(|(kind, count)| FalseVerdicts { kind: (*kind).into(), count: *count })
                .collect(),
            ..self
        }
    }
}

/// Adversaries and when each was first shut out; each once.
pub(crate) fn first_quarantines(outcome: &Outcome) -> Vec<(u32, Duration)> {
    let mut first = outcome.quarantines.clone();
    first.sort_unstable();
    first.dedup_by_key(|&mut (node, _)| node);
    first
}

fn misbehaves_from(outcome: &Outcome, node: u32) -> Duration {
    let index = outcome.adversary_nodes.binary_search(&node).ok();
    let own = index.and_then(|index| outcome.misbehave_from.get(index)).copied();
    own.or_else(|| outcome.adversaries.iter().map(|effect| effect.at).min()).unwrap_or_default()
}

impl From<&gossip::Stats> for GossipSummary {
    fn from(stats: &gossip::Stats) -> Self {
        GossipSummary {
            copies_received: stats.copies_received,
            duplicates: stats.duplicates,
            accepted: stats.accepted,
            ignored: stats.ignored,
            rejected: stats.rejected,
            copies_sent_own: stats.copies_sent_own,
            copies_sent_forwarded: stats.copies_sent_forwarded,
            copies_sent_iwant: stats.copies_sent_iwant,
            copies_saved: stats.copies_saved,
            ihave_received: stats.ihave_received,
            ihave_sent: stats.ihave_sent,
            iwant_received: stats.iwant_received,
            iwant_sent: stats.iwant_sent,
            graft_received: stats.graft_received,
            graft_sent: stats.graft_sent,
            prune_received: stats.prune_received,
            prune_sent: stats.prune_sent,
            idontwant_received: stats.idontwant_received,
            idontwant_sent: stats.idontwant_sent,
            shed_messages: stats.shed_messages,
            broken_promises: stats.broken_promises,
            graylisted: stats.graylisted,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{checkers, synthetic};

    fn summary() -> Summary {
        let scenario = synthetic::scenario(60);
        let outcome = synthetic::outcome(&scenario);
        Summary::new(&outcome, &checkers::check(&scenario, &outcome))
    }

    #[track_caller]
    fn assert_fields(value: &Value, fields: &str) {
        for field in fields.split_whitespace() {
            assert!(value.get(field).is_some(), "no field {field} in {value}");
        }
    }

    #[test]
    fn the_json_has_the_fields_that_scripts_rely_on() {
        let value = serde_json::to_value(summary()).unwrap();
        assert_fields(
            &value,
            "nodes deliveries expected delivery_ratio latency_ms duplicates rmr ldh step_skew_ms detector faults checkers \
             events sim_seconds wall_seconds events_per_second peak_rss_bytes",
        );
        assert_fields(&value["latency_ms"], "p50 p95 p99 max");
        assert_fields(&value["step_skew_ms"], "p50 p99 max");
        assert_fields(&value["detector"], "precision recall false_quarantined time_to_detect_ms");
        assert_fields(&value["faults"][0], "name planned effective");
        assert_fields(&value["checkers"][0], "name ok detail");
        assert_eq!(value["faults"].as_array().unwrap().len(), 3);
        assert_eq!(value["faults"][2]["role"], "adversary");
        let scenario = synthetic::scenario(60);
        let outcome = synthetic::outcome(&scenario);
        let manifest =
            Manifest::new(&scenario, "seed = 7", &outcome, ("model", "0.1.0", "omnimesh sim run x"));
        let value = serde_json::to_value(&manifest).unwrap();
        assert_fields(&value, "scenario engine nodes seed scenario_hash code_version trace_hash");
        assert_eq!(value["scenario_hash"], blake3::hash(b"seed = 7").to_hex().as_str());
        assert_eq!(value["trace_hash"].as_str().unwrap().len(), 64);
        assert_eq!(serde_json::from_value::<Manifest>(value).unwrap(), manifest);
    }

    #[test]
    fn a_summary_survives_json() {
        let summary = summary();
        let text = serde_json::to_string_pretty(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        // Also that of a run in which nothing happened: no value is null, not zero.
        let nothing = Summary::new(&Outcome::default(), &[]);
        let value = serde_json::to_value(&nothing).unwrap();
        for absent in ["delivery_ratio", "rmr", "ldh", "events_per_second"] {
            assert!(value[absent].is_null(), "{absent} is {}", value[absent]);
        }
        assert!(value["latency_ms"]["p50"].is_null() && value["detector"]["recall"].is_null());
        assert_eq!(serde_json::from_value::<Summary>(value).unwrap(), nothing);
    }

    /// Two messages among four nodes, small enough to count by hand.
    fn by_hand() -> Outcome {
        let published = |author, audience, missed| Published {
            author,
            at: Duration::from_secs(1),
            bytes: 100,
            audience,
            missed,
        };
        let delivery =
            |node, latency_us, hops, is_expected| Delivery { node, from: 0, latency_us, hops, is_expected };
        Outcome {
            nodes: 4,
            messages: vec![published(0, 3, 0), published(1, 2, 1)],
            deliveries: vec![
                vec![
                    delivery(1, 10_000, 1, true),
                    delivery(2, 20_000, 2, true),
                    delivery(3, 60_000, 3, true),
                ],
                vec![delivery(0, 30_000, 1, true), delivery(3, 9_000_000, 7, false)],
            ],
            copies: vec![6, 2],
            ..Outcome::default()
        }
    }

    #[test]
    fn numbers_equal_those_counted_by_hand() {
        let mut outcome = by_hand();
        let summary = Summary::new(&outcome, &[]);
        assert_eq!((summary.deliveries, summary.expected, summary.deliveries_unexpected), (4, 5, 1));
        assert_eq!(summary.delivery_ratio, Some(0.8));
        // 10, 20, 30 and 60 ms: ranks 2, 4, 4, 4. Not the late one, which nobody expects.
        let wanted =
            Latency { p50: Some(20.0), p95: Some(60.0), p99: Some(60.0), max: Some(60.0), mean: Some(30.0) };
        assert_eq!(summary.latency_ms, wanted);
        // 6/3 − 1 = 1 and 2/2 − 1 = 0.
        assert_eq!(summary.rmr, Some(0.5));
        // 3 and 1 hops.
        assert_eq!((summary.ldh, summary.ldh_max), (Some(2.0), Some(3)));
        // Not counted by message: 10 copies for 5 receivers.
        outcome.copies.clear();
        outcome.traffic.copies = 10;
        let summary = Summary::new(&outcome, &[]);
        assert_eq!(summary.rmr, Some(1.0));
        // Five of them were the first ones.
        assert_eq!(summary.duplicates, 5);
        // Not counted at all: what the routers say.
        outcome.traffic.copies = 0;
        outcome.gossip.duplicates = 3;
        assert_eq!(Summary::new(&outcome, &[]).duplicates, 3);
    }

    #[test]
    fn the_skew_counts_from_when_all_have_a_step() {
        let sample = |synchronised, skew_ms| crate::outcome::Sample {
            up: 4,
            synchronised,
            skew_ms,
            ..Default::default()
        };
        let samples = vec![sample(0, 0.0), sample(3, 9e9), sample(4, 30.0), sample(3, 10.0), sample(4, 20.0)];
        let outcome = Outcome { samples, ..Outcome::default() };
        assert_eq!(Skew::of(&outcome), Skew { p50: Some(20.0), p99: Some(30.0), max: Some(30.0) });
    }

    #[test]
    fn the_detector_is_judged_by_nodes() {
        let ms = Duration::from_millis;
        let outcome = Outcome {
            adversary_nodes: vec![3, 5, 7, 9],
            misbehave_from: vec![ms(1_000), ms(1_000), ms(4_000), ms(4_000)],
            // Node 7 twice; 9 never.
            quarantines: vec![(7, ms(9_000)), (3, ms(1_500)), (5, ms(2_000)), (7, ms(4_200))],
            // Node 1 twice.
            false_quarantines: vec![(0, 1, ms(9)), (2, 1, ms(8))],
            ..Outcome::default()
        };
        let wanted = Detector {
            precision: Some(0.75),
            recall: Some(0.75),
            false_quarantined: 1,
            // 200, 500, 1000 ms.
            time_to_detect_ms: Some(500.0),
            time_to_detect_max_ms: Some(1_000.0),
            time_to_detect_p99_ms: Some(1_000.0),
            adversaries: 4,
            found: 3,
            quarantined: 3,
            ..Detector::default()
        };
        assert_eq!(Detector::of(&outcome), wanted);
    }
}
