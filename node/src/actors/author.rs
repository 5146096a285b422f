//! The author: the shell of [`omnimesh_protocol::author`]: patterns, bundles, signatures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::author::{self, Config, SubmitError, Ticket};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::pattern::{CacheStats, PatternGenerator};
use omnimesh_protocol::{Identity, Mesh, MessageId, Outbox, Seq, Step};
use rand_chacha::ChaCha20Rng;
use tokio::sync::oneshot;

use super::gossip::Publish;
use super::{Common, MAILBOX};
use crate::clock::SharedClock;
use crate::store::Store;

/// Between two tries to reserve sequence numbers.
const RESERVE_RETRY: Duration = Duration::from_secs(2);

/// What became of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The id of the envelope that it travels in.
    pub id: MessageId,
    /// This node's count.
    pub seq: Seq,
    /// The step it was published in.
    pub step: Step,
    /// The neighbours it was sent to. Zero: nobody near listens, and nobody will get it.
    pub recipients: usize,
}

/// Why a payload was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// The author refused it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The router refused it.
    #[error("the gossip router did not take the message: {0}")]
    Router(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

pub(crate) type Answer = oneshot::Sender<Result<Published, BroadcastError>>;

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) mesh: Mesh,
    pub(crate) phase_interval: std::num::NonZeroU64,
    pub(crate) pattern_cache: std::num::NonZeroUsize,
    pub(crate) store: Option<Arc<Store>>,
}

#[derive(Debug)]
pub(crate) struct AuthorActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    state: author::State,
    rng: ChaCha20Rng,
    out: Outbox<author::Output>,
    waiting: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    flush: Flush,
}

/// Whether what waits will be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// When the first sequence numbers are reserved, or cannot be.
    Begun,
    /// Nobody has asked.
    Idle,
    /// When the mailbox is empty.
    Soon,
    /// When the author's pace allows.
    Later,
}

impl AuthorActor {
    /// `next` is the first sequence number that was never reserved.
    pub(crate) fn new(common: Common, settings: Settings, clock: SharedClock, next: Seq) -> Self {
        AuthorActor {
            common,
            state: Self::state(&settings, next),
            settings,
            clock,
            rng: super::rng(),
            out: Outbox::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            flush: Flush::Begun,
        }
    }

    fn state(settings: &Settings, next: Seq) -> author::State {
        let Settings { config, identity, mesh, phase_interval, pattern_cache, .. } = settings;
        let patterns = PatternGenerator::new(mesh.secret().clone(), *phase_interval, *pattern_cache);
        author::State::new(config.clone(), identity.clone(), mesh, patterns, next)
    }

    fn give(&mut self, ctx: &mut Context<Self>, input: author::Input) {
        let common = self.common.clone();
        common.guard("author", ctx, || {
            self.state.handle(self.common.now(), input, &mut self.rng, &mut self.out);
        });
        self.carry_out(ctx);
    }

    /// Reserves the first sequence numbers. Payloads wait for them, within the bounds of the author's queue.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        self.flush(ctx);
        if self.settings.store.is_some() {
            self.flush = Flush::Begun;
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.flush = Flush::Idle;
        let now = self.common.now();
        let step = self.clock.step(now);
        let mesh_time_us = self.clock.mesh_time_us(now).unwrap_or(0);
        self.give(ctx, author::Input::Flush { step, mesh_time_us });
    }

    /// Has what waits flushed when the mailbox is empty: what came in the meantime shares the envelope, and a
    /// lone payload waits for nothing.
    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        self.flush = Flush::Soon;
        ctx.spawn(std::future::ready(()).into_actor(self).map(|(), actor, ctx| {
            let now = actor.common.now();
            let at = actor.state.flush_at(now);
            if at <= now {
                return actor.flush(ctx);
            }
            actor.flush = Flush::Later;
            ctx.run_later(actor.common.until(at), |actor, ctx| {
                // A full bundle may have been flushed before; then nothing, or something newer, waits.
                if actor.flush == Flush::Later {
                    actor.flush(ctx);
                }
            });
        }));
    }

    /// Submits a payload, to be sealed with what else waits; where the answer will be.
    fn submit(
        &mut self,
        channel: Channel,
        payload: Bytes,
        ctx: &mut Context<Self>,
    ) -> oneshot::Receiver<Result<Published, BroadcastError>> {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let (answer, answered) = oneshot::channel();
        self.waiting.insert(ticket, answer);
        self.give(ctx, author::Input::Submit { channel, payload, ticket });
        let is_due = match self.flush {
            Flush::Idle => !self.state.is_idle(),
            Flush::Begun | Flush::Soon => false,
            Flush::Later => {
                let now = self.common.now();
                self.state.flush_at(now) <= now
            }
        };
        if is_due {
            self.flush_soon(ctx);
        }
        answered
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let outputs: Vec<_> = self.out.drain().collect();
        for output in outputs {
            match output {
                author::Output::Sealed { envelope, tickets } => {
                    let answers = tickets.iter().filter_map(|ticket| self.waiting.remove(ticket)).collect();
                    let publish = Publish { envelope, answers };
                    // The answers are dropped with the message, which tells those who wait.
                    if let Some(gossip) = self.common.links().gossip.upgrade() {
                        let _ = gossip.try_send(publish);
                    }
                }
                author::Output::Refused { ticket, error } => {
                    if let Some(answer) = self.waiting.remove(&ticket) {
                        let _ = answer.send(Err(error.into()));
                    }
                }
                author::Output::Reserve { up_to } => self.reserve(up_to, ctx),
            }
        }
    }

    fn reserve(&mut self, up_to: Seq, ctx: &mut Context<Self>) {
        let Some(store) = self.settings.store.clone() else {
            self.give(ctx, author::Input::Reserved { up_to });
            return;
        };
        let write = actix_rt::task::spawn_blocking(move || store.save_seq_reserved(up_to));
        ctx.spawn(write.into_actor(self).map(move |written, actor, ctx| {
            match written {
                Ok(Ok(())) => actor.give(ctx, author::Input::Reserved { up_to }),
                // Nothing can be said once what is reserved is used up: it is tried until the disk takes it.
                Ok(Err(error)) => {
                    actor.common.observe(vec![Event::Error { kind: "store", detail: error.to_string() }]);
                    ctx.run_later(RESERVE_RETRY, move |actor, ctx| actor.reserve(up_to, ctx));
                }
                Err(error) => {
                    tracing::error!(%error, "sequence numbers were not reserved");
                    ctx.run_later(RESERVE_RETRY, move |actor, ctx| actor.reserve(up_to, ctx));
                }
            }
            if actor.flush == Flush::Begun {
                actor.flush(ctx);
            }
        }));
    }
}

impl Actor for AuthorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for AuthorActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        // Numbers up to the end of what was reserved may have been used.
        let stored = self.settings.store.as_ref().and_then(|store| store.seq_reserved().ok());
        let next = stored.unwrap_or(self.state.next_seq()).max(self.state.next_seq());
        self.state = Self::state(&self.settings, next);
        self.out = Outbox::new();
        self.waiting.clear();
        self.begin(ctx);
    }
}

/// Reserve the first sequence numbers.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

impl Handler<Begin> for AuthorActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

/// Publish a payload of the protocol's own; nobody waits for an answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Utter {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
}

impl Handler<Utter> for AuthorActor {
    type Result = ();

    fn handle(&mut self, Utter { channel, payload }: Utter, ctx: &mut Self::Context) {
        drop(self.submit(channel, payload, ctx));
    }
}

/// Publish a payload.
#[derive(Message)]
#[rtype(result = "Result<Published, BroadcastError>")]
pub(crate) struct Broadcast {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
}

impl Handler<Broadcast> for AuthorActor {
    type Result = ResponseFuture<Result<Published, BroadcastError>>;

    fn handle(&mut self, Broadcast { channel, payload }: Broadcast, ctx: &mut Self::Context) -> Self::Result {
        let answered = self.submit(channel, payload, ctx);
        Box::pin(async move { answered.await.unwrap_or(Err(BroadcastError::Stopped)) })
    }
}

/// How well the pattern cache serves, and the next sequence number.
#[derive(Message)]
#[rtype(result = "(CacheStats, Seq)")]
pub(crate) struct GetStats;

impl Handler<GetStats> for AuthorActor {
    type Result = MessageResult<GetStats>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.state.cache_stats(), self.state.next_seq()))
    }
}
