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
/// it begins the task that has been ready for longest, at no cost. Nobody dies. From the first submission to the last end.
pub(super) fn list_schedule(settings: &ComputeSettings, compute: &Compute, begin: Duration) -> Duration {
    let mut slots: BinaryHeap<Reverse<Duration>> = BinaryHeap::new();
    for (node, role) in (0_u32..).zip(&settings.roles) {
        if *role == Role::Honest && settings.slowness(node) <= SLOWNESS_MAX {
            slots.extend((0..compute.slots).map(|_| Reverse(Duration::ZERO)));
        }
    }
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
            let Some(Reverse(free)) = slots.pop() else { return Duration::ZERO };
            let done = free.max(since) + service;
            slots.push(Reverse(done));
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
