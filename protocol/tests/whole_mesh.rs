//! All machines together, in the simulator: what a test of one machine cannot show.

use std::time::Duration;

use omnimesh_sim::checkers;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{Adversary, AdversaryKind, Check, Fault, FaultKind, Links, Scenario, Who};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Forty nodes that are up after ten seconds, and say something from then on.
fn mesh(seed: u64) -> Scenario {
    let mut scenario =
        Scenario { name: format!("seed {seed}"), seed, duration: seconds(50), ..Scenario::default() };
    scenario.network.nodes = 40;
    scenario.workload.messages = 40;
    scenario.workload.rate_per_s = 2.0;
    // Memory is the process's, which other tests share.
    scenario.checks.retain(|check| !matches!(check, Check::BoundedMemory { .. }));
    scenario
}

fn run_and_check(scenario: &Scenario) {
    let outcome = model::run(scenario, Options::default());
    let failed: Vec<_> =
        checkers::check(scenario, &outcome).into_iter().filter(|verdict| !verdict.ok).collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", scenario.name);
}

#[test]
fn a_lossy_mesh_whose_nodes_come_and_go_delivers_all_to_those_who_stay() {
    for seed in 0..3 {
        let mut scenario = mesh(seed);
        scenario.links = Links { loss: 0.05, loss_burst: 3.0, ..Links::default() };
        scenario.faults.push(Fault {
            at: seconds(12),
            until: Some(seconds(30)),
            who: Who::Share(0.25),
            kind: FaultKind::Churn { per_s: 0.5, away: seconds(5) },
        });
        run_and_check(&scenario);
    }
}

#[test]
fn a_fifth_who_lie_about_time_and_tamper_change_nothing_for_the_others() {
    for seed in 0..3 {
        let mut scenario = mesh(seed);
        let liar = |count, kind| Adversary { at: seconds(8), until: None, who: Who::Count(count), kind };
        scenario.adversaries = vec![
            liar(4, AdversaryKind::TwoFaced { by: seconds(3) }),
            liar(2, AdversaryKind::Tamper),
            liar(2, AdversaryKind::Outsider { rate_per_s: 2.0 }),
        ];
        run_and_check(&scenario);
    }
}
