//! Whole nodes against stock rust-libp2p gossipsub: rates, CPU and latencies, as ratios.
//!
//! ```text
//!   comparison ── lines of JSON ──► node process 0 (publishes)   every node a process of this binary,
//!              ├──────────────────► node process 1               TCP + Noise + Yamux on loopback,
//!              └──────────────────► …                            each connected to each
//! ```
//!
//! Both clusters are up all the time and take turns; the one whose turn it is not is idle. A *trial* offers
//! messages on a fixed schedule. It is *carried* if 99.9 % of what was due has arrived everywhere half a
//! second after the last was due.
//!
//! * **lone**: one message every 20 ms; how long each takes.
//! * **rate**: trials at rising rates, 12 % apart, until one is not carried; the last that was carried counts.
//! * **load**: both at the same rate, 70 % of what stock gossipsub carries: CPU and latencies.

mod cluster;
mod node;
mod wire;

use clap::ValueEnum;
use serde::Serialize;

use crate::stats::Spread;
use crate::{GossipArgs, Outcome};
use cluster::{Cluster, Trial};
pub(crate) use node::{NodeArgs, Runtime, Side, node};

/// Messages per second of lone messages.
const LONE_RATE: f64 = 50.0;
const LONE_SECONDS: f64 = 3.0;
/// From one trial to the next.
const STEP: f64 = 1.12;
/// Trials of one turn at most.
const TRIALS_MAX: usize = 6;
/// Share of stock gossipsub's highest rate at which both are compared.
const LOAD: f64 = 0.7;
/// Where the first search begins, in messages per second, and how it rises.
const SEARCH_FROM: f64 = 250.0;
const SEARCH_STEP: f64 = 1.6;
const SEARCH_SECONDS: f64 = 0.7;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Latency of lone messages.
    Lone,
    /// The highest rate without loss.
    Rate,
    /// CPU and latency at an equal load.
    Load,
}

/// One number of nodes and one size of payloads.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) nodes: usize,
    pub(crate) bytes: usize,
    pub(crate) rows: Vec<Row>,
}

/// One figure of both sides.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) omnimesh: Spread,
    pub(crate) gossipsub: Spread,
    /// OmniMesh's by gossipsub's, turn by turn.
    pub(crate) ratio: Spread,
}

/// The two clusters of one number of nodes.
struct Pair {
    ours: Cluster,
    stock: Cluster,
}

/// Compares for each number of nodes and each size.
pub(crate) fn compare(args: &GossipArgs) -> Outcome<Vec<Cell>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut cells = Vec::new();
        for &nodes in &args.nodes {
            if nodes < 2 {
                return Err("a comparison needs at least two nodes".into());
            }
            eprintln!("{nodes} nodes: starting");
            let ours = Cluster::start(Side::Omnimesh, args.stock_runtime, nodes).await?;
            let stock = Cluster::start(Side::Gossipsub, args.stock_runtime, nodes).await?;
            let mut pair = Pair { ours, stock };
            for &bytes in &args.bytes {
                let rows = pair.cell(args, bytes).await?;
                cells.push(Cell { nodes, bytes, rows });
            }
            pair.ours.stop_all().await?;
            pair.stock.stop_all().await?;
        }
        Ok(cells)
    })
}

type Turns = Vec<(Trial, Trial)>;

impl Pair {
    async fn cell(&mut self, args: &GossipArgs, bytes: usize) -> Outcome<Vec<Row>> {
        let mut rows = Vec::new();
        let has = |part| args.parts.contains(&part);
        if has(Part::Lone) {
            let mut turns = Turns::new();
            for _ in 0..args.rounds {
                let ours = self.ours.lone(LONE_RATE, LONE_SECONDS, bytes).await?;
                let stock = self.stock.lone(LONE_RATE, LONE_SECONDS, bytes).await?;
                turns.push(told(ours, stock));
            }
            rows.push(row("lone message, p50 µs", &turns, |trial| trial.p50_us));
            rows.push(row("lone message, p99 µs", &turns, |trial| trial.p99_us));
            rows.push(row("lone message, CPU µs per delivery", &turns, |trial| trial.cpu_us));
        }
        if !has(Part::Rate) && !has(Part::Load) {
            return Ok(rows);
        }
        let mut from = (self.ours.search(bytes).await?, self.stock.search(bytes).await?);
        let mut highest = Turns::new();
        for _ in 0..args.rounds {
            let ours = self.ours.highest(from.0, args.seconds, bytes).await?;
            let stock = self.stock.highest(from.1, args.seconds, bytes).await?;
            from = (ours.offered / STEP, stock.offered / STEP);
            highest.push((ours, stock));
        }
        if has(Part::Rate) {
            rows.push(row("highest rate, messages/s", &highest, |trial| trial.rate));
            rows.push(row("at it, CPU µs per delivery", &highest, |trial| trial.cpu_us));
            rows.push(row("at it, publisher's CPU µs per message", &highest, |trial| {
                trial.publisher_cpu_us
            }));
            rows.push(row("at it, p50 µs", &highest, |trial| trial.p50_us));
        }
        if has(Part::Load) {
            let rate = LOAD * Spread::of(highest.iter().map(|(_, stock)| stock.offered).collect()).median;
            let mut turns = Turns::new();
            for _ in 0..args.rounds {
                turns.push(self.turn(rate, args.seconds, bytes).await?);
            }
            let at = format!("both at {rate:.0}/s");
            rows.push(row(&format!("{at}, CPU µs per delivery"), &turns, |trial| trial.cpu_us));
            rows.push(row(&format!("{at}, p50 µs"), &turns, |trial| trial.p50_us));
            rows.push(row(&format!("{at}, p99 µs"), &turns, |trial| trial.p99_us));
        }
        Ok(rows)
    }

    /// One trial of each side.
    async fn turn(&mut self, rate: f64, seconds: f64, bytes: usize) -> Outcome<(Trial, Trial)> {
        let ours = self.ours.trial(rate, seconds, bytes).await?;
        let stock = self.stock.trial(rate, seconds, bytes).await?;
        Ok(told(ours, stock))
    }
}

impl Cluster {
    /// Roughly the highest rate that is carried, by a quick search.
    async fn search(&mut self, bytes: usize) -> Outcome<f64> {
        let (mut rate, mut failures) = (SEARCH_FROM, 0);
        loop {
            let trial = self.trial(rate, SEARCH_SECONDS, bytes).await?;
            tell(self.side, &trial);
            // On a busy machine one failure may be chance.
            (failures, rate) =
                if trial.is_carried() { (0, rate * SEARCH_STEP) } else { (failures + 1, rate) };
            if failures == 2 {
                return Ok(rate / SEARCH_STEP);
            }
        }
    }

    /// The highest rate that is carried, from a guess.
    async fn highest(&mut self, from: f64, seconds: f64, bytes: usize) -> Outcome<Trial> {
        let mut best: Option<Trial> = None;
        let mut last = None;
        let mut rate = from;
        for _ in 0..TRIALS_MAX {
            let trial = self.trial(rate, seconds, bytes).await?;
            tell(self.side, &trial);
            match (trial.is_carried(), &best) {
                (true, _) => {
                    rate *= STEP;
                    best = Some(trial);
                }
                (false, Some(_)) => break,
                (false, None) => {
                    rate /= STEP;
                    last = Some(trial);
                }
            }
        }
        Ok(best.or(last).ok_or("no trial was made")?)
    }
}

fn told(ours: Trial, stock: Trial) -> (Trial, Trial) {
    tell(Side::Omnimesh, &ours);
    tell(Side::Gossipsub, &stock);
    (ours, stock)
}

fn tell(side: Side, trial: &Trial) {
    let Trial { offered, rate, delivered, cpu_us, p50_us, p99_us, trouble, .. } = trial;
    eprintln!(
        "  {side:?}: offered {offered:.0}/s, carried {rate:.0}/s ({:.2} %), {cpu_us:.1} µs of CPU per delivery, p50 {p50_us:.0} µs, p99 {p99_us:.0} µs",
        100.0 * delivered
    );
    if let Some(trouble) = trouble {
        eprintln!("    {trouble}");
    }
}

fn row(what: &str, turns: &[(Trial, Trial)], figure: impl Fn(&Trial) -> f64) -> Row {
    let (ours, stock): (Vec<f64>, Vec<f64>) = turns.iter().map(|(a, b)| (figure(a), figure(b))).unzip();
    let ratio = ours.iter().zip(&stock).map(|(ours, stock)| ours / stock).collect();
    Row {
        what: what.to_owned(),
        omnimesh: Spread::of(ours),
        gossipsub: Spread::of(stock),
        ratio: Spread::of(ratio),
    }
}
