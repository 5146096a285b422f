//! Blobs: the shell of [`omnimesh_protocol::compute::blob`] around the store on disk and the streams to peers.
//!
//! ```text
//!   Get ──► on disk? ──yes──► answer
//!            │ no
//!            ▼
//!   Want to all peers ──► Have: a size, and groups ──► Fetch ──► AskOutline, Get to holders ──► checked ──► disk
//!                                                        │ the size was a lie: the next one that somebody told
//!                                                        └─► answer
//!   peers' AskOutline, Get ──► threads that may block ──► Outline, Group, or Decline
//! ```
//!
//! Peers that hold a blob are asked at the same time; what they send is checked group by group before it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::wire::{DecodeError, Frame, Held};
use omnimesh_protocol::compute::blob::{
    Fetch, FetchConfig, FetchError, Groups, Input, Outline, Output, Pace,
};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::{Hash, NodeId, Outbox};
use tokio::sync::{mpsc, oneshot};

use super::gossip::{self, lock};
use super::members::{PeerDown, PeerUp, Streams};
use super::{Common, MAILBOX, Mailbox};
use crate::store::blob::{BlobError, BlobStore};
use crate::swarm::{Class, Inbound, peer};

/// Blobs that are fetched at once. Default: guess; more are refused.
const FETCHES_MAX: usize = 64;
/// Answers being made for one peer, and for all. Default: guess; four times what a fetch asks one holder for.
const SERVED_PER_PEER: usize = 16;
const SERVED_MAX: usize = 64;
/// How long peers have to say what they hold before those who said nothing are not waited for. Default: guess.
const SILENCE: Duration = Duration::from_secs(5);
/// How often peers are asked again what they hold while a fetch goes on: somebody may have got it, or be less busy.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Why a blob was not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// Nobody has it.
    #[error("no connected node has the blob {0}")]
    NotFound(Hash),
    /// Those who have it do not give it.
    #[error("{hash}: {error}")]
    Fetch {
        /// Which.
        hash: Hash,
        /// Why.
        error: FetchError,
    },
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Too many are being fetched.
    #[error("{FETCHES_MAX} blobs are being fetched already; try again")]
    Busy,
    /// A node without a data directory keeps no blobs.
    #[error("this node keeps no blobs: it has no data directory")]
    NoStore,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

type Answer = oneshot::Sender<Result<BlobRef, GetError>>;

/// Somebody who waits for a blob, or for a part of one whose length is known.
#[derive(Debug)]
struct Waiting {
    part: Option<(u64, Range<u64>)>,
    answer: Answer,
}

#[derive(Debug)]
pub(crate) struct BlobActor {
    pub(super) common: Common,
    store: Arc<BlobStore>,
    peers: Streams,
    fetches: BTreeMap<Hash, Fetching>,
    asked: BTreeMap<u64, (NodeId, Asked)>,
    next_id: u64,
    serving: BTreeMap<NodeId, usize>,
    pace: Pace,
    inbound: Arc<Mutex<Option<mpsc::Receiver<Inbound>>>>,
    /// Counts the machines, so that answers to an earlier one are known.
    life: u64,
}

/// What a peer was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Want(Hash),
    Outline(Hash),
    Group(Hash, u64),
}

impl Asked {
    fn hash(self) -> Hash {
        match self {
            Asked::Want(hash) | Asked::Outline(hash) | Asked::Group(hash, _) => hash,
        }
    }
}

/// A blob that somebody waits for.
#[derive(Debug, Default)]
struct Fetching {
    waiting: Vec<Waiting>,
    /// What peers say they hold of it.
    held: BTreeMap<NodeId, (u64, Groups)>,
    /// Who was asked and has not said anything.
    silent: BTreeSet<NodeId>,
    /// Nobody is waited for any more.
    is_settled: bool,
    /// Lengths that turned out wrong.
    tried: BTreeSet<u64>,
    /// The store makes room for it.
    is_beginning: bool,
    run: Option<Run>,
    last_error: Option<FetchError>,
}

#[derive(Debug)]
struct Run {
    fetch: Fetch,
    range: Range<u64>,
    /// Groups on their way to disk.
    writes: usize,
    is_done: bool,
}

impl BlobActor {
    pub(crate) fn new(common: Common, store: Arc<BlobStore>, pace: Pace) -> Self {
        BlobActor {
            common,
            store,
            peers: Streams::default(),
            fetches: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_id: 0,
            serving: BTreeMap::new(),
            pace,
            inbound: Arc::default(),
            life: 0,
        }
    }

    fn send(&self, to: &NodeId, class: Class, frame: &Frame) {
        // What is shed is asked for again, of this peer or another.
        let _ = self.peers.send(to, class, frame.encode());
    }

    fn ask(&mut self, node: NodeId, asked: Asked) {
        self.next_id += 1;
        let id = self.next_id;
        let frame = match asked {
            Asked::Want(hash) => Frame::Want { id, hashes: vec![hash] },
            Asked::Outline(hash) => Frame::AskOutline { id, hash },
            Asked::Group(hash, group) => Frame::Get { id, hash, group },
        };
        self.asked.insert(id, (node, asked));
        self.send(&node, Class::Control, &frame);
    }

    /// Does work on a thread that may block, and goes on with what came of it.
    fn block<T: Send + 'static>(
        &self,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&BlobStore) -> T + Send + 'static,
        then: impl FnOnce(&mut Self, &mut Context<Self>, T) + 'static,
    ) {
        let (store, life) = (Arc::clone(&self.store), self.life);
        let done = actix_rt::task::spawn_blocking(move || work(&store));
        ctx.spawn(done.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(done) if actor.life == life => then(actor, ctx, done),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "work on the blobs' disk was not done"),
        }));
    }

    fn get(&mut self, hash: Hash, waiting: Waiting, ctx: &mut Context<Self>) {
        if let Some(blob) = self.there(&hash, waiting.part.as_ref()) {
            drop(waiting.answer.send(Ok(blob)));
            return;
        }
        if let Some(fetching) = self.fetches.get_mut(&hash) {
            fetching.waiting.push(waiting);
            return self.proceed(hash, ctx);
        }
        if self.fetches.len() >= FETCHES_MAX {
            drop(waiting.answer.send(Err(GetError::Busy)));
            return;
        }
        let silent: BTreeSet<NodeId> = self.peers.nodes().collect();
        let fetching = Fetching { waiting: vec![waiting], silent: silent.clone(), ..Fetching::default() };
        self.fetches.insert(hash, fetching);
        silent.into_iter().for_each(|node| self.ask(node, Asked::Want(hash)));
        let life = self.life;
        ctx.run_later(SILENCE, move |actor, ctx| {
            if actor.life == life
                && let Some(fetching) = actor.fetches.get_mut(&hash)
            {
                fetching.is_settled = true;
                actor.proceed(hash, ctx);
            }
        });
        self.ask_again(hash, ctx);
        self.proceed(hash, ctx);
    }

    fn ask_again(&self, hash: Hash, ctx: &mut Context<Self>) {
        let life = self.life;
        ctx.run_later(ASK_AGAIN, move |actor, ctx| {
            if actor.life == life && actor.fetches.contains_key(&hash) {
                let is_asked = |node: &NodeId| {
                    let wants = |(asked, what): &(NodeId, Asked)| asked == node && *what == Asked::Want(hash);
                    actor.asked.values().any(wants)
                };
                let nodes: Vec<NodeId> = actor.peers.nodes().filter(|node| !is_asked(node)).collect();
                nodes.into_iter().for_each(|node| actor.ask(node, Asked::Want(hash)));
                actor.ask_again(hash, ctx);
            }
        });
    }

    /// The blob, if it is here, or the part of it that is wanted.
    fn there(&self, hash: &Hash, part: Option<&(u64, Range<u64>)>) -> Option<BlobRef> {
        let whole = self.store.whole(hash);
        match part {
            None => whole,
            Some((size, range)) => {
                let blob = BlobRef { hash: *hash, size: *size };
                (whole == Some(blob) || self.store.has(&blob, range)).then_some(blob)
            }
        }
    }

    /// Begins with a length that is known or that peers told, if nothing is under way; or ends if there is none.
    fn proceed(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        if fetching.run.is_some() || fetching.is_beginning {
            return;
        }
        let is_untried = |size: &u64| !fetching.tried.contains(size);
        let mut parts = fetching.waiting.iter().filter_map(|waiting| waiting.part.clone());
        let part = parts.find(|(size, _)| is_untried(size));
        let Some((size, range)) = part.or_else(|| {
            let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
            let told = fetching.held.values().map(|(size, _)| *size).filter(is_untried);
            told.for_each(|size| *sizes.entry(size).or_default() += 1);
            // The one that most say.
            sizes.into_iter().max_by_key(|(_, count)| *count).map(|(size, _)| (size, 0..size))
        }) else {
            let wants_part = fetching.waiting.iter().all(|waiting| waiting.part.is_some());
            if fetching.silent.is_empty() || fetching.is_settled || wants_part {
                let error = fetching.last_error;
                let error = error.map_or(GetError::NotFound(hash), |error| GetError::Fetch { hash, error });
                self.end(hash, &Err(error));
            }
            return;
        };
        fetching.is_beginning = true;
        let blob = BlobRef { hash, size };
        self.block(
            ctx,
            move |store| store.begin_fetch(blob),
            move |actor, ctx, begun| match begun {
                Ok((there, outline)) => actor.begin(blob, range, &there, outline.as_deref().cloned(), ctx),
                Err(error) => actor.end(hash, &Err(error.into())),
            },
        );
    }

    fn begin(
        &mut self,
        blob: BlobRef,
        range: Range<u64>,
        there: &Groups,
        outline: Option<Outline>,
        ctx: &mut Context<Self>,
    ) {
        let (now, mut out) = (self.common.now(), Outbox::new());
        let config = FetchConfig::default();
        let fetch = Fetch::new(config, now, blob, range.clone(), there, outline, &mut out);
        let Some(fetching) = self.fetches.get_mut(&blob.hash) else { return };
        fetching.is_beginning = false;
        fetching.run = Some(Run { fetch, range, writes: 0, is_done: false });
        let holders: Vec<_> = fetching.held.iter().filter(|(_, (size, _))| *size == blob.size).collect();
        let inputs: Vec<_> = holders
            .into_iter()
            .map(|(peer, (_, groups))| Input::Has { peer: *peer, groups: groups.clone() })
            .collect();
        self.carry_out(blob.hash, out.drain().collect(), ctx);
        inputs.into_iter().for_each(|input| self.give(blob.hash, input, ctx));
    }

    fn give(&mut self, hash: Hash, input: Input, ctx: &mut Context<Self>) {
        let (now, mut out) = (self.common.now(), Outbox::new());
        let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut()) else {
            return;
        };
        self.common.clone().guard("blob", ctx, || run.fetch.handle(now, input, &mut out));
        self.carry_out(hash, out.drain().collect(), ctx);
    }

    fn carry_out(&mut self, hash: Hash, outputs: Vec<Output>, ctx: &mut Context<Self>) {
        for output in outputs {
            match output {
                Output::AskOutline(node) => self.ask(node, Asked::Outline(hash)),
                Output::Ask { peer, group } => self.ask(peer, Asked::Group(hash, group)),
                Output::Outline(outline) => {
                    self.count_write(hash);
                    self.block(
                        ctx,
                        move |store| store.put_outline(outline),
                        move |actor, ctx, done| {
                            actor.on_written(hash, done, ctx);
                        },
                    );
                }
                Output::Store { group, bytes } => {
                    self.count_write(hash);
                    let write = move |store: &BlobStore| store.put_group(&hash, group, &bytes);
                    self.block(ctx, write, move |actor, ctx, done| actor.on_written(hash, done, ctx));
                }
                Output::Done => {
                    if let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut())
                    {
                        run.is_done = true;
                    }
                    self.end_if_done(hash, ctx);
                }
                Output::Failed(error) => self.on_failed(hash, error, ctx),
                Output::Misbehaved(node) => {
                    let reason = "it sent what is not the blob that it was asked for".to_owned();
                    self.common.observe(vec![Event::BadFrame {
                        from: peer::peer_id(&node),
                        stream: "blob",
                        reason,
                    }]);
                }
                Output::Timer { at, timer } => {
                    let life = self.life;
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        if actor.life == life {
                            actor.give(hash, Input::Timer(timer), ctx);
                        }
                    });
                }
            }
        }
    }

    fn count_write(&mut self, hash: Hash) {
        if let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut()) {
            run.writes += 1;
        }
    }

    fn on_written(&mut self, hash: Hash, done: Result<(), BlobError>, ctx: &mut Context<Self>) {
        if let Err(error) = done {
            self.release(hash, ctx);
            return self.end(hash, &Err(error.into()));
        }
        if let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut()) {
            run.writes = run.writes.saturating_sub(1);
        }
        self.end_if_done(hash, ctx);
    }

    fn end_if_done(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(run) = self.fetches.get(&hash).and_then(|fetching| fetching.run.as_ref()) else { return };
        if !run.is_done || run.writes > 0 {
            return;
        }
        self.block(
            ctx,
            move |store| store.end_fetch(&hash),
            move |actor, ctx, done| match done {
                Ok(_) => actor.on_done(hash, ctx),
                Err(error) => actor.end(hash, &Err(error.into())),
            },
        );
    }

    /// Answers those whose part is here, and goes on for the others.
    fn on_done(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        let Some(Run { fetch, range, .. }) = fetching.run.take() else { return };
        let waiting = std::mem::take(&mut fetching.waiting);
        let mut left = Vec::new();
        for waiting in waiting {
            match self.there(&hash, waiting.part.as_ref()) {
                Some(blob) => drop(waiting.answer.send(Ok(blob))),
                None => left.push(waiting),
            }
        }
        // Fetched, and not there: what was on disk before is damaged, or goes while it comes.
        let is_damaged = |waiting: &Waiting| match &waiting.part {
            None => range == (0..fetch.blob().size),
            Some((size, part)) => *size == fetch.blob().size && *part == range,
        };
        if left.is_empty() || left.iter().any(is_damaged) {
            if let Some(fetching) = self.fetches.get_mut(&hash) {
                fetching.waiting = left;
            }
            return self.end(hash, &Err(BlobError::Damaged { hash }.into()));
        }
        if let Some(fetching) = self.fetches.get_mut(&hash) {
            fetching.waiting = left;
        }
        self.proceed(hash, ctx);
    }

    /// With this length nobody gives it: there may be another one.
    fn on_failed(&mut self, hash: Hash, error: FetchError, ctx: &mut Context<Self>) {
        self.release(hash, ctx);
        if let Some(fetching) = self.fetches.get_mut(&hash) {
            fetching.tried.extend(fetching.run.take().map(|run| run.fetch.blob().size));
            fetching.last_error = Some(error);
            fetching.is_settled = true;
            self.proceed(hash, ctx);
        }
    }

    /// The store need not keep room for it any more.
    fn release(&self, hash: Hash, ctx: &mut Context<Self>) {
        self.block(
            ctx,
            move |store| store.end_fetch(&hash),
            |_, _, done| {
                if let Err(error) = done {
                    tracing::warn!(%error, "a blob's fetch could not be ended");
                }
            },
        );
    }

    /// Answers all who wait.
    fn end(&mut self, hash: Hash, result: &Result<BlobRef, GetError>) {
        self.asked.retain(|_, (_, asked)| asked.hash() != hash);
        let Some(fetching) = self.fetches.remove(&hash) else { return };
        fetching.waiting.into_iter().for_each(|waiting| drop(waiting.answer.send(result.clone())));
    }

    fn on_frame(&mut self, from: NodeId, frame: &Bytes, ctx: &mut Context<Self>) {
        let reason = match Frame::decode(frame) {
            Ok(frame) => return self.on_request(from, frame, ctx),
            Err(DecodeError::UnknownKind(_)) => return,
            Err(error) => error.to_string(),
        };
        let from = peer::peer_id(&from);
        self.common.observe(vec![Event::BadFrame { from, stream: "blob", reason }]);
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, super::swarm::Disconnect(from));
    }

    fn on_request(&mut self, from: NodeId, frame: Frame, ctx: &mut Context<Self>) {
        match frame {
            Frame::Want { id, hashes } => {
                let held = self.store.held(&hashes);
                self.send(&from, Class::Control, &Frame::Have { id, held });
            }
            Frame::AskOutline { id, hash } => self.serve(from, id, ctx, move |store| {
                let outline = store.outline(&hash)?;
                let frame = |outline: Arc<Outline>| Frame::Outline {
                    id,
                    size: outline.blob().size,
                    values: outline.to_bytes().into(),
                };
                Ok(outline.map(frame))
            }),
            Frame::Get { id, hash, group } => self.serve(from, id, ctx, move |store| {
                Ok(store.group(&hash, group)?.map(|bytes| Frame::Group { id, bytes }))
            }),
            Frame::Have { id, held } => self.on_have(from, id, held, ctx),
            Frame::Outline { id, values, .. } => self.on_answer(from, id, Some(values), ctx),
            Frame::Group { id, bytes } => self.on_answer(from, id, Some(bytes), ctx),
            Frame::Decline { id, is_busy } => self.on_decline(from, id, is_busy, ctx),
        }
    }

    /// Makes an answer where one may block, or declines.
    fn serve(
        &mut self,
        to: NodeId,
        id: u64,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&BlobStore) -> Result<Option<Frame>, BlobError> + Send + 'static,
    ) {
        let all: usize = self.serving.values().sum();
        let own = self.serving.entry(to).or_default();
        let is_late = self.pace.wait(self.common.now()).is_none();
        if *own >= SERVED_PER_PEER || all >= SERVED_MAX || is_late {
            return self.send(&to, Class::Control, &Frame::Decline { id, is_busy: true });
        }
        *own += 1;
        self.block(ctx, work, move |actor, ctx, done| {
            let frame = match done {
                Ok(Some(frame)) => return actor.answer(to, id, frame.encode(), ctx),
                Ok(None) => Frame::Decline { id, is_busy: false },
                Err(error) => {
                    tracing::error!("{error}");
                    Frame::Decline { id, is_busy: false }
                }
            };
            actor.end_serving(&to);
            actor.send(&to, Class::Control, &frame);
        });
    }

    /// Sends an answer when the pace has room for it; it is being made until then.
    fn answer(&mut self, to: NodeId, id: u64, frame: Bytes, ctx: &mut Context<Self>) {
        let Some(wait) = self.pace.admit(self.common.now(), frame.len() as u64) else {
            self.end_serving(&to);
            return self.send(&to, Class::Control, &Frame::Decline { id, is_busy: true });
        };
        if wait.is_zero() {
            self.end_serving(&to);
            let _ = self.peers.send(&to, Class::Own, frame);
            return;
        }
        let life = self.life;
        ctx.run_later(wait, move |actor, _| {
            if actor.life == life {
                actor.end_serving(&to);
                let _ = actor.peers.send(&to, Class::Own, frame);
            }
        });
    }

    fn end_serving(&mut self, to: &NodeId) {
        if let Some(own) = self.serving.get_mut(to) {
            *own -= 1;
            if *own == 0 {
                self.serving.remove(to);
            }
        }
    }

    fn on_have(&mut self, from: NodeId, id: u64, held: Vec<Held>, ctx: &mut Context<Self>) {
        let Some((_, Asked::Want(hash))) = self.take_asked(from, id) else { return };
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        fetching.silent.remove(&from);
        // What could not be kept here is not asked for.
        let (_, bytes_max) = self.store.bytes();
        let held = held.into_iter().find(|held| held.hash == hash && held.size <= bytes_max);
        let Some(Held { size, groups, .. }) = held else {
            return self.proceed(hash, ctx);
        };
        fetching.held.insert(from, (size, groups.clone()));
        match &fetching.run {
            Some(run) if run.fetch.blob().size == size => {
                self.give(hash, Input::Has { peer: from, groups }, ctx);
            }
            _ => self.proceed(hash, ctx),
        }
    }

    fn on_answer(&mut self, from: NodeId, id: u64, bytes: Option<Bytes>, ctx: &mut Context<Self>) {
        match self.take_asked(from, id) {
            Some((peer, Asked::Outline(hash))) => {
                self.give(hash, Input::Outline { peer, values: bytes }, ctx);
            }
            Some((peer, Asked::Group(hash, group))) => {
                self.give(hash, Input::Group { peer, group, bytes }, ctx);
            }
            Some((_, Asked::Want(_))) | None => {}
        }
    }

    fn on_decline(&mut self, from: NodeId, id: u64, is_busy: bool, ctx: &mut Context<Self>) {
        match self.asked.get(&id) {
            // It has the outline, and may be asked again when it says anew what it has.
            Some((node, Asked::Outline(hash))) if is_busy && *node == from => {
                let hash = *hash;
                self.asked.remove(&id);
                self.give(hash, Input::Gone(from), ctx);
            }
            _ => self.on_answer(from, id, None, ctx),
        }
    }

    /// What this peer was asked under this number.
    fn take_asked(&mut self, from: NodeId, id: u64) -> Option<(NodeId, Asked)> {
        self.asked.get(&id).filter(|(node, _)| *node == from)?;
        self.asked.remove(&id)
    }

    fn part_from(&mut self, node: NodeId, ctx: &mut Context<Self>) {
        self.asked.retain(|_, (asked, _)| *asked != node);
        let hashes: Vec<Hash> = self.fetches.keys().copied().collect();
        for hash in hashes {
            if let Some(fetching) = self.fetches.get_mut(&hash) {
                fetching.silent.remove(&node);
                fetching.held.remove(&node);
            }
            self.give(hash, Input::Gone(node), ctx);
            self.proceed(hash, ctx);
        }
    }

    fn on_inbound(&mut self, inbound: Inbound, ctx: &mut Context<Self>) {
        match inbound {
            Inbound::Frames { peer: from, frames, held: _held } => {
                if let Some(node) = self.peers.sender(self.common.now(), from, &frames) {
                    frames.iter().for_each(|frame| self.on_frame(node, frame, ctx));
                }
            }
            Inbound::Malformed { peer: from, reason } => {
                let reason = reason.to_string();
                self.common.observe(vec![Event::BadFrame { from, stream: "blob", reason }]);
                self.common.send(Mailbox::Swarm, &self.common.links().swarm, super::swarm::Disconnect(from));
            }
        }
    }
}

impl Actor for BlobActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        if lock(&self.inbound).is_some() {
            ctx.add_stream(gossip::inbound_stream(Arc::clone(&self.inbound)));
        }
    }
}

impl Supervised for BlobActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        if self.common.is_stopping() {
            return ctx.stop();
        }
        let begun: Vec<Hash> = self
            .fetches
            .iter()
            .filter(|(_, fetching)| fetching.run.is_some())
            .map(|(hash, _)| *hash)
            .collect();
        self.life += 1;
        // Dropping the answers tells those who wait.
        self.fetches.clear();
        (self.asked, self.serving) = (BTreeMap::new(), BTreeMap::new());
        begun.into_iter().for_each(|hash| self.release(hash, ctx));
    }
}

impl StreamHandler<Vec<Inbound>> for BlobActor {
    fn handle(&mut self, arrived: Vec<Inbound>, ctx: &mut Self::Context) {
        for inbound in arrived {
            self.on_inbound(inbound, ctx);
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

/// The network has begun: here is what peers send.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin(pub(crate) mpsc::Receiver<Inbound>);

impl Handler<Begin> for BlobActor {
    type Result = ();

    fn handle(&mut self, Begin(receiver): Begin, ctx: &mut Self::Context) {
        *lock(&self.inbound) = Some(receiver);
        ctx.add_stream(gossip::inbound_stream(Arc::clone(&self.inbound)));
    }
}

impl Handler<PeerUp> for BlobActor {
    type Result = ();

    fn handle(&mut self, up: PeerUp, ctx: &mut Self::Context) {
        let node = up.node;
        let early = self.peers.up(up);
        let hashes: Vec<Hash> = self.fetches.keys().copied().collect();
        for hash in hashes {
            if let Some(fetching) = self.fetches.get_mut(&hash) {
                fetching.silent.insert(node);
            }
            self.ask(node, Asked::Want(hash));
        }
        early.iter().for_each(|frame| self.on_frame(node, frame, ctx));
    }
}

impl Handler<PeerDown> for BlobActor {
    type Result = ();

    fn handle(&mut self, PeerDown(peer): PeerDown, ctx: &mut Self::Context) {
        if let Some(node) = self.peers.down(peer) {
            self.part_from(node, ctx);
        }
    }
}

/// Have a blob here, or a part of one: it is fetched from peers if it is not.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Get {
    hash: Hash,
    waiting: Waiting,
}

impl Get {
    /// Gets a blob, and waits for it.
    pub(crate) async fn from(blobs: &Addr<BlobActor>, hash: Hash) -> Result<BlobRef, GetError> {
        Get::ask(blobs, hash, None).await
    }

    /// Gets these bytes of a blob, and some around them, and waits for them.
    pub(crate) async fn part(
        blobs: &Addr<BlobActor>,
        blob: BlobRef,
        range: Range<u64>,
    ) -> Result<BlobRef, GetError> {
        Get::ask(blobs, blob.hash, Some((blob.size, range))).await
    }

    async fn ask(
        blobs: &Addr<BlobActor>,
        hash: Hash,
        part: Option<(u64, Range<u64>)>,
    ) -> Result<BlobRef, GetError> {
        let (answer, answered) = oneshot::channel();
        let get = Get { hash, waiting: Waiting { part, answer } };
        blobs.send(get).await.map_err(|_| GetError::Stopped)?;
        answered.await.unwrap_or(Err(GetError::Stopped))
    }
}

impl Handler<Get> for BlobActor {
    type Result = ();

    fn handle(&mut self, Get { hash, waiting }: Get, ctx: &mut Self::Context) {
        self.get(hash, waiting, ctx);
    }
}
