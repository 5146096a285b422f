//! Jobs: workers that die, lie, stall and straggle, drivers that die; each task is committed once, no wrong result is
//! accepted, and every job ends.
//!
//! A seed is a scenario; `OMNIMESH_SIM_SEEDS=1000` runs so many of them, `OMNIMESH_SIM_SEED=17` one, and prints what came of it.
//! `OMNIMESH_SIM_COMPUTE=100` runs so many seeds of `compute-1000`, ten thousand tasks on a thousand workers:
//! `OMNIMESH_SIM_COMPUTE=100 cargo test --release -p omnimesh-sim --test compute a_thousand -- --nocapture`.

use std::time::Duration;

use omnimesh_protocol::compute::placement::Strategy;
use omnimesh_sim::checkers::{Checked, check};
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{
    Check, Compute, Crypto, Fault, FaultKind, Latency, Log, Scenario, ScenarioFile, Shape, Topology, Who,
};
use omnimesh_sim::summary::{ComputeSummary, Summary};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rayon::prelude::*;

const SEEDS: u64 = 24;
/// Seeds that went wrong once. Tasks without their like waited for stallers (199, 555), or only slow workers could do them and did
/// not get them (81); a submission that was lost with its node was not repeated (714); after a tie nobody was asked if copies had
/// answered as well (the others).
const ONCE_WRONG: [u64; 10] = [25, 81, 186, 199, 325, 425, 555, 634, 681, 714];
/// Faults end here.
const CALM_S: u64 = 60;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn shipped(name: &str) -> Scenario {
    ScenarioFile::load(name, &[]).expect("it is shipped").scenario
}

/// A small mesh, and anything that can go wrong with jobs in it.
fn anything(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario { name: "jobs".into(), seed, duration: secs(1500), ..Scenario::default() };
    scenario.crypto = *[Crypto::Real, Crypto::Skip].choose(&mut rng).expect("not empty");
    let network = &mut scenario.network;
    network.nodes = rng.random_range(12..=24);
    network.topology = Topology::Random { dials: rng.random_range(3..=5) };
    network.step_sync = false;
    network.silence = secs(5);
    let links = &mut scenario.links;
    links.latency = Latency::Uniform { min: Duration::from_millis(10), max: Duration::from_millis(100) };
    links.loss = *[0.0, 0.0, 0.05].choose(&mut rng).expect("not empty");
    links.duplication = *[0.0, 0.02].choose(&mut rng).expect("not empty");
    scenario.workload.messages = 0;
    if rng.random_bool(0.3) {
        scenario.log = Some(Log { start: secs(5), end: secs(6), ..Log::default() });
    }
    let submitters = rng.random_range(1..=3);
    scenario.compute = Some(Compute {
        start: secs(8),
        // A submitter that is the only one, and dies, submits all before.
        over: if submitters == 1 { Duration::ZERO } else { secs(rng.random_range(0..20)) },
        jobs: rng.random_range(1..=4),
        tasks: rng.random_range(8..=60),
        shape: *[Shape::MapReduce, Shape::Chain { depth: 4 }, Shape::Dag]
            .choose(&mut rng)
            .expect("not empty"),
        service: Duration::from_millis(rng.random_range(100..3_000)),
        service_sigma: rng.random_range(0.0..1.0),
        redundancy: 3,
        strategy: *Strategy::ALL.choose(&mut rng).expect("not empty"),
        slots: rng.random_range(1..=3),
        queue: rng.random_range(0..=4),
        submitters,
        ledgers: Some(submitters + rng.random_range(2..=5)),
        liars: rng.random_range(0.0..0.12),
        colluders: *[0.0, 0.0, 0.05].choose(&mut rng).expect("not empty"),
        stallers: rng.random_range(0.0..0.12),
        slow: rng.random_range(0.0..0.2),
        limit: secs(60),
        driver_deaths: rng.random_range(0..=1),
        driver_death_after: secs(rng.random_range(1..12)),
        ..Compute::default()
    });
    for _ in 0..rng.random_range(0..=2) {
        let (at, until) = (secs(rng.random_range(9..25)), secs(rng.random_range(30..=CALM_S)));
        let kind = match rng.random_range(0..4) {
            0 => FaultKind::Partition { one_way: false },
            1 => FaultKind::Degrade { loss: 0.1, latency_factor: 2.0 },
            _ => FaultKind::Churn { per_s: 0.3, away: secs(rng.random_range(2..12)) },
        };
        let who = Who::Share(rng.random_range(0.1..0.5));
        scenario.faults.push(Fault { at, until: Some(until), who, kind });
    }
    scenario.checks = vec![Check::TasksCommittedOnce, Check::NoWrongResult, Check::EveryJobEnds];
    scenario
}

/// What the checkers find wrong with a seed, and the jobs in numbers.
fn judged(scenario: &Scenario, must_act: bool) -> (Vec<String>, ComputeSummary) {
    let problems = scenario.problems();
    assert!(problems.is_empty(), "seed {}: {problems:#?}", scenario.seed);
    let run = || model::run(scenario, Options { threads: 1, ..Options::default() });
    let Ok(outcome) = std::panic::catch_unwind(run) else {
        return (vec!["an invariant is broken, see above".into()], ComputeSummary::default());
    };
    let verdicts = check(scenario, &outcome);
    let summary = Summary::new(&outcome, &verdicts);
    if setting("OMNIMESH_SIM_SEED").is_some() {
        println!("{scenario:#?}\n{:#?}\n{:#?}\n{verdicts:#?}", outcome.compute, summary.compute);
    }
    let is_wrong = |checked: &Checked| !checked.ok && (must_act || checked.name != "faults_took_effect");
    let failed = verdicts.into_iter().filter(is_wrong);
    (failed.map(|checked| format!("{}: {}", checked.name, checked.detail)).collect(), summary.compute)
}

fn replay(test: &str, seed: u64) -> String {
    format!(
        "seed {seed}: OMNIMESH_SIM_SEED={seed} cargo test -p omnimesh-sim --test compute {test} -- --nocapture"
    )
}

#[test]
fn anything_comes_right() {
    let seeds: Vec<u64> = match setting("OMNIMESH_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=setting("OMNIMESH_SIM_SEEDS").unwrap_or(SEEDS)).chain(ONCE_WRONG).collect(),
    };
    let each = seeds.par_iter().map(|seed| (*seed, judged(&anything(*seed), false).0));
    let wrong: Vec<_> = each.filter(|(_, failures)| !failures.is_empty()).collect();
    for (seed, failures) in &wrong {
        println!("{}\n    {}", replay("anything_comes_right", *seed), failures.join("\n    "));
    }
    assert!(wrong.is_empty(), "{} of {} seeds went wrong", wrong.len(), seeds.len());
}

#[test]
fn the_shipped_jobs_end_in_spite_of_everything() {
    let (failures, summary) = judged(&shipped("compute"), true);
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!((summary.succeeded, summary.wrong, summary.committed_again), (4, 0, 0), "{summary:#?}");
    assert!(summary.takeovers > 0 && summary.liars_found > 0 && summary.stragglers > 0, "{summary:#?}");
}

#[test]
fn a_run_is_the_same_on_any_number_of_threads() {
    let mut with_partition = anything(5);
    with_partition.duration = secs(80);
    with_partition.faults.push(Fault {
        at: secs(12),
        until: Some(secs(30)),
        who: Who::Share(0.4),
        kind: FaultKind::Partition { one_way: false },
    });
    let mut with_log = shipped("compute");
    (with_log.network.nodes, with_log.duration) = (20, secs(40));
    for scenario in [with_partition, with_log] {
        let run = |threads| {
            let outcome = model::run(&scenario, Options { threads, ..Options::default() });
            (outcome.trace_hash, outcome.compute)
        };
        let one = run(1);
        for threads in [1, 2, 3] {
            assert_eq!(run(threads), one, "{} on {threads} threads", scenario.name);
        }
    }
}

/// Colluders have more votes than they are when there are few: with spot checks alone their results are accepted, and the
/// checker says so.
#[test]
fn without_redundancy_liars_are_believed_and_that_is_noticed() {
    let mut scenario = anything(3);
    scenario.faults.clear();
    let compute = scenario.compute.as_mut().expect("it has jobs");
    (compute.redundancy, compute.spot_checks, compute.liars, compute.colluders) = (1, 0.0, 0.3, 0.0);
    (compute.stallers, compute.slow, compute.driver_deaths) = (0.0, 0.0, 0);
    let (_, summary) = judged(&scenario, false);
    assert!(summary.wrong > 0 && summary.liars_found == 0, "{summary:#?}");
}

#[test]
fn a_thousand_workers_do_ten_thousand_tasks() {
    let Some(seeds) = setting("OMNIMESH_SIM_COMPUTE") else { return };
    let first = setting("OMNIMESH_SIM_SEED").unwrap_or(1);
    let seeds: Vec<u64> = (first..first + seeds).collect();
    let each = seeds.par_iter().map(|seed| {
        let scenario = Scenario { seed: *seed, ..shipped("compute-1000") };
        let (failures, summary) = judged(&scenario, true);
        println!("seed {seed}: ratio {:.3?} {failures:?}", summary.makespan_ratio);
        (failures, summary)
    });
    let all: Vec<_> = each.collect();
    let mut ratios: Vec<f64> = all.iter().filter_map(|(_, summary)| summary.makespan_ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    println!("ratios: {ratios:.3?}");
    let wrong = all.iter().filter(|(failures, _)| !failures.is_empty()).count();
    assert_eq!(wrong, 0, "of {} seeds", seeds.len());
}
