//! What must be true of a run.

use std::time::Duration;

/// How long nodes have to catch up, if a scenario does not say.
const WITHIN: Duration = Duration::from_secs(20);

/// What must be true of a run. A check that finds nothing to look at, as no message or no sample, fails: it
/// must be left out or the scenario mended. [`crate::checkers`] says more.
///
/// A *disturbance* is a fault, or an attack on the step ([`super::AdversaryKind::is_on_step`]). It is over as
/// [`super::Fault::over`] says; one without an end is a condition that the mesh must live with, and counts as over as
/// soon as it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// Mesh times of honest, connected nodes are within this of each other, in each sample from the first one
    /// after the last start in which all that are up have a step. Not looked at from the beginning of a
    /// disturbance until `convergence` (or 10 steps) after it is over. Nodes are connected if they are in one
    /// island: [`crate::outcome::Sample::island_skew_ms`] counts.
    Agreement {
        /// How far apart at most.
        within: Duration,
    },
    /// No honest node's step ever falls while its process lives.
    Monotone,
    /// Nothing is delivered that its author did not publish, nothing twice to the same process, and nothing to
    /// its author.
    Authentic,
    /// Every message reaches every honest node that was connected to its author through honest nodes: of all
    /// pairs of a message and a node of its audience, this part.
    Delivery {
        /// The part that must arrive: 1 is all.
        ratio: f64,
    },
    /// After the last disturbance is over, steps agree again and membership is whole (where it is on) within
    /// this many steps. Steps agree from the first sample on in which all that are up have a step and mesh times
    /// are within the bound of `agreement` (or one step), unless a later sample is outside. Fulfilled if
    /// there was no disturbance.
    Convergence {
        /// How many.
        steps: u32,
    },
    /// What a node holds stays below this.
    BoundedMemory {
        /// Bytes for each node, on average, at the end.
        bytes_per_node: u64,
    },
    /// No honest node shuts out another.
    NoFalseQuarantine,
    /// Every entry that was acknowledged to its author, but for the last moments, is on the disk of every honest node
    /// that is up at the end, has been for so long, and is connected with most others; as it was acknowledged.
    NoLostEntry {
        /// How long nodes have to catch up.
        within: Duration,
    },
    /// These nodes hold the same logs, each of which is a chain from its beginning.
    EqualLogs {
        /// As for `NoLostEntry`.
        within: Duration,
    },
    /// These nodes have the same registry.
    EqualRegistries {
        /// As for `NoLostEntry`.
        within: Duration,
    },
    /// These nodes hold the same logs for frozen, at the same entry and by the same proof; no honest node's log is
    /// among them, and if somebody signed two records for one place, somebody's log is.
    SameFreeze {
        /// As for `NoLostEntry`.
        within: Duration,
    },
    /// Nothing is in an honest node's log but what that node was asked to append, and that once. No record is given to
    /// anybody that is not as it was written.
    OnlyWritten,
    /// Every checkpoint that an honest node has sealed is what exactly the entries in its cut come to; so is what stands for
    /// entries that a node does not keep. What was acknowledged is in every cut that reaches so far, as it was
    /// acknowledged. At least one was sealed by two nodes.
    TrueCheckpoints,
    /// What waits in a log for its place or to be written stays below this, in every sample.
    BoundedBuffers {
        /// Bytes, at each node.
        bytes: u64,
    },
    /// Each task of each job is committed once: no driver commits what its ledger has, or what it has committed itself, and
    /// all ledgers of honest nodes that are up at the end name the same results.
    TasksCommittedOnce,
    /// No result in those ledgers is wrong, unless half of those who were asked for it at least were liars.
    NoWrongResult,
    /// Each job has ended in all of those ledgers, and has succeeded.
    EveryJobEnds,
    /// From the first submission to the end of the last job it takes at most so many times the bound:
    /// [`crate::outcome::ComputeFacts::bound`].
    Makespan {
        /// So many times.
        max: f64,
    },
    /// Of what honest nodes hold against others, and of those who misbehave, so much is right and found; of the nodes
    /// shut out, at most so many were honest. [`crate::summary::Detector`] defines the figures; they hold for each
    /// adversary of the scenario by itself. Needs observers and adversaries.
    Detection {
        /// The least precision.
        precision_min: f64,
        /// The least recall.
        recall_min: f64,
        /// Honest nodes that honest nodes shut out, at most.
        false_quarantined_max: u64,
    },
}

names! {
    Check {
        Agreement => "agreement",
        Monotone => "monotone",
        Authentic => "authentic",
        Delivery => "delivery",
        Convergence => "convergence",
        BoundedMemory => "bounded_memory",
        NoFalseQuarantine => "no_false_quarantine",
        NoLostEntry => "no_lost_entry",
        EqualLogs => "equal_logs",
        EqualRegistries => "equal_registries",
        SameFreeze => "same_freeze",
        OnlyWritten => "only_written",
        BoundedBuffers => "bounded_buffers",
        TrueCheckpoints => "true_checkpoints",
        TasksCommittedOnce => "tasks_committed_once",
        NoWrongResult => "no_wrong_result",
        EveryJobEnds => "every_job_ends",
        Makespan => "makespan",
        Detection => "detection",
    }
}

impl Check {
    /// All checks that need no log, with values that any healthy run fulfils.
    pub fn all() -> Vec<Check> {
        vec![
            Check::Agreement { within: Duration::from_secs(1) },
            Check::Monotone,
            Check::Authentic,
            Check::Delivery { ratio: 1.0 },
            Check::Convergence { steps: 10 },
            Check::BoundedMemory { bytes_per_node: 1 << 20 },
            Check::NoFalseQuarantine,
        ]
    }

    /// The check of the observers, with the aims for what cannot be proved.
    pub const DETECTION: Check =
        Check::Detection { precision_min: 0.95, recall_min: 0.95, false_quarantined_max: 0 };

    /// All checks of the log, with values that any healthy run fulfils.
    pub fn of_log() -> Vec<Check> {
        Check::of_log_within(WITHIN)
    }

    /// The same, if the run ends so long after the last append.
    pub fn of_log_within(rest: Duration) -> Vec<Check> {
        // Without any the scenario is refused, and says so.
        let within = if rest.is_zero() { WITHIN } else { WITHIN.min(rest) };
        vec![
            Check::NoLostEntry { within },
            Check::EqualLogs { within },
            Check::EqualRegistries { within },
            Check::SameFreeze { within },
            Check::OnlyWritten,
            // The bounds of `log::Config`, together.
            Check::BoundedBuffers { bytes: 64 << 20 },
        ]
    }

    /// All checks of checkpoints.
    pub fn of_checkpoints() -> Vec<Check> {
        vec![Check::TrueCheckpoints]
    }

    /// All checks of jobs, with values that any healthy run fulfils.
    pub fn of_compute() -> Vec<Check> {
        vec![
            Check::TasksCommittedOnce,
            Check::NoWrongResult,
            Check::EveryJobEnds,
            Check::Makespan { max: 1.3 },
        ]
    }

    /// How long the nodes that it looks at have had to catch up, if it looks at logs.
    pub const fn within(&self) -> Option<Duration> {
        match self {
            Check::NoLostEntry { within }
            | Check::EqualLogs { within }
            | Check::EqualRegistries { within }
            | Check::SameFreeze { within } => Some(*within),
            _ => None,
        }
    }
}
