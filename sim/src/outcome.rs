//! What came of a run: facts, recorded by an engine, for the checkers and the report.

mod compute;
mod detection;
mod log;

use std::time::Duration;

pub use compute::{ComputeCounts, ComputeFacts, JobFacts, WrongResult};
pub use detection::{Convicted, DetectionFacts, Held, Truth};
pub use log::{
    Answer, Append, AuthorLog, Covered, Frozen, LogCounts, LogFacts, NodeLog, SealedCheckpoint, StoredRecord,
};
use omnimesh_protocol::gossip;
use serde::{Deserialize, Serialize};

/// Everything that was recorded. All but [`Outcome::cost`] is a function of the scenario and its seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Nodes at the start.
    pub nodes: u32,
    /// When the run ended.
    pub ended: Duration,
    /// What was published, in order of time.
    pub messages: Vec<Published>,
    /// First deliveries of each message, sorted by time; the author's own is not among them.
    pub deliveries: Vec<Vec<Delivery>>,
    /// Copies of each message that arrived at honest nodes, the first ones among them; empty if they were not
    /// counted one by one.
    pub copies: Vec<u32>,
    /// Deliveries of a message to a process that had it. A node that started anew may get it once more.
    pub delivered_twice: u64,
    /// Where the first of them was.
    pub first_delivered_twice: Option<Offence>,
    /// Deliveries of a message that nobody published. One is too many.
    pub forged: u64,
    /// Where the first of them was.
    pub first_forged: Option<Offence>,
    /// Steps that fell at some honest node, other than by a new start. One is too many.
    pub steps_fell: u64,
    /// Where the first of them was.
    pub first_step_fell: Option<Offence>,
    /// Honest nodes that an honest node shut out: (who did, whom, when).
    pub false_quarantines: Vec<(u32, u32, Duration)>,
    /// Adversaries that were shut out by an honest node: (whom, first time).
    pub quarantines: Vec<(u32, Duration)>,
    /// What all honest routers counted.
    pub gossip: gossip::Stats,
    /// What went over the links.
    pub traffic: Traffic,
    /// Refusals of honest validators by reason.
    pub refusals: Vec<(&'static str, u64)>,
    /// The state of the mesh, twice a second.
    pub samples: Vec<Sample>,
    /// Planned faults, in the order of the scenario, and what they did.
    pub faults: Vec<Effect>,
    /// Planned adversaries, in the order of the scenario, and what they did.
    pub adversaries: Vec<Effect>,
    /// Who misbehaves: sorted.
    pub adversary_nodes: Vec<u32>,
    /// From when each of `adversary_nodes` misbehaves, in their order; empty if not recorded: the beginning of
    /// the first adversary then counts for all.
    pub misbehave_from: Vec<Duration>,
    /// Gossip links (from, to) in the mesh at the end, of up to some thousand nodes.
    pub mesh_links: Vec<(u32, u32)>,
    /// The region of each node, if there are regions.
    pub regions: Vec<u16>,
    /// Nodes in somebody's gossip mesh, by degree, at the end: `degrees[d]` nodes have `d` mesh links.
    pub degrees: Vec<u32>,
    /// The durable log, if nodes keep one.
    pub log: Option<LogFacts>,
    /// The jobs, if there are some.
    pub compute: Option<ComputeFacts>,
    /// What nodes found out about each other, if they have observers.
    pub detection: Option<DetectionFacts>,
    /// Bytes that the machines of a node hold, on average, at the end.
    pub bytes_per_node: u64,
    /// Whether each live honest node knows each other live honest one as alive at the end; `None` without
    /// membership.
    pub membership_whole: Option<bool>,
    /// When, after the last fault was over ([`crate::scenario::Fault::over`]), membership was whole again and
    /// stayed so; `None` if that was not recorded: the samples then count.
    pub membership_whole_at: Option<Duration>,
    /// Events worked off.
    pub events: u64,
    /// A hash of the whole run at each virtual second: two runs differ first where these do.
    pub checkpoints: Vec<u64>,
    /// A hash of everything that happened.
    pub trace_hash: [u8; 32],
    /// What the run took; differs from run to run.
    pub cost: Cost,
}

/// A message of the workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Who.
    pub author: u32,
    /// When.
    pub at: Duration,
    /// Its envelope's length in bytes.
    pub bytes: u32,
    /// Honest nodes that should get it: up, and connected with the author through honest nodes, from then until
    /// it had the time to arrive.
    pub audience: u32,
    /// Of the audience, those that did not get it.
    pub missed: u32,
}

/// The first delivery of a message to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub node: u32,
    /// Which neighbour brought it.
    pub from: u32,
    /// How long after it was published, in microseconds; cut at an hour.
    pub latency_us: u32,
    /// Over how many links it came.
    pub hops: u16,
    /// It belongs to the message's audience.
    pub is_expected: bool,
}

/// Something that must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offence {
    /// At which node.
    pub node: u32,
    /// When.
    pub at: Duration,
}

/// What went over the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames sent.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes of gossip.
    pub gossip_bytes: u64,
    /// Packets lost, each time.
    pub lost: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames that others may have overtaken.
    pub reordered: u64,
    /// Frames that a partition or the end of a connection took.
    pub cut: u64,
    /// Copies of the workload's messages that arrived at honest nodes, the first ones among them.
    pub copies: u64,
    /// IHAVE announcements sent, one for each receiver and topic.
    pub ihave_frames: u64,
}

/// The state of the mesh at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Honest nodes that are up.
    pub up: u32,
    /// Of these, those that have a step.
    pub synchronised: u32,
    /// Distance of the first and the last mesh time of those, in milliseconds.
    pub skew_ms: f64,
    /// The same within each island, the largest. Equal to `skew_ms` while there is no partition.
    pub island_skew_ms: f64,
    /// Connections.
    pub links: u64,
    /// Deliveries so far.
    pub deliveries: u64,
    /// Copies of messages received so far.
    pub copies: u64,
    /// Duplicates so far.
    pub duplicates: u64,
    /// Of the pairs of live honest nodes, the part in which the one knows the other as alive; 1 without membership.
    pub membership: f64,
    /// Adversaries that some honest node has shut out so far.
    pub quarantined: u32,
}

/// A planned fault or adversary, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Its kind, and its place among the faults or among the adversaries of the scenario, counted from 1:
    /// `partition#1`, and `crash#2` if a crash comes next.
    pub name: String,
    /// How often it was to act: nodes hit, or acts.
    pub planned: u64,
    /// How often it had an effect: frames cut, processes killed, clocks moved, lies told.
    pub effective: u64,
    /// From when.
    pub at: Duration,
    /// Until when, if it has an end.
    pub until: Option<Duration>,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Real time.
    pub wall: Duration,
    /// The most memory the process held, in bytes.
    pub peak_rss_bytes: u64,
    /// Threads that worked.
    pub threads: usize,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        let Traffic { frames, bytes, gossip_bytes, lost, duplicated, reordered, cut, copies, ihave_frames } =
            other;
        self.frames += frames;
        self.bytes += bytes;
        self.gossip_bytes += gossip_bytes;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.cut += cut;
        self.copies += copies;
        self.ihave_frames += ihave_frames;
    }
}
