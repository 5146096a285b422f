//! The actors of a node, started one by one: each from the configuration and what an earlier run left.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use libp2p::Multiaddr;
use omnimesh_protocol::compute::blob::Pace;
use omnimesh_protocol::compute::ledger;
use omnimesh_protocol::config::Config;
use omnimesh_protocol::dialer::Bootstrap;
use omnimesh_protocol::gossip::Config as RouterConfig;
use omnimesh_protocol::log::Start;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Mesh, NodeId, observer};

use super::super::Outset;
use super::{Kept, NodeOptions, StartError, Surroundings, verification_pool};
use crate::actors::author::{self, AuthorActor};
use crate::actors::blob::BlobActor;
use crate::actors::compute::{self, ComputeActor};
use crate::actors::gossip::{self, GossipActor};
use crate::actors::log::{self, LogActor};
use crate::actors::membership::MembershipActor;
use crate::actors::observer::ObserverActor;
use crate::actors::prober::{self, ProbeActor};
use crate::actors::projection;
use crate::actors::registry::RegistryActor;
use crate::actors::swarm::{self, SwarmActor};
use crate::actors::sync::{self, SyncActor};
use crate::actors::telemetry::{self, TelemetryActor};
use crate::actors::{Common, Files, Links, supervise};
use crate::clock::SharedClock;
use crate::compute::wasm::{LazySandbox, Programs};
use crate::compute::{Context as Operations, KeyFiles, NoKeys};
use crate::settings;
use crate::swarm::peer;

/// The log, the registry, and the jobs as they are in the log.
type Durable = (Addr<LogActor>, Addr<RegistryActor>, ledger::State);

/// What the actors are made of.
pub(super) struct Starter<'a> {
    options: &'a NodeOptions,
    kept: &'a mut Kept,
    external: &'a [Multiaddr],
    common: &'a Common,
    clock: &'a SharedClock,
    bootstrap: Vec<Bootstrap>,
    router: Arc<RouterConfig>,
    pool: Arc<rayon::ThreadPool>,
    is_founder: bool,
    is_plugged: bool,
}

impl<'a> Starter<'a> {
    pub(super) fn new(
        options: &'a NodeOptions,
        kept: &'a mut Kept,
        external: &'a [Multiaddr],
        common: &'a Common,
        clock: &'a SharedClock,
        surroundings: Surroundings,
    ) -> Result<Self, StartError> {
        let config = &options.config;
        let bootstrap = settings::bootstrap(config)?;
        let is_plugged = surroundings.plug.is_some();
        let (is_founder, router) = match surroundings.plug {
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
        let router = Arc::new(router.unwrap_or_else(|| settings::gossip(config, common.memory())));
        Ok(Starter {
            options,
            kept,
            external,
            common,
            clock,
            bootstrap,
            router,
            pool,
            is_founder,
            is_plugged,
        })
    }

    /// What it knows of others.
    pub(super) fn outset(&self) -> Outset {
        let config = &self.options.config;
        let grace = self.kept.offset.is_some().then(|| settings::step(config).grace);
        Outset {
            bootstrap: self.bootstrap.len(),
            met: self.kept.book.len(),
            searches: config.network.mdns,
            alone_after: if self.is_founder { Some(Duration::ZERO) } else { grace },
        }
    }

    /// Starts them all. They wait until they are linked, and told to begin.
    pub(super) fn start(mut self) -> Result<Links, StartError> {
        let (log, registry, jobs) = match self.start_log()? {
            Some((log, registry, jobs)) => (Some(log), Some(registry), Some(jobs)),
            None => (None, None, None),
        };
        let blobs = self.start_blobs();
        let compute = self.start_compute(log.as_ref(), blobs.as_ref(), jobs)?;
        // It is the last that may fail: the others are started after it.
        let telemetry = self.telemetry()?;
        Ok(Links {
            observer: supervise(self.common, self.observer()),
            prober: supervise(self.common, self.prober()),
            telemetry: supervise(self.common, telemetry),
            membership: supervise(self.common, self.membership()),
            gossip: supervise(self.common, self.gossip()),
            author: supervise(self.common, self.author()),
            sync: supervise(self.common, self.sync()),
            swarm: supervise(self.common, self.swarm()),
            log,
            registry,
            blobs,
            compute,
            files: Files {
                store: self.kept.store.clone(),
                log: self.kept.log.as_ref().map(|(store, _)| Arc::clone(store)),
                blobs: self.kept.blobs.clone(),
            },
        })
    }

    fn me(&self) -> NodeId {
        self.options.identity.id()
    }

    fn start_log(&mut self) -> Result<Option<Durable>, StartError> {
        let me = self.me();
        let NodeOptions { config, identity, mesh, is_new, .. } = self.options;
        let Some((store, opened)) = &mut self.kept.log else { return Ok(None) };
        // Before the log begins: it has to know what turns out to be damaged.
        let state = projection::load(store, opened)?;
        let jobs = projection::load(store, opened)?;
        let reached = store.reached(me)?;
        let log_settings = log::Settings {
            config: settings::log(config, self.common.memory()),
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
            pool: Arc::clone(&self.pool),
        };
        let (common, clock) = (self.common, self.clock);
        let log = supervise(self.common, LogActor::new(common.clone(), log_settings, clock.clone()));
        let (store, address) = (Arc::clone(store), log.downgrade());
        let registry = RegistryActor::new(common.clone(), clock.clone(), me, store, state, address);
        Ok(Some((log, supervise(self.common, registry), jobs)))
    }

    fn start_blobs(&self) -> Option<Addr<BlobActor>> {
        let store = self.kept.blobs.clone()?;
        let pace = Pace::new(self.options.config.compute.transfer_bytes_per_s);
        Some(supervise(self.common, BlobActor::new(self.common.clone(), store, pace)))
    }

    fn start_compute(
        &self,
        log: Option<&Addr<LogActor>>,
        blobs: Option<&Addr<BlobActor>>,
        jobs: Option<ledger::State>,
    ) -> Result<Option<Addr<ComputeActor>>, StartError> {
        let (Some(log), Some(blobs), Some((log_store, _)), Some(blob_store), Some(jobs)) =
            (log, blobs, &self.kept.log, &self.kept.blobs, jobs)
        else {
            return Ok(None);
        };
        let NodeOptions { config, identity, mesh, data_dir, .. } = self.options;
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
        let (common, clock) = (self.common.clone(), self.clock.clone());
        Ok(Some(supervise(self.common, ComputeActor::new(common, compute_settings, clock, jobs, addresses))))
    }

    fn observer(&self) -> ObserverActor {
        let NodeOptions { config, identity, mesh, .. } = self.options;
        let start = observer::Start {
            identity: identity.clone(),
            mesh: mesh.clone(),
            phase_interval: settings::phase_interval(config),
            message_bytes_max: config.gossip.message_bytes_max,
            step_interval: settings::step(config).step_interval,
            node_of: peer::node_id,
            saved: self.kept.observer.clone(),
        };
        ObserverActor::new(
            self.common.clone(),
            settings::observer(config, self.common.memory()),
            start,
            self.clock.clone(),
            (self.kept.store.clone(), self.kept.audit.clone()),
        )
    }

    fn prober(&self) -> ProbeActor {
        let config = &self.options.config;
        let probe_settings = prober::Settings {
            config: settings::probe(config, self.is_plugged),
            me: self.me(),
            mesh: self.options.mesh.clone(),
            phase_interval: settings::phase_interval(config),
            pattern_cache: settings::pattern_cache(config),
        };
        ProbeActor::new(self.common.clone(), probe_settings, self.clock.clone())
    }

    fn telemetry(&mut self) -> Result<TelemetryActor, StartError> {
        let NodeOptions { config, mesh, data_dir, .. } = self.options;
        let webhook_url = config.observer.webhook_url.clone().filter(|_| !self.is_plugged);
        let telemetry_settings = telemetry::Settings {
            config: settings::telemetry(config)?,
            every: Duration::from_millis(config.observer.sample_interval_ms),
            step_interval: config.node.step_interval(),
            degree: config.gossip.mesh_n,
            data_dir: data_dir.clone(),
            webhook: webhook_url.map(|url| (url, self.me().to_string(), mesh.name().to_owned())),
        };
        let files = (self.kept.store.clone(), self.kept.audit.clone());
        let (common, clock) = (self.common.clone(), self.clock.clone());
        Ok(TelemetryActor::new(common, telemetry_settings, clock, files, self.kept.telemetry.take()))
    }

    fn membership(&self) -> MembershipActor {
        MembershipActor::new(self.common.clone(), settings::membership(&self.options.config), self.me())
    }

    fn gossip(&self) -> GossipActor {
        let NodeOptions { config, mesh, .. } = self.options;
        let gossip_settings = gossip::Settings {
            me: self.me(),
            mesh: mesh.clone(),
            gossip: Arc::clone(&self.router),
            read_limits: settings::read_limits(config),
            validate: settings::validate(config),
            floor: self.kept.mark.map(|mark| mark.accepted),
            verifying_max: config.limits.inbound_queue,
            verify_batch: config.limits.verify_batch,
            subscriber_queue: config.limits.subscriber_queue,
            keeps_log: self.kept.log.is_some(),
            pool: Arc::clone(&self.pool),
        };
        GossipActor::new(self.common.clone(), gossip_settings, self.clock.clone())
    }

    fn author(&self) -> AuthorActor {
        let NodeOptions { config, identity, mesh, .. } = self.options;
        let author_settings = author::Settings {
            config: settings::author(config, self.common.memory()),
            identity: identity.clone(),
            mesh: mesh.clone(),
            phase_interval: settings::phase_interval(config),
            pattern_cache: settings::pattern_cache(config),
            store: self.kept.store.clone(),
        };
        AuthorActor::new(self.common.clone(), author_settings, self.clock.clone(), self.kept.seq)
    }

    fn sync(&self) -> SyncActor {
        let config = &self.options.config;
        let sync_settings = sync::Settings {
            me: self.me(),
            config: settings::step(config),
            phase_interval: config.node.phase_interval,
            step_window_future: config.node.step_window_future,
            is_founder: self.is_founder,
            saved: self.kept.offset,
            not_before: self.kept.mark.map(|mark| mark.step),
            store: self.kept.store.clone(),
        };
        SyncActor::new(self.common.clone(), sync_settings, self.clock.clone())
    }

    fn swarm(&self) -> SwarmActor {
        let NodeOptions { config, mesh, .. } = self.options;
        let swarm_settings = swarm::Settings {
            me: self.me(),
            admission: settings::admission(config),
            dialer: settings::dialer(config),
            bootstrap: self.bootstrap.clone(),
            mesh: mesh.clone(),
            book: self.kept.book.clone(),
            store: self.kept.store.clone(),
            external: self.external.to_vec(),
            is_plugged: self.is_plugged,
        };
        SwarmActor::new(self.common.clone(), swarm_settings)
    }
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
