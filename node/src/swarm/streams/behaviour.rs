//! Which peer has which stream, on which connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use omnimesh_protocol::config::Part;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::handler::{FromHandler, Handler, Open};
use super::{ATTEMPTS_MAX, DRAINING_MAX, Settings, reader, writer};
use crate::swarm::event::{DownReason, Event};
use crate::swarm::queue::Outbound;

/// A stream that lived for so long was no failed attempt. A guess.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// The wait before the second attempt; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(100);

/// The streams of one kind.
pub(in crate::swarm) struct Behaviour {
    settings: Arc<Settings>,
    peers: HashMap<PeerId, Peer>,
    /// Readers and writers; they stop when this is dropped.
    tasks: JoinSet<Ended>,
    /// How many of the tasks are writers.
    writers: usize,
    /// Readers of peers that are gone, the oldest first.
    draining: VecDeque<AbortHandle>,
    retries: FuturesUnordered<BoxFuture<'static, (PeerId, Token)>>,
    next_token: Token,
    out: VecDeque<ToSwarm<Event, Open>>,
}

/// Tells one stream or wait of a peer from an earlier one, whose end may come late.
type Token = u64;

/// A connected peer.
struct Peer {
    /// In the order of their making; not empty.
    connections: Vec<ConnectionId>,
    outgoing: Outgoing,
    /// Failed attempts in a row.
    attempts: u32,
    reader: Option<Reader>,
}

/// Who takes in what the peer sends.
struct Reader {
    connection: ConnectionId,
    task: AbortHandle,
}

enum Outgoing {
    Opening {
        connection: ConnectionId,
    },
    Up {
        token: Token,
        connection: ConnectionId,
        outbound: Outbound,
        since: Instant,
    },
    Waiting {
        token: Token,
    },
    Unsupported,
    GaveUp,
    /// Finished by ourselves.
    Finished,
}

/// A task that came to its end.
enum Ended {
    Reader,
    /// `None`: it wrote all there was and was told to stop.
    Writer {
        peer: PeerId,
        token: Token,
        reason: Option<DownReason>,
    },
}

impl Behaviour {
    pub(in crate::swarm) fn new(settings: Settings) -> Self {
        Behaviour {
            settings: Arc::new(settings),
            peers: HashMap::new(),
            tasks: JoinSet::new(),
            writers: 0,
            draining: VecDeque::new(),
            retries: FuturesUnordered::new(),
            next_token: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes no more frames and lets the writers write what waits.
    pub(in crate::swarm) fn finish(&mut self) {
        for peer in self.peers.values_mut() {
            if let Outgoing::Up { outbound, .. } = &peer.outgoing {
                outbound.queue().finish();
            } else {
                peer.outgoing = Outgoing::Finished;
            }
        }
    }

    /// Whether any writer still writes.
    pub(in crate::swarm) fn is_writing(&self) -> bool {
        self.writers > 0
    }

    fn on_established(&mut self, id: PeerId, connection: ConnectionId) {
        let peer = self.peers.entry(id).or_insert_with(|| Peer {
            connections: Vec::new(),
            outgoing: Outgoing::GaveUp,
            attempts: 0,
            reader: None,
        });
        peer.connections.push(connection);
        if matches!(peer.outgoing, Outgoing::GaveUp) {
            peer.attempts = 0;
            self.open(id);
        }
    }

    fn on_closed(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.connections.retain(|other| *other != connection);
        if peer.connections.is_empty() {
            if let Some(Peer { outgoing, reader, .. }) = self.peers.remove(&id) {
                if let Outgoing::Up { outbound, .. } = outgoing {
                    outbound.queue().close();
                }
                self.drain(reader.map(|reader| reader.task));
            }
            return;
        }
        match &peer.outgoing {
            Outgoing::Opening { connection: on } if *on == connection => self.open(id),
            // Its writer would notice with the next frame, and lose that.
            Outgoing::Up { connection: on, outbound, .. } if *on == connection => {
                outbound.queue().close();
                let kind = self.settings.kind;
                self.emit(Event::StreamDown { peer: id, kind, reason: DownReason::Closed });
                self.open(id);
            }
            _ => {}
        }
    }

    /// Lets a reader take in what its peer sent last, unless too many do so already.
    fn drain(&mut self, reader: Option<AbortHandle>) {
        self.draining.retain(|reader| !reader.is_finished());
        self.draining.extend(reader.filter(|reader| !reader.is_finished()));
        if self.draining.len() > DRAINING_MAX
            && let Some(oldest) = self.draining.pop_front()
        {
            oldest.abort();
        }
    }

    /// Asks for a stream on the newest connection: of several, it is the likeliest to be alive.
    fn open(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(connection) = peer.connections.last().copied() else { return };
        peer.outgoing = Outgoing::Opening { connection };
        let handler = NotifyHandler::One(connection);
        self.out.push_back(ToSwarm::NotifyHandler { peer_id: id, handler, event: Open });
    }

    fn on_opened(&mut self, id: PeerId, connection: ConnectionId, stream: Stream, protocol: StreamProtocol) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !matches!(peer.outgoing, Outgoing::Opening { connection: on } if on == connection) {
            return; // One that was no longer waited for; dropping it resets it.
        }
        let token = next(&mut self.next_token);
        let settings = &self.settings;
        let memory = Arc::clone(settings.node_memory.part(Part::Outbound));
        let outbound =
            Outbound::new(settings.kind, settings.queue_limits(), settings.metrics.clone(), memory);
        let queue = outbound.queue().clone();
        peer.outgoing = Outgoing::Up { token, connection, outbound: outbound.clone(), since: Instant::now() };
        let task = writer::run(stream, queue, settings.config, settings.metrics.clone());
        self.tasks.spawn(async move { Ended::Writer { peer: id, token, reason: task.await } });
        self.writers += 1;
        let kind = settings.kind;
        self.emit(Event::StreamUp { peer: id, kind, protocol, outbound });
    }

    fn on_accepted(&mut self, id: PeerId, connection: ConnectionId, stream: Stream) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let reader = reader::run(stream, id, self.settings.clone());
        let task = self.tasks.spawn(async move {
            reader.await;
            Ended::Reader
        });
        let Some(older) = peer.reader.replace(Reader { connection, task }) else { return };
        let was_living = !older.task.is_finished();
        older.task.abort();
        // Whoever begins anew elsewhere while its stream seems to live has lost that connection, and perhaps all it knew: it was
        // killed and is back. The old connection would take our frames until it times out.
        if was_living && older.connection != connection && peer.connections.contains(&older.connection) {
            self.close_connection(id, older.connection);
        }
    }

    fn on_unsupported(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if matches!(peer.outgoing, Outgoing::Opening { connection: on } if on == connection) {
            peer.outgoing = Outgoing::Unsupported;
            let kind = self.settings.kind;
            self.emit(Event::StreamUnsupported { peer: id, kind });
        }
    }

    fn on_open_failed(&mut self, id: PeerId, connection: ConnectionId, reason: &str) {
        let Some(peer) = self.peers.get(&id) else { return };
        if matches!(peer.outgoing, Outgoing::Opening { connection: on } if on == connection) {
            tracing::debug!(peer = %id, kind = self.settings.kind.name(), reason, "stream not opened");
            self.retry(id);
        }
    }

    fn on_writer_ended(&mut self, id: PeerId, ended: Token, reason: Option<DownReason>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Outgoing::Up { token, connection, outbound, since } = &peer.outgoing else { return };
        if *token != ended {
            return;
        }
        outbound.queue().close();
        let connection = *connection;
        let Some(reason) = reason else {
            peer.outgoing = Outgoing::Finished;
            return;
        };
        if since.elapsed() >= STABLE_AFTER {
            peer.attempts = 0;
        }
        let stalled = reason == DownReason::Stalled;
        let kind = self.settings.kind;
        self.emit(Event::StreamDown { peer: id, kind, reason });
        if stalled {
            self.settings.metrics.stalled.inc();
            self.close_connection(id, connection);
        }
        self.retry(id);
    }

    /// Tries again in a while, unless it was tried too often.
    fn retry(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.attempts += 1;
        let attempts = peer.attempts;
        if attempts >= ATTEMPTS_MAX {
            peer.outgoing = Outgoing::GaveUp;
            let kind = self.settings.kind;
            self.emit(Event::StreamDown { peer: id, kind, reason: DownReason::GaveUp { attempts } });
            return;
        }
        let token = next(&mut self.next_token);
        peer.outgoing = Outgoing::Waiting { token };
        let wait = tokio::time::sleep(BACKOFF * (1 << (attempts - 1)));
        self.retries.push(Box::pin(async move {
            wait.await;
            (id, token)
        }));
    }

    fn on_retry(&mut self, id: PeerId, due: Token) {
        if let Some(Peer { outgoing: Outgoing::Waiting { token }, .. }) = self.peers.get(&id)
            && *token == due
        {
            self.open(id);
        }
    }

    fn close_connection(&mut self, peer_id: PeerId, connection: ConnectionId) {
        let connection = CloseConnection::One(connection);
        self.out.push_back(ToSwarm::CloseConnection { peer_id, connection });
    }

    fn emit(&mut self, event: Event) {
        self.out.push_back(ToSwarm::GenerateEvent(event));
    }

    fn handler(&self) -> Handler {
        Handler::new(self.settings.protocols.clone())
    }
}

fn next(token: &mut Token) -> Token {
    *token += 1;
    *token
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.on_established(peer_id, connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.on_closed(peer_id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: FromHandler) {
        match event {
            FromHandler::Opened { stream, protocol } => self.on_opened(peer, connection, stream, protocol),
            FromHandler::Unsupported => self.on_unsupported(peer, connection),
            FromHandler::OpenFailed { reason } => self.on_open_failed(peer, connection, &reason),
            FromHandler::Accepted { stream } => self.on_accepted(peer, connection, stream),
            FromHandler::TooMany => {
                tracing::debug!(%peer, kind = self.settings.kind.name(), "too many streams from one peer");
                self.close_connection(peer, connection);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, Open>> {
        loop {
            if let Some(out) = self.out.pop_front() {
                return Poll::Ready(out);
            }
            if let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
                match ended {
                    Ok(Ended::Writer { peer, token, reason }) => {
                        self.writers -= 1;
                        self.on_writer_ended(peer, token, reason);
                    }
                    Ok(Ended::Reader) => {}
                    // Only readers are aborted.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "a stream's task failed"),
                }
                continue;
            }
            if let Poll::Ready(Some((peer, token))) = self.retries.poll_next_unpin(cx) {
                self.on_retry(peer, token);
                continue;
            }
            return Poll::Pending;
        }
    }
}
