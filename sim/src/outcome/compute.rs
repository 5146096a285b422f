//! What became of jobs.

use std::time::Duration;

/// Jobs, the ledgers at the end, and what workers and drivers did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComputeFacts {
    /// Each job, in the order of the scenario.
    pub jobs: Vec<JobFacts>,
    /// Nodes that keep the ledger and are up at the end.
    pub ledgers: u32,
    /// No schedule takes less from the first submission on: the work of all tasks, as often as each has to be done, divided by
    /// what honest workers can do, each as long as it was up; or the longest path through a job from its submission on.
    pub bound: Duration,
    /// What a scheduler would reach that knows at once who is honest, quick and idle, and gives each task at no cost, but knows of
    /// none how long it takes: the list schedule on honest workers that take at most twice as long as usual, none of which dies.
    pub list_schedule: Duration,
    /// From the first submission to the end of the last job; `None` if one has not ended.
    pub makespan: Option<Duration>,
    /// Workers whose results are wrong.
    pub liars: u32,
    /// Of these, those that some driver has found out.
    pub liars_found: u32,
    /// Honest workers that some driver has taken for liars.
    pub honest_accused: u32,
    /// Submitters that were to die.
    pub deaths_planned: u32,
    /// Submitters that died as planned.
    pub deaths: u32,
    /// What workers and drivers counted.
    pub counts: ComputeCounts,
}

/// One job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFacts {
    /// Who submitted it.
    pub submitter: u32,
    /// When it was in the submitter's log.
    pub submitted: Option<Duration>,
    /// When the first ledger had it ended.
    pub ended: Option<Duration>,
    /// Its tasks.
    pub tasks: u32,
    /// Ledgers in which a driver has seen its end.
    pub finished_in: u32,
    /// Ledgers in which all its tasks have succeeded.
    pub succeeded_in: u32,
    /// Its state in the first ledger; none if that does not know it.
    pub state: Option<&'static str>,
    /// Commits of a task that the driver's ledger had with the same inputs, or that it had committed itself.
    pub committed_again: u32,
    /// Tasks that two drivers have committed with the same inputs, neither knowing of the other.
    pub committed_by_two: u32,
    /// Tasks of which two ledgers name different results, or one has a result and no commit that says so.
    pub differing: u32,
    /// Wrong results in ledgers.
    pub wrong: Vec<WrongResult>,
}

/// A wrong result in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongResult {
    /// Its task: of the file, and which one of the fan-out.
    pub task: (u16, u32),
    /// Workers that had signed a result when it was accepted, as its commit tells.
    pub asked: u32,
    /// Of these, liars.
    pub liars: u32,
    /// Of the liars, those who had signed this result.
    pub agreed: u32,
    /// How many have to agree on a result of such a task, while somebody else can be asked.
    pub wanted: u32,
    /// What it reads was wrong already: the result itself is right.
    pub is_inherited: bool,
}

/// What workers and drivers counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComputeCounts {
    /// Attempts that workers were asked for.
    pub assigned: u64,
    /// Refused for lack of room.
    pub busy: u64,
    /// Answered from memory, or by a run that was under way.
    pub shared: u64,
    /// Runs begun.
    pub runs: u64,
    /// Runs stopped before their end.
    pub stopped: u64,
    /// Runs of workers that died.
    pub lost: u64,
    /// Additional attempts beside those that took long.
    pub stragglers: u64,
    /// Tasks for which more workers were asked, as no result had a majority.
    pub ties: u64,
    /// Outputs that were made again, as nobody had them any more.
    pub restored: u64,
    /// Attempts that failed, with a lack of room among them.
    pub failed: u64,
    /// How often somebody began to drive a job that another had submitted.
    pub takeovers: u64,
    /// Entries of the ledger that drivers wrote.
    pub entries: u64,
    /// Of these, bytes.
    pub entry_bytes: u64,
}

impl std::ops::AddAssign for ComputeCounts {
    fn add_assign(&mut self, other: ComputeCounts) {
        let ComputeCounts {
            assigned,
            busy,
            shared,
            runs,
            stopped,
            lost,
            stragglers,
            ties,
            restored,
            failed,
            takeovers,
            entries,
            entry_bytes,
        } = other;
        self.assigned += assigned;
        self.busy += busy;
        self.shared += shared;
        self.runs += runs;
        self.stopped += stopped;
        self.lost += lost;
        self.stragglers += stragglers;
        self.ties += ties;
        self.restored += restored;
        self.failed += failed;
        self.takeovers += takeovers;
        self.entries += entries;
        self.entry_bytes += entry_bytes;
    }
}
