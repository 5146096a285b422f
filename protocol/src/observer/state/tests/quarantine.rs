//! Quarantine: whom it shuts out, how it outlives a restart, and how it ends.

use super::*;
use crate::observer::quarantine::{self, Released, Sentence};

#[test]
fn nobody_shuts_itself_out() {
    let mut bench = Bench::new();
    let outputs = bench.give(accused(3, &pair(ME, 1_000), 1_001));
    assert!(matches!(&outputs[..], [Output::Found(finding)] if finding.severity == Severity::Critical));
    assert_eq!(bench.give(Input::Quarantine(Author::new(ME).id())), []);
    assert_eq!(bench.quarantined(), []);
}

#[test]
fn quarantine_survives_a_restart_and_ends_by_time_and_by_lift() {
    let mut bench = Bench::new();
    for seed in [5, 6, 7] {
        bench.give(accused(3, &pair(seed, 1_000), 1_001));
    }
    let lifted = Author::new(6).id();
    assert_eq!(bench.give(Input::Lift(lifted)), [Output::Release { node: lifted, reason: Released::Lifted }]);
    let mut again = Bench::with(Config::default(), bench.saved.clone());
    let expected = |bench: &Bench| bench.quarantined();
    assert_eq!(again.quarantined(), expected(&bench));
    assert_eq!(again.state.evidence().count(), 2);
    again.become_well();
    assert_eq!(again.give(accused(3, &pair(6, 1_000), 1_001)), [], "what was lifted stays lifted");
    let worse = again.give(accused(3, &pair(6, 1_002), 1_003));
    assert!(matches!(&worse[..], [Output::Found(_), Output::Quarantine { .. }]), "new misdeeds count");
    again.step = 90_000;
    let outputs = again.second(0);
    let served =
        outputs.iter().filter(|output| matches!(output, Output::Release { reason: Released::Served, .. }));
    assert_eq!((served.count(), again.quarantined()), (3, vec![]));
    assert_eq!(again.give(accused(3, &pair(7, 1_000), 1_001)), []);
    let kinds: Vec<u8> = again.saved.keys().map(|key| key[0]).collect();
    assert_eq!(kinds, b"ppp");
    // Damage is left out.
    let mut damaged = bench.saved;
    damaged.insert(Bytes::from_static(b"e"), Bytes::from_static(b"junk"));
    for value in damaged.values_mut() {
        *value = value.slice(..value.len() - 1);
    }
    assert_eq!(Bench::with(Config::default(), damaged).quarantined(), []);
}

#[test]
fn an_operator_shuts_out_and_lets_in() {
    let config = Config { quarantine: quarantine::Config { steps: None }, ..Config::default() };
    let mut bench = Bench::with(config, BTreeMap::new());
    bench.become_well();
    let node = Author::new(7).id();
    let sentence = Sentence { kind: None, evidence: None, since: Step(1_000), until: None, is_known: true };
    assert_eq!(bench.give(Input::Quarantine(node)), [Output::Quarantine { node, sentence }]);
    let why = bench.state.why_peer(bench.now, &Subject::Node(node));
    assert!(why.standing().contains("an operator said so"), "{}", why.standing());
    assert!(why.way_back().iter().any(|way| way.contains("quarantine lift")), "{:?}", why.way_back());
    assert_eq!(bench.give(Input::Lift(node)), [Output::Release { node, reason: Released::Lifted }]);
}

#[test]
fn who_is_let_in_again_is_trusted_like_a_stranger() {
    let mut bench = Bench::new();
    bench.give(accused(3, &pair(7, 1_000), 1_001));
    assert!(bench.score(7) < GRAYLIST);
    let node = Author::new(7).id();
    let is_told =
        |outputs: &[Output<u32>]| outputs.iter().any(|o| matches!(o, Output::AppScore { peer: 7, .. }));
    assert!(!is_told(&bench.second(0)), "the router remembers scores of those who are gone");
    bench.give(Input::Lift(node));
    assert_eq!(bench.trust(7), STRANGER);
    assert!(!is_told(&bench.second(0)));
    assert_eq!(bench.kinds(7), [(AnomalyKind::Equivocation, 1)], "what it did stays told");
    let why = bench.state.why_peer(bench.now, &Subject::Node(node));
    assert_eq!(why.standing(), "like a stranger: what it did up to step 1001 is pardoned");
    bench.give(accused(3, &pair(7, 1_002), 1_003));
    assert!(bench.score(7) < GRAYLIST, "new misdeeds count");
}
