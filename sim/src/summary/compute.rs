//! Jobs in numbers.

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// What came of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComputeSummary {
    /// Jobs.
    pub jobs: u64,
    /// Of these, those that have ended in all ledgers.
    pub ended: u64,
    /// Of these, those that have succeeded in all ledgers.
    pub succeeded: u64,
    /// Tasks of all jobs.
    pub tasks: u64,
    /// Ledgers that were looked at.
    pub ledgers: u64,
    /// Wrong results in ledgers.
    pub wrong: u64,
    /// Commits of what a driver's ledger had.
    pub committed_again: u64,
    /// Tasks that two drivers have committed, neither knowing of the other.
    pub committed_by_two: u64,
    /// From the first submission to the end of the last job.
    pub makespan_s: Option<f64>,
    /// What no schedule beats.
    pub bound_s: Option<f64>,
    /// One divided by the other.
    pub makespan_ratio: Option<f64>,
    /// What a scheduler would reach that knows everything but how long tasks take.
    pub list_schedule_s: Option<f64>,
    /// Workers whose results are wrong.
    pub liars: u64,
    /// Of these, those that drivers have found out.
    pub liars_found: u64,
    /// Honest workers that drivers have taken for liars.
    pub honest_accused: u64,
    /// Runs begun.
    pub runs: u64,
    /// Runs stopped before their end.
    pub stopped: u64,
    /// Runs of workers that died.
    pub lost: u64,
    /// Attempts refused for lack of room.
    pub busy: u64,
    /// Attempts answered from memory, or by a run that was under way.
    pub shared: u64,
    /// Additional attempts beside those that took long.
    pub stragglers: u64,
    /// Tasks for which more workers were asked, as no result had a majority.
    pub ties: u64,
    /// Outputs that were made again, as nobody had them any more.
    pub restored: u64,
    /// How often somebody began to drive a job that another had submitted.
    pub takeovers: u64,
    /// Entries that drivers wrote.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
}

impl ComputeSummary {
    pub(super) fn of(outcome: &Outcome) -> ComputeSummary {
        let Some(facts) = &outcome.compute else { return ComputeSummary::default() };
        let counts = &facts.counts;
        let jobs = |is: &dyn Fn(&crate::outcome::JobFacts) -> bool| {
            facts.jobs.iter().filter(|job| is(job)).count() as u64
        };
        let sum = |of: &dyn Fn(&crate::outcome::JobFacts) -> u32| {
            facts.jobs.iter().map(|job| u64::from(of(job))).sum::<u64>()
        };
        let makespan_s = facts.makespan.map(|makespan| makespan.as_secs_f64());
        let bound_s = (!facts.bound.is_zero()).then_some(facts.bound.as_secs_f64());
        ComputeSummary {
            jobs: facts.jobs.len() as u64,
            ended: jobs(&|job| job.finished_in == facts.ledgers),
            succeeded: jobs(&|job| job.succeeded_in == facts.ledgers),
            tasks: sum(&|job| job.tasks),
            ledgers: facts.ledgers.into(),
            wrong: facts.jobs.iter().map(|job| job.wrong.len() as u64).sum(),
            committed_again: sum(&|job| job.committed_again),
            committed_by_two: sum(&|job| job.committed_by_two),
            makespan_s,
            bound_s,
            makespan_ratio: makespan_s.zip(bound_s).map(|(makespan, bound)| makespan / bound),
            list_schedule_s: (!facts.list_schedule.is_zero()).then_some(facts.list_schedule.as_secs_f64()),
            liars: facts.liars.into(),
            liars_found: facts.liars_found.into(),
            honest_accused: facts.honest_accused.into(),
            runs: counts.runs,
            stopped: counts.stopped,
            lost: counts.lost,
            busy: counts.busy,
            shared: counts.shared,
            stragglers: counts.stragglers,
            ties: counts.ties,
            restored: counts.restored,
            takeovers: counts.takeovers,
            entries: counts.entries,
            entry_bytes: counts.entry_bytes,
        }
    }
}
