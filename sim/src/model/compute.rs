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

mod ledger;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{self, Event, Output};
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::{Change, JobState};
use omnimesh_protocol::compute::wire::Frame;
use omnimesh_protocol::compute::worker::{self, Done, RunId};
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::log::Entry;
use omnimesh_protocol::{Hash, Outbox, Time};

use super::compute_facts::ComputeNotes;
use super::compute_jobs::Entries;
use super::link::Stream;
use super::node::{Ctx, Node, Timer};
use super::packet::{Packet, digest_of_bytes};
use super::random::mix;
use crate::scenario::Crypto;

/// After an input the shell looks so long for others before it writes and signs what there is.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
/// Who keeps the ledger compares it with another one so often.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Frames to the own node.
const AT_HOME: Duration = Duration::from_micros(10);

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
            Output::Ask { to, jobs } => self.send_frame(to, Frame::Ask(jobs), ctx),
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
            Frame::Ask(jobs) => self.work(worker::Input::Ask { from: id, jobs }, ctx),
            Frame::Has { job, keys } => self.drive(driver::Input::Has { from: id, job, keys }, ctx),
            // Blobs are names here; what they hold takes time on the way and nothing else.
            Frame::Contents(_) => {}
            Frame::Results { .. } => {}
        }
    }
}

/// What a driver has committed: who, which job, which task, with which inputs.
pub(super) type Committed = (u32, usize, TaskRef, Hash);
