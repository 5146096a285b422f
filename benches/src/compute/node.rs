//! With nodes as processes of their own, on loopback.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::compute::job::{self, Format, Quota};
use omnimesh_protocol::compute::ledger::JobState;
use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh};
use serde::{Deserialize, Serialize};

use super::dask::Dask;
use super::{Row, THREADS};
use crate::Outcome;
use crate::log::stream;
use crate::process::{Process, orders, say};

/// How long a job or a blob may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a small task reads.
const CHUNK: u64 = 1024;

/// One node of the comparison.
#[derive(Debug, Args)]
pub(crate) struct ComputeNodeArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    seed: u8,
    /// The nodes before it.
    others: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    /// Take in so many bytes, another content for each number.
    Put { bytes: u64, number: u64 },
    /// Have a blob here.
    Get(BlobRef),
    /// Have it no more.
    Forget(BlobRef),
    /// Have each chunk of a blob hashed.
    Job { input: BlobRef, number: u64 },
    /// Wait until so many workers are known.
    Workers(usize),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Reply {
    Listening(String),
    Put(BlobRef),
    /// After so long.
    Done {
        us: u64,
    },
}

/// Runs a node until standard input ends.
pub(crate) fn run(args: ComputeNodeArgs) -> Outcome<()> {
    actix::System::new().block_on(async { actix::spawn(serve(args)).await? })
}

async fn serve(args: ComputeNodeArgs) -> Outcome<()> {
    let mut config = Config::default();
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.network.bootstrap = args.others;
    config.api.listen = "127.0.0.1:0".parse()?;
    config.compute.slots = THREADS;
    let options = NodeOptions {
        config,
        data_dir: Some(args.dir),
        identity: Identity::from_seed(&[args.seed; 32]),
        mesh: Mesh::open("benches")?,
        is_new: true,
    };
    let node = MeshNode::start(options).await?;
    node.wait_ready().await?;
    say(&Reply::Listening(node.bootstrap_addresses().into_iter().next().ok_or("it listens nowhere")?))?;
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        let began = Instant::now();
        match order {
            Order::Put { bytes, number } => {
                let piece = |place: u64| (place ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
                let content: Vec<u8> = (0..bytes / 8).flat_map(piece).collect();
                say(&Reply::Put(node.blobs()?.put(&content[..], false)?))?;
                continue;
            }
            Order::Get(blob) => drop(node.blob(blob.hash).await?),
            Order::Forget(blob) => node.blobs()?.remove(&blob.hash)?,
            Order::Job { input, number } => {
                let text = format!(
                    "name = \"bench\"\n[inputs.data]\nfile = \"data\"\n[task.hash]\noperation = \"hash\"\n\
                     for_each = {{ chunk_of = \"data\", bytes = {CHUNK} }}\n"
                );
                let files = BTreeMap::from([("data".to_owned(), input)]);
                let (spec, _) = job::read("bench", &text, Format::Toml, &files, number, &Quota::default())?;
                let job = node.submit(spec).await?;
                wait_for_end(&node, job).await?;
            }
            Order::Workers(count) => loop {
                let known = node.look_at_jobs(|seen| seen.driver.workers(seen.now).len()).await?;
                if known >= count {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
        }
        say(&Reply::Done { us: u64::try_from(began.elapsed().as_micros())? })?;
    }
    Ok(())
}

async fn wait_for_end(node: &MeshNode, job: JobId) -> Outcome<()> {
    loop {
        let state = node.look_at_jobs(move |seen| {
            let view = seen.driver.ledger().job(&job)?;
            view.is_finished().then(|| view.state())
        });
        match state.await? {
            Some(JobState::Succeeded) => return Ok(()),
            Some(state) => return Err(format!("the job has ended as {}", state.code()).into()),
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// Nodes that know each other, the first of them first.
async fn mesh(dir: &std::path::Path, count: usize) -> Outcome<Vec<Process>> {
    let (mut nodes, mut others): (Vec<Process>, Vec<String>) = (Vec::new(), Vec::new());
    for seed in 1..=count {
        let path = dir.join(seed.to_string());
        std::fs::create_dir(&path)?;
        let seed = seed.to_string();
        let fixed =
            ["compute-node", "--dir", path.to_str().ok_or("a path that is no text")?, "--seed", &seed];
        let first = others.first().map(String::as_str);
        let mut node = Process::start(fixed.into_iter().chain(first))?;
        let Reply::Listening(address) = node.reply().await? else { return Err("no address".into()) };
        nodes.push(node);
        others.push(address);
    }
    let first = nodes.first_mut().ok_or("no nodes")?;
    done(first, Order::Workers(count)).await?;
    Ok(nodes)
}

async fn put(node: &mut Process, bytes: u64, number: u64) -> Outcome<BlobRef> {
    node.order(Order::Put { bytes, number }).await?;
    match node.reply_within(PATIENCE).await? {
        Reply::Put(blob) => Ok(blob),
        other => Err(format!("{other:?}").into()),
    }
}

/// How many seconds it took.
async fn done(node: &mut Process, order: Order) -> Outcome<f64> {
    node.order(order).await?;
    match node.reply_within(PATIENCE).await? {
        Reply::Done { us } => Ok(Duration::from_micros(us).as_secs_f64()),
        other => Err(format!("{other:?}").into()),
    }
}

/// A blob from one node to another against a bare stream, which goes nowhere, and against one that goes from a file into another,
/// as a blob does; MB/s.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(super) async fn blob(bytes: u64, rounds: usize) -> Outcome<[Row; 2]> {
    eprintln!("a blob of {} MiB from node to node", bytes >> 20);
    let dir = tempfile::tempdir()?;
    let mut nodes = mesh(dir.path(), 2).await?;
    let files = dir.path().join("stream");
    std::fs::create_dir(&files)?;
    let mut to_nowhere = stream::Pair::start(None).await?;
    let mut to_file = stream::Pair::start(Some(&files)).await?;
    let (mut nowhere, mut file) = (Vec::new(), Vec::new());
    let mut last = None;
    // The first turn is not counted: it finds memory that this machine has not had yet. The others find that of what was there before
    // them, as the stream does, whose file is made anew.
    for round in 0..=rounds {
        if let Some(last) = last {
            done(&mut nodes[0], Order::Forget(last)).await?;
        }
        let blob = put(&mut nodes[0], bytes, round as u64).await?;
        if let Some(last) = last.replace(blob) {
            done(&mut nodes[1], Order::Forget(last)).await?;
        }
        let ours = bytes as f64 / done(&mut nodes[1], Order::Get(blob)).await? / 1e6;
        let bare = (to_nowhere.rate(bytes).await? / 1e6, to_file.rate(bytes).await? / 1e6);
        if round > 0 {
            nowhere.push((ours, bare.0));
            file.push((ours, bare.1));
        }
    }
    let what = format!("blob of {} MiB, MB/s", bytes >> 20);
    Ok([
        Row::of(what.clone(), "a libp2p stream that goes nowhere", &nowhere),
        Row::of(what, "a libp2p stream from a file into a file", &file),
    ])
}

/// Small tasks against Dask with as many workers; tasks per second.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(super) async fn tasks(count: usize, tasks: u64, rounds: usize) -> Outcome<Row> {
    eprintln!("{tasks} tasks on {count} nodes");
    let dir = tempfile::tempdir()?;
    let mut nodes = mesh(dir.path(), count).await?;
    let mut dask = Dask::start(count)?;
    let mut turns = Vec::new();
    // The first turn warms up both.
    for round in 0..=rounds {
        let input = put(&mut nodes[0], tasks * CHUNK, round as u64).await?;
        let ours = done(&mut nodes[0], Order::Job { input, number: round as u64 }).await?;
        let other = dask.run(tasks)?;
        if round > 0 {
            turns.push((tasks as f64 / ours, tasks as f64 / other));
        }
    }
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    Ok(Row::of(format!("small tasks per second, {nodes}"), "Dask", &turns))
}
