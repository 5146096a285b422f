//! What the other actors, and the node, ask of gossip.

use std::net::IpAddr;

use actix::prelude::*;
use libp2p::PeerId;
use omnimesh_protocol::envelope::{Channel, Envelope};
use omnimesh_protocol::pattern::CacheStats;
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::{NodeId, Time, gossip, relay};
use tokio::sync::mpsc;

use super::{Counters, GossipActor, Link};
use crate::actors::author::Answer;
use crate::actors::verify;
use crate::feed::{Feed, FeedLimits};
use crate::message::Message;
use crate::swarm::{Inbound, Outbound};

/// All actors are linked and the network runs: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin(pub(crate) mpsc::Receiver<Inbound>);

impl Handler<Begin> for GossipActor {
    type Result = ();

    fn handle(&mut self, Begin(receiver): Begin, ctx: &mut Self::Context) {
        self.inbox.open(receiver);
        self.inbox.listen(ctx);
        self.carry_out(ctx);
        self.subscribe_own(ctx);
    }
}

/// A gossip stream to a peer is open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PeerUp {
    pub(crate) peer: PeerId,
    pub(crate) outbound: Outbound,
    pub(crate) protocol: gossip::Protocol,
    pub(crate) direction: gossip::Direction,
    pub(crate) ip: Option<IpAddr>,
}

impl Handler<PeerUp> for GossipActor {
    type Result = ();

    fn handle(&mut self, up: PeerUp, ctx: &mut Self::Context) {
        let PeerUp { peer, outbound, protocol, direction, ip } = up;
        if self.links.insert(peer, Link { outbound }).is_some() {
            self.give(ctx, relay::Input::Gossip(gossip::Input::Disconnected { peer }));
        }
        self.give(ctx, relay::Input::Gossip(gossip::Input::Connected { peer, protocol, direction, ip }));
        let early = self.early.take(&peer);
        if !early.is_empty() {
            let (mut inputs, mut events) = (Vec::new(), Vec::new());
            self.on_frames(peer, &early, &mut inputs, &mut events);
            self.common.observe(events);
            self.give_all(ctx, inputs.into_iter());
        }
    }
}

/// The gossip stream to a peer is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PeerDown(pub(crate) PeerId);

impl Handler<PeerDown> for GossipActor {
    type Result = ();

    fn handle(&mut self, PeerDown(peer): PeerDown, ctx: &mut Self::Context) {
        drop(self.early.take(&peer));
        if self.links.remove(&peer).is_some() {
            self.give(ctx, relay::Input::Gossip(gossip::Input::Disconnected { peer }));
        }
    }
}

/// What the observer thinks of a peer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AppScore {
    pub(crate) peer: PeerId,
    pub(crate) score: f64,
}

impl Handler<AppScore> for GossipActor {
    type Result = ();

    fn handle(&mut self, AppScore { peer, score }: AppScore, ctx: &mut Self::Context) {
        self.give(ctx, relay::Input::Gossip(gossip::Input::AppScore { peer, score }));
    }
}

/// Push nothing to a peer until then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Trial {
    pub(crate) peer: PeerId,
    pub(crate) until: Time,
}

impl Handler<Trial> for GossipActor {
    type Result = ();

    fn handle(&mut self, Trial { peer, until }: Trial, ctx: &mut Self::Context) {
        self.give(ctx, relay::Input::Gossip(gossip::Input::Trial { peer, until }));
    }
}

/// Listen to this author no longer, or again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Hearing {
    Quarantine(NodeId),
    Lift(NodeId),
}

impl Handler<Hearing> for GossipActor {
    type Result = ();

    fn handle(&mut self, hearing: Hearing, ctx: &mut Self::Context) {
        let input = match hearing {
            Hearing::Quarantine(node) => relay::Input::Quarantine(node),
            Hearing::Lift(node) => relay::Input::Lift(node),
        };
        self.give(ctx, input);
    }
}

/// Say this; it was sealed by this node's author.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Publish {
    pub(crate) envelope: Envelope,
    pub(crate) answers: Vec<Answer>,
}

impl Handler<Publish> for GossipActor {
    type Result = ();

    fn handle(&mut self, Publish { envelope, answers }: Publish, ctx: &mut Self::Context) {
        self.publishing = Some((envelope.clone(), answers));
        self.give(ctx, relay::Input::Publish(envelope));
        // The router has answered by now; if it panicked instead, dropping the answers tells those who wait.
        self.publishing = None;
    }
}

/// Deliver a channel's messages, until the feed is dropped.
#[derive(Message)]
#[rtype(result = "Feed<Message>")]
pub(crate) struct Subscribe(pub(crate) Channel);

impl Handler<Subscribe> for GossipActor {
    type Result = MessageResult<Subscribe>;

    fn handle(&mut self, Subscribe(channel): Subscribe, ctx: &mut Self::Context) -> Self::Result {
        let limits = FeedLimits { items_max: self.settings.subscriber_queue, ..FeedLimits::default() };
        let (sender, receiver) = self.common.feed(limits);
        self.subscribers.entry(channel.clone()).or_default().push(sender);
        self.give(ctx, relay::Input::Subscribe(channel));
        MessageResult(receiver)
    }
}

/// A channel as the router sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelPeers {
    /// Connected peers that are subscribed to it.
    pub subscribed: usize,
    /// Those of them in this node's mesh, who get its messages at once.
    pub in_mesh: usize,
}

/// Asks for the peers of a channel.
#[derive(Message)]
#[rtype(result = "ChannelPeers")]
pub(crate) struct GetChannelPeers(pub(crate) Channel);

impl Handler<GetChannelPeers> for GossipActor {
    type Result = MessageResult<GetChannelPeers>;

    fn handle(&mut self, GetChannelPeers(channel): GetChannelPeers, _: &mut Self::Context) -> Self::Result {
        let router = self.state.gossip();
        let peers = gossip::Topic::new(&channel.topic(&self.settings.mesh.id())).map(|topic| ChannelPeers {
            subscribed: router.topic_peers(&topic).len(),
            in_mesh: router.mesh_peers(&topic).len(),
        });
        MessageResult(peers.unwrap_or_default())
    }
}

/// A connected peer as the router sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerScore {
    pub(crate) peer: PeerId,
    pub(crate) score: f64,
}

/// The scores of the connected peers.
#[derive(Message)]
#[rtype(result = "Vec<PeerScore>")]
pub(crate) struct GetScores;

impl Handler<GetScores> for GossipActor {
    type Result = MessageResult<GetScores>;

    fn handle(&mut self, _: GetScores, _: &mut Self::Context) -> Self::Result {
        let score = |peer: &PeerId| self.state.gossip().score(peer).unwrap_or(0.0);
        MessageResult(self.links.keys().map(|peer| PeerScore { peer: *peer, score: score(peer) }).collect())
    }
}

/// The relay in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) counters: Counters,
    pub(crate) gossip: gossip::Stats,
    pub(crate) lazy_links: usize,
    pub(crate) refused: [u64; Refusal::COUNT],
    pub(crate) accepted: u64,
    pub(crate) cache: CacheStats,
    pub(crate) authors: usize,
    pub(crate) channels: usize,
    pub(crate) verifying: usize,
    pub(crate) verified: verify::Counters,
    pub(crate) queued_frames: usize,
    pub(crate) queued_bytes: usize,
}

/// Asks for the relay in numbers.
#[derive(Message)]
#[rtype(result = "Snapshot")]
pub(crate) struct GetSnapshot;

impl Handler<GetSnapshot> for GossipActor {
    type Result = MessageResult<GetSnapshot>;

    fn handle(&mut self, _: GetSnapshot, _: &mut Self::Context) -> Self::Result {
        let validator = self.state.validator();
        let queues = self.links.values().map(|link| link.outbound.stats());
        let (queued_frames, queued_bytes) =
            queues.fold((0, 0), |(frames, bytes), queue| (frames + queue.frames, bytes + queue.bytes));
        MessageResult(Snapshot {
            counters: self.counters.clone(),
            gossip: self.state.gossip().stats().clone(),
            lazy_links: self.state.gossip().lazy_links(),
            refused: *validator.refused(),
            accepted: validator.accepted(),
            cache: validator.cache_stats(),
            authors: validator.replay().authors(),
            channels: self.subscribers.len(),
            verifying: self.verifier.len(),
            verified: self.verifier.counters(),
            queued_frames,
            queued_bytes,
        })
    }
}
