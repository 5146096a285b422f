//! What came of the durable log: facts for the checkers.

use std::time::Duration;

use omnimesh_protocol::Hash;

use super::Offence;

/// Everything that was recorded of the log.
#[derive(Clone, Debug, Default)]
pub struct LogFacts {
    /// What honest nodes were asked to append, in order of time.
    pub appends: Vec<Append>,
    /// What their drivers of jobs had them append besides: who, and the entry's content as in [`Append::data`].
    pub operations: Vec<(u32, u64)>,
    /// Distinct contents of logs: nodes with the same log of an author name the same one.
    pub logs: Vec<AuthorLog>,
    /// Checkpoints that honest nodes have sealed, by step.
    pub checkpoints: Vec<SealedCheckpoint>,
    /// Distinct bases: what stands for entries that nodes do not keep.
    pub bases: Vec<Covered>,
    /// Distinct logs up to where a checkpoint or a base cuts them.
    pub cut_logs: Vec<AuthorLog>,
    /// What each honest node holds that is up at the end, by number.
    pub nodes: Vec<NodeLog>,
    /// Adversaries that have signed two records for one place and told them.
    pub forkers: Vec<u32>,
    /// Records given to peers or to projections that nobody had written so. One is too many.
    pub served_unwritten: u64,
    /// Where the first of them was.
    pub first_served_unwritten: Option<Offence>,
    /// The most bytes that a log's buffers held, in the samples: what waits for its place or to be written.
    pub buffered_max: u64,
    /// Which node held them, and when.
    pub buffered_at: Option<Offence>,
    /// For each entry that all honest nodes have on disk which are up at the end: how long that took, ascending.
    pub everywhere_us: Vec<u32>,
    /// Counters of all honest nodes, of all their lives.
    pub counts: LogCounts,
}

/// An entry that a node was asked to append.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The node.
    pub author: u32,
    /// When it was asked.
    pub at: Duration,
    /// A hash of the payload, which no other has.
    pub data: u64,
    /// What it answered; `None`: nothing, as it died before.
    pub answer: Option<Answer>,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is on disk.
    Acknowledged {
        /// Its place in the author's log.
        seq: u64,
        /// Its hash.
        hash: Hash,
        /// Other nodes that had said that they have it on disk.
        replicas: usize,
        /// When that was answered.
        at: Duration,
    },
    /// It will not be there, for this reason.
    Refused(String),
}

/// What is on disk of one author's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorLog {
    /// Whose.
    pub author: u32,
    /// Its records in order; a damaged one, and those behind it, are not among them. Of records that were dropped, and for
    /// which a base stands, those that were written and lead there.
    pub records: Vec<StoredRecord>,
}

impl AuthorLog {
    /// The place of its last entry; 0 of an empty log.
    pub fn end(&self) -> u64 {
        self.records.last().map_or(0, |last| last.first + last.entries.len() as u64 - 1)
    }

    /// Whether it has this entry, with this hash and hash of the payload.
    pub fn has(&self, seq: u64, wanted: (Hash, u64)) -> bool {
        let behind = self.records.partition_point(|record| record.first <= seq);
        let Some(record) = behind.checked_sub(1).and_then(|place| self.records.get(place)) else {
            return false;
        };
        let entry = usize::try_from(seq - record.first).ok().and_then(|index| record.entries.get(index));
        entry == Some(&wanted)
    }
}

/// A record as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The place of its first entry.
    pub first: u64,
    /// The digest of the record before it.
    pub prev: Option<Hash>,
    /// Its digest.
    pub digest: Hash,
    /// Of each entry its hash, and a hash of its payload.
    pub entries: Vec<(Hash, u64)>,
}

/// What stands for entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Places in [`LogFacts::cut_logs`], by author: what it covers.
    pub cut: Vec<u32>,
    /// A hash of the cut and the states in it.
    pub is: Hash,
    /// The same of what exactly the entries in the cut come to, folded anew.
    pub should_be: Hash,
}

/// A checkpoint that honest nodes have sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCheckpoint {
    /// Its step.
    pub step: u64,
    /// The honest node that had it on disk first.
    pub node: u32,
    /// When.
    pub at: Duration,
    /// Honest nodes that sealed it, in each of their lives.
    pub nodes: u32,
    /// Who has signed it; nobody twice, and each with a good signature.
    pub signers: Vec<u32>,
    /// What it stands for.
    pub covered: Covered,
}

/// What one node holds.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLog {
    /// The node.
    pub node: u32,
    /// Since when its process has run.
    pub up_since: Duration,
    /// Nodes with the same number are connected through honest nodes.
    pub island: u32,
    /// Places in [`LogFacts::logs`], by author.
    pub logs: Vec<u32>,
    /// Logs that are frozen, by author.
    pub frozen: Vec<Frozen>,
    /// The fingerprint of all heads that it tells to its peers.
    pub fingerprint: Hash,
    /// The hash of its registry.
    pub registry: Hash,
    /// Entries of its registry.
    pub registry_entries: usize,
    /// Damaged records that it has not noticed.
    pub unnoticed: u32,
    /// The place in [`LogFacts::bases`] of what stands for entries that it does not keep.
    pub base: Option<u32>,
    /// How many entries these are.
    pub dropped: u64,
}

/// A log that is frozen at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frozen {
    /// Whose.
    pub author: u32,
    /// The first entry that does not count any more.
    pub fork: u64,
    /// The proof.
    pub proof: Hash,
}

/// What logs counted; sums over nodes and lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Rounds of reconciliation begun.
    pub rounds: u64,
    /// Of these, rounds in which nothing differed.
    pub rounds_equal: u64,
    /// Bytes of all frames of the log.
    pub bytes: u64,
    /// Of these, bytes of frames that carry records.
    pub record_bytes: u64,
    /// Records taken from others.
    pub applied: u64,
    /// Of these, records that came by gossip.
    pub applied_gossip: u64,
    /// Bytes of the records taken from others, whichever way they came.
    pub applied_bytes: u64,
    /// Requests for records.
    pub fetches: u64,
    /// Of these, requests that were not answered, or wrongly.
    pub fetches_failed: u64,
    /// Misdeeds that nodes saw in peers.
    pub misdeeds: u64,
    /// Searches for a fork.
    pub fork_searches: u64,
    /// Writes done.
    pub writes: u64,
    /// Writes that failed.
    pub writes_failed: u64,
    /// Damaged records found.
    pub damaged: u64,
    /// Reports of having caught up.
    pub catch_ups: u64,
    /// Entries that were missed and are there again, by these reports.
    pub caught_up: u64,
    /// Checkpoints that nodes made of what they had.
    pub checkpoints_made: u64,
    /// Checkpoints that nodes took from peers, in place of entries.
    pub checkpoints_adopted: u64,
    /// Checkpoints of peers that nodes refused.
    pub checkpoints_refused: u64,
    /// Bytes of checkpoints from peers.
    pub checkpoint_bytes: u64,
    /// Missing entries that a checkpoint came to stand for.
    pub entries_covered: u64,
}

impl std::ops::AddAssign for LogCounts {
    fn add_assign(&mut self, other: LogCounts) {
        let LogCounts {
            rounds,
            rounds_equal,
            bytes,
            record_bytes,
            applied,
            applied_gossip,
            applied_bytes,
            fetches,
            fetches_failed,
            misdeeds,
            fork_searches,
            writes,
            writes_failed,
            damaged,
            catch_ups,
            caught_up,
            checkpoints_made,
            checkpoints_adopted,
            checkpoints_refused,
            checkpoint_bytes,
            entries_covered,
        } = other;
        self.rounds += rounds;
        self.rounds_equal += rounds_equal;
        self.bytes += bytes;
        self.record_bytes += record_bytes;
        self.applied += applied;
        self.applied_gossip += applied_gossip;
        self.applied_bytes += applied_bytes;
        self.fetches += fetches;
        self.fetches_failed += fetches_failed;
        self.misdeeds += misdeeds;
        self.fork_searches += fork_searches;
        self.writes += writes;
        self.writes_failed += writes_failed;
        self.damaged += damaged;
        self.catch_ups += catch_ups;
        self.caught_up += caught_up;
        self.checkpoints_made += checkpoints_made;
        self.checkpoints_adopted += checkpoints_adopted;
        self.checkpoints_refused += checkpoints_refused;
        self.checkpoint_bytes += checkpoint_bytes;
        self.entries_covered += entries_covered;
    }
}
