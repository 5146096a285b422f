//! The registry: the shell of [`omnimesh_protocol::registry`], a projection of the log.
//!
//! ```text
//!   LogActor ── Change ──► State ──► watchers            put ──► State::write ──► LogActor: append ──► on disk
//!                            ▲                            └──── answered once the entry has come back here
//!            store: snapshot, and the entries behind it
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope};
use omnimesh_protocol::log::{self, Appended, Entry, Proof, Record, StoreError, StoredLog};
use omnimesh_protocol::projection::{Head, Projection, Replay};
use omnimesh_protocol::registry::{self, Action, CATEGORY, State, WriteError};
use omnimesh_protocol::{NodeId, Outbox, Seq, Step};
use tokio::sync::oneshot;

use super::log::{Append, Change, Found, LogError, Watch};
use super::{Common, MAILBOX};
use crate::clock::SharedClock;
use crate::feed::{Feed, FeedItem, FeedLimits, FeedSender, feed};
use crate::store::log::{Damage, LogStore, Opened, ReadError};

/// Bytes of records read at once when the state is built.
const READ_BYTES: usize = 1 << 20;
/// How often the state is kept, so that a start need not read the whole log.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// Entries since the last snapshot that make another one worth its while.
const SNAPSHOT_ENTRIES: u64 = 1_000;

/// Why the registry was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry does not take it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The log does not take it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The node has no step yet.
    #[error("the node has no step yet: it has not synchronised with the mesh")]
    NotSynchronised,
}

type Answer = oneshot::Sender<Appended>;

#[derive(Debug)]
pub(crate) struct RegistryActor {
    pub(super) common: Common,
    clock: SharedClock,
    me: NodeId,
    store: Arc<LogStore>,
    log: WeakAddr<super::log::LogActor>,
    state: State,
    out: Outbox<registry::Change>,
    watchers: Vec<FeedSender<registry::Change>>,
    /// Own writes that are on disk and have not come back yet, by sequence number.
    waiting: BTreeMap<Seq, (Appended, Answer)>,
    unsaved: u64,
}

impl RegistryActor {
    /// With the registry as it was loaded.
    pub(crate) fn new(
        common: Common,
        clock: SharedClock,
        me: NodeId,
        store: Arc<LogStore>,
        state: State,
        log: WeakAddr<super::log::LogActor>,
    ) -> Self {
        RegistryActor {
            common,
            clock,
            me,
            store,
            log,
            state,
            out: Outbox::new(),
            watchers: Vec::new(),
            waiting: BTreeMap::new(),
            unsaved: 0,
        }
    }

    /// The step at which answers hold: without one, nothing has expired.
    fn now(&self) -> Step {
        self.clock.step(self.common.now()).unwrap_or(Step(0))
    }

    fn on_change(&mut self, change: FeedItem<Change>, ctx: &mut Context<Self>) {
        let common = self.common.clone();
        let mut replay = Replay::NotNeeded;
        common.guard("registry", ctx, || match change {
            FeedItem::Next(Change::Applied(entries)) => {
                self.unsaved += entries.len() as u64;
                for entry in &entries {
                    let _ = self.state.apply(&entry.into(), &mut self.out);
                }
            }
            FeedItem::Next(Change::Frozen { author, end }) => {
                replay = self.state.cut(author, end, &mut self.out);
            }
            FeedItem::Next(Change::Jumped(authors)) => {
                if authors.iter().any(|author| self.state.is_cut(author)) {
                    // What was taken back of a log counts again as far as the checkpoint covers it.
                    self.state = State::new();
                }
                replay = Replay::Needed;
            }
            FeedItem::Lagged(_) => replay = Replay::Needed,
        });
        if replay == Replay::Needed {
            self.replay(ctx);
        }
        self.tell_watchers();
        self.answer();
    }

    /// Gives the state all that there is, the base and every entry behind it; it takes what it has not. What happens
    /// meanwhile waits.
    fn replay(&mut self, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.store);
        let read = actix_rt::task::spawn_blocking(move || {
            let base = store.base()?;
            Ok::<_, StoreError>((base, store.logs_and_damage()?))
        });
        ctx.wait(read.into_actor(self).map(|read, actor, ctx| match read {
            Ok(Ok((base, (logs, damage)))) => {
                let _ = actor.state.merge(&base.registry, &mut actor.out);
                actor.tell_log(damage, ctx);
                actor.replay_on(Cursor::new(logs), ctx);
            }
            Ok(Err(error)) => tracing::error!(%error, "the registry could not be built anew"),
            Err(error) => tracing::error!(%error, "the registry could not be built anew"),
        }));
    }

    /// Takes the next batch of entries, which bounds what is in memory.
    fn replay_on(&mut self, mut cursor: Cursor, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.store);
        let read = actix_rt::task::spawn_blocking(move || {
            let batch = cursor.next_batch(&store)?;
            Ok::<_, StoreError>((batch, cursor))
        });
        ctx.wait(read.into_actor(self).map(|read, actor, ctx| match read {
            Ok(Ok((Batch { records, damage }, cursor))) => {
                for record in &records {
                    actor.state.apply_record(record, &mut actor.out);
                }
                actor.tell_watchers();
                actor.tell_log(damage, ctx);
                if records.is_empty() {
                    actor.answer();
                } else {
                    actor.replay_on(cursor, ctx);
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "the registry could not be built anew"),
            Err(error) => tracing::error!(%error, "the registry could not be built anew"),
        }));
    }

    fn tell_watchers(&mut self) {
        for change in self.out.drain() {
            self.watchers.retain(|watcher| watcher.offer(change.clone(), 256).is_ok());
        }
    }

    /// The log has to know where the store has cut it.
    fn tell_log(&self, damage: Vec<Damage>, ctx: &mut Context<Self>) {
        let Some(log) = self.log.upgrade() else { return };
        for found in damage {
            let told = log.send(Found(found)).into_actor(self);
            ctx.spawn(told.map(|told, _, _| {
                if let Err(error) = told {
                    tracing::warn!(%error, "the log was not told what is damaged");
                }
            }));
        }
    }

    /// Answers own writes that the state contains.
    fn answer(&mut self) {
        let Some(head) = self.state.heads().get(&self.me).copied() else { return };
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > head.seq {
                break;
            }
            let (appended, answer) = entry.remove();
            let _ = answer.send(appended);
        }
    }

    fn save(&mut self) {
        if self.unsaved < SNAPSHOT_ENTRIES {
            return;
        }
        self.unsaved = 0;
        let (store, snapshot) = (Arc::clone(&self.store), self.state.snapshot());
        drop(actix_rt::task::spawn_blocking(move || {
            if let Err(error) = store.save_snapshot(CATEGORY, &snapshot) {
                tracing::warn!(%error, "the registry was not kept; the next start reads the whole log");
            }
        }));
    }
}

/// The state from its snapshot, or from the base if the snapshot is older, and the entries behind it. What is found
/// damaged on the way is cut, and told in `opened`.
///
/// # Errors
/// If the store cannot be read.
pub(crate) fn load(store: &LogStore, opened: &mut Opened) -> Result<State, StoreError> {
    let Opened { logs, damage, .. } = opened;
    let mut state = State::new();
    if let Some(snapshot) = store.snapshot(CATEGORY)?
        && let Err(error) = state.restore(&snapshot)
    {
        tracing::warn!(%error, "the registry's snapshot cannot be used; the whole log is read");
        state = State::new();
    }
    let is_behind = |log: &StoredLog| known(&state, log.author) < log.base.saturating_sub(1);
    if logs.iter().any(is_behind) {
        state = base(store);
    }
    let mut out = Outbox::new();
    let mut is_whole = true;
    for log in logs.iter() {
        let Some(proof) = &log.proof else { continue };
        is_whole &= state.cut(log.author, end_of(proof, log.head), &mut out) == Replay::NotNeeded;
    }
    if !is_whole {
        let _ = state.merge(&base(store), &mut out);
    }
    for log in logs {
        let from =
            if is_whole { known(&state, log.author).saturating_add(1).max(log.base) } else { log.base };
        let found = each_entry(store, log, from, |entry| {
            let _ = state.apply(&(&entry).into(), &mut out);
        })?;
        if let Some(cut) = found.as_ref().and_then(|found| found.log.clone()) {
            *log = cut;
        }
        damage.extend(found);
        let _ = out.drain();
    }
    Ok(state)
}

fn known(state: &State, author: NodeId) -> Seq {
    state.heads().get(&author).map_or(Seq(0), |head| head.seq)
}

/// What stands for entries that are not here. Without it the registry is not whole, and the node says so.
fn base(store: &LogStore) -> State {
    match store.base() {
        Ok(base) => base.registry,
        Err(error) => {
            tracing::error!(%error, "the registry lacks what was written before the entries that are here");
            State::new()
        }
    }
}

/// Where reading all entries has come to.
struct Cursor {
    logs: std::vec::IntoIter<StoredLog>,
    current: Option<(StoredLog, Seq)>,
}

impl Cursor {
    fn new(logs: Vec<StoredLog>) -> Self {
        Cursor { logs: logs.into_iter(), current: None }
    }

    /// The next records, of one author; none at the end.
    fn next_batch(&mut self, store: &LogStore) -> Result<Batch, StoreError> {
        let mut damage = Vec::new();
        loop {
            let (log, next) = match self.current.take() {
                Some(current) => current,
                None => match self.logs.next() {
                    Some(log) => {
                        let base = log.base;
                        (log, base)
                    }
                    None => return Ok(Batch { records: Vec::new(), damage }),
                },
            };
            let records = match store.read(log.author, next, log.head.seq, READ_BYTES) {
                Ok(records) => records,
                Err(ReadError::Store(error)) => return Err(error),
                // What is fetched again comes as a change.
                Err(ReadError::Damaged(found)) => {
                    damage.push(*found);
                    continue;
                }
            };
            let records: Vec<Record> = records.iter().filter_map(|bytes| record_of(bytes, store)).collect();
            if let Some(last) = records.last() {
                self.current = Some((log, last.last().saturating_add(1)));
                return Ok(Batch { records, damage });
            }
        }
    }
}

/// What was read at once.
struct Batch {
    records: Vec<Record>,
    damage: Vec<Damage>,
}

/// Where a frozen log ends.
pub(super) fn end_of(proof: &Proof, head: log::Head) -> Option<Head> {
    proof.end_at(head)
}

/// Gives each entry of a log from the record that covers `from` on, as far as there is no damage.
fn each_entry(
    store: &LogStore,
    log: &StoredLog,
    from: Seq,
    mut take: impl FnMut(Entry),
) -> Result<Option<Damage>, StoreError> {
    let mut next = from;
    if from > log.base && from <= log.head.seq {
        let found = match store.find(log.author, from) {
            Ok(found) => found,
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::Damaged(damage)) => return Ok(Some(*damage)),
        };
        if let Some(record) = found.and_then(|bytes| record_of(&bytes, store)) {
            next = record.last().saturating_add(1);
            record.to_entries().filter(|entry| entry.seq >= from).for_each(&mut take);
        }
    }
    while next <= log.head.seq {
        let records = match store.read(log.author, next, log.head.seq, READ_BYTES) {
            Ok(records) => records,
            Err(ReadError::Store(error)) => return Err(error),
            // What is fetched again comes as a change.
            Err(ReadError::Damaged(damage)) => return Ok(Some(*damage)),
        };
        let Some(last) = records.last().and_then(|bytes| record_of(bytes, store)) else { break };
        next = last.last().saturating_add(1);
        for bytes in &records {
            if let Some(record) = record_of(bytes, store) {
                record.to_entries().for_each(&mut take);
            }
        }
    }
    Ok(None)
}

fn record_of(bytes: &Bytes, store: &LogStore) -> Option<Record> {
    Record::new(Envelope::decode(bytes, store.message_bytes_max()).ok()?)
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(SNAPSHOT_EVERY, |actor, _| actor.save());
        let Some(log) = self.log.upgrade() else { return };
        let watch = log.send(Watch);
        ctx.wait(watch.into_actor(self).map(|feed, _, ctx| {
            if let Ok(feed) = feed {
                ctx.add_stream(feed);
            }
        }));
    }
}

impl Supervised for RegistryActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        if self.common.is_stopping() {
            return ctx.stop();
        }
        self.state = State::new();
        self.waiting.clear();
        self.replay(ctx);
    }
}

impl StreamHandler<FeedItem<Change>> for RegistryActor {
    fn handle(&mut self, change: FeedItem<Change>, ctx: &mut Self::Context) {
        self.on_change(change, ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

/// Change the registry; answered once the change is on disk and seen here.
#[derive(Message)]
#[rtype(result = "Result<Appended, RegistryError>")]
pub(crate) struct Write {
    pub(crate) action: Action,
    pub(crate) replicas: usize,
}

impl Handler<Write> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<Appended, RegistryError>>;

    fn handle(&mut self, Write { action, replicas }: Write, _: &mut Self::Context) -> Self::Result {
        let payload = match self.clock.step(self.common.now()) {
            None => Err(RegistryError::NotSynchronised),
            Some(step) => self
                .state
                .write(action, step)
                .and_then(|operation| Ok(operation.encode()?))
                .map_err(RegistryError::Write),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => return Box::pin(std::future::ready(Err(error)).into_actor(self)),
        };
        let category = Channel::new(CATEGORY).expect("a good name");
        let Some(log) = self.log.upgrade() else {
            return Box::pin(std::future::ready(Err(LogError::Stopped.into())).into_actor(self));
        };
        let append = async move { Append::to(&log, category, payload.into(), replicas).await };
        let appended = append.into_actor(self);
        Box::pin(appended.then(|appended, actor, _| {
            let (answer, answered) = oneshot::channel();
            let result = match appended {
                Ok(appended) => {
                    actor.waiting.insert(appended.seq, (appended, answer));
                    actor.answer();
                    Ok(())
                }
                Err(error) => Err(RegistryError::Log(error)),
            };
            async move {
                result?;
                answered.await.map_err(|_| RegistryError::Log(LogError::Stopped))
            }
            .into_actor(actor)
        }))
    }
}

/// Looks something up in the state, at the mesh's step.
#[derive(Message)]
#[rtype(result = "T")]
pub(crate) struct Ask<T: 'static>(pub(crate) Question<T>);

/// What somebody wants to know of the state at a step.
type Question<T> = Box<dyn FnOnce(&State, Step) -> T + Send>;

impl<T: Send + 'static> Handler<Ask<T>> for RegistryActor {
    type Result = MessageResult<Ask<T>>;

    fn handle(&mut self, Ask(question): Ask<T>, _: &mut Self::Context) -> Self::Result {
        MessageResult(question(&self.state, self.now()))
    }
}

/// Tell of every change from now on.
#[derive(Message)]
#[rtype(result = "Feed<registry::Change>")]
pub(crate) struct WatchRegistry;

impl Handler<WatchRegistry> for RegistryActor {
    type Result = MessageResult<WatchRegistry>;

    fn handle(&mut self, WatchRegistry: WatchRegistry, _: &mut Self::Context) -> Self::Result {
        let (sender, receiver) = feed(FeedLimits::default());
        self.watchers.push(sender);
        MessageResult(receiver)
    }
}
