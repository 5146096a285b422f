//! Faults, adversaries and checks: times within the run, victims that exist, parameters that do something.

use std::time::Duration;

use super::{Problems, count, ms};
use crate::scenario::{Adversary, AdversaryKind, Check, Crypto, Fault, FaultKind, Scenario, Who};

/// Honest nodes without which there is nothing to look at.
const HONEST_MIN: u64 = 2;

impl Problems {
    pub(super) fn hits(&mut self, scenario: &Scenario) {
        for (i, fault) in scenario.faults.iter().enumerate() {
            self.fault(scenario, fault, &format!("faults[{i}]"));
        }
        for (i, adversary) in scenario.adversaries.iter().enumerate() {
            self.adversary(scenario, adversary, &format!("adversaries[{i}]"));
        }
        self.honest(scenario);
        self.checks(scenario);
    }

    fn times(&mut self, scenario: &Scenario, at: Duration, until: Option<Duration>, path: &str) {
        if scenario.duration.is_zero() {
            return;
        }
        if at >= scenario.duration {
            let message = format!("is not before the end of the run at {}", ms(scenario.duration));
            self.push(format!("{path}.at_ms"), message, "begin earlier, or raise duration_ms");
            return;
        }
        let Some(until) = until else { return };
        if until <= at {
            let message = format!("is not after at_ms, which is {}", ms(at));
            self.push(format!("{path}.until_ms"), message, "end later, or begin earlier");
        } else if until > scenario.duration {
            let message = format!("is after the end of the run at {}", ms(scenario.duration));
            self.push(format!("{path}.until_ms"), message, "end earlier, leave it out, or raise duration_ms");
        }
    }

    fn who(&mut self, scenario: &Scenario, who: &Who, path: &str) {
        let nodes = scenario.network.nodes;
        match who {
            Who::All => {}
            Who::Nodes(list) => {
                let path = format!("{path}.nodes");
                if let Some(unknown) = list.iter().find(|node| **node >= nodes) {
                    let message = format!("there is no node {unknown}");
                    let remedy = format!("nodes are numbered from 0 to {}", nodes.saturating_sub(1));
                    self.push(path, message, remedy);
                } else if list.is_empty() {
                    self.push(path, "hits nobody", "name a node");
                }
            }
            Who::Count(0) => self.push(format!("{path}.count"), "hits nobody", "set it to 1 at least"),
            Who::Count(number) if *number > nodes => {
                let message = format!("is more than the {} there are", count(nodes, "node"));
                self.push(format!("{path}.count"), message, format!("lower it to {nodes} at most"));
            }
            Who::Count(_) => {}
            Who::Share(share) => {
                let path = format!("{path}.share");
                if !(0.0..=1.0).contains(share) {
                    self.push(path, "must be above 0 and at most 1", "0.1 is 10 % of the nodes");
                } else if how_many(scenario, who) == 0 {
                    let message = format!("of {} is nobody", count(nodes, "node"));
                    self.push(path, message, "raise it, or take `count = 1`");
                }
            }
            Who::Regions(list) => {
                let regions = scenario.network.regions.len();
                let path = format!("{path}.regions");
                if let Some(unknown) = list.iter().find(|region| **region >= regions) {
                    let message = format!("there is no region number {unknown}");
                    self.push(path, message, format!("there are {}", count(regions, "region")));
                } else if list.is_empty() {
                    self.push(path, "hits nobody", "name a region");
                }
            }
        }
    }

    fn fault(&mut self, scenario: &Scenario, fault: &Fault, path: &str) {
        self.times(scenario, fault.at, fault.until, path);
        self.who(scenario, &fault.who, path);
        let key = |key: &str| format!("{path}.{key}");
        match fault.kind {
            FaultKind::Partition { .. } => {
                let hit = how_many(scenario, &fault.who);
                if hit > 0 && hit >= u64::from(scenario.network.nodes) {
                    let message = "a partition of all nodes has no other side";
                    self.push(path, message, "hit fewer: `share = 0.5` makes two halves");
                }
            }
            FaultKind::Crash { restart_after } => {
                if let Some(after) = restart_after {
                    self.positive(after, key("restart_after_ms"));
                    if fault.at < scenario.duration && fault.at + after >= scenario.duration {
                        let message = format!("is after the end of the run at {}", ms(scenario.duration));
                        let remedy = "restart earlier, leave it out, or raise duration_ms";
                        self.push(key("restart_after_ms"), message, remedy);
                    }
                }
            }
            FaultKind::Churn { per_s, away } => {
                self.rate(per_s, key("rate_per_s"));
                self.positive(away, key("away_ms"));
            }
            FaultKind::Degrade { loss, latency_factor } => {
                self.share(loss, false, key("loss"));
                let ok = (1.0..=1e4).contains(&latency_factor);
                self.require(ok, key("latency_factor"), "must be from 1 to 10000", "2 doubles the latency");
                if loss == 0.0 && latency_factor == 1.0 {
                    self.push(path, "changes nothing", "add `loss = …` or `latency_factor = …`");
                }
            }
            FaultKind::Slow { frame_time } => self.positive(frame_time, key("frame_ms")),
            FaultKind::ClockJump { by } => self.positive(by, key("by_ms")),
            FaultKind::ClockDrift { ppm } => {
                let ok = ppm != 0.0 && ppm.abs() <= super::DRIFT_PPM_MAX;
                let remedy = "1000 is a millisecond in a second; negative is slow";
                self.require(ok, key("drift_ppm"), "must be from -100000 to 100000, and not 0", remedy);
            }
            FaultKind::CrashInWrite { restart_after } | FaultKind::LostTail { restart_after } => {
                self.positive(restart_after, key("restart_after_ms"));
            }
            FaultKind::BitFlip { records } => {
                self.require(
                    records > 0,
                    key("records"),
                    "must be at least 1",
                    "1 is one record of each node",
                );
            }
            FaultKind::SlowDisk { factor } => {
                let ok = factor > 1.0 && factor <= 1e6;
                self.require(ok, key("factor"), "must be above 1", "10 makes it ten times as slow");
            }
            FaultKind::FullDisk => {}
        }
        if fault.kind.is_on_disk() {
            self.needs_log(scenario, path);
        }
        if matches!(fault.kind, FaultKind::ClockJump { .. } | FaultKind::ClockDrift { .. }) {
            self.needs_steps(scenario, path);
        }
    }

    fn adversary(&mut self, scenario: &Scenario, adversary: &Adversary, path: &str) {
        self.times(scenario, adversary.at, adversary.until, path);
        self.who(scenario, &adversary.who, path);
        let key = |key: &str| format!("{path}.{key}");
        match adversary.kind {
            AdversaryKind::Replay { after } => self.positive(after, key("after_ms")),
            AdversaryKind::Rush { by } | AdversaryKind::TwoFaced { by } => self.positive(by, key("by_ms")),
            AdversaryKind::Equivocate { rate_per_s }
            | AdversaryKind::Flood { rate_per_s }
            | AdversaryKind::Outsider { rate_per_s }
            | AdversaryKind::Fork { rate_per_s }
            | AdversaryKind::Slander { rate_per_s } => {
                self.rate(rate_per_s, key("rate_per_s"));
            }
            AdversaryKind::Sybil { dials } | AdversaryKind::ColdBoot { dials } => {
                let most = scenario.network.nodes.saturating_sub(1);
                if dials == 0 {
                    self.push(key("dials"), "nobody would be dialled", "set it to 1 at least");
                } else if dials > most {
                    let message = format!("is more than the {} there are", count(most, "other"));
                    self.push(key("dials"), message, format!("lower it to {most} at most"));
                }
            }
            AdversaryKind::Silence { rate_per_s } => {
                let ok = (0.0..=1e6).contains(&rate_per_s);
                self.require(ok, key("rate_per_s"), "is no rate", "0.5 is once in two seconds; 0 is never");
            }
            AdversaryKind::Tamper
            | AdversaryKind::Freeze
            | AdversaryKind::NeverForward
            | AdversaryKind::Eclipse { .. }
            | AdversaryKind::Censor { .. }
            | AdversaryKind::CovertFlash => {}
        }
        if matches!(adversary.kind, AdversaryKind::Fork { .. }) {
            self.needs_log(scenario, path);
        }
        let is_slander = matches!(adversary.kind, AdversaryKind::Slander { .. });
        if is_slander && !scenario.has_observer() {
            self.push(
                path,
                "has no effect where nobody listens",
                "set `enabled = true` in `[observer]`, or remove it",
            );
        }
        if adversary.kind.is_provable() && scenario.has_observer() && scenario.crypto == Crypto::Skip {
            let message = "is proved by signatures, which are not made";
            self.push(path, message, "set `crypto = \"real\"`, or `enabled = false` in `[observer]`");
        }
        if adversary.kind.is_on_step() {
            self.needs_steps(scenario, path);
        }
    }

    fn rate(&mut self, rate: f64, path: String) {
        let ok = (1e-6..=1e6).contains(&rate);
        self.require(ok, path, "is no rate", "2 is twice a second; from 0.000001 to 1000000");
    }

    fn needs_log(&mut self, scenario: &Scenario, path: &str) {
        let message = "has no effect on nodes that keep no log";
        self.require(scenario.log.is_some(), path, message, "add `[log]`, or remove it");
    }

    fn needs_steps(&mut self, scenario: &Scenario, path: &str) {
        let message = "has no effect without step synchronisation";
        let remedy = "remove it, or set `step_sync = true` in `[network]`";
        self.require(scenario.network.step_sync, path, message, remedy);
    }

    /// Adversaries are distinct nodes: each kind takes its own.
    fn honest(&mut self, scenario: &Scenario) {
        let nodes = u64::from(scenario.network.nodes);
        let mut adversaries: u64 = 0;
        for (i, adversary) in scenario.adversaries.iter().enumerate() {
            adversaries = adversaries.saturating_add(how_many(scenario, &adversary.who));
            if nodes >= HONEST_MIN && nodes.saturating_sub(adversaries) < HONEST_MIN {
                let message = format!(
                    "leaves {}: {adversaries} of {nodes} nodes misbehave",
                    count(nodes.saturating_sub(adversaries), "honest node")
                );
                self.push(
                    format!("adversaries[{i}]"),
                    message,
                    "let fewer misbehave, or raise network.nodes",
                );
                return;
            }
        }
        let honest = nodes.saturating_sub(adversaries);
        if let Some(authors) = scenario.workload.authors.filter(|authors| u64::from(*authors) > honest) {
            let message = format!("{authors} cannot publish: {} honest", are(honest));
            self.push("workload.authors", message, format!("lower it to {honest} at most"));
        }
    }

    fn checks(&mut self, scenario: &Scenario) {
        let checks = &scenario.checks;
        for (i, check) in checks.iter().enumerate() {
            let key = |key: &str| format!("checks[{i}].{key}");
            match *check {
                Check::Agreement { within } => self.positive(within, key("within_ms")),
                Check::Delivery { ratio } => {
                    let ok = ratio > 0.0 && ratio <= 1.0;
                    self.require(ok, key("ratio"), "must be above 0 and at most 1", "1 is every message");
                }
                Check::Convergence { steps } => {
                    self.require(steps > 0, key("steps"), "must be at least 1", "10 is usual");
                }
                Check::BoundedMemory { bytes_per_node } => {
                    let remedy = "1048576 is one MiB for each node";
                    self.require(bytes_per_node > 0, key("bytes_per_node"), "must be above 0", remedy);
                }
                Check::NoLostEntry { within }
                | Check::EqualLogs { within }
                | Check::EqualRegistries { within }
                | Check::SameFreeze { within } => self.positive(within, key("within_ms")),
                Check::BoundedBuffers { bytes } => {
                    self.require(bytes > 0, key("bytes"), "must be above 0", "1048576 is one MiB");
                }
                Check::Makespan { max } => {
                    let remedy = "1.3 is 30 % more than the bound";
                    self.require((1.0..=1e9).contains(&max), key("max"), "must be at least 1", remedy);
                }
                Check::Detection { precision_min, recall_min, .. } => {
                    self.share(precision_min, true, key("precision_min"));
                    self.share(recall_min, true, key("recall_min"));
                    let can = scenario.has_observer() && !scenario.adversaries.is_empty();
                    let remedy = "add `[[adversaries]]`, and leave `[observer]` on; or remove the check";
                    self.require(
                        can,
                        key("kind"),
                        "there is nobody to be found, or nobody who looks",
                        remedy,
                    );
                }
                Check::Monotone
                | Check::Authentic
                | Check::NoFalseQuarantine
                | Check::OnlyWritten
                | Check::TrueCheckpoints
                | Check::TasksCommittedOnce
                | Check::NoWrongResult
                | Check::EveryJobEnds => {}
            }
            if checks.iter().take(i).any(|other| other.name() == check.name()) {
                let message = format!("`{}` is there twice", check.name());
                self.push(format!("checks[{i}].kind"), message, "keep one of them");
            }
        }
    }
}

/// How many nodes are hit; for regions an estimate by their shares.
pub(in crate::scenario) fn how_many(scenario: &Scenario, who: &Who) -> u64 {
    let nodes = u64::from(scenario.network.nodes);
    match who {
        Who::All => nodes,
        Who::Nodes(list) => list.iter().collect::<std::collections::BTreeSet<_>>().len() as u64,
        Who::Count(number) => u64::from(*number),
        Who::Share(share) => rounded(share * f64::from(scenario.network.nodes)),
        Who::Regions(list) => {
            let regions = &scenario.network.regions;
            let sum: f64 = regions.iter().map(|region| region.share).sum();
            let part: f64 = list.iter().filter_map(|region| Some(regions.get(*region)?.share)).sum();
            if sum > 0.0 { rounded(part / sum * f64::from(scenario.network.nodes)) } else { 0 }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the number of nodes")]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

fn are(number: u64) -> String {
    format!("{} {number}", if number == 1 { "there is" } else { "there are" })
}
