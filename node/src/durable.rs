//! What a node keeps: its log, and the registry that is made of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope};
use omnimesh_protocol::log::checkpoint::Sealed;
use omnimesh_protocol::log::{Appended, AuthorHead, Entry, Proof, Record, Report, Stats, StoredLog};
use omnimesh_protocol::registry::{self, Action};
use omnimesh_protocol::{Hash, NodeId, Seq, Step};

use crate::actors::Links;
use crate::actors::log::{Append, AppendAll, Change, Found, GetReports, GetState, LogError, LogState, Watch};
use crate::actors::registry::{Ask, RegistryError, WatchRegistry, Write};
use crate::feed::Feed;
use crate::node::MeshNode;
use crate::store::log::{LogStore, ReadError};

/// The category of what users append themselves.
pub const USER_CATEGORY: &str = "log";
/// Bytes of records that one read gives at most.
const READ_BYTES_MAX: usize = 4 << 20;

/// A node's log as it stands.
#[derive(Clone, Debug)]
pub struct LogView {
    /// Where each author's log ends.
    pub heads: Vec<HeadView>,
    /// A hash of all heads: equal on nodes that have the same entries.
    pub fingerprint: Hash,
    /// The proofs of frozen logs.
    pub proofs: Vec<Proof>,
    /// Counters.
    pub stats: Stats,
    /// False while the node still asks its peers where its own log ends.
    pub is_own_log_known: bool,
    /// The newest sealed checkpoint, and who has signed it.
    pub checkpoint: Option<Sealed>,
    /// The step of the checkpoint that is being fetched from peers, if one is.
    pub adopting: Option<Step>,
    /// What is wrong with the disk or the own log, if something is.
    pub trouble: Option<String>,
    /// Bytes of the log's file.
    pub disk_bytes: u64,
}

/// Where one author's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadView {
    /// The author.
    pub author: NodeId,
    /// The first entry that is here.
    pub base: Seq,
    /// The last entry.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
    /// The entry for which the author has signed two, if it has contradicted itself. Its log ends before it, or where a sealed
    /// checkpoint cuts it behind that; that is no entry at all if it was the first.
    pub fork: Option<Seq>,
}

impl From<StoredLog> for HeadView {
    fn from(log: StoredLog) -> Self {
        let StoredLog { author, base, head, proof, .. } = log;
        HeadView { author, base, seq: head.seq, hash: head.digest, fork: proof.map(|proof| proof.fork()) }
    }
}

/// Entries of one author, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Where the author's log ended when they were read.
    pub head: HeadView,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where to go on; `None` if they reach the head.
    pub next: Option<Seq>,
}

impl LogView {
    fn new(state: LogState, disk_bytes: u64) -> Self {
        let LogState { heads, proofs, stats, fingerprint, is_own_log_known, checkpoint, adopting, trouble } =
            state;
        let forks: BTreeMap<NodeId, Seq> =
            proofs.iter().map(|proof| (proof.author(), proof.fork())).collect();
        let view = |(AuthorHead { author, head, .. }, base): (AuthorHead, Seq)| HeadView {
            author,
            base,
            seq: head.seq,
            hash: head.digest,
            fork: forks.get(&author).copied(),
        };
        let heads = heads.into_iter().map(view).collect();
        LogView {
            heads,
            fingerprint,
            proofs,
            stats,
            is_own_log_known,
            checkpoint,
            adopting,
            trouble,
            disk_bytes,
        }
    }
}

impl MeshNode {
    /// Appends an entry to this node's log. When it is answered, the entry is on this node's disk, and on those of
    /// `replicas` others, as long as there are so many within a few seconds: the answer says how many.
    ///
    /// # Errors
    /// If the node keeps no log, the entry is too large, too much waits, or the disk fails.
    pub async fn append(&self, payload: impl Into<Bytes>, replicas: usize) -> Result<Appended, LogError> {
        let category = Channel::new(USER_CATEGORY).expect("a good name");
        self.append_to(category, payload.into(), replicas).await
    }

    /// The same in another category: an application's own, that others find again by its name.
    ///
    /// # Errors
    /// As [`MeshNode::append`], and if the category's name begins with `_`.
    pub async fn append_to(
        &self,
        category: Channel,
        payload: Bytes,
        replicas: usize,
    ) -> Result<Appended, LogError> {
        let log = self.links_of_log()?.0;
        Append::to(&log, category, payload, replicas).await
    }

    /// The log as it stands.
    ///
    /// # Errors
    /// If the node keeps none, or has stopped.
    pub async fn log(&self) -> Result<LogView, LogError> {
        let (log, store) = self.links_of_log()?;
        let state = log.send(GetState).await.map_err(|_| LogError::Stopped)?;
        Ok(LogView::new(state, store.bytes_on_disk()))
    }

    /// What the node caught up with, the oldest first.
    ///
    /// # Errors
    /// If the node keeps no log, or has stopped.
    pub async fn log_reports(&self) -> Result<Vec<Report>, LogError> {
        let log = self.links_of_log()?.0;
        log.send(GetReports).await.map_err(|_| LogError::Stopped)
    }

    /// Appends entries one after another, which costs little more than one. Each is answered for itself, in order.
    ///
    /// # Errors
    /// If the node keeps no log, or has stopped; in the list, as [`MeshNode::append`].
    pub async fn append_all(
        &self,
        payloads: Vec<Bytes>,
        replicas: usize,
    ) -> Result<Vec<Result<Appended, LogError>>, LogError> {
        let category = Channel::new(USER_CATEGORY).expect("a good name");
        let log = self.links_of_log()?.0;
        log.send(AppendAll { category, payloads, replicas }).await.map_err(|_| LogError::Stopped)
    }

    /// Entries of one author from `from` on, in order, at most so many. Fewer come at once if they are large: ask
    /// again behind the last.
    ///
    /// # Errors
    /// If the author is not known, `from` is not among its entries, or the disk fails. Damaged entries are not given;
    /// they are fetched from peers again.
    pub async fn log_entries(&self, author: NodeId, from: Seq, limit: usize) -> Result<Vec<Entry>, LogError> {
        let page = self.log_page(author, Some(from), limit).await?;
        if from > page.head.seq {
            return Err(out_of_range(&page.head, from));
        }
        Ok(page.entries)
    }

    /// The same, from the first entry that is here if no other is named, and what is needed to go on. Behind the last
    /// entry there is an empty page.
    ///
    /// # Errors
    /// As [`MeshNode::log_entries`].
    pub async fn log_page(
        &self,
        author: NodeId,
        from: Option<Seq>,
        limit: usize,
    ) -> Result<LogPage, LogError> {
        let (log, store) = self.links_of_log()?;
        match actix_rt::task::spawn_blocking(move || read_page(&store, author, from, limit)).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(Failed::Log(error))) => Err(error),
            Ok(Err(Failed::Read(ReadError::Store(error)))) => Err(error.into()),
            Ok(Err(Failed::Read(ReadError::Damaged(damage)))) => {
                let what = damage.to_string();
                // A log that is busy finds it itself.
                let _ = log.send(Found(*damage)).await;
                Err(LogError::Store(omnimesh_protocol::log::StoreError::Damaged(what)))
            }
            Err(_) => Err(LogError::Stopped),
        }
    }

    /// What is added to the log from now on.
    pub(crate) async fn log_changes(&self) -> Result<Feed<Change>, LogError> {
        self.links_of_log()?.0.send(Watch).await.map_err(|_| LogError::Stopped)
    }

    /// Changes the registry. When it is answered, the change is on this node's disk (and on those of `replicas` others),
    /// and what is asked of this node contains it.
    ///
    /// # Errors
    /// If the registry refuses it, or as [`MeshNode::append`].
    pub async fn registry_write(&self, action: Action, replicas: usize) -> Result<Appended, RegistryError> {
        let links = self.0.links().map_err(|_| LogError::Stopped)?;
        let registry = links.registry.ok_or(LogError::NoLog)?;
        registry.send(Write { action, replicas }).await.unwrap_or(Err(LogError::Stopped.into()))
    }

    /// Asks the registry, as it is at this node now.
    ///
    /// # Errors
    /// If the node keeps no log, or has stopped.
    pub async fn registry<T: Send + 'static>(
        &self,
        question: impl FnOnce(&registry::State, Step) -> T + Send + 'static,
    ) -> Result<T, LogError> {
        let links = self.0.links().map_err(|_| LogError::Stopped)?;
        let registry = links.registry.ok_or(LogError::NoLog)?;
        registry.send(Ask(Box::new(question))).await.map_err(|_| LogError::Stopped)
    }

    /// Changes of the registry from now on.
    ///
    /// # Errors
    /// If the node keeps no log, or has stopped.
    pub async fn watch_registry(&self) -> Result<Feed<registry::Change>, LogError> {
        let links = self.0.links().map_err(|_| LogError::Stopped)?;
        let registry = links.registry.ok_or(LogError::NoLog)?;
        registry.send(WatchRegistry).await.map_err(|_| LogError::Stopped)
    }

    pub(crate) fn links_of_log(
        &self,
    ) -> Result<
        (actix::Addr<crate::actors::log::LogActor>, std::sync::Arc<crate::store::log::LogStore>),
        LogError,
    > {
        let of_log = |links: &Links| Some((links.log.clone()?, links.files.log.clone()?));
        self.0.with_links(of_log).map_err(|_| LogError::Stopped)?.ok_or(LogError::NoLog)
    }
}

fn out_of_range(head: &HeadView, asked: Seq) -> LogError {
    LogError::OutOfRange { author: head.author, base: head.base.0, head: head.seq.0, asked: asked.0 }
}

fn read_page(store: &LogStore, author: NodeId, from: Option<Seq>, limit: usize) -> Result<LogPage, Failed> {
    let logs = store.log(author)?;
    // One that is frozen from its first entry on is known, and empty.
    let Some(log) = logs.filter(|log| log.head.seq > Seq(0) || log.proof.is_some()) else {
        return Err(LogError::UnknownAuthor(author).into());
    };
    let head = HeadView::from(log);
    let from = from.unwrap_or(head.base);
    if from > head.seq.saturating_add(1) || from < head.base {
        return Err(out_of_range(&head, from).into());
    }
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut records: Vec<Bytes> = match from <= head.seq {
        true => store.find(author, from)?.into_iter().collect(),
        false => Vec::new(),
    };
    'pages: while !records.is_empty() {
        for record in &records {
            let record = Envelope::decode(record, store.message_bytes_max()).ok().and_then(Record::new);
            let Some(record) = record else { break 'pages };
            bytes += record.as_bytes().len();
            entries.extend(record.to_entries().filter(|entry| entry.seq >= from));
        }
        let Some(last) = entries.last().filter(|_| entries.len() < limit && bytes < READ_BYTES_MAX) else {
            break;
        };
        records = store.read(author, last.seq.saturating_add(1), head.seq, READ_BYTES_MAX - bytes)?;
    }
    entries.truncate(limit);
    let next = entries.last().map(|entry| entry.seq.saturating_add(1)).filter(|next| *next <= head.seq);
    Ok(LogPage { head, entries, next })
}

enum Failed {
    Log(LogError),
    Read(ReadError),
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Failed::Log(error)
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Failed::Read(error)
    }
}

impl From<omnimesh_protocol::log::StoreError> for Failed {
    fn from(error: omnimesh_protocol::log::StoreError) -> Self {
        Failed::Log(error.into())
    }
}
