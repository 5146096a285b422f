//! The transports, with their limits set.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use libp2p::core::Transport as _;
use libp2p::core::connection::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, MemoryTransport, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, dns, noise, quic, tcp};

use super::config::{Config, TransportKind};
use super::links::{LinkEnd, Security, Wired};
use super::muxer;
use super::network::Error;

/// How much a peer may send on one QUIC stream and connection before we read it, if the memory of all connections is
/// enough for that. Guesses: a stream's is a 100 ms link of 300 Mbit/s, and two streams carry nearly all.
const QUIC_STREAM_WINDOW: u32 = 4 << 20;
const QUIC_CONNECTION_WINDOW: u32 = 8 << 20;

type Output = (PeerId, StreamMuxerBox);

/// Builds what `config` asks for.
pub(super) fn build(keypair: &Keypair, config: &Config) -> Result<Boxed<Output>, Error> {
    let noise = noise::Config::new(keypair).map_err(|error| Error::Transport(error.to_string()))?;
    let yamux = muxer::Config::new(config);
    let timeout = config.limits.handshake_timeout;
    Ok(match &config.transport {
        TransportKind::Links(end) => links(end, keypair, noise, yamux, timeout),
        TransportKind::Memory => {
            let memory = MemoryTransport::new().upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux);
            TransportTimeout::new(memory, timeout)
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed()
        }
        TransportKind::Internet => {
            let both = || {
                let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
                    .map_err(SocketError)
                    .upgrade(Version::V1Lazy)
                    .authenticate(noise.clone())
                    .multiplex(yamux.clone())
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                let quic = quic::tokio::Transport::new(quic_config(keypair, config))
                    .map_err(quic_error)
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                OrTransport::new(quic, tcp).map(|either, _| either.into_inner())
            };
            // Around the name lookup too, or a dead resolver would hold a dial for long.
            TransportTimeout::new(with_dns(both), timeout).boxed()
        }
    })
}

fn links(
    end: &LinkEnd,
    keypair: &Keypair,
    noise: noise::Config,
    yamux: muxer::Config,
    timeout: Duration,
) -> Boxed<Output> {
    let links = end.transport(keypair.public().to_peer_id());
    match end.security() {
        Security::Noise => {
            let secured = links
                .map(|Wired { pipe, .. }, _| pipe)
                .upgrade(Version::V1Lazy)
                .authenticate(noise)
                .multiplex(yamux)
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
            TransportTimeout::new(secured, timeout).boxed()
        }
        Security::None => {
            let plain = links.map(move |Wired { pipe, peer }, point: ConnectedPoint| {
                (peer, StreamMuxerBox::new(yamux.muxer(pipe, point.is_dialer())))
            });
            TransportTimeout::new(plain, timeout).boxed()
        }
    }
}

/// An error of the lowest layer. The errors of the layers above tell the causes of what they hold, but not
/// itself; as the cause of this one, the operating system's error stays visible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SocketError(#[source] io::Error);

fn quic_error(error: quic::Error) -> SocketError {
    SocketError(match error {
        quic::Error::Io(error) => error,
        quic::Error::HandshakeTimedOut => io::ErrorKind::TimedOut.into(),
        other => io::Error::other(other),
    })
}

fn quic_config(keypair: &Keypair, settings: &Config) -> quic::Config {
    let (mut config, limits) = (quic::Config::new(keypair), &settings.limits);
    config.handshake_timeout = limits.handshake_timeout;
    config.max_concurrent_stream_limit = limits.streams_per_connection;
    let window = u32::try_from(settings.connection_floor()).unwrap_or(u32::MAX).min(QUIC_CONNECTION_WINDOW);
    config.max_stream_data = QUIC_STREAM_WINDOW.min(window);
    config.max_connection_data = window;
    config
}

/// Adds the system's resolver. On a system that names no server, the hosts file is all there is to ask.
fn with_dns<T>(transport: impl Fn() -> T) -> dns::tokio::Transport<T> {
    dns::tokio::Transport::system(transport()).unwrap_or_else(|error| {
        tracing::debug!(%error, "no name servers configured");
        dns::tokio::Transport::custom(transport(), Default::default(), Default::default())
    })
}

/// Fails if another process listens on the TCP port of `address`.
///
/// libp2p sets `SO_REUSEPORT` on its listeners, so that two processes of one user would share a port in silence
/// and each get half of the connections. A plain bind before it finds out.
pub(super) fn check_port_is_free(address: &Multiaddr) -> Result<(), Error> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return Ok(()) };
    if port == 0 {
        return Ok(());
    }
    TcpListener::bind(SocketAddr::new(ip, port))
        .map(drop)
        .map_err(|error| listen_error(address.clone(), &error))
}

/// The error of listening on `address`, in our words.
pub(super) fn listen_error(address: Multiaddr, error: &io::Error) -> Error {
    match super::dial::io_kind(error) {
        Some(io::ErrorKind::AddrInUse) => Error::PortInUse { address },
        Some(io::ErrorKind::AddrNotAvailable) => {
            Error::Listen { address, reason: "this machine has no such address".into() }
        }
        Some(io::ErrorKind::PermissionDenied) => {
            Error::Listen { address, reason: "not permitted (ports below 1024 need a privilege)".into() }
        }
        _ => Error::Listen { address, reason: super::dial::chain(error) },
    }
}
