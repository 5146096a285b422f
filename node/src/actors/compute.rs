//! Compute: the shell of [`omnimesh_protocol::compute`], driver and worker of a node.
//!
//! ```text
//!   LogActor ── entries ──► driver ── Assign ──► worker of this node, streams to others
//!      ▲                      │ ▲                   │
//!      └── commits, leases ───┘ └── Results ────────┤ Run ──► inputs from BlobActor ──► a thread that may block
//!                                                   └── Done ◄── output on disk ◄─────── operation, program
//! ```
//!
//! What both halves want written or sent is collected until the mailbox is empty: many small tasks share an entry of the
//! log, and a signature.

mod requests;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{self, Event as JobChange, Finding, Refusal};
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::compute::ledger::{self, CATEGORY, Change as LedgerChange};
use omnimesh_protocol::compute::wire::{Assignment, BATCH_MAX, DecodeError, Failure, Frame};
use omnimesh_protocol::compute::worker::{self, Done, RunId};
use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::log::checkpoint::Base;
use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Outbox, Step};
use rand_chacha::ChaCha20Rng;
use tokio::sync::{mpsc, oneshot};

use super::blob::{BlobActor, Get};
use super::gossip::{self, lock};
use super::log::{Append, Change, LogActor, Watch};
use super::members::Streams;
use super::projection::{self, Batch, Kept, read_all};
use super::{Common, MAILBOX, Mailbox};
use crate::clock::SharedClock;
use crate::compute::{Cancel, Context as Operations};
use crate::feed::{FeedItem, FeedSender};
use crate::job::{History, JobError, JobEvent, Seen};
use crate::store::blob::BlobStore;
use crate::store::log::LogStore;
use crate::swarm::{Class, Inbound, peer};

pub(crate) use requests::{Begin, CancelJob, Look, Retry, Standing, Submit, WatchJobs};

/// How often it is looked which step it is.
const STEP_LOOK: Duration = Duration::from_millis(200);
/// How often the ledger is kept, so that a start need not read the whole log.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// Entries since the last snapshot that make another one worth its while.
const SNAPSHOT_ENTRIES: u64 = 1_000;
/// How long a submission waits for another node to have the job on disk. Default: guess.
const COPY_TIMEOUT: Duration = Duration::from_secs(5);
/// Blobs that drivers are told of: those that came last.
const HELD: usize = 64;
/// Bytes of assignments in one frame, about: less than the longest frame, so that no stream is held up by one.
const ASSIGN_BYTES: usize = 256 << 10;

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) driver: driver::Config,
    pub(crate) worker: worker::Config,
    pub(crate) identity: Identity,
    pub(crate) mesh: Mesh,
    pub(crate) log: Arc<LogStore>,
    pub(crate) blobs: Arc<BlobStore>,
    pub(crate) operations: Operations,
    /// How many nodes beside the submitter's keep the inputs of a job.
    pub(crate) input_copies: usize,
}

/// An answer that waits for the driver.
#[derive(Debug)]
enum Answer {
    Submitted {
        answer: oneshot::Sender<Result<JobId, JobError>>,
        /// Whether another node has it on disk, or there is none that could.
        is_copied: bool,
        job: Option<JobId>,
    },
    Accepted(oneshot::Sender<Result<(), JobError>>),
}

/// A task that is being done.
#[derive(Debug)]
enum Running {
    /// Its inputs are on their way.
    Fetching(SpawnHandle),
    Working(Cancel),
}

#[derive(Debug)]
pub(crate) struct ComputeActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    log: WeakAddr<LogActor>,
    blobs: WeakAddr<BlobActor>,
    driver: driver::State,
    driver_out: Outbox<driver::Output>,
    worker: worker::State,
    worker_out: Outbox<worker::Output>,
    rng: ChaCha20Rng,
    peers: Streams,
    running: BTreeMap<RunId, Running>,
    /// Outputs and inputs that came last.
    held: VecDeque<Hash>,
    history: History,
    watchers: Vec<FeedSender<JobEvent>>,
    answers: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    /// The submission that the driver is given just now.
    submitting: Option<Ticket>,
    step: Option<Step>,
    is_flushing: bool,
    unsaved: u64,
    inbound: Arc<Mutex<Option<mpsc::Receiver<Inbound>>>>,
    /// Counts the machines, so that timers and answers for an earlier one are known.
    life: u64,
}

impl ComputeActor {
    /// With the ledger as it was loaded.
    pub(crate) fn new(
        common: Common,
        settings: Settings,
        clock: SharedClock,
        ledger: ledger::State,
        (log, blobs): (WeakAddr<LogActor>, WeakAddr<BlobActor>),
    ) -> Self {
        let me = settings.identity.id();
        let mut worker_out = Outbox::new();
        let worker = Self::new_worker(&common, &settings, &mut worker_out);
        let mut driver = driver::State::new(settings.driver.clone(), me);
        driver.restore(ledger);
        ComputeActor {
            common,
            settings,
            clock,
            log,
            blobs,
            driver,
            driver_out: Outbox::new(),
            worker,
            worker_out,
            rng: super::rng(),
            peers: Streams::default(),
            running: BTreeMap::new(),
            held: VecDeque::new(),
            history: History::default(),
            watchers: Vec::new(),
            answers: BTreeMap::new(),
            next_ticket: 0,
            submitting: None,
            step: None,
            is_flushing: false,
            unsaved: 0,
            inbound: Arc::default(),
            life: 0,
        }
    }

    fn new_worker(common: &Common, settings: &Settings, out: &mut Outbox<worker::Output>) -> worker::State {
        let identity = settings.identity.clone();
        worker::State::new(settings.worker.clone(), identity, settings.mesh.id(), common.now(), out)
    }

    fn me(&self) -> NodeId {
        self.settings.identity.id()
    }

    /// Gives the driver an input, and carries out what comes of it.
    fn drive(&mut self, input: driver::Input, ctx: &mut Context<Self>) {
        self.drive_all(std::iter::once(input), ctx);
    }

    fn drive_all(&mut self, inputs: impl Iterator<Item = driver::Input>, ctx: &mut Context<Self>) {
        let now = self.common.now();
        self.common.clone().guard("compute", ctx, || {
            inputs.for_each(|input| self.driver.handle(now, input, &mut self.rng, &mut self.driver_out));
        });
        self.carry_out(ctx);
    }

    /// Gives the worker an input, and carries out what comes of it.
    fn work(&mut self, input: worker::Input, ctx: &mut Context<Self>) {
        self.give_worker(input, ctx);
        self.carry_out(ctx);
    }

    fn give_worker(&mut self, input: worker::Input, ctx: &mut Context<Self>) {
        let now = self.common.now();
        self.common.clone().guard("compute", ctx, || {
            self.worker.handle(now, input, &mut self.rng, &mut self.worker_out);
        });
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        loop {
            let driven: Vec<_> = self.driver_out.drain().collect();
            let worked: Vec<_> = self.worker_out.drain().collect();
            if driven.is_empty() && worked.is_empty() {
                break;
            }
            driven.into_iter().for_each(|output| self.on_driver(output, ctx));
            worked.into_iter().for_each(|output| self.on_worker(output, ctx));
        }
        if !self.is_flushing && (self.driver.wants_flush() || self.worker.wants_flush()) {
            self.is_flushing = true;
            ctx.notify(Flush);
        }
    }

    fn on_driver(&mut self, output: driver::Output, ctx: &mut Context<Self>) {
        match output {
            driver::Output::Append { ticket, payload } => self.append(ticket, payload, ctx),
            driver::Output::Submitted { ticket, job } => self.on_submitted(ticket, job),
            driver::Output::Accepted { ticket } => {
                if let Some(Answer::Accepted(answer)) = self.answers.remove(&ticket) {
                    let _ = answer.send(Ok(()));
                }
            }
            driver::Output::Refused { ticket, reason } => self.refuse(ticket, reason),
            driver::Output::Assign { to, assignments } => self.assign(to, assignments, ctx),
            driver::Output::Cancel { to, attempts } if to == self.me() => {
                self.give_worker(worker::Input::Cancel { from: to, attempts }, ctx);
            }
            driver::Output::Cancel { to, attempts } => {
                for attempts in attempts.chunks(BATCH_MAX) {
                    self.send(&to, &Frame::Cancel(attempts.to_vec()));
                }
            }
            driver::Output::Keep { blob, .. } => self.keep(blob.hash, ctx),
            driver::Output::Event(event) => self.on_event(&event, ctx),
            driver::Output::Finding(finding) => self.on_finding(&finding),
            driver::Output::Replay => self.replay(ctx),
            driver::Output::Timer { at, timer } => {
                let life = self.life;
                ctx.run_later(self.common.until(at), move |actor, ctx| {
                    if actor.life == life {
                        actor.drive(driver::Input::Timer(timer), ctx);
                    }
                });
            }
        }
    }

    fn on_worker(&mut self, output: worker::Output, ctx: &mut Context<Self>) {
        match output {
            worker::Output::Run { run, assignment } => self.run(run, assignment, ctx),
            worker::Output::Stop(run) => match self.running.remove(&run) {
                Some(Running::Fetching(fetching)) => drop(ctx.cancel_future(fetching)),
                Some(Running::Working(cancel)) => cancel.cancel(),
                None => {}
            },
            worker::Output::Send { to, frame } if to == self.me() => self.on_frame(to, frame, ctx),
            worker::Output::Send { to, frame } => drop(self.send(&to, &frame)),
            worker::Output::Timer { at, timer } => {
                let life = self.life;
                ctx.run_later(self.common.until(at), move |actor, ctx| {
                    if actor.life == life {
                        actor.work(worker::Input::Timer(timer), ctx);
                    }
                });
            }
        }
    }

    /// What is shed is repeated: offers with the next heartbeat, results when the driver asks again.
    fn send(&self, to: &NodeId, frame: &Frame) -> bool {
        self.peers.send(to, Class::Own, frame.encode())
    }

    fn assign(&mut self, to: NodeId, assignments: Vec<Assignment>, ctx: &mut Context<Self>) {
        if to == self.me() {
            return self.give_worker(worker::Input::Assign { from: to, assignments }, ctx);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for assignment in assignments {
            let more = assignment.bytes();
            if !batch.is_empty() && (batch.len() >= BATCH_MAX || bytes + more > ASSIGN_BYTES) {
                self.send_assignments(to, std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += more;
            batch.push(assignment);
        }
        if !batch.is_empty() {
            self.send_assignments(to, batch);
        }
    }

    /// A worker that cannot be sent anything gets nothing to do.
    fn send_assignments(&mut self, to: NodeId, assignments: Vec<Assignment>) {
        let attempts: Vec<_> = assignments.iter().map(|assignment| assignment.attempt).collect();
        if self.send(&to, &Frame::Assign(assignments)) {
            return;
        }
        let failed = |attempt| Failure {
            attempt,
            reason: FailReason::Unavailable,
            detail: "it cannot be reached, or reads too slowly".to_owned(),
            missing: Vec::new(),
        };
        let failures = attempts.into_iter().map(failed).collect();
        let (now, input) = (self.common.now(), driver::Input::Failed { from: to, failures });
        self.driver.handle(now, input, &mut self.rng, &mut self.driver_out);
    }

    /// Appends to the log. What is there comes back as a change; only a refusal is told from here.
    fn append(&mut self, ticket: Ticket, payload: Bytes, ctx: &mut Context<Self>) {
        let submission = self.submitting;
        let replicas = usize::from(submission.is_some() && self.peers.nodes().next().is_some());
        let category = Channel::new(CATEGORY).expect("a good name");
        let log = self.log.upgrade();
        let append = async move {
            match log {
                None => Err(super::log::LogError::Stopped),
                Some(log) if replicas == 0 => Append::to(&log, category, payload, 0).await.map(drop),
                Some(log) => {
                    let copied = Append::to(&log, category, payload, replicas);
                    // It is in this node's log then, or the driver hears nothing of it.
                    let copied = tokio::time::timeout(COPY_TIMEOUT, copied).await;
                    copied.map_or(Ok(()), |appended| appended.map(drop))
                }
            }
        };
        let life = self.life;
        ctx.spawn(append.into_actor(self).map(move |appended, actor, ctx| {
            if actor.life != life {
                return;
            }
            match (appended, submission) {
                (Ok(()), Some(submission)) => actor.on_copied(submission),
                (Ok(()), None) => {}
                (Err(error), submission) => {
                    tracing::warn!(%error, "the log does not take what a job needs");
                    // It may be there all the same, and only its copies are not.
                    submission.into_iter().for_each(|submission| actor.on_copied(submission));
                    actor.drive(driver::Input::AppendFailed { ticket }, ctx);
                }
            }
        }));
    }

    fn on_copied(&mut self, ticket: Ticket) {
        if let Some(Answer::Submitted { is_copied, .. }) = self.answers.get_mut(&ticket) {
            *is_copied = true;
            self.answer_submission(ticket);
        }
    }

    fn on_submitted(&mut self, ticket: Ticket, submitted: JobId) {
        if let Some(Answer::Submitted { job, is_copied, .. }) = self.answers.get_mut(&ticket) {
            *job = Some(submitted);
            // Submitted before: there is nothing to wait for.
            *is_copied |= self.submitting == Some(ticket);
            self.answer_submission(ticket);
        }
    }

    fn answer_submission(&mut self, ticket: Ticket) {
        let is_ready = matches!(
            self.answers.get(&ticket),
            Some(Answer::Submitted { is_copied: true, job: Some(_), .. })
        );
        if is_ready
            && let Some(Answer::Submitted { answer, job: Some(job), .. }) = self.answers.remove(&ticket)
        {
            let _ = answer.send(Ok(job));
        }
    }

    fn refuse(&mut self, ticket: Ticket, reason: Refusal) {
        match self.answers.remove(&ticket) {
            Some(Answer::Submitted { answer, .. }) => drop(answer.send(Err(reason.into()))),
            Some(Answer::Accepted(answer)) => drop(answer.send(Err(reason.into()))),
            None => {}
        }
    }

    fn take_ticket(&mut self, answer: Answer) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.answers.insert(ticket, answer);
        ticket
    }

    fn submit(
        &mut self,
        spec: JobSpec,
        answer: oneshot::Sender<Result<JobId, JobError>>,
        ctx: &mut Context<Self>,
    ) {
        let ticket = self.take_ticket(Answer::Submitted { answer, is_copied: false, job: None });
        self.submitting = Some(ticket);
        self.drive(driver::Input::Submit { spec, ticket }, ctx);
        self.submitting = None;
    }

    /// Has a blob here, from other nodes if need be.
    fn keep(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(blobs) = self.blobs.upgrade() else { return };
        let life = self.life;
        let got = async move { Get::from(&blobs, hash).await };
        ctx.spawn(got.into_actor(self).map(move |got, actor, ctx| match got {
            Ok(_) if actor.life == life => {
                actor.note_held(hash, ctx);
                actor.drive(driver::Input::Holds(hash), ctx);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a blob of a job is not kept here"),
        }));
    }

    /// Tells drivers what is here, so that they send tasks to where their inputs are.
    fn note_held(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        if self.held.contains(&hash) {
            return;
        }
        self.held.push_front(hash);
        self.held.truncate(HELD);
        let held = self.held.iter().copied().collect();
        self.give_worker(worker::Input::Held(held), ctx);
    }

    fn on_event(&mut self, event: &JobChange, ctx: &mut Context<Self>) {
        if let JobChange::Ledger(LedgerChange::Submitted(job)) = event {
            self.copy_inputs(job, ctx);
        }
        if let Some(event) = self.history.record(self.common.now(), self.step, event) {
            self.watchers.retain(|watcher| watcher.offer(event.clone(), 512).is_ok());
        }
    }

    /// Keeps the inputs of a job, if this node is among the first that would take it over.
    fn copy_inputs(&mut self, job: &JobId, ctx: &mut Context<Self>) {
        let Some(view) = self.driver.ledger().job(job) else { return };
        let (me, submitter) = (self.me(), view.submitter());
        let mine = job.rendezvous(&me);
        let before =
            self.peers.nodes().filter(|node| *node != submitter && job.rendezvous(node) > mine).count();
        if submitter == me || before >= self.settings.input_copies || view.is_finished() {
            return;
        }
        let inputs: Vec<BlobRef> = view.spec().inputs.iter().map(|input| input.blob).collect();
        inputs.into_iter().for_each(|blob| self.keep(blob.hash, ctx));
    }

    fn on_finding(&mut self, finding: &Finding) {
        let Finding { job, task, accused, evidence } = finding;
        let proof = if evidence.is_some() { ", which others contradict" } else { "" };
        let detail = format!("{accused} has signed a result of task {task} of job {job}{proof}");
        tracing::warn!("{detail}");
        self.common.observe(vec![Event::Error { kind: "wrong_result", detail }]);
    }

    /// Gives the driver all entries once more. What happens meanwhile waits.
    fn replay(&mut self, ctx: &mut Context<Self>) {
        let batches = read_all(Arc::clone(&self.settings.log)).into_actor(self);
        let batches = batches.map(|batch, actor, ctx| match batch {
            Ok(Batch { records, damage, .. }) => {
                let entries = records.iter().flat_map(|record| record.to_entries().collect::<Vec<_>>());
                actor.drive_all(entries.map(driver::Input::Entry), ctx);
                projection::tell_log(&actor.log, damage, actor, ctx);
            }
            Err(error) => tracing::error!(%error, "the jobs could not be read anew"),
        });
        ctx.wait(batches.finish());
    }

    fn on_change(&mut self, change: FeedItem<Change>, ctx: &mut Context<Self>) {
        match change {
            FeedItem::Next(Change::Applied(entries)) => {
                self.unsaved += entries.len() as u64;
                self.drive_all(entries.iter().cloned().map(driver::Input::Entry), ctx);
            }
            FeedItem::Next(Change::Frozen { author, end }) => {
                self.drive(driver::Input::Cut { author, end }, ctx);
            }
            FeedItem::Next(Change::Jumped(authors)) => {
                if authors.iter().any(|author| self.driver.ledger().is_cut(author)) {
                    // What was taken back of a log counts again as far as the checkpoint covers it.
                    self.begin_anew(ledger::State::new(), ctx);
                }
                self.replay(ctx);
            }
            FeedItem::Lagged(_) => self.replay(ctx),
        }
    }

    /// Starts both machines anew; members are told again.
    fn begin_anew(&mut self, ledger: ledger::State, ctx: &mut Context<Self>) {
        self.life += 1;
        for (_, running) in std::mem::take(&mut self.running) {
            match running {
                Running::Fetching(fetching) => drop(ctx.cancel_future(fetching)),
                Running::Working(cancel) => cancel.cancel(),
            }
        }
        // Dropping the answers tells those who wait.
        self.answers.clear();
        (self.driver_out, self.worker_out) = (Outbox::new(), Outbox::new());
        self.driver = driver::State::new(self.settings.driver.clone(), self.me());
        self.driver.restore(ledger);
        self.worker = Self::new_worker(&self.common, &self.settings, &mut self.worker_out);
        self.step = None;
        self.introduce(ctx);
    }

    /// Tells both machines who is there.
    fn introduce(&mut self, ctx: &mut Context<Self>) {
        let me = self.me();
        self.work(worker::Input::Connected(me), ctx);
        let nodes: Vec<NodeId> = self.peers.nodes().collect();
        for node in nodes {
            self.work(worker::Input::Connected(node), ctx);
            self.drive(driver::Input::Up(node), ctx);
        }
    }

    fn look_at_step(&mut self, ctx: &mut Context<Self>) {
        let step = self.clock.step(self.common.now());
        if step != self.step {
            self.step = step;
            self.drive(driver::Input::Step(step), ctx);
        }
    }

    fn on_bytes(&mut self, from: NodeId, bytes: &[u8], ctx: &mut Context<Self>) {
        match Frame::decode(bytes) {
            Ok(frame) => self.on_frame(from, frame, ctx),
            Err(DecodeError::UnknownKind(_)) => {}
            Err(error) => self.send_away(from, error.to_string()),
        }
    }

    fn send_away(&self, from: NodeId, reason: String) {
        let from = peer::peer_id(&from);
        self.common.observe(vec![Event::BadFrame { from, stream: "compute", reason }]);
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, super::swarm::Disconnect(from));
    }

    fn on_frame(&mut self, from: NodeId, frame: Frame, ctx: &mut Context<Self>) {
        let signed = frame.signed_results(self.settings.mesh.id(), from);
        match frame {
            Frame::Offer(offer) => self.drive(driver::Input::Offer { from, offer }, ctx),
            Frame::Assign(assignments) => self.work(worker::Input::Assign { from, assignments }, ctx),
            Frame::Started(attempts) => self.drive(driver::Input::Started { from, attempts }, ctx),
            Frame::Results { items, .. } => match signed.and_then(|signed| signed.verify()) {
                Some(signed) => self.drive(driver::Input::Results { items, signed }, ctx),
                None => self.send_away(from, "results are not signed by who sent them".to_owned()),
            },
            Frame::Failed(failures) => self.drive(driver::Input::Failed { from, failures }, ctx),
            Frame::Cancel(attempts) => self.work(worker::Input::Cancel { from, attempts }, ctx),
        }
    }

    fn on_inbound(&mut self, inbound: Inbound, ctx: &mut Context<Self>) {
        match inbound {
            Inbound::Frames { peer: from, frames, held: _held } => {
                if let Some(node) = self.peers.sender(self.common.now(), from, &frames) {
                    frames.iter().for_each(|frame| self.on_bytes(node, frame, ctx));
                }
            }
            Inbound::Malformed { peer: from, reason } => {
                if let Some(node) = peer::node_id(&from) {
                    self.send_away(node, reason.to_string());
                }
            }
        }
    }

    fn save(&mut self) {
        if self.unsaved < SNAPSHOT_ENTRIES {
            return;
        }
        self.unsaved = 0;
        let (store, snapshot) = (Arc::clone(&self.settings.log), self.driver.ledger().snapshot());
        drop(actix_rt::task::spawn_blocking(move || {
            if let Err(error) = store.save_snapshot(CATEGORY, &snapshot) {
                tracing::warn!(%error, "the jobs were not kept; the next start reads the whole log");
            }
        }));
    }

    /// What there is to be seen of jobs.
    fn seen(&self) -> Seen<'_> {
        Seen {
            me: self.settings.identity.id(),
            now: self.common.now(),
            step: self.step,
            step_interval: self.settings.driver.step_interval,
            driver: &self.driver,
            history: &self.history,
        }
    }

    /// What a run came to.
    fn on_done(&mut self, run: RunId, done: Done, ctx: &mut Context<Self>) {
        if self.running.remove(&run).is_none() {
            return;
        }
        if let Done::Output { result, .. } = &done {
            self.note_held(result.hash, ctx);
        }
        self.work(worker::Input::Done { run, done }, ctx);
    }
}

impl Kept for ledger::State {
    const CATEGORY: &'static str = CATEGORY;

    /// Checkpoints hold no jobs: those of entries that were dropped are over.
    fn take_base(&mut self, _: &Base, _: &mut Outbox<LedgerChange>) {}
}

impl Actor for ComputeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(SNAPSHOT_EVERY, |actor, _| actor.save());
        ctx.run_interval(STEP_LOOK, Self::look_at_step);
        if lock(&self.inbound).is_some() {
            ctx.add_stream(gossip::inbound_stream(Arc::clone(&self.inbound)));
        }
        let Some(log) = self.log.upgrade() else { return };
        let watch = log.send(Watch);
        ctx.wait(watch.into_actor(self).map(|feed, _, ctx| {
            if let Ok(feed) = feed {
                ctx.add_stream(feed);
            }
        }));
    }
}

impl Supervised for ComputeActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        if self.common.is_stopping() {
            return ctx.stop();
        }
        self.is_flushing = false;
        self.begin_anew(ledger::State::new(), ctx);
        self.replay(ctx);
    }
}

impl StreamHandler<FeedItem<Change>> for ComputeActor {
    fn handle(&mut self, change: FeedItem<Change>, ctx: &mut Self::Context) {
        self.on_change(change, ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<Inbound>> for ComputeActor {
    fn handle(&mut self, arrived: Vec<Inbound>, ctx: &mut Self::Context) {
        for inbound in arrived {
            self.on_inbound(inbound, ctx);
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

/// Everything that was there has been read: write, sign and send.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for ComputeActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.is_flushing = false;
        if self.worker.wants_flush() {
            self.work(worker::Input::Flush, ctx);
        }
        if self.driver.wants_flush() {
            self.drive(driver::Input::Flush, ctx);
        }
    }
}
