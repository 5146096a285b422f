//! Writes what waits for a peer to one outgoing stream: short frames together in one write, long ones as they lie, one flush.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::WRITE_BYTES;
use crate::swarm::config::StreamConfig;
use crate::swarm::event::DownReason;
use crate::swarm::frame::put_prefix;
use crate::swarm::metrics::StreamMetrics;
use crate::swarm::queue::{Queue, Take};

/// Writes until the queue is finished (`None`) or the stream fails.
pub(super) async fn run(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    queue: Arc<Queue>,
    config: StreamConfig,
    metrics: Arc<StreamMetrics>,
) -> Option<DownReason> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut scratch: Vec<u8> = Vec::new();
    let patience = Patience { queue: &queue, timeout: config.stall_timeout };
    loop {
        match queue.take(&mut frames, WRITE_BYTES) {
            Take::Finished => {
                // The peer closes its end when it has read the last frame. Until then QUIC may hold frames that
                // would be lost with the connection.
                let last = async {
                    stream.close().await?;
                    stream.read(&mut [0]).await
                };
                let _ = timeout(config.finish_timeout, last).await;
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
        let bytes = frames.iter().map(Bytes::len).sum();
        let written = write_frames(&mut stream, &frames, &mut scratch, &patience).await;
        queue.written(bytes);
        if let Err(reason) = written {
            return Some(reason);
        }
        metrics.frames_sent.inc_by(frames.len() as u64);
        metrics.bytes_sent.inc_by(bytes as u64);
        metrics.writes.inc();
        frames.clear();
    }
}

/// Writes frames with their prefixes, then flushes once. A frame that fills a write by itself is not copied.
async fn write_frames(
    stream: &mut (impl AsyncWrite + Unpin),
    frames: &[Bytes],
    scratch: &mut Vec<u8>,
    patience: &Patience<'_>,
) -> Result<(), DownReason> {
    for frame in frames {
        put_prefix(frame.len(), scratch);
        if frame.len() < WRITE_BYTES {
            scratch.extend_from_slice(frame);
        } else {
            write(stream, scratch, patience).await?;
            scratch.clear();
            write(stream, frame, patience).await?;
        }
    }
    write(stream, scratch, patience).await?;
    scratch.clear();
    patience.with(|cx| Pin::new(&mut *stream).poll_flush(cx)).await
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    patience: &Patience<'_>,
) -> Result<(), DownReason> {
    while !bytes.is_empty() {
        match patience.with(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await? {
            0 => return Err(DownReason::Closed),
            written => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// How long a peer may take nothing.
struct Patience<'a> {
    queue: &'a Queue,
    timeout: Duration,
}

impl Patience<'_> {
    /// Waits for a step. An idle queue may wait on when not a byte moved for so long; a full or overflowing one may not.
    async fn with<T>(
        &self,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Result<T, DownReason> {
        let mut shed_before = None;
        loop {
            match timeout(self.timeout, poll_fn(&mut step)).await {
                Ok(done) => return done.map_err(|_| DownReason::Closed),
                Err(_) => {
                    let (shed, full) = self.queue.pressure();
                    if full || shed_before.is_some_and(|before| before != shed) {
                        return Err(DownReason::Stalled);
                    }
                    shed_before = Some(shed);
                }
            }
        }
    }
}
