//! What the tests of several nodes share.

use std::time::Duration;

use omnimesh_tests::{Lab, Node, SOON, Subscriber, check, wait_for};
use serde_json::Value;

/// The channel of the tests.
pub(crate) const NEWS: &str = "news";

/// So many nodes of one open mesh, the first being the others' bootstrap node, all ready and all in each other's members.
#[track_caller]
pub(crate) fn mesh(lab: &Lab, count: usize) -> Vec<Node<'_>> {
    let mut nodes = vec![lab.node("node-1").open("test").start()];
    for number in 2..=count {
        let spec = lab.node(&format!("node-{number}")).open("test").bootstrap(&nodes[0]);
        nodes.push(spec.start());
    }
    wait_all_ready(&mut nodes);
    wait_all_alive(&nodes);
    nodes
}

#[track_caller]
pub(crate) fn wait_all_ready(nodes: &mut [Node<'_>]) {
    nodes.iter_mut().for_each(|node| {
        node.wait_ready();
    });
}

#[track_caller]
pub(crate) fn wait_all_alive(nodes: &[Node<'_>]) {
    wait_for("every node to see every other one alive", SOON, || all_see(nodes, nodes, "alive"));
}

/// Whether all observers see all others in this state.
pub(crate) fn all_see(observers: &[Node<'_>], others: &[Node<'_>], state: &str) -> Result<(), String> {
    for observer in observers {
        for other in others.iter().filter(|other| other.peer_id() != observer.peer_id()) {
            observer.expect_sees(other, state)?;
        }
    }
    Ok(())
}

/// Waits until a node sees that a job has ended, and gives what it shows of it.
#[track_caller]
pub(crate) fn wait_job_ended(node: &Node<'_>, id: &str, limit: Duration) -> Value {
    wait_for(&format!("{} to see the end of the job", node.name()), limit, || {
        let job = node.view(&format!("jobs/{id}"))?;
        check(job["state"] != "RUNNING", || job["counts"].to_string()).map(|()| job)
    })
}

/// A node and its subscription to the news.
pub(crate) fn subscribe_all(nodes: &[Node<'_>]) -> Vec<Subscriber> {
    nodes.iter().map(|node| node.subscribe(NEWS)).collect()
}

/// Publishes probes until some neighbour is known to subscribe: a new subscription, or a new connection, takes a moment
/// to be known, and what is published before that goes to nobody.
#[track_caller]
pub(crate) fn wait_for_recipients(publisher: &Node<'_>) {
    wait_for(&format!("a recipient for {}", publisher.name()), SOON, || {
        let published = publisher.publish(NEWS, "probe")?;
        check(published["recipients"].as_u64() > Some(0), || published.to_string())
    });
}
