//! Long-lived streams to members: those that carry blobs and tasks.

use std::collections::BTreeMap;

use actix::prelude::*;
use bytes::Bytes;
use libp2p::PeerId;
use omnimesh_protocol::{NodeId, Time};

use super::early::Early;
use crate::swarm::{Class, Outbound, peer};

/// A member is connected, and there is a stream to it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PeerUp {
    pub(crate) peer: PeerId,
    pub(crate) node: NodeId,
    pub(crate) outbound: Outbound,
}

/// It is no longer a member, or the stream is gone.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PeerDown(pub(crate) PeerId);

/// The members to which there is a stream of one kind, and frames of those to whom ours is not open yet.
#[derive(Debug, Default)]
pub(super) struct Streams {
    outbound: BTreeMap<NodeId, Outbound>,
    early: Early,
}

impl Streams {
    /// There is a stream. Gives what the member has sent before.
    pub(super) fn up(&mut self, up: PeerUp) -> Vec<Bytes> {
        self.outbound.insert(up.node, up.outbound);
        self.early.take(&up.peer)
    }

    /// There is none any more. Gives who that is.
    pub(super) fn down(&mut self, gone: PeerId) -> Option<NodeId> {
        drop(self.early.take(&gone));
        let node = peer::node_id(&gone)?;
        self.outbound.remove(&node).map(|_| node)
    }

    /// Says whose frames these are; keeps them if there is no stream to it yet.
    pub(super) fn sender(&mut self, now: Time, from: PeerId, frames: &[Bytes]) -> Option<NodeId> {
        let known = peer::node_id(&from).filter(|node| self.outbound.contains_key(node));
        if known.is_none() {
            self.early.keep(now, from, frames);
        }
        known
    }

    /// Sends a frame, if there is room. What is shed is the protocol's to repeat.
    pub(super) fn send(&self, to: &NodeId, class: Class, frame: Bytes) -> bool {
        self.outbound.get(to).is_some_and(|outbound| outbound.try_send(class, frame).is_ok())
    }

    /// The members.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.outbound.keys().copied()
    }
}
