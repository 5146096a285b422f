//! A driver and the workers that it gives tasks to, one thing after another: what a test wants to have seen.

use std::collections::VecDeque;
use std::time::Duration;

use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{self, Config, Input, Output};
use omnimesh_protocol::compute::job::{
    Align, Each, InputSpec, JobSpec, OnFailure, OutputSpec, Source, TaskSpec, WhenMissing,
};
use omnimesh_protocol::compute::ledger::{CATEGORY, Change, FailReason};
use omnimesh_protocol::compute::placement::Offer;
use omnimesh_protocol::compute::statement::{SignedResults, Statement};
use omnimesh_protocol::compute::wire::{Assignment, Failure, ResultItem};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::log::Entry;
use omnimesh_protocol::{Hash, Identity, MeshId, NodeId, Outbox, Seq, Step, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::job::{History, JobEvent, Seen};

const MESH: MeshId = MeshId::from_bytes([7; 16]);
/// The step in which everything begins: in the year 2026, as steps of a second count from 1970.
pub(crate) const FIRST_STEP: u64 = 1_790_000_000;

/// Half seconds in which nothing has to be done: longer than waits before another attempt are.
const IDLE_MAX: usize = 4;

/// What a worker does with an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// The right result, after so many milliseconds.
    Do(u64),
    /// Another result than everybody else's.
    Lie,
    /// None.
    Fail(FailReason, &'static str),
    /// Nothing for now.
    Keep,
}

pub(crate) struct Bench {
    pub(crate) driver: driver::State,
    pub(crate) history: History,
    pub(crate) told: Vec<JobEvent>,
    pub(crate) answers: Vec<Output>,
    pub(crate) now: Time,
    pub(crate) workers: Vec<Identity>,
    me: Identity,
    /// What each worker said of itself last.
    offers: Vec<Option<Offer>>,
    given: VecDeque<(NodeId, Assignment)>,
    timer: Option<(Time, driver::Timer)>,
    seq: u64,
    tickets: u64,
    rng: ChaCha8Rng,
}

impl Bench {
    /// A node whose step is known, and so many workers with two slots each.
    pub(crate) fn new(workers: u8) -> Self {
        let me = Identity::from_seed(&[100; 32]);
        let mut bench = Bench {
            driver: driver::State::new(Config::default(), me.id()),
            history: History::default(),
            told: Vec::new(),
            answers: Vec::new(),
            now: Time::from_millis(5000),
            workers: (0..workers).map(|seed| Identity::from_seed(&[seed + 1; 32])).collect(),
            me,
            offers: vec![None; usize::from(workers)],
            given: VecDeque::new(),
            timer: None,
            seq: 0,
            tickets: 0,
            rng: ChaCha8Rng::seed_from_u64(7),
        };
        bench.handle(Input::Step(Some(bench.step())));
        for worker in 0..usize::from(workers) {
            bench.offer(worker, Offer { slots: 2, room: 4, memory_bytes: 1 << 30, ..Offer::default() });
        }
        bench
    }

    pub(crate) fn step(&self) -> Step {
        Step(FIRST_STEP + self.now.as_millis() / 1000)
    }

    pub(crate) fn id(&self, worker: usize) -> NodeId {
        self.workers[worker].id()
    }

    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen {
            me: self.me.id(),
            now: self.now,
            step: Some(self.step()),
            step_interval: Duration::from_secs(1),
            driver: &self.driver,
            history: &self.history,
        }
    }

    /// What a clock on the wall shows now.
    pub(crate) fn wall_ms(&self) -> u64 {
        FIRST_STEP * 1000 + self.now.as_millis()
    }

    pub(crate) fn offer(&mut self, worker: usize, offer: Offer) {
        let from = self.id(worker);
        self.offers[worker] = Some(offer.clone());
        self.handle(Input::Offer { from, offer });
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(1_000_000 + self.tickets)
    }

    pub(crate) fn submit(&mut self, spec: JobSpec) -> JobId {
        let job = JobId::of(&self.me.id(), &spec.encode());
        let ticket = self.ticket();
        self.handle(Input::Submit { spec, ticket });
        job
    }

    /// The answer to the last request.
    pub(crate) fn request(&mut self, input: impl FnOnce(Ticket) -> Input) -> Output {
        let ticket = self.ticket();
        self.handle(input(ticket));
        self.answers.pop().expect("requests are answered at once here")
    }

    pub(crate) fn handle(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Outbox::new();
            self.driver.handle(self.now, input, &mut self.rng, &mut out);
            self.driver.check_invariants();
            for output in out.drain() {
                match output {
                    Output::Append { payload, .. } => {
                        self.seq += 1;
                        inputs.push_back(Input::Entry(Entry {
                            author: self.me.id(),
                            seq: Seq(self.seq),
                            prev: None,
                            hash: Hash::of(&self.seq.to_le_bytes()),
                            step: self.step(),
                            category: Channel::new(CATEGORY).unwrap(),
                            timestamp_us: None,
                            data: payload,
                        }));
                    }
                    Output::Event(event) => {
                        let step = Some(self.step());
                        // Of many tasks each is told by itself, as by a node.
                        if let driver::Event::Ledger(Change::Tasks { job, first, to, old, new }) = event {
                            for chunk in first.chunk..to {
                                let task = TaskRef::new(first.task, chunk);
                                let change = driver::Event::Ledger(Change::Task { job, task, old, new });
                                self.told.extend(self.history.record(self.now, step, &change));
                            }
                        } else {
                            self.told.extend(self.history.record(self.now, step, &event));
                        }
                    }
                    Output::Assign { to, assignments } => {
                        self.given.extend(assignments.into_iter().map(|given| (to, given)));
                    }
                    Output::Cancel { attempts, .. } => {
                        self.given.retain(|(_, given)| !attempts.contains(&given.attempt));
                    }
                    Output::Timer { at, timer } => self.timer = Some((at, timer)),
                    Output::Submitted { .. } | Output::Accepted { .. } | Output::Refused { .. } => {
                        self.answers.push(output);
                    }
                    Output::Keep { .. } | Output::Finding(_) | Output::Replay | Output::Ask { .. } => {}
                }
            }
            if inputs.is_empty() && self.driver.wants_flush() {
                inputs.push_back(Input::Flush);
            }
        }
    }

    /// Lets time pass, and the driver look after its attempts.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some((at, timer)) = self.timer.filter(|(at, _)| *at <= end) {
            self.timer = None;
            self.now = self.now.max(at);
            self.handle(Input::Timer(timer));
        }
        self.now = end;
        for (worker, offer) in self.offers.clone().into_iter().enumerate() {
            offer.into_iter().for_each(|offer| self.offer(worker, offer));
        }
        self.handle(Input::Step(Some(self.step())));
    }

    /// Lets workers do with what they are given what the test says, until nothing is left to do. Time passes as if they
    /// worked one after another.
    pub(crate) fn work(&mut self, mut act: impl FnMut(usize, &Assignment) -> Act) {
        let mut kept = VecDeque::new();
        let mut idle = 0;
        while idle < IDLE_MAX {
            let Some((to, given)) = self.given.pop_front() else {
                idle += 1;
                self.pass(500);
                continue;
            };
            idle = 0;
            let Some(worker) = self.workers.iter().position(|worker| worker.id() == to) else { continue };
            self.handle(Input::Started { from: to, attempts: vec![given.attempt] });
            match act(worker, &given) {
                Act::Keep => kept.push_back((to, given)),
                Act::Fail(reason, detail) => {
                    let attempt = given.attempt;
                    let failure = Failure { attempt, reason, detail: detail.to_owned(), missing: Vec::new() };
                    self.handle(Input::Failed { from: to, failures: vec![failure] });
                }
                Act::Do(wall_ms) => self.answer(worker, &given, given.key.as_bytes(), wall_ms),
                Act::Lie => self.answer(worker, &given, &worker.to_le_bytes(), 1),
            }
        }
        self.given.extend(kept);
    }

    fn answer(&mut self, worker: usize, given: &Assignment, result: &[u8], wall_ms: u64) {
        self.now = self.now + Duration::from_millis(wall_ms);
        let result = BlobRef { size: 1000, ..BlobRef::of(result) };
        let statement = Statement { key: given.key, result };
        let signed = SignedResults::sign(&self.workers[worker], MESH, vec![statement]).verify().unwrap();
        let item = ResultItem { attempt: given.attempt, statement, cpu_ms: wall_ms * 3 / 4, wall_ms };
        self.handle(Input::Results { items: vec![item], signed });
    }
}

/// Counts words of a text in chunks, merges them in groups, and all of them; and looks at the text beside that.
pub(crate) fn word_count(chunks: u64, redundancy: u8) -> JobSpec {
    let text =
        InputSpec { name: "text".to_owned(), blob: BlobRef { size: chunks << 20, ..BlobRef::of(b"text") } };
    let mut count = TaskSpec::new("count", "hash");
    count.each = Some(Each::Chunk { input: 0, bytes: 1 << 20, align: Align::Line });
    count.on_failure = OnFailure::Skip;
    count.redundancy = redundancy;
    let mut merge = TaskSpec::new("merge", "concat");
    merge.each = Some(Each::Output { task: 0, group: 4 });
    merge.when_missing = WhenMissing::Omit;
    let mut check = TaskSpec::new("check", "hash");
    check.sources = vec![Source::Input(0)];
    let mut total = TaskSpec::new("total", "concat");
    total.sources = vec![Source::Task(1)];
    total.after = vec![2];
    JobSpec {
        name: "word-count".to_owned(),
        nonce: 1,
        deadline_s: 3600,
        spot_check_per_mille: 0,
        inputs: vec![text],
        tasks: vec![count, merge, check, total],
        outputs: vec![
            OutputSpec { name: "words".to_owned(), task: 3 },
            OutputSpec { name: "sum".to_owned(), task: 2 },
        ],
    }
}
