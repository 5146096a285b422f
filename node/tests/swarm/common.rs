//! Nodes, and what to wait for on them.

use std::time::Duration;

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use omnimesh_node::swarm::{
    Config, DialFailure, DownReason, Error, Event, Inbound, Network, NetworkHandle, Outbound, StreamKind,
    peer,
};
use omnimesh_protocol::{Identity, MeshId};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Longer than anything here takes, so that a hang is a failure with a name.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) handle: NetworkHandle,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) gossip: mpsc::Receiver<Inbound>,
    pub(crate) control: mpsc::Receiver<Inbound>,
    pub(crate) listening: Vec<Multiaddr>,
    pub(crate) registry: Registry,
}

pub(crate) fn config(listen: &[&str]) -> Config {
    let mut config = Config::new(MeshId::from_bytes([1; 16]));
    config.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    config
}

pub(crate) async fn try_start(seed: u8, config: Config) -> Result<Node, Error> {
    let mut registry = Registry::default();
    let keypair = peer::keypair(&Identity::from_seed(&[seed; 32]));
    let started = Network::start(keypair, config, &mut registry).await?;
    Ok(Node {
        handle: started.handle,
        events: started.events,
        gossip: started.gossip,
        control: started.control,
        listening: started.listening,
        registry,
    })
}

pub(crate) async fn start(seed: u8, config: Config) -> Node {
    try_start(seed, config).await.unwrap()
}

/// Nodes 1 and 2, the first of which dials the second.
pub(crate) async fn connected_pair(a: Config, b: Config) -> (Node, Node) {
    let (a, b) = (start(1, a).await, start(2, b).await);
    a.handle.dial(Some(b.handle.local_peer()), b.listening.clone()).unwrap();
    (a, b)
}

/// What `wanted` makes of the first event that it wants.
pub(crate) async fn event<T>(node: &mut Node, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = node.events.recv().await.unwrap_or_else(|| panic!("no more events before {what}"));
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no event within time: {what}"))
}

pub(crate) async fn stream_up(node: &mut Node, wanted: StreamKind) -> (String, Outbound) {
    event(node, "StreamUp", |event| match event {
        Event::StreamUp { kind, protocol, outbound, .. } if *kind == wanted => {
            Some((protocol.to_string(), outbound.clone()))
        }
        _ => None,
    })
    .await
}

pub(crate) async fn stream_down(node: &mut Node, wanted: StreamKind) -> DownReason {
    event(node, "StreamDown", |event| match event {
        Event::StreamDown { kind, reason, .. } if *kind == wanted => Some(reason.clone()),
        _ => None,
    })
    .await
}

pub(crate) async fn disconnected(node: &mut Node) {
    event(node, "Disconnected", |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
}

pub(crate) async fn dial_failed(node: &mut Node) -> (Option<PeerId>, Vec<Multiaddr>, DialFailure, String) {
    event(node, "DialFailed", |event| match event {
        Event::DialFailed { peer, addresses, kind, reason } => {
            Some((*peer, addresses.clone(), *kind, reason.clone()))
        }
        _ => None,
    })
    .await
}

/// The next `count` frames, or a few more that came with the last.
pub(crate) async fn frames(inbound: &mut mpsc::Receiver<Inbound>, count: usize) -> Vec<Bytes> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = tokio::time::timeout(PATIENCE, inbound.recv()).await;
        match next.unwrap_or_else(|_| panic!("{} of {count} frames within time", all.len())).unwrap() {
            Inbound::Frames { frames, .. } => all.extend(frames),
            Inbound::Malformed { reason, .. } => panic!("{reason}"),
        }
    }
    all
}

pub(crate) fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The value of the counter with this name and these labels.
pub(crate) fn metric(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no metric {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A node that has connected to `to` and then stops: its sockets stay open, but nobody serves them.
pub(crate) struct Frozen(Option<(tokio::runtime::Runtime, Node)>);

impl Frozen {
    /// What its key is made of.
    pub(crate) const SEED: u8 = 99;

    /// Freezes once `to` has measured the round trip; gives the gossip stream that `to` has to it.
    pub(crate) async fn connected(to: &mut Node) -> (Self, Outbound) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (target, listening) = (to.handle.local_peer(), to.listening.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let frozen = tokio::task::spawn_blocking(move || {
            let node = runtime.block_on(start(Frozen::SEED, config(&[])));
            node.handle.dial(Some(target), listening).unwrap();
            runtime.block_on(stopped).unwrap();
            Frozen(Some((runtime, node)))
        });
        let (mut gossip, mut measured) = (None, false);
        let outbound = event(to, "a stream and a round trip", |event| {
            match event {
                Event::StreamUp { kind: StreamKind::Gossip, outbound, .. } => gossip = Some(outbound.clone()),
                Event::Rtt { .. } => measured = true,
                _ => {}
            }
            gossip.clone().filter(|_| measured)
        })
        .await;
        stop.send(()).unwrap();
        (frozen.await.unwrap(), outbound)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // A runtime must not be dropped on another's thread.
        let frozen = self.0.take();
        std::thread::spawn(|| drop(frozen));
    }
}
