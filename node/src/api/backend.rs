//! What the API needs of the node: the seam between them.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::id::{MessageId, NodeId, Seq, Step};
use omnimesh_protocol::log::{Appended, Report};
use omnimesh_protocol::mesh::Invite;
use omnimesh_protocol::registry::{
    self, Action, AsOf, Direction, Entry, EntryKey, Found, LinkView, ListQuery, Page, Relation, SearchQuery,
    WalkQuery, Walked,
};

use super::types::{
    AlertView, Anomaly, Event, LogEvent, Member, Message, Monitor, Peer, Published, Quarantine,
    RegistryEvent, Status, StepView, WhyMessage, WhyPeer, WhyStep,
};
use crate::actors::blob::GetError;
use crate::actors::log::LogError;
use crate::actors::registry::RegistryError;
use crate::durable::{LogPage, LogView};
use crate::feed::Feed;
use crate::job::{JobError, JobEvent, Seen};
use crate::store::blob::BlobStore;

/// An answer that may take a while; the API gives up after its `request_timeout`.
pub type Answer<'a, T, E = BackendError> = BoxFuture<'a, Result<T, E>>;

/// The node behind the API.
///
/// Every answer is bounded: lists by the node's own limits, feeds by [`crate::feed::FeedLimits`].
pub trait Backend: DurableBackend + BlobBackend + JobBackend {
    /// Whether the node takes part in the mesh; must not wait, for `/readyz` asks it.
    ///
    /// # Errors
    /// Says what the node waits for.
    fn readiness(&self) -> Result<(), NotReady>;

    /// What the node is. The API fills in [`Status::api`] itself.
    fn status(&self) -> Answer<'_, Status>;

    /// The members, this node among them.
    fn members(&self) -> Answer<'_, Vec<Member>>;

    /// The connected peers.
    fn peers(&self) -> Answer<'_, Vec<Peer>>;

    /// The mesh's clock.
    fn step(&self) -> Answer<'_, StepView>;

    /// The last anomalies, newest last.
    fn anomalies(&self) -> Answer<'_, Vec<Anomaly>>;

    /// Who is shut out.
    fn quarantines(&self) -> Answer<'_, Vec<Quarantine>>;

    /// Lets somebody in again; what it was shut out for, `None` if it was not.
    fn lift(&self, peer: NodeId) -> Answer<'_, Option<Quarantine>>;

    /// Why this node thinks of a peer what it does; `None` if that is no name of a peer.
    fn why_peer(&self, peer: String) -> Answer<'_, Option<WhyPeer>>;

    /// Why this node is in its step, or what it makes of another.
    fn why_step(&self, step: Option<Step>) -> Answer<'_, WhyStep>;

    /// Alerts and what became of them, oldest first.
    fn alerts(&self) -> Answer<'_, Vec<AlertView>>;

    /// Somebody takes care of an alert; as it is then, `None` if there is none of that number.
    fn acknowledge(&self, incident: u64, by: String) -> Answer<'_, Option<AlertView>>;

    /// How the node and its mesh are.
    fn monitor(&self) -> Answer<'_, Monitor>;

    /// Publishes an ephemeral message.
    fn publish(&self, channel: Channel, payload: Bytes) -> Answer<'_, Published, PublishError>;

    /// Subscribes to a channel until the feed is dropped.
    fn subscribe(&self, channel: Channel) -> Answer<'_, Feed<Message>>;

    /// The node's events from now on, until the feed is dropped.
    fn events(&self) -> Answer<'_, Feed<Event>>;

    /// What happened to a message; `None` if it was never seen or is forgotten.
    fn why_message(&self, id: MessageId) -> Answer<'_, Option<WhyMessage>>;

    /// All metrics in the OpenMetrics text format.
    fn metrics_text(&self) -> Answer<'_, String>;

    /// The invite, which holds the mesh secret.
    fn invite(&self) -> Answer<'_, Invite>;
}

/// What the node waits for before it is ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node is not ready: {reason}")]
pub struct NotReady {
    /// Such as "no bootstrap peer answers".
    pub reason: String,
}

/// Why the node has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A queue or a limit is full; try again.
    #[error("the node is overloaded: {what} is full")]
    Overloaded {
        /// Which queue or limit, with the setting's name if it has one.
        what: String,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The fault is the node's.
    #[error("{0}")]
    Internal(String),
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The payload is too long.
    #[error("a payload of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
        /// The setting that says so.
        setting: String,
    },
    /// The node is not ready to publish.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A rule of the mesh forbids it.
    #[error("{0}")]
    Refused(String),
    /// The node has no answer.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Looks at jobs where they are.
pub type LookAtJobs = Box<dyn FnOnce(&Seen<'_>) + Send>;

/// Jobs.
pub trait JobBackend: Send + Sync + 'static {
    /// Has a job done, driven by this node as long as it lives. Answered once the job is in the log.
    fn job_submit(&self, spec: JobSpec) -> Answer<'_, JobId, JobError>;

    /// Has a job end as cancelled. Answered once that is in the log.
    fn job_cancel(&self, job: JobId, detail: String) -> Answer<'_, (), JobError>;

    /// Has what failed of a job done again. Answered once that is in the log.
    fn job_retry(&self, job: JobId) -> Answer<'_, (), JobError>;

    /// Shows the jobs.
    fn job_look(&self, look: LookAtJobs) -> Answer<'_, (), JobError>;

    /// What happens to jobs from now on, until the feed is dropped.
    fn job_events(&self) -> Answer<'_, Feed<JobEvent>, JobError>;
}

/// Content by its hash.
pub trait BlobBackend: Send + Sync + 'static {
    /// The blobs on disk.
    ///
    /// # Errors
    /// If the node keeps none.
    fn blob_store(&self) -> Result<Arc<BlobStore>, GetError>;

    /// Has a blob on disk here, from other nodes if need be.
    fn blob_get(&self, hash: Hash) -> Answer<'_, BlobRef, GetError>;
}

/// What a node keeps: its log, and the registry that is made of it.
pub trait DurableBackend: Send + Sync + 'static {
    /// Appends entries one after another; each is answered for itself, in order.
    fn append(
        &self,
        payloads: Vec<Bytes>,
        replicas: usize,
    ) -> Answer<'_, Vec<Result<Appended, LogError>>, LogError>;

    /// Entries of an author (of this node if none is named), from the first that is here if no other is named.
    fn log_page(
        &self,
        author: Option<NodeId>,
        from: Option<Seq>,
        limit: usize,
    ) -> Answer<'_, LogPage, LogError>;

    /// The log as it stands.
    fn log(&self) -> Answer<'_, LogView, LogError>;

    /// What was caught up with, the oldest first.
    fn log_reports(&self) -> Answer<'_, Vec<Report>, LogError>;

    /// What is added to the log from now on, until the feed is dropped.
    fn log_events(&self) -> Answer<'_, Feed<LogEvent>, LogError>;

    /// All that the log has at this moment, as a file without a name.
    fn log_backup(&self) -> Answer<'_, File, LogError>;

    /// Changes the registry; the state that is told contains the change.
    fn registry_write(&self, action: Action, replicas: usize) -> Answer<'_, (AsOf, Appended), RegistryError>;

    /// An entry.
    fn registry_get(&self, key: EntryKey) -> Answer<'_, registry::Answer<Option<Entry>>, LogError>;

    /// Entries by key.
    fn registry_list(&self, query: ListQuery) -> Answer<'_, registry::Answer<Page>, LogError>;

    /// Entries that have all words of a text, the best first.
    fn registry_search(&self, query: SearchQuery) -> Answer<'_, registry::Answer<Found>, LogError>;

    /// The links of an entry.
    fn registry_links(
        &self,
        key: EntryKey,
        direction: Direction,
        relations: Vec<Relation>,
    ) -> Answer<'_, registry::Answer<Vec<LinkView>>, LogError>;

    /// What can be reached from an entry.
    fn registry_walk(&self, query: WalkQuery) -> Answer<'_, registry::Answer<Walked>, LogError>;

    /// Changes of the registry from now on, until the feed is dropped.
    fn registry_events(&self) -> Answer<'_, Feed<RegistryEvent>, LogError>;
}
