//! Real nodes with data directories, over TCP on loopback: what one puts, others get, and only that.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use omnimesh_node::store::blob::BLOB_DIR;
use omnimesh_node::{GetError, MeshNode};
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::{GROUP_BYTES, groups_of};

use crate::common::{self, PATIENCE, until};

async fn start(number: u8, dir: &Path, bootstrap: Vec<String>) -> MeshNode {
    start_with(number, dir, bootstrap, 0).await
}

/// A node that sends no more than so many bytes of blobs in a second.
async fn start_with(number: u8, dir: &Path, bootstrap: Vec<String>, bytes_per_s: u64) -> MeshNode {
    common::start("blob-test", number, dir, bootstrap, |config| {
        config.compute.transfer_bytes_per_s = bytes_per_s;
    })
    .await
}

fn content(length: u64) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place * 131 % 241).unwrap()).collect()
}

/// A node is ready before all its streams are up: what is not found at once is, soon.
async fn get(node: &MeshNode, hash: Hash) -> BlobRef {
    let got = async {
        loop {
            match node.blob(hash).await {
                Ok(blob) => return blob,
                Err(GetError::NotFound(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, got).await.expect("the blob is fetched")
}

fn read(node: &MeshNode, blob: BlobRef) -> Vec<u8> {
    let store = node.blobs().unwrap();
    let groups = (0..groups_of(blob.size)).map(|group| store.group(&blob.hash, group).unwrap().unwrap());
    groups.flatten().collect()
}

#[actix::test]
async fn what_one_puts_others_get_from_all_who_have_it() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let alice = start(1, dirs[0].path(), Vec::new()).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses()).await;
    for length in [0, 5, GROUP_BYTES, 9 * GROUP_BYTES + 17] {
        let content = content(length);
        let blob = alice.blobs().unwrap().put(&content[..], false).unwrap();
        assert_eq!(get(&bob, blob.hash).await, blob);
        assert!(read(&bob, blob) == content, "{length} bytes");
    }
    let carol = start(3, dirs[2].path(), alice.bootstrap_addresses()).await;
    // Whom alice has not yet introduced when she leaves never meet.
    for node in [&bob, &carol] {
        until("all are connected", async || node.metrics().await.unwrap().peers == 2).await;
    }
    let large = content(40 * GROUP_BYTES);
    let blob = alice.blobs().unwrap().put(&large[..], false).unwrap();
    get(&bob, blob.hash).await;
    // Both have it; one of them leaves while it is fetched.
    let (got, ()) = futures::join!(get(&carol, blob.hash), async {
        while carol.blobs().unwrap().list().iter().all(|view| view.here == 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        alice.shutdown().await;
    });
    assert_eq!(got, blob);
    assert!(read(&carol, blob) == large);
    let nobody = Hash::of(b"what nobody has");
    let missing = tokio::time::timeout(PATIENCE, carol.blob(nobody)).await.unwrap();
    assert_eq!(missing, Err(GetError::NotFound(nobody)));
    for node in [bob, carol] {
        node.shutdown().await;
    }
}

#[actix::test]
async fn what_is_damaged_at_one_comes_from_another() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let alice = start(1, dirs[0].path(), Vec::new()).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses()).await;
    let content = content(3 * GROUP_BYTES);
    let blob = alice.blobs().unwrap().put(&content[..], true).unwrap();
    let file = dirs[0].path().join(BLOB_DIR).join(blob.hash.to_string());
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(b"else", GROUP_BYTES + 7).unwrap();
    // Until somebody has it whole, nobody gets it; and what was good of it is kept.
    let failed = loop {
        match tokio::time::timeout(PATIENCE, bob.blob(blob.hash)).await.unwrap() {
            Err(GetError::NotFound(_)) if bob.blobs().unwrap().list().is_empty() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => break other,
        }
    };
    assert!(matches!(failed, Err(GetError::Fetch { .. } | GetError::NotFound(_))), "{failed:?}");
    let carol = start(3, dirs[2].path(), alice.bootstrap_addresses()).await;
    assert_eq!(carol.blobs().unwrap().put(&content[..], false).unwrap(), blob);
    get(&bob, blob.hash).await;
    assert!(read(&bob, blob) == content);
    // The one that had lost it mends its own copy.
    get(&alice, blob.hash).await;
    assert!(read(&alice, blob) == content);
    for node in [alice, bob, carol] {
        node.shutdown().await;
    }
}

#[actix::test]
async fn a_node_with_a_limit_sends_no_faster_than_it_may() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let rate = 2 * GROUP_BYTES;
    let alice = start_with(1, dirs[0].path(), Vec::new(), rate).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses()).await;
    let carol = start(3, dirs[2].path(), alice.bootstrap_addresses()).await;
    // Two blobs, for two at once: the limit is that of the node, not of a peer or a transfer.
    let contents = [content(8 * GROUP_BYTES), content(8 * GROUP_BYTES + 1)];
    let blobs = contents.each_ref().map(|content| alice.blobs().unwrap().put(&content[..], false).unwrap());
    let begin = Instant::now();
    futures::join!(get(&bob, blobs[0].hash), get(&carol, blobs[1].hash));
    let took = begin.elapsed();
    // A second's worth goes at once, and the last pieces of each are on their way when they are waited for.
    let sent = 16 * GROUP_BYTES;
    let least = Duration::from_secs((sent - 2 * GROUP_BYTES) / rate - 1);
    assert!(took >= least / 2, "{sent} bytes in {took:?}, with {rate} bytes a second");
    for (node, (blob, content)) in [&bob, &carol].into_iter().zip(blobs.into_iter().zip(&contents)) {
        assert!(read(node, blob) == *content);
    }
    for node in [alice, bob, carol] {
        node.shutdown().await;
    }
}

#[actix::test]
async fn fetches_that_nobody_waits_for_leave_room_for_others() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let alice = start(1, dirs[0].path(), Vec::new()).await;
    let bob = start(2, dirs[1].path(), alice.bootstrap_addresses()).await;
    let [first, second] =
        [5, 6].map(|length| alice.blobs().unwrap().put(&content(length)[..], false).unwrap());
    get(&bob, first.hash).await;
    // As many as are fetched at once, all of them given up before anybody has answered.
    for number in 0..64_u8 {
        let mut asked = Box::pin(bob.blob(Hash::of(&[number])));
        assert!(futures::poll!(&mut asked).is_pending());
    }
    assert_eq!(bob.blob(second.hash).await, Ok(second));
    for node in [alice, bob] {
        node.shutdown().await;
    }
}
