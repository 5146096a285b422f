//! What the other actors, and the node, ask of the swarm.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use libp2p::{Multiaddr, PeerId};
use omnimesh_protocol::control::{Frame, Goodbye};
use omnimesh_protocol::dialer;
use omnimesh_protocol::{NodeId, Time};
use tokio::sync::{mpsc, oneshot};

use super::dial::SENT_AWAY_FOR;
use super::{AWAITED_MAX, PeerInfo, Receivers, SwarmActor, arrivals};
use crate::actors::lock;
use crate::swarm::{Class, Event, Inbound, NetworkHandle, Started, peer};

/// All actors are linked and the network runs: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin {
    pub(crate) handle: NetworkHandle,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) control: mpsc::Receiver<Inbound>,
    pub(crate) listening: Vec<Multiaddr>,
}

impl Begin {
    /// Parts a started network; the frames of gossip, of the log, about blobs and tasks are not for this actor.
    pub(crate) fn split(started: Started) -> (Self, [mpsc::Receiver<Inbound>; 4]) {
        let Started { handle, events, gossip, control, log, blob, compute, listening, .. } = started;
        (Begin { handle, events, control, listening }, [gossip, log, blob, compute])
    }
}

impl Handler<Begin> for SwarmActor {
    type Result = ();

    fn handle(&mut self, begin: Begin, ctx: &mut Self::Context) {
        let Begin { handle, events, control, listening } = begin;
        self.network = Some(handle);
        self.listening = listening;
        *lock(&self.receivers) = Some(Receivers { events, control });
        ctx.add_stream(arrivals(Arc::clone(&self.receivers)));
        self.begin_machines(ctx);
    }
}

/// Send a control frame. If the member is not connected, the frame is lost and the member is dialled.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SendControl {
    pub(crate) to: NodeId,
    pub(crate) frame: Frame,
}

impl Handler<SendControl> for SwarmActor {
    type Result = ();

    fn handle(&mut self, SendControl { to, frame }: SendControl, ctx: &mut Self::Context) {
        if self.peers.contains_key(&peer::peer_id(&to)) {
            self.send_control(to, &frame);
        } else {
            self.control_shed += 1;
            self.dial(ctx, dialer::Input::Wanted { peer: to });
        }
    }
}

/// Say when a peer is connected, a member, and gossiped with. With an address, dial it first.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AwaitLink {
    pub(crate) peer: NodeId,
    pub(crate) address: Option<Multiaddr>,
    pub(crate) answer: oneshot::Sender<Result<(), LinkFailed>>,
}

/// Why there is no link to a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkFailed {
    #[error("the dial failed: {0}")]
    Dial(String),
    #[error("the peer was disconnected: {0}")]
    Disconnected(String),
    #[error("too many dials or links are waited for")]
    Busy,
    #[error("the node has stopped")]
    Stopped,
}

impl Handler<AwaitLink> for SwarmActor {
    type Result = ();

    fn handle(&mut self, AwaitLink { peer, address, answer }: AwaitLink, _: &mut Self::Context) {
        let peer = peer::peer_id(&peer);
        let dial = |network: &NetworkHandle| match address {
            Some(address) => network.dial(Some(peer), vec![address]).is_ok(),
            None => true,
        };
        if self.awaited.len() >= AWAITED_MAX || !self.network.as_ref().is_some_and(dial) {
            let _ = answer.send(Err(LinkFailed::Busy));
            return;
        }
        self.awaited.push((peer, answer));
        self.answer_awaited(&peer);
    }
}

/// A member told where it can be reached.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberAddresses {
    pub(crate) peer: NodeId,
    pub(crate) addresses: Vec<String>,
}

impl Handler<MemberAddresses> for SwarmActor {
    type Result = ();

    fn handle(&mut self, MemberAddresses { peer, addresses }: MemberAddresses, ctx: &mut Self::Context) {
        self.dial(ctx, dialer::Input::Learned { peer, addresses, source: dialer::Source::Member });
    }
}

/// A member is dead or left.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberGone(pub(crate) NodeId);

impl Handler<MemberGone> for SwarmActor {
    type Result = ();

    fn handle(&mut self, MemberGone(peer): MemberGone, ctx: &mut Self::Context) {
        self.dial(ctx, dialer::Input::MemberDown { peer });
    }
}

/// Close all connections to a peer that misbehaved, or for which there is no room.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Disconnect(pub(crate) PeerId);

impl Handler<Disconnect> for SwarmActor {
    type Result = ();

    fn handle(&mut self, Disconnect(peer): Disconnect, ctx: &mut Self::Context) {
        self.send_away(peer, ctx);
    }
}

/// The same for one that is in quarantine from now on: it is told so first.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ShutOut(pub(crate) NodeId);

impl Handler<ShutOut> for SwarmActor {
    type Result = ();

    fn handle(&mut self, ShutOut(node): ShutOut, ctx: &mut Self::Context) {
        if self.peers.contains_key(&peer::peer_id(&node)) {
            self.send_control(node, &Frame::Goodbye(Goodbye::Quarantined));
        }
        self.part_with(peer::peer_id(&node), ctx);
        self.leave_alone(node, self.common.now() + SENT_AWAY_FOR, ctx);
        self.dial(ctx, dialer::Input::Quarantined { peer: node });
    }
}

/// For one that is in quarantine no more: it is dialled at once, and not only when the time to leave it alone is over.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LetIn(pub(crate) NodeId);

impl Handler<LetIn> for SwarmActor {
    type Result = ();

    fn handle(&mut self, LetIn(node): LetIn, ctx: &mut Self::Context) {
        self.leave_alone(node, self.common.now(), ctx);
        self.dial(ctx, dialer::Input::Lifted { peer: node });
        self.dial(ctx, dialer::Input::Wanted { peer: node });
    }
}

/// Tell the actors that talk to members again who is there; one of them began anew.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reintroduce;

impl Handler<Reintroduce> for SwarmActor {
    type Result = ();

    fn handle(&mut self, _: Reintroduce, _: &mut Self::Context) {
        let members: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, info)| info.is_member)
            .filter_map(|(id, _)| peer::node_id(id))
            .collect();
        for member in members {
            self.introduce(member);
        }
    }
}

/// The connected peers, at a moment.
#[derive(Message)]
#[rtype(result = "(Time, Vec<(PeerId, PeerInfo)>)")]
pub(crate) struct GetPeers;

impl Handler<GetPeers> for SwarmActor {
    type Result = MessageResult<GetPeers>;

    fn handle(&mut self, _: GetPeers, _: &mut Self::Context) -> Self::Result {
        let peers = self.peers.iter().map(|(peer, info)| (*peer, info.clone())).collect();
        MessageResult((self.common.now(), peers))
    }
}

/// The swarm in short.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) peers: usize,
    pub(crate) members: usize,
    pub(crate) control_shed: u64,
    pub(crate) refusals: Vec<(&'static str, u64)>,
    pub(crate) frames_malformed: BTreeMap<&'static str, u64>,
}

/// Asks for the swarm in short.
#[derive(Message)]
#[rtype(result = "Summary")]
pub(crate) struct GetSummary;

impl Handler<GetSummary> for SwarmActor {
    type Result = MessageResult<GetSummary>;

    fn handle(&mut self, _: GetSummary, _: &mut Self::Context) -> Self::Result {
        MessageResult(Summary {
            peers: self.peers.len(),
            members: self.peers.values().filter(|info| info.is_member).count(),
            control_shed: self.control_shed,
            frames_malformed: self.frames_malformed.clone(),
            refusals: self
                .admission
                .refusals()
                .iter()
                .map(|(reason, count)| (reason.code(), *count))
                .collect(),
        })
    }
}

/// The node stops in good order: keep the address book and end the network. The answer comes when it has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

impl Handler<Close> for SwarmActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> Self::Result {
        if let Some(store) = &self.settings.store
            && let Err(error) = store.save_address_book(&self.dialer.book())
        {
            tracing::warn!(%error, "the address book was not kept");
        }
        let goodbye = Frame::Goodbye(Goodbye::Shutdown);
        for info in self.peers.values() {
            if let Some(control) = info.control.as_ref().filter(|_| info.is_member) {
                let _ = control.try_send(Class::Control, goodbye.encode().into());
            }
        }
        let network = self.network.take();
        Box::pin(async move {
            let Some(network) = network else { return };
            if network.shutdown().is_ok() {
                network.ended().await;
            }
        })
    }
}
