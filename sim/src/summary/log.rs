//! The durable log in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Latency;
use crate::outcome::{Answer, AuthorLog, LogFacts, Outcome};

/// What came of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSummary {
    /// Entries that honest nodes were asked to append.
    pub appends: u64,
    /// Of these, entries that were acknowledged.
    pub acknowledged: u64,
    /// Of these, entries that were refused.
    pub refused: u64,
    /// Of these, entries whose author died before it answered.
    pub unanswered: u64,
    /// From being asked to being acknowledged.
    pub acknowledged_ms: Latency,
    /// From being asked to being on the disk of every honest node that is up at the end.
    pub everywhere_ms: Latency,
    /// Entries of which that is true.
    pub everywhere: u64,
    /// Honest nodes that are up at the end.
    pub nodes: u64,
    /// Acknowledged entries that none of them has on disk, nor in a checkpoint that stands for it.
    pub lost: u64,
    /// So many of them hold the same logs and the same registry: all if all is well.
    pub equal_nodes: u64,
    /// Checkpoints that were sealed.
    pub checkpoints: u64,
    /// How often a node took one from peers, in place of entries.
    pub checkpoints_adopted: u64,
    /// Missing entries for which one came to stand.
    pub entries_covered: u64,
    /// Entries that a node no longer keeps, at the node that has dropped the most.
    pub entries_dropped: u64,
    /// Distinct logs that they hold; as many as authors if all is well.
    pub distinct_logs: u64,
    /// Logs that are frozen, at the node that holds the most for frozen.
    pub frozen: u64,
    /// Entries of the registry, at the node that has the most.
    pub registry_entries: u64,
    /// Damaged records that nodes found on their disks.
    pub damaged: u64,
    /// Writes that disks made, and could not make.
    pub writes: u64,
    /// Writes that failed.
    pub writes_failed: u64,
    /// Rounds of reconciliation.
    pub rounds: u64,
    /// Of these, rounds in which nothing differed.
    pub rounds_equal: u64,
    /// Bytes of frames to compare and to ask: all but those that carry records.
    pub reconciliation_bytes: u64,
    /// Bytes of frames that carry records.
    pub record_bytes: u64,
    /// Requests for records.
    pub fetches: u64,
    /// Requests that were not answered, or wrongly.
    pub fetches_failed: u64,
    /// Reports of having caught up.
    pub catch_ups: u64,
    /// Entries that were missed and are there again, by these reports.
    pub caught_up: u64,
    /// Bytes of frames with records for each byte of a record that came in them and was new; the records' length taken
    /// as their mean.
    pub catch_up_ratio: Option<f64>,
    /// What peers did that no honest one does, or that slow ones do too.
    pub misdeeds: u64,
    /// The most bytes that waited in one log for their place or to be written, in the samples.
    pub buffered_max: u64,
}

impl LogSummary {
    pub(super) fn of(outcome: &Outcome) -> LogSummary {
        let Some(facts) = &outcome.log else { return LogSummary::default() };
        let counts = &facts.counts;
        let mut summary = LogSummary {
            appends: facts.appends.len() as u64,
            everywhere_ms: Latency::of(&facts.everywhere_us),
            everywhere: facts.everywhere_us.len() as u64,
            nodes: facts.nodes.len() as u64,
            lost: lost(facts),
            equal_nodes: equal_nodes(facts),
            checkpoints: facts.checkpoints.len() as u64,
            checkpoints_adopted: counts.checkpoints_adopted,
            entries_covered: counts.entries_covered,
            entries_dropped: facts.nodes.iter().map(|node| node.dropped).max().unwrap_or(0),
            distinct_logs: facts.logs.len() as u64,
            frozen: facts.nodes.iter().map(|node| node.frozen.len() as u64).max().unwrap_or(0),
            registry_entries: facts.nodes.iter().map(|node| node.registry_entries as u64).max().unwrap_or(0),
            damaged: counts.damaged,
            writes: counts.writes,
            writes_failed: counts.writes_failed,
            rounds: counts.rounds,
            rounds_equal: counts.rounds_equal,
            reconciliation_bytes: counts.bytes.saturating_sub(counts.record_bytes),
            record_bytes: counts.record_bytes,
            fetches: counts.fetches,
            fetches_failed: counts.fetches_failed,
            catch_ups: counts.catch_ups,
            caught_up: counts.caught_up,
            misdeeds: counts.misdeeds,
            buffered_max: facts.buffered_max,
            ..LogSummary::default()
        };
        let mut took = Vec::new();
        for append in &facts.appends {
            match &append.answer {
                Some(Answer::Acknowledged { at, .. }) => {
                    summary.acknowledged += 1;
                    let us = at.saturating_sub(append.at).as_micros();
                    took.push(u32::try_from(us).unwrap_or(u32::MAX));
                }
                Some(Answer::Refused(_)) => summary.refused += 1,
                None => summary.unanswered += 1,
            }
        }
        took.sort_unstable();
        summary.acknowledged_ms = Latency::of(&took);
        let fetched = counts.applied.saturating_sub(counts.applied_gossip) as f64;
        let mean = counts.applied_bytes as f64 / counts.applied.max(1) as f64;
        summary.catch_up_ratio =
            (fetched * mean > 0.0).then(|| counts.record_bytes as f64 / (fetched * mean));
        summary
    }
}

fn lost(facts: &LogFacts) -> u64 {
    let mut logs: BTreeMap<u32, Vec<&AuthorLog>> = BTreeMap::new();
    facts.logs.iter().for_each(|log| logs.entry(log.author).or_default().push(log));
    let is_lost = |append: &&crate::outcome::Append| {
        let Some(Answer::Acknowledged { seq, hash, .. }) = append.answer else { return false };
        let mut held = logs.get(&append.author).into_iter().flatten();
        !held.any(|log| log.has(seq, (hash, append.data)))
    };
    facts.appends.iter().filter(is_lost).count() as u64
}

fn equal_nodes(facts: &LogFacts) -> u64 {
    let mut groups: BTreeMap<_, u64> = BTreeMap::new();
    for node in &facts.nodes {
        *groups.entry((&node.logs, node.fingerprint, node.registry)).or_default() += 1;
    }
    groups.into_values().max().unwrap_or(0)
}
