//! Equivocation: whatever is told to whom, all end with one proof and one frozen log.

use std::time::Duration;

use omnimesh_protocol::log::{AppendError, Config, Damaged, Input, Record};
use omnimesh_protocol::{Seq, Step};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::disk::{Disk, chain, disk_of};
use crate::network::{World, identity};
use crate::{replay, scale, seeds};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// All have the same proof with this fork, and it holds without the secret.
fn check_frozen(world: &World, author: usize, fork: u64, what: &str) {
    world.check(what);
    let id = identity(author).id();
    for node in 0..world.nodes.len() {
        let proof =
            world.state(node).proof(&id).unwrap_or_else(|| panic!("node {node} has no proof: {what}"));
        assert_eq!(proof.fork(), Seq(fork), "{what}");
        proof.verify().unwrap();
        assert!(world.state(node).head(&id).is_none_or(|head| head.head.seq < Seq(fork)));
    }
}

#[test]
fn two_records_for_one_place_freeze_the_log_everywhere() {
    let author = identity(50);
    let trunk = chain(&author, Step(1000), None, &[1, 2, 1], "a");
    let other = chain(&author, Step(1000), Some(&trunk[1]), &[1], "b");
    let mut world = World::new(1, 4, Config::default());
    world.start_all();
    for (index, record) in trunk.iter().enumerate() {
        world.gossip(index % 4, record);
        world.run(secs(1));
    }
    world.gossip_to(1, 3, &other[0]);
    world.run(secs(1));
    world.settle(secs(5), "a second record");
    check_frozen(&world, 50, 4, "a second record");
}

#[test]
fn a_log_that_is_found_damaged_while_it_is_frozen_is_frozen_all_the_same() {
    let author = identity(50);
    let trunk = chain(&author, Step(1000), None, &[1; 10], "a");
    let other = chain(&author, Step(1000), Some(&trunk[4]), &[1], "b");
    let mut world = World::new(1, 0, Config::default());
    for n in 0..3 {
        world.add(identity(n), disk_of(&trunk));
    }
    world.start_all();
    world.run(secs(1));
    world.sync = secs(1);
    world.gossip_to(1, 0, &other[0]);
    world.run(Duration::from_millis(300));
    let id = author.id();
    assert!(world.state(0).proof(&id).is_some() && world.nodes[0].frozen.is_empty(), "it is being written");
    let stored = world.nodes[0].disk.cut(&Damaged { author: id, first: Seq(3) });
    world.nodes[0].damage(id);
    world.give(0, Input::Damaged(stored));
    world.run(secs(5));
    assert_eq!(world.nodes[0].frozen.len(), 1, "projections are told");
    world.settle(secs(20), "damaged and frozen");
    check_frozen(&world, 50, 6, "damaged and frozen");
}

/// Each half has one branch and knows of no other.
fn halves(at: usize, lengths: [usize; 2]) -> World {
    let author = identity(50);
    let trunk = chain(&author, Step(900), None, &vec![2; at], "trunk");
    let branch = |length: usize, text: &str| -> Disk {
        let branch = chain(&author, Step(900), trunk.last(), &vec![1; length], text);
        disk_of(&[trunk.clone(), branch].concat())
    };
    let [a, b] = [branch(lengths[0], "a"), branch(lengths[1], "b")];
    let mut world = World::new(1, 0, Config::default());
    for n in 0..4 {
        world.add(identity(n), if n % 2 == 0 { a.clone() } else { b.clone() });
    }
    world
}

#[test]
fn branches_that_never_met_are_found_by_halving() {
    for (at, lengths) in [(0, [1, 1]), (3, [5, 5]), (100, [40, 300]), (200, [1, 1000]), (1, [300, 2])] {
        let what = format!("fork after {at}, branches of {lengths:?}");
        let mut world = halves(at, lengths);
        world.start_all();
        world.run(secs(1));
        world.settle(secs(30), &what);
        check_frozen(&world, 50, 2 * at as u64 + 1, &what);
        let searches: u64 = (0..4).map(|node| world.state(node).stats().fork_searches).sum();
        assert!(searches > 0, "{what}");
    }
}

#[test]
fn a_frozen_log_stays_frozen_after_a_restart_and_comes_frozen_to_new_nodes() {
    let mut world = halves(10, [5, 9]);
    world.start_all();
    world.settle(secs(30), "frozen");
    world.crash(2);
    world.start(2, true);
    let newcomer = world.add(identity(9), Disk::default());
    world.start(newcomer, false);
    world.connect_all();
    world.run(secs(1));
    world.settle(secs(30), "after a restart");
    check_frozen(&world, 50, 21, "after a restart");
}

/// What comes before a fork is fetched although its author is in quarantine: nodes that were there before have it.
#[test]
fn a_frozen_log_comes_to_those_too_who_shut_its_author_out() {
    let author = identity(50);
    let trunk = chain(&author, Step(1000), None, &[1; 10], "a");
    let other = chain(&author, Step(1000), Some(&trunk[6]), &[1], "b");
    let mut world = World::new(1, 0, Config::default());
    for n in 0..3 {
        world.add(identity(n), disk_of(&trunk));
    }
    world.start_all();
    world.gossip_to(1, 0, &other[0]);
    world.settle(secs(20), "frozen");
    let late = world.add(identity(3), Disk::default());
    world.start(late, false);
    (0..=late).for_each(|node| world.give(node, Input::Quarantine(author.id())));
    (0..late).for_each(|node| world.connect(late, node));
    world.settle(secs(20), "and the newcomer");
    check_frozen(&world, 50, 8, "and the newcomer");
    assert_eq!(world.state(late).head(&author.id()).map(|head| head.head.seq), Some(Seq(7)));
}

#[test]
fn a_node_whose_key_was_copied_stops_appending() {
    let mut world = World::new(1, 3, Config::default());
    let copy = world.add(identity(0), Disk::default());
    for node in 0..4 {
        world.start(node, false);
    }
    world.connect_among(&[0, 1]);
    world.connect_among(&[2, copy]);
    world.append(0, b"here");
    world.append(copy, b"there");
    world.run(secs(1));
    world.connect_among(&[0, 1, 2]);
    world.connect_among(&[1, 2, copy]);
    world.run(secs(1));
    world.settle(secs(20), "a copied key");
    check_frozen(&world, 0, 1, "a copied key");
    world.append(0, b"more");
    assert_eq!(world.nodes[0].refused.last(), Some(&AppendError::Frozen(Seq(1))));
}

/// Several branches of one author, told record by record to whomever, while nodes part and crash.
#[test]
fn any_telling_ends_alike() {
    for seed in seeds(40 * scale()) {
        let what = replay("any_telling", seed);
        let mut world = World::new(seed, 4, Config::default());
        world.start_all();
        let author = identity(50);
        let lengths = |world: &mut World| -> Vec<usize> {
            (0..world.rng.random_range(1..8)).map(|_| world.rng.random_range(1..4)).collect()
        };
        let trunk_lengths = lengths(&mut world);
        let mut records = chain(&author, Step(1000), None, &trunk_lengths, "trunk");
        for branch in 0..world.rng.random_range(1..4) {
            let from = world.rng.random_range(0..=records.len());
            let before: Option<Record> = from.checked_sub(1).map(|index| records[index].clone());
            let lengths = lengths(&mut world);
            records.extend(chain(&author, Step(1000), before.as_ref(), &lengths, &format!("{branch}")));
        }
        records.shuffle(&mut world.rng);
        for record in &records {
            let to = world.rng.random_range(0..4);
            world.gossip_to((to + 1) % 4, to, record);
            match world.rng.random_range(0..12) {
                0 => world.part(&[to]),
                1 => world.connect_all(),
                2 => {
                    world.crash(to);
                    world.start(to, true);
                }
                _ => {}
            }
            let pause = world.rng.random_range(0..400);
            world.run(Duration::from_millis(pause));
        }
        world.connect_all();
        // What nobody has on disk may wait for ever; what somebody has is everywhere.
        world.run(secs(8));
        world.settle(secs(60), &what);
        world.check(&what);
    }
}
