use super::super::testing::Author;
use super::*;
use proptest::prelude::*;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROOM: Room = Room { records: 1000, bytes: 1 << 20 };

fn empty() -> Chain {
    Chain::new(Head::EMPTY, Step(0), None)
}

/// A chain with its records: what a node is, without disk and network.
struct Node {
    chain: Chain,
    log: Vec<Record>,
}

impl Node {
    fn new() -> Self {
        Node { chain: empty(), log: Vec::new() }
    }

    fn covering(&self, seq: Seq) -> Option<&Record> {
        self.log.iter().find(|record| record.covers(seq))
    }

    fn give(&mut self, record: &Record) -> Offered {
        let mut offered = self.chain.offer(record.clone(), false, ROOM);
        if offered == Offered::Taken {
            offered = Chain::compare(record, self.covering(record.first()));
        }
        match &offered {
            Offered::Applied(records) => self.log.extend(records.iter().cloned()),
            Offered::Conflict(proof) => self.freeze(proof),
            _ => {}
        }
        self.check();
        offered
    }

    fn freeze(&mut self, proof: &Proof) {
        let own = self.covering(proof.fork()).cloned();
        self.chain.freeze(proof, own.as_ref());
        let limit = self.chain.limit();
        self.log.retain(|record| record.last() <= limit);
        self.check();
    }

    fn check(&self) {
        self.chain.check_invariants();
        assert_eq!(self.log.last().map_or(Head::EMPTY, Record::head), self.chain.head());
    }

    /// What others can get of it.
    fn tell(&self, other: &mut Node) {
        if let Some(proof) = self.chain.proof() {
            other.freeze(proof);
        }
        for record in &self.log {
            other.give(record);
        }
    }
}

#[test]
fn records_are_applied_in_order_whatever_order_they_come_in() {
    let mut author = Author::new(1);
    let branch = author.branch(None, &[1, 3, 1, 2], 0);
    let mut node = Node::new();
    assert_eq!(node.give(&branch[3]), Offered::Waits);
    assert_eq!(node.give(&branch[3]), Offered::Known);
    assert_eq!(node.give(&branch[1]), Offered::Waits);
    assert_eq!(node.chain.gap_from(Seq(1)), (Seq(1), Some(Seq(1))));
    assert_eq!(node.chain.gap_from(Seq(2)), (Seq(5), Some(Seq(5))));
    assert_eq!(node.chain.gap_from(Seq(6)), (Seq(8), None));
    assert_eq!(node.give(&branch[0]), Offered::Applied(branch[..2].to_vec()));
    assert_eq!(node.give(&branch[2]), Offered::Applied(branch[2..].to_vec()));
    assert_eq!(node.give(&branch[1]), Offered::Known);
    assert_eq!(node.chain.head(), branch[3].head());
    assert_eq!(node.chain.waiting_bytes(), 0);
}

#[test]
fn what_does_not_fit_is_a_stray() {
    let mut author = Author::new(1);
    let branch = author.branch(None, &[1, 1], 0);
    let mut node = Node::new();
    node.give(&branch[0]);
    let wrong_prev = author.record(2, 1, None, 10, 7);
    assert_eq!(node.give(&wrong_prev), Offered::Stray);
    assert!(node.chain.has_stray());
    assert_eq!(node.chain.gap_from(Seq(1)), (Seq(2), None), "its place is still to be filled");
    // The right one contradicts it.
    let Offered::Conflict(proof) = node.give(&branch[1]) else { panic!("no conflict") };
    assert_eq!(proof.fork(), Seq(2));
    assert_eq!(node.chain.head(), branch[0].head());

    let mut node = Node::new();
    node.give(&branch[0]);
    let earlier = author.record(2, 1, Some(branch[0].digest()), 9, 0);
    assert_eq!(node.give(&earlier), Offered::Stray, "its step is lower than its predecessor's");
}

#[test]
fn a_frozen_log_takes_what_comes_before_the_fork_and_nothing_else() {
    let mut author = Author::new(1);
    let trunk = author.branch(None, &[1, 1, 1, 1], 0);
    let fork = author.branch(Some(&trunk[1]), &[2], 1);
    let proof = Proof::new(&trunk[2], &fork[0]).unwrap();
    let mut node = Node::new();
    node.freeze(&proof);
    assert_eq!(node.give(&trunk[1]), Offered::Waits);
    assert_eq!(node.give(&trunk[3]), Offered::BeyondFork);
    assert_eq!(node.give(&trunk[0]), Offered::Applied(trunk[..2].to_vec()));
    assert_eq!(node.give(&trunk[2]), Offered::BeyondFork);
    assert_eq!((node.chain.head(), node.chain.limit()), (trunk[1].head(), Seq(2)));
}

#[test]
fn a_full_buffer_keeps_what_is_nearest() {
    let mut author = Author::new(1);
    let branch = author.branch(None, &[1; 10], 0);
    let mut chain = empty();
    let room = Room { records: 3, bytes: 1 << 20 };
    for record in branch[1..6].iter().rev() {
        assert_eq!(chain.offer(record.clone(), false, room), Offered::Waits);
    }
    assert_eq!(chain.waiting(), 3);
    assert_eq!(chain.offer(branch[8].clone(), false, room), Offered::Shed);
    assert_eq!(chain.offer(branch[9].clone(), true, room), Offered::Waits, "what was asked for has room");
    assert_eq!(chain.offer(branch[0].clone(), true, room), Offered::Applied(branch[..4].to_vec()));
    chain.check_invariants();
}

#[test]
fn the_least_proof_is_the_same_for_every_pair_of_three() {
    let mut author = Author::new(1);
    let records: Vec<Record> = (0..3).map(|salt| author.record(1, 1 + salt, None, 10, salt)).collect();
    let least = Proof::least(&records.iter().collect::<Vec<_>>()).unwrap();
    for a in 0..3 {
        for b in (0..3).filter(|b| *b != a) {
            for c in (0..3).filter(|c| ![a, b].contains(c)) {
                let mut node = Node::new();
                for index in [a, b, c] {
                    node.give(&records[index]);
                }
                assert_eq!(node.chain.proof(), Some(&least));
                assert_eq!(node.chain.head(), Head::EMPTY);
            }
        }
    }
}

/// Records of an author that writes branches, some in pieces of other lengths, some without what comes before.
fn universe(rng: &mut ChaCha8Rng) -> Vec<Record> {
    let mut author = Author::new(1);
    let mut lengths = || (0..rng.random_range(1..7)).map(|_| rng.random_range(1..4)).collect::<Vec<u64>>();
    let (trunk, others) = (lengths(), [lengths(), lengths(), lengths()]);
    let mut records = author.branch(None, &trunk, 0);
    for (salt, lengths) in (1..).zip(others) {
        if rng.random_bool(0.6) {
            let from = records.choose(rng).filter(|_| rng.random_bool(0.9)).cloned();
            let mut branch = author.branch(from.as_ref(), &lengths, salt);
            if rng.random_bool(0.3) {
                // Nobody ever shows the first ones.
                branch.drain(..rng.random_range(0..branch.len()));
            }
            records.extend(branch);
        }
    }
    records
}

/// What everybody is to end with who could see all.
fn expected(records: &[Record]) -> (Option<Proof>, Head) {
    let proof = Proof::least(&records.iter().collect::<Vec<_>>());
    let limit = proof.as_ref().map_or(Seq(u64::MAX), |proof| proof.fork().saturating_sub(1));
    let mut head = Head::EMPTY;
    while let Some(next) = records.iter().find(|record| {
        record.first().0 == head.seq.0 + 1 && record.prev() == head.as_prev() && record.last() <= limit
    }) {
        head = next.head();
    }
    (proof, head)
}

fn replay(seed: u64) -> String {
    format!(
        "seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-protocol log::chain::tests::any_"
    )
}

fn seeds() -> Vec<u64> {
    match std::env::var("OMNIMESH_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..400).collect(),
    }
}

/// Every node sees all records, each in its own order.
#[test]
fn any_order_ends_alike() {
    let mut frozen = 0;
    for seed in seeds() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut records = universe(&mut rng);
        let expected = expected(&records);
        frozen += usize::from(expected.0.is_some());
        for _ in 0..8 {
            records.shuffle(&mut rng);
            let mut node = Node::new();
            for record in &records {
                node.give(record);
            }
            // What was dropped for a fork that a lower one has replaced comes from others.
            for record in &records {
                node.give(record);
            }
            assert_eq!((node.chain.proof().cloned(), node.chain.head()), expected, "{}", replay(seed));
        }
    }
    assert!(frozen > 0 || std::env::var("OMNIMESH_SEED").is_ok(), "some logs were frozen");
}

/// Each record is seen by some nodes only; they tell each other of their logs and proofs.
#[test]
fn any_split_ends_alike_after_exchange() {
    for seed in seeds() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut records = universe(&mut rng);
        let mut nodes: Vec<Node> = (0..4).map(|_| Node::new()).collect();
        for node in &mut nodes {
            records.shuffle(&mut rng);
            for record in &records {
                if rng.random_bool(0.5) {
                    node.give(record);
                }
            }
        }
        for _ in 0..8 {
            for teller in 0..nodes.len() {
                for listener in 0..nodes.len() {
                    if let Ok([teller, listener]) = nodes.get_disjoint_mut([teller, listener]) {
                        teller.tell(listener);
                    }
                }
            }
        }
        let end = |node: &Node| (node.chain.proof().cloned(), node.chain.head());
        for node in &nodes {
            assert_eq!(end(node), end(&nodes[0]), "{}", replay(seed));
        }
    }
}

proptest! {
    /// Room is kept whatever comes.
    #[test]
    fn room_is_kept(order in proptest::collection::vec((0_usize..40, any::<bool>()), 1..120)) {
        let branch = Author::new(1).branch(None, &[1; 40], 0);
        let room = Room { records: 5, bytes: 1200 };
        let mut chain = empty();
        for (index, is_asked) in order {
            chain.offer(branch[index].clone(), is_asked, room);
            chain.check_invariants();
            prop_assert!(chain.unasked.records <= room.records && chain.unasked.bytes <= room.bytes);
        }
    }
}

#[test]
fn what_a_checkpoint_covers_is_not_taken_back() {
    let mut author = Author::new(1);
    let log = author.branch(None, &[1; 10], 1);
    let other = author.record(5, 1, log[3].head().as_prev(), 10, 2);
    let proof = Proof::new(&log[4], &other).unwrap();
    let cut = CutHead { head: log[6].head(), step: log[6].step() };
    // The checkpoint first, then the proof; the other way round; and with the log ending before the cut.
    let mut sealed = Node::new();
    log.iter().for_each(|record| drop(sealed.give(record)));
    sealed.chain.seal(cut);
    sealed.freeze(&proof);
    assert_eq!((sealed.chain.head(), sealed.chain.limit()), (cut.head, cut.head.seq));
    assert_eq!(sealed.chain.offer(log[7].clone(), true, ROOM), Offered::BeyondFork);
    let mut frozen = Node::new();
    log.iter().for_each(|record| drop(frozen.give(record)));
    frozen.freeze(&proof);
    assert_eq!(frozen.chain.head(), log[3].head());
    frozen.chain.seal(cut);
    frozen.chain.reset(cut.head, cut.step);
    assert_eq!((frozen.chain.head(), frozen.chain.limit()), (cut.head, cut.head.seq));
    frozen.chain.check_invariants();
    // A fork behind the cut counts as ever.
    let mut behind = Node::new();
    log.iter().for_each(|record| drop(behind.give(record)));
    behind.chain.seal(CutHead { head: log[2].head(), step: log[2].step() });
    behind.freeze(&proof);
    assert_eq!(behind.chain.head(), log[3].head());
}
