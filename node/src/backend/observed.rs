//! What the observer, the prober and telemetry know, as the API says it.

use std::time::Duration;

use omnimesh_protocol::observer::telemetry::{Incident, Metric};
use omnimesh_protocol::observer::{self, Outcome, probe};
use omnimesh_protocol::{MessageId, NodeId, Step, Time};

use super::{NodeBackend, millis, phase, stopped};
use crate::actors::observer::{
    GetAnomalies, GetQuarantines, GetStory, GetWhyPeer, GetWhyStep, LiftQuarantine,
};
use crate::actors::telemetry::{Acknowledge, GetView, Reading, View, wall_of};
use crate::actors::{prober, sync};
use crate::api::backend::{Backend, BackendError};
use crate::api::types;
use crate::clock::wall_ms;
use crate::node::Inner;

/// Findings that the monitor shows.
const FINDINGS_SHOWN: usize = 10;

impl NodeBackend {
    pub(super) async fn read_anomalies(&self) -> Result<Vec<types::Anomaly>, BackendError> {
        let inner = self.inner()?;
        let anomalies = inner.links()?.observer.send(GetAnomalies).await.map_err(stopped)?;
        Ok(anomalies.into_iter().map(anomaly_view).collect())
    }

    /// How often each kind was found since the start, of those that are remembered.
    pub(super) async fn findings_by_kind(&self) -> Result<Vec<(&'static str, u64)>, BackendError> {
        let inner = self.inner()?;
        let findings = inner.links()?.observer.send(GetAnomalies).await.map_err(stopped)?;
        let count = |kind: &observer::AnomalyKind| {
            let of_kind = findings.iter().filter(|finding| finding.kind == *kind);
            (kind.code(), of_kind.map(|finding| finding.count).sum())
        };
        Ok(observer::AnomalyKind::ALL.iter().map(count).collect())
    }

    pub(super) async fn read_quarantines(&self) -> Result<Vec<types::Quarantine>, BackendError> {
        let inner = self.inner()?;
        let all = inner.links()?.observer.send(GetQuarantines).await.map_err(stopped)?;
        Ok(all.into_iter().map(|(node, sentence)| quarantine_view(node, &sentence)).collect())
    }

    pub(super) async fn do_lift(&self, peer: NodeId) -> Result<Option<types::Quarantine>, BackendError> {
        let known = self.read_quarantines().await?.into_iter().find(|known| known.peer_id == peer);
        let inner = self.inner()?;
        let was_in = inner.links()?.observer.send(LiftQuarantine(peer)).await.map_err(stopped)?;
        Ok(known.filter(|_| was_in))
    }

    pub(super) async fn read_why_peer(&self, peer: String) -> Result<Option<types::WhyPeer>, BackendError> {
        let Ok(id) = peer.parse::<libp2p::PeerId>() else { return Ok(None) };
        let inner = self.inner()?;
        let why = inner.links()?.observer.send(GetWhyPeer(id)).await.map_err(stopped)?;
        Ok(Some(why_peer_view(peer, why)))
    }

    pub(super) async fn read_probes(&self) -> Result<(String, types::Probes), BackendError> {
        let inner = self.inner()?;
        let summary = inner.links()?.prober.send(prober::GetSummary).await.map_err(stopped)?;
        Ok((delivery_sentence(&summary), probes_view(&summary)))
    }

    pub(super) async fn read_alerts(&self) -> Result<Vec<types::AlertView>, BackendError> {
        let View { at, incidents, .. } = self.telemetry().await?;
        Ok(incidents.iter().map(|incident| alert_view(at, incident)).collect())
    }

    pub(super) async fn telemetry(&self) -> Result<View, BackendError> {
        self.inner()?.links()?.telemetry.send(GetView).await.map_err(stopped)
    }

    pub(super) async fn do_acknowledge(
        &self,
        incident: u64,
        by: String,
    ) -> Result<Option<types::AlertView>, BackendError> {
        let acknowledge = Acknowledge { incident, by };
        let found = self.inner()?.links()?.telemetry.send(acknowledge).await.map_err(stopped)?;
        Ok(found.map(|(now, incident)| alert_view(now, &incident)))
    }

    pub(super) async fn read_monitor(&self) -> Result<types::Monitor, BackendError> {
        let network = self.network_metrics().await?;
        let View { at, worst, readings, incidents, reliability, .. } = self.telemetry().await?;
        let (verified_delivery, probes) = self.read_probes().await?;
        let findings = self.read_anomalies().await?;
        let inner = self.inner()?;
        let (_, doubt) = inner.links()?.observer.send(GetWhyStep).await.map_err(stopped)?;
        let open = incidents.iter().filter(|incident| incident.resolved.is_none());
        Ok(types::Monitor {
            at_ms: wall_ms(),
            step: inner.clock.step(inner.common.now()),
            level: worst,
            health: network.health,
            members: network.nodes,
            peers: network.peers,
            messages_per_second: network.messages_per_second,
            refused_per_second: network.refused_per_second,
            verified_delivery,
            probes,
            doubt,
            metrics: readings.iter().map(metric_view).collect(),
            alerts: open.map(|incident| alert_view(at, incident)).collect(),
            incidents: reliability.incidents,
            mtbf_s: reliability.mtbf.map(|mtbf| mtbf.as_secs_f64()),
            mean_recovery_s: reliability.mean_recovery.map(|time| time.as_secs_f64()),
            quarantined: self.read_quarantines().await?.len(),
            findings: findings.iter().rev().take(FINDINGS_SHOWN).rev().cloned().collect(),
        })
    }

    pub(super) async fn read_why_step(&self, asked: Option<Step>) -> Result<types::WhyStep, BackendError> {
        let inner = self.inner()?;
        let links = inner.links()?;
        let (why, doubt) = links.observer.send(GetWhyStep).await.map_err(stopped)?;
        let stats = links.sync.send(sync::GetStats).await.map_err(stopped)?;
        let now = inner.common.now();
        let current = inner.clock.step(now);
        let step = asked.or(current);
        let mut explanation = match self.readiness() {
            Err(waits) => vec![format!("this node has no step: {}", waits.reason)],
            Ok(()) => Vec::new(),
        };
        if let (Some(step), Some(current), Some(now_us)) = (step, current, inner.clock.mesh_time_us(now)) {
            explanation.extend(explain_step(&inner, step, current, now_us));
        }
        if let Some(stats) = stats {
            explanation.push(format!(
                "{} clocks counted in the last round; they lie {:.1} ms apart",
                stats.samples, stats.skew_ms
            ));
            if stats.holding {
                explanation.push("the clock stands: it is far ahead of the others".to_owned());
            }
        }
        if doubt > 0.0 {
            explanation.push(format!("this node doubts itself by {doubt:.2}, and others less for it"));
        }
        let findings = self.read_anomalies().await?.into_iter();
        let is_of =
            |found: &types::Anomaly| step.is_some_and(|step| found.first_step <= step && step <= found.step);
        Ok(types::WhyStep {
            step,
            phase: step.map(|step| phase(&inner, step)),
            current,
            explanation,
            doubts: why
                .doubts
                .iter()
                .map(|(reason, value)| types::DoubtView { reason: (*reason).to_owned(), value: *value })
                .collect(),
            events: why
                .events
                .iter()
                .map(|(at, detail)| types::StepEventView {
                    ago_ms: millis(why.at.since(*at)),
                    detail: detail.clone(),
                })
                .collect(),
            findings: findings.filter(is_of).collect(),
        })
    }

    pub(super) async fn read_story(&self, id: MessageId) -> Result<Option<types::WhyMessage>, BackendError> {
        let inner = self.inner()?;
        let links = inner.links()?;
        let (now, story) = links.observer.send(GetStory(id)).await.map_err(stopped)?;
        let Some(story) = story else { return Ok(None) };
        let mut why = story_view(id, &story, now);
        let mut involved: Vec<(String, &str)> = Vec::new();
        let author = why.author.filter(|author| *author != inner.me).map(|author| author.to_string());
        involved.extend(author.map(|author| (author, "author")));
        for from in why.records.iter().filter_map(|record| record.from.clone()) {
            if !involved.contains(&(from.clone(), "bringer")) {
                involved.push((from, "bringer"));
            }
        }
        for (peer_id, role) in involved {
            if let Some(stands) = self.read_why_peer(peer_id.clone()).await? {
                let types::WhyPeer { trust, standing, findings, .. } = stands;
                let role = role.to_owned();
                why.standings.push(types::Standing { peer_id, role, trust, standing, findings });
            }
        }
        Ok(Some(why))
    }
}

/// What this node makes of a step.
fn explain_step(inner: &Inner, step: Step, current: Step, now_us: u64) -> Vec<String> {
    let node = &inner.config.node;
    let interval_us = node.step_interval_ms.saturating_mul(1_000);
    let begins_us = step.0.saturating_mul(interval_us);
    let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
    let place = phase(inner, step);
    let first = place.0.saturating_mul(node.phase_interval);
    let when = if begins_us > now_us {
        format!("it begins in {:.1} s", seconds(begins_us - now_us))
    } else {
        format!("it began {:.1} s ago", seconds(now_us - begins_us))
    };
    let what = if step == current {
        format!("the mesh is in step {step}: {when}")
    } else {
        format!("the mesh is in step {current}, not in {step}: {when}")
    };
    let last = first.saturating_add(node.phase_interval.saturating_sub(1));
    let keyed =
        format!("it is in phase {place}, which has the steps {first} to {last} and one key of patterns");
    let (past, future) = (current.0.saturating_sub(step.0), step.0.saturating_sub(current.0));
    let taken = if past > node.step_window_past {
        format!(
            "messages of it are stale: {past} steps back, {} are allowed (`node.step_window_past`)",
            node.step_window_past
        )
    } else if future > node.step_window_future {
        format!(
            "messages of it are too early: {future} steps ahead, {} are allowed (`node.step_window_future`)",
            node.step_window_future
        )
    } else {
        "messages of it are taken now".to_owned()
    };
    vec![what, keyed, taken]
}

/// As in `99.98 %, 0 wrong`.
fn delivery_sentence(summary: &probe::Summary) -> String {
    let sentence = summary.sentence();
    sentence.strip_prefix("verified delivery ").map(str::to_owned).unwrap_or(sentence)
}

fn probes_view(summary: &probe::Summary) -> types::Probes {
    let probe::Summary { origins, total, worst_delivery, malformed } = *summary;
    types::Probes {
        delivery: total.delivery(),
        worst_delivery,
        origins,
        received: total.received,
        lost: total.lost,
        wrong: total.wrong,
        out_of_order: total.out_of_order,
        malformed,
        latency_ms: total.latency_ms,
        jitter_ms: total.jitter_ms,
    }
}

fn alert_view(now: Time, incident: &Incident) -> types::AlertView {
    let Incident { id, metric, level, worst, value, opened, acknowledged, resolved } = incident;
    let state = match resolved {
        Some(_) => format!("{} was {}, and is back to normal", metric.name(), worst.code()),
        None => format!("{} is {}", metric.name(), level.code()),
    };
    types::AlertView {
        id: *id,
        metric: metric.code().to_owned(),
        stage: incident.stage().to_owned(),
        level: *level,
        worst: *worst,
        value: *value,
        detail: format!("{state}: {}", metric.show(*value)),
        opened_ms: wall_of(now, *opened),
        acknowledged_ms: acknowledged.as_ref().map(|(at, _)| wall_of(now, *at)),
        acknowledged_by: acknowledged.as_ref().map(|(_, by)| by.clone()),
        resolved_ms: resolved.map(|at| wall_of(now, at)),
    }
}

fn metric_view(Reading { metric, value, level, threshold, outlook }: &Reading) -> types::MetricView {
    types::MetricView {
        metric: metric.code().to_owned(),
        name: metric.name().to_owned(),
        value: *value,
        text: value.map_or_else(|| "-".to_owned(), |value| Metric::show(*metric, value)),
        level: *level,
        warning: threshold.map(|threshold| threshold.warning),
        critical: threshold.map(|threshold| threshold.critical),
        per_hour: outlook.per_hour,
        reaches: outlook.reaches.map(|(level, _)| level),
        reaches_in_s: outlook.reaches.map(|(_, left)| left.as_secs()),
        unusual: outlook.unusual,
        outlook: outlook.sentence(*metric),
    }
}

fn story_view(id: MessageId, story: &observer::Story<libp2p::PeerId>, now: Time) -> types::WhyMessage {
    let wall = wall_ms();
    let record = |record: &observer::Record<libp2p::PeerId>| {
        let (outcome, reason, explanation) = explain(record.outcome);
        types::WhyRecord {
            outcome,
            reason,
            explanation,
            from: record.from.map(|from| from.to_string()),
            step: record.step,
            at_ms: wall.saturating_sub(millis(now.since(record.at))),
        }
    };
    let records: Vec<types::WhyRecord> = story.records.iter().map(record).collect();
    // What decides is whether it was ever accepted; otherwise how it was refused last.
    let is_accepted = |record: &&types::WhyRecord| {
        matches!(
            record.outcome,
            types::Outcome::Delivered | types::Outcome::Forwarded | types::Outcome::Published
        )
    };
    let deciding = records.iter().find(is_accepted).or(records.last());
    types::WhyMessage {
        id,
        outcome: deciding.map_or(types::Outcome::Ignored, |record| record.outcome),
        explanation: deciding.map(|record| record.explanation.clone()).unwrap_or_default(),
        author: story.author,
        channel: story.channel.as_ref().map(ToString::to_string),
        step: story.step,
        first_seen_step: records.first().map(|record| record.step),
        copies: story.copies,
        records,
        standings: Vec::new(),
    }
}

fn explain(outcome: Outcome) -> (types::Outcome, Option<String>, String) {
    match outcome {
        Outcome::Published { recipients: 0 } => {
            let text = "published here, but no neighbour listens to the channel".to_owned();
            (types::Outcome::Published, None, text)
        }
        Outcome::Published { recipients } => {
            (types::Outcome::Published, None, format!("published here and sent to {recipients} neighbours"))
        }
        Outcome::Delivered => (
            types::Outcome::Delivered,
            None,
            "verified, delivered to subscribers here and passed on".to_owned(),
        ),
        Outcome::Forwarded => {
            (types::Outcome::Forwarded, None, "verified and passed on; nobody here subscribes".to_owned())
        }
        Outcome::Ignored(reason) => {
            (types::Outcome::Ignored, Some(reason.code().to_owned()), format!("not taken: {reason}"))
        }
        Outcome::Refused(reason) => {
            let text = format!("refused, and its bringer blamed: {reason}");
            (types::Outcome::Refused, Some(reason.code().to_owned()), text)
        }
    }
}
fn anomaly_view(anomaly: observer::Finding) -> types::Anomaly {
    types::Anomaly {
        id: format!("{}:{}", anomaly.accused, anomaly.kind.code()),
        kind: anomaly.kind,
        accused: anomaly.accused,
        reporter: anomaly.reporter,
        step: anomaly.last_step,
        first_step: anomaly.first_step,
        count: anomaly.count,
        severity: match anomaly.severity {
            observer::Severity::Info => types::Severity::Info,
            observer::Severity::Warning => types::Severity::Warning,
            observer::Severity::Critical => types::Severity::Critical,
        },
        evidence: anomaly.evidence.map(|id| id.to_string()),
        detail: match anomaly.count {
            1 => format!("once, in step {}: {}", anomaly.first_step, anomaly.reason),
            count => format!("{count} times since step {}: {}", anomaly.first_step, anomaly.reason),
        },
    }
}

fn quarantine_view(peer_id: NodeId, sentence: &observer::Sentence) -> types::Quarantine {
    types::Quarantine {
        peer_id,
        kind: sentence.kind,
        evidence: sentence.evidence.map(|id| id.to_string()),
        since: sentence.since,
        until: sentence.until,
    }
}

fn why_peer_view(peer_id: String, why: observer::why::WhyPeer) -> types::WhyPeer {
    let [good, suspicion, fault] = why.sums;
    let history = why.history.iter().map(|change| types::TrustChange {
        ago_ms: u64::try_from(why.at.since(change.at).as_millis()).unwrap_or(u64::MAX),
        trust: change.trust,
        cause: change.cause,
    });
    let node = peer_id.parse::<NodeId>().ok();
    types::WhyPeer {
        standing: why.standing(),
        way_back: why.way_back(),
        trust: why.trust,
        score: why.score,
        good,
        suspicion,
        fault,
        doubt: why.doubt,
        history: history.collect(),
        quarantine: node.zip(why.quarantine.as_ref()).map(|(node, sentence)| quarantine_view(node, sentence)),
        findings: why.findings.into_iter().map(anomaly_view).collect(),
        peer_id,
    }
}
