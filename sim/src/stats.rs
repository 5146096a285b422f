//! Statistics of a run, each with its definition.
//!
//! They take facts and give numbers; nothing is estimated. What has no value, as the median of nothing, is
//! `None`, never zero.
//!
//! * **Percentile**: the *nearest rank*. Of `n` values in ascending order the `p`-th percentile is the one at
//!   rank `⌈p/100 · n⌉`, counted from 1. It is always a value that occurred; nothing is interpolated.
//! * **RMR**, relative message redundancy (Leitão, Pereira and Rodrigues: *Epidemic Broadcast Trees*, SRDS 2007,
//!   section 4.1): `m / (n − 1) − 1` for a message of which `m` copies arrived at `n` nodes, its author among
//!   these. Zero is the optimum: one copy for each receiver.
//! * **LDH**, last delivery hop (the same paper): over how many links the last node got a message.
//! * **Precision and recall** where nodes have no observers: of the nodes shut out, the part that misbehaved; of the nodes
//!   that misbehave, the part that was shut out. A node counts once. With observers: [`crate::detection`].

use serde::{Deserialize, Serialize};

/// The value at the nearest rank of `per_mille` thousandths (500: the median) among ascending values.
///
/// In thousandths, not as a float, so that the rank is exact.
pub fn percentile<T: Copy>(ascending: &[T], per_mille: usize) -> Option<T> {
    let rank = (ascending.len() * per_mille.min(1000)).div_ceil(1000).max(1);
    ascending.get(rank - 1).copied()
}

/// The sum divided by the number.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u64);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// Their median.
    pub p50: f64,
    /// 95 % are not above it.
    pub p95: f64,
    /// 99 % are not above it.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of values in any order.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Spread::of_ascending(&values)
    }

    /// Of ascending values.
    pub fn of_ascending<T: Copy + Into<f64>>(ascending: &[T]) -> Option<Spread> {
        let at = |per_mille| percentile(ascending, per_mille).map(Into::into);
        Some(Spread {
            count: ascending.len() as u64,
            min: (*ascending.first()?).into(),
            mean: mean(ascending.iter().map(|&value| value.into()))?,
            p50: at(500)?,
            p95: at(950)?,
            p99: at(990)?,
            max: (*ascending.last()?).into(),
        })
    }
}

/// The points `(x, part of all that is at most x)` of the empirical distribution of ascending values, among
/// `of` of which the missing ones never came. At most `points` of them, evenly in rank; the last value is
/// always the last point.
pub fn cdf<T: Copy>(ascending: &[T], of: usize, points: usize) -> Vec<(T, f64)> {
    let (len, of) = (ascending.len(), of.max(ascending.len()));
    let points = points.min(len);
    (1..=points)
        .filter_map(|point| {
            let rank = (point * len).div_ceil(points);
            ascending.get(rank - 1).map(|&value| (value, rank as f64 / of as f64))
        })
        .collect()
}

/// The part of ascending values that is at most `limit`.
pub fn part_within<T: Copy + Into<f64>>(ascending: &[T], limit: f64) -> Option<f64> {
    let within = ascending.partition_point(|&value| value.into() <= limit);
    (!ascending.is_empty()).then(|| within as f64 / ascending.len() as f64)
}

/// The relative message redundancy of one message: `copies` arrived at `receivers` nodes other than its author.
pub fn rmr(copies: u64, receivers: u64) -> Option<f64> {
    (receivers > 0).then(|| copies as f64 / receivers as f64 - 1.0)
}

/// Right and wrong verdicts of a detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Misbehaving nodes that were shut out.
    pub true_positives: u64,
    /// Honest nodes that were shut out.
    pub false_positives: u64,
    /// Misbehaving nodes that were not.
    pub false_negatives: u64,
}

impl Verdicts {
    /// Of the nodes shut out, the part that misbehaved.
    pub fn precision(&self) -> Option<f64> {
        part(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Of the nodes that misbehave, the part that was shut out.
    pub fn recall(&self) -> Option<f64> {
        part(self.true_positives, self.true_positives + self.false_negatives)
    }
}

/// `some / all`, if there are any.
pub fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_at_the_nearest_rank() {
        // The example of the usual definition: ranks ⌈0.05·5⌉ = 1, ⌈0.3·5⌉ = 2, ⌈0.4·5⌉ = 2, ⌈0.5·5⌉ = 3.
        let five = [15, 20, 35, 40, 50];
        assert_eq!(
            [50, 300, 400, 500, 1000].map(|p| percentile(&five, p)),
            [Some(15), Some(20), Some(20), Some(35), Some(50)]
        );
        // Of the numbers 1 to 100 the p-th percentile is p; a float 0.07 · 100 would round up to rank 8.
        let hundred: Vec<u32> = (1..=100).collect();
        for (per_mille, rank) in (10..=1000).step_by(10).zip(1u32..) {
            assert_eq!(percentile(&hundred, per_mille), Some(rank));
        }
        assert_eq!(percentile(&hundred, 991), Some(100));
        assert_eq!(percentile(&[7], 0), Some(7));
        assert_eq!(percentile::<u32>(&[], 500), None);
    }

    #[test]
    fn a_spread_tells_minimum_from_mean() {
        let spread = Spread::of([10.0, 2.0, 3.0, 1.0]).unwrap();
        let wanted = Spread { count: 4, min: 1.0, mean: 4.0, p50: 2.0, p95: 10.0, p99: 10.0, max: 10.0 };
        assert_eq!(spread, wanted);
        assert_eq!(Spread::of_ascending(&[1u32, 2, 3, 10]), Some(wanted));
        assert_eq!(Spread::of([]), None);
        let one_to_200: Vec<u32> = (1..=200).collect();
        let spread = Spread::of_ascending(&one_to_200).unwrap();
        assert_eq!((spread.mean, spread.p50, spread.p95, spread.p99), (100.5, 100.0, 190.0, 198.0));
    }

    #[test]
    fn the_mean_is_the_sum_by_the_number() {
        assert_eq!(mean([1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean([]), None);
    }

    #[test]
    fn the_distribution_counts_what_never_came() {
        // Four of five came: the curve ends at 0.8.
        assert_eq!(cdf(&[1, 2, 2, 9], 5, 10), [(1, 0.2), (2, 0.4), (2, 0.6), (9, 0.8)]);
        // Thinned: ranks 3, 5, 8, 10 of 10.
        let ten: Vec<u32> = (1..=10).collect();
        assert_eq!(cdf(&ten, 10, 4), [(3, 0.3), (5, 0.5), (8, 0.8), (10, 1.0)]);
        assert_eq!(cdf::<u32>(&[], 5, 10), []);
        assert_eq!(part_within(&[1, 2, 2, 9], 2.0), Some(0.75));
        assert_eq!(part_within(&[1, 2, 2, 9], 0.9), Some(0.0));
        assert_eq!(part_within::<u32>(&[], 0.0), None);
    }

    #[test]
    fn redundancy_is_zero_for_a_tree_and_one_for_two_copies_each() {
        assert_eq!(rmr(99, 99), Some(0.0));
        assert_eq!(rmr(198, 99), Some(1.0));
        assert_eq!(rmr(250, 100), Some(1.5));
        assert_eq!(rmr(0, 0), None);
    }

    #[test]
    fn precision_and_recall_differ() {
        let verdicts = Verdicts { true_positives: 6, false_positives: 2, false_negatives: 4 };
        assert_eq!((verdicts.precision(), verdicts.recall()), (Some(0.75), Some(0.6)));
        assert_eq!((Verdicts::default().precision(), Verdicts::default().recall()), (None, None));
    }
}
