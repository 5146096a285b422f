//! Many real nodes in one process, over links of a given latency.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use omnimesh_node::swarm::{Links, Security};
use omnimesh_node::{Delivery, EmulatedNetwork, Emulation, EmulationError};
use omnimesh_protocol::Mesh;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tokio::sync::mpsc;

const CHANNEL: &str = "news";

fn below(rng: &mut impl Rng, end: u32) -> u32 {
    rng.next_u32() % end
}

/// The seed of this run, printed so that `EMULATION_SEED=… cargo test -p omnimesh-node --test emulation` replays its
/// topology and workload.
fn seed() -> u64 {
    let given = std::env::var("EMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| getrandom::u64().unwrap());
    println!("EMULATION_SEED={seed} cargo test -p omnimesh-node --test emulation");
    seed
}

/// A ring, so that all are connected, and for each node two more links.
fn edges(nodes: u32, rng: &mut impl Rng) -> BTreeSet<(u32, u32)> {
    let mut edges: BTreeSet<_> = (0..nodes).map(|node| (node, (node + 1) % nodes)).collect();
    while edges.len() < 3 * nodes as usize {
        let (a, b) = (below(rng, nodes), below(rng, nodes));
        if a != b && !edges.contains(&(a, b)) && !edges.contains(&(b, a)) {
            edges.insert((a, b));
        }
    }
    edges
}

fn latency(a: u32, b: u32) -> Duration {
    Duration::from_millis(u64::from(5 + (a * 7 + b * 7) % 40))
}

/// The least latency between all nodes, by Floyd and Warshall.
fn shortest(nodes: u32, edges: &BTreeSet<(u32, u32)>) -> Vec<Vec<Duration>> {
    let nodes = nodes as usize;
    let mut paths = vec![vec![Duration::MAX; nodes]; nodes];
    for (a, b) in edges {
        paths[*a as usize][*b as usize] = latency(*a, *b);
        paths[*b as usize][*a as usize] = latency(*b, *a);
    }
    for via in 0..nodes {
        for from in 0..nodes {
            for to in 0..nodes {
                let detour = paths[from][via].saturating_add(paths[via][to]);
                paths[from][to] = paths[from][to].min(detour);
            }
        }
    }
    paths
}

async fn subscribe(network: &EmulatedNetwork, room: usize) -> mpsc::Receiver<Delivery> {
    let (sender, deliveries) = mpsc::channel(room);
    let handler = move |delivery| sender.try_send(delivery).expect("there is room for all");
    network.on_message(CHANNEL, handler).await.unwrap();
    network.wait_subscribed(CHANNEL).await.unwrap();
    deliveries
}

async fn everybody_gets_everything(security: Security, slowdown: u32) {
    const NODES: u32 = 30;
    const MESSAGES: u32 = 20;
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let edges = edges(NODES, &mut rng);
    let mesh = Mesh::open("everybody").unwrap();
    let links = Links::slow(security, NonZeroU32::new(slowdown).unwrap(), latency);
    let mut network = EmulatedNetwork::new(Emulation::new(mesh, links)).unwrap();
    network.add_nodes(NODES).await.unwrap();
    network.connect_all(edges.iter().copied()).await.unwrap();
    network.wait_ready().await.unwrap();
    let room = (NODES * MESSAGES) as usize;
    let mut deliveries = subscribe(&network, room).await;

    for (index, node) in (0..).zip(network.nodes()) {
        let degree = edges.iter().filter(|(a, b)| *a == index || *b == index).count();
        let peers = node.channel_peers(CHANNEL).await.unwrap();
        assert_eq!(peers.subscribed, degree, "node {index} has the links that were made and no others");
    }

    let mut published = Vec::new();
    for number in 0..MESSAGES {
        let from = below(&mut rng, NODES);
        published.push((from, network.now()));
        network.broadcast(from, CHANNEL, number.to_le_bytes().to_vec()).await.unwrap();
    }
    let paths = shortest(NODES, &edges);
    let mut copies = BTreeMap::new();
    while copies.len() < (MESSAGES * (NODES - 1)) as usize {
        let Delivery { node, from, at, message } = deliveries.recv().await.unwrap();
        let from = from.expect("a neighbour brought it");
        assert!(
            edges.contains(&(node, from)) || edges.contains(&(from, node)),
            "{from} is no neighbour of {node}"
        );
        let number = u32::from_le_bytes(message.payload[..].try_into().unwrap());
        let (author, begun) = published[number as usize];
        assert_eq!(message.author, network.node(author).unwrap().peer_id());
        assert!(copies.insert((node, number), ()).is_none(), "node {node} delivered message {number} twice");
        // A tick of the timers for each hop; a busy machine makes it later, never earlier.
        let least = paths[author as usize][node as usize].saturating_sub(Duration::from_millis(NODES.into()));
        assert!(at - begun >= least, "message {number} was at node {node} before light");
    }
    let mut delivered = 0;
    for index in 0..NODES {
        let stats = network.gossip_stats(index).await.unwrap();
        delivered += stats.copies_received - stats.duplicates;
    }
    assert_eq!(delivered, u64::from(MESSAGES * (NODES - 1)), "each node took each message once");
    network.shutdown().await;
}

#[actix::test]
async fn everybody_gets_everything_over_noise() {
    everybody_gets_everything(Security::Noise, 1).await;
}

#[actix::test]
async fn everybody_gets_everything_without_noise_and_in_slow_time() {
    everybody_gets_everything(Security::None, 2).await;
}

/// Nobody dials, asks or forwards beyond the links that were made.
#[actix::test]
async fn islands_stay_islands() {
    let links = Links::new(Security::None, |_, _| Duration::from_millis(1));
    let mesh = Mesh::open("islands").unwrap();
    let mut network = EmulatedNetwork::new(Emulation::new(mesh, links)).unwrap();
    network.add_nodes(4).await.unwrap();
    network.connect_all([(0, 1), (2, 3)]).await.unwrap();
    network.wait_ready().await.unwrap();
    let mut deliveries = subscribe(&network, 16).await;
    network.broadcast(0, CHANNEL, "here").await.unwrap();
    network.broadcast(3, CHANNEL, "there").await.unwrap();
    let mut got = Vec::new();
    for _ in 0..2 {
        let Delivery { node, message, .. } = deliveries.recv().await.unwrap();
        got.push((node, message.payload));
    }
    got.sort();
    assert_eq!(got, [(1, "here".into()), (2, "there".into())]);
    // Links made later carry on.
    network.connect(1, 2).await.unwrap();
    network.wait_subscribed(CHANNEL).await.unwrap();
    network.broadcast(3, CHANNEL, "all").await.unwrap();
    let mut reached = BTreeSet::new();
    while reached.len() < 3 {
        reached.insert(deliveries.recv().await.unwrap().node);
    }
    assert_eq!(reached, BTreeSet::from([0, 1, 2]));
    network.shutdown().await;
}

#[actix::test]
async fn what_cannot_be_is_said() {
    let links = Links::new(Security::Noise, |_, _| Duration::ZERO);
    let mesh = Mesh::open("errors").unwrap();
    let mut network = EmulatedNetwork::new(Emulation::new(mesh, links.clone())).unwrap();
    network.add_nodes(1).await.unwrap();
    assert!(matches!(network.connect(0, 1).await, Err(EmulationError::NoNode(1, 1))));
    assert!(matches!(network.connect(0, 0).await, Err(EmulationError::Connect(0, 0, _))));
    // A second network on the same links: its first node is there already.
    let mesh = Mesh::open("errors").unwrap();
    let mut other = EmulatedNetwork::new(Emulation::new(mesh, links)).unwrap();
    assert!(matches!(other.add_nodes(1).await, Err(EmulationError::Start(0, _))));
    other.shutdown().await;
    network.shutdown().await;
}
