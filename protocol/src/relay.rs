//! The relay: the life of a message, from a neighbour's frame to subscribers and on to other neighbours.
//!
//! It is the parent of two machines that know nothing of each other: the gossip router, which moves bytes,
//! and the validator, which judges them.
//!
//! ```text
//!  Rpc ─► gossip ─► Validate ─► precheck ──ok──► Verify ─► (any thread) ─► Verified ─► commit ─► Deliver
//!            ▲                     │                                        │            │
//!            └── verdict ◄─────────┴── refused ◄────────────────────────────┴────────────┤
//!            └── Accept: forwarded to the mesh ◄─────────────────────────────────────────┘
//!  Publish(own envelope) ─► gossip ─► Send
//! ```
//!
//! **Relayed channels.** A node passes on channels it does not subscribe to: as soon as a neighbour
//! subscribes to a channel of this mesh, the relay joins its topic, so that subscribers reach each other
//! through nodes that do not care. A relay looks like a subscriber to its neighbours, so two relays keep
//! each other in a topic that nobody subscribes to any more. A channel in which nothing was verified for
//! [`RELAYED_QUIET`] is therefore left when no neighbour is in it, or when another channel wants its
//! place; not earlier, or rare messages of a quiet channel would find no way. One neighbour can have at
//! most [`RELAYED_PER_PEER_MAX`] channels relayed, all together [`RELAYED_MAX`]; a channel that found no
//! place is not joined until a neighbour subscribes to it again.
//!
//! **Own messages.** What this node published never comes back to its own subscribers. The router knows
//! its own messages for a while; one that a peer sends again later is a [`Refusal::Replay`], because own
//! sequence numbers are not in the replay windows. So is anything else signed with this node's key: a node
//! does not hear itself. The channel [`log::CHANNEL`] is the exception: it carries the durable messages of all
//! categories, and an own one may be news to a node that has lost it.
//!
//! **Inputs and outputs.** [`Input`], [`Output`]. The shell has signatures checked and answers each
//! [`Output::Verify`] with [`Input::Verified`], at any time later.
//!
//! **Invariants** ([`State::check_invariants`]). A message is delivered at most once, and only after its
//! signature was checked and its sequence numbers were committed. Every `Verify` gets one verdict, also if
//! the shell sheds it, unless the router has given the message up before. No message is being checked
//! twice at a time, and at most [`gossip::Config::validating_max`] are: a shell with so much room never
//! sheds.
//!
//! **What it does not do.** It keeps no subscribers and checks no signature; it does not remember
//! which channels of its neighbours it did not join.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use rand_core::Rng;

use crate::envelope::{Channel, Envelope};
use crate::gossip::{self, PeerName, Topic, Verdict};
use crate::id::{MeshId, MessageId, NodeId, Step};
use crate::log;
use crate::machine::Outbox;
use crate::refusal::Refusal;
use crate::time::Time;
use crate::validate::{Unverified, Validator, Verified};

/// Channels that are passed on without being subscribed, at most; further ones are not joined. Source: guess.
pub const RELAYED_MAX: usize = 256;
/// Channels that are passed on because one neighbour subscribed, at most: half, so that none takes all places.
/// Source: guess.
pub const RELAYED_PER_PEER_MAX: usize = RELAYED_MAX / 2;
/// How long nothing was verified in a relayed channel before it may be left. Source: guess.
pub const RELAYED_QUIET: Duration = Duration::from_secs(600);

/// Refused messages of which it is remembered why, for a few seconds at most. Source: guess; under more junk than that, who
/// brings copies of the rest goes unblamed.
const REFUSED_MAX: usize = 1024;

/// Outputs of the router for which there is room between two inputs; more cost memory in each of a million nodes.
const INNER_ROOM: usize = 4;

/// What the relay is told. `P` names a connected peer.
#[derive(Clone, Debug)]
pub enum Input<P> {
    /// For the router: connections, frames, scores, timers.
    Gossip(gossip::Input<P>),
    /// This node wants the channel's messages.
    Subscribe(Channel),
    /// This node no longer wants them.
    Unsubscribe(Channel),
    /// Say this; it was sealed by this node's author.
    Publish(Envelope),
    /// The shell has checked a signature, or could not.
    Verified {
        /// The message.
        id: MessageId,
        /// What came of it.
        result: Result<Verified, Unchecked>,
    },
    /// The mesh has come to this step; `None` while the node is not synchronised. A step lower than before
    /// counts as the highest so far: what was stale stays stale, or it could be accepted twice.
    Step(Option<Step>),
    /// Listen to this author no longer.
    Quarantine(NodeId),
    /// Listen to this author again.
    Lift(NodeId),
}

/// Why a signature was not found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchecked {
    /// It is bad.
    Refused(Refusal),
    /// There was no room to check it; nobody is to blame. While the router remembers it as seen
    /// ([`gossip::Config::seen_ttl`]), it does not come again.
    Shed,
}

/// What the relay wants done.
#[derive(Clone, Debug)]
pub enum Output<P> {
    /// From the router, to be carried out as it says; never [`gossip::Output::Validate`] or [`gossip::Output::CopyOfRefused`].
    Gossip(gossip::Output<P>),
    /// Check this signature, on any thread, and say what came of it.
    Verify {
        /// The message.
        id: MessageId,
        /// What to check.
        message: Unverified,
    },
    /// A verified message.
    Verified {
        /// Its id.
        id: MessageId,
        /// The neighbour that brought it.
        from: P,
        /// The message.
        envelope: Envelope,
        /// True if this node subscribes to the channel.
        is_subscribed: bool,
    },
    /// A message was refused, and counted. Told once of each neighbour that brings it while it is remembered, unless this
    /// node itself is why it was refused.
    Refused {
        /// Its id.
        id: MessageId,
        /// A neighbour that brought it.
        from: P,
        /// The channel it came on, if it was one of this mesh.
        channel: Option<Channel>,
        /// Who wrote it, if its tag proves that a member did.
        author: Option<NodeId>,
        /// The gate.
        reason: Refusal,
        /// The message, if its number was used before: its author may contradict itself.
        replayed: Option<Bytes>,
    },
}

impl<P> From<gossip::Output<P>> for Output<P> {
    fn from(output: gossip::Output<P>) -> Self {
        Output::Gossip(output)
    }
}

/// A message whose signature is being checked.
#[derive(Debug)]
struct Pending<P> {
    since: Time,
    from: P,
    topic: Topic,
    channel: Channel,
    author: NodeId,
}

/// What is remembered of a message that was refused.
#[derive(Debug)]
struct Refused {
    channel: Channel,
    author: Option<NodeId>,
    reason: Refusal,
}

/// Why this node is in a channel's topic.
#[derive(Debug)]
struct Joined<P> {
    subscribed: bool,
    /// If not subscribed: the neighbour whose subscription made this node join.
    relayed_for: Option<P>,
    /// When a message was verified or published last, or the channel joined.
    last_active: Time,
}

impl<P> Joined<P> {
    fn is_quiet(&self, now: Time) -> bool {
        !self.subscribed && now.since(self.last_active) > RELAYED_QUIET
    }
}

/// The relay's state.
#[derive(Debug)]
pub struct State<P: PeerName> {
    me: NodeId,
    mesh: MeshId,
    gossip: gossip::State<P>,
    validator: Validator,
    now: Option<Step>,
    highest: Step,
    joined: BTreeMap<Channel, Joined<P>>,
    pending: BTreeMap<MessageId, Pending<P>>,
    /// Why the last messages were refused, for those who bring copies. REFUSED_MAX at most, without room kept for them: most nodes
    /// refuse nothing.
    refused: LruCache<MessageId, Refused>,
    inner: Outbox<gossip::Output<P>>,
}

impl<P: PeerName> State<P> {
    /// The relay of node `me`, of a router and a validator that have seen nothing.
    pub fn new(me: NodeId, gossip: gossip::State<P>, validator: Validator) -> Self {
        State {
            me,
            mesh: validator.mesh().id(),
            gossip,
            validator,
            now: None,
            highest: Step(0),
            joined: BTreeMap::new(),
            pending: BTreeMap::new(),
            refused: LruCache::unbounded(),
            inner: Outbox::new(),
        }
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        match input {
            Input::Gossip(input) => self.route(now, input, rng, out),
            Input::Subscribe(channel) => self.on_subscribe(now, channel, rng, out),
            Input::Unsubscribe(channel) => self.on_unsubscribe(now, &channel, rng, out),
            Input::Publish(envelope) => self.on_publish(now, &envelope, rng, out),
            Input::Verified { id, result } => self.on_verified(now, id, result, rng, out),
            Input::Step(step) => self.on_step(now, step, rng, out),
            Input::Quarantine(author) => self.validator.quarantine(author),
            Input::Lift(author) => {
                self.validator.lift(&author);
            }
        }
    }

    /// The router, to look at.
    pub fn gossip(&self) -> &gossip::State<P> {
        &self.gossip
    }

    /// The validator, to look at.
    pub fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Messages whose signature is being checked.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Channels this node subscribes to.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Channel> {
        self.joined.iter().filter(|(_, joined)| joined.subscribed).map(|(channel, _)| channel)
    }

    /// Channels that this node passes on without subscribing.
    pub fn relayed(&self) -> impl Iterator<Item = &Channel> {
        self.joined.iter().filter(|(_, joined)| !joined.subscribed).map(|(channel, _)| channel)
    }

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {
        self.gossip.check_invariants();
        assert!(self.relayed().count() <= RELAYED_MAX, "relayed channels are bounded");
        for joined in self.joined.values() {
            assert!(!joined.subscribed || joined.relayed_for.is_none(), "subscribed or relayed for a peer");
            if let Some(peer) = joined.relayed_for {
                assert!(self.relayed_for(peer) <= RELAYED_PER_PEER_MAX, "one peer does not take all places");
            }
        }
        let topics: Vec<Topic> = self.joined.keys().map(|channel| self.topic(channel)).collect();
        assert_eq!(self.gossip.topics(), topics, "the router is in the joined channels and no others");
        assert!(self.pending.len() <= self.gossip.config().validating_max, "pending messages are bounded");
        assert!(self.refused.len() <= REFUSED_MAX, "what is remembered of refused messages is bounded");
    }

    /// Gives the router an input and works off what it answers, until it asks for nothing of the relay.
    fn route(&mut self, now: Time, input: gossip::Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let mut inner = std::mem::take(&mut self.inner);
        let mut answers = Vec::new();
        self.gossip.handle(now, input, rng, &mut inner);
        // Answers make the router speak again, but each message is judged once and each topic joined once,
        // so this ends.
        while !inner.is_empty() {
            for output in inner.drain() {
                match output {
                    gossip::Output::Validate { from, id, topic, data } => {
                        let verdict = self.on_validate(now, from, id, &topic, &data, out);
                        answers.extend(verdict.map(|verdict| gossip::Input::Verdict { topic, id, verdict }));
                    }
                    gossip::Output::Event(event) => {
                        if let gossip::Event::PeerSubscribed { peer, topic } = &event {
                            self.on_peer_subscribed(now, *peer, topic, &mut answers);
                        }
                        out.push(gossip::Output::Event(event));
                    }
                    gossip::Output::CopyOfRefused { from, id } => {
                        if let Some(Refused { channel, author, reason }) = self.refused.peek(&id) {
                            let (channel, author, reason) = (Some(channel.clone()), *author, *reason);
                            out.push(Output::Refused { id, from, channel, author, reason, replayed: None });
                        }
                    }
                    output => out.push(output),
                }
            }
            for answer in answers.drain(..) {
                self.gossip.handle(now, answer, rng, &mut inner);
            }
        }
        inner.shrink_to(INNER_ROOM);
        self.inner = inner;
    }

    /// The cheap gates; a verdict if they settle it.
    fn on_validate(
        &mut self,
        now: Time,
        from: P,
        id: MessageId,
        topic: &Topic,
        data: &Bytes,
        out: &mut Outbox<Output<P>>,
    ) -> Option<Verdict> {
        let Some(channel) = Channel::from_topic(topic.as_str(), &self.mesh) else {
            // Only topics of this mesh are joined, so the router asks about no other.
            return Some(Verdict::Ignore);
        };
        match self.validator.precheck(self.now, &channel, data) {
            // The router had given it up and forgotten it: the answer under way counts for this one.
            Ok(_) if self.pending.contains_key(&id) => None,
            Ok(message) => {
                self.make_room();
                let author = message.envelope().header().author;
                let pending = Pending { since: now, from, topic: topic.clone(), channel, author };
                self.pending.insert(id, pending);
                out.push(Output::Verify { id, message });
                None
            }
            Err((reason, author)) => {
                let replayed = (reason == Refusal::Replay).then(|| data.clone());
                self.refuse((id, from), Refused { channel, author, reason }, replayed, out);
                Some(verdict_of(reason))
            }
        }
    }

    fn on_verified(
        &mut self,
        now: Time,
        id: MessageId,
        result: Result<Verified, Unchecked>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(Pending { from, topic, channel, author, .. }) = self.pending.remove(&id) else { return };
        // Of two messages with one number that are checked at the same time, the second is found out here.
        let data = result.as_ref().ok().map(|verified| verified.as_bytes().clone());
        let committed = match (result, self.now) {
            // An own record may be one that this node has lost.
            (Ok(_), _) if author == self.me && channel.as_str() != log::CHANNEL => {
                Err(self.validator.refuse(Refusal::Replay))
            }
            (Ok(verified), Some(step)) => self.validator.commit(step, verified),
            (Ok(_), None) => Err(self.validator.refuse(Refusal::NotSynchronised)),
            (Err(Unchecked::Refused(reason)), _) => Err(self.validator.refuse(reason)),
            (Err(Unchecked::Shed), _) => {
                self.route(now, gossip::Input::Verdict { topic, id, verdict: Verdict::Ignore }, rng, out);
                return;
            }
        };
        let verdict = match committed {
            Ok(envelope) => {
                let is_subscribed = self.note_activity(now, &channel);
                out.push(Output::Verified { id, from, envelope, is_subscribed });
                Verdict::Accept
            }
            Err(reason) => {
                // A signature that is not the author's says nothing about the author.
                let author = (!reason.is_forwarders_fault()).then_some(author);
                let replayed = data.filter(|_| reason == Refusal::Replay);
                self.refuse((id, from), Refused { channel, author, reason }, replayed, out);
                verdict_of(reason)
            }
        };
        self.route(now, gossip::Input::Verdict { topic, id, verdict }, rng, out);
    }

    fn refuse(
        &mut self,
        (id, from): (MessageId, P),
        refused: Refused,
        replayed: Option<Bytes>,
        out: &mut Outbox<Output<P>>,
    ) {
        let (channel, author, reason) = (Some(refused.channel.clone()), refused.author, refused.reason);
        out.push(Output::Refused { id, from, channel, author, reason, replayed });
        // Nobody is to blame for what this node could not judge, nor for passing on whom this node alone may have shut out.
        if !matches!(reason, Refusal::NotSynchronised | Refusal::NotProvablyNew | Refusal::Quarantined) {
            self.refused.push(id, refused);
            if self.refused.len() > REFUSED_MAX {
                self.refused.pop_lru();
            }
        }
    }

    fn on_publish(
        &mut self,
        now: Time,
        envelope: &Envelope,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let channel = envelope.header().gossiped_on();
        self.note_activity(now, &channel);
        let topic = self.topic(&channel);
        let data = envelope.as_bytes().clone();
        self.route(now, gossip::Input::Publish { topic, data }, rng, out);
    }

    fn on_subscribe(&mut self, now: Time, channel: Channel, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let topic = self.topic(&channel);
        self.joined.insert(channel, Joined { subscribed: true, relayed_for: None, last_active: now });
        // Joining twice is nothing to the router.
        self.route(now, gossip::Input::Subscribe(topic), rng, out);
    }

    /// The channel is passed on for a while, like any that others subscribe to.
    fn on_unsubscribe(
        &mut self,
        now: Time,
        channel: &Channel,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(joined) = self.joined.get_mut(channel).filter(|joined| joined.subscribed) else { return };
        (joined.subscribed, joined.last_active) = (false, now);
        if self.relayed().count() > RELAYED_MAX {
            self.leave(now, channel, rng, out);
        }
    }

    fn on_step(&mut self, now: Time, step: Option<Step>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.highest = step.map_or(self.highest, |step| step.max(self.highest));
        self.now = step.map(|_| self.highest);
        let quiet = self.joined.iter().filter(|(_, joined)| joined.is_quiet(now));
        let is_lonely = |channel: &Channel| self.gossip.topic_peers(&self.topic(channel)).is_empty();
        let of_no_use: Vec<Channel> = quiet.map(|(channel, _)| channel.clone()).filter(is_lonely).collect();
        for channel in of_no_use {
            self.leave(now, &channel, rng, out);
        }
    }

    fn leave(&mut self, now: Time, channel: &Channel, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.joined.remove(channel);
        self.route(now, gossip::Input::Unsubscribe(self.topic(channel)), rng, out);
    }

    /// Joins the topic because a neighbour did; leaves another for it if need be.
    fn on_peer_subscribed(&mut self, now: Time, peer: P, topic: &Topic, answers: &mut Vec<gossip::Input<P>>) {
        let Some(channel) = Channel::from_topic(topic.as_str(), &self.mesh) else { return };
        if self.joined.contains_key(&channel) || self.relayed_for(peer) >= RELAYED_PER_PEER_MAX {
            return;
        }
        if self.relayed().count() >= RELAYED_MAX {
            let quiet = self.joined.iter().filter(|(_, joined)| joined.is_quiet(now));
            let quietest =
                quiet.min_by_key(|(_, joined)| joined.last_active).map(|(channel, _)| channel.clone());
            let Some(quietest) = quietest else { return };
            self.joined.remove(&quietest);
            answers.push(gossip::Input::Unsubscribe(self.topic(&quietest)));
        }
        self.joined.insert(channel, Joined { subscribed: false, relayed_for: Some(peer), last_active: now });
        answers.push(gossip::Input::Subscribe(topic.clone()));
    }

    fn relayed_for(&self, peer: P) -> usize {
        self.joined.values().filter(|joined| joined.relayed_for == Some(peer)).count()
    }

    /// Notes that something true was said in a channel; says whether this node subscribes to it.
    fn note_activity(&mut self, now: Time, channel: &Channel) -> bool {
        self.joined.get_mut(channel).is_some_and(|joined| {
            joined.last_active = now;
            joined.subscribed
        })
    }

    /// Sees that one more message can be checked.
    fn make_room(&mut self) {
        while self.pending.len() >= self.gossip.config().validating_max {
            // The router holds fewer, so it has given up some: the oldest. Nobody waits for their verdict.
            let oldest = self.pending.iter().min_by_key(|(_, pending)| pending.since).map(|(id, _)| *id);
            oldest.map(|id| self.pending.remove(&id));
        }
    }

    fn topic(&self, channel: &Channel) -> Topic {
        Topic::new(&channel.topic(&self.mesh)).expect("a channel's topic is shorter than the longest topic")
    }
}

/// What the router is to do about a refused message: blame those who brought it, or nobody.
fn verdict_of(reason: Refusal) -> Verdict {
    if reason.is_forwarders_fault() { Verdict::Reject } else { Verdict::Ignore }
}
