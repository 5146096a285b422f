//! Each attack is found in a small mesh, and no longer is when nobody looks for it: a broken detector is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use omnimesh_protocol::observer::AnomalyKind;
use omnimesh_sim::checkers::{self, Checked};
use omnimesh_sim::detection::Scores;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::outcome::Held;
use omnimesh_sim::scenario::{AdversaryKind, Check, Scenario};

#[path = "../examples/detection/rows.rs"]
mod rows;

use rows::{Attack, Mesh};

const NODES: u32 = 60;
const SEED: u64 = 1;
/// Of a few nodes one is a large part: what is wanted of many is told by the table of the docs.
const LENIENT: Check = Check::Detection { precision_min: 0.8, recall_min: 0.5, false_quarantined_max: 0 };

/// Each attack by itself, for long enough.
fn alone() -> impl Iterator<Item = (Attack, Mesh)> {
    let duration = Duration::from_secs(75);
    let of = move |attack: Attack| (attack.clone(), Mesh { attacks: vec![attack], duration });
    rows::meshes().into_iter().flat_map(|mesh| mesh.attacks).map(of)
}

fn run(scenario: &Scenario) -> (Scores, Checked, BTreeSet<AnomalyKind>) {
    let outcome = model::run(scenario, Options::default());
    let checked = checkers::check(scenario, &outcome);
    let detection = checked.into_iter().find(|checked| checked.name == "detection").expect("it is asked for");
    let facts = outcome.detection.as_ref().expect("nodes have observers");
    let is_right = |held: &&Held| {
        let truth = outcome.adversary_nodes.iter().zip(&facts.truth).find(|(node, _)| **node == held.against);
        truth.is_some_and(|(_, truth)| truth.kinds.contains(&held.kind))
    };
    let kinds = facts.held.iter().filter(is_right).map(|held| held.kind).collect();
    (Scores::of(&outcome).expect("nodes have observers"), detection, kinds)
}

/// The detectors that an attack is there to try, each of which must see it.
fn expected(attack: &Attack) -> &'static [AnomalyKind] {
    use AnomalyKind as A;
    match attack.kind {
        // The bits of the rest are few, and some late messages are forgiven.
        AdversaryKind::Tamper => &[A::BadSignature, A::BadPattern],
        // What comes again late enough is refused for its step before.
        AdversaryKind::Replay { .. } => &[A::StaleStep],
        AdversaryKind::Silence { .. } => &[A::Silence],
        _ => attack.kind.findings(),
    }
}

#[test]
fn every_adversary_has_a_row() {
    let rows: Vec<_> = alone().map(|(attack, _)| attack.kind.name()).collect();
    let missing: Vec<_> = AdversaryKind::NAMES.iter().filter(|name| !rows.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in examples/detection/rows.rs");
}

#[test]
fn a_detector_that_is_broken_is_noticed() {
    for (attack, mesh) in alone() {
        println!(
            "{}: cargo test -p omnimesh-sim --test detection, {NODES} nodes, seed {SEED}; {}",
            attack.name, attack.remark
        );
        let mut whole = mesh.scenario(NODES, SEED, false);
        whole.checks = vec![LENIENT];
        let (scores, check, kinds) = run(&whole);
        println!("  whole: {}", check.detail);
        let recall = |scores: &Scores| scores.rows.first().and_then(|row| row.recall()).unwrap_or(0.0);
        let found = recall(&scores);
        assert!(check.ok, "{}: {}", attack.name, check.detail);
        let unseen: Vec<_> = expected(&attack).iter().filter(|kind| !kinds.contains(kind)).collect();
        assert!(unseen.is_empty(), "{}: {unseen:?} is not told of, {kinds:?} are", attack.name);
        let mut broken = whole.clone();
        broken.observer.ignore = attack.kind.findings().to_vec();
        let (scores, check, _) = run(&broken);
        println!("  broken: {}", check.detail);
        assert!(!check.ok, "{}: nobody looked, and the check is content: {}", attack.name, check.detail);
        assert!(recall(&scores) < found, "{}: nobody looked, and as many were found", attack.name);
    }
}

#[test]
fn slow_neighbours_are_told_as_far_away_and_not_as_withholding() {
    let (_, mesh) = alone().find(|(attack, _)| attack.name == "never_forward").expect("a row");
    let mut told = BTreeMap::new();
    for seed in SEED..SEED + 6 {
        let mut scenario = mesh.scenario(NODES, seed, true);
        scenario.checks = vec![LENIENT];
        let (scores, check, _) = run(&scenario);
        assert!(check.ok, "seed {seed}: {}", check.detail);
        println!("seed {seed}: {:?}", scores.verdicts_false);
        for (kind, verdicts) in scores.verdicts_false {
            *told.entry(kind).or_insert(0) += verdicts;
        }
    }
    assert!(told.contains_key("latency"), "{told:?}");
}

#[test]
fn without_observers_nothing_is_said_about_them() {
    let (_, mesh) = alone().next().expect("there are attacks");
    let mut scenario = mesh.scenario(NODES, SEED, false);
    scenario.observer.enabled = Some(false);
    let outcome = model::run(&scenario, Options::default());
    assert_eq!(outcome.detection, None);
    let checked = checkers::check(&scenario, &outcome);
    assert!(!checked[0].ok, "a check that has nothing to look at fails: {}", checked[0].detail);
    assert!(
        scenario.problems().iter().any(|problem| problem.path.starts_with("checks")),
        "and is refused before"
    );
}

fn traces(scenario: &Scenario, threads: [usize; 2]) {
    let [one, other] = threads.map(|threads| model::run(scenario, Options { threads, ..Options::default() }));
    assert_eq!(one.trace_hash, other.trace_hash, "{} on {threads:?} threads", scenario.name);
    assert_eq!(one.detection, other.detection, "{} on {threads:?} threads", scenario.name);
}

#[test]
fn what_observers_do_repeats_on_any_number_of_threads() {
    for (_, mesh) in alone().filter(|(attack, _)| matches!(attack.name, "equivocate" | "slander" | "tamper"))
    {
        traces(&mesh.scenario(40, SEED, true), [1, 3]);
    }
}

#[test]
#[ignore = "takes minutes without --release"]
fn a_third_of_liars_repeats() {
    let file = omnimesh_sim::scenario::ScenarioFile::load("byzantine-third", &[]).expect("it is shipped");
    assert!(file.scenario.has_observer());
    traces(&file.scenario, [1, 2]);
}
