//! What `/metrics` says of the node beyond libp2p's and the API's own figures.
//!
//! State machines count for themselves. When somebody asks, the node takes a [`Snapshot`] of them, and the
//! collector writes it down; nothing is counted twice and nothing runs between two scrapes. No metric has
//! a peer id as a label, so their number does not grow with the mesh.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use omnimesh_protocol::membership::Counts;
use omnimesh_protocol::observer::{NetworkMetrics, probe};
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::step;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::actors::gossip::Snapshot as Relay;
use crate::actors::swarm::Summary;
use crate::actors::telemetry;
use crate::memory::Usage;

/// The node in numbers, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) relay: Relay,
    pub(crate) swarm: Summary,
    pub(crate) members: Counts,
    pub(crate) local_health: u8,
    pub(crate) step: Option<step::Stats>,
    pub(crate) network: NetworkMetrics,
    pub(crate) probes: probe::Summary,
    pub(crate) telemetry: telemetry::View,
    /// Keys in quarantine.
    pub(crate) quarantined: usize,
    /// By kind.
    pub(crate) findings: Vec<(&'static str, u64)>,
    /// Entries of the audit log that were written, and actions that found no room.
    pub(crate) audit: Option<(u64, u64)>,
    pub(crate) mailboxes_shed: Vec<(&'static str, u64)>,
    pub(crate) actor_restarts: u64,
    pub(crate) author_cache: omnimesh_protocol::pattern::CacheStats,
    /// The log's figures and the bytes of its file, if the node keeps one.
    pub(crate) log: Option<(omnimesh_protocol::log::Stats, u64)>,
    pub(crate) uptime_s: f64,
    /// By part.
    pub(crate) memory: Vec<Usage>,
}

/// Where the last snapshot is put for the collector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest(Arc<Mutex<Option<Snapshot>>>);

impl Latest {
    pub(crate) fn set(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }
}

impl Collector for Latest {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.as_ref().map_or(Ok(()), |snapshot| Writer(encoder).snapshot(snapshot))
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    /// One counter for each value of a label.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> fmt::Result {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in values {
            ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> fmt::Result {
        let kind = ConstGauge::new(0.0).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, gauge) in values {
            ConstGauge::new(gauge).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, s: &Snapshot) -> fmt::Result {
        self.gauge("uptime_seconds", "Seconds since the node started", s.uptime_s)?;
        self.messages(s)?;
        self.gossip(&s.relay.gossip)?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let lazy = s.relay.lazy_links as f64;
        self.gauge("gossip_links_lazy", "Mesh links that carry ids instead of messages in some tree", lazy)?;
        self.mesh(s)?;
        if let Some((log, disk_bytes)) = &s.log {
            self.log(log, *disk_bytes)?;
        }
        self.observer(s)?;
        self.memory(&s.memory)?;
        self.queues(s)
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn memory(&mut self, usage: &[Usage]) -> fmt::Result {
        let budget = usage.iter().map(|of| (of.part.name(), of.budget as f64));
        self.gauges("memory_budget_bytes", "What each part of the node may hold", "part", budget)?;
        let used = usage.iter().filter_map(|of| Some((of.part.name(), of.used? as f64)));
        self.gauges("memory_used_bytes", "What it holds, of the parts that are counted", "part", used)?;
        let kind = ConstCounter::new(0_u64).metric_type();
        let help = "What was shed because a part had no room, by what it matters";
        let mut family = self.0.encode_descriptor("memory_shed", help, None, kind)?;
        for of in usage {
            for (priority, count) in of.shed {
                let labels = [("part", of.part.name()), ("priority", priority.name())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn observer(&mut self, s: &Snapshot) -> fmt::Result {
        let probe::Summary { total, malformed, .. } = s.probes;
        let probes = [
            ("received", total.received),
            ("lost", total.lost),
            ("wrong", total.wrong),
            ("out_of_order", total.out_of_order),
            ("malformed", malformed),
        ];
        self.counters("probes", "Known-answer probes of others, by what came of them", "outcome", probes)?;
        self.gauge("probe_delivery_ratio", "Probes that came, of those sent to here", total.delivery())?;
        self.gauge("probe_latency_seconds", "Mean smoothed latency of probes", total.latency_ms / 1e3)?;
        let readings = &s.telemetry.readings;
        let values = readings.iter().filter_map(|r| Some((r.metric.code(), r.value?)));
        self.gauges("telemetry", "What thresholds are compared with, at the last sample", "metric", values)?;
        let levels = readings.iter().map(|r| (r.metric.code(), f64::from(r.level as u8)));
        self.gauges("alert_level", "0 normal, 1 warning, 2 critical", "metric", levels)?;
        self.counter("incidents", "Alerts so far", s.telemetry.reliability.incidents)?;
        let webhook = s.telemetry.webhook;
        let posts = [("sent", webhook.sent), ("failed", webhook.failed), ("dropped", webhook.dropped)];
        self.counters("webhook_posts", "Alerts for the webhook, by what came of them", "outcome", posts)?;
        self.counters(
            "findings",
            "Misdeeds seen, of peers that are remembered",
            "kind",
            s.findings.iter().copied(),
        )?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let quarantined = s.quarantined as f64;
        self.gauge("quarantined_keys", "Keys that are shut out", quarantined)?;
        if let Some((written, lost)) = s.audit {
            self.counter("audit_entries", "Entries written to the audit log", written)?;
            self.counter("audit_lost", "Actions that found no room in its queue", lost)?;
        }
        Ok(())
    }

    fn messages(&mut self, s: &Snapshot) -> fmt::Result {
        let Relay { counters, refused, accepted, .. } = &s.relay;
        let refused = Refusal::ALL.iter().map(|reason| (reason.code(), refused[reason.index()]));
        self.counters("messages_refused", "Messages refused, by the gate's reason", "reason", refused)?;
        self.counter("messages_verified", "Messages that passed every gate", *accepted)?;
        self.counter(
            "payloads_delivered",
            "Payloads handed to subscribers here",
            counters.delivered_payloads,
        )?;
        self.counter("payloads_published", "Payloads published by this node", counters.published_payloads)?;
        self.counter("frames_received", "Gossip frames received", counters.frames_received)?;
        let malformed = counters.frames_malformed.iter().map(|(reason, count)| (*reason, *count));
        self.counters("frames_malformed", "Gossip frames that could not be read", "reason", malformed)?;
        self.counter(
            "frames_early_shed",
            "Gossip frames dropped because our stream to their sender did not open",
            counters.frames_early_shed,
        )?;
        let shape = counters.messages_refused_by_shape.iter().map(|(reason, count)| (*reason, *count));
        self.counters(
            "messages_not_anonymous",
            "Messages refused for gossipsub's own fields: one of its author, or no topic",
            "reason",
            shape,
        )?;
        self.counter("verify_batches", "Batches of signatures checked", s.relay.verified.batches)?;
        self.counter("verify_messages", "Signatures checked", s.relay.verified.messages)?;
        self.counter(
            "verify_shed",
            "Messages shed because too many signatures waited",
            s.relay.verified.shed,
        )?;
        self.counter(
            "subscribers_lagged",
            "Payloads dropped because a subscriber was slow",
            counters.subscribers_lagged,
        )?;
        let hit_rates = [("verify", s.relay.cache.hit_rate()), ("author", s.author_cache.hit_rate())];
        self.gauges("pattern_cache_hit_ratio", "Share of patterns found in the cache", "cache", hit_rates)?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let entries = [("verify", s.relay.cache.len as f64), ("author", s.author_cache.len as f64)];
        self.gauges("pattern_cache_entries", "Patterns in the cache", "cache", entries)
    }

    fn gossip(&mut self, stats: &omnimesh_protocol::gossip::Stats) -> fmt::Result {
        let copies = [
            ("received", stats.copies_received),
            ("duplicate", stats.duplicates),
            ("sent_own", stats.copies_sent_own),
            ("sent_forwarded", stats.copies_sent_forwarded),
            ("sent_iwant", stats.copies_sent_iwant),
            ("saved_by_idontwant", stats.copies_saved),
            ("saved_by_tree", stats.copies_lazy),
            ("saved_by_trial", stats.copies_tried),
        ];
        self.counters("gossip_copies", "Whole messages on links", "what", copies)?;
        let received = [
            ("ihave", stats.ihave_received),
            ("iwant", stats.iwant_received),
            ("graft", stats.graft_received),
            ("prune", stats.prune_received),
            ("idontwant", stats.idontwant_received),
            ("choke", stats.choke_received),
            ("unchoke", stats.unchoke_received),
        ];
        self.counters("gossip_control_received", "Control entries received", "kind", received)?;
        let sent = [
            ("ihave", stats.ihave_sent),
            ("iwant", stats.iwant_sent),
            ("graft", stats.graft_sent),
            ("prune", stats.prune_sent),
            ("idontwant", stats.idontwant_sent),
            ("choke", stats.choke_sent),
            ("unchoke", stats.unchoke_sent),
        ];
        self.counters("gossip_control_sent", "Control entries sent", "kind", sent)?;
        let links = [
            ("repaired", stats.tree_repairs),
            ("replaced", stats.tree_replacements),
            ("shortcut", stats.tree_shortcuts),
        ];
        self.counters("gossip_tree_links", "Links made eager in tree mode, by cause", "cause", links)
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn mesh(&mut self, s: &Snapshot) -> fmt::Result {
        let Counts { alive, suspect, dead, left, quarantined } = s.members;
        let members = [
            ("alive", alive as f64),
            ("suspect", suspect as f64),
            ("dead", dead as f64),
            ("left", left as f64),
            ("quarantined", quarantined as f64),
        ];
        self.gauges("members", "Members by state, this node among them", "state", members)?;
        self.gauge("peers", "Connected peers", s.swarm.peers as f64)?;
        self.gauge("peers_admitted", "Connected peers that proved membership", s.swarm.members as f64)?;
        self.gauge(
            "local_health",
            "How much the node doubts itself; 0 is healthy",
            f64::from(s.local_health),
        )?;
        let refusals = s.swarm.refusals.iter().copied();
        self.counters("peers_refused", "Peers refused, by reason", "reason", refusals)?;
        let malformed = s.swarm.frames_malformed.iter().map(|(reason, count)| (*reason, *count));
        let help =
            "Control frames that could not be read; all but those of an unknown kind end the connection";
        self.counters("control_frames_malformed", help, "reason", malformed)?;
        if let Some(step) = &s.step {
            self.gauge(
                "step",
                "The mesh's step; -1 while not synchronised",
                step.step.map_or(-1.0, |step| step.0 as f64),
            )?;
            self.gauge("step_skew_ms", "Spread of the clocks kept in the last round", step.skew_ms)?;
            self.gauge(
                "step_offset_ms",
                "Mesh time less this node's own clock",
                step.offset_ms.unwrap_or(0.0),
            )?;
            self.gauge("step_samples", "Peers whose clock counted in the last round", step.samples as f64)?;
            self.counter("step_jumps", "Times the clock was set forward", step.jumps)?;
        }
        let network = &s.network;
        self.gauge("network_health", "0 (of no use) to 1 (all well)", network.health)?;
        self.gauge(
            "network_messages_per_second",
            "Payloads verified per second",
            network.messages_per_second,
        )?;
        self.counter("pattern_mismatches", "Messages whose tag did not match", network.pattern_mismatches)?;
        let latency = network.latency_ms;
        let quantiles =
            [("0.5", latency.p50), ("0.95", latency.p95), ("0.99", latency.p99), ("1", latency.max)];
        self.gauges(
            "message_latency_ms",
            "From publishing to here, of the last minute",
            "quantile",
            quantiles,
        )
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn log(&mut self, log: &omnimesh_protocol::log::Stats, disk_bytes: u64) -> fmt::Result {
        self.gauge("log_authors", "Authors whose logs are kept", log.authors as f64)?;
        self.gauge("log_authors_frozen", "Of these, those that contradicted themselves", log.frozen as f64)?;
        self.gauge("log_entries", "Entries in the log, truncated ones included", log.entries as f64)?;
        let help = "Entries that peers are known to have and this node has not";
        self.gauge("log_entries_behind", help, log.behind as f64)?;
        let help = "Bytes of records that wait for what comes before them";
        self.gauge("log_waiting_bytes", help, log.waiting_bytes as f64)?;
        self.gauge("log_write_bytes", "Bytes of records that wait to be written", log.write_bytes as f64)?;
        self.gauge("log_disk_bytes", "Bytes of the log's file", disk_bytes as f64)?;
        self.counter("log_entries_appended", "Entries that this node appended", log.appended)?;
        let records = [
            ("applied", log.applied),
            ("duplicate", log.duplicates),
            ("refused", log.refused),
            ("shed", log.shed),
        ];
        self.counters("log_records", "Records of others, by what became of them", "outcome", records)?;
        self.counter("log_rounds", "Rounds of reconciliation begun", log.rounds)?;
        self.counter("log_rounds_equal", "Of these, rounds in which nothing differed", log.rounds_equal)?;
        self.counter("log_fetches", "Requests for records sent to peers", log.fetches)?;
        let help = "Of these, requests that were answered late, wrongly or not at all";
        self.counter("log_fetches_failed", help, log.fetches_failed)?;
        self.counter("log_bytes_sent", "Bytes sent to compare and repair logs", log.bytes_sent)?;
        self.counter(
            "log_record_bytes_sent",
            "Of these, bytes of frames with records",
            log.record_bytes_sent,
        )?;
        self.counter("log_bytes_received", "Bytes received to compare and repair logs", log.bytes_received)?;
        self.counter("log_writes", "Writes to the disk", log.writes)?;
        self.counter("log_writes_failed", "Writes that failed", log.writes_failed)?;
        let checkpoints = [
            ("made", log.checkpoints_made),
            ("sealed", log.checkpoints_sealed),
            ("adopted", log.checkpoints_adopted),
            ("refused", log.checkpoints_refused),
        ];
        self.counters("log_checkpoints", "Checkpoints, by what became of them", "outcome", checkpoints)?;
        let help = "Entries that were missing here and that a checkpoint stands for";
        self.counter("log_entries_covered", help, log.entries_covered)?;
        self.counter("log_misdeeds", "Peers' breaches of the log's protocol", log.misdeeds)
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn queues(&mut self, s: &Snapshot) -> fmt::Result {
        let relay = &s.relay;
        self.gauge("outbound_frames", "Gossip frames that wait for peers", relay.queued_frames as f64)?;
        self.gauge("outbound_bytes", "Bytes that wait for peers", relay.queued_bytes as f64)?;
        self.counter(
            "outbound_shed",
            "Gossip frames that a full queue to a peer refused",
            relay.counters.outbound_shed,
        )?;
        self.counter(
            "control_shed",
            "Control frames lost because the peer was not there",
            s.swarm.control_shed,
        )?;
        self.gauge("replay_authors", "Authors whose sequence numbers are remembered", relay.authors as f64)?;
        self.gauge("channels_subscribed", "Channels with subscribers here", relay.channels as f64)?;
        self.gauge("verifying", "Messages whose signature is being checked", relay.verifying as f64)?;
        let shed = s.mailboxes_shed.iter().copied();
        self.counters("mailbox_shed", "Messages between actors that a full mailbox shed", "actor", shed)?;
        self.counter("actor_restarts", "Actors that failed and were started anew", s.actor_restarts)
    }
}
