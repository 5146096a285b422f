//! `job`, `workers` and `why job` against an API that says what each test wants it to say.

use std::fs;

use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::{Hash, Identity};
use serde_json::{Value, json};

use crate::client::{error, events, json as answer, node};
use crate::common::{run, run_with_input};

const ID: &str = "abababababababababababababababababababababababababababababababab";

const JOB: &str = r#"
name = "two"
[inputs.text]
file = "data/a.txt"
[task.part]
operation = "hash"
for_each = { chunk_of = "text", bytes = 4 }
"#;

fn summary(state: &str, succeeded: u64) -> Value {
    let peer = Identity::from_seed(&[1; 32]).id();
    json!({
        "id": ID, "name": "two", "state": state, "round": 0, "submitter": peer, "driver": peer, "driven_here": true,
        "tasks": 3, "progress": succeeded as f64 / 3.0, "submitted_step": 1, "submitted_ms": 1000, "elapsed_ms": 1500,
        "counts": {"pending": 0, "ready": 3 - succeeded, "running": 0, "succeeded": succeeded, "failed": 0,
                   "skipped": 0, "cancelled": 0},
        "held": null, "later": true,
    })
}

fn detail(state: &str, done: u32) -> Value {
    let mut detail = summary(state, u64::from(done));
    let more = json!({
        "deadline_s": 60, "spot_check": 0.0, "lease_until_step": 9,
        "inputs": [{"name": "text", "hash": Hash::of(b"a"), "size": 10}],
        "families": [{
            "name": "part", "operation": "hash", "tasks": 3, "counts": detail["counts"], "after": [],
            "fan_out": "text, 4 B at a time",
            "limits": {"cpu_ms": 1, "memory_bytes": 1, "output_bytes": 1, "wall_ms": 1},
            "redundancy": 3, "retries": 3, "on_failure": "fail", "needs": null,
            "times": {"done": done, "p50_ms": 10, "p95_ms": 20, "max_ms": 30, "work_ms": 60, "cpu_ms": 50},
            "on_critical_path": true,
        }],
        "outputs": [{"name": "words", "task": "part", "chunks": 3, "done": done, "size": 30, "blobs": []}],
        "workers": [{"peer_id": Identity::from_seed(&[2; 32]).id(), "tasks": 3, "share": 1.0, "work_ms": 60,
                     "cpu_ms": 50, "running": 0}],
        "dissenters": [], "cancelled": null, "held_task": null, "attempts": 0, "cpu_ms": 50, "work_ms": 60,
        "critical_path_ms": 30,
        "failures": [{"task": "part", "chunk": 1, "reason": "program", "detail": "no \u{1b}[2Jword", "workers": []}],
    });
    let fields = detail.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    detail
}

/// A home with a job file, and the file that it names.
fn with_files(home: &std::path::Path, job: &str) -> String {
    fs::create_dir_all(home.join("data")).unwrap();
    fs::write(home.join("data/a.txt"), "0123456789").unwrap();
    let file = home.join("job.toml");
    fs::write(&file, job).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn submit_uploads_what_is_missing_and_waits() {
    let accepted = |id: Value, missing: Value| {
        answer("200 OK", &json!({"id": id, "name": "two", "tasks": 3, "missing": missing}))
    };
    let blob = BlobRef::of(b"0123456789");
    let (home, api) = node(vec![
        accepted(Value::Null, json!([blob.hash])),
        answer("200 OK", &json!(blob)),
        accepted(json!(ID), json!([])),
        answer("200 OK", &json!([summary("RUNNING", 1)])),
        answer("200 OK", &json!([summary("SUCCEEDED", 3)])),
    ]);
    let file = with_files(home.path(), JOB);
    let run = run(home.path(), &["job", "submit", &file, "--nonce", "7", "--wait", "--output", "json"]);
    assert_eq!((run.code, run.json()), (0, summary("SUCCEEDED", 3)), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("submitted {ID} (3 tasks)")), "{}", run.stderr);
    assert!(run.stderr.contains("RUNNING  1/3 33 %"), "{}", run.stderr);
    let requests = api.join().unwrap();
    let lines: Vec<_> = requests.iter().map(|request| request.line.as_str()).collect();
    let found = format!("GET /api/v1/jobs?prefix={ID}&limit=1 HTTP/1.1");
    assert_eq!(
        lines,
        [
            "POST /api/v1/jobs?check=true HTTP/1.1",
            "POST /api/v1/blobs?pin=true HTTP/1.1",
            "POST /api/v1/jobs HTTP/1.1",
            &found,
            &found
        ]
    );
    let sent: Value = serde_json::from_str(&requests[2].body).unwrap();
    assert_eq!((sent["files"]["data/a.txt"].clone(), sent["nonce"].clone()), (json!(blob), json!(7)));
    assert_eq!(sent["text"], JOB);
}

#[test]
fn what_is_held_is_only_pinned() {
    let accepted = |id: Value| answer("200 OK", &json!({"id": id, "name": "two", "tasks": 3, "missing": []}));
    let (home, api) = node(vec![accepted(Value::Null), answer("200 OK", &json!({})), accepted(json!(ID))]);
    let file = with_files(home.path(), JOB);
    let run = run(home.path(), &["job", "submit", &file]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains(ID), "{}", run.stdout);
    let pin = format!("PUT /api/v1/blobs/{}/pin HTTP/1.1", BlobRef::of(b"0123456789").hash);
    assert_eq!(api.join().unwrap()[1].line, pin);
}

#[test]
fn a_job_that_is_wrong_goes_nowhere() {
    // No node is asked: there is none.
    let home = tempfile::tempdir().unwrap();
    let wrong =
        JOB.replace("chunk_of = \"text\"", "chunk_of = \"txt\"").replace("name = \"two\"", "nam = \"two\"");
    let file = with_files(home.path(), &wrong);
    let bad = run(home.path(), &["job", "submit", &file]);
    assert_eq!(bad.code, 3, "{}", bad.stderr);
    for expected in [
        "job.toml:2: nam: `nam` means nothing",
        "name: is missing; add name",
        "job.toml:7: task.part.for_each.chunk_of: there is no input `txt`; name one of: text",
        "nothing was uploaded",
    ] {
        assert!(bad.stderr.contains(expected), "{expected} in {}", bad.stderr);
    }
    let file = with_files(home.path(), &JOB.replace("a.txt", "b.txt"));
    let missing = run(home.path(), &["job", "submit", &file, "--output", "json"]);
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.contains("job.toml:4: inputs.text.file: cannot read"), "{}", missing.stderr);
    assert!(missing.stderr.contains("\"code\":\"config_invalid\""), "{}", missing.stderr);
    assert_eq!(run(home.path(), &["job", "submit", "/nowhere/job.toml"]).code, 6);
    let quota = "name = \"q\"\n[task.a]\noperation = \"concat\"\nlimits = { cpu = \"99d\" }\n[task.b]\noperation=\"hash\"\nfor_each={ chunk_of=\"i\", bytes = 1 }\n[inputs.i]\nblob = \"".to_owned()
        + &Hash::of(b"x").to_string() + "\"\nsize = 99999999\n";
    let refused = run_with_input(home.path(), &["job", "submit", "-"], quota.as_bytes());
    assert_eq!(refused.code, 9, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("standard input:7: task.b.for_each: the job would have"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_the_node_finds_wrong_has_its_exit_code() {
    let (home, _api) = node(vec![error("400 Bad Request", "invalid_job", "job.toml:3: task: no")]);
    let file = with_files(home.path(), JOB);
    let run = run(home.path(), &["job", "submit", &file, "--check"]);
    assert_eq!(run.code, 3);
    assert!(run.stderr.contains("job.toml:3: task: no"), "{}", run.stderr);
}

#[test]
fn a_graph_is_svg_or_a_document_with_it() {
    let svg = "<svg>\n</svg>";
    let page = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{svg}", svg.len());
    let (home, _api) = node(vec![page.clone(), page]);
    assert_eq!(run(home.path(), &["job", "graph", "abab"]).stdout, format!("{svg}\n"));
    let graph = run(home.path(), &["job", "graph", "abab", "-o", "json"]);
    assert_eq!((graph.code, graph.json()), (0, json!({ "svg": svg })));
}

#[test]
fn a_job_that_fails_fails_its_wait() {
    let (home, _api) = node(vec![
        answer("200 OK", &summary("RUNNING", 0)),
        answer("200 OK", &json!([summary("FAILED", 1)])),
        answer("200 OK", &detail("FAILED", 1)),
    ]);
    let run = run(home.path(), &["job", "retry", "abab", "--wait"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("the job is FAILED"), "{}", run.stderr);
    assert!(run.stderr.contains("part/1: program: no \\u{1b}[2Jword"), "{}", run.stderr);
}

#[test]
fn show_is_for_people_and_json_is_what_the_node_sent() {
    let sent = detail("RUNNING", 2);
    let (home, api) = node(vec![answer("200 OK", &sent), answer("200 OK", &sent)]);
    let shown = run(home.path(), &["job", "show", "ABAB"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    for expected in [
        "two  RUNNING  █████████████·······",
        "part *",
        "hash x3",
        "2/3",
        "30 ms",
        "text, 4 B at a time",
        "100 %",
    ] {
        assert!(shown.stdout.contains(expected), "{expected} in\n{}", shown.stdout);
    }
    assert!(!shown.stdout.contains('\u{1b}'));
    assert_eq!(run(home.path(), &["job", "show", "abab", "--output", "json"]).json(), sent);
    assert_eq!(api.join().unwrap()[0].line, "GET /api/v1/jobs/abab HTTP/1.1");
}

fn task(chunk: u32, content: &[u8]) -> Value {
    json!({
        "task": "part", "chunk": chunk, "state": "SUCCEEDED", "workers": [], "output": BlobRef::of(content), "cpu_ms": 1,
        "wall_ms": 2, "fallback": false, "reason": null, "detail": null, "dissenters": [], "attempts": 1,
        "started_ms": null, "ended_ms": null,
    })
}

fn content(bytes: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{bytes}", bytes.len())
}

#[test]
fn a_result_is_its_chunks_in_order() {
    let page = |tasks: Value, next: Value| answer("200 OK", &json!({"tasks": tasks, "next": next}));
    let answers = || {
        vec![
            answer("200 OK", &detail("SUCCEEDED", 3)),
            page(json!([task(0, b"one\n"), task(1, b"two\n")]), json!(2)),
            page(json!([task(2, b"three")]), Value::Null),
            content("one\n"),
            content("two\n"),
            content("three"),
        ]
    };
    let (home, api) = node(answers());
    let shown = run(home.path(), &["job", "result", "abab"]);
    assert_eq!((shown.code, shown.stdout.as_str()), (0, "one\ntwo\nthree"), "{}", shown.stderr);
    let lines: Vec<_> = api.join().unwrap().into_iter().map(|request| request.line).collect();
    assert_eq!(
        lines[1],
        format!("GET /api/v1/jobs/{ID}/tasks?from=0&limit=1000&name=part&state=SUCCEEDED HTTP/1.1")
    );
    assert!(lines[2].contains("from=2&"), "{}", lines[2]);
    assert_eq!(lines[4], format!("GET /api/v1/blobs/{} HTTP/1.1", Hash::of(b"two\n")));
    let (home, _api) = node(answers());
    let to = home.path().join("out");
    let written = run(
        home.path(),
        &["job", "result", "abab", "--name", "words", "--out", to.to_str().unwrap(), "--output", "json"],
    );
    assert_eq!((written.code, written.json()["size"].clone()), (0, json!(13)), "{}", written.stderr);
    assert_eq!(fs::read_to_string(&to).unwrap(), "one\ntwo\nthree");
}

#[test]
fn half_a_result_is_none() {
    let (home, _api) =
        node(vec![answer("200 OK", &detail("RUNNING", 2)), answer("200 OK", &detail("SUCCEEDED", 3))]);
    let early = run(home.path(), &["job", "result", "abab"]);
    assert_eq!((early.code, early.stdout.as_str()), (9, ""));
    assert!(early.stderr.contains("2 of 3 chunks"), "{}", early.stderr);
    let other = run(home.path(), &["job", "result", "abab", "--name", "sentences"]);
    assert_eq!(other.code, 6);
    assert!(other.stderr.contains("its outputs are words"), "{}", other.stderr);
}

fn event(number: u64, kind: &str, state: &str) -> Value {
    json!({
        "job": ID, "number": number, "kind": kind, "at_ms": 1000, "step": 1, "task": null, "chunk": null, "from": "RUNNING",
        "state": state, "worker": null, "reason": null, "detail": null,
    })
}

#[test]
fn logs_follow_until_the_end_and_tell_nothing_twice() {
    let log = json!({
        "job": summary("RUNNING", 1),
        "times": {"submitted_ms": 0, "started_ms": null, "ended_ms": null, "elapsed_ms": 0, "work_ms": 0, "cpu_ms": 0,
                  "critical_path_ms": 0, "parallelism": 0.0},
        "families": [], "workers": [], "critical_path": [], "bottleneck": "", "suggestions": [],
        "troubles": {"attempts": 0, "failures": 0, "losses": 0, "stragglers": 0, "ties": 0, "restored": 0,
                     "drivers": 0, "held": 0, "reasons": {}},
        "events": [event(3, "driver", "RUNNING"), event(4, "held", "RUNNING")], "events_forgotten": 2,
    });
    let sse = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["kind"].as_str().unwrap());
    let stream =
        [event(4, "held", "RUNNING"), event(5, "job_state", "SUCCEEDED"), event(6, "finished", "SUCCEEDED")];
    let stream: String = stream.iter().map(sse).collect();
    let (home, _api) = node(vec![events(&stream), answer("200 OK", &log)]);
    let followed = run(home.path(), &["job", "logs", "abab", "--follow", "--output", "ndjson"]);
    assert_eq!(followed.code, 0, "{}", followed.stderr);
    let numbers: Vec<u64> = followed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [3, 4, 5]);
    assert!(followed.stderr.contains("2 earlier events are forgotten"), "{}", followed.stderr);
}

#[test]
fn why_says_what_to_do() {
    let why = json!({
        "job": ID, "name": "two", "task": "part/1", "state": "READY",
        "reasons": [{"because": "no worker is known", "remedy": "start one"}],
    });
    let (home, api) = node(vec![answer("200 OK", &why)]);
    let said = run(home.path(), &["why", "job", "ABAB", "part/1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("because  no worker is known\nremedy   start one"), "{}", said.stdout);
    assert_eq!(api.join().unwrap()[0].line, "GET /api/v1/why/jobs/abab?task=part%2F1 HTTP/1.1");
    let (home, _api) = node(vec![error("404 Not Found", "not_found", "this node knows no job cd")]);
    assert_eq!(run(home.path(), &["job", "show", "cd"]).code, 6);
}
