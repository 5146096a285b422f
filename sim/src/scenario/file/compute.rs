//! `[compute]`.

use omnimesh_protocol::compute::placement::Strategy;

use super::read::{Section, set};
use crate::scenario::{Compute, Shape};

pub(super) fn compute(section: Section<'_, '_>) -> Compute {
    let mut compute = Compute::default();
    set(&mut compute.start, section.ms("start_ms"));
    set(&mut compute.over, section.ms("over_ms"));
    set(&mut compute.jobs, section.whole("jobs"));
    set(&mut compute.tasks, section.whole("tasks"));
    let shape = section.word("shape", &Shape::NAMES);
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
