//! Gossip: IHAVE, IWANT, promises.

use std::time::Duration;

use omnimesh_protocol::MessageId;
use omnimesh_protocol::gossip::{Config, Input, Verdict};

use crate::bench::{Bench, asked, id, ihave, is_validated, iwant, passive, receivers, told, topic};

/// A router in topic "t" with mesh peer 1 and subscribers 2 to 5 outside the mesh.
fn with_lazy_peers(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.subscribe("t");
    bench.connect_all(1..=5, "t");
    bench.graft_all([1], "t");
    assert_eq!(bench.mesh("t"), vec![1]);
    bench
}

fn accept(bench: &mut Bench, data: &str) {
    assert!(is_validated(&bench.send(1, "t", data)));
    bench.verdict("t", data, Verdict::Accept);
}

#[test]
fn those_outside_the_mesh_are_told_three_times() {
    let mut bench = with_lazy_peers(passive());
    bench.beat();
    accept(&mut bench, "a");
    bench.send(1, "t", "undecided");
    bench.send(1, "t", "bad");
    bench.verdict("t", "bad", Verdict::Reject);
    let everyone = vec![(2, 1), (3, 1), (4, 1), (5, 1)];
    for _ in 0..3 {
        assert_eq!(told(&bench.beat()), everyone);
    }
    assert_eq!(told(&bench.beat()), vec![]);
    assert_eq!(bench.state.stats().ihave_sent, 12);
}

#[test]
fn who_is_on_trial_is_told_of_messages_and_sent_none() {
    let mut bench = Bench::new(Config { lazy_degree: 0, gossip_factor: 0.0, ..passive() });
    bench.subscribe("t");
    bench.connect_all(1..=4, "t");
    bench.graft_all([1, 2, 3], "t");
    bench.handle(Input::Trial { peer: 2, until: bench.now + Duration::from_secs(5) });
    let accepted = |bench: &mut Bench, data: &str| {
        assert!(is_validated(&bench.send(1, "t", data)));
        receivers(&bench.verdict("t", data, Verdict::Accept))
    };
    assert_eq!(accepted(&mut bench, "a"), [3]);
    assert!(receivers(&bench.publish("t", "mine")).contains(&2), "what is our own comes from nobody else");
    assert_eq!(told(&bench.beat()), [(2, 2)], "nobody else in the mesh");
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("a")]))), [2], "it loses nothing");
    bench.wait(Duration::from_secs(5));
    assert_eq!(accepted(&mut bench, "b"), [2, 3]);
    assert_eq!(bench.state.stats().copies_tried, 1);
}

#[test]
fn gossip_goes_to_a_part_of_many() {
    let mut bench = Bench::new(Config { lazy_degree: 3, ..passive() });
    bench.subscribe("t");
    bench.connect_all(1..=41, "t");
    bench.graft_all([1], "t");
    accept(&mut bench, "a");
    assert_eq!(told(&bench.beat()).len(), 10, "a quarter of forty");
    let mut bench = with_lazy_peers(Config { lazy_degree: 3, ..passive() });
    accept(&mut bench, "a");
    assert_eq!(told(&bench.beat()).len(), 3, "the least");
    let mut bench = with_lazy_peers(Config { lazy_degree: 0, gossip_factor: 0.0, ..passive() });
    accept(&mut bench, "a");
    assert_eq!(told(&bench.beat()), vec![]);
}

#[test]
fn what_is_missing_is_asked_for() {
    let mut bench = with_lazy_peers(passive());
    accept(&mut bench, "seen");
    assert_eq!(asked(&bench.rpc(2, ihave("t", &[id("seen"), id("new")]))), vec![id("new")]);
    assert_eq!(asked(&bench.rpc(2, ihave("elsewhere", &[id("x")]))), vec![]);
    assert_eq!(asked(&bench.rpc(3, ihave("t", &[id("new")]))), vec![id("new")], "a second is asked");
    assert_eq!(asked(&bench.rpc(4, ihave("t", &[id("new")]))), vec![], "a third is not");
    bench.beat();
    assert_eq!(asked(&bench.rpc(4, ihave("t", &[id("new")]))), vec![id("new")], "but after a heartbeat");
    assert!(is_validated(&bench.send(3, "t", "new")));
    bench.beats(5);
    assert_eq!(bench.state.stats().broken_promises, 0, "it came, from whomever");
    assert_eq!(bench.state.stats().iwant_sent, 3);
}

#[test]
fn a_broken_promise_is_an_offence() {
    let mut bench = with_lazy_peers(passive());
    for at in 0..12 {
        bench.rpc(2, ihave("t", &[id(&at.to_string())]));
        bench.rpc(3, ihave("t", &[id(&at.to_string())]));
        bench.beat();
        if at < 6 {
            bench.send(3, "t", &at.to_string());
        }
    }
    assert_eq!(bench.score(2), 0.0);
    bench.beats(3);
    // Six came from 3 in time, which absolves 2 as well; the other six came from nobody.
    assert_eq!(bench.state.stats().broken_promises, 12);
    bench.rpc(2, ihave("t", &[id("x"), id("y"), id("z")]));
    bench.rpc(2, ihave("t", &[id("u")]));
    bench.rpc(2, ihave("t", &[id("v")]));
    bench.beats(4);
    assert_eq!(bench.state.stats().broken_promises, 15, "one for each IWANT");
    assert!(bench.score(2) < 0.0, "more than is forgiven: {}", bench.score(2));
    assert!(!bench.mesh("t").contains(&2));
}

#[test]
fn ihave_is_limited() {
    let mut bench = with_lazy_peers(Config { ihave_ids_max: 4, ihave_messages_max: 3, ..passive() });
    let ids = |from: u32, count: u32| -> Vec<MessageId> {
        (from..from + count).map(|at| id(&at.to_string())).collect()
    };
    assert_eq!(asked(&bench.rpc(2, ihave("t", &ids(0, 3)))).len(), 3);
    assert_eq!(asked(&bench.rpc(2, ihave("t", &ids(10, 3)))).len(), 1, "four ids in a heartbeat");
    assert_eq!(asked(&bench.rpc(2, ihave("t", &ids(20, 3)))).len(), 0);
    assert_eq!(bench.state.stats().shed_ihave, 5);
    bench.beat();
    for at in 0..5 {
        bench.rpc(2, ihave("t", &ids(100 + at, 1)));
    }
    assert_eq!(bench.state.stats().shed_ihave, 7, "three frames in a heartbeat");
}

#[test]
fn what_is_asked_for_is_served_three_times() {
    let mut bench = with_lazy_peers(passive());
    accept(&mut bench, "a");
    for _ in 0..3 {
        assert_eq!(receivers(&bench.rpc(2, iwant(&[id("a"), id("unknown")]))), vec![2]);
    }
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("a")]))), Vec::<u32>::new());
    assert_eq!(receivers(&bench.rpc(3, iwant(&[id("a"), id("a")]))), vec![3]);
    assert_eq!(receivers(&bench.rpc(1, iwant(&[id("a")]))), Vec::<u32>::new(), "it sent it to us");
    let stats = bench.state.stats();
    assert_eq!((stats.copies_sent_iwant, stats.shed_iwant, stats.iwant_received), (5, 1, 10));
}

#[test]
fn a_message_is_served_for_the_history() {
    let mut bench = with_lazy_peers(passive());
    bench.beat();
    accept(&mut bench, "a");
    bench.publish("t", "mine");
    bench.beats(5);
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("a")]))), vec![2]);
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("mine")]))), vec![2]);
    bench.beat();
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("a")]))), Vec::<u32>::new());
}

#[test]
fn a_message_is_told_from_its_verdict_on() {
    let mut bench = with_lazy_peers(passive());
    bench.send(1, "t", "slow");
    bench.beats(7);
    bench.verdict("t", "slow", Verdict::Accept);
    for _ in 0..3 {
        assert_eq!(told(&bench.beat()).len(), 4);
    }
    assert_eq!(told(&bench.beat()).len(), 0);
    bench.beat();
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("slow")]))), vec![2]);
    bench.beats(1);
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("slow")]))), Vec::<u32>::new());
}

#[test]
fn a_fanout_is_gossiped_too() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() });
    bench.connect_all(1..=20, "t");
    let eager = receivers(&bench.publish("t", "mine"));
    let lazy: Vec<u32> = told(&bench.beat()).into_iter().map(|(to, _)| to).collect();
    assert_eq!(lazy.len(), 6);
    assert!(lazy.iter().all(|peer| !eager.contains(peer)));
    assert_eq!(receivers(&bench.rpc(lazy[0], iwant(&[id("mine")]))), vec![lazy[0]]);
    assert_eq!(bench.state.topics(), vec![]);
}

#[test]
fn below_the_gossip_threshold_there_is_no_gossip() {
    let mut bench = with_lazy_peers(passive());
    accept(&mut bench, "a");
    bench.handle(Input::AppScore { peer: 2, score: -66.0 });
    assert_eq!(asked(&bench.rpc(2, ihave("t", &[id("new")]))), vec![]);
    assert_eq!(receivers(&bench.rpc(2, iwant(&[id("a")]))), Vec::<u32>::new());
    assert_eq!(told(&bench.beat()), vec![(3, 1), (4, 1), (5, 1)]);
    bench.handle(Input::AppScore { peer: 2, score: -65.0 });
    assert_eq!(told(&bench.beat()), vec![(2, 1), (3, 1), (4, 1), (5, 1)]);
}

#[test]
fn whoever_is_gone_breaks_no_promise() {
    let mut bench = with_lazy_peers(passive());
    bench.rpc(2, ihave("t", &[id("new")]));
    bench.handle(Input::Disconnected { peer: 2 });
    bench.connect(2);
    bench.wait(Duration::from_secs(10));
    bench.beats(2);
    assert_eq!(bench.state.stats().broken_promises, 0);
    assert_eq!(bench.state.topic_peers(&topic("t")), vec![1, 3, 4, 5]);
}
