//! What is simulated: a scenario, typed.
//!
//! Times are virtual and count from the start of the run. [`ScenarioFile`] reads one from TOML,
//! [`Scenario::problems`] says what is wrong with one, [`memory`] what it takes.

/// The names that variants have in a scenario, said once for reading and for writing.
macro_rules! names {
    ($kind:ident { $($variant:ident => $name:literal,)+ }) => {
        impl $kind {
            /// The names of all.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// Its name in a scenario.
            pub const fn name(&self) -> &'static str {
                match self {
                    $($kind::$variant { .. } => $name,)+
                }
            }
        }
    };
}

mod check;
mod compute;
mod file;
mod log;
pub mod memory;
mod observer;
mod problem;
pub mod shipped;
mod validate;

use std::time::Duration;

pub use check::Check;
pub use compute::{Compute, Shape};
pub use file::{Engine, Override, ScenarioError, ScenarioFile};
pub use log::{CHECKPOINTS, Checkpoints, Disk, Log};
pub use observer::{Observer, Witnesses};
pub use problem::{Located, Problem};

use bytes::Bytes;
use omnimesh_protocol::gossip;

/// A whole experiment.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A short name: of the run's folder, of its report.
    pub name: String,
    /// What it shows, for people.
    pub description: String,
    /// Whence all randomness comes.
    pub seed: u64,
    /// Whether signatures are really made and checked.
    pub crypto: Crypto,
    /// When it ends.
    pub duration: Duration,
    /// The nodes and who is connected to whom.
    pub network: Network,
    /// What happens to a frame on its way.
    pub links: Links,
    /// The settings of every node's gossip router.
    pub gossip: gossip::Config,
    /// What honest nodes publish.
    pub workload: Workload,
    /// What they append to their logs; without it they keep none.
    pub log: Option<Log>,
    /// Checkpoints of the logs; without it none are made.
    pub checkpoints: Option<Checkpoints>,
    /// What logs are written to.
    pub disk: Disk,
    /// The jobs that they do; none without it.
    pub compute: Option<Compute>,
    /// Whether nodes watch each other.
    pub observer: Observer,
    /// What breaks, and when.
    pub faults: Vec<Fault>,
    /// Who misbehaves, and how.
    pub adversaries: Vec<Adversary>,
    /// What must be true of the run.
    pub checks: Vec<Check>,
    /// What of the protocol is broken on purpose. No scenario file can say so.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

/// Ways to break the protocol, to see that the checkers notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sabotage {
    pub validator: omnimesh_protocol::validate::Sabotage,
    /// Step synchronisation believes everybody.
    pub untrimmed: bool,
    /// Disks give out what is damaged.
    pub trusting_disks: bool,
    /// Disks answer before they have written.
    pub early_answers: bool,
    /// Some nodes leave records out of their registry.
    pub forgetful_registry: bool,
    /// All nodes make checkpoints with a state in which nothing is.
    pub hollow_checkpoints: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            name: "unnamed".into(),
            description: String::new(),
            seed: 1,
            crypto: Crypto::Real,
            duration: Duration::from_secs(30),
            network: Network::default(),
            links: Links::default(),
            gossip: gossip::Config::default(),
            workload: Workload::default(),
            log: None,
            checkpoints: None,
            disk: Disk::default(),
            compute: None,
            observer: Observer::default(),
            faults: Vec::new(),
            adversaries: Vec::new(),
            checks: Check::all(),
            sabotage: Sabotage::default(),
        }
    }
}

/// Whether cryptography is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// Envelopes are signed, tagged and checked as in the node. All nodes that get the same bytes share one
    /// check of their signature; the tag is checked by each.
    Real,
    /// Authenticity is a fact of the model: signatures and tags are neither made nor checked.
    Skip,
}

/// The nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// How many.
    pub nodes: u32,
    /// Who dials whom.
    pub topology: Topology,
    /// Nodes start one after the other, evenly over this time; the first at 0.
    pub join_over: Duration,
    /// Whether nodes keep a shared step; without, all have the true one.
    pub step_sync: bool,
    /// Length of a step.
    pub step_interval: Duration,
    /// Peers asked for their time in a round.
    pub sync_peers: usize,
    /// Between rounds of step synchronisation.
    pub sync_interval: Duration,
    /// Whether nodes run the membership protocol. Every node then knows every other: for some thousands at
    /// most.
    pub membership: bool,
    /// Wall clocks at the start are off by up to this, either way.
    pub clock_offset: Duration,
    /// Clocks run fast or slow by up to this many millionths.
    pub clock_drift_ppm: f64,
    /// A connection on which nothing gets through is given up after this. As in the node.
    pub silence: Duration,
    /// A broken connection is dialled again this often.
    pub redial: Duration,
    /// Names of the regions, and the share of the nodes in each; one if empty.
    pub regions: Vec<Region>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            nodes: 100,
            topology: Topology::Random { dials: 8 },
            join_over: Duration::ZERO,
            step_sync: true,
            step_interval: Duration::from_secs(1),
            sync_peers: 16,
            sync_interval: Duration::from_secs(1),
            membership: false,
            clock_offset: Duration::from_millis(50),
            clock_drift_ppm: 50.0,
            silence: Duration::from_secs(15),
            redial: Duration::from_secs(2),
            regions: Vec::new(),
        }
    }
}

/// A part of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its share of the nodes; shares are taken relative to their sum.
    pub share: f64,
}

/// Who dials whom. A connection serves both ways.
#[derive(Clone, Debug, PartialEq)]
pub enum Topology {
    /// Each node dials so many distinct others at random.
    Random {
        /// How many.
        dials: u32,
    },
    /// Each node dials the next so many in a circle.
    Ring {
        /// How many.
        neighbours: u32,
    },
    /// Everybody is connected to everybody.
    Full,
}

/// What happens to a frame on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    /// One-way latency of a pair of nodes, drawn once for the pair.
    pub latency: Latency,
    /// Each frame takes up to this part of the pair's latency in addition, uniformly.
    pub jitter: f64,
    /// Share of the packets that are lost.
    pub loss: f64,
    /// Packets lost in a row, on average; 1: independent.
    pub loss_burst: f64,
    /// What a loss does.
    pub repair: Repair,
    /// Share of the frames that arrive twice.
    pub duplication: f64,
    /// Share of the frames that may be overtaken by later ones.
    pub reordering: f64,
    /// What a node can send, in bits per second, over all its links; none: no limit. Frames queue.
    pub bandwidth_bps: Option<u64>,
}

impl Default for Links {
    fn default() -> Self {
        Links {
            latency: Latency::Uniform { min: Duration::from_millis(10), max: Duration::from_millis(100) },
            jitter: 0.1,
            loss: 0.0,
            loss_burst: 1.0,
            repair: Repair::Retransmit,
            duplication: 0.0,
            reordering: 0.0,
            bandwidth_bps: None,
        }
    }
}

/// What the loss of a packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The transport sends it again: the frame, and those behind it, come later by a retransmission timeout.
    /// So do TCP and QUIC streams.
    Retransmit,
    /// The frame is gone. No stream does that; it shows what the protocol itself repairs.
    None,
}

/// A distribution of one-way latencies.
#[derive(Clone, Debug, PartialEq)]
pub enum Latency {
    /// The same everywhere.
    Constant(Duration),
    /// Uniform between the two.
    Uniform {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// The logarithm is normal; cut off at the most.
    LogNormal {
        /// Half are below it.
        median: Duration,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// The most.
        max: Duration,
    },
    /// By region: row from, column to, milliseconds. A pair's own latency is within `spread` of it, either way.
    Matrix {
        /// One row for each region, in their order.
        ms: Vec<Vec<f64>>,
        /// 0.1: within 10 %.
        spread: f64,
    },
}

/// What honest nodes publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// When the first message is published.
    pub start: Duration,
    /// How many messages.
    pub messages: u32,
    /// Messages in a second, evenly.
    pub rate_per_s: f64,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// So many nodes, fixed and random, take turns in publishing; none: each time another random node.
    pub authors: Option<u32>,
}

impl Default for Workload {
    fn default() -> Self {
        Workload {
            start: Duration::from_secs(10),
            messages: 50,
            rate_per_s: 10.0,
            payload_bytes: 64,
            authors: None,
        }
    }
}

impl Workload {
    /// The default of a run so long, at this rate: in a short one messages come earlier, and fewer, so that they can arrive.
    pub fn within(duration: Duration, rate_per_s: Option<f64>) -> Workload {
        let usual = Workload::default();
        let (third, rate_per_s) = (duration / 3, rate_per_s.unwrap_or(usual.rate_per_s));
        let fit = (third.as_secs_f64() * rate_per_s).ceil().clamp(1.0, f64::from(usual.messages));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was clamped")]
        let messages = fit as u32;
        Workload { start: usual.start.min(third), messages, rate_per_s, ..usual }
    }

    /// When a message is published.
    pub(crate) fn time_of(&self, number: u32) -> Duration {
        self.start + Duration::from_secs_f64(f64::from(number) / self.rate_per_s.max(1e-9))
    }

    /// The payload of a message, of at most so many bytes: its number, so that no two are alike, and zeros.
    pub(crate) fn payload(&self, number: u32, bytes_max: usize) -> Bytes {
        let mut payload = vec![0; self.payload_bytes.clamp(8, bytes_max)];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        payload.into()
    }
}

/// Which nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// Everybody.
    All,
    /// These.
    Nodes(Vec<u32>),
    /// So many, at random.
    Count(u32),
    /// This part of all, at random, rounded.
    Share(f64),
    /// Those in these regions, by index.
    Regions(Vec<usize>),
}

/// Something breaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// When it ends, where it has an end.
    pub until: Option<Duration>,
    /// Whom it hits.
    pub who: Who,
    /// What it is.
    pub kind: FaultKind,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// Nothing gets through between those hit and the others.
    Partition {
        /// Only what those hit send is lost.
        one_way: bool,
    },
    /// Processes die, with all that is in memory.
    Crash {
        /// They start again after this.
        restart_after: Option<Duration>,
    },
    /// At random moments from `at` to `until` one of those hit dies and starts again.
    Churn {
        /// Deaths in a second.
        per_s: f64,
        /// How long each is away.
        away: Duration,
    },
    /// The links of those hit get worse.
    Degrade {
        /// Loss in addition.
        loss: f64,
        /// Latency times this, at least 1.
        latency_factor: f64,
    },
    /// Each frame that one of those hit receives takes this long to work off.
    Slow {
        /// Time for one frame.
        frame_time: Duration,
    },
    /// The clocks of those hit leap forward.
    ClockJump {
        /// By this.
        by: Duration,
    },
    /// The clocks of those hit run fast (or slow, if negative).
    ClockDrift {
        /// By so many millionths.
        ppm: f64,
    },
    /// Processes die in the next write of their logs, between write and sync: it is on disk, and nobody was told.
    CrashInWrite {
        /// They start again after this.
        restart_after: Duration,
    },
    /// Processes die in the next write of their logs, and what was not synced is lost.
    LostTail {
        /// They start again after this.
        restart_after: Duration,
    },
    /// A bit flips in each of some records on disk: of logs that at least two other nodes hold to the same end.
    BitFlip {
        /// How many records of each node.
        records: u32,
    },
    /// Disks take longer.
    SlowDisk {
        /// So many times as long.
        factor: f64,
    },
    /// Nothing more can be written.
    FullDisk,
}

names! {
    FaultKind {
        Partition => "partition",
        Crash => "crash",
        Churn => "churn",
        Degrade => "degrade",
        Slow => "slow",
        ClockJump => "clock_jump",
        ClockDrift => "clock_drift",
        CrashInWrite => "crash_in_write",
        LostTail => "lost_tail",
        BitFlip => "bit_flip",
        SlowDisk => "slow_disk",
        FullDisk => "full_disk",
    }
}

impl FaultKind {
    /// Whether it needs a disk, and so a log.
    pub const fn is_on_disk(&self) -> bool {
        match self {
            FaultKind::CrashInWrite { .. }
            | FaultKind::LostTail { .. }
            | FaultKind::BitFlip { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::FullDisk => true,
            FaultKind::Partition { .. }
            | FaultKind::Crash { .. }
            | FaultKind::Churn { .. }
            | FaultKind::Degrade { .. }
            | FaultKind::Slow { .. }
            | FaultKind::ClockJump { .. }
            | FaultKind::ClockDrift { .. } => false,
        }
    }
}

impl Fault {
    /// When it has done its worst: it ended, and those that it took down have started again. `None`: it lasts
    /// to the end of the run.
    pub fn over(&self) -> Option<Duration> {
        match self.kind {
            FaultKind::Crash { restart_after } => {
                Some(self.at.saturating_add(restart_after.unwrap_or_default()))
            }
            FaultKind::ClockJump { .. } | FaultKind::BitFlip { .. } => Some(self.at),
            FaultKind::CrashInWrite { restart_after } | FaultKind::LostTail { restart_after } => {
                self.until.map(|until| until.saturating_add(restart_after))
            }
            FaultKind::Churn { away, .. } => self.until.map(|until| until.saturating_add(away)),
            FaultKind::Partition { .. }
            | FaultKind::Degrade { .. }
            | FaultKind::Slow { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::FullDisk => self.until,
        }
    }
}

/// Nodes that misbehave: the same machines as the others, with their outputs changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Adversary {
    /// From when.
    pub at: Duration,
    /// Until when; none: to the end.
    pub until: Option<Duration>,
    /// Who.
    pub who: Who,
    /// How.
    pub kind: AdversaryKind,
}

/// How nodes misbehave. `eclipse` to `covert_flash` are named after the attacks of the gossipsub evaluation
/// (Vyzovitis et al., 2020).
#[derive(Clone, Debug, PartialEq)]
pub enum AdversaryKind {
    /// Flip a bit in every message they forward.
    Tamper,
    /// Send messages again that they have received.
    Replay {
        /// So long after they came.
        after: Duration,
    },
    /// Claim a mesh time that is ahead by this.
    Rush {
        /// How far.
        by: Duration,
    },
    /// Claim the mesh time of the moment they began, forever.
    Freeze,
    /// Claim another mesh time to each peer, within this of the true one.
    TwoFaced {
        /// How far at most, either way.
        by: Duration,
    },
    /// Publish two messages with one sequence number, each to half of their peers.
    Equivocate {
        /// Pairs in a second.
        rate_per_s: f64,
    },
    /// Publish more than anybody should.
    Flood {
        /// Messages in a second, each.
        rate_per_s: f64,
    },
    /// Publish messages under a pattern of another mesh secret, properly signed.
    Outsider {
        /// Messages in a second, each.
        rate_per_s: f64,
    },
    /// Say nothing at all.
    Silence {
        /// What they publish until then, in a second, each: who has never written is not missed.
        rate_per_s: f64,
    },
    /// Do everything but forward messages.
    NeverForward,
    /// Take all connections of the victims before honest nodes do, and forward nothing to or from them.
    Eclipse {
        /// Who is surrounded.
        victims: Victims,
    },
    /// Drop the messages of some authors.
    Censor {
        /// Whose messages.
        victims: Victims,
    },
    /// Each dials this many honest nodes, all from one address, and forwards nothing.
    Sybil {
        /// How many.
        dials: u32,
    },
    /// From the first moment of the mesh, while it forms, graft everybody and forward nothing.
    ColdBoot {
        /// How many honest nodes each dials.
        dials: u32,
    },
    /// Behave well until `at`, then all stop forwarding at once.
    CovertFlash,
    /// Write some entries, and then sign records for places in their logs that have one, as with a copied key; each is
    /// told to half of the peers.
    Fork {
        /// Records, or pairs of them, in a second, each.
        rate_per_s: f64,
    },
    /// Accuse honest nodes of what they did not do, under their own name.
    Slander {
        /// Accusations in a second, each.
        rate_per_s: f64,
    },
}

names! {
    AdversaryKind {
        Tamper => "tamper",
        Replay => "replay",
        Rush => "rush",
        Freeze => "freeze",
        TwoFaced => "two_faced",
        Equivocate => "equivocate",
        Flood => "flood",
        Outsider => "outsider",
        Silence => "silence",
        NeverForward => "never_forward",
        Eclipse => "eclipse",
        Censor => "censor",
        Sybil => "sybil",
        ColdBoot => "cold_boot",
        CovertFlash => "covert_flash",
        Fork => "fork",
        Slander => "slander",
    }
}

impl AdversaryKind {
    /// Whether it lies about the time.
    pub const fn is_on_step(&self) -> bool {
        match self {
            AdversaryKind::Rush { .. } | AdversaryKind::Freeze | AdversaryKind::TwoFaced { .. } => true,
            AdversaryKind::Tamper
            | AdversaryKind::Replay { .. }
            | AdversaryKind::Equivocate { .. }
            | AdversaryKind::Flood { .. }
            | AdversaryKind::Outsider { .. }
            | AdversaryKind::Silence { .. }
            | AdversaryKind::NeverForward
            | AdversaryKind::Eclipse { .. }
            | AdversaryKind::Censor { .. }
            | AdversaryKind::Sybil { .. }
            | AdversaryKind::ColdBoot { .. }
            | AdversaryKind::CovertFlash
            | AdversaryKind::Fork { .. }
            | AdversaryKind::Slander { .. } => false,
        }
    }
}

/// Whom an attack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// One honest node; of those who are censored, one that publishes.
    One,
    /// The authors of the workload.
    Publishers,
    /// Every honest node.
    All,
}
