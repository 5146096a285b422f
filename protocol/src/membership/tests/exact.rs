//! One machine, exactly: what it says to each input, and what it refuses.

use super::*;

#[test]
fn a_connection_is_announced_exactly() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let input = Input::Connected { peer: node(1), addresses: vec![address(1)] };
    a.handle(Time::ZERO, input, &mut rng, &mut out);
    let announce = packet(&life(0, 5), &Id::any_life(node(1)), Message::Announce, &[]);
    let [Output::Send { to, packet: sent }, Output::Timer { at, .. }] = out.as_slice() else {
        panic!("{out:?}");
    };
    assert_eq!((*to, sent), (node(1), &announce));
    assert!((Time::from_millis(2500)..Time::from_millis(7500)).contains(at), "{at}");
    assert_eq!(a.counts(), Counts { alive: 1, ..Counts::default() });
    out.drain();

    // The peer answers: it is up, and the probes begin a period later.
    let feed = packet(&life(1, 9), &life(0, 5), Message::Feed, &[]);
    a.handle(Time::from_millis(10), Input::Packet { from: node(1), bytes: feed }, &mut rng, &mut out);
    let up = Output::MemberUp { peer: node(1), addresses: vec![address(1)], cause: UpCause::Joined };
    // The next timer is that of the rumour's gossip.
    assert_eq!(out.as_slice(), [up, Output::Timer { at: Time::from_millis(310), timer: Timer { token: 2 } }]);
    assert_eq!(
        a.members().iter().map(|m| (m.id, m.state)).collect::<Vec<_>>(),
        [(node(0), MemberState::Alive), (node(1), MemberState::Alive)]
    );
    a.check_invariants();
}

#[test]
fn a_ping_is_answered_exactly_and_a_stale_timer_does_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let ping = packet(&life(1, 9), &life(0, 5), Message::Ping(77), &[]);
    a.handle(Time::ZERO, Input::Packet { from: node(1), bytes: ping }, &mut rng, &mut out);
    let sent: Vec<_> = out.drain().collect();
    let Output::Send { to, packet: ack } = &sent[1] else { panic!("{sent:?}") };
    let ack = Packet::decode(ack).unwrap();
    assert_eq!((*to, ack.header.message), (node(1), Message::Ack(77)));
    for token in [0, 2, 99] {
        a.handle(Time::from_millis(9000), Input::Timer(Timer { token }), &mut rng, &mut out);
        assert!(out.is_empty(), "{out:?}");
    }
}

#[test]
fn who_speaks_from_an_old_life_is_told_so_once_in_a_second() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut told = |at: u64, generation: u64| {
        let mut out = Outbox::new();
        let bytes = packet(&life(1, generation), &life(0, 5), Message::Gossip, &[]);
        a.handle(Time::from_millis(at), Input::Packet { from: node(1), bytes }, &mut rng, &mut out);
        a.check_invariants();
        let correction = packet(&life(0, 5), &life(1, 9), Message::Announce, &[]);
        out.drain().filter(|o| matches!(o, Output::Send { packet, .. } if *packet == correction)).count()
    };
    assert_eq!(
        [told(0, 9), told(1, 3), told(2, 3), told(1000, 3), told(1001, 3), told(1002, 9)],
        [0, 1, 0, 0, 1, 0]
    );
}

#[test]
fn every_refusal_has_its_reason() {
    let config = Config { members_max: 2, ..Config::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut a = state(0, 5, config, &mut rng);
    let (me, peer) = (life(0, 5), life(1, 9));
    let alive = |n: usize, generation| foca::Member::alive(life(n, generation));
    let gossip = |updates: &[foca::Member<Id>]| packet(&peer, &me, Message::Gossip, updates);
    let long = Bytes::from(vec![0; PACKET_BYTES_MAX + 1]);
    let as_target = Message::PingReq { target: life(7, 1), probe_number: 1 };
    let at_me = Message::PingReq { target: me.clone(), probe_number: 1 };
    let cases = [
        (1, long, Refusal::TooLong),
        (1, Bytes::from_static(b"hello"), Refusal::Malformed),
        (2, gossip(&[]), Refusal::NotTheSender),
        (1, packet(&me, &peer, Message::Gossip, &[]), Refusal::FromOurselves),
        (1, gossip(&[alive(2, u64::MAX)]), Refusal::Implausible),
        (1, gossip(&[alive(2, 1), alive(3, 1)]), Refusal::Full),
        (4, packet(&life(4, 1), &me, Message::Gossip, &[]), Refusal::Full),
        (1, packet(&peer, &me, as_target, &[]), Refusal::UnknownTarget),
        (1, packet(&peer, &me, at_me, &[]), Refusal::OutOfPlace),
    ];
    for (from, bytes, reason) in cases {
        let mut out = Outbox::new();
        let before = a.refusals().get(&reason).copied().unwrap_or(0);
        a.handle(Time::ZERO, Input::Packet { from: node(from), bytes }, &mut rng, &mut out);
        a.check_invariants();
        assert_eq!(a.refusals()[&reason], before + 1, "{reason:?}: {out:?}");
        assert!(
            out.as_slice()
                .iter()
                .any(|o| matches!(o, Output::Event(Event::Refused { reason: r, .. }) if *r == reason)),
            "{reason:?}: {out:?}"
        );
    }
    assert_eq!(a.members().len(), 3);
}

#[test]
fn a_living_newcomer_replaces_the_one_that_is_dead_for_longest() {
    let config = Config { members_max: 3, ..Config::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut a = state(0, 5, config, &mut rng);
    let mut out = Outbox::new();
    let mut tell = |at: u64, update: foca::Member<Id>| {
        let bytes = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[update]);
        a.handle(Time::from_millis(at), Input::Packet { from: node(1), bytes }, &mut rng, &mut out);
        a.check_invariants();
        a.members().iter().skip(1).map(|m| (m.id, m.state)).collect::<Vec<_>>()
    };
    use MemberState::{Alive, Dead};
    tell(0, foca::Member::down(life(2, 1)));
    let full = [(node(1), Alive), (node(2), Dead), (node(3), Dead)];
    assert_eq!(tell(1, foca::Member::down(life(3, 1))), full);
    assert_eq!(tell(2, foca::Member::down(life(4, 1))), full);
    assert_eq!(
        tell(3, foca::Member::alive(life(4, 1))),
        [(node(1), Alive), (node(3), Dead), (node(4), Alive)]
    );
}

#[test]
fn quarantine_shows_and_silences_gossip_about_others() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let gossip = |n: usize| {
        let bytes = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[foca::Member::alive(life(n, 1))]);
        Input::Packet { from: node(1), bytes }
    };
    a.handle(Time::ZERO, gossip(2), &mut rng, &mut out);
    a.handle(Time::ZERO, Input::Quarantine { peer: node(1) }, &mut rng, &mut out);
    a.handle(Time::ZERO, gossip(3), &mut rng, &mut out);
    assert_eq!(a.member_state(&node(1)), Some(MemberState::Quarantined));
    assert_eq!(a.counts(), Counts { alive: 2, quarantined: 1, ..Counts::default() });
    assert_eq!(a.member_state(&node(3)), None);
    // Nor can it talk us out of our life.
    let undead = packet(&life(1, 1), &life(0, 5), Message::TurnUndead, &[]);
    a.handle(Time::ZERO, Input::Packet { from: node(1), bytes: undead }, &mut rng, &mut out);
    assert_eq!(a.generation(), 5);
    a.handle(Time::ZERO, Input::Lift { peer: node(1) }, &mut rng, &mut out);
    a.handle(Time::ZERO, gossip(3), &mut rng, &mut out);
    assert_eq!(a.counts().alive, 4);
    // It shows as well of one that was down: it may be back without this node's hearing of it.
    let down = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[foca::Member::down(life(2, 1))]);
    a.handle(Time::ZERO, Input::Packet { from: node(1), bytes: down }, &mut rng, &mut out);
    assert_eq!(a.member_state(&node(2)), Some(MemberState::Dead));
    a.handle(Time::ZERO, Input::Quarantine { peer: node(2) }, &mut rng, &mut out);
    assert_eq!(a.member_state(&node(2)), Some(MemberState::Quarantined));
}

#[test]
fn what_is_known_of_a_member_is_shown() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let bytes = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[]);
    let peer = node(1);
    for input in [
        Input::Packet { from: peer, bytes },
        Input::Claim { peer, step: Step(7) },
        Input::Claim { peer, step: Step(6) },
        Input::Claim { peer: node(0), step: Step(8) },
        Input::Rtt { peer, rtt: SECOND },
        Input::Seen { peer: node(9) },
        Input::Rtt { peer: node(9), rtt: SECOND },
    ] {
        a.handle(Time::from_millis(1), input, &mut rng, &mut out);
    }
    a.handle(Time::from_millis(2), Input::Seen { peer }, &mut rng, &mut out);
    let member = Member {
        id: peer,
        state: MemberState::Alive,
        step: Some(Step(7)),
        addresses: vec![address(1)],
        last_seen: Time::from_millis(2),
        rtt: Some(SECOND),
    };
    let members = a.members();
    assert_eq!(members[1], member);
    assert_eq!(members[0].step, Some(Step(8)));
    assert_eq!(serde_json::to_string(&MemberState::Quarantined).unwrap(), "\"quarantined\"");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let base = Config::default();
    assert_eq!(base.check(), Ok(()));
    assert_eq!(Config { probe_rtt: 2 * SECOND, ..base.clone() }.check(), Err(ConfigError::ProbeRtt));
    assert_eq!(Config { members_max: 0, ..base }.check(), Err(ConfigError::Zero));
}
