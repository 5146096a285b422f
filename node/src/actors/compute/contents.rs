//! Small outputs: they travel with their results, so that a driver has them without fetching one by one.

use std::num::NonZeroUsize;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use lru::LruCache;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::wire::{CONTENT_BYTES_MAX, Frame};
use omnimesh_protocol::{Hash, NodeId};

use super::ComputeActor;

/// Outputs that are remembered, until their results are sent or are known to be wanted here. Default: guess; some frames full.
const RECENT: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Outputs that wait to be written. What comes beyond is fetched like a large one. Default: guess.
const WAITING_MAX: usize = 4096;

/// Small outputs that were made here, or came with results of others.
#[derive(Debug)]
pub(super) struct Contents {
    recent: LruCache<Hash, Bytes>,
    /// To be written when the disk is free.
    waiting: Vec<Bytes>,
    is_writing: bool,
}

impl Default for Contents {
    fn default() -> Self {
        Contents { recent: LruCache::new(RECENT), waiting: Vec::new(), is_writing: false }
    }
}

impl Contents {
    /// One that was made here; it may be long.
    pub(super) fn made(&mut self, hash: Hash, content: Vec<u8>) {
        if content.len() <= CONTENT_BYTES_MAX {
            self.recent.put(hash, content.into());
        }
    }

    /// Those that a worker sends ahead of its results. What they are called is not its word.
    pub(super) fn came(&mut self, contents: Vec<Bytes>) {
        for content in contents {
            self.recent.put(BlobRef::of(&content).hash, content);
        }
    }
}

impl ComputeActor {
    /// Sends a frame of the worker; before results, what they are about, as far as it is small.
    pub(super) fn send_of_worker(&mut self, to: &NodeId, frame: &Frame) {
        if let Frame::Results { items, .. } = frame {
            let recent = &mut self.contents.recent;
            let known = items.iter().filter_map(|item| recent.get(&item.statement.result.hash).cloned());
            let known: Vec<Bytes> = known.collect();
            if !known.is_empty() {
                self.send(to, &Frame::Contents(known));
            }
        }
        self.send(to, frame);
    }

    /// Has an output of a task here: what came with its result is written, all else is fetched.
    pub(super) fn keep_output(&mut self, blob: BlobRef, ctx: &mut Context<Self>) {
        let content =
            self.contents.recent.get(&blob.hash).filter(|content| content.len() as u64 == blob.size);
        match content.cloned().filter(|_| self.contents.waiting.len() < WAITING_MAX) {
            Some(content) => {
                self.contents.waiting.push(content);
                self.write_on(ctx);
            }
            None => self.keep(blob, ctx),
        }
    }

    /// Writes what waits, all of it at once, if nothing is being written.
    fn write_on(&mut self, ctx: &mut Context<Self>) {
        if self.contents.is_writing || self.contents.waiting.is_empty() {
            return;
        }
        self.contents.is_writing = true;
        let contents = std::mem::take(&mut self.contents.waiting);
        let (store, life) = (Arc::clone(&self.settings.blobs), self.life);
        let written = actix_rt::task::spawn_blocking(move || {
            let put = |content: Bytes| match store.put_output(&content) {
                Ok(blob) => Some(blob.hash),
                Err(error) => {
                    tracing::debug!(%error, "an output of a job is not kept here");
                    None
                }
            };
            contents.into_iter().filter_map(put).collect::<Vec<Hash>>()
        });
        ctx.spawn(written.into_actor(self).map(move |written, actor, ctx| {
            if actor.life != life {
                return;
            }
            actor.contents.is_writing = false;
            let written = written.unwrap_or_default();
            actor.note_held(&written, ctx);
            actor.drive_all(written.into_iter().map(driver::Input::Holds), ctx);
            actor.write_on(ctx);
        }));
    }
}
