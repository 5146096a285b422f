//! Writing: all of a batch of changes, or nothing of it.

use omnimesh_protocol::log::{Change, Head, Record, StoreError, StoredLog};
use omnimesh_protocol::{NodeId, Seq, Step};
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
        self.database.write(|write| {
            let mut is_joined = false;
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            for change in changes {
                match change {
                    Change::Append(record) => self.append(record, &mut records, &mut logs)?,
                    Change::Freeze { proof, head } => {
                        let author = proof.author();
                        let value = sealed(author.as_bytes(), &proof.encode());
                        write.open_table(PROOFS)?.insert(author.as_bytes(), value.as_slice())?;
                        self.end_at(author, *head, &mut records, &mut logs)?;
                    }
                    Change::Seal(stored) => Self::put_checkpoint(write, stored)?,
                    Change::Jump(log) => {
                        if !std::mem::replace(&mut is_joined, true) {
                            Self::join_base(write)?;
                        }
                        jump(log, &mut records, &mut logs)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Puts a record at the end of its author's log, in place of what is there.
    pub(super) fn append(
        &self,
        record: &Record,
        records: &mut Records<'_>,
        logs: &mut Logs<'_>,
    ) -> Result<(), Failure> {
        let (author, first) = (record.author(), record.first());
        let log = StoredLog { author, base: first, head: record.head(), step: record.step(), proof: None };
        let mut row = match stored(author, logs)? {
            Some(row) => row,
            None => Row::new(StoredLog { base: Seq(1), head: Head::EMPTY, ..log.clone() }),
        };
        let end = row.log.head.seq;
        let is_behind = first > end;
        if first.saturating_sub(1) > end || (!is_behind && !self.is_whole_to(&row, first, records)?) {
            // Damage was found since the log asked for this.
            return Err(missing(author, first));
        }
        // What is there of this place is left over, or damaged; behind a gap it is sound, and stays if it follows.
        let last = if is_behind && row.has_gap() { record.last().0 } else { u64::MAX };
        if !is_behind || row.has_gap() {
            let left_over = (author.as_bytes(), first.0)..=(author.as_bytes(), last);
            records.retain_in(left_over, |_, _| false)?;
        }
        let value = sealed(&record_key(&author, first.0), record.as_bytes());
        records.insert((author.as_bytes(), first.0), value.as_slice())?;
        if let Some(next) = record.last().0.checked_add(1).filter(|_| row.has_gap()) {
            let key = (author.as_bytes(), next);
            let follows = records.get(key)?.is_none_or(|value| {
                let kept = self.record(&author, next, value.value());
                kept.is_some_and(|kept| kept.prev() == Some(record.digest()))
            });
            if !follows {
                records.remove(key)?;
            }
        }
        row.reached = row.reached.max(end);
        row.log = StoredLog { base: row.log.base, ..log };
        put_row(&row, logs)
    }

    /// True if a record ends before this entry, or the base is here. A damaged one counts: it is found when it is read.
    fn is_whole_to(&self, row: &Row, first: Seq, records: &Records<'_>) -> Result<bool, Failure> {
        let author = row.log.author;
        if first <= row.log.base {
            return Ok(first == row.log.base);
        }
        let mut before = records.range((author.as_bytes(), row.log.base.0)..(author.as_bytes(), first.0))?;
        let Some(last) = before.next_back().transpose()? else { return Ok(false) };
        let record = self.record(&author, last.0.value().1, last.1.value());
        Ok(record.is_none_or(|record| record.last().saturating_add(1) == first))
    }

    /// The log ends here: what comes behind is dropped. There is a log from then on, if there was none: a proof may be known before
    /// any entry is, and counts for a log that the store has.
    fn end_at(
        &self,
        author: NodeId,
        head: Head,
        records: &mut Records<'_>,
        logs: &mut Logs<'_>,
    ) -> Result<(), Failure> {
        let behind = head.seq.saturating_add(1).0;
        records.retain_in((author.as_bytes(), behind)..=(author.as_bytes(), u64::MAX), |_, _| false)?;
        let Some(mut row) = stored(author, logs)? else {
            let empty = StoredLog { author, base: Seq(1), head: Head::EMPTY, step: Step(0), proof: None };
            return put_row(&Row::new(empty), logs);
        };
        if row.log.head.seq <= head.seq {
            return Ok(());
        }
        let last = records
            .range((author.as_bytes(), 0)..=(author.as_bytes(), head.seq.0))?
            .next_back()
            .transpose()?;
        let last = last.and_then(|(key, value)| self.record(&author, key.value().1, value.value()));
        row.log.step = last.map_or(row.before().1, |record| record.step());
        row.log.head = head;
        row.reached = head.seq;
        put_row(&row, logs)
    }

    /// Keeps the snapshot of a projection in place of an earlier one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_snapshot(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.database.write(|write| {
            let value = sealed(name.as_bytes(), bytes);
            write.open_table(SNAPSHOTS)?.insert(name, value.as_slice())?;
            Ok(())
        })
    }
}

fn missing(author: NodeId, first: Seq) -> Failure {
    let before = first.saturating_sub(1).0;
    Failure(StoreError::Damaged(format!("entry {before} of {author} is missing")))
}

/// A checkpoint stands for the log up to its head.
fn jump(log: &StoredLog, records: &mut Records<'_>, logs: &mut Logs<'_>) -> Result<(), Failure> {
    let author = log.author.as_bytes();
    records.retain_in((author, 0)..(author, log.base.0), |_, _| false)?;
    let reached = stored(log.author, logs)?.map_or(Seq(0), |row| row.reached.max(row.log.head.seq));
    put_row(&Row { log: log.clone(), floor: (log.head.digest, log.step), reached }, logs)
}
