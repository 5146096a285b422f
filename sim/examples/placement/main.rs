//! Runs the jobs of `compute-1000` with every strategy of placement and writes how long they take: `docs/compute-placement.md`.
//!
//! ```text
//! cargo run --release -p omnimesh-sim --example placement                  1,000 workers, 10,000 tasks, 3 seeds
//! cargo run --release -p omnimesh-sim --example placement -- --workers 100 --tasks 1000 --seeds 10 --out -
//! ```
//!
//! A round is one seed with each strategy in each table. Runs are spread over all cores (`RAYON_NUM_THREADS`); each says on
//! standard error how it went. The file is written anew after each round, or after as many as keep the cores busy, so that what was
//! stopped leaves the tables of the rounds that were done. What comes out depends on sizes and seeds only.

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

/// Jobs that the tasks are divided into.
const JOBS: u32 = 10;

/// How long jobs take with each strategy of placement.
#[derive(Debug, Parser)]
struct Cli {
    /// Workers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(8..))]
    workers: u32,
    /// Tasks of all ten jobs together, as many of each.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..))]
    tasks: u32,
    /// Rounds: runs of each row.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How much tasks differ: the standard deviation of the logarithm of their time, which is normal; 0: all take as long.
    #[arg(long, default_value_t = 0.2, value_parser = sigma)]
    sigma: f64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Which, with commas between them.
    #[arg(long, value_delimiter = ',', value_parser = strategy, default_values = Strategy::ALL.map(Strategy::code))]
    strategies: Vec<Strategy>,
    /// Of these conditions only: `equal`, `slow` or `all`.
    #[arg(long, value_delimiter = ',', value_parser = ["equal", "slow", "all"], default_values = ["equal", "slow", "all"])]
    conditions: Vec<String>,
    /// Where the tables go; `-`: to standard output, in the end.
    #[arg(long, default_value = "docs/compute-placement.md")]
    out: PathBuf,
}

fn strategy(text: &str) -> Result<Strategy, String> {
    let found = Strategy::ALL.into_iter().find(|strategy| strategy.code() == text);
    found.ok_or_else(|| format!("use one of: {}", Strategy::ALL.map(Strategy::code).join(", ")))
}

fn sigma(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=2.0).contains(value));
    value.ok_or_else(|| "use a number from 0 to 2".to_owned())
}

/// What is wrong with the mesh of a table.
struct Condition {
    name: &'static str,
    title: &'static str,
    text: &'static str,
    change: fn(&mut Scenario),
}

/// All runs of a strategy in one table.
struct Row {
    strategy: Strategy,
    runs: Vec<ComputeSummary>,
    /// Runs in which a check failed, but for that of the makespan.
    wrong: usize,
}

fn conditions() -> [Condition; 3] {
    [
        Condition {
            name: "equal",
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
            name: "slow",
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
            name: "all",
            title: "A tenth is slow, a tenth lies, a tenth dies",
            text: "The scenario `compute-1000`: 10 % of the workers take ten times as long, 10 % have wrong results, and as many \
                   deaths as 10 % of the nodes, each for ten seconds, drivers among them.",
            change: |_| {},
        },
    ]
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let row = |strategy: &Strategy| Row { strategy: *strategy, runs: Vec::new(), wrong: 0 };
    let mut tables: Vec<(Condition, Vec<Row>)> = conditions()
        .into_iter()
        .filter(|condition| cli.conditions.iter().any(|name| name == condition.name))
        .map(|condition| (condition, cli.strategies.iter().map(row).collect()))
        .collect();
    let mut text = String::new();
    let seeds: Vec<u64> = (cli.first_seed..cli.first_seed + cli.seeds).collect();
    let rows: usize = tables.iter().map(|(_, rows)| rows.len()).sum();
    // As many at a time as there are cores for.
    let mut done = 0;
    for seeds in seeds.chunks(rayon::current_num_threads().div_ceil(rows.max(1))) {
        rounds(&cli, seeds, &mut tables);
        done += seeds.len() as u64;
        text = page(&cli, done, &tables);
        if cli.out.as_os_str() != "-"
            && let Err(error) = omnimesh_sim::report::replace(&cli.out, &text)
        {
            eprintln!("error: cannot write {}: {error}", cli.out.display());
            return ExitCode::FAILURE;
        }
        eprintln!("round {done} of {}: {} has {}", cli.seeds, cli.out.display(), seeds_of(&cli, done));
    }
    if cli.out.as_os_str() == "-" {
        print!("{text}");
    }
    ExitCode::SUCCESS
}

/// One run of each row with each seed.
fn rounds(cli: &Cli, seeds: &[u64], tables: &mut [(Condition, Vec<Row>)]) {
    let rows: Vec<(&Condition, &mut Row)> = tables
        .iter_mut()
        .flat_map(|(condition, rows)| rows.iter_mut().map(|row| (&*condition, row)))
        .collect();
    rows.into_par_iter().for_each(|(condition, row)| {
        let runs: Vec<(ComputeSummary, bool)> =
            seeds.par_iter().map(|seed| told(cli, condition, row.strategy, *seed)).collect();
        for (summary, is_right) in runs {
            row.runs.push(summary);
            row.wrong += usize::from(!is_right);
        }
    });
}

/// A run, and whether all checks held; says on standard error how it went.
fn told(cli: &Cli, condition: &Condition, strategy: Strategy, seed: u64) -> (ComputeSummary, bool) {
    let (summary, failed) = run(&scenario(cli, condition, strategy, seed));
    let ratio =
        summary.makespan_ratio.map_or_else(|| "not all ended".to_owned(), |ratio| format!("{ratio:.3}"));
    let checks = if failed.is_empty() { "all checks held".to_owned() } else { failed.join("; ") };
    eprintln!("{}, seed {seed}, {}: ratio {ratio}, {checks}", strategy.code(), condition.title);
    (summary, failed.is_empty())
}

/// A run, and which checks failed, but for that of the makespan: the ratio is in the table.
fn run(scenario: &Scenario) -> (ComputeSummary, Vec<String>) {
    let outcome = model::run(scenario, Options { threads: 1, ..Options::default() });
    let verdicts = checkers::check(scenario, &outcome);
    let makespan = Check::Makespan { max: 1.3 }.name();
    let failed = verdicts.iter().filter(|verdict| !verdict.ok && verdict.name != makespan);
    let failed = failed.map(|verdict| format!("{} FAILED: {}", verdict.name, verdict.detail)).collect();
    (Summary::new(&outcome, &verdicts).compute, failed)
}

fn scenario(cli: &Cli, condition: &Condition, strategy: Strategy, seed: u64) -> Scenario {
    let mut scenario = ScenarioFile::load("compute-1000", &[]).expect("it is shipped").scenario;
    (scenario.seed, scenario.network.nodes) = (seed, cli.workers);
    if let Some(compute) = &mut scenario.compute {
        (compute.strategy, compute.tasks) = (strategy, cli.tasks.div_ceil(JOBS));
        (compute.jobs, compute.service_sigma) = (JOBS, cli.sigma);
        compute.submitters = compute.submitters.min(cli.workers / 4).max(1);
        compute.ledgers = compute.ledgers.map(|ledgers| ledgers.min(cli.workers));
    }
    for Fault { kind, .. } in &mut scenario.faults {
        if let omnimesh_sim::scenario::FaultKind::Churn { per_s, .. } = kind {
            *per_s *= f64::from(cli.workers) / 1000.0;
        }
    }
    (condition.change)(&mut scenario);
    scenario
}

/// Which seeds are in the tables.
fn seeds_of(cli: &Cli, done: u64) -> String {
    let seeds = match done {
        1 => format!("1 seed ({})", cli.first_seed),
        _ => format!("{done} seeds ({} to {})", cli.first_seed, cli.first_seed + done - 1),
    };
    if done < cli.seeds { format!("{seeds} of {} that are to be run", cli.seeds) } else { seeds }
}

fn page(cli: &Cli, done: u64, tables: &[(Condition, Vec<Row>)]) -> String {
    let mut text = head(cli, done);
    for (condition, rows) in tables {
        table(condition, rows, &mut text);
    }
    text
}

fn head(cli: &Cli, done: u64) -> String {
    let strategies: Vec<&str> = cli.strategies.iter().map(|strategy| strategy.code()).collect();
    format!(
        "# How long jobs take with each strategy of placement\n\
         \n\
         <!-- Written by: cargo run --release -p omnimesh-sim --example placement -- --workers {workers} --tasks {tasks} \
         --sigma {sigma} --seeds {done} --first-seed {first} --strategies {strategies} --conditions {conditions} -->\n\
         \n\
         {workers} workers with two slots do {JOBS} jobs of {each} tasks, maps and a reduce, each task by three workers; a task takes \
         four seconds on average (log-normal, σ = {sigma}). Each row is of {seeds}. In virtual time, with the driver and the worker of \
         the node; [simulator.md](simulator.md) says what is modelled.\n\
         \n\
         The *ratio* is the time from the first submission to the end of the last job, divided by what no schedule beats: the work \
         of all tasks, three times each, divided by what honest workers can do, or the longest path through a job. *List schedule* is \
         the ratio that a scheduler would reach that knows at once who is honest, quick and idle, and gives tasks at no cost, but \
         knows of none how long it takes: what is above it is the price of having no coordinator. *More runs* are \
         those beyond three for each task: copies of stragglers, votes after ties, work of the dead. *Checks held*: in so many \
         runs each task was committed once, no wrong result was accepted, every job ended, and what was to go wrong did.\n",
        workers = cli.workers,
        tasks = cli.tasks,
        sigma = cli.sigma,
        first = cli.first_seed,
        strategies = strategies.join(","),
        conditions = cli.conditions.join(","),
        each = cli.tasks.div_ceil(JOBS),
        seeds = seeds_of(cli, done),
    )
}

fn table(condition: &Condition, rows: &[Row], text: &mut String) {
    let _ = write!(
        text,
        "\n## {}\n\n{}\n\n\
         | strategy | ratio, mean | least | greatest | list schedule | makespan | more runs | refused for lack of room | jobs that succeeded | \
         wrong results | checks held |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        condition.title, condition.text
    );
    for row in rows {
        let ratios: Vec<f64> = row.runs.iter().filter_map(|run| run.makespan_ratio).collect();
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let mean = |values: &mut dyn Iterator<Item = f64>| figure(omnimesh_sim::stats::mean(values));
        let sum = |of: fn(&ComputeSummary) -> u64| row.runs.iter().map(of).sum::<u64>();
        let share = |part: f64, all: f64| format!("{:.1} %", part / all.max(1.0) * 100.0);
        let tasks = 3.0 * sum(|run| run.tasks) as f64;
        let _ = writeln!(
            text,
            "| {}{} | {} | {} | {} | {} | {} s | {} | {} | {} of {} | {} | {} of {} |",
            row.strategy.code(),
            if row.strategy == Strategy::default() { " (default)" } else { "" },
            mean(&mut ratios.iter().copied()),
            figure(ratios.iter().copied().min_by(f64::total_cmp)),
            figure(ratios.iter().copied().max_by(f64::total_cmp)),
            mean(&mut row.runs.iter().filter_map(|run| Some(run.list_schedule_s? / run.bound_s?))),
            mean(&mut row.runs.iter().filter_map(|run| run.makespan_s)),
            share(sum(|run| run.runs) as f64 - tasks, tasks),
            share(sum(|run| run.busy) as f64, sum(|run| run.runs + run.busy) as f64),
            sum(|run| run.succeeded),
            sum(|run| run.jobs),
            sum(|run| run.wrong),
            row.runs.len() - row.wrong,
            row.runs.len(),
        );
    }
}
