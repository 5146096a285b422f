//! The command against an API that says what each test wants it to say.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::thread;

use crate::common::{Run, omnimesh, run, run_with_input};
use omnimesh_protocol::{Identity, MessageId};

/// One request as the API saw it.
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

/// A home in whose data directory a node seems to run: it gives `answers` to one request each, and the
/// requests come back.
pub(crate) fn node(answers: Vec<String>) -> (tempfile::TempDir, thread::JoinHandle<Vec<Request>>) {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join(".local/share/omnimesh");
    fs::create_dir_all(&data).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(data.join("api-address"), format!("{}\n", listener.local_addr().unwrap())).unwrap();
    let mut token = fs::OpenOptions::new();
    let mut token = token.write(true).create_new(true).mode(0o600).open(data.join("api-token")).unwrap();
    token.write_all(b"token-of-the-node\n").unwrap();
    let serve = move || answers.iter().map(|answer| serve(&listener.accept().unwrap().0, answer)).collect();
    (home, thread::spawn(serve))
}

fn serve(mut stream: &TcpStream, answer: &str) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (mut authorization, mut length, mut is_chunked) = (String::new(), 0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            "transfer-encoding" => is_chunked = value == "chunked",
            _ => {}
        }
    }
    let body = if is_chunked { chunks(&mut reader) } else { exactly(&mut reader, length) };
    let _ = stream.write_all(answer.as_bytes());
    Request { line: line.trim().to_owned(), authorization, body: String::from_utf8(body).unwrap() }
}

fn exactly(reader: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).unwrap();
    bytes
}

/// A body in chunks, each with its length and line ends around it, the last one empty.
fn chunks(reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        body.extend(exactly(reader, length));
        exactly(reader, 2);
        if length == 0 {
            return body;
        }
    }
}

pub(crate) fn json(status: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn events(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
}

pub(crate) fn error(status: &str, code: &str, message: &str) -> String {
    json(status, &serde_json::json!({"error": {"code": code, "message": message, "hint": "do this"}}))
}

fn published(recipients: usize) -> String {
    let id = MessageId::of(b"x").to_string();
    json("200 OK", &serde_json::json!({"id": id, "seq": 1, "step": 2, "recipients": recipients}))
}

fn message(seq: u64, data: &str) -> String {
    let item = serde_json::json!({
        "id": MessageId::of(b"x").to_string(), "channel": "news", "author": Identity::from_seed(&[1; 32]).id(),
        "seq": seq, "step": 7, "data": data, "latency_ms": 1.5, "later": true,
    });
    format!("event: message\ndata: {item}\n\n")
}

#[test]
fn publish_sends_the_token_and_the_payload() {
    let (home, api) = node(vec![published(3)]);
    let run = run(home.path(), &["publish", "a b", "hello", "--output", "json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.json()["recipients"], 3);
    let request = api.join().unwrap().remove(0);
    assert_eq!(request.line, "POST /api/v1/channels/a%20b/messages HTTP/1.1");
    assert_eq!(request.authorization, "Bearer token-of-the-node");
    assert_eq!(request.body, r#"{"data":"hello"}"#);
}

#[test]
fn publish_reads_standard_input() {
    let (home, api) = node(vec![published(1), published(1)]);
    assert_eq!(run_with_input(home.path(), &["publish", "c", "-"], b"piped").code, 0);
    assert_eq!(run_with_input(home.path(), &["publish", "c", "-"], &[0xff, 0]).code, 0);
    let requests = api.join().unwrap();
    assert_eq!(requests[0].body, r#"{"data":"piped"}"#);
    assert_eq!(requests[1].body, r#"{"data_base64":"/wA="}"#);
}

#[test]
fn publishing_to_nobody_is_said() {
    let (home, _api) = node(vec![published(0)]);
    let run = run(home.path(), &["publish", "news", "x", "--output", "json"]);
    assert_eq!(run.code, 8);
    assert_eq!(run.json()["recipients"], 0);
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["code"], "partly_done");
    assert!(error["error"]["message"].as_str().unwrap().contains("nobody got it"));
}

#[test]
fn refusals_of_the_node_keep_their_words() {
    let cases = [
        (error("413 Payload Too Large", "too_large", "the payload has 70000 bytes, the limit is 65536"), 9),
        (error("401 Unauthorized", "unauthorized", "the token is wrong"), 5),
        (error("404 Not Found", "not_found", "no such message"), 6),
        (error("429 Too Many Requests", "rate_limited", "slower"), 9),
        (error("504 Gateway Timeout", "timeout", "too busy"), 7),
    ];
    for (answer, code) in cases {
        let (home, _api) = node(vec![answer]);
        let run = run(home.path(), &["publish", "news", "x"]);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(
            run.stderr.starts_with("error: ") && run.stderr.contains("\nhint: do this"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn a_missing_token_file_is_named() {
    let (home, _api) = node(vec![]);
    let arguments = ["status", "--token-file", "/nowhere/token"];
    let run = run(home.path(), &arguments);
    assert_eq!(run.code, 5);
    assert!(run.stderr.contains("/nowhere/token"), "{}", run.stderr);
}

#[test]
fn subscribe_counts_and_passes_on_what_it_does_not_know() {
    let (home, _api) =
        node(vec![events(&format!(": hi\n\n{}{}{}", message(1, "a"), message(2, "b"), message(3, "c")))]);
    let run = run(home.path(), &["subscribe", "news", "--count", "2", "--output", "ndjson"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["data"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(lines[0]["later"], true);
    assert_eq!(run.stderr, "subscribed to news\n");
}

#[test]
fn subscribe_says_what_was_lost_and_when_the_node_stops() {
    let (home, _api) =
        node(vec![events(&format!("event: lagged\ndata: {{\"lost\":5}}\n\n{}", message(9, "x\u{1b}[2J")))]);
    let run = run(home.path(), &["subscribe", "news"]);
    assert_eq!(run.code, 4);
    assert!(run.stdout.ends_with("  seq 9  step 7  1.5 ms  x\\u{1b}[2J\n"), "{}", run.stdout);
    assert!(run.stderr.contains("5 messages were lost"), "{}", run.stderr);
    assert!(run.stderr.contains("the node ended the subscription"), "{}", run.stderr);
}

/// An API that sends the beginning of a stream and then nothing, until the other side has gone.
fn hanging(beginning: String) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let api = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        serve(&stream, &events(&beginning));
        let _ = stream.read(&mut [0; 1]);
    });
    (url, api)
}

#[test]
fn subscribe_gives_up_when_told_to() {
    let home = tempfile::tempdir().unwrap();
    let (url, api) = hanging(message(1, "a"));
    let arguments = ["subscribe", "news", "--count", "3", "--timeout", "3", "--api-url", &url];
    let run = run(home.path(), &arguments);
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert!(run.stderr.contains("received 1 of 3 messages in 3 s"), "{}", run.stderr);
    api.join().unwrap();
}

#[test]
fn an_interrupt_ends_a_subscription_with_its_code() {
    let home = tempfile::tempdir().unwrap();
    let (url, api) = hanging(message(1, "a"));
    let mut child = omnimesh(home.path(), &["subscribe", "news", "--api-url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A message is passed on at once.
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("  a\n"), "{line}");
    interrupt(child.id());
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.code, run.stderr.as_str()), (130, "subscribed to news\n"));
    api.join().unwrap();
}

/// Interrupts a child once it listens for that: before, it would just be killed.
fn interrupt(pid: u32) {
    let listens = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0
    };
    while !listens() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn lists_are_tables_or_what_the_node_sent() {
    let id = Identity::from_seed(&[1; 32]).id();
    let members = serde_json::json!([{
        "peer_id": id, "state": "alive", "step": 7, "addresses": ["/ip4/127.0.0.1/tcp/1"],
        "last_seen_ms": 12, "rtt_ms": 0.5, "later": 1,
    }, {
        "peer_id": Identity::from_seed(&[2; 32]).id(), "state": "alive", "step": 7, "addresses": [], "last_seen_ms": 0,
        "rtt_ms": null, "this_node": true,
    }]);
    let (home, _api) =
        node(vec![json("200 OK", &members), json("200 OK", &members), json("200 OK", &members)]);
    assert_eq!(run(home.path(), &["members", "--output", "json"]).json(), members);
    let line = run(home.path(), &["members", "--output", "ndjson"]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(line.lines().next().unwrap()).unwrap(), members[0]);
    let table = run(home.path(), &["members"]).stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("PEER ID") && lines[0].contains("LAST SEEN"), "{table}");
    assert!(
        lines[1].starts_with(&id.to_string()) && lines[1].contains("alive") && lines[1].contains("0.5 ms")
    );
    assert!(lines[1].contains("12 ms") && !lines[1].contains("this node"), "{table}");
    assert!(lines[2].contains("this node") && !lines[2].contains("0 ms"), "{table}");
}

#[test]
fn an_invite_for_this_machine_only_is_said_to_be_that() {
    let invite =
        |only: bool| json("200 OK", &serde_json::json!({"invite": "token", "this_machine_only": only}));
    let older = json("200 OK", &serde_json::json!({"invite": "token"}));
    let (home, _api) = node(vec![invite(true), invite(true), invite(false), older]);
    let told = run(home.path(), &["invite"]);
    assert_eq!((told.code, told.stdout.as_str()), (0, "token\n"), "what is saved is the token alone");
    assert!(told.stderr.contains("works on this machine only"), "{}", told.stderr);
    assert_eq!(run(home.path(), &["invite", "--output", "json"]).json()["this_machine_only"], true);
    for what in ["leads elsewhere", "is of an older node"] {
        let quiet = run(home.path(), &["invite"]);
        assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("token\n", ""), "{what}");
    }
}

#[test]
fn status_waits_until_the_node_is_ready_and_not_for_ever() {
    let status = |is_ready: bool, reason: Option<&str>| {
        let body = serde_json::json!({
            "peer_id": Identity::from_seed(&[1; 32]).id(), "mesh_id": "00".repeat(16), "mesh_name": "demo", "step": 7,
            "phase": 0, "step_interval_ms": 1000, "peers": 0, "members": 1, "uptime_s": 1, "version": "0.1.0",
            "listen": [], "api": "127.0.0.1:1", "ready": is_ready, "not_ready_reason": reason,
            "verified_delivery": "no probes yet",
            "probes": {"delivery": 1.0, "worst_delivery": 1.0, "origins": 0, "received": 0, "lost": 0, "wrong": 0,
                       "out_of_order": 0, "malformed": 0, "latency_ms": 0.0, "jitter_ms": 0.0},
        });
        json("200 OK", &body)
    };
    let waiting = status(false, Some("waiting for a bootstrap node"));
    let (home, api) = node(vec![waiting.clone(), status(true, None)]);
    let run_once = run(home.path(), &["status", "--wait"]);
    assert_eq!(run_once.code, 0, "{}", run_once.stderr);
    assert!(run_once.stdout.contains("ready              yes"), "{}", run_once.stdout);
    assert_eq!(api.join().unwrap().len(), 2);

    let (home, _api) = node(vec![waiting; 100]);
    let run = run(home.path(), &["status", "--wait", "--timeout", "2"]);
    assert_eq!(run.code, 7, "{}", run.stderr);
    let said = "error: not ready after 2 s: waiting for a bootstrap node";
    assert!(run.stderr.contains(said) && run.stderr.contains("--timeout"), "{}", run.stderr);
    // Where none runs yet is waited, too.
    let nowhere = tempfile::tempdir().unwrap();
    let run = crate::common::run(nowhere.path(), &["status", "--wait", "--timeout", "0.2"]);
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert!(run.stderr.contains("no node runs in the data directory"), "{}", run.stderr);
}

#[test]
fn what_is_no_node_is_said_to_be_none() {
    let (home, _api) = node(vec!["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned()]);
    let run = run(home.path(), &["status"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("did not answer as an OmniMesh node"), "{}", run.stderr);
}

#[test]
fn why_peer_gathers_what_the_node_knows() {
    let id = Identity::from_seed(&[1; 32]).id().to_string();
    let empty = serde_json::json!([]);
    let anomalies = serde_json::json!([
        {"id": "1", "kind": "replay", "accused": id, "reporter": id, "step": 3, "severity": "warning",
         "evidence": null, "detail": "seen before"},
        {"id": "2", "kind": "replay", "accused": "other", "reporter": id, "step": 3, "severity": "warning",
         "evidence": null, "detail": "not this one"},
    ]);
    let why = serde_json::json!({
        "peer_id": id, "standing": "suspected", "trust": 0.4, "score": 0.0, "good": 0.0, "suspicion": 1.0,
        "fault": 0.0, "doubt": 0.0, "findings": [], "history": [], "quarantine": null, "way_back": [],
    });
    let answers = [&empty, &empty, &anomalies, &empty, &why].into_iter().chain([&empty; 8]);
    let (home, _api) = node(answers.map(|answer| json("200 OK", answer)).collect());
    let why = run(home.path(), &["why", "peer", &id]);
    assert_eq!(why.code, 0, "{}", why.stderr);
    assert!(why.stdout.contains("seen before") && !why.stdout.contains("not this one"), "{}", why.stdout);
    assert_eq!(run(home.path(), &["why", "peer", "stranger"]).code, 2);
    let stranger = Identity::from_seed(&[9; 32]).id().to_string();
    assert_eq!(run(home.path(), &["why", "peer", &stranger]).code, 6);
}

#[test]
fn a_channel_is_named_as_it_was_typed() {
    let (home, _api) = node(vec![]);
    for arguments in [["publish", "a/b", "x"].as_slice(), &["subscribe", "a/b"]] {
        let run = run(home.path(), arguments);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains("a/b") && !run.stderr.contains("%2F"), "{}", run.stderr);
    }
}

#[test]
fn a_clock_that_nobody_has_set_shows_no_step() {
    let step = |step: u64, mesh_time_ms: u64| {
        json(
            "200 OK",
            &serde_json::json!({
                "step": step, "phase": 0, "mesh_time_ms": mesh_time_ms, "offset_ms": 0.0, "skew_ms": 0.0, "samples": 0,
            }),
        )
    };
    let (home, _api) = node(vec![step(0, 0), step(0, 12)]);
    assert!(run(home.path(), &["step"]).stdout.starts_with("step       -\nphase      -\nmesh time  -\n"));
    assert!(run(home.path(), &["step"]).stdout.starts_with("step       0\nphase      0\nmesh time  12 ms\n"));
}

#[test]
fn a_blob_goes_to_who_reads_some_of_it() {
    let content = "x".repeat(4 << 20);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len());
    let (home, _api) = node(vec![head + &content]);
    let mut child = omnimesh(home.path(), &["blob", "get", &"ab".repeat(32)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn who_takes_care_already_is_said() {
    let alert = serde_json::json!({
        "id": 3, "metric": "disk", "stage": "acknowledged", "level": "warning", "worst": "warning", "value": 1.0,
        "detail": "disk", "opened_ms": 1, "acknowledged_ms": 2, "acknowledged_by": "ann", "resolved_ms": null,
    });
    let mut over = alert.clone();
    (over["stage"], over["acknowledged_by"]) = ("resolved".into(), serde_json::Value::Null);
    let (home, _api) = node([&alert, &alert, &over].map(|alert| json("200 OK", alert)).to_vec());
    let ack = |by: &str| run(home.path(), &["alerts", "ack", "3", "--by", by]);
    let second = ack("bob");
    assert!(second.stderr.contains("\"ann\" takes care of alert 3 already"), "{}", second.stderr);
    assert_eq!(second.code, 9);
    let again = ack("ann");
    assert_eq!((again.code, again.stderr.as_str()), (0, ""));
    let late = ack("bob");
    assert!(late.code == 9 && late.stderr.contains("alert 3 is over"), "{}", late.stderr);
}
