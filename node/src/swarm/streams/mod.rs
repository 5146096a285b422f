//! Long-lived one-way streams to every connected peer: one [`Behaviour`] per kind.
//!
//! ```text
//!   connected ──► opening ──► up ──► (stream or connection dies) ──► waiting ──► opening …
//!                    │                                                  │
//!                    ├── no protocol in common: unsupported             └── too often: given up
//! ```
//!
//! The behaviour asks the handler of one connection to open a stream and gives the negotiated one to a writer
//! task; it gives what the peer opens to a reader task, a newer one in place of an older. If the peer has
//! another connection when the stream dies, the stream is opened there. If the newer one is on another connection, the peer
//! has lost the older connection (it was killed, and is back), which is closed.
//!
//! **Bounds.** One outgoing and one incoming stream per peer; [`ATTEMPTS_MAX`] attempts in a row;
//! [`INBOUND_PER_CONNECTION`] incoming streams in the life of a connection; [`DRAINING_MAX`] readers of streams
//! whose connection is gone.

mod behaviour;
mod handler;
mod reader;
mod writer;

use std::sync::Arc;

use libp2p::StreamProtocol;
use tokio::sync::{Semaphore, mpsc};

pub(super) use behaviour::Behaviour;

use super::config::StreamConfig;
use super::event::{Inbound, StreamKind};
use super::metrics::StreamMetrics;
use super::queue::QueueLimits;
use crate::memory::Memory;

/// A writer takes this many bytes from the queue at once: enough for few writes, little enough that what is
/// queued meanwhile can still go first.
pub(super) const WRITE_BYTES: usize = 64 << 10;

/// A reader hands on what it has at this many bytes, even if more has arrived.
const BATCH_BYTES: usize = 64 << 10;

/// Attempts to open a stream in a row, before giving up until the peer makes a new connection.
const ATTEMPTS_MAX: u32 = 6;

/// Incoming streams in the life of one connection; a peer that opens more is cut off. An honest one opens one,
/// and another after each trouble.
const INBOUND_PER_CONNECTION: u32 = 64;

/// Readers that finish what a peer sent before it went; the oldest is stopped beyond this.
const DRAINING_MAX: usize = 64;

/// What all streams of a kind share.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) kind: StreamKind,
    /// What is offered and accepted, the best first.
    pub(super) protocols: Arc<[StreamProtocol]>,
    pub(super) config: StreamConfig,
    /// Where frames go.
    pub(super) sink: mpsc::Sender<Inbound>,
    /// The memory for frames on their way to the caller.
    pub(super) memory: Arc<Semaphore>,
    /// The memory of the whole node, by part.
    pub(super) node_memory: Memory,
    pub(super) metrics: Arc<StreamMetrics>,
}

impl Settings {
    fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            frames: self.config.queue_frames.max(1),
            bytes: self.config.queue_bytes.max(self.config.frame_bytes_max),
            frame_bytes_max: self.config.frame_bytes_max,
        }
    }
}
