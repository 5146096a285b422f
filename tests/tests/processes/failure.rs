//! Nodes that die, are gone, come back, or were never there.

use std::time::{Duration, Instant};

use omnimesh_tests::{Node, SOON, Subscriber, check, lab, wait_for};

use crate::common::{NEWS, all_see, mesh, subscribe_all, wait_all_alive, wait_for_recipients};

/// Within this time after its end, a node is dead in everybody's members, with the default settings.
const DEAD_MAX: Duration = Duration::from_secs(15);

/// How long the bootstrap node is away. Long enough for it to be declared dead, with time to spare.
const AWAY: Duration = Duration::from_secs(20);

/// Publishes and waits until everybody else has it.
#[track_caller]
fn exchange(publisher: &Node<'_>, subscribers: &[Subscriber], data: &str) -> u64 {
    let published = publisher.publish(NEWS, data).unwrap();
    for subscriber in subscribers.iter().filter(|subscriber| subscriber.name() != publisher.name()) {
        let message = subscriber.wait_for(data);
        assert_eq!((&message["id"], &message["seq"]), (&published["id"], &published["seq"]));
    }
    published["seq"].as_u64().unwrap()
}

/// Waits until a node that was just killed is dead to all. The time is promised by those who are well: one that is itself late
/// doubts itself before it says that others are dead.
#[track_caller]
fn dead_in_time(others: &[Node<'_>], victim: &Node<'_>, killed: Instant) {
    let mut is_one_late = false;
    wait_for("the killed node to be dead to all", SOON, || {
        for node in others {
            let metrics = node.get("/metrics")?.body;
            is_one_late |= !metrics.lines().any(|line| line == "omnimesh_local_health 0.0");
        }
        all_see(others, std::slice::from_ref(victim), "dead")
    });
    let took = killed.elapsed();
    println!("dead to all {:.1} s after the kill", took.as_secs_f64());
    assert!(took <= DEAD_MAX || is_one_late, "dead to all only {took:?} after the kill");
}

#[test]
fn a_killed_node_is_dead_to_all_and_comes_back_by_itself() {
    let lab = lab!();
    let mut others = mesh(&lab, 5);
    let mut victim = others.pop().unwrap();
    let subscribers = subscribe_all(&others);
    wait_for_recipients(&victim);
    let seq = exchange(&victim, &subscribers, "before");

    let killed = Instant::now();
    victim.kill();
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&others[0], &subscribers, "right after the kill"));
        dead_in_time(&others, &victim, killed);
    });
    for (number, node) in others.iter().enumerate() {
        exchange(node, &subscribers, &format!("without it {number}"));
    }

    victim.restart();
    victim.wait_ready();
    wait_for("the restarted node to be alive to all", SOON, || {
        all_see(&others, std::slice::from_ref(&victim), "alive")
    });
    wait_for("the restarted node to know all", SOON, || {
        let members = victim.members()?;
        check(members.len() == 5, || format!("{members:?}"))
    });
    wait_for_recipients(&victim);
    let news = victim.subscribe(NEWS);
    let after = exchange(&victim, &subscribers, "after");
    assert!(after > seq, "sequence numbers go on: {seq}, then {after}");
    wait_for_recipients(&others[0]);
    wait_for("the restarted node to hear the others", SOON, || {
        others[0].publish(NEWS, "welcome")?;
        news.got("welcome")
    });
    for node in &others {
        let metrics = node.get("/metrics").unwrap().body;
        let refused = "omnimesh_messages_refused_total{reason=\"replay\"} 0";
        assert!(metrics.lines().any(|line| line == refused), "{metrics}");
    }
}

#[test]
fn with_two_nodes_one_notices_alone() {
    let lab = lab!();
    let mut nodes = mesh(&lab, 2);
    let mut victim = nodes.pop().unwrap();
    let killed = Instant::now();
    victim.kill();
    dead_in_time(&nodes, &victim, killed);
    victim.restart();
    wait_for("the restarted node to be alive", SOON, || nodes[0].expect_sees(&victim, "alive"));
}

#[test]
fn the_mesh_outlives_its_bootstrap_node() {
    let lab = lab!();
    let mut others = mesh(&lab, 4);
    let mut bootstrap = others.remove(0);
    let subscribers = subscribe_all(&others);
    others.iter().for_each(|node| wait_for_recipients(node));

    let gone = Instant::now();
    bootstrap.kill();
    let mut rounds = 0;
    while gone.elapsed() < AWAY {
        let publisher = &others[rounds % others.len()];
        exchange(publisher, &subscribers, &format!("round {rounds}"));
        rounds += 1;
        // A message every second or so is talk enough.
        let next = gone + Duration::from_secs(1) * u32::try_from(rounds).unwrap();
        wait_for("the next round", SOON, || check(Instant::now() >= next, String::new));
    }
    wait_for("the bootstrap node to be dead", SOON, || {
        all_see(&others, std::slice::from_ref(&bootstrap), "dead")
    });

    bootstrap.restart();
    bootstrap.wait_ready();
    others.push(bootstrap);
    wait_all_alive(&others);
    let bootstrap = others.last().unwrap();
    wait_for_recipients(bootstrap);
    exchange(bootstrap, &subscribers, "I am back");
}

#[test]
fn a_node_finds_its_mesh_again_without_its_bootstrap_node() {
    let lab = lab!();
    let mut others = mesh(&lab, 3);
    let mut bootstrap = others.remove(0);
    bootstrap.kill();
    let last = others.last_mut().unwrap();
    last.kill();
    last.restart();
    last.wait_ready();
    wait_all_alive(&others);
}

#[test]
fn a_node_waits_for_its_bootstrap_node_and_says_so() {
    let lab = lab!();
    let mut bootstrap = lab.node("bootstrap").open("test").start();
    bootstrap.wait_ready();
    bootstrap.kill();

    let mut node = lab.node("node").open("test").bootstrap(&bootstrap).start();
    wait_for("a word about the bootstrap node", SOON, || {
        let log = node.log();
        check(log.contains("does not answer") && log.contains(&bootstrap.address()), || log)
    });
    let status = node.json(&["status"]);
    assert_eq!(status["ready"], false, "{status}");
    let reason = status["not_ready_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("bootstrap") && reason.contains("does not answer"), "{status}");
    assert!(!node.said_ready());
    assert_eq!(node.get("/readyz").unwrap().status, 503);
    assert_eq!(node.get("/livez").unwrap().status, 200);
    let refused = node.run(&["publish", NEWS, "too early"]);
    assert!(refused.code != 0 && refused.stderr.contains("bootstrap"), "{refused:?}");

    bootstrap.restart();
    node.wait_ready();
    assert_eq!(node.get("/readyz").unwrap().status, 200);
    assert_eq!(node.json(&["status"])["ready"], true);
    wait_all_alive(&[bootstrap, node]);
}

#[test]
fn who_stops_in_good_order_has_left() {
    let lab = lab!();
    let mut nodes = mesh(&lab, 4);
    let mut terminated = nodes.pop().unwrap();
    let mut interrupted = nodes.pop().unwrap();
    terminated.signal("TERM");
    assert_eq!(terminated.wait_exit(), 0, "{}", terminated.log());
    interrupted.signal("INT");
    assert_eq!(interrupted.wait_exit(), 130, "{}", interrupted.log());
    wait_for("both to have left", SOON, || {
        nodes.iter().try_for_each(|node| {
            node.expect_sees(&terminated, "left")?;
            node.expect_sees(&interrupted, "left")
        })
    });
    for log in [terminated.log(), interrupted.log()] {
        assert!(!log.contains("does not answer") && !log.contains("panicked"), "{log}");
    }
}
