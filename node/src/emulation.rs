//! Thousands of real nodes in one process, connected as their owner says, over links of a given latency.
//!
//! ```text
//!   EmulatedNetwork ── owns ──► arbiter 0 ── node 0 ─┐ links: latency(0, 3) …
//!     add_nodes, connect,       arbiter 1 ── node 1  │
//!     broadcast, on_message     arbiter 0 ── node 2  ├─ Noise and Yamux over pipes in memory
//!                               arbiter 1 ── node 3 ─┘
//!                                    └── one pool of threads checks the signatures of all
//! ```
//!
//! Each node is a [`MeshNode`] with all its actors, its own libp2p swarm, its own identity and its own randomness.
//! What differs from a node on a machine of its own:
//!
//! * **Who is connected to whom is given**, by [`EmulatedNetwork::connect`]; no node dials by itself, there is no
//!   Kademlia, and membership (SWIM) knows nobody, because its probes go to members at random. The network does not
//!   make up for a connection that is lost.
//! * **Links obey the law that they are given** ([`LinkLaw`](crate::swarm::LinkLaw)); the bytes of a link keep their
//!   order, and what the law loses comes later.
//! * Nodes have no store and no API, and links are pinged once in a minute.
//!
//! # How fast
//! The nodes share a few threads, and a copy of a message costs some 100 µs of CPU between two of them. A flood among
//! 200 nodes is about 1,300 copies, among 1,000 nodes 6,000: more work than two cores do while it spreads over links of
//! 10 to 100 ms, so that the processor, not the links, would say how long it takes, however few messages there are.
//! The remedy is *slow time* ([`Links::slow`]; Gupta et al., "To Infinity and Beyond: Time-Warped Network Emulation",
//! NSDI 2006): links and the nodes' clocks go so many times slower than real time, the processor does not. All times
//! that the network takes and gives are its own. Timeouts of libp2p itself stay in real time; its shortest, 10 s to
//! agree on a protocol, wants a slowdown with which round trips stay below some 3 s.
//!
//! A run is honest if twice the slowdown gives the same latencies: 4 was enough for 200 nodes with 8 dials each on two
//! cores that others used too, 10 was not yet for 1,000. [`EmulatedNetwork::take_lag`] tells of machines that are too
//! small by far.

mod lag;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_rt::Arbiter;
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use libp2p::{Multiaddr, PeerId};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh, NodeId, gossip};
use tokio::sync::oneshot;

use crate::actors::author::Published;
use crate::message::Message;
use crate::node::channels::PublishError;
use crate::node::start::{NodeOptions, Plug, StartError, Surroundings, verification_pool};
use crate::node::{MeshNode, Stopped};
use crate::swarm::{Links, peer};

pub use lag::Lag;
use lag::LagMeter;

/// Links that are made at once, times the slowdown. With a latency of 100 ms one takes about a second, so that 1,000
/// nodes with 8,000 links take a quarter of a minute.
const CONNECTS_MAX: usize = 512;
/// The same, whatever the slowdown: they share the processor, and each must be done within libp2p's timeouts.
const CONNECTS_MAX_SLOW: usize = 4096;
/// How long making one link may take on a busy machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// How often it is looked whether something has come true for which no event exists.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// Handshakes that a node may have under way: all its neighbours may dial it at once.
const PENDING_MAX: usize = 2048;
/// Neighbours that a node may have.
const PEERS_MAX: usize = 4096;
/// What each of them may hold: far more than any does, and enough for so many neighbours.
const MEMORY: usize = 4 << 30;
/// One step-synchronisation round in so long, of so many peers: all clocks are one clock here, and a round with each
/// of 16 neighbours in each second would be most of what 1,000 nodes say.
const SYNC_ROUND_MS: u64 = 30_000;
const SYNC_PEERS: usize = 4;

/// What an emulated network is made of.
#[derive(Clone, Debug)]
pub struct Emulation {
    /// The mesh of all nodes.
    pub mesh: Mesh,
    /// The configuration of each node; its addresses are set by the network.
    pub config: Config,
    /// The settings of each node's gossip router, if they are not to follow from the configuration.
    pub gossip: Option<gossip::Config>,
    /// What connects the nodes; each network has its own.
    pub links: Links,
    /// Threads for the nodes, and as many that check signatures. Default: the number of cores.
    pub threads: NonZeroUsize,
}

impl Emulation {
    /// Nodes with the default configuration, but for limits and for step synchronisation, of which there is less.
    pub fn new(mesh: Mesh, links: Links) -> Self {
        let mut config = Config::default();
        (config.network.pending_max, config.network.peers_max) = (PENDING_MAX, PEERS_MAX);
        config.limits.memory = MEMORY;
        (config.node.sync_round_ms, config.node.sync_peers) = (SYNC_ROUND_MS, SYNC_PEERS);
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Emulation { mesh, config, gossip: None, links, threads }
    }
}

/// A message that a node delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Which node.
    pub node: u32,
    /// Which neighbour brought it.
    pub from: Option<u32>,
    /// When its subscriber got it, on the clock of [`EmulatedNetwork::now`].
    pub at: Duration,
    /// What it got.
    pub message: Message,
}

/// Many real nodes in this process; see the module. Must be made and used within an actix system, whose own thread
/// the nodes leave alone.
///
/// ```
/// use std::time::Duration;
///
/// use omnimesh_node::swarm::{Links, Security};
/// use omnimesh_node::{EmulatedNetwork, Emulation};
/// use omnimesh_protocol::Mesh;
/// use tokio::sync::mpsc;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let links = Links::new(Security::Noise, |a, b| Duration::from_millis(u64::from(a + b)));
/// let mut network = EmulatedNetwork::new(Emulation::new(Mesh::open("example")?, links))?;
/// network.add_nodes(3).await?;
/// network.connect_all([(0, 1), (1, 2)]).await?;
/// network.wait_ready().await?;
///
/// let (sender, mut deliveries) = mpsc::channel(16);
/// network.on_message("news", move |delivery| drop(sender.try_send(delivery.node))).await?;
/// network.wait_subscribed("news").await?;
/// network.broadcast(0, "news", "hello").await?;
/// assert_eq!((deliveries.recv().await, deliveries.recv().await), (Some(1), Some(2)));
/// network.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct EmulatedNetwork {
    emulation: Emulation,
    pool: Arc<rayon::ThreadPool>,
    arbiters: Vec<Arbiter>,
    nodes: Vec<Emulated>,
    clock: Clock,
    lag: Arc<LagMeter>,
}

/// The time in an emulated network.
#[derive(Clone, Copy)]
struct Clock {
    begun: Instant,
    slowdown: u32,
}

impl Clock {
    fn now(self) -> Duration {
        self.begun.elapsed() / self.slowdown
    }
}

struct Emulated {
    node: MeshNode,
    id: NodeId,
    address: Multiaddr,
    /// Connections that were made.
    degree: AtomicUsize,
}

impl fmt::Debug for EmulatedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedNetwork")
            .field("nodes", &self.nodes.len())
            .field("threads", &self.arbiters.len())
            .field("links", &self.emulation.links)
            .finish_non_exhaustive()
    }
}

/// What an emulated network did not do.
#[derive(Debug, thiserror::Error)]
pub enum EmulationError {
    /// There is no such node.
    #[error("there is no node {0}; there are {1}")]
    NoNode(u32, usize),
    /// A node did not start.
    #[error("node {0} did not start: {1}")]
    Start(u32, #[source] StartError),
    /// Two nodes were not connected.
    #[error("nodes {0} and {1} were not connected: {2}")]
    Connect(u32, u32, String),
    /// A node published nothing, or a channel's name is not allowed.
    #[error("node {0}: {1}")]
    Publish(u32, #[source] PublishError),
    /// A node has stopped.
    #[error("node {0} has stopped")]
    Stopped(u32),
}

impl EmulatedNetwork {
    /// An empty network.
    ///
    /// # Errors
    /// If there are no threads to be had.
    ///
    /// # Panics
    /// Outside of an actix system.
    pub fn new(emulation: Emulation) -> Result<Self, StartError> {
        let threads = emulation.threads.get();
        let pool = verification_pool(Some(threads))?;
        let arbiters = (0..threads).map(|_| Arbiter::try_new()).collect::<Result<Vec<_>, _>>();
        let arbiters = arbiters.map_err(|error| StartError::Threads(error.to_string()))?;
        let lag = Arc::<LagMeter>::default();
        for arbiter in &arbiters {
            arbiter.spawn(Arc::clone(&lag).run());
        }
        let clock = Clock { begun: Instant::now(), slowdown: emulation.links.slowdown().get() };
        Ok(EmulatedNetwork { emulation, pool, arbiters, nodes: Vec::new(), clock, lag })
    }

    /// Adds so many nodes, with new identities; they are numbered in the order in which they are added. The first of
    /// all founds the mesh's time.
    ///
    /// # Errors
    /// If one does not start; then none is added.
    pub async fn add_nodes(&mut self, count: u32) -> Result<(), EmulationError> {
        let first = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let starting = (first..first.saturating_add(count)).map(|index| self.start(index));
        // One at a time on each thread, in order.
        let nodes = stream::iter(starting).buffered(self.arbiters.len()).try_collect::<Vec<_>>().await?;
        self.nodes.extend(nodes);
        Ok(())
    }

    async fn start(&self, index: u32) -> Result<Emulated, EmulationError> {
        let end = self.emulation.links.end(index);
        let identity = new_identity();
        let (id, address) = (identity.id(), end.address());
        let mut config = self.emulation.config.clone();
        config.network.listen = vec![address.to_string()];
        config.network.bootstrap = Vec::new();
        let options =
            NodeOptions { config, data_dir: None, identity, mesh: self.emulation.mesh.clone(), is_new: true };
        let surroundings = Surroundings {
            pool: Some(Arc::clone(&self.pool)),
            plug: Some(Plug { end, is_founder: index == 0, gossip: self.emulation.gossip.clone() }),
        };
        let started = run_on(self.arbiter(index), move || MeshNode::start_in(options, surroundings)).await;
        let started = started.ok_or(EmulationError::Stopped(index))?;
        let node = started.map_err(|error| EmulationError::Start(index, error))?;
        Ok(Emulated { node, id, address, degree: AtomicUsize::new(0) })
    }

    /// The thread of a node.
    fn arbiter(&self, index: u32) -> &Arbiter {
        &self.arbiters[index as usize % self.arbiters.len()]
    }

    fn emulated(&self, index: u32) -> Result<&Emulated, EmulationError> {
        self.nodes.get(index as usize).ok_or(EmulationError::NoNode(index, self.nodes.len()))
    }

    fn indexed(&self) -> impl Iterator<Item = (u32, &Emulated)> {
        (0..).zip(&self.nodes)
    }

    /// Connects two nodes: the first dials the second. Waits until both gossip with each other.
    ///
    /// # Errors
    /// If there is no such node, or they do not come together.
    pub async fn connect(&self, from: u32, to: u32) -> Result<(), EmulationError> {
        let (dialler, dialled) = (self.emulated(from)?, self.emulated(to)?);
        let linked = async {
            dialler.node.link(dialled.id, Some(dialled.address.clone())).await?;
            dialled.node.link(dialler.id, None).await
        };
        let failed = |reason| EmulationError::Connect(from, to, reason);
        match tokio::time::timeout(CONNECT_TIMEOUT, linked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(format!("they did not come together within {CONNECT_TIMEOUT:?}"))),
        }
        for end in [dialler, dialled] {
            end.degree.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Connects all these pairs, many at a time.
    ///
    /// # Errors
    /// As [`EmulatedNetwork::connect`], at the first that fails.
    pub async fn connect_all(
        &self,
        pairs: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<(), EmulationError> {
        let connecting = pairs.into_iter().map(|(from, to)| Ok(self.connect(from, to)));
        let slowdown = usize::try_from(self.clock.slowdown).unwrap_or(usize::MAX);
        let at_once = CONNECTS_MAX.saturating_mul(slowdown).min(CONNECTS_MAX_SLOW);
        stream::iter(connecting).try_buffer_unordered(at_once).try_collect().await
    }

    /// Waits until every node has the mesh's step. One that is connected to nobody, but the first, never has.
    ///
    /// # Errors
    /// If a node has stopped.
    pub async fn wait_ready(&self) -> Result<(), EmulationError> {
        for (index, Emulated { node, .. }) in self.indexed() {
            node.wait_ready().await.map_err(|Stopped| EmulationError::Stopped(index))?;
        }
        Ok(())
    }

    /// Calls `handler` with each message that a node delivers on a channel, on the thread of that node, from now on.
    /// A node that is added later is not subscribed.
    ///
    /// # Errors
    /// If the channel's name is not allowed or a node has stopped.
    pub async fn on_message(
        &self,
        channel: &str,
        handler: impl Fn(Delivery) + Send + Sync + 'static,
    ) -> Result<(), EmulationError> {
        let handler = Arc::new(handler);
        let places: HashMap<PeerId, u32> =
            self.indexed().map(|(index, emulated)| (peer::peer_id(&emulated.id), index)).collect();
        let places = Arc::new(places);
        // All at once, as if they had started at one moment.
        let subscribing = self.indexed().map(|(index, Emulated { node, .. })| async move {
            let subscribed = node.subscribe(channel).await;
            Ok((index, subscribed.map_err(|error| EmulationError::Publish(index, error))?))
        });
        for (index, mut subscription) in try_join_all(subscribing).await? {
            let (handler, places, clock) = (Arc::clone(&handler), Arc::clone(&places), self.clock);
            self.arbiter(index).spawn(async move {
                while let Some(message) = subscription.receive().await {
                    let from = message.from.and_then(|peer| places.get(&peer).copied());
                    handler(Delivery { node: index, from, at: clock.now(), message });
                }
            });
        }
        Ok(())
    }

    /// Waits until every node knows that all its neighbours are on a channel. Its mesh is complete some heartbeats
    /// later.
    ///
    /// # Errors
    /// If the channel's name is not allowed or a node has stopped.
    pub async fn wait_subscribed(&self, channel: &str) -> Result<(), EmulationError> {
        for (index, Emulated { node, degree, .. }) in self.indexed() {
            loop {
                let peers = node.channel_peers(channel).await;
                let peers = peers.map_err(|error| EmulationError::Publish(index, error))?;
                if peers.subscribed >= degree.load(Ordering::Relaxed) {
                    break;
                }
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }
        Ok(())
    }

    /// Publishes a payload at a node.
    ///
    /// # Errors
    /// If there is no such node, or it does not take it.
    pub async fn broadcast(
        &self,
        from: u32,
        channel: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Published, EmulationError> {
        let published = self.emulated(from)?.node.broadcast(channel, payload).await;
        published.map_err(|error| EmulationError::Publish(from, error))
    }

    /// What a node's gossip router has counted.
    ///
    /// # Errors
    /// If there is no such node, or it has stopped.
    pub async fn gossip_stats(&self, index: u32) -> Result<gossip::Stats, EmulationError> {
        let stats = self.emulated(index)?.node.gossip_stats().await;
        stats.map_err(|Stopped| EmulationError::Stopped(index))
    }

    /// What each node holds for the mesh's time, in order; `None` of one that is not synchronised.
    pub fn mesh_times(&self) -> impl Iterator<Item = Option<Duration>> {
        self.nodes.iter().map(|emulated| emulated.node.mesh_time())
    }

    /// The time in the network, since it was made.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Waits until it is that time in the network.
    pub async fn sleep_until(&self, at: Duration) {
        let at = self.clock.begun + at.saturating_mul(self.clock.slowdown);
        tokio::time::sleep_until(at.into()).await;
    }

    /// How late timers fired on the nodes' threads, in real time, since this was last asked: a mean above a few
    /// milliseconds says that the machine is too small for what was asked of the nodes. A short burst hides in it.
    pub fn take_lag(&self) -> Lag {
        self.lag.take()
    }

    /// A node, for all that it can do.
    pub fn node(&self, index: u32) -> Option<&MeshNode> {
        self.nodes.get(index as usize).map(|emulated| &emulated.node)
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &MeshNode> {
        self.nodes.iter().map(|emulated| &emulated.node)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Stops all nodes, in good order, and their threads.
    pub async fn shutdown(mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        stream::iter(nodes).for_each_concurrent(None, |emulated| emulated.node.shutdown()).await;
        let arbiters = std::mem::take(&mut self.arbiters);
        for arbiter in &arbiters {
            arbiter.stop();
        }
        let joined = actix_rt::task::spawn_blocking(move || arbiters.into_iter().try_for_each(Arbiter::join));
        // A thread that panicked has said so itself.
        let _ = joined.await;
    }
}

impl Drop for EmulatedNetwork {
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

fn new_identity() -> Identity {
    let mut seed = [0; 32];
    rand_core::Rng::fill_bytes(&mut crate::actors::rng(), &mut seed);
    Identity::from_seed(&seed)
}

/// Runs work on the thread of an arbiter; `None` if that has ended.
async fn run_on<T, F>(arbiter: &Arbiter, work: impl FnOnce() -> F + Send + 'static) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (sender, done) = oneshot::channel();
    arbiter.spawn_fn(move || {
        actix_rt::spawn(async move {
            let _ = sender.send(work().await);
        });
    });
    done.await.ok()
}
