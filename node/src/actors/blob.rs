//! Blobs: the shell of [`omnimesh_protocol::compute::blob`] around the store on disk and the streams to peers.
//!
//! ```text
//!   Get ──► on disk? ──yes──► answer
//!            │ no
//!            ▼
//!   Want to all peers ──► Have: a size, and groups ──► room ──► Fetch ──► AskOutline, Get to holders ──► checked ──► disk
//!                                                        │ the size was a lie: the next one that somebody told
//!                                                        └─► answer
//!   peers' AskOutline, Get ──► threads that may block ──► Outline, Group, or Decline
//! ```
//!
//! Peers that hold a blob are asked at the same time; what they send is checked group by group before it is kept.

mod asked;
mod fetch;
mod requests;
mod serve;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::wire::{DecodeError, Frame};
use omnimesh_protocol::compute::blob::{FetchError, Outline, Pace};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::{Hash, NodeId};
use tokio::sync::oneshot;

use super::inbox::Inbox;
use super::members::Streams;
use super::{Common, MAILBOX, Mailbox};
use crate::store::blob::{BlobError, BlobStore};
use crate::swarm::{Class, Inbound, peer};

use asked::Asked;
use fetch::Fetching;
pub(crate) use requests::{Begin, Get};

/// Blobs that are fetched at once. Default: guess; more are refused.
const FETCHES_MAX: usize = 64;

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
    inbox: Inbox,
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
            inbox: Inbox::default(),
        }
    }

    fn send(&self, to: &NodeId, class: Class, frame: &Frame) {
        // What is shed is asked for again, of this peer or another.
        let _ = self.peers.send(to, class, frame.encode());
    }

    /// Does work on a thread that may block, and goes on with what came of it.
    fn block<T: Send + 'static>(
        &self,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&BlobStore) -> T + Send + 'static,
        then: impl FnOnce(&mut Self, &mut Context<Self>, T) + 'static,
    ) {
        let store = Arc::clone(&self.store);
        let done = actix_rt::task::spawn_blocking(move || work(&store));
        ctx.spawn(done.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(done) => then(actor, ctx, done),
            Err(error) => tracing::error!(%error, "work on the blobs' disk was not done"),
        }));
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
        self.inbox.listen(ctx);
    }
}

impl Supervised for BlobActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        let begun: Vec<Hash> =
            self.fetches.iter().filter(|(_, fetching)| fetching.is_begun()).map(|(hash, _)| *hash).collect();
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
