//! Tree mode among a thousand routers and more, in virtual time: copies, hops and time of each message, with
//! crashes, with several authors, and with standard peers among them.
//!
//! `cargo test --release -p omnimesh-protocol --test gossip figures -- --ignored --nocapture` prints the
//! figures for several degrees and sizes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use omnimesh_protocol::gossip::{
    Class, Config, Direction, Input, Output, Protocol, State, Stats, Topic, TreeConfig, Verdict,
};
use omnimesh_protocol::{MessageId, Outbox, Time};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::bench::{authored, topic};

/// How long a router takes to judge a message.
const VERDICT: Duration = Duration::from_millis(1);

struct Node {
    state: State<u32>,
    rng: ChaCha8Rng,
    is_alive: bool,
    /// It tells of messages and keeps those of others to itself, asked or not, of which this is true.
    withholds: fn(u32) -> bool,
    inputs: u64,
}

/// What became of one message.
#[derive(Debug, Default)]
struct Way {
    sent: Time,
    copies: u64,
    /// Hops of the first copy, by node.
    hops: BTreeMap<u32, u32>,
    last: Time,
}

/// What one round cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    rmr: f64,
    ldh: u32,
    ms: f64,
    missed: usize,
}

/// What is queued, to be compared by time and order alone.
struct Queued {
    at: Reverse<(Time, u64)>,
    node: u32,
    input: Input<u32>,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

pub(crate) struct Forest {
    now: Time,
    nodes: Vec<Node>,
    queue: BinaryHeap<Queued>,
    links: Vec<BTreeMap<u32, Duration>>,
    rng: ChaCha8Rng,
    seq: u64,
    ways: BTreeMap<MessageId, Way>,
    name: Topic,
    published: u32,
    /// Of a hundred forwarded messages, so many are lost on a link.
    loss_percent: u32,
    /// How much longer than its latency a link may take, at random, each time.
    jitter: Duration,
    trace: u64,
}

/// Whether a node speaks the standard protocol only.
type IsStandard = fn(u32) -> bool;

impl Forest {
    /// Routers that each dialled `dials` others, in one topic, after five seconds.
    pub(crate) fn new(seed: u64, nodes: u32, dials: usize, config: Config, is_standard: IsStandard) -> Self {
        println!("seed {seed}, {nodes} nodes");
        let standard = Arc::new(Config { tree: None, ..config.clone() });
        let config = Arc::new(config);
        let mut forest = Forest {
            now: Time::ZERO,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            links: vec![BTreeMap::new(); nodes as usize],
            rng: ChaCha8Rng::seed_from_u64(seed),
            seq: 0,
            ways: BTreeMap::new(),
            name: topic("t"),
            published: 0,
            loss_percent: 0,
            jitter: Duration::ZERO,
            trace: 0,
        };
        for node in 0..nodes {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(node + 1) << 32));
            let mut out = Outbox::new();
            let config = if is_standard(node) { &standard } else { &config };
            let state = State::new(Arc::clone(config), Time::ZERO, &mut rng, &mut out).expect("valid");
            forest.nodes.push(Node { state, rng, is_alive: true, withholds: |_| false, inputs: 0 });
            forest.carry_out(node, &mut out);
        }
        for node in 0..nodes {
            for _ in 0..dials {
                let other = forest.rng.random_range(0..nodes);
                if other != node && !forest.links[node as usize].contains_key(&other) {
                    forest.connect(node, other, is_standard(node) || is_standard(other));
                }
            }
        }
        for node in 0..nodes {
            forest.input(node, Input::Subscribe(topic("t")));
        }
        forest.run_for(Duration::from_secs(5));
        forest
    }

    fn connect(&mut self, dialler: u32, other: u32, is_standard: bool) {
        let latency = Duration::from_micros(self.rng.random_range(10_000..=50_000));
        let protocol = if is_standard { Protocol::Meshsub12 } else { Protocol::Omnimesh1 };
        for (node, peer, direction) in
            [(dialler, other, Direction::Outbound), (other, dialler, Direction::Inbound)]
        {
            self.links[node as usize].insert(peer, latency);
            self.input(node, Input::Connected { peer, protocol, direction, ip: None });
        }
    }

    fn schedule(&mut self, at: Time, node: u32, input: Input<u32>) {
        self.seq += 1;
        self.queue.push(Queued { at: Reverse((at, self.seq)), node, input });
    }

    fn input(&mut self, node: u32, input: Input<u32>) {
        if let Input::Rpc { from, rpc } = &input {
            for message in &rpc.publish {
                let way = self.ways.entry(message.id()).or_default();
                let hops = way.hops.get(from).copied().unwrap_or(0) + 1;
                way.copies += 1;
                way.hops.entry(node).or_insert_with(|| {
                    way.last = self.now;
                    hops
                });
            }
        }
        let mut out = Outbox::new();
        let at = &mut self.nodes[node as usize];
        at.state.handle(self.now, input, &mut at.rng, &mut out);
        at.inputs += 1;
        if at.inputs.is_multiple_of(64) {
            at.state.check_invariants();
        }
        self.carry_out(node, &mut out);
    }

    fn carry_out(&mut self, node: u32, out: &mut Outbox<Output<u32>>) {
        let outputs: Vec<Output<u32>> = out.drain().collect();
        for output in outputs {
            match output {
                Output::Send { rpc, class: Class::Forwarded, .. }
                    if !rpc.publish.is_empty() && (self.nodes[node as usize].withholds)(self.published) => {}
                Output::Send { to, rpc, class } => {
                    if class == Class::Forwarded && self.rng.random_range(0..100) < self.loss_percent {
                        continue;
                    }
                    let latency = self.links[node as usize][&to] + self.jitter.mul_f64(self.rng.random());
                    self.trace =
                        self.trace.wrapping_mul(31).wrapping_add(self.now.as_nanos() ^ u64::from(to));
                    self.schedule(self.now + latency, to, Input::Rpc { from: node, rpc });
                }
                Output::Validate { id, topic, .. } => {
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

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.queue.peek().is_some_and(|queued| queued.at.0.0 <= end) {
            let queued = self.queue.pop().expect("just seen");
            self.now = queued.at.0.0;
            if self.nodes[queued.node as usize].is_alive {
                self.input(queued.node, queued.input);
            }
        }
        self.now = end;
    }

    /// One message of `author`, and a second for it to arrive everywhere.
    pub(crate) fn round(&mut self, author: u32, bytes: usize) -> Round {
        let id = self.publish(author, bytes);
        self.run_for(Duration::from_secs(1));
        self.judge(&id)
    }

    fn publish(&mut self, author: u32, bytes: usize) -> MessageId {
        self.published += 1;
        let rest = [&self.published.to_le_bytes()[..], &vec![0; bytes]].concat();
        let data = authored(u8::try_from(author % 256).expect("a byte"), &rest);
        let id = MessageId::of(&data);
        let way = Way { sent: self.now, last: self.now, hops: [(author, 0)].into(), copies: 0 };
        self.ways.insert(id, way);
        self.input(author, Input::Publish { topic: self.name.clone(), data });
        id
    }

    fn judge(&self, id: &MessageId) -> Round {
        let way = &self.ways[id];
        let living: Vec<u32> =
            (0..).zip(&self.nodes).filter(|(_, node)| node.is_alive).map(|(at, _)| at).collect();
        let missed = living.iter().filter(|node| !way.hops.contains_key(node)).count();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let rmr = way.copies as f64 / (living.len() - 1) as f64 - 1.0;
        Round {
            rmr,
            ldh: way.hops.values().copied().max().unwrap_or(0),
            ms: way.last.since(way.sent).as_secs_f64() * 1e3,
            missed,
        }
    }

    pub(crate) fn rounds(&mut self, authors: &[u32], count: usize) -> Vec<Round> {
        (0..count).map(|at| self.round(authors[at % authors.len()], 200)).collect()
    }

    /// Lets some of a hundred nodes crash, but for `spared`. `is_seen`: their neighbours lose the connection
    /// at once; otherwise they never know.
    pub(crate) fn crash(&mut self, percent: usize, spared: u32, is_seen: bool) -> usize {
        let mut chosen: Vec<u32> = (0..u32::try_from(self.nodes.len()).expect("few")).collect();
        chosen.retain(|node| *node != spared && self.nodes[*node as usize].is_alive);
        chosen.shuffle(&mut self.rng);
        chosen.truncate(chosen.len() * percent / 100);
        for node in &chosen {
            self.nodes[*node as usize].is_alive = false;
        }
        for node in chosen.iter().filter(|_| is_seen) {
            for peer in self.links[*node as usize].clone().into_keys() {
                if self.nodes[peer as usize].is_alive {
                    self.input(peer, Input::Disconnected { peer: *node });
                }
            }
        }
        chosen.len()
    }

    pub(crate) fn sum(&self, field: impl Fn(&Stats) -> u64) -> u64 {
        self.nodes.iter().filter(|node| node.is_alive).map(|node| field(node.state.stats())).sum()
    }

    fn check(&self) {
        self.nodes.iter().filter(|node| node.is_alive).for_each(|node| node.state.check_invariants());
    }
}

/// A mesh that aims at this degree.
pub(crate) fn with_degree(degree: usize) -> Config {
    Config {
        mesh_degree: degree,
        mesh_degree_low: degree - 1,
        mesh_degree_high: degree + degree / 2,
        ..Config::default()
    }
}

fn no_standard(_: u32) -> bool {
    false
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn mean(rounds: &[Round]) -> Round {
    let count = rounds.len() as f64;
    Round {
        rmr: rounds.iter().map(|round| round.rmr).sum::<f64>() / count,
        ldh: rounds.iter().map(|round| round.ldh).max().unwrap_or(0),
        ms: rounds.iter().map(|round| round.ms).sum::<f64>() / count,
        missed: rounds.iter().map(|round| round.missed).sum(),
    }
}

/// What a steady state must keep to.
fn assert_good(rounds: &[Round], ldh: u32, ms: f64) {
    let worst = rounds.iter().map(|round| round.ms).fold(0.0, f64::max);
    println!("{:?}, the slowest {worst:.0} ms", mean(rounds));
    assert!(rounds.iter().all(|round| round.missed == 0), "everybody gets everything");
    assert!(rounds.iter().all(|round| round.rmr <= 0.1), "few copies too many");
    assert!(rounds.iter().all(|round| round.ldh <= ldh), "few hops");
    assert!(rounds.iter().all(|round| round.ms <= ms), "in time");
}

#[test]
fn a_thousand_nodes_send_each_message_once() {
    let mut forest = Forest::new(1, 1_000, 12, with_degree(12), no_standard);
    let first = forest.round(0, 200);
    assert!(first.rmr > 5.0, "the first message goes over every link: {first:?}");
    assert_good(&forest.rounds(&[0], 8), 8, 180.0);
    assert!(forest.sum(|stats| stats.copies_lazy) > 8 * 5_000, "by far the most links are lazy");
    assert_eq!(forest.sum(|stats| stats.iwant_sent), 0, "what comes in time is not asked for");
    forest.check();
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn ten_thousand_nodes_send_each_message_once() {
    let mut forest = Forest::new(1, 10_000, 12, with_degree(12), no_standard);
    forest.rounds(&[0], 3);
    assert_good(&forest.rounds(&[0], 27), 10, 710.0);
    for is_seen in [true, false] {
        let crashed = forest.crash(10, 0, is_seen);
        let rounds = forest.rounds(&[0], 10);
        println!("{crashed} crashed: {rounds:?}");
        assert!(rounds.iter().all(|round| round.missed == 0));
        assert_good(&rounds[7..], 14, 710.0);
    }
}

/// A tenth crashes between two rounds. The living miss nothing, and soon all is well again.
fn crashes(is_seen: bool) {
    let mut forest = Forest::new(2, 500, 8, with_degree(8), no_standard);
    forest.rounds(&[0], 3);
    assert_eq!(forest.crash(10, 0, is_seen), 49);
    let rounds = forest.rounds(&[0], 10);
    println!("{rounds:?}");
    assert!(rounds.iter().all(|round| round.missed == 0), "the living get everything");
    assert!(rounds[0].ms < 1_000.0, "and need not wait for a heartbeat");
    assert_good(&rounds[8..], 12, 400.0);
    let replaced = forest.sum(|stats| stats.tree_replacements);
    let repaired = forest.sum(|stats| stats.tree_repairs);
    println!("{replaced} links replaced, {repaired} repaired");
    assert!(repaired > 0);
    assert_eq!(replaced > 0, is_seen);
    forest.check();
}

#[test]
fn who_crashes_is_replaced() {
    crashes(true);
}

#[test]
fn who_crashes_unseen_is_repaired_around() {
    crashes(false);
}

#[test]
fn each_of_many_authors_has_a_good_tree() {
    let mut forest = Forest::new(3, 300, 8, with_degree(8), no_standard);
    let authors: Vec<u32> = (0..20).collect();
    forest.rounds(&authors, 20);
    assert_good(&forest.rounds(&authors, 40), 8, 180.0);
}

#[test]
fn authors_who_share_a_tree_have_one_that_is_still() {
    let tree = Some(TreeConfig { per_author: false, ..TreeConfig::default() });
    let mut forest = Forest::new(4, 300, 8, Config { tree, ..with_degree(8) }, no_standard);
    let authors: Vec<u32> = (0..10).map(|at| at * 29).collect();
    forest.rounds(&authors, 20);
    assert_good(&forest.rounds(&authors, 20), 16, 300.0);
}

#[test]
fn half_of_them_standard_peers() {
    let mut forest = Forest::new(5, 300, 8, with_degree(8), |node| node.is_multiple_of(2));
    let mut plain = Forest::new(5, 300, 8, Config { tree: None, ..with_degree(8) }, |_| true);
    let authors = [0, 1];
    forest.rounds(&authors, 4);
    plain.rounds(&authors, 4);
    let (forest_rounds, plain_rounds) = (forest.rounds(&authors, 10), plain.rounds(&authors, 10));
    let (with, without) = (mean(&forest_rounds), mean(&plain_rounds));
    println!("with trees {with:?}, without {without:?}");
    assert_eq!((with.missed, without.missed), (0, 0), "everybody gets everything");
    assert!(with.rmr < without.rmr - 1.0, "the half that can save copies does");
    let standard = || forest.nodes.iter().step_by(2);
    assert!(standard().all(|node| node.state.stats().choke_received == 0 && node.state.lazy_links() == 0));
}

#[test]
fn peers_that_tell_and_send_nothing_are_passed_by() {
    let mut forest = Forest::new(6, 300, 8, with_degree(8), no_standard);
    forest.rounds(&[0], 3);
    for node in (1..300).step_by(5) {
        forest.nodes[node].withholds = |_| true;
    }
    let rounds = forest.rounds(&[0], 12);
    println!("{rounds:?}");
    assert!(rounds.iter().all(|round| round.missed == 0), "everybody gets everything");
    assert!(rounds[8..].iter().all(|round| round.ms < 400.0), "most need not ask any more");
}

#[test]
fn peers_that_withhold_some_are_not_relied_on_alone() {
    let mut forest = Forest::new(6, 300, 8, with_degree(8), no_standard);
    forest.rounds(&[0], 3);
    for node in (1..300).step_by(5) {
        forest.nodes[node].withholds = |message| message.is_multiple_of(3);
    }
    let rounds = forest.rounds(&[0], 30);
    println!("{rounds:?}");
    assert!(rounds.iter().all(|round| round.missed == 0), "everybody gets everything");
    let slow = |rounds: &[Round]| rounds.iter().filter(|round| round.ms > 180.0).count();
    assert!(slow(&rounds[..6]) > 0, "it takes effect");
    assert!(slow(&rounds[18..]) <= 1, "and in the end gains them nothing");
}

#[test]
fn messages_that_overtake_each_other_are_no_trouble() {
    let mut forest = Forest::new(10, 200, 8, with_degree(8), no_standard);
    forest.jitter = Duration::from_millis(20);
    let mut many = |count: u32| {
        let ids: Vec<MessageId> = (0..count)
            .map(|at| {
                let id = forest.publish(at % 10, 200);
                forest.run_for(Duration::from_millis(7));
                id
            })
            .collect();
        forest.run_for(Duration::from_secs(1));
        ids.iter().map(|id| forest.judge(id)).collect::<Vec<Round>>()
    };
    let first = many(100);
    assert!(first.iter().all(|round| round.missed == 0));
    assert_good(&many(200)[100..], 10, 250.0);
    assert!(forest.sum(|stats| stats.ihave_sent_lazy) > 0);
}

#[test]
fn what_is_lost_on_the_way_is_fetched() {
    let mut forest = Forest::new(11, 200, 8, with_degree(8), no_standard);
    forest.rounds(&[0], 3);
    forest.loss_percent = 5;
    let rounds = forest.rounds(&[0], 20);
    println!("{:?}", mean(&rounds));
    assert!(rounds.iter().all(|round| round.missed == 0), "everybody gets everything");
    assert!(rounds.iter().any(|round| round.ms > 180.0), "the loss took effect");
    assert!(mean(&rounds).rmr < 0.5, "at a part of the copies of a mesh");
    assert!(rounds.iter().all(|round| round.ms < 1_000.0), "without waiting for a heartbeat");
}

#[test]
fn large_messages_too() {
    let mut forest = Forest::new(7, 200, 8, with_degree(8), no_standard);
    let rounds: Vec<Round> = (0..10).map(|_| forest.round(0, 20_000)).collect();
    assert_good(&rounds[5..], 8, 180.0);
}

#[test]
fn the_same_seed_gives_the_same_forest() {
    let run = |seed| {
        let mut forest = Forest::new(seed, 100, 6, with_degree(6), no_standard);
        forest.rounds(&[0, 1], 4);
        forest.crash(10, 0, false);
        forest.rounds(&[0], 3);
        forest.trace
    };
    assert_eq!(run(8), run(8));
    assert_ne!(run(8), run(9));
}

/// Prints figures to choose defaults by.
#[test]
#[ignore = "takes minutes; prints figures"]
fn figures() {
    let nodes: u32 = std::env::var("NODES").map_or(1000, |text| text.parse().expect("a number"));
    let degrees: Vec<usize> = std::env::var("DEGREES").map_or(vec![6, 8, 10, 12, 14], |text| {
        text.split(',').map(|degree| degree.parse().expect("a number")).collect()
    });
    let seeds: u64 = std::env::var("SEEDS").map_or(3, |text| text.parse().expect("a number"));
    let authors: u32 = std::env::var("AUTHORS").map_or(1, |text| text.parse().expect("a number"));
    let per_author = std::env::var("SHARED").is_err();
    for degree in degrees {
        for seed in 0..seeds {
            let tree = Some(TreeConfig { per_author, ..TreeConfig::default() });
            let tree = tree.filter(|_| std::env::var("PLAIN").is_err());
            // D_low and D_high, if they are not to follow from the degree.
            let bound = |name: &str, default: usize| {
                std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
            };
            let config = with_degree(degree);
            let (mesh_degree_low, mesh_degree_high) =
                (bound("LOW", config.mesh_degree_low), bound("HIGH", config.mesh_degree_high));
            let config = Config { mesh_degree_low, mesh_degree_high, ..config };
            let dials = bound("DIALS", degree);
            let mut forest = Forest::new(seed, nodes, dials, Config { tree, ..config }, no_standard);
            let authors: Vec<u32> = (0..authors).map(|at| at * 7).collect();
            let first = forest.rounds(&authors, authors.len() * 3);
            let before = forest.sum(|s| s.ihave_sent);
            let steady = forest.rounds(&authors, 27.max(authors.len()));
            let after = forest.sum(|s| s.ihave_sent);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let ids = (after - before) as f64 / f64::from(nodes) / steady.len() as f64;
            println!("degree {degree} first {:?}", &first[..first.len().min(3)]);
            let most = steady.iter().map(|r| r.ms).fold(0.0, f64::max);
            println!("degree {degree} steady {:?} most {most:.0} ms ids {ids:.1}", mean(&steady));
            for is_seen in [true, false] {
                let spared = authors[0];
                forest.crash(10, spared, is_seen);
                let living: Vec<u32> =
                    authors.iter().copied().filter(|node| forest.nodes[*node as usize].is_alive).collect();
                let after = forest.rounds(&living, 10.max(living.len()));
                println!("  crash, seen {is_seen}: first {:?}", after[0]);
                println!(
                    "     second {:?} then {:?}",
                    after[1 % after.len()],
                    mean(&after[after.len() / 2..])
                );
            }
            println!(
                "  repairs {} replacements {} shortcuts {} iwant {} chokes {} unchokes {} broken {}",
                forest.sum(|s| s.tree_repairs),
                forest.sum(|s| s.tree_replacements),
                forest.sum(|s| s.tree_shortcuts),
                forest.sum(|s| s.iwant_sent),
                forest.sum(|s| s.choke_sent),
                forest.sum(|s| s.unchoke_sent),
                forest.sum(|s| s.broken_promises),
            );
            forest.check();
        }
    }
}
