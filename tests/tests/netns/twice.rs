//! One key on two hosts: all see it at once and say so, and it costs nobody anything.
//!
//! The second host is not let in while the first is there: nodes greet a key once. What both say, if it differs, is proof, and
//! shuts the key out everywhere; that is shown in the tests of forks and of equivocation, where the thief writes what it likes.

use std::fs;
use std::path::Path;

use omnimesh_tests::{Node, SOON, check, lab, wait_for};
use serde_json::{Value, json};

use crate::hosts::{Hosts, tell};
use crate::mesh::{Mesh, bootstrap, spec};

/// The six whose keys are their own.
const HONEST: [usize; 6] = [0, 1, 2, 3, 4, 5];
/// Whose data directory was copied, and the host of the copy, in another network. Both networks are of those that stand
/// for public ones in documents (RFC 5737): a host of a private one has several addresses with good reason.
const OWNER: usize = 6;
const COPY: usize = 7;
fn addresses() -> Vec<String> {
    let network = |host: usize| if host == COPY { "198.51.100" } else { "203.0.113" };
    (0..=COPY).map(|host| format!("{}.{}", network(host), host + 1)).collect()
}

/// Copies the files of a node that is not running.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a data directory can be read").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file can be copied");
        }
    }
}

/// Whether a node has told that somebody's key is on two hosts.
fn is_seen(at: &Node<'_>, who: &str) -> Result<(), String> {
    let anomalies = at.try_json(&["anomalies"])?;
    let is_it = |found: &Value| found["accused"] == who && found["kind"] == "duplicate_identity";
    let is_seen = anomalies.as_array().into_iter().flatten().any(is_it);
    check(is_seen, || format!("{} has not seen it: {anomalies}", at.name()))
}

#[test]
fn a_key_on_two_hosts_is_seen_by_all_and_nobody_is_shut_out() {
    let Some(hosts) = Hosts::at(addresses()) else { return };
    let lab = lab!();
    let mut mesh = Mesh::start_on(&lab, &hosts, COPY);
    mesh.exchange_among(&HONEST, "before");

    let owner = &mut mesh.nodes[OWNER];
    owner.signal("TERM");
    owner.wait_exit();
    // Neither says anything unasked, or there might be proof.
    let quiet = [("OMNIMESH_OBSERVER__PROBE_INTERVAL_MS".to_owned(), "0".to_owned())];
    let stolen = spec(&lab, &hosts, "copy", COPY).env(&quiet);
    copy(&owner.data_dir(), &stolen.data_dir());
    owner.restart_with(|spec| spec.env(&quiet));
    owner.wait_ready();
    mesh.wait_whole(SOON);
    let address = bootstrap(&mesh.nodes[0], &hosts);
    let mut thief = stolen.args(&["--bootstrap", &address]).start();
    thief.wait_ready();
    let (owner, honest) = (&mesh.nodes[OWNER], HONEST.map(|host| &mesh.nodes[host]));
    assert_eq!(thief.peer_id(), owner.peer_id());
    let who = owner.peer_id();

    for node in honest {
        wait_for("the second host to be seen", SOON, || is_seen(node, who));
        let why = node.run(&["why", "peer", who]);
        why.expect(0, &[]);
        for text in ["duplicate_identity", "203.0.113.7", "198.51.100.8", "at once"] {
            assert!(why.stdout.contains(text), "no {text:?} in {}", why.stdout);
        }
    }
    mesh.exchange_among(&HONEST, "after");
    for node in honest {
        // A host may well have two addresses: that is a hint for people.
        let why = &node.json(&["why", "peer", who])["why"];
        assert!(why["trust"].as_f64().is_some_and(|trust| trust >= 0.5), "{}: {why}", node.name());
        assert_eq!(node.json(&["quarantine", "list"]), json!([]), "{}", node.name());
    }
    tell("one key on two hosts: named by all six");
}
