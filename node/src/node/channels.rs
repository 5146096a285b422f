//! What is said and heard on channels.

use bytes::Bytes;
use futures::StreamExt;
use omnimesh_protocol::envelope::{Channel, ChannelError};

use super::{MeshNode, Stopped};
use crate::actors::author::{Broadcast, BroadcastError, Published};
use crate::actors::gossip::{self, ChannelPeers};
use crate::feed::{Feed, FeedItem};
use crate::message::Message;

impl MeshNode {
    /// Publishes a payload to all other subscribers of a channel. As in gossipsub, subscriptions of this node
    /// itself do not get it: a node hears the others.
    ///
    /// Waits while the author's mailbox is full, so a fast caller is slowed down rather than refused.
    ///
    /// # Errors
    /// If the channel's name or the payload's size is not allowed, or the node is not ready.
    pub async fn broadcast(
        &self,
        channel: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Published, PublishError> {
        let broadcast = Broadcast { channel: public(channel)?, payload: payload.into() };
        Ok(self.0.links()?.author.send(broadcast).await.unwrap_or(Err(BroadcastError::Stopped))?)
    }

    /// Subscribes to a channel, until the subscription is dropped.
    ///
    /// # Errors
    /// If the channel's name is not allowed, or the node has stopped.
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, PublishError> {
        let subscribe = gossip::Subscribe(public(channel)?);
        let feed = self.0.links()?.gossip.send(subscribe).await.map_err(|_| BroadcastError::Stopped)?;
        Ok(Subscription { feed, lost: 0 })
    }

    /// Calls `handler` with each message of a channel, on the current arbiter, for as long as the node runs.
    ///
    /// # Errors
    /// As [`MeshNode::subscribe`].
    pub async fn on_message(
        &self,
        channel: &str,
        mut handler: impl FnMut(Message) + 'static,
    ) -> Result<(), PublishError> {
        let mut subscription = self.subscribe(channel).await?;
        actix_rt::spawn(async move {
            while let Some(message) = subscription.receive().await {
                handler(message);
            }
        });
        Ok(())
    }

    /// How many neighbours are on a channel.
    ///
    /// # Errors
    /// If the channel's name is not allowed, or the node has stopped.
    pub async fn channel_peers(&self, channel: &str) -> Result<ChannelPeers, PublishError> {
        let question = gossip::GetChannelPeers(Channel::new(channel)?);
        Ok(self.0.links()?.gossip.send(question).await.map_err(|_| Stopped)?)
    }
}

/// The messages of a channel; unsubscribes when dropped.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed<Message>,
    lost: u64,
}

impl Subscription {
    /// The next message; `None` when the node has stopped. What this reader is too slow for is dropped, oldest
    /// first, and counted in [`Subscription::lost`].
    pub async fn receive(&mut self) -> Option<Message> {
        loop {
            match self.feed.next().await? {
                FeedItem::Next(message) => return Some(message),
                FeedItem::Lagged(lost) => self.lost += lost,
            }
        }
    }

    /// How many messages this reader was too slow for.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl futures::Stream for Subscription {
    type Item = Message;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Message>> {
        use std::task::Poll;
        loop {
            match std::task::ready!(self.feed.poll_next_unpin(cx)) {
                Some(FeedItem::Next(message)) => return Poll::Ready(Some(message)),
                Some(FeedItem::Lagged(lost)) => self.lost += lost,
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Why a payload was not published, or a channel not subscribed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not a name for a channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The channel is the protocol's own.
    #[error("the channel {0} is reserved: names that begin with '_' are the protocol's own")]
    Reserved(Channel),
    /// The node did not take it.
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
}

impl From<Stopped> for PublishError {
    fn from(_: Stopped) -> Self {
        PublishError::Broadcast(BroadcastError::Stopped)
    }
}

/// A channel that is anybody's.
fn public(channel: &str) -> Result<Channel, PublishError> {
    let channel = Channel::new(channel)?;
    if channel.is_reserved() { Err(PublishError::Reserved(channel)) } else { Ok(channel) }
}
