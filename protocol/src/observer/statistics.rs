//! Small streaming statistics: constant memory, and no logarithms or powers of the platform, so that all machines
//! get the same bits.

use crate::time::Time;

/// How often something may happen: every `every_ns` in the long run, `burst` times at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one to the next.
    pub every_ns: u64,
    /// At once.
    pub burst: u32,
}

impl Rate {
    /// So often in a second.
    pub const fn per_second(times: u32, burst: u32) -> Self {
        let times = if times == 0 { 1 } else { times };
        Rate { every_ns: 1_000_000_000 / times as u64, burst }
    }

    /// Once in so many seconds.
    pub const fn once_in(seconds: u32, burst: u32) -> Self {
        Rate { every_ns: 1_000_000_000 * seconds as u64, burst }
    }

    /// So often in a second, rounded.
    pub fn times_per_second(&self) -> u64 {
        1_000_000_000 / self.every_ns.max(1)
    }
}

/// A token bucket in one number: the generic cell rate algorithm (ITU-T I.371, annex A). What does not conform is
/// not counted, so the bucket refills while it is abused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When the bucket will be full again, in nanoseconds.
    full_at: u64,
}

impl Bucket {
    /// Takes one token; false if there is none.
    pub fn take(&mut self, now: Time, rate: &Rate) -> bool {
        let now = now.as_nanos();
        let full_at = self.full_at.max(now).saturating_add(rate.every_ns);
        let fits = full_at - now <= rate.every_ns.saturating_mul(u64::from(rate.burst.max(1)));
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

/// A mean and a mean deviation, both smoothed exponentially: the estimator of Jacobson and Karels ("Congestion
/// Avoidance and Control", 1988; RFC 6298), with its gains of 1/8 and 1/4.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Smoothed {
    mean: f64,
    deviation: f64,
    samples: u32,
}

impl Smoothed {
    /// Takes a sample.
    pub fn add(&mut self, sample: f64) {
        if self.samples == 0 {
            (self.mean, self.deviation) = (sample, sample / 2.0);
        } else {
            let error = sample - self.mean;
            self.deviation += (error.abs() - self.deviation) / 4.0;
            self.mean += error / 8.0;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// The mean of late.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The mean deviation of late.
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    /// How many samples there were.
    pub fn samples(&self) -> u32 {
        self.samples
    }
}

/// A cumulative sum in both directions (Page, "Continuous Inspection Schemes", Biometrika 1954): small deviations
/// that last add up, single large ones count as a few.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cusum {
    up: f64,
    down: f64,
}

impl Cusum {
    /// Takes a deviation of which `slack` is nothing, and all above `cap` counts as `cap`; true if the sum has
    /// come to `threshold`. It then begins anew.
    pub fn add(&mut self, deviation: f64, slack: f64, cap: f64, threshold: f64) -> bool {
        let deviation = if deviation.is_finite() { deviation.clamp(-cap, cap) } else { 0.0 };
        self.up = (self.up + deviation - slack).max(0.0);
        self.down = (self.down - deviation - slack).max(0.0);
        let alarm = self.up >= threshold || self.down >= threshold;
        if alarm {
            *self = Cusum::default();
        }
        alarm
    }
}

/// The lower median, and the median of the distances from it (MAD; Hampel 1974). Reorders `values`.
pub fn median_and_mad(values: &mut [i64]) -> Option<(i64, i64)> {
    let median = lower_median(values)?;
    for value in values.iter_mut() {
        *value = value.saturating_sub(median).saturating_abs();
    }
    Some((median, lower_median(values)?))
}

/// The lower median. Reorders `values`.
pub fn lower_median(values: &mut [i64]) -> Option<i64> {
    if values.is_empty() {
        return None;
    }
    let middle = (values.len() - 1) / 2;
    Some(*values.select_nth_unstable(middle).1)
}

/// What is left of one after so many seconds, where half is left after `half_life_s`, to half a percent.
/// Multiplications only.
pub fn decay(seconds: u64, half_life_s: u32) -> f64 {
    let mut base = 1.0 - std::f64::consts::LN_2 / f64::from(half_life_s.max(1));
    base = base.max(0.0);
    let (mut left, mut rest) = (1.0, seconds.min(1 << 20));
    while rest > 0 {
        if rest & 1 == 1 {
            left *= base;
        }
        base *= base;
        rest >>= 1;
    }
    left
}

/// A logarithm to eighths of a power of two, for what spans decades: 8 for each doubling.
pub fn eighths(value: u64) -> i64 {
    let value = value.max(8);
    let exponent = value.ilog2();
    let fraction = (value >> (exponent - 3)) & 7;
    i64::from(exponent) * 8 + i64::try_from(fraction).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::per_second(10, 5);
        let mut bucket = Bucket::default();
        let start = Time::from_millis(1_000);
        let at_once = (0..20).filter(|_| bucket.take(start, &rate)).count();
        assert_eq!(at_once, 5);
        let later = (1..=1_000).filter(|ms| bucket.take(Time::from_millis(1_000 + ms), &rate)).count();
        assert_eq!(later, 10);
        assert_eq!(Rate::once_in(5, 1).every_ns, 5_000_000_000);
    }

    #[test]
    fn small_lasting_drifts_alarm_and_noise_does_not() {
        let mut cusum = Cusum::default();
        assert!((0..10_000).all(|i| !cusum.add(if i % 2 == 0 { 0.9 } else { -0.9 }, 0.5, 4.0, 4.0)));
        assert_eq!((1..100).find(|_| cusum.add(1.0, 0.5, 4.0, 4.0)), Some(8));
        assert_eq!((1..100).find(|_| cusum.add(-1e300, 0.5, 4.0, 4.0)), Some(2));
        assert!(!cusum.add(f64::NAN, 0.5, 4.0, 4.0));
    }

    #[test]
    fn half_is_left_after_a_half_life() {
        for half_life in [10, 120, 600, 3_600] {
            assert!((decay(u64::from(half_life), half_life) - 0.5).abs() < 0.02, "{half_life}");
        }
        assert_eq!(decay(0, 10), 1.0);
        assert!(decay(u64::MAX, 600) < 1e-9);
    }

    #[test]
    fn the_median_ignores_a_minority() {
        assert_eq!(median_and_mad(&mut [1, 2, 3, 4, i64::MAX]), Some((3, 1)));
        assert_eq!(median_and_mad(&mut [i64::MIN, i64::MAX]), Some((i64::MIN, 0)));
        assert_eq!(median_and_mad(&mut []), None);
    }

    proptest! {
        #[test]
        fn eighths_grow_with_the_value(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(a <= b || eighths(a) >= eighths(b));
            prop_assert!(!(8..=u64::MAX / 2).contains(&a) || eighths(a * 2) == eighths(a) + 8);
        }
    }
}
