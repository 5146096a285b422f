//! The jobs of a scenario, who does them, and what is right: all a function of the scenario and its seed.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use omnimesh_protocol::compute::job::{
    Align, Each, InputSpec, JobSpec, Limits, OutputSpec, Plan as JobPlan, Quota, Source, TaskSpec,
};
use omnimesh_protocol::compute::ledger::{CATEGORY, Part};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef, driver, worker};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::{Hash, NodeId};
use rand::RngExt;
use rand::seq::{SliceRandom, index};

use super::link::NodeSet;
use super::plan::{Plan, stream};
use super::random::{Draw, mix};
use crate::scenario::{Compute, Scenario, Shape};

/// Streams of randomness: who is what, and what random graphs look like.
const OF_ROLES: u64 = 10;
const OF_GRAPHS: u64 = 11;
/// Draws of the lengths of tasks.
const OF_SERVICE: u64 = 0x7365_7276;

/// What a worker is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    #[default]
    Honest,
    /// Each lie is another one.
    Liar,
    /// All of these tell the same lie.
    Colluder,
    /// Takes work and never ends it.
    Staller,
}

impl Role {
    pub(super) fn lies(self) -> bool {
        matches!(self, Role::Liar | Role::Colluder)
    }
}

/// A job to be submitted.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) id: JobId,
    pub(super) spec: JobSpec,
    pub(super) plan: JobPlan,
    pub(super) submitter: u32,
}

/// What all nodes need to do jobs.
#[derive(Debug)]
pub(super) struct ComputeSettings {
    pub(super) driver: driver::Config,
    pub(super) worker: worker::Config,
    pub(super) category: Channel,
    pub(super) jobs: Vec<Planned>,
    by_id: HashMap<JobId, usize>,
    /// Those who keep the ledger: sorted.
    pub(super) keepers: Vec<u32>,
    keeps: NodeSet,
    /// Submitters that die for good.
    pub(super) dying: Vec<u32>,
    pub(super) roles: Vec<Role>,
    slow: NodeSet,
    /// Blobs that jobs were given: never lost.
    inputs: HashSet<Hash>,
    service: Duration,
    service_sigma: f64,
    slow_factor: f64,
    seed: u64,
}

impl ComputeSettings {
    pub(super) fn new(scenario: &Scenario, compute: &Compute, plan: &Plan, ids: &[NodeId]) -> Self {
        let nodes = scenario.network.nodes;
        let mut rng = stream(scenario.seed, OF_ROLES);
        // Who submits works as it should, and is none of the scenario's adversaries.
        let mut free: Vec<u32> = (0..nodes).filter(|node| !plan.dishonest.contains(*node)).collect();
        free.shuffle(&mut rng);
        let submitters: Vec<u32> = free.drain(..(compute.submitters as usize).min(free.len())).collect();
        let mut others = free;
        let mut take = |share: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `nodes`")]
            let count = (share.clamp(0.0, 1.0) * f64::from(nodes)).round() as usize;
            others.drain(..count.min(others.len())).collect::<Vec<u32>>()
        };
        let mut roles = vec![Role::Honest; nodes as usize];
        let shares = [
            (compute.liars, Role::Liar),
            (compute.colluders, Role::Colluder),
            (compute.stallers, Role::Staller),
        ];
        for (share, role) in shares {
            take(share).into_iter().for_each(|node| roles[node as usize] = role);
        }
        let slow: NodeSet = take(compute.slow).into_iter().collect();
        let ledgers = compute.ledgers(nodes).min(nodes) as usize;
        let mut rest: Vec<u32> = (0..nodes).filter(|node| !submitters.contains(node)).collect();
        rest.shuffle(&mut rng);
        let mut keepers: Vec<u32> = submitters.iter().copied().chain(rest).take(ledgers).collect();
        keepers.sort_unstable();
        let mut jobs = Vec::new();
        let dying: Vec<u32> = submitters.iter().copied().take(compute.driver_deaths as usize).collect();
        for number in 0..compute.jobs {
            let submitter = submitter_of(compute, number, &submitters);
            let spec = spec(compute, number, scenario.seed);
            let plan = JobPlan::new(&spec, &Quota::MOST).expect("the scenario was checked");
            let id = JobId::of(&ids[submitter as usize], &spec.encode());
            jobs.push(Planned { id, spec, plan, submitter });
        }
        let driver = driver::Config {
            step_interval: scenario.network.step_interval,
            pool: omnimesh_protocol::compute::placement::PoolConfig {
                strategy: compute.strategy,
                ..Default::default()
            },
            jobs_max: compute.jobs as usize,
            ..driver::Config::default()
        };
        let worker = worker::Config {
            slots: compute.slots,
            queue_max: compute.queue,
            memory_bytes: u64::MAX,
            ..worker::Config::default()
        };
        ComputeSettings {
            driver,
            worker,
            category: Channel::new(CATEGORY).expect("a good name"),
            by_id: jobs.iter().enumerate().map(|(number, job)| (job.id, number)).collect(),
            inputs: jobs.iter().flat_map(|job| &job.spec.inputs).map(|input| input.blob.hash).collect(),
            jobs,
            keeps: keepers.iter().copied().collect(),
            keepers,
            dying,
            roles,
            slow,
            service: compute.service,
            service_sigma: compute.service_sigma,
            slow_factor: compute.slow_factor,
            seed: scenario.seed,
        }
    }

    pub(super) fn keeps(&self, node: u32) -> bool {
        self.keeps.contains(node)
    }

    pub(super) fn is_input(&self, hash: &Hash) -> bool {
        self.inputs.contains(hash)
    }

    pub(super) fn number_of(&self, job: &JobId) -> Option<usize> {
        self.by_id.get(job).copied()
    }

    /// How many times longer than usual a worker takes.
    pub(super) fn slowness(&self, node: u32) -> f64 {
        if self.slow.contains(node) { self.slow_factor } else { 1.0 }
    }

    /// How long a task takes on a worker of usual speed.
    pub(super) fn service(&self, job: usize, task: TaskRef) -> Duration {
        let place = self.jobs.get(job).and_then(|job| job.plan.index(task)).unwrap_or(0);
        let mut draw = Draw::new(self.seed ^ OF_SERVICE, job as u64, place as u64);
        // The mean of a log-normal variable is above its median.
        let shift = -self.service_sigma * self.service_sigma / 2.0;
        self.service.mul_f64((shift + self.service_sigma * draw.normal()).exp().min(1e4))
    }

    /// How long a job takes at least.
    pub(super) fn critical_path(&self, number: usize) -> Duration {
        let job = &self.jobs[number];
        let mut ends: HashMap<TaskRef, Duration> = HashMap::new();
        let mut longest = Duration::ZERO;
        for family in job.plan.order() {
            // What reads all of a family waits for its last.
            let waits = job.plan.waits(*family);
            for chunk in 0..job.plan.count(*family) {
                let before = waits.iter().flat_map(|wait| {
                    job.plan.reach(chunk, wait).map(|of| ends.get(&TaskRef::new(wait.task, of)).copied())
                });
                let begin = before.flatten().max().unwrap_or_default();
                let task = TaskRef::new(*family, chunk);
                let end = begin + self.service(number, task);
                ends.insert(task, end);
                longest = longest.max(end);
            }
        }
        longest
    }
}

/// What an operation makes of what it reads: anything, as long as it depends on all of it and nothing else.
pub(super) fn truth(task: TaskRef, parts: &[Part], bytes: u64) -> BlobRef {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&task.task.to_le_bytes());
    for part in parts {
        match part {
            Part::Blob { blob, from, to, .. } => {
                hasher.update(blob.hash.as_bytes()).update(&from.to_le_bytes()).update(&to.to_le_bytes());
            }
            Part::Missing => {
                hasher.update(&[0]);
            }
        }
    }
    BlobRef { hash: Hash::from_bytes(*hasher.finalize().as_bytes()), size: bytes }
}

/// Submitters take turns; who is dead by then is left out.
fn submitter_of(compute: &Compute, number: u32, submitters: &[u32]) -> u32 {
    let count = submitters.len().max(1);
    let lives = |place: usize| {
        let first = compute.time_of(u32::try_from(place).unwrap_or(u32::MAX));
        place >= compute.driver_deaths as usize
            || compute.time_of(number) < first + compute.driver_death_after
    };
    let turns = (0..count).map(|next| (number as usize + next) % count);
    let place = turns.clone().find(|place| lives(*place)).or_else(|| turns.clone().next());
    submitters[place.unwrap_or(0)]
}

fn spec(compute: &Compute, number: u32, seed: u64) -> JobSpec {
    let tasks = compute.tasks;
    let parts = match compute.shape {
        Shape::MapReduce => tasks - 1,
        Shape::Chain { depth } => (tasks / depth.max(1)).max(1),
        Shape::Dag => 1,
    };
    let size = u64::from(parts) * compute.input_bytes;
    let blob = BlobRef { hash: Hash::of(format!("input {number} {seed}").as_bytes()), size };
    let limit = u64::try_from(compute.limit.as_millis()).unwrap_or(u64::MAX);
    let task = |name: String| TaskSpec {
        redundancy: compute.redundancy,
        limits: Limits { wall_ms: limit, cpu_ms: limit, memory_bytes: 1, output_bytes: compute.output_bytes },
        ..TaskSpec::new(&name, "hash")
    };
    let chunks = Some(Each::Chunk { input: 0, bytes: compute.input_bytes, align: Align::Byte });
    let list = match compute.shape {
        Shape::MapReduce => vec![
            TaskSpec { each: chunks, ..task("map".into()) },
            TaskSpec { sources: vec![Source::Task(0)], ..task("reduce".into()) },
        ],
        Shape::Chain { depth } => (0..u16::try_from(depth).unwrap_or(u16::MAX))
            .map(|place| {
                let each = match place.checked_sub(1) {
                    None => chunks,
                    Some(before) => Some(Each::Output { task: before, group: 1 }),
                };
                TaskSpec { each, ..task(format!("link-{place}")) }
            })
            .collect(),
        Shape::Dag => {
            let mut rng = stream(mix(seed ^ u64::from(number)), OF_GRAPHS);
            (0..u16::try_from(tasks).unwrap_or(u16::MAX))
                .map(|place| {
                    let reads = rng.random_range(1..=3).min(usize::from(place));
                    let before = index::sample(&mut rng, usize::from(place), reads);
                    let mut sources: Vec<u16> =
                        before.into_iter().filter_map(|of| u16::try_from(of).ok()).collect();
                    sources.sort_unstable();
                    let sources: Vec<Source> = match place {
                        0 => vec![Source::Input(0)],
                        _ => sources.into_iter().map(Source::Task).collect(),
                    };
                    TaskSpec { sources, ..task(format!("task-{place}")) }
                })
                .collect()
        }
    };
    let last = u16::try_from(list.len() - 1).unwrap_or(u16::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a thousand")]
    let spot_check_per_mille = (compute.spot_checks * 1000.0).round() as u16;
    JobSpec {
        name: format!("job-{number}"),
        nonce: u64::from(number),
        deadline_s: compute.deadline.as_secs(),
        spot_check_per_mille,
        inputs: vec![InputSpec { name: "input".into(), blob }],
        tasks: list,
        outputs: vec![OutputSpec { name: "result".into(), task: last }],
    }
}

/// A part of a frame of the ledger that many nodes share.
pub(super) type Entries = Arc<[omnimesh_protocol::log::Entry]>;
