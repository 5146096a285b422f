//! The workers that a driver knows, and the choice among them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::compute::id::BlobRef;
use crate::compute::job::Constraints;
use crate::id::{Hash, NodeId};
use crate::time::Time;

use super::breaker::{Breaker, BreakerConfig, BreakerState};
use super::health::{Health, HealthView};
use super::offer::Offer;

/// How a worker is chosen among those that could do a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One after another.
    RoundRobin,
    /// The one with the smallest share of its slots in use.
    LeastConnections,
    /// Any.
    Random,
    /// Any, the more often the more it is worth: fast, reliable, honest, with slots that are free.
    Weighted,
    /// The better of two at random (Mitzenmacher, *The power of two choices in randomized load balancing*, 2001).
    #[default]
    PowerOfTwo,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 5] = [
        Strategy::RoundRobin,
        Strategy::LeastConnections,
        Strategy::Random,
        Strategy::Weighted,
        Strategy::PowerOfTwo,
    ];

    /// The name in configurations.
    pub const fn code(self) -> &'static str {
        match self {
            Strategy::RoundRobin => "round_robin",
            Strategy::LeastConnections => "least_connections",
            Strategy::Random => "random",
            Strategy::Weighted => "weighted",
            Strategy::PowerOfTwo => "power_of_two",
        }
    }
}

/// How the pool works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Who gets a task.
    pub strategy: Strategy,
    /// Inputs of at least so many bytes draw a task to who holds them. Default 256 KiB (guess): what a network
    /// carries in the time of one round trip.
    pub locality_bytes_min: u64,
    /// When workers are left alone.
    pub breaker: BreakerConfig,
    /// A worker of which nothing was heard for so long is gone. Default 10 s: three heartbeats and some. Shorter
    /// runs tasks twice, longer waits for the dead.
    pub silence: Duration,
    /// Attempts that a worker may have waiting, however long they take. Default 4 (guess): enough to hide a round trip.
    /// More make stragglers.
    pub waiting: u32,
    /// It may have as many more waiting as it does within this time. Default 50 ms (guess): small tasks are then given and
    /// answered many at a time.
    pub ahead: Duration,
    /// Most workers. Default 4,096, as many as members. Others are not used.
    pub workers_max: usize,
    /// Most workers that are remembered to hold one blob. Default 8 (guess).
    pub holders_max: usize,
    /// Most blobs of which it is remembered who holds them. Default 65,536 (guess, some 10 MB).
    pub blobs_max: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            strategy: Strategy::default(),
            locality_bytes_min: 256 << 10,
            breaker: BreakerConfig::default(),
            silence: Duration::from_secs(10),
            waiting: 4,
            ahead: Duration::from_millis(50),
            workers_max: 4096,
            holders_max: 8,
            blobs_max: 65_536,
        }
    }
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The operation that has to be done.
    pub operation: &'a str,
    /// Who may do it.
    pub constraints: &'a Constraints,
    /// Memory that the attempt may take.
    pub memory_bytes: u64,
    /// What it reads.
    pub inputs: &'a [BlobRef],
    /// Who must not do it.
    pub excluded: &'a dyn Fn(&NodeId) -> bool,
    /// Who takes longer than others by more than this factor, in thousandths, is not asked, unless nobody else could do it.
    pub slowness_max: u64,
    /// It is waited for: somebody who has shown how fast it is comes before somebody who has shown nothing.
    pub is_urgent: bool,
}

/// Why nobody was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// No worker is known.
    NoWorkers,
    /// No worker does the operation or meets the constraints: how many there are, and what the last lacked.
    NoMatch {
        /// Workers that are known.
        workers: usize,
        /// What is missing.
        lacks: String,
    },
    /// Workers that could do it have no room.
    AllBusy {
        /// How many.
        matching: usize,
    },
    /// Workers that could do it are left alone for a while, as they keep failing.
    BreakersOpen {
        /// How many.
        matching: usize,
    },
    /// Workers that could do it have done it already, or have given wrong results in this job.
    Excluded {
        /// How many.
        matching: usize,
    },
    /// Those with room are so slow that waiting for others is better.
    TooSlow {
        /// How many.
        matching: usize,
    },
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unplaced::NoWorkers => f.write_str("no worker is known; start a node that takes work"),
            Unplaced::NoMatch { workers, lacks } => {
                write!(f, "none of {workers} workers meets the constraints: {lacks}")
            }
            Unplaced::AllBusy { matching } => write!(f, "all {matching} workers that could do it are busy"),
            Unplaced::BreakersOpen { matching } => {
                write!(
                    f,
                    "{matching} workers that could do it failed too often and are left alone for a while"
                )
            }
            Unplaced::Excluded { matching } => {
                write!(
                    f,
                    "each of {matching} workers that could do it was asked already, or was wrong in this job"
                )
            }
            Unplaced::TooSlow { matching } => {
                write!(
                    f,
                    "{matching} workers that could do it are so slow that others will be done before them"
                )
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Worker {
    offer: Offer,
    health: Health,
    breaker: Breaker,
    heard: Time,
    /// Attempts of this driver under way.
    assigned: u32,
    /// Its place in the list of those with room.
    place: Option<usize>,
    /// Its place in the list of those with a slot that nobody uses.
    idle_place: Option<usize>,
}

impl Worker {
    /// How many attempts it may have at once: those that run, those that hide a round trip, and as many more as it does
    /// within [`PoolConfig::ahead`].
    fn depth(&self, config: &PoolConfig) -> u32 {
        let mean = self.health.mean().map_or(u64::MAX, crate::time::nanos);
        let ahead =
            u64::from(self.offer.slots).saturating_mul(crate::time::nanos(config.ahead)) / mean.max(1);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.offer.slots.saturating_add(config.waiting).saturating_add(ahead)
    }
}

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Who.
    pub node: NodeId,
    /// What it says of itself.
    pub offer: Offer,
    /// What was learned of it.
    pub health: HealthView,
    /// Whether it is left alone.
    pub breaker: BreakerState,
    /// When it was heard of last.
    pub heard: Time,
}

/// The workers that a driver knows.
#[derive(Clone, Debug)]
pub struct Pool {
    config: PoolConfig,
    workers: BTreeMap<NodeId, Worker>,
    /// Those with room, in no order that means anything.
    free: Vec<NodeId>,
    /// Of these, those with a slot that nobody uses, as far as is known.
    idle: Vec<NodeId>,
    /// Whose attempts under way take longer than others, and how much, in thousandths.
    late: BTreeMap<NodeId, u64>,
    /// Breakers that are open, and until when.
    open: BTreeMap<NodeId, Time>,
    holders: BTreeMap<Hash, Vec<NodeId>>,
    /// Who has signed wrong results, and how often: remembered when a worker goes and comes back.
    dissents: BTreeMap<NodeId, u32>,
    /// Round robin goes on behind it.
    last: Option<NodeId>,
    /// Slots of all workers.
    slots: u64,
}

/// How many are looked at before the choice, when there are many.
const SAMPLE: usize = 32;

impl Pool {
    /// An empty pool.
    pub fn new(config: PoolConfig) -> Self {
        Pool {
            config,
            workers: BTreeMap::new(),
            free: Vec::new(),
            idle: Vec::new(),
            late: BTreeMap::new(),
            open: BTreeMap::new(),
            holders: BTreeMap::new(),
            dissents: BTreeMap::new(),
            last: None,
            slots: 0,
        }
    }

    /// A worker says what it is; false if there are too many.
    pub fn on_offer(&mut self, now: Time, node: NodeId, offer: Offer) -> bool {
        if !self.workers.contains_key(&node) && self.workers.len() >= self.config.workers_max {
            return false;
        }
        for hash in &offer.held {
            self.on_holds(node, *hash);
        }
        let breaker = Breaker::new(&self.config.breaker);
        let dissents = self.dissents.get(&node).copied().unwrap_or(0);
        let worker = self.workers.entry(node).or_insert_with(|| Worker {
            offer: Offer::default(),
            health: Health::new(dissents),
            breaker,
            heard: now,
            assigned: 0,
            place: None,
            idle_place: None,
        });
        worker.heard = now;
        self.slots = self.slots + u64::from(offer.slots) - u64::from(worker.offer.slots);
        worker.offer = Offer { held: Vec::new(), ..offer };
        self.settle(now, node);
        true
    }

    /// A worker holds a blob.
    pub fn on_holds(&mut self, node: NodeId, hash: Hash) {
        if !self.holders.contains_key(&hash) && self.holders.len() >= self.config.blobs_max {
            return;
        }
        let holders = self.holders.entry(hash).or_default();
        if !holders.contains(&node) {
            if holders.len() >= self.config.holders_max {
                holders.remove(0);
            }
            holders.push(node);
        }
    }

    /// A worker does not hold a blob after all.
    pub fn on_lacks(&mut self, node: &NodeId, hash: &Hash) {
        if let Some(holders) = self.holders.get_mut(hash) {
            holders.retain(|holder| holder != node);
            if holders.is_empty() {
                self.holders.remove(hash);
            }
        }
    }

    /// Who holds a blob, of those that are known.
    pub fn holders(&self, hash: &Hash) -> &[NodeId] {
        self.holders.get(hash).map_or(&[], Vec::as_slice)
    }

    /// A worker is gone. What was learned of it is forgotten with it, but for who holds what: it may come back.
    pub fn on_gone(&mut self, node: &NodeId) {
        if let Some(worker) = self.workers.remove(node) {
            self.open.remove(node);
            self.slots -= u64::from(worker.offer.slots);
            if let Some(place) = worker.place {
                self.unlist(place);
            }
            if let Some(place) = worker.idle_place {
                self.unlist_idle(place);
            }
        }
        self.late.remove(node);
        self.holders.retain(|_, holders| {
            holders.retain(|holder| holder != node);
            !holders.is_empty()
        });
    }

    /// Workers of which nothing was heard for too long.
    pub fn silent(&self, now: Time) -> Vec<NodeId> {
        let is_silent = |worker: &Worker| now.since(worker.heard) > self.config.silence;
        self.workers.iter().filter(|(_, worker)| is_silent(worker)).map(|(node, _)| *node).collect()
    }

    /// An attempt was given to a worker.
    pub fn on_assigned(&mut self, now: Time, node: NodeId) {
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.assigned += 1;
        }
        self.settle(now, node);
    }

    /// An attempt has gone well; `typical` is what the same task takes elsewhere.
    pub fn on_success(&mut self, now: Time, node: NodeId, time: Duration, typical: Option<Duration>) {
        let breaker = &self.config.breaker;
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.heard = now;
            worker.health.on_success(time, typical);
            worker.breaker.on_success(breaker);
        }
        self.on_returned(now, node);
    }

    /// An attempt has failed by the worker's fault; true if the breaker opened.
    pub fn on_failure(&mut self, now: Time, node: NodeId) -> bool {
        let breaker = &self.config.breaker;
        let opened = self.workers.get_mut(&node).is_some_and(|worker| {
            worker.health.on_failure();
            worker.breaker.on_failure(breaker, now)
        });
        self.on_returned(now, node);
        opened
    }

    /// An attempt was given up because others were done before it.
    pub fn on_overtaken(&mut self, now: Time, node: NodeId, time: Duration, typical: Option<Duration>) {
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.health.on_overtaken(time, typical);
        }
        self.on_returned(now, node);
    }

    /// An attempt has come back, or was taken back, and nothing is learned of it.
    pub fn on_returned(&mut self, now: Time, node: NodeId) {
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.assigned = worker.assigned.saturating_sub(1);
        }
        self.settle(now, node);
    }

    /// A worker had no room after all: it gets nothing more until it says that it has.
    pub fn on_busy(&mut self, now: Time, node: NodeId) {
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.assigned = worker.assigned.saturating_sub(1);
            worker.offer.room = worker.offer.room.min(worker.assigned);
        }
        self.settle(now, node);
    }

    /// A worker has signed a wrong result.
    pub fn on_dissent(&mut self, node: &NodeId) {
        if self.dissents.contains_key(node) || self.dissents.len() < self.config.workers_max {
            *self.dissents.entry(*node).or_default() += 1;
        }
        if let Some(worker) = self.workers.get_mut(node) {
            worker.health.on_dissent();
        }
    }

    /// When the next breaker lets something through.
    pub fn next_open(&self) -> Option<Time> {
        self.open.values().min().copied()
    }

    /// Looks which breakers have cooled down.
    pub fn refresh(&mut self, now: Time) {
        let cooled: Vec<_> =
            self.open.iter().filter(|(_, until)| **until <= now).map(|(node, _)| *node).collect();
        for node in cooled {
            self.settle(now, node);
        }
    }

    /// The workers that are known.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.workers.keys().copied()
    }

    /// How many workers are known.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// True if no worker is known.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// How many have room.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How many have a slot that nobody uses, as far as is known.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// True if this worker has a slot that nobody uses, as far as is known.
    pub fn is_idle(&self, node: &NodeId) -> bool {
        self.workers.get(node).is_some_and(|worker| worker.idle_place.is_some())
    }

    /// Whose attempts under way take longer than others, and how much at least, in thousandths: they show it before they have
    /// done anything.
    pub fn set_late(&mut self, late: BTreeMap<NodeId, u64>) {
        self.late = late;
    }

    /// Attempts that all workers could run at once.
    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// True if this worker is known.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.workers.contains_key(node)
    }

    /// How long a worker takes compared with others, in thousandths.
    pub fn slowness(&self, node: &NodeId) -> u64 {
        let late = self.late.get(node).copied().unwrap_or(0);
        self.workers.get(node).map_or(1000, |worker| worker.health.slowness()).max(late)
    }

    /// All workers, for people.
    pub fn view(&self, now: Time) -> Vec<WorkerView> {
        let view = |(node, worker): (&NodeId, &Worker)| WorkerView {
            node: *node,
            offer: worker.offer.clone(),
            health: worker.health.view(worker.assigned),
            breaker: worker.breaker.state(now),
            heard: worker.heard,
        };
        self.workers.iter().map(view).collect()
    }

    /// The worker that is to do it; [`Pool::why_not`] tells why there is none.
    pub fn pick(&mut self, wanted: &Wanted<'_>, rng: &mut impl Rng) -> Option<NodeId> {
        let calm = Wanted { is_urgent: false, ..*wanted };
        let mut picked = self.near(wanted).or_else(|| self.by_strategy(wanted, rng));
        if picked.is_none() && wanted.is_urgent {
            picked = self.near(&calm).or_else(|| self.by_strategy(&calm, rng));
        }
        if picked.is_none() && wanted.slowness_max < u64::MAX && !self.has_faster(wanted) {
            picked = self.by_strategy(&Wanted { slowness_max: u64::MAX, ..calm }, rng);
        }
        self.last = picked.or(self.last);
        picked
    }

    /// True if somebody who is fast enough could do it when there is room. Who fails is not waited for: of a worker that never
    /// answers it is not known that it is slow.
    fn has_faster(&self, wanted: &Wanted<'_>) -> bool {
        self.workers.iter().any(|(node, worker)| {
            !worker.health.has_only_failed()
                && self.slowness(node) <= wanted.slowness_max
                && worker.breaker.is_closed()
                && lacks(&worker.offer, wanted).is_none()
                && !(wanted.excluded)(node)
        })
    }

    /// One with a slot that is free that holds the longest input, if that is long enough to matter. To wait there behind
    /// others would take longer than to fetch it elsewhere.
    fn near(&self, wanted: &Wanted<'_>) -> Option<NodeId> {
        let longest = wanted.inputs.iter().max_by_key(|blob| (blob.size, blob.hash))?;
        if longest.size < self.config.locality_bytes_min {
            return None;
        }
        let holders = self.holders(&longest.hash).iter();
        let is_idle = |node: &&NodeId| self.load(node) < 1000 && self.is_eligible(node, wanted);
        holders.filter(is_idle).min_by_key(|node| self.load(node)).copied()
    }

    fn by_strategy(&self, wanted: &Wanted<'_>, rng: &mut impl Rng) -> Option<NodeId> {
        if self.config.strategy == Strategy::RoundRobin {
            return self.after_last(wanted);
        }
        // To wait behind others is worse than any choice among those who would begin at once.
        self.of_list(&self.idle, wanted, rng).or_else(|| self.of_list(&self.free, wanted, rng))
    }

    fn of_list(&self, list: &[NodeId], wanted: &Wanted<'_>, rng: &mut impl Rng) -> Option<NodeId> {
        let count = list.len();
        if count == 0 {
            return None;
        }
        let at = |rng: &mut dyn FnMut() -> u64| list[index(rng(), count)];
        let mut draw = || rng.next_u64();
        let enough = match self.config.strategy {
            Strategy::Random | Strategy::RoundRobin => 1,
            Strategy::PowerOfTwo => 2,
            Strategy::Weighted | Strategy::LeastConnections => SAMPLE,
        };
        let mut sample: Vec<NodeId> = Vec::with_capacity(enough);
        if count > 2 * SAMPLE {
            for _ in 0..2 * SAMPLE {
                let node = at(&mut draw);
                if !sample.contains(&node) && self.is_eligible(&node, wanted) {
                    sample.push(node);
                    if sample.len() == enough {
                        break;
                    }
                }
            }
        }
        if sample.is_empty() {
            // Few, or hardly anybody fits: look at all, from a random one on.
            let start = index(draw(), count);
            let all = (0..count).map(|place| list[(start + place) % count]);
            let fitting = all.filter(|node| self.is_eligible(node, wanted));
            if self.config.strategy == Strategy::PowerOfTwo || self.config.strategy == Strategy::Random {
                // Neighbours in the list are as good as random, but the first alone is not: it follows gaps.
                let all: Vec<_> = fitting.collect();
                for _ in 0..enough.min(all.len()) {
                    sample.push(all[index(draw(), all.len())]);
                }
            } else {
                sample.extend(fitting);
            }
        }
        match self.config.strategy {
            Strategy::Weighted => self.weighted(&sample, draw()),
            Strategy::LeastConnections => sample.into_iter().min_by_key(|node| (self.load(node), *node)),
            Strategy::PowerOfTwo => sample.into_iter().min_by_key(|node| self.cost(node)),
            Strategy::Random | Strategy::RoundRobin => sample.first().copied(),
        }
    }

    fn after_last(&self, wanted: &Wanted<'_>) -> Option<NodeId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let fits = |node: &&NodeId| self.is_eligible(node, wanted);
        let from = self.last.map_or(Unbounded, Excluded);
        let behind = self.workers.range((from, Unbounded)).map(|(node, _)| node).find(fits);
        behind.or_else(|| self.workers.keys().find(fits)).copied()
    }

    fn weighted(&self, sample: &[NodeId], draw: u64) -> Option<NodeId> {
        let weight = |node: &NodeId| {
            let worker = &self.workers[node];
            let idle = u64::from(worker.offer.room.saturating_sub(worker.assigned)).max(1);
            worker.health.worth().saturating_mul(idle)
        };
        let total: u64 = sample.iter().map(weight).sum();
        let mut left = draw.checked_rem(total)?;
        for node in sample {
            let weight = weight(node);
            if left < weight {
                return Some(*node);
            }
            left -= weight;
        }
        None
    }

    /// The share of its slots that is in use, in thousandths.
    fn load(&self, node: &NodeId) -> u64 {
        let Some(worker) = self.workers.get(node) else { return u64::MAX };
        let busy = u64::from(worker.offer.active.max(worker.assigned));
        busy * 1000 / u64::from(worker.offer.slots.max(1))
    }

    /// How long one more attempt would take there, in no unit.
    fn cost(&self, node: &NodeId) -> u64 {
        let Some(worker) = self.workers.get(node) else { return u64::MAX };
        (self.load(node) + 1000).saturating_mul(1_000_000) / worker.health.worth()
    }

    fn is_eligible(&self, node: &NodeId, wanted: &Wanted<'_>) -> bool {
        self.workers.get(node).is_some_and(|worker| {
            worker.place.is_some()
                && (worker.health.is_proven() || !wanted.is_urgent)
                && lacks(&worker.offer, wanted).is_none()
                && self.slowness(node) <= wanted.slowness_max
                && !(wanted.excluded)(node)
        })
    }

    /// Why nobody can do it now. Looks at all workers.
    pub fn why_not(&self, now: Time, wanted: &Wanted<'_>) -> Unplaced {
        // Who takes no work at all is no worker that is busy.
        let working = || self.workers.iter().filter(|(_, worker)| worker.offer.slots > 0);
        let workers = working().count();
        if workers == 0 {
            return Unplaced::NoWorkers;
        }
        let mut missing = String::new();
        let mut matching = Vec::new();
        for (node, worker) in working() {
            match lacks(&worker.offer, wanted) {
                Some(what) => missing = what,
                None => matching.push((node, worker)),
            }
        }
        if matching.is_empty() {
            return Unplaced::NoMatch { workers, lacks: missing };
        }
        let all = matching.len();
        matching.retain(|(node, _)| !(wanted.excluded)(node));
        if matching.is_empty() {
            return Unplaced::Excluded { matching: all };
        }
        let all = matching.len();
        matching.retain(|(_, worker)| worker.breaker.state(now) != BreakerState::Open);
        if matching.is_empty() {
            return Unplaced::BreakersOpen { matching: all };
        }
        let all = matching.len();
        if matching.iter().any(|(_, worker)| worker.place.is_some()) {
            return Unplaced::TooSlow { matching: all };
        }
        Unplaced::AllBusy { matching: all }
    }

    /// Puts a worker on the list of those with room, or takes it off.
    fn settle(&mut self, now: Time, node: NodeId) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let room = match worker.breaker.state(now) {
            BreakerState::Closed => worker.offer.room.min(worker.depth(&self.config)),
            BreakerState::HalfOpen => worker.offer.room.min(1),
            BreakerState::Open => 0,
        };
        match worker.breaker.opens_until(now) {
            Some(until) => drop(self.open.insert(node, until)),
            None => drop(self.open.remove(&node)),
        }
        let has_room = worker.assigned < room;
        let is_idle = has_room && worker.assigned.max(worker.offer.active) < worker.offer.slots;
        match (is_idle, worker.idle_place) {
            (true, None) => {
                worker.idle_place = Some(self.idle.len());
                self.idle.push(node);
            }
            (false, Some(place)) => {
                worker.idle_place = None;
                self.unlist_idle(place);
            }
            _ => {}
        }
        let Some(worker) = self.workers.get_mut(&node) else { return };
        match (has_room, worker.place) {
            (true, None) => {
                worker.place = Some(self.free.len());
                self.free.push(node);
            }
            (false, Some(place)) => {
                worker.place = None;
                self.unlist(place);
            }
            _ => {}
        }
    }

    fn unlist(&mut self, place: usize) {
        self.free.swap_remove(place);
        if let Some(moved) = self.free.get(place)
            && let Some(worker) = self.workers.get_mut(moved)
        {
            worker.place = Some(place);
        }
    }

    fn unlist_idle(&mut self, place: usize) {
        self.idle.swap_remove(place);
        if let Some(moved) = self.idle.get(place)
            && let Some(worker) = self.workers.get_mut(moved)
        {
            worker.idle_place = Some(place);
        }
    }

    /// For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        for (place, node) in self.idle.iter().enumerate() {
            assert_eq!(self.workers[node].idle_place, Some(place), "the list of the idle is in step");
            assert!(self.workers[node].place.is_some(), "who is idle has room");
        }
        for (place, node) in self.free.iter().enumerate() {
            assert_eq!(self.workers[node].place, Some(place), "the list of those with room is in step");
        }
        let listed = self.workers.values().filter(|worker| worker.place.is_some()).count();
        assert_eq!(listed, self.free.len());
        assert_eq!(
            self.slots,
            self.workers.values().map(|worker| u64::from(worker.offer.slots)).sum::<u64>()
        );
        assert!(self.workers.len() <= self.config.workers_max && self.holders.len() <= self.config.blobs_max);
    }
}

/// What a worker lacks for it.
fn lacks(offer: &Offer, wanted: &Wanted<'_>) -> Option<String> {
    let constraints = wanted.constraints;
    for (name, value) in &constraints.labels {
        if offer.labels.get(name) != Some(value) {
            return Some(format!("the label {name} = {value}"));
        }
    }
    if constraints.region.is_some() && offer.region != constraints.region {
        return constraints.region.as_ref().map(|region| format!("the region {region}"));
    }
    let memory = constraints.memory_bytes.max(wanted.memory_bytes);
    if offer.memory_bytes < memory {
        return Some(format!("{memory} bytes of memory"));
    }
    (!offer.does(wanted.operation)).then(|| format!("the operation {}", wanted.operation))
}

/// A place in a list of `count` > 0 things, evenly, out of a random number.
fn index(random: u64, count: usize) -> usize {
    let scaled = (u128::from(random) * count as u128) >> 64;
    usize::try_from(scaled).expect("below count")
}
