//! A copied identity says one thing to some and another to others: everybody honest ends with one proof, and with one
//! frozen log.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use libp2p::{PeerId, Stream};
use omnimesh_node::data_dir::read_identity;
use omnimesh_node::swarm::peer;
use omnimesh_protocol::control::{self, Agent, VERSION};
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::log::reconcile::HeadSet;
use omnimesh_protocol::log::wire::{Decline, Frame};
use omnimesh_protocol::log::{self, AuthorHead, CHANNEL, Record};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Seq, Step};
use omnimesh_tests::{Lab, Node, SOON, check, lab, wait_for};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::common::{MESHSUB, publish, subscribe};
use crate::raw::{RawPeer, framed, write};

const MESH: &str = "forks";
const HONEST: usize = 4;
/// Entries that the owner of the identity wrote itself, before it was copied.
const BEFORE: usize = 5;

/// Four honest nodes, and the identity of a fifth that has written something and is gone.
struct Scene<'lab> {
    nodes: Vec<Node<'lab>>,
    stolen: Identity,
    /// The hash of the last entry that it wrote itself.
    last: Hash,
    mesh: Mesh,
}

impl<'lab> Scene<'lab> {
    #[track_caller]
    fn start(lab: &'lab Lab) -> Scene<'lab> {
        let mut nodes = vec![lab.node("honest-1").open(MESH).start()];
        for number in 2..=HONEST {
            nodes.push(lab.node(&format!("honest-{number}")).open(MESH).bootstrap(&nodes[0]).start());
        }
        let mut owner = lab.node("owner").open(MESH).bootstrap(&nodes[0]).start();
        for node in nodes.iter_mut().chain([&mut owner]) {
            node.wait_ready();
        }
        let mut last = String::new();
        for number in 1..=BEFORE {
            let appended = owner.json(&["log", "append", &format!("honest {number}")]);
            last = appended["hash"].as_str().unwrap().to_owned();
        }
        wait_for("all to have what it wrote", SOON, || {
            nodes.iter().try_for_each(|node| expect_head(node, owner.peer_id(), BEFORE as u64, false))
        });
        owner.kill();
        let stolen = read_identity(&owner.data_dir()).unwrap().unwrap();
        assert_eq!(stolen.id().to_string(), owner.peer_id());
        let last = last.parse().unwrap();
        Scene { nodes, stolen, last, mesh: Mesh::open(MESH).unwrap() }
    }

    /// Two records behind the honest ones: what the thief says in one of its stories.
    fn story(&self, step: Step, words: &str) -> Vec<Record> {
        let interval = omnimesh_protocol::config::NodeConfig::default().phase_interval;
        let mut patterns = PatternGenerator::new(
            self.mesh.secret().clone(),
            interval.try_into().unwrap(),
            4.try_into().unwrap(),
        );
        let mut prev = self.last;
        let mut records = Vec::new();
        for place in 0..2 {
            let header = Header {
                mesh: self.mesh.id(),
                author: self.stolen.id(),
                seq: Seq((BEFORE + 1 + place) as u64),
                step,
                kind: Kind::Durable,
                channel: Channel::new("log").unwrap(),
                prev: Some(prev),
                timestamp_us: None,
            };
            let payload = Bytes::from(format!("{words} {place}"));
            let sealed =
                Envelope::seal(&self.stolen, patterns.at(step), header, [payload].into_iter().collect());
            let record = Record::new(sealed.unwrap()).unwrap();
            prev = record.digest();
            records.push(record);
        }
        records
    }

    fn step(&self) -> Step {
        Step(self.nodes[0].json(&["step"])["step"].as_u64().unwrap())
    }

    /// Insists that all end with the same: frozen behind what the owner wrote, one proof, good on its own.
    #[track_caller]
    fn expect_one_proof(&self, lab: &Lab) {
        let author = self.stolen.id().to_string();
        let proofs: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| {
                wait_for("the log to be frozen", SOON, || {
                    expect_head(node, &author, BEFORE as u64, true)?;
                    let proofs = node.try_json(&["log", "proofs"])?;
                    check(proofs[0]["author"] == author, || proofs.to_string()).map(|()| proofs)
                })
            })
            .collect();
        for (node, proof) in self.nodes.iter().zip(&proofs) {
            assert_eq!(proof, &proofs[0], "{} and {}", node.name(), self.nodes[0].name());
            assert_eq!((proof.as_array().unwrap().len(), &proof[0]["fork"]), (1, &json!(BEFORE + 1)));
            let read = node.json(&["log", "read", "--author", &author]);
            assert_eq!(read.as_array().unwrap().len(), BEFORE, "what came before counts");
        }
        let heads = |node: &Node<'_>| node.json(&["log", "heads"]);
        assert!(self.nodes.iter().all(|node| heads(node) == heads(&self.nodes[0])));
        // Nor does it go on for those who come later.
        let mut late = lab.node("late").open(MESH).bootstrap(&self.nodes[1]).start();
        late.wait_ready();
        wait_for("who came later to have the same", SOON, || {
            check(late.try_json(&["log", "proofs"])? == proofs[0], || "another proof".to_owned())?;
            expect_head(&late, &author, BEFORE as u64, true)
        });
        let dir = lab.dir().join("evidence");
        self.nodes[2].json(&["log", "proofs", "--out", dir.to_str().unwrap()]);
        verify_proof(lab, &dir.join(format!("{author}.proof")), &proofs[0][0]);
    }
}

/// A proof is good anywhere; with any byte of it changed, also one that no signature covers, it is none.
#[track_caller]
fn verify_proof(lab: &Lab, file: &Path, expected: &Value) {
    let verify = |file: &Path| lab.run(&["evidence", "verify", file.to_str().unwrap(), "--output", "json"]);
    let found = verify(file);
    found.expect(0, &[]);
    let found = found.json();
    for field in ["author", "fork", "id"] {
        assert_eq!(found[field], expected[field], "{found}");
    }
    let bytes = fs::read(file).unwrap();
    let proof = log::Proof::decode(&bytes.clone().into(), 65_536).unwrap();
    let record = proof.records()[0].as_bytes();
    let at = bytes.windows(record.len()).position(|window| window == &record[..]).unwrap();
    // Of an envelope: [ signed, tag (2 + 32), signature (2 + 64) ].
    let (tag, signature) = (at + record.len() - 66 - 16, at + record.len() - 8);
    let places = [0, 1, at, at + 40, tag, signature, bytes.len() - 1];
    let changed = lab.dir().join("changed.proof");
    for place in places.into_iter().chain((0..bytes.len()).step_by(97)) {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1;
        fs::write(&changed, bytes).unwrap();
        verify(&changed).expect(1, &["proves nothing"]);
    }
}

#[track_caller]
fn expect_head(node: &Node<'_>, author: &str, seq: u64, frozen: bool) -> Result<(), String> {
    let heads = node.view("log/heads")?;
    let head = heads.as_array().into_iter().flatten().find(|head| head["author"] == author);
    let fork = if frozen { json!(BEFORE + 1) } else { Value::Null };
    let is_so =
        head.is_some_and(|head| head["seq"] == seq && head["frozen"] == frozen && head["fork"] == fork);
    check(is_so, || format!("{}: {heads}", node.name()))
}

fn address(node: &Node<'_>) -> (String, PeerId) {
    let address = node.address();
    let id = peer::peer_of_address(&address.parse().unwrap()).unwrap();
    (address, id)
}

/// The stories are gossiped, each to one half, in the same moment.
#[test]
fn two_stories_by_gossip_end_in_one_proof() {
    let lab = lab!();
    let scene = Scene::start(&lab);
    let topic = Channel::new(CHANNEL).unwrap().topic(&scene.mesh.id());
    Runtime::new().unwrap().block_on(async {
        let mut raw = RawPeer::start(scene.stolen.clone(), &[MESHSUB]).await;
        let mut streams: Vec<Stream> = Vec::new();
        for node in &scene.nodes {
            let (address, id) = address(node);
            raw.dial(&address, id).await;
            let mut stream = raw.open(id, MESHSUB).await;
            assert!(write(&mut stream, &framed(&subscribe(&topic))).await);
            raw.receive("a node's subscription", |received| (received.from == id).then_some(())).await;
            streams.push(stream);
        }
        // Now, and not before: what is old is refused for that.
        let stories = tokio::task::block_in_place(|| {
            let step = scene.step();
            [scene.story(step, "yes"), scene.story(step, "no")]
        });
        for (number, stream) in streams.iter_mut().enumerate() {
            let story = &stories[number % 2];
            let frame: Vec<u8> = story.iter().flat_map(|record| publish(&topic, record.as_bytes())).collect();
            assert!(write(stream, &framed(&frame)).await);
        }
        tokio::task::block_in_place(|| scene.expect_one_proof(&lab));
    });
}

/// A member that lets itself be asked for its log, and answers each with the story for it.
struct Thief {
    raw: RawPeer,
    me: NodeId,
    mesh: Mesh,
    stories: BTreeMap<PeerId, Vec<Record>>,
    logs: BTreeMap<PeerId, Stream>,
}

impl Thief {
    async fn meet(&mut self, node: &Node<'_>, story: &[Record]) {
        let (address, id) = address(node);
        self.raw.dial(&address, id).await;
        let name = control::protocol_name(self.mesh.id());
        let mut stream = self.raw.open(id, &name).await;
        let proof = self.mesh.member_proof(&self.me, &peer::node_id(&id).unwrap());
        let hello = control::Frame::Hello { version: VERSION, proof, agent: Agent::new("thief") };
        assert!(write(&mut stream, &framed(&hello.encode())).await);
        // It stays open as long as the connection.
        Box::leak(Box::new(stream));
        let mut log = self.raw.open(id, &log::protocol_name(self.mesh.id())).await;
        self.stories.insert(id, story.to_vec());
        let head = self.head(&id);
        assert!(write(&mut log, &framed(&Frame::Heads(vec![head]).encode())).await);
        self.logs.insert(id, log);
    }

    fn head(&self, of: &PeerId) -> AuthorHead {
        let last = self.stories[of].last().unwrap();
        AuthorHead { author: self.me, head: last.head(), proof: None }
    }

    /// Answers until it is dropped.
    async fn serve(mut self) {
        while let Some(received) = self.raw.received.recv().await {
            let Some(story) = self.stories.get(&received.from) else { continue };
            let Ok(frame) = Frame::decode(&received.frame.clone().into()) else { continue };
            let records = |from: Seq, to: Seq| -> Vec<Bytes> {
                let asked = story.iter().filter(|record| record.first() >= from && record.first() <= to);
                asked.map(|record| record.as_bytes().clone()).collect()
            };
            let answers = match frame {
                Frame::Compare { round, ranges } if !ranges.is_empty() => {
                    let mut heads = HeadSet::new();
                    heads.put(self.head(&received.from));
                    let answer = heads.answer(&ranges);
                    vec![Frame::Heads(answer.ours), Frame::Compare { round, ranges: answer.ranges }]
                }
                Frame::Fetch { id, author, from, to, .. } if author == self.me => {
                    vec![Frame::Records { id, next: to.saturating_add(1), records: records(from, to) }]
                }
                Frame::Find { id, author, seq } if author == self.me && !records(seq, seq).is_empty() => {
                    vec![Frame::Records { id, next: seq.saturating_add(1), records: records(seq, seq) }]
                }
                Frame::Fetch { id, .. } | Frame::Find { id, .. } => {
                    vec![Frame::Decline { id, reason: Decline::Missing, seq: Seq(0) }]
                }
                Frame::AskHead(author) => vec![Frame::HeadOf { author, head: None }],
                _ => Vec::new(),
            };
            if let Some(stream) = self.logs.get_mut(&received.from) {
                for answer in answers {
                    write(stream, &framed(&answer.encode())).await;
                }
            }
        }
    }
}

/// The stories are told on the streams of the log, where records of any age are fetched.
#[test]
fn two_stories_by_reconciliation_end_in_one_proof() {
    let lab = lab!();
    let scene = Scene::start(&lab);
    let step = scene.step();
    let stories = [scene.story(step, "left"), scene.story(step, "right")];
    Runtime::new().unwrap().block_on(async {
        let control = control::protocol_name(scene.mesh.id());
        let log = log::protocol_name(scene.mesh.id());
        let raw = RawPeer::start(scene.stolen.clone(), &[&control, &log]).await;
        let mut thief = Thief {
            me: scene.stolen.id(),
            raw,
            mesh: scene.mesh.clone(),
            stories: BTreeMap::new(),
            logs: BTreeMap::new(),
        };
        for (number, node) in scene.nodes.iter().enumerate() {
            thief.meet(node, &stories[number % 2]).await;
        }
        let serving = tokio::spawn(thief.serve());
        tokio::task::block_in_place(|| scene.expect_one_proof(&lab));
        serving.abort();
    });
}
