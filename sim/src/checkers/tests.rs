//! Each check passes a good outcome and fails a doctored one, and says what is wrong with it.

use std::time::Duration;

use super::*;
use crate::outcome::{Effect, Offence};
use crate::scenario::{Adversary, AdversaryKind, Fault, FaultKind, Who};
use crate::synthetic;

fn good() -> (Scenario, Outcome) {
    let scenario = synthetic::scenario(100);
    let outcome = synthetic::outcome(&scenario);
    (scenario, outcome)
}

fn verdict(scenario: &Scenario, outcome: &Outcome, name: &str) -> Checked {
    let checked = check(scenario, outcome);
    let mut found = checked.into_iter().filter(|checked| checked.name == name);
    let verdict = found.next().expect("the check is among those asked for");
    assert!(found.next().is_none(), "one verdict for {name}");
    verdict
}

/// It fails, and the detail names each of these.
#[track_caller]
fn assert_fails(scenario: &Scenario, outcome: &Outcome, name: &str, says: &[&str]) {
    let Checked { ok, detail, .. } = verdict(scenario, outcome, name);
    assert!(!ok, "{name} passes: {detail}");
    for part in says {
        assert!(detail.contains(part), "{part:?} is not in: {detail}");
    }
}

#[track_caller]
fn assert_passes(scenario: &Scenario, outcome: &Outcome, name: &str, says: &[&str]) {
    let Checked { ok, detail, .. } = verdict(scenario, outcome, name);
    assert!(ok, "{name} fails: {detail}");
    for part in says {
        assert!(detail.contains(part), "{part:?} is not in: {detail}");
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_good_run_passes_all() {
    let (scenario, outcome) = good();
    let checked = check(&scenario, &outcome);
    let names: Vec<&str> = checked.iter().map(|checked| checked.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "agreement",
            "monotone",
            "authentic",
            "delivery",
            "convergence",
            "bounded_memory",
            "no_false_quarantine",
            "faults_took_effect"
        ]
    );
    for checked in &checked {
        assert!(checked.ok, "{checked:?}");
        assert!(checked.detail.ends_with('.'), "a sentence: {}", checked.detail);
    }
    assert_eq!(checked, check(&scenario, &outcome));
}

#[test]
fn agreement_looks_at_undisturbed_samples() {
    let (mut scenario, mut outcome) = good();
    let index = |half_seconds: usize| half_seconds;
    // Before all have a step, and within ten steps of a fault: passed over.
    outcome.samples[index(2)].island_skew_ms = 1e9;
    outcome.samples[index(2 * 25)].island_skew_ms = 5_000.0;
    outcome.samples[index(2 * 40)].island_skew_ms = 4_000.0;
    assert_passes(&scenario, &outcome, "agreement", &["5,000 ms apart, at 25 s: partition#1"]);
    // After that: seen.
    outcome.samples[index(2 * 50)].island_skew_ms = 1_500.0;
    outcome.samples[index(2 * 51)].island_skew_ms = 1_200.0;
    assert_fails(&scenario, &outcome, "agreement", &["1,500 ms apart at 50 s", "2 samples", "crash#2"]);
    outcome.samples[index(2 * 50)].island_skew_ms = f64::NAN;
    assert_fails(&scenario, &outcome, "agreement", &["2 samples from 50 s to 51 s"]);

    // A disturbance to the end leaves nothing; what never had a step, neither; nor does no sample.
    scenario.faults[0].at = Duration::ZERO;
    scenario.faults[0].until = Some(at(55));
    assert_fails(&scenario, &outcome, "agreement", &["Nothing to look at", "leave this check out"]);
    for sample in &mut outcome.samples {
        sample.synchronised = sample.up - 1;
    }
    assert_fails(&scenario, &outcome, "agreement", &["93 of 94 nodes", "60 s"]);
    outcome.samples.clear();
    assert_fails(&scenario, &outcome, "agreement", &["No samples"]);
}

#[test]
fn a_disturbance_without_end_must_be_lived_with() {
    let (mut scenario, mut outcome) = good();
    scenario.network.membership = false;
    scenario.faults.clear();
    outcome.faults.clear();
    let kind = AdversaryKind::Rush { by: at(1) };
    scenario.adversaries[0] = Adversary { at: at(20), until: None, who: Who::Count(1), kind };
    assert_passes(&scenario, &outcome, "agreement", &[]);
    assert_passes(&scenario, &outcome, "convergence", &["rush#1 has no end"]);
    outcome.samples[2 * 31].island_skew_ms = 1_001.0;
    assert_fails(&scenario, &outcome, "agreement", &["1,001 ms apart at 31 s", "rush#1"]);
    // With an end, all until then is passed over.
    scenario.adversaries[0].until = Some(at(40));
    assert_passes(&scenario, &outcome, "agreement", &[]);
}

#[test]
fn steps_must_not_fall() {
    let (scenario, mut outcome) = good();
    outcome.steps_fell = 2;
    outcome.first_step_fell = Some(Offence { node: 17, at: at(12) });
    assert_fails(&scenario, &outcome, "monotone", &["2 times", "node 17, 12 s"]);
    outcome.steps_fell = 0;
    outcome.samples.clear();
    assert_fails(&scenario, &outcome, "monotone", &["No node was ever seen to have a step"]);
}

#[test]
fn deliveries_must_be_authentic() {
    let (scenario, good) = good();
    let mut outcome = good.clone();
    outcome.forged = 3;
    outcome.first_forged = Some(Offence { node: 4, at: at(13) });
    assert_fails(
        &scenario,
        &outcome,
        "authentic",
        &["3 deliveries of a message that nobody", "node 4, 13 s"],
    );

    let mut outcome = good.clone();
    outcome.delivered_twice = 1;
    assert_fails(&scenario, &outcome, "authentic", &["1 delivery of a message to a node that had it"]);

    // The counters are silent, the record is not.
    let mut outcome = good.clone();
    let again = outcome.deliveries[7][3];
    outcome.deliveries[7].push(again);
    let wanted = format!("message 7 was delivered to node {} twice", again.node);
    assert_fails(&scenario, &outcome, "authentic", &[&wanted]);

    let mut outcome = good.clone();
    outcome.deliveries[7][0].node = outcome.messages[7].author;
    assert_fails(&scenario, &outcome, "authentic", &["to its own author"]);

    let mut outcome = good;
    outcome.messages.pop();
    assert_fails(&scenario, &outcome, "authentic", &["of 160 messages are recorded, but only 159"]);
}

#[test]
fn messages_must_arrive() {
    let (mut scenario, good) = good();
    let mut outcome = good.clone();
    let lost = outcome.deliveries[9].pop().unwrap();
    outcome.messages[9].missed = 1;
    let without = format!("1 of 93 nodes missed ({})", lost.node);
    assert_fails(
        &scenario,
        &outcome,
        "delivery",
        &["1 message is incomplete", "message 9", "12.25 s", &without],
    );
    // Less is demanded: the same passes, and is told all the same.
    scenario.checks = vec![Check::Delivery { ratio: 0.99 }];
    assert_passes(&scenario, &outcome, "delivery", &["message 9", "at least 99 % must"]);

    // A record that does not say who missed it contradicts itself.
    outcome.messages[9].missed = 0;
    assert_fails(&scenario, &outcome, "delivery", &["contradicts itself", "message 9"]);
    outcome.messages[9].missed = 1_000;
    assert_fails(&scenario, &outcome, "delivery", &["contradicts itself"]);

    let mut outcome = good.clone();
    outcome.deliveries.pop();
    assert_fails(&scenario, &outcome, "delivery", &["incomplete"]);
    outcome.messages.clear();
    outcome.deliveries.clear();
    assert_fails(&scenario, &outcome, "delivery", &["Nothing was published", "160"]);

    let mut outcome = good;
    for (message, deliveries) in outcome.messages.iter_mut().zip(&mut outcome.deliveries) {
        message.audience = 0;
        deliveries.clear();
    }
    assert_fails(&scenario, &outcome, "delivery", &["No message had an audience"]);
}

#[test]
fn the_mesh_must_recover_in_time() {
    let (mut scenario, good) = good();
    // The crash at 33 s is over at 37 s.
    assert_passes(&scenario, &good, "convergence", &["crash#2 (over at 37 s)", "agreed again at once"]);

    let mut outcome = good.clone();
    for sample in &mut outcome.samples[2 * 37..2 * 48] {
        sample.island_skew_ms = 1_100.0;
    }
    assert_fails(&scenario, &outcome, "convergence", &["11 s after crash#2", "within 10 s (10 steps)"]);
    for sample in &mut outcome.samples[2 * 37..] {
        sample.synchronised = sample.up - 2;
    }
    assert_fails(&scenario, &outcome, "convergence", &["92 of 94 nodes", "60 s"]);

    let mut outcome = good.clone();
    outcome.samples[2 * 49].membership = 0.9;
    assert_fails(&scenario, &outcome, "convergence", &["Membership was whole again 12.5 s after"]);
    outcome.membership_whole_at = Some(at(39));
    assert_passes(&scenario, &outcome, "convergence", &["membership was whole within 2 s"]);
    outcome.membership_whole = Some(false);
    assert_fails(&scenario, &outcome, "convergence", &["not whole at the end"]);
    scenario.network.membership = false;
    assert_passes(&scenario, &outcome, "convergence", &[]);

    scenario.faults[1].at = at(70);
    assert_fails(&scenario, &good, "convergence", &["crash#2 is over at 74 s, but the run ended at 60 s"]);
    scenario.faults.clear();
    assert_passes(&scenario, &good, "convergence", &["no fault"]);
}

#[test]
fn memory_must_be_bounded() {
    let (scenario, mut outcome) = good();
    outcome.bytes_per_node = 3 << 20;
    assert_fails(&scenario, &outcome, "bounded_memory", &["3 MiB", "3.0 times", "1 MiB", "160 messages"]);
    outcome.bytes_per_node = 0;
    assert_fails(&scenario, &outcome, "bounded_memory", &["not recorded"]);
}

#[test]
fn the_honest_must_not_be_shut_out() {
    let (scenario, mut outcome) = good();
    outcome.false_quarantines = vec![(3, 9, at(40)), (4, 8, at(38)), (5, 9, at(41))];
    assert_fails(
        &scenario,
        &outcome,
        "no_false_quarantine",
        &["2 honest nodes were", "3 times", "first node 8 by node 4 at 38 s", "node 9, by 2 others"],
    );
}

#[test]
fn what_was_planned_must_take_effect() {
    let (mut scenario, good) = good();
    assert_passes(&scenario, &good, FAULTS_TOOK_EFFECT, &["partition#1: 18,431", "equivocate#1: 312"]);

    let mut outcome = good.clone();
    outcome.faults[0].effective = 0;
    assert_fails(
        &scenario,
        &outcome,
        FAULTS_TOOK_EFFECT,
        &["partition#1 (planned 1 time, from 22 s to 30 s"],
    );
    let mut outcome = good.clone();
    outcome.adversaries[0] = Effect { effective: 0, planned: 0, ..outcome.adversaries[0].clone() };
    assert_fails(&scenario, &outcome, FAULTS_TOOK_EFFECT, &["equivocate#1 (it hits no node"]);
    outcome.adversaries[0].at = at(60);
    assert_fails(&scenario, &outcome, FAULTS_TOOK_EFFECT, &["begins at 60 s, but the run ended at 60 s"]);
    let mut outcome = good.clone();
    outcome.faults.pop();
    assert_fails(&scenario, &outcome, FAULTS_TOOK_EFFECT, &["crash#2 (the engine did not record it)"]);

    // It is given even if nothing is asked for.
    scenario.checks.clear();
    assert_eq!(check(&scenario, &outcome).len(), 1);
    scenario.faults.clear();
    scenario.adversaries.clear();
    assert_passes(&scenario, &Outcome::default(), FAULTS_TOOK_EFFECT, &["No fault and no adversary"]);
}

#[test]
fn faults_are_over_when_they_have_done_their_worst() {
    let fault = |kind, until| Fault { at: at(5), until, who: Who::All, kind };
    let over = |kind| fault(kind, Some(at(9))).over();
    assert_eq!(over(FaultKind::Partition { one_way: true }), Some(at(9)));
    assert_eq!(over(FaultKind::Crash { restart_after: Some(at(2)) }), Some(at(7)));
    assert_eq!(over(FaultKind::Crash { restart_after: None }), Some(at(5)));
    assert_eq!(over(FaultKind::Churn { per_s: 1.0, away: at(3) }), Some(at(12)));
    assert_eq!(over(FaultKind::ClockJump { by: at(1) }), Some(at(5)));
    assert_eq!(fault(FaultKind::Slow { frame_time: at(1) }, None).over(), None);
}
