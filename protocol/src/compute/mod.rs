//! Compute: jobs as graphs of tasks on the mesh, verified, without a node that schedules.
//!
//! ```text
//!   job file ─► job::read ─► JobSpec ─► entry `submit` ─┐                 ┌─► ledger of every other node
//!                                                       ▼                 │
//!                                            the durable log ─────────────┤
//!                                                       ▲                 ▼
//!               commits, leases ────────────────────────┴───── driver ◄─ ledger     (who holds the lease)
//!                                                               │  ▲
//!                                                        Assign ▼  │ Results, Failed, Offer
//!                                                              worker ─► operation ─► blob
//! ```
//!
//! | module | decides |
//! |---|---|
//! | [`job`] | what a job is, and whether it makes sense |
//! | [`ledger`] | what has become of it: a fold over the log, the same everywhere |
//! | [`placement`] | which worker gets a task |
//! | [`driver`] | when a task is done, by how many, and whose result counts |
//! | [`worker`] | which attempts run here |
//! | [`statement`] | what a worker has signed, and what that proves |
//! | [`blob`] | from whom content is fetched, and whether it is what was asked for |
//! | [`wire`] | what drivers and workers say to each other |
//!
//! # Invariants
//! * A task's result is committed once: nodes with the same entries of the log name the same result.
//! * No wrong result counts while more than half of those asked for it are honest and the operation is deterministic.
//! * Every job ends, at its deadline at the latest, while a node that knows it is alive.
//!
//! # Not here
//! Operations and programs, files, streams, disks: the node's.

pub mod blob;
pub mod driver;
mod id;
pub mod job;
pub mod ledger;
pub mod placement;
pub mod statement;
pub mod wire;
pub mod worker;

pub use id::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
