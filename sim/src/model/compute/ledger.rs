//! The ledger of jobs at a simulated node: how an entry gets onto the disk and to the others, by the log or, where nodes
//! keep none, by sending it and by comparing what each has; and what is written down of commits.

use bytes::Bytes;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::ledger::{Operation, TaskState};
use omnimesh_protocol::log::{self, Entry, Record};
use omnimesh_protocol::{Hash, Seq};
use rand::RngExt;

use super::super::compute_jobs::Entries;
use super::super::log::data_hash;
use super::super::node::{Ctx, Node};
use super::super::packet::Packet;
use super::super::random::Draw;
use super::{COMPARE_EVERY, Later, Parcel};

/// Tickets of the driver in the log: beyond those of the workload.
const TICKET: u64 = 1 << 40;
/// Entries in a frame.
const ENTRIES_MAX: usize = 64;

impl Node {
    /// The entries that are on the disk, each author's in order.
    pub(super) fn stored_entries(&self, ctx: &Ctx<'_>) -> Vec<Entry> {
        let Some(settings) = &ctx.shared.compute else { return Vec::new() };
        if let Some(drive) = &self.drive
            && ctx.shared.log.is_some()
        {
            let records = drive.store.logs().flat_map(|(_, records)| records.flatten());
            let of_jobs = records.filter(|record| *record.category() == settings.category);
            return of_jobs.flat_map(|record| record.to_entries().collect::<Vec<_>>()).collect();
        }
        self.kept_jobs.iter().flat_map(|kept| kept.logs.values().flatten().cloned()).collect()
    }

    /// Something is to be written to the ledger.
    pub(super) fn append_operation(&mut self, ticket: Ticket, payload: Bytes, ctx: &mut Ctx<'_>) {
        self.note_again(&payload, ctx);
        let counts = &mut ctx.sink.record.compute.counts;
        counts.entries += 1;
        counts.entry_bytes += payload.len() as u64;
        let Some(settings) = &ctx.shared.compute else { return };
        if ctx.shared.log.is_some() {
            ctx.sink.record.operations.push((ctx.me, data_hash(&payload)));
            let (category, ticket) = (settings.category.clone(), Ticket(TICKET | ticket.0));
            return self.log(log::Input::Append { category, payload, ticket, replicas: 0 }, ctx);
        }
        let disk = &ctx.shared.scenario.disk;
        let spread = Draw::new(self.rng.random(), 0, 0).normal();
        let sync = disk.sync.mul_f64((disk.sync_sigma * spread).exp()).min(disk.sync_max);
        self.add_later(Later::Append(payload), sync, ctx);
    }

    pub(in crate::model) fn on_compute_refused(&mut self, ticket: Ticket, ctx: &mut Ctx<'_>) {
        if ctx.shared.compute.is_some() && ticket.0 != u64::MAX && ticket.0 & TICKET != 0 {
            self.drive(driver::Input::AppendFailed { ticket: Ticket(ticket.0 ^ TICKET) }, ctx);
        }
    }

    pub(in crate::model) fn on_compute_record(&mut self, record: &Record, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        if *record.category() == settings.category && settings.keeps(ctx.me) {
            for entry in record.to_entries() {
                if entry.author == ctx.shared.id(ctx.me) {
                    self.note_committed(&entry, ctx);
                }
                self.drive(driver::Input::Entry(entry), ctx);
            }
        }
    }

    /// Writes down what a driver commits that its ledger has.
    fn note_again(&self, payload: &[u8], ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        let Ok(Operation::Commit { job, commits, .. }) = Operation::decode(payload) else { return };
        let Some(number) = settings.number_of(&job) else { return };
        let view = self.compute_part().and_then(|part| part.ledger()?.job(&job));
        for commit in commits {
            let is_in_ledger = view.is_some_and(|view| {
                view.task(commit.task) == Some(TaskState::Succeeded)
                    && view.inputs(commit.task) == Some(commit.inputs)
            });
            if is_in_ledger {
                *ctx.sink.record.compute.again.entry(number).or_default() += 1;
            }
        }
    }

    /// An own entry is on the disk: writes down what it commits that an earlier one has committed.
    fn note_committed(&self, entry: &Entry, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        let Ok(Operation::Commit { job, commits, .. }) = Operation::decode(&entry.data) else { return };
        let Some(number) = settings.number_of(&job) else { return };
        let notes = &mut ctx.sink.record.compute;
        for commit in commits {
            if !notes.committed.insert((ctx.me, number, commit.task, commit.inputs)) {
                *notes.again.entry(number).or_default() += 1;
            }
        }
    }

    /// An entry is on the disk.
    pub(super) fn write_entry(&mut self, payload: Bytes, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let Some(settings) = &shared.compute else { return };
        let Some(step) = self.mesh_step(ctx) else { return };
        let id = shared.id(ctx.me);
        let log = self.kept_jobs.get_or_insert_default().logs.entry(ctx.me).or_default();
        let seq = Seq(log.len() as u64 + 1);
        let entry = Entry {
            author: id,
            seq,
            prev: None,
            hash: Hash::of(&[id.as_bytes().as_slice(), &seq.0.to_le_bytes()].concat()),
            step,
            category: settings.category.clone(),
            timestamp_us: None,
            data: payload,
        };
        log.push(entry.clone());
        let entries: Entries = [entry.clone()].into();
        let me = ctx.me;
        for keeper in settings.keepers.iter().filter(|keeper| **keeper != me) {
            let parcel = Parcel::Entries { author: me, first: seq.0, entries: Entries::clone(&entries) };
            self.send(*keeper, Packet::Compute(parcel), ctx);
        }
        self.note_committed(&entry, ctx);
        self.drive(driver::Input::Entry(entry), ctx);
    }

    /// Tells another one what it has, which sends what is missing.
    pub(super) fn compare(&mut self, ctx: &mut Ctx<'_>) {
        let Some(settings) = &ctx.shared.compute else { return };
        self.add_later(Later::Compare, COMPARE_EVERY, ctx);
        if ctx.shared.log.is_some() {
            return;
        }
        let peer = settings.keepers[self.rng.random_range(0..settings.keepers.len())];
        if peer != ctx.me {
            let logs = self.kept_jobs.iter().flat_map(|kept| &kept.logs);
            let heads = logs.map(|(author, entries)| (*author, entries.len() as u64)).collect();
            self.send(peer, Packet::Compute(Parcel::Heads(heads)), ctx);
        }
    }

    pub(super) fn on_heads(&mut self, from: u32, heads: &[(u32, u64)], ctx: &mut Ctx<'_>) {
        let mut missing = Vec::new();
        for (author, entries) in self.kept_jobs.iter().flat_map(|kept| &kept.logs) {
            let known = heads.iter().find(|(of, _)| of == author).map_or(0, |(_, count)| *count);
            let skip = usize::try_from(known).unwrap_or(usize::MAX);
            for (place, chunk) in entries.get(skip..).unwrap_or_default().chunks(ENTRIES_MAX).enumerate() {
                let first = known + (place * ENTRIES_MAX) as u64 + 1;
                missing.push(Parcel::Entries { author: *author, first, entries: chunk.to_vec().into() });
            }
        }
        for parcel in missing {
            self.send(from, Packet::Compute(parcel), ctx);
        }
    }

    pub(super) fn on_entries(&mut self, author: u32, first: u64, entries: &[Entry], ctx: &mut Ctx<'_>) {
        let log = self.kept_jobs.get_or_insert_default().logs.entry(author).or_default();
        let mut news = Vec::new();
        for (seq, entry) in (first..).zip(entries) {
            // What comes before those in front of it is sent again when ledgers are compared.
            if seq == log.len() as u64 + 1 {
                log.push(entry.clone());
                news.push(entry.clone());
            }
        }
        for entry in news {
            self.drive(driver::Input::Entry(entry), ctx);
        }
    }
}
