//! The grammar of `blob`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What can be done with blobs.
#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Keep a file's content on the node; prints its hash, by which any node of the mesh gets it
    Put {
        /// The file; - reads standard input
        file: PathBuf,
        /// Let it go when there is need of room
        #[arg(long)]
        no_pin: bool,
    },
    /// Write the content with this hash, from other nodes if it is not here
    Get(GetArgs),
    /// List what is here of blobs
    List,
    /// Keep a blob that is here until it is unpinned
    Pin {
        /// Its hash
        hash: String,
    },
    /// Let a blob go when there is need of room
    Unpin {
        /// Its hash
        hash: String,
    },
    /// Delete a blob here, pinned or not
    Remove {
        /// Its hash
        hash: String,
    },
}

/// Flags of `blob get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The hash, as `blob put` printed it
    pub(crate) hash: String,
    /// Write it to this file, which must not be there [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
