//! `[compute]`.

use std::time::Duration;

use omnimesh_protocol::compute::placement::Strategy;

use super::read::{Section, set};
use crate::scenario::{Compute, Shape};

pub(super) fn compute(section: Section<'_, '_>, duration: Duration) -> Compute {
    let mut compute = Compute::default();
    // In a short run jobs come earlier, as entries of a log do.
    compute.start = compute.start.min(duration / 3);
    set(&mut compute.start, section.ms("start_ms"));
    set(&mut compute.over, section.ms("over_ms"));
    set(&mut compute.jobs, section.whole("jobs"));
    set(&mut compute.tasks, section.whole("tasks"));
    let shape = section.word("shape", Shape::NAMES);
    compute.shape = match shape {
        Some("chain") => Shape::Chain { depth: section.whole("depth").unwrap_or(4) },
        Some("dag") => Shape::Dag,
        _ => Shape::MapReduce,
    };
    set(&mut compute.service, section.ms("service_ms"));
    set(&mut compute.service_sigma, section.number("service_sigma"));
    set(&mut compute.redundancy, section.whole("redundancy"));
    set(&mut compute.spot_checks, section.number("spot_checks"));
    let strategies = Strategy::ALL.map(Strategy::code);
    if let Some(code) = section.word("strategy", &strategies)
        && let Some(strategy) = Strategy::ALL.into_iter().find(|strategy| strategy.code() == code)
    {
        compute.strategy = strategy;
    }
    set(&mut compute.slots, section.whole("slots"));
    set(&mut compute.queue, section.whole("queue"));
    set(&mut compute.submitters, section.whole("submitters"));
    compute.ledgers = section.whole("ledgers");
    set(&mut compute.input_bytes, section.whole("input_bytes"));
    set(&mut compute.output_bytes, section.whole("output_bytes"));
    set(&mut compute.fetch_bytes_per_s, section.whole("fetch_bytes_per_s"));
    set(&mut compute.limit, section.ms("limit_ms"));
    set(&mut compute.deadline, section.ms("deadline_ms"));
    set(&mut compute.notice, section.ms("notice_ms"));
    set(&mut compute.liars, section.number("liars"));
    set(&mut compute.colluders, section.number("colluders"));
    set(&mut compute.stallers, section.number("stallers"));
    set(&mut compute.slow, section.number("slow"));
    set(&mut compute.slow_factor, section.number("slow_factor"));
    set(&mut compute.driver_deaths, section.whole("driver_deaths"));
    set(&mut compute.driver_death_after, section.ms("driver_death_after_ms"));
    section.finish_kind(shape.unwrap_or("map_reduce"), &["depth"]);
    compute
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scenario::{Check, ScenarioError, ScenarioFile};

    fn parse(text: &str) -> Result<ScenarioFile, String> {
        ScenarioFile::parse("x", text, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [network]
            nodes = 60
            [compute]
            start_ms = 1000
            over_ms = 2000
            jobs = 3
            tasks = 40
            shape = "chain"
            depth = 5
            service_ms = 250
            service_sigma = 0.25
            redundancy = 1
            spot_checks = 0.125
            strategy = "weighted"
            slots = 3
            queue = 5
            submitters = 2
            ledgers = 7
            input_bytes = 1000
            output_bytes = 500
            fetch_bytes_per_s = 9000
            limit_ms = 8000
            deadline_ms = 90000
            notice_ms = 700
            liars = 0.0625
            colluders = 0.03125
            stallers = 0.25
            slow = 0.5
            slow_factor = 6
            driver_deaths = 1
            driver_death_after_ms = 600
        "#;
        let ms = Duration::from_millis;
        let wanted = Compute {
            start: ms(1000),
            over: ms(2000),
            jobs: 3,
            tasks: 40,
            shape: Shape::Chain { depth: 5 },
            service: ms(250),
            service_sigma: 0.25,
            redundancy: 1,
            spot_checks: 0.125,
            strategy: Strategy::Weighted,
            slots: 3,
            queue: 5,
            submitters: 2,
            ledgers: Some(7),
            input_bytes: 1000,
            output_bytes: 500,
            fetch_bytes_per_s: 9000,
            limit: ms(8000),
            deadline: ms(90_000),
            notice: ms(700),
            liars: 0.0625,
            colluders: 0.031_25,
            stallers: 0.25,
            slow: 0.5,
            slow_factor: 6.0,
            driver_deaths: 1,
            driver_death_after: ms(600),
        };
        let scenario = parse(text).unwrap().scenario;
        assert_eq!(scenario.compute, Some(wanted));
        assert!(scenario.checks.contains(&Check::EveryJobEnds));
        assert!(!scenario.checks.iter().any(|check| matches!(check, Check::Makespan { .. })));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let few = "[network]\nnodes = 50\n[compute]\n";
        for (text, says) in [
            (format!("{few}jobs = 0"), "compute.jobs"),
            (format!("{few}tasks = 1"), "compute.tasks"),
            (format!("{few}shape = \"dag\"\ntasks = 400"), "from 2 to 150"),
            (format!("{few}shape = \"chain\"\ndepth = 1"), "compute.depth"),
            (format!("{few}depth = 3"), "does not apply to `map_reduce`"),
            (format!("{few}redundancy = 8"), "compute.redundancy"),
            (format!("{few}redundancy = 3\nspot_checks = 0.1"), "every task is checked"),
            (format!("{few}strategy = \"wieghted\""), "weighted"),
            (format!("{few}submitters = 51"), "compute.submitters"),
            (format!("{few}ledgers = 0"), "compute.ledgers"),
            (format!("{few}liars = 0.6\nslow = 0.5"), "too few"),
            (format!("{few}slow_factor = 0.5"), "compute.slow_factor"),
            (format!("{few}driver_deaths = 2"), "compute.driver_deaths"),
            (format!("{few}start_ms = 40000"), "compute.start_ms"),
            (format!("{few}ledgers = 65"), "compute.ledgers"),
            ("[[checks]]\nkind = \"no_wrong_result\"".to_owned(), "add `[compute]`"),
            (format!("{few}[[checks]]\nkind = \"makespan\"\nmax = 0.9"), "at least 1"),
            (format!("{few}[log]\n[checkpoints]"), "not modelled with jobs"),
        ] {
            let Err(ScenarioError::Invalid(problems)) = ScenarioFile::parse("x", &text, &[]) else {
                panic!("{text}");
            };
            let told = |problem: &crate::scenario::Located| format!("{problem} {}", problem.problem.remedy);
            let told: Vec<String> = problems.iter().map(told).collect();
            assert!(told.iter().any(|told| told.contains(says)), "{text}\n{told:#?}");
        }
    }
}
