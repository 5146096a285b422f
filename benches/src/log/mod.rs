//! The durable log: appends against bare redb, replication against a bare libp2p stream, reconciliation against
//! `negentropy`.

pub(crate) mod append;
pub(crate) mod reconcile;
pub(crate) mod replicate;
mod store;
mod stream;

pub(crate) use stream::{StreamArgs, run as stream};
