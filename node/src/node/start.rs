//! How a node starts: what it is made of, what an earlier run of it left, and in which order its parts begin.

mod actors;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use omnimesh_protocol::author::RESERVE_BLOCK;
use omnimesh_protocol::config::{Config, InvalidConfig, Part};
use omnimesh_protocol::gossip::Config as RouterConfig;
use omnimesh_protocol::{Identity, Mesh, Seq};
use prometheus_client::registry::Registry;

use super::{Inner, MeshNode};
use crate::actors::{
    Common, Links, author, blob, compute, gossip, log, membership, observer, prober, swarm, sync, telemetry,
};
use crate::api::token::ApiToken;
use crate::api::{self, ApiMetrics, ServeError, Timeouts};
use crate::audit::{AuditLog, Retention};
use crate::backend::NodeBackend;
use crate::clock::{Epoch, SharedClock, wall_ns};
use crate::data_dir::{API_ADDRESS_FILE, API_TOKEN_FILE, DataDirError, write_atomic};
use crate::memory::Memory;
use crate::metrics::Latest;
use crate::settings::{self, SettingError};
use crate::store::blob::{BlobError, BlobStore};
use crate::store::log::{LogStore, OpenError, Opened};
use crate::store::{StepMark, Store, StoreError};
use crate::swarm::{LinkEnd, Network, Started, peer};

use actors::Starter;

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
    /// writes, and numbers its messages from the wall clock on.
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
        let plug = surroundings.plug.as_ref();
        let swarm_config = swarm_config(&options, &kept, &memory, plug)?;
        let external = swarm_config.external.clone();
        let is_plugged = plug.is_some();
        let slowdown = plug.map_or(NonZeroU32::MIN, |plug| plug.end.slowdown());
        let (common, clock) = (Common::new(Epoch::begin(slowdown), memory), SharedClock::default());

        let mut registry = Registry::with_prefix("omnimesh");
        let latest = Latest::default();
        registry.register_collector(Box::new(latest.clone()));
        let api_metrics = ApiMetrics::default();
        api_metrics.register(&mut registry);
        // What fails most, fails before there are actors: those want to be stopped in good order.
        let started = Network::start(peer::keypair(&options.identity), swarm_config, &mut registry).await?;
        let starter = Starter::new(&options, &mut kept, &external, &common, &clock, surroundings)?;
        let outset = starter.outset();
        let links = starter.start()?;
        common.link(&links);

        let NodeOptions { config, data_dir, identity, mesh, .. } = options;
        let node = MeshNode(Arc::new(Inner {
            me: identity.id(),
            mesh,
            config,
            common,
            clock,
            external,
            outset,
            registry,
            latest,
            audit: kept.audit.clone(),
            links: RwLock::new(Some(links.clone())),
            listening: started.listening.clone(),
            api_address: Mutex::new(None),
            api: Mutex::new(None),
        }));
        if let Some(dir) = data_dir
            && let Err(error) = node.start_api(&dir, api_metrics)
        {
            // Whoever holds the actors or their files keeps the node from ending.
            drop((links, kept));
            node.shutdown().await;
            return Err(error);
        }
        begin(&links, started, node.listen_addresses(), is_plugged);
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

    fn start_api(&self, dir: &Path, metrics: ApiMetrics) -> Result<(), StartError> {
        let token = ApiToken::load_or_create(&dir.join(API_TOKEN_FILE))?;
        let backend = Arc::new(NodeBackend::new(&self.0));
        let server = api::serve(self.0.config.api.clone(), Timeouts::default(), backend, token, metrics)?;
        let address = server.address();
        write_atomic(&dir.join(API_ADDRESS_FILE), format!("{address}\n").as_bytes(), 0o600)?;
        *self.0.api_address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        *self.0.api.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
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
    telemetry: Option<telemetry::Kept>,
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
            seq: store.seq_reserved()?.max(if options.is_new { Seq(1) } else { seq_by_clock(wall_ns()) }),
            mark: store.step_mark()?,
            offset: store.clock_offset()?,
            book: store.address_book()?.unwrap_or_default(),
            observer: store.observer_entries()?,
            telemetry: store.telemetry().unwrap_or_else(|error| {
                tracing::warn!(%error, "incidents of earlier runs are forgotten");
                None
            }),
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

/// A sequence number above all that a key can have used before, whatever became of what was kept on disk: what was restored, or
/// copied, knows only those it had reserved by then. As many numbers for each second as are reserved at once; a node that
/// used more than that on average, or whose clock was put back, has only what it kept.
fn seq_by_clock(wall_ns: u64) -> Seq {
    Seq((wall_ns / 1_000_000_000).saturating_mul(RESERVE_BLOCK))
}

/// The settings of the network, with the streams of what this node keeps.
fn swarm_config(
    options: &NodeOptions,
    kept: &Kept,
    memory: &Memory,
    plug: Option<&Plug>,
) -> Result<crate::swarm::Config, StartError> {
    let mut swarm_config = settings::swarm(&options.config, memory, options.mesh.id())?;
    swarm_config.log = kept.log.is_some().then(|| settings::log_streams(&options.config, memory));
    swarm_config.blob = kept.blobs.is_some().then(|| settings::blob_streams(memory));
    swarm_config.compute = kept.blobs.is_some().then(|| settings::compute_streams(memory));
    if let Some(plug) = plug {
        settings::plug_in(&mut swarm_config, plug.end.clone());
    }
    Ok(swarm_config)
}

/// Has the actors begin, now that they are linked; the swarm last, for it brings in the others' work.
fn begin(links: &Links, started: Started, own_addresses: Vec<String>, is_plugged: bool) {
    let (begin, [gossip_frames, log_frames, blob_frames, compute_frames]) = swarm::Begin::split(started);
    // The mailboxes are empty: each of these is taken.
    let _ = links.observer.try_send(observer::Begin);
    let _ = links.membership.try_send(membership::Begin(own_addresses));
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
