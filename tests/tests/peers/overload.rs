//! Ten times what a node may hold: it stays within its budget, answers its API meanwhile, and is as before soon after.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use libp2p::{PeerId, Stream};
use omnimesh_node::swarm::blob_protocol;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::{Mesh, Step};
use tokio::task::JoinSet;

use crate::common::{
    Author, MESHSUB, Metrics, PAUSE, Process, identity, poll, publish, subscribe, topic, within,
};
use crate::raw::{RawPeer, framed, varint, write};

/// What the node may hold.
const MEMORY: u64 = 40 << 20;
/// How much more the process may take than before the flood and that: what the allocator keeps, the libraries' tables
/// for connections, and stacks. Measured: peaks of 24 MiB above what it held before, budget included.
const OVERHEAD: u64 = 24 << 20;
/// Peers that subscribe and read nothing, each with more room in its own queue than a twentieth of the budget.
const DEAF: u64 = 24;
/// Peers that send as fast as they can, in all ten times the budget.
const SENDERS: u64 = 5;
const PAYLOAD_BYTES: usize = 60_000;
/// Peers that begin long frames and do not end them.
const HALVES: u64 = 16;
const HALF_BYTES: usize = 6 << 20;
/// How soon messages go through as before.
const RECOVERED_WITHIN: Duration = Duration::from_secs(10);

/// A channel of its own for those who behave.
const QUIET: &str = "quiet";

fn settings() -> Vec<(&'static str, String)> {
    [
        ("LIMITS__MEMORY", MEMORY.to_string()),
        ("NODE__AUTHORS_MAX", "1000".to_owned()),
        ("NETWORK__MAX_NODES", "256".to_owned()),
        ("NETWORK__PEERS_MAX", "60".to_owned()),
        // All of the deaf are in the mesh, so that each gets everything.
        ("GOSSIP__MESH_N", "30".to_owned()),
        ("GOSSIP__MESH_N_LOW", "20".to_owned()),
        ("GOSSIP__MESH_N_HIGH", "40".to_owned()),
        ("OBSERVER__PROBE_INTERVAL_MS", "0".to_owned()),
        // All come from one address.
        ("OBSERVER__ADDRESS_KEYS", "1000".to_owned()),
        ("OBSERVER__NETWORK_KEYS", "1000".to_owned()),
    ]
    .to_vec()
}

/// The node, and how to reach it.
struct Target<'a> {
    node: &'a Process,
    mesh: Mesh,
    address: String,
    peer: PeerId,
}

impl Target<'_> {
    async fn step(&self) -> Step {
        Step(self.node.json("/api/v1/status").await["step"].as_u64().unwrap())
    }

    /// A gossipsub peer that subscribes to a topic.
    async fn peer(&self, seed: u64, topic: &str) -> (RawPeer, Stream) {
        let raw = RawPeer::start(identity(seed), &[MESHSUB]).await;
        raw.dial(&self.address, self.peer).await;
        let mut stream = raw.open(self.peer, MESHSUB).await;
        assert!(write(&mut stream, &framed(&subscribe(topic))).await);
        (raw, stream)
    }

    fn quiet(&self) -> String {
        Channel::new(QUIET).unwrap().topic(&self.mesh.id())
    }
}

/// Two who behave: one says something, and the other hears it through the node.
struct Pair {
    writer: (RawPeer, Stream),
    reader: (RawPeer, Stream),
    author: Author,
}

impl Pair {
    async fn start(target: &Target<'_>, seed: u64) -> Pair {
        let writer = target.peer(seed, &target.quiet()).await;
        let reader = target.peer(seed + 1, &target.quiet()).await;
        Pair { writer, reader, author: Author::new(seed + 2, &target.mesh) }
    }

    /// Says something new again and again until the other has heard some of it.
    async fn talk(&mut self, target: &Target<'_>) {
        let mut said: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut header = self.author.header(target.step().await);
            header.channel = Channel::new(QUIET).unwrap();
            let message = self.author.seal(header, b"as before");
            let frame = framed(&publish(&target.quiet(), &message));
            assert!(write(&mut self.writer.1, &frame).await, "nobody cuts off who behaves");
            said.push(message);
            let heard = tokio::time::timeout(10 * PAUSE, async {
                loop {
                    let frame = self.reader.0.received.recv().await.expect("the reader runs").frame;
                    let is_one =
                        |message: &Vec<u8>| frame.windows(message.len()).any(|part| part == &message[..]);
                    if said.iter().any(is_one) {
                        return;
                    }
                }
            });
            if heard.await.is_ok() {
                return;
            }
        }
    }
}

/// Sends good messages of one author after another until they are so many bytes; a peer that is sent away for it comes back
/// as another. Gives how many peers that took.
async fn send(target: &Target<'_>, first_seed: u64, bytes: u64, step: &Cell<Step>) -> u64 {
    let (mut sent, mut peers) = (0, 0);
    while sent < bytes {
        let seed = first_seed + peers;
        peers += 1;
        let (_raw, mut stream) = target.peer(seed, &topic(&target.mesh)).await;
        let mut author = Author::new(seed, &target.mesh);
        while sent < bytes {
            let header = author.header(step.get());
            let message = author.seal(header, &[7; PAYLOAD_BYTES]);
            if !write(&mut stream, &framed(&publish(&topic(&target.mesh), &message))).await {
                break;
            }
            sent += message.len() as u64;
        }
    }
    peers
}

/// Begins a long frame of the blob protocol and leaves it there, for as long as the tasks run.
async fn half(target: &Target<'_>, seed: u64, writing: &RefCell<JoinSet<()>>) -> RawPeer {
    let protocol = blob_protocol(&target.mesh.id()).to_string();
    let raw = RawPeer::start(identity(seed), &[]).await;
    raw.dial(&target.address, target.peer).await;
    let mut stream = raw.open(target.peer, &protocol).await;
    let begin = [varint(30 << 20), vec![0; HALF_BYTES]].concat();
    writing.borrow_mut().spawn(async move {
        // The node may close the stream, or not read it, for want of room.
        let _ = write(&mut stream, &begin).await;
        std::future::pending::<()>().await;
    });
    raw
}

fn shed(metrics: &Metrics, part: &str, priority: &str) -> f64 {
    metrics.get(&format!("memory_shed_total{{part=\"{part}\",priority=\"{priority}\"}}"))
}

/// What the node says that its parts hold is within what they may.
fn check_parts(metrics: &Metrics) -> BTreeMap<String, f64> {
    let budget = metrics.labelled("memory_budget_bytes", "part");
    let used = metrics.labelled("memory_used_bytes", "part");
    assert!(budget.values().sum::<f64>() <= MEMORY as f64, "{budget:?}");
    for part in ["outbound", "inbound", "cache", "subscribers"] {
        let (used, budget) = (used.get(part).copied().unwrap_or(0.0), budget[part]);
        assert!(used <= budget, "{part} holds {used} of {budget}");
    }
    used
}

/// Asks the node how it is, for as long as the flood goes on. Gives how often it answered, and the most that each part held.
async fn ask(target: &Target<'_>, is_over: &Cell<bool>, step: &Cell<Step>) -> (u64, BTreeMap<String, f64>) {
    let (mut answers, mut most) = (0, BTreeMap::<String, f64>::new());
    while !is_over.get() {
        target.node.get("/livez").await.unwrap();
        step.set(target.step().await);
        for (part, used) in check_parts(&target.node.metrics().await) {
            let held = most.entry(part).or_default();
            *held = held.max(used);
        }
        answers += 1;
        tokio::time::sleep(PAUSE).await;
    }
    (answers, most)
}

#[actix::test]
async fn a_flood_of_ten_times_its_memory_leaves_a_node_within_its_budget_and_well() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let node = Process::start(dir.path(), "overload", &settings).await;
    let (address, peer) = node.address().await;
    let target = Target { node: &node, mesh: Mesh::open("overload").unwrap(), address, peer };
    let mut pair = Pair::start(&target, 100).await;
    within("messages go through", pair.talk(&target)).await;
    let idle = node.resident_bytes();

    let mut deaf = Vec::new();
    for seed in 1000..1000 + DEAF {
        let (mut raw, stream) = target.peer(seed, &topic(&target.mesh)).await;
        raw.receive("the node's own words", |received| (received.from == peer).then_some(())).await;
        raw.go_deaf();
        deaf.push((raw, stream));
    }
    let writing = RefCell::new(JoinSet::new());
    let halves = futures::future::join_all((0..HALVES).map(|n| half(&target, 2000 + n, &writing))).await;
    poll("not every half frame has room", async || {
        (shed(&node.metrics().await, "connections", "bulk") > 0.0).then_some(())
    })
    .await;
    let (is_over, step) = (Rc::new(Cell::new(false)), Cell::new(target.step().await));
    let flood = async {
        let senders = (0..SENDERS).map(|n| send(&target, 10_000 * (n + 1), 10 * MEMORY / SENDERS, &step));
        let peers: u64 = futures::future::join_all(senders).await.into_iter().sum();
        is_over.set(true);
        peers
    };
    let (peers, (answers, most)) = tokio::join!(flood, ask(&target, &is_over, &step));
    let peak = node.resident_bytes_max();
    drop((deaf, halves, writing));
    let mut after = Pair::start(&target, 200).await;
    let recovered = tokio::time::timeout(RECOVERED_WITHIN, after.talk(&target)).await;

    let metrics = node.metrics().await;
    println!(
        "{} MiB before, {} MiB at most, {} MiB after; {answers} answers meanwhile; {peers} peers sent; held at most {most:?}",
        idle >> 20,
        peak >> 20,
        node.resident_bytes() >> 20,
    );
    let of_parts = metrics.labelled("memory_shed_total", "part");
    println!("shed {of_parts:?}, verified {}", metrics.get("messages_verified_total"));
    recovered.expect("messages go through again after the flood");
    assert!(peak <= idle + MEMORY + OVERHEAD, "{peak} bytes, {idle} before");
    assert!(answers > 0);
    assert!(shed(&metrics, "outbound", "forwarded") > 0.0, "the deaf are sent less than there is");
    assert_eq!(shed(&metrics, "outbound", "control"), 0.0, "what matters most is shed last");
    assert_eq!(metrics.get("actor_restarts_total"), 0.0);
}
