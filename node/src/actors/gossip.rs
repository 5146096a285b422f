//! Gossip: the shell of [`omnimesh_protocol::relay`] (router and validator), with the verification pool.

mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::{Bytes, BytesMut};
use libp2p::PeerId;
use omnimesh_protocol::config::Part;
use omnimesh_protocol::config::budget::AUTHOR_BYTES;
use omnimesh_protocol::envelope::{Channel, Envelope, Kind};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::gossip::{self, Rpc, wire};
use omnimesh_protocol::observer;
use omnimesh_protocol::relay::{self, Unchecked};
use omnimesh_protocol::validate::{self, Unverified, Validator};
use omnimesh_protocol::{Mesh, MessageId, NodeId, Outbox, Seq, Step};
use rand_chacha::ChaCha20Rng;

use super::author::{Answer, BroadcastError, Published};
use super::early::Early;
use super::inbox::Inbox;
use super::observer::Remind;
use super::swarm::Disconnect;
use super::verify::{self, Checked, Verifier};
use super::{Common, MAILBOX, Mailbox, log};
use crate::clock::SharedClock;
use crate::feed::FeedSender;
use crate::memory::Priority;
use crate::message::Message;
use crate::swarm::{Class, Inbound, Outbound};

pub use requests::ChannelPeers;
pub(crate) use requests::{
    AppScore, Begin, GetChannelPeers, GetScores, GetSnapshot, Hearing, PeerDown, PeerUp, Publish, Snapshot,
    Subscribe, Trial,
};

/// Frames below this length are copied. Source: guess, a quarter of the longest buffer that several frames share.
const SHORT_FRAME_BYTES: usize = 16 << 10;
/// What a message for a subscriber takes beside its payload.
const MESSAGE_BYTES: usize = 256;
/// How often the observer is told what the router has counted of its peers.
const CONTRIBUTIONS_EVERY: Duration = Duration::from_secs(5);

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) me: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) gossip: Arc<gossip::Config>,
    /// What a frame that is read may hold.
    pub(crate) read_limits: wire::Limits,
    pub(crate) validate: validate::Config,
    /// See [`omnimesh_protocol::replay::ReplayWindows::new`].
    pub(crate) floor: Option<Step>,
    /// Messages whose signature is to be checked at once; further ones are shed.
    pub(crate) verifying_max: usize,
    /// Signatures checked in one go.
    pub(crate) verify_batch: usize,
    pub(crate) subscriber_queue: usize,
    /// Whether durable messages are taken.
    pub(crate) keeps_log: bool,
    pub(crate) pool: Arc<rayon::ThreadPool>,
}

/// A connected peer that speaks gossip.
#[derive(Clone, Debug)]
struct Link {
    outbound: Outbound,
}

#[derive(Debug)]
pub(crate) struct GossipActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    state: relay::State<PeerId>,
    rng: ChaCha20Rng,
    out: Outbox<relay::Output<PeerId>>,
    step: Option<Step>,
    links: BTreeMap<PeerId, Link>,
    early: Early,
    subscribers: BTreeMap<Channel, Vec<FeedSender<Message>>>,
    /// Who waits for the router to take an own envelope.
    publishing: Option<(Envelope, Vec<Answer>)>,
    inbox: Inbox,
    verifier: Verifier,
    /// The last message that was encoded: it goes to several peers.
    encoded: Option<(MessageId, Bytes)>,
    buffer: BytesMut,
    counters: Counters,
}

/// What this shell itself counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) frames_received: u64,
    /// By reason, as are the next.
    pub(crate) frames_malformed: BTreeMap<&'static str, u64>,
    pub(crate) messages_refused_by_shape: BTreeMap<&'static str, u64>,
    pub(crate) frames_early_shed: u64,
    pub(crate) delivered_payloads: u64,
    pub(crate) published_payloads: u64,
    pub(crate) subscribers_lagged: u64,
    pub(crate) outbound_shed: u64,
}

impl GossipActor {
    pub(crate) fn new(common: Common, settings: Settings, clock: SharedClock) -> Self {
        let mut rng = super::rng();
        let mut out = Outbox::new();
        let state = Self::state(&common, &settings, &mut rng, &mut out);
        let verifier =
            Verifier::new(Arc::clone(&settings.pool), settings.verifying_max, settings.verify_batch);
        GossipActor {
            common,
            settings,
            clock,
            state,
            rng,
            out,
            step: None,
            links: BTreeMap::new(),
            early: Early::default(),
            subscribers: BTreeMap::new(),
            publishing: None,
            inbox: Inbox::default(),
            verifier,
            encoded: None,
            buffer: BytesMut::new(),
            counters: Counters::default(),
        }
    }

    fn state(
        common: &Common,
        settings: &Settings,
        rng: &mut ChaCha20Rng,
        out: &mut Outbox<relay::Output<PeerId>>,
    ) -> relay::State<PeerId> {
        let mut inner = Outbox::new();
        let router = gossip::State::new(Arc::clone(&settings.gossip), common.now(), rng, &mut inner)
            .expect("the node's configuration was checked when it was made");
        for output in inner.drain() {
            out.push(output);
        }
        let validator = Validator::new(settings.mesh.clone(), settings.validate.clone(), settings.floor);
        relay::State::new(settings.me, router, validator)
    }

    fn give(&mut self, ctx: &mut Context<Self>, input: relay::Input<PeerId>) {
        self.give_all(ctx, std::iter::once(input));
    }

    fn give_all(&mut self, ctx: &mut Context<Self>, inputs: impl Iterator<Item = relay::Input<PeerId>>) {
        let common = self.common.clone();
        common.guard("gossip", ctx, || {
            let now = self.common.now();
            let step = self.clock.step_to_judge(now, self.settings.validate.step_window_future);
            if step != self.step {
                self.step = step;
                self.state.handle(now, relay::Input::Step(step), &mut self.rng, &mut self.out);
            }
            for input in inputs {
                self.state.handle(now, input, &mut self.rng, &mut self.out);
            }
        });
        self.carry_out(ctx);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let mut out = std::mem::take(&mut self.out);
        let mut unverified = Vec::new();
        let (mut events, mut noticed) = (Vec::new(), Vec::new());
        for output in out.drain() {
            match output {
                relay::Output::Gossip(output) => self.carry_out_gossip(output, ctx, &mut events),
                relay::Output::Verify { id, message } => unverified.push((id, message)),
                relay::Output::Verified { from, envelope, .. } if envelope.header().kind == Kind::Durable => {
                    noticed.push(observer::Input::Durable { author: envelope.header().author, from });
                    // What a full mailbox sheds, reconciliation brings.
                    if let Some(log) = &self.common.links().log {
                        self.common.send(Mailbox::Log, log, log::Gossiped { from, envelope });
                    }
                }
                relay::Output::Verified { id, from, envelope, is_subscribed } => {
                    events.push(self.deliver(id, from, &envelope, is_subscribed));
                    self.notice_message(envelope, &mut noticed);
                }
                relay::Output::Refused { id, from, channel, author, reason, replayed } => {
                    noticed.extend(replayed.map(|data| observer::Input::Replayed { from, data }));
                    events.push(Event::Refused { id, channel, author, from, reason });
                }
            }
        }
        self.out = out;
        self.common.observe(events);
        self.common.notice(noticed);
        self.verify(unverified, ctx);
    }

    /// Shows an accepted message to the observer, and what is in it if it is for the observer.
    fn notice_message(&self, envelope: Envelope, noticed: &mut Vec<observer::Input<PeerId>>) {
        let author = envelope.header().author;
        if envelope.header().channel.as_str() == observer::accusation::CHANNEL {
            let payloads = envelope.payloads().iter().cloned();
            noticed.extend(payloads.map(|payload| observer::Input::Accused { author, payload }));
        }
        noticed.push(observer::Input::Message(envelope));
    }

    fn carry_out_gossip(
        &mut self,
        output: gossip::Output<PeerId>,
        ctx: &mut Context<Self>,
        events: &mut Vec<Event<PeerId>>,
    ) {
        match output {
            gossip::Output::Send { to, rpc, class } => self.send(to, rpc, class),
            gossip::Output::Timer { at, timer } => {
                ctx.run_later(self.common.until(at), move |actor, ctx| {
                    actor.give(ctx, relay::Input::Gossip(gossip::Input::Timer(timer)));
                });
            }
            gossip::Output::Published { id, recipients } => {
                let Some((envelope, answers)) = self.publishing.take() else { return };
                events.push(self.on_published(id, recipients, &envelope, answers));
            }
            gossip::Output::NotPublished { reason, .. } => {
                let answers = self.publishing.take().map(|(_, answers)| answers).unwrap_or_default();
                for answer in answers {
                    let _ = answer.send(Err(BroadcastError::Router(reason.to_string())));
                }
            }
            gossip::Output::Disconnect { peer, reason } => {
                let (reason, detail) = match reason {
                    gossip::DisconnectReason::Graylisted => ("graylisted", "its gossip score is too low"),
                    gossip::DisconnectReason::TooManyPeers => {
                        ("too_many", "there are as many peers as can be")
                    }
                };
                events.push(Event::PeerRefused { peer, reason, detail: detail.to_owned() });
                self.common.send(Mailbox::Swarm, &self.common.links().swarm, Disconnect(peer));
            }
            gossip::Output::Event(event) => tracing::trace!(?event, "gossip"),
            gossip::Output::Validate { .. } | gossip::Output::CopyOfRefused { .. } => {
                unreachable!("the relay answers these itself")
            }
        }
    }

    fn send(&mut self, to: PeerId, rpc: Rpc, class: gossip::Class) {
        let Some(link) = self.links.get(&to) else { return };
        let class = match class {
            gossip::Class::Control => Class::Control,
            gossip::Class::Own => Class::Own,
            gossip::Class::Forwarded => Class::Forwarded,
        };
        let message = match &rpc.publish[..] {
            [message] if rpc.control.is_none() && rpc.subscriptions.is_empty() => Some(message.id()),
            _ => None,
        };
        if let (Some(id), Some((encoded_id, frame))) = (message, &self.encoded)
            && id == *encoded_id
        {
            self.counters.outbound_shed += u64::from(link.outbound.try_send(class, frame.clone()).is_err());
            return;
        }
        let Self { buffer, counters, encoded, .. } = self;
        let left_out = wire::split(rpc, &self.settings.gossip.limits, |part| {
            wire::encode(&part, buffer);
            let frame = buffer.split().freeze();
            counters.outbound_shed += u64::from(link.outbound.try_send(class, frame.clone()).is_err());
            if let Some(id) = message {
                *encoded = Some((id, frame));
            }
        });
        counters.outbound_shed += left_out as u64;
    }

    fn on_published(
        &mut self,
        id: MessageId,
        recipients: usize,
        envelope: &Envelope,
        answers: Vec<Answer>,
    ) -> Event<PeerId> {
        let header = envelope.header();
        let payloads = envelope.payloads().len();
        self.counters.published_payloads += payloads as u64;
        for (i, answer) in (0..).zip(answers) {
            let published =
                Published { id, seq: header.seq.saturating_add(i), step: header.step, recipients };
            let _ = answer.send(Ok(published));
        }
        Event::Published { id, channel: header.channel.clone(), seq: header.seq, payloads, recipients }
    }

    /// Hands a verified message to the subscribers.
    fn deliver(
        &mut self,
        id: MessageId,
        from: PeerId,
        envelope: &Envelope,
        is_subscribed: bool,
    ) -> Event<PeerId> {
        let header = envelope.header();
        let payloads = envelope.payloads();
        // Each holds its part of the envelope.
        let bytes = MESSAGE_BYTES + envelope.as_bytes().len() / payloads.len().max(1);
        let here_us = self.clock.mesh_time_us(self.common.now());
        let latency_us = header.timestamp_us.zip(here_us).map(|(there, here)| here.saturating_sub(there));
        if let Some(subscribers) = self.subscribers.get_mut(&header.channel) {
            self.counters.delivered_payloads += payloads.len() as u64;
            for (i, payload) in (0..).zip(payloads) {
                let message = Message {
                    id,
                    channel: header.channel.clone(),
                    author: header.author,
                    seq: Seq(header.seq.0.saturating_add(i)),
                    step: header.step,
                    payload: payload.clone(),
                    latency: latency_us.map(Duration::from_micros),
                    from: Some(from),
                };
                subscribers.retain(|subscriber| match subscriber.offer(message.clone(), bytes) {
                    Ok(lost) => {
                        self.counters.subscribers_lagged += lost;
                        true
                    }
                    Err(_) => false,
                });
            }
        }
        Event::Verified {
            id,
            channel: header.channel.clone(),
            author: header.author,
            from,
            step: header.step,
            payloads: payloads.len(),
            latency_us,
            delivered: is_subscribed,
        }
    }

    /// Has signatures checked; what there is no room for is shed.
    fn verify(&mut self, messages: Vec<(MessageId, Unverified)>, ctx: &mut Context<Self>) {
        let shed = self.verifier.offer(messages).into_iter().map(|id| (id, Err(Unchecked::Shed)));
        let lone = self.verifier.begin();
        let is_any = shed.len() > 0 || lone.is_some();
        if is_any {
            let results = shed.chain(lone.map(verify::check));
            self.give_all(ctx, results.map(|(id, result)| relay::Input::Verified { id, result }));
        }
    }

    fn give_all_if_any(
        &mut self,
        ctx: &mut Context<Self>,
        inputs: impl ExactSizeIterator<Item = relay::Input<PeerId>>,
    ) {
        if inputs.len() > 0 {
            self.give_all(ctx, inputs);
        }
    }

    fn on_inbound(&mut self, arrived: &[Inbound], ctx: &mut Context<Self>) {
        let (mut inputs, mut events) = (Vec::with_capacity(arrived.len()), Vec::new());
        for inbound in arrived {
            match inbound {
                Inbound::Frames { peer, frames, .. } if self.links.contains_key(peer) => {
                    self.on_frames(*peer, frames, &mut inputs, &mut events);
                }
                Inbound::Frames { peer, frames, .. } => {
                    self.counters.frames_early_shed += self.early.keep(self.common.now(), *peer, frames);
                }
                Inbound::Malformed { peer: from, reason } => {
                    *self.counters.frames_malformed.entry(reason.code()).or_default() += 1;
                    let (from, reason) = (*from, reason.to_string());
                    events.push(Event::BadFrame { from, stream: "gossip", reason });
                    inputs.push(relay::Input::Gossip(gossip::Input::Malformed { from }));
                }
            }
        }
        self.common.observe(events);
        self.give_all(ctx, inputs.into_iter());
    }

    fn on_frames(
        &mut self,
        from: PeerId,
        frames: &[Bytes],
        inputs: &mut Vec<relay::Input<PeerId>>,
        events: &mut Vec<Event<PeerId>>,
    ) {
        self.counters.frames_received += frames.len() as u64;
        for frame in frames {
            // A short one is a slice of a buffer that may be many times longer; what is in it is kept for long.
            let short = (frame.len() < SHORT_FRAME_BYTES).then(|| Bytes::copy_from_slice(frame));
            match wire::decode(short.as_ref().unwrap_or(frame), &self.settings.read_limits) {
                Ok(wire::Decoded { rpc, refused }) => {
                    if !refused.is_empty() {
                        for refused in &refused {
                            let by_shape = &mut self.counters.messages_refused_by_shape;
                            *by_shape.entry(refused.reason.code()).or_default() += 1;
                        }
                        events.extend(refused.iter().map(|refused| Event::BadFrame {
                            from,
                            stream: "gossip",
                            reason: refused.reason.to_string(),
                        }));
                        inputs.push(relay::Input::Gossip(gossip::Input::Refused { from, refused }));
                    }
                    inputs.push(relay::Input::Gossip(gossip::Input::Rpc { from, rpc }));
                }
                Err(error) => {
                    *self.counters.frames_malformed.entry(error.code()).or_default() += 1;
                    events.push(Event::BadFrame { from, stream: "gossip", reason: error.to_string() });
                    inputs.push(relay::Input::Gossip(gossip::Input::Malformed { from }));
                }
            }
        }
    }

    /// Says what the router and the gates hold.
    fn report_memory(&self) {
        let (memory, router) = (self.common.memory(), self.state.gossip());
        let shed = router.stats().shed_messages + self.verifier.counters().shed;
        memory.part(Part::Cache).report(router.cache_bytes(), Priority::Forwarded, shed);
        let authors = self.state.validator().replay().authors().saturating_mul(AUTHOR_BYTES);
        memory.part(Part::Tables).report(authors, Priority::Forwarded, 0);
    }

    /// The channels of the protocol itself have no subscribers of their own.
    fn subscribe_own(&mut self, ctx: &mut Context<Self>) {
        let log = self.settings.keeps_log.then_some(omnimesh_protocol::log::CHANNEL);
        for name in log.into_iter().chain([observer::accusation::CHANNEL]) {
            let channel = Channel::new(name).expect("a good name");
            self.give(ctx, relay::Input::Subscribe(channel));
        }
    }

    /// Unsubscribes channels whose last subscriber is gone.
    fn forget_gone_subscribers(&mut self, ctx: &mut Context<Self>) {
        let mut quiet = Vec::new();
        self.subscribers.retain(|channel, subscribers| {
            subscribers.retain(|subscriber| !subscriber.is_closed());
            if subscribers.is_empty() {
                quiet.push(channel.clone());
            }
            !subscribers.is_empty()
        });
        self.give_all_if_any(ctx, quiet.into_iter().map(relay::Input::Unsubscribe));
    }
}

impl Actor for GossipActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        // Results first: they make room. Both outlive a restart of the actor.
        ctx.add_stream(self.verifier.results());
        self.inbox.listen(ctx);
        ctx.run_interval(Duration::from_secs(1), |actor, ctx| {
            actor.counters.frames_early_shed += actor.early.forget_old(actor.common.now());
            actor.forget_gone_subscribers(ctx);
            actor.report_memory();
        });
        ctx.run_interval(CONTRIBUTIONS_EVERY, |actor, _| {
            let contributions = actor.state.gossip().contributions().collect();
            actor.common.notice(vec![observer::Input::Contributions(contributions)]);
        });
        if self.common.is_linked() {
            self.carry_out(ctx);
        }
    }
}

impl Supervised for GossipActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        // What the lost windows had accepted cannot be told from what is new.
        let now = self.common.now();
        let future = self.settings.validate.step_window_future;
        self.settings.floor =
            self.clock.step(now).map(|step| step.saturating_add(future)).max(self.settings.floor);
        self.out = Outbox::new();
        self.state = Self::state(&self.common, &self.settings, &mut self.rng, &mut self.out);
        (self.step, self.publishing) = (None, None);
        self.verifier.restart();
        self.carry_out(ctx);
        let channels: Vec<_> = self.subscribers.keys().cloned().map(relay::Input::Subscribe).collect();
        self.give_all_if_any(ctx, channels.into_iter());
        self.subscribe_own(ctx);
        self.common.send(Mailbox::Observer, &self.common.links().observer, Remind);
        // Peers tell their subscriptions when they connect, and only then: connect anew.
        for peer in std::mem::take(&mut self.links).into_keys() {
            self.common.send(Mailbox::Swarm, &self.common.links().swarm, Disconnect(peer));
        }
    }
}

impl StreamHandler<Checked> for GossipActor {
    fn handle(&mut self, checked: Checked, ctx: &mut Self::Context) {
        let results = self.verifier.done(checked).into_iter();
        self.give_all(ctx, results.map(|(id, result)| relay::Input::Verified { id, result }));
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<Inbound>> for GossipActor {
    fn handle(&mut self, arrived: Vec<Inbound>, ctx: &mut Self::Context) {
        self.on_inbound(&arrived, ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
