//! From the configuration to the settings of each machine: the one place where the two meet.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use libp2p::Multiaddr;
use omnimesh_protocol::compute::blob::wire::FRAME_BYTES_MAX;
use omnimesh_protocol::compute::placement::{BreakerConfig, PoolConfig};
use omnimesh_protocol::config::budget::CONNECTIONS_PER_PEER;
use omnimesh_protocol::config::{Budget, Config, Part};
use omnimesh_protocol::control::Agent;
use omnimesh_protocol::envelope::PAYLOADS_MAX;
use omnimesh_protocol::observer::statistics::Rate;
use omnimesh_protocol::observer::{self, places, probe, quarantine, telemetry};
use omnimesh_protocol::{
    MeshId, admission, author, compute, control, dialer, gossip, log, membership, replay, step, validate,
};

use crate::compute::wasm::SandboxConfig;
use crate::memory::Memory;
use crate::swarm::{self, LinkEnd, StreamKind, TransportKind, peer};

/// Bytes that a gossipsub frame needs beside the envelope: the topic and the heads.
const FRAME_BYTES: usize = 192;
/// Frames are read up to so many times the longest that is written: a message over the limit is then refused
/// by name, and a peer with a greater limit is not cut off for it.
const FRAME_READ_FACTOR: usize = 2;
/// What the id of a message that was seen takes, with the empty places of its table. A quarter of the memory for tables is
/// theirs.
const SEEN_BYTES: usize = 20;
/// Payloads that wait for the author at most.
const AUTHOR_PENDING: usize = 8192;
/// Bytes of payloads that wait for the author at most.
const AUTHOR_PENDING_BYTES: usize = 16 << 20;

/// A setting that passed validation and still cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {value:?}: {reason}")]
pub struct SettingError {
    /// Which, as in the configuration file.
    pub setting: &'static str,
    /// What it says.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

fn non_zero(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).unwrap_or(NonZeroUsize::MIN)
}

fn addresses(setting: &'static str, texts: &[String]) -> Result<Vec<Multiaddr>, SettingError> {
    let parse = |text: &String| {
        text.parse().map_err(|error: libp2p::multiaddr::Error| SettingError {
            setting,
            value: text.clone(),
            reason: format!("not a multiaddress: {error}"),
        })
    };
    texts.iter().map(parse).collect()
}

pub(crate) fn agent() -> Agent {
    Agent::new(concat!("omnimesh/", env!("CARGO_PKG_VERSION")))
}

/// The longest envelope this node makes: what a gossipsub frame of the configured size has room for.
pub(crate) fn envelope_bytes_max(config: &Config) -> usize {
    config.gossip.message_bytes_max.saturating_sub(FRAME_BYTES)
}

/// The memory of the node.
pub(crate) fn memory(config: &Config) -> Result<Memory, SettingError> {
    let budget = Budget::of(config).map_err(|misfit| SettingError {
        setting: "limits.memory",
        value: config.limits.memory.to_string(),
        reason: misfit.to_string(),
    })?;
    Ok(Memory::new(&budget))
}

/// What part of the memory for received frames each kind of stream has, in percent. Each has its own, so that a flood of
/// one kind holds back no other. Guesses.
const INBOUND_PERCENT: [(StreamKind, usize); 5] = [
    (StreamKind::Gossip, 40),
    (StreamKind::Control, 10),
    (StreamKind::Log, 20),
    (StreamKind::Blob, 20),
    (StreamKind::Compute, 10),
];

fn inbound_bytes(memory: &Memory, kind: StreamKind) -> usize {
    let percent = INBOUND_PERCENT.into_iter().find(|(of, _)| *of == kind).map_or(0, |(_, percent)| percent);
    (memory.part(Part::Inbound).limit() / 100).saturating_mul(percent).max(1)
}

pub(crate) fn swarm(config: &Config, memory: &Memory, mesh: MeshId) -> Result<swarm::Config, SettingError> {
    let mut settings = swarm::Config::new(mesh);
    settings.memory = memory.clone();
    settings.listen = addresses("network.listen", &config.network.listen)?;
    settings.external = addresses("network.external", &config.network.external)?;
    let is_memory =
        |address: &Multiaddr| matches!(address.iter().next(), Some(libp2p::multiaddr::Protocol::Memory(_)));
    if !settings.listen.is_empty() && settings.listen.iter().all(is_memory) {
        settings.transport = TransportKind::Memory;
    }
    settings.mdns = config.network.mdns;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let limits = &mut settings.limits;
    // Two nodes may dial each other at the same moment, and a trimmed peer is connected for a moment.
    limits.connections = count(config.network.peers_max.saturating_mul(CONNECTIONS_PER_PEER));
    limits.connections_inbound = count(config.network.peers_max.saturating_mul(3) / 2);
    limits.pending_inbound = count(config.network.pending_max);
    limits.pending_outbound = count(config.network.pending_max);
    limits.streams_per_connection = count(config.limits.streams_per_connection);
    limits.connection_window_bytes = count(config.limits.connection_window_bytes)
        .max(limits.streams_per_connection.saturating_mul(256 << 10));
    settings.tree = config.gossip.tree;
    settings.gossip.frame_bytes_max = read_limits(config).frame_bytes_max;
    settings.gossip.queue_frames = config.limits.outbound_queue;
    settings.gossip.queue_bytes = config.limits.outbound_bytes;
    settings.gossip.inbound_bytes = inbound_bytes(memory, StreamKind::Gossip);
    settings.control.inbound_bytes = inbound_bytes(memory, StreamKind::Control);
    // One that is longer than control frames can be is read, to be refused by name.
    settings.control.frame_bytes_max = 2 * control::FRAME_BYTES_MAX;
    Ok(settings)
}

/// How often a link of an emulated network is pinged. Only the program itself could break one unnoticed, so this is
/// for the round-trip times alone.
const EMULATED_PING: Duration = Duration::from_secs(60);
/// How long a handshake may take there: thousands of them share the processor.
const EMULATED_HANDSHAKE: Duration = Duration::from_secs(60);

/// Changes the settings for a node of an emulated network.
pub(crate) fn plug_in(settings: &mut swarm::Config, end: LinkEnd) {
    settings.listen = vec![end.address()];
    settings.transport = TransportKind::Links(end);
    // It would dial on its own account.
    settings.kademlia = false;
    (settings.ping_interval, settings.ping_timeout) = (EMULATED_PING, EMULATED_PING);
    settings.limits.handshake_timeout = EMULATED_HANDSHAKE;
}

pub(crate) fn bootstrap(config: &Config) -> Result<Vec<dialer::Bootstrap>, SettingError> {
    let parsed = addresses("network.bootstrap", &config.network.bootstrap)?;
    let bootstrap = |address: Multiaddr| dialer::Bootstrap {
        peer: peer::peer_of_address(&address).and_then(|peer| peer::node_id(&peer)),
        address: address.to_string(),
    };
    Ok(parsed.into_iter().map(bootstrap).collect())
}

pub(crate) fn dialer(config: &Config) -> dialer::Config {
    dialer::Config {
        target_peers: config.network.peers_target,
        peers_max: config.network.peers_max,
        ..dialer::Config::default()
    }
}

pub(crate) fn admission(config: &Config) -> admission::Config {
    let allow = &config.network.allow;
    let admit = if allow.is_empty() {
        admission::Admit::Open
    } else {
        admission::Admit::Listed(allow.iter().copied().collect())
    };
    admission::Config {
        admit,
        peers_max: config.network.peers_max.saturating_mul(2),
        ..admission::Config::open(agent())
    }
}

pub(crate) fn membership(config: &Config) -> membership::Config {
    let probe_period = Duration::from_millis(config.network.heartbeat_ms);
    membership::Config {
        probe_period,
        probe_rtt: probe_period.mul_f64(0.4),
        suspect_to_down: Duration::from_millis(config.network.suspect_ms),
        members_max: config.network.max_nodes,
        ..membership::Config::default()
    }
}

pub(crate) fn step(config: &Config) -> step::Config {
    let node = &config.node;
    step::Config {
        round_interval: Duration::from_millis(node.sync_round_ms),
        sample_max: node.sync_peers,
        sync_timeout: Duration::from_millis(node.sync_timeout_ms),
        rtt_max: Duration::from_millis(node.sync_timeout_ms),
        retries: node.sync_retries,
        ..step::Config::new(node.step_interval())
    }
}

pub(crate) fn gossip(config: &Config, memory: &Memory) -> gossip::Config {
    let gossip = &config.gossip;
    let default = gossip::Config::default();
    let mut settings = gossip::Config {
        mesh_degree: gossip.mesh_n,
        mesh_degree_low: gossip.mesh_n_low,
        mesh_degree_high: gossip.mesh_n_high,
        mesh_degree_score: default.mesh_degree_score.min(gossip.mesh_n),
        mesh_degree_out: gossip.mesh_outbound_min,
        lazy_degree: gossip.gossip_lazy,
        heartbeat_interval: Duration::from_millis(gossip.heartbeat_ms),
        history_length: u32::try_from(gossip.history_length).unwrap_or(u32::MAX),
        history_gossip: u32::try_from(gossip.history_gossip).unwrap_or(u32::MAX),
        seen_ttl: Duration::from_millis(gossip.seen_ms),
        flood_publish: gossip.flood_publish,
        idontwant_bytes_min: gossip.idontwant_bytes,
        peers_max: config.network.peers_max.saturating_mul(2),
        cache_bytes_max: memory.part(Part::Cache).limit(),
        seen_entries_max: default.seen_entries_max.min(memory.part(Part::Tables).limit() / 4 / SEEN_BYTES),
        validating_max: config.limits.inbound_queue,
        tree: gossip.tree.then(|| gossip::TreeConfig {
            repair_timeout: Duration::from_millis(gossip.tree_repair_ms),
            ..gossip::TreeConfig::default()
        }),
        ..default
    };
    settings.limits.frame_bytes_max = gossip.message_bytes_max;
    settings.limits.batch_bytes_max = settings.limits.batch_bytes_max.min(gossip.message_bytes_max);
    settings.limits.control_bytes_max = settings.limits.control_bytes_max.min(gossip.message_bytes_max);
    settings
}

/// What a gossip frame that is read may hold.
pub(crate) fn read_limits(config: &Config) -> gossip::wire::Limits {
    let frame_bytes_max = config.gossip.message_bytes_max.saturating_mul(FRAME_READ_FACTOR);
    gossip::wire::Limits { frame_bytes_max, ..gossip::wire::Limits::default() }
}

pub(crate) fn phase_interval(config: &Config) -> NonZeroU64 {
    NonZeroU64::new(config.node.phase_interval).unwrap_or(NonZeroU64::MIN)
}

pub(crate) fn pattern_cache(config: &Config) -> NonZeroUsize {
    non_zero(config.node.cache_size)
}

pub(crate) fn validate(config: &Config) -> validate::Config {
    validate::Config {
        phase_interval: phase_interval(config),
        pattern_cache: pattern_cache(config),
        message_bytes_max: config.gossip.message_bytes_max,
        step_window_past: config.node.step_window_past,
        step_window_future: config.node.step_window_future,
        replay: replay::Config {
            window: config.node.sequence_window as u64,
            authors_max: non_zero(config.node.authors_max),
        },
    }
}

pub(crate) fn author(config: &Config, memory: &Memory) -> author::Config {
    author::Config {
        message_bytes_max: envelope_bytes_max(config),
        bundle_payloads_max: config.node.bundle_payloads_max.min(PAYLOADS_MAX),
        bundle_bytes_max: config.node.bundle_bytes_max,
        pending_max: AUTHOR_PENDING,
        // They go to the outbound queues next: a fourth of those.
        pending_bytes_max: AUTHOR_PENDING_BYTES.min(memory.part(Part::Outbound).limit() / 4),
    }
}

/// How long an append waits for replicas: less than the API waits for the node, so that it is answered with those it has.
const REPLICAS_WAIT: Duration = Duration::from_secs(6);

pub(crate) fn log(config: &Config, memory: &Memory) -> log::Config {
    // Of the log's memory: what is asked for, what waits for those before it, and what waits to be written, a quarter each;
    // and an eighth for what is appended here. The last eighth is for what is being read.
    let default = log::Config::default();
    let part = memory.part(Part::Log).limit();
    let most = |bytes: usize, share: usize| bytes.min(share).max(2 * config.gossip.message_bytes_max);
    log::Config {
        message_bytes_max: config.gossip.message_bytes_max,
        step_window_future: config.node.step_window_future,
        bundle_payloads_max: config.node.bundle_payloads_max.min(PAYLOADS_MAX),
        bundle_bytes_max: config.node.bundle_bytes_max,
        authors_max: config.node.authors_max,
        replicas_wait: REPLICAS_WAIT,
        checkpoint_steps: config.checkpoints.every_steps,
        checkpoint_delay_steps: config.checkpoints.delay_steps,
        checkpoint_signers: config.checkpoints.signers,
        checkpoint_members: config.network.allow.iter().copied().collect(),
        checkpoint_bytes_max: config.checkpoints.bytes_max,
        keep_steps: config.checkpoints.keep_steps,
        keep_bytes: config.checkpoints.keep_bytes,
        fetch_window_bytes: most(default.fetch_window_bytes, part / 4),
        waiting_total_bytes_max: most(default.waiting_total_bytes_max, part / 4),
        waiting_bytes_max: most(default.waiting_bytes_max, part / 8),
        write_bytes_max: most(default.write_bytes_max, part / 4),
        pending_bytes_max: most(default.pending_bytes_max, part / 8),
        ..default
    }
}

/// The streams that carry the log: a peer's queue has room for what the log lets be under way, and for its own frames.
pub(crate) fn log_streams(config: &Config, memory: &Memory) -> swarm::StreamConfig {
    let log = log(config, memory);
    swarm::StreamConfig {
        frame_bytes_max: log::frame_bytes_max(log.message_bytes_max),
        queue_bytes: log.serve_queue_bytes_max.saturating_mul(2),
        queue_frames: config.limits.outbound_queue,
        inbound_bytes: inbound_bytes(memory, StreamKind::Log),
        ..swarm::StreamConfig::default()
    }
}

/// The streams that carry blobs: a peer's queue has room for all the groups that are served to it at once.
pub(crate) fn blob_streams(memory: &Memory) -> swarm::StreamConfig {
    swarm::StreamConfig {
        frame_bytes_max: FRAME_BYTES_MAX,
        queue_bytes: FRAME_BYTES_MAX + (32 << 20),
        queue_frames: 1024,
        inbound_batches: 64,
        inbound_bytes: inbound_bytes(memory, StreamKind::Blob),
        ..swarm::StreamConfig::default()
    }
}

/// The streams that carry tasks: a peer's queue has room for some batches of them.
pub(crate) fn compute_streams(memory: &Memory) -> swarm::StreamConfig {
    swarm::StreamConfig {
        frame_bytes_max: compute::wire::FRAME_BYTES_MAX,
        queue_bytes: 8 * compute::wire::FRAME_BYTES_MAX,
        queue_frames: 4096,
        inbound_bytes: inbound_bytes(memory, StreamKind::Compute),
        ..swarm::StreamConfig::default()
    }
}

/// Threads where the configuration says 0.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// What this node gives to jobs.
pub(crate) fn worker(config: &Config) -> compute::worker::Config {
    let set = &config.compute;
    compute::worker::Config {
        slots: match (set.work, set.slots) {
            (false, _) => 0,
            (true, 0) => u32::try_from(cores()).unwrap_or(u32::MAX),
            (true, slots) => slots,
        },
        queue_max: set.queue,
        job_attempts_max: if set.tasks_per_job == 0 { u32::MAX } else { set.tasks_per_job },
        memory_bytes: set.memory_bytes,
        input_bytes_max: set.input_bytes,
        limits_max: compute::job::Limits {
            cpu_ms: set.task_cpu_ms_max,
            memory_bytes: set.task_memory_bytes_max,
            output_bytes: set.task_output_bytes_max,
            wall_ms: set.task_wall_ms_max,
        },
        labels: set.labels(),
        region: set.region.clone(),
        ..compute::worker::Config::default()
    }
}

/// How this node has jobs done.
pub(crate) fn driver(config: &Config) -> compute::driver::Config {
    let set = &config.compute;
    let default = compute::driver::Config::default();
    compute::driver::Config {
        pool: PoolConfig {
            strategy: set.placement,
            breaker: BreakerConfig {
                failures_max: set.breaker_failures_max,
                failure_per_mille: set.breaker_failure_per_mille,
                cool_down: Duration::from_millis(set.breaker_open_ms),
                cool_down_max: Duration::from_millis(set.breaker_open_ms_max),
            },
            ..default.pool
        },
        quota: set.quota(),
        jobs_max: set.jobs_max,
        step_interval: config.node.step_interval(),
        ..default
    }
}

/// Where programs of users run: one instance for each slot, and some that are just being taken down.
pub(crate) fn sandbox(config: &Config) -> SandboxConfig {
    SandboxConfig { instances: worker(config).slots.saturating_add(2), ..SandboxConfig::default() }
}

/// The threads of tasks that can use more than one.
pub(crate) fn compute_threads(config: &Config) -> usize {
    if config.compute.threads == 0 { cores() } else { config.compute.threads }
}

pub(crate) fn observer(config: &Config, memory: &Memory) -> observer::Config {
    let set = &config.observer;
    let within = observer::Config::within(memory.part(Part::Observer).limit());
    observer::Config {
        quarantine: quarantine::Config { steps: (set.quarantine_steps > 0).then_some(set.quarantine_steps) },
        places: places::Config {
            address: Rate { burst: set.address_keys, ..within.places.address },
            network: Rate { burst: set.network_keys, ..within.places.network },
            ..within.places
        },
        ..within
    }
}

/// No probes in an emulated network: its owner says what is said there.
pub(crate) fn probe(config: &Config, is_plugged: bool) -> probe::Config {
    let interval_ms = if is_plugged { 0 } else { config.observer.probe_interval_ms };
    probe::Config { interval: Duration::from_millis(interval_ms), ..probe::Config::default() }
}

/// Bytes of what is written down of a configuration.
const CHANGES_BYTES_MAX: usize = 3_500;

/// The settings that are not the default, for the audit log; secrets are hidden.
pub(crate) fn changes(config: &Config) -> String {
    let plain = |config: &Config| serde_json::to_value(config.redacted()).unwrap_or_default();
    let (set, default) = (plain(config), plain(&Config::default()));
    let mut changes = Vec::new();
    for (section, values) in set.as_object().into_iter().flatten() {
        for (key, value) in values.as_object().into_iter().flatten() {
            if default[section][key] != *value {
                changes.push(format!("{section}.{key} = {value}"));
            }
        }
    }
    match changes.join("; ") {
        text if text.is_empty() => "the built-in configuration".to_owned(),
        text if text.len() <= CHANGES_BYTES_MAX => text,
        text => {
            let hash = blake3::hash(text.as_bytes());
            let names: Vec<&str> = changes.iter().filter_map(|change| change.split(' ').next()).collect();
            format!("too long to be written down (BLAKE3 {}); set are {}", hash.to_hex(), names.join(" "))
        }
    }
}

pub(crate) fn telemetry(config: &Config) -> Result<telemetry::Config, SettingError> {
    config.observer.telemetry().map_err(|(value, (reason, _))| SettingError {
        setting: "observer.thresholds",
        value,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_left_alone_as_the_configuration_says() {
        let mut config = Config::default();
        assert_eq!(driver(&config).pool, PoolConfig::default());
        let set = &mut config.compute;
        (set.breaker_failures_max, set.breaker_failure_per_mille) = (3, 250);
        (set.breaker_open_ms, set.breaker_open_ms_max) = (1000, 7000);
        let breaker = driver(&config).pool.breaker;
        assert_eq!((breaker.failures_max, breaker.failure_per_mille), (3, 250));
        assert_eq!([breaker.cool_down, breaker.cool_down_max], [1, 7].map(Duration::from_secs));
    }

    #[test]
    fn the_observers_tables_fit_their_share() {
        for bytes in [64 << 20, 256 << 20, 4 << 30] {
            let mut config = Config::default();
            config.limits.memory = bytes;
            config.node.authors_max = 4096;
            let memory = memory(&config).unwrap();
            let share = memory.part(Part::Observer).limit();
            let most = observer(&config, &memory).bytes_max();
            assert_eq!(most, observer::Config::within(share).bytes_max(), "{bytes}");
        }
    }

    /// What a configuration file may say is never refused by the router.
    #[test]
    fn the_ends_of_every_range_make_a_router() {
        let changes: [fn(&mut Config); 8] = [
            |c| {
                let gossip = &mut c.gossip;
                (gossip.mesh_n, gossip.mesh_n_low, gossip.mesh_n_high) = (1, 1, 1);
                (gossip.mesh_outbound_min, gossip.gossip_lazy) = (0, 0);
            },
            |c| (c.gossip.mesh_n, c.gossip.mesh_n_low, c.gossip.mesh_n_high) = (1000, 1000, 1000),
            |c| c.gossip.gossip_lazy = 1000,
            |c| (c.gossip.message_bytes_max, c.node.bundle_bytes_max) = (4096, 2048),
            |c| (c.gossip.message_bytes_max, c.gossip.cache_bytes_max) = (1 << 20, 4 << 20),
            |c| (c.gossip.history_length, c.gossip.history_gossip, c.gossip.seen_ms) = (1, 1, 1000),
            |c| {
                (c.network.peers_max, c.limits.inbound_queue) = (15_000, 16);
                c.limits.memory = 8 << 30;
            },
            |c| c.gossip.heartbeat_ms = 50,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap();
            let memory = memory(&config).unwrap();
            assert_eq!(gossip(&config, &memory).validate(), Ok(()), "change {n}");
        }
    }

    /// And what it would refuse, the configuration does.
    #[test]
    fn what_the_router_cannot_be_is_refused_before() {
        let changes: [fn(&mut Config); 3] = [
            |c| (c.gossip.mesh_n, c.gossip.mesh_n_high) = (1001, 1001),
            |c| c.gossip.gossip_lazy = 1001,
            |c| c.network.peers_max = 15_001,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut config = Config::default();
            change(&mut config);
            config.limits.memory = 16 << 30;
            let memory = memory(&config).unwrap();
            assert!(gossip(&config, &memory).validate().is_err(), "change {n} is not needed");
            assert!(config.validate().is_err(), "change {n}");
        }
    }
}
