//! Many routers in virtual time, over links with a latency.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::gossip::{
    Class, Config, Direction, Input, Output, Protocol, State, Timer, Topic, Verdict,
};
use omnimesh_protocol::{MessageId, Outbox, Time};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::bench::topic;

/// How long a router takes to judge a message.
const VERDICT: Duration = Duration::from_millis(2);

/// Events after which a run is given up.
const EVENTS_MAX: u64 = 3_000_000;

struct Network {
    now: Time,
    nodes: Vec<(State<u32>, ChaCha8Rng)>,
    queue: BTreeMap<(Time, u64), (u32, Input<u32>)>,
    /// One-way latency of each connection, in both directions alike.
    links: BTreeMap<(u32, u32), Duration>,
    rng: ChaCha8Rng,
    seq: u64,
    /// Of a hundred forwarded frames, so many are lost.
    loss_percent: u32,
    lost: u64,
    trace: blake3::Hasher,
    /// Who was given what to validate.
    delivered: BTreeMap<MessageId, BTreeSet<u32>>,
    /// Who got which message from whom.
    got: BTreeSet<(u32, MessageId, u32)>,
}

fn pair(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

impl Network {
    fn new(seed: u64, nodes: u32, config: &Arc<Config>) -> Self {
        let mut network = Network {
            now: Time::ZERO,
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            links: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            seq: 0,
            loss_percent: 0,
            lost: 0,
            trace: blake3::Hasher::new(),
            delivered: BTreeMap::new(),
            got: BTreeSet::new(),
        };
        for node in 0..nodes {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(node) << 32));
            let mut out = Outbox::new();
            let state = State::new(Arc::clone(config), Time::ZERO, &mut rng, &mut out).expect("valid");
            network.nodes.push((state, rng));
            network.carry_out(node, &mut out);
        }
        network
    }

    /// Random links: each node dials so many others.
    fn dial_at_random(&mut self, dials: usize) {
        let count = u32::try_from(self.nodes.len()).expect("few");
        for node in 0..count {
            let mut others: Vec<u32> = (0..count).filter(|other| *other != node).collect();
            others.shuffle(&mut self.rng);
            for other in others.into_iter().take(dials) {
                self.connect(node, other);
            }
        }
    }

    fn connect(&mut self, dialler: u32, other: u32) {
        if self.links.contains_key(&pair(dialler, other)) {
            return;
        }
        let latency = Duration::from_millis(self.rng.random_range(10..=150));
        self.links.insert(pair(dialler, other), latency);
        let protocol =
            if (dialler + other).is_multiple_of(5) { Protocol::Meshsub11 } else { Protocol::Meshsub12 };
        for (node, peer, direction) in
            [(dialler, other, Direction::Outbound), (other, dialler, Direction::Inbound)]
        {
            self.input(node, Input::Connected { peer, protocol, direction, ip: None });
        }
    }

    fn disconnect(&mut self, a: u32, b: u32) {
        self.links.remove(&pair(a, b));
        // What is on the way is lost.
        let between = |node: u32, input: &Input<u32>| matches!(input, Input::Rpc { from, .. } if pair(*from, node) == pair(a, b));
        self.queue.retain(|_, (node, input)| !between(*node, input));
        self.input(a, Input::Disconnected { peer: b });
        self.input(b, Input::Disconnected { peer: a });
        self.got.retain(|(to, _, from)| pair(*to, *from) != pair(a, b));
    }

    fn schedule(&mut self, at: Time, node: u32, input: Input<u32>) {
        self.seq += 1;
        self.queue.insert((at, self.seq), (node, input));
    }

    fn input(&mut self, node: u32, input: Input<u32>) {
        let mut out = Outbox::new();
        let (state, rng) = &mut self.nodes[node as usize];
        if let Input::Rpc { from, rpc } = &input {
            self.got.extend(rpc.publish.iter().map(|message| (node, message.id(), *from)));
        }
        let is_heartbeat = matches!(input, Input::Timer(Timer::Heartbeat { .. }));
        state.handle(self.now, input, rng, &mut out);
        state.check_invariants();
        if is_heartbeat {
            let config = state.config();
            let most = config.mesh_degree_high + config.mesh_degree_out + config.opportunistic_graft_peers;
            for topic in state.topics() {
                assert!(state.mesh_peers(&topic).len() <= most, "degree after a heartbeat");
            }
        }
        self.carry_out(node, &mut out);
    }

    fn carry_out(&mut self, node: u32, out: &mut Outbox<Output<u32>>) {
        let outputs: Vec<Output<u32>> = out.drain().collect();
        let mut line = String::new();
        for output in outputs {
            line.clear();
            write!(line, "{} {node} {output:?}", self.now).expect("a string takes all");
            self.trace.update(line.as_bytes());
            match output {
                Output::Send { to, rpc, class } => {
                    for message in &rpc.publish {
                        let has_it = self.got.contains(&(node, message.id(), to));
                        assert!(!has_it, "{node} sends {message:?} back to its sender {to}");
                    }
                    let latency = *self.links.get(&pair(node, to)).expect("sent only where there is a link");
                    let is_lost = class == Class::Forwarded
                        && rpc.control.is_none()
                        && self.rng.random_range(0..100) < self.loss_percent;
                    if is_lost {
                        self.lost += 1;
                    } else {
                        self.schedule(self.now + latency, to, Input::Rpc { from: node, rpc });
                    }
                }
                Output::Validate { id, topic, .. } => {
                    let is_new = self.delivered.entry(id).or_default().insert(node);
                    assert!(is_new, "{node} was given {id} twice");
                    let verdict = Verdict::Accept;
                    self.schedule(self.now + VERDICT, node, Input::Verdict { topic, id, verdict });
                }
                Output::Timer { at, timer } => self.schedule(at, node, Input::Timer(timer)),
                Output::Disconnect { peer, reason } => panic!("{node} sends {peer} away: {reason:?}"),
                Output::NotPublished { id, reason } => panic!("{id}: {reason}"),
                Output::Published { .. } | Output::CopyOfRefused { .. } | Output::Event(_) => {}
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(((at, seq), _)) = self.queue.first_key_value().filter(|((at, _), _)| *at <= end) {
            let (at, seq) = (*at, *seq);
            assert!(seq < EVENTS_MAX, "too many events");
            let (node, input) = self.queue.remove(&(at, seq)).expect("just seen");
            self.now = at;
            self.input(node, input);
        }
        self.now = end;
    }

    fn subscribe_all(&mut self, name: &Topic) {
        for node in 0..self.nodes.len() {
            self.input(u32::try_from(node).expect("few"), Input::Subscribe(name.clone()));
        }
    }

    /// One message of each node, `gap` apart. Returns their ids.
    fn publish_all(&mut self, name: &Topic, tag: &str, bytes: usize, gap: Duration) -> Vec<(u32, MessageId)> {
        let mut ids = Vec::new();
        for node in 0..u32::try_from(self.nodes.len()).expect("few") {
            let data = Bytes::from(format!("{tag} {node:0bytes$}"));
            ids.push((node, MessageId::of(&data)));
            self.input(node, Input::Publish { topic: name.clone(), data });
            self.run_for(gap);
        }
        ids
    }

    fn assert_everyone_got(&self, ids: &[(u32, MessageId)]) {
        let all: BTreeSet<u32> = (0..u32::try_from(self.nodes.len()).expect("few")).collect();
        for (author, id) in ids {
            let mut others = all.clone();
            others.remove(author);
            let got = self.delivered.get(id).cloned().unwrap_or_default();
            let missing: Vec<&u32> = others.difference(&got).collect();
            assert!(missing.is_empty(), "message {id} of {author} did not reach {missing:?}");
        }
    }

    fn assert_meshes_are_within_bounds(&self, name: &Topic) {
        let mut asymmetric = 0;
        for (node, (state, _)) in self.nodes.iter().enumerate() {
            let mesh = state.mesh_peers(name);
            let config = state.config();
            let possible = state.topic_peers(name).len();
            let low = config.mesh_degree_low.min(possible.saturating_sub(2));
            let most = config.mesh_degree_high + config.mesh_degree_out;
            assert!((low..=most).contains(&mesh.len()), "node {node}: {} of {possible}", mesh.len());
            let node = u32::try_from(node).expect("few");
            asymmetric += mesh
                .iter()
                .filter(|peer| !self.nodes[**peer as usize].0.mesh_peers(name).contains(&node))
                .count();
        }
        assert!(asymmetric <= self.nodes.len() / 10, "{asymmetric} links are in one mesh only");
    }

    fn sum(&self, field: impl Fn(&omnimesh_protocol::gossip::Stats) -> u64) -> u64 {
        self.nodes.iter().map(|(state, _)| field(state.stats())).sum()
    }
}

/// Fifty routers with about ten links each. Returns the trace's hash.
fn fifty(seed: u64, config: Config, bytes: usize) -> (Network, String) {
    println!("seed {seed}");
    let name = topic("t");
    let mut network = Network::new(seed, 50, &Arc::new(config));
    network.dial_at_random(5);
    network.subscribe_all(&name);
    network.run_for(Duration::from_secs(5));
    let ids = network.publish_all(&name, "m", bytes, Duration::from_millis(200));
    network.run_for(Duration::from_secs(8));
    network.assert_everyone_got(&ids);
    network.assert_meshes_are_within_bounds(&name);
    let trace = network.trace.finalize().to_string();
    (network, trace)
}

#[test]
fn everyone_gets_everything() {
    let (network, _) = fifty(1, Config::default(), 100);
    assert_eq!(network.sum(|stats| stats.validating), 50 * 49);
    assert_eq!(network.sum(|stats| stats.broken_promises), 0);
    assert_eq!(network.sum(|stats| stats.graft_in_backoff), 0);
    assert!(network.nodes.iter().all(|(state, _)| state.peers().iter().all(|p| state.score(p) >= Some(0.0))));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (_, first) = fifty(2, Config::default(), 2_000);
    let (_, second) = fifty(2, Config::default(), 2_000);
    let (_, other) = fifty(3, Config::default(), 2_000);
    assert_eq!(first, second);
    assert_ne!(first, other);
}

#[test]
fn without_flood_publish_and_without_scores_too() {
    let (network, _) = fifty(4, Config { flood_publish: false, score: None, ..Config::default() }, 100);
    assert_eq!(network.sum(|stats| stats.validating), 50 * 49);
}

#[test]
fn idontwant_saves_copies_of_large_messages() {
    let (with, _) = fifty(5, Config { flood_publish: false, ..Config::default() }, 20_000);
    let without = Config { flood_publish: false, idontwant_bytes_min: usize::MAX, ..Config::default() };
    let (without, _) = fifty(5, without, 20_000);
    assert_eq!(without.sum(|stats| stats.idontwant_sent), 0);
    let (saved, with) = (with.sum(|stats| stats.copies_saved), with.sum(|stats| stats.duplicates));
    let without = without.sum(|stats| stats.duplicates);
    println!("copies saved {saved}; duplicates {with} with IDONTWANT, {without} without");
    assert!(saved > 0 && with < without);
}

/// Fifty routers that lose many frames; with or without gossip. Returns how many deliveries are missing.
fn lossy(history_gossip: u32) -> usize {
    let name = topic("t");
    let config =
        Config { flood_publish: false, idontwant_bytes_min: usize::MAX, history_gossip, ..Config::default() };
    let mut network = Network::new(6, 50, &Arc::new(config));
    network.dial_at_random(6);
    network.subscribe_all(&name);
    network.run_for(Duration::from_secs(5));
    network.loss_percent = 40;
    let ids = network.publish_all(&name, "m", 10, Duration::from_millis(100));
    network.run_for(Duration::from_secs(6));
    let served = network.sum(|stats| stats.copies_sent_iwant);
    println!("history_gossip {history_gossip}: {} frames lost, {served} copies served", network.lost);
    assert!(network.lost > 1_000, "the loss took effect: {}", network.lost);
    assert_eq!(served > 0, history_gossip > 0);
    ids.iter().map(|(_, id)| 49 - network.delivered.get(id).map_or(0, BTreeSet::len)).sum()
}

#[test]
fn gossip_repairs_what_is_lost() {
    assert_eq!(lossy(3), 0);
    assert!(lossy(0) > 0, "without gossip there are holes");
}

#[test]
fn a_mesh_heals_after_a_partition_and_churn() {
    let name = topic("t");
    let mut network = Network::new(7, 40, &Arc::new(Config::default()));
    network.dial_at_random(6);
    network.subscribe_all(&name);
    network.run_for(Duration::from_secs(5));
    // Cut between the halves: both go on alone.
    let cut: Vec<(u32, u32)> =
        network.links.keys().copied().filter(|(a, b)| (*a < 20) != (*b < 20)).collect();
    assert!(cut.len() > 50, "the cut took effect");
    for (a, b) in &cut {
        network.disconnect(*a, *b);
    }
    network.run_for(Duration::from_secs(10));
    let alone = network.publish_all(&name, "alone", 10, Duration::from_millis(50));
    network.run_for(Duration::from_secs(5));
    for (author, id) in &alone {
        let got = network.delivered.get(id).cloned().unwrap_or_default();
        assert_eq!(got.len(), 19, "the half of {author}");
        assert!(got.iter().all(|node| (*node < 20) == (*author < 20)));
    }
    // Healed, with nodes that leave and come back on the way.
    for (a, b) in &cut {
        network.connect(*a, *b);
    }
    for node in [3, 17, 30] {
        network.input(node, Input::Unsubscribe(name.clone()));
        network.run_for(Duration::from_secs(3));
        network.input(node, Input::Subscribe(name.clone()));
    }
    network.run_for(Duration::from_secs(15));
    let healed = network.publish_all(&name, "healed", 10, Duration::from_millis(100));
    network.run_for(Duration::from_secs(5));
    network.assert_everyone_got(&healed);
    network.assert_meshes_are_within_bounds(&name);
}
