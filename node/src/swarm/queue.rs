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
//!
//! All queues of a node together share one part of its memory ([`Part::Outbound`](omnimesh_protocol::config::Part)). What a
//! queue may hold shrinks as that fills, sooner for what matters less; see [`crate::memory`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::event::StreamKind;
use super::metrics::StreamMetrics;
use crate::memory::{Account, Meter, Priority};

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

    /// How much a frame of this class matters among those of all streams.
    pub(super) fn priority(self, kind: StreamKind) -> Priority {
        match (kind, self) {
            (StreamKind::Control, _) | (StreamKind::Gossip, Class::Control) => Priority::Control,
            (StreamKind::Log, _) => Priority::Log,
            (StreamKind::Compute, _)
            | (StreamKind::Blob, Class::Control)
            | (StreamKind::Gossip, Class::Own) => Priority::Own,
            (StreamKind::Gossip, Class::Forwarded) => Priority::Forwarded,
            (StreamKind::Blob, _) => Priority::Bulk,
        }
    }
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// The peer takes frames too slowly, and nothing of a lower class waits.
    #[error("the queue to this peer is full")]
    Full,
    /// The queues to all peers together hold too much, and nothing of a lower class waits for this one.
    #[error("the queues to all peers together have no room for it (`limits.memory`)")]
    NoMemory,
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
    pub(super) fn new(
        kind: StreamKind,
        limits: QueueLimits,
        metrics: Arc<StreamMetrics>,
        memory: Arc<Meter>,
    ) -> Self {
        let state = State {
            lanes: Default::default(),
            shed: [0; 3],
            phase: Phase::Open,
            memory: Account::new(memory),
        };
        let queue = Queue { kind, limits, metrics, state: Mutex::new(state), wake: Notify::new() };
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
        let (frames, bytes) = state.size(&Class::ALL);
        QueueStats { frames, bytes, shed: state.shed }
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
    kind: StreamKind,
    limits: QueueLimits,
    metrics: Arc<StreamMetrics>,
    state: Mutex<State>,
    /// Wakes the writer; it alone waits.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    lanes: [Lane; 3],
    shed: [u64; 3],
    phase: Phase,
    /// For the bytes in the lanes, and those that were taken and are not written yet.
    memory: Account,
}

#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Lane {
    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

impl State {
    /// Frames and bytes in the lanes of these classes.
    fn size(&self, classes: &[Class]) -> (usize, usize) {
        classes
            .iter()
            .map(|class| &self.lanes[class.lane()])
            .fold((0, 0), |(frames, bytes), lane| (frames + lane.frames.len(), bytes + lane.bytes))
    }
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
            if let Err(shed) = result {
                state.shed[class.lane()] += 1;
                if shed == Shed::NoMemory {
                    state.memory.meter().shed(class.priority(self.kind), 1);
                }
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
        let (frames, bytes) = state.size(&Class::ALL);
        // What is over the bounds with the new frame in. Of its own bounds, a lone frame is always within.
        let (frames_over, bytes_over) = (
            (frames + 1).saturating_sub(self.limits.frames),
            (bytes + length).saturating_sub(self.limits.bytes),
        );
        if frames_over > 0 || bytes_over > 0 {
            self.make_room(state, class, frames_over, bytes_over).ok_or(Shed::Full)?;
        }
        // And of what all queues share.
        let priority = class.priority(self.kind);
        let share_over = state.memory.meter().over(priority, state.memory.held(), length);
        if share_over > 0 {
            let classes = self.make_room(state, class, 0, share_over).ok_or(Shed::NoMemory)?;
            for (class, count) in Class::ALL.into_iter().zip(classes) {
                state.memory.meter().shed(class.priority(self.kind), count);
            }
        }
        if !state.memory.grow(length) {
            return Err(Shed::NoMemory);
        }
        let lane = &mut state.lanes[class.lane()];
        lane.bytes += length;
        lane.frames.push_back(frame);
        Ok(frames == 0)
    }

    /// Sheds so many frames and bytes of what matters less than a new frame of `class`, or nothing if that
    /// is not enough. Says how many it shed of each class.
    fn make_room(
        &self,
        state: &mut State,
        class: Class,
        frames_over: usize,
        bytes_over: usize,
    ) -> Option<[u64; 3]> {
        let victims: &[Class] = match class {
            Class::Control => &[Class::Forwarded, Class::Own],
            Class::Own | Class::Forwarded => &[Class::Forwarded],
        };
        let (frames, bytes) = state.size(victims);
        if frames < frames_over || bytes < bytes_over {
            return None;
        }
        let (mut frames_shed, mut bytes_shed, mut classes) = (0, 0, [0; 3]);
        for victim in victims {
            while frames_shed < frames_over || bytes_shed < bytes_over {
                let Some(frame) = state.lanes[victim.lane()].pop() else { break };
                frames_shed += 1;
                bytes_shed += frame.len();
                state.memory.shrink(frame.len());
                state.shed[victim.lane()] += 1;
                classes[victim.lane()] += 1;
                self.metrics.shed(*victim).inc();
            }
        }
        Some(classes)
    }

    /// Moves frames, the first class first, to `into` until they have `bytes_max` bytes (at least one frame). They count
    /// as held until [`Queue::written`].
    pub(super) fn take(&self, into: &mut Vec<Bytes>, bytes_max: usize) -> Take {
        let mut state = self.lock();
        let mut bytes = 0;
        'lanes: for lane in &mut state.lanes {
            while let Some(frame) = lane.frames.front() {
                if bytes > 0 && bytes + frame.len() > bytes_max {
                    break 'lanes;
                }
                bytes += frame.len();
                into.extend(lane.pop());
            }
        }
        match state.phase {
            _ if !into.is_empty() => Take::Frames,
            Phase::Open => Take::Empty,
            Phase::Finishing | Phase::Closed => Take::Finished,
        }
    }

    /// Tells that so many bytes of what was taken are no longer held.
    pub(super) fn written(&self, bytes: usize) {
        self.lock().memory.shrink(bytes);
    }

    /// Waits until [`Queue::take`] may have something new to say.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// How many frames were shed so far, and whether the queue is (nearly) full now.
    pub(super) fn pressure(&self) -> (u64, bool) {
        let state = self.lock();
        let (frames, bytes) = state.size(&Class::ALL);
        let full = frames >= self.limits.frames || 2 * bytes >= self.limits.bytes;
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
        let (_, bytes) = state.size(&Class::ALL);
        state.memory.shrink(bytes);
        state.lanes = Default::default();
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the counts would still be whole enough.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(frames: usize, bytes: usize) -> Outbound {
        let limits = QueueLimits { frames, bytes, frame_bytes_max: bytes };
        Outbound::new(StreamKind::Gossip, limits, Arc::default(), Arc::new(Meter::new(1 << 20)))
    }

    /// One of a kind, of many that share the memory.
    fn sharing(kind: StreamKind, memory: &Arc<Meter>) -> Outbound {
        let limits = QueueLimits { frames: 1000, bytes: 1 << 20, frame_bytes_max: 1 << 20 };
        Outbound::new(kind, limits, Arc::default(), Arc::clone(memory))
    }

    #[test]
    fn all_queues_together_are_bounded_and_what_matters_most_is_shed_last() {
        let memory = Arc::new(Meter::new(10_000));
        let bytes = |length| Bytes::from(vec![7; length]);
        let greedy: Vec<_> = (0..20).map(|_| sharing(StreamKind::Gossip, &memory)).collect();
        for _ in 0..50 {
            for out in &greedy {
                let _ = out.try_send(Class::Forwarded, bytes(100));
            }
        }
        assert!(greedy.iter().all(|out| out.stats().bytes >= 400), "each has its part");
        assert_eq!(memory.used(), greedy.iter().map(|out| out.stats().bytes).sum::<usize>());
        let shed = |priority| memory.shed_of(priority);
        assert!(shed(Priority::Forwarded) > 0);
        // Others have queues that are empty. There is some room, for what matters.
        assert!(memory.free() >= 300, "{}", memory.free());
        let (blob, gossip) = (sharing(StreamKind::Blob, &memory), sharing(StreamKind::Gossip, &memory));
        assert_eq!(blob.try_send(Class::Own, bytes(300)), Err(Shed::NoMemory));
        gossip.try_send(Class::Control, bytes(300)).unwrap();
        assert_eq!((shed(Priority::Bulk), shed(Priority::Control)), (1, 0));
        // With nothing left, a queue's own forwarded frames still go for control.
        let full = Arc::new(Meter::new(100));
        let out = sharing(StreamKind::Gossip, &full);
        out.try_send(Class::Forwarded, bytes(100)).unwrap();
        out.try_send(Class::Control, bytes(100)).unwrap();
        assert_eq!((out.stats().shed, full.used()), ([0, 0, 1], 100));
        assert_eq!(out.try_send(Class::Control, bytes(1)), Err(Shed::NoMemory));
    }

    #[test]
    fn what_was_taken_counts_until_it_is_written_and_a_closed_queue_holds_nothing() {
        let memory = Arc::new(Meter::new(1000));
        let out = sharing(StreamKind::Log, &memory);
        out.try_send(Class::Own, frame("12345")).unwrap();
        out.try_send(Class::Own, frame("123")).unwrap();
        assert_eq!((taken(&out, 5).len(), memory.used()), (1, 8));
        out.queue().written(5);
        assert_eq!(memory.used(), 3);
        out.queue().close();
        assert_eq!(memory.used(), 0);
    }

    fn frame(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn taken(outbound: &Outbound, bytes_max: usize) -> Vec<String> {
        let mut frames = Vec::new();
        let _ = outbound.queue().take(&mut frames, bytes_max);
        frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect()
    }

    #[test]
    fn control_goes_first_and_each_class_keeps_its_order() {
        let out = outbound(10, 100);
        for (class, text) in [
            (Class::Forwarded, "f1"),
            (Class::Own, "o1"),
            (Class::Control, "c1"),
            (Class::Forwarded, "f2"),
            (Class::Own, "o2"),
            (Class::Control, "c2"),
        ] {
            out.try_send(class, frame(text)).unwrap();
        }
        assert_eq!(taken(&out, 4), ["c1", "c2"]);
        assert_eq!(taken(&out, 100), ["o1", "o2", "f1", "f2"]);
        assert_eq!(out.stats(), QueueStats::default());
    }

    #[test]
    fn the_oldest_forwarded_frame_is_shed_first() {
        let out = outbound(3, 100);
        for text in ["f1", "f2", "f3", "f4"] {
            out.try_send(Class::Forwarded, frame(text)).unwrap();
        }
        out.try_send(Class::Own, frame("o1")).unwrap();
        out.try_send(Class::Control, frame("c1")).unwrap();
        assert_eq!(out.stats().shed, [0, 0, 3]);
        assert_eq!(taken(&out, 100), ["c1", "o1", "f4"]);
    }

    #[test]
    fn own_frames_go_for_control_only_and_control_for_nothing() {
        let out = outbound(2, 100);
        out.try_send(Class::Own, frame("o1")).unwrap();
        out.try_send(Class::Own, frame("o2")).unwrap();
        assert_eq!(out.try_send(Class::Own, frame("o3")), Err(Shed::Full));
        assert_eq!(out.try_send(Class::Forwarded, frame("f1")), Err(Shed::Full));
        out.try_send(Class::Control, frame("c1")).unwrap();
        out.try_send(Class::Control, frame("c2")).unwrap();
        assert_eq!(out.try_send(Class::Control, frame("c3")), Err(Shed::Full));
        assert_eq!(out.stats().shed, [1, 3, 1]);
        assert_eq!(taken(&out, 100), ["c1", "c2"]);
    }

    #[test]
    fn bytes_are_bounded_and_nothing_is_shed_in_vain() {
        let out = outbound(100, 10);
        out.try_send(Class::Own, frame("12345678")).unwrap();
        out.try_send(Class::Forwarded, frame("ab")).unwrap();
        // Even without the forwarded frame it would not fit.
        assert_eq!(out.try_send(Class::Forwarded, frame("abc")), Err(Shed::Full));
        assert_eq!(out.stats(), QueueStats { frames: 2, bytes: 10, shed: [0, 0, 1] });
        out.try_send(Class::Control, frame("abc")).unwrap();
        assert_eq!(out.stats(), QueueStats { frames: 1, bytes: 3, shed: [0, 1, 2] });
        let long = Err(Shed::TooLong { length: 11, max: 10 });
        assert_eq!(out.try_send(Class::Control, frame("12345678901")), long);
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_a_finished_one_is_emptied_first() {
        let out = outbound(10, 100);
        out.try_send(Class::Own, frame("o1")).unwrap();
        out.queue().finish();
        assert_eq!(out.try_send(Class::Own, frame("o2")), Err(Shed::Closed));
        let mut frames = Vec::new();
        assert_eq!(out.queue().take(&mut frames, 10), Take::Frames);
        frames.clear();
        assert_eq!(out.queue().take(&mut frames, 10), Take::Finished);
        let out = outbound(10, 100);
        out.try_send(Class::Own, frame("o1")).unwrap();
        assert_eq!(out.queue().take(&mut frames, 10), Take::Frames);
        frames.clear();
        assert_eq!(out.queue().take(&mut frames, 10), Take::Empty);
        out.queue().close();
        assert!(out.is_closed());
        assert_eq!(out.queue().take(&mut frames, 10), Take::Finished);
    }
}
