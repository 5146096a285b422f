//! A node is away while others write a lot, and catches up.

use std::thread;
use std::time::Instant;

use omnimesh_tests::accept::{progress, size, tell};
use omnimesh_tests::{Api, Node, SOON, check, equal, lab, wait_for};
use serde_json::Value;

use crate::common::{mesh, wait_all_ready};

const ENTRY_BYTES: usize = 200;
/// Entries of one request: what fits the API's longest body.
const BATCH: usize = 500;
/// Bytes that may be sent for each byte that was missed.
const SHARE_MAX: f64 = 1.3;
/// Memory of a node that catches up: what an idle one takes, the bounded queues (16 MiB asked for, 16 MiB waiting to be written)
/// and redb's pages, twice.
const MEMORY_MAX: u64 = 256 << 20;

fn sent(apis: &[Api]) -> f64 {
    apis.iter().map(|api| api.metric("omnimesh_log_bytes_sent_total").unwrap()).sum()
}

/// Appends so many at each, all at once, each request as large as may be.
fn append_at_all(apis: &[Api], count: usize) {
    thread::scope(|scope| {
        for (node, api) in apis.iter().enumerate() {
            scope.spawn(move || {
                let mut done = 0;
                while done < count {
                    let more = BATCH.min(count - done);
                    let data: Vec<String> = (done..done + more)
                        .map(|number| format!("{:x<ENTRY_BYTES$}", format!("node {node} entry {number} ")))
                        .collect();
                    let (taken, refused) = api.append(&data, 0).unwrap();
                    assert_eq!((taken.len(), &refused), (more, &Vec::new()));
                    done += more;
                    if done % 10_000 == 0 {
                        progress(|| format!("node {node} has written {done}"));
                    }
                }
            });
        }
    });
}

#[test]
fn who_was_away_gets_what_it_missed_and_little_more() {
    let count = size(3_000, 100_000);
    let lab = lab!();
    let mut nodes = mesh(&lab, 4);
    let mut away = nodes.pop().unwrap();
    let apis: Vec<Api> = nodes.iter().map(Node::client).collect();
    append_at_all(&apis, 1);
    wait_for("an entry of each", SOON, || {
        let status = away.view("log/status")?;
        check(status["entries"] == apis.len(), || status.to_string())
    });
    away.kill();
    let before: u64 = equal_after(&apis);
    append_at_all(&apis, count / apis.len());
    let missed = equal_after(&apis) - before;
    assert_eq!(missed, (count / apis.len() * apis.len()) as u64);
    let sent_before = sent(&apis);

    let began = Instant::now();
    away.restart();
    away.wait_ready();
    let ready = began.elapsed();
    let all: Vec<Api> = apis.iter().cloned().chain([away.client()]).collect();
    wait_for("it to catch up", 10 * SOON, || {
        let status = away.view("log/status")?;
        progress(|| format!("it has {} and knows of {} more", status["entries"], status["behind"]));
        equal(&all)
    });
    let took = began.elapsed();
    let bytes = sent(&all) - sent_before;
    let payload = (missed * ENTRY_BYTES as u64) as f64;
    let memory = away.memory_peak_bytes();
    let gaps = away.json(&["log", "gaps"]);
    let of =
        |name: &str| -> u64 { gaps.as_array().unwrap().iter().filter_map(|gap| gap[name].as_u64()).sum() };
    tell(&format!(
        "{missed} entries missed ({payload} bytes of data, {} of records): ready after {ready:.1?}, caught up after {took:.1?}, \
         {bytes} bytes sent by all ({:.3} times the data), {} round trips, memory at most {} MiB",
        of("record_bytes"),
        bytes / payload,
        of("round_trips"),
        memory >> 20
    ));
    assert!(bytes <= SHARE_MAX * payload, "{bytes} bytes were sent for {payload} that were missed");
    assert!(memory <= MEMORY_MAX, "{memory} bytes of memory");
    assert_eq!(of("entries"), missed, "{gaps}");
    assert_eq!(of("nobody_has"), 0, "{gaps}");
    let sources: u64 = gaps
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|gap| gap["sources"].as_array().unwrap())
        .filter_map(|source| source["entries"].as_u64())
        .sum();
    assert_eq!(sources + of("entries_gossip"), missed, "{gaps}");
    wait_all_ready(&mut nodes);
}

/// Waits until they have the same, and gives how many entries that is.
fn equal_after(apis: &[Api]) -> u64 {
    let same: Value = wait_for("equal logs", 2 * SOON, || equal(apis));
    same["entries"].as_u64().unwrap()
}
