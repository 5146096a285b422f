//! Known-answer probes: messages whose content every member can compute, so that every receiver measures true
//! delivery, loss, order and latency, all the time.
//!
//! ```text
//! payload = CBOR [ 1, run, number, step, content: bytes(32) ]
//! content = keyed_hash(tag_key of step, "omnimesh probe" ‖ author ‖ LE64(run) ‖ LE64(number))
//! ```
//!
//! A node publishes one every [`Config::interval`], on channel [`CHANNEL`]; in a large mesh less often, so that all
//! together publish no more than [`Config::rate_max`] a second. `run` is drawn when a node starts, `number` counts from 1.
//! `step` is the author's when it wrote it, and at most [`STEPS_APART`] from that of the envelope.
//!
//! # Measuring
//! Of each origin the receiver keeps a window of the last 64 numbers. A number that leaves the window without having
//! come is lost; so is one after which [`LATE`] others came, and it is taken back if it still comes. What came before
//! the first is not known, so the first sets where the window begins. Wrong content is counted apart: between honest
//! nodes it means that something changed a message behind its signature.
//!
//! **Bounds.** [`Config::origins_max`] origins, the one heard least recently goes first.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use rand::RngExt;
use rand_core::Rng;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::envelope::Blob;
use crate::id::{NodeId, Step};
use crate::machine::Outbox;
use crate::pattern::{Pattern, PatternGenerator};
use crate::shape;
use crate::time::Time;

use super::statistics::Smoothed;

/// The gossip channel of probes.
pub const CHANNEL: &str = "_probe";
/// The version of the format.
pub const VERSION: u64 = 1;
/// The step of a probe and that of its envelope differ by no more.
pub const STEPS_APART: u64 = 2;
/// Numbers of an origin that are remembered.
const WINDOW: u64 = 64;
/// So many later ones make one lost.
pub const LATE: u64 = 3;
/// What precedes the rest under the hash.
const CONTENT_CONTEXT: &[u8] = b"omnimesh probe";

/// How often, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two probes of a node. Default 10 s; zero: none.
    pub interval: Duration,
    /// Probes a second of all nodes together. Default 10: of 64 B and the envelope, 3 kB/s on a link (guess).
    pub rate_max: u32,
    /// Origins that are measured. Default 4,096, 150 bytes each.
    pub origins_max: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        let origins_max = NonZeroUsize::new(4_096).expect("not zero");
        Config { interval: Duration::from_secs(10), rate_max: 10, origins_max }
    }
}

/// What the prober is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A payload of channel [`CHANNEL`] came, verified.
    Received {
        /// Who wrote it.
        author: NodeId,
        /// The step of its envelope.
        step: Step,
        /// How long it took, in microseconds.
        latency_us: Option<u64>,
        /// It.
        payload: Bytes,
    },
    /// The mesh has come to this step; `None` while not synchronised.
    Step(Option<Step>),
    /// So many members are alive, this node among them.
    Members(usize),
    /// It is known to be gone: what does not come from it is not lost.
    Gone(NodeId),
    /// A timer that was asked for.
    Timer(Timer),
}

/// When to probe; one that is not the last asked for does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer(u64);

/// What the prober wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Publish this on channel [`CHANNEL`].
    Publish(Bytes),
    /// Hand `timer` back at that time.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
}

/// What came from one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Probes that came and are right.
    pub received: u64,
    /// Probes that did not come.
    pub lost: u64,
    /// Probes that came after a later one.
    pub out_of_order: u64,
    /// Probes whose content is not what it must be.
    pub wrong: u64,
    /// Smoothed, in milliseconds.
    pub latency_ms: f64,
    /// The mean deviation of that.
    pub jitter_ms: f64,
}

impl Tally {
    /// The part that came, 0 to 1; 1 if there was nothing to come.
    pub fn delivery(&self) -> f64 {
        ratio(self.received, self.received.saturating_add(self.lost))
    }
}

/// What came from all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Origins heard of.
    pub origins: usize,
    /// Sums over all of them; latency and jitter are means.
    pub total: Tally,
    /// The part that came from the worst.
    pub worst_delivery: f64,
    /// Bytes that are no probe.
    pub malformed: u64,
}

impl Summary {
    /// For people: `verified delivery 99.98 %, 0 wrong`.
    pub fn sentence(&self) -> String {
        if self.total.received + self.total.lost + self.total.wrong == 0 {
            return "no probes yet".to_owned();
        }
        // Cut off, not rounded: 100 % is said of nothing less.
        let percent = (self.total.delivery() * 10_000.0).floor() / 100.0;
        format!("verified delivery {percent:.2} %, {} wrong", self.total.wrong)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    run: u64,
    top: u64,
    /// Bit i: number `top - i` came.
    came: u64,
    /// The first number that is known of.
    first: u64,
    tally: Tally,
    latency: Smoothed,
}

/// Sends probes, and measures those of others.
#[derive(Debug)]
pub struct State {
    config: Config,
    me: NodeId,
    patterns: PatternGenerator,
    step: Option<Step>,
    members: usize,
    run: u64,
    number: u64,
    timer: u64,
    origins: LruCache<NodeId, Origin>,
    malformed: u64,
}

impl State {
    /// A prober that has sent nothing. Pushes the first timer.
    pub fn new(
        config: Config,
        me: NodeId,
        patterns: PatternGenerator,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Outbox<Output>,
    ) -> Self {
        let mut origins = LruCache::unbounded();
        origins.resize(config.origins_max);
        let run = rng.next_u64();
        let mut state = State {
            config,
            me,
            patterns,
            step: None,
            members: 1,
            run,
            number: 0,
            timer: 0,
            origins,
            malformed: 0,
        };
        state.arm(now, rng, out);
        state
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        match input {
            Input::Received { author, step, latency_us, payload } => {
                self.on_received(author, step, latency_us, &payload);
            }
            Input::Step(step) => self.step = step,
            Input::Members(members) => self.members = members,
            Input::Gone(node) => {
                if let Some(origin) = self.origins.peek_mut(&node) {
                    (origin.top, origin.came) = (0, 0);
                }
            }
            Input::Timer(timer) if timer == Timer(self.timer) => {
                self.probe(out);
                self.arm(now, rng, out);
            }
            Input::Timer(_) => {}
        }
    }

    /// What came from one origin.
    pub fn tally(&self, origin: &NodeId) -> Option<Tally> {
        self.origins.peek(origin).map(Origin::tally)
    }

    /// What came from each, in no order that matters.
    pub fn tallies(&self) -> impl Iterator<Item = (&NodeId, Tally)> {
        self.origins.iter().map(|(node, origin)| (node, origin.tally()))
    }

    /// What came from all.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { worst_delivery: 1.0, malformed: self.malformed, ..Summary::default() };
        for (_, tally) in self.tallies() {
            let total = &mut summary.total;
            total.received = total.received.saturating_add(tally.received);
            total.lost = total.lost.saturating_add(tally.lost);
            total.out_of_order = total.out_of_order.saturating_add(tally.out_of_order);
            total.wrong = total.wrong.saturating_add(tally.wrong);
            total.latency_ms += tally.latency_ms;
            total.jitter_ms += tally.jitter_ms;
            summary.worst_delivery = summary.worst_delivery.min(tally.delivery());
            summary.origins += 1;
        }
        let origins = f64::from(u32::try_from(summary.origins.max(1)).unwrap_or(u32::MAX));
        summary.total.latency_ms /= origins;
        summary.total.jitter_ms /= origins;
        summary
    }

    fn probe(&mut self, out: &mut Outbox<Output>) {
        let Some(step) = self.step else { return };
        self.number += 1;
        let content = content(self.patterns.at(step), &self.me, self.run, self.number);
        out.push(Output::Publish(encode(self.run, self.number, step, &content)));
    }

    fn arm(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output>) {
        if self.config.interval.is_zero() {
            return;
        }
        let members = u32::try_from(self.members.max(1)).unwrap_or(u32::MAX);
        let fair = Duration::from_secs(1).saturating_mul(members) / self.config.rate_max.max(1);
        let interval = self.config.interval.max(fair);
        // Nodes that started together drift apart.
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(4);
        let wait = Duration::from_millis(rng.random_range(ms - ms / 4..=ms + ms / 4));
        self.timer += 1;
        out.push(Output::Timer { at: now + wait, timer: Timer(self.timer) });
    }

    fn on_received(&mut self, author: NodeId, step: Step, latency_us: Option<u64>, payload: &Bytes) {
        let Some((run, number, written, claimed)) = decode(payload) else {
            self.malformed = self.malformed.saturating_add(1);
            return;
        };
        let is_near = written.0.abs_diff(step.0) <= STEPS_APART;
        let expected = content(self.patterns.at(written), &author, run, number);
        let origin = self.origins.get_or_insert_mut(author, Origin::default);
        if !is_near || number == 0 || !bool::from(expected.ct_eq(claimed)) {
            origin.tally.wrong = origin.tally.wrong.saturating_add(1);
            return;
        }
        origin.take(run, number);
        if let Some(latency_us) = latency_us {
            origin.latency.add(f64::from(u32::try_from(latency_us).unwrap_or(u32::MAX)) / 1e3);
        }
    }
}

impl Origin {
    fn tally(&self) -> Tally {
        Tally { latency_ms: self.latency.mean(), jitter_ms: self.latency.deviation(), ..self.tally }
    }

    fn take(&mut self, run: u64, number: u64) {
        if self.top == 0 || run != self.run {
            (self.run, self.top, self.first, self.came) = (run, number, number, 1);
            self.tally.received += 1;
            return;
        }
        if number <= self.top {
            let back = self.top - number;
            let is_new = back < WINDOW && number >= self.first && self.came & (1 << back) == 0;
            if is_new {
                self.came |= 1 << back;
                self.tally.received += 1;
                self.tally.out_of_order += 1;
                // It was given up.
                self.tally.lost -= u64::from(back >= LATE && self.tally.lost > 0);
            }
            return;
        }
        // Each step of the top gives up the number that is now too late; those in a gap longer than the window are
        // all lost.
        let ahead = number - self.top;
        for step in 0..ahead.min(WINDOW) {
            self.came <<= 1;
            if step == ahead - 1 {
                self.came |= 1;
            }
            let top = self.top + step + 1;
            let is_due = top >= self.first.saturating_add(LATE);
            let is_lost = is_due && self.came & (1 << LATE) == 0;
            self.tally.lost = self.tally.lost.saturating_add(u64::from(is_lost));
        }
        if ahead > WINDOW {
            self.came = 1;
            self.tally.lost = self.tally.lost.saturating_add(ahead - WINDOW);
        }
        self.top = number;
        self.tally.received += 1;
    }
}

/// What a probe must say.
pub fn content(pattern: &Pattern, author: &NodeId, run: u64, number: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(pattern.tag_key());
    hasher.update(CONTENT_CONTEXT).update(author.as_bytes());
    hasher.update(&run.to_le_bytes()).update(&number.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// The payload of a probe.
pub fn encode(run: u64, number: u64, step: Step, content: &[u8; 32]) -> Bytes {
    let wire = ProbeWire(VERSION, run, number, step, Blob(content));
    serde_cbor::to_vec(&wire).expect("writing numbers and bytes to memory does not fail").into()
}

/// Reads a probe: run, number, step and content; `None` of other bytes.
pub fn decode(payload: &[u8]) -> Option<(u64, u64, Step, &[u8; 32])> {
    shape::check(payload).ok()?;
    let ProbeWire(version, run, number, step, content) = serde_cbor::from_slice(payload).ok()?;
    (version == VERSION).then_some((run, number, step, content.0.try_into().ok()?))
}

#[derive(Serialize, Deserialize)]
struct ProbeWire<'a>(u64, u64, u64, Step, #[serde(borrow)] Blob<'a>);

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::super::testing::patterns;
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    struct Bench {
        state: State,
        rng: ChaCha8Rng,
        now: Time,
        at: Time,
        timer: Timer,
    }

    impl Bench {
        fn new(n: u8, config: Config) -> Self {
            let (mut rng, mut out) = (ChaCha8Rng::seed_from_u64(n.into()), Outbox::new());
            let state = State::new(config, node(n), patterns(), Time::ZERO, &mut rng, &mut out);
            let mut bench = Bench { state, rng, now: Time::ZERO, at: Time::ZERO, timer: Timer(0) };
            bench.work_off(&mut out);
            bench.give(Input::Step(Some(Step(1_000))));
            bench
        }

        fn work_off(&mut self, out: &mut Outbox<Output>) -> Option<Bytes> {
            let mut published = None;
            for output in out.drain() {
                match output {
                    Output::Publish(payload) => published = Some(payload),
                    Output::Timer { at, timer } => (self.at, self.timer) = (at, timer),
                }
            }
            published
        }

        fn give(&mut self, input: Input) -> Option<Bytes> {
            let mut out = Outbox::new();
            self.state.handle(self.now, input, &mut self.rng, &mut out);
            self.work_off(&mut out)
        }

        fn probe(&mut self) -> Bytes {
            self.now = self.at;
            self.give(Input::Timer(self.timer)).expect("it is time")
        }

        fn receive(&mut self, from: u8, payload: &Bytes) {
            let latency_us = Some(20_000);
            let (author, step, payload) = (node(from), Step(1_001), payload.clone());
            self.give(Input::Received { author, step, latency_us, payload });
        }
    }

    #[test]
    fn all_is_measured() {
        let (mut one, mut other) = (Bench::new(1, Config::default()), Bench::new(2, Config::default()));
        assert_eq!(other.state.summary().sentence(), "no probes yet");
        let probes: Vec<Bytes> = (0..100).map(|_| one.probe()).collect();
        // Two are lost, two change places, one comes twice.
        for (n, probe) in probes.iter().enumerate() {
            match n {
                20 | 50 => {}
                30 => {
                    other.receive(1, &probes[31]);
                    other.receive(1, probe);
                }
                _ => other.receive(1, probe),
            }
        }
        other.receive(1, &probes[99]);
        let tally = other.state.tally(&node(1)).unwrap();
        assert_eq!((tally.received, tally.lost, tally.out_of_order, tally.wrong), (98, 2, 1, 0));
        assert!((tally.latency_ms - 20.0).abs() < 1e-9);
        assert_eq!(other.state.summary().sentence(), "verified delivery 98.00 %, 0 wrong");
        other.receive(1, &probes[50]);
        assert_eq!(other.state.tally(&node(1)).unwrap().lost, 1, "late is not lost");
    }

    #[test]
    fn what_was_changed_is_wrong_and_what_is_none_is_malformed() {
        let (mut one, mut other) = (Bench::new(1, Config::default()), Bench::new(2, Config::default()));
        let probe = one.probe();
        let mut changed = probe.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        other.receive(1, &changed.into());
        other.receive(3, &probe);
        other.receive(1, &Bytes::from_static(b"\x85\x02"));
        let far = encode(1, 1, Step(5), &content(patterns().at(Step(5)), &node(1), 1, 1));
        other.receive(1, &far);
        let summary = other.state.summary();
        assert_eq!((summary.total.wrong, summary.total.received, summary.malformed), (3, 0, 1));
        assert!(summary.sentence().ends_with("3 wrong"), "{}", summary.sentence());
    }

    #[test]
    fn a_restart_and_an_absence_are_no_loss() {
        let (mut one, mut other) = (Bench::new(1, Config::default()), Bench::new(2, Config::default()));
        (0..10).for_each(|_| other.receive(1, &one.probe()));
        let mut again = Bench::new(3, Config::default());
        again.state.me = node(1);
        (0..5).for_each(|_| drop(again.probe()));
        (0..10).for_each(|_| other.receive(1, &again.probe()));
        other.give(Input::Gone(node(1)));
        (0..500).for_each(|_| drop(again.probe()));
        (0..10).for_each(|_| other.receive(1, &again.probe()));
        let tally = other.state.tally(&node(1)).unwrap();
        assert_eq!((tally.received, tally.lost), (30, 0));
        (0..500).for_each(|_| drop(again.probe()));
        (0..10).for_each(|_| other.receive(1, &again.probe()));
        assert_eq!(other.state.tally(&node(1)).unwrap().lost, 500, "nobody said that it was away");
    }

    #[test]
    fn many_members_probe_more_rarely_and_origins_are_bounded() {
        let config = Config { origins_max: 8.try_into().unwrap(), ..Config::default() };
        let mut bench = Bench::new(1, config);
        let probes = |bench: &mut Bench, for_s: u64| {
            let (end, mut count) = (bench.now + Duration::from_secs(for_s), 0);
            while bench.at <= end {
                bench.probe();
                count += 1;
            }
            bench.now = end;
            count
        };
        assert!((90..=111).contains(&probes(&mut bench, 1_000)));
        bench.give(Input::Members(1_000));
        probes(&mut bench, 200);
        assert!((90..=111).contains(&probes(&mut bench, 10_000)));
        let probe = bench.probe();
        (0..=255).for_each(|origin| bench.receive(origin, &probe));
        assert_eq!(bench.state.summary().origins, 8);
        let silent = Config { interval: Duration::ZERO, ..Config::default() };
        assert_eq!(Bench::new(1, silent).at, Time::ZERO);
    }

    proptest! {
        #[test]
        fn any_order_of_any_part_adds_up(
            order in Just((1..=200_u64).collect::<Vec<_>>()).prop_shuffle(), kept in 1_usize..200
        ) {
            // Within what can be told: received and lost never exceed what was sent.
            let mut origin = Origin::default();
            for number in order.iter().take(kept) {
                origin.take(7, *number);
                origin.take(7, *number);
            }
            let Tally { received, lost, .. } = origin.tally;
            prop_assert!(received <= kept as u64);
            prop_assert!(received + lost <= 200, "{received} {lost}");
        }

        #[test]
        fn losses_in_order_are_counted_exactly(came in proptest::collection::vec(any::<bool>(), 10..300)) {
            let mut origin = Origin::default();
            let numbers: Vec<u64> = (1..).zip(&came).filter(|(_, came)| **came).map(|(n, _)| n).collect();
            numbers.iter().for_each(|number| origin.take(7, *number));
            let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
            // The last few may still come.
            let due = last.saturating_sub(LATE);
            let expected = (*first..=due).filter(|n| !numbers.contains(n)).count() as u64;
            prop_assert_eq!((origin.tally.received, origin.tally.lost), (numbers.len() as u64, expected));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
