//! One router on a bench: inputs go in, outputs are looked at, time moves by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::gossip::{
    Choke, Config, Control, Direction, Event, IHave, Input, Message, Output, Protocol, Prune, Rpc, State,
    Subscription, Timer, Topic, Verdict,
};
use omnimesh_protocol::{MessageId, Outbox, Time};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) type Out = Output<u32>;

pub(crate) struct Bench {
    pub(crate) state: State<u32>,
    pub(crate) now: Time,
    pub(crate) next_beat: (Time, Timer),
    /// The timers of tree mode that were asked for.
    pub(crate) timers: Vec<(Time, Timer)>,
    rng: ChaCha8Rng,
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a good name")
}

pub(crate) fn message(topic_name: &str, data: &str) -> Message {
    Message::new(topic(topic_name), Bytes::copy_from_slice(data.as_bytes()))
}

pub(crate) fn id(data: &str) -> MessageId {
    MessageId::of(data.as_bytes())
}

pub(crate) fn graft(topic_name: &str) -> Rpc {
    Rpc::of_control(Control { graft: vec![topic(topic_name)], ..Control::default() })
}

pub(crate) fn prune(topic_name: &str, backoff_s: Option<u64>) -> Rpc {
    Rpc::of_control(Control {
        prune: vec![Prune { topic: topic(topic_name), backoff_s }],
        ..Control::default()
    })
}

pub(crate) fn ihave(topic_name: &str, ids: &[MessageId]) -> Rpc {
    let ihave = vec![IHave { topic: topic(topic_name), ids: ids.to_vec() }];
    Rpc::of_control(Control { ihave, ..Control::default() })
}

pub(crate) fn iwant(ids: &[MessageId]) -> Rpc {
    Rpc::of_control(Control { iwant: ids.to_vec(), ..Control::default() })
}

pub(crate) fn idontwant(ids: &[MessageId]) -> Rpc {
    Rpc::of_control(Control { idontwant: ids.to_vec(), ..Control::default() })
}

pub(crate) fn choke(topic_name: &str, trees: u64) -> Rpc {
    let choke = vec![Choke { topic: topic(topic_name), trees }];
    Rpc::of_control(Control { choke, ..Control::default() })
}

pub(crate) fn unchoke(topic_name: &str, trees: u64) -> Rpc {
    let unchoke = vec![Choke { topic: topic(topic_name), trees }];
    Rpc::of_control(Control { unchoke, ..Control::default() })
}

/// Data that begin as an envelope of this author, who has the tree of this number.
pub(crate) fn authored(author: u8, rest: &[u8]) -> Bytes {
    let head = [&[0x83, 0x59, 0, 0, 0x8a, 0x01, 0x50][..], &[0; 16], &[0x58, 0x20, author], &[0; 31], rest];
    Bytes::from(head.concat())
}

pub(crate) fn subscription(topic_name: &str, subscribe: bool) -> Rpc {
    Rpc { subscriptions: vec![Subscription { subscribe, topic: topic(topic_name) }], ..Rpc::default() }
}

/// A configuration in which a mesh is never short, so that nothing is grafted unasked.
pub(crate) fn passive() -> Config {
    Config { mesh_degree_low: 0, mesh_degree_out: 0, ..Config::default() }
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut out = Outbox::new();
        let state =
            State::new(Arc::new(config), Time::ZERO, &mut rng, &mut out).expect("a valid configuration");
        let first: Vec<Out> = out.drain().collect();
        let [Output::Timer { at, timer }] = first.as_slice() else { panic!("one timer: {first:?}") };
        assert!(*at < Time::ZERO + state.config().heartbeat_interval, "the first heartbeat comes early");
        Bench { next_beat: (*at, *timer), timers: Vec::new(), state, now: Time::ZERO, rng }
    }

    pub(crate) fn handle(&mut self, input: Input<u32>) -> Vec<Out> {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.state.check_invariants();
        let mut outputs: Vec<Out> = out.drain().collect();
        outputs.retain(|output| {
            let Output::Timer { at, timer } = output else { return true };
            match timer {
                Timer::Heartbeat { .. } => self.next_beat = (*at, *timer),
                Timer::Repair { .. } | Timer::Announce { .. } => self.timers.push((*at, *timer)),
            }
            false
        });
        outputs
    }

    /// Lets the next heartbeat come.
    pub(crate) fn beat(&mut self) -> Vec<Out> {
        let (at, timer) = self.next_beat;
        self.now = at.max(self.now);
        self.handle(Input::Timer(timer))
    }

    pub(crate) fn beats(&mut self, count: usize) {
        for _ in 0..count {
            self.beat();
        }
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    pub(crate) fn connect_as(&mut self, peer: u32, protocol: Protocol, direction: Direction) -> Vec<Out> {
        self.handle(Input::Connected { peer, protocol, direction, ip: None })
    }

    pub(crate) fn connect(&mut self, peer: u32) -> Vec<Out> {
        self.connect_as(peer, Protocol::Meshsub12, Direction::Inbound)
    }

    pub(crate) fn rpc(&mut self, from: u32, rpc: Rpc) -> Vec<Out> {
        self.handle(Input::Rpc { from, rpc })
    }

    /// Lets the timers of tree mode that are due come.
    pub(crate) fn timers(&mut self) -> Vec<Out> {
        let now = self.now;
        let due: Vec<(Time, Timer)> = self.timers.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().flat_map(|(_, timer)| self.handle(Input::Timer(timer))).collect()
    }

    /// Connects nodes of OmniMesh that are in a topic.
    pub(crate) fn connect_nodes(&mut self, peers: impl IntoIterator<Item = u32>, topic_name: &str) {
        for peer in peers {
            self.connect_as(peer, Protocol::Omnimesh1, Direction::Inbound);
            self.rpc(peer, subscription(topic_name, true));
        }
    }

    /// Connects peers that are in a topic.
    pub(crate) fn connect_all(&mut self, peers: impl IntoIterator<Item = u32>, topic_name: &str) {
        for peer in peers {
            self.connect(peer);
            self.rpc(peer, subscription(topic_name, true));
        }
    }

    /// Has peers graft us.
    pub(crate) fn graft_all(&mut self, peers: impl IntoIterator<Item = u32>, topic_name: &str) {
        for peer in peers {
            self.rpc(peer, graft(topic_name));
        }
    }

    pub(crate) fn subscribe(&mut self, topic_name: &str) -> Vec<Out> {
        self.handle(Input::Subscribe(topic(topic_name)))
    }

    pub(crate) fn publish(&mut self, topic_name: &str, data: &str) -> Vec<Out> {
        self.handle(Input::Publish {
            topic: topic(topic_name),
            data: Bytes::copy_from_slice(data.as_bytes()),
        })
    }

    pub(crate) fn send(&mut self, from: u32, topic_name: &str, data: &str) -> Vec<Out> {
        self.rpc(from, Rpc::of_message(message(topic_name, data)))
    }

    pub(crate) fn verdict(&mut self, topic_name: &str, data: &str, verdict: Verdict) -> Vec<Out> {
        self.handle(Input::Verdict { topic: topic(topic_name), id: id(data), verdict })
    }

    pub(crate) fn mesh(&self, topic_name: &str) -> Vec<u32> {
        self.state.mesh_peers(&topic(topic_name))
    }

    /// The score of a peer by now.
    pub(crate) fn score(&mut self, peer: u32) -> f64 {
        // A stale timer changes nothing but the time.
        self.handle(Input::Timer(Timer::Heartbeat { beat: 0 }));
        self.state.score(&peer).expect("a known peer")
    }
}

/// Frames without events, in order.
pub(crate) fn sent(outputs: &[Out]) -> Vec<(u32, Rpc)> {
    let rpc = |output: &Out| match output {
        Output::Send { to, rpc, .. } => Some((*to, rpc.clone())),
        _ => None,
    };
    outputs.iter().filter_map(rpc).collect()
}

/// To whom messages went, in order.
pub(crate) fn receivers(outputs: &[Out]) -> Vec<u32> {
    sent(outputs).into_iter().filter(|(_, rpc)| !rpc.publish.is_empty()).map(|(to, _)| to).collect()
}

/// To whom a GRAFT went, in order.
pub(crate) fn grafted(outputs: &[Out]) -> Vec<u32> {
    let is_graft = |rpc: &Rpc| rpc.control.as_ref().is_some_and(|control| !control.graft.is_empty());
    sent(outputs).into_iter().filter(|(_, rpc)| is_graft(rpc)).map(|(to, _)| to).collect()
}

/// To whom a PRUNE went, with its backoff, in order.
pub(crate) fn pruned(outputs: &[Out]) -> Vec<(u32, Option<u64>)> {
    let prunes = |rpc: &Rpc| rpc.control.as_ref().map(|control| control.prune.clone()).unwrap_or_default();
    sent(outputs)
        .into_iter()
        .flat_map(|(to, rpc)| prunes(&rpc).into_iter().map(move |prune| (to, prune.backoff_s)))
        .collect()
}

/// To whom IHAVE went, with the number of ids, in order.
pub(crate) fn told(outputs: &[Out]) -> Vec<(u32, usize)> {
    let ids =
        |rpc: &Rpc| rpc.control.as_ref().map_or(0, |c| c.ihave.iter().map(|ihave| ihave.ids.len()).sum());
    sent(outputs).into_iter().map(|(to, rpc)| (to, ids(&rpc))).filter(|(_, ids)| *ids > 0).collect()
}

/// To whom CHOKE went, in which trees, in order.
pub(crate) fn choked(outputs: &[Out]) -> Vec<(u32, u64)> {
    let chokes = |rpc: Rpc| rpc.control.map(|control| control.choke).unwrap_or_default();
    sent(outputs)
        .into_iter()
        .flat_map(|(to, rpc)| chokes(rpc).into_iter().map(move |c| (to, c.trees)))
        .collect()
}

/// To whom UNCHOKE went, in which trees, in order.
pub(crate) fn unchoked(outputs: &[Out]) -> Vec<(u32, u64)> {
    let chokes = |rpc: Rpc| rpc.control.map(|control| control.unchoke).unwrap_or_default();
    sent(outputs)
        .into_iter()
        .flat_map(|(to, rpc)| chokes(rpc).into_iter().map(move |c| (to, c.trees)))
        .collect()
}

/// Ids asked for.
pub(crate) fn asked(outputs: &[Out]) -> Vec<MessageId> {
    let ids = |rpc: Rpc| rpc.control.map(|control| control.iwant).unwrap_or_default();
    sent(outputs).into_iter().flat_map(|(_, rpc)| ids(rpc)).collect()
}

pub(crate) fn is_validated(outputs: &[Out]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Validate { .. }))
}

pub(crate) fn events(outputs: &[Out]) -> Vec<Event<u32>> {
    let event = |output: &Out| if let Output::Event(event) = output { Some(event.clone()) } else { None };
    outputs.iter().filter_map(event).collect()
}
