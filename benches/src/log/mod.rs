//! The durable log: appends against bare redb, replication against a bare libp2p stream, reconciliation against
//! `negentropy`.

pub(crate) mod append;
pub(crate) mod reconcile;
pub(crate) mod replicate;
mod store;
pub(crate) mod stream;

/// What of the log is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub(crate) append: append::AppendArgs,
    #[command(flatten)]
    pub(crate) replicate: replicate::ReplicateArgs,
    #[command(flatten)]
    pub(crate) reconcile: reconcile::ReconcileArgs,
}

pub(crate) use stream::StreamArgs;
