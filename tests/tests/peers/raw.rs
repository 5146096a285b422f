//! A real libp2p peer without any of OmniMesh's code: it opens streams under any name and writes any bytes.
//!
//! It speaks Noise, Yamux, QUIC and identify like every libp2p peer; everything above is up to the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, SubstreamProtocol, SwarmEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, identify, noise, tcp, yamux};
use omnimesh_node::swarm::peer;
use omnimesh_protocol::Identity;
use tokio::sync::{mpsc, oneshot, watch};

use crate::common::within;

/// A frame that the peer received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) from: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) frame: Vec<u8>,
}

/// Who is connected, and how often anybody was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    pub(crate) now: BTreeSet<PeerId>,
    pub(crate) established: usize,
}

enum Command {
    Dial(Multiaddr),
    Open { peer: PeerId, protocol: StreamProtocol, reply: oneshot::Sender<Option<Stream>> },
    Disconnect(PeerId),
}

/// The peer. It ends when this is dropped.
pub(crate) struct RawPeer {
    pub(crate) identity: Identity,
    pub(crate) id: PeerId,
    pub(crate) listening: Multiaddr,
    pub(crate) received: mpsc::Receiver<Received>,
    connections: watch::Receiver<Connections>,
    commands: mpsc::Sender<Command>,
    deaf: watch::Sender<bool>,
}

impl RawPeer {
    /// A peer that accepts streams of these protocols.
    pub(crate) async fn start(identity: Identity, accepts: &[&str]) -> RawPeer {
        let keypair = peer::keypair(&identity);
        let id = keypair.public().to_peer_id();
        let accepts = accepts.iter().map(|name| protocol(name)).collect::<Vec<_>>();
        let mut swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_quic()
            .with_behaviour(|keypair| Behaviour {
                streams: Streams { accepts, peers: BTreeMap::new(), out: VecDeque::new() },
                identify: identify::Behaviour::new(identify::Config::new(
                    "/omnimesh/1".to_owned(),
                    keypair.public(),
                )),
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let listening = within("a raw peer listens", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address;
                }
            }
        })
        .await;
        let (commands, commands_receiver) = mpsc::channel(64);
        let (received_sender, received) = mpsc::channel(4096);
        let (connections_sender, connections) = watch::channel(Connections::default());
        let (deaf, is_deaf) = watch::channel(false);
        let ears = Ears { received: received_sender, is_deaf };
        tokio::spawn(drive(swarm, commands_receiver, ears, connections_sender));
        RawPeer { identity, id, listening, received, connections, commands, deaf }
    }

    /// Connects.
    pub(crate) async fn dial(&self, address: &str, to: PeerId) {
        self.commands.send(Command::Dial(address.parse().unwrap())).await.unwrap();
        self.until("a raw peer connects", |connections| connections.now.contains(&to)).await;
    }

    /// Opens a stream; `None` if the other side does not want it.
    pub(crate) async fn try_open(&self, to: PeerId, name: &str) -> Option<Stream> {
        let (reply, answer) = oneshot::channel();
        let open = Command::Open { peer: to, protocol: protocol(name), reply };
        self.commands.send(open).await.unwrap();
        within("a stream is opened or refused", answer).await.ok().flatten()
    }

    /// Opens a stream that the other side takes.
    pub(crate) async fn open(&self, to: PeerId, name: &str) -> Stream {
        self.try_open(to, name).await.unwrap_or_else(|| panic!("no stream for {name}"))
    }

    /// Closes all connections to a peer.
    pub(crate) async fn disconnect(&self, from: PeerId) {
        self.commands.send(Command::Disconnect(from)).await.unwrap();
        self.until_disconnected(from).await;
    }

    /// Waits for something about the connections.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Connections) -> bool) {
        let mut connections = self.connections.clone();
        within(what, connections.wait_for(|connections| is_so(connections))).await.unwrap();
    }

    /// Waits until the peer has cut the connection.
    pub(crate) async fn until_disconnected(&self, from: PeerId) {
        self.until("a raw peer is cut off", |connections| !connections.now.contains(&from)).await;
    }

    /// Reads nothing any more of what others send on streams, and keeps these open.
    pub(crate) fn go_deaf(&self) {
        self.deaf.send_replace(true);
    }

    /// Who is connected.
    pub(crate) fn connections(&self) -> Connections {
        self.connections.borrow().clone()
    }

    /// The next frame received that `wanted` makes something of.
    pub(crate) async fn receive<T>(&mut self, what: &str, wanted: impl Fn(&Received) -> Option<T>) -> T {
        within(what, async {
            loop {
                let received = self.received.recv().await.expect("the raw peer runs");
                if let Some(found) = wanted(&received) {
                    return found;
                }
            }
        })
        .await
    }
}

/// Writes bytes as they are; whether the stream took them.
pub(crate) async fn write(stream: &mut Stream, bytes: &[u8]) -> bool {
    let written = async { stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok() };
    within("a stream takes bytes or ends", written).await
}

/// A frame with its length before it.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = varint(frame.len() as u64);
    bytes.extend_from_slice(frame);
    bytes
}

/// An unsigned LEB128 number.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
    bytes
}

fn protocol(name: &str) -> StreamProtocol {
    StreamProtocol::try_from_owned(name.to_owned()).unwrap()
}

/// Where what was received goes, and whether anything is received any more.
#[derive(Clone)]
struct Ears {
    received: mpsc::Sender<Received>,
    is_deaf: watch::Receiver<bool>,
}

async fn drive(
    mut swarm: libp2p::Swarm<Behaviour>,
    mut commands: mpsc::Receiver<Command>,
    ears: Ears,
    connections: watch::Sender<Connections>,
) {
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Dial(address)) => swarm.dial(address).unwrap(),
                Some(Command::Open { peer, protocol, reply }) => {
                    swarm.behaviour_mut().streams.open(peer, protocol, reply);
                }
                Some(Command::Disconnect(peer)) => {
                    let _ = swarm.disconnect_peer_id(peer);
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => connections.send_modify(|connections| {
                    connections.now.insert(peer_id);
                    connections.established += 1;
                }),
                SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                    connections.send_modify(|connections| {
                        connections.now.remove(&peer_id);
                    });
                }
                SwarmEvent::Behaviour(BehaviourEvent::Streams(Accepted { from, protocol, stream })) => {
                    tokio::spawn(read(from, protocol, stream, ears.clone()));
                }
                _ => {}
            },
        }
    }
}

/// Reads frames until the stream ends. Those for which the test has no room are dropped.
async fn read(from: PeerId, protocol: StreamProtocol, mut stream: Stream, mut ears: Ears) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            biased;
            // Until the peer is gone: the sender goes with it.
            is_deaf = async { ears.is_deaf.wait_for(|is_deaf| *is_deaf).await.is_ok() } => {
                return if is_deaf { std::future::pending().await };
            }
            read = stream.read(&mut chunk) => read,
        };
        let Ok(read @ 1..) = read else { return };
        buffer.extend_from_slice(&chunk[..read]);
        while let Some((frame, rest)) = first_frame(&buffer) {
            let _ = ears.received.try_send(Received { from, protocol: protocol.clone(), frame });
            buffer = rest;
        }
    }
}

fn first_frame(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let head = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let length =
        bytes[..=head].iter().rev().fold(0_usize, |length, byte| length << 7 | usize::from(byte & 0x7f));
    let frame = bytes.get(head + 1..head + 1 + length)?;
    Some((frame.to_vec(), bytes[head + 1 + length..].to_vec()))
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: Streams,
    identify: identify::Behaviour,
}

/// A stream that another peer opened.
#[derive(Debug)]
struct Accepted {
    from: PeerId,
    protocol: StreamProtocol,
    stream: Stream,
}

/// Ask a connection for a stream.
#[derive(Debug)]
struct Open {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Option<Stream>>,
}

struct Streams {
    accepts: Vec<StreamProtocol>,
    /// The newest last.
    peers: BTreeMap<PeerId, Vec<ConnectionId>>,
    out: VecDeque<ToSwarm<Accepted, Open>>,
}

impl Streams {
    fn open(&mut self, peer_id: PeerId, protocol: StreamProtocol, reply: oneshot::Sender<Option<Stream>>) {
        // Without a connection the reply is dropped, which says no.
        if let Some(connection) = self.peers.get(&peer_id).and_then(|connections| connections.last()) {
            let handler = NotifyHandler::One(*connection);
            self.out.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: Open { protocol, reply } });
        }
    }

    fn handler(&self) -> Handler {
        Handler { accepts: Names(self.accepts.clone()), open: VecDeque::new(), accepted: VecDeque::new() }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Accepted;

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
            FromSwarm::ConnectionEstablished(established) => {
                self.peers.entry(established.peer_id).or_default().push(established.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(connections) = self.peers.get_mut(&closed.peer_id) {
                    connections.retain(|connection| *connection != closed.connection_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        from: PeerId,
        _: ConnectionId,
        (protocol, stream): (StreamProtocol, Stream),
    ) {
        self.out.push_back(ToSwarm::GenerateEvent(Accepted { from, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Accepted, Open>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

struct Handler {
    accepts: Names,
    open: VecDeque<Open>,
    accepted: VecDeque<(StreamProtocol, Stream)>,
}

type Request = oneshot::Sender<Option<Stream>>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = Names;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Request;

    fn listen_protocol(&self) -> SubstreamProtocol<Names> {
        SubstreamProtocol::new(self.accepts.clone(), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Request, Self::ToBehaviour>> {
        if let Some(accepted) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(accepted));
        }
        if let Some(Open { protocol, reply }) = self.open.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), reply);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        self.open.push_back(open);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Names, ReadyUpgrade<StreamProtocol>, (), Request>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.accepted.push_back(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(Some(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                let _ = info.send(None);
            }
            _ => {}
        }
    }
}

/// Accepts a stream under any of these names and says which it was.
#[derive(Clone, Debug)]
struct Names(Vec<StreamProtocol>);

impl UpgradeInfo for Names {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Names {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((name, stream)))
    }
}
