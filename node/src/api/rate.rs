//! A limit on requests per client: the generic cell rate algorithm (ITU-T I.371, a token bucket in one number).
//!
//! Per client one time is kept: when its bucket would be full again. A request moves it on by `1 / rate`; one that would
//! move it further than `burst / rate` ahead of now is refused. Pure: time is given.
//!
//! At most [`CLIENTS_MAX`] clients are kept; the one heard of longest ago is forgotten, and so gets a full bucket when
//! it comes again. That is the price of a bound; the number of connections is limited elsewhere.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

/// How many clients are kept.
pub(super) const CLIENTS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The limiter. `K` tells clients apart.
#[derive(Debug)]
pub(super) struct RateLimiter<K: Hash + Eq> {
    interval: Duration,
    burst: Duration,
    full_at: LruCache<K, Duration>,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// So many requests a second, and so many at once after a rest; at least one of each.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        RateLimiter { interval, burst: interval * burst.max(1), full_at: LruCache::new(CLIENTS_MAX) }
    }

    /// Counts a request at `now`, a time since any fixed start.
    ///
    /// # Errors
    /// It is one too many; says how long to wait.
    pub(super) fn admit(&mut self, client: K, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.get_or_insert_mut(client, || now);
        let next = (*full_at).max(now) + self.interval;
        let ahead = next - now;
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        *full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = RateLimiter::new(10, 3);
        for _ in 0..3 {
            assert_eq!(limiter.admit("a", MS(1000)), Ok(()));
        }
        assert_eq!(limiter.admit("a", MS(1000)), Err(MS(100)));
        assert_eq!(limiter.admit("a", MS(1099)), Err(MS(1)));
        assert_eq!(limiter.admit("a", MS(1100)), Ok(()));
        assert_eq!(limiter.admit("a", MS(1100)), Err(MS(100)));
        assert_eq!(limiter.admit("b", MS(1100)), Ok(()));
        // A refused request costs nothing, and a rest fills the bucket, but not over the brim.
        for _ in 0..3 {
            assert_eq!(limiter.admit("a", MS(9000)), Ok(()));
        }
        assert!(limiter.admit("a", MS(9000)).is_err());
    }

    #[test]
    fn clients_are_bounded() {
        let mut limiter = RateLimiter::new(1, 1);
        for client in 0..3 * CLIENTS_MAX.get() {
            assert_eq!(limiter.admit(client, MS(0)), Ok(()));
        }
        assert_eq!(limiter.full_at.len(), CLIENTS_MAX.get());
        assert!(limiter.admit(3 * CLIENTS_MAX.get() - 1, MS(0)).is_err());
    }

    #[test]
    fn extreme_settings_do_not_overflow() {
        for (per_second, burst) in [(0, 0), (1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            let mut limiter = RateLimiter::new(per_second, burst);
            assert_eq!(limiter.admit((), Duration::from_secs(1 << 32)), Ok(()));
        }
    }
}
