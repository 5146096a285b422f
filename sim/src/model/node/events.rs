//! The event loop of a simulated node: what arrives and the timers that are due, in the order of their times, and the
//! clock by which the timers go.

use std::hint::black_box;
use std::time::Duration;

use omnimesh_protocol::{Time, gossip, log, membership, observer, relay, step};

use super::super::packet::{Packet, digest};
use super::super::queue::{Due, Event, What};
use super::super::random::mix;
use super::super::{Happened, Happening, Machine};
use super::{Ctx, Node, Timer};

impl Node {
    /// Works off a window: events, in their order, and timers before `end`.
    pub(in crate::model) fn run(&mut self, events: &mut Due<'_>, end: u64, ctx: &mut Ctx<'_>) {
        loop {
            let arrival = events.peek().filter(|event| event.to == ctx.me).map(|event| self.ready_at(event));
            match arrival {
                Some(at) if self.timer_at >= end || self.timer_at > at => {
                    if let Some(event) = events.next() {
                        self.on_event(at, end, event, ctx);
                    }
                }
                _ if self.timer_at < end => {
                    ctx.now = self.timer_at.max(ctx.now);
                    self.fire(ctx);
                }
                _ => break,
            }
        }
        self.set_alarm(ctx);
    }

    /// Brings the node itself into the cache.
    pub(in crate::model) fn fetch(&self) {
        black_box((self.machines.is_some(), self.trace, self.timer_at, self.ends.len(), self.order));
        black_box((self.clock.local(0), self.wake_at, self.frame_ns));
    }

    /// Brings what the node points to into the cache, and the end of its link with `peer`.
    pub(in crate::model) fn fetch_machines(&self, peer: u32) {
        let Some(machines) = &self.machines else { return };
        black_box((machines.told, machines.sync.is_some(), self.end(peer).is_some()));
    }

    /// When an event is worked off: at once, or, by a slow node, when it has the time.
    fn ready_at(&self, event: &Event) -> u64 {
        match event.what {
            What::Arrive { is_read: false, .. } if self.frame_ns > 0 => {
                event.at.max(self.busy_until) + self.frame_ns
            }
            _ => event.at,
        }
    }

    fn on_event(&mut self, at: u64, end: u64, mut event: Event, ctx: &mut Ctx<'_>) {
        if at > event.at {
            self.busy_until = at;
            if at >= end {
                if let What::Arrive { is_read, .. } = &mut event.what {
                    *is_read = true;
                }
                ctx.sink.push(Event { at, ..event });
                return;
            }
        }
        // What a slow node takes its time for may end after what came later and takes none.
        ctx.now = at.max(ctx.now);
        ctx.sink.record.events += 1;
        self.trace = mix(self.trace ^ mix(at) ^ u64::from(event.from) << 32);
        match event.what {
            What::Wake => {
                self.record(Happened::Woken, ctx);
                if self.wake_at <= at {
                    self.wake_at = u64::MAX;
                }
            }
            What::Closed { age } => {
                self.record(Happened::Closed(event.from), ctx);
                if self.end(event.from).is_some_and(|end| end.age == age) {
                    self.on_disconnected(event.from, ctx);
                }
            }
            What::Arrive { packet, age, .. } => self.receive(event.from, *packet, age, ctx),
        }
    }

    fn receive(&mut self, from: u32, packet: Packet, age: u32, ctx: &mut Ctx<'_>) {
        let happened = Happened::Frame(Machine::of(&packet), from);
        if self.machines.is_none() {
            ctx.sink.record.traffic.cut += 1;
            return self.record(happened, ctx);
        }
        self.trace = mix(self.trace ^ digest(&packet));
        self.record(happened, ctx);
        if let Packet::Swim(id, bytes) = packet {
            return self.membership(membership::Input::Packet { from: id, bytes }, ctx);
        }
        if let Packet::Compute(parcel) = packet {
            return self.on_compute_parcel(from, parcel, ctx);
        }
        if !self.end(from).is_some_and(|end| end.is_up && end.age == age) {
            ctx.sink.record.traffic.cut += 1;
            return;
        }
        match packet {
            Packet::Gossip(rpc) => {
                if self.mischief.is_some() {
                    self.overhear(&rpc, ctx);
                } else {
                    ctx.sink.record.note_copies(&rpc, &ctx.shared.known);
                }
                self.relay(relay::Input::Gossip(gossip::Input::Rpc { from, rpc }), ctx);
            }
            Packet::Control(frame) => self.step(step::Input::Frame { from, frame }, ctx),
            Packet::Log(frame) => self.log(log::Input::Received { from, frame }, ctx),
            Packet::Swim(..) | Packet::Compute(_) => {}
        }
    }

    /// Hands the timers back that are due.
    fn fire(&mut self, ctx: &mut Ctx<'_>) {
        let now = self.clock.local(ctx.now);
        let Some(due) = (0..self.timers.len()).min_by_key(|at| self.timers[*at].0) else { return };
        debug_assert!(self.timers[due].0 <= now, "the timer is due");
        let (at, timer) = self.timers.swap_remove(due);
        self.find_next_timer();
        ctx.sink.record.events += 1;
        self.trace = mix(self.trace ^ mix(at.as_nanos()));
        self.record(Happened::Timer(timer.machine()), ctx);
        match timer {
            Timer::Gossip(timer) => self.relay(relay::Input::Gossip(gossip::Input::Timer(timer)), ctx),
            Timer::Step(timer) => self.step(step::Input::Timer(timer), ctx),
            Timer::Swim(timer) => self.membership(membership::Input::Timer(timer), ctx),
            Timer::Mischief(act) => self.misbehave(act, ctx),
            Timer::Log(number) => self.on_log_job(number, ctx),
            Timer::Observer(timer) => self.observe(observer::Input::Timer(timer), ctx),
            Timer::Look => self.look_around(ctx),
            Timer::Compute(number) => self.on_compute_later(number, ctx),
        }
    }

    /// Writes down what just happened, if somebody wants to know.
    pub(super) fn record(&self, what: Happened, ctx: &mut Ctx<'_>) {
        if ctx.shared.watched.contains(&ctx.now) {
            let happening = Happening { at_ns: ctx.now, node: ctx.me, what, trace: self.trace };
            ctx.sink.record.happenings.push(happening);
        }
    }

    pub(in crate::model) fn set_timer(&mut self, at: Time, timer: Timer) {
        self.timers.push((at, timer));
        self.timer_at = self.timer_at.min(self.clock.global(at));
    }

    /// After a timer was taken out, or the clock changed.
    fn find_next_timer(&mut self) {
        let next = self.timers.iter().map(|(at, _)| *at).min();
        self.timer_at = next.map_or(u64::MAX, |at| self.clock.global(at));
    }

    /// Sees to it that the node is woken for its next timer.
    pub(in crate::model) fn set_alarm(&mut self, ctx: &mut Ctx<'_>) {
        let at = self.timer_at.max(ctx.now);
        if self.timer_at < u64::MAX && at < self.wake_at {
            self.wake_at = at;
            ctx.sink.push(Event { at, to: ctx.me, from: ctx.me, order: self.order, what: What::Wake });
            self.order += 1;
        }
    }

    /// The clock leaps forward; what is overdue then happens.
    pub(in crate::model) fn leap(&mut self, by: Duration, ctx: &mut Ctx<'_>) {
        self.clock.leap(ctx.now, by);
        self.find_next_timer();
        self.set_alarm(ctx);
    }

    pub(in crate::model) fn set_drift(&mut self, ppm: f64, ctx: &mut Ctx<'_>) {
        self.clock.set_drift(ctx.now, ppm);
        self.find_next_timer();
        self.set_alarm(ctx);
    }
}
