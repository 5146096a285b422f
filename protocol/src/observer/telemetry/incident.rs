//! Incidents: the life of a condition from its first alert to its end, and what they say about reliability.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::threshold::{Level, Metric};
use crate::time::Time;

/// Incidents that are remembered.
pub const INCIDENTS_MAX: usize = 256;
/// Characters of a name that are kept.
const NAME_CHARS_MAX: usize = 64;

/// One condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Counts from 1.
    pub id: u64,
    /// What is the matter.
    pub metric: Metric,
    /// How bad now; normal: it is over.
    pub level: Level,
    /// How bad at its worst.
    pub worst: Level,
    /// The value that changed its level last.
    pub value: f64,
    /// When it began.
    pub opened: Time,
    /// When somebody took care, and who.
    pub acknowledged: Option<(Time, String)>,
    /// When it was over.
    pub resolved: Option<Time>,
}

impl Incident {
    /// Where it is in its life.
    pub fn stage(&self) -> &'static str {
        match (&self.resolved, &self.acknowledged) {
            (Some(_), _) => "resolved",
            (None, Some(_)) => "acknowledged",
            (None, None) => "open",
        }
    }
}

/// What the incidents say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reliability {
    /// Incidents so far.
    pub incidents: u64,
    /// Mean time between failures: time without an incident, for each incident. `None` before the first.
    pub mtbf: Option<Duration>,
    /// Mean time from opening to resolution, of those that are over. `None` before the first.
    pub mean_recovery: Option<Duration>,
}

/// All incidents, also of earlier runs if they are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    list: VecDeque<Incident>,
    since: Time,
    opened: u64,
    resolved: u64,
    /// Of those that are over, together.
    lasted: Duration,
    /// Since when something is open.
    down_since: Option<Time>,
    /// How long something was, before that.
    down: Duration,
}

impl Incidents {
    pub(super) fn new(now: Time) -> Self {
        Incidents {
            list: VecDeque::new(),
            since: now,
            opened: 0,
            resolved: 0,
            lasted: Duration::ZERO,
            down_since: None,
            down: Duration::ZERO,
        }
    }

    /// A metric came to another level.
    pub(super) fn on_level(&mut self, now: Time, metric: Metric, level: Level, value: f64) -> Incident {
        let open =
            self.list.iter().position(|incident| incident.metric == metric && incident.resolved.is_none());
        let place = open.unwrap_or_else(|| self.begin(now, metric));
        let incident = self.list.get_mut(place).expect("found or just added");
        incident.level = level;
        // What is not known says nothing of how it was.
        if value.is_finite() {
            incident.value = value;
        }
        incident.worst = incident.worst.max(level);
        if level == Level::Normal {
            incident.resolved = Some(now);
            self.resolved += 1;
            self.lasted = self.lasted.saturating_add(now.since(incident.opened));
        }
        let incident = incident.clone();
        if level == Level::Normal && self.list.iter().all(|incident| incident.resolved.is_some()) {
            let since = self.down_since.take().unwrap_or(now);
            self.down = self.down.saturating_add(now.since(since));
        }
        incident
    }

    /// Somebody takes care of one that is open; once.
    pub(super) fn acknowledge(&mut self, now: Time, id: u64, by: &str) -> Option<Incident> {
        let is_it = |incident: &&mut Incident| incident.id == id && incident.stage() == "open";
        let incident = self.list.iter_mut().find(is_it)?;
        incident.acknowledged = Some((now, by.chars().take(NAME_CHARS_MAX).collect()));
        Some(incident.clone())
    }

    /// The incidents that are remembered, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.list.iter()
    }

    /// Those that are not over.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.iter().filter(|incident| incident.resolved.is_none())
    }

    /// What they say, at `now`.
    pub fn reliability(&self, now: Time) -> Reliability {
        let down = self.down.saturating_add(self.down_since.map_or(Duration::ZERO, |since| now.since(since)));
        let up = now.since(self.since).saturating_sub(down);
        let mean = |sum: Duration, count: u64| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (count > 0).then(|| sum / count)
        };
        Reliability {
            incidents: self.opened,
            mtbf: mean(up, self.opened),
            mean_recovery: mean(self.lasted, self.resolved),
        }
    }

    fn begin(&mut self, now: Time, metric: Metric) -> usize {
        if self.list.len() >= INCIDENTS_MAX {
            // There are fewer metrics than incidents, so one is resolved.
            let oldest = self.list.iter().position(|incident| incident.resolved.is_some()).unwrap_or(0);
            self.list.remove(oldest);
        }
        self.opened += 1;
        self.down_since.get_or_insert(now);
        self.list.push_back(Incident {
            id: self.opened,
            metric,
            level: Level::Normal,
            worst: Level::Normal,
            value: 0.0,
            opened: now,
            acknowledged: None,
            resolved: None,
        });
        self.list.len() - 1
    }
}

const _: () = assert!(Metric::ALL.len() < INCIDENTS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_and_of_failures_are_means() {
        let at = |s: u64| Time::from_millis(s * 1000);
        let mut incidents = Incidents::new(at(0));
        assert_eq!(incidents.reliability(at(100)), Reliability::default());
        incidents.on_level(at(100), Metric::Cpu, Level::Warning, 1.0);
        incidents.on_level(at(110), Metric::Disk, Level::Critical, 1.0);
        incidents.on_level(at(120), Metric::Cpu, Level::Normal, 0.0);
        incidents.on_level(at(150), Metric::Disk, Level::Normal, 0.0);
        let Reliability { incidents: count, mtbf, mean_recovery } = incidents.reliability(at(250));
        // Up for 200 s of 250 s; they lasted 20 s and 40 s.
        assert_eq!(
            (count, mtbf, mean_recovery),
            (2, Some(Duration::from_secs(100)), Some(Duration::from_secs(30)))
        );
        for n in 0..1_000 {
            incidents.on_level(at(300 + 2 * n), Metric::Cpu, Level::Warning, 1.0);
            incidents.on_level(at(301 + 2 * n), Metric::Cpu, Level::Normal, 1.0);
        }
        assert_eq!(incidents.iter().count(), INCIDENTS_MAX);
    }
}
