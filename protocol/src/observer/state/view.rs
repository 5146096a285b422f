//! What can be asked of the observer.

use std::fmt::Display;
use std::hash::Hash as StdHash;

use bytes::Bytes;

use super::super::doubt::Doubt;
use super::super::finding::{Finding, Subject};
use super::super::quarantine::Sentence;
use super::super::why::{WhyPeer, WhyStep};
use super::super::{NetworkMetrics, Story, trust};
use super::State;
use crate::id::{Hash, MessageId, NodeId, Step};
use crate::time::Time;

/// Evidence that this node keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvidence {
    /// Its name.
    pub id: Hash,
    /// Whom it convicts.
    pub accused: NodeId,
    /// Who sent it, or this node.
    pub reporter: NodeId,
    /// The bytes, as `evidence verify` reads them.
    pub bytes: Bytes,
}

impl<P: Display + Clone + Ord + StdHash> State<P> {
    /// What happened to a message; `None` if it was never seen or is forgotten.
    pub fn story(&self, id: &MessageId) -> Option<&Story<P>> {
        self.ledger.story(id)
    }

    /// What went wrong, oldest first.
    pub fn anomalies(&self) -> Vec<Finding> {
        self.records.findings()
    }

    /// Rates, latencies and health at `now`.
    pub fn metrics(&self, now: Time) -> NetworkMetrics {
        self.monitor.metrics(now)
    }

    /// The trust in somebody, 0 to 1.
    pub fn trust(&self, now: Time, subject: &Subject<P>) -> f64 {
        self.records.trust(now, subject)
    }

    /// How much this node doubts itself.
    pub fn doubt(&self) -> &Doubt {
        &self.doubt
    }

    /// Who is in quarantine, sorted by key.
    pub fn quarantined(&self) -> impl Iterator<Item = (&NodeId, &Sentence)> {
        self.quarantines.iter()
    }

    /// The evidence that is kept, sorted by whom it convicts.
    pub fn evidence(&self) -> impl Iterator<Item = KeptEvidence> {
        self.known.iter().map(|(accused, known)| KeptEvidence {
            id: known.id,
            accused: *accused,
            reporter: known.reporter,
            bytes: known.evidence.clone(),
        })
    }

    /// The key of a peer, or its name.
    pub fn subject_of(&self, peer: &P) -> Subject<P> {
        self.subject(peer)
    }

    /// Why this node thinks of somebody what it does.
    pub fn why_peer(&self, now: Time, subject: &Subject<P>) -> WhyPeer {
        let text = subject.to_string();
        let record = self.records.get(subject);
        let node = subject.node();
        let value = self.records.trust(now, subject);
        let config = &self.config.trust;
        let empty = Default::default();
        let (standing, history) = record
            .map_or((&empty, Vec::new()), |record| (&record.trust, record.history.iter().copied().collect()));
        WhyPeer {
            accused: text.clone(),
            trust: value,
            score: trust::app_score(value),
            sums: standing.sums(now, config),
            doubt: self.doubt.value(now),
            doubts: self.doubt.parts(now).to_vec(),
            findings: record.map(|record| record.findings(&text)).unwrap_or_default(),
            history,
            quarantine: node.and_then(|node| self.quarantines.get(&node).copied()),
            pardoned_until: node.and_then(|node| self.quarantines.pardon(&node)),
            step: self.step,
            step_interval: self.step_interval,
            stranger_again_s: standing.seconds_until(now, trust::STRANGER - 0.02, config),
            in_mesh_again_s: standing.seconds_until(now, trust::INDIFFERENT, config),
            at: now,
        }
    }

    /// Why this node is in the step that it is in.
    pub fn why_step(&self, now: Time) -> WhyStep {
        WhyStep {
            step: self.step,
            doubts: self.doubt.parts(now).to_vec(),
            events: self.step_events.iter().cloned().collect(),
            at: now,
        }
    }

    /// The step that this observer has come to.
    pub fn step(&self) -> Option<Step> {
        self.step
    }

    /// Bytes that the tables use.
    pub fn bytes(&self) -> usize {
        self.tables().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The same, of each table.
    pub fn tables(&self) -> [(&'static str, usize); 9] {
        const PLACE: usize = 128;
        let places: usize = self.places.sizes().iter().sum();
        let author = super::row_bytes::<NodeId, super::AuthorStats>();
        let neighbour = super::row_bytes::<P, super::Neighbour>();
        let sentences = self.quarantines.iter().count() + self.quarantines.pardons().count();
        [
            ("stories", self.ledger.bytes()),
            ("accused", self.records.bytes()),
            ("authors", self.authors.len() * author),
            ("neighbours", self.neighbours.len() * neighbour),
            ("messages", self.memory.bytes()),
            ("evidence", self.known_bytes),
            ("accusations", self.assembler.sizes().1),
            ("places", places * PLACE),
            ("quarantines", sentences * PLACE),
        ]
    }

    /// Things that found no room: accused, peers, checks, saved entries that could not be read.
    pub fn shed(&self) -> u64 {
        self.shed.saturating_add(self.records.sizes().1)
    }

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {
        self.quarantines.check_invariants();
        assert!(self.neighbours.len() <= self.config.peers_max, "peers are bounded");
        assert!(self.quarantines.get(&self.identity.id()).is_none(), "nobody shuts itself out");
        assert!(self.known_bytes <= self.config.evidence_bytes_max, "evidence is bounded");
        for accused in self.known.keys() {
            assert!(self.quarantines.get(accused).is_some(), "evidence is kept of those in quarantine only");
        }
        assert!(self.bytes() <= self.config.bytes_max(), "{} of {}", self.bytes(), self.config.bytes_max());
    }
}
