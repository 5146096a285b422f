//! What happened to nodes, one by one: recorded for a span of virtual time, to see where two runs part.

use std::fmt;
use std::time::Duration;

use super::packet::Packet;
use crate::outcome::Outcome;

/// Something that happened to a node.
///
/// Sorted by time and node, what happened to one node in its order, the records of two runs can be compared
/// element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
    /// To which node.
    pub node: u32,
    /// What.
    pub what: Happened,
    /// A hash of all that has happened to the node up to here: of two that look alike it says whether they are.
    pub trace: u64,
}

/// What can happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was woken for a timer.
    Woken,
    /// It handed a timer back to one of its machines.
    Timer(Machine),
    /// A frame for a machine arrived from a node.
    Frame(Machine, u32),
    /// A connection was closed by the node at its other end.
    Closed(u32),
    /// A message was delivered that a node brought.
    Delivered(u32),
}

/// A machine of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The gossip router.
    Gossip,
    /// Step synchronisation.
    Step,
    /// Membership.
    Membership,
    /// The durable log, or its disk.
    Log,
    /// The observer.
    Observer,
    /// A driver or worker of jobs.
    Compute,
    /// What makes an adversary misbehave.
    Mischief,
}

/// A run of which a span was recorded.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// What came of it.
    pub outcome: Outcome,
    /// What happened in the span, sorted by time and node.
    pub happenings: Vec<Happening>,
}

impl Happening {
    /// The order in which what happened is told.
    pub fn key(&self) -> (u64, u32) {
        (self.at_ns, self.node)
    }
}

impl Machine {
    pub(super) fn of(packet: &Packet) -> Self {
        match packet {
            Packet::Gossip(_) => Machine::Gossip,
            Packet::Control(_) => Machine::Step,
            Packet::Swim(..) => Machine::Membership,
            Packet::Log(_) => Machine::Log,
            Packet::Compute(_) => Machine::Compute,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Machine::Gossip => "gossip",
            Machine::Step => "step",
            Machine::Membership => "membership",
            Machine::Log => "log",
            Machine::Observer => "observer",
            Machine::Compute => "compute",
            Machine::Mischief => "adversary",
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_nanos(self.at_ns).as_secs_f64();
        write!(f, "{seconds:.9} s, node {}: {}, trace {:016x}", self.node, self.what, self.trace)
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happened::Woken => f.write_str("woken"),
            Happened::Timer(machine) => write!(f, "{} timer", machine.name()),
            Happened::Frame(machine, from) => write!(f, "{} frame from node {from}", machine.name()),
            Happened::Closed(by) => write!(f, "connection closed by node {by}"),
            Happened::Delivered(from) => write!(f, "message delivered by node {from}"),
        }
    }
}
