//! What a scheduler would reach that knows everything at once, but not how long a task takes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use omnimesh_protocol::compute::TaskRef;

use super::compute_jobs::{ComputeSettings, Role};
use crate::scenario::Compute;

/// Workers that are slower than this get nothing, as at a driver with nothing else to give.
const SLOWNESS_MAX: f64 = 2.0;

/// The list schedule (Graham, *Bounds on multiprocessing timing anomalies*, 1969): as soon as a slot of an honest worker is free,
/// it begins the task that has been ready for longest, at no cost; of idle ones the quickest. Nobody dies. From the first
/// submission to the last end.
pub(super) fn list_schedule(settings: &ComputeSettings, compute: &Compute, begin: Duration) -> Duration {
    let mut slots = Slots::new(settings, compute);
    let mut ready = BinaryHeap::new();
    // How many tasks each waits for, and since when it has what it has.
    let mut waiting: HashMap<(usize, TaskRef), (usize, Duration)> = HashMap::new();
    let mut readers: HashMap<(usize, TaskRef), Vec<TaskRef>> = HashMap::new();
    for (number, job) in settings.jobs.iter().enumerate() {
        let submitted = compute.time_of(u32::try_from(number).unwrap_or(u32::MAX)).saturating_sub(begin);
        for task in job.plan.tasks() {
            let mut before = 0;
            for wait in job.plan.waits(task.task) {
                for chunk in job.plan.reach(task.chunk, wait) {
                    readers.entry((number, TaskRef::new(wait.task, chunk))).or_default().push(task);
                    before += 1;
                }
            }
            waiting.insert((number, task), (before, submitted));
            if before == 0 {
                // Jobs take turns.
                ready.push(Reverse((submitted, task.chunk, number, task)));
            }
        }
    }
    let mut last = Duration::ZERO;
    while let Some(Reverse((since, _, number, task))) = ready.pop() {
        let service = settings.service(number, task);
        let mut end = since;
        for _ in 0..compute.redundancy {
            let Some(done) = slots.take(since, service) else { return Duration::ZERO };
            end = end.max(done);
        }
        last = last.max(end);
        for reader in readers.remove(&(number, task)).unwrap_or_default() {
            let Some((before, since)) = waiting.get_mut(&(number, reader)) else { continue };
            (*before, *since) = (*before - 1, end.max(*since));
            if *before == 0 {
                ready.push(Reverse((*since, reader.chunk, number, reader)));
            }
        }
    }
    last
}

/// The slots of those who get work.
struct Slots {
    /// How many times longer than usual each takes, the quickest first.
    slowness: Vec<f64>,
    idle: BinaryHeap<Reverse<usize>>,
    /// Until when the others are at work.
    busy: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Slots {
    fn new(settings: &ComputeSettings, compute: &Compute) -> Self {
        let honest = (0_u32..).zip(&settings.roles).filter(|(_, role)| **role == Role::Honest);
        let mut slowness: Vec<f64> = honest
            .map(|(node, _)| settings.slowness(node))
            .filter(|slowness| *slowness <= SLOWNESS_MAX)
            .flat_map(|slowness| (0..compute.slots).map(move |_| slowness))
            .collect();
        slowness.sort_by(f64::total_cmp);
        Slots { idle: (0..slowness.len()).map(Reverse).collect(), busy: BinaryHeap::new(), slowness }
    }

    /// When a task ends that has been ready since then, no earlier than those before it; nothing if there is no slot.
    fn take(&mut self, since: Duration, service: Duration) -> Option<Duration> {
        while let Some(Reverse((free, slot))) = self.busy.peek().copied()
            && free <= since
        {
            self.busy.pop();
            self.idle.push(Reverse(slot));
        }
        let (begin, slot) = match self.idle.pop() {
            Some(Reverse(slot)) => (since, slot),
            None => self.busy.pop()?.0,
        };
        let end = begin + service.mul_f64(self.slowness[slot]);
        self.busy.push(Reverse((end, slot)));
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use omnimesh_protocol::NodeId;
    use omnimesh_protocol::compute::BlobRef;
    use omnimesh_protocol::compute::job::{
        InputSpec, JobSpec, OutputSpec, Plan as JobPlan, Quota, Source, TaskSpec,
    };
    use proptest::prelude::*;

    use super::super::compute_jobs::Planned;
    use super::super::plan::Plan;
    use super::*;
    use crate::scenario::{Network, Scenario, Shape};

    /// Tasks of a second each, and workers that do one at a time.
    fn compute(shape: Shape, tasks: u32) -> Compute {
        Compute { shape, tasks, service_sigma: 0.0, slots: 1, ..Compute::default() }
    }

    fn settings(nodes: u32, compute: &Compute, seed: u64) -> ComputeSettings {
        let network = Network { nodes, ..Network::default() };
        let scenario = Scenario { seed, network, compute: Some(compute.clone()), ..Scenario::default() };
        let ids: Vec<NodeId> = (1..).map(|n| NodeId::from_bytes([n; 32])).take(nodes as usize).collect();
        ComputeSettings::new(&scenario, compute, &Plan::new(&scenario), &ids)
    }

    /// Seconds from the first submission to the last end, on so many workers.
    fn seconds(nodes: u32, compute: &Compute) -> f64 {
        list_schedule(&settings(nodes, compute, 1), compute, compute.time_of(0)).as_secs_f64()
    }

    /// One job in which each task reads the outputs of these.
    fn graph(of: &Planned, reads: &[&[u16]]) -> Planned {
        let source = |reads: &&[u16]| match reads {
            [] => vec![Source::Input(0)],
            reads => reads.iter().map(|task| Source::Task(*task)).collect(),
        };
        let tasks: Vec<TaskSpec> = (0..)
            .zip(reads)
            .map(|(n, reads): (u16, _)| TaskSpec {
                sources: source(reads),
                ..TaskSpec::new(&format!("t{n}"), "hash")
            })
            .collect();
        let blob = BlobRef { hash: omnimesh_protocol::Hash::of(b"input"), size: 1 };
        let last = u16::try_from(tasks.len() - 1).expect("a few");
        let spec = JobSpec {
            inputs: vec![InputSpec { name: "input".into(), blob }],
            outputs: vec![OutputSpec { name: "result".into(), task: last }],
            tasks,
            ..of.spec.clone()
        };
        let plan = JobPlan::new(&spec, &Quota::MOST).expect("a good job");
        Planned { id: of.id, spec, plan, submitter: of.submitter }
    }

    #[test]
    fn a_chain_takes_the_sum_of_its_links_and_rows_go_side_by_side() {
        let row = compute(Shape::Chain { depth: 4 }, 4);
        assert_eq!([1, 3].map(|nodes| seconds(nodes, &row)), [4.0, 4.0]);
        let rows = compute(Shape::Chain { depth: 3 }, 6);
        assert_eq!([1, 2, 3].map(|nodes| seconds(nodes, &rows)), [6.0, 3.0, 3.0]);
        // Links of different lengths.
        let uneven = Compute { service_sigma: 1.0, ..row };
        let settings = settings(2, &uneven, 5);
        let links: Vec<Duration> =
            settings.jobs[0].plan.tasks().map(|task| settings.service(0, task)).collect();
        assert!(links.windows(2).any(|pair| pair[0] != pair[1]));
        assert_eq!(list_schedule(&settings, &uneven, uneven.time_of(0)), links.iter().sum::<Duration>());
    }

    #[test]
    fn what_reads_all_waits_for_the_last() {
        // Five maps on one, two, three and five slots, and then the reduce.
        let reduce = compute(Shape::MapReduce, 6);
        assert_eq!([1, 2, 3, 5, 9].map(|nodes| seconds(nodes, &reduce)), [6.0, 4.0, 3.0, 2.0, 2.0]);
        // It does not matter at whom the slots are.
        let wide = Compute { slots: 3, ..reduce.clone() };
        assert_eq!([1, 2].map(|nodes| seconds(nodes, &wide)), [3.0, 2.0]);
        let uneven = Compute { service_sigma: 1.0, ..reduce };
        let settings = settings(5, &uneven, 5);
        let mut maps: Vec<Duration> =
            settings.jobs[0].plan.tasks().map(|task| settings.service(0, task)).collect();
        let last = maps.pop().expect("the reduce");
        let slowest = maps.into_iter().max().expect("five");
        assert_eq!(list_schedule(&settings, &uneven, uneven.time_of(0)), slowest + last);
    }

    #[test]
    fn graphs_made_by_hand_take_what_a_drawing_says() {
        let one = compute(Shape::Dag, 1);
        let times = |reads: &[&[u16]]| {
            [1, 2, 3].map(|nodes| {
                let mut settings = settings(nodes, &one, 1);
                settings.jobs = vec![graph(&settings.jobs[0], reads)];
                list_schedule(&settings, &one, one.time_of(0)).as_secs()
            })
        };
        // 0 ─┬─ 1 ─┬─ 3
        //    └─ 2 ─┘
        assert_eq!(times(&[&[], &[0], &[0], &[1, 2]]), [4, 3, 3]);
        // 0 ─ 1 ─ 2 ─┬─ 6     On two slots: 0 3, 4 5, 1, 2, 6: what has been ready for longest is first, and the chain waits.
        // 3 ─────────┤
        // 4, 5 ──────┘
        assert_eq!(times(&[&[], &[0], &[1], &[], &[], &[], &[2, 3, 4, 5]]), [7, 5, 4]);
    }

    #[test]
    fn each_task_is_done_as_often_as_it_has_to_be() {
        let twice = Compute { redundancy: 2, ..compute(Shape::MapReduce, 3) };
        assert_eq!([1, 2, 4].map(|nodes| seconds(nodes, &twice)), [6.0, 3.0, 2.0]);
        // Of three slots one begins the second map when the other two are at the first.
        assert_eq!(seconds(3, &twice), 3.0);
    }

    #[test]
    fn jobs_begin_when_they_are_submitted() {
        // At 0, 5 and 10 s, each a second long; and so close together that one slot has too much to do.
        let far = Compute { jobs: 3, over: Duration::from_secs(15), ..compute(Shape::Dag, 1) };
        assert_eq!([1, 2].map(|nodes| seconds(nodes, &far)), [11.0, 11.0]);
        let close = Compute { over: Duration::from_millis(750), ..far };
        assert_eq!([1, 2].map(|nodes| seconds(nodes, &close)), [3.0, 2.0]);
    }

    #[test]
    fn only_the_honest_and_quick_get_work() {
        let one = compute(Shape::MapReduce, 5);
        let mut settings = settings(5, &one, 1);
        settings.roles = vec![Role::Liar, Role::Honest, Role::Staller, Role::Honest, Role::Colluder];
        let schedule = |settings: &ComputeSettings| list_schedule(settings, &one, one.time_of(0)).as_secs();
        assert_eq!(schedule(&settings), 3, "four maps on two slots");
        settings.roles = vec![Role::Liar; 5];
        assert_eq!(schedule(&settings), 0, "nobody can");
        // One of two takes ten times as long.
        let slow = Compute { slow: 0.5, slow_factor: 10.0, ..one };
        assert_eq!([seconds(2, &slow), seconds(4, &slow)], [5.0, 3.0]);
    }

    #[test]
    fn a_worker_that_is_a_little_slow_gets_what_the_quick_one_leaves() {
        // One of two workers takes half as long again.
        let slow = |shape, tasks| Compute { slow: 0.5, slow_factor: 1.5, ..compute(shape, tasks) };
        assert_eq!(seconds(2, &slow(Shape::Chain { depth: 2 }, 2)), 2.0, "the quick one is idle each time");
        assert_eq!(seconds(2, &slow(Shape::MapReduce, 3)), 2.5, "one map takes 1.5 s");
        assert_eq!(seconds(2, &slow(Shape::MapReduce, 4)), 3.0, "the third map is the quick one's");
        assert_eq!(seconds(2, &slow(Shape::MapReduce, 5)), 4.0, "the fourth is begun at 1.5 s");
        let with = |slow_factor| Compute { slow_factor, ..slow(Shape::MapReduce, 4) };
        assert_eq!([2.0, 2.1].map(|factor| seconds(2, &with(factor))), [3.0, 4.0], "too slow is too slow");
    }

    /// Any jobs on any number of equal workers.
    fn jobs() -> impl Strategy<Value = (Compute, u32)> {
        let shape = prop_oneof![
            Just(Shape::MapReduce),
            (1_u32..6).prop_map(|depth| Shape::Chain { depth }),
            Just(Shape::Dag)
        ];
        let workers = (1_u32..7, 1_u32..4);
        (shape, 2_u32..40, 1_u32..4, 0_u64..10_000, 0.0..2.0_f64, 1_u8..3, workers).prop_map(
            |(shape, tasks, jobs, over_ms, service_sigma, redundancy, (nodes, slots))| {
                let over = Duration::from_millis(over_ms);
                let one = compute(shape, tasks);
                (Compute { jobs, over, service_sigma, redundancy, slots, ..one }, nodes)
            },
        )
    }

    /// What has to be done, at usual speed, and the longest path through a job, from the first submission on.
    fn work_and_path(settings: &ComputeSettings, compute: &Compute) -> (Duration, Duration) {
        let (mut work, mut longest) = (Duration::ZERO, Duration::ZERO);
        for (number, job) in (0_u32..).zip(&settings.jobs) {
            let each = job.plan.tasks().map(|task| settings.service(number as usize, task));
            work += each.sum::<Duration>() * u32::from(compute.redundancy);
            let submitted = compute.time_of(number) - compute.time_of(0);
            longest = longest.max(submitted + settings.critical_path(number as usize));
        }
        (work, longest)
    }

    proptest! {
        /// Graham's bound: no worker is idle but where the longest path waits, so that a list schedule takes at most what the work
        /// takes on all of them and that path; and no schedule takes less than the longer of the two.
        #[test]
        fn a_list_schedule_is_within_grahams_bound((compute, nodes) in jobs(), seed: u64) {
            let settings = settings(nodes, &compute, seed);
            let (work, longest) = work_and_path(&settings, &compute);
            let begin = compute.time_of(0);
            let slots = nodes * compute.slots;
            let takes = list_schedule(&settings, &compute, begin);
            prop_assert!(takes >= longest, "{takes:?} is less than the longest path, {longest:?}");
            prop_assert!(takes * slots >= work, "{takes:?} on {slots} slots is less than {work:?}");
            let bound = longest + work / slots + Duration::from_nanos(1);
            prop_assert!(takes <= bound, "{takes:?} is more than {longest:?} and {work:?} on {slots} slots");
        }

        /// Slow workers make it no better than what all workers together can do.
        #[test]
        fn it_is_never_less_than_workers_can_do((compute, nodes) in jobs(), slow in 0.0..1.0_f64, by in 1.0..3.0_f64, seed: u64) {
            let compute = Compute { slow, slow_factor: by, ..compute };
            let settings = settings(nodes, &compute, seed);
            let (work, longest) = work_and_path(&settings, &compute);
            let capacity: f64 = (0..nodes).map(|node| f64::from(compute.slots) / settings.slowness(node)).sum();
            let takes = list_schedule(&settings, &compute, compute.time_of(0));
            prop_assert!(takes >= longest, "{takes:?} is less than the longest path, {longest:?}");
            let done = takes.as_secs_f64() * capacity;
            prop_assert!(done >= work.as_secs_f64() * (1.0 - 1e-9), "{done} s can be done in {takes:?}, not {work:?}");
        }
    }
}
