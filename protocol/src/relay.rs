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
//! A node passes on channels it does not subscribe to: as soon as a neighbour subscribes to a channel of
//! this mesh, the relay joins its topic, so that subscribers reach each other through nodes that do not
//! care. Such channels are bounded in number and left when they have been quiet for a while.
//!
//! Invariants: a message is delivered at most once, and only after its signature was checked and its
//! sequence numbers were committed; every `Verify` gets one verdict, also if the shell sheds it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng;

use crate::envelope::{Channel, Envelope};
use crate::gossip::{self, PeerName, Topic, Verdict};
use crate::id::{MeshId, MessageId, NodeId, Step};
use crate::machine::Outbox;
use crate::refusal::Refusal;
use crate::time::Time;
use crate::validate::{Unverified, Validator, Verified};

/// Channels that are passed on without being subscribed, at most; further ones are not joined. Source: guess.
pub const RELAYED_MAX: usize = 256;
/// How long a relayed channel may be quiet before it is left. Source: guess.
pub const RELAYED_QUIET: Duration = Duration::from_secs(600);

/// What the relay is told. `P` names a connected peer.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "inputs are handled at once, never stored")]
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
    /// The mesh has come to this step; `None` while the node is not synchronised.
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
    /// There was no room to check it; nobody is to blame, and it may come again.
    Shed,
}

/// What the relay wants done.
#[derive(Clone, Debug)]
pub enum Output<P> {
    /// From the router, to be carried out as it says; never [`gossip::Output::Validate`].
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
    /// A message was refused, and counted.
    Refused {
        /// Its id.
        id: MessageId,
        /// The neighbour that brought it.
        from: P,
        /// The channel it came on, if it was one of this mesh.
        channel: Option<Channel>,
        /// Who wrote it, if its tag proves that a member did.
        author: Option<NodeId>,
        /// The gate.
        reason: Refusal,
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
    from: P,
    topic: Topic,
    channel: Channel,
    author: NodeId,
}

/// Why this node is in a channel's topic.
#[derive(Debug, Default)]
struct Joined {
    subscribed: bool,
    last_active: Time,
}

/// The relay's state.
#[derive(Debug)]
pub struct State<P: PeerName> {
    mesh: MeshId,
    gossip: gossip::State<P>,
    validator: Validator,
    now: Option<Step>,
    joined: BTreeMap<Channel, Joined>,
    pending: BTreeMap<MessageId, Pending<P>>,
    inner: Outbox<gossip::Output<P>>,
}

impl<P: PeerName> State<P> {
    /// A relay of a router and a validator that have seen nothing.
    pub fn new(gossip: gossip::State<P>, validator: Validator) -> Self {
        State {
            mesh: validator.mesh().id(),
            gossip,
            validator,
            now: None,
            joined: BTreeMap::new(),
            pending: BTreeMap::new(),
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

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {
        self.gossip.check_invariants();
        let relayed = self.joined.values().filter(|joined| !joined.subscribed).count();
        assert!(relayed <= RELAYED_MAX, "relayed channels are bounded");
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
                        answers.extend(self.on_gossip_event(now, &event).map(gossip::Input::Subscribe));
                        out.push(gossip::Output::Event(event));
                    }
                    output => out.push(output),
                }
            }
            for answer in answers.drain(..) {
                self.gossip.handle(now, answer, rng, &mut inner);
            }
        }
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
        if let Some(joined) = self.joined.get_mut(&channel) {
            joined.last_active = now;
        }
        match self.validator.precheck(self.now, &channel, data) {
            Ok(message) => {
                let author = message.envelope().header().author;
                self.pending.insert(id, Pending { from, topic: topic.clone(), channel, author });
                out.push(Output::Verify { id, message });
                None
            }
            Err((reason, author)) => {
                out.push(Output::Refused { id, from, channel: Some(channel), author, reason });
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
        let Some(Pending { from, topic, channel, author }) = self.pending.remove(&id) else { return };
        let committed = match (result, self.now) {
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
                let is_subscribed = self.joined.get(&channel).is_some_and(|joined| joined.subscribed);
                out.push(Output::Verified { id, from, envelope, is_subscribed });
                Verdict::Accept
            }
            Err(reason) => {
                // A signature that is not the author's says nothing about the author.
                let author = (!reason.is_forwarders_fault()).then_some(author);
                out.push(Output::Refused { id, from, channel: Some(channel), author, reason });
                verdict_of(reason)
            }
        };
        self.route(now, gossip::Input::Verdict { topic, id, verdict }, rng, out);
    }

    fn on_publish(
        &mut self,
        now: Time,
        envelope: &Envelope,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let topic = self.topic(&envelope.header().channel);
        let data = envelope.as_bytes().clone();
        self.route(now, gossip::Input::Publish { topic, data }, rng, out);
    }

    fn on_subscribe(&mut self, now: Time, channel: Channel, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let topic = self.topic(&channel);
        let joined = self.joined.entry(channel).or_default();
        joined.last_active = now;
        if !std::mem::replace(&mut joined.subscribed, true) {
            // Joining twice is nothing to the router.
            self.route(now, gossip::Input::Subscribe(topic), rng, out);
        }
    }

    /// The channel is passed on for a while, like any that others subscribe to.
    fn on_unsubscribe(
        &mut self,
        now: Time,
        channel: &Channel,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(joined) = self.joined.get_mut(channel) else { return };
        (joined.subscribed, joined.last_active) = (false, now);
        if self.relayed() > RELAYED_MAX {
            self.leave(now, &channel.clone(), rng, out);
        }
    }

    fn on_step(&mut self, now: Time, step: Option<Step>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.now = step;
        let is_quiet = |joined: &Joined| !joined.subscribed && now.since(joined.last_active) > RELAYED_QUIET;
        let quiet: Vec<Channel> = self
            .joined
            .iter()
            .filter(|(_, joined)| is_quiet(joined))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in quiet {
            self.leave(now, &channel, rng, out);
        }
    }

    fn leave(&mut self, now: Time, channel: &Channel, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.joined.remove(channel);
        self.route(now, gossip::Input::Unsubscribe(self.topic(channel)), rng, out);
    }

    /// The topic to join because a neighbour did.
    fn on_gossip_event(&mut self, now: Time, event: &gossip::Event<P>) -> Option<Topic> {
        let gossip::Event::PeerSubscribed { topic, .. } = event else { return None };
        let channel = Channel::from_topic(topic.as_str(), &self.mesh)?;
        if self.joined.contains_key(&channel) || self.relayed() >= RELAYED_MAX {
            return None;
        }
        self.joined.insert(channel, Joined { subscribed: false, last_active: now });
        Some(topic.clone())
    }

    fn relayed(&self) -> usize {
        self.joined.values().filter(|joined| !joined.subscribed).count()
    }

    fn topic(&self, channel: &Channel) -> Topic {
        Topic::new(&channel.topic(&self.mesh)).expect("a channel's topic is shorter than the longest topic")
    }
}

/// What the router is to do about a refused message: blame those who brought it, or nobody.
fn verdict_of(reason: Refusal) -> Verdict {
    if reason.is_forwarders_fault() { Verdict::Reject } else { Verdict::Ignore }
}
