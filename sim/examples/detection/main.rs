//! Runs every attack that the simulator knows and writes how well it was found: `docs/detection.md`.
//!
//! ```text
//! cargo run --release -p omnimesh-sim --example detection                        200 nodes, 5 seeds
//! cargo run --release -p omnimesh-sim --example detection -- --nodes 1000 --seeds 200 --keep docs/detection.json
//! cargo run --release -p omnimesh-sim --example detection -- --only tamper,rush --out -
//! ```
//!
//! Ends with 1 if an aim is missed. A round is one seed with every attack; its runs are spread over all cores (`RAYON_NUM_THREADS`). The
//! file is written anew after each round, so that what was stopped leaves the table of the rounds that were done; with `--keep` the
//! next call goes on from there, if the code still does the same. The full form is half a day of work on one core. What comes out
//! depends on sizes and seeds only.

mod keep;
mod rows;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use omnimesh_sim::checkers;
use omnimesh_sim::detection::Scores;
use omnimesh_sim::model::{self, Options};
use rayon::prelude::*;

use keep::Keeper;
use rows::{Attack, Mesh, meshes};
use table::{Line, Part};

#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Keep the rounds that were done in this file, and go on from there the next time.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Where the table goes; `-`: to standard output.
    #[arg(long, default_value = "docs/detection.md")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True if no aim was missed.
fn measure(cli: &Cli) -> Result<bool, String> {
    let mut meshes = cli.meshes();
    let mut keeper = cli.keep.as_ref().map(|file| Keeper::new(file, cli));
    let done = keeper.as_ref().map_or(Ok(0), |keeper| keeper.read(&mut meshes))?;
    let page =
        |meshes: &[_], done| table::page(meshes, (cli.nodes, done, cli.first_seed), &cli.command(done));
    for done in done + 1..=cli.seeds {
        round(cli.nodes, cli.first_seed + done - 1, &mut meshes);
        keeper = keeper.map(|keeper| keeper.write(done, &meshes)).transpose()?;
        if cli.out.as_os_str() != "-" {
            omnimesh_sim::report::replace(&cli.out, &page(&meshes, done))
                .map_err(|error| format!("cannot write {}: {error}", cli.out.display()))?;
        }
        eprintln!("round {done} of {}", cli.seeds);
    }
    if cli.out.as_os_str() == "-" {
        println!("{}", page(&meshes, cli.seeds.max(done)));
    }
    let lines = || meshes.iter().flat_map(|(_, lines)| lines);
    lines().for_each(|line| eprintln!("{}", table::short(line)));
    let missed: Vec<String> = lines().flat_map(table::missed).collect();
    missed.iter().for_each(|miss| eprintln!("missed: {miss}"));
    Ok(missed.is_empty())
}

/// One run of each part of each mesh.
fn round(nodes: u32, seed: u64, meshes: &mut [(Mesh, Vec<Line>)]) {
    let parts = meshes.first().and_then(|(_, lines)| lines.first()).map_or(0, |line| line.parts.len());
    let runs: Vec<(usize, usize)> =
        (0..meshes.len()).flat_map(|mesh| (0..parts).map(move |part| (mesh, part))).collect();
    let runs: Vec<_> = runs
        .into_par_iter()
        .map(|(mesh, part)| (mesh, part, run(nodes, seed, &meshes[mesh].0, part == 1)))
        .collect();
    for (mesh, place, rows) in runs {
        for (line, row) in meshes[mesh].1.iter_mut().zip(rows) {
            line.parts[place] = std::mem::take(&mut line.parts[place]).merge(row);
        }
    }
}

impl Cli {
    /// What is to be run, and nothing found yet.
    fn meshes(&self) -> Vec<(Mesh, Vec<Line>)> {
        let chosen =
            |attack: &Attack| self.only.is_empty() || self.only.iter().any(|name| name == attack.name);
        let line = |attack| Line { attack, parts: vec![Part::default(); if self.no_slow { 1 } else { 2 }] };
        let mut meshes = meshes();
        meshes.iter_mut().for_each(|mesh| mesh.attacks.retain(chosen));
        meshes.retain(|mesh| !mesh.attacks.is_empty());
        let lines = |mesh: &Mesh| mesh.attacks.iter().cloned().map(line).collect();
        meshes.into_iter().map(|mesh| (mesh.clone(), lines(&mesh))).collect()
    }

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

fn run(nodes: u32, seed: u64, mesh: &Mesh, with_slow: bool) -> Vec<Part> {
    let scenario = mesh.scenario(nodes, seed, with_slow);
    let problems = scenario.problems();
    assert!(problems.is_empty(), "{mesh}: {problems:?}");
    let outcome = model::run(&scenario, Options { threads: 1, ..Options::default() });
    let scores = Scores::of(&outcome).expect("nodes have observers");
    let checked = checkers::check(&scenario, &outcome);
    let did_nothing =
        checked.iter().any(|checked| !checked.ok && checked.name == checkers::FAULTS_TOOK_EFFECT);
    let part = |row| Part {
        row,
        honest: u64::from(nodes) - outcome.adversary_nodes.len() as u64,
        false_quarantined: scores.false_quarantined.len() as u64,
        falsely_convicted: scores.falsely_convicted.len() as u64,
        false_verdicts: scores
            .verdicts_false
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count))
            .collect(),
        failed: u64::from(did_nothing),
    };
    scores.rows.iter().cloned().map(part).collect()
}
