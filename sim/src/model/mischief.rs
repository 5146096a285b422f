//! What is wrong with some nodes: the machines are the honest ones, what they say is changed on its way out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::control::Frame;
use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::gossip::{Control, Message, Rpc, Topic};
use omnimesh_protocol::log::Record;
use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::observer::accusation::Accusation;
use omnimesh_protocol::observer::evidence::{Evidence, Pair};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{MessageId, Time};

use super::link::nanos;
use super::node::{Ctx, Node, Timer};
use super::packet::Packet;
use super::random::{Draw, mix};
use super::record::Record as Facts;
use super::shared::Shared;
use crate::scenario::{AdversaryKind, Witnesses};

/// Messages that one node keeps to replay them.
const KEPT_MAX: usize = 256;
/// What comes so late in a run is not counted: it may not have had an effect at its end.
const LATE: Duration = Duration::from_secs(5);
/// How often those graft who want to be in everybody's mesh.
const GRAFT_EVERY: Duration = Duration::from_secs(1);

/// Honest peers that are told each of two records, for somebody to be sure to find out.
const HEARD_MIN: usize = 2;
/// Records that a log has before it is forked.
const FORKED_LOG_MIN: usize = 3;

/// All that is wrong with a node.
#[derive(Debug, Default)]
pub(super) struct Mischief {
    acts: Vec<Act>,
}

/// One way to misbehave.
#[derive(Debug)]
pub(super) struct Act {
    /// Its place among the scenario's adversaries.
    adversary: usize,
    kind: AdversaryKind,
    from: u64,
    until: u64,
    /// The mesh time at which a frozen clock stands.
    frozen_ns: Option<u64>,
    /// What is to be replayed, and when.
    kept: VecDeque<(Time, Message)>,
    /// When it first did something.
    acted: Option<u64>,
}

impl Act {
    pub(super) fn new(
        adversary: usize,
        kind: AdversaryKind,
        from: Duration,
        until: Option<Duration>,
    ) -> Self {
        let until = until.map_or(u64::MAX, nanos);
        Act { adversary, kind, from: nanos(from), until, frozen_ns: None, kept: VecDeque::new(), acted: None }
    }

    fn note(&mut self, now: u64, done: u64, record: &mut Facts) {
        record.adversaries[self.adversary] += done;
        if done > 0 {
            self.acted.get_or_insert(now);
        }
    }

    fn is_active(&self, now: u64) -> bool {
        (self.from..self.until).contains(&now)
    }

    /// The time between its own acts, of those that act by themselves.
    fn period(&self) -> Option<Duration> {
        match self.kind {
            AdversaryKind::Equivocate { rate_per_s }
            | AdversaryKind::Flood { rate_per_s }
            | AdversaryKind::Outsider { rate_per_s }
            | AdversaryKind::Fork { rate_per_s }
            | AdversaryKind::Slander { rate_per_s } => {
                Some(Duration::from_secs_f64(1.0 / rate_per_s.max(1e-3)))
            }
            AdversaryKind::Silence { rate_per_s } if rate_per_s > 0.0 => {
                Some(Duration::from_secs_f64(1.0 / rate_per_s.max(1e-3)))
            }
            AdversaryKind::Eclipse { .. } | AdversaryKind::Sybil { .. } | AdversaryKind::ColdBoot { .. } => {
                Some(GRAFT_EVERY)
            }
            AdversaryKind::Tamper
            | AdversaryKind::Replay { .. }
            | AdversaryKind::Rush { .. }
            | AdversaryKind::Freeze
            | AdversaryKind::TwoFaced { .. }
            | AdversaryKind::Silence { .. }
            | AdversaryKind::NeverForward
            | AdversaryKind::Censor { .. }
            | AdversaryKind::CovertFlash => None,
        }
    }

    /// Whether it does something by itself before it misbehaves.
    fn begins_early(&self) -> bool {
        matches!(self.kind, AdversaryKind::Silence { .. })
    }

    /// Whether it keeps messages from going to a peer, or those of an author from going anywhere.
    fn withholds(&self, to: u32, author: Option<u32>, shared: &Shared) -> bool {
        let victims = &shared.victims[self.adversary];
        match self.kind {
            AdversaryKind::NeverForward
            | AdversaryKind::Sybil { .. }
            | AdversaryKind::ColdBoot { .. }
            | AdversaryKind::CovertFlash => true,
            AdversaryKind::Eclipse { .. } => {
                victims.contains(to) || author.is_some_and(|author| victims.contains(author))
            }
            AdversaryKind::Censor { .. } => author.is_some_and(|author| victims.contains(author)),
            _ => false,
        }
    }

    fn corrupt_gossip(
        &mut self,
        to: u32,
        mut rpc: Rpc,
        me: u32,
        shared: &Shared,
        done: &mut u64,
    ) -> Option<Rpc> {
        let author = |message: &Message| shared.known.get(&message.id()).map(|known| known.author);
        let before = rpc.publish.len();
        rpc.publish.retain(|message| {
            let author = author(message);
            author == Some(me) || !self.withholds(to, author, shared)
        });
        *done += (before - rpc.publish.len()) as u64;
        if self.withholds(to, None, shared)
            && let Some(control) = &mut rpc.control
        {
            // Who tells of messages and does not serve them is found out.
            *done += control.ihave.iter().map(|ihave| ihave.ids.len() as u64).sum::<u64>();
            control.ihave.clear();
        } else if matches!(self.kind, AdversaryKind::Censor { .. } | AdversaryKind::Eclipse { .. })
            && let Some(control) = &mut rpc.control
        {
            let author = |id: &MessageId| shared.known.get(id).map(|known| known.author);
            for ihave in &mut control.ihave {
                ihave.ids.retain(|id| author(id) == Some(me) || !self.withholds(to, author(id), shared));
            }
            control.ihave.retain(|ihave| !ihave.ids.is_empty());
        }
        if self.kind == AdversaryKind::Tamper {
            for message in &mut rpc.publish {
                if author(message) != Some(me) {
                    *done += 1;
                    *message = tampered(message, mix(u64::from(me) ^ u64::from(to) << 32));
                }
            }
        }
        (!rpc.is_empty()).then_some(rpc)
    }

    fn corrupt_time(&mut self, to: u32, honest_ns: u64, me: u32) -> u64 {
        match self.kind {
            AdversaryKind::Rush { by } => honest_ns.saturating_add(nanos(by)),
            AdversaryKind::Freeze => *self.frozen_ns.get_or_insert(honest_ns),
            AdversaryKind::TwoFaced { by } => {
                let mut draw = Draw::new(u64::from(me), u64::from(to), 0x6661_6365);
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    reason = "lies need not be exact"
                )]
                let off = (nanos(by) as f64 * (2.0 * draw.unit() - 1.0)) as i64;
                honest_ns.saturating_add_signed(off)
            }
            _ => honest_ns,
        }
    }
}

/// The message with one bit flipped.
fn tampered(message: &Message, place: u64) -> Message {
    let mut data = message.data().to_vec();
    if !data.is_empty() {
        let bit = usize::try_from(place % (data.len() as u64 * 8)).unwrap_or(0);
        data[bit / 8] ^= 1 << (bit % 8);
    }
    Message::new(message.topic().clone(), Bytes::from(data))
}

impl Ctx<'_> {
    /// This node has misbehaved towards another one so often.
    fn show(&mut self, to: u32, times: u64) {
        let last = nanos(self.shared.scenario.duration.saturating_sub(LATE));
        if times > 0 && self.now < last && !self.shared.dishonest.contains(to) {
            *self.sink.record.shown.entry((self.me, to)).or_default() += times;
        }
    }
}

impl Mischief {
    pub(super) fn add(&mut self, act: Act) {
        self.acts.push(act);
    }

    /// What is sent instead of a packet; nothing if it is kept back.
    pub(super) fn corrupt(&mut self, to: u32, packet: Packet, ctx: &mut Ctx<'_>) -> Option<Packet> {
        let mut packet = packet;
        for act in &mut self.acts {
            if !act.is_active(ctx.now) {
                continue;
            }
            if matches!(act.kind, AdversaryKind::Silence { .. }) {
                act.note(ctx.now, 1, &mut ctx.sink.record);
                return None;
            }
            let (mut done, mut shown) = (0, 0);
            let corrupted = match packet {
                Packet::Gossip(rpc) => {
                    let rpc = act.corrupt_gossip(to, rpc, ctx.me, ctx.shared, &mut done);
                    shown = done;
                    rpc.map(Packet::Gossip)
                }
                Packet::Control(Frame::StepReply { nonce, mesh_time_ns, proposal_ns }) => {
                    let mut lie = |honest| {
                        let lie = act.corrupt_time(to, honest, ctx.me);
                        done += u64::from(lie != honest);
                        lie
                    };
                    let honest_ns = mesh_time_ns;
                    let (mesh_time_ns, proposal_ns) = (mesh_time_ns.map(&mut lie), lie(proposal_ns));
                    let off_ns = honest_ns.zip(mesh_time_ns).map_or(0, |(honest, lie)| honest.abs_diff(lie));
                    shown = u64::from(off_ns >= nanos(ctx.shared.scenario.network.step_interval));
                    Some(Packet::Control(Frame::StepReply { nonce, mesh_time_ns, proposal_ns }))
                }
                Packet::Control(Frame::StepAnnounce { mesh_time_ns }) => {
                    let mesh_time_ns = act.corrupt_time(to, mesh_time_ns, ctx.me);
                    Some(Packet::Control(Frame::StepAnnounce { mesh_time_ns }))
                }
                packet => Some(packet),
            };
            act.note(ctx.now, done, &mut ctx.sink.record);
            if matches!(act.kind.witnesses(), Witnesses::Told(_)) {
                ctx.show(to, shown);
            }
            packet = corrupted?;
        }
        Some(packet)
    }

    /// When it first did something.
    pub(super) fn acted(&self) -> Option<u64> {
        self.acts.iter().filter_map(|act| act.acted).min()
    }
}

impl Node {
    /// Sets the timers of what it will do by itself.
    pub(super) fn plan_mischief(&mut self, ctx: &Ctx<'_>) {
        let Some(mischief) = &self.mischief else { return };
        let begins: Vec<_> = (0..)
            .zip(&mischief.acts)
            .filter(|(_, act)| act.period().is_some())
            .map(|(at, act)| (at, if act.begins_early() { ctx.now } else { act.from.max(ctx.now) }))
            .collect();
        for (act, from) in begins {
            let at = self.local(ctx.now) + Duration::from_nanos(from - ctx.now);
            self.set_timer(at, Timer::Mischief(act));
        }
    }

    /// Keeps what is to be replayed.
    pub(super) fn overhear(&mut self, rpc: &Rpc, ctx: &mut Ctx<'_>) {
        let now = self.local(ctx.now);
        let Some(mischief) = &mut self.mischief else { return };
        let mut timers = Vec::new();
        for (number, act) in (0..).zip(&mut mischief.acts) {
            let AdversaryKind::Replay { after } = act.kind else { continue };
            for message in &rpc.publish {
                if act.kept.len() < KEPT_MAX && act.is_active(ctx.now) {
                    act.kept.push_back((now + after, message.clone()));
                    timers.push((now + after, Timer::Mischief(number)));
                }
            }
        }
        for (at, timer) in timers {
            self.set_timer(at, timer);
        }
    }

    /// Does what it does by itself.
    pub(super) fn misbehave(&mut self, number: u32, ctx: &mut Ctx<'_>) {
        let now = self.local(ctx.now);
        let Some(act) = self.mischief.as_mut().and_then(|mischief| mischief.acts.get_mut(number as usize))
        else {
            return;
        };
        let is_active = act.is_active(ctx.now);
        let mut replayed = Vec::new();
        while act.kept.front().is_some_and(|(at, _)| *at <= now) {
            replayed.extend(act.kept.pop_front().map(|(_, message)| message));
        }
        let kind = act.kind.clone();
        if let Some(period) = act.period().filter(|_| ctx.now < act.until) {
            self.set_timer(now + period, Timer::Mischief(number));
        }
        if matches!(kind, AdversaryKind::Silence { .. }) {
            if !is_active {
                // What it is missed for.
                self.flood(ctx);
            }
            return;
        }
        if !is_active {
            return;
        }
        let done = match kind {
            AdversaryKind::Replay { .. } => {
                for message in &replayed {
                    self.show_to_all(&Rpc::of_message(message.clone()), ctx);
                }
                replayed.len() as u64
            }
            AdversaryKind::Flood { .. } => self.flood(ctx),
            AdversaryKind::Equivocate { .. } => self.equivocate(ctx),
            AdversaryKind::Outsider { .. } => self.intrude(ctx),
            AdversaryKind::Fork { .. } => self.fork(ctx),
            AdversaryKind::Slander { .. } => self.slander(ctx),
            AdversaryKind::Eclipse { .. } | AdversaryKind::Sybil { .. } | AdversaryKind::ColdBoot { .. } => {
                let control = Control { graft: vec![ctx.shared.topic.clone()], ..Control::default() };
                self.send_to_all(&Rpc::of_control(control), ctx)
            }
            // They have no period, so nothing wakes them.
            AdversaryKind::Tamper
            | AdversaryKind::Rush { .. }
            | AdversaryKind::Freeze
            | AdversaryKind::TwoFaced { .. }
            | AdversaryKind::Silence { .. }
            | AdversaryKind::NeverForward
            | AdversaryKind::Censor { .. }
            | AdversaryKind::CovertFlash => 0,
        };
        let acts = self.mischief.as_mut().map(|mischief| &mut mischief.acts);
        if let Some(act) = acts.and_then(|acts| acts.get_mut(number as usize)) {
            act.note(ctx.now, done, &mut ctx.sink.record);
        }
    }

    fn send_to_all(&mut self, rpc: &Rpc, ctx: &mut Ctx<'_>) -> u64 {
        let peers: Vec<u32> = self.ends.iter().filter(|end| end.is_up).map(|end| end.peer).collect();
        for peer in &peers {
            self.transmit(*peer, Packet::Gossip(rpc.clone()), ctx);
        }
        peers.len() as u64
    }

    /// Sends something that gives it away.
    fn show_to_all(&mut self, rpc: &Rpc, ctx: &mut Ctx<'_>) -> u64 {
        let sent = self.send_to_all(rpc, ctx);
        let peers: Vec<u32> = self.ends.iter().filter(|end| end.is_up).map(|end| end.peer).collect();
        peers.into_iter().for_each(|peer| ctx.show(peer, 1));
        sent
    }

    fn noise(&mut self) -> Bytes {
        let mut payload = vec![0; 64];
        rand_core::Rng::fill_bytes(self.rng(), &mut payload);
        Bytes::from(payload)
    }

    fn flood(&mut self, ctx: &mut Ctx<'_>) -> u64 {
        let payload = self.noise();
        let Some(envelope) = self.seal(payload, ctx) else { return 0 };
        ctx.sink.noise.push((envelope.id(), ctx.me));
        self.publish_sealed(envelope, ctx);
        1
    }

    /// A message with a good signature and a tag that only a member could not have made.
    fn intrude(&mut self, ctx: &mut Ctx<'_>) -> u64 {
        let payload = self.noise();
        let Some(sealed) = self.seal(payload, ctx) else { return 0 };
        let secret = MeshSecret::open("elsewhere");
        let interval = ctx.shared.validate.phase_interval;
        let mut patterns = PatternGenerator::new(secret, interval, ctx.shared.validate.pattern_cache);
        let header = sealed.header().clone();
        let pattern = patterns.at(header.step);
        let identity = ctx.shared.identity(ctx.me);
        let Ok(envelope) = Envelope::seal(&identity, pattern, header, sealed.payloads().clone()) else {
            return 0;
        };
        let message = Message::new(ctx.shared.topic.clone(), envelope.as_bytes().clone());
        self.show_to_all(&Rpc::of_message(message), ctx).min(1)
    }

    /// Signs a record for a place in its log that has one, as somebody with a copy of its key would, and tells it to
    /// half of the peers; where the place is free, another one to the other half.
    fn fork(&mut self, ctx: &mut Ctx<'_>) -> u64 {
        let me = ctx.shared.id(ctx.me);
        let (first, second) = (self.noise(), self.noise());
        let log: Vec<Record> =
            self.store().into_iter().flat_map(|store| store.records(&me)).cloned().collect();
        if log.len() < FORKED_LOG_MIN && !self.own_log_is_frozen(ctx) {
            // A log that is worth forking.
            self.append_besides(&first, ctx);
            return 0;
        }
        let Some(step) = self.mesh_step(ctx) else { return 0 };
        let place =
            usize::try_from(rand_core::Rng::next_u64(self.rng()) % (log.len() as u64 + 1)).unwrap_or(0);
        let before = place.checked_sub(1).and_then(|before| log.get(before));
        let step = before.map_or(step, |before| before.step().max(step));
        let forge = |payload| super::log_work::forge((ctx.me, step), before, payload, ctx.shared);
        let (Some(first), Some(second)) = (forge(first), forge(second)) else { return 0 };
        let peers: Vec<u32> = self.ends.iter().filter(|end| end.is_up).map(|end| end.peer).collect();
        if peers.len() < 2 {
            return 0;
        }
        for record in [&first, &second] {
            ctx.sink.noise.push((record.envelope().id(), ctx.me));
        }
        let topic = Topic::new(&record_topic(ctx.shared)).expect("short enough");
        for (number, peer) in peers.iter().enumerate() {
            let record = match (number % 2 == 0, place < log.len()) {
                (true, _) => &first,
                (false, false) => &second,
                (false, true) => continue,
            };
            let message = Message::new(topic.clone(), record.as_bytes().clone());
            self.transmit(*peer, Packet::Gossip(Rpc::of_message(message)), ctx);
        }
        let is_heard = |peer: &&u32| {
            !ctx.shared.dishonest.contains(**peer) && ctx.shared.links.cut(ctx.me, **peer).is_none()
        };
        let halves = [0, 1].map(|first| peers.iter().skip(first).step_by(2).filter(is_heard).count());
        if halves.iter().all(|heard| *heard >= HEARD_MIN) {
            ctx.sink.record.forkers.push(ctx.me);
        }
        1
    }

    /// Two messages of one sequence number, each to half of the peers.
    fn equivocate(&mut self, ctx: &mut Ctx<'_>) -> u64 {
        let (first, second) = (self.noise(), self.noise());
        let Some(first) = self.seal(first, ctx) else { return 0 };
        self.forget_last_seq();
        let Some(second) = self.seal(second, ctx) else { return 0 };
        for envelope in [&first, &second] {
            ctx.sink.noise.push((envelope.id(), ctx.me));
        }
        let peers: Vec<u32> = self.ends.iter().filter(|end| end.is_up).map(|end| end.peer).collect();
        for (number, peer) in peers.iter().enumerate() {
            let envelope = if number % 2 == 0 { &first } else { &second };
            let message = Message::new(ctx.shared.topic.clone(), envelope.as_bytes().clone());
            self.transmit(*peer, Packet::Gossip(Rpc::of_message(message)), ctx);
        }
        1
    }
}

impl Node {
    /// Accuses an honest node of equivocation, with two messages that it has signed itself under the other's name.
    fn slander(&mut self, ctx: &mut Ctx<'_>) -> u64 {
        let (first, second) = (self.noise(), self.noise());
        let Some(step) = self.mesh_step(ctx) else { return 0 };
        let (identity, nodes) = (ctx.shared.identity(ctx.me), ctx.shared.scenario.network.nodes);
        let victim =
            (0..nodes).map(|by| (ctx.me + 1 + by) % nodes).find(|node| !ctx.shared.dishonest.contains(*node));
        let Some(victim) = victim else { return 0 };
        let mut forge = |payload| {
            let sealed = self.seal(payload, ctx)?;
            self.forget_last_seq();
            let (mine, theirs) = (identity.id(), ctx.shared.id(victim));
            let mut bytes = sealed.as_bytes().to_vec();
            let at = bytes.windows(32).position(|part| part == mine.as_bytes())?;
            bytes.get_mut(at..at + 32)?.copy_from_slice(theirs.as_bytes());
            Envelope::decode(&Bytes::from(bytes), ctx.shared.validate.message_bytes_max).ok()
        };
        let (Some(first), Some(second)) = (forge(first), forge(second)) else { return 0 };
        let Some(pair) = Pair::new(&first, &second) else { return 0 };
        let evidence = Evidence::Pair(pair).encode();
        let accusation = Accusation::sign(&identity, ctx.shared.mesh.id(), step, evidence);
        for payload in accusation.to_payloads(ctx.shared.validate.message_bytes_max) {
            self.publish_evidence(payload, ctx);
        }
        1
    }
}

fn record_topic(shared: &Shared) -> String {
    shared.log.as_ref().map_or_else(String::new, |log| log.gossiped_on.topic(&shared.mesh.id()))
}
