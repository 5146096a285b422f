//! How fast a node gives blobs to others: so many bytes in a second, and a second's worth at once after a rest.
//!
//! A token bucket in one number, as the generic cell rate algorithm (ITU-T I.371, annex A) has it, with bytes in place of cells: what is
//! admitted moves the time at which all of it will have been paid for. What would wait for longer than the one who asks has
//! patience is refused, and asked for again, of this node or another.
//!
//! Of any time span `t` no more is sent than `(t + 1 s) · rate`, and one answer.

use std::time::Duration;

use crate::time::Time;

/// What is not used of the rate is kept for so long.
const BURST: Duration = Duration::from_secs(1);
/// The longest that an answer waits. Default: guess; less than half of the time after which who asks believes that nobody answers
/// ([`FetchConfig::patience`](super::FetchConfig::patience)).
const WAIT_MAX: Duration = Duration::from_secs(4);

/// What may be sent when. See the module.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// 0 for no limit.
    bytes_per_s: u64,
    /// When all that was admitted will have been paid for.
    paid_at: Time,
}

impl Pace {
    /// So many bytes in a second; 0 for as many as there are.
    pub fn new(bytes_per_s: u64) -> Self {
        Pace { bytes_per_s, paid_at: Time::ZERO }
    }

    /// How long an answer would wait that was admitted now; `None` if that is too long.
    pub fn wait(&self, now: Time) -> Option<Duration> {
        let wait = self.paid_at.since(now);
        (self.bytes_per_s == 0 || wait <= WAIT_MAX).then_some(wait)
    }

    /// Admits an answer of so many bytes: it is to be sent after this time. `None` if that is too long; nothing is counted then.
    pub fn admit(&mut self, now: Time, bytes: u64) -> Option<Duration> {
        let wait = self.wait(now)?;
        if self.bytes_per_s > 0 {
            let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
            let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
            self.paid_at = self.paid_at.max(now - BURST) + cost;
        }
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn no_span_of_time_has_more_than_its_share() {
        for seed in 0..200 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let rate = rng.random_range(1_000..10_000_000_u64);
            let largest = rng.random_range(1..2 << 20_u64);
            let mut pace = Pace::new(rate);
            let mut now = Time::ZERO + Duration::from_secs(rng.random_range(0..100));
            let mut sent: Vec<(Time, u64)> = Vec::new();
            let mut refused = 0;
            for _ in 0..300 {
                now = now + Duration::from_millis(rng.random_range(0..2) * rng.random_range(0..3000));
                let bytes = rng.random_range(1..=largest);
                match pace.admit(now, bytes) {
                    Some(wait) => sent.push((now + wait, bytes)),
                    None => refused += 1,
                }
            }
            assert!(sent.len() > 1, "seed {seed}: {refused} refused");
            for (from, (begin, _)) in sent.iter().enumerate() {
                let mut sum = 0;
                for (at, bytes) in &sent[from..] {
                    sum += bytes;
                    let span = at.since(*begin) + BURST;
                    let most = u128::from(rate) * span.as_nanos() / 1_000_000_000 + u128::from(largest) + 1;
                    assert!(u128::from(sum) <= most, "seed {seed}: {sum} bytes in {span:?}, at most {most}");
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_all_the_time_gets_all_of_the_rate() {
        let (rate, group) = (500_000, 1 << 20);
        let mut pace = Pace::new(rate);
        let mut sent = 0;
        for tick in 0..10_000 {
            sent += pace.admit(Time::ZERO + Duration::from_millis(10 * tick), group).map_or(0, |_| group);
        }
        assert!((49_000_000..57_000_000).contains(&sent), "{sent} bytes in 100 s");
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(0);
        assert!((0..1000).all(|_| pace.admit(Time::ZERO, u64::MAX) == Some(Duration::ZERO)));
    }
}
