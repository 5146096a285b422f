//! The documents of the durable log.

use data_encoding::HEXLOWER;
use omnimesh_protocol::id::{Hash, NodeId, Seq, Step};
use omnimesh_protocol::log::checkpoint::Sealed;
use omnimesh_protocol::log::{Appended, Entry, Proof, Report};
use serde::{Deserialize, Deserializer, Serialize};

use super::strict::{object, whole};
use super::{ErrorDetail, Payload, PayloadWire, PublishRequest};
use crate::actors::log::Change;
use crate::durable::{HeadView, LogPage, LogView};

/// An entry to append: the body of `POST /api/v1/log/entries`; `data` or `data_base64`.
///
/// Read strictly: a field it does not know is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppendRequest {
    /// What it says.
    #[serde(flatten, serialize_with = "Payload::write_short")]
    pub payload: Payload,
    /// How many other nodes must have it on disk before it is answered.
    pub replicas: usize,
}

impl<'de> Deserialize<'de> for AppendRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            data: Option<String>,
            data_base64: Option<String>,
            #[serde(default, deserialize_with = "whole")]
            replicas: usize,
        }
        let Strict { data, data_base64, replicas } = object(deserializer)?;
        let payload = PayloadWire { data, data_base64 }.decode().map_err(serde::de::Error::custom)?;
        Ok(AppendRequest { payload, replicas })
    }
}

/// Entries to append one after another: the body of `POST /api/v1/log/batches`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendBatch {
    /// The entries.
    pub entries: Vec<PublishRequest>,
    /// How many other nodes must have each on disk before it is answered.
    #[serde(default, deserialize_with = "whole")]
    pub replicas: usize,
}

/// An entry that was appended. It is on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAppended {
    /// This node.
    pub author: NodeId,
    /// Its place in the log.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
    /// The step in which it was written.
    pub step: Step,
    /// Always true: what is not on disk is not answered.
    pub durable: bool,
    /// How many other nodes have said that they have it on disk.
    pub replicas: usize,
}

impl From<Appended> for LogAppended {
    fn from(appended: Appended) -> Self {
        let Appended { author, seq, hash, step, replicas } = appended;
        LogAppended { author, seq, hash, step, durable: true, replicas }
    }
}

/// What became of one entry of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchResult {
    /// It was appended.
    Appended(LogAppended),
    /// It was not.
    Failed {
        /// Why.
        error: ErrorDetail,
    },
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Whose log it is in.
    pub author: NodeId,
    /// Its place there, from 1 on.
    pub seq: Seq,
    /// The hash of the author's entry before it; none for the first.
    pub prev: Option<Hash>,
    /// Its hash.
    pub hash: Hash,
    /// The step in which it was written.
    pub step: Step,
    /// Who is meant to read it: `log` is what users append, `registry` what the registry is made of.
    pub category: String,
    /// The author's mesh time when it was written; none if it gave none.
    pub timestamp_us: Option<u64>,
    /// What it says: `data` or `data_base64`.
    #[serde(flatten)]
    pub payload: Payload,
}

impl From<Entry> for LogEntry {
    fn from(entry: Entry) -> Self {
        let Entry { author, seq, prev, hash, step, category, timestamp_us, data } = entry;
        let category = category.to_string();
        LogEntry { author, seq, prev, hash, step, category, timestamp_us, payload: data.into() }
    }
}

/// Entries of one author, in order: `GET /api/v1/log/entries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntries {
    /// Whose.
    pub author: NodeId,
    /// The first entry that this node has.
    pub base: Seq,
    /// The last one.
    pub head: Seq,
    /// True if the author has contradicted itself, and its log goes no further.
    pub frozen: bool,
    /// The entries.
    pub entries: Vec<LogEntry>,
    /// What to give as `from` for more; none if these reach the head.
    pub next: Option<Seq>,
}

impl From<LogPage> for LogEntries {
    fn from(page: LogPage) -> Self {
        let LogPage { head: HeadView { author, base, seq: head, fork, .. }, entries, next } = page;
        let entries = entries.into_iter().map(LogEntry::from).collect();
        LogEntries { author, base, head, frozen: fork.is_some(), entries, next }
    }
}

/// What happened to the log: `GET /api/v1/log/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// What.
    pub change: LogChange,
    /// Whose log; none if many changed.
    pub author: Option<NodeId>,
    /// The entries that were added, in order, and are on disk.
    pub entries: Vec<LogEntry>,
    /// Its last entry now; 0 if there is none left.
    pub head: Seq,
}

/// What may happen to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogChange {
    /// Entries were added.
    Appended,
    /// Its author contradicted itself: entries behind the head count no more.
    Frozen,
    /// A checkpoint stands for entries that had been missing here; `GET /api/v1/log/heads` tells what there is now.
    Covered,
}

impl LogChange {
    /// Its name in the stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogChange::Appended => "appended",
            LogChange::Frozen => "frozen",
            LogChange::Covered => "covered",
        }
    }
}

impl LogEvent {
    /// What readers are told of a change. What was written together may be of many authors; an event is of one.
    pub(crate) fn all_of(change: Change) -> Vec<Self> {
        match change {
            Change::Frozen { author, end } => vec![LogEvent {
                change: LogChange::Frozen,
                author: Some(author),
                entries: Vec::new(),
                head: end.map_or(Seq(0), |end| end.seq),
            }],
            Change::Applied(entries) => {
                entries.chunk_by(|one, next| one.author == next.author).map(Self::appended).collect()
            }
            Change::Jumped(_) => {
                vec![LogEvent { change: LogChange::Covered, author: None, entries: Vec::new(), head: Seq(0) }]
            }
        }
    }

    fn appended(entries: &[Entry]) -> Self {
        LogEvent {
            change: LogChange::Appended,
            author: entries.first().map(|entry| entry.author),
            head: entries.last().map_or(Seq(0), |entry| entry.seq),
            entries: entries.iter().cloned().map(LogEntry::from).collect(),
        }
    }
}

/// Where one author's log ends: `GET /api/v1/log/heads` answers a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Whose.
    pub author: NodeId,
    /// The last entry; 0 if there is none, because the log is frozen from its first entry on, or what comes before is not
    /// here yet.
    pub seq: Seq,
    /// Its hash; zeros if there is none.
    pub hash: Hash,
    /// The first entry that this node has.
    pub base: Seq,
    /// True if the author has contradicted itself, and its log goes no further.
    pub frozen: bool,
    /// The entry for which it has signed two; entries from there on count no more, unless a checkpoint covers them.
    #[serde(default)]
    pub fork: Option<Seq>,
}

impl From<HeadView> for LogHead {
    fn from(head: HeadView) -> Self {
        let HeadView { author, base, seq, hash, fork } = head;
        LogHead { author, seq, hash, base, frozen: fork.is_some(), fork }
    }
}

/// The account of one catch-up: `GET /api/v1/log/gaps` answers a list, the oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatchUp {
    /// How long it took.
    pub took_ms: f64,
    /// Entries that were missing and are here now.
    pub entries: u64,
    /// Of these, entries that came by gossip meanwhile.
    pub entries_gossip: u64,
    /// Entries that were missing and that a checkpoint stands for now.
    pub covered: u64,
    /// Entries that nobody who was asked has.
    pub nobody_has: u64,
    /// Bytes sent to compare and to ask.
    pub bytes_sent: u64,
    /// Bytes received in answer.
    pub bytes_received: u64,
    /// Of these, bytes of records.
    pub record_bytes: u64,
    /// Questions that were answered.
    pub round_trips: u64,
    /// What was missed, by author; a bounded number of them.
    pub authors: Vec<MissedEntries>,
    /// Who gave what; a bounded number of them.
    pub sources: Vec<Source>,
}

/// What was missed of one author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedEntries {
    /// Whose.
    pub author: NodeId,
    /// The first entry that was missing.
    pub from: Seq,
    /// The last one that was known to be missing.
    pub to: Seq,
    /// How many of them are here now.
    pub recovered: u64,
    /// How many a checkpoint stands for.
    pub covered: u64,
    /// How many nobody has, or gives.
    pub nobody_has: u64,
}

/// What one peer gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who.
    pub peer_id: NodeId,
    /// How many entries.
    pub entries: u64,
    /// In how many bytes of records.
    pub bytes: u64,
}

impl From<Report> for CatchUp {
    fn from(report: Report) -> Self {
        let missed = |(author, missed): (NodeId, omnimesh_protocol::log::Missed)| MissedEntries {
            author,
            from: missed.from,
            to: missed.to,
            recovered: missed.recovered,
            covered: missed.covered,
            nobody_has: missed.nobody_has,
        };
        CatchUp {
            took_ms: report.took.as_secs_f64() * 1e3,
            entries: report.entries,
            entries_gossip: report.entries_gossip,
            covered: report.covered,
            nobody_has: report.authors.values().map(|missed| missed.nobody_has).sum(),
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            record_bytes: report.record_bytes,
            round_trips: report.round_trips,
            authors: report.authors.into_iter().map(missed).collect(),
            sources: report
                .sources
                .into_iter()
                .map(|(peer_id, gave)| Source { peer_id, entries: gave.entries, bytes: gave.bytes })
                .collect(),
        }
    }
}

/// How the log is: `GET /api/v1/log/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// A hash of all heads: equal on nodes that have the same entries.
    pub fingerprint: Hash,
    /// Authors whose logs are kept.
    pub authors: usize,
    /// Of these, frozen ones.
    pub frozen: usize,
    /// Entries on disk, truncated ones included.
    pub entries: u64,
    /// Entries that peers are known to have and this node has not.
    pub behind: u64,
    /// Records that wait for what comes before them.
    pub waiting: usize,
    /// Bytes of them.
    pub waiting_bytes: usize,
    /// Rounds of reconciliation begun.
    pub rounds: u64,
    /// Of these, rounds in which nothing differed.
    pub rounds_equal: u64,
    /// Bytes of frames sent to compare and to repair.
    pub bytes_sent: u64,
    /// Bytes of frames received.
    pub bytes_received: u64,
    /// Writes done.
    pub writes: u64,
    /// Writes that failed.
    pub writes_failed: u64,
    /// Bytes of the log's file.
    pub disk_bytes: u64,
    /// Entries that were dropped here, or never were here, because a checkpoint stands for them.
    pub entries_dropped: u64,
    /// Checkpoints sealed that this node had made itself.
    pub checkpoints_sealed: u64,
    /// Checkpoints taken from peers.
    pub checkpoints_adopted: u64,
    /// The newest sealed checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<LogCheckpoint>,
    /// The step of the checkpoint that is being fetched from peers, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_fetched: Option<Step>,
    /// False while the node still asks its peers where its own log ends.
    pub own_log_known: bool,
    /// What is wrong with the disk or the own log, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A sealed checkpoint: what all entries before a step come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCheckpoint {
    /// Entries before it are covered.
    pub step: Step,
    /// Its name.
    pub id: Hash,
    /// How many bytes it has.
    pub bytes: u64,
    /// Who has signed it.
    pub signers: Vec<NodeId>,
}

impl From<&Sealed> for LogCheckpoint {
    fn from(sealed: &Sealed) -> Self {
        let Sealed { checkpoint, votes, .. } = sealed;
        let signers = votes.iter().map(|vote| vote.signer).collect();
        LogCheckpoint { step: checkpoint.step, id: checkpoint.id(), bytes: checkpoint.bytes(), signers }
    }
}

impl From<&LogView> for LogStatus {
    fn from(view: &LogView) -> Self {
        let stats = &view.stats;
        LogStatus {
            fingerprint: view.fingerprint,
            authors: stats.authors,
            frozen: stats.frozen,
            entries: stats.entries,
            behind: stats.behind,
            waiting: stats.waiting,
            waiting_bytes: stats.waiting_bytes,
            rounds: stats.rounds,
            rounds_equal: stats.rounds_equal,
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            writes: stats.writes,
            writes_failed: stats.writes_failed,
            disk_bytes: view.disk_bytes,
            entries_dropped: view.heads.iter().map(|head| head.base.0.saturating_sub(1)).sum(),
            checkpoints_sealed: stats.checkpoints_sealed,
            checkpoints_adopted: stats.checkpoints_adopted,
            checkpoint: view.checkpoint.as_ref().map(LogCheckpoint::from),
            checkpoint_fetched: view.adopting,
            own_log_known: view.is_own_log_known,
            trouble: view.trouble.clone(),
        }
    }
}

/// The proof that an author has contradicted itself: `GET /api/v1/log/proofs` answers a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProof {
    /// Whom it convicts.
    pub author: NodeId,
    /// The first entry that counts no more.
    pub fork: Seq,
    /// The proof's name.
    pub id: Hash,
    /// Its bytes, in hex: what `omnimesh evidence verify` takes.
    pub proof: String,
}

impl From<&Proof> for LogProof {
    fn from(proof: &Proof) -> Self {
        let (author, fork, id) = (proof.author(), proof.fork(), proof.id());
        LogProof { author, fork, id, proof: HEXLOWER.encode(&proof.encode()) }
    }
}
