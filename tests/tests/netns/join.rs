//! Hosts join by an address and hear each other.

use omnimesh_protocol::mesh::Invite;
use omnimesh_tests::lab;

use crate::hosts::Hosts;
use crate::mesh::Mesh;

#[test]
fn five_hosts_join_and_broadcast() {
    let Some(hosts) = Hosts::new(5) else { return };
    let lab = lab!();
    let mesh = Mesh::start(&lab, &hosts);
    mesh.exchange("hello");
    for node in &mesh.nodes {
        let peers = node.json(&["peers"]);
        let addresses: Vec<String> = peers
            .as_array()
            .expect("a list of peers")
            .iter()
            .map(|peer| peer["addresses"].to_string())
            .collect();
        assert_eq!(addresses.len(), 4, "{addresses:?}");
        assert!(addresses.iter().all(|address| address.contains("/ip4/10.77.0.")), "{addresses:?}");
    }
    // Who gets an invite is elsewhere.
    let run = mesh.nodes[0].run(&["invite"]);
    let invite = Invite::decode(&run.expect(0, &[]).stdout).expect("an invite");
    assert!(!invite.bootstrap.is_empty() && run.stderr.is_empty(), "{run:?}");
    assert!(
        invite.bootstrap.iter().all(|address| address.contains("/ip4/10.77.0.")),
        "{:?}",
        invite.bootstrap
    );
}
