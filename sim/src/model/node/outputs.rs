//! The router, step synchronisation and membership of a simulated node: what they are given, and how what they want is
//! carried out.

use omnimesh_protocol::envelope::Kind;
use omnimesh_protocol::{MessageId, Outbox, gossip, log, membership, relay, step};

use super::super::Happened;
use super::super::packet::Packet;
use super::super::random::mix;
use super::{Ctx, Node, Timer};

impl Node {
    pub(in crate::model) fn relay(&mut self, input: relay::Input<u32>, ctx: &mut Ctx<'_>) {
        let now = self.clock.local(ctx.now);
        let Some(machines) = &mut self.machines else { return };
        let mut out = std::mem::take(&mut ctx.sink.relay_out);
        let step = match &machines.sync {
            Some(sync) => sync.step(now),
            None => Some(ctx.shared.true_step(ctx.now)),
        };
        if step != machines.told {
            machines.told = step;
            if step.is_some() && self.synchronised_at.is_none() {
                self.synchronised_at = Some(ctx.now);
            }
            machines.relay.handle(now, relay::Input::Step(step), &mut self.rng, &mut out);
        }
        machines.relay.handle(now, input, &mut self.rng, &mut out);
        let mut outputs = std::mem::take(&mut ctx.sink.relay_outputs);
        while !out.is_empty() {
            outputs.extend(out.drain());
            for output in outputs.drain(..) {
                match output {
                    relay::Output::Gossip(output) => self.on_gossip(output, ctx),
                    relay::Output::Verify { id, message } => {
                        // Checking a signature takes no virtual time; its result comes back at once.
                        let result = ctx.sink.verify(ctx.shared, id, message);
                        if let Some(machines) = &mut self.machines {
                            let verified = relay::Input::Verified { id, result };
                            machines.relay.handle(now, verified, &mut self.rng, &mut out);
                        }
                    }
                    relay::Output::Verified { id, from, envelope, is_subscribed } => {
                        if is_subscribed {
                            self.on_delivered(id, from, ctx);
                        }
                        self.observe_verified(id, from, &envelope, is_subscribed, ctx);
                        if is_subscribed && envelope.header().kind == Kind::Durable {
                            self.log(log::Input::Gossiped { from, envelope }, ctx);
                        }
                    }
                    relay::Output::Refused { id, from, channel, author, reason, replayed } => {
                        self.observe_refused((id, from, reason), channel, author, replayed, ctx);
                    }
                }
            }
        }
        ctx.sink.relay_out = out;
        ctx.sink.relay_outputs = outputs;
    }

    fn on_delivered(&mut self, id: MessageId, from: u32, ctx: &mut Ctx<'_>) {
        self.trace = mix(self.trace ^ 0xde11);
        self.record(Happened::Delivered(from), ctx);
        let is_honest = !ctx.shared.dishonest.contains(ctx.me);
        ctx.sink.record.note_delivery(&ctx.shared.known, id, is_honest, (ctx.me, from), ctx.now);
    }

    pub(super) fn on_gossip(&mut self, output: gossip::Output<u32>, ctx: &mut Ctx<'_>) {
        match output {
            gossip::Output::Send { to, rpc, .. } => self.send(to, Packet::Gossip(rpc), ctx),
            gossip::Output::Timer { at, timer } => self.set_timer(at, Timer::Gossip(timer)),
            gossip::Output::Disconnect { peer, reason } => self.shut_out(peer, reason, ctx),
            gossip::Output::Validate { .. } | gossip::Output::CopyOfRefused { .. } => {
                unreachable!("the relay answers these itself")
            }
            gossip::Output::Published { recipients, .. } => {
                let published = self.machines.as_mut().and_then(|machines| machines.publishing.take());
                if let Some(envelope) = published {
                    self.observe_published(&envelope, recipients, ctx);
                }
            }
            gossip::Output::NotPublished { .. } => {
                if let Some(machines) = &mut self.machines {
                    machines.publishing = None;
                }
            }
            gossip::Output::Event(_) => {}
        }
    }

    pub(super) fn step(&mut self, input: step::Input<u32>, ctx: &mut Ctx<'_>) {
        let now = self.clock.local(ctx.now);
        let Some(sync) = self.machines.as_mut().and_then(|machines| machines.sync.as_mut()) else { return };
        let mut out = std::mem::take(&mut ctx.sink.step_out);
        sync.handle(now, input, &mut self.rng, &mut out);
        if cfg!(debug_assertions) {
            sync.check_invariants(now);
        }
        self.on_step_outputs(&mut out, ctx);
        ctx.sink.step_out = out;
    }

    pub(super) fn on_step_outputs(&mut self, out: &mut Outbox<step::Output<u32>>, ctx: &mut Ctx<'_>) {
        let mut skew = None;
        for output in out.drain() {
            match output {
                step::Output::Send { to, frame } => self.send(to, Packet::Control(frame), ctx),
                step::Output::Timer { at, timer } => self.set_timer(at, Timer::Step(timer)),
                step::Output::Step { step } => {
                    let is_honest = !ctx.shared.dishonest.contains(ctx.me);
                    if is_honest && self.disk.step.is_some_and(|before| step < before) {
                        ctx.sink.record.steps_fell.note(ctx.me, ctx.now);
                    }
                    self.disk.step = Some(step);
                    if self.synchronised_at.is_none() {
                        self.synchronised_at = Some(ctx.now);
                    }
                }
                step::Output::Event(step::Event::Reconciled { skew_ns, .. }) => skew = Some(skew_ns),
                step::Output::Event(_) | step::Output::Outlier { .. } => {}
            }
        }
        if let Some(skew_ns) = skew {
            self.observe_clocks(skew_ns, ctx);
        }
    }

    pub(super) fn membership(&mut self, input: membership::Input, ctx: &mut Ctx<'_>) {
        let now = self.clock.local(ctx.now);
        let Some(membership) = self.machines.as_mut().and_then(|machines| machines.membership.as_mut())
        else {
            return;
        };
        let mut out = Outbox::new();
        membership.handle(now, input, &mut self.rng, &mut out);
        for output in out.drain() {
            match output {
                membership::Output::Send { to, packet } => {
                    if let Some(to) = ctx.shared.find(&to) {
                        let me = ctx.shared.id(ctx.me);
                        self.send(to, Packet::Swim(me, packet), ctx);
                    }
                }
                membership::Output::Timer { at, timer } => self.set_timer(at, Timer::Swim(timer)),
                membership::Output::MemberUp { peer, .. } | membership::Output::MemberRefuted { peer } => {
                    self.observe_member(peer, "alive", ctx);
                }
                membership::Output::MemberSuspect { peer } => self.observe_member(peer, "suspect", ctx),
                membership::Output::MemberDown { peer } => self.observe_member(peer, "dead", ctx),
                membership::Output::MemberLeft { peer } => self.observe_member(peer, "left", ctx),
                membership::Output::Rejoined { .. } | membership::Output::Event(_) => {}
            }
        }
        let health = self.machines.as_ref().and_then(|machines| machines.membership.as_ref());
        if let Some(health) = health.map(|membership| membership.local_health()) {
            self.observe_health(health, ctx);
        }
    }
}
