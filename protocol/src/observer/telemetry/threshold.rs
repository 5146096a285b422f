//! Thresholds: when a number is a problem, with hysteresis in value and in time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Declares the metrics once: variant, code, words, unit, and which way, warning and critical.
macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $name:literal, $unit:literal, $way:ident, $warning:literal, $critical:literal;)*) => {
        /// What is watched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Metric {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Metric {
            /// All of them.
            pub const ALL: &[Metric] = &[$(Metric::$variant),*];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Metric::$variant => $code),* }
            }

            /// For people.
            pub const fn name(self) -> &'static str {
                match self { $(Metric::$variant => $name),* }
            }

            /// A value of it, for people; shares in percent.
            pub fn show(self, value: f64) -> String {
                match self { $(Metric::$variant => show(value, $unit)),* }
            }

            /// Whether it is a part of a whole, 0 to 1.
            pub fn is_share(self) -> bool {
                match self { $(Metric::$variant => $unit == PERCENT),* }
            }

            /// Its limits, unless the configuration has others. All are guesses.
            pub const fn default_threshold(self) -> Threshold {
                let (direction, warning, critical) = match self {
                    $(Metric::$variant => (Direction::$way, $warning, $critical)),*
                };
                Threshold {
                    direction,
                    warning,
                    critical,
                    margin: 0.1,
                    hold: Duration::from_secs(15),
                    calm: Duration::from_secs(30),
                }
            }

            /// The metric with this code.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|metric| metric.code() == code)
            }
        }
    };
}

metrics! {
    /// 99 % of messages took at most so long.
    LatencyP99 => "latency_p99_ms", "latency (p99)", " ms", Above, 2_000.0, 8_000.0;
    /// Messages a second, in parts of what is usual here.
    Throughput => "throughput_of_usual", "throughput", " of what is usual", Below, 0.3, 0.05;
    /// Messages that were refused for a fault, of all, 0 to 1.
    ErrorRate => "error_rate", "error rate", " %", Above, 0.05, 0.25;
    /// Processor, of all cores, 0 to 1.
    Cpu => "cpu", "processor load", " %", Above, 0.85, 0.97;
    /// Memory, of the limit of the process, 0 to 1.
    Memory => "memory", "memory in use", " %", Above, 0.8, 0.95;
    /// Disk of the data directory, in use, 0 to 1.
    Disk => "disk", "disk in use", " %", Above, 0.85, 0.95;
    /// File descriptors, of the limit of the process, 0 to 1.
    Descriptors => "descriptors", "file descriptors in use", " %", Above, 0.7, 0.9;
    /// Traffic of the busiest network interface, of its speed, 0 to 1.
    Network => "network", "network in use", " %", Above, 0.7, 0.9;
    /// The own clock against the mesh's, in steps.
    StepSkew => "step_skew", "step skew", " steps", Above, 0.5, 2.0;
    /// Gossip neighbours, of those aimed at, 0 to 1.
    MeshDegree => "mesh_degree", "gossip neighbours", " %", Below, 0.5, 0.2;
    /// Probes that came, of those sent, 0 to 1.
    Delivery => "delivery", "verified delivery", " %", Below, 0.99, 0.9;
    /// The network's health, 0 to 1.
    Health => "health", "network health", " %", Below, 0.7, 0.3;
}

/// The unit of shares.
const PERCENT: &str = " %";

fn show(value: f64, unit: &str) -> String {
    if unit == PERCENT { format!("{:.2} %", value * 100.0) } else { format!("{value:.2}{unit}") }
}

/// How bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    #[default]
    Normal,
    /// Somebody should look.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Level {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// Which side of a limit is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

/// The limits of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Which side is bad.
    pub direction: Direction,
    /// The limit of warning.
    pub warning: f64,
    /// The limit of critical.
    pub critical: f64,
    /// A value is well within a limit when it is so much of the limit away from it.
    pub margin: f64,
    /// How long a value is beyond a limit before that counts.
    pub hold: Duration,
    /// How long it is well within before that does.
    pub calm: Duration,
}

impl Threshold {
    /// The limit of a level; of normal, that of warning.
    pub fn limit(&self, level: Level) -> f64 {
        if level == Level::Critical { self.critical } else { self.warning }
    }

    /// The level of a value, if limits were so much (of themselves) easier to break.
    fn level(&self, value: f64, margin: f64) -> Level {
        let breaks = |limit: f64| match self.direction {
            Direction::Above => value > limit * (1.0 - margin),
            Direction::Below => value < limit * (1.0 + margin),
        };
        match (breaks(self.critical), breaks(self.warning)) {
            (true, _) => Level::Critical,
            (false, true) => Level::Warning,
            (false, false) => Level::Normal,
        }
    }
}

/// The level of one metric.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauge {
    level: Level,
    /// The level that is coming, and since when.
    coming: Option<(Level, Time)>,
    /// Since when nothing is known of it.
    unknown: Option<Time>,
}

impl Gauge {
    /// At a level from the start.
    pub fn at(level: Level) -> Self {
        Gauge { level, ..Gauge::default() }
    }

    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes a value; from which level to which, if that changes.
    pub fn add(&mut self, now: Time, value: f64, threshold: &Threshold) -> Option<(Level, Level)> {
        self.unknown = None;
        let worse = threshold.level(value, 0.0);
        let better = threshold.level(value, threshold.margin);
        let (wanted, wait) = if worse > self.level {
            (worse, threshold.hold)
        } else if better < self.level {
            (better, threshold.calm)
        } else {
            self.coming = None;
            return None;
        };
        let is_rise = wanted > self.level;
        let (level, since) = match self.coming {
            // The least of the change that lasted all the time.
            Some((coming, since)) if (coming > self.level) == is_rise => {
                (if is_rise { coming.min(wanted) } else { coming.max(wanted) }, since)
            }
            _ => (wanted, now),
        };
        self.coming = Some((level, since));
        if now.since(since) < wait {
            return None;
        }
        self.coming = None;
        Some((std::mem::replace(&mut self.level, level), level))
    }

    /// Its value is not known now. What was beyond a limit and is known no more for as long as it would have to be well is over:
    /// nobody could end it otherwise.
    pub fn miss(&mut self, now: Time, threshold: &Threshold) -> Option<(Level, Level)> {
        let since = *self.unknown.get_or_insert(now);
        if self.level == Level::Normal || now.since(since) < threshold.calm {
            return None;
        }
        self.coming = None;
        Some((std::mem::take(&mut self.level), Level::Normal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_below_are_limits_too_and_codes_are_found_again() {
        let threshold = Metric::MeshDegree.default_threshold();
        let mut gauge = Gauge::default();
        let mut changes = Vec::new();
        for s in 0..200 {
            let value = if (50..100).contains(&s) { 0.3 } else { 1.0 };
            changes.extend(gauge.add(Time::from_millis(s * 1000), value, &threshold));
        }
        assert_eq!(changes, [(Level::Normal, Level::Warning), (Level::Warning, Level::Normal)]);
        for metric in Metric::ALL {
            assert_eq!(Metric::from_code(metric.code()), Some(*metric));
            let Threshold { direction, warning, critical, .. } = metric.default_threshold();
            assert_eq!(direction == Direction::Above, critical > warning, "{}", metric.code());
        }
    }

    #[test]
    fn every_metric_has_a_row_in_the_docs() {
        let page = include_str!("../../../../docs/observer.md");
        for metric in Metric::ALL {
            let name = metric.code();
            assert!(page.contains(&format!("\n| `{name}` |")), "{name} has no row under Telemetry");
        }
    }

    #[test]
    fn a_short_peak_and_one_that_is_not_over_do_not_count() {
        let threshold = Metric::Cpu.default_threshold();
        let mut gauge = Gauge::default();
        for s in 0..1_000 {
            let value = if s % 20 < 10 { 1.0 } else { 0.1 };
            assert_eq!(gauge.add(Time::from_millis(s * 1000), value, &threshold), None);
        }
        for s in 1_000..1_020 {
            gauge.add(Time::from_millis(s * 1000), 0.9, &threshold);
        }
        assert_eq!(gauge.level(), Level::Warning);
        for s in 1_020..2_000 {
            // Within the limit, but not well within.
            assert_eq!(gauge.add(Time::from_millis(s * 1000), 0.8, &threshold), None);
        }
    }
}
