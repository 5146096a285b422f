//! The rules of the relay one by one: exact outputs.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::gossip::{Config, Rpc, Subscription, Topic};
use omnimesh_protocol::relay::{Input, RELAYED_MAX, RELAYED_PER_PEER_MAX, RELAYED_QUIET, Unchecked};
use omnimesh_protocol::{MessageId, Step};

use crate::bench::{Bench, NOW, channel, durable, identity, sealed, topic, with_bad_signature};

#[test]
fn a_message_is_verified_delivered_and_forwarded_once() {
    let mut bench = Bench::in_news();
    let hello = sealed(2, "news", 1, NOW, "hello");
    assert_eq!(bench.envelope(1, &hello), ["verify hello"]);
    assert_eq!(bench.state.pending(), 1);
    assert_eq!(bench.envelope(2, &hello), [""; 0], "a second copy waits with the first");
    assert_eq!(bench.verified("hello"), ["deliver hello of 1", "Forwarded to 3: hello"]);
    assert_eq!((bench.state.pending(), bench.state.validator().accepted()), (0, 1));
    assert_eq!(bench.envelope(3, &hello), [""; 0]);
    // An answer that nobody asked for says nothing.
    let id = MessageId::of(hello.as_bytes());
    assert_eq!(bench.give(Input::Verified { id, result: Err(Unchecked::Shed) }), [""; 0]);
    assert_eq!(bench.stats().accepted, 1);
}

#[test]
fn each_refusal_has_its_reason_and_blames_whom_it_should() {
    let good = sealed(2, "news", 7, NOW, "good");
    let flipped = {
        let mut bytes = good.as_bytes().to_vec();
        let at = bytes.windows(4).position(|window| window == b"good").unwrap();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let cases = [
        ("refuse truncated in news of 1", good.as_bytes().slice(..50), true),
        ("refuse bad_pattern in news of 1", flipped, true),
        ("refuse wrong_channel in news of 1", sealed(2, "olds", 1, NOW, "x").as_bytes().clone(), true),
        ("refuse stale_step in news of 1", sealed(2, "news", 1, Step(91), "x").as_bytes().clone(), false),
        ("refuse future_step in news of 1", sealed(2, "news", 1, Step(103), "x").as_bytes().clone(), false),
        (
            "refuse quarantined in news by a member of 1",
            sealed(5, "news", 1, NOW, "x").as_bytes().clone(),
            false,
        ),
    ];
    for (said, data, is_blamed) in cases {
        let mut bench = Bench::in_news();
        bench.give(Input::Quarantine(identity(5).id()));
        assert_eq!(bench.message(1, "news", data), [said]);
        let stats = bench.stats();
        assert_eq!((stats.rejected, stats.ignored), if is_blamed { (1, 0) } else { (0, 1) }, "{said}");
        let score = bench.state.gossip().score(&1).unwrap();
        assert_eq!(score < 0.0, is_blamed, "{said}: {score}");
        assert_eq!(bench.state.pending(), 0);
        assert_eq!(bench.state.validator().refused().iter().sum::<u64>(), 1);
    }
    // Those that are found later.
    let mut bench = Bench::in_news();
    assert_eq!(bench.message(1, "news", with_bad_signature(&good)), ["verify good"]);
    let said = bench.verified("good");
    assert_eq!(said, ["refuse bad_signature in news of 1"], "the author is not to blame");
    assert_eq!(bench.stats().rejected, 1);
    assert_eq!(bench.envelope(2, &good), ["verify good"], "the right one is not hidden by it");
    bench.verified("good");
    let again = sealed(2, "news", 7, NOW, "again");
    assert_eq!(bench.envelope(2, &again), ["refuse replay in news by a member of 2"]);
    bench.give(Input::Quarantine(identity(2).id()));
    bench.give(Input::Lift(identity(2).id()));
    bench.envelope(1, &sealed(2, "news", 8, NOW, "two"));
    bench.envelope(2, &sealed(2, "news", 8, NOW, "faces"));
    assert_eq!(bench.verified("two"), ["deliver two of 1", "Forwarded to 2: two", "Forwarded to 3: two"]);
    assert_eq!(bench.verified("faces"), ["refuse replay in news by a member of 2"]);
    bench.envelope(1, &sealed(2, "news", 9, NOW, "late"));
    bench.give(Input::Step(Some(Step(109))));
    assert_eq!(bench.verified("late"), ["refuse stale_step in news by a member of 1"]);
}

#[test]
fn whoever_brings_what_was_refused_is_told() {
    let mut bench = Bench::in_news();
    let stale = sealed(2, "news", 1, Step(91), "stale");
    assert_eq!(bench.envelope(1, &stale), ["refuse stale_step in news of 1"]);
    assert_eq!(bench.envelope(2, &stale), ["refuse stale_step in news of 2"]);
    assert_eq!(bench.envelope(2, &stale), [""; 0], "once of each");
    let bad = with_bad_signature(&sealed(2, "news", 7, NOW, "bad"));
    bench.message(1, "news", bad.clone());
    assert_eq!(bench.message(3, "news", bad), [""; 0]);
    let said = bench.verified("bad");
    assert_eq!(said, ["refuse bad_signature in news of 1", "refuse bad_signature in news of 3"]);
    assert_eq!(bench.state.validator().refused().iter().sum::<u64>(), 2, "each message is counted once");
    // Who passes on an author that is in quarantine here may not have it there.
    bench.give(Input::Quarantine(identity(5).id()));
    let shut_out = sealed(5, "news", 1, NOW, "shut out");
    assert_eq!(bench.envelope(1, &shut_out), ["refuse quarantined in news by a member of 1"]);
    assert_eq!(bench.envelope(2, &shut_out), [""; 0]);
    // Whoever brings what this node could not judge has done nothing.
    bench.give(Input::Step(None));
    let early = sealed(2, "news", 9, NOW, "early");
    assert_eq!(bench.envelope(1, &early), ["refuse not_synchronised in news of 1"]);
    assert_eq!(bench.envelope(2, &early), [""; 0]);
}

#[test]
fn without_a_step_nothing_is_judged() {
    let mut bench = Bench::in_news();
    bench.envelope(1, &sealed(2, "news", 1, NOW, "under way"));
    bench.give(Input::Step(None));
    assert_eq!(bench.verified("under way"), ["refuse not_synchronised in news by a member of 1"]);
    let said = bench.envelope(1, &sealed(2, "news", 2, NOW, "next"));
    assert_eq!(said, ["refuse not_synchronised in news of 1"]);
    assert_eq!((bench.stats().ignored, bench.stats().rejected), (2, 0));
}

#[test]
fn what_is_shed_is_nobodys_fault_and_not_delivered() {
    let mut bench = Bench::in_news();
    let hello = sealed(2, "news", 1, NOW, "hello");
    bench.envelope(1, &hello);
    let id = MessageId::of(hello.as_bytes());
    assert_eq!(bench.give(Input::Verified { id, result: Err(Unchecked::Shed) }), [""; 0]);
    assert_eq!((bench.stats().ignored, bench.stats().rejected, bench.state.pending()), (1, 0, 0));
    assert_eq!(bench.envelope(2, &hello), [""; 0], "remembered as seen");
    bench.wait(2 * Config::default().seen_ttl + Duration::from_secs(2));
    assert_eq!(bench.envelope(2, &hello), ["verify hello"], "then it may come again");
    assert!(bench.verified("hello").contains(&"deliver hello of 2".to_owned()));
}

#[test]
fn durable_messages_of_every_category_travel_on_one_channel() {
    let mut bench = Bench::new();
    bench.connect(1..=2);
    bench.give(Input::Subscribe(channel("_log")));
    for peer in 1..=2 {
        bench.peer_says(peer, true, "_log");
    }
    let said = bench.give(Input::Publish(durable(1, "registry", "own")));
    assert_eq!(said, ["Own to 1: own", "Own to 2: own", "published to 2"]);
    bench.envelope(1, &durable(2, "news", "theirs"));
    assert_eq!(bench.verified("theirs")[0], "deliver theirs of 1");
    // This node may have lost what it once wrote.
    bench.envelope(1, &durable(1, "news", "lost"));
    assert_eq!(bench.verified("lost")[0], "deliver lost of 1");
    let said = bench.message(2, "news", durable(2, "news", "elsewhere").as_bytes().clone());
    assert_eq!(said, [""; 0], "this node is not on that channel");
    let said = bench.message(2, "_log", sealed(2, "_log", 9, NOW, "ephemeral").as_bytes().clone());
    assert_eq!(said[0], "refuse wrong_kind in _log of 2");
}

#[test]
fn own_messages_go_out_and_never_come_back() {
    let mut bench = Bench::in_news();
    let own = sealed(1, "news", 1, NOW, "own");
    let said = bench.give(Input::Publish(own.clone()));
    assert_eq!(said, ["Own to 1: own", "Own to 2: own", "Own to 3: own", "published to 3"]);
    assert_eq!(bench.envelope(1, &own), [""; 0], "the router knows it");
    bench.wait(2 * Config::default().seen_ttl + Duration::from_secs(2));
    assert_eq!(bench.envelope(1, &own), ["verify own"], "the router has forgotten it");
    assert_eq!(bench.verified("own"), ["refuse replay in news by a member of 1"]);
    // Nor does what another holder of the key says, and who forges it is told from who repeats it.
    bench.envelope(1, &sealed(1, "news", 50, NOW, "never said"));
    assert_eq!(bench.verified("never said"), ["refuse replay in news by a member of 1"]);
    bench.message(1, "news", with_bad_signature(&sealed(1, "news", 51, NOW, "forged")));
    assert_eq!(bench.verified("forged"), ["refuse bad_signature in news of 1"]);
    assert_eq!(bench.state.validator().accepted(), 0);
}

#[test]
fn a_subscription_counts_at_the_moment_of_delivery() {
    let mut bench = Bench::new();
    bench.connect(1..=2);
    bench.peer_says(1, true, "news");
    bench.envelope(1, &sealed(2, "news", 1, NOW, "a"));
    bench.envelope(1, &sealed(2, "news", 2, NOW, "b"));
    bench.envelope(1, &sealed(2, "news", 3, NOW, "c"));
    assert_eq!(bench.verified("a"), ["pass on a of 1"]);
    assert_eq!(bench.give(Input::Subscribe(channel("news"))), [""; 0], "the node is in the topic already");
    assert_eq!(bench.state.subscriptions().count(), 1);
    assert_eq!(bench.verified("b"), ["deliver b of 1"]);
    assert_eq!(bench.give(Input::Unsubscribe(channel("news"))), [""; 0], "it is passed on");
    assert_eq!(bench.verified("c"), ["pass on c of 1"]);
    assert_eq!(bench.give(Input::Unsubscribe(channel("olds"))), [""; 0]);
    assert_eq!((bench.state.subscriptions().count(), bench.state.relayed().count()), (0, 1));
}

#[test]
fn a_message_given_up_by_the_router_is_not_checked_twice_at_a_time() {
    let mut bench = Bench::with(|config| {
        (config.validating_beats_max, config.history_length, config.history_gossip) = (2, 1, 1);
        (config.seen_ttl, config.validating_max) = (Duration::from_secs(1), 2);
    });
    bench.connect(1..=2);
    bench.give(Input::Subscribe(channel("news")));
    let messages: Vec<Envelope> =
        (1..=3).map(|seq| sealed(2, "news", seq, NOW, &format!("m{seq}"))).collect();
    assert_eq!(bench.envelope(1, &messages[0]), ["verify m1"]);
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.stats().verdicts_missing, 1);
    assert_eq!(bench.envelope(2, &messages[0]), [""; 0], "it is being checked");
    assert_eq!(bench.verified("m1"), ["deliver m1 of 1"]);
    assert_eq!((bench.stats().accepted, bench.stats().verdicts_late), (1, 0), "the answer counts for both");
    // Answers that never come do not pile up: the oldest makes room, and its answer comes to nothing.
    bench.envelope(1, &messages[1]);
    bench.wait(Duration::from_secs(5));
    for seq in 4..6 {
        bench.wait(Duration::from_millis(1));
        bench.envelope(1, &sealed(2, "news", seq, NOW, &format!("m{seq}")));
        assert!(bench.state.pending() <= 2);
    }
    assert_eq!(bench.verified("m2"), [""; 0]);
    assert_eq!(bench.verified("m4"), ["deliver m4 of 1"]);
    assert_eq!(bench.verified("m5"), ["deliver m5 of 1"]);
}

#[test]
fn a_relay_joins_what_a_neighbour_subscribes_to() {
    let mut bench = Bench::new();
    bench.connect(1..=2);
    let said = bench.peer_says(1, true, "news");
    assert_eq!(
        said,
        ["1 joins news", "1 in mesh of news", "Control to 1: +news, graft news", "Control to 2: +news"]
    );
    bench.peer_says(2, true, "news");
    bench.envelope(1, &sealed(2, "news", 1, NOW, "hello"));
    assert_eq!(bench.verified("hello"), ["pass on hello of 1", "Forwarded to 2: hello"]);
    let foreign = Topic::new("omnimesh/1/00000000000000000000000000000000/news").unwrap();
    for topic in [foreign, Topic::new("blocks").unwrap()] {
        let subscriptions = vec![Subscription { subscribe: true, topic }];
        let said = bench.rpc(1, Rpc { subscriptions, ..Rpc::default() });
        assert_eq!(said, ["1 joins ?"], "it is of another mesh");
    }
    assert_eq!(bench.state.relayed().count(), 1);
}

#[test]
fn a_relayed_channel_is_left_when_it_is_quiet_and_nobody_is_in_it() {
    let mut bench = Bench::new();
    bench.connect(1..=2);
    bench.peer_says(1, true, "news");
    let later = |bench: &mut Bench, step| {
        bench.wait(RELAYED_QUIET + Duration::from_secs(1));
        bench.give(Input::Step(Some(Step(step))))
    };
    assert_eq!(later(&mut bench, 101), [""; 0], "a rare message may still come");
    bench.peer_says(1, false, "news");
    assert_eq!(bench.give(Input::Step(Some(Step(102)))), ["Control to 1: -news", "Control to 2: -news"]);
    assert_eq!(bench.state.relayed().count(), 0);
    // What was subscribed is kept for the others as long.
    bench.give(Input::Subscribe(channel("olds")));
    assert_eq!(later(&mut bench, 103), [""; 0], "subscribed");
    bench.give(Input::Unsubscribe(channel("olds")));
    assert_eq!(bench.give(Input::Step(Some(Step(104)))), [""; 0], "not quiet for long");
    assert_eq!(later(&mut bench, 105), ["Control to 1: -olds", "Control to 2: -olds"]);
}

#[test]
fn relayed_channels_are_bounded_and_the_quietest_makes_room() {
    let mut bench = Bench::new();
    bench.connect(1..=4);
    let name = |peer: u32, n: usize| format!("c{peer}.{n:03}");
    for peer in 1..=3 {
        for n in 0..=RELAYED_PER_PEER_MAX {
            bench.peer_says(peer, true, &name(peer, n));
        }
    }
    assert_eq!(bench.state.relayed().count(), RELAYED_MAX, "peers 1 and 2 have half of the places each");
    assert!(bench.state.relayed().all(|channel| !channel.as_str().starts_with("c3")));
    bench.wait(RELAYED_QUIET);
    // One is spoken in; garbage in another does not count.
    bench.envelope(1, &sealed(2, &name(1, 0), 1, NOW, "spoken"));
    bench.verified("spoken");
    bench.message(1, &name(1, 1), "garbage");
    bench.wait(Duration::from_secs(1));
    bench.peer_says(4, true, "new");
    let relayed: BTreeSet<String> = bench.state.relayed().map(ToString::to_string).collect();
    assert_eq!(relayed.len(), RELAYED_MAX);
    assert!(relayed.contains("new") && relayed.contains(&name(1, 0)) && !relayed.contains(&name(1, 1)));
    // A subscription needs no place among them, but to give it up does.
    bench.give(Input::Subscribe(channel("mine")));
    assert_eq!(bench.state.relayed().count(), RELAYED_MAX);
    bench.give(Input::Unsubscribe(channel("mine")));
    assert_eq!(bench.state.relayed().count(), RELAYED_MAX);
    assert!(!bench.state.gossip().topics().contains(&topic("mine")));
}
