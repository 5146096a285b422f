//! Members that do nothing that could be proved: what they do honest nodes do too, on bad days. Each is seen by all, named,
//! and kept out of the mesh where it harms, and nobody is put in quarantine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libp2p::Stream;
use omnimesh_node::swarm::peer;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::gossip::wire::{self, Limits};
use omnimesh_protocol::gossip::{Control, Message, Rpc, Subscription, Topic};
use omnimesh_protocol::{Mesh, MessageId, NodeId, Step};
use omnimesh_tests::accept::{is_full, progress};
use omnimesh_tests::http::Request;
use omnimesh_tests::{Lab, SOON, check, lab, wait_for};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::common::{Author, MESHSUB, NEWS, identity, peer_of};
use crate::liars::{Liar, Lie, Target, Truth, nanos};
use crate::raw::{RawPeer, write};
use crate::shut_out::{AGAIN, SUSPECTED_MAX, Scene, names};

/// Between two words of everybody: what comes sooner after another is one with it to the detector of silence.
pub(crate) const SPEAK: Duration = Duration::from_millis(1_100);
/// The default length of a step.
const STEP: Duration = Duration::from_secs(1);
/// How long what is late takes, by its time stamp.
const LATE: Duration = Duration::from_secs(3);
/// Replays at a time: more than are forgiven, and fewer than are a flood.
const REPLAYS: usize = 30;
/// Rounds after which routers have forgotten what was said.
const ROUNDS: usize = 8;
/// Words that make a rhythm.
const WORDS: usize = 20;

/// Routers forget what they have seen while its step is still good: what they remember is no replay, it is not even looked at.
const SETTINGS: [(&str, &str); 2] =
    [("OMNIMESH_GOSSIP__SEEN_MS", "6000"), ("OMNIMESH_NODE__STEP_WINDOW_PAST", "600")];

/// What a member writes, each [`SPEAK`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speech {
    Nothing,
    /// A new message, which says that it is [`LATE`] old, to one node after the other: what a node is the first to bring
    /// counts for it, also if it wrote it itself.
    Late,
    /// What it said [`ROUNDS`] ago, again.
    Again,
    /// A new message, so many times and then no more.
    Until(usize),
}

/// An attack: how a member is unlike honest ones, and what it is to be called.
#[derive(Clone, Copy, Debug)]
struct Attack {
    kind: &'static str,
    /// What its clock shows.
    lie: Lie,
    speech: Speech,
    /// It passes on the first of so many messages; of 0 none.
    forwards_of: usize,
    /// What `why peer` says of it.
    words: &'static str,
    /// Whether it loses trust and its place in the mesh by it.
    is_out: bool,
}

const HONEST: Attack =
    Attack { kind: "", lie: Lie::Off(0), speech: Speech::Nothing, forwards_of: 1, words: "", is_out: true };

const ATTACKS: [Attack; 5] = [
    Attack {
        kind: "replay",
        speech: Speech::Again,
        words: "the author has used this sequence number before",
        ..HONEST
    },
    Attack {
        kind: "step_drift",
        lie: Lie::Off(3_600_000),
        words: "ms ahead of those of the others",
        ..HONEST
    },
    Attack { kind: "never_forwards", forwards_of: 0, words: "it brought or offered 0 of", ..HONEST },
    // One that is slow and brings its part is of use, and stays: what it brings outweighs what is held against it.
    Attack { kind: "latency", speech: Speech::Late, forwards_of: 8, words: "its messages take", ..HONEST },
    // By design it costs nothing: who is silent may have nothing to say, and membership finds out who is gone.
    Attack {
        kind: "silence",
        speech: Speech::Until(WORDS),
        words: "it has written nothing for",
        is_out: false,
        ..HONEST
    },
];

/// A member's part in gossip, in one channel.
pub(crate) struct Gossip {
    attack: Attack,
    author: Author,
    topic: Topic,
    streams: BTreeMap<NodeId, Stream>,
    /// Who has it in the mesh.
    meshes: watch::Sender<BTreeSet<NodeId>>,
    seen: BTreeSet<MessageId>,
    said: Vec<Message>,
}

impl Gossip {
    fn new(seed: u64, mesh: &Mesh, attack: Attack) -> Gossip {
        let topic = Topic::new(&Channel::new(NEWS).unwrap().topic(&mesh.id())).unwrap();
        Gossip {
            attack,
            author: Author::new(seed, mesh),
            topic,
            streams: BTreeMap::new(),
            meshes: watch::channel(BTreeSet::new()).0,
            seen: BTreeSet::new(),
            said: Vec::new(),
        }
    }

    /// Joins the channel, and the mesh of this node.
    pub(crate) async fn meet(&mut self, raw: &RawPeer, node: NodeId) {
        let stream = raw.open(peer_of(node), MESHSUB).await;
        self.streams.insert(node, stream);
        self.meshes.send_modify(|meshes| _ = meshes.insert(node));
        let subscription = Subscription { subscribe: true, topic: self.topic.clone() };
        let graft = Control { graft: vec![self.topic.clone()], ..Control::default() };
        let rpc = Rpc { subscriptions: vec![subscription], ..Rpc::of_control(graft) };
        self.send(&rpc, |to| *to == node).await;
    }

    pub(crate) async fn on_frame(&mut self, from: NodeId, frame: &[u8]) {
        let Ok(decoded) = wire::decode(&Bytes::copy_from_slice(frame), &Limits::default()) else { return };
        let Rpc { publish, control, .. } = decoded.rpc;
        let control = control.unwrap_or_default();
        if control.graft.contains(&self.topic) {
            self.meshes.send_modify(|meshes| _ = meshes.insert(from));
        }
        if control.prune.iter().any(|prune| prune.topic == self.topic) {
            self.meshes.send_modify(|meshes| _ = meshes.remove(&from));
        }
        for message in publish {
            let is_new = self.seen.insert(message.id());
            if is_new && self.seen.len().checked_rem(self.attack.forwards_of) == Some(0) {
                self.send(&Rpc::of_message(message), |to| *to != from).await;
            }
        }
    }

    /// Says what it has to say, at this mesh time.
    pub(crate) async fn speak(&mut self, now_ns: u64) {
        let said = self.said.len();
        let (new, late) = match self.attack.speech {
            Speech::Again if said < ROUNDS * REPLAYS => (REPLAYS, None),
            Speech::Late => (1, Some(LATE)),
            Speech::Until(count) if said < count => (1, None),
            Speech::Again => {
                self.said.rotate_left(REPLAYS);
                (0, None)
            }
            Speech::Until(_) | Speech::Nothing => return,
        };
        for _ in 0..new {
            self.write(now_ns, late);
        }
        let last = if self.attack.speech == Speech::Again { REPLAYS } else { 1 };
        let publish = self.said.iter().rev().take(last).cloned().collect();
        let one = self.streams.keys().nth(said % self.streams.len().max(1)).copied();
        let one = one.filter(|_| self.attack.speech == Speech::Late);
        self.send(&Rpc { publish, ..Rpc::default() }, |to| one.is_none_or(|one| one == *to)).await;
    }

    fn write(&mut self, now_ns: u64, late: Option<Duration>) {
        let mut header = self.author.header(Step(now_ns / nanos(STEP)));
        header.timestamp_us = late.map(|late| now_ns.saturating_sub(nanos(late)) / 1_000);
        let text = format!("{} {}", self.attack.kind, self.said.len());
        let data = self.author.seal(header, text.as_bytes());
        self.said.push(Message::new(self.topic.clone(), data.into()));
    }

    async fn send(&mut self, rpc: &Rpc, is_for: impl Fn(&NodeId) -> bool) {
        if rpc.is_empty() {
            return;
        }
        let mut bytes = BytesMut::new();
        wire::encode_framed(rpc, &mut bytes);
        for (_, stream) in self.streams.iter_mut().filter(|(to, _)| is_for(to)) {
            // Who has cut the connection hears no more.
            let _ = write(stream, &bytes).await;
        }
    }
}

/// A member that attacks.
struct Suspect {
    attack: Attack,
    who: String,
    meshes: watch::Receiver<BTreeSet<NodeId>>,
}

impl Suspect {
    fn start(runtime: &Runtime, seed: u64, mesh: &Mesh, scene: &Scene<'_>, attack: Attack) -> Suspect {
        let gossip = Gossip::new(seed, mesh, attack);
        let meshes = gossip.meshes.subscribe();
        let how = (truth(scene), attack.lie);
        let liar = runtime.block_on(Liar::gossip(seed, mesh, targets(scene), how, gossip));
        runtime.spawn(liar.run());
        Suspect { attack, who: identity(seed).id().to_string(), meshes }
    }

    /// What each node holds against it, by kind; hints for people are only counted if that is all there is to be.
    fn findings(&self, anomalies: &Value) -> BTreeMap<String, String> {
        let of_it = |found: &&Value| {
            found["accused"] == self.who && (!self.attack.is_out || found["severity"] != "info")
        };
        let text = |found: &Value, field: &str| found[field].as_str().unwrap_or_default().to_owned();
        let list = anomalies.as_array().into_iter().flatten().filter(of_it);
        list.map(|found| (text(found, "kind"), text(found, "reason"))).collect()
    }

    /// Whether all have seen what it does, and have it no longer in their mesh.
    fn is_found(&self, scene: &Scene<'_>) -> Result<(), String> {
        scene.nodes.iter().try_for_each(|node| {
            let anomalies = node.view("anomalies")?;
            let found = self.findings(&anomalies);
            let text = || format!("{} has not seen it: {anomalies}", node.name());
            check(found.contains_key(self.attack.kind), text)
        })?;
        let meshes = self.meshes.borrow();
        check(!self.attack.is_out || meshes.is_empty(), || format!("{} have it in the mesh", meshes.len()))
    }

    /// Insists that it is called by its name and by no other, in words, and that what follows is what should.
    #[track_caller]
    fn assert_named(&self, scene: &Scene<'_>) {
        let Attack { kind, words, is_out, .. } = self.attack;
        for node in &scene.nodes {
            let found = self.findings(&node.view("anomalies").unwrap());
            assert_eq!(found.keys().collect::<Vec<_>>(), [kind], "{} has {found:?}", node.name());
            let why = node.view(&format!("why/peers/{}", self.who)).unwrap();
            let trust = why["trust"].as_f64().unwrap();
            assert!(if is_out { trust < 0.5 } else { trust >= 0.5 }, "{}: {kind}: {why}", node.name());
        }
        let why = scene.nodes[1].run(&["why", "peer", &self.who]);
        why.expect(0, &[]);
        let standing = if is_out { "trusted little: it is kept out of the gossip mesh" } else { "trust" };
        for text in [kind, words, standing] {
            assert!(why.stdout.contains(text), "{kind}: no {text:?} in {}", why.stdout);
        }
        if !is_out {
            assert_eq!(self.meshes.borrow().len(), scene.nodes.len(), "{kind}: it has kept its place");
        }
    }
}

fn targets(scene: &Scene<'_>) -> Vec<Target> {
    let target = |address: String| {
        let peer = peer::peer_of_address(&address.parse().unwrap()).unwrap();
        (peer::node_id(&peer).unwrap(), peer, address)
    };
    scene.nodes.iter().map(|node| target(node.address())).collect()
}

/// The mesh time, as an honest node says it now and as it passes from then on.
fn truth(scene: &Scene<'_>) -> Truth {
    let (asked, answer) = loop {
        let asked = Instant::now();
        let answer = scene.nodes[0].view("step").unwrap();
        // What was true a while ago would be a lie of its own.
        if asked.elapsed() < Duration::from_millis(100) {
            break (asked, answer);
        }
    };
    let then = Duration::from_secs_f64(answer["mesh_time_ms"].as_f64().unwrap() / 1e3);
    Box::new(move || nanos(then + asked.elapsed()))
}

/// Ends the honest nodes' talk when it is dropped.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everybody honest says something each [`SPEAK`], until it is enough. Gives what each said.
fn talk(scene: &Scene<'_>, is_enough: &AtomicBool) -> Vec<(String, String)> {
    let clients: Vec<_> = scene.nodes.iter().map(|node| (node.name().to_owned(), node.client())).collect();
    let (began, mut said) = (Instant::now(), Vec::new());
    for round in 1.. {
        for (name, client) in &clients {
            let text = format!("{name} says {round}");
            let body = json!({ "data": text }).to_string();
            let path = format!("/api/v1/channels/{NEWS}/messages");
            client.send(Request::post(&path, &body)).and_then(|answer| answer.json()).unwrap();
            said.push((name.clone(), text));
        }
        if is_enough.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep((SPEAK * round).saturating_sub(began.elapsed()));
    }
    said
}

/// Waits until everybody has heard each word of all others, once.
#[track_caller]
fn assert_heard(scene: &Scene<'_>, said: &[(String, String)]) {
    for ear in &scene.ears {
        let wanted: BTreeSet<&str> =
            said.iter().filter(|(of, _)| of != ear.name()).map(|(_, text)| text.as_str()).collect();
        let heard = wait_for(&format!("{} to hear everything", ear.name()), SOON, || {
            let messages = ear.messages();
            let texts = messages.iter().filter_map(|message| message["data"].as_str());
            let heard: Vec<String> = texts.filter(|text| wanted.contains(text)).map(str::to_owned).collect();
            check(heard.len() >= wanted.len(), || format!("{} of {}", heard.len(), wanted.len()))?;
            Ok(heard)
        });
        let once: BTreeSet<&str> = heard.iter().map(String::as_str).collect();
        assert_eq!((once.len(), heard.len()), (wanted.len(), wanted.len()), "{} at {}", NEWS, ear.name());
    }
}

/// These attacks, at the same time, in a mesh of six honest nodes.
#[track_caller]
fn run(lab: &Lab, name: &str, attacks: &[Attack], limit: Duration) {
    let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let scene = Scene::start(lab, name, &settings);
    let (mesh, runtime) = (Mesh::open(name).unwrap(), Runtime::new().unwrap());
    let seeds = 2_000..;
    let suspects: Vec<Suspect> = seeds
        .zip(attacks)
        .map(|(seed, attack)| Suspect::start(&runtime, seed, &mesh, &scene, *attack))
        .collect();
    let mut free: Vec<&Suspect> = suspects.iter().collect();
    let (began, is_enough) = (Instant::now(), AtomicBool::new(false));
    let said = thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&scene, &is_enough));
        let enough = Enough(&is_enough);
        while !free.is_empty() {
            let took = began.elapsed();
            free.retain(|one| match one.is_found(&scene) {
                Ok(()) => {
                    let text = format!("{}: found by all after {took:.1?}", one.attack.kind);
                    println!("{text}");
                    progress(|| text);
                    false
                }
                Err(why) => {
                    assert!(took < limit, "{}: not within {limit:?}: {why}", one.attack.kind);
                    true
                }
            });
            thread::sleep(AGAIN);
        }
        drop(enough);
        talking.join().unwrap()
    });
    suspects.iter().for_each(|one| one.assert_named(&scene));
    assert_heard(&scene, &said);
    for node in &scene.nodes {
        let shut = names(&node.json(&["quarantine", "list"]));
        assert_eq!(shut, Vec::<String>::new(), "nobody is in quarantine at {}", node.name());
    }
}

/// What takes detectors tens of seconds to be sure of is done by five of eleven members at the same time; in the full size,
/// by one of seven after the other.
#[test]
fn each_suspect_is_seen_named_and_kept_out_by_all() {
    if is_full() {
        ATTACKS.iter().for_each(|attack| run(&lab!(), attack.kind, &[*attack], SUSPECTED_MAX));
    } else {
        // Other tests run beside this one, and a node that is itself late doubts what it sees.
        run(&lab!(), "suspects", &ATTACKS, SUSPECTED_MAX * 3);
    }
}
