//! What is written down while nodes run, and how it becomes an outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use omnimesh_protocol::gossip::{self, Rpc};
use omnimesh_protocol::observer::AnomalyKind;
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::{MessageId, log, relay};

use super::Happening;
use super::compute_facts::ComputeNotes;
use super::link::NodeSet;
use super::log::{Answered, Asked};
use super::log_checkpoint::{JumpNote, SealedNotes};
use super::shared::KnownMessages;
use crate::outcome::{Delivery, LogCounts, Offence, Published, Traffic};

/// Things that must not happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offences {
    pub(crate) count: u64,
    /// At which node, and when; of one moment the lowest.
    pub(crate) first: Option<(u64, u32)>,
}

impl Offences {
    pub(crate) fn note(&mut self, node: u32, at: u64) {
        self.merge(Offences { count: 1, first: Some((at, node)) });
    }

    pub(crate) fn merge(&mut self, other: Offences) {
        self.count += other.count;
        self.first = [self.first, other.first].into_iter().flatten().min();
    }

    pub(crate) fn offence(&self) -> Option<Offence> {
        self.first.map(|(at, node)| Offence { node, at: Duration::from_nanos(at) })
    }
}

/// What one shard has seen.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(crate) events: u64,
    pub(crate) traffic: Traffic,
    /// What each fault of the scenario did.
    pub(crate) faults: Vec<u64>,
    /// What each adversary of the scenario did.
    pub(crate) adversaries: Vec<u64>,
    pub(crate) steps_fell: Offences,
    pub(crate) forged: Offences,
    /// Copies of each message of the workload that came to honest nodes.
    pub(crate) copies: Vec<u32>,
    /// (message, to whom, from whom, when).
    pub(crate) deliveries: Vec<(u32, u32, u32, u64)>,
    /// (who, whom, when).
    pub(crate) shut_out: Vec<(u32, u32, u64)>,
    /// (who put into quarantine, whom, when); of honest nodes.
    pub(crate) convicted: Vec<(u32, u32, u64)>,
    /// (who holds something, against whom, what, since when); of honest nodes.
    pub(crate) held: Vec<(u32, u32, AnomalyKind, u64)>,
    /// By (who misbehaves, to whom): how often.
    pub(crate) shown: BTreeMap<(u32, u32), u64>,
    /// Connections that observers refused.
    pub(crate) connections_refused: u64,
    pub(crate) gossip: gossip::Stats,
    pub(crate) refusals: [u64; Refusal::COUNT],
    /// What happened in the span that is watched.
    pub(crate) happenings: Vec<Happening>,
    pub(super) asked: Vec<Asked>,
    /// Entries that drivers of jobs had nodes append: the node, and the hash of what it says.
    pub(super) operations: Vec<(u32, u64)>,
    pub(super) answered: Vec<Answered>,
    pub(crate) served_unwritten: Offences,
    /// Adversaries that told two records for one place.
    pub(crate) forkers: Vec<u32>,
    pub(crate) log: LogCounts,
    /// Checkpoints that honest nodes have sealed.
    pub(super) sealed: SealedNotes,
    /// Where one came to stand for entries.
    pub(super) jumps: Vec<JumpNote>,
    pub(super) compute: ComputeNotes,
}

impl Record {
    pub(super) fn new(faults: usize, adversaries: usize) -> Self {
        Record { faults: vec![0; faults], adversaries: vec![0; adversaries], ..Record::default() }
    }

    /// Counts the copies of the workload's messages in a frame.
    pub(crate) fn note_copies(&mut self, rpc: &Rpc, known: &KnownMessages) {
        for message in &rpc.publish {
            let Some(number) = known.get(&message.id()).and_then(|known| known.number) else { continue };
            self.traffic.copies += 1;
            let place = number as usize;
            if self.copies.len() <= place {
                self.copies.resize(place + 1, 0);
            }
            self.copies[place] += 1;
        }
    }

    pub(crate) fn note_delivery(
        &mut self,
        known: &KnownMessages,
        id: MessageId,
        is_honest: bool,
        (to, from): (u32, u32),
        at: u64,
    ) {
        match known.get(&id) {
            None if is_honest => self.forged.note(to, at),
            None => {}
            Some(known) => {
                if let Some(number) = known.number {
                    self.deliveries.push((number, to, from, at));
                }
            }
        }
    }

    /// Adds what an honest node counted, at its end.
    pub(crate) fn add_stats(&mut self, relay: &relay::State<u32>) {
        self.gossip += relay.gossip().stats();
        for (sum, refused) in self.refusals.iter_mut().zip(relay.validator().refused()) {
            *sum += refused;
        }
    }

    /// Adds what an honest node's log counted, at its end.
    pub(crate) fn add_log_stats(&mut self, stats: &log::Stats) {
        self.log += LogCounts {
            rounds: stats.rounds,
            rounds_equal: stats.rounds_equal,
            bytes: stats.bytes_sent,
            record_bytes: stats.record_bytes_sent,
            applied: stats.applied,
            applied_gossip: stats.applied_gossip,
            fetches: stats.fetches,
            fetches_failed: stats.fetches_failed,
            misdeeds: stats.misdeeds,
            fork_searches: stats.fork_searches,
            writes: stats.writes,
            writes_failed: stats.writes_failed,
            checkpoints_made: stats.checkpoints_made,
            checkpoints_adopted: stats.checkpoints_adopted,
            checkpoints_refused: stats.checkpoints_refused,
            checkpoint_bytes: stats.checkpoint_bytes_received,
            entries_covered: stats.entries_covered,
            ..LogCounts::default()
        };
    }

    pub(crate) fn merge(&mut self, other: Record) {
        self.events += other.events;
        self.traffic += other.traffic;
        self.steps_fell.merge(other.steps_fell);
        self.forged.merge(other.forged);
        self.copies.resize(self.copies.len().max(other.copies.len()), 0);
        for (sum, one) in self.copies.iter_mut().zip(&other.copies) {
            *sum += one;
        }
        self.deliveries.extend(other.deliveries);
        self.shut_out.extend(other.shut_out);
        self.convicted.extend(other.convicted);
        self.held.extend(other.held);
        for (pair, times) in other.shown {
            *self.shown.entry(pair).or_default() += times;
        }
        self.connections_refused += other.connections_refused;
        self.gossip += &other.gossip;
        self.compute.merge(other.compute);
        let sums = self.faults.iter_mut().chain(&mut self.adversaries).chain(&mut self.refusals);
        for (sum, one) in sums.zip(other.faults.iter().chain(&other.adversaries).chain(&other.refusals)) {
            *sum += one;
        }
    }
}

/// A message of the workload, and who should get it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) author: u32,
    pub(crate) at: u64,
    pub(crate) bytes: u32,
    pub(crate) audience: NodeSet,
}

/// What of the deliveries is told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) messages: Vec<Published>,
    pub(crate) deliveries: Vec<Vec<Delivery>>,
    pub(crate) delivered_twice: Offences,
}

/// Sorts deliveries by message and time, counts hops, and compares with who should have got what.
///
/// `nodes` is how many there are; `away` says who was away from when to when, and may get a message once more. Who misbehaves counts for the hops of others, and no further.
pub(crate) fn tell(
    mut deliveries: Vec<(u32, u32, u32, u64)>,
    sent: &[Sent],
    dishonest: &NodeSet,
    away: &[(u32, u64, u64)],
    nodes: u32,
) -> Told {
    deliveries.sort_unstable_by_key(|(message, to, _, at)| (*message, *at, *to));
    let mut told = Told::default();
    let mut hops = vec![0_u16; nodes as usize];
    let mut rest = deliveries.as_slice();
    for (number, message) in (0..).zip(sent) {
        let count = rest.iter().take_while(|(of, ..)| *of == number).count();
        let (these, others) = rest.split_at(count);
        rest = others;
        hops.fill(0);
        let mut reached = NodeSet::default();
        let mut list = Vec::with_capacity(these.len());
        for (_, to, from, at) in these {
            let hop = hops[*from as usize].saturating_add(1);
            if !reached.insert(*to) {
                let was_away =
                    away.iter().any(|(node, _, back)| node == to && *back <= *at && *back > message.at);
                if !was_away && !dishonest.contains(*to) {
                    told.delivered_twice.note(*to, *at);
                }
                continue;
            }
            hops[*to as usize] = hop;
            if dishonest.contains(*to) {
                continue;
            }
            let latency_us = (at.saturating_sub(message.at)).div_ceil(1_000).min(3_600_000_000);
            list.push(Delivery {
                node: *to,
                from: *from,
                latency_us: u32::try_from(latency_us).unwrap_or(u32::MAX),
                hops: hop,
                is_expected: message.audience.contains(*to),
            });
        }
        let got = list.iter().filter(|delivery| delivery.is_expected).count();
        let audience = message.audience.len();
        told.messages.push(Published {
            author: message.author,
            at: Duration::from_nanos(message.at),
            bytes: message.bytes,
            audience,
            missed: audience.saturating_sub(u32::try_from(got).unwrap_or(u32::MAX)),
        });
        told.deliveries.push(list);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_follow_the_way_and_missing_is_counted() {
        let sent = [Sent { author: 0, at: 1_000, bytes: 9, audience: NodeSet::from_iter([1, 2, 3]) }];
        let deliveries = vec![(0, 2, 1, 9_000), (0, 1, 0, 3_000), (0, 1, 2, 9_500)];
        let told = tell(deliveries, &sent, &NodeSet::default(), &[], 4);
        assert_eq!(told.messages[0].missed, 1);
        assert_eq!(told.delivered_twice.first, Some((9_500, 1)));
        let hops: Vec<_> = told.deliveries[0].iter().map(|d| (d.node, d.hops, d.latency_us)).collect();
        assert_eq!(hops, [(1, 1, 2), (2, 2, 8)]);
    }
}
