//! What the network tells: events of peers and streams, and the frames themselves.

use std::time::Duration;

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::OwnedSemaphorePermit;

use super::queue::Outbound;
use crate::memory::Account;

/// Which of the long-lived streams of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Gossipsub's RPCs.
    Gossip,
    /// OmniMesh's own: membership, step sync.
    Control,
    /// OmniMesh's own: the durable log's comparisons and records.
    Log,
    /// OmniMesh's own: content by its hash.
    Blob,
    /// OmniMesh's own: tasks and their results.
    Compute,
}

impl StreamKind {
    /// A word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::Gossip => "gossip",
            StreamKind::Control => "control",
            StreamKind::Log => "log",
            StreamKind::Blob => "blob",
            StreamKind::Compute => "compute",
        }
    }
}

/// Something happened to this node's connections.
///
/// For one peer: `Connected` comes first, then any number of stream events, then `Disconnected`, which ends
/// its streams too, without a `StreamDown` for each.
#[derive(Debug)]
pub enum Event {
    /// Connections are accepted at this address. Those of the start are in
    /// [`Started::listening`](super::Started::listening) instead.
    Listening {
        /// Where, without the peer id.
        address: Multiaddr,
    },
    /// Connections are no longer accepted at these addresses.
    ListenFailed {
        /// Where it was.
        addresses: Vec<Multiaddr>,
        /// Why, for people.
        reason: String,
    },
    /// A connection was established.
    Connected {
        /// To whom.
        peer: PeerId,
        /// Whether this node made it.
        outbound: bool,
        /// Where the peer is: what was dialled, or where it came from.
        address: Multiaddr,
        /// How many connections to this peer there are now; 1 means the peer is new.
        connections: u32,
    },
    /// A connection was closed, and there is another one with the same peer.
    Closed {
        /// To whom.
        peer: PeerId,
        /// Where that was: what was dialled, or where it came from.
        address: Multiaddr,
    },
    /// The last connection to a peer was closed.
    Disconnected {
        /// To whom.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// A dial asked for came to nothing.
    DialFailed {
        /// Whom, if that was known.
        peer: Option<PeerId>,
        /// Where.
        addresses: Vec<Multiaddr>,
        /// The kind of the failure.
        kind: DialFailure,
        /// Why, for people.
        reason: String,
    },
    /// A peer told who it is. What it says is bounded and cleaned, not checked.
    Identified {
        /// Who.
        peer: PeerId,
        /// Its protocol version; `/omnimesh/1` for a node.
        protocol_version: String,
        /// Its software.
        agent: String,
        /// The protocols it speaks.
        protocols: Vec<String>,
        /// Where it says it listens.
        listen: Vec<Multiaddr>,
    },
    /// A peer is of another mesh, and not of this one.
    ForeignMesh {
        /// Who.
        peer: PeerId,
        /// The other mesh's id, 32 hexadecimal digits.
        mesh: String,
    },
    /// A peer's addresses were found.
    Discovered {
        /// Whose.
        peer: PeerId,
        /// Where it may be.
        addresses: Vec<Multiaddr>,
        /// Who said so.
        source: Source,
    },
    /// A ping came back.
    Rtt {
        /// From whom.
        peer: PeerId,
        /// The round-trip time.
        rtt: Duration,
    },
    /// Our stream to a peer is open.
    StreamUp {
        /// To whom.
        peer: PeerId,
        /// Which.
        kind: StreamKind,
        /// What was agreed upon: the peer's version of the protocol.
        protocol: StreamProtocol,
        /// The way to send on it.
        outbound: Outbound,
    },
    /// Our stream to a peer is gone, the peer is still connected. It is opened again by itself, unless the
    /// reason is [`DownReason::GaveUp`].
    StreamDown {
        /// To whom.
        peer: PeerId,
        /// Which.
        kind: StreamKind,
        /// Why.
        reason: DownReason,
    },
    /// A peer speaks no protocol of this kind.
    StreamUnsupported {
        /// Who.
        peer: PeerId,
        /// Which.
        kind: StreamKind,
    },
}

/// Who named an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The peer itself, on the local network.
    Mdns,
    /// A peer of this mesh, in Kademlia.
    Kademlia,
}

/// The kind of a failed dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// No route there.
    Unreachable,
    /// The name has no address.
    Unresolved,
    /// Somebody else is there.
    WrongPeer {
        /// Who.
        obtained: PeerId,
    },
    /// This node itself is there.
    Myself,
    /// There is already a connection or a dial to that peer.
    AlreadyConnected,
    /// A limit of this node; see [`Limits`](super::Limits).
    LimitReached,
    /// The peer is left alone for a while.
    Blocked,
    /// No address was given or known.
    NoAddress,
    /// No transport here carries such an address.
    AddressUnsupported,
    /// Connected, but no secure channel was agreed upon, or it closed at once.
    Handshake,
}

/// Why a stream went down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The peer closed or reset it.
    #[error("closed by the peer")]
    Closed,
    /// The peer wrote on a stream that is ours to write.
    #[error("the peer wrote on a one-way stream")]
    Violation,
    /// The peer took nothing for too long while its queue was full; its connection is closed.
    #[error("the peer does not read")]
    Stalled,
    /// It could not be opened or kept, several times over; the next connection tries again.
    #[error("given up after {attempts} attempts")]
    GaveUp {
        /// How many.
        attempts: u32,
    },
}

/// What came in on streams of one kind.
///
/// Frames of one peer keep their order. A batch may still arrive after the peer's
/// [`Event::Disconnected`]: events and frames are separate channels.
#[derive(Debug)]
pub enum Inbound {
    /// Frames that had arrived together.
    Frames {
        /// From whom.
        peer: PeerId,
        /// In order, without their length prefix. Slices of one buffer of some ten KiB, which lives as long
        /// as any of them: copy what is small and kept for long.
        frames: Vec<Bytes>,
        /// Counts them against [`StreamConfig::inbound_bytes`](super::StreamConfig::inbound_bytes) until it
        /// is dropped.
        held: Held,
    },
    /// A peer broke the framing; its stream is closed.
    Malformed {
        /// Who.
        peer: PeerId,
        /// How.
        reason: Malformed,
    },
}

/// A share of the memory for received frames, given back on drop.
#[derive(Debug)]
pub struct Held(
    #[expect(dead_code, reason = "held for its drop")] pub(super) Option<(OwnedSemaphorePermit, Account)>,
);

/// How a peer broke the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame is too long.
    #[error("a frame of {length} bytes, more than the {max} allowed")]
    TooLong {
        /// The length it announced.
        length: u64,
        /// The longest allowed.
        max: usize,
    },
    /// The length is no minimal unsigned varint.
    #[error("a length prefix that is no unsigned varint")]
    BadPrefix,
}

impl Malformed {
    /// The stable name in metrics and events.
    pub const fn code(self) -> &'static str {
        match self {
            Malformed::TooLong { .. } => "too_long",
            Malformed::BadPrefix => "bad_prefix",
        }
    }
}
