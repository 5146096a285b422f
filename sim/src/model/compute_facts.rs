//! What is written down of jobs while nodes run, and how it becomes facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use omnimesh_protocol::compute::job::Slot;
use omnimesh_protocol::compute::ledger::{self, JobView, Part, TaskState};
use omnimesh_protocol::compute::{BlobRef, TaskRef};

use super::compute::Committed;
use super::compute_jobs::{ComputeSettings, Planned, Role, truth};
use super::compute_list::list_schedule;
use super::record::Record;
use super::shard::Shard;
use super::shared::Shared;
use crate::outcome::{ComputeCounts, ComputeFacts, JobFacts, WrongResult};
use crate::scenario::Compute;

/// What one shard has seen of jobs.
#[derive(Debug, Default)]
pub(super) struct ComputeNotes {
    pub(super) counts: ComputeCounts,
    /// When each job was in its submitter's log.
    pub(super) submitted: BTreeMap<u64, u64>,
    /// When the first ledger had each job ended.
    pub(super) ended: BTreeMap<usize, u64>,
    pub(super) refused: u64,
    /// Who was found to have signed a wrong result.
    pub(super) accused: BTreeSet<u32>,
    pub(super) committed: BTreeSet<Committed>,
    /// Of each job, commits of what was committed.
    pub(super) again: BTreeMap<usize, u32>,
    pub(super) deaths: u32,
}

impl ComputeNotes {
    pub(super) fn merge(&mut self, other: ComputeNotes) {
        self.counts += other.counts;
        self.submitted.extend(other.submitted);
        for (job, at) in other.ended {
            let known = self.ended.entry(job).or_insert(at);
            *known = (*known).min(at);
        }
        self.refused += other.refused;
        self.accused.extend(other.accused);
        self.committed.extend(other.committed);
        for (job, count) in other.again {
            *self.again.entry(job).or_default() += count;
        }
        self.deaths += other.deaths;
    }
}

pub(super) fn facts(
    shared: &Shared,
    shards: &[Shard],
    record: &mut Record,
    away: &[(u32, u64, u64)],
) -> Option<ComputeFacts> {
    let (settings, compute) = (shared.compute.as_ref()?, shared.scenario.compute.as_ref()?);
    let mut notes = std::mem::take(&mut record.compute);
    let nodes = shards.iter().flat_map(|shard| (shard.first()..).zip(&shard.nodes));
    let parts: Vec<_> = nodes.filter_map(|(me, node)| Some((me, node.compute_part()?))).collect();
    parts.iter().for_each(|(_, part)| part.add_stats(&mut notes));
    let honest = |me: u32| !shared.dishonest.contains(me);
    let ledgers: Vec<&ledger::State> =
        parts.iter().filter(|(me, _)| honest(*me)).filter_map(|(_, part)| part.ledger()).collect();
    let jobs: Vec<JobFacts> = settings
        .jobs
        .iter()
        .enumerate()
        .map(|(number, job)| of_job(shared, number, job, &ledgers, &notes))
        .collect();
    let liars = settings.roles.iter().filter(|role| role.lies()).count();
    let lies = |node: &&u32| settings.roles.get(**node as usize).is_some_and(|role| role.lies());
    let found = notes.accused.iter().filter(lies).count();
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let begin = compute.time_of(0);
    let ends: Option<Vec<Duration>> = jobs.iter().map(|job| job.ended).collect();
    let end = ends.and_then(|ends| ends.into_iter().max());
    let until = end.unwrap_or(shared.scenario.duration);
    Some(ComputeFacts {
        ledgers: small(ledgers.len()),
        bound: bound(settings, compute, (begin, until), away),
        list_schedule: list_schedule(settings, compute, begin),
        makespan: end.map(|end| end.saturating_sub(begin)),
        liars: small(liars),
        liars_found: small(found),
        honest_accused: small(notes.accused.len() - found),
        deaths_planned: small(settings.dying.len()),
        deaths: notes.deaths,
        counts: notes.counts,
        jobs,
    })
}

/// What no schedule beats. See [`ComputeFacts::bound`].
fn bound(
    settings: &ComputeSettings,
    compute: &Compute,
    (begin, until): (Duration, Duration),
    away: &[(u32, u64, u64)],
) -> Duration {
    let span = until.saturating_sub(begin).as_secs_f64().max(1e-9);
    let mut capacity = 0.0;
    for (node, role) in (0_u32..).zip(&settings.roles) {
        if *role != Role::Honest {
            continue;
        }
        let down: f64 = away
            .iter()
            .filter(|(of, ..)| *of == node)
            .map(|(_, from, to)| {
                let (from, to) =
                    (Duration::from_nanos(*from).max(begin), Duration::from_nanos(*to).min(until));
                to.saturating_sub(from).as_secs_f64()
            })
            .sum();
        let up = (1.0 - down / span).clamp(0.0, 1.0);
        capacity += f64::from(compute.slots) * up / settings.slowness(node);
    }
    let mut work = 0.0;
    let mut longest = Duration::ZERO;
    for (number, job) in settings.jobs.iter().enumerate() {
        let copies = f64::from(compute.redundancy) + compute.spot_checks;
        let each = job.plan.tasks().map(|task| settings.service(number, task).as_secs_f64());
        work += each.sum::<f64>() * copies;
        let submitted = compute.time_of(u32::try_from(number).unwrap_or(u32::MAX)).saturating_sub(begin);
        longest = longest.max(submitted + settings.critical_path(number));
    }
    let by_work = Duration::from_secs_f64((work / capacity.max(1e-9)).clamp(0.0, 1e9));
    by_work.max(longest)
}

fn of_job(
    shared: &Shared,
    number: usize,
    job: &Planned,
    ledgers: &[&ledger::State],
    notes: &ComputeNotes,
) -> JobFacts {
    let views: Vec<JobView<'_>> = ledgers.iter().filter_map(|ledger| ledger.job(&job.id)).collect();
    let at = |ns: &u64| Duration::from_nanos(*ns);
    let count = |is: &dyn Fn(&JobView<'_>) -> bool| {
        u32::try_from(views.iter().filter(|view| is(view)).count()).unwrap_or(u32::MAX)
    };
    let mut facts = JobFacts {
        submitter: job.submitter,
        submitted: notes.submitted.get(&(number as u64)).map(at),
        ended: notes.ended.get(&number).map(at),
        tasks: job.plan.total(),
        finished_in: count(&|view| view.is_finished()),
        succeeded_in: count(&|view| view.counts().succeeded == job.plan.total()),
        state: views.first().map(|view| view.state().code()),
        committed_again: notes.again.get(&number).copied().unwrap_or(0),
        ..JobFacts::default()
    };
    let Some(first) = views.first() else { return facts };
    let right = right_results(shared, job);
    for task in job.plan.tasks() {
        let output = first.output(task);
        let record = first.record(task);
        let is_told =
            first.task(task) != Some(TaskState::Succeeded) || (record.is_some() && output.is_some());
        let agree = views.iter().all(|view| view.output(task) == output);
        facts.differing += u32::from(!is_told || !agree);
        let authors: BTreeSet<_> = first
            .records(task)
            .filter(|other| record.is_some_and(|record| other.commit.inputs == record.commit.inputs))
            .map(|other| other.stamp.author)
            .collect();
        facts.committed_by_two += u32::from(authors.len() > 1);
        for view in &views {
            let Some(output) = view.output(task).filter(|output| right.get(&task) != Some(output)) else {
                continue;
            };
            facts.wrong.extend(wrong(shared, view, task, output));
            break;
        }
    }
    facts
}

fn wrong(shared: &Shared, view: &JobView<'_>, task: TaskRef, output: BlobRef) -> Option<WrongResult> {
    let (settings, compute) = (shared.compute.as_ref()?, shared.scenario.compute.as_ref()?);
    let record = view.record(task)?;
    let lies = |node| {
        let role = shared.find(node).and_then(|node| settings.roles.get(node as usize));
        role.is_some_and(|role| role.lies())
    };
    let asked = record.commit.workers.iter().chain(&record.commit.dissenters);
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let count = asked.clone().count();
    // One that was checked, if only by chance, needs two that agree.
    let wanted = if count > 1 { compute.redundancy.max(2) } else { compute.redundancy };
    Some(WrongResult {
        task: (task.task, task.chunk),
        asked: small(count),
        liars: small(asked.filter(|node| lies(node)).count()),
        agreed: small(record.commit.workers.iter().filter(|node| lies(node)).count()),
        wanted: wanted.into(),
        is_inherited: output == truth(task, &view.parts(task), compute.output_bytes),
    })
}

/// What each task makes if all tasks before it are right.
fn right_results(shared: &Shared, job: &Planned) -> BTreeMap<TaskRef, BlobRef> {
    let bytes = shared.scenario.compute.as_ref().map_or(0, |compute| compute.output_bytes);
    let mut right = BTreeMap::new();
    for family in job.plan.order() {
        for chunk in 0..job.plan.count(*family) {
            let task = TaskRef::new(*family, chunk);
            let mut parts = Vec::new();
            for slot in job.plan.slots(&job.spec, task) {
                match slot {
                    Slot::Blob { blob, from, to, align } => parts.push(Part::Blob { blob, from, to, align }),
                    Slot::Outputs { task, from, to } => {
                        let of = (from..to).map(|chunk| right.get(&TaskRef::new(task, chunk)).copied());
                        parts.extend(of.map(|blob: Option<BlobRef>| match blob {
                            Some(blob) => Part::Blob {
                                blob,
                                from: 0,
                                to: blob.size,
                                align: omnimesh_protocol::compute::job::Align::Byte,
                            },
                            None => Part::Missing,
                        }));
                    }
                }
            }
            right.insert(task, truth(task, &parts, bytes));
        }
    }
    right
}
