//! Latency outliers: far slower than their like.
//!
//! The latency of an author's messages is smoothed on a logarithmic scale, as latencies of a mesh span decades. Every
//! while all authors are compared by the modified z-score of Iglewicz and Hoaglin ("How to Detect and Handle
//! Outliers", 1993): the distance from the median in units of 1.4826 MAD, of which 3.5 and more is an outlier. Up to
//! half of all authors can be anything without moving that. To be told of, one must also be eight times as slow as the
//! median: in a mesh whose members are alike the MAD is near zero, and a little is no offence.

use super::super::statistics::{eighths, median_and_mad};

/// Three doublings: eight times the median.
const FACTOR_EIGHTHS: i64 = 24;
/// 3.5 · 1.4826, in hundredths.
const DISTANCE_PERCENT: i64 = 519;
/// Authors that are worth comparing.
const AUTHORS_MIN: usize = 5;
/// Samples that make a latency.
const SAMPLES_MIN: u8 = 8;
/// Latencies below this are alike, whatever their proportion.
const FAST_US: u64 = 50_000;

/// How slow an author is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Eighths of a doubling, times sixteen, smoothed.
    level: i32,
    samples: u8,
}

impl Pace {
    /// A message of it took so long.
    pub fn add(&mut self, latency_us: u64) {
        let sample = i32::try_from(eighths(latency_us.max(FAST_US)) * 16).unwrap_or(i32::MAX);
        if self.samples == 0 {
            self.level = sample;
        } else {
            self.level += (sample - self.level) / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// Its level, if there were enough messages lately. Those before do not count again: the next asks for new ones.
    pub fn take_level(&mut self) -> Option<i64> {
        let enough = self.samples >= SAMPLES_MIN;
        if enough {
            self.samples = 1;
        }
        enough.then_some(i64::from(self.level) / 16)
    }
}

/// Which of these levels are outliers on the slow side, given their median; `None` if there are too few.
pub fn slow_limit(levels: &mut [i64]) -> Option<(i64, i64)> {
    if levels.len() < AUTHORS_MIN {
        return None;
    }
    let (median, mad) = median_and_mad(levels)?;
    Some((median, median + FACTOR_EIGHTHS.max(mad * DISTANCE_PERCENT / 100)))
}

/// The latency of a level, in milliseconds.
pub fn level_ms(level: i64) -> u64 {
    let level = u64::try_from(level).unwrap_or(0).min(8 * 63);
    let (exponent, fraction) = (level / 8, level % 8);
    if exponent < 3 { 0 } else { ((8 + fraction) << (exponent - 3)) / 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(us: u64) -> i64 {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.add(us);
        }
        pace.take_level().unwrap()
    }

    #[test]
    fn one_among_many_is_found_and_those_alike_are_not() {
        let mut levels: Vec<i64> = [80_000, 90_000, 100_000, 110_000, 120_000].map(level).into();
        let (median, limit) = slow_limit(&mut levels.clone()).unwrap();
        assert!((90..=110).contains(&level_ms(median)), "{}", level_ms(median));
        assert!(level(700_000) <= limit && level(1_000_000) > limit);
        levels.truncate(4);
        assert_eq!(slow_limit(&mut levels), None);
    }

    #[test]
    fn in_a_mesh_of_all_speeds_only_the_extreme_are_slow() {
        let mut levels: Vec<i64> = (0..100).map(|n| level(60_000 << (n % 6))).collect();
        let (_, limit) = slow_limit(&mut levels).unwrap();
        assert!(level(60_000 << 5) <= limit);
        assert!(level(60_000 << 12) > limit);
    }

    #[test]
    fn milliseconds_on_a_fast_network_are_alike() {
        let mut levels: Vec<i64> = [100, 200, 400, 5_000, 40_000].map(level).into();
        let (_, limit) = slow_limit(&mut levels).unwrap();
        assert!(level(40_000) <= limit);
        let mut pace = Pace::default();
        pace.add(5);
        assert_eq!(pace.take_level(), None);
    }
}
