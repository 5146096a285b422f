//! Many relays in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use omnimesh_protocol::gossip::{self, Direction, Protocol};
use omnimesh_protocol::relay::{Input, Output, Unchecked};
use omnimesh_protocol::{MessageId, Step, Time};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::bench::{Bench, NOW, channel, sealed};

/// Relays in virtual time, over links with a latency, with signatures that take their time.
struct Network {
    nodes: Vec<Bench>,
    links: BTreeSet<(u32, u32)>,
    queue: BTreeMap<(Time, u64), (u32, Input<u32>)>,
    rng: ChaCha8Rng,
    now: Time,
    seq: u64,
    delivered: BTreeMap<(u32, MessageId), u32>,
}

impl Network {
    /// Events after which a run is given up.
    const EVENTS_MAX: u32 = 1_000_000;

    fn new(seed: u64, nodes: u8) -> Self {
        println!("seed {seed}");
        let mut network = Network {
            nodes: (0..nodes).map(|node| Bench::of(node, seed + u64::from(node), |_| {})).collect(),
            links: BTreeSet::new(),
            queue: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Time::ZERO,
            seq: 0,
            delivered: BTreeMap::new(),
        };
        for node in 0..u32::from(nodes) {
            network.give(node, Input::Step(Some(NOW)));
        }
        network
    }

    fn connect(&mut self, a: u32, b: u32) {
        if a == b || !self.links.insert((a.min(b), a.max(b))) {
            return;
        }
        for (node, peer, direction) in [(a, b, Direction::Outbound), (b, a, Direction::Inbound)] {
            let protocol = Protocol::Meshsub12;
            self.give(node, Input::Gossip(gossip::Input::Connected { peer, protocol, direction, ip: None }));
        }
    }

    fn schedule(&mut self, at: Time, node: u32, input: Input<u32>) {
        self.seq += 1;
        self.queue.insert((at, self.seq), (node, input));
    }

    fn give(&mut self, node: u32, input: Input<u32>) {
        let bench = &mut self.nodes[node as usize];
        bench.now = self.now;
        let outputs = bench.outputs(input);
        for (at, timer) in std::mem::take(&mut bench.timers) {
            self.schedule(at, node, Input::Gossip(gossip::Input::Timer(timer)));
        }
        for output in outputs {
            let delay = Duration::from_millis(self.rng.random_range(5..100));
            match output {
                // One latency per link, so that frames keep their order.
                Output::Gossip(gossip::Output::Send { to, rpc, .. }) => {
                    let latency = Duration::from_millis(5 + u64::from(node * 7 + to * 7) % 50);
                    let input = Input::Gossip(gossip::Input::Rpc { from: node, rpc });
                    self.schedule(self.now + latency, to, input);
                }
                Output::Verify { id, message } => {
                    let verified = message.verify().map_err(Unchecked::Refused);
                    self.schedule(self.now + delay, node, Input::Verified { id, result: verified });
                }
                Output::Verified { id, is_subscribed: true, .. } => {
                    *self.delivered.entry((node, id)).or_default() += 1;
                }
                Output::Refused { reason, .. } => panic!("node {node} refused: {reason}"),
                _ => {}
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..Self::EVENTS_MAX {
            match self.queue.first_key_value() {
                Some((&(at, seq), _)) if at <= end => {
                    let (node, input) = self.queue.remove(&(at, seq)).expect("just seen");
                    self.now = at;
                    self.give(node, input);
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the network does not come to rest");
    }

    /// Each of `subscribers` says something; all others must get it once.
    fn check(&mut self, subscribers: &[u32], round: u64) {
        self.delivered.clear();
        let mut expected = BTreeSet::new();
        for node in subscribers {
            let author = u8::try_from(*node).expect("few");
            let envelope = sealed(author, "news", round, NOW, &format!("{node} in round {round}"));
            let id = MessageId::of(envelope.as_bytes());
            expected.extend(subscribers.iter().filter(|to| *to != node).map(|to| (*to, id)));
            self.give(*node, Input::Publish(envelope));
        }
        self.run(Duration::from_secs(8));
        assert!(self.delivered.values().all(|times| *times == 1), "delivered at most once");
        assert_eq!(self.delivered.keys().copied().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn messages_cross_relays_that_do_not_subscribe() {
    let mut network = Network::new(1, 7);
    (0..6).for_each(|node| network.connect(node, node + 1));
    for node in [0, 6] {
        network.give(node, Input::Subscribe(channel("news")));
    }
    network.run(Duration::from_secs(2));
    network.check(&[0, 6], 1);
    // Also when nothing was said for long.
    for minute in 0..30 {
        network.run(Duration::from_secs(60));
        for node in 0..7 {
            network.give(node, Input::Step(Some(Step(NOW.0 + minute % 2))));
        }
    }
    network.check(&[0, 6], 2);
    assert!((1..6).all(|node| network.nodes[node].state.relayed().count() == 1));
}

#[test]
fn few_subscribers_in_random_networks_hear_each_other() {
    for seed in 1..=8 {
        let mut network = Network::new(seed, 24);
        for node in 1..24 {
            // A tree at least, and some more.
            let (parent, other) = (network.rng.random_range(0..node), network.rng.random_range(0..24));
            network.connect(node, parent);
            network.connect(node, other);
        }
        let subscribers: Vec<u32> = (0..24).filter(|_| network.rng.random_bool(0.25)).collect();
        for node in &subscribers {
            network.give(*node, Input::Subscribe(channel("news")));
        }
        network.run(Duration::from_secs(5));
        for round in 1..=3 {
            network.check(&subscribers, round);
        }
    }
}
