//! Authors that sign whatever a test asks for.

use bytes::Bytes;

use crate::envelope::{Channel, Envelope, Header, Kind, Payloads};
use crate::id::{Hash, NodeId, Seq, Step};
use crate::identity::Identity;
use crate::mesh::Mesh;
use crate::pattern::PatternGenerator;

use super::Record;

pub(crate) fn mesh() -> Mesh {
    Mesh::open("test").unwrap()
}

pub(crate) fn patterns() -> PatternGenerator {
    PatternGenerator::new(mesh().secret().clone(), 100.try_into().unwrap(), 64.try_into().unwrap())
}

/// A key that signs anything.
pub(super) struct Author {
    pub(super) identity: Identity,
    patterns: PatternGenerator,
}

impl Author {
    pub(super) fn new(seed: u8) -> Self {
        Author { identity: Identity::from_seed(&[seed; 32]), patterns: patterns() }
    }

    /// A record behind `prev`, from `first` on, with so many entries; `salt` tells branches apart.
    pub(super) fn record(
        &mut self,
        first: u64,
        entries: u64,
        prev: Option<Hash>,
        step: u64,
        salt: u64,
    ) -> Record {
        let header = Header {
            mesh: mesh().id(),
            author: NodeId::from_bytes([0; 32]),
            seq: Seq(first),
            step: Step(step),
            kind: Kind::Durable,
            channel: Channel::new("log").unwrap(),
            prev: prev.or((first > 1).then(|| Hash::of(&salt.to_le_bytes()))),
            timestamp_us: None,
        };
        let payloads: Payloads = (0..entries).map(|i| Bytes::from(format!("{salt} {}", first + i))).collect();
        let envelope =
            Envelope::seal(&self.identity, self.patterns.at(Step(step)), header, payloads).unwrap();
        Record::new(envelope).unwrap()
    }

    /// Records of these many entries each, one behind the other from `from` on.
    pub(super) fn branch(&mut self, from: Option<&Record>, lengths: &[u64], salt: u64) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for entries in lengths {
            let last = records.last().or(from);
            let (first, prev) = last.map_or((1, None), |last| (last.last().0 + 1, Some(last.digest())));
            records.push(self.record(first, *entries, prev, 10, salt));
        }
        records
    }
}
