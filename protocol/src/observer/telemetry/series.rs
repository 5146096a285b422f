//! What a number was, lately: an average that follows, and a bounded history of slots.

use std::collections::VecDeque;
use std::time::Duration;

use crate::observer::statistics::Smoothed;
use crate::time::Time;

/// The length of a slot.
pub(super) const SLOT: Duration = Duration::from_secs(60);
/// Slots that are remembered: six hours.
pub(super) const SLOTS_MAX: usize = 360;

/// A minute of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// When it began.
    pub since: Time,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The sum, for the mean.
    sum: f64,
    /// Samples.
    pub samples: u32,
}

impl Slot {
    /// The mean.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.samples.max(1))
    }
}

/// A metric over time.
#[derive(Clone, Debug, Default)]
pub struct Series {
    slots: VecDeque<Slot>,
    smoothed: Smoothed,
}

impl Series {
    /// Takes a finite value.
    pub fn add(&mut self, now: Time, value: f64) {
        self.smoothed.add(value);
        match self.slots.back_mut() {
            Some(slot) if now.since(slot.since) < SLOT => {
                slot.min = slot.min.min(value);
                slot.max = slot.max.max(value);
                slot.sum += value;
                slot.samples = slot.samples.saturating_add(1);
            }
            _ => {
                if self.slots.len() >= SLOTS_MAX {
                    self.slots.pop_front();
                }
                self.slots.push_back(Slot { since: now, min: value, max: value, sum: value, samples: 1 });
            }
        }
    }

    /// The slots, oldest first.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The average of late (exponentially weighted), and the mean deviation from it.
    pub fn smoothed(&self) -> (f64, f64) {
        (self.smoothed.mean(), self.smoothed.deviation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_minutes_and_bounded() {
        let mut series = Series::default();
        for s in 0..40_000_u32 {
            series.add(Time::from_millis(u64::from(s) * 1000), f64::from(s % 60));
        }
        let last = series.slots().next_back().unwrap();
        assert_eq!((last.min, last.mean(), last.samples), (0.0, 19.5, 40));
        assert_eq!(series.slots().count(), SLOTS_MAX);
        let full = series.slots().next().unwrap();
        assert_eq!((full.min, full.max, full.mean(), full.samples), (0.0, 59.0, 29.5, 60));
        assert!(series.smoothed().1 > 0.0);
    }
}
