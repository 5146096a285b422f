//! What is remembered, and what is not.

use std::sync::Arc;

use omnimesh_protocol::compute::driver::Event;
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::{Change, FailReason, TaskState};
use omnimesh_protocol::compute::{AttemptId, JobId, TaskRef};
use omnimesh_protocol::{NodeId, Step, Time};

use super::harness::{Act, Bench, word_count};
use crate::job::{EventKind, History};

#[test]
fn every_change_of_state_is_an_event() {
    let mut bench = Bench::new(2);
    let job = bench.submit(word_count(4, 1));
    let mut has_failed = false;
    bench.work(|_, given| {
        if given.task == TaskRef::new(0, 1) && !std::mem::replace(&mut has_failed, true) {
            return Act::Fail(FailReason::MemoryLimit, "17 bytes too much");
        }
        Act::Do(100)
    });
    let of = |task: TaskRef| -> Vec<_> {
        let events = bench.told.iter().filter(|event| event.task == Some(task));
        events.map(|event| (event.kind.code(), event.state.unwrap_or_default())).collect()
    };
    assert_eq!(
        of(TaskRef::new(0, 0)),
        [("task_state", "READY"), ("task_state", "RUNNING"), ("task_state", "SUCCEEDED")]
    );
    assert_eq!(
        of(TaskRef::new(0, 1)),
        [
            ("task_state", "READY"),
            ("task_state", "RUNNING"),
            ("attempt_failed", ""),
            ("attempt", "RUNNING"),
            ("task_state", "SUCCEEDED")
        ]
    );
    let of_job: Vec<_> =
        bench.told.iter().filter(|event| event.task.is_none()).map(|event| event.kind).collect();
    for kind in [
        EventKind::Submitted,
        EventKind::Driver,
        EventKind::Driving,
        EventKind::JobState,
        EventKind::Finished,
    ] {
        assert!(of_job.contains(&kind), "{kind:?} in {of_job:?}");
    }
    let numbers: Vec<_> = bench.told.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let history = bench.history.job(&job).unwrap();
    assert_eq!(history.events().len(), bench.told.len());
    let tally = &history.families()[&0];
    assert_eq!((tally.attempts, tally.failures, tally.losses), (5, 1, 0));
    assert_eq!(tally.reasons["memory_limit"], 1);
    assert!(history.ended().is_some() && history.started().is_some());
}

#[test]
fn a_job_that_is_cancelled_and_tried_again_tells_so() {
    let mut bench = Bench::new(0);
    let job = bench.submit(word_count(2, 1));
    bench.request(|ticket| omnimesh_protocol::compute::driver::Input::Cancel {
        job,
        detail: "enough".to_owned(),
        ticket,
    });
    let cancelled =
        bench.told.iter().filter(|event| event.state == Some("CANCELLED") && event.task.is_some());
    assert_eq!(cancelled.count(), 5, "each task");
    bench.request(|ticket| omnimesh_protocol::compute::driver::Input::Retry { job, ticket });
    assert!(bench.told.iter().any(|event| event.kind == EventKind::Retried));
}

/// Events of a job of many tasks.
fn flood(history: &mut History, job: JobId, tasks: u32) {
    let worker = NodeId::from_bytes([1; 32]);
    let mut record = |event: Event| history.record(Time::from_millis(1), Some(Step(1)), &event);
    record(Event::Ledger(Change::Submitted(job)));
    record(Event::Ledger(Change::Driver { job, node: worker }));
    for chunk in 0..tasks {
        let task = TaskRef::new(0, chunk);
        let change = |old, new| Event::Ledger(Change::Task { job, task, old, new });
        record(change(TaskState::Pending, TaskState::Ready));
        record(Event::Running { job, task, attempt: AttemptId(u64::from(chunk)), worker });
        if chunk % 7 == 0 {
            record(Event::AttemptFailed {
                job,
                task,
                worker,
                reason: FailReason::Busy,
                detail: Arc::from("x".repeat(200)),
                will_retry: true,
            });
        }
        record(change(TaskState::Ready, TaskState::Succeeded));
    }
}

#[test]
fn it_stays_bounded_and_keeps_what_is_rare() {
    let mut history = History::default();
    let job = JobId::from_bytes([1; 32]);
    flood(&mut history, job, 100_000);
    let of = history.job(&job).unwrap();
    let events = of.events();
    assert!(events.len() <= 1024, "{}", events.len());
    assert_eq!(of.forgotten() + events.len() as u64, 2 + 300_000 + 14_286);
    assert!(events.windows(2).all(|pair| pair[0].number < pair[1].number));
    // The counts know all of it.
    assert_eq!((of.families()[&0].attempts, of.families()[&0].losses), (100_000, 14_286));
    assert_eq!(of.task(TaskRef::new(0, 5)).attempts, 1);
    assert_eq!(of.task(TaskRef::new(0, 99_999)).attempts, 0, "only the first thousands are remembered");
    for n in 0..100_u8 {
        flood(&mut history, JobId::from_bytes([n + 2; 32]), 1);
    }
    assert!(history.job(&job).is_none(), "untouched for longest");
    assert!(history.job(&JobId::from_bytes([101; 32])).is_some());
}

#[test]
fn rare_events_survive_many_of_tasks() {
    let mut bench = Bench::new(4);
    let job = bench.submit(JobSpec { name: "many".to_owned(), ..word_count(600, 1) });
    bench.work(|_, _| Act::Do(1));
    let history = bench.history.job(&job).unwrap();
    assert!(history.forgotten() > 500);
    let first: Vec<_> = history.events().iter().take(4).map(|event| event.kind).collect();
    assert!(first.contains(&EventKind::Submitted) && first.contains(&EventKind::Driver), "{first:?}");
}
