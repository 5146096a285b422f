//! One simulated node: the protocol's machines, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use omnimesh_protocol::author::{self, Ticket};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::gossip::{self, Rpc};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::relay::{self, Unchecked};
use omnimesh_protocol::step::{self, Start, StepSync};
use omnimesh_protocol::validate::{self, Validator};
use omnimesh_protocol::{Identity, Mesh, MessageId, Outbox, Seq, Time, control, replay};
use rand_chacha::ChaCha8Rng;

/// What a node sends to another.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Gossip(Rpc),
    Control(control::Frame),
}

/// What a node asks of the simulation.
#[derive(Debug)]
pub(crate) enum Effect {
    Send { to: u32, packet: Packet },
    Timer { at: Time, timer: Timer },
    Published { id: MessageId },
    Delivered { id: MessageId },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    Gossip(gossip::Timer),
    Step(step::Timer),
}

/// The machines of one node, with its own randomness.
#[derive(Debug)]
pub(crate) struct Node {
    relay: relay::State<u32>,
    sync: StepSync<u32>,
    author: author::State,
    rng: ChaCha8Rng,
    ticket: u64,
}

fn validate_config() -> validate::Config {
    let count = |n| std::num::NonZeroUsize::new(n).expect("not zero");
    validate::Config {
        phase_interval: std::num::NonZeroU64::new(100).expect("not zero"),
        pattern_cache: count(32),
        message_bytes_max: 65_536,
        step_window_past: 8,
        step_window_future: 2,
        replay: replay::Config { window: 64, authors_max: count(1024) },
    }
}

impl Node {
    /// A node that founds the mesh's time, or joins it.
    pub(crate) fn new(
        me: u32,
        mesh: &Mesh,
        gossip_config: &Arc<gossip::Config>,
        wall_ns: u64,
        mut rng: ChaCha8Rng,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let validate = validate_config();
        let mut seed = [0; 32];
        rand_core::Rng::fill_bytes(&mut rng, &mut seed);
        let patterns =
            PatternGenerator::new(mesh.secret().clone(), validate.phase_interval, validate.pattern_cache);
        let author_config = author::Config {
            message_bytes_max: validate.message_bytes_max,
            bundle_payloads_max: 64,
            bundle_bytes_max: 16_384,
            pending_max: 1024,
            pending_bytes_max: 1 << 20,
        };
        let identity = Identity::from_seed(&seed);
        let id = identity.id();
        let author = author::State::new(author_config, identity, mesh, patterns, Seq(1));
        let mut gossip_out = Outbox::new();
        let router = gossip::State::new(Arc::clone(gossip_config), Time::ZERO, &mut rng, &mut gossip_out)
            .expect("the simulation's configuration is valid");
        let mut step_out = Outbox::new();
        let start = if me == 0 { Start::Founder { wall_ns } } else { Start::Joiner { wall_ns, saved: None } };
        let sync = StepSync::new(me, step::Config::default(), start, None, Time::ZERO, &mut step_out);
        let relay = relay::State::new(id, router, Validator::new(mesh.clone(), validate, None));
        let mut node = Node { relay, sync, author, rng, ticket: 0 };
        for output in gossip_out.drain() {
            node.on_gossip(output, effects);
        }
        node.on_step_outputs(step_out, effects);
        node
    }

    pub(crate) fn connect(&mut self, now: Time, peer: u32, outbound: bool, effects: &mut Vec<Effect>) {
        let direction = if outbound { gossip::Direction::Outbound } else { gossip::Direction::Inbound };
        let protocol = gossip::Protocol::Omnimesh1;
        let connected = gossip::Input::Connected { peer, protocol, direction, ip: None };
        self.relay(now, relay::Input::Gossip(connected), effects);
        self.step(now, step::Input::Connected { peer }, effects);
    }

    pub(crate) fn subscribe(&mut self, now: Time, channel: &Channel, effects: &mut Vec<Effect>) {
        self.relay(now, relay::Input::Subscribe(channel.clone()), effects);
    }

    pub(crate) fn receive(&mut self, now: Time, from: u32, packet: Packet, effects: &mut Vec<Effect>) {
        match packet {
            Packet::Gossip(rpc) => {
                self.relay(now, relay::Input::Gossip(gossip::Input::Rpc { from, rpc }), effects);
            }
            Packet::Control(frame) => self.step(now, step::Input::Frame { from, frame }, effects),
        }
    }

    pub(crate) fn on_timer(&mut self, now: Time, timer: Timer, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Gossip(timer) => {
                self.relay(now, relay::Input::Gossip(gossip::Input::Timer(timer)), effects);
            }
            Timer::Step(timer) => self.step(now, step::Input::Timer(timer), effects),
        }
    }

    /// Publishes a payload; false while the node is not synchronised.
    pub(crate) fn publish(
        &mut self,
        now: Time,
        channel: &Channel,
        payload: bytes::Bytes,
        effects: &mut Vec<Effect>,
    ) -> bool {
        self.ticket += 1;
        let submit = author::Input::Submit { channel: channel.clone(), payload, ticket: Ticket(self.ticket) };
        let mesh_time_us = self.sync.mesh_time(now).unwrap_or(0) / 1000;
        let flush = author::Input::Flush { step: self.sync.step(now), mesh_time_us };
        let mut out = Outbox::new();
        // Without a disk, a reservation is granted as soon as it is asked for.
        self.author.handle(now, author::Input::Reserved { up_to: Seq(u64::MAX) }, &mut self.rng, &mut out);
        self.author.handle(now, submit, &mut self.rng, &mut out);
        self.author.handle(now, flush, &mut self.rng, &mut out);
        let mut published = false;
        for output in out.drain() {
            if let author::Output::Sealed { envelope, .. } = output {
                published = true;
                self.relay(now, relay::Input::Publish(envelope), effects);
            }
        }
        published
    }

    pub(crate) fn step_now(&self, now: Time) -> Option<omnimesh_protocol::Step> {
        self.sync.step(now)
    }

    pub(crate) fn mesh_time(&self, now: Time) -> Option<Duration> {
        self.sync.mesh_time(now).map(Duration::from_nanos)
    }

    pub(crate) fn stats(&self) -> &gossip::Stats {
        self.relay.gossip().stats()
    }

    pub(crate) fn check_invariants(&self, now: Time) {
        self.relay.check_invariants();
        self.sync.check_invariants(now);
        self.author.check_invariants();
    }

    fn relay(&mut self, now: Time, input: relay::Input<u32>, effects: &mut Vec<Effect>) {
        let mut out = Outbox::new();
        self.relay.handle(now, relay::Input::Step(self.sync.step(now)), &mut self.rng, &mut out);
        self.relay.handle(now, input, &mut self.rng, &mut out);
        // Checking a signature takes no virtual time; its result comes back at once.
        while !out.is_empty() {
            let outputs: Vec<_> = out.drain().collect();
            for output in outputs {
                match output {
                    relay::Output::Gossip(output) => self.on_gossip(output, effects),
                    relay::Output::Verify { id, message } => {
                        let result = message.verify().map_err(Unchecked::Refused);
                        let verified = relay::Input::Verified { id, result };
                        self.relay.handle(now, verified, &mut self.rng, &mut out);
                    }
                    relay::Output::Verified { id, is_subscribed: true, .. } => {
                        effects.push(Effect::Delivered { id });
                    }
                    relay::Output::Verified { .. } | relay::Output::Refused { .. } => {}
                }
            }
        }
    }

    fn on_gossip(&mut self, output: gossip::Output<u32>, effects: &mut Vec<Effect>) {
        match output {
            gossip::Output::Send { to, rpc, .. } => {
                effects.push(Effect::Send { to, packet: Packet::Gossip(rpc) });
            }
            gossip::Output::Timer { at, timer } => {
                effects.push(Effect::Timer { at, timer: Timer::Gossip(timer) });
            }
            gossip::Output::Published { id, .. } => effects.push(Effect::Published { id }),
            gossip::Output::Validate { .. } => unreachable!("the relay answers these itself"),
            gossip::Output::NotPublished { .. }
            | gossip::Output::Disconnect { .. }
            | gossip::Output::Event(_) => {}
        }
    }

    fn step(&mut self, now: Time, input: step::Input<u32>, effects: &mut Vec<Effect>) {
        let mut out = Outbox::new();
        self.sync.handle(now, input, &mut self.rng, &mut out);
        self.on_step_outputs(out, effects);
    }

    fn on_step_outputs(&mut self, mut out: Outbox<step::Output<u32>>, effects: &mut Vec<Effect>) {
        for output in out.drain() {
            match output {
                step::Output::Send { to, frame } => {
                    effects.push(Effect::Send { to, packet: Packet::Control(frame) });
                }
                step::Output::Timer { at, timer } => {
                    effects.push(Effect::Timer { at, timer: Timer::Step(timer) });
                }
                step::Output::Step { .. } | step::Output::Event(_) | step::Output::Outlier { .. } => {}
            }
        }
    }
}

/// The largest payload of a simulated message.
pub(crate) fn payload_bytes_max() -> usize {
    omnimesh_protocol::envelope::payload_bytes_max(validate_config().message_bytes_max)
}
