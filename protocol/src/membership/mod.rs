//! Membership: who is in the mesh, and who is alive.
//!
//! SWIM (Das, Gupta, Motivala 2002) with suspicion, by the `foca` crate, in the shape of this crate's
//! machines, with four things around it: bounds, a local health, a second chance after a partition, and a
//! difference between *dead* and *left*.
//!
//! ```text
//!   every second, one member in shuffled round-robin order:
//!
//!   A ── Ping ──────────────► B          answered: alive
//!   A ◄──────────────── Ack ─ B
//!   A ── PingReq(B) ──► C ── IndirectPing ──► B      after 0.4 s without an Ack, by 3 others
//!   A ◄─ ForwardedAck ─ C ◄─ IndirectAck ──── B
//!   nothing by the end of the second: B is suspect; the rumour travels on every packet;
//!   B hears it and raises its incarnation, or is dead 4 s later
//! ```
//!
//! **Lives.** A node is its [`NodeId`]; its *generation* counts its lives (the shell gives the Unix time
//! of the start in milliseconds). The higher generation wins, so a node that was restarted wins over its
//! dead self. A living node that learns it was declared dead takes a new life by itself
//! ([`Output::Rejoined`]), at most one each second. A node whose clock went backwards between two starts
//! is told by its peers which life they believe in, and steps over it. A generation above 2⁶³ is believed
//! only from the node itself, so that nobody can use up another's numbers.
//!
//! **Left.** SWIM knows only *down*. A node that leaves takes a last life that is marked as *left* and
//! declares that life down; the mark travels with the rumour. If none of the 9 packets arrives, it is
//! found dead like any other.
//!
//! **Local health** (`health.rs`). Late timers and failing probes make this node doubt itself: suspects
//! get up to twice the time; a verdict whose own timer came late waits until the packets that may be
//! queued have been read; nobody is declared dead who was seen after the suspicion began.
//!
//! **Partitions.** SWIM never speaks to the dead again. Here, every 5 s, a node *knocks* (announces
//! itself) at up to two members that are dead, or connected but not yet members. Two living nodes that
//! hold each other for dead both take a new life, and the rumour brings the islands together.
//!
//! **Inputs** are packets of admitted peers, their connections, timers, and what others know of members.
//! **Outputs** are packets, timers and changes. A packet may be for a peer that is not connected: the
//! shell dials it or drops the packet.
//!
//! **Invariants.** A packet's sender is the authenticated peer. At most [`Config::members_max`] members:
//! when full, a living newcomer replaces the one that has been dead for longest, and is refused if nobody
//! is. Rumours that wait to be told are at most three times as many. One timer of each kind is pending
//! (one for each suspect).
//!
//! **What it does not do.** It probes one member in a period, so who is left alone with n dead finds the
//! last of them after n periods (one dead among many is found in under 15 s, see the tests). A member is
//! trusted to speak of others: it can declare a living one dead (which then comes back by itself), or
//! invent members (which are found dead). What a quarantined peer says of others and of us is ignored
//! here; that nobody listens to a liar for long is the observer's work.

mod api;
mod health;
mod packets;
mod view;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use foca::{Foca, NoCustomBroadcast, Notification};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub use self::api::{Config, ConfigError, Event, Input, Local, Output, Refusal, Timer, UpCause};
pub use self::health::{HEALTH_DEGRADED, HEALTH_MAX, HealthCause};
pub use self::view::{Counts, Member, MemberState};
pub(crate) use self::wire::bounded;
pub use self::wire::{ADDRESSES_MAX, PACKET_BYTES_MAX};

use self::health::Health;
use self::view::{Entry, View};
use self::wire::{Codec, Id};
use crate::id::{NodeId, Step};
use crate::machine::Outbox;
use crate::time::Time;

/// Shortest time between two lives of this node, and between two corrections of one peer.
const REJOIN_PERIOD: Duration = Duration::from_secs(1);
/// How many are knocked at in one round.
const KNOCKS: usize = 2;
/// How many times the news of leaving is gossiped, to three members each.
const FAREWELLS: usize = 3;

/// A kind of timer. Their order is the order in which they run when due at the same moment, which is
/// foca's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Indirect,
    Probe,
    Suspicion(NodeId),
    Announce,
    Gossip,
    Knock,
    Rejoin,
}

#[derive(Debug)]
struct Due {
    at: Time,
    started: Time,
    /// It came late once and was put off.
    deferred: bool,
    /// `None` for the wrapper's own.
    swim: Option<foca::Timer<Id>>,
}

/// What foca wants done in one call.
#[derive(Debug, Default)]
struct Effects {
    sends: Vec<(NodeId, Bytes)>,
    timers: Vec<(foca::Timer<Id>, Duration)>,
    defunct: bool,
}

impl foca::Runtime<Id> for Effects {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        // Members are compared with the view afterwards; only this one shows nowhere else.
        self.defunct |= matches!(notification, Notification::Defunct);
    }

    fn send_to(&mut self, to: Id, data: &[u8]) {
        self.sends.push((to.node, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: foca::Timer<Id>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// The membership of one node.
pub struct State {
    config: Config,
    node: NodeId,
    foca: Foca<Id, Codec, ChaCha8Rng, NoCustomBroadcast>,
    effects: Effects,
    view: View,
    /// Admitted peers and the addresses the shell knows, at most `members_max`.
    connected: BTreeMap<NodeId, Vec<String>>,
    /// At most `members_max`.
    quarantined: BTreeSet<NodeId>,
    due: BTreeMap<Slot, Due>,
    armed: Option<(Time, Timer)>,
    last_token: u64,
    health: Health,
    /// An answer came since the last probe began.
    answered: bool,
    probing: bool,
    /// The newest life of ours that others were heard to believe in.
    claimed: u64,
    /// Who said so, or that we are dead.
    accuser: Option<NodeId>,
    rejoined: Option<Time>,
    left: bool,
    now: Time,
    step: Option<Step>,
    refusals: BTreeMap<Refusal, u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("membership::State")
            .field("node", &self.node)
            .field("view", &self.view)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl State {
    /// A node that knows nobody yet.
    ///
    /// # Errors
    /// If the configuration cannot work.
    pub fn new(config: Config, local: Local, rng: &mut impl Rng) -> Result<Self, ConfigError> {
        config.check()?;
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let id = Id::new(local.node, local.generation, local.addresses);
        let foca = Foca::new(id, config.swim(), ChaCha8Rng::from_seed(seed), Codec::default());
        Ok(State {
            config,
            node: local.node,
            foca,
            effects: Effects::default(),
            view: View::default(),
            connected: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            due: BTreeMap::new(),
            armed: None,
            last_token: 0,
            health: Health::default(),
            answered: false,
            probing: false,
            claimed: 0,
            accuser: None,
            rejoined: None,
            left: false,
            now: Time::ZERO,
            step: None,
            refusals: BTreeMap::new(),
        })
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        self.now = now;
        if self.left {
            return;
        }
        match input {
            Input::Connected { peer, addresses } => self.on_connected(peer, addresses),
            Input::Disconnected { peer } => {
                self.connected.remove(&peer);
            }
            Input::Packet { from, bytes } => self.on_packet(now, from, &bytes, out),
            Input::Timer(timer) => self.on_timer(now, timer, rng, out),
            Input::Addresses(addresses) => self.on_addresses(addresses),
            Input::Leave => self.on_leave(),
            Input::Quarantine { peer } => {
                if peer != self.node && self.quarantined.len() < self.config.members_max {
                    self.quarantined.insert(peer);
                }
            }
            Input::Lift { peer } => {
                self.quarantined.remove(&peer);
            }
            Input::Claim { peer, step } if peer == self.node => self.step = self.step.max(Some(step)),
            Input::Claim { peer, step } => self.entry(peer, |entry| entry.step = entry.step.max(Some(step))),
            Input::Seen { peer } => self.entry(peer, |entry| entry.last_seen = now),
            Input::Rtt { peer, rtt } => self.entry(peer, |entry| entry.rtt = Some(rtt)),
        }
        self.settle(now, rng, out);
    }

    /// Everybody, sorted by id, this node included.
    pub fn members(&self) -> Vec<Member> {
        let others = self.view.entries.iter().map(|(id, entry)| Member {
            id: *id,
            state: self.state_of(entry),
            step: entry.step,
            addresses: match self.connected.get(id) {
                Some(known) if entry.addresses.is_empty() => known.clone(),
                _ => entry.addresses.to_vec(),
            },
            last_seen: entry.last_seen,
            rtt: entry.rtt,
        });
        let me = Member {
            id: self.node,
            state: if self.left { MemberState::Left } else { MemberState::Alive },
            step: self.step,
            addresses: self.foca.identity().addresses.to_vec(),
            last_seen: self.now,
            rtt: None,
        };
        let mut members: Vec<Member> = others.collect();
        let at = members.partition_point(|member| member.id < me.id);
        members.insert(at, me);
        members
    }

    /// The state of one member; `None` if it is not known. Cheaper than [`State::members`].
    pub fn member_state(&self, id: &NodeId) -> Option<MemberState> {
        self.view.get(id).map(|entry| self.state_of(entry))
    }

    /// How many are in which state.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts.add(if self.left { MemberState::Left } else { MemberState::Alive });
        for entry in self.view.entries.values() {
            counts.add(self.state_of(entry));
        }
        counts
    }

    /// How much this node doubts itself: 0 is healthy, [`HEALTH_MAX`] the worst.
    pub fn local_health(&self) -> u8 {
        self.health.score()
    }

    /// Which of its lives this node is in.
    pub fn generation(&self) -> u64 {
        self.foca.identity().generation
    }

    /// How often something was refused, by reason.
    pub fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refusals
    }

    /// Panics if something is not as it must be. For tests and the simulator.
    pub fn check_invariants(&self) {
        let max = self.config.members_max;
        assert!(self.view.entries.len() <= max, "more members than {max}");
        assert!(self.connected.len() <= max && self.quarantined.len() <= max, "more peers than {max}");
        assert!(!self.view.entries.contains_key(&self.node), "this node is in its own list");
        assert!(self.due.len() <= max + 6, "more timers than kinds and members");
        assert!(self.foca.updates_backlog() <= 3 * max + 1, "more rumours than {max} three times");
        assert!(self.effects.sends.is_empty() && self.effects.timers.is_empty(), "effects left behind");
        assert!(self.left || self.armed.is_some(), "no timer is pending");
        self.health.check_invariants();
        let swim = self.foca.iter_membership_state();
        assert_eq!(swim.len(), self.view.entries.len(), "the view is not foca's list");
        for member in swim {
            let entry = self.view.get(&member.id().node).expect("the view lacks a member of foca's");
            assert_eq!(entry.id, *member.id(), "the view has another life than foca");
        }
    }

    fn state_of(&self, entry: &Entry) -> MemberState {
        if self.quarantined.contains(&entry.id.node) { MemberState::Quarantined } else { entry.swim }
    }

    fn entry(&mut self, peer: NodeId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.view.entries.get_mut(&peer) {
            change(entry);
        }
    }

    fn refuse(&mut self, from: NodeId, reason: Refusal, out: &mut Outbox<Output>) {
        let count = self.refusals.entry(reason).or_default();
        *count = count.saturating_add(1);
        out.push(Output::Event(Event::Refused { from, reason }));
    }

    fn on_connected(&mut self, peer: NodeId, addresses: Vec<String>) {
        let has_room = self.connected.len() < self.config.members_max || self.connected.contains_key(&peer);
        if peer == self.node || !has_room {
            return;
        }
        self.connected.insert(peer, bounded(addresses));
        let now = self.now;
        self.entry(peer, |entry| entry.last_seen = now);
        self.announce(peer);
    }

    /// Tells a peer that we are here, in whichever life it may be.
    fn announce(&mut self, peer: NodeId) {
        let id = self.view.get(&peer).map_or_else(|| Id::any_life(peer), |entry| entry.id.clone());
        // Cannot fail: a header always fits.
        let _ = self.foca.announce(id, &mut self.effects);
    }

    fn on_addresses(&mut self, addresses: Vec<String>) {
        let me = self.foca.identity();
        let next = Id::new(self.node, me.generation.saturating_add(1), addresses);
        if next.addresses != me.addresses && next != *me {
            // Others take over the new life with the next packet; nobody sees us down.
            let _ = self.foca.change_identity(next, &mut self.effects);
            let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        }
    }

    fn on_leave(&mut self) {
        let me = self.foca.identity();
        let last = Id { left: true, generation: me.generation.saturating_add(1), ..me.clone() };
        let _ = self.foca.change_identity(last, &mut self.effects);
        // Those packets say only that the old life is over.
        self.effects.sends.clear();
        let _ = self.foca.leave_cluster(&mut self.effects);
        for _ in 1..FAREWELLS {
            let _ = self.foca.gossip(&mut self.effects);
        }
        self.left = true;
    }

    fn on_timer(&mut self, now: Time, timer: Timer, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let Some((at, _)) = self.armed.filter(|(_, armed)| *armed == timer) else {
            return;
        };
        self.armed = None;
        let late = now.since(at);
        let is_late = late > self.config.late_after;
        if is_late {
            let cause = self.health.on_late(late);
            self.report(cause, out);
        }
        let mut due: Vec<(Time, Slot)> =
            self.due.iter().filter(|(_, due)| due.at <= now).map(|(slot, due)| (due.at, *slot)).collect();
        due.sort_unstable();
        for (_, slot) in due {
            self.run(now, slot, is_late, rng, out);
        }
        self.sync(now, out);
    }

    fn run(&mut self, now: Time, slot: Slot, is_late: bool, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let Some(mut due) = self.due.remove(&slot) else {
            return;
        };
        if let Some(at) = self.put_off(now, slot, &mut due, is_late) {
            due.at = at;
            self.due.insert(slot, due);
            return;
        }
        match slot {
            Slot::Knock => self.knock(now, rng, out),
            Slot::Rejoin => self.effects.defunct = true,
            _ => {}
        }
        let Some(timer) = due.swim else {
            return;
        };
        // Its errors are about timers that have become stale, and change nothing.
        let _ = self.foca.handle_timer(timer, &mut self.effects);
        if slot == Slot::Probe {
            self.on_probe_over(out);
        }
    }

    /// When a verdict must wait, until when.
    fn put_off(&self, now: Time, slot: Slot, due: &mut Due, is_late: bool) -> Option<Time> {
        let Slot::Suspicion(node) = slot else {
            // The answer to the last probe may be in the queue behind this timer.
            let wait = slot == Slot::Probe && is_late && !due.deferred;
            due.deferred |= wait;
            return wait.then(|| now + self.config.probe_period);
        };
        if is_late && !due.deferred {
            due.deferred = true;
            return Some(now + self.config.probe_period);
        }
        let suspicion = self.health.suspicion(self.config.suspect_to_down);
        if self.view.get(&node).is_some_and(|entry| entry.last_seen > due.started) {
            due.started = now;
        }
        let end = due.started + suspicion;
        (end > now).then_some(end)
    }

    /// The probe of the last period is judged and the next one has begun.
    fn on_probe_over(&mut self, out: &mut Outbox<Output>) {
        let has_failed = self
            .effects
            .timers
            .iter()
            .any(|(timer, _)| matches!(timer, foca::Timer::ChangeSuspectToDown { .. }));
        let was_probing = std::mem::replace(&mut self.probing, self.foca.num_members() > 0);
        let was_answered = std::mem::take(&mut self.answered);
        let cause = match (was_probing, has_failed) {
            (true, true) => self.health.on_probe_failed(),
            (true, false) if was_answered => self.health.on_good(),
            _ => None,
        };
        self.report(cause, out);
    }

    fn report(&self, cause: Option<HealthCause>, out: &mut Outbox<Output>) {
        if let Some(cause) = cause {
            out.push(Output::Event(Event::LocalHealth { score: self.health.score(), cause }));
        }
    }

    /// Forgets those that have been gone for long, and tries some of the others.
    fn knock(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let old = |entry: &Entry| !entry.is_active() && now.since(entry.since) >= self.config.forget_after;
        let forgotten: Vec<NodeId> =
            self.view.entries.iter().filter(|(_, entry)| old(entry)).map(|(node, _)| *node).collect();
        for node in forgotten {
            self.forget(node);
        }
        if self.foca.num_members() == 0 {
            let cause = self.health.on_good();
            self.report(cause, out);
        }
        let dead = self.view.entries.iter().filter(|(_, entry)| entry.swim == MemberState::Dead);
        let strangers = self.connected.keys().filter(|peer| !self.view.entries.contains_key(*peer));
        let mut doors: Vec<NodeId> = dead.map(|(node, _)| node).chain(strangers).copied().collect();
        doors.retain(|node| !self.quarantined.contains(node));
        let (chosen, _) = doors.partial_shuffle(rng, KNOCKS);
        for node in chosen.iter().copied() {
            self.announce(node);
        }
    }

    /// Takes a new life, now or when the last one is old enough.
    fn rejoin(&mut self, now: Time, out: &mut Outbox<Output>) {
        if let Some(at) = self.rejoined.map(|at| at + REJOIN_PERIOD).filter(|at| *at > now) {
            self.due.entry(Slot::Rejoin).or_insert(Due { at, started: now, deferred: false, swim: None });
            return;
        }
        let me = self.foca.identity();
        let generation = me.generation.max(self.claimed).saturating_add(1);
        let next = Id { generation, left: false, ..me.clone() };
        if next == *me {
            return;
        }
        self.rejoined = Some(now);
        self.due.remove(&Slot::Rejoin);
        let _ = self.foca.change_identity(next, &mut self.effects);
        // Without news foca would not notice that it is among members and start to probe.
        let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        if let Some(accuser) = self.accuser.take() {
            self.announce(accuser);
        }
        out.push(Output::Rejoined { generation });
    }

    fn sync(&mut self, now: Time, out: &mut Outbox<Output>) {
        for member in self.foca.iter_membership_state() {
            self.view.sync(member, now, out);
        }
    }

    /// Carries out what foca wanted, and asks for the next timer.
    fn settle(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        if std::mem::take(&mut self.effects.defunct) && !self.left {
            self.rejoin(now, out);
        }
        for (to, packet) in std::mem::take(&mut self.effects.sends) {
            if self.view.get(&to).is_some() || self.connected.contains_key(&to) {
                out.push(Output::Send { to, packet });
            } else {
                self.refuse(to, Refusal::UnknownTarget, out);
            }
        }
        for (timer, after) in std::mem::take(&mut self.effects.timers) {
            self.schedule(now, timer, after);
        }
        if self.left {
            self.due.clear();
            self.armed = None;
            return;
        }
        // The first knock comes at a random moment, so that nodes started together do not knock together.
        let period = crate::time::nanos(self.config.knock_period);
        self.due.entry(Slot::Knock).or_insert_with(|| {
            let at = now + self.config.knock_period / 2 + Duration::from_nanos(rng.next_u64() % period);
            Due { at, started: now, deferred: false, swim: None }
        });
        let next = self.due.values().map(|due| due.at).min().expect("the next knock is always due");
        if self.armed.is_none_or(|(at, _)| next < at) {
            self.last_token += 1;
            let timer = Timer { token: self.last_token };
            self.armed = Some((next, timer));
            out.push(Output::Timer { at: next, timer });
        }
    }

    fn schedule(&mut self, now: Time, timer: foca::Timer<Id>, after: Duration) {
        let (slot, after) = match &timer {
            foca::Timer::SendIndirectProbe { .. } => (Slot::Indirect, after),
            foca::Timer::ProbeRandomMember(_) => (Slot::Probe, after),
            foca::Timer::ChangeSuspectToDown { member_id, .. } => {
                (Slot::Suspicion(member_id.node), self.health.suspicion(after))
            }
            foca::Timer::PeriodicAnnounce(_) => (Slot::Announce, after),
            foca::Timer::PeriodicGossip(_) => (Slot::Gossip, after),
            // Switched off by the configuration.
            foca::Timer::PeriodicAnnounceDown(_) | foca::Timer::RemoveDown(_) => return,
        };
        let is_same = |due: &Due| due.swim.as_ref() == Some(&timer);
        // A suspect that fails another probe does not get more time. Of all other kinds only the newest counts.
        if matches!(slot, Slot::Suspicion(_)) && self.due.get(&slot).is_some_and(is_same) {
            return;
        }
        let due = Due { at: now + after, started: now, deferred: false, swim: Some(timer) };
        self.due.insert(slot, due);
    }
}
