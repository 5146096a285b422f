//! Hostile peers, one kind of attack after the other: each honest node sees it, names it, and shuts its author out, and what
//! honest nodes say to each other all arrives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::{PeerId, Stream};
use omnimesh_node::swarm::peer;
use omnimesh_protocol::envelope::{Channel, Header};
use omnimesh_protocol::observer::accusation::{self, Accusation};
use omnimesh_protocol::{Mesh, Step};
use omnimesh_tests::accept::is_full;
use omnimesh_tests::{Lab, Node, SOON, Subscriber, check, lab, wait_for};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::common::{Author, MESHSUB, NEWS, publish, subscribe, topic};
use crate::raw::{RawPeer, framed, write};

const MESH: &str = "shut-out";
const HONEST: usize = 6;
/// What is proved shuts out within so many steps of a second after it was done, on every node.
const PROVED_STEPS_MAX: u64 = 5;
/// What is only suspected puts out of the mesh within this.
pub(crate) const SUSPECTED_MAX: Duration = Duration::from_secs(60);
/// Between two bursts of an attack.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);
/// Forged messages in a burst: more than are forgiven.
const BURST: usize = 30;

/// Messages, each with its channel.
type Burst = Vec<(&'static str, Vec<u8>)>;

/// What a hostile peer does, and what it is to be called.
#[derive(Clone, Copy, Debug)]
struct Attack {
    kind: &'static str,
    is_provable: bool,
    /// What it sends to the node of this number.
    burst: fn(&mut Author, Step, usize) -> Burst,
}

const ATTACKS: [Attack; 9] = [
    Attack { kind: "bad_pattern", is_provable: false, burst: |author, step, _| forged(author, step, 80) },
    Attack { kind: "bad_signature", is_provable: false, burst: |author, step, _| forged(author, step, 1) },
    Attack {
        kind: "malformed",
        is_provable: false,
        burst: |author, step, _| of_each(|n| [&author.write(step, "x")[..40], &[n]].concat()),
    },
    Attack {
        kind: "wrong_mesh",
        is_provable: false,
        burst: |author, step, _| {
            let elsewhere = Mesh::open("elsewhere").unwrap();
            let header = |author: &mut Author| Header { mesh: elsewhere.id(), ..author.header(step) };
            of_each(|_| {
                let header = header(author);
                author.seal(header, b"x")
            })
        },
    },
    Attack {
        kind: "stale_step",
        is_provable: false,
        burst: |author, step, _| of_each(|_| author.write(Step(step.0 - 700), "x")),
    },
    Attack {
        kind: "future_step",
        is_provable: false,
        burst: |author, step, _| of_each(|_| author.write(Step(step.0 + 700), "x")),
    },
    Attack {
        kind: "flood",
        is_provable: false,
        burst: |author, step, _| {
            (0..40).flat_map(|_| of_each(|_| author.write(Step(step.0 - 700), "x"))).collect()
        },
    },
    Attack {
        kind: "equivocation",
        is_provable: true,
        burst: |author, step, node| {
            let header = Header { seq: omnimesh_protocol::Seq(1), ..author.header(step) };
            vec![(NEWS, author.seal(header, format!("story {}", node % 2).as_bytes()))]
        },
    },
    Attack {
        kind: "false_accusation",
        is_provable: true,
        burst: |author, step, _| {
            let nothing = Bytes::from_static(b"\x01\x02 no evidence at all");
            let accusation = Accusation::sign(&author.identity, author.mesh.id(), step, nothing);
            let channel = Channel::new(accusation::CHANNEL).unwrap();
            let header = Header { channel, ..author.header(step) };
            vec![(accusation::CHANNEL, author.seal(header, &accusation.encode()))]
        },
    },
];

fn of_each(mut message: impl FnMut(u8) -> Vec<u8>) -> Burst {
    (0..BURST).map(|n| (NEWS, message(u8::try_from(n).unwrap()))).collect()
}

/// Good messages with a byte changed that stands so far from the end.
fn forged(author: &mut Author, step: Step, from_end: usize) -> Burst {
    of_each(|_| {
        let mut message = author.write(step, "x");
        let at = message.len() - from_end;
        message[at] ^= 1;
        message
    })
}

/// A peer with gossip streams to all nodes.
struct Hostile {
    raw: RawPeer,
    author: Author,
    streams: BTreeMap<usize, Stream>,
}

impl Hostile {
    async fn start(seed: u64, mesh: &Mesh, nodes: &[(String, PeerId)]) -> Hostile {
        let author = Author::new(seed, mesh);
        let mut raw = RawPeer::start(author.identity.clone(), &[MESHSUB]).await;
        let mut streams = BTreeMap::new();
        for (number, (address, id)) in nodes.iter().enumerate() {
            raw.dial(address, *id).await;
            let mut stream = raw.open(*id, MESHSUB).await;
            assert!(write(&mut stream, &framed(&subscribe(&topic(mesh)))).await);
            raw.receive("a node's subscription", |received| (received.from == *id).then_some(())).await;
            streams.insert(number, stream);
        }
        Hostile { raw, author, streams }
    }

    fn id(&self) -> String {
        self.raw.id.to_string()
    }

    /// Attacks all that still listen.
    async fn burst(&mut self, attack: &Attack, step: Step) {
        for (number, stream) in &mut self.streams {
            let messages = (attack.burst)(&mut self.author, step, *number);
            for part in messages.chunks(BURST) {
                let mesh = self.author.mesh.id();
                let frame: Vec<u8> = part
                    .iter()
                    .flat_map(|(channel, data)| publish(&Channel::new(channel).unwrap().topic(&mesh), data))
                    .collect();
                // Who has cut the connection hears no more.
                let _ = write(stream, &framed(&frame)).await;
            }
        }
    }
}

/// Honest nodes, what they said, and what each heard.
pub(crate) struct Scene<'lab> {
    pub(crate) nodes: Vec<Node<'lab>>,
    pub(crate) ears: Vec<Subscriber>,
    said: usize,
}

impl<'lab> Scene<'lab> {
    #[track_caller]
    pub(crate) fn start(lab: &'lab Lab, mesh: &str, settings: &[(String, String)]) -> Scene<'lab> {
        let spec = |number: usize| lab.node(&format!("honest-{number}")).open(mesh).env(settings);
        let mut nodes = vec![spec(1).start()];
        for number in 2..=HONEST {
            nodes.push(spec(number).bootstrap(&nodes[0]).start());
        }
        for node in &mut nodes {
            node.wait_ready();
        }
        let ears: Vec<Subscriber> = nodes.iter().map(|node| node.subscribe(NEWS)).collect();
        wait_for("all to be connected", SOON, || {
            nodes.iter().try_for_each(|node| {
                let peers = node.view("peers")?;
                let members = peers.as_array().into_iter().flatten().filter(|peer| peer["member"] == true);
                check(members.count() == HONEST - 1, || peers.to_string())
            })
        });
        for (node, ear) in nodes.iter().zip(&ears) {
            wait_for("it to be heard by all", SOON, || {
                let text = format!("greeting of {}", node.name());
                node.publish(NEWS, &text)?;
                ears.iter()
                    .filter(|other| other.name() != ear.name())
                    .try_for_each(|other| other.got(&text).map(drop))
            });
        }
        Scene { nodes, ears, said: 0 }
    }

    /// Each says something, and all others hear it.
    #[track_caller]
    fn talk(&mut self) {
        self.said += 1;
        let text = |node: &Node<'_>| format!("{} says {}", node.name(), self.said);
        self.nodes.iter().for_each(|node| drop(node.publish(NEWS, &text(node)).unwrap()));
        for node in &self.nodes {
            for ear in self.ears.iter().filter(|ear| ear.name() != node.name()) {
                ear.wait_for(&text(node));
            }
        }
    }

    fn step(&self) -> Step {
        Step(self.nodes[0].view("step").unwrap()["step"].as_u64().unwrap())
    }

    /// Whether all have seen what the peer does, and have shut it out.
    fn is_shut_out(&self, who: &str, attack: &Attack) -> Result<(), String> {
        self.nodes.iter().try_for_each(|node| {
            let anomalies = node.view("anomalies")?;
            let is_it = |found: &&Value| {
                found["accused"] == who && found["kind"] == attack.kind && found["severity"] != "info"
            };
            let found = anomalies.as_array().into_iter().flatten().any(|found| is_it(&found));
            check(found, || format!("{} has not seen it: {anomalies}", node.name()))?;
            if attack.is_provable {
                let shut = node.view("quarantine")?;
                return check(names(&shut).contains(&who.to_owned()), || format!("{}: {shut}", node.name()));
            }
            let peers = node.view("peers")?;
            let peer = peers.as_array().into_iter().flatten().find(|peer| peer["peer_id"] == who);
            let score = peer.map_or(-1.0, |peer| peer["score"].as_f64().unwrap_or(0.0));
            check(score < 0.0, || format!("{} gives it {score}", node.name()))
        })
    }
}

impl Scene<'_> {
    /// All have shut the peer out no later than in this step, by their own records.
    #[track_caller]
    fn assert_shut_out_by(&self, who: &str, latest: u64) {
        for node in &self.nodes {
            let shut = node.json(&["quarantine", "list"]);
            let one = shut.as_array().into_iter().flatten().find(|one| one["peer_id"] == who).unwrap();
            assert!(one["since"].as_u64().unwrap() <= latest, "{}: later than {latest}: {one}", node.name());
        }
    }
}

pub(crate) fn names(quarantines: &Value) -> Vec<String> {
    let list = quarantines.as_array().into_iter().flatten();
    list.map(|one| one["peer_id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn each_attack_is_seen_named_and_shut_out_by_all() {
    let lab = lab!();
    let mut scene = Scene::start(&lab, MESH, &[]);
    let mesh = Mesh::open(MESH).unwrap();
    let mut convicted = Vec::new();
    let runtime = Runtime::new().unwrap();
    for (seed, attack) in (1_000..).zip(&ATTACKS) {
        let nodes: Vec<(String, PeerId)> = scene
            .nodes
            .iter()
            .map(|node| (node.address(), peer::peer_of_address(&node.address().parse().unwrap()).unwrap()))
            .collect();
        let mut hostile = runtime.block_on(Hostile::start(seed, &mesh, &nodes));
        let (who, began) = (hostile.id(), Instant::now());
        // In CI other tests run beside this one, and a node that is itself late doubts what it sees.
        let limit = if is_full() { SUSPECTED_MAX } else { SUSPECTED_MAX * 3 };
        let step = scene.step();
        runtime.block_on(hostile.burst(attack, step));
        loop {
            match scene.is_shut_out(&who, attack) {
                Ok(()) => break,
                Err(why) if began.elapsed() > limit => panic!("{}: not within {limit:?}: {why}", attack.kind),
                Err(_) => std::thread::sleep(AGAIN),
            }
            // What is proved needs to be said once.
            if !attack.is_provable {
                runtime.block_on(hostile.burst(attack, scene.step()));
            }
        }
        println!("{}: shut out by all after {:.1?}", attack.kind, began.elapsed());
        scene.talk();
        let why = scene.nodes[1].run(&["why", "peer", &who]);
        why.expect(0, &[]);
        let words = if attack.is_provable { "in quarantine since step" } else { "trusted" };
        assert!(why.stdout.contains(words) && why.stdout.contains(attack.kind), "{}", why.stdout);
        if attack.is_provable {
            scene.assert_shut_out_by(&who, step.0 + PROVED_STEPS_MAX);
            convicted.push(who);
        }
    }
    for node in &scene.nodes {
        let mut shut = names(&node.json(&["quarantine", "list"]));
        shut.sort();
        convicted.sort();
        assert_eq!(shut, convicted, "nobody else is in quarantine at {}", node.name());
    }
    lift(&scene, &convicted[0]);
    scene.talk();
    remains_after_a_kill(&mut scene.nodes[2], &convicted);
}

/// Who is in quarantine still is when the node starts again, and its audit log says so.
#[track_caller]
fn remains_after_a_kill(node: &mut Node<'_>, convicted: &[String]) {
    node.restart();
    let mut shut = names(&node.json(&["quarantine", "list"]));
    shut.sort();
    assert_eq!(shut, convicted);
    wait_for("the audit log to tell of the start", SOON, || {
        let written = node.run(&["audit", "show", "--kind", "quarantine", "--output", "json"]).json();
        let details = || written.as_array().into_iter().flatten().filter_map(|one| one["detail"].as_str());
        let is_told =
            |who: &&String| details().any(|said| said.contains(*who) && said.contains("after a start"));
        check(convicted.iter().all(|who| is_told(&who)), || written.to_string())
    });
}

/// An operator lifts a quarantine at one node: it is over there, for good, and nowhere else; and that is written down.
#[track_caller]
fn lift(scene: &Scene<'_>, who: &str) {
    let (here, there) = (&scene.nodes[0], &scene.nodes[1]);
    here.json(&["quarantine", "lift", who]);
    assert!(!names(&here.json(&["quarantine", "list"])).contains(&who.to_owned()));
    assert!(names(&there.json(&["quarantine", "list"])).contains(&who.to_owned()));
    here.run(&["quarantine", "lift", who]).expect(6, &[]);
    wait_for("the audit log to tell", SOON, || {
        let lifts = here.run(&["audit", "show", "--kind", "lift", "--output", "json"]).json();
        let is_it =
            lifts[0]["actor"] == "api" && lifts[0]["detail"].as_str().is_some_and(|text| text.contains(who));
        check(is_it, || lifts.to_string())
    });
    let quarantines = here.run(&["audit", "show", "--kind", "quarantine", "--output", "json"]).json();
    assert_eq!(quarantines.as_array().map(Vec::len), Some(2), "{quarantines}");
    assert_eq!(here.json(&["audit", "verify"])["verified"], json!(true));
}
