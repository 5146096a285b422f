//! Lists of operations, hostile ones among them, against a small model of what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::gossip::wire::{Refused, RefusedReason};
use omnimesh_protocol::gossip::{
    Choke, Config, Control, Direction, IHave, Input, Message, Output, Protocol, Prune, Rpc, State,
    Subscription, Timer, Topic, TreeConfig, Verdict,
};
use omnimesh_protocol::{MessageId, Outbox, Time};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::bench::{authored, topic};

const TOPICS: u8 = 4;
const DATA: u8 = 12;

#[derive(Clone, Debug)]
enum Op {
    Connect(u32, u8, bool),
    Disconnect(u32),
    Subscribe(u8),
    Unsubscribe(u8),
    Publish(u8, u8),
    Subscription(u32, bool, u8),
    Messages(u32, Vec<(u8, u8)>),
    IHave(u32, u8, Vec<u8>),
    IWant(u32, Vec<u8>),
    Graft(u32, Vec<u8>),
    Prune(u32, u8, Option<u64>),
    IDontWant(u32, Vec<u8>),
    Everything(u32, u8, u8),
    Verdict(u8, u8, u8),
    VerdictOfFirst(u8),
    Malformed(u32),
    Refused(u32, u8),
    AppScore(u32, i8),
    Choke(u32, u8, u64),
    Unchoke(u32, u8, u64),
    Wait(u16),
    Beat,
    /// A timer of tree mode comes, due or not.
    TreeTimer(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let peer = || 0..14u32;
    let name = || 0..TOPICS;
    let datum = || 0..DATA;
    prop_oneof![
        6 => (peer(), 0..7u8, any::<bool>()).prop_map(|(p, v, d)| Op::Connect(p, v, d)),
        2 => peer().prop_map(Op::Disconnect),
        3 => name().prop_map(Op::Subscribe),
        1 => name().prop_map(Op::Unsubscribe),
        3 => (name(), datum()).prop_map(|(t, d)| Op::Publish(t, d)),
        8 => (peer(), prop::bool::weighted(0.8), 0..40u8).prop_map(|(p, s, t)| Op::Subscription(p, s, t)),
        8 => (peer(), prop::collection::vec((name(), datum()), 1..4)).prop_map(|(p, m)| Op::Messages(p, m)),
        4 => (peer(), name(), prop::collection::vec(datum(), 0..6)).prop_map(|(p, t, i)| Op::IHave(p, t, i)),
        4 => (peer(), prop::collection::vec(datum(), 0..6)).prop_map(|(p, i)| Op::IWant(p, i)),
        6 => (peer(), prop::collection::vec(name(), 1..3)).prop_map(|(p, t)| Op::Graft(p, t)),
        3 => (peer(), name(), prop::option::of(prop_oneof![0..100u64, any::<u64>()]))
            .prop_map(|(p, t, b)| Op::Prune(p, t, b)),
        3 => (peer(), prop::collection::vec(datum(), 0..6)).prop_map(|(p, i)| Op::IDontWant(p, i)),
        2 => (peer(), name(), datum()).prop_map(|(p, t, d)| Op::Everything(p, t, d)),
        2 => (name(), datum(), 0..3u8).prop_map(|(t, d, v)| Op::Verdict(t, d, v)),
        8 => (0..8u8).prop_map(Op::VerdictOfFirst),
        1 => peer().prop_map(Op::Malformed),
        1 => (peer(), name()).prop_map(|(p, t)| Op::Refused(p, t)),
        1 => (peer(), any::<i8>()).prop_map(|(p, s)| Op::AppScore(p, s)),
        4 => (peer(), name(), trees()).prop_map(|(p, t, s)| Op::Choke(p, t, s)),
        3 => (peer(), name(), trees()).prop_map(|(p, t, s)| Op::Unchoke(p, t, s)),
        2 => any::<u16>().prop_map(Op::Wait),
        6 => Just(Op::Beat),
        4 => any::<u8>().prop_map(Op::TreeTimer),
    ]
}

/// The trees in use, some of them, or any.
fn trees() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0b111), 1..8u64, any::<u64>().prop_map(|trees| trees.max(1))]
}

fn name(at: u8) -> Topic {
    topic(&format!("topic {at}"))
}

/// The tree that a message takes.
fn tree(at: u8) -> u8 {
    at % 3
}

/// Some data are large, so that IDONTWANT and the bound of the cache play a part. Those of the first tree are
/// no envelopes.
fn data(at: u8) -> Bytes {
    let rest = vec![at; if at.is_multiple_of(4) { 900 } else { 30 }];
    if tree(at) == 0 { Bytes::from(rest) } else { authored(tree(at), &rest) }
}

fn id(at: u8) -> MessageId {
    MessageId::of(&data(at))
}

fn verdict(at: u8) -> Verdict {
    match at {
        0 => Verdict::Reject,
        1 => Verdict::Ignore,
        _ => Verdict::Accept,
    }
}

/// What the outside knows.
struct Model {
    state: State<u32>,
    rng: ChaCha8Rng,
    now: Time,
    next_beat: (Time, Timer),
    /// The timers of tree mode, in the order in which they were asked for.
    timers: Vec<(Time, Timer)>,
    connected: BTreeSet<u32>,
    /// Copies that a peer sent and that were not shed, since it connected.
    sent_to_us: BTreeSet<(u32, Topic, MessageId)>,
    /// Who was pruned, by whomever, until when.
    backoffs: BTreeMap<(u32, Topic), Time>,
    /// Nodes of OmniMesh.
    nodes: BTreeSet<u32>,
    /// In which trees which mesh link is lazy, after what was said.
    lazy: BTreeMap<(u32, Topic), u64>,
    /// Peers of v1.0, which are not told for how long they are pruned.
    untold: BTreeSet<u32>,
    validated: BTreeSet<(Topic, MessageId)>,
    waiting: Vec<(Topic, MessageId)>,
}

impl Model {
    fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut out = Outbox::new();
        let state = State::new(Arc::new(config), Time::ZERO, &mut rng, &mut out).expect("valid");
        let mut model = Model {
            state,
            rng,
            now: Time::ZERO,
            next_beat: (Time::ZERO, Timer::Heartbeat { beat: 1 }),
            timers: Vec::new(),
            connected: BTreeSet::new(),
            sent_to_us: BTreeSet::new(),
            backoffs: BTreeMap::new(),
            nodes: BTreeSet::new(),
            lazy: BTreeMap::new(),
            untold: BTreeSet::new(),
            validated: BTreeSet::new(),
            waiting: Vec::new(),
        };
        model.look_at(false, &mut out);
        model
    }

    fn apply(&mut self, op: Op) {
        let control = |control| Rpc::of_control(control);
        match op {
            Op::Connect(peer, protocol, outbound) => {
                let protocol = match protocol {
                    0 => Protocol::Meshsub10,
                    1 => Protocol::Meshsub11,
                    2 => Protocol::Meshsub12,
                    _ => Protocol::Omnimesh1,
                };
                let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
                if self.connected.insert(peer) {
                    match protocol {
                        Protocol::Meshsub10 => self.untold.insert(peer),
                        Protocol::Omnimesh1 => self.nodes.insert(peer),
                        Protocol::Meshsub11 | Protocol::Meshsub12 => false,
                    };
                }
                self.handle(Input::Connected { peer, protocol, direction, ip: None });
            }
            Op::Disconnect(peer) => self.disconnect(peer),
            Op::Subscribe(t) => self.handle(Input::Subscribe(name(t))),
            Op::Unsubscribe(t) => self.handle(Input::Unsubscribe(name(t))),
            Op::Publish(t, d) => self.handle(Input::Publish { topic: name(t), data: data(d) }),
            Op::Subscription(from, subscribe, t) => {
                let subscriptions = vec![Subscription { subscribe, topic: name(t) }];
                self.rpc(from, Rpc { subscriptions, ..Rpc::default() });
            }
            Op::Messages(from, messages) => {
                for (t, d) in messages {
                    self.rpc(from, Rpc::of_message(Message::new(name(t), data(d))));
                }
            }
            Op::IHave(from, t, ids) => {
                let ihave = vec![IHave { topic: name(t), ids: ids.into_iter().map(id).collect() }];
                self.rpc(from, control(Control { ihave, ..Control::default() }));
            }
            Op::IWant(from, ids) => {
                self.rpc(
                    from,
                    control(Control { iwant: ids.into_iter().map(id).collect(), ..Control::default() }),
                );
            }
            Op::Graft(from, topics) => {
                self.rpc(
                    from,
                    control(Control { graft: topics.into_iter().map(name).collect(), ..Control::default() }),
                );
            }
            Op::Prune(from, t, backoff_s) => {
                let prune = vec![Prune { topic: name(t), backoff_s }];
                self.rpc(from, control(Control { prune, ..Control::default() }));
            }
            Op::IDontWant(from, ids) => {
                let idontwant = ids.into_iter().map(id).collect();
                self.rpc(from, control(Control { idontwant, ..Control::default() }));
            }
            Op::Everything(from, t, d) => self.rpc(from, everything(t, d)),
            Op::Verdict(t, d, v) => {
                self.handle(Input::Verdict { topic: name(t), id: id(d), verdict: verdict(v) });
            }
            Op::VerdictOfFirst(v) => {
                if !self.waiting.is_empty() {
                    let (topic, id) = self.waiting.remove(0);
                    self.handle(Input::Verdict { topic, id, verdict: verdict(v) });
                }
            }
            Op::Malformed(from) => self.handle(Input::Malformed { from }),
            Op::Refused(from, t) => {
                let refused = vec![Refused { topic: Some(name(t)), reason: RefusedReason::Key }];
                self.handle(Input::Refused { from, refused });
            }
            Op::AppScore(peer, score) => self.handle(Input::AppScore { peer, score: f64::from(score) }),
            Op::Choke(from, t, trees) => {
                let choke = vec![Choke { topic: name(t), trees }];
                self.rpc(from, control(Control { choke, ..Control::default() }));
            }
            Op::Unchoke(from, t, trees) => {
                let unchoke = vec![Choke { topic: name(t), trees }];
                self.rpc(from, control(Control { unchoke, ..Control::default() }));
            }
            Op::TreeTimer(at) => {
                if !self.timers.is_empty() {
                    let (at, timer) = self.timers.remove(usize::from(at) % self.timers.len());
                    self.now = at.max(self.now);
                    self.handle(Input::Timer(timer));
                }
            }
            Op::Wait(ms) => self.now = self.now + Duration::from_millis(u64::from(ms)),
            Op::Beat => self.beat(),
        }
    }

    fn disconnect(&mut self, peer: u32) {
        self.connected.remove(&peer);
        self.nodes.remove(&peer);
        self.sent_to_us.retain(|(sender, _, _)| *sender != peer);
        self.handle(Input::Disconnected { peer });
    }

    fn rpc(&mut self, from: u32, rpc: Rpc) {
        let shed_before = self.state.stats().shed_messages;
        let subscribed = self.state.topics();
        let is_heard = self.connected.contains(&from);
        let sent: Vec<_> = rpc.publish.iter().map(|m| (from, m.topic().clone(), m.id())).collect();
        if let Some(control) = rpc.control.as_ref().filter(|_| is_heard) {
            for prune in control.prune.iter().filter(|prune| subscribed.contains(&prune.topic)) {
                let asked = prune.backoff_s.map_or(self.state.config().prune_backoff, Duration::from_secs);
                self.note_backoff(from, &prune.topic, asked.min(Duration::from_secs(3_600)));
            }
        }
        // Noted before, as what the router says to this frame must respect it already; unless it was shed.
        let noted: Vec<_> = sent
            .into_iter()
            .filter(|(_, topic, _)| is_heard && subscribed.contains(topic))
            .filter(|copy| self.sent_to_us.insert(copy.clone()))
            .collect();
        self.note_chokes(from, &rpc);
        self.handle(Input::Rpc { from, rpc });
        if self.state.stats().shed_messages > shed_before {
            noted.iter().for_each(|copy| {
                self.sent_to_us.remove(copy);
            });
        }
    }

    /// What a frame with CHOKE or UNCHOKE, and nothing else, says of a mesh link.
    fn note_chokes(&mut self, from: u32, rpc: &Rpc) {
        let Some(control) = rpc.control.as_ref().filter(|_| self.nodes.contains(&from)) else { return };
        let is_heard = |choke: &&Choke| self.state.mesh_peers(&choke.topic).contains(&from);
        let chokes: Vec<Choke> = control.choke.iter().filter(is_heard).cloned().collect();
        let unchokes: Vec<Choke> = control.unchoke.iter().filter(is_heard).cloned().collect();
        for Choke { topic, trees } in chokes {
            *self.lazy.entry((from, topic)).or_default() |= trees;
        }
        for Choke { topic, trees } in unchokes {
            *self.lazy.entry((from, topic)).or_default() &= !trees;
        }
    }

    fn note_backoff(&mut self, peer: u32, topic: &Topic, backoff: Duration) {
        let until = self.backoffs.entry((peer, topic.clone())).or_default();
        *until = (*until).max(self.now + backoff);
    }

    fn beat(&mut self) {
        let (at, timer) = self.next_beat;
        self.now = at.max(self.now);
        self.handle(Input::Timer(timer));
        let config = self.state.config();
        let most = config.mesh_degree_high + config.mesh_degree_out + config.opportunistic_graft_peers;
        for topic in self.state.topics() {
            let mesh = self.state.mesh_peers(&topic);
            assert!(mesh.len() <= most, "degree after a heartbeat");
            if mesh.len() < config.mesh_degree_low {
                for peer in self.state.topic_peers(&topic) {
                    if self.untold.contains(&peer) {
                        continue;
                    }
                    let until = self.backoffs.get(&(peer, topic.clone())).copied().unwrap_or_default();
                    let is_free =
                        until + config.backoff_slack <= self.now && self.state.score(&peer) >= Some(0.0);
                    assert!(mesh.contains(&peer) || !is_free, "{peer} could be grafted into {topic}");
                }
            }
        }
    }

    fn handle(&mut self, input: Input<u32>) {
        let mut out = Outbox::new();
        let is_answer = matches!(input, Input::Rpc { .. });
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.state.check_invariants();
        self.look_at(is_answer, &mut out);
        // A link that has left the mesh begins anew.
        let state = &self.state;
        self.lazy.retain(|(peer, topic), trees| *trees != 0 && state.mesh_peers(topic).contains(peer));
        let links: BTreeSet<&(u32, Topic)> = self.lazy.keys().collect();
        assert_eq!(links.len(), state.lazy_links(), "the router and what was said agree on what is lazy");
    }

    fn look_at(&mut self, is_answer: bool, out: &mut Outbox<Output<u32>>) {
        let outputs: Vec<Output<u32>> = out.drain().collect();
        let mut sent_away = Vec::new();
        for output in outputs {
            match output {
                Output::Send { to, rpc, .. } => {
                    assert!(self.connected.contains(&to) && !sent_away.contains(&to), "{to} is connected");
                    assert!(!rpc.is_empty(), "no empty frames");
                    for message in &rpc.publish {
                        let copy = (to, message.topic().clone(), message.id());
                        assert!(!self.sent_to_us.contains(&copy), "{message:?} goes back to its sender {to}");
                        let lazy = self.lazy.get(&(to, message.topic().clone())).copied().unwrap_or(0);
                        let is_lazy = lazy & 1 << tree_of(message) != 0;
                        assert!(is_answer || !is_lazy, "{message:?} goes unasked over a lazy link to {to}");
                    }
                    self.look_at_control(to, &rpc.control.unwrap_or_default(), is_answer);
                }
                Output::Validate { topic, id, .. } => {
                    assert!(self.validated.insert((topic.clone(), id)), "each message is validated once");
                    self.waiting.push((topic, id));
                }
                Output::Disconnect { peer, .. } => sent_away.push(peer),
                Output::Timer { at, timer: timer @ Timer::Heartbeat { .. } } => self.next_beat = (at, timer),
                Output::Timer { at, timer } => self.timers.push((at, timer)),
                Output::CopyOfRefused { .. }
                | Output::Published { .. }
                | Output::NotPublished { .. }
                | Output::Event(_) => {}
            }
        }
        sent_away.into_iter().for_each(|peer| self.disconnect(peer));
    }

    fn look_at_control(&mut self, to: u32, control: &Control, is_answer: bool) {
        let said = control.choke.iter().chain(&control.unchoke);
        for choke in said {
            assert!(self.nodes.contains(&to), "CHOKE and UNCHOKE are for nodes of OmniMesh");
            // A frame may have made the link and ended it.
            let is_in_mesh = self.state.mesh_peers(&choke.topic).contains(&to);
            assert!(is_in_mesh || is_answer, "and for links of the mesh");
        }
        for Choke { topic, trees } in &control.choke {
            *self.lazy.entry((to, topic.clone())).or_default() |= trees;
        }
        for Choke { topic, trees } in &control.unchoke {
            *self.lazy.entry((to, topic.clone())).or_default() &= !trees;
        }
        for topic in &control.graft {
            let until = self.backoffs.get(&(to, topic.clone())).copied().unwrap_or_default();
            assert!(until <= self.now, "GRAFT to {to} in {topic}, which is in backoff until {until}");
        }
        for prune in &control.prune {
            // Peers of v1.0 are not told; they have it all the same, but leaving or pruning differ. The
            // least holds.
            let backoff =
                prune.backoff_s.map_or(self.state.config().unsubscribe_backoff, Duration::from_secs);
            self.note_backoff(to, &prune.topic, backoff);
        }
        let both =
            control.graft.iter().find(|topic| control.prune.iter().any(|prune| prune.topic == **topic));
        assert_eq!(both, None, "GRAFT and PRUNE of one topic in one frame");
    }
}

fn tree_of(message: &Message) -> u8 {
    (0..DATA).find(|at| id(*at) == message.id()).map(tree).expect("one of ours")
}

/// A frame with everything in it.
fn everything(t: u8, d: u8) -> Rpc {
    let (topic, ids) = (name(t), vec![id(d), id((d + 1) % DATA)]);
    Rpc {
        subscriptions: vec![
            Subscription { subscribe: true, topic: topic.clone() },
            Subscription { subscribe: d.is_multiple_of(2), topic: topic.clone() },
        ],
        publish: std::iter::once(Message::new(topic.clone(), data(d))).collect(),
        control: Some(Box::new(Control {
            ihave: vec![IHave { topic: topic.clone(), ids: ids.clone() }],
            iwant: ids.clone(),
            graft: vec![topic.clone(), topic.clone()],
            prune: vec![Prune { topic, backoff_s: (d > 6).then_some(u64::from(d)) }],
            idontwant: ids,
            ..Control::default()
        })),
    }
}

fn small(score: bool) -> Config {
    let config = Config {
        mesh_degree: 4,
        mesh_degree_low: 3,
        mesh_degree_high: 6,
        mesh_degree_score: 2,
        mesh_degree_out: 1,
        lazy_degree: 2,
        idontwant_bytes_min: 500,
        idontwant_ids_max: 4,
        validating_max: 5,
        topics_per_peer_max: 3,
        peers_max: 12,
        ihave_ids_max: 6,
        tree: Some(TreeConfig { missing_max: 8, ..TreeConfig::default() }),
        // Longer than any run, for the model forgets nothing.
        seen_ttl: Duration::from_secs(1_000_000),
        ..Config::default()
    };
    if score { config } else { Config { score: None, ..config } }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_must_hold_holds(ops in prop::collection::vec(op(), 1..250), score in any::<bool>()) {
        let mut model = Model::new(small(score));
        for op in ops {
            model.apply(op);
        }
    }

    #[test]
    fn the_same_operations_give_the_same_router(ops in prop::collection::vec(op(), 1..120)) {
        let run = || {
            let mut model = Model::new(small(true));
            ops.iter().cloned().for_each(|op| model.apply(op));
            format!("{:?}", model.state)
        };
        // Neither run iterates a table in an order that depends on anything but its inputs.
        prop_assert_eq!(run(), run());
    }
}
