//! Runs every attack that the simulator knows and writes how well it was found: `docs/detection.md`.
//!
//! ```text
//! cargo run --release -p omnimesh-sim --example detection                        200 nodes, 5 seeds
//! cargo run --release -p omnimesh-sim --example detection -- --nodes 1000 --seeds 200
//! cargo run --release -p omnimesh-sim --example detection -- --only tamper,rush --out -
//! ```
//!
//! Ends with 1 if an aim is missed. A round is one seed with every attack; its runs are spread over all cores (`RAYON_NUM_THREADS`). The
//! file is written anew after each round, so that what was stopped leaves the table of the rounds that were done. What comes out
//! depends on sizes and seeds only.

mod rows;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use omnimesh_sim::checkers;
use omnimesh_sim::detection::{Row, Scores};
use omnimesh_sim::model::{self, Options};
use rayon::prelude::*;

use rows::{Attack, attacks};
use table::{Line, Part};

/// How well those who misbehave are found.
#[derive(Debug, Parser)]
struct Cli {
    /// Nodes of each mesh.
    #[arg(long, default_value_t = 200)]
    nodes: u32,
    /// Runs of each row.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Of these attacks only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Without the runs with slow nodes.
    #[arg(long)]
    no_slow: bool,
    /// Where the table goes; `-`: to standard output.
    #[arg(long, default_value = "docs/detection.md")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let chosen = |attack: &Attack| cli.only.is_empty() || cli.only.iter().any(|name| name == attack.name);
    let parts = if cli.no_slow { 1 } else { 2 };
    let line = |attack| Line { attack, parts: vec![Part::default(); parts] };
    let mut lines: Vec<Line> = attacks().into_iter().filter(chosen).map(line).collect();
    let mut text = String::new();
    for done in 1..=cli.seeds {
        round(cli.nodes, cli.first_seed + done - 1, &mut lines);
        text = table::page(&lines, (cli.nodes, done, cli.first_seed), &cli.command(done));
        if cli.out.as_os_str() != "-"
            && let Err(error) = omnimesh_sim::report::replace(&cli.out, &text)
        {
            eprintln!("error: cannot write {}: {error}", cli.out.display());
            return ExitCode::FAILURE;
        }
        eprintln!("round {done} of {}", cli.seeds);
    }
    if cli.out.as_os_str() == "-" {
        println!("{text}");
    }
    for line in &lines {
        eprintln!("{}", table::short(line));
    }
    let missed: Vec<String> = lines.iter().flat_map(table::missed).collect();
    for miss in &missed {
        eprintln!("missed: {miss}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run of each part of each line.
fn round(nodes: u32, seed: u64, lines: &mut [Line]) {
    lines.par_iter_mut().for_each(|Line { attack, parts }| {
        parts.par_iter_mut().zip([false, true]).for_each(|(part, with_slow)| {
            *part = std::mem::take(part).merge(run(nodes, seed, attack, with_slow));
        });
    });
}

impl Cli {
    /// What makes the table of so many seeds.
    fn command(&self, seeds: u64) -> String {
        let mut command = format!(
            "cargo run --release -p omnimesh-sim --example detection -- --nodes {} --seeds {}",
            self.nodes, seeds
        );
        if self.first_seed != 1 {
            let _ = write!(command, " --first-seed {}", self.first_seed);
        }
        if !self.only.is_empty() {
            let _ = write!(command, " --only {}", self.only.join(","));
        }
        if self.no_slow {
            command.push_str(" --no-slow");
        }
        command
    }
}

fn run(nodes: u32, seed: u64, attack: &Attack, with_slow: bool) -> Part {
    let scenario = attack.scenario(nodes, seed, with_slow);
    let problems = scenario.problems();
    assert!(problems.is_empty(), "{}: {problems:?}", attack.name);
    let outcome = model::run(&scenario, Options { threads: 1, ..Options::default() });
    let scores = Scores::of(&outcome).expect("nodes have observers");
    let checked = checkers::check(&scenario, &outcome);
    let row: Row = scores.rows.into_iter().next().expect("there is one adversary");
    Part {
        row,
        honest: u64::from(nodes) - outcome.adversary_nodes.len() as u64,
        false_quarantined: scores.false_quarantined.len() as u64,
        falsely_convicted: scores.falsely_convicted.len() as u64,
        false_verdicts: scores.verdicts_false.into_iter().collect(),
        failed: u64::from(
            checked.iter().any(|checked| !checked.ok && checked.name == checkers::FAULTS_TOOK_EFFECT),
        ),
    }
}
