//! Rules one by one, with honest nodes.

use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::log::{AppendError, Change, Config, Damaged, Input, Start, StoredLog};
use omnimesh_protocol::{Seq, Step};

use crate::disk::{chain, disk_of, seal, start};
use crate::network::{World, identity};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn an_append_is_answered_when_it_is_on_disk_and_comes_everywhere() {
    let mut world = World::new(1, 3, Config::default());
    world.start_all();
    world.run(ms(200));
    world.append(0, b"hello");
    world.run(ms(4));
    assert!(world.nodes[0].acked.is_empty(), "it is not on disk yet");
    assert!(world.nodes[0].disk.authors().is_empty());
    world.run(ms(2));
    assert_eq!(world.nodes[0].acked[0].appended.seq, Seq(1));
    world.run(ms(50));
    let id = world.id(0);
    for node in &world.nodes {
        assert_eq!(node.disk.records(&id).count(), 1);
    }
    assert_eq!(world.state(1).stats().applied_gossip, 1);
    world.check("one append");
}

#[test]
fn under_load_one_write_and_one_signature_serve_many() {
    let mut world = World::new(1, 1, Config::default());
    world.start_all();
    for n in 0..1000 {
        world.append(0, format!("{n}").as_bytes());
    }
    world.run(secs(1));
    assert_eq!(world.nodes[0].acked.len(), 1000);
    assert!(world.state(0).stats().writes <= 3, "{:?}", world.state(0).stats());
    let id = world.id(0);
    assert!(world.nodes[0].disk.records(&id).count() <= 18, "bundles of 64");
    world.check("many appends");
}

#[test]
fn what_gossip_lost_is_fetched() {
    let mut world = World::new(1, 2, Config::default());
    world.gossip_loss = 1.0;
    world.start_all();
    for n in 0..100 {
        world.append(0, format!("{n}").as_bytes());
        world.run(ms(20));
    }
    world.settle(secs(10), "gossip lost all");
    let report = world.nodes[1].reports.last().unwrap();
    assert!(report.entries > 0 && report.sources.contains_key(&world.id(0)), "{report:?}");
    world.check("gossip lost all");
}

#[test]
fn a_replicated_append_waits_for_others_disks() {
    let mut world = World::new(1, 3, Config::default());
    world.start_all();
    world.run(ms(200));
    world.append_replicated(0, b"two", 2);
    world.run(ms(12));
    assert!(world.nodes[0].acked.is_empty());
    world.run(ms(100));
    assert_eq!(world.nodes[0].acked[0].appended.replicas, 2);
    world.append_replicated(0, b"three", 3);
    world.run(secs(9));
    assert_eq!(world.nodes[0].acked.len(), 1, "there are no three others");
    world.run(secs(2));
    assert_eq!(world.nodes[0].acked[1].appended.replicas, 2);
}

#[test]
fn appends_that_cannot_be_are_refused() {
    let mut world = World::new(1, 1, Config { pending_max: 2, ..Config::default() });
    world.start_all();
    world.give(0, Input::Step(None));
    world.append(0, b"x");
    assert_eq!(world.nodes[0].refused.pop(), Some(AppendError::NotSynchronised));
    world.give(0, Input::Step(Some(Step(1000))));
    world.append(0, &[0; 65_536]);
    assert!(matches!(world.nodes[0].refused.pop(), Some(AppendError::TooLarge { bytes: 65_536, .. })));
    for _ in 0..5 {
        world.append(0, b"x");
    }
    assert_eq!(world.nodes[0].refused, [AppendError::Busy, AppendError::Busy], "one is written, two wait");
    world.run(secs(1));
    assert_eq!(world.nodes[0].acked.len(), 3);
}

#[test]
fn a_full_disk_is_an_error_and_nothing_else() {
    let mut world = World::new(1, 2, Config::default());
    world.start_all();
    world.append(0, b"good");
    world.append(1, b"good too");
    world.run(secs(1));
    world.nodes[0].disk_is_full = true;
    world.append(0, b"bad");
    world.append(1, b"from the other");
    world.run(secs(1));
    assert!(matches!(world.nodes[0].refused[..], [AppendError::Store(_)]));
    assert!(world.state(0).stats().writes_failed >= 1);
    world.nodes[0].disk_is_full = false;
    world.append(0, b"good again");
    world.settle(secs(10), "the disk has room again");
    assert_eq!(world.nodes[0].acked.last().unwrap().appended.seq, Seq(2));
    world.check("the disk has room again");
}

#[test]
fn equal_logs_cost_next_to_nothing() {
    let records: Vec<_> =
        (0..200).flat_map(|n| chain(&identity(n + 10), Step(900), None, &[3, 1], "x")).collect();
    let mut world = World::new(1, 0, Config::default());
    for n in 0..2 {
        world.add(identity(n), disk_of(&records));
    }
    world.start_all();
    world.run(secs(60));
    let rounds = world.state(0).stats().rounds + world.state(1).stats().rounds;
    let equal = world.state(0).stats().rounds_equal + world.state(1).stats().rounds_equal;
    assert!(rounds >= 50 && rounds == equal, "{rounds} rounds, {equal} equal");
    let bytes: usize = world.bytes.values().sum();
    assert!(bytes < 100 * usize::try_from(rounds).unwrap(), "{bytes} bytes in {rounds} rounds");
}

/// Entries of 200 bytes in records of `entries`.
fn long_log(author: usize, records: usize, entries: usize) -> Vec<omnimesh_protocol::log::Record> {
    let identity = identity(author);
    let mut log: Vec<omnimesh_protocol::log::Record> = Vec::new();
    for _ in 0..records {
        let (first, prev) = log.last().map_or((1, None), |last| (last.last().0 + 1, Some(last.digest())));
        let payloads = vec![Bytes::from(vec![7; 200]); entries];
        log.push(seal(&identity, Step(900), first, prev, &payloads));
    }
    log
}

#[test]
fn a_node_that_was_away_catches_up_from_several_peers() {
    for (authors, records, entries) in [(1, 3000, 1), (1, 400, 20), (30, 60, 2)] {
        let what = format!("{authors} authors, {records} records of {entries}");
        let missing: Vec<_> = (0..authors).flat_map(|n| long_log(20 + n, records, entries)).collect();
        let disk = disk_of(&missing);
        let bytes = disk.bytes();
        let mut world = World::new(1, 1, Config { fetch_bytes: 64 << 10, ..Config::default() });
        for n in 1..5 {
            world.add(identity(n), disk.clone());
        }
        world.start_all();
        let took = world.settle(secs(30), &what);
        world.check(&what);
        let received: usize = (1..5).map(|n| world.bytes.get(&(n, 0)).copied().unwrap_or(0)).sum();
        let sent: usize = (1..5).map(|n| world.bytes.get(&(0, n)).copied().unwrap_or(0)).sum();
        let share = (received + sent) as f64 / bytes as f64;
        println!(
            "{what}: {bytes} bytes missing, x {share:.3}, {took:?}, memory {} KiB",
            world.memory_max >> 10
        );
        assert!(share < 1.15, "{what}: {received} + {sent} bytes for {bytes}");
        let report = world.nodes[0].reports.pop().expect("a report");
        assert!(world.nodes[0].reports.is_empty());
        let entries: u64 = (authors * records * entries) as u64;
        assert_eq!(report.entries, entries, "{what}");
        assert_eq!(report.sources.values().map(|source| source.entries).sum::<u64>(), entries);
        assert_eq!(report.authors.values().map(|missed| missed.recovered).sum::<u64>(), entries);
        assert!(report.sources.len() > 1, "several peers: {report:?}");
        assert!(report.authors.values().all(|missed| missed.nobody_has == 0));
        assert!(world.memory_max <= world.config.fetch_window_bytes + world.config.write_bytes_max);
    }
}

#[test]
fn memory_stays_bounded_while_catching_up() {
    let config = Config {
        fetch_window_bytes: 128 << 10,
        write_bytes_max: 64 << 10,
        fetch_bytes: 32 << 10,
        ..Config::default()
    };
    let mut world = World::new(1, 1, config);
    let disk = disk_of(&long_log(20, 3000, 1));
    for n in 1..4 {
        world.add(identity(n), disk.clone());
    }
    world.start_all();
    world.settle(secs(60), "a small window");
    world.check("a small window");
    assert!(world.memory_max < 3 * (128 << 10), "{}", world.memory_max);
}

#[test]
fn a_restored_node_finds_the_end_of_its_own_log_first() {
    let mut world = World::new(1, 3, Config::default());
    world.start_all();
    for n in 0..10 {
        world.append(0, format!("{n}").as_bytes());
        world.run(ms(50));
    }
    let old = world.nodes[0].disk.clone();
    for n in 10..20 {
        world.append(0, format!("{n}").as_bytes());
        world.run(ms(50));
    }
    world.settle(secs(5), "before the restore");
    world.crash(0);
    world.nodes[0].disk = old;
    world.start(0, true);
    world.append(0, b"after");
    world.run(ms(300));
    assert_eq!(world.nodes[0].acked.len(), 20, "nothing is signed before the end of the own log is known");
    world.connect_all();
    world.settle(secs(10), "after the restore");
    assert_eq!(world.nodes[0].acked.last().unwrap().appended.seq, Seq(21));
    assert_eq!(world.nodes[0].own_head.unwrap().1, 10, "ten came from peers");
    world.check("after the restore");
    assert!(world.nodes.iter().all(|node| node.frozen.is_empty()));
}

#[test]
fn the_wait_for_the_own_log_begins_with_the_first_step() {
    let mut world = World::new(1, 2, Config::default());
    let log = long_log(0, 20, 1);
    world.nodes[1].disk = disk_of(&log);
    world.nodes[0].has_step = false;
    world.start(0, true);
    world.start(1, true);
    world.connect_all();
    world.run(secs(20));
    assert!(!world.state(0).is_own_log_known(), "without a step it can take nothing");
    world.nodes[0].has_step = true;
    world.run(secs(2));
    assert_eq!(world.nodes[0].own_head.unwrap().1, 20);
    world.append(0, b"next");
    world.run(secs(1));
    assert_eq!(world.nodes[0].acked[0].appended.seq, Seq(21));
}

#[test]
fn a_node_that_sees_that_it_has_lost_entries_does_not_write_over_them() {
    let mut world = World::new(1, 2, Config::default());
    let log = long_log(0, 5, 1);
    world.start_all();
    world.gossip_to(1, 0, &log[4]);
    world.run(secs(1));
    world.append(0, b"x");
    world.run(secs(1));
    assert_eq!(world.nodes[0].refused, [AppendError::Behind]);
    for record in &log {
        world.gossip_to(1, 0, record);
    }
    world.run(secs(1));
    world.append(0, b"x");
    world.run(secs(1));
    assert_eq!(world.nodes[0].acked[0].appended.seq, Seq(6));
}

#[test]
fn a_node_alone_goes_on_after_the_wait() {
    let mut world = World::new(1, 1, Config::default());
    world.start(0, true);
    world.append(0, b"x");
    world.run(ms(4900));
    assert!(world.nodes[0].acked.is_empty() && !world.state(0).is_own_log_known());
    world.run(ms(300));
    assert_eq!(world.nodes[0].acked.len(), 1);
}

#[test]
fn a_damaged_log_is_fetched_again() {
    let mut world = World::new(1, 3, Config::default());
    let records = long_log(20, 100, 2);
    for node in &mut world.nodes {
        node.disk = disk_of(&records);
    }
    world.start_all();
    world.run(secs(1));
    let author = identity(20).id();
    let stored = world.nodes[1].disk.cut(&Damaged { author, first: Seq(101) });
    world.nodes[1].damage(author);
    world.give(1, Input::Damaged(stored));
    world.settle(secs(10), "damaged");
    world.check("damaged");
}

/// The store knows how far the own log had come, and has no more of it than its beginning.
#[test]
fn a_node_signs_no_number_again_that_was_damaged_on_its_disk() {
    let mut world = World::new(1, 2, Config::default());
    let log = long_log(0, 6, 1);
    world.nodes[0].disk = disk_of(&log[..2]);
    let begin = start(&mut world.nodes[0].disk, true);
    world.start_from(0, Start { reached: Seq(5), ..begin });
    world.start(1, false);
    world.connect_all();
    world.run(secs(20));
    assert!(world.state(0).is_own_log_known(), "nobody has more");
    world.append(0, b"x");
    world.run(secs(1));
    assert_eq!(world.nodes[0].refused, [AppendError::Lost { from: Seq(3), to: Seq(5) }]);
    for record in &log[2..5] {
        world.gossip_to(1, 0, record);
    }
    world.run(secs(1));
    world.append(0, b"x");
    world.run(secs(1));
    assert_eq!(world.nodes[0].acked[0].appended.seq, Seq(6), "what was lost is there again");
}

#[test]
fn what_the_store_holds_behind_a_gap_counts_once_the_gap_is_filled() {
    let mut world = World::new(1, 1, Config::default());
    let log = long_log(0, 6, 1);
    world.nodes[0].disk = disk_of(&log[..3]);
    let begin = start(&mut world.nodes[0].disk, true);
    world.start_from(0, Start { reached: Seq(6), ..begin });
    world.give(0, Input::Kept(log[4..].to_vec()));
    world.run(secs(1));
    assert_eq!(world.state(0).head(&identity(0).id()).unwrap().head.seq, Seq(3), "there is a gap");
    world.give(0, Input::Kept(log[3..].to_vec()));
    world.append(0, b"x");
    world.run(secs(10));
    assert_eq!(world.nodes[0].acked[0].appended.seq, Seq(7));
    world.check("kept");
}

#[test]
fn a_line_of_nodes_passes_everything_on() {
    let nodes = 6;
    let mut world = World::new(1, nodes, Config::default());
    world.gossip_loss = 1.0;
    for node in 0..nodes {
        world.start(node, false);
    }
    for node in 1..nodes {
        world.connect(node - 1, node);
    }
    for n in 0..30 {
        world.append(n % nodes, format!("{n}").as_bytes());
        world.run(ms(100));
    }
    // One end learns of a fork; the other end has it from neighbours of neighbours.
    let forked = [
        seal(&identity(30), Step(1000), 1, None, &["a".into()]),
        seal(&identity(30), Step(1000), 1, None, &["b".into()]),
    ];
    forked.iter().for_each(|record| world.gossip_to(0, 0, record));
    world.run(secs(1));
    world.settle(secs(60), "a line");
    world.check("a line");
    assert!(world.nodes.iter().all(|node| node.frozen.len() == 1));
}

#[test]
fn a_log_can_begin_behind_a_snapshot() {
    let log = long_log(20, 200, 1);
    let author = identity(20).id();
    let mut world = World::new(1, 3, Config::default());
    world.nodes[1].disk = disk_of(&log);
    let head = log[99].head();
    let behind = StoredLog { author, base: Seq(101), head, step: log[99].step(), proof: None };
    world.nodes[0].disk.write(&[Change::Jump(behind)]).unwrap();
    for node in 0..3 {
        world.start(node, false);
    }
    assert_eq!(world.state(0).head(&author).unwrap().head, head);
    world.connect(0, 1);
    world.run(secs(5));
    assert_eq!(world.state(0).fingerprint(), world.state(1).fingerprint());
    assert_eq!(
        world.nodes[0].disk.records(&author).count(),
        100,
        "only what comes after the snapshot is fetched"
    );
    // Who needs what it does not have is told so, and blames nobody.
    world.connect(0, 2);
    world.run(secs(5));
    assert!(world.state(2).head(&author).is_none() && world.nodes[2].misdeeds.is_empty());
    world.connect(1, 2);
    world.run(secs(5));
    assert_eq!(world.state(2).fingerprint(), world.state(1).fingerprint());
}
