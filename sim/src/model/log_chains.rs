//! All records that were ever written, as the chains that they are: what a checkpoint stands for is looked up here, and
//! folded anew.

use hashbrown::HashMap;
use omnimesh_protocol::log::checkpoint::{Base, Cut};
use omnimesh_protocol::log::{Head, Record};
use omnimesh_protocol::{Hash, Step};

use super::shard::Shard;

/// By digest.
pub(super) struct Chains<'a>(HashMap<Hash, &'a Record>);

impl<'a> Chains<'a> {
    pub(super) fn new(shards: &'a [Shard]) -> Self {
        let records = shards.iter().flat_map(|shard| shard.sink.pool.values()).map(|pooled| &pooled.record);
        Chains(records.map(|record| (record.digest(), record)).collect())
    }

    /// The records up to this head, from the first on; fewer if one was never written.
    pub(super) fn up_to(&self, head: Head) -> Vec<&'a Record> {
        let mut chain: Vec<&Record> = Vec::new();
        let mut before = head.as_prev();
        while let Some(record) = before.and_then(|digest| self.0.get(&digest).copied()) {
            chain.push(record);
            before = record.prev();
        }
        chain.reverse();
        chain
    }

    /// What exactly the entries in a cut come to.
    pub(super) fn fold(&self, cut: &Cut) -> Base {
        let mut folded = Base::default();
        for cut in cut.0.values() {
            for record in self.up_to(cut.head) {
                folded.take(record, Step(u64::MAX));
            }
        }
        folded
    }
}
