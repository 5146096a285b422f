//! The shared step: how nodes without a common clock or a coordinator agree on one.
//!
//! *Mesh time* counts nanoseconds; `step = floor(mesh time / step interval)`. A [`StepClock`] keeps mesh
//! time at one node, [`StepSync`] keeps it together with the others'. Three operations do the work:
//!
//! ```text
//!  request_current_step          peers answer                reconcile_steps
//!  ─ StepRequest(nonce) ──► up to `sample_max` random ─ StepReply ─► drop the extremes, take the midpoint:
//!        every `round_interval`                                      slew · jump · hold · nothing
//!
//!  broadcast_step     StepAnnounce to all peers on joining and after a jump: "look at your clocks"
//! ```
//!
//! # A round
//! Every `round_interval` (with jitter of a quarter) a node asks random peers for their mesh time, each
//! with its own nonce. An answer counts as read in the middle of its round trip: mesh time + rtt/2, with an
//! error of up to rtt/2. The round ends when all have answered or after `sync_timeout`; one that nobody
//! answered is repeated at once, with peers drawn anew, up to `retries` times. Then the fault-tolerant
//! midpoint of Welch and Lynch (see [`fault_tolerant_midpoint`]) of the answers and the own clock decides:
//!
//! * **slew**: the difference is worked off at no more than `slew_ppm` of the time that passes, so that
//!   steps are never much shorter or longer than they should be, and no liar can push a clock faster than
//!   that;
//! * **jump** forward, if it is more than `jump_threshold`, and at least f + 1 peers and at least two (or
//!   the only one there is) are surely ahead by as much: with no more than f liars, one of them is honest;
//! * **hold**, if the node is ahead by more than the threshold, by the same rule: the clock stands until
//!   the mesh has made up the difference. Standing is the fastest way back that is not backwards; while its
//!   step is in the mesh's future nobody would accept what it says anyway. [`Event::Holding`] says so.
//!
//! # Joining
//! ```text
//!                 ┌── heard synchronised peers for `settle`: lower median of a round's answers ──┐
//!  unsynchronised ┼── after `grace`, has a saved offset: goes on with it ────────────────────────┼─► synchronised
//!                 └── after `grace`, all others are new as well, smallest id: founds ────────────┘
//! ```
//! A node that knows of others starts *unsynchronised*: it has no step and nobody follows it. It asks every
//! `join_interval`, and waits for `settle` after the first answer so that one early liar is outvoted by
//! those who answer a little later; the median stands against any minority of liars. As it has exposed no
//! step yet, any time will do, but not one before the step that an earlier run of it had exposed
//! (`not_before`): then it holds there. A liar that is all a joiner hears for `settle` does capture it.
//!
//! Several new nodes and no old one: after `grace` in company the smallest id among those that answer
//! founds the mesh with its own wall clock. Should that one keep silent, the second goes after twice the
//! time, and so on. Islands that founded apart and then meet agree by the rules for jump and hold.
//!
//! # Invariants
//! Mesh time and step never decrease. With fewer than a third liars among those asked, honest clocks move
//! only between honest clocks. Memory: [`PEERS_MAX`] peers, one round of `sample_max` requests.
//!
//! # Not here
//! Who is a member (the caller names connected members only), wall clocks, and judging liars:
//! [`Output::Outlier`] is a hint for the observer, no proof.

mod clock;
mod estimate;
mod sync;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use clock::{MESH_TIME_NS_MAX, SavedOffset, StepClock};
pub use estimate::fault_tolerant_midpoint;
pub use sync::StepSync;

use crate::control::Frame;
use crate::id::Step;
use crate::time::Time;

/// Most peers that are known at a time. Further ones are not asked and not answered (counted in
/// [`Refused::peers_full`]) until others have disconnected; the shell's limit on connections is far below.
pub const PEERS_MAX: usize = 4096;

/// Settings. The defaults follow from the step interval, see [`Config::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Length of a step; the same on all nodes of a mesh. Default 1 s. Much below the round trips between
    /// nodes, steps are shorter than clocks can agree.
    pub step_interval: Duration,
    /// Time between rounds. Default 1 s: at 200 ppm of drift clocks part by 0.2 ms in it. Higher saves
    /// messages and heals slower.
    pub round_interval: Duration,
    /// Time between rounds while not synchronised. Default 250 ms (a guess).
    pub join_interval: Duration,
    /// Most peers asked in a round. Default 16: tolerates five liars among them. More costs messages, fewer
    /// let a random sample hold too many liars more often.
    pub sample_max: usize,
    /// How long a round waits for answers. Default 500 ms, above the round trip between any two places on
    /// Earth by wire.
    pub sync_timeout: Duration,
    /// Answers that took longer are refused, as their error is half of it. Default 500 ms. Lower is more
    /// exact and excludes far peers.
    pub rtt_max: Duration,
    /// How often a round that nobody answered is repeated at once. Default 2.
    pub retries: u32,
    /// Fastest gentle correction, in millionths of the time that passes. Default 100,000 (10 %): a step
    /// lasts between 0.91 and 1.11 of its length while the clock is corrected, one second of the error is
    /// gone in ten, and five hundred times the drift of a bad quartz is outrun. Less is smoother; it must
    /// stay well above the drift.
    pub slew_ppm: u64,
    /// A difference above this is not slewed but jumped over or waited for. Default one step.
    pub jump_threshold: Duration,
    /// How long a joiner listens after the first answer of a synchronised peer. Default 1 s. Zero adopts
    /// the first round.
    pub settle: Duration,
    /// How long a node waits for synchronised peers before it relies on its saved offset or founds the
    /// mesh. Default 5 s; too short, and nodes that start together found several islands.
    pub grace: Duration,
    /// A peer off by more than this, in [`Config::outlier_rounds`] rounds on end, is reported. Default two
    /// steps.
    pub outlier: Duration,
    /// See [`Config::outlier`]. Default 3.
    pub outlier_rounds: u32,
    /// For a simulation, to see that its checkers notice: every answer counts, and one is enough.
    #[doc(hidden)]
    pub untrimmed: bool,
}

impl Config {
    /// The defaults for this length of a step.
    pub const fn new(step_interval: Duration) -> Self {
        Config {
            step_interval,
            round_interval: Duration::from_secs(1),
            join_interval: Duration::from_millis(250),
            sample_max: 16,
            sync_timeout: Duration::from_millis(500),
            rtt_max: Duration::from_millis(500),
            retries: 2,
            slew_ppm: 100_000,
            jump_threshold: step_interval,
            settle: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            outlier: step_interval.saturating_mul(2),
            outlier_rounds: 3,
            untrimmed: false,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::new(Duration::from_secs(1))
    }
}

/// What a node knows about mesh time when it starts. Wall clocks are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Knows of no other node: its wall clock becomes the mesh's time.
    Founder {
        /// The wall clock now.
        wall_ns: u64,
    },
    /// Knows of others, by bootstrap address or from an earlier run.
    Joiner {
        /// The wall clock now.
        wall_ns: u64,
        /// From an earlier run in this mesh, see [`StepSync::saved_offset`].
        saved: Option<SavedOffset>,
    },
}

/// What happens to [`StepSync`]. `P` names a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<P> {
    /// A member is connected and can be sent frames.
    Connected {
        /// The peer.
        peer: P,
    },
    /// It no longer is.
    Disconnected {
        /// The peer.
        peer: P,
    },
    /// A frame came from a connected member. Only the three `Step…` frames belong here.
    Frame {
        /// The peer.
        from: P,
        /// What it sent.
        frame: Frame,
    },
    /// A timer is due.
    Timer(Timer),
}

/// What [`StepSync`] wants to be told again, and when. Stale ones do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next round begins.
    Round(u64),
    /// The round in flight has lasted long enough.
    RoundEnd(u64),
    /// The next step begins.
    Tick(u64),
}

/// What [`StepSync`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<P> {
    /// Send a frame. If it is lost, nothing breaks.
    Send {
        /// To this peer.
        to: P,
        /// The frame.
        frame: Frame,
    },
    /// Give `timer` back at `at` or later.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
    /// The step is this now. Steps only increase; after a jump, or if the process stood still, some are
    /// left out.
    Step {
        /// The step.
        step: Step,
    },
    /// Something that people may want to know.
    Event(Event),
    /// A peer's clock was off by more than [`Config::outlier`] in several rounds on end. Said again as often
    /// as it goes on.
    Outlier {
        /// The peer.
        peer: P,
        /// How far it claims to be ahead of the mesh, in nanoseconds; negative if behind.
        by_ns: i64,
    },
}

impl<P> From<Event> for Output<P> {
    fn from(event: Event) -> Self {
        Output::Event(event)
    }
}

/// How a node came by its mesh time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It founded the mesh, with its own wall clock.
    Founded,
    /// It went on with the offset of an earlier run, as no synchronised peer answered.
    Restored,
    /// It took it from peers.
    Adopted {
        /// How many answered in the deciding round.
        samples: usize,
    },
}

/// Something that people may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node has a step now.
    Synchronised {
        /// The first.
        step: Step,
        /// Where from.
        origin: Origin,
    },
    /// It was behind and set its clock forward.
    Jumped {
        /// The last step before.
        from: Step,
        /// The first after.
        to: Step,
    },
    /// It is far ahead: its clock stands until the mesh has caught up.
    Holding {
        /// By how much, in nanoseconds.
        ahead_ns: u64,
    },
    /// Its clock goes again.
    Resumed,
    /// A round was reconciled.
    Reconciled {
        /// How many answers counted.
        samples: usize,
        /// The fault-tolerant midpoint less the own clock, in nanoseconds.
        correction_ns: i64,
        /// Distance of the extremes that were kept, in nanoseconds.
        skew_ns: u64,
    },
}

/// What a peer last claimed, as far as it was believable in form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its mesh time in nanoseconds, in its answer.
    pub mesh_time_ns: u64,
    /// When the answer came.
    pub at: Time,
    /// How long the answer took.
    pub rtt: Duration,
}

/// How often frames were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// From a peer that is not connected.
    pub not_connected: u64,
    /// A reply from a peer that was not asked in this round. A few are normal: replies that came too late.
    pub unasked: u64,
    /// A reply with another nonce than the request's.
    pub wrong_nonce: u64,
    /// A second reply to one request.
    pub duplicate: u64,
    /// A reply that took longer than [`Config::rtt_max`].
    pub slow: u64,
    /// A time beyond [`MESH_TIME_NS_MAX`].
    pub absurd: u64,
    /// A frame that does not belong here.
    pub foreign: u64,
    /// A connected peer beyond [`PEERS_MAX`].
    pub peers_full: u64,
}

/// The state in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// The step; `None` while not synchronised.
    pub step: Option<Step>,
    /// Mesh time in nanoseconds; `None` while not synchronised.
    pub mesh_time_ns: Option<u64>,
    /// Mesh time less the node's wall clock as it was at the start, in milliseconds.
    pub offset_ms: Option<f64>,
    /// Spread of the clocks that were kept in the last round, in milliseconds.
    pub skew_ms: f64,
    /// How many answers counted in the last round.
    pub samples: usize,
    /// Rounds ended so far.
    pub rounds: u64,
    /// Jumps forward so far.
    pub jumps: u64,
    /// True while the clock stands because it is far ahead.
    pub holding: bool,
    /// What was refused.
    pub refused: Refused,
}
