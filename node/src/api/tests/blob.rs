//! Blobs by way of the API.

use std::sync::Arc;

use futures::FutureExt;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use serde_json::{Value, json};

use super::support::*;
use crate::actors::blob::GetError;
use crate::api::backend::{Answer, BlobBackend};
use crate::api::types::{Blob, BlobPut, ErrorCode};
use crate::store::blob::{BLOB_DIR, BlobStore};

/// Blobs in a directory of their own, and nobody who has others.
pub(super) struct Blobs {
    store: Arc<BlobStore>,
    dir: tempfile::TempDir,
}

impl Blobs {
    /// Writes something else over the blob that is there.
    fn damage(&self) {
        std::fs::write(self.dir.path().join(BLOB_DIR).join(known().hash.to_string()), b"other").unwrap();
    }
}

impl Default for Blobs {
    fn default() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(BlobStore::open(dir.path(), 8 << 20).unwrap());
        assert_eq!(store.put(&b"known"[..], true).unwrap(), known());
        Blobs { store, dir }
    }
}

/// One that is there.
pub(super) fn known() -> BlobRef {
    BlobRef::of(b"known")
}

impl BlobBackend for Memory {
    fn blob_store(&self) -> Result<Arc<BlobStore>, GetError> {
        Ok(Arc::clone(&self.blobs.store))
    }

    fn blob_get(&self, hash: Hash) -> Answer<'_, BlobRef, GetError> {
        std::future::ready(self.blobs.store.whole(&hash).ok_or(GetError::NotFound(hash))).boxed()
    }
}

pub(super) fn samples() -> Vec<(&'static str, Value)> {
    let BlobRef { hash, size } = known();
    let blob = Blob { hash, size, here_bytes: 0, pinned: true };
    vec![("BlobPut", json!(BlobPut { hash, size })), ("Blob", json!(blob))]
}

#[tokio::test]
async fn content_comes_back_by_its_hash() {
    let rig = Rig::start();
    let content = "mesh ".repeat(500_000);
    let reply = rig.send(&rig.request("POST", "/api/v1/blobs?pin=false", &[], &content)).await;
    let blob = BlobRef::of(content.as_bytes());
    assert_eq!((reply.status, reply.json()), (200, json!({"hash": blob.hash, "size": blob.size})));
    let path = format!("/api/v1/blobs/{}", blob.hash);
    let reply = rig.get(&path).await;
    assert_eq!((reply.status, reply.header("content-length")), (200, "2500000"));
    assert!(reply.body == content);
    let pin = |method| rig.request(method, &format!("{path}/pin"), &[], "");
    assert_eq!(rig.send(&pin("PUT")).await.json()["pinned"], true);
    assert_eq!(rig.get("/api/v1/blobs").await.json().as_array().unwrap().len(), 2);
    assert_eq!(rig.send(&pin("DELETE")).await.json()["pinned"], false);
    assert_eq!(rig.send(&pin("DELETE")).await.status, 404, "there is no pin");
    let removed = rig.send(&rig.request("DELETE", &path, &[], "")).await;
    assert_eq!((removed.status, removed.json()["here_bytes"].clone()), (200, json!(2_500_000)));
    assert_eq!(rig.get(&path).await.status, 404);
}

#[tokio::test]
async fn what_is_damaged_on_disk_is_an_error_with_a_reason() {
    let rig = Rig::start();
    let path = format!("/api/v1/blobs/{}", known().hash);
    rig.backend.blobs.damage();
    for message in ["is damaged on disk", "no connected node has"] {
        let reply = rig.get(&path).await;
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].clone()),
            (404, json!("not_found")),
            "{reply:?}"
        );
        assert!(reply.body.contains(message), "{reply:?}");
    }
}

#[tokio::test]
async fn what_does_not_fit_or_is_no_name_is_refused() {
    let rig = Rig::start();
    let reply = rig.send(&rig.request("POST", "/api/v1/blobs", &[], &"x".repeat(9 << 20))).await;
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].clone()),
        (507, json!("storage_full")),
        "{reply:?}"
    );
    assert_eq!(rig.get("/api/v1/blobs/abc").await.status, 400);
    assert_eq!(rig.send(&rig.request("POST", "/api/v1/blobs?pin=maybe", &[], "x")).await.status, 400);
    let packed = rig.request("POST", "/api/v1/blobs", &["Content-Encoding: gzip"], "x");
    rig.send(&packed).await.assert_error(415, ErrorCode::UnsupportedMediaType);
    assert_eq!(rig.get("/api/v1/blobs").await.json().as_array().unwrap().len(), 1, "nothing is left of them");
}
