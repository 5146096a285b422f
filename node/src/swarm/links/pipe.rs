//! A connection between two nodes of one process: bytes in order, each as late as the link says.
//!
//! ```text
//!  write ─► [(arrival, bytes) … (arrival, bytes)] ─► read, once the arrival has come
//!           at most WINDOW bytes under way
//! ```
//!
//! Bytes are never lost and never overtake each other, as on a TCP connection: what a network loses there comes
//! later. The end of a direction travels as long as the bytes before it.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes under way in one direction at most; then the writer waits. Source: guess, a generous socket buffer: a
/// 100 ms link then carries 84 Mbit/s.
const WINDOW: usize = 1 << 20;
/// The runtime's timers tick once in a millisecond, and so fire up to two ticks late: one until the tick, and one
/// for the wait in the kernel. They are set one tick early, so that a link is right on average.
const TICK: Duration = Duration::from_millis(1);

/// When what is written on one direction of a connection arrives.
pub(super) type Arrival = Box<dyn FnMut(Instant, usize) -> Instant + Send>;

/// Both ends of a new connection.
pub(super) fn pipe(there: Arrival, back: Arrival) -> (Pipe, Pipe) {
    let (there, back) = (Arc::new(Wire::new(there)), Arc::new(Wire::new(back)));
    let near = Pipe { incoming: Arc::clone(&back), outgoing: Arc::clone(&there), timer: None };
    (near, Pipe { incoming: there, outgoing: back, timer: None })
}

/// One end of a connection.
#[derive(Debug)]
pub(in crate::swarm) struct Pipe {
    incoming: Arc<Wire>,
    outgoing: Arc<Wire>,
    /// Made when first needed.
    timer: Option<Pin<Box<Sleep>>>,
}

/// One direction.
#[derive(Debug)]
struct Wire {
    state: Mutex<State>,
}

struct State {
    arrival: Arrival,
    /// The oldest first.
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// When the reader learns that no more is written.
    end: Option<Instant>,
    /// The reader is gone.
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wire {
    fn new(arrival: Arrival) -> Self {
        Wire {
            state: Mutex::new(State {
                arrival,
                chunks: VecDeque::new(),
                bytes: 0,
                end: None,
                is_broken: false,
                reader: None,
                writer: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours that can panic runs under the lock, and what is in there is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let reader = {
            let mut state = self.lock();
            if state.end.is_none() {
                state.end = Some((state.arrival)(Instant::now(), 0));
            }
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn break_off(&self) {
        let writer = {
            let mut state = self.lock();
            state.is_broken = true;
            (state.chunks, state.bytes) = (VecDeque::new(), 0);
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State { chunks, bytes, end, is_broken, .. } = self;
        f.debug_struct("State")
            .field("chunks", &chunks.len())
            .field("bytes", bytes)
            .field("end", end)
            .field("is_broken", is_broken)
            .finish_non_exhaustive()
    }
}

/// What a read finds.
enum Found {
    Bytes(usize),
    End,
    /// Nothing before then.
    Later(Instant),
    Nothing,
}

impl State {
    fn read(&mut self, buffer: &mut [u8]) -> Found {
        // Read once, and only if something waits.
        let mut now = None;
        let mut has_come = |at: Instant| at <= *now.get_or_insert_with(|| Instant::now() + TICK);
        let mut read = 0;
        while let Some((at, bytes)) = self.chunks.front_mut() {
            if !has_come(*at) {
                return if read > 0 { Found::Bytes(read) } else { Found::Later(*at) };
            }
            let Some(room) = buffer.get_mut(read..).filter(|room| !room.is_empty()) else { break };
            let count = room.len().min(bytes.len());
            bytes.copy_to_slice(&mut room[..count]);
            read += count;
            if bytes.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.bytes -= read;
        match self.end {
            _ if read > 0 => Found::Bytes(read),
            Some(at) if has_come(at) => Found::End,
            Some(at) => Found::Later(at),
            None => Found::Nothing,
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let mut state = this.incoming.lock();
            let at = match state.read(buffer) {
                Found::Bytes(read) => {
                    let writer = state.writer.take();
                    drop(state);
                    if let Some(writer) = writer {
                        writer.wake();
                    }
                    return Poll::Ready(Ok(read));
                }
                Found::End => return Poll::Ready(Ok(0)),
                Found::Nothing => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Found::Later(at) => at - TICK,
            };
            drop(state);
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            // What is written meanwhile arrives later, so nobody else needs to wake this.
            std::task::ready!(timer.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &self.outgoing;
        let (count, reader) = {
            let mut state = wire.lock();
            if state.is_broken || state.end.is_some() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = WINDOW - state.bytes;
            let Some(bytes) = bytes.get(..bytes.len().min(room)).filter(|bytes| !bytes.is_empty()) else {
                if bytes.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            };
            state.bytes += bytes.len();
            let arrival = (state.arrival)(Instant::now(), bytes.len());
            state.chunks.push_back((arrival, Bytes::copy_from_slice(bytes)));
            (bytes.len(), state.reader.take())
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.outgoing.end();
        self.incoming.break_off();
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, poll};

    use super::*;

    const LATENCY: Duration = Duration::from_millis(50);

    fn pipe(there: Duration, back: Duration) -> (Pipe, Pipe) {
        let after = |latency: Duration| -> Arrival { Box::new(move |at, _| at + latency) };
        super::pipe(after(there), after(back))
    }

    async fn read(pipe: &mut Pipe) -> Vec<u8> {
        let mut buffer = [0; 64];
        let read = pipe.read(&mut buffer).await.unwrap();
        buffer[..read].to_vec()
    }

    /// The virtual clock goes on when nothing else can, so these are exact but for the ticks of the timer.
    fn is_about(elapsed: Duration, expected: Duration) -> bool {
        elapsed + 2 * TICK >= expected && elapsed <= expected + 2 * TICK
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_in_order_and_as_late_as_the_link_says() {
        let (mut near, mut far) = pipe(LATENCY, 2 * LATENCY);
        let begun = Instant::now();
        near.write_all(b"one").await.unwrap();
        tokio::time::sleep(LATENCY / 2).await;
        near.write_all(b"two").await.unwrap();
        assert!(poll!(far.read(&mut [0; 8]).boxed()).is_pending());
        assert_eq!(read(&mut far).await, b"one");
        assert!(is_about(begun.elapsed(), LATENCY), "{:?}", begun.elapsed());
        assert_eq!(read(&mut far).await, b"two");
        assert!(is_about(begun.elapsed(), LATENCY * 3 / 2), "{:?}", begun.elapsed());
        far.write_all(b"back").await.unwrap();
        let answered = Instant::now();
        assert_eq!(read(&mut near).await, b"back");
        assert!(is_about(answered.elapsed(), 2 * LATENCY), "{:?}", answered.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_is_woken_by_the_first_bytes_and_by_the_end() {
        let (mut near, mut far) = pipe(LATENCY, LATENCY);
        let reader = tokio::spawn(async move {
            let first = read(&mut far).await;
            (first, read(&mut far).await, far)
        });
        tokio::task::yield_now().await;
        let begun = Instant::now();
        near.write_all(b"hello").await.unwrap();
        near.close().await.unwrap();
        let (first, end, far) = reader.await.unwrap();
        assert_eq!((&first[..], &end[..]), (&b"hello"[..], &b""[..]));
        assert!(is_about(begun.elapsed(), LATENCY));
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(far);
        assert_eq!(read(&mut near).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_room_and_learns_that_the_reader_is_gone() {
        let (mut near, mut far) = pipe(LATENCY, LATENCY);
        let written = near.write(&vec![7; 2 * WINDOW]).await.unwrap();
        assert_eq!(written, WINDOW);
        let writer = tokio::spawn(async move {
            near.write_all(b"more").await.unwrap();
            near
        });
        tokio::task::yield_now().await;
        assert!(!writer.is_finished());
        let mut all = vec![0; WINDOW];
        far.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
        assert_eq!(read(&mut far).await, b"more");
        let mut near = writer.await.unwrap();
        drop(far);
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn without_latency_no_timer_is_needed() {
        let (mut near, mut far) = pipe(Duration::ZERO, Duration::ZERO);
        near.write_all(b"now").await.unwrap();
        assert_eq!(read(&mut far).now_or_never().unwrap(), b"now");
        assert!(far.timer.is_none());
    }
}
