//! A transport between nodes of one process whose links are as late as is asked for.
//!
//! ```text
//!  node 3 ── dial /memory/8 ──► Links: who is node 7? ──► its accept queue ──► node 7
//!         ◄──────────── a pipe: law.carry(3, 7) there, law.carry(7, 3) back ─►
//! ```
//!
//! Node *n* listens at `/memory/<n + 1>`. A dial takes one round trip, as TCP's does; Noise and Yamux run over the
//! pipe as over a socket. [`Security::None`] leaves Noise out: the nodes of one process need not prove who they are
//! to each other, and a handshake costs more than all that a short run says on the connection.
//!
//! Each [`Links`] is a world of its own: nodes of two of them do not reach each other.

mod pipe;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Ready, ready};
use libp2p::core::Transport;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use pipe::Arrival;
pub(super) use pipe::Pipe;

/// Connections that wait to be accepted by a node; a dial waits for room.
const ACCEPT_MAX: usize = 128;
/// The ports of dialling ends begin here, above those of listeners.
const DIAL_PORTS: u64 = 1 << 40;

/// How the nodes of a process prove to each other who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// By Noise, as between machines: a handshake and encryption.
    #[default]
    Noise,
    /// Not at all: the peer id is taken from the process's own table, and nothing is encrypted. Saves about a
    /// millisecond of CPU per connection.
    None,
}

/// What links do to what is written on them. All times are the network's own.
pub trait LinkLaw: Send + Sync {
    /// The one-way latency from one node to another; a dial takes it there and back.
    fn latency(&self, from: u32, to: u32) -> Duration;

    /// One direction of a new connection.
    fn carry(&self, from: u32, to: u32) -> Carry;
}

/// When so many bytes that are written at a moment arrive. Never before then, nor before what was written earlier.
pub type Carry = Box<dyn FnMut(Duration, usize) -> Duration + Send>;

/// Links with a latency and nothing else.
struct Steady<F>(F);

impl<F: Fn(u32, u32) -> Duration + Send + Sync> LinkLaw for Steady<F> {
    fn latency(&self, from: u32, to: u32) -> Duration {
        (self.0)(from, to)
    }

    fn carry(&self, from: u32, to: u32) -> Carry {
        let latency = self.latency(from, to);
        Box::new(move |at, _| at + latency)
    }
}

/// The links between the nodes of one process. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Hub>);

struct Hub {
    law: Box<dyn LinkLaw>,
    begun: Instant,
    security: Security,
    slowdown: NonZeroU32,
    listeners: Mutex<HashMap<u32, Listening>>,
    dial_port: AtomicU64,
}

#[derive(Clone)]
struct Listening {
    peer: PeerId,
    accept: mpsc::Sender<Incoming>,
}

/// A connection on its way to the one who is dialled.
struct Incoming {
    wired: Wired,
    from: Multiaddr,
}

/// A connection, and who is at its other end.
#[derive(Debug)]
pub(super) struct Wired {
    pub(super) pipe: Pipe,
    pub(super) peer: PeerId,
}

impl Links {
    /// Links with this one-way latency from the first node to the second; nodes are named by their index.
    pub fn new(security: Security, latency: impl Fn(u32, u32) -> Duration + Send + Sync + 'static) -> Self {
        Links::slow(security, NonZeroU32::MIN, latency)
    }

    /// The same in a world whose time goes so many times slower than real time, as does that of the nodes in it.
    pub fn slow(
        security: Security,
        slowdown: NonZeroU32,
        latency: impl Fn(u32, u32) -> Duration + Send + Sync + 'static,
    ) -> Self {
        Links::under(security, slowdown, Steady(latency))
    }

    /// Links that obey a law, in such a world.
    pub fn under(security: Security, slowdown: NonZeroU32, law: impl LinkLaw + 'static) -> Self {
        Links(Arc::new(Hub {
            law: Box::new(law),
            begun: Instant::now(),
            security,
            slowdown,
            listeners: Mutex::default(),
            dial_port: AtomicU64::new(DIAL_PORTS),
        }))
    }

    /// The end at which a node is.
    pub fn end(&self, node: u32) -> LinkEnd {
        LinkEnd { links: self.clone(), node }
    }

    /// How long a dial takes from one node to another, in real time.
    fn latency(&self, from: u32, to: u32) -> Duration {
        self.0.law.latency(from, to).saturating_mul(self.0.slowdown.get())
    }

    /// One direction of a new connection, in real time.
    fn arrival(&self, from: u32, to: u32) -> Arrival {
        let mut carry = self.0.law.carry(from, to);
        let (begun, slowdown) = (self.0.begun, self.0.slowdown.get());
        Box::new(move |at, bytes| {
            let at = at.saturating_duration_since(begun) / slowdown;
            begun + carry(at, bytes).saturating_mul(slowdown)
        })
    }

    /// How many times slower than real time it is here.
    pub(crate) fn slowdown(&self) -> NonZeroU32 {
        self.0.slowdown
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<u32, Listening>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("security", &self.0.security).finish_non_exhaustive()
    }
}

/// A node's place among [`Links`].
#[derive(Clone, Debug)]
pub struct LinkEnd {
    links: Links,
    node: u32,
}

impl LinkEnd {
    /// Where the node listens.
    pub fn address(&self) -> Multiaddr {
        Protocol::Memory(u64::from(self.node) + 1).into()
    }

    pub(crate) fn slowdown(&self) -> NonZeroU32 {
        self.links.slowdown()
    }

    pub(super) fn security(&self) -> Security {
        self.links.0.security
    }

    /// The transport of the node with that peer id.
    pub(super) fn transport(&self, local: PeerId) -> LinkTransport {
        LinkTransport { end: self.clone(), local, listener: None, closed: None }
    }
}

fn node_at(address: &Multiaddr) -> Option<u32> {
    let mut parts = address.iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Memory(port)), None | Some(Protocol::P2p(_)), None) => {
            u32::try_from(port.checked_sub(1)?).ok()
        }
        _ => None,
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    #[error("unreachable: no node listens there")]
    Unreachable,
    #[error("a node listens at one address, its own")]
    NotOurs,
}

/// See the module's documentation.
pub(super) struct LinkTransport {
    end: LinkEnd,
    local: PeerId,
    listener: Option<Listener>,
    closed: Option<ListenerId>,
}

struct Listener {
    id: ListenerId,
    accept: mpsc::Receiver<Incoming>,
    is_told: bool,
}

impl LinkTransport {
    fn stop_listening(&mut self) -> Option<ListenerId> {
        let listener = self.listener.take()?;
        self.end.links.listeners().remove(&self.end.node);
        Some(listener.id)
    }
}

impl Transport for LinkTransport {
    type Output = Wired;
    type Error = LinkError;
    type ListenerUpgrade = Ready<Result<Wired, LinkError>>;
    type Dial = BoxFuture<'static, Result<Wired, LinkError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<LinkError>> {
        let LinkEnd { links, node } = &self.end;
        let mut listeners = links.listeners();
        if node_at(&address) != Some(*node) || listeners.contains_key(node) {
            return Err(TransportError::Other(LinkError::NotOurs));
        }
        let (sender, accept) = mpsc::channel(ACCEPT_MAX);
        listeners.insert(*node, Listening { peer: self.local, accept: sender });
        drop(listeners);
        self.listener = Some(Listener { id, accept, is_told: false });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        if self.listener.as_ref().is_none_or(|listener| listener.id != id) {
            return false;
        }
        self.closed = self.stop_listening();
        true
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<LinkError>> {
        let Some(there) = node_at(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let LinkEnd { links, node: here } = &self.end;
        let Some(Listening { peer, accept }) = links.listeners().get(&there).cloned() else {
            return Err(TransportError::Other(LinkError::Unreachable));
        };
        let round_trip = links.latency(*here, there) + links.latency(there, *here);
        let (to, back) = (links.arrival(*here, there), links.arrival(there, *here));
        let from = Protocol::Memory(links.0.dial_port.fetch_add(1, Ordering::Relaxed)).into();
        let local = self.local;
        Ok(async move {
            let (near, far) = pipe::pipe(to, back);
            let incoming = Incoming { wired: Wired { pipe: far, peer: local }, from };
            accept.send(incoming).await.map_err(|_| LinkError::Unreachable)?;
            sleep(round_trip).await;
            Ok(Wired { pipe: near, peer })
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, LinkError>> {
        if let Some(listener_id) = self.closed.take() {
            return Poll::Ready(TransportEvent::ListenerClosed { listener_id, reason: Ok(()) });
        }
        let address = self.end.address();
        let Some(listener) = &mut self.listener else { return Poll::Pending };
        if !std::mem::replace(&mut listener.is_told, true) {
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id: listener.id,
                listen_addr: address,
            });
        }
        // It ends only with the entry among the listeners, and that goes with the listener.
        let Some(Incoming { wired, from }) = std::task::ready!(listener.accept.poll_recv(cx)) else {
            return Poll::Pending;
        };
        Poll::Ready(TransportEvent::Incoming {
            listener_id: listener.id,
            upgrade: ready(Ok(wired)),
            local_addr: address,
            send_back_addr: from,
        })
    }
}

impl Drop for LinkTransport {
    fn drop(&mut self) {
        self.stop_listening();
    }
}
