//! The state machine; the rules are in the text of the parent module.

mod convict;
mod rounds;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::hash::Hash as StdHash;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use rand_core::Rng;
use smallvec::SmallVec;

use super::accusation::Assembler;
use super::detect::drift::Drift;
use super::detect::equivocation::Memory;
use super::detect::flood::Bringer;
use super::detect::forwarding::{Answers, Counts, Share, Window};
use super::detect::identity::Whereabouts;
use super::detect::latency::Pace;
use super::detect::messages::{self, FORGIVEN, Forgiven, Misdeed};
use super::detect::rhythm::Rhythm;
use super::doubt::Doubt;
use super::finding::{AnomalyKind, Detail, Subject};
use super::places::Places;
use super::quarantine::Quarantines;
use super::records::{Note, Records};
use super::statistics::Bucket;
use super::trust::Weight;
use super::{
    AUTHOR_BYTES, Config, Gate, Input, Ledger, MonitorInput, Output, PEER_BYTES, PerformanceMonitor, Start,
    Timer,
};
use crate::event::Event;
use crate::id::{NodeId, Step};
use crate::identity::Identity;
use crate::machine::Outbox;
use crate::mesh::Mesh;
use crate::pattern::PatternGenerator;
use crate::refusal::Refusal;
use crate::time::Time;

use convict::Known;

/// Time between two looks around.
const TICK: Duration = Duration::from_secs(1);
/// Patterns that are remembered for checking evidence.
const PATTERNS_MAX: usize = 32;
/// Different accused of one kind that are remembered, to see whether everybody is.
const CROWD_MAX: usize = 64;
/// How long they are.
const CROWD_TIME: Duration = Duration::from_secs(10);
/// So many accused are a crowd.
const CROWD_MIN: usize = 3;
/// After a restart a message of an earlier run may come back for so long.
const OWN_PAST: Duration = Duration::from_secs(60);
/// Events of the step that are remembered.
const STEP_EVENTS_MAX: usize = 16;

/// What is known of a connected peer.
#[derive(Debug, Default)]
struct Neighbour {
    node: Option<NodeId>,
    bringer: Bringer,
    forgiven: Forgiven,
    drift: Drift,
    whereabouts: Whereabouts,
    counts: Counts,
    share: Share,
    /// It brought nothing in the last window, and was on trial since.
    is_on_trial: bool,
    /// How long its last answers to the step protocol took.
    answers: Answers,
    /// Messages of others that it brought first since the last tick.
    first: u32,
    /// The score that the router was told.
    told_score: f64,
}

/// What is known of an author.
#[derive(Debug, Default)]
struct AuthorStats {
    bucket: Bucket,
    rhythm: Rhythm,
    pace: Pace,
    wrote: u64,
}

/// What a table takes for a row: its key, its value, and about so much of its own.
const fn row_bytes<K, V>() -> usize {
    size_of::<K>() + size_of::<V>() + 64
}

const _: () = assert!(row_bytes::<NodeId, AuthorStats>() <= AUTHOR_BYTES, "raise AUTHOR_BYTES");
// The longest name that a peer has: libp2p's `PeerId`.
const _: () = assert!(row_bytes::<[u8; 80], Neighbour>() <= PEER_BYTES, "raise PEER_BYTES");

/// Who was accused of one kind lately.
#[derive(Debug)]
struct Crowd<P> {
    since: Time,
    accused: SmallVec<[Subject<P>; 4]>,
}

/// The observer's state.
#[derive(Debug)]
pub struct State<P: StdHash + Eq> {
    config: Config,
    identity: Identity,
    mesh: Mesh,
    message_bytes_max: usize,
    step_interval: Duration,
    node_of: fn(&P) -> Option<NodeId>,
    started: Time,
    step: Option<Step>,
    patterns: PatternGenerator,

    ledger: Ledger<P>,
    monitor: PerformanceMonitor,
    sizes: MonitorInput,
    step_events: VecDeque<(Time, String)>,

    records: Records<P>,
    neighbours: BTreeMap<P, Neighbour>,
    authors: LruCache<NodeId, AuthorStats>,
    crowds: BTreeMap<AnomalyKind, Crowd<P>>,
    window: Window,
    compared: Time,
    doubt: Doubt,
    places: Places,

    memory: Memory,
    known: BTreeMap<NodeId, Known>,
    known_bytes: usize,
    quarantines: Quarantines,
    assembler: Assembler,
    reporters: LruCache<NodeId, Bucket>,
    /// For checking what others bring.
    checks: Bucket,
    prompted: Option<Time>,
    /// Accusations that were published since the last tick.
    announced: usize,
    shed: u64,

    timer: u64,
    /// When the next tick is.
    due: Time,
}

impl<P: Display + Clone + Ord + StdHash> State<P> {
    /// An observer that has seen nothing but what was saved. Pushes the first timer, and who is in quarantine.
    pub fn new(config: Config, start: Start<P>, now: Time, out: &mut Outbox<Output<P>>) -> Self {
        let sized = |max| {
            let mut table = LruCache::unbounded();
            table.resize(max);
            table
        };
        let mut reporters = LruCache::unbounded();
        reporters.resize(convict::REPORTERS_MAX);
        let patterns_max = NonZeroUsize::new(PATTERNS_MAX).expect("not zero");
        let mut state = State {
            patterns: PatternGenerator::new(start.mesh.secret().clone(), start.phase_interval, patterns_max),
            identity: start.identity,
            mesh: start.mesh,
            message_bytes_max: start.message_bytes_max,
            step_interval: start.step_interval,
            node_of: start.node_of,
            started: now,
            step: None,
            ledger: Ledger::new(config.messages_max),
            monitor: PerformanceMonitor::default(),
            sizes: MonitorInput::default(),
            step_events: VecDeque::new(),
            records: Records::new(config.subjects_max, config.trust),
            neighbours: BTreeMap::new(),
            authors: sized(config.authors_max),
            crowds: BTreeMap::new(),
            window: Window::default(),
            compared: now,
            doubt: Doubt::default(),
            places: Places::new(config.places.clone()),
            memory: Memory::new(config.equivocation),
            known: BTreeMap::new(),
            known_bytes: 0,
            quarantines: Quarantines::new(config.quarantine),
            assembler: Assembler::default(),
            reporters,
            checks: Bucket::default(),
            prompted: None,
            announced: 0,
            shed: 0,
            timer: 0,
            due: now,
            config,
        };
        state.window.begin(now);
        state.restore(now, start.saved, out);
        state.arm(now, out);
        state
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        match input {
            Input::Event(step, event) => self.on_event(now, step, &event, out),
            Input::Sizes(sizes) => {
                self.sizes = sizes;
                self.monitor.on_sizes(sizes);
                self.doubt.on_company(sizes.peers, sizes.members_known.saturating_sub(1));
                if !sizes.is_synchronised {
                    self.doubt.on_skew(None, self.step_interval);
                }
            }
            Input::Message(envelope) => self.memory.keep(&envelope),
            Input::Durable { author, from } => self.on_verified(now, &author, &from, None, out),
            Input::Replayed { from, data } => self.on_replayed(now, &from, &data, rng, out),
            Input::Proof(proof) => self.on_proof(now, proof, rng, out),
            Input::Accused { author, payload } => self.on_accused(now, author, &payload, rng, out),
            Input::WrongResult { accused, job, task, others } => {
                let detail = Detail::WrongResult { job, task, others };
                self.suspect(now, &Subject::Node(accused), AnomalyKind::ResultMismatch, detail, out);
            }
            Input::Clocks(readings) => self.on_clocks(now, &readings, out),
            Input::Contributions(list) => self.on_contributions(now, &list, out),
            Input::Connected { peer, ip, is_inbound } => {
                self.on_connected(now, peer, ip, is_inbound, rng, out);
            }
            Input::Disconnected { peer, ip, is_last } => self.on_disconnected(&peer, ip, is_last),
            Input::Health(score) => self.doubt.on_health(score),
            Input::Skew(skew) => self.doubt.on_skew(skew, self.step_interval),
            Input::Step(step) => self.on_step(step, out),
            Input::Quarantine(node) => self.on_quarantine(now, node, out),
            Input::Lift(node) => self.on_lift(node, out),
            Input::Timer(timer) if timer != Timer(self.timer) => {}
            Input::Timer(_) if now < self.due => {
                self.announce_due(now, rng, out);
                self.set_timer(now, out);
            }
            Input::Timer(_) => self.on_tick(now, rng, out),
        }
    }

    fn on_event(&mut self, now: Time, step: Step, event: &Event<P>, out: &mut Outbox<Output<P>>) {
        self.on_step(step, out);
        self.monitor.on_event(now, event);
        self.ledger.on_event(now, step, event);
        match event {
            Event::Verified { author, from, latency_us, .. } => {
                self.on_verified(now, author, from, *latency_us, out);
                return;
            }
            Event::Refused { from, reason, .. } => {
                self.on_brought(now, from, messages::is_in_vain(*reason), out);
                if let Some(neighbour) = self.neighbours.get_mut(from) {
                    neighbour.counts.void = neighbour.counts.void.saturating_add(1);
                }
            }
            Event::Member { member, state: "dead" | "left" } => {
                if let Some(author) = self.authors.peek_mut(member) {
                    author.rhythm.forget();
                }
            }
            Event::Step { detail, .. } => {
                if self.step_events.len() >= STEP_EVENTS_MAX {
                    self.step_events.pop_front();
                }
                self.step_events.push_back((now, detail.chars().take(200).collect()));
            }
            _ => {}
        }
        self.on_own_key(now, event, out);
        if let Some(misdeed) = messages::misdeed(event) {
            self.on_misdeed(now, misdeed, out);
        }
    }

    fn on_verified(
        &mut self,
        now: Time,
        author: &NodeId,
        from: &P,
        latency_us: Option<u64>,
        out: &mut Outbox<Output<P>>,
    ) {
        self.window.on_message();
        let stats = self.authors.get_or_insert_mut(*author, AuthorStats::default);
        stats.wrote = stats.wrote.saturating_add(1);
        stats.rhythm.on_message(now);
        if let Some(latency_us) = latency_us {
            stats.pace.add(latency_us);
        }
        let floods = !stats.bucket.take(now, &self.config.flood.author);
        if let Some(neighbour) = self.neighbours.get_mut(from) {
            if neighbour.node.as_ref() == Some(author) {
                neighbour.counts.void = neighbour.counts.void.saturating_add(1);
            } else {
                neighbour.first = neighbour.first.saturating_add(1);
            }
        }
        if floods {
            let per_second = self.config.flood.author.times_per_second();
            let detail = Detail::Rate { what: "wrote", per_second };
            self.suspect(now, &Subject::Node(*author), AnomalyKind::Flood, detail, out);
        }
        self.on_brought(now, from, false, out);
    }

    fn on_brought(&mut self, now: Time, from: &P, is_in_vain: bool, out: &mut Outbox<Output<P>>) {
        let Some(neighbour) = self.neighbours.get_mut(from) else { return };
        let Some((what, rate)) = neighbour.bringer.on_message(now, is_in_vain, &self.config.flood) else {
            return;
        };
        let detail = Detail::Rate { what, per_second: rate.times_per_second() };
        let subject = self.subject(from);
        self.suspect(now, &subject, AnomalyKind::Flood, detail, out);
    }

    fn on_misdeed(&mut self, now: Time, misdeed: Misdeed<'_, P>, out: &mut Outbox<Output<P>>) {
        let Misdeed { bringer, kind, is_fault, detail } = misdeed;
        let subject = self.subject(bringer);
        let forgiven = match self.neighbours.get_mut(bringer) {
            Some(neighbour) => neighbour.forgiven.take(now, kind, &FORGIVEN),
            // It is gone, or was never here: there is nobody to trust less.
            None => !is_fault,
        };
        if is_fault {
            let doubt = 0.0;
            self.note(now, &subject, (kind, true, detail), (Weight::of(kind, true), doubt), out);
        } else if forgiven {
            self.note(now, &subject, (kind, false, detail), (Weight::None, 0.0), out);
        } else {
            self.suspect(now, &subject, kind, detail, out);
        }
    }

    /// Somebody else signs with this node's key.
    fn on_own_key(&mut self, now: Time, event: &Event<P>, out: &mut Outbox<Output<P>>) {
        let Event::Refused { id, author: Some(author), reason: Refusal::Replay, .. } = event else { return };
        let me = self.identity.id();
        let is_own = || {
            let story = self.ledger.story(id);
            story.is_some_and(|story| {
                story.records.iter().any(|r| matches!(r.outcome, super::Outcome::Published { .. }))
            })
        };
        if *author == me && now.since(self.started) > OWN_PAST && !is_own() {
            let detail = Detail::OwnKey { message: *id };
            let what = (AnomalyKind::DuplicateIdentity, false, detail);
            self.note(now, &Subject::Node(me), what, (Weight::None, 0.0), out);
        }
    }

    fn on_connected(
        &mut self,
        now: Time,
        peer: P,
        ip: Option<IpAddr>,
        is_inbound: bool,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let node = (self.node_of)(&peer);
        if node.is_some_and(|node| self.quarantines.get(&node).is_some()) {
            out.push(Output::Refuse { peer, reason: Gate::Quarantined });
            return;
        }
        if let (Some(node), Some(ip), true) = (node, ip, is_inbound)
            && let Err(reason) = self.places.admit(now, &node, ip)
        {
            out.push(Output::Refuse { peer, reason: reason.into() });
            return;
        }
        if self.neighbours.len() >= self.config.peers_max && !self.neighbours.contains_key(&peer) {
            self.shed = self.shed.saturating_add(1);
            return;
        }
        let neighbour = self.neighbours.entry(peer.clone()).or_default();
        neighbour.node = node;
        let other = ip.and_then(|ip| Some((neighbour.whereabouts.on_connected(ip)?, ip)));
        if let Some((one, other)) = other {
            let what = (AnomalyKind::DuplicateIdentity, false, Detail::Places { one, other });
            self.note(now, &self.subject(&peer), what, (Weight::None, 0.0), out);
        }
        self.note_company();
        self.prompt_announcements(now, rng);
    }

    /// Between two words of the surroundings, who is connected is known here.
    fn note_company(&mut self) {
        let (peers, others) = (self.neighbours.len(), self.sizes.members_known.saturating_sub(1));
        self.doubt.on_company(peers, others.max(peers));
    }

    fn on_disconnected(&mut self, peer: &P, ip: Option<IpAddr>, is_last: bool) {
        if is_last {
            self.neighbours.remove(peer);
            self.note_company();
        } else if let (Some(neighbour), Some(ip)) = (self.neighbours.get_mut(peer), ip) {
            neighbour.whereabouts.on_disconnected(ip);
        }
    }

    /// Notes something that honest nodes do too, if this node is sure enough of itself.
    fn suspect(
        &mut self,
        now: Time,
        subject: &Subject<P>,
        kind: AnomalyKind,
        detail: Detail,
        out: &mut Outbox<Output<P>>,
    ) {
        // What is true of most others is more likely to be this node's own fault.
        let doubt = if self.is_everybodys(now, kind, subject) { 1.0 } else { self.doubt.value(now) };
        self.note(now, subject, (kind, false, detail), (Weight::of(kind, false), doubt), out);
    }

    fn is_everybodys(&mut self, now: Time, kind: AnomalyKind, subject: &Subject<P>) -> bool {
        let crowd = self.crowds.entry(kind).or_insert_with(|| Crowd { since: now, accused: SmallVec::new() });
        if now.since(crowd.since) > CROWD_TIME {
            crowd.since = now;
            crowd.accused.clear();
        }
        if crowd.accused.len() < CROWD_MAX && !crowd.accused.contains(subject) {
            crowd.accused.push(subject.clone());
        }
        crowd.accused.len() >= CROWD_MIN && crowd.accused.len() * 2 > self.neighbours.len()
    }

    fn note(
        &mut self,
        now: Time,
        subject: &Subject<P>,
        (kind, is_fault, detail): (AnomalyKind, bool, Detail),
        (weight, doubt): (Weight, f64),
        out: &mut Outbox<Output<P>>,
    ) {
        if self.config.ignored.contains(&kind) {
            return;
        }
        let reporter = self.identity.id();
        let note = Note { kind, is_fault, detail, weight, doubt, evidence: None, reporter };
        let step = self.step.unwrap_or_default();
        if let Some(finding) = self.records.note(now, step, subject, note) {
            out.push(Output::Found(finding));
        }
    }

    fn subject(&self, peer: &P) -> Subject<P> {
        (self.node_of)(peer).map_or_else(|| Subject::Peer(peer.clone()), Subject::Node)
    }

    fn arm(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        self.due = now + TICK;
        self.set_timer(now, out);
    }

    /// Asks for the next tick, or for something to tell before it.
    fn set_timer(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        self.timer += 1;
        let at = self.next_announcement(now, self.due).unwrap_or(self.due);
        out.push(Output::Timer { at, timer: Timer(self.timer) });
    }

    fn wake_for_announcements(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        if self.next_announcement(now, self.due).is_some() {
            self.set_timer(now, out);
        }
    }

    fn put(&self, (key, value): (Bytes, Bytes), out: &mut Outbox<Output<P>>) {
        out.push(Output::Put { key, value });
    }
}
