//! A small mesh under everything at once: faults and adversaries are drawn from the seed, the checkers judge.
//!
//! `OMNIMESH_SIM_SEEDS=5000` runs more seeds; `OMNIMESH_SIM_SEED=17` runs one, and tells what it does.

use std::collections::BTreeSet;
use std::time::Duration;

use omnimesh_sim::checkers::{Checked, check};
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{
    Adversary, AdversaryKind, Check, Fault, FaultKind, Latency, Repair, Scenario, Topology, Victims, Who,
};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rayon::prelude::*;

const SEEDS: u64 = 1000;
/// What needs a log is drawn by `log.rs`; who is accused by a liar is a matter of observers, in `detection.rs`.
const ELSEWHERE: [&str; 7] =
    ["crash_in_write", "lost_tail", "bit_flip", "slow_disk", "full_disk", "fork", "slander"];
/// Faults and attacks end here; afterwards everything must come right again.
const CALM_S: u64 = 24;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A mesh of the smallest size that can stand a third of liars with room to choose, and what goes wrong in it.
fn scenario(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario { name: "seed".into(), seed, duration: secs(42), ..Scenario::default() };
    let network = &mut scenario.network;
    network.nodes = rng.random_range(12..=20);
    network.topology = Topology::Random { dials: rng.random_range(4..=5) };
    network.clock_drift_ppm = rng.random_range(0.0..200.0);
    network.clock_offset = Duration::from_millis(rng.random_range(0..5_000));
    network.silence = secs(6);
    network.membership = rng.random_bool(0.25);
    let links = &mut scenario.links;
    links.latency = match rng.random_range(0..3) {
        0 => Latency::Constant(Duration::from_millis(rng.random_range(5..80))),
        1 => Latency::Uniform { min: Duration::from_millis(5), max: Duration::from_millis(120) },
        _ => Latency::LogNormal {
            median: Duration::from_millis(30),
            sigma: 0.6,
            max: Duration::from_millis(200),
        },
    };
    links.jitter = rng.random_range(0.0..0.5);
    links.loss = *[0.0, 0.0, 0.01, 0.05].choose(&mut rng).expect("not empty");
    links.loss_burst = rng.random_range(1.0..4.0);
    links.repair = Repair::Retransmit;
    links.duplication = *[0.0, 0.0, 0.01].choose(&mut rng).expect("not empty");
    links.reordering = *[0.0, 0.0, 0.05].choose(&mut rng).expect("not empty");
    if rng.random_bool(0.5) {
        scenario.gossip.tree = None;
    }
    if rng.random_bool(0.3) {
        // What is forgotten as soon as nobody tells of it any more is met again by the replay windows.
        scenario.gossip.seen_ttl = secs(5);
    }
    scenario.workload.start = secs(9);
    scenario.workload.messages = 24;
    scenario.workload.rate_per_s = 1.0;
    for _ in 0..rng.random_range(1..=2) {
        scenario.faults.push(fault(&mut rng));
    }
    for _ in 0..rng.random_range(0..=3) {
        let adversary = adversary(&mut rng);
        // A third of somebody's neighbours is more than any clock can stand, and who has just started can be
        // taken in by one liar that he hears first.
        let restarts =
            |fault: &Fault| matches!(fault.kind, FaultKind::Crash { .. } | FaultKind::Churn { .. });
        let is_too_much = scenario.adversaries.iter().any(|other| other.kind.is_on_step())
            || scenario.faults.iter().any(restarts);
        if !(adversary.kind.is_on_step() && is_too_much) {
            scenario.adversaries.push(adversary);
        }
    }
    scenario.checks = vec![
        Check::Agreement { within: secs(1) },
        Check::Monotone,
        Check::Authentic,
        Check::Delivery { ratio: 0.9 },
        Check::Convergence { steps: 15 },
        Check::NoFalseQuarantine,
    ];
    scenario
}

fn fault(rng: &mut ChaCha8Rng) -> Fault {
    let (at, until) = (secs(rng.random_range(10..16)), secs(rng.random_range(18..=CALM_S)));
    let who = Who::Share(rng.random_range(0.1..0.5));
    let kind = match rng.random_range(0..7) {
        0 => FaultKind::Partition { one_way: rng.random_bool(0.3) },
        1 => FaultKind::Crash { restart_after: Some(secs(rng.random_range(1..8))) },
        2 => FaultKind::Churn { per_s: 1.0, away: secs(rng.random_range(1..5)) },
        3 => FaultKind::Degrade {
            loss: rng.random_range(0.0..0.2),
            latency_factor: rng.random_range(1.0..3.0),
        },
        4 => FaultKind::Slow { frame_time: Duration::from_millis(rng.random_range(1..5)) },
        5 => FaultKind::ClockJump { by: Duration::from_millis(rng.random_range(100..1_500)) },
        _ => FaultKind::ClockDrift { ppm: rng.random_range(-500.0..500.0) },
    };
    // A minority: those who are right must be able to outvote the others.
    let who = match kind {
        FaultKind::ClockJump { .. } | FaultKind::ClockDrift { .. } => Who::Share(0.15),
        _ => who,
    };
    Fault { at, until: Some(until), who, kind }
}

fn adversary(rng: &mut ChaCha8Rng) -> Adversary {
    let kind = match rng.random_range(0..15) {
        0 => AdversaryKind::Tamper,
        1 => AdversaryKind::Replay { after: Duration::from_millis(rng.random_range(100..2_500)) },
        2 => AdversaryKind::Rush { by: Duration::from_millis(rng.random_range(500..1_000_000)) },
        3 => AdversaryKind::Freeze,
        4 => AdversaryKind::TwoFaced { by: Duration::from_millis(rng.random_range(500..100_000)) },
        5 => AdversaryKind::Equivocate { rate_per_s: 1.0 },
        6 => AdversaryKind::Flood { rate_per_s: 10.0 },
        7 => AdversaryKind::Outsider { rate_per_s: 2.0 },
        8 => AdversaryKind::Silence { rate_per_s: 0.0 },
        9 => AdversaryKind::NeverForward,
        10 => AdversaryKind::Eclipse { victims: Victims::One },
        11 => AdversaryKind::Censor { victims: Victims::Publishers },
        12 => AdversaryKind::Sybil { dials: 8 },
        13 => AdversaryKind::ColdBoot { dials: 8 },
        _ => AdversaryKind::CovertFlash,
    };
    Adversary { at: secs(10), until: Some(secs(CALM_S)), who: Who::Count(1), kind }
}

/// What the checkers find wrong with a seed.
fn failures(scenario: &Scenario) -> Vec<String> {
    let run = || model::run(scenario, Options { threads: 1, ..Options::default() });
    let Ok(outcome) = std::panic::catch_unwind(run) else {
        return vec!["an invariant is broken, see above".into()];
    };
    if setting("OMNIMESH_SIM_SEED").is_some() {
        for sample in &outcome.samples {
            println!("{sample:?}");
        }
    }
    // Not every adversary finds something to do in so small a mesh; in the scenarios that are shipped each must.
    let is_wrong = |checked: &Checked| !checked.ok && checked.name != "faults_took_effect";
    let failed = check(scenario, &outcome).into_iter().filter(is_wrong);
    failed.map(|checked| format!("{}: {}", checked.name, checked.detail)).collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_kind_is_drawn() {
    let drawn: Vec<Scenario> = (1..=SEEDS).map(scenario).collect();
    let faults = drawn.iter().flat_map(|of| of.faults.iter().map(|fault| fault.kind.name()));
    let adversaries = drawn.iter().flat_map(|of| of.adversaries.iter().map(|liar| liar.kind.name()));
    let drawn: BTreeSet<&str> = faults.chain(adversaries).chain(ELSEWHERE).collect();
    let missing: Vec<_> =
        FaultKind::NAMES.iter().chain(AdversaryKind::NAMES).filter(|name| !drawn.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?} are never drawn: an arm, and a range that reaches it");
}

#[test]
fn every_seed_comes_right() {
    let seeds: Vec<u64> = match setting("OMNIMESH_SIM_SEED") {
        Some(seed) => {
            println!("{:#?}", scenario(seed));
            vec![seed]
        }
        None => (1..=setting("OMNIMESH_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let wrong: Vec<(u64, Vec<String>)> = seeds
        .par_iter()
        .map(|seed| (*seed, failures(&scenario(*seed))))
        .filter(|(_, failures)| !failures.is_empty())
        .collect();
    for (seed, failures) in &wrong {
        println!(
            "seed {seed}: OMNIMESH_SIM_SEED={seed} cargo test -p omnimesh-sim --test seeds -- --nocapture"
        );
        for failure in failures {
            println!("    {failure}");
        }
    }
    assert!(wrong.is_empty(), "{} of {} seeds went wrong", wrong.len(), seeds.len());
}
