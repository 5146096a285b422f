//! Subscriptions, GRAFT, PRUNE, backoff, the mesh in a heartbeat.

use std::time::Duration;

use omnimesh_protocol::gossip::{
    Class, Config, Control, Direction, DisconnectReason, Event, Input, Output, Protocol, PruneReason, Rpc,
    Timer,
};

use crate::bench::{Bench, events, graft, grafted, passive, prune, pruned, sent, subscription, topic};

#[test]
fn a_newcomer_is_told_our_topics() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.connect(1), vec![]);
    bench.subscribe("b");
    bench.subscribe("a");
    let mut rpc = subscription("b", true);
    rpc.subscriptions.extend(subscription("a", true).subscriptions);
    assert_eq!(bench.connect(2), vec![Output::Send { to: 2, rpc, class: Class::Control }]);
    assert_eq!(bench.connect(2), vec![], "a second connection changes nothing");
    assert_eq!(bench.state.peers(), vec![1, 2]);
    assert_eq!(bench.state.topics(), vec![topic("a"), topic("b")]);
}

#[test]
fn joining_announces_and_grafts_up_to_the_degree() {
    let mut bench = Bench::new(Config::default());
    bench.connect_all(1..=9, "t");
    bench.connect(10);
    let outputs = bench.subscribe("t");
    assert_eq!(sent(&outputs).len(), 10, "everybody is told");
    assert!(sent(&outputs).iter().all(|(_, rpc)| rpc.subscriptions == subscription("t", true).subscriptions));
    assert_eq!(grafted(&outputs), bench.mesh("t"));
    assert_eq!(bench.mesh("t").len(), 6);
    assert!(!bench.mesh("t").contains(&10), "it is not in the topic");
    assert_eq!(bench.subscribe("t"), vec![], "once is enough");
}

#[test]
fn leaving_prunes_with_the_short_backoff() {
    let mut bench = Bench::new(passive());
    bench.connect_all([1, 2], "t");
    bench.subscribe("t");
    assert_eq!(bench.mesh("t"), vec![1, 2]);
    bench.rpc(2, prune("t", None));
    let outputs = bench.handle(Input::Unsubscribe(topic("t")));
    let mut rpc = subscription("t", false);
    rpc.control = prune("t", Some(10)).control;
    assert_eq!(
        outputs,
        vec![
            Output::Event(Event::Pruned { peer: 1, topic: topic("t"), reason: PruneReason::Left }),
            Output::Send { to: 1, rpc, class: Class::Control },
            Output::Send { to: 2, rpc: subscription("t", false), class: Class::Control },
        ]
    );
    assert_eq!(bench.mesh("t"), Vec::<u32>::new());
    // The backoff holds for us too.
    assert_eq!(grafted(&bench.subscribe("t")), Vec::<u32>::new());
}

#[test]
fn graft_is_taken_and_implies_a_subscription() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect(1);
    let outputs = bench.rpc(1, graft("t"));
    let expected =
        [Event::PeerSubscribed { peer: 1, topic: topic("t") }, Event::Grafted { peer: 1, topic: topic("t") }];
    assert_eq!(events(&outputs), expected);
    assert_eq!(outputs.len(), 2, "no answer to a good GRAFT");
    assert_eq!(bench.rpc(1, graft("t")), vec![], "again: nothing");
    assert_eq!(bench.rpc(1, graft("other")), vec![], "a topic that we are not in is not answered");
    assert_eq!((bench.state.stats().graft_received, bench.state.stats().prune_sent), (3, 0));
}

#[test]
fn graft_in_backoff_is_pruned_and_blamed() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect(1);
    bench.rpc(1, graft("t"));
    bench.rpc(1, prune("t", Some(60)));
    assert_eq!(bench.mesh("t"), Vec::<u32>::new());
    bench.wait(Duration::from_secs(30));
    let outputs = bench.rpc(1, graft("t"));
    assert_eq!(outputs, vec![Output::Send { to: 1, rpc: prune("t", Some(60)), class: Class::Control }]);
    assert_eq!(bench.state.stats().graft_in_backoff, 1);
    // It was pruned anew: the backoff starts again, and another GRAFT within ten seconds counts twice.
    bench.wait(Duration::from_secs(59));
    assert_eq!(pruned(&bench.rpc(1, graft("t"))), vec![(1, Some(60))]);
    bench.wait(Duration::from_secs(60));
    assert_eq!(pruned(&bench.rpc(1, graft("t"))), vec![]);
    assert_eq!(bench.mesh("t"), vec![1]);
}

#[test]
fn a_full_mesh_takes_only_whom_we_dialled() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect_all(1..=13, "t");
    bench.graft_all(1..=12, "t");
    assert_eq!(bench.mesh("t").len(), 12);
    assert_eq!(pruned(&bench.rpc(13, graft("t"))), vec![(13, Some(60))]);
    bench.connect_as(14, Protocol::Meshsub11, Direction::Outbound);
    assert_eq!(pruned(&bench.rpc(14, graft("t"))), vec![]);
    assert_eq!(bench.mesh("t").len(), 13);
    // The heartbeat brings it back to the degree.
    let outputs = bench.beat();
    assert_eq!(pruned(&outputs).len(), 7);
    assert_eq!(bench.mesh("t").len(), 6);
    assert_eq!(bench.state.stats().prune_sent, 8);
}

#[test]
fn pruning_keeps_enough_outbound_peers() {
    let mut bench = Bench::new(Config { mesh_degree_out: 2, mesh_degree_low: 3, ..Config::default() });
    bench.subscribe("t");
    for peer in 1..=11 {
        bench.connect(peer);
        bench.rpc(peer, graft("t"));
    }
    for peer in 20..=22 {
        bench.connect_as(peer, Protocol::Meshsub12, Direction::Outbound);
        bench.rpc(peer, graft("t"));
    }
    assert_eq!(bench.mesh("t").len(), 14);
    bench.beat();
    let mesh = bench.mesh("t");
    assert_eq!(mesh.len(), 6, "{mesh:?}");
    assert!(mesh.iter().filter(|peer| **peer >= 20).count() >= 2, "{mesh:?}");
}

#[test]
fn a_heartbeat_grafts_outbound_peers_that_the_mesh_lacks() {
    let mut bench = Bench::new(Config { mesh_degree_low: 3, ..Config::default() });
    bench.subscribe("t");
    bench.connect_all(1..=6, "t");
    bench.graft_all(1..=6, "t");
    for peer in 20..=23 {
        bench.connect_as(peer, Protocol::Meshsub12, Direction::Outbound);
        bench.rpc(peer, subscription("t", true));
    }
    assert_eq!(bench.mesh("t"), vec![1, 2, 3, 4, 5, 6]);
    let outputs = bench.beat();
    assert_eq!(grafted(&outputs).len(), 2);
    assert!(grafted(&outputs).iter().all(|peer| *peer >= 20));
}

#[test]
fn a_heartbeat_fills_a_mesh_that_is_short() {
    let mut bench = Bench::new(Config { backoff_slack: Duration::from_secs(2), ..Config::default() });
    bench.subscribe("t");
    bench.connect_all(1..=8, "t");
    assert_eq!(bench.mesh("t"), vec![1, 2, 3, 4, 5], "newcomers are grafted while the mesh is short");
    bench.rpc(1, prune("t", Some(3)));
    let outputs = bench.beat();
    assert_eq!(grafted(&outputs).len(), 2, "up to the degree");
    assert_eq!(bench.mesh("t").len(), 6);
    assert!(!bench.mesh("t").contains(&1), "it is in backoff");
    // All others leave; only the pruned one is left, and is grafted once backoff and slack are over.
    for peer in 2..=8 {
        bench.rpc(peer, subscription("t", false));
    }
    let mut beats = 0;
    while bench.mesh("t").is_empty() {
        bench.beat();
        beats += 1;
        assert!(beats < 10);
    }
    assert_eq!(bench.mesh("t"), vec![1]);
    let waited = bench.now.since(omnimesh_protocol::Time::ZERO);
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(7), "{waited:?}");
}

#[test]
fn backoff_survives_a_reconnection() {
    let mut bench = Bench::new(Config::default());
    bench.subscribe("t");
    bench.connect_all([1], "t");
    bench.rpc(1, prune("t", Some(60)));
    bench.handle(Input::Disconnected { peer: 1 });
    bench.connect(1);
    assert_eq!(grafted(&bench.rpc(1, subscription("t", true))), Vec::<u32>::new());
    assert_eq!(pruned(&bench.rpc(1, graft("t"))), vec![(1, Some(60))]);
}

#[test]
fn no_backoff_if_so_configured() {
    let config = Config {
        prune_backoff: Duration::ZERO,
        backoff_slack: Duration::ZERO,
        mesh_degree_low: 1,
        mesh_degree_out: 0,
        ..Config::default()
    };
    let mut bench = Bench::new(config);
    bench.subscribe("t");
    bench.connect_all([1], "t");
    bench.rpc(1, prune("t", Some(0)));
    assert_eq!(grafted(&bench.beat()), vec![1]);
}

#[test]
fn peers_of_v1_0_are_not_told_the_backoff() {
    let mut bench = Bench::new(passive());
    bench.connect_as(1, Protocol::Meshsub10, Direction::Inbound);
    bench.rpc(1, subscription("t", true));
    bench.subscribe("t");
    assert_eq!(pruned(&bench.handle(Input::Unsubscribe(topic("t")))), vec![(1, None)]);
}

#[test]
fn an_unsubscription_ends_the_mesh_link_without_a_word() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect(1);
    bench.rpc(1, graft("t"));
    let outputs = bench.rpc(1, subscription("t", false));
    assert_eq!(
        outputs,
        vec![
            Output::Event(Event::Pruned { peer: 1, topic: topic("t"), reason: PruneReason::Left }),
            Output::Event(Event::PeerUnsubscribed { peer: 1, topic: topic("t") }),
        ]
    );
    assert_eq!(bench.state.topic_peers(&topic("t")), Vec::<u32>::new());
}

#[test]
fn a_frame_that_joins_and_leaves_gets_no_graft() {
    let mut bench = Bench::new(Config::default());
    bench.subscribe("t");
    bench.connect(1);
    let mut rpc = subscription("t", true);
    rpc.control = prune("t", Some(60)).control;
    assert_eq!(sent(&bench.rpc(1, rpc)), vec![]);
    assert_eq!(bench.mesh("t"), Vec::<u32>::new());
}

#[test]
fn topics_of_a_peer_are_bounded_but_ours_always_count() {
    let mut bench = Bench::new(Config { topics_per_peer_max: 3, ..passive() });
    bench.subscribe("ours");
    bench.connect(1);
    for name in ["a", "b", "c", "d", "ours"] {
        bench.rpc(1, subscription(name, true));
    }
    assert_eq!(bench.state.stats().shed_subscriptions, 1);
    assert_eq!(bench.state.topic_peers(&topic("d")), Vec::<u32>::new());
    assert_eq!(bench.state.topic_peers(&topic("ours")), vec![1]);
    // One place gets free, and is taken.
    bench.rpc(1, subscription("a", false));
    bench.rpc(1, subscription("d", true));
    assert_eq!(bench.state.topic_peers(&topic("d")), vec![1]);
    // Leaving a topic makes it one of many.
    bench.handle(Input::Unsubscribe(topic("ours")));
    assert_eq!(bench.state.stats().shed_subscriptions, 2);
}

#[test]
fn leaving_a_topic_forgets_those_who_have_too_many() {
    let mut bench = Bench::new(Config { topics_per_peer_max: 2, ..passive() });
    bench.connect(1);
    for name in ["a", "b"] {
        bench.rpc(1, subscription(name, true));
    }
    bench.subscribe("ours");
    bench.rpc(1, subscription("ours", true));
    assert_eq!(bench.state.topic_peers(&topic("ours")), vec![1]);
    bench.handle(Input::Unsubscribe(topic("ours")));
    assert_eq!(bench.state.topic_peers(&topic("ours")), Vec::<u32>::new());
    assert_eq!(bench.state.stats().shed_subscriptions, 1);
}

#[test]
fn a_flood_of_grafts_in_one_frame_is_answered_once() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect(1);
    bench.rpc(1, prune("t", None));
    let grafts = Control { graft: vec![topic("t"); 1_000], ..Control::default() };
    assert_eq!(pruned(&bench.rpc(1, Rpc::of_control(grafts))), vec![(1, Some(60))]);
    assert_eq!(bench.state.stats().graft_in_backoff, 1);
}

#[test]
fn too_many_peers_are_sent_away() {
    let mut bench = Bench::new(Config { peers_max: 2, ..Config::default() });
    bench.connect(1);
    bench.connect(2);
    let reason = DisconnectReason::TooManyPeers;
    assert_eq!(bench.connect(3), vec![Output::Disconnect { peer: 3, reason }]);
    assert_eq!(bench.rpc(3, subscription("t", true)), vec![]);
    assert_eq!(bench.handle(Input::Disconnected { peer: 3 }), vec![]);
    bench.handle(Input::Disconnected { peer: 1 });
    assert_eq!(bench.connect(3), vec![]);
    assert_eq!(bench.state.peers(), vec![2, 3]);
}

#[test]
fn a_stale_timer_does_nothing() {
    let mut bench = Bench::new(Config::default());
    let first = bench.next_beat.1;
    bench.beat();
    let second = bench.next_beat;
    assert_eq!(bench.handle(Input::Timer(first)), vec![]);
    assert_eq!(bench.handle(Input::Timer(Timer::Heartbeat { beat: 9 })), vec![]);
    assert_eq!(bench.next_beat, second);
    bench.beat();
    assert_eq!(bench.next_beat.0, second.0 + Duration::from_secs(1));
}

#[test]
fn one_frame_to_a_peer_in_a_heartbeat() {
    let mut bench = Bench::new(Config::default());
    for name in ["a", "b", "c"] {
        bench.subscribe(name);
    }
    bench.connect(1);
    let mut rpc = Rpc::default();
    for name in ["a", "b", "c"] {
        rpc.subscriptions.extend(subscription(name, true).subscriptions);
    }
    let reply = bench.rpc(1, rpc);
    let graft = vec![topic("a"), topic("b"), topic("c")];
    assert_eq!(sent(&reply), vec![(1, Rpc::of_control(Control { graft, ..Control::default() }))]);
}
