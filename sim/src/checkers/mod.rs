//! What must be true of a run, judged from its recorded facts.
//!
//! Checkers are apart from what they check: they see the [`Scenario`] and the [`Outcome`] and nothing else. They
//! share no code with the engines or the protocol, draw no random numbers, and give the same verdict whenever
//! asked. [`Check`] says what each demands. Where a fact is recorded in two ways they compare the two, and a record
//! that contradicts itself fails.
//!
//! Two rules hold for all. Nothing passes for want of facts: where there is nothing to look at, the check
//! fails and says what to change. And one verdict is always given, asked for or not: [`FAULTS_TOOK_EFFECT`]; a run
//! whose planned fault did nothing shows nothing.

mod checkpoints;
mod compute;
mod detection;
mod effects;
mod logs;
mod messages;
mod nodes;
mod steps;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::scenario::{Check, Scenario};

/// The name of the verdict that is always given: each planned fault and each adversary did something.
pub const FAULTS_TOOK_EFFECT: &str = "faults_took_effect";

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Which check: [`Check::name`], or [`FAULTS_TOOK_EFFECT`].
    pub name: String,
    /// Whether it is fulfilled.
    pub ok: bool,
    /// Why, for people: numbers, and of a failure the worst case and where to look.
    pub detail: String,
}

/// Judges a run: the checks of the scenario in their order, then [`FAULTS_TOOK_EFFECT`].
pub fn check(scenario: &Scenario, outcome: &Outcome) -> Vec<Checked> {
    let asked = scenario.checks.iter().map(|check| (check.name(), judge(scenario, outcome, check)));
    let always = (FAULTS_TOOK_EFFECT, effects::took_effect(scenario, outcome));
    asked
        .chain([always])
        .map(|(name, verdict)| {
            let (ok, detail) = match verdict {
                Ok(detail) => (true, detail),
                Err(detail) => (false, detail),
            };
            Checked { name: name.into(), ok, detail }
        })
        .collect()
}

/// The details of a fulfilled check, or of a failed one.
type Verdict = Result<String, String>;

fn judge(scenario: &Scenario, outcome: &Outcome, check: &Check) -> Verdict {
    match *check {
        Check::Agreement { within } => steps::agreement(scenario, outcome, within),
        Check::Monotone => steps::monotone(outcome),
        Check::Authentic => messages::authentic(scenario, outcome),
        Check::Delivery { ratio } => messages::delivery(scenario, outcome, ratio),
        Check::Convergence { steps } => steps::convergence(scenario, outcome, steps),
        Check::BoundedMemory { bytes_per_node } => nodes::bounded_memory(outcome, bytes_per_node),
        Check::NoFalseQuarantine => nodes::no_false_quarantine(outcome),
        Check::NoLostEntry { within } => {
            logs::no_lost_entry(outcome, scenario.log.as_ref().map_or(0, |log| log.replicas), within)
        }
        Check::EqualLogs { within } => logs::equal_logs(outcome, within),
        Check::EqualRegistries { within } => logs::equal_registries(outcome, within),
        Check::SameFreeze { within } => logs::same_freeze(outcome, within),
        Check::OnlyWritten => logs::only_written(outcome),
        Check::BoundedBuffers { bytes } => logs::bounded_buffers(outcome, bytes),
        Check::TrueCheckpoints => checkpoints::true_checkpoints(outcome),
        Check::TasksCommittedOnce => compute::tasks_committed_once(outcome),
        Check::NoWrongResult => compute::no_wrong_result(outcome),
        Check::EveryJobEnds => compute::every_job_ends(outcome),
        Check::Makespan { max } => compute::makespan(outcome, max),
        Check::Detection { precision_min, recall_min, false_quarantined_max } => {
            detection::detection(outcome, precision_min, recall_min, false_quarantined_max)
        }
    }
}
