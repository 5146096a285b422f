//! One task: its inputs are fetched, its operation is run, its output is kept.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::job::{Align, cut_lines, window};
use omnimesh_protocol::compute::ledger::{FailReason, Part};
use omnimesh_protocol::compute::wire::Assignment;
use omnimesh_protocol::compute::worker::{self, Done, RunId};
use tokio::sync::Semaphore;

use super::{ComputeActor, FETCHES_OF_TASK, Running};
use crate::actors::blob::{BlobActor, Get, GetError};
use crate::compute::ops::parquet;
use crate::compute::{self, Cancel, Context as Operations, Input, OpError, RowGroups, Task};
use crate::store::blob::{BlobStore, is_little, part_of};

/// How often it is looked which bytes of a Parquet file are missing: its end, its footer, its row groups; and again, if
/// some of them had to make room for others meanwhile.
const SEEKS_MAX: u32 = 8;

impl ComputeActor {
    /// Does a task; the worker hears what came of it.
    pub(super) fn run(&mut self, run: RunId, assignment: Assignment, ctx: &mut Context<Self>) {
        let Some(blobs) = self.blobs.upgrade() else { return };
        let from = Source { blobs, store: Arc::clone(&self.settings.blobs), room: Arc::clone(&self.fetches) };
        let program_max = self.settings.operations.sandbox.module_bytes_max();
        let fetched = async move {
            let fetched = match check_program(&assignment, program_max) {
                Ok(()) => fetch(&from, &assignment).await,
                Err(done) => Err(done),
            };
            (assignment, fetched)
        };
        let fetching =
            ctx.spawn(fetched.into_actor(self).map(move |(assignment, fetched), actor, ctx| match fetched {
                Ok(()) => actor.execute(run, assignment, ctx),
                Err(done) => actor.on_done(run, done, Vec::new(), ctx),
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
                let lost = |_| failed(FailReason::Unavailable, "the thread of the task was lost");
                let (done, output) = done.unwrap_or_else(|error| (lost(error), Vec::new()));
                actor.on_done(run, done, output, ctx);
            }
        }));
    }

    /// What a run came to, and its output.
    fn on_done(&mut self, run: RunId, done: Done, output: Vec<u8>, ctx: &mut Context<Self>) {
        if self.running.remove(&run).is_none() {
            return;
        }
        if let Done::Output { result, .. } = &done {
            self.contents.made(result.hash, output);
            self.note_held(&[result.hash], ctx);
        }
        self.work(worker::Input::Done { run, done }, ctx);
    }
}

fn failed(reason: FailReason, detail: impl Into<String>) -> Done {
    Done::Failed { reason, detail: detail.into(), missing: Vec::new() }
}

fn missing(blob: &BlobRef, error: &GetError) -> Done {
    Done::Failed { reason: FailReason::BlobMissing, detail: error.to_string(), missing: vec![blob.hash] }
}

/// Where inputs come from.
struct Source {
    blobs: Addr<BlobActor>,
    store: Arc<BlobStore>,
    room: Arc<Semaphore>,
}

impl Source {
    /// Has these bytes of a blob on this node's disk.
    async fn get(&self, blob: BlobRef, range: Range<u64>) -> Result<(), Done> {
        if self.store.has(&blob, &range) {
            return Ok(());
        }
        // Never closed.
        let _room = self.room.acquire().await;
        Get::part(&self.blobs, blob, range).await.map(drop).map_err(|error| missing(&blob, &error))
    }

    async fn get_part(&self, part: &Part, memory: u64) -> Result<(), Done> {
        match part {
            Part::Blob { blob, from, to, align: Align::RowGroup } => {
                let (blob, part) = (*blob, *from..*to);
                for _ in 0..SEEKS_MAX {
                    // A footer may be long: it is not read on the thread of the actors.
                    let (store, part) = (Arc::clone(&self.store), part.clone());
                    let sought = move || seek(&store, &blob, &part, memory);
                    let lost = |_| failed(FailReason::Unavailable, "the thread of the task was lost");
                    match actix_rt::task::spawn_blocking(sought).await.map_err(lost)?? {
                        Sought::Missing(range) => self.get(blob, range).await?,
                        Sought::Here { .. } => break,
                    }
                }
                Ok(())
            }
            Part::Blob { blob, from, to, align } => {
                let window = window(blob.size, *from, *to, *align);
                self.get(*blob, window.from..window.to).await
            }
            Part::Missing => Ok(()),
        }
    }
}

/// Refuses a program that would be refused when it has been read.
fn check_program(assignment: &Assignment, max: usize) -> Result<(), Done> {
    let size = assignment.action.program.map_or(0, |program| program.size);
    if size <= max as u64 {
        return Ok(());
    }
    Err(failed(FailReason::BadProgram, format!("the module has {size} bytes, more than {max}")))
}

/// Has all that a task reads on this node's disk, some of it at a time; or says all that is missing, so that it is made again
/// at once and not one after the other.
async fn fetch(from: &Source, assignment: &Assignment) -> Result<(), Done> {
    if let Some(program) = assignment.action.program {
        from.get(program, 0..program.size).await?;
    }
    let memory = assignment.limits.memory_bytes;
    let parts = assignment.parts.iter().map(|part| from.get_part(part, memory));
    let parts = stream::iter(parts).buffer_unordered(FETCHES_OF_TASK);
    parts.fold(Ok(()), |all, part| std::future::ready(both(all, part))).await
}

/// What two failures come to: what the first says, and all that is missing.
fn both(one: Result<(), Done>, other: Result<(), Done>) -> Result<(), Done> {
    let (mut first, second) = match (one, other) {
        (Err(first), Err(second)) => (first, second),
        (one, other) => return one.and(other),
    };
    if let (Done::Failed { missing, .. }, Done::Failed { missing: more, .. }) = (&mut first, second) {
        missing.extend(more);
    }
    Err(first)
}

/// Where the row groups are that begin in a part of a Parquet file.
enum Sought {
    /// It is not known before these bytes are here, or these are the row groups.
    Missing(Range<u64>),
    Here {
        footer: Bytes,
        bytes: Range<u64>,
    },
}

fn seek(store: &BlobStore, blob: &BlobRef, part: &Range<u64>, memory: u64) -> Result<Sought, Done> {
    let refused = |OpError { reason, detail }| failed(reason, detail);
    let tail = parquet::tail_of(blob.size);
    if !store.has(blob, &tail) {
        return Ok(Sought::Missing(tail));
    }
    let tail = bytes_of(store, blob, tail)?;
    let footer = parquet::footer_of(&tail, blob.size, memory).map_err(refused)?;
    if !store.has(blob, &footer) {
        return Ok(Sought::Missing(footer));
    }
    let footer = bytes_of(store, blob, footer)?;
    let bytes = parquet::row_groups_of(&footer, blob.size, part, memory).map_err(refused)?;
    if store.has(blob, &bytes) { Ok(Sought::Here { footer, bytes }) } else { Ok(Sought::Missing(bytes)) }
}

/// Runs a task whose inputs are here, on a thread that may block; gives its output, too.
fn execute(
    operations: &Operations,
    store: &Arc<BlobStore>,
    assignment: &Assignment,
    cancel: &Cancel,
) -> (Done, Vec<u8>) {
    // What is read is checked: if it is much, on all threads.
    let task = match is_little(&(0..to_read(assignment))) {
        true => read(store, assignment),
        false => operations.pool.install(|| read(store, assignment)),
    };
    let task = match task {
        Ok(task) => task,
        Err(done) => return (done, Vec::new()),
    };
    // Operations do not panic; if one does, it is that task's end and nobody else's.
    let output = catch_unwind(AssertUnwindSafe(|| compute::run(&task, operations, cancel)));
    let output = match output {
        Ok(Ok(output)) => output,
        Ok(Err(OpError { reason, detail })) => return (failed(reason, detail), Vec::new()),
        Err(_) => {
            let done = failed(FailReason::Program, "the operation has panicked; please report this");
            return (done, Vec::new());
        }
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let done = match store.put_output(&output.bytes) {
        Ok(result) => Done::Output { result, cpu_ms: ms(output.cpu), wall_ms: ms(output.wall) },
        Err(error) => failed(FailReason::Unavailable, format!("the output cannot be kept: {error}")),
    };
    (done, output.bytes)
}

/// How many bytes a task reads.
fn to_read(assignment: &Assignment) -> u64 {
    let program = assignment.action.program.map_or(0, |program| program.size);
    let parts = assignment.parts.iter().map(|part| match part {
        // Row groups are not as long as the part that they begin in.
        Part::Blob { align: Align::RowGroup, .. } => u64::MAX,
        Part::Blob { blob, from, to, align } => {
            let window = window(blob.size, *from, *to, *align);
            window.to.saturating_sub(window.from)
        }
        Part::Missing => 0,
    });
    parts.fold(program, u64::saturating_add)
}

fn read(store: &BlobStore, assignment: &Assignment) -> Result<Task, Done> {
    let action = &assignment.action;
    let program = action.program.map(|program| bytes_of(store, &program, 0..program.size)).transpose()?;
    let inputs = match &assignment.parts[..] {
        // Checking it is hashing it.
        [Part::Blob { blob, from: 0, to, .. }]
            if action.operation == "hash"
                && *to == blob.size
                && store.check(blob).map_err(|error| gone(blob, error.to_string()))? =>
        {
            vec![Input::checked(blob.hash)]
        }
        parts => {
            // What row groups take beside their parts, all of them together take of the task's memory.
            let mut memory = assignment.limits.memory_bytes;
            let mut read = |part| {
                let input = input(store, part, memory)?;
                memory = memory.saturating_sub(beside(&input));
                Ok(input)
            };
            parts.iter().map(&mut read).collect::<Result<_, _>>()?
        }
    };
    Ok(Task {
        operation: action.operation.clone(),
        params: action.params.clone(),
        program,
        inputs,
        limits: assignment.limits,
    })
}

fn input(store: &BlobStore, part: &Part, memory: u64) -> Result<Input, Done> {
    let Part::Blob { blob, from, to, align } = part else { return Ok(Input::missing()) };
    if *align == Align::RowGroup {
        let part = *from..*to;
        return match seek(store, blob, &part, memory)? {
            Sought::Here { footer, bytes } => Ok(Input {
                offset: bytes.start,
                bytes: Some(bytes_of(store, blob, bytes)?),
                hash: None,
                row_groups: Some(RowGroups { footer, size: blob.size, part }),
            }),
            Sought::Missing(_) => Err(gone(blob, made_room(blob))),
        };
    }
    let window = window(blob.size, *from, *to, *align);
    let bytes = bytes_of(store, blob, window.from..window.to)?;
    let bytes = match align {
        Align::Byte | Align::RowGroup => bytes,
        Align::Line => part_of(&bytes, cut_lines(&bytes, *from, (*to).min(blob.size))),
    };
    Ok(Input { bytes: Some(bytes), offset: *from, hash: None, row_groups: None })
}

/// What row groups, and the footer that says where they are, take beside the part that they begin in.
fn beside(input: &Input) -> u64 {
    let Some(RowGroups { footer, part, .. }) = &input.row_groups else { return 0 };
    let bytes = input.bytes.as_ref().map_or(0, Bytes::len) as u64;
    bytes.saturating_sub(part.end.saturating_sub(part.start)).saturating_add(footer.len() as u64)
}

fn made_room(blob: &BlobRef) -> String {
    format!("{} had to make room for others before the task began", blob.hash)
}

fn bytes_of(store: &BlobStore, blob: &BlobRef, range: std::ops::Range<u64>) -> Result<Bytes, Done> {
    match store.read(blob, range) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(gone(blob, made_room(blob))),
        Err(error) => Err(gone(blob, error.to_string())),
    }
}

fn gone(blob: &BlobRef, detail: String) -> Done {
    Done::Failed { reason: FailReason::BlobMissing, detail, missing: vec![blob.hash] }
}

#[cfg(test)]
mod tests {
    use omnimesh_protocol::Hash;
    use omnimesh_protocol::compute::job::{Action, Limits, Params};
    use omnimesh_protocol::compute::{AttemptId, JobId, TaskKey, TaskRef};

    use super::*;

    #[test]
    fn a_program_that_is_too_long_is_not_even_fetched() {
        let of = |size| {
            let program = Some(BlobRef { hash: Hash::of(b"module"), size });
            Assignment {
                attempt: AttemptId(1),
                job: JobId::from_bytes([1; 32]),
                task: TaskRef::new(0, 0),
                key: TaskKey::from_bytes([1; 32]),
                action: Arc::new(Action { operation: "wasm".to_owned(), program, params: Params::new() }),
                parts: [].into(),
                limits: Limits::default(),
            }
        };
        assert!(check_program(&of(9), 9).is_ok());
        let Err(Done::Failed { reason: FailReason::BadProgram, .. }) = check_program(&of(10), 9) else {
            panic!("it is too long")
        };
    }

    #[test]
    fn row_groups_share_the_memory_of_the_task() {
        let part = |bytes: usize| Input {
            bytes: Some(vec![0; bytes].into()),
            offset: 0,
            hash: None,
            row_groups: Some(RowGroups { footer: vec![0; 7].into(), size: 1 << 30, part: 100..200 }),
        };
        assert_eq!([90, 100, 150].map(|bytes| beside(&part(bytes))), [7, 7, 57]);
        assert_eq!(beside(&Input::whole(vec![1, 2, 3])), 0);
    }

    #[test]
    fn all_that_is_missing_is_told() {
        let lacks = |name: &[u8]| missing(&BlobRef::of(name), &GetError::NotFound(Hash::of(name)));
        let parts =
            [Ok(()), Err(lacks(b"a")), Ok(()), Err(lacks(b"b")), Err(failed(FailReason::Unavailable, "c"))];
        let Err(Done::Failed { reason, missing, .. }) = parts.into_iter().fold(Ok(()), both) else {
            panic!("two are missing")
        };
        assert_eq!(reason, FailReason::BlobMissing);
        assert_eq!(missing, [Hash::of(b"a"), Hash::of(b"b")]);
    }
}
