//! The section `[observer]`: who is shut out and for how long, probes, limits, alerts, and the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observer::telemetry::{self, Direction, Metric, Threshold};

/// What the observer does about what it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObserverConfig {
    /// Steps that a quarantine lasts; 0: until somebody lifts it. Default 86400: a day of steps of a second (guess).
    pub quarantine_steps: u64,
    /// New keys of one address at once; one a minute after that. Too low refuses honest nodes behind one translating
    /// router. Default 16: guess.
    pub address_keys: u32,
    /// New keys of one network (/24, /48) at once; eight a minute after that. Default 128: guess.
    pub network_keys: u32,
    /// Time between two known-answer probes of this node; 0 sends none. Default 10000: guess, 64 bytes in ten seconds.
    pub probe_interval_ms: u64,
    /// Time between two samples of all metrics. Too high and short trouble is not seen. Default 5000: guess, a third of
    /// `alert_hold_ms`.
    pub sample_interval_ms: u64,
    /// How long a value is beyond a limit before there is an alert. Default 15000: guess.
    pub alert_hold_ms: u64,
    /// How long a value is well within a limit before an alert is over. Default 30000: guess.
    pub alert_calm_ms: u64,
    /// Other limits than the built-in ones: `metric=warning:critical`, as in `latency_p99_ms=500:2000` or
    /// `disk=80%:90%`; `metric=off` watches it no longer.
    pub thresholds: Vec<String>,
    /// Where alerts are posted as Alertmanager takes them (`POST …/api/v2/alerts`); `http://` only.
    pub webhook_url: Option<String>,
    /// Days for which the entries of the audit log are kept; 0 keeps them all. Default 90.
    pub audit_days: u64,
}

impl Default for ObserverConfig {
    fn default() -> Self {
        ObserverConfig {
            quarantine_steps: 86_400,
            address_keys: 16,
            network_keys: 128,
            probe_interval_ms: 10_000,
            sample_interval_ms: 5_000,
            alert_hold_ms: 15_000,
            alert_calm_ms: 30_000,
            thresholds: Vec::new(),
            webhook_url: None,
            audit_days: 90,
        }
    }
}

/// What is wrong with a limit, and the remedy.
pub(crate) type Fault = (String, String);

impl ObserverConfig {
    /// The limits in force.
    ///
    /// # Errors
    /// The first entry of `thresholds` that is none: the entry, what is wrong with it, and the remedy.
    pub fn telemetry(&self) -> Result<telemetry::Config, (String, Fault)> {
        let [hold, calm] = [self.alert_hold_ms, self.alert_calm_ms].map(Duration::from_millis);
        let built_in = |metric: Metric| Threshold { hold, calm, ..metric.default_threshold() };
        let mut thresholds: BTreeMap<Metric, Threshold> =
            Metric::ALL.iter().map(|metric| (*metric, built_in(*metric))).collect();
        let mut set = BTreeSet::new();
        for text in &self.thresholds {
            let (metric, limits) = parse(text).map_err(|fault| (text.clone(), fault))?;
            if !set.insert(metric) {
                let message = format!("a second entry for {}", metric.code());
                return Err((text.clone(), (message, "leave one of the two".to_owned())));
            }
            match limits {
                Some((warning, critical)) => {
                    thresholds.insert(metric, Threshold { warning, critical, ..built_in(metric) });
                }
                None => {
                    thresholds.remove(&metric);
                }
            }
        }
        Ok(telemetry::Config { thresholds })
    }
}

/// Reads `metric=warning:critical` or `metric=off`.
fn parse(text: &str) -> Result<(Metric, Option<(f64, f64)>), Fault> {
    let shape = || {
        let like =
            "write METRIC=WARNING:CRITICAL, as in latency_p99_ms=500:2000 or disk=80%:90%, or METRIC=off";
        ("not a limit".to_owned(), like.to_owned())
    };
    let (code, limits) = text.split_once('=').ok_or_else(shape)?;
    let metric = Metric::from_code(code.trim()).ok_or_else(|| {
        let codes: Vec<&str> = Metric::ALL.iter().map(|metric| metric.code()).collect();
        (format!("there is no metric {:?}", code.trim()), format!("use one of {}", codes.join(", ")))
    })?;
    if limits.trim() == "off" {
        return Ok((metric, None));
    }
    let (warning, critical) = limits.split_once(':').ok_or_else(shape)?;
    let (warning, critical) = number(warning, metric).zip(number(critical, metric)).ok_or_else(shape)?;
    if metric.is_share() && warning.max(critical) > 1.0 {
        let message = format!("{} is a share of at most 1, or 100 %", metric.name());
        let (warning, critical) = match metric.default_threshold().direction {
            Direction::Above => (80, 90),
            Direction::Below => (50, 20),
        };
        return Err((message, format!("write it in percent, as in {code}={warning}%:{critical}%")));
    }
    let is_in_order = match metric.default_threshold().direction {
        Direction::Above => warning <= critical,
        Direction::Below => warning >= critical,
    };
    if is_in_order {
        Ok((metric, Some((warning, critical))))
    } else {
        let message = "warning is worse than critical".to_owned();
        Err((message, format!("exchange the two: {code}={critical}:{warning}")))
    }
}

/// A number of at least 0; of what is a part of something also a percentage.
fn number(text: &str, metric: Metric) -> Option<f64> {
    let text = text.trim();
    let is_part = metric.is_share() || metric == Metric::Throughput;
    let (text, unit) = match text.strip_suffix('%') {
        Some(text) if is_part => (text, 0.01),
        _ => (text, 1.0),
    };
    let number = text.trim().parse::<f64>().ok()? * unit;
    (number.is_finite() && number >= 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(thresholds: &[&str]) -> Result<telemetry::Config, (String, Fault)> {
        let thresholds = thresholds.iter().map(|text| (*text).to_owned()).collect();
        ObserverConfig { thresholds, ..ObserverConfig::default() }.telemetry()
    }

    #[test]
    fn limits_are_read() {
        assert_eq!(with(&[]).unwrap(), telemetry::Config::default());
        let limits = with(&["latency_p99_ms=500:2000", "disk = 80% : 90%", "cpu=off"]).unwrap().thresholds;
        let of = |metric| limits.get(&metric).map(|limit| (limit.warning, limit.critical));
        assert_eq!(of(Metric::LatencyP99), Some((500.0, 2000.0)));
        assert_eq!(of(Metric::Disk), Some((0.8, 0.9)));
        assert_eq!(of(Metric::Cpu), None);
        assert_eq!(of(Metric::Health), Some((0.7, 0.3)));
    }

    #[test]
    fn what_is_none_is_refused_with_a_remedy() {
        for (text, message, remedy) in [
            ("disk", "not a limit", "METRIC=WARNING:CRITICAL"),
            ("disk=5", "not a limit", "disk=80%:90%"),
            ("disk=x:1", "not a limit", "METRIC=off"),
            ("disk=-1:1", "not a limit", ""),
            ("disc=1:2", "there is no metric \"disc\"", "descriptors, network, step_skew"),
            ("disk=0.9:0.8", "warning is worse than critical", "disk=0.8:0.9"),
            ("disk=80:90", "at most 1, or 100 %", "as in disk=80%:90%"),
            ("cpu=800%:900%", "processor load is a share", "cpu=80%:90%"),
            ("mesh_degree=50:20", "at most 1", "mesh_degree=50%:20%"),
            ("latency_p99_ms=500%:600%", "not a limit", ""),
            ("cpu=off", "a second entry for cpu", "leave one"),
            ("health=0.3:0.7", "warning is worse than critical", "health=0.7:0.3"),
        ] {
            let (place, (what, how)) = with(&["cpu=0.5:0.6", text]).unwrap_err();
            assert_eq!(place, text);
            assert!(what.contains(message) && how.contains(remedy), "{text}: {what}; {how}");
        }
    }
}
