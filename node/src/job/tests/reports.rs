//! The picture, the run log, and the reasons.

use omnimesh_protocol::compute::driver::Input;
use omnimesh_protocol::compute::job::{JobSpec, Source, TaskSpec};
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::compute::{JobId, TaskRef};

use super::harness::{Act, Bench, word_count};
use crate::api::types::{JobLog, WhyJob};
use crate::job::{Stats, graph, markdown, run_log, why_job, why_task};

fn log(bench: &Bench, job: &JobId) -> JobLog {
    let seen = bench.seen();
    run_log(&seen, &seen.clock(bench.wall_ms()), &seen.driver.ledger().job(job).unwrap())
}

fn svg(bench: &Bench, job: &JobId) -> String {
    let seen = bench.seen();
    let view = seen.driver.ledger().job(job).unwrap();
    graph(&seen, &seen.clock(bench.wall_ms()), &view, &Stats::of(&seen, &view))
}

fn why(bench: &Bench, job: &JobId, task: Option<&str>) -> WhyJob {
    let seen = bench.seen();
    let view = seen.driver.ledger().job(job).unwrap();
    let clock = seen.clock(bench.wall_ms());
    match task {
        None => why_job(&seen, &clock, &view),
        Some(task) => why_task(&seen, &clock, &view, task).unwrap(),
    }
}

/// The reasons as one text.
fn said(why: &WhyJob) -> String {
    why.reasons.iter().map(|reason| format!("{} => {}\n", reason.because, reason.remedy)).collect()
}

#[test]
fn the_longest_chain_is_found() {
    let mut bench = Bench::new(2);
    let job = bench.submit(word_count(8, 1));
    // The second group of count is slow, and check is quick.
    bench.work(|_, given| match given.task.task {
        0 => Act::Do(if given.task.chunk == 6 { 900 } else { 100 }),
        1 => Act::Do(if given.task.chunk == 0 { 500 } else { 50 }),
        2 => Act::Do(10),
        _ => Act::Do(30),
    });
    let seen = bench.seen();
    let view = seen.driver.ledger().job(&job).unwrap();
    let stats = Stats::of(&seen, &view);
    let path: Vec<_> = stats.critical_path.iter().map(|step| (step.task, step.wall_ms)).collect();
    assert_eq!(
        path,
        [(TaskRef::new(0, 6), 900), (TaskRef::new(1, 1), 50), (TaskRef::new(3, 0), 30)],
        "0/6 and 1/1 outweigh 1/0"
    );
    assert_eq!((stats.critical_ms, stats.critical_families()), (980, vec![0, 1, 3]));
    let of = |place: usize| &stats.families[place];
    assert_eq!((of(0).times.p50_ms, of(0).times.max_ms, of(0).times.work_ms), (100, 900, 1600));
    assert_eq!(of(0).slowest, Some((TaskRef::new(0, 6), 900)));
    assert_eq!(
        [of(0).critical_ms, of(1).critical_ms, of(2).critical_ms, of(3).critical_ms],
        [900, 50, 0, 30]
    );
    assert_eq!((stats.work_ms, stats.results()), (1600 + 550 + 10 + 30, 12));
}

#[test]
fn a_run_log_tells_what_it_cost_and_what_to_change() {
    let mut bench = Bench::new(3);
    let job = bench.submit(word_count(40, 1));
    let mut failures = 0;
    bench.work(|_, given| match given.task.task {
        0 if given.task.chunk % 10 == 3 && failures < 6 => {
            failures += 1;
            Act::Fail(FailReason::MemoryLimit, "a lot <b>too</b> much | of it")
        }
        0 => Act::Do(if given.task.chunk == 7 { 4000 } else { 20 }),
        _ => Act::Do(10),
    });
    let log = log(&bench, &job);
    assert_eq!((log.job.state.as_str(), log.times.ended_ms.is_some()), ("SUCCEEDED", true));
    assert_eq!(log.times.work_ms, log.families.iter().map(|family| family.times.work_ms).sum::<u64>());
    assert_eq!((log.troubles.failures, log.troubles.reasons["memory_limit"]), (6, 6));
    assert_eq!(log.troubles.attempts, log.families.iter().map(|family| family.attempts).sum::<u64>());
    // 40, 6 that failed, and those beside stragglers for which there was room.
    let (attempts, stragglers) = (log.families[0].attempts, log.families[0].stragglers);
    assert!((46..=46 + stragglers).contains(&attempts), "{attempts} attempts, {stragglers} stragglers");
    assert_eq!(log.critical_path.first().map(|step| (step.task.as_str(), step.chunk)), Some(("count", 7)));
    assert!(log.bottleneck.starts_with("`count` makes 100 % of the longest chain"), "{}", log.bottleneck);
    assert!(log.bottleneck.contains("count/7"), "the straggler: {}", log.bottleneck);
    let advice: Vec<_> = log.suggestions.iter().map(|found| found.advice.as_str()).collect();
    for expected in ["give `count` larger chunks", "raise `limits.memory`", "spot_check"] {
        assert!(advice.iter().any(|advice| advice.contains(expected)), "{expected} in {advice:?}");
    }
    let shares: f64 = log.workers.iter().map(|worker| worker.share).sum();
    assert!((shares - 1.0).abs() < 1e-9 && log.workers.len() == 3);
    let text = markdown(&log);
    for expected in
        ["# Job `word-count`: SUCCEEDED", "## Bottleneck", "* 6 attempts failed with `memory_limit`."]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    // What workers say stays within its cell.
    assert!(text.contains(r"a lot \<b\>too\</b\> much \| of it"), "{text}");
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let events = text.split("## Events").nth(1).unwrap();
    assert!(events.lines().filter(|line| line.starts_with('|')).all(|line| columns(line) == 7), "{events}");
}

#[test]
fn a_node_that_does_not_drive_tells_what_is_in_the_log() {
    let mut bench = Bench::new(2);
    let job = bench.submit(word_count(4, 1));
    bench.work(|_, _| Act::Do(100));
    let nothing = crate::job::History::default();
    let seen = crate::job::Seen { history: &nothing, ..bench.seen() };
    let log = run_log(&seen, &seen.clock(bench.wall_ms()), &seen.driver.ledger().job(&job).unwrap());
    assert_eq!((log.families[0].times.p50_ms, log.troubles.attempts), (100, 0));
    assert!(log.times.ended_ms.unwrap() >= log.times.submitted_ms);
    assert!(markdown(&log).contains("This node has not seen the attempts"));
}

#[test]
fn a_picture_is_well_formed_whatever_the_names() {
    let mut bench = Bench::new(3);
    let job = bench.submit(word_count(8, 3));
    let mut done = 0;
    bench.work(|_, given| {
        done += 1;
        if done > 20 || given.task.task > 0 { Act::Keep } else { Act::Do(700) }
    });
    let running = svg(&bench, &job);
    let document = roxmltree::Document::parse(&running).unwrap();
    let texts: Vec<_> =
        document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
    for expected in
        ["count", "merge", "check", "total", "words", "text", "word-count", "RUNNING", "longest chain"]
    {
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected} in {texts:?}");
    }
    let classes = |svg: &str, class: &str| {
        let document = roxmltree::Document::parse(svg).unwrap();
        document.descendants().filter(|node| node.attribute("class") == Some(class)).count()
    };
    assert_eq!(classes(&running, "node") + classes(&running, "node chain"), 4);
    bench.work(|_, _| Act::Do(700));
    let ended = svg(&bench, &job);
    assert_eq!(classes(&ended, "node chain"), 3);
    assert_eq!(classes(&ended, "edge chain"), 2);
    // A job that is nothing but a task.
    let mut bench = Bench::new(0);
    let task = TaskSpec::new("lonely", "pattern");
    let job = bench.submit(JobSpec {
        inputs: Vec::new(),
        outputs: Vec::new(),
        tasks: vec![task],
        ..word_count(1, 1)
    });
    roxmltree::Document::parse(&svg(&bench, &job)).unwrap();
}

/// Ladders of families that wait for several before them.
fn ladder(families: u16) -> JobSpec {
    let tasks = (0..families).map(|place| {
        let mut task = TaskSpec::new(&format!("task-with-a-long-name-number-{place}"), "concat");
        task.sources =
            [1, 2, 5].iter().filter(|back| place >= **back).map(|back| Source::Task(place - back)).collect();
        if task.sources.is_empty() {
            task.action.operation = "pattern".to_owned();
        }
        task
    });
    JobSpec { inputs: Vec::new(), outputs: Vec::new(), tasks: tasks.collect(), ..word_count(1, 1) }
}

#[test]
fn large_graphs_are_drawn_as_well() {
    let mut bench = Bench::new(1);
    let job = bench.submit(ladder(100));
    roxmltree::Document::parse(&svg(&bench, &job)).unwrap();
}

#[test]
fn why_names_what_holds_a_job_up() {
    let mut bench = Bench::new(0);
    let job = bench.submit(word_count(4, 1));
    bench.pass(1000);
    let text = said(&why(&bench, &job, None));
    assert!(text.contains("no worker is known") && text.contains("compute.work"), "{text}");
    let text = said(&why(&bench, &job, Some("count/2")));
    assert!(text.contains("no worker is known"), "{text}");
    let pending = why(&bench, &job, Some("total"));
    assert_eq!(pending.state, "PENDING");
    let text = said(&pending);
    assert!(
        text.contains("it waits for 1 of 1 tasks of merge") && text.contains("1 of 1 tasks of check"),
        "{text}"
    );
    let seen = bench.seen();
    let view = seen.driver.ledger().job(&job).unwrap();
    for no_task in ["word", "count/4", "count/x", "/", ""] {
        assert!(why_task(&seen, &seen.clock(0), &view, no_task).is_none(), "{no_task}");
    }
}

#[test]
fn why_names_what_attempts_fail_of_while_they_are_tried_again() {
    let mut bench = Bench::new(2);
    let job = bench.submit(word_count(4, 1));
    let mut failed = 0;
    bench.work(|_, given| match given.task.task {
        2 if failed < 6 => {
            failed += 1;
            Act::Fail(FailReason::KeyMissing, "there is no key k at this node")
        }
        _ => Act::Keep,
    });
    let why = why(&bench, &job, None);
    assert_eq!(why.state, "RUNNING");
    let text = said(&why);
    assert!(failed > 1, "it is tried again");
    let expected = format!("attempts end with key_missing, {failed} of late, the last of check at");
    assert!(text.contains(&expected), "{text}");
    assert!(text.contains("there is no key k at this node") && text.contains("=> put the key"), "{text}");
}

#[test]
fn why_names_what_went_wrong() {
    let mut bench = Bench::new(2);
    let mut spec = word_count(4, 1);
    spec.tasks[2].retry.max = 1;
    let job = bench.submit(spec);
    bench.work(|_, given| match given.task.task {
        2 => Act::Fail(FailReason::CpuLimit, "61 s of 60 s"),
        _ => Act::Do(100),
    });
    let failed = why(&bench, &job, None);
    assert_eq!(failed.state, "FAILED");
    let text = said(&failed);
    assert!(text.contains("check has failed for good: cpu_limit: 61 s of 60 s"), "{text}");
    assert!(text.contains("raise `limits.cpu`") && text.contains("job retry"), "{text}");
    let text = said(&why(&bench, &job, Some("check")));
    assert_eq!(text.matches("an attempt failed at").count(), 2, "{text}");
    let text = said(&why(&bench, &job, Some("total/0")));
    assert!(text.contains("the job is FAILED and has ended before it"), "{text}");
}

#[test]
fn why_tells_of_cancelling_of_work_and_of_liars() {
    let mut bench = Bench::new(5);
    let job = bench.submit(word_count(4, 3));
    bench.work(|worker, given| match (worker, given.task.task) {
        (0, 0) => Act::Lie,
        (_, 2) => Act::Keep,
        _ => Act::Do(100),
    });
    let text = said(&why(&bench, &job, None));
    let liar = bench.id(0);
    assert!(text.contains(&format!("{liar} has signed wrong results")), "{text}");
    let text = said(&why(&bench, &job, Some("check")));
    assert!(text.contains("is at it; the first attempt was given away"), "{text}");
    let log_before = log(&bench, &job);
    assert!(
        log_before.suggestions.iter().any(|found| found.advice.contains("redundancy = 3")),
        "{log_before:?}"
    );
    bench.request(|ticket| Input::Cancel { job, detail: "too dear".to_owned(), ticket });
    let cancelled = why(&bench, &job, None);
    assert_eq!(cancelled.state, "CANCELLED");
    assert!(said(&cancelled).contains("somebody wanted it to end: too dear"), "{}", said(&cancelled));
}

#[test]
fn why_explains_success_and_skipped_tasks() {
    let mut bench = Bench::new(2);
    let job = bench.submit(word_count(4, 1));
    bench.work(|_, given| match given.task {
        TaskRef { task: 0, chunk: 1 } => Act::Fail(FailReason::BadInput, "not a text"),
        _ => Act::Do(100),
    });
    let text = said(&why(&bench, &job, None));
    assert!(text.contains("all of its 7 tasks have ended") && text.contains("longest chain"), "{text}");
    let skipped = why(&bench, &job, Some("count/1"));
    assert_eq!(skipped.state, "SKIPPED");
    let text = said(&skipped);
    assert!(text.contains("bad_input: not a text") && text.contains("the job goes on"), "{text}");
    let text = said(&why(&bench, &job, Some("count/0")));
    assert!(text.contains("made its result of 1000 bytes in 100 ms"), "{text}");
}
