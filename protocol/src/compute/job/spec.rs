//! What a job says.

use std::collections::BTreeMap;

use crate::compute::id::BlobRef;
use crate::registry::Encoded;

/// What a job is: the form in which it goes into the log. Made of a file by [`read`](fn@super::read), or by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// For people; 1 to 64 of `A–Z a–z 0–9 _ - .`.
    pub name: String,
    /// Tells two jobs of one submitter apart that say the same. To submit the same bytes twice is to submit one job.
    pub nonce: u64,
    /// Seconds of mesh time from its submission after which the job ends as cancelled, whatever has become of it.
    pub deadline_s: u64,
    /// In how many of 1,000 tasks with redundancy 1 a second worker is asked too, at random.
    pub spot_check_per_mille: u16,
    /// Blobs that tasks read.
    pub inputs: Vec<InputSpec>,
    /// The tasks, in the order of the file.
    pub tasks: Vec<TaskSpec>,
    /// What is the result of the job: names, and places in `tasks`.
    pub outputs: Vec<OutputSpec>,
}

/// A blob that tasks read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// Its name in the job.
    pub name: String,
    /// Its content.
    pub blob: BlobRef,
}

/// A part of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name.
    pub name: String,
    /// The task whose outputs it is, all chunks in order.
    pub task: u16,
}

/// A task, or with [`TaskSpec::each`] a family of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Its name in the job.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// What it reads, in order. What it is fanned out over comes first, before these.
    pub sources: Vec<Source>,
    /// What it is fanned out over.
    pub each: Option<Each>,
    /// Tasks that must have ended before it begins, beside those that it reads from.
    pub after: Vec<u16>,
    /// How much one attempt may take.
    pub limits: Limits,
    /// How often it is tried again.
    pub retry: Retry,
    /// How many workers are asked; the majority's result counts.
    pub redundancy: u8,
    /// Who may do it.
    pub constraints: Constraints,
    /// What happens when it has failed for good.
    pub on_failure: OnFailure,
    /// What happens when something that it reads was skipped.
    pub when_missing: WhenMissing,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which operation: one of [`OPERATIONS`](super::OPERATIONS).
    pub operation: String,
    /// The WebAssembly module, of operation `wasm`.
    pub program: Option<BlobRef>,
    /// What the operation is told.
    pub params: Params,
}

/// Parameters by name.
pub type Params = BTreeMap<String, Encoded>;

/// What a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A whole input, by its place in [`JobSpec::inputs`].
    Input(u16),
    /// The outputs of a task, all chunks in order, by its place in [`JobSpec::tasks`].
    Task(u16),
}

/// What a task is fanned out over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// Chunks of an input: as many as it takes.
    Chunk {
        /// Its place in [`JobSpec::inputs`].
        input: u16,
        /// Length of a chunk; the last may be shorter.
        bytes: u64,
        /// Where chunks may end.
        align: Align,
    },
    /// Outputs of another family, so many at a time.
    Output {
        /// Its place in [`JobSpec::tasks`].
        task: u16,
        /// How many outputs go into one task.
        group: u32,
    },
}

/// Where chunks may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Align {
    /// Anywhere.
    #[default]
    Byte,
    /// After a line feed: a chunk has the lines that begin in it.
    Line,
    /// After a row group of a Parquet file: a chunk has the row groups that begin in it.
    RowGroup,
}

/// How much one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Memory in bytes, beside its inputs.
    pub memory_bytes: u64,
    /// Length of the output.
    pub output_bytes: u64,
    /// Time from start to end in milliseconds.
    pub wall_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // Guesses: what a laptop gives without being noticed.
        Limits { cpu_ms: 60_000, memory_bytes: 256 << 20, output_bytes: 64 << 20, wall_ms: 120_000 }
    }
}

/// How often a task is tried again. The wait before attempt n is `min(backoff · 2^(n-1), backoff_max)`, less a random
/// share of up to `jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many more attempts after the first has failed. Workers that die are no failures.
    pub max: u8,
    /// The first wait, in milliseconds.
    pub backoff_ms: u64,
    /// The longest wait, in milliseconds.
    pub backoff_max_ms: u64,
    /// The random share of a wait, in thousandths.
    pub jitter_per_mille: u16,
}

impl Default for Retry {
    fn default() -> Self {
        // Full jitter is what costs least under contention (AWS Architecture Blog, "Exponential backoff and jitter",
        // 2015); half of it keeps a least wait. The rest are guesses.
        Retry { max: 3, backoff_ms: 200, backoff_max_ms: 10_000, jitter_per_mille: 500 }
    }
}

/// Who may do a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Labels that a worker must have, with these values.
    pub labels: BTreeMap<String, String>,
    /// Memory that a worker must have in all, in bytes.
    pub memory_bytes: u64,
    /// Where a worker must be.
    pub region: Option<String>,
}

/// What happens when a task has failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The job fails; what has not ended is cancelled.
    Fail,
    /// The task counts as skipped.
    Skip,
    /// Something else is done with the same inputs; if that fails, the job fails.
    Fallback(Action),
}

/// What happens when something that a task reads was skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenMissing {
    /// The task is skipped, too.
    #[default]
    Skip,
    /// It goes without; it is skipped only if there is nothing left to read.
    Omit,
}

impl JobSpec {
    /// The place of the input with this name.
    pub fn input(&self, name: &str) -> Option<u16> {
        place(self.inputs.iter().map(|input| input.name.as_str()), name)
    }

    /// The place of the task with this name.
    pub fn task(&self, name: &str) -> Option<u16> {
        place(self.tasks.iter().map(|task| task.name.as_str()), name)
    }
}

fn place<'a>(mut names: impl Iterator<Item = &'a str>, name: &str) -> Option<u16> {
    names.position(|known| known == name).and_then(|place| u16::try_from(place).ok())
}

impl TaskSpec {
    /// A task of this name and operation with everything else as a file that says nothing has it.
    pub fn new(name: &str, operation: &str) -> Self {
        TaskSpec {
            name: name.to_owned(),
            action: Action { operation: operation.to_owned(), program: None, params: Params::new() },
            sources: Vec::new(),
            each: None,
            after: Vec::new(),
            limits: Limits::default(),
            retry: Retry::default(),
            redundancy: 1,
            constraints: Constraints::default(),
            on_failure: OnFailure::Fail,
            when_missing: WhenMissing::Skip,
        }
    }

    /// What is done at a stage: 0, or 1 for the fallback.
    pub fn action_at(&self, stage: u8) -> &Action {
        match &self.on_failure {
            OnFailure::Fallback(action) if stage > 0 => action,
            _ => &self.action,
        }
    }

    /// The last stage: 1 if there is a fallback.
    pub fn last_stage(&self) -> u8 {
        u8::from(matches!(self.on_failure, OnFailure::Fallback(_)))
    }
}
