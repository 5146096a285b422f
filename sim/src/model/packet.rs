//! What nodes send each other: its length, and a hash of what it says.

use omnimesh_protocol::gossip::{self, Rpc};
use omnimesh_protocol::{MessageId, NodeId, control};

use super::random::mix;

/// Bytes at each end of a frame of the log that its hash covers.
const LOG_BYTES_HASHED: usize = 256;

/// What one node sends to another.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Gossip(Rpc),
    Control(control::Frame),
    /// A packet of the membership protocol for a node that may not be connected.
    Swim(NodeId, bytes::Bytes),
    /// A frame of the durable log.
    Log(bytes::Bytes),
    /// A frame between drivers and workers, or entries of the ledger where nodes keep no log; those dial who is not connected.
    Compute(super::compute::Parcel),
}

/// Bytes of a frame on the wire.
pub(super) fn size(packet: &Packet) -> usize {
    match packet {
        Packet::Gossip(rpc) => gossip::wire::encoded_len(rpc),
        Packet::Control(control::Frame::StepReply { .. }) => 30,
        Packet::Control(_) => 11,
        Packet::Swim(_, bytes) => bytes.len() + 6,
        Packet::Log(frame) => frame.len() + 3,
        Packet::Compute(parcel) => parcel.size(),
    }
}

/// A hash of what a frame says.
pub(super) fn digest(packet: &Packet) -> u64 {
    match packet {
        Packet::Gossip(rpc) => digest_of_rpc(rpc),
        Packet::Control(control::Frame::StepRequest { nonce }) => mix(*nonce),
        Packet::Control(control::Frame::StepReply { nonce, mesh_time_ns, proposal_ns }) => {
            mix(*nonce ^ mix(mesh_time_ns.unwrap_or(1)) ^ proposal_ns.rotate_left(32))
        }
        Packet::Control(control::Frame::StepAnnounce { mesh_time_ns }) => mix(!*mesh_time_ns),
        Packet::Control(_) => 3,
        Packet::Swim(_, bytes) => digest_of_bytes(bytes, bytes.len() as u64),
        Packet::Compute(parcel) => parcel.digest(),
        Packet::Log(frame) => {
            // Of a long one its ends: what is between them is signed, and seen again in the heads that follow.
            let (head, rest) = frame.split_at(frame.len().min(LOG_BYTES_HASHED));
            let tail = &rest[rest.len().saturating_sub(LOG_BYTES_HASHED)..];
            digest_of_bytes(tail, digest_of_bytes(head, !(frame.len() as u64)))
        }
    }
}

pub(super) fn digest_of_bytes(bytes: &[u8], seed: u64) -> u64 {
    bytes.chunks(8).fold(seed, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    })
}

fn digest_of_rpc(rpc: &Rpc) -> u64 {
    let word = |id: &MessageId| {
        let mut word = [0; 8];
        word.copy_from_slice(&id.as_bytes()[..8]);
        u64::from_le_bytes(word)
    };
    let mut hash = rpc.subscriptions.len() as u64;
    for message in &rpc.publish {
        hash = mix(hash ^ word(&message.id()));
    }
    if let Some(control) = &rpc.control {
        let lists = control.ihave.iter().map(|ihave| &ihave.ids).chain([&control.iwant, &control.idontwant]);
        for ids in lists {
            hash = ids.iter().fold(mix(hash ^ ids.len() as u64), |hash, id| mix(hash ^ word(id)));
        }
        hash = mix(hash ^ (control.graft.len() as u64) << 32 ^ control.prune.len() as u64);
    }
    hash
}
