//! Equivocation of ephemeral messages: an author uses a number once in the life of its key, so two messages of it that
//! share a number and differ are a proof.
//!
//! Accepted messages are kept for a while, as bytes. A message that is refused because its number was used before is
//! held against the kept one: if the signed bytes differ and its signature is good, the pair is evidence. (Durable
//! messages have their chains: [`crate::log::Proof`].)
//!
//! **Bounds.** So many messages and bytes, of which one author has an eighth: the oldest go first, and who writes much
//! pushes out its own. A pair of which the first is forgotten goes unproved at this node.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::envelope::{Envelope, Kind, PAYLOADS_MAX};
use crate::id::{NodeId, Seq};

/// The part of the memory that one author may fill.
const AUTHORS_PART: usize = 8;
/// What a kept message costs beside its bytes: a place in the tree, one in the queue, and what both have in reserve.
const ENTRY_BYTES: usize = 256;

/// Bounds of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes in all, with what keeping them costs. Default 16 MiB (guess: a minute of 200 messages a second of 1 KiB).
    /// Too low, and the second message of a pair comes when the first is forgotten.
    pub bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { bytes_max: 16 << 20 }
    }
}

#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    last: Seq,
    serial: u64,
}

/// Messages that were accepted.
#[derive(Debug, Default)]
pub struct Memory {
    config: Config,
    kept: BTreeMap<(NodeId, Seq), Kept>,
    /// In the order in which they came; what is no longer kept is passed over.
    order: VecDeque<(NodeId, Seq, u64)>,
    bytes_of: BTreeMap<NodeId, usize>,
    bytes: usize,
    serial: u64,
}

impl Memory {
    /// Nothing is kept.
    pub fn new(config: Config) -> Self {
        Memory { config, ..Memory::default() }
    }

    /// Keeps an accepted message. The bytes are copied: those of a message are a part of a larger buffer.
    pub fn keep(&mut self, envelope: &Envelope) {
        let header = envelope.header();
        let cost = envelope.as_bytes().len() + ENTRY_BYTES;
        if header.kind != Kind::Ephemeral || cost > self.config.bytes_max / AUTHORS_PART {
            return;
        }
        self.make_room(&header.author, cost);
        self.serial += 1;
        let key = (header.author, header.seq);
        let last = last_of(envelope);
        let kept = Kept { bytes: envelope.as_bytes().as_ref().into(), last, serial: self.serial };
        if let Some(before) = self.kept.insert(key, kept) {
            self.pay_back(&header.author, before.bytes.len() + ENTRY_BYTES);
        }
        self.order.push_back((header.author, header.seq, self.serial));
        *self.bytes_of.entry(header.author).or_default() += cost;
        self.bytes += cost;
    }

    /// A kept message that contradicts this one: it shares a number and says something else. Whether this one is
    /// signed is not looked at.
    pub fn contradicts(&self, other: &Envelope) -> Option<Envelope> {
        let header = other.header();
        let (first, last) = (header.seq, last_of(other));
        let from = (header.author, first.saturating_sub(PAYLOADS_MAX as u64));
        let near = self.kept.range(from..=(header.author, last)).rev();
        let overlapping = near.filter(|(_, kept)| kept.last >= first);
        let digest = other.digest();
        overlapping
            .filter_map(|(_, kept)| {
                let bytes = Bytes::copy_from_slice(&kept.bytes);
                Envelope::decode(&bytes, bytes.len()).ok()
            })
            .find(|kept| kept.digest() != digest)
    }

    /// Forgets an author: it is convicted.
    pub fn forget(&mut self, author: &NodeId) {
        while let Some(seq) = self.oldest_of(author) {
            self.remove(author, seq);
        }
    }

    /// Bytes kept, with what keeping them costs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn make_room(&mut self, author: &NodeId, cost: usize) {
        while self.bytes_of.get(author).is_some_and(|of| of + cost > self.config.bytes_max / AUTHORS_PART) {
            let Some(seq) = self.oldest_of(author) else { break };
            self.remove(author, seq);
        }
        while self.bytes + cost > self.config.bytes_max {
            let Some((author, seq, serial)) = self.order.pop_front() else { break };
            if self.kept.get(&(author, seq)).is_some_and(|kept| kept.serial == serial) {
                self.remove(&author, seq);
            }
        }
        // The queue holds no more of what is gone than of what is there.
        if self.order.len() > 2 * self.kept.len() + 64 {
            let kept = &self.kept;
            self.order.retain(|(author, seq, serial)| {
                kept.get(&(*author, *seq)).is_some_and(|kept| kept.serial == *serial)
            });
        }
    }

    fn oldest_of(&self, author: &NodeId) -> Option<Seq> {
        self.kept.range((*author, Seq(0))..=(*author, Seq(u64::MAX))).next().map(|((_, seq), _)| *seq)
    }

    fn remove(&mut self, author: &NodeId, seq: Seq) {
        if let Some(kept) = self.kept.remove(&(*author, seq)) {
            self.pay_back(author, kept.bytes.len() + ENTRY_BYTES);
        }
    }

    fn pay_back(&mut self, author: &NodeId, cost: usize) {
        self.bytes -= cost;
        if let Some(of) = self.bytes_of.get_mut(author) {
            *of -= cost;
            if *of == 0 {
                self.bytes_of.remove(author);
            }
        }
    }
}

fn last_of(envelope: &Envelope) -> Seq {
    envelope.header().seq.saturating_add(envelope.payloads().len().saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Author;
    use super::*;

    #[test]
    fn a_second_message_with_a_used_number_is_found_and_the_same_again_is_not() {
        let (mut memory, mut author) = (Memory::new(Config::default()), Author::new(1));
        let bundle = author.message(10, 5, 1_000, b"one");
        memory.keep(&bundle);
        memory.keep(&author.message(15, 1, 1_000, b"next"));
        assert!(memory.contradicts(&bundle).is_none());
        for (seq, count) in [(10, 1), (14, 1), (8, 3), (1, 256), (10, 5)] {
            let other = author.message(seq, count, 1_001, b"two");
            let found = memory.contradicts(&other).unwrap();
            assert_eq!(found.header().author, author.id());
        }
        assert!(memory.contradicts(&author.message(16, 3, 1_001, b"two")).is_none());
        assert!(memory.contradicts(&author.message(5, 5, 1_001, b"two")).is_none());
        assert!(memory.contradicts(&Author::new(2).message(10, 1, 1_001, b"two")).is_none());
        memory.forget(&author.id());
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn memory_is_bounded_and_one_author_pushes_out_its_own() {
        let bytes_max = 64 << 10;
        let mut memory = Memory::new(Config { bytes_max });
        let (mut quiet, mut loud) = (Author::new(1), Author::new(2));
        let early = quiet.message(1, 1, 1_000, b"early");
        memory.keep(&early);
        for seq in 1..2_000 {
            memory.keep(&loud.message(seq, 1, 1_000, &[7; 100]));
            assert!(memory.bytes() <= bytes_max / AUTHORS_PART + 1_000);
        }
        assert!(memory.order.len() <= 2 * memory.kept.len() + 65);
        assert!(memory.contradicts(&quiet.message(1, 1, 1_001, b"late")).is_some());
        for author in 3..=200 {
            memory.keep(&Author::new(author).message(1, 1, 1_000, &[7; 400]));
            assert!(memory.bytes() <= bytes_max);
        }
        assert!(memory.contradicts(&quiet.message(1, 1, 1_001, b"late")).is_none());
    }
}
