//! `log` and `registry` against an API that says what each test wants it to say.

use omnimesh_protocol::{Hash, Identity};
use serde_json::{Value, json};

use crate::client::{error, events, json, node};
use crate::common::{run, run_with_input};

fn appended(seq: u64, replicas: usize) -> Value {
    json!({
        "author": Identity::from_seed(&[1; 32]).id(), "seq": seq, "hash": Hash::of(b"x"), "step": 7, "durable": true,
        "replicas": replicas, "later": true,
    })
}

fn as_of() -> Value {
    json!({"step": 9, "authors": 1, "heads": Hash::of(b"heads")})
}

fn write(seq: u64) -> Value {
    json!({"step": 7, "author": Identity::from_seed(&[1; 32]).id(), "seq": seq})
}

fn entry(key: &str) -> Value {
    let (kind, name) = key.split_once('/').unwrap();
    json!({
        "key": key, "kind": kind, "name": name, "fields": {"size": 7}, "created": write(1), "updated": write(2),
        "expires_step": null, "versions": [], "versions_complete": true,
    })
}

#[test]
fn append_sends_the_entry_and_passes_on_the_answer() {
    let (home, api) = node(vec![json("200 OK", &appended(3, 2))]);
    let run = run(home.path(), &["log", "append", "hello", "--replicas", "2", "--output", "json"]);
    assert_eq!((run.code, run.json()), (0, appended(3, 2)), "{}", run.stderr);
    let request = api.join().unwrap().remove(0);
    assert_eq!(request.line, "POST /api/v1/log/entries HTTP/1.1");
    assert_eq!(request.body, r#"{"data":"hello","replicas":2}"#);
}

#[test]
fn too_few_replicas_are_said() {
    let (home, _api) = node(vec![json("200 OK", &appended(3, 1))]);
    let run = run(home.path(), &["log", "append", "hello", "--replicas", "2", "--output", "json"]);
    assert_eq!((run.code, run.json()["durable"].clone()), (8, json!(true)));
    assert!(run.stderr.contains("only 1 of 2 other nodes"), "{}", run.stderr);
}

#[test]
fn lines_are_acknowledged_one_by_one_until_one_fails() {
    let full = json!({"error": {"code": "storage_full", "message": "the disk is full", "hint": "make room"}});
    let (home, api) = node(vec![json("200 OK", &json!([appended(1, 0), full, appended(2, 0)]))]);
    let arguments = ["log", "append", "-", "--lines", "--output", "ndjson"];
    let run = run_with_input(home.path(), &arguments, b"a\n\nc\n");
    assert_eq!((run.code, run.stdout.lines().count()), (8, 1), "{}", run.stderr);
    assert!(run.stderr.contains("1 entries were appended, and then: the disk is full"), "{}", run.stderr);
    let request = api.join().unwrap().remove(0);
    assert_eq!(request.line, "POST /api/v1/log/batches HTTP/1.1");
    // What had been read when the first request went is a matter of time.
    assert!(request.body.starts_with(r#"{"entries":[{"data":"a"}"#), "{}", request.body);
}

#[test]
fn a_full_disk_is_a_failure() {
    let (home, _api) = node(vec![error("507 Insufficient Storage", "storage_full", "the disk is full")]);
    let run = run(home.path(), &["log", "append", "x"]);
    assert_eq!((run.code, run.stderr.contains("the disk is full")), (1, true), "{}", run.stderr);
}

#[test]
fn entries_of_all_authors_come_in_the_order_of_steps() {
    let author = |seed: u8| Identity::from_seed(&[seed; 32]).id();
    let log_entry = |seed, seq: u64, step: u64| {
        json!({
            "author": author(seed), "seq": seq, "prev": null, "hash": Hash::of(b"x"), "step": step,
            "category": if step == 5 { "registry" } else { "log" }, "timestamp_us": null, "data": format!("{step}"),
        })
    };
    let head = |seed, seq: u64| json!({"author": author(seed), "seq": seq, "hash": Hash::of(b"x"), "base": 1, "frozen": false});
    let page = |entries: &[Value], next: Value| json("200 OK", &json!({"entries": entries, "next": next}));
    let answers = || {
        vec![
            json("200 OK", &json!([head(1, 3), head(2, 2)])),
            page(&[log_entry(1, 1, 1), log_entry(1, 2, 4)], json!(3)),
            page(&[log_entry(2, 1, 2), log_entry(2, 2, 6)], json!(null)),
            page(&[log_entry(1, 3, 5)], json!(null)),
        ]
    };
    let steps = |arguments: &[&str]| {
        let (home, _api) = node(answers());
        let run = run(home.path(), &[&["log", "read", "--output", "json"], arguments].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let entries = run.json();
        entries.as_array().unwrap().iter().map(|entry| entry["step"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(steps(&[]), [1, 2, 4, 5, 6]);
    assert_eq!(steps(&["--category", "log"]), [1, 2, 4, 6]);
    assert_eq!(steps(&["--limit", "2"]), [1, 2]);
    let (home, _api) = node(answers());
    let none = run(home.path(), &["log", "read", "--category", "regisrty"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    let says = "no entry is of category \"regisrty\"; those that were read are of log, registry";
    assert!(none.stderr.contains(says), "{}", none.stderr);
}

#[test]
fn a_walk_says_of_when_it_is_and_needs_a_place_to_begin() {
    let nothing = json!({"as_of": as_of(), "reached": [], "cut_short": false});
    let alone = json!({"as_of": as_of(), "entry": entry("a/x")});
    let missing = error("404 Not Found", "not_found", "there is no a/y");
    let links = json!({"as_of": as_of(), "links": []});
    let answers = vec![
        json("200 OK", &nothing),
        json("200 OK", &alone),
        json("200 OK", &nothing),
        missing,
        json("200 OK", &links),
    ];
    let (home, _api) = node(answers);
    for (arguments, code) in [
        (["registry", "walk", "a/x"], 0),
        (["registry", "walk", "a/y"], 6),
        (["registry", "links", "a/x"], 0),
    ] {
        let run = run(home.path(), &arguments);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert_eq!(run.stderr.contains("as of step 9, 1 authors"), code == 0, "{}", run.stderr);
    }
}

#[test]
fn fields_are_json_or_text() {
    let mut written = appended(1, 0);
    written["as_of"] = as_of();
    let (home, api) = node(vec![json("200 OK", &written), json("200 OK", &written)]);
    let fields = ["size=7", "ratio=7.0", "name=a=b", "tags=[1,\"x\"]", "version=\"1.0\"", "empty="];
    let put = run(home.path(), &[&["registry", "put", "model/a b/c", "--ttl", "9"], &fields[..]].concat());
    assert_eq!(put.code, 0, "{}", put.stderr);
    assert_eq!(run(home.path(), &["registry", "unlink", "a/x", "uses", "b/y z"]).code, 0);
    let requests = api.join().unwrap();
    assert_eq!(requests[0].line, "PUT /api/v1/registry/model/a%20b%2Fc HTTP/1.1");
    let expected = json!({
        "fields": {"size": 7, "ratio": 7.0, "name": "a=b", "tags": [1, "x"], "version": "1.0", "empty": ""},
        "ttl": 9, "replicas": 0,
    });
    assert_eq!(serde_json::from_str::<Value>(&requests[0].body).unwrap(), expected);
    let line = "DELETE /api/v1/registry/links?from=a%2Fx&relation=uses&to=b%2Fy%20z&replicas=0 HTTP/1.1";
    assert_eq!(requests[1].line, line);
    for arguments in
        [&["model"][..], &["/x"], &["model/"], &["model/x", "novalue"], &["model/x", "a=1", "a=2"]]
    {
        let run = run(home.path(), &[&["registry", "put"], arguments].concat());
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn pages_of_entries_are_joined() {
    let page = |key: &str, next: Value| {
        json("200 OK", &json!({"as_of": as_of(), "entries": [entry(key)], "next": next}))
    };
    let answers = || vec![page("model/a", json!("model/a")), page("model/b", json!(null))];
    let (home, api) = node(answers());
    let run_json = run(home.path(), &["registry", "list", "--where", "size=7", "--output", "json"]);
    assert_eq!(run_json.code, 0, "{}", run_json.stderr);
    assert_eq!(
        (run_json.json()["entries"][1]["key"].clone(), run_json.json()["as_of"].clone()),
        (json!("model/b"), as_of())
    );
    let line = "GET /api/v1/registry?limit=1000&where=size%3D7&after=model%2Fa HTTP/1.1";
    assert_eq!(api.join().unwrap()[1].line, line);
    let (home, _api) = node(answers());
    let table = run(home.path(), &["registry", "list"]);
    assert!(table.stdout.starts_with("KEY") && table.stdout.contains("size=7"), "{}", table.stdout);
    assert!(table.stderr.starts_with("as of step 9, 1 authors"), "{}", table.stderr);
}

#[test]
fn changes_are_printed_as_they_come() {
    let change = json!({"change": "created", "key": "model/a", "entry": entry("model/a")});
    let link = json!({"change": "linked", "link": {"from": "a/x", "relation": "uses", "to": "b/y\u{1b}"}});
    let body = format!(
        "event: created\ndata: {change}\n\nevent: lagged\ndata: {{\"lost\":2}}\n\nevent: linked\ndata: {link}\n\n"
    );
    let (home, _api) = node(vec![events(&body), events(&body)]);
    let table = run(home.path(), &["registry", "watch"]);
    assert_eq!(
        (table.code, table.stdout.as_str()),
        (4, "created   model/a  size=7\nlinked    a/x uses b/y\\u{1b}\n")
    );
    assert!(table.stderr.contains("2 changes were lost"), "{}", table.stderr);
    let lines = run(home.path(), &["registry", "watch", "--output", "ndjson"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(lines.lines().next().unwrap()).unwrap(), change);
}

#[test]
fn a_restore_needs_a_file_and_an_empty_place() {
    let home = tempfile::tempdir().unwrap();
    let run = run(home.path(), &["restore", "/nowhere/backup"]);
    assert_eq!(
        (run.code, run.stderr.contains("there is no file /nowhere/backup")),
        (6, true),
        "{}",
        run.stderr
    );
    assert!(!home.path().join(".local").exists());
}
