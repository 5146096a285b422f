//! Reads one incoming stream and hands what arrived together to the caller.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::AsyncRead;
use libp2p::PeerId;
use omnimesh_protocol::config::Part;

use super::{BATCH_BYTES, Settings};
use crate::memory::Account;
use crate::swarm::event::{Held, Inbound, Malformed};
use crate::swarm::frame::FrameBuffer;
use crate::swarm::queue::Class;

/// What ended a batch.
enum End {
    /// Nothing more had arrived, or the batch is full.
    Open,
    /// The stream has ended, cleanly or not.
    Closed,
    Malformed(Malformed),
    /// There is no memory for the frame that comes next.
    NoMemory,
}

/// Reads until the stream ends, breaks the framing or nobody wants the frames. Waits while the caller's
/// channel is full, which holds this peer back and nobody else.
pub(super) async fn run(mut stream: impl AsyncRead + Unpin, peer: PeerId, settings: Arc<Settings>) {
    let memory = Account::new(Arc::clone(settings.node_memory.part(Part::Connections)));
    let mut buffer = FrameBuffer::new(settings.config.frame_bytes_max, memory);
    loop {
        let mut frames = Vec::new();
        let mut bytes = 0;
        let end = poll_fn(|cx| poll_batch(&mut stream, &mut buffer, &mut frames, &mut bytes, cx)).await;
        if !frames.is_empty() && !deliver(peer, frames, bytes, &settings).await {
            return;
        }
        match end {
            End::Open => {}
            End::Closed => {
                if buffer.is_partial() {
                    tracing::debug!(%peer, kind = settings.kind.name(), "stream ended within a frame");
                }
                return;
            }
            End::NoMemory => {
                // The peer is not to blame; it opens another one in a while.
                buffer.memory().meter().shed(Class::Forwarded.priority(settings.kind), 1);
                tracing::debug!(%peer, kind = settings.kind.name(), "no memory for a long frame: its stream is closed");
                return;
            }
            End::Malformed(reason) => {
                settings.metrics.malformed.inc();
                // Closed first: the peer need not wait until the caller has time.
                drop(stream);
                let _ = settings.sink.send(Inbound::Malformed { peer, reason }).await;
                return;
            }
        }
    }
}

/// Reads all that has arrived, up to [`BATCH_BYTES`]; pending only if that is nothing.
fn poll_batch(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut FrameBuffer,
    frames: &mut Vec<Bytes>,
    bytes: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<End> {
    let mut budget = BATCH_BYTES;
    loop {
        let Ok(room) = buffer.room() else { return Poll::Ready(End::NoMemory) };
        let read = match Pin::new(&mut *stream).poll_read(cx, room) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(End::Closed),
            Poll::Ready(Ok(read)) => read,
            Poll::Pending if frames.is_empty() => return Poll::Pending,
            Poll::Pending => return Poll::Ready(End::Open),
        };
        buffer.advance(read);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => {
                    *bytes += frame.len();
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(reason) => return Poll::Ready(End::Malformed(reason)),
            }
        }
        budget = budget.saturating_sub(read);
        if budget == 0 {
            if !frames.is_empty() {
                return Poll::Ready(End::Open);
            }
            // A long frame is on its way: let others run, then go on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }
}

/// Waits for room and hands the frames on; whether somebody still wants them.
async fn deliver(peer: PeerId, frames: Vec<Bytes>, bytes: usize, settings: &Settings) -> bool {
    settings.metrics.frames_received.inc_by(frames.len() as u64);
    settings.metrics.bytes_received.inc_by(bytes as u64);
    // A batch larger than all the memory there is would wait forever; it may have all of it.
    let share = bytes.min(settings.config.inbound_bytes);
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    let held = match settings.memory.clone().acquire_many_owned(share).await {
        Ok(permit) => {
            let mut account = Account::new(Arc::clone(settings.node_memory.part(Part::Inbound)));
            account.force(share as usize);
            Held(Some((permit, account)))
        }
        Err(_) => return false,
    };
    settings.sink.send(Inbound::Frames { peer, frames, held }).await.is_ok()
}
