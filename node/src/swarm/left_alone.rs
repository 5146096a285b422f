//! Peers that are not dialled for a while, whoever wants to: Kademlia dials by itself whom it meets in a search.

use std::convert::Infallible;
use std::fmt;
use std::num::NonZeroUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, ToSwarm, dummy};
use libp2p::{Multiaddr, PeerId};
use lru::LruCache;
use tokio::time::Instant;

/// Most peers that are left alone at a time; the one named longest ago goes first. As many as the dialer remembers.
const PEERS_MAX: NonZeroUsize =
    NonZeroUsize::new(omnimesh_protocol::dialer::SHUNNED_MAX).expect("some are remembered");

/// Refuses dials to the peers in it. They may dial this node.
pub(super) struct LeftAlone(LruCache<PeerId, Instant>);

/// The peer is left alone, for so long.
#[derive(Debug)]
pub(super) struct IsLeftAlone(Duration);

impl fmt::Display for IsLeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the peer was sent away or refused; it is not dialled for another {} s",
            self.0.as_secs() + 1
        )
    }
}

impl std::error::Error for IsLeftAlone {}

impl LeftAlone {
    pub(super) fn new() -> LeftAlone {
        LeftAlone(LruCache::new(PEERS_MAX))
    }

    /// No dial reaches the peer for so long from now.
    pub(super) fn leave_alone(&mut self, peer: PeerId, time: Duration) {
        if let Some(until) = Instant::now().checked_add(time) {
            self.0.push(peer, until);
        }
    }

    fn check(&mut self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        let left = self.0.peek(peer).map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            Some(Duration::ZERO) => {
                self.0.pop(peer);
                Ok(())
            }
            Some(left) => Err(ConnectionDenied::new(IsLeftAlone(left))),
            None => Ok(()),
        }
    }
}

impl NetworkBehaviour for LeftAlone {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        peer.map_or(Ok(()), |peer| self.check(&peer))?;
        Ok(Vec::new())
    }

    // A dial may have been under way when the peer was sent away.
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.check(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}
