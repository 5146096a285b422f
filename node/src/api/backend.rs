//! What the API needs of the node: the seam between them.

use bytes::Bytes;
use futures::future::BoxFuture;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::id::MessageId;

use super::types::{Anomaly, Event, Member, Message, Peer, Published, Status, StepView, WhyMessage};
use crate::feed::Feed;

/// An answer that may take a while; the API gives up after its `request_timeout`.
pub type Answer<'a, T, E = BackendError> = BoxFuture<'a, Result<T, E>>;

/// The node behind the API.
///
/// Every answer is bounded: lists by the node's own limits, feeds by [`crate::feed::FeedLimits`].
pub trait Backend: Send + Sync + 'static {
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

    /// The invite token, which holds the mesh secret.
    fn invite(&self) -> Answer<'_, String>;
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
