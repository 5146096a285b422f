//! Projections: state that is a fold over the durable log.
//!
//! ```text
//!   author A  1 ── 2 ── 3 ── 4          each author's entries, in order;
//!   author B  1 ── 2                    the authors among each other in any order
//!        │
//!        └─► Projection::apply ─► the same state and the same hash on every node
//! ```
//!
//! Logs arrive in different orders at different nodes, and after an outage entries of last week arrive after those
//! of today. So a projection must not depend on the order: `apply` is commutative, associative and idempotent, and
//! where two entries conflict, a total order of all entries decides ([`Stamp`]: step, author, sequence number).
//!
//! # When a log is cut
//! An author that signed two entries for one sequence number has its log frozen before the fork, on every node
//! alike; what a node had applied from there on has to be taken back. [`Projection::cut`] does that, and answers
//! whether more is needed: with [`Replay::Needed`] the projection has dropped whatever the lost entries had touched,
//! and the caller gives it the *base* (below) and every entry that the logs still hold once more. As `apply` is
//! idempotent, what was not touched does not change meanwhile.
//!
//! # Snapshots
//! A state is a snapshot of the entries that it has seen; states of the same entries are the same bytes. Checkpoints of the
//! log are made of that ([`crate::log::checkpoint`]): they take no floor, so that no entry comes too late.
//!
//! # The floor
//! Who knows that nothing old will arrive any more can have a state compacted. A *floor* is a step below which all logs are final: no entry with a lower step will be taken any more, and no
//! fork point below it will be honoured. Who sets it (retention) must make it the same on all nodes. The base of a
//! floor is the fold of exactly the entries below it, as a snapshot; a node then needs only the base and the entries
//! at and above the floor. Snapshots have one encoding, so that nodes with the same entries below a floor make the
//! same bytes, and can compare and sign their hash.
//!
//! # Not here
//! Whether an entry is genuine: the log has checked it before.

use std::collections::BTreeMap;

use crate::id::{Hash, NodeId, Seq, Step};
use crate::log::{Entry, Record};
use crate::machine::Outbox;

/// The total order of all entries of all logs: by step, then author, then sequence number.
///
/// It extends each author's own order, as the steps of a log never decrease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The mesh's step when it was written.
    pub step: Step,
    /// Who wrote it; compared as bytes.
    pub author: NodeId,
    /// Its place in the author's log.
    pub seq: Seq,
}

/// One entry of a log: one payload of a durable envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Who wrote it.
    pub author: NodeId,
    /// Its place in the author's log, from 1.
    pub seq: Seq,
    /// The mesh's step when it was written.
    pub step: Step,
    /// The hash by which the author's next entry names it.
    pub hash: Hash,
    /// The channel of its envelope: which projection it is for.
    pub category: &'a str,
    /// What it says.
    pub payload: &'a [u8],
}

impl EntryRef<'_> {
    /// Its place in the total order.
    pub const fn stamp(&self) -> Stamp {
        Stamp { step: self.step, author: self.author, seq: self.seq }
    }
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(entry: &'a Entry) -> Self {
        EntryRef {
            author: entry.author,
            seq: entry.seq,
            step: entry.step,
            hash: entry.hash,
            category: entry.category.as_str(),
            payload: &entry.data,
        }
    }
}

/// The last entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Its place in the author's log.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
}

/// What a projection did with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Took it in; whether that changed anything, the changes say.
    Applied,
    /// It is of another category; only the head was noted.
    OtherCategory,
    /// It is older than the floor: the state contains it already, or it came too late for ever.
    BelowFloor,
    /// The author's log was cut before it.
    CutOff,
    /// It cannot be read; every node refuses it for this reason (a stable code), and only the head was noted.
    Refused(&'static str),
}

/// Whether entries must be applied once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a projection that needs a replay is incomplete until it gets it"]
pub enum Replay {
    /// No.
    NotNeeded,
    /// Merge the base, if there is one, and apply every entry of every log, in any order.
    Needed,
}

/// What a projection has seen of the logs, and what it takes of them: its heads, its cuts and its floor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    /// The last entry that was seen of each author.
    pub(crate) heads: BTreeMap<NodeId, Head>,
    /// Where logs end for ever.
    pub(crate) cuts: BTreeMap<NodeId, Option<Head>>,
    /// All entries below this step are contained or void.
    pub(crate) floor: Step,
}

impl Frontier {
    /// Notes an entry, if it is one to take. Whether its author's head is another one now.
    ///
    /// # Errors
    /// [`Outcome::CutOff`] or [`Outcome::BelowFloor`].
    pub(crate) fn admit(&mut self, entry: &EntryRef<'_>) -> Result<bool, Outcome> {
        if self.cuts.get(&entry.author).is_some_and(|end| entry.seq >= first_after(end.as_ref())) {
            return Err(Outcome::CutOff);
        }
        if entry.step < self.floor {
            return Err(Outcome::BelowFloor);
        }
        let head = Head { seq: entry.seq, hash: entry.hash };
        let is_new = self.heads.get(&entry.author).is_none_or(|known| *known < head);
        if is_new {
            self.heads.insert(entry.author, head);
        }
        Ok(is_new)
    }

    /// The author's log ends here for ever. If that takes back something that was seen: from which place on.
    pub(crate) fn cut(&mut self, author: NodeId, end: Option<Head>) -> Option<Seq> {
        let from = first_after(end.as_ref());
        if self.cuts.get(&author).is_some_and(|known| first_after(known.as_ref()) <= from) {
            return None;
        }
        self.cuts.insert(author, end);
        if self.heads.get(&author).is_none_or(|head| head.seq < from) {
            return None;
        }
        match end {
            Some(head) => self.heads.insert(author, head),
            None => self.heads.remove(&author),
        };
        Some(from)
    }
}

/// The first sequence number after the end of a log.
fn first_after(end: Option<&Head>) -> Seq {
    end.map_or(Seq(1), |head| head.seq.saturating_add(1))
}

/// The bytes are not a snapshot of this projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes were damaged, or are something else.
    #[error("the snapshot does not match its checksum; fetch or make it anew")]
    Checksum,
    /// It was written by a newer version.
    #[error("the snapshot has format version {0}, which this version does not know; upgrade")]
    UnknownVersion(u64),
    /// Its checksum is right and its content is not.
    #[error("the snapshot is not one that this projection writes: {0}")]
    Malformed(&'static str),
}

/// State that is a fold over the durable log.
pub trait Projection {
    /// What observers are told.
    type Change;

    /// Takes in an entry, in any order and any number of times, and says what that changed.
    fn apply(&mut self, entry: &EntryRef<'_>, out: &mut Outbox<Self::Change>) -> Outcome;

    /// Takes in all entries of a record. What came of each is in the changes, and nowhere else.
    fn apply_record(&mut self, record: &Record, out: &mut Outbox<Self::Change>) {
        for entry in record.to_entries() {
            let _ = self.apply(&EntryRef::from(&entry), out);
        }
    }

    /// The author's log ends with `end` (or has no entry at all), for ever: takes back what came after.
    /// A cut that is not below the present one does nothing.
    fn cut(&mut self, author: NodeId, end: Option<Head>, out: &mut Outbox<Self::Change>) -> Replay;

    /// Equal on nodes that hold the same entries. Not changed by dropping what nobody can see any more.
    fn hash(&self) -> Hash;

    /// Which entries it has seen of each author: all up to the head.
    fn heads(&self) -> &BTreeMap<NodeId, Head>;

    /// The whole state, in one encoding.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the state by that of a snapshot. Takes memory in proportion to the bytes, which the caller bounds.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`Projection::snapshot`] writes; nothing is changed then.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_step_author_seq() {
        let stamp = |step, author, seq| Stamp {
            step: Step(step),
            author: NodeId::from_bytes([author; 32]),
            seq: Seq(seq),
        };
        let sorted = [stamp(1, 9, 9), stamp(2, 1, 7), stamp(2, 1, 8), stamp(2, 2, 1), stamp(3, 0, 0)];
        assert!(sorted.is_sorted_by(|a, b| a < b));
    }
}
