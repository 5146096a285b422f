//! Opens and accepts streams on one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};

use super::INBOUND_PER_CONNECTION;

/// Asks for a stream to the peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::swarm) struct Open;

/// What became of streams.
#[derive(Debug)]
pub(in crate::swarm) enum FromHandler {
    Opened {
        stream: Stream,
        protocol: StreamProtocol,
    },
    /// The peer speaks none of the protocols.
    Unsupported,
    OpenFailed {
        reason: String,
    },
    Accepted {
        stream: Stream,
    },
    /// The peer opens streams without end.
    TooMany,
}

/// One connection's part in the streams of one kind.
#[derive(Debug)]
pub(in crate::swarm) struct Handler {
    protocols: Protocols,
    open: bool,
    accepted: u32,
    events: VecDeque<FromHandler>,
}

impl Handler {
    pub(super) fn new(protocols: Arc<[StreamProtocol]>) -> Self {
        Handler { protocols: Protocols(protocols), open: false, accepted: 0, events: VecDeque::new() }
    }

    fn on_inbound(&mut self, stream: Stream) {
        self.accepted = self.accepted.saturating_add(1);
        match self.accepted {
            ..=INBOUND_PER_CONNECTION => self.events.push_back(FromHandler::Accepted { stream }),
            count if count == INBOUND_PER_CONNECTION + 1 => self.events.push_back(FromHandler::TooMany),
            _ => {}
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(self.protocols.clone(), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, (), FromHandler>> {
        // Nothing is registered to wake it: the connection polls it after each of the calls below.
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if std::mem::take(&mut self.open) {
            let protocol = SubstreamProtocol::new(self.protocols.clone(), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        self.open = true;
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, protocol),
                ..
            }) => self.events.push_back(FromHandler::Opened { stream, protocol }),
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, _), ..
            }) => {
                self.on_inbound(stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.events.push_back(match error {
                    StreamUpgradeError::NegotiationFailed => FromHandler::Unsupported,
                    StreamUpgradeError::Timeout => FromHandler::OpenFailed { reason: "no answer".into() },
                    StreamUpgradeError::Io(error) => FromHandler::OpenFailed { reason: error.to_string() },
                    StreamUpgradeError::Apply(never) => match never {},
                });
            }
            _ => {}
        }
    }
}

/// The names of one kind's protocols, the best first; an upgrade that only agrees on one.
#[derive(Debug, Clone)]
pub(in crate::swarm) struct Protocols(Arc<[StreamProtocol]>);

/// Walks shared names: this is done at each poll of a connection, so it should not allocate.
#[derive(Debug)]
pub(in crate::swarm) struct ProtocolNames {
    names: Arc<[StreamProtocol]>,
    next: usize,
}

impl Iterator for ProtocolNames {
    type Item = StreamProtocol;

    fn next(&mut self) -> Option<StreamProtocol> {
        let name = self.names.get(self.next)?.clone();
        self.next += 1;
        Some(name)
    }
}

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = ProtocolNames;

    fn protocol_info(&self) -> ProtocolNames {
        ProtocolNames { names: self.0.clone(), next: 0 }
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
