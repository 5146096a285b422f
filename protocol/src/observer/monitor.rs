//! The performance monitor: rates, latencies, and one number for health.
//!
//! Counts are kept in ten buckets of one second, latencies in two histograms of thirty seconds that take
//! turns, so that all figures are of the recent past and memory is constant.
//!
//! **Health**, 0..=1, is the product of four shares, each 1 when all is well: *sync* (the node has a step),
//! *degree* (peers against what the router aims at, or against all other members if those are fewer),
//! *alive* (members alive against members known), and *trust* (messages that were not their bringer's
//! fault against all that were judged in the last ten seconds).

use crate::event::Event;
use crate::membership::Counts;
use crate::time::Time;

const BUCKETS: usize = 10;
const BUCKET_MS: u64 = 1000;
const LATENCY_WINDOW_MS: u64 = 30_000;
/// Eight buckets for each power of two from 1 µs: a resolution of 9 %.
const LATENCY_BUCKETS: usize = 8 * 40;

/// What the monitor is told of the node's surroundings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorInput {
    /// Members alive or suspect, with this node.
    pub members_alive: usize,
    /// Members known and not gone for good, with this node.
    pub members_known: usize,
    /// Connected peers.
    pub peers: usize,
    /// Peers that the router aims at.
    pub degree: usize,
    /// True if the node has a step.
    pub is_synchronised: bool,
}

impl MonitorInput {
    /// By what membership counts.
    pub fn new(members: &Counts, peers: usize, degree: usize, is_synchronised: bool) -> Self {
        let members_alive = members.alive + members.suspect;
        MonitorInput {
            members_alive,
            members_known: members_alive + members.dead,
            peers,
            degree,
            is_synchronised,
        }
    }
}

/// How long messages took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// Half took at most so long.
    pub p50: f64,
    /// 95 % did.
    pub p95: f64,
    /// 99 % did.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// How many were measured.
    pub count: u64,
}

/// The state of the network as this node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkMetrics {
    /// Members alive or suspect.
    pub nodes: usize,
    /// Connected peers.
    pub peers: usize,
    /// Payloads verified per second.
    pub messages_per_second: f64,
    /// Messages refused per second.
    pub refused_per_second: f64,
    /// Messages that were refused for a fault of who brought them, of those judged in the last ten seconds, 0 to 1.
    pub error_rate: f64,
    /// Messages whose tag did not match, since the start.
    pub pattern_mismatches: u64,
    /// From publishing to here, of the last half to whole minute.
    pub latency_ms: LatencySummary,
    /// 0 (of no use) to 1 (all well).
    pub health: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    index: u64,
    payloads: u64,
    envelopes: u64,
    refused: u64,
    faults: u64,
}

#[derive(Clone, Debug)]
struct Histogram {
    window: u64,
    counts: Vec<u32>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    fn new(window: u64) -> Self {
        Histogram { window, counts: vec![0; LATENCY_BUCKETS], total: 0, max_us: 0 }
    }
}

/// Measures.
#[derive(Clone, Debug)]
pub struct PerformanceMonitor {
    buckets: [Bucket; BUCKETS],
    latencies: [Histogram; 2],
    pattern_mismatches: u64,
    sizes: MonitorInput,
}

impl Default for PerformanceMonitor {
    fn default() -> Self {
        PerformanceMonitor {
            buckets: [Bucket::default(); BUCKETS],
            latencies: [Histogram::new(0), Histogram::new(1)],
            pattern_mismatches: 0,
            sizes: MonitorInput::default(),
        }
    }
}

impl PerformanceMonitor {
    /// Takes the surroundings.
    pub fn on_sizes(&mut self, sizes: MonitorInput) {
        self.sizes = sizes;
    }

    /// Counts what an event says.
    pub fn on_event<P>(&mut self, now: Time, event: &Event<P>) {
        match event {
            Event::Verified { payloads, latency_us, .. } => {
                let bucket = self.bucket(now);
                bucket.payloads += *payloads as u64;
                bucket.envelopes += 1;
                if let Some(latency_us) = latency_us {
                    self.record_latency(now, *latency_us);
                }
            }
            Event::Refused { reason, .. } => {
                let bucket = self.bucket(now);
                bucket.refused += 1;
                bucket.faults += u64::from(reason.is_forwarders_fault());
                self.pattern_mismatches += u64::from(*reason == crate::refusal::Refusal::BadPattern);
            }
            _ => {}
        }
    }

    /// All figures at `now`.
    pub fn metrics(&self, now: Time) -> NetworkMetrics {
        let current = now.as_millis() / BUCKET_MS;
        let recent = || {
            self.buckets.iter().filter(|b| b.index <= current && b.index + BUCKETS as u64 > current).copied()
        };
        let sum = |field: fn(&Bucket) -> u64| recent().map(|bucket| field(&bucket)).sum::<u64>();
        let seconds = ratio(now.as_millis().clamp(BUCKET_MS, BUCKETS as u64 * BUCKET_MS), BUCKET_MS);
        let (envelopes, faults) = (sum(|b| b.envelopes), sum(|b| b.faults));
        NetworkMetrics {
            nodes: self.sizes.members_alive,
            peers: self.sizes.peers,
            messages_per_second: ratio(sum(|b| b.payloads), 1) / seconds,
            refused_per_second: ratio(sum(|b| b.refused), 1) / seconds,
            error_rate: if faults == 0 { 0.0 } else { ratio(faults, envelopes + faults) },
            pattern_mismatches: self.pattern_mismatches,
            latency_ms: self.latency(now),
            health: self.health(envelopes, faults),
        }
    }

    fn health(&self, envelopes: u64, faults: u64) -> f64 {
        let share = |part: usize, whole: usize| {
            if whole == 0 { 1.0 } else { ratio(part.min(whole) as u64, whole as u64) }
        };
        let MonitorInput { members_alive, members_known, peers, degree, is_synchronised } = self.sizes;
        let wanted = degree.min(members_alive.saturating_sub(1));
        let trust = if envelopes + faults == 0 { 1.0 } else { ratio(envelopes, envelopes + faults) };
        f64::from(u8::from(is_synchronised))
            * share(peers, wanted)
            * share(members_alive, members_known)
            * trust
    }

    fn bucket(&mut self, now: Time) -> &mut Bucket {
        let index = now.as_millis() / BUCKET_MS;
        let place = usize::try_from(index % BUCKETS as u64).expect("less than ten");
        let bucket = &mut self.buckets[place];
        if bucket.index != index {
            *bucket = Bucket { index, ..Bucket::default() };
        }
        bucket
    }

    fn record_latency(&mut self, now: Time, latency_us: u64) {
        let window = now.as_millis() / LATENCY_WINDOW_MS;
        let histogram = &mut self.latencies[usize::from(window % 2 == 1)];
        if histogram.window != window {
            *histogram = Histogram::new(window);
        }
        let count = &mut histogram.counts[latency_bucket(latency_us)];
        *count = count.saturating_add(1);
        histogram.total += 1;
        histogram.max_us = histogram.max_us.max(latency_us);
    }

    fn latency(&self, now: Time) -> LatencySummary {
        let window = now.as_millis() / LATENCY_WINDOW_MS;
        let recent: Vec<&Histogram> = self
            .latencies
            .iter()
            .filter(|h| h.total > 0 && h.window <= window && h.window + 1 >= window)
            .collect();
        let count: u64 = recent.iter().map(|h| h.total).sum();
        let max_us = recent.iter().map(|h| h.max_us).max().unwrap_or(0);
        let quantile = |per_mille: u64| {
            let rank = (count * per_mille).div_ceil(1000);
            let mut seen = 0;
            for bucket in 0..LATENCY_BUCKETS {
                seen += recent.iter().map(|h| u64::from(h.counts[bucket])).sum::<u64>();
                if count > 0 && seen >= rank {
                    return ratio(latency_bucket_top_us(bucket).min(max_us), 1000);
                }
            }
            0.0
        };
        LatencySummary {
            p50: quantile(500),
            p95: quantile(950),
            p99: quantile(990),
            max: ratio(max_us, 1000),
            count,
        }
    }
}

/// The bucket of a latency: the exponent and the three bits after the leading one.
fn latency_bucket(us: u64) -> usize {
    let us = us.max(8);
    let exponent = us.ilog2();
    let fraction = (us >> (exponent - 3)) & 7;
    let bucket = u64::from(exponent - 3) * 8 + fraction;
    usize::try_from(bucket).unwrap_or(usize::MAX).min(LATENCY_BUCKETS - 1)
}

/// The largest latency of a bucket.
fn latency_bucket_top_us(bucket: usize) -> u64 {
    let (exponent, fraction) = (bucket / 8, bucket as u64 % 8);
    ((8 + fraction + 1) << exponent) - 1
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Channel;
    use crate::id::{MessageId, NodeId, Step};
    use crate::refusal::Refusal;

    fn verified(latency_us: u64) -> Event<u32> {
        Event::Verified {
            id: MessageId::of(b""),
            channel: Channel::new("x").unwrap(),
            author: NodeId::from_bytes([0; 32]),
            from: 0,
            step: Step(0),
            payloads: 2,
            latency_us: Some(latency_us),
            delivered: true,
        }
    }

    #[test]
    fn buckets_cover_every_latency_once() {
        let mut last = 0;
        for us in 8..100_000_u64 {
            let bucket = latency_bucket(us);
            assert!(bucket == last || bucket == last + 1, "{us}");
            assert!(us <= latency_bucket_top_us(bucket), "{us}");
            assert!(bucket == 0 || us > latency_bucket_top_us(bucket - 1), "{us}");
            last = bucket;
        }
        latency_bucket(u64::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_sample() {
        let mut monitor = PerformanceMonitor::default();
        for us in 1..=1000 {
            monitor.on_event(Time::from_millis(40_000), &verified(us * 1000));
        }
        let latency = monitor.metrics(Time::from_millis(41_000)).latency_ms;
        for (got, want) in [(latency.p50, 500.0), (latency.p95, 950.0), (latency.p99, 990.0)] {
            assert!(got >= want && got < want * 1.13, "{got} {want}");
        }
        assert!((latency.max - 1000.0).abs() < 1e-9);
        assert_eq!(monitor.metrics(Time::from_millis(100_000)).latency_ms.count, 0, "old ones are forgotten");
    }

    #[test]
    fn rates_are_of_the_last_ten_seconds() {
        let mut monitor = PerformanceMonitor::default();
        for ms in (0..20_000).step_by(100) {
            monitor.on_event(Time::from_millis(ms), &verified(10));
        }
        let rate = monitor.metrics(Time::from_millis(19_999)).messages_per_second;
        assert!((rate - 20.0).abs() < 1e-9, "{rate}");
        assert_eq!(monitor.metrics(Time::from_millis(60_000)).messages_per_second, 0.0);
    }

    #[test]
    fn health_falls_with_each_of_its_causes() {
        let mut monitor = PerformanceMonitor::default();
        let good =
            MonitorInput { members_alive: 5, members_known: 5, peers: 4, degree: 6, is_synchronised: true };
        let mut health = |sizes| {
            monitor.on_sizes(sizes);
            monitor.metrics(Time::ZERO).health
        };
        assert_eq!(health(good), 1.0);
        assert_eq!(health(MonitorInput { is_synchronised: false, ..good }), 0.0);
        assert_eq!(health(MonitorInput { peers: 2, ..good }), 0.5);
        assert_eq!(health(MonitorInput { members_alive: 4, ..good }), 0.8);
        assert_eq!(
            health(MonitorInput { members_alive: 4, peers: 3, ..good }),
            0.8,
            "one is dead, and counts once"
        );
        monitor.on_sizes(good);
        let bad: Event<u32> = Event::Refused {
            id: MessageId::of(b""),
            channel: None,
            author: None,
            from: 0,
            reason: Refusal::BadPattern,
        };
        monitor.on_event(Time::ZERO, &verified(1));
        monitor.on_event(Time::ZERO, &bad);
        let metrics = monitor.metrics(Time::ZERO);
        assert_eq!((metrics.health, metrics.pattern_mismatches), (0.5, 1));
    }
}
