//! `gossip_frames.json`

use bytes::{Bytes, BytesMut};
use omnimesh_protocol::MessageId;
use omnimesh_protocol::gossip::wire::{self, Limits, RefusedReason};
use omnimesh_protocol::gossip::{Choke, Control, IHave, Message, Prune, Rpc, Subscription, Topic};
use serde::{Deserialize, Serialize};

use crate::draft::{draft, mesh};
use crate::{Hex, Num, settle, varint};

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    frame: Hex,
    /// With the length before it, as on a stream.
    on_stream: Hex,
    /// What it says; absent if the frame cannot be read.
    says: Option<Says>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
struct Says {
    subscriptions: Vec<SubscriptionFields>,
    messages: Vec<MessageFields>,
    refused_messages: Vec<String>,
    ihave: Vec<IHaveFields>,
    iwant: Vec<Hex>,
    graft: Vec<String>,
    prune: Vec<PruneFields>,
    idontwant: Vec<Hex>,
    choke: Vec<ChokeFields>,
    unchoke: Vec<ChokeFields>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct SubscriptionFields {
    subscribe: bool,
    topic: String,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct MessageFields {
    topic: String,
    data: Hex,
    message_id: Hex,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct IHaveFields {
    topic: String,
    ids: Vec<Hex>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct PruneFields {
    topic: String,
    backoff_s: Option<Num>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct ChokeFields {
    topic: String,
    trees: Num,
}

fn chokes(chokes: &[Choke]) -> Vec<ChokeFields> {
    chokes.iter().map(|c| ChokeFields { topic: c.topic.as_str().to_owned(), trees: Num(c.trees) }).collect()
}

fn ids(ids: &[MessageId]) -> Vec<Hex> {
    ids.iter().map(|id| id.as_bytes().into()).collect()
}

fn refusal(reason: RefusedReason) -> String {
    let field = match reason {
        RefusedReason::From => "from",
        RefusedReason::Seqno => "seqno",
        RefusedReason::Signature => "signature",
        RefusedReason::Key => "key",
        RefusedReason::NoTopic => "no topic",
    };
    field.to_owned()
}

fn read(frame: &[u8]) -> Option<Says> {
    let decoded = wire::decode(&Bytes::copy_from_slice(frame), &Limits::default()).ok()?;
    let control = decoded.rpc.control.unwrap_or_default();
    let text = |topic: &Topic| topic.as_str().to_owned();
    Some(Says {
        subscriptions: (decoded.rpc.subscriptions.iter())
            .map(|s| SubscriptionFields { subscribe: s.subscribe, topic: text(&s.topic) })
            .collect(),
        messages: (decoded.rpc.publish.iter())
            .map(|m| MessageFields {
                topic: text(m.topic()),
                data: m.data().into(),
                message_id: m.id().as_bytes().into(),
            })
            .collect(),
        refused_messages: decoded.refused.iter().map(|refused| refusal(refused.reason)).collect(),
        ihave: (control.ihave.iter())
            .map(|i| IHaveFields { topic: text(&i.topic), ids: ids(&i.ids) })
            .collect(),
        iwant: ids(&control.iwant),
        graft: control.graft.iter().map(text).collect(),
        prune: (control.prune.iter())
            .map(|p| PruneFields { topic: text(&p.topic), backoff_s: p.backoff_s.map(Num) })
            .collect(),
        idontwant: ids(&control.idontwant),
        choke: chokes(&control.choke),
        unchoke: chokes(&control.unchoke),
    })
}

fn case(comment: &str, frame: &[u8]) -> Case {
    Case {
        comment: comment.to_owned(),
        frame: frame.into(),
        on_stream: [varint(frame.len()), frame.to_vec()].concat().into(),
        says: read(frame),
    }
}

fn written(comment: &str, rpc: &Rpc) -> Case {
    let mut bytes = BytesMut::new();
    wire::encode(rpc, &mut bytes);
    let case = case(comment, &bytes);
    assert!(case.says.is_some(), "{comment}");
    case
}

/// A protobuf field of bytes.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [vec![number << 3 | 2], varint(content.len()), content.to_vec()].concat()
}

fn topic() -> String {
    format!("omnimesh/1/{}/news", mesh().id())
}

fn written_cases() -> Vec<Case> {
    let topic = Topic::new(&topic()).unwrap();
    let message = Message::new(topic.clone(), draft().sealed(1).into());
    let other = MessageId::of(b"another message");
    let control = |change: &dyn Fn(&mut Control)| {
        let mut control = Control::default();
        change(&mut control);
        Rpc::of_control(control)
    };
    let subscription = |subscribe| Subscription { subscribe, topic: topic.clone() };
    let both = Rpc { subscriptions: vec![subscription(true), subscription(false)], ..Rpc::default() };
    vec![
        written("subscribe, then unsubscribe", &both),
        written("the envelope of the walk-through", &Rpc::of_message(message.clone())),
        written(
            "IHAVE",
            &control(&|c| {
                c.ihave = vec![IHave { topic: topic.clone(), ids: vec![message.id(), other] }];
            }),
        ),
        written("IWANT", &control(&|c| c.iwant = vec![message.id()])),
        written("GRAFT", &control(&|c| c.graft = vec![topic.clone()])),
        written(
            "PRUNE",
            &control(&|c| {
                c.prune = vec![Prune { topic: topic.clone(), backoff_s: Some(60) }];
            }),
        ),
        written(
            "PRUNE without a backoff, as of v1.0",
            &control(&|c| {
                c.prune = vec![Prune { topic: topic.clone(), backoff_s: None }];
            }),
        ),
        written("IDONTWANT", &control(&|c| c.idontwant = vec![message.id(), other])),
        written(
            "CHOKE of trees 0 and 63, UNCHOKE of tree 5",
            &control(&|c| {
                c.choke = vec![Choke { topic: topic.clone(), trees: 1 << 63 | 1 }];
                c.unchoke = vec![Choke { topic: topic.clone(), trees: 1 << 5 }];
            }),
        ),
    ]
}

fn read_cases() -> Vec<Case> {
    let envelope = draft().sealed(1);
    let good = [field(2, &envelope), field(4, topic())].concat();
    let with = |extra: Vec<u8>| field(2, [good.clone(), extra].concat());
    let peer = field(1, [0x00, 0x24]);
    let prune = [field(1, topic()), field(2, peer), vec![0x18, 60]].concat();
    let cases = vec![
        case("an empty frame says nothing", &[]),
        case(
            "unknown fields are passed over",
            &[vec![0x78, 0x01], field(2, &good), field(14, b"x")].concat(),
        ),
        case("the topic before the data", &field(2, [field(4, topic()), field(2, &envelope)].concat())),
        case("a signed message", &with([field(1, b"f"), field(3, b"s"), field(5, b"s")].concat())),
        case("`from`, though empty", &with(field(1, b""))),
        case("`seqno`", &with(field(3, [0; 8]))),
        case("`key`", &with(field(6, b"k"))),
        case("a message without a topic, and a good one", &{
            [field(2, field(2, &envelope)), field(2, &good)].concat()
        }),
        case(
            "an id of 19 bytes names nothing",
            &field(3, field(2, [field(1, [1; 19]), field(1, [2; 20])].concat())),
        ),
        case("CHOKE of no tree, and UNCHOKE without a topic: nothing is said", &{
            let (choke, unchoke) = ([0x8a, 0xd0, 0xed, 0x1b], [0x92, 0xd0, 0xed, 0x1b]);
            let part = |tag: [u8; 4], content: Vec<u8>| [&tag[..], &varint(content.len()), &content].concat();
            let none = [field(1, topic()), vec![0x10, 0]].concat();
            field(3, [part(choke, none), part(unchoke, vec![0x10, 1])].concat())
        }),
        case("PRUNE with peers of peer exchange, which are passed over", &field(3, field(4, prune))),
        case("cut in a field", &field(2, &good)[..20]),
        case("text for a message", &[0x10, 0x01]),
        case("a group", &[0x13, 0x14]),
        case("a topic that is not UTF-8", &field(1, [vec![0x08, 0x01], field(2, [0xff])].concat())),
    ];
    assert_eq!(cases.iter().filter(|case| case.says.is_none()).count(), 4);
    cases
}

#[test]
fn gossip_frames() {
    let mut cases = written_cases();
    cases.extend(read_cases());
    let description = "Frames of the gossip stream (gossipsub's RPC) and what they say; `says` is null where the \
                       frame cannot be read and nothing of it counts. `refused_messages` names for each message \
                       that is refused what was wrong with it.";
    for case in settle("gossip_frames.json", description, cases) {
        assert_eq!(case.on_stream.0, [varint(case.frame.0.len()), case.frame.0.clone()].concat());
        assert_eq!(read(&case.frame.0), case.says, "{}", case.comment);
    }
}
