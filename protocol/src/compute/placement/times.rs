//! The last durations of something, and their quantiles.

use std::collections::VecDeque;
use std::time::Duration;

/// A window of durations, bounded, that knows its quantiles.
#[derive(Clone, Debug)]
pub struct Times {
    /// In the order in which they came.
    recent: VecDeque<u64>,
    /// The same, sorted.
    sorted: Vec<u64>,
    max: usize,
}

impl Times {
    /// An empty window of at most `max` durations; at least one.
    pub fn new(max: usize) -> Self {
        Times { recent: VecDeque::new(), sorted: Vec::new(), max: max.max(1) }
    }

    /// Takes one in; the oldest goes when the window is full.
    pub fn add(&mut self, time: Duration) {
        if self.recent.len() == self.max
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(place) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(place);
        }
        let nanos = crate::time::nanos(time);
        self.recent.push_back(nanos);
        let place = self.sorted.partition_point(|known| *known < nanos);
        self.sorted.insert(place, nanos);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The duration that `per_mille` thousandths of them do not exceed (nearest rank); `None` if there is none.
    pub fn quantile(&self, per_mille: u16) -> Option<Duration> {
        let rank = (self.sorted.len() * usize::from(per_mille.min(1000))).div_ceil(1000).max(1);
        self.sorted.get(rank - 1).copied().map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank_over_the_last_ones() {
        let mut times = Times::new(100);
        assert_eq!(times.quantile(500), None);
        for ms in (1..=200).rev() {
            times.add(Duration::from_millis(ms));
        }
        // 200 came first and has gone; 100 to 1 are left.
        assert_eq!(times.len(), 100);
        for (per_mille, ms) in [(0, 1), (10, 1), (500, 50), (501, 51), (950, 95), (1000, 100)] {
            assert_eq!(times.quantile(per_mille), Some(Duration::from_millis(ms)), "{per_mille}");
        }
    }
}
