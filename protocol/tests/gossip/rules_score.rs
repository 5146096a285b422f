//! Peer scores: the parts P1 to P7, thresholds, and what outlives a connection.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use omnimesh_protocol::gossip::wire::{Refused, RefusedReason};
use omnimesh_protocol::gossip::{
    Config, Direction, DisconnectReason, Input, Output, Protocol, ScoreConfig, TopicScore, Verdict,
};

use crate::bench::{Bench, Out, graft, grafted, passive, prune, pruned, receivers, subscription, topic};

/// Scores whose parts are plain numbers: weights one, no decay to speak of.
fn plain() -> ScoreConfig {
    ScoreConfig {
        behaviour_threshold: 0.0,
        behaviour_weight: -1.0,
        behaviour_decay: 0.999_999,
        topic: TopicScore {
            time_in_mesh_weight: 0.0,
            first_deliveries_weight: 0.0,
            first_deliveries_decay: 0.999_999,
            invalid_decay: 0.999_999,
            ..TopicScore::default()
        },
        ..ScoreConfig::default()
    }
}

fn bench_with(score: ScoreConfig) -> Bench {
    let mut bench = Bench::new(Config { score: Some(score), ..passive() });
    bench.subscribe("t");
    bench.connect_all(1..=3, "t");
    bench
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.01
}

fn is_sent_away(outputs: &[Out], peer: u32) -> bool {
    outputs.contains(&Output::Disconnect { peer, reason: DisconnectReason::Graylisted })
}

#[test]
fn p1_time_in_the_mesh_counts_up_to_its_cap() {
    let mut score = plain();
    score.topic.time_in_mesh_weight = 0.5;
    score.topic.time_in_mesh_cap = 20.0;
    let mut bench = bench_with(score);
    bench.rpc(1, graft("t"));
    bench.wait(Duration::from_secs(10));
    assert!(near(bench.score(1), 5.0), "{}", bench.score(1));
    bench.wait(Duration::from_secs(90));
    assert!(near(bench.score(1), 10.0));
    assert_eq!(bench.score(2), 0.0);
    bench.rpc(1, prune("t", None));
    assert_eq!(bench.score(1), 0.0);
}

#[test]
fn p2_first_deliveries_count_up_to_their_cap_and_fade() {
    let mut score = plain();
    score.topic.first_deliveries_weight = 2.0;
    score.topic.first_deliveries_cap = 3.0;
    score.topic.first_deliveries_decay = 0.5;
    let mut bench = bench_with(score);
    for at in 0..5 {
        let data = at.to_string();
        bench.send(1, "t", &data);
        bench.send(2, "t", &data);
        assert_eq!(bench.score(1), f64::from(at.min(3)) * 2.0, "only a valid one counts");
        bench.verdict("t", &data, Verdict::Accept);
    }
    assert_eq!((bench.score(1), bench.score(2)), (6.0, 0.0));
    bench.beats(2);
    assert!(bench.score(1) <= 3.0);
    bench.beats(20);
    assert_eq!(bench.score(1), 0.0);
}

#[test]
fn p3_a_mesh_peer_that_brings_too_little_is_pruned_and_it_sticks() {
    let mut score = plain();
    score.topic = TopicScore {
        mesh_deliveries_weight: -1.0,
        mesh_deliveries_threshold: 2.5,
        mesh_deliveries_decay: 0.999_999,
        mesh_failure_weight: -2.0,
        mesh_failure_decay: 0.999_999,
        ..score.topic
    };
    let mut bench = bench_with(score);
    bench.graft_all(1..=3, "t");
    for at in 0..3 {
        let data = at.to_string();
        bench.send(1, "t", &data);
        bench.verdict("t", &data, Verdict::Accept);
        bench.wait(Duration::from_millis(5));
        bench.send(2, "t", &data);
        bench.wait(Duration::from_millis(10));
        bench.send(3, "t", &data);
    }
    assert_eq!(bench.score(3), 0.0, "not yet active");
    bench.wait(Duration::from_secs(6));
    assert_eq!((bench.score(1), bench.score(2)), (0.0, 0.0), "a near copy counts as well");
    assert_eq!(bench.score(3), -6.25, "a late one does not");
    assert_eq!(pruned(&bench.beat()), vec![(3, Some(60))]);
    assert!(near(bench.score(3), -12.5), "P3b: {}", bench.score(3));
}

#[test]
fn p4_everyone_who_sent_an_invalid_message_is_blamed() {
    let mut bench = bench_with(plain());
    bench.send(1, "t", "bad");
    bench.send(2, "t", "bad");
    bench.verdict("t", "bad", Verdict::Reject);
    assert_eq!((bench.score(1), bench.score(2), bench.score(3)), (-1.0, -1.0, 0.0));
    bench.send(3, "t", "bad");
    assert_eq!(bench.score(3), -1.0, "later too");
    bench.send(1, "t", "ignored");
    bench.verdict("t", "ignored", Verdict::Ignore);
    let refused = vec![Refused { topic: Some(topic("t")), reason: RefusedReason::Signature }; 2];
    bench.handle(Input::Refused { from: 1, refused });
    assert_eq!(bench.score(1), -9.0, "the square of three");
    assert_eq!(bench.state.stats().refused, 2);
}

#[test]
fn p4_reaches_a_sender_that_left() {
    let mut score = plain();
    score.topic.invalid_weight = -5.0;
    let mut bench = bench_with(score);
    bench.send(1, "t", "first");
    bench.verdict("t", "first", Verdict::Reject);
    bench.send(1, "t", "bad");
    bench.handle(Input::Disconnected { peer: 1 });
    bench.verdict("t", "bad", Verdict::Reject);
    bench.connect(1);
    assert_eq!(bench.score(1), -20.0);
}

#[test]
fn p5_the_application_has_its_say() {
    let mut bench = bench_with(ScoreConfig { app_weight: 2.0, ..plain() });
    bench.handle(Input::AppScore { peer: 1, score: 4.0 });
    assert_eq!(bench.score(1), 8.0);
    bench.handle(Input::AppScore { peer: 1, score: f64::NAN });
    assert_eq!(bench.score(1), 0.0);
}

#[test]
fn p6_many_peers_at_one_address() {
    let score = ScoreConfig { colocation_threshold: 2, colocation_weight: -1.0, ..plain() };
    let mut bench = Bench::new(Config { score: Some(score), ..passive() });
    let connect = |bench: &mut Bench, peer, last| {
        let ip = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        bench.handle(Input::Connected {
            peer,
            protocol: Protocol::Meshsub12,
            direction: Direction::Inbound,
            ip,
        });
    };
    for peer in 1..=4 {
        connect(&mut bench, peer, 1);
    }
    connect(&mut bench, 5, 2);
    assert_eq!((bench.score(1), bench.score(4), bench.score(5)), (-4.0, -4.0, 0.0));
    bench.handle(Input::Disconnected { peer: 2 });
    assert_eq!((bench.score(1), bench.score(4)), (-1.0, -1.0));
    for peer in 10..20 {
        let ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (protocol, direction) = (Protocol::Meshsub12, Direction::Inbound);
        bench.handle(Input::Connected { peer, protocol, direction, ip });
        assert_eq!(bench.score(peer), 0.0, "loopback does not count");
    }
}

#[test]
fn p7_offences_are_squared_above_what_is_forgiven_and_fade() {
    let score = ScoreConfig { behaviour_threshold: 2.0, behaviour_decay: 0.5, ..plain() };
    let mut bench = bench_with(score);
    for expected in [0.0, 0.0, -1.0, -4.0, -9.0] {
        bench.handle(Input::Malformed { from: 1 });
        assert_eq!(bench.score(1), expected);
    }
    assert_eq!(bench.state.stats().malformed, 5);
    bench.beats(2);
    assert!(bench.score(1) > -1.0);
}

#[test]
fn graft_floods_count_twice() {
    let mut bench = bench_with(plain());
    bench.rpc(1, graft("t"));
    bench.rpc(1, prune("t", Some(60)));
    bench.wait(Duration::from_secs(20));
    bench.rpc(1, graft("t"));
    assert_eq!(bench.score(1), -1.0);
    bench.wait(Duration::from_secs(5));
    bench.rpc(1, graft("t"));
    assert_eq!(bench.score(1), -9.0, "one and two, squared");
}

#[test]
fn topics_can_have_their_own_parameters() {
    let own = TopicScore { invalid_weight: -3.0, ..plain().topic };
    let mut bench = bench_with(ScoreConfig { topics: vec![(topic("u"), own)], ..plain() });
    bench.subscribe("u");
    bench.send(1, "u", "bad");
    bench.verdict("u", "bad", Verdict::Reject);
    assert_eq!(bench.score(1), -3.0);
}

#[test]
fn the_graylisted_are_not_heard_and_sent_away() {
    let mut bench = bench_with(plain());
    bench.rpc(1, graft("t"));
    bench.handle(Input::AppScore { peer: 1, score: -81.0 });
    let outputs = bench.send(1, "t", "x");
    assert!(is_sent_away(&outputs, 1));
    assert_eq!(outputs.len(), 2, "that, and the event of leaving the mesh");
    assert_eq!(bench.send(1, "t", "x"), vec![]);
    assert_eq!(bench.state.stats().graylisted, 2);
    assert_eq!(receivers(&bench.publish("t", "mine")), vec![2, 3]);
    bench.handle(Input::Disconnected { peer: 1 });
    assert!(is_sent_away(&bench.connect(1), 1), "its score was kept");
    // A heartbeat finds those who say nothing.
    bench.handle(Input::AppScore { peer: 2, score: -81.0 });
    assert!(is_sent_away(&bench.beat(), 2));
}

#[test]
fn malformed_frames_lead_to_the_graylist() {
    let mut bench = bench_with(ScoreConfig::default());
    let count = (1..100).find(|_| is_sent_away(&bench.handle(Input::Malformed { from: 1 }), 1));
    assert_eq!(count, Some(9));
}

#[test]
fn a_bad_score_outlives_the_connection_for_its_time() {
    let mut bench = bench_with(ScoreConfig { retain: Duration::from_secs(100), ..plain() });
    bench.handle(Input::Malformed { from: 1 });
    bench.handle(Input::AppScore { peer: 2, score: 5.0 });
    for peer in 1..=3 {
        bench.handle(Input::Disconnected { peer });
    }
    assert!(near(bench.score(1), -1.0));
    assert_eq!((bench.state.score(&2), bench.state.score(&3)), (None, None), "nothing bad to keep");
    assert_eq!(bench.state.peers(), Vec::<u32>::new());
    bench.wait(Duration::from_secs(50));
    bench.beat();
    bench.connect(1);
    assert!(near(bench.score(1), -1.0));
    bench.handle(Input::Disconnected { peer: 1 });
    bench.wait(Duration::from_secs(101));
    bench.beat();
    assert_eq!(bench.state.score(&1), None);
}

#[test]
fn kept_scores_are_bounded() {
    let mut bench =
        Bench::new(Config { score: Some(ScoreConfig { retained_max: 3, ..plain() }), ..passive() });
    for peer in 1..=5 {
        bench.connect(peer);
        bench.handle(Input::Malformed { from: peer });
        bench.handle(Input::Disconnected { peer });
        bench.wait(Duration::from_secs(1));
    }
    let kept: Vec<u32> = (1..=5).filter(|peer| bench.state.score(peer).is_some()).collect();
    assert_eq!(kept, vec![3, 4, 5]);
}

#[test]
fn negative_peers_are_neither_grafted_nor_kept_in_the_mesh() {
    let mut bench = Bench::new(Config { mesh_degree_low: 3, mesh_degree_out: 0, ..Config::default() });
    bench.connect_all(1..=6, "t");
    for peer in 4..=6 {
        bench.handle(Input::AppScore { peer, score: -0.5 });
    }
    bench.subscribe("t");
    assert_eq!(bench.mesh("t"), vec![1, 2, 3]);
    assert_eq!(pruned(&bench.rpc(4, graft("t"))), vec![(4, Some(60))]);
    bench.handle(Input::AppScore { peer: 1, score: -0.5 });
    bench.handle(Input::AppScore { peer: 6, score: 0.5 });
    let outputs = bench.beat();
    assert_eq!((pruned(&outputs), grafted(&outputs)), (vec![(1, Some(60))], vec![6]));
}

#[test]
fn below_the_publish_threshold_there_is_no_flood_publish() {
    let mut bench = bench_with(plain());
    bench.handle(Input::AppScore { peer: 2, score: -71.0 });
    assert_eq!(receivers(&bench.publish("t", "mine")), vec![1, 3]);
    bench.connect(4);
    bench.rpc(4, subscription("fan", true));
    bench.handle(Input::AppScore { peer: 4, score: -71.0 });
    assert_eq!(receivers(&bench.publish("fan", "mine")), Vec::<u32>::new());
}

#[test]
fn pruning_keeps_the_best() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect_all(1..=12, "t");
    bench.graft_all(1..=12, "t");
    bench.connect_as(13, Protocol::Meshsub12, Direction::Outbound);
    bench.rpc(13, graft("t"));
    for peer in [3, 5, 7, 9] {
        bench.handle(Input::AppScore { peer, score: 10.0 });
    }
    bench.beat();
    let mesh = bench.mesh("t");
    assert_eq!(mesh.len(), 6);
    assert!([3, 5, 7, 9].iter().all(|peer| mesh.contains(peer)), "{mesh:?}");
}

#[test]
fn a_poor_mesh_grafts_better_peers() {
    let mut bench = Bench::new(Config { opportunistic_graft_beats: 5, ..passive() });
    bench.subscribe("t");
    bench.connect_all(1..=10, "t");
    bench.graft_all(1..=4, "t");
    for peer in 5..=10 {
        bench.handle(Input::AppScore { peer, score: if peer < 8 { 3.0 } else { 0.0 } });
    }
    let mut outputs = Vec::new();
    for _ in 0..5 {
        assert_eq!(grafted(&outputs), Vec::<u32>::new());
        outputs = bench.beat();
    }
    let added = grafted(&outputs);
    assert_eq!(added.len(), 2);
    assert!(added.iter().all(|peer| (5..8).contains(peer)), "{added:?}");
}

#[test]
fn without_scores_nobody_is_judged() {
    let mut bench = Bench::new(Config { score: None, ..passive() });
    bench.subscribe("t");
    bench.connect_all([1], "t");
    for at in 0..100 {
        bench.handle(Input::Malformed { from: 1 });
        bench.send(1, "t", &at.to_string());
        bench.verdict("t", &at.to_string(), Verdict::Reject);
    }
    bench.handle(Input::AppScore { peer: 1, score: -1e9 });
    bench.beat();
    assert_eq!(bench.score(1), 0.0);
    bench.handle(Input::Disconnected { peer: 1 });
    assert_eq!(bench.state.score(&1), None);
}
