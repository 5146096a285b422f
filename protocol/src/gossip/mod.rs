//! The gossip router: who gets which message, by the gossipsub specification, as a pure state machine.
//!
//! It implements gossipsub v1.1 with peer scoring, and v1.2 (IDONTWANT), on the standard wire ([`wire`]),
//! without signatures of its own (`StrictNoSign`). Stock gossipsub routers and this one can be in one mesh.
//! Between themselves routers like this one use *tree mode*, and send each message about once.
//!
//! ```text
//!            Publish ──► cache ──► subscribers we know (flood publish) or the mesh
//!  message ──► seen? ──► Validate ──► caller ── Verdict ──► Accept: mesh, but not to those who have it
//!     │          └ yes: count it, note the sender            Reject: blame all who sent it
//!     └ IDONTWANT to the mesh, when large                    Ignore: nothing
//!  IHAVE ──► unseen ids ──► IWANT ──► message      heartbeat: mesh within bounds, IHAVE to some others
//! ```
//!
//! **The mesh.** In each topic we are subscribed to, a few peers (`mesh_degree`) exchange whole messages with
//! us; GRAFT and PRUNE make and end such a link, and a pruned peer may not come back before its backoff ends.
//! To some of the other subscribers each heartbeat tells the ids of recent messages (IHAVE), which they fetch
//! (IWANT) if they missed them.
//!
//! **Tree mode** ([`TreeConfig`], [`Protocol::Omnimesh1`]). Mesh links that bring nothing but duplicates turn
//! *lazy* (CHOKE) and carry ids instead of messages; the *eager* ones that are left are a tree of the fastest
//! ways from the author, of whom each has one of 64 trees. What does not come by the tree is asked of who told
//! of it, and the link that brings it turns eager (UNCHOKE). Toward standard peers nothing of this happens.
//!
//! ```text
//!   second copy ──► CHOKE ──► lazy: IHAVE, 10 ms after the verdict ──► seen? nothing
//!   first copy, asked for ──► UNCHOKE ──► eager           └─ unseen, and not here in 100 ms: IWANT
//! ```
//!
//! In a mesh of degree 12 among 1,000 (10,000) nodes, links of 10 to 50 ms: 1.00 copies for each node, 5 (7)
//! hops, 80 (100) ms to the last; without trees 11.5 copies in the same time.
//!
//! **Ids.** The id of a message is a hash of its data, and nothing is looked at before it is compared with
//! what was seen. What was seen is remembered per topic: the same content sent under a wrong topic, and
//! rejected there, does not hide the right one.
//!
//! **Verdicts.** A new message goes to the caller as [`Output::Validate`], once; it is forwarded when
//! [`Verdict::Accept`] comes back.
//!
//! **Inputs and outputs.** [`Input`], [`Output`]. Peers have names of any small type `P`. Frames are values
//! ([`rpc::Rpc`]): the shell encodes, splits ([`wire::split`]) and decodes them; a simulator need not. One
//! heartbeat runs, [`Timer::Heartbeat`]; in tree mode there are two more timers. The same inputs with the same
//! random numbers give the same outputs.
//!
//! **Invariants** ([`State::check_invariants`]): no message goes back to one who sent it to us; no mesh peer
//! is in backoff; no standard peer is choked, and never the last eager link; every table has its bound (see
//! [`Config`]), and what is shed is counted ([`Stats`]).
//!
//! **Deviations.** Peer exchange is neither sent nor read. There are no direct peers. A GRAFT implies a
//! subscription. A new subscriber is grafted at once while the mesh is below `mesh_degree_low`. One id is
//! asked of two peers per heartbeat at most. All promises that a peer breaks in one heartbeat are one offence (P7).
//! Graylisted peers are sent away. Loopback addresses do not count
//! as shared (P6).
//!
//! **Not here:** sockets, encoding, queues, and whether a message is valid.

mod api;
mod cache;
mod config;
mod control;
mod heartbeat;
mod mesh;
mod message;
mod peers;
mod repair;
pub mod rpc;
mod score;
mod stats;
mod topics;
mod tree;
pub mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rand::RngExt;
use rand_core::Rng;
use smallvec::SmallVec;

pub use api::{
    Class, Contribution, Direction, DisconnectReason, Event, Input, Output, PeerName, Protocol, PruneReason,
    PublishError, Timer, Verdict,
};
pub use config::{Config, ConfigError, ScoreConfig, TopicScore, TreeConfig};
pub use rpc::{Choke, Control, IHave, Message, Prune, Rpc, Subscription, Topic, TopicError};
pub use stats::Stats;

use crate::{Outbox, Time};
use cache::{Keys, Messages, RotatingSet};
use peers::{Link, Peer, Peers, Slot};
use repair::Repair;
use score::{Brought, PeerScore};
use topics::{TopicIx, Topics};
use wire::Refused;

/// A message that a peer said it has and we asked for.
#[derive(Clone, Copy, Debug)]
struct Promise {
    link: Link,
    until: Time,
}

/// The router. See the module for what it does.
#[derive(Debug)]
pub struct State<P> {
    config: Arc<Config>,
    /// The moment of the input being handled.
    now: Time,
    /// Heartbeats so far, the first being 1.
    beat: u32,
    next_decay: Time,
    keys: Keys,
    peers: Peers<P>,
    topics: Topics<P>,
    seen: RotatingSet,
    messages: Messages,
    /// Messages with peers who do not want them.
    unwanted: RotatingSet,
    /// By key of the message.
    promises: BTreeMap<u64, SmallVec<[Promise; 1]>>,
    /// How many peers were asked for a message since the last heartbeat, by key of the message.
    asked: BTreeMap<u64, u8>,
    /// In tree mode.
    repair: Option<Box<Repair>>,
    stats: Box<Stats>,
}

impl<P: PeerName> State<P> {
    /// A router without peers or topics. The first heartbeat comes at a random part of the interval, so that
    /// routers that started together do not beat together.
    pub fn new(
        config: Arc<Config>,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let keys = Keys::new(rng);
        let next_decay = config.score.as_ref().map_or(now, |score| now + score.decay_interval);
        let first = config.heartbeat_interval.mul_f64(rng.random_range(0.0..1.0));
        let first = config.heartbeat_initial_delay + first;
        out.push(Output::Timer { at: now + first, timer: Timer::Heartbeat { beat: 1 } });
        let repair = config.tree.is_some().then(Box::default);
        Ok(State {
            config,
            now,
            beat: 0,
            next_decay,
            keys,
            peers: Peers::new(),
            topics: Topics::new(),
            seen: RotatingSet::new(now),
            messages: Messages::new(keys),
            unwanted: RotatingSet::new(now),
            promises: BTreeMap::new(),
            asked: BTreeMap::new(),
            repair,
            stats: Box::default(),
        })
    }

    /// Takes one input. `now` never decreases.
    pub fn handle(&mut self, now: Time, input: Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.now = now.max(self.now);
        match input {
            Input::Connected { peer, protocol, direction, ip } => {
                self.on_connected(peer, protocol, direction == Direction::Outbound, ip, out);
            }
            Input::Disconnected { peer } => self.on_disconnected(peer, out),
            Input::Rpc { from, rpc } => self.on_rpc(from, rpc, rng, out),
            Input::Refused { from, refused } => self.on_refused(from, &refused, out),
            Input::Malformed { from } => self.on_malformed(from, out),
            Input::Subscribe(topic) => self.on_subscribe(&topic, rng, out),
            Input::Unsubscribe(topic) => self.on_unsubscribe(&topic, out),
            Input::Publish { topic, data } => self.on_publish(&topic, data, rng, out),
            Input::Verdict { topic, id, verdict } => self.on_verdict(&topic, id, verdict, out),
            Input::AppScore { peer, score } => self.on_app_score(peer, score),
            Input::Trial { peer, until } => self.on_trial(peer, until),
            Input::Timer(Timer::Heartbeat { beat }) => self.on_heartbeat(beat, rng, out),
            Input::Timer(Timer::Repair { token }) => self.on_repair_timer(token, rng, out),
            Input::Timer(Timer::Announce { token }) => self.on_announce_timer(token, out),
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The connected peers, sorted.
    pub fn peers(&self) -> Vec<P> {
        let mut names: Vec<P> =
            self.peers.iter().filter(|(_, p)| p.is_connected).map(|(_, p)| p.name).collect();
        names.sort_unstable();
        names
    }

    /// The topics that we are subscribed to, sorted.
    pub fn topics(&self) -> Vec<Topic> {
        let mut names: Vec<Topic> =
            self.topics.iter().filter(|(_, t)| t.is_subscribed).map(|(_, t)| t.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// The peers in our mesh of a topic, sorted.
    pub fn mesh_peers(&self, topic: &Topic) -> Vec<P> {
        self.names(self.topics.find(topic).map(|ix| self.topics.get(ix).mesh.as_slice()).unwrap_or_default())
    }

    /// The peers that are in a topic as far as we know, sorted.
    pub fn topic_peers(&self, topic: &Topic) -> Vec<P> {
        self.names(self.topics.find(topic).map(|ix| self.topics.get(ix).peers.as_slice()).unwrap_or_default())
    }

    /// The score of a peer that we know, as of the last input; zero if scoring is off.
    pub fn score(&self, peer: &P) -> Option<f64> {
        self.peers.find(peer).map(|slot| self.score_of(slot))
    }

    /// What the connected peers have brought, by place; nothing if peers are not judged.
    pub fn contributions(&self) -> impl Iterator<Item = Contribution<P>> {
        let connected = self.peers.iter().filter(|(_, peer)| peer.is_connected);
        connected.filter_map(|(_, peer)| {
            let Brought { copies, told, expected } = peer.score.as_ref()?.brought;
            Some(Contribution { peer: peer.name, copies, told, expected })
        })
    }

    /// Bytes of messages that are held, with what they take beside their content.
    pub fn cache_bytes(&self) -> usize {
        self.messages.bytes()
    }

    /// Messages that wait for a verdict.
    pub fn validating(&self) -> usize {
        self.messages.validating()
    }

    /// Asserts what must hold after every input. For tests and simulations: takes time.
    pub fn check_invariants(&self) {
        self.peers.check_invariants();
        assert!(self.peers.connected() <= self.config.peers_max, "peers are bounded");
        let retained_max = self.config.score.as_ref().map_or(0, |score| score.retained_max);
        assert!(self.peers.retained() <= retained_max, "peers that are gone are bounded");
        let mut cached = self.messages.check_invariants();
        for (ix, topic) in self.topics.iter() {
            topic.check_invariants(self.now, |slot| self.peers.get(slot).name);
            assert_eq!(topic.cached, cached.remove(&ix).unwrap_or(0), "cached messages of a topic");
            for slot in &topic.peers {
                let peer = self.peers.get(*slot);
                assert!(peer.is_live(), "a peer of a topic is connected");
                assert!(peer.topics.binary_search(&ix).is_ok(), "a peer of a topic knows so");
            }
        }
        assert!(cached.is_empty(), "every cached message has its topic");
        for (slot, peer) in self.peers.iter() {
            let others = peer.topics.iter().filter(|ix| !self.topics.get(**ix).is_subscribed).count();
            assert!(others <= self.config.topics_per_peer_max, "topics of a peer are bounded");
            assert!(
                peer.topics.iter().all(|ix| self.topics.get(*ix).has_peer(slot)),
                "topics know their peers"
            );
        }
        if let (Some(repair), Some(config)) = (&self.repair, &self.config.tree) {
            repair.check_invariants(config.missing_max, |ix| self.topics.get(ix).is_subscribed);
        }
        for (_, topic) in self.topics.iter() {
            let is_tree_link = |slot| self.has_trees(slot);
            assert!(topic.trees.lazy_links().all(is_tree_link), "only links in tree mode are lazy");
        }
        assert!(self.seen.len() <= self.config.seen_entries_max, "seen messages are bounded");
        assert!(self.messages.bytes() <= self.config.cache_bytes_max, "bytes of messages are bounded");
        assert!(
            self.messages.validating() <= self.config.validating_max,
            "messages without a verdict are bounded"
        );
    }

    fn names(&self, slots: &[Slot]) -> Vec<P> {
        let mut names: Vec<P> = slots.iter().map(|slot| self.peers.get(*slot).name).collect();
        names.sort_unstable();
        names
    }

    // --- peers ---------------------------------------------------------------------------------------

    fn on_connected(
        &mut self,
        name: P,
        protocol: Protocol,
        is_outbound: bool,
        ip: Option<IpAddr>,
        out: &mut Outbox<Output<P>>,
    ) {
        let known = self.peers.find(&name);
        if known.is_some_and(|slot| self.peers.get(slot).is_connected) {
            return;
        }
        let has_room = self.peers.connected() < self.config.peers_max;
        let score = self.config.score.is_some().then(Box::<PeerScore>::default);
        let newcomer = || self.peers.insert(Peer::new(name, score));
        let Some(slot) = has_room.then(|| known.or_else(newcomer)).flatten() else {
            self.stats.peers_refused += 1;
            out.push(Output::Disconnect { peer: name, reason: DisconnectReason::TooManyPeers });
            return;
        };
        self.peers.set_connected(slot, true);
        let peer = self.peers.get_mut(slot);
        (peer.protocol, peer.is_outbound, peer.is_shut_out) = (protocol, is_outbound, false);
        peer.recent = peers::Recent::default();
        if let Some(score) = &mut peer.score {
            score.ip = ip.filter(|ip| !ip.is_loopback());
        }
        self.count_colocated(ip);
        if self.shut_out_if_graylisted(slot, out) {
            return;
        }
        let subscribed = self.topics.iter().filter(|(_, topic)| topic.is_subscribed);
        let subscriptions: Vec<Subscription> =
            subscribed.map(|(_, t)| Subscription { subscribe: true, topic: t.name.clone() }).collect();
        if !subscriptions.is_empty() {
            self.send(slot, Rpc { subscriptions, ..Rpc::default() }, Class::Control, out);
        }
    }

    fn on_disconnected(&mut self, name: P, out: &mut Outbox<Output<P>>) {
        let Some(slot) = self.peers.find(&name).filter(|slot| self.peers.get(*slot).is_connected) else {
            // A peer that was refused for lack of room comes here; so does one that never was.
            self.stats.unknown_peer += 1;
            return;
        };
        let score_then = self.score_of(slot);
        self.leave_all_topics(slot, out);
        self.peers.set_connected(slot, false);
        let (config, now) = (Arc::clone(&self.config), self.now);
        let peer = self.peers.get_mut(slot);
        let ip = peer.score.as_mut().and_then(|score| score.ip.take());
        // Only what is bad is kept: it must not be washed off by coming back, and praise must not be hoarded.
        let keep = config.score.as_ref().zip(peer.score.as_mut()).is_some_and(|(config, score)| {
            score.on_disconnected();
            score.retained_until = now + config.retain;
            score_then <= 0.0 && !score.is_zero() && !config.retain.is_zero() && config.retained_max > 0
        });
        if !keep {
            self.peers.remove(slot);
        } else if self.peers.retained() > config.score.as_ref().map_or(0, |score| score.retained_max) {
            self.forget_one_retained();
        }
        self.count_colocated(ip);
    }

    fn forget_one_retained(&mut self) {
        let gone = self.peers.iter().filter(|(_, peer)| !peer.is_connected);
        let until = |peer: &Peer<P>| peer.score.as_ref().map_or(Time::ZERO, |score| score.retained_until);
        let first = gone.min_by_key(|(_, peer)| until(peer)).map(|(slot, _)| slot);
        first.into_iter().for_each(|slot| self.peers.remove(slot));
    }

    /// P6: counts the peers at an address anew, after one came or went.
    fn count_colocated(&mut self, ip: Option<IpAddr>) {
        let Some(ip) = ip.filter(|ip| !ip.is_loopback()) else { return };
        let is_there = |peer: &Peer<P>| {
            peer.is_connected && peer.score.as_ref().is_some_and(|score| score.ip == Some(ip))
        };
        let count = self.peers.iter().filter(|(_, peer)| is_there(peer)).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        for (_, peer) in self.peers.iter_mut() {
            if let Some(score) = peer.score.as_mut().filter(|score| score.ip == Some(ip)) {
                score.colocated = count;
            }
        }
    }

    fn on_rpc(&mut self, from: P, rpc: Rpc, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(slot) = self.sender(&from, out) else { return };
        // What is answered to the whole frame goes out in one.
        let mut reply = Control::default();
        for subscription in &rpc.subscriptions {
            self.on_subscription(slot, subscription, &mut reply, out);
        }
        for message in &rpc.publish {
            self.on_message(slot, message, out);
        }
        if let Some(control) = rpc.control {
            self.on_control(slot, &control, &mut reply, rng, out);
        }
        // The same frame may have taken back what a GRAFT answers to.
        reply
            .graft
            .retain(|name| self.topics.find(name).is_some_and(|ix| self.topics.get(ix).is_in_mesh(slot)));
        reply.graft.dedup();
        // An UNCHOKE after the GRAFT has the last word.
        let chokes = std::mem::take(&mut reply.choke);
        reply.choke = chokes.iter().filter_map(|choke| self.first_choke(slot, &choke.topic)).collect();
        if !reply.is_empty() {
            self.send(slot, Rpc::of_control(reply), Class::Control, out);
        }
    }

    /// The sender of a frame, if what it says counts.
    fn sender(&mut self, from: &P, out: &mut Outbox<Output<P>>) -> Option<Slot> {
        let Some(slot) = self.peers.find(from).filter(|slot| self.peers.get(*slot).is_connected) else {
            self.stats.unknown_peer += 1;
            return None;
        };
        if self.peers.get(slot).is_shut_out || self.shut_out_if_graylisted(slot, out) {
            self.stats.graylisted += 1;
            return None;
        }
        Some(slot)
    }

    fn on_refused(&mut self, from: P, refused: &[Refused], out: &mut Outbox<Output<P>>) {
        self.stats.refused += refused.len() as u64;
        let Some(slot) = self.sender(&from, out) else { return };
        for refusal in refused {
            let ix = refusal.topic.as_ref().and_then(|topic| self.topics.find(topic));
            let ix = ix.filter(|ix| self.topics.get(*ix).is_subscribed);
            if let Some((score, ix)) = self.peers.get_mut(slot).score.as_mut().zip(ix) {
                score.on_invalid(ix);
            }
        }
        self.shut_out_if_graylisted(slot, out);
    }

    fn on_malformed(&mut self, from: P, out: &mut Outbox<Output<P>>) {
        self.stats.malformed += 1;
        if let Some(slot) = self.sender(&from, out) {
            self.blame(slot, 1.0);
            self.shut_out_if_graylisted(slot, out);
        }
    }

    fn on_app_score(&mut self, peer: P, score: f64) {
        let slot = self.peers.find(&peer);
        if let Some(counters) = slot.and_then(|slot| self.peers.get_mut(slot).score.as_mut()) {
            counters.app = if score.is_finite() { score } else { 0.0 };
        }
    }

    fn on_trial(&mut self, peer: P, until: Time) {
        let slot = self.peers.find(&peer);
        if let Some(score) = slot.and_then(|slot| self.peers.get_mut(slot).score.as_mut()) {
            score.tried_until = until;
        }
    }

    /// It is told of messages only, so that it can show that it brings them.
    fn is_on_trial(&self, slot: Slot) -> bool {
        self.peers.get(slot).score.as_ref().is_some_and(|score| self.now < score.tried_until)
    }

    /// P7: counts offences.
    fn blame(&mut self, slot: Slot, offences: f64) {
        if let Some(score) = &mut self.peers.get_mut(slot).score {
            score.offences += offences;
        }
    }

    fn score_of(&self, slot: Slot) -> f64 {
        let counters = self.peers.get(slot).score.as_ref();
        counters.zip(self.config.score.as_ref()).map_or(0.0, |(counters, config)| {
            counters.total(config, self.now, |ix| Self::topic_score(config, &self.topics, ix))
        })
    }

    fn topic_score<'a>(config: &'a ScoreConfig, topics: &Topics<P>, ix: TopicIx) -> &'a TopicScore {
        let own = topics.get(ix).params.and_then(|at| config.topics.get(usize::from(at)));
        own.map_or(&config.topic, |(_, params)| params)
    }

    fn shut_out_if_graylisted(&mut self, slot: Slot, out: &mut Outbox<Output<P>>) -> bool {
        let threshold =
            self.config.score.as_ref().map_or(f64::NEG_INFINITY, |score| score.graylist_threshold);
        if self.score_of(slot) >= threshold {
            return false;
        }
        self.leave_all_topics(slot, out);
        let peer = self.peers.get_mut(slot);
        peer.is_shut_out = true;
        out.push(Output::Disconnect { peer: peer.name, reason: DisconnectReason::Graylisted });
        true
    }

    /// Sends and counts.
    fn send(&mut self, slot: Slot, mut rpc: Rpc, class: Class, out: &mut Outbox<Output<P>>) {
        let copies = rpc.publish.len() as u64;
        match class {
            Class::Control => {}
            Class::Own => self.stats.copies_sent_own += copies,
            Class::Forwarded => self.stats.copies_sent_forwarded += copies,
        }
        if let Some(control) = &mut rpc.control {
            for topic in &control.graft {
                if !control.choke.iter().any(|choke| choke.topic == *topic) {
                    control.choke.extend(self.first_choke(slot, topic));
                }
            }
            let trees =
                |chokes: &[Choke]| -> u64 { chokes.iter().map(|c| u64::from(c.trees.count_ones())).sum() };
            self.stats.choke_sent += trees(&control.choke);
            self.stats.unchoke_sent += trees(&control.unchoke);
            self.stats.ihave_sent += control.ihave.iter().map(|ihave| ihave.ids.len() as u64).sum::<u64>();
            self.stats.iwant_sent += control.iwant.len() as u64;
            self.stats.graft_sent += control.graft.len() as u64;
            self.stats.prune_sent += control.prune.len() as u64;
            self.stats.idontwant_sent += control.idontwant.len() as u64;
        }
        out.push(Output::Send { to: self.peers.get(slot).name, rpc, class });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million routers with two dozen peers each are to fit into a machine.
    #[test]
    fn what_there_is_many_of_is_small() {
        assert!(size_of::<State<u32>>() <= 512, "{}", size_of::<State<u32>>());
        assert!(size_of::<Option<Peer<u32>>>() <= 72, "{}", size_of::<Option<Peer<u32>>>());
        assert!(size_of::<cache::Entry>() <= 128, "{}", size_of::<cache::Entry>());
        assert!(size_of::<Output<u32>>() <= 128, "{}", size_of::<Output<u32>>());
        assert!(size_of::<Input<u32>>() <= 128, "{}", size_of::<Input<u32>>());
    }
}
