//! The node.
use std::net::SocketAddr;
use std::path::PathBuf;

use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh, NodeId};

/// What a node is made of.
#[derive(Debug)]
pub struct NodeOptions {
    /// Its configuration.
    pub config: Config,
    /// Where it keeps its data; `None` keeps nothing.
    pub data_dir: Option<PathBuf>,
    /// Who it is.
    pub identity: Identity,
    /// The mesh it belongs to.
    pub mesh: Mesh,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no node yet.
    #[error("the node is not part of this build")]
    Missing,
}

/// A running node.
#[derive(Debug)]
pub struct MeshNode {
    never: std::convert::Infallible,
}

impl MeshNode {
    /// Starts a node.
    ///
    /// # Errors
    /// Always.
    #[expect(clippy::unused_async, reason = "the node's own start awaits")]
    pub async fn start(options: NodeOptions) -> Result<MeshNode, StartError> {
        drop(options);
        Err(StartError::Missing)
    }

    /// Who it is.
    pub fn peer_id(&self) -> NodeId {
        match self.never {}
    }

    /// Where peers reach it.
    pub fn listen_addresses(&self) -> Vec<String> {
        match self.never {}
    }

    /// Where its API is.
    pub fn api_address(&self) -> SocketAddr {
        match self.never {}
    }

    /// Waits until it takes part.
    ///
    /// # Errors
    /// If it stopped before.
    #[expect(clippy::unused_async, reason = "the node's own awaits")]
    pub async fn wait_ready(&self) -> Result<(), StartError> {
        match self.never {}
    }

    /// Stops it in good order.
    #[expect(clippy::unused_async, reason = "the node's own awaits")]
    pub async fn shutdown(self) {
        match self.never {}
    }
}
