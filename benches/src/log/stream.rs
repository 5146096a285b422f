//! Bytes on one stream of stock libp2p: TCP, Noise and Yamux with their defaults, one process at each end. They come from
//! memory and go nowhere, or from a file into a file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
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
    /// What is sent is a file in this directory, and each stream that is read becomes one.
    #[arg(long)]
    files: Option<PathBuf>,
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
    /// With a directory: from a file there into another one.
    pub(crate) async fn start(files: Option<&Path>) -> Outcome<Self> {
        let files = files.map(|dir| dir.to_str().ok_or("a path that is no text")).transpose()?;
        let args: Vec<&str> =
            ["stream"].into_iter().chain(files.into_iter().flat_map(|dir| ["--files", dir])).collect();
        let mut receiver = Process::start(args.iter().copied())?;
        let Reply::Listening(address) = receiver.reply().await? else { return Err("no address".into()) };
        let sender = Process::start(args.into_iter().chain([address.as_str()]))?;
        Ok(Pair { _receiver: receiver, sender })
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
        let files = args.files.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let Some((_, stream)) = streams.next().await else { return };
                let file = files.as_ref().map(|dir| dir.join(format!("received-{number}")));
                tokio::spawn(async move {
                    if let Err(error) = receive(stream, file).await {
                        eprintln!("error: {error}");
                    }
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
        let mut chunk = vec![7; CHUNK_BYTES];
        let mut file = args.files.as_deref().map(|dir| written(dir, bytes)).transpose()?;
        let began = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let now_sent = chunk.get_mut(..now).unwrap_or_default();
            if let Some(file) = &mut file {
                file.read_exact(now_sent)?;
            }
            stream.write_all(now_sent).await?;
            left -= now as u64;
        }
        stream.close().await?;
        // Ends when the other side has read everything.
        let _ = stream.read(&mut [0]).await;
        say(&Reply::Carried { us: u64::try_from(began.elapsed().as_micros())? })?;
    }
    Ok(())
}

/// Reads a stream to its end, into a file if there is one.
async fn receive(mut stream: libp2p::Stream, file: Option<PathBuf>) -> Outcome<()> {
    let mut file = file.map(File::create_new).transpose()?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = stream.read(&mut buffer).await?;
        let Some(got @ [_, ..]) = buffer.get(..read) else { break };
        if let Some(file) = &mut file {
            file.write_all(got)?;
        }
    }
    // What has been read to its end is answered by closing.
    Ok(stream.close().await?)
}

/// A file of so many bytes, which is in the page cache, as what a node has just taken in is.
fn written(dir: &Path, bytes: u64) -> Outcome<File> {
    let path = dir.join(format!("sent-{bytes}"));
    if !path.exists() {
        std::io::copy(&mut std::io::repeat(7).take(bytes), &mut File::create_new(&path)?)?;
    }
    Ok(File::open(path)?)
}

fn peer_of(address: &Multiaddr) -> Outcome<PeerId> {
    let peer = address.iter().find_map(|part| match part {
        multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    peer.ok_or_else(|| "an address without a peer".into())
}
