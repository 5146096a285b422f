//! Silence: an author that has always spoken every so often and no longer does.
//!
//! What to expect is its own history: the smoothed gap between its messages and the mean deviation of it, as RFC 6298
//! expects an answer (Jacobson and Karels 1988), with a wider margin: 16 deviations, and never less than twice the
//! gap. Who has written little, or in bursts, is given more time by the deviation itself.

use std::time::Duration;

use super::super::statistics::Smoothed;
use crate::time::Time;

/// Gaps that make a history. Guess.
const GAPS_MIN: u32 = 16;
/// Deviations that are waited for.
const DEVIATIONS: f64 = 16.0;
/// Gaps below this are one: an author that writes in bursts has the rhythm of its bursts.
const BURST_MS: u64 = 1_000;
/// Nobody is silent before so many milliseconds: a message may take long.
const PATIENCE_MS: f64 = 15_000.0;

/// When an author writes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rhythm {
    gap_ms: Smoothed,
    last: Time,
    /// That it is silent was said.
    is_told: bool,
}

impl Rhythm {
    /// A message of it came.
    pub fn on_message(&mut self, now: Time) {
        let gap = now.since(self.last).as_millis();
        if self.last != Time::ZERO && gap < u128::from(BURST_MS) {
            return;
        }
        if self.last != Time::ZERO && !self.is_told {
            self.gap_ms.add(Duration::as_secs_f64(&now.since(self.last)) * 1e3);
        }
        (self.last, self.is_told) = (now, false);
    }

    /// If it is silent for longer than can be expected: for how long, and its usual gap, in milliseconds. Said once.
    pub fn poll_silence(&mut self, now: Time) -> Option<(u64, u64)> {
        if self.is_told || self.gap_ms.samples() < GAPS_MIN {
            return None;
        }
        let silent_ms = now.since(self.last).as_secs_f64() * 1e3;
        let (gap, deviation) = (self.gap_ms.mean(), self.gap_ms.deviation());
        if silent_ms <= (gap + DEVIATIONS * deviation).max(2.0 * gap).max(PATIENCE_MS) {
            return None;
        }
        self.is_told = true;
        Some((whole(silent_ms), whole(gap)))
    }

    /// True if it is told as silent now.
    pub fn is_silent(&self) -> bool {
        self.is_told
    }

    /// True if there is enough history to expect something.
    pub fn is_expected(&self) -> bool {
        self.gap_ms.samples() >= GAPS_MIN
    }

    /// It is known to be gone, so its silence is no news.
    pub fn forget(&mut self) {
        *self = Rhythm::default();
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and less than an age")]
fn whole(ms: f64) -> u64 {
    ms as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::from_millis(s * 1000)
    }

    #[test]
    fn who_stops_is_silent_once_and_who_goes_on_is_not() {
        let mut rhythm = Rhythm::default();
        for n in 1..=100 {
            assert_eq!(rhythm.poll_silence(at(n * 5)), None);
            rhythm.on_message(at(n * 5));
        }
        assert_eq!(rhythm.poll_silence(at(514)), None);
        let (silent, usual) = rhythm.poll_silence(at(530)).unwrap();
        assert_eq!(silent, 30_000);
        assert!((4_900..=5_100).contains(&usual), "{usual}");
        assert_eq!(rhythm.poll_silence(at(600)), None, "said once");
        rhythm.on_message(at(601));
        assert!(!rhythm.is_silent());
        assert!(rhythm.poll_silence(at(640)).is_some());
    }

    #[test]
    fn bursts_and_irregular_authors_have_time() {
        let mut rhythm = Rhythm::default();
        let mut now = 1_000;
        for n in 0..200_u64 {
            for _ in 0..50 {
                now += 1;
                rhythm.on_message(Time::from_millis(now));
            }
            // Between 2 and 60 seconds.
            now += 2_000 + n * 7_919 % 58_000;
            assert_eq!(rhythm.poll_silence(Time::from_millis(now)), None);
        }
        assert!(rhythm.poll_silence(Time::from_millis(now + 3_600_000)).is_some());
        let mut fresh = Rhythm::default();
        fresh.on_message(at(1));
        assert_eq!(fresh.poll_silence(at(100_000)), None, "no history, no expectation");
    }
}
