//! OmniMesh nodes and stock gossipsub peers in one mesh.
//!
//! The stock peers hold the mesh secret, so that they can write envelopes, but know nothing else of OmniMesh:
//! they speak gossipsub and identify. What one side says it did is compared with what the other side counted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::gossipsub::{ConfigBuilder, Version};
use libp2p::{Multiaddr, PeerId};
use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh, Seq, Step};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::stock::{Options, Stock, label};

const CHANNEL: &str = "news";
/// Far above what any of this takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the 1,000 bytes above which IDONTWANT is sent, on both sides.
const LARGE: usize = 4000;

fn mesh() -> Mesh {
    Mesh::open("interop").expect("a name")
}

fn topic() -> String {
    Channel::new(CHANNEL).expect("a name").topic(&mesh().id())
}

/// A payload of this label, filled up to `bytes`.
fn payload(label: &str, bytes: usize) -> Bytes {
    let mut payload = format!("{label}|").into_bytes();
    payload.resize(bytes.max(payload.len()), b'.');
    payload.into()
}

/// Waits until `condition` holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The sum of the metrics of this name with this label (or any).
fn metric(text: &str, name: &str, label: &str) -> u64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let lines = text.lines().filter(of_name).filter(|line| line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// A node of ours that is subscribed.
struct Ours {
    node: MeshNode,
    peer: PeerId,
    got: Rc<RefCell<BTreeMap<String, u32>>>,
}

impl Ours {
    async fn start(seed: u8, bootstrap: &[&Multiaddr], change: impl FnOnce(&mut Config)) -> Ours {
        let mut options = NodeOptions::in_memory(Identity::from_seed(&[seed; 32]), mesh());
        let network = &mut options.config.network;
        network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        network.bootstrap = bootstrap.iter().map(ToString::to_string).collect();
        // The links are those of the test, and what membership dials to probe.
        network.peers_target = 1;
        // What is delivered a minute later is no less right.
        options.config.node.step_window_past = 600;
        change(&mut options.config);
        let node = MeshNode::start(options).await.expect("the node starts");
        let got = Rc::new(RefCell::new(BTreeMap::new()));
        let received = Rc::clone(&got);
        let handler = move |message: omnimesh_node::Message| {
            *received.borrow_mut().entry(label(&message.payload)).or_default() += 1;
        };
        node.on_message(CHANNEL, handler).await.expect("the node runs");
        let peer = node.peer_id().to_string().parse().expect("a peer id");
        Ours { node, peer, got }
    }

    fn address(&self) -> Multiaddr {
        self.node.bootstrap_addresses()[0].parse().expect("an address")
    }

    async fn metric(&self, name: &str, label: &str) -> u64 {
        metric(&self.node.metrics_text().await.expect("the node runs"), &format!("omnimesh_{name}"), label)
    }

    async fn control(&self, way: &str, kind: &str) -> u64 {
        self.metric(&format!("gossip_control_{way}_total"), &format!("\"{kind}\"")).await
    }

    async fn ready(&self) {
        let ready = tokio::time::timeout(PATIENCE, self.node.wait_ready()).await;
        ready.expect("the mesh has a step").expect("the node runs");
    }

    async fn broadcast(&self, label: &str, bytes: usize) {
        self.node.broadcast(CHANNEL, payload(label, bytes)).await.expect("it is published");
    }

    fn has(&self, label: &str) -> bool {
        self.got.borrow().contains_key(label)
    }
}

/// Writes envelopes for a stock peer.
struct Author {
    identity: Identity,
    patterns: PatternGenerator,
    seq: u64,
}

impl Author {
    fn new(seed: u8) -> Self {
        let (interval, cache) = (Config::default().node.phase_interval, 4);
        let interval = interval.try_into().expect("not zero");
        let cache = usize::try_into(cache).expect("not zero");
        let patterns = PatternGenerator::new(mesh().secret().clone(), interval, cache);
        Author { identity: Identity::from_seed(&[seed; 32]), patterns, seq: 0 }
    }

    fn seal(&mut self, step: Step, payload: Bytes) -> Bytes {
        self.seq += 1;
        let header = Header {
            mesh: mesh().id(),
            author: self.identity.id(),
            seq: Seq(self.seq),
            step,
            kind: Kind::Ephemeral,
            channel: Channel::new(CHANNEL).expect("a name"),
            prev: None,
            timestamp_us: None,
        };
        let payloads = [payload].into_iter().collect();
        let envelope = Envelope::seal(&self.identity, self.patterns.at(step), header, payloads);
        envelope.expect("one payload").as_bytes().clone()
    }

    /// In the mesh's step as `node` knows it.
    fn say(&mut self, node: &MeshNode, label: &str, bytes: usize) -> Bytes {
        self.seal(node.step().expect("the node is ready"), payload(label, bytes))
    }
}

/// Ten of each. The first five see to it that every kind of control message is needed in both directions,
/// the others are linked at random:
///
/// ```text
///  ours 0 ══ stock 0     ours 0 has room for one mesh peer, and that one forwards nothing: it must send
///    ├─ ours 1           PRUNE to the others, and ask them by IWANT for all that they did not write
///    │    └─ stock 1     takes nobody into its mesh: it sends PRUNE to ours 1, and IWANT
///    └─ stock 2          gets PRUNE of ours 0
/// ```
struct Crowd {
    ours: Vec<Ours>,
    stock: Vec<(Stock, Author)>,
    rng: ChaCha8Rng,
}

impl Crowd {
    async fn start(seed: u64) -> Crowd {
        println!("seed {seed}");
        let mut crowd = Crowd { ours: Vec::new(), stock: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) };
        let lone = Ours::start(1, &[], |config| {
            let gossip = &mut config.gossip;
            (gossip.mesh_n, gossip.mesh_n_low, gossip.mesh_n_high) = (1, 1, 1);
            gossip.mesh_outbound_min = 0;
        })
        .await;
        let first = lone.address();
        crowd.ours.push(lone);
        crowd.add_stock(&[&first], Options::default()).await;
        let silent = &crowd.stock[0].0;
        until("the two are in a mesh", async || silent.mesh().await.len() == 1).await;
        silent.hold(true).await;
        crowd.add_ours(&[]).await;
        let second = crowd.ours[1].address();
        crowd.add_stock(&[&second], outside_every_mesh()).await;
        crowd.add_stock(&[&first], Options::default()).await;
        let old = Options { change: version_1_1, ..Options::default() };
        let links = crowd.some_others();
        crowd.add_stock(&links.iter().collect::<Vec<_>>(), old).await;
        let mut are_ours: Vec<bool> = (0..14).map(|n| n < 8).collect();
        are_ours.shuffle(&mut crowd.rng);
        for is_ours in are_ours {
            let links = crowd.some_others();
            let links: Vec<&Multiaddr> = links.iter().collect();
            if is_ours {
                crowd.add_ours(&links).await;
            } else {
                crowd.add_stock(&links, Options::default()).await;
            }
        }
        crowd
    }

    /// Two or three who are there.
    fn some_others(&mut self) -> Vec<Multiaddr> {
        let ours = self.ours.iter().map(Ours::address);
        let mut all: Vec<Multiaddr> = ours.chain(self.stock.iter().map(|(s, _)| s.address.clone())).collect();
        let links = self.rng.random_range(2..=3);
        all.partial_shuffle(&mut self.rng, links).0.to_vec()
    }

    async fn add_ours(&mut self, links: &[&Multiaddr]) {
        // The step and the members are known to ours alone.
        let member = self.ours[0].address();
        let links: Vec<&Multiaddr> = links.iter().copied().chain([&member]).collect();
        let seed = 1 + u8::try_from(self.ours.len()).expect("few");
        self.ours.push(Ours::start(seed, &links, |_| {}).await);
    }

    async fn add_stock(&mut self, links: &[&Multiaddr], options: Options) {
        let seed = 100 + u8::try_from(self.stock.len()).expect("few");
        let stock = Stock::start(seed, &topic(), options).await;
        for address in links {
            stock.dial(address).await;
        }
        self.stock.push((stock, Author::new(seed)));
    }

    /// Everybody says something; everybody else must get it, once.
    async fn check(&mut self, round: &str, bytes: usize) {
        let names = (0..10).flat_map(|n| [format!("{round} ours {n}"), format!("{round} stock {n}")]);
        let all: BTreeSet<String> = names.collect();
        for n in 0..10 {
            self.ours[n].broadcast(&format!("{round} ours {n}"), bytes).await;
            let (stock, author) = &mut self.stock[n];
            let envelope = author.say(&self.ours[0].node, &format!("{round} stock {n}"), bytes);
            stock.publish(envelope).await.expect("it is published");
        }
        let is_all = |got: &BTreeMap<String, u32>, own: String| {
            all.iter().all(|name| *name == own || got.contains_key(name))
        };
        until(&format!("everybody has all of {round}"), async || {
            (0..10).all(|n| {
                is_all(&self.ours[n].got.borrow(), format!("{round} ours {n}"))
                    && is_all(&self.stock[n].0.got(), format!("{round} stock {n}"))
            })
        })
        .await;
        for n in 0..10 {
            let (ours, stock) = (self.ours[n].got.borrow(), self.stock[n].0.got());
            assert!(ours.values().chain(stock.values()).all(|times| *times == 1), "nothing comes twice");
        }
    }
}

/// Refuses every GRAFT, so that it gets by IHAVE and IWANT what its neighbours did not write themselves.
fn outside_every_mesh() -> Options {
    let change = |config: &mut ConfigBuilder| {
        config.mesh_outbound_min(0).mesh_n_low(0).mesh_n(0).mesh_n_high(0);
    };
    Options { change, ..Options::default() }
}

fn version_1_1(config: &mut ConfigBuilder) {
    config.protocol_id("/meshsub/1.1.0", Version::V1_1);
}

#[actix::test]
async fn ten_nodes_and_ten_stock_peers_are_one_mesh() {
    let mut crowd = Crowd::start(20).await;
    for ours in &crowd.ours {
        ours.ready().await;
    }
    until("all are in a mesh but those who refuse", async || {
        for (n, (stock, _)) in crowd.stock.iter().enumerate() {
            if stock.mesh().await.is_empty() != (n == 1) {
                return false;
            }
        }
        for ours in &crowd.ours {
            if ours.control("received", "graft").await + ours.control("sent", "graft").await == 0 {
                return false;
            }
        }
        true
    })
    .await;
    crowd.check("small", 64).await;
    crowd.check("large", LARGE).await;

    // What our side counted, and what theirs did.
    for kind in ["graft", "prune", "ihave", "iwant", "idontwant"] {
        let (mut sent, mut received) = (0, 0);
        for ours in &crowd.ours {
            sent += ours.control("sent", kind).await;
            received += ours.control("received", kind).await;
        }
        println!("{kind}: ours sent {sent}, received {received}");
        assert!(sent > 0 && received > 0, "{kind}: ours sent {sent}, received {received}");
    }
    let (mut grafted, mut pruned, mut idontwant, mut iwant) = (0, 0, 0, 0);
    for (n, (stock, _)) in crowd.stock.iter().enumerate() {
        let text = stock.metrics().await;
        grafted += metric(&text, "mesh_peer_inclusion_events_total", "Subscribed");
        pruned += metric(&text, "mesh_peer_churn_events_total", "Prune");
        idontwant += metric(&text, "idontwant_msgs_ids_total", "");
        let asked = metric(&text, "topic_iwant_msgs_total", "");
        assert!(n != 1 || asked > 0, "outside of every mesh all comes by IWANT");
        iwant += asked;
    }
    println!("stock: grafted {grafted}, pruned {pruned}, idontwant {idontwant}, iwant {iwant}");
    assert!(grafted > 0 && pruned > 0 && idontwant > 0 && iwant > 0);
    assert!(crowd.ours[0].control("sent", "iwant").await > 0, "its mesh peer forwards nothing");
    assert!(crowd.ours[1].control("received", "prune").await > 0, "stock 1 is outside of every mesh");
    for ours in &crowd.ours {
        assert_eq!(ours.metric("messages_refused_total", "").await, 0);
        assert_eq!(ours.metric("frames_malformed_total", "").await, 0);
    }
}

/// A chain in which two links are outside of both meshes: what crosses them does so by IHAVE and IWANT.
///
/// ```text
///  writer ══ hub (its mesh is full) ── node ── lonely (refuses all)
/// ```
#[actix::test]
async fn ihave_and_iwant_work_both_ways() {
    let full = |config: &mut ConfigBuilder| {
        config.mesh_outbound_min(0).mesh_n_low(1).mesh_n(1).mesh_n_high(1);
    };
    let writer = Stock::start(1, &topic(), Options::default()).await;
    let hub = Stock::start(2, &topic(), Options { change: full, ..Options::default() }).await;
    hub.dial(&writer.address).await;
    until("the hub's mesh is full", async || hub.mesh().await == BTreeSet::from([writer.peer])).await;
    let lonely = Stock::start(3, &topic(), outside_every_mesh()).await;
    // Stock peers never refuse whom they dialled, so we dial; then another must begin the mesh.
    let founder = Ours::start(4, &[], |_| {}).await;
    let ours = Ours::start(5, &[&founder.address(), &hub.address, &lonely.address], |_| {}).await;
    ours.ready().await;
    until("both have pruned us", async || ours.control("received", "prune").await == 2).await;

    let mut author = Author::new(6);
    let envelope = author.say(&ours.node, "from the writer", 64);
    writer.publish(envelope).await.expect("it is published");
    until("the message crossed two such links", async || {
        ours.has("from the writer") && lonely.got().contains_key("from the writer")
    })
    .await;
    // We asked the hub, the lonely one asked us.
    assert_eq!(ours.control("sent", "iwant").await, 1);
    assert!(ours.control("received", "ihave").await >= 1);
    assert!(ours.control("sent", "ihave").await >= 1);
    assert_eq!(ours.control("received", "iwant").await, 1);
    assert_eq!(ours.metric("gossip_copies_total", "sent_iwant").await, 1);
    assert_eq!(metric(&lonely.metrics().await, "topic_iwant_msgs_total", ""), 1);

    let envelope = author.say(&ours.node, "from the lonely one", 64);
    lonely.publish(envelope).await.expect("it is published");
    until("it crossed the other way", async || writer.got().contains_key("from the lonely one")).await;
    assert_eq!(metric(&hub.metrics().await, "topic_iwant_msgs_total", ""), 1);
    assert_eq!(ours.control("received", "iwant").await, 2);
    // A GRAFT before its backoff is over would have been answered by another PRUNE.
    assert_eq!(ours.control("received", "prune").await, 2);
}

/// A node with room for two to three mesh peers, and six that want to be.
#[actix::test]
async fn graft_and_prune_are_honoured_by_both() {
    let ours = Ours::start(1, &[], |config| {
        let gossip = &mut config.gossip;
        (gossip.mesh_n, gossip.mesh_n_low, gossip.mesh_n_high) = (2, 1, 3);
        gossip.mesh_outbound_min = 0;
    })
    .await;
    let mut stock = Vec::new();
    for n in 0..6 {
        let peer = Stock::start(10 + n, &topic(), Options::default()).await;
        peer.dial(&ours.address()).await;
        stock.push(peer);
    }
    let have_us = async || {
        let mut count = 0;
        for peer in &stock {
            count += u64::from(peer.mesh().await.contains(&ours.peer));
        }
        count
    };
    let sum = async |name: &str, label: &str| {
        let mut sum = 0;
        for peer in &stock {
            sum += metric(&peer.metrics().await, name, label);
        }
        sum
    };
    until("six have knocked and some were sent away", async || {
        let (grafts, prunes) = (ours.control("received", "graft").await, ours.control("sent", "prune").await);
        grafts + ours.control("sent", "graft").await >= 6 && prunes >= 3 && have_us().await == 6 - prunes
    })
    .await;
    let prunes = ours.control("sent", "prune").await;
    assert_eq!(sum("mesh_peer_churn_events_total", "Prune").await, prunes, "they took each PRUNE");
    // None comes back before its backoff is over.
    let (grafts, beats) =
        (ours.control("received", "graft").await, sum("heartbeat_duration_count", "").await);
    until("three heartbeats passed", async || sum("heartbeat_duration_count", "").await >= beats + 3 * 6)
        .await;
    assert_eq!(ours.control("received", "graft").await, grafts);
    assert_eq!(have_us().await, 6 - prunes);
    // One in our mesh leaves: it says PRUNE, and gets no more.
    let mut inside = Vec::new();
    for peer in &stock {
        if peer.mesh().await.contains(&ours.peer) {
            inside.push(peer);
        }
    }
    inside[0].unsubscribe().await;
    until("we were pruned", async || ours.control("received", "prune").await == 1).await;
    ours.broadcast("after", 64).await;
    until("all others have it", async || {
        stock.iter().filter(|peer| peer.got().contains_key("after")).count() == 5
    })
    .await;
    assert!(!inside[0].got().contains_key("after"));
}

/// Each side is told by the other that it does not want a message, before it could send it.
///
/// ```text
///  left ── slow ── node ── right        slow: a stock peer that forwards when it is told to
/// ```
#[actix::test]
async fn idontwant_is_honoured_by_both() {
    let ours = Ours::start(1, &[], |_| {}).await;
    let [left, slow, right] =
        [2, 3, 4].map(|seed| async move { Stock::start(seed, &topic(), Options::default()).await });
    let (left, slow, right) = (left.await, slow.await, right.await);
    slow.dial(&left.address).await;
    slow.dial(&ours.address()).await;
    right.dial(&ours.address()).await;
    ours.ready().await;
    until("all links are in both meshes", async || {
        slow.mesh().await == BTreeSet::from([left.peer, ours.peer])
            && left.mesh().await.len() == 1
            && right.mesh().await.len() == 1
    })
    .await;
    let mut author = Author::new(5);

    // The slow one has the message and says so; then we get the same from the right, and must keep it.
    slow.hold(true).await;
    let twice = author.say(&ours.node, "twice", LARGE);
    left.publish(twice.clone()).await.expect("it is published");
    until("we are told", async || ours.control("received", "idontwant").await == 1).await;
    right.publish(twice).await.expect("it is published");
    until("we have it", async || ours.has("twice")).await;
    assert_eq!(ours.metric("gossip_copies_total", "saved_by_idontwant").await, 1);
    assert_eq!(ours.metric("gossip_copies_total", "sent_forwarded").await, 0);
    slow.hold(false).await;
    until("its copy came", async || ours.metric("gossip_copies_total", "duplicate").await == 1).await;

    // We get a message that is too old to be forwarded, and say that we do not want it. The slow one, to
    // whom no message is too old, must not send it.
    let step = ours.node.step().expect("the node is ready");
    let stale = author.seal(Step(step.0.saturating_sub(1_000)), payload("stale", LARGE));
    right.publish(stale.clone()).await.expect("it is published");
    until("it was told", async || metric(&slow.metrics().await, "idontwant_msgs_ids_total", "") == 1).await;
    let received = ours.metric("gossip_copies_total", "received").await;
    left.publish(stale).await.expect("it is published");
    until("it has it", async || slow.got().contains_key("stale")).await;
    let envelope = author.say(&ours.node, "next", 64);
    left.publish(envelope).await.expect("it is published");
    until("the next one came", async || ours.has("next")).await;
    assert_eq!(ours.metric("gossip_copies_total", "received").await, received + 1);
    assert_eq!(ours.metric("messages_refused_total", "stale_step").await, 1);
}

#[actix::test]
async fn a_peer_that_signs_is_refused() {
    let ours = Ours::start(1, &[], |_| {}).await;
    let signing = Stock::start(2, &topic(), Options { signs: true, ..Options::default() }).await;
    let proper = Stock::start(3, &topic(), Options::default()).await;
    signing.dial(&ours.address()).await;
    proper.dial(&ours.address()).await;
    ours.ready().await;
    until("both have us in their meshes", async || {
        signing.mesh().await.len() + proper.mesh().await.len() == 2
    })
    .await;
    let mut author = Author::new(4);
    // Nine refused messages are enough to be sent away.
    for n in 0..9 {
        let envelope = author.say(&ours.node, &format!("signed {n}"), 64);
        let _ = signing.publish(envelope).await;
    }
    let is_away = async || signing.mesh().await.is_empty();
    until("its messages are refused", async || {
        // Who is sent away before the last of them is not heard any more.
        let refused = ours.metric("messages_not_anonymous_total", "").await;
        refused == 9 || refused > 0 && is_away().await
    })
    .await;
    ours.broadcast("ours", 64).await;
    let envelope = author.say(&ours.node, "proper", 64);
    proper.publish(envelope).await.expect("it is published");
    until("the others go on", async || ours.has("proper") && proper.got().contains_key("ours")).await;
    assert_eq!(ours.got.borrow().len(), 1);
    assert!(signing.got().is_empty(), "it takes no message without gossipsub's signature");
    until("it is sent away", is_away).await;
}

#[actix::test]
async fn a_peer_of_version_1_1_takes_part() {
    let old = Stock::start(1, &topic(), Options { change: version_1_1, ..Options::default() }).await;
    let new = Stock::start(2, &topic(), Options::default()).await;
    let ours = Ours::start(3, &[], |_| {}).await;
    old.dial(&ours.address()).await;
    new.dial(&ours.address()).await;
    ours.ready().await;
    until("both are in our mesh", async || old.mesh().await.len() + new.mesh().await.len() == 2).await;
    let mut author = Author::new(4);
    ours.broadcast("ours", LARGE).await;
    let envelope = author.say(&ours.node, "old", LARGE);
    old.publish(envelope).await.expect("it is published");
    until("the old one's message is everywhere", async || ours.has("old") && new.got().contains_key("old"))
        .await;
    let envelope = author.say(&ours.node, "new", LARGE);
    new.publish(envelope).await.expect("it is published");
    until("all have all", async || ours.has("new") && old.got().len() == 2 && new.got().len() == 2).await;
    // IDONTWANT is of version 1.2: only the new one was told.
    assert_eq!(metric(&old.metrics().await, "idontwant_msgs_ids_total", ""), 0);
    assert_eq!(metric(&new.metrics().await, "idontwant_msgs_ids_total", ""), 1);
    assert_eq!(ours.control("sent", "idontwant").await, 1);
}
