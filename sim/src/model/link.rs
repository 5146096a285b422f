//! What happens to a frame on its way.

use std::time::Duration;

use super::random::{Draw, mix};
use crate::outcome::Traffic;
use crate::scenario::{Latency, Links, Repair};

/// The least latency there is; a window of virtual time is as long as the least latency of the scenario.
pub(crate) const LATENCY_MIN: Duration = Duration::from_micros(100);
/// The least that a log-normal latency can be.
const LOG_NORMAL_MIN: Duration = Duration::from_millis(1);
/// Bytes of a packet's payload: Ethernet's 1,500 less headers and the like.
const PACKET_BYTES: usize = 1_400;
/// The least retransmission timeout: Linux's `TCP_RTO_MIN`.
const RTO_MIN: Duration = Duration::from_millis(200);
/// A packet is sent again at most so often.
const RETRIES_MAX: u32 = 6;

/// A set of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSet(Vec<u64>);

impl NodeSet {
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let (word, bit) = (node as usize / 64, 1 << (node % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    pub(crate) fn contains(&self, node: u32) -> bool {
        self.0.get(node as usize / 64).is_some_and(|word| word & 1 << (node % 64) != 0)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for (word, base) in self.0.iter_mut().zip((0_u32..).step_by(64)) {
            for bit in 0..64 {
                if *word & 1 << bit != 0 && !keep(base + bit) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

impl FromIterator<u32> for NodeSet {
    fn from_iter<I: IntoIterator<Item = u32>>(nodes: I) -> Self {
        let mut set = NodeSet::default();
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

/// A partition that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// Its place among the faults.
    pub(crate) fault: usize,
    pub(crate) inside: NodeSet,
    pub(crate) one_way: bool,
    /// When what waits gets through: streams that outlive the partition repair it.
    pub(crate) heals: Option<u64>,
}

/// Links that got worse.
#[derive(Clone, Debug)]
pub(crate) struct Degraded {
    pub(crate) fault: usize,
    pub(crate) nodes: NodeSet,
    pub(crate) loss: f64,
    pub(crate) latency_factor: f64,
}

/// One direction of a connection, at its sender.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    /// Nothing arrives before this, or it would overtake.
    last_arrival: u64,
    /// Packets are being lost in a row.
    in_burst: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    /// It arrives then.
    Arrives(u64),
    /// It arrives twice.
    ArrivesTwice(u64, u64),
}

/// A frame to be carried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) at: u64,
    pub(crate) bytes: usize,
    /// Its number among all that its sender sent.
    pub(crate) order: u64,
}

/// The links between all nodes.
#[derive(Clone, Debug)]
pub(crate) struct LinkModel {
    links: Links,
    seed: u64,
    /// The region of each node; empty if there is one.
    regions: Vec<u16>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) degraded: Vec<Degraded>,
}

impl LinkModel {
    pub(crate) fn new(links: Links, seed: u64, regions: Vec<u16>) -> Self {
        LinkModel { links, seed: mix(seed ^ 0x6c69_6e6b), regions, cuts: Vec::new(), degraded: Vec::new() }
    }

    /// The least that any frame takes.
    pub(crate) fn least(&self) -> Duration {
        let least = match &self.links.latency {
            Latency::Constant(latency) => *latency,
            Latency::Uniform { min, .. } => *min,
            Latency::LogNormal { .. } => LOG_NORMAL_MIN,
            Latency::Matrix { ms, spread } => {
                let least = ms.iter().flatten().copied().fold(f64::INFINITY, f64::min);
                Duration::from_secs_f64((least * (1.0 - spread) / 1e3).clamp(0.0, 1e6))
            }
        };
        least.max(LATENCY_MIN)
    }

    /// The pair's own one-way latency in nanoseconds; the same both ways unless a matrix says otherwise.
    pub(crate) fn latency(&self, from: u32, to: u32) -> u64 {
        let mut draw = Draw::new(self.seed, u64::from(from.min(to)), u64::from(from.max(to)));
        let seconds = match &self.links.latency {
            Latency::Constant(latency) => return nanos(*latency).max(nanos(LATENCY_MIN)),
            Latency::Uniform { min, max } => {
                min.as_secs_f64() + draw.unit() * (max.as_secs_f64() - min.as_secs_f64())
            }
            Latency::LogNormal { median, sigma, max } => {
                let latency = median.as_secs_f64() * (sigma * draw.normal()).exp();
                latency.clamp(LOG_NORMAL_MIN.as_secs_f64(), max.as_secs_f64())
            }
            Latency::Matrix { ms, spread } => {
                let region = |node: u32| usize::from(self.regions.get(node as usize).copied().unwrap_or(0));
                let base = ms.get(region(from)).and_then(|row| row.get(region(to))).copied().unwrap_or(0.0);
                base / 1e3 * (1.0 + spread * (2.0 * draw.unit() - 1.0))
            }
        };
        nanos(Duration::from_secs_f64(seconds.clamp(0.0, 1e6))).max(nanos(self.least()))
    }

    /// The first partition that keeps `from` from reaching `to`.
    pub(crate) fn cut(&self, from: u32, to: u32) -> Option<&Cut> {
        self.cuts.iter().find(|cut| {
            let (a, b) = (cut.inside.contains(from), cut.inside.contains(to));
            if cut.one_way { a && !b } else { a != b }
        })
    }

    /// Carries a frame. `effects` counts what each fault did.
    pub(crate) fn carry(
        &self,
        parcel: Parcel,
        stream: &mut Stream,
        uplink: &mut u64,
        traffic: &mut Traffic,
        effects: &mut [u64],
    ) -> Fate {
        let Parcel { from, to, at, bytes, order } = parcel;
        let mut draw = Draw::new(self.seed ^ order, u64::from(from) << 32 | u64::from(to), at);
        let mut sent = at;
        if let Some(bps) = self.links.bandwidth_bps {
            let takes = (bytes as u64).saturating_mul(8_000_000_000) / bps.max(1);
            sent = at.max(*uplink).saturating_add(takes);
            *uplink = sent;
        }
        let (mut loss, mut factor) = (self.links.loss, 1.0_f64);
        for degraded in &self.degraded {
            if degraded.nodes.contains(from) || degraded.nodes.contains(to) {
                loss = 1.0 - (1.0 - loss) * (1.0 - degraded.loss);
                factor *= degraded.latency_factor.max(1.0);
                effects[degraded.fault] += 1;
            }
        }
        if let Some(cut) = self.cut(from, to) {
            effects[cut.fault] += 1;
            match cut.heals {
                Some(heals) => sent = sent.max(heals),
                None => {
                    traffic.cut += 1;
                    return Fate::Lost;
                }
            }
        }
        let latency = self.latency(from, to);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "latencies are far below 2^52 ns, and positive"
        )]
        let way = (latency as f64 * (factor + self.links.jitter.max(0.0) * draw.unit())) as u64;
        let mut arrives = sent.saturating_add(way.max(latency));
        match self.losses(bytes, loss, stream, &mut draw) {
            0 => {}
            losses => {
                traffic.lost += u64::from(losses);
                if self.links.repair == Repair::None {
                    return Fate::Lost;
                }
                let timeout = nanos(RTO_MIN).max(latency.saturating_mul(2));
                // Doubled each time, as in RFC 6298.
                arrives = arrives.saturating_add(timeout.saturating_mul((1 << losses.min(RETRIES_MAX)) - 1));
            }
        }
        if draw.chance(self.links.reordering) {
            traffic.reordered += 1;
        } else {
            arrives = arrives.max(stream.last_arrival);
            stream.last_arrival = arrives;
        }
        if draw.chance(self.links.duplication) {
            traffic.duplicated += 1;
            return Fate::ArrivesTwice(arrives, arrives.saturating_add(latency / 2));
        }
        Fate::Arrives(arrives)
    }

    /// How often the unluckiest packet of a frame is lost in a row. Losses come in bursts by the model of
    /// Gilbert (1960): a packet after a lost one is lost with a higher chance than others.
    fn losses(&self, bytes: usize, loss: f64, stream: &mut Stream, draw: &mut Draw) -> u32 {
        if loss <= 0.0 {
            return 0;
        }
        let loss = loss.min(0.999);
        let burst = self.links.loss_burst.max(1.0);
        let enter = (loss / ((1.0 - loss) * burst)).min(1.0);
        let stay = if burst > 1.0 { 1.0 - 1.0 / burst } else { loss };
        let enter = if burst > 1.0 { enter } else { loss };
        let mut worst = 0;
        for _ in 0..bytes.div_ceil(PACKET_BYTES).clamp(1, 64) {
            let mut lost = 0;
            loop {
                stream.in_burst = draw.chance(if stream.in_burst { stay } else { enter });
                if !stream.in_burst || lost == RETRIES_MAX {
                    break;
                }
                lost += 1;
                if self.links.repair == Repair::None {
                    break;
                }
            }
            worst = worst.max(lost);
        }
        worst
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry_all(model: &LinkModel, frames: u32) -> (Vec<Fate>, Traffic) {
        let (mut stream, mut uplink, mut traffic) = (Stream::default(), 0, Traffic::default());
        let fates = (0..frames)
            .map(|i| {
                let at = u64::from(i) * 1_000_000_000;
                let parcel = Parcel { from: 1, to: 2, at, bytes: 100, order: u64::from(i) };
                model.carry(parcel, &mut stream, &mut uplink, &mut traffic, &mut [])
            })
            .collect();
        (fates, traffic)
    }

    fn links(change: impl FnOnce(&mut Links)) -> LinkModel {
        let mut links = Links::default();
        change(&mut links);
        LinkModel::new(links, 7, Vec::new())
    }

    #[test]
    fn loss_has_the_share_that_was_asked_for_and_bursts_have_their_length() {
        for burst in [1.0, 5.0] {
            let model =
                links(|links| (links.loss, links.loss_burst, links.repair) = (0.2, burst, Repair::None));
            let (fates, _) = carry_all(&model, 100_000);
            let lost: Vec<bool> = fates.iter().map(|fate| *fate == Fate::Lost).collect();
            let share = lost.iter().filter(|lost| **lost).count() as f64 / 1e5;
            assert!((share - 0.2).abs() < 0.01, "burst {burst}: {share}");
            let runs = lost.windows(2).filter(|pair| pair[0] && !pair[1]).count();
            let mean = share * 1e5 / runs as f64;
            let expected = if burst > 1.0 { burst } else { 1.25 };
            assert!((mean / expected - 1.0).abs() < 0.05, "burst {burst}: {mean}");
        }
    }

    #[test]
    fn a_stream_repairs_what_is_lost_and_keeps_order() {
        let model = links(|links| links.loss = 0.3);
        let (fates, traffic) = carry_all(&model, 10_000);
        assert!(traffic.lost > 2_000);
        let arrivals: Vec<u64> = fates
            .iter()
            .map(|fate| match fate {
                Fate::Arrives(at) => *at,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(arrivals.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn latencies_have_their_distribution() {
        let mean = |latency: Latency| {
            let model = links(|links| links.latency = latency);
            (0..20_000).map(|i| model.latency(i, i + 1) as f64 / 1e6).sum::<f64>() / 2e4
        };
        let ms = Duration::from_millis;
        assert!((mean(Latency::Uniform { min: ms(10), max: ms(150) }) - 80.0).abs() < 1.0);
        assert!((mean(Latency::Constant(ms(25))) - 25.0).abs() < 1e-9);
        // exp(sigma^2 / 2) times the median.
        let log_normal = Latency::LogNormal { median: ms(50), sigma: 0.5, max: ms(10_000) };
        assert!((mean(log_normal) / (50.0 * 0.125_f64.exp()) - 1.0).abs() < 0.02);
    }

    #[test]
    fn bandwidth_makes_frames_queue() {
        let model = links(|links| {
            (links.bandwidth_bps, links.latency) = (Some(8_000), Latency::Constant(Duration::from_millis(1)));
            links.jitter = 0.0;
        });
        let (mut stream, mut uplink, mut traffic) = (Stream::default(), 0, Traffic::default());
        let mut send = |order| {
            let parcel = Parcel { from: 0, to: 1, at: 0, bytes: 1_000, order };
            model.carry(parcel, &mut stream, &mut uplink, &mut traffic, &mut [])
        };
        assert_eq!(send(0), Fate::Arrives(1_001_000_000));
        assert_eq!(send(1), Fate::Arrives(2_001_000_000));
    }

    #[test]
    fn partitions_cut_both_ways_or_one() {
        let mut model = links(|_| {});
        let cut = Cut { fault: 0, inside: NodeSet::from_iter([1, 2]), one_way: false, heals: None };
        model.cuts.push(cut.clone());
        assert!(model.cut(1, 3).is_some() && model.cut(3, 1).is_some() && model.cut(1, 2).is_none());
        model.cuts = vec![Cut { one_way: true, ..cut }];
        assert!(model.cut(1, 3).is_some() && model.cut(3, 1).is_none());
    }
}
