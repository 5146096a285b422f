//! What the router remembers of messages: which it has seen, and those of the last heartbeats in full.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use rand_core::Rng;
use smallvec::SmallVec;

use super::peers::Link;
use super::topics::TopicIx;
use crate::{MessageId, Time};

/// Topics under which one content is held at a time. Above it a copy under yet another topic is shed. (guess)
const TOPICS_PER_ID_MAX: usize = 4;

/// What a message that is held takes beside its bytes: the entry, its place in the table and in the history. Without it a
/// flood of short messages would hold several times what the cache may. (measured: sizes of the types)
pub(super) const ENTRY_BYTES: usize = 256;

/// Senders of one message that are remembered while it waits for its verdict and for a while after. Those
/// beyond may get a copy back, and are neither praised nor blamed for it. (guess: above any mesh degree in
/// use)
pub(super) const SENDERS_MAX: usize = 64;

/// Multiplies to 128 bits and folds the halves: a fast mixer, safe only under a secret seed.
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is wanted")]
    let (low, high) = (wide as u64, (wide >> 64) as u64);
    low ^ high
}

/// The secret under which ids become short keys, so that nobody outside can make two of them collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    a: u64,
    b: u64,
}

impl Keys {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        Keys { a: rng.next_u64(), b: rng.next_u64() }
    }

    /// The key of a topic, which makes the same content in two topics two messages.
    pub(super) fn of_topic(&self, name: &str) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The key of a message in the topic with key `topic`.
    pub(super) fn of_message(&self, id: &MessageId, topic: u64) -> u64 {
        let mut hasher = KeyedHasher { keys: *self, state: topic };
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    /// The key of a message together with a peer.
    pub(super) fn of_pair(&self, id: &MessageId, link: Link) -> u64 {
        self.of_message(id, u64::from(link.to_bits()))
    }
}

impl BuildHasher for Keys {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { keys: *self, state: 0 }
    }
}

pub(super) struct KeyedHasher {
    keys: Keys,
    state: u64,
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.state = fold(self.state ^ u64::from_le_bytes(word) ^ self.keys.a, self.keys.b | 1);
        }
        self.state ^= bytes.len() as u64;
    }

    fn finish(&self) -> u64 {
        fold(self.state ^ self.keys.b, self.keys.a | 1)
    }
}

/// For keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs;

struct AsIsHasher(u64);

impl BuildHasher for AsIs {
    type Hasher = AsIsHasher;

    fn build_hasher(&self) -> AsIsHasher {
        AsIsHasher(0)
    }
}

impl Hasher for AsIsHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers of 64 bits are hashed as they are")
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A set of keys that forgets by halves: what was put in stays for `ttl` at least and twice that at most,
/// unless more than `entries_max / 2` came within one `ttl`; then the older half goes early.
#[derive(Debug)]
pub(super) struct RotatingSet {
    young: HashSet<u64, AsIs>,
    old: HashSet<u64, AsIs>,
    turned: Time,
}

impl RotatingSet {
    pub(super) fn new(now: Time) -> Self {
        RotatingSet { young: HashSet::default(), old: HashSet::default(), turned: now }
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.young.contains(&key) || self.old.contains(&key)
    }

    pub(super) fn insert(&mut self, key: u64, entries_max: usize) {
        if self.young.len() >= entries_max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }

    /// To be called now and then.
    pub(super) fn tick(&mut self, now: Time, ttl: Duration) {
        if now.since(self.turned) >= ttl {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Given out, no verdict yet.
    Validating,
    /// Accepted or our own: can be served.
    Accepted,
    Rejected,
    Ignored,
}

/// One message in one topic.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) topic: TopicIx,
    pub(super) phase: Phase,
    /// Empty once it cannot be served.
    pub(super) data: Bytes,
    /// When it came; from the verdict on, when that was.
    pub(super) at: Time,
    /// The heartbeat that its life counts from.
    beat: u32,
    /// The heartbeat in which it came.
    first_beat: u32,
    /// Who sent us a copy, the first one first.
    pub(super) senders: SmallVec<[Link; 4]>,
    /// To whom it was served, and how many times.
    pub(super) served: SmallVec<[(Link, u8); 2]>,
}

/// Messages of the last heartbeats, in the order in which their life began.
#[derive(Debug)]
pub(super) struct Messages {
    entries: HashMap<MessageId, SmallVec<[Entry; 1]>, Keys>,
    /// One element per life; one that no entry agrees with is stale.
    history: VecDeque<(MessageId, TopicIx, u32)>,
    validating: usize,
    bytes: usize,
}

/// A message that has left the cache.
pub(super) struct Gone {
    pub(super) topic: TopicIx,
    /// It left without a verdict.
    pub(super) was_validating: bool,
}

impl Messages {
    pub(super) fn new(keys: Keys) -> Self {
        Messages { entries: HashMap::with_hasher(keys), history: VecDeque::new(), validating: 0, bytes: 0 }
    }

    pub(super) fn validating(&self) -> usize {
        self.validating
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get_mut(&mut self, id: &MessageId, topic: TopicIx) -> Option<&mut Entry> {
        self.entries.get_mut(id)?.iter_mut().find(|entry| entry.topic == topic)
    }

    pub(super) fn contains(&self, id: &MessageId, topic: TopicIx) -> bool {
        self.entries.get(id).is_some_and(|of_id| of_id.iter().any(|entry| entry.topic == topic))
    }

    /// It waits for its verdict.
    pub(super) fn is_validating(&self, id: &MessageId, topic: TopicIx) -> bool {
        let of_id = self.entries.get(id).map(SmallVec::as_slice).unwrap_or_default();
        of_id.iter().any(|entry| entry.topic == topic && entry.phase == Phase::Validating)
    }

    /// This peer sent us a copy.
    pub(super) fn is_from(&self, id: &MessageId, topic: TopicIx, link: Link) -> bool {
        let of_id = self.entries.get(id).map(SmallVec::as_slice).unwrap_or_default();
        of_id.iter().any(|entry| entry.topic == topic && entry.senders.contains(&link))
    }

    /// The message as it can be served, whatever its topic.
    pub(super) fn accepted_mut(&mut self, id: &MessageId) -> Option<&mut Entry> {
        self.entries.get_mut(id)?.iter_mut().find(|entry| entry.phase == Phase::Accepted)
    }

    /// Adds a message that is not in; says whether there was room for another topic of this id.
    pub(super) fn insert(
        &mut self,
        id: MessageId,
        topic: TopicIx,
        phase: Phase,
        data: Bytes,
        from: Option<Link>,
        (now, beat): (Time, u32),
    ) -> bool {
        let of_id = self.entries.entry(id).or_default();
        if of_id.len() >= TOPICS_PER_ID_MAX {
            return false;
        }
        self.bytes += ENTRY_BYTES + data.len();
        self.validating += usize::from(phase == Phase::Validating);
        let senders = from.into_iter().collect();
        let served = SmallVec::new();
        of_id.push(Entry { topic, phase, data, at: now, beat, first_beat: beat, senders, served });
        self.history.push_back((id, topic, beat));
        true
    }

    /// Ends the wait of a message; `None` if it does not wait. An accepted one lives on from here.
    pub(super) fn decide(
        &mut self,
        id: &MessageId,
        topic: TopicIx,
        phase: Phase,
        (now, beat): (Time, u32),
    ) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id)?.iter_mut().find(|entry| entry.topic == topic)?;
        if entry.phase != Phase::Validating {
            return None;
        }
        self.validating -= 1;
        entry.phase = phase;
        entry.at = now;
        if phase != Phase::Accepted {
            self.bytes -= entry.data.len();
            entry.data = Bytes::new();
        } else if entry.beat != beat {
            entry.beat = beat;
            self.history.push_back((*id, topic, beat));
        }
        Some(entry)
    }

    /// Forgets the oldest messages until `bytes` more fit. False if messages without a verdict take the room.
    pub(super) fn make_room(&mut self, bytes: usize, bytes_max: usize, mut gone: impl FnMut(Gone)) -> bool {
        while self.bytes.saturating_add(ENTRY_BYTES).saturating_add(bytes) > bytes_max {
            let Some((id, topic, beat)) = self.history.front().copied() else { return false };
            let waits =
                self.get_mut(&id, topic).is_some_and(|e| e.beat == beat && e.phase == Phase::Validating);
            if waits {
                return false;
            }
            self.history.pop_front();
            self.remove(&id, topic, beat).into_iter().for_each(&mut gone);
        }
        true
    }

    /// Forgets what lived through `history` whole heartbeat intervals; what waits for its verdict only after
    /// `patience` heartbeats.
    pub(super) fn tick(&mut self, beat: u32, history: u32, patience: u32, mut gone: impl FnMut(Gone)) {
        while let Some((id, topic, since)) = self.history.front().copied() {
            if since.saturating_add(history) >= beat {
                break;
            }
            self.history.pop_front();
            if let Some(entry) = self.get_mut(&id, topic).filter(|entry| entry.beat == since)
                && entry.phase == Phase::Validating
                && entry.first_beat.saturating_add(patience) > beat
            {
                entry.beat = beat;
                self.history.push_back((id, topic, beat));
                continue;
            }
            self.remove(&id, topic, since).into_iter().for_each(&mut gone);
        }
    }

    fn remove(&mut self, id: &MessageId, topic: TopicIx, beat: u32) -> Option<Gone> {
        let of_id = self.entries.get_mut(id)?;
        let at = of_id.iter().position(|entry| entry.topic == topic && entry.beat == beat)?;
        let entry = of_id.swap_remove(at);
        if of_id.is_empty() {
            self.entries.remove(id);
        }
        let was_validating = entry.phase == Phase::Validating;
        self.bytes -= ENTRY_BYTES + entry.data.len();
        self.validating -= usize::from(was_validating);
        Some(Gone { topic, was_validating })
    }

    /// The accepted messages whose life began in heartbeat `from` or later, with their topics, newest first.
    pub(super) fn accepted_since(&self, from: u32) -> impl Iterator<Item = (TopicIx, MessageId)> + '_ {
        self.history.iter().rev().take_while(move |(_, _, beat)| *beat >= from).filter_map(
            |(id, topic, beat)| {
                let of_id = self.entries.get(id)?;
                let is_current =
                    |e: &&Entry| e.topic == *topic && e.beat == *beat && e.phase == Phase::Accepted;
                of_id.iter().find(is_current).map(|_| (*topic, *id))
            },
        )
    }

    /// Asserts that the counters agree with the content. Returns the number of messages in each topic.
    pub(super) fn check_invariants(&self) -> std::collections::BTreeMap<TopicIx, u32> {
        let (mut bytes, mut validating, mut entries) = (0, 0, 0);
        let mut of_topic = std::collections::BTreeMap::new();
        for (id, topic, beat) in &self.history {
            let of_id = self.entries.get(id).map(SmallVec::as_slice).unwrap_or_default();
            for entry in of_id.iter().filter(|entry| entry.topic == *topic && entry.beat == *beat) {
                bytes += ENTRY_BYTES + entry.data.len();
                validating += usize::from(entry.phase == Phase::Validating);
                entries += 1;
                *of_topic.entry(*topic).or_default() += 1;
                assert!(entry.senders.len() <= SENDERS_MAX, "senders of a message are bounded");
            }
        }
        assert_eq!(self.bytes, bytes, "bytes of the message cache");
        assert_eq!(self.validating, validating, "messages that wait for a verdict");
        assert!(self.entries.len() <= entries, "every message held is in the history");
        of_topic
    }
}
