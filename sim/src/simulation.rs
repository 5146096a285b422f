//! A run: nodes on a random graph, a workload, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::{Mesh, MessageId, Time, gossip};
use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::node::{Effect, Node, Packet, Timer, payload_bytes_max};
use crate::queue::Queue;

/// What is simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many nodes.
    pub nodes: u32,
    /// Random peers that each node dials; connections serve both ways.
    pub dials: usize,
    /// One-way delay of a packet: uniform between these, drawn anew for each.
    pub delay: (Duration, Duration),
    /// Share of packets lost, 0..=1.
    pub loss: f64,
    /// Messages published, one each 100 ms, by random nodes, once all have a step.
    pub messages: u32,
    /// Bytes of a message; cut to what an envelope holds.
    pub message_bytes: usize,
    /// How far apart the nodes' wall clocks are at the start, at most.
    pub clocks_apart: Duration,
    /// Virtual time before the workload, for joining.
    pub settle: Duration,
    /// Virtual time after the last message.
    pub drain: Duration,
    /// Whence all randomness comes.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            nodes: 100,
            dials: 8,
            delay: (Duration::from_millis(10), Duration::from_millis(100)),
            loss: 0.0,
            messages: 50,
            message_bytes: 64,
            clocks_apart: Duration::from_secs(3600),
            settle: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            seed: 1,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Messages published.
    pub published: u64,
    /// Deliveries there should be: each message at each node but its author's.
    pub expected: u64,
    /// Deliveries there were.
    pub deliveries: u64,
    /// Deliveries of a message to a node that had it already; always 0.
    pub delivered_twice: u64,
    /// Copies received beyond the first.
    pub duplicates: u64,
    /// From publishing to delivery: the median.
    pub latency_p50: Duration,
    /// The longest.
    pub latency_max: Duration,
    /// Distance between the first and the last node's mesh time at the end; `None` if one has none.
    pub skew: Option<Duration>,
    /// Events worked off.
    pub events: u64,
    /// BLAKE3 of all events in order: equal for equal runs.
    pub trace_hash: [u8; 32],
}

#[derive(Debug)]
enum Event {
    Arrive { to: u32, from: u32, packet: Packet },
    Timer { node: u32, timer: Timer },
    Publish { number: u32 },
}

/// A mesh in virtual time.
#[derive(Debug)]
pub struct Simulation {
    config: Config,
    nodes: Vec<Node>,
    queue: Queue<Event>,
    rng: ChaCha8Rng,
    channel: Channel,
    published: BTreeMap<MessageId, (Time, Vec<bool>)>,
    latencies: Vec<Duration>,
    delivered_twice: u64,
    trace: blake3::Hasher,
}

impl Simulation {
    /// Sets the nodes up and connects them.
    ///
    /// # Panics
    /// If there are fewer than two nodes.
    pub fn new(config: Config) -> Self {
        assert!(config.nodes >= 2, "a mesh has at least two nodes");
        let mut simulation = Simulation {
            nodes: Vec::new(),
            queue: Queue::new(),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            channel: Channel::new("sim").expect("a good name"),
            published: BTreeMap::new(),
            latencies: Vec::new(),
            delivered_twice: 0,
            trace: blake3::Hasher::new(),
            config,
        };
        simulation.start_nodes();
        simulation.connect_nodes();
        simulation
    }

    fn start_nodes(&mut self) {
        let mesh = Mesh::open("simulation").expect("a good name");
        let gossip = Arc::new(gossip::Config::default());
        let apart_ns =
            u64::try_from(self.config.clocks_apart.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 4);
        for me in 0..self.config.nodes {
            let wall_ns = (u64::MAX / 8).saturating_add(self.rng.random_range(0..=apart_ns));
            let child = ChaCha8Rng::from_rng(&mut self.rng);
            let mut effects = Vec::new();
            self.nodes.push(Node::new(me, &mesh, &gossip, wall_ns, child, &mut effects));
            self.apply(Time::ZERO, me, effects);
        }
    }

    fn connect_nodes(&mut self) {
        let nodes = self.config.nodes;
        let mut links = std::collections::BTreeSet::new();
        for a in 0..nodes {
            let dials = self.config.dials.min(nodes as usize - 1);
            for b in index::sample(&mut self.rng, nodes as usize - 1, dials) {
                let b = u32::try_from(b).expect("fewer nodes than 2^32");
                let b = if b >= a { b + 1 } else { b };
                if links.insert((a.min(b), a.max(b))) {
                    self.with_node(Time::ZERO, a, |node, effects| node.connect(Time::ZERO, b, true, effects));
                    self.with_node(Time::ZERO, b, |node, effects| {
                        node.connect(Time::ZERO, a, false, effects);
                    });
                }
            }
        }
        let channel = self.channel.clone();
        for node in 0..nodes {
            self.with_node(Time::ZERO, node, |node, effects| node.subscribe(Time::ZERO, &channel, effects));
        }
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        let first = Time::ZERO + self.config.settle;
        for number in 0..self.config.messages {
            self.queue.schedule(first + Duration::from_millis(100) * number, Event::Publish { number });
        }
        let end = first + Duration::from_millis(100) * self.config.messages + self.config.drain;
        let mut events = 0;
        while let Some((now, event)) = self.queue.next() {
            if now > end {
                break;
            }
            events += 1;
            self.trace.update(&now.as_nanos().to_le_bytes());
            self.on_event(now, event);
        }
        self.report(end, events)
    }

    fn on_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Arrive { to, from, packet } => {
                self.trace.update(&to.to_le_bytes()).update(&from.to_le_bytes());
                self.with_node(now, to, |node, effects| node.receive(now, from, packet, effects));
            }
            Event::Timer { node, timer } => {
                self.trace.update(&node.to_le_bytes());
                self.with_node(now, node, |node, effects| node.on_timer(now, timer, effects));
            }
            Event::Publish { number } => {
                let author = self.rng.random_range(0..self.config.nodes);
                let mut payload = vec![0; self.config.message_bytes.clamp(4, payload_bytes_max())];
                payload[..4].copy_from_slice(&number.to_le_bytes());
                let channel = self.channel.clone();
                self.with_node(now, author, |node, effects| {
                    node.publish(now, &channel, Bytes::from(payload), effects);
                });
            }
        }
    }

    fn with_node(&mut self, now: Time, node: u32, work: impl FnOnce(&mut Node, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let machine = &mut self.nodes[node as usize];
        work(machine, &mut effects);
        if cfg!(debug_assertions) {
            machine.check_invariants(now);
        }
        self.apply(now, node, effects);
    }

    fn apply(&mut self, now: Time, node: u32, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => {
                    if self.config.loss > 0.0 && self.rng.random_bool(self.config.loss) {
                        continue;
                    }
                    let (least, most) = self.config.delay;
                    let delay = self.rng.random_range(least..=most);
                    self.queue.schedule(now + delay, Event::Arrive { to, from: node, packet });
                }
                Effect::Timer { at, timer } => self.queue.schedule(at.max(now), Event::Timer { node, timer }),
                Effect::Published { id } => {
                    self.trace.update(id.as_bytes());
                    let mut has = vec![false; self.nodes.len()];
                    has[node as usize] = true;
                    self.published.insert(id, (now, has));
                }
                Effect::Delivered { id } => {
                    self.trace.update(id.as_bytes());
                    if let Some((at, has)) = self.published.get_mut(&id) {
                        if std::mem::replace(&mut has[node as usize], true) {
                            self.delivered_twice += 1;
                        } else {
                            self.latencies.push(now.since(*at));
                        }
                    }
                }
            }
        }
    }

    fn report(mut self, end: Time, events: u64) -> Report {
        self.latencies.sort_unstable();
        let times: Option<Vec<Duration>> = self.nodes.iter().map(|node| node.mesh_time(end)).collect();
        let skew = times.and_then(|times| Some(*times.iter().max()? - *times.iter().min()?));
        debug_assert!(self.nodes.iter().all(|node| node.step_now(end).is_some() || skew.is_none()));
        let published = self.published.len() as u64;
        Report {
            published,
            expected: published * u64::from(self.config.nodes - 1),
            deliveries: self.latencies.len() as u64,
            delivered_twice: self.delivered_twice,
            duplicates: self.nodes.iter().map(|node| node.stats().duplicates).sum(),
            latency_p50: self.latencies.get(self.latencies.len() / 2).copied().unwrap_or_default(),
            latency_max: self.latencies.last().copied().unwrap_or_default(),
            skew,
            events,
            trace_hash: *self.trace.finalize().as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_reaches_everybody_and_clocks_agree() {
        let config = Config { nodes: 60, messages: 30, ..Config::default() };
        println!("seed {}", config.seed);
        let report = Simulation::new(config).run();
        assert_eq!((report.published, report.deliveries), (30, report.expected));
        assert_eq!(report.delivered_twice, 0);
        assert!(report.skew.expect("all have the step") < Duration::from_secs(1), "{report:?}");
        assert!(report.latency_max < Duration::from_secs(2), "{report:?}");
    }

    #[test]
    fn gossip_repairs_what_is_lost() {
        let config = Config { nodes: 40, messages: 20, loss: 0.2, seed: 7, ..Config::default() };
        println!("seed {}", config.seed);
        let report = Simulation::new(config).run();
        assert_eq!(report.published, 20);
        // A lost subscription is never told again, so a node may miss a neighbour; not all of them.
        assert_eq!(report.deliveries, report.expected, "{report:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_another() {
        let run = |seed| {
            Simulation::new(Config { nodes: 30, messages: 10, loss: 0.05, seed, ..Config::default() }).run()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3).trace_hash, run(4).trace_hash);
    }
}
