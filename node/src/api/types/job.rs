//! The documents of jobs.

use std::collections::BTreeMap;

use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::{Hash, NodeId, Step};
use serde::{Deserialize, Deserializer, Serialize};

use super::strict::{Object, whole, whole_or_null};

/// What to have done: the body of `POST /api/v1/jobs`; `text`, or `job`.
///
/// Read strictly: a field it does not know is an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// What the file is called, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How `text` is written; unless given, JSON if `file` ends in `.json`, else TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<JobFormat>,
    /// The job file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The same as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<serde_json::Value>,
    /// The blobs that the files have become which the job names with `file = "…"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "files")]
    pub files: BTreeMap<String, BlobRef>,
    /// Tells jobs apart that say the same; unless given, submitting the same twice is submitting it once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_or_null")]
    pub nonce: Option<u64>,
}

fn files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, BlobRef>, D::Error> {
    #[derive(Deserialize)]
    struct File {
        hash: Hash,
        #[serde(deserialize_with = "whole")]
        size: u64,
    }
    let files = BTreeMap::<String, Object<File>>::deserialize(deserializer)?.into_iter();
    Ok(files.map(|(name, Object(File { hash, size }))| (name, BlobRef { hash, size })).collect())
}

/// How a job is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobFormat {
    /// TOML.
    Toml,
    /// JSON, with the same keys.
    Json,
}

/// A job that was taken, or with `check=true` would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAccepted {
    /// Its name from now on; none if it was only checked.
    pub id: Option<JobId>,
    /// What its file calls it.
    pub name: String,
    /// How many tasks it has, after fan-out.
    pub tasks: u32,
    /// Those of its inputs that are not, or not whole, on this node's disk.
    pub missing: Vec<Hash>,
}

/// One thing that is wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProblem {
    /// The line, from 1; 0 if there is no file.
    pub line: u32,
    /// A stable code, such as `unknown_name`.
    pub code: String,
    /// Where in the job, such as `task.count.limits.cpu`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Wait for others.
    pub pending: u32,
    /// Can be done.
    pub ready: u32,
    /// Are being done, as far as this node knows: only the driver does.
    pub running: u32,
    /// Have an output.
    pub succeeded: u32,
    /// Have failed for good.
    pub failed: u32,
    /// Have no output, and the job went on.
    pub skipped: u32,
    /// The job has ended before them.
    pub cancelled: u32,
}

/// A job in a list: `GET /api/v1/jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its name in the mesh.
    pub id: JobId,
    /// What its file calls it.
    pub name: String,
    /// RUNNING, SUCCEEDED, FAILED or CANCELLED.
    pub state: String,
    /// Which round; each retry begins one.
    pub round: u32,
    /// Who submitted it.
    pub submitter: NodeId,
    /// Who drives it.
    pub driver: NodeId,
    /// Whether that is this node.
    pub driven_here: bool,
    /// How many tasks it has.
    pub tasks: u32,
    /// How far they are.
    pub counts: TaskCounts,
    /// The share of the tasks that have ended, from 0 to 1.
    pub progress: f64,
    /// The step of its submission.
    pub submitted_step: Step,
    /// The same as milliseconds since 1970.
    pub submitted_ms: u64,
    /// From the submission to its end, or until now.
    pub elapsed_ms: u64,
    /// Why a task of it is not placed, if this node drives it and there is such a task.
    pub held: Option<String>,
}

/// A whole job: `GET /api/v1/jobs/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// As in a list.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// When it ends whatever has become of it, in seconds from the beginning of its round.
    pub deadline_s: u64,
    /// The share of the tasks with redundancy 1 that two workers do.
    pub spot_check: f64,
    /// The last step of the driver's lease.
    pub lease_until_step: Step,
    /// What it reads.
    pub inputs: Vec<JobInput>,
    /// Its tasks, as its file has them.
    pub families: Vec<JobFamily>,
    /// What it makes.
    pub outputs: Vec<JobOutput>,
    /// Who has done how much.
    pub workers: Vec<WorkerShare>,
    /// Workers that have signed a wrong result in this job; they are not asked again.
    pub dissenters: Vec<NodeId>,
    /// Tasks that have failed for good: the first few.
    pub failures: Vec<TaskFailure>,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<JobCancelled>,
    /// Which task cannot be placed and why, if this node drives the job.
    pub held_task: Option<JobHeld>,
    /// Attempts under way, if this node drives the job.
    pub attempts: usize,
    /// CPU time of all results.
    pub cpu_ms: u64,
    /// Working time of all results.
    pub work_ms: u64,
    /// The longest chain of tasks that waited for one another.
    pub critical_path_ms: u64,
}

/// An input of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInput {
    /// Its name in the job.
    pub name: String,
    /// Its content.
    pub hash: Hash,
    /// How long it is.
    pub size: u64,
}

/// The tasks that one entry of a job file makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobFamily {
    /// Its name.
    pub name: String,
    /// What they do.
    pub operation: String,
    /// How many there are.
    pub tasks: u32,
    /// How far they are.
    pub counts: TaskCounts,
    /// The families that they wait for.
    pub after: Vec<String>,
    /// What they are fanned out over, for people; none if there is one task.
    pub fan_out: Option<String>,
    /// What one attempt may take.
    pub limits: JobLimits,
    /// How many workers are asked for each.
    pub redundancy: u8,
    /// How often a failed one is tried again.
    pub retries: u8,
    /// `fail`, `skip` or `fallback`.
    pub on_failure: String,
    /// What a worker must have, for people; none if nothing.
    pub needs: Option<String>,
    /// How long they took.
    pub times: FamilyTimes,
    /// Whether the longest chain goes through it.
    pub on_critical_path: bool,
}

/// What one attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLimits {
    /// CPU time.
    pub cpu_ms: u64,
    /// Memory beside the inputs.
    pub memory_bytes: u64,
    /// Length of the output.
    pub output_bytes: u64,
    /// From start to end.
    pub wall_ms: u64,
}

/// How long the tasks of a family took: of those that have a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyTimes {
    /// How many have one.
    pub done: u32,
    /// The median.
    pub p50_ms: u64,
    /// What 95 % do not exceed.
    pub p95_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// All together.
    pub work_ms: u64,
    /// CPU time of all together.
    pub cpu_ms: u64,
}

/// An output of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutput {
    /// Its name.
    pub name: String,
    /// The family that makes it.
    pub task: String,
    /// Of how many chunks it is made.
    pub chunks: u32,
    /// How many of them are there.
    pub done: u32,
    /// How long those are together.
    pub size: u64,
    /// The first of them, in order; the tasks of the family have all.
    pub blobs: Vec<BlobRef>,
}

/// How much of a job a worker has done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerShare {
    /// Who.
    pub peer_id: NodeId,
    /// Results that it has, alone or with others.
    pub tasks: u32,
    /// Its share of all of them, from 0 to 1.
    pub share: f64,
    /// Working time, by the attempts that count.
    pub work_ms: u64,
    /// CPU time, by the attempts that count.
    pub cpu_ms: u64,
    /// Attempts under way there, if this node drives the job.
    pub running: u32,
}

/// A task that has failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Its family.
    pub task: String,
    /// Which of it.
    pub chunk: u32,
    /// A stable code, such as `memory_limit`.
    pub reason: String,
    /// For people.
    pub detail: String,
    /// Who has tried.
    pub workers: Vec<NodeId>,
}

/// Why a job was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCancelled {
    /// `requested`, `deadline` or `quota`.
    pub reason: String,
    /// For people.
    pub detail: String,
}

/// A task that cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHeld {
    /// Its family.
    pub task: String,
    /// Which of it.
    pub chunk: u32,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Some tasks of a job: `GET /api/v1/jobs/{id}/tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTasks {
    /// In the order of the file, then by chunk.
    pub tasks: Vec<JobTask>,
    /// Where the next page begins: its `from`; none if this is the last.
    pub next: Option<u32>,
}

/// A task of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTask {
    /// Its family.
    pub task: String,
    /// Which of it.
    pub chunk: u32,
    /// PENDING, READY, RUNNING, SUCCEEDED, FAILED, SKIPPED or CANCELLED.
    pub state: String,
    /// Whose result it is, who has tried, or who is at it.
    pub workers: Vec<NodeId>,
    /// Its result.
    pub output: Option<BlobRef>,
    /// CPU time of the attempt that counts.
    pub cpu_ms: u64,
    /// Its duration.
    pub wall_ms: u64,
    /// Whether it was its fallback.
    pub fallback: bool,
    /// Why it has failed.
    pub reason: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
    /// Workers that have signed another result.
    pub dissenters: Vec<NodeId>,
    /// Attempts that this node has seen.
    pub attempts: u32,
    /// When this node saw the first begin, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// When this node saw it end.
    pub ended_ms: Option<u64>,
}

/// Something that happened to a job: the `data` of `GET /api/v1/jobs/events` and of `/api/v1/jobs/{id}/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEventView {
    /// To which.
    pub job: JobId,
    /// Its place among what happened to the job, from 1, at this node.
    pub number: u64,
    /// What, such as `task_state` or `attempt_failed`; also the name of the event.
    pub kind: String,
    /// When this node saw it, in milliseconds since 1970.
    pub at_ms: u64,
    /// In which step.
    pub step: Option<Step>,
    /// The task's family.
    pub task: Option<String>,
    /// Which of it.
    pub chunk: Option<u32>,
    /// The state before.
    pub from: Option<String>,
    /// The state now.
    pub state: Option<String>,
    /// Who has to do with it.
    pub worker: Option<NodeId>,
    /// A stable code.
    pub reason: Option<String>,
    /// For people.
    pub detail: Option<String>,
}

/// What became of a job, with what that cost: `GET /api/v1/jobs/{id}/log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobLog {
    /// The job.
    pub job: JobSummary,
    /// When what happened.
    pub times: JobTimes,
    /// What each family took.
    pub families: Vec<FamilyLog>,
    /// Who has done how much.
    pub workers: Vec<WorkerShare>,
    /// What went wrong on the way, as far as this node has seen it.
    pub troubles: JobTroubles,
    /// The longest chain of tasks that waited for one another; the first few and the last few of it.
    pub critical_path: Vec<PathTask>,
    /// What held the job up most, for people.
    pub bottleneck: String,
    /// What would make it faster or safer.
    pub suggestions: Vec<Suggestion>,
    /// What happened, the newest of it.
    pub events: Vec<JobEventView>,
    /// How many events are forgotten.
    pub events_forgotten: u64,
}

/// When what happened to a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct JobTimes {
    /// The submission, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// The first attempt that this node saw.
    pub started_ms: Option<u64>,
    /// The end.
    pub ended_ms: Option<u64>,
    /// From the submission to the end, or until now.
    pub elapsed_ms: u64,
    /// Working time of all results together.
    pub work_ms: u64,
    /// CPU time of all results together.
    pub cpu_ms: u64,
    /// The longest chain of tasks that waited for one another: no number of workers makes the job shorter.
    pub critical_path_ms: u64,
    /// How many workers were busy in the mean: work divided by elapsed time.
    pub parallelism: f64,
}

/// What a family took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FamilyLog {
    /// Its name.
    pub name: String,
    /// What it does.
    pub operation: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// How far they are.
    pub counts: TaskCounts,
    /// How long they took.
    pub times: FamilyTimes,
    /// Attempts that this node has seen.
    pub attempts: u64,
    /// Attempts that failed by the task's fault.
    pub failures: u64,
    /// Attempts that failed by the worker's fault.
    pub losses: u64,
    /// Attempts beside one that took long.
    pub stragglers: u64,
    /// Its part of the longest chain.
    pub critical_ms: u64,
    /// Length of all its outputs.
    pub output_bytes: u64,
}

/// What went wrong on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTroubles {
    /// Attempts in all.
    pub attempts: u64,
    /// Attempts that failed by the task's fault.
    pub failures: u64,
    /// Attempts that failed by the worker's fault.
    pub losses: u64,
    /// Attempts beside one that took long.
    pub stragglers: u64,
    /// Votes without a majority.
    pub ties: u64,
    /// Outputs that were made again.
    pub restored: u64,
    /// How often the driver changed.
    pub drivers: u64,
    /// How often nobody could be given a task.
    pub held: u64,
    /// Failed attempts by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// A task of the longest chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTask {
    /// Its family.
    pub task: String,
    /// Which of it.
    pub chunk: u32,
    /// How long it took, or may take.
    pub wall_ms: u64,
    /// Who did it.
    pub worker: Option<NodeId>,
}

/// What would make a job faster or safer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// What to change.
    pub advice: String,
    /// The figure behind it.
    pub because: String,
}

/// Why a job, or a task of it, is as it is: `GET /api/v1/why/jobs/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyJob {
    /// Which job.
    pub job: JobId,
    /// Its file's name for it.
    pub name: String,
    /// Which task, if one was asked for: `family/chunk`.
    pub task: Option<String>,
    /// The state of what was asked for.
    pub state: String,
    /// The reasons, the weightiest first.
    pub reasons: Vec<WhyJobReason>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyJobReason {
    /// What is so.
    pub because: String,
    /// What to do about it; empty if nothing has to be done.
    pub remedy: String,
}

/// Why a job is cancelled: the body of `POST /api/v1/jobs/{id}/cancel`.
///
/// Read strictly: a field it does not know is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// For people.
    #[serde(default)]
    pub reason: String,
}

/// A worker as this node sees it: `GET /api/v1/workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Who.
    pub peer_id: NodeId,
    /// Attempts that it runs at once.
    pub slots: u32,
    /// Attempts that it would take from this node.
    pub room: u32,
    /// Attempts under way and waiting there, of all drivers.
    pub active: u32,
    /// Attempts of this node's jobs under way there.
    pub assigned: u32,
    /// Memory for attempts.
    pub memory_bytes: u64,
    /// What it says it is.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub region: Option<String>,
    /// The operations that it does; all that are built in if there is none.
    pub operations: Vec<String>,
    /// `closed` if it gets work, `open` if it is left alone, `half_open` if it is being tried.
    pub breaker: String,
    /// How long ago it was heard of.
    pub heard_ms: u64,
    /// Rolling mean of durations.
    pub mean_ms: Option<f64>,
    /// Median of the last ones.
    pub p50_ms: Option<f64>,
    /// What 95 % of the last ones do not exceed.
    pub p95_ms: Option<f64>,
    /// Rolling share of failures, from 0 to 1.
    pub error_rate: f64,
    /// How long it takes compared with others: 1 is as long.
    pub slowness: f64,
    /// Attempts that went well.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Results that the majority did not have.
    pub dissents: u32,
}
