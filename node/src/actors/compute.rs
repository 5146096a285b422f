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

mod answers;
mod contents;
mod entries;
mod frames;
mod keep;
mod requests;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver::{self, Event as JobChange, Finding};
use omnimesh_protocol::compute::ledger::{self, Change as LedgerChange};
use omnimesh_protocol::compute::statement::Evidence;
use omnimesh_protocol::compute::wire::{BATCH_MAX, Frame};
use omnimesh_protocol::compute::worker::{self, RunId};
use omnimesh_protocol::compute::{BlobRef, TaskRef};
use omnimesh_protocol::observer;
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Outbox, Step, Time};
use rand_chacha::ChaCha20Rng;
use tokio::sync::Semaphore;

use super::blob::BlobActor;
use super::inbox::Inbox;
use super::log::{Change, LogActor, Watch};
use super::members::Streams;
use super::{Common, MAILBOX};
use crate::clock::SharedClock;
use crate::compute::{Cancel, Context as Operations};
use crate::feed::{FeedItem, FeedSender};
use crate::job::{History, JobEvent, Seen};
use crate::store::blob::BlobStore;
use crate::store::log::LogStore;
use crate::swarm::Inbound;

use answers::Answer;
use contents::Contents;
pub(crate) use requests::{Begin, CancelJob, Look, Retry, Standing, Submit, WatchJobs};

/// Results and commits are signed and written at most so often; so many small ones go together. Default: guess, less
/// than a disk takes to be sure of them.
const FLUSH_EVERY: Duration = Duration::from_millis(2);
/// Inputs of tasks that are fetched at once, of all and of one task. Default: guess, less than the blob actor takes.
const FETCHES: usize = 32;
const FETCHES_OF_TASK: usize = 16;
/// How often it is looked which step it is.
const STEP_LOOK: Duration = Duration::from_millis(200);
/// How often the ledger is kept, so that a start need not read the whole log.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);

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
    /// Blobs that are to be fetched and kept, and how many are being fetched.
    keeping: VecDeque<BlobRef>,
    keeps: usize,
    contents: Contents,
    /// Room for fetches of inputs.
    fetches: Arc<Semaphore>,
    answers: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    /// The submission that the driver is given just now.
    submitting: Option<Ticket>,
    step: Option<Step>,
    is_flushing: bool,
    flushed: Time,
    unsaved: u64,
    inbox: Inbox,
    /// Counts the machines, so that timers and answers for an earlier one are known: they are also made anew without a restart of
    /// the actor, which drops its timers and futures.
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
            keeping: VecDeque::new(),
            keeps: 0,
            contents: Contents::default(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            answers: BTreeMap::new(),
            next_ticket: 0,
            submitting: None,
            step: None,
            is_flushing: false,
            flushed: Time::ZERO,
            unsaved: 0,
            inbox: Inbox::default(),
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
            let wait = FLUSH_EVERY.saturating_sub(self.common.now().since(self.flushed));
            if wait.is_zero() {
                ctx.notify(Flush);
            } else {
                ctx.notify_later(Flush, wait);
            }
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
            driver::Output::Ask { to, jobs } if to == self.me() => {
                self.give_worker(worker::Input::Ask { from: to, jobs }, ctx);
            }
            driver::Output::Ask { to, jobs } => drop(self.send(&to, &Frame::Ask(jobs))),
            driver::Output::Cancel { to, attempts } if to == self.me() => {
                self.give_worker(worker::Input::Cancel { from: to, attempts }, ctx);
            }
            driver::Output::Cancel { to, attempts } => {
                for attempts in attempts.chunks(BATCH_MAX) {
                    self.send(&to, &Frame::Cancel(attempts.to_vec()));
                }
            }
            driver::Output::Keep { blob, .. } => self.keep_output(blob, ctx),
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
            worker::Output::Send { to, frame } => self.send_of_worker(&to, &frame),
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

    fn on_event(&mut self, event: &JobChange, ctx: &mut Context<Self>) {
        if let JobChange::Ledger(LedgerChange::Submitted(job)) = event {
            self.copy_inputs(job, ctx);
        }
        // Those who watch are told of each task.
        if let JobChange::Ledger(LedgerChange::Tasks { job, first, to, old, new }) = *event {
            for chunk in first.chunk..to {
                let task = TaskRef::new(first.task, chunk);
                self.note(&JobChange::Ledger(LedgerChange::Task { job, task, old, new }));
            }
        } else {
            self.note(event);
        }
    }

    fn note(&mut self, event: &JobChange) {
        if let Some(event) = self.history.record(self.common.now(), self.step, event) {
            self.tell(&event);
        }
    }

    fn tell(&mut self, event: &JobEvent) {
        let bytes = event.bytes();
        self.watchers.retain(|watcher| watcher.offer(event.clone(), bytes).is_ok());
    }

    fn on_finding(&mut self, finding: &Finding) {
        let Finding { job, task, accused, evidence } = finding;
        tracing::warn!(%accused, %job, %task, "a worker has signed a wrong result");
        // With one witness it is one's word against the other's.
        if let Some(evidence) = evidence.as_ref().filter(|_| *accused != self.me()) {
            let others = evidence.witnesses().count();
            let wrong = observer::Input::WrongResult { accused: *accused, job: *job, task: *task, others };
            self.common.notice(vec![wrong]);
        }
        let evidence = evidence.as_ref().map(Evidence::encode);
        let name = evidence.as_deref().map(|bytes| BlobRef::of(bytes).hash);
        if let Some(bytes) = evidence {
            let store = Arc::clone(&self.settings.blobs);
            drop(actix_rt::task::spawn_blocking(move || {
                if let Err(error) = store.put_output(&bytes) {
                    tracing::warn!(%error, "what proves that a worker was wrong was not kept");
                }
            }));
        }
        let event = self.history.find(self.common.now(), self.step, finding, name);
        self.tell(&event);
    }

    /// Starts both machines anew; members are told again.
    fn begin_anew(&mut self, ledger: ledger::State, ctx: &mut Context<Self>) {
        self.life += 1;
        self.cancel_all(ctx);
        // Dropping the answers tells those who wait.
        self.answers.clear();
        (self.keeping, self.keeps) = (VecDeque::new(), 0);
        self.contents = Contents::default();
        (self.driver_out, self.worker_out) = (Outbox::new(), Outbox::new());
        self.driver = driver::State::new(self.settings.driver.clone(), self.me());
        self.driver.restore(ledger);
        self.worker = Self::new_worker(&self.common, &self.settings, &mut self.worker_out);
        self.step = None;
        self.introduce(ctx);
    }

    fn cancel_all(&mut self, ctx: &mut Context<Self>) {
        for (_, running) in std::mem::take(&mut self.running) {
            match running {
                Running::Fetching(fetching) => drop(ctx.cancel_future(fetching)),
                Running::Working(cancel) => cancel.cancel(),
            }
        }
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
}

impl Actor for ComputeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(SNAPSHOT_EVERY, |actor, _| actor.save());
        ctx.run_interval(STEP_LOOK, Self::look_at_step);
        self.inbox.listen(ctx);
        let Some(log) = self.log.upgrade() else { return };
        let watch = log.send(Watch);
        ctx.wait(watch.into_actor(self).map(|feed, _, ctx| {
            if let Ok(feed) = feed {
                ctx.add_stream(feed);
            }
        }));
    }

    /// Nobody waits for what its tasks come to any more.
    fn stopped(&mut self, ctx: &mut Self::Context) {
        self.cancel_all(ctx);
    }
}

impl Supervised for ComputeActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
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
        (self.is_flushing, self.flushed) = (false, self.common.now());
        if self.worker.wants_flush() {
            self.work(worker::Input::Flush, ctx);
        }
        if self.driver.wants_flush() {
            self.drive(driver::Input::Flush, ctx);
        }
    }
}
