//! What nodes found out about each other.

use std::time::Duration;

use omnimesh_protocol::observer::AnomalyKind;

/// What observers did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectionFacts {
    /// What an honest node held against another one, each kind once, by time.
    pub held: Vec<Held>,
    /// Who was put into quarantine by whom: honest nodes' doings only, by time.
    pub convicted: Vec<Convicted>,
    /// Of each of [`super::Outcome::adversary_nodes`]: the right names for what it does, and whether it can be proved.
    pub truth: Vec<Truth>,
    /// Honest nodes that were up at the end.
    pub honest_up: u32,
    /// Connections that observers refused.
    pub connections_refused: u64,
}

/// Something that an honest node held against another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub by: u32,
    /// Against whom.
    pub against: u32,
    /// What.
    pub kind: AnomalyKind,
    /// When first.
    pub at: Duration,
}

/// A quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convicted {
    /// Who shut out.
    pub by: u32,
    /// Whom.
    pub whom: u32,
    /// When.
    pub at: Duration,
}

/// What somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Its place among the adversaries of the scenario.
    pub adversary: usize,
    /// Any of these names is right.
    pub kinds: Vec<AnomalyKind>,
    /// It can be proved.
    pub is_provable: bool,
    /// When it first did it; none: it never found an occasion.
    pub from: Option<Duration>,
    /// Honest nodes that can know: up and in step at the end, and it has shown them enough of what it does. Sorted.
    pub witnesses: Vec<u32>,
}
