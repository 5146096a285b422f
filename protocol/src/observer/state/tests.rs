//! What tests of the whole observer share: one with a clock in a mesh of peers, and what they tell it.

mod bounds;
mod evidence;
mod findings;
mod quarantine;
mod suspicions;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::super::accusation::Accusation;
use super::super::evidence::{Evidence, Pair};
use super::super::finding::Severity;
use super::super::testing::{Author, BYTES_MAX, mesh};
use super::super::trust::{self, STRANGER};
use super::*;
use crate::envelope::{Channel, Envelope};
use crate::id::MessageId;

const ME: u8 = 200;
const GRAYLIST: f64 = -80.0;

/// An observer with a clock, in a mesh of peers whose names are the seeds of their keys; from 1,000 on they have
/// no keys.
struct Bench {
    state: State<u32>,
    now: Time,
    step: u64,
    rng: ChaCha8Rng,
    saved: BTreeMap<Bytes, Bytes>,
    timer: Timer,
}

fn node_of(peer: &u32) -> Option<NodeId> {
    u8::try_from(*peer).ok().map(|seed| Author::new(seed).id())
}

fn start(saved: Vec<(Bytes, Bytes)>) -> Start<u32> {
    Start {
        identity: Author::new(ME).identity,
        mesh: mesh(),
        phase_interval: 100.try_into().unwrap(),
        message_bytes_max: BYTES_MAX,
        step_interval: Duration::from_secs(1),
        node_of,
        saved,
    }
}

impl Bench {
    fn with(config: Config, saved: BTreeMap<Bytes, Bytes>) -> Self {
        let mut out = Outbox::new();
        let now = Time::from_millis(1_000_000);
        let state = State::new(config, start(saved.clone().into_iter().collect()), now, &mut out);
        let rng = ChaCha8Rng::seed_from_u64(7);
        let mut bench = Bench { state, now, step: 0, rng, saved, timer: Timer(0) };
        bench.work_off(&mut out);
        bench
    }

    /// One that is well: with a step and eight peers.
    fn new() -> Self {
        let mut bench = Self::with(Config::default(), BTreeMap::new());
        bench.become_well();
        bench
    }

    fn become_well(&mut self) {
        self.give(Input::Step(Step(1_000)));
        self.step = 1_000;
        self.give(Input::Skew(Some(Duration::ZERO)));
        let sizes =
            MonitorInput { members_alive: 20, members_known: 20, peers: 8, degree: 6, is_synchronised: true };
        self.give(Input::Sizes(sizes));
        for peer in 1..=8 {
            self.give(Input::Connected { peer, ip: None, is_inbound: true });
        }
        assert_eq!(self.state.doubt().value(self.now), 0.0);
    }

    fn give(&mut self, input: Input<u32>) -> Vec<Output<u32>> {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        let outputs = self.work_off(&mut out);
        if !outputs.is_empty() {
            self.state.check_invariants();
        }
        outputs
    }

    fn work_off(&mut self, out: &mut Outbox<Output<u32>>) -> Vec<Output<u32>> {
        let mut others = Vec::new();
        for output in out.drain() {
            match output {
                Output::Put { key, value } => drop(self.saved.insert(key, value)),
                Output::Delete { key } => drop(self.saved.remove(&key)),
                Output::Timer { timer, .. } => self.timer = timer,
                output => others.push(output),
            }
        }
        others
    }

    fn event(&mut self, event: Event<u32>) -> Vec<Output<u32>> {
        self.give(Input::Event(Step(self.step), event))
    }

    /// Lets a second pass, in which the timer comes so late.
    fn second(&mut self, late_ms: u64) -> Vec<Output<u32>> {
        self.now = self.now + Duration::from_millis(1_000 + late_ms);
        self.step += 1;
        let mut outputs = self.give(Input::Step(Step(self.step)));
        outputs.extend(self.give(Input::Timer(self.timer)));
        outputs
    }

    fn refused(&mut self, from: u32, reason: Refusal) -> Vec<Output<u32>> {
        let id = MessageId::of(&self.now.as_nanos().to_le_bytes());
        self.event(Event::Refused { id, channel: None, author: None, from, reason })
    }

    fn verified(&mut self, author: u32, from: u32, latency_ms: u64) -> Vec<Output<u32>> {
        self.event(Event::Verified {
            id: MessageId::of(&self.now.as_nanos().to_le_bytes()),
            channel: Channel::new("news").unwrap(),
            author: node_of(&author).unwrap(),
            from,
            step: Step(self.step),
            payloads: 1,
            latency_us: Some(latency_ms * 1000),
            delivered: true,
        })
    }

    fn trust(&self, peer: u32) -> f64 {
        self.state.trust(self.now, &self.state.subject_of(&peer))
    }

    fn score(&self, peer: u32) -> f64 {
        trust::app_score(self.trust(peer))
    }

    fn kinds(&self, peer: u32) -> Vec<(AnomalyKind, u64)> {
        let name = self.state.subject_of(&peer).to_string();
        let all = self.state.anomalies();
        all.into_iter().filter(|f| f.accused == name).map(|f| (f.kind, f.count)).collect()
    }

    fn quarantined(&self) -> Vec<NodeId> {
        self.state.quarantined().map(|(node, _)| *node).collect()
    }
}

fn two_faced(seed: u8, step: u64) -> [Envelope; 2] {
    let mut author = Author::new(seed);
    [author.message(7, 1, step, b"one"), author.message(7, 1, step, b"two")]
}

fn accused(by: u8, evidence: &Evidence, step: u64) -> Input<u32> {
    let reporter = Author::new(by);
    let accusation = Accusation::sign(&reporter.identity, mesh().id(), Step(step), evidence.encode());
    let payload = accusation.to_payloads(BYTES_MAX).remove(0);
    Input::Accused { author: reporter.id(), payload }
}

fn pair(seed: u8, step: u64) -> Evidence {
    let [one, two] = two_faced(seed, step);
    Evidence::Pair(Pair::new(&one, &two).unwrap())
}

fn published(outputs: &[Output<u32>]) -> Vec<Bytes> {
    let payload = |output: &Output<u32>| {
        if let Output::Publish(payload) = output { Some(payload.clone()) } else { None }
    };
    outputs.iter().filter_map(payload).collect()
}
