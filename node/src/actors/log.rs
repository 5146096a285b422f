//! The durable log: the shell of [`omnimesh_protocol::log`] around the store on disk.
//!
//! ```text
//!   append ──► State ──► Write ──► one thread that may block: redb, fsync ──► Written ──► answer, gossip, projections
//!   peers' frames ─┘ └─► Read, Find ──► threads that may block ──► Read ──► frames to peers
//!                    └─► Verify ──► the pool of threads for signatures ──► Verified
//! ```

mod checkpoint;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures::{Stream, stream};
use libp2p::PeerId;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::config::Part;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::log::{
    self, AppendError, Appended, Config, Entry, Input, Output, Report, Start, StoreError, Token,
};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::validate::Unverified;
use omnimesh_protocol::{Identity, Mesh, NodeId, Outbox, Step, observer, projection};
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use tokio::sync::{Notify, oneshot};

use super::early::Early;
use super::gossip;
use super::inbox::Inbox;
use super::{Common, MAILBOX, Mailbox, lock};
use crate::clock::SharedClock;
use crate::feed::FeedSender;
use crate::memory::Priority;
use crate::store::log::{Damage, LogStore, ReadError};
use crate::swarm::{Class, Inbound, Outbound};

pub(crate) use requests::{
    Append, AppendAll, Begin, Found, GetReports, GetState, Gossiped, LogState, Members, Watch,
};

/// Reports of what was caught up with that are kept for people.
const REPORTS_MAX: usize = 32;
/// How often it is told how much memory the log holds.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// Bytes of sound records that are taken at once from behind a gap.
const KEPT_BYTES: usize = 1 << 20;
/// Batches of this many signatures and more are split among the pool's threads.
const PARALLEL_BATCH: usize = 8;

/// Why an entry was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such author.
    #[error("no entry of {0} is known here")]
    UnknownAuthor(omnimesh_protocol::NodeId),
    /// What was asked for lies behind the end, or was dropped.
    #[error("the log of {author} has entries {base} to {head}; {asked} was asked for")]
    OutOfRange {
        /// Whose log.
        author: NodeId,
        /// Its first entry here.
        base: u64,
        /// Its last entry.
        head: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The node keeps no log: it has no data directory, and what is acknowledged must outlive the process.
    #[error("this node keeps no log: it was started without a data directory")]
    NoLog,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

type Answer = oneshot::Sender<Result<Appended, LogError>>;

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) mesh: Mesh,
    pub(crate) phase_interval: std::num::NonZeroU64,
    pub(crate) pattern_cache: std::num::NonZeroUsize,
    pub(crate) store: Arc<LogStore>,
    pub(crate) start: Start,
    /// What was found damaged when the store was opened.
    pub(crate) damage: Vec<Damage>,
    /// Logs that end before something that was damaged, at this start or an earlier one.
    pub(crate) gaps: BTreeSet<NodeId>,
    pub(crate) subscriber_queue: usize,
    pub(crate) pool: Arc<rayon::ThreadPool>,
}

#[derive(Debug)]
pub(crate) struct LogActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    state: log::State<PeerId>,
    rng: ChaCha20Rng,
    out: Outbox<Output<PeerId>>,
    step: Option<Step>,
    peers: BTreeMap<PeerId, Outbound>,
    early: Early,
    waiting: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    is_flush_due: bool,
    inbox: Inbox,
    watchers: Vec<FeedSender<Change>>,
    /// Applied, and not told to the watchers yet: what was written together is told together.
    applied: (Vec<Entry>, usize),
    reports: VecDeque<Report>,
    /// What was found damaged and is not repaired yet.
    damaged: Option<String>,
    /// Logs that end before something that was damaged.
    gaps: BTreeSet<NodeId>,
    /// Why nothing can be written.
    unwritable: Option<String>,
    left: Arc<Left>,
}

/// What watchers of the log are told, in the order in which it came to be.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Entries were added, and are on disk.
    Applied(Vec<Entry>),
    /// A log was frozen, and ends with this entry, if there is any left.
    Frozen { author: NodeId, end: Option<projection::Head> },
    /// A checkpoint stands for entries of these logs that come no more: the base has them.
    Jumped(Vec<NodeId>),
}

impl LogActor {
    pub(crate) fn new(common: Common, settings: Settings, clock: SharedClock) -> Self {
        let mut out = Outbox::new();
        let state = Self::state(&common, &settings, &mut out);
        let gaps = settings.gaps.clone();
        LogActor {
            common,
            settings,
            clock,
            state,
            rng: super::rng(),
            out,
            step: None,
            peers: BTreeMap::new(),
            early: Early::default(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            is_flush_due: false,
            inbox: Inbox::default(),
            watchers: Vec::new(),
            applied: Default::default(),
            reports: VecDeque::new(),
            damaged: None,
            gaps,
            unwritable: None,
            left: Arc::default(),
        }
    }

    fn state(common: &Common, settings: &Settings, out: &mut Outbox<Output<PeerId>>) -> log::State<PeerId> {
        let Settings { config, identity, mesh, phase_interval, pattern_cache, start, .. } = settings;
        let patterns = PatternGenerator::new(mesh.secret().clone(), *phase_interval, *pattern_cache);
        log::State::new(config.clone(), identity.clone(), mesh, patterns, start.clone(), common.now(), out)
    }

    fn give(&mut self, ctx: &mut Context<Self>, input: Input<PeerId>) {
        self.give_all(ctx, std::iter::once(input));
    }

    fn give_all(&mut self, ctx: &mut Context<Self>, inputs: impl Iterator<Item = Input<PeerId>>) {
        let common = self.common.clone();
        common.guard("log", ctx, || {
            let now = self.common.now();
            let step = self.clock.step(now);
            if step != self.step {
                self.step = step;
                self.state.handle(now, Input::Step(step), &mut self.rng, &mut self.out);
            }
            for input in inputs {
                self.state.handle(now, input, &mut self.rng, &mut self.out);
            }
        });
        self.carry_out(ctx);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let mut out = std::mem::take(&mut self.out);
        let mut events = Vec::new();
        for output in out.drain() {
            match output {
                Output::Send { to, frame } => self.send(to, frame),
                Output::Publish(record) => {
                    if let Some(gossip) = self.common.links().gossip.upgrade() {
                        // What a full mailbox sheds, reconciliation brings.
                        let publish =
                            gossip::Publish { envelope: record.envelope().clone(), answers: Vec::new() };
                        let _ = gossip.try_send(publish);
                    }
                }
                Output::Verify { token, records } => self.verify(token, records, ctx),
                Output::Write { token, changes } => {
                    let store = Arc::clone(&self.settings.store);
                    self.write(ctx, token, move || store.write(&changes));
                }
                Output::Read { token, author, from, to, bytes_max } => {
                    let store = Arc::clone(&self.settings.store);
                    self.read(ctx, token, move || store.read(author, from, to, bytes_max));
                }
                Output::Find { token, author, seq } => {
                    let store = Arc::clone(&self.settings.store);
                    self.read(ctx, token, move || Ok(store.find(author, seq)?.into_iter().collect()));
                }
                Output::Fold { .. }
                | Output::Stage { .. }
                | Output::Open { .. }
                | Output::ReadChunk { .. }
                | Output::Truncate { .. } => self.checkpoint(output, ctx),
                Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(ctx, Input::Timer(timer));
                    });
                }
                Output::Appended { ticket, appended } => self.answer(ticket, Ok(appended)),
                Output::Refused { ticket, error } => self.answer(ticket, Err(error.into())),
                Output::Event(event) => self.on_event(event, &mut events),
            }
        }
        self.out = out;
        self.tell_applied();
        self.common.observe(events);
        self.flush_if_wanted(ctx);
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Appended, LogError>) {
        if let Some(answer) = self.waiting.remove(&ticket) {
            let _ = answer.send(result);
        }
    }

    /// Has what was appended sealed when the mailbox is empty: what came meanwhile shares signature and write.
    fn flush_if_wanted(&mut self, ctx: &mut Context<Self>) {
        if self.is_flush_due || !self.state.wants_flush() {
            return;
        }
        self.is_flush_due = true;
        ctx.spawn(ready(()).into_actor(self).map(|(), actor, ctx| {
            actor.is_flush_due = false;
            let mesh_time_us = actor.clock.mesh_time_us(actor.common.now()).unwrap_or(0);
            actor.give(ctx, Input::Flush { mesh_time_us });
        }));
    }

    fn send(&mut self, to: PeerId, frame: Bytes) {
        let Some(outbound) = self.peers.get(&to) else { return };
        let frame = Bytes::from_owner(Tracked { frame, to, left: Arc::clone(&self.left) });
        // A frame that is shed is dropped, and that gives its bytes back.
        let _ = outbound.try_send(Class::Own, frame);
    }

    fn verify(&mut self, token: Token, records: Vec<Unverified>, ctx: &mut Context<Self>) {
        let (sender, checked) = oneshot::channel();
        self.settings.pool.spawn(move || {
            let results: Vec<_> = if records.len() < PARALLEL_BATCH {
                records.into_iter().map(Unverified::verify).collect()
            } else {
                records.into_par_iter().map(Unverified::verify).collect()
            };
            let _ = sender.send(results);
        });
        ctx.spawn(checked.into_actor(self).map(move |checked, actor, ctx| {
            // None, if the pool is gone: all of them are shed.
            actor.give(ctx, Input::Verified { token, results: checked.unwrap_or_default() });
        }));
    }

    /// Does work on a thread that may block, and gives the machine the answer.
    fn block(&mut self, ctx: &mut Context<Self>, work: impl FnOnce() -> Input<PeerId> + Send + 'static) {
        let done = actix_rt::task::spawn_blocking(work);
        ctx.spawn(done.into_actor(self).map(|done, actor, ctx| match done {
            Ok(input) => actor.give(ctx, input),
            Err(error) => tracing::error!(%error, "work on the log's disk was not done"),
        }));
    }

    /// Writes on a thread that may block, and tells the machine how that went.
    fn write(
        &mut self,
        ctx: &mut Context<Self>,
        token: Token,
        work: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) {
        let done = actix_rt::task::spawn_blocking(work);
        ctx.spawn(done.into_actor(self).map(move |done, actor, ctx| {
            let result = done.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())));
            if result.is_ok() && actor.unwritable.take().is_some() {
                tracing::info!("the log can be written again");
            }
            actor.give(ctx, Input::Written { token, result });
            actor.fill_gaps(ctx);
        }));
    }

    /// Gives the machine what the store holds behind a record that had been damaged, once that is there again.
    pub(super) fn fill_gaps(&mut self, ctx: &mut Context<Self>) {
        if self.gaps.is_empty() {
            return;
        }
        let (store, authors) = (Arc::clone(&self.settings.store), self.gaps.clone());
        let read = actix_rt::task::spawn_blocking(move || {
            let read = |author| Ok::<_, StoreError>((author, store.kept(author, KEPT_BYTES)?));
            authors.into_iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        ctx.spawn(read.into_actor(self).map(|read, actor, ctx| {
            let Ok(Ok(read)) = read else { return tracing::warn!("what is behind damage could not be read") };
            for (author, kept) in read {
                match kept {
                    None => drop(actor.gaps.remove(&author)),
                    Some(records) if records.is_empty() => {}
                    Some(records) => actor.give(ctx, Input::Kept(records)),
                }
            }
        }));
    }

    fn read(
        &mut self,
        ctx: &mut Context<Self>,
        token: Token,
        work: impl FnOnce() -> Result<Vec<Bytes>, ReadError> + Send + 'static,
    ) {
        let done = actix_rt::task::spawn_blocking(work);
        ctx.spawn(done.into_actor(self).map(move |done, actor, ctx| {
            let (result, damage) = match done {
                Ok(Ok(records)) => (Ok(records), None),
                Ok(Err(ReadError::Store(error))) => (Err(error), None),
                Ok(Err(ReadError::Damaged(damage))) => {
                    (Err(StoreError::Damaged(damage.to_string())), Some(*damage))
                }
                Err(error) => (Err(StoreError::Failed(error.to_string())), None),
            };
            actor.give(ctx, Input::Read { token, result });
            if let Some(damage) = damage {
                actor.on_damage(damage, ctx);
            }
        }));
    }

    fn on_damage(&mut self, damage: Damage, ctx: &mut Context<Self>) {
        tracing::error!("{damage}");
        self.damaged = Some(damage.to_string());
        self.common.observe(vec![Event::Error { kind: "log_damaged", detail: damage.to_string() }]);
        if let Some(log) = damage.log {
            self.gaps.insert(log.author);
            self.give(ctx, Input::Damaged(log));
        }
    }

    fn on_event(&mut self, event: log::Event<PeerId>, events: &mut Vec<Event<PeerId>>) {
        match event {
            log::Event::Applied { record, .. } => {
                if !self.watchers.is_empty() {
                    self.applied.0.extend(record.to_entries());
                    self.applied.1 += record.as_bytes().len();
                }
            }
            log::Event::Frozen { proof } => {
                let (author, fork) = (proof.author(), proof.fork());
                tracing::warn!(%author, fork = fork.0, "a log is frozen: its author has signed two entries for one place");
                let head = self.state.head(&author).map_or(log::Head::EMPTY, |head| head.head);
                self.tell(&Change::Frozen { author, end: proof.end_at(head) }, 0);
                self.common.notice(vec![observer::Input::Proof(proof)]);
                let detail = format!(
                    "{author} has signed two entries for one place in its log; it ends before entry {} on every node",
                    fork.0
                );
                events.push(Event::Error { kind: "log_frozen", detail });
            }
            log::Event::Sealed { sealed } => {
                let checkpoint = &sealed.checkpoint;
                tracing::info!(
                    step = checkpoint.step.0,
                    id = %checkpoint.id(),
                    signatures = sealed.votes.len(),
                    bytes = checkpoint.bytes(),
                    "a checkpoint is sealed"
                );
            }
            log::Event::Jumped { logs } => {
                let entries: u64 = logs.iter().map(|(.., entries)| entries).sum();
                tracing::info!(
                    authors = logs.len(),
                    entries,
                    "a checkpoint stands for entries that were missing"
                );
                self.tell(&Change::Jumped(logs.into_iter().map(|(author, ..)| author).collect()), 0);
            }
            log::Event::CaughtUp(report) => {
                if report.authors.values().all(|missed| missed.nobody_has == 0) {
                    self.damaged = None;
                }
                if self.reports.len() >= REPORTS_MAX {
                    self.reports.pop_front();
                }
                self.reports.push_back(report);
            }
            log::Event::Misbehaved { peer, misdeed } => {
                let reason = misdeed.to_string();
                events.push(Event::BadFrame { from: peer, stream: "log", reason });
            }
            log::Event::WriteFailed { error } => {
                let detail = format!("{error}; entries are refused until it can be written again");
                tracing::error!("{detail}");
                self.unwritable = Some(detail.clone());
                events.push(Event::Error { kind: "log_write_failed", detail });
            }
            other => tracing::debug!(?other, "log"),
        }
    }

    /// Tells watchers of a change, behind all that was applied before it.
    fn tell(&mut self, change: &Change, bytes: usize) {
        self.tell_applied();
        self.offer(change, bytes);
    }

    fn tell_applied(&mut self) {
        let (entries, bytes) = std::mem::take(&mut self.applied);
        if !entries.is_empty() {
            self.offer(&Change::Applied(entries), bytes);
        }
    }

    fn offer(&mut self, change: &Change, bytes: usize) {
        self.watchers.retain(|watcher| watcher.offer(change.clone(), bytes).is_ok());
    }

    fn on_inbound(&mut self, inbound: Inbound, ctx: &mut Context<Self>) {
        match inbound {
            Inbound::Frames { peer: from, frames, held: _held } => {
                if self.peers.contains_key(&from) {
                    self.give_all(ctx, frames.into_iter().map(|frame| Input::Received { from, frame }));
                } else {
                    self.early.keep(self.common.now(), from, &frames);
                }
            }
            Inbound::Malformed { peer: from, reason } => {
                let reason = reason.to_string();
                self.common.observe(vec![Event::BadFrame { from, stream: "log", reason }]);
                self.common.send(Mailbox::Swarm, &self.common.links().swarm, super::swarm::Disconnect(from));
            }
        }
    }
}

/// A frame that tells the actor when it has left the peer's queue, written or not.
struct Tracked {
    frame: Bytes,
    to: PeerId,
    left: Arc<Left>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        *lock(&self.left.bytes).entry(self.to).or_default() += self.frame.len();
        self.left.news.notify_one();
    }
}

/// Bytes of frames that have left the queues since the actor last looked.
#[derive(Debug, Default)]
struct Left {
    bytes: Mutex<BTreeMap<PeerId, usize>>,
    news: Notify,
}

impl Left {
    fn stream(self: Arc<Self>) -> impl Stream<Item = BTreeMap<PeerId, usize>> {
        stream::unfold(self, |left| async {
            loop {
                let bytes = std::mem::take(&mut *lock(&left.bytes));
                if !bytes.is_empty() {
                    return Some((bytes, left));
                }
                left.news.notified().await;
            }
        })
    }
}

impl StreamHandler<BTreeMap<PeerId, usize>> for LogActor {
    fn handle(&mut self, left: BTreeMap<PeerId, usize>, ctx: &mut Self::Context) {
        self.give_all(ctx, left.into_iter().map(|(to, bytes)| Input::Sent { to, bytes }));
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Actor for LogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.add_stream(Arc::clone(&self.left).stream());
        ctx.run_interval(MEMORY_EVERY, |actor, _| {
            let stats = actor.state.stats();
            let used = stats.waiting_bytes.saturating_add(stats.write_bytes);
            actor.common.memory().part(Part::Log).report(used, Priority::Log, stats.shed);
        });
        self.inbox.listen(ctx);
        if self.common.is_linked() {
            self.carry_out(ctx);
        }
    }
}

impl Supervised for LogActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        // Frames under way are of the machine that is gone.
        self.left = Arc::default();
        // What is on disk now, and not what was there at the start.
        let store = &self.settings.store;
        let read = || {
            let (logs, reached) = (store.logs()?, store.reached(self.state.me())?);
            let (checkpoints, base) =
                (store.checkpoints()?, store.base().map(|base| base.cut).unwrap_or_default());
            Ok::<_, StoreError>(Start { logs, may_have_written: true, reached, checkpoints, base })
        };
        match read() {
            Ok(start) => self.settings.start = start,
            Err(error) => tracing::error!(%error, "the log could not be read again"),
        }
        self.out = Outbox::new();
        self.state = Self::state(&self.common, &self.settings, &mut self.out);
        (self.step, self.is_flush_due) = (None, false);
        // Dropping the answers tells those who wait.
        self.waiting.clear();
        // What was written just before, and not told: it is read again.
        self.tell(&Change::Jumped(Vec::new()), 0);
        // Peers' machines and ours begin together.
        for peer in std::mem::take(&mut self.peers).into_keys() {
            self.common.send(Mailbox::Swarm, &self.common.links().swarm, super::swarm::Disconnect(peer));
        }
        self.common.send(Mailbox::Observer, &self.common.links().observer, super::observer::Remind);
        self.carry_out(ctx);
    }
}

impl StreamHandler<Vec<Inbound>> for LogActor {
    fn handle(&mut self, arrived: Vec<Inbound>, ctx: &mut Self::Context) {
        for inbound in arrived {
            self.on_inbound(inbound, ctx);
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
