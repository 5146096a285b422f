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
