//! What is usual, and what was lately: for metrics that mean something only beside others of the same kind.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// How fast the usual rate follows: by half in this time. Source: guess; a change of habit is usual after an hour.
const HALF_LIFE: Duration = Duration::from_secs(1_200);
/// So long nothing is usual yet.
const WARM_UP: Duration = Duration::from_secs(600);
/// Below so many a second nothing is said: chance makes most of it.
const RATE_MIN: f64 = 5.0;

/// A rate in parts of what is usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usual {
    began: Option<Time>,
    last: Option<Time>,
    usual: f64,
}

impl Usual {
    /// Takes a rate; its part of what is usual, not a number while that is not known.
    pub fn add(&mut self, now: Time, rate: f64) -> f64 {
        if !rate.is_finite() {
            return f64::NAN;
        }
        let began = *self.began.get_or_insert(now);
        let Some(last) = self.last.replace(now) else {
            self.usual = rate;
            return f64::NAN;
        };
        let usual = self.usual;
        let weight = 1.0 - (-now.since(last).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.usual += (rate - usual) * weight;
        if now.since(began) < WARM_UP || usual < RATE_MIN { f64::NAN } else { rate / usual }
    }
}

/// How much of something came, of a count that grows, in the last five minutes.
#[derive(Clone, Debug, Default)]
pub struct Lately {
    counts: VecDeque<(Time, u64, u64)>,
}

/// The length of the look back.
const LATELY: Duration = Duration::from_secs(300);
/// Samples that are remembered.
const SAMPLES_MAX: usize = 512;

impl Lately {
    /// Takes how many came so far and how many did not; the part that came of those lately, not a number if there
    /// were none.
    pub fn add(&mut self, now: Time, came: u64, missed: u64) -> f64 {
        while self.counts.len() >= SAMPLES_MAX
            || self.counts.get(1).is_some_and(|(at, ..)| now.since(*at) >= LATELY)
        {
            self.counts.pop_front();
        }
        self.counts.push_back((now, came, missed));
        let (_, came_before, missed_before) = self.counts.front().copied().unwrap_or((now, 0, 0));
        let count = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let (came, missed) = (came.saturating_sub(came_before), missed.saturating_sub(missed_before));
        count(came) / count(came.saturating_add(missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::from_millis(s * 1_000)
    }

    #[test]
    fn a_rate_is_measured_by_what_is_usual() {
        let mut usual = Usual::default();
        assert!((0..600).all(|s| usual.add(at(s), 100.0).is_nan()), "nothing is usual yet");
        assert!((usual.add(at(600), 100.0) - 1.0).abs() < 1e-9);
        assert!((usual.add(at(601), 10.0) - 0.1).abs() < 1e-3);
        let after = (602..8_000).map(|s| usual.add(at(s), 10.0)).fold(0.0, f64::max);
        assert!(after > 0.8, "and becomes usual");
        let mut idle = Usual::default();
        assert!((0..2_000).all(|s| idle.add(at(s), 1.0).is_nan()), "of little nothing is said");
    }

    #[test]
    fn what_was_missed_long_ago_is_forgotten() {
        let mut lately = Lately::default();
        assert!(lately.add(at(0), 100, 50).is_nan(), "what came before is not known");
        assert!((lately.add(at(10), 190, 60) - 0.9).abs() < 1e-9);
        assert!((11..312).all(|s| lately.add(at(s), 190 + s, 60) > 0.9));
        assert!((lately.add(at(320), 600, 60) - 1.0).abs() < 1e-9);
        assert!((lately.add(at(321), 601, 59) - 1.0).abs() < 1e-9, "what was taken back is no loss");
    }
}
