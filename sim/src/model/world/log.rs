//! What the world does to logs: appends, deaths in a write, flipped bits.

use std::time::Duration;

use omnimesh_protocol::MessageId;
use rand::RngExt;

use super::super::link::nanos;
use super::super::plan::CANDIDATES;
use super::super::random::Draw;
use super::{GRAIN_NS, World};
use crate::scenario::FaultKind;

impl World<'_> {
    /// Kills those whose process is to die in a write that is now under way.
    pub(super) fn take_down(&mut self, now: u64) {
        let mut deaths: Vec<(u32, usize)> = Vec::new();
        for shard in &mut self.shards {
            deaths.append(&mut shard.sink.deaths);
        }
        deaths.sort_unstable();
        for (node, fault) in deaths {
            let after = match self.shared.scenario.faults[fault].kind {
                FaultKind::CrashInWrite { restart_after } | FaultKind::LostTail { restart_after } => {
                    restart_after
                }
                _ => continue,
            };
            let back = (now + nanos(after)).div_ceil(GRAIN_NS) * GRAIN_NS;
            self.kill(node, fault, Some(Duration::from_nanos(back - now)), now);
            self.exchange();
        }
    }

    /// Flips bits in records of the nodes that are hit.
    pub(super) fn flip(&mut self, number: usize, records: u32, now: u64) {
        let who = self.plan.faults[number].clone();
        self.planned[number] = who.len() as u64 * u64::from(records);
        for node in who {
            let pools = || self.shards.iter().map(|shard| &shard.sink.pool);
            let holders = |id: &MessageId| {
                pools().filter_map(|pool| pool.get(id)).map(|pooled| pooled.nodes.len()).sum::<u32>()
            };
            let mut places = self.node(node).flippable(holders);
            for _ in 0..records {
                if places.is_empty() {
                    break;
                }
                let place = places.swap_remove(self.rng.random_range(0..places.len()));
                let bit = self.rng.random_range(0..u64::MAX);
                self.with(node, now, |node, ctx| node.flip(number, place, bit, ctx));
            }
        }
    }

    pub(super) fn append(&mut self, number: u32, now: u64) {
        let nodes = self.shared.scenario.network.nodes;
        let mut draw = Draw::new(self.shared.seed, u64::from(number), 0x6170_7065);
        let authors = &self.plan.log_authors;
        let candidates: Vec<u32> = match authors.len() {
            0 => (0..CANDIDATES)
                .map(|_| u32::try_from(draw.next() % u64::from(nodes)).expect("fewer nodes than 2^32"))
                .collect(),
            count => (0..count).map(|next| authors[(number as usize + next) % count]).collect(),
        };
        if let Some(author) = candidates.into_iter().find(|node| self.can_publish(*node)) {
            self.with(author, now, |node, ctx| node.append(number, ctx));
        }
    }
}
