//! Authors and machines for the tests of this module.

use bytes::Bytes;

use crate::envelope::{Channel, Envelope, Header, Kind, Payloads};
use crate::id::{Hash, NodeId, Seq, Step};
use crate::identity::Identity;
pub(super) use crate::log::testing::{mesh, patterns};
use crate::log::{Proof, Record};
use crate::pattern::PatternGenerator;

pub(super) const BYTES_MAX: usize = 65_536;

/// A key that signs anything.
pub(super) struct Author {
    pub(super) identity: Identity,
    patterns: PatternGenerator,
}

impl Author {
    pub(super) fn new(seed: u8) -> Self {
        Author { identity: Identity::from_seed(&[seed; 32]), patterns: patterns() }
    }

    pub(super) fn id(&self) -> NodeId {
        self.identity.id()
    }

    fn seal(&mut self, header: Header, payloads: Payloads) -> Envelope {
        Envelope::seal(&self.identity, self.patterns.at(header.step), header, payloads).unwrap()
    }

    /// An ephemeral message of so many payloads.
    pub(super) fn message(&mut self, seq: u64, count: usize, step: u64, payload: &[u8]) -> Envelope {
        let header = Header {
            mesh: mesh().id(),
            author: self.id(),
            seq: Seq(seq),
            step: Step(step),
            kind: Kind::Ephemeral,
            channel: Channel::new("news").unwrap(),
            prev: None,
            timestamp_us: None,
        };
        self.seal(header, std::iter::repeat_n(Bytes::copy_from_slice(payload), count).collect())
    }

    /// A proof that it has forked its log at `seq`.
    pub(super) fn fork(&mut self, seq: u64, step: u64) -> Proof {
        let mut record = |salt: u8| {
            let ephemeral = self.message(seq, 1, step, &[salt]).header().clone();
            let prev = (seq > 1).then(|| Hash::of(&[salt]));
            let header = Header { kind: Kind::Durable, prev, ..ephemeral };
            Record::new(self.seal(header, [Bytes::copy_from_slice(&[salt])].into_iter().collect())).unwrap()
        };
        Proof::new(&record(1), &record(2)).unwrap()
    }
}
