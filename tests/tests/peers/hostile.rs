//! Hostile messages: what is wrong is refused by name, nobody gets it, and honest messages go on.

use std::collections::BTreeMap;

use libp2p::Stream;
use omnimesh_node::Subscription;
use omnimesh_protocol::config::Config;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::{Mesh, MessageId, NodeId, Seq, Step};

use crate::common::{
    Author, MESHSUB, NEWS, Process, TestNode, config, field, hex, identity, outer, peer_of, poll, publish,
    signed_part, subscribe, topic, within,
};
use crate::raw::{RawPeer, framed, write};

/// Deeper than any frame of the default size could be.
const DEEP: usize = 100_000;
/// Room for it in a frame.
const MESSAGE_BYTES_MAX: usize = 128 << 10;

/// What is seen is forgotten soon, and stays within the step window for long.
pub(crate) fn forgetful() -> Config {
    let mut config = config();
    config.node.step_window_past = 600;
    config.gossip.heartbeat_ms = 100;
    (config.gossip.history_length, config.gossip.history_gossip) = (1, 1);
    config.gossip.seen_ms = 1000;
    config.gossip.message_bytes_max = MESSAGE_BYTES_MAX;
    config
}

/// Two honest nodes that hear each other.
pub(crate) struct Honest {
    pub(crate) a: TestNode,
    pub(crate) b: TestNode,
    at_a: Subscription,
    at_b: Subscription,
    said: u64,
}

impl Honest {
    pub(crate) async fn start(mesh: &Mesh, config: Config) -> Honest {
        let a = TestNode::start(identity(1), mesh, config.clone()).await;
        let joining = Config {
            network: omnimesh_protocol::config::NetworkConfig {
                bootstrap: vec![a.address()],
                ..config.network.clone()
            },
            ..config
        };
        let b = TestNode::start(identity(2), mesh, joining).await;
        within("both are ready", async {
            a.node.wait_ready().await.unwrap();
            b.node.wait_ready().await.unwrap();
        })
        .await;
        let (at_a, at_b) = (a.node.subscribe(NEWS).await.unwrap(), b.node.subscribe(NEWS).await.unwrap());
        let mut honest = Honest { a, b, at_a, at_b, said: 0 };
        poll("the subscriptions have spread", async || {
            let there = honest.a.node.broadcast(NEWS, "hello").await.unwrap().recipients;
            let back = honest.b.node.broadcast(NEWS, "hello").await.unwrap().recipients;
            (there > 0 && back > 0).then_some(())
        })
        .await;
        honest.talk().await;
        honest
    }

    /// Each says something, and the other hears that and nothing else.
    pub(crate) async fn talk(&mut self) {
        self.said += 1;
        let text = format!("good {}", self.said);
        self.a.node.broadcast(NEWS, text.clone()).await.unwrap();
        self.b.node.broadcast(NEWS, text.clone()).await.unwrap();
        let (a, b) = (self.a.node.peer_id(), self.b.node.peer_id());
        hears(&mut self.at_a, b, &text).await;
        hears(&mut self.at_b, a, &text).await;
    }
}

/// The next message is this one, greetings aside.
async fn hears(subscription: &mut Subscription, author: NodeId, text: &str) {
    let heard = within(text, async {
        loop {
            let message = subscription.receive().await.expect("the node runs");
            if message.payload != "hello" {
                return message;
            }
        }
    })
    .await;
    assert_eq!((heard.author, &heard.payload[..]), (author, text.as_bytes()));
    assert_eq!(subscription.lost(), 0);
}

/// A stranger on the gossip stream, as stock gossipsub peers are.
pub(crate) struct Attacker {
    pub(crate) raw: RawPeer,
    pub(crate) stream: Stream,
    pub(crate) topic: String,
}

impl Attacker {
    pub(crate) async fn start(seed: u64, mesh: &Mesh, target: &TestNode) -> Attacker {
        Attacker::at(seed, mesh, &target.address(), target.peer).await
    }

    pub(crate) async fn at(seed: u64, mesh: &Mesh, address: &str, target: libp2p::PeerId) -> Attacker {
        let mut raw = RawPeer::start(identity(seed), &[MESHSUB]).await;
        raw.dial(address, target).await;
        let mut stream = raw.open(target, MESHSUB).await;
        assert!(write(&mut stream, &framed(&subscribe(&topic(mesh)))).await);
        raw.receive("the node's own subscription", |received| (received.from == target).then_some(())).await;
        Attacker { raw, stream, topic: topic(mesh) }
    }

    /// Sends messages in one frame.
    pub(crate) async fn send<'a>(&mut self, messages: impl IntoIterator<Item = &'a Vec<u8>>) {
        let frame: Vec<u8> = messages.into_iter().flat_map(|data| publish(&self.topic, data)).collect();
        assert!(write(&mut self.stream, &framed(&frame)).await);
    }
}

/// The reason why a node refused a message of this peer.
async fn refused(node: &TestNode, attacker: &Attacker, data: &[u8]) -> &'static str {
    let wanted = MessageId::of(data);
    let from_whom = attacker.raw.id;
    let what = format!("a refusal of {} bytes {}…", data.len(), hex(&data[..data.len().min(16)]));
    node.event(&what, |event| match event {
        Event::Refused { id, from, reason, .. } if *id == wanted && *from == from_whom => Some(reason.code()),
        Event::Verified { id, from, .. } if *id == wanted && *from == from_whom => Some("verified"),
        _ => None,
    })
    .await
}

/// One of each way to be wrong, with the reason. `step` is the mesh's.
fn bad_messages(mesh: &Mesh, step: Step) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (mut author, mut other) = (Author::new(100, mesh), Author::new(101, mesh));
    let good = author.write(step, "bad");
    let signed = signed_part(&good);
    let (body, tail) = good.split_at(good.len() - 64);
    let tag: [u8; 32] = body[body.len() - 34..body.len() - 2].try_into().unwrap();
    let mut cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("nothing", "truncated", Vec::new()),
        ("garbage", "malformed", vec![0xff; 100]),
        ("text", "trailing_bytes", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a truncated envelope", "truncated", good[..good.len() / 2].to_vec()),
        ("one byte short", "truncated", good[..good.len() - 1].to_vec()),
        ("a trailing byte", "trailing_bytes", [&good[..], &[0]].concat()),
        ("two envelopes in one", "trailing_bytes", [&good[..], &good].concat()),
        ("deep arrays", "too_deep", vec![0x81; DEEP]),
        ("a deep array within", "too_deep", outer(&vec![0x81; 60_000], &tag, &[0; 64])),
        ("over the limit", "too_large", vec![0x58; MESSAGE_BYTES_MAX + 1]),
        ("a longer head than needed", "not_canonical", [&[0x98, 3][..], &good[1..]].concat()),
        ("an array without a length", "not_canonical", [&[0x9f][..], &good[1..], &[0xff]].concat()),
    ];
    let mut flipped_tag = good.clone();
    flipped_tag[body.len() - 20] ^= 1;
    let of_other = [body, &other.sign(&signed)].concat();
    let zeros = [body, &[0; 64]].concat();
    assert_ne!(tail, other.sign(&signed), "the author has signed, not the other");
    cases.extend([
        ("a bad tag", "bad_pattern", flipped_tag),
        ("another author's signature", "bad_signature", of_other),
        ("no signature", "bad_signature", zeros),
    ]);
    cases.extend(bad_contents(mesh, step, &mut author, &mut other));
    cases
}

/// Those that are well formed and say something wrong.
fn bad_contents(
    mesh: &Mesh,
    step: Step,
    author: &mut Author,
    other: &mut Author,
) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let signed = signed_part(&author.write(step, "bad"));
    // Behind the array's head, version 1, and the mesh id with its head, stands the author.
    let (version_at, author_at) = (1, 1 + 1 + 17 + 2);
    let mut version = signed.clone();
    version[version_at] = 2;
    let mut stolen = signed.clone();
    stolen[author_at..author_at + 32].copy_from_slice(other.identity.id().as_bytes());
    let mut no_key = signed;
    no_key[author_at..author_at + 32].copy_from_slice(&not_a_key());
    let wrong_channel =
        omnimesh_protocol::envelope::Header { channel: Channel::new("olds").unwrap(), ..author.header(step) };
    let mut stranger = Author::new(100, &Mesh::open("elsewhere").unwrap());
    let claimed = omnimesh_protocol::envelope::Header { mesh: mesh.id(), ..stranger.header(step) };
    vec![
        ("another mesh", "wrong_mesh", stranger.write(step, "bad")),
        ("our mesh id without the secret", "bad_pattern", stranger.seal(claimed, b"bad")),
        ("another channel", "wrong_channel", author.seal(wrong_channel, b"bad")),
        ("a stale step", "stale_step", author.write(Step(step.0 - 700), "bad")),
        ("step 0", "stale_step", author.write(Step(0), "bad")),
        ("a future step", "future_step", author.write(Step(step.0 + 700), "bad")),
        ("the last step", "future_step", author.write(Step(u64::MAX), "bad")),
        ("another version", "unknown_version", author.seal_raw(step, &version)),
        ("another author's key", "bad_signature", author.seal_raw(step, &stolen)),
        ("no key", "bad_key", author.seal_raw(step, &no_key)),
    ]
}

/// Bytes that are the y coordinate of no point of the curve.
fn not_a_key() -> [u8; 32] {
    let is_bad =
        |bytes: &[u8; 32]| omnimesh_protocol::identity::PublicKey::new(&NodeId::from_bytes(*bytes)).is_none();
    (0..=255).map(|n| [n; 32]).find(is_bad).expect("half of all numbers are none")
}

#[actix::test]
async fn every_wrong_message_is_refused_by_name_and_the_mesh_goes_on() {
    let mesh = Mesh::open("hostile").unwrap();
    let mut honest = Honest::start(&mesh, forgetful()).await;
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for (seed, (what, reason, data)) in (1000..).zip(bad_messages(&mesh, honest.a.step())) {
        let mut attacker = Attacker::start(seed, &mesh, &honest.a).await;
        attacker.send([&data]).await;
        assert_eq!(refused(&honest.a, &attacker, &data).await, reason, "{what}");
        *expected.entry(reason.to_owned()).or_default() += 1.0;
        assert_eq!(honest.a.metrics().await.all_refused(), expected, "{what}");
        let why = poll("an explanation", async || honest.a.why(MessageId::of(&data)).await).await;
        assert!(why.contains(&format!("\"{reason}\"")), "{what}: {why}");
        honest.talk().await;
    }
    let metrics = honest.a.metrics().await;
    assert_eq!(metrics.get("actor_restarts_total"), 0.0);
    // Nothing of it went on to the other node.
    assert_eq!(honest.b.metrics().await.all_refused(), BTreeMap::new());
}

#[actix::test]
async fn a_replay_is_refused_for_as_long_as_its_step_is_good() {
    let mesh = Mesh::open("replay").unwrap();
    let mut settings = forgetful();
    // Long enough that what is sent again at once is known, however slow the machine.
    settings.gossip.seen_ms = 5_000;
    let mut honest = Honest::start(&mesh, settings).await;
    let mut attacker = Attacker::start(1000, &mesh, &honest.a).await;
    let mut author = Author::new(100, &mesh);
    let good = author.write(honest.a.step(), "good, from a stranger");
    let before = honest.a.metrics().await;

    attacker.send([&good]).await;
    hears(&mut honest.at_a, author.identity.id(), "good, from a stranger").await;
    hears(&mut honest.at_b, author.identity.id(), "good, from a stranger").await;
    let duplicates = "gossip_copies_total{what=\"duplicate\"}";
    let seen = honest.a.metrics().await.get(duplicates);
    attacker.send([&good, &good, &good]).await;
    poll("duplicates are counted", async || {
        let metrics = honest.a.metrics().await;
        assert_eq!(metrics.all_refused(), before.all_refused(), "a duplicate is no offence");
        (metrics.get(duplicates) >= seen + 3.0).then_some(())
    })
    .await;

    // The router forgets it and asks the validator again.
    poll("the router has forgotten", async || {
        attacker.send([&good]).await;
        (honest.a.metrics().await.refused("replay") >= 1.0).then_some(())
    })
    .await;
    // A replay may be brought in good faith: nobody is blamed, and the next number is as good as before.
    attacker.send([&author.write(honest.a.step(), "good, and on time")]).await;
    hears(&mut honest.at_a, author.identity.id(), "good, and on time").await;
    hears(&mut honest.at_b, author.identity.id(), "good, and on time").await;

    // The author's number again, with other words: that is a replay to the validator, and proof against the author.
    let mut header = author.header(honest.a.step());
    header.seq = Seq(1);
    let again = author.seal(header, b"bad: said twice");
    attacker.send([&again]).await;
    assert_eq!(refused(&honest.a, &attacker, &again).await, "replay");
    poll("the author is in quarantine", async || {
        attacker.send([&author.write(honest.a.step(), "good, but from a liar")]).await;
        (honest.a.metrics().await.refused("quarantined") >= 1.0).then_some(())
    })
    .await;
    honest.talk().await;
    assert_eq!(honest.a.metrics().await.get("actor_restarts_total"), 0.0);
}

#[actix::test]
async fn a_flipped_bit_anywhere_is_noticed_and_who_brings_many_is_cut_off() {
    let mesh = Mesh::open("flipped").unwrap();
    let mut honest = Honest::start(&mesh, forgetful()).await;
    let mut author = Author::new(100, &mesh);
    let good = author.write(honest.a.step(), "good, after all");
    let flipped: Vec<Vec<u8>> = (0..good.len() * 8)
        .map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
        .collect();
    let verified = honest.a.metrics().await.get("messages_verified_total");
    // All in a frame are judged before their bearer is: few frames, each from a new peer.
    for (seed, chunk) in (1000..).zip(flipped.chunks(250)) {
        let mut attacker = Attacker::start(seed, &mesh, &honest.a).await;
        attacker.send(chunk).await;
        attacker.raw.until_disconnected(honest.a.peer).await;
        honest.a.peer_refused(attacker.raw.id, "graylisted").await;
    }
    let metrics = poll("all flipped bits are refused", async || {
        let metrics = honest.a.metrics().await;
        let sum: f64 = metrics.all_refused().values().sum();
        (sum >= flipped.len() as f64).then_some(metrics)
    })
    .await;
    assert_eq!(metrics.all_refused().values().sum::<f64>(), flipped.len() as f64);
    assert_eq!(metrics.get("messages_verified_total"), verified);
    // A signature has 512 bits; those of the inner and outer heads fail before.
    assert_eq!(metrics.refused("bad_signature"), 512.0);
    assert!(metrics.refused("bad_pattern") > 256.0, "{:?}", metrics.all_refused());

    // Nothing of all this used up the author's number.
    let mut attacker = Attacker::start(999, &mesh, &honest.a).await;
    attacker.send([&good]).await;
    hears(&mut honest.at_a, author.identity.id(), "good, after all").await;
    hears(&mut honest.at_b, author.identity.id(), "good, after all").await;
    honest.talk().await;
    assert_eq!(metrics.get("actor_restarts_total"), 0.0);
    assert_eq!(honest.b.metrics().await.all_refused(), BTreeMap::new());
}

#[actix::test]
async fn gossipsubs_own_author_fields_are_refused_each_by_name() {
    let mesh = Mesh::open("anonymous").unwrap();
    let mut honest = Honest::start(&mesh, forgetful()).await;
    let mut attacker = Attacker::start(1000, &mesh, &honest.a).await;
    let mut author = Author::new(100, &mesh);
    let data = author.write(honest.a.step(), "bad: signed");
    let message = [field(2, &data), field(4, attacker.topic.as_bytes())].concat();
    let with = |number, bytes: &[u8]| field(2, &[&message[..], &field(number, bytes)].concat());
    let cases = [
        ("from", with(1, &attacker.raw.id.to_bytes())),
        ("seqno", with(3, &[0; 8])),
        ("signature", with(5, &[0; 64])),
        ("key", with(6, &[])),
        ("no_topic", field(2, &field(2, &data))),
    ];
    // In one frame: who is heard to do so again and again is soon not heard at all.
    let all: Vec<u8> = cases.iter().flat_map(|(_, frame)| frame.clone()).collect();
    assert!(write(&mut attacker.stream, &framed(&all)).await);
    let metrics = poll("all are refused", async || {
        let metrics = honest.a.metrics().await;
        let refused = metrics.labelled("messages_not_anonymous_total", "reason");
        (refused.values().sum::<f64>() >= cases.len() as f64).then_some(refused)
    })
    .await;
    let expected: BTreeMap<String, f64> = cases.iter().map(|(name, _)| ((*name).to_owned(), 1.0)).collect();
    assert_eq!(metrics, expected);
    let bearer = attacker.raw.id;
    let told = honest.a.count(|event| matches!(event, Event::BadFrame { from, .. } if *from == bearer));
    assert_eq!(told, cases.len());
    // The same bytes without them are a good message, of whoever brings it.
    let mut other = Attacker::start(1001, &mesh, &honest.a).await;
    other.send([&data]).await;
    hears(&mut honest.at_a, author.identity.id(), "bad: signed").await;
    hears(&mut honest.at_b, author.identity.id(), "bad: signed").await;
    honest.talk().await;
}

#[actix::test]
async fn a_stock_peer_that_speaks_first_is_heard() {
    let mesh = Mesh::open("eager").unwrap();
    let node = TestNode::start(identity(1), &mesh, forgetful()).await;
    within("the node is ready", node.node.wait_ready()).await.unwrap();
    for seed in 1000..1010 {
        let mut eager = RawPeer::start(identity(seed), &[MESHSUB]).await;
        eager.dial(&node.address(), node.peer).await;
        let mut stream = eager.open(node.peer, MESHSUB).await;
        // A stock peer says this once, as soon as it can: it must not be lost.
        assert!(write(&mut stream, &framed(&subscribe(&topic(&mesh)))).await);
        poll("the node has somebody to send to", async || {
            let sent = node.node.broadcast(NEWS, format!("to {seed}")).await.unwrap();
            (sent.recipients > 0).then_some(())
        })
        .await;
        let text = format!("to {seed}").into_bytes();
        eager
            .receive("the message", |received| {
                received.frame.windows(text.len()).any(|bytes| bytes == text).then_some(())
            })
            .await;
        // Not only its connection: the node would dial it.
        drop((stream, eager));
        poll("the node has noticed", async || (node.metrics().await.get("peers") == 0.0).then_some(())).await;
    }
}

#[actix::test]
async fn a_node_without_a_step_judges_nobody() {
    let mesh = Mesh::open("timeless").unwrap();
    let mut alone = forgetful();
    // Nobody is there.
    alone.network.bootstrap = vec![format!("/ip4/127.0.0.1/tcp/9/p2p/{}", peer_of(identity(9).id()))];
    let node = TestNode::start(identity(1), &mesh, alone).await;
    let mut attacker = Attacker::start(1000, &mesh, &node).await;
    let data = Author::new(100, &mesh).write(Step(1_000_000), "too soon");
    attacker.send([&data]).await;
    assert_eq!(refused(&node, &attacker, &data).await, "not_synchronised");
    assert_eq!(node.metrics().await.refused("not_synchronised"), 1.0);
}

#[actix::test]
async fn a_node_that_crashed_does_not_take_again_what_it_took_before() {
    let dir = tempfile::tempdir().unwrap();
    let name = "crash";
    let mesh = Mesh::open(name).unwrap();
    let settings = [("NODE__STEP_INTERVAL_MS", "200"), ("NODE__STEP_WINDOW_PAST", "1000")];
    let node = Process::start(dir.path(), name, &settings).await;
    let (address, target) = node.address().await;
    let mut author = Author::new(100, &mesh);
    let step = Step(node.json("/api/v1/status").await["step"].as_u64().unwrap());
    let good = author.write(step, "once");
    let mut attacker = Attacker::at(1000, &mesh, &address, target).await;
    attacker.send([&good]).await;
    poll("the message is accepted", async || {
        (node.metrics().await.get("messages_verified_total") >= 1.0).then_some(())
    })
    .await;
    node.kill();

    let node = Process::start(dir.path(), name, &settings).await;
    let (address, again) = node.address().await;
    assert_eq!(again, target, "it is the same node");
    let mut attacker = Attacker::at(1001, &mesh, &address, target).await;
    attacker.send([&good]).await;
    poll("the replay is refused", async || {
        (node.metrics().await.refused("not_provably_new") >= 1.0).then_some(())
    })
    .await;
    assert_eq!(node.metrics().await.get("messages_verified_total"), 0.0);
    let why = node.json(&format!("/api/v1/why/messages/{}", MessageId::of(&good))).await;
    assert_eq!(why["records"][0]["reason"], "not_provably_new", "{why}");

    // New messages are taken as soon as they cannot be old ones.
    let mut sent = 0;
    poll("a new message is accepted", async || {
        let step = Step(node.json("/api/v1/status").await["step"].as_u64()?);
        sent += 1;
        attacker.send([&author.write(step, "new")]).await;
        (node.metrics().await.get("messages_verified_total") >= 1.0).then_some(())
    })
    .await;
    println!("{sent} messages until one was provably new");
    // By now the author is known again, and the old message is still refused.
    let mut attacker = Attacker::at(1002, &mesh, &address, target).await;
    let before = node.metrics().await.refused("not_provably_new");
    let mut header = author.header(step);
    header.seq = Seq(1);
    attacker.send([&author.seal(header, b"the first number with other words")]).await;
    poll("it is refused again", async || {
        let metrics = node.metrics().await;
        (metrics.refused("not_provably_new") + metrics.refused("replay") > before).then_some(())
    })
    .await;
    assert_eq!(node.metrics().await.get("actor_restarts_total"), 0.0);
}

#[test]
fn the_tests_own_envelopes_are_what_the_library_makes() {
    let mesh = Mesh::open("test").unwrap();
    let mut author = Author::new(1, &mesh);
    let good = author.write(Step(7), "x");
    assert_eq!(author.seal_raw(Step(7), &signed_part(&good)), good);
    assert!(good.len() > 150, "{}", good.len());
}
