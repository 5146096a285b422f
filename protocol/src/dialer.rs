//! Dialer: whom to connect to.
//!
//! ```text
//!  bootstrap addresses ──► dialled for ever, 1 s … 30 s apart ─────────────┐
//!  members, discovery ──► address book ──► random ones up to target_peers ─┼──► Dial ──► Connected | DialFailed
//!                                  ├────► Wanted: at once, rate-limited ───┤
//!                                  └────► dead ones, one each 10 s ────────┘
//! ```
//!
//! **Backoff.** After the n-th failure in a row an address or peer waits `min(20 s, 1 s · 2ⁿ⁻¹)` times a
//! random factor of 1 to 1.5. A bootstrap address is never given up. While there are as many peers as
//! wanted, it is tried at the longest wait only, so that a bootstrap node is not crowded by a large mesh.
//! Bootstrap addresses of one peer are dialled together: one that leads nowhere (a network that is not
//! reached from here, a firewall that swallows UDP) must not keep the others waiting until it times out.
//!
//! **Islands.** Dead members stay in the book. Every [`Config::dead_period`] one of them, at random among
//! those whose backoff allows it, is dialled: one dial each 10 s, however many are dead. A node without any
//! connection dials dead members like living ones.
//!
//! **Cut off.** A connection to a member that is said to be dead is closed once nothing was heard on it for
//! [`SILENT_MAX`]: a new one is made sooner than the old one recovers. One on which something is heard stays:
//! whoever was cut off from all comes back with the news that all are dead.
//!
//! **The book** holds at most [`Config::book_max`] peers of at most [`ADDRESSES_MAX`] addresses. When it
//! is full, a newcomer replaces the peer with the most failures among those that were never connected,
//! else among those that fail; with neither, it is dropped. A peer that never connected is forgotten
//! after [`UNPROVEN_FAILURES_MAX`] failures, any other after [`Config::forget_after`] of failures. The
//! shell stores what [`State::book`] tells and gives it back as [`Input::Book`], so that a node without
//! bootstrap addresses finds its mesh again.
//!
//! **Inputs** are connections, failures, addresses and wishes. **Outputs** are dials (answered by their
//! id), connections to close, events and timers.
//!
//! **Invariants.** Never dialled: this node, who is connected or being dialled, who is refused or
//! quarantined. At most [`DIALS_MAX`] dials under way. At most [`Config::peers_max`] connections are
//! kept: the newcomer is trimmed, unless we dialled it; then a random one that dialled us. Everything
//! about a peer is bounded by the book or a constant.
//!
//! **What it does not do.** It does not read addresses, and does not know whether a connection speaks for
//! a member: admission does, and says [`Input::Refused`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IteratorRandom, SliceRandom};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::machine::Outbox;
use crate::membership::{ADDRESSES_MAX, bounded};
use crate::time::Time;

/// Most dials under way at once. 8: libp2p's default concurrency of one dial's addresses; a guess here.
pub const DIALS_MAX: usize = 8;
/// Most bootstrap addresses; more are dropped.
pub const BOOTSTRAP_MAX: usize = 64;
/// Most refused, and most quarantined, peers that are remembered; of the refused the one that may be
/// dialled soonest is forgotten first, of the quarantined the newcomer is not taken in.
pub const SHUNNED_MAX: usize = 1024;
/// A peer that never connected is forgotten after this many failures: some three minutes.
pub const UNPROVEN_FAILURES_MAX: u32 = 10;
/// The first wait after a failure, and the longest before jitter.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// A dial that the shell never answered counts as failed after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection to a dead member is closed after so long without a sign of life on it. 6 s: more than a living
/// one is silent, for which the shell sees to it (it pings every 5 s).
pub const SILENT_MAX: Duration = Duration::from_secs(6);
/// How often it looks whether there are enough peers, if nothing happens.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// Dials on demand: so many at once, and one more each so often.
const WANTED_BURST: u32 = 8;
const WANTED_PERIOD: Duration = Duration::from_millis(500);

/// Numbers of peers, and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// So many connections are sought. 12: gossipsub's upper degree (v1.0, `D_high`), so that the router
    /// can choose; a mesh of fewer nodes becomes full. Too low and gossip has no spare links.
    pub target_peers: usize,
    /// So many connections are kept. 128 (guess): 1 to 2 MiB each at worst. Lower than the target and
    /// connections flap.
    pub peers_max: usize,
    /// Most peers in the book. 1,024 (guess): below 3 MiB at worst.
    pub book_max: usize,
    /// One dead member is dialled in each. 10 s (guess).
    pub dead_period: Duration,
    /// A peer that was once connected is forgotten after so long without success. 24 h, as in membership.
    pub forget_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            target_peers: 12,
            peers_max: 128,
            book_max: 1024,
            dead_period: Duration::from_secs(10),
            forget_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// An address to join by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// A multiaddress.
    pub address: String,
    /// The peer that is there, if the address names it.
    pub peer: Option<NodeId>,
}

/// A peer as the shell stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookEntry {
    /// Who.
    pub peer: NodeId,
    /// Where.
    pub addresses: Vec<String>,
    /// It was connected before.
    pub proven: bool,
}

/// Where addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Membership: the peer itself told them. They replace what was known.
    Member,
    /// Anything else (identify, mDNS, Kademlia): they are added while there is room.
    Hint,
}

/// Names a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// What happens to the dialer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Begin; before it, nothing is dialled.
    Start,
    /// A stored book.
    Book(Vec<BookEntry>),
    /// A peer is connected. Every dial is answered by this or by `DialFailed`, also if the peer was
    /// connected already by the time.
    Connected {
        /// Who.
        peer: NodeId,
        /// By which of our dials; `None` if it dialled us.
        dial: Option<DialId>,
    },
    /// The last connection to a peer is gone.
    Disconnected {
        /// Who.
        peer: NodeId,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Which.
        dial: DialId,
        /// The address turned out to be this node's own.
        is_self: bool,
    },
    /// A peer's addresses, and thereby that it is thought to be alive if a member.
    Learned {
        /// Who.
        peer: NodeId,
        /// Where.
        addresses: Vec<String>,
        /// Who says so.
        source: Source,
    },
    /// A member is dead.
    MemberDown {
        /// Who.
        peer: NodeId,
    },
    /// Something came over the connection to a peer.
    Heard {
        /// Who.
        peer: NodeId,
    },
    /// Do not dial this peer before.
    Refused {
        /// Who.
        peer: NodeId,
        /// From then on it may be tried again.
        until: Time,
    },
    /// Do not dial this peer until it is lifted.
    Quarantined {
        /// Who.
        peer: NodeId,
    },
    /// The end of a quarantine.
    Lifted {
        /// Who.
        peer: NodeId,
    },
    /// There is something to send to a peer that is not connected.
    Wanted {
        /// Who.
        peer: NodeId,
    },
    /// A timer that was asked for.
    Timer(Timer),
}

/// The one timer that is pending; an older one does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    token: u64,
}

/// What the dialer wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial, and answer with `Connected` or `DialFailed`.
    Dial {
        /// Repeat this in the answer.
        dial: DialId,
        /// Whom to expect there; `None` for a bootstrap address that does not say.
        peer: Option<NodeId>,
        /// Where; all of them may be tried at once.
        addresses: Vec<String>,
    },
    /// Close the connections to this peer: there are too many, or these are dead.
    Trim {
        /// Who.
        peer: NodeId,
    },
    /// For the log.
    Event(Event),
    /// Give back this timer at this moment.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bootstrap address could not be reached; it is tried again.
    BootstrapUnreachable {
        /// Which.
        address: String,
        /// How often in a row.
        attempts: u32,
        /// When it is tried again.
        next_in: Duration,
    },
    /// A bootstrap peer was reached, has said something, and is not refused.
    BootstrapConnected {
        /// The first of its addresses.
        address: String,
        /// Who is there.
        peer: NodeId,
    },
    /// A bootstrap peer closed the connection before it said anything; it is tried again.
    BootstrapMute {
        /// The first of its addresses.
        address: String,
        /// How often in a row, with those that did not reach it.
        attempts: u32,
        /// When it is tried again.
        next_in: Duration,
    },
    /// A bootstrap address is this node's own and is not tried again.
    BootstrapIsSelf {
        /// Which.
        address: String,
    },
}

#[derive(Debug)]
struct Boot {
    address: String,
    peer: Option<NodeId>,
    attempts: u32,
    next: Time,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<String>,
    proven: bool,
    is_dead: bool,
    failures: u32,
    failing_since: Time,
    next: Time,
}

#[derive(Debug)]
struct Connection {
    /// We dialled it.
    is_ours: bool,
    /// Since when nothing came over it.
    heard: Time,
    /// Whether anything did.
    is_heard: bool,
    /// Membership says that the peer is dead.
    is_doubted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Boot(usize),
    Peer(NodeId),
}

#[derive(Debug)]
struct Dialling {
    target: Target,
    /// `None` for a bootstrap address that does not say.
    peer: Option<NodeId>,
    since: Time,
}

/// The dialer of one node.
#[derive(Debug)]
pub struct State {
    config: Config,
    node: NodeId,
    is_started: bool,
    boots: Vec<Boot>,
    book: BTreeMap<NodeId, Entry>,
    connected: BTreeMap<NodeId, Connection>,
    dialling: BTreeMap<DialId, Dialling>,
    refused: BTreeMap<NodeId, Time>,
    quarantined: BTreeSet<NodeId>,
    last_dial: u64,
    next_dead: Time,
    next_look: Time,
    wanted_left: u32,
    wanted_at: Time,
    armed: Option<(Time, Timer)>,
    last_token: u64,
}

impl State {
    /// A node that is connected to nobody. Bootstrap addresses that name this node are left out.
    pub fn new(config: Config, node: NodeId, bootstrap: Vec<Bootstrap>) -> Self {
        let mut boots: Vec<Boot> = Vec::new();
        for Bootstrap { address, peer } in bootstrap {
            let is_known = boots.iter().any(|boot| boot.address == address);
            if boots.len() < BOOTSTRAP_MAX && peer != Some(node) && !is_known {
                boots.push(Boot { address, peer, attempts: 0, next: Time::ZERO });
            }
        }
        State {
            config,
            node,
            is_started: false,
            boots,
            book: BTreeMap::new(),
            connected: BTreeMap::new(),
            dialling: BTreeMap::new(),
            refused: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            last_dial: 0,
            next_dead: Time::ZERO,
            next_look: Time::ZERO,
            wanted_left: WANTED_BURST,
            wanted_at: Time::ZERO,
            armed: None,
            last_token: 0,
        }
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        match input {
            Input::Start => {
                self.is_started = true;
                self.next_dead = now + self.config.dead_period;
            }
            Input::Book(entries) => self.on_book(now, entries),
            Input::Connected { peer, dial } => self.on_connected(now, peer, dial, rng, out),
            Input::Disconnected { peer } => self.on_disconnected(now, peer, rng, out),
            Input::DialFailed { dial, is_self } => self.on_failed(now, dial, is_self, rng, out),
            Input::Learned { peer, addresses, source } => self.on_learned(now, peer, addresses, source),
            Input::MemberDown { peer } => {
                if let Some(entry) = self.book.get_mut(&peer) {
                    entry.is_dead = true;
                }
                if let Some(connection) = self.connected.get_mut(&peer) {
                    connection.is_doubted = true;
                }
                self.close_silent(now, out);
            }
            Input::Heard { peer } => return self.on_heard(now, peer, out),
            Input::Refused { peer, until } => self.on_refused(now, peer, until),
            Input::Quarantined { peer } => {
                if self.quarantined.len() < SHUNNED_MAX {
                    self.quarantined.insert(peer);
                }
            }
            Input::Lifted { peer } => {
                self.quarantined.remove(&peer);
            }
            Input::Wanted { peer } => self.on_wanted(now, peer, out),
            Input::Timer(timer) => {
                if self.armed.is_none_or(|(_, armed)| armed != timer) {
                    return;
                }
                self.armed = None;
                self.close_silent(now, out);
            }
        }
        if self.is_started {
            self.look(now, rng, out);
            self.arm(now, out);
        }
    }

    /// What the shell should store, sorted.
    pub fn book(&self) -> Vec<BookEntry> {
        let entry = |(peer, entry): (&NodeId, &Entry)| BookEntry {
            peer: *peer,
            addresses: entry.addresses.clone(),
            proven: entry.proven,
        };
        self.book.iter().map(entry).collect()
    }

    /// How many peers are connected.
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    /// Panics if something is not as it must be. For tests and the simulator.
    pub fn check_invariants(&self) {
        assert!(self.book.len() <= self.config.book_max, "the book is too thick");
        assert!(self.book.values().all(|entry| entry.addresses.len() <= ADDRESSES_MAX), "too many addresses");
        assert!(self.dialling.len() <= DIALS_MAX, "too many dials");
        assert!(self.connected.len() <= self.config.peers_max, "too many peers");
        assert!(
            self.refused.len() <= SHUNNED_MAX && self.quarantined.len() <= SHUNNED_MAX,
            "too many shunned"
        );
        assert!(!self.book.contains_key(&self.node), "this node is in its own book");
        assert!(self.wanted_left <= WANTED_BURST, "too many dials on demand");
        let mut targets: Vec<NodeId> = self.dialling.values().filter_map(|d| d.peer).collect();
        targets.sort_unstable();
        assert!(targets.windows(2).all(|pair| pair.first() != pair.last()), "a peer is dialled twice");
        assert!(!self.is_started || self.armed.is_some(), "no timer is pending");
    }

    fn on_book(&mut self, now: Time, entries: Vec<BookEntry>) {
        for BookEntry { peer, addresses, proven } in entries.into_iter().take(self.config.book_max) {
            self.on_learned(now, peer, addresses, Source::Hint);
            if let Some(entry) = self.book.get_mut(&peer) {
                entry.proven |= proven;
            }
        }
    }

    fn on_learned(&mut self, now: Time, peer: NodeId, addresses: Vec<String>, source: Source) {
        let addresses = bounded(addresses);
        if peer == self.node || (addresses.is_empty() && !self.book.contains_key(&peer)) {
            return;
        }
        if !self.book.contains_key(&peer) && !self.make_room() {
            return;
        }
        let proven = self.connected.contains_key(&peer);
        let entry = self.book.entry(peer).or_insert_with(|| Entry {
            addresses: Vec::new(),
            proven,
            is_dead: false,
            failures: 0,
            failing_since: now,
            next: now,
        });
        match source {
            Source::Member => {
                if let Some(connection) = self.connected.get_mut(&peer) {
                    connection.is_doubted = false;
                }
                // It said so itself a moment ago: worth a dial at once.
                if !addresses.is_empty() && entry.addresses != addresses {
                    entry.addresses = addresses;
                }
                if std::mem::take(&mut entry.is_dead) {
                    entry.failures = 0;
                    entry.next = now;
                }
            }
            Source::Hint => {
                let known = std::mem::take(&mut entry.addresses);
                entry.addresses = bounded(known.into_iter().chain(addresses).collect());
            }
        }
    }

    fn make_room(&mut self) -> bool {
        if self.book.len() < self.config.book_max {
            return true;
        }
        let is_idle = |peer: &NodeId| !self.connected.contains_key(peer);
        let worst = self
            .book
            .iter()
            .filter(|(peer, entry)| is_idle(peer) && (!entry.proven || entry.failures > 0))
            .max_by_key(|(peer, entry)| (!entry.proven, entry.failures, **peer))
            .map(|(peer, _)| *peer);
        worst.is_some_and(|peer| self.book.remove(&peer).is_some())
    }

    fn on_connected(
        &mut self,
        now: Time,
        peer: NodeId,
        dial: Option<DialId>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) {
        let dialled = dial.and_then(|dial| self.dialling.remove(&dial));
        if let Some(Dialling { target: Target::Boot(index), .. }) = dialled
            && let Some(boot) = self.boots.get_mut(index)
        {
            boot.peer = Some(peer);
        }
        if peer == self.node {
            return;
        }
        if let Some(entry) = self.book.get_mut(&peer) {
            entry.proven = true;
            entry.is_dead = false;
            entry.next = now;
        }
        let is_ours = dialled.is_some();
        let connection = Connection { is_ours, heard: now, is_heard: false, is_doubted: false };
        if let Some(known) = self.connected.get_mut(&peer) {
            let is_ours = known.is_ours || is_ours;
            *known = Connection { is_ours, is_heard: known.is_heard, ..connection };
            return;
        }
        if self.connected.len() < self.config.peers_max {
            self.connected.insert(peer, connection);
            return;
        }
        let inbound = self.connected.iter().filter(|(_, other)| !other.is_ours).map(|(peer, _)| *peer);
        match inbound.choose(rng).filter(|_| connection.is_ours) {
            Some(other) => {
                self.connected.remove(&other);
                self.connected.insert(peer, connection);
                out.push(Output::Trim { peer: other });
            }
            None => out.push(Output::Trim { peer }),
        }
    }

    /// It talks to us: only now the dial has succeeded.
    fn on_heard(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(connection) = self.connected.get_mut(&peer) else { return };
        connection.heard = now;
        if std::mem::replace(&mut connection.is_heard, true) {
            return;
        }
        if let Some(entry) = self.book.get_mut(&peer) {
            entry.failures = 0;
        }
        let is_ours = connection.is_ours;
        let mut first = None;
        for boot in self.boots.iter_mut().filter(|boot| boot.peer == Some(peer)) {
            boot.attempts = 0;
            first.get_or_insert_with(|| boot.address.clone());
        }
        // Whoever is refused was not reached.
        if let Some(address) = first.filter(|_| is_ours && !self.is_shunned(now, &peer)) {
            out.push(Output::Event(Event::BootstrapConnected { address, peer }));
        }
    }

    fn on_disconnected(&mut self, now: Time, peer: NodeId, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let Some(connection) = self.connected.remove(&peer) else { return };
        // Not at once: if the other side closed it, it had a reason. If it said nothing, that is a dial of ours that failed; whom
        // we refuse is left alone anyway.
        let is_mute = connection.is_ours && !connection.is_heard && !self.is_shunned(now, &peer);
        let mut wait = |failures: &mut u32| {
            *failures = failures.saturating_add(u32::from(is_mute));
            backoff((*failures).max(1), rng)
        };
        if let Some(entry) = self.book.get_mut(&peer) {
            if entry.failures == 0 {
                entry.failing_since = now;
            }
            entry.next = entry.next.max(now + wait(&mut entry.failures));
        }
        let mut boots = self.boots.iter_mut().filter(|boot| boot.peer == Some(peer));
        let Some(first) = boots.next() else { return };
        let next_in = wait(&mut first.attempts);
        let (address, attempts) = (first.address.clone(), first.attempts);
        first.next = first.next.max(now + next_in);
        for boot in boots {
            (boot.attempts, boot.next) = (attempts, boot.next.max(now + next_in));
        }
        if is_mute {
            out.push(Output::Event(Event::BootstrapMute { address, attempts, next_in }));
        }
    }

    /// Closes what membership thinks dead and where nothing was heard for long. The peer counts as connected until
    /// the shell says that it is not.
    fn close_silent(&mut self, now: Time, out: &mut Outbox<Output>) {
        for (peer, connection) in &mut self.connected {
            if connection.is_doubted && now.since(connection.heard) >= SILENT_MAX {
                connection.is_doubted = false;
                out.push(Output::Trim { peer: *peer });
            }
        }
    }

    fn on_failed(
        &mut self,
        now: Time,
        dial: DialId,
        is_self: bool,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) {
        let Some(Dialling { target, peer, .. }) = self.dialling.remove(&dial) else {
            return;
        };
        if peer.is_some_and(|peer| self.connected.contains_key(&peer)) {
            // It was quicker to dial us.
            return;
        }
        match target {
            Target::Boot(index) => {
                let Some(boot) = self.boots.get_mut(index) else { return };
                if is_self {
                    // Its place is kept: dials name it by its index.
                    boot.peer = Some(self.node);
                    out.push(Output::Event(Event::BootstrapIsSelf { address: boot.address.clone() }));
                    return;
                }
                let attempts = boot.attempts.saturating_add(1);
                let next_in = backoff(attempts, rng);
                for boot in self.boots_like(index) {
                    boot.attempts = attempts;
                    boot.next = now + next_in;
                    let address = boot.address.clone();
                    out.push(Output::Event(Event::BootstrapUnreachable { address, attempts, next_in }));
                }
            }
            Target::Peer(peer) => {
                let Some(entry) = self.book.get_mut(&peer) else { return };
                if entry.failures == 0 {
                    entry.failing_since = now;
                }
                entry.failures = entry.failures.saturating_add(1);
                entry.next = now + backoff(entry.failures, rng);
                let is_hopeless = if entry.proven || entry.is_dead {
                    now.since(entry.failing_since) >= self.config.forget_after
                } else {
                    entry.failures >= UNPROVEN_FAILURES_MAX
                };
                if is_self || (is_hopeless && !self.connected.contains_key(&peer)) {
                    self.book.remove(&peer);
                }
            }
        }
    }

    fn on_refused(&mut self, now: Time, peer: NodeId, until: Time) {
        self.refused.retain(|_, until| *until > now);
        self.refused.insert(peer, until);
        if self.refused.len() > SHUNNED_MAX {
            let soonest =
                self.refused.iter().min_by_key(|(peer, until)| (**until, **peer)).map(|(peer, _)| *peer);
            soonest.map(|peer| self.refused.remove(&peer));
        }
    }

    fn on_wanted(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) {
        let periods = now.since(self.wanted_at).as_nanos() / WANTED_PERIOD.as_nanos();
        if periods > 0 {
            let periods = u32::try_from(periods).unwrap_or(u32::MAX);
            self.wanted_left = self.wanted_left.saturating_add(periods).min(WANTED_BURST);
            self.wanted_at = now;
        }
        if self.is_started && self.wanted_left > 0 && self.may_dial(now, &peer) {
            self.wanted_left -= 1;
            self.dial_peer(now, peer, out);
        }
    }

    fn is_shunned(&self, now: Time, peer: &NodeId) -> bool {
        self.quarantined.contains(peer) || self.refused.get(peer).is_some_and(|until| *until > now)
    }

    /// True if the peer is in the book, and neither it nor we would mind a dial.
    fn may_dial(&self, now: Time, peer: &NodeId) -> bool {
        let is_due =
            self.book.get(peer).is_some_and(|entry| entry.next <= now && !entry.addresses.is_empty());
        let is_dialled = self.dialling.values().any(|dialling| dialling.peer == Some(*peer));
        is_due
            && !is_dialled
            && !self.connected.contains_key(peer)
            && !self.is_shunned(now, peer)
            && self.dialling.len() < DIALS_MAX
            && self.connected.len() < self.config.peers_max
    }

    fn dial_peer(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) {
        let addresses = self.book.get(&peer).map(|entry| entry.addresses.clone()).unwrap_or_default();
        self.dial(now, Target::Peer(peer), Some(peer), addresses, out);
    }

    fn dial(
        &mut self,
        now: Time,
        target: Target,
        peer: Option<NodeId>,
        addresses: Vec<String>,
        out: &mut Outbox<Output>,
    ) {
        self.last_dial += 1;
        let dial = DialId(self.last_dial);
        self.dialling.insert(dial, Dialling { target, peer, since: now });
        out.push(Output::Dial { dial, peer, addresses });
    }

    /// Dials whom it is time to dial.
    fn look(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let is_over = |dialling: &Dialling| now.since(dialling.since) >= DIAL_TIMEOUT;
        let over: Vec<DialId> = self.dialling.iter().filter(|(_, d)| is_over(d)).map(|(id, _)| *id).collect();
        for dial in over {
            self.on_failed(now, dial, false, rng, out);
        }
        self.dial_bootstrap(now, rng, out);
        if now >= self.next_dead {
            self.next_dead = now + self.config.dead_period;
            let dead = self.book.iter().filter(|(_, entry)| entry.is_dead).map(|(peer, _)| *peer);
            if let Some(peer) = dead.filter(|peer| self.may_dial(now, peer)).choose(rng) {
                self.dial_peer(now, peer, out);
            }
        }
        if now >= self.next_look || self.connected.is_empty() {
            self.next_look = now + LOOK_PERIOD;
            self.fill(now, rng, out);
        }
    }

    fn dial_bootstrap(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let has_enough = self.connected.len() >= self.config.target_peers;
        for index in 0..self.boots.len() {
            let is_dialled = self.dialling.values().any(|dialling| dialling.target == Target::Boot(index));
            let is_full = self.dialling.len() >= DIALS_MAX || self.connected.len() >= self.config.peers_max;
            let Some(boot) = self.boots.get(index) else { return };
            let peer = boot.peer;
            let is_done = peer.is_some_and(|peer| {
                peer == self.node
                    || self.connected.contains_key(&peer)
                    || self.is_shunned(now, &peer)
                    || self.dialling.values().any(|dialling| dialling.peer == Some(peer))
            });
            if is_dialled || is_full || is_done || boot.next > now {
                continue;
            }
            let addresses = self.boots_like(index).map(|boot| boot.address.clone()).collect();
            if has_enough {
                // Whatever comes of it, the next time is far.
                for boot in self.boots_like(index) {
                    boot.attempts = boot.attempts.max(16);
                    boot.next = now + backoff(boot.attempts, rng);
                }
            }
            self.dial(now, Target::Boot(index), peer, addresses, out);
        }
    }

    /// The bootstrap addresses that are dialled together with this one: those of the same peer.
    fn boots_like(&mut self, index: usize) -> impl Iterator<Item = &mut Boot> {
        let peer = self.boots.get(index).and_then(|boot| boot.peer);
        let is_like = move |at: usize, boot: &Boot| at == index || (peer.is_some() && boot.peer == peer);
        self.boots.iter_mut().enumerate().filter(move |(at, boot)| is_like(*at, boot)).map(|(_, boot)| boot)
    }

    fn fill(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        let wanted = self.config.target_peers.min(self.config.peers_max);
        let missing = wanted.saturating_sub(self.connected.len() + self.dialling.len());
        if missing == 0 {
            return;
        }
        let is_alone = self.connected.is_empty();
        let candidates =
            self.book.iter().filter(|(_, entry)| is_alone || !entry.is_dead).map(|(peer, _)| *peer);
        let mut candidates: Vec<NodeId> = candidates.filter(|peer| self.may_dial(now, peer)).collect();
        let (chosen, _) = candidates.partial_shuffle(rng, missing);
        for peer in chosen.iter().copied() {
            if self.dialling.len() < DIALS_MAX {
                self.dial_peer(now, peer, out);
            }
        }
    }

    fn arm(&mut self, now: Time, out: &mut Outbox<Output>) {
        let idle_boots = self.boots.iter().map(|boot| boot.next).filter(|next| *next > now);
        // What is due but blocked waits for the next look.
        let look = if self.next_look > now { self.next_look } else { now + LOOK_PERIOD };
        let next = idle_boots.chain([look]).min().unwrap_or(look);
        if self.armed.is_none_or(|(at, _)| next < at || at <= now) {
            self.last_token += 1;
            let timer = Timer { token: self.last_token };
            self.armed = Some((next, timer));
            out.push(Output::Timer { at: next, timer });
        }
    }
}

/// How long to wait after so many failures in a row: 1 s to 30 s.
fn backoff(failures: u32, rng: &mut impl Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX).mul_f64(1.0 + rng.random::<f64>() / 2.0)
}

#[cfg(test)]
#[path = "dialer_tests.rs"]
mod tests;
