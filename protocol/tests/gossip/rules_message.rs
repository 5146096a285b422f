//! Messages: validation, forwarding, duplicates, IDONTWANT, publishing, fanout.

use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::gossip::{
    Class, Config, Direction, Input, Message, Output, Protocol, PublishError, Rpc, Verdict,
};

use crate::bench::{
    Bench, id, idontwant, is_validated, message, passive, receivers, sent, subscription, topic,
};

/// A router in topic "t" with mesh peers 1 to 4.
fn meshed(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.subscribe("t");
    bench.connect_all(1..=4, "t");
    bench.graft_all(1..=4, "t");
    assert_eq!(bench.mesh("t"), vec![1, 2, 3, 4]);
    bench
}

#[test]
fn a_message_is_validated_once_and_forwarded_to_those_without_it() {
    let mut bench = meshed(passive());
    let validate =
        Output::Validate { from: 1, id: id("hello"), topic: topic("t"), data: Bytes::from_static(b"hello") };
    assert_eq!(bench.send(1, "t", "hello"), vec![validate]);
    assert_eq!(bench.send(2, "t", "hello"), vec![]);
    assert_eq!(bench.send(2, "t", "hello"), vec![]);
    let forward =
        |to| Output::Send { to, rpc: Rpc::of_message(message("t", "hello")), class: Class::Forwarded };
    assert_eq!(bench.verdict("t", "hello", Verdict::Accept), vec![forward(3), forward(4)]);
    assert_eq!(bench.send(3, "t", "hello"), vec![]);
    assert_eq!(bench.verdict("t", "hello", Verdict::Accept), vec![], "one verdict");
    let stats = bench.state.stats();
    assert_eq!((stats.copies_received, stats.duplicates, stats.validating), (4, 3, 1));
    assert_eq!((stats.accepted, stats.copies_sent_forwarded, stats.verdicts_late), (1, 2, 1));
}

#[test]
fn an_ignored_or_rejected_message_goes_nowhere() {
    let mut bench = meshed(passive());
    for verdict in [Verdict::Ignore, Verdict::Reject] {
        let data = format!("{verdict:?}");
        let copy_of = |from| Output::CopyOfRefused { from, id: id(&data) };
        bench.send(1, "t", &data);
        bench.send(3, "t", &data);
        assert_eq!(bench.verdict("t", &data, verdict), vec![copy_of(3)], "who brought it before the verdict");
        assert_eq!(bench.send(2, "t", &data), vec![copy_of(2)], "it stays seen");
        assert_eq!(bench.send(2, "t", &data), vec![], "told once");
        assert_eq!(receivers(&bench.rpc(2, crate::bench::iwant(&[id(&data)]))), Vec::<u32>::new());
    }
    assert_eq!((bench.state.stats().ignored, bench.state.stats().rejected), (1, 1));
}

#[test]
fn the_same_again_is_brought_once() {
    let mut bench = meshed(passive());
    let brought = |bench: &crate::bench::Bench, peer| {
        bench.state.contributions().find(|contribution| contribution.peer == peer).unwrap().copies
    };
    for _ in 0..3 {
        bench.send(1, "t", "x");
        bench.send(2, "t", "x");
    }
    bench.verdict("t", "x", Verdict::Accept);
    bench.send(2, "t", "x");
    assert_eq!((brought(&bench, 1), brought(&bench, 2), brought(&bench, 3)), (1, 1, 0));
}

#[test]
fn messages_of_other_topics_are_unwanted() {
    let mut bench = meshed(passive());
    assert_eq!(bench.send(1, "other", "x"), vec![]);
    assert_eq!(bench.state.stats().unwanted, 1);
    // It was not marked as seen there.
    bench.subscribe("other");
    assert!(is_validated(&bench.send(1, "other", "x")));
}

#[test]
fn a_message_under_a_wrong_topic_does_not_hide_the_right_one() {
    let mut bench = meshed(passive());
    bench.subscribe("wrong");
    assert!(is_validated(&bench.send(1, "wrong", "x")));
    assert!(is_validated(&bench.send(2, "t", "x")));
    bench.verdict("wrong", "x", Verdict::Reject);
    assert_eq!(bench.score(2), 0.0);
    assert_eq!(receivers(&bench.verdict("t", "x", Verdict::Accept)), vec![1, 3, 4]);
    assert!(bench.score(1) < 0.0);
}

#[test]
fn a_large_message_is_answered_by_idontwant() {
    let config = Config { idontwant_bytes_min: 10, ..passive() };
    let mut bench = meshed(config);
    bench.connect_as(5, Protocol::Meshsub11, Direction::Inbound);
    bench.rpc(5, crate::bench::graft("t"));
    // Of 1 it comes; 2 does not want it, so has it; 5 does not speak v1.2.
    let large = "more than ten bytes";
    bench.rpc(2, idontwant(&[id(large)]));
    let outputs = bench.send(1, "t", large);
    assert_eq!(sent(&outputs), vec![(3, idontwant(&[id(large)])), (4, idontwant(&[id(large)]))]);
    assert!(is_validated(&outputs));
    assert_eq!(sent(&bench.send(1, "t", "ten bytes.")), vec![]);
    let stats = bench.state.stats();
    assert_eq!((stats.idontwant_sent, stats.idontwant_received), (2, 1));
}

#[test]
fn idontwant_is_honoured_and_forgotten() {
    let mut bench = meshed(Config { idontwant_ids_max: 2, ..passive() });
    bench.rpc(2, idontwant(&[id("a"), id("b"), id("c")]));
    for data in ["a", "b", "c"] {
        bench.send(1, "t", data);
    }
    assert_eq!(receivers(&bench.verdict("t", "a", Verdict::Accept)), vec![3, 4]);
    assert_eq!(receivers(&bench.verdict("t", "b", Verdict::Accept)), vec![3, 4]);
    assert_eq!(receivers(&bench.verdict("t", "c", Verdict::Accept)), vec![2, 3, 4], "one too many");
    assert_eq!((bench.state.stats().copies_saved, bench.state.stats().shed_idontwant), (2, 1));
    bench.rpc(2, idontwant(&[id("d")]));
    bench.beats(8);
    bench.send(1, "t", "d");
    assert_eq!(receivers(&bench.verdict("t", "d", Verdict::Accept)), vec![2, 3, 4]);
}

#[test]
fn own_messages_go_to_all_subscribers_or_to_the_mesh() {
    for (flood_publish, expected) in [(true, vec![1, 2, 3, 4, 5, 6]), (false, vec![1, 2, 3, 4])] {
        let mut bench = meshed(Config { flood_publish, ..passive() });
        bench.connect_all([5, 6], "t");
        bench.connect_all([7], "other");
        let outputs = bench.publish("t", "mine");
        assert_eq!(receivers(&outputs), expected);
        assert!(outputs.iter().all(|o| !matches!(o, Output::Send { class, .. } if *class != Class::Own)));
        let published = Output::Published { id: id("mine"), recipients: expected.len() };
        assert_eq!(outputs.last(), Some(&published));
        // It comes back: a duplicate, not for validation.
        assert_eq!(bench.send(1, "t", "mine"), vec![]);
        let again = Output::NotPublished { id: id("mine"), reason: PublishError::Duplicate };
        assert_eq!(bench.publish("t", "mine"), vec![again]);
    }
}

#[test]
fn a_short_mesh_does_not_cost_us_our_message() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() });
    bench.connect_all(1..=9, "t");
    bench.subscribe("t");
    for peer in 1..=9 {
        bench.rpc(peer, crate::bench::prune("t", Some(60)));
    }
    assert_eq!(bench.mesh("t"), Vec::<u32>::new());
    assert_eq!(receivers(&bench.publish("t", "mine")).len(), 6);
}

#[test]
fn a_topic_that_we_are_not_in_has_a_fanout() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() });
    bench.connect_all(1..=20, "t");
    let first = receivers(&bench.publish("t", "one"));
    assert_eq!(first.len(), 6);
    assert_eq!(receivers(&bench.publish("t", "two")), first, "the same peers");
    // One of them leaves: another takes its place at the next heartbeat.
    bench.rpc(first[0], subscription("t", false));
    bench.beat();
    let second = receivers(&bench.publish("t", "three"));
    assert_eq!(second.len(), 6);
    assert!(first[1..].iter().all(|peer| second.contains(peer)));
    // Joining takes them into the mesh.
    bench.subscribe("t");
    assert_eq!(bench.mesh("t"), second);
    bench.handle(Input::Unsubscribe(topic("t")));
    bench.publish("t", "four");
    bench.wait(Duration::from_secs(61));
    bench.beats(8);
    assert_eq!(crate::bench::told(&bench.beat()), vec![], "nothing is left to tell");
}

#[test]
fn what_does_not_fit_is_not_published() {
    let mut bench = meshed(passive());
    let big = "x".repeat(65_536 - 4);
    let outputs = bench.publish("t", &big);
    let expected = PublishError::TooLarge { bytes: 65_543, max: 65_536 };
    assert_eq!(outputs, vec![Output::NotPublished { id: id(&big), reason: expected }]);
    let fits = "x".repeat(65_536 - 11);
    assert_eq!(receivers(&bench.publish("t", &fits)), vec![1, 2, 3, 4]);
}

#[test]
fn too_much_in_validation_is_shed_and_may_come_again() {
    let mut bench = meshed(Config { validating_max: 2, ..passive() });
    assert!(is_validated(&bench.send(1, "t", "a")));
    assert!(is_validated(&bench.send(1, "t", "b")));
    assert_eq!(bench.send(1, "t", "c"), vec![]);
    assert_eq!(bench.state.stats().shed_messages, 1);
    bench.verdict("t", "a", Verdict::Accept);
    assert!(is_validated(&bench.send(1, "t", "c")));
}

#[test]
fn bytes_held_are_bounded_by_dropping_the_oldest() {
    let mut bench = meshed(Config { cache_bytes_max: 65_536, ..passive() });
    let big = |at: u32| at.to_string().repeat(30_000);
    for at in 1..=3 {
        assert!(is_validated(&bench.send(1, "t", &big(at))));
        bench.verdict("t", &big(at), Verdict::Accept);
    }
    let want = |bench: &mut Bench, at| receivers(&bench.rpc(2, crate::bench::iwant(&[id(&big(at))])));
    assert_eq!(want(&mut bench, 1), Vec::<u32>::new());
    assert_eq!(want(&mut bench, 2), vec![2]);
    assert_eq!(want(&mut bench, 3), vec![2]);
    // What waits for its verdict is not dropped.
    assert!(is_validated(&bench.send(1, "t", &big(4))));
    assert!(is_validated(&bench.send(1, "t", &big(5))));
    assert_eq!(bench.send(1, "t", &big(6)), vec![]);
    assert_eq!(bench.state.stats().shed_messages, 1);
    assert_eq!(receivers(&bench.verdict("t", &big(4), Verdict::Accept)), vec![2, 3, 4]);
}

#[test]
fn a_message_without_a_verdict_is_given_up() {
    let mut bench = meshed(Config { validating_beats_max: 10, ..passive() });
    bench.send(1, "t", "slow");
    bench.send(1, "t", "never");
    bench.beats(9);
    assert_eq!(
        receivers(&bench.verdict("t", "slow", Verdict::Accept)),
        vec![2, 3, 4],
        "late is not too late"
    );
    bench.beats(9);
    assert_eq!(bench.verdict("t", "never", Verdict::Accept), vec![]);
    assert_eq!((bench.state.stats().verdicts_missing, bench.state.stats().verdicts_late), (1, 1));
    assert_eq!(bench.state.validating(), 0);
}

#[test]
fn what_was_seen_is_forgotten_after_its_time() {
    let mut bench = meshed(Config { seen_ttl: Duration::from_secs(5), ..passive() });
    bench.send(1, "t", "x");
    bench.verdict("t", "x", Verdict::Ignore);
    bench.beats(5);
    assert!(!is_validated(&bench.send(1, "t", "x")), "at least the time");
    bench.beats(7);
    assert!(is_validated(&bench.send(1, "t", "x")), "at most twice the time");
}

#[test]
fn many_messages_in_one_frame() {
    let mut bench = meshed(passive());
    let messages: Vec<Message> = (0..10).map(|at| message("t", &at.to_string())).collect();
    let rpc = Rpc { publish: messages.into_iter().collect(), ..Rpc::default() };
    assert_eq!(bench.rpc(1, rpc).len(), 10);
    assert_eq!(bench.state.validating(), 10);
}
