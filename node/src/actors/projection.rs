//! Projections of the log: how they are loaded at the start, and built anew.

use std::sync::Arc;

use actix::WeakAddr;
use actix::prelude::*;
use bytes::Bytes;
use futures::{Stream, stream};
use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::log::checkpoint::Base;
use omnimesh_protocol::log::{Entry, Record, StoreError, StoredLog};
use omnimesh_protocol::projection::{Projection, Replay};
use omnimesh_protocol::{NodeId, Outbox, Seq};

use super::log::{Found, LogActor};
use crate::store::log::{Damage, LogStore, Opened, ReadError};

/// Bytes of records read at once when a state is built.
const READ_BYTES: usize = 1 << 20;

/// A projection that a node keeps up with its log.
pub(crate) trait Kept: Projection + Default {
    /// Of which category it is.
    const CATEGORY: &'static str;

    /// Takes in what a checkpoint has of it, which stands for entries that are not here.
    fn take_base(&mut self, base: &Base, out: &mut Outbox<Self::Change>);
}

/// The state from its snapshot, the base if the snapshot is older, and the entries behind it. What is found damaged on
/// the way is cut, and told in `opened`.
///
/// # Errors
/// If the store cannot be read.
pub(crate) fn load<P: Kept>(store: &LogStore, opened: &mut Opened) -> Result<P, StoreError> {
    let Opened { logs, damage, .. } = opened;
    let (mut state, mut out) = (P::default(), Outbox::new());
    if let Some(snapshot) = store.snapshot(P::CATEGORY)?
        && let Err(error) = state.restore(&snapshot)
    {
        tracing::warn!(%error, category = P::CATEGORY, "a snapshot cannot be used; the whole log is read");
        state = P::default();
    }
    let mut is_whole = !logs.iter().any(|log| known(&state, log.author) < log.base.saturating_sub(1));
    for log in logs.iter() {
        let Some(proof) = &log.proof else { continue };
        is_whole &= state.cut(log.author, proof.end_at(log.head), &mut out) == Replay::NotNeeded;
    }
    if !is_whole {
        match store.base() {
            Ok(base) => state.take_base(&base, &mut out),
            // The node says so, and goes on without.
            Err(error) => {
                tracing::error!(%error, category = P::CATEGORY, "what was written before the entries that are here is lacking");
            }
        }
    }
    for log in logs {
        let from =
            if is_whole { known(&state, log.author).saturating_add(1).max(log.base) } else { log.base };
        let found = each_entry(store, log, from, |entry| {
            let _ = state.apply(&(&entry).into(), &mut out);
        })?;
        if let Some(cut) = found.as_ref().and_then(|found| found.log.clone()) {
            *log = cut;
        }
        damage.extend(found);
        let _ = out.drain();
    }
    Ok(state)
}

fn known<P: Projection>(state: &P, author: NodeId) -> Seq {
    state.heads().get(&author).map_or(Seq(0), |head| head.seq)
}

/// Gives each entry of a log from the record that covers `from` on, as far as there is no damage.
fn each_entry(
    store: &LogStore,
    log: &StoredLog,
    from: Seq,
    mut take: impl FnMut(Entry),
) -> Result<Option<Damage>, StoreError> {
    let mut next = from;
    if from > log.base && from <= log.head.seq {
        let found = match store.find(log.author, from) {
            Ok(found) => found,
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::Damaged(damage)) => return Ok(Some(*damage)),
        };
        if let Some(record) = found.and_then(|bytes| record_of(&bytes, store)) {
            next = record.last().saturating_add(1);
            record.to_entries().filter(|entry| entry.seq >= from).for_each(&mut take);
        }
    }
    while next <= log.head.seq {
        let records = match store.read(log.author, next, log.head.seq, READ_BYTES) {
            Ok(records) => records,
            Err(ReadError::Store(error)) => return Err(error),
            // What is fetched again comes as a change.
            Err(ReadError::Damaged(damage)) => return Ok(Some(*damage)),
        };
        let Some(last) = records.last().and_then(|bytes| record_of(bytes, store)) else { break };
        next = last.last().saturating_add(1);
        for bytes in &records {
            if let Some(record) = record_of(bytes, store) {
                record.to_entries().for_each(&mut take);
            }
        }
    }
    Ok(None)
}

fn record_of(bytes: &Bytes, store: &LogStore) -> Option<Record> {
    Record::new(Envelope::decode(bytes, store.message_bytes_max()).ok()?)
}

/// Some of all that a log holds.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the first: what stands for entries that are not here.
    pub(super) base: Option<Base>,
    pub(super) records: Vec<Record>,
    pub(super) damage: Vec<Damage>,
}

/// Everything that the store has, bit by bit, which bounds what is in memory.
pub(super) fn read_all(store: Arc<LogStore>) -> impl Stream<Item = Result<Batch, StoreError>> {
    stream::try_unfold((store, None), |(store, cursor): (_, Option<Cursor>)| async move {
        let read = actix_rt::task::spawn_blocking(move || {
            let read = next_batch(&store, cursor)?;
            Ok::<_, StoreError>(read.map(|(batch, cursor)| (batch, (store, Some(cursor)))))
        });
        read.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
    })
}

fn next_batch(store: &LogStore, cursor: Option<Cursor>) -> Result<Option<(Batch, Cursor)>, StoreError> {
    let Some(mut cursor) = cursor else {
        let base = Some(store.base()?);
        let (logs, damage) = store.logs_and_damage()?;
        let cursor = Cursor { logs: logs.into_iter(), current: None };
        return Ok(Some((Batch { base, damage, ..Batch::default() }, cursor)));
    };
    let batch = cursor.next_batch(store)?;
    let is_end = batch.records.is_empty() && batch.damage.is_empty();
    Ok((!is_end).then_some((batch, cursor)))
}

/// Where reading all entries has come to.
struct Cursor {
    logs: std::vec::IntoIter<StoredLog>,
    current: Option<(StoredLog, Seq)>,
}

impl Cursor {
    /// The next records, of one author; none at the end.
    fn next_batch(&mut self, store: &LogStore) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        loop {
            let (log, next) = match self.current.take() {
                Some(current) => current,
                None => match self.logs.next() {
                    Some(log) => {
                        let base = log.base;
                        (log, base)
                    }
                    None => return Ok(batch),
                },
            };
            let records = match store.read(log.author, next, log.head.seq, READ_BYTES) {
                Ok(records) => records,
                Err(ReadError::Store(error)) => return Err(error),
                // What is fetched again comes as a change.
                Err(ReadError::Damaged(found)) => {
                    batch.damage.push(*found);
                    continue;
                }
            };
            batch.records = records.iter().filter_map(|bytes| record_of(bytes, store)).collect();
            if let Some(last) = batch.records.last() {
                self.current = Some((log, last.last().saturating_add(1)));
                return Ok(batch);
            }
        }
    }
}

/// The log has to know where the store has cut it.
pub(super) fn tell_log<A>(log: &WeakAddr<LogActor>, damage: Vec<Damage>, actor: &A, ctx: &mut Context<A>)
where
    A: Actor<Context = Context<A>>,
{
    let Some(log) = log.upgrade() else { return };
    for found in damage {
        let told = log.send(Found(found)).into_actor(actor);
        ctx.spawn(told.map(|told, _, _| {
            if let Err(error) = told {
                tracing::warn!(%error, "the log was not told what is damaged");
            }
        }));
    }
}
