//! Many machines in virtual time: links with random latency, clocks that drift, liars, restarts, partitions.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::{HOUR, MS, SECOND};
use crate::control::Frame;
use crate::id::Step;
use crate::machine::Outbox;
use crate::step::{Config, Event, Input, Output, Start, StepSync, Timer};
use crate::time::Time;

/// More than this in one `run_for` is a loop.
const EVENTS_MAX: u64 = 2_000_000;
/// Where true time begins: wall clocks are around it.
const EPOCH_NS: u64 = 1_000_000 * SECOND;

/// How a liar answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lie {
    /// Any number.
    Random,
    /// Far in the future.
    Huge,
    /// Far in the past.
    Tiny,
    /// An hour ahead to some, an hour behind to others.
    PerPeer,
    /// Ahead to some, behind to others, by less than two steps: hard to tell from honest.
    Near,
}

enum Kind {
    Honest(Box<StepSync<u8>>),
    Liar(Lie),
}

struct Node {
    kind: Kind,
    /// When it was last started; timers of earlier runs are dropped.
    boot: u64,
    run: u32,
    drift_ppm: i64,
    wall_skew_ns: i64,
    last_mesh_ns: u64,
    last_step: Option<Step>,
    events: Vec<Event>,
}

enum Happening {
    Connect(u8, u8),
    Frame { from: u8, to: u8, frame: Frame },
    Timer { node: u8, run: u32, timer: Timer },
}

pub(super) struct Net {
    config: Config,
    rng: ChaCha8Rng,
    now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    nodes: BTreeMap<u8, Node>,
    links: BTreeSet<(u8, u8)>,
    /// When the last frame in this direction arrives: streams keep their order.
    busy: BTreeMap<(u8, u8), u64>,
    trace: blake3::Hasher,
    /// Reports of liars: who was named.
    pub(super) named: BTreeSet<u8>,
    pub(super) frames: u64,
    worst_skew_ns: u64,
    paces: BTreeMap<u8, (u64, u64)>,
}

impl Net {
    pub(super) fn new(seed: u64, config: Config) -> Self {
        Net {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: EPOCH_NS,
            seq: 0,
            queue: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links: BTreeSet::new(),
            busy: BTreeMap::new(),
            trace: blake3::Hasher::new(),
            named: BTreeSet::new(),
            frames: 0,
            worst_skew_ns: 0,
            paces: BTreeMap::new(),
        }
    }

    pub(super) fn add_founder(&mut self) -> u8 {
        self.add(true)
    }

    pub(super) fn add_joiner(&mut self) -> u8 {
        self.add(false)
    }

    pub(super) fn add_liar(&mut self, lie: Lie) -> u8 {
        let id = self.next_id();
        let node = self.node(Kind::Liar(lie));
        self.nodes.insert(id, node);
        id
    }

    fn add(&mut self, founder: bool) -> u8 {
        let id = self.next_id();
        let mut node = self.node(Kind::Liar(Lie::Random));
        let wall_ns = self.now.saturating_add_signed(node.wall_skew_ns);
        let start = if founder { Start::Founder { wall_ns } } else { Start::Joiner { wall_ns, saved: None } };
        let mut out = Outbox::new();
        let sync = StepSync::new(id, self.config.clone(), start, None, Time::ZERO, &mut out);
        node.kind = Kind::Honest(Box::new(sync));
        self.nodes.insert(id, node);
        self.carry_out(id, out);
        id
    }

    fn next_id(&self) -> u8 {
        self.nodes.keys().last().map_or(1, |last| last + 1)
    }

    fn node(&mut self, kind: Kind) -> Node {
        let range = 12 * HOUR as i64;
        Node {
            kind,
            boot: self.now,
            run: 0,
            drift_ppm: self.rng.random_range(-200..=200),
            wall_skew_ns: self.rng.random_range(-range..=range),
            last_mesh_ns: 0,
            last_step: None,
            events: Vec::new(),
        }
    }

    /// Stops an honest node and starts it again with what it had saved.
    pub(super) fn restart(&mut self, id: u8) {
        let peers: Vec<u8> = self.nodes.keys().copied().filter(|&peer| peer != id).collect();
        for peer in peers {
            self.disconnect(id, peer);
        }
        let local = self.local(id);
        let (config, now) = (self.config.clone(), self.now);
        let node = self.nodes.get_mut(&id).unwrap();
        let wall_ns = now.saturating_add_signed(node.wall_skew_ns);
        let Kind::Honest(sync) = &node.kind else { panic!("liars are not restarted") };
        let start = Start::Joiner { wall_ns, saved: sync.saved_offset(local, wall_ns) };
        let mut out = Outbox::new();
        node.boot = now;
        node.run += 1;
        let sync = StepSync::new(id, config, start, node.last_step, Time::ZERO, &mut out);
        node.kind = Kind::Honest(Box::new(sync));
        self.carry_out(id, out);
    }

    pub(super) fn connect_all(&mut self) {
        let ids: Vec<u8> = self.nodes.keys().copied().collect();
        self.connect_among(&ids);
    }

    /// Connects each with each, within 300 ms.
    pub(super) fn connect_among(&mut self, ids: &[u8]) {
        for &a in ids {
            for &b in ids {
                if a < b {
                    let delay = self.rng.random_range(0..300 * MS);
                    self.schedule(self.now + delay, Happening::Connect(a, b));
                }
            }
        }
    }

    /// Cuts every link between the two sides.
    pub(super) fn cut(&mut self, left: &[u8], right: &[u8]) {
        for &a in left {
            for &b in right {
                self.disconnect(a, b);
            }
        }
    }

    fn disconnect(&mut self, a: u8, b: u8) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            self.input(a, Input::Disconnected { peer: b });
            self.input(b, Input::Disconnected { peer: a });
        }
    }

    pub(super) fn run_for(&mut self, ns: u64) {
        let end = self.now + ns;
        let mut events = 0;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let happening = entry.remove();
            self.happen(happening);
            events += 1;
            assert!(events < EVENTS_MAX, "this never ends");
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connect(a, b) => {
                if self.links.insert((a, b)) {
                    self.input(a, Input::Connected { peer: b });
                    self.input(b, Input::Connected { peer: a });
                }
            }
            Happening::Frame { from, to, frame } => {
                if self.links.contains(&(from.min(to), from.max(to))) {
                    self.frames += 1;
                    self.input(to, Input::Frame { from, frame });
                }
            }
            Happening::Timer { node, run, timer } => {
                if self.nodes[&node].run == run {
                    self.input(node, Input::Timer(timer));
                }
            }
        }
    }

    fn input(&mut self, id: u8, input: Input<u8>) {
        let local = self.local(id);
        let mut out = Outbox::new();
        let node = self.nodes.get_mut(&id).unwrap();
        match &mut node.kind {
            Kind::Honest(sync) => {
                sync.handle(local, input, &mut self.rng, &mut out);
                sync.check_invariants(local);
                if let Some(mesh_ns) = sync.mesh_time(local) {
                    assert!(mesh_ns >= node.last_mesh_ns, "{id}: mesh time ran backwards");
                    node.last_mesh_ns = mesh_ns;
                }
            }
            Kind::Liar(lie) => {
                let lie = *lie;
                if let Input::Frame { from, frame: Frame::StepRequest { nonce } } = input {
                    self.lie(id, from, nonce, lie);
                }
            }
        }
        self.carry_out(id, out);
    }

    fn lie(&mut self, id: u8, to: u8, nonce: u64, lie: Lie) {
        let step = u64::try_from(self.config.step_interval.as_nanos()).unwrap();
        let truth = self.honest_times().into_iter().max().unwrap_or(0);
        let up = (id + to).is_multiple_of(2);
        let mesh_time_ns = match lie {
            Lie::Random => self.rng.random_range(0..=u64::MAX),
            Lie::Huge => truth + self.rng.random_range(HOUR..1000 * HOUR),
            Lie::Tiny => self.rng.random_range(0..1000),
            Lie::PerPeer if up => truth + HOUR,
            Lie::PerPeer => truth.saturating_sub(HOUR),
            Lie::Near if up => truth + self.rng.random_range(0..2 * step),
            Lie::Near => truth.saturating_sub(self.rng.random_range(0..2 * step)),
        };
        let mesh_time = self.rng.random_bool(0.95).then_some(mesh_time_ns);
        self.send(id, to, Frame::StepReply { nonce, mesh_time_ns: mesh_time, proposal_ns: 1 });
        self.send(id, to, Frame::StepAnnounce { mesh_time_ns });
    }

    fn carry_out(&mut self, id: u8, mut out: Outbox<Output<u8>>) {
        for output in out.drain() {
            self.trace.update(format!("{} {id} {output:?}\n", self.now).as_bytes());
            let node = self.nodes.get_mut(&id).unwrap();
            match output {
                Output::Send { to, frame } => self.send(id, to, frame),
                Output::Timer { at, timer } => {
                    let run = node.run;
                    let at = node.boot + virtual_ns(at.as_nanos(), node.drift_ppm);
                    self.schedule(at.max(self.now), Happening::Timer { node: id, run, timer });
                }
                Output::Step { step } => {
                    assert!(
                        node.last_step.is_none_or(|last| step > last || node.run > 0 && step >= last),
                        "{id}: step {step:?} after {:?}",
                        node.last_step
                    );
                    node.last_step = Some(step);
                }
                Output::Event(event) => node.events.push(event),
                Output::Outlier { peer, .. } => {
                    self.named.insert(peer);
                }
            }
        }
    }

    fn send(&mut self, from: u8, to: u8, frame: Frame) {
        let latency = self.rng.random_range(MS..=100 * MS);
        let earliest = self.busy.get(&(from, to)).copied().unwrap_or(0);
        let at = (self.now + latency).max(earliest);
        self.busy.insert((from, to), at);
        self.schedule(at, Happening::Frame { from, to, frame });
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((at, self.seq), happening);
    }

    /// The moment on a node's own clock.
    fn local(&self, id: u8) -> Time {
        let node = &self.nodes[&id];
        Time::from_nanos(local_ns(self.now - node.boot, node.drift_ppm))
    }

    fn honest(&self) -> impl Iterator<Item = (u8, &StepSync<u8>)> {
        self.nodes.iter().filter_map(|(&id, node)| match &node.kind {
            Kind::Honest(sync) => Some((id, &**sync)),
            Kind::Liar(_) => None,
        })
    }

    /// Mesh times of the honest nodes that have one.
    fn honest_times(&self) -> Vec<u64> {
        self.honest().filter_map(|(id, sync)| sync.mesh_time(self.local(id))).collect()
    }

    pub(super) fn events(&self, id: u8) -> &[Event] {
        &self.nodes[&id].events
    }

    pub(super) fn sync(&self, id: u8) -> &StepSync<u8> {
        self.honest().find(|(honest, _)| *honest == id).unwrap().1
    }

    pub(super) fn is_synchronised(&self, id: u8) -> bool {
        self.sync(id).clock().is_some()
    }

    pub(super) fn mesh_time(&self, id: u8) -> u64 {
        self.sync(id).mesh_time(self.local(id)).unwrap()
    }

    /// All honest nodes have a step, and they are at most one apart.
    pub(super) fn assert_in_step(&mut self, when: &str) {
        let ids: Vec<u8> = self.honest().map(|(id, _)| id).collect();
        self.assert_in_step_among(&ids, when);
    }

    pub(super) fn assert_in_step_among(&mut self, ids: &[u8], when: &str) {
        let now = self.now - EPOCH_NS;
        for &id in ids {
            assert!(self.is_synchronised(id), "{when}, at {now}: {id} is not synchronised");
        }
        let steps: Vec<u64> = ids.iter().map(|&id| self.sync(id).step(self.local(id)).unwrap().0).collect();
        let apart = steps.iter().max().unwrap() - steps.iter().min().unwrap();
        let times: Vec<u64> = ids.iter().map(|&id| self.mesh_time(id)).collect();
        let skew = times.iter().max().unwrap() - times.iter().min().unwrap();
        self.worst_skew_ns = self.worst_skew_ns.max(skew);
        assert!(apart <= 1, "{when}, at {now}: {apart} steps apart, {times:?}");
    }

    pub(super) fn worst_skew_ns(&self) -> u64 {
        self.worst_skew_ns
    }

    /// Notes where the clocks are, for [`Net::worst_pace_ppm`].
    pub(super) fn mark(&mut self) {
        let ids: Vec<u8> = self.honest().map(|(id, _)| id).collect();
        self.paces = ids.into_iter().map(|id| (id, (self.now, self.mesh_time(id)))).collect();
    }

    /// How much faster or slower than true time an honest clock ran at worst since the mark, in millionths.
    pub(super) fn worst_pace_ppm(&self) -> i64 {
        let pace = |(&id, &(now, mesh_ns)): (&u8, &(u64, u64))| {
            let (true_ns, run_ns) = ((self.now - now) as i128, (self.mesh_time(id) - mesh_ns) as i128);
            i64::try_from((run_ns - true_ns) * 1_000_000 / true_ns).unwrap()
        };
        self.paces.iter().map(pace).max_by_key(|ppm| ppm.abs()).unwrap()
    }

    pub(super) fn trace_hash(&self) -> String {
        self.trace.finalize().to_hex().to_string()
    }
}

fn local_ns(virtual_ns: u64, drift_ppm: i64) -> u64 {
    let local = i128::from(virtual_ns) * i128::from(1_000_000 + drift_ppm) / 1_000_000;
    u64::try_from(local).unwrap()
}

/// The first moment of true time at which the node's clock shows `local_ns`.
fn virtual_ns(local_ns: u64, drift_ppm: i64) -> u64 {
    let scale = u128::try_from(1_000_000 + drift_ppm).unwrap();
    u64::try_from((u128::from(local_ns) * 1_000_000).div_ceil(scale)).unwrap()
}
