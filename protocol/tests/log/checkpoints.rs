//! Checkpoints: sealed alike, entries dropped, newcomers that begin with one, and liars.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::log::checkpoint::{Base, CHUNK_BYTES, Checkpoint, Sealed, Vote};
use omnimesh_protocol::log::wire::{Decline, Frame};
use omnimesh_protocol::log::{Change, Config, Misdeed, Record, State};
use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::{Hash, Seq, Step};
use rand::RngExt;

use crate::disk::{Disk, chain, disk_of, dropped, seal};
use crate::network::{Liar, World, identity, mesh};
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

/// What three nodes have on disk that have dropped what checkpoints cover.
struct Prepared {
    disks: Vec<Disk>,
    sealed: Sealed,
    parts: Vec<Bytes>,
}

fn prepare() -> Prepared {
    let mut world = world(7, 3, dropping());
    world.start_all();
    // A state of several chunks.
    for n in 0..2000 {
        world.put(n % 3, &format!("{}{n}", "long".repeat(20)), 1);
        if n % 50 == 0 {
            world.run(ms(200));
        }
    }
    world.run(secs(1));
    work(&mut world, &[0, 1, 2], 30);
    world.settle(secs(20), "work");
    let (held, parts) = world.nodes[0].disk.checkpoint().unwrap();
    let (sealed, parts) = (held.sealed.clone(), parts.to_vec());
    assert!(parts[1].len() > 2 * CHUNK_BYTES, "{}", parts[1].len());
    let disks = world.nodes.into_iter().map(|node| node.disk).collect();
    Prepared { disks, sealed, parts }
}

impl Prepared {
    /// A world with the three, and a fourth, which is down and new.
    fn world(&self, seed: u64) -> World {
        // No more checkpoints are made, so that it is this one that is taken.
        let mut world = world(seed, 4, Config { checkpoint_steps: 0, ..dropping() });
        world.now = omnimesh_protocol::Time::ZERO + secs(100);
        for (node, disk) in self.disks.iter().enumerate() {
            world.nodes[node].disk = disk.clone();
            world.start(node, true);
        }
        world.connect_among(&[0, 1, 2]);
        world
    }
}

/// Offers `sealed` and gives `parts`; claims nothing.
fn offering(sealed: Sealed, mut chunk: impl FnMut(u64, usize, usize) -> Vec<Frame> + 'static) -> Liar {
    Box::new(move |frame, _| {
        let answers = match frame {
            Frame::Compare { round, ranges } if !ranges.is_empty() => {
                vec![Frame::Compare { round: *round, ranges: Vec::new() }]
            }
            Frame::AskCheckpoint { .. } => vec![Frame::Offer(Some(sealed.clone()))],
            Frame::AskChunk { id, part, index, .. } => {
                chunk(*id, usize::try_from(*part).unwrap(), usize::try_from(*index).unwrap())
            }
            _ => Vec::new(),
        };
        answers.iter().map(Frame::encode).collect()
    })
}

/// A newcomer among three honest nodes and three liars with one tale, who are met first. It is to end like the others,
/// and to have found a lie in one of a few runs: whom it asks is chance.
fn lied_to(
    prepared: &Prepared,
    what: &str,
    make: impl Fn(&Sealed, &[Bytes]) -> Liar,
    misdeed: Option<Misdeed>,
) {
    let mut is_found = false;
    for seed in 0..6 {
        let mut world = prepared.world(seed);
        let liars: Vec<usize> =
            (0..3).map(|_| world.add_liar(make(&prepared.sealed, &prepared.parts))).collect();
        world.start(3, false);
        for liar in &liars {
            world.connect(3, *liar);
        }
        world.connect_among(&[0, 1, 2, 3]);
        world.run(secs(3));
        let took = world.settle(secs(120), what);
        world.check(what);
        let told = &world.nodes[3].misdeeds;
        println!("{what}: {took:?} {told:?}");
        assert!(told.keys().all(|peer| liars.contains(peer)), "nobody else is blamed: {what}: {told:?}");
        assert_eq!(world.nodes[3].jumps, 1, "{what}");
        is_found |= match misdeed {
            Some(misdeed) => told.values().flatten().any(|known| *known == misdeed),
            None => world.state(3).stats().checkpoints_refused > 0,
        };
    }
    assert!(is_found, "{what}");
}

fn chunk_of(parts: &[Bytes], part: usize, index: usize) -> Bytes {
    let bytes = &parts[part];
    bytes.slice(index * CHUNK_BYTES..bytes.len().min((index + 1) * CHUNK_BYTES))
}

/// Signed by keys that nobody else has.
fn signed(sealed: &Sealed, checkpoint: &Checkpoint, keys: &[usize]) -> Sealed {
    let mut votes: Vec<Vote> =
        keys.iter().map(|key| Vote::new(&identity(*key), checkpoint.mesh, &checkpoint.id())).collect();
    votes.sort_by_key(|vote| vote.signer);
    Sealed { checkpoint: checkpoint.clone(), heads: sealed.heads.clone(), votes }
}

#[test]
fn liars_about_checkpoints_are_found_out() {
    let prepared = &prepare();
    let false_one = |sealed: &Sealed| {
        let mut checkpoint = sealed.checkpoint.clone();
        checkpoint.parts[1].hash = Hash::of(b"a lie");
        checkpoint
    };
    lied_to(
        prepared,
        "one signature",
        |sealed, _| offering(signed(sealed, &false_one(sealed), &[70]), |_, _, _| Vec::new()),
        None,
    );
    lied_to(
        prepared,
        "forged signatures",
        |sealed, _| {
            offering(Sealed { checkpoint: false_one(sealed), ..sealed.clone() }, |_, _, _| Vec::new())
        },
        Some(Misdeed::BadCheckpoint),
    );
    lied_to(
        prepared,
        "another state",
        |sealed, parts| {
            let parts = parts.to_vec();
            offering(sealed.clone(), move |id, part, index| {
                let mut bytes = chunk_of(&parts, part, index).to_vec();
                if part == 1 {
                    bytes[0] ^= 1;
                }
                vec![Frame::Chunk { id, bytes: bytes.into() }]
            })
        },
        Some(Misdeed::BadCheckpoint),
    );
    lied_to(
        prepared,
        "another state, and gone before it shows",
        |sealed, parts| {
            let parts = parts.to_vec();
            offering(sealed.clone(), move |id, part, index| {
                if (part, index) > (1, 0) {
                    return vec![Frame::Decline { id, reason: Decline::Missing, seq: Seq(0) }];
                }
                let mut bytes = chunk_of(&parts, part, index).to_vec();
                bytes[9] ^= u8::from(part == 1);
                vec![Frame::Chunk { id, bytes: bytes.into() }]
            })
        },
        None,
    );
    lied_to(
        prepared,
        "another cut",
        |sealed, parts| {
            let parts = parts.to_vec();
            offering(sealed.clone(), move |id, part, index| {
                let mut bytes = chunk_of(&parts, part, index).to_vec();
                bytes[9] ^= u8::from(part == 0);
                vec![Frame::Chunk { id, bytes: bytes.into() }]
            })
        },
        Some(Misdeed::BadCheckpoint),
    );
    lied_to(
        prepared,
        "chunks of another length",
        |sealed, _| {
            offering(sealed.clone(), |id, _, _| {
                vec![Frame::Chunk { id, bytes: Bytes::from_static(b"short") }]
            })
        },
        Some(Misdeed::BadCheckpoint),
    );
    lied_to(
        prepared,
        "silence",
        |sealed, _| offering(sealed.clone(), |_, _, _| Vec::new()),
        Some(Misdeed::Silent),
    );
    // Signed by many who do not exist, and well formed: but the author of the log has never been there.
    let never_written = |sealed: &Sealed, change: fn(&mut Vec<u8>)| {
        let (forged, mut parts) = forged(sealed.checkpoint.step, &[71, 72, 73, 74]);
        let mut heads = parts[2].to_vec();
        change(&mut heads);
        parts[2] = heads.into();
        let heads = omnimesh_protocol::log::checkpoint::Part::new("heads", &parts[2]);
        offering(Sealed { heads, ..forged }, move |id, part, index| {
            vec![Frame::Chunk { id, bytes: chunk_of(&parts, part, index) }]
        })
    };
    lied_to(
        prepared,
        "a record that its author has not signed",
        |sealed, _| never_written(sealed, |heads| *heads.last_mut().unwrap() ^= 1),
        Some(Misdeed::BadCheckpoint),
    );
    lied_to(
        prepared,
        "no record",
        |sealed, _| never_written(sealed, |heads| *heads = vec![0x80]),
        Some(Misdeed::BadCheckpoint),
    );
    // Signed by many who do not exist, it is fetched; what it says cannot be read.
    lied_to(
        prepared,
        "a state that is none",
        |sealed, parts| {
            let mut checkpoint = sealed.checkpoint.clone();
            let parts = vec![parts[0].clone(), Bytes::from_static(b"not a state"), parts[2].clone()];
            checkpoint.parts[1] = omnimesh_protocol::log::checkpoint::Part::new("registry", &parts[1]);
            offering(signed(sealed, &checkpoint, &[71, 72, 73, 74]), move |id, part, index| {
                vec![Frame::Chunk { id, bytes: chunk_of(&parts, part, index) }]
            })
        },
        Some(Misdeed::BadCheckpoint),
    );
}

#[test]
fn another_lie_each_time_keeps_nobody_from_the_only_honest_neighbour() {
    let prepared = &prepare();
    let (sealed, parts) = (prepared.sealed.clone(), prepared.parts.clone());
    let (mut lies, mut heads) = (0_u64, Bytes::new());
    let mut world = prepared.world(1);
    let liar = world.add_liar(Box::new(move |frame, _| {
        let answer = match frame {
            Frame::AskCheckpoint { .. } => {
                // What is not signed is such that the liar's offer is the one that is taken.
                let part = (0..).find_map(|_| {
                    lies += 1;
                    heads = Bytes::copy_from_slice(&lies.to_le_bytes());
                    let part = omnimesh_protocol::log::checkpoint::Part::new("heads", &heads);
                    (part.hash > sealed.heads.hash).then_some(part)
                });
                Frame::Offer(Some(Sealed { heads: part.unwrap(), ..sealed.clone() }))
            }
            Frame::AskChunk { id, part: 2, .. } => Frame::Chunk { id: *id, bytes: heads.clone() },
            Frame::AskChunk { id, part, index, .. } => {
                let (part, index) = (usize::try_from(*part).unwrap(), usize::try_from(*index).unwrap());
                Frame::Chunk { id: *id, bytes: chunk_of(&parts, part, index) }
            }
            _ => return Vec::new(),
        };
        vec![answer.encode()]
    }));
    world.start(3, false);
    world.connect(3, liar);
    world.connect(3, 0);
    world.run(secs(10));
    assert_eq!(world.nodes[3].jumps, 1);
    assert!(world.nodes[3].misdeeds[&liar].contains(&Misdeed::BadCheckpoint));
    assert!(!world.nodes[3].misdeeds.contains_key(&0), "{:?}", world.nodes[3].misdeeds);
    world.settle(secs(60), "one liar, one honest neighbour");
    world.check("one liar, one honest neighbour");
}

/// What keys that somebody made up sign: another history of a node's log, from which its next records do not follow. Who
/// made it up has that node's key, too.
fn forged(step: Step, keys: &[usize]) -> (Sealed, Vec<Bytes>) {
    let mut base = Base::default();
    for record in chain(&identity(0), Step(0), None, &[250; 8], "never written") {
        assert!(base.take(&record, step));
    }
    let (sealed, parts) = base.checkpoint(mesh().id(), step);
    (signed(&sealed, &sealed.checkpoint, keys), parts)
}

/// A newcomer that counts the signatures of `members` alone, if there are any, and meets a liar first, who offers it a
/// history that was never written. Which of its checkpoints it refused, and whether its logs are the others' in the end.
fn offered_a_forgery(prepared: &Prepared, members: &[usize], keys: &[usize]) -> (u64, bool) {
    let (sealed, parts) = forged(prepared.sealed.checkpoint.step, keys);
    let mut world = prepared.world(1);
    let heads = |world: &World, node: usize| -> Vec<_> {
        (0..3).map(|author| world.state(node).head(&identity(author).id()).map(|head| head.head)).collect()
    };
    let truth = heads(&world, 0);
    let liar = world.add_liar(offering(sealed, move |id, part, index| {
        vec![Frame::Chunk { id, bytes: chunk_of(&parts, part, index) }]
    }));
    world.config.checkpoint_members = members.iter().map(|key| identity(*key).id()).collect();
    world.start(3, false);
    world.connect(3, liar);
    // One honest neighbour and the liar have the same weight; the liar has more signatures.
    world.connect(3, 0);
    world.run(secs(60));
    (world.state(3).stats().checkpoints_refused, heads(&world, 3) == truth)
}

#[test]
fn signatures_of_members_alone_count_where_members_are_named() {
    let prepared = &prepare();
    let made_up = [70, 71, 72, 73, 74];
    // Who trusts all that know the secret can be lied to: the liar has more signatures than the truth.
    assert_eq!(offered_a_forgery(prepared, &[], &made_up), (0, false));
    let (refused, is_like_others) = offered_a_forgery(prepared, &[0, 1, 2, 3], &made_up);
    assert!(refused > 0 && is_like_others);
    // One member more, and as many made-up keys as you like, are not two members.
    let (refused, is_like_others) = offered_a_forgery(prepared, &[0, 1, 2, 3, 74], &made_up);
    assert!(refused > 0 && is_like_others);
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
fn forged_votes_seal_nothing() {
    // Three signatures are needed, two nodes are honest, and a third signs in the name of one that is not there.
    let mut world = world(13, 2, Config { checkpoint_signers: 3, ..dropping() });
    let absent = identity(2).id();
    let liar = world.add_liar(Box::new(move |frame, _| match frame {
        Frame::Votes { step, checkpoint, .. } => {
            let votes = vec![Vote { signer: absent, signature: [7; 64] }];
            vec![Frame::Votes { step: *step, checkpoint: *checkpoint, votes }.encode()]
        }
        _ => Vec::new(),
    }));
    world.start(0, false);
    world.start(1, false);
    world.connect_all();
    work(&mut world, &[0, 1], 30);
    for node in 0..2 {
        assert!(world.nodes[node].sealed.is_empty(), "{:?}", world.nodes[node].sealed);
        assert!(world.state(node).stats().checkpoints_made > 0);
        assert!(world.nodes[node].misdeeds[&liar].contains(&Misdeed::BadCheckpoint));
        assert_eq!(dropped(&world.nodes[node].disk), 0);
    }
}

#[test]
fn a_download_goes_on_with_another_peer() {
    let prepared = prepare();
    let given = Rc::new(Cell::new(0));
    for seed in 0..6 {
        let mut world = prepared.world(seed);
        let (parts, count) = (prepared.parts.clone(), Rc::clone(&given));
        let half = world.add_liar(offering(prepared.sealed.clone(), move |id, part, index| {
            if (part, index) < (1, 1) {
                count.set(count.get() + 1);
                return vec![Frame::Chunk { id, bytes: chunk_of(&parts, part, index) }];
            }
            vec![Frame::Decline { id, reason: Decline::Missing, seq: Seq(0) }]
        }));
        world.start(3, false);
        world.connect(3, half);
        world.connect_among(&[0, 1, 2, 3]);
        world.run(secs(3));
        world.settle(secs(60), "half of it");
        world.check("half of it");
        let bytes = world.state(3).stats().checkpoint_bytes_received;
        let whole: usize = prepared.parts.iter().map(Bytes::len).sum();
        assert_eq!(bytes, whole as u64, "nothing is fetched twice");
        assert!(world.nodes[3].misdeeds.is_empty());
    }
    assert!(given.get() > 0, "it was asked");
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
    let proof = omnimesh_protocol::log::Proof::new(&log[4], &other).unwrap();
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
