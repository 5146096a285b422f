//! Bytes on one stream of stock libp2p: TCP, Noise and Yamux with their defaults, one process at each end.

use std::time::{Duration, Instant};

use clap::Args;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, multiaddr, noise, tcp, yamux};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::process::{Process, orders, say};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/omnimesh-benches/stream");
/// Written at once: as much as the node's own streams write.
const CHUNK_BYTES: usize = 64 << 10;

/// One end.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// The other end; whoever has none listens.
    to: Option<Multiaddr>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Reply {
    Listening(String),
    /// The sender's: all of it has been read by the other end after so long.
    Carried {
        us: u64,
    },
}

/// Both ends, connected.
pub(crate) struct Pair {
    _receiver: Process,
    sender: Process,
}

impl Pair {
    pub(crate) async fn start() -> Outcome<Self> {
        let mut receiver = Process::start(["stream"])?;
        let Reply::Listening(address) = receiver.reply().await? else { return Err("no address".into()) };
        Ok(Pair { _receiver: receiver, sender: Process::start(["stream", &address])? })
    }

    /// Bytes per second of a stream that carries so many.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(crate) async fn rate(&mut self, bytes: u64) -> Outcome<f64> {
        self.sender.order(bytes).await?;
        let Reply::Carried { us } = self.sender.reply().await? else { return Err("no answer".into()) };
        Ok(bytes as f64 / Duration::from_micros(us).as_secs_f64())
    }
}

/// Runs one end until standard input ends.
pub(crate) fn run(args: &StreamArgs) -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(end(args))
}

async fn end(args: &StreamArgs) -> Outcome<()> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    let mut control = swarm.behaviour().new_control();
    let mut orders = orders::<u64>();
    let Some(address) = &args.to else {
        let mut streams = control.accept(PROTOCOL)?;
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        let me = *swarm.local_peer_id();
        tokio::spawn(async move {
            while let Some((_, mut stream)) = streams.next().await {
                tokio::spawn(async move {
                    let mut buffer = vec![0; CHUNK_BYTES];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                    // What has been read to its end is answered by closing.
                    let _ = stream.close().await;
                });
            }
        });
        loop {
            tokio::select! {
                order = orders.recv() => if order.is_none() { return Ok(()) },
                event = swarm.select_next_some() => {
                    if let libp2p::swarm::SwarmEvent::NewListenAddr { address, .. } = event {
                        say(&Reply::Listening(format!("{address}/p2p/{me}")))?;
                    }
                }
            }
        }
    };
    let peer = peer_of(address)?;
    swarm.dial(address.clone())?;
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    while let Some(bytes) = orders.recv().await {
        let mut stream = control.open_stream(peer, PROTOCOL).await?;
        let chunk = vec![7; CHUNK_BYTES];
        let began = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            stream.write_all(chunk.get(..now).unwrap_or_default()).await?;
            left -= now as u64;
        }
        stream.close().await?;
        // Ends when the other side has read everything.
        let _ = stream.read(&mut [0]).await;
        say(&Reply::Carried { us: u64::try_from(began.elapsed().as_micros())? })?;
    }
    Ok(())
}

fn peer_of(address: &Multiaddr) -> Outcome<PeerId> {
    let peer = address.iter().find_map(|part| match part {
        multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    peer.ok_or_else(|| "an address without a peer".into())
}
