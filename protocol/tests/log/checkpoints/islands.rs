//! Checkpoints where nodes do not have the same: islands that sealed their own, old copies, forks below the cut.

use omnimesh_protocol::log::{Change, Config, Proof, Record};
use omnimesh_protocol::{Seq, Step};

use super::{dropping, ms, secs, work, world};
use crate::disk::{Disk, chain, disk_of, dropped, seal};
use crate::network::{World, identity};

#[test]
fn entries_of_an_island_that_come_after_the_checkpoint_are_kept() {
    let mut world = world(3, 4, dropping());
    world.start_all();
    work(&mut world, &[0, 1, 2, 3], 5);
    world.part(&[3]);
    // The island writes in steps that the others' checkpoints cover.
    work(&mut world, &[0, 1, 2, 3], 38);
    assert!(world.nodes[0].sealed.len() >= 3, "those who are many go on");
    let before = world.nodes[3].sealed.len();
    assert!(dropped(&world.nodes[0].disk) > 100);
    world.connect_all();
    world.run(secs(2));
    world.settle(secs(30), "healed");
    world.check("healed");
    assert!(before <= 1, "one alone seals nothing: {:?}", world.nodes[3].sealed);
    let head = world.state(0).head(&world.id(3)).unwrap().head.seq;
    assert!(head >= Seq(80), "{head:?}");
    work(&mut world, &[0, 1, 2, 3], 20);
    world.settle(secs(30), "after");
    world.check("after");
    assert_eq!(world.nodes[3].sealed.last(), world.nodes[0].sealed.last(), "the next one is sealed by all");
}

#[test]
fn two_islands_that_dropped_entries_come_together() {
    let mut world = world(4, 6, dropping());
    world.start_all();
    work(&mut world, &[0, 1, 2, 3, 4, 5], 5);
    world.part(&[0, 1, 2]);
    // Each island has a majority of those that it knows to be alive.
    work(&mut world, &[0, 1, 2, 3, 4, 5], 40);
    assert!(dropped(&world.nodes[0].disk) > 100 && dropped(&world.nodes[3].disk) > 100);
    assert_ne!(world.nodes[0].sealed.last(), world.nodes[3].sealed.last());
    world.connect_all();
    world.run(secs(2));
    world.settle(secs(60), "healed");
    world.check("healed");
    assert!(world.nodes.iter().all(|node| node.jumps > 0), "each takes the other's checkpoint");
    work(&mut world, &[0, 1, 2, 3, 4, 5], 25);
    world.settle(secs(30), "after");
    world.check("after");
    assert_eq!(world.nodes[0].sealed.last(), world.nodes[5].sealed.last());
}

#[test]
fn few_who_took_the_checkpoint_of_many_still_give_what_they_dropped() {
    let mut world = world(15, 7, dropping());
    let all = [0, 1, 2, 3, 4, 5, 6];
    world.start_all();
    work(&mut world, &all, 5);
    world.part(&[5, 6]);
    work(&mut world, &all, 40);
    assert!(dropped(&world.nodes[5].disk) > 50 && dropped(&world.nodes[0].disk) > 100);
    // The many only serve, until the few have taken their checkpoint and offer it.
    let many = |world: &mut World, has_step| {
        world.nodes[..5].iter_mut().for_each(|node| node.has_step = has_step);
        world.run(secs(2));
    };
    many(&mut world, false);
    world.connect_all();
    world.run(secs(8));
    assert!(world.nodes[5].jumps > 0 && world.nodes[6].jumps > 0 && world.nodes[0].jumps == 0);
    many(&mut world, true);
    world.settle(secs(120), "few and many");
    world.check("few and many");
    let head = world.state(0).head(&world.id(5)).unwrap().head;
    assert!(head.seq >= Seq(80), "{head:?}");
}

#[test]
fn an_old_copy_of_the_own_log_goes_on_behind_the_checkpoint() {
    let mut world = world(5, 3, dropping());
    world.start_all();
    work(&mut world, &[0, 1, 2], 5);
    let old = world.nodes[2].disk.clone();
    work(&mut world, &[0, 1, 2], 35);
    world.settle(secs(20), "work");
    world.crash(2);
    world.nodes[2].disk = old;
    // With a slow disk it takes longer than peers are waited for.
    world.sync = ms(700);
    world.start(2, true);
    world.append(2, b"at once");
    world.connect_all();
    world.run(secs(10));
    world.settle(secs(20), "restored");
    world.check("restored");
    assert!(world.nodes[2].jumps > 0 && world.nodes.iter().all(|node| node.frozen.is_empty()));
    work(&mut world, &[0, 1, 2], 2);
    world.settle(secs(20), "goes on");
    world.check("goes on");
}

#[test]
fn a_fork_below_a_checkpoint_freezes_the_log_behind_the_cut() {
    let mut world = world(9, 4, dropping());
    let author = identity(30);
    let log: Vec<Record> = chain(&author, Step(1000), None, &[1; 10], "one");
    let other = seal(&author, Step(1000), 5, Some(log[3].digest()), &["other".into()]);
    // One of them keeps everything, and can prove it; the others have dropped what is below the cut.
    world.config.keep_steps = 0;
    world.nodes[0].disk = disk_of(&log);
    world.start(0, false);
    world.config.keep_steps = 1;
    for node in 1..4 {
        world.nodes[node].disk = disk_of(&log);
        world.start(node, false);
    }
    world.connect_all();
    work(&mut world, &[0, 1, 2, 3], 25);
    world.settle(secs(20), "sealed");
    assert_eq!(world.nodes[1].disk.floor(&author.id()).head, log[9].head());
    assert!(world.nodes[0].disk.floors().is_empty());
    // What the author writes behind the cut is gone with the fork.
    for record in chain(&author, Step(1020), log.last(), &[1; 3], "more") {
        (0..4).for_each(|node| world.gossip_to(node, node, &record));
        world.run(ms(100));
    }
    world.settle(secs(10), "more");
    assert_eq!(world.state(2).head(&author.id()).unwrap().head.seq, Seq(13));
    world.gossip_to(0, 0, &other);
    world.run(secs(2));
    world.settle(secs(30), "frozen");
    world.check("frozen");
    for node in 0..4 {
        assert_eq!(world.state(node).head(&author.id()).unwrap().head, log[9].head(), "node {node}");
        assert!(world.state(node).proof(&author.id()).is_some());
    }
    // It stays so over a restart, and for a newcomer.
    world.crash(0);
    world.start(0, true);
    world.add(identity(9), Disk::default());
    world.start(4, false);
    world.connect_all();
    world.run(secs(5));
    world.settle(secs(60), "newcomer");
    world.check("newcomer");
    assert_eq!(world.state(4).head(&author.id()).unwrap().head, log[9].head());
}

#[test]
fn a_frozen_node_that_had_no_checkpoint_takes_it() {
    // One node froze a log at a fork that a checkpoint of the others covers. Nothing is dropped, so that it lacks nothing else.
    let mut world = world(10, 4, Config { keep_steps: 0, ..dropping() });
    let author = identity(30);
    let log: Vec<Record> = chain(&author, Step(1000), None, &[1; 10], "one");
    let other = seal(&author, Step(1000), 5, Some(log[3].digest()), &["other".into()]);
    let proof = Proof::new(&log[4], &other).unwrap();
    for node in 0..4 {
        world.nodes[node].disk = disk_of(&log);
    }
    let freeze = Change::Freeze { proof, head: log[3].head() };
    world.nodes[3].disk.write(&[freeze]).unwrap();
    for node in 0..4 {
        world.start(node, true);
    }
    world.connect_among(&[0, 1, 2]);
    work(&mut world, &[0, 1, 2], 25);
    assert!(world.state(0).checkpoint().is_some());
    world.connect_all();
    world.run(secs(5));
    world.settle(secs(60), "met");
    world.check("met");
    for node in 0..4 {
        assert_eq!(world.state(node).head(&author.id()).unwrap().head, log[9].head(), "node {node}");
    }
}
