//! Replication between two nodes against what one stream of stock libp2p carries.
//!
//! ```text
//!   node A: all entries ◄── fetches ── node B: begins with nothing           a process each, TCP on loopback
//!   stream ───────────── bytes ──────► stream                                libp2p-stream, a process each
//!   ed25519-dalek verify_strict on all cores; redb in a loop, the same batches
//! ```
//!
//! In each turn a new node catches up with all that the first one has; then the stream carries as many bytes; then
//! signatures are checked on all cores, and redb writes the same records in as large transactions. Time counts from
//! the first request to the last fsync. A record has one signature, so with one entry in each record the signatures
//! decide; entries that are appended together share a record.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use ed25519_dalek::{Signer as _, SigningKey};
use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::store::{Bare, Batch};
use super::stream;
use crate::Outcome;
use crate::process::{Process, orders, say};
use crate::stats::Spread;

/// Entries given to the first node at once.
const APPEND_AT_ONCE: usize = 4096;
/// How long a node may take to catch up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long signatures are checked.
const VERIFY_SECONDS: f64 = 0.4;
/// The least that a stream carries in a trial.
const STREAM_BYTES_MIN: u64 = 64 << 20;

/// What of replication is compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplicateArgs {
    /// Entries that a node lacks.
    #[arg(long, default_value_t = 100_000)]
    replicate_entries: usize,
    /// Sizes of entries in bytes.
    #[arg(long, value_delimiter = ',', default_value = "200,1024")]
    replicate_bytes: Vec<usize>,
    /// Entries in one record at most; 64 is what a node is configured with.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    replicate_bundles: Vec<usize>,
    /// Turns of each side.
    #[arg(long, default_value_t = 5)]
    replicate_rounds: usize,
    /// Where nodes keep their data; by default the directory for temporary files.
    #[arg(long)]
    replicate_dir: Option<PathBuf>,
}

/// One size of entries and of records.
#[derive(Debug, Serialize)]
pub(crate) struct Replicate {
    pub(crate) bytes: usize,
    pub(crate) entries: usize,
    /// Entries in a record, on average.
    pub(crate) per_record: f64,
    /// Bytes of a record, on average.
    pub(crate) record_bytes: f64,
    /// Bytes received for each byte of the records.
    pub(crate) overhead: f64,
    /// Millions of bytes of records in a transaction, on average.
    pub(crate) write_mb: Spread,
    pub(crate) seconds: Spread,
    /// CPU time of the one that has everything, and of the one that catches up, by the time that it takes.
    pub(crate) cores: [Spread; 2],
    /// Millions of bytes of entries per second.
    pub(crate) entry_rate: Spread,
    /// Millions of bytes of records per second.
    pub(crate) record_rate: Spread,
    pub(crate) bounds: Vec<Bound>,
}

/// Something that replication cannot be faster than.
#[derive(Debug, Serialize)]
pub(crate) struct Bound {
    pub(crate) what: &'static str,
    /// Millions of bytes of records per second.
    pub(crate) rate: Spread,
    /// Replication's bytes of records by its, turn by turn.
    pub(crate) record_share: Spread,
    /// Replication's bytes of entries by its.
    pub(crate) entry_share: Spread,
}

/// One node of the comparison.
#[derive(Debug, Args)]
pub(crate) struct LogNodeArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    seed: u8,
    #[arg(long)]
    bundle: usize,
    /// The nodes before it.
    others: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    Append { count: usize, bytes: usize },
    CatchUp { entries: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Reply {
    Listening(String),
    Appended,
    CaughtUp(CaughtUp),
}

/// What a node says of its catching up.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct CaughtUp {
    us: u64,
    entries: u64,
    records: u64,
    record_bytes: u64,
    bytes_received: u64,
    writes: u64,
}

/// Runs a node until standard input ends.
pub(crate) fn node(args: LogNodeArgs) -> Outcome<()> {
    actix::System::new().block_on(async { actix::spawn(run(args)).await? })
}

async fn run(args: LogNodeArgs) -> Outcome<()> {
    let mut config = Config::default();
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.network.bootstrap = args.others;
    config.api.listen = "127.0.0.1:0".parse()?;
    config.node.bundle_payloads_max = args.bundle;
    let identity = Identity::from_seed(&[args.seed; 32]);
    let mesh = Mesh::open("benches")?;
    let options = NodeOptions { config, data_dir: Some(args.dir), identity, mesh, is_new: true };
    let node = MeshNode::start(options).await?;
    node.wait_ready().await?;
    say(&Reply::Listening(node.bootstrap_addresses().into_iter().next().ok_or("it listens nowhere")?))?;
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Append { count, bytes } => {
                let mut left = count;
                while left > 0 {
                    let now = left.min(APPEND_AT_ONCE);
                    let payloads = vec![Bytes::from(vec![7; bytes]); now];
                    for appended in node.append_all(payloads, 0).await? {
                        appended?;
                    }
                    left -= now;
                }
                say(&Reply::Appended)?;
            }
            Order::CatchUp { entries } => say(&Reply::CaughtUp(caught_up(&node, entries).await?))?,
        }
    }
    Ok(())
}

async fn caught_up(node: &MeshNode, entries: u64) -> Outcome<CaughtUp> {
    loop {
        let mut sum = CaughtUp::default();
        for report in node.log_reports().await? {
            sum.us += u64::try_from(report.took.as_micros())?;
            sum.entries += report.entries;
            sum.record_bytes += report.record_bytes;
            sum.bytes_received += report.bytes_received;
        }
        if sum.entries >= entries {
            let stats = node.log().await?.stats;
            return Ok(CaughtUp { records: stats.applied, writes: stats.writes, ..sum });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// One turn of all; rates are in bytes of records per second.
struct Turn {
    caught_up: CaughtUp,
    cpu_s: [f64; 2],
    stream: f64,
    verify: f64,
    redb: f64,
}

/// Compares each size of entries and of records.
pub(crate) fn compare(args: &ReplicateArgs) -> Outcome<Vec<Replicate>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stream = stream::Pair::start(None).await?;
        let mut all = Vec::new();
        for &bundle in &args.replicate_bundles {
            for &bytes in &args.replicate_bytes {
                all.push(shape(args, &mut stream, bytes, bundle).await?);
            }
        }
        Ok(all)
    })
}

async fn shape(
    args: &ReplicateArgs,
    stream: &mut stream::Pair,
    bytes: usize,
    bundle: usize,
) -> Outcome<Replicate> {
    let entries = args.replicate_entries;
    eprintln!("replication of {entries} entries of {bytes} B, at most {bundle} in a record");
    let place = args.replicate_dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::tempdir_in(place)?;
    let (mut full, address) = start(&dir.path().join("full"), 1, bundle, None).await?;
    full.order(Order::Append { count: entries, bytes }).await?;
    let Reply::Appended = full.reply_within(PATIENCE).await? else { return Err("nothing appended".into()) };
    let mut turns = Vec::new();
    for _ in 0..args.replicate_rounds {
        let path = dir.path().join("behind");
        let before = full.cpu_s()?;
        let (mut behind, _) = start(&path, 2, bundle, Some(&address)).await?;
        behind.order(Order::CatchUp { entries: entries as u64 }).await?;
        let Reply::CaughtUp(caught_up) = behind.reply_within(PATIENCE).await? else {
            return Err("no account of the catch-up".into());
        };
        let cpu_s = [full.cpu_s()? - before, behind.cpu_s()?];
        behind.kill().await?;
        std::fs::remove_dir_all(&path)?;
        turns.push(Turn {
            caught_up,
            cpu_s,
            stream: stream.rate(caught_up.record_bytes.max(STREAM_BYTES_MIN)).await?,
            verify: tokio::task::spawn_blocking(verifications).await?? * caught_up.record_size(),
            redb: bare(&dir.path().join("bare.redb"), &caught_up, bytes)?,
        });
    }
    full.kill().await?;
    Replicate::of(bytes, entries, &turns)
}

async fn start(
    dir: &std::path::Path,
    seed: u8,
    bundle: usize,
    other: Option<&str>,
) -> Outcome<(Process, String)> {
    std::fs::create_dir(dir)?;
    let (seed, bundle) = (seed.to_string(), bundle.to_string());
    let dir = dir.to_str().ok_or("a path that is no text")?;
    let fixed = ["log-node", "--dir", dir, "--seed", &seed, "--bundle", &bundle];
    let mut process = Process::start(fixed.into_iter().chain(other))?;
    let Reply::Listening(address) = process.reply().await? else { return Err("no address".into()) };
    Ok((process, address))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl CaughtUp {
    fn record_size(&self) -> f64 {
        self.record_bytes as f64 / self.records.max(1) as f64
    }

    fn seconds(&self) -> f64 {
        Duration::from_micros(self.us).as_secs_f64()
    }

    fn record_rate(&self) -> f64 {
        self.record_bytes as f64 / self.seconds()
    }

    fn batch(&self) -> Batch {
        let writes = self.writes.max(1) as f64;
        Batch { entries: self.entries as f64 / writes, records: self.records as f64 / writes }
    }
}

/// Signatures that all cores check in a second.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn verifications() -> Outcome<f64> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let message = [7; 51];
    let (signature, public) = (key.sign(&message), key.verifying_key());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let check = || -> Result<u64, ed25519_dalek::SignatureError> {
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed().as_secs_f64() < VERIFY_SECONDS {
            for _ in 0..64 {
                public.verify_strict(&message, &signature)?;
            }
            count += 64;
        }
        Ok(count)
    };
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(check)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread failed")).collect::<Vec<_>>()
    });
    let mut all = 0;
    for count in counts {
        all += count??;
    }
    Ok(all as f64 / began.elapsed().as_secs_f64())
}

/// Bytes of records per second that redb alone writes.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn bare(path: &std::path::Path, caught_up: &CaughtUp, bytes: usize) -> Outcome<f64> {
    let written =
        Bare::create(path)?.write_all(caught_up.batch(), bytes, f64::INFINITY, caught_up.entries)?;
    std::fs::remove_file(path)?;
    Ok(written.bytes as f64 / written.took.as_secs_f64())
}

impl Replicate {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn of(bytes: usize, entries: usize, turns: &[Turn]) -> Outcome<Self> {
        let first = turns.first().ok_or("no turns")?.caught_up;
        let spread = |of: &dyn Fn(&Turn) -> f64| Spread::of(turns.iter().map(of).collect());
        let per_record = first.entries as f64 / first.records.max(1) as f64;
        // Of a byte of records, so much is of entries.
        let share = (first.entries * bytes as u64) as f64 / first.record_bytes as f64;
        let bound = |what, of: fn(&Turn) -> f64| Bound {
            what,
            rate: spread(&|turn| of(turn) / 1e6),
            record_share: spread(&|turn| turn.caught_up.record_rate() / of(turn)),
            entry_share: spread(&|turn| turn.caught_up.record_rate() * share / of(turn)),
        };
        let cores = |at: usize| spread(&move |turn| turn.cpu_s[at] / turn.caught_up.seconds());
        Ok(Replicate {
            bytes,
            entries,
            per_record,
            record_bytes: first.record_size(),
            overhead: first.bytes_received as f64 / first.record_bytes as f64,
            write_mb: spread(&|turn| {
                turn.caught_up.record_bytes as f64 / turn.caught_up.writes.max(1) as f64 / 1e6
            }),
            seconds: spread(&|turn| turn.caught_up.seconds()),
            cores: [cores(0), cores(1)],
            entry_rate: spread(&|turn| turn.caught_up.record_rate() * share / 1e6),
            record_rate: spread(&|turn| turn.caught_up.record_rate() / 1e6),
            bounds: vec![
                bound("libp2p stream", |turn| turn.stream),
                bound("signatures on all cores", |turn| turn.verify),
                bound("redb in a loop", |turn| turn.redb),
            ],
        })
    }
}
