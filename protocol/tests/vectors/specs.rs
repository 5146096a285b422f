//! Specs of jobs, and operations on jobs, put together by hand, item by item, so that they can be wrong in one place.

use crate::cbor;

/// The items of a task, encoded.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) name: Vec<u8>,
    pub(crate) action: Vec<u8>,
    pub(crate) sources: Vec<u8>,
    pub(crate) each: Vec<u8>,
    pub(crate) after: Vec<u8>,
    pub(crate) limits: Vec<u8>,
    pub(crate) retry: Vec<u8>,
    pub(crate) redundancy: Vec<u8>,
    pub(crate) constraints: Vec<u8>,
    pub(crate) on_failure: Vec<u8>,
    pub(crate) when_missing: Vec<u8>,
}

pub(crate) const FAIL: [u8; 2] = [0x81, 0];
pub(crate) const SKIP: [u8; 2] = [0x81, 1];
pub(crate) const OMIT: [u8; 1] = [1];

impl Task {
    pub(crate) fn item(&self) -> Vec<u8> {
        cbor::array(&[
            self.name.clone(),
            self.action.clone(),
            self.sources.clone(),
            self.each.clone(),
            self.after.clone(),
            self.limits.clone(),
            self.retry.clone(),
            self.redundancy.clone(),
            self.constraints.clone(),
            self.on_failure.clone(),
            self.when_missing.clone(),
        ])
    }
}

/// A task that is right in all places, reads nothing and waits for nothing; changed.
pub(crate) fn task(name: &str, operation: &str, change: impl FnOnce(&mut Task)) -> Task {
    let mut task = Task {
        name: cbor::text(name),
        action: action(operation, None, &[]),
        sources: cbor::array(&[]),
        each: cbor::NULL.to_vec(),
        after: cbor::array(&[]),
        limits: numbers(&[60_000, 1 << 28, 1 << 26, 120_000]),
        retry: numbers(&[3, 200, 10_000, 500]),
        redundancy: cbor::uint(1),
        constraints: constraints(&[], 0, None),
        on_failure: FAIL.to_vec(),
        when_missing: cbor::uint(0),
    };
    change(&mut task);
    task
}

/// The items of a spec, encoded.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) version: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) deadline_s: Vec<u8>,
    pub(crate) spot_check: Vec<u8>,
    pub(crate) inputs: Vec<u8>,
    pub(crate) tasks: Vec<u8>,
    pub(crate) outputs: Vec<u8>,
}

impl Spec {
    pub(crate) fn items(&self) -> Vec<Vec<u8>> {
        vec![
            self.version.clone(),
            self.name.clone(),
            self.nonce.clone(),
            self.deadline_s.clone(),
            self.spot_check.clone(),
            self.inputs.clone(),
            self.tasks.clone(),
            self.outputs.clone(),
        ]
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        cbor::array(&self.items())
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self);
        self
    }
}

/// A spec with these inputs and tasks.
pub(crate) fn spec(inputs: &[Vec<u8>], tasks: &[Task]) -> Spec {
    Spec {
        version: cbor::uint(1),
        name: cbor::text("job"),
        nonce: cbor::uint(7),
        deadline_s: cbor::uint(3600),
        spot_check: cbor::uint(0),
        inputs: cbor::array(inputs),
        tasks: cbor::array(&tasks.iter().map(Task::item).collect::<Vec<_>>()),
        outputs: cbor::array(&[]),
    }
}

pub(crate) fn numbers(numbers: &[u64]) -> Vec<u8> {
    cbor::array(&numbers.iter().map(|number| cbor::uint(*number)).collect::<Vec<_>>())
}

/// A blob, of 32 equal bytes for a hash: whose hash it is nobody asks here.
#[derive(Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) hash: [u8; 32],
    pub(crate) size: u64,
}

pub(crate) const fn blob(byte: u8, size: u64) -> Blob {
    Blob { hash: [byte; 32], size }
}

impl Blob {
    /// The two items that it has everywhere.
    pub(crate) fn items(&self) -> [Vec<u8>; 2] {
        [cbor::bytes(self.hash), cbor::uint(self.size)]
    }
}

pub(crate) fn input(name: &str, blob: Blob) -> Vec<u8> {
    let [hash, size] = blob.items();
    cbor::array(&[cbor::text(name), hash, size])
}

pub(crate) fn action(operation: &str, program: Option<Blob>, params: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let params: Vec<_> = params.iter().map(|(name, value)| (cbor::text(name), value.clone())).collect();
    let program = program.map_or(cbor::NULL.to_vec(), |program| cbor::array(&program.items()));
    cbor::array(&[cbor::text(operation), program, cbor::map(&params)])
}

pub(crate) fn constraints(labels: &[(&str, &str)], memory: u64, region: Option<&str>) -> Vec<u8> {
    let region = region.map_or(cbor::NULL.to_vec(), cbor::text);
    cbor::array(&[self::labels(labels), cbor::uint(memory), region])
}

pub(crate) fn labels(labels: &[(&str, &str)]) -> Vec<u8> {
    let labels: Vec<_> = labels.iter().map(|(name, value)| (cbor::text(name), cbor::text(value))).collect();
    cbor::map(&labels)
}

pub(crate) enum Source {
    Input(u64),
    Task(u64),
}

pub(crate) fn sources(sources: &[Source]) -> Vec<u8> {
    let items = sources.iter().map(|source| match source {
        Source::Input(place) => numbers(&[0, *place]),
        Source::Task(place) => numbers(&[1, *place]),
    });
    cbor::array(&items.collect::<Vec<_>>())
}

/// Fanned out over chunks of an input.
pub(crate) fn chunks(input: u64, bytes: u64, align: u64) -> Vec<u8> {
    numbers(&[0, input, bytes, align])
}

/// Fanned out over the outputs of a task.
pub(crate) fn groups(task: u64, group: u64) -> Vec<u8> {
    numbers(&[1, task, group])
}

pub(crate) fn fallback(action: Vec<u8>) -> Vec<u8> {
    cbor::array(&[cbor::uint(2), action])
}

pub(crate) fn job_id(author: &[u8], spec: &[u8]) -> [u8; 32] {
    blake3::derive_key("omnimesh 2026-11 job", &[author, spec].concat())
}

pub(crate) fn operation(code: u64, items: &[Vec<u8>]) -> Vec<u8> {
    cbor::array(&[&[cbor::uint(1), cbor::uint(code)], items].concat())
}

pub(crate) fn submit(spec: &[u8]) -> Vec<u8> {
    operation(0, &[cbor::bytes(spec)])
}

pub(crate) fn lease(is_taken: bool, steps: u64, jobs: &[[u8; 32]]) -> Vec<u8> {
    let jobs: Vec<_> = jobs.iter().map(cbor::bytes).collect();
    let is_taken = if is_taken { cbor::TRUE } else { cbor::FALSE };
    operation(1, &[is_taken.to_vec(), cbor::uint(steps), cbor::array(&jobs)])
}

pub(crate) fn commits(job: [u8; 32], round: u64, commits: &[Commit]) -> Vec<u8> {
    let commits: Vec<_> = commits.iter().map(Commit::item).collect();
    operation(2, &[cbor::bytes(job), cbor::uint(round), cbor::array(&commits)])
}

pub(crate) fn cancel(job: [u8; 32], round: u64, reason: u64, text: &str) -> Vec<u8> {
    operation(3, &[cbor::bytes(job), cbor::uint(round), cbor::uint(reason), cbor::text(text)])
}

pub(crate) fn retry(job: [u8; 32], round: u64) -> Vec<u8> {
    operation(4, &[cbor::bytes(job), cbor::uint(round)])
}

pub(crate) fn finish(job: [u8; 32], round: u64) -> Vec<u8> {
    operation(5, &[cbor::bytes(job), cbor::uint(round)])
}

/// How a task has ended.
#[derive(Clone)]
pub(crate) struct Commit {
    pub(crate) task: u64,
    pub(crate) chunk: u64,
    pub(crate) stage: u64,
    pub(crate) inputs: [u8; 32],
    /// Encoded.
    pub(crate) outcome: Vec<u8>,
    /// One byte for each node.
    pub(crate) workers: Vec<u8>,
    pub(crate) dissenters: Vec<u8>,
    pub(crate) cpu_ms: u64,
    pub(crate) wall_ms: u64,
}

impl Commit {
    pub(crate) fn items(&self) -> Vec<Vec<u8>> {
        let nodes = |nodes: &[u8]| {
            cbor::array(&nodes.iter().map(|node| cbor::bytes([*node; 32])).collect::<Vec<_>>())
        };
        vec![
            cbor::uint(self.task),
            cbor::uint(self.chunk),
            cbor::uint(self.stage),
            cbor::bytes(self.inputs),
            self.outcome.clone(),
            nodes(&self.workers),
            nodes(&self.dissenters),
            cbor::uint(self.cpu_ms),
            cbor::uint(self.wall_ms),
        ]
    }

    pub(crate) fn item(&self) -> Vec<u8> {
        cbor::array(&self.items())
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Commit)) -> Self {
        change(&mut self);
        self
    }
}

fn commit(task: u64, chunk: u64, inputs: [u8; 32], outcome: Vec<u8>) -> Commit {
    Commit {
        task,
        chunk,
        stage: 0,
        inputs,
        outcome,
        workers: vec![0x21],
        dissenters: vec![],
        cpu_ms: 10,
        wall_ms: 300,
    }
}

pub(crate) fn succeeded(blob: Blob) -> Vec<u8> {
    let [hash, size] = blob.items();
    cbor::array(&[cbor::uint(0), hash, size])
}

pub(crate) fn failed(reason: u64, text: &str) -> Vec<u8> {
    cbor::array(&[cbor::uint(1), cbor::uint(reason), cbor::text(text)])
}

pub(crate) fn success(task: u64, chunk: u64, inputs: [u8; 32], output: Blob) -> Commit {
    commit(task, chunk, inputs, succeeded(output))
}

pub(crate) fn failure(task: u64, chunk: u64, inputs: [u8; 32]) -> Commit {
    commit(task, chunk, inputs, failed(0, "no"))
}
