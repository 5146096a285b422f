//! What a sealed checkpoint covered counts for ever: over restarts, failed writes, damage, and newer checkpoints of others
//! that cover less.

use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::log::checkpoint::{StoredCheckpoint, Vote};
use omnimesh_protocol::log::{Change, Config, Damaged, Head, Proof, Record, StoredLog};
use omnimesh_protocol::{NodeId, Seq, Step};

use crate::disk::{Disk, chain, disk_of, seal};
use crate::network::{World, identity, mesh};

const STEP: Step = Step(1000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An author's log, and the proof that freezes it at entry 5.
struct Forked {
    log: Vec<Record>,
    other: Record,
    proof: Proof,
}

impl Forked {
    fn new() -> Self {
        let author = identity(30);
        let log = chain(&author, STEP, None, &[1; 10], "one");
        let other = seal(&author, STEP, 5, Some(log[3].digest()), &["other".into()]);
        let proof = Proof::new(&log[4], &other).unwrap();
        Forked { log, other, proof }
    }

    fn author(&self) -> NodeId {
        self.proof.author()
    }

    /// The store of who froze the log at the fork, and has this much of another one.
    fn frozen(&self, entries: usize) -> Disk {
        let mut disk = disk_of(&self.log[..4]);
        let freeze = Change::Freeze { proof: self.proof.clone(), head: self.log[3].head() };
        disk.write(&[freeze]).unwrap();
        append(&mut disk, &chain(&identity(31), STEP, None, &vec![1; entries], "two"));
        disk
    }
}

fn append(disk: &mut Disk, records: &[Record]) {
    disk.write(&records.iter().cloned().map(Change::Append).collect::<Vec<_>>()).unwrap();
}

/// Seals the checkpoint of a step, with two signatures.
fn seal_at(disk: &mut Disk, step: u64) -> StoredCheckpoint {
    let mut stored = disk.fold(mesh().id(), Step(step)).unwrap();
    let checkpoint = &stored.sealed.checkpoint;
    let vote = |key| Vote::new(&identity(key), checkpoint.mesh, &checkpoint.id());
    let mut votes = vec![vote(40), vote(41)];
    votes.sort_by_key(|vote| vote.signer);
    stored.sealed.votes = votes;
    disk.write(&[Change::Seal(Box::new(stored.clone()))]).unwrap();
    stored
}

/// Takes a checkpoint from another store.
fn take(from: &Disk, into: &mut Disk, stored: &StoredCheckpoint) {
    let id = stored.sealed.checkpoint.id();
    for (part, named) in stored.sealed.parts().enumerate() {
        for index in 0..named.chunks() {
            into.stage(id, part, index, from.chunk(id, part, index).unwrap());
        }
    }
    into.write(&[Change::Seal(Box::new(stored.clone()))]).unwrap();
}

/// And makes the logs end there that end before.
fn carry(from: &Disk, into: &mut Disk, stored: &StoredCheckpoint) {
    take(from, into, stored);
    for (author, cut) in &stored.cut.0 {
        if into.stored(*author).head.seq < cut.head.seq {
            into.write(&[Change::Jump(jump(*author, cut.head, cut.step))]).unwrap();
        }
    }
}

fn jump(author: NodeId, head: Head, step: Step) -> StoredLog {
    StoredLog { author, base: head.seq.saturating_add(1), head, step, proof: None }
}

/// The store of who was on an island where all of the log was sealed, then took the newer checkpoint of others who had frozen
/// it at the fork, and then learned of the fork; and the store of one of these.
fn islands(forked: &Forked) -> (Disk, Disk) {
    let mut few = disk_of(&forked.log);
    let covers_all = seal_at(&mut few, 1010);
    let mut many = forked.frozen(3);
    let covers_less = seal_at(&mut many, 1020);
    carry(&many, &mut few, &covers_less);
    let cut = covers_all.cut.0[&forked.author()];
    let freeze = Change::Freeze { proof: forked.proof.clone(), head: cut.head };
    few.write(&[freeze, Change::Jump(jump(forked.author(), cut.head, cut.step))]).unwrap();
    (few, many)
}

/// No further checkpoints are made.
fn quiet() -> Config {
    Config { checkpoint_steps: 0, ..Config::default() }
}

fn world(seed: u64, nodes: usize, config: Config) -> World {
    let mut world = World::new(seed, nodes, config);
    world.has_registry = true;
    world
}

fn head(world: &World, node: usize, author: NodeId) -> Head {
    world.state(node).head(&author).unwrap().head
}

#[test]
fn a_log_frozen_behind_an_older_checkpoint_is_so_over_a_restart() {
    let forked = Forked::new();
    let (few, _) = islands(&forked);
    let mut world = world(1, 1, quiet());
    world.nodes[0].disk = few;
    for _ in 0..2 {
        world.start(0, true);
        world.run(ms(500));
        assert_eq!(head(&world, 0, forked.author()), forked.log[9].head());
        world.check("restarted");
        world.crash(0);
    }
}

#[test]
fn who_froze_a_log_at_its_fork_gets_the_older_checkpoint_that_covers_more() {
    let forked = Forked::new();
    let (few, many) = islands(&forked);
    let mut world = world(2, 4, quiet());
    world.nodes[0].disk = few;
    world.nodes[1..].iter_mut().for_each(|node| node.disk = many.clone());
    for node in 0..4 {
        world.start(node, true);
    }
    // Those who have not met the one get it from those who have.
    world.connect_among(&[0, 1]);
    world.connect_among(&[1, 2, 3]);
    world.run(ms(1000));
    world.settle(ms(60_000), "met");
    world.check("met");
    for node in 0..4 {
        assert_eq!(head(&world, node, forked.author()), forked.log[9].head(), "node {node}");
    }
}

#[test]
fn a_checkpoint_that_goes_leaves_what_no_other_covers_in_the_base() {
    let forked = Forked::new();
    let mut disk = disk_of(&forked.log);
    let first = seal_at(&mut disk, 1010);
    let mut others = Vec::new();
    for (entries, step) in [(3, 1020), (5, 1030)] {
        let mut other = forked.frozen(entries);
        let stored = seal_at(&mut other, step);
        take(&other, &mut disk, &stored);
        others.push(stored);
    }
    let held: Vec<_> = disk.checkpoints().cloned().collect();
    assert_eq!(held, [first.clone(), others[1].clone()], "the newest, and what it does not cover");
    assert_eq!(disk.base().cut.entries(), 0);
    // An island that knows nothing of all this.
    let mut third = disk_of(&chain(&identity(32), STEP, None, &[1; 2], "three"));
    let stored = seal_at(&mut third, 1040);
    take(&third, &mut disk, &stored);
    assert_eq!(disk.checkpoints().count(), 2);
    assert_eq!(disk.base().cut.head(&forked.author()), forked.log[9].head());
    assert!(disk.base().covers(&first.cut));
}

#[test]
fn a_jump_that_could_not_be_written_is_made_when_there_is_room() {
    let forked = Forked::new();
    let mut world = world(3, 1, quiet());
    world.nodes[0].disk = disk_of(&forked.log);
    seal_at(&mut world.nodes[0].disk, 1010);
    world.start(0, true);
    world.nodes[0].disk_is_full = true;
    world.gossip_to(0, 0, &forked.other);
    world.run(ms(300));
    assert!(world.state(0).stats().writes_failed > 0);
    assert_eq!(world.nodes[0].disk.floor(&forked.author()).head, Head::EMPTY);
    world.nodes[0].disk_is_full = false;
    world.run(ms(3000));
    assert_eq!(world.nodes[0].disk.floor(&forked.author()).head, forked.log[9].head());
    assert_eq!(
        world.nodes[0].disk.records(&forked.author()).count(),
        0,
        "nobody knows of which branch they are"
    );
    world.check("there is room again");
}

#[test]
fn a_jump_that_a_crash_has_parted_from_the_freeze_is_made_at_the_start() {
    let forked = Forked::new();
    let mut world = world(4, 1, quiet());
    world.nodes[0].disk = disk_of(&forked.log);
    seal_at(&mut world.nodes[0].disk, 1010);
    let freeze = Change::Freeze { proof: forked.proof.clone(), head: forked.log[9].head() };
    world.nodes[0].disk.write(&[freeze]).unwrap();
    world.start(0, true);
    world.run(ms(1000));
    assert_eq!(world.nodes[0].disk.floor(&forked.author()).head, forked.log[9].head());
    world.check("started");
}

/// Finds damage on a node's disk, of the record that covers this entry.
fn damage(world: &mut World, author: NodeId, first: u64) {
    let stored = world.nodes[0].disk.cut(&Damaged { author, first: Seq(first) });
    world.nodes[0].damage(author);
    world.give(0, omnimesh_protocol::log::Input::Damaged(stored));
}

#[test]
fn damage_that_is_found_while_a_freeze_is_written_leaves_what_is_told_right() {
    let forked = Forked::new();
    let mut world = world(5, 1, quiet());
    world.nodes[0].disk = disk_of(&forked.log);
    world.sync = ms(500);
    world.start(0, true);
    world.gossip_to(0, 0, &forked.other);
    world.run(ms(200));
    damage(&mut world, forked.author(), 9);
    world.run(ms(3000));
    let told = head(&world, 0, forked.author());
    assert_eq!((told, world.nodes[0].disk.stored(forked.author()).head), (forked.log[3].head(), told));
}

#[test]
fn damage_that_is_found_while_a_checkpoint_is_taken_is_covered_by_it() {
    let forked = Forked::new();
    let mut world = world(6, 1, quiet());
    world.nodes[0].disk = disk_of(&forked.log);
    seal_at(&mut world.nodes[0].disk, 1010);
    world.sync = ms(500);
    world.start(0, true);
    world.gossip_to(0, 0, &forked.other);
    world.run(ms(200));
    damage(&mut world, forked.author(), 3);
    world.run(ms(3000));
    let told = head(&world, 0, forked.author());
    assert_eq!((told, world.nodes[0].disk.stored(forked.author()).head), (forked.log[9].head(), told));
    assert_eq!(world.state(0).base(&forked.author()), Some(Seq(11)));
}

#[test]
fn who_asks_for_what_no_checkpoint_covers_is_offered_none() {
    use omnimesh_protocol::log::wire::Frame;
    let forked = Forked::new();
    let (few, _) = islands(&forked);
    let mut world = world(7, 1, quiet());
    world.nodes[0].disk = few;
    let offers = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let heard = std::rc::Rc::clone(&offers);
    let asker = world.add_liar(Box::new(move |frame, _| {
        if let Frame::Offer(offer) = frame {
            heard.borrow_mut().push(offer.as_ref().map(|sealed| sealed.checkpoint.step));
        }
        Vec::<Bytes>::new()
    }));
    world.start(0, true);
    world.connect(0, asker);
    for seq in [4, 10, 11] {
        world.send(asker, 0, Frame::AskCheckpoint { author: forked.author(), seq: Seq(seq) }.encode());
        world.run(ms(100));
    }
    assert_eq!(*offers.borrow(), [Some(Step(1020)), Some(Step(1010)), None]);
}

#[test]
fn a_checkpoint_that_a_full_disk_could_not_take_is_taken_when_there_is_room() {
    let forked = Forked::new();
    let mut given = disk_of(&forked.log);
    seal_at(&mut given, 1010);
    let dropped = given.drop_covered(Step(1010), None);
    assert_eq!(dropped, [(forked.author(), Seq(11))]);
    let mut world = world(8, 2, quiet());
    world.nodes[0].disk = given;
    world.start(0, true);
    world.start(1, false);
    world.nodes[1].disk_is_full = true;
    world.connect_all();
    world.run(ms(10_000));
    assert_eq!(world.state(1).stats().checkpoints_adopted, 0);
    world.nodes[1].disk_is_full = false;
    let took = world.settle(ms(20_000), "there is room again");
    assert!(took < ms(15_000), "{took:?}");
    assert_eq!(head(&world, 1, forked.author()), forked.log[9].head());
    world.check("there is room again");
}
