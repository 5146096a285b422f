//! What the API asks of the blobs.

use std::sync::Arc;

use futures::FutureExt;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;

use super::NodeBackend;
use crate::actors::blob::GetError;
use crate::api::backend::{Answer, BlobBackend};
use crate::node::MeshNode;
use crate::store::blob::BlobStore;

impl BlobBackend for NodeBackend {
    fn blob_store(&self) -> Result<Arc<BlobStore>, GetError> {
        let node = self.inner().map(MeshNode).map_err(|_| GetError::Stopped)?;
        Ok(node.links_of_blobs()?.1)
    }

    fn blob_get(&self, hash: Hash) -> Answer<'_, BlobRef, GetError> {
        async move {
            let node = self.inner().map(MeshNode).map_err(|_| GetError::Stopped)?;
            node.blob(hash).await
        }
        .boxed()
    }
}
