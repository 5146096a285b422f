//! The command line's grammar.

mod blob;
mod durable;
mod job;
mod observer;
mod sim;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

pub(crate) use blob::{BlobCommand, GetArgs};
pub(crate) use durable::{
    AppendArgs, BackupArgs, EvidenceCommand, LinkArgs, ListArgs, LogCommand, PutArgs, ReadArgs,
    RegistryCommand, RestoreArgs, SearchArgs, WalkArgs, WayArgs,
};
pub(crate) use job::{JobCommand, JobListArgs, LogFormat, LogsArgs, ResultArgs, SubmitArgs, TasksArgs};
pub(crate) use observer::{AlertsCommand, AnomaliesArgs, AuditCommand, AuditFile, MonitorArgs};
pub(crate) use sim::{CompareArgs, RerunArgs, RunArgs, ScenarioArgs, SimCommand, SweepArgs, VerifyArgs};

/// OmniMesh: a mesh of equal nodes that verify every message and share one step.
#[derive(Debug, Parser)]
#[command(name = "omnimesh", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration invalid, 4 node not reachable, \
5 not authorised, 6 not found, 7 timed out, 8 partly done, 9 refused by a policy or limit, 130 interrupted.\n\n\
Settings come from: built in < file < environment (OMNIMESH_<SECTION>__<KEY>) < flags; see `omnimesh config show --origin`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "OMNIMESH_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the node keeps its identity and data [default: ~/.local/share/omnimesh]
    #[arg(long, global = true, value_name = "DIR", env = "OMNIMESH_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The node to talk to, as http://HOST:PORT [default: the one that runs in the data directory]
    #[arg(long, global = true, value_name = "URL", env = "OMNIMESH_API_URL")]
    pub(crate) api_url: Option<String>,
    /// The file with the node's API token [default: api-token in the data directory]
    #[arg(long, global = true, value_name = "FILE", env = "OMNIMESH_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The form of what is printed
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: Format,
    /// error, warn, info, debug, trace, off, or directives such as info,omnimesh_node=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// How long to wait, at most [default: 10 for an answer; 60 for devnet and status --wait; no end for what is watched:
    /// subscribe, monitor, registry watch, --wait of job submit and job retry, --follow; nor for blobs and backups]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node in the foreground
    Start(StartArgs),
    /// Run several nodes on this machine that join and broadcast to each other
    Devnet(DevnetArgs),
    /// Print the token with which other nodes join this mesh; it holds the mesh secret
    Invite,
    /// Show what the node is and where it stands
    Status(StatusArgs),
    /// List the members of the mesh as the node sees them
    Members,
    /// List the connected peers
    Peers,
    /// Show the mesh's clock
    Step,
    /// Show the node's metrics
    Metrics,
    /// List what ought not to be
    Anomalies(AnomaliesArgs),
    /// Who is shut out, and letting somebody in again
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// What is the matter with this node, and who takes care of it
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Watch the node: health, metrics, alerts and findings, until Ctrl-C
    Monitor(MonitorArgs),
    /// What this node and its operators did: a signed chain of entries; needs no running node
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Publish a message on a channel
    Publish(PublishArgs),
    /// Print the messages of a channel as they arrive
    Subscribe(SubscribeArgs),
    /// Durable messages: append, read, and see how the log is
    #[command(subcommand)]
    Log(LogCommand),
    /// Check evidence
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Replicated entries and links between them
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Content by its hash: put it here, get it from whoever has it
    #[command(subcommand)]
    Blob(BlobCommand),
    /// Jobs: graphs of tasks that the mesh does
    #[command(subcommand)]
    Job(JobCommand),
    /// List those who take work, as the node sees them
    Workers,
    /// Copy the log of the running node into a file; without its identity and the mesh secret
    Backup(BackupArgs),
    /// Put a log that was backed up into the data directory of a node that does not run and has none
    Restore(RestoreArgs),
    /// Simulate meshes: run scenarios, verify, compare and repeat the runs
    #[command(subcommand)]
    Sim(SimCommand),
    /// Say why something happened
    #[command(subcommand)]
    Why(WhyCommand),
    /// The node's identity
    #[command(subcommand)]
    Key(KeyCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check this machine, the data directory and the configuration
    Doctor,
    /// Print a completion script
    Completions {
        /// The shell it is for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write the pages of all commands into this directory instead
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Flags of `start`.
#[derive(Debug, Default, Args)]
pub(crate) struct StartArgs {
    /// Where peers reach this node [default: port 7411, TCP and QUIC, all IPv4 interfaces]
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) listen: Vec<String>,
    /// A node of the mesh, as that node printed it when it started; ends in /p2p/ and its peer id
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) bootstrap: Vec<String>,
    /// Join the mesh of this invite; - reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "open")]
    pub(crate) invite: Option<PathBuf>,
    /// Take part in the open mesh of this name: everybody who knows the name is in
    #[arg(long, value_name = "NAME")]
    pub(crate) open: Option<String>,
    /// Where the HTTP API listens [default: 127.0.0.1:7412]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api: Option<String>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub(crate) exit_on_stdin_close: bool,
}

/// Flags of `devnet`.
#[derive(Debug, Args)]
pub(crate) struct DevnetArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=100))]
    pub(crate) nodes: u16,
    /// Stop after this many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// Stop once every node has delivered every other node's message
    #[arg(long)]
    pub(crate) exit_when_verified: bool,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait until the node is there and takes part
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Flags of `publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The channel
    pub(crate) channel: String,
    /// The payload; - reads it from standard input
    pub(crate) data: String,
}

/// Flags of `subscribe`.
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// The channel
    pub(crate) channel: String,
    /// Stop after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// What can be done with quarantines.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the keys that are shut out, for what and for how long
    List,
    /// Let somebody in again at this node; what it signed until now is pardoned
    Lift {
        /// The peer's id
        peer: String,
    },
}

/// What `why` explains.
#[derive(Debug, Subcommand)]
pub(crate) enum WhyCommand {
    /// What became of a message at this node
    Message {
        /// The message's id, as `publish` and `subscribe` show it
        id: String,
    },
    /// Why a job, or a task of it, is not done, is slow, or has failed
    Job {
        /// The job's id, or its beginning
        id: String,
        /// One of its tasks, as NAME or NAME/CHUNK
        task: Option<String>,
    },
    /// What this node knows of a peer, and what it holds against it
    Peer {
        /// The peer's id
        id: String,
    },
    /// Why this node is in its step, or what it makes of another one
    Step {
        /// The step's number [default: the current one]
        #[arg(value_name = "STEP")]
        id: Option<u64>,
    },
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an identity in the data directory
    New,
    /// Show the peer id and public key of the identity in the data directory
    Show,
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration in force, as TOML
    Show {
        /// Say for each value where it comes from
        #[arg(long)]
        origin: bool,
        /// Print secrets too
        #[arg(long)]
        secrets: bool,
    },
    /// Check a configuration file
    Check {
        /// The file
        file: PathBuf,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if !duration.is_zero() && number <= 1e9 => Ok(duration),
        _ => Err("not a number of seconds above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_in_the_docs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let pages = root.join("docs").read_dir().unwrap().map(|page| page.unwrap().path());
        let pages = pages.filter(|page| page.is_file()).chain([root.join("README.md")]);
        let text: String = pages.map(|page| std::fs::read_to_string(page).unwrap()).collect();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let said = format!("omnimesh {}", command.get_name());
            assert!(text.contains(&said), "neither README.md nor a page under docs has `{said}`");
        }
    }

    #[test]
    fn durations_are_positive_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "x", "nan", "inf", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
