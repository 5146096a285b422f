//! The configuration of a node: every setting, its default, where the default comes from, and what is valid.
//!
//! Pure data. Reading files, the environment and flags is the work of the command line; the node takes a
//! [`Config`] that [`Config::validate`] has passed. Every section refuses keys it does not know.
//!
//! Addresses are text here and are checked for their shape only; whether a transport can use one shows
//! when the node parses it. Durations are in milliseconds, sizes in bytes, and a name ends in its unit.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::compute::job::Quota;
use crate::compute::placement::Strategy;
use crate::id::NodeId;
use crate::mesh::{Mesh, MeshSecret};

pub mod budget;
mod observer;
mod validate;

pub use budget::{Budget, Part};
pub use observer::ObserverConfig;
pub use validate::{InvalidConfig, Problem};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which mesh the node belongs to.
    pub mesh: MeshConfig,
    /// Steps, patterns and messages. Must be the same on all nodes of a mesh where a field says so.
    pub node: NodeConfig,
    /// Addresses, connections and membership.
    pub network: NetworkConfig,
    /// The gossip router.
    pub gossip: GossipConfig,
    /// Bounds of queues and buffers.
    pub limits: LimitsConfig,
    /// Checkpoints of the durable log, and what is dropped because of them.
    pub checkpoints: CheckpointsConfig,
    /// Blobs, and what jobs may take.
    pub compute: ComputeConfig,
    /// What the observer does about what it sees: quarantine, probes, alerts, audit log.
    pub observer: ObserverConfig,
    /// The HTTP API.
    pub api: ApiConfig,
    /// What the process logs.
    pub log: LogConfig,
}

impl Config {
    /// Checks every value and how they fit together, and lists all that is wrong.
    ///
    /// # Errors
    /// Each problem names the place (`network.listen`), the value, and the remedy.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        validate::validate(self)
    }

    /// The same configuration with its secrets replaced by a word, to be shown.
    #[must_use]
    pub fn redacted(&self) -> Config {
        let mut shown = self.clone();
        if shown.mesh.secret.is_some() {
            shown.mesh.secret = Some(SecretHex(REDACTED.to_owned()));
        }
        shown
    }
}

/// The name of a mesh that is founded without one.
pub const MESH_NAME_DEFAULT: &str = "omnimesh";

/// What stands in place of a secret.
pub const REDACTED: &str = "(hidden)";

/// Which mesh. At most one of `open`, `secret` and `secret_file`; with none of them the mesh comes from
/// the data directory, or from an invite, or is founded at the first start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshConfig {
    /// The mesh's name: 1 to 64 bytes of letters, digits, `-`, `_`, `.`. Without one, a mesh that is
    /// founded here is called `omnimesh`. Two meshes of one secret and different names are two meshes.
    pub name: Option<String>,
    /// The mesh secret, 64 hexadecimal digits. Better kept in a file: see `secret_file`.
    pub secret: Option<SecretHex>,
    /// A file with the mesh secret as 64 hexadecimal digits, readable by its owner alone.
    pub secret_file: Option<PathBuf>,
    /// The name of an open mesh, whose secret follows from its name: everybody who knows the name is in.
    pub open: Option<String>,
}

impl MeshConfig {
    /// The mesh that this section names; `None` if it names none. `file_secret` is what `secret_file` holds, read
    /// by the caller.
    ///
    /// # Errors
    /// What is wrong with the name or the secret.
    pub fn mesh(&self, file_secret: Option<&SecretHex>) -> Result<Option<Mesh>, Problem> {
        validate::mesh(self, file_secret)
    }
}

/// A secret as hexadecimal text: shown by nothing but its serialised form, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHex(String);

impl SecretHex {
    /// Takes the text as it is; see [`SecretHex::decode`].
    pub fn new(text: impl Into<String>) -> Self {
        SecretHex(text.into())
    }

    /// The secret; `None` unless the text is 64 hexadecimal digits.
    pub fn decode(&self) -> Option<MeshSecret> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(self.0.trim().as_bytes()).ok()?;
        Some(MeshSecret::from_bytes(bytes.try_into().ok()?))
    }
}

impl From<&MeshSecret> for SecretHex {
    fn from(secret: &MeshSecret) -> Self {
        SecretHex(data_encoding::HEXLOWER.encode(secret.as_bytes()))
    }
}

impl Drop for SecretHex {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Steps, patterns, and what a message may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Steps between two re-keyings of the pattern. The same on all nodes of a mesh: nodes that differ
    /// refuse each other's messages as bad patterns. Default 100: guess (one re-keying in 100 s).
    pub phase_interval: u64,
    /// Patterns kept; a pattern takes about 100 bytes. Too low costs 0.2 µs more per message.
    /// Default 256: guess, many times the default step window of 11.
    pub cache_size: usize,
    /// Length of a step. The same on all nodes of a mesh. Default 1000: guess, far above the few
    /// milliseconds that step synchronisation leaves between nodes.
    pub step_interval_ms: u64,
    /// How many steps behind the own one a message may be. Too low refuses honest messages that were
    /// long on their way; too high lengthens the time in which the replay window must remember. Default 8:
    /// guess, above the 3 s that gossip needs to repair a loss (`gossip.history_gossip` heartbeats).
    pub step_window_past: u64,
    /// How many steps ahead of the own one a message may be. Default 2: guess, for clocks one step apart.
    pub step_window_future: u64,
    /// Sequence numbers remembered per author, behind its highest. Too low refuses honest messages that
    /// arrive out of order, as replays. Default 1024: as in IPsec implementations (RFC 6479 windows).
    pub sequence_window: usize,
    /// Authors whose sequence numbers are remembered, about 200 bytes each; the one silent for longest is
    /// forgotten first, but not while its messages could still be in the step window. Default 65536: guess.
    pub authors_max: usize,
    /// Time between two rounds of step synchronisation. Default 1000: guess; clocks that drift by 200 parts per
    /// million part by 0.2 ms in it. Higher saves messages and heals slower.
    pub sync_round_ms: u64,
    /// Peers asked in a round, of whom up to a third may lie. Default 16: the 3f + 1 of Welch and Lynch (1988)
    /// for f = 5. Fewer let a random sample hold too many liars more often.
    pub sync_peers: usize,
    /// How long an answer is waited for; a later one is not used. Default 500: above the round trip between any
    /// two places on earth by wire.
    pub sync_timeout_ms: u64,
    /// Rounds tried at once, without waiting for the next round, while nobody answers. Default 2: guess.
    pub sync_retries: u32,
    /// Payloads in one envelope. Default 64: guess; the signature then costs 1 µs per payload.
    pub bundle_payloads_max: usize,
    /// Bytes of payloads in one envelope of more than one payload. Default 16384: guess, a quarter of
    /// `gossip.message_bytes_max`.
    pub bundle_bytes_max: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            phase_interval: 100,
            cache_size: 256,
            step_interval_ms: 1000,
            step_window_past: 8,
            step_window_future: 2,
            sequence_window: 1024,
            authors_max: 65_536,
            sync_round_ms: 1000,
            sync_peers: 16,
            sync_timeout_ms: 500,
            sync_retries: 2,
            bundle_payloads_max: 64,
            bundle_bytes_max: 16_384,
        }
    }
}

impl NodeConfig {
    /// The length of a step.
    pub fn step_interval(&self) -> Duration {
        Duration::from_millis(self.step_interval_ms)
    }
}

/// Addresses, connections and membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Where peers reach this node, as multiaddresses; port 0 is any free port. By default TCP and QUIC on
    /// port 7411 of every IPv4 interface. Add `/ip6/::/tcp/7411` and `/ip6/::/udp/7411/quic-v1` where there
    /// is IPv6: an address that cannot be listened on is an error.
    pub listen: Vec<String>,
    /// Addresses under which others reach this node although it does not see them itself (behind a
    /// translating router or in a container); told to peers and put in invites.
    pub external: Vec<String>,
    /// Where to find the mesh: multiaddresses that end in `/p2p/<peer id>`. Redialled for as long as the
    /// node runs.
    pub bootstrap: Vec<String>,
    /// Find peers on the local network by multicast DNS. Off by default: it tells everybody on the link.
    pub mdns: bool,
    /// Peers connected at most, in both directions together; further ones are refused. Default 128: guess,
    /// about 1 MiB each.
    pub peers_max: usize,
    /// Peers that the node tries to have by dialling members it knows. Too low makes gossip fragile, too
    /// high costs memory. Default 12: as `gossip.mesh_n_high`, so that the router can choose.
    pub peers_target: usize,
    /// Connections being set up at once, in each direction; further incoming ones are refused. Default 64: guess.
    pub pending_max: usize,
    /// Members known at most; further ones are not taken in. Default 4096: guess, some 2 MiB at worst.
    pub max_nodes: usize,
    /// Time between two probes of the failure detector. Default 1000: the SWIM paper's protocol period (Das
    /// et al. 2002, section 5: 2 s) halved, as HashiCorp's memberlist has it on local networks.
    pub heartbeat_ms: u64,
    /// How long a silent member is suspected before it is declared dead; a member that hears of it has that
    /// long to object. Too low declares slow nodes dead. Default 4000: memberlist's on local networks, four probes.
    pub suspect_ms: u64,
    /// Peer ids that may join, and whose signatures of checkpoints count. Empty admits everybody who knows the mesh secret.
    pub allow: Vec<NodeId>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            listen: vec!["/ip4/0.0.0.0/tcp/7411".to_owned(), "/ip4/0.0.0.0/udp/7411/quic-v1".to_owned()],
            external: Vec::new(),
            bootstrap: Vec::new(),
            mdns: false,
            peers_max: 128,
            peers_target: 12,
            pending_max: 64,
            max_nodes: 4096,
            heartbeat_ms: 1000,
            suspect_ms: 4000,
            allow: Vec::new(),
        }
    }
}

/// The gossip router. Defaults are those of the gossipsub specification (v1.0 "Parameters", v1.1 and v1.2)
/// where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GossipConfig {
    /// Peers in a channel's mesh that the router aims at (`D`, 6).
    pub mesh_n: usize,
    /// Below this many it looks for more (`D_lo`; 5 as in rust-libp2p, the specification says 4 to 5).
    pub mesh_n_low: usize,
    /// Above this many it prunes (`D_hi`, 12).
    pub mesh_n_high: usize,
    /// Of which this many were dialled by the node itself, against eclipse (`D_out`, 2).
    pub mesh_outbound_min: usize,
    /// Peers outside the mesh that are told of messages in each heartbeat (`D_lazy`, 6).
    pub gossip_lazy: usize,
    /// Time between two rounds of upkeep (1000).
    pub heartbeat_ms: u64,
    /// Heartbeats for which a message can still be asked for (`mcache_len`, 5).
    pub history_length: usize,
    /// Heartbeats for which messages are advertised (`mcache_gossip`, 3).
    pub history_gossip: usize,
    /// How long the id of a seen message is remembered (`seen_ttl`, 120000).
    pub seen_ms: u64,
    /// Bytes of messages kept to be asked for, and of those that wait for their verification; beyond it the oldest go
    /// early, and new ones are shed. Default 0: a share of `limits.memory` (see [`budget`]).
    pub cache_bytes_max: usize,
    /// The longest message on the wire, envelope and all. The same on all nodes of a mesh: a longer one is
    /// refused where it arrives. Default 65536: `max_transmit_size` of rust-libp2p's gossipsub.
    pub message_bytes_max: usize,
    /// Send own messages to every peer of the channel that has a good score, not to the mesh alone (true).
    pub flood_publish: bool,
    /// Messages of at least this many bytes are announced with IDONTWANT. Default 1000: as rust-libp2p.
    pub idontwant_bytes: usize,
    /// Tree mode: between nodes of OmniMesh a message goes over the links of one tree, and over the others only
    /// its id. Off: they treat each other as stock gossipsub peers, and each message comes about `mesh_n` times.
    /// Default true: one copy for each node instead of five or more (measured: tests of the router).
    pub tree: bool,
    /// Tree mode: how long a message that a peer told of may take before it is asked for; about a round trip
    /// between peers. Too low asks for what is on its way, too high delays what was lost. Default 100: guess.
    pub tree_repair_ms: u64,
}

impl Default for GossipConfig {
    fn default() -> Self {
        GossipConfig {
            mesh_n: 6,
            mesh_n_low: 5,
            mesh_n_high: 12,
            mesh_outbound_min: 2,
            gossip_lazy: 6,
            heartbeat_ms: 1000,
            history_length: 5,
            history_gossip: 3,
            seen_ms: 120_000,
            cache_bytes_max: 0,
            message_bytes_max: 65_536,
            flood_publish: true,
            idontwant_bytes: 1000,
            tree: true,
            tree_repair_ms: 100,
        }
    }
}

/// Bounds of queues and buffers. A full queue sheds and counts what it shed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes of memory for all that the node holds of others and for others: queues, caches, buffers, evidence. It is
    /// shared out to the parts, see [`budget`]; a part that is full sheds what matters least and counts it. The process
    /// itself, and tasks of jobs (`compute.memory_bytes`), are beside it. Too low sheds in bursts and slows far links
    /// down; too high lets a flood take the machine's memory. Default 1 GiB: guess; at least 32 MiB, and that only
    /// with fewer peers and authors than by default.
    pub memory: usize,
    /// Bytes of frames that were received and wait. Default 0: a share of `memory`.
    pub inbound_bytes: usize,
    /// Bytes that wait to be sent, to all peers together. Default 0: a share of `memory`.
    pub outbound_bytes_total: usize,
    /// Bytes that wait for subscribers, all together. Default 0: a share of `memory`.
    pub subscriber_bytes: usize,
    /// Received messages that wait for verification; further ones are shed. Default 8192: guess, a quarter
    /// of a second of verification on one core at 32 µs each.
    pub inbound_queue: usize,
    /// Messages verified in one go; more is better for throughput and worse for latency. Default 64: guess.
    pub verify_batch: usize,
    /// Frames that wait to be sent to one peer; then forwarded messages are shed, own ones later, control
    /// last. Default 5000: as gossipsub of rust-libp2p.
    pub outbound_queue: usize,
    /// Bytes that wait to be sent to one peer, if all peers together leave so much room. Default 4 MiB: guess, 64 of the
    /// largest messages.
    pub outbound_bytes: usize,
    /// Messages that wait for one subscriber, in the library or over the API; then the oldest is shed and
    /// the subscriber is told how many it missed. Default 1024: guess.
    pub subscriber_queue: usize,
    /// Streams of one connection. Default 64: guess; a node needs about 8.
    pub streams_per_connection: usize,
    /// How much a peer may send on one connection before it is read. At least 256 KiB for each stream (the Yamux
    /// specification). Default 24 MiB: guess; Yamux alone would allow 1 GiB. What all connections hold together is
    /// bounded by their share of `memory`.
    pub connection_window_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            memory: 1 << 30,
            inbound_bytes: 0,
            outbound_bytes_total: 0,
            subscriber_bytes: 0,
            inbound_queue: 8192,
            verify_batch: 64,
            outbound_queue: 5000,
            outbound_bytes: 4 << 20,
            subscriber_queue: 1024,
            streams_per_connection: 64,
            connection_window_bytes: 24 << 20,
        }
    }
}

/// Checkpoints of the durable log: what all entries before a step come to, signed by several nodes. Entries that one
/// covers may be dropped, and new nodes begin with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointsConfig {
    /// One is made of the entries before every step that is a multiple of this; 0 for none. The same on all nodes of a
    /// mesh. Default 3600: an hour.
    pub every_steps: u64,
    /// How many steps later it is made, so that late entries are there. Default 60: guess.
    pub delay_steps: u64,
    /// How many signatures one needs, the same on all nodes; 0 for a majority of the members that are alive. Default 0.
    pub signers: usize,
    /// The longest that is taken from peers; it is opened in memory. Default 256 MiB: guess.
    pub bytes_max: u64,
    /// Entries older than this many steps are dropped, once a checkpoint covers them; 0 keeps them. Default 0.
    pub keep_steps: u64,
    /// Entries that a checkpoint covers are dropped when the log's file has more bytes than this; 0 keeps them.
    /// Default 0.
    pub keep_bytes: u64,
}

impl Default for CheckpointsConfig {
    fn default() -> Self {
        CheckpointsConfig {
            every_steps: 3600,
            delay_steps: 60,
            signers: 0,
            bytes_max: 256 << 20,
            keep_steps: 0,
            keep_bytes: 0,
        }
    }
}

/// Blobs, and what jobs may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeConfig {
    /// Bytes of blobs that are kept; what was used longest ago goes first, what is pinned stays. Default 4 GiB: guess.
    pub blob_bytes: u64,
    /// Bytes of blobs that this node sends to others in a second, all together; a second's worth may go at once after a rest. 0 for no
    /// limit, which is the default. Lower leaves more of the line to others, and lets workers wait for what is only here.
    pub transfer_bytes_per_s: u64,
    /// Whether this node does tasks of jobs. It submits and drives jobs in any case.
    pub work: bool,
    /// Tasks that run here at once; 0 for one for each core. Default 0. Set it lower on machines that do other work.
    pub slots: u32,
    /// Tasks that wait here for a slot. Default 256: guess; drivers give so many only if they are short.
    pub queue: u32,
    /// Threads that a task may use that can use more than one; 0 for one for each core. Default 0.
    pub threads: usize,
    /// Memory of all tasks that run together, by their limits. Default 2 GiB: guess.
    pub memory_bytes: u64,
    /// Inputs of one task together; they are in memory while it runs. Default 1 GiB: guess.
    pub input_bytes: u64,
    /// Tasks of one job that run or wait here; 0 for no limit of its own. Default 0.
    pub tasks_per_job: u32,
    /// What this node is, for jobs that ask for it: `NAME=VALUE`, such as `site=lab`.
    pub labels: Vec<String>,
    /// Where this node is, for jobs that ask for it.
    pub region: Option<String>,
    /// How a worker is chosen: `power_of_two`, `least_connections`, `weighted`, `round_robin` or `random`.
    pub placement: Strategy,
    /// A worker that fails so often in a row is left alone for a while. Default 5: guess. Lower gives up on workers for accidents,
    /// higher wastes more attempts on those that are broken.
    pub breaker_failures_max: u32,
    /// So is one that has failed in this share of its last 20 attempts, in thousandths. Default 500, resilience4j's.
    pub breaker_failure_per_mille: u16,
    /// For how long at first. Default 5 s, Hystrix's sleep window.
    pub breaker_open_ms: u64,
    /// And for how long at most: it doubles with each failure after that. Default 2 min: guess.
    pub breaker_open_ms_max: u64,
    /// How many other nodes keep the inputs of a job, so that it outlives the node it was submitted to. Default 2: three have them, as
    /// HDFS has it.
    pub input_copies: usize,
    /// Jobs submitted here that have not ended; more are refused. Default 256: guess.
    pub jobs_max: usize,
    /// Tasks of one job that is submitted here, after fan-out. Default: see [`Quota`].
    pub job_tasks_max: u64,
    /// Length of all inputs together of one job that is submitted here. Default: see [`Quota`].
    pub job_input_bytes_max: u64,
    /// What all tasks of such a job together may have to fetch, of inputs and programs. Default: see [`Quota`].
    pub job_transfer_bytes_max: u64,
    /// What a task of a job that is submitted here may ask for in CPU time. Default: see [`Quota`].
    pub task_cpu_ms_max: u64,
    /// The same in memory.
    pub task_memory_bytes_max: u64,
    /// The same in output.
    pub task_output_bytes_max: u64,
    /// The same in time from start to end.
    pub task_wall_ms_max: u64,
}

impl Default for ComputeConfig {
    fn default() -> Self {
        let quota = Quota::default();
        ComputeConfig {
            blob_bytes: 4 << 30,
            transfer_bytes_per_s: 0,
            work: true,
            slots: 0,
            queue: 256,
            threads: 0,
            memory_bytes: 2 << 30,
            input_bytes: 1 << 30,
            tasks_per_job: 0,
            labels: Vec::new(),
            region: None,
            placement: Strategy::default(),
            breaker_failures_max: 5,
            breaker_failure_per_mille: 500,
            breaker_open_ms: 5000,
            breaker_open_ms_max: 120_000,
            input_copies: 2,
            jobs_max: 256,
            job_tasks_max: quota.tasks_max,
            job_input_bytes_max: quota.input_bytes_max,
            job_transfer_bytes_max: quota.transfer_bytes_max,
            task_cpu_ms_max: quota.cpu_ms_max,
            task_memory_bytes_max: quota.memory_bytes_max,
            task_output_bytes_max: quota.output_bytes_max,
            task_wall_ms_max: quota.wall_ms_max,
        }
    }
}

impl ComputeConfig {
    /// The labels by name; what has no `=` has an empty value, which validation refuses.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let pair = |label: &String| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        };
        self.labels.iter().map(pair).collect()
    }

    /// How much one job may ask for that is submitted here.
    pub fn quota(&self) -> Quota {
        Quota {
            tasks_max: self.job_tasks_max,
            cpu_ms_max: self.task_cpu_ms_max,
            memory_bytes_max: self.task_memory_bytes_max,
            output_bytes_max: self.task_output_bytes_max,
            wall_ms_max: self.task_wall_ms_max,
            input_bytes_max: self.job_input_bytes_max,
            transfer_bytes_max: self.job_transfer_bytes_max,
        }
    }
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port; port 0 is any free port. Loopback by default: whoever can reach it and has the
    /// token rules the node.
    pub listen: SocketAddr,
    /// Names by which clients may call the API (the `Host` header), besides loopback names and the listen
    /// address. Against DNS rebinding.
    pub allowed_hosts: Vec<String>,
    /// Web origins (`https://example.org`) whose pages may call the API, besides its own.
    pub allowed_origins: Vec<String>,
    /// The longest request body; a longer one gets 413. Default 128 KiB: twice `gossip.message_bytes_max`, which
    /// leaves room for base64. Every request may cost that much memory.
    pub body_bytes_max: usize,
    /// Requests per second of one client address; further ones get 429. Default 1000: guess.
    pub requests_per_s: u32,
    /// Requests at once of one client address after a rest. Default 2000: guess.
    pub requests_burst: u32,
    /// Open connections; more wait in the system's queue. Default 256: guess.
    pub connections_max: usize,
    /// Open event streams; more get 503. Default 64: guess.
    pub streams_max: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 7412)),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            body_bytes_max: 128 << 10,
            requests_per_s: 1000,
            requests_burst: 2000,
            connections_max: 256,
            streams_max: 64,
        }
    }
}

/// What the process logs, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, of OmniMesh's own parts (of libraries, warnings only); or
    /// directives such as `info,omnimesh_node::swarm=debug`, which are taken as they are.
    pub level: String,
    /// One line of text or one JSON object per event.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How a log event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}
