//! The OmniMesh node: the pure protocol of [`omnimesh_protocol`], run by actix actors over libp2p.
//!
//! [`MeshNode`] is the face of the library; [`MeshNetwork`] runs many nodes in one process, and [`EmulatedNetwork`]
//! thousands, over links of a given latency.

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
