//! Comparisons of OmniMesh with what it is measured against, side by side in one run, as ratios.
//!
//! ```text
//! omnimesh-benches gates    each gate of the validator        against one bare `verify_strict`
//! omnimesh-benches gossip   whole nodes, a process for each   against stock rust-libp2p gossipsub
//! omnimesh-benches engine   the simulator's engine            against a bare event loop
//! omnimesh-benches trees    tree mode, simulated              against iroh-gossip in its own simulator
//! omnimesh-benches log-append     durable appends         against bare redb
//! omnimesh-benches log-replicate  catching up             against a bare libp2p stream
//! omnimesh-benches log-reconcile  finding what differs    against negentropy
//! omnimesh-benches compute  tasks, programs, hashes, blobs    against Dask, bare wasmtime, blake3, a libp2p stream
//! omnimesh-benches report   all, or --sections of it, as Markdown and as JSON
//! ```
//!
//! What is compared runs in turns (A B A B), each turn gives one ratio, and the median of the ratios is told
//! with the lowest and the highest: on a shared machine a single absolute number means nothing. It is to be
//! built with `--release`. See `docs/performance.md` for what is measured and how.

mod compute;
mod engine;
mod gates;
mod gossip;
mod log;
mod process;
mod report;
mod stats;
mod trees;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What all parts answer with: a bench can only tell what went wrong and end.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(about = "Compares OmniMesh with its peers, side by side, as ratios")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The validator's gates against one bare ed25519-dalek `verify_strict`.
    Gates(GatesArgs),
    /// OmniMesh against stock rust-libp2p gossipsub on loopback TCP.
    Gossip(GossipArgs),
    /// The simulator's engine against a bare event loop, on one thread.
    Engine(engine::EngineArgs),
    /// Tree mode against iroh-gossip 0.101, each in its own simulator.
    Trees(trees::TreesArgs),
    /// Durable appends of one node against bare redb with the same batches.
    LogAppend(log::append::AppendArgs),
    /// Replication between two nodes against a stream of stock libp2p.
    LogReplicate(log::replicate::ReplicateArgs),
    /// Reconciliation against negentropy.
    LogReconcile(log::reconcile::ReconcileArgs),
    /// Tasks against Dask, programs against bare wasmtime, hashes against blake3, blobs against a libp2p stream.
    Compute(compute::ComputeArgs),
    /// Everything, as Markdown on standard output, and as JSON in a file.
    Report {
        /// What of it.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "gates,gossip,engine,trees,log-append,log-replicate,log-reconcile,compute"
        )]
        sections: Vec<Section>,
        #[command(flatten)]
        gates: GatesArgs,
        #[command(flatten)]
        gossip: GossipArgs,
        #[command(flatten)]
        engine: engine::EngineArgs,
        #[command(flatten)]
        trees: trees::TreesArgs,
        #[command(flatten)]
        log: Box<log::LogArgs>,
        #[command(flatten)]
        compute: Box<compute::ComputeArgs>,
        /// Where the JSON goes.
        #[arg(long, default_value = "target/benches.json")]
        json: PathBuf,
    },
    /// One node of a comparison; started by `gossip`.
    #[command(hide = true)]
    Node(gossip::NodeArgs),
    /// One node of a comparison; started by `log-replicate`.
    #[command(hide = true)]
    LogNode(log::replicate::LogNodeArgs),
    /// One node of a comparison; started by `compute`.
    #[command(hide = true)]
    ComputeNode(compute::ComputeNodeArgs),
    /// One end of a stream; started by `log-replicate`.
    #[command(hide = true)]
    Stream(log::StreamArgs),
}

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// The validator's gates.
    Gates,
    /// Whole nodes.
    Gossip,
    /// The simulator's engine.
    Engine,
    /// Tree mode.
    Trees,
    /// Durable appends.
    LogAppend,
    /// Replication of the log.
    LogReplicate,
    /// Reconciliation of the log.
    LogReconcile,
    /// Tasks, programs, hashes and blobs.
    Compute,
}

/// How long the gates are measured.
#[derive(Debug, Args)]
struct GatesArgs {
    /// Batches of each gate, interleaved with those of all others.
    #[arg(long, default_value_t = 150)]
    batches: usize,
}

/// What of gossip is compared, and how long.
#[derive(Debug, Clone, Args)]
struct GossipArgs {
    /// Numbers of nodes.
    #[arg(long, value_delimiter = ',', default_value = "2,8")]
    nodes: Vec<usize>,
    /// Payload sizes in bytes.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    bytes: Vec<usize>,
    /// Turns of each side.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Length of one trial in seconds.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "lone,rate,load")]
    parts: Vec<gossip::Part>,
    /// The runtime of the stock gossipsub processes.
    #[arg(long, default_value = "multi")]
    stock_runtime: gossip::Runtime,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<()> {
    match command {
        Command::Gates(args) => {
            print!("{}", report::gates(&gates::measure(args.batches)?));
        }
        Command::Gossip(args) => print!("{}", report::gossip(&gossip::compare(&args)?)),
        Command::Engine(args) => print!("{}", report::engine(&engine::measure(&args)?)),
        Command::Trees(args) => print!("{}", report::trees(&trees::compare(&args)?)),
        Command::LogAppend(args) => print!("{}", report::append(&log::append::compare(&args)?)),
        Command::LogReplicate(args) => print!("{}", report::replicate(&log::replicate::compare(&args)?)),
        Command::LogReconcile(args) => print!("{}", report::reconcile(&log::reconcile::compare(&args)?)),
        Command::Compute(args) => print!("{}", report::compute(&compute::compare(&args)?)),
        Command::Report { sections, gates, gossip, engine, trees, log, compute, json } => {
            let has = |section| sections.contains(&section);
            let all = report::Report {
                machine: report::Machine::here(),
                gates: if has(Section::Gates) { gates::measure(gates.batches)? } else { Vec::new() },
                gossip: if has(Section::Gossip) { gossip::compare(&gossip)? } else { Vec::new() },
                engine: if has(Section::Engine) { engine::measure(&engine)? } else { Vec::new() },
                trees: if has(Section::Trees) { trees::compare(&trees)? } else { Vec::new() },
                append: if has(Section::LogAppend) { log::append::compare(&log.append)? } else { Vec::new() },
                replicate: if has(Section::LogReplicate) {
                    log::replicate::compare(&log.replicate)?
                } else {
                    Vec::new()
                },
                reconcile: if has(Section::LogReconcile) {
                    Some(log::reconcile::compare(&log.reconcile)?)
                } else {
                    None
                },
                compute: if has(Section::Compute) { compute::compare(&compute)? } else { Vec::new() },
            };
            print!("{}", all.markdown());
            if let Some(dir) = json.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::write(&json, serde_json::to_vec_pretty(&all)?)?;
            eprintln!("wrote {}", json.display());
        }
        Command::Node(args) => gossip::node(&args)?,
        Command::LogNode(args) => log::replicate::node(args)?,
        Command::ComputeNode(args) => compute::node(args)?,
        Command::Stream(args) => log::stream::run(&args)?,
    }
    Ok(())
}
