//! The libp2p shell of a node: it carries, and decides nothing about the protocol.
//!
//! ```text
//!            commands, bounded                     events, bounded
//!   caller ───────────────────► driver task ───────────────────────► caller
//!                                  │ owns the swarm: TCP, QUIC, Noise, Yamux,
//!                                  │ identify, ping, Kademlia, mDNS, limits
//!                                  │ hands out streams
//!   caller ── Outbound::try_send ─► queue ─► writer task ─► stream
//!   caller ◄── Inbound ◄── bounded channel ◄─ reader task ◄─ stream
//! ```
//!
//! To every connected peer it keeps one outgoing stream of each kind that both know ([`StreamKind`]: *gossip*,
//! *control*, *log*, *blob*, *compute*), and takes the same from the peer; each is one way, and carries frames with
//! an unsigned-varint length before them, as gossipsub's are. Frames pass by the driver: a sender's thread puts them
//! into the peer's queue, whose writer task writes all that waits at once; a reader task hands what arrived together
//! to the caller's channel.
//!
//! **Invariants.** One outgoing stream of a kind per peer, however many connections. Frames of one class and
//! stream keep their order. Every queue, channel, cache and list is bounded; what a slow peer does not take is
//! shed by class and counted, what a slow caller does not take holds the sending peers back. Nobody ever waits to
//! give a command or a frame, so the driver never waits for somebody who waits for it.
//!
//! **Not here.** Whom to dial and when to dial again, whom to trust, what a frame means. Peers are named by
//! [`PeerId`](libp2p::PeerId), not by node id: a stock gossipsub peer with any kind of key can take part.

mod behaviour;
mod config;
mod dial;
mod driver;
mod event;
mod frame;
mod left_alone;
mod links;
mod metrics;
mod muxer;
mod network;
pub mod peer;
mod queue;
mod streams;
mod transport;
mod unread;

pub use behaviour::{
    GOSSIP_PROTOCOLS, PROTOCOL_VERSION, blob_protocol, compute_protocol, control_protocol, kad_protocol,
    log_protocol,
};
pub use config::{Config, Limits, StreamConfig, TransportKind};
pub use event::{DialFailure, DownReason, Event, Held, Inbound, Malformed, Source, StreamKind};
pub use links::{Carry, LinkEnd, LinkLaw, Links, Security};
pub use network::{COMMANDS_MAX, CommandError, DIAL_ADDRESSES_MAX, Error, Network, NetworkHandle, Started};
pub use queue::{Class, Outbound, QueueStats, Shed};
