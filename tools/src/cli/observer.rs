//! Flags of what watches: `anomalies`, `alerts`, `monitor`, `audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// Flags of `anomalies`.
#[derive(Debug, Default, Args)]
pub(crate) struct AnomaliesArgs {
    /// Only of this kind, such as equivocation
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only against this peer
    #[arg(long, value_name = "PEER")]
    pub(crate) accused: Option<String>,
    /// Only what was seen in this step or later
    #[arg(long, value_name = "STEP")]
    pub(crate) since: Option<u64>,
    /// Only as bad as this, or worse
    #[arg(long, value_name = "SEVERITY", value_parser = ["info", "warning", "critical"])]
    pub(crate) severity: Option<String>,
}

/// What can be done with alerts.
#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// List those that are not over
    List {
        /// Those too that are over
        #[arg(long)]
        all: bool,
    },
    /// Take care of one: others see who does, and the audit log keeps it
    Ack {
        /// Its number, as `alerts list` shows it
        id: u64,
        /// Who takes care [default: the name of the user]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// Flags of `monitor`.
#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    /// Time between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = super::seconds)]
    pub(crate) interval: Duration,
    /// Stop after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the entries, oldest first
    Show {
        #[command(flatten)]
        file: AuditFile,
        /// Only of this kind, such as quarantine
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
    },
    /// Check that nothing was changed; names the first entry that was, and its place
    Verify {
        #[command(flatten)]
        file: AuditFile,
    },
}

/// Which audit log.
#[derive(Debug, Args)]
pub(crate) struct AuditFile {
    /// The file [default: the one of the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The node that wrote it [default: the one of the data directory]
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
}
