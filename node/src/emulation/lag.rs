//! How late a thread is that has too much to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a thread is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// How late timers fired; up to 2 ms of it is the precision of the timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// On average.
    pub mean: Duration,
    /// At worst.
    pub max: Duration,
}

#[derive(Debug, Default)]
struct Sums {
    count: u32,
    total: Duration,
    max: Duration,
}

/// What was measured on all threads.
#[derive(Debug, Default)]
pub(super) struct LagMeter(Mutex<Sums>);

impl LagMeter {
    /// Looks at the current thread, for as long as that runs.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let due = Instant::now() + PERIOD;
            tokio::time::sleep_until(due.into()).await;
            self.add(due.elapsed());
        }
    }

    fn add(&self, late: Duration) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.count = sums.count.saturating_add(1);
        sums.total += late;
        sums.max = sums.max.max(late);
    }

    /// What was measured since the last time.
    pub(super) fn take(&self) -> Lag {
        let sums = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Lag { mean: sums.total / sums.count.max(1), max: sums.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_and_the_worst_of_what_was_added() {
        let meter = LagMeter::default();
        assert_eq!(meter.take(), Lag::default());
        for late in [1, 2, 9] {
            meter.add(Duration::from_millis(late));
        }
        assert_eq!(meter.take(), Lag { mean: Duration::from_millis(4), max: Duration::from_millis(9) });
        assert_eq!(meter.take(), Lag::default());
    }
}
