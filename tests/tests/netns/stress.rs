//! Honest nodes on bad days: nobody shuts them out, and they are trusted again.

use std::thread;
use std::time::{Duration, Instant};

use omnimesh_tests::{Node, SOON, check, lab, wait_for};
use serde_json::json;

use crate::hosts::{Hosts, tell};
use crate::mesh::{DELIVERED_MAX, Mesh};

/// How long one is stopped, and for how long the others are not themselves.
const STOPPED: Duration = Duration::from_secs(10);
const BAD_DAY: Duration = Duration::from_secs(25);
/// A processor that runs for so much of each second: 5 %.
const RUNS: Duration = Duration::from_millis(50);
const STANDS: Duration = Duration::from_millis(950);
/// Of a hundred packets that arrive at the third.
const LOST: u32 = 30;
/// Trust comes back within so long: suspicion fades by half in a minute.
const FORGIVEN_MAX: Duration = Duration::from_secs(300);

const HEALTHY: [usize; 4] = [0, 1, 2, 3];
const FROZEN: usize = 4;
const SLOW: usize = 5;
const LOSSY: usize = 6;

/// Lets a node run for a part of each second only.
fn starve(node: &Node<'_>, how_long: Duration) {
    let began = Instant::now();
    while began.elapsed() < how_long {
        node.signal("STOP");
        thread::sleep(STANDS);
        node.signal("CONT");
        thread::sleep(RUNS);
    }
}

fn trust(of: &Node<'_>, at: &Node<'_>) -> Result<(f64, f64), String> {
    let why = &at.try_json(&["why", "peer", of.peer_id()])?["why"];
    why["trust"].as_f64().zip(why["score"].as_f64()).ok_or_else(|| why.to_string())
}

#[test]
fn who_is_slow_or_lossy_or_stopped_is_not_shut_out_and_is_trusted_again() {
    let Some(hosts) = Hosts::new(7) else { return };
    let lab = lab!();
    let mesh = Mesh::start(&lab, &hosts);
    mesh.exchange("before");
    hosts.lose_at(LOSSY, LOST);
    let messages = thread::scope(|scope| {
        scope.spawn(|| {
            mesh.nodes[FROZEN].signal("STOP");
            thread::sleep(STOPPED);
            mesh.nodes[FROZEN].signal("CONT");
        });
        scope.spawn(|| starve(&mesh.nodes[SLOW], BAD_DAY));
        let count = usize::try_from(BAD_DAY.as_millis() / 500).expect("small");
        mesh.publish(&HEALTHY, "bad day", count, Duration::from_millis(500))
    });
    mesh.wait_delivered(&messages, &HEALTHY, DELIVERED_MAX);
    let least = HEALTHY
        .iter()
        .flat_map(|host| [FROZEN, SLOW, LOSSY].map(|bad| trust(&mesh.nodes[bad], &mesh.nodes[*host])))
        .flatten()
        .fold(1.0, |least: f64, (trust, _)| least.min(trust));
    let lost = hosts.mend_at(LOSSY);
    assert!(lost > 20, "the loss took no effect: {lost} packets");
    mesh.wait_whole(SOON);
    mesh.exchange("after");
    let mended = Instant::now();
    for at in &mesh.nodes {
        assert_eq!(at.json(&["quarantine", "list"]), json!([]), "{}", at.name());
        for of in mesh.nodes.iter().filter(|of| of.peer_id() != at.peer_id()) {
            wait_for("trust to come back", FORGIVEN_MAX.saturating_sub(mended.elapsed()), || {
                let (trust, score) = trust(of, at)?;
                check(trust >= 0.45 && score >= 0.0, || {
                    format!("{} trusts {} by {trust:.2}, score {score:.1}", at.name(), of.name())
                })
            });
        }
    }
    tell(&format!(
        "{lost} packets lost, one stopped for {STOPPED:?}, one at 5 %: trust {least:.2} at the least, back after {:.0?}",
        mended.elapsed()
    ));
}
