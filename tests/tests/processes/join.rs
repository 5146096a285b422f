//! Nodes find each other and exchange messages.

use omnimesh_tests::{Node, SOON, Spec, check, lab, wait_for};

/// The three terminals of the first five minutes: one publishes, the others print it.
fn exchange(nodes: &mut [Node<'_>]) {
    nodes.iter_mut().for_each(|node| {
        node.wait_ready();
    });
    let (publisher, others) = nodes.split_first().unwrap();
    let subscribers: Vec<_> = others.iter().map(|node| node.subscribe("news")).collect();
    wait_for("a neighbour that subscribes", SOON, || {
        let published = publisher.publish("news", "probe")?;
        check(published["recipients"].as_u64() == Some(others.len() as u64), || published.to_string())
    });
    let published = publisher.publish("news", "hello").unwrap();
    for subscriber in &subscribers {
        let message = subscriber.wait_for("hello");
        assert_eq!(message["author"], publisher.peer_id());
        assert_eq!((&message["id"], &message["seq"]), (&published["id"], &published["seq"]));
        assert_eq!(message["channel"], "news");
    }
}

fn by_invite(transport: fn(Spec<'_>) -> Spec<'_>) {
    let lab = lab!();
    let mut first = transport(lab.node("first")).start();
    first.wait_ready();
    let invite = first.run(&["invite"]);
    invite.expect(0, &[]);
    let file = lab.file("invite", &invite.stdout);
    let second = transport(lab.node("second")).args(&["--invite", file.to_str().unwrap()]).start();
    let third = transport(lab.node("third")).args(&["--invite", "-"]).input(&invite.stdout).start();
    exchange(&mut [first, second, third]);
}

fn by_name(transport: fn(Spec<'_>) -> Spec<'_>) {
    let lab = lab!();
    let first = transport(lab.node("first")).open("demo").start();
    let second = transport(lab.node("second")).open("demo").bootstrap(&first).start();
    let third = transport(lab.node("third")).open("demo").bootstrap(&first).start();
    exchange(&mut [first, second, third]);
}

#[test]
fn by_invite_over_tcp() {
    by_invite(|spec| spec);
}

#[test]
fn by_invite_over_quic_alone() {
    by_invite(|spec| spec.quic());
}

#[test]
fn an_open_mesh_over_tcp() {
    by_name(|spec| spec);
}

#[test]
fn an_open_mesh_over_quic_alone() {
    by_name(|spec| spec.quic());
}

#[test]
fn an_address_that_leads_nowhere_does_not_keep_others_waiting() {
    let lab = lab!();
    let mut first = lab.node("first").open("demo").start();
    first.wait_ready();
    // Nobody listens there, and UDP does not say so.
    let nowhere = format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{}", lab.port(), first.peer_id());
    let mut second =
        lab.node("second").open("demo").args(&["--bootstrap", &nowhere]).bootstrap(&first).start();
    second.wait_ready();
    let log = second.log();
    assert!(!log.contains("does not answer"), "the other address was dialled at the same time: {log}");
    assert_eq!(second.json(&["status"])["peers"], 1);
}

#[test]
fn the_line_that_was_printed_joins() {
    let lab = lab!();
    let mut first = lab.node("first").open("demo").start();
    first.wait_ready();
    let join: Vec<_> = first.join_line().split_whitespace().collect();
    assert_eq!(join[..2], ["omnimesh", "start"]);
    let second = lab.node("second").args(&join[2..]).start();
    exchange(&mut [first, second]);
}
