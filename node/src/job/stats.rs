//! How a job stands: states, times, who did what, and the longest chain of tasks.
//!
//! Looks at every task once: 100,000 tasks take some tens of milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use omnimesh_protocol::compute::TaskRef;
use omnimesh_protocol::compute::driver::Progress;
use omnimesh_protocol::compute::ledger::{JobState, JobView, Outcome, TaskState};
use omnimesh_protocol::{NodeId, Step};

use super::Seen;
use crate::api::types::{FamilyTimes, TaskCounts};

/// How a job stands.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// In the order of the file.
    pub families: Vec<FamilyStats>,
    /// Who has done how much.
    pub workers: BTreeMap<NodeId, WorkerStats>,
    /// Working time of all results.
    pub work_ms: u64,
    /// CPU time of all results.
    pub cpu_ms: u64,
    /// The longest chain of tasks that wait for one another, the first one first.
    pub critical_path: Vec<PathStep>,
    /// How long that is.
    pub critical_ms: u64,
    /// The step of the last result that counts.
    pub last_result: Option<Step>,
}

/// How a family stands.
#[derive(Clone, Debug, Default)]
pub struct FamilyStats {
    /// How far its tasks are.
    pub counts: TaskCounts,
    /// How long they took.
    pub times: FamilyTimes,
    /// Its part of the longest chain.
    pub critical_ms: u64,
    /// Length of its outputs.
    pub output_bytes: u64,
    /// The task that took longest.
    pub slowest: Option<(TaskRef, u64)>,
}

/// What a worker has done of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Results that it has, alone or with others.
    pub tasks: u32,
    /// Working time, by the attempts that count.
    pub work_ms: u64,
    /// CPU time, by the attempts that count.
    pub cpu_ms: u64,
    /// Attempts under way.
    pub running: u32,
}

/// A task of the longest chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStep {
    /// Which.
    pub task: TaskRef,
    /// How long it took; what its like take in the median, if it has no result.
    pub wall_ms: u64,
    /// Whether it has one.
    pub is_done: bool,
}

impl Stats {
    /// Looks at a job.
    pub fn of(seen: &Seen<'_>, view: &JobView<'_>) -> Self {
        let progress = seen.driver.progress(&view.id());
        let mut stats =
            Stats { families: vec![FamilyStats::default(); view.plan().families()], ..Stats::default() };
        let running = running(progress.as_ref());
        for (_, worker) in progress.iter().flat_map(|progress| &progress.attempts) {
            stats.workers.entry(*worker).or_default().running += 1;
        }
        let walls = stats.read_tasks(view, &running);
        stats.find_critical_path(view, &walls);
        stats
    }

    /// Everything but the longest chain; how long each task took, in the order of the plan.
    fn read_tasks(&mut self, view: &JobView<'_>, running: &BTreeSet<TaskRef>) -> Vec<Option<u64>> {
        let plan = view.plan();
        let mut walls = vec![None; plan.total() as usize];
        let mut by_family: Vec<Vec<u64>> = vec![Vec::new(); plan.families()];
        for (task, wall) in plan.tasks().zip(&mut walls) {
            let Some(family) = self.families.get_mut(usize::from(task.task)) else { continue };
            *slot(&mut family.counts, state_of(view, running, task)) += 1;
            let Some(record) = view.record(task) else { continue };
            let Outcome::Succeeded(output) = record.commit.outcome else { continue };
            let commit = &record.commit;
            *wall = Some(commit.wall_ms);
            family.output_bytes = family.output_bytes.saturating_add(output.size);
            family.times.cpu_ms = family.times.cpu_ms.saturating_add(commit.cpu_ms);
            if family.slowest.is_none_or(|(_, slowest)| commit.wall_ms > slowest) {
                family.slowest = Some((task, commit.wall_ms));
            }
            if let Some(times) = by_family.get_mut(usize::from(task.task)) {
                times.push(commit.wall_ms);
            }
            for worker in &commit.workers {
                let worker = self.workers.entry(*worker).or_default();
                worker.tasks += 1;
                worker.work_ms = worker.work_ms.saturating_add(commit.wall_ms);
                worker.cpu_ms = worker.cpu_ms.saturating_add(commit.cpu_ms);
            }
            self.last_result = self.last_result.max(Some(record.stamp.step));
        }
        for (family, times) in self.families.iter_mut().zip(&mut by_family) {
            times.sort_unstable();
            family.times.done = u32::try_from(times.len()).unwrap_or(u32::MAX);
            family.times.p50_ms = quantile(times, 500);
            family.times.p95_ms = quantile(times, 950);
            family.times.max_ms = times.last().copied().unwrap_or(0);
            family.times.work_ms = times.iter().fold(0, |sum, time| sum.saturating_add(*time));
            self.work_ms = self.work_ms.saturating_add(family.times.work_ms);
            self.cpu_ms = self.cpu_ms.saturating_add(family.times.cpu_ms);
        }
        walls
    }

    /// The chain of tasks, each waiting for the one before it, that takes longest. Critical path method: the earliest
    /// end of each task is its duration after the latest of those that it waits for.
    fn find_critical_path(&mut self, view: &JobView<'_>, walls: &[Option<u64>]) {
        let plan = view.plan();
        let at = |task: TaskRef| plan.index(task).unwrap_or(0);
        // The end of each task, and the one that it waited for.
        let mut ends = vec![(0_u64, None::<TaskRef>); walls.len()];
        // The last of each family: who waits for all of it waits for that.
        let mut last: Vec<Option<(u64, TaskRef)>> = vec![None; plan.families()];
        for &family in plan.order() {
            let typical = self.families.get(usize::from(family)).map_or(0, |family| family.times.p50_ms);
            for chunk in 0..plan.count(family) {
                let task = TaskRef::new(family, chunk);
                let before = plan.waits(family).iter().filter_map(|wait| {
                    if wait.reach == omnimesh_protocol::compute::job::Reach::All {
                        return last.get(usize::from(wait.task)).copied().flatten();
                    }
                    let others = plan.reach(chunk, wait).map(|chunk| TaskRef::new(wait.task, chunk));
                    others.map(|other| (ends[at(other)].0, other)).max_by_key(|(end, _)| *end)
                });
                let before = before.max_by_key(|(end, _)| *end);
                let wall = walls[at(task)].unwrap_or(typical);
                let end = before.map_or(0, |(end, _)| end).saturating_add(wall);
                ends[at(task)] = (end, before.map(|(_, task)| task));
                let last = &mut last[usize::from(family)];
                if last.is_none_or(|(latest, _)| end > latest) {
                    *last = Some((end, task));
                }
            }
        }
        let Some((end, mut task)) = last.into_iter().flatten().max_by_key(|(end, _)| *end) else { return };
        self.critical_ms = end;
        loop {
            let known = walls[at(task)];
            let family = self.families.get_mut(usize::from(task.task));
            let wall_ms = known.or(family.as_ref().map(|family| family.times.p50_ms)).unwrap_or(0);
            if let Some(family) = family {
                family.critical_ms = family.critical_ms.saturating_add(wall_ms);
            }
            self.critical_path.push(PathStep { task, wall_ms, is_done: known.is_some() });
            match ends[at(task)].1 {
                Some(before) => task = before,
                None => break,
            }
        }
        self.critical_path.reverse();
    }

    /// The families on the longest chain, the first one first.
    pub fn critical_families(&self) -> Vec<u16> {
        let mut families: Vec<u16> = self.critical_path.iter().map(|step| step.task.task).collect();
        families.dedup();
        families
    }

    /// How long the longest chain took, of those that have results.
    pub fn done_ms(&self) -> u64 {
        self.critical_path.iter().filter(|step| step.is_done).map(|step| step.wall_ms).sum()
    }

    /// How many tasks have a result.
    pub fn results(&self) -> u32 {
        self.families.iter().map(|family| family.times.done).sum()
    }
}

/// The tasks that are being done, as far as the driver's node knows.
pub(super) fn running(progress: Option<&Progress>) -> BTreeSet<TaskRef> {
    progress.iter().flat_map(|progress| progress.attempts.iter().map(|(task, _)| *task)).collect()
}

/// The state of a task, RUNNING if it is.
pub(super) fn state_of(view: &JobView<'_>, running: &BTreeSet<TaskRef>, task: TaskRef) -> TaskState {
    match view.task(task).unwrap_or_default() {
        TaskState::Ready if running.contains(&task) => TaskState::Running,
        state => state,
    }
}

/// All counts of a job, without looking at its tasks.
pub(super) fn counts(view: &JobView<'_>, running: usize) -> TaskCounts {
    let counts = view.counts();
    let mut all = TaskCounts {
        succeeded: counts.succeeded,
        failed: counts.failed,
        skipped: counts.skipped,
        ..TaskCounts::default()
    };
    if view.state() == JobState::Running {
        all.running = u32::try_from(running).unwrap_or(u32::MAX).min(counts.ready);
        (all.pending, all.ready) = (counts.pending, counts.ready - all.running);
    } else {
        all.cancelled = counts.pending + counts.ready;
    }
    all
}

fn slot(counts: &mut TaskCounts, state: TaskState) -> &mut u32 {
    match state {
        TaskState::Pending => &mut counts.pending,
        TaskState::Ready => &mut counts.ready,
        TaskState::Running => &mut counts.running,
        TaskState::Succeeded => &mut counts.succeeded,
        TaskState::Failed => &mut counts.failed,
        TaskState::Skipped => &mut counts.skipped,
        TaskState::Cancelled => &mut counts.cancelled,
    }
}

impl TaskCounts {
    /// Those that have ended.
    pub fn ended(&self) -> u32 {
        self.succeeded + self.failed + self.skipped + self.cancelled
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        self.pending + self.ready + self.running + self.ended()
    }
}

/// By nearest rank; 0 of nothing.
fn quantile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let times: Vec<u64> = (1..=100).collect();
        assert_eq!(
            [quantile(&times, 500), quantile(&times, 950), quantile(&[7], 950), quantile(&[], 500)],
            [50, 95, 7, 0]
        );
    }
}
