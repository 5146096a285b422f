//! The replicator.

use std::fmt::Debug;

use rand_core::Rng;

use crate::id::{Hash, NodeId, Seq};
use crate::identity::Identity;
use crate::machine::Outbox;
use crate::mesh::Mesh;
use crate::pattern::PatternGenerator;
use crate::time::Time;

use super::gates::RecordGates;
use super::{AuthorHead, Config, Input, Output, Proof, Start, Stats};

/// The log of one node. See the text of the module.
#[derive(Debug)]
pub struct State<P> {
    config: Config,
    identity: Identity,
    gates: RecordGates,
    stats: Stats,
    peers: Vec<P>,
}

impl<P: Copy + Ord + Debug> State<P> {
    /// The log of the node `identity` as it is when the node starts. Pushes the first timers.
    pub fn new(
        config: Config,
        identity: Identity,
        mesh: &Mesh,
        patterns: PatternGenerator,
        start: Start,
        now: Time,
        out: &mut Outbox<Output<P>>,
    ) -> Self {
        let _ = (start, now, out);
        let gates = RecordGates::new(&config, mesh, patterns);
        State { config, identity, gates, stats: Stats::default(), peers: Vec::new() }
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let _ = (now, input, rng, out, &self.peers, &self.gates);
    }

    /// True if appends wait and an [`Input::Flush`] would seal some.
    pub fn wants_flush(&self) -> bool {
        false
    }

    /// What is on disk: one head for each author, in the order of authors.
    pub fn heads(&self) -> impl Iterator<Item = AuthorHead> + '_ {
        std::iter::empty()
    }

    /// What is on disk of one author.
    pub fn head(&self, author: &NodeId) -> Option<AuthorHead> {
        self.heads().find(|head| head.author == *author)
    }

    /// The first entry of this author that is on disk.
    pub fn base(&self, author: &NodeId) -> Option<Seq> {
        self.head(author).map(|_| Seq(1))
    }

    /// The proof that froze this author's log.
    pub fn proof(&self, author: &NodeId) -> Option<&Proof> {
        let _ = author;
        None
    }

    /// One hash of all that is on disk: two nodes with the same have the same logs.
    pub fn fingerprint(&self) -> Hash {
        Hash::from_bytes([0; 32])
    }

    /// True once the end of the own log is known, so that appends are written.
    pub fn is_own_log_known(&self) -> bool {
        true
    }

    /// The log in numbers.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.identity.id()
    }

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {}
}
