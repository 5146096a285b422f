//! A network of logs in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::disk::{self, Disk};
use bytes::Bytes;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::log::checkpoint::{Checkpoint, Sealed};
use omnimesh_protocol::log::wire::Frame;
use omnimesh_protocol::log::{
    AppendError, Appended, AuthorHead, Change, Config, Event, Head, Input, Misdeed, Output, Proof, Record,
    Report, Start, State, StoreError, Timer, Token,
};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::projection::{Projection, Replay};
use omnimesh_protocol::registry::{self, Action};
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Outbox, Seq, Step, Time};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The step in which every run begins.
const STEP: u64 = 1000;

pub(crate) fn mesh() -> Mesh {
    Mesh::open("test").unwrap()
}

pub(crate) fn patterns() -> PatternGenerator {
    PatternGenerator::new(mesh().secret().clone(), 100.try_into().unwrap(), 64.try_into().unwrap())
}

pub(crate) fn identity(n: usize) -> Identity {
    Identity::from_seed(&[u8::try_from(n + 1).unwrap(); 32])
}

pub(crate) fn category() -> Channel {
    Channel::new("log").unwrap()
}

/// An acknowledged append.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) appended: Appended,
    pub(crate) data: Bytes,
}

/// One node, up or down.
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) state: Option<State<usize>>,
    pub(crate) disk: Disk,
    rng: ChaCha8Rng,
    life: u64,
    /// Being written: not there after a crash, or there, by chance.
    writing: Option<Vec<Change>>,
    pub(crate) disk_is_full: bool,
    /// False while it is not synchronised.
    pub(crate) has_step: bool,
    pub(crate) acked: Vec<Acked>,
    pub(crate) refused: Vec<AppendError>,
    appending: BTreeMap<Ticket, Bytes>,
    /// Heads that follow from what was applied in this life.
    applied: BTreeMap<NodeId, Head>,
    pub(crate) reports: Vec<Report>,
    pub(crate) misdeeds: BTreeMap<usize, Vec<Misdeed>>,
    pub(crate) frozen: Vec<Proof>,
    pub(crate) own_head: Option<(Head, u64)>,
    /// The registry, as it follows from what it was told.
    pub(crate) registry: registry::State,
    /// Checkpoints that were sealed, and how often logs jumped.
    pub(crate) sealed: Vec<Checkpoint>,
    pub(crate) jumps: usize,
}

#[derive(Debug)]
enum Happening {
    Frame { from: usize, to: usize, link: u64, frame: Bytes },
    Gossip { from: usize, to: usize, link: u64, record: Record },
    Timer { node: usize, life: u64, timer: Timer },
    Written { node: usize, life: u64, token: Token },
    Read { node: usize, life: u64, token: Token, author: NodeId, from: Seq, to: Seq, bytes_max: usize },
    Find { node: usize, life: u64, token: Token, author: NodeId, seq: Seq },
    Verify { node: usize, life: u64, token: Token, records: Vec<omnimesh_protocol::validate::Unverified> },
    Fold { node: usize, life: u64, token: Token, step: Step },
    Stage { node: usize, life: u64, token: Token, chunk: (Hash, usize, u64), bytes: Bytes },
    Open { node: usize, life: u64, token: Token, sealed: Box<Sealed> },
    ReadChunk { node: usize, life: u64, token: Token, chunk: (Hash, usize, u64) },
    Truncate { node: usize, life: u64, below: Step, bytes_max: Option<u64> },
    Step,
}

/// What a liar answers to a frame from a node: frames.
pub(crate) type Liar = Box<dyn FnMut(&Frame, &mut ChaCha8Rng) -> Vec<Bytes>>;

/// All nodes and what is on its way.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) config: Config,
    /// Share of gossiped messages that do not arrive.
    pub(crate) gossip_loss: f64,
    /// Share of frames that are shed on their way.
    pub(crate) frame_loss: f64,
    pub(crate) latency: Duration,
    pub(crate) sync: Duration,
    happenings: BTreeMap<(Time, u64), Happening>,
    count: u64,
    /// Connected pairs, lower first, and the number of their connection.
    links: BTreeMap<(usize, usize), u64>,
    last_arrival: BTreeMap<(usize, usize), Time>,
    liars: BTreeMap<usize, Liar>,
    ticket: u64,
    pub(crate) bytes: BTreeMap<(usize, usize), usize>,
    pub(crate) frames: BTreeMap<(usize, usize), usize>,
    pub(crate) memory_max: usize,
    /// Look at invariants after each input.
    pub(crate) is_checked: bool,
    /// Follow the registry of every node.
    pub(crate) has_registry: bool,
    /// Real time spent in the logs' machines.
    pub(crate) spent: Duration,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, config: Config) -> Self {
        let mut world = World {
            now: Time::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            nodes: Vec::new(),
            config,
            gossip_loss: 0.0,
            frame_loss: 0.0,
            latency: Duration::from_millis(10),
            sync: Duration::from_millis(5),
            happenings: BTreeMap::new(),
            count: 0,
            links: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            liars: BTreeMap::new(),
            ticket: 0,
            bytes: BTreeMap::new(),
            frames: BTreeMap::new(),
            memory_max: 0,
            is_checked: true,
            has_registry: false,
            spent: Duration::ZERO,
        };
        for n in 0..nodes {
            world.add(identity(n), Disk::default());
        }
        world.happen(Duration::from_secs(1), Happening::Step);
        world
    }

    /// Adds a node that is down.
    pub(crate) fn add(&mut self, identity: Identity, disk: Disk) -> usize {
        let rng = ChaCha8Rng::from_rng(&mut self.rng);
        self.nodes.push(Node {
            identity,
            state: None,
            disk,
            rng,
            life: 0,
            writing: None,
            disk_is_full: false,
            has_step: true,
            acked: Vec::new(),
            refused: Vec::new(),
            appending: BTreeMap::new(),
            applied: BTreeMap::new(),
            reports: Vec::new(),
            misdeeds: BTreeMap::new(),
            frozen: Vec::new(),
            own_head: None,
            registry: registry::State::new(),
            sealed: Vec::new(),
            jumps: 0,
        });
        self.nodes.len() - 1
    }

    /// Adds a peer that answers as it likes.
    pub(crate) fn add_liar(&mut self, liar: Liar) -> usize {
        let node = self.add(identity(100 + self.nodes.len()), Disk::default());
        self.liars.insert(node, liar);
        node
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.nodes[node].identity.id()
    }

    pub(crate) fn state(&self, node: usize) -> &State<usize> {
        self.nodes[node].state.as_ref().unwrap()
    }

    pub(crate) fn step(&self) -> Step {
        Step(STEP + self.now.as_millis() / 1000)
    }

    pub(crate) fn start(&mut self, node: usize, may_have_written: bool) {
        let start = disk::start(&mut self.nodes[node].disk, may_have_written);
        self.start_from(node, start);
    }

    /// Starts a node that finds this, whatever is on its disk.
    pub(crate) fn start_from(&mut self, node: usize, start: Start) {
        let mut out = Outbox::new();
        let node_state = &mut self.nodes[node];
        node_state.life += 1;
        let identity = node_state.identity.clone();
        let config = self.config.clone();
        let state = State::new(config, identity, &mesh(), patterns(), start, self.now, &mut out);
        if self.has_registry {
            node_state.registry = node_state.disk.registry();
        }
        node_state.applied = state.heads().map(|head| (head.author, head.head)).collect();
        node_state.state = Some(state);
        self.carry_out(node, &mut out);
        let step = self.nodes[node].has_step.then_some(self.step());
        self.give(node, Input::Step(step));
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node, false);
        }
        self.connect_all();
    }

    /// Connects all that are up with each other.
    pub(crate) fn connect_all(&mut self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.connect_among(&all);
    }

    pub(crate) fn connect_among(&mut self, nodes: &[usize]) {
        for (index, a) in nodes.iter().enumerate() {
            for b in &nodes[index + 1..] {
                self.connect(*a, *b);
            }
        }
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        let is_there = |n: usize| self.nodes[n].state.is_some() || self.liars.contains_key(&n);
        if self.links.contains_key(&pair) || !is_there(a) || !is_there(b) {
            return;
        }
        self.count += 1;
        self.links.insert(pair, self.count);
        for (node, peer) in [(a, b), (b, a)] {
            let id = self.id(peer);
            self.give(node, Input::Connected { peer, node: id });
        }
    }

    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))).is_some() {
            self.give(a, Input::Disconnected { peer: b });
            self.give(b, Input::Disconnected { peer: a });
        }
    }

    /// Parts the nodes in `island` from all others.
    pub(crate) fn part(&mut self, island: &[usize]) {
        let cut: Vec<(usize, usize)> =
            self.links.keys().filter(|(a, b)| island.contains(a) != island.contains(b)).copied().collect();
        cut.into_iter().for_each(|(a, b)| self.disconnect(a, b));
    }

    /// The process is gone; of what was being written, all is there or nothing.
    pub(crate) fn crash(&mut self, node: usize) {
        let links: Vec<(usize, usize)> =
            self.links.keys().filter(|(a, b)| *a == node || *b == node).copied().collect();
        self.nodes[node].state = None;
        for (a, b) in links {
            self.disconnect(a, b);
        }
        if let Some(changes) = self.nodes[node].writing.take()
            && self.rng.random_bool(0.5)
        {
            self.nodes[node].disk.write(&changes).expect("it follows what is there");
        }
        self.nodes[node].appending.clear();
    }

    pub(crate) fn append(&mut self, node: usize, data: &[u8]) {
        self.append_replicated(node, data, 0);
    }

    pub(crate) fn append_replicated(&mut self, node: usize, data: &[u8], replicas: usize) {
        self.ticket += 1;
        let (ticket, payload) = (Ticket(self.ticket), Bytes::copy_from_slice(data));
        self.nodes[node].appending.insert(ticket, payload.clone());
        self.give(node, Input::Append { category: category(), payload, ticket, replicas });
    }

    /// Has a node write an entry of the registry.
    pub(crate) fn put(&mut self, node: usize, name: &str, value: i64) {
        let key = registry::EntryKey::new("model", name).unwrap();
        let value = registry::Value::Integer(value).encode().unwrap();
        let fields = [(registry::FieldName::new("value").unwrap(), value)].into_iter().collect();
        let step = self.step();
        let action = Action::Put { key, ttl: None, fields };
        let operation = self.nodes[node].registry.write(action, step).unwrap();
        self.ticket += 1;
        let (ticket, payload) = (Ticket(self.ticket), Bytes::from(operation.encode().unwrap()));
        self.nodes[node].appending.insert(ticket, payload.clone());
        let category = Channel::new(registry::CATEGORY).unwrap();
        self.give(node, Input::Append { category, payload, ticket, replicas: 0 });
    }

    /// Gives an input to a node that is up, and carries out what it wants.
    pub(crate) fn give(&mut self, node: usize, input: Input<usize>) {
        let now = self.now;
        let Node { state: Some(state), rng, .. } = &mut self.nodes[node] else { return };
        let mut out = Outbox::new();
        let began = clock();
        state.handle(now, input, rng, &mut out);
        if state.wants_flush() {
            state.handle(now, Input::Flush { mesh_time_us: now.as_nanos() / 1000 }, rng, &mut out);
        }
        self.spent += began.elapsed();
        if self.is_checked {
            state.check_invariants();
        }
        let stats = state.stats();
        self.memory_max = self.memory_max.max(stats.waiting_bytes + stats.write_bytes);
        self.carry_out(node, &mut out);
    }

    /// Lets a liar, or a test in a node's name, send a frame.
    pub(crate) fn send(&mut self, from: usize, to: usize, frame: Bytes) {
        let Some(link) = self.links.get(&(from.min(to), from.max(to))).copied() else { return };
        *self.bytes.entry((from, to)).or_default() += frame.len();
        *self.frames.entry((from, to)).or_default() += 1;
        if self.rng.random_bool(self.frame_loss) {
            return self.give(from, Input::Sent { to, bytes: frame.len() });
        }
        let jitter = self.latency.mul_f64(self.rng.random::<f64>());
        let arrival = self
            .last_arrival
            .get(&(from, to))
            .copied()
            .unwrap_or(Time::ZERO)
            .max(self.now + self.latency + jitter);
        self.last_arrival.insert((from, to), arrival);
        self.happen(arrival.since(self.now), Happening::Frame { from, to, link, frame });
    }

    /// Brings a record to all that are connected, but for those to whom it is lost.
    pub(crate) fn gossip(&mut self, from: usize, record: &Record) {
        for to in 0..self.nodes.len() {
            if self.links.contains_key(&(from.min(to), from.max(to)))
                && !self.rng.random_bool(self.gossip_loss)
            {
                self.gossip_to(from, to, record);
            }
        }
    }

    pub(crate) fn gossip_to(&mut self, from: usize, to: usize, record: &Record) {
        let link = self.links.get(&(from.min(to), from.max(to))).copied().unwrap_or_default();
        let after = self.latency + self.latency.mul_f64(2.0 * self.rng.random::<f64>());
        self.happen(after, Happening::Gossip { from, to, link, record: record.clone() });
    }

    fn happen(&mut self, after: Duration, happening: Happening) {
        self.count += 1;
        self.happenings.insert((self.now + after, self.count), happening);
    }

    fn carry_out(&mut self, node: usize, out: &mut Outbox<Output<usize>>) {
        let life = self.nodes[node].life;
        for output in out.drain() {
            match output {
                Output::Send { to, frame } => {
                    assert!(frame.len() <= omnimesh_protocol::log::frame_bytes_max(65_536));
                    self.send(node, to, frame);
                }
                Output::Publish(record) => self.gossip(node, &record),
                Output::Verify { token, records } => {
                    self.happen(Duration::from_millis(1), Happening::Verify { node, life, token, records });
                }
                Output::Write { token, changes } => {
                    assert!(self.nodes[node].writing.is_none(), "one write at a time");
                    self.nodes[node].writing = Some(changes);
                    self.happen(self.sync, Happening::Written { node, life, token });
                }
                Output::Read { token, author, from, to, bytes_max } => {
                    let read = Happening::Read { node, life, token, author, from, to, bytes_max };
                    self.happen(Duration::from_millis(1), read);
                }
                Output::Find { token, author, seq } => {
                    self.happen(Duration::from_millis(1), Happening::Find { node, life, token, author, seq });
                }
                Output::Fold { token, step } => {
                    self.happen(self.sync, Happening::Fold { node, life, token, step });
                }
                Output::Stage { token, checkpoint, part, index, bytes } => {
                    let chunk = (checkpoint, part, index);
                    self.happen(self.sync, Happening::Stage { node, life, token, chunk, bytes });
                }
                Output::Open { token, sealed } => {
                    self.happen(self.sync, Happening::Open { node, life, token, sealed });
                }
                Output::ReadChunk { token, checkpoint, part, index } => {
                    let chunk = (checkpoint, part, index);
                    self.happen(Duration::from_millis(1), Happening::ReadChunk { node, life, token, chunk });
                }
                Output::Truncate { below, bytes_max } => {
                    self.happen(self.sync, Happening::Truncate { node, life, below, bytes_max });
                }
                Output::Timer { at, timer } => {
                    self.happen(at.since(self.now), Happening::Timer { node, life, timer });
                }
                Output::Appended { ticket, appended } => {
                    let data =
                        self.nodes[node].appending.remove(&ticket).expect("one answer for each append");
                    self.nodes[node].acked.push(Acked { appended, data });
                }
                Output::Refused { ticket, error } => {
                    self.nodes[node].appending.remove(&ticket).expect("one answer for each append");
                    self.nodes[node].refused.push(error);
                }
                Output::Event(event) => self.note(node, event),
            }
        }
    }

    fn note(&mut self, node: usize, event: Event<usize>) {
        let has_registry = self.has_registry;
        let node = &mut self.nodes[node];
        match event {
            Event::Applied { record, .. } => {
                let head = node.applied.entry(record.author()).or_insert(Head::EMPTY);
                assert_eq!(record.first().0, head.seq.0 + 1, "records are applied in order");
                assert_eq!(record.prev(), head.as_prev());
                *head = record.head();
                if has_registry {
                    node.registry.apply_record(&record, &mut Outbox::new());
                }
            }
            Event::Frozen { proof } => {
                let author = proof.author();
                let last = node.disk.stored(author).head;
                node.applied.insert(author, last);
                node.frozen.push(proof);
                let end = node.frozen.last().and_then(|proof| proof.end_at(last));
                if has_registry && node.registry.cut(author, end, &mut Outbox::new()) == Replay::Needed {
                    node.registry = node.disk.registry();
                }
            }
            Event::Sealed { sealed } => node.sealed.push(sealed.checkpoint),
            Event::Jumped { logs } => {
                for (author, head, _) in logs {
                    node.applied.insert(author, head);
                }
                node.jumps += 1;
                node.registry = node.disk.registry();
            }
            Event::CaughtUp(report) => node.reports.push(report),
            Event::OwnHead { head, recovered, .. } => node.own_head = Some((head, recovered)),
            Event::Misbehaved { peer, misdeed } => node.misdeeds.entry(peer).or_default().push(misdeed),
            Event::WriteFailed { .. } => {}
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(entry) = self.happenings.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            self.come(happening);
        }
        self.now = end;
    }

    fn is_linked(&self, a: usize, b: usize, link: u64) -> bool {
        self.links.get(&(a.min(b), a.max(b))) == Some(&link)
    }

    fn is_alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].state.is_some()
    }

    fn come(&mut self, happening: Happening) {
        match happening {
            Happening::Step => {
                for node in 0..self.nodes.len() {
                    let step = self.nodes[node].has_step.then_some(self.step());
                    self.give(node, Input::Step(step));
                }
                self.happen(Duration::from_secs(1), Happening::Step);
            }
            Happening::Frame { from, to, link, frame } => {
                self.give(from, Input::Sent { to, bytes: frame.len() });
                if self.is_linked(from, to, link) {
                    match self.liars.get_mut(&to) {
                        Some(liar) => {
                            let answers = Frame::decode(&frame)
                                .map(|frame| liar(&frame, &mut self.rng))
                                .unwrap_or_default();
                            answers.into_iter().for_each(|answer| self.send(to, from, answer));
                        }
                        None => self.give(to, Input::Received { from, frame }),
                    }
                }
            }
            Happening::Gossip { from, to, link, record } if link == 0 || self.is_linked(from, to, link) => {
                self.give(to, Input::Gossiped { from, envelope: record.envelope().clone() });
            }
            Happening::Timer { node, life, timer } if self.is_alive(node, life) => {
                self.give(node, Input::Timer(timer));
            }
            Happening::Written { node, life, token } if self.is_alive(node, life) => {
                let changes = self.nodes[node].writing.take().expect("a write is under way");
                let Node { disk, disk_is_full, .. } = &mut self.nodes[node];
                let result = if *disk_is_full { Err(StoreError::Full) } else { disk.write(&changes) };
                self.give(node, Input::Written { token, result });
            }
            Happening::Read { node, life, token, author, from, to, bytes_max }
                if self.is_alive(node, life) =>
            {
                let result = Ok(self.nodes[node].disk.read(&author, from, to, bytes_max).unwrap());
                self.give(node, Input::Read { token, result });
            }
            Happening::Find { node, life, token, author, seq } if self.is_alive(node, life) => {
                let result = Ok(self.nodes[node].disk.find(&author, seq).unwrap().into_iter().collect());
                self.give(node, Input::Read { token, result });
            }
            Happening::Fold { node, life, token, step } if self.is_alive(node, life) => {
                let result = Ok(Box::new(self.nodes[node].disk.fold(mesh().id(), step).unwrap()));
                self.give(node, Input::Folded { token, result });
            }
            Happening::Stage { node, life, token, chunk, bytes } if self.is_alive(node, life) => {
                let result = if self.nodes[node].disk_is_full { Err(StoreError::Full) } else { Ok(()) };
                if result.is_ok() {
                    self.nodes[node].disk.stage(chunk.0, chunk.1, chunk.2, bytes);
                }
                self.give(node, Input::Staged { token, result });
            }
            Happening::Open { node, life, token, sealed } if self.is_alive(node, life) => {
                let result = self.nodes[node].disk.open_checkpoint(&sealed);
                self.give(node, Input::Staged { token, result });
            }
            Happening::ReadChunk { node, life, token, chunk } if self.is_alive(node, life) => {
                let result = Ok(self.nodes[node].disk.chunk(chunk.0, chunk.1, chunk.2).into_iter().collect());
                self.give(node, Input::Read { token, result });
            }
            Happening::Truncate { node, life, below, bytes_max } if self.is_alive(node, life) => {
                for (author, base) in self.nodes[node].disk.drop_covered(below, bytes_max) {
                    self.give(node, Input::Truncated { author, base });
                }
            }
            Happening::Verify { node, life, token, records } if self.is_alive(node, life) => {
                let results = records.into_iter().map(|record| record.verify()).collect();
                self.give(node, Input::Verified { token, results });
            }
            _ => {}
        }
    }

    /// Lets time pass until all that are up have the same logs and nothing is under way, or panics.
    pub(crate) fn settle(&mut self, most: Duration, what: &str) -> Duration {
        let began = self.now;
        while self.now.since(began) < most {
            self.run(Duration::from_millis(100));
            if self.is_settled() {
                return self.now.since(began);
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(state) = &node.state {
                let heads: Vec<&AuthorHead> = state.heads().collect();
                eprintln!("node {index}: {:?}\n  {heads:?}\n  {:?}", state.stats(), node.misdeeds);
            }
        }
        panic!("not the same logs after {most:?}: {what}");
    }

    fn is_settled(&self) -> bool {
        let mut up = self.nodes.iter().filter_map(|node| node.state.as_ref());
        let Some(first) = up.next() else { return true };
        first.is_idle() && up.all(|state| state.is_idle() && state.fingerprint() == first.fingerprint())
    }

    /// What has to hold at the end, once all are up and settled.
    pub(crate) fn check(&self, what: &str) {
        let up: Vec<&Node> = self.nodes.iter().filter(|node| node.state.is_some()).collect();
        let first = up[0];
        let mut bases: BTreeMap<NodeId, Seq> = BTreeMap::new();
        for (author, floor) in up.iter().flat_map(|node| node.disk.floors()) {
            let base = bases.entry(*author).or_default();
            *base = (*base).max(Seq(floor.head.seq.0 + 1));
        }
        // What all have kept.
        let content = |node: &Node| {
            let mut content = disk::content(&node.disk);
            content.retain(|(author, first, _)| bases.get(author).is_none_or(|base| first >= base));
            content
        };
        for node in &up {
            disk::check(&node.disk);
            assert_eq!(content(node), content(first), "equal logs: {what}");
            if self.has_registry {
                assert_eq!(node.registry.hash(), first.registry.hash(), "equal registries: {what}");
                assert_eq!(node.registry.hash(), node.disk.registry().hash(), "the disk's registry: {what}");
                assert_eq!(node.registry.heads(), first.registry.heads(), "equal heads: {what}");
                node.registry.check_invariants();
            }
            let ids = |node: &Node| {
                let state = node.state.as_ref().unwrap();
                node.disk.proofs().map(|proof| state.proof(&proof.author()).unwrap().id()).collect::<Vec<_>>()
            };
            assert_eq!(ids(node), ids(first), "equal proofs: {what}");
            let heads: BTreeMap<NodeId, Head> =
                node.state.as_ref().unwrap().heads().map(|head| (head.author, head.head)).collect();
            let applied: BTreeMap<NodeId, Head> = node
                .applied
                .iter()
                .filter(|(author, _)| heads.contains_key(author))
                .map(|(a, h)| (*a, *h))
                .collect();
            assert_eq!(applied, heads, "what was applied is what is on disk: {what}");
        }
        for node in &self.nodes {
            for Acked { appended, data } in &node.acked {
                if first.disk.proofs().any(|proof| proof.author() == appended.author) {
                    continue;
                }
                if bases.get(&appended.author).is_some_and(|base| appended.seq < *base) {
                    let head = first.disk.stored(appended.author).head;
                    assert!(
                        head.seq >= appended.seq,
                        "{appended:?} was acknowledged and is not covered: {what}"
                    );
                    continue;
                }
                let found = disk::find(&first.disk, &appended.author, appended.seq);
                let found =
                    found.unwrap_or_else(|| panic!("{appended:?} was acknowledged and is lost: {what}"));
                let entry = found.to_entries().find(|entry| entry.seq == appended.seq).unwrap();
                assert_eq!((entry.hash, &entry.data), (appended.hash, data), "{what}");
            }
        }
    }
}

/// The real time, for measurements.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "only measurements look at it")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

impl Node {
    /// What was applied of this author counts no more from where its log ends on disk.
    pub(crate) fn damage(&mut self, author: NodeId) {
        self.applied.insert(author, self.disk.stored(author).head);
    }
}
