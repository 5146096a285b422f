//! One task: its inputs are fetched, its operation is run, its output is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::job::{Align, cut_lines, window};
use omnimesh_protocol::compute::ledger::{FailReason, Part};
use omnimesh_protocol::compute::wire::Assignment;
use omnimesh_protocol::compute::worker::{Done, RunId};

use super::{ComputeActor, Running};
use crate::actors::blob::{BlobActor, Get, GetError};
use crate::compute::{self, Cancel, Context as Operations, Input, OpError, Task};
use crate::store::blob::BlobStore;

impl ComputeActor {
    /// Does a task; the worker hears what came of it.
    pub(super) fn run(&mut self, run: RunId, assignment: Assignment, ctx: &mut Context<Self>) {
        let Some(blobs) = self.blobs.upgrade() else { return };
        let store = Arc::clone(&self.settings.blobs);
        let fetched = async move {
            let fetched = fetch(&blobs, &store, &assignment).await;
            (assignment, fetched)
        };
        let fetching =
            ctx.spawn(fetched.into_actor(self).map(move |(assignment, fetched), actor, ctx| match fetched {
                Ok(()) => actor.execute(run, assignment, ctx),
                Err(done) => actor.on_done(run, done, ctx),
            }));
        self.running.insert(run, Running::Fetching(fetching));
    }

    fn execute(&mut self, run: RunId, assignment: Assignment, ctx: &mut Context<Self>) {
        let cancel = Cancel::after(Duration::from_millis(assignment.limits.wall_ms));
        self.running.insert(run, Running::Working(cancel.clone()));
        let (operations, store) = (self.settings.operations.clone(), Arc::clone(&self.settings.blobs));
        let life = self.life;
        let work = move || execute(&operations, &store, &assignment, &cancel);
        let done = actix_rt::task::spawn_blocking(work);
        ctx.spawn(done.into_actor(self).map(move |done, actor, ctx| {
            if actor.life == life {
                let failed = |_| failed(FailReason::Unavailable, "the thread of the task was lost");
                actor.on_done(run, done.unwrap_or_else(failed), ctx);
            }
        }));
    }
}

fn failed(reason: FailReason, detail: impl Into<String>) -> Done {
    Done::Failed { reason, detail: detail.into(), missing: Vec::new() }
}

fn missing(blob: &BlobRef, error: &GetError) -> Done {
    Done::Failed { reason: FailReason::BlobMissing, detail: error.to_string(), missing: vec![blob.hash] }
}

/// Has all that a task reads on this node's disk.
async fn fetch(blobs: &Addr<BlobActor>, store: &BlobStore, assignment: &Assignment) -> Result<(), Done> {
    let program = assignment.action.program.map(|program| (program, 0..program.size));
    let parts = assignment.parts.iter().filter_map(|part| match part {
        Part::Blob { blob, from, to, align } => {
            let window = window(blob.size, *from, *to, *align);
            Some((*blob, window.from..window.to))
        }
        Part::Missing => None,
    });
    for (blob, range) in program.into_iter().chain(parts) {
        if !store.has(&blob, &range) {
            Get::part(blobs, blob, range).await.map_err(|error| missing(&blob, &error))?;
        }
    }
    Ok(())
}

/// Runs a task whose inputs are here, on a thread that may block.
fn execute(
    operations: &Operations,
    store: &Arc<BlobStore>,
    assignment: &Assignment,
    cancel: &Cancel,
) -> Done {
    let task = match read(store, assignment) {
        Ok(task) => task,
        Err(done) => return done,
    };
    // Operations do not panic; if one does, it is that task's end and nobody else's.
    let output = catch_unwind(AssertUnwindSafe(|| compute::run(&task, operations, cancel)));
    let output = match output {
        Ok(Ok(output)) => output,
        Ok(Err(OpError { reason, detail })) => return failed(reason, detail),
        Err(_) => return failed(FailReason::Program, "the operation has panicked; please report this"),
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match store.put_output(&output.bytes) {
        Ok(result) => Done::Output { result, cpu_ms: ms(output.cpu), wall_ms: ms(output.wall) },
        Err(error) => failed(FailReason::Unavailable, format!("the output cannot be kept: {error}")),
    }
}

fn read(store: &BlobStore, assignment: &Assignment) -> Result<Task, Done> {
    let action = &assignment.action;
    let program = action.program.map(|program| bytes_of(store, &program, 0..program.size)).transpose()?;
    let mut inputs = Vec::with_capacity(assignment.parts.len());
    for part in assignment.parts.iter() {
        inputs.push(match part {
            Part::Missing => Input { bytes: None, offset: 0 },
            Part::Blob { blob, from, to, align } => {
                let window = window(blob.size, *from, *to, *align);
                let bytes = bytes_of(store, blob, window.from..window.to)?;
                let bytes = match align {
                    Align::Byte => bytes,
                    Align::Line => bytes.slice_ref(cut_lines(&bytes, *from, (*to).min(blob.size))),
                };
                Input { bytes: Some(bytes), offset: *from }
            }
        });
    }
    Ok(Task {
        operation: action.operation.clone(),
        params: action.params.clone(),
        program,
        inputs,
        limits: assignment.limits,
    })
}

fn bytes_of(store: &BlobStore, blob: &BlobRef, range: std::ops::Range<u64>) -> Result<Bytes, Done> {
    let gone =
        |detail: String| Done::Failed { reason: FailReason::BlobMissing, detail, missing: vec![blob.hash] };
    match store.read(blob, range) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(gone(format!("{} had to make room for others before the task began", blob.hash))),
        Err(error) => Err(gone(error.to_string())),
    }
}
