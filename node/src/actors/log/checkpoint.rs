//! Checkpoints on disk, on threads that may block.

use std::sync::Arc;

use actix::prelude::*;
use libp2p::PeerId;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::log::{Input, Output, StoreError};

use super::LogActor;

impl LogActor {
    /// Carries out what the log wants done about checkpoints.
    pub(super) fn checkpoint(&mut self, output: Output<PeerId>, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.settings.store);
        let mesh = self.settings.mesh.id();
        match output {
            Output::Fold { token, step } => {
                self.block(ctx, move || {
                    let result = store.fold(mesh, step).map(Box::new);
                    if let Err(error) = &result {
                        tracing::warn!(%error, "no checkpoint was made");
                    }
                    Input::Folded { token, result }
                });
            }
            Output::Stage { token, checkpoint, part, index, bytes } => {
                self.block(ctx, move || {
                    let result = store.stage(checkpoint, part, index, &bytes);
                    Input::Staged { token, result }
                });
            }
            Output::Open { token, sealed } => {
                self.block(ctx, move || {
                    let result = store.open_checkpoint(&sealed);
                    if let Err(error) = &result {
                        tracing::warn!(%error, "a checkpoint from peers cannot be used");
                    }
                    Input::Staged { token, result }
                });
            }
            Output::ReadChunk { token, checkpoint, part, index } => {
                self.block(ctx, move || {
                    let result =
                        store.chunk(checkpoint, part, index).map(|chunk| chunk.into_iter().collect());
                    Input::Read { token, result }
                });
            }
            Output::Truncate { below, bytes_max } => {
                let done = actix_rt::task::spawn_blocking(move || store.drop_covered(below, bytes_max));
                ctx.spawn(done.into_actor(self).map(|done, actor, ctx| {
                    let done = done.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())));
                    match done {
                        Ok(logs) => {
                            let shorter = |(author, base)| Input::Truncated { author, base };
                            actor.give_all(ctx, logs.into_iter().map(shorter));
                        }
                        Err(error) => {
                            let detail =
                                format!("entries that a checkpoint covers could not be dropped: {error}");
                            tracing::error!("{detail}");
                            actor.common.observe(vec![Event::Error { kind: "log_not_dropped", detail }]);
                        }
                    }
                }));
            }
            _ => {}
        }
    }
}
