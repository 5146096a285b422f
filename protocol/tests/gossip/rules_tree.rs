//! Tree mode, rule by rule: lazy links, repair, replacement, and what hostile peers cannot do.

use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::MessageId;
use omnimesh_protocol::gossip::{
    Class, Config, Control, Direction, Input, Message, Output, Protocol, Rpc, ScoreConfig, Timer, TopicScore,
    TreeConfig, Verdict,
};

use crate::bench::{
    Bench, Out, asked, authored, choke, choked, events, graft, id, ihave, is_validated, message, passive,
    prune, receivers, sent, subscription, told, topic, unchoke, unchoked,
};

/// The tree of data that are no envelope.
const FIRST: u64 = 1;

/// A router in topic "t" with nodes of OmniMesh in its mesh.
fn with_mesh(config: Config, nodes: std::ops::RangeInclusive<u32>) -> Bench {
    let mut bench = Bench::new(config);
    bench.subscribe("t");
    bench.connect_nodes(nodes.clone(), "t");
    bench.graft_all(nodes.clone(), "t");
    assert_eq!(bench.mesh("t"), nodes.collect::<Vec<u32>>());
    bench
}

/// A message comes from `from` and is good.
fn accept(bench: &mut Bench, from: u32, data: &str) -> Vec<Out> {
    assert!(is_validated(&bench.send(from, "t", data)));
    bench.verdict("t", data, Verdict::Accept)
}

/// A mesh of 1 to 4, of which 1 is eager.
fn shaped() -> Bench {
    let mut bench = with_mesh(passive(), 1..=4);
    accept(&mut bench, 1, "shaping");
    for lazy in 2..=4 {
        assert_eq!(choked(&bench.send(lazy, "t", "shaping")), vec![(lazy, FIRST)]);
    }
    assert_eq!(bench.state.lazy_links(), 3);
    bench.wait(Duration::from_millis(10));
    assert_eq!(told(&bench.timers()), vec![], "who sent it has it");
    bench.beat();
    bench
}

fn to(peer: u32, rpc: Rpc) -> Out {
    Output::Send { to: peer, rpc, class: Class::Control }
}

#[test]
fn a_second_copy_makes_its_link_lazy() {
    let mut bench = with_mesh(passive(), 1..=3);
    assert_eq!(receivers(&accept(&mut bench, 1, "a")), vec![2, 3]);
    assert_eq!(bench.send(2, "t", "a"), vec![to(2, choke("t", FIRST))]);
    // From now on 2 is told, soon, what 3 is sent.
    assert_eq!(receivers(&accept(&mut bench, 1, "b")), vec![3]);
    bench.wait(Duration::from_millis(9));
    assert_eq!(bench.timers(), vec![]);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.timers(), vec![to(2, ihave("t", &[id("b")]))]);
    let stats = bench.state.stats();
    assert_eq!((stats.choke_sent, stats.copies_lazy, stats.ihave_sent_lazy), (1, 1, 1));
}

#[test]
fn copies_before_the_verdict_count_when_it_is_good() {
    let mut bench = with_mesh(passive(), 1..=4);
    bench.send(1, "t", "a");
    assert_eq!(bench.send(2, "t", "a"), vec![], "too early to tell");
    let outputs = bench.verdict("t", "a", Verdict::Accept);
    assert_eq!((choked(&outputs), receivers(&outputs)), (vec![(2, FIRST)], vec![3, 4]));
    for (data, verdict) in [("bad", Verdict::Reject), ("odd", Verdict::Ignore)] {
        bench.send(1, "t", data);
        bench.send(3, "t", data);
        assert_eq!(choked(&bench.verdict("t", data, verdict)), vec![]);
        assert_eq!(choked(&bench.send(4, "t", data)), vec![]);
    }
}

#[test]
fn a_first_copy_from_outside_the_mesh_shapes_nothing() {
    let mut bench = with_mesh(passive(), 1..=2);
    bench.connect_nodes([9], "t");
    accept(&mut bench, 9, "a");
    assert_eq!(bench.send(1, "t", "a"), vec![]);
    assert_eq!(bench.state.lazy_links(), 0);
}

#[test]
fn standard_peers_are_neither_choked_nor_heard() {
    let mut bench = with_mesh(passive(), 1..=2);
    bench.connect_all([3, 4], "t");
    bench.graft_all([3, 4], "t");
    accept(&mut bench, 1, "a");
    assert_eq!(bench.send(3, "t", "a"), vec![]);
    bench.rpc(4, choke("t", FIRST));
    assert_eq!(receivers(&accept(&mut bench, 1, "b")), vec![2, 3, 4], "all three, as ever");
    // What a standard peer brought first is not needed from a node of OmniMesh.
    accept(&mut bench, 3, "c");
    assert_eq!(choked(&bench.send(2, "t", "c")), vec![(2, FIRST)]);
    assert_eq!(asked(&bench.rpc(4, ihave("t", &[id("new")]))), vec![id("new")], "at once");
}

#[test]
fn without_tree_mode_a_node_of_omnimesh_is_as_v1_2() {
    let mut bench = with_mesh(Config { tree: None, ..passive() }, 1..=3);
    accept(&mut bench, 1, "a");
    assert_eq!(bench.send(2, "t", "a"), vec![]);
    assert_eq!(bench.rpc(3, choke("t", u64::MAX)), vec![]);
    assert_eq!(receivers(&accept(&mut bench, 1, "b")), vec![2, 3]);
    assert_eq!(asked(&bench.rpc(2, ihave("t", &[id("new")]))), vec![id("new")]);
    assert_eq!(bench.timers, vec![]);
}

#[test]
fn who_told_us_is_not_told() {
    let mut bench = shaped();
    bench.rpc(2, ihave("t", &[id("a")]));
    accept(&mut bench, 1, "a");
    bench.wait(Duration::from_millis(10));
    bench.rpc(3, ihave("t", &[id("a")]));
    assert_eq!(told(&bench.timers()), vec![(4, 1)]);
    // Not by gossip either, once they are out of the mesh.
    bench.rpc(2, prune("t", Some(60)));
    bench.rpc(4, prune("t", Some(60)));
    bench.connect_nodes([9], "t");
    let news: Vec<u32> = told(&bench.beat()).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(news, vec![4, 9], "2 told us; 4 has but been told");
}

#[test]
fn ids_of_one_time_go_together() {
    let mut bench = shaped();
    for at in 0..5 {
        accept(&mut bench, 1, &format!("{at}"));
    }
    bench.wait(Duration::from_millis(10));
    assert_eq!(told(&bench.timers()), vec![(2, 5), (3, 5), (4, 5)]);
    assert_eq!(bench.timers(), vec![]);
}

#[test]
fn what_an_eager_link_brings_in_time_is_not_asked_for() {
    let mut bench = shaped();
    assert_eq!(bench.rpc(2, ihave("t", &[id("a")])), vec![]);
    bench.wait(Duration::from_millis(99));
    assert_eq!(bench.timers(), vec![]);
    accept(&mut bench, 1, "a");
    bench.wait(Duration::from_millis(1));
    assert_eq!(asked(&bench.timers()), vec![]);
    assert_eq!(bench.state.stats().iwant_sent, 0);
}

#[test]
fn what_does_not_come_is_asked_for_and_its_link_made_eager() {
    let mut bench = shaped();
    bench.rpc(2, ihave("t", &[id("a")]));
    bench.rpc(3, ihave("t", &[id("a")]));
    bench.wait(Duration::from_millis(100));
    assert_eq!(asked(&bench.timers()), vec![id("a")], "of 2");
    // It does not answer: the next one is asked after a way there and back.
    bench.wait(Duration::from_millis(199));
    assert_eq!(bench.timers(), vec![]);
    bench.wait(Duration::from_millis(1));
    let outputs = bench.timers();
    assert_eq!((sent(&outputs).len(), sent(&outputs)[0].0, asked(&outputs)), (1, 3, vec![id("a")]));
    let outputs = accept(&mut bench, 3, "a");
    assert_eq!((unchoked(&outputs), receivers(&outputs)), (vec![(3, FIRST)], vec![1]), "2 told us");
    assert_eq!(bench.send(2, "t", "a"), vec![], "a late answer is not blamed");
    let stats = bench.state.stats();
    assert_eq!((stats.tree_repairs, stats.iwant_sent_repair), (1, 2));
    // The eager link that was late is not needed any more.
    assert_eq!(bench.send(1, "t", "a"), vec![], "it may have been asked for too");
    bench.beat();
    accept(&mut bench, 3, "b");
    assert_eq!(choked(&bench.send(1, "t", "b")), vec![(1, FIRST)]);
    bench.beats(5);
    assert_eq!(bench.state.stats().broken_promises, 0, "it came");
}

#[test]
fn an_id_without_its_message_is_a_broken_promise() {
    let mut bench = shaped();
    for at in 0..12 {
        bench.rpc(2, ihave("t", &[id(&at.to_string())]));
        bench.wait(Duration::from_millis(100));
        assert_eq!(asked(&bench.timers()).len(), 1);
    }
    bench.beats(5);
    assert_eq!(bench.state.stats().broken_promises, 12);
    assert!(bench.score(2) >= 0.0, "all that break in one heartbeat are one offence");
    assert_eq!(bench.state.stats().unchoke_sent, 0, "words shape no tree");
}

#[test]
fn a_liar_cannot_fill_the_table() {
    let tree = TreeConfig { missing_max: 16, ..TreeConfig::default() };
    let mut bench = with_mesh(Config { tree: Some(tree), ..passive() }, 1..=12);
    let ids = |at: u32| id(&at.to_string());
    let asked_at_once = asked(&bench.rpc(1, ihave("t", &(0..10).map(ids).collect::<Vec<_>>())));
    assert_eq!(asked_at_once.len(), 8, "two wait, an eighth of the table");
    for peer in 2..=10 {
        bench.rpc(peer, ihave("t", &(peer * 100..peer * 100 + 10).map(ids).collect::<Vec<_>>()));
    }
    assert_eq!(asked(&bench.rpc(11, ihave("t", &[id("x")]))), vec![id("x")], "full: as without trees");
    bench.wait(Duration::from_millis(100));
    assert_eq!(asked(&bench.timers()).len(), 16);
}

#[test]
fn told_by_many_it_is_asked_of_one_at_a_time() {
    let mut bench = with_mesh(passive(), 1..=12);
    for peer in 1..=12 {
        assert_eq!(bench.rpc(peer, ihave("t", &[id("a")])), vec![]);
    }
    let mut asked_of = Vec::new();
    for _ in 0..20 {
        bench.wait(Duration::from_millis(200));
        asked_of.extend(sent(&bench.timers()).into_iter().map(|(to, _)| to));
    }
    assert_eq!(asked_of, (1..=8).collect::<Vec<u32>>(), "eight are remembered, each is asked once");
}

#[test]
fn who_is_outside_the_mesh_is_asked_last() {
    let mut bench = shaped();
    bench.connect_nodes([9], "t");
    bench.rpc(9, ihave("t", &[id("a")]));
    bench.rpc(4, ihave("t", &[id("a")]));
    bench.wait(Duration::from_millis(100));
    assert_eq!(sent(&bench.timers())[0].0, 4);
    bench.wait(Duration::from_millis(200));
    assert_eq!(sent(&bench.timers())[0].0, 9);
    let outputs = accept(&mut bench, 9, "a");
    assert_eq!(unchoked(&outputs), vec![], "there is no link to make eager");
}

#[test]
fn with_nobody_to_wait_for_it_is_asked_for_at_once() {
    let mut bench = Bench::new(passive());
    bench.subscribe("t");
    bench.connect_nodes([1], "t");
    assert_eq!(asked(&bench.rpc(1, ihave("t", &[id("a")]))), vec![id("a")]);
}

#[test]
fn when_the_last_eager_link_goes_another_takes_its_place() {
    let mut bench = shaped();
    // 3 told first lately.
    accept(&mut bench, 1, "a");
    bench.rpc(3, ihave("t", &[id("a")]));
    bench.rpc(2, ihave("t", &[id("a")]));
    let outputs = bench.handle(Input::Disconnected { peer: 1 });
    assert_eq!(unchoked(&outputs), vec![(3, FIRST)]);
    // 3 is eager and leaves the mesh; nobody else told, so the next one in order.
    assert_eq!(unchoked(&bench.rpc(3, prune("t", Some(60)))), vec![(4, FIRST)]);
    assert_eq!(bench.state.stats().tree_replacements, 2);
    assert_eq!(bench.state.lazy_links(), 1);
}

#[test]
fn when_the_last_eager_link_chokes_us_another_takes_its_place() {
    let mut bench = shaped();
    let outputs = bench.rpc(1, choke("t", u64::MAX));
    // Only of the first tree there are others that are lazy; in the rest all others are eager.
    assert_eq!(sent(&outputs), vec![(2, unchoke("t", FIRST))]);
    assert_eq!(receivers(&accept(&mut bench, 2, "a")), Vec::<u32>::new(), "1, 3 and 4 are lazy");
    bench.wait(Duration::from_millis(10));
    assert_eq!(told(&bench.timers()), vec![(1, 1), (3, 1), (4, 1)]);
    // They all choke us in all trees: the last word is theirs, but one link we keep asking for.
    for peer in 2..=4 {
        let outputs = bench.rpc(peer, choke("t", u64::MAX));
        assert!(sent(&outputs).iter().all(|(to, _)| *to != peer));
    }
    assert_eq!(bench.mesh("t"), vec![1, 2, 3, 4]);
}

#[test]
fn the_only_link_may_choke_us() {
    let mut bench = with_mesh(passive(), 1..=1);
    assert_eq!(bench.rpc(1, choke("t", FIRST)), vec![]);
    assert_eq!(receivers(&bench.publish("t", "mine")), Vec::<u32>::new());
    bench.wait(Duration::from_millis(10));
    assert_eq!(bench.timers(), vec![to(1, ihave("t", &[id("mine")]))]);
    bench.rpc(1, unchoke("t", FIRST));
    assert_eq!(receivers(&bench.publish("t", "more")), vec![1]);
}

#[test]
fn what_waits_to_be_told_is_told_before_the_link_is_eager() {
    let mut bench = shaped();
    accept(&mut bench, 1, "a");
    let outputs = bench.rpc(2, unchoke("t", FIRST));
    assert_eq!(told(&outputs), vec![(2, 1), (3, 1), (4, 1)]);
    bench.wait(Duration::from_millis(10));
    assert_eq!(bench.timers(), vec![], "the timer is stale");
    assert_eq!(receivers(&accept(&mut bench, 1, "b")), vec![2]);
}

#[test]
fn what_waits_to_be_told_is_told_before_we_make_the_link_eager() {
    let mut bench = shaped();
    accept(&mut bench, 1, "a");
    let outputs = sent(&bench.handle(Input::Disconnected { peer: 1 }));
    let expected = [2, 3, 4].map(|peer| (peer, ihave("t", &[id("a")])));
    assert_eq!(outputs, [&expected[..], &[(2, unchoke("t", FIRST))]].concat());
}

#[test]
fn a_new_link_is_lazy_where_the_tree_is_well() {
    let mut bench = shaped();
    bench.connect_nodes([5], "t");
    assert_eq!(choked(&bench.rpc(5, graft("t"))), vec![(5, FIRST)]);
    assert_eq!(receivers(&accept(&mut bench, 1, "a")), Vec::<u32>::new());
    // It wants it all the same: the UNCHOKE in its frame has the last word.
    bench.connect_nodes([6], "t");
    let mut rpc = graft("t");
    rpc.control.get_or_insert_default().unchoke = unchoke("t", FIRST).control.unwrap_or_default().unchoke;
    assert_eq!(choked(&bench.rpc(6, rpc)), vec![]);
    assert_eq!(receivers(&accept(&mut bench, 1, "b")), vec![6]);
    // In a mesh that never saw a second copy, it is eager.
    let mut bench = with_mesh(passive(), 1..=1);
    accept(&mut bench, 1, "a");
    bench.connect_nodes([2], "t");
    assert_eq!(choked(&bench.rpc(2, graft("t"))), vec![]);
}

#[test]
fn our_own_graft_goes_with_a_choke() {
    let config = Config { mesh_degree_low: 3, mesh_degree: 3, mesh_degree_out: 0, ..passive() };
    let config = Config { mesh_degree_score: 3, ..config };
    let mut bench = with_mesh(config, 1..=3);
    accept(&mut bench, 1, "a");
    bench.send(2, "t", "a");
    bench.send(3, "t", "a");
    bench.rpc(3, prune("t", Some(60)));
    let outputs = [bench.handle(Input::Disconnected { peer: 2 }), {
        bench.connect_as(7, Protocol::Omnimesh1, Direction::Inbound);
        bench.rpc(7, subscription("t", true))
    }]
    .concat();
    assert_eq!(choked(&outputs), vec![], "1 is alone: nothing is lazy");
    accept(&mut bench, 1, "b");
    assert_eq!(choked(&bench.send(7, "t", "b")), vec![(7, FIRST)]);
    bench.connect_as(8, Protocol::Omnimesh1, Direction::Inbound);
    let outputs = bench.rpc(8, subscription("t", true));
    let control = sent(&outputs).first().and_then(|(_, rpc)| rpc.control.clone()).expect("an answer");
    let said = choke("t", FIRST).control.expect("control").choke;
    assert_eq!((control.graft, control.choke), (vec![topic("t")], said));
}

#[test]
fn each_author_has_a_tree() {
    let mut bench = with_mesh(passive(), 1..=3);
    let send = |bench: &mut Bench, from: u32, data: &Bytes| {
        bench.rpc(from, Rpc::of_message(Message::new(topic("t"), data.clone())))
    };
    let accept = |bench: &mut Bench, from: u32, data: &Bytes| {
        send(bench, from, data);
        let (id, verdict) = (MessageId::of(data), Verdict::Accept);
        bench.handle(Input::Verdict { topic: topic("t"), id, verdict })
    };
    let of = |author: u8, rest: &str| authored(author, rest.as_bytes());
    accept(&mut bench, 1, &of(3, "a"));
    assert_eq!(choked(&send(&mut bench, 2, &of(3, "a"))), vec![(2, 1 << 3)]);
    assert_eq!(receivers(&accept(&mut bench, 1, &of(3, "b"))), vec![3]);
    assert_eq!(receivers(&accept(&mut bench, 1, &of(4, "a"))), vec![2, 3], "another tree");
    assert_eq!(choked(&send(&mut bench, 3, &of(4, "a"))), vec![(3, 1 << 4)]);
    assert_eq!(receivers(&accept(&mut bench, 1, &of(67, "a"))), vec![3], "64 apart: the same tree");
    // Without a tree for each, all have one.
    let tree = Some(TreeConfig { per_author: false, ..TreeConfig::default() });
    let mut bench = with_mesh(Config { tree, ..passive() }, 1..=3);
    accept(&mut bench, 1, &of(3, "a"));
    assert_eq!(choked(&send(&mut bench, 2, &of(3, "a"))), vec![(2, FIRST)]);
    assert_eq!(receivers(&accept(&mut bench, 1, &of(4, "a"))), vec![3]);
}

#[test]
fn own_messages_go_to_eager_links_and_the_others_are_told() {
    let config = Config { mesh_degree_low: 2, ..passive() };
    let mut bench = with_mesh(config, 1..=3);
    accept(&mut bench, 1, "a");
    bench.send(2, "t", "a");
    bench.connect_nodes([8], "t");
    bench.connect_all([9], "t");
    let outputs = bench.publish("t", "mine");
    assert_eq!(receivers(&outputs), vec![1, 3, 9], "flood publishing reaches standard peers");
    bench.wait(Duration::from_millis(10));
    assert_eq!(told(&bench.timers()), vec![(2, 1), (8, 1)], "nodes of OmniMesh are told");
}

#[test]
fn large_messages_are_declined_on_eager_links_only() {
    let mut bench = shaped();
    bench.connect_nodes([5], "t");
    bench.rpc(5, graft("t"));
    bench.rpc(5, unchoke("t", FIRST));
    let outputs = bench.send(1, "t", &"x".repeat(2_000));
    let declined: Vec<u32> = sent(&outputs).into_iter().map(|(to, _)| to).collect();
    assert_eq!(declined, vec![5]);
}

#[test]
fn a_link_that_leads_several_times_in_a_row_becomes_eager() {
    let mut bench = shaped();
    let lead = |bench: &mut Bench, data: &str, by: u64| {
        bench.rpc(2, ihave("t", &[id(data)]));
        bench.rpc(3, ihave("t", &[id(data)]));
        bench.wait(Duration::from_millis(by));
        unchoked(&accept(bench, 1, data))
    };
    for at in 0..3 {
        assert_eq!(lead(&mut bench, &format!("a{at}"), 30), vec![]);
    }
    assert_eq!(lead(&mut bench, "not by much", 29), vec![]);
    for at in 0..3 {
        assert_eq!(lead(&mut bench, &format!("b{at}"), 50), vec![]);
    }
    assert_eq!(lead(&mut bench, &format!("{:01500}", 1), 50), vec![], "its size explains it");
    for at in 0..3 {
        assert_eq!(lead(&mut bench, &format!("c{at}"), 30), vec![]);
    }
    assert_eq!(lead(&mut bench, "d", 30), vec![(2, FIRST)]);
    assert_eq!(bench.state.stats().tree_shortcuts, 1);
    // Now its copies show which of the two is faster.
    accept(&mut bench, 2, "e");
    assert_eq!(choked(&bench.send(1, "t", "e")), vec![(1, FIRST)]);
}

#[test]
fn one_that_goes_on_sending_is_choked_again_but_not_at_once() {
    let mut bench = with_mesh(passive(), 1..=2);
    accept(&mut bench, 1, "a");
    assert_eq!(choked(&bench.send(2, "t", "a")), vec![(2, FIRST)]);
    accept(&mut bench, 1, "b");
    assert_eq!(choked(&bench.send(2, "t", "b")), vec![], "it was on the way");
    // First, but only because it was on the way.
    assert_eq!(unchoked(&accept(&mut bench, 2, "c")), vec![]);
    bench.beat();
    accept(&mut bench, 1, "d");
    assert_eq!(choked(&bench.send(2, "t", "d")), vec![(2, FIRST)]);
    bench.beat();
    assert_eq!(unchoked(&accept(&mut bench, 2, "e")), vec![(2, FIRST)], "it is needed");
}

#[test]
fn an_eager_link_that_must_be_asked_is_told_again_that_it_is_eager() {
    let mut bench = with_mesh(passive(), 1..=2);
    bench.rpc(1, ihave("t", &[id("a")]));
    bench.wait(Duration::from_millis(100));
    assert_eq!(asked(&bench.timers()), vec![id("a")]);
    assert_eq!(unchoked(&accept(&mut bench, 1, "a")), vec![(1, FIRST)]);
}

#[test]
fn an_eager_link_that_fails_often_is_the_one_to_be_choked() {
    let mut bench = with_mesh(passive(), 1..=4);
    accept(&mut bench, 1, "shaping");
    (2..=4).for_each(|lazy| assert_eq!(choked(&bench.send(lazy, "t", "shaping")).len(), 1));
    bench.beat();
    for at in 0..2 {
        // 1 is eager and silent; 2 is asked, and made eager.
        bench.rpc(2, ihave("t", &[id(&format!("withheld {at}"))]));
        bench.wait(Duration::from_millis(100));
        assert_eq!(asked(&bench.timers()).len(), 1);
        assert_eq!(unchoked(&accept(&mut bench, 2, &format!("withheld {at}"))), vec![(2, FIRST)]);
        bench.beat();
        accept(&mut bench, 1, &format!("brought {at}"));
        let dropped = if at == 0 { 2 } else { 1 };
        assert_eq!(
            choked(&bench.send(2, "t", &format!("brought {at}"))),
            vec![(dropped, FIRST)],
            "time {at}"
        );
    }
    // It does not come back by telling early, nor as a replacement.
    for at in 0..6 {
        bench.rpc(1, ihave("t", &[id(&format!("early {at}"))]));
        bench.wait(Duration::from_millis(50));
        assert_eq!(unchoked(&accept(&mut bench, 2, &format!("early {at}"))), vec![]);
    }
    assert_eq!(unchoked(&bench.rpc(2, choke("t", FIRST))), vec![(3, FIRST)]);
    assert_eq!(unchoked(&bench.rpc(3, choke("t", FIRST))), vec![(4, FIRST)]);
    assert_eq!(unchoked(&bench.rpc(4, choke("t", FIRST))), vec![(2, FIRST)]);
    // After a minute it may.
    bench.beats(60);
    assert_eq!(unchoked(&bench.rpc(2, choke("t", FIRST))), vec![(3, FIRST)]);
    assert_eq!(unchoked(&bench.rpc(3, choke("t", FIRST))), vec![(4, FIRST)]);
    assert_eq!(unchoked(&bench.rpc(4, choke("t", FIRST))), vec![(1, FIRST)]);
}

#[test]
fn words_about_other_links_mean_nothing() {
    let mut bench = with_mesh(passive(), 1..=2);
    bench.connect_nodes([5], "t");
    bench.rpc(5, choke("t", FIRST));
    bench.rpc(1, choke("elsewhere", FIRST));
    bench.rpc(5, unchoke("t", FIRST));
    assert_eq!(bench.state.lazy_links(), 0);
    for _ in 0..600 {
        bench.rpc(1, choke("t", FIRST));
        bench.rpc(1, unchoke("t", FIRST));
    }
    assert_eq!(bench.state.stats().shed_choke, 1_200 - 512);
    bench.beat();
    bench.rpc(1, choke("t", FIRST));
    assert_eq!(bench.state.lazy_links(), 1);
}

#[test]
fn leaving_the_topic_forgets_its_trees() {
    let mut bench = shaped();
    bench.rpc(2, ihave("t", &[id("x")]));
    accept(&mut bench, 1, "a");
    let outputs = bench.handle(Input::Unsubscribe(topic("t")));
    assert_eq!(unchoked(&outputs), vec![]);
    assert_eq!(bench.state.lazy_links(), 0);
    bench.wait(Duration::from_millis(100));
    assert_eq!(bench.timers(), vec![]);
    assert_eq!(events(&outputs).len(), 4, "four links less");
}

#[test]
fn stale_timers_do_nothing() {
    let mut bench = shaped();
    bench.rpc(2, ihave("t", &[id("x")]));
    accept(&mut bench, 1, "a");
    bench.wait(Duration::from_secs(1));
    for token in [0, 1, 7, u32::MAX] {
        let repair = bench.handle(Input::Timer(Timer::Repair { token }));
        let announce = bench.handle(Input::Timer(Timer::Announce { token }));
        if token != 1 {
            assert_eq!((repair, announce), (vec![], vec![]), "token {token}");
        }
    }
}

#[test]
fn p3_does_not_count_on_lazy_links() {
    let topic_score = TopicScore { mesh_deliveries_weight: -1.0, ..TopicScore::default() };
    let score = Some(ScoreConfig { topic: topic_score, ..ScoreConfig::default() });
    let mut bench = with_mesh(Config { score, ..passive() }, 1..=3);
    accept(&mut bench, 1, "a");
    bench.send(2, "t", "a");
    bench.beat();
    for at in 0..40 {
        accept(&mut bench, 1, &at.to_string());
    }
    bench.wait(Duration::from_millis(6_000));
    assert!(bench.score(2) >= 0.0, "it is choked: {}", bench.score(2));
    assert!(bench.score(3) < 0.0, "it is not, and brought nothing: {}", bench.score(3));
    // Eager again, it has its time to begin with.
    bench.rpc(2, unchoke("t", FIRST));
    bench.wait(Duration::from_millis(4_000));
    assert!(bench.score(2) >= 0.0);
    bench.wait(Duration::from_millis(2_000));
    assert!(bench.score(2) < 0.0);
}

#[test]
fn a_whole_message_over_a_lazy_link_is_taken() {
    let mut bench = shaped();
    let mut rpc = Rpc::of_message(message("t", "a"));
    rpc.control = Some(Box::new(Control { iwant: vec![id("a")], ..Control::default() }));
    assert!(is_validated(&bench.rpc(2, rpc)));
    let outputs = bench.verdict("t", "a", Verdict::Accept);
    assert_eq!((unchoked(&outputs), receivers(&outputs)), (vec![(2, FIRST)], vec![1]));
}
