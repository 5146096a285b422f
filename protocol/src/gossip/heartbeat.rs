//! What is done once in a heartbeat: the books, the mesh, gossip.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rand::seq::SliceRandom;
use rand_core::Rng;

use super::message::ids_by_topic;
use super::peers::Slot;
use super::topics::TopicIx;
use super::{Class, Control, IHave, Output, PeerName, PruneReason, Rpc, State, Timer};
use crate::time::nanos;
use crate::{MessageId, Outbox};

/// What a heartbeat says to each peer, in one frame.
type Batch = BTreeMap<Slot, Control>;

impl<P: PeerName> State<P> {
    pub(super) fn on_heartbeat(&mut self, beat: u32, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if beat != self.beat.wrapping_add(1) {
            return;
        }
        self.beat = beat;
        self.keep_books(out);
        let mut batch = Batch::new();
        for ix in self.topics.subscribed() {
            self.maintain_mesh(ix, &mut batch, rng, out);
        }
        self.maintain_fanouts(rng);
        self.gossip(&mut batch, rng);
        for (slot, control) in batch {
            self.send(slot, Rpc::of_control(control), Class::Control, out);
        }
        self.forget_old_messages();
        for ix in self.topics.idle() {
            self.release_topic(ix);
        }
        let at = self.now + self.config.heartbeat_interval;
        out.push(Output::Timer { at, timer: Timer::Heartbeat { beat: beat.wrapping_add(1) } });
    }

    // --- the books -----------------------------------------------------------------------------------

    fn keep_books(&mut self, out: &mut Outbox<Output<P>>) {
        for (_, peer) in self.peers.iter_mut() {
            peer.recent = super::peers::Recent::default();
        }
        self.asked.clear();
        self.seen.tick(self.now, self.config.seen_ttl);
        self.unwanted.tick(self.now, self.config.heartbeat_interval * self.config.idontwant_beats);
        let (now, slack, beat) = (self.now, self.config.backoff_slack, self.beat);
        for topic in self.topics.iter_mut() {
            topic.forget_backoffs(now, slack);
            topic.trees.on_heartbeat(beat);
        }
        self.judge_promises();
        self.decay_scores();
        for slot in self.peers.live() {
            self.shut_out_if_graylisted(slot, out);
        }
    }

    /// P7: one offence for each promise that was not kept.
    fn judge_promises(&mut self) {
        if self.promises.is_empty() {
            return;
        }
        let (now, mut broken) = (self.now, Vec::new());
        self.promises.retain(|_, promises| {
            promises.retain(|promise| {
                let is_open = promise.until > now;
                if !is_open {
                    broken.push(promise.link);
                }
                is_open
            });
            !promises.is_empty()
        });
        // Who is gone could not keep its word.
        broken.retain(|link| self.peers.resolve(*link).is_some_and(|slot| self.peers.get(slot).is_live()));
        self.stats.broken_promises += broken.len() as u64;
        // However many: a slow peer breaks them by the dozen, and mends; a mute one breaks some in each heartbeat.
        broken.sort_unstable();
        broken.dedup();
        for link in broken {
            if let Some(slot) = self.peers.resolve(link) {
                self.blame(slot, 1.0);
            }
        }
    }

    fn decay_scores(&mut self) {
        let config = Arc::clone(&self.config);
        let Some(config) = &config.score else { return };
        if self.now < self.next_decay {
            return;
        }
        let interval = nanos(config.decay_interval).max(1);
        let times = 1 + nanos(self.now.since(self.next_decay)) / interval;
        self.next_decay = self.next_decay + config.decay_interval * u32::try_from(times).unwrap_or(u32::MAX);
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let (now, topics) = (self.now, &self.topics);
        let mut expired = Vec::new();
        for (slot, peer) in self.peers.iter_mut() {
            let Some(score) = &mut peer.score else { continue };
            if peer.is_connected {
                score.decay(config, times, |ix| Self::topic_score(config, topics, ix));
            } else if score.retained_until <= now {
                expired.push(slot);
            }
        }
        expired.into_iter().for_each(|slot| self.peers.remove(slot));
    }

    // --- the mesh ------------------------------------------------------------------------------------

    fn maintain_mesh(
        &mut self,
        ix: TopicIx,
        batch: &mut Batch,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let config = Arc::clone(&self.config);
        let mut pruned = None;
        for slot in self.topics.get(ix).mesh.clone() {
            if self.score_of(slot) < 0.0 {
                self.prune_in(ix, slot, PruneReason::Score, batch, out);
                pruned = Some(slot);
            }
        }
        if self.topics.get(ix).mesh.len() > config.mesh_degree_high {
            for slot in self.excess(ix, rng) {
                self.prune_in(ix, slot, PruneReason::Excess, batch, out);
                pruned = Some(slot);
            }
        }
        if let Some(slot) = pruned {
            self.replace_eager_links(ix, slot, out);
        }
        let degree = self.topics.get(ix).mesh.len();
        if degree < config.mesh_degree_low {
            let candidates = self.graft_candidates(ix, |_| true);
            self.graft_some(ix, candidates, config.mesh_degree - degree, batch, rng, out);
        }
        if self.topics.get(ix).mesh.len() >= config.mesh_degree_low {
            let outbound =
                self.topics.get(ix).mesh.iter().filter(|slot| self.peers.get(**slot).is_outbound).count();
            if outbound < config.mesh_degree_out {
                let candidates = self.graft_candidates(ix, |slot| self.peers.get(slot).is_outbound);
                self.graft_some(ix, candidates, config.mesh_degree_out - outbound, batch, rng, out);
            }
        }
        if self.beat.is_multiple_of(config.opportunistic_graft_beats) {
            self.graft_opportunistically(ix, batch, rng, out);
        }
    }

    fn prune_in(
        &mut self,
        ix: TopicIx,
        slot: Slot,
        reason: PruneReason,
        batch: &mut Batch,
        out: &mut Outbox<Output<P>>,
    ) {
        self.remove_from_mesh(ix, slot, reason, out);
        let prune = self.prune(ix, slot, self.config.prune_backoff);
        batch.entry(slot).or_default().prune.push(prune);
    }

    fn graft_some(
        &mut self,
        ix: TopicIx,
        mut candidates: Vec<Slot>,
        count: usize,
        batch: &mut Batch,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        candidates.shuffle(rng);
        for slot in candidates.into_iter().take(count) {
            self.add_to_mesh(ix, slot, out);
            let topic = self.topics.get(ix).name.clone();
            batch.entry(slot).or_default().graft.push(topic);
        }
    }

    /// Mesh peers above `mesh_degree`: neither of the best, nor needed as outbound.
    fn excess(&self, ix: TopicIx, rng: &mut impl Rng) -> Vec<Slot> {
        let config = &self.config;
        let mut scored: Vec<(f64, Slot)> =
            self.topics.get(ix).mesh.iter().map(|slot| (self.score_of(*slot), *slot)).collect();
        scored.shuffle(rng);
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut order: Vec<Slot> = scored.into_iter().map(|(_, slot)| slot).collect();
        if let Some(rest) = order.get_mut(config.mesh_degree_score..) {
            rest.shuffle(rng);
        }
        let mut excess = order.split_off(config.mesh_degree.min(order.len()));
        let is_outbound = |slot: &Slot| self.peers.get(*slot).is_outbound;
        let mut missing =
            config.mesh_degree_out.saturating_sub(order.iter().filter(|slot| is_outbound(slot)).count());
        // From the end: the best stay where they are as long as that goes.
        for kept in order.iter_mut().rev().filter(|slot| !is_outbound(slot)) {
            let spare = excess.iter_mut().find(|slot| is_outbound(slot));
            let Some(spare) = spare.filter(|_| missing > 0) else { break };
            std::mem::swap(kept, spare);
            missing -= 1;
        }
        excess
    }

    /// A mesh whose median is poor takes in some who are better.
    fn graft_opportunistically(
        &mut self,
        ix: TopicIx,
        batch: &mut Batch,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let config = Arc::clone(&self.config);
        let Some(score) = &config.score else { return };
        let mesh = &self.topics.get(ix).mesh;
        let mut scores: Vec<f64> = mesh.iter().map(|slot| self.score_of(*slot)).collect();
        scores.sort_by(f64::total_cmp);
        let Some(median) = scores.get(scores.len() / 2).copied() else { return };
        if median.total_cmp(&score.opportunistic_graft_threshold) == Ordering::Less {
            let better = self.graft_candidates(ix, |slot| self.score_of(slot) > median);
            self.graft_some(ix, better, config.opportunistic_graft_peers, batch, rng, out);
        }
    }

    fn maintain_fanouts(&mut self, rng: &mut impl Rng) {
        let (now, ttl) = (self.now, self.config.fanout_ttl);
        let mut alive = Vec::new();
        for (ix, topic) in self.topics.iter() {
            if let Some(fanout) = &topic.fanout {
                alive.push((ix, now.since(fanout.last_published) < ttl));
            }
        }
        for (ix, is_alive) in alive {
            if is_alive {
                self.fill_fanout(ix, rng);
            } else {
                self.topics.get_mut(ix).fanout = None;
            }
        }
    }

    // --- gossip --------------------------------------------------------------------------------------

    /// Tells some of those outside the mesh what came lately, and all within it who are on trial.
    fn gossip(&mut self, batch: &mut Batch, rng: &mut impl Rng) {
        // A message that came after heartbeat n is told of in heartbeats n + 1 to n + history_gossip.
        let since = self.beat.saturating_sub(self.config.history_gossip);
        for (ix, ids) in ids_by_topic(&self.messages, since) {
            let topic = self.topics.get(ix);
            if topic.is_subscribed || topic.fanout.is_some() {
                self.gossip_topic(ix, ids, batch, rng);
            }
        }
    }

    fn gossip_topic(&self, ix: TopicIx, mut ids: Vec<MessageId>, batch: &mut Batch, rng: &mut impl Rng) {
        let threshold = self.config.score.as_ref().map_or(f64::NEG_INFINITY, |score| score.gossip_threshold);
        let topic = self.topics.get(ix);
        let eager = topic.fanout.as_ref().map_or(&topic.mesh, |fanout| &fanout.peers);
        let is_lazy = |slot: &Slot| eager.binary_search(slot).is_err() && self.score_of(*slot) >= threshold;
        let mut lazy: Vec<Slot> = topic.peers.iter().copied().filter(is_lazy).collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a small count"
        )]
        let part = (lazy.len() as f64 * self.config.gossip_factor) as usize;
        lazy.shuffle(rng);
        lazy.truncate(part.max(self.config.lazy_degree));
        lazy.extend(topic.mesh.iter().copied().filter(|slot| self.is_on_trial(*slot)));
        lazy.sort_unstable();
        for slot in lazy {
            if ids.len() > self.config.ihave_ids_max {
                // Each peer another part, so that together they are told of all.
                ids.shuffle(rng);
            }
            // In tree mode we know who told us.
            let is_news = |id: &&MessageId| !self.has_trees(slot) || !self.has_message(ix, id, slot);
            let told: Vec<MessageId> =
                ids.iter().take(self.config.ihave_ids_max).filter(is_news).copied().collect();
            if told.is_empty() {
                continue;
            }
            batch.entry(slot).or_default().ihave.push(IHave { topic: topic.name.clone(), ids: told });
        }
    }
}
