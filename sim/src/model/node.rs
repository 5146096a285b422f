//! One simulated node: the protocol's machines, its clock, its ends of links, and, of some, what is wrong with it.

use std::hint::black_box;

use bytes::Bytes;
use omnimesh_protocol::author::{self, Ticket};
use omnimesh_protocol::envelope::{Channel, Envelope, Kind};
use omnimesh_protocol::gossip;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::relay;
use omnimesh_protocol::step::{self, SavedOffset, Start, StepSync};
use omnimesh_protocol::validate::Validator;
use omnimesh_protocol::{MessageId, Outbox, Seq, Step, Time, membership, observer};
use rand_chacha::ChaCha8Rng;
use smallvec::SmallVec;

use super::clock::Clock;
use super::compute::{ComputePart, KeptJobs};
use super::disk::Drive;
use super::link::{Fate, Parcel, Stream};
use super::log::LogPart;
use super::mischief::Mischief;
use super::observer::{ObserverPart, Saved};
use super::packet::{Packet, digest, size};
use super::queue::{Due, Event, What};
use super::random::{Draw, mix};
use super::shard::Sink;
use super::shared::Shared;
use super::{Happened, Happening, Machine};

/// The end of a link at a node.
#[derive(Debug)]
pub(super) struct End {
    pub(super) peer: u32,
    /// This node dials.
    pub(super) is_outbound: bool,
    /// Frames can be sent.
    pub(super) is_up: bool,
    /// Counts the connections there were; a frame of an older one is not delivered.
    pub(super) age: u32,
    stream: Stream,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Gossip(gossip::Timer),
    Step(step::Timer),
    Swim(membership::Timer),
    Mischief(u32),
    /// Something of the log or its disk, by number.
    Log(u32),
    Observer(observer::Timer),
    /// Look at what nobody tells the observer by itself.
    Look,
    /// Something of jobs, by number.
    Compute(u32),
}

impl Timer {
    fn machine(&self) -> Machine {
        match self {
            Timer::Gossip(_) => Machine::Gossip,
            Timer::Step(_) => Machine::Step,
            Timer::Swim(_) => Machine::Membership,
            Timer::Mischief(_) => Machine::Mischief,
            Timer::Log(_) => Machine::Log,
            Timer::Observer(_) | Timer::Look => Machine::Observer,
            Timer::Compute(_) => Machine::Compute,
        }
    }
}

/// The machines of a process.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) relay: relay::State<u32>,
    pub(super) sync: Option<StepSync<u32>>,
    pub(super) membership: Option<Box<membership::State>>,
    author: Option<Box<author::State>>,
    pub(super) log: Option<Box<LogPart>>,
    pub(super) observer: Option<Box<ObserverPart>>,
    pub(super) compute: Option<Box<ComputePart>>,
    /// The own envelope that the router is being given.
    publishing: Option<Box<Envelope>>,
    /// The step that the relay was last told.
    told: Option<Step>,
}

/// What a node keeps on disk.
#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    next_seq: u64,
    /// The last step that it showed.
    step: Option<Step>,
    offset: Option<SavedOffset>,
    lives: u64,
}

/// A node, running or not.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) machines: Option<Box<Machines>>,
    /// Sorted by peer.
    pub(super) ends: Vec<End>,
    timers: SmallVec<[(Time, Timer); 4]>,
    /// The earliest of them, in global time.
    timer_at: u64,
    clock: Clock,
    pub(super) rng: ChaCha8Rng,
    disk: Disk,
    /// Where the log is, of nodes that keep one.
    pub(super) drive: Option<Box<Drive>>,
    /// What its observer keeps.
    pub(super) saved: Option<Box<Saved>>,
    /// What it keeps of jobs.
    pub(super) kept_jobs: Option<Box<KeptJobs>>,
    /// Events caused so far.
    order: u64,
    /// A hash of all that happened to it.
    trace: u64,
    uplink_free: u64,
    busy_until: u64,
    /// When it is to be woken next.
    wake_at: u64,
    /// Nanoseconds that a frame takes to be worked off.
    pub(super) frame_ns: u64,
    /// Since when it has had a step, in global time.
    pub(super) synchronised_at: Option<u64>,
    pub(super) mischief: Option<Box<Mischief>>,
}

/// What a node works with: the world, where its effects go, and the global time.
pub(super) struct Ctx<'a> {
    pub(super) shared: &'a Shared,
    pub(super) sink: &'a mut Sink,
    pub(super) me: u32,
    pub(super) now: u64,
}

impl Node {
    pub(super) fn new(rng: ChaCha8Rng, ends: Vec<(u32, bool)>) -> Self {
        let ends = ends
            .into_iter()
            .map(|(peer, is_outbound)| End {
                peer,
                is_outbound,
                is_up: false,
                age: 0,
                stream: Stream::default(),
            })
            .collect();
        Node {
            machines: None,
            ends,
            timers: SmallVec::new(),
            timer_at: u64::MAX,
            clock: Clock::new(0, 0.0),
            rng,
            disk: Disk { next_seq: 1, ..Disk::default() },
            drive: None,
            saved: None,
            kept_jobs: None,
            order: 0,
            trace: 0,
            uplink_free: 0,
            busy_until: 0,
            wake_at: u64::MAX,
            frame_ns: 0,
            synchronised_at: None,
            mischief: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.machines.is_some()
    }

    pub(super) fn end(&self, peer: u32) -> Option<&End> {
        let at = self.ends.binary_search_by_key(&peer, |end| end.peer).ok()?;
        self.ends.get(at)
    }

    fn end_mut(&mut self, peer: u32) -> Option<&mut End> {
        let at = self.ends.binary_search_by_key(&peer, |end| end.peer).ok()?;
        self.ends.get_mut(at)
    }

    /// Starts the process, for the first time or again.
    pub(super) fn start(&mut self, ctx: &mut Ctx<'_>) {
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
        let router =
            gossip::State::new(std::sync::Arc::clone(&shared.gossip), now, &mut self.rng, &mut gossip_out)
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
    pub(super) fn kill(&mut self, ctx: &mut Ctx<'_>) {
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
    pub(super) fn connect(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
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
            self.log(omnimesh_protocol::log::Input::Connected { peer, node }, ctx);
        }
        // Last, as it may end the connection.
        if self.is_observed() {
            let is_inbound = direction == gossip::Direction::Inbound;
            self.observe(observer::Input::Connected { peer: ctx.shared.id(peer), ip, is_inbound }, ctx);
        }
        self.set_alarm(ctx);
    }

    /// A connection is no more.
    pub(super) fn disconnect(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
        self.on_disconnected(peer, ctx);
        self.set_alarm(ctx);
    }

    fn on_disconnected(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
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
            self.log(omnimesh_protocol::log::Input::Disconnected { peer }, ctx);
        }
        if self.is_observed() {
            let ip = Some(ctx.shared.ip(peer));
            self.observe(observer::Input::Disconnected { peer: ctx.shared.id(peer), ip, is_last: true }, ctx);
        }
    }

    /// Works off a window: events, in their order, and timers before `end`.
    pub(super) fn run(&mut self, events: &mut Due<'_>, end: u64, ctx: &mut Ctx<'_>) {
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
    pub(super) fn fetch(&self) {
        black_box((self.machines.is_some(), self.trace, self.timer_at, self.ends.len(), self.order));
        black_box((self.clock.local(0), self.wake_at, self.frame_ns));
    }

    /// Brings what the node points to into the cache, and the end of its link with `peer`.
    pub(super) fn fetch_machines(&self, peer: u32) {
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

    /// Writes down what just happened, if somebody wants to know.
    fn record(&self, what: Happened, ctx: &mut Ctx<'_>) {
        if ctx.shared.watched.contains(&ctx.now) {
            let happening = Happening { at_ns: ctx.now, node: ctx.me, what, trace: self.trace };
            ctx.sink.record.happenings.push(happening);
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
            Packet::Log(frame) => self.log(omnimesh_protocol::log::Input::Received { from, frame }, ctx),
            Packet::Swim(..) | Packet::Compute(_) => {}
        }
    }

    /// After a timer was taken out, or the clock changed.
    fn find_next_timer(&mut self) {
        let next = self.timers.iter().map(|(at, _)| *at).min();
        self.timer_at = next.map_or(u64::MAX, |at| self.clock.global(at));
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

    pub(super) fn set_timer(&mut self, at: Time, timer: Timer) {
        self.timers.push((at, timer));
        self.timer_at = self.timer_at.min(self.clock.global(at));
    }

    /// Sees to it that the node is woken for its next timer.
    pub(super) fn set_alarm(&mut self, ctx: &mut Ctx<'_>) {
        let at = self.timer_at.max(ctx.now);
        if self.timer_at < u64::MAX && at < self.wake_at {
            self.wake_at = at;
            ctx.sink.push(Event { at, to: ctx.me, from: ctx.me, order: self.order, what: What::Wake });
            self.order += 1;
        }
    }

    pub(super) fn local(&self, now: u64) -> Time {
        self.clock.local(now)
    }

    /// The clock leaps forward; what is overdue then happens.
    pub(super) fn leap(&mut self, by: std::time::Duration, ctx: &mut Ctx<'_>) {
        self.clock.leap(ctx.now, by);
        self.find_next_timer();
        self.set_alarm(ctx);
    }

    pub(super) fn set_drift(&mut self, ppm: f64, ctx: &mut Ctx<'_>) {
        self.clock.set_drift(ctx.now, ppm);
        self.find_next_timer();
        self.set_alarm(ctx);
    }

    // What the machines want.

    pub(super) fn relay(&mut self, input: relay::Input<u32>, ctx: &mut Ctx<'_>) {
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
                            self.log(omnimesh_protocol::log::Input::Gossiped { from, envelope }, ctx);
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

    fn on_gossip(&mut self, output: gossip::Output<u32>, ctx: &mut Ctx<'_>) {
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

    fn shut_out(&mut self, peer: u32, reason: gossip::DisconnectReason, ctx: &mut Ctx<'_>) {
        if reason == gossip::DisconnectReason::Graylisted && !ctx.shared.dishonest.contains(ctx.me) {
            ctx.sink.record.shut_out.push((ctx.me, peer, ctx.now));
        }
        self.hang_up(peer, ctx);
    }

    /// Ends a connection.
    pub(super) fn hang_up(&mut self, peer: u32, ctx: &mut Ctx<'_>) {
        let Some(end) = self.end(peer).filter(|end| end.is_up) else { return };
        let at = ctx.now + ctx.shared.links.latency(ctx.me, peer);
        let what = What::Closed { age: end.age };
        ctx.sink.push(Event { at, to: peer, from: ctx.me, order: self.order, what });
        self.order += 1;
        self.on_disconnected(peer, ctx);
    }

    fn step(&mut self, input: step::Input<u32>, ctx: &mut Ctx<'_>) {
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

    fn on_step_outputs(&mut self, out: &mut Outbox<step::Output<u32>>, ctx: &mut Ctx<'_>) {
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

    fn membership(&mut self, input: membership::Input, ctx: &mut Ctx<'_>) {
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

    /// Sends a frame, unless something is wrong with this node.
    pub(super) fn send(&mut self, to: u32, packet: Packet, ctx: &mut Ctx<'_>) {
        let packet = match &mut self.mischief {
            Some(mischief) => match mischief.corrupt(to, packet, ctx) {
                Some(packet) => packet,
                None => return,
            },
            None => packet,
        };
        self.transmit(to, packet, ctx);
    }

    /// Sends a frame as it is.
    pub(super) fn transmit(&mut self, to: u32, packet: Packet, ctx: &mut Ctx<'_>) {
        let bytes = size(&packet);
        let is_swim = matches!(packet, Packet::Swim(..));
        let is_compute = matches!(packet, Packet::Compute(_));
        let order = self.order;
        self.order += 1;
        // A packet of the membership protocol may be for somebody who is not connected: the node dials then.
        let mut dialled = if is_compute { self.compute_stream(to) } else { Stream::default() };
        let mut uplink = self.uplink_free;
        let (stream, age) = match self.end_mut(to) {
            _ if is_compute => (&mut dialled, 0),
            Some(end) if end.is_up => (&mut end.stream, end.age),
            _ if is_swim => (&mut dialled, 0),
            _ => return,
        };
        let parcel = Parcel { from: ctx.me, to, at: ctx.now, bytes, order };
        let record = &mut ctx.sink.record;
        record.traffic.frames += 1;
        record.traffic.bytes += bytes as u64;
        if let Packet::Gossip(rpc) = &packet {
            record.traffic.gossip_bytes += bytes as u64;
            if let Some(control) = &rpc.control {
                record.traffic.ihave_frames += control.ihave.len() as u64;
            }
        }
        let fate =
            ctx.shared.links.carry(parcel, stream, &mut uplink, &mut record.traffic, &mut record.faults);
        self.uplink_free = uplink;
        if is_compute {
            self.keep_compute_stream(to, dialled);
        }
        let arrive = |packet| What::Arrive { packet: Box::new(packet), age, is_read: false };
        match fate {
            Fate::Lost => {}
            Fate::Arrives(at) => {
                ctx.sink.push(Event { at, to, from: ctx.me, order, what: arrive(packet) });
            }
            Fate::ArrivesTwice(first, second) => {
                let what = arrive(packet.clone());
                ctx.sink.push(Event { at: first, to, from: ctx.me, order, what });
                let order = self.order;
                self.order += 1;
                ctx.sink.push(Event { at: second, to, from: ctx.me, order, what: arrive(packet) });
            }
        }
    }

    /// Publishes a payload; the message's id and length, or nothing while the node has no step.
    pub(super) fn publish(&mut self, payload: Bytes, ctx: &mut Ctx<'_>) -> Option<(MessageId, u32)> {
        let envelope = self.seal(payload, ctx)?;
        let id = envelope.id();
        let bytes = u32::try_from(envelope.as_bytes().len()).unwrap_or(u32::MAX);
        self.publish_sealed(envelope, ctx);
        self.set_alarm(ctx);
        Some((id, bytes))
    }

    /// Signs an envelope of the workload's channel.
    pub(super) fn seal(&mut self, payload: Bytes, ctx: &Ctx<'_>) -> Option<Envelope> {
        self.seal_on(ctx.shared.channel.clone(), payload, ctx)
    }

    /// Signs an envelope.
    pub(super) fn seal_on(&mut self, channel: Channel, payload: Bytes, ctx: &Ctx<'_>) -> Option<Envelope> {
        let now = self.clock.local(ctx.now);
        let shared = ctx.shared;
        let next = Seq(self.disk.next_seq);
        let machines = self.machines.as_mut()?;
        let (step, mesh_time_ns) = match &machines.sync {
            Some(sync) => (sync.step(now)?, sync.mesh_time(now)?),
            None => (shared.true_step(ctx.now), shared.true_time_ns(ctx.now)),
        };
        let author = machines.author.get_or_insert_with(|| {
            let patterns = PatternGenerator::new(
                shared.mesh.secret().clone(),
                shared.validate.phase_interval,
                shared.validate.pattern_cache,
            );
            let identity = shared.identity(ctx.me);
            Box::new(author::State::new(shared.author.clone(), identity, &shared.mesh, patterns, next))
        });
        let mut out = Outbox::new();
        // Numbers are reserved as soon as that is asked for.
        author.handle(now, author::Input::Reserved { up_to: Seq(u64::MAX) }, &mut self.rng, &mut out);
        author.handle(
            now,
            author::Input::Submit { channel, payload, ticket: Ticket(0) },
            &mut self.rng,
            &mut out,
        );
        let flush = author::Input::Flush { step: Some(step), mesh_time_us: mesh_time_ns / 1_000 };
        author.handle(now, flush, &mut self.rng, &mut out);
        self.disk.next_seq = author.next_seq().0;
        out.drain().find_map(|output| match output {
            author::Output::Sealed { envelope, .. } => Some(envelope),
            _ => None,
        })
    }

    /// Gives an envelope to the router as if it were the node's own.
    pub(super) fn publish_sealed(&mut self, envelope: Envelope, ctx: &mut Ctx<'_>) {
        if let Some(machines) = self.machines.as_mut().filter(|machines| machines.observer.is_some()) {
            machines.publishing = Some(Box::new(envelope.clone()));
        }
        self.relay(relay::Input::Publish(envelope), ctx);
    }

    // What can be seen of it.

    pub(super) fn mesh_time(&self, now: u64, shared: &Shared) -> Option<u64> {
        let machines = self.machines.as_ref()?;
        match &machines.sync {
            Some(sync) => sync.mesh_time(self.clock.local(now)),
            None => Some(shared.true_time_ns(now)),
        }
    }

    /// The step that it works with.
    pub(super) fn mesh_step(&self, ctx: &Ctx<'_>) -> Option<Step> {
        match &self.machines.as_ref()?.sync {
            Some(sync) => sync.step(self.clock.local(ctx.now)),
            None => Some(ctx.shared.true_step(ctx.now)),
        }
    }

    /// When all that it has sent has left it.
    pub(super) fn uplink_free(&self) -> u64 {
        self.uplink_free
    }

    pub(super) fn log_part(&self) -> Option<&LogPart> {
        self.machines.as_ref()?.log.as_deref()
    }

    pub(super) fn relay_state(&self) -> Option<&relay::State<u32>> {
        self.machines.as_ref().map(|machines| &machines.relay)
    }

    /// Members that it holds for alive, itself among them.
    pub(super) fn alive(&self) -> Option<usize> {
        Some(self.machines.as_ref()?.membership.as_ref()?.counts().alive)
    }

    /// Makes something that happened within the node a part of its trace.
    pub(super) fn set_trace(&mut self, word: u64) {
        self.trace = mix(self.trace ^ word);
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    pub(super) fn check_invariants(&self) {
        if let Some(machines) = &self.machines {
            machines.relay.check_invariants();
            if let Some(membership) = &machines.membership {
                membership.check_invariants();
            }
            if let Some(part) = &machines.log {
                part.state().check_invariants();
            }
            if let Some(part) = &machines.observer {
                part.check_invariants();
            }
            if let Some(part) = &machines.compute {
                part.check_invariants();
            }
        }
    }

    /// Lets the next envelope have the sequence number of the last.
    pub(super) fn forget_last_seq(&mut self) {
        self.disk.next_seq = self.disk.next_seq.saturating_sub(1).max(1);
        if let Some(machines) = &mut self.machines {
            machines.author = None;
        }
    }

    pub(super) fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }
}
