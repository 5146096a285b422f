//! The life of a simulated process and of its connections: starts, deaths, who comes and who goes.

use std::sync::Arc;

use omnimesh_protocol::step::{Start, StepSync};
use omnimesh_protocol::validate::Validator;
use omnimesh_protocol::{Outbox, gossip, log, membership, observer, relay, step};

use super::super::clock::Clock;
use super::super::link::Stream;
use super::super::queue::{Event, What};
use super::super::random::Draw;
use super::{Ctx, Machines, Node};

impl Node {
    /// Starts the process, for the first time or again.
    pub(in crate::model) fn start(&mut self, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let mut draw = Draw::new(shared.seed, u64::from(ctx.me), 0x636c_6f63);
        let drift = shared.scenario.network.clock_drift_ppm * (2.0 * draw.unit() - 1.0);
        if self.disk.lives == 0 {
            self.clock = Clock::new(ctx.now, drift);
        }
        self.disk.lives += 1;
        let wall_ns = shared.wall_ns(ctx.me, ctx.now);
        let now = self.clock.local(ctx.now);
        let id = shared.id(ctx.me);
        let mut gossip_out = Outbox::new();
        let router = gossip::State::new(Arc::clone(&shared.gossip), now, &mut self.rng, &mut gossip_out)
            .expect("the scenario was checked");
        let floor = (self.disk.lives > 1).then_some(self.disk.step).flatten();
        let mut validator = Validator::new(shared.mesh.clone(), shared.validate.clone(), floor);
        validator.sabotage(shared.sabotage());
        let mut step_out = Outbox::new();
        let sync = shared.scenario.network.step_sync.then(|| {
            let start = if ctx.me == 0 && self.disk.lives == 1 {
                Start::Founder { wall_ns }
            } else {
                Start::Joiner { wall_ns, saved: self.disk.offset }
            };
            StepSync::new(ctx.me, shared.step.clone(), start, self.disk.step, now, &mut step_out)
        });
        let membership = shared.membership.as_ref().map(|config| {
            let local = membership::Local {
                node: id,
                generation: wall_ns / 1_000_000 + self.disk.lives,
                addresses: Vec::new(),
            };
            Box::new(
                membership::State::new(config.clone(), local, &mut self.rng)
                    .expect("the default configuration"),
            )
        });
        let relay = relay::State::new(id, router, validator);
        self.machines = Some(Box::new(Machines {
            relay,
            sync,
            membership,
            author: None,
            log: None,
            observer: None,
            compute: None,
            publishing: None,
            told: None,
        }));
        self.synchronised_at = None;
        for output in gossip_out.drain() {
            self.on_gossip(output, ctx);
        }
        self.on_step_outputs(&mut step_out, ctx);
        self.relay(relay::Input::Subscribe(shared.channel.clone()), ctx);
        self.start_observer(ctx);
        self.start_log(self.disk.lives > 1, ctx);
        self.start_compute(ctx);
        // Whatever it is told first sets it going.
        self.membership(membership::Input::Addresses(Vec::new()), ctx);
        self.plan_mischief(ctx);
        self.set_alarm(ctx);
    }

    /// The process is killed: what is not on disk is gone.
    pub(in crate::model) fn kill(&mut self, ctx: &mut Ctx<'_>) {
        let now = self.clock.local(ctx.now);
        if let Some(mut machines) = self.machines.take() {
            if let Some(part) = machines.log.take() {
                self.drop_log(*part, ctx);
            }
            if let Some(part) = machines.compute.take() {
                part.add_stats(&mut ctx.sink.record.compute);
            }
            if !ctx.shared.dishonest.contains(ctx.me) {
                ctx.sink.record.add_stats(&machines.relay);
            }
            let wall_ns = ctx.shared.wall_ns(ctx.me, ctx.now);
            if let Some(sync) = &machines.sync {
                self.disk.offset = sync.saved_offset(now, wall_ns).or(self.disk.offset);
            }
        }
        self.timers.clear();
        self.timer_at = u64::MAX;
        self.synchronised_at = None;
        for end in &mut self.ends {
            if std::mem::take(&mut end.is_up) {
                // The kernel closes the connections of a dead process.
                let at = ctx.now + ctx.shared.links.latency(ctx.me, end.peer);
                let what = What::Closed { age: end.age };
                ctx.sink.push(Event { at, to: end.peer, from: ctx.me, order: self.order, what });
                self.order += 1;
            }
        }
    }

    /// A connection with a peer is there.
    pub(in crate::model) fn connect(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
        let Some(end) = self.end_mut(peer) else { return };
        end.is_up = true;
        end.age += 1;
        end.stream = Stream::default();
        let direction =
            if end.is_outbound { gossip::Direction::Outbound } else { gossip::Direction::Inbound };
        let protocol = gossip::Protocol::Omnimesh1;
        let ip = Some(ctx.shared.ip(peer));
        self.relay(relay::Input::Gossip(gossip::Input::Connected { peer, protocol, direction, ip }), ctx);
        self.step(step::Input::Connected { peer }, ctx);
        if ctx.shared.membership.is_some() {
            let input = membership::Input::Connected { peer: ctx.shared.id(peer), addresses: Vec::new() };
            self.membership(input, ctx);
        }
        if ctx.shared.log.is_some() {
            let node = ctx.shared.id(peer);
            self.log(log::Input::Connected { peer, node }, ctx);
        }
        // Last, as it may end the connection.
        if self.is_observed() {
            let is_inbound = direction == gossip::Direction::Inbound;
            self.observe(observer::Input::Connected { peer: ctx.shared.id(peer), ip, is_inbound }, ctx);
        }
        self.set_alarm(ctx);
    }

    /// A connection is no more.
    pub(in crate::model) fn disconnect(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
        self.on_disconnected(peer, ctx);
        self.set_alarm(ctx);
    }

    pub(super) fn on_disconnected(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
        match self.end_mut(peer) {
            Some(end) if end.is_up => end.is_up = false,
            _ => return,
        }
        self.relay(relay::Input::Gossip(gossip::Input::Disconnected { peer }), ctx);
        self.step(step::Input::Disconnected { peer }, ctx);
        if ctx.shared.membership.is_some() {
            let input = membership::Input::Disconnected { peer: ctx.shared.id(peer) };
            self.membership(input, ctx);
        }
        if ctx.shared.log.is_some() {
            self.log(log::Input::Disconnected { peer }, ctx);
        }
        if self.is_observed() {
            let ip = Some(ctx.shared.ip(peer));
            self.observe(observer::Input::Disconnected { peer: ctx.shared.id(peer), ip, is_last: true }, ctx);
        }
    }

    pub(super) fn shut_out(&mut self, peer: u32, reason: gossip::DisconnectReason, ctx: &mut Ctx<'_>) {
        if reason == gossip::DisconnectReason::Graylisted && !ctx.shared.dishonest.contains(ctx.me) {
            ctx.sink.record.shut_out.push((ctx.me, peer, ctx.now));
        }
        self.hang_up(peer, ctx);
    }

    /// Ends a connection.
    pub(in crate::model) fn hang_up(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
        let Some(end) = self.end(peer).filter(|end| end.is_up) else { return };
        let at = ctx.now + ctx.shared.links.latency(ctx.me, peer);
        let what = What::Closed { age: end.age };
        ctx.sink.push(Event { at, to: peer, from: ctx.me, order: self.order, what });
        self.order += 1;
        self.on_disconnected(peer, ctx);
    }
}
