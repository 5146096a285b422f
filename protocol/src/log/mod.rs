//! The durable log: one append-only, hash-chained, signed log per author, the same on every node.
//!
//! ```text
//!             ┌──────── record ────────┐   ┌─ record ─┐   ┌──── record ────┐
//!  author A   │ entry 1 │ entry 2 │ 3  │◄──┤ entry 4  │◄──┤ entry 5 │ 6    │   head: 6, digest of the last record
//!             └────────────────────────┘   └──────────┘   └────────────────┘
//!                        prev = digest of the record before; one signature and one tag for each record
//!
//!  Append ─► Flush ─► seal ─► Write ──Written──► Publish ─► gossip ─► Gossiped ─┐
//!                               ▲                                               ▼
//!                               └──────── chain: next? known? waits? contradicts? ◄── Verified ◄─ Verify ◄─ Records
//!                               │                                                                             ▲
//!                            Applied, Frozen                  peers: compare heads ─► who has more? ─► Fetch ─┘
//! ```
//!
//! # Words
//! A [`Record`] is one durable envelope; an [`Entry`] is one payload of it. An author's entries are numbered from 1
//! without gaps, over all categories; a record has the number of its first entry, and names the digest of the record
//! before it. A [`Head`] says where a log ends. What two nodes with one head of an author have of it is equal.
//!
//! # How an entry gets everywhere
//! 1. *Append.* The record is sealed, and written to disk before anybody else sees it. So the record itself
//!    reserves its numbers, and no crash makes an author use a number twice. Then it is answered and gossiped.
//! 2. *Gossip* carries it to who is there. Who has the record before it writes it; others let it wait, bounded.
//! 3. *Reconciliation* repairs the rest. With a random peer in each [`Config::interval`], and with each
//!    that connects, a node compares heads ([`reconcile`]): one fingerprint if nothing is missing, else down to the authors
//!    that differ. What is missing is fetched from all that say they have it, in ranges, many at once, as much as there
//!    is room for. A peer that gives wrong answers or none is not asked for a while.
//!
//! # Equivocation
//! Two records of one author that share a number and differ are a [`Proof`] against it. The log is *frozen* at the
//! fork on every node alike, whatever order they saw things in: see [`chain`]. A frozen log never thaws.
//! Where two nodes have different branches and neither has both, the one that is behind (or both) notices that the other's
//! branch does not fit, and finds the fork by halving.
//!
//! # The own log
//! A data directory may be an old copy. So a node that may have written before asks its peers for the end of its own
//! log first ([`Config::own_head_wait`]), fetches what it lacks, and only then appends. Alone it goes on after the wait.
//!
//! # Checkpoints
//! What all entries before a step come to is signed by several nodes ([`checkpoint`]). Records that a sealed checkpoint
//! covers may be dropped, and who lacks what nobody gives any more takes the checkpoint in its place.
//!
//! # Storage
//! is outside and asynchronous: [`Output::Write`], [`Output::Read`], [`Output::Find`]. A head is told to peers, a record
//! applied and an append answered only when the write is done. There is one write at a time; what comes meanwhile is the
//! next one. After a failed write the logs are again what was written last; own entries in it are refused to those who
//! appended them (nobody else saw them), others' are fetched again.
//!
//! # Invariants ([`State::check_invariants`])
//! What is stored of an author is a chain from its base to its head. Every append gets one answer. All tables, buffers
//! and requests under way are bounded; what is shed is counted, and nothing is lost by it that peers still have.
//!
//! # Not here
//! What entries mean; sockets, disks and threads.

mod api;
pub mod chain;
pub mod checkpoint;
mod config;
pub mod gates;
mod memory;
mod proof;
pub mod reconcile;
mod record;
mod report;
mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;

pub use api::{
    AppendError, Appended, Change, Event, Input, Misdeed, Output, Start, Stats, StoreError, StoredLog, Timer,
    Token,
};
pub use config::Config;
pub use memory::{Damaged, MemoryStore};
pub use proof::{Proof, ProofError, VERSION as PROOF_VERSION, proof_bytes_max};
pub use record::{AuthorHead, CHANNEL, Entry, Head, Record};
pub use report::{Missed, REPORT_MAX, Recovered, Report};
pub use state::State;
pub use wire::{frame_bytes_max, protocol_name};
