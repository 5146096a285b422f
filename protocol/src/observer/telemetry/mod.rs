//! Telemetry: when a number is a problem, who is told, and what became of it.
//!
//! ```text
//! Sample(metric, value) ─► Gauge: normal · warning · critical, with hysteresis ─► Alert (firing, resolved)
//!                                                   │
//!                                                   └► Incident: open ─► acknowledged ─► resolved      MTBF, recovery time
//! ```
//!
//! A gauge changes its level only after the value has been beyond a limit for [`Threshold::hold`], and goes back only
//! after it has been well within it for [`Threshold::calm`]. So there is one alert for one condition, and none that comes
//! and goes with noise around a limit. Of the metrics each has at most one incident that is not resolved.
//!
//! **Bounds.** One gauge for each metric; [`INCIDENTS_MAX`] incidents, the oldest resolved one goes first.

mod incident;
mod outlook;
mod series;
mod threshold;
mod usual;

use std::collections::BTreeMap;

use crate::machine::Outbox;
use crate::time::Time;

pub use incident::{INCIDENTS_MAX, Incident, Incidents, Reliability};
pub use outlook::Outlook;
pub use series::{Series, Slot};
pub use threshold::{Direction, Gauge, Level, Metric, Threshold};
pub use usual::{Lately, Usual};

/// The thresholds in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// One for each metric that is watched.
    pub thresholds: BTreeMap<Metric, Threshold>,
}

impl Default for Config {
    fn default() -> Self {
        let thresholds = Metric::ALL.iter().map(|metric| (*metric, metric.default_threshold())).collect();
        Config { thresholds }
    }
}

/// What the telemetry is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A metric has this value now. Not finite: it is unknown, which opens no incident, and ends one if it lasts.
    Sample {
        /// Which.
        metric: Metric,
        /// How much.
        value: f64,
    },
    /// Somebody takes care of an incident.
    Acknowledge {
        /// Which.
        incident: u64,
        /// Who.
        by: String,
    },
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Tell people, by webhook and event.
    Alert(Alert),
    /// An incident's life went on: for the audit log.
    Incident(Incident),
    /// Somebody takes care of one: the same.
    Acknowledged(Incident),
}

/// One condition, as Alertmanager knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What is the matter.
    pub metric: Metric,
    /// How bad; normal: it is over.
    pub level: Level,
    /// The value that made it so.
    pub value: f64,
    /// The limit of the level that it was or is in.
    pub limit: f64,
    /// The incident that it belongs to.
    pub incident: u64,
    /// When that began.
    pub since: Time,
}

impl Alert {
    /// For people.
    pub fn sentence(&self) -> String {
        let (value, limit) = (self.metric.show(self.value), self.metric.show(self.limit));
        match self.level {
            Level::Normal if !self.value.is_finite() => {
                format!("{} is not known any more, so its alert is over", self.metric.name())
            }
            Level::Normal => format!("{} is back to normal: {value}", self.metric.name()),
            level => format!("{} is {}: {value}, the limit is {limit}", self.metric.name(), level.code()),
        }
    }
}

/// Watches metrics.
#[derive(Clone, Debug)]
pub struct State {
    config: Config,
    gauges: BTreeMap<Metric, Gauge>,
    series: BTreeMap<Metric, Series>,
    incidents: Incidents,
}

impl State {
    /// Nothing was seen yet.
    pub fn new(config: Config, now: Time) -> Self {
        State { config, gauges: BTreeMap::new(), series: BTreeMap::new(), incidents: Incidents::new(now) }
    }

    /// Goes on with the incidents of an earlier run; those of metrics that are watched no more are over.
    pub fn resume(config: Config, now: Time, incidents: Incidents, out: &mut Outbox<Output>) -> Self {
        let open: Vec<(Metric, Level)> =
            incidents.open().map(|incident| (incident.metric, incident.level)).collect();
        let mut state = State { incidents, ..State::new(config, now) };
        for (metric, level) in open {
            if state.config.thresholds.contains_key(&metric) {
                state.gauges.insert(metric, Gauge::at(level));
            } else {
                let limit = metric.default_threshold().limit(level);
                state.change(now, (metric, f64::NAN), (Level::Normal, limit), out);
            }
        }
        state
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Sample { metric, value } => self.on_sample(now, metric, value, out),
            Input::Acknowledge { incident, by } => {
                if let Some(incident) = self.incidents.acknowledge(now, incident, &by) {
                    out.push(Output::Acknowledged(incident));
                }
            }
        }
    }

    /// The level of a metric.
    pub fn level(&self, metric: Metric) -> Level {
        self.gauges.get(&metric).map_or(Level::Normal, Gauge::level)
    }

    /// The worst level of all.
    pub fn worst(&self) -> Level {
        self.gauges.values().map(Gauge::level).max().unwrap_or(Level::Normal)
    }

    /// What a metric was, lately.
    pub fn series(&self, metric: Metric) -> Option<&Series> {
        self.series.get(&metric)
    }

    /// Where a metric goes, if it is watched and was seen for long enough.
    pub fn outlook(&self, metric: Metric) -> Outlook {
        let threshold = self.config.thresholds.get(&metric);
        let known = self.series.get(&metric).zip(threshold);
        known.map_or_else(Outlook::default, |(series, threshold)| {
            Outlook::of(series, self.level(metric), threshold)
        })
    }

    /// The incidents.
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    fn on_sample(&mut self, now: Time, metric: Metric, value: f64, out: &mut Outbox<Output>) {
        let is_known = value.is_finite();
        if is_known {
            self.series.entry(metric).or_default().add(now, value);
        }
        let Some(threshold) = self.config.thresholds.get(&metric) else { return };
        let gauge = self.gauges.entry(metric).or_default();
        let changed = if is_known { gauge.add(now, value, threshold) } else { gauge.miss(now, threshold) };
        let Some((from, to)) = changed else { return };
        let limit = threshold.limit(if to == Level::Normal { from } else { to });
        self.change(now, (metric, value), (to, limit), out);
    }

    /// A metric came to a level, which has this limit.
    fn change(
        &mut self,
        now: Time,
        (metric, value): (Metric, f64),
        (level, limit): (Level, f64),
        out: &mut Outbox<Output>,
    ) {
        let incident = self.incidents.on_level(now, metric, level, value);
        let (id, since) = (incident.id, incident.opened);
        out.push(Output::Alert(Alert { metric, level, value, limit, incident: id, since }));
        out.push(Output::Incident(incident));
    }
}

impl From<Alert> for Output {
    fn from(alert: Alert) -> Self {
        Output::Alert(alert)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(s: u64) -> Time {
        Time::from_millis(s * 1_000)
    }

    fn sample(state: &mut State, s: u64, value: f64) -> Vec<Output> {
        let mut out = Outbox::new();
        state.handle(at(s), Input::Sample { metric: Metric::ErrorRate, value }, &mut out);
        out.drain().collect()
    }

    fn alerts(outputs: &[Output]) -> Vec<Level> {
        let level =
            |output: &Output| if let Output::Alert(alert) = output { Some(alert.level) } else { None };
        outputs.iter().filter_map(level).collect()
    }

    #[test]
    fn one_alert_for_one_condition_and_one_when_it_is_over() {
        let mut state = State::new(Config::default(), at(0));
        let mut all = Vec::new();
        for s in 0..600 {
            let value = if (100..300).contains(&s) { 0.08 } else { 0.0 };
            all.extend(sample(&mut state, s, value));
        }
        assert_eq!(alerts(&all), [Level::Warning, Level::Normal]);
        let incident = state.incidents().iter().next().unwrap();
        assert!(incident.resolved.is_some());
        let Output::Alert(first) = &all[0] else { panic!("{all:?}") };
        assert!(
            first.sentence().contains("error rate is warning: 8.00 %, the limit is 5.00 %"),
            "{}",
            first.sentence()
        );
        let reliability = state.incidents().reliability(at(600));
        assert_eq!(reliability.incidents, 1);
        assert!((190..=230).contains(&reliability.mean_recovery.unwrap().as_secs()), "{reliability:?}");
    }

    #[test]
    fn what_is_not_known_any_more_is_over() {
        let mut state = State::new(Config::default(), at(0));
        let mut all = Vec::new();
        for s in 0..600 {
            let value = if s < 200 { 0.08 } else { f64::NAN };
            all.extend(sample(&mut state, s, value));
        }
        assert_eq!(alerts(&all), [Level::Warning, Level::Normal]);
        let Some(Output::Alert(last)) = all.iter().rfind(|output| matches!(output, Output::Alert(_))) else {
            panic!("{all:?}")
        };
        assert_eq!(last.sentence(), "error rate is not known any more, so its alert is over");
        let incident = state.incidents().iter().next().unwrap();
        assert!(incident.resolved.is_some() && incident.value > 0.0, "{incident:?}");
    }

    #[test]
    fn a_gap_is_no_end() {
        let mut state = State::new(Config::default(), at(0));
        let mut all = Vec::new();
        for s in 0..600 {
            all.extend(sample(&mut state, s, if s % 10 == 0 { 0.08 } else { f64::NAN }));
        }
        assert_eq!(alerts(&all), [Level::Warning]);
    }

    #[test]
    fn it_gets_worse_and_better_within_one_incident() {
        let mut state = State::new(Config::default(), at(0));
        let values = [(200, 0.0), (400, 0.1), (600, 0.5), (800, 0.1), (1_000, 0.0)];
        let mut all = Vec::new();
        for s in 0..1_000 {
            let (_, value) = values.iter().find(|(until, _)| s < *until).unwrap();
            all.extend(sample(&mut state, s, *value));
        }
        assert_eq!(alerts(&all), [Level::Warning, Level::Critical, Level::Warning, Level::Normal]);
        assert_eq!(state.incidents().iter().count(), 1);
        assert_eq!(state.incidents().iter().next().unwrap().worst, Level::Critical);
    }

    #[test]
    fn an_incident_is_acknowledged_once() {
        let mut state = State::new(Config::default(), at(0));
        (0..100).for_each(|s| drop(sample(&mut state, s, 0.5)));
        let mut acknowledge = |incident| {
            let mut out = Outbox::new();
            state.handle(at(101), Input::Acknowledge { incident, by: "anna".into() }, &mut out);
            out.len()
        };
        assert_eq!([acknowledge(1), acknowledge(1), acknowledge(7)], [1, 0, 0]);
        assert_eq!(state.worst(), Level::Critical);
    }

    #[test]
    fn it_goes_on_after_a_restart_with_the_same_incidents() {
        let mut state = State::new(Config::default(), at(0));
        (0..100).for_each(|s| drop(sample(&mut state, s, 0.5)));
        let mut out = Outbox::new();
        state.handle(at(100), Input::Acknowledge { incident: 1, by: "anna".into() }, &mut out);
        let kept = serde_cbor::to_vec(state.incidents()).unwrap();
        let resume = |config: Config| {
            let mut out = Outbox::new();
            let incidents = serde_cbor::from_slice(&kept).unwrap();
            (State::resume(config, at(200), incidents, &mut out), out.drain().collect::<Vec<_>>())
        };

        let (mut resumed, outputs) = resume(Config::default());
        assert_eq!((outputs, resumed.incidents()), (vec![], state.incidents()));
        let all: Vec<Output> = (200..300).flat_map(|s| sample(&mut resumed, s, 0.0)).collect();
        assert_eq!(alerts(&all), [Level::Normal], "no second alert, and an end of the first");
        assert_eq!(resumed.incidents().iter().count(), 1);

        // Nothing is compared with a limit that is off.
        let (resumed, outputs) = resume(Config { thresholds: BTreeMap::new() });
        assert_eq!(alerts(&outputs), [Level::Normal]);
        assert_eq!((resumed.incidents().open().count(), resumed.worst()), (0, Level::Normal));
    }

    proptest! {
        #[test]
        fn noise_around_a_limit_does_not_flap(seed in any::<u64>()) {
            use rand_chacha::ChaCha8Rng;
            use rand_core::{Rng, SeedableRng};
            println!("seed {seed}");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut state = State::new(Config::default(), at(0));
            let mut count = 0;
            for s in 0..5_000 {
                // Within 8 % of the limit of 0.05.
                let noise = f64::from(rng.next_u32() % 1_000) / 1_000.0 * 0.008 - 0.004;
                count += alerts(&sample(&mut state, s, 0.05 + noise)).len();
            }
            prop_assert!(count <= 1, "{count}");
        }

        #[test]
        fn whatever_comes_there_is_one_open_incident_and_all_is_bounded(
            values in proptest::collection::vec((0_u64..100, 0.0_f64..1.0), 1..500)
        ) {
            let mut state = State::new(Config::default(), at(0));
            let mut now = 0;
            for (wait, value) in values {
                now += wait;
                sample(&mut state, now, value);
                sample(&mut state, now, f64::NAN);
                let open = state.incidents().iter().filter(|incident| incident.resolved.is_none()).count();
                prop_assert!(open <= 1);
                prop_assert_eq!(open == 1, state.level(Metric::ErrorRate) != Level::Normal);
                prop_assert!(state.incidents().iter().count() <= INCIDENTS_MAX);
            }
        }
    }
}
