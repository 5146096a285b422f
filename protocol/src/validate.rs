//! The validator: cheap gates first, state last.
//!
//! ```text
//! size, shape ─► mesh ─► channel ─► step window ─► tag ─► replay window ─► quarantine ─► signature ─► commit
//! └───────────────────────────── precheck, ~1 µs ──────────────────────────────────┘   └ verify ┘  └ commit ┘
//! ```
//!
//! Three calls, so that the dear middle one can run on any thread, many at once:
//! [`Validator::precheck`] needs the state but does not change it, [`Unverified::verify`] needs no state,
//! and [`Validator::commit`] looks at the replay window once more and marks the sequence numbers as used.
//! Durable messages come on the channel [`log::CHANNEL`], whatever their own; they skip the replay window, because their
//! author's chain says which are new.
//!
//! A gate that keeps state commits only after the signature; otherwise a member could use up another's
//! numbers. Every refusal has its [`Refusal`] code and is counted.

use std::num::{NonZeroU64, NonZeroUsize};

use bytes::Bytes;
use lru::LruCache;

use crate::envelope::{Channel, Envelope, Kind};
use crate::id::{NodeId, Step};
use crate::identity::PublicKey;
use crate::log::{self, Record};
use crate::mesh::Mesh;
use crate::pattern::{CacheStats, Pattern, PatternGenerator};
use crate::refusal::Refusal;
use crate::replay::{self, ReplayWindows};

/// Authors in quarantine at most; the one quarantined first makes room.
pub const QUARANTINED_MAX: usize = 4096;

/// Bounds and windows of the validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Steps in a phase.
    pub phase_interval: NonZeroU64,
    /// Patterns remembered.
    pub pattern_cache: NonZeroUsize,
    /// Largest envelope, in bytes.
    pub message_bytes_max: usize,
    /// How many steps a message may be late. Too low: messages on slow paths are refused; too high: the
    /// replay windows must remember authors for longer.
    pub step_window_past: u64,
    /// How many steps a message may be early: 1 for two honest clocks in neighbouring steps, and 1 to spare.
    pub step_window_future: u64,
    /// Bounds of the replay windows.
    pub replay: replay::Config,
}

/// Gates that a simulation leaves open: where authenticity is a fact of the model, and to see that its checkers
/// notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sabotage {
    pub trust_tags: bool,
    pub accept_stale: bool,
    pub forget_seen: bool,
}

/// A message that passed the cheap gates.
#[derive(Clone, Debug)]
pub struct Unverified {
    envelope: Envelope,
    key: Option<PublicKey>,
}

/// A message that its author has signed; whether for the first time is for [`Validator::commit`].
#[derive(Clone, Debug)]
pub struct Verified {
    envelope: Envelope,
    key: PublicKey,
}

impl Unverified {
    /// A message that passed the gates for records.
    pub(crate) fn new(envelope: Envelope, key: Option<PublicKey>) -> Self {
        Unverified { envelope, key }
    }

    /// Checks the signature; 40 µs. Pure: any thread may do it, and any memory of the result for the same
    /// bytes is as good.
    ///
    /// # Errors
    /// [`Refusal::BadKey`] or [`Refusal::BadSignature`].
    pub fn verify(self) -> Result<Verified, Refusal> {
        let key = match self.key {
            Some(key) => key,
            None => PublicKey::new(&self.envelope.header().author).ok_or(Refusal::BadKey)?,
        };
        if !self.envelope.is_signed_by(&key) {
            return Err(Refusal::BadSignature);
        }
        Ok(Verified { envelope: self.envelope, key })
    }

    /// The message, not to be believed yet.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// For a simulation: the signature was checked before, on the same bytes, with `key`.
    #[doc(hidden)]
    pub fn assume_verified(self, key: PublicKey) -> Verified {
        Verified { envelope: self.envelope, key }
    }
}

impl Verified {
    /// The message, as it came.
    pub(crate) fn as_bytes(&self) -> &Bytes {
        self.envelope.as_bytes()
    }

    /// A durable message does not wait for [`Validator::commit`]: whether it is new is for its author's chain.
    pub fn into_record(self) -> Option<Record> {
        Record::new(self.envelope)
    }
}

/// Judges messages.
#[derive(Debug)]
pub struct Validator {
    mesh: Mesh,
    config: Config,
    patterns: PatternGenerator,
    replay: ReplayWindows,
    sabotage: Sabotage,
    keys: LruCache<NodeId, PublicKey>,
    quarantined: LruCache<NodeId, ()>,
    refused: [u64; Refusal::COUNT],
    accepted: u64,
}

impl Validator {
    /// A validator that has seen nothing. For `floor` see [`ReplayWindows::new`].
    pub fn new(mesh: Mesh, config: Config, floor: Option<Step>) -> Self {
        let patterns =
            PatternGenerator::new(mesh.secret().clone(), config.phase_interval, config.pattern_cache);
        let mut keys = LruCache::unbounded();
        keys.resize(config.replay.authors_max);
        let mut quarantined = LruCache::unbounded();
        quarantined.resize(NonZeroUsize::new(QUARANTINED_MAX).expect("not zero"));
        let replay = ReplayWindows::new(&config.replay, floor);
        Validator {
            mesh,
            config,
            patterns,
            replay,
            sabotage: Sabotage::default(),
            keys,
            quarantined,
            refused: [0; Refusal::COUNT],
            accepted: 0,
        }
    }

    /// For a simulation: leaves gates open.
    #[doc(hidden)]
    pub fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = sabotage;
    }

    /// The cheap gates, for a message that came on `channel` while the mesh was at `now`.
    ///
    /// # Errors
    /// The first gate that refuses; it is counted.
    pub fn precheck(
        &mut self,
        now: Option<Step>,
        channel: &Channel,
        data: &Bytes,
    ) -> Result<Unverified, (Refusal, Option<NodeId>)> {
        let envelope = Envelope::decode(data, self.config.message_bytes_max)
            .map_err(|reason| (self.refuse(reason), None))?;
        let author = envelope.header().author;
        match self.gates(now, channel, &envelope) {
            Ok(()) => {
                let key = self.keys.get(&author).cloned();
                Ok(Unverified { envelope, key })
            }
            // Before the tag is checked, anybody can have written any author's name.
            Err(reason) => {
                let author = (reason.index() > Refusal::BadPattern.index()).then_some(author);
                Err((self.refuse(reason), author))
            }
        }
    }

    fn gates(&mut self, now: Option<Step>, channel: &Channel, envelope: &Envelope) -> Result<(), Refusal> {
        let header = envelope.header();
        if header.mesh != self.mesh.id() {
            return Err(Refusal::WrongMesh);
        }
        let is_log = channel.as_str() == log::CHANNEL;
        if header.channel != *channel && !is_log {
            return Err(Refusal::WrongChannel);
        }
        if is_log != (header.kind == Kind::Durable) || (is_log && !Record::is_record(header)) {
            return Err(Refusal::WrongKind);
        }
        let now = now.ok_or(Refusal::NotSynchronised)?;
        if header.step < self.stale_before(now) {
            return Err(Refusal::StaleStep);
        }
        if header.step > now.saturating_add(self.config.step_window_future) {
            return Err(Refusal::FutureStep);
        }
        if !self.sabotage.trust_tags && !envelope.is_tag_of(self.patterns.at(header.step)) {
            return Err(Refusal::BadPattern);
        }
        // A durable message is new or not by its author's chain, which is looked at last.
        if !is_log {
            let count = envelope.payloads().len() as u64;
            self.replay.is_new(&header.author, header.seq, count, header.step)?;
        }
        if self.quarantined.contains(&header.author) {
            return Err(Refusal::Quarantined);
        }
        Ok(())
    }

    /// Accepts a verified message if its step and its sequence numbers still stand, and marks the numbers as used.
    ///
    /// A message can become stale while it waits for its signature to be checked. It is refused then: the
    /// windows forget authors whose messages are stale, so a second copy under way could be taken for new.
    ///
    /// # Errors
    /// [`Refusal::StaleStep`], [`Refusal::Replay`] or [`Refusal::NotProvablyNew`]; counted.
    pub fn commit(&mut self, now: Step, verified: Verified) -> Result<Envelope, Refusal> {
        let Verified { envelope, key } = verified;
        let header = envelope.header();
        let stale_before = self.stale_before(now);
        if header.step < stale_before {
            return Err(self.refuse(Refusal::StaleStep));
        }
        if header.kind == Kind::Durable {
            self.keys.put(header.author, key);
            self.accepted += 1;
            return Ok(envelope);
        }
        let count = envelope.payloads().len() as u64;
        if self.sabotage.forget_seen {
            self.accepted += 1;
            return Ok(envelope);
        }
        if let Err(reason) = self.replay.commit(&header.author, header.seq, count, header.step, stale_before)
        {
            return Err(self.refuse(reason));
        }
        self.keys.put(header.author, key);
        self.accepted += 1;
        Ok(envelope)
    }

    /// The first step that is not yet stale.
    fn stale_before(&self, now: Step) -> Step {
        if self.sabotage.accept_stale {
            return Step(0);
        }
        now.saturating_sub(self.config.step_window_past)
    }

    /// Counts a refusal found elsewhere, such as by [`Unverified::verify`], and returns it.
    pub fn refuse(&mut self, reason: Refusal) -> Refusal {
        self.refused[reason.index()] += 1;
        reason
    }

    /// How often each reason refused, in the order of [`Refusal::ALL`].
    pub fn refused(&self) -> &[u64; Refusal::COUNT] {
        &self.refused
    }

    /// Messages accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The pattern of `step`, for tagging own messages.
    pub fn pattern(&mut self, step: Step) -> &Pattern {
        self.patterns.at(step)
    }

    /// The generator, to ask for phases.
    pub fn patterns(&self) -> &PatternGenerator {
        &self.patterns
    }

    /// How well the pattern cache serves.
    pub fn cache_stats(&self) -> CacheStats {
        self.patterns.cache_stats()
    }

    /// The replay windows.
    pub fn replay(&self) -> &ReplayWindows {
        &self.replay
    }

    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The bounds and windows.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From now on refuses what `author` writes.
    pub fn quarantine(&mut self, author: NodeId) {
        self.quarantined.put(author, ());
    }

    /// Listens to `author` again; true if it was in quarantine.
    pub fn lift(&mut self, author: &NodeId) -> bool {
        self.quarantined.pop(author).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Header, Payloads};
    use crate::id::Seq;
    use crate::identity::Identity;

    const NOW: Step = Step(1000);

    fn config() -> Config {
        Config {
            phase_interval: 100.try_into().unwrap(),
            pattern_cache: 64.try_into().unwrap(),
            message_bytes_max: 65_536,
            step_window_past: 8,
            step_window_future: 2,
            replay: replay::Config { window: 1024, authors_max: 16.try_into().unwrap() },
        }
    }

    fn validator() -> Validator {
        Validator::new(Mesh::open("test").unwrap(), config(), None)
    }

    fn news() -> Channel {
        Channel::new("news").unwrap()
    }

    fn sealed(author: u8, mesh: &str, seq: u64, step: Step) -> Envelope {
        let mesh = Mesh::open(mesh).unwrap();
        let mut patterns =
            PatternGenerator::new(mesh.secret().clone(), config().phase_interval, config().pattern_cache);
        let header = Header {
            mesh: mesh.id(),
            author: NodeId::from_bytes([0; 32]),
            seq: Seq(seq),
            step,
            kind: Kind::Ephemeral,
            channel: news(),
            prev: None,
            timestamp_us: None,
        };
        let payloads: Payloads = [Bytes::from_static(b"hello")].into_iter().collect();
        Envelope::seal(&Identity::from_seed(&[author; 32]), patterns.at(step), header, payloads).unwrap()
    }

    fn judge(validator: &mut Validator, bytes: &Bytes) -> Result<Envelope, Refusal> {
        let unverified = validator.precheck(Some(NOW), &news(), bytes).map_err(|(reason, _)| reason)?;
        let verified = unverified.verify().map_err(|reason| validator.refuse(reason))?;
        validator.commit(NOW, verified)
    }

    fn durable(seq: u64, prev: Option<crate::Hash>, step: Step) -> Envelope {
        let mesh = Mesh::open("test").unwrap();
        let mut patterns =
            PatternGenerator::new(mesh.secret().clone(), config().phase_interval, config().pattern_cache);
        let ephemeral = sealed(1, "test", seq, step).header().clone();
        let header = Header { kind: Kind::Durable, prev, ..ephemeral };
        let payloads: Payloads = [Bytes::from_static(b"entry")].into_iter().collect();
        Envelope::seal(&Identity::from_seed(&[1; 32]), patterns.at(step), header, payloads).unwrap()
    }

    #[test]
    fn durable_messages_come_on_the_channel_of_the_log_and_are_judged_by_their_chain() {
        let mut validator = validator();
        let topic = durable(1, None, NOW).header().gossiped_on();
        assert_eq!(topic.as_str(), log::CHANNEL);
        let mut judge = |channel: &Channel, envelope: &Envelope| {
            let judged = validator.precheck(Some(NOW), channel, envelope.as_bytes());
            let verified = judged.map_err(|(reason, _)| reason)?.verify()?;
            validator.commit(NOW, verified).map(|_| ())
        };
        let prev = Some(crate::Hash::of(b"before"));
        let next = durable(7, prev, NOW);
        // A second time too, and a lower number after a higher one.
        for envelope in [&next, &next, &durable(1, None, NOW)] {
            assert_eq!(judge(&topic, envelope), Ok(()));
        }
        assert_eq!(judge(&news(), &next), Err(Refusal::WrongKind));
        assert_eq!(judge(&topic, &sealed(1, "test", 1, NOW)), Err(Refusal::WrongKind));
        assert_eq!(judge(&topic, &durable(1, prev, NOW)), Err(Refusal::WrongKind));
        assert_eq!(judge(&topic, &durable(2, None, NOW)), Err(Refusal::WrongKind));
        assert_eq!(judge(&topic, &durable(2, prev, Step(991))), Err(Refusal::StaleStep));
        assert_eq!(judge(&topic, &durable(2, prev, Step(1003))), Err(Refusal::FutureStep));
        // Numbers of durable messages are not those of others.
        assert_eq!(judge(&news(), &sealed(1, "test", 7, NOW)), Ok(()));
    }

    #[test]
    fn a_good_message_is_accepted_once() {
        let mut validator = validator();
        let message = sealed(1, "test", 1, NOW);
        assert_eq!(judge(&mut validator, message.as_bytes()).unwrap(), message);
        assert_eq!(judge(&mut validator, message.as_bytes()), Err(Refusal::Replay));
        assert_eq!(validator.accepted(), 1);
        assert_eq!(validator.refused()[Refusal::Replay.index()], 1);
    }

    #[test]
    fn the_step_window_is_exact() {
        let mut validator = validator();
        let mut seq = 0;
        let mut at = |step: u64| {
            seq += 1;
            judge(&mut validator, sealed(1, "test", seq, Step(step)).as_bytes()).err()
        };
        assert_eq!(at(991), Some(Refusal::StaleStep));
        assert_eq!(at(992), None, "and its phase is the one before");
        assert_eq!(at(1002), None);
        assert_eq!(at(1003), Some(Refusal::FutureStep));
        assert_eq!(at(u64::MAX), Some(Refusal::FutureStep));
        assert_eq!(at(0), Some(Refusal::StaleStep));
    }

    #[test]
    fn another_mesh_and_a_claimed_mesh_are_told_apart() {
        let mut validator = validator();
        assert_eq!(judge(&mut validator, sealed(1, "other", 1, NOW).as_bytes()), Err(Refusal::WrongMesh));
        // The right mesh id without the secret.
        let mine = Mesh::open("test").unwrap();
        let other = Mesh::open("other").unwrap();
        let mut patterns =
            PatternGenerator::new(other.secret().clone(), config().phase_interval, config().pattern_cache);
        let header = Header { mesh: mine.id(), ..sealed(1, "test", 1, NOW).header().clone() };
        let payloads: Payloads = [Bytes::from_static(b"x")].into_iter().collect();
        let forged =
            Envelope::seal(&Identity::from_seed(&[1; 32]), patterns.at(NOW), header, payloads).unwrap();
        assert_eq!(judge(&mut validator, forged.as_bytes()), Err(Refusal::BadPattern));
        let wrong_channel = Channel::new("olds").unwrap();
        let message = sealed(1, "test", 1, NOW);
        let judged = validator.precheck(Some(NOW), &wrong_channel, message.as_bytes());
        assert_eq!(judged.unwrap_err(), (Refusal::WrongChannel, None));
        let judged = validator.precheck(None, &news(), message.as_bytes());
        assert_eq!(judged.unwrap_err(), (Refusal::NotSynchronised, None));
    }

    #[test]
    fn a_member_cannot_use_up_anothers_numbers() {
        let mut validator = validator();
        let honest = sealed(1, "test", 1, NOW);
        // Same signed bytes and tag, and a signature by somebody else.
        let mut bytes = honest.as_bytes().to_vec();
        let at = bytes.len() - 64;
        bytes[at..].copy_from_slice(&Identity::from_seed(&[2; 32]).sign(b"whatever"));
        assert_eq!(judge(&mut validator, &bytes.into()), Err(Refusal::BadSignature));
        judge(&mut validator, honest.as_bytes()).unwrap();
    }

    #[test]
    fn two_copies_under_way_at_once_commit_once() {
        let mut validator = validator();
        let message = sealed(1, "test", 1, NOW);
        let first = validator.precheck(Some(NOW), &news(), message.as_bytes()).unwrap().verify().unwrap();
        let second = validator.precheck(Some(NOW), &news(), message.as_bytes()).unwrap().verify().unwrap();
        validator.commit(NOW, first).unwrap();
        assert_eq!(validator.commit(NOW, second), Err(Refusal::Replay));
    }

    #[test]
    fn what_becomes_stale_on_the_way_is_not_accepted_twice() {
        let mut validator = validator();
        let copy = |validator: &mut Validator, author, seq, step| {
            let message = sealed(author, "test", seq, step);
            validator.precheck(Some(NOW), &news(), message.as_bytes()).unwrap().verify().unwrap()
        };
        let first = copy(&mut validator, 1, 1, NOW);
        let second = copy(&mut validator, 1, 1, NOW);
        let other = copy(&mut validator, 2, 1, Step(NOW.0 + 2));
        validator.commit(NOW, first).unwrap();
        // The other author makes the windows forget the first, whose messages are stale by now.
        validator.commit(Step(NOW.0 + 9), other).unwrap();
        assert_eq!(validator.commit(Step(NOW.0 + 9), second), Err(Refusal::StaleStep));
    }

    #[test]
    fn quarantine_refuses_and_can_be_lifted() {
        let mut validator = validator();
        let author = Identity::from_seed(&[1; 32]).id();
        validator.quarantine(author);
        assert_eq!(judge(&mut validator, sealed(1, "test", 1, NOW).as_bytes()), Err(Refusal::Quarantined));
        assert!(validator.lift(&author));
        judge(&mut validator, sealed(1, "test", 1, NOW).as_bytes()).unwrap();
    }
}
