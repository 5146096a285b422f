//! Frames that are none, and too many that are: streams are cut, peers sent away, memory stays flat.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::{PeerId, Stream};
use omnimesh_protocol::control::{Agent, Frame, VERSION, protocol_name};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::{Identity, Mesh, Step};

use crate::common::{
    Author, Dice, Process, TestNode, config, field, identity, peer_of, poll, publish, subscribe, within,
};
use crate::hostile::{Attacker, Honest, forgetful};
use crate::raw::{RawPeer, framed, varint, write};

/// Who was sent away is not dialled for 30 s; a little less, as the test hears of it a little later.
const LEFT_ALONE: Duration = Duration::from_secs(25);
/// How much more memory a node may hold after many more of the same floods. Its tables, which are bounded,
/// have filled by the time that it is measured first; what is left is the allocator's.
const GROWTH_MAX: u64 = 16 << 20;
/// Rounds of floods before memory is measured first, and after that.
const ROUNDS: (u64, u64) = (3, 5);

/// Bytes on the gossip stream that are no frame, with the reason.
fn bad_frames(topic: &str) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let message = publish(topic, &[7; 100]);
    let subscriptions = |count| subscribe("some/other/topic").repeat(count);
    vec![
        ("a group", "bad_field", framed(&[0x0b, 0x0c])),
        ("field 0", "bad_field", framed(&[0x02, 0x00])),
        ("garbage", "bad_varint", framed(&[0xff; 300])),
        ("a truncated message", "truncated", framed(&message[..message.len() - 1])),
        ("a length beyond the frame", "truncated", framed(&[&[0x12][..], &varint(u64::MAX)].concat())),
        ("a topic of other bytes", "bad_utf8", framed(&field(1, &[0x08, 1, 0x12, 2, 0xff, 0xfe]))),
        ("too many subscriptions", "too_many", framed(&subscriptions(1025))),
        ("a huge length", "too_long", varint(1 << 40)),
        ("a length a little too long", "too_long", varint(2 * (128 << 10) + 1)),
        ("a length of 11 bytes", "bad_prefix", vec![0xff; 11]),
        ("a length of zeros", "bad_prefix", vec![0x80, 0x00]),
    ]
}

#[actix::test]
async fn every_bad_gossip_frame_is_refused_by_name_and_many_send_the_peer_away() {
    let mesh = Mesh::open("frames").unwrap();
    let mut honest = Honest::start(&mesh, forgetful()).await;
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for (seed, (what, reason, bytes)) in (1000..).zip(bad_frames("topic")) {
        let mut attacker = Attacker::start(seed, &mesh, &honest.a).await;
        assert!(write(&mut attacker.stream, &bytes).await);
        let bearer = attacker.raw.id;
        let is_its = |event: &Event<_>| matches!(event, Event::BadFrame { from, stream: "gossip", .. } if *from == bearer);
        honest.a.event(what, |event| is_its(event).then_some(())).await;
        *expected.entry(reason.to_owned()).or_default() += 1.0;
        let metrics = honest.a.metrics().await;
        assert_eq!(metrics.labelled("frames_malformed_total", "reason"), expected, "{what}");
        honest.talk().await;
    }
    let mut attacker = Attacker::start(2000, &mesh, &honest.a).await;
    let mut dice = Dice::new(1);
    for _ in 0..100 {
        let len = 1 + dice.below(2000);
        let garbage = dice.bytes(usize::try_from(len).unwrap());
        // Some of it may happen to be a frame; most is not.
        if !write(&mut attacker.stream, &framed(&garbage)).await {
            break;
        }
    }
    attacker.raw.until_disconnected(honest.a.peer).await;
    honest.a.peer_refused(attacker.raw.id, "graylisted").await;
    honest.talk().await;
    assert_eq!(honest.a.metrics().await.get("actor_restarts_total"), 0.0);
    let refused = |event: &Event<_>| matches!(event, Event::BadFrame { .. } | Event::PeerRefused { .. });
    assert_eq!(honest.b.count(refused), 0);
}

/// A member, as far as the node can tell.
struct Member {
    raw: RawPeer,
    stream: Stream,
}

impl Member {
    async fn start(who: Identity, mesh: &Mesh, address: &str, target: PeerId) -> Member {
        let control = protocol_name(mesh.id());
        let raw = RawPeer::start(who, &[&control]).await;
        raw.dial(address, target).await;
        let stream = raw.open(target, &control).await;
        Member { raw, stream }
    }

    /// Becomes one.
    async fn greet(&mut self, mesh: &Mesh, target: PeerId) {
        let hello = hello(mesh, &self.raw.identity, target, VERSION);
        assert!(write(&mut self.stream, &framed(&hello)).await);
    }
}

fn hello(mesh: &Mesh, who: &Identity, target: PeerId, version: u16) -> Vec<u8> {
    let to = omnimesh_node::swarm::peer::node_id(&target).unwrap();
    let proof = mesh.member_proof(&who.id(), &to);
    Frame::Hello { version, proof, agent: Agent::new("member") }.encode()
}

/// Bytes on a member's control stream that are no frame, with the reason.
fn bad_control() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let swim = [&[0x82, 4, 0x59, 0xf0, 0x01][..], &[0; 0xf001]].concat();
    vec![
        ("garbage", "malformed", framed(&[0xff; 100])),
        ("nothing", "malformed", framed(&[])),
        ("deep arrays", "malformed", framed(&vec![0x81; 60_000])),
        ("a request without its nonce", "wrong_field_count", framed(&[0x81, 1])),
        ("a long integer", "not_canonical", framed(&[0x82, 1, 0x18, 7])),
        ("bytes after it", "not_canonical", framed(&[0x82, 1, 7, 0])),
        ("a huge packet", "swim_too_long", framed(&swim)),
        ("a long frame", "too_long", framed(&vec![0; 70_000])),
        ("a huge length", "too_long", varint(1 << 40)),
        ("a length of 11 bytes", "bad_prefix", vec![0xff; 11]),
    ]
}

#[actix::test]
async fn every_bad_control_frame_ends_the_connection_and_is_not_dialled_again() {
    let mesh = Mesh::open("control").unwrap();
    let mut honest = Honest::start(&mesh, forgetful()).await;
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    let mut members = Vec::new();
    for (seed, (what, reason, bytes)) in (1000..).zip(bad_control()) {
        let (address, target) = (honest.a.address(), honest.a.peer);
        let mut member = Member::start(identity(seed), &mesh, &address, target).await;
        member.greet(&mesh, target).await;
        let id = member.raw.id;
        let admitted =
            |event: &Event<_>| matches!(event, Event::PeerUp { peer, what: "admitted", .. } if *peer == id);
        honest.a.event("admission", |event| admitted(event).then_some(())).await;
        let cut_off = Instant::now();
        // The length alone ends it: the rest is not read.
        let _ = write(&mut member.stream, &bytes).await;
        let is_its = |event: &Event<_>| matches!(event, Event::BadFrame { from, stream: "control", .. } if *from == id);
        honest.a.event(what, |event| is_its(event).then_some(())).await;
        member.raw.until_disconnected(target).await;
        *expected.entry(reason.to_owned()).or_default() += 1.0;
        let metrics = honest.a.metrics().await;
        assert_eq!(metrics.labelled("control_frames_malformed_total", "reason"), expected, "{what}");
        members.push((member, cut_off));
    }
    honest.talk().await;
    // The node knows where they listen, and leaves them alone for a while.
    within("some steps pass", honest.a.node.sync(Step(honest.a.step().0 + 4))).await.unwrap();
    // A machine under load may have come to the end of that while with the first of them.
    let recent: Vec<_> = members.iter().filter(|(_, cut_off)| cut_off.elapsed() < LEFT_ALONE).collect();
    assert!(!recent.is_empty(), "some were cut off a moment ago");
    for (member, _) in recent {
        assert_eq!(honest.a.connected(member.raw.id), 1);
    }
    assert_eq!(honest.a.metrics().await.get("actor_restarts_total"), 0.0);
}

#[actix::test]
async fn unknown_kinds_are_passed_over_and_spam_of_good_frames_hurts_nobody() {
    let mesh = Mesh::open("spam").unwrap();
    let mut honest = Honest::start(&mesh, config()).await;
    let (address, target) = (honest.a.address(), honest.a.peer);
    let mut member = Member::start(identity(1000), &mesh, &address, target).await;
    member.greet(&mesh, target).await;
    let mut spam = Vec::new();
    let again = framed(&hello(&mesh, &identity(1000), target, VERSION));
    for nonce in 0..20_000 {
        spam.extend_from_slice(&again);
        spam.extend(framed(&Frame::StepRequest { nonce }.encode()));
        spam.extend(framed(&Frame::StepAnnounce { mesh_time_ns: nonce }.encode()));
        spam.extend(framed(&Frame::StepReply { nonce, mesh_time_ns: Some(nonce), proposal_ns: 0 }.encode()));
        spam.extend(framed(&Frame::Swim(nonce.to_be_bytes().to_vec().into()).encode()));
        spam.extend(framed(&[0x82, 0x18, 99, 0]));
    }
    assert!(write(&mut member.stream, &spam).await);
    poll("all was read", async || {
        let metrics = honest.a.metrics().await;
        let unknown = metrics.get_or_zero("control_frames_malformed_total{reason=\"unknown_kind\"}");
        (unknown == 20_000.0).then_some(())
    })
    .await;
    assert!(member.raw.connections().now.contains(&target), "good frames are no offence");
    honest.talk().await;
    poll("both are members still", async || {
        (honest.a.metrics().await.get("peers_admitted") == 2.0).then_some(())
    })
    .await;
    assert_eq!(honest.a.connected(member.raw.id), 1, "it was never sent away");
    let metrics = honest.a.metrics().await;
    assert_eq!((metrics.get("actor_restarts_total"), metrics.get("step_jumps_total")), (0.0, 0.0));
}

#[actix::test]
async fn another_version_and_strangers_frames_are_refused_by_name() {
    let mesh = Mesh::open("versions").unwrap();
    let node = TestNode::start(identity(1), &mesh, config()).await;
    let mut late = Member::start(identity(1000), &mesh, &node.address(), node.peer).await;
    let from_later = hello(&mesh, &identity(1000), node.peer, VERSION + 1);
    assert!(write(&mut late.stream, &framed(&from_later)).await);
    node.peer_refused(late.raw.id, "version").await;
    late.raw.until_disconnected(node.peer).await;
    // A list of allowed members keeps out who knows the secret.
    let mut strict = config();
    strict.network.allow = vec![identity(5).id()];
    let node = TestNode::start(identity(2), &mesh, strict).await;
    let mut uninvited = Member::start(identity(1001), &mesh, &node.address(), node.peer).await;
    uninvited.greet(&mesh, node.peer).await;
    node.peer_refused(uninvited.raw.id, "not_allowed").await;
    uninvited.raw.until_disconnected(node.peer).await;
    assert_eq!(node.metrics().await.get("peers_refused_total{reason=\"not_allowed\"}"), 1.0);
    assert_eq!(peer_of(identity(1001).id()), uninvited.raw.id);
}

/// Floods one node, which runs as a process.
struct Flood<'a> {
    node: &'a Process,
    mesh: Mesh,
    address: String,
    target: PeerId,
    dice: Dice,
    next_seed: u64,
    good: Author,
}

impl Flood<'_> {
    fn seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed
    }

    async fn attacker(&mut self) -> Attacker {
        let seed = self.seed();
        Attacker::at(seed, &self.mesh, &self.address, self.target).await
    }

    /// Sends frames and waits until the node has read them or sent the peer away.
    async fn gossip(&mut self, what: &str, frames: &[Vec<u8>]) {
        let mut attacker = self.attacker().await;
        let before = self.node.metrics().await.get("frames_received_total");
        for frame in frames {
            if !write(&mut attacker.stream, &framed(frame)).await {
                break;
            }
        }
        let target = self.target;
        poll(what, async || {
            let read = self.node.metrics().await.get("frames_received_total") - before;
            let is_gone = !attacker.raw.connections().now.contains(&target);
            (is_gone || read >= frames.len() as f64).then_some(())
        })
        .await;
        self.a_good_message_passes(what).await;
    }

    /// An honest stranger is heard, whatever else goes on.
    async fn a_good_message_passes(&mut self, after: &str) {
        let before = self.node.metrics().await.get("messages_verified_total");
        let mut honest = self.attacker().await;
        let step = Step(self.node.json("/api/v1/status").await["step"].as_u64().unwrap());
        let message = self.good.write(step, "good");
        honest.send([&message]).await;
        poll(&format!("a good message after {after}"), async || {
            (self.node.metrics().await.get("messages_verified_total") > before).then_some(())
        })
        .await;
    }

    fn frames(&mut self, count: usize, frame: impl Fn(&mut Dice) -> Vec<u8>) -> Vec<Vec<u8>> {
        (0..count).map(|_| frame(&mut self.dice)).collect()
    }

    async fn round(&mut self) {
        let mesh = self.mesh.id();
        let topic = crate::common::topic(&self.mesh);
        let ids = |dice: &mut Dice, number| {
            (0..500).flat_map(|_| field(number, &dice.bytes(20))).collect::<Vec<u8>>()
        };
        // 100,000 topics, of this mesh and of others.
        let topics = self.frames(100, |dice| {
            let name = |dice: &mut Dice| match dice.below(2) {
                0 => format!("omnimesh/1/{mesh}/{}", dice.next()),
                _ => format!("topic/{}", dice.next()),
            };
            (0..1000).flat_map(|_| subscribe(&name(dice))).collect()
        });
        self.gossip("100,000 topics", &topics).await;
        let ihave = self
            .frames(200, |dice| field(3, &field(1, &[field(1, topic.as_bytes()), ids(dice, 2)].concat())));
        self.gossip("IHAVE", &ihave).await;
        let iwant = self.frames(200, |dice| field(3, &field(2, &ids(dice, 1))));
        self.gossip("IWANT", &iwant).await;
        let idontwant = self.frames(200, |dice| field(3, &field(5, &ids(dice, 1))));
        self.gossip("IDONTWANT", &idontwant).await;
        let graft = |name: &str| field(3, &field(3, &field(1, name.as_bytes())).repeat(1000));
        let grafts = self.frames(100, |dice| match dice.below(2) {
            0 => graft(&topic),
            _ => graft(&format!("omnimesh/1/{mesh}/{}", dice.next())),
        });
        self.gossip("GRAFT", &grafts).await;
        self.messages(&topic).await;
        self.half_frames().await;
        self.control().await;
    }

    /// Messages for which nobody is blamed, so that they go on and on; and then some that are blamed.
    async fn messages(&mut self, topic: &str) {
        let mut author = Author::new(7, &self.mesh);
        let stale = author.write(Step(1), "stale");
        let ignored = self.frames(20, |dice| {
            let one = |dice: &mut Dice| {
                let mut bytes = stale.clone();
                let at = bytes.len() - 40;
                bytes[at..].copy_from_slice(&dice.bytes(40));
                publish(topic, &bytes)
            };
            (0..200).flat_map(|_| one(dice)).collect()
        });
        self.gossip("stale messages", &ignored).await;
        let garbage =
            self.frames(20, |dice| (0..200).flat_map(|_| publish(topic, &dice.bytes(200))).collect());
        self.gossip("garbage messages", &garbage).await;
        let large = self.frames(50, |dice| publish(topic, &dice.bytes(120_000)));
        self.gossip("large messages", &large).await;
    }

    /// Frames that are announced and never end, on connections that come and go.
    async fn half_frames(&mut self) {
        let mut open = Vec::new();
        for _ in 0..30 {
            let mut attacker = self.attacker().await;
            let half = [varint(130_000), vec![0; 100_000]].concat();
            assert!(write(&mut attacker.stream, &half).await);
            open.push(attacker);
        }
        self.a_good_message_passes("half frames").await;
    }

    async fn control(&mut self) {
        for (what, _, bytes) in bad_control() {
            let seed = self.seed();
            let mut member = Member::start(identity(seed), &self.mesh, &self.address, self.target).await;
            member.greet(&self.mesh, self.target).await;
            let _ = write(&mut member.stream, &bytes).await;
            member.raw.until_disconnected(self.target).await;
            self.a_good_message_passes(what).await;
        }
    }
}

#[actix::test]
async fn floods_leave_memory_flat_and_good_messages_pass() {
    let seed = 1;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::open("flood").unwrap();
    // What is seen is soon forgotten: the memory of it fills before it is measured.
    let node = Process::start(dir.path(), "flood", &[("GOSSIP__SEEN_MS", "1000")]).await;
    let (address, target) = node.address().await;
    let good = Author::new(6, &mesh);
    let dice = Dice::new(seed);
    let mut flood = Flood { node: &node, mesh, address, target, dice, next_seed: 1000, good };
    for _ in 0..ROUNDS.0 {
        flood.round().await;
    }
    let before = node.resident_bytes();
    for _ in 0..ROUNDS.1 {
        flood.round().await;
    }
    let after = node.resident_bytes();
    println!("{} MiB, then {} MiB", before >> 20, after >> 20);
    assert!(after < before + GROWTH_MAX, "{before} bytes, then {after}");
    let metrics = node.metrics().await;
    assert_eq!(metrics.get("actor_restarts_total"), 0.0);
    println!("{:?}", metrics.all_refused());
    println!("{:?}", metrics.labelled("frames_malformed_total", "reason"));
    for reason in ["stale_step", "too_large"] {
        assert!(metrics.refused(reason) > 0.0, "{reason} was never met");
    }
}
