//! What the other actors, and the node, ask of blobs.

use std::ops::Range;

use actix::prelude::*;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use tokio::sync::{mpsc, oneshot};

use super::asked::Asked;
use super::{BlobActor, GetError, Waiting};
use crate::actors::members::{PeerDown, PeerUp};
use crate::swarm::Inbound;

/// The network has begun: here is what peers send.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin(pub(crate) mpsc::Receiver<Inbound>);

impl Handler<Begin> for BlobActor {
    type Result = ();

    fn handle(&mut self, Begin(receiver): Begin, ctx: &mut Self::Context) {
        self.inbox.open(receiver);
        self.inbox.listen(ctx);
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
