//! Random faults, then a healed phase that has to end with equal logs and nothing lost.

use std::time::Duration;

use omnimesh_protocol::log::Config;
use rand::RngExt;

use crate::network::{World, patterns};
use crate::{replay, scale, seeds};

/// What took effect in one run.
#[derive(Debug, Default)]
struct Effects {
    crashes: usize,
    partitions: usize,
    full_disks: usize,
    acked: usize,
    fetched: u64,
}

/// Nodes append while they crash, part, and run out of disk; gossip and frames are lost.
fn run(seed: u64) -> Effects {
    let what = replay("faults", seed);
    let _ = patterns();
    let nodes = 5;
    let mut world = World::new(seed, nodes, Config { bundle_payloads_max: 8, ..Config::default() });
    world.gossip_loss = world.rng.random_range(0.0..0.5);
    world.frame_loss = world.rng.random_range(0.0..0.1);
    world.latency = Duration::from_millis(world.rng.random_range(1..100));
    world.sync = Duration::from_millis(world.rng.random_range(1..50));
    world.start_all();
    let mut effects = Effects::default();
    for _ in 0..150 {
        let node = world.rng.random_range(0..nodes);
        match world.rng.random_range(0..20) {
            0 | 1 => {
                effects.crashes += usize::from(world.nodes[node].state.is_some());
                world.crash(node);
            }
            2 => {
                effects.partitions += 1;
                let other = world.rng.random_range(0..nodes);
                world.part(&[node, other]);
            }
            3 => world.connect_all(),
            4 => {
                world.nodes[node].disk_is_full = true;
                effects.full_disks += 1;
            }
            5 => world.nodes.iter_mut().for_each(|node| node.disk_is_full = false),
            6..9 if world.nodes[node].state.is_none() => {
                world.start(node, true);
                // Those it meets are few, so that the others may know more of its log than it does.
                for other in 0..nodes {
                    if world.rng.random_bool(0.7) {
                        world.connect(node, other);
                    }
                }
            }
            _ => {
                for n in 0..world.rng.random_range(1..20) {
                    let data = format!("{node} {n} {}", world.now);
                    world.append(node, data.as_bytes());
                }
            }
        }
        let pause = world.rng.random_range(0..800);
        world.run(Duration::from_millis(pause));
    }
    // All is well again.
    (world.gossip_loss, world.frame_loss) = (0.0, 0.0);
    for node in 0..nodes {
        world.nodes[node].disk_is_full = false;
        if world.nodes[node].state.is_none() {
            world.start(node, true);
        }
    }
    world.connect_all();
    world.run(Duration::from_secs(1));
    world.settle(Duration::from_secs(120), &what);
    world.check(&what);
    assert!(world.nodes.iter().all(|node| node.frozen.is_empty()), "honest nodes do not equivocate: {what}");
    // And all can append.
    for node in 0..nodes {
        world.append(node, b"last");
    }
    world.run(Duration::from_secs(1));
    world.settle(Duration::from_secs(20), &what);
    world.check(&what);
    effects.acked = world.nodes.iter().map(|node| node.acked.len()).sum();
    effects.fetched = (0..nodes).map(|node| world.state(node).stats().fetches).sum();
    effects
}

#[test]
fn faults_lose_nothing_and_heal() {
    let mut all = Effects::default();
    for seed in seeds(30 * scale()) {
        let effects = run(seed);
        assert!(effects.acked > 0, "{}", replay("faults", seed));
        all.crashes += effects.crashes;
        all.partitions += effects.partitions;
        all.full_disks += effects.full_disks;
        all.acked += effects.acked;
        all.fetched += effects.fetched;
    }
    println!("{all:?}");
    assert!(all.crashes > 0 && all.partitions > 0 && all.full_disks > 0 && all.fetched > 0, "{all:?}");
}
