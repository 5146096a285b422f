//! What the comparison and its node processes say to each other, a JSON document per line, and the payloads.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The channel, or topic, of all messages.
pub(super) const CHANNEL: &str = "bench";
/// A payload begins with its round, its number and when it was due.
pub(super) const STAMP_BYTES: usize = 16;

/// To a node process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// How many peers are connected?
    Peers,
    /// These messages will come; say when they are all here.
    Expect { round: u32, count: u32 },
    /// Publish them.
    Publish(Load),
    /// Publish no more of them.
    Stop,
    /// What has come?
    Collect,
}

/// Messages to publish.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) round: u32,
    pub(super) count: u32,
    /// Messages per second.
    pub(super) rate: f64,
    /// Bytes of a payload.
    pub(super) bytes: usize,
    /// Latency counts from when a message is handed over, not from when it was due: timers are late by up to
    /// a millisecond, which would hide the difference between two short times.
    pub(super) from_handover: bool,
}

/// From a node process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Where the others reach it; the first thing it says.
    Listening(String),
    Peers(usize),
    /// It counts from now on.
    Expecting {
        round: u32,
    },
    /// All that was expected has come.
    Arrived {
        round: u32,
    },
    /// The last message was handed over; so many were taken, and when the first was due.
    Published {
        round: u32,
        taken: u32,
        first_us: u64,
    },
    Collected(Collected),
}

/// What a node received in a round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Collected {
    pub(super) received: u32,
    /// When the last one came, in microseconds of Unix time.
    pub(super) last_us: u64,
    /// From when each was due, or handed over, to when it was here, in microseconds.
    pub(super) latencies_us: Vec<u32>,
    /// What the node itself knows of losses, for people.
    pub(super) trouble: Option<String>,
}

/// Unix time in microseconds: the one clock that all processes of a machine share.
pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Counts what comes of a round, each message once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    round: u32,
    seen: Vec<bool>,
    so_far: Collected,
}

impl Tally {
    pub(super) fn expect(&mut self, round: u32, count: u32) {
        *self = Tally { round, seen: vec![false; count as usize], so_far: Collected::default() };
    }

    /// Takes a payload; an answer if it was the last one that was expected.
    pub(super) fn note(&mut self, payload: &[u8]) -> Option<Reply> {
        let (round, number, due_us) = read_stamp(payload)?;
        let seen = self.seen.get_mut(number as usize).filter(|_| round == self.round)?;
        if std::mem::replace(seen, true) {
            return None;
        }
        let now = now_us();
        self.so_far.received += 1;
        self.so_far.last_us = now;
        self.so_far.latencies_us.push(u32::try_from(now.saturating_sub(due_us)).unwrap_or(u32::MAX));
        (self.so_far.received as usize == self.seen.len()).then_some(Reply::Arrived { round })
    }

    pub(super) fn collect(&mut self, trouble: Option<String>) -> Reply {
        let so_far = std::mem::take(&mut self.so_far);
        let mut missing = self.seen.iter().zip(0_u32..).filter(|(seen, _)| !**seen).map(|(_, number)| number);
        let first = missing.next();
        let last = missing.last().or(first);
        let gap = first.zip(last).map(|(first, last)| format!("misses some of {first} to {last}"));
        let trouble = gap.into_iter().chain(trouble).reduce(|gap, other| format!("{gap}, {other}"));
        Reply::Collected(Collected { trouble, ..so_far })
    }
}

fn read_stamp(payload: &[u8]) -> Option<(u32, u32, u64)> {
    let (round, rest) = payload.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (due_us, _) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*round), u32::from_le_bytes(*number), u64::from_le_bytes(*due_us)))
}

/// Messages on a schedule: message `i` is due `i / rate` seconds after the first, whatever becomes of the
/// others, so that a publisher that falls behind shows as latency.
#[derive(Debug)]
pub(super) struct Schedule {
    load: Load,
    first_us: u64,
    next: u32,
    stopped: bool,
    answered: u32,
    taken: u32,
}

impl Schedule {
    pub(super) fn begin(load: Load) -> Self {
        Schedule { load, first_us: now_us(), next: 0, stopped: false, answered: 0, taken: 0 }
    }

    /// The next payload, if one is due.
    pub(super) fn next_due(&mut self) -> Option<Bytes> {
        if self.is_through() || now_us() < self.due_us() {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a filler")]
        let mut payload = vec![self.next as u8; self.load.bytes.max(STAMP_BYTES)];
        payload[..4].copy_from_slice(&self.load.round.to_le_bytes());
        payload[4..8].copy_from_slice(&self.next.to_le_bytes());
        let stamp_us = if self.load.from_handover { now_us() } else { self.due_us() };
        payload[8..16].copy_from_slice(&stamp_us.to_le_bytes());
        self.next += 1;
        Some(payload.into())
    }

    /// When the next one is due, in microseconds of Unix time.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within a round")]
    pub(super) fn due_us(&self) -> u64 {
        self.first_us + (f64::from(self.next) / self.load.rate * 1e6) as u64
    }

    /// Notes what became of one; an answer if it was the last.
    pub(super) fn on_answer(&mut self, taken: bool) -> Option<Reply> {
        self.answered += 1;
        self.taken += u32::from(taken);
        self.reply()
    }

    /// Hands out no more; an answer if nothing is under way.
    pub(super) fn stop(&mut self) -> Option<Reply> {
        self.stopped = true;
        self.reply()
    }

    pub(super) fn is_through(&self) -> bool {
        self.stopped || self.next >= self.load.count
    }

    fn reply(&self) -> Option<Reply> {
        let Load { round, .. } = self.load;
        let done = self.is_through() && self.answered == self.next;
        done.then_some(Reply::Published { round, taken: self.taken, first_us: self.first_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_counted_once() {
        let mut schedule =
            Schedule::begin(Load { round: 3, count: 2, rate: 1e9, bytes: 20, from_handover: false });
        let mut tally = Tally::default();
        tally.expect(3, 2);
        let first = schedule.next_due().unwrap();
        let second = schedule.next_due().unwrap();
        assert!(schedule.next_due().is_none());
        assert!(schedule.on_answer(true).is_none());
        assert!(matches!(schedule.on_answer(false), Some(Reply::Published { round: 3, taken: 1, .. })));
        assert!(tally.note(&first).is_none());
        assert!(tally.note(&first).is_none());
        assert!(matches!(tally.note(&second), Some(Reply::Arrived { round: 3 })));
        let Reply::Collected(collected) = tally.collect(None) else { panic!("an answer") };
        assert_eq!((collected.received, collected.latencies_us.len()), (2, 2));
        tally.expect(4, 2);
        assert!(tally.note(&first).is_none(), "of an earlier round");
        assert!(tally.note(b"short").is_none());
    }
}
