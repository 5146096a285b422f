//! One relay on a bench, and what to feed it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::gossip::{self, Config, Direction, Message, Protocol, Rpc, Subscription, Topic};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::relay::{Input, Output, State, Unchecked};
use omnimesh_protocol::validate::{self, Unverified, Validator};
use omnimesh_protocol::{Identity, Mesh, MessageId, NodeId, Outbox, Seq, Step, Time, replay};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) const NOW: Step = Step(100);

pub(crate) static MESH: LazyLock<Mesh> = LazyLock::new(|| Mesh::open("test").expect("valid"));

pub(crate) fn identity(author: u8) -> Identity {
    Identity::from_seed(&[author; 32])
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::new(name).expect("valid")
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(&channel(name).topic(&MESH.id())).expect("short")
}

fn channel_of(topic: &Topic) -> String {
    Channel::from_topic(topic.as_str(), &MESH.id()).map_or("?".into(), |channel| channel.to_string())
}

pub(crate) fn sealed(author: u8, name: &str, seq: u64, step: Step, text: &str) -> Envelope {
    sealed_as(Kind::Ephemeral, author, name, seq, step, text)
}

/// The first of its author's log.
pub(crate) fn durable(author: u8, category: &str, text: &str) -> Envelope {
    sealed_as(Kind::Durable, author, category, 1, NOW, text)
}

fn sealed_as(kind: Kind, author: u8, name: &str, seq: u64, step: Step, text: &str) -> Envelope {
    let phase_interval = 100.try_into().expect("not zero");
    let mut patterns =
        PatternGenerator::new(MESH.secret().clone(), phase_interval, 1.try_into().expect("not zero"));
    let header = Header {
        mesh: MESH.id(),
        author: NodeId::from_bytes([0; 32]),
        seq: Seq(seq),
        step,
        kind,
        channel: channel(name),
        prev: None,
        timestamp_us: None,
    };
    let payloads = [Bytes::copy_from_slice(text.as_bytes())].into_iter().collect();
    Envelope::seal(&identity(author), patterns.at(step), header, payloads).expect("valid")
}

/// The same with another's signature.
pub(crate) fn with_bad_signature(envelope: &Envelope) -> Bytes {
    let mut bytes = envelope.as_bytes().to_vec();
    let at = bytes.len() - 64;
    bytes[at..].copy_from_slice(&identity(99).sign(b"something else"));
    bytes.into()
}

pub(crate) fn text(envelope: &Envelope) -> String {
    let payload = envelope.payloads().iter().next().expect("valid");
    String::from_utf8(payload.to_vec()).expect("valid")
}

/// An output in words.
fn show(output: &Output<u32>) -> String {
    use gossip::{Event, Output as G};
    match output {
        Output::Verify { message, .. } => format!("verify {}", text(message.envelope())),
        Output::Verified { from, envelope, is_subscribed, .. } => {
            format!("{} {} of {from}", if *is_subscribed { "deliver" } else { "pass on" }, text(envelope))
        }
        Output::Refused { from, channel, author, reason, .. } => {
            let channel = channel.as_ref().map_or("?", |channel| channel.as_str());
            let author = if author.is_some() { " by a member" } else { "" };
            format!("refuse {} in {channel}{author} of {from}", reason.code())
        }
        Output::Gossip(G::Send { to, rpc, class }) => {
            let sign = |subscribe| if subscribe { '+' } else { '-' };
            let subscriptions = rpc.subscriptions.iter();
            let mut words: Vec<String> =
                subscriptions.map(|s| format!("{}{}", sign(s.subscribe), channel_of(&s.topic))).collect();
            for message in &rpc.publish {
                words.push(text(&Envelope::decode(message.data(), 65_536).expect("valid")));
            }
            let control = rpc.control.as_deref().cloned().unwrap_or_default();
            words.extend(control.graft.iter().map(|topic| format!("graft {}", channel_of(topic))));
            words.extend(control.prune.iter().map(|prune| format!("prune {}", channel_of(&prune.topic))));
            words.extend(control.ihave.iter().map(|_| "ihave".to_owned()));
            format!("{class:?} to {to}: {}", words.join(", "))
        }
        Output::Gossip(G::Published { recipients, .. }) => format!("published to {recipients}"),
        Output::Gossip(G::NotPublished { reason, .. }) => format!("not published: {reason}"),
        Output::Gossip(G::Event(event)) => match event {
            Event::PeerSubscribed { peer, topic } => format!("{peer} joins {}", channel_of(topic)),
            Event::PeerUnsubscribed { peer, topic } => format!("{peer} leaves {}", channel_of(topic)),
            Event::Grafted { peer, topic } => format!("{peer} in mesh of {}", channel_of(topic)),
            Event::Pruned { peer, topic, .. } => format!("{peer} out of mesh of {}", channel_of(topic)),
            other => format!("{other:?}"),
        },
        Output::Gossip(other) => format!("{other:?}"),
    }
}

/// One relay, author 1, with a clock and timers.
pub(crate) struct Bench {
    pub(crate) state: State<u32>,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) now: Time,
    pub(crate) timers: Vec<(Time, gossip::Timer)>,
    /// What is to be verified, by text.
    pub(crate) verify: BTreeMap<String, (MessageId, Unverified)>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With its own settings of the router; synchronised.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut bench = Self::of(1, 1, change);
        bench.give(Input::Step(Some(NOW)));
        bench
    }

    pub(crate) fn of(author: u8, seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let (mut rng, mut out) = (ChaCha8Rng::seed_from_u64(seed), Outbox::new());
        let router = gossip::State::new(Arc::new(config), Time::ZERO, &mut rng, &mut out).expect("valid");
        let config = validate::Config {
            phase_interval: 100.try_into().expect("not zero"),
            pattern_cache: 64.try_into().expect("not zero"),
            message_bytes_max: 65_536,
            step_window_past: 8,
            step_window_future: 2,
            replay: replay::Config { window: 1024, authors_max: 16.try_into().expect("not zero") },
        };
        let validator = Validator::new(MESH.clone(), config, None);
        let state = State::new(identity(author).id(), router, validator);
        let timers = out.drain().map(|output| match output {
            gossip::Output::Timer { at, timer } => (at, timer),
            other => panic!("{other:?}"),
        });
        let timers = timers.collect();
        Bench { state, rng, now: Time::ZERO, timers, verify: BTreeMap::new() }
    }

    pub(crate) fn outputs(&mut self, input: Input<u32>) -> Vec<Output<u32>> {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.state.check_invariants();
        let mut kept = Vec::new();
        for output in out.drain() {
            match output {
                Output::Gossip(gossip::Output::Timer { at, timer }) => self.timers.push((at, timer)),
                Output::Gossip(gossip::Output::Validate { .. }) => panic!("the relay answers it itself"),
                output => {
                    if let Output::Verify { id, message } = &output {
                        self.verify.insert(text(message.envelope()), (*id, message.clone()));
                    }
                    kept.push(output);
                }
            }
        }
        kept
    }

    pub(crate) fn give(&mut self, input: Input<u32>) -> Vec<String> {
        self.outputs(input).iter().map(show).collect()
    }

    /// Lets time pass, heartbeats with it.
    pub(crate) fn wait(&mut self, duration: Duration) -> Vec<String> {
        let (end, mut said) = (self.now + duration, Vec::new());
        while let Some(at) = self.timers.iter().position(|(at, _)| *at <= end) {
            let (at, timer) = self.timers.swap_remove(at);
            self.now = at;
            said.extend(self.give(Input::Gossip(gossip::Input::Timer(timer))));
        }
        self.now = end;
        said
    }

    pub(crate) fn connect(&mut self, peers: impl IntoIterator<Item = u32>) {
        for peer in peers {
            let (protocol, direction) = (Protocol::Meshsub12, Direction::Inbound);
            self.give(Input::Gossip(gossip::Input::Connected { peer, protocol, direction, ip: None }));
        }
    }

    pub(crate) fn rpc(&mut self, from: u32, rpc: Rpc) -> Vec<String> {
        self.give(Input::Gossip(gossip::Input::Rpc { from, rpc }))
    }

    pub(crate) fn peer_says(&mut self, from: u32, subscribe: bool, name: &str) -> Vec<String> {
        let subscriptions = vec![Subscription { subscribe, topic: topic(name) }];
        self.rpc(from, Rpc { subscriptions, ..Rpc::default() })
    }

    pub(crate) fn message(&mut self, from: u32, name: &str, data: impl Into<Bytes>) -> Vec<String> {
        self.rpc(from, Rpc::of_message(Message::new(topic(name), data.into())))
    }

    pub(crate) fn envelope(&mut self, from: u32, envelope: &Envelope) -> Vec<String> {
        let name = envelope.header().gossiped_on().to_string();
        self.message(from, &name, envelope.as_bytes().clone())
    }

    /// The signature of the message with this text was checked.
    pub(crate) fn verified(&mut self, text: &str) -> Vec<String> {
        let (id, message) = self.verify.remove(text).expect("it is to be verified");
        self.give(Input::Verified { id, result: message.verify().map_err(Unchecked::Refused) })
    }

    pub(crate) fn stats(&self) -> gossip::Stats {
        self.state.gossip().stats().clone()
    }

    /// Connected to peers 1 to 3, all in the mesh of `news`.
    pub(crate) fn in_news() -> Self {
        let mut bench = Self::new();
        bench.connect(1..=3);
        bench.give(Input::Subscribe(channel("news")));
        for peer in 1..=3 {
            bench.peer_says(peer, true, "news");
        }
        bench
    }
}
