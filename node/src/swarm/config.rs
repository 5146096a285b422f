//! What the swarm may be told, with a default for all but the mesh.

use std::time::Duration;

use libp2p::Multiaddr;
use omnimesh_protocol::MeshId;
use omnimesh_protocol::config::Part;
use omnimesh_protocol::config::budget::CONNECTION_BYTES;

use super::links::LinkEnd;
use crate::memory::Memory;

/// Settings of a [`Network`](super::Network).
#[derive(Debug, Clone)]
pub struct Config {
    /// The mesh: part of the names of the control and Kademlia protocols, so that two meshes never merge.
    pub mesh: MeshId,
    /// What carries the connections.
    pub transport: TransportKind,
    /// Where to accept connections, for example `/ip4/0.0.0.0/tcp/7411` and `/ip4/0.0.0.0/udp/7411/quic-v1`;
    /// port 0 takes a free one. Empty: none are accepted, only made.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node that it cannot see itself (a port forwarded to it).
    /// They are told to peers as they are.
    pub external: Vec<Multiaddr>,
    /// Looks for peers on the local network by multicast. Off by default: it tells everybody on that network
    /// that this node is there.
    pub mdns: bool,
    /// Keeps a Kademlia table of this mesh for finding peers. Nothing is stored in it.
    pub kademlia: bool,
    /// Bounds on connections and memory.
    pub limits: Limits,
    /// The memory of the whole node, by part: that of all queues, buffers and connections together.
    pub memory: Memory,
    /// Offers and accepts OmniMesh's own gossip protocol, which is tree mode, besides those of gossipsub.
    pub tree: bool,
    /// The streams that carry gossip.
    pub gossip: StreamConfig,
    /// The streams that carry membership, step sync and the like.
    pub control: StreamConfig,
    /// The streams that carry the durable log, if the node keeps one.
    pub log: Option<StreamConfig>,
    /// The streams that carry blobs, if the node keeps any.
    pub blob: Option<StreamConfig>,
    /// The streams that carry tasks and their results, if the node keeps blobs.
    pub compute: Option<StreamConfig>,
    /// How often each connection is pinged. Too low costs traffic, too high finds dead connections late.
    pub ping_interval: Duration,
    /// How long a ping may take. A connection on which two pings in a row fail is closed: after a cut cable
    /// within twice both times at most, where the time of the second ping is 10 s.
    pub ping_timeout: Duration,
}

impl Config {
    /// The defaults: TCP and QUIC, listening nowhere yet.
    pub fn new(mesh: MeshId) -> Self {
        Config {
            mesh,
            transport: TransportKind::Internet,
            listen: Vec::new(),
            external: Vec::new(),
            mdns: false,
            kademlia: true,
            limits: Limits::default(),
            memory: Memory::default(),
            tree: true,
            gossip: StreamConfig::default(),
            control: StreamConfig {
                queue_bytes: 2 << 20,
                inbound_bytes: 16 << 20,
                ..StreamConfig::default()
            },
            log: None,
            blob: None,
            compute: None,
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(10),
        }
    }

    /// What each connection may hold that is not read, whatever the others do: of half of the memory for connections an equal
    /// part. The other half is for those that need more.
    pub(super) fn connection_floor(&self) -> usize {
        let half = self.memory.part(Part::Connections).limit() / 2;
        let connections = usize::try_from(self.limits.connections).unwrap_or(usize::MAX);
        (half / connections.max(1)).max(CONNECTION_BYTES / 2)
    }
}

/// What carries the connections.
#[derive(Debug, Clone)]
pub enum TransportKind {
    /// TCP (Noise, Yamux) and QUIC, with names resolved by DNS. Both can be dialled whatever is listened on.
    Internet,
    /// Channels within this process, addresses like `/memory/1234` (0 takes a free one): many nodes in one
    /// process without a socket. Noise and Yamux run all the same.
    Memory,
    /// The same with links of a given latency, to nodes of the same [`Links`](super::Links) only.
    Links(LinkEnd),
}

/// Bounds on connections; libp2p sets few by itself. All defaults but where a source is given are guesses,
/// made for a node of a mesh of some hundreds with peers on ordinary links.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Established connections in all. At worst each holds `connection_window_bytes` of unread data.
    pub connections: u32,
    /// Established connections that others made; lower than `connections`, so that a flood of them leaves
    /// room for our own.
    pub connections_inbound: u32,
    /// Connections to one peer. Two arise when both dial at once; one more lets a peer back in whose old
    /// connections are dead and not yet noticed.
    pub connections_per_peer: u32,
    /// Handshakes in progress that others began.
    pub pending_inbound: u32,
    /// Dials in progress. More wait their turn with whoever asked: they fail with
    /// [`DialFailure::LimitReached`](super::DialFailure::LimitReached).
    pub pending_outbound: u32,
    /// Streams of one connection, in all protocols.
    pub streams_per_connection: u32,
    /// Streams that a peer may be negotiating at once on one connection; more are reset.
    pub streams_negotiating: usize,
    /// How much a peer may send on one connection before we read it; Yamux alone would allow 1 GiB. At least
    /// 256 KiB for each stream (Yamux' specification); what is above that lets fast, far streams grow.
    pub connection_window_bytes: u32,
    /// How long a connection without a stream stays open.
    pub idle_timeout: Duration,
    /// How long a dial or a handshake may take in all.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 512,
            connections_inbound: 384,
            connections_per_peer: 3,
            pending_inbound: 64,
            pending_outbound: 64,
            streams_per_connection: 64,
            streams_negotiating: 16,
            connection_window_bytes: 24 << 20,
            idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Bounds of the streams of one kind.
#[derive(Debug, Clone, Copy)]
pub struct StreamConfig {
    /// The longest frame, sent or received. A longer one closes the stream, which hurts when two nodes of a
    /// mesh disagree on it; each peer may make us hold so much.
    pub frame_bytes_max: usize,
    /// Frames waiting for one peer; the lowest class is shed beyond it. Too low sheds in bursts, too high
    /// holds memory and delivers late.
    pub queue_frames: usize,
    /// Bytes waiting for one peer; never less than one frame of the greatest length.
    pub queue_bytes: usize,
    /// Received batches waiting for the reader of this kind. When they are full, peers are held back.
    pub inbound_batches: usize,
    /// Received bytes waiting for the reader of this kind, of all peers together.
    pub inbound_bytes: usize,
    /// A peer that takes nothing for so long while its queue is full is cut off.
    pub stall_timeout: Duration,
    /// How long a peer has, at the end of a stream, to read what waits.
    pub finish_timeout: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig {
            frame_bytes_max: 1 << 20,
            // As gossipsub of rust-libp2p (its default queue length).
            queue_frames: 5000,
            queue_bytes: 4 << 20,
            inbound_batches: 1024,
            inbound_bytes: 64 << 20,
            stall_timeout: Duration::from_secs(10),
            finish_timeout: Duration::from_secs(1),
        }
    }
}
