//! Evidence: what contradicts itself is proved, everybody hears of it once, and who accuses falsely convicts himself.

use super::*;
use crate::observer::accusation::CHANNEL;

/// What it tells the mesh within some seconds.
fn told_soon(bench: &mut Bench) -> Vec<Bytes> {
    (0..3).flat_map(|_| published(&bench.second(0))).collect()
}

#[test]
fn two_messages_with_one_number_are_proved_and_everybody_hears_of_it() {
    let mut bench = Bench::new();
    let [one, two] = two_faced(7, 1_000);
    bench.give(Input::Message(one.clone()));
    let again = Input::Replayed { from: 2, data: one.as_bytes().clone() };
    assert_eq!(bench.give(again), [], "the same message again proves nothing");
    let outputs = bench.give(Input::Replayed { from: 2, data: two.as_bytes().clone() });
    let liar = Author::new(7).id();
    let [Output::Found(finding), Output::Quarantine { node, sentence }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let id = pair(7, 1_000).id();
    assert_eq!((finding.kind, finding.severity), (AnomalyKind::Equivocation, Severity::Critical));
    assert_eq!((finding.evidence, *node, sentence.evidence), (Some(id), liar, Some(id)));
    assert_eq!((sentence.since, sentence.until), (Step(1_000), Some(Step(87_400))));
    assert_eq!(bench.kinds(2), [], "who brought it did well");
    let payloads = told_soon(&mut bench);
    assert_eq!(payloads.len(), 1);

    let mut other = Bench::new();
    let heard = Input::Accused { author: Author::new(ME).id(), payload: payloads[0].clone() };
    // The other has the same key in this test, so it is told by a third.
    assert_eq!(other.give(heard), []);
    let outputs = other.give(accused(3, &pair(7, 1_000), 1_001));
    assert!(matches!(&outputs[..], [Output::Found(_), Output::Quarantine { node, .. }] if *node == liar));
    assert_eq!(other.give(accused(4, &pair(7, 1_000), 1_001)), [], "once is enough");
    assert_eq!(told_soon(&mut other), Vec::<Bytes>::new(), "what others told is told by them");
    let gate = other.give(Input::Connected { peer: 7, ip: None, is_inbound: false });
    assert_eq!(gate, [Output::Refuse { peer: 7, reason: Gate::Quarantined }]);
}

#[test]
fn what_all_find_is_told_by_the_first() {
    let mut bench = Bench::new();
    bench.give(Input::Proof(Author::new(7).fork(3, 1_000)));
    let fork = Evidence::Log(Author::new(7).fork(3, 1_000));
    assert_eq!(bench.give(accused(3, &fork, 1_001)), [], "known before");
    assert_eq!(told_soon(&mut bench), Vec::<Bytes>::new(), "another one was faster");
    // Whoever tells wakes up for it between two ticks.
    let mut out = Outbox::new();
    let mut waits: Vec<u128> = Vec::new();
    for seed in 10..60 {
        bench.state.handle(
            bench.now,
            Input::Proof(Author::new(seed).fork(3, 1_000)),
            &mut bench.rng,
            &mut out,
        );
        let timers = out.drain().filter_map(|output| match output {
            Output::Timer { at, .. } => Some(at.since(bench.now).as_millis()),
            _ => None,
        });
        waits.extend(timers);
    }
    assert!(waits.iter().any(|ms| (1..1_000).contains(ms)), "{waits:?}");
}

#[test]
fn forged_contradictions_convict_who_brings_them_of_not_checking() {
    let mut bench = Bench::new();
    let [one, two] = two_faced(7, 1_000);
    bench.give(Input::Message(one));
    let mut forged = two.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    bench.give(Input::Replayed { from: 2, data: forged.into() });
    assert_eq!(bench.quarantined(), []);
    assert_eq!(bench.kinds(2), [(AnomalyKind::BadSignature, 1)]);
    assert_eq!(bench.kinds(7), []);
}

#[test]
fn a_forked_log_is_proved_too() {
    let mut bench = Bench::new();
    let outputs = bench.give(Input::Proof(Author::new(7).fork(3, 1_000)));
    assert!(matches!(&outputs[..], [Output::Found(_), Output::Quarantine { .. }]), "{outputs:?}");
    assert_eq!(told_soon(&mut bench).len(), 1);
    let kept: Vec<_> = bench.state.evidence().collect();
    assert_eq!(Evidence::decode(&kept[0].bytes, BYTES_MAX).unwrap().id(), kept[0].id);
}

#[test]
fn a_false_accusation_convicts_who_made_it() {
    let mut bench = Bench::new();
    let mut forged = pair(7, 1_000).encode().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let accusation = Accusation::sign(&Author::new(3).identity, mesh().id(), Step(1_001), forged.into());
    let payload = accusation.encode();
    let by_others = Input::Accused { author: Author::new(4).id(), payload: payload.clone() };
    assert_eq!(bench.give(by_others), [], "nobody speaks for somebody else");
    bench.give(Input::Accused { author: Author::new(3).id(), payload });
    assert_eq!(bench.quarantined(), [Author::new(3).id()]);
    assert_eq!(bench.kinds(3), [(AnomalyKind::FalseAccusation, 1)]);
    let told = told_soon(&mut bench);
    let told = Accusation::decode(&told[0], BYTES_MAX).unwrap();
    let mut other = Bench::new();
    other.give(accused(5, &Evidence::decode(told.evidence(), BYTES_MAX).unwrap(), 1_002));
    assert_eq!(other.quarantined(), [Author::new(3).id()]);
    // What one cannot judge, and what is no accusation, convicts nobody.
    for evidence in [&b"\x83\x02\x01\x40"[..], b"\x83\x01\x09\x40"] {
        let unknown = Accusation::sign(
            &Author::new(6).identity,
            mesh().id(),
            Step(5),
            Bytes::copy_from_slice(evidence),
        );
        bench.give(Input::Accused { author: Author::new(6).id(), payload: unknown.encode() });
    }
    bench.give(Input::Accused { author: Author::new(6).id(), payload: Bytes::from_static(b"junk") });
    assert_eq!(bench.quarantined(), [Author::new(3).id()]);
    assert!(Channel::new(CHANNEL).unwrap().is_reserved());
}

#[test]
fn who_was_away_is_told() {
    let mut bench = Bench::new();
    bench.give(accused(3, &pair(7, 1_000), 1_001));
    assert_eq!((0..30).flat_map(|_| published(&bench.second(0))).count(), 0);
    bench.give(Input::Connected { peer: 100, ip: None, is_inbound: true });
    assert_eq!((0..30).flat_map(|_| published(&bench.second(0))).count(), 1);
    bench.give(Input::Connected { peer: 101, ip: None, is_inbound: true });
    assert_eq!((0..20).flat_map(|_| published(&bench.second(0))).count(), 0, "not again so soon");
    // If another tells it first, this one does not.
    (0..60).for_each(|_| drop(bench.second(0)));
    bench.give(Input::Connected { peer: 102, ip: None, is_inbound: true });
    bench.give(accused(4, &pair(7, 1_000), 1_100));
    assert_eq!((0..30).flat_map(|_| published(&bench.second(0))).count(), 0);
}
