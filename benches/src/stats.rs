//! Medians, quantiles and spreads.

use serde::Serialize;

/// The middle of some numbers, and how far they reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The median.
    pub(crate) median: f64,
    /// The lowest, or for many numbers the tenth percentile.
    pub(crate) low: f64,
    /// The highest, or for many numbers the ninetieth percentile.
    pub(crate) high: f64,
}

/// So many numbers are told with their extremes; of more, the outer tenths are left out.
const FEW: usize = 20;

impl Spread {
    /// Of these numbers; all zero if there are none.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let (low, high) = if numbers.len() <= FEW { (0.0, 1.0) } else { (0.1, 0.9) };
        let at = |q| quantile(&numbers, q);
        // Of an even number, between the two in the middle.
        let median = f64::midpoint(at(0.499_999), at(0.500_001));
        Spread { median, low: at(low), high: at(high) }
    }
}

/// The quantile `q` of sorted numbers, the nearest one; 0 of none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a list"
)]
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], q: f64) -> T {
    let place = (q * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_few_is_their_extremes_and_of_many_their_tenths() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, low: 1.0, high: 3.0 });
        assert_eq!(Spread::of(vec![1.0, 2.0, 4.0, 5.0]).median, 3.0);
        let many = Spread::of((0..=100).map(f64::from).collect());
        assert_eq!(many, Spread { median: 50.0, low: 10.0, high: 90.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
