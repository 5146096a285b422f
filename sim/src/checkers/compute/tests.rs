//! Each check of jobs passes good facts and fails doctored ones, and says what is wrong with them.

use std::time::Duration;

use super::*;
use crate::outcome::WrongResult;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two jobs that ended well in five ledgers.
fn good() -> Outcome {
    let job = |submitter| JobFacts {
        submitter,
        submitted: Some(seconds(10)),
        ended: Some(seconds(50)),
        tasks: 100,
        finished_in: 5,
        succeeded_in: 5,
        state: Some("SUCCEEDED"),
        committed_by_two: 3,
        ..JobFacts::default()
    };
    let compute = ComputeFacts {
        jobs: vec![job(1), job(2)],
        ledgers: 5,
        bound: seconds(32),
        list_schedule: seconds(36),
        makespan: Some(seconds(40)),
        liars: 2,
        liars_found: 1,
        deaths_planned: 1,
        deaths: 1,
        ..ComputeFacts::default()
    };
    Outcome { compute: Some(compute), ..Outcome::default() }
}

fn doctored(doctor: impl FnOnce(&mut ComputeFacts)) -> Outcome {
    let mut outcome = good();
    doctor(outcome.compute.as_mut().unwrap());
    outcome
}

type Check = fn(&Outcome) -> Verdict;
const ALL: [Check; 4] =
    [tasks_committed_once, no_wrong_result, every_job_ends, |outcome: &Outcome| makespan(outcome, 1.3)];

#[test]
fn good_facts_pass_and_no_facts_fail() {
    for check in ALL {
        check(&good()).unwrap();
        check(&Outcome::default()).unwrap_err();
        check(&doctored(|facts| facts.jobs.clear())).unwrap_err();
        check(&doctored(|facts| facts.ledgers = 0)).unwrap_err();
    }
    let text = tasks_committed_once(&good()).unwrap();
    assert!(text.starts_with("200 tasks in 2 jobs"), "{text}");
}

#[test]
fn a_second_commit_is_found() {
    let error = tasks_committed_once(&doctored(|facts| facts.jobs[1].committed_again = 1)).unwrap_err();
    assert!(error.starts_with("Job 1: 1 commit"), "{error}");
    tasks_committed_once(&doctored(|facts| facts.jobs[0].differing = 2)).unwrap_err();
    tasks_committed_once(&doctored(|facts| {
        facts.jobs.iter_mut().for_each(|job| job.succeeded_in = 0);
    }))
    .unwrap_err();
}

#[test]
fn a_wrong_result_is_found_unless_most_lie() {
    let result = |liars, asked, agreed, is_inherited| {
        let wanted = if asked > 1 { 2 } else { 1 };
        WrongResult { task: (0, 7), asked, liars, agreed, wanted, is_inherited }
    };
    let wrong = |liars, asked, is_inherited| result(liars, asked, liars, is_inherited);
    let of = |results: Vec<WrongResult>| no_wrong_result(&doctored(|facts| facts.jobs[1].wrong = results));
    let error = of(vec![wrong(1, 3, false)]).unwrap_err();
    assert!(error.starts_with("Job 1, task 0/7: "), "{error}");
    of(vec![wrong(0, 0, false)]).unwrap_err();
    of(vec![wrong(1, 2, false)]).unwrap_err();
    of(vec![result(2, 4, 1, false)]).unwrap_err();
    of(vec![wrong(2, 4, false)]).unwrap();
    of(vec![wrong(1, 1, false)]).unwrap();
    assert!(of(vec![wrong(2, 3, false)]).unwrap().starts_with("1 result is wrong"));
    // What reads it is wrong with it, but not by itself.
    of(vec![wrong(2, 3, false), wrong(0, 3, true)]).unwrap();
    of(vec![wrong(0, 3, true)]).unwrap_err();
    no_wrong_result(&doctored(|facts| facts.jobs.iter_mut().for_each(|job| job.succeeded_in = 0)))
        .unwrap_err();
}

#[test]
fn a_job_that_does_not_end_is_found() {
    for doctor in [
        (|job: &mut JobFacts| job.finished_in = 4) as fn(&mut JobFacts),
        |job| job.succeeded_in = 4,
        |job| (job.finished_in, job.state) = (0, None),
        |job| job.ended = None,
    ] {
        let error = every_job_ends(&doctored(|facts| doctor(&mut facts.jobs[1]))).unwrap_err();
        assert!(error.starts_with("Job 1 of node 2 "), "{error}");
    }
    every_job_ends(&doctored(|facts| facts.deaths = 0)).unwrap_err();
}

#[test]
fn taking_long_is_found() {
    makespan(&doctored(|facts| facts.makespan = Some(seconds(42))), 1.3).unwrap_err();
    makespan(&doctored(|facts| facts.makespan = None), 1.3).unwrap_err();
    makespan(&doctored(|facts| facts.bound = Duration::ZERO), 1.3).unwrap_err();
    let text = makespan(&good(), 1.3).unwrap();
    assert_eq!(text, "40 s for all jobs, 1.25 times the bound of 32 s.");
}
