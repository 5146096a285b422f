//! What a Yamux connection holds: bytes that came and nobody has read, and bytes that wait for the socket.
//!
//! ```text
//!   socket ─► Metered ─► yamux ─► Substream ─► whoever reads      held = came - read
//!   socket ◄─ Metered ◄─ yamux ◄─ Substream ◄─ whoever writes     unsent = taken - written
//! ```
//!
//! Yamux lets a peer send 256 KiB unasked on every stream, so that some hundreds of connections could hold gigabytes. Here
//! all of them share the memory for connections: when half of it is used, a connection that holds more than its
//! floor is not read from until its streams are read. Then TCP holds its peer back. Those below the floor go on; so
//! a few that flood do not hold up the rest. A connection that stays like that no longer answers pings, and is closed.
//!
//! To know what is read of what, the heads of incoming frames are looked at. The count may be too high for a peer
//! that opens streams which are refused; it pays for that itself, and at most until its connection ends.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, Future as _};
use tokio::time::{Sleep, sleep};

use crate::memory::Account;

/// The head of a frame: version, type, flags, stream, length (Yamux specification, "Framing").
const HEAD_BYTES: usize = 12;
const TYPE_DATA: u8 = 0;
const FLAG_SYN: u16 = 1;

/// Streams that a connection is told of and that are not closed; far more than Yamux would open.
const STREAMS_MAX: usize = 2048;

/// Between two looks whether a connection that is held back may go on because others hold less.
const LOOK: Duration = Duration::from_millis(50);

/// What one connection may have waiting for its socket: two writes of ours. Beyond it, what is sent waits in the queue,
/// where what matters more overtakes it, and where it can be shed.
const UNSENT_MAX: usize = 2 * super::streams::WRITE_BYTES;

/// Less room than this is not used, unless it is enough: or there would be many small frames.
const UNSENT_STEP: usize = 16 << 10;

/// What one connection holds; shared by its socket and its streams.
#[derive(Debug)]
pub(super) struct Held(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Bytes that came for each open stream and were not read.
    streams: BTreeMap<u32, usize>,
    memory: Account,
    floor: usize,
    unsent: usize,
    /// Of the connection, when it is held back.
    reader: Option<Waker>,
    /// Of streams that wait until less is unsent.
    writers: Vec<Waker>,
    /// The socket is gone: nothing waits for it any more.
    is_over: bool,
}

impl Held {
    pub(super) fn new(memory: Account, floor: usize) -> Arc<Self> {
        Arc::new(Held(Mutex::new(State {
            streams: BTreeMap::new(),
            memory,
            floor,
            unsent: 0,
            reader: None,
            writers: Vec::new(),
            is_over: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection is to be held back; remembers whom to wake.
    fn must_wait(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        let meter = state.memory.meter();
        let waits = state.memory.held() > state.floor && meter.used() > meter.limit() / 2;
        if waits {
            state.reader = Some(cx.waker().clone());
        }
        waits
    }

    /// A frame with data begins. False if there are too many streams.
    fn on_data(&self, stream: u32, bytes: usize, is_new: bool) -> bool {
        let mut state = self.lock();
        if is_new {
            state.streams.entry(stream).or_default();
        }
        // What comes for a stream that is closed already is not kept.
        if let Some(held) = state.streams.get_mut(&stream) {
            *held += bytes;
            state.memory.force(bytes);
        }
        state.streams.len() <= STREAMS_MAX
    }

    fn open(&self, stream: u32) {
        self.lock().streams.entry(stream).or_default();
    }

    fn on_read(&self, stream: u32, bytes: usize) {
        let reader = {
            let mut state = self.lock();
            let Some(held) = state.streams.get_mut(&stream) else { return };
            let bytes = bytes.min(*held);
            *held -= bytes;
            state.memory.shrink(bytes);
            if state.memory.held() <= state.floor { state.reader.take() } else { None }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn close(&self, stream: u32) {
        let reader = {
            let mut state = self.lock();
            let held = state.streams.remove(&stream).unwrap_or_default();
            state.memory.shrink(held);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// How many of these bytes may wait for the socket now; none: the waker is called when there may be some.
    fn room_to_send(&self, cx: &Context<'_>, wanted: usize) -> usize {
        let mut state = self.lock();
        if state.is_over {
            // Yamux says that the stream has ended.
            return wanted;
        }
        let room = UNSENT_MAX.saturating_sub(state.unsent);
        if room >= wanted.min(UNSENT_STEP) {
            return room.min(wanted);
        }
        if !state.writers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.writers.push(cx.waker().clone());
        }
        0
    }

    /// The connection has ended, with what was unsent.
    fn end(&self) {
        let writers = {
            let mut state = self.lock();
            state.is_over = true;
            std::mem::take(&mut state.writers)
        };
        writers.into_iter().for_each(Waker::wake);
    }

    fn on_taken(&self, bytes: usize) {
        self.lock().unsent += bytes;
    }

    /// So much went to the socket, heads of frames included, so that the count is rather too low.
    fn on_sent(&self, bytes: usize) {
        let writers = {
            let mut state = self.lock();
            state.unsent = state.unsent.saturating_sub(bytes);
            if state.unsent + UNSENT_STEP <= UNSENT_MAX {
                std::mem::take(&mut state.writers)
            } else {
                Vec::new()
            }
        };
        writers.into_iter().for_each(Waker::wake);
    }
}

/// The socket below Yamux.
#[derive(Debug)]
pub(super) struct Metered<C> {
    socket: C,
    held: Arc<Held>,
    head: [u8; HEAD_BYTES],
    /// Bytes of a head that were read.
    filled: usize,
    /// Bytes of the frame's body that are still to come.
    body: usize,
    /// To look again, while it is held back.
    look: Option<Pin<Box<Sleep>>>,
}

impl<C> Metered<C> {
    pub(super) fn new(socket: C, held: Arc<Held>) -> Self {
        Metered { socket, held, head: [0; HEAD_BYTES], filled: 0, body: 0, look: None }
    }

    /// Looks at what was read.
    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let (_, rest) = bytes.split_at(self.body.min(bytes.len()));
                self.body -= bytes.len() - rest.len();
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at((HEAD_BYTES - self.filled).min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.filled..self.filled + head.len()) {
                place.copy_from_slice(head);
            }
            self.filled += head.len();
            bytes = rest;
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                self.on_head()?;
            }
        }
        Ok(())
    }

    fn on_head(&mut self) -> io::Result<()> {
        let [_, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = self.head;
        let is_new = u16::from_be_bytes([f0, f1]) & FLAG_SYN != 0;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let length = if kind == TYPE_DATA { u32::from_be_bytes([l0, l1, l2, l3]) } else { 0 };
        // Yamux itself refuses one that is longer than its window.
        self.body = usize::try_from(length).unwrap_or(usize::MAX);
        let counted = self.body.min(yamux::DEFAULT_CREDIT as usize * 64);
        if self.held.on_data(stream, counted, is_new) {
            Ok(())
        } else {
            Err(io::Error::other("the peer opened too many streams"))
        }
    }
}

impl<C> Drop for Metered<C> {
    fn drop(&mut self) {
        self.held.end();
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // Not in the middle of a frame, whose begin nobody could read.
        while this.body == 0 && this.filled == 0 && this.held.must_wait(cx) {
            let look = this.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            ready!(look.as_mut().poll(cx));
            this.look = None;
        }
        this.look = None;
        // One frame at a time, or much could come before the next look.
        let most = if this.body > 0 { this.body } else { HEAD_BYTES - this.filled };
        let most = most.min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        let read = ready!(Pin::new(&mut this.socket).poll_read(cx, room))?;
        let came = room.get(..read).unwrap_or_default();
        this.follow(came)?;
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.held.on_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// A stream above Yamux.
#[derive(Debug)]
pub(super) struct Substream {
    stream: yamux::Stream,
    held: Arc<Held>,
}

impl Substream {
    pub(super) fn new(stream: yamux::Stream, held: Arc<Held>) -> Self {
        held.open(stream.id().val());
        Substream { stream, held }
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        self.held.close(self.stream.id().val());
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.held.on_read(self.stream.id().val(), read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.held.room_to_send(cx, bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        let bytes = bytes.get(..room).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.held.on_taken(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use futures::FutureExt as _;
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};

    use tokio::time::timeout;

    use super::*;
    use crate::memory::Meter;

    const FLOOR: usize = 1000;

    /// What came from a peer and is not read, and what went to it.
    #[derive(Default)]
    struct Wire {
        came: Vec<u8>,
        went: usize,
        is_stuck: bool,
    }

    impl AsyncRead for Wire {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let length = buffer.len().min(self.came.len());
            if length == 0 {
                return Poll::Pending;
            }
            for (place, byte) in buffer.iter_mut().zip(self.came.drain(..length)) {
                *place = byte;
            }
            Poll::Ready(Ok(length))
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.is_stuck {
                return Poll::Pending;
            }
            self.went += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn frame(stream: u32, is_new: bool, bytes: usize) -> Vec<u8> {
        let mut frame = vec![0, TYPE_DATA];
        frame.extend(u16::from(is_new).to_be_bytes());
        frame.extend(stream.to_be_bytes());
        frame.extend(u32::try_from(bytes).unwrap().to_be_bytes());
        frame.resize(frame.len() + bytes, 7);
        frame
    }

    fn metered(memory: &Arc<Meter>) -> (Metered<Wire>, Arc<Held>) {
        let held = Held::new(Account::new(Arc::clone(memory)), FLOOR);
        (Metered::new(Wire::default(), Arc::clone(&held)), held)
    }

    /// Reads what it is given now.
    fn read(socket: &mut Metered<Wire>) -> usize {
        let (mut buffer, mut all) = ([0; 100], 0);
        while let Some(read) = socket.read(&mut buffer).now_or_never() {
            all += read.unwrap();
        }
        all
    }

    #[tokio::test]
    async fn who_holds_much_is_held_back_while_memory_is_short_and_goes_on_when_it_is_read() {
        let memory = Arc::new(Meter::new(10_000));
        let ((mut greedy, held), (mut modest, _other)) = (metered(&memory), metered(&memory));
        for _ in 0..20 {
            greedy.socket.came.extend(frame(2, greedy.socket.came.is_empty(), 500));
        }
        let all = greedy.socket.came.len();
        let first = read(&mut greedy);
        assert!(first < all, "it is held back");
        // One frame begins at half of the memory, and is read to its end.
        assert!((5_000..=6_000).contains(&memory.used()), "{}", memory.used());
        modest.socket.came.extend(frame(2, true, 500));
        assert_eq!(read(&mut modest), 512, "who holds little is not");
        assert_eq!(read(&mut greedy), 0);
        held.on_read(2, 4_900);
        assert!(read(&mut greedy) > 0);
        held.close(2);
        // What still comes for a closed stream is not kept.
        let used = memory.used();
        while read(&mut greedy) > 0 {}
        assert_eq!((memory.used(), used), (500, 500));
        drop((greedy, held));
        assert_eq!(memory.used(), 500);
    }

    #[tokio::test]
    async fn a_stream_that_is_not_known_counts_for_nothing_and_too_many_end_the_connection() {
        let memory = Arc::new(Meter::new(10_000));
        let (mut socket, _held) = metered(&memory);
        socket.socket.came.extend(frame(2, false, 300));
        assert_eq!((read(&mut socket), memory.used()), (312, 0));
        for stream in 0..=u32::try_from(STREAMS_MAX).unwrap() {
            socket.socket.came.extend(frame(stream, true, 0));
        }
        let mut buffer = [0; 100];
        let end = loop {
            match socket.read(&mut buffer).now_or_never().expect("an end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(end.to_string().contains("too many streams"), "{end}");
    }

    #[tokio::test]
    async fn what_waits_for_a_stuck_socket_is_bounded() {
        let memory = Arc::new(Meter::new(10_000));
        let (mut socket, held) = metered(&memory);
        socket.socket.is_stuck = true;
        let cx = &mut Context::from_waker(Waker::noop());
        let mut taken = 0;
        while let room @ 1.. = held.room_to_send(cx, 10_000) {
            held.on_taken(room);
            taken += room;
        }
        assert!(taken <= UNSENT_MAX && taken > UNSENT_MAX - UNSENT_STEP, "{taken}");
        socket.socket.is_stuck = false;
        socket.write_all(&[7; UNSENT_STEP]).await.unwrap();
        assert_eq!(held.room_to_send(cx, 10_000), 10_000);
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_that_the_connection_has_ended() {
        let (mut socket, held) = metered(&Arc::new(Meter::new(10_000)));
        socket.socket.is_stuck = true;
        let mut connection = yamux::Connection::new(socket, yamux::Config::default(), yamux::Mode::Client);
        let stream = future::poll_fn(|cx| connection.poll_new_outbound(cx)).await.unwrap();
        let mut stream = Substream::new(stream, Arc::clone(&held));
        let writer = tokio::spawn(async move { stream.write_all(&[7; 4 * UNSENT_MAX]).await });
        let is_full = future::poll_fn(|cx| {
            let _ = connection.poll_next_inbound(cx);
            if !held.lock().writers.is_empty() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        timeout(Duration::from_secs(30), is_full).await.unwrap();
        assert!(!writer.is_finished());
        drop(connection);
        let ended = timeout(Duration::from_secs(30), writer).await.unwrap().unwrap();
        assert!(ended.is_err(), "the stream has ended");
    }
}
