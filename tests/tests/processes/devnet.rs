//! `devnet`: many nodes with one command, and none left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use omnimesh_tests::{Lab, POLL, Process, SOON, check, lab, wait_for};

const NODES: usize = 5;
/// Seconds for a devnet to verify its messages: less than a command may take here in all.
const VERIFIED_WITHIN: &str = "80";

/// The processes that have used the nodes' data directories.
fn pids(home: &Path) -> BTreeSet<u32> {
    let lock = |number| fs::read_to_string(home.join(format!("node-{number}/lock"))).unwrap_or_default();
    (1..=NODES).filter_map(|number| lock(number).trim().parse().ok()).collect()
}

/// Whether a process runs; one that has ended and that nobody has asked after does not.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state comes after the name, which is in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[track_caller]
fn assert_none_left(pids: &BTreeSet<u32>, limit: Duration) {
    wait_for("the nodes to be gone", limit, || {
        let left: Vec<_> = pids.iter().filter(|pid| is_running(**pid)).collect();
        check(left.is_empty(), || format!("{left:?} still run"))
    });
}

/// A devnet in the background whose nodes all run.
fn running(lab: &Lab) -> (Process, BTreeSet<u32>) {
    let home = lab.dir().join("net");
    let nodes = NODES.to_string();
    let home_path = home.to_str().unwrap();
    let mut devnet =
        lab.start(&["devnet", "--nodes", &nodes, "--timeout", VERIFIED_WITHIN, "--data-dir", home_path]);
    wait_for("verified messages", 2 * SOON, || {
        assert_eq!(devnet.exit_code(), None, "{}", devnet.stderr());
        check(devnet.stdout().contains("  verified  "), || devnet.stderr())
    });
    let pids = pids(&home);
    assert_eq!(pids.len(), NODES);
    assert!(pids.iter().all(|pid| is_running(*pid)));
    (devnet, pids)
}

#[test]
fn five_processes_verify_twenty_messages_and_go() {
    let lab = lab!();
    let home = lab.dir().join("net");
    let run = lab.run(&[
        "devnet",
        "--nodes",
        &NODES.to_string(),
        "--exit-when-verified",
        "--timeout",
        VERIFIED_WITHIN,
        "--data-dir",
        home.to_str().unwrap(),
    ]);
    run.expect(0, &["all 20 messages verified"]);
    let verified: BTreeSet<_> =
        run.stdout.lines().filter_map(|line| line.split_once("  verified  ")).map(|(who, _)| who).collect();
    assert_eq!(verified.len(), NODES * (NODES - 1), "{run:?}");
    let pids = pids(&home);
    assert_eq!(pids.len(), NODES, "each node is a process of its own");
    // It has waited for them: none may be left when it ends.
    assert_none_left(&pids, POLL);
}

#[test]
fn a_temporary_one_leaves_no_files() {
    let lab = lab!();
    let run = lab.run(&[
        "devnet",
        "--nodes",
        "2",
        "--exit-when-verified",
        "--timeout",
        VERIFIED_WITHIN,
        "--output",
        "ndjson",
    ]);
    run.expect(0, &[]);
    let deliveries = run.lines().into_iter().filter(|line| line["type"] == "delivery").count();
    assert_eq!(deliveries, 2, "{run:?}");
    let left = run.stderr.lines().find(|line| line.contains("are kept in"));
    assert_eq!(left, None);
}

#[test]
fn an_interrupt_stops_them_all() {
    let lab = lab!();
    let (mut devnet, pids) = running(&lab);
    devnet.signal("INT");
    assert_eq!(devnet.wait(SOON), Some(130), "{}", devnet.stderr());
    assert_none_left(&pids, POLL);
}

#[test]
fn nodes_end_when_the_devnet_is_killed() {
    let lab = lab!();
    let (mut devnet, pids) = running(&lab);
    devnet.signal("KILL");
    assert_eq!(devnet.wait(SOON), Some(128 + 9));
    assert_none_left(&pids, SOON);
}
