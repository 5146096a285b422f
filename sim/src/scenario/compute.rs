//! Jobs on the mesh: what is submitted, what workers are like, and who of them cannot be trusted.

use std::time::Duration;

use omnimesh_protocol::compute::placement::Strategy;

/// Which tasks of a job wait for which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All tasks but one read a part of the input; the last reads their outputs.
    MapReduce,
    /// Rows side by side: the first task of a row reads a part of the input, each other one the output of the one before.
    Chain {
        /// Tasks in a row.
        depth: u32,
    },
    /// Each task reads the outputs of one to three earlier ones, at random; the first reads the input.
    Dag,
}

names! {
    Shape {
        MapReduce => "map_reduce",
        Chain => "chain",
        Dag => "dag",
    }
}

/// Jobs, and the workers that do them. Every node is a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Compute {
    /// When the first job is submitted.
    pub start: Duration,
    /// The others follow evenly in this time.
    pub over: Duration,
    /// How many jobs.
    pub jobs: u32,
    /// Tasks of each.
    pub tasks: u32,
    /// Which of them wait for which.
    pub shape: Shape,
    /// The mean time that a task takes on a worker of usual speed.
    pub service: Duration,
    /// Standard deviation of the logarithm of that time, which is normal; 0: all take as long.
    pub service_sigma: f64,
    /// Workers asked for each task.
    pub redundancy: u8,
    /// Share of the tasks with redundancy 1 for which a second worker is asked.
    pub spot_checks: f64,
    /// Who gets a task.
    pub strategy: Strategy,
    /// Attempts that a worker runs at once.
    pub slots: u32,
    /// Attempts that wait there.
    pub queue: u32,
    /// So many nodes, fixed and random, submit jobs, in turn.
    pub submitters: u32,
    /// So many nodes keep the ledger, the submitters among them, and can drive jobs; none: all, or 64 of more.
    pub ledgers: Option<u32>,
    /// Bytes of the input that each task reads that reads some.
    pub input_bytes: u64,
    /// Bytes of each output.
    pub output_bytes: u64,
    /// Bytes in a second that a worker fetches.
    pub fetch_bytes_per_s: u64,
    /// An attempt that takes longer is stopped by its worker.
    pub limit: Duration,
    /// A job that takes longer is cancelled.
    pub deadline: Duration,
    /// Deaths, and who is back, are known to others after up to this.
    pub notice: Duration,
    /// Share of the nodes whose every result is wrong, each time another one.
    pub liars: f64,
    /// Share of the nodes whose every result is wrong, for all of them the same.
    pub colluders: f64,
    /// Share of the nodes that take work and never end it.
    pub stallers: f64,
    /// Share of the nodes that are slow.
    pub slow: f64,
    /// How many times longer these take.
    pub slow_factor: f64,
    /// So many submitters die for good,
    pub driver_deaths: u32,
    /// this long after they have submitted their first job.
    pub driver_death_after: Duration,
}

impl Default for Compute {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Compute {
            start: seconds(10),
            over: Duration::ZERO,
            jobs: 1,
            tasks: 100,
            shape: Shape::MapReduce,
            service: seconds(1),
            service_sigma: 0.5,
            redundancy: 1,
            spot_checks: 0.0,
            strategy: Strategy::default(),
            slots: 2,
            queue: 4,
            submitters: 1,
            ledgers: None,
            input_bytes: 1 << 20,
            output_bytes: 1 << 14,
            // 100 Mbit/s.
            fetch_bytes_per_s: 12_500_000,
            limit: seconds(120),
            deadline: seconds(3600),
            notice: seconds(5),
            liars: 0.0,
            colluders: 0.0,
            stallers: 0.0,
            slow: 0.0,
            slow_factor: 10.0,
            driver_deaths: 0,
            driver_death_after: seconds(5),
        }
    }
}

/// Nodes that keep the ledger at most: each of them tells all others.
pub(super) const LEDGERS_MAX: u32 = 64;

impl Compute {
    /// How many of so many nodes keep the ledger.
    pub(crate) fn ledgers(&self, nodes: u32) -> u32 {
        self.ledgers.unwrap_or(nodes.min(LEDGERS_MAX))
    }

    /// When a job is submitted.
    pub(crate) fn time_of(&self, job: u32) -> Duration {
        self.start + self.over.mul_f64(f64::from(job) / f64::from(self.jobs.max(1)))
    }
}
