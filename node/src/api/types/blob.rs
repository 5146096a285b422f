//! The documents of blobs.

use omnimesh_protocol::Hash;
use serde::{Deserialize, Serialize};

use crate::store::blob::BlobView;

/// Content that was taken in. It is on this node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPut {
    /// BLAKE3 of the content: its name.
    pub hash: Hash,
    /// How many bytes.
    pub size: u64,
}

/// A blob as it is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// BLAKE3 of the content: its name.
    pub hash: Hash,
    /// How many bytes it has.
    pub size: u64,
    /// How many of them are here.
    pub here_bytes: u64,
    /// Whether it stays until somebody takes the pin back.
    pub pinned: bool,
}

impl From<BlobView> for Blob {
    fn from(view: BlobView) -> Self {
        Blob { hash: view.blob.hash, size: view.blob.size, here_bytes: view.here, pinned: view.is_pinned }
    }
}
