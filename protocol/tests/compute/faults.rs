//! Whole jobs in a mesh whose nodes die, lie, stall and straggle.

use std::time::Duration;

use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::job::{Align, Each, InputSpec, JobSpec, Source, TaskSpec};
use omnimesh_protocol::compute::ledger::JobState;
use omnimesh_protocol::compute::placement::{PoolConfig, Strategy};
use omnimesh_protocol::compute::worker;
use omnimesh_protocol::compute::{BlobRef, TaskRef};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::mesh::{Kind, Mesh, Options};
use crate::{replay, seeds};

/// Map over so many chunks, merge in groups, and merge all.
pub(crate) fn map_reduce(chunks: u64, group: u32, redundancy: u8) -> JobSpec {
    let mut map = TaskSpec::new("map", "hash");
    map.each = Some(Each::Chunk { input: 0, bytes: 1000, align: Align::Byte });
    let mut merge = TaskSpec::new("merge", "concat");
    merge.each = Some(Each::Output { task: 0, group });
    let mut total = TaskSpec::new("total", "concat");
    total.sources = vec![Source::Task(1)];
    let mut tasks = vec![map, merge, total];
    tasks.iter_mut().for_each(|task| {
        task.redundancy = redundancy;
        task.limits.wall_ms = 60_000;
    });
    let blob = BlobRef { size: chunks * 1000, ..BlobRef::of(b"input") };
    JobSpec {
        name: "map-reduce".to_owned(),
        nonce: 1,
        deadline_s: 86_400,
        spot_check_per_mille: 0,
        inputs: vec![InputSpec { name: "text".to_owned(), blob }],
        tasks,
        outputs: Vec::new(),
    }
}

#[test]
fn a_job_is_done_and_spread() {
    for seed in seeds(3) {
        let context = replay("a_job_is_done_and_spread", seed);
        let mut mesh = Mesh::new(seed, Options::default());
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(64, 8, 1));
        let took = mesh.run_until_finished(&[job], 300);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
        // 73 tasks of a second in the mean, on 16 slots: the work was done at once, not one after another.
        assert!(took < Duration::from_secs(5 + 25), "{context}: {took:?}");
        let view = mesh.nodes[3].driver.ledger().job(&job).unwrap();
        let workers: std::collections::BTreeSet<_> =
            view.plan().tasks().flat_map(|task| view.record(task).unwrap().commit.workers.to_vec()).collect();
        assert_eq!(workers.len(), 8, "{context}: all have worked");
        // Without stragglers and failures nothing is done twice, but for a few that looked like stragglers.
        assert!(mesh.runs < 73 + 20, "{context}: {} runs", mesh.runs);
    }
}

#[test]
fn waiting_for_room_is_no_failure() {
    for seed in seeds(3) {
        let context = replay("waiting_for_room_is_no_failure", seed);
        let worker = worker::Config { slots: 1, queue_max: 0, ..worker::Config::default() };
        // Nothing but a lack of room goes wrong here.
        let driver = driver::Config { losses_max: 0, ..driver::Config::default() };
        let mut mesh = Mesh::new(seed, Options { nodes: 4, worker, driver, ..Options::default() });
        mesh.run_for(5000);
        let jobs: Vec<_> = (0..4).map(|node| mesh.submit(node, map_reduce(24, 8, 1))).collect();
        mesh.run_until_finished(&jobs, 600);
        mesh.exchange();
        jobs.iter().for_each(|job| mesh.check_job(job, JobState::Succeeded, &context));
    }
}

#[test]
fn a_task_without_its_like_does_not_wait_for_stallers() {
    for seed in seeds(8) {
        let context = replay("a_task_without_its_like_does_not_wait_for_stallers", seed);
        let mut mesh = Mesh::new(seed, Options { nodes: 6, ..Options::default() });
        mesh.nodes[1].kind = Kind::Staller;
        mesh.nodes[2].kind = Kind::Staller;
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(1, 1, 3));
        // A staller is given up after 75 s; three tasks one after another take four.
        mesh.run_until_finished(&[job], 60);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
    }
}

#[test]
fn slow_workers_do_what_only_they_could_do() {
    for seed in seeds(4) {
        let context = replay("slow_workers_do_what_only_they_could_do", seed);
        let mut mesh = Mesh::new(seed, Options { nodes: 8, ..Options::default() });
        mesh.nodes[1].kind = Kind::Staller;
        mesh.nodes[2].kind = Kind::Staller;
        mesh.nodes[4..].iter_mut().for_each(|node| node.slowness = 10);
        mesh.run_for(5000);
        // Two are fast, and a result needs three.
        let job = mesh.submit(0, map_reduce(40, 40, 3));
        mesh.run_until_finished(&[job], 300);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
    }
}

#[test]
fn workers_die_and_come_back() {
    for seed in seeds(8) {
        let context = replay("workers_die_and_come_back", seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut mesh = Mesh::new(seed, Options { frame_loss: 0.01, ..Options::default() });
        // Never the submitter; at most five at once.
        for (round, at) in (0..6).zip((6000..).step_by(7000)) {
            for node in [1 + round % 7, 1 + (round + 3) % 7] {
                mesh.crash_at(at + rng.random_range(0..3000), node);
                if rng.random_bool(0.7) {
                    mesh.restart_at(at + rng.random_range(4000..15_000), node);
                }
            }
        }
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(200, 16, 1));
        mesh.run_until_finished(&[job], 1200);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
    }
}

#[test]
fn drivers_die_one_after_another() {
    for seed in seeds(8) {
        let context = replay("drivers_die_one_after_another", seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = driver::Config { lease_steps: 20, ..driver::Config::default() };
        let mut mesh = Mesh::new(seed, Options { driver: config, ..Options::default() });
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(150, 16, 1));
        // Whoever drives is shot, three times; the submitter stays dead or comes back.
        let mut shots = 0;
        for _ in 0..3 {
            mesh.run_for(rng.random_range(2000..8000));
            let driving: Vec<_> =
                (0..8).filter(|n| mesh.nodes[*n].is_alive && mesh.nodes[*n].driver.drives(&job)).collect();
            for node in driving {
                mesh.crash_at(mesh.now.as_millis() + 1, node);
                shots += 1;
                if rng.random_bool(0.5) {
                    mesh.restart_at(mesh.now.as_millis() + rng.random_range(5000..30_000), node);
                }
            }
        }
        assert!(shots > 0, "{context}: a driver was shot");
        mesh.run_until_finished(&[job], 1200);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
    }
}

#[test]
fn islands_go_on_alone_and_agree() {
    for seed in seeds(6) {
        let context = replay("islands_go_on_alone_and_agree", seed);
        let config = driver::Config { lease_steps: 20, ..driver::Config::default() };
        let mut mesh = Mesh::new(seed, Options { driver: config, ..Options::default() });
        mesh.split_at(9000, 60_000, vec![0, 1, 2]);
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(120, 16, 1));
        mesh.run_for(50_000);
        let both = [&mesh.nodes[..3], &mesh.nodes[3..]];
        let drives = both.map(|side| {
            side.iter().any(|node| {
                node.driver.drives(&job)
                    || node.driver.ledger().job(&job).is_some_and(|view| view.is_finished())
            })
        });
        assert_eq!(drives, [true, true], "{context}: both sides drive the job");
        mesh.run_until_finished(&[job], 1200);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
    }
}

#[test]
fn two_liars_of_seven_are_found_and_not_asked_again() {
    for seed in seeds(8) {
        let context = replay("two_liars_of_seven_are_found_and_not_asked_again", seed);
        let kind = if seed % 2 == 0 { Kind::Liar } else { Kind::Conspirator };
        let mut mesh = Mesh::new(seed, Options { nodes: 7, ..Options::default() });
        mesh.nodes[2].kind = kind;
        mesh.nodes[5].kind = kind;
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(60, 8, 3));
        mesh.run_until_finished(&[job], 1200);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
        for finding in &mesh.findings {
            if let Some(evidence) = &finding.evidence {
                assert!(evidence.verify(), "{context}: evidence holds");
                assert_eq!(evidence.accused(), finding.accused);
            }
        }
        let accused: std::collections::BTreeSet<_> =
            mesh.findings.iter().map(|finding| finding.accused).collect();
        assert_eq!(accused, [mesh.nodes[2].id, mesh.nodes[5].id].into(), "{context}: both, and nobody else");
        assert!(mesh.findings.iter().any(|finding| finding.evidence.is_some()), "{context}");
        let view = mesh.nodes[0].driver.ledger().job(&job).unwrap();
        let records = view.plan().tasks().filter_map(|task| view.record(task));
        let lied = records.flat_map(|record| record.commit.workers.iter()).any(|node| accused.contains(node));
        assert!(!lied, "{context}: no wrong result counts");
        assert!(view.dissenters().is_subset(&accused));
    }
}

#[test]
fn spot_checks_find_a_liar_among_single_workers() {
    for seed in seeds(6) {
        let context = replay("spot_checks_find_a_liar_among_single_workers", seed);
        let mut mesh = Mesh::new(seed, Options::default());
        mesh.nodes[4].kind = Kind::Liar;
        mesh.run_for(5000);
        let job = mesh.submit(0, JobSpec { spot_check_per_mille: 200, ..map_reduce(200, 16, 1) });
        mesh.run_until_finished(&[job], 1200);
        assert!(mesh.findings.iter().all(|finding| finding.accused == mesh.nodes[4].id), "{context}");
        assert!(!mesh.findings.is_empty(), "{context}: the liar was found");
        let view = mesh.nodes[0].driver.ledger().job(&job).unwrap();
        let wrong = view
            .plan()
            .tasks()
            .filter(|task| view.record(*task).unwrap().commit.workers.contains(&mesh.nodes[4].id));
        assert!(wrong.count() < 25, "{context}: it was not asked after that");
    }
}

#[test]
fn lost_outputs_are_made_again() {
    for seed in seeds(6) {
        let context = replay("lost_outputs_are_made_again", seed);
        let mut mesh = Mesh::new(seed, Options::default());
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(64, 64, 1));
        // When nearly all chunks are done, three of the holders die for good.
        loop {
            mesh.run_for(200);
            let view = mesh.nodes[0].driver.ledger().job(&job).unwrap();
            if view.counts().succeeded >= 60 {
                break;
            }
        }
        let restoring = |mesh: &Mesh| {
            mesh.seen.iter().filter(|(_, _, event)| matches!(event, driver::Event::Restoring { .. })).count()
        };
        for node in [1, 2, 3] {
            mesh.crash_at(mesh.now.as_millis() + 1, node);
        }
        mesh.run_until_finished(&[job], 1200);
        assert!(restoring(&mesh) > 0, "{context}: something was lost");
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
    }
}

#[test]
fn stalling_and_broken_workers_hold_nothing_up() {
    for seed in seeds(6) {
        let context = replay("stalling_and_broken_workers_hold_nothing_up", seed);
        let mut mesh = Mesh::new(seed, Options::default());
        mesh.nodes[3].kind = Kind::Staller;
        mesh.nodes[6].kind = Kind::Broken;
        mesh.run_for(5000);
        let job = mesh.submit(0, map_reduce(100, 16, 1));
        let took = mesh.run_until_finished(&[job], 1200);
        mesh.exchange();
        mesh.check_job(&job, JobState::Succeeded, &context);
        assert!(took < Duration::from_secs(60), "{context}: {took:?}");
    }
}

#[test]
fn everything_at_once() {
    for seed in seeds(12) {
        let context = replay("everything_at_once", seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xabc);
        let nodes = rng.random_range(9..16);
        let options = Options {
            nodes,
            driver: driver::Config {
                lease_steps: 20,
                pool: PoolConfig { strategy: Strategy::ALL[rng.random_range(0..5)], ..PoolConfig::default() },
                ..driver::Config::default()
            },
            gossip_loss: rng.random_range(0.0..0.4),
            frame_loss: rng.random_range(0.0..0.05),
            ..Options::default()
        };
        let mut mesh = Mesh::new(seed, options);
        let mut order: Vec<usize> = (1..nodes).collect();
        order.shuffle(&mut rng);
        // One in ten of each, at least one.
        let share = (nodes / 10).max(1);
        for (kind, places) in [Kind::Liar, Kind::Staller, Kind::Broken].into_iter().zip(order.chunks(share)) {
            places.iter().for_each(|place| mesh.nodes[*place].kind = kind);
        }
        order[3 * share..4 * share].iter().for_each(|place| mesh.nodes[*place].slowness = 10);
        for _ in 0..nodes {
            let node = rng.random_range(0..nodes);
            let at = rng.random_range(6000..60_000);
            mesh.crash_at(at, node);
            mesh.restart_at(at + rng.random_range(3000..40_000), node);
        }
        mesh.run_for(5000);
        let mut jobs = vec![mesh.submit(0, map_reduce(rng.random_range(20..120), 8, 3))];
        jobs.push(
            mesh.submit(nodes - 1, JobSpec { nonce: 2, ..map_reduce(rng.random_range(20..120), 16, 3) }),
        );
        mesh.run_until_finished(&jobs, 3600);
        mesh.run_for(60_000);
        mesh.exchange();
        for job in &jobs {
            mesh.check_job(job, JobState::Succeeded, &context);
        }
        let liars = |finding: &&driver::Finding| mesh.kind_of(&finding.accused) != Kind::Liar;
        assert_eq!(mesh.findings.iter().find(liars), None, "{context}: nobody honest is accused");
    }
}

#[test]
fn a_job_that_nobody_can_do_ends_with_its_deadline() {
    let mut mesh = Mesh::new(1, Options::default());
    mesh.run_for(5000);
    let mut spec = map_reduce(4, 4, 1);
    spec.deadline_s = 60;
    spec.tasks[0].constraints.labels.insert("gpu".to_owned(), "yes".to_owned());
    let job = mesh.submit(0, spec);
    mesh.run_for(20_000);
    let held = mesh.nodes[0].driver.progress(&job).unwrap().held.unwrap();
    assert!(held.1.to_string().contains("gpu = yes"), "{held:?}");
    let took = mesh.run_until_finished(&[job], 300);
    assert!(took < Duration::from_secs(80), "{took:?}");
    mesh.exchange();
    mesh.check_job(&job, JobState::Cancelled, "a deadline");
    let (_, detail) = mesh.nodes[3].driver.ledger().job(&job).unwrap().cancelled().unwrap();
    assert!(detail.contains("after 60 s"), "{detail}");
}

#[test]
fn a_failing_task_fails_its_job_and_is_retried() {
    let mut mesh = Mesh::new(2, Options::default());
    mesh.run_for(5000);
    let mut spec = map_reduce(4, 4, 1);
    spec.tasks[1]
        .action
        .params
        .insert("fails".to_owned(), omnimesh_protocol::registry::Value::Bool(true).encode().unwrap());
    let job = mesh.submit(0, spec.clone());
    mesh.run_until_finished(&[job], 300);
    mesh.exchange();
    mesh.check_job(&job, JobState::Failed, "a failure");
    let before = mesh.runs;
    mesh.drive(5, driver::Input::Retry { job, ticket: omnimesh_protocol::author::Ticket(1) });
    mesh.run_for(30_000);
    mesh.run_until_finished(&[job], 300);
    // What had succeeded was not done again: only the failing task was, four times.
    assert_eq!(mesh.runs - before, 4);
    mesh.exchange();
    mesh.check_job(&job, JobState::Failed, "a second failure");
    // With a fallback, or if it may be missing, the job succeeds.
    spec.nonce = 2;
    spec.tasks[1].on_failure = omnimesh_protocol::compute::job::OnFailure::Skip;
    let skips = mesh.submit(1, spec.clone());
    spec.nonce = 3;
    let mut action = spec.tasks[1].action.clone();
    action.params.clear();
    action.operation = "hash".to_owned();
    spec.tasks[1].on_failure = omnimesh_protocol::compute::job::OnFailure::Fallback(action);
    let falls = mesh.submit(1, spec);
    mesh.run_until_finished(&[skips, falls], 300);
    mesh.exchange();
    mesh.check_job(&skips, JobState::Succeeded, "a skip");
    mesh.check_job(&falls, JobState::Succeeded, "a fallback");
    let view = mesh.nodes[0].driver.ledger().job(&falls).unwrap();
    assert_eq!(view.record(TaskRef::new(1, 0)).unwrap().commit.stage, 1);
    let view = mesh.nodes[0].driver.ledger().job(&skips).unwrap();
    assert_eq!(view.counts().skipped, 2);
}

/// Work divided by honest capacity, or the longest path.
fn bound(mesh: &Mesh, tasks: u64, redundancy: u64, depth: u64) -> f64 {
    let slots = f64::from(mesh.options.worker.slots);
    let honest = mesh.nodes.iter().filter(|node| node.kind == Kind::Honest);
    let capacity: f64 = honest.map(|node| slots / node.slowness as f64).sum();
    let task_s = mesh.options.task_ms as f64 / 1000.0;
    (tasks as f64 * redundancy as f64 * task_s / capacity).max(depth as f64 * task_s)
}

/// A tenth churns, a tenth lies, a tenth is ten times slower: the makespan as a multiple of its bound.
fn makespan(seed: u64, nodes: usize, tasks: u64, strategy: Strategy, context: &str) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let options = Options {
        nodes,
        worker: worker::Config { slots: 1, queue_max: 1, ..worker::Config::default() },
        driver: driver::Config {
            pool: PoolConfig { strategy, ..PoolConfig::default() },
            ..driver::Config::default()
        },
        task_ms: 2000,
        check: false,
        ..Options::default()
    };
    let mut mesh = Mesh::new(seed, options);
    let tenth = nodes / 10;
    for place in 1..=tenth {
        mesh.nodes[place].kind = Kind::Liar;
        mesh.nodes[tenth + place].slowness = 10;
        let at = rng.random_range(6000..60_000);
        mesh.crash_at(at, 2 * tenth + place);
        mesh.restart_at(at + 20_000, 2 * tenth + place);
    }
    mesh.run_for(5000);
    let mut spec = map_reduce(tasks, 1000, 3);
    spec.tasks.truncate(1);
    let job = mesh.submit(0, spec);
    let took = mesh.run_until_finished(&[job], 3600).as_secs_f64() - 5.0;
    mesh.exchange();
    mesh.check_job(&job, JobState::Succeeded, context);
    let ratio = took / bound(&mesh, tasks, 3, 1);
    println!("{:<18} {took:6.1} s, {ratio:.2} of the bound, {} runs; {context}", strategy.code(), mesh.runs);
    ratio
}

#[test]
fn the_makespan_is_near_its_bound() {
    for strategy in Strategy::ALL {
        let seed = seeds(1)[0];
        let context = replay("the_makespan_is_near_its_bound", seed);
        let ratio = makespan(seed, 100, 1000, strategy, &context);
        assert!(ratio < 1.3, "{}: {ratio:.2}; {context}", strategy.code());
    }
}

#[test]
#[ignore = "minutes: cargo test --release -p omnimesh-protocol --test compute a_thousand_workers -- --ignored --nocapture"]
fn a_thousand_workers_do_ten_thousand_tasks() {
    for strategy in Strategy::ALL {
        let seed = seeds(1)[0];
        let context = replay("a_thousand_workers_do_ten_thousand_tasks", seed);
        let ratio = makespan(seed, 1000, 10_000, strategy, &context);
        assert!(ratio < 1.3, "{}: {ratio:.2}; {context}", strategy.code());
    }
}
