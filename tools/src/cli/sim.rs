//! The grammar of `sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What the simulator does.
#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// Run a scenario, judge it, and leave a folder with a report
    Run(RunArgs),
    /// Run a scenario several times, on one and on more threads: is it the same each time?
    Verify(VerifyArgs),
    /// Run all combinations of some values, each with several seeds
    Sweep(SweepArgs),
    /// Set two runs side by side, with differences in percent
    Compare(CompareArgs),
    /// Run again what a folder holds: is it the same?
    Rerun(RerunArgs),
    /// List the scenarios that come with the program
    List,
    /// Print a scenario that comes with the program, to begin one's own with
    Show {
        /// Its name
        name: String,
    },
}

/// A scenario, and what takes the place of its values.
#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs {
    /// What runs it: model (virtual time) or libp2p (real nodes, real time)
    #[arg(long, value_name = "ENGINE", value_parser = ["model", "libp2p"])]
    pub(crate) engine: Option<String>,
    /// How many nodes
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u32>,
    /// Whence all randomness comes
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
}

/// Flags of `sim run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A scenario file, or the name of a shipped one (see `sim list`)
    pub(crate) scenario: String,
    #[command(flatten)]
    pub(crate) with: ScenarioArgs,
    /// Another value for a key of the scenario, as in links.loss=0.1
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Threads that work; they do not change what happens [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
    /// The folder of the run [default: ./omnimesh-run-<scenario>-<seed>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Flags of `sim verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A scenario file, or the name of a shipped one (see `sim list`)
    pub(crate) scenario: String,
    #[command(flatten)]
    pub(crate) with: ScenarioArgs,
    /// Another value for a key of the scenario, as in links.loss=0.1
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Numbers of threads to run it on, besides twice on one
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "2")]
    pub(crate) threads: Vec<usize>,
}

/// Flags of `sim sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// A scenario file, or the name of a shipped one (see `sim list`)
    pub(crate) scenario: String,
    #[command(flatten)]
    pub(crate) with: ScenarioArgs,
    /// A key of the scenario and its values, as in links.loss=0,0.1,0.2; several make all combinations
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) set: Vec<String>,
    /// How many seeds each combination is run with, from the scenario's on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seeds: u32,
    /// Runs at once, each on one thread [default: one for each core, as far as memory goes]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZeroUsize>,
    /// The folder of the tables [default: ./omnimesh-sweep-<scenario>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Flags of `sim compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The folder of a run, or a scenario, which is then run
    pub(crate) a: String,
    /// The other one
    #[arg(required_unless_present = "engines")]
    pub(crate) b: Option<String>,
    /// Run the one scenario on both engines
    #[arg(long, conflicts_with_all = ["b", "engine"])]
    pub(crate) engines: bool,
    #[command(flatten)]
    pub(crate) with: ScenarioArgs,
    /// Another value for a key of the scenarios, as in links.loss=0.1
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Fail if the median or the 95th percentile of the latency or the duplicates differ by more
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) within: Option<f64>,
    /// Threads that work [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
}

/// Flags of `sim rerun`.
#[derive(Debug, Args)]
pub(crate) struct RerunArgs {
    /// The folder of a run
    pub(crate) dir: PathBuf,
    /// Threads that work; they do not change what happens [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("not a number of percent".to_owned()),
    }
}
