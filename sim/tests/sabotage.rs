//! The protocol, or what is under it, is broken on purpose, in eight ways; the checkers must notice each. What holds otherwise holds in the
//! same scenario with the protocol as it is.

use std::time::Duration;

use omnimesh_protocol::validate;
use omnimesh_sim::checkers::check;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{
    Adversary, AdversaryKind, CHECKPOINTS, Check, Fault, FaultKind, Log, Sabotage, Scenario, Topology, Who,
};

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

/// Twelve nodes that append to their logs for half a minute.
fn log_scenario(fault: Fault) -> Scenario {
    let mut scenario = Scenario { duration: secs(70), ..Scenario::default() };
    scenario.network.nodes = 12;
    scenario.network.topology = Topology::Random { dials: 4 };
    scenario.network.step_sync = false;
    scenario.workload.messages = 0;
    scenario.log =
        Some(Log { start: secs(5), end: secs(35), rate_per_s: 10.0, registry_share: 0.5, ..Log::default() });
    scenario.faults = vec![fault];
    scenario.checks = Check::of_log();
    scenario
}

#[test]
fn a_disk_that_gives_out_what_is_damaged_is_noticed() {
    // All lose what they had not synced a little later, so that the others have to fetch from who has flipped bits.
    let kind = FaultKind::BitFlip { records: 20 };
    let mut scenario = log_scenario(Fault { at: secs(25), until: None, who: Who::Share(0.5), kind });
    scenario.faults.push(Fault {
        at: secs(26),
        until: Some(secs(40)),
        who: Who::Count(4),
        kind: FaultKind::BitFlip { records: 20 },
    });
    notices(&scenario, Sabotage { trusting_disks: true, ..Sabotage::default() }, "only_written");
}

#[test]
fn a_disk_that_answers_before_it_has_written_is_noticed() {
    // The node is alone, so that nobody else has what it acknowledged.
    let alone = Fault {
        at: secs(10),
        until: Some(secs(30)),
        who: Who::Nodes(vec![3]),
        kind: FaultKind::Partition { one_way: false },
    };
    let kind = FaultKind::LostTail { restart_after: secs(2) };
    let mut scenario =
        log_scenario(Fault { at: secs(15), until: Some(secs(30)), who: Who::Nodes(vec![3]), kind });
    scenario.network.silence = secs(3);
    scenario.faults.push(alone);
    notices(&scenario, Sabotage { early_answers: true, ..Sabotage::default() }, "no_lost_entry");
}

#[test]
fn a_registry_that_leaves_out_records_is_noticed() {
    let kind = FaultKind::Crash { restart_after: Some(secs(3)) };
    let scenario = log_scenario(Fault { at: secs(15), until: None, who: Who::Count(1), kind });
    notices(&scenario, Sabotage { forgetful_registry: true, ..Sabotage::default() }, "equal_registries");
}

#[test]
fn checkpoints_with_nothing_in_them_are_noticed() {
    let kind = FaultKind::Crash { restart_after: Some(secs(3)) };
    let mut scenario = log_scenario(Fault { at: secs(15), until: None, who: Who::Count(1), kind });
    scenario.checkpoints = Some(CHECKPOINTS);
    scenario.checks.extend(Check::of_checkpoints());
    notices(&scenario, Sabotage { hollow_checkpoints: true, ..Sabotage::default() }, "true_checkpoints");
}
