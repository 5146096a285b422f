//! Peers that lie: they cost time, and stop nothing.

use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::log::checkpoint::Vote;
use omnimesh_protocol::log::reconcile::{Content, HeadSet};
use omnimesh_protocol::log::wire::{Decline, Frame};
use omnimesh_protocol::log::{AuthorHead, Config, Head, Misdeed, Proof, Record};
use omnimesh_protocol::{Hash, Seq, Step};
use rand::RngExt;

use crate::disk::{chain, disk_of, seal};
use crate::network::{Liar, World, identity, mesh};
use crate::{replay, scale, seeds};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn claim(author: usize, seq: u64) -> AuthorHead {
    let head = Head { seq: Seq(seq), digest: Hash::of(b"a lie") };
    AuthorHead { author: identity(author).id(), head, proof: None }
}

/// Claims to have these heads, and answers requests with `answer`.
fn claimer(
    claims: &[AuthorHead],
    mut answer: impl FnMut(u64, Seq, Seq, bool) -> Vec<Frame> + 'static,
) -> Liar {
    let mut set = HeadSet::new();
    claims.iter().for_each(|claim| set.put(*claim));
    Box::new(move |frame, _| {
        let answers = match frame {
            Frame::Compare { round, ranges } => {
                let answer = set.answer(ranges);
                let compare = Frame::Compare { round: *round, ranges: answer.ranges };
                let heads = (!answer.ours.is_empty()).then_some(Frame::Heads(answer.ours));
                if ranges.is_empty() { Vec::new() } else { heads.into_iter().chain([compare]).collect() }
            }
            Frame::Fetch { id, from, to, .. } => answer(*id, *from, *to, false),
            Frame::Find { id, seq, .. } => answer(*id, *seq, *seq, true),
            Frame::AskHead(author) => {
                vec![Frame::HeadOf { author: *author, head: set.get(author).copied() }]
            }
            _ => Vec::new(),
        };
        answers.iter().map(Frame::encode).collect()
    })
}

/// An empty node, two that have all, and a liar. All is to come; the liar is to be told off, if `misdeed`.
fn with_liar(what: &str, liar: Liar, misdeed: Option<Misdeed>) {
    let records: Vec<Record> =
        (20..24).flat_map(|n| chain(&identity(n), Step(900), None, &[2; 100], "truth")).collect();
    let mut world = World::new(1, 1, Config { fetch_bytes: 8 << 10, ..Config::default() });
    for n in 1..3 {
        world.add(identity(n), disk_of(&records));
    }
    let liar = world.add_liar(liar);
    for node in 0..3 {
        world.start(node, false);
    }
    // The liar is there first, for a round at least.
    world.connect(0, liar);
    world.run(secs(3));
    world.connect_all();
    world.run(secs(1));
    let took = world.settle(secs(60), what);
    world.check(what);
    println!("{what}: {took:?}, {:?}", world.nodes[0].misdeeds);
    let asked: usize = (0..3).map(|node| world.frames.get(&(node, liar)).copied().unwrap_or(0)).sum();
    let most = 300 + 60 * usize::try_from(world.now.as_millis() / 1000).unwrap();
    assert!(asked < most, "{what}: a liar is not asked for ever: {asked}");
    assert_eq!(world.nodes[0].disk.authors().len(), 4);
    world.run(secs(30));
    let reports = &world.nodes[0].reports;
    let recovered: u64 = reports.iter().map(|report| report.entries).sum();
    assert_eq!(recovered, 800, "{what}: what came is accounted for");
    let lost: u64 =
        reports.iter().flat_map(|report| report.authors.values()).map(|missed| missed.nobody_has).sum();
    assert_eq!(lost, 0, "{what}: a lie is no loss: {reports:?}");
    if let Some(misdeed) = misdeed {
        let told = world.nodes[0].misdeeds.get(&liar);
        assert!(told.is_some_and(|told| told.contains(&misdeed)), "{what}: {told:?}");
    }
    assert!(world.nodes[0].misdeeds.keys().all(|peer| *peer == liar), "nobody else is blamed: {what}");
    assert!(world.nodes[0].frozen.is_empty());
}

fn claims() -> Vec<AuthorHead> {
    (20..24).map(|n| claim(n, 5000)).collect()
}

#[test]
fn a_liar_that_claims_what_it_does_not_have() {
    let liar =
        claimer(&claims(), |id, _, _, _| vec![Frame::Decline { id, reason: Decline::Missing, seq: Seq(0) }]);
    with_liar("declines", liar, Some(Misdeed::EmptyClaim));
    let liar = claimer(&claims(), |_, _, _, _| Vec::new());
    with_liar("is silent", liar, Some(Misdeed::Silent));
    let liar = claimer(&claims(), |id, _, to, _| {
        vec![Frame::Records { id, next: Seq(to.0 + 1), records: Vec::new() }]
    });
    with_liar("says that no record begins there", liar, Some(Misdeed::EmptyClaim));
    let everybody: Vec<AuthorHead> = (20..24).map(|n| claim(n, u64::MAX - 1)).collect();
    let liar = claimer(&everybody, |id, from, _, _| {
        vec![Frame::Records { id, next: Seq(from.0 + 1), records: Vec::new() }]
    });
    with_liar("says that no record begins at each", liar, Some(Misdeed::EmptyClaim));
    let truth = chain(&identity(20), Step(900), None, &[2; 100], "truth");
    let liar = claimer(&[claim(20, 5000)], move |id, from, to, is_find| {
        let own = truth.iter().filter(|record| is_find && record.covers(from));
        vec![Frame::Records { id, next: Seq(to.0 + 1), records: own.map(|r| r.as_bytes().clone()).collect() }]
    });
    with_liar("hides what begins there", liar, Some(Misdeed::EmptyClaim));
    let liar =
        claimer(&claims(), |id, from, _, _| vec![Frame::Records { id, next: from, records: Vec::new() }]);
    with_liar("gives nothing", liar, Some(Misdeed::EmptyClaim));
    let liar =
        claimer(&claims(), |id, _, _, _| vec![Frame::Decline { id, reason: Decline::Busy, seq: Seq(0) }]);
    with_liar("is always busy", liar, None);
    let everybody: Vec<AuthorHead> = (20..24).map(|n| claim(n, u64::MAX - 1)).collect();
    let liar = claimer(&everybody, |_, _, _, _| Vec::new());
    with_liar("claims all numbers there are", liar, Some(Misdeed::Silent));
}

#[test]
fn a_liar_that_sends_other_records() {
    let truth = chain(&identity(20), Step(900), None, &[2; 100], "truth");
    let records = |records: &[Record]| records.iter().map(|r| r.as_bytes().clone()).collect::<Vec<Bytes>>();
    let answer = |id, to: Seq, records| vec![Frame::Records { id, next: Seq(to.0 + 1), records }];

    let other = records(&chain(&identity(30), Step(900), None, &[1; 3], "another author"));
    let liar = claimer(&claims(), move |id, _, to, _| answer(id, to, other.clone()));
    with_liar("another author", liar, Some(Misdeed::NotAsked));

    let late = records(&truth[90..]);
    let liar = claimer(&[claim(20, 5000)], move |id, _, _, _| answer(id, Seq(3), late.clone()));
    with_liar("another range", liar, Some(Misdeed::NotAsked));

    let holes = records(&[truth[0].clone(), truth[2].clone()]);
    let liar = claimer(&[claim(20, 5000)], move |id, _, to, _| answer(id, to, holes.clone()));
    with_liar("holes", liar, Some(Misdeed::NotAsked));

    let liar = claimer(&claims(), move |id, _, to, _| answer(id, to, vec![Bytes::from_static(b"garbage")]));
    with_liar(
        "garbage for a record",
        liar,
        Some(Misdeed::BadRecord(omnimesh_protocol::refusal::Refusal::Truncated)),
    );

    let mut forged = truth[0].as_bytes().to_vec();
    let at = forged.len() - 1;
    forged[at] ^= 1;
    let forged = Bytes::from(forged);
    let liar = claimer(&[claim(20, 5000)], move |id, _, _, _| answer(id, Seq(3), vec![forged.clone()]));
    with_liar(
        "a forged signature",
        liar,
        Some(Misdeed::BadRecord(omnimesh_protocol::refusal::Refusal::BadSignature)),
    );

    let future = seal(&identity(20), Step(9_000_000), 1, None, &[Bytes::from_static(b"future")]);
    let future = records(&[future]);
    let liar = claimer(&[claim(20, 5000)], move |id, _, _, _| answer(id, Seq(1), future.clone()));
    with_liar("a record of the future", liar, None);
}

#[test]
fn a_liar_that_gives_the_first_entries_and_hides_the_others() {
    let truth = chain(&identity(20), Step(900), None, &[1; 2000], "truth");
    let head = truth.last().unwrap().head();
    let disk = disk_of(&truth);
    let liar = claimer(&[AuthorHead { head, ..claim(20, 1) }], move |id, from, to, is_find| {
        let shown =
            truth.iter().filter(|r| r.first() >= from && r.first() <= to && (is_find || r.first().0 <= 512));
        vec![Frame::Records {
            id,
            next: Seq(to.0 + 1),
            records: shown.map(|r| r.as_bytes().clone()).collect(),
        }]
    });
    let mut world = World::new(1, 1, Config { fetch_bytes: 256 << 10, ..Config::default() });
    world.add(identity(1), disk);
    let liar = world.add_liar(liar);
    world.start(0, false);
    world.start(1, false);
    world.connect(0, liar);
    world.run(secs(3));
    assert_eq!(world.state(0).stats().entries, 512);
    world.connect(0, 1);
    world.settle(secs(30), "hides all but the first");
    world.check("hides all but the first");
    assert!(world.nodes[0].misdeeds[&liar].contains(&Misdeed::EmptyClaim));
    assert!(!world.nodes[0].misdeeds.contains_key(&1));
}

#[test]
fn a_liar_that_sends_garbage() {
    let liar: Liar = Box::new(|_, rng| {
        vec![(0..rng.random_range(0..60)).map(|_| rng.random::<u8>()).collect::<Vec<u8>>().into()]
    });
    with_liar("garbage", liar, Some(Misdeed::BadFrame));
}

#[test]
fn a_liar_whose_comparison_never_ends() {
    let liar: Liar = Box::new(|frame, rng| match frame {
        Frame::Compare { round, ranges } => {
            let mut ranges = ranges.clone();
            for range in &mut ranges {
                range.content = Content::Fingerprint(rng.random());
            }
            vec![Frame::Compare { round: *round, ranges }.encode()]
        }
        _ => Vec::new(),
    });
    with_liar("compares for ever", liar, None);
}

#[test]
fn a_proof_that_proves_nothing_freezes_nothing() {
    let one = chain(&identity(20), Step(900), None, &[1], "one");
    let two = chain(&identity(20), Step(900), None, &[1], "two");
    let mut bytes = Proof::new(&one[0], &two[0]).unwrap().encode().to_vec();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    let forged: Bytes = bytes.into();
    let liar: Liar = Box::new(move |_, _| vec![Frame::Proof(forged.clone()).encode()]);
    with_liar("a forged proof", liar, Some(Misdeed::BadProof));
}

#[test]
fn a_liar_about_the_own_head_cannot_stop_appends() {
    let mut world = World::new(1, 1, Config::default());
    let liar = world.add_liar(claimer(&[claim(0, 1000)], |_, _, _, _| Vec::new()));
    world.start(0, true);
    world.append(0, b"x");
    world.connect(0, liar);
    world.run(secs(6));
    assert_eq!(world.nodes[0].acked.len(), 1);
    world.append(0, b"y");
    world.run(secs(1));
    assert_eq!(world.nodes[0].acked.len(), 2);
}

#[test]
fn too_many_requests_are_refused_as_busy() {
    let records = chain(&identity(20), Step(900), None, &[1; 50], "x");
    let mut world = World::new(1, 0, Config::default());
    world.add(identity(0), disk_of(&records));
    let liar = world.add_liar(Box::new(|_, _| Vec::new()));
    world.start(0, false);
    world.connect(0, liar);
    for id in 0..1000 {
        let author = identity(20).id();
        let fetch = Frame::Fetch { id, author, from: Seq(1), to: Seq(50), bytes_max: u64::MAX };
        world.send(liar, 0, fetch.encode());
    }
    world.run(secs(1));
    let stats = world.state(0).stats();
    assert!(stats.busy > 0 && stats.served + stats.busy == 1000, "{stats:?}");
}

#[test]
fn any_frames_do_no_harm() {
    for seed in seeds(20 * scale()) {
        let what = replay("any_frames", seed);
        let records = chain(&identity(20), Step(900), None, &[2; 30], "x");
        let config = Config { checkpoint_steps: 5, checkpoint_delay_steps: 2, ..Config::default() };
        let mut world = World::new(seed, 0, config);
        world.add(identity(0), disk_of(&records[..10]));
        world.add(identity(1), disk_of(&records));
        let liar = world.add_liar(Box::new(|_, _| Vec::new()));
        world.start(0, false);
        world.start(1, false);
        world.connect_all();
        for _ in 0..300 {
            let sealed = world.state(0).checkpoint().cloned();
            let seen = sealed.as_ref().map_or(Hash::of(b""), |sealed| sealed.checkpoint.id());
            let rng = &mut world.rng;
            let author = identity(rng.random_range(19..23)).id();
            let number = |rng: &mut rand_chacha::ChaCha8Rng| match rng.random_range(0..4) {
                0 => rng.random_range(0..70),
                1 => u64::MAX - rng.random_range(0..3),
                2 => rng.random(),
                _ => rng.random_range(0..4),
            };
            let (id, from, to) = (number(rng), Seq(number(rng)), Seq(number(rng)));
            let at = rng.random_range(0..30_usize);
            let bytes = records[at].as_bytes().clone();
            let frame = match rng.random_range(0..14) {
                0 => Frame::Fetch { id, author, from, to, bytes_max: number(rng) },
                1 => Frame::Find { id, author, seq: from },
                2 => Frame::Records { id, next: to, records: vec![bytes] },
                3 => Frame::Decline { id, reason: Decline::Truncated, seq: from },
                4 => Frame::AskProof(author),
                5 => Frame::AskHead(author),
                6 => Frame::Proof(bytes),
                7 => Frame::Heads(vec![claim(rng.random_range(19..23), number(rng).clamp(1, u64::MAX - 1))]),
                8 => Frame::AskCheckpoint { author, seq: from },
                9 => Frame::AskChunk { id, checkpoint: seen, part: number(rng), index: number(rng) },
                10 => Frame::Chunk { id, bytes },
                11 => Frame::Offer(sealed),
                12 => {
                    let votes = vec![Vote::new(&identity(90 + at), mesh().id(), &seen)];
                    let step = Step(1000 + 5 * rng.random_range(0..4));
                    let other = Hash::of(&[u8::try_from(at).unwrap()]);
                    let checkpoint = if rng.random_bool(0.5) { seen } else { other };
                    Frame::Votes { step, checkpoint, votes }
                }
                _ => Frame::Compare { round: id, ranges: vec![HeadSet::new().all()] },
            };
            world.send(liar, 0, frame.encode());
            let pause = world.rng.random_range(0..100);
            world.run(Duration::from_millis(pause));
        }
        world.disconnect(0, liar);
        world.settle(secs(60), &what);
        world.check(&what);
    }
}
