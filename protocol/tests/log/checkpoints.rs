//! Checkpoints: sealed alike, entries dropped, newcomers that begin with one; with crashes, loss and full disks.

mod islands;
mod liars;

use std::time::Duration;

use omnimesh_protocol::log::checkpoint::Base;
use omnimesh_protocol::log::{Config, State};
use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::{Hash, Step};
use rand::RngExt;

use crate::disk::{Disk, dropped};
use crate::network::{World, identity, mesh};
use crate::{replay, scale, seeds};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A checkpoint every ten steps, and nothing older is kept.
fn dropping() -> Config {
    Config { checkpoint_steps: 10, checkpoint_delay_steps: 3, keep_steps: 1, ..Config::default() }
}

fn world(seed: u64, nodes: usize, config: Config) -> World {
    let mut world = World::new(seed, nodes, config);
    world.has_registry = true;
    world
}

/// Every node writes to its log and to the registry for so many seconds.
fn work(world: &mut World, nodes: &[usize], seconds: u64) {
    for _ in 0..seconds {
        for node in nodes {
            world.append(*node, format!("{node} at {}", world.now).as_bytes());
            let number = world.rng.random_range(0..20);
            world.put(*node, &format!("m{number}"), number);
        }
        world.run(secs(1));
    }
}

fn sealed_id(state: &State<usize>) -> Option<Hash> {
    state.checkpoint().map(|sealed| sealed.checkpoint.id())
}

#[test]
fn nodes_seal_the_same_checkpoints_and_keep_them_over_a_restart() {
    let mut world = world(1, 3, Config { keep_steps: 0, ..dropping() });
    world.start_all();
    work(&mut world, &[0, 1, 2], 45);
    world.settle(secs(20), "work");
    world.check("work");
    for node in 0..3 {
        let steps: Vec<u64> = world.nodes[node].sealed.iter().map(|sealed| sealed.step.0).collect();
        assert_eq!(steps, [1010, 1020, 1030, 1040], "a checkpoint every ten steps");
        assert_eq!(world.nodes[node].sealed, world.nodes[0].sealed);
        assert_eq!(dropped(&world.nodes[node].disk), 0, "nothing is dropped unless that is wanted");
        let sealed = world.state(node).checkpoint().unwrap();
        assert!(sealed.verify() && sealed.votes.len() >= 2);
        // It is what the entries before the step come to.
        let (_, parts) = world.nodes[node].disk.checkpoint().unwrap();
        let base = Base::open(sealed, parts, 10).unwrap();
        let mut anew = Base::default();
        for (_, records) in world.nodes[node].disk.logs() {
            let mut records = records.flatten();
            while records.next().is_some_and(|record| anew.take(record, sealed.checkpoint.step)) {}
        }
        assert_eq!(anew.checkpoint(mesh().id(), sealed.checkpoint.step).1, parts);
        assert_eq!(base.verify(mesh().id()), Ok(()));
        assert_eq!((&base.cut, base.registry.hash()), (&anew.cut, anew.registry.hash()));
    }
    let id = sealed_id(world.state(0));
    world.crash(0);
    world.start(0, true);
    assert_eq!(sealed_id(world.state(0)), id);
    world.connect_all();
    work(&mut world, &[0, 1, 2], 15);
    assert!(world.state(0).checkpoint().unwrap().checkpoint.step >= Step(1050), "and it goes on");
}

#[test]
fn a_newcomer_begins_with_a_checkpoint_and_the_rest() {
    let mut world = world(2, 4, dropping());
    for node in 0..3 {
        world.start(node, false);
    }
    world.connect_all();
    work(&mut world, &[0, 1, 2], 45);
    world.settle(secs(20), "work");
    let kept = world.nodes[0].disk.bytes();
    assert!(dropped(&world.nodes[0].disk) > 150, "{:?}", world.nodes[0].disk.floors());
    world.start(3, false);
    world.connect_all();
    world.run(secs(2));
    let took = world.settle(secs(20), "a newcomer");
    world.check("a newcomer");
    println!("took {took:?}, {kept} bytes kept, {:?}", world.nodes[3].reports);
    let stats = world.state(3).stats();
    assert_eq!((stats.checkpoints_adopted, world.nodes[3].jumps), (1, 1));
    assert_eq!(stats.entries_covered, dropped(&world.nodes[3].disk));
    let covered: u64 = world.nodes[3].reports.iter().map(|report| report.covered).sum();
    assert_eq!(covered, stats.entries_covered, "the report counts what the checkpoint stands for");
    let lost: u64 = world.nodes[3]
        .reports
        .iter()
        .flat_map(|report| report.authors.values())
        .map(|missed| missed.nobody_has)
        .sum();
    assert_eq!(lost, 0);
    assert!(world.nodes[3].misdeeds.is_empty(), "{:?}", world.nodes[3].misdeeds);
    // It makes the next one with the others.
    work(&mut world, &[0, 1, 2, 3], 20);
    world.settle(secs(20), "all four");
    world.check("all four");
    assert!(world.state(3).stats().checkpoints_sealed > 0);
    assert_eq!(world.nodes[3].sealed.last(), world.nodes[0].sealed.last());
    // Another one gives it to a third.
    world.add(identity(9), Disk::default());
    world.start(4, false);
    world.connect(3, 4);
    world.run(secs(5));
    world.settle(secs(20), "from the newcomer");
    world.check("from the newcomer");
}

#[test]
fn a_crash_at_any_moment_of_taking_a_checkpoint_does_no_harm() {
    let mut crashes = 0;
    for seed in seeds(20 * scale()) {
        let what = replay("a_crash_at_any_moment", seed);
        let mut world = world(seed, 4, dropping());
        for node in 0..3 {
            world.start(node, false);
        }
        world.connect_all();
        work(&mut world, &[0, 1, 2], 30);
        world.sync = ms(60);
        for _ in 0..6 {
            world.start(3, true);
            world.connect_all();
            let life = world.rng.random_range(0..1600);
            world.run(ms(life));
            if world.state(3).stats().checkpoints_adopted == 0 {
                crashes += 1;
            }
            world.crash(3);
        }
        world.start(3, true);
        world.connect_all();
        world.run(secs(5));
        world.settle(secs(60), &what);
        world.check(&what);
        assert!(dropped(&world.nodes[3].disk) > 0, "{what}");
    }
    assert!(crashes > 0);
}

/// One node crashes, starts, writes or has no room, or the links are others.
fn befall(world: &mut World, nodes: usize) {
    let node = world.rng.random_range(0..nodes);
    match world.rng.random_range(0..24) {
        0 => world.crash(node),
        1 => {
            let other = world.rng.random_range(0..nodes);
            world.part(&[node, other]);
        }
        2 | 3 => world.connect_all(),
        4 => world.nodes[node].disk_is_full = true,
        5 | 6 => world.nodes.iter_mut().for_each(|node| node.disk_is_full = false),
        7..10 if world.nodes[node].state.is_none() => {
            world.start(node, true);
            for other in 0..nodes {
                if world.rng.random_bool(0.7) {
                    world.connect(node, other);
                }
            }
        }
        _ if world.nodes[node].state.is_some() => {
            for n in 0..world.rng.random_range(1..10) {
                world.append(node, format!("{node} {n} {}", world.now).as_bytes());
                let number = world.rng.random_range(0..30);
                world.put(node, &format!("m{number}"), n);
            }
        }
        _ => {}
    }
}

/// Nodes write while they crash, part and lose frames, newcomers come; some keep everything.
fn run(seed: u64) -> (u64, u64, usize, u64) {
    let what = replay("checkpoints_and_faults", seed);
    let nodes = 7;
    let mut world = world(seed, nodes, Config { bundle_payloads_max: 8, fetch_bytes: 4 << 10, ..dropping() });
    world.gossip_loss = world.rng.random_range(0.0..0.4);
    world.frame_loss = world.rng.random_range(0.0..0.05);
    world.latency = ms(world.rng.random_range(1..80));
    world.sync = ms(world.rng.random_range(1..50));
    let keeper = world.rng.random_range(0..6);
    for node in 0..5 {
        world.config.keep_steps = if node == keeper { 0 } else { 1 };
        world.start(node, false);
    }
    world.config.keep_steps = 1;
    world.connect_all();
    for _ in 0..120 {
        befall(&mut world, nodes);
        let pause = world.rng.random_range(0..1200);
        world.run(ms(pause));
    }
    (world.gossip_loss, world.frame_loss) = (0.0, 0.0);
    for node in 0..nodes {
        world.nodes[node].disk_is_full = false;
        if world.nodes[node].state.is_none() {
            world.start(node, true);
        }
    }
    world.connect_all();
    world.run(secs(1));
    world.settle(secs(180), &what);
    world.check(&what);
    assert!(world.nodes.iter().all(|node| node.frozen.is_empty()), "honest nodes do not equivocate: {what}");
    // The next checkpoint is everybody's.
    let nodes: Vec<usize> = (0..nodes).collect();
    work(&mut world, &nodes, 24);
    world.settle(secs(60), &what);
    world.check(&what);
    let last = world.nodes[0].sealed.last().map(|sealed| sealed.step);
    for node in &world.nodes {
        assert_eq!(node.sealed.last().map(|sealed| sealed.step), last, "{what}");
    }
    let sum = |of: fn(&State<usize>) -> u64| nodes.iter().map(|node| of(world.state(*node))).sum::<u64>();
    let jumps = world.nodes.iter().map(|node| node.jumps).sum();
    let floors = world.nodes.iter().map(|node| dropped(&node.disk)).sum();
    (sum(|state| state.stats().checkpoints_sealed), sum(|state| state.stats().entries_covered), jumps, floors)
}

#[test]
fn checkpoints_and_faults_lose_nothing() {
    let (mut sealed, mut covered, mut jumps, mut dropped) = (0, 0, 0, 0);
    for seed in seeds(20 * scale()) {
        let effects = run(seed);
        sealed += effects.0;
        covered += effects.1;
        jumps += effects.2;
        dropped += effects.3;
    }
    println!("sealed {sealed}, covered {covered}, jumps {jumps}, dropped {dropped}");
    assert!(sealed > 0 && jumps > 0 && dropped > 0);
}

#[test]
fn a_full_disk_delays_a_checkpoint_and_loses_none() {
    let mut world = world(14, 3, dropping());
    world.start_all();
    work(&mut world, &[0, 1, 2], 11);
    world.nodes[0].disk_is_full = true;
    work(&mut world, &[1, 2], 5);
    assert!(world.nodes[0].sealed.is_empty() && !world.nodes[1].sealed.is_empty());
    world.nodes[0].disk_is_full = false;
    world.run(secs(3));
    assert_eq!(world.nodes[0].sealed, world.nodes[1].sealed);
    work(&mut world, &[0, 1, 2], 15);
    world.settle(secs(20), "there is room again");
    world.check("there is room again");
    assert_eq!(world.nodes[0].sealed, world.nodes[1].sealed);
}

#[test]
fn bytes_are_a_policy_too() {
    let config = Config { keep_steps: 0, keep_bytes: 30_000, ..dropping() };
    let mut world = world(11, 3, config);
    world.start_all();
    work(&mut world, &[0, 1, 2], 14);
    assert_eq!(dropped(&world.nodes[0].disk), 0, "there is room");
    assert!(world.nodes[0].disk.bytes() < 30_000, "{}", world.nodes[0].disk.bytes());
    work(&mut world, &[0, 1, 2], 20);
    assert!(dropped(&world.nodes[0].disk) > 0);
    assert!(world.nodes[0].disk.bytes() < 30_000, "{}", world.nodes[0].disk.bytes());
    world.settle(secs(20), "bytes");
    world.check("bytes");
}

#[test]
fn a_mesh_of_one_signs_alone_and_drops_nothing() {
    let mut world = world(12, 1, dropping());
    world.start_all();
    work(&mut world, &[0], 30);
    assert_eq!(world.nodes[0].sealed.len(), 2);
    assert_eq!(dropped(&world.nodes[0].disk), 0, "nobody else would take its word for it");
    let mut world = self::world(12, 1, Config { checkpoint_signers: 1, ..dropping() });
    world.start_all();
    work(&mut world, &[0], 30);
    assert!(dropped(&world.nodes[0].disk) > 0);
    // Those who agreed to take one signature take it.
    world.add(identity(9), Disk::default());
    world.start(1, false);
    world.connect_all();
    world.run(secs(5));
    world.settle(secs(20), "one");
    world.check("one");
}
