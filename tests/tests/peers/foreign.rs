//! Peers of other meshes, and strangers who claim to be members: nothing in, nothing out, and the reason.

use bytes::Bytes;
use libp2p::Stream;
use omnimesh_protocol::control::{Agent, Frame, Goodbye, VERSION, protocol_name};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::{Mesh, Step};

use crate::common::{MESHSUB, NEWS, TestNode, config, identity, within};
use crate::raw::{RawPeer, framed, write};

/// Connections in a few seconds: more than one would be as well if both sides dialled at once.
const CONNECTIONS_MAX: usize = 2;

/// Nodes of two meshes, the second of which believes that the first is of its own.
async fn strangers(seed: u64, here: &Mesh, there: &Mesh) -> (TestNode, TestNode) {
    let a = TestNode::start(identity(seed), here, config()).await;
    let mut misled = config();
    misled.network.bootstrap = vec![a.address()];
    let b = TestNode::start(identity(seed + 1), there, misled).await;
    (a, b)
}

async fn neither_has_anything_of_the_other(a: &TestNode, b: &TestNode) {
    let mut at_a = a.node.subscribe(NEWS).await.unwrap();
    let mut at_b = b.node.subscribe(NEWS).await.unwrap();
    let why = a.peer_refused(b.peer, "wrong_mesh").await;
    assert!(why.contains("mesh name or secret"), "{why}");
    b.peer_refused(a.peer, "wrong_mesh").await;
    within("the first node is ready", a.node.wait_ready()).await.unwrap();
    assert_eq!(a.node.broadcast(NEWS, "for members").await.unwrap().recipients, 0);
    // The other was told no step, so it cannot speak at all.
    assert_eq!(b.node.step(), None);
    assert!(b.node.broadcast(NEWS, "from a stranger").await.is_err());
    for node in [a, b] {
        let members = node.node.members().await.unwrap();
        assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [node.node.peer_id()]);
        assert_eq!(node.metrics().await.get("peers_admitted"), 0.0);
    }
    // A few seconds later they have not tried again and again.
    let later = Step(a.step().0 + 4);
    within("some steps pass", a.node.sync(later)).await.unwrap();
    assert!(a.connected(b.peer) <= CONNECTIONS_MAX, "{} connections", a.connected(b.peer));
    assert_eq!(a.metrics().await.get("peers"), 0.0);
    let said = |event: &Event<_>| matches!(event, Event::PeerRefused { .. });
    assert_eq!((a.count(said), b.count(said)), (1, 1), "it is said once");
    for subscription in [&mut at_a, &mut at_b] {
        let next = futures::FutureExt::now_or_never(subscription.receive());
        assert!(next.is_none(), "{next:?}");
    }
}

#[actix::test]
async fn another_secret_under_the_same_name() {
    let mesh = |secret| Mesh::new("demo", MeshSecret::from_bytes([secret; 32])).unwrap();
    let (a, b) = strangers(10, &mesh(1), &mesh(2)).await;
    neither_has_anything_of_the_other(&a, &b).await;
}

#[actix::test]
async fn another_name_with_the_same_secret() {
    let mesh = |name| Mesh::new(name, MeshSecret::from_bytes([1; 32])).unwrap();
    let (a, b) = strangers(20, &mesh("demo"), &mesh("other")).await;
    neither_has_anything_of_the_other(&a, &b).await;
}

#[actix::test]
async fn another_open_mesh() {
    let (a, b) = strangers(30, &Mesh::open("demo").unwrap(), &Mesh::open("dema").unwrap()).await;
    neither_has_anything_of_the_other(&a, &b).await;
}

#[actix::test]
async fn both_sides_always_learn_why() {
    for round in 0..10 {
        let (here, there) = (Mesh::open("demo").unwrap(), Mesh::open("dema").unwrap());
        let (a, b) = strangers(100 + 2 * round, &here, &there).await;
        a.peer_refused(b.peer, "wrong_mesh").await;
        b.peer_refused(a.peer, "wrong_mesh").await;
        within("the first node stops", a.node.clone().shutdown()).await;
        within("the second node stops", b.node.clone().shutdown()).await;
    }
}

/// Somebody who knows the mesh's public id, and nothing else.
struct Stranger {
    raw: RawPeer,
    control: String,
    stream: Stream,
}

impl Stranger {
    async fn start(seed: u64, target: &TestNode) -> Stranger {
        let control = protocol_name(target.node.mesh().id());
        let raw = RawPeer::start(identity(seed), &[MESHSUB, &control]).await;
        raw.dial(&target.address(), target.peer).await;
        let stream = raw.open(target.peer, &control).await;
        Stranger { raw, control, stream }
    }

    async fn say(&mut self, frame: &Frame) {
        // The other side may have hung up by now.
        let _ = write(&mut self.stream, &framed(&frame.encode())).await;
    }

    /// Everything that the node said on its control stream, up to its last word.
    async fn heard(&mut self) -> Vec<Frame> {
        let mut heard = Vec::new();
        loop {
            let next = self.raw.receive("the node's last word", |received| {
                (*received.protocol.as_ref() == *self.control).then(|| received.frame.clone())
            });
            let frame = Frame::decode(&next.await).unwrap();
            let is_last = matches!(frame, Frame::Goodbye(_));
            heard.push(frame);
            if is_last {
                return heard;
            }
        }
    }
}

fn hello(proof: [u8; 32]) -> Frame {
    Frame::Hello { version: VERSION, proof, agent: Agent::new("omnimesh/0.1.0") }
}

#[actix::test]
async fn who_does_not_know_the_secret_is_told_nothing() {
    let mesh = Mesh::new("closed", MeshSecret::from_bytes([1; 32])).unwrap();
    let guess = Mesh::new("closed", MeshSecret::from_bytes([2; 32])).unwrap();
    let node = TestNode::start(identity(1), &mesh, config()).await;
    let (own, friend) = (node.node.peer_id(), identity(3).id());
    within("the node is ready", node.node.wait_ready()).await.unwrap();
    let stranger = |seed| identity(seed).id();
    let proofs = [
        ("none", [0; 32]),
        ("of another secret", guess.member_proof(&stranger(1001), &own)),
        ("of a friend, for us", mesh.member_proof(&friend, &own)),
        ("made for a friend", mesh.member_proof(&stranger(1003), &friend)),
        ("the node's own, sent back", mesh.member_proof(&own, &stranger(1004))),
    ];
    for (seed, (what, proof)) in (1000..).zip(proofs) {
        let mut stranger = Stranger::start(seed, &node).await;
        stranger.say(&hello(proof)).await;
        node.peer_refused(stranger.raw.id, "bad_proof").await;
        let heard = stranger.heard().await;
        stranger.raw.until_disconnected(node.peer).await;
        assert!(
            matches!(&heard[..], [Frame::Hello { .. }, Frame::Goodbye(Goodbye::WrongMesh)]),
            "{what}: {heard:?}"
        );
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.get("peers_refused_total{reason=\"bad_proof\"}"), 5.0);
    assert_eq!(metrics.get("members{state=\"alive\"}"), 1.0);
}

#[actix::test]
async fn who_is_no_member_moves_neither_the_step_nor_the_members() {
    let mesh = Mesh::new("closed", MeshSecret::from_bytes([1; 32])).unwrap();
    let node = TestNode::start(identity(1), &mesh, config()).await;
    within("the node is ready", node.node.wait_ready()).await.unwrap();
    let frames = [
        Frame::StepAnnounce { mesh_time_ns: u64::MAX },
        Frame::StepReply { nonce: 0, mesh_time_ns: Some(u64::MAX), proposal_ns: u64::MAX },
        Frame::StepRequest { nonce: 7 },
        Frame::Swim(Bytes::from_static(b"\x80")),
    ];
    for (seed, frame) in (1000..).zip(&frames) {
        let mut stranger = Stranger::start(seed, &node).await;
        stranger.say(frame).await;
        node.peer_refused(stranger.raw.id, "unexpected_frame").await;
        let heard = stranger.heard().await;
        stranger.raw.until_disconnected(node.peer).await;
        assert!(
            matches!(&heard[..], [Frame::Hello { .. }, Frame::Goodbye(Goodbye::BadFrame)]),
            "{frame:?}: {heard:?}"
        );
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.get("peers_refused_total{reason=\"unexpected_frame\"}"), frames.len() as f64);
    assert_eq!(metrics.get("members{state=\"alive\"}"), 1.0);
    assert_eq!((metrics.get("step_samples"), metrics.get("step_jumps_total")), (0.0, 0.0));
    let synchronised = |event: &Event<_>| matches!(event, Event::Step { .. });
    assert!(node.count(synchronised) <= 1, "the node founded its time and nothing else happened to it");
}

#[actix::test]
async fn a_stranger_who_comes_back_is_turned_away_each_time_and_told_of_once() {
    let mesh = Mesh::new("closed", MeshSecret::from_bytes([1; 32])).unwrap();
    let node = TestNode::start(identity(1), &mesh, config()).await;
    let mut stranger = Stranger::start(1000, &node).await;
    for _ in 0..20 {
        stranger.say(&hello([7; 32])).await;
        stranger.heard().await;
        stranger.raw.disconnect(node.peer).await;
        stranger.raw.dial(&node.address(), node.peer).await;
        stranger.stream = stranger.raw.open(node.peer, &stranger.control).await;
    }
    node.peer_refused(stranger.raw.id, "bad_proof").await;
    assert_eq!(node.count(|event| matches!(event, Event::PeerRefused { .. })), 1);
    assert_eq!(node.metrics().await.get("peers_refused_total{reason=\"bad_proof\"}"), 20.0);
    // It has dialled; the node has not dialled it.
    assert_eq!(stranger.raw.connections().established, 21);
}
