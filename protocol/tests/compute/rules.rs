//! The choice of workers: each strategy, constraints, locality, and why there is nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::job::Constraints;
use omnimesh_protocol::compute::placement::{Offer, Pool, PoolConfig, Strategy, Unplaced, Wanted};
use omnimesh_protocol::{NodeId, Time};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use rand_core::SeedableRng;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn offer(slots: u32) -> Offer {
    Offer { slots, room: slots, memory_bytes: 1 << 30, ..Offer::default() }
}

fn pool(strategy: Strategy, workers: u8, slots: u32) -> Pool {
    let mut pool = Pool::new(PoolConfig { strategy, ..PoolConfig::default() });
    for n in 0..workers {
        pool.on_offer(Time::ZERO, node(n), offer(slots));
    }
    pool
}

fn nobody(_: &NodeId) -> bool {
    false
}

fn wanted(constraints: &Constraints) -> Wanted<'_> {
    Wanted {
        operation: "hash",
        constraints,
        memory_bytes: 0,
        inputs: &[],
        excluded: &nobody,
        slowness_max: u64::MAX,
        is_urgent: false,
    }
}

/// How often each worker is chosen out of so many times, with nothing assigned.
fn shares(pool: &mut Pool, times: usize) -> BTreeMap<NodeId, usize> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let constraints = Constraints::default();
    let mut shares = BTreeMap::new();
    for _ in 0..times {
        *shares.entry(pool.pick(&wanted(&constraints), &mut rng).unwrap()).or_default() += 1;
    }
    shares
}

#[test]
fn round_robin_takes_turns() {
    let shares = shares(&mut pool(Strategy::RoundRobin, 7, 1), 700);
    assert!(shares.values().all(|share| *share == 100) && shares.len() == 7, "{shares:?}");
}

#[test]
fn random_is_even() {
    for workers in [7, 200] {
        let shares = shares(&mut pool(Strategy::Random, workers, 1), 100 * usize::from(workers));
        assert_eq!(shares.len(), usize::from(workers));
        assert!(shares.values().all(|share| (50..160).contains(share)), "{workers}: {shares:?}");
    }
}

#[test]
fn the_weighted_follow_worth_and_room() {
    let mut pool = pool(Strategy::Weighted, 2, 10);
    pool.on_offer(Time::ZERO, node(1), offer(30));
    let shares = shares(&mut pool, 4000);
    let ratio = shares[&node(1)] as f64 / shares[&node(0)] as f64;
    assert!((2.5..3.6).contains(&ratio), "{ratio}");
}

#[test]
fn the_least_loaded_gets_it() {
    let mut pool = pool(Strategy::LeastConnections, 5, 10);
    for n in [0, 0, 1, 1, 2, 3, 3, 4] {
        pool.on_assigned(Time::ZERO, node(n));
    }
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let constraints = Constraints::default();
    let mut chosen = Vec::new();
    for _ in 0..2 {
        let next = pool.pick(&wanted(&constraints), &mut rng).unwrap();
        pool.on_assigned(Time::ZERO, next);
        chosen.push(next);
    }
    chosen.sort();
    assert_eq!(chosen, [node(2), node(4)]);
}

/// Mitzenmacher: with two choices the longest queue of n balls in n bins is about log log n, with one about log n / log log n.
#[test]
fn two_choices_are_much_better_than_one() {
    let longest = |strategy| {
        let mut pool = pool(strategy, 250, 100);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let constraints = Constraints::default();
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for _ in 0..250 {
            let next = pool.pick(&wanted(&constraints), &mut rng).unwrap();
            pool.on_assigned(Time::ZERO, next);
            *load.entry(next).or_default() += 1;
        }
        load.into_values().max().unwrap()
    };
    let (one, two) = (longest(Strategy::Random), longest(Strategy::PowerOfTwo));
    assert!(two <= 3 && one > two, "{one}, {two}");
}

#[test]
fn nobody_waits_at_a_holder_while_others_are_idle() {
    let mut pool = pool(Strategy::LeastConnections, 3, 1);
    // It would take two, and let one wait.
    pool.on_offer(Time::ZERO, node(1), Offer { room: 2, ..offer(1) });
    let blob = BlobRef { size: 1 << 20, ..BlobRef::of(b"x") };
    pool.on_holds(node(1), blob.hash);
    let constraints = Constraints::default();
    let wanted = Wanted { inputs: &[blob], ..wanted(&constraints) };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    assert_eq!(pool.pick(&wanted, &mut rng), Some(node(1)));
    pool.on_assigned(Time::ZERO, node(1));
    assert_ne!(pool.pick(&wanted, &mut rng), Some(node(1)));
}

#[test]
fn the_slow_and_the_failing_get_less() {
    let mut pool = pool(Strategy::PowerOfTwo, 3, 10);
    let second = Duration::from_secs(1);
    for _ in 0..30 {
        for n in 0..3 {
            pool.on_assigned(Time::ZERO, node(n));
        }
        pool.on_success(Time::ZERO, node(0), second, Some(second));
        pool.on_success(Time::ZERO, node(1), 10 * second, Some(second));
        pool.on_success(Time::ZERO, node(2), second, Some(second));
    }
    pool.on_dissent(&node(2));
    let shares = shares(&mut pool, 900);
    assert!(shares[&node(0)] > shares.get(&node(2)).copied().unwrap_or(0), "{shares:?}");
    assert!(shares.get(&node(1)).copied().unwrap_or(0) < 150, "{shares:?}");
    assert!(pool.slowness(&node(1)) > 5000);
    let view = pool.view(Time::ZERO);
    assert_eq!(view[1].health.p50, Some(10 * second));
}

#[test]
fn the_slow_get_what_nobody_faster_could_do() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let second = Duration::from_secs(1);
    for strategy in Strategy::ALL {
        // 0 is fast, 1 and 2 are slow, 3 is not known.
        let mut pool = pool(strategy, 4, 1);
        for (n, factor) in [(0, 1), (1, 10), (2, 10)] {
            pool.on_assigned(Time::ZERO, node(n));
            pool.on_success(Time::ZERO, node(n), factor * second, Some(second));
        }
        pool.on_assigned(Time::ZERO, node(0));
        pool.on_assigned(Time::ZERO, node(3));
        let constraints = Constraints::default();
        let wanted = Wanted { slowness_max: 2000, ..wanted(&constraints) };
        assert_eq!(pool.pick(&wanted, &mut rng), None, "the fast one will have room: {}", strategy.code());
        // It has done this task already, or keeps failing.
        let excluded = |of: &NodeId| *of == node(0);
        let without = Wanted { excluded: &excluded, ..wanted };
        assert_eq!(pool.pick(&without, &mut rng), None, "so may one that is not known: {}", strategy.code());
        // It does not answer, and is asked for something else.
        pool.on_failure(Time::ZERO, node(3));
        pool.on_assigned(Time::ZERO, node(3));
        let picked = pool.pick(&without, &mut rng).unwrap();
        assert!([node(1), node(2)].contains(&picked), "{}", strategy.code());
        for _ in 0..5 {
            pool.on_failure(Time::ZERO, node(0));
        }
        assert!(pool.pick(&wanted, &mut rng).is_some(), "{}", strategy.code());
    }
}

#[test]
fn what_is_waited_for_goes_to_who_has_shown_how_fast_it_is() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let second = Duration::from_secs(1);
    for strategy in Strategy::ALL {
        let mut pool = pool(strategy, 5, 1);
        pool.on_assigned(Time::ZERO, node(2));
        pool.on_success(Time::ZERO, node(2), second, Some(second));
        let constraints = Constraints::default();
        let urgent = Wanted { is_urgent: true, ..wanted(&constraints) };
        for _ in 0..20 {
            assert_eq!(pool.pick(&urgent, &mut rng), Some(node(2)), "{}", strategy.code());
        }
        pool.on_assigned(Time::ZERO, node(2));
        let other = pool.pick(&urgent, &mut rng);
        assert!(other.is_some_and(|other| other != node(2)), "{}: anybody else, then", strategy.code());
    }
}

#[test]
fn the_task_goes_to_its_input() {
    let mut pool = pool(Strategy::PowerOfTwo, 50, 1);
    let large = BlobRef { size: 1 << 30, ..BlobRef::of(b"large") };
    let small = BlobRef { size: 10, ..BlobRef::of(b"small") };
    pool.on_holds(node(33), large.hash);
    pool.on_holds(node(12), small.hash);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let constraints = Constraints::default();
    let inputs = [small, large];
    let near = Wanted { inputs: &inputs, ..wanted(&constraints) };
    assert_eq!(pool.pick(&near, &mut rng), Some(node(33)));
    // Without room there, anybody will do; nor does a small input matter.
    pool.on_assigned(Time::ZERO, node(33));
    assert_ne!(pool.pick(&near, &mut rng), Some(node(33)));
    let inputs = [small];
    let near = Wanted { inputs: &inputs, ..wanted(&constraints) };
    let picks: Vec<_> = (0..20).map(|_| pool.pick(&near, &mut rng)).collect();
    assert!(picks.iter().any(|pick| *pick != Some(node(12))));
}

#[test]
fn why_there_is_nobody() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let constraints = Constraints::default();
    let mut why = |pool: &mut Pool, wanted: &Wanted<'_>| {
        assert_eq!(pool.pick(wanted, &mut rng), None);
        pool.why_not(Time::ZERO, wanted)
    };
    let mut empty = Pool::new(PoolConfig::default());
    assert_eq!(why(&mut empty, &wanted(&constraints)), Unplaced::NoWorkers);
    // Who takes no work is not busy.
    empty.on_offer(Time::ZERO, node(9), offer(0));
    assert_eq!(why(&mut empty, &wanted(&constraints)), Unplaced::NoWorkers);
    let mut pool = pool(Strategy::PowerOfTwo, 2, 1);
    pool.on_offer(Time::ZERO, node(9), offer(0));
    for (constraints, lacks) in [
        (
            Constraints { labels: [("gpu".to_owned(), "yes".to_owned())].into(), ..Constraints::default() },
            "gpu = yes",
        ),
        (Constraints { region: Some("mars".to_owned()), ..Constraints::default() }, "the region mars"),
        (Constraints { memory_bytes: 1 << 40, ..Constraints::default() }, "1099511627776 bytes of memory"),
    ] {
        let reason = why(&mut pool, &wanted(&constraints));
        assert!(reason.to_string().contains(lacks), "{reason}");
        assert!(matches!(reason, Unplaced::NoMatch { workers: 2, .. }));
    }
    let other = Wanted { operation: "fly", ..wanted(&constraints) };
    assert!(why(&mut pool, &other).to_string().contains("the operation fly"));
    let all = |_: &NodeId| true;
    let excluded = Wanted { excluded: &all, ..wanted(&constraints) };
    assert_eq!(why(&mut pool, &excluded), Unplaced::Excluded { matching: 2 });
    // The fast one is busy, and worth waiting for.
    let second = Duration::from_secs(1);
    pool.on_assigned(Time::ZERO, node(0));
    pool.on_success(Time::ZERO, node(0), second, Some(second));
    pool.on_assigned(Time::ZERO, node(1));
    pool.on_success(Time::ZERO, node(1), 10 * second, Some(second));
    pool.on_assigned(Time::ZERO, node(0));
    let fast = Wanted { slowness_max: 2000, ..wanted(&constraints) };
    assert_eq!(why(&mut pool, &fast), Unplaced::TooSlow { matching: 2 });
    pool.on_assigned(Time::ZERO, node(1));
    assert_eq!(why(&mut pool, &wanted(&constraints)), Unplaced::AllBusy { matching: 2 });
    for _ in 0..5 {
        for n in 0..2 {
            pool.on_failure(Time::ZERO, node(n));
        }
    }
    assert_eq!(why(&mut pool, &wanted(&constraints)), Unplaced::BreakersOpen { matching: 2 });
    // After the cool-down each gets one attempt.
    let later = pool.next_open().unwrap();
    pool.refresh(later);
    assert_eq!(pool.free(), 2);
}

#[derive(Clone, Debug)]
enum Event {
    Offer(u8, u32),
    Gone(u8),
    Assigned(u8),
    Success(u8),
    Failure(u8),
    Busy(u8),
    Later(u64),
}

proptest! {
    #[test]
    fn the_pool_keeps_its_books(events in proptest::collection::vec(prop_oneof![
        (0_u8..6, 0_u32..4).prop_map(|(n, slots)| Event::Offer(n, slots)),
        (0_u8..6).prop_map(Event::Gone),
        (0_u8..6).prop_map(Event::Assigned),
        (0_u8..6).prop_map(Event::Success),
        (0_u8..6).prop_map(Event::Failure),
        (0_u8..6).prop_map(Event::Busy),
        (0_u64..20_000).prop_map(Event::Later),
    ], 0..200)) {
        let mut pool = Pool::new(PoolConfig { workers_max: 5, ..PoolConfig::default() });
        let mut now = Time::ZERO;
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let constraints = Constraints::default();
        for event in events {
            match event {
                Event::Offer(n, slots) => drop(pool.on_offer(now, node(n), offer(slots))),
                Event::Gone(n) => pool.on_gone(&node(n)),
                Event::Assigned(n) => pool.on_assigned(now, node(n)),
                Event::Success(n) => pool.on_success(now, node(n), Duration::from_millis(5), None),
                Event::Failure(n) => drop(pool.on_failure(now, node(n))),
                Event::Busy(n) => pool.on_busy(now, node(n)),
                Event::Later(ms) => {
                    now = now + Duration::from_millis(ms);
                    pool.refresh(now);
                }
            }
            pool.check_invariants();
            prop_assert_eq!(pool.pick(&wanted(&constraints), &mut rng).is_some(), pool.free() > 0);
        }
    }
}
