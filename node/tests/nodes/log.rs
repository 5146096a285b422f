//! Real nodes with data directories, over TCP on loopback: what one appends, all have.

use std::num::NonZeroUsize;
use std::path::Path;

use bytes::Bytes;
use omnimesh_node::store::log::LogStore;
use omnimesh_node::{LogError, LogView, MeshNode};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::log::{Change, Head, Proof, Record};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::registry::{Action, EntryKey, FieldName, Fields, Value};
use omnimesh_protocol::{Identity, Mesh, NodeId, Seq, Step};
use tempfile::TempDir;

use crate::common::{run, until};

const MESH: &str = "log-test";

fn mesh() -> Mesh {
    Mesh::open(MESH).unwrap()
}

async fn start(number: u8, dir: &Path, bootstrap: Vec<String>, is_new: bool) -> MeshNode {
    run(MESH, number, dir, bootstrap, is_new, |_| ()).await
}

async fn view(node: &MeshNode) -> LogView {
    node.log().await.unwrap()
}

/// Waits until all have the same log, of so many entries.
async fn until_equal(nodes: &[&MeshNode], entries: u64) {
    until("all have the same log", || async {
        let first = view(nodes[0]).await;
        for node in nodes {
            let other = view(node).await;
            if other.fingerprint != first.fingerprint
                || other.heads.iter().map(|head| head.seq.0).sum::<u64>() != entries
            {
                return false;
            }
        }
        true
    })
    .await;
}

async fn texts(node: &MeshNode, author: NodeId) -> Vec<String> {
    let entries = node.log_entries(author, Seq(1), usize::MAX).await.unwrap();
    for pair in entries.windows(2) {
        assert_eq!(pair[1].prev, Some(pair[0].hash), "entries are a chain");
        assert_eq!(pair[1].seq.0, pair[0].seq.0 + 1);
    }
    entries.iter().map(|entry| String::from_utf8(entry.data.to_vec()).unwrap()).collect()
}

fn dirs<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| tempfile::tempdir().unwrap())
}

#[actix::test]
async fn what_one_appends_all_have_also_those_who_were_away() {
    let dirs: [TempDir; 3] = dirs();
    let alice = start(1, dirs[0].path(), Vec::new(), true).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses(), true).await;
    let first = alice.append("one", 1).await.unwrap();
    assert_eq!((first.author, first.seq, first.replicas), (alice.peer_id(), Seq(1), 1));
    let many = futures::future::join_all((0..500).map(|number| bob.append(format!("b{number}"), 0))).await;
    assert!(many.iter().all(Result::is_ok));
    until_equal(&[&alice, &bob], 501).await;

    let carol = start(3, dirs[2].path(), alice.bootstrap_addresses(), true).await;
    carol.append("late", 2).await.unwrap();
    until_equal(&[&alice, &bob, &carol], 502).await;
    assert_eq!(texts(&carol, alice.peer_id()).await, ["one"]);
    assert_eq!(
        texts(&carol, bob.peer_id()).await,
        (0..500).map(|number| format!("b{number}")).collect::<Vec<_>>()
    );

    carol.shutdown().await;
    for number in 0..300 {
        alice.append(format!("a{number}"), 0).await.unwrap();
    }
    let carol = start(3, dirs[2].path(), alice.bootstrap_addresses(), false).await;
    until_equal(&[&alice, &bob, &carol], 802).await;
    let reports = carol.log_reports().await.unwrap();
    let recovered: u64 =
        reports.iter().flat_map(|report| report.authors.values()).map(|missed| missed.recovered).sum();
    assert_eq!(recovered, 300, "{reports:?}");
    // It goes on where it was.
    assert_eq!(carol.append("again", 0).await.unwrap().seq, Seq(2));
    for node in [alice, bob, carol] {
        node.shutdown().await;
    }
}

#[actix::test]
async fn a_copied_data_directory_does_not_contradict_itself() {
    let dirs: [TempDir; 3] = dirs();
    let alice = start(1, dirs[0].path(), Vec::new(), true).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses(), true).await;
    for number in 0..10 {
        bob.append(format!("b{number}"), 1).await.unwrap();
    }
    until_equal(&[&alice, &bob], 10).await;
    bob.shutdown().await;
    // Bob comes back without his log: from a backup of the key, say.
    let bob = start(2, dirs[2].path(), alice.bootstrap_addresses(), false).await;
    assert_eq!(bob.append("b10", 1).await.unwrap().seq, Seq(11));
    until_equal(&[&alice, &bob], 11).await;
    assert!(!view(&alice).await.heads.iter().any(|head| head.fork.is_some()));
    alice.shutdown().await;
    bob.shutdown().await;
}

/// What somebody says in place of its first entry.
fn first_record(author: &Identity, words: &str) -> Record {
    let interval = Config::default().node.phase_interval;
    let cache = NonZeroUsize::MIN;
    let mut patterns = PatternGenerator::new(mesh().secret().clone(), interval.try_into().unwrap(), cache);
    let header = Header {
        mesh: mesh().id(),
        author: author.id(),
        seq: Seq(1),
        step: Step(7),
        kind: Kind::Durable,
        channel: Channel::new("log").unwrap(),
        prev: None,
        timestamp_us: None,
    };
    let payloads = [Bytes::from(words.to_owned())].into_iter().collect();
    Record::new(Envelope::seal(author, patterns.at(Step(7)), header, payloads).unwrap()).unwrap()
}

#[actix::test]
async fn a_log_that_is_frozen_from_its_first_entry_on_is_known_and_empty() {
    let dirs: [TempDir; 1] = dirs();
    let two_faced = Identity::from_seed(&[5; 32]);
    let proof = Proof::new(&first_record(&two_faced, "yes"), &first_record(&two_faced, "no")).unwrap();
    let bytes_max = Config::default().gossip.message_bytes_max;
    let (store, _) = LogStore::open(dirs[0].path(), mesh().id(), bytes_max).unwrap();
    store.write(&[Change::Freeze { proof, head: Head::EMPTY }]).unwrap();
    drop(store);
    let alice = start(1, dirs[0].path(), Vec::new(), true).await;
    let heads = view(&alice).await.heads;
    let head = heads.iter().find(|head| head.author == two_faced.id()).expect("it is known");
    assert_eq!((head.seq, head.fork), (Seq(0), Some(Seq(1))), "{head:?}");
    let page = alice.log_page(two_faced.id(), None, 10).await.unwrap();
    assert_eq!((page.head, page.entries.len(), page.next), (*head, 0, None));
    alice.shutdown().await;
}

#[actix::test]
async fn the_registry_is_the_same_everywhere() {
    let dirs: [TempDir; 2] = dirs();
    let alice = start(1, dirs[0].path(), Vec::new(), true).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses(), true).await;
    let key: EntryKey = "model/tiny".parse().unwrap();
    let name: FieldName = "size".parse().unwrap();
    let put = |size: i64| {
        let fields: Fields = [(name.clone(), Value::Integer(size).encode().unwrap())].into_iter().collect();
        Action::Put { key: key.clone(), ttl: None, fields }
    };
    alice.registry_write(put(7), 0).await.unwrap();
    let (asked, field) = (key.clone(), name.clone());
    let size = move |state: &omnimesh_protocol::registry::State, now| {
        state
            .get(&asked, now)
            .value
            .and_then(|entry| entry.fields.get(&field).map(|field| field.value.decode()))
    };
    assert_eq!(alice.registry(size.clone()).await.unwrap(), Some(Value::Integer(7)), "its own write is seen");
    let here = size.clone();
    until("bob has it", || async { bob.registry(here.clone()).await.unwrap() == Some(Value::Integer(7)) })
        .await;
    bob.registry_write(put(8), 1).await.unwrap();
    until("alice has it", || async {
        alice.registry(size.clone()).await.unwrap() == Some(Value::Integer(8))
    })
    .await;
    // A node builds the same from its disk.
    alice.shutdown().await;
    let alice = start(1, dirs[0].path(), bob.bootstrap_addresses(), false).await;
    assert_eq!(alice.registry(size.clone()).await.unwrap(), Some(Value::Integer(8)));
    alice.shutdown().await;
    bob.shutdown().await;
}

#[actix::test]
async fn bad_use_is_refused_and_changes_nothing() {
    let dirs: [TempDir; 1] = dirs();
    let alice = start(1, dirs[0].path(), Vec::new(), true).await;
    let too_large = alice.append(vec![0; 1 << 20], 0).await.unwrap_err();
    assert!(too_large.to_string().contains("the limit is"), "{too_large}");
    let stranger = Identity::from_seed(&[9; 32]).id();
    let unknown = alice.log_entries(stranger, Seq(1), 10).await.unwrap_err();
    assert!(matches!(unknown, LogError::UnknownAuthor(author) if author == stranger));
    alice.append("one", 0).await.unwrap();
    let beyond = alice.log_entries(alice.peer_id(), Seq(7), 10).await.unwrap_err();
    assert!(matches!(beyond, LogError::OutOfRange { base: 1, head: 1, asked: 7, .. }), "{beyond}");
    assert!(alice.broadcast("_log", "x").await.unwrap_err().to_string().contains("reserved"));
    assert_eq!(texts(&alice, alice.peer_id()).await, ["one"]);
    alice.shutdown().await;
}
