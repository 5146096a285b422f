//! Real nodes that drop what checkpoints cover, and a newcomer among them.

use std::path::Path;

use omnimesh_node::{LogView, MeshNode};
use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::registry::{Action, EntryKey, Fields, Value};
use omnimesh_protocol::{Hash, NodeId, Seq};

use crate::common::{run, until};

/// A checkpoint every ten steps of a tenth of a second, and nothing older is kept.
const EVERY: u64 = 10;

async fn start(number: u8, dir: &Path, bootstrap: Vec<String>, is_new: bool) -> MeshNode {
    run("checkpoint-test", number, dir, bootstrap, is_new, |config| {
        config.node.step_interval_ms = 100;
        config.checkpoints.every_steps = EVERY;
        config.checkpoints.delay_steps = 10;
        config.checkpoints.keep_steps = 1;
    })
    .await
}

async fn view(node: &MeshNode) -> LogView {
    node.log().await.unwrap()
}

async fn registry_hash(node: &MeshNode) -> (Hash, usize) {
    node.registry(|state, _| (state.hash(), state.counts().entries)).await.unwrap()
}

/// True if no entry is on this node's disk any more: the checkpoint stands for all.
async fn has_dropped_all(node: &MeshNode) -> bool {
    view(node).await.heads.iter().all(|head| head.base > head.seq)
}

async fn until_equal(what: &str, nodes: &[&MeshNode]) {
    until(what, || async {
        let first = (view(nodes[0]).await.fingerprint, registry_hash(nodes[0]).await);
        for node in nodes {
            if (view(node).await.fingerprint, registry_hash(node).await) != first {
                return false;
            }
        }
        true
    })
    .await;
}

async fn put(node: &MeshNode, name: &str, value: i64) {
    let key: EntryKey = format!("model/{name}").parse().unwrap();
    let value = Value::Integer(value).encode().unwrap();
    let fields: Fields = [("value".parse().unwrap(), value)].into_iter().collect();
    node.registry_write(Action::Put { key, ttl: None, fields }, 0).await.unwrap();
}

async fn sealed_step(node: &MeshNode) -> u64 {
    view(node).await.checkpoint.map_or(0, |sealed| sealed.checkpoint.step.0)
}

#[actix::test]
async fn a_newcomer_begins_with_a_checkpoint_where_entries_were_dropped() {
    let dirs: [tempfile::TempDir; 5] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let alice = start(1, dirs[0].path(), Vec::new(), true).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses(), true).await;
    let carol = start(3, dirs[2].path(), alice.bootstrap_addresses(), true).await;
    let old = [&alice, &bob, &carol];
    let mut acknowledged: Vec<(NodeId, Seq)> = Vec::new();
    let mut largest = 0;
    for round in 0..20_u8 {
        for (index, node) in (0_u8..).zip(old) {
            let texts = (0..100).map(|_| vec![b'a' + index; 200].into()).collect();
            let appended = node.append_all(texts, 0).await.unwrap();
            acknowledged
                .extend(appended.into_iter().map(|done| done.map(|done| (done.author, done.seq)).unwrap()));
            put(node, &format!("m{round}-{index}"), i64::from(round)).await;
            put(node, "shared", i64::from(round)).await;
        }
        largest = largest.max(view(&alice).await.disk_bytes);
    }
    assert_eq!(acknowledged.len(), 6000);
    until_equal("the three are equal", &old).await;
    // All of them: entries behind a checkpoint that the newcomer takes could be dropped before it has asked for them,
    // and it would take the next one as well.
    for node in old {
        until("all entries are dropped", || has_dropped_all(node)).await;
    }
    let written: u64 = 6000 * 200;
    until("the disk has shrunk", || async { view(&alice).await.disk_bytes < written }).await;
    let disk = view(&alice).await.disk_bytes;
    println!("{disk} bytes on disk, at most {largest}; {written} bytes of payloads were written");
    assert!(largest > disk);

    let dave = start(4, dirs[3].path(), alice.bootstrap_addresses(), true).await;
    until_equal("the newcomer is like the others", &[&alice, &bob, &carol, &dave]).await;
    let seen = view(&dave).await;
    assert_eq!(seen.stats.checkpoints_adopted, 1, "{:?}", seen.stats);
    let covered = seen.stats.entries_covered;
    assert!(covered >= 6000, "{covered}");
    until("it is told what the checkpoint stands for", || async {
        dave.log_reports().await.unwrap().iter().map(|report| report.covered).sum::<u64>() == covered
    })
    .await;
    assert_eq!(registry_hash(&dave).await.1, 61, "60 entries of their own, and the shared one");
    for (author, seq) in &acknowledged {
        let head = seen.heads.iter().find(|head| head.author == *author).unwrap();
        assert!(head.seq >= *seq, "what was acknowledged is covered");
    }

    // It writes, and makes the next checkpoint with the others.
    dave.append("of the newcomer", 3).await.unwrap();
    put(&dave, "of-the-newcomer", 1).await;
    let step = sealed_step(&dave).await;
    until("the newcomer seals with the others", || async {
        view(&dave).await.stats.checkpoints_sealed > 0 && sealed_step(&dave).await > step
    })
    .await;

    // After a restart everything is as it was.
    let (before, step) = (registry_hash(&dave).await, sealed_step(&dave).await);
    dave.shutdown().await;
    let dave = start(4, dirs[3].path(), alice.bootstrap_addresses(), false).await;
    assert!(sealed_step(&dave).await >= step, "the checkpoint is kept");
    assert_eq!(registry_hash(&dave).await, before);
    until_equal("still like the others", &[&alice, &bob, &carol, &dave]).await;

    // One with nothing but its key goes on behind what the checkpoint says that it wrote.
    let head = view(&carol).await.heads.iter().find(|head| head.author == carol.peer_id()).unwrap().seq;
    carol.shutdown().await;
    let carol = start(3, dirs[4].path(), alice.bootstrap_addresses(), false).await;
    assert_eq!(carol.append("again", 1).await.unwrap().seq, head.saturating_add(1));
    until_equal("all four", &[&alice, &bob, &carol, &dave]).await;
    assert!(!view(&alice).await.heads.iter().any(|head| head.fork.is_some()));
    for node in [alice, bob, carol, dave] {
        node.shutdown().await;
    }
}
