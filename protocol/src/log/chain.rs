//! The state of one author's log: what comes next, what waits, what contradicts.
//!
//! ```text
//!  first ≤ head          : its place is taken: the same record, or a contradiction     (Offered::Taken, then compare)
//!  first = head + 1      : fits ─► applied, with those waiting behind it
//!                          does not fit ─► waits as a stray: there is another branch, or the author broke the rules
//!  first > head + 1      : waits
//!  overlaps one that waits, or improves the proof: a contradiction                      (Offered::Conflict, then freeze)
//! ```
//!
//! # The rules of a chain
//! A record fits behind another if its first sequence number is the next, it names the other's digest, and its
//! step is not lower. Every node refuses alike what does not fit.
//!
//! # Freezing
//! At a contradiction the log is cut at the fork of the least proof known, see [`Proof`]; what is at the fork or behind
//! is dropped, what comes before still is taken in.
//!
//! *The order of arrival does not matter.* Let R be the records of one author that a node has seen, f the lowest fork in R.
//! The least proof of R consists of the record x that begins at f and has the lowest digest, and of the least (by
//! beginning, then digest) y that overlaps it. A node keeps its chain below its fork, waiting records
//! below it, and the two records of its proof, and drops others. Could it have dropped x or y? It drops a record only
//! for a proof with a fork g at or before its beginning, g ≥ f. If g = f, then x, or a record that begins there with a lower
//! digest, is in that proof by its order, and so is y. If g > f, then x begins before g and is not dropped; and if
//! it overlaps a dropped y, it covers g and so overlaps the record of that proof that begins at g, which is less than y.
//! So the least proof of all is found from what is kept, and taking the least of two nodes' proofs and chains gives what one
//! node would have that had seen both their records. (What a full buffer sheds is as if it had not been seen.)
//!
//! # Below a checkpoint
//! What a sealed checkpoint covers is final, for its records may be gone: a fork at or before the cut freezes the log
//! right behind the cut ([`Chain::seal`]), on every node that has the checkpoint.
//!
//! # Not here
//! Signatures (records offered have passed all gates), disks, peers.

use std::collections::BTreeMap;

use crate::id::{Hash, Seq, Step};

use super::checkpoint::CutHead;
use super::{Head, Proof, Record};

/// How much may wait that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Records.
    pub records: usize,
    /// Bytes of them.
    pub bytes: usize,
}

/// One author's log, without its records.
#[derive(Clone, Debug)]
pub struct Chain {
    head: Head,
    step: Step,
    frozen: Option<Proof>,
    /// Where a sealed checkpoint cuts it.
    sealed: CutHead,
    waiting: BTreeMap<(Seq, Hash), Waiting>,
    /// Records and bytes that wait and were not asked for.
    unasked: Room,
    waiting_bytes: usize,
}

#[derive(Clone, Debug)]
struct Waiting {
    record: Record,
    is_asked: bool,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// These are the next in the log, in order: the record, and what waited for it.
    Applied(Vec<Record>),
    /// It was here already.
    Known,
    /// It waits for what comes before it.
    Waits,
    /// It is next by its number and does not fit: its predecessor is another one than ours.
    Stray,
    /// Its place in the log is taken. Whether by itself shows [`Chain::compare`] with the record that covers its first
    /// sequence number.
    Taken,
    /// It contradicts another record: the log is to be frozen, see [`Chain::freeze`].
    Conflict(Proof),
    /// It lies at or behind the fork of a frozen log.
    BeyondFork,
    /// There is no room for it to wait.
    Shed,
}

impl Chain {
    /// The log that ends at `head`, whose last record has this step.
    pub fn new(head: Head, step: Step, frozen: Option<Proof>) -> Self {
        Chain {
            head,
            step,
            frozen,
            sealed: CutHead { head: Head::EMPTY, step: Step(0) },
            waiting: BTreeMap::new(),
            unasked: Room { records: 0, bytes: 0 },
            waiting_bytes: 0,
        }
    }

    /// Where it ends.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The step of its last record.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The sequence number that the next record has.
    pub fn next(&self) -> Seq {
        self.head.seq.saturating_add(1)
    }

    /// The proof that froze it.
    pub fn proof(&self) -> Option<&Proof> {
        self.frozen.as_ref()
    }

    /// The last sequence number that the log can have.
    pub fn limit(&self) -> Seq {
        let before = |proof: &Proof| proof.fork().saturating_sub(1).max(self.sealed.head.seq);
        self.frozen.as_ref().map_or(Seq(u64::MAX - 1), before)
    }

    /// A sealed checkpoint cuts the log here: no fork takes back what it covers.
    pub fn seal(&mut self, cut: CutHead) {
        if cut.head.seq > self.sealed.head.seq {
            self.sealed = cut;
        }
    }

    /// Where a sealed checkpoint cuts it.
    pub fn sealed(&self) -> CutHead {
        self.sealed
    }

    /// Takes in a record of this author. `is_asked` says that this node asked for it, so that there is room.
    pub fn offer(&mut self, record: Record, is_asked: bool, room: Room) -> Offered {
        if let Some(proof) = self.improves_proof(&record) {
            return Offered::Conflict(proof);
        }
        if record.last() > self.limit() {
            return Offered::BeyondFork;
        }
        if record.first() <= self.head.seq {
            return Offered::Taken;
        }
        if self.waiting.contains_key(&(record.first(), record.digest())) {
            return Offered::Known;
        }
        if let Some(proof) = self.contradiction_in_waiting(&record) {
            return Offered::Conflict(proof);
        }
        if self.fits(&record) {
            let mut applied = vec![self.advance(record)];
            applied.extend(self.take_next());
            return Offered::Applied(applied);
        }
        let is_next = record.first() == self.next();
        match self.wait(record, is_asked, room) {
            false => Offered::Shed,
            true if is_next => Offered::Stray,
            true => Offered::Waits,
        }
    }

    /// What a record is whose place is taken by `own`; without `own`, that has been truncated, nobody can tell.
    pub fn compare(record: &Record, own: Option<&Record>) -> Offered {
        match own.and_then(|own| Proof::new(record, own)) {
            Some(proof) => Offered::Conflict(proof),
            None => Offered::Known,
        }
    }

    /// Freezes the log at the least proof that follows from `proof` and what is known. If the log reaches the fork of
    /// `proof`, `own` is its record that covers it (`None` only if that was truncated). True if that changed
    /// anything; then the log, the waiting records and [`Chain::proof`] are new.
    pub fn freeze(&mut self, proof: &Proof, own: Option<&Record>) -> bool {
        let least = {
            let mut known: Vec<&Record> = proof.records().into_iter().chain(own).collect();
            known.extend(self.frozen.iter().flat_map(|frozen| frozen.records()));
            let waiting = self.waiting.values().map(|waiting| &waiting.record);
            let relevant: Vec<&Record> =
                waiting.filter(|record| known.iter().any(|known| known.overlaps(record))).collect();
            known.extend(relevant);
            Proof::least(&known).unwrap_or_else(|| proof.clone())
        };
        if self.frozen.as_ref().is_some_and(|frozen| !least.is_less_than(frozen)) {
            return false;
        }
        let fork = least.fork();
        if fork <= self.sealed.head.seq {
            if self.head.seq > self.sealed.head.seq {
                (self.head, self.step) = (self.sealed.head, self.sealed.step);
            }
        } else if self.head.seq >= fork {
            let prev = own.map_or(least.records()[0].prev(), Record::prev);
            let seq = own.map_or(fork, Record::first).saturating_sub(1);
            self.head = prev.map_or(Head::EMPTY, |digest| Head { seq, digest });
        }
        self.frozen = Some(least);
        let behind = (self.limit().saturating_add(1), Hash::from_bytes([0; 32]));
        let dropped: Vec<_> = self.waiting.range(behind..).map(|(key, _)| *key).collect();
        for key in dropped {
            self.remove_waiting(&key);
        }
        true
    }

    /// The log ends here after all, because what was behind was not written, or is damaged.
    pub fn reset(&mut self, head: Head, step: Step) {
        (self.head, self.step) = (head, step);
        let overtaken: Vec<_> =
            self.waiting.keys().filter(|(first, _)| *first <= head.seq).copied().collect();
        for key in overtaken {
            self.remove_waiting(&key);
        }
    }

    /// After [`Chain::reset`]: the waiting records that come next, taken into the log.
    pub fn take_next(&mut self) -> Vec<Record> {
        let mut taken = Vec::new();
        while let Some(key) = self.next_waiting().filter(|(_, record)| self.fits(record)).map(|(key, _)| key)
        {
            let Some(waiting) = self.remove_waiting(&key) else { break };
            taken.push(self.advance(waiting.record));
        }
        taken
    }

    /// True if a record waits that is next by its number and does not fit.
    pub fn has_stray(&self) -> bool {
        self.next_waiting().is_some()
    }

    /// The first run of sequence numbers after `from` that neither the log nor a waiting record has: its beginning, and
    /// its end if a record waits behind it. A stray does not count.
    pub fn gap_from(&self, from: Seq) -> (Seq, Option<Seq>) {
        let next = self.next();
        let mut from = from.max(next);
        // Those that wait do not overlap: of those that begin at `from` or before only the nearest can cover it.
        let nearest = self.waiting.range(..=(from, Hash::from_bytes([0xff; 32]))).next_back();
        let begin = nearest.map_or((from, Hash::from_bytes([0; 32])), |(key, _)| *key);
        for ((first, _), waiting) in self.waiting.range(begin..).filter(|((first, _), _)| *first != next) {
            if *first > from {
                return (from, Some(first.saturating_sub(1)));
            }
            from = from.max(waiting.record.last().saturating_add(1));
        }
        (from, None)
    }

    /// Forgets waiting records that were not asked for until there is at most so much of them; those furthest from the
    /// head go first. Says how many.
    pub fn shed(&mut self, room: Room) -> usize {
        let mut shed = 0;
        while self.unasked.records > room.records || self.unasked.bytes > room.bytes {
            let last = self.waiting.iter().rev().find(|(_, waiting)| !waiting.is_asked).map(|(key, _)| *key);
            let Some(key) = last else { break };
            self.remove_waiting(&key);
            shed += 1;
        }
        shed
    }

    /// How many records wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The last sequence number of those that wait.
    pub fn waiting_to(&self) -> Option<Seq> {
        self.waiting.last_key_value().map(|(_, waiting)| waiting.record.last())
    }

    /// Bytes of records that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of records that wait and were not asked for.
    pub fn unasked_bytes(&self) -> usize {
        self.unasked.bytes
    }

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {
        let mut free = Seq(0);
        let (mut bytes, mut unasked) = (0, Room { records: 0, bytes: 0 });
        for ((first, digest), waiting) in &self.waiting {
            let record = &waiting.record;
            assert_eq!((*first, *digest), (record.first(), record.digest()));
            assert!(*first >= free, "waiting records do not contradict each other");
            assert!(*first > self.head.seq, "what is in the log does not wait");
            assert!(record.last() <= self.limit(), "nothing waits behind a fork");
            free = record.last().saturating_add(1);
            bytes += record.as_bytes().len();
            if !waiting.is_asked {
                unasked.records += 1;
                unasked.bytes += record.as_bytes().len();
            }
        }
        assert_eq!((bytes, unasked), (self.waiting_bytes, self.unasked));
        assert!(self.head.seq <= self.limit(), "a frozen log ends before its fork");
        assert!(self.next_waiting().is_none_or(|(_, record)| !self.fits(record)), "nothing waits that fits");
    }

    fn fits(&self, record: &Record) -> bool {
        record.first() == self.next() && record.prev() == self.head.as_prev() && record.step() >= self.step
    }

    fn advance(&mut self, record: Record) -> Record {
        (self.head, self.step) = (record.head(), record.step());
        record
    }

    fn improves_proof(&self, record: &Record) -> Option<Proof> {
        let frozen = self.frozen.as_ref()?;
        let [first, second] = frozen.records();
        let proof = Proof::least(&[first, second, record])?;
        proof.is_less_than(frozen).then_some(proof)
    }

    fn contradiction_in_waiting(&self, record: &Record) -> Option<Proof> {
        // Those that wait do not overlap, so of those before the record only the nearest can reach it.
        let key = (record.first(), Hash::from_bytes([0; 32]));
        let before = self.waiting.range(..key).next_back();
        let within = self.waiting.range(key..).take_while(|((first, _), _)| *first <= record.last());
        let others = before.into_iter().chain(within).map(|(_, waiting)| &waiting.record);
        Proof::least(&others.chain([record]).collect::<Vec<_>>())
    }

    fn next_waiting(&self) -> Option<((Seq, Hash), &Record)> {
        let next = self.next();
        let (key, waiting) = self.waiting.range((next, Hash::from_bytes([0; 32]))..).next()?;
        (key.0 == next).then_some((*key, &waiting.record))
    }

    /// False if there is no room, also not in place of what lies further from the head.
    fn wait(&mut self, record: Record, is_asked: bool, room: Room) -> bool {
        let key = (record.first(), record.digest());
        let bytes = record.as_bytes().len();
        self.waiting_bytes += bytes;
        if !is_asked {
            self.unasked.records += 1;
            self.unasked.bytes += bytes;
        }
        self.waiting.insert(key, Waiting { record, is_asked });
        self.shed(room);
        self.waiting.contains_key(&key)
    }

    fn remove_waiting(&mut self, key: &(Seq, Hash)) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        let bytes = waiting.record.as_bytes().len();
        self.waiting_bytes -= bytes;
        if !waiting.is_asked {
            self.unasked.records -= 1;
            self.unasked.bytes -= bytes;
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests;
