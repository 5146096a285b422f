//! Quantiles of any amount of numbers in bounded memory, bit by bit the same on every machine.
//!
//! A histogram with buckets of logarithmic width, as of HdrHistogram (Tene, 2012) and DDSketch (Masson, Rim and Lee, 2019):
//! numbers are counted by sign, exponent and the first 7 bits of the mantissa, which are the first bits of their
//! representation. So a quantile is off by at most 1/256 of itself, merging is adding, and no logarithm is computed,
//! whose last bit differs between machines; results of workers are compared by hash, and the crates that there
//! are compute it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bits of the mantissa that do not count.
const SHIFT: u32 = 52 - 7;

/// Counts of numbers by their size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Quantiles {
    counts: BTreeMap<i32, u64>,
}

/// Zero is bucket 0, positive numbers are above, negative ones below.
fn bucket(value: f64) -> i32 {
    let bits = value.abs().to_bits() >> SHIFT;
    let place = i32::try_from(bits).unwrap_or(i32::MAX);
    if value == 0.0 {
        0
    } else if value > 0.0 {
        place + 1
    } else {
        -place - 1
    }
}

/// The middle of a bucket.
fn middle(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let place = u64::from(bucket.unsigned_abs()).saturating_sub(1);
    let low = f64::from_bits(place << SHIFT);
    let high = f64::from_bits((place + 1) << SHIFT);
    let middle = if high.is_finite() { low + (high - low) / 2.0 } else { low };
    if bucket > 0 { middle } else { -middle }
}

impl Quantiles {
    /// Counts a finite number.
    pub(super) fn add(&mut self, value: f64) {
        *self.counts.entry(bucket(value)).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: &Quantiles) {
        for (bucket, count) in &other.counts {
            let ours = self.counts.entry(*bucket).or_default();
            *ours = ours.saturating_add(*count);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The number that a share of `per_mille` thousandths does not exceed.
    pub(super) fn at(&self, per_mille: u64) -> Option<f64> {
        let count = u128::from(self.count());
        let rank = (count * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut below = 0_u128;
        for (bucket, count) in &self.counts {
            below += u128::from(*count);
            if below >= rank {
                return Some(middle(*bucket));
            }
        }
        None
    }

    /// How many are below a number, by the middles of their buckets.
    pub(super) fn below(&self, low: f64) -> u64 {
        self.sum(|middle| middle < low)
    }

    /// How many are above a number, by the middles of their buckets.
    pub(super) fn above(&self, high: f64) -> u64 {
        self.sum(|middle| middle > high)
    }

    fn sum(&self, is_wanted: impl Fn(f64) -> bool) -> u64 {
        let wanted = self.counts.iter().filter(|(bucket, _)| is_wanted(middle(**bucket)));
        wanted.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use rand_core::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn quantiles_are_near_the_exact_ones() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut values: Vec<f64> = (0..10_000)
            .map(|_| (rng.next_u32() as f64 / 1e6 - 1500.0) * f64::from(1 + rng.next_u32() % 3))
            .collect();
        let (mut a, mut b) = (Quantiles::default(), Quantiles::default());
        for (place, value) in values.iter().enumerate() {
            if place % 3 == 0 { a.add(*value) } else { b.add(*value) }
        }
        a.merge(&b);
        assert_eq!(a.count(), 10_000);
        values.sort_by(f64::total_cmp);
        for per_mille in [1, 10, 250, 500, 750, 990, 1000] {
            let exact = values[(per_mille * 10_usize).max(1) - 1];
            let found = a.at(per_mille as u64).unwrap();
            assert!((found - exact).abs() <= exact.abs() / 200.0, "{per_mille}: {found} for {exact}");
        }
    }

    #[test]
    fn the_largest_and_the_smallest_have_buckets() {
        for value in [0.0, -0.0, f64::MIN_POSITIVE, f64::MAX, f64::MIN, 5e-324, -5e-324, 1.0, -1.0] {
            let mut quantiles = Quantiles::default();
            quantiles.add(value);
            let found = quantiles.at(500).unwrap();
            assert!((found - value).abs() <= value.abs() / 128.0 + 1e-300, "{found} for {value}");
        }
    }
}
