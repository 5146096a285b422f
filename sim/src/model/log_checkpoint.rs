//! Checkpoints of a simulated node's log: work for its disk, and what was sealed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use omnimesh_protocol::log::checkpoint::{Base, CHUNK_BYTES, Sealed, StoredCheckpoint};
use omnimesh_protocol::log::{self, Damaged, MemoryStore, Output, StoreError, Token};
use omnimesh_protocol::projection::{EntryRef, Projection};
use omnimesh_protocol::{Hash, MeshId, NodeId, Outbox, Seq, Step};

use super::log::Job;
use super::node::{Ctx, Node};

/// What the disk is to do, and takes its time for.
#[derive(Debug)]
pub(super) enum Work {
    Fold { token: Token, step: Step },
    Stage { token: Token, checkpoint: Hash, part: usize, index: u64, bytes: Bytes },
    Open { token: Token, sealed: Box<Sealed> },
    ReadChunk { token: Token, checkpoint: Hash, part: usize, index: u64 },
    Truncate { below: Step, bytes_max: Option<u64> },
}

/// A checkpoint that honest nodes have sealed on disk.
#[derive(Clone, Debug)]
pub(super) struct SealedNote {
    pub(super) stored: StoredCheckpoint,
    /// When and where for the first time.
    pub(super) first: (u64, u32),
    pub(super) nodes: u32,
}

/// By id.
pub(super) type SealedNotes = BTreeMap<Hash, SealedNote>;

/// A checkpoint came to stand for a log at a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct JumpNote {
    pub(super) author: NodeId,
    pub(super) to: Seq,
    pub(super) node: u32,
    pub(super) at: u64,
}

pub(super) fn note_sealed(notes: &mut SealedNotes, stored: &StoredCheckpoint, first: (u64, u32)) {
    let id = stored.sealed.checkpoint.id();
    merge_sealed(notes, id, SealedNote { stored: stored.clone(), first, nodes: 1 });
}

/// Adds what another shard has seen.
pub(super) fn merge_sealed(notes: &mut SealedNotes, id: Hash, note: SealedNote) {
    match notes.get_mut(&id) {
        None => drop(notes.insert(id, note)),
        Some(known) => {
            known.first = known.first.min(note.first);
            known.nodes += note.nodes;
        }
    }
}

/// What the log wants done about checkpoints; anything else comes back.
pub(super) fn work(output: Output<u32>) -> Result<Work, Output<u32>> {
    Ok(match output {
        Output::Fold { token, step } => Work::Fold { token, step },
        Output::Stage { token, checkpoint, part, index, bytes } => {
            Work::Stage { token, checkpoint, part, index, bytes }
        }
        Output::Open { token, sealed } => Work::Open { token, sealed },
        Output::ReadChunk { token, checkpoint, part, index } => {
            Work::ReadChunk { token, checkpoint, part, index }
        }
        Output::Truncate { below, bytes_max } => Work::Truncate { below, bytes_max },
        output => return Err(output),
    })
}

impl Node {
    pub(super) fn add_work(&mut self, work: Work, ctx: &mut Ctx<'_>) {
        let Some(drive) = &mut self.drive else { return };
        let write = match &work {
            Work::Stage { bytes, .. } => Some(bytes.len()),
            Work::Fold { .. } | Work::Truncate { .. } => Some(0),
            Work::Open { .. } | Work::ReadChunk { .. } => None,
        };
        let takes = drive.takes(write, ctx.shared, ctx.me, &mut ctx.sink.record);
        self.add_job(Job::Checkpoint(work), takes, ctx);
    }

    /// The disk has come to it.
    pub(super) fn on_work(&mut self, work: Work, ctx: &mut Ctx<'_>) {
        let Some(drive) = &mut self.drive else { return };
        let full = drive.full.inspect(|fault| ctx.sink.record.faults[*fault] += 1);
        let has_room = || if full.is_some() { Err(StoreError::Full) } else { Ok(()) };
        let mut inputs = VecDeque::new();
        match work {
            Work::Fold { token, step } => {
                let mesh = ctx.shared.mesh.id();
                let folded = match (has_room(), ctx.shared.scenario.sabotage.hollow_checkpoints) {
                    (Err(error), _) => Err(error),
                    (Ok(()), true) => Ok(fold_hollow(&mut drive.store, mesh, step)),
                    (Ok(()), false) => drive.store.fold(mesh, step).map_err(|damaged| {
                        inputs
                            .push_back(log::Input::Damaged(drive.on_damage(&damaged, &mut ctx.sink.record)));
                        damaged_at(&damaged)
                    }),
                };
                inputs.push_front(log::Input::Folded { token, result: folded.map(Box::new) });
            }
            Work::Stage { token, checkpoint, part, index, bytes } => {
                let result = has_room();
                if result.is_ok() {
                    drive.store.stage(checkpoint, part, index, bytes);
                }
                inputs.push_back(log::Input::Staged { token, result });
            }
            Work::Open { token, sealed } => {
                let result = drive.store.open_checkpoint(&sealed);
                inputs.push_back(log::Input::Staged { token, result });
            }
            Work::ReadChunk { token, checkpoint, part, index } => {
                let chunk = drive.store.chunk(checkpoint, part, index);
                inputs.push_back(log::Input::Read { token, result: Ok(chunk.into_iter().collect()) });
            }
            Work::Truncate { below, bytes_max } => {
                // What cannot be dropped now is dropped after the next checkpoint.
                let dropped = has_room().map(|()| drive.store.drop_covered(below, bytes_max));
                for (author, base) in dropped.into_iter().flatten() {
                    inputs.push_back(log::Input::Truncated { author, base });
                }
            }
        }
        self.log_all(inputs, ctx);
    }
}

pub(super) fn damaged_at(damaged: &Damaged) -> StoreError {
    StoreError::Damaged(format!("a record at {}", damaged.first.0))
}

/// The checkpoint of a step with a state in which nothing is; broken on purpose.
fn fold_hollow(store: &mut MemoryStore, mesh: MeshId, step: Step) -> StoredCheckpoint {
    let mut hollow = Base::default();
    for (_, records) in store.logs() {
        for record in records.flatten().take_while(|record| record.step() < step) {
            hollow.end_at(record);
            for entry in record.to_entries() {
                let entry = EntryRef { category: "nobody's", ..EntryRef::from(&entry) };
                let _ = hollow.registry.apply(&entry, &mut Outbox::new());
            }
        }
    }
    let (sealed, parts) = hollow.checkpoint(mesh, step);
    for (part, bytes) in parts.iter().enumerate() {
        for (index, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
            store.stage(sealed.checkpoint.id(), part, index, bytes.slice_ref(chunk));
        }
    }
    StoredCheckpoint { sealed, cut: hollow.cut }
}
