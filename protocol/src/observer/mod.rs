//! The observer: remembers what happened to messages and peers, so that people can ask why.
//!
//! ```text
//! Event ──► State ──► ledger    what happened to a message, by id              (why message)
//!                 ├─► anomalies what peers did wrong, by (accused, kind)       (anomalies)
//!                 └─► monitor   rates, latencies, health                       (metrics)
//! ```
//!
//! It only watches: nothing of the protocol depends on it. All three memories are bounded and forget the
//! oldest first.

mod ledger;
mod monitor;

use std::fmt::Display;
use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::Step;
use crate::machine::Outbox;
use crate::refusal::Refusal;
use crate::time::Time;

pub use ledger::{Ledger, Outcome, Record, Story};
pub use monitor::{LatencySummary, MonitorInput, NetworkMetrics, PerformanceMonitor};

/// Bounds of the observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Messages whose story is remembered, about 300 bytes each.
    pub messages_max: NonZeroUsize,
    /// Pairs of accused and kind that are remembered.
    pub anomalies_max: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        // Guesses: a minute of messages at some hundreds per second, and more peers than one connects to.
        let count = |n| NonZeroUsize::new(n).expect("not zero");
        Config { messages_max: count(16_384), anomalies_max: count(1024) }
    }
}

/// What the observer is told.
#[derive(Clone, Debug)]
pub enum Input<P> {
    /// Something happened, in this step.
    Event(Step, Event<P>),
    /// The surroundings have changed.
    Sizes(MonitorInput),
}

/// The observer asks for nothing yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {}

/// Declares the kinds once: variant and code.
macro_rules! anomaly_kinds {
    ($($(#[$doc:meta])* $variant:ident => $code:literal;)*) => {
        /// The kinds of anomalies.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum AnomalyKind {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl AnomalyKind {
            /// The stable name.
            pub const fn code(self) -> &'static str {
                match self { $(AnomalyKind::$variant => $code),* }
            }
        }
    };
}

anomaly_kinds! {
    /// A tag that does not fit the step's pattern.
    BadPattern => "bad_pattern";
    /// A signature that is not the author's.
    BadSignature => "bad_signature";
    /// A message that was seen before.
    Replay => "replay";
    /// A step before the window.
    StaleStep => "stale_step";
    /// A step after the window.
    FutureStep => "future_step";
    /// Two messages of one author with one sequence number.
    Equivocation => "equivocation";
    /// More than the limits allow.
    Flood => "flood";
    /// Nothing from one who should speak.
    Silence => "silence";
    /// Far slower than its like.
    Latency => "latency";
    /// Bytes that are no message.
    Malformed => "malformed";
    /// A result that the majority does not have.
    ResultMismatch => "result_mismatch";
    /// A message or a peer of another mesh.
    WrongMesh => "wrong_mesh";
}

impl AnomalyKind {
    /// What a refusal says about who brought the message; `None` if nothing.
    pub fn of(reason: Refusal) -> Option<Self> {
        Some(match reason {
            Refusal::TooLarge
            | Refusal::Truncated
            | Refusal::TrailingBytes
            | Refusal::TooDeep
            | Refusal::NotCanonical
            | Refusal::Malformed
            | Refusal::UnknownVersion
            | Refusal::WrongChannel
            | Refusal::WrongKind => AnomalyKind::Malformed,
            Refusal::WrongMesh => AnomalyKind::WrongMesh,
            Refusal::StaleStep => AnomalyKind::StaleStep,
            Refusal::FutureStep => AnomalyKind::FutureStep,
            Refusal::BadPattern => AnomalyKind::BadPattern,
            Refusal::Replay | Refusal::NotProvablyNew => AnomalyKind::Replay,
            Refusal::BadKey | Refusal::BadSignature => AnomalyKind::BadSignature,
            Refusal::NotSynchronised | Refusal::Quarantined => return None,
        })
    }
}

/// What one peer did wrong in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// In which way.
    pub kind: AnomalyKind,
    /// Whom it is held against: the peer that brought it.
    pub accused: String,
    /// When first.
    pub first_step: Step,
    /// When last.
    pub last_step: Step,
    /// How often.
    pub count: u64,
    /// True if an honest peer cannot have done it.
    pub is_fault: bool,
    /// The last one, for people.
    pub detail: String,
}

/// What is kept of an anomaly. Its text is made only when somebody reads it: under a flood of bad messages,
/// making it would cost several times as much as refusing them.
#[derive(Debug)]
struct Kept<P> {
    first_step: Step,
    last_step: Step,
    count: u64,
    is_fault: bool,
    last: Event<P>,
}

/// The observer's state.
#[derive(Debug)]
pub struct State<P: Hash + Eq> {
    ledger: Ledger<P>,
    anomalies: LruCache<(P, AnomalyKind), Kept<P>>,
    monitor: PerformanceMonitor,
}

impl<P: Display + Clone + Hash + Eq> State<P> {
    /// An observer that has seen nothing.
    pub fn new(config: &Config) -> Self {
        let mut anomalies = LruCache::unbounded();
        anomalies.resize(config.anomalies_max);
        State { ledger: Ledger::new(config.messages_max), anomalies, monitor: PerformanceMonitor::default() }
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input<P>, _rng: &mut impl Rng, _out: &mut Outbox<Output>) {
        match input {
            Input::Sizes(sizes) => self.monitor.on_sizes(sizes),
            Input::Event(step, event) => {
                self.monitor.on_event(now, &event);
                self.ledger.on_event(now, step, &event);
                self.on_anomaly(step, event);
            }
        }
    }

    fn on_anomaly(&mut self, step: Step, event: Event<P>) {
        let (accused, kind, is_fault) = match &event {
            Event::Refused { from, reason, .. } => match AnomalyKind::of(*reason) {
                Some(kind) => (from.clone(), kind, reason.is_forwarders_fault()),
                None => return,
            },
            Event::BadFrame { from, .. } => (from.clone(), AnomalyKind::Malformed, true),
            Event::PeerRefused { peer, reason: "wrong_mesh" | "bad_proof", .. } => {
                (peer.clone(), AnomalyKind::WrongMesh, false)
            }
            _ => return,
        };
        match self.anomalies.get_mut(&(accused.clone(), kind)) {
            Some(kept) => {
                kept.last_step = step;
                kept.count = kept.count.saturating_add(1);
                kept.is_fault |= is_fault;
                kept.last = event;
            }
            None => {
                let kept = Kept { first_step: step, last_step: step, count: 1, is_fault, last: event };
                self.anomalies.put((accused, kind), kept);
            }
        }
    }

    /// What happened to a message; `None` if it was never seen or is forgotten.
    pub fn story(&self, id: &crate::id::MessageId) -> Option<&Story<P>> {
        self.ledger.story(id)
    }

    /// What went wrong, oldest first.
    pub fn anomalies(&self) -> impl Iterator<Item = Anomaly> {
        self.anomalies.iter().rev().map(|((accused, kind), kept)| Anomaly {
            kind: *kind,
            accused: accused.to_string(),
            first_step: kept.first_step,
            last_step: kept.last_step,
            count: kept.count,
            is_fault: kept.is_fault,
            detail: kept.last.to_string(),
        })
    }

    /// Rates, latencies and health at `now`.
    pub fn metrics(&self, now: Time) -> NetworkMetrics {
        self.monitor.metrics(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    fn refused(n: u8, from: u32, reason: Refusal) -> Event<u32> {
        Event::Refused { id: MessageId::of(&[n]), channel: None, author: None, from, reason }
    }

    #[test]
    fn anomalies_are_counted_by_accused_and_kind_and_bounded() {
        let count = |n| NonZeroUsize::new(n).unwrap();
        let mut state = State::new(&Config { messages_max: count(8), anomalies_max: count(2) });
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut give = |state: &mut State<u32>, step, event| {
            state.handle(Time::ZERO, Input::Event(Step(step), event), &mut rng, &mut Outbox::new());
        };
        give(&mut state, 1, refused(1, 7, Refusal::BadPattern));
        give(&mut state, 2, refused(2, 7, Refusal::BadPattern));
        give(&mut state, 2, refused(3, 7, Refusal::NotSynchronised));
        give(&mut state, 3, refused(4, 8, Refusal::Replay));
        let seen: Vec<_> = state.anomalies().map(|a| (a.accused, a.kind, a.count, a.is_fault)).collect();
        let expected = [("7", AnomalyKind::BadPattern, 2, true), ("8", AnomalyKind::Replay, 1, false)];
        assert_eq!(seen, expected.map(|(who, kind, count, fault)| (who.to_owned(), kind, count, fault)));
        let last = state.anomalies().next().map(|a| (a.first_step, a.last_step, a.detail));
        let detail = refused(2, 7, Refusal::BadPattern).to_string();
        assert_eq!(last, Some((Step(1), Step(2), detail)));
        give(&mut state, 4, refused(5, 9, Refusal::Truncated));
        assert_eq!(state.anomalies().count(), 2);
        let story = state.story(&MessageId::of(&[4])).unwrap();
        assert_eq!(story.records[0].outcome, Outcome::Ignored(Refusal::Replay));
    }
}
