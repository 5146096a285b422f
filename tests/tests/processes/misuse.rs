//! Bad use: each with a clear message and the exit code of its kind.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use omnimesh_tests::http::Request;
use omnimesh_tests::{Lab, Run, SOON, Spec, check, lab, wait_for};

use crate::common::{NEWS, mesh};

/// A start that is to fail.
fn fails(lab: &Lab, spec: &Spec<'_>) -> Run {
    let run = lab.run(&spec.command_line());
    assert!(!run.stderr.contains("panicked"), "{run:?}");
    assert_eq!(run.stdout, "");
    run
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_configuration_that_is_wrong() {
    let lab = lab!();
    let config = lab.file("node.toml", "[gossip]\nmessage_byte_max = 1000\n");
    fails(&lab, &lab.node("a").args(&["--config", path(&config)])).expect(
        3,
        &[
            "node.toml:2",
            "unknown setting `gossip.message_byte_max`",
            "did you mean `gossip.message_bytes_max`?",
        ],
    );
    fails(&lab, &lab.node("a").open("x").args(&["--bootstrap", "/ip4/127.0.0.1/tcp/7411"]))
        .expect(2, &["/ip4/127.0.0.1/tcp/7411", "does not end in /p2p/<peer id>"]);
    let config = lab.file("node.toml", "[network]\nbootstrap = [\"/ip4/127.0.0.1/tcp/7411\"]\n");
    fails(&lab, &lab.node("a").open("x").args(&["--config", path(&config)]))
        .expect(3, &["does not end in /p2p/<peer id>", "node.toml"]);
}

#[test]
fn what_another_process_uses() {
    let lab = lab!();
    let (peers, api) = (format!("/ip4/127.0.0.1/tcp/{}", lab.port()), format!("127.0.0.1:{}", lab.port()));
    let mut node = lab.node("a").open("x").listen(&peers).api(&api).start();
    node.wait_ready();
    let free = "/ip4/127.0.0.1/tcp/0";
    fails(&lab, &lab.node("b").open("x").listen(&peers))
        .expect(1, &[&peers, "in use by another process", "choose another port"]);
    fails(&lab, &lab.node("b").open("x").listen(free).api(&api))
        .expect(1, &[&api, "in use by another process", "--api"]);
    fails(&lab, &lab.node("a").open("x").listen(free))
        .expect(1, &["data directory", "in use by another process", &node.pid().to_string(), "--data-dir"]);
    // A port of UDP is another matter.
    let quic = format!("/ip4/127.0.0.1/udp/{}/quic-v1", lab.port());
    let _c = lab.node("c").open("x").listen(&quic).start();
    fails(&lab, &lab.node("b").open("x").listen(&quic)).expect(1, &[&quic, "in use by another process"]);
}

#[test]
fn an_identity_that_others_can_read() {
    let lab = lab!();
    let spec = lab.node("a").open("x");
    let identity = spec.data_dir().join("identity");
    lab.run(&["key", "new", "--data-dir", path(&spec.data_dir())]).expect(0, &[]);
    fs::set_permissions(&identity, Permissions::from_mode(0o644)).unwrap();
    fails(&lab, &spec.listen("/ip4/127.0.0.1/tcp/0")).expect(9, &[path(&identity), "chmod 600"]);
}

#[test]
fn a_payload_over_the_limit_is_refused_and_the_largest_is_delivered() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    let subscriber = nodes[1].subscribe(NEWS);
    let refused = nodes[0].run_with_input(&["publish", NEWS, "-"], "x".repeat(65_536).as_bytes());
    refused.expect(9, &["65536 bytes is over the limit of", "gossip.message_bytes_max"]);
    let (_, limit) = refused.stderr.split_once("over the limit of ").unwrap();
    let limit: usize = limit.split_whitespace().next().unwrap().parse().unwrap();
    let publish = |bytes: usize| {
        nodes[0].run_with_input(&["publish", NEWS, "-", "--output", "json"], "y".repeat(bytes).as_bytes())
    };
    publish(limit + 1).expect(9, &["gossip.message_bytes_max"]);
    // So much that the request itself is too long.
    publish(4 * limit).expect(9, &["gossip.message_bytes_max"]);
    let largest = wait_for("a neighbour that subscribes", SOON, || {
        let run = publish(limit);
        check(run.code == 0, || run.stderr.clone()).map(|()| run.json())
    });
    wait_for("the largest payload", SOON, || {
        let messages = subscriber.messages();
        let found = messages.iter().find(|message| message["id"] == largest["id"]);
        let message = found.ok_or_else(|| format!("{} others came", messages.len()))?;
        let bytes = message["data"].as_str().map_or(0, str::len);
        check(bytes == limit, || format!("{bytes} bytes came"))
    });
}

#[test]
fn a_channel_without_a_proper_name() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    for name in ["", "two words"] {
        node.run(&["publish", name, "x"]).expect(2, &["channel name"]);
        node.run(&["subscribe", name, "--timeout", "1"]).expect(2, &["channel name"]);
    }
}

#[test]
fn a_payload_for_nobody() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    let run = nodes[0].run(&["publish", NEWS, "hello"]);
    run.expect(8, &["nobody got it", NEWS, "omnimesh subscribe"]);
    assert!(run.stdout.contains("recipients  0"), "{run:?}");
}

#[test]
fn who_may_ask_the_node() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    let url = format!("http://{}", node.api());
    let wrong = lab.file("token", &"ab".repeat(32));
    fs::set_permissions(&wrong, Permissions::from_mode(0o600)).unwrap();
    lab.run(&["status", "--api-url", &url]).expect(5, &["token is missing", "--token-file"]);
    lab.run(&["status", "--api-url", &url, "--token-file", path(&wrong)])
        .expect(5, &["token is missing or wrong", "`api-token`"]);
    let own = node.data_dir().join("api-token");
    lab.run(&["status", "--api-url", &url, "--token-file", path(&own)]).expect(0, &[]);

    let status = |request: Request| request.send(node.api()).unwrap().status;
    let get = || Request::get("/api/v1/status").token(&node.token());
    assert_eq!(status(get()), 200);
    assert_eq!(status(Request::get("/api/v1/status")), 401);
    for path in ["/api/v1/status", "/metrics", "/livez", "/readyz"] {
        let ask = || Request::get(path).token(&node.token());
        assert_eq!(status(ask().host("evil.example")), 403, "{path}");
        assert_eq!(status(ask().header("Origin", "http://evil.example")), 403, "{path}");
        assert_eq!(status(ask().header("Origin", &url)), 200, "{path}");
    }
    let post = || Request::post("/api/v1/channels/news/messages", "{\"data\":\"x\"}").token(&node.token());
    assert_eq!(status(post().header("Origin", "http://evil.example")), 403);
    assert_eq!(status(post().host("evil.example")), 403);
    assert_eq!(status(post()), 200);
    let stream = Request::get("/api/v1/channels/news/events").token(&node.token());
    assert_eq!(status(stream.host("evil.example")), 403);
    let upgrade = get().header("Upgrade", "websocket").header("Origin", "http://evil.example");
    assert_eq!(status(upgrade), 403);
}

#[test]
fn what_is_no_request_is_answered_and_fills_no_log() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    let before = node.log();
    for garbage in ["\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n"] {
        let mut stream = TcpStream::connect(node.api()).unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{garbage:?}: {answer:?}");
    }
    assert_eq!(Request::get("/livez").send(node.api()).unwrap().status, 200);
    assert_eq!(node.log(), before);
}

#[test]
fn a_node_that_does_not_run() {
    let lab = lab!();
    let dir = lab.dir().join("a");
    lab.run(&["status", "--data-dir", path(&dir)]).expect(4, &["no node runs", "omnimesh start"]);
    let mut node = lab.node("a").open("x").start();
    node.kill();
    let run = node.run(&["status", "--output", "json"]);
    run.expect(4, &["omnimesh start"]);
    let error: serde_json::Value = serde_json::from_str(run.stderr.trim()).unwrap();
    assert_eq!(error["error"]["code"], "unreachable", "{run:?}");
    assert!(error["error"]["hint"].is_string() && error["error"]["message"].is_string(), "{run:?}");
}

#[test]
fn what_nobody_knows() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    node.run(&["why", "message", &"ab".repeat(20)]).expect(6, &["knows nothing of that message"]);
    node.run(&["why", "message", "abc"]).expect(2, &["40 hexadecimal digits"]);
    let stranger = "12D3KooWPr3ExxPYYPG3jKD39h7CPCABgnfNC97dvNdNYcCJ9Dww";
    node.run(&["why", "peer", stranger]).expect(6, &["knows no peer"]);
    node.run(&["why", "peer", "12D3KooWabc"]).expect(2, &["is not the id of a peer", "omnimesh peers"]);
}
