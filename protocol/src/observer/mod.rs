//! The observer: sees who misbehaves, says why, proves it where it can be proved, and says what to do about it.
//!
//! ```text
//!              ┌► ledger     what happened to a message, by id                                 (why message)
//! Event ───────┼► monitor    rates, latencies, health                                          (metrics)
//!              └► detectors ─► findings ─► trust ──► AppScore: gossip's P5                     (anomalies, why peer)
//! Message, Replayed ─► kept envelopes ─┐    ▲
//! Proof (of a log) ────────────────────┼► evidence ─► Quarantine, at once ─► Publish on _evidence
//! Accused (a payload of _evidence) ────┘
//! Clocks, Contributions, Health … ─► detectors; and doubt, which takes from what is held against others
//! ```
//!
//! Three strengths of what is seen, by what follows from it:
//!
//! | strength | examples | follows |
//! |---|---|---|
//! | suspicion | late, slow, silent, floods, brings nothing | less local trust, down to out of the gossip mesh; forgotten in minutes; nothing from a node that doubts itself |
//! | fault | forwards what is forged | less local trust, down to the graylist; forgotten in an hour |
//! | proof | equivocates, accuses falsely | quarantine on every node, until its time is over or somebody lifts it |
//!
//! It only watches: what it wants done comes out as [`Output`], and nothing of the protocol depends on it.
//!
//! **Bounds.** Every table has a bound in [`Config`] and forgets the oldest first; [`State::bytes`] stays below
//! [`Config::bytes_max`] whatever any number of keys do. **Invariants**: [`State::check_invariants`].

pub mod accusation;
pub mod audit;
mod backoff;
pub mod detect;
pub mod doubt;
pub mod evidence;
pub mod finding;
mod ledger;
mod monitor;
pub mod places;
pub mod probe;
pub mod quarantine;
mod records;
pub mod saved;
mod state;
pub mod statistics;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod why;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;

use crate::compute::{JobId, TaskRef};
use crate::envelope::Envelope;
use crate::event::Event;
use crate::gossip::Contribution;
use crate::id::{NodeId, Step};
use crate::identity::Identity;
use crate::log::Proof;
use crate::mesh::Mesh;
use crate::time::Time;

pub use finding::{AnomalyKind, Detail, Finding, Severity, Subject};
pub use ledger::{Ledger, Outcome, Record, Story};
pub use monitor::{LatencySummary, MonitorInput, NetworkMetrics, PerformanceMonitor};
pub use quarantine::{Released, Sentence};
pub use state::State;

/// Bounds and limits of the observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Messages whose story is remembered, about 300 bytes each. Default 16,384 (guess: a minute of messages at some
    /// hundreds per second).
    pub messages_max: NonZeroUsize,
    /// Accused that are remembered, at most some 3,000 bytes each. Default 4,096 (guess: more than one connects to).
    pub subjects_max: NonZeroUsize,
    /// Authors whose rhythm and pace are known, 200 bytes each. Default 8,192 (guess). Of more authors than that, those
    /// that wrote least recently are not seen to be silent or slow.
    pub authors_max: NonZeroUsize,
    /// Connected peers that are compared. Default 1,024, as many as the router has.
    pub peers_max: usize,
    /// Bytes of evidence kept. Default 16 MiB; above it, no new evidence is kept, though it counts.
    pub evidence_bytes_max: usize,
    /// Kinds that this node does not look for; evidence of them convicts nobody here. Default none. For experiments: what
    /// is a detector worth?
    pub ignored: BTreeSet<AnomalyKind>,
    /// What is no flood.
    pub flood: detect::flood::Config,
    /// The memory for equivocation.
    pub equivocation: detect::equivocation::Config,
    /// How trust fades.
    pub trust: trust::Config,
    /// How long quarantines last.
    pub quarantine: quarantine::Config,
    /// New keys by address.
    pub places: places::Config,
}

/// An address, a network or a key in `places`, or in quarantine.
const PLACE: usize = 160;
/// Bytes that are counted for an author; what is kept for one has to fit.
const AUTHOR_BYTES: usize = 256;
/// The same for a connected peer.
const PEER_BYTES: usize = 1_024;
/// Of everything, as many are remembered at least.
const COUNT_MIN: usize = 64;

impl Default for Config {
    fn default() -> Self {
        let count = |n| NonZeroUsize::new(n).expect("not zero");
        Config {
            messages_max: count(16_384),
            subjects_max: count(4_096),
            authors_max: count(8_192),
            peers_max: 1_024,
            evidence_bytes_max: 16 << 20,
            ignored: BTreeSet::new(),
            flood: detect::flood::Config::default(),
            equivocation: detect::equivocation::Config::default(),
            trust: trust::Config::default(),
            quarantine: quarantine::Config::default(),
            places: places::Config::default(),
        }
    }
}

impl Config {
    /// The default, or as much less of everything as fits in so many bytes.
    pub fn within(bytes: usize) -> Self {
        let mut config = Config::default();
        // What is not scaled has to be there in any case.
        let fixed = 2 * crate::validate::QUARANTINED_MAX * PLACE;
        let (most, room) = (config.bytes_max().saturating_sub(fixed), bytes.saturating_sub(fixed));
        if room >= most {
            return config;
        }
        let scaled = |n: usize| usize::try_from(n as u128 * room as u128 / most.max(1) as u128).unwrap_or(n);
        let count = |n: NonZeroUsize| NonZeroUsize::new(scaled(n.get()).max(COUNT_MIN)).unwrap_or(n);
        config.messages_max = count(config.messages_max);
        config.subjects_max = count(config.subjects_max);
        config.authors_max = count(config.authors_max);
        config.places.places_max = count(config.places.places_max);
        config.places.keys_max = count(config.places.keys_max);
        config.peers_max = scaled(config.peers_max).max(COUNT_MIN);
        config.evidence_bytes_max = scaled(config.evidence_bytes_max);
        config.equivocation.bytes_max = scaled(config.equivocation.bytes_max);
        config
    }

    /// The most bytes that an observer of these bounds uses.
    pub fn bytes_max(&self) -> usize {
        const STORY: usize = 1_280;
        const SUBJECT: usize = 6 * 1_024;
        self.messages_max.get() * STORY
            + self.subjects_max.get() * SUBJECT
            + self.authors_max.get() * AUTHOR_BYTES
            + self.peers_max * PEER_BYTES
            + self.evidence_bytes_max
            + self.equivocation.bytes_max
            + (2 * self.places.places_max.get() + self.places.keys_max.get()) * PLACE
            + 2 * crate::validate::QUARANTINED_MAX * PLACE
    }
}

/// What an observer is born with. `P` names a connected peer.
#[derive(Clone, Debug)]
pub struct Start<P> {
    /// This node, who signs accusations.
    pub identity: Identity,
    /// Its mesh.
    pub mesh: Mesh,
    /// Steps in a phase, of the mesh.
    pub phase_interval: NonZeroU64,
    /// The largest envelope of the mesh.
    pub message_bytes_max: usize,
    /// The length of a step.
    pub step_interval: Duration,
    /// The key of a peer, if its name is one.
    pub node_of: fn(&P) -> Option<NodeId>,
    /// What [`Output::Put`] gave to keep, in any order.
    pub saved: Vec<(Bytes, Bytes)>,
}

/// What the observer is told.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the large variants are the common ones")]
pub enum Input<P> {
    /// Something happened, in this step.
    Event(Step, Event<P>),
    /// The surroundings have changed.
    Sizes(MonitorInput),
    /// This ephemeral message was accepted.
    Message(Envelope),
    /// A durable message came by gossip and was verified.
    Durable {
        /// Who wrote it.
        author: NodeId,
        /// Who brought it.
        from: P,
    },
    /// This ephemeral message passed the tag, and was refused because its number was used before.
    Replayed {
        /// Who brought it.
        from: P,
        /// The message.
        data: Bytes,
    },
    /// The log is shown that an author has forked its log. The proof is verified.
    Proof(Proof),
    /// A payload came on channel [`accusation::CHANNEL`].
    Accused {
        /// The author of the envelope.
        author: NodeId,
        /// The payload.
        payload: Bytes,
    },
    /// A worker has signed another result for a task than those whose result counts.
    WrongResult {
        /// Who.
        accused: NodeId,
        /// Of which job.
        job: JobId,
        /// Which task.
        task: TaskRef,
        /// How many have signed the one that counts.
        others: usize,
    },
    /// What the clocks of some peers said in a round of the step protocol.
    Clocks(Vec<detect::drift::Reading<P>>),
    /// What the router has counted of its peers; to be given every few seconds.
    Contributions(Vec<Contribution<P>>),
    /// A connection with a peer began; there may be several.
    Connected {
        /// The peer.
        peer: P,
        /// Where it is.
        ip: Option<IpAddr>,
        /// True if it made the connection: what this node dials it has chosen.
        is_inbound: bool,
    },
    /// One connection with a peer ended.
    Disconnected {
        /// The peer.
        peer: P,
        /// Where it was.
        ip: Option<IpAddr>,
        /// True if it was the last.
        is_last: bool,
    },
    /// The health score of the membership protocol.
    Health(u8),
    /// How far the own clock is from the mesh's; `None`: it has no step.
    Skew(Option<Duration>),
    /// The mesh has come to this step.
    Step(Step),
    /// An operator shuts somebody out, on this node only.
    Quarantine(NodeId),
    /// An operator ends a quarantine.
    Lift(NodeId),
    /// A timer that was asked for.
    Timer(Timer),
}

/// When to look around again; one that is not the last asked for does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer(u64);

/// What the observer wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<P> {
    /// Refuse what this key writes, end its connections and make no new ones.
    Quarantine {
        /// Who.
        node: NodeId,
        /// For what, and how long.
        sentence: Sentence,
    },
    /// Listen to this key again.
    Release {
        /// Who.
        node: NodeId,
        /// Why.
        reason: Released,
    },
    /// End the connections of this peer.
    Refuse {
        /// Who.
        peer: P,
        /// Why.
        reason: Gate,
    },
    /// What gossip is to think of a peer (P5).
    AppScore {
        /// Who.
        peer: P,
        /// How much.
        score: f64,
    },
    /// Gossip is to push nothing to a peer for so long: then it has to get from others, and can bring, what there is.
    Trial {
        /// Who.
        peer: P,
        /// How long.
        duration: Duration,
    },
    /// Something that people should be told: the first of its kind, the tenth, the hundredth, and what is proved.
    Found(Finding),
    /// Publish this payload on channel [`accusation::CHANNEL`], in an envelope of its own.
    Publish(Bytes),
    /// Keep this over a restart.
    Put {
        /// Its name.
        key: Bytes,
        /// It.
        value: Bytes,
    },
    /// Keep this no longer.
    Delete {
        /// Its name.
        key: Bytes,
    },
    /// Hand `timer` back at that time.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
}

/// Why a connection is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gate {
    /// Its key is in quarantine.
    #[error("its key is in quarantine")]
    Quarantined,
    /// Too many new keys come from where it is.
    #[error(transparent)]
    Keys(#[from] places::TooManyKeys),
}

impl Gate {
    /// A stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Gate::Quarantined => "quarantined",
            Gate::Keys(_) => "too_many_keys",
        }
    }
}
