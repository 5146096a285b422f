//! The observer of each node: who looks for misbehaviour, and for which.

use omnimesh_protocol::observer::AnomalyKind;

use super::{AdversaryKind, Scenario};

/// Whether nodes watch each other. It takes some memory: what a node remembers of each message and of each peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observer {
    /// Whether there is one; none: if there are adversaries.
    pub enabled: Option<bool>,
    /// Kinds that nobody looks for, as if there were no detector of them.
    pub ignore: Vec<AnomalyKind>,
    /// Envelopes of one author in a second that are no flood, and twice as many at once; none: as in the node.
    pub flood_per_s: Option<u32>,
}

impl Scenario {
    /// Whether nodes watch each other.
    pub fn has_observer(&self) -> bool {
        self.observer.enabled.unwrap_or(!self.adversaries.is_empty())
    }
}

/// Which honest nodes can know what somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witnesses {
    /// All.
    All,
    /// Those to whom it was done so often.
    Told(u64),
    /// Those in whose mesh it was while messages came there, at so many looks of 5 s each.
    Neighbours(u64),
}

impl AdversaryKind {
    /// Who can know what they do. Of what is forgiven in small numbers, or only shows over some time, only those can who
    /// have met enough of it: twice what the detector waits for, or a little more.
    pub const fn witnesses(&self) -> Witnesses {
        match self {
            // What is proved is told to all; the others say what they say, or no longer say it, to all.
            AdversaryKind::Equivocate { .. }
            | AdversaryKind::Fork { .. }
            | AdversaryKind::Slander { .. }
            | AdversaryKind::Flood { .. } => Witnesses::All,
            AdversaryKind::Silence { rate_per_s } if *rate_per_s > 0.0 => Witnesses::All,
            // A flipped bit may look like a late message, of which some are forgiven.
            AdversaryKind::Tamper => Witnesses::Told(3),
            AdversaryKind::Outsider { .. } => Witnesses::Told(1),
            AdversaryKind::Replay { .. } => Witnesses::Told(60),
            // Lies of a step or more.
            AdversaryKind::Rush { .. } | AdversaryKind::Freeze | AdversaryKind::TwoFaced { .. } => {
                Witnesses::Told(12)
            }
            AdversaryKind::NeverForward
            | AdversaryKind::Silence { .. }
            | AdversaryKind::Eclipse { .. }
            | AdversaryKind::Censor { .. }
            | AdversaryKind::Sybil { .. }
            | AdversaryKind::ColdBoot { .. }
            | AdversaryKind::CovertFlash => Witnesses::Neighbours(9),
        }
    }

    /// The right names for what they do, as findings tell it.
    pub const fn findings(&self) -> &'static [AnomalyKind] {
        use AnomalyKind as A;
        match self {
            // Which gate a flipped bit is caught by depends on where it is.
            AdversaryKind::Tamper => &[
                A::BadSignature,
                A::BadPattern,
                A::Malformed,
                A::WrongMesh,
                A::StaleStep,
                A::FutureStep,
                A::Replay,
            ],
            AdversaryKind::Replay { .. } => &[A::Replay, A::StaleStep],
            AdversaryKind::Rush { .. } | AdversaryKind::Freeze | AdversaryKind::TwoFaced { .. } => {
                &[A::StepDrift]
            }
            AdversaryKind::Equivocate { .. } | AdversaryKind::Fork { .. } => &[A::Equivocation],
            AdversaryKind::Flood { .. } => &[A::Flood],
            AdversaryKind::Outsider { .. } => &[A::BadPattern],
            AdversaryKind::Silence { .. } => &[A::Silence, A::NeverForwards],
            AdversaryKind::NeverForward
            | AdversaryKind::Eclipse { .. }
            | AdversaryKind::Censor { .. }
            | AdversaryKind::Sybil { .. }
            | AdversaryKind::ColdBoot { .. }
            | AdversaryKind::CovertFlash => &[A::NeverForwards],
            AdversaryKind::Slander { .. } => &[A::FalseAccusation],
        }
    }

    /// Whether what they do is proved by what they have signed.
    pub const fn is_provable(&self) -> bool {
        match self {
            AdversaryKind::Equivocate { .. } | AdversaryKind::Fork { .. } | AdversaryKind::Slander { .. } => {
                true
            }
            AdversaryKind::Tamper
            | AdversaryKind::Replay { .. }
            | AdversaryKind::Rush { .. }
            | AdversaryKind::Freeze
            | AdversaryKind::TwoFaced { .. }
            | AdversaryKind::Flood { .. }
            | AdversaryKind::Outsider { .. }
            | AdversaryKind::Silence { .. }
            | AdversaryKind::NeverForward
            | AdversaryKind::Eclipse { .. }
            | AdversaryKind::Censor { .. }
            | AdversaryKind::Sybil { .. }
            | AdversaryKind::ColdBoot { .. }
            | AdversaryKind::CovertFlash => false,
        }
    }
}
