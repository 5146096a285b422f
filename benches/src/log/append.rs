//! Durable appends of one node against bare redb.
//!
//! Callers append one entry at a time and wait for each answer, which means that it is on disk. What waits while a
//! transaction is written goes into the next, so the callers set the size of the batches. Then redb alone
//! writes batches of the same size:
//!
//! * **loop**: one thread writes transaction after transaction, nobody waits for anything: the most that redb carries.
//! * **callers**: as many callers as the node has, over a channel to a thread that writes what waits: the least that
//!   answering each of them takes.
//!
//! All write into one directory, in turns. redb alone stores the bytes of the node's records, checksums included,
//! under the same keys, and neither signs, hashes nor remembers where the log ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures::future::try_join_all;
use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::store::{Bare, Batch, record};
use crate::Outcome;
use crate::stats::{Spread, quantile};

/// Of a trial that only warms up.
const WARM_SECONDS: f64 = 0.3;

/// What of appends is compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct AppendArgs {
    /// Sizes of entries in bytes.
    #[arg(long, value_delimiter = ',', default_value = "200,1024")]
    append_bytes: Vec<usize>,
    /// Numbers of callers that append at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024")]
    append_callers: Vec<usize>,
    /// Turns of each side.
    #[arg(long, default_value_t = 5)]
    append_rounds: usize,
    /// Length of one trial in seconds.
    #[arg(long, default_value_t = 1.5)]
    append_seconds: f64,
    /// Only the node, to look at it with other tools.
    #[arg(long)]
    append_alone: bool,
    /// Where both write; by default the directory for temporary files.
    #[arg(long)]
    append_dir: Option<PathBuf>,
}

/// One size of entries and one number of callers.
#[derive(Debug, Serialize)]
pub(crate) struct Append {
    pub(crate) bytes: usize,
    pub(crate) callers: usize,
    /// Entries, and records, in a transaction of the node.
    pub(crate) entries: Spread,
    pub(crate) records: Spread,
    /// How long redb takes for such a transaction, in microseconds.
    pub(crate) transaction_us: Spread,
    pub(crate) rows: Vec<Row>,
}

/// One figure of both sides.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) omnimesh: Spread,
    pub(crate) redb: Spread,
    /// OmniMesh's by redb's, turn by turn.
    pub(crate) ratio: Spread,
}

/// One trial with callers.
#[derive(Clone, Copy, Debug)]
struct Trial {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

/// One turn of all.
struct Turn {
    batch: Batch,
    node: Trial,
    callers: Trial,
    /// Appends per second, and the middle transaction in microseconds.
    alone: (f64, f64),
}

/// Compares each size and number of callers.
pub(crate) fn compare(args: &AppendArgs) -> Outcome<Vec<Append>> {
    // The callers are tasks on the node's arbiter, as those of an application are that waits for answers.
    let args = args.clone();
    actix::System::new().block_on(async { actix::spawn(run(args)).await? })
}

async fn run(args: AppendArgs) -> Outcome<Vec<Append>> {
    let place = args.append_dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::tempdir_in(place)?;
    let mut config = Config::default();
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.api.listen = "127.0.0.1:0".parse()?;
    let data_dir = dir.path().join("node");
    std::fs::create_dir(&data_dir)?;
    let node = MeshNode::start(NodeOptions {
        config,
        data_dir: Some(data_dir),
        identity: Identity::from_seed(&[1; 32]),
        mesh: Mesh::open("benches")?,
        is_new: true,
    })
    .await?;
    node.wait_ready().await?;
    let mut bare = Some(Bare::create(&dir.path().join("bare.redb"))?);
    let mut cells = Vec::new();
    for &bytes in &args.append_bytes {
        for &callers in &args.append_callers {
            eprintln!("appends of {bytes} B, {callers} callers");
            let mut turns = Vec::new();
            of_node(&node, bytes, callers, WARM_SECONDS).await?;
            for _ in 0..args.append_rounds {
                let (node, batch) = of_node(&node, bytes, callers, args.append_seconds).await?;
                if args.append_alone {
                    eprintln!("{node:?} {batch:?}");
                    continue;
                }
                let mut store = bare.take().ok_or("the bare store is gone")?;
                let seconds = args.append_seconds;
                let (alone, store) = tokio::task::spawn_blocking(move || {
                    let written = store.write_all(batch, bytes, seconds, u64::MAX)?;
                    Outcome::Ok((written, store))
                })
                .await??;
                let (waited, store) = of_callers(store, batch, bytes, callers, seconds).await?;
                bare = Some(store);
                let mut us = alone.transactions_us;
                us.sort_by(f64::total_cmp);
                #[expect(clippy::cast_precision_loss, reason = "a count of entries")]
                let rate = alone.entries as f64 / alone.took.as_secs_f64();
                turns.push(Turn { batch, node, callers: waited, alone: (rate, quantile(&us, 0.5)) });
            }
            cells.push(Append::of(bytes, callers, &turns));
        }
    }
    node.shutdown().await;
    Ok(cells)
}

impl Append {
    fn of(bytes: usize, callers: usize, turns: &[Turn]) -> Self {
        let spread = |of: fn(&Turn) -> f64| Spread::of(turns.iter().map(of).collect());
        let row = |what, ours: fn(&Turn) -> f64, theirs: fn(&Turn) -> f64| Row {
            what,
            omnimesh: spread(ours),
            redb: spread(theirs),
            ratio: Spread::of(turns.iter().map(|turn| ours(turn) / theirs(turn)).collect()),
        };
        Append {
            bytes,
            callers,
            entries: spread(|turn| turn.batch.entries),
            records: spread(|turn| turn.batch.records),
            transaction_us: spread(|turn| turn.alone.1),
            rows: vec![
                row("appends/s, against redb in a loop", |turn| turn.node.rate, |turn| turn.alone.0),
                row("appends/s, against redb with callers", |turn| turn.node.rate, |turn| turn.callers.rate),
                row("p50 µs, against redb with callers", |turn| turn.node.p50_us, |turn| turn.callers.p50_us),
                row("p99 µs, against redb with callers", |turn| turn.node.p99_us, |turn| turn.callers.p99_us),
            ],
        }
    }
}

impl Trial {
    #[expect(clippy::cast_precision_loss, reason = "counts and microseconds for people")]
    fn of(latencies: impl IntoIterator<Item = Vec<Duration>>, took: Duration) -> Self {
        let mut us: Vec<f64> =
            latencies.into_iter().flatten().map(|latency| latency.as_secs_f64() * 1e6).collect();
        us.sort_by(f64::total_cmp);
        Trial {
            rate: us.len() as f64 / took.as_secs_f64(),
            p50_us: quantile(&us, 0.5),
            p99_us: quantile(&us, 0.99),
        }
    }
}

/// Appends again and again until the time is up; how long each took.
async fn caller<F>(until: Instant, append: impl Fn() -> F) -> Outcome<Vec<Duration>>
where
    F: Future<Output = Outcome<()>>,
{
    let mut latencies = Vec::new();
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(latencies);
        }
        append().await?;
        latencies.push(began.elapsed());
    }
}

async fn all<F>(callers: usize, seconds: f64, make: impl Fn(Instant) -> F) -> Outcome<Trial>
where
    F: Future<Output = Outcome<Vec<Duration>>> + 'static,
{
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..callers).map(|_| actix::spawn(make(until))).collect();
    let latencies = try_join_all(tasks).await?.into_iter().collect::<Outcome<Vec<_>>>()?;
    Ok(Trial::of(latencies, began.elapsed()))
}

async fn of_node(node: &MeshNode, bytes: usize, callers: usize, seconds: f64) -> Outcome<(Trial, Batch)> {
    let payload = Bytes::from(vec![7; bytes]);
    let before = node.log().await?.stats;
    let trial = all(callers, seconds, |until| {
        let (node, payload) = (node.clone(), payload.clone());
        async move {
            caller(until, || async {
                node.append(payload.clone(), 0).await?;
                Ok(())
            })
            .await
        }
    })
    .await?;
    let after = node.log().await?.stats;
    #[expect(clippy::cast_precision_loss, reason = "counts within a trial")]
    let each = |of: fn(&omnimesh_protocol::log::Stats) -> u64| {
        (of(&after) - of(&before)) as f64 / (after.writes - before.writes).max(1) as f64
    };
    let batch =
        Batch { entries: each(|stats| stats.appended), records: each(|stats| stats.appended_records) };
    Ok((trial, batch))
}

type Waiting = (Bytes, oneshot::Sender<()>);

/// Callers over a channel to a thread that writes what waits.
async fn of_callers(
    mut store: Bare,
    batch: Batch,
    bytes: usize,
    callers: usize,
    seconds: f64,
) -> Outcome<(Trial, Bare)> {
    let (sender, mut receiver) = mpsc::channel::<Waiting>(callers);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "entries of a record")]
    let entries_each = (batch.entries / batch.records).round().max(1.0) as usize;
    // What a record has besides its entries.
    let head = record(entries_each, bytes)?.len() - entries_each * bytes;
    let writer = std::thread::spawn(move || -> Outcome<Bare> {
        let mut waiting = Vec::new();
        while let Some(first) = receiver.blocking_recv() {
            waiting.push(first);
            while let Ok(next) = receiver.try_recv() {
                waiting.push(next);
            }
            let write = |waiting: &[Waiting]| {
                let mut record = vec![0; head];
                waiting.iter().for_each(|(entry, _)| record.extend_from_slice(entry));
                record
            };
            store.write_each(waiting.chunks(entries_each).map(write))?;
            for (_, answer) in waiting.drain(..) {
                let _ = answer.send(());
            }
        }
        Ok(store)
    });
    let payload = Bytes::from(vec![7; bytes]);
    let trial = all(callers, seconds, |until| {
        let (sender, payload) = (sender.clone(), payload.clone());
        async move {
            caller(until, || async {
                let (answer, answered) = oneshot::channel();
                sender.send((payload.clone(), answer)).await?;
                Ok(answered.await?)
            })
            .await
        }
    })
    .await?;
    drop(sender);
    let store = tokio::task::spawn_blocking(move || writer.join()).await?;
    Ok((trial, store.map_err(|_| "the writer failed")??))
}
