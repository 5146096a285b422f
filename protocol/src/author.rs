//! The author: turns what this node wants to say into envelopes.
//!
//! Payloads are *submitted* one by one, and *flushed* when the shell has nothing else to read: what was
//! submitted meanwhile travels in one envelope per channel, so that under load one signature covers many
//! payloads, and a lone payload waits for nobody.
//!
//! An author that signs every payload alone is faster than those who must check each signature: they fall
//! behind, and it never learns. So the *pace* is bounded: after [`PROMPT_FLUSHES`] flushes within a
//! [`PACE`] the next one waits for the next, or until there is a full bundle; [`State::flush_at`] says when.
//!
//! A sequence number is used once in the life of a key, across crashes. The author therefore asks the
//! shell to *reserve* numbers on disk before it uses them, in blocks, and starts after a restart behind
//! the last block: numbers are skipped, never repeated.
//!
//! ```text
//! Submit(payload, ticket)… ──► Flush(step) ──► Sealed(envelope, tickets)      per channel, bundles as large as allowed
//!                                         └──► Reserve { up_to }              then the shell answers Reserved { up_to }
//! ```
//!
//! Invariants: at most `pending_max` payloads and `pending_bytes_max` bytes wait; every ticket gets one
//! answer, in the order of submission within its channel.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng;

use crate::envelope::{self, Channel, Envelope, Header, Kind, PAYLOADS_MAX, Payloads};
use crate::id::{MeshId, Seq, Step};
use crate::identity::Identity;
use crate::machine::Outbox;
use crate::mesh::Mesh;
use crate::pattern::{CacheStats, PatternGenerator};
use crate::time::Time;

/// Sequence numbers reserved at once: one write to disk for so many payloads. Source: guess.
pub const RESERVE_BLOCK: u64 = 1 << 16;

/// The unit of the author's pace. Source: measured; timers are no finer, and it is less than a message takes
/// across a mesh.
pub const PACE: Duration = Duration::from_millis(1);

/// Flushes within a [`PACE`] that wait for nothing. Source: measured; with two nodes on loopback, receivers check
/// some 20,000 signatures a second, so this leaves them most of their time.
pub const PROMPT_FLUSHES: u32 = 4;

/// Bounds of the author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest envelope, in bytes.
    pub message_bytes_max: usize,
    /// Most payloads in one envelope, at most [`PAYLOADS_MAX`].
    pub bundle_payloads_max: usize,
    /// Most bytes of payloads in an envelope of more than one.
    pub bundle_bytes_max: usize,
    /// Payloads that wait for the next flush. Too low: bursts are refused as busy; too high: memory.
    pub pending_max: usize,
    /// Bytes of payloads that wait for the next flush.
    pub pending_bytes_max: usize,
}

/// The shell's name for a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the author is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Say `payload` on `channel`.
    Submit {
        /// Where.
        channel: Channel,
        /// What.
        payload: Bytes,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Seal what was submitted, now.
    Flush {
        /// The mesh's step; `None` while the node is not synchronised.
        step: Option<Step>,
        /// The mesh time in microseconds.
        mesh_time_us: u64,
    },
    /// Sequence numbers below `up_to` are reserved on disk.
    Reserved {
        /// The first number that is not.
        up_to: Seq,
    },
}

/// What the author wants done.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one")]
pub enum Output {
    /// Publish this; payload `i` answers `tickets[i]`.
    Sealed {
        /// The envelope.
        envelope: Envelope,
        /// The submissions in it, in order.
        tickets: Vec<Ticket>,
    },
    /// A submission was refused; nothing of it will be said.
    Refused {
        /// Which.
        ticket: Ticket,
        /// Why.
        error: SubmitError,
    },
    /// Reserve sequence numbers below `up_to` on disk, then say so.
    Reserve {
        /// The first number that is not to be reserved.
        up_to: Seq,
    },
}

/// Why a payload was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It fits no envelope.
    #[error(
        "the payload has {bytes} bytes, the limit is {bytes_max} (`gossip.message_bytes_max` less what an envelope needs)"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest there may be.
        bytes_max: usize,
    },
    /// Too much waits already.
    #[error("too many payloads wait to be published; try again")]
    Busy,
    /// Without a step there is no pattern to tag with.
    #[error("the node has no step yet: it has not synchronised with the mesh")]
    NotSynchronised,
    /// Reserved sequence numbers ran out, because the disk does not keep up or does not work.
    #[error("no sequence number is reserved: the data directory cannot be written fast enough, or at all")]
    NoSeq,
}

/// The author's state.
#[derive(Debug)]
pub struct State {
    config: Config,
    identity: Identity,
    mesh: MeshId,
    patterns: PatternGenerator,
    next: Seq,
    reserved: Seq,
    asked: Seq,
    pending: BTreeMap<Channel, Vec<(Bytes, Ticket)>>,
    pending_len: usize,
    pending_bytes: usize,
    /// When the present pace began, and the flushes in it.
    paced: (Time, u32),
}

impl State {
    /// An author whose first sequence number is `next`: 1 for a new key, otherwise the first that was
    /// never reserved. Nothing is reserved yet, so the first input should be [`Input::Reserved`], or a
    /// flush that asks for it.
    pub fn new(
        config: Config,
        identity: Identity,
        mesh: &Mesh,
        patterns: PatternGenerator,
        next: Seq,
    ) -> Self {
        let next = next.max(Seq(1));
        State {
            config,
            identity,
            mesh: mesh.id(),
            patterns,
            next,
            reserved: next,
            asked: next,
            pending: BTreeMap::new(),
            pending_len: 0,
            pending_bytes: 0,
            paced: (Time::ZERO, 0),
        }
    }

    /// The one mutator. Needs no randomness; it has the shape of all machines.
    pub fn handle(&mut self, now: Time, input: Input, _rng: &mut impl Rng, out: &mut Outbox<Output>) {
        match input {
            Input::Submit { channel, payload, ticket } => self.on_submit(channel, payload, ticket, out),
            Input::Flush { step, mesh_time_us } => {
                self.count_flush(now);
                self.on_flush(step, mesh_time_us, out);
            }
            Input::Reserved { up_to } => self.reserved = self.reserved.max(up_to),
        }
    }

    /// True if nothing waits for a flush.
    pub fn is_idle(&self) -> bool {
        self.pending_len == 0
    }

    /// When what waits is to be flushed: now, or, for an author who has just flushed often, when its pace allows.
    pub fn flush_at(&self, now: Time) -> Time {
        let is_full = self.pending_len >= self.config.bundle_payloads_max
            || self.pending_bytes >= self.config.bundle_bytes_max;
        let (began, flushes) = self.paced;
        if is_full || flushes < PROMPT_FLUSHES { now } else { (began + PACE).max(now) }
    }

    /// The next sequence number.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// How well the pattern cache serves.
    pub fn cache_stats(&self) -> CacheStats {
        self.patterns.cache_stats()
    }

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {
        let len: usize = self.pending.values().map(Vec::len).sum();
        assert_eq!(len, self.pending_len, "the count of pending payloads is right");
        assert!(self.pending_len <= self.config.pending_max, "pending payloads are bounded");
        assert!(self.pending_bytes <= self.config.pending_bytes_max, "pending bytes are bounded");
        assert!(self.next <= self.reserved, "no number is used before it is reserved");
    }

    fn count_flush(&mut self, now: Time) {
        let (began, flushes) = self.paced;
        self.paced = if now.since(began) >= PACE { (now, 1) } else { (began, flushes.saturating_add(1)) };
    }

    fn on_submit(&mut self, channel: Channel, payload: Bytes, ticket: Ticket, out: &mut Outbox<Output>) {
        let bytes_max = envelope::payload_bytes_max(self.config.message_bytes_max);
        let error = if payload.len() > bytes_max {
            SubmitError::TooLarge { bytes: payload.len(), bytes_max }
        } else if self.pending_len >= self.config.pending_max
            || self.pending_bytes + payload.len() > self.config.pending_bytes_max
        {
            SubmitError::Busy
        } else {
            self.pending_len += 1;
            self.pending_bytes += payload.len();
            self.pending.entry(channel).or_default().push((payload, ticket));
            return;
        };
        out.push(Output::Refused { ticket, error });
    }

    fn on_flush(&mut self, step: Option<Step>, mesh_time_us: u64, out: &mut Outbox<Output>) {
        let pending = std::mem::take(&mut self.pending);
        (self.pending_len, self.pending_bytes) = (0, 0);
        for (channel, waiting) in pending {
            let mut waiting = waiting.into_iter().peekable();
            while waiting.peek().is_some() {
                let (payloads, tickets) = self.take_bundle(&mut waiting);
                match self.seal(&channel, step, mesh_time_us, payloads) {
                    Ok(envelope) => out.push(Output::Sealed { envelope, tickets }),
                    Err(error) => {
                        for ticket in tickets {
                            out.push(Output::Refused { ticket, error: error.clone() });
                        }
                    }
                }
            }
        }
        if self.reserved.0.saturating_sub(self.next.0) < RESERVE_BLOCK / 2 && self.asked <= self.reserved {
            self.asked = self.reserved.saturating_add(RESERVE_BLOCK);
            out.push(Output::Reserve { up_to: self.asked });
        }
    }

    /// As many payloads as one envelope may hold, and at least one.
    fn take_bundle(
        &self,
        waiting: &mut std::iter::Peekable<impl Iterator<Item = (Bytes, Ticket)>>,
    ) -> (Payloads, Vec<Ticket>) {
        let room =
            envelope::payloads_room_max(self.config.message_bytes_max).min(self.config.bundle_bytes_max);
        let count = self.config.bundle_payloads_max.clamp(1, PAYLOADS_MAX);
        let (mut payloads, mut tickets, mut used) = (Payloads::new(), Vec::new(), 0);
        while let Some((payload, ticket)) =
            waiting.next_if(|(p, _)| payloads.is_empty() || used + envelope::payload_room(p.len()) <= room)
        {
            used += envelope::payload_room(payload.len());
            payloads.push(payload);
            tickets.push(ticket);
            if payloads.len() == count {
                break;
            }
        }
        (payloads, tickets)
    }

    fn seal(
        &mut self,
        channel: &Channel,
        step: Option<Step>,
        mesh_time_us: u64,
        payloads: Payloads,
    ) -> Result<Envelope, SubmitError> {
        let step = step.ok_or(SubmitError::NotSynchronised)?;
        let past_last = self.next.saturating_add(payloads.len() as u64);
        if past_last > self.reserved {
            return Err(SubmitError::NoSeq);
        }
        let header = Header {
            mesh: self.mesh,
            author: self.identity.id(),
            seq: self.next,
            step,
            kind: Kind::Ephemeral,
            channel: channel.clone(),
            prev: None,
            timestamp_us: Some(mesh_time_us),
        };
        let envelope = Envelope::seal(&self.identity, self.patterns.at(step), header, payloads)
            .expect("a bundle is neither empty nor too large, and its numbers are reserved");
        self.next = past_last;
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    struct Fixture {
        state: State,
        rng: ChaCha8Rng,
    }

    impl Fixture {
        fn new() -> Self {
            let config = Config {
                message_bytes_max: 4096,
                bundle_payloads_max: 10,
                bundle_bytes_max: 2000,
                pending_max: 100,
                pending_bytes_max: 20_000,
            };
            let mesh = Mesh::open("test").unwrap();
            let patterns =
                PatternGenerator::new(mesh.secret().clone(), 100.try_into().unwrap(), 16.try_into().unwrap());
            let state = State::new(config, Identity::from_seed(&[1; 32]), &mesh, patterns, Seq(1));
            let mut fixture = Fixture { state, rng: ChaCha8Rng::seed_from_u64(0) };
            fixture.give(Input::Reserved { up_to: Seq(1000) });
            fixture
        }

        fn give(&mut self, input: Input) -> Vec<Output> {
            let mut out = Outbox::new();
            self.state.handle(Time::ZERO, input, &mut self.rng, &mut out);
            self.state.check_invariants();
            out.drain().collect()
        }

        fn submit(&mut self, channel: &str, size: usize, ticket: u64) -> Vec<Output> {
            let (channel, payload) = (Channel::new(channel).unwrap(), Bytes::from(vec![0; size]));
            self.give(Input::Submit { channel, payload, ticket: Ticket(ticket) })
        }

        fn flush(&mut self) -> Vec<Output> {
            self.give(Input::Flush { step: Some(Step(5)), mesh_time_us: 5_000_000 })
        }
    }

    fn sealed(outputs: &[Output]) -> Vec<(String, u64, Vec<u64>)> {
        outputs
            .iter()
            .filter_map(|output| match output {
                Output::Sealed { envelope, tickets } => {
                    let header = envelope.header();
                    assert_eq!(envelope.payloads().len(), tickets.len());
                    Some((header.channel.to_string(), header.seq.0, tickets.iter().map(|t| t.0).collect()))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_was_submitted_together_travels_together() {
        let mut author = Fixture::new();
        for (channel, ticket) in [("b", 1), ("a", 2), ("b", 3)] {
            assert!(author.submit(channel, 10, ticket).is_empty());
        }
        let outputs = author.flush();
        assert_eq!(sealed(&outputs), [("a".into(), 1, vec![2]), ("b".into(), 2, vec![1, 3])]);
        assert!(author.state.is_idle());
        author.submit("a", 10, 4);
        assert_eq!(sealed(&author.flush()), [("a".into(), 4, vec![4])]);
    }

    #[test]
    fn many_flushes_wait_for_each_other_unless_a_bundle_is_full() {
        let mut author = Fixture::new();
        let at = |us| Time::ZERO + Duration::from_micros(us);
        let flush = |author: &mut Fixture, us| {
            let mut out = Outbox::new();
            let flush = Input::Flush { step: Some(Step(5)), mesh_time_us: us };
            author.state.handle(at(us), flush, &mut author.rng, &mut out);
        };
        for us in [5000, 5100, 5200, 5300] {
            author.submit("a", 10, us);
            assert_eq!(author.state.flush_at(at(us)), at(us), "the first ones wait for nothing");
            flush(&mut author, us);
        }
        author.submit("a", 10, 1);
        assert_eq!(author.state.flush_at(at(5400)), at(6000));
        assert_eq!(author.state.flush_at(at(7000)), at(7000));
        for ticket in 2..11 {
            author.submit("a", 10, ticket);
        }
        assert_eq!(author.state.flush_at(at(5400)), at(5400), "a full bundle waits for nothing");
        flush(&mut author, 6000);
        author.submit("a", 10, 11);
        assert_eq!(author.state.flush_at(at(6001)), at(6001), "a new pace");
    }

    #[test]
    fn bundles_have_bounds() {
        let mut author = Fixture::new();
        for ticket in 0..12 {
            author.submit("a", 10, ticket);
        }
        author.submit("a", 1500, 12);
        author.submit("a", 1500, 13);
        author.submit("a", 3000, 14);
        let sizes: Vec<_> =
            sealed(&author.flush()).into_iter().map(|(_, seq, tickets)| (seq, tickets.len())).collect();
        assert_eq!(sizes, [(1, 10), (11, 3), (14, 1), (15, 1)]);
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_a_reason() {
        let mut author = Fixture::new();
        let bytes_max = envelope::payload_bytes_max(4096);
        let refused = |outputs: &[Output]| match outputs {
            [Output::Refused { error, .. }, ..] => error.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(&author.submit("a", bytes_max + 1, 1)),
            SubmitError::TooLarge { bytes: bytes_max + 1, bytes_max }
        );
        author.submit("a", 1, 2);
        let outputs = author.give(Input::Flush { step: None, mesh_time_us: 0 });
        assert_eq!(refused(&outputs), SubmitError::NotSynchronised);
        for ticket in 0..100 {
            author.submit("a", 1, ticket);
        }
        assert_eq!(refused(&author.submit("a", 1, 100)), SubmitError::Busy);
    }

    #[test]
    fn numbers_are_reserved_before_they_are_used() {
        let mut author = Fixture::new();
        let [Output::Reserve { up_to }] = author.flush()[..] else {
            panic!("asks while there are some left")
        };
        assert_eq!(up_to, Seq(1000 + RESERVE_BLOCK));
        assert!(author.flush().is_empty(), "asks once");
        author.give(Input::Reserved { up_to });
        let mut last = 0;
        for round in 0..1000 {
            for ticket in 0..100 {
                author.submit("a", 1, ticket);
            }
            for output in author.flush() {
                match output {
                    Output::Sealed { envelope, tickets } => {
                        last = envelope.header().seq.0 + tickets.len() as u64 - 1;
                    }
                    Output::Reserve { up_to } => drop(author.give(Input::Reserved { up_to })),
                    Output::Refused { error, .. } => panic!("{round}: {error}"),
                }
            }
        }
        assert_eq!(last, 100_000);
    }

    #[test]
    fn without_a_disk_nothing_is_signed() {
        let mut author = Fixture::new();
        for _ in 0..10 {
            for ticket in 0..100 {
                author.submit("a", 1, ticket);
            }
            author.flush();
        }
        assert_eq!(author.state.next_seq(), Seq(991), "the last bundle of ten did not fit into nine numbers");
        for ticket in 0..10 {
            author.submit("a", 1, ticket);
        }
        let outputs = author.flush();
        assert_eq!(outputs.len(), 10);
        assert!(
            outputs.iter().all(|o| matches!(o, Output::Refused { error: SubmitError::NoSeq, .. })),
            "{outputs:?}"
        );
    }

    proptest! {
        #[test]
        fn every_ticket_gets_one_answer(submissions in proptest::collection::vec((0_u8..4, 0_usize..5000), 1..200)) {
            let mut author = Fixture::new();
            let mut answers = std::collections::BTreeMap::new();
            for (ticket, (channel, size)) in (0_u64..).zip(&submissions) {
                let mut outputs = author.submit(&format!("c{channel}"), *size, ticket);
                if size % 7 == 0 {
                    outputs.extend(author.flush());
                }
                if ticket + 1 == submissions.len() as u64 {
                    outputs.extend(author.flush());
                }
                for output in outputs {
                    match output {
                        Output::Sealed { envelope, tickets } => {
                            prop_assert!(envelope.as_bytes().len() <= 4096);
                            tickets.iter().for_each(|t| *answers.entry(t.0).or_insert(0) += 1);
                        }
                        Output::Refused { ticket, .. } => *answers.entry(ticket.0).or_insert(0) += 1,
                        Output::Reserve { .. } => {}
                    }
                }
            }
            prop_assert!(answers.values().all(|count| *count == 1));
            prop_assert_eq!(answers.len(), submissions.len());
        }
    }
}
