//! The driver.

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::config::Config;
use super::event::{Event, Inbound};

/// Capacity of the channel of commands.
pub const COMMANDS_MAX: usize = 1024;

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
    AddAddress { peer: PeerId, address: Multiaddr },
    Bootstrap,
    Block { peer: PeerId },
    Unblock { peer: PeerId },
    Shutdown,
}

impl Network {
    /// Starts a network on the current tokio runtime, listening on all of `config.listen`.
    ///
    /// # Errors
    /// An address that cannot be listened on, a setting that makes no sense, or no transport.
    pub async fn start(keypair: Keypair, config: Config, registry: &mut Registry) -> Result<Started, Error> {
        let _ = (keypair, config, registry);
        Err(Error::Transport("not built yet".into()))
    }
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

    /// Tells Kademlia where a peer is.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn add_address(&self, peer: PeerId, address: Multiaddr) -> Result<(), CommandError> {
        self.send(Command::AddAddress { peer, address })
    }

    /// Looks for peers in Kademlia; what is found comes as [`Event::Discovered`].
    ///
    /// # Errors
    /// The command was not taken.
    pub fn bootstrap(&self) -> Result<(), CommandError> {
        self.send(Command::Bootstrap)
    }

    /// Closes all connections to a peer and refuses new ones. At most [`BLOCKED_MAX`] are kept; the oldest
    /// goes first.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn block(&self, peer: PeerId) -> Result<(), CommandError> {
        self.send(Command::Block { peer })
    }

    /// Undoes [`NetworkHandle::block`].
    ///
    /// # Errors
    /// The command was not taken.
    pub fn unblock(&self, peer: PeerId) -> Result<(), CommandError> {
        self.send(Command::Unblock { peer })
    }

    /// Writes what waits, closes all connections and ends; [`Started::events`] ends then.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn shutdown(&self) -> Result<(), CommandError> {
        self.send(Command::Shutdown)
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

/// The most peers blocked.
pub const BLOCKED_MAX: usize = 4096;
