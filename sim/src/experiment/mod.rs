//! Experiments: one run, a run twice, many runs, two runs side by side, a run of long ago again.
//!
//! ```text
//! ScenarioFile ─► Runner (an engine) ─► Outcome ─► checkers ─► Summary ─► folder
//!       │                                 │                      │
//!     sweep: values × seeds            verify: trace hashes    compare: differences in percent
//! ```
//!
//! ```
//! use omnimesh_sim::experiment::{self, Model};
//! use omnimesh_sim::model::Options;
//! use omnimesh_sim::scenario::{Override, ScenarioFile};
//!
//! let fewer = Override::new("network.nodes", 20, "the example");
//! let file = ScenarioFile::load("quickstart", &[fewer])?;
//! let run = experiment::run(&Model, &file, Options::default())?;
//! assert_eq!(run.failed().count(), 0);
//! # Ok::<(), experiment::RunError>(())
//! ```

mod compare;
mod folder;
mod metrics;
mod run;
mod sweep;
mod verify;

#[cfg(test)]
mod fake;

pub use compare::{Comparison, JUDGED, Row, compare};
pub use folder::{Folder, Rerun, refuse_others, rerun, save};
pub use metrics::{METRICS, Metric, MetricKind};
#[cfg(feature = "libp2p")]
pub use run::Engines;
pub use run::{Model, Run, RunError, Runner, run};
pub use sweep::{Axis, Case, Combination, ENGINE, Finished, Interval, Plan, RUNS, Swept, sweep, write_csv};
pub use verify::{Parting, Traced, Verified, verify};
