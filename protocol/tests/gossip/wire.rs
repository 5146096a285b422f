//! The wire form, against a second implementation derived from the schema, and at its limits.

use bytes::{Bytes, BytesMut};
use omnimesh_protocol::MessageId;
use omnimesh_protocol::gossip::wire::{
    DecodeError, Limits, RefusedReason, decode, encode, encode_framed, encoded_len, split, take_frame,
};
use omnimesh_protocol::gossip::{Choke, Control, IHave, Message, Prune, Rpc, Subscription, Topic};
use proptest::prelude::*;
use prost::Message as _;

use crate::bench::{id, message, topic};

/// The schema of the specification and of tree mode, for an encoder that is not ours.
pub(crate) mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Rpc {
        #[prost(message, repeated, tag = "1")]
        pub(crate) subscriptions: Vec<SubOpts>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) publish: Vec<Message>,
        #[prost(message, optional, tag = "3")]
        pub(crate) control: Option<Control>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct SubOpts {
        #[prost(bool, optional, tag = "1")]
        pub(crate) subscribe: Option<bool>,
        #[prost(string, optional, tag = "2")]
        pub(crate) topic_id: Option<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Message {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub(crate) from: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "2")]
        pub(crate) data: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "3")]
        pub(crate) seqno: Option<Vec<u8>>,
        #[prost(string, required, tag = "4")]
        pub(crate) topic: String,
        #[prost(bytes = "vec", optional, tag = "5")]
        pub(crate) signature: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "6")]
        pub(crate) key: Option<Vec<u8>>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Control {
        #[prost(message, repeated, tag = "1")]
        pub(crate) ihave: Vec<IHave>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) iwant: Vec<Ids>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) graft: Vec<Graft>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) prune: Vec<Prune>,
        #[prost(message, repeated, tag = "5")]
        pub(crate) idontwant: Vec<Ids>,
        #[prost(message, repeated, tag = "7302401")]
        pub(crate) choke: Vec<Choke>,
        #[prost(message, repeated, tag = "7302402")]
        pub(crate) unchoke: Vec<Choke>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Choke {
        #[prost(string, optional, tag = "1")]
        pub(crate) topic_id: Option<String>,
        #[prost(uint64, optional, tag = "2")]
        pub(crate) trees: Option<u64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct IHave {
        #[prost(string, optional, tag = "1")]
        pub(crate) topic_id: Option<String>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(crate) message_ids: Vec<Vec<u8>>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Ids {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(crate) message_ids: Vec<Vec<u8>>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Graft {
        #[prost(string, optional, tag = "1")]
        pub(crate) topic_id: Option<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Prune {
        #[prost(string, optional, tag = "1")]
        pub(crate) topic_id: Option<String>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) peers: Vec<PeerInfo>,
        #[prost(uint64, optional, tag = "3")]
        pub(crate) backoff: Option<u64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct PeerInfo {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub(crate) peer_id: Option<Vec<u8>>,
    }
}

fn ids_of(ids: &[MessageId]) -> Vec<pb::Ids> {
    let message_ids = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
    if ids.is_empty() { vec![] } else { vec![pb::Ids { message_ids }] }
}

fn choke_of(choke: &Choke) -> pb::Choke {
    pb::Choke { topic_id: Some(choke.topic.as_str().to_owned()), trees: Some(choke.trees) }
}

/// The same frame in the other implementation.
fn to_pb(rpc: &Rpc) -> pb::Rpc {
    let name = |topic: &Topic| Some(topic.as_str().to_owned());
    let control = rpc.control.as_ref().filter(|control| !control.is_empty());
    pb::Rpc {
        subscriptions: rpc
            .subscriptions
            .iter()
            .map(|s| pb::SubOpts { subscribe: Some(s.subscribe), topic_id: name(&s.topic) })
            .collect(),
        publish: rpc
            .publish
            .iter()
            .map(|m| pb::Message {
                data: Some(m.data().to_vec()),
                topic: m.topic().as_str().to_owned(),
                ..pb::Message::default()
            })
            .collect(),
        control: control.map(|control| pb::Control {
            ihave: control
                .ihave
                .iter()
                .map(|ihave| pb::IHave {
                    topic_id: name(&ihave.topic),
                    message_ids: ihave.ids.iter().map(|id| id.as_bytes().to_vec()).collect(),
                })
                .collect(),
            iwant: ids_of(&control.iwant),
            graft: control.graft.iter().map(|topic| pb::Graft { topic_id: name(topic) }).collect(),
            prune: control
                .prune
                .iter()
                .map(|p| pb::Prune { topic_id: name(&p.topic), peers: vec![], backoff: p.backoff_s })
                .collect(),
            idontwant: ids_of(&control.idontwant),
            choke: control.choke.iter().map(choke_of).collect(),
            unchoke: control.unchoke.iter().map(choke_of).collect(),
        }),
    }
}

pub(crate) fn encoded(rpc: &Rpc) -> Bytes {
    let mut to = BytesMut::new();
    encode(rpc, &mut to);
    to.freeze()
}

fn arbitrary_topic() -> impl Strategy<Value = Topic> {
    "[a-zé/]{1,40}".prop_map(|name| topic(&name))
}

fn arbitrary_ids() -> impl Strategy<Value = Vec<MessageId>> {
    prop::collection::vec(any::<[u8; 20]>().prop_map(MessageId::from_bytes), 0..6)
}

fn arbitrary_chokes() -> impl Strategy<Value = Vec<Choke>> {
    let one = (arbitrary_topic(), 0..64u32, 1..=u64::MAX)
        .prop_map(|(topic, shift, trees)| Choke { topic, trees: (trees >> shift).max(1) });
    prop::collection::vec(one, 0..3)
}

prop_compose! {
    fn arbitrary_rpc()(
        subscriptions in prop::collection::vec((any::<bool>(), arbitrary_topic()), 0..4),
        publish in prop::collection::vec((arbitrary_topic(), prop::collection::vec(any::<u8>(), 0..300)), 0..4),
        ihave in prop::collection::vec((arbitrary_topic(), arbitrary_ids()), 0..3),
        iwant in arbitrary_ids(),
        graft in prop::collection::vec(arbitrary_topic(), 0..3),
        prune in prop::collection::vec((arbitrary_topic(), any::<Option<u64>>()), 0..3),
        idontwant in arbitrary_ids(),
        choke in arbitrary_chokes(),
        unchoke in arbitrary_chokes(),
    ) -> Rpc {
        let control = Control {
            ihave: ihave.into_iter().map(|(topic, ids)| IHave { topic, ids }).collect(),
            iwant,
            graft,
            prune: prune.into_iter().map(|(topic, backoff_s)| Prune { topic, backoff_s }).collect(),
            idontwant,
            choke,
            unchoke,
        };
        Rpc {
            subscriptions:
                subscriptions.into_iter().map(|(subscribe, topic)| Subscription { subscribe, topic }).collect(),
            publish: publish.into_iter().map(|(topic, data)| Message::new(topic, data.into())).collect(),
            control: (!control.is_empty()).then(|| Box::new(control)),
        }
    }
}

proptest! {
    #[test]
    fn the_other_implementation_writes_and_reads_the_same(rpc in arbitrary_rpc()) {
        let bytes = encoded(&rpc);
        prop_assert_eq!(bytes.len(), encoded_len(&rpc));
        prop_assert_eq!(&bytes[..], &to_pb(&rpc).encode_to_vec()[..]);
        let decoded = decode(&bytes, &Limits::default()).unwrap();
        prop_assert_eq!(decoded.rpc, rpc);
        prop_assert_eq!(decoded.refused, vec![]);
    }

    #[test]
    fn every_proper_prefix_is_read_or_refused_without_a_panic(rpc in arbitrary_rpc(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&rpc);
        let cut = cut.index(bytes.len() + 1);
        let _ = decode(&bytes.slice(..cut), &Limits::default());
    }

    #[test]
    fn pieces_are_within_limits_and_lose_nothing(rpc in arbitrary_rpc(), room in 512usize..2_000) {
        let limits = Limits {
            frame_bytes_max: room, batch_bytes_max: room, control_bytes_max: 512, messages_max: 2, ..Limits::default()
        };
        let mut pieces = Vec::new();
        prop_assert_eq!(split(rpc.clone(), &limits, |piece| pieces.push(piece)), 0);
        let mut all = Rpc::default();
        for piece in pieces {
            prop_assert!(!piece.is_empty());
            prop_assert!(encoded_len(&piece) <= room);
            let control = Rpc { publish: Default::default(), ..piece.clone() };
            prop_assert!(encoded_len(&control) <= limits.control_bytes_max);
            prop_assert!(piece.publish.len() <= 2);
            all.subscriptions.extend(piece.subscriptions);
            all.publish.extend(piece.publish);
            let (to, from) = (all.control.get_or_insert_default(), piece.control.unwrap_or_default());
            to.ihave.extend(from.ihave);
            to.iwant.extend(from.iwant);
            to.graft.extend(from.graft);
            to.prune.extend(from.prune);
            to.idontwant.extend(from.idontwant);
            to.choke.extend(from.choke);
            to.unchoke.extend(from.unchoke);
        }
        let pairs = |rpc: &Rpc| -> Vec<(Topic, MessageId)> {
            let ihave = rpc.control.as_ref().map(|control| control.ihave.clone()).unwrap_or_default();
            ihave.into_iter().flat_map(|i| i.ids.into_iter().map(move |id| (i.topic.clone(), id))).collect()
        };
        prop_assert_eq!(pairs(&all), pairs(&rpc));
        let mut expected = rpc.control.unwrap_or_default();
        expected.ihave.clear();
        let mut control = all.control.unwrap_or_default();
        control.ihave.clear();
        prop_assert_eq!(control, expected);
        prop_assert_eq!((all.subscriptions, all.publish), (rpc.subscriptions, rpc.publish));
    }
}

#[test]
fn known_bytes() {
    let rpc = Rpc {
        subscriptions: vec![Subscription { subscribe: true, topic: topic("t") }],
        publish: [message("t", "hi")].into_iter().collect(),
        control: Some(Box::new(Control {
            graft: vec![topic("t")],
            prune: vec![Prune { topic: topic("u"), backoff_s: Some(300) }],
            ..Control::default()
        })),
    };
    let mut bytes = BytesMut::new();
    encode_framed(&rpc, &mut bytes);
    let expected = b"\x1f\x0a\x05\x08\x01\x12\x01t\x12\x07\x12\x02hi\x22\x01t\
        \x1a\x0d\x1a\x03\x0a\x01t\x22\x06\x0a\x01u\x18\xac\x02";
    assert_eq!(&bytes[..], expected);
    assert_eq!(take_frame(&mut bytes, &Limits::default()).unwrap().unwrap(), encoded(&rpc));
    assert!(bytes.is_empty());
}

#[test]
fn known_bytes_of_tree_mode() {
    let all = Choke { topic: topic("t"), trees: u64::MAX };
    let two = Choke { topic: topic("t"), trees: 0x81 };
    let rpc = Rpc::of_control(Control { choke: vec![two], unchoke: vec![all], ..Control::default() });
    let expected = b"\x1a\x1e\x8a\xd0\xed\x1b\x06\x0a\x01t\x10\x81\x01\
        \x92\xd0\xed\x1b\x0e\x0a\x01t\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(&encoded(&rpc)[..], expected);
    // The example of docs/protocol.md.
    let both = Choke { topic: topic("t"), trees: 129 };
    let rpc =
        Rpc::of_control(Control { choke: vec![both.clone()], unchoke: vec![both], ..Control::default() });
    let expected = b"\x1a\x16\x8a\xd0\xed\x1b\x06\x0a\x01t\x10\x81\x01\
        \x92\xd0\xed\x1b\x06\x0a\x01t\x10\x81\x01";
    assert_eq!(&encoded(&rpc)[..], expected);
    // What is about no topic or no tree says nothing.
    let none = pb::Choke { topic_id: Some("t".into()), trees: Some(0) };
    let missing = pb::Choke { topic_id: Some("t".into()), trees: None };
    let nowhere = pb::Choke { topic_id: None, trees: Some(1) };
    let control = pb::Control { choke: vec![none, nowhere], unchoke: vec![missing], ..Default::default() };
    let bytes = pb::Rpc { control: Some(control), ..pb::Rpc::default() }.encode_to_vec();
    assert_eq!(decode(&bytes.into(), &Limits::default()).unwrap().rpc, Rpc::default());
}

#[test]
fn frames_are_taken_whole() {
    let limits = Limits { frame_bytes_max: 300, ..Limits::default() };
    let mut stream = BytesMut::new();
    encode_framed(&Rpc::of_message(message("t", &"x".repeat(200))), &mut stream);
    encode_framed(&Rpc::default(), &mut stream);
    let whole = stream.clone();
    for cut in 0..whole.len() - 1 {
        let mut part = BytesMut::from(&whole[..cut]);
        assert_eq!(take_frame(&mut part, &limits), Ok(None));
        assert_eq!(part, whole[..cut], "nothing was taken");
    }
    assert_eq!(take_frame(&mut stream, &limits).unwrap().unwrap().len(), whole.len() - 3);
    assert_eq!(take_frame(&mut stream, &limits).unwrap().unwrap().len(), 0);
    assert_eq!(take_frame(&mut stream, &limits), Ok(None));
    let mut long = BytesMut::from(&[0xad, 0x02][..]);
    assert_eq!(take_frame(&mut long, &limits), Err(DecodeError::TooLong { bytes: 301, max: 300 }));
    let mut endless = BytesMut::from(&[0xff; 11][..]);
    assert_eq!(take_frame(&mut endless, &limits), Err(DecodeError::Varint));
    let mut huge = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..]);
    assert_eq!(take_frame(&mut huge, &limits), Err(DecodeError::TooLong { bytes: u64::MAX, max: 300 }));
}

#[test]
fn signed_messages_are_refused_one_by_one() {
    let good = pb::Message { topic: "t".into(), data: Some(b"good".to_vec()), ..pb::Message::default() };
    // Present but empty is present.
    let there = Some(vec![]);
    let with = |change: &dyn Fn(&mut pb::Message)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    let publish = vec![
        with(&|m| m.from = there.clone()),
        with(&|m| m.seqno = there.clone()),
        good.clone(),
        with(&|m| m.signature = there.clone()),
        with(&|m| m.key = there.clone()),
        with(&|m| m.topic = String::new()),
    ];
    let bytes = pb::Rpc { publish, ..pb::Rpc::default() }.encode_to_vec();
    let decoded = decode(&bytes.into(), &Limits::default()).unwrap();
    let reasons: Vec<RefusedReason> = decoded.refused.iter().map(|refused| refused.reason).collect();
    use RefusedReason::{From, Key, NoTopic, Seqno, Signature};
    assert_eq!(reasons, vec![From, Seqno, Signature, Key, NoTopic]);
    assert_eq!(decoded.refused[0].topic, Some(topic("t")));
    assert_eq!(decoded.rpc, Rpc::of_message(message("t", "good")));
}

#[test]
fn what_is_unknown_is_passed_over() {
    // Fields of later versions in every kind of message, ids of other lengths, a topic that is too long,
    // peer exchange.
    let mut rpc = pb::Rpc {
        subscriptions: vec![pb::SubOpts { subscribe: Some(true), topic_id: Some("x".repeat(257)) }],
        control: Some(pb::Control {
            iwant: vec![pb::Ids { message_ids: vec![vec![1; 19], id("a").as_bytes().to_vec(), vec![]] }],
            prune: vec![pb::Prune {
                topic_id: Some("t".into()),
                peers: vec![pb::PeerInfo { peer_id: Some(vec![1, 2, 3]) }],
                backoff: None,
            }],
            graft: vec![pb::Graft { topic_id: None }],
            ..pb::Control::default()
        }),
        ..pb::Rpc::default()
    }
    .encode_to_vec();
    rpc.extend_from_slice(
        b"\x52\x02\x0a\x00\x58\x07\x61\x01\x02\x03\x04\x05\x06\x07\x08\x6d\x01\x02\x03\x04",
    );
    let control = Control {
        iwant: vec![id("a")],
        prune: vec![Prune { topic: topic("t"), backoff_s: None }],
        ..Control::default()
    };
    assert_eq!(decode(&rpc.into(), &Limits::default()).unwrap().rpc, Rpc::of_control(control));
}

#[test]
fn bad_frames_say_why() {
    let error = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes), &Limits::default()).unwrap_err();
    assert_eq!(error(b"\x0a\x05\x08"), DecodeError::Truncated);
    assert_eq!(error(b"\x0a"), DecodeError::Truncated);
    assert_eq!(error(b"\x80"), DecodeError::Truncated);
    assert_eq!(error(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), DecodeError::Truncated);
    assert_eq!(error(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), DecodeError::Varint);
    assert_eq!(error(b"\x08\x01"), DecodeError::Field, "a number where a message should be");
    assert_eq!(error(b"\x02\x00"), DecodeError::Field, "field number zero");
    assert_eq!(error(b"\x5b\x5c"), DecodeError::Field, "a group");
    assert_eq!(error(b"\x0a\x04\x12\x02\xff\xfe"), DecodeError::Utf8);
    let too_many = pb::Rpc { publish: vec![pb::Message::default(); 501], ..pb::Rpc::default() };
    let too_many = error(&too_many.encode_to_vec());
    assert_eq!(too_many, DecodeError::TooMany { what: "messages", max: 500 });
    let too_long = error(&vec![0; 65_537]);
    assert_eq!(too_long, DecodeError::TooLong { bytes: 65_537, max: 65_536 });
    let ids = pb::Ids { message_ids: vec![vec![]; 8_193] };
    let ids = pb::Rpc {
        control: Some(pb::Control { iwant: vec![ids], ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(error(&ids.encode_to_vec()), DecodeError::TooMany { what: "message ids", max: 8_192 });
}

#[test]
fn data_are_slices_of_the_frame_unless_small() {
    let small = Rpc {
        publish: [message("t", "small"), message("t", &"x".repeat(1_000))].into_iter().collect(),
        ..Rpc::default()
    };
    let frame = encoded(&small);
    let decoded = decode(&frame, &Limits::default()).unwrap().rpc;
    let within = |data: &Bytes| frame.as_ptr_range().contains(&data.as_ptr());
    let slices: Vec<bool> = decoded.publish.iter().map(|message| within(message.data())).collect();
    assert_eq!(slices, vec![false, true]);
}

#[test]
fn a_message_that_fits_nowhere_is_left_out() {
    let limits =
        Limits { frame_bytes_max: 600, batch_bytes_max: 512, control_bytes_max: 512, ..Limits::default() };
    let publish = [message("t", &"a".repeat(590)), message("t", &"b".repeat(592)), message("t", "c")]
        .into_iter()
        .collect();
    let mut sizes = Vec::new();
    let left_out = split(Rpc { publish, ..Rpc::default() }, &limits, |piece| sizes.push(encoded_len(&piece)));
    assert_eq!((left_out, sizes), (1, vec![599, 8]));
}

#[test]
fn a_large_ihave_is_split_as_stock_routers_read_it() {
    let ids: Vec<MessageId> = (0..5_000u32).map(|at| MessageId::of(&at.to_le_bytes())).collect();
    let ihave = vec![IHave { topic: topic(&"t".repeat(60)), ids }];
    let rpc = Rpc::of_control(Control { ihave, ..Control::default() });
    let mut pieces = Vec::new();
    split(rpc, &Limits::default(), |piece| pieces.push(piece));
    assert_eq!(pieces.len(), 7);
    assert!(pieces.iter().all(|piece| encoded_len(piece) <= 16_384));
}

#[test]
fn topics_have_a_length() {
    assert!(Topic::new("").is_err());
    assert!(Topic::new(&"x".repeat(257)).is_err());
    assert_eq!(Topic::new(&"x".repeat(256)).unwrap().as_str().len(), 256);
}
