//! Lists of operations, hostile ones among them, against a small model of what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::gossip::{self, Control, Direction, Message, Protocol, Rpc, Subscription};
use omnimesh_protocol::relay::{Input, Output, Unchecked};
use omnimesh_protocol::validate::Unverified;
use omnimesh_protocol::{MessageId, NodeId, Seq, Step};
use proptest::prelude::*;

use crate::bench::{Bench, NOW, channel, identity, sealed, topic, with_bad_signature};

const CHANNELS: [&str; 3] = ["a", "b", "c"];

/// Messages good and bad, of this node's key and of others.
static CORPUS: LazyLock<Vec<(usize, Bytes)>> = LazyLock::new(|| {
    let mut corpus = Vec::new();
    for n in 0..36_u8 {
        let name = usize::from(n % 3);
        let (seq, step) = (1 + u64::from(n / 6), Step(94 + u64::from(n % 11)));
        let envelope = sealed(1 + n % 4, CHANNELS[name], seq, step, &format!("m{n}"));
        let bytes = envelope.as_bytes();
        let data = match n % 9 {
            6 => with_bad_signature(&envelope),
            7 => bytes.slice(..bytes.len() - 1),
            _ => bytes.clone(),
        };
        corpus.push((if n % 12 == 8 { 0 } else { name }, data));
    }
    corpus
});

#[derive(Clone, Debug)]
enum Op {
    Connect(u32),
    Disconnect(u32),
    PeerSays(u32, bool, usize),
    Graft(u32, usize),
    Messages(u32, Vec<usize>),
    Verified(usize, bool),
    Subscribe(usize),
    Unsubscribe(usize),
    Publish(usize),
    Step(Option<u64>),
    Quarantine(u8, bool),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (peer, name) = (|| 0..5_u32, || 0..CHANNELS.len());
    prop_oneof![
        3 => peer().prop_map(Op::Connect),
        1 => peer().prop_map(Op::Disconnect),
        4 => (peer(), prop::bool::weighted(0.8), name()).prop_map(|(p, s, n)| Op::PeerSays(p, s, n)),
        2 => (peer(), name()).prop_map(|(p, n)| Op::Graft(p, n)),
        12 => (peer(), prop::collection::vec(0..36_usize, 1..4)).prop_map(|(p, m)| Op::Messages(p, m)),
        12 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(n, ok)| Op::Verified(n, ok)),
        2 => name().prop_map(Op::Subscribe),
        1 => name().prop_map(Op::Unsubscribe),
        2 => name().prop_map(Op::Publish),
        2 => prop::option::weighted(0.9, 95..106_u64).prop_map(Op::Step),
        1 => (1..5_u8, any::<bool>()).prop_map(|(a, on)| Op::Quarantine(a, on)),
        2 => (0..200_u64).prop_map(Op::Wait),
    ]
}

/// What must hold whatever happens.
#[derive(Default)]
struct Model {
    subscribed: BTreeSet<usize>,
    under_way: BTreeMap<MessageId, Unverified>,
    /// Author, sequence number and step of what was accepted. (An author may use a number again in a step so
    /// much later that its earlier messages are stale.)
    accepted: BTreeSet<(NodeId, Seq, Step)>,
    published: u64,
}

impl Model {
    fn apply(&mut self, bench: &mut Bench, op: Op) -> Vec<Output<u32>> {
        let rpc = |from, rpc| Input::Gossip(gossip::Input::Rpc { from, rpc });
        let input = match op {
            Op::Connect(peer) => {
                let (protocol, direction) = (Protocol::Meshsub12, Direction::Inbound);
                Input::Gossip(gossip::Input::Connected { peer, protocol, direction, ip: None })
            }
            Op::Disconnect(peer) => Input::Gossip(gossip::Input::Disconnected { peer }),
            Op::PeerSays(peer, subscribe, n) => {
                let subscriptions = vec![Subscription { subscribe, topic: topic(CHANNELS[n]) }];
                rpc(peer, Rpc { subscriptions, ..Rpc::default() })
            }
            Op::Graft(peer, n) => {
                rpc(peer, Rpc::of_control(Control { graft: vec![topic(CHANNELS[n])], ..Control::default() }))
            }
            Op::Messages(peer, which) => {
                let message = |n: usize| Message::new(topic(CHANNELS[CORPUS[n].0]), CORPUS[n].1.clone());
                let publish = which.into_iter().map(message).collect();
                rpc(peer, Rpc { publish, ..Rpc::default() })
            }
            Op::Verified(n, is_checked) => {
                let n = n % self.under_way.len().max(1);
                let Some(id) = self.under_way.keys().nth(n).copied() else { return Vec::new() };
                let message = self.under_way.remove(&id).expect("just seen");
                let checked = message.verify().map_err(Unchecked::Refused);
                Input::Verified { id, result: if is_checked { checked } else { Err(Unchecked::Shed) } }
            }
            Op::Subscribe(n) => {
                self.subscribed.insert(n);
                Input::Subscribe(channel(CHANNELS[n]))
            }
            Op::Unsubscribe(n) => {
                self.subscribed.remove(&n);
                Input::Unsubscribe(channel(CHANNELS[n]))
            }
            Op::Publish(n) => {
                self.published += 1;
                Input::Publish(sealed(1, CHANNELS[n], 1000 + self.published, NOW, "own"))
            }
            Op::Step(step) => Input::Step(step.map(Step)),
            Op::Quarantine(author, true) => Input::Quarantine(identity(author).id()),
            Op::Quarantine(author, false) => Input::Lift(identity(author).id()),
            Op::Wait(seconds) => {
                bench.wait(Duration::from_secs(seconds));
                return Vec::new();
            }
        };
        bench.outputs(input)
    }

    fn check(&mut self, outputs: Vec<Output<u32>>, answered: Option<MessageId>) {
        for output in outputs {
            match output {
                Output::Verify { id, message } => {
                    assert!(self.under_way.insert(id, message).is_none(), "checked twice at a time");
                }
                Output::Verified { id, envelope, is_subscribed, .. } => {
                    let header = envelope.header();
                    assert_eq!(Some(id), answered, "only what was checked");
                    assert_ne!(header.author, identity(1).id(), "a node does not hear itself");
                    assert!(self.accepted.insert((header.author, header.seq, header.step)), "accepted twice");
                    let n = CHANNELS
                        .iter()
                        .position(|name| *name == header.channel.as_str())
                        .expect("one of three");
                    assert_eq!(is_subscribed, self.subscribed.contains(&n));
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(ops in prop::collection::vec(op(), 1..120)) {
        let mut bench = Bench::with(|config| config.validating_beats_max = 3);
        let mut model = Model::default();
        for op in ops {
            let before: Vec<MessageId> = model.under_way.keys().copied().collect();
            let verdicts = |stats: &gossip::Stats| {
                stats.accepted + stats.ignored + stats.rejected + stats.verdicts_late
            };
            // One more neighbour may bring what was refused before: that is told, and counts for nothing.
            let refused = |bench: &Bench| bench.state.validator().refused().iter().sum::<u64>();
            let before_it = (verdicts(&bench.stats()), refused(&bench));
            let outputs = model.apply(&mut bench, op);
            let answered = before.into_iter().find(|id| !model.under_way.contains_key(id));
            let told = outputs.iter().filter(|output| matches!(output, Output::Refused { .. })).count();
            let newly_refused = refused(&bench) - before_it.1;
            prop_assert!(newly_refused <= told as u64, "what is refused is told");
            let settled = answered.map_or(newly_refused, |_| 1);
            prop_assert_eq!(verdicts(&bench.stats()) - before_it.0, settled, "each gets one verdict");
            model.check(outputs, answered);
            prop_assert_eq!(bench.state.pending(), model.under_way.len());
        }
    }
}
