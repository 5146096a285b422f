//! The event queue of a shard: a ring of windows of virtual time.
//!
//! No frame arrives in the window in which it was sent, as no link is faster than a window is long. So the
//! events of a window are all known when it begins, but for a node's own timers; their order across nodes does
//! not matter, and within a node it follows from their content. Putting an event in takes no comparison.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::vec::Drain;

use super::packet::Packet;

#[derive(Debug)]
pub(super) enum What {
    /// A frame, on the connection of that age.
    Arrive { packet: Box<Packet>, age: u32, is_read: bool },
    /// The connection of that age ended at the other side.
    Closed { age: u32 },
    /// A timer of the node's own may be due.
    Wake,
}

/// Something that happens to a node.
#[derive(Debug)]
pub(super) struct Event {
    /// Global time, in nanoseconds.
    pub(super) at: u64,
    /// To which node.
    pub(super) to: u32,
    /// Because of which.
    pub(super) from: u32,
    /// A number that grows with each event of `from`.
    pub(super) order: u64,
    pub(super) what: What,
}

impl Event {
    /// Brings its frame into the cache.
    pub(super) fn fetch(&self) {
        if let What::Arrive { packet, .. } = &self.what {
            black_box(matches!(**packet, Packet::Gossip(_)));
        }
    }

    /// The order in which events happen: it does not depend on who put them in when.
    pub(super) fn key(&self) -> (u32, u64, u32, u64) {
        (self.to, self.at, self.from, self.order)
    }
}

/// Events that are being worked off, in their order.
#[derive(Debug)]
pub(super) struct Due<'a>(pub(super) Drain<'a, Event>);

impl Due<'_> {
    pub(super) fn peek(&self) -> Option<&Event> {
        self.0.as_slice().first()
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.0.next()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next ones, at most so many.
    pub(super) fn ahead(&self, count: usize) -> &[Event] {
        let all = self.0.as_slice();
        all.get(..count).unwrap_or(all)
    }
}

/// Windows kept in the ring; later ones wait in a map.
const WINDOWS: usize = 1024;

/// Emptied windows whose room is kept.
const SPARE_MAX: usize = 8;

/// The events of a shard.
#[derive(Debug)]
pub(super) struct Ring {
    window_ns: u64,
    /// The number of the first window in the ring.
    first: u64,
    windows: Vec<Vec<Event>>,
    later: BTreeMap<u64, Vec<Event>>,
    /// Room of windows that are over, for those to come: a window keeps none, or each would keep as much as the
    /// busiest needs.
    spare: Vec<Vec<Event>>,
    len: usize,
    /// All before this was taken.
    taken: u64,
}

impl Ring {
    pub(super) fn new(window_ns: u64) -> Self {
        let windows = (0..WINDOWS).map(|_| Vec::new()).collect();
        Ring { window_ns, first: 0, windows, later: BTreeMap::new(), spare: Vec::new(), len: 0, taken: 0 }
    }

    pub(super) fn push(&mut self, event: Event) {
        debug_assert!(event.at >= self.taken, "{event:?} comes after {}", self.taken);
        self.len += 1;
        let window = (event.at / self.window_ns).max(self.first);
        if window - self.first < WINDOWS as u64 {
            let events = &mut self.windows[slot(window)];
            if events.capacity() == 0 {
                *events = self.spare.pop().unwrap_or_default();
            }
            events.push(event);
        } else {
            self.later.entry(window).or_default().push(event);
        }
    }

    /// Takes the events of a window that come before `end`. Windows are taken in order.
    pub(super) fn take(&mut self, window: u64, end: u64) -> Vec<Event> {
        self.advance(window);
        let events = &mut self.windows[slot(window)];
        let taken = if end >= (window + 1) * self.window_ns {
            std::mem::take(events)
        } else {
            events.extract_if(.., |event| event.at < end).collect()
        };
        self.len -= taken.len();
        self.taken = end;
        taken
    }

    /// Takes back the room of what was taken.
    pub(super) fn reuse(&mut self, mut room: Vec<Event>) {
        room.clear();
        if self.spare.len() < SPARE_MAX && room.capacity() > 0 {
            self.spare.push(room);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn advance(&mut self, window: u64) {
        while self.first < window {
            debug_assert!(self.windows[slot(self.first)].is_empty(), "every event was taken");
            self.first += 1;
            let newest = self.first + WINDOWS as u64 - 1;
            if let Some(mut events) = self.later.remove(&newest) {
                self.windows[slot(newest)].append(&mut events);
            }
        }
    }
}

fn slot(window: u64) -> usize {
    usize::try_from(window % WINDOWS as u64).expect("a small number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_their_window_however_late() {
        let mut ring = Ring::new(10);
        for at in [5, 12, 19, 10 * 5000 + 3, 10 * 1023] {
            ring.push(Event { at, to: 0, from: 0, order: at, what: What::Wake });
        }
        let mut seen = Vec::new();
        for window in 0..=5000 {
            let events = ring.take(window, (window + 1) * 10);
            seen.extend(events.iter().map(|event| (window, event.at)));
        }
        assert_eq!(seen, [(0, 5), (1, 12), (1, 19), (1023, 10_230), (5000, 50_003)]);
        assert_eq!(ring.len(), 0);
    }

    #[test]
    fn a_window_can_be_taken_in_parts() {
        let mut ring = Ring::new(10);
        for at in [2, 8, 4] {
            ring.push(Event { at, to: 0, from: 0, order: at, what: What::Wake });
        }
        let events = ring.take(0, 5);
        assert_eq!(events.iter().map(|event| event.at).collect::<Vec<_>>(), [2, 4]);
        let events = ring.take(0, 10);
        assert_eq!(events.iter().map(|event| event.at).collect::<Vec<_>>(), [8]);
    }
}
