//! The protocol is broken on purpose, in four ways; the checkers must notice each. What holds otherwise holds in the
//! same scenario with the protocol as it is.

use std::time::Duration;

use omnimesh_protocol::validate;
use omnimesh_sim::checkers::check;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{Adversary, AdversaryKind, Check, Sabotage, Scenario, Topology, Who};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Twenty nodes; the last ones join late, and meet whatever the adversaries say then.
fn scenario(adversaries: u32, kind: AdversaryKind) -> Scenario {
    let mut scenario = Scenario { duration: secs(50), ..Scenario::default() };
    scenario.network.nodes = 20;
    scenario.network.topology = Topology::Random { dials: 5 };
    scenario.network.join_over = secs(30);
    // What was seen is forgotten before it is said again.
    scenario.gossip.seen_ttl = secs(5);
    scenario.workload.start = secs(10);
    scenario.workload.messages = 20;
    scenario.workload.rate_per_s = 1.0;
    scenario.adversaries = vec![Adversary { at: secs(5), until: None, who: Who::Count(adversaries), kind }];
    scenario.checks = vec![Check::Agreement { within: secs(1) }, Check::Monotone, Check::Authentic];
    scenario
}

/// The checks that fail, whole and broken.
fn failing(scenario: &Scenario, sabotage: Sabotage) -> [Vec<String>; 2] {
    [Sabotage::default(), sabotage].map(|sabotage| {
        let scenario = Scenario { sabotage, ..scenario.clone() };
        println!("seed {}", scenario.seed);
        let outcome = model::run(&scenario, Options::default());
        let checked = check(&scenario, &outcome);
        for checked in &checked {
            println!("{} {}: {}", checked.ok, checked.name, checked.detail);
        }
        checked.into_iter().filter(|checked| !checked.ok).map(|checked| checked.name).collect()
    })
}

fn notices(scenario: &Scenario, sabotage: Sabotage, name: &str) {
    let [whole, broken] = failing(scenario, sabotage);
    assert_eq!(whole, Vec::<String>::new(), "the protocol as it is fulfils all checks");
    assert!(broken.iter().any(|failed| failed == name), "{broken:?} has no {name}");
}

fn open(change: impl FnOnce(&mut validate::Sabotage)) -> Sabotage {
    let mut validator = validate::Sabotage::default();
    change(&mut validator);
    Sabotage { validator, ..Sabotage::default() }
}

#[test]
fn stale_steps_are_noticed() {
    let scenario = scenario(3, AdversaryKind::Replay { after: secs(18) });
    notices(&scenario, open(|gates| gates.accept_stale = true), "authentic");
}

#[test]
fn missing_tags_are_noticed() {
    let scenario = scenario(2, AdversaryKind::Outsider { rate_per_s: 0.5 });
    notices(&scenario, open(|gates| gates.trust_tags = true), "authentic");
}

#[test]
fn forgotten_messages_are_noticed() {
    // Within the step window, after the router has forgotten.
    let mut scenario = scenario(3, AdversaryKind::Replay { after: secs(6) });
    scenario.gossip.seen_ttl = secs(2);
    scenario.gossip.history_gossip = 1;
    scenario.gossip.history_length = 2;
    notices(&scenario, open(|gates| gates.forget_seen = true), "authentic");
}

#[test]
fn believing_everybody_is_noticed() {
    let mut scenario = scenario(2, AdversaryKind::TwoFaced { by: secs(60) });
    scenario.network.join_over = Duration::ZERO;
    scenario.workload.messages = 5;
    notices(&scenario, Sabotage { untrimmed: true, ..Sabotage::default() }, "agreement");
}
