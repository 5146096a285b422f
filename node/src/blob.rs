//! A node's blobs: content named by its hash.

use std::sync::Arc;

use actix::Addr;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;

use crate::actors::Links;
use crate::actors::blob::{BlobActor, Get, GetError};
use crate::node::MeshNode;
use crate::store::blob::BlobStore;

impl MeshNode {
    /// The blobs on this node's disk.
    ///
    /// # Errors
    /// If the node keeps none, or has stopped.
    pub fn blobs(&self) -> Result<Arc<BlobStore>, GetError> {
        Ok(self.links_of_blobs()?.1)
    }

    /// Has a blob on this node's disk: it is fetched from all peers that hold it if it is not there, and checked piece
    /// by piece.
    ///
    /// # Errors
    /// If nobody has it, it cannot be kept, or the node has stopped.
    pub async fn blob(&self, hash: Hash) -> Result<BlobRef, GetError> {
        let (blobs, _) = self.links_of_blobs()?;
        Get::from(&blobs, hash).await
    }

    pub(crate) fn links_of_blobs(&self) -> Result<(Addr<BlobActor>, Arc<BlobStore>), GetError> {
        let of_blobs = |links: &Links| links.blobs.clone().zip(links.files.blobs.clone());
        self.0.with_links(of_blobs).map_err(|_| GetError::Stopped)?.ok_or(GetError::NoStore)
    }
}
