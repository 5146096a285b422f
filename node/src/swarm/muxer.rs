//! Yamux with all its limits set.
//!
//! libp2p's own wrapper sets the number of streams only and leaves the receive window of a connection at 1 GiB,
//! so this is a wrapper of our own around the same implementation, with the same protocol. What all connections hold
//! together is bounded by [`super::unread`]. It also closes within
//! a bounded time: a peer that reads nothing any more would otherwise keep a connection, its place among the
//! limits and its memory for as long as TCP is patient.

use std::collections::VecDeque;
use std::future::{Future as _, Ready, ready};
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use omnimesh_protocol::config::Part;
use tokio::time::{Sleep, sleep};

use super::config::Config as Settings;
use super::unread::{Held, Metered, Substream};
use crate::memory::{Account, Meter};

/// Data goes out in chunks of this many bytes, each of which is written to the socket at once: as much as one
/// write of ours, so that this is one system call, and little enough to leave other streams their turn.
const SPLIT_SEND_SIZE: usize = super::streams::WRITE_BYTES;

/// Inbound streams that wait to be asked for; those beyond it are reset. Yamux opens at most this many without
/// an acknowledgement.
const BUFFERED_INBOUND_MAX: usize = 256;

/// How long the last frames may take when a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The upgrade of a secured connection to many streams.
#[derive(Debug, Clone)]
pub(super) struct Config {
    yamux: yamux::Config,
    /// That of all connections, and what each of them may hold in any case.
    memory: Arc<Meter>,
    floor: usize,
}

impl Config {
    pub(super) fn new(settings: &Settings) -> Self {
        let limits = &settings.limits;
        let mut config = yamux::Config::default();
        // Yamux grants each stream 256 KiB to begin with and panics on a limit below that, so the number of
        // streams is set first, and both are kept within what it takes.
        let streams = (limits.streams_per_connection as usize).clamp(1, 512);
        let window_min = streams * yamux::DEFAULT_CREDIT as usize;
        config.set_max_num_streams(streams);
        config.set_max_connection_receive_window(Some(
            (limits.connection_window_bytes as usize).max(window_min),
        ));
        config.set_split_send_size(SPLIT_SEND_SIZE);
        let memory = Arc::clone(settings.memory.part(Part::Connections));
        Config { yamux: config, memory, floor: settings.connection_floor() }
    }

    /// The muxer of a connection on which there is nothing to agree on.
    pub(super) fn muxer<C: AsyncRead + AsyncWrite + Unpin>(self, socket: C, is_dialer: bool) -> Muxer<C> {
        Muxer::new(socket, self, if is_dialer { yamux::Mode::Client } else { yamux::Mode::Server })
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(socket, self, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(socket, self, yamux::Mode::Client)))
    }
}

/// A connection with many streams.
#[derive(Debug)]
pub(super) struct Muxer<C> {
    connection: yamux::Connection<Metered<C>>,
    held: Arc<Held>,
    /// Streams that came while nobody asked for one: a Yamux connection only moves on when it is asked.
    inbound: VecDeque<Substream>,
    inbound_waker: Option<Waker>,
    /// When to stop closing; set once that has begun.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, config: Config, mode: yamux::Mode) -> Self {
        let held = Held::new(Account::new(config.memory), config.floor);
        let socket = Metered::new(socket, Arc::clone(&held));
        let connection = yamux::Connection::new(socket, config.yamux, mode);
        Muxer { connection, held, inbound: VecDeque::new(), inbound_waker: None, closing: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Substream, yamux::ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        let stream = next.unwrap_or(Err(yamux::ConnectionError::Closed));
        Poll::Ready(stream.map(|stream| Substream::new(stream, Arc::clone(&self.held))))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = yamux::ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(next) = self.poll_next(cx) {
            return Poll::Ready(next);
        }
        self.inbound_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(self.connection.poll_new_outbound(cx));
        Poll::Ready(stream.map(|stream| Substream::new(stream, Arc::clone(&self.held))))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if let Poll::Ready(closed) = self.connection.poll_close(cx) {
            return Poll::Ready(closed);
        }
        let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
        closing.as_mut().poll(cx).map(|()| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.inbound.len() < BUFFERED_INBOUND_MAX {
            self.inbound.push_back(stream);
            if let Some(waker) = self.inbound_waker.take() {
                waker.wake();
            }
        }
        // There may be more; let others run before it is looked at.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn settings() -> Settings {
        Settings::new(omnimesh_protocol::Mesh::open("test").unwrap().id())
    }

    /// A socket whose other end takes nothing and sends nothing.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn closing_ends_even_if_the_peer_takes_nothing() {
        let mut muxer = Muxer::new(Stuck, Config::new(&settings()), yamux::Mode::Client);
        let closed = poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx));
        let closed = tokio::time::timeout(10 * CLOSE_TIMEOUT, closed).await;
        assert!(closed.expect("an end").is_err());
    }

    #[test]
    fn senseless_limits_do_not_panic() {
        for streams_per_connection in [0, 1, 512, u32::MAX] {
            for connection_window_bytes in [0, 1, u32::MAX] {
                let mut settings = settings();
                settings.limits.streams_per_connection = streams_per_connection;
                settings.limits.connection_window_bytes = connection_window_bytes;
                let _ = Muxer::new(Stuck, Config::new(&settings), yamux::Mode::Server);
            }
        }
    }
}
