//! Writing: all of a batch of changes, or nothing of it.

use omnimesh_protocol::NodeId;
use omnimesh_protocol::log::{Change, Head, Record, StoreError, StoredLog};
use redb::{ReadableTable, Table};

use super::{Failure, LOGS, LogStore, PROOFS, RECORDS, Row, SNAPSHOTS, put_row, record_key, sealed, stored};

type Records<'a> = Table<'a, (&'static [u8; 32], u64), &'static [u8]>;
type Logs<'a> = Table<'a, &'static [u8; 32], &'static [u8]>;

impl LogStore {
    /// Makes all changes, or none. What it returned `Ok` for is there after `kill -9`, and after the power went.
    ///
    /// # Errors
    /// If the disk is full or fails. Some of the changes may be there then.
    pub fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.with_write(|write| {
            let mut is_joined = false;
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            for change in changes {
                match change {
                    Change::Append(record) => append(record, &mut records, &mut logs)?,
                    Change::Freeze { proof, head } => {
                        let author = proof.author();
                        let value = sealed(author.as_bytes(), &proof.encode());
                        write.open_table(PROOFS)?.insert(author.as_bytes(), value.as_slice())?;
                        self.end_at(author, *head, &mut records, &mut logs)?;
                    }
                    Change::Seal(stored) => Self::put_checkpoint(write, stored)?,
                    Change::Jump(log) => {
                        if !std::mem::replace(&mut is_joined, true) {
                            self.join_base(write)?;
                        }
                        jump(log, &mut records, &mut logs)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// The log ends here: what comes behind is dropped.
    fn end_at(
        &self,
        author: NodeId,
        head: Head,
        records: &mut Records<'_>,
        logs: &mut Logs<'_>,
    ) -> Result<(), Failure> {
        let behind = head.seq.saturating_add(1).0;
        records.retain_in((author.as_bytes(), behind)..=(author.as_bytes(), u64::MAX), |_, _| false)?;
        let Some(mut row) = stored(author, logs)?.filter(|row| row.log.head.seq > head.seq) else {
            return Ok(());
        };
        let last = records
            .range((author.as_bytes(), 0)..=(author.as_bytes(), head.seq.0))?
            .next_back()
            .transpose()?;
        let last = last.and_then(|(key, value)| self.record(&author, key.value().1, value.value()));
        row.log.step = last.map_or(row.before().1, |record| record.step());
        row.log.head = head;
        put_row(&row, logs)
    }

    /// Keeps the snapshot of a projection in place of an earlier one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_snapshot(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.with_write(|write| {
            let value = sealed(name.as_bytes(), bytes);
            write.open_table(SNAPSHOTS)?.insert(name, value.as_slice())?;
            Ok(())
        })
    }
}

/// A checkpoint stands for the log up to its head.
fn jump(log: &StoredLog, records: &mut Records<'_>, logs: &mut Logs<'_>) -> Result<(), Failure> {
    let author = log.author.as_bytes();
    records.retain_in((author, 0)..(author, log.base.0), |_, _| false)?;
    put_row(&Row { log: log.clone(), floor: (log.head.digest, log.step) }, logs)
}

pub(super) fn append(record: &Record, records: &mut Records<'_>, logs: &mut Logs<'_>) -> Result<(), Failure> {
    let (author, first) = (record.author(), record.first().0);
    let left_over = (author.as_bytes(), first)..=(author.as_bytes(), u64::MAX);
    if records.range(left_over.clone())?.next().is_some() {
        records.retain_in(left_over, |_, _| false)?;
    }
    let value = sealed(&record_key(&author, first), record.as_bytes());
    records.insert((author.as_bytes(), first), value.as_slice())?;
    let log =
        StoredLog { author, base: record.first(), head: record.head(), step: record.step(), proof: None };
    let mut row = stored(author, logs)?.unwrap_or_else(|| {
        // Where it began is not known: what is there is as good a beginning as any.
        let before = record.prev().unwrap_or(Head::EMPTY.digest);
        Row { log: log.clone(), floor: (before, log.step) }
    });
    row.log = StoredLog { base: row.log.base, ..log };
    put_row(&row, logs)
}
