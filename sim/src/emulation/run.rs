//! One run of real nodes.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use omnimesh_node::swarm::{Links, Security};
use omnimesh_node::{Delivery, EmulatedNetwork, Emulation, EmulationError, StartError};
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind, payload_bytes_max};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh, NodeId, Seq, Step, gossip};

use super::law::Law;
use super::slowdown;
use crate::model::link::{LinkModel, NodeSet, nanos};
use crate::model::plan::{OF_AUTHORS, Plan, stream};
use crate::model::record::{Offences, Sent, tell};
use crate::model::{Options, Progress, SAMPLE_EVERY};
use crate::outcome::{Cost, Outcome, Sample};
use crate::process::{peak_bytes, resident_bytes};
use crate::scenario::{Crypto, Scenario};

/// Where the workload is published.
const CHANNEL: &str = "sim";
/// Nodes are started in groups of so many, and progress is told between them.
const START_GROUP: u32 = 20;
/// Links are made in groups of so many.
const LINK_GROUP: usize = 1_000;
/// Heartbeats from when all neighbours know each other until the first message: the mesh is whole by then.
const SETTLE_HEARTBEATS: u32 = 4;
/// What is on its way when the last node has got the last message arrives within this.
const TAIL: Duration = Duration::from_secs(2);

/// Why there is no outcome: no threads are to be had, or a node did not do its part.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

impl From<StartError> for RunError {
    fn from(error: StartError) -> Self {
        RunError(error.to_string())
    }
}

impl From<EmulationError> for RunError {
    fn from(error: EmulationError) -> Self {
        RunError(error.to_string())
    }
}

/// Runs a scenario that [`Scenario::problems_of_libp2p`] finds nothing in.
///
/// # Errors
/// If nodes cannot be started or connected.
///
/// # Panics
/// Within an asynchronous runtime: it runs its own.
pub fn run(scenario: &Scenario, mut options: Options<'_>) -> Result<Outcome, RunError> {
    actix_rt::System::new().block_on(async {
        let mut run = Run::begin(scenario, &mut options).await?;
        run.publish_all(&mut options).await?;
        run.finish().await
    })
}

/// What subscribers got, as they got it.
type Inbox = Arc<Mutex<Vec<Got>>>;

struct Got {
    author: NodeId,
    seq: Seq,
    node: u32,
    from: Option<u32>,
    at: Duration,
}

struct Run<'a> {
    scenario: &'a Scenario,
    plan: Plan,
    law: Law,
    network: EmulatedNetwork,
    inbox: Inbox,
    sent: Vec<Sent>,
    /// The number of each message, by its author and the author's count.
    numbers: HashMap<(NodeId, Seq), u32>,
    samples: Vec<Sample>,
    steps: Vec<Option<u64>>,
    steps_fell: Offences,
    /// The network's time at the start of the run.
    zero: Duration,
    began: Instant,
    bytes_per_node: u64,
    threads: usize,
}

impl<'a> Run<'a> {
    /// Starts and connects all nodes, and waits until they are a mesh.
    async fn begin(scenario: &'a Scenario, options: &mut Options<'_>) -> Result<Self, RunError> {
        let (began, before) = (Instant::now(), resident_bytes());
        let (plan, nodes) = (Plan::new(scenario), scenario.network.nodes);
        let links = LinkModel::new(scenario.links.clone(), scenario.seed, plan.regions.clone());
        let law = Law::new(links, nodes);
        let emulation = emulation(scenario, &law, options.threads);
        let threads = emulation.threads.get();
        let mut network = EmulatedNetwork::new(emulation)?;
        let mut started = 0;
        while started < nodes {
            let group = START_GROUP.min(nodes - started);
            network.add_nodes(group).await?;
            started += group;
            tell_progress(options, scenario, Duration::ZERO, u64::from(started));
        }
        let mut linked = 0;
        for group in plan.links.chunks(LINK_GROUP) {
            network.connect_all(group.iter().copied()).await?;
            linked += group.len();
            tell_progress(options, scenario, Duration::ZERO, u64::from(nodes) + linked as u64);
        }
        network.wait_ready().await?;
        let inbox = Inbox::default();
        let into = Arc::clone(&inbox);
        network
            .on_message(CHANNEL, move |Delivery { node, from, at, message }| {
                let got = Got { author: message.author, seq: message.seq, node, from, at };
                into.lock().unwrap_or_else(PoisonError::into_inner).push(got);
            })
            .await?;
        network.wait_subscribed(CHANNEL).await?;
        let settled = network.now() + scenario.gossip.heartbeat_interval * SETTLE_HEARTBEATS;
        network.sleep_until(settled).await;
        // The run begins so that the first message is due now: nobody needs to wait for what is there already.
        let zero = settled.saturating_sub(scenario.workload.start);
        let bytes_per_node = resident_bytes().saturating_sub(before) / u64::from(nodes.max(1));
        Ok(Run {
            scenario,
            plan,
            law,
            network,
            inbox,
            sent: Vec::new(),
            numbers: HashMap::new(),
            samples: Vec::new(),
            steps: vec![None; nodes as usize],
            steps_fell: Offences::default(),
            zero,
            began,
            bytes_per_node,
            threads,
        })
    }

    /// The time of the scenario.
    fn now(&self) -> Duration {
        self.network.now().saturating_sub(self.zero)
    }

    /// Publishes every message in its time, and waits until all have arrived or the scenario ends.
    async fn publish_all(&mut self, options: &mut Options<'_>) -> Result<(), RunError> {
        let workload = &self.scenario.workload;
        let nodes = self.scenario.network.nodes;
        let mut rng = stream(self.scenario.seed, OF_AUTHORS);
        let bytes = envelope_bytes(self.scenario);
        let (mut number, mut next_sample, mut complete_at) = (0, self.now(), None::<Duration>);
        loop {
            let now = self.now();
            let end =
                complete_at.map_or(self.scenario.duration, |at| (at + TAIL).min(self.scenario.duration));
            if now >= end {
                break;
            }
            if now >= next_sample {
                self.sample().await?;
                next_sample = now + SAMPLE_EVERY;
                let delivered = self.delivered();
                let expected = u64::from(workload.messages) * u64::from(nodes.saturating_sub(1));
                if number == workload.messages && delivered >= expected {
                    complete_at.get_or_insert(now);
                }
                tell_progress(options, self.scenario, now, delivered);
            }
            let due = (number < workload.messages).then(|| workload.time_of(number));
            if due.is_some_and(|due| due <= now) {
                let author = self.plan.candidates(number, nodes, &mut rng).first().copied().unwrap_or(0);
                self.publish(author, number, bytes).await?;
                number += 1;
                continue;
            }
            let next = due.map_or(next_sample, |due| due.min(next_sample)).min(end);
            self.network.sleep_until(self.zero + next).await;
        }
        Ok(self.sample().await?)
    }

    async fn publish(&mut self, author: u32, number: u32, bytes: u32) -> Result<(), EmulationError> {
        let nodes = self.scenario.network.nodes;
        let most = payload_bytes_max(omnimesh_protocol::config::Config::default().gossip.message_bytes_max);
        let at = self.now();
        let payload = self.scenario.workload.payload(number, most);
        let published = self.network.broadcast(author, CHANNEL, payload).await?;
        if let Some(node) = self.network.node(author) {
            self.numbers.insert((node.peer_id(), published.seq), number);
        }
        let audience = (0..nodes).filter(|node| *node != author).collect();
        self.sent.push(Sent { author, at: nanos(at), bytes, audience });
        Ok(())
    }

    fn delivered(&self) -> u64 {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    async fn stats(&self) -> Result<gossip::Stats, EmulationError> {
        let asked = (0..self.scenario.network.nodes).map(|node| self.network.gossip_stats(node));
        let mut sum = gossip::Stats::default();
        for stats in try_join_all(asked).await? {
            sum += &stats;
        }
        Ok(sum)
    }

    async fn sample(&mut self) -> Result<(), EmulationError> {
        let stats = self.stats().await?;
        let (at, interval) = (self.now(), self.scenario.network.step_interval);
        let times: Vec<_> = self.network.mesh_times().collect();
        for ((node, time), before) in (0..).zip(&times).zip(&mut self.steps) {
            let step = time.map(|time| nanos(time) / nanos(interval).max(1));
            if step < *before {
                self.steps_fell.note(node, nanos(at));
            }
            *before = step;
        }
        let known: Vec<_> = times.iter().flatten().copied().collect();
        let range = known.iter().min().zip(known.iter().max());
        let skew_ms = range.map_or(0.0, |(least, most)| (*most - *least).as_secs_f64() * 1e3);
        self.samples.push(Sample {
            at,
            up: self.scenario.network.nodes,
            synchronised: u32::try_from(known.len()).unwrap_or(u32::MAX),
            skew_ms,
            island_skew_ms: skew_ms,
            links: self.plan.links.len() as u64,
            deliveries: self.delivered(),
            copies: stats.copies_received,
            duplicates: stats.duplicates,
            membership: 1.0,
            quarantined: 0,
        });
        Ok(())
    }

    async fn degrees(&self) -> Result<Vec<u32>, EmulationError> {
        let mut degrees = Vec::new();
        for (index, node) in (0..).zip(self.network.nodes()) {
            let peers = node.channel_peers(CHANNEL).await;
            let degree = peers.map_err(|error| EmulationError::Publish(index, error))?.in_mesh;
            degrees.resize(degrees.len().max(degree + 1), 0);
            degrees[degree] += 1;
        }
        Ok(degrees)
    }

    async fn finish(self) -> Result<Outcome, RunError> {
        let (stats, degrees) = (self.stats().await?, self.degrees().await?);
        let ended = self.now();
        let got = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        let mut forged = Offences::default();
        let (zero, nodes) = (self.zero, self.scenario.network.nodes);
        let mut deliveries = Vec::with_capacity(got.len());
        for Got { author, seq, node, from, at } in got {
            let at = nanos(at.saturating_sub(zero));
            match self.numbers.get(&(author, seq)) {
                None => forged.note(node, at),
                Some(number) => deliveries.push((*number, node, from.unwrap_or(node), at)),
            }
        }
        let trace_hash = trace_hash(&deliveries);
        let events = deliveries.len() as u64;
        let told = tell(deliveries, &self.sent, &NodeSet::default(), &[], nodes);
        let mut traffic = self.law.traffic();
        traffic.copies = stats.copies_received;
        traffic.ihave_frames = stats.ihave_sent;
        self.network.shutdown().await;
        Ok(Outcome {
            nodes,
            ended,
            messages: told.messages,
            deliveries: told.deliveries,
            delivered_twice: told.delivered_twice.count,
            first_delivered_twice: told.delivered_twice.offence(),
            forged: forged.count,
            first_forged: forged.offence(),
            steps_fell: self.steps_fell.count,
            first_step_fell: self.steps_fell.offence(),
            gossip: stats,
            traffic,
            samples: self.samples,
            regions: self.plan.regions,
            degrees,
            bytes_per_node: self.bytes_per_node,
            events,
            trace_hash,
            cost: Cost { wall: self.began.elapsed(), peak_rss_bytes: peak_bytes(), threads: self.threads },
            ..Outcome::default()
        })
    }
}

fn emulation(scenario: &Scenario, law: &Law, threads: usize) -> Emulation {
    let mesh = Mesh::open("simulation").expect("a good name");
    let security = match scenario.crypto {
        Crypto::Real => Security::Noise,
        Crypto::Skip => Security::None,
    };
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = NonZeroUsize::new(threads).unwrap_or(cores);
    let links = Links::under(security, slowdown(scenario, threads.get()), law.clone());
    let mut emulation = Emulation::new(mesh, links);
    emulation.threads = threads;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let network = &scenario.network;
    let node = &mut emulation.config.node;
    node.step_interval_ms = millis(network.step_interval);
    (node.sync_round_ms, node.sync_peers) = (millis(network.sync_interval), network.sync_peers);
    emulation.config.gossip.tree = scenario.gossip.tree.is_some();
    emulation.gossip = Some(gossip::Config {
        peers_max: emulation.config.network.peers_max.saturating_mul(2),
        ..scenario.gossip.clone()
    });
    emulation
}

/// The length of a message's envelope, to a few bytes.
fn envelope_bytes(scenario: &Scenario) -> u32 {
    let mesh = Mesh::open("simulation").expect("a good name");
    let channel = Channel::new(CHANNEL).expect("a good name");
    let node = omnimesh_protocol::config::NodeConfig::default();
    let interval = std::num::NonZeroU64::new(node.phase_interval).expect("the default is not zero");
    let step = Step(1 << 31);
    let mut patterns = PatternGenerator::new(mesh.secret().clone(), interval, NonZeroUsize::MIN);
    let identity = Identity::from_seed(&[0; 32]);
    let header = Header {
        mesh: mesh.id(),
        author: identity.id(),
        seq: Seq(1 << 16),
        step,
        kind: Kind::Ephemeral,
        channel,
        prev: None,
        timestamp_us: Some(1 << 51),
    };
    let payload = scenario.workload.payload(0, usize::MAX);
    let sealed = Envelope::seal(&identity, patterns.at(step), header, [payload].into_iter().collect());
    sealed.map_or(0, |envelope| u32::try_from(envelope.as_bytes().len()).unwrap_or(u32::MAX))
}

/// Of what was delivered to whom.
fn trace_hash(deliveries: &[(u32, u32, u32, u64)]) -> [u8; 32] {
    let mut counts = BTreeMap::<(u32, u32), u32>::new();
    for (number, node, ..) in deliveries {
        *counts.entry((*number, *node)).or_default() += 1;
    }
    let mut hasher = blake3::Hasher::new();
    for ((number, node), count) in counts {
        for part in [number, node, count] {
            hasher.update(&part.to_le_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

fn tell_progress(options: &mut Options<'_>, scenario: &Scenario, virtual_time: Duration, events: u64) {
    if let Some(progress) = &mut options.progress {
        progress(Progress { virtual_time, duration: scenario.duration, events, pending: 0 });
    }
}
