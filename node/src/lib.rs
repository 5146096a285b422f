//! The OmniMesh node: the pure protocol of [`omnimesh_protocol`], run by actix actors over libp2p.
//!
//! ```text
//!                    a program: MeshNode              other programs: HTTP and JSON (api)
//!                           └──────────────┬───────────────────┘
//!                                          ▼
//!  actors    author · gossip · sync · membership · observer · telemetry · log · registry · compute · blob
//!            each around one machine of the protocol: decode, `handle`, carry out what it says
//!                 │                        │                          │
//!                 ▼                        ▼                          ▼
//!  swarm: libp2p over TCP and QUIC    store: node.redb, log.redb,   compute: operations on a rayon pool,
//!  a stream for each kind of frame    blobs/                        WebAssembly within limits
//! ```
//!
//! # The words
//!
//! | word | what it is | where |
//! |---|---|---|
//! | node | one peer of a mesh: a key, a data directory (or none), its actors | [`MeshNode`], [`NodeOptions`] |
//! | network | many nodes in one process, for tests and experiments | [`MeshNetwork`]; thousands, with latencies: [`EmulatedNetwork`] |
//! | channel | what messages are published on; each subscriber gets each verified payload at most once | [`MeshNode::broadcast`], [`MeshNode::subscribe`] |
//! | log | what is kept: entries in chains, the same on every node | [`LogPage`], [`store`] |
//! | job | a graph of tasks that workers of the mesh compute and verify | [`job`], [`mod@compute`] |
//! | memory | one budget of bytes for all queues and caches of a node | [`memory`] |
//! | event | what a node tells those who watch it | [`MeshNode::events`], [`feed`] |
//!
//! # Two nodes
//!
//! They live in one process here and talk over libp2p's memory transport; with a configuration that names addresses they talk over
//! TCP and QUIC, which is all that `omnimesh start` adds.
//!
//! ```
//! use omnimesh_node::MeshNetwork;
//! use omnimesh_protocol::Mesh;
//!
//! # #[actix::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut network = MeshNetwork::new(Mesh::open("example")?, 16);
//! let alice = network.add_node().await?;
//! let bob = network.add_node().await?;
//! bob.wait_ready().await?;
//!
//! let mut news = bob.subscribe("news").await?;
//! // Subscriptions spread with the next frames; until then there are no recipients.
//! while alice.broadcast("news", "hello").await?.recipients == 0 {
//!     tokio::task::yield_now().await;
//! }
//! let message = news.receive().await.ok_or("the node has stopped")?;
//! assert_eq!((message.author, &message.payload[..]), (alice.peer_id(), &b"hello"[..]));
//!
//! alice.shutdown().await;
//! bob.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod actors;
pub mod api;
pub mod audit;
mod backend;
mod blob;
mod clock;
pub mod compute;
pub mod data_dir;
mod durable;
mod emulation;
pub mod feed;
mod interfaces;
pub mod job;
pub mod memory;
mod message;
mod metrics;
mod network;
mod node;
mod process;
mod settings;
pub mod store;
pub mod swarm;
mod webhook;
pub mod words;

pub use actors::author::{BroadcastError, Published};
pub use actors::blob::GetError;
pub use actors::gossip::ChannelPeers;
pub use actors::log::LogError;
pub use actors::observer::Observed;
pub use actors::registry::RegistryError;
pub use durable::{HeadView, LogPage, LogView, USER_CATEGORY};
pub use emulation::{Delivery, EmulatedNetwork, Emulation, EmulationError, Lag};
pub use message::Message;
pub use network::{MeshNetwork, NetworkError};
pub use node::channels::{PublishError, Subscription};
pub use node::start::{NodeOptions, StartError};
pub use node::{MeshNode, Outset, Stopped};
pub use settings::SettingError;
