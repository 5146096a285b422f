//! Hostile and unlucky lives: no list of operations breaks an invariant.

use proptest::prelude::*;

use super::*;

/// A step of a hostile or unlucky life.
#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Fire,
    Connected(usize),
    Disconnected(usize),
    Quarantine(usize),
    Lift(usize),
    Seen(usize),
    Addresses(u8),
    Tell { from: usize, to_generation: u64, message: u8, updates: Vec<(usize, u64, bool, u16, u8)> },
    Garbage(usize, Vec<u8>),
    Leave,
}

fn op() -> impl Strategy<Value = Op> {
    let generation =
        || prop_oneof![0u64..4, Just(5), Just(6), (1u64 << 63) - 1..(1 << 63) + 2, Just(u64::MAX)];
    let incarnation = || prop_oneof![0u16..3, Just(u16::MAX)];
    let update = (0usize..12, generation(), any::<bool>(), incarnation(), 0u8..3);
    let updates = proptest::collection::vec(update, 0..8);
    prop_oneof![
        4 => (0u64..3000).prop_map(Op::Wait),
        8 => Just(Op::Fire),
        1 => (0usize..12).prop_map(Op::Connected),
        1 => (0usize..12).prop_map(Op::Disconnected),
        1 => (0usize..12).prop_map(Op::Quarantine),
        1 => (0usize..12).prop_map(Op::Lift),
        1 => (0usize..12).prop_map(Op::Seen),
        1 => any::<u8>().prop_map(Op::Addresses),
        10 => (0usize..12, generation(), 0u8..10, updates)
            .prop_map(|(from, to_generation, message, updates)| Op::Tell { from, to_generation, message, updates }),
        1 => (0usize..12, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(n, b)| Op::Garbage(n, b)),
        1 => proptest::bool::weighted(0.1).prop_map(|leaves| if leaves { Op::Leave } else { Op::Fire }),
    ]
}

fn message(tag: u8, other: Id) -> Message<Id> {
    match tag {
        0 => Message::Ping(1),
        1 => Message::Ack(1),
        2 => Message::PingReq { target: other, probe_number: 1 },
        3 => Message::IndirectPing { origin: other, probe_number: 1 },
        4 => Message::IndirectAck { target: other, probe_number: 1 },
        5 => Message::ForwardedAck { origin: other, probe_number: 1 },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead,
    }
}

fn input(op: Op) -> Option<Input> {
    Some(match op {
        Op::Wait(_) | Op::Fire => return None,
        Op::Connected(n) => Input::Connected { peer: node(n), addresses: vec![address(n); 9] },
        Op::Disconnected(n) => Input::Disconnected { peer: node(n) },
        Op::Quarantine(n) => Input::Quarantine { peer: node(n) },
        Op::Lift(n) => Input::Lift { peer: node(n) },
        Op::Seen(n) => Input::Seen { peer: node(n) },
        Op::Addresses(n) => Input::Addresses(vec![address(usize::from(n))]),
        Op::Leave => Input::Leave,
        Op::Garbage(n, bytes) => Input::Packet { from: node(n), bytes: bytes.into() },
        Op::Tell { from, to_generation, message: tag, updates } => {
            let updates: Vec<_> = updates
                .into_iter()
                .map(|(n, generation, left, incarnation, state)| {
                    let state =
                        [foca::State::Alive, foca::State::Suspect, foca::State::Down][usize::from(state)];
                    foca::Member::new(Id { left, ..life(n, generation) }, incarnation, state)
                })
                .collect();
            let updates = if matches!(tag, 6 | 9) { Vec::new() } else { updates };
            let message = message(tag, life(from / 2, to_generation));
            let bytes = packet(&life(from, to_generation), &life(0, to_generation), message, &updates);
            Input::Packet { from: node(from), bytes }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_list_of_operations_breaks_an_invariant(ops in proptest::collection::vec(op(), 1..120), seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = Config { members_max: 6, forget_after: 20 * SECOND, ..Config::default() };
        let mut a = state(0, 5, config, &mut rng);
        let (mut now, mut timer) = (Time::ZERO, None);
        let mut out = Outbox::new();
        for op in ops {
            let given = match (&op, timer) {
                (Op::Wait(millis), _) => { now = now + Duration::from_millis(*millis); continue }
                (Op::Fire, Some((at, timer))) => { now = now.max(at); Input::Timer(timer) }
                (Op::Fire, None) => continue,
                _ => input(op).unwrap(),
            };
            let generation = a.generation();
            a.handle(now, given, &mut rng, &mut out);
            a.check_invariants();
            prop_assert!(a.generation() >= generation);
            prop_assert!(out.len() < 200, "{} outputs", out.len());
            for output in out.drain() {
                match output {
                    Output::Timer { at, timer: next } => timer = Some((at, next)),
                    Output::Send { to, packet } => {
                        prop_assert!(to != node(0) && packet.len() <= PACKET_BYTES_MAX);
                        prop_assert!(Packet::decode(&packet).is_ok());
                    }
                    _ => {}
                }
            }
        }
    }
}
