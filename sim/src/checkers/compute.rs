//! Whether jobs ended, right, with each task committed once, and in time.

use super::Verdict;
use crate::outcome::{ComputeFacts, JobFacts, Outcome};
use crate::words::{count, counted, decimal, time};

#[cfg(test)]
mod tests;

fn facts(outcome: &Outcome) -> Result<&ComputeFacts, String> {
    let Some(facts) = &outcome.compute else {
        return Err("There were no jobs: add `[compute]`.".into());
    };
    if facts.jobs.is_empty() {
        return Err("There were no jobs: raise `compute.jobs`.".into());
    }
    if facts.ledgers == 0 {
        return Err(
            "No honest node with a ledger is up at the end: raise `compute.ledgers`, or let faults end."
                .into(),
        );
    }
    Ok(facts)
}

/// The jobs for which something is so, by number.
fn numbered(facts: &ComputeFacts, is: impl Fn(&JobFacts) -> bool) -> Vec<(usize, &JobFacts)> {
    facts.jobs.iter().enumerate().filter(|(_, job)| is(job)).collect()
}

pub(super) fn tasks_committed_once(outcome: &Outcome) -> Verdict {
    let facts = facts(outcome)?;
    let tasks: u64 = facts.jobs.iter().map(|job| u64::from(job.tasks)).sum();
    if facts.jobs.iter().all(|job| job.succeeded_in == 0) {
        return Err(
            "No job has succeeded in any ledger, so nothing is committed: see `every_job_ends`.".into()
        );
    }
    let again = numbered(facts, |job| job.committed_again > 0);
    if let Some((number, job)) = again.first() {
        return Err(format!(
            "Job {number}: {} of what the driver's ledger had, or it had committed itself; so of {} in all.",
            counted(job.committed_again.into(), "commit", "commits"),
            counted(again.len() as u64, "job", "jobs"),
        ));
    }
    let differing = numbered(facts, |job| job.differing > 0);
    if let Some((number, job)) = differing.first() {
        return Err(format!(
            "Job {number}: ledgers of {} name different results for {} of {}, or a result without a commit.",
            counted(facts.ledgers.into(), "node", "nodes"),
            count(job.differing.into()),
            counted(job.tasks.into(), "task", "tasks"),
        ));
    }
    let by_two: u64 = facts.jobs.iter().map(|job| u64::from(job.committed_by_two)).sum();
    Ok(format!(
        "{} in {}, each with one commit that counts, the same in {}; {} by a second driver that did not know.",
        counted(tasks, "task", "tasks"),
        counted(facts.jobs.len() as u64, "job", "jobs"),
        counted(facts.ledgers.into(), "ledger", "ledgers"),
        count(by_two),
    ))
}

pub(super) fn no_wrong_result(outcome: &Outcome) -> Verdict {
    let facts = facts(outcome)?;
    if facts.jobs.iter().all(|job| job.succeeded_in == 0) {
        return Err(
            "No job has succeeded in any ledger, so there are no results: see `every_job_ends`.".into()
        );
    }
    let mut excused = 0;
    for (number, job) in facts.jobs.iter().enumerate() {
        for wrong in job.wrong.iter().filter(|wrong| !wrong.is_inherited) {
            if wrong.liars * 2 <= wrong.asked && (wrong.agreed < wrong.wanted || wrong.agreed == 0) {
                let (family, chunk) = wrong.task;
                return Err(format!(
                    "Job {number}, task {family}/{chunk}: a wrong result was accepted, though {} of the {} asked were liars and {} of \
                     them agreed, of {} that have to.",
                    wrong.liars, wrong.asked, wrong.agreed, wrong.wanted
                ));
            }
            excused += 1;
        }
        // What nobody lied about cannot be wrong by inheritance alone.
        if !job.wrong.is_empty() && job.wrong.iter().all(|wrong| wrong.is_inherited) {
            return Err(format!("Job {number}: results are wrong, and all that they read is right."));
        }
    }
    let liars = format!(
        "{} of {} found, {} accused",
        count(facts.liars_found.into()),
        counted(facts.liars.into(), "liar", "liars"),
        counted(facts.honest_accused.into(), "honest worker", "honest workers"),
    );
    Ok(match excused {
        0 => format!("All results are right; {liars}."),
        _ => format!(
            "{} wrong where most of those asked were liars, or as many liars agreed as have to, all others right; {liars}.",
            counted(excused, "result is", "results are")
        ),
    })
}

pub(super) fn every_job_ends(outcome: &Outcome) -> Verdict {
    let facts = facts(outcome)?;
    if facts.deaths < facts.deaths_planned {
        return Err(format!(
            "{} of {} submitters that were to die died: let them die earlier, or run longer.",
            facts.deaths, facts.deaths_planned
        ));
    }
    let is_over = |job: &JobFacts| job.finished_in == facts.ledgers && job.ended.is_some();
    let open = numbered(facts, |job| !is_over(job));
    if let Some((number, job)) = open.first() {
        return Err(format!(
            "Job {number} of node {} is {} and has ended in {} of {} ledgers; so {} of {} jobs. Run longer, or look why.",
            job.submitter,
            job.state.unwrap_or("unknown"),
            job.finished_in,
            facts.ledgers,
            open.len(),
            facts.jobs.len(),
        ));
    }
    let failed = numbered(facts, |job| job.succeeded_in < facts.ledgers);
    if let Some((number, job)) = failed.first() {
        return Err(format!(
            "Job {number} of node {} has ended as {}, {} of {} jobs not as SUCCEEDED.",
            job.submitter,
            job.state.unwrap_or("unknown"),
            failed.len(),
            facts.jobs.len(),
        ));
    }
    let last = facts.jobs.iter().filter_map(|job| job.ended).max().unwrap_or_default();
    Ok(format!(
        "{} succeeded, the last at {}; driven on by others {}, {} died.",
        counted(facts.jobs.len() as u64, "job", "jobs"),
        time(last),
        counted(facts.counts.takeovers, "time", "times"),
        counted(facts.deaths.into(), "submitter", "submitters"),
    ))
}

pub(super) fn makespan(outcome: &Outcome, max: f64) -> Verdict {
    let facts = facts(outcome)?;
    let Some(makespan) = facts.makespan else {
        return Err(
            "Not all jobs have ended, so it is not known how long they take: see `every_job_ends`.".into()
        );
    };
    if facts.bound.is_zero() {
        return Err("The bound is 0: raise `compute.service_ms`.".into());
    }
    let ratio = makespan.as_secs_f64() / facts.bound.as_secs_f64();
    let text = format!(
        "{} for all jobs, {} times the bound of {}",
        time(makespan),
        decimal(ratio, 3),
        time(facts.bound)
    );
    if ratio > max {
        return Err(format!("{text}; wanted: at most {}.", decimal(max, 3)));
    }
    Ok(format!("{text}."))
}
