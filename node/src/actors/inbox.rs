//! What peers send to an actor, frame by frame. It outlives a restart of the actor.

use std::sync::{Arc, Mutex};
use std::task::Poll;

use actix::prelude::*;
use futures::stream;
use tokio::sync::mpsc;

use super::lock;
use crate::swarm::Inbound;

/// Frames are taken in together if they have come together, of so many reads at most: what they cause is then
/// done once, and the batch to verify is as large as it can be without waiting.
const READS_MAX: usize = 64;

/// See the [module](self). Nothing comes before the network has begun.
#[derive(Debug, Default)]
pub(super) struct Inbox(Arc<Mutex<Option<mpsc::Receiver<Inbound>>>>);

impl Inbox {
    /// The network has begun: here is what peers send.
    pub(super) fn open(&self, receiver: mpsc::Receiver<Inbound>) {
        *lock(&self.0) = Some(receiver);
    }

    /// Gives an actor what comes, if the network has begun.
    pub(super) fn listen<A>(&self, ctx: &mut Context<A>)
    where
        A: Actor<Context = Context<A>> + StreamHandler<Vec<Inbound>>,
    {
        if lock(&self.0).is_none() {
            return;
        }
        let inbound = Arc::clone(&self.0);
        ctx.add_stream(stream::poll_fn(move |cx| {
            let mut arrived = Vec::new();
            match &mut *lock(&inbound) {
                Some(receiver) => receiver.poll_recv_many(cx, &mut arrived, READS_MAX),
                None => Poll::Ready(0),
            }
            .map(|count| (count > 0).then_some(arrived))
        }));
    }
}
