//! What a million hostile keys make an observer of the default bounds hold, as the operating system counts it.
//!
//! In a process of its own, so that nothing else is counted.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::observer::{Config, Input, Start, State};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::{Identity, Mesh, MessageId, NodeId, Outbox, Seq, Step, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const KEYS: u32 = 1_000_000;

/// Bytes of memory in use; none where the system does not say.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib * 1024)
}

fn key(n: u32) -> NodeId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    NodeId::from_bytes(bytes)
}

#[test]
fn a_million_hostile_authors_and_peers_stay_within_the_bound() {
    let (config, mesh) = (Config::default(), Mesh::open("test").unwrap());
    let bound = config.bytes_max();
    let (mut rng, mut out) = (ChaCha8Rng::seed_from_u64(1), Outbox::new());
    let start = Start {
        identity: Identity::from_seed(&[9; 32]),
        mesh: mesh.clone(),
        phase_interval: 100.try_into().unwrap(),
        message_bytes_max: 65_536,
        step_interval: Duration::from_secs(1),
        node_of: |peer: &NodeId| Some(*peer),
        saved: Vec::new(),
    };
    let mut patterns =
        PatternGenerator::new(mesh.secret().clone(), 100.try_into().unwrap(), 8.try_into().unwrap());
    let channel = Channel::new("news").unwrap();
    // Made before anything is counted: sealing a million would take a minute.
    let mut sealed = |n: u32| {
        let header = Header {
            mesh: mesh.id(),
            author: key(n),
            seq: Seq(u64::from(n) + 1),
            step: Step(5),
            kind: Kind::Ephemeral,
            channel: channel.clone(),
            prev: None,
            timestamp_us: None,
        };
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        let payloads = [Bytes::from(vec![7; 1_000])].into_iter().collect();
        Envelope::seal(&Identity::from_seed(&seed), patterns.at(Step(5)), header, payloads).unwrap()
    };
    let envelopes: Vec<Envelope> = (0..20_000).map(&mut sealed).collect();
    let before = resident();
    let mut state = State::new(config, start, Time::ZERO, &mut out);
    for n in 0..KEYS {
        let now = Time::from_millis(u64::from(n) / 10);
        let (peer, id) = (key(n), MessageId::of(&n.to_le_bytes()));
        let ip = Some(IpAddr::V4(n.wrapping_mul(2_654_435_761).into()));
        let mut tell = |input| state.handle(now, input, &mut rng, &mut out);
        tell(Input::Connected { peer, ip, is_inbound: true });
        let reason = Refusal::ALL[n as usize % Refusal::COUNT];
        let author = key(!n);
        tell(Input::Event(
            Step(5),
            Event::Refused { id, channel: None, author: Some(author), from: peer, reason },
        ));
        let event = Event::Verified {
            id: MessageId::of(&(!n).to_le_bytes()),
            channel: channel.clone(),
            author,
            from: peer,
            step: Step(5),
            payloads: 1,
            latency_us: Some(u64::from(n)),
            delivered: true,
        };
        tell(Input::Event(Step(5), event));
        if let Some(envelope) = envelopes.get(n as usize) {
            tell(Input::Message(envelope.clone()));
        }
        tell(Input::Replayed { from: peer, data: Bytes::from_static(b"no envelope") });
        tell(Input::Accused { author, payload: Bytes::from_static(b"no accusation") });
        drop(out.drain());
        if n % 100_000 == 0 {
            state.check_invariants();
        }
    }
    let counted = state.bytes();
    assert!(counted <= bound, "{counted} of {bound} bytes by its own count");
    // What was shown to it is still held here, and was there before.
    let grown = resident().zip(before).map(|(after, before)| after.saturating_sub(before));
    println!("{counted} bytes by its own count, {grown:?} by the system's, of {bound}");
    assert!(grown.is_none_or(|grown| grown <= bound), "{grown:?} of {bound} bytes");
    drop(envelopes);
}
