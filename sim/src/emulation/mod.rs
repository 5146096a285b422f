//! The engine `libp2p`: the real node, on real libp2p swarms, many of them in this process.
//!
//! ```text
//!   Scenario ─► Plan (who dials whom, who publishes) ─► EmulatedNetwork ─► deliveries, counters ─► Outcome
//!            └► LinkModel (latency, jitter, loss, bandwidth) ─► links ┘
//! ```
//!
//! It is there to check the model: connections, authors, links and checks are those of the engine
//! [`model`](crate::model), by the same code; what differs is all that the model leaves out: Noise and Yamux, actors
//! and their mailboxes, queues, threads, and time itself. The nodes live in *slow time* ([`slowdown`]), so that the
//! links and not the processor say how long things take.
//!
//! **Not repeatable.** Real time and the randomness of the nodes are in it. The trace hash is that of what was
//! delivered to whom, without times.
//!
//! **Not here.** Faults and adversaries, frames that overtake each other or come twice, clocks that are wrong,
//! membership. [`Scenario::problems_of_libp2p`] says which of a scenario's settings are meant.

mod law;
mod run;

use std::num::NonZeroU32;
use std::time::Duration;

pub use run::run;

use crate::model::link::LinkModel;
use crate::scenario::{Scenario, Topology};

/// CPU for one copy of a message, from one node to another. Source: measured, with Noise.
const PER_COPY: Duration = Duration::from_micros(100);
/// CPU for a question about the time and its answer. Source: measured.
const PER_QUESTION: Duration = Duration::from_micros(200);
/// Part of the processor that the nodes may keep busy on average.
const BUSY_MAX: f64 = 0.2;
/// How many times longer than its share of the processor a message must take over the links. Source: measured; with
/// fewer, latencies of 200 and of 1,000 nodes still fall when time is made slower.
const BURST_FACTOR: f64 = 12.0;
/// Hops that a message takes, about: what matters is when most nodes get it.
const HOPS: f64 = 4.0;
/// A second of the nodes is never longer than this many real ones; a mesh of thousands needs a larger machine.
const SLOWDOWN_MAX: f64 = 100.0;

/// How many times slower than real time the nodes of a scenario live on a machine with so many threads.
///
/// Slow enough that a first message, which floods the mesh, keeps the processor busy for a small part of the time that
/// it takes over the links, and that all that goes on in a second is a small part of what the processor can do.
pub fn slowdown(scenario: &Scenario, threads: usize) -> NonZeroU32 {
    let nodes = f64::from(scenario.network.nodes);
    let threads = threads.max(1) as f64;
    let copies = nodes * (scenario.gossip.mesh_degree as f64 + 1.0);
    let flood = copies * PER_COPY.as_secs_f64() / threads;
    let way = HOPS * mean_latency(scenario).as_secs_f64();
    let burst = BURST_FACTOR * flood / way.max(1e-3);
    let asked = nodes * scenario.network.sync_peers as f64;
    let questions = asked / scenario.network.sync_interval.as_secs_f64().max(1e-3);
    let steady = scenario.workload.rate_per_s * flood + questions * PER_QUESTION.as_secs_f64() / threads;
    let slowdown = burst.max(steady / BUSY_MAX).ceil().clamp(1.0, SLOWDOWN_MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the most")]
    NonZeroU32::new(slowdown as u32).unwrap_or(NonZeroU32::MIN)
}

/// Over some pairs of nodes.
fn mean_latency(scenario: &Scenario) -> Duration {
    let plan = crate::model::plan::Plan::new(&Scenario {
        network: crate::scenario::Network {
            topology: Topology::Ring { neighbours: 1 },
            ..scenario.network.clone()
        },
        ..scenario.clone()
    });
    let links = LinkModel::new(scenario.links.clone(), scenario.seed, plan.regions);
    let pairs = plan.links.iter().take(1_000);
    let (sum, count) = pairs.fold((0, 0), |(sum, count), (a, b)| (sum + links.latency(*a, *b), count + 1));
    Duration::from_nanos(sum / u64::from(count.max(1_u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_work_and_shorter_links_make_time_slower() {
        let mut scenario = Scenario::default();
        scenario.network.nodes = 200;
        let usual = slowdown(&scenario, 2);
        assert!((2..=10).contains(&usual.get()), "{usual}");
        assert!(slowdown(&scenario, 1) > usual);
        scenario.links.latency = crate::scenario::Latency::Constant(Duration::from_millis(5));
        assert!(slowdown(&scenario, 2) > usual);
        scenario.network.nodes = 2;
        scenario.links.latency = crate::scenario::Latency::Constant(Duration::from_millis(500));
        scenario.workload.rate_per_s = 1.0;
        assert_eq!(slowdown(&scenario, 2).get(), 1);
    }
}
