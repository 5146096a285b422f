//! The durable log: crashes, lost tails, flipped bits, islands, loss and forks; what was acknowledged is everywhere in
//! the end, and everything is equal.
//!
//! A seed is a scenario; `OMNIMESH_SIM_SEEDS=1000` runs so many of them, `OMNIMESH_SIM_SEED=17` one, and prints what
//! came of it. `OMNIMESH_SIM_NODES=1000` takes a storm of that size: 76 s of processor time for each seed.

use std::time::Duration;

use omnimesh_sim::checkers::{Checked, check};
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::outcome::Outcome;
use omnimesh_sim::scenario::{
    Adversary, AdversaryKind, CHECKPOINTS, Check, Checkpoints, Fault, FaultKind, Latency, Log, Scenario,
    ScenarioFile, Topology, Who,
};
use omnimesh_sim::summary::Summary;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rayon::prelude::*;

/// The scenario `log-storm` with its thousand nodes takes minutes; so many have the same faults, if fewer of each.
const STORM_NODES: u32 = 40;
/// In which this part of the nodes at least is hit by each fault.
const SHARE_MIN: f64 = 0.1;
const SEEDS: u64 = 200;
/// Storms take a second each.
const STORMS: u64 = 40;
/// Faults and appends end here; afterwards everything must come right.
const CALM_S: u64 = 40;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(scenario: &Scenario) -> Outcome {
    model::run(scenario, Options { threads: 1, ..Options::default() })
}

fn shipped(name: &str) -> Scenario {
    ScenarioFile::load(name, &[]).expect("it is shipped").scenario
}

/// The storm, with another seed.
fn storm(seed: u64) -> Scenario {
    let mut scenario = shipped("log-storm");
    let nodes = setting("OMNIMESH_SIM_NODES").and_then(|nodes| u32::try_from(nodes).ok());
    (scenario.seed, scenario.network.nodes) = (seed, nodes.unwrap_or(STORM_NODES));
    for fault in &mut scenario.faults {
        if let Who::Share(share) = &mut fault.who
            && nodes.is_none()
        {
            // A single node may be down, or have nothing to write, when it is its turn.
            *share = share.max(SHARE_MIN);
        }
    }
    scenario
}

/// A small mesh, and anything that can go wrong with logs in it.
fn anything(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario { name: "log-seed".into(), seed, duration: secs(80), ..Scenario::default() };
    let network = &mut scenario.network;
    network.nodes = rng.random_range(8..=16);
    network.topology = Topology::Random { dials: rng.random_range(3..=5) };
    network.step_sync = rng.random_bool(0.5);
    network.silence = secs(5);
    network.join_over = secs(rng.random_range(0..20));
    let links = &mut scenario.links;
    links.latency = Latency::Uniform { min: Duration::from_millis(5), max: Duration::from_millis(120) };
    links.loss = *[0.0, 0.02, 0.2].choose(&mut rng).expect("not empty");
    links.duplication = *[0.0, 0.02].choose(&mut rng).expect("not empty");
    links.reordering = *[0.0, 0.1].choose(&mut rng).expect("not empty");
    links.bandwidth_bps = *[None, Some(2_000_000)].choose(&mut rng).expect("not empty");
    scenario.workload.messages = 0;
    scenario.log = Some(Log {
        start: secs(8),
        end: secs(CALM_S),
        rate_per_s: rng.random_range(2.0..20.0),
        payload_bytes: rng.random_range(8..2_000),
        authors: *[None, Some(1), Some(3)].choose(&mut rng).expect("not empty"),
        registry_share: rng.random_range(0.2..1.0),
        registry_keys: rng.random_range(1..10),
        replicas: rng.random_range(0..3),
        interval: Duration::from_millis(rng.random_range(500..4_000)),
    });
    let disk = &mut scenario.disk;
    disk.sync = Duration::from_millis(rng.random_range(1..40));
    disk.slow_share = rng.random_range(0.0..0.3);
    for _ in 0..rng.random_range(1..=5) {
        scenario.faults.push(fault(&mut rng));
    }
    for _ in 0..rng.random_range(0..=2) {
        scenario.adversaries.push(adversary(&mut rng));
    }
    scenario.checks = Check::of_log();
    scenario
}

/// The same with checkpoints: nodes drop what these cover.
fn anything_with_checkpoints(seed: u64) -> Scenario {
    let mut scenario = anything(seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6368_6563);
    scenario.network.membership = rng.random_bool(0.3);
    let (keep_steps, keep_bytes) = *[(1, 0), (8, 0), (0, 30_000)].choose(&mut rng).expect("not empty");
    scenario.checkpoints = Some(Checkpoints {
        every_steps: rng.random_range(4..12),
        delay_steps: rng.random_range(1..6),
        signers: *[0, 0, 2].choose(&mut rng).expect("not empty"),
        keep_steps,
        keep_bytes,
        ..CHECKPOINTS
    });
    scenario.checks.extend(Check::of_checkpoints());
    scenario
}

fn fault(rng: &mut impl Rng) -> Fault {
    let (at, until) = (secs(rng.random_range(10..25)), secs(rng.random_range(27..=CALM_S)));
    let restart_after = secs(rng.random_range(1..8));
    let mut who = Who::Share(rng.random_range(0.1..0.5));
    let kind = match rng.random_range(0..10) {
        0 | 1 => FaultKind::Partition { one_way: rng.random_bool(0.2) },
        2 => FaultKind::Crash { restart_after: Some(restart_after) },
        3 => FaultKind::Churn { per_s: 0.5, away: restart_after },
        4 => FaultKind::CrashInWrite { restart_after },
        5 => FaultKind::LostTail { restart_after },
        6 | 7 => {
            // A mesh in which all forget the same has nobody to ask.
            who = Who::Count(1);
            FaultKind::BitFlip { records: rng.random_range(1..5) }
        }
        8 => FaultKind::SlowDisk { factor: rng.random_range(2.0..10.0) },
        _ => FaultKind::FullDisk,
    };
    Fault { at, until: Some(until), who, kind }
}

fn adversary(rng: &mut impl Rng) -> Adversary {
    let kind = match rng.random_range(0..6) {
        0..3 => AdversaryKind::Fork { rate_per_s: rng.random_range(0.1..1.0) },
        3 => AdversaryKind::Tamper,
        4 => AdversaryKind::Replay { after: Duration::from_millis(rng.random_range(100..5_000)) },
        _ => AdversaryKind::Silence { rate_per_s: 0.0 },
    };
    Adversary { at: secs(10), until: Some(secs(CALM_S)), who: Who::Count(1), kind }
}

/// What the checkers find wrong with a seed.
fn failures(scenario: &Scenario, must_act: bool) -> Vec<String> {
    let Ok(outcome) = std::panic::catch_unwind(|| run(scenario)) else {
        return vec!["an invariant is broken, see above".into()];
    };
    let verdicts = check(scenario, &outcome);
    if setting("OMNIMESH_SIM_SEED").is_some() {
        let Summary { log, detector, .. } = Summary::new(&outcome, &verdicts);
        println!("{scenario:#?}\n{log:#?}\n{detector:#?}\n{verdicts:#?}");
    }
    // In a small mesh not every fault finds something to do.
    let is_wrong = |checked: &Checked| !checked.ok && (must_act || checked.name != "faults_took_effect");
    let failed = verdicts.into_iter().filter(is_wrong);
    failed.map(|checked| format!("{}: {}", checked.name, checked.detail)).collect()
}

fn all_seeds(test: &str, count: u64, failures: impl Fn(u64) -> Vec<String> + Sync) {
    let seeds: Vec<u64> = match setting("OMNIMESH_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=setting("OMNIMESH_SIM_SEEDS").unwrap_or(count)).collect(),
    };
    let each = seeds.par_iter().map(|seed| (*seed, failures(*seed)));
    let wrong: Vec<(u64, Vec<String>)> = each.filter(|(_, failures)| !failures.is_empty()).collect();
    let nodes =
        setting("OMNIMESH_SIM_NODES").map_or(String::new(), |nodes| format!("OMNIMESH_SIM_NODES={nodes} "));
    for (seed, failures) in &wrong {
        println!(
            "seed {seed}: {nodes}OMNIMESH_SIM_SEED={seed} cargo test -p omnimesh-sim --test log {test} -- --nocapture"
        );
        for failure in failures {
            println!("    {failure}");
        }
    }
    assert!(wrong.is_empty(), "{} of {} seeds went wrong", wrong.len(), seeds.len());
}

#[test]
fn islands_meet_and_are_equal() {
    let scenario = shipped("log-islands");
    assert_eq!(failures(&scenario, true), Vec::<String>::new());
}

#[test]
fn who_comes_late_begins_with_a_checkpoint() {
    let scenario = shipped("log-checkpoints");
    assert_eq!(failures(&scenario, true), Vec::<String>::new());
    let log = Summary::new(&run(&scenario), &[]).log;
    assert!(log.checkpoints_adopted > 0 && log.entries_covered > 0 && log.entries_dropped > 100, "{log:#?}");
    assert_eq!((log.lost, log.equal_nodes), (0, log.nodes));
}

#[test]
fn anything_comes_right_with_checkpoints() {
    let test = "anything_comes_right_with_checkpoints";
    all_seeds(test, SEEDS, |seed| failures(&anything_with_checkpoints(seed), false));
}

#[test]
fn every_storm_passes() {
    all_seeds("every_storm_passes", STORMS, |seed| failures(&storm(seed), true));
}

#[test]
fn anything_comes_right() {
    all_seeds("anything_comes_right", SEEDS, |seed| failures(&anything(seed), false));
}

#[test]
fn a_run_is_the_same_on_any_number_of_threads() {
    let mut storm = storm(7);
    storm.network.nodes = 30;
    for scenario in [storm, shipped("log-checkpoints")] {
        let hash = |threads| model::run(&scenario, Options { threads, ..Options::default() }).trace_hash;
        let one = hash(1);
        assert_eq!((one, one, one), (hash(1), hash(2), hash(3)), "{}", scenario.name);
    }
}
