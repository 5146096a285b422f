//! Frames that come from a peer before our own stream to it is open.
//!
//! The two streams of a pair of peers open independently, and a peer says what it subscribes to once, as soon
//! as its own is open. The router knows a peer by the stream to it, so what comes earlier waits here. Peers
//! that never take our stream are not waited for: what they sent is dropped when it is old, when there is too
//! much of it, or when others need the room.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use omnimesh_protocol::Time;

/// Peers whose frames wait at most; the one that waits for longest makes room. Source: guess, as many as
/// there may be handshakes at once.
const PEERS_MAX: usize = 64;
/// Bytes that wait for one peer at most; later ones are dropped. Source: guess, more than all the
/// subscriptions that the router would take of one peer.
const BYTES_MAX: usize = 128 << 10;
/// What a frame counts for beside its bytes.
const FRAME_BYTES: usize = 64;
/// How long frames wait. Source: guess, the time in which a stream is opened or given up.
const AGE_MAX: Duration = Duration::from_secs(10);

/// The frames.
#[derive(Debug, Default)]
pub(super) struct Early(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    peer: PeerId,
    since: Time,
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Early {
    /// Keeps frames of a peer for which there is no stream yet. Says how many it dropped.
    pub(super) fn keep(&mut self, now: Time, peer: PeerId, frames: &[Bytes]) -> u64 {
        let mut dropped = self.forget_old(now);
        let at = self.0.iter().position(|waiting| waiting.peer == peer).unwrap_or_else(|| {
            if self.0.len() >= PEERS_MAX {
                dropped += self.0.pop_front().map_or(0, |oldest| oldest.frames.len() as u64);
            }
            self.0.push_back(Waiting { peer, since: now, frames: Vec::new(), bytes: 0 });
            self.0.len() - 1
        });
        let Some(waiting) = self.0.get_mut(at) else { return dropped };
        for frame in frames {
            let bytes = waiting.bytes.saturating_add(frame.len() + FRAME_BYTES);
            if bytes > BYTES_MAX {
                dropped += 1;
                continue;
            }
            waiting.bytes = bytes;
            // A copy: the frame is a slice of a larger buffer.
            waiting.frames.push(Bytes::copy_from_slice(frame));
        }
        dropped
    }

    /// The frames of a peer, in order.
    pub(super) fn take(&mut self, peer: &PeerId) -> Vec<Bytes> {
        let at = self.0.iter().position(|waiting| waiting.peer == *peer);
        at.and_then(|at| self.0.remove(at)).map(|waiting| waiting.frames).unwrap_or_default()
    }

    /// Drops what waited for too long. Says how many frames that were.
    pub(super) fn forget_old(&mut self, now: Time) -> u64 {
        let mut dropped = 0;
        while self.0.front().is_some_and(|oldest| now.since(oldest.since) > AGE_MAX) {
            dropped += self.0.pop_front().map_or(0, |oldest| oldest.frames.len() as u64);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize, bytes: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![7; bytes]); count]
    }

    #[test]
    fn frames_wait_in_order_and_are_taken_once() {
        let (mut early, peer) = (Early::default(), PeerId::random());
        let list: Vec<Bytes> = (0..5).map(|n| Bytes::from(vec![n])).collect();
        assert_eq!(early.keep(Time::ZERO, peer, &list[..2]), 0);
        assert_eq!(early.keep(Time::ZERO, PeerId::random(), &frames(1, 1)), 0);
        assert_eq!(early.keep(Time::ZERO, peer, &list[2..]), 0);
        assert_eq!(early.take(&peer), list);
        assert_eq!(early.take(&peer), frames(0, 0));
    }

    #[test]
    fn bytes_peers_and_age_are_bounded() {
        let (mut early, first) = (Early::default(), PeerId::random());
        assert_eq!(early.keep(Time::ZERO, first, &frames(3, BYTES_MAX / 2)), 2);
        assert_eq!(early.keep(Time::ZERO, first, &frames(1, 1)), 0, "a small one still fits");
        for _ in 1..PEERS_MAX {
            assert_eq!(early.keep(Time::from_millis(1), PeerId::random(), &frames(1, 1)), 0);
        }
        assert_eq!(
            early.keep(Time::from_millis(1), PeerId::random(), &frames(1, 1)),
            2,
            "the first makes room"
        );
        assert!(early.take(&first).is_empty());
        assert_eq!(early.forget_old(Time::ZERO + AGE_MAX), 0);
        assert_eq!(early.forget_old(Time::from_millis(2) + AGE_MAX), PEERS_MAX as u64);
        assert!(early.0.is_empty());
    }
}
