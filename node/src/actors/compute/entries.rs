//! Entries of the log: the driver is given all of them, and its ledger is kept, so that a start need not read the whole
//! log.

use std::sync::Arc;

use actix::prelude::*;
use omnimesh_protocol::Outbox;
use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::ledger::{self, CATEGORY, Change as LedgerChange};
use omnimesh_protocol::log::checkpoint::Base;
use omnimesh_protocol::projection::Projection;

use super::ComputeActor;
use crate::actors::log::Change;
use crate::actors::projection::{self, Batch, Kept, read_all};
use crate::feed::FeedItem;

/// Entries since the last snapshot that make another one worth its while.
const SNAPSHOT_ENTRIES: u64 = 1_000;

impl ComputeActor {
    pub(super) fn on_change(&mut self, change: FeedItem<Change>, ctx: &mut Context<Self>) {
        match change {
            FeedItem::Next(Change::Applied(entries)) => {
                self.unsaved += entries.len() as u64;
                self.drive_all(entries.iter().cloned().map(driver::Input::Entry), ctx);
            }
            FeedItem::Next(Change::Frozen { author, end }) => {
                self.drive(driver::Input::Cut { author, end }, ctx);
            }
            FeedItem::Next(Change::Jumped(authors)) => {
                if authors.iter().any(|author| self.driver.ledger().is_cut(author)) {
                    // What was taken back of a log counts again as far as the checkpoint covers it.
                    self.begin_anew(ledger::State::new(), ctx);
                }
                self.replay(ctx);
            }
            FeedItem::Lagged(_) => self.replay(ctx),
        }
    }

    /// Gives the driver all entries once more. What happens meanwhile waits.
    pub(super) fn replay(&mut self, ctx: &mut Context<Self>) {
        let batches = read_all(Arc::clone(&self.settings.log)).into_actor(self);
        let batches = batches.map(|batch, actor, ctx| match batch {
            Ok(Batch { records, damage, .. }) => {
                let entries = records.iter().flat_map(|record| record.to_entries().collect::<Vec<_>>());
                actor.drive_all(entries.map(driver::Input::Entry), ctx);
                projection::tell_log(&actor.log, damage, actor, ctx);
            }
            Err(error) => tracing::error!(%error, "the jobs could not be read anew"),
        });
        ctx.wait(batches.finish());
    }

    pub(super) fn save(&mut self) {
        if self.unsaved < SNAPSHOT_ENTRIES {
            return;
        }
        self.unsaved = 0;
        let (store, snapshot) = (Arc::clone(&self.settings.log), self.driver.ledger().snapshot());
        drop(actix_rt::task::spawn_blocking(move || {
            if let Err(error) = store.save_snapshot(CATEGORY, &snapshot) {
                tracing::warn!(%error, "the jobs were not kept; the next start reads the whole log");
            }
        }));
    }
}

impl Kept for ledger::State {
    const CATEGORY: &'static str = CATEGORY;

    /// Checkpoints hold no jobs: those of entries that were dropped are over.
    fn take_base(&mut self, _: &Base, _: &mut Outbox<LedgerChange>) {}
}
