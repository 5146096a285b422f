//! The OmniMesh node.

pub mod api;
pub mod swarm;
