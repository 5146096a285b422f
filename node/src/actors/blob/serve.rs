//! What peers ask for: read where one may block, and sent at the pace that the node is given for it. Who asks for more than
//! there is room for is told to ask again.

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::NodeId;
use omnimesh_protocol::compute::blob::wire::Frame;

use super::BlobActor;
use crate::store::blob::{BlobError, BlobStore};
use crate::swarm::Class;

/// Answers being made for one peer, and for all. Default: guess; four times what a fetch asks one holder for.
const SERVED_PER_PEER: usize = 16;
const SERVED_MAX: usize = 64;

impl BlobActor {
    /// Makes an answer where one may block, or declines.
    pub(super) fn serve(
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
        ctx.run_later(wait, move |actor, _| {
            actor.end_serving(&to);
            let _ = actor.peers.send(&to, Class::Own, frame);
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
}
