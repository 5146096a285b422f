//! Jobs as an operator uses them.

use std::fs;
use std::time::Instant;

use omnimesh_tests::{SOON, check, lab, wait_for};
use serde_json::{Value, json};

use crate::common::{mesh, wait_job_ended};

const JOB: &str = r#"
name = "statistics"

[inputs.table]
file = "table.csv"

[task.part]
operation = "analyze"
for_each = { chunk_of = "table", bytes = "64KiB", align = "line" }
params = { header = false }
redundancy = 2

[task.report]
operation = "analyze_merge"
inputs = ["part"]

[task.hash]
operation = "hash"
inputs = ["table"]
params = { hex = true }

[outputs]
report = "report"
hash = "hash"
"#;

#[test]
fn a_job_is_submitted_at_one_node_done_by_all_and_read_at_another() {
    let lab = lab!();
    let nodes = mesh(&lab, 3);
    let table: String = (1..=100_000).map(|row| format!("{row}\n")).collect();
    lab.file("table.csv", &table);
    let file = lab.file("job.toml", JOB);
    let file = file.to_str().unwrap();
    let done = nodes[0].json(&["job", "submit", file, "--wait"]);
    assert_eq!((&done["state"], &done["progress"]), (&json!("SUCCEEDED"), &json!(1.0)), "{done}");
    let id = done["id"].as_str().unwrap();
    // Another node has it from the log, and takes the result from whoever holds it.
    let seen = wait_job_ended(&nodes[2], &id[..16], SOON);
    assert_eq!(seen["state"], json!("SUCCEEDED"), "{seen}");
    let report = nodes[2].run(&["job", "result", id, "--name", "report"]);
    let report: Value = serde_json::from_str(&report.expect(0, &[]).stdout).unwrap();
    assert!(report.to_string().contains("50000.5"), "the mean of 1 to 100,000: {report}");
    let copy = lab.dir().join("hash.txt");
    wait_job_ended(&nodes[1], id, SOON);
    nodes[1].json(&["job", "result", id, "--name", "hash", "--out", copy.to_str().unwrap()]);
    let hash = nodes[1].json(&["blob", "put", lab.dir().join("table.csv").to_str().unwrap()]);
    assert_eq!(json!(fs::read_to_string(&copy).unwrap().trim()), hash["hash"]);
    nodes[1].run(&["job", "result", id]).expect(2, &["2 outputs", "report, hash"]);

    let shown = nodes[0].json(&["job", "show", id]);
    assert!(shown["workers"].as_array().unwrap().len() >= 2, "redundancy 2 needs two: {shown}");
    assert_eq!(shown["families"][0]["counts"]["succeeded"], shown["families"][0]["tasks"], "{shown}");
    nodes[0].run(&["job", "show", id]).says(&["statistics  SUCCEEDED", "part *", "longest chain"]);
    let tasks = nodes[2].json(&["job", "tasks", id, "--name", "part", "--state", "succeeded"]);
    assert_eq!(json!(tasks.as_array().unwrap().len()), shown["families"][0]["tasks"]);
    let svg = nodes[1].run(&["job", "graph", id]);
    assert!(svg.says(&["</svg>"]).stdout.starts_with("<?xml"));
    nodes[0].run(&["job", "logs", id]).says(&["READY -> RUNNING", "job_state", "RUNNING -> SUCCEEDED"]);
    for other in ["--follow", "--output=json"] {
        let both = nodes[0].run(&["job", "logs", id, "--format", "md", other]);
        both.expect(2, &["--format md is a report in Markdown", other.split('=').next().unwrap()]);
    }
    nodes[0].run(&["job", "logs", id, "--format", "md"]).says(&["# Job `statistics`", "## Bottleneck"]);
    nodes[0].run(&["why", "job", id]).says(&["tasks have ended", "longest chain"]);
    nodes[0].run(&["why", "job", id, "part/1"]).says(&["SUCCEEDED", "made its result"]);
    assert_eq!(nodes[0].json(&["workers"]).as_array().unwrap().len(), 3);
    assert_eq!(nodes[1].json(&["job", "list"])[0]["id"], json!(id));
}

#[test]
fn a_column_that_no_row_has_fails_the_job_and_is_named() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    lab.file("table.csv", "1,2\n3\n5,6\n");
    let columns = |columns: &str| {
        let text = JOB.replace("header = false", &format!("header = false, columns = {columns}"));
        let file = lab.file("job.toml", &text);
        nodes[0].run(&["job", "submit", file.to_str().unwrap(), "--wait", "--output", "json"])
    };
    // A row is short, and that is no fault.
    let id = columns("[1]").expect(0, &[]).json()["id"].as_str().unwrap().to_owned();
    wait_job_ended(&nodes[1], &id, SOON);
    let report = nodes[1].run(&["job", "result", &id, "--name", "report"]);
    let report: Value = serde_json::from_str(&report.expect(0, &[]).stdout).unwrap();
    assert_eq!((&report["columns"][0]["count"], &report["columns"][0]["missing"]), (&json!(2), &json!(1)));
    // No row has it: not three cells that are missing.
    let id = columns("[4]").json()["id"].as_str().unwrap().to_owned();
    assert_eq!(nodes[0].view(&format!("jobs/{id}")).unwrap()["state"], json!("FAILED"));
    nodes[0]
        .run(&["why", "job", &id])
        .says(&["there is no column 4 in 3 rows: there are 2", "params.columns"]);
}

/// Its actors wait for one another then, on one thread.
#[test]
fn a_node_that_is_told_to_end_in_the_middle_of_a_job_ends_and_goes_on_with_it_later() {
    const TASKS: u64 = 30_000;
    let lab = lab!();
    lab.file("data", &(0..TASKS).map(|row| format!("{row:07}\n")).collect::<String>());
    let job = lab.file(
        "job.toml",
        "name = \"many\"\n[inputs.data]\nfile = \"data\"\n[task.hash]\noperation = \"hash\"\n\
         for_each = { chunk_of = \"data\", bytes = 8 }\n",
    );
    let mut node = lab.node("node-1").open("test").start();
    node.wait_ready();
    let submitted = node.json(&["job", "submit", job.to_str().unwrap()]);
    let id = submitted["id"].as_str().unwrap();
    let mut done = 0;
    for _ in 0..4 {
        done = wait_for("more tasks to be done", SOON, || {
            let shown = node.view(&format!("jobs/{id}"))?;
            let now = shown["counts"]["succeeded"].as_u64().unwrap_or_default();
            check(now > done || now == TASKS, || shown["counts"].to_string()).map(|()| now)
        });
        node.signal("TERM");
        assert_eq!(node.wait_exit(), 0, "{}", node.log());
        println!("told to end with {done} of {TASKS} tasks done");
        node.restart();
    }
}

/// A program that runs for ever: it takes no input.
const FOR_EVER: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "omnimesh_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "omnimesh_run") (param i32 i32 i32 i32) (result i64) (loop $l (br $l)) (i64.const 0)))"#;

/// Its time is up after a minute of processor time, and the node does not wait for that.
#[test]
fn a_node_that_is_told_to_end_while_a_program_runs_ends() {
    let lab = lab!();
    fs::write(lab.dir().join("ever.wasm"), wat::parse_str(FOR_EVER).unwrap()).unwrap();
    let job = lab.file(
        "job.toml",
        "name = \"ever\"\n[inputs.program]\nfile = \"ever.wasm\"\n[task.spin]\noperation = \"wasm\"\n\
         program = \"program\"\n",
    );
    let mut node = lab.node("node-1").open("test").start();
    node.wait_ready();
    let submitted = node.json(&["job", "submit", job.to_str().unwrap()]);
    let id = submitted["id"].as_str().unwrap();
    wait_for("the program to run", SOON, || {
        let shown = node.view(&format!("jobs/{id}"))?;
        check(shown["counts"]["running"] == json!(1), || shown.to_string())
    });
    node.signal("TERM");
    let begin = Instant::now();
    assert_eq!(node.wait_exit(), 0, "{}", node.log());
    println!("ended after {:.1?}", begin.elapsed());
}

#[test]
fn what_cannot_be_done_is_refused_or_held_with_the_reason() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    lab.file("table.csv", "1\n");
    let submit = |name: &str, text: &str, flags: &[&str]| {
        let file = lab.file(name, text);
        let arguments = [&["job", "submit", file.to_str().unwrap()], flags].concat();
        nodes[0].run(&arguments)
    };
    let cycle =
        JOB.replace("operation = \"hash\"\ninputs = [\"table\"]", "operation = \"hash\"\nafter = [\"hash\"]");
    submit("cycle.toml", &cycle, &[]).expect(3, &["cycle.toml:", "waits for itself"]);
    submit("unknown.toml", &JOB.replace("[\"part\"]", "[\"parts\"]"), &[])
        .expect(3, &["unknown.toml:15: task.report.inputs.0: there is no input or task `parts`"]);
    let greedy = JOB.replace("redundancy = 2", "limits = { memory = \"9000GiB\" }");
    submit("greedy.toml", &greedy, &["--check"])
        .expect(9, &["greedy.toml:", "limits.memory", "`compute.task_memory_bytes_max`"]);
    assert_eq!(nodes[0].json(&["job", "list"]), json!([]));
    assert_eq!(nodes[0].json(&["blob", "list"]), json!([]), "nothing was uploaded");
    // Nobody is on Mars.
    let far = JOB.replace("redundancy = 2", "needs = { region = \"mars\" }");
    let run = submit("far.toml", &far, &["--output", "json"]);
    let id = run.expect(0, &[]).json()["id"].as_str().unwrap().to_owned();
    wait_for("the reason", SOON, || {
        let shown = nodes[0].view(&format!("jobs/{id}"))?;
        check(shown["held"].to_string().contains("region mars"), || shown["held"].to_string())
    });
    nodes[0].run(&["why", "job", &id]).says(&["is not placed", "the region mars", "remedy"]);
    let cancelled = nodes[0].json(&["job", "cancel", &id, "--reason", "too far"]);
    assert_eq!(cancelled["state"], json!("CANCELLED"));
    nodes[0].run(&["why", "job", &id]).says(&["somebody wanted it to end: too far"]);
    nodes[0].run(&["job", "cancel", &id]).expect(9, &["CANCELLED"]);
    nodes[0].run(&["job", "show", "0123"]).expect(6, &["knows no job"]);
}
