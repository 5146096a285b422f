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

impl AdversaryKind {
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
        matches!(
            self,
            AdversaryKind::Equivocate { .. } | AdversaryKind::Fork { .. } | AdversaryKind::Slander { .. }
        )
    }
}
