//! Jobs over much data, while workers and the submitter die.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use omnimesh_protocol::compute::TaskRef;
use omnimesh_protocol::compute::ledger::{Operation, Outcome};
use omnimesh_tests::accept::size;
use omnimesh_tests::fixtures::word_count;
use omnimesh_tests::{Node, SOON, check, lab, wait_for};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{mesh, wait_job_ended};

/// How long a job may take: far more than it does.
const ENDED_MAX: Duration = Duration::from_secs(600);
const WORDS: [&str; 8] = ["alpha", "beta", "gamma", "delta", "mesh", "peer", "step", "pattern"];

/// A text of lines of words, and how often each word is in it.
fn text(bytes: usize, seed: u64) -> (String, String) {
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut text, mut counts) = (String::with_capacity(bytes + 100), BTreeMap::<&str, u64>::new());
    while text.len() < bytes {
        for place in 0..rng.random_range(1..12) {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            *counts.entry(word).or_default() += 1;
            text.push_str(if place > 0 { " " } else { "" });
            text.push_str(word);
        }
        text.push('\n');
    }
    let counts = counts.iter().fold(String::new(), |mut counts, (word, count)| {
        writeln!(counts, "{word} {count}").unwrap();
        counts
    });
    (text, counts)
}

/// The job file of the word count beside the text and the program.
fn word_count_job(dir: &Path, text: &str, chunk: &str, more: &str) -> PathBuf {
    fs::write(dir.join("text.txt"), text).unwrap();
    fs::copy(word_count(env!("CARGO_TARGET_TMPDIR")), dir.join("word_count.wasm")).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/jobs/word-count.toml");
    let job = fs::read_to_string(root).unwrap();
    let job = job
        .replace("word-count/target/wasm32-unknown-unknown/release/word_count.wasm", "word_count.wasm")
        .replace("16MiB", chunk)
        .replace("name = \"word-count\"\n", &format!("name = \"word-count\"\n{more}"));
    let path = dir.join("word-count.toml");
    fs::write(&path, job).unwrap();
    path
}

fn submit(node: &Node<'_>, job: &Path) -> String {
    let submitted = node.json(&["job", "submit", job.to_str().unwrap()]);
    submitted["id"].as_str().unwrap_or_else(|| panic!("no id: {submitted}")).to_owned()
}

fn result(node: &Node<'_>, id: &str, out: &Path) -> String {
    let _ = fs::remove_file(out);
    node.json(&["job", "result", id, "--out", out.to_str().unwrap()]);
    fs::read_to_string(out).unwrap()
}

/// In CI 24 MiB; in full a GiB.
#[test]
fn words_are_counted_by_all_nodes() {
    let lab = lab!();
    let nodes = mesh(&lab, 5);
    let (text, counts) = text(size(24, 1024) << 20, 11);
    let job = word_count_job(lab.dir(), &text, if text.len() > 100 << 20 { "16MiB" } else { "1MiB" }, "");
    let id = submit(&nodes[0], &job);
    let shown = wait_job_ended(&nodes[3], &id, ENDED_MAX);
    assert_eq!(shown["state"], "SUCCEEDED", "{shown}");
    println!("{}", nodes[0].run(&["job", "show", &id]).stdout);
    for node in [&nodes[0], &nodes[4]] {
        wait_job_ended(node, &id, SOON);
        assert_eq!(result(node, &id, &lab.dir().join("result")), counts);
    }
    let workers = shown["workers"].as_array().map_or(0, Vec::len);
    assert!(workers >= 3, "{workers} nodes have worked: {shown}");
    let graph = nodes[1].run(&["job", "graph", &id]).stdout;
    assert!(graph.contains("<svg") && graph.contains("count"), "{graph}");
    let log = nodes[0].run(&["job", "logs", &id, "--format", "md"]).stdout;
    assert!(log.contains("word-count"), "{log}");
}

/// How often each driver has committed each task with an output, in the log of a node.
fn commits(node: &Node<'_>) -> BTreeMap<(String, TaskRef), usize> {
    let mut commits = BTreeMap::new();
    for (author, entries) in node.client().all_entries().unwrap() {
        for entry in entries {
            let Ok(payload) = BASE64.decode(entry.data.as_bytes()) else { continue };
            if let Ok(Operation::Commit { commits: made, .. }) = Operation::decode(&payload) {
                let good = made.iter().filter(|commit| matches!(commit.outcome, Outcome::Succeeded(_)));
                good.for_each(|commit| *commits.entry((author.clone(), commit.task)).or_default() += 1);
            }
        }
    }
    commits
}

/// In CI 24 MiB; in full 256.
#[test]
fn a_job_outlives_its_workers_and_who_submitted_it() {
    let lab = lab!();
    let mut nodes = mesh(&lab, 5);
    let (text, counts) = text(size(24, 256) << 20, 12);
    let job = word_count_job(lab.dir(), &text, "256KiB", "redundancy = 2\n");
    let id = submit(&nodes[0], &job);
    let shown = nodes[0].json(&["job", "show", &id]);
    let (hash, tasks) = (shown["inputs"][0]["hash"].clone(), shown["tasks"].as_u64().unwrap());
    // Another node has the text by now, and some of it is counted.
    wait_for("the inputs to be at two nodes", ENDED_MAX, || {
        let has = |node: &Node<'_>| {
            let blobs = node.try_json(&["blob", "list"]).unwrap_or_default();
            let mut blobs = blobs.as_array().into_iter().flatten();
            blobs.any(|blob| blob["hash"] == hash && blob["here_bytes"] == blob["size"])
        };
        check(nodes[1..].iter().any(has), || "only where it was submitted".to_owned())
    });
    let done = |node: &Node<'_>| node.try_json(&["job", "show", &id]).map(|job| job["counts"].clone());
    wait_for("a node that stays to know the job", SOON, || done(&nodes[4]).map(drop));
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let mut is_submitter_alive = true;
    loop {
        let counts = done(&nodes[4]).unwrap();
        let succeeded = counts["succeeded"].as_u64().unwrap_or(0);
        if succeeded == tasks {
            break;
        }
        if succeeded * 3 > tasks && is_submitter_alive {
            nodes[0].kill();
            is_submitter_alive = false;
        }
        let victim = rng.random_range(1..4);
        nodes[victim].kill();
        nodes[victim].restart();
        nodes[victim].wait_ready();
        let job = nodes[4].json(&["job", "show", &id]);
        assert!(job["state"] == "RUNNING" || job["state"] == "SUCCEEDED", "{job}");
        println!("killed node {}; {succeeded} of {tasks}", victim + 1);
    }
    if is_submitter_alive {
        println!("the job was done before a third of it was seen: the submitter has lived");
        nodes[0].kill();
    }
    let shown = wait_job_ended(&nodes[4], &id, ENDED_MAX);
    assert_eq!(shown["state"], "SUCCEEDED", "{shown}");
    assert_eq!(result(&nodes[4], &id, &lab.dir().join("result")), counts);
    let commits = commits(&nodes[4]);
    let committed: BTreeSet<TaskRef> = commits.keys().map(|(_, task)| *task).collect();
    assert_eq!(committed.len() as u64, tasks, "{commits:?}");
    // By one driver: one that takes over cannot know what the one before it had on its disk and told nobody.
    let twice: Vec<_> = commits.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "committed twice: {twice:?}");
}
