//! The durable log: crashes, lost tails, flipped bits, islands, loss and forks; what was acknowledged is everywhere in
//! the end, and everything is equal.
//!
//! `OMNIMESH_SIM_SEEDS=1000` runs so many seeds, `OMNIMESH_SIM_SEED=17` one and prints its scenario,
//! `OMNIMESH_SIM_NODES=1000` takes a mesh of that size.

use omnimesh_sim::checkers::{Checked, check};
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::outcome::Outcome;
use omnimesh_sim::scenario::{Scenario, ScenarioFile};
use omnimesh_sim::summary::Summary;
use rayon::prelude::*;

const SEEDS: u64 = 200;
const NODES: u32 = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(scenario: &Scenario) -> Outcome {
    model::run(scenario, Options { threads: 1, ..Options::default() })
}

/// The storm, on as many nodes, with another seed.
fn storm(seed: u64, nodes: u32) -> Scenario {
    let mut scenario = ScenarioFile::load("log-storm", &[]).expect("it is shipped").scenario;
    (scenario.seed, scenario.network.nodes) = (seed, nodes);
    scenario
}

fn failures(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let failed = check(scenario, outcome).into_iter().filter(|checked: &Checked| !checked.ok);
    failed.map(|checked| format!("{}: {}", checked.name, checked.detail)).collect()
}

#[test]
fn islands_meet_and_are_equal() {
    let scenario = ScenarioFile::load("log-islands", &[]).expect("it is shipped").scenario;
    let outcome = run(&scenario);
    let verdicts = check(&scenario, &outcome);
    println!("{:#?}", Summary::new(&outcome, &verdicts).log);
    println!("{verdicts:#?}");
    assert_eq!(failures(&scenario, &outcome), Vec::<String>::new());
}

#[test]
fn every_storm_passes() {
    let nodes = setting("OMNIMESH_SIM_NODES").map_or(NODES, |nodes| u32::try_from(nodes).expect("a number of nodes"));
    let seeds: Vec<u64> = match setting("OMNIMESH_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=setting("OMNIMESH_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let one = |seed: &u64| {
        let scenario = storm(*seed, nodes);
        let outcome = std::panic::catch_unwind(|| run(&scenario));
        let wrong = match &outcome {
            Ok(outcome) => {
                if setting("OMNIMESH_SIM_SEED").is_some() {
                    let verdicts = check(&scenario, outcome);
                    println!("{:#?}\n{verdicts:#?}", Summary::new(outcome, &verdicts));
                }
                failures(&scenario, outcome)
            }
            Err(_) => vec!["an invariant is broken, see above".into()],
        };
        (*seed, wrong)
    };
    let mut wrong: Vec<(u64, Vec<String>)> =
        seeds.par_iter().map(one).filter(|(_, wrong)| !wrong.is_empty()).collect();
    wrong.sort();
    for (seed, failures) in &wrong {
        println!(
            "seed {seed}: OMNIMESH_SIM_SEED={seed} OMNIMESH_SIM_NODES={nodes} cargo test -p omnimesh-sim --test log \
             every_storm -- --nocapture"
        );
        for failure in failures {
            println!("    {failure}");
        }
    }
    assert!(wrong.is_empty(), "{} of {} seeds went wrong", wrong.len(), seeds.len());
}
