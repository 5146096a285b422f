//! A job that makes sense, with its fan-out worked out.
//!
//! No edge between single tasks is stored: a job of 100,000 tasks has perhaps five families, and who waits for whom
//! follows from their [`Wait`]s.

use std::ops::Range;

use crate::compute::id::{BlobRef, TaskRef};

use super::check::{self, Problem, ProblemCode};
use super::limits::{FAN_IN_MAX, Quota, READS_MAX};
use super::spec::{Align, Each, JobSpec, Source, TaskSpec};

/// A job with its fan-out worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    families: Vec<Family>,
    /// Each comes after those that it waits for.
    order: Vec<u16>,
    total: u32,
}

/// The tasks that one entry of the file makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Family {
    count: u32,
    /// The place of its first task among all tasks.
    first: u32,
    waits: Vec<Wait>,
    /// Those that wait for this one, and how.
    waiters: Vec<(u16, Reach)>,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Which family.
    pub task: u16,
    /// Which part of it.
    pub reach: Reach,
    /// True if its output is read, false if only its end matters.
    pub is_read: bool,
}

/// How much of a family a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    All,
    /// Task n waits for so many: n·group and those that follow.
    Group(u32),
}

/// One thing that a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A part of an input, `from` to `to`.
    Blob {
        /// Which.
        blob: BlobRef,
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
        /// What the ends mean.
        align: Align,
    },
    /// Outputs of these tasks, in order.
    Outputs {
        /// Which family.
        task: u16,
        /// The first chunk.
        from: u32,
        /// The chunk after the last.
        to: u32,
    },
}

impl Plan {
    /// Works out what a job means.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(spec: &JobSpec, quota: &Quota) -> Result<Self, Vec<Problem>> {
        let mut problems = check::check(spec, quota);
        // Only tasks that are there can be put into an order.
        let is_told =
            |problem: &Problem| matches!(problem.code, ProblemCode::UnknownName | ProblemCode::Cycle);
        let order = if problems.iter().any(is_told) {
            Vec::new()
        } else {
            check::order(spec).unwrap_or_else(|cycle| {
                problems.push(cycle_problem(spec, &cycle));
                Vec::new()
            })
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut families = vec![Family::default(); spec.tasks.len()];
        let (mut total, mut transfer, mut reads) = (0_u64, 0_u64, 0_u64);
        for &place in &order {
            let task = &spec.tasks[usize::from(place)];
            let count = count(spec, task, &families);
            total = total.saturating_add(count);
            transfer = transfer.saturating_add(fetched(spec, task, count));
            if total > quota.tasks_max.min(u64::from(u32::MAX)) {
                return Err(vec![too_many(task, total, quota)]);
            }
            if transfer > quota.transfer_bytes_max {
                return Err(vec![too_much(task, count, transfer, quota)]);
            }
            let waits = waits(task);
            let outputs = fan_in(&waits, &families);
            if outputs > FAN_IN_MAX {
                return Err(vec![too_wide(task, outputs)]);
            }
            let slots = task.sources.len() as u64 + u64::from(task.each.is_some());
            reads = reads.saturating_add(slots.saturating_add(outputs).saturating_mul(count));
            if reads > READS_MAX {
                return Err(vec![too_many_reads(task, count, reads)]);
            }
            for wait in &waits {
                families[usize::from(wait.task)].waiters.push((place, wait.reach));
            }
            let family = &mut families[usize::from(place)];
            family.count = u32::try_from(count).expect("below the total, which was checked");
            family.waits = waits;
        }
        let mut first = 0;
        for family in &mut families {
            family.first = first;
            first += family.count;
        }
        let total = u32::try_from(total).expect("was checked");
        Ok(Plan { families, order, total })
    }

    /// How many tasks there are.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// How many families there are.
    pub fn families(&self) -> usize {
        self.families.len()
    }

    /// The families, each after those that it waits for.
    pub fn order(&self) -> &[u16] {
        &self.order
    }

    /// How many tasks a family has; 0 if there is no such family.
    pub fn count(&self, task: u16) -> u32 {
        self.families.get(usize::from(task)).map_or(0, |family| family.count)
    }

    /// True if there is this task.
    pub fn contains(&self, task: TaskRef) -> bool {
        task.chunk < self.count(task.task)
    }

    /// The place of a task among all tasks, in the order of [`Plan::tasks`].
    pub fn index(&self, task: TaskRef) -> Option<usize> {
        let family = self.families.get(usize::from(task.task))?;
        (task.chunk < family.count).then(|| (family.first + task.chunk) as usize)
    }

    /// All tasks, family by family in the order of the file.
    pub fn tasks(&self) -> impl Iterator<Item = TaskRef> + '_ {
        (0_u16..)
            .zip(&self.families)
            .flat_map(|(task, family)| (0..family.count).map(move |chunk| TaskRef { task, chunk }))
    }

    /// What the tasks of a family wait for.
    pub fn waits(&self, task: u16) -> &[Wait] {
        self.families.get(usize::from(task)).map_or(&[], |family| &family.waits)
    }

    /// The chunks of `wait.task` that this task waits for.
    pub fn reach(&self, chunk: u32, wait: &Wait) -> Range<u32> {
        let count = self.count(wait.task);
        match wait.reach {
            Reach::All => 0..count,
            Reach::Group(group) => {
                let from = chunk.saturating_mul(group).min(count);
                from..from.saturating_add(group).min(count)
            }
        }
    }

    /// The families that wait for one, and how.
    pub fn waiters(&self, task: u16) -> &[(u16, Reach)] {
        self.families.get(usize::from(task)).map_or(&[], |family| &family.waiters)
    }

    /// What a task reads, in order: what it is fanned out over, then its sources.
    pub fn slots(&self, spec: &JobSpec, task: TaskRef) -> Vec<Slot> {
        let Some(of) = spec.tasks.get(usize::from(task.task)) else { return Vec::new() };
        let mut slots = Vec::with_capacity(of.sources.len() + 1);
        match of.each {
            Some(Each::Chunk { input, bytes, align }) => {
                let blob = spec.inputs[usize::from(input)].blob;
                let from = u64::from(task.chunk).saturating_mul(bytes).min(blob.size);
                let to = from.saturating_add(bytes).min(blob.size);
                slots.push(Slot::Blob { blob, from, to, align });
            }
            Some(Each::Output { task: other, group }) => {
                let wait = Wait { task: other, reach: Reach::Group(group), is_read: true };
                let chunks = self.reach(task.chunk, &wait);
                slots.push(Slot::Outputs { task: other, from: chunks.start, to: chunks.end });
            }
            None => {}
        }
        slots.extend(of.sources.iter().map(|source| match *source {
            Source::Input(input) => {
                let blob = spec.inputs[usize::from(input)].blob;
                Slot::Blob { blob, from: 0, to: blob.size, align: Align::Byte }
            }
            Source::Task(task) => Slot::Outputs { task, from: 0, to: self.count(task) },
        }));
        slots
    }

    /// The families that nobody reads from: the result, if the file names none.
    pub fn sinks(&self) -> impl Iterator<Item = u16> + '_ {
        (0_u16..).zip(&self.families).filter(|(_, family)| family.waiters.is_empty()).map(|(place, _)| place)
    }
}

fn count(spec: &JobSpec, task: &TaskSpec, families: &[Family]) -> u64 {
    match task.each {
        None => 1,
        // An empty input still has one, empty, chunk: every task has at least one result.
        Some(Each::Chunk { input, bytes, .. }) => {
            spec.inputs[usize::from(input)].blob.size.div_ceil(bytes.max(1)).max(1)
        }
        Some(Each::Output { task, group }) => {
            u64::from(families[usize::from(task)].count).div_ceil(u64::from(group.max(1)))
        }
    }
}

/// The bytes of inputs and programs that the tasks of a family have to have, wherever they are done.
fn fetched(spec: &JobSpec, task: &TaskSpec, count: u64) -> u64 {
    let size = |input: u16| spec.inputs[usize::from(input)].blob.size;
    let whole = task.sources.iter().map(|source| match *source {
        Source::Input(input) => size(input),
        Source::Task(_) => 0,
    });
    let program = (0..=task.last_stage()).filter_map(|stage| task.action_at(stage).program);
    let program = program.map(|program| program.size).max().unwrap_or(0);
    let each = whole.fold(program, u64::saturating_add);
    let shared = match task.each {
        Some(Each::Chunk { input, .. }) => size(input),
        _ => 0,
    };
    each.saturating_mul(count).saturating_add(shared).saturating_mul(u64::from(task.redundancy))
}

fn waits(task: &TaskSpec) -> Vec<Wait> {
    let mut waits: Vec<Wait> = Vec::new();
    let each = task.each.and_then(|each| match each {
        Each::Output { task, group } => Some(Wait { task, reach: Reach::Group(group), is_read: true }),
        Each::Chunk { .. } => None,
    });
    let sources = task.sources.iter().filter_map(|source| match *source {
        Source::Task(task) => Some(Wait { task, reach: Reach::All, is_read: true }),
        Source::Input(_) => None,
    });
    let after = task.after.iter().map(|task| Wait { task: *task, reach: Reach::All, is_read: false });
    for wait in each.into_iter().chain(sources).chain(after) {
        if !waits.contains(&wait) {
            waits.push(wait);
        }
    }
    waits
}

/// How many outputs one task reads.
fn fan_in(waits: &[Wait], families: &[Family]) -> u64 {
    let read = waits.iter().filter(|wait| wait.is_read).map(|wait| match wait.reach {
        Reach::All => u64::from(families[usize::from(wait.task)].count),
        Reach::Group(group) => u64::from(group),
    });
    read.fold(0, u64::saturating_add)
}

fn too_wide(task: &TaskSpec, outputs: u64) -> Problem {
    Problem::new(
        ProblemCode::Quota,
        format!("task.{}.inputs", task.name),
        format!("one task would read {outputs} outputs, more than {FAN_IN_MAX}"),
        "merge in steps: for_each = { output_of = \"…\", group = 64 }",
    )
}

fn too_many_reads(task: &TaskSpec, count: u64, reads: u64) -> Problem {
    Problem::new(
        ProblemCode::Quota,
        format!("task.{}.inputs", task.name),
        format!(
            "with these {count} tasks, all tasks together would read at least {reads} inputs and outputs, more than {READS_MAX}"
        ),
        "merge in steps (for_each = { output_of = \"…\", group = 64 }), or use longer chunks",
    )
}

fn cycle_problem(spec: &JobSpec, cycle: &[u16]) -> Problem {
    let name = |place: &u16| spec.tasks[usize::from(*place)].name.as_str();
    let first = cycle.first().map_or("", name);
    let names: Vec<_> = cycle.iter().map(name).chain([first]).collect();
    Problem::new(
        ProblemCode::Cycle,
        format!("task.{first}"),
        format!("tasks wait for one another: {}", names.join(" -> ")),
        "remove one of these from the `inputs`, `after` or `for_each` of the next",
    )
}

fn too_many(task: &TaskSpec, total: u64, quota: &Quota) -> Problem {
    Problem::new(
        ProblemCode::Quota,
        format!("task.{}.for_each", task.name),
        format!("the job would have at least {total} tasks, more than {}", quota.tasks_max),
        "use longer chunks or larger groups, or have `compute.job_tasks_max` raised on the node",
    )
}

fn too_much(task: &TaskSpec, count: u64, bytes: u64, quota: &Quota) -> Problem {
    // What is read once for each task is what adds up.
    let key = if task.sources.iter().any(|source| matches!(source, Source::Input(_))) {
        "inputs"
    } else {
        "for_each"
    };
    Problem::new(
        ProblemCode::Quota,
        format!("task.{}.{key}", task.name),
        format!(
            "with these {count} tasks, each by {} workers, the job would fetch at least {bytes} bytes of inputs and programs, more than {}",
            task.redundancy, quota.transfer_bytes_max
        ),
        "let each task read a chunk (for_each) in place of whole inputs, or lower redundancy, or have \
         `compute.job_transfer_bytes_max` raised on the node",
    )
}
