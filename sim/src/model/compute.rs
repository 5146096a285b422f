//! Jobs at a simulated node: a worker, and, of those that keep the ledger, a driver.
//!
//! ```text
//!   world: submit ──► driver ──► Assign, Cancel ──► frames ──► worker ──► Run ──► fetches, then its time ──► Done
//!                     ▲    └──► Append ──► the log, or, without one, ▼
//!                     │           a write of the disk ─► all who keep the ledger; they compare what they have each second
//!                  entries ◄─────────────────────────────────┘
//! ```
//!
//! Tasks are not executed: each takes a time that follows from the seed, and its output is a hash of what it reads, so that it
//! is known what is right. Outputs are on the disk of who made or fetched them; one that nobody has who is up is missing.
//!
//! Who keeps the ledger is connected with all workers, as every node is with all others in a mesh of some hundred nodes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{self, Event, Output};
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::{Change, FailReason, JobState, Operation, Part, TaskState};
use omnimesh_protocol::compute::wire::{Assignment, Frame};
use omnimesh_protocol::compute::worker::{self, Done, RunId};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::log::{self, Entry, Record};
use omnimesh_protocol::{Hash, Outbox, Seq, Time};
use rand::RngExt;

use super::compute_facts::ComputeNotes;
use super::compute_jobs::{Entries, Role, truth};
use super::link::Stream;
use super::node::{Ctx, Node, Timer};
use super::packet::{Packet, digest_of_bytes};
use super::random::mix;
use crate::scenario::Crypto;

/// After an input the shell looks so long for others before it writes and signs what there is.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
/// Who keeps the ledger compares it with another one so often.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Asking all for an output that nobody has.
const SEARCH: Duration = Duration::from_millis(50);
/// Frames to the own node.
const AT_HOME: Duration = Duration::from_micros(10);
/// Outputs that a worker says it holds: the newest. Fewer than a node tells, which costs time with a thousand of them; who
/// has made an output is known from its result.
const HELD_MAX: usize = 4;
/// Tickets of the driver in the log: beyond those of the workload.
const TICKET: u64 = 1 << 40;
/// Entries in a frame.
const ENTRIES_MAX: usize = 64;

/// What goes between nodes for jobs.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    /// A frame between driver and worker, encoded.
    Frame(Bytes),
    /// Entries of an author, from this number on.
    Entries { author: u32, first: u64, entries: Entries },
    /// How many entries of each author the sender has.
    Heads(Box<[(u32, u64)]>),
}

impl Parcel {
    pub(super) fn size(&self) -> usize {
        // 200: header, tag and signature of an envelope.
        match self {
            Parcel::Frame(bytes) => bytes.len() + 3,
            Parcel::Entries { entries, .. } => entries.iter().map(|entry| entry.data.len() + 200).sum(),
            Parcel::Heads(heads) => heads.len() * 40 + 3,
        }
    }

    pub(super) fn digest(&self) -> u64 {
        match self {
            Parcel::Frame(bytes) => digest_of_bytes(bytes, bytes.len() as u64),
            Parcel::Entries { author, first, entries } => {
                entries.iter().fold(mix(u64::from(*author) ^ mix(*first)), |hash, entry| {
                    digest_of_bytes(&entry.data, mix(hash ^ entry.seq.0))
                })
            }
            Parcel::Heads(heads) => {
                heads.iter().fold(5, |hash, (author, count)| mix(hash ^ u64::from(*author) ^ mix(*count)))
            }
        }
    }
}

/// What a node keeps on disk.
#[derive(Debug, Default)]
pub(super) struct KeptJobs {
    /// Entries of each author, where nodes keep no log.
    logs: BTreeMap<u32, Vec<Entry>>,
    blobs: HashSet<Hash>,
}

/// What is done later.
#[derive(Debug)]
enum Later {
    Driver(driver::Timer),
    Worker(worker::Timer),
    Flush,
    Step,
    Compare,
    Local(Frame),
    Append(Bytes),
    Done(RunId, Done),
    Keep(BlobRef),
    Hear { of: u32, is_up: bool, is_death: bool },
}

/// The machines of a process.
#[derive(Debug)]
pub(super) struct ComputePart {
    worker: worker::State,
    driver: Option<Box<driver::State>>,
    later: BTreeMap<u32, Later>,
    next_later: u32,
    is_flushing: bool,
    streams: HashMap<u32, Stream>,
    /// What runs, and when it is done.
    running: BTreeMap<RunId, Option<u32>>,
    held: VecDeque<Hash>,
}

impl ComputePart {
    pub(super) fn ledger(&self) -> Option<&omnimesh_protocol::compute::ledger::State> {
        self.driver.as_deref().map(driver::State::ledger)
    }

    pub(super) fn add_stats(&self, notes: &mut ComputeNotes) {
        let stats = self.worker.stats();
        let counts = &mut notes.counts;
        counts.assigned += stats.assigned;
        counts.busy += stats.busy;
        counts.shared += stats.shared;
        counts.runs += stats.runs;
        counts.stopped += stats.stopped;
        counts.lost += self.running.len() as u64;
    }

    pub(super) fn check_invariants(&self) {
        self.worker.check_invariants();
        if let Some(driver) = &self.driver {
            driver.check_invariants();
        }
    }
}

impl Node {
    /// Starts driver and worker of a new process.
    pub(super) fn start_compute(&mut self, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let Some(settings) = &shared.compute else { return };
        let now = self.local(ctx.now);
        let mut out = Outbox::new();
        let identity = shared.identity(ctx.me);
        let worker = worker::State::new(settings.worker.clone(), identity, shared.mesh.id(), now, &mut out);
        let keeps = settings.keeps(ctx.me);
        let driver = keeps.then(|| Box::new(driver::State::new(settings.driver.clone(), shared.id(ctx.me))));
        let part = ComputePart {
            worker,
            driver,
            later: BTreeMap::new(),
            next_later: 0,
            is_flushing: false,
            streams: HashMap::new(),
            running: BTreeMap::new(),
            held: VecDeque::new(),
        };
        let Some(machines) = &mut self.machines else { return };
        machines.compute = Some(Box::new(part));
        for output in out.drain() {
            self.on_worker_output(output, ctx);
        }
        if keeps {
            for entry in self.stored_entries(ctx) {
                self.drive(driver::Input::Entry(entry), ctx);
            }
            for keeper in &settings.keepers {
                if *keeper != ctx.me && shared.up.contains(*keeper) {
                    self.drive(driver::Input::Up(shared.id(*keeper)), ctx);
                }
            }
            self.add_later(Later::Step, Duration::from_millis(10), ctx);
            self.add_later(Later::Compare, COMPARE_EVERY, ctx);
        }
        for keeper in &settings.keepers {
            if *keeper == ctx.me || shared.up.contains(*keeper) {
                self.work(worker::Input::Connected(shared.id(*keeper)), ctx);
            }
        }
    }

    /// The entries that are on the disk, each author's in order.
    fn stored_entries(&self, ctx: &Ctx<'_>) -> Vec<Entry> {
        let Some(settings) = &ctx.shared.compute else { return Vec::new() };
        if let Some(drive) = &self.drive
            && ctx.shared.log.is_some()
        {
            let records = drive.store.logs().flat_map(|(_, records)| records.flatten());
            let of_jobs = records.filter(|record| *record.category() == settings.category);
            return of_jobs.flat_map(|record| record.to_entries().collect::<Vec<_>>()).collect();
        }
        self.kept_jobs.iter().flat_map(|kept| kept.logs.values().flatten().cloned()).collect()
    }

    fn part(&mut self) -> Option<&mut ComputePart> {
        self.machines.as_mut()?.compute.as_deref_mut()
    }

    pub(super) fn compute_part(&self) -> Option<&ComputePart> {
        self.machines.as_ref()?.compute.as_deref()
    }

    pub(super) fn compute_stream(&mut self, to: u32) -> Stream {
        self.part().and_then(|part| part.streams.get(&to).copied()).unwrap_or_default()
    }

    pub(super) fn keep_compute_stream(&mut self, to: u32, stream: Stream) {
        if let Some(part) = self.part() {
            part.streams.insert(to, stream);
        }
    }

    fn add_later(&mut self, later: Later, after: Duration, ctx: &Ctx<'_>) -> Option<u32> {
        let at = self.local(ctx.now) + after;
        self.add_later_at(later, at)
    }

    fn add_later_at(&mut self, later: Later, at: Time) -> Option<u32> {
        let part = self.part()?;
        let number = part.next_later;
        part.next_later = part.next_later.wrapping_add(1);
        part.later.insert(number, later);
        self.set_timer(at, Timer::Compute(number));
        Some(number)
    }

    pub(super) fn on_compute_later(&mut self, number: u32, ctx: &mut Ctx<'_>) {
        let Some(later) = self.part().and_then(|part| part.later.remove(&number)) else { return };
        match later {
            Later::Driver(timer) => self.drive(driver::Input::Timer(timer), ctx),
            Later::Worker(timer) => self.work(worker::Input::Timer(timer), ctx),
            Later::Flush => {
                if let Some(part) = self.part() {
                    part.is_flushing = false;
                }
                self.drive(driver::Input::Flush, ctx);
                self.work(worker::Input::Flush, ctx);
            }
            Later::Step => {
                let step = self.mesh_step(ctx);
                self.drive(driver::Input::Step(step), ctx);
                self.add_later(Later::Step, ctx.shared.scenario.network.step_interval, ctx);
            }
            Later::Compare => self.compare(ctx),
            Later::Local(frame) => self.on_compute_frame(ctx.me, frame, ctx),
            Later::Append(payload) => self.write_entry(payload, ctx),
            Later::Done(run, done) => self.on_run_done(run, done, ctx),
            Later::Keep(blob) => {
                self.hold(blob.hash, ctx);
                self.drive(driver::Input::Holds(blob.hash), ctx);
            }
            Later::Hear { of, is_up, is_death } => self.on_news(of, is_up, is_death, ctx),
        }
    }

    /// The node will hear that another one is up or not.
    pub(super) fn hear_of(&mut self, of: u32, is_up: bool, is_death: bool, after_ns: u64, ctx: &mut Ctx<'_>) {
        self.add_later(Later::Hear { of, is_up, is_death }, Duration::from_nanos(after_ns), ctx);
        self.set_alarm(ctx);
    }

    fn on_news(&mut self, of: u32, is_up: bool, is_death: bool, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let Some(settings) = &shared.compute else { return };
        let links = &shared.links;
        let can_talk =
            shared.up.contains(of) && links.cut(ctx.me, of).is_none() && links.cut(of, ctx.me).is_none();
        let (id, keeps) = (shared.id(of), settings.keeps(of));
        // Connections end with a process, even if it is back by now; a partition that is over has ended none.
        let is_gone = !is_up && (is_death || !can_talk);
        if is_gone {
            if keeps {
                self.work(worker::Input::Disconnected(id), ctx);
            }
            self.drive(driver::Input::Gone(id), ctx);
            if keeps && !can_talk {
                self.drive(driver::Input::Down(id), ctx);
            }
        }
        if can_talk && keeps && (is_up || is_gone) {
            self.work(worker::Input::Connected(id), ctx);
            self.drive(driver::Input::Up(id), ctx);
        }
    }

    /// True if the job is in the ledger of this node.
    pub(super) fn knows_job(&self, job: &JobId) -> bool {
        self.compute_part().and_then(|part| part.ledger()?.job(job)).is_some()
    }

    pub(super) fn submit_job(&mut self, job: u32, spec: JobSpec, ctx: &mut Ctx<'_>) {
        self.drive(driver::Input::Submit { spec, ticket: Ticket(u64::from(job)) }, ctx);
        self.set_alarm(ctx);
    }

    fn drive(&mut self, input: driver::Input, ctx: &mut Ctx<'_>) {
        let now = self.local(ctx.now);
        let rng = &mut self.rng;
        let part = self.machines.as_mut().and_then(|machines| machines.compute.as_deref_mut());
        let Some(driver) = part.and_then(|part| part.driver.as_mut()) else { return };
        let mut out = Outbox::new();
        driver.handle(now, input, rng, &mut out);
        for output in out.drain() {
            self.on_driver_output(output, ctx);
        }
        self.want_flush(ctx);
    }

    fn work(&mut self, input: worker::Input, ctx: &mut Ctx<'_>) {
        let now = self.local(ctx.now);
        let rng = &mut self.rng;
        let part = self.machines.as_mut().and_then(|machines| machines.compute.as_deref_mut());
        let Some(part) = part else { return };
        let mut out = Outbox::new();
        part.worker.handle(now, input, rng, &mut out);
        for output in out.drain() {
            self.on_worker_output(output, ctx);
        }
        self.want_flush(ctx);
    }

    fn want_flush(&mut self, ctx: &Ctx<'_>) {
        let Some(part) = self.part() else { return };
        let driver_wants = part.driver.as_ref().is_some_and(|driver| driver.wants_flush());
        if !part.is_flushing && (driver_wants || part.worker.wants_flush()) {
            part.is_flushing = true;
            self.add_later(Later::Flush, FLUSH_AFTER, ctx);
        }
    }

    fn on_driver_output(&mut self, output: Output, ctx: &mut Ctx<'_>) {
        match output {
            Output::Append { ticket, payload } => self.append_operation(ticket, payload, ctx),
            Output::Assign { to, assignments } => self.send_frame(to, Frame::Assign(assignments), ctx),
            Output::Cancel { to, attempts } => self.send_frame(to, Frame::Cancel(attempts), ctx),
            Output::Keep { blob, holders } => {
                let there = holders.iter().filter_map(|holder| ctx.shared.find(holder));
                if there.filter(|holder| ctx.shared.up.contains(*holder)).count() > 0 {
                    let after = self.transfer(blob.size, ctx);
                    self.add_later(Later::Keep(blob), after, ctx);
                }
            }
            Output::Event(event) => self.on_driver_event(&event, ctx),
            Output::Finding(finding) => {
                if let Some(accused) = ctx.shared.find(&finding.accused) {
                    ctx.sink.record.compute.accused.insert(accused);
                }
            }
            Output::Timer { at, timer } => drop(self.add_later_at(Later::Driver(timer), at)),
            Output::Submitted { ticket, .. } => {
                let notes = &mut ctx.sink.record.compute;
                notes.submitted.entry(ticket.0).or_insert(ctx.now);
            }
            Output::Refused { .. } => ctx.sink.record.compute.refused += 1,
            // No log is cut here.
            Output::Accepted { .. } | Output::Replay => {}
        }
    }

    fn on_driver_event(&mut self, event: &Event, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        let notes = &mut ctx.sink.record.compute;
        match event {
            Event::Ledger(Change::Job { job, new, .. }) => {
                if let Some(number) = settings.number_of(job)
                    && *new != JobState::Running
                {
                    let at = notes.ended.entry(number).or_insert(ctx.now);
                    *at = (*at).min(ctx.now);
                }
            }
            Event::Driving(job) => {
                let own = settings.number_of(job).map(|number| settings.jobs[number].submitter);
                notes.counts.takeovers += u64::from(own != Some(ctx.me));
            }
            Event::Straggler { .. } => notes.counts.stragglers += 1,
            Event::Tie { .. } => notes.counts.ties += 1,
            Event::Restoring { .. } => notes.counts.restored += 1,
            Event::AttemptFailed { .. } => notes.counts.failed += 1,
            _ => {}
        }
    }

    /// Something is to be written to the ledger.
    fn append_operation(&mut self, ticket: Ticket, payload: Bytes, ctx: &mut Ctx<'_>) {
        self.note_again(&payload, ctx);
        let counts = &mut ctx.sink.record.compute.counts;
        counts.entries += 1;
        counts.entry_bytes += payload.len() as u64;
        let Some(settings) = &ctx.shared.compute else { return };
        if ctx.shared.log.is_some() {
            let (category, ticket) = (settings.category.clone(), Ticket(TICKET | ticket.0));
            return self.log(log::Input::Append { category, payload, ticket, replicas: 0 }, ctx);
        }
        let disk = &ctx.shared.scenario.disk;
        let spread = super::random::Draw::new(self.rng.random(), 0, 0).normal();
        let sync = disk.sync.mul_f64((disk.sync_sigma * spread).exp()).min(disk.sync_max);
        self.add_later(Later::Append(payload), sync, ctx);
    }

    /// Writes down what a driver commits that its ledger has.
    fn note_again(&self, payload: &[u8], ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        let Ok(Operation::Commit { job, commits, .. }) = Operation::decode(payload) else { return };
        let Some(number) = settings.number_of(&job) else { return };
        let view = self.compute_part().and_then(|part| part.ledger()?.job(&job));
        for commit in commits {
            let is_in_ledger = view.is_some_and(|view| {
                view.task(commit.task) == Some(TaskState::Succeeded)
                    && view.inputs(commit.task) == Some(commit.inputs)
            });
            if is_in_ledger {
                *ctx.sink.record.compute.again.entry(number).or_default() += 1;
            }
        }
    }

    /// An own entry is on the disk: writes down what it commits that an earlier one has committed.
    fn note_committed(&self, entry: &Entry, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        let Ok(Operation::Commit { job, commits, .. }) = Operation::decode(&entry.data) else { return };
        let Some(number) = settings.number_of(&job) else { return };
        let notes = &mut ctx.sink.record.compute;
        for commit in commits {
            if !notes.committed.insert((ctx.me, number, commit.task, commit.inputs)) {
                *notes.again.entry(number).or_default() += 1;
            }
        }
    }

    pub(super) fn on_compute_refused(&mut self, ticket: Ticket, ctx: &mut Ctx<'_>) {
        if ctx.shared.compute.is_some() && ticket.0 != u64::MAX && ticket.0 & TICKET != 0 {
            self.drive(driver::Input::AppendFailed { ticket: Ticket(ticket.0 ^ TICKET) }, ctx);
        }
    }

    pub(super) fn on_compute_record(&mut self, record: &Record, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        if *record.category() == settings.category && settings.keeps(ctx.me) {
            for entry in record.to_entries() {
                if entry.author == ctx.shared.id(ctx.me) {
                    self.note_committed(&entry, ctx);
                }
                self.drive(driver::Input::Entry(entry), ctx);
            }
        }
    }

    // The ledger where nodes keep no log.

    /// An entry is on the disk.
    fn write_entry(&mut self, payload: Bytes, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let Some(settings) = &shared.compute else { return };
        let Some(step) = self.mesh_step(ctx) else { return };
        let id = shared.id(ctx.me);
        let log = self.kept_jobs.get_or_insert_default().logs.entry(ctx.me).or_default();
        let seq = Seq(log.len() as u64 + 1);
        let entry = Entry {
            author: id,
            seq,
            prev: None,
            hash: Hash::of(&[id.as_bytes().as_slice(), &seq.0.to_le_bytes()].concat()),
            step,
            category: settings.category.clone(),
            timestamp_us: None,
            data: payload,
        };
        log.push(entry.clone());
        let entries: Entries = [entry.clone()].into();
        let me = ctx.me;
        for keeper in settings.keepers.iter().filter(|keeper| **keeper != me) {
            let parcel = Parcel::Entries { author: me, first: seq.0, entries: Entries::clone(&entries) };
            self.send(*keeper, Packet::Compute(parcel), ctx);
        }
        self.note_committed(&entry, ctx);
        self.drive(driver::Input::Entry(entry), ctx);
    }

    /// Tells another one what it has, which sends what is missing.
    fn compare(&mut self, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        self.add_later(Later::Compare, COMPARE_EVERY, ctx);
        if ctx.shared.log.is_some() {
            return;
        }
        let peer = settings.keepers[self.rng.random_range(0..settings.keepers.len())];
        if peer != ctx.me {
            let logs = self.kept_jobs.iter().flat_map(|kept| &kept.logs);
            let heads = logs.map(|(author, entries)| (*author, entries.len() as u64)).collect();
            self.send(peer, Packet::Compute(Parcel::Heads(heads)), ctx);
        }
    }

    fn on_heads(&mut self, from: u32, heads: &[(u32, u64)], ctx: &mut Ctx<'_>) {
        let mut missing = Vec::new();
        for (author, entries) in self.kept_jobs.iter().flat_map(|kept| &kept.logs) {
            let known = heads.iter().find(|(of, _)| of == author).map_or(0, |(_, count)| *count);
            let skip = usize::try_from(known).unwrap_or(usize::MAX);
            for (place, chunk) in entries.get(skip..).unwrap_or_default().chunks(ENTRIES_MAX).enumerate() {
                let first = known + (place * ENTRIES_MAX) as u64 + 1;
                missing.push(Parcel::Entries { author: *author, first, entries: chunk.to_vec().into() });
            }
        }
        for parcel in missing {
            self.send(from, Packet::Compute(parcel), ctx);
        }
    }

    fn on_entries(&mut self, author: u32, first: u64, entries: &[Entry], ctx: &mut Ctx<'_>) {
        let log = self.kept_jobs.get_or_insert_default().logs.entry(author).or_default();
        let mut news = Vec::new();
        for (seq, entry) in (first..).zip(entries) {
            // What comes before those in front of it is sent again when ledgers are compared.
            if seq == log.len() as u64 + 1 {
                log.push(entry.clone());
                news.push(entry.clone());
            }
        }
        for entry in news {
            self.drive(driver::Input::Entry(entry), ctx);
        }
    }

    // Frames.

    fn send_frame(&mut self, to: omnimesh_protocol::NodeId, frame: Frame, ctx: &mut Ctx<'_>) {
        match ctx.shared.find(&to) {
            Some(to) if to == ctx.me => drop(self.add_later(Later::Local(frame), AT_HOME, ctx)),
            Some(to) => self.send(to, Packet::Compute(Parcel::Frame(frame.encode())), ctx),
            None => {}
        }
    }

    pub(super) fn on_compute_parcel(&mut self, from: u32, parcel: Parcel, ctx: &mut Ctx<'_>) {
        match parcel {
            Parcel::Frame(bytes) => {
                let frame = Frame::decode(&bytes).expect("nobody garbles frames of jobs here");
                self.on_compute_frame(from, frame, ctx);
            }
            Parcel::Entries { author, first, entries } => self.on_entries(author, first, &entries, ctx),
            Parcel::Heads(heads) => self.on_heads(from, &heads, ctx),
        }
    }

    fn on_compute_frame(&mut self, from: u32, frame: Frame, ctx: &mut Ctx<'_>) {
        let id = ctx.shared.id(from);
        if let Some(signed) = frame.signed_results(ctx.shared.mesh.id(), id) {
            let Frame::Results { items, .. } = frame else { return };
            let signed = match ctx.shared.scenario.crypto {
                Crypto::Real => signed.verify(),
                Crypto::Skip => Some(signed.assume_verified()),
            };
            if let Some(signed) = signed {
                self.drive(driver::Input::Results { items, signed }, ctx);
            }
            return;
        }
        match frame {
            Frame::Offer(offer) => self.drive(driver::Input::Offer { from: id, offer }, ctx),
            Frame::Started(attempts) => self.drive(driver::Input::Started { from: id, attempts }, ctx),
            Frame::Failed(failures) => self.drive(driver::Input::Failed { from: id, failures }, ctx),
            Frame::Assign(assignments) => self.work(worker::Input::Assign { from: id, assignments }, ctx),
            Frame::Cancel(attempts) => self.work(worker::Input::Cancel { from: id, attempts }, ctx),
            Frame::Results { .. } => {}
        }
    }

    // Tasks.

    fn on_worker_output(&mut self, output: worker::Output, ctx: &mut Ctx<'_>) {
        match output {
            worker::Output::Run { run, assignment } => self.run_task(run, &assignment, ctx),
            worker::Output::Stop(run) => {
                if let Some(part) = self.part()
                    && let Some(Some(number)) = part.running.remove(&run)
                {
                    part.later.remove(&number);
                }
            }
            worker::Output::Send { to, frame } => self.send_frame(to, frame, ctx),
            worker::Output::Timer { at, timer } => drop(self.add_later_at(Later::Worker(timer), at)),
        }
    }

    fn transfer(&self, bytes: u64, ctx: &Ctx<'_>) -> Duration {
        let rate = ctx.shared.scenario.compute.as_ref().map_or(1, |compute| compute.fetch_bytes_per_s);
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX),
        )
    }

    /// What the inputs take to come, or which of them nobody has.
    fn fetch_inputs(&mut self, assignment: &Assignment, ctx: &mut Ctx<'_>) -> Result<Duration, Vec<Hash>> {
        let shared = ctx.shared;
        let Some(settings) = &shared.compute else { return Ok(Duration::ZERO) };
        let (mut bytes, mut way, mut missing, mut fetched) = (0_u64, 0, Vec::new(), Vec::new());
        let submitter = settings.number_of(&assignment.job).map(|number| settings.jobs[number].submitter);
        for part in assignment.parts.iter() {
            let Part::Blob { blob, from, to, .. } = part else { continue };
            if self.kept_jobs.as_ref().is_some_and(|kept| kept.blobs.contains(&blob.hash)) {
                continue;
            }
            let holder = if settings.is_input(&blob.hash) {
                submitter
            } else {
                let holders = shared.blobs.get(&blob.hash).into_iter().flatten().copied();
                let holder = holders
                    .filter(|holder| {
                        shared.up.contains(*holder) && shared.links.cut(*holder, ctx.me).is_none()
                    })
                    .min_by_key(|holder| mix(u64::from(*holder) ^ u64::from(ctx.me) << 32));
                fetched.extend(holder.map(|_| blob.hash));
                holder
            };
            match holder {
                Some(holder) if holder == ctx.me => {}
                Some(holder) => {
                    bytes = bytes.saturating_add(to.saturating_sub(*from));
                    way = way.max(2 * shared.links.latency(ctx.me, holder));
                }
                None => missing.push(blob.hash),
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        for hash in fetched {
            self.hold(hash, ctx);
        }
        Ok(self.transfer(bytes, ctx) + Duration::from_nanos(way))
    }

    fn run_task(&mut self, run: RunId, assignment: &Assignment, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let (Some(settings), Some(compute)) = (&shared.compute, &shared.scenario.compute) else { return };
        let Some(job) = settings.number_of(&assignment.job) else { return };
        let fetch = match self.fetch_inputs(assignment, ctx) {
            Ok(fetch) => fetch,
            Err(missing) => {
                let detail = "nobody has it".to_owned();
                let done = Done::Failed { reason: FailReason::BlobMissing, detail, missing };
                return self.done_after(run, done, SEARCH, ctx);
            }
        };
        let jitter = self.rng.random_range(0.95..1.05);
        let service = settings.service(job, assignment.task).mul_f64(settings.slowness(ctx.me) * jitter);
        let wall = fetch + service;
        let mut result = truth(assignment.task, &assignment.parts, compute.output_bytes);
        match settings.roles[ctx.me as usize] {
            Role::Honest => {}
            Role::Liar => result.hash = Hash::from_bytes(self.rng.random()),
            Role::Colluder => result.hash = Hash::of(result.hash.as_bytes()),
            Role::Staller => {
                if let Some(part) = self.part() {
                    part.running.insert(run, None);
                }
                return;
            }
        }
        let limit = Duration::from_millis(assignment.limits.wall_ms);
        let done = if service > limit {
            let detail = "it took longer than its limit".to_owned();
            Done::Failed { reason: FailReason::WallLimit, detail, missing: Vec::new() }
        } else {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Done::Output { result, cpu_ms: ms(service), wall_ms: ms(wall) }
        };
        self.done_after(run, done, wall.min(fetch + limit), ctx);
    }

    fn done_after(&mut self, run: RunId, done: Done, after: Duration, ctx: &mut Ctx<'_>) {
        let number = self.add_later(Later::Done(run, done), after, ctx);
        if let Some(part) = self.part() {
            part.running.insert(run, number);
        }
    }

    fn on_run_done(&mut self, run: RunId, done: Done, ctx: &mut Ctx<'_>) {
        if let Done::Output { result, .. } = &done {
            let mut word = [0; 8];
            word.copy_from_slice(&result.hash.as_bytes()[..8]);
            self.set_trace(u64::from_le_bytes(word));
            self.hold(result.hash, ctx);
        }
        if let Some(part) = self.part() {
            part.running.remove(&run);
            let held = part.held.iter().rev().copied().collect();
            self.work(worker::Input::Held(held), ctx);
        }
        self.work(worker::Input::Done { run, done }, ctx);
    }

    /// A blob is on the disk.
    fn hold(&mut self, hash: Hash, ctx: &mut Ctx<'_>) {
        if self.kept_jobs.get_or_insert_default().blobs.insert(hash) {
            ctx.sink.blobs.push((hash, ctx.me));
            if let Some(part) = self.part() {
                part.held.push_back(hash);
                if part.held.len() > HELD_MAX {
                    part.held.pop_front();
                }
            }
        }
    }
}

/// What a driver has committed: who, which job, which task, with which inputs.
pub(super) type Committed = (u32, usize, TaskRef, Hash);
