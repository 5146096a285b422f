//! The numbers of a run by name, so that runs can be set side by side.

use crate::summary::Summary;

/// How a number is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A function of scenario and seed.
    Result,
    /// What the run took of this machine's time, this time.
    Time,
    /// Memory of the process; without meaning if other runs share it.
    Memory,
}

/// A number of a run.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its path in `summary.json`.
    pub name: &'static str,
    /// What it depends on.
    pub kind: MetricKind,
    /// Takes it; `None` if it has no value, as the latency of a run without deliveries.
    pub of: fn(&Summary) -> Option<f64>,
}

const fn result(name: &'static str, of: fn(&Summary) -> Option<f64>) -> Metric {
    Metric { name, kind: MetricKind::Result, of }
}

const fn time(name: &'static str, of: fn(&Summary) -> Option<f64>) -> Metric {
    Metric { name, kind: MetricKind::Time, of }
}

const fn memory(name: &'static str, of: fn(&Summary) -> Option<f64>) -> Metric {
    Metric { name, kind: MetricKind::Memory, of }
}

/// All numbers that are compared, in the order in which they are shown.
pub const METRICS: &[Metric] = &[
    result("delivery_ratio", |s| s.delivery_ratio),
    result("latency_ms.p50", |s| s.latency_ms.p50),
    result("latency_ms.p95", |s| s.latency_ms.p95),
    result("latency_ms.p99", |s| s.latency_ms.p99),
    result("latency_ms.max", |s| s.latency_ms.max),
    result("latency_ms.mean", |s| s.latency_ms.mean),
    result("deliveries", |s| Some(s.deliveries as f64)),
    result("duplicates", |s| Some(s.duplicates as f64)),
    result("rmr", |s| s.rmr),
    result("ldh", |s| s.ldh),
    result("step_skew_ms.p50", |s| s.step_skew_ms.p50),
    result("step_skew_ms.p99", |s| s.step_skew_ms.p99),
    result("step_skew_ms.max", |s| s.step_skew_ms.max),
    result("detector.precision", |s| s.detector.precision),
    result("detector.recall", |s| s.detector.recall),
    result("detector.false_quarantined", |s| Some(s.detector.false_quarantined as f64)),
    result("detector.time_to_detect_ms", |s| s.detector.time_to_detect_ms),
    result("traffic.frames", |s| Some(s.traffic.frames as f64)),
    result("traffic.bytes", |s| Some(s.traffic.bytes as f64)),
    result("traffic.gossip_bytes", |s| Some(s.traffic.gossip_bytes as f64)),
    result("log.acknowledged", |s| Some(s.log.acknowledged as f64)),
    result("log.acknowledged_ms.p50", |s| s.log.acknowledged_ms.p50),
    result("log.acknowledged_ms.p99", |s| s.log.acknowledged_ms.p99),
    result("log.everywhere_ms.p50", |s| s.log.everywhere_ms.p50),
    result("log.everywhere_ms.p99", |s| s.log.everywhere_ms.p99),
    result("log.rounds", |s| Some(s.log.rounds as f64)),
    result("log.reconciliation_bytes", |s| Some(s.log.reconciliation_bytes as f64)),
    result("log.record_bytes", |s| Some(s.log.record_bytes as f64)),
    result("log.catch_up_ratio", |s| s.log.catch_up_ratio),
    result("log.lost", |s| Some(s.log.lost as f64)),
    result("log.checkpoints", |s| Some(s.log.checkpoints as f64)),
    result("log.entries_dropped", |s| Some(s.log.entries_dropped as f64)),
    result("log.frozen", |s| Some(s.log.frozen as f64)),
    result("compute.makespan_s", |s| s.compute.makespan_s),
    result("compute.makespan_ratio", |s| s.compute.makespan_ratio),
    result("compute.wrong", |s| Some(s.compute.wrong as f64)),
    result("compute.runs", |s| Some(s.compute.runs as f64)),
    result("events", |s| Some(s.events as f64)),
    time("wall_seconds", |s| Some(s.wall_seconds)),
    time("events_per_second", |s| s.events_per_second),
    memory("bytes_per_node", |s| Some(s.bytes_per_node as f64)),
    memory("peak_rss_bytes", |s| Some(s.peak_rss_bytes as f64)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn every_metric_is_a_field_of_the_summary() {
        let summary = Summary::new(&Outcome { nodes: 3, ..Outcome::default() }, &[]);
        let json = serde_json::to_value(&summary).unwrap();
        for metric in METRICS {
            let pointer = format!("/{}", metric.name.replace('.', "/"));
            let field = json.pointer(&pointer).unwrap_or_else(|| panic!("no {}", metric.name));
            assert_eq!(field.as_f64(), (metric.of)(&summary), "{}", metric.name);
        }
    }
}
