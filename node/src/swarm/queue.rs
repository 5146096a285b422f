//! What waits for one peer on one stream: three lanes, bounded together in count and bytes.
//!
//! ```text
//!   any thread ── try_send ──► [control][own][forwarded] ──► writer task ── one write, one flush ──► stream
//! ```
//!
//! Control goes before own messages before forwarded ones. When a new frame finds the queue full, frames of a
//! lower class make room for it, the lowest class first and in it the oldest first; among forwarded frames the
//! newest is worth most, so the oldest forwarded one also goes for a new forwarded one. An own or control frame
//! never goes for one of its own class: its sender is told instead. Everything shed is counted by class.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::metrics::StreamMetrics;

/// How much a frame matters; the order of the variants is the order of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The mesh itself depends on it: subscriptions, grafts, probes.
    Control,
    /// This node's own messages.
    Own,
    /// Others' messages, passed on.
    Forwarded,
}

impl Class {
    /// All, from the first to be sent to the last.
    pub const ALL: [Class; 3] = [Class::Control, Class::Own, Class::Forwarded];

    /// A word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Own => "own",
            Class::Forwarded => "forwarded",
        }
    }

    fn lane(self) -> usize {
        self as usize
    }
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// The peer takes frames too slowly, and nothing of a lower class waits.
    #[error("the queue to this peer is full")]
    Full,
    /// No stream would carry it.
    #[error("the frame has {length} bytes, more than the {max} of the longest")]
    TooLong {
        /// The frame's length in bytes.
        length: usize,
        /// The longest frame in bytes.
        max: usize,
    },
    /// The stream is gone; a new handle comes with the next stream.
    #[error("the stream to this peer is closed")]
    Closed,
}

/// The way to one peer on one stream. Cheap to clone, usable from any thread, never blocks.
///
/// It belongs to one stream: when that goes down, sending fails with [`Shed::Closed`], and the next
/// [`Event::StreamUp`](super::Event::StreamUp) brings another.
#[derive(Debug, Clone)]
pub struct Outbound {
    queue: Arc<Queue>,
}

/// What a queue holds and has done since its stream came up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Frames waiting.
    pub frames: usize,
    /// Bytes waiting.
    pub bytes: usize,
    /// Frames shed, by class in the order of [`Class::ALL`], refused new ones included.
    pub shed: [u64; 3],
}

impl Outbound {
    pub(super) fn new(limits: QueueLimits, metrics: Arc<StreamMetrics>) -> Self {
        let queue = Queue { limits, metrics, state: Mutex::default(), wake: Notify::new() };
        Outbound { queue: Arc::new(queue) }
    }

    /// Queues a frame for the peer.
    ///
    /// # Errors
    /// Tells why the frame was not queued; see [`Shed`]. Frames of a lower class that went for this one are
    /// counted, not reported.
    pub fn try_send(&self, class: Class, frame: Bytes) -> Result<(), Shed> {
        self.queue.push(class, frame)
    }

    /// Whether the stream is gone.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().phase != Phase::Open
    }

    /// What waits and what was shed.
    pub fn stats(&self) -> QueueStats {
        let state = self.queue.lock();
        QueueStats { frames: state.frames, bytes: state.bytes, shed: state.shed }
    }

    /// The longest frame it takes, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        self.queue.limits.frame_bytes_max
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

/// The bounds of a [`Queue`].
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub(super) frames: usize,
    pub(super) bytes: usize,
    pub(super) frame_bytes_max: usize,
}

/// The queue, shared by its handles and its writer.
#[derive(Debug)]
pub(super) struct Queue {
    limits: QueueLimits,
    metrics: Arc<StreamMetrics>,
    state: Mutex<State>,
    /// Wakes the writer; it alone waits.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    lanes: [VecDeque<Bytes>; 3],
    frames: usize,
    bytes: usize,
    shed: [u64; 3],
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Takes no more; what waits is still written.
    Finishing,
    Closed,
}

/// What the writer is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// Frames were taken: write them.
    Frames,
    /// Nothing waits.
    Empty,
    /// Nothing waits and nothing will: end the stream.
    Finished,
}

impl Queue {
    fn push(&self, class: Class, frame: Bytes) -> Result<(), Shed> {
        let result = {
            let mut state = self.lock();
            let result = self.push_locked(&mut state, class, frame);
            if result.is_err() {
                state.shed[class.lane()] += 1;
            }
            result
        };
        match result {
            Ok(was_empty) => {
                if was_empty {
                    self.wake.notify_one();
                }
                Ok(())
            }
            Err(shed) => {
                self.metrics.shed(class).inc();
                Err(shed)
            }
        }
    }

    /// Queues the frame; whether nothing waited before it.
    fn push_locked(&self, state: &mut State, class: Class, frame: Bytes) -> Result<bool, Shed> {
        if state.phase != Phase::Open {
            return Err(Shed::Closed);
        }
        let length = frame.len();
        if length > self.limits.frame_bytes_max {
            return Err(Shed::TooLong { length, max: self.limits.frame_bytes_max });
        }
        while state.frames >= self.limits.frames || state.bytes + length > self.limits.bytes {
            if state.frames == 0 {
                break; // A lone frame always fits: `bytes` is at least `frame_bytes_max`.
            }
            self.make_room(state, class)?;
        }
        let was_empty = state.frames == 0;
        state.frames += 1;
        state.bytes += length;
        state.lanes[class.lane()].push_back(frame);
        Ok(was_empty)
    }

    /// Sheds one frame that matters less than a new one of `class`.
    fn make_room(&self, state: &mut State, class: Class) -> Result<(), Shed> {
        for victim in [Class::Forwarded, Class::Own] {
            if victim < class || (victim == class && class != Class::Forwarded) {
                break;
            }
            if let Some(frame) = state.lanes[victim.lane()].pop_front() {
                state.frames -= 1;
                state.bytes -= frame.len();
                state.shed[victim.lane()] += 1;
                self.metrics.shed(victim).inc();
                return Ok(());
            }
        }
        Err(Shed::Full)
    }

    /// Moves frames, the first class first, to `into` until they have `bytes_max` bytes (at least one frame).
    pub(super) fn take(&self, into: &mut Vec<Bytes>, bytes_max: usize) -> Take {
        let mut state = self.lock();
        let state = &mut *state;
        let mut bytes = 0;
        'lanes: for lane in &mut state.lanes {
            while let Some(frame) = lane.front() {
                if bytes > 0 && bytes + frame.len() > bytes_max {
                    break 'lanes;
                }
                bytes += frame.len();
                into.extend(lane.pop_front());
                state.frames -= 1;
            }
        }
        state.bytes -= bytes;
        match state.phase {
            _ if !into.is_empty() => Take::Frames,
            Phase::Open => Take::Empty,
            Phase::Finishing | Phase::Closed => Take::Finished,
        }
    }

    /// Waits until [`Queue::take`] may have something new to say.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// How many frames were shed so far, and whether the queue is (nearly) full now.
    pub(super) fn pressure(&self) -> (u64, bool) {
        let state = self.lock();
        let full = state.frames >= self.limits.frames || 2 * state.bytes >= self.limits.bytes;
        (state.shed.iter().sum(), full)
    }

    /// Takes no more, and lets the writer write what waits.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Takes no more, and drops what waits.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        state.lanes = Default::default();
        (state.frames, state.bytes) = (0, 0);
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the counts would still be whole enough.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
