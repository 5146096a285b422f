//! The log and the registry as an operator uses them.

use std::fs;
use std::path::Path;

use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::log::{Proof, Record};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh, NodeId, Seq, Step};
use omnimesh_tests::http::Request;
use omnimesh_tests::{Node, SOON, check, lab, wait_for};
use serde_json::{Value, json};

use crate::common::mesh;

/// Appends lines at a node and gives what it acknowledged.
#[track_caller]
fn append_lines(node: &Node<'_>, count: usize, what: &str) -> Vec<Value> {
    let lines: String = (0..count).map(|number| format!("{what} {number}\n")).collect();
    let run = node.run_with_input(&["log", "append", "-", "--lines", "--output", "ndjson"], lines.as_bytes());
    run.expect(0, &[]);
    run.lines()
}

/// Waits until both have the same entries, and gives how many.
#[track_caller]
fn wait_equal(one: &Node<'_>, other: &Node<'_>) -> u64 {
    wait_for("equal logs", SOON, || {
        let (one, other) = (one.view("log/status")?, other.view("log/status")?);
        check(one["fingerprint"] == other["fingerprint"], || format!("{one} and {other}"))?;
        Ok(one["entries"].as_u64().unwrap_or_default())
    })
}

#[test]
fn entries_are_appended_replicated_and_caught_up_with() {
    let lab = lab!();
    let mut nodes = mesh(&lab, 2);
    let first = nodes[0].json(&["log", "append", "hello", "--replicas", "1"]);
    assert_eq!((&first["durable"], &first["replicas"], &first["seq"]), (&json!(true), &json!(1), &json!(1)));
    assert_eq!(first["author"], nodes[0].peer_id());
    let read = nodes[1].json(&["log", "read", "--author", nodes[0].peer_id()]);
    assert_eq!(
        (&read[0]["data"], &read[0]["hash"], &read[0]["prev"]),
        (&json!("hello"), &first["hash"], &Value::Null)
    );
    let acknowledged = append_lines(&nodes[1], 300, "line");
    assert_eq!(acknowledged.len(), 300);
    assert!(acknowledged.iter().enumerate().all(|(place, entry)| entry["seq"] == json!(place + 1)));
    assert_eq!(wait_equal(&nodes[0], &nodes[1]), 301);
    nodes[1].kill();
    append_lines(&nodes[0], 50, "missed");
    nodes[1].restart();
    nodes[1].wait_ready();
    assert_eq!(wait_equal(&nodes[0], &nodes[1]), 351);
    let gaps = wait_for("the report of what was missed", SOON, || {
        let gaps = nodes[1].try_json(&["log", "gaps"])?;
        check(gaps[0]["entries"] == 50, || gaps.to_string()).map(|()| gaps)
    });
    assert_eq!(
        (&gaps[0]["authors"][0]["from"], &gaps[0]["authors"][0]["to"]),
        (&json!(2), &json!(51)),
        "{gaps}"
    );
    assert_eq!(gaps[0]["sources"][0]["peer_id"], nodes[0].peer_id());
    // The same on both, in the same order, and each log a chain.
    let all = nodes[1].json(&["log", "read"]);
    assert_eq!(all, nodes[0].json(&["log", "read"]));
    let mut last = std::collections::BTreeMap::new();
    for entry in all.as_array().unwrap() {
        let before = last.insert(entry["author"].to_string(), entry["hash"].clone());
        assert_eq!(entry["prev"], before.unwrap_or(Value::Null), "{entry}");
    }
    let part =
        nodes[0].json(&["log", "read", "--author", nodes[1].peer_id(), "--from", "299", "--limit", "5"]);
    assert_eq!(part.as_array().unwrap().len(), 2);
    assert_eq!(nodes[0].json(&["log", "heads"]).as_array().unwrap().len(), 2);
    let metrics = nodes[0].run(&["metrics"]).stdout;
    assert!(metrics.contains("\nomnimesh_log_entries 351"), "{metrics}");
}

#[test]
fn bad_use_of_the_log_changes_nothing() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    wait_for("an entry", SOON, || node.try_json(&["log", "append", "one"]));
    let own = node.peer_id().to_owned();
    let stranger = Identity::from_seed(&[9; 32]).id().to_string();
    node.run_with_input(&["log", "append", "-"], "x".repeat(65_536).as_bytes())
        .expect(9, &["the limit is", "gossip.message_bytes_max"]);
    node.run(&["log", "read", "--author", &stranger]).expect(6, &["no entry of", &stranger]);
    node.run(&["log", "read", "--author", &own, "--from", "9"])
        .expect(6, &["entries 1 to 1; 9 was asked for"]);
    node.run(&["log", "read", "--author", "nobody"]).expect(2, &["not a peer id"]);
    node.run(&["log", "append", "x", "--lines"]).expect(2, &["--lines reads standard input"]);
    node.run(&["publish", "_log", "x"]).expect(2, &["_log is reserved"]);
    node.run(&["subscribe", "_log"]).expect(2, &["_log is reserved"]);
    node.run(&["registry", "put", "Model/x"]).expect(2, &["a kind"]);
    node.run(&["registry", "put", "model"]).expect(2, &["KIND/NAME"]);
    node.run(&["registry", "update", "model/none", "a=1"]).expect(6, &["there is no model/none"]);
    node.run(&["registry", "link", "model/x", "USES", "model/y"]).expect(2, &["relation"]);
    assert_eq!(node.json(&["log", "heads"])[0]["seq"], 1);
    assert_eq!(node.json(&["log", "append", ""])["seq"], 2);
    // Durable here, and nobody else there.
    let run = node.run(&["log", "append", "two", "--replicas", "2", "--output", "json"]);
    run.expect(8, &["only 0 of 2 other nodes"]);
    assert_eq!((run.json()["durable"].clone(), run.json()["seq"].clone()), (json!(true), json!(3)));
}

/// The same over HTTP, as programs misuse it: each with its status and code, and nothing is changed.
#[test]
fn bad_requests_change_nothing() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    wait_for("an entry", SOON, || node.try_json(&["log", "append", "one"]));
    node.json(&["registry", "put", "model/a", "x=1"]);
    let (api, own) = (node.client(), node.peer_id().to_owned());
    let before = api.summary().unwrap();
    let stranger = Identity::from_seed(&[9; 32]).id().to_string();
    let deep = format!("{}1{}", "[".repeat(9), "]".repeat(9));
    let long = "x".repeat(65_536);
    let fields = |fields: &str| format!("{{\"fields\": {fields}}}");
    let many: String = (0..65).map(|number| format!("\"f{number}\": 1,")).collect();
    let many = fields(&format!("{{{}}}", many.trim_end_matches(',')));
    let link = |from: &str, relation: &str, to: &str| {
        format!("{{\"from\": \"{from}\", \"relation\": \"{relation}\", \"to\": \"{to}\"}}")
    };
    let cases: Vec<(&str, String, String, u16, &str)> = vec![
        ("POST", "log/entries".into(), format!("{{\"data\": \"{long}\"}}"), 413, "too_large"),
        ("POST", "log/entries".into(), "{\"dato\": \"x\"}".into(), 400, "invalid_json"),
        (
            "POST",
            "log/entries".into(),
            "{\"data\": \"x\", \"data_base64\": \"eA==\"}".into(),
            400,
            "invalid_json",
        ),
        ("POST", "log/entries".into(), "{\"data_base64\": \"!\"}".into(), 400, "invalid_json"),
        ("POST", "log/entries".into(), "{\"data\": \"x\", \"replicas\": -1}".into(), 400, "invalid_json"),
        ("GET", format!("log/entries?author={stranger}"), String::new(), 404, "not_found"),
        ("GET", "log/entries?author=me".into(), String::new(), 400, "bad_request"),
        ("GET", format!("log/entries?author={own}&from=9"), String::new(), 404, "not_found"),
        ("GET", format!("log/entries?author={own}&from=0"), String::new(), 400, "bad_request"),
        (
            "GET",
            format!("log/entries?author={own}&from=18446744073709551615"),
            String::new(),
            404,
            "not_found",
        ),
        ("GET", "log/entries?from=-1".into(), String::new(), 400, "bad_request"),
        ("GET", "log/entries?limit=0".into(), String::new(), 400, "bad_request"),
        ("PUT", "registry/Model/x".into(), fields("{}"), 400, "bad_request"),
        ("PUT", format!("registry/model/{}", "n".repeat(129)), fields("{}"), 400, "bad_request"),
        ("PUT", "registry/model/a".into(), fields(&format!("{{\"deep\": {deep}}}")), 400, "bad_request"),
        ("PUT", "registry/model/a".into(), fields("{\"n\": 18446744073709551615}"), 400, "bad_request"),
        ("PUT", "registry/model/a".into(), fields("{\"\": 1}"), 400, "bad_request"),
        ("PUT", "registry/model/a".into(), fields("{\"x\": null}"), 400, "bad_request"),
        ("PUT", "registry/model/a".into(), many, 422, "refused"),
        ("PUT", "registry/model/a".into(), "{\"field\": {}}".into(), 400, "invalid_json"),
        ("PATCH", "registry/model/none".into(), fields("{\"x\": 1}"), 404, "not_found"),
        ("DELETE", "registry/model/none".into(), String::new(), 404, "not_found"),
        ("POST", "registry/links".into(), link("model/a", "Uses", "model/a"), 400, "bad_request"),
        ("POST", "registry/links".into(), link("model", "uses", "model/a"), 400, "bad_request"),
        ("GET", "registry/model/a/walk?direction=up".into(), String::new(), 400, "bad_request"),
        ("GET", "registry?where=".into(), String::new(), 400, "bad_request"),
        ("GET", "registry/search?q=%21".into(), String::new(), 400, "bad_request"),
    ];
    let mut wrong: Vec<String> = Vec::new();
    for (method, path, body, status, code) in cases {
        let mut request = Request::new(method, &format!("/api/v1/{path}"), &body);
        if !body.is_empty() {
            request = request.header("Content-Type", "application/json");
        }
        let answer = api.send(request).unwrap();
        let what = format!("{method} {path} {body:.80}: {} {}", answer.status, answer.body);
        let error: Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {what}"));
        let has_message = error["error"]["message"].as_str().is_some_and(|message| !message.is_empty());
        if answer.status != status || error["error"]["code"] != code || !has_message {
            wrong.push(format!("not {status} {code}: {what}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(api.summary().unwrap(), before, "nothing is changed");
}

#[test]
fn the_log_is_followed_as_it_grows() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    append_lines(&nodes[0], 3, "before");
    wait_equal(&nodes[0], &nodes[1]);
    let dir = nodes[1].data_dir();
    let follow = |more: &[&str]| {
        let arguments =
            ["log", "read", "--follow", "--output", "ndjson", "--data-dir", dir.to_str().unwrap()];
        lab.start(&[&arguments[..], more].concat())
    };
    let author = nodes[0].peer_id();
    let mut all = follow(&["--limit", "205"]);
    let mut late = follow(&["--author", author, "--from", "4", "--limit", "200"]);
    wait_for("what is there", SOON, || check(all.stdout().lines().count() == 3, || all.stdout()));
    // Faster than a reader of single entries would be.
    append_lines(&nodes[0], 200, "meanwhile");
    append_lines(&nodes[1], 2, "of the node itself");
    for (process, from, count) in [(&mut all, 1, 203), (&mut late, 4, 200)] {
        assert_eq!(process.wait(SOON), Some(0), "{}", process.stderr());
        let lines: Vec<Value> =
            process.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seqs: Vec<u64> = lines
            .iter()
            .filter(|entry| entry["author"] == author)
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs, (from..from + count).collect::<Vec<u64>>(), "each once and in order");
    }
    nodes[1].run(&["log", "read", "--follow", "--timeout", "1"]).expect(7, &["in time"]);
}

#[test]
fn the_registry_is_one_on_all_nodes() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    let fields = ["size=7", "ratio=0.5", "name=llama", "tags=[\"a\",\"b\"]"];
    let put =
        nodes[0].json(&[&["registry", "put", "model/llama"], &fields[..], &["--replicas", "1"]].concat());
    assert_eq!((&put["durable"], &put["replicas"]), (&json!(true), &json!(1)));
    let got = wait_for("the entry on the other node", SOON, || {
        nodes[1].try_json(&["registry", "get", "model/llama"])
    });
    let expected = json!({"size": 7, "ratio": 0.5, "name": "llama", "tags": ["a", "b"]});
    assert_eq!((&got["entry"]["fields"], &got["entry"]["key"]), (&expected, &json!("model/llama")));
    assert!(
        got["as_of"]["step"].is_u64() && got["as_of"]["heads"].is_string() && got["as_of"]["authors"] == 1
    );
    nodes[1].json(&["registry", "update", "model/llama", "size=8", "name=null"]);
    nodes[1].json(&["registry", "put", "agent/scout one", "role=scout", "--ttl", "100000"]);
    nodes[1].json(&["registry", "put", "infrastructure/rack", "--replicas", "1"]);
    nodes[1].json(&["registry", "link", "agent/scout one", "uses", "model/llama"]);
    nodes[1].json(&[
        "registry",
        "link",
        "model/llama",
        "deployed_on",
        "infrastructure/rack",
        "--replicas",
        "1",
    ]);
    wait_equal(&nodes[0], &nodes[1]);
    let walk = wait_for("the links on the other node", SOON, || {
        let walk = nodes[0].try_json(&["registry", "walk", "agent/scout one"])?;
        check(walk["reached"].as_array().map(Vec::len) == Some(2), || walk.to_string()).map(|()| walk)
    });
    assert_eq!(
        (&walk["reached"][1]["entry"]["key"], &walk["reached"][1]["depth"]),
        (&json!("infrastructure/rack"), &json!(2))
    );
    assert_eq!(walk["reached"][0]["entry"]["fields"], json!({"size": 8, "ratio": 0.5, "tags": ["a", "b"]}));
    let near = nodes[0].json(&["registry", "walk", "model/llama", "--relation", "uses", "--direction", "in"]);
    assert_eq!(near["reached"][0]["entry"]["key"], "agent/scout one");
    let list =
        |arguments: &[&str]| nodes[0].json(&[&["registry", "list"], arguments].concat())["entries"].clone();
    assert_eq!(list(&["--where", "size=8"])[0]["key"], "model/llama");
    assert_eq!(list(&["--where", "size=7"]), json!([]));
    assert_eq!(list(&["--kind", "agent", "--prefix", "sc", "--where", "role"]).as_array().unwrap().len(), 1);
    assert_eq!(list(&["--limit", "2"]).as_array().unwrap().len(), 2);
    let found = nodes[0].json(&["registry", "search", "LLAMA", "8"]);
    assert_eq!((&found["hits"][0]["entry"]["key"], &found["matches"]), (&json!("model/llama"), &json!(1)));
    assert_eq!(nodes[0].json(&["registry", "search", "scout", "--kind", "model"])["hits"], json!([]));
    nodes[0].run(&["registry", "search", "..."]).expect(2, &["no word"]);
    nodes[0].json(&["registry", "unlink", "model/llama", "deployed_on", "infrastructure/rack"]);
    assert_eq!(nodes[0].json(&["registry", "links", "model/llama"])["links"], json!([]));
    nodes[0].json(&["registry", "delete", "model/llama", "--replicas", "1"]);
    wait_for("it to be gone on the other node", SOON, || {
        let run = nodes[1].run(&["registry", "get", "model/llama"]);
        check(run.code == 6 && run.stderr.contains("there is no model/llama as of step"), || {
            format!("{run:?}")
        })
    });
    wait_equal(&nodes[0], &nodes[1]);
    assert_eq!(
        nodes[0].json(&["registry", "list"])["entries"],
        nodes[1].json(&["registry", "list"])["entries"]
    );
}

fn signed(author: &Identity, seq: u64, data: &str) -> Record {
    let mesh = Mesh::open("evidence").unwrap();
    let mut patterns =
        PatternGenerator::new(mesh.secret().clone(), 100.try_into().unwrap(), 4.try_into().unwrap());
    let header = Header {
        mesh: mesh.id(),
        author: NodeId::from_bytes([0; 32]),
        seq: Seq(seq),
        step: Step(7),
        kind: Kind::Durable,
        channel: Channel::new("log").unwrap(),
        prev: None,
        timestamp_us: None,
    };
    let payloads = std::iter::once(data.to_owned().into()).collect();
    Record::new(Envelope::seal(author, patterns.at(Step(7)), header, payloads).unwrap()).unwrap()
}

#[test]
fn evidence_is_verified_without_a_node() {
    let lab = lab!();
    let author = Identity::from_seed(&[5; 32]);
    let proof = Proof::new(&signed(&author, 1, "yes"), &signed(&author, 1, "no")).unwrap();
    let bytes = proof.encode();
    let file = lab.dir().join("proof");
    fs::write(&file, &bytes).unwrap();
    let verify = |file: &Path| lab.run(&["evidence", "verify", file.to_str().unwrap(), "--output", "json"]);
    let found = verify(&file);
    found.expect(0, &[]);
    let found = found.json();
    assert_eq!(
        (&found["verified"], &found["author"], &found["fork"]),
        (&json!(true), &json!(author.id()), &json!(1))
    );
    assert_eq!(found["records"].as_array().unwrap().len(), 2);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(verify(&lab.file("hex", &hex)).json(), found);
    // What was signed, a signature, the form: one flipped bit, and it proves nothing.
    let said = bytes.windows(3).position(|window| window == b"yes").unwrap();
    for place in [0, said, bytes.len() - 1] {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 1;
        fs::write(&file, flipped).unwrap();
        verify(&file).expect(1, &["proves nothing"]);
    }
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    verify(&file).expect(1, &["proves nothing"]);
    verify(&lab.file("text", "no proof")).expect(1, &["proves nothing"]);
    verify(&lab.dir().join("none")).expect(6, &["cannot read"]);
}

#[test]
fn a_log_is_backed_up_while_the_node_runs_and_restored_elsewhere() {
    let lab = lab!();
    let mut node = lab.node("a").open("x").start();
    node.wait_ready();
    wait_for("an entry", SOON, || node.try_json(&["log", "append", "first"]));
    append_lines(&node, 100, "more");
    node.json(&["registry", "put", "model/llama", "size=7"]);
    let heads = node.json(&["log", "heads"]);
    let backup = lab.dir().join("backup.redb");
    let path = backup.to_str().unwrap();
    assert_eq!(node.json(&["backup", path])["bytes"], fs::metadata(&backup).unwrap().len());
    node.run(&["backup", path]).expect(9, &["is there already"]);
    append_lines(&node, 1, "after the backup");
    node.run(&["restore", path]).expect(1, &["a node runs", "stop it first"]);
    node.kill();
    node.run(&["restore", path]).expect(9, &["has a log already"]);
    // Damaged anywhere, of no use, or not there: the directory stays as it was.
    let spec = lab.node("b").open("x");
    let dir = spec.data_dir();
    let restore = |file: &Path| {
        lab.run(&["restore", file.to_str().unwrap(), "--data-dir", dir.to_str().unwrap(), "--output", "json"])
    };
    let whole = fs::read(&backup).unwrap();
    let record = whole.windows(7).position(|bytes| bytes == b"more 50").unwrap();
    let mut flipped = whole.clone();
    flipped[record] ^= 1;
    for (name, bytes) in [("flipped", &flipped[..]), ("cut", &whole[..whole.len() / 2]), ("text", b"no log")]
    {
        let file = lab.dir().join(name);
        fs::write(&file, bytes).unwrap();
        let run = restore(&file);
        assert!(run.code == 1 && run.stderr.contains("nothing was changed"), "{name}: {run:?}");
        assert!(!run.stderr.contains("put aside"), "{name}: {run:?}");
        assert!(!dir.join("log.redb").exists() && !dir.join("restore.tmp").exists(), "{name}");
    }
    restore(&lab.dir().join("none")).expect(6, &["there is no file"]);
    let restored = restore(&backup);
    restored.expect(0, &[]);
    assert_eq!(
        (restored.json()["entries"].clone(), restored.json()["authors"].clone()),
        (json!(102), json!(1))
    );
    let mut other = spec.start();
    other.wait_ready();
    assert_eq!(other.json(&["log", "heads"]), heads);
    assert_eq!(other.json(&["registry", "get", "model/llama"])["entry"]["fields"], json!({"size": 7}));
}
