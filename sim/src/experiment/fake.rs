//! An engine for tests: it makes outcomes up, from the scenario alone.

use std::time::Duration;

use super::{RunError, Runner};
use crate::model::{Options, Progress};
use crate::outcome::{Cost, Delivery, Outcome, Published};
use crate::scenario::ScenarioFile;

/// What it does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fake {
    /// With more than one thread the run is another one from this second on.
    pub(super) threads_change_second: Option<usize>,
    /// Ends in an error with this seed.
    pub(super) fails_with_seed: Option<u64>,
    /// The version of the code: another one gives another trace.
    pub(super) version: u8,
}

impl Runner for Fake {
    fn run(&self, file: &ScenarioFile, options: Options<'_>) -> Result<Outcome, RunError> {
        if self.fails_with_seed == Some(file.scenario.seed) {
            return Err(RunError::Failed { engine: file.engine, cause: "as told".to_owned() });
        }
        let scenario = &file.scenario;
        if let Some(progress) = options.progress {
            progress(Progress {
                virtual_time: scenario.duration,
                duration: scenario.duration,
                events: 1,
                pending: 0,
            });
        }
        let mut checkpoints: Vec<u64> = (0..scenario.duration.as_secs()).map(|s| s ^ scenario.seed).collect();
        if let Some(second) = self.threads_change_second.filter(|_| options.threads > 1) {
            checkpoints.iter_mut().skip(second).for_each(|hash| *hash += 1_000);
        }
        let of = format!("{checkpoints:?} {} {}", file.text, self.version);
        let delivery = |node: u32| Delivery {
            node,
            from: 0,
            latency_us: node * 1_000 + u32::try_from(scenario.seed % 1_000).unwrap(),
            hops: 1,
            is_expected: true,
        };
        let nodes = scenario.network.nodes;
        Ok(Outcome {
            nodes,
            ended: scenario.duration,
            messages: vec![Published {
                author: 0,
                at: Duration::from_secs(1),
                bytes: 100,
                audience: nodes - 1,
                missed: 0,
            }],
            deliveries: vec![(1..nodes).map(delivery).collect()],
            events: 1,
            trace_hash: *blake3::hash(of.as_bytes()).as_bytes(),
            checkpoints,
            cost: Cost { wall: Duration::from_secs(1), peak_rss_bytes: 1, threads: options.threads },
            ..Outcome::default()
        })
    }
}
