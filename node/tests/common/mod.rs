//! Real nodes with data directories, over TCP on loopback.

use std::path::Path;
use std::time::Duration;

use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh};

/// Far more than any of it takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a node of a mesh, with settings beside those of a test, and waits until it takes part.
pub(crate) async fn start(
    mesh: &str,
    number: u8,
    dir: &Path,
    bootstrap: Vec<String>,
    set: impl FnOnce(&mut Config),
) -> MeshNode {
    let identity = Identity::from_seed(&[number; 32]);
    let mut options =
        NodeOptions { is_new: true, ..NodeOptions::in_memory(identity, Mesh::open(mesh).unwrap()) };
    options.data_dir = Some(dir.to_owned());
    options.config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    options.config.network.bootstrap = bootstrap;
    options.config.api.listen = "127.0.0.1:0".parse().unwrap();
    set(&mut options.config);
    let node = MeshNode::start(options).await.unwrap();
    tokio::time::timeout(PATIENCE, node.wait_ready()).await.expect("it finds the mesh").unwrap();
    node
}
