//! What goes to disk: one write at a time, what comes meanwhile is the next.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;

use crate::author::Ticket;
use crate::id::{NodeId, Step};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::checkpoint::{CutHead, StoredCheckpoint};
use super::super::{AppendError, Change, Event, Head, Output, Proof, Record, StoreError, StoredLog, Token};
use super::State;

/// Bytes of records in one write, about. Source: writes of 4 MiB, each waited for, came to 160 MB/s on a virtual disk, of
/// 16 MiB to 400. Own appends wait for the write under way, so it is not more.
const BATCH_BYTES: usize = 8 << 20;

/// A change on its way to disk.
#[derive(Debug)]
struct Queued<P> {
    change: Change,
    author: NodeId,
    /// Where the log ends after it.
    head: Head,
    step: Step,
    generation: u64,
    from: Option<P>,
    is_fetched: bool,
    /// The appends in it, and how many replicas each wants.
    tickets: Vec<(Ticket, usize)>,
}

impl<P> Queued<P> {
    fn own(change: Change, author: NodeId, (head, step): (Head, Step), generation: u64) -> Self {
        Queued { change, author, head, step, generation, from: None, is_fetched: false, tickets: Vec::new() }
    }

    fn bytes(&self) -> usize {
        match &self.change {
            Change::Append(record) => record.as_bytes().len(),
            Change::Freeze { proof, .. } => {
                proof.records().iter().map(|record| record.as_bytes().len()).sum()
            }
            // They count for nothing, so that a checkpoint and the jumps behind it are in one write.
            Change::Seal(_) | Change::Jump(_) => 0,
        }
    }
}

/// Changes that wait to be written, and those that are being written.
#[derive(Debug)]
pub(super) struct Writer<P> {
    queue: VecDeque<Queued<P>>,
    writing: Option<(Token, Vec<Queued<P>>)>,
    bytes: usize,
    /// After a failure, not before this moment.
    retry_at: Time,
}

impl<P> Writer<P> {
    pub(super) fn new() -> Self {
        Writer { queue: VecDeque::new(), writing: None, bytes: 0, retry_at: Time::ZERO }
    }

    /// Bytes that wait to be written or are being written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writing.is_none() && self.queue.is_empty()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// True if only time has to pass.
    pub(super) fn waits(&self) -> bool {
        self.writing.is_none() && !self.queue.is_empty()
    }

    /// True while a sealed checkpoint is on its way to disk: until it is there, the store has to keep its parts.
    pub(super) fn has_seal(&self) -> bool {
        let writing = self.writing.iter().flat_map(|(_, writing)| writing);
        self.queue.iter().chain(writing).any(|queued| matches!(queued.change, Change::Seal(_)))
    }

    /// True if a checkpoint is on its way to disk that stands for this log.
    pub(super) fn has_jump(&self, author: &NodeId) -> bool {
        let writing = self.writing.iter().flat_map(|(_, writing)| writing);
        let mut all = self.queue.iter().chain(writing);
        all.any(|queued| queued.author == *author && matches!(queued.change, Change::Jump(_)))
    }

    fn push(&mut self, queued: Queued<P>) {
        self.bytes += queued.bytes();
        self.queue.push_back(queued);
    }

    fn take_batch(&mut self) -> Vec<Queued<P>> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(next) = self.queue.pop_front() {
            bytes += next.bytes();
            batch.push(next);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        batch
    }

    pub(super) fn check_invariants(&self) {
        let writing = self.writing.iter().flat_map(|(_, writing)| writing);
        let bytes: usize = self.queue.iter().chain(writing).map(Queued::bytes).sum();
        assert_eq!(bytes, self.bytes, "the count of bytes to write is right");
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    /// True if records of others may be added to what is to be written.
    pub(super) fn has_room_to_write(&self) -> bool {
        self.writer.bytes < self.config.write_bytes_max
    }

    /// A record that is now in its log goes to disk.
    pub(super) fn queue_append(
        &mut self,
        record: Record,
        from: Option<P>,
        is_fetched: bool,
        tickets: Vec<(Ticket, usize)>,
    ) {
        let author = record.author();
        let Some(log) = self.logs.get_mut(&author) else { return };
        log.unwritten.insert(record.first(), record.clone());
        let (head, step, generation) = (record.head(), record.step(), log.generation);
        let change = Change::Append(record);
        self.writer.push(Queued { change, author, head, step, generation, from, is_fetched, tickets });
    }

    pub(super) fn queue_freeze(&mut self, proof: Proof) {
        let author = proof.author();
        let Some(log) = self.logs.get_mut(&author) else { return };
        let (head, step, generation) = (log.chain.head(), log.chain.step(), log.generation);
        log.unwritten.retain(|first, _| *first <= head.seq);
        self.writer.push(Queued::own(Change::Freeze { proof, head }, author, (head, step), generation));
    }

    /// A sealed checkpoint goes to disk, and with it the logs that it reaches beyond.
    pub(super) fn queue_seal(&mut self, now: Time, stored: StoredCheckpoint) {
        let me = self.me();
        let cut: Vec<(NodeId, CutHead)> = stored.cut.0.iter().map(|(author, cut)| (*author, *cut)).collect();
        let change = Change::Seal(Box::new(stored));
        self.writer.push(Queued::own(change, me, (Head::EMPTY, Step(0)), 0));
        for (author, cut) in cut {
            let Some(log) = self.log_mut(author) else { continue };
            log.chain.seal(cut);
            let head = log.chain.head();
            if head.seq < cut.head.seq || (head.seq == cut.head.seq && head != cut.head) {
                self.queue_jump(now, author, cut);
            }
        }
        self.may_fetch = true;
    }

    /// A sealed checkpoint stands for a log up to where it cuts it.
    pub(super) fn queue_jump(&mut self, now: Time, author: NodeId, cut: CutHead) {
        self.begin_catch_up(now, author, cut.head.seq);
        let Some(log) = self.logs.get_mut(&author) else { return };
        // What is on its way to disk before it is dropped there.
        log.unwritten.clear();
        let generation = log.generation;
        let base = cut.head.seq.saturating_add(1);
        let jump = StoredLog { author, base, head: cut.head, step: cut.step, proof: None };
        self.writer.push(Queued::own(Change::Jump(jump), author, (cut.head, cut.step), generation));
        self.with_chain(author, |chain| chain.reset(cut.head, cut.step));
        self.forks.remove(&author);
        self.apply_waiting(author);
        self.may_fetch = true;
    }

    /// Begins the next write if it is time.
    pub(super) fn write(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        if self.writer.writing.is_some() || self.writer.queue.is_empty() || now < self.writer.retry_at {
            return;
        }
        let batch = self.writer.take_batch();
        let token = self.token();
        out.push(Output::Write {
            token,
            changes: batch.iter().map(|queued| queued.change.clone()).collect(),
        });
        self.writer.writing = Some((token, batch));
    }

    pub(super) fn on_written(
        &mut self,
        now: Time,
        token: Token,
        result: Result<(), StoreError>,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some((_, batch)) = self.writer.writing.take_if(|(writing, _)| *writing == token) else { return };
        match result {
            Ok(()) => self.on_write_done(now, batch, out),
            Err(error) => self.on_write_failed(now, batch, &error, out),
        }
    }

    fn on_write_done(&mut self, now: Time, batch: Vec<Queued<P>>, out: &mut Outbox<Output<P>>) {
        self.stats.writes += 1;
        let mut authors = BTreeSet::new();
        let mut jumps = Vec::new();
        for queued in batch {
            self.writer.bytes -= queued.bytes();
            if let Change::Seal(stored) = queued.change {
                self.on_sealed(*stored, out);
                continue;
            }
            let Queued { change, author, head, step, generation, from, is_fetched, tickets } = queued;
            if self.logs.get(&author).is_none_or(|log| log.generation != generation) {
                self.refuse_tickets(tickets, &damaged(), out);
                if let Change::Freeze { proof, .. } = change {
                    // It is on disk, whatever was found damaged meanwhile: what was applied behind the fork has to go.
                    if let Some(log) = self.logs.get_mut(&author).filter(|log| log.stored.seq > head.seq) {
                        (log.stored, log.stored_step) = (head, step);
                    }
                    authors.insert(author);
                    out.push(Event::Frozen { proof });
                }
                continue;
            }
            if !matches!(change, Change::Jump(_)) {
                // What comes behind a jump comes after it.
                self.on_jumped(std::mem::take(&mut jumps), out);
            }
            let Some(log) = self.logs.get_mut(&author) else { continue };
            let before = log.stored.seq;
            (log.stored, log.stored_step) = (head, step);
            authors.insert(author);
            match change {
                Change::Append(record) => {
                    log.unwritten.remove(&record.first());
                    self.on_appended(now, record, from, is_fetched, tickets, out);
                }
                Change::Freeze { proof, .. } => out.push(Event::Frozen { proof }),
                Change::Jump(jump) => {
                    log.base = log.base.max(jump.base);
                    jumps.push((author, head, head.seq.0.saturating_sub(before.0)));
                }
                Change::Seal(_) => {}
            }
        }
        self.on_jumped(jumps, out);
        let authors: Vec<NodeId> = authors.into_iter().collect();
        authors.iter().for_each(|author| self.tell(*author));
        self.tell_authors(&authors, out);
    }

    fn on_appended(
        &mut self,
        now: Time,
        record: Record,
        from: Option<P>,
        is_fetched: bool,
        tickets: Vec<(Ticket, usize)>,
        out: &mut Outbox<Output<P>>,
    ) {
        let is_own_append = !tickets.is_empty();
        if is_own_append {
            self.stats.appended += record.entries();
            self.stats.appended_records += 1;
            out.push(Output::Publish(record.clone()));
            self.answer_appends(now, &record, tickets, out);
        } else {
            self.stats.applied += 1;
            self.stats.applied_gossip += u64::from(!is_fetched);
        }
        self.own.note_stored(&record, record.author() == self.me());
        out.push(Event::Applied { record, from });
    }

    /// Nothing of the batch is on disk, nor will be what follows it: the logs are again what was stored.
    fn on_write_failed(
        &mut self,
        now: Time,
        batch: Vec<Queued<P>>,
        error: &StoreError,
        out: &mut Outbox<Output<P>>,
    ) {
        self.stats.writes_failed += 1;
        self.writer.retry_at = now + self.config.write_retry;
        let failed: Vec<Queued<P>> = batch.into_iter().chain(self.writer.queue.drain(..)).collect();
        self.writer.bytes = 0;
        let mut authors = BTreeSet::new();
        let (mut freezes, mut seals) = (Vec::new(), Vec::new());
        for queued in failed {
            authors.insert(queued.author);
            self.refuse_tickets(queued.tickets, error, out);
            match queued.change {
                Change::Freeze { proof, .. } => freezes.push(proof),
                Change::Seal(stored) => seals.push(*stored),
                Change::Append(_) | Change::Jump(_) => {}
            }
        }
        for author in authors {
            self.reset_to_stored(author, out);
        }
        // A frozen log may end where one of these cuts it: what is on disk must not say that without the checkpoint.
        for stored in seals {
            self.queue_seal(now, stored);
        }
        // A frozen log stays frozen, and the disk has to know as soon as it can.
        for proof in freezes {
            let author = proof.author();
            self.queue_freeze(proof);
            self.jump_if_forked_below(now, author);
        }
        out.push(Event::WriteFailed { error: error.clone() });
    }

    /// The author's log ends where it ends on disk, or before the fork.
    pub(super) fn reset_to_stored(&mut self, author: NodeId, out: &mut Outbox<Output<P>>) {
        let Some(log) = self.logs.get_mut(&author) else { return };
        log.unwritten.clear();
        let (head, step) = (log.stored, log.stored_step);
        // A log whose freezing is not written is cut already.
        let is_cut = head.seq > log.chain.limit();
        let mut kept = VecDeque::new();
        for queued in std::mem::take(&mut self.writer.queue) {
            if queued.author == author && matches!(queued.change, Change::Append(_)) {
                self.writer.bytes -= queued.bytes();
                self.refuse_tickets(queued.tickets, &damaged(), out);
            } else {
                kept.push_back(queued);
            }
        }
        self.writer.queue = kept;
        if !is_cut {
            self.with_chain(author, |chain| chain.reset(head, step));
            self.apply_waiting(author);
        }
        self.may_fetch = true;
    }

    /// Records that waited and come next now are in the log.
    pub(super) fn apply_waiting(&mut self, author: NodeId) {
        for record in self.with_chain(author, |chain| chain.take_next()).unwrap_or_default() {
            self.queue_append(record, None, true, Vec::new());
        }
    }

    fn refuse_tickets(
        &mut self,
        tickets: Vec<(Ticket, usize)>,
        error: &StoreError,
        out: &mut Outbox<Output<P>>,
    ) {
        for (ticket, _) in tickets {
            out.push(Output::Refused { ticket, error: AppendError::Store(error.clone()) });
        }
    }
}

fn damaged() -> StoreError {
    StoreError::Damaged("the own log was found damaged while the entry was written".to_owned())
}
