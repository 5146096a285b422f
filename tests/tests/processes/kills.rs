//! Nodes are killed while all of them append: what was acknowledged is on every node at the end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use omnimesh_tests::accept::{progress, seed, size, tell};
use omnimesh_tests::{Api, Entry, Node, POLL, SOON, check, equal, lab, wait_for};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::common::wait_all_ready;

const NODES: usize = 5;
const ENTRY_BYTES: usize = 200;
/// Entries of one request, at most.
const BATCH_MAX: usize = 16;
/// One request in so many is followed by a write to the registry, to one of so many entries.
const REGISTRY_ONE_IN: u32 = 10;
const REGISTRY_KEYS: usize = 30;

/// How long the next few entries may take: what a disk that stalls may take, and not what they do.
const APPENDED_MAX: Duration = Duration::from_secs(300);

/// What the appenders do and have done.
#[derive(Default)]
struct Work {
    budget: Mutex<Budget>,
    acknowledged: Mutex<Vec<Entry>>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Budget {
    /// So many may have been acknowledged by now.
    allowed: usize,
    /// So many are, or are under way.
    taken: usize,
}

impl Work {
    fn take(&self, wanted: usize) -> usize {
        let mut budget = self.budget.lock().unwrap();
        let taken = wanted.min(budget.allowed.saturating_sub(budget.taken));
        budget.taken += taken;
        taken
    }

    fn allow(&self, allowed: usize) {
        self.budget.lock().unwrap().allowed = allowed;
    }

    fn done(&self, taken: usize, acknowledged: Vec<Entry>) {
        self.budget.lock().unwrap().taken -= taken - acknowledged.len();
        self.acknowledged.lock().unwrap().extend(acknowledged);
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    #[track_caller]
    fn wait_count(&self, least: usize) {
        wait_for(&format!("{least} acknowledged entries"), APPENDED_MAX, || {
            let count = self.count();
            check(count >= least, || format!("there are {count}"))
        });
    }
}

/// Ends the appenders, also when the test fails.
struct Over<'a>(&'a Work);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

fn text(node: usize, number: u64) -> String {
    format!("{:x<ENTRY_BYTES$}", format!("node {node} entry {number} "))
}

/// Appends at one node for as long as there is something to append. Nothing is appended twice: what was not answered may be
/// in the log or not.
fn append(work: &Work, api: &Api, node: usize, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut number = 0;
    while !work.is_over.load(Ordering::Relaxed) {
        let taken = work.take(rng.random_range(1..=BATCH_MAX));
        let data: Vec<String> = (0..taken)
            .map(|_| {
                number += 1;
                text(node, number)
            })
            .collect();
        let (entries, refused) = match data.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => api.append(&data, 0).unwrap_or_default(),
        };
        let is_idle = entries.is_empty();
        assert!(refused.iter().all(|refused| refused["error"]["code"] != "internal"), "{refused:?}");
        work.done(taken, entries);
        if is_idle {
            thread::sleep(POLL);
        } else if rng.random_ratio(1, REGISTRY_ONE_IN) {
            let key = format!("tool/{}", rng.random_range(0..REGISTRY_KEYS));
            // Not counted: it may fail.
            let _ = api.put(&key, &json!({ "by": node, "number": number }));
        }
    }
}

/// Kills one node after another at random moments.
fn kill(nodes: &mut [Node<'_>], work: &Work, appends: usize, kills: usize, rng: &mut ChaCha8Rng) {
    let began = Instant::now();
    let window = appends / kills;
    let mut victims: Vec<usize> = Vec::new();
    for number in 0..kills {
        work.allow((number + 1) * window);
        let at = number * window + rng.random_range(0..window);
        work.wait_count(at);
        thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        if victims.is_empty() {
            victims = (0..nodes.len()).collect();
            victims.shuffle(rng);
        }
        let victim = &mut nodes[victims.pop().unwrap()];
        victim.kill();
        // Away for a moment or for long.
        work.allow(((number + 2) * window).min(appends));
        work.wait_count((at + rng.random_range(0..window)).min(appends));
        victim.restart();
        if (number + 1) % 10 == 0 {
            let (done, seconds) = (work.count(), began.elapsed().as_secs());
            progress(|| format!("{} kills, {done} entries acknowledged, {seconds} s", number + 1));
        }
    }
    work.allow(appends);
    work.wait_count(appends);
}

#[test]
fn what_was_acknowledged_outlives_kills() {
    let (appends, kills) = (size(1000, 20_000), size(10, 200));
    let seed = seed("processes", "what_was_acknowledged_outlives_kills");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let lab = lab!();
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for number in 1..=NODES {
        // A port of its own: it has the same after it was killed.
        let spec =
            lab.node(&format!("node-{number}")).open("kills").api(&format!("127.0.0.1:{}", lab.port()));
        let spec = match nodes.first() {
            Some(first) => spec.bootstrap(first),
            None => spec,
        };
        nodes.push(spec.start());
    }
    wait_all_ready(&mut nodes);
    let apis: Vec<Api> = nodes.iter().map(Node::client).collect();
    let began = Instant::now();
    let work = Work::default();
    // Later those that are quick may leave one without anything to append.
    work.allow(NODES);
    for (node, (said, api)) in nodes.iter().zip(&apis).enumerate() {
        let taken = work.take(1);
        let first = wait_for(&format!("the first entry of {}", said.name()), SOON, || {
            let (entries, refused) = api.append(&[text(node + 1, 0)], 0)?;
            check(entries.len() == 1, || format!("{refused:?}")).map(|()| entries)
        });
        work.done(taken, first);
    }
    thread::scope(|scope| {
        for (node, api) in apis.iter().enumerate() {
            let (work, seed) = (&work, seed.wrapping_add(1 + node as u64));
            scope.spawn(move || append(work, api, node + 1, seed));
        }
        let over = Over(&work);
        kill(&mut nodes, &work, appends, kills, &mut rng);
        drop(over);
    });
    let (appended, since) = (began.elapsed(), Instant::now());
    wait_all_ready(&mut nodes);
    let same = wait_for("equal logs and registries", 2 * SOON, || equal(&apis));
    let settled = since.elapsed();
    let acknowledged = work.acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= appends);
    for (node, api) in nodes.iter().zip(&apis) {
        let has = api.all_entries().unwrap();
        for entry in &acknowledged {
            let found =
                has.get(&entry.author).and_then(|log| log.get(usize::try_from(entry.seq).unwrap() - 1));
            assert_eq!(found, Some(entry), "{} lost what was acknowledged", node.name());
        }
        assert_eq!(api.get("log/proofs").unwrap(), json!([]), "nobody contradicted itself");
    }
    let authors = same["heads"].as_array().unwrap().len();
    assert_eq!(authors, NODES);
    tell(&format!(
        "{} entries of {authors} authors acknowledged during {kills} kills in {appended:.1?}, all on {NODES} nodes {settled:.1?} \
         after the last; with those that were not acknowledged {}; registry of {} entries",
        acknowledged.len(),
        same["entries"],
        same["registry"].as_array().unwrap().len(),
    ));
}
