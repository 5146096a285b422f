//! Starting a network, and the handle to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::identity::Keypair;
use libp2p::swarm::Swarm;
use libp2p::{Multiaddr, PeerId};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, mpsc};

use super::behaviour::{
    GOSSIP_PROTOCOLS, MeshBehaviour, blob_protocol, compute_protocol, control_protocol, log_protocol,
};
use super::config::Config;
use super::driver::Driver;
use super::event::{Event, Inbound, StreamKind};
use super::metrics::Metrics;
use super::{streams, transport};

/// Capacity of the channel of commands.
pub const COMMANDS_MAX: usize = 1024;

/// Capacity of the channel of events.
const EVENTS_MAX: usize = 1024;

/// How long it may take until an address listened on is known; a system takes milliseconds.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the network does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the port.
    #[error(
        "cannot listen on {address}: the port is in use by another process; stop it or choose another port"
    )]
    PortInUse {
        /// Where.
        address: Multiaddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{setting}: {reason}")]
    Config {
        /// Which.
        setting: &'static str,
        /// Why.
        reason: String,
    },
    /// The transports cannot be set up.
    #[error("cannot set up the transports: {0}")]
    Transport(String),
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Too many wait.
    #[error("the network is busy: {COMMANDS_MAX} commands wait")]
    Busy,
    /// The network has ended.
    #[error("the network has ended")]
    Stopped,
}

/// The libp2p swarm of a node, driven by a task of its own.
#[derive(Debug)]
pub struct Network;

/// A network that runs.
#[derive(Debug)]
pub struct Started {
    /// For commands. The network ends when the last clone is dropped.
    pub handle: NetworkHandle,
    /// What happens. Take them: when nobody does, the network accepts and makes no connections.
    pub events: mpsc::Receiver<Event>,
    /// Frames of gossip streams.
    pub gossip: mpsc::Receiver<Inbound>,
    /// Frames of control streams, separate so that they never wait behind a flood of gossip.
    pub control: mpsc::Receiver<Inbound>,
    /// Frames of log streams; none come if the node keeps no log.
    pub log: mpsc::Receiver<Inbound>,
    /// Frames of blob streams; none come if the node keeps no blobs.
    pub blob: mpsc::Receiver<Inbound>,
    /// Frames of compute streams; none come if the node does no tasks.
    pub compute: mpsc::Receiver<Inbound>,
    /// Where it listens, with the ports that were taken for 0.
    pub listening: Vec<Multiaddr>,
}

/// Gives commands to a [`Network`]. Cheap to clone, usable from any thread, never blocks.
#[derive(Debug, Clone)]
pub struct NetworkHandle {
    peer: PeerId,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
pub(super) enum Command {
    Dial { peer: Option<PeerId>, addresses: Vec<Multiaddr> },
    Disconnect { peer: PeerId },
    LeaveAlone { peer: PeerId, time: Duration },
    Bootstrap,
    Shutdown,
}

impl Network {
    /// Starts a network on the current tokio runtime, listening on all of `config.listen`.
    ///
    /// # Errors
    /// An address that cannot be listened on, a setting that makes no sense, or no transport.
    pub async fn start(keypair: Keypair, config: Config, registry: &mut Registry) -> Result<Started, Error> {
        check(&config)?;
        let peer = keypair.public().to_peer_id();
        let metrics = Metrics::new(registry);
        let recorder = libp2p::metrics::Metrics::new(registry);
        let (gossip_sink, gossip) = mpsc::channel(config.gossip.inbound_batches);
        let (control_sink, control) = mpsc::channel(config.control.inbound_batches);
        let (log_sink, log) = mpsc::channel(config.log.map_or(1, |log| log.inbound_batches));
        let log_settings = config.log.map(|_| settings(StreamKind::Log, &config, log_sink, &metrics));
        let (blob_sink, blob) = mpsc::channel(config.blob.map_or(1, |blob| blob.inbound_batches));
        let blob_settings = config.blob.map(|_| settings(StreamKind::Blob, &config, blob_sink, &metrics));
        let (compute_sink, compute) =
            mpsc::channel(config.compute.map_or(1, |compute| compute.inbound_batches));
        let compute_settings =
            config.compute.map(|_| settings(StreamKind::Compute, &config, compute_sink, &metrics));
        let behaviour = MeshBehaviour::new(
            &keypair,
            &config,
            settings(StreamKind::Gossip, &config, gossip_sink, &metrics),
            settings(StreamKind::Control, &config, control_sink, &metrics),
            [log_settings, blob_settings, compute_settings],
        )?;
        let transport = transport::build(&keypair, &config)?;
        let swarm_config = libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(config.limits.idle_timeout)
            .with_max_negotiating_inbound_streams(config.limits.streams_negotiating)
            // All addresses of a peer, QUIC first, each a little later than the one before (RFC 8305).
            .with_smart_dial();
        let mut swarm = Swarm::new(transport, behaviour, peer, swarm_config);
        for address in &config.external {
            swarm.add_external_address(address.clone());
        }
        let (commands, commands_receiver) = mpsc::channel(COMMANDS_MAX);
        let (events_sender, events) = mpsc::channel(EVENTS_MAX);
        let listeners = listen(&mut swarm, &config)?;
        let finish_timeout = config.control.finish_timeout;
        let mut driver = Driver::new(
            swarm,
            config.mesh,
            finish_timeout,
            commands_receiver,
            events_sender,
            metrics,
            recorder,
        );
        let listening = driver.wait_for_listeners(listeners, LISTEN_TIMEOUT).await?;
        tokio::spawn(driver.run());
        let handle = NetworkHandle { peer, commands };
        Ok(Started { handle, events, gossip, control, log, blob, compute, listening })
    }
}

/// Refuses settings that could not work.
fn check(config: &Config) -> Result<(), Error> {
    let (log, blob) = (config.log.unwrap_or_default(), config.blob.unwrap_or_default());
    let compute = config.compute.unwrap_or_default();
    let streams = [
        (StreamKind::Gossip, &config.gossip),
        (StreamKind::Control, &config.control),
        (StreamKind::Log, &log),
        (StreamKind::Blob, &blob),
        (StreamKind::Compute, &compute),
    ];
    for (kind, stream) in streams {
        let zero = [
            (stream.frame_bytes_max, "frame_bytes_max"),
            (stream.queue_frames, "queue_frames"),
            (stream.inbound_batches, "inbound_batches"),
            (stream.inbound_bytes, "inbound_bytes"),
        ];
        if let Some((_, setting)) = zero.into_iter().find(|(value, _)| *value == 0) {
            let reason = format!("must not be 0 (for {} streams)", kind.name());
            return Err(Error::Config { setting, reason });
        }
    }
    if config.ping_interval.is_zero() || config.ping_timeout.is_zero() {
        return Err(Error::Config { setting: "ping_interval, ping_timeout", reason: "must not be 0".into() });
    }
    Ok(())
}

fn settings(
    kind: StreamKind,
    config: &Config,
    sink: mpsc::Sender<Inbound>,
    metrics: &Metrics,
) -> streams::Settings {
    let (protocols, stream): (Arc<[_]>, _) = match kind {
        // The first one is OmniMesh's own.
        StreamKind::Gossip if !config.tree => (Arc::from(&GOSSIP_PROTOCOLS[1..]), config.gossip),
        StreamKind::Gossip => (Arc::new(GOSSIP_PROTOCOLS), config.gossip),
        StreamKind::Control => (Arc::new([control_protocol(&config.mesh)]), config.control),
        StreamKind::Log => (Arc::new([log_protocol(&config.mesh)]), config.log.unwrap_or_default()),
        StreamKind::Blob => (Arc::new([blob_protocol(&config.mesh)]), config.blob.unwrap_or_default()),
        StreamKind::Compute => {
            (Arc::new([compute_protocol(&config.mesh)]), config.compute.unwrap_or_default())
        }
    };
    let memory = Arc::new(Semaphore::new(stream.inbound_bytes.min(Semaphore::MAX_PERMITS)));
    let (metrics, node_memory) = (metrics.of(kind).clone(), config.memory.clone());
    streams::Settings { kind, protocols, config: stream, sink, memory, node_memory, metrics }
}

/// Begins to listen on all addresses, or on none.
fn listen(
    swarm: &mut Swarm<MeshBehaviour>,
    config: &Config,
) -> Result<HashMap<ListenerId, Multiaddr>, Error> {
    for address in &config.listen {
        transport::check_port_is_free(address)?;
    }
    let mut listeners = HashMap::new();
    for address in &config.listen {
        let id = swarm.listen_on(address.clone()).map_err(|error| match error {
            TransportError::Other(error) => transport::listen_error(address.clone(), &error),
            TransportError::MultiaddrNotSupported(_) => Error::Listen {
                address: address.clone(),
                reason: "no such transport; use /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1"
                    .into(),
            },
        })?;
        listeners.insert(id, address.clone());
    }
    Ok(listeners)
}

impl NetworkHandle {
    /// This node's peer id.
    pub fn local_peer(&self) -> PeerId {
        self.peer
    }

    /// Connects to a peer: ends in [`Event::Connected`] or [`Event::DialFailed`]. Without `peer`, the one that
    /// the address names is expected, or else whoever is there. At most [`DIAL_ADDRESSES_MAX`] are tried.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn dial(&self, peer: Option<PeerId>, addresses: Vec<Multiaddr>) -> Result<(), CommandError> {
        self.send(Command::Dial { peer, addresses })
    }

    /// Closes all connections to a peer.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn disconnect(&self, peer: PeerId) -> Result<(), CommandError> {
        self.send(Command::Disconnect { peer })
    }

    /// Lets no dial reach a peer for so long, Kademlia's own among them. It may dial this node.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn leave_alone(&self, peer: PeerId, time: Duration) -> Result<(), CommandError> {
        self.send(Command::LeaveAlone { peer, time })
    }

    /// Looks for peers in Kademlia; what is found comes as [`Event::Discovered`].
    ///
    /// # Errors
    /// The command was not taken.
    pub fn bootstrap(&self) -> Result<(), CommandError> {
        self.send(Command::Bootstrap)
    }

    /// Writes what waits, closes all connections and ends; [`Started::events`] ends then.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn shutdown(&self) -> Result<(), CommandError> {
        self.send(Command::Shutdown)
    }

    /// Waits until the network has ended.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    fn send(&self, command: Command) -> Result<(), CommandError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Stopped,
        })
    }
}

/// The most addresses of one dial.
pub const DIAL_ADDRESSES_MAX: usize = 16;
