//! What each gate of the validator costs, against one bare `verify_strict`.
//!
//! A batch runs every gate over the same messages, one gate after the other, and the bare signature check
//! among them; its ratios are taken within the batch. Many batches follow each other, so that a change of
//! the machine's speed meets all gates alike.
//!
//! The gates are timed by the calls that the validator itself makes. Its key cache is private; what is timed
//! is a cache of the same type with the same content.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use lru::LruCache;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::identity::PublicKey;
use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::observer::{self, Start};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::replay::ReplayWindows;
use omnimesh_protocol::validate::{self, Unverified, Validator, Verified};
use omnimesh_protocol::{Identity, Mesh, MessageId, NodeId, Outbox, Seq, Step, Time, replay};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::Outcome;
use crate::stats::Spread;

/// Messages in a batch.
const MESSAGES: usize = 64;
/// The step of all messages.
const NOW: Step = Step(1_000_000);
/// The most an envelope may have.
const BYTES_MAX: usize = 65_536;
const SEED: [u8; 32] = [7; 32];
/// Peers of the observer.
const PEERS: u8 = 16;
/// The number of the message that made the author known: above all others, and within the window.
const FIRST: Seq = Seq(1 << 12);

/// The gates for one kind of message.
#[derive(Debug, Serialize)]
pub(crate) struct Gates {
    /// What the messages are.
    pub(crate) message: String,
    /// Payloads in each.
    pub(crate) payloads: usize,
    /// One bare check of a signature, in nanoseconds.
    pub(crate) verify_strict_ns: Spread,
    /// Each gate, in the order in which it stands.
    pub(crate) gates: Vec<Gate>,
    /// What the observer takes for an accepted message, of all that its verification takes.
    pub(crate) observer_share: Spread,
}

/// One gate.
#[derive(Debug, Serialize)]
pub(crate) struct Gate {
    /// Its name.
    pub(crate) name: &'static str,
    /// Nanoseconds for a message.
    pub(crate) ns: Spread,
    /// Share of one bare check of a signature.
    pub(crate) ratio: Spread,
}

/// Measures the gates for small, large and bundled messages, in so many batches each.
pub(crate) fn measure(batches: usize) -> Outcome<Vec<Gates>> {
    [("64 B", 1, 64), ("1 KiB", 1, 1024), ("32 x 64 B in one envelope", 32, 64)]
        .into_iter()
        .map(|(name, payloads, bytes)| Bench::new(payloads, bytes)?.run(name, batches))
        .collect()
}

/// The order of the rows; the first is what the others are measured against.
const NAMES: [&str; 14] = [
    "bare verify_strict",
    "shape and decode",
    "mesh and channel",
    "step window",
    "tag",
    "replay window",
    "key cache",
    "signature",
    "commit",
    "whole: precheck + verify + commit",
    "refused: stranger (bad tag)",
    "refused: random bytes",
    "refused: cut short",
    "observer: an accepted message",
];
/// The places of the whole verification and of the observer among these.
const WHOLE: usize = 9;
const OBSERVER: usize = 13;

type Times = [f64; NAMES.len()];

/// What the batches run over.
struct Bench {
    mesh: Mesh,
    channel: Channel,
    config: validate::Config,
    payloads: usize,
    good: Vec<Bytes>,
    stranger: Vec<Bytes>,
    random: Vec<Bytes>,
    cut: Vec<Bytes>,
    bare: Vec<([u8; 51], Signature)>,
    bare_key: VerifyingKey,
}

impl Bench {
    fn new(count: usize, bytes: usize) -> Outcome<Self> {
        let mut rng = ChaCha8Rng::from_seed(SEED);
        let mesh = Mesh::open("benches")?;
        let channel = Channel::new("news")?;
        let config = config()?;
        let sealed = |secret: MeshSecret| -> Outcome<Vec<Bytes>> {
            let mut patterns = PatternGenerator::new(secret, config.phase_interval, config.pattern_cache);
            let pattern = patterns.at(NOW);
            (0..MESSAGES)
                .map(|i| {
                    let payloads = (0..count).map(|_| Bytes::from(vec![7; bytes])).collect();
                    let header = header(&mesh, &channel, Seq((i * count + 1) as u64));
                    let envelope = Envelope::seal(&Identity::from_seed(&SEED), pattern, header, payloads)?;
                    Ok(envelope.as_bytes().clone())
                })
                .collect()
        };
        let good = sealed(mesh.secret().clone())?;
        let stranger = sealed(MeshSecret::open("another"))?;
        let random = |message: &Bytes| {
            let mut bytes = vec![0; message.len()];
            rng.fill_bytes(&mut bytes);
            Bytes::from(bytes)
        };
        let key = SigningKey::from_bytes(&SEED);
        let bare = (0..MESSAGES).map(|i| {
            let mut message = [0; 51];
            message[..8].copy_from_slice(&(i as u64).to_le_bytes());
            (message, key.sign(&message))
        });
        Ok(Bench {
            random: good.iter().map(random).collect(),
            cut: good.iter().map(|message| message.slice(..message.len() - 1)).collect(),
            bare: bare.collect(),
            bare_key: key.verifying_key(),
            mesh,
            channel,
            config,
            payloads: count,
            good,
            stranger,
        })
    }

    fn run(&self, message: &str, batches: usize) -> Outcome<Gates> {
        let mut columns = vec![Vec::with_capacity(batches); NAMES.len()];
        let mut ratios = columns.clone();
        let mut shares = Vec::with_capacity(batches);
        // The first one warms up.
        for batch in 0..=batches {
            let times = self.batch()?;
            if batch == 0 {
                continue;
            }
            shares.push(times[OBSERVER] / times[WHOLE]);
            for (i, time) in times.iter().enumerate() {
                columns[i].push(*time);
                ratios[i].push(*time / times[0]);
            }
        }
        let bare = Spread::of(columns[0].clone());
        let rows = NAMES.into_iter().zip(columns).zip(ratios).skip(1);
        let gates =
            rows.map(|((name, ns), ratio)| Gate { name, ns: Spread::of(ns), ratio: Spread::of(ratio) });
        Ok(Gates {
            message: message.to_owned(),
            payloads: self.payloads,
            verify_strict_ns: bare,
            gates: gates.collect(),
            observer_share: Spread::of(shares),
        })
    }

    /// Every gate once over all messages: nanoseconds for each message.
    fn batch(&self) -> Outcome<Times> {
        let mut times = Times::default();
        let (mesh, channel) = (self.mesh.id(), &self.channel);
        let mut patterns = PatternGenerator::new(
            self.mesh.secret().clone(),
            self.config.phase_interval,
            self.config.pattern_cache,
        );
        let mut replay = ReplayWindows::new(&self.config.replay, None);
        let author = Identity::from_seed(&SEED).id();
        replay.commit(&author, FIRST, 1, NOW, NOW).map_err(|reason| reason.to_string())?;
        let key = PublicKey::new(&author).ok_or("a good key")?;
        let mut keys: LruCache<NodeId, PublicKey> = LruCache::new(self.config.replay.authors_max);
        keys.put(author, key.clone());
        let envelopes: Vec<Envelope> =
            self.good.iter().filter_map(|m| Envelope::decode(m, BYTES_MAX).ok()).collect();

        times[0] =
            each(&self.bare, |(message, signature)| self.bare_key.verify_strict(message, signature).is_ok());
        times[1] = each(&self.good, |message| Envelope::decode(message, BYTES_MAX).is_ok());
        times[2] = each(&envelopes, |e| e.header().mesh == mesh && e.header().channel == *channel);
        times[3] = each(&envelopes, |e| {
            let (step, config) = (e.header().step, &self.config);
            step >= NOW.saturating_sub(config.step_window_past)
                && step <= NOW.saturating_add(config.step_window_future)
        });
        times[4] = each(&envelopes, |e| e.is_tag_of(patterns.at(e.header().step)));
        times[5] = each(&envelopes, |e| {
            let header = e.header();
            replay.is_new(&header.author, header.seq, e.payloads().len() as u64, header.step).is_ok()
        });
        times[6] = each(&envelopes, |e| keys.get(&e.header().author).cloned().is_some());
        times[7] = each(&envelopes, |e| e.is_signed_by(&key));
        (times[8], times[9]) = self.stateful()?;
        times[10] = self.refused(&self.stranger)?;
        times[11] = self.refused(&self.random)?;
        times[12] = self.refused(&self.cut)?;
        times[OBSERVER] = self.observed(&envelopes);
        Ok(times)
    }

    /// Commit alone, and the whole: each in a validator that knows the author and not these numbers.
    fn stateful(&self) -> Outcome<(f64, f64)> {
        let mut whole = self.validator()?;
        let all = each(&self.good, |message| {
            let passed = whole.precheck(Some(NOW), &self.channel, message).ok();
            let verified = passed.and_then(|message| message.verify().ok());
            verified.and_then(|verified| whole.commit(NOW, verified).ok()).is_some()
        });
        let mut validator = self.validator()?;
        let passed = |message: &Bytes| validator.precheck(Some(NOW), &self.channel, message).ok();
        let messages: Vec<Unverified> = self.good.iter().filter_map(passed).collect();
        let verified: Vec<Verified> = messages.into_iter().filter_map(|m| m.verify().ok()).collect();
        let count = verified.len();
        let begin = Instant::now();
        let accepted = verified.into_iter().filter_map(|message| validator.commit(NOW, message).ok()).count();
        let commit = per_item(begin, count);
        if accepted != MESSAGES {
            return Err(format!("{accepted} of {MESSAGES} messages were accepted").into());
        }
        Ok((commit, all))
    }

    /// What an observer takes that has peers, has seen messages and is told of these, as the node tells it.
    fn observed(&self, envelopes: &[Envelope]) -> f64 {
        let mut out = Outbox::new();
        let mut rng = ChaCha8Rng::from_seed(SEED);
        let start = Start {
            identity: Identity::from_seed(&[8; 32]),
            mesh: self.mesh.clone(),
            phase_interval: self.config.phase_interval,
            message_bytes_max: BYTES_MAX,
            step_interval: Duration::from_secs(1),
            node_of: |peer: &NodeId| Some(*peer),
            saved: Vec::new(),
        };
        let mut state = observer::State::new(observer::Config::default(), start, Time::ZERO, &mut out);
        let peers: Vec<NodeId> = (1..=PEERS).map(|n| Identity::from_seed(&[n; 32]).id()).collect();
        let mut tell = |at: u64, input| state.handle(Time::from_millis(at), input, &mut rng, &mut out);
        for peer in &peers {
            tell(1, observer::Input::Connected { peer: *peer, ip: None, is_inbound: true });
        }
        let inputs = |id: MessageId, envelope: Envelope, from: NodeId| {
            let header = envelope.header();
            let event = Event::Verified {
                id,
                channel: header.channel.clone(),
                author: header.author,
                from,
                step: header.step,
                payloads: envelope.payloads().len(),
                latency_us: Some(80_000),
                delivered: true,
            };
            [observer::Input::Event(NOW, event), observer::Input::Message(envelope)]
        };
        // The router knows the id already, and the observer gets the node's envelope, not one of its own.
        let told: Vec<_> =
            envelopes.iter().zip(peers.iter().cycle()).map(|(e, p)| (e.id(), e.clone(), *p)).collect();
        // The cost of making the inputs is the observer's, too, and so is that of dropping them.
        let begin = Instant::now();
        for (id, envelope, from) in told {
            inputs(id, envelope, from).into_iter().for_each(|input| tell(2_000, black_box(input)));
        }
        let time = per_item(begin, envelopes.len());
        drop(out.drain());
        time
    }

    /// A validator that has accepted one message of the author.
    fn validator(&self) -> Outcome<Validator> {
        let mut validator = Validator::new(self.mesh.clone(), self.config.clone(), None);
        let mut patterns = PatternGenerator::new(
            self.mesh.secret().clone(),
            self.config.phase_interval,
            self.config.pattern_cache,
        );
        let payloads = [Bytes::from_static(b"first")].into_iter().collect();
        let header = header(&self.mesh, &self.channel, FIRST);
        let first = Envelope::seal(&Identity::from_seed(&SEED), patterns.at(NOW), header, payloads)?;
        let judged = validator.precheck(Some(NOW), &self.channel, first.as_bytes());
        let unverified = judged.map_err(|(reason, _)| reason.to_string())?;
        let verified = unverified.verify().map_err(|reason| reason.to_string())?;
        validator.commit(NOW, verified).map_err(|reason| reason.to_string())?;
        Ok(validator)
    }

    /// How long it takes to refuse each of these; an error if one is not refused.
    fn refused(&self, messages: &[Bytes]) -> Outcome<f64> {
        let mut validator = self.validator()?;
        let mut passed = 0;
        let time = each(messages, |message| {
            let refused = validator.precheck(Some(NOW), &self.channel, message).is_err();
            passed += usize::from(!refused);
            refused
        });
        if passed > 0 { Err("a message passed that should be refused".into()) } else { Ok(time) }
    }
}

fn config() -> Outcome<validate::Config> {
    Ok(validate::Config {
        phase_interval: 100.try_into()?,
        pattern_cache: NonZeroUsize::new(256).ok_or("not zero")?,
        message_bytes_max: BYTES_MAX,
        step_window_past: 8,
        step_window_future: 2,
        replay: replay::Config { window: 1 << 13, authors_max: NonZeroUsize::new(65_536).ok_or("not zero")? },
    })
}

fn header(mesh: &Mesh, channel: &Channel, seq: Seq) -> Header {
    Header {
        mesh: mesh.id(),
        author: NodeId::from_bytes([0; 32]),
        seq,
        step: NOW,
        kind: Kind::Ephemeral,
        channel: channel.clone(),
        prev: None,
        timestamp_us: Some(1_700_000_000_000_000),
    }
}

/// Runs `work` over all items: nanoseconds for each.
fn each<T>(items: &[T], mut work: impl FnMut(&T) -> bool) -> f64 {
    let begin = Instant::now();
    for item in items {
        black_box(work(black_box(item)));
    }
    per_item(begin, items.len())
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn per_item(begin: Instant, items: usize) -> f64 {
    begin.elapsed().as_nanos() as f64 / items.max(1) as f64
}
