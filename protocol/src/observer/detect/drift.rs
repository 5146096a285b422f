//! Step drift: peers whose clocks stay elsewhere than the mesh's.
//!
//! The step protocol reads the clocks of some peers in each round. The median of them, and of the own clock, is where
//! the mesh is, whoever of a minority lies; how far a peer is from it goes into a two-sided CUSUM (Page 1954): half a
//! step is nothing, one round counts for two steps at most, and a sum of six is told. A clock that is one step off is
//! told in twelve rounds, a wild one in four. Rounds of fewer than three clocks say nothing.

use super::super::statistics::{Cusum, lower_median};

/// What is nothing, in steps.
const SLACK: f64 = 0.5;
/// What one round counts for at most, in steps.
const CAP: f64 = 2.0;
/// The sum that is told, in steps.
const THRESHOLD: f64 = 6.0;
/// Clocks that have a median worth the name, the own one among them.
const CLOCKS_MIN: usize = 3;

/// What a peer's clock said in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading<P> {
    /// Whose.
    pub peer: P,
    /// Ahead of the own clock by so much.
    pub ahead_ns: i64,
    /// Give or take this: half of the round trip.
    pub error_ns: u64,
}

/// Where the mesh is, relative to the own clock; `None` if too few know.
pub fn middle<P>(readings: &[Reading<P>]) -> Option<i64> {
    let mut clocks: Vec<i64> = readings.iter().map(|reading| reading.ahead_ns).chain([0]).collect();
    if clocks.len() < CLOCKS_MIN {
        return None;
    }
    lower_median(&mut clocks)
}

/// The clock of one peer over the rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drift(Cusum);

impl Drift {
    /// Takes its reading of a round; how far it is ahead of the middle, if it has stayed away for too long.
    pub fn add<P>(&mut self, reading: &Reading<P>, middle_ns: i64, step_ns: u64) -> Option<i64> {
        let ahead_ns = reading.ahead_ns.saturating_sub(middle_ns);
        let error_ns = i64::try_from(reading.error_ns).unwrap_or(i64::MAX);
        // What may be the error of the reading is not held against it.
        let sure_ns =
            ahead_ns.saturating_abs().saturating_sub(error_ns).max(0).saturating_mul(ahead_ns.signum());
        self.0.add(ratio(sure_ns, step_ns), SLACK, CAP, THRESHOLD).then_some(ahead_ns)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of a step")]
fn ratio(part_ns: i64, step_ns: u64) -> f64 {
    part_ns as f64 / step_ns.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 1_000_000_000;

    fn reading(ahead_ms: i64, error_ms: u64) -> Reading<u32> {
        Reading { peer: 0, ahead_ns: ahead_ms * 1_000_000, error_ns: error_ms * 1_000_000 }
    }

    fn rounds(ahead_ms: i64, error_ms: u64) -> Option<usize> {
        let mut drift = Drift::default();
        (1..1_000).find(|_| drift.add(&reading(ahead_ms, error_ms), 0, STEP).is_some())
    }

    #[test]
    fn a_clock_is_told_by_how_far_it_is_and_for_how_long() {
        assert_eq!([rounds(400, 0), rounds(-400, 0), rounds(3_000, 2_900)], [None; 3]);
        assert_eq!([rounds(1_000, 0), rounds(-1_000, 0)], [Some(12); 2]);
        assert_eq!([rounds(i64::MAX / 1_000_000, 0), rounds(-3_600_000, 0)], [Some(4); 2]);
    }

    #[test]
    fn the_middle_is_the_meshs_when_this_node_is_off() {
        let readings: Vec<_> = [5_000, 5_001, 4_999, -100_000].map(|ms| reading(ms, 1)).into();
        assert_eq!(middle(&readings), Some(4_999_000_000));
        assert_eq!(middle(&readings[..1]), None);
        assert_eq!(middle(&[reading(i64::MIN / 1_000_000, 0), reading(1, 0)]), Some(0));
    }
}
