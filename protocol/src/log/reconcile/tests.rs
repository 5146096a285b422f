use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::record::Head;
use super::super::wire::Frame;
use super::*;

fn head(author: [u8; 32], seq: u64) -> AuthorHead {
    let head = Head { seq: Seq(seq), digest: Hash::of(&[&author[..], &seq.to_le_bytes()].concat()) };
    AuthorHead { author: NodeId::from_bytes(author), head, proof: None }
}

fn set(heads: &[AuthorHead]) -> HeadSet {
    let mut set = HeadSet::new();
    heads.iter().for_each(|head| set.put(*head));
    set
}

/// What a comparison costs and finds.
#[derive(Debug, Default)]
struct Cost {
    bytes: usize,
    frames: usize,
    largest: usize,
    found: [Vec<AuthorHead>; 2],
}

impl Cost {
    fn add(&mut self, frame: &Frame) {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes).as_ref(), Ok(frame), "what is sent is read");
        self.bytes += bytes.len();
        self.largest = self.largest.max(bytes.len());
    }
}

/// One comparison to its end; `found[i]` is what side i learned that the other has.
fn compare(sides: [&HeadSet; 2]) -> Cost {
    let mut cost = Cost::default();
    let mut ranges = vec![sides[0].all()];
    let mut to = 1;
    loop {
        cost.add(&Frame::Compare { round: 1, ranges: ranges.clone() });
        cost.frames += 1;
        if ranges.is_empty() {
            return cost;
        }
        let answer = sides[to].answer(&ranges);
        cost.found[to].extend(&answer.theirs);
        if !answer.ours.is_empty() {
            cost.add(&Frame::Heads(answer.ours.clone()));
            cost.found[1 - to].extend(&answer.ours);
        }
        (ranges, to) = (answer.ranges, 1 - to);
        assert!(cost.frames < 1000, "a comparison ends");
    }
}

/// Every head that is news to a side is found by it.
fn check(sides: [&HeadSet; 2], cost: &Cost) {
    for (side, other, found) in [(sides[0], sides[1], &cost.found[0]), (sides[1], sides[0], &cost.found[1])] {
        for head in other.iter() {
            let own = side.get(&head.author);
            let is_news = own.is_none_or(|own| own.head.seq <= head.head.seq && own != head);
            assert!(!is_news || found.contains(head), "{head:?} is not found");
        }
        assert!(found.iter().all(|head| side.get(&head.author) != Some(head)), "found what was known");
    }
}

#[test]
fn a_sum_can_be_taken_back() {
    let heads: Vec<AuthorHead> = (0..50).map(|n| head([n; 32], 1)).collect();
    let mut changed = set(&heads);
    changed.put(head([7; 32], 9));
    assert_ne!(changed.fingerprint(), set(&heads).fingerprint());
    changed.put(heads[7]);
    assert_eq!(changed.fingerprint(), set(&heads).fingerprint());
    changed.put(AuthorHead { head: Head::EMPTY, ..heads[7] });
    let without: Vec<AuthorHead> = heads.iter().filter(|head| **head != heads[7]).copied().collect();
    assert_eq!(changed.fingerprint(), set(&without).fingerprint());
}

#[test]
fn an_empty_node_learns_all() {
    let heads: Vec<AuthorHead> = (0..=255).map(|n| head([n; 32], 1)).collect();
    let (full, empty) = (set(&heads), HeadSet::new());
    for sides in [[&full, &empty], [&empty, &full]] {
        check(sides, &compare(sides));
    }
}

proptest! {
    #[test]
    fn what_differs_is_found(
        // Few values for the first bytes, so that prefixes get long.
        common in proptest::collection::vec((proptest::collection::vec(0_u8..3, 4), 1_u64..4), 0..400),
        one in proptest::collection::vec((proptest::collection::vec(0_u8..3, 4), 1_u64..6), 0..30),
        other in proptest::collection::vec((proptest::collection::vec(0_u8..3, 4), 1_u64..6), 0..30),
    ) {
        let heads = |items: &[(Vec<u8>, u64)]| {
            let author = |bytes: &[u8]| {
                let mut author = [0; 32];
                author[..4].copy_from_slice(bytes);
                author
            };
            items.iter().map(|(bytes, seq)| head(author(bytes), *seq)).collect::<Vec<_>>()
        };
        let (mut a, mut b) = (set(&heads(&common)), set(&heads(&common)));
        heads(&one).into_iter().for_each(|head| a.put(head));
        heads(&other).into_iter().for_each(|head| b.put(head));
        check([&a, &b], &compare([&a, &b]));
    }
}

#[test]
fn equal_nodes_need_less_than_a_hundred_bytes() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let heads: Vec<AuthorHead> = (0..1000).map(|_| head(rng.random(), 1000)).collect();
    let (a, b) = (set(&heads), set(&heads));
    let cost = compare([&a, &b]);
    assert!(cost.bytes < 100 && cost.frames == 2, "{cost:?}");
}

/// Bytes and round trips, beside the bytes of the heads that are news (72 each): `cargo test -p omnimesh-protocol --lib
/// log::reconcile::tests::table -- --ignored --nocapture`.
#[test]
#[ignore = "prints a table"]
fn table() {
    println!(
        "{:>9} {:>7} {:>9} {:>11} {:>10} {:>8} {:>8}",
        "authors", "differ", "bytes", "round trips", "per head", "least", "largest"
    );
    for n in [1_000, 10_000, 100_000, 1_000_000] {
        for d in [0, 1, 10, 100, 1_000, 10_000] {
            if d > n {
                continue;
            }
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let heads: Vec<AuthorHead> = (0..n).map(|_| head(rng.random(), 1000)).collect();
            let a = set(&heads);
            let mut b = a.clone();
            for behind in 0..d {
                let behind = heads[behind * (n / d)];
                b.put(head(*behind.author.as_bytes(), 900));
            }
            let cost = compare([&b, &a]);
            check([&b, &a], &cost);
            println!(
                "{n:>9} {d:>7} {:>9} {:>11} {:>10} {:>8} {:>8}",
                cost.bytes,
                cost.frames.div_ceil(2),
                cost.bytes.checked_div(d).unwrap_or(0),
                72 * d,
                cost.largest,
            );
        }
    }
}
