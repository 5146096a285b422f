//! Random and mutated frames against the reader and the router.
//!
//! `OMNIMESH_FUZZ_FRAMES` sets the number of frames, `OMNIMESH_FUZZ_SEED` the seed.

use std::sync::Arc;

use bytes::Bytes;
use omnimesh_protocol::gossip::wire::{Limits, decode, encoded_len, split};
use omnimesh_protocol::gossip::{
    Config, Direction, Input, Message, Output, Protocol, Rpc, State, Timer, Topic, Verdict,
};
use omnimesh_protocol::{MessageId, Outbox, Time};
use prost::Message as _;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::bench::topic;
use crate::wire::{encoded, pb};

const PEERS: u32 = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_frame_breaks_the_router() {
    let frames = setting("OMNIMESH_FUZZ_FRAMES", 200_000);
    let seed = setting("OMNIMESH_FUZZ_SEED", 0x6f6d_6e69);
    println!(
        "OMNIMESH_FUZZ_FRAMES={frames} OMNIMESH_FUZZ_SEED={seed} cargo test -p omnimesh-protocol --test gossip fuzz"
    );
    let tally = run(seed, frames);
    println!("{tally:?}");
    assert!(tally.read > frames / 10, "enough frames are readable: {tally:?}");
    assert!(tally.unreadable > frames / 10, "enough frames are not: {tally:?}");
    assert!(tally.validated > 0 && tally.sent > 0 && tally.refused > 0, "they reach the router: {tally:?}");
}

#[derive(Debug, Default)]
struct Tally {
    read: u64,
    unreadable: u64,
    refused: u64,
    validated: u64,
    sent: u64,
    sent_away: u64,
}

struct Fuzz {
    state: State<u32>,
    rng: ChaCha8Rng,
    now: Time,
    next_beat: (Time, Timer),
    /// The timers of tree mode, in the order in which they were asked for.
    timers: Vec<(Time, Timer)>,
    /// What the router was given to judge, oldest first.
    waiting: Vec<(Topic, MessageId)>,
    /// Ids that mean something to the router.
    ids: Vec<MessageId>,
    tally: Tally,
}

/// The body: feeds `frames` frames, each from some peer, and acts on the outputs as a shell would.
fn run(seed: u64, frames: u64) -> Tally {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = Outbox::new();
    let config = Config {
        validating_max: 64,
        cache_bytes_max: 256 * 1024,
        seen_entries_max: 10_000,
        topics_per_peer_max: 8,
        idontwant_bytes_min: 100,
        ..Config::default()
    };
    let state = State::new(Arc::new(config), Time::ZERO, &mut rng, &mut out).expect("valid");
    let next_beat = (Time::ZERO, Timer::Heartbeat { beat: 1 });
    let tally = Tally::default();
    let mut fuzz = Fuzz {
        state,
        rng,
        now: Time::ZERO,
        next_beat,
        timers: Vec::new(),
        waiting: Vec::new(),
        ids: Vec::new(),
        tally,
    };
    fuzz.carry_out(&mut out);
    fuzz.handle(Input::Subscribe(topic("a")));
    fuzz.handle(Input::Subscribe(topic("b")));
    (0..PEERS).for_each(|peer| fuzz.connect(peer));
    for at in 0..frames {
        fuzz.feed_one();
        if at % 64 == 0 {
            fuzz.state.check_invariants();
        }
    }
    fuzz.state.check_invariants();
    fuzz.tally
}

impl Fuzz {
    fn connect(&mut self, peer: u32) {
        let protocol = [Protocol::Meshsub10, Protocol::Meshsub11, Protocol::Meshsub12, Protocol::Omnimesh1];
        let protocol = protocol[peer as usize % protocol.len()];
        let direction = if peer.is_multiple_of(2) { Direction::Inbound } else { Direction::Outbound };
        self.handle(Input::Connected { peer, protocol, direction, ip: None });
    }

    fn handle(&mut self, input: Input<u32>) {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.carry_out(&mut out);
    }

    fn carry_out(&mut self, out: &mut Outbox<Output<u32>>) {
        let outputs: Vec<Output<u32>> = out.drain().collect();
        let mut sent_away = Vec::new();
        for output in outputs {
            match output {
                Output::Timer { at, timer: timer @ Timer::Heartbeat { .. } } => self.next_beat = (at, timer),
                Output::Timer { at, timer } => self.timers.push((at, timer)),
                Output::Validate { topic, id, .. } => {
                    self.tally.validated += 1;
                    self.waiting.push((topic, id));
                    self.ids.push(id);
                    if self.ids.len() > 1_000 {
                        self.ids.drain(..500);
                    }
                }
                Output::Send { rpc, .. } => {
                    self.tally.sent += 1;
                    let limits = Limits::default();
                    let left_out = split(rpc, &limits, |piece| {
                        assert!(encoded_len(&piece) <= limits.frame_bytes_max);
                    });
                    assert_eq!(left_out, 0, "the router sends nothing that does not fit");
                }
                Output::Disconnect { peer, .. } => sent_away.push(peer),
                _ => {}
            }
        }
        for peer in sent_away {
            self.tally.sent_away += 1;
            self.handle(Input::Disconnected { peer });
            // Time passes until its score is no longer kept.
            self.now = self.now + std::time::Duration::from_secs(3_700);
            let (_, timer) = self.next_beat;
            self.handle(Input::Timer(timer));
            self.connect(peer);
        }
    }

    fn feed_one(&mut self) {
        self.now = self.now + std::time::Duration::from_millis(self.rng.random_range(0..20));
        if self.now >= self.next_beat.0 {
            let (_, timer) = self.next_beat;
            self.handle(Input::Timer(timer));
        }
        let now = self.now;
        let due: Vec<(Time, Timer)> = self.timers.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, timer) in due {
            self.handle(Input::Timer(timer));
        }
        let from = self.rng.random_range(0..PEERS);
        let frame = self.frame();
        match decode(&frame, &Limits::default()) {
            Err(_) => {
                self.tally.unreadable += 1;
                // Not each time, or the peers would spend their time graylisted.
                if self.rng.random_range(0..50) == 0 {
                    self.handle(Input::Malformed { from });
                }
            }
            Ok(decoded) => {
                self.tally.read += 1;
                self.tally.refused += decoded.refused.len() as u64;
                // What was read can be written, and read again as the same.
                let again = decode(&encoded(&decoded.rpc), &Limits::default()).expect("our own writing");
                assert_eq!(again.rpc, decoded.rpc);
                if self.rng.random_range(0..20) == 0 {
                    self.handle(Input::Refused { from, refused: decoded.refused });
                }
                self.handle(Input::Rpc { from, rpc: decoded.rpc });
            }
        }
        if self.rng.random_range(0..3) == 0 && !self.waiting.is_empty() {
            let at = self.rng.random_range(0..self.waiting.len());
            let (topic, id) = self.waiting.swap_remove(at);
            let verdict = match self.rng.random_range(0..40) {
                0 => Verdict::Reject,
                1..10 => Verdict::Ignore,
                _ => Verdict::Accept,
            };
            self.handle(Input::Verdict { topic, id, verdict });
        }
        if self.waiting.len() > 200 {
            self.waiting.clear();
        }
        if self.rng.random_range(0..100) == 0 {
            let data = Bytes::from(self.bytes(40));
            self.handle(Input::Publish { topic: topic("a"), data });
        }
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(0..=len_max)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Noise, a good frame, or a good frame with some bytes changed.
    fn frame(&mut self) -> Bytes {
        match self.rng.random_range(0..10) {
            0 => self.bytes(200).into(),
            1..4 => self.good_frame().into(),
            _ => {
                let mut frame = self.good_frame();
                for _ in 0..self.rng.random_range(1..4) {
                    self.mutate(&mut frame);
                }
                frame.into()
            }
        }
    }

    fn mutate(&mut self, frame: &mut Vec<u8>) {
        let at = self.rng.random_range(0..=frame.len());
        match self.rng.random_range(0..5) {
            0 if at < frame.len() => frame[at] ^= 1 << self.rng.random_range(0..8),
            1 if at < frame.len() => frame[at] = self.rng.random_range(0..=255),
            2 => frame.truncate(at),
            3 => {
                let insert = self.bytes(8);
                frame.splice(at..at, insert);
            }
            _ => {
                let to = self.rng.random_range(at..=frame.len());
                let copy = frame[at..to].to_vec();
                frame.extend(copy);
            }
        }
    }

    fn name(&mut self) -> String {
        match self.rng.random_range(0..12) {
            0 => format!("topic {}", self.rng.random_range(0..1_000)),
            1 => "x".repeat(self.rng.random_range(0..300)),
            2..6 => "b".to_owned(),
            _ => "a".to_owned(),
        }
    }

    fn some_ids(&mut self) -> Vec<Vec<u8>> {
        let count = self.rng.random_range(0..6);
        let one = |fuzz: &mut Fuzz| match fuzz.rng.random_range(0..4) {
            0 => fuzz.bytes(25),
            1 => fuzz.rng.random::<[u8; 20]>().to_vec(),
            _ if fuzz.ids.is_empty() => vec![0; 20],
            _ => fuzz.ids[fuzz.rng.random_range(0..fuzz.ids.len())].as_bytes().to_vec(),
        };
        (0..count).map(|_| one(self)).collect()
    }

    fn chance(&mut self, of: u32) -> bool {
        self.rng.random_range(0..of) == 0
    }

    /// Often the one tree that messages which are no envelopes take.
    fn trees(&mut self) -> u64 {
        if self.chance(2) { 1 } else { self.rng.random::<u64>() >> self.rng.random_range(0..64) }
    }

    fn good_frame(&mut self) -> Vec<u8> {
        let mut rpc = pb::Rpc::default();
        for _ in 0..self.rng.random_range(0..3) {
            let subscribe = (!self.chance(5)).then(|| self.chance(2));
            rpc.subscriptions.push(pb::SubOpts { subscribe, topic_id: Some(self.name()) });
        }
        for _ in 0..self.rng.random_range(0..3) {
            let data = if self.chance(3) { vec![self.rng.random_range(0..30)] } else { self.bytes(300) };
            let mut message = pb::Message { topic: self.name(), data: Some(data), ..pb::Message::default() };
            if self.chance(20) {
                message.from = Some(self.bytes(4));
            }
            if self.chance(20) {
                message.signature = Some(self.bytes(4));
            }
            rpc.publish.push(message);
        }
        if self.chance(2) {
            let mut control = pb::Control::default();
            if self.chance(2) {
                control.ihave.push(pb::IHave { topic_id: Some(self.name()), message_ids: self.some_ids() });
            }
            if self.chance(2) {
                control.iwant.push(pb::Ids { message_ids: self.some_ids() });
            }
            if self.chance(4) {
                control.graft.push(pb::Graft { topic_id: Some(self.name()) });
            }
            if self.chance(4) {
                let backoff =
                    self.chance(2).then(|| self.rng.random::<u64>() >> self.rng.random_range(0..64));
                control.prune.push(pb::Prune { topic_id: Some(self.name()), peers: vec![], backoff });
            }
            if self.chance(3) {
                control.idontwant.push(pb::Ids { message_ids: self.some_ids() });
            }
            if self.chance(4) {
                let choke = pb::Choke { topic_id: Some(self.name()), trees: Some(self.trees()) };
                if self.chance(2) { control.choke.push(choke) } else { control.unchoke.push(choke) }
            }
            rpc.control = Some(control);
        }
        rpc.encode_to_vec()
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(format!("{:?}", run(5, 2_000)), format!("{:?}", run(5, 2_000)));
}

#[test]
fn a_frame_of_many_topics_is_bounded() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut out = Outbox::new();
    let mut state: State<u32> =
        State::new(Arc::new(Config::default()), Time::ZERO, &mut rng, &mut out).expect("valid");
    let (protocol, direction) = (Protocol::Meshsub12, Direction::Inbound);
    state.handle(Time::ZERO, Input::Connected { peer: 1, protocol, direction, ip: None }, &mut rng, &mut out);
    for round in 0..100 {
        let mut rpc = Rpc::default();
        for subscribe in [true, false, true] {
            for at in 0..300 {
                let topic = topic(&format!("{round} {at}"));
                rpc.subscriptions.push(omnimesh_protocol::gossip::Subscription { subscribe, topic });
            }
        }
        rpc.publish.push(Message::new(topic("nobody's"), Bytes::new()));
        state.handle(Time::ZERO, Input::Rpc { from: 1, rpc }, &mut rng, &mut out);
        state.check_invariants();
    }
    // Of every round 300 are announced, 128 fit at first; later none do.
    assert!(state.stats().shed_subscriptions > 50_000);
}
