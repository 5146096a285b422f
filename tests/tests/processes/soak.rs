//! For as long as one asks: seven nodes under a steady load, one of them killed or stopped every so often. What they hold in
//! memory, open files and on disk must not grow.
//!
//! `OMNIMESH_SOAK=3600 cargo test --release -p omnimesh-tests --test processes soak:: -- --nocapture` runs for an hour; without
//! the variable nothing is done.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use omnimesh_tests::accept::{seed, tell};
use omnimesh_tests::http::Request;
use omnimesh_tests::{Api, Node, SOON, check, lab, wait_for};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::common::{wait_all_alive, wait_all_ready};

/// Seconds; without it the test does nothing.
const SOAK: &str = "OMNIMESH_SOAK";
const NODES: usize = 7;
/// Shorter runs are not judged: the tables of a young node still fill.
const JUDGED: Duration = Duration::from_secs(240);

const CHURN_EVERY: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(5);
const JOB_EVERY: Duration = Duration::from_secs(30);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Between two requests of the load, each of some entries and one message.
const LOAD_EVERY: Duration = Duration::from_millis(100);
const ENTRIES: usize = 4;
const ENTRY_BYTES: usize = 400;
/// A node that was started so recently is not sampled: it is still catching up.
const YOUNG: Duration = Duration::from_secs(12);

/// What may be added between the second fifth of a run and the last, by the median of all nodes: a part, and so much in
/// any case. Retention drops entries in steps, so that the disk goes up and down by some minutes of the load.
const GROWTH: [(&str, f64, f64); 3] =
    [("memory, MiB", 0.10, 12.0), ("open files", 0.10, 8.0), ("disk, MiB", 0.25, 12.0)];

const JOB: &str = r#"
name = "soak"
[inputs.table]
file = "soak.csv"
[task.part]
operation = "analyze"
for_each = { chunk_of = "table", bytes = "64KiB", align = "line" }
params = { header = false }
[task.report]
operation = "analyze_merge"
inputs = ["part"]
"#;

/// Checkpoints and retention, so that the log does not grow with what is appended; and few blobs.
const SETTINGS: [(&str, &str); 6] = [
    ("OMNIMESH_CHECKPOINTS__EVERY_STEPS", "20"),
    ("OMNIMESH_CHECKPOINTS__DELAY_STEPS", "5"),
    ("OMNIMESH_CHECKPOINTS__KEEP_STEPS", "30"),
    ("OMNIMESH_COMPUTE__BLOB_BYTES", "4194304"),
    ("OMNIMESH_LOG__LEVEL", "error"),
    ("OMNIMESH_LIMITS__MEMORY", "402653184"),
];

/// What a node holds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    /// In the order of [`GROWTH`].
    values: [f64; GROWTH.len()],
}

#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    appended: AtomicU64,
    published: AtomicU64,
    failed: AtomicU64,
    /// The APIs of the nodes that run.
    apis: Mutex<Vec<Api>>,
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Appends and publishes at whatever node runs.
fn work(load: &Load, mut rng: ChaCha8Rng) {
    let mut number = 0_u64;
    while !load.is_over.load(Ordering::Relaxed) {
        thread::sleep(LOAD_EVERY);
        let api = {
            let apis = load.apis.lock().unwrap();
            apis[rng.random_range(0..apis.len())].clone()
        };
        let entries: Vec<String> = (0..ENTRIES)
            .map(|_| {
                number += 1;
                format!("{number:0>ENTRY_BYTES$}")
            })
            .collect();
        match api.append(&entries, 0) {
            Ok((taken, _)) => load.appended.fetch_add(taken.len() as u64, Ordering::Relaxed),
            Err(_) => load.failed.fetch_add(1, Ordering::Relaxed),
        };
        let message = json!({ "data": format!("{number:0>ENTRY_BYTES$}") }).to_string();
        let sent = api.send(Request::post("/api/v1/channels/news/messages", &message));
        let is_sent = sent.is_ok_and(|answer| answer.status < 300);
        load.published.fetch_add(u64::from(is_sent), Ordering::Relaxed);
        if number.is_multiple_of(20) {
            let _ = api.put(&format!("tool/{}", number % 10), &json!({ "number": number }));
        }
    }
}

/// Bytes of all files below a directory.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn sample(node: &Node<'_>, at: Duration) -> Option<Sample> {
    let process = format!("/proc/{}", node.pid());
    let status = fs::read_to_string(format!("{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    let files = fs::read_dir(format!("{process}/fd")).ok()?.count() as f64;
    let disk = disk_bytes(&node.data_dir()) as f64 / f64::from(1 << 20);
    Some(Sample { at, values: [resident_kib / 1024.0, files, disk] })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The medians of each fifth of the run.
fn fifths(samples: &[Sample], which: usize, all: Duration) -> [f64; 5] {
    std::array::from_fn(|fifth| {
        let of = |sample: &&Sample| 5 * sample.at.as_millis() / all.as_millis().max(1) == fifth as u128;
        median(samples.iter().filter(of).map(|sample| sample.values[which]).collect())
    })
}

/// Fails if something grows. The first fifth does not count: tables and caches fill.
fn judge(samples: &[Sample], all: Duration, tell: fn(&str)) -> Result<(), String> {
    let mut grown = Vec::new();
    for (which, (what, part, least)) in GROWTH.into_iter().enumerate() {
        let fifths = fifths(samples, which, all);
        tell(&format!("soak: {what}: {} (medians of fifths)", fifths.map(|v| format!("{v:.1}")).join(" ")));
        let [_, before, .., after] = fifths;
        let most = before + (before * part).max(least);
        // What is not a number is not within it either.
        let is_within = after <= most;
        if !is_within {
            grown.push(format!("{what} grew from {before:.1} to {after:.1}, more than to {most:.1}"));
        }
    }
    if grown.is_empty() { Ok(()) } else { Err(grown.join("; ")) }
}

struct Churn {
    next: Instant,
    away: Option<(usize, Instant)>,
    started: Vec<Instant>,
    kills: u64,
    stops: u64,
}

impl Churn {
    /// Takes a node down, or brings the one that is down back.
    fn turn(&mut self, nodes: &mut [Node<'_>], load: &Load, rng: &mut ChaCha8Rng) {
        match self.away {
            Some((which, since)) if since.elapsed() >= AWAY => {
                nodes[which].restart();
                self.started[which] = Instant::now();
                self.away = None;
            }
            None if Instant::now() >= self.next => {
                let which = rng.random_range(0..nodes.len());
                let others = (0..nodes.len()).filter(|other| *other != which);
                *load.apis.lock().unwrap() = others.map(|other| nodes[other].client()).collect();
                if rng.random_bool(0.5) {
                    nodes[which].kill();
                    self.kills += 1;
                } else {
                    nodes[which].signal("TERM");
                    assert_eq!(nodes[which].wait_exit(), 0, "it stops in good order");
                    self.stops += 1;
                }
                self.away = Some((which, Instant::now()));
                self.next = Instant::now() + CHURN_EVERY;
                return;
            }
            _ => return,
        }
        *load.apis.lock().unwrap() = nodes.iter().map(Node::client).collect();
    }

    fn runs(&self, which: usize) -> bool {
        self.away.is_none_or(|(away, _)| away != which) && self.started[which].elapsed() > YOUNG
    }
}

fn duration() -> Option<Duration> {
    let seconds = std::env::var(SOAK).ok()?;
    Some(Duration::from_secs(seconds.parse().unwrap_or_else(|_| panic!("{SOAK} is a number of seconds"))))
}

#[test]
fn seven_nodes_hold_no_more_at_the_end_than_at_the_begin() {
    let Some(all) = duration() else {
        println!("soak: not asked for; set {SOAK} to a number of seconds");
        return;
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed("processes", "soak::"));
    let lab = lab!();
    lab.file("soak.csv", &(1..=20_000).map(|row| format!("{row}\n")).collect::<String>());
    let job = lab.file("soak.toml", JOB);
    let environment = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // A port of their own: whoever asks them keeps the address when they come back.
    let spec = |number: usize| {
        let api = format!("127.0.0.1:{}", lab.port());
        lab.node(&format!("node-{number}")).open("soak").api(&api).env(&environment)
    };
    let mut nodes = vec![spec(1).start()];
    for number in 2..=NODES {
        let node = spec(number).bootstrap(&nodes[0]).start();
        nodes.push(node);
    }
    wait_all_ready(&mut nodes);
    wait_all_alive(&nodes);
    let _subscribers: Vec<_> =
        nodes.iter().take(2).map(|node| node.subscribe_count("news", u32::MAX)).collect();

    let load = Load { apis: Mutex::new(nodes.iter().map(Node::client).collect()), ..Load::default() };
    let mut samples = Vec::new();
    let (mut jobs, mut jobs_done) = (0_u64, 0_u64);
    let worker = ChaCha8Rng::from_rng(&mut rng);
    thread::scope(|scope| {
        let _over = Over(&load);
        scope.spawn(|| work(&load, worker));
        let began = Instant::now();
        let mut churn =
            Churn { next: began + CHURN_EVERY, away: None, started: vec![began; NODES], kills: 0, stops: 0 };
        let (mut next_sample, mut next_job) = (began, began + JOB_EVERY / 2);
        while began.elapsed() < all || churn.away.is_some() {
            thread::sleep(Duration::from_millis(200));
            churn.turn(&mut nodes, &load, &mut rng);
            if Instant::now() >= next_sample {
                next_sample += SAMPLE_EVERY;
                let running = nodes.iter().enumerate().filter(|(which, _)| churn.runs(*which));
                samples.extend(running.filter_map(|(_, node)| sample(node, began.elapsed().min(all))));
            }
            if Instant::now() >= next_job && churn.away.is_none() {
                next_job += JOB_EVERY;
                jobs += 1;
                let node = &nodes[rng.random_range(0..nodes.len())];
                let run = node.run(&["job", "submit", job.to_str().unwrap()]);
                jobs_done += u64::from(run.code == 0);
            }
        }
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        tell(&format!(
            "soak: {} s, {} entries and {} messages, {} requests failed, {jobs_done} of {jobs} jobs submitted, {} kills, {} stops, {} samples",
            began.elapsed().as_secs(),
            count(&load.appended),
            count(&load.published),
            count(&load.failed),
            churn.kills,
            churn.stops,
            samples.len(),
        ));
    });
    assert!(load.appended.load(Ordering::Relaxed) > 0 && load.published.load(Ordering::Relaxed) > 0);
    wait_for("the same log everywhere", 2 * SOON, || {
        let first = nodes[0].client().get("log/status")?;
        nodes.iter().try_for_each(|node| {
            let status = node.client().get("log/status")?;
            check(status["behind"] == 0 && status["fingerprint"] == first["fingerprint"], || {
                format!("{}: {status:.500}", node.name())
            })
        })
    });
    let judged = judge(&samples, all, tell);
    if all >= JUDGED {
        judged.unwrap_or_else(|grown| panic!("{grown}"));
    }
}

#[test]
fn what_grows_is_noticed() {
    let all = Duration::from_secs(1000);
    let run = |memory: fn(f64) -> f64| -> Vec<Sample> {
        let at = (0..200).map(|n| 5.0 * f64::from(n));
        at.map(|s| Sample { at: Duration::from_secs_f64(s), values: [memory(s), 100.0, 50.0] }).collect()
    };
    let quiet = |_: &str| {};
    judge(&run(|_| 200.0), all, quiet).unwrap();
    // What fills at first is no growth.
    judge(&run(|s| 200.0 - 150.0 * (-s / 60.0).exp()), all, quiet).unwrap();
    let grown = judge(&run(|s| 200.0 + s / 10.0), all, quiet).unwrap_err();
    assert!(grown.contains("memory, MiB grew"), "{grown}");
    assert!(judge(&[], all, quiet).is_err(), "without samples nothing is known");
}
