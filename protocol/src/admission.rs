//! Admission: who is a member of this mesh and may speak.
//!
//! The transport proves that a peer owns its key; admission has it prove that it knows the mesh secret
//! ([`Mesh::member_proof`]), and looks whether its key is allowed. Only then does any other machine hear
//! of it.
//!
//! ```text
//!  ControlOpened ──► Send(Hello)                                    ControlOpened = our stream to the peer is open
//!  Frame(Hello)  ──► check: version, proof, allow-list ──► Admitted     once both have happened, in any order
//!                                    └─ fails, or silence for 10 s, or another frame ──► Refused, Send(Goodbye), Disconnect
//! ```
//!
//! A peer of another mesh never gets this far: its protocol names differ. The shell learns that from
//! *identify* and gives it in as [`Input::ForeignMesh`], so that both sides can say why nothing happens.
//!
//! **Inputs** are streams, decoded frames and timers. **Outputs** are frames and disconnections, who was
//! admitted, refused and removed, and the frames of admitted peers for the other machines.
//!
//! **Invariants.** At most [`Config::peers_max`] peers, admitted and not; when full, newcomers are
//! refused. At most [`REFUSED_MAX`] refusals are remembered, the oldest is forgotten first; a refusal is
//! told once while it is remembered, however often the peer comes back.
//!
//! **What it does not do.** It does not dial, and it does not count connections: several connections to one
//! peer are one here. A member that leaked the secret is kept out by an allow-list only.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use rand_core::Rng;
use serde::Serialize;

use crate::control::{Agent, Frame, Goodbye, VERSION};
use crate::id::{MeshId, NodeId};
use crate::machine::Outbox;
use crate::mesh::Mesh;
use crate::time::Time;

/// Most refusals that are remembered; the least recently refused is forgotten first.
pub const REFUSED_MAX: usize = 1024;
/// How long a first refusal is remembered, and the peer not dialled; each further one doubles it.
const REFUSED_FOR_MIN: Duration = Duration::from_secs(30);
/// The longest that a refusal is remembered: an operator who mended the cause waits no longer than this.
const REFUSED_FOR_MAX: Duration = Duration::from_secs(600);

/// Whose keys are let in, given that they know the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Everybody's.
    Open,
    /// These only.
    Listed(BTreeSet<NodeId>),
}

/// Times and bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose keys are let in.
    pub admit: Admit,
    /// How long a peer may be silent before its Hello. 10 s (guess): longer than any handshake; too low
    /// refuses peers on bad links, too high lets silent ones hold a place.
    pub hello_timeout: Duration,
    /// Most peers at once, admitted or not. Too low refuses members, too high costs memory.
    pub peers_max: usize,
    /// What we say that we are.
    pub agent: Agent,
}

impl Config {
    /// Open admission with this agent.
    pub fn open(agent: Agent) -> Self {
        Config { admit: Admit::Open, hello_timeout: Duration::from_secs(10), peers_max: 512, agent }
    }
}

/// What happens to admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Our control stream to this peer is open.
    ControlOpened {
        /// Who.
        peer: NodeId,
    },
    /// The last connection to this peer is gone.
    Disconnected {
        /// Who.
        peer: NodeId,
    },
    /// A frame came on this peer's control stream.
    Frame {
        /// Who.
        peer: NodeId,
        /// What.
        frame: Frame,
    },
    /// This peer's protocol names are those of another mesh.
    ForeignMesh {
        /// Who.
        peer: NodeId,
        /// Its mesh.
        mesh: MeshId,
    },
    /// The rule of admission changed. Those who are in and may not stay are refused.
    Admit(Admit),
    /// A timer that was asked for.
    Timer(Timer),
}

/// The one timer that is pending; an older one does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    token: u64,
}

/// What admission wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this frame to this peer.
    Send {
        /// To whom.
        peer: NodeId,
        /// What.
        frame: Frame,
    },
    /// Close all connections to this peer, after what was sent before.
    Disconnect {
        /// Who.
        peer: NodeId,
    },
    /// A peer is a member: the other machines may talk to it.
    Admitted {
        /// Who.
        peer: NodeId,
        /// Its software.
        agent: Agent,
    },
    /// An admitted peer is gone: its connection ended, or it was refused later.
    Removed {
        /// Who.
        peer: NodeId,
    },
    /// A frame of an admitted peer, neither Hello nor Goodbye.
    Deliver {
        /// Whose.
        peer: NodeId,
        /// What.
        frame: Frame,
    },
    /// A peer is no member.
    Refused {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: RefusalReason,
        /// Do not dial it before.
        until: Time,
    },
    /// A peer is about to close, because it ends or because it refused us.
    Goodbye {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: Goodbye,
        /// Do not dial it before.
        until: Time,
    },
    /// Give back this timer at this moment.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
}

/// Why a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// It is of another mesh: another name, or another secret.
    WrongMesh,
    /// It names our mesh but does not know the secret.
    BadProof,
    /// It speaks another version of the protocol.
    Version,
    /// Its key is not on the allow-list.
    NotAllowed,
    /// It did not say Hello in time.
    HelloTimeout,
    /// It sent another frame before its Hello.
    UnexpectedFrame,
    /// There is no room for another peer.
    TooMany,
}

impl RefusalReason {
    /// The stable code, as in metrics and events.
    pub const fn code(self) -> &'static str {
        match self {
            RefusalReason::WrongMesh => "wrong_mesh",
            RefusalReason::BadProof => "bad_proof",
            RefusalReason::Version => "version",
            RefusalReason::NotAllowed => "not_allowed",
            RefusalReason::HelloTimeout => "hello_timeout",
            RefusalReason::UnexpectedFrame => "unexpected_frame",
            RefusalReason::TooMany => "too_many",
        }
    }

    fn goodbye(self) -> Goodbye {
        match self {
            RefusalReason::WrongMesh | RefusalReason::BadProof => Goodbye::WrongMesh,
            RefusalReason::Version => Goodbye::Version,
            RefusalReason::NotAllowed => Goodbye::NotAllowed,
            RefusalReason::HelloTimeout => Goodbye::HelloTimeout,
            RefusalReason::UnexpectedFrame => Goodbye::BadFrame,
            RefusalReason::TooMany => Goodbye::Full,
        }
    }
}

#[derive(Debug)]
struct Peer {
    hello_sent: bool,
    /// From its Hello, once that was found good.
    agent: Option<Agent>,
    deadline: Time,
}

impl Peer {
    fn is_admitted(&self) -> bool {
        self.hello_sent && self.agent.is_some()
    }
}

#[derive(Debug)]
struct Memory {
    until: Time,
    times: u32,
    reason: Option<RefusalReason>,
}

/// The admission of one node.
#[derive(Debug)]
pub struct State {
    config: Config,
    mesh: Mesh,
    node: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    refused: LruCache<NodeId, Memory>,
    refusals: BTreeMap<RefusalReason, u64>,
    armed: Option<(Time, Timer)>,
    last_token: u64,
}

impl State {
    /// Nobody is admitted yet.
    pub fn new(config: Config, mesh: Mesh, node: NodeId) -> Self {
        const REFUSED: NonZeroUsize = NonZeroUsize::new(REFUSED_MAX).unwrap();
        State {
            config,
            mesh,
            node,
            peers: BTreeMap::new(),
            refused: LruCache::new(REFUSED),
            refusals: BTreeMap::new(),
            armed: None,
            last_token: 0,
        }
    }

    /// The one mutator. It draws no randomness.
    pub fn handle(&mut self, now: Time, input: Input, _rng: &mut impl Rng, out: &mut Outbox<Output>) {
        match input {
            Input::ControlOpened { peer } => self.on_opened(now, peer, out),
            Input::Disconnected { peer } => {
                if self.peers.remove(&peer).is_some_and(|peer| peer.is_admitted()) {
                    out.push(Output::Removed { peer });
                }
            }
            Input::Frame { peer, frame } => self.on_frame(now, peer, frame, out),
            Input::ForeignMesh { peer, .. } => self.refuse(now, peer, RefusalReason::WrongMesh, out),
            Input::Admit(admit) => self.on_admit(now, admit, out),
            Input::Timer(timer) => self.on_timer(now, timer, out),
        }
        self.arm(out);
    }

    /// True if this peer is admitted.
    pub fn is_admitted(&self, peer: &NodeId) -> bool {
        self.peers.get(peer).is_some_and(Peer::is_admitted)
    }

    /// The admitted peers and their software, sorted.
    pub fn admitted(&self) -> impl Iterator<Item = (&NodeId, &Agent)> {
        self.peers.iter().filter(|(_, p)| p.hello_sent).filter_map(|(id, p)| Some((id, p.agent.as_ref()?)))
    }

    /// Why this peer was refused a short while ago; `None` if it was not, or if it refused us.
    pub fn refused(&self, now: Time, peer: &NodeId) -> Option<RefusalReason> {
        self.refused.peek(peer).filter(|memory| memory.until > now)?.reason
    }

    /// How often peers were refused, by reason; also when it was not told again.
    pub fn refusals(&self) -> &BTreeMap<RefusalReason, u64> {
        &self.refusals
    }

    /// Panics if something is not as it must be. For tests and the simulator.
    pub fn check_invariants(&self) {
        assert!(self.peers.len() <= self.config.peers_max, "more peers than {}", self.config.peers_max);
        assert!(self.refused.len() <= REFUSED_MAX, "more refusals remembered than {REFUSED_MAX}");
        assert!(!self.peers.contains_key(&self.node), "this node is its own peer");
        let is_waiting = self.peers.values().any(|peer| !peer.is_admitted());
        assert!(!is_waiting || self.armed.is_some(), "a peer waits without a timer");
    }

    /// Makes a place for a peer; refuses it if there is none.
    fn place(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) -> bool {
        if peer == self.node {
            out.push(Output::Disconnect { peer });
            return false;
        }
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= self.config.peers_max {
                self.refuse(now, peer, RefusalReason::TooMany, out);
                return false;
            }
            let deadline = now + self.config.hello_timeout;
            self.peers.insert(peer, Peer { hello_sent: false, agent: None, deadline });
        }
        true
    }

    fn on_opened(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) {
        if !self.place(now, peer, out) {
            return;
        }
        // On every new stream, also of a peer that is admitted: a stream begins with Hello.
        let frame = Frame::Hello {
            version: VERSION,
            proof: self.mesh.member_proof(&self.node, &peer),
            agent: self.config.agent.clone(),
        };
        out.push(Output::Send { peer, frame });
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if !std::mem::replace(&mut known.hello_sent, true) {
            self.settle(peer, out);
        }
    }

    /// Says that a peer is admitted if it just became so.
    fn settle(&mut self, peer: NodeId, out: &mut Outbox<Output>) {
        if let Some(agent) = self.peers.get(&peer).filter(|p| p.hello_sent).and_then(|p| p.agent.clone()) {
            self.refused.pop(&peer);
            out.push(Output::Admitted { peer, agent });
        }
    }

    fn on_frame(&mut self, now: Time, peer: NodeId, frame: Frame, out: &mut Outbox<Output>) {
        match frame {
            Frame::Goodbye(reason) => self.on_goodbye(now, peer, reason, out),
            Frame::Hello { version, proof, agent } => {
                if !self.place(now, peer, out) {
                    return;
                }
                if let Err(reason) = self.check(&peer, version, &proof) {
                    return self.refuse(now, peer, reason, out);
                }
                let Some(known) = self.peers.get_mut(&peer) else { return };
                // A later Hello is that of a new stream, and as good as the first.
                if known.agent.replace(agent).is_none() {
                    self.settle(peer, out);
                }
            }
            frame if self.is_admitted(&peer) => out.push(Output::Deliver { peer, frame }),
            _ => self.refuse(now, peer, RefusalReason::UnexpectedFrame, out),
        }
    }

    fn check(&self, peer: &NodeId, version: u16, proof: &[u8; 32]) -> Result<(), RefusalReason> {
        if version != VERSION {
            return Err(RefusalReason::Version);
        }
        if !self.mesh.verify_member(peer, &self.node, proof) {
            return Err(RefusalReason::BadProof);
        }
        match &self.config.admit {
            Admit::Listed(list) if !list.contains(peer) => Err(RefusalReason::NotAllowed),
            _ => Ok(()),
        }
    }

    fn on_goodbye(&mut self, now: Time, peer: NodeId, reason: Goodbye, out: &mut Outbox<Output>) {
        let just_ends = self.is_admitted(&peer) && reason == Goodbye::Shutdown;
        let until = if just_ends { now } else { self.remember(now, peer, None).0 };
        out.push(Output::Goodbye { peer, reason, until });
        self.drop_peer(peer, out);
    }

    fn on_admit(&mut self, now: Time, admit: Admit, out: &mut Outbox<Output>) {
        self.config.admit = admit;
        if let Admit::Listed(list) = &self.config.admit {
            let unlisted = |(id, peer): &(&NodeId, &Peer)| peer.agent.is_some() && !list.contains(*id);
            let expelled: Vec<NodeId> = self.peers.iter().filter(unlisted).map(|(id, _)| *id).collect();
            for peer in expelled {
                self.refuse(now, peer, RefusalReason::NotAllowed, out);
            }
        }
    }

    fn on_timer(&mut self, now: Time, timer: Timer, out: &mut Outbox<Output>) {
        if self.armed.is_none_or(|(_, armed)| armed != timer) {
            return;
        }
        self.armed = None;
        let is_over = |peer: &Peer| !peer.is_admitted() && peer.deadline <= now;
        let silent: Vec<NodeId> = self.peers.iter().filter(|(_, p)| is_over(p)).map(|(id, _)| *id).collect();
        for peer in silent {
            self.refuse(now, peer, RefusalReason::HelloTimeout, out);
        }
    }

    /// Until when the peer is not to be dialled, and whether this is news.
    fn remember(&mut self, now: Time, peer: NodeId, reason: Option<RefusalReason>) -> (Time, bool) {
        let before = self.refused.pop(&peer);
        let is_news = before.as_ref().is_none_or(|memory| memory.until <= now || memory.reason != reason);
        let (until, times) = match before {
            Some(memory) if memory.until > now => (memory.until, memory.times),
            before => {
                let times = before.map_or(0, |memory| memory.times);
                let wait = REFUSED_FOR_MIN.saturating_mul(1 << times.min(8)).min(REFUSED_FOR_MAX);
                (now + wait, times.saturating_add(1))
            }
        };
        self.refused.put(peer, Memory { until, times, reason });
        (until, is_news)
    }

    fn refuse(&mut self, now: Time, peer: NodeId, reason: RefusalReason, out: &mut Outbox<Output>) {
        let count = self.refusals.entry(reason).or_default();
        *count = count.saturating_add(1);
        let (until, is_news) = self.remember(now, peer, Some(reason));
        if is_news {
            out.push(Output::Refused { peer, reason, until });
        }
        out.push(Output::Send { peer, frame: Frame::Goodbye(reason.goodbye()) });
        self.drop_peer(peer, out);
    }

    fn drop_peer(&mut self, peer: NodeId, out: &mut Outbox<Output>) {
        if self.peers.remove(&peer).is_some_and(|peer| peer.is_admitted()) {
            out.push(Output::Removed { peer });
        }
        out.push(Output::Disconnect { peer });
    }

    fn arm(&mut self, out: &mut Outbox<Output>) {
        let next = self.peers.values().filter(|peer| !peer.is_admitted()).map(|peer| peer.deadline).min();
        let Some(next) = next else { return };
        if self.armed.is_none_or(|(at, _)| next < at) {
            self.last_token += 1;
            let timer = Timer { token: self.last_token };
            self.armed = Some((next, timer));
            out.push(Output::Timer { at: next, timer });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    const SWIM: Frame = Frame::Swim(Bytes::new());

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn agent() -> Agent {
        Agent::new("omnimesh/test")
    }

    fn state(config: Config) -> State {
        State::new(config, Mesh::open("demo").unwrap(), node(0))
    }

    fn hello(from: u8, to: u8, mesh: &str) -> Frame {
        let proof = Mesh::open(mesh).unwrap().member_proof(&node(from), &node(to));
        Frame::Hello { version: VERSION, proof, agent: agent() }
    }

    fn give(state: &mut State, at: u64, input: Input) -> Vec<Output> {
        let mut out = Outbox::new();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        state.handle(Time::from_millis(at), input, &mut rng, &mut out);
        state.check_invariants();
        out.drain().collect()
    }

    fn frame(n: u8, frame: Frame) -> Input {
        Input::Frame { peer: node(n), frame }
    }

    fn refused(n: u8, at: u64, reason: RefusalReason) -> Vec<Output> {
        let (peer, until) = (node(n), Time::from_millis(at + 30_000));
        vec![
            Output::Refused { peer, reason, until },
            Output::Send { peer, frame: Frame::Goodbye(reason.goodbye()) },
            Output::Disconnect { peer },
        ]
    }

    #[test]
    fn a_member_is_admitted_in_either_order() {
        let peer = node(1);
        let admitted = Output::Admitted { peer, agent: agent() };
        let timer = Output::Timer { at: Time::from_millis(10_000), timer: Timer { token: 1 } };
        let send = Output::Send { peer, frame: hello(0, 1, "demo") };

        let mut a = state(Config::open(agent()));
        assert_eq!(give(&mut a, 0, Input::ControlOpened { peer }), [send.clone(), timer.clone()]);
        assert!(!a.is_admitted(&peer));
        assert_eq!(give(&mut a, 5, frame(1, hello(1, 0, "demo"))), std::slice::from_ref(&admitted));
        assert_eq!(give(&mut a, 6, frame(1, SWIM)), [Output::Deliver { peer, frame: SWIM }]);
        assert_eq!(give(&mut a, 10_000, Input::Timer(Timer { token: 1 })), []);
        assert_eq!(a.admitted().collect::<Vec<_>>(), [(&peer, &agent())]);
        assert_eq!(give(&mut a, 10_001, Input::Disconnected { peer }), [Output::Removed { peer }]);

        let mut a = state(Config::open(agent()));
        assert_eq!(give(&mut a, 0, frame(1, hello(1, 0, "demo"))), [timer]);
        assert_eq!(give(&mut a, 1, Input::ControlOpened { peer }), [send, admitted]);
    }

    #[test]
    fn two_machines_admit_each_other() {
        let mut a = state(Config::open(agent()));
        let mut b = State::new(Config::open(agent()), Mesh::open("demo").unwrap(), node(1));
        let sent = |outputs: Vec<Output>| match outputs.into_iter().next() {
            Some(Output::Send { frame, .. }) => frame,
            other => panic!("{other:?}"),
        };
        let of_a = sent(give(&mut a, 0, Input::ControlOpened { peer: node(1) }));
        let of_b = sent(give(&mut b, 0, Input::ControlOpened { peer: node(0) }));
        give(&mut a, 1, frame(1, of_b));
        give(&mut b, 1, frame(0, of_a));
        assert!(a.is_admitted(&node(1)) && b.is_admitted(&node(0)));
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let listed = Config { admit: Admit::Listed([node(9)].into()), ..Config::open(agent()) };
        let mut a = state(listed);
        let old = Frame::Hello { version: 2, proof: [0; 32], agent: agent() };
        // A proof made for somebody else is as bad as one of another secret.
        let relayed = hello(3, 9, "demo");
        let cases = [
            (1, old, RefusalReason::Version),
            (2, hello(2, 0, "other"), RefusalReason::BadProof),
            (3, relayed, RefusalReason::BadProof),
            (4, hello(4, 0, "demo"), RefusalReason::NotAllowed),
            (5, SWIM, RefusalReason::UnexpectedFrame),
        ];
        for (n, first, reason) in cases {
            let mut outputs = give(&mut a, 7, frame(n, first));
            outputs.retain(|output| !matches!(output, Output::Timer { .. }));
            assert_eq!(outputs, refused(n, 7, reason));
            assert_eq!(a.refused(Time::from_millis(8), &node(n)), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
        let foreign = Input::ForeignMesh { peer: node(6), mesh: MeshId::from_bytes([1; 16]) };
        assert_eq!(give(&mut a, 7, foreign.clone()), refused(6, 7, RefusalReason::WrongMesh));
        // The second time it is only sent away.
        assert_eq!(give(&mut a, 9, foreign.clone()), refused(6, 7, RefusalReason::WrongMesh)[1..]);
        assert_eq!(a.refusals()[&RefusalReason::WrongMesh], 2);
        // When the memory fades it is told again, and lasts twice as long.
        let again = give(&mut a, 30_007, foreign);
        assert!(
            matches!(again[0], Output::Refused { until, .. } if until == Time::from_millis(90_007)),
            "{again:?}"
        );
    }

    #[test]
    fn silence_is_refused_and_a_new_stream_is_no_news() {
        let mut a = state(Config::open(agent()));
        give(&mut a, 0, Input::ControlOpened { peer: node(1) });
        give(&mut a, 1, Input::ControlOpened { peer: node(2) });
        give(&mut a, 1, frame(2, hello(2, 0, "demo")));
        assert_eq!(
            give(&mut a, 10_000, Input::Timer(Timer { token: 1 })),
            refused(1, 10_000, RefusalReason::HelloTimeout)
        );
        let (peer, again) = (node(2), Output::Send { peer: node(2), frame: hello(0, 2, "demo") });
        assert_eq!(give(&mut a, 10_001, frame(2, hello(2, 0, "demo"))), []);
        assert_eq!(give(&mut a, 10_002, Input::ControlOpened { peer }), [again]);
        // But its proof is looked at.
        let mut expected = refused(2, 10_003, RefusalReason::BadProof);
        expected.insert(2, Output::Removed { peer });
        assert_eq!(give(&mut a, 10_003, frame(2, hello(2, 0, "other"))), expected);
    }

    #[test]
    fn when_full_the_newcomer_is_refused() {
        let mut a = state(Config { peers_max: 1, ..Config::open(agent()) });
        give(&mut a, 0, Input::ControlOpened { peer: node(1) });
        assert_eq!(
            give(&mut a, 1, Input::ControlOpened { peer: node(2) }),
            refused(2, 1, RefusalReason::TooMany)
        );
    }

    #[test]
    fn a_shorter_list_expels() {
        let mut a = state(Config::open(agent()));
        for n in [1, 2] {
            give(&mut a, 0, Input::ControlOpened { peer: node(n) });
            give(&mut a, 0, frame(n, hello(n, 0, "demo")));
        }
        let mut expected = refused(1, 5, RefusalReason::NotAllowed);
        expected.insert(2, Output::Removed { peer: node(1) });
        assert_eq!(give(&mut a, 5, Input::Admit(Admit::Listed([node(2)].into()))), expected);
        assert!(a.is_admitted(&node(2)));
    }

    #[test]
    fn who_refuses_us_is_not_dialled_for_a_while() {
        let mut a = state(Config::open(agent()));
        let (peer, reason) = (node(1), Goodbye::WrongMesh);
        give(&mut a, 0, Input::ControlOpened { peer });
        let until = Time::from_millis(30_001);
        assert_eq!(
            give(&mut a, 1, frame(1, Frame::Goodbye(reason))),
            [Output::Goodbye { peer, reason, until }, Output::Disconnect { peer }]
        );
        assert_eq!(a.refused(Time::from_millis(2), &peer), None);

        // Nor one that shuts us out later; one that just ends is.
        for (n, reason, wait) in [(2, Goodbye::Quarantined, 30_000), (3, Goodbye::Shutdown, 0)] {
            give(&mut a, 3, Input::ControlOpened { peer: node(n) });
            give(&mut a, 4, frame(n, hello(n, 0, "demo")));
            let outputs = give(&mut a, 5, frame(n, Frame::Goodbye(reason)));
            let until = Time::from_millis(5 + wait);
            assert_eq!(outputs.first(), Some(&Output::Goodbye { peer: node(n), reason, until }));
        }
    }

    fn input() -> impl Strategy<Value = Input> {
        let peer = || (0u8..8).prop_map(node);
        let frames = (0u8..8, 0usize..6).prop_map(|(n, kind)| {
            let frames = [
                hello(n, 0, "demo"),
                hello(n, 0, "other"),
                hello(n, 7, "demo"),
                SWIM,
                Frame::Goodbye(Goodbye::Full),
            ];
            let other = Frame::Hello { version: 9, proof: [0; 32], agent: agent() };
            frame(n, frames.get(kind).cloned().unwrap_or(other))
        });
        prop_oneof![
            4 => peer().prop_map(|peer| Input::ControlOpened { peer }),
            8 => frames,
            1 => peer().prop_map(|peer| Input::Disconnected { peer }),
            1 => peer().prop_map(|peer| Input::ForeignMesh { peer, mesh: MeshId::from_bytes([0; 16]) }),
            2 => (0u64..30).prop_map(|token| Input::Timer(Timer { token })),
            1 => Just(Input::Admit(Admit::Open)),
            1 => peer().prop_map(|peer| Input::Admit(Admit::Listed([peer].into()))),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_heard_before_it_was_admitted(inputs in proptest::collection::vec((0u64..20_000, input()), 1..80)) {
            let mut a = state(Config { peers_max: 4, ..Config::open(agent()) });
            let mut admitted = BTreeSet::new();
            let mut at = 0;
            for (wait, input) in inputs {
                at += wait;
                for output in give(&mut a, at, input) {
                    match output {
                        Output::Admitted { peer, .. } => prop_assert!(admitted.insert(peer)),
                        Output::Removed { peer } => prop_assert!(admitted.remove(&peer)),
                        Output::Deliver { peer, .. } => prop_assert!(admitted.contains(&peer)),
                        _ => {}
                    }
                }
                prop_assert!(a.admitted().map(|(peer, _)| *peer).eq(admitted.iter().copied()));
            }
        }
    }
}
