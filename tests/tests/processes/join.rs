//! Nodes find each other and exchange messages.

use std::fs;

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
    invite.expect(0, &["works on this machine only"]);
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
fn who_is_killed_soon_after_it_joined_finds_the_others_again() {
    let lab = lab!();
    let mut first = lab.node("first").open("demo").start();
    first.wait_ready();
    let spec = lab.node("second").open("demo").listen("/ip4/127.0.0.1/tcp/0");
    let mut second = spec.clone().bootstrap(&first).start();
    second.wait_ready();
    let first_address = first.address();
    let (place, _) = first_address.split_once("/p2p/").unwrap();
    wait_for("the second node's book to be on its disk", SOON, || {
        let store = fs::read(second.data_dir().join("node.redb")).map_err(|error| error.to_string())?;
        let is_kept = store.windows(place.len()).any(|bytes| bytes == place.as_bytes());
        check(is_kept, || format!("{place} is not in it"))
    });
    // It comes back at another port, and is told nothing: neither knows where the other is but from its own book.
    second.restart_with(|_| spec);
    wait_for("the second node to find the first", SOON, || {
        second.expect_sees(&first, "alive")?;
        first.expect_sees(&second, "alive")
    });
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

#[track_caller]
fn says(node: &Node<'_>, line: &str) {
    wait_for(&format!("{} to say {line:?}", node.name()), SOON, || {
        let log = node.log();
        check(log.lines().any(|said| said == line), || log)
    });
}

#[test]
fn a_node_says_whom_it_waits_for() {
    let lab = lab!();
    let mut first = lab.node("first").open("demo").start();
    says(&first, "peers       none known yet: it waits for others to join");
    let bootstrap = first.address();
    let mut second = lab.node("second").open("demo").args(&["--bootstrap", &bootstrap]).start();
    says(&second, "peers       it dials 1 bootstrap address, and takes part once one answers");
    first.wait_ready();
    second.wait_ready();
    wait_for("both to know each other", SOON, || {
        first.expect_sees(&second, "alive")?;
        second.expect_sees(&first, "alive")
    });
    // Stopped in good order, they keep what they know.
    for node in [&mut first, &mut second] {
        node.signal("TERM");
        assert_eq!(node.wait_exit(), 0, "{}", node.log());
        node.restart();
    }
    let alone = "and goes on alone if nobody is there within 5 s";
    says(&first, &format!("peers       it looks for the 1 peer that it has met, {alone}"));
    says(
        &second,
        &format!("peers       it dials 1 bootstrap address and the 1 peer that it has met, {alone}"),
    );
}

/// Two nodes that know each other's address, but not each other's mesh: nothing passes, and both say why.
fn strangers(ours: &mut Node<'_>, theirs: &mut Node<'_>) {
    const WHY: &str = "another mesh name or secret";
    ours.wait_ready();
    for node in [&*ours, theirs] {
        wait_for(&format!("{} to say why", node.name()), SOON, || {
            let log = node.log();
            check(log.contains(WHY), || log)
        });
    }
    wait_for("the reason in the status", SOON, || {
        let status = theirs.try_json(&["status"])?;
        let reason = status["not_ready_reason"].as_str().unwrap_or_default();
        check(reason.contains(WHY) && reason.contains(ours.peer_id()), || status.to_string())
    });
    let ears = [ours.subscribe("news"), theirs.subscribe("news")];
    let published = ours.publish("news", "for members only").unwrap();
    assert_eq!(published["recipients"], 0, "nobody of this mesh is there");
    assert!(theirs.publish("news", "let me in").is_err(), "a node without a mesh publishes nothing");
    for (node, ear) in [&*ours, theirs].into_iter().zip(&ears) {
        assert_eq!(ear.messages().len(), 0);
        assert_eq!(node.members().unwrap().len(), 1, "each is alone in its mesh");
        let peers = node.json(&["peers"]);
        assert!(peers.as_array().unwrap().iter().all(|peer| peer["member"] == false), "{peers}");
    }
    let anomalies = ours.json(&["anomalies"]);
    let accused = anomalies.as_array().unwrap().iter().find(|anomaly| anomaly["kind"] == "wrong_mesh");
    assert_eq!(accused.map(|anomaly| &anomaly["accused"]), Some(&theirs.peer_id().into()), "{anomalies}");
}

#[test]
fn another_name_is_another_mesh() {
    let lab = lab!();
    let mut ours = lab.node("ours").open("demo").start();
    let mut theirs = lab.node("theirs").open("dome").bootstrap(&ours).start();
    strangers(&mut ours, &mut theirs);
}

#[test]
fn another_secret_is_another_mesh() {
    let lab = lab!();
    let mut ours = lab.node("ours").start();
    let secret = lab.file("secret", &"5a".repeat(32));
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = lab.file("node.toml", &format!("[mesh]\nsecret_file = {secret:?}\n"));
    let theirs = lab.node("theirs").args(&["--config", config.to_str().unwrap()]).bootstrap(&ours);
    strangers(&mut ours, &mut theirs.start());
}
