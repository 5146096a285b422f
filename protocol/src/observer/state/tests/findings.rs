//! What is found: it is counted, told, costs trust unless this node doubts itself, and can be asked for.

use super::*;
use crate::id::Hash;
use crate::observer::Outcome;
use crate::observer::trust::SUSPICION_FLOOR;

#[test]
fn faults_are_counted_by_accused_and_kind_told_once_and_cost_trust() {
    let mut bench = Bench::new();
    let told = bench.refused(7, Refusal::BadPattern);
    let [Output::Found(finding)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((finding.kind, finding.count, finding.is_fault), (AnomalyKind::BadPattern, 1, true));
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(bench.refused(7, Refusal::BadPattern), []);
    bench.refused(7, Refusal::NotSynchronised);
    bench.refused(1_000, Refusal::BadSignature);
    bench.event(Event::BadFrame { from: 8, stream: "log", reason: "unknown kind 9".into() });
    assert_eq!(bench.kinds(7), [(AnomalyKind::BadPattern, 2)]);
    assert_eq!(bench.kinds(1_000), [(AnomalyKind::BadSignature, 1)]);
    assert_eq!(bench.kinds(8), [(AnomalyKind::Malformed, 1)]);
    let order: Vec<_> = bench.state.anomalies().iter().map(|f| f.kind).collect();
    assert_eq!(order, [AnomalyKind::BadPattern, AnomalyKind::BadSignature, AnomalyKind::Malformed]);
    assert!(bench.trust(7) < bench.trust(8) && bench.trust(8) < STRANGER);
    for _ in 0..10 {
        bench.refused(7, Refusal::BadPattern);
    }
    assert!(bench.score(7) < GRAYLIST);
    let told = bench.second(0);
    let score = |peer| {
        told.iter().find_map(|output| match output {
            Output::AppScore { peer: of, score } if *of == peer => Some(*score),
            _ => None,
        })
    };
    assert_eq!((score(7), score(1)), (Some(bench.score(7)), None));
}

#[test]
fn what_honest_paths_do_is_forgiven_and_more_of_it_is_not() {
    for reason in [Refusal::StaleStep, Refusal::FutureStep, Refusal::Replay] {
        let mut bench = Bench::new();
        for _ in 0..20 {
            bench.refused(7, reason);
        }
        assert_eq!(bench.trust(7), STRANGER, "{reason:?}");
        for _ in 0..60 {
            bench.second(0);
            (0..20).for_each(|_| drop(bench.refused(7, reason)));
        }
        assert!(bench.trust(7) < 0.25, "{reason:?} {}", bench.trust(7));
        assert!(bench.trust(7) >= SUSPICION_FLOOR && bench.quarantined().is_empty());
        (0..600).for_each(|_| drop(bench.second(0)));
        assert!(bench.trust(7) > 0.48);
    }
}

#[test]
fn a_node_that_doubts_itself_holds_nothing_against_others() {
    for doubt in 0..4 {
        let mut bench = Bench::new();
        for _ in 0..30 {
            match doubt {
                0 => drop(bench.give(Input::Skew(None))),
                1 => drop(bench.give(Input::Health(8))),
                2 => drop(
                    bench.give(Input::Sizes(MonitorInput { members_known: 20, ..MonitorInput::default() })),
                ),
                _ => drop(bench.second(10_000)),
            }
            bench.now = bench.now + Duration::from_millis(1_000);
            (0..30).for_each(|_| drop(bench.refused(7, Refusal::StaleStep)));
        }
        assert!(bench.trust(7) > 0.42, "{doubt}: {}", bench.trust(7));
        assert_eq!(bench.kinds(7), [(AnomalyKind::StaleStep, 900)], "it is remembered");
    }
}

#[test]
fn who_is_connected_is_company() {
    let mut bench = Bench::with(Config::default(), BTreeMap::new());
    bench.give(Input::Skew(Some(Duration::ZERO)));
    let doubt = |bench: &Bench| bench.state.doubt().value(bench.now);
    assert_eq!(doubt(&bench), 1.0, "alone");
    bench.give(Input::Connected { peer: 1, ip: None, is_inbound: true });
    assert_eq!(doubt(&bench), 0.0, "nobody else is known of");
    bench.give(Input::Disconnected { peer: 1, ip: None, is_last: true });
    assert_eq!(doubt(&bench), 1.0);
}

#[test]
fn what_everybody_does_is_this_nodes_own_fault() {
    let mut bench = Bench::new();
    for _ in 0..30 {
        bench.second(0);
        for peer in 1..=8 {
            (0..30).for_each(|_| drop(bench.refused(peer, Refusal::FutureStep)));
        }
    }
    // Until there is a crowd, the first ones are.
    let low = (1..=8).filter(|peer| bench.trust(*peer) < 0.4).count();
    assert!(low <= 4, "{low}");
    assert!(bench.trust(8) > 0.49);
}

#[test]
fn why_says_what_happened_and_how_it_comes_back() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.refused(7, Refusal::BadSignature);
    }
    let why = bench.state.why_peer(bench.now, &bench.state.subject_of(&7));
    assert_eq!(why.findings.len(), 1);
    assert!(
        why.findings[0].reason.contains("the signature is not the author's"),
        "{}",
        why.findings[0].reason
    );
    assert!(why.standing().contains("did what no honest node does"), "{}", why.standing());
    assert!(why.way_back()[0].contains("not below zero in"), "{:?}", why.way_back());
    assert_eq!(why.history.last().map(|change| change.cause), Some(Some(AnomalyKind::BadSignature)));
    bench.give(accused(3, &pair(6, 1_000), 1_001));
    let why = bench.state.why_peer(bench.now, &bench.state.subject_of(&6));
    assert!(why.standing().contains("for equivocation: evidence"), "{}", why.standing());
    assert_eq!(why.way_back()[0], "the quarantine ends at step 87400, in about 24 h");
    let nobody = bench.state.why_peer(bench.now, &Subject::Node(NodeId::from_bytes([9; 32])));
    assert_eq!((nobody.trust, nobody.way_back().len()), (STRANGER, 0));
    bench.event(Event::Step { what: "jumped", detail: "from 5 to 900".into() });
    assert_eq!(bench.state.why_step(bench.now).events[0].1, "from 5 to 900");
}

#[test]
fn stories_are_still_told() {
    let mut bench = Bench::new();
    bench.refused(7, Refusal::Replay);
    let id = MessageId::of(&bench.now.as_nanos().to_le_bytes());
    let story = bench.state.story(&id).unwrap();
    assert_eq!(story.records[0].outcome, Outcome::Ignored(Refusal::Replay));
    assert_ne!(Hash::of(b""), pair(7, 5).id());
}
