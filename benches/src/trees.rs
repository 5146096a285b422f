//! Tree mode of OmniMesh's router beside iroh-gossip, each in its own simulator.
//!
//! Both are Plumtree (Leitão, Pereira and Rodrigues, 2007) over connections of their own choice: iroh-gossip's are
//! those of HyParView, five for each node; OmniMesh's are its gossipsub mesh. The world is the same: links whose
//! one-way latency is drawn once from U(10, 50) ms, no loss, no time for computing, one sender, one message in a
//! round, and a second of rest after it. After some rounds a tenth of the nodes crashes, all at once and just before
//! the next message; their neighbours see the connections close, one latency later.
//!
//! ```text
//!   rounds:  1 2 3 | 4 …………………… 30 | 31 | 32 33 … 40
//!            build   steady          ↑ a tenth has just crashed; then the trees mend
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use iroh_gossip::proto::Config as TheirConfig;
use iroh_gossip::proto::sim::{
    BootstrapMode, LatencyConfig, NetworkConfig, RoundStats, Simulator, SimulatorConfig,
};
use omnimesh_protocol::gossip::Config as OurConfig;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::outcome::Outcome as Ran;
use omnimesh_sim::scenario::{Crypto, Fault, FaultKind, Latency, Scenario, Topology, Who};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::Serialize;

use crate::Outcome;
use crate::stats::Spread;

/// One-way latencies of links, in milliseconds.
const LATENCY_MS: (u64, u64) = (10, 50);
/// Rounds in which trees are built; what comes after them is steady.
const BUILDING: usize = 3;
/// Rounds after the crash.
const AFTER: usize = 10;
/// Rounds after the crash from which on the trees are whole again.
const MENDED: usize = 3;
/// From the start to the first message: meshes are formed by then.
const SETTLE: Duration = Duration::from_secs(5);
/// Between messages.
const REST: Duration = Duration::from_secs(1);
/// How the other side's nodes join. By its default all join at one, whose crowd shows in the trees long after; the
/// kinder way has ten who are there first.
const JOINING: [(&str, BootstrapMode); 2] = [
    ("iroh-gossip, all joined at one", BootstrapMode::Single),
    ("iroh-gossip, joined at ten", BootstrapMode::Set { count: 10 }),
];

/// What of trees is compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct TreesArgs {
    /// Numbers of simulated nodes.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    tree_nodes: Vec<u32>,
    /// Degrees of OmniMesh's mesh that are tried.
    #[arg(long, value_delimiter = ',', default_value = "6,12")]
    tree_degrees: Vec<usize>,
    /// Seeds; each gives a run of both.
    #[arg(long, default_value_t = 3)]
    tree_seeds: u64,
    /// Rounds before the crash.
    #[arg(long, default_value_t = 30)]
    tree_rounds: usize,
    /// Nodes of a hundred that crash.
    #[arg(long, default_value_t = 10)]
    crash_percent: u32,
}

/// Both sides at one size.
#[derive(Debug, Serialize)]
pub(crate) struct Trees {
    /// Simulated nodes.
    pub(crate) nodes: u32,
    /// The sides, OmniMesh first.
    pub(crate) sides: Vec<Side>,
}

/// One side.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    /// Its name.
    pub(crate) name: String,
    /// Its phases, in order.
    pub(crate) phases: Vec<Phase>,
}

/// Some rounds of all seeds.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    /// Which.
    pub(crate) name: &'static str,
    /// Copies for each receiver beyond the first; the means of the seeds.
    pub(crate) rmr: Spread,
    /// Hops to the last receiver; the largest of each seed.
    pub(crate) ldh: Spread,
    /// Until the last receiver has the message, in milliseconds; the means of the seeds.
    pub(crate) ms: Spread,
    /// Receivers that did not get a message, in all seeds together.
    pub(crate) missed: u64,
}

/// A message on its way to all.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    rmr: f64,
    ldh: f64,
    ms: f64,
    missed: u64,
}

/// Runs both sides at each size.
pub(crate) fn compare(args: &TreesArgs) -> Outcome<Vec<Trees>> {
    let at_size = |nodes: u32| {
        let crashed = (u64::from(nodes) * u64::from(args.crash_percent) / 100) as usize;
        let mut sides = Vec::new();
        for degree in &args.tree_degrees {
            let runs = (0..args.tree_seeds).map(|seed| ours(nodes, *degree, seed, args.tree_rounds, crashed));
            sides.push(side(format!("OmniMesh, degree {degree}"), &runs.collect::<Outcome<Vec<_>>>()?, args));
        }
        for (name, joining) in &JOINING {
            let run = |seed| theirs(nodes, joining, seed, args.tree_rounds, crashed);
            sides.push(side((*name).to_owned(), &(0..args.tree_seeds).map(run).collect::<Vec<_>>(), args));
        }
        Ok(Trees { nodes, sides })
    };
    args.tree_nodes.iter().map(|nodes| at_size(*nodes)).collect()
}

fn side(name: String, runs: &[Vec<Round>], args: &TreesArgs) -> Side {
    let crash = args.tree_rounds;
    let phases = [
        ("the first", 0..1),
        ("all before the crash", 0..crash),
        ("of these, steady: from the fourth on", BUILDING.min(crash)..crash),
        ("the first after the crash", crash..crash + 1),
        ("the second after it", crash + 1..crash + 2),
        ("the third after it", crash + 2..crash + MENDED),
        ("the fourth to the tenth after it", crash + MENDED..crash + AFTER),
    ];
    let phases = phases.into_iter().map(|(name, span)| {
        let parts: Vec<&[Round]> = runs.iter().filter_map(|run| run.get(span.clone())).collect();
        let over = |of: &dyn Fn(&[Round]) -> f64| Spread::of(parts.iter().map(|part| of(part)).collect());
        Phase {
            name,
            rmr: over(&|part| mean(part, |round| round.rmr)),
            ldh: over(&|part| part.iter().map(|round| round.ldh).fold(0.0, f64::max)),
            ms: over(&|part| mean(part, |round| round.ms)),
            missed: parts.iter().copied().flatten().map(|round| round.missed).sum(),
        }
    });
    Side { name, phases: phases.collect() }
}

#[expect(clippy::cast_precision_loss, reason = "few rounds")]
fn mean(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    rounds.iter().map(of).sum::<f64>() / rounds.len().max(1) as f64
}

/// Some of these nodes, at random.
fn chosen<T>(mut from: Vec<T>, count: usize, seed: u64) -> Vec<T> {
    from.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    from.truncate(count);
    from
}

// --- OmniMesh ------------------------------------------------------------------------------------------------

fn ours(nodes: u32, degree: usize, seed: u64, before: usize, crashed: usize) -> Outcome<Vec<Round>> {
    let mut scenario = scenario(nodes, degree, seed, 1)?;
    let run = |scenario: &Scenario| model::run(scenario, Options::default());
    // Who is the author follows from the seed.
    let author = run(&scenario).messages.first().ok_or("nothing was published")?.author;
    scenario = self::scenario(nodes, degree, seed, before + AFTER)?;
    let others = (0..nodes).filter(|node| *node != author).collect();
    scenario.faults.push(Fault {
        // Faults come before the messages of the same moment.
        at: SETTLE + REST * u32::try_from(before)?,
        until: None,
        who: Who::Nodes(chosen(others, crashed, seed)),
        kind: FaultKind::Crash { restart_after: None },
    });
    let ran = run(&scenario);
    let effective: u64 = ran.faults.iter().map(|fault| fault.effective).sum();
    if effective != crashed as u64 || ran.messages.len() != before + AFTER {
        return Err(format!("{effective} crashed, {} messages", ran.messages.len()).into());
    }
    let living = |number| if number < before { nodes as usize } else { nodes as usize - crashed };
    Ok((0..before + AFTER).map(|number| our_round(&ran, number, living(number))).collect())
}

fn scenario(nodes: u32, degree: usize, seed: u64, messages: usize) -> Outcome<Scenario> {
    let mut scenario = Scenario { seed, crypto: Crypto::Skip, checks: Vec::new(), ..Scenario::default() };
    scenario.network.nodes = nodes;
    scenario.network.topology = Topology::Random { dials: u32::try_from(degree)? };
    scenario.network.step_sync = false;
    let (min, max) = LATENCY_MS;
    let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
    (scenario.links.latency, scenario.links.jitter) = (Latency::Uniform { min, max }, 0.0);
    scenario.gossip = OurConfig {
        mesh_degree: degree,
        mesh_degree_low: degree - 1,
        mesh_degree_high: degree + degree / 2,
        ..OurConfig::default()
    };
    let messages = u32::try_from(messages)?;
    scenario.workload.start = SETTLE;
    (scenario.workload.messages, scenario.workload.rate_per_s) = (messages, 1.0 / REST.as_secs_f64());
    scenario.workload.authors = Some(1);
    scenario.duration = SETTLE + REST * messages;
    Ok(scenario)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn our_round(ran: &Ran, number: usize, living: usize) -> Round {
    let got = ran.deliveries.get(number).map_or(&[][..], Vec::as_slice);
    let copies = ran.copies.get(number).copied().unwrap_or(0);
    Round {
        rmr: f64::from(copies) / got.len().max(1) as f64 - 1.0,
        ldh: got.iter().map(|delivery| f64::from(delivery.hops)).fold(0.0, f64::max),
        ms: got.iter().map(|delivery| f64::from(delivery.latency_us) / 1e3).fold(0.0, f64::max),
        missed: (living - 1).saturating_sub(got.len()) as u64,
    }
}

// --- iroh-gossip ---------------------------------------------------------------------------------------------

fn theirs(nodes: u32, joining: &BootstrapMode, seed: u64, before: usize, crashed: usize) -> Vec<Round> {
    let config = SimulatorConfig { rng_seed: seed, peers: nodes as usize, ..SimulatorConfig::default() };
    let latency = LatencyConfig::random_ms(LATENCY_MS.0, LATENCY_MS.1);
    let mut simulator = Simulator::new(config, NetworkConfig { latency, proto: TheirConfig::default() });
    simulator.bootstrap(joining.clone());
    simulator.network.run_duration(SETTLE);
    let author = simulator.random_peer();
    let (mut rounds, mut sum) = (Vec::new(), RoundStats::default());
    for number in 0..before + AFTER {
        if number == before {
            let others = simulator.network.peer_ids().filter(|peer| *peer != author).collect();
            for peer in BTreeSet::from_iter(chosen(others, crashed, seed)) {
                simulator.network.remove(&peer);
            }
        }
        simulator.gossip_round(vec![(author, format!("m{number}").into_bytes().into())]);
        // It tells only the mean of all rounds so far.
        let count = u16::try_from(number + 1).unwrap_or(u16::MAX);
        let mean = simulator.round_stats_average().mean;
        let all = RoundStats {
            duration: mean.duration * u32::from(count),
            rmr: mean.rmr * f32::from(count),
            ldh: mean.ldh * f32::from(count),
            missed: mean.missed * f32::from(count),
        };
        rounds.push(their_round(&sum, &all));
        sum = all;
        // What comes late must not be taken for a part of the next round.
        simulator.network.run_duration(REST);
        drop(simulator.network.events());
    }
    rounds
}

/// The round by which two sums differ.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of nodes")]
fn their_round(before: &RoundStats, after: &RoundStats) -> Round {
    Round {
        rmr: f64::from(after.rmr - before.rmr),
        ldh: f64::from(after.ldh - before.ldh).round(),
        ms: after.duration.saturating_sub(before.duration).as_secs_f64() * 1e3,
        missed: f64::from(after.missed - before.missed).round() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_meshes_deliver_everything_on_both_sides() {
        let (nodes, rounds, crashed) = (50, 6, 5);
        let theirs = theirs(nodes, &JOINING[1].1, 1, rounds, crashed);
        for run in [ours(nodes, 6, 1, rounds, crashed).unwrap(), theirs] {
            println!("seed 1: {run:?}");
            assert_eq!(run.len(), rounds + AFTER);
            assert!(run.iter().all(|round| round.ldh >= 2.0 && round.ms >= 20.0));
            assert!(run[0].rmr > 0.5, "the first message goes over more links than a tree has");
            assert!(run[rounds - 1].rmr < 0.3, "the last before the crash goes over a tree");
            assert_eq!(run[..rounds].iter().map(|round| round.missed).sum::<u64>(), 0);
        }
    }
}
