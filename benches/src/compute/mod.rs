//! Compute: small tasks against Dask, programs against calling their module, hashing against bare blake3, and blobs
//! against a bare libp2p stream.

mod dask;
mod local;
mod node;

use clap::{Args, ValueEnum};
use serde::Serialize;

pub(crate) use node::{ComputeNodeArgs, run as node};

use crate::Outcome;
use crate::stats::Spread;

/// Threads of each worker, on both sides.
const THREADS: u32 = 2;

/// What of compute is compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct ComputeArgs {
    /// Which parts.
    #[arg(long, value_delimiter = ',', default_value = "tasks,program,hash,blob")]
    compute_parts: Vec<Part>,
    /// Tasks of a job.
    #[arg(long, default_value_t = 10_000)]
    compute_tasks: u64,
    /// Nodes, and Dask's workers.
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    compute_nodes: Vec<usize>,
    /// Length of the blob that is hashed, and of the one that goes from node to node, in MiB.
    #[arg(long, default_value_t = 512)]
    compute_mib: u64,
    /// Turns of each side.
    #[arg(long, default_value_t = 5)]
    compute_rounds: usize,
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Small tasks, against Dask.
    Tasks,
    /// A WebAssembly task, against calling its module.
    Program,
    /// The hash of a large blob, against bare blake3.
    Hash,
    /// A blob from node to node, against a bare stream.
    Blob,
}

/// One figure of both sides.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What is measured, with its unit.
    pub(crate) what: String,
    /// The other side.
    pub(crate) against: &'static str,
    pub(crate) omnimesh: Spread,
    pub(crate) other: Spread,
    /// OmniMesh's by the other's, turn by turn.
    pub(crate) ratio: Spread,
}

impl Row {
    /// Of pairs of one turn each: OmniMesh's figure and the other's.
    fn of(what: String, against: &'static str, turns: &[(f64, f64)]) -> Self {
        let spread = |of: fn(&(f64, f64)) -> f64| Spread::of(turns.iter().map(of).collect());
        Row {
            what,
            against,
            omnimesh: spread(|(ours, _)| *ours),
            other: spread(|(_, other)| *other),
            ratio: spread(|(ours, other)| ours / other),
        }
    }
}

/// Compares all that was asked for.
pub(crate) fn compare(args: &ComputeArgs) -> Outcome<Vec<Row>> {
    let has = |part| args.compute_parts.contains(&part);
    let mut rows = Vec::new();
    if has(Part::Program) {
        rows.push(local::program(args.compute_rounds)?);
    }
    if has(Part::Hash) {
        rows.push(local::hash(args.compute_mib << 20, args.compute_rounds)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if has(Part::Blob) {
            rows.extend(node::blob(args.compute_mib << 20, args.compute_rounds).await?);
        }
        if has(Part::Tasks) {
            for nodes in &args.compute_nodes {
                rows.push(node::tasks(*nodes, args.compute_tasks, args.compute_rounds).await?);
            }
        }
        Ok(rows)
    })
}
