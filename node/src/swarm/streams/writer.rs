//! Writes what waits for a peer to one outgoing stream: all of it in one write and one flush.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::WRITE_BYTES;
use crate::swarm::event::DownReason;
use crate::swarm::frame::put_prefix;
use crate::swarm::metrics::StreamMetrics;
use crate::swarm::queue::{Queue, Take};

/// Kept for the next batch if it is no larger than this: one long frame should not cost its memory forever.
const SCRATCH_KEPT: usize = 2 * WRITE_BYTES;

/// How long to wait, at the end, for the peer to have read all.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes until the queue is finished (`None`) or the stream fails.
pub(super) async fn run(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    queue: Arc<Queue>,
    stall_timeout: Duration,
    metrics: Arc<StreamMetrics>,
) -> Option<DownReason> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut scratch: Vec<u8> = Vec::new();
    loop {
        match queue.take(&mut frames, WRITE_BYTES) {
            Take::Finished => {
                // The peer closes its end when it has read the last frame. Until then QUIC may hold frames that
                // would be lost with the connection.
                let last = async {
                    stream.close().await?;
                    stream.read(&mut [0]).await
                };
                let _ = timeout(CLOSE_TIMEOUT, last).await;
                return None;
            }
            Take::Empty => {
                // The peer never writes here: a read tells when it closes its end.
                let mut probe = [0];
                tokio::select! {
                    biased;
                    () = queue.changed() => {}
                    read = stream.read(&mut probe) => return Some(match read {
                        Ok(0) | Err(_) => DownReason::Closed,
                        Ok(_) => DownReason::Violation,
                    }),
                }
                continue;
            }
            Take::Frames => {}
        }
        let mut bytes = 0;
        for frame in &frames {
            put_prefix(frame.len(), &mut scratch);
            scratch.extend_from_slice(frame);
            bytes += frame.len();
        }
        let written = write(&mut stream, &scratch, &queue, stall_timeout).await;
        queue.written(bytes);
        if let Err(reason) = written {
            return Some(reason);
        }
        metrics.frames_sent.inc_by(frames.len() as u64);
        metrics.bytes_sent.inc_by(bytes as u64);
        metrics.writes.inc();
        frames.clear();
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT);
    }
}

/// Writes all of `bytes`, then flushes once.
async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    queue: &Queue,
    stall_timeout: Duration,
) -> Result<(), DownReason> {
    let mut shed_before = None;
    loop {
        let step = async {
            if bytes.is_empty() { stream.flush().await.map(|()| 0) } else { stream.write(bytes).await }
        };
        match timeout(stall_timeout, step).await {
            Ok(Ok(0)) if bytes.is_empty() => return Ok(()),
            Ok(Ok(written)) if written > 0 => {
                bytes = bytes.get(written..).unwrap_or_default();
                shed_before = None;
            }
            Ok(_) => return Err(DownReason::Closed),
            Err(_) => {
                // Not a byte for so long. An idle queue may wait on; a full or overflowing one may not.
                let (shed, full) = queue.pressure();
                if full || shed_before.is_some_and(|before| before != shed) {
                    return Err(DownReason::Stalled);
                }
                shed_before = Some(shed);
            }
        }
    }
}
