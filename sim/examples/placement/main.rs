//! Runs the jobs of `compute-1000` with every strategy of placement and writes how long they take: `docs/compute-placement.md`.
//!
//! ```text
//! cargo run --release -p omnimesh-sim --example placement                         1,000 workers, 3 seeds
//! cargo run --release -p omnimesh-sim --example placement -- --nodes 100 --tasks 100 --seeds 10 --out -
//! ```
//!
//! Seeds are worked off on all cores; what comes out depends on sizes and seeds only.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use omnimesh_protocol::compute::placement::Strategy;
use omnimesh_sim::checkers;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{Check, Fault, Scenario, ScenarioFile};
use omnimesh_sim::summary::{ComputeSummary, Summary};
use rayon::prelude::*;

/// How long jobs take with each strategy of placement.
#[derive(Debug, Parser)]
struct Cli {
    /// Workers.
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Tasks of each of the ten jobs.
    #[arg(long, default_value_t = 1000)]
    tasks: u32,
    /// Runs of each row.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Where the table goes; `-`: to standard output.
    #[arg(long, default_value = "docs/compute-placement.md")]
    out: PathBuf,
}

/// What is wrong with the mesh of a table.
struct Condition {
    title: &'static str,
    text: &'static str,
    change: fn(&mut Scenario),
}

/// All runs of a strategy.
struct Row {
    strategy: Strategy,
    runs: Vec<ComputeSummary>,
    /// Runs in which a check failed, but for that of the makespan.
    wrong: usize,
}

fn conditions() -> [Condition; 3] {
    [
        Condition {
            title: "All workers equal",
            text: "Nobody lies, dies or is slow.",
            change: |scenario| {
                scenario.faults.clear();
                if let Some(compute) = &mut scenario.compute {
                    (compute.liars, compute.slow) = (0.0, 0.0);
                }
            },
        },
        Condition {
            title: "A tenth is slow",
            text: "10 % of the workers take ten times as long.",
            change: |scenario| {
                scenario.faults.clear();
                if let Some(compute) = &mut scenario.compute {
                    compute.liars = 0.0;
                }
            },
        },
        Condition {
            title: "A tenth is slow, a tenth lies, a tenth dies",
            text: "The scenario `compute-1000`: 10 % of the workers take ten times as long, 10 % have wrong results, and as many \
                   deaths as 10 % of the nodes, each for ten seconds, drivers among them.",
            change: |_| {},
        },
    ]
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut text = head(&cli);
    for condition in conditions() {
        let rows: Vec<Row> =
            Strategy::ALL.into_iter().map(|strategy| row(&cli, &condition, strategy)).collect();
        table(&condition, &rows, &mut text);
    }
    if cli.out.as_os_str() == "-" {
        print!("{text}");
    } else if let Err(error) = std::fs::write(&cli.out, text) {
        eprintln!("error: cannot write {}: {error}", cli.out.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn scenario(cli: &Cli, condition: &Condition, strategy: Strategy, seed: u64) -> Scenario {
    let mut scenario = ScenarioFile::load("compute-1000", &[]).expect("it is shipped").scenario;
    (scenario.seed, scenario.network.nodes) = (seed, cli.nodes);
    if let Some(compute) = &mut scenario.compute {
        (compute.strategy, compute.tasks) = (strategy, cli.tasks);
        compute.submitters = compute.submitters.min(cli.nodes / 4).max(1);
        compute.ledgers = compute.ledgers.map(|ledgers| ledgers.min(cli.nodes));
    }
    for Fault { kind, .. } in &mut scenario.faults {
        if let omnimesh_sim::scenario::FaultKind::Churn { per_s, .. } = kind {
            *per_s *= f64::from(cli.nodes) / 1000.0;
        }
    }
    (condition.change)(&mut scenario);
    scenario
}

fn row(cli: &Cli, condition: &Condition, strategy: Strategy) -> Row {
    let run = |seed| {
        let scenario = scenario(cli, condition, strategy, seed);
        let outcome = model::run(&scenario, Options { threads: 1, ..Options::default() });
        let verdicts = checkers::check(&scenario, &outcome);
        let makespan = Check::Makespan { max: 1.3 }.name();
        let ok = verdicts.iter().all(|verdict| verdict.ok || verdict.name == makespan);
        (Summary::new(&outcome, &verdicts).compute, ok)
    };
    let seeds: Vec<u64> = (cli.first_seed..cli.first_seed + cli.seeds).collect();
    let all: Vec<(ComputeSummary, bool)> = seeds.par_iter().map(|seed| run(*seed)).collect();
    let wrong = all.iter().filter(|(_, ok)| !ok).count();
    Row { strategy, runs: all.into_iter().map(|(summary, _)| summary).collect(), wrong }
}

fn head(cli: &Cli) -> String {
    format!(
        "# How long jobs take with each strategy of placement\n\
         \n\
         <!-- Written by: cargo run --release -p omnimesh-sim --example placement -- --nodes {} --tasks {} --seeds {} \
         --first-seed {} -->\n\
         \n\
         {} workers with two slots do ten jobs of {} tasks, maps and a reduce, each task by three workers; a task takes four \
         seconds on average (log-normal, σ = 0.5). Seeds {} to {}. In virtual time, with the driver and the worker of the node; \
         [simulator.md](simulator.md) says what is modelled.\n\
         \n\
         The *ratio* is the time from the first submission to the end of the last job, divided by what no schedule beats: the work \
         of all tasks, three times each, divided by what honest workers can do, or the longest path through a job. *More runs* are \
         those beyond three for each task: copies of stragglers, votes after ties, work of the dead.\n",
        cli.nodes,
        cli.tasks,
        cli.seeds,
        cli.first_seed,
        cli.nodes,
        cli.tasks,
        cli.first_seed,
        cli.first_seed + cli.seeds - 1,
    )
}

fn table(condition: &Condition, rows: &[Row], text: &mut String) {
    let _ = write!(
        text,
        "\n## {}\n{}\n\n\
         | strategy | ratio, mean | least | greatest | makespan | more runs | refused for lack of room | jobs that succeeded | wrong results |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        condition.title, condition.text
    );
    for row in rows {
        let ratios: Vec<f64> = row.runs.iter().filter_map(|run| run.makespan_ratio).collect();
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            omnimesh_sim::stats::mean(values).map_or_else(|| "-".to_owned(), |mean| format!("{mean:.2}"))
        };
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let sum = |of: fn(&ComputeSummary) -> u64| row.runs.iter().map(of).sum::<u64>();
        let share = |part: f64, all: f64| format!("{:.1} %", part / all.max(1.0) * 100.0);
        let tasks = 3.0 * sum(|run| run.tasks) as f64;
        let _ = writeln!(
            text,
            "| {}{} | {} | {least:.2} | {most:.2} | {} s | {} | {} | {} of {} | {} |",
            row.strategy.code(),
            if row.strategy == Strategy::default() { " (default)" } else { "" },
            mean(&mut ratios.iter().copied()),
            mean(&mut row.runs.iter().filter_map(|run| run.makespan_s)),
            share(sum(|run| run.runs) as f64 - tasks, tasks),
            share(sum(|run| run.busy) as f64, sum(|run| run.runs + run.busy) as f64),
            sum(|run| run.succeeded),
            sum(|run| run.jobs),
            sum(|run| run.wrong),
        );
        if row.wrong > 0 {
            eprintln!("{}: checks failed in {} runs", row.strategy.code(), row.wrong);
        }
    }
}
