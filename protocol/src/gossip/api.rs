//! What goes into the router and what comes out of it.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;

use bytes::Bytes;

use super::rpc::{Rpc, Topic};
use super::wire::Refused;
use crate::{MessageId, Time};

/// A name of a peer: a libp2p peer id in the node, a number in the simulator.
pub trait PeerName: Copy + Ord + Hash + Debug {}

impl<P: Copy + Ord + Hash + Debug> PeerName for P {}

/// The protocol spoken with a peer, in the order of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `/meshsub/1.0.0`.
    Meshsub10,
    /// `/meshsub/1.1.0`: PRUNE says how long the backoff is.
    Meshsub11,
    /// `/meshsub/1.2.0`: IDONTWANT.
    Meshsub12,
    /// `/omnimesh/gossip/1`: as v1.2, and tree mode.
    Omnimesh1,
}

/// Who made the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did: such peers are harder to place around a victim, so the mesh keeps some.
    Outbound,
}

/// What the caller thinks of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: forward it.
    Accept,
    /// Not to be forwarded, nobody is to blame.
    Ignore,
    /// Invalid: everyone who sent it is to blame.
    Reject,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<P> {
    /// Frames can be exchanged with a peer from now on. Of several connections with one peer the first
    /// counts.
    Connected {
        /// The peer.
        peer: P,
        /// What is spoken.
        protocol: Protocol,
        /// Who dialled.
        direction: Direction,
        /// Where it connects from, for P6; `None` does not count.
        ip: Option<IpAddr>,
    },
    /// No more frames can be exchanged with the peer.
    Disconnected {
        /// The peer.
        peer: P,
    },
    /// A frame came.
    Rpc {
        /// From whom.
        from: P,
        /// What it says.
        rpc: Rpc,
    },
    /// Messages in a frame were refused ([`Decoded::refused`](super::wire::Decoded::refused)): their sender
    /// is to blame (P4).
    Refused {
        /// From whom.
        from: P,
        /// What was refused.
        refused: Vec<Refused>,
    },
    /// A frame could not be read (P7).
    Malformed {
        /// From whom.
        from: P,
    },
    /// We join a topic.
    Subscribe(Topic),
    /// We leave a topic.
    Unsubscribe(Topic),
    /// We publish; subscribed or not. Answered by [`Output::Published`] or [`Output::NotPublished`].
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        data: Bytes,
    },
    /// The answer to [`Output::Validate`].
    Verdict {
        /// The message's topic.
        topic: Topic,
        /// The message's id.
        id: MessageId,
        /// What to do with it.
        verdict: Verdict,
    },
    /// What the application thinks of a peer (P5), until the next word of it.
    AppScore {
        /// The peer.
        peer: P,
        /// Finite; anything else counts as zero.
        score: f64,
    },
    /// Send a peer nothing that others wrote until then, but tell it of all in IHAVE: what it gets from others it brings us, if
    /// it forwards. Without effect if peers are not judged.
    Trial {
        /// The peer.
        peer: P,
        /// The end.
        until: Time,
    },
    /// A timer that we asked for.
    Timer(Timer),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<P> {
    /// Send a frame.
    Send {
        /// To whom.
        to: P,
        /// What. May be larger than one frame: see [`split`](super::wire::split).
        rpc: Rpc,
        /// How much it matters.
        class: Class,
    },
    /// A new message: answer with [`Input::Verdict`].
    Validate {
        /// Who sent it first.
        from: P,
        /// Its id.
        id: MessageId,
        /// Its topic, one that we are subscribed to.
        topic: Topic,
        /// Its data.
        data: Bytes,
    },
    /// One more peer has sent a message whose verdict was not [`Verdict::Accept`]. Told once of each, while the message
    /// is remembered.
    CopyOfRefused {
        /// Who.
        from: P,
        /// The message's id.
        id: MessageId,
    },
    /// Our message is on its way.
    Published {
        /// Its id.
        id: MessageId,
        /// To how many peers it was sent, or in tree mode told of; those that come later may get it by IHAVE.
        recipients: usize,
    },
    /// Our message was not sent.
    NotPublished {
        /// Its id.
        id: MessageId,
        /// Why.
        reason: PublishError,
    },
    /// Close the connection; nothing that still comes from it counts.
    Disconnect {
        /// With whom.
        peer: P,
        /// Why.
        reason: DisconnectReason,
    },
    /// Hand `timer` back at that time.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
    /// Something an operator may want to see.
    Event(Event<P>),
}

/// How much a frame matters: when a queue is full, the last class goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Subscriptions and control.
    Control,
    /// Own messages.
    Own,
    /// Messages of others, asked for or not.
    Forwarded,
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It does not fit into a frame.
    #[error("message takes {bytes} bytes in a frame, at most {max} fit (`limits.frame_bytes_max`)")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The same data was published in this topic before, by us or by somebody else.
    #[error("the same message was published in this topic before")]
    Duplicate,
    /// Too much is held already.
    #[error("the message cache is full of messages that wait for validation (`cache_bytes_max`)")]
    CacheFull,
    /// There are as many topics as can be.
    #[error("too many topics")]
    TooManyTopics,
}

/// Why a peer is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// Its score is below `graylist_threshold`.
    Graylisted,
    /// There are `peers_max` already.
    TooManyPeers,
}

/// Why a peer left our mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneReason {
    /// It said so.
    ByPeer,
    /// There were too many.
    Excess,
    /// Its score fell below zero.
    Score,
    /// It, or we, left the topic.
    Left,
    /// It is gone, or was sent away.
    Gone,
}

/// What a peer has brought since we know it; only ever more. For the observer: one that brings nothing of what there
/// is does not forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution<P> {
    /// The peer.
    pub peer: P,
    /// Messages that it brought, good or bad, first or as one more copy while they are remembered; each once.
    pub copies: u64,
    /// Messages that it told of in IHAVE.
    pub told: u64,
    /// Messages of others that were accepted in topics while it was in our mesh of them.
    pub expected: u64,
}

/// Something an operator may want to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<P> {
    /// A peer joined a topic.
    PeerSubscribed {
        /// The peer.
        peer: P,
        /// The topic.
        topic: Topic,
    },
    /// A peer left a topic.
    PeerUnsubscribed {
        /// The peer.
        peer: P,
        /// The topic.
        topic: Topic,
    },
    /// A peer is in our mesh.
    Grafted {
        /// The peer.
        peer: P,
        /// The topic.
        topic: Topic,
    },
    /// A peer is out of our mesh.
    Pruned {
        /// The peer.
        peer: P,
        /// The topic.
        topic: Topic,
        /// Why.
        reason: PruneReason,
    },
    /// We did not join a topic: there are as many as can be.
    TooManyTopics {
        /// The topic.
        topic: Topic,
    },
}

impl<P> From<Event<P>> for Output<P> {
    fn from(event: Event<P>) -> Self {
        Output::Event(event)
    }
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Time for a heartbeat. Does nothing unless it is the one asked for last.
    Heartbeat {
        /// Which heartbeat.
        beat: u32,
    },
    /// Tree mode: time to ask for what was told of and has not come.
    Repair {
        /// Does nothing unless it is the one asked for last.
        token: u32,
    },
    /// Tree mode: time to tell lazy links what came.
    Announce {
        /// Does nothing unless it is the one asked for last.
        token: u32,
    },
}
