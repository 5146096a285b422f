//! One machine: exact outputs, then lists of random inputs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;
use crate::machine::Outbox;

mod mesh;
mod net;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const MS: u64 = 1_000_000;

/// One machine with its randomness and the outputs of its last input.
struct One {
    sync: StepSync<u8>,
    rng: ChaCha8Rng,
    now: Time,
}

impl One {
    fn new(config: Config, start: Start, not_before: Option<Step>) -> (Self, Vec<Output<u8>>) {
        let mut out = Outbox::new();
        let sync = StepSync::new(5, config, start, not_before, Time::ZERO, &mut out);
        let rng = ChaCha8Rng::seed_from_u64(1);
        (One { sync, rng, now: Time::ZERO }, out.drain().collect())
    }

    /// A synchronised node whose mesh time began at 100 s, connected to these peers.
    fn founder(peers: &[u8]) -> Self {
        let (mut one, _) = One::new(Config::default(), Start::Founder { wall_ns: 100 * SECOND }, None);
        for &peer in peers {
            one.input(0, Input::Connected { peer });
        }
        one
    }

    fn joiner(saved: Option<SavedOffset>, not_before: Option<Step>) -> Self {
        One::new(Config::default(), Start::Joiner { wall_ns: 7 * SECOND, saved }, not_before).0
    }

    fn input(&mut self, at_ms: u64, input: Input<u8>) -> Vec<Output<u8>> {
        self.now = self.now.max(Time::from_millis(at_ms));
        let mut out = Outbox::new();
        self.sync.handle(self.now, input, &mut self.rng, &mut out);
        self.sync.check_invariants(self.now);
        out.drain().collect()
    }

    fn frame(&mut self, at_ms: u64, from: u8, frame: Frame) -> Vec<Output<u8>> {
        self.input(at_ms, Input::Frame { from, frame })
    }

    /// Starts a round; the nonces by peer.
    fn ask(&mut self, at_ms: u64) -> BTreeMap<u8, u64> {
        self.now = self.now.max(Time::from_millis(at_ms));
        let mut out = Outbox::new();
        self.sync.request_current_step(self.now, &mut self.rng, &mut out);
        requests(out.as_slice())
    }

    /// A whole round at once: each peer answers what its clock shows.
    fn round(&mut self, at_ms: u64, answers: &[(u8, Option<u64>)]) -> Vec<Output<u8>> {
        let nonces = self.ask(at_ms);
        let mut outputs = Vec::new();
        for &(peer, mesh_time_ns) in answers {
            let nonce = nonces[&peer];
            outputs.extend(self.frame(at_ms, peer, reply(nonce, mesh_time_ns)));
        }
        outputs
    }
}

fn requests(outputs: &[Output<u8>]) -> BTreeMap<u8, u64> {
    let nonce = |output: &Output<u8>| match output {
        Output::Send { to, frame: Frame::StepRequest { nonce } } => Some((*to, *nonce)),
        _ => None,
    };
    outputs.iter().filter_map(nonce).collect()
}

fn reply(nonce: u64, mesh_time_ns: Option<u64>) -> Frame {
    Frame::StepReply { nonce, mesh_time_ns, proposal_ns: 0 }
}

fn events(outputs: &[Output<u8>]) -> Vec<Event> {
    let event = |output: &Output<u8>| match output {
        Output::Event(event) if !matches!(event, Event::Reconciled { .. }) => Some(*event),
        _ => None,
    };
    outputs.iter().filter_map(event).collect()
}

#[test]
fn a_founder_has_its_wall_clocks_step_at_once() {
    let (one, outputs) =
        One::new(Config::default(), Start::Founder { wall_ns: 100 * SECOND + 400 * MS }, None);
    assert_eq!(
        outputs,
        [
            Output::Event(Event::Synchronised { step: Step(100), origin: Origin::Founded }),
            Output::Timer { at: Time::ZERO, timer: Timer::Round(1) },
            Output::Step { step: Step(100) },
            Output::Timer { at: Time::from_millis(600), timer: Timer::Tick(1) },
        ]
    );
    let mut one = one;
    assert_eq!(
        one.input(600, Input::Timer(Timer::Tick(1))),
        [
            Output::Step { step: Step(101) },
            Output::Timer { at: Time::from_millis(1600), timer: Timer::Tick(2) },
        ]
    );
    assert_eq!(
        one.input(1700, Input::Timer(Timer::Tick(1))),
        [
            Output::Step { step: Step(102) },
            Output::Timer { at: Time::from_millis(2600), timer: Timer::Tick(3) },
        ]
    );
    assert_eq!(one.input(1700, Input::Timer(Timer::Tick(2))), []);
}

#[test]
fn requests_are_answered_with_and_without_a_step() {
    let mut one = One::founder(&[1]);
    let answer = one.frame(500, 1, Frame::StepRequest { nonce: 9 });
    let time = 100 * SECOND + 500 * MS;
    let frame = Frame::StepReply { nonce: 9, mesh_time_ns: Some(time), proposal_ns: time };
    assert_eq!(answer, [Output::Send { to: 1, frame }]);

    let mut one = One::joiner(Some(SavedOffset { offset_ns: 1 }), None);
    one.input(0, Input::Connected { peer: 1 });
    let answer = one.frame(500, 1, Frame::StepRequest { nonce: 9 });
    let frame = Frame::StepReply { nonce: 9, mesh_time_ns: None, proposal_ns: 7 * SECOND + 500 * MS + 1 };
    assert_eq!(answer, [Output::Send { to: 1, frame }]);
    assert_eq!(one.sync.step(one.now), None);
}

#[test]
fn a_round_asks_and_slews() {
    let mut one = One::founder(&[1, 2]);
    let asked = one.input(0, Input::Timer(Timer::Round(1)));
    let nonces = requests(&asked);
    assert_eq!(nonces.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(asked.last(), Some(&Output::Timer { at: Time::from_millis(500), timer: Timer::RoundEnd(1) }));
    // Both showed 100.060 s in the middle of a round trip of 40 ms, when this node had 100.020 s. Of the
    // 40 ms between, 20 may be the way's.
    assert_eq!(one.frame(40, 1, reply(nonces[&1], Some(100 * SECOND + 60 * MS))), []);
    let outputs = one.frame(40, 2, reply(nonces[&2], Some(100 * SECOND + 60 * MS)));
    let reconciled = Event::Reconciled { samples: 2, correction_ns: 20_000_000, skew_ns: 0 };
    assert_eq!(outputs[0], Output::Event(reconciled));
    assert!(matches!(outputs[1], Output::Timer { timer: Timer::Round(2), .. }));
    // 20 ms at a tenth of the time that passes are gone after 200 ms.
    assert_eq!(one.sync.mesh_time(Time::from_millis(140)), Some(100 * SECOND + 150 * MS));
    assert_eq!(one.sync.mesh_time(Time::from_millis(900)), Some(100 * SECOND + 920 * MS));
    let claim = Claim {
        mesh_time_ns: 100 * SECOND + 60 * MS,
        at: Time::from_millis(40),
        rtt: Duration::from_millis(40),
    };
    assert_eq!(one.sync.claim(1), Some(claim));
    let stats = one.sync.stats(Time::from_millis(900));
    assert_eq!((stats.samples, stats.rounds, stats.offset_ms), (2, 1, Some(20.0)));
}

#[test]
fn every_refusal_is_counted() {
    let mut one = One::founder(&[1, 2, 3, 4]);
    let nonces = one.ask(0);
    one.frame(1, 9, Frame::StepRequest { nonce: 1 });
    one.frame(1, 9, reply(1, Some(1)));
    one.frame(1, 1, reply(nonces[&1] ^ 1, Some(1)));
    one.frame(1, 1, reply(nonces[&1], Some(u64::MAX)));
    one.frame(1, 1, reply(nonces[&1], Some(1)));
    one.frame(1, 1, Frame::Goodbye(crate::control::Goodbye::Shutdown));
    one.frame(501, 2, reply(nonces[&2], Some(100 * SECOND)));
    one.input(501, Input::Timer(Timer::RoundEnd(1)));
    one.frame(502, 3, reply(nonces[&3], Some(100 * SECOND)));
    let expected = Refused {
        not_connected: 2,
        unasked: 1,
        wrong_nonce: 1,
        duplicate: 1,
        slow: 1,
        absurd: 1,
        foreign: 1,
        peers_full: 0,
    };
    assert_eq!(one.sync.stats(one.now).refused, expected);
    assert_eq!(one.sync.mesh_time(one.now), Some(100 * SECOND + 502 * MS), "nobody's word moved the clock");
}

#[test]
fn more_peers_than_the_bound_are_not_kept() {
    let mut out = Outbox::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let start = Start::Founder { wall_ns: 0 };
    let mut sync = StepSync::new(u32::MAX, Config::default(), start, None, Time::ZERO, &mut out);
    for peer in 0..5000 {
        sync.handle(Time::ZERO, Input::Connected { peer }, &mut rng, &mut out);
    }
    sync.check_invariants(Time::ZERO);
    assert_eq!(sync.stats(Time::ZERO).refused.peers_full, 5000 - PEERS_MAX as u64);
    out.drain();
    sync.request_current_step(Time::ZERO, &mut rng, &mut out);
    assert_eq!(out.len(), 16 + 1);
}

#[test]
fn a_silent_round_is_repeated_at_once() {
    let mut one = One::founder(&[1]);
    let mut outputs = one.input(0, Input::Timer(Timer::Round(1)));
    let mut delays = Vec::new();
    for round in 1..=4 {
        assert_eq!(requests(&outputs).len(), 1);
        let end = one.input(round * 1000, Input::Timer(Timer::RoundEnd(round)));
        let next = end.iter().find_map(|output| match output {
            Output::Timer { at, timer: timer @ Timer::Round(_) } => Some((*at, *timer)),
            _ => None,
        });
        let (at, timer) = next.unwrap();
        delays.push(at.as_millis() - round * 1000);
        outputs = one.input(round * 1000, Input::Timer(timer));
    }
    assert_eq!(delays[..2], [0, 0]);
    assert!((750..=1250).contains(&delays[2]), "{delays:?}");
    assert_eq!(delays[3], 0);
}

#[test]
fn a_node_far_behind_jumps_and_says_so() {
    let mut one = One::founder(&[1, 2, 3]);
    // One of three is not enough.
    let outputs = one.round(0, &[(1, Some(HOUR)), (2, Some(100 * SECOND)), (3, Some(100 * SECOND))]);
    assert_eq!(events(&outputs), []);
    let outputs = one.round(0, &[(1, Some(2 * HOUR)), (2, Some(HOUR)), (3, Some(100 * SECOND))]);
    assert_eq!(events(&outputs), [Event::Jumped { from: Step(100), to: Step(3600) }]);
    let announced = |output: &&Output<u8>| {
        matches!(output, Output::Send { frame: Frame::StepAnnounce { mesh_time_ns: HOUR }, .. })
    };
    assert_eq!(outputs.iter().filter(announced).count(), 3);
    assert!(outputs.contains(&Output::Step { step: Step(3600) }));
}

#[test]
fn a_node_far_ahead_holds_and_resumes() {
    let mut one = One::founder(&[1, 2]);
    let behind = |ms: u64| Some(90 * SECOND + ms * MS);
    let outputs = one.round(0, &[(1, behind(0)), (2, behind(0))]);
    assert_eq!(events(&outputs), [Event::Holding { ahead_ns: 10 * SECOND }]);
    assert!(one.sync.stats(one.now).holding);
    let outputs = one.round(5000, &[(1, behind(5000)), (2, behind(5000))]);
    assert_eq!(events(&outputs), []);
    assert_eq!(one.sync.mesh_time(one.now), Some(100 * SECOND));
    let outputs = one.round(9500, &[(1, behind(9500)), (2, behind(9500))]);
    assert_eq!(events(&outputs), [Event::Resumed]);
    // The last half second is slewed off.
    assert_eq!(one.sync.mesh_time(Time::from_millis(10_500)), Some(100 * SECOND + 900 * MS));
}

#[test]
fn a_joiner_listens_for_a_while_and_takes_the_median() {
    let mut one = One::joiner(None, None);
    let honest = |ms: u64| Some(HOUR + ms * MS);
    let asked = one.input(0, Input::Connected { peer: 1 });
    assert_eq!(requests(&asked).len(), 1, "asks as soon as there is somebody");
    // The only one so far is a liar: it is heard, not yet believed.
    let outputs = one.frame(10, 1, reply(requests(&asked)[&1], Some(9 * HOUR)));
    assert_eq!(events(&outputs), []);
    for peer in [2, 3] {
        let asked = one.input(20, Input::Connected { peer });
        assert!(requests(&asked).contains_key(&peer), "and joins newcomers to the round");
        for (peer, nonce) in requests(&asked) {
            one.frame(20, peer, reply(nonce, if peer == 1 { Some(9 * HOUR) } else { honest(20) }));
        }
    }
    assert_eq!(one.sync.step(one.now), None);
    let outputs = one.round(1010, &[(1, Some(9 * HOUR)), (2, honest(1010)), (3, honest(1015))]);
    let origin = Origin::Adopted { samples: 3 };
    assert_eq!(events(&outputs), [Event::Synchronised { step: Step(3601), origin }]);
    assert_eq!(one.sync.mesh_time(one.now), honest(1015));
    let announced =
        |output: &&Output<u8>| matches!(output, Output::Send { frame: Frame::StepAnnounce { .. }, .. });
    assert_eq!(outputs.iter().filter(announced).count(), 3);
}

#[test]
fn an_earlier_runs_step_is_never_gone_below() {
    let mut one = One::joiner(None, Some(Step(3610)));
    one.input(0, Input::Connected { peer: 1 });
    one.input(600, Input::Timer(Timer::RoundEnd(1)));
    one.round(1000, &[(1, Some(HOUR))]);
    let outputs = one.round(2000, &[(1, Some(HOUR + SECOND))]);
    assert_eq!(
        events(&outputs),
        [
            Event::Synchronised { step: Step(3610), origin: Origin::Adopted { samples: 1 } },
            Event::Holding { ahead_ns: 9 * SECOND },
        ]
    );
    assert_eq!(one.sync.step(Time::from_millis(11_900)), Some(Step(3610)));
    assert_eq!(one.sync.step(Time::from_millis(12_000)), Some(Step(3611)));

    let start = Start::Founder { wall_ns: 5 * SECOND };
    let (one, _) = One::new(Config::default(), start, Some(Step(50)));
    assert_eq!(one.sync.step(Time::ZERO), Some(Step(50)));
}

#[test]
fn a_restarted_node_alone_goes_on_after_the_grace_time() {
    let saved = SavedOffset { offset_ns: 60 * SECOND as i64 };
    let mut one = One::joiner(Some(saved), Some(Step(3)));
    assert_eq!(events(&one.input(4999, Input::Timer(Timer::Round(1)))), []);
    let outputs = one.input(5000, Input::Timer(Timer::Round(2)));
    assert_eq!(events(&outputs), [Event::Synchronised { step: Step(72), origin: Origin::Restored }]);
    let mut fresh = One::joiner(None, None);
    assert_eq!(events(&fresh.input(3_600_000, Input::Timer(Timer::Round(1)))), []);
    assert_eq!(fresh.sync.step(fresh.now), None, "a fresh node alone goes on waiting");
}

#[test]
fn the_smallest_of_new_nodes_founds() {
    // The node is 5; smaller ones that answer go first, each with as much time again.
    let answers = [(7, None), (9, None)];
    for (smaller, first_ms) in [(None, 5100), (Some(2), 10_100)] {
        let mut one = One::joiner(None, None);
        let answers = answers.into_iter().chain(smaller.map(|peer| (peer, None))).collect::<Vec<_>>();
        for &(peer, _) in &answers {
            one.input(100, Input::Connected { peer });
        }
        one.input(700, Input::Timer(Timer::RoundEnd(1)));
        let outputs = one.round(first_ms - 1, &answers);
        assert_eq!(events(&outputs), []);
        let outputs = one.round(first_ms, &answers);
        let step = Step(7 + first_ms / 1000);
        assert_eq!(events(&outputs), [Event::Synchronised { step, origin: Origin::Founded }]);
    }
}

#[test]
fn an_announcement_starts_a_round_and_nothing_else() {
    let mut one = One::founder(&[1, 2]);
    let announce = |ns| Frame::StepAnnounce { mesh_time_ns: ns };
    assert_eq!(one.frame(0, 1, announce(100 * SECOND + 900 * MS)), [], "too little to look at");
    let asked = one.frame(0, 1, announce(u64::MAX));
    assert_eq!(requests(&asked).len(), 2);
    assert_eq!(one.sync.mesh_time(one.now), Some(100 * SECOND));
    for (peer, nonce) in requests(&asked) {
        one.frame(0, peer, reply(nonce, Some(100 * SECOND)));
    }
    assert_eq!(one.frame(999, 1, announce(0)), [], "not so soon again");
    assert_eq!(requests(&one.frame(1000, 1, announce(0))).len(), 2);
}

#[test]
fn liars_are_reported_after_some_rounds() {
    let mut one = One::founder(&[1, 2, 3]);
    for round in 0..7 {
        let now = 100 * SECOND + round * SECOND;
        let outputs = one.round(round * 1000, &[(1, Some(now + 3 * SECOND)), (2, Some(now)), (3, Some(now))]);
        let reports: Vec<_> =
            outputs.iter().filter(|output| matches!(output, Output::Outlier { .. })).collect();
        if round % 3 == 2 {
            assert_eq!(reports, [&Output::Outlier { peer: 1, by_ns: 3 * SECOND as i64 }]);
        } else {
            assert!(reports.is_empty(), "{round}");
        }
    }
}

#[test]
fn a_process_that_stood_still_recovers() {
    let mut one = One::founder(&[1, 2]);
    let nonces = one.ask(0);
    // Ten minutes later everything is late at once. Its clock has gone on by itself.
    let late = 600_000;
    one.frame(late, 1, reply(nonces[&1], Some(100 * SECOND)));
    assert_eq!(one.sync.stats(one.now).refused.slow, 1);
    let outputs = one.input(late, Input::Timer(Timer::RoundEnd(1)));
    assert_eq!(events(&outputs), []);
    assert_eq!(one.sync.step(one.now), Some(Step(700)));
    // If its clock stood as well, it is behind, and jumps.
    let mesh = Some(1300 * SECOND);
    let outputs = one.round(late, &[(1, mesh), (2, mesh)]);
    assert_eq!(events(&outputs), [Event::Jumped { from: Step(700), to: Step(1300) }]);
}

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Connect(u8),
    Disconnect(u8),
    Reply { from: u8, good_nonce: bool, time: Option<u64> },
    Frame(u8, Frame),
    Due,
}

fn ops() -> impl Strategy<Value = Op> {
    let peer = 0u8..8;
    let time = prop_oneof![
        Just(None),
        any::<u64>().prop_map(Some),
        (0..2 * HOUR).prop_map(Some),
        (100 * SECOND..110 * SECOND).prop_map(Some)
    ];
    prop_oneof![
        (0..3 * SECOND).prop_map(Op::Wait),
        (0..3 * HOUR).prop_map(Op::Wait),
        peer.clone().prop_map(Op::Connect),
        peer.clone().prop_map(Op::Disconnect),
        (peer.clone(), prop::bool::weighted(0.9), time).prop_map(|(from, good_nonce, time)| Op::Reply {
            from,
            good_nonce,
            time
        }),
        (peer.clone(), any::<u64>())
            .prop_map(|(from, mesh_time_ns)| Op::Frame(from, Frame::StepAnnounce { mesh_time_ns })),
        (peer, any::<u64>()).prop_map(|(from, nonce)| Op::Frame(from, Frame::StepRequest { nonce })),
        Just(Op::Due),
        Just(Op::Due),
    ]
}

proptest! {
    #[test]
    fn any_inputs_keep_the_invariants(
        ops in prop::collection::vec(ops(), 1..120),
        founder: bool,
        saved in prop::option::of(any::<i64>()),
        not_before in prop::option::of(0u64..10_000),
    ) {
        let wall_ns = 100 * SECOND;
        let saved = saved.map(|offset_ns| SavedOffset { offset_ns });
        let start = if founder { Start::Founder { wall_ns } } else { Start::Joiner { wall_ns, saved } };
        let (mut one, first) = One::new(Config::default(), start, not_before.map(Step));
        let mut timers: BTreeMap<Timer, Time> = BTreeMap::new();
        let mut nonces: BTreeMap<u8, u64> = BTreeMap::new();
        let mut last = (None, None);
        let mut outputs = first;
        for op in ops.into_iter().map(Some).chain([None]) {
            for output in &outputs {
                match output {
                    Output::Timer { at, timer } => drop(timers.insert(*timer, *at)),
                    Output::Step { step } => {
                        prop_assert!(Some(*step) > last.0);
                        last.0 = Some(*step);
                    }
                    _ => {}
                }
            }
            nonces.extend(requests(&outputs));
            let mesh_ns = one.sync.mesh_time(one.now);
            prop_assert!(mesh_ns >= last.1);
            last.1 = mesh_ns;
            let now = one.now;
            outputs = match op {
                Some(Op::Wait(ns)) => {
                    one.now = now + Duration::from_nanos(ns);
                    Vec::new()
                }
                Some(Op::Connect(peer)) => one.input(0, Input::Connected { peer }),
                Some(Op::Disconnect(peer)) => one.input(0, Input::Disconnected { peer }),
                Some(Op::Reply { from, good_nonce, time }) => {
                    let nonce = nonces.get(&from).copied().filter(|_| good_nonce).unwrap_or(0);
                    one.frame(0, from, reply(nonce, time))
                }
                Some(Op::Frame(from, frame)) => one.frame(0, from, frame),
                Some(Op::Due) => {
                    let due = timers.iter().find(|(_, at)| **at <= now).map(|(timer, _)| *timer);
                    due.map_or_else(Vec::new, |timer| {
                        timers.remove(&timer);
                        one.input(0, Input::Timer(timer))
                    })
                }
                None => break,
            };
        }
    }
}
