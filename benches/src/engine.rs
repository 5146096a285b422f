//! The simulator's engine `model`, against a bare event loop.
//!
//! The bare loop does what every discrete-event simulation must: it takes the earliest event from a binary heap,
//! touches the memory of the node that it is for, and puts another event in. Its heap is as long as the engine's
//! queue was on average, its nodes are as many and as large as the engine's, and for each event it touches as many
//! lines of memory as miss the cache in the engine. What the engine takes beyond that is the protocol.
//!
//! Both run on one thread, in turns; each turn gives a ratio.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Args;
use omnimesh_sim::model::{self, Options, Progress};
use omnimesh_sim::scenario::{Override, ScenarioFile};
use serde::Serialize;

use crate::Outcome;
use crate::stats::Spread;

/// The scenario that is run, with other numbers of nodes.
const SCENARIO: &str = "mesh-10k";
/// (from so many nodes, lines of memory): what the engine touches for an event and does not find in a cache of
/// 2 MiB. Counted by callgrind at these sizes (see `docs/performance.md`), not by this program; larger meshes miss more.
const TOUCHES: [(u32, u64); 2] = [(0, 20), (4_000, 27)];
/// Events of a turn of the bare loop: it needs no more to show what one costs.
const BARE_EVENTS_MAX: u64 = 1_000_000;
/// Bytes of a line.
const LINE_BYTES: u64 = 64;
/// Latencies of the bare loop are those of the scenario, in nanoseconds.
const LATENCY_NS: std::ops::Range<u64> = 10_000_000..100_000_000;

/// What of the engine is measured, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// Numbers of simulated nodes.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    engine_nodes: Vec<u32>,
    /// Turns of the engine and of the bare event loop.
    #[arg(long, default_value_t = 3)]
    engine_rounds: usize,
    /// Lines of memory that the bare loop touches for each event, instead of as many as were counted.
    #[arg(long)]
    touches: Option<u64>,
}

/// The engine and the bare loop, at one size.
#[derive(Debug, Serialize)]
pub(crate) struct Engine {
    /// Simulated nodes.
    pub(crate) nodes: u32,
    /// Events of one run of the engine.
    pub(crate) events: u64,
    /// Events that waited, on average; the length of the bare loop's heap.
    pub(crate) queue: u64,
    /// Memory of a node.
    pub(crate) bytes_per_node: u64,
    /// Lines of memory touched for an event by the bare loop.
    pub(crate) touches: u64,
    /// Nanoseconds for an event in the engine.
    pub(crate) engine_ns: Spread,
    /// The same in the bare loop.
    pub(crate) bare_ns: Spread,
    /// The same, if each touch waits for the one before.
    pub(crate) chained_ns: Spread,
    /// How many times as long the engine takes as the bare loop.
    pub(crate) ratio: Spread,
    /// The same of the loop whose touches wait for each other.
    pub(crate) chained_ratio: Spread,
}

/// Measures the engine at each size.
pub(crate) fn measure(args: &EngineArgs) -> Outcome<Vec<Engine>> {
    args.engine_nodes.iter().map(|nodes| at_size(*nodes, args)).collect()
}

fn at_size(nodes: u32, args: &EngineArgs) -> Outcome<Engine> {
    let set = |key: &str, value: u32| Override::new(key, value, "the bench");
    let overrides = [
        Override::new("crypto", "skip", "the bench"),
        set("network.nodes", nodes),
        set("duration_ms", 20_000),
        set("network.sync_interval_ms", 1_000),
        set("workload.messages", 20),
        set("workload.authors", nodes),
    ];
    let file = ScenarioFile::load(SCENARIO, &overrides)?;
    // The first run warms up, and tells what the bare loop is to be like.
    let first = run(&file);
    let events = first.events.min(BARE_EVENTS_MAX);
    let counted = TOUCHES.iter().rfind(|(from, _)| nodes >= *from).map_or(0, |(_, touches)| *touches);
    let touches = args.touches.unwrap_or(counted);
    let mut bare = Bare::new(nodes, first.queue, first.bytes_per_node);
    let [mut engine_ns, mut bare_ns, mut chained_ns] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..args.engine_rounds {
        engine_ns.push(run(&file).ns());
        bare_ns.push(bare.run(events, touches, false));
        chained_ns.push(bare.run(events, touches, true));
    }
    let ratios = |to: &[f64]| Spread::of(engine_ns.iter().zip(to).map(|(engine, to)| engine / to).collect());
    Ok(Engine {
        nodes,
        events: first.events,
        queue: first.queue,
        bytes_per_node: first.bytes_per_node,
        touches,
        ratio: ratios(&bare_ns),
        chained_ratio: ratios(&chained_ns),
        engine_ns: Spread::of(engine_ns),
        bare_ns: Spread::of(bare_ns),
        chained_ns: Spread::of(chained_ns),
    })
}

/// A run of the engine.
struct Run {
    events: u64,
    wall: Duration,
    queue: u64,
    bytes_per_node: u64,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    fn ns(&self) -> f64 {
        self.wall.as_nanos() as f64 / self.events.max(1) as f64
    }
}

fn run(file: &ScenarioFile) -> Run {
    let (mut pending, mut looks) = (0, 0);
    let mut look = |progress: Progress| {
        pending += progress.pending as u64;
        looks += 1;
    };
    let outcome = model::run(&file.scenario, Options { threads: 1, progress: Some(&mut look) });
    Run {
        events: outcome.events,
        wall: outcome.cost.wall,
        queue: pending / looks.max(1),
        bytes_per_node: outcome.bytes_per_node,
    }
}

/// The bare event loop.
struct Bare {
    /// (when, to which node).
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    nodes: u32,
    lines_per_node: u64,
    memory: Vec<Line>,
    draws: u64,
}

/// A line of memory.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line(u64);

impl Bare {
    fn new(nodes: u32, length: u64, bytes_per_node: u64) -> Self {
        let lines_per_node = (bytes_per_node / LINE_BYTES).max(1);
        let lines = usize::try_from(u64::from(nodes) * lines_per_node).expect("it fits into memory");
        let memory = vec![Line::default(); lines];
        let mut bare = Bare { heap: BinaryHeap::new(), nodes, lines_per_node, memory, draws: 0 };
        for _ in 0..length.max(1) {
            bare.push(0);
        }
        bare
    }

    fn push(&mut self, now: u64) {
        self.draws += 1;
        let draw = mix(self.draws);
        let latency = LATENCY_NS.start + draw % (LATENCY_NS.end - LATENCY_NS.start);
        let node = ((draw >> 32) * u64::from(self.nodes)) >> 32;
        self.heap.push(Reverse((now + latency, node as u32)));
    }

    /// Works events off; nanoseconds for each. `chained`: where the next touch goes depends on what the last read.
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    fn run(&mut self, events: u64, touches: u64, chained: bool) -> f64 {
        let begin = Instant::now();
        for _ in 0..events {
            let Some(Reverse((now, node))) = self.heap.pop() else { break };
            let first = u64::from(node) * self.lines_per_node;
            let mut read = 0;
            for touch in 0..touches {
                let salt = if chained { read } else { 0 };
                // Nothing is ever written but zero, which the compiler cannot know.
                let line = first + mix(now ^ touch << 56 ^ salt) % self.lines_per_node;
                if let Some(line) = usize::try_from(line).ok().and_then(|line| self.memory.get_mut(line)) {
                    read = line.0;
                    line.0 = black_box(0);
                }
            }
            black_box(read);
            self.push(now);
        }
        begin.elapsed().as_nanos() as f64 / events.max(1) as f64
    }
}

/// The finaliser of `splitmix64`.
const fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_loop_keeps_its_length_and_its_time_goes_on() {
        let mut bare = Bare::new(10, 50, 1_000);
        assert_eq!((bare.heap.len(), bare.memory.len()), (50, 150));
        let earliest = |bare: &Bare| bare.heap.peek().map(|Reverse((at, _))| *at);
        let before = earliest(&bare);
        bare.run(1_000, 3, true);
        assert_eq!(bare.heap.len(), 50);
        assert!(earliest(&bare) > before);
    }
}
