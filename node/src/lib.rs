//! The OmniMesh node.

pub mod api;
pub mod data_dir;
mod node;
pub mod store;
pub mod swarm;

pub use node::{MeshNode, NodeOptions, StartError};
