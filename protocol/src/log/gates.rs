//! The gates for records that do not come by gossip: from peers, in answers and proofs.
//!
//! ```text
//! size, shape ─► mesh ─► durable ─► not in the future ─► tag ─► signature        (then the chain)
//! ```
//!
//! There is no window into the past and none for replays: a record may be as old as the mesh, and the chain knows
//! each place.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;

use crate::envelope::Envelope;
use crate::id::{MeshId, NodeId, Step};
use crate::identity::PublicKey;
use crate::mesh::Mesh;
use crate::pattern::PatternGenerator;
use crate::refusal::Refusal;
use crate::validate::{QUARANTINED_MAX, Unverified};

use super::{Config, Record};

/// Public keys kept decompressed. Source: guess; one costs 4 µs to make anew.
const KEYS_MAX: usize = 1024;

/// Judges records by all that can be judged without a signature and without their log.
#[derive(Debug)]
pub struct RecordGates {
    mesh: MeshId,
    patterns: PatternGenerator,
    message_bytes_max: usize,
    step_window_future: u64,
    keys: LruCache<NodeId, PublicKey>,
    quarantined: LruCache<NodeId, ()>,
}

impl RecordGates {
    /// Gates for records of this mesh.
    pub fn new(config: &Config, mesh: &Mesh, patterns: PatternGenerator) -> Self {
        let bounded = |max| NonZeroUsize::new(max).expect("not zero");
        let mut quarantined = LruCache::unbounded();
        quarantined.resize(bounded(QUARANTINED_MAX));
        let mut keys = LruCache::unbounded();
        keys.resize(bounded(KEYS_MAX));
        RecordGates {
            mesh: mesh.id(),
            patterns,
            message_bytes_max: config.message_bytes_max,
            step_window_future: config.step_window_future,
            keys,
            quarantined,
        }
    }

    /// Reads a record and checks all but its signature.
    ///
    /// # Errors
    /// The first gate that refuses.
    pub fn precheck(&mut self, now: Option<Step>, data: &Bytes) -> Result<Unverified, Refusal> {
        let envelope = Envelope::decode(data, self.message_bytes_max)?;
        let header = envelope.header();
        if header.mesh != self.mesh {
            return Err(Refusal::WrongMesh);
        }
        let now = now.ok_or(Refusal::NotSynchronised)?;
        let (author, step) = (header.author, header.step);
        let record = Record::new(envelope).ok_or(Refusal::WrongKind)?;
        if step > now.saturating_add(self.step_window_future) {
            return Err(Refusal::FutureStep);
        }
        if !record.envelope().is_tag_of(self.patterns.at(step)) {
            return Err(Refusal::BadPattern);
        }
        let key = match self.keys.get(&author) {
            Some(key) => key.clone(),
            None => {
                let key = PublicKey::new(&author).ok_or(Refusal::BadKey)?;
                self.keys.put(author, key.clone());
                key
            }
        };
        Ok(Unverified::new(record.envelope().clone(), Some(key)))
    }

    /// The patterns, to tag own records.
    pub fn patterns(&mut self) -> &mut PatternGenerator {
        &mut self.patterns
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// True if this author is in quarantine.
    pub fn is_quarantined(&self, author: &NodeId) -> bool {
        self.quarantined.contains(author)
    }

    /// Notes that `author` is in quarantine.
    pub fn quarantine(&mut self, author: NodeId) {
        self.quarantined.put(author, ());
    }

    /// Notes that `author` no longer is.
    pub fn lift(&mut self, author: &NodeId) {
        self.quarantined.pop(author);
    }
}
