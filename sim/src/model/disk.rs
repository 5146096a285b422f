//! A node's disk: what is on it outlives the process; it takes its time, and fails as a fault wants it.

use omnimesh_protocol::log::{self, Change, Damaged, MemoryStore, Record, StoreError};
use omnimesh_protocol::{MessageId, NodeId, Seq};

use super::link::{NodeSet, nanos};
use super::log_checkpoint::{JumpNote, note_sealed};
use super::node::{Ctx, Node};
use super::random::{Draw, mix};
use super::record::Record as Notes;
use super::shared::Shared;

/// Draws of a disk.
pub(super) const OF_DISK: u64 = 0x6469_736b;
/// A flipped bit must not be the end of what only one node has: so many must hold a log to its end.
const HOLDERS_MIN: u32 = 3;

/// What outlives a process.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) store: MemoryStore,
    /// Everything takes so many times as long as elsewhere.
    factor: f64,
    slow: Option<(usize, f64)>,
    pub(super) full: Option<usize>,
    pub(super) armed: Option<Armed>,
    /// The process is to die with the write that is under way, which survives or not.
    pub(super) dying: Option<bool>,
    pub(super) draws: u64,
    /// Flipped records and the faults that did it.
    flips: Vec<(NodeId, Seq, usize)>,
}

/// The process dies in its next write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    pub(super) fault: usize,
    pub(super) survives: bool,
}

/// A record that some node of the shard has written.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) record: Record,
    /// Who has it on disk, or had.
    pub(super) nodes: NodeSet,
    /// When honest nodes had it on disk for the first time.
    pub(super) times: Vec<(u32, u64)>,
}

/// All records that were written: one body for all nodes.
pub(super) type Pool = hashbrown::HashMap<MessageId, Pooled>;

impl Drive {
    pub(super) fn new(shared: &Shared, me: u32) -> Self {
        let disk = &shared.scenario.disk;
        let is_slow = Draw::new(shared.seed ^ OF_DISK, u64::from(me), 1).chance(disk.slow_share);
        Drive {
            store: MemoryStore::new(),
            factor: if is_slow { disk.slow_factor } else { 1.0 },
            slow: None,
            full: None,
            armed: None,
            dying: None,
            draws: 0,
            flips: Vec::new(),
        }
    }

    /// How long a write of so many bytes takes, or a read.
    pub(super) fn takes(&mut self, write: Option<usize>, shared: &Shared, me: u32, notes: &mut Notes) -> u64 {
        let disk = &shared.scenario.disk;
        let mut factor = self.factor;
        if let Some((fault, slower)) = self.slow {
            factor *= slower;
            notes.faults[fault] += 1;
        }
        let seconds = match write {
            None => disk.read.as_secs_f64(),
            Some(bytes) => {
                self.draws += 1;
                let mut draw = Draw::new(shared.seed ^ OF_DISK ^ mix(self.draws), u64::from(me), 2);
                let sync = disk.sync.as_secs_f64() * (disk.sync_sigma * draw.normal()).exp();
                sync.min(disk.sync_max.as_secs_f64()) + bytes as f64 / disk.bytes_per_s.max(1) as f64
            }
        };
        nanos(std::time::Duration::from_secs_f64((seconds * factor).clamp(0.0, 3_600.0))).max(1)
    }

    /// Damage was found: the log ends before it. Counts what flipped bits there were.
    pub(super) fn on_damage(&mut self, damaged: &Damaged, notes: &mut Notes) -> log::StoredLog {
        notes.log.damaged += 1;
        self.flips.retain(|(author, first, fault)| {
            let is_found = *author == damaged.author && *first >= damaged.first;
            notes.faults[*fault] += u64::from(is_found);
            !is_found
        });
        self.store.cut(damaged)
    }

    /// Puts the changes on disk, all or none.
    pub(super) fn commit(&mut self, changes: &[Change], ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
        self.store.write(changes)?;
        let is_honest = !ctx.shared.dishonest.contains(ctx.me);
        for change in changes.iter().filter(|_| is_honest) {
            match change {
                Change::Seal(stored) => {
                    note_sealed(&mut ctx.sink.record.sealed, stored, (ctx.now, ctx.me));
                }
                Change::Jump(log) => {
                    let jump = JumpNote { author: log.author, to: log.head.seq, node: ctx.me, at: ctx.now };
                    ctx.sink.record.jumps.push(jump);
                }
                Change::Append(_) | Change::Freeze { .. } => {}
            }
        }
        for change in changes {
            if let Change::Append(record) = change
                && let Some(pooled) = ctx.sink.pool.get_mut(&record.envelope().id())
                && pooled.nodes.insert(ctx.me)
                && is_honest
            {
                pooled.times.push((ctx.me, ctx.now));
                if record.author() != ctx.shared.id(ctx.me) {
                    ctx.sink.record.log.applied_bytes += record.as_bytes().len() as u64;
                }
            }
        }
        Ok(())
    }
}

/// The same record with the body that others of the shard use.
pub(super) fn pooled(change: Change, pool: &mut Pool) -> Change {
    match change {
        Change::Append(record) => {
            let of_pool = pool.entry(record.envelope().id()).or_insert_with(|| Pooled {
                record: record.clone(),
                nodes: NodeSet::default(),
                times: Vec::new(),
            });
            Change::Append(of_pool.record.clone())
        }
        change => change,
    }
}

impl Node {
    fn drive_mut(&mut self, ctx: &Ctx<'_>) -> &mut Drive {
        self.drive.get_or_insert_with(|| Box::new(Drive::new(ctx.shared, ctx.me)))
    }

    /// The process dies in its next write; or no longer does, because of this fault.
    pub(super) fn arm(&mut self, fault: usize, survives: Option<bool>, ctx: &Ctx<'_>) {
        let drive = self.drive_mut(ctx);
        match survives {
            Some(survives) => drive.armed = Some(Armed { fault, survives }),
            None if drive.armed.is_some_and(|armed| armed.fault == fault) => drive.armed = None,
            None => {}
        }
    }

    pub(super) fn slow_disk(&mut self, slow: Option<(usize, f64)>, ctx: &Ctx<'_>) {
        self.drive_mut(ctx).slow = slow;
    }

    pub(super) fn full_disk(&mut self, fault: Option<usize>, ctx: &Ctx<'_>) {
        self.drive_mut(ctx).full = fault;
    }

    /// Records whose bits may flip: of logs that enough others hold to their end.
    pub(super) fn flippable(&self, holders: impl Fn(&MessageId) -> u32) -> Vec<(NodeId, Seq)> {
        let Some(drive) = &self.drive else { return Vec::new() };
        let mut places = Vec::new();
        for (author, mut records) in drive.store.logs() {
            let last = records.next_back().flatten();
            if last.is_some_and(|last| holders(&last.envelope().id()) >= HOLDERS_MIN) {
                places.extend(drive.store.places(author).map(|first| (*author, first)));
            }
        }
        places
    }

    pub(super) fn flip(&mut self, fault: usize, (author, first): (NodeId, Seq), bit: u64, ctx: &Ctx<'_>) {
        let drive = self.drive_mut(ctx);
        if drive.store.flip(&author, first, bit) {
            drive.flips.push((author, first, fault));
        }
    }
}
