//! What refused messages and bad frames say about who brought them.

use super::super::finding::{AnomalyKind, Detail};
use super::super::statistics::{Bucket, Rate};
use crate::event::Event;
use crate::refusal::Refusal;
use crate::time::Time;

/// Characters of the reason of a bad frame that are kept.
const REASON_CHARS_MAX: usize = 160;
/// Replays, stale and early messages that a bringer may bring: honest ones come late over a slow link, or cross a
/// restart. Source: guess; a link that delays each message beyond the step window is of no use to the mesh.
pub const FORGIVEN: Rate = Rate::once_in(5, 20);

/// What a bringer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misdeed<'a, P> {
    /// Who.
    pub bringer: &'a P,
    /// In which way.
    pub kind: AnomalyKind,
    /// True if no honest peer does it.
    pub is_fault: bool,
    /// For people.
    pub detail: Detail,
}

/// What an event says about who is behind it; `None` if nothing.
pub fn misdeed<P>(event: &Event<P>) -> Option<Misdeed<'_, P>> {
    Some(match event {
        Event::Refused { id, author, from, reason, .. } => Misdeed {
            bringer: from,
            kind: AnomalyKind::of(*reason)?,
            is_fault: reason.is_forwarders_fault(),
            detail: Detail::Refused { reason: *reason, message: *id, author: *author },
        },
        Event::BadFrame { from, stream, reason } => Misdeed {
            bringer: from,
            kind: AnomalyKind::Malformed,
            is_fault: true,
            detail: Detail::BadFrame { stream, reason: reason.chars().take(REASON_CHARS_MAX).collect() },
        },
        Event::PeerRefused { peer, reason: reason @ ("wrong_mesh" | "bad_proof"), .. } => Misdeed {
            bringer: peer,
            kind: AnomalyKind::WrongMesh,
            is_fault: false,
            detail: Detail::NotAdmitted { reason },
        },
        _ => return None,
    })
}

/// What one bringer is forgiven, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgiven {
    replay: Bucket,
    stale: Bucket,
    future: Bucket,
}

impl Forgiven {
    /// True if one more of this is forgiven.
    pub fn take(&mut self, now: Time, kind: AnomalyKind, rate: &Rate) -> bool {
        match kind {
            AnomalyKind::Replay => self.replay.take(now, rate),
            AnomalyKind::StaleStep => self.stale.take(now, rate),
            AnomalyKind::FutureStep => self.future.take(now, rate),
            _ => false,
        }
    }
}

/// True of refusals that mean that a message was brought in vain: it could have been known before.
pub fn is_in_vain(reason: Refusal) -> bool {
    !matches!(reason, Refusal::NotSynchronised | Refusal::NotProvablyNew)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;

    fn refused(reason: Refusal) -> Event<u32> {
        Event::Refused { id: MessageId::of(b""), channel: None, author: None, from: 7, reason }
    }

    #[test]
    fn every_refusal_is_somebodys_or_nobodys() {
        for reason in Refusal::ALL {
            let event = refused(*reason);
            let found = misdeed(&event);
            assert_eq!(found.as_ref().map(|m| m.kind), AnomalyKind::of(*reason));
            if let Some(found) = found {
                assert_eq!((*found.bringer, found.is_fault), (7, reason.is_forwarders_fault()));
            }
        }
        let reason = "x".repeat(10_000);
        let event = Event::BadFrame { from: 7, stream: "log", reason };
        let Some(Misdeed { detail: Detail::BadFrame { reason, .. }, is_fault: true, .. }) = misdeed(&event)
        else {
            panic!("a bad frame is a fault");
        };
        assert_eq!(reason.len(), REASON_CHARS_MAX);
        let foreign = Event::PeerRefused { peer: 7, reason: "bad_proof", detail: String::new() };
        assert_eq!(misdeed(&foreign).unwrap().kind, AnomalyKind::WrongMesh);
        let full = Event::PeerRefused { peer: 7, reason: "too_many", detail: String::new() };
        assert_eq!(misdeed(&full), None);
    }

    #[test]
    fn each_kind_is_forgiven_by_itself() {
        let mut forgiven = Forgiven::default();
        let now = Time::from_millis(5);
        for kind in [AnomalyKind::Replay, AnomalyKind::StaleStep, AnomalyKind::FutureStep] {
            assert_eq!((0..100).filter(|_| forgiven.take(now, kind, &FORGIVEN)).count(), 20);
        }
        assert!(!forgiven.take(now, AnomalyKind::BadPattern, &FORGIVEN));
    }
}
