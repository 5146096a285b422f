//! Who is in which topic and in our mesh: subscriptions, GRAFT, PRUNE, backoff.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand_core::Rng;

use super::peers::Slot;
use super::topics::{TopicIx, insert_sorted, remove_sorted};
use super::tree::Trees;
use super::{
    Class, Control, Event, Output, PeerName, Protocol, Prune, PruneReason, Rpc, State, Subscription, Topic,
};
use crate::{Outbox, Time};

/// The longest backoff that a peer can put on us. (guess: above any in use)
const REMOTE_BACKOFF_MAX: Duration = Duration::from_secs(3_600);

impl<P: PeerName> State<P> {
    pub(super) fn intern(&mut self, topic: &Topic, ours: bool) -> Option<TopicIx> {
        let params = self.config.score.as_ref().map(|score| score.topics.as_slice()).unwrap_or_default();
        self.topics.intern(topic, ours, &self.keys, |name| {
            u16::try_from(params.binary_search_by(|(topic, _)| topic.cmp(name)).ok()?).ok()
        })
    }

    /// Forgets a topic in which nothing is left.
    pub(super) fn release_topic(&mut self, ix: TopicIx) {
        let is_known =
            self.peers.iter().any(|(_, peer)| peer.score.as_ref().is_some_and(|s| s.knows_topic(ix)));
        if !is_known && self.topics.release(ix) {
            for (_, peer) in self.peers.iter_mut() {
                peer.score.iter_mut().for_each(|score| score.forget_topic(ix));
            }
        }
    }

    // --- our subscriptions ---------------------------------------------------------------------------

    pub(super) fn on_subscribe(&mut self, name: &Topic, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(ix) = self.intern(name, true) else {
            out.push(Event::TooManyTopics { topic: name.clone() });
            return;
        };
        let topic = self.topics.get_mut(ix);
        if topic.is_subscribed {
            return;
        }
        topic.is_subscribed = true;
        let fanout = topic.fanout.take().map(|fanout| fanout.peers).unwrap_or_default();
        // Those we published to already come first.
        let mut candidates = self.graft_candidates(ix, |_| true);
        let (mut chosen, mut others): (Vec<Slot>, Vec<Slot>) =
            candidates.drain(..).partition(|slot| fanout.binary_search(slot).is_ok());
        others.shuffle(rng);
        chosen.append(&mut others);
        chosen.truncate(self.config.mesh_degree);
        for slot in &chosen {
            self.add_to_mesh(ix, *slot, out);
        }
        for slot in self.peers.live() {
            let mut rpc = subscription_rpc(name, true);
            if chosen.contains(&slot) {
                rpc.control.get_or_insert_default().graft.push(name.clone());
            }
            self.send(slot, rpc, Class::Control, out);
        }
    }

    pub(super) fn on_unsubscribe(&mut self, name: &Topic, out: &mut Outbox<Output<P>>) {
        let Some(ix) = self.topics.find(name).filter(|ix| self.topics.get(*ix).is_subscribed) else { return };
        let mesh = self.topics.get(ix).mesh.clone();
        self.topics.get_mut(ix).trees = Trees::default();
        if let Some(repair) = &mut self.repair {
            repair.forget_topic(ix);
        }
        for slot in &mesh {
            self.remove_from_mesh(ix, *slot, PruneReason::Left, out);
        }
        self.topics.get_mut(ix).is_subscribed = false;
        for slot in self.peers.live() {
            let mut rpc = subscription_rpc(name, false);
            if mesh.contains(&slot) {
                let prune = self.prune(ix, slot, self.config.unsubscribe_backoff);
                rpc.control.get_or_insert_default().prune.push(prune);
            }
            self.send(slot, rpc, Class::Control, out);
        }
        self.bound_topics_of_peers();
        self.release_topic(ix);
    }

    /// A topic that we left counts among those of its peers again, and may be one too many.
    fn bound_topics_of_peers(&mut self) {
        for slot in self.peers.live() {
            let peer = self.peers.get(slot);
            let others: Vec<TopicIx> =
                peer.topics.iter().copied().filter(|ix| !self.topics.get(*ix).is_subscribed).collect();
            for ix in others.into_iter().skip(self.config.topics_per_peer_max) {
                self.stats.shed_subscriptions += 1;
                self.forget_peer_in_topic(ix, slot);
            }
        }
    }

    // --- subscriptions of peers ----------------------------------------------------------------------

    pub(super) fn on_subscription(
        &mut self,
        slot: Slot,
        subscription: &Subscription,
        reply: &mut Control,
        out: &mut Outbox<Output<P>>,
    ) {
        if subscription.subscribe {
            if let Some(ix) = self.add_peer_to_topic(slot, &subscription.topic, out) {
                self.graft_newcomer(ix, slot, reply, out);
            }
            return;
        }
        let Some(ix) = self.topics.find(&subscription.topic).filter(|ix| self.topics.get(*ix).has_peer(slot))
        else {
            return;
        };
        let was_in_mesh = self.remove_from_mesh(ix, slot, PruneReason::Left, out);
        let (peer, topic) = (self.peers.get(slot).name, self.topics.get(ix).name.clone());
        self.forget_peer_in_topic(ix, slot);
        if was_in_mesh {
            self.replace_eager_links(ix, slot, out);
        }
        out.push(Event::PeerUnsubscribed { peer, topic });
    }

    /// Notes that a peer is in a topic; `None` if it was known, or is one topic too many.
    pub(super) fn add_peer_to_topic(
        &mut self,
        slot: Slot,
        name: &Topic,
        out: &mut Outbox<Output<P>>,
    ) -> Option<TopicIx> {
        let known = self.topics.find(name);
        if known.is_some_and(|ix| self.topics.get(ix).has_peer(slot)) {
            return None;
        }
        let is_ours = known.is_some_and(|ix| self.topics.get(ix).is_subscribed);
        let others =
            self.peers.get(slot).topics.iter().filter(|ix| !self.topics.get(**ix).is_subscribed).count();
        let has_room = is_ours || others < self.config.topics_per_peer_max;
        let Some(ix) = has_room.then(|| self.intern(name, false)).flatten() else {
            self.stats.shed_subscriptions += 1;
            return None;
        };
        insert_sorted(&mut self.topics.get_mut(ix).peers, slot);
        let peer = self.peers.get_mut(slot);
        if let Err(at) = peer.topics.binary_search(&ix) {
            peer.topics.insert(at, ix);
        }
        out.push(Event::PeerSubscribed { peer: peer.name, topic: self.topics.get(ix).name.clone() });
        Some(ix)
    }

    /// A mesh that is short of peers does not wait for the heartbeat.
    fn graft_newcomer(&mut self, ix: TopicIx, slot: Slot, reply: &mut Control, out: &mut Outbox<Output<P>>) {
        let topic = self.topics.get(ix);
        let is_short = self.config.graft_newcomers
            && topic.is_subscribed
            && topic.mesh.len() < self.config.mesh_degree_low;
        if is_short && self.may_graft(ix, slot) {
            reply.graft.push(topic.name.clone());
            self.add_to_mesh(ix, slot, out);
        }
    }

    /// Takes a peer out of a topic, but for the mesh.
    fn forget_peer_in_topic(&mut self, ix: TopicIx, slot: Slot) {
        let topic = self.topics.get_mut(ix);
        remove_sorted(&mut topic.peers, &slot);
        if let Some(fanout) = &mut topic.fanout {
            remove_sorted(&mut fanout.peers, &slot);
        }
        let peer = self.peers.get_mut(slot);
        peer.topics.retain(|topic| *topic != ix);
        self.release_topic(ix);
    }

    /// Takes a peer out of everything, without a word to it.
    pub(super) fn leave_all_topics(&mut self, slot: Slot, out: &mut Outbox<Output<P>>) {
        let mut topics = self.peers.get(slot).topics.clone();
        topics.retain(|ix| {
            let was_in_mesh = self.remove_from_mesh(*ix, slot, PruneReason::Gone, out);
            self.forget_peer_in_topic(*ix, slot);
            was_in_mesh
        });
        // Not before it is out of everything: nothing more is said to it.
        topics.into_iter().for_each(|ix| self.replace_eager_links(ix, slot, out));
    }

    // --- the mesh ------------------------------------------------------------------------------------

    /// A subscriber that we may ask into the mesh: welcome, of good standing, and its backoff well over.
    pub(super) fn may_graft(&self, ix: TopicIx, slot: Slot) -> bool {
        let topic = self.topics.get(ix);
        let until = topic.backoff_until(&self.peers.get(slot).name);
        !topic.is_in_mesh(slot)
            && until.is_none_or(|until| until + self.config.backoff_slack <= self.now)
            && self.score_of(slot) >= 0.0
    }

    /// Subscribers that may be grafted, by place.
    pub(super) fn graft_candidates(&self, ix: TopicIx, filter: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let peers = self.topics.get(ix).peers.iter().copied();
        peers.filter(|slot| filter(*slot) && self.may_graft(ix, *slot)).collect()
    }

    pub(super) fn add_to_mesh(&mut self, ix: TopicIx, slot: Slot, out: &mut Outbox<Output<P>>) {
        let topic = self.topics.get_mut(ix);
        insert_sorted(&mut topic.mesh, slot);
        let name = topic.name.clone();
        let peer = self.peers.get_mut(slot);
        if let Some(score) = &mut peer.score {
            score.on_graft(ix, self.now);
        }
        out.push(Event::Grafted { peer: peer.name, topic: name });
        self.start_lazy(ix, slot);
    }

    /// Takes a peer out of the mesh if it is in it; says whether it was. Then
    /// [`replace_eager_links`](Self::replace_eager_links) is due.
    pub(super) fn remove_from_mesh(
        &mut self,
        ix: TopicIx,
        slot: Slot,
        reason: PruneReason,
        out: &mut Outbox<Output<P>>,
    ) -> bool {
        let topic = self.topics.get_mut(ix);
        if !remove_sorted(&mut topic.mesh, &slot) {
            return false;
        }
        topic.trees.forget(slot);
        let peer = self.peers.get_mut(slot);
        if let Some((score, config)) = peer.score.as_mut().zip(self.config.score.as_ref()) {
            score.on_prune(ix, Self::topic_score(config, &self.topics, ix), self.now);
        }
        out.push(Event::Pruned { peer: peer.name, topic: self.topics.get(ix).name.clone(), reason });
        true
    }

    fn back_off(&mut self, ix: TopicIx, slot: Slot, backoff: Duration) {
        if !backoff.is_zero() {
            let name = self.peers.get(slot).name;
            self.topics.get_mut(ix).back_off(name, self.now + backoff);
        }
    }

    /// Starts the backoff of a peer and makes the PRUNE that tells it.
    pub(super) fn prune(&mut self, ix: TopicIx, slot: Slot, backoff: Duration) -> Prune {
        self.back_off(ix, slot, backoff);
        let knows_backoff = self.peers.get(slot).protocol >= Protocol::Meshsub11;
        let topic = self.topics.get(ix).name.clone();
        Prune { topic, backoff_s: knows_backoff.then_some(backoff.as_secs()) }
    }

    pub(super) fn on_graft(
        &mut self,
        slot: Slot,
        name: &Topic,
        reply: &mut Control,
        out: &mut Outbox<Output<P>>,
    ) {
        // A topic that we are not in is not answered: the answer would serve to flood us.
        let Some(ix) = self.topics.find(name).filter(|ix| self.topics.get(*ix).is_subscribed) else { return };
        if self.topics.get(ix).is_in_mesh(slot) {
            return;
        }
        if reply.prune.iter().any(|prune| prune.topic == *name) {
            // Said once in this frame already: an answer must not be larger than what it answers.
            return;
        }
        self.add_peer_to_topic(slot, name, out);
        let topic = self.topics.get(ix);
        let peer = self.peers.get(slot);
        let in_backoff = topic.backoff_until(&peer.name).filter(|until| *until > self.now);
        let is_full = topic.mesh.len() >= self.config.mesh_degree_high && !peer.is_outbound;
        if let Some(until) = in_backoff {
            self.blame_early_graft(slot, until);
        }
        if in_backoff.is_some() || is_full || self.score_of(slot) < 0.0 {
            let prune = self.prune(ix, slot, self.config.prune_backoff);
            reply.prune.push(prune);
        } else {
            self.add_to_mesh(ix, slot, out);
            reply.choke.extend(self.first_choke(slot, name));
        }
    }

    /// P7: one offence for a GRAFT in backoff, two if it comes right after the PRUNE.
    fn blame_early_graft(&mut self, slot: Slot, until: Time) {
        self.stats.graft_in_backoff += 1;
        let pruned = until - self.config.prune_backoff;
        let is_flood = self.now < pruned + self.config.graft_flood_threshold;
        self.blame(slot, if is_flood { 2.0 } else { 1.0 });
    }

    pub(super) fn on_prune(&mut self, slot: Slot, prune: &Prune, out: &mut Outbox<Output<P>>) {
        let Some(ix) = self.topics.find(&prune.topic).filter(|ix| self.topics.get(*ix).is_subscribed) else {
            return;
        };
        let asked = prune.backoff_s.map(Duration::from_secs);
        let backoff = asked.unwrap_or(self.config.prune_backoff).min(REMOTE_BACKOFF_MAX);
        self.remove_from_mesh(ix, slot, PruneReason::ByPeer, out);
        self.replace_eager_links(ix, slot, out);
        self.back_off(ix, slot, backoff);
    }
}

fn subscription_rpc(topic: &Topic, subscribe: bool) -> Rpc {
    Rpc { subscriptions: vec![Subscription { subscribe, topic: topic.clone() }], ..Rpc::default() }
}
