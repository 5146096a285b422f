//! Bounds: neither hostile keys nor evidence of many take more memory than the configuration says.

use super::*;

#[test]
fn a_million_hostile_keys_stay_within_the_bound() {
    let config = Config {
        messages_max: 256.try_into().unwrap(),
        subjects_max: 256.try_into().unwrap(),
        authors_max: 256.try_into().unwrap(),
        ..Config::default()
    };
    let bound = config.bytes_max();
    let mut bench = Bench::with(config, BTreeMap::new());
    bench.become_well();
    let (mut rng, mut out) = (ChaCha8Rng::seed_from_u64(1), Outbox::new());
    for n in 0..1_000_000_u32 {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        let (author, id) = (NodeId::from_bytes(bytes), MessageId::of(&n.to_le_bytes()));
        let reason = Refusal::ALL[n as usize % Refusal::COUNT];
        let event = match n % 3 {
            0 => Event::Refused { id, channel: None, author: Some(author), from: 1_000 + n, reason },
            1 => Event::BadFrame { from: 1_000 + n, stream: "log", reason: "x".repeat(1_000) },
            _ => Event::Verified {
                id,
                channel: Channel::new("news").unwrap(),
                author,
                from: 1_000 + n,
                step: Step(1_000),
                payloads: 1,
                latency_us: Some(u64::from(n)),
                delivered: true,
            },
        };
        let now = bench.now + Duration::from_millis(u64::from(n));
        bench.state.handle(now, Input::Event(Step(1_000), event), &mut rng, &mut out);
        let ip = Some(IpAddr::V4(n.into()));
        let connected = Input::Connected { peer: 1_000 + n, ip, is_inbound: true };
        bench.state.handle(now, connected, &mut rng, &mut out);
        out.drain();
        if n % 50_000 == 0 {
            bench.state.check_invariants();
        }
    }
    let used = bench.state.bytes();
    println!("{used} bytes of {bound}");
    assert!(used <= bound);
    assert!(bench.state.shed() > 0);
}

#[test]
fn evidence_of_many_is_bounded() {
    let config = Config { evidence_bytes_max: 10_000, ..Config::default() };
    let mut bench = Bench::with(config, BTreeMap::new());
    bench.become_well();
    for seed in 10..100 {
        bench.give(accused(3, &pair(seed, 1_000), 1_001));
        bench.second(0);
        bench.second(0);
    }
    assert_eq!(bench.quarantined().len(), 90, "what is not kept counts as well");
    assert!((5..90).contains(&bench.state.evidence().count()));
}
