//! Attacks on the shape of the mesh, with the defences and without: writes `docs/attacks.md`.
//!
//! ```text
//! cargo run --release -p omnimesh-sim --example attacks                            100 honest nodes, 400 sybils
//! cargo run --release -p omnimesh-sim --example attacks -- --honest 1000 --sybils 4000
//! ```
//!
//! After the evaluation of gossipsub v1.1 (Vyzovitis, Napora, McCormick, Dias, Psaras: *Gossipsub-v1.1 Evaluation Report*,
//! PL-TechRep-2020-001).

mod rows;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use omnimesh_sim::checkers;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::summary::Summary;
use rayon::prelude::*;

use rows::{Attack, Sizes};

/// Attacks on the mesh.
#[derive(Debug, Parser)]
struct Cli {
    /// Honest nodes.
    #[arg(long, default_value_t = 100)]
    honest: u32,
    /// Nodes of the attacker.
    #[arg(long, default_value_t = 400)]
    sybils: u32,
    /// Runs of each cell.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Honest nodes that each sybil dials, where it dials particular ones.
    #[arg(long, default_value_t = 10)]
    dials: u32,
    /// Of these attacks only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the page goes; `-`: to standard output.
    #[arg(long, default_value = "docs/attacks.md")]
    out: PathBuf,
}

/// What came of some runs.
#[derive(Clone, Debug, Default)]
struct Cell {
    ratio: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: Vec<f64>,
    false_quarantined: u64,
    /// Runs in which messages were forged, delivered twice, or steps fell.
    broken: Vec<String>,
}

/// One run.
fn run(cli: &Cli, attack: &Attack, seed: u64, is_defended: bool) -> Cell {
    let sizes = Sizes { honest: cli.honest, sybils: cli.sybils };
    let scenario = attack.scenario(sizes, seed, is_defended);
    let problems = scenario.problems();
    assert!(problems.is_empty(), "{}: {problems:?}", attack.name);
    let outcome = model::run(&scenario, Options { threads: 1, ..Options::default() });
    let checked = checkers::check(&scenario, &outcome);
    let summary = Summary::new(&outcome, &checked);
    let failed = checked.iter().filter(|checked| !checked.ok && cli.sybils > 0);
    let latency = &summary.latency_ms;
    let cell = Cell {
        ratio: summary.delivery_ratio.into_iter().collect(),
        p50: latency.p50.into_iter().collect(),
        p99: latency.p99.into_iter().collect(),
        max: latency.max.into_iter().collect(),
        false_quarantined: summary.detector.false_quarantined,
        broken: failed.map(|checked| format!("seed {seed}: {}: {}", checked.name, checked.detail)).collect(),
    };
    eprintln!("{} {} defences, seed {seed}: {}", attack.name, with(is_defended), cell.columns());
    cell
}

fn with(is_defended: bool) -> &'static str {
    if is_defended { "with" } else { "without" }
}

impl Cell {
    fn merge(mut self, other: Cell) -> Cell {
        self.ratio.extend(other.ratio);
        self.p50.extend(other.p50);
        self.p99.extend(other.p99);
        self.max.extend(other.max);
        self.false_quarantined += other.false_quarantined;
        self.broken.extend(other.broken);
        self
    }

    fn columns(&self) -> String {
        let mean = |values: &[f64]| {
            #[expect(clippy::cast_precision_loss, reason = "a few runs")]
            let count = values.len() as f64;
            (count > 0.0).then(|| values.iter().sum::<f64>() / count)
        };
        let text =
            |value: Option<f64>, digits: usize| value.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"));
        let greatest = self.max.iter().copied().reduce(f64::max);
        format!(
            "{} % | {} | {} | {}",
            text(mean(&self.ratio).map(|ratio| (ratio * 1e5).floor() / 1e3), 3),
            text(mean(&self.p50), 0),
            text(mean(&self.p99), 0),
            text(greatest, 0)
        )
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let attacks: Vec<Attack> = rows::attacks(cli.dials)
        .into_iter()
        .filter(|attack| cli.only.is_empty() || cli.only.iter().any(|name| name == attack.name))
        .collect();
    let rows: Vec<(&Attack, bool)> =
        attacks.iter().flat_map(|attack| [true, false].map(|is_defended| (attack, is_defended))).collect();
    let cells: Vec<Cell> = rows
        .par_iter()
        .map(|(attack, is_defended)| {
            let seeds = (1..=cli.seeds).into_par_iter();
            seeds.map(|seed| run(&cli, attack, seed, *is_defended)).reduce(Cell::default, Cell::merge)
        })
        .collect();
    let mut text = head(&cli);
    let mut notes = String::new();
    for ((attack, is_defended), cell) in rows.iter().zip(&cells) {
        let (name, what) = if *is_defended { (attack.name, attack.text) } else { ("", "") };
        let with = with(*is_defended);
        let _ = writeln!(text, "| {name} | {what} | {with} | {} |", cell.columns());
        for broken in &cell.broken {
            let _ = writeln!(notes, "- `{}` {with} defences: {broken}", attack.name);
        }
        if cell.false_quarantined > 0 {
            let shut_out = cell.false_quarantined;
            let _ = writeln!(notes, "- `{}` {with} defences: {shut_out} honest nodes shut out", attack.name);
        }
    }
    text.push_str("\n## What went wrong beside\n\n");
    text.push_str(if notes.is_empty() {
        "Nothing: no message was forged or delivered twice, no honest node was shut out.\n"
    } else {
        &notes
    });
    if cli.out.as_os_str() == "-" {
        println!("{text}");
    } else if let Err(error) = omnimesh_sim::report::replace(&cli.out, &text) {
        eprintln!("error: cannot write {}: {error}", cli.out.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn head(cli: &Cli) -> String {
    let Cli { honest, sybils, seeds, dials, .. } = cli;
    format!(
        "# Attacks on the mesh\n\nWhat arrives, and when, while many nodes of one attacker try to keep messages from honest ones. Written by\n\n```\n\
         cargo run --release -p omnimesh-sim --example attacks -- --honest {honest} --sybils {sybils} --seeds {seeds} --dials {dials}\n```\n\n\
         The attacks are named after those of the evaluation of gossipsub v1.1 (Vyzovitis, Napora, McCormick, Dias, Psaras: \
         *Gossipsub-v1.1 Evaluation Report*, PL-TechRep-2020-001, 2020), which has 1,000 honest nodes and up to 4,000 sybils; what each does \
         here is said in the table, and need not be what it does there. {honest} honest nodes, {sybils} sybils; each node dials 8 others at \
         random, whoever they are, so that of a node's connections most are the attacker's; where sybils dial in addition, they dial {dials} \
         honest nodes each. Links of 10 to 100 ms. 120 messages, 2.5 a second, by 10 honest authors. Means of {seeds} runs; the greatest of the maxima.\n\n\
         *With* defences: the router's scores, two links of each mesh dialled by the node itself, own messages to all peers, and the \
         observer. *Without*: none of these; signatures and tags stay.\n\n\
         *Delivered*: of all pairs of a message and an honest node that was connected to its author through honest nodes, those that came \
         before the run ended, at least 15 s later.\n\n\
         | attack | what they do | defences | delivered | p50 ms | p99 ms | max ms |\n|---|---|---|---:|---:|---:|---:|\n"
    )
}
