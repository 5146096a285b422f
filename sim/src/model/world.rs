//! The run: windows of virtual time, worked off by all shards at once, and between them what concerns more than
//! one node: starts and connections here; faults, the workload, and looking at it all in the files below this one.

mod compute;
mod faults;
mod log;
mod messages;
mod samples;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::link::{NodeSet, nanos};
use super::mischief::{Act, Mischief};
use super::node::{Ctx, Node};
use super::person::identity;
use super::plan::{OF_AUTHORS, Plan, stream};
use super::random::Draw;
use super::record::{Offences, Record, Sent};
use super::shard::Shard;
use super::shared::{Known, Shared};
use super::{Happening, Options, Progress, SAMPLE_EVERY, Watched};
use crate::outcome::{Outcome, Sample};
use crate::process::resident_bytes;
use crate::scenario::Scenario;

/// A message counts as due to those who were connected from when it was published until this later.
pub(super) const DUE_WITHIN: Duration = Duration::from_secs(10);
/// Round trips that it takes to set up a connection: TCP, Noise, and the proof of membership.
const SETUP_TRIPS: u64 = 3;
/// Starts and connections happen at multiples of this, so that the windows between them are long enough to be
/// worth it.
const GRAIN_NS: u64 = 10_000_000;

/// Something that concerns more than one node.
#[derive(Clone, Copy, Debug)]
enum Control {
    Start(u32),
    /// By number in the plan.
    Link(u32),
    Break(u32),
    Kill {
        node: u32,
        fault: usize,
        restart_after: Option<Duration>,
    },
    FaultBegins(usize),
    FaultEnds(usize),
    Publish(u32),
    Append(u32),
    /// A job is submitted.
    Submit(u32),
    /// A submitter of jobs dies for good.
    Die(u32),
    Sample,
}

/// A run under way.
pub(super) struct World<'a> {
    /// None: this thread does it all.
    pool: Option<&'a ThreadPool>,
    shared: Shared,
    plan: Plan,
    shards: Vec<Shard>,
    per_shard: u32,
    controls: BTreeMap<(u64, u64), Control>,
    scheduled: u64,
    /// Links of each node, by number in the plan.
    links_of: Vec<Vec<u32>>,
    sent: Vec<Sent>,
    /// (node, since when it was away or cut off, until when).
    away: Vec<(u32, u64, u64)>,
    /// Nodes hit by each fault.
    planned: Vec<u64>,
    done: Vec<u64>,
    samples: Vec<Sample>,
    checkpoints: Vec<u64>,
    whole_at: Option<u64>,
    /// The most that buffers of a log held, and where.
    buffered: (u64, Offences),
    rng: ChaCha8Rng,
    rss_before: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &Scenario, pool: Option<&'a ThreadPool>, watched: &Range<Duration>) -> Self {
        let rss_before = resident_bytes();
        let plan = Plan::new(scenario);
        let nodes = scenario.network.nodes;
        let id = |node| identity(scenario.seed, node).id();
        let ids = match pool {
            Some(pool) => pool.install(|| (0..nodes).into_par_iter().map(id).collect()),
            None => (0..nodes).map(id).collect(),
        };
        let mut shared = Shared::new(scenario, &plan, ids);
        shared.watched = nanos(watched.start)..nanos(watched.end);
        let window_ns = nanos(shared.links.least());
        let threads = pool.map_or(1, ThreadPool::current_num_threads);
        let per_shard = nodes.div_ceil(u32::try_from(threads).unwrap_or(1)).max(1);
        let mut links_of = vec![Vec::new(); nodes as usize];
        let mut ends = vec![Vec::new(); nodes as usize];
        for (number, (a, b)) in (0..).zip(&plan.links) {
            links_of[*a as usize].push(number);
            links_of[*b as usize].push(number);
            ends[*a as usize].push((*b, true));
            ends[*b as usize].push((*a, false));
        }
        let (faults, adversaries) = (scenario.faults.len(), scenario.adversaries.len());
        let mut machines = ends.into_iter().zip(0..).map(|(mut ends, node): (Vec<(u32, bool)>, u32)| {
            ends.sort_unstable();
            let seed = Draw::new(scenario.seed, u64::from(node), 0x726e_6773).next();
            Node::new(ChaCha8Rng::seed_from_u64(seed), ends)
        });
        let mut shards = Vec::new();
        for first in (0..nodes).step_by(per_shard as usize) {
            let nodes: Vec<Node> = machines.by_ref().take(per_shard as usize).collect();
            shards.push(Shard::new(first, nodes, window_ns, Record::new(faults, adversaries)));
        }
        drop(machines);
        let mut world = World {
            pool,
            shards,
            per_shard,
            controls: BTreeMap::new(),
            scheduled: 0,
            links_of,
            sent: Vec::new(),
            away: Vec::new(),
            planned: plan.faults.iter().map(|who| who.len() as u64).collect(),
            done: vec![0; faults],
            samples: Vec::new(),
            checkpoints: Vec::new(),
            whole_at: None,
            buffered: (0, Offences::default()),
            rng: stream(scenario.seed, OF_AUTHORS),
            rss_before,
            plan,
            shared,
        };
        world.place_adversaries();
        world.schedule_all();
        world
    }

    fn place_adversaries(&mut self) {
        let adversaries = self.shared.scenario.adversaries.clone();
        for (number, adversary) in adversaries.into_iter().enumerate() {
            for who in self.plan.adversaries[number].clone() {
                let act = Act::new(number, adversary.kind.clone(), adversary.at, adversary.until);
                let (shard, place) = self.place(who);
                self.shards[shard].nodes[place]
                    .mischief
                    .get_or_insert_with(Box::<Mischief>::default)
                    .add(act);
            }
        }
    }

    fn schedule_all(&mut self) {
        let scenario = self.shared.scenario.clone();
        let nodes = scenario.network.nodes;
        let join_over = nanos(scenario.network.join_over);
        for node in 0..nodes {
            let at = join_over / u64::from(nodes.max(1)) * u64::from(node) / GRAIN_NS * GRAIN_NS;
            if at > 0 {
                self.schedule(at, Control::Start(node));
            }
        }
        for (number, fault) in scenario.faults.iter().enumerate() {
            self.schedule(nanos(fault.at), Control::FaultBegins(number));
            if let Some(until) = fault.until {
                self.schedule(nanos(until), Control::FaultEnds(number));
            }
        }
        let workload = &scenario.workload;
        for number in 0..workload.messages {
            self.schedule(nanos(workload.time_of(number)), Control::Publish(number));
        }
        if let Some(log) = &scenario.log {
            for number in 0..log.appends() {
                self.schedule(nanos(log.time_of(number)), Control::Append(number));
            }
        }
        self.schedule_jobs();
        let mut at = SAMPLE_EVERY;
        while at <= scenario.duration {
            self.schedule(nanos(at), Control::Sample);
            at += SAMPLE_EVERY;
        }
    }

    fn schedule(&mut self, at: u64, control: Control) {
        self.scheduled += 1;
        self.controls.insert((at, self.scheduled), control);
    }

    /// Runs to the end.
    pub(super) fn run(mut self, options: &mut Options<'_>) -> Watched {
        let began = Instant::now();
        self.start_first();
        let duration = nanos(self.shared.scenario.duration);
        let window_ns = nanos(self.shared.links.least());
        let (mut now, mut told) = (0, Instant::now());
        loop {
            self.control(now);
            if now >= duration {
                break;
            }
            let window = now / window_ns;
            let next = self.controls.first_key_value().map_or(duration, |((at, _), _)| *at);
            let end = ((window + 1) * window_ns).min(next).min(duration);
            let shared = &self.shared;
            each(self.pool, &mut self.shards, |shard| shard.run(window, end, shared));
            self.exchange();
            now = end;
            self.take_down(now);
            if let Some(progress) = &mut options.progress
                && told.elapsed() > Duration::from_millis(100)
            {
                told = Instant::now();
                let events = self.shards.iter().map(|shard| shard.sink.record.events).sum();
                let pending = self.shards.iter().map(Shard::pending).sum();
                let virtual_time = Duration::from_nanos(now);
                progress(Progress { virtual_time, duration: self.shared.scenario.duration, events, pending });
            }
        }
        let happenings = self.take_happenings();
        Watched { outcome: self.finish(began), happenings }
    }

    fn take_happenings(&mut self) -> Vec<Happening> {
        let records = self.shards.iter_mut().map(|shard| &mut shard.sink.record);
        let mut all: Vec<Happening> = records.flat_map(|r| std::mem::take(&mut r.happenings)).collect();
        // What happened to one node stays in its order.
        all.sort_by_key(Happening::key);
        all
    }

    /// All that happens at this moment, or was to happen before.
    fn control(&mut self, now: u64) {
        while let Some(entry) = self.controls.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let control = entry.remove();
            match control {
                Control::Start(node) => self.start(node, now),
                Control::Link(number) => self.link(number, now),
                Control::Break(number) => self.break_link(number, now),
                Control::Kill { node, fault, restart_after } => self.kill(node, fault, restart_after, now),
                Control::FaultBegins(number) => self.begin_fault(number, now),
                Control::FaultEnds(number) => self.end_fault(number, now),
                Control::Publish(number) => self.publish(number, now),
                Control::Append(number) => self.append(number, now),
                Control::Submit(job) => self.submit(job, now),
                Control::Die(node) => self.die(node, now),
                Control::Sample => self.sample(now),
            }
            self.exchange();
        }
    }

    /// Gives events and news to those they are for.
    fn exchange(&mut self) {
        for from in 0..self.shards.len() {
            let events = std::mem::take(&mut self.shards[from].sink.elsewhere);
            for event in events {
                let (shard, _) = self.place(event.to);
                self.shards[shard].sink.push(event);
            }
            for (id, author) in std::mem::take(&mut self.shards[from].sink.noise) {
                self.shared.known.insert(id, Known { author, number: None });
            }
            self.tell_blobs(from);
        }
    }

    fn place(&self, node: u32) -> (usize, usize) {
        ((node / self.per_shard) as usize, (node % self.per_shard) as usize)
    }

    fn node(&self, node: u32) -> &Node {
        let (shard, place) = self.place(node);
        &self.shards[shard].nodes[place]
    }

    fn with<T>(&mut self, node: u32, now: u64, work: impl FnOnce(&mut Node, &mut Ctx<'_>) -> T) -> T {
        let (shard, _) = self.place(node);
        self.shards[shard].with(node, now, &self.shared, work)
    }

    fn is_first(&self, node: u32) -> bool {
        let nodes = u64::from(self.shared.scenario.network.nodes.max(1));
        nanos(self.shared.scenario.network.join_over) / nodes * u64::from(node) / GRAIN_NS == 0
    }

    /// Starts and connects all that are there from the beginning, on all threads.
    fn start_first(&mut self) {
        let nodes = self.shared.scenario.network.nodes;
        let first: NodeSet = (0..nodes).filter(|node| self.is_first(*node)).collect();
        self.shared.up = first.clone();
        let shared = &self.shared;
        each(self.pool, &mut self.shards, |shard| {
            let ids = shard.first()..shard.first() + u32::try_from(shard.nodes.len()).unwrap_or(0);
            for me in ids.clone().filter(|me| first.contains(*me)) {
                shard.with(me, 0, shared, |node, ctx| node.start(ctx));
            }
            for me in ids.filter(|me| first.contains(*me)) {
                shard.with(me, 0, shared, |node, ctx| {
                    let peers: Vec<u32> = node.ends.iter().map(|end| end.peer).collect();
                    for peer in peers.into_iter().filter(|peer| first.contains(*peer)) {
                        node.connect(peer, ctx);
                    }
                });
            }
        });
        self.exchange();
    }

    fn start(&mut self, node: u32, now: u64) {
        if self.node(node).is_up() {
            return;
        }
        self.shared.up.insert(node);
        self.with(node, now, |node, ctx| node.start(ctx));
        self.tell_of(node, true, now);
        for number in self.links_of[node as usize].clone() {
            self.dial(number, now);
        }
    }

    /// Sees to it that a link comes up, if it can.
    fn dial(&mut self, number: u32, now: u64) {
        let (a, b) = self.plan.links[number as usize];
        let trips = 2 * SETUP_TRIPS * self.shared.links.latency(a, b);
        let wait = self.rng.random_range(0..=nanos(self.shared.scenario.network.redial) / 4);
        self.schedule((now + trips + wait).div_ceil(GRAIN_NS) * GRAIN_NS, Control::Link(number));
    }

    fn link(&mut self, number: u32, now: u64) {
        let (a, b) = self.plan.links[number as usize];
        let is_free = |from: &Node, to: u32| from.is_up() && from.end(to).is_some_and(|end| !end.is_up);
        let can = is_free(self.node(a), b) && is_free(self.node(b), a);
        let is_cut = self.shared.links.cut(a, b).is_some() || self.shared.links.cut(b, a).is_some();
        if can && !is_cut {
            self.with(a, now, |node, ctx| node.connect(b, ctx));
            self.with(b, now, |node, ctx| node.connect(a, ctx));
            return;
        }
        // Both may be connected already; or one side does not know yet that the old connection is dead.
        let up = |from: &Node, to: u32| from.end(to).is_some_and(|end| end.is_up);
        let is_over = up(self.node(a), b) && up(self.node(b), a);
        if self.node(a).is_up() && self.node(b).is_up() && !is_over {
            let redial = nanos(self.shared.scenario.network.redial);
            self.schedule((now + redial).div_ceil(GRAIN_NS) * GRAIN_NS, Control::Link(number));
        }
    }

    fn break_link(&mut self, number: u32, now: u64) {
        let (a, b) = self.plan.links[number as usize];
        if self.shared.links.cut(a, b).is_none() && self.shared.links.cut(b, a).is_none() {
            return;
        }
        self.with(a, now, |node, ctx| node.disconnect(b, ctx));
        self.with(b, now, |node, ctx| node.disconnect(a, ctx));
        self.dial(number, now);
    }

    fn finish(mut self, began: Instant) -> Outcome {
        let now = nanos(self.shared.scenario.duration);
        self.sample_end();
        let rss = resident_bytes();
        super::conclude::conclude(
            super::conclude::Ended {
                now,
                wall: began.elapsed(),
                bytes_per_node: rss.saturating_sub(self.rss_before)
                    / u64::from(self.shared.scenario.network.nodes.max(1)),
                faults: self.effects(),
                samples: std::mem::take(&mut self.samples),
                checkpoints: std::mem::take(&mut self.checkpoints),
                whole_at: self.whole_at.map(Duration::from_nanos),
                sent: std::mem::take(&mut self.sent),
                away: std::mem::take(&mut self.away),
                regions: std::mem::take(&mut self.plan.regions),
                who: std::mem::take(&mut self.plan.adversaries),
                buffered: self.buffered,
            },
            &self.shared,
            self.shards,
        )
    }
}

/// Does something with all shards, at the same time if there are threads.
fn each(pool: Option<&ThreadPool>, shards: &mut [Shard], work: impl Fn(&mut Shard) + Send + Sync) {
    match pool {
        Some(pool) => pool.install(|| shards.par_iter_mut().for_each(work)),
        None => shards.iter_mut().for_each(work),
    }
}
