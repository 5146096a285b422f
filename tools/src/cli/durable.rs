//! The grammar of `log`, `evidence`, `registry`, `backup` and `restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What can be done with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Append an entry to the node's log; returns when it is on disk
    Append(AppendArgs),
    /// Print entries, in the order of step, author and sequence number
    Read(ReadArgs),
    /// Show where every author's log ends
    Heads,
    /// Show how the log is: entries, what is missing, disk
    Status,
    /// Show what the node missed while it was away, and who helped
    Gaps,
    /// List the proofs against authors that contradicted themselves
    Proofs {
        /// Write each proof into a file of this directory, for `omnimesh evidence verify`
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Flags of `log append`.
#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// The entry; - reads it from standard input
    pub(crate) data: String,
    /// Wait until so many other nodes have it on disk, too
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) replicas: usize,
    /// With -: append each line of standard input as an entry, and acknowledge each on a line of its own
    #[arg(long)]
    pub(crate) lines: bool,
}

/// Flags of `log read`.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Only entries of this author
    #[arg(long, value_name = "PEER")]
    pub(crate) author: Option<String>,
    /// Begin with this entry of the author
    #[arg(long, value_name = "SEQ", requires = "author", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Only entries of this category: log for what is appended, registry and job for what those commands write
    #[arg(long, value_name = "NAME")]
    pub(crate) category: Option<String>,
    /// Go on with entries as they arrive
    #[arg(long)]
    pub(crate) follow: bool,
}

/// What can be done with evidence.
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Check what a file proves: two entries or messages for one place, a false accusation, a wrong result; needs no node
    /// and no secret
    Verify {
        /// The evidence, as `omnimesh log proofs --out` or `omnimesh blob get --out` wrote it, or in hex
        file: PathBuf,
    },
}

/// What can be done with the registry.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Make or replace an entry
    Put(PutArgs),
    /// Set fields of an entry, or remove those that are null
    Update(PutArgs),
    /// Show an entry
    Get {
        /// KIND/NAME
        key: String,
    },
    /// List entries by key
    List(ListArgs),
    /// Find entries by words in their kinds, names and fields, the best first
    Search(SearchArgs),
    /// Delete an entry and its links
    Delete {
        /// KIND/NAME
        key: String,
        /// Wait until so many other nodes have it on disk, too
        #[arg(long, value_name = "N", default_value_t = 0)]
        replicas: usize,
    },
    /// Make a link from one entry to another
    Link(LinkArgs),
    /// Remove a link
    Unlink(LinkArgs),
    /// Show the links of an entry
    Links(WayArgs),
    /// Show what can be reached along links
    Walk(WalkArgs),
    /// Print changes as they happen
    Watch,
}

/// Flags of `registry put` and `registry update`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// KIND/NAME, such as model/llama
    pub(crate) key: String,
    /// FIELD=VALUE; the value is JSON, and what is no JSON is text
    #[arg(value_name = "FIELD=VALUE")]
    pub(crate) fields: Vec<String>,
    /// Show it for so many steps only
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) ttl: Option<u64>,
    /// Wait until so many other nodes have it on disk, too
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) replicas: usize,
}

/// Flags of `registry list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only entries of this kind
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only entries whose name begins with this
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// Only entries with this FIELD=VALUE, or with this FIELD
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub(crate) filters: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// Flags of `registry search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Words that an entry must all have, or have words that begin so
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// Only entries of this kind
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// Flags of `registry link` and `registry unlink`.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// KIND/NAME
    pub(crate) from: String,
    /// runs, uses, produces, deployed_on, or your own
    pub(crate) relation: String,
    /// KIND/NAME
    pub(crate) to: String,
    /// Wait until so many other nodes have it on disk, too
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) replicas: usize,
}

/// Which links.
#[derive(Debug, Args)]
pub(crate) struct WayArgs {
    /// KIND/NAME
    pub(crate) key: String,
    /// Only along this relation; may be given several times
    #[arg(long = "relation", value_name = "RELATION")]
    pub(crate) relations: Vec<String>,
    /// Which way along links
    #[arg(long, value_enum, default_value_t)]
    pub(crate) direction: Way,
}

/// Flags of `registry walk`.
#[derive(Debug, Args)]
pub(crate) struct WalkArgs {
    #[command(flatten)]
    pub(crate) way: WayArgs,
    /// At most so many links away
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) depth: Option<u64>,
    /// At most so many entries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// Which way along links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// To what the entry links to
    #[default]
    Out,
    /// To what links to the entry
    In,
    /// Both
    Both,
}

impl Way {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Way::Out => "out",
            Way::In => "in",
            Way::Both => "both",
        }
    }
}

/// Flags of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write, or a directory to write it into; what is there already stays
    pub(crate) to: PathBuf,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The file that `omnimesh backup` wrote
    pub(crate) file: PathBuf,
}
