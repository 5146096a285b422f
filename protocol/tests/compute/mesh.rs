//! A mesh in virtual time: every node has a driver and a worker, a log that others get late, in pieces and out of
//! order among authors, and streams that break.

mod check;
mod perils;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{self, Event, Finding};
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::{CATEGORY, FailReason, JobView, Part};
use omnimesh_protocol::compute::wire::{Assignment, Frame};
use omnimesh_protocol::compute::worker::{self, Done, RunId};
use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::log::Entry;
use omnimesh_protocol::{Hash, Identity, MeshId, NodeId, Outbox, Seq, Step, Time};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

pub(crate) const MESH: MeshId = MeshId::from_bytes([7; 16]);

/// What a worker is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Each lie is another one.
    Liar,
    /// All of this kind tell the same lie.
    Conspirator,
    /// Takes work and never does it.
    Staller,
    /// All its programs fail.
    Broken,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) nodes: usize,
    pub(crate) driver: driver::Config,
    pub(crate) worker: worker::Config,
    /// How long a task takes on a worker of usual speed, in milliseconds; half to one and a half times of it.
    pub(crate) task_ms: u64,
    pub(crate) gossip_loss: f64,
    /// Frames that are shed by full queues.
    pub(crate) frame_loss: f64,
    pub(crate) check: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            nodes: 8,
            driver: driver::Config::default(),
            worker: worker::Config { slots: 2, queue_max: 2, ..worker::Config::default() },
            task_ms: 1000,
            gossip_loss: 0.05,
            frame_loss: 0.0,
            check: true,
        }
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) identity: Identity,
    pub(crate) driver: driver::State,
    pub(crate) worker: worker::State,
    pub(crate) is_alive: bool,
    pub(crate) kind: Kind,
    /// How many times longer it takes.
    pub(crate) slowness: u64,
    incarnation: u32,
    /// How many entries of each author it has.
    have: BTreeMap<usize, usize>,
    is_flushing: bool,
    rng: ChaCha8Rng,
}

#[derive(Clone, Debug)]
enum What {
    DriverTimer(usize, u32, driver::Timer),
    WorkerTimer(usize, u32, worker::Timer),
    Frame {
        from: usize,
        to: usize,
        incarnations: (u32, u32),
        frame: Frame,
    },
    Done(usize, u32, RunId, Done),
    Append(usize, u32, bytes::Bytes),
    Gossip {
        to: usize,
        author: usize,
        upto: usize,
    },
    AntiEntropy(usize),
    Flush(usize, u32),
    Step,
    Crash(usize),
    Restart(usize),
    /// Somebody learns that a node is up or down.
    Learn {
        node: usize,
        of: usize,
        is_up: bool,
    },
    Split(Vec<usize>),
    Heal,
}

pub(crate) struct Mesh {
    pub(crate) options: Options,
    pub(crate) nodes: Vec<Node>,
    places: BTreeMap<NodeId, usize>,
    /// Who has published what, whoever knows of it.
    pub(crate) logs: Vec<Vec<Entry>>,
    pub(crate) blobs: BTreeMap<Hash, BTreeSet<usize>>,
    /// What each job was given; never lost.
    inputs: BTreeSet<Hash>,
    pub(crate) now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<(Time, u64), What>,
    next: u64,
    step: Step,
    rng: ChaCha8Rng,
    /// One island of two.
    island: Option<BTreeSet<usize>>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) seen: Vec<(Time, NodeId, Event)>,
    pub(crate) answers: BTreeMap<u64, driver::Output>,
    /// Milliseconds of work done, of all workers.
    pub(crate) runs: u64,
}

/// What an operation makes of what it reads: anything, as long as it depends on all of it and nothing else.
pub(crate) fn truth(operation: &str, parts: &[Part]) -> BlobRef {
    let mut bytes = operation.as_bytes().to_vec();
    for part in parts {
        match part {
            Part::Blob { blob, from, to, .. } => {
                bytes.extend_from_slice(blob.hash.as_bytes());
                bytes.extend_from_slice(&from.to_le_bytes());
                bytes.extend_from_slice(&to.to_le_bytes());
            }
            Part::Missing => bytes.push(0),
        }
    }
    BlobRef { hash: Hash::of(&bytes), size: 2 << 20 }
}

impl Mesh {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut mesh = Mesh {
            nodes: Vec::new(),
            places: BTreeMap::new(),
            logs: vec![Vec::new(); options.nodes],
            blobs: BTreeMap::new(),
            inputs: BTreeSet::new(),
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            step: Step(0),
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
            island: None,
            findings: Vec::new(),
            seen: Vec::new(),
            answers: BTreeMap::new(),
            runs: 0,
            options,
        };
        for place in 0..mesh.options.nodes {
            let identity = Identity::from_seed(&rng.random());
            let mut out = Outbox::new();
            let worker =
                worker::State::new(mesh.options.worker.clone(), identity.clone(), MESH, Time::ZERO, &mut out);
            let node = Node {
                id: identity.id(),
                driver: driver::State::new(mesh.options.driver.clone(), identity.id()),
                worker,
                identity,
                is_alive: true,
                kind: Kind::Honest,
                slowness: 1,
                incarnation: 0,
                have: BTreeMap::new(),
                is_flushing: false,
                rng: ChaCha8Rng::seed_from_u64(rng.random()),
            };
            mesh.places.insert(node.id, place);
            mesh.nodes.push(node);
            mesh.carry_out_worker(place, &mut out);
            mesh.after(rng.random_range(0..2000), What::AntiEntropy(place));
        }
        for place in 0..mesh.options.nodes {
            for other in 0..mesh.options.nodes {
                mesh.learn(place, other, true);
            }
        }
        mesh.after(0, What::Step);
        mesh
    }

    fn after(&mut self, ms: u64, what: What) {
        self.at(self.now + Duration::from_millis(ms), what);
    }

    fn at(&mut self, time: Time, what: What) {
        let key = (time, self.next);
        self.next += 1;
        self.queue.push(Reverse(key));
        self.events.insert(key, what);
    }

    pub(crate) fn submit(&mut self, node: usize, spec: JobSpec) -> JobId {
        self.inputs.extend(spec.inputs.iter().map(|input| input.blob.hash));
        let job = JobId::of(&self.nodes[node].id, &spec.encode());
        let ticket = Ticket(1000 + self.next);
        self.drive(node, driver::Input::Submit { spec, ticket });
        job
    }

    pub(crate) fn drive(&mut self, node: usize, input: driver::Input) {
        let mut out = Outbox::new();
        let of = &mut self.nodes[node];
        of.driver.handle(self.now, input, &mut of.rng, &mut out);
        if self.options.check {
            of.driver.check_invariants();
        }
        self.carry_out(node, &mut out);
        self.want_flush(node);
    }

    fn work(&mut self, node: usize, input: worker::Input) {
        let mut out = Outbox::new();
        let of = &mut self.nodes[node];
        of.worker.handle(self.now, input, &mut of.rng, &mut out);
        if self.options.check {
            of.worker.check_invariants();
        }
        self.carry_out_worker(node, &mut out);
        self.want_flush(node);
    }

    fn want_flush(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        if !of.is_flushing && (of.driver.wants_flush() || of.worker.wants_flush()) {
            of.is_flushing = true;
            let incarnation = of.incarnation;
            self.after(1, What::Flush(node, incarnation));
        }
    }

    fn carry_out(&mut self, node: usize, out: &mut Outbox<driver::Output>) {
        let incarnation = self.nodes[node].incarnation;
        let outputs: Vec<_> = out.drain().collect();
        for output in outputs {
            match output {
                driver::Output::Append { payload, .. } => {
                    let ms = self.rng.random_range(1..10);
                    self.after(ms, What::Append(node, incarnation, payload));
                }
                driver::Output::Assign { to, assignments } => {
                    self.send(node, self.places[&to], Frame::Assign(assignments));
                }
                driver::Output::Cancel { to, attempts } => {
                    self.send(node, self.places[&to], Frame::Cancel(attempts));
                }
                driver::Output::Ask { to, jobs } => self.send(node, self.places[&to], Frame::Ask(jobs)),
                driver::Output::Keep { blob, holders } => {
                    let is_there = holders.iter().any(|holder| self.nodes[self.places[holder]].is_alive);
                    if is_there {
                        self.blobs.entry(blob.hash).or_default().insert(node);
                    }
                }
                driver::Output::Event(event) => self.seen.push((self.now, self.nodes[node].id, event)),
                driver::Output::Finding(finding) => self.findings.push(finding),
                driver::Output::Replay => panic!("no log is cut here"),
                driver::Output::Timer { at, timer } => {
                    self.at(at, What::DriverTimer(node, incarnation, timer));
                }
                driver::Output::Submitted { ticket, .. }
                | driver::Output::Accepted { ticket }
                | driver::Output::Refused { ticket, .. } => drop(self.answers.insert(ticket.0, output)),
            }
        }
    }

    fn carry_out_worker(&mut self, node: usize, out: &mut Outbox<worker::Output>) {
        let incarnation = self.nodes[node].incarnation;
        let outputs: Vec<_> = out.drain().collect();
        for output in outputs {
            match output {
                worker::Output::Run { run, assignment } => self.run_task(node, run, &assignment),
                worker::Output::Stop(_) => {}
                worker::Output::Send { to, frame } => self.send(node, self.places[&to], frame),
                worker::Output::Timer { at, timer } => {
                    self.at(at, What::WorkerTimer(node, incarnation, timer));
                }
            }
        }
    }

    /// What the worker's process does with a task.
    fn run_task(&mut self, node: usize, run: RunId, assignment: &Assignment) {
        let incarnation = self.nodes[node].incarnation;
        let mut missing = Vec::new();
        for part in assignment.parts.iter() {
            if let Part::Blob { blob, .. } = part
                && !self.inputs.contains(&blob.hash)
            {
                let holders = self.blobs.get(&blob.hash);
                let is_there = holders.is_some_and(|holders| {
                    holders.iter().any(|holder| self.nodes[*holder].is_alive && self.can_talk(*holder, node))
                });
                if is_there {
                    self.blobs.entry(blob.hash).or_default().insert(node);
                } else {
                    missing.push(blob.hash);
                }
            }
        }
        if !missing.is_empty() {
            let done =
                Done::Failed { reason: FailReason::BlobMissing, detail: "nobody has it".into(), missing };
            return self.after(50, What::Done(node, incarnation, run, done));
        }
        let base = self.options.task_ms;
        let of = &mut self.nodes[node];
        let ms = (base / 2 + of.rng.random_range(0..=base)).max(1) * of.slowness;
        self.runs += 1;
        let mut result = truth(&assignment.action.operation, &assignment.parts);
        match of.kind {
            Kind::Honest => {}
            Kind::Liar => result.hash = Hash::from_bytes(of.rng.random()),
            Kind::Conspirator => result.hash = Hash::of(result.hash.as_bytes()),
            Kind::Staller => return,
            Kind::Broken => {
                let done =
                    Done::Failed { reason: FailReason::Program, detail: "trap".into(), missing: Vec::new() };
                return self.after(ms, What::Done(node, incarnation, run, done));
            }
        }
        let done = if assignment.action.params.contains_key("fails") {
            Done::Failed { reason: FailReason::Program, detail: "it always does".into(), missing: Vec::new() }
        } else {
            Done::Output { result, cpu_ms: ms, wall_ms: ms }
        };
        self.after(ms, What::Done(node, incarnation, run, done));
    }

    fn send(&mut self, from: usize, to: usize, frame: Frame) {
        // What goes over the wire is what comes out of it.
        let frame = if self.options.check { Frame::decode(&frame.encode()).unwrap() } else { frame };
        let incarnations = (self.nodes[from].incarnation, self.nodes[to].incarnation);
        if from != to && self.rng.random_bool(self.options.frame_loss) {
            return;
        }
        let ms = if from == to { 0 } else { self.rng.random_range(1..40) };
        // Streams keep the order only in the mean here: drivers and workers must not rely on it.
        self.after(ms, What::Frame { from, to, incarnations, frame });
    }

    fn deliver(&mut self, to: usize, author: usize, upto: usize) {
        loop {
            let have = self.nodes[to].have.entry(author).or_insert(0);
            if *have >= upto {
                return;
            }
            let entry = self.logs[author][*have].clone();
            *have += 1;
            self.drive(to, driver::Input::Entry(entry));
        }
    }

    /// One event; false if there is none.
    fn turn(&mut self) -> bool {
        let Some(Reverse(key)) = self.queue.pop() else { return false };
        let what = self.events.remove(&key).unwrap();
        self.now = key.0;
        let is_current = |mesh: &Mesh, node: usize, incarnation: u32| {
            mesh.nodes[node].is_alive && mesh.nodes[node].incarnation == incarnation
        };
        match what {
            What::DriverTimer(node, incarnation, timer) if is_current(self, node, incarnation) => {
                self.drive(node, driver::Input::Timer(timer));
            }
            What::WorkerTimer(node, incarnation, timer) if is_current(self, node, incarnation) => {
                self.work(node, worker::Input::Timer(timer));
            }
            What::Frame { from, to, incarnations, frame }
                if is_current(self, to, incarnations.1)
                    && self.nodes[from].incarnation == incarnations.0
                    && self.can_talk(from, to) =>
            {
                self.on_frame(from, to, frame);
            }
            What::Done(node, incarnation, run, done) if is_current(self, node, incarnation) => {
                if let Done::Output { result, .. } = &done {
                    self.blobs.entry(result.hash).or_default().insert(node);
                }
                self.work(node, worker::Input::Done { run, done });
            }
            What::Append(node, incarnation, payload) if is_current(self, node, incarnation) => {
                self.append(node, payload);
            }
            What::Gossip { to, author, upto } if self.nodes[to].is_alive && self.can_talk(author, to) => {
                self.deliver(to, author, upto);
            }
            What::AntiEntropy(node) => self.compare(node),
            What::Flush(node, incarnation) if is_current(self, node, incarnation) => {
                self.nodes[node].is_flushing = false;
                self.drive(node, driver::Input::Flush);
                self.work(node, worker::Input::Flush);
            }
            What::Step => {
                self.step = self.step.saturating_add(1);
                self.after(1000, What::Step);
                for node in 0..self.nodes.len() {
                    if self.nodes[node].is_alive {
                        self.drive(node, driver::Input::Step(Some(self.step)));
                    }
                }
            }
            What::Crash(node) if self.nodes[node].is_alive => self.crash(node),
            What::Restart(node) if !self.nodes[node].is_alive => self.restart(node),
            What::Learn { node, of, is_up } if self.nodes[node].is_alive => {
                // Old news are no news.
                let can_talk = self.nodes[of].is_alive && self.can_talk(node, of);
                if can_talk == is_up {
                    self.learn(node, of, is_up);
                }
            }
            What::Split(island) => self.split(Some(island)),
            What::Heal => self.split(None),
            _ => {}
        }
        true
    }

    /// Gets what another node has, if it is there, and will do so again.
    fn compare(&mut self, node: usize) {
        let ms = self.rng.random_range(1500..2500);
        self.after(ms, What::AntiEntropy(node));
        let peer = self.rng.random_range(0..self.nodes.len());
        if self.nodes[node].is_alive && self.nodes[peer].is_alive && self.can_talk(node, peer) {
            for (author, upto) in self.nodes[peer].have.clone() {
                self.deliver(node, author, upto);
            }
        }
    }

    fn on_frame(&mut self, from: usize, to: usize, frame: Frame) {
        let from_id = self.nodes[from].id;
        if let Some(signed) = frame.signed_results(MESH, from_id) {
            let Frame::Results { items, .. } = frame else { unreachable!() };
            let signed = signed.assume_verified();
            return self.drive(to, driver::Input::Results { items, signed });
        }
        match frame {
            Frame::Offer(offer) => self.drive(to, driver::Input::Offer { from: from_id, offer }),
            Frame::Started(attempts) => self.drive(to, driver::Input::Started { from: from_id, attempts }),
            Frame::Failed(failures) => self.drive(to, driver::Input::Failed { from: from_id, failures }),
            Frame::Assign(assignments) => self.work(to, worker::Input::Assign { from: from_id, assignments }),
            Frame::Cancel(attempts) => self.work(to, worker::Input::Cancel { from: from_id, attempts }),
            Frame::Ask(jobs) => self.work(to, worker::Input::Ask { from: from_id, jobs }),
            Frame::Has { job, keys } => self.drive(to, driver::Input::Has { from: from_id, job, keys }),
            Frame::Contents(_) => {}
            Frame::Results { .. } => unreachable!(),
        }
    }

    fn append(&mut self, node: usize, payload: bytes::Bytes) {
        let seq = Seq(self.logs[node].len() as u64 + 1);
        let id = self.nodes[node].id;
        let entry = Entry {
            author: id,
            seq,
            prev: None,
            hash: Hash::of(&[id.as_bytes().as_slice(), &seq.0.to_le_bytes()].concat()),
            step: self.step,
            category: Channel::new(CATEGORY).unwrap(),
            timestamp_us: None,
            data: payload,
        };
        self.logs[node].push(entry);
        let upto = self.logs[node].len();
        self.deliver(node, node, upto);
        for to in 0..self.nodes.len() {
            if to != node && !self.rng.random_bool(self.options.gossip_loss) {
                let ms = self.rng.random_range(20..200);
                self.after(ms, What::Gossip { to, author: node, upto });
            }
        }
    }

    /// Runs until the driver has seen the end of all jobs, on every living node, or the time is over.
    pub(crate) fn run_until_finished(&mut self, jobs: &[JobId], seconds: u64) -> Duration {
        let end = Time::from_millis(seconds * 1000);
        let mut turns = 0_u64;
        while self.now < end {
            assert!(self.turn());
            turns += 1;
            let is_done = |node: &Node| {
                let is_finished =
                    |job| node.driver.ledger().job(job).is_some_and(|job: JobView<'_>| job.is_finished());
                !node.is_alive || jobs.iter().all(is_finished)
            };
            if turns.is_multiple_of(64) && self.nodes.iter().all(is_done) {
                return self.now.since(Time::ZERO);
            }
        }
        let mut report = String::new();
        for node in self.nodes.iter().filter(|node| node.is_alive) {
            for job in node.driver.ledger().jobs() {
                report += &format!(
                    "{}: {} {:?} {} {:?} drives {}: {:?}\n",
                    node.id,
                    job.state().code(),
                    job.counts(),
                    job.is_finished(),
                    job.holder(),
                    node.driver.drives(&job.id()),
                    node.driver.progress(&job.id()),
                );
            }
        }
        panic!("the jobs have not ended after {seconds} s\n{report}");
    }

    /// Runs on for a while.
    pub(crate) fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.queue.peek().is_some_and(|Reverse((time, _))| *time <= end) {
            self.turn();
        }
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_alive)
    }

    pub(crate) fn kind_of(&self, node: &NodeId) -> Kind {
        self.nodes[self.places[node]].kind
    }
}
