//! The grammar of `job`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What can be done with jobs. An ID is a job's id, or as much of its beginning as no other job's has.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Have the tasks of a job file done by the mesh; prints the job's id
    Submit(SubmitArgs),
    /// List jobs, the newest first
    List(JobListArgs),
    /// Show how a job stands
    Show {
        /// The job
        id: String,
    },
    /// List the tasks of a job
    Tasks(TasksArgs),
    /// Draw a job's tasks, what waits for what, and the longest chain, as SVG
    Graph {
        /// The job
        id: String,
        /// Write it to this file [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print what happened to a job, or a report on its times, with --format md or json
    Logs(LogsArgs),
    /// Write the result of a job, from whatever nodes hold it
    Result(ResultArgs),
    /// End a job; what has not ended is cancelled
    Cancel {
        /// The job
        id: String,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Do again what has failed or was cancelled of a job
    Retry {
        /// The job
        id: String,
        /// Wait until it has ended, as with submit
        #[arg(long)]
        wait: bool,
    },
}

/// Flags of `job submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The job file: TOML, or JSON if its name ends in .json; - reads TOML from standard input
    pub(crate) file: PathBuf,
    /// Show how far it is until it has ended; ends with 0 only if it has succeeded
    #[arg(long)]
    pub(crate) wait: bool,
    /// Only say whether the node would take it; uploads nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) check: bool,
    /// Submitting the same job with the same number again is submitting it once [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(crate) nonce: Option<u64>,
}

/// Flags of `job list`.
#[derive(Debug, Args)]
pub(crate) struct JobListArgs {
    /// Only jobs in this state: running, succeeded, failed, cancelled; may be given several times
    #[arg(long = "state", value_name = "STATE")]
    pub(crate) states: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: Option<u64>,
}

/// Flags of `job tasks`.
#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// The job
    pub(crate) id: String,
    /// Only tasks in this state: pending, ready, running, succeeded, failed, skipped, cancelled; may be given several
    /// times
    #[arg(long = "state", value_name = "STATE")]
    pub(crate) states: Vec<String>,
    /// Only those that this task of the file makes
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// Flags of `job logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job
    pub(crate) id: String,
    /// The form; text is what happened, one event a line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: LogFormat,
    /// Go on with what happens until the job has ended
    #[arg(long)]
    pub(crate) follow: bool,
}

/// What `job logs` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// What happened
    #[default]
    Text,
    /// A report on times, bottleneck and what to change, as Markdown
    Md,
    /// The same as JSON, with what happened
    Json,
}

/// Flags of `job result`.
#[derive(Debug, Args)]
pub(crate) struct ResultArgs {
    /// The job
    pub(crate) id: String,
    /// Which output, if the job has more than one
    #[arg(long, value_name = "OUTPUT")]
    pub(crate) name: Option<String>,
    /// Write it to this file, which must not be there [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
