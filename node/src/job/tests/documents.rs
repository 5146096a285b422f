//! Lists, one job, its tasks, and workers.

use omnimesh_protocol::compute::ledger::{FailReason, TaskState};
use omnimesh_protocol::compute::placement::Offer;

use super::harness::{Act, Bench, FIRST_STEP, word_count};
use crate::job::FindError;
use crate::job::document::{self, TaskQuery};

fn query(states: &[TaskState]) -> TaskQuery {
    TaskQuery { name: None, states: states.to_vec(), from: 0, limit: 1000 }
}

#[test]
fn a_job_is_shown_as_it_stands() {
    let mut bench = Bench::new(3);
    let job = bench.submit(word_count(8, 1));
    // Four chunks are done, the rest is being done.
    let mut done = 0;
    bench.work(|_, given| {
        if given.task.task == 0 && done < 4 {
            done += 1;
            return Act::Do(1000 + u64::from(given.task.chunk));
        }
        Act::Keep
    });
    let seen = bench.seen();
    let clock = seen.clock(bench.wall_ms());
    let view = seen.find(&job.to_string()).unwrap();
    let detail = document::detail(&seen, &clock, &view);
    let summary = &detail.summary;
    assert_eq!((summary.name.as_str(), summary.state.as_str(), summary.tasks), ("word-count", "RUNNING", 12));
    let counts = summary.counts;
    assert_eq!((counts.succeeded, counts.total(), counts.failed), (4, 12, 0));
    // Four of count and check are at work; a merge may be by now, too.
    assert!(counts.running >= 5, "{counts:?}");
    assert_eq!(summary.submitted_ms, FIRST_STEP * 1000 + 5000);
    assert!(summary.driven_here && summary.driver == seen.me);
    let count = &detail.families[0];
    assert_eq!((count.tasks, count.counts.succeeded, count.times.done), (8, 4, 4));
    assert_eq!(count.fan_out.as_deref(), Some("text, 1 MiB at a time, whole lines"));
    assert_eq!(detail.families[1].fan_out.as_deref(), Some("outputs of count, 4 at a time"));
    assert_eq!(detail.families[3].after, ["merge", "check"]);
    assert_eq!(detail.outputs.iter().map(|output| output.done).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(detail.workers.iter().map(|worker| worker.tasks).sum::<u32>(), 4);
    assert!(detail.work_ms >= 4000 && detail.cpu_ms < detail.work_ms);
    // The families add up to the whole.
    let sum = detail.families.iter().map(|family| family.counts.running).sum::<u32>();
    assert_eq!(sum, counts.running);
}

#[test]
fn tasks_come_in_pages() {
    let mut bench = Bench::new(2);
    let job = bench.submit(word_count(8, 1));
    bench.work(|_, given| match (given.task.task, given.task.chunk) {
        (0, 3) => Act::Fail(FailReason::Program, "no such | word"),
        _ => Act::Do(100),
    });
    let seen = bench.seen();
    let clock = seen.clock(bench.wall_ms());
    let view = seen.find(&job.to_string()).unwrap();
    let all = document::tasks(&seen, &clock, &view, &query(&[]));
    assert_eq!((all.tasks.len(), all.next), (12, None));
    let skipped = document::tasks(&seen, &clock, &view, &query(&[TaskState::Skipped])).tasks;
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].task.as_str(), skipped[0].chunk), ("count", 3));
    assert_eq!(skipped[0].detail.as_deref(), Some("no such | word"));
    assert_eq!(skipped[0].attempts, 4, "one, and three more");
    assert!(skipped[0].ended_ms.unwrap() > skipped[0].started_ms.unwrap());
    // Page after page is the same as all at once.
    let mut pages = Vec::new();
    let mut from = 0;
    loop {
        let page = document::tasks(&seen, &clock, &view, &TaskQuery { from, limit: 5, ..query(&[]) });
        pages.extend(page.tasks);
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(pages, all.tasks);
    let merge = TaskQuery { name: Some("merge".to_owned()), ..query(&[]) };
    assert_eq!(document::tasks(&seen, &clock, &view, &merge).tasks.len(), 2);
}

#[test]
fn what_nobody_can_do_is_held_with_a_remedy() {
    let mut bench = Bench::new(1);
    let mut spec = word_count(2, 1);
    spec.tasks[0].constraints.region = Some("mars".to_owned());
    let job = bench.submit(spec);
    bench.work(|_, _| Act::Do(10));
    let seen = bench.seen();
    let clock = seen.clock(bench.wall_ms());
    let view = seen.find(&job.to_string()).unwrap();
    let detail = document::detail(&seen, &clock, &view);
    let held = detail.held_task.unwrap();
    assert!(held.reason.contains("the region mars") && held.remedy.contains("[compute]"), "{held:?}");
    assert_eq!(detail.summary.held.unwrap(), format!("count/{}: {}", held.chunk, held.reason));
    assert_eq!(detail.families[0].needs.as_deref(), Some("region mars"));
}

#[test]
fn a_job_is_found_by_the_beginning_of_its_id() {
    let mut bench = Bench::new(1);
    let ids: Vec<String> = (0..40)
        .map(|nonce| {
            bench.submit(omnimesh_protocol::compute::job::JobSpec { nonce, ..word_count(1, 1) }).to_string()
        })
        .collect();
    let seen = bench.seen();
    for id in &ids {
        assert_eq!(seen.find(id).unwrap().id().to_string(), *id);
        assert_eq!(seen.find(&id[..16]).unwrap().id().to_string(), *id);
    }
    // Forty ids have sixteen first digits: two share one.
    let shared =
        ids.iter().map(|id| &id[..1]).find(|one| ids.iter().filter(|id| id.starts_with(one)).count() > 1);
    assert!(matches!(seen.find(shared.unwrap()), Err(FindError::Ambiguous { .. })));
    for (text, expected) in [("", true), ("xyz", true), (&*"0".repeat(65), true), (&*"0".repeat(64), false)] {
        let is_no_id = matches!(seen.find(text), Err(FindError::NotAnId(_)));
        assert!(seen.find(text).is_err() && is_no_id == expected, "{text}");
    }
}

#[test]
fn workers_are_shown_with_what_was_learned_of_them() {
    let mut bench = Bench::new(2);
    bench.offer(
        1,
        Offer { slots: 8, room: 8, memory_bytes: 1 << 30, region: Some("eu".to_owned()), ..Offer::default() },
    );
    bench.submit(word_count(8, 1));
    bench
        .work(|worker, _| if worker == 0 { Act::Fail(FailReason::Unavailable, "full") } else { Act::Do(50) });
    let seen = bench.seen();
    let workers = seen.driver.workers(seen.now).into_iter();
    let workers: Vec<_> = workers.map(|worker| document::worker(seen.now, worker)).collect();
    assert_eq!(workers.len(), 2);
    let of = |place| workers.iter().find(|worker| worker.peer_id == bench.id(place)).unwrap();
    assert!(of(0).failed > 0 && of(0).succeeded == 0 && of(0).error_rate > 0.0);
    assert_eq!((of(1).succeeded, of(1).failed, of(1).region.as_deref()), (12, 0, Some("eu")));
    assert!(of(1).p50_ms.unwrap() >= 50.0);
}
