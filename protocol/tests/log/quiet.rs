//! What it costs when nothing is missing.

use std::time::Duration;

use omnimesh_protocol::log::{Config, Head, Start, StoredLog};
use omnimesh_protocol::{Hash, NodeId, Seq, Step};

use crate::disk::Disk;
use crate::network::{World, identity};

const AUTHORS: u64 = 1_000;
const ENTRIES: u64 = 1_000;
/// Bytes of one round, both ways.
const ROUND_BYTES_MAX: usize = 1 << 10;
const QUIET: Duration = Duration::from_secs(1_000);

/// Two nodes that have a million entries of a thousand authors, as they find them at their start.
fn two_that_have_all() -> World {
    let logs: Vec<StoredLog> = (0..AUTHORS)
        .map(|number| {
            let digest = Hash::of(&number.to_le_bytes());
            let author = NodeId::from_bytes(*digest.as_bytes());
            let head = Head { seq: Seq(ENTRIES), digest };
            StoredLog { author, base: Seq(1), head, step: Step(900), proof: None }
        })
        .collect();
    let mut world = World::new(1, 0, Config::default());
    for node in 0..2 {
        world.add(identity(node), Disk::default());
        world.start_from(node, Start { logs: logs.clone(), may_have_written: false, ..Start::default() });
    }
    world.connect_all();
    world
}

fn bytes_and_rounds(world: &World) -> (usize, u64, u64) {
    let stats = [0, 1].map(|node| world.state(node).stats());
    let sum = |of: fn(&omnimesh_protocol::log::Stats) -> u64| stats.iter().map(of).sum();
    (world.bytes.values().sum(), sum(|stats| stats.rounds), sum(|stats| stats.rounds_equal))
}

#[test]
fn a_round_with_nothing_missing_is_cheap() {
    let mut world = two_that_have_all();
    for node in 0..2 {
        let stats = world.state(node).stats();
        assert_eq!((stats.authors as u64, stats.entries), (AUTHORS, AUTHORS * ENTRIES));
    }
    // The first round, when they have just connected, is no dearer.
    world.run(Duration::from_millis(100));
    let (first_bytes, rounds, equal) = bytes_and_rounds(&world);
    assert_eq!((rounds, equal), (1, 1));
    assert!(first_bytes < ROUND_BYTES_MAX, "{first_bytes} bytes");
    // Nor do invariants that a test looks at count as costs.
    world.is_checked = false;
    world.spent = Duration::ZERO;
    world.run(QUIET);
    let (bytes, rounds, equal) = bytes_and_rounds(&world);
    let (bytes, rounds, equal) = (bytes - first_bytes, rounds - 1, equal - 1);
    assert!(rounds > 500 && rounds == equal, "{rounds} rounds, {equal} of them equal");
    let per_round = bytes / usize::try_from(rounds).unwrap();
    assert!(per_round < ROUND_BYTES_MAX, "{per_round} bytes");
    println!(
        "{AUTHORS} authors, {} entries: {per_round} bytes and {:?} of both nodes' CPU a round (the first {first_bytes} bytes)",
        AUTHORS * ENTRIES,
        world.spent / u32::try_from(rounds).unwrap(),
    );
}
