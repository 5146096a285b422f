//! A node, as a library user and the command line see it.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures::StreamExt;
use libp2p::Multiaddr;
use omnimesh_protocol::compute::blob::Pace;
use omnimesh_protocol::config::{Config, InvalidConfig, Part};
use omnimesh_protocol::envelope::{Channel, ChannelError};
use omnimesh_protocol::event::{Event, Stream as EventStream};
use omnimesh_protocol::gossip::Config as RouterConfig;
use omnimesh_protocol::log::Start;
use omnimesh_protocol::membership::Member;
use omnimesh_protocol::mesh::{INVITE_ADDRESSES_MAX, Invite};
use omnimesh_protocol::observer::NetworkMetrics;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh, NodeId, Seq, Step, observer};
use prometheus_client::registry::Registry;

use crate::actors::author::{self, AuthorActor, Broadcast, BroadcastError, Published};
use crate::actors::blob::{self, BlobActor};
use crate::actors::compute::{self, ComputeActor};
use crate::actors::gossip::{self, ChannelPeers, GossipActor};
use crate::actors::log::{self, LogActor};
use crate::actors::membership::{self, MembershipActor};
use crate::actors::observer::{Observed, ObserverActor, Watch};
use crate::actors::prober::{self, ProbeActor};
use crate::actors::projection;
use crate::actors::registry::RegistryActor;
use crate::actors::swarm::{self, LinkFailed, SwarmActor, own_addresses};
use crate::actors::sync::{self, SyncActor};
use crate::actors::telemetry::{self, TelemetryActor};
use crate::actors::{Common, Files, Links};
use crate::api::token::ApiToken;
use crate::api::{self, ApiMetrics, ApiServer, ServeError, Timeouts};
use crate::audit::{AuditLog, Retention};
use crate::backend::NodeBackend;
use crate::clock::{Epoch, SharedClock};
use crate::compute::wasm::{LazySandbox, Programs};
use crate::compute::{Context as Operations, KeyFiles, NoKeys};
use crate::data_dir::{API_ADDRESS_FILE, API_TOKEN_FILE, DataDirError, write_atomic};
use crate::feed::{Feed, FeedItem};
use crate::memory::Memory;
use crate::message::Message;
use crate::metrics::Latest;
use crate::settings::{self, SettingError};
use crate::store::blob::{BlobError, BlobStore};
use crate::store::log::{LogStore, OpenError, Opened};
use crate::store::{StepMark, Store, StoreError};
use crate::swarm::{LinkEnd, Network, peer};

/// What a node is made of.
#[derive(Debug)]
pub struct NodeOptions {
    /// Its configuration.
    pub config: Config,
    /// Where it keeps its data and has its API. Without one it keeps nothing and has no API; its identity
    /// must then be a new one, because sequence numbers are not remembered.
    pub data_dir: Option<PathBuf>,
    /// Who it is.
    pub identity: Identity,
    /// The mesh it belongs to.
    pub mesh: Mesh,
    /// True if the identity was made just now. Any other may have written entries that this data directory does not
    /// hold, because it is a copy or was restored: the node then asks its peers for the end of its own log before it
    /// writes.
    pub is_new: bool,
}

impl NodeOptions {
    /// A node that lives in this process only: it listens on libp2p's memory transport and keeps nothing.
    pub fn in_memory(identity: Identity, mesh: Mesh) -> Self {
        let mut config = Config::default();
        config.network.listen = vec!["/memory/0".to_owned()];
        NodeOptions { config, data_dir: None, identity, mesh, is_new: true }
    }
}

/// What a node shares with others of its process. By default nothing: a process of its own.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Threads that check signatures.
    pub(crate) pool: Option<Arc<rayon::ThreadPool>>,
    /// Where the node is plugged in, instead of into the network.
    pub(crate) plug: Option<Plug>,
}

/// A place among the links of an emulated network, whose owner alone says who is connected to whom: the node
/// dials nobody by itself.
#[derive(Debug)]
pub(crate) struct Plug {
    pub(crate) end: LinkEnd,
    /// The first of its network: the others take the time from it.
    pub(crate) is_founder: bool,
    /// The settings of its router, if they are not to follow from the configuration.
    pub(crate) gossip: Option<RouterConfig>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// A setting cannot be used here.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The blobs cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The log cannot be read.
    #[error(transparent)]
    LogStore(#[from] omnimesh_protocol::log::StoreError),
    /// The network does not start.
    #[error(transparent)]
    Network(#[from] crate::swarm::Error),
    /// The API does not start.
    #[error(transparent)]
    Api(#[from] ServeError),
    /// A file in the data directory, such as the API's token, cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// No thread pool could be made.
    #[error("cannot start the threads that check signatures or do tasks: {0}")]
    Threads(String),
}

/// The node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// A running node. Cheap to clone; the node runs until [`MeshNode::shutdown`], or until its actix system ends.
///
/// Two nodes in one process, over libp2p's memory transport:
///
/// ```
/// use omnimesh_node::{MeshNode, NodeOptions};
/// use omnimesh_protocol::{Identity, Mesh};
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::open("example")?;
/// let alice = MeshNode::start(NodeOptions::in_memory(Identity::from_seed(&[1; 32]), mesh.clone())).await?;
///
/// let mut options = NodeOptions::in_memory(Identity::from_seed(&[2; 32]), mesh);
/// options.config.network.bootstrap = alice.bootstrap_addresses();
/// let bob = MeshNode::start(options).await?;
/// bob.wait_ready().await?;
///
/// let mut news = bob.subscribe("news").await?;
/// // Subscriptions spread with the next frames; until then there are no recipients.
/// while alice.broadcast("news", "hello").await?.recipients == 0 {
///     tokio::task::yield_now().await;
/// }
/// let message = news.receive().await.expect("the node runs");
/// assert_eq!((message.author, &message.payload[..]), (alice.peer_id(), &b"hello"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MeshNode(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) me: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) config: Config,
    pub(crate) common: Common,
    pub(crate) clock: SharedClock,
    pub(crate) external: Vec<Multiaddr>,
    pub(crate) registry: Registry,
    pub(crate) latest: Latest,
    pub(crate) audit: Option<AuditLog>,
    links: RwLock<Option<Links>>,
    listening: Vec<Multiaddr>,
    api_address: Mutex<Option<SocketAddr>>,
    api: Mutex<Option<ApiServer>>,
}

impl Inner {
    pub(crate) fn links(&self) -> Result<Links, Stopped> {
        self.with_links(Links::clone)
    }

    /// What is wanted of the actors, without a copy of all of them.
    pub(crate) fn with_links<R>(&self, take: impl FnOnce(&Links) -> R) -> Result<R, Stopped> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(take).ok_or(Stopped)
    }
}

/// What an earlier run of this node left.
#[derive(Debug, Default)]
struct Kept {
    store: Option<Arc<Store>>,
    seq: Seq,
    mark: Option<StepMark>,
    offset: Option<omnimesh_protocol::step::SavedOffset>,
    book: Vec<omnimesh_protocol::dialer::BookEntry>,
    log: Option<(Arc<LogStore>, Opened)>,
    blobs: Option<Arc<BlobStore>>,
    observer: Vec<(bytes::Bytes, bytes::Bytes)>,
    audit: Option<AuditLog>,
}

impl Kept {
    fn load(options: &NodeOptions, memory: &Memory) -> Result<Self, StartError> {
        let Some(dir) = &options.data_dir else { return Ok(Kept { seq: Seq(1), ..Kept::default() }) };
        let store = Store::open(dir)?;
        let bytes_max = options.config.gossip.message_bytes_max;
        let (log, opened) =
            LogStore::open_within(dir, options.mesh.id(), bytes_max, memory.part(Part::Store).limit())?;
        Ok(Kept {
            seq: store.seq_reserved()?,
            mark: store.step_mark()?,
            offset: store.clock_offset()?,
            book: store.address_book()?.unwrap_or_default(),
            observer: store.observer_entries()?,
            audit: Some(AuditLog::open(
                dir,
                options.identity.clone(),
                Retention { days: options.config.observer.audit_days },
            )?),
            store: Some(Arc::new(store)),
            log: Some((Arc::new(log), opened)),
            blobs: Some(Arc::new(BlobStore::open(dir, options.config.compute.blob_bytes)?)),
        })
    }
}

impl MeshNode {
    /// Starts a node. Its actors run on the current actix arbiter, its connections on the current runtime.
    ///
    /// # Errors
    /// Says what is wrong with the configuration, the data directory, or an address.
    pub async fn start(options: NodeOptions) -> Result<MeshNode, StartError> {
        MeshNode::start_in(options, Surroundings::default()).await
    }

    /// The same for one of many nodes of a process.
    pub(crate) async fn start_in(
        options: NodeOptions,
        surroundings: Surroundings,
    ) -> Result<MeshNode, StartError> {
        options.config.validate()?;
        let memory = settings::memory(&options.config)?;
        let mut kept = Kept::load(&options, &memory)?;
        let mut swarm_config = settings::swarm(&options.config, &memory, options.mesh.id())?;
        swarm_config.log = kept.log.is_some().then(|| settings::log_streams(&options.config, &memory));
        swarm_config.blob = kept.blobs.is_some().then(|| settings::blob_streams(&memory));
        swarm_config.compute = kept.blobs.is_some().then(|| settings::compute_streams(&memory));
        if let Some(plug) = &surroundings.plug {
            settings::plug_in(&mut swarm_config, plug.end.clone());
        }
        let external = swarm_config.external.clone();
        let slowdown = surroundings.plug.as_ref().map_or(NonZeroU32::MIN, |plug| plug.end.slowdown());
        let (common, clock) = (Common::new(Epoch::begin(slowdown), memory), SharedClock::default());

        let mut registry = Registry::with_prefix("omnimesh");
        let latest = Latest::default();
        registry.register_collector(Box::new(latest.clone()));
        let api_metrics = ApiMetrics::default();
        api_metrics.register(&mut registry);
        // What fails most, fails before there are actors: those want to be stopped in good order.
        let started = Network::start(peer::keypair(&options.identity), swarm_config, &mut registry).await?;
        let is_plugged = surroundings.plug.is_some();
        let links = start_actors(&options, &mut kept, &external, &common, &clock, surroundings)?;
        common.link(&links);

        let NodeOptions { config, data_dir, identity, mesh, .. } = options;
        let listening = started.listening.clone();
        let inner = Arc::new(Inner {
            me: identity.id(),
            mesh,
            config,
            common,
            clock,
            external,
            registry,
            latest,
            audit: kept.audit.clone(),
            links: RwLock::new(Some(links.clone())),
            listening: listening.clone(),
            api_address: Mutex::new(None),
            api: Mutex::new(None),
        });
        let node = MeshNode(inner);
        if let Some(dir) = data_dir
            && let Err(error) = node.start_api(&dir, api_metrics)
        {
            // Whoever holds the actors or their files keeps the node from ending.
            drop((links, kept));
            node.shutdown().await;
            return Err(error);
        }
        let (begin, [gossip_frames, log_frames, blob_frames, compute_frames]) = swarm::Begin::split(started);
        let own = own_addresses(&listening, &node.0.external);
        // The mailboxes are empty: each of these is taken.
        let _ = links.observer.try_send(crate::actors::observer::Begin);
        let _ = links.membership.try_send(membership::Begin(own));
        let _ = links.sync.try_send(sync::Begin);
        let _ = links.author.try_send(author::Begin);
        let _ = links.gossip.try_send(gossip::Begin(gossip_frames));
        if let Some(log_actor) = &links.log {
            let _ = log_actor.try_send(log::Begin(log_frames));
        }
        if let Some(blobs) = &links.blobs {
            let _ = blobs.try_send(blob::Begin(blob_frames));
        }
        if let Some(compute) = &links.compute {
            let _ = compute.try_send(compute::Begin(compute_frames));
        }
        if !is_plugged {
            let _ = links.prober.try_send(prober::Begin);
            let _ = links.telemetry.try_send(telemetry::Begin);
        }
        let _ = links.swarm.try_send(begin);
        node.record_start();
        Ok(node)
    }

    /// Writes down that this node begins, and what has changed since it began last.
    fn record_start(&self) {
        let Some(audit) = &self.0.audit else { return };
        let Inner { me, mesh, config, .. } = &*self.0;
        audit.record_change("key", None, format!("the key of this node is {me}"));
        audit.record_change("config", None, settings::changes(config));
        let version = env!("CARGO_PKG_VERSION");
        audit.record(
            "start",
            "node",
            None,
            format!("version {version} in mesh {} ({})", mesh.name(), mesh.id()),
        );
    }

    fn start_api(&self, dir: &std::path::Path, metrics: ApiMetrics) -> Result<(), StartError> {
        let token = ApiToken::load_or_create(&dir.join(API_TOKEN_FILE))?;
        let backend = Arc::new(NodeBackend::new(&self.0));
        let server = api::serve(self.0.config.api.clone(), Timeouts::default(), backend, token, metrics)?;
        let address = server.address();
        write_atomic(&dir.join(API_ADDRESS_FILE), format!("{address}\n").as_bytes(), 0o600)?;
        *self.0.api_address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        *self.0.api.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Who it is.
    pub fn peer_id(&self) -> NodeId {
        self.0.me
    }

    /// Its mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.0.mesh
    }

    /// Where peers reach it: the configured external addresses, then what it listens on.
    pub fn listen_addresses(&self) -> Vec<String> {
        own_addresses(&self.0.listening, &self.0.external)
    }

    /// The same with `/p2p/<peer id>` at the end, as other nodes' bootstrap addresses.
    pub fn bootstrap_addresses(&self) -> Vec<String> {
        bootstrap_addresses(&self.0)
    }

    /// Where its API is, if it has one.
    pub fn api_address(&self) -> Option<SocketAddr> {
        *self.0.api_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that another node needs to join the mesh through this one. Holds the mesh secret.
    pub fn invite(&self) -> Invite {
        invite(&self.0)
    }

    /// Waits until the node has the mesh's step, and so takes part.
    ///
    /// # Errors
    /// If the node stopped before.
    pub async fn wait_ready(&self) -> Result<(), Stopped> {
        self.until_stopped(self.0.clock.wait_until(|_| true)).await
    }

    /// Waits until the mesh has come to `target`.
    ///
    /// # Errors
    /// If the node stopped before.
    pub async fn sync(&self, target: Step) -> Result<Step, Stopped> {
        let Inner { common, clock, .. } = &*self.0;
        let arrive = async {
            loop {
                clock.wait_until(|_| true).await;
                let now = common.now();
                match (clock.step(now), clock.next_step_at(now)) {
                    (Some(step), _) if step >= target => return step,
                    // The clock may be set forward at any time: look again when it is, or when a step ends.
                    (_, Some(next)) => {
                        let changed = clock.wait_until(|clock| clock.step(common.now()) >= target);
                        let _ = tokio::time::timeout(common.until(next), changed).await;
                    }
                    (_, None) => {}
                }
            }
        };
        self.until_stopped(arrive).await
    }

    #[cfg(test)]
    pub(crate) fn links(&self) -> Links {
        self.0.links().expect("the node runs")
    }

    /// How often one of its actors failed and was started anew.
    pub fn restarts(&self) -> u64 {
        self.0.common.restarts()
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            done = work => Ok(done),
            () = self.0.common.stopped() => Err(Stopped),
        }
    }

    /// What it holds for the mesh's time, to the microsecond; `None` while the node is not synchronised.
    pub(crate) fn mesh_time(&self) -> Option<Duration> {
        self.0.clock.mesh_time_us(self.0.common.now()).map(Duration::from_micros)
    }

    /// The mesh's step; `None` while the node is not synchronised.
    pub fn step(&self) -> Option<Step> {
        self.0.clock.step(self.0.common.now())
    }

    /// Publishes a payload to all other subscribers of a channel. As in gossipsub, subscriptions of this node
    /// itself do not get it: a node hears the others.
    ///
    /// Waits while the author's mailbox is full, so a fast caller is slowed down rather than refused.
    ///
    /// # Errors
    /// If the channel's name or the payload's size is not allowed, or the node is not ready.
    pub async fn broadcast(
        &self,
        channel: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Published, PublishError> {
        let broadcast = Broadcast { channel: public(channel)?, payload: payload.into() };
        Ok(self.0.links()?.author.send(broadcast).await.unwrap_or(Err(BroadcastError::Stopped))?)
    }

    /// Subscribes to a channel, until the subscription is dropped.
    ///
    /// # Errors
    /// If the channel's name is not allowed, or the node has stopped.
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, PublishError> {
        let subscribe = gossip::Subscribe(public(channel)?);
        let feed = self.0.links()?.gossip.send(subscribe).await.map_err(|_| BroadcastError::Stopped)?;
        Ok(Subscription { feed, lost: 0 })
    }

    /// Calls `handler` with each message of a channel, on the current arbiter, for as long as the node runs.
    ///
    /// # Errors
    /// As [`MeshNode::subscribe`].
    pub async fn on_message(
        &self,
        channel: &str,
        mut handler: impl FnMut(Message) + 'static,
    ) -> Result<(), PublishError> {
        let mut subscription = self.subscribe(channel).await?;
        actix_rt::spawn(async move {
            while let Some(message) = subscription.receive().await {
                handler(message);
            }
        });
        Ok(())
    }

    /// All events from now on, until the feed is dropped.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn events(&self) -> Result<Feed<Observed>, Stopped> {
        self.0.links()?.observer.send(Watch).await.map_err(|_| Stopped)
    }

    /// Calls `handler` with each error and security event, on the current arbiter, for as long as the node runs.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn on_error(
        &self,
        mut handler: impl FnMut(Event<libp2p::PeerId>) + 'static,
    ) -> Result<(), Stopped> {
        let mut events = self.events().await?;
        actix_rt::spawn(async move {
            while let Some(item) = events.next().await {
                if let FeedItem::Next(Observed { event, .. }) = item
                    && matches!(event.stream(), EventStream::Error | EventStream::Security)
                {
                    handler(event);
                }
            }
        });
        Ok(())
    }

    /// The members, this node among them.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn members(&self) -> Result<Vec<Member>, Stopped> {
        let (_, members) =
            self.0.links()?.membership.send(membership::GetMembers).await.map_err(|_| Stopped)?;
        Ok(members)
    }

    /// Rates, latencies and health.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn metrics(&self) -> Result<NetworkMetrics, Stopped> {
        NodeBackend::new(&self.0).network_metrics().await.map_err(|_| Stopped)
    }

    /// Everything that `/metrics` says, in the OpenMetrics text format, for a program that exports it itself.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn metrics_text(&self) -> Result<String, Stopped> {
        NodeBackend::new(&self.0).read_metrics().await.map_err(|_| Stopped)
    }

    /// What the gossip router has counted since it began.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn gossip_stats(&self) -> Result<omnimesh_protocol::gossip::Stats, Stopped> {
        let snapshot = self.0.links()?.gossip.send(gossip::GetSnapshot).await.map_err(|_| Stopped)?;
        Ok(snapshot.gossip)
    }

    /// How many neighbours are on a channel.
    ///
    /// # Errors
    /// If the channel's name is not allowed, or the node has stopped.
    pub async fn channel_peers(&self, channel: &str) -> Result<ChannelPeers, PublishError> {
        let question = gossip::GetChannelPeers(Channel::new(channel)?);
        Ok(self.0.links()?.gossip.send(question).await.map_err(|_| Stopped)?)
    }

    /// Waits until a peer is connected, a member, and gossiped with; dials it first if an address is given.
    pub(crate) async fn link(&self, peer: NodeId, address: Option<Multiaddr>) -> Result<(), LinkFailed> {
        let (answer, linked) = tokio::sync::oneshot::channel();
        let links = self.0.links().map_err(|_| LinkFailed::Stopped)?;
        let link = swarm::AwaitLink { peer, address, answer };
        links.swarm.send(link).await.map_err(|_| LinkFailed::Stopped)?;
        linked.await.unwrap_or(Err(LinkFailed::Stopped))
    }

    /// Leaves the mesh and stops, in good order. What other clones of this handle ask for fails from then on.
    pub async fn shutdown(self) {
        let Ok(links) = self.0.links() else { return };
        let api = self.0.api.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(api) = api {
            api.stop().await;
        }
        // Each of these has worked its message off when it answers; a stopped one needs none.
        let _ = links.membership.send(membership::Leave).await;
        let _ = links.sync.send(sync::Close).await;
        let _ = links.swarm.send(swarm::Close).await;
        if let Some(audit) = &self.0.audit {
            audit.record("stop", "node", self.0.clock.step(self.0.common.now()), "in good order");
        }
        self.0.common.stop();
        self.0.links.write().unwrap_or_else(PoisonError::into_inner).take();
        links.stop().await;
        if let Some(audit) = self.0.audit.clone() {
            let _ = actix_rt::task::spawn_blocking(move || audit.close()).await;
        }
    }
}

fn start_actors(
    NodeOptions { config, identity, mesh, is_new, data_dir }: &NodeOptions,
    kept: &mut Kept,
    external: &[Multiaddr],
    common: &Common,
    clock: &SharedClock,
    surroundings: Surroundings,
) -> Result<Links, StartError> {
    let (me, memory) = (identity.id(), common.memory());
    let bootstrap = settings::bootstrap(config)?;
    let is_plugged = surroundings.plug.is_some();
    let (is_founder, gossip_config) = match surroundings.plug {
        Some(plug) => (plug.is_founder, plug.gossip),
        None => (
            bootstrap.is_empty() && kept.book.is_empty() && kept.mark.is_none() && !config.network.mdns,
            None,
        ),
    };
    let pool = match surroundings.pool {
        Some(pool) => pool,
        None => verification_pool(None)?,
    };
    let gossip_settings = gossip::Settings {
        me,
        mesh: mesh.clone(),
        gossip: Arc::new(gossip_config.unwrap_or_else(|| settings::gossip(config, memory))),
        read_limits: settings::read_limits(config),
        validate: settings::validate(config),
        floor: kept.mark.map(|mark| mark.accepted),
        verifying_max: config.limits.inbound_queue,
        verify_batch: config.limits.verify_batch,
        subscriber_queue: config.limits.subscriber_queue,
        keeps_log: kept.log.is_some(),
        pool,
    };
    let author_settings = author::Settings {
        config: settings::author(config, memory),
        identity: identity.clone(),
        mesh: mesh.clone(),
        phase_interval: settings::phase_interval(config),
        pattern_cache: settings::pattern_cache(config),
        store: kept.store.clone(),
    };
    let sync_settings = sync::Settings {
        me,
        config: settings::step(config),
        phase_interval: config.node.phase_interval,
        step_window_future: config.node.step_window_future,
        is_founder,
        saved: kept.offset,
        not_before: kept.mark.map(|mark| mark.step),
        store: kept.store.clone(),
    };
    let swarm_settings = swarm::Settings {
        me,
        admission: settings::admission(config),
        dialer: settings::dialer(config),
        bootstrap,
        mesh: mesh.clone(),
        book: kept.book.clone(),
        store: kept.store.clone(),
        external: external.to_vec(),
        is_plugged,
    };
    let (log, registry, jobs) = match &mut kept.log {
        None => (None, None, None),
        Some((store, opened)) => {
            // Before the log begins: it has to know what turns out to be damaged.
            let state = projection::load(store, opened)?;
            let jobs = projection::load(store, opened)?;
            let reached = store.reached(me)?;
            let log_settings = log::Settings {
                config: settings::log(config, memory),
                identity: identity.clone(),
                mesh: mesh.clone(),
                phase_interval: settings::phase_interval(config),
                pattern_cache: settings::pattern_cache(config),
                store: Arc::clone(store),
                start: Start {
                    logs: opened.logs.clone(),
                    may_have_written: !*is_new,
                    reached,
                    checkpoints: opened.checkpoints.clone(),
                    base: opened.base.clone(),
                },
                damage: opened.damage.clone(),
                gaps: store.gaps()?.into_iter().collect(),
                subscriber_queue: config.limits.subscriber_queue,
                pool: Arc::clone(&gossip_settings.pool),
            };
            let log = LogActor::new(common.clone(), log_settings, clock.clone());
            let log = Supervisor::start(|_| log);
            let (store, address) = (Arc::clone(store), log.clone());
            let registry =
                RegistryActor::new(common.clone(), clock.clone(), me, store, state, address.downgrade());
            (Some(log), Some(Supervisor::start(|_| registry)), Some(jobs))
        }
    };
    let blobs = kept.blobs.clone().map(|store| {
        let blobs = BlobActor::new(common.clone(), store, Pace::new(config.compute.transfer_bytes_per_s));
        Supervisor::start(|_| blobs)
    });
    let compute = match (&log, &blobs, &kept.log, &kept.blobs, jobs) {
        (Some(log), Some(blobs), Some((log_store, _)), Some(blob_store), Some(jobs)) => {
            let compute_settings = compute::Settings {
                driver: settings::driver(config),
                worker: settings::worker(config),
                identity: identity.clone(),
                mesh: mesh.clone(),
                log: Arc::clone(log_store),
                blobs: Arc::clone(blob_store),
                operations: operations(config, mesh, data_dir.as_deref())?,
                input_copies: config.compute.input_copies,
            };
            let addresses = (log.downgrade(), blobs.downgrade());
            let compute = ComputeActor::new(common.clone(), compute_settings, clock.clone(), jobs, addresses);
            Some(Supervisor::start(|_| compute))
        }
        _ => None,
    };
    let observer_start = observer::Start {
        identity: identity.clone(),
        mesh: mesh.clone(),
        phase_interval: settings::phase_interval(config),
        message_bytes_max: config.gossip.message_bytes_max,
        step_interval: settings::step(config).step_interval,
        node_of: crate::swarm::peer::node_id,
        saved: kept.observer.clone(),
    };
    let observer = ObserverActor::new(
        common.clone(),
        settings::observer(config, memory),
        observer_start,
        clock.clone(),
        (kept.store.clone(), kept.audit.clone()),
    );
    let probe_settings = prober::Settings {
        config: settings::probe(config, is_plugged),
        me,
        mesh: mesh.clone(),
        phase_interval: settings::phase_interval(config),
        pattern_cache: settings::pattern_cache(config),
    };
    let telemetry_settings = telemetry::Settings {
        config: settings::telemetry(config)?,
        every: Duration::from_millis(config.observer.sample_interval_ms),
        step_interval: config.node.step_interval(),
        degree: config.gossip.mesh_n,
        data_dir: data_dir.clone(),
        webhook: config
            .observer
            .webhook_url
            .clone()
            .filter(|_| !is_plugged)
            .map(|url| (url, me.to_string(), mesh.name().to_owned())),
    };
    let prober = ProbeActor::new(common.clone(), probe_settings, clock.clone());
    let telemetry =
        TelemetryActor::new(common.clone(), telemetry_settings, clock.clone(), kept.audit.clone());
    let membership = MembershipActor::new(common.clone(), settings::membership(config), me);
    let gossip = GossipActor::new(common.clone(), gossip_settings, clock.clone());
    let author = AuthorActor::new(common.clone(), author_settings, clock.clone(), kept.seq);
    let sync = SyncActor::new(common.clone(), sync_settings, clock.clone());
    let swarm = SwarmActor::new(common.clone(), swarm_settings);
    Ok(Links {
        observer: Supervisor::start(|_| observer),
        prober: Supervisor::start(|_| prober),
        telemetry: Supervisor::start(|_| telemetry),
        membership: Supervisor::start(|_| membership),
        gossip: Supervisor::start(|_| gossip),
        author: Supervisor::start(|_| author),
        sync: Supervisor::start(|_| sync),
        swarm: Supervisor::start(|_| swarm),
        log,
        registry,
        blobs,
        compute,
        files: Files {
            store: kept.store.clone(),
            log: kept.log.as_ref().map(|(store, _)| Arc::clone(store)),
            blobs: kept.blobs.clone(),
        },
    })
}

/// What tasks have at hand.
fn operations(config: &Config, mesh: &Mesh, data_dir: Option<&Path>) -> Result<Operations, StartError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(settings::compute_threads(config))
        .thread_name(|i| format!("compute-{i}"))
        .build()
        .map_err(|error| StartError::Threads(error.to_string()))?;
    let (mesh, phase_interval) = (mesh.clone(), settings::phase_interval(config));
    let pattern_cache = settings::pattern_cache(config);
    let patterns = move || PatternGenerator::new(mesh.secret().clone(), phase_interval, pattern_cache);
    let sandbox = settings::sandbox(config);
    let modules_max = NonZeroUsize::new(sandbox.modules_max).unwrap_or(NonZeroUsize::MIN);
    Ok(Operations {
        pool: Arc::new(pool),
        keys: match data_dir {
            Some(dir) => Arc::new(KeyFiles::new(dir)),
            None => Arc::new(NoKeys),
        },
        patterns: Some(Arc::new(patterns)),
        sandbox: Arc::new(LazySandbox::new(sandbox)),
        programs: Arc::new(Programs::new(modules_max)),
    })
}

/// Threads that check signatures: so many, or as many as there are cores.
pub(crate) fn verification_pool(threads: Option<usize>) -> Result<Arc<rayon::ThreadPool>, StartError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .thread_name(|i| format!("verify-{i}"))
        .build()
        .map(Arc::new)
        .map_err(|error| StartError::Threads(error.to_string()))
}

pub(crate) fn bootstrap_addresses(inner: &Inner) -> Vec<String> {
    let own = own_addresses(&inner.listening, &inner.external);
    own.into_iter().map(|address| format!("{address}/p2p/{}", inner.me)).collect()
}

pub(crate) fn invite(inner: &Inner) -> Invite {
    let bootstrap = bootstrap_addresses(inner).into_iter().take(INVITE_ADDRESSES_MAX).collect();
    Invite { mesh: inner.mesh.clone(), bootstrap }
}

/// Why a payload was not published, or a channel not subscribed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not a name for a channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The channel is the protocol's own.
    #[error("the channel {0} is reserved: names that begin with '_' are the protocol's own")]
    Reserved(Channel),
    /// The node did not take it.
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
}

impl From<Stopped> for PublishError {
    fn from(_: Stopped) -> Self {
        PublishError::Broadcast(BroadcastError::Stopped)
    }
}

/// A channel that is anybody's.
fn public(channel: &str) -> Result<Channel, PublishError> {
    let channel = Channel::new(channel)?;
    if channel.is_reserved() { Err(PublishError::Reserved(channel)) } else { Ok(channel) }
}

/// The messages of a channel; unsubscribes when dropped.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed<Message>,
    lost: u64,
}

impl Subscription {
    /// The next message; `None` when the node has stopped. What this reader is too slow for is dropped, oldest
    /// first, and counted in [`Subscription::lost`].
    pub async fn receive(&mut self) -> Option<Message> {
        loop {
            match self.feed.next().await? {
                FeedItem::Next(message) => return Some(message),
                FeedItem::Lagged(lost) => self.lost += lost,
            }
        }
    }

    /// How many messages this reader was too slow for.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl futures::Stream for Subscription {
    type Item = Message;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Message>> {
        use std::task::Poll;
        loop {
            match std::task::ready!(self.feed.poll_next_unpin(cx)) {
                Some(FeedItem::Next(message)) => return Poll::Ready(Some(message)),
                Some(FeedItem::Lagged(lost)) => self.lost += lost,
                None => return Poll::Ready(None),
            }
        }
    }
}
