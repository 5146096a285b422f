//! How nodes are started and waited for.

use std::path::Path;
use std::time::Duration;

use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh};

/// Far more than any of it takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a new node of a mesh, with settings beside those of a test, and waits until it takes part.
pub(crate) async fn start(
    mesh: &str,
    number: u8,
    dir: &Path,
    bootstrap: Vec<String>,
    set: impl FnOnce(&mut Config),
) -> MeshNode {
    run(mesh, number, dir, bootstrap, true, set).await
}

/// As [`start`]; a node that is not new is one that was stopped.
pub(crate) async fn run(
    mesh: &str,
    number: u8,
    dir: &Path,
    bootstrap: Vec<String>,
    is_new: bool,
    set: impl FnOnce(&mut Config),
) -> MeshNode {
    let identity = Identity::from_seed(&[number; 32]);
    let mut options = NodeOptions { is_new, ..NodeOptions::in_memory(identity, Mesh::open(mesh).unwrap()) };
    options.data_dir = Some(dir.to_owned());
    options.config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    options.config.network.bootstrap = bootstrap;
    options.config.api.listen = "127.0.0.1:0".parse().unwrap();
    set(&mut options.config);
    let node = MeshNode::start(options).await.unwrap();
    tokio::time::timeout(PATIENCE, node.wait_ready()).await.expect("it finds the mesh").unwrap();
    node
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let so = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}
