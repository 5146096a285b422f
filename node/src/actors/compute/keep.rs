//! Blobs of jobs that this node has: inputs of which it keeps a copy, outputs that the driver wants here, and what drivers
//! are told of them.

use actix::prelude::*;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::worker;
use omnimesh_protocol::compute::{BlobRef, JobId};

use super::ComputeActor;
use crate::actors::blob::Get;

/// Blobs that drivers are told of: those that came last.
const HELD: usize = 64;
/// Blobs of jobs that wait to be fetched, and how many are fetched at once. Default: guess.
const KEEPING_MAX: usize = 4096;
const KEEPS_AT_ONCE: usize = 8;

impl ComputeActor {
    /// Keeps the inputs of a job, if this node is among the first that would take it over, of those that it is connected to.
    pub(super) fn copy_inputs(&mut self, job: &JobId, ctx: &mut Context<Self>) {
        let Some(view) = self.driver.ledger().job(job) else { return };
        let (me, submitter) = (self.me(), view.submitter());
        let mine = job.rendezvous(&me);
        let before =
            self.peers.nodes().filter(|node| *node != submitter && job.rendezvous(node) > mine).count();
        if submitter == me || before >= self.settings.input_copies || view.is_finished() {
            return;
        }
        let inputs: Vec<BlobRef> = view.spec().inputs.iter().map(|input| input.blob).collect();
        let bytes = inputs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
        // What others need as well is not to go for it.
        let (_, bytes_max) = self.settings.blobs.bytes();
        if bytes <= bytes_max / 2 {
            inputs.into_iter().for_each(|blob| self.keep(blob, ctx));
        }
    }

    /// Has a blob here, from other nodes if need be; some at a time. What there is no room for is made again if it is
    /// lost.
    pub(super) fn keep(&mut self, blob: BlobRef, ctx: &mut Context<Self>) {
        if self.keeping.len() >= KEEPING_MAX {
            self.keeping.pop_front();
        }
        self.keeping.push_back(blob);
        self.keep_on(ctx);
    }

    fn keep_on(&mut self, ctx: &mut Context<Self>) {
        while self.keeps < KEEPS_AT_ONCE {
            let (Some(blobs), Some(blob)) = (self.blobs.upgrade(), self.keeping.pop_front()) else { return };
            self.keeps += 1;
            let life = self.life;
            let got = async move { Get::part(&blobs, blob, 0..blob.size).await };
            ctx.spawn(got.into_actor(self).map(move |got, actor, ctx| {
                if actor.life != life {
                    return;
                }
                actor.keeps -= 1;
                match got {
                    Ok(_) => {
                        actor.note_held(&[blob.hash], ctx);
                        actor.drive(driver::Input::Holds(blob.hash), ctx);
                    }
                    Err(error) => tracing::debug!(%error, "a blob of a job is not kept here"),
                }
                actor.keep_on(ctx);
            }));
        }
    }

    /// Tells drivers what is here, so that they send tasks to where their inputs are.
    pub(super) fn note_held(&mut self, hashes: &[Hash], ctx: &mut Context<Self>) {
        let last = hashes.len().saturating_sub(HELD)..;
        let mut new =
            hashes.get(last).unwrap_or(hashes).iter().filter(|hash| !self.held.contains(hash)).peekable();
        if new.peek().is_none() {
            return;
        }
        let new: Vec<Hash> = new.copied().collect();
        new.into_iter().for_each(|hash| self.held.push_front(hash));
        self.held.truncate(HELD);
        let held = self.held.iter().copied().collect();
        self.give_worker(worker::Input::Held(held), ctx);
    }
}
