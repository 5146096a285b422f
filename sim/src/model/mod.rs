//! The engine `model`: a discrete-event simulation in virtual time.
//!
//! Every node is the protocol's own machines, as in the node: the relay with its gossip router and validator, the
//! author, step synchronisation and, if the scenario wants it, membership. What is modelled is the world around
//! them: links, clocks, crashes, and what adversaries make of what they would have said.
//!
//! ```text
//!            windows as long as the least latency
//!  ├────────┼────────┼────────┼────────┤  virtual time
//!   shard 0: its nodes' events, node by node ──┐ frames arrive in later windows,
//!   shard 1: its nodes' events, node by node ──┘ so shards run at the same time
//!            │ between windows: starts, deaths, links, faults, the workload, samples
//! ```
//!
//! **Repeatable.** Events of a node are ordered by time, sender, and the sender's count; each node has its own
//! randomness, and so has each frame. The same scenario gives the same run on any number of threads: each
//! node hashes what happens to it, and the hash of all is the run's.
//!
//! **Not here.** Dialling: connections are those of the scenario's topology, and are made again after a crash
//! or a partition. Time for computing, but for nodes that a scenario makes slow.

mod checked;
mod clock;
mod compute;
mod compute_facts;
mod compute_jobs;
mod compute_list;
mod conclude;
mod disk;
mod happening;
pub(crate) mod link;
mod log;
mod log_chains;
mod log_checkpoint;
mod log_facts;
mod log_work;
mod mischief;
mod node;
mod observer;
mod packet;
mod person;
pub(crate) mod plan;
mod queue;
mod random;
pub(crate) mod record;
mod shard;
mod shared;
mod world;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

pub use happening::{Happened, Happening, Machine, Watched};

use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// How often the state of the mesh is looked at.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// How a run is made; nothing of it changes the outcome.
#[derive(Default)]
pub struct Options<'a> {
    /// Threads that work; 0: one for each core.
    pub threads: usize,
    /// Told now and then how far it is.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where virtual time is.
    pub virtual_time: Duration,
    /// Where it ends.
    pub duration: Duration,
    /// Events worked off.
    pub events: u64,
    /// Events that wait.
    pub pending: usize,
}

/// Runs a scenario.
///
/// # Panics
/// If the scenario cannot be: no nodes, or settings that the router refuses.
pub fn run(scenario: &Scenario, options: Options<'_>) -> Outcome {
    watch(scenario, options, Duration::ZERO..Duration::ZERO).outcome
}

/// Runs a scenario and records what happens to each node within a span of virtual time: some 32 bytes for each
/// event. The run itself is the same as ever.
///
/// # Panics
/// As [`run`].
pub fn watch(scenario: &Scenario, mut options: Options<'_>, span: Range<Duration>) -> Watched {
    assert!(scenario.network.nodes > 0, "a mesh has nodes");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if options.threads == 0 { cores } else { options.threads };
    // One thread needs no pool; and one who runs many scenarios on a pool of his own would find its threads
    // taking up one run while they wait for another, without end.
    let pool = (threads > 1).then(|| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
    });
    world::World::new(scenario, pool.as_ref(), &span).run(&mut options)
}
