//! Liars about checkpoints: whoever offers what is false is found out, or, where nobody can know, has many keys.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use omnimesh_protocol::log::checkpoint::{Base, CHUNK_BYTES, Checkpoint, Part, Sealed, Vote};
use omnimesh_protocol::log::wire::{Decline, Frame};
use omnimesh_protocol::log::{Config, Misdeed};
use omnimesh_protocol::{Hash, Seq, Step, Time};

use super::{dropping, ms, secs, work, world};
use crate::disk::{Disk, chain, dropped};
use crate::network::{Liar, World, identity, mesh};

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
        world.now = Time::ZERO + secs(100);
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
    lies_about_signatures(prepared);
    lies_in_the_download(prepared);
    lies_that_many_have_signed(prepared);
}

fn lies_about_signatures(prepared: &Prepared) {
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
}

fn lies_in_the_download(prepared: &Prepared) {
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
}

fn lies_that_many_have_signed(prepared: &Prepared) {
    // Signed by many who do not exist, and well formed: but the author of the log has never been there.
    let never_written = |sealed: &Sealed, change: fn(&mut Vec<u8>)| {
        let (forged, mut parts) = forged(sealed.checkpoint.step, &[71, 72, 73, 74]);
        let mut heads = parts[2].to_vec();
        change(&mut heads);
        parts[2] = heads.into();
        let heads = Part::new("heads", &parts[2]);
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
            checkpoint.parts[1] = Part::new("registry", &parts[1]);
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
                    let part = Part::new("heads", &heads);
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
