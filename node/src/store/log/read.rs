//! Reading, and what is done about damage.

use bytes::Bytes;
use omnimesh_protocol::log::{Head, Record, StoreError, StoredLog};
use omnimesh_protocol::{NodeId, Seq, Step};

use super::{
    Damage, LOGS, LogStore, PROOFS, RECORDS, ReadError, Row, SNAPSHOTS, decode_row, opened, put_row, stored,
};

impl LogStore {
    /// The author's records whose first sequence number is in `from..=to`, in order, up to `bytes_max` bytes but at
    /// least one; none of a log that does not come that far.
    ///
    /// # Errors
    /// If they cannot be read, or are not what was written.
    pub fn read(
        &self,
        author: NodeId,
        from: Seq,
        to: Seq,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, ReadError> {
        let (mut found, mut is_damaged) = (Vec::new(), false);
        self.database.read(|read| {
            let (records, logs) = (read.open_table(RECORDS)?, read.open_table(LOGS)?);
            let Some(log) = stored(author, &logs)?.map(|row| row.log) else { return Ok(()) };
            let (from, to) = (from.max(log.base), to.min(log.head.seq));
            if from > to {
                return Ok(());
            }
            let (mut bytes, mut next) = (0, None);
            for row in records.range((author.as_bytes(), from.0)..=(author.as_bytes(), to.0))? {
                let (key, value) = row?;
                let record = self.record(&author, key.value().1, value.value());
                let Some(record) = record.filter(|record| next.is_none_or(|next| record.first() == next))
                else {
                    is_damaged = true;
                    return Ok(());
                };
                if !found.is_empty() && bytes + record.as_bytes().len() > bytes_max {
                    return Ok(());
                }
                bytes += record.as_bytes().len();
                next = Some(record.last().saturating_add(1));
                found.push(record.as_bytes().clone());
            }
            // One that begins before `from` may cover all that is asked for; one that vanished does not.
            is_damaged = next.is_some_and(|next| next <= to);
            Ok(())
        })?;
        match is_damaged {
            true => Err(ReadError::Damaged(Box::new(self.cut_at_damage(author, "a record")?))),
            false => Ok(found),
        }
    }

    /// The record that covers `seq`.
    ///
    /// # Errors
    /// As [`LogStore::read`].
    pub fn find(&self, author: NodeId, seq: Seq) -> Result<Option<Bytes>, ReadError> {
        let mut found = None;
        let mut is_damaged = false;
        self.database.read(|read| {
            let (records, logs) = (read.open_table(RECORDS)?, read.open_table(LOGS)?);
            let Some(log) = stored(author, &logs)?.map(|row| row.log) else { return Ok(()) };
            if seq < log.base || seq > log.head.seq {
                return Ok(());
            }
            let row = records
                .range((author.as_bytes(), 0)..=(author.as_bytes(), seq.0))?
                .next_back()
                .transpose()?;
            let record = row.and_then(|(key, value)| self.record(&author, key.value().1, value.value()));
            found = record.filter(|record| record.covers(seq)).map(|record| record.as_bytes().clone());
            is_damaged = found.is_none();
            Ok(())
        })?;
        match is_damaged {
            true => Err(ReadError::Damaged(Box::new(self.cut_at_damage(author, "a record")?))),
            false => Ok(found),
        }
    }

    /// Reads a log from its beginning and compares everything; where that breaks off, the log ends from now on. What does
    /// not fit goes; sound records behind it stay.
    pub(super) fn cut_at_damage(&self, author: NodeId, what: &str) -> Result<Damage, StoreError> {
        let scan = self.scan(author)?;
        let log = scan.log.clone();
        self.database.write(|write| {
            let mut records = write.open_table(RECORDS)?;
            let mut logs = write.open_table(LOGS)?;
            if let Some(first) = scan.misfit {
                records.remove((author.as_bytes(), first.0))?;
            }
            let floor = (scan.before.0.digest, scan.before.1);
            put_row(&Row { log: log.clone(), floor, reached: scan.reached }, &mut logs)
        })?;
        let reason = scan.reason.unwrap_or_else(|| "it is not what was written".to_owned());
        let what = format!("{what} of {author} is damaged: {reason}");
        let mended = format!("it ends at {} for now, and the rest is fetched from peers", log.head.seq.0);
        Ok(Damage { what, mended, log: Some(log) })
    }

    /// Follows a log from its base.
    pub(super) fn scan(&self, author: NodeId) -> Result<Scan, StoreError> {
        let empty = StoredLog { author, base: Seq(1), head: Head::EMPTY, step: Step(0), proof: None };
        let mut scan =
            Scan { log: empty, before: (Head::EMPTY, Step(0)), reached: Seq(0), misfit: None, reason: None };
        self.database.read(|read| {
            let (records, logs, proofs) =
                (read.open_table(RECORDS)?, read.open_table(LOGS)?, read.open_table(PROOFS)?);
            if let Some(value) = proofs.get(author.as_bytes())? {
                scan.log.proof = self.proof(&author, value.value());
            }
            let row = stored(author, &logs)?;
            if let Some(row) = &row {
                scan.log.base = row.log.base;
                scan.before = row.before();
                (scan.log.head, scan.log.step) = scan.before;
                scan.reached = row.reached.max(row.log.head.seq);
            }
            let mut rows = records.range((author.as_bytes(), 0)..=(author.as_bytes(), u64::MAX))?;
            if let Some(last) = rows.next_back() {
                // Where the log ended may be what is damaged.
                let (key, value) = last?;
                let first = key.value().1;
                let end =
                    self.record(&author, first, value.value()).map_or(Seq(first), |record| record.last());
                scan.reached = scan.reached.max(end);
                rows = records.range((author.as_bytes(), 0)..=(author.as_bytes(), u64::MAX))?;
            }
            let mut previous = None::<Record>;
            loop {
                let expected =
                    previous.as_ref().map_or(scan.log.base, |record| record.last().saturating_add(1));
                let is_over = row.as_ref().is_some_and(|row| scan.log.head == row.log.head);
                let Some(next) = rows.next() else {
                    if !is_over {
                        scan.reason = Some(format!("entry {} is missing", expected.0));
                    }
                    return Ok(());
                };
                if is_over {
                    return Ok(());
                }
                let (key, value) = next?;
                let Some(record) = self.record(&author, key.value().1, value.value()) else {
                    scan.misfit = Some(Seq(key.value().1));
                    scan.reason = Some(format!("the record at {} does not fit its checksum", key.value().1));
                    return Ok(());
                };
                if !scan.goes_on(&record, previous.as_ref(), expected, row.is_some()) {
                    return Ok(());
                }
                previous = Some(record);
            }
        })?;
        Ok(scan)
    }

    /// Reads a whole log and compares everything with what was written.
    ///
    /// # Errors
    /// If it cannot be read. Damage is no error: it is told, and the log cut.
    pub fn verify(&self, author: NodeId) -> Result<Option<Damage>, StoreError> {
        let scan = self.scan(author)?;
        match scan.reason {
            None => Ok(None),
            Some(_) => self.cut_at_damage(author, "the log").map(Some),
        }
    }

    /// Where an author's log ends; `None` if there is nothing of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn log(&self, author: NodeId) -> Result<Option<StoredLog>, StoreError> {
        let mut found = None;
        self.database.read(|read| {
            let Some(row) = stored(author, &read.open_table(LOGS)?)? else { return Ok(()) };
            let proofs = read.open_table(PROOFS)?;
            let proof = proofs.get(author.as_bytes())?.and_then(|value| self.proof(&author, value.value()));
            found = Some(StoredLog { proof, ..row.log });
            Ok(())
        })?;
        Ok(found)
    }

    /// How far an author's log had come, whatever was found damaged since; 0 if there is nothing of it. A node signs no
    /// number of its own log up to there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn reached(&self, author: NodeId) -> Result<Seq, StoreError> {
        let mut reached = Seq(0);
        self.database.read(|read| {
            let row = stored(author, &read.open_table(LOGS)?)?;
            reached = row.map_or(Seq(0), |row| row.reached.max(row.log.head.seq));
            Ok(())
        })?;
        Ok(reached)
    }

    /// Authors whose logs end before something that was damaged: there may be sound records behind it.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn gaps(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut authors = Vec::new();
        self.database.read(|read| {
            for row in read.open_table(LOGS)?.range::<&[u8; 32]>(..)? {
                let (key, value) = row?;
                let author = NodeId::from_bytes(*key.value());
                if decode_row(&author, value.value()).is_some_and(|row| row.has_gap()) {
                    authors.push(author);
                }
            }
            Ok(())
        })?;
        Ok(authors)
    }

    /// Records that follow the end of a log and do not count yet, because something before them had been damaged: in order,
    /// up to `bytes_max` bytes but at least one. `None` if there is no gap.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn kept(&self, author: NodeId, bytes_max: usize) -> Result<Option<Vec<Record>>, StoreError> {
        let mut kept = None;
        self.database.read(|read| {
            let (records, logs) = (read.open_table(RECORDS)?, read.open_table(LOGS)?);
            let Some(row) = stored(author, &logs)?.filter(Row::has_gap) else { return Ok(()) };
            let (mut end, mut bytes, mut found) = (row.log.head, 0, Vec::new());
            let behind = (author.as_bytes(), end.seq.saturating_add(1).0)..=(author.as_bytes(), u64::MAX);
            for row in records.range(behind)? {
                let (key, value) = row?;
                let record = self.record(&author, key.value().1, value.value());
                let next = end.seq.saturating_add(1);
                let Some(record) =
                    record.filter(|record| record.first() == next && record.prev() == end.as_prev())
                else {
                    break;
                };
                bytes += record.as_bytes().len();
                if bytes > bytes_max && !found.is_empty() {
                    break;
                }
                end = record.head();
                found.push(record);
            }
            kept = Some(found);
            Ok(())
        })?;
        Ok(kept)
    }

    /// Where all logs end now.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn logs(&self) -> Result<Vec<StoredLog>, StoreError> {
        self.check_heads(&mut Vec::new())
    }

    /// The same, and what was found damaged on the way: those logs are cut.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn logs_and_damage(&self) -> Result<(Vec<StoredLog>, Vec<Damage>), StoreError> {
        let mut damage = Vec::new();
        let logs = self.check_heads(&mut damage)?;
        Ok((logs, damage))
    }

    /// All authors there are.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn authors(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut authors = Vec::new();
        self.database.read(|read| {
            for row in read.open_table(LOGS)?.range::<&[u8; 32]>(..)? {
                authors.push(NodeId::from_bytes(*row?.0.value()));
            }
            Ok(())
        })?;
        Ok(authors)
    }

    /// The snapshot of a projection; `None` if there is none or it is damaged.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn snapshot(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.database.read(|read| {
            let table = read.open_table(SNAPSHOTS)?;
            found =
                table.get(name)?.and_then(|value| opened(name.as_bytes(), value.value()).map(<[u8]>::to_vec));
            Ok(())
        })?;
        Ok(found)
    }
}

/// What following a log has shown.
pub(super) struct Scan {
    /// As far as it is unbroken.
    pub(super) log: StoredLog,
    /// What comes before its base.
    pub(super) before: (Head, Step),
    /// How far it had come.
    pub(super) reached: Seq,
    /// The record that is in the way.
    misfit: Option<Seq>,
    /// Why it goes no further, if it should.
    reason: Option<String>,
}

impl Scan {
    /// Takes the next record, if it follows the one before it.
    fn goes_on(
        &mut self,
        record: &Record,
        previous: Option<&Record>,
        expected: Seq,
        is_base_known: bool,
    ) -> bool {
        if previous.is_none() && !is_base_known {
            // Where it began is not known: what is there is as good a beginning as any.
            self.log.base = record.first();
            self.before.0 = record
                .prev()
                .map_or(Head::EMPTY, |digest| Head { seq: record.first().saturating_sub(1), digest });
        } else if record.first() != expected {
            self.misfit = Some(record.first()).filter(|first| *first < expected);
            self.reason = Some(format!("entry {} is missing", expected.0));
            return false;
        }
        if let Some(previous) = previous
            && record.prev() != Some(previous.digest())
        {
            self.misfit = Some(record.first());
            self.reason = Some(format!("entry {} does not follow the one before it", record.first().0));
            return false;
        }
        (self.log.head, self.log.step) = (record.head(), record.step());
        true
    }
}
