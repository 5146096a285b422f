//! The durable log of a simulated node: the machine, the registry that is folded from it, and the disk under both.
//!
//! ```text
//!   append ──► log::State ──► Write ──► a job of the disk, which takes its time ──► Written
//!                  ▲  └─────► Read, Find ──► a job ──► the store, or damage ──► Read, Damaged
//!                  │  └─► Fold, Stage, … ──► a job ──► checkpoints in the store ──► Folded, Staged, …
//!                  └── frames, gossip            Applied, Frozen, Jumped ──► registry::State
//! ```
//!
//! A process that dies takes the machine with it, and the disk stays: the next one is built from what the store finds,
//! as the node does it. What was being written then is on the disk or not, by chance or as a fault wants it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::log::{self, Change, Damaged, Event, MemoryStore, Output, StoreError, Token};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::projection::{Projection, Replay};
use omnimesh_protocol::registry;
use omnimesh_protocol::relay::{self, Unchecked};
use omnimesh_protocol::{MessageId, NodeId, Outbox, Seq, Step, Time};

use super::disk::{Armed, Drive, OF_DISK, pooled};
use super::link::nanos;
use super::log_checkpoint::{Work, damaged_at, work};
use super::node::{Ctx, Node, Timer};
use super::packet::Packet;
use super::random::{Draw, mix};
use crate::outcome::LogCounts;

/// What all nodes need to keep a log.
#[derive(Debug)]
pub(super) struct LogSettings {
    pub(super) config: log::Config,
    /// Where durable envelopes are gossiped.
    pub(super) gossiped_on: Channel,
    /// The categories of plain entries, and of those of the registry.
    pub(super) entries: Channel,
    pub(super) registry: Channel,
}

impl LogSettings {
    pub(super) fn new(config: log::Config) -> Self {
        let channel = |name| Channel::new(name).expect("a good name");
        LogSettings {
            config,
            gossiped_on: channel(log::CHANNEL),
            entries: channel("log"),
            registry: channel(registry::CATEGORY),
        }
    }
}

/// The log's machines in a process.
#[derive(Debug)]
pub(super) struct LogPart {
    state: log::State<u32>,
    pub(super) registry: registry::State,
    /// The step that the log was last told.
    told: Option<Step>,
    jobs: BTreeMap<u32, Job>,
    next_job: u32,
}

/// What is done later.
#[derive(Debug)]
pub(super) enum Job {
    Timer(log::Timer),
    Write {
        token: Token,
        changes: Vec<Change>,
    },
    /// From the first to the second, at most so many bytes.
    Read(Token, NodeId, [Seq; 2], usize),
    Find(Token, NodeId, Seq),
    /// A frame has left the queue.
    Sent {
        to: u32,
        bytes: usize,
    },
    Checkpoint(Work),
    /// All that is stored is compared with what was written.
    Verify,
}

/// What a node was asked to append.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) number: u32,
    pub(super) node: u32,
    pub(super) at: u64,
    pub(super) data: u64,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) number: u32,
    pub(super) at: u64,
    pub(super) result: Result<log::Appended, log::AppendError>,
}

/// A short name of a payload.
pub(super) fn data_hash(payload: &[u8]) -> u64 {
    let hash = blake3::hash(payload);
    let (word, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_le_bytes(*word)
}

impl Node {
    /// Starts the log of a new process from what is on the disk.
    pub(super) fn start_log(&mut self, may_have_written: bool, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let Some(settings) = &shared.log else { return };
        let now = self.local(ctx.now);
        let drive = self.drive.get_or_insert_with(|| Box::new(Drive::new(shared, ctx.me)));
        drive.dying = None;
        let (logs, damage) = drive.store.open();
        for damaged in &damage {
            drive.on_damage(damaged, &mut ctx.sink.record);
        }
        let registry = drive.store.registry();
        let checkpoints = drive.store.checkpoints().cloned().collect();
        let base = drive.store.base().cut.clone();
        let reached = drive.store.reached(&shared.id(ctx.me));
        let mut inputs: VecDeque<_> =
            drive.store.gaps().map(|author| log::Input::Kept(drive.store.kept(&author))).collect();
        let patterns = PatternGenerator::new(
            shared.mesh.secret().clone(),
            shared.validate.phase_interval,
            shared.validate.pattern_cache,
        );
        let start = log::Start { logs, may_have_written, reached, checkpoints, base };
        let mut out = Outbox::new();
        let identity = shared.identity(ctx.me);
        let config = settings.config.clone();
        let state = log::State::new(config, identity, &shared.mesh, patterns, start, now, &mut out);
        let part = LogPart { state, registry, told: None, jobs: BTreeMap::new(), next_job: 0 };
        if let Some(machines) = &mut self.machines {
            machines.log = Some(Box::new(part));
        }
        for output in out.drain() {
            self.on_log_output(output, &mut inputs, ctx);
        }
        self.log_all(inputs, ctx);
        self.relay(relay::Input::Subscribe(settings.gossiped_on.clone()), ctx);
        let verify = nanos(shared.scenario.disk.verify);
        if verify > 0 {
            let first = verify / 1_000 * (Draw::new(shared.seed, u64::from(ctx.me), OF_DISK).next() % 1_000);
            self.add_job(Job::Verify, first, ctx);
        }
    }

    /// The process dies: of what is being written, all is on disk or nothing.
    pub(super) fn drop_log(&mut self, part: LogPart, ctx: &mut Ctx<'_>) {
        if !ctx.shared.dishonest.contains(ctx.me) {
            ctx.sink.record.add_log_stats(&part.state.stats());
        }
        let Some(drive) = &mut self.drive else { return };
        drive.draws += 1;
        let mut draw = Draw::new(ctx.shared.seed ^ OF_DISK ^ mix(drive.draws), u64::from(ctx.me), 3);
        let survives = drive.dying.take().unwrap_or_else(|| draw.chance(0.5)) && drive.full.is_none();
        for job in part.jobs.into_values() {
            if let Job::Write { changes, .. } = job
                && survives
            {
                // What no longer fits, as damage was cut off meanwhile, is gone.
                let _ = drive.commit(&changes, ctx);
            }
        }
    }

    /// Gives the log an input, and works off what it wants.
    pub(super) fn log(&mut self, input: log::Input<u32>, ctx: &mut Ctx<'_>) {
        self.log_all(VecDeque::from([input]), ctx);
    }

    pub(super) fn log_all(&mut self, mut inputs: VecDeque<log::Input<u32>>, ctx: &mut Ctx<'_>) {
        while let Some(input) = inputs.pop_front() {
            let now = self.local(ctx.now);
            let (step, alive) = (self.mesh_step(ctx), self.alive());
            let mesh_time_us = self.mesh_time(ctx.now, ctx.shared).unwrap_or(0) / 1_000;
            let mut out = std::mem::take(&mut ctx.sink.log_out);
            let Some(part) = self.machines.as_mut().and_then(|machines| machines.log.as_mut()) else {
                return;
            };
            let rng = &mut self.rng;
            if step != part.told {
                part.told = step;
                if let Some(alive) = alive {
                    part.state.handle(now, log::Input::Members(alive), rng, &mut out);
                }
                part.state.handle(now, log::Input::Step(step), rng, &mut out);
            }
            part.state.handle(now, input, rng, &mut out);
            if inputs.is_empty() && part.state.wants_flush() {
                part.state.handle(now, log::Input::Flush { mesh_time_us }, rng, &mut out);
            }
            let outputs: Vec<_> = out.drain().collect();
            ctx.sink.log_out = out;
            for output in outputs {
                self.on_log_output(output, &mut inputs, ctx);
            }
        }
    }

    fn on_log_output(
        &mut self,
        output: Output<u32>,
        inputs: &mut VecDeque<log::Input<u32>>,
        ctx: &mut Ctx<'_>,
    ) {
        match output {
            Output::Send { to, frame } => {
                let bytes = frame.len();
                self.send(to, Packet::Log(frame), ctx);
                let left_at = self.uplink_free();
                if left_at > ctx.now {
                    self.add_job(Job::Sent { to, bytes }, left_at - ctx.now, ctx);
                } else {
                    inputs.push_back(log::Input::Sent { to, bytes });
                }
            }
            Output::Publish(record) => {
                self.relay(relay::Input::Publish(record.envelope().clone()), ctx);
            }
            Output::Verify { token, records } => {
                let check = |message: omnimesh_protocol::validate::Unverified| {
                    let id = message.envelope().id();
                    ctx.sink.verify(ctx.shared, id, message).map_err(|error| match error {
                        Unchecked::Refused(reason) => reason,
                        Unchecked::Shed => unreachable!("nothing is shed here"),
                    })
                };
                let results = records.into_iter().map(check).collect();
                inputs.push_back(log::Input::Verified { token, results });
            }
            Output::Write { token, changes } => self.write(token, changes, ctx),
            Output::Read { token, author, from, to, bytes_max } => {
                self.add_read(Job::Read(token, author, [from, to], bytes_max), ctx);
            }
            Output::Find { token, author, seq } => self.add_read(Job::Find(token, author, seq), ctx),
            Output::Timer { at, timer } => self.add_job_at(Job::Timer(timer), at),
            Output::Appended { ticket, appended } => note_answer(ticket, Ok(appended), ctx),
            Output::Refused { ticket, error } => {
                self.on_compute_refused(ticket, ctx);
                note_answer(ticket, Err(error), ctx);
            }
            Output::Event(event) => self.on_log_event(event, ctx),
            output => {
                if let Ok(work) = work(output) {
                    self.add_work(work, ctx);
                }
            }
        }
    }

    fn on_log_event(&mut self, event: Event<u32>, ctx: &mut Ctx<'_>) {
        if let Event::Applied { record, .. } = &event {
            self.on_compute_record(record, ctx);
        }
        let forgets = ctx.shared.scenario.sabotage.forgetful_registry && ctx.me % 3 == 1;
        let Some(part) = self.machines.as_mut().and_then(|machines| machines.log.as_mut()) else { return };
        match event {
            Event::Applied { record, .. } if forgets && record.first().0.is_multiple_of(2) => {}
            Event::Applied { record, .. } => part.registry.apply_record(&record, &mut Outbox::new()),
            Event::Frozen { proof } => {
                let author = proof.author();
                let head = part.state.head(&author).map_or(log::Head::EMPTY, |head| head.head);
                let replay = part.registry.cut(author, proof.end_at(head), &mut Outbox::new());
                if let (Replay::Needed, Some(drive)) = (replay, &self.drive) {
                    drive.store.replay(&mut part.registry);
                }
            }
            Event::Jumped { logs } => {
                if logs.iter().any(|(author, ..)| part.registry.is_cut(author)) {
                    // What was taken back of a log counts again as far as the checkpoint covers it.
                    part.registry = registry::State::new();
                }
                if let Some(drive) = &self.drive {
                    drive.store.replay(&mut part.registry);
                }
            }
            Event::CaughtUp(report) if !ctx.shared.dishonest.contains(ctx.me) => {
                let counts: &mut LogCounts = &mut ctx.sink.record.log;
                counts.catch_ups += 1;
                counts.caught_up += report.entries;
            }
            _ => {}
        }
    }

    fn write(&mut self, token: Token, changes: Vec<Change>, ctx: &mut Ctx<'_>) {
        let me = ctx.shared.id(ctx.me);
        let mut bytes = 0;
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|change| {
                if let Change::Append(record) = &change {
                    bytes += record.as_bytes().len();
                    if record.author() == me {
                        // Where signatures are not checked, this is what makes it genuine.
                        ctx.sink.noise.push((record.envelope().id(), ctx.me));
                    }
                }
                pooled(change, &mut ctx.sink.pool)
            })
            .collect();
        let appends = changes.iter().any(|change| matches!(change, Change::Append(_)));
        let Some(drive) = &mut self.drive else { return };
        let takes = drive.takes(Some(bytes), ctx.shared, ctx.me, &mut ctx.sink.record);
        let armed = if appends { drive.armed.take() } else { None };
        if let Some(Armed { fault, survives }) = armed {
            // It is never answered: the process is taken down as soon as the window is over.
            drive.dying = Some(survives);
            ctx.sink.deaths.push((ctx.me, fault));
        }
        let is_early = ctx.shared.scenario.sabotage.early_answers;
        let job = Job::Write { token, changes };
        if armed.is_some() && !is_early {
            self.keep_job(job);
        } else {
            self.add_job(job, if is_early { 1 } else { takes }, ctx);
        }
    }

    fn add_read(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        let Some(drive) = &mut self.drive else { return };
        let takes = drive.takes(None, ctx.shared, ctx.me, &mut ctx.sink.record);
        self.add_job(job, takes, ctx);
    }

    pub(super) fn add_job(&mut self, job: Job, after_ns: u64, ctx: &Ctx<'_>) {
        let at = self.local(ctx.now) + std::time::Duration::from_nanos(after_ns);
        self.add_job_at(job, at);
    }

    fn add_job_at(&mut self, job: Job, at: Time) {
        if let Some(number) = self.keep_job(job) {
            self.set_timer(at, Timer::Log(number));
        }
    }

    fn keep_job(&mut self, job: Job) -> Option<u32> {
        let part = self.machines_log()?;
        let number = part.next_job;
        part.next_job = part.next_job.wrapping_add(1);
        part.jobs.insert(number, job);
        Some(number)
    }

    /// Something that takes time is done.
    pub(super) fn on_log_job(&mut self, number: u32, ctx: &mut Ctx<'_>) {
        let Some(job) = self.machines_log().and_then(|part| part.jobs.remove(&number)) else { return };
        match job {
            Job::Timer(timer) => self.log(log::Input::Timer(timer), ctx),
            Job::Sent { to, bytes } => self.log(log::Input::Sent { to, bytes }, ctx),
            Job::Write { token, changes } => self.on_written(token, &changes, ctx),
            Job::Read(token, author, [from, to], bytes_max) => {
                let Some(drive) = &self.drive else { return };
                let read = if ctx.shared.scenario.sabotage.trusting_disks {
                    Ok(drive.store.unchecked(&author, from, to))
                } else {
                    drive.store.read(&author, from, to, bytes_max)
                };
                self.on_read(token, read, ctx);
            }
            Job::Find(token, author, seq) => {
                let Some(drive) = &self.drive else { return };
                let found = drive.store.find(&author, seq);
                self.on_read(token, found.map(|found| found.into_iter().collect()), ctx);
            }
            Job::Checkpoint(work) => self.on_work(work, ctx),
            Job::Verify => {
                let Some(drive) = &mut self.drive else { return };
                let authors: Vec<NodeId> = drive.store.logs().map(|(author, _)| *author).collect();
                let mut inputs = VecDeque::new();
                for author in authors {
                    if let Err(damaged) = drive.store.verify(&author) {
                        let stored = drive.on_damage(&damaged, &mut ctx.sink.record);
                        inputs.push_back(log::Input::Damaged(stored));
                    }
                }
                self.log_all(inputs, ctx);
                self.add_job(Job::Verify, nanos(ctx.shared.scenario.disk.verify), ctx);
            }
        }
    }

    fn on_written(&mut self, token: Token, changes: &[Change], ctx: &mut Ctx<'_>) {
        let Some(drive) = &mut self.drive else { return };
        let result = match drive.full {
            Some(fault) => {
                ctx.sink.record.faults[fault] += 1;
                Err(StoreError::Full)
            }
            None if drive.dying == Some(false) => Ok(()),
            None => drive.commit(changes, ctx),
        };
        // A record that had been damaged may be there again.
        let kept: Vec<_> =
            drive.store.gaps().map(|author| log::Input::Kept(drive.store.kept(&author))).collect();
        let written = log::Input::Written { token, result };
        self.log_all(std::iter::once(written).chain(kept).collect(), ctx);
    }

    fn on_read(&mut self, token: Token, read: Result<Vec<Bytes>, Damaged>, ctx: &mut Ctx<'_>) {
        match read {
            Ok(records) => {
                let is_honest = !ctx.shared.dishonest.contains(ctx.me);
                for bytes in &records {
                    if is_honest && !ctx.sink.pool.contains_key(&MessageId::of(bytes)) {
                        ctx.sink.record.served_unwritten.note(ctx.me, ctx.now);
                    }
                }
                self.log(log::Input::Read { token, result: Ok(records) }, ctx);
            }
            Err(damaged) => {
                let Some(drive) = &mut self.drive else { return };
                let stored = drive.on_damage(&damaged, &mut ctx.sink.record);
                let result = Err(damaged_at(&damaged));
                let inputs = [log::Input::Read { token, result }, log::Input::Damaged(stored)];
                self.log_all(inputs.into(), ctx);
            }
        }
    }

    // What can be seen of it.

    pub(super) fn machines_log(&mut self) -> Option<&mut LogPart> {
        self.machines.as_mut()?.log.as_deref_mut()
    }

    pub(super) fn store(&self) -> Option<&MemoryStore> {
        self.drive.as_ref().map(|drive| &drive.store)
    }

    pub(super) fn own_log_is_frozen(&mut self, ctx: &Ctx<'_>) -> bool {
        let me = ctx.shared.id(ctx.me);
        self.machines_log().is_some_and(|part| part.state.proof(&me).is_some())
    }
}

fn note_answer(ticket: Ticket, result: Result<log::Appended, log::AppendError>, ctx: &mut Ctx<'_>) {
    if let Ok(number) = u32::try_from(ticket.0) {
        ctx.sink.record.answered.push(Answered { number, at: ctx.now, result });
    }
}

impl LogPart {
    pub(super) fn state(&self) -> &log::State<u32> {
        &self.state
    }

    /// Bytes that wait for their place or to be written.
    pub(super) fn buffered(&self) -> u64 {
        let stats = self.state.stats();
        (stats.waiting_bytes + stats.write_bytes) as u64
    }

    pub(super) fn registry(&self) -> &registry::State {
        &self.registry
    }
}
