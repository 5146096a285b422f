//! The observer of a simulated node: what it is told, and how what it wants is carried out, as in the node.
//!
//! ```text
//!  relay: verified, refused, published ─┐
//!  step: skew, clocks                   ├─► observer::State ─► AppScore ─► router
//!  membership: who is gone, health      │                  ─► Quarantine ─► validator, log; the connection ends
//!  connections; every 5 s: what peers   │                  ─► Publish ─► an envelope on _evidence
//!  have brought, sizes, proofs of logs ─┘                  ─► Found, Quarantine ─► the record of the run
//! ```
//!
//! Peers are named by their keys, as the machine wants to know them. What it keeps over a restart is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Kind};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::gossip::Contribution;
use omnimesh_protocol::membership::Counts;
use omnimesh_protocol::observer::detect::drift::Reading;
use omnimesh_protocol::observer::detect::{equivocation, flood};
use omnimesh_protocol::observer::statistics::Rate;
use omnimesh_protocol::observer::{
    self, AnomalyKind, Finding, Input, MonitorInput, Output, Severity, accusation,
};
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::{MessageId, NodeId, Outbox, gossip, log, relay};

use super::node::{Ctx, Node, Timer};
use super::random::mix;
use super::shared::Shared;

/// How often the router's counts, the sizes of the surroundings and the proofs of the log are looked at: as in the node.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Stories of messages that one node remembers. Nobody asks for them here, and a thousand nodes share a machine.
const STORIES_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// What one node keeps of messages to hold others against: some 2,000 of the usual size.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The observer's machine in a process.
#[derive(Debug)]
pub(super) struct ObserverPart {
    state: observer::State<NodeId>,
    /// Authors whose proof it was shown.
    shown: BTreeSet<NodeId>,
    health: u8,
    /// Of peers that misbehave: messages that came while they were in the mesh, as the router counted them last.
    expected: BTreeMap<u32, u64>,
}

/// What observers need that is the same for all.
#[derive(Debug)]
pub(super) struct ObserverSettings {
    pub(super) config: observer::Config,
    pub(super) channel: Channel,
}

impl ObserverPart {
    pub(super) fn check_invariants(&self) {
        self.state.check_invariants();
    }
}

impl ObserverSettings {
    pub(super) fn new(of_scenario: &crate::scenario::Observer) -> Self {
        let mut flood = flood::Config::default();
        if let Some(per_second) = of_scenario.flood_per_s {
            flood.author = Rate::per_second(per_second, per_second.saturating_mul(2));
        }
        let ignored = of_scenario.ignore.iter().copied().collect();
        let config = observer::Config {
            messages_max: STORIES_MAX,
            equivocation: equivocation::Config { bytes_max: KEPT_BYTES_MAX },
            ignored,
            flood,
            ..observer::Config::default()
        };
        ObserverSettings { config, channel: Channel::new(accusation::CHANNEL).expect("a good name") }
    }
}

/// What an observer keeps on disk.
pub(super) type Saved = BTreeMap<Bytes, Bytes>;

impl Node {
    /// Starts the observer of a new process.
    pub(super) fn start_observer(&mut self, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let Some(settings) = &shared.observer else { return };
        let start = observer::Start {
            identity: shared.identity(ctx.me),
            mesh: shared.mesh.clone(),
            phase_interval: shared.validate.phase_interval,
            message_bytes_max: shared.validate.message_bytes_max,
            step_interval: shared.scenario.network.step_interval,
            node_of: |peer| Some(*peer),
            saved: self
                .saved
                .iter()
                .flat_map(|saved| saved.iter())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        };
        let now = self.local(ctx.now);
        let mut out = Outbox::new();
        let state = observer::State::new(settings.config.clone(), start, now, &mut out);
        if let Some(machines) = &mut self.machines {
            machines.observer = Some(Box::new(ObserverPart {
                state,
                shown: BTreeSet::new(),
                health: 0,
                expected: BTreeMap::new(),
            }));
        }
        for output in out.drain() {
            self.on_observer_output(output, ctx);
        }
        self.relay(relay::Input::Subscribe(settings.channel.clone()), ctx);
        self.set_timer(now + LOOK_EVERY, Timer::Look);
    }

    pub(super) fn is_observed(&self) -> bool {
        self.machines.as_ref().is_some_and(|machines| machines.observer.is_some())
    }

    /// Tells the observer something.
    pub(super) fn observe(&mut self, input: Input<NodeId>, ctx: &mut Ctx<'_>) {
        let now = self.local(ctx.now);
        let step = self.mesh_step(ctx);
        let Some(machines) = &mut self.machines else { return };
        let Some(part) = &mut machines.observer else { return };
        let mut out = Outbox::new();
        if let Some(step) = step.filter(|step| part.state.step() != Some(*step)) {
            part.state.handle(now, Input::Step(step), &mut self.rng, &mut out);
        }
        part.state.handle(now, input, &mut self.rng, &mut out);
        for output in out.drain() {
            self.on_observer_output(output, ctx);
        }
    }

    fn observe_event(&mut self, event: Event<NodeId>, ctx: &mut Ctx<'_>) {
        let step = self.mesh_step(ctx).unwrap_or_default();
        self.observe(Input::Event(step, event), ctx);
    }

    /// A message was verified.
    pub(super) fn observe_verified(
        &mut self,
        id: MessageId,
        from: u32,
        envelope: &Envelope,
        delivered: bool,
        ctx: &mut Ctx<'_>,
    ) {
        if !self.is_observed() {
            return;
        }
        let (header, from) = (envelope.header(), ctx.shared.id(from));
        let author = header.author;
        if header.kind == Kind::Durable {
            return self.observe(Input::Durable { author, from }, ctx);
        }
        let here_us = self.mesh_time(ctx.now, ctx.shared).map(|ns| ns / 1_000);
        let latency_us = header.timestamp_us.zip(here_us).map(|(there, here)| here.saturating_sub(there));
        let payloads = envelope.payloads().len();
        let (channel, step) = (header.channel.clone(), header.step);
        let is_evidence = channel.as_str() == accusation::CHANNEL;
        let event = Event::Verified { id, channel, author, from, step, payloads, latency_us, delivered };
        self.observe_event(event, ctx);
        if is_evidence {
            for payload in envelope.payloads() {
                self.observe(Input::Accused { author, payload: payload.clone() }, ctx);
            }
        }
        self.observe(Input::Message(envelope.clone()), ctx);
    }

    /// A message was refused.
    pub(super) fn observe_refused(
        &mut self,
        (id, from, reason): (MessageId, u32, Refusal),
        channel: Option<Channel>,
        author: Option<NodeId>,
        replayed: Option<Bytes>,
        ctx: &mut Ctx<'_>,
    ) {
        if !self.is_observed() {
            return;
        }
        let from = ctx.shared.id(from);
        if let Some(data) = replayed {
            self.observe(Input::Replayed { from, data }, ctx);
        }
        self.observe_event(Event::Refused { id, channel, author, from, reason }, ctx);
    }

    /// An own message was published.
    pub(super) fn observe_published(&mut self, envelope: &Envelope, recipients: usize, ctx: &mut Ctx<'_>) {
        if !self.is_observed() {
            return;
        }
        let header = envelope.header();
        let (channel, seq, payloads) = (header.channel.clone(), header.seq, envelope.payloads().len());
        let event = Event::Published { id: envelope.id(), channel, seq, payloads, recipients };
        self.observe_event(event, ctx);
    }

    /// A round of step synchronisation is over.
    pub(super) fn observe_clocks(&mut self, skew_ns: u64, ctx: &mut Ctx<'_>) {
        if !self.is_observed() {
            return;
        }
        let readings = self.readings(ctx);
        self.observe(Input::Skew(Some(Duration::from_nanos(skew_ns))), ctx);
        self.observe(Input::Clocks(readings), ctx);
    }

    /// What the clocks of peers said in the last round, against the own.
    fn readings(&self, ctx: &Ctx<'_>) -> Vec<Reading<NodeId>> {
        let now = self.local(ctx.now);
        let Some(sync) = self.machines.as_ref().and_then(|machines| machines.sync.as_ref()) else {
            return Vec::new();
        };
        let Some(own) = sync.mesh_time(now) else { return Vec::new() };
        let round = ctx.shared.step.round_interval;
        let reading = |(peer, claim): (u32, omnimesh_protocol::step::Claim)| {
            let half_ns = u64::try_from((claim.rtt / 2).as_nanos()).unwrap_or(u64::MAX);
            let passed_ns = u64::try_from(now.since(claim.at).as_nanos()).unwrap_or(u64::MAX);
            let theirs = i128::from(claim.mesh_time_ns) + i128::from(passed_ns) + i128::from(half_ns);
            let ahead_ns = (theirs - i128::from(own)).clamp(i64::MIN.into(), i64::MAX.into());
            Reading {
                peer: ctx.shared.id(peer),
                ahead_ns: i64::try_from(ahead_ns).unwrap_or(0),
                error_ns: half_ns,
            }
        };
        sync.claims().filter(|(_, claim)| now.since(claim.at) <= round).map(reading).collect()
    }

    /// A member has come, gone, or is suspected.
    pub(super) fn observe_member(&mut self, member: NodeId, state: &'static str, ctx: &mut Ctx<'_>) {
        self.observe_event(Event::Member { member, state }, ctx);
    }

    /// The health that the membership protocol gives this node.
    pub(super) fn observe_health(&mut self, health: u8, ctx: &mut Ctx<'_>) {
        let Some(part) = self.machines.as_mut().and_then(|machines| machines.observer.as_mut()) else {
            return;
        };
        if std::mem::replace(&mut part.health, health) != health {
            self.observe(Input::Health(health), ctx);
        }
    }

    /// Looks at what nobody tells by itself.
    pub(super) fn look_around(&mut self, ctx: &mut Ctx<'_>) {
        let now = self.local(ctx.now);
        self.set_timer(now + LOOK_EVERY, Timer::Look);
        let Some(machines) = &self.machines else { return };
        let gossip = machines.relay.gossip();
        let peers = self.ends.iter().filter(|end| end.is_up).count();
        let expected = gossip.contributions().map(|of| (of.peer, of.expected)).collect();
        let contributions = gossip
            .contributions()
            .map(|Contribution { peer, copies, told, expected }| Contribution {
                peer: ctx.shared.id(peer),
                copies,
                told,
                expected,
            })
            .collect();
        let counts = machines.membership.as_ref().map(|membership| membership.counts());
        // Without membership, what it would know.
        let nodes = ctx.shared.scenario.network.nodes as usize;
        let counts = counts.unwrap_or_else(|| Counts { alive: nodes, ..Counts::default() });
        let degree = ctx.shared.gossip.mesh_degree;
        let sizes = MonitorInput::new(&counts, peers, degree, self.mesh_step(ctx).is_some());
        self.observe(Input::Sizes(sizes), ctx);
        if machines_without_clock(ctx.shared) {
            self.observe(Input::Skew(Some(Duration::ZERO)), ctx);
        }
        self.observe(Input::Contributions(contributions), ctx);
        self.note_neighbours(expected, ctx);
        for proof in self.new_proofs() {
            self.observe(Input::Proof(proof), ctx);
        }
    }

    /// Writes down for how long those who misbehave were in the mesh of this node.
    fn note_neighbours(&mut self, expected: Vec<(u32, u64)>, ctx: &mut Ctx<'_>) {
        let part = self.machines.as_mut().and_then(|machines| machines.observer.as_mut());
        let Some(part) = part.filter(|_| !ctx.shared.dishonest.contains(ctx.me)) else { return };
        for (peer, expected) in expected {
            let Some(from) = ctx.shared.withholds_from(peer, ctx.me) else { continue };
            let before =
                part.expected.insert(peer, expected).filter(|before| *before <= expected).unwrap_or(0);
            if ctx.now >= from && expected > before {
                *ctx.sink.record.shown.entry((peer, ctx.me)).or_default() += 1;
            }
        }
    }

    /// Proofs that authors have forked their logs, of which the observer has not heard.
    fn new_proofs(&mut self) -> Vec<log::Proof> {
        let authors: Vec<NodeId> =
            self.store().into_iter().flat_map(|store| store.logs().map(|(author, _)| *author)).collect();
        let Some(machines) = &mut self.machines else { return Vec::new() };
        let (Some(part), Some(log)) = (&mut machines.observer, &machines.log) else { return Vec::new() };
        let proofs = authors.iter().filter_map(|author| log.state().proof(author));
        proofs.filter(|proof| part.shown.insert(proof.author())).cloned().collect()
    }

    fn on_observer_output(&mut self, output: Output<NodeId>, ctx: &mut Ctx<'_>) {
        match output {
            Output::Timer { at, timer } => self.set_timer(at, Timer::Observer(timer)),
            Output::Found(finding) => self.on_finding(&finding, ctx),
            Output::Quarantine { node, .. } => {
                self.set_trace(word_of(&node) ^ 0x5175);
                if let Some(whom) = ctx.shared.find(&node)
                    && !ctx.shared.dishonest.contains(ctx.me)
                {
                    ctx.sink.record.convicted.push((ctx.me, whom, ctx.now));
                }
                self.relay(relay::Input::Quarantine(node), ctx);
                self.log_if_any(log::Input::Quarantine(node), ctx);
                self.hang_up_on(&node, ctx);
            }
            Output::Release { node, .. } => {
                self.relay(relay::Input::Lift(node), ctx);
                self.log_if_any(log::Input::Lift(node), ctx);
            }
            Output::Refuse { peer, .. } => {
                ctx.sink.record.connections_refused += 1;
                self.hang_up_on(&peer, ctx);
            }
            Output::AppScore { peer, score } => {
                self.set_trace(score.to_bits());
                if let Some(peer) = ctx.shared.find(&peer) {
                    self.relay(relay::Input::Gossip(gossip::Input::AppScore { peer, score }), ctx);
                }
            }
            Output::Trial { peer, duration } => {
                if let Some(peer) = ctx.shared.find(&peer) {
                    let until = self.local(ctx.now) + duration;
                    self.relay(relay::Input::Gossip(gossip::Input::Trial { peer, until }), ctx);
                }
            }
            Output::Publish(payload) => self.publish_evidence(payload, ctx),
            Output::Put { key, value } => drop(self.saved.get_or_insert_default().insert(key, value)),
            Output::Delete { key } => drop(self.saved.get_or_insert_default().remove(&key)),
        }
    }

    /// What an honest node holds against another one is written down. Silence is no fault, and told all the same.
    fn on_finding(&mut self, finding: &Finding, ctx: &mut Ctx<'_>) {
        self.set_trace(mix(finding.count ^ (finding.kind.index() as u64) << 32));
        let is_held = finding.severity >= Severity::Warning || finding.kind == AnomalyKind::Silence;
        if !is_held || ctx.shared.dishonest.contains(ctx.me) {
            return;
        }
        let accused = finding.accused.parse::<NodeId>().ok().and_then(|node| ctx.shared.find(&node));
        if let Some(accused) = accused.filter(|accused| *accused != ctx.me) {
            ctx.sink.record.held.push((ctx.me, accused, finding.kind, ctx.now));
        }
    }

    /// Says something on the channel of evidence.
    pub(super) fn publish_evidence(&mut self, payload: Bytes, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.observer else { return };
        let Some(envelope) = self.seal_on(settings.channel.clone(), payload, ctx) else { return };
        ctx.sink.noise.push((envelope.id(), ctx.me));
        self.publish_sealed(envelope, ctx);
    }

    fn log_if_any(&mut self, input: log::Input<u32>, ctx: &mut Ctx<'_>) {
        if ctx.shared.log.is_some() {
            self.log(input, ctx);
        }
    }

    fn hang_up_on(&mut self, node: &NodeId, ctx: &mut Ctx<'_>) {
        if let Some(peer) = ctx.shared.find(node) {
            self.hang_up(peer, ctx);
        }
    }
}

/// Where nodes have the true time, nobody's clock is off.
fn machines_without_clock(shared: &Shared) -> bool {
    !shared.scenario.network.step_sync
}

fn word_of(node: &NodeId) -> u64 {
    let (word, _) = node.as_bytes().split_first_chunk::<8>().expect("a key has 32 bytes");
    u64::from_le_bytes(*word)
}
