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
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::log::Appended;
use omnimesh_protocol::log::checkpoint::Base;
use omnimesh_protocol::projection::{Projection, Replay};
use omnimesh_protocol::registry::{self, Action, CATEGORY, State, WriteError};
use omnimesh_protocol::{NodeId, Outbox, Seq, Step};
use tokio::sync::oneshot;

use super::log::{Append, Change, LogError, Watch};
use super::projection::{self, Batch, Kept, read_all};
use super::{Common, MAILBOX};
use crate::clock::SharedClock;
use crate::feed::{Feed, FeedItem, FeedLimits, FeedSender};
use crate::store::log::LogStore;

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
        let batches =
            read_all(Arc::clone(&self.store)).into_actor(self).map(|batch, actor, ctx| match batch {
                Ok(Batch { base, records, damage }) => {
                    if let Some(base) = base {
                        actor.state.take_base(&base, &mut actor.out);
                    }
                    for record in &records {
                        actor.state.apply_record(record, &mut actor.out);
                    }
                    actor.tell_watchers();
                    projection::tell_log(&actor.log, damage, actor, ctx);
                }
                Err(error) => tracing::error!(%error, "the registry could not be built anew"),
            });
        ctx.wait(batches.finish().map(|(), actor, _| actor.answer()));
    }

    fn tell_watchers(&mut self) {
        for change in self.out.drain() {
            self.watchers.retain(|watcher| watcher.offer(change.clone(), 256).is_ok());
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

impl Kept for State {
    const CATEGORY: &'static str = CATEGORY;

    fn take_base(&mut self, base: &Base, out: &mut Outbox<registry::Change>) {
        let _ = self.merge(&base.registry, out);
    }
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
        let (sender, receiver) = self.common.feed(FeedLimits::default());
        self.watchers.push(sender);
        MessageResult(receiver)
    }
}
