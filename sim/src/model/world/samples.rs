//! Looking at the mesh now and then: who is up and knows whom, how far clocks are apart, what was delivered so far.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::link::{NodeSet, nanos};
use super::super::random::mix;
use super::super::record::Offences;
use super::super::shard::Shard;
use super::super::shared::Shared;
use super::World;
use crate::outcome::Sample;

impl World<'_> {
    pub(super) fn sample(&mut self, now: u64) {
        let shared = &self.shared;
        let all_up = self.shards.iter().flat_map(|shard| &shard.nodes).filter(|node| node.is_up()).count();
        let looks = self.shards.iter().map(|shard| Look::at(shard, shared, now, all_up));
        let look = looks.reduce(Look::merge).unwrap_or_default();
        let records = || self.shards.iter().map(|shard| &shard.sink.record);
        let deliveries = records().map(|record| record.deliveries.len() as u64).sum();
        let copies = records().map(|record| record.traffic.copies).sum::<u64>();
        let mut quarantined = NodeSet::default();
        for (_, whom, _) in records().flat_map(|record| record.shut_out.iter().chain(&record.convicted)) {
            if self.shared.dishonest.contains(*whom) {
                quarantined.insert(*whom);
            }
        }
        let membership = look.membership(all_up);
        if let Some((bytes, node)) = look.buffered
            && (bytes > self.buffered.0 || self.buffered.1.first.is_none())
        {
            self.buffered = (bytes, Offences { count: 1, first: Some((now, node)) });
        }
        let whole = look.memberships > 0 && look.whole == look.memberships;
        let faults_over = self.shared.scenario.faults.iter().all(|f| nanos(f.until.unwrap_or(f.at)) <= now);
        if whole && faults_over {
            self.whole_at = self.whole_at.or(Some(now));
        }
        self.samples.push(Sample {
            at: Duration::from_nanos(now),
            up: look.up,
            synchronised: look.synchronised,
            skew_ms: spread_ms(look.islands.values()),
            island_skew_ms: look.islands.values().map(|range| spread_ms([range])).fold(0.0, f64::max),
            links: look.ends / 2,
            deliveries,
            copies,
            duplicates: copies.saturating_sub(deliveries),
            membership: if whole { 1.0 } else { membership },
            quarantined: quarantined.len(),
        });
        if now.is_multiple_of(1_000_000_000) {
            self.checkpoints.push(look.trace);
        }
    }

    pub(super) fn sample_end(&mut self) {
        let now = nanos(self.shared.scenario.duration);
        if self.samples.last().is_none_or(|sample| nanos(sample.at) < now) {
            self.sample(now);
        }
    }
}

/// The mesh at one moment, as one shard shows it.
#[derive(Debug, Default)]
struct Look {
    up: u32,
    synchronised: u32,
    /// Of each island: the first and the last mesh time.
    islands: BTreeMap<u64, (u64, u64)>,
    ends: u64,
    memberships: u32,
    whole: u32,
    /// How many each holds for alive, together; none counts for more than there are.
    known: u64,
    trace: u64,
    /// The most that the buffers of a log hold, and at which node.
    buffered: Option<(u64, u32)>,
}

impl Look {
    fn at(shard: &Shard, shared: &Shared, now: u64, all_up: usize) -> Self {
        let mut look = Look::default();
        for (me, node) in (shard.first()..).zip(&shard.nodes) {
            look.trace = look.trace.wrapping_add(mix(node.trace() ^ mix(u64::from(me))));
            if !node.is_up() || shared.dishonest.contains(me) {
                continue;
            }
            look.up += 1;
            look.ends += node.ends.iter().filter(|end| end.is_up).count() as u64;
            if let Some(part) = node.log_part() {
                look.buffered = look.buffered.max(Some((part.buffered(), me)));
            }
            if let Some(alive) = node.alive() {
                look.memberships += 1;
                look.whole += u32::from(alive == all_up);
                look.known += alive.min(all_up) as u64;
            }
            if let Some(time) = node.mesh_time(now, shared) {
                look.synchronised += 1;
                let island = shared
                    .links
                    .cuts
                    .iter()
                    .enumerate()
                    .map(|(bit, cut)| u64::from(cut.inside.contains(me)) << bit.min(63))
                    .sum();
                let range = look.islands.entry(island).or_insert((time, time));
                *range = (range.0.min(time), range.1.max(time));
            }
        }
        look
    }

    /// The part of those who are up that one knows on average; below 1 as long as anybody is wrong.
    fn membership(&self, all_up: usize) -> f64 {
        if self.memberships == 0 {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let share = self.known as f64 / (f64::from(self.memberships) * all_up.max(1) as f64);
        share.min(0.999_999)
    }

    fn merge(mut self, other: Look) -> Look {
        self.up += other.up;
        self.synchronised += other.synchronised;
        for (island, (first, last)) in other.islands {
            let range = self.islands.entry(island).or_insert((first, last));
            *range = (range.0.min(first), range.1.max(last));
        }
        self.ends += other.ends;
        self.memberships += other.memberships;
        self.whole += other.whole;
        self.known += other.known;
        self.trace = self.trace.wrapping_add(other.trace);
        self.buffered = self.buffered.max(other.buffered);
        self
    }
}

fn spread_ms<'a>(ranges: impl IntoIterator<Item = &'a (u64, u64)>) -> f64 {
    let range = ranges.into_iter().copied().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    range.map_or(0.0, |(first, last)| Duration::from_nanos(last - first).as_secs_f64() * 1e3)
}
