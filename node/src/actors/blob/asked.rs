//! What peers were asked, by number, and their answers.

use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::compute::blob::Input;
use omnimesh_protocol::compute::blob::wire::Frame;
use omnimesh_protocol::{Hash, NodeId};

use super::BlobActor;
use crate::swarm::Class;

/// How often peers are asked again what they hold while a fetch goes on: somebody may have got it, or be less busy.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What a peer was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Want(Hash),
    Outline(Hash),
    Group(Hash, u64),
}

impl Asked {
    pub(super) fn hash(self) -> Hash {
        match self {
            Asked::Want(hash) | Asked::Outline(hash) | Asked::Group(hash, _) => hash,
        }
    }
}

impl BlobActor {
    pub(super) fn ask(&mut self, node: NodeId, asked: Asked) {
        self.next_id += 1;
        let id = self.next_id;
        let frame = match asked {
            Asked::Want(hash) => Frame::Want { id, hashes: vec![hash] },
            Asked::Outline(hash) => Frame::AskOutline { id, hash },
            Asked::Group(hash, group) => Frame::Get { id, hash, group },
        };
        self.asked.insert(id, (node, asked));
        self.send(&node, Class::Control, &frame);
    }

    pub(super) fn ask_again(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let handle = ctx.run_later(ASK_AGAIN, move |actor, ctx| {
            actor.end_if_unwanted(hash, ctx);
            if actor.fetches.contains_key(&hash) {
                let is_asked = |node: &NodeId| {
                    let wants = |(asked, what): &(NodeId, Asked)| asked == node && *what == Asked::Want(hash);
                    actor.asked.values().any(wants)
                };
                let nodes: Vec<NodeId> = actor.peers.nodes().filter(|node| !is_asked(node)).collect();
                nodes.into_iter().for_each(|node| actor.ask(node, Asked::Want(hash)));
                actor.ask_again(hash, ctx);
            }
        });
        if let Some(fetching) = self.fetches.get_mut(&hash) {
            fetching.again = Some(handle);
        }
    }

    /// What this peer was asked under this number.
    pub(super) fn take_asked(&mut self, from: NodeId, id: u64) -> Option<(NodeId, Asked)> {
        self.asked.get(&id).filter(|(node, _)| *node == from)?;
        self.asked.remove(&id)
    }

    pub(super) fn on_answer(&mut self, from: NodeId, id: u64, bytes: Option<Bytes>, ctx: &mut Context<Self>) {
        match self.take_asked(from, id) {
            Some((peer, Asked::Outline(hash))) => {
                self.give(hash, Input::Outline { peer, values: bytes }, ctx);
            }
            Some((peer, Asked::Group(hash, group))) => {
                self.give(hash, Input::Group { peer, group, bytes }, ctx);
            }
            Some((_, Asked::Want(_))) | None => {}
        }
    }

    pub(super) fn on_decline(&mut self, from: NodeId, id: u64, is_busy: bool, ctx: &mut Context<Self>) {
        match self.asked.get(&id) {
            // It has the outline, and may be asked again when it says anew what it has.
            Some((node, Asked::Outline(hash))) if is_busy && *node == from => {
                let hash = *hash;
                self.asked.remove(&id);
                self.give(hash, Input::Gone(from), ctx);
            }
            Some((node, Asked::Group(hash, group))) if is_busy && *node == from => {
                let (hash, group) = (*hash, *group);
                self.asked.remove(&id);
                self.give(hash, Input::Busy { peer: from, group }, ctx);
            }
            _ => self.on_answer(from, id, None, ctx),
        }
    }
}
