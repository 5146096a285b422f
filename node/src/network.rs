//! Many nodes in one process.

use std::collections::HashMap;

use omnimesh_protocol::{Identity, Mesh, NodeId};

use crate::node::MeshNode;
use crate::node::start::{NodeOptions, StartError};

/// A mesh of nodes that live in one process and talk over libp2p's memory transport, with all of the protocol:
/// the same actors, handshakes, streams and signatures as between machines.
///
/// ```
/// use omnimesh_node::MeshNetwork;
/// use omnimesh_protocol::Mesh;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut network = MeshNetwork::new(Mesh::open("example")?, 16);
/// for _ in 0..3 {
///     network.add_node().await?;
/// }
/// for node in network.nodes() {
///     node.wait_ready().await?;
/// }
/// let gone = network.nodes().next().expect("there are three").peer_id();
/// assert!(network.remove_node(&gone).await);
/// assert_eq!(network.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MeshNetwork {
    mesh: Mesh,
    nodes_max: usize,
    nodes: HashMap<NodeId, MeshNode>,
    /// Where a new node knocks first.
    door: Option<NodeId>,
}

/// Why a node was not added.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There are as many as may be.
    #[error("the network has {0} nodes, as many as it may have; raise the limit it was made with")]
    Full(usize),
    /// There is a node of that identity.
    #[error("there already is a node {0}")]
    Exists(NodeId),
    /// The node does not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl MeshNetwork {
    /// An empty network of at most `nodes_max` nodes.
    pub fn new(mesh: Mesh, nodes_max: usize) -> Self {
        MeshNetwork { mesh, nodes_max, nodes: HashMap::new(), door: None }
    }

    /// Adds a node with a new identity.
    ///
    /// # Errors
    /// If there is no room, or the node does not start.
    pub async fn add_node(&mut self) -> Result<MeshNode, NetworkError> {
        let mut seed = [0; 32];
        rand_core::Rng::fill_bytes(&mut crate::actors::rng(), &mut seed);
        self.add(NodeOptions::in_memory(Identity::from_seed(&seed), self.mesh.clone())).await
    }

    /// Adds a node of these options; it joins by one that is there.
    ///
    /// # Errors
    /// If there is no room, such a node is there, or it does not start.
    pub async fn add(&mut self, mut options: NodeOptions) -> Result<MeshNode, NetworkError> {
        let id = options.identity.id();
        if self.nodes.len() >= self.nodes_max {
            return Err(NetworkError::Full(self.nodes.len()));
        }
        if self.nodes.contains_key(&id) {
            return Err(NetworkError::Exists(id));
        }
        if let Some(door) = self.door.and_then(|door| self.nodes.get(&door)) {
            options.config.network.bootstrap.extend(door.bootstrap_addresses());
        }
        let node = MeshNode::start(options).await?;
        self.nodes.insert(id, node.clone());
        self.door.get_or_insert(id);
        Ok(node)
    }

    /// Stops a node and takes it out; false if there is none of that name.
    pub async fn remove_node(&mut self, id: &NodeId) -> bool {
        let Some(node) = self.nodes.remove(id) else { return false };
        if self.door == Some(*id) {
            self.door = self.nodes.keys().next().copied();
        }
        node.shutdown().await;
        true
    }

    /// The node of that name.
    pub fn node(&self, id: &NodeId) -> Option<&MeshNode> {
        self.nodes.get(id)
    }

    /// All nodes, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &MeshNode> {
        self.nodes.values()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
