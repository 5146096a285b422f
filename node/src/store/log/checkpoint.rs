//! Checkpoints on disk, the base, and the records that go because of them.
//!
//! The base is kept as two snapshots, a cut and a state, and the id of the checkpoint that it was last brought up to.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use omnimesh_protocol::log::checkpoint::{
    Base, CHUNK_BYTES, CUT, Checkpoint, Cut, Part, Sealed, StoredCheckpoint, kept,
};
use omnimesh_protocol::log::{Record, StoreError};
use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::{Hash, MeshId, NodeId, Seq, Step};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::{
    CHECKPOINTS, CHUNKS, Damage, Failure, LOGS, LogStore, RECORDS, Row, SNAPSHOTS, decode_row, opened,
    put_row, sealed, stored,
};

const BASE_CUT: &str = "base.cut";
const BASE_REGISTRY: &str = "base.registry";
const BASE_HEADS: &str = "base.heads";
/// The checkpoint that the base contains.
const BASE_ID: &str = "base.id";
/// Records dropped in one transaction. A guess: some ten milliseconds in which others wait to write.
const DROP_RECORDS: usize = 2048;
/// Authors there may be in a cut that this node has taken or made: it bounds them when it takes one.
const AUTHORS_MAX: usize = usize::MAX;

type Key = (&'static [u8; 32], u64, u64);

fn damaged(what: &str) -> Failure {
    Failure(StoreError::Damaged(what.to_owned()))
}

fn chunk_key(id: &[u8; 32], part: u64, index: u64) -> Vec<u8> {
    [id.as_slice(), &part.to_le_bytes(), &index.to_le_bytes()].concat()
}

fn put_chunk(
    write: &WriteTransaction,
    id: &Hash,
    part: u64,
    index: u64,
    bytes: &[u8],
) -> Result<(), Failure> {
    let value = sealed(&chunk_key(id.as_bytes(), part, index), bytes);
    write.open_table(CHUNKS)?.insert((id.as_bytes(), part, index), value.as_slice())?;
    Ok(())
}

fn drop_chunks(write: &WriteTransaction, id: &[u8; 32]) -> Result<(), Failure> {
    let all = (id, 0, 0)..=(id, u64::MAX, u64::MAX);
    write.open_table(CHUNKS)?.retain_in(all, |_, _| false)?;
    Ok(())
}

/// The parts of a checkpoint, if all their chunks are there and sound.
fn parts(
    sealed: &Sealed,
    chunks: &impl ReadableTable<Key, &'static [u8]>,
) -> Result<Option<Vec<Bytes>>, Failure> {
    let id = sealed.checkpoint.id();
    let parts = (0_u64..).zip(sealed.parts()).map(|(number, named)| part(&id, number, named, chunks));
    parts.collect()
}

fn part(
    id: &Hash,
    number: u64,
    named: &Part,
    chunks: &impl ReadableTable<Key, &'static [u8]>,
) -> Result<Option<Bytes>, Failure> {
    let mut bytes = Vec::new();
    for index in 0..named.chunks() {
        let chunk = chunks.get((id.as_bytes(), number, index))?;
        let key = chunk_key(id.as_bytes(), number, index);
        let Some(chunk) = chunk.as_ref().and_then(|chunk| opened(&key, chunk.value())) else {
            return Ok(None);
        };
        bytes.extend_from_slice(chunk);
    }
    Ok(Some(Bytes::from(bytes)))
}

/// What a checkpoint covers, if that can be read.
fn cut(
    checkpoint: &Checkpoint,
    chunks: &impl ReadableTable<Key, &'static [u8]>,
) -> Result<Option<Cut>, Failure> {
    let Some(named) = checkpoint.parts.first() else { return Ok(None) };
    let bytes = part(&checkpoint.id(), 0, named, chunks)?;
    Ok(bytes.and_then(|bytes| Cut::decode(&bytes, AUTHORS_MAX)))
}

fn open_parts(sealed: &Sealed, chunks: &impl ReadableTable<Key, &'static [u8]>) -> Result<Base, Failure> {
    let parts = parts(sealed, chunks)?.ok_or_else(|| damaged("a part of the checkpoint is not there"))?;
    Base::open(sealed, &parts, AUTHORS_MAX).map_err(|error| Failure(error.into()))
}

/// All sealed checkpoints that can be read, the newest last.
fn held(checkpoints: &impl ReadableTable<&'static [u8; 32], &'static [u8]>) -> Result<Vec<Sealed>, Failure> {
    let mut held = Vec::new();
    for row in checkpoints.range::<&[u8; 32]>(..)? {
        let (key, value) = row?;
        held.extend(
            opened(key.value(), value.value())
                .and_then(|bytes| Sealed::decode(&Bytes::copy_from_slice(bytes))),
        );
    }
    held.sort_by_key(|sealed| (sealed.checkpoint.step, sealed.checkpoint.id()));
    Ok(held)
}

fn snapshot(
    snapshots: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<Bytes>, Failure> {
    let value = snapshots.get(name)?;
    Ok(value.and_then(|value| opened(name.as_bytes(), value.value()).map(Bytes::copy_from_slice)))
}

/// The base, and which checkpoint it contains.
fn base(
    snapshots: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<(Base, Option<Bytes>), Failure> {
    if snapshots.get(BASE_CUT)?.is_none() {
        return Ok((Base::default(), None));
    }
    let row = |name| snapshot(snapshots, name);
    let rows = (row(BASE_CUT)?, row(BASE_REGISTRY)?, row(BASE_HEADS)?);
    let (Some(cut), Some(state), Some(heads)) = rows else { return Err(damaged("the base of the logs")) };
    let base =
        Base::decode(&cut, &state, &heads, AUTHORS_MAX).map_err(|_| damaged("the base of the logs"))?;
    Ok((base, snapshot(snapshots, BASE_ID)?))
}

/// Brings the base up to these sealed checkpoints, of which the newest is the last.
fn join(write: &WriteTransaction, held: &[Sealed]) -> Result<(), Failure> {
    let Some(newest) = held.last() else { return Ok(()) };
    let mut snapshots = write.open_table(SNAPSHOTS)?;
    // A damaged base is made anew of what there is.
    let (mut joined, _) = base(&snapshots).unwrap_or_default();
    let chunks = write.open_table(CHUNKS)?;
    for sealed in held {
        match open_parts(sealed, &chunks) {
            Ok(base) if joined.cut == Cut::default() => joined = base,
            Ok(base) => joined.join(&base),
            Err(error) if sealed == newest => return Err(error),
            Err(_) => {}
        }
    }
    let (cut, state, heads) = (joined.cut.encode(), joined.registry.snapshot(), joined.encode_heads());
    let id = newest.checkpoint.id();
    let rows: [(&str, &[u8]); 4] =
        [(BASE_CUT, &cut), (BASE_REGISTRY, &state), (BASE_HEADS, &heads), (BASE_ID, id.as_bytes())];
    for (name, bytes) in rows {
        snapshots.insert(name, sealed(name.as_bytes(), bytes).as_slice())?;
    }
    Ok(())
}

impl LogStore {
    /// The checkpoint of a step, of what is on disk at this moment. Its parts are kept until the next one is made.
    ///
    /// # Errors
    /// If the disk fails, or something that it takes is damaged.
    pub fn fold(&self, mesh: MeshId, step: Step) -> Result<StoredCheckpoint, StoreError> {
        let mut folded = Base::default();
        self.database.read(|read| {
            let (base, contains) = base(&read.open_table(SNAPSHOTS)?)?;
            folded = base;
            if let Some(newest) = held(&read.open_table(CHECKPOINTS)?)?.last()
                && contains.is_none_or(|id| *id != *newest.checkpoint.id().as_bytes())
            {
                folded.join(&open_parts(newest, &read.open_table(CHUNKS)?)?);
            }
            self.take_records(read, &mut folded, step)
        })?;
        let (sealed, parts) = folded.checkpoint(mesh, step);
        let id = sealed.checkpoint.id();
        let before = self.folded.lock().unwrap_or_else(PoisonError::into_inner).replace(id);
        self.database.write(|write| {
            if let Some(before) = before.filter(|before| *before != id)
                && write.open_table(CHECKPOINTS)?.get(before.as_bytes())?.is_none()
            {
                drop_chunks(write, before.as_bytes())?;
            }
            for (number, bytes) in (0_u64..).zip(&parts) {
                for (index, chunk) in (0_u64..).zip(bytes.chunks(CHUNK_BYTES)) {
                    put_chunk(write, &id, number, index, chunk)?;
                }
            }
            Ok(())
        })?;
        Ok(StoredCheckpoint { sealed, cut: folded.cut })
    }

    fn take_records(&self, read: &ReadTransaction, into: &mut Base, below: Step) -> Result<(), Failure> {
        let (logs, records) = (read.open_table(LOGS)?, read.open_table(RECORDS)?);
        for row in logs.range::<&[u8; 32]>(..)? {
            let (key, value) = row?;
            let author = NodeId::from_bytes(*key.value());
            let Some(row) = decode_row(&author, value.value()) else {
                return Err(damaged("where a log ends"));
            };
            let from = into.next(&author).max(row.log.base);
            for row in records.range((author.as_bytes(), from.0)..=(author.as_bytes(), row.log.head.seq.0))? {
                let (key, value) = row?;
                let record = self.record(&author, key.value().1, value.value());
                if !into.take(&record.ok_or_else(|| damaged("a record"))?, below) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Keeps a chunk of a checkpoint that is being fetched.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn stage(&self, checkpoint: Hash, part: usize, index: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let folded = *self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.write(|write| {
            if (part, index) == (0, 0) {
                // What is left of others that were not fetched to the end.
                drop_loose(write, &[Some(checkpoint), folded])?;
            }
            put_chunk(write, &checkpoint, part as u64, index, bytes)
        })
    }

    /// Sees whether the parts that were staged are those of this checkpoint, and can be read, and each log is cut at a record
    /// that its author has signed.
    ///
    /// # Errors
    /// If not.
    pub fn open_checkpoint(&self, sealed: &Sealed) -> Result<(), StoreError> {
        self.database.read(|read| {
            let base = open_parts(sealed, &read.open_table(CHUNKS)?)?;
            base.verify(sealed.checkpoint.mesh).map_err(|error| Failure(error.into()))
        })
    }

    /// A chunk of a sealed checkpoint; `None` if it is not there, or damaged.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn chunk(&self, checkpoint: Hash, part: usize, index: u64) -> Result<Option<Bytes>, StoreError> {
        let mut found = None;
        self.database.read(|read| {
            let id = checkpoint.as_bytes();
            if read.open_table(CHECKPOINTS)?.get(id)?.is_none() {
                return Ok(());
            }
            let value = read.open_table(CHUNKS)?.get((id, part as u64, index))?;
            let key = chunk_key(id, part as u64, index);
            found = value.and_then(|value| opened(&key, value.value()).map(Bytes::copy_from_slice));
            Ok(())
        })?;
        Ok(found)
    }

    /// A checkpoint is sealed: keeps it, and of the others what is to be kept.
    pub(super) fn put_checkpoint(write: &WriteTransaction, stored: &StoredCheckpoint) -> Result<(), Failure> {
        let id = stored.sealed.checkpoint.id();
        let mut checkpoints = write.open_table(CHECKPOINTS)?;
        checkpoints.insert(id.as_bytes(), sealed(id.as_bytes(), &stored.sealed.encode()).as_slice())?;
        let held = held(&checkpoints)?;
        let mut cuts = Vec::with_capacity(held.len());
        {
            let chunks = write.open_table(CHUNKS)?;
            for sealed in &held {
                cuts.push(cut(&sealed.checkpoint, &chunks)?);
            }
        }
        // One that is damaged covers nothing that could be kept.
        let nothing = Cut::default();
        let cuts: Vec<&Cut> = cuts.iter().map(|cut| cut.as_ref().unwrap_or(&nothing)).collect();
        let names = held.iter().zip(&cuts).map(|(sealed, cut)| {
            let checkpoint = &sealed.checkpoint;
            (checkpoint.step, checkpoint.id(), *cut)
        });
        let (newest, other) = kept(names);
        let going: Vec<usize> =
            (0..held.len()).filter(|place| Some(*place) != newest && Some(*place) != other).collect();
        let newest = newest.and_then(|newest| cuts.get(newest)).copied().unwrap_or(&nothing);
        if going.iter().filter_map(|place| cuts.get(*place)).any(|cut| !newest.covers(cut)) {
            match join(write, &held) {
                // Rather keep one more than lose what it covers.
                Err(Failure(StoreError::Damaged(_) | StoreError::BadCheckpoint(_))) => return Ok(()),
                joined => joined?,
            }
        }
        for old in going.into_iter().filter_map(|place| held.get(place)) {
            let old = old.checkpoint.id();
            checkpoints.remove(old.as_bytes())?;
            drop_chunks(write, old.as_bytes())?;
        }
        Ok(())
    }

    /// Brings the base up to the sealed checkpoints.
    pub(super) fn join_base(write: &WriteTransaction) -> Result<(), Failure> {
        let held = held(&write.open_table(CHECKPOINTS)?)?;
        join(write, &held)
    }

    /// What stands for the entries that are not here.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub fn base(&self) -> Result<Base, StoreError> {
        let mut found = Base::default();
        self.database.read(|read| {
            (found, _) = base(&read.open_table(SNAPSHOTS)?)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// The sealed checkpoints as they are now, the newest last, without damaged ones.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let mut found = Vec::new();
        self.database.read(|read| {
            let chunks = read.open_table(CHUNKS)?;
            for sealed in held(&read.open_table(CHECKPOINTS)?)? {
                let base = open_parts(&sealed, &chunks);
                found.extend(base.ok().map(|base| StoredCheckpoint { sealed, cut: base.cut }));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The sealed checkpoints, the newest last; what was staged or made and not sealed is dropped, and what is damaged.
    pub(super) fn check_checkpoints(
        &self,
        damage: &mut Vec<Damage>,
    ) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        let mut is_base_broken = false;
        let mut has_loose = false;
        self.database.read(|read| {
            let (checkpoints, chunks) = (read.open_table(CHECKPOINTS)?, read.open_table(CHUNKS)?);
            for row in checkpoints.range::<&[u8; 32]>(..)? {
                let (key, value) = row?;
                let sealed = opened(key.value(), value.value());
                let sealed = sealed.and_then(|bytes| Sealed::decode(&Bytes::copy_from_slice(bytes)));
                let opened = sealed.map(|sealed| (open_parts(&sealed, &chunks), sealed));
                match opened {
                    Some((Ok(base), sealed)) => found.push(StoredCheckpoint { sealed, cut: base.cut }),
                    _ => broken.push(*key.value()),
                }
            }
            is_base_broken = base(&read.open_table(SNAPSHOTS)?).is_err();
            has_loose = !loose(&checkpoints, &chunks)?.is_empty();
            Ok(())
        })?;
        found.sort_by_key(|stored| (stored.sealed.checkpoint.step, stored.sealed.checkpoint.id()));
        if broken.is_empty() && !is_base_broken && !has_loose {
            return Ok(found);
        }
        self.database.write(|write| {
            for id in &broken {
                write.open_table(CHECKPOINTS)?.remove(id)?;
            }
            drop_loose(write, &[])?;
            if is_base_broken && !found.is_empty() {
                Self::join_base(write)?;
            }
            Ok(())
        })?;
        if !broken.is_empty() {
            let mended = "it is dropped, and peers have others".to_owned();
            damage.push(Damage { what: "a checkpoint is damaged".to_owned(), mended, log: None });
        }
        if is_base_broken {
            let mended = if found.is_empty() {
                "the registry lacks what was written before the entries that are here"
            } else {
                "it is made anew of the last checkpoint"
            };
            let what = "what stands for dropped entries is damaged".to_owned();
            damage.push(Damage { what, mended: mended.to_owned(), log: None });
        }
        Ok(found)
    }

    /// Drops records that the newest sealed checkpoint covers: those of steps before `below`, and all if the file is
    /// larger than `bytes_max` then. Returns the logs that are shorter now, and where they begin.
    ///
    /// # Errors
    /// If the disk fails. What was dropped until then is.
    pub fn drop_covered(
        &self,
        below: Step,
        bytes_max: Option<u64>,
    ) -> Result<Vec<(NodeId, Seq)>, StoreError> {
        let mut newest = None;
        let mut is_joined = false;
        self.database.read(|read| {
            let held = held(&read.open_table(CHECKPOINTS)?)?;
            let Some(sealed) = held.last() else { return Ok(()) };
            let contains = snapshot(&read.open_table(SNAPSHOTS)?, BASE_ID)?;
            is_joined = contains.is_some_and(|id| *id == *sealed.checkpoint.id().as_bytes());
            let parts = parts(sealed, &read.open_table(CHUNKS)?)?;
            let cut = parts.and_then(|parts| Cut::decode(parts.first()?, AUTHORS_MAX));
            newest = Some(cut.ok_or_else(|| damaged(CUT))?);
            Ok(())
        })?;
        let Some(cut) = newest else { return Ok(Vec::new()) };
        if !is_joined {
            self.database.write(Self::join_base)?;
        }
        let mut shortened = std::collections::BTreeMap::new();
        self.drop_below(&cut, below, &mut shortened)?;
        self.shrink();
        if bytes_max.is_some_and(|max| self.bytes_on_disk() > max) {
            self.drop_below(&cut, Step(u64::MAX), &mut shortened)?;
            self.shrink();
        }
        Ok(shortened.into_iter().collect())
    }

    /// Drops records in the cut of steps before `below`, in transactions that others need not wait long for.
    fn drop_below(
        &self,
        cut: &Cut,
        below: Step,
        shortened: &mut std::collections::BTreeMap<NodeId, Seq>,
    ) -> Result<(), StoreError> {
        if below == Step(0) {
            return Ok(());
        }
        let mut authors: Vec<(NodeId, Seq)> =
            cut.0.iter().map(|(author, cut)| (*author, cut.head.seq)).collect();
        while !authors.is_empty() {
            self.database.write(|write| {
                let mut records = write.open_table(RECORDS)?;
                let mut logs = write.open_table(LOGS)?;
                let mut left = DROP_RECORDS;
                while let Some((author, end)) = authors.last().copied() {
                    let Some(row) = stored(author, &logs)? else {
                        authors.pop();
                        continue;
                    };
                    let end = end.min(row.log.head.seq);
                    if row.log.base > end {
                        authors.pop();
                        continue;
                    }
                    let range = (author.as_bytes(), row.log.base.0)..=(author.as_bytes(), end.0);
                    let mut last: Option<Record> = None;
                    let (mut bytes, mut is_all) = (0, true);
                    for found in records.range(range)? {
                        let (key, value) = found?;
                        let record = self.record(&author, key.value().1, value.value());
                        // A damaged one is found when it is read, and fetched again.
                        let Some(record) =
                            record.filter(|record| record.last() <= end && record.step() < below)
                        else {
                            break;
                        };
                        bytes += value.value().len() as u64;
                        last = Some(record);
                        left -= 1;
                        if left == 0 {
                            is_all = false;
                            break;
                        }
                    }
                    if let Some(last) = last {
                        let base = last.last().saturating_add(1);
                        records
                            .retain_in((author.as_bytes(), 0)..(author.as_bytes(), base.0), |_, _| false)?;
                        let mut log = row.log;
                        log.base = base;
                        let floor = (last.digest(), last.step());
                        put_row(&Row { log, floor, reached: row.reached }, &mut logs)?;
                        shortened.insert(author, base);
                        self.freed.fetch_add(bytes, Ordering::Relaxed);
                    }
                    if !is_all {
                        break;
                    }
                    authors.pop();
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Makes the file smaller if much of it is free, and nobody reads or writes at this moment.
    fn shrink(&self) {
        let freed = self.freed.load(Ordering::Relaxed);
        if freed.saturating_mul(4) < self.bytes_on_disk() {
            return;
        }
        match self.database.compact() {
            None => {}
            Some(Ok(())) => self.freed.store(0, Ordering::Relaxed),
            Some(Err(error)) => tracing::warn!(%error, "the log's file could not be made smaller"),
        }
    }
}

/// Checkpoints of which there are chunks and that are not sealed.
fn loose(
    checkpoints: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    chunks: &impl ReadableTable<Key, &'static [u8]>,
) -> Result<Vec<[u8; 32]>, Failure> {
    let mut loose: Vec<[u8; 32]> = Vec::new();
    let mut from = [0; 32];
    // From one checkpoint's first chunk to the next one's.
    while let Some(row) = chunks.range((&from, 0, 0)..)?.next() {
        let id = *row?.0.value().0;
        if checkpoints.get(&id)?.is_none() {
            loose.push(id);
        }
        let Some(next) = successor(id) else { break };
        from = next;
    }
    Ok(loose)
}

/// The next key.
fn successor(mut key: [u8; 32]) -> Option<[u8; 32]> {
    for byte in key.iter_mut().rev() {
        let (next, is_over) = byte.overflowing_add(1);
        *byte = next;
        if !is_over {
            return Some(key);
        }
    }
    None
}

/// Drops them, but for those that are to stay.
fn drop_loose(write: &WriteTransaction, stay: &[Option<Hash>]) -> Result<(), Failure> {
    let loose = loose(&write.open_table(CHECKPOINTS)?, &write.open_table(CHUNKS)?)?;
    for id in loose.into_iter().filter(|id| !stay.contains(&Some(Hash::from_bytes(*id)))) {
        drop_chunks(write, &id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
