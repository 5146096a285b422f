//! What was missed, and who helped.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{NodeId, Seq};

/// Authors and peers that a report names, at most, each; the rest is in the sums. Source: guess.
pub const REPORT_MAX: usize = 1024;

/// The account of one catch-up: from the first entry found missing to the moment when nothing more was to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How long it took.
    pub took: Duration,
    /// Entries that were missing and are here now.
    pub entries: u64,
    /// Entries that were missing and that a checkpoint stands for now.
    pub covered: u64,
    /// Of [`Self::entries`], those that came by gossip meanwhile and were not fetched.
    pub entries_gossip: u64,
    /// Bytes of frames that this node sent to peers meanwhile to compare and to ask.
    pub bytes_sent: u64,
    /// Bytes of frames received meanwhile in answer.
    pub bytes_received: u64,
    /// Of these, bytes of records.
    pub record_bytes: u64,
    /// Questions asked that were answered: rounds of comparison and requests.
    pub round_trips: u64,
    /// Entries missed, for each author; at most [`REPORT_MAX`] of them.
    pub authors: BTreeMap<NodeId, Missed>,
    /// Who gave what; at most [`REPORT_MAX`] of them.
    pub sources: BTreeMap<NodeId, Recovered>,
}

/// What was missed of one author.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// The first entry that was missing.
    pub from: Seq,
    /// The last one that was known to be missing.
    pub to: Seq,
    /// How many of them are here now.
    pub recovered: u64,
    /// How many a checkpoint stands for.
    pub covered: u64,
    /// How many nobody here has, or gives.
    pub nobody_has: u64,
}

/// What one peer gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries.
    pub entries: u64,
    /// Bytes of records.
    pub bytes: u64,
}
