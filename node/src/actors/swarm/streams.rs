//! The streams of connected peers. The actor whose kind of stream it is hears when there is one and when it is gone: gossip
//! of any peer, the others of members only.

use actix::prelude::*;
use libp2p::{PeerId, StreamProtocol};
use omnimesh_protocol::{admission, gossip};

use super::{SwarmActor, ip_of};
use crate::actors::blob::BlobActor;
use crate::actors::compute::ComputeActor;
use crate::actors::log::LogActor;
use crate::actors::members::{PeerDown, PeerUp};
use crate::actors::{Mailbox, WeakLinks, gossip as gossip_actor};
use crate::swarm::{DownReason, Outbound, StreamKind, peer};

/// The streams that are for members only.
const MEMBER_STREAMS: [StreamKind; 3] = [StreamKind::Log, StreamKind::Blob, StreamKind::Compute];

impl SwarmActor {
    pub(super) fn on_stream_up(
        &mut self,
        peer: PeerId,
        kind: StreamKind,
        protocol: StreamProtocol,
        outbound: Outbound,
        ctx: &mut Context<Self>,
    ) {
        let Some(info) = self.peers.get_mut(&peer) else { return };
        match kind {
            StreamKind::Gossip => {
                info.gossip = Some(protocol);
                info.gossip_outbound = Some(outbound);
                self.introduce_to_gossip(peer);
                self.answer_awaited(&peer);
            }
            StreamKind::Control => {
                info.control = Some(outbound);
                if let Some(node) = peer::node_id(&peer)
                    && !self.leaving.contains(&peer)
                {
                    self.admit(ctx, admission::Input::ControlOpened { peer: node });
                }
            }
            StreamKind::Log | StreamKind::Blob | StreamKind::Compute => {
                info.member_streams.insert(kind, outbound);
                self.introduce_on(peer, kind);
            }
        }
    }

    pub(super) fn on_stream_down(&mut self, peer: PeerId, kind: StreamKind, reason: &DownReason) {
        tracing::debug!(%peer, kind = kind.name(), %reason, "stream down");
        let Some(info) = self.peers.get_mut(&peer) else { return };
        match kind {
            StreamKind::Gossip => {
                (info.gossip, info.gossip_outbound) = (None, None);
                self.common.send(Mailbox::Gossip, &self.common.links().gossip, gossip_actor::PeerDown(peer));
            }
            StreamKind::Control => info.control = None,
            StreamKind::Log | StreamKind::Blob | StreamKind::Compute => {
                info.member_streams.remove(&kind);
                self.part_on(peer, kind);
            }
        }
    }

    fn introduce_to_gossip(&self, peer: PeerId) {
        let Some(info) = self.peers.get(&peer) else { return };
        let (Some(protocol), Some(outbound)) = (&info.gossip, &info.gossip_outbound) else { return };
        let up = gossip_actor::PeerUp {
            peer,
            outbound: outbound.clone(),
            protocol: gossip_protocol(protocol),
            direction: if info.outbound { gossip::Direction::Outbound } else { gossip::Direction::Inbound },
            ip: ip_of(&info.address),
        };
        self.common.send(Mailbox::Gossip, &self.common.links().gossip, up);
    }

    /// Makes a peer known to those whose streams are for members, once it is one.
    pub(super) fn introduce_streams(&self, peer: PeerId) {
        MEMBER_STREAMS.into_iter().for_each(|kind| self.introduce_on(peer, kind));
    }

    fn introduce_on(&self, peer: PeerId, kind: StreamKind) {
        let Some((node, info)) = peer::node_id(&peer).zip(self.peers.get(&peer)) else { return };
        let (true, Some(outbound)) = (info.is_member, info.member_streams.get(&kind)) else { return };
        self.tell(kind, PeerUp { peer, node, outbound: outbound.clone() });
    }

    pub(super) fn part(&self, peer: PeerId) {
        MEMBER_STREAMS.into_iter().for_each(|kind| self.part_on(peer, kind));
    }

    fn part_on(&self, peer: PeerId, kind: StreamKind) {
        self.tell(kind, PeerDown(peer));
    }

    /// Tells whose streams are of this kind.
    fn tell<M>(&self, kind: StreamKind, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        LogActor: Handler<M>,
        BlobActor: Handler<M>,
        ComputeActor: Handler<M>,
    {
        let WeakLinks { log, blobs, compute, .. } = self.common.links();
        match kind {
            StreamKind::Gossip | StreamKind::Control => {}
            StreamKind::Log => {
                if let Some(log) = log {
                    self.common.send(Mailbox::Log, log, message);
                }
            }
            StreamKind::Blob => {
                if let Some(blobs) = blobs {
                    self.common.send(Mailbox::Blobs, blobs, message);
                }
            }
            StreamKind::Compute => {
                if let Some(compute) = compute {
                    self.common.send(Mailbox::Compute, compute, message);
                }
            }
        }
    }
}

fn gossip_protocol(protocol: &StreamProtocol) -> gossip::Protocol {
    match protocol.as_ref() {
        "/meshsub/1.0.0" => gossip::Protocol::Meshsub10,
        "/meshsub/1.1.0" => gossip::Protocol::Meshsub11,
        "/meshsub/1.2.0" => gossip::Protocol::Meshsub12,
        _ => gossip::Protocol::Omnimesh1,
    }
}
