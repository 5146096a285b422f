//! The task that owns the swarm: commands in, events out.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::metrics::Recorder as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify, kad, mdns, ping};
use omnimesh_protocol::MeshId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::behaviour::{MeshBehaviour, MeshBehaviourEvent, PROTOCOL_VERSION, kad_protocol};
use super::dial;
use super::event::{DialFailure, Event, Source};
use super::metrics::Metrics;
use super::network::{Command, DIAL_ADDRESSES_MAX, Error};
use super::{peer, transport};

/// Events that wait beyond the channel. When they are so many the swarm rests, at twice as many commands wait
/// too: those who give them never wait themselves, so nobody waits in a circle.
const BACKLOG_MAX: usize = 1024;

/// With so many waiting, events that will come again are dropped.
const BACKLOG_BUSY: usize = 128;

/// What is kept of what a peer says about itself.
const PROTOCOLS_MAX: usize = 64;
const PROTOCOL_BYTES_MAX: usize = 140;
const AGENT_BYTES_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;
const ADDRESS_BYTES_MAX: usize = 256;

/// The state of the task.
pub(super) struct Driver {
    swarm: Swarm<MeshBehaviour>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// Events for which the channel has no room, in order.
    backlog: VecDeque<Event>,
    /// Dials asked for by command that are under way; as many as the limit of pending dials allows.
    dials: HashMap<ConnectionId, Vec<Multiaddr>>,
    /// Established connections, and whether they are within this machine.
    connections: HashMap<ConnectionId, bool>,
    mesh: MeshId,
    kad_protocol: StreamProtocol,
    /// How long peers have at the end to read what waits, and then for their connections to close.
    finish_timeout: Duration,
    metrics: Metrics,
    recorder: libp2p::metrics::Metrics,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<MeshBehaviour>,
        mesh: MeshId,
        finish_timeout: Duration,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        metrics: Metrics,
        recorder: libp2p::metrics::Metrics,
    ) -> Self {
        Driver {
            swarm,
            commands,
            events,
            backlog: VecDeque::new(),
            dials: HashMap::new(),
            connections: HashMap::new(),
            kad_protocol: kad_protocol(&mesh),
            mesh,
            finish_timeout,
            metrics,
            recorder,
        }
    }

    /// Waits until each listener has an address, and tells all that are known then.
    pub(super) async fn wait_for_listeners(
        &mut self,
        mut waiting: HashMap<ListenerId, Multiaddr>,
        limit: Duration,
    ) -> Result<Vec<Multiaddr>, Error> {
        let mut listening = Vec::new();
        let deadline = Instant::now() + limit;
        loop {
            let next = self.swarm.select_next_some();
            // Once none is waited for, only what is there already: a listener on all interfaces has many
            // addresses, which come together.
            let event = match (waiting.values().next(), next.now_or_never()) {
                (_, Some(event)) => event,
                (None, None) => return Ok(listening),
                (Some(address), None) => match timeout_at(deadline, self.swarm.select_next_some()).await {
                    Ok(event) => event,
                    Err(_) => {
                        let (address, reason) = (address.clone(), "no interface has it".into());
                        return Err(Error::Listen { address, reason });
                    }
                },
            };
            match event {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    waiting.remove(&listener_id);
                    listening.push(peer::without_peer(address));
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                    if let (Some(address), Err(error)) = (waiting.remove(&listener_id), reason) {
                        return Err(transport::listen_error(address, &error));
                    }
                }
                other => self.on_swarm_event(other),
            }
        }
    }

    /// Drives the swarm until it is told to end, or nobody holds a handle or takes events.
    pub(super) async fn run(mut self) {
        let events = self.events.clone();
        loop {
            tokio::select! {
                room = events.reserve(), if !self.backlog.is_empty() => {
                    let Ok(room) = room else { break };
                    if let Some(event) = self.backlog.pop_front() {
                        room.send(event);
                    }
                }
                () = events.closed(), if self.backlog.is_empty() => break,
                command = self.commands.recv(), if self.backlog.len() < 2 * BACKLOG_MAX => match command {
                    None | Some(Command::Shutdown) => break,
                    Some(command) => self.on_command(command),
                },
                event = self.swarm.select_next_some(), if self.backlog.len() < BACKLOG_MAX => {
                    self.on_swarm_event(event);
                }
            }
        }
        self.finish().await;
    }

    /// Writes what waits and closes all connections, so that peers need not wait for a timeout.
    async fn finish(mut self) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.gossip.finish();
        behaviour.control.finish();
        for streams in [behaviour.log.as_mut(), behaviour.blob.as_mut(), behaviour.compute.as_mut()]
            .into_iter()
            .flatten()
        {
            streams.finish();
        }
        let written = async {
            while self.swarm.behaviour().is_writing() {
                self.swarm.next().await;
            }
        };
        if timeout(self.finish_timeout, written).await.is_err() {
            tracing::debug!("some peers did not take the last frames");
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.next().await;
            }
        };
        let _ = timeout(self.finish_timeout, closed).await;
    }

    fn emit(&mut self, event: Event) {
        let again = matches!(event, Event::Rtt { .. } | Event::Discovered { .. });
        if self.backlog.is_empty() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => self.backlog.push_back(event),
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        } else if again && self.backlog.len() >= BACKLOG_BUSY {
            self.metrics.events_dropped.inc();
        } else {
            self.backlog.push_back(event);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addresses } => self.on_dial(peer, addresses),
            Command::Disconnect { peer } => {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::LeaveAlone { peer, time } => {
                self.swarm.behaviour_mut().left_alone.leave_alone(peer, time);
            }
            Command::Bootstrap => {
                let local = *self.swarm.local_peer_id();
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    // Fills the table; what it finds on the way it dials itself. Fails if the table is empty.
                    let _ = kad.bootstrap();
                    // Whom we are told of here is told as discovered.
                    kad.get_closest_peers(local);
                }
            }
            Command::Shutdown => {}
        }
    }

    /// Dials a peer, or each address by itself if they name different peers or none.
    fn on_dial(&mut self, peer: Option<PeerId>, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(DIAL_ADDRESSES_MAX);
        if peer.is_some() {
            return self.dial(peer, addresses);
        }
        let mut named: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
        for address in addresses {
            match peer::peer_of_address(&address) {
                None => self.dial(None, vec![address]),
                Some(peer) => match named.iter_mut().find(|(other, _)| *other == peer) {
                    Some((_, addresses)) => addresses.push(address),
                    None => named.push((peer, vec![address])),
                },
            }
        }
        for (peer, addresses) in named {
            self.dial(Some(peer), addresses);
        }
    }

    fn dial(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>) {
        if peer.as_ref() == Some(self.swarm.local_peer_id()) {
            let reason = "the address names this node itself".into();
            return self.emit(Event::DialFailed { peer, addresses, kind: DialFailure::Myself, reason });
        }
        // A new port for each dial: with the listener's, two nodes that dial each other at once would meet in
        // one TCP connection on which both think they are the client.
        let options = match (peer, addresses.first()) {
            (Some(peer), Some(_)) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses.clone())
                .allocate_new_port()
                .build(),
            (Some(peer), None) => {
                DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build()
            }
            (None, Some(address)) => {
                DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build()
            }
            (None, None) => return,
        };
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, addresses);
            }
            Err(error) => self.on_dial_failed(peer, addresses, &error),
        }
    }

    fn on_dial_failed(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, error: &DialError) {
        let (kind, reason) = dial::explain(error);
        self.emit(Event::DialFailed { peer, addresses, kind, reason });
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<MeshBehaviourEvent>) {
        self.recorder.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                self.dials.remove(&connection_id);
                let (outbound, address) = side(endpoint);
                self.connections.insert(connection_id, is_loopback(&address));
                let address = peer::without_peer(address);
                let connections = num_established.get();
                self.emit(Event::Connected { peer: peer_id, outbound, address, connections });
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, endpoint, num_established, cause } => {
                self.connections.remove(&connection_id);
                if num_established > 0 {
                    let address = peer::without_peer(side(endpoint).1);
                    self.emit(Event::Closed { peer: peer_id, address });
                } else {
                    let reason = match cause {
                        None => "closed by this node".into(),
                        Some(ConnectionError::KeepAliveTimeout) => "idle".into(),
                        Some(ConnectionError::IO(error)) => dial::chain(&error),
                    };
                    self.emit(Event::Disconnected { peer: peer_id, reason });
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                // Those not in the list were Kademlia's own.
                if let Some(addresses) = self.dials.remove(&connection_id) {
                    match dial::others(&error, &addresses) {
                        others if others.is_empty() => self.on_dial_failed(peer_id, addresses, &error),
                        others => self.dial(peer_id, others),
                    }
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.emit(Event::Listening { address: peer::without_peer(address) });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let reason = "the address is gone".into();
                self.emit(Event::ListenFailed { addresses: vec![address], reason });
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                let reason = reason.err().map_or_else(|| "closed".into(), |error| dial::chain(&error));
                self.emit(Event::ListenFailed { addresses, reason });
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener"),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, error = dial::chain(&error), "refused a connection");
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: MeshBehaviourEvent) {
        match event {
            MeshBehaviourEvent::Gossip(event)
            | MeshBehaviourEvent::Control(event)
            | MeshBehaviourEvent::Log(event)
            | MeshBehaviourEvent::Blob(event)
            | MeshBehaviourEvent::Compute(event) => self.emit(event),
            MeshBehaviourEvent::Identify(event) => {
                self.recorder.record(&event);
                if let identify::Event::Received { connection_id, peer_id, info } = event {
                    self.on_identified(connection_id, peer_id, &info);
                }
            }
            MeshBehaviourEvent::Ping(event) => {
                self.recorder.record(&event);
                self.on_ping(&event);
            }
            MeshBehaviourEvent::Kad(event) => {
                self.recorder.record(&event);
                self.on_kad(event);
            }
            MeshBehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
                for (peer, address) in found {
                    peers.entry(peer).or_default().push(address);
                }
                for (peer, addresses) in peers {
                    self.on_discovered(peer, &addresses, Source::Mdns);
                }
            }
            MeshBehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            MeshBehaviourEvent::Limits(never) | MeshBehaviourEvent::LeftAlone(never) => match never {},
        }
    }

    fn on_identified(&mut self, connection: ConnectionId, peer: PeerId, info: &identify::Info) {
        let loopback = self.connections.get(&connection).is_some_and(|loopback| *loopback);
        let listen = filter_addresses(peer, &info.listen_addrs, loopback);
        let protocols: Vec<String> = info
            .protocols
            .iter()
            .filter(|protocol| protocol.as_ref().len() <= PROTOCOL_BYTES_MAX)
            .take(PROTOCOLS_MAX)
            .map(|protocol| dial::clean(protocol.as_ref(), PROTOCOL_BYTES_MAX))
            .collect();
        if info.protocols.contains(&self.kad_protocol)
            && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
        {
            for address in &listen {
                kad.add_address(&peer, address.clone());
            }
        }
        let foreign = foreign_mesh(&protocols, &self.mesh);
        self.emit(Event::Identified {
            peer,
            protocol_version: dial::clean(&info.protocol_version, AGENT_BYTES_MAX),
            agent: dial::clean(&info.agent_version, AGENT_BYTES_MAX),
            protocols,
            listen,
        });
        if let Some(mesh) = foreign {
            self.emit(Event::ForeignMesh { peer, mesh });
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        match &event.result {
            Ok(rtt) => self.emit(Event::Rtt { peer: event.peer, rtt: *rtt }),
            Err(ping::Failure::Unsupported) => {}
            // The second in a row: of the first libp2p tells nothing. No transport would notice a cut cable by
            // itself for minutes, and as long as the connection stands the peer is not dialled again.
            Err(_) => {
                tracing::debug!(peer = %event.peer, "closing a connection that does not answer");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { result: kad::QueryResult::GetClosestPeers(result), .. } =
            event
        else {
            return;
        };
        let peers = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        for peer in peers {
            self.on_discovered(peer.peer_id, &peer.addrs, Source::Kademlia);
        }
    }

    fn on_discovered(&mut self, peer: PeerId, addresses: &[Multiaddr], source: Source) {
        // Loopback addresses are worth something only to nodes that meet on this machine.
        let loopback = self.connections.values().any(|loopback| *loopback);
        let addresses = filter_addresses(peer, addresses, loopback);
        if peer != *self.swarm.local_peer_id() && !addresses.is_empty() {
            self.emit(Event::Discovered { peer, addresses, source });
        }
    }
}

/// The other mesh that a peer's protocols name, unless they also name ours.
fn foreign_mesh(protocols: &[String], ours: &MeshId) -> Option<String> {
    let ours = ours.to_string();
    let mut foreign = None;
    for protocol in protocols {
        let mesh = protocol
            .strip_prefix(PROTOCOL_VERSION)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.split_once('/'))
            .map(|(mesh, _)| mesh)
            .filter(|mesh| mesh.parse::<MeshId>().is_ok());
        match mesh {
            Some(mesh) if mesh == ours => return None,
            Some(mesh) => foreign = Some(mesh.to_owned()),
            None => {}
        }
    }
    foreign
}

/// Keeps the addresses of `peer` that can be dialled: bounded in number and length, with a usable IP.
fn filter_addresses(peer: PeerId, addresses: &[Multiaddr], loopback: bool) -> Vec<Multiaddr> {
    let mut kept: Vec<Multiaddr> = Vec::new();
    for address in addresses {
        if kept.len() >= ADDRESSES_MAX {
            break;
        }
        if address.len() > ADDRESS_BYTES_MAX
            || peer::peer_of_address(address).is_some_and(|other| other != peer)
            || (is_loopback(address) && !loopback)
        {
            continue;
        }
        let usable = match address.iter().next() {
            Some(Protocol::Ip4(ip)) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
            // A link-local address means nothing without the interface, which it does not say.
            Some(Protocol::Ip6(ip)) => {
                !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local())
            }
            Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Memory(_)) => true,
            _ => false,
        };
        let address = peer::without_peer(address.clone());
        if usable && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// Whether this node made the connection, and where the other end is.
fn side(endpoint: ConnectedPoint) -> (bool, Multiaddr) {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => (true, address),
        ConnectedPoint::Listener { send_back_addr, .. } => (false, send_back_addr),
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip).to_canonical().is_loopback(),
        Some(Protocol::Memory(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_that_can_be_dialled_are_kept() {
        let peer = PeerId::random();
        let mut told = addresses(&[
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/::/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/dns/example.org/tcp/1",
            "/unix/a",
        ]);
        told.push(told[0].clone().with(Protocol::P2p(peer)));
        told.push(told[0].clone().with(Protocol::P2p(PeerId::random())));
        let kept = filter_addresses(peer, &told, false);
        assert_eq!(kept, addresses(&["/ip4/10.0.0.1/tcp/1", "/dns/example.org/tcp/1"]));
        assert!(filter_addresses(peer, &told, true).contains(&addresses(&["/ip4/127.0.0.1/tcp/1"])[0]));
        let many: Vec<Multiaddr> =
            (1..1000).map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()).collect();
        assert_eq!(filter_addresses(peer, &many, false).len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_foreign_mesh_is_one_that_is_not_ours() {
        let ours = MeshId::from_bytes([1; 16]);
        let other = MeshId::from_bytes([2; 16]);
        let control = |mesh: &MeshId| super::super::behaviour::control_protocol(mesh).to_string();
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(foreign_mesh(&[control(&other)], &ours), Some(other.to_string()));
        assert_eq!(foreign_mesh(&[control(&other), control(&ours)], &ours), None);
        assert_eq!(foreign_mesh(&[control(&ours)], &ours), None);
        assert_eq!(foreign_mesh(&texts(&["/meshsub/1.1.0", "/omnimesh/gossip/1"]), &ours), None);
        assert_eq!(
            foreign_mesh(&texts(&["/omnimesh/1/<script>/x", "/omnimesh/1/", "/omnimesh/1"]), &ours),
            None
        );
    }
}
