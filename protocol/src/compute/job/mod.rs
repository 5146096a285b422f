//! Jobs: graphs of tasks.
//!
//! ```text
//!   job.toml ──read──► JobSpec ──encode──► bytes ─► the log ─► every node
//!                         │                            │
//!                         └────────► Plan ◄────────────┘
//!
//!   inputs                  task.count (for_each chunk of text)      task.sum (for_each output_of count)   task.total
//!   text  ─────────────┬──► count/0 ─────────────┬─► sum/0 ──────────┬─► total/0
//!                      ├──► count/1 ─────────────┘                   │
//!                      └──► count/2 ───────────────► sum/1 ──────────┘
//! ```
//!
//! A [`JobSpec`] says what is to be done, a [`Plan`] what that means: how many tasks there are and who waits for whom.
//! A plan exists only of a job that makes sense; every node makes the same one.
//!
//! # Not here
//! Which tasks have ended ([`ledger`](super::ledger)), and who does them ([`driver`](super::driver)).

mod check;
mod codec;
mod limits;
mod params;
mod plan;
mod read;
mod slice;
mod spec;
mod text;

pub use check::{Problem, ProblemCode, is_name};
pub(crate) use codec::{list, read_texts, write_texts};
pub use limits::{
    DEADLINE_S_MAX, FAN_IN_MAX, INPUTS_MAX, LABELS_MAX, NAME_BYTES_MAX, PARAMS_MAX, Quota, READS_MAX,
    REDUNDANCY_MAX, RETRIES_MAX, SOURCES_MAX, SPEC_BYTES_MAX, TASKS_MAX,
};
pub use plan::{Plan, Reach, Slot, Wait};
pub use read::{Fault as ReadFault, Files, Format, Problems, read};
pub use slice::{RECORD_BYTES_MAX, Window, cut_lines, window};
pub use spec::{
    Action, Align, Constraints, Each, InputSpec, JobSpec, Limits, OnFailure, OutputSpec, Params, Retry,
    Source, TaskSpec, WhenMissing,
};

/// The operations that every node knows. `docs/compute.md` says what each does.
pub const OPERATIONS: &[&str] =
    &["analyze", "analyze_merge", "concat", "decrypt", "encrypt", "hash", "pattern", "wasm"];

/// Those of them that can read row groups of Parquet files.
pub const READS_ROW_GROUPS: &[&str] = &["analyze"];

/// Those of them that do nothing without an input of another task.
pub const MERGES: &[&str] = &["analyze_merge"];
