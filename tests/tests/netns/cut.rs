//! Hosts are cut off from each other and meet again. Nobody gives a command.

use std::thread;
use std::time::{Duration, Instant};

use omnimesh_tests::lab;

use crate::hosts::{Hosts, tell};
use crate::mesh::Mesh;

/// How long one host is cut off, and two islands.
const CUT: Duration = Duration::from_secs(30);
const ISLANDS: Duration = Duration::from_secs(20);
/// Those on both sides of a cut hold each other for dead after so long at most. Who is alone probes one member in a
/// second and doubts itself too, which doubles the 4 s of suspicion: 16 s, and room for a busy machine.
const DEAD_MAX: Duration = Duration::from_secs(25);
/// All are members again everywhere so soon after a cut has healed: one dial that is under way and lost may take 10 s,
/// the wait before the next 5 s, a knock 5 s.
const HEALED_MAX: Duration = Duration::from_secs(20);
/// Times of nodes that agree on a step are less apart than this: half a step.
const SKEW_MAX: Duration = Duration::from_millis(500);

/// The last of five is cut off and comes back.
fn one_host_is_cut_off(how: &str, cut: impl Fn(&Hosts), heal: impl Fn(&Hosts)) {
    let Some(hosts) = Hosts::new(5) else { return };
    let lab = lab!();
    let mesh = Mesh::start(&lab, &hosts);
    mesh.exchange("before");

    let began = Instant::now();
    cut(&hosts);
    let dead = mesh.wait_islands(&[&[0, 1, 2, 3], &[4]], DEAD_MAX);
    mesh.exchange_among(&[0, 1, 2, 3], "meanwhile");
    thread::sleep(CUT.saturating_sub(began.elapsed()));
    heal(&hosts);
    let healed = mesh.wait_whole(HEALED_MAX);
    mesh.exchange("after");
    // Who comes back says that all are dead; the others know better and stay connected.
    mesh.assert_connected(&[0, 1, 2, 3], began.elapsed());
    let skew = mesh.skew();
    assert!(skew < SKEW_MAX, "the steps are {skew:?} apart");
    tell(&format!(
        "{how}: held for dead after {dead:.1?}, a member again everywhere {healed:.1?} after the heal"
    ));
}

#[test]
fn a_host_whose_cable_is_out_for_30_s_comes_back() {
    one_host_is_cut_off("cable out", |hosts| hosts.plug(4, false), |hosts| hosts.plug(4, true));
}

#[test]
fn a_host_whose_packets_are_dropped_for_30_s_comes_back() {
    let drop_all = |hosts: &Hosts| hosts.part(&[&[0, 1, 2, 3], &[4]]);
    one_host_is_cut_off("packets dropped", drop_all, |hosts| {
        let lost = hosts.mend();
        assert!(lost.iter().all(|lost| *lost > 0), "the cut took no effect: {lost:?}");
    });
}

#[test]
fn two_islands_become_one_mesh_again() {
    let Some(hosts) = Hosts::new(5) else { return };
    let lab = lab!();
    let mesh = Mesh::start(&lab, &hosts);
    mesh.exchange("before");

    let islands: [&[usize]; 2] = [&[0, 1, 2], &[3, 4]];
    let began = Instant::now();
    hosts.part(&islands);
    let dead = mesh.wait_islands(&islands, DEAD_MAX);
    for island in islands {
        mesh.exchange_among(island, "meanwhile");
    }
    thread::sleep(ISLANDS.saturating_sub(began.elapsed()));
    let lost = hosts.mend();
    assert!(lost.iter().all(|lost| *lost > 0), "the cut took no effect: {lost:?}");
    let healed = mesh.wait_whole(HEALED_MAX);
    mesh.exchange("after");
    for island in islands {
        mesh.assert_connected(island, began.elapsed());
    }
    let skew = mesh.skew();
    assert!(skew < SKEW_MAX, "the steps are {skew:?} apart");
    tell(&format!("islands: held for dead after {dead:.1?}, whole {healed:.1?} after the heal"));
}
