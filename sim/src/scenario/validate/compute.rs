//! Jobs: tasks that a job can have, shares that leave somebody to work, times within the run.

use super::{Problems, ms};
use crate::scenario::compute::LEDGERS_MAX;
use crate::scenario::{AdversaryKind, Check, Compute, Scenario, Shape};

/// Tasks of a job whose every task is a line of its own: what fits into an entry of the log.
const DAG_TASKS_MAX: u32 = 150;
/// The deepest chain, for the same reason.
const DEPTH_MAX: u32 = 150;

impl Problems {
    pub(super) fn compute(&mut self, scenario: &Scenario) {
        let of_compute = Check::of_compute();
        let Some(compute) = &scenario.compute else {
            for (i, check) in scenario.checks.iter().enumerate() {
                let message = format!("`{}` looks at jobs, and there are none", check.name());
                let ok = !of_compute.iter().any(|of| of.name() == check.name());
                self.require(ok, format!("checks[{i}].kind"), &message, "add `[compute]`, or remove it");
            }
            return;
        };
        self.jobs(scenario, compute);
        self.workers(scenario, compute);
        if scenario.log.is_some() {
            let message = "is not modelled with jobs: the ledger is folded from entries alone";
            self.require(scenario.checkpoints.is_none(), "checkpoints", message, "remove it, or `[compute]`");
            for (i, adversary) in scenario.adversaries.iter().enumerate() {
                let ok = !matches!(adversary.kind, AdversaryKind::Fork { .. });
                let message = "cuts logs, which is not modelled with jobs";
                self.require(
                    ok,
                    format!("adversaries[{i}].kind"),
                    message,
                    "remove it, or `[compute]`; `log-storm` has it",
                );
            }
        }
    }

    fn jobs(&mut self, scenario: &Scenario, compute: &Compute) {
        self.require(
            (1..=1_000).contains(&compute.jobs),
            "compute.jobs",
            "must be from 1 to 1000",
            "remove `[compute]` for none",
        );
        let (most, remedy) = match compute.shape {
            Shape::Dag => (DAG_TASKS_MAX, "lower it, or take more jobs"),
            _ => (100_000, "lower it, or take more jobs"),
        };
        let ok = (2..=most).contains(&compute.tasks);
        self.require(ok, "compute.tasks", &format!("must be from 2 to {most}"), remedy);
        if let Shape::Chain { depth } = compute.shape {
            let ok = (2..=DEPTH_MAX.min(compute.tasks)).contains(&depth);
            let message = format!("must be from 2 to {DEPTH_MAX}, and to the number of tasks");
            self.require(ok, "compute.depth", &message, "4 is four tasks in a row");
        }
        if compute.shape == Shape::MapReduce {
            let ok = compute.tasks <= 16_384;
            let message = "is more than one task can read the outputs of";
            self.require(ok, "compute.tasks", message, "lower it to 16384 at most, or take more jobs");
        }
        self.positive(compute.service, "compute.service_ms");
        let ok = (0.0..=3.0).contains(&compute.service_sigma);
        self.require(ok, "compute.service_sigma", "must be from 0 to 3", "0.5 is usual, 0 for none");
        let ok = (1..=7).contains(&compute.redundancy);
        self.require(ok, "compute.redundancy", "must be from 1 to 7", "3 stands one liar");
        self.share(compute.spot_checks, true, "compute.spot_checks");
        let ok = compute.spot_checks == 0.0 || compute.redundancy == 1;
        let message = "has no effect: every task is checked";
        self.require(ok, "compute.spot_checks", message, "remove it, or set redundancy to 1");
        let last = compute.start.saturating_add(compute.over);
        if last >= scenario.duration && !scenario.duration.is_zero() {
            let message =
                format!("and over_ms leave nothing of the run, which ends at {}", ms(scenario.duration));
            self.push("compute.start_ms", message, "submit earlier, or raise duration_ms");
        }
        let ok = compute.deadline.as_secs() >= 1;
        self.require(ok, "compute.deadline_ms", "must be a second at least", "3600000 is an hour");
        let ok = compute.limit.as_millis() >= 1;
        self.require(ok, "compute.limit_ms", "must be above 0", "120000 is two minutes");
        self.require(
            compute.input_bytes > 0 && compute.output_bytes > 0 && compute.output_bytes <= 1 << 30,
            "compute.output_bytes",
            "and input_bytes must be above 0, and an output at most 1 GiB",
            "16384 is 16 KiB",
        );
        let message = "must be above 0";
        self.require(
            compute.fetch_bytes_per_s > 0,
            "compute.fetch_bytes_per_s",
            message,
            "12500000 is 100 Mbit/s",
        );
    }

    fn workers(&mut self, scenario: &Scenario, compute: &Compute) {
        let nodes = scenario.network.nodes;
        let ok = (1..=4096).contains(&compute.slots);
        self.require(ok, "compute.slots", "must be from 1 to 4096", "2 is two tasks at once");
        self.require(compute.queue <= 4096, "compute.queue", "must be at most 4096", "4 is usual");
        let most = nodes.min(LEDGERS_MAX);
        let ok = (1..=most).contains(&compute.submitters);
        let message = format!("must be from 1 to {most}");
        self.require(ok, "compute.submitters", &message, "1 is one node that submits all jobs");
        let ledgers = compute.ledgers(nodes);
        let ok = (compute.submitters..=most).contains(&ledgers);
        let message = format!("must be from the number of submitters to {most}");
        let remedy = "16 is enough for drivers that die";
        self.require(ok, "compute.ledgers", &message, remedy);
        let shares = [
            (compute.liars, "liars"),
            (compute.colluders, "colluders"),
            (compute.stallers, "stallers"),
            (compute.slow, "slow"),
        ];
        for (share, name) in shares {
            self.share(share, true, format!("compute.{name}"));
        }
        let all = compute.liars + compute.colluders + compute.stallers + compute.slow;
        let honest = f64::from(nodes) * (1.0 - all);
        let ok = honest >= f64::from(compute.submitters) && all < 1.0;
        let message = "and colluders, stallers and slow ones leave too few who work as they should";
        self.require(ok, "compute.liars", message, "lower them: submitters are none of these");
        let ok = (1.0..=1e4).contains(&compute.slow_factor);
        self.require(ok, "compute.slow_factor", "must be at least 1", "10 is ten times as slow");
        let ok = compute.driver_deaths < ledgers && compute.driver_deaths <= compute.submitters;
        let message = "leaves nobody with the ledger, or is more than there are submitters";
        self.require(ok, "compute.driver_deaths", message, "lower it, or raise compute.submitters");
        self.positive(compute.notice, "compute.notice_ms");
    }
}
