//! `node_ids.json`, `topics.json`

use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::{Identity, MeshId, NodeId, control};
use serde::{Deserialize, Serialize};

use crate::{Hex, settle};

#[derive(Serialize, Deserialize)]
struct IdCase {
    comment: String,
    seed: Option<Hex>,
    public_key: Option<Hex>,
    peer_id_bytes: Option<Hex>,
    peer_id: String,
}

fn id_of_seed(comment: &str, seed: [u8; 32]) -> IdCase {
    let id = Identity::from_seed(&seed).id();
    IdCase {
        comment: comment.to_owned(),
        seed: Some(seed.into()),
        public_key: Some(id.as_bytes().into()),
        peer_id_bytes: Some(id.to_peer_id_bytes().into()),
        peer_id: id.to_string(),
    }
}

fn refused_id(comment: &str, peer_id: &str) -> IdCase {
    IdCase {
        comment: comment.to_owned(),
        seed: None,
        public_key: None,
        peer_id_bytes: None,
        peer_id: peer_id.to_owned(),
    }
}

#[test]
fn node_ids() {
    let rfc8032: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
        0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    let good = Identity::from_seed(&[1; 32]).id().to_string();
    let mut key_of_other_length = Identity::from_seed(&[1; 32]).id().to_peer_id_bytes().to_vec();
    key_of_other_length.pop();
    let mut cases: Vec<_> = (1..=4)
        .map(|seed| id_of_seed("the author or peer of this seed in the other files", [seed; 32]))
        .collect();
    cases.extend([
        id_of_seed("RFC 8032, section 7.1, test 1", rfc8032),
        refused_id("empty", ""),
        refused_id("cut by one character", &good[..good.len() - 1]),
        refused_id("a character that base58 does not have", &good.replacen('o', "0", 1)),
        refused_id("a key of 31 bytes", &bs58::encode(key_of_other_length).into_string()),
        refused_id("an RSA key, by its hash", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"),
    ]);
    let description = "Seed (the private key of RFC 8032), public key, and the libp2p peer id of the key in bytes \
                       and text. Where `public_key` is null, the text must be refused.";
    for case in settle("node_ids.json", description, cases) {
        let Some(key) = case.public_key else {
            case.peer_id.parse::<NodeId>().expect_err(&case.comment);
            continue;
        };
        let id: NodeId = case.peer_id.parse().unwrap();
        assert_eq!(key, id.as_bytes().into());
        let peer_id_bytes = [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20], key.0.as_slice()].concat();
        assert_eq!(case.peer_id, bs58::encode(&peer_id_bytes).into_string());
        assert_eq!(case.peer_id_bytes, Some(Hex(peer_id_bytes)));
        assert_eq!(key, Identity::from_seed(&case.seed.unwrap().array()).id().as_bytes().into());
    }
}

#[derive(Serialize, Deserialize)]
struct TopicCase {
    comment: String,
    mesh_id: Hex,
    topic: String,
    /// Absent if the topic is none of this mesh.
    channel: Option<String>,
}

#[test]
fn topics() {
    let mesh = MeshId::from_bytes([
        0x00, 0x01, 0x0a, 0x10, 0x7f, 0x80, 0x99, 0xab, 0xcd, 0xef, 0xf0, 0xff, 1, 2, 3, 4,
    ]);
    let topic_of = |name: &str| Channel::new(name).unwrap().topic(&mesh);
    let longest = "c".repeat(64);
    let mut cases: Vec<_> = ["news", "a", "A-Z_0.9", longest.as_str()]
        .map(|name| TopicCase {
            comment: "good".to_owned(),
            mesh_id: mesh.as_bytes().into(),
            topic: topic_of(name),
            channel: Some(name.to_owned()),
        })
        .into();
    let other = Channel::new("news").unwrap().topic(&MeshId::from_bytes([7; 16]));
    for (comment, topic) in [
        ("of another mesh", other),
        ("no channel", format!("omnimesh/1/{mesh}/")),
        ("no mesh", "omnimesh/1/news".to_owned()),
        ("a slash in the channel", topic_of("news") + "/x"),
        ("a channel of 65 bytes", format!("omnimesh/1/{mesh}/{}", "c".repeat(65))),
        ("a character beyond ASCII", format!("omnimesh/1/{mesh}/küche")),
        ("another version", topic_of("news").replacen("/1/", "/2/", 1)),
        ("a slash at the beginning", format!("/{}", topic_of("news"))),
    ] {
        let comment = comment.to_owned();
        cases.push(TopicCase { comment, mesh_id: mesh.as_bytes().into(), topic, channel: None });
    }
    let description = "Gossipsub topics and the channels they stand for in the mesh; `channel` is null where the \
                       topic is of no channel of this mesh.";
    for case in settle("topics.json", description, cases) {
        let mesh = MeshId::from_bytes(case.mesh_id.array());
        let channel = Channel::from_topic(&case.topic, &mesh);
        assert_eq!(channel.as_ref().map(Channel::as_str), case.channel.as_deref(), "{}", case.comment);
        assert!(channel.is_none_or(|channel| channel.topic(&mesh) == case.topic));
    }
    assert_eq!(control::protocol_name(mesh), "/omnimesh/1/00010a107f8099abcdeff0ff01020304/control");
}
