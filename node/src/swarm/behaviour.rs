//! What the swarm is made of.

use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, identify, kad, mdns, ping};
use omnimesh_protocol::MeshId;

use super::config::{Config, Limits};
use super::left_alone::LeftAlone;
use super::network::Error;
use super::streams;

/// The version of the protocol that identify tells; see `docs/protocol.md`.
pub const PROTOCOL_VERSION: &str = "/omnimesh/1";

/// What is offered and accepted for gossip, the best first: OmniMesh's own, which has tree mode, then the
/// versions of gossipsub.
pub const GOSSIP_PROTOCOLS: [StreamProtocol; 4] = [
    StreamProtocol::new("/omnimesh/gossip/1"),
    StreamProtocol::new("/meshsub/1.2.0"),
    StreamProtocol::new("/meshsub/1.1.0"),
    StreamProtocol::new("/meshsub/1.0.0"),
];

/// Addresses of peers that identify keeps to dial again.
const IDENTIFY_CACHE: usize = 256;

/// How long one search in Kademlia may take.
const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// The control protocol of a mesh.
pub fn control_protocol(mesh: &MeshId) -> StreamProtocol {
    protocol(omnimesh_protocol::control::protocol_name(*mesh))
}

/// The log protocol of a mesh.
pub fn log_protocol(mesh: &MeshId) -> StreamProtocol {
    protocol(omnimesh_protocol::log::protocol_name(*mesh))
}

/// The blob protocol of a mesh.
pub fn blob_protocol(mesh: &MeshId) -> StreamProtocol {
    protocol(omnimesh_protocol::compute::blob::wire::protocol_name(*mesh))
}

/// The compute protocol of a mesh.
pub fn compute_protocol(mesh: &MeshId) -> StreamProtocol {
    protocol(omnimesh_protocol::compute::wire::protocol_name(*mesh))
}

/// The Kademlia protocol of a mesh.
pub fn kad_protocol(mesh: &MeshId) -> StreamProtocol {
    protocol(format!("{PROTOCOL_VERSION}/{mesh}/kad"))
}

fn protocol(name: String) -> StreamProtocol {
    StreamProtocol::try_from_owned(name).expect("a name that starts with a slash is a protocol")
}

/// The parts, limits first, so that what they refuse reaches no other.
#[derive(NetworkBehaviour)]
pub(super) struct MeshBehaviour {
    limits: connection_limits::Behaviour,
    pub(super) left_alone: LeftAlone,
    pub(super) gossip: streams::Behaviour,
    pub(super) control: streams::Behaviour,
    pub(super) log: Toggle<streams::Behaviour>,
    pub(super) blob: Toggle<streams::Behaviour>,
    pub(super) compute: Toggle<streams::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) kad: Toggle<kad::Behaviour<MemoryStore>>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl MeshBehaviour {
    pub(super) fn new(
        keypair: &Keypair,
        config: &Config,
        gossip: streams::Settings,
        control: streams::Settings,
        [log, blob, compute]: [Option<streams::Settings>; 3],
    ) -> Result<Self, Error> {
        let local = keypair.public().to_peer_id();
        let mdns = if config.mdns {
            let mdns = mdns::tokio::Behaviour::new(mdns::Config::default(), local);
            Some(mdns.map_err(|error| Error::Config { setting: "mdns", reason: error.to_string() })?)
        } else {
            None
        };
        let ping = ping::Config::new().with_interval(config.ping_interval).with_timeout(config.ping_timeout);
        let identify = identify::Config::new(PROTOCOL_VERSION.into(), keypair.public())
            .with_agent_version(concat!("omnimesh/", env!("CARGO_PKG_VERSION")).into())
            .with_push_listen_addr_updates(true)
            .with_cache_size(IDENTIFY_CACHE);
        Ok(MeshBehaviour {
            limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
            left_alone: LeftAlone::new(),
            gossip: streams::Behaviour::new(gossip),
            control: streams::Behaviour::new(control),
            log: log.map(streams::Behaviour::new).into(),
            blob: blob.map(streams::Behaviour::new).into(),
            compute: compute.map(streams::Behaviour::new).into(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            kad: config.kademlia.then(|| kademlia(local, &config.mesh)).into(),
            mdns: mdns.into(),
        })
    }

    /// Whether any stream still writes.
    pub(super) fn is_writing(&self) -> bool {
        self.gossip.is_writing()
            || self.control.is_writing()
            || [&self.log, &self.blob, &self.compute]
                .into_iter()
                .any(|streams| streams.as_ref().is_some_and(streams::Behaviour::is_writing))
    }
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_established(Some(limits.connections))
        .with_max_established_incoming(Some(limits.connections_inbound))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
        .with_max_pending_incoming(Some(limits.pending_inbound))
        .with_max_pending_outgoing(Some(limits.pending_outbound))
}

/// A table of peers and nothing else: no record is taken, kept, cached or published.
fn kademlia(local: PeerId, mesh: &MeshId) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(kad_protocol(mesh));
    config
        .set_query_timeout(KAD_QUERY_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_record_ttl(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // Whoever owns the network says when.
        .set_periodic_bootstrap_interval(None);
    let store = MemoryStoreConfig {
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let mut behaviour = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    // A client would wait for a confirmed external address, which a mesh in one network never has.
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}
