//! The event stream: what a node tells those who watch it.
//!
//! Four streams: *message* (published, delivered), *security* (what was refused, and whose fault it was),
//! *error* (what this node could not do) and *performance* (what changed in the mesh around it). An event
//! is typed where it arises; its text is made only when somebody reads it.

use std::fmt::{self, Display};

use crate::envelope::Channel;
use crate::id::{MessageId, NodeId, Phase, Seq, Step};
use crate::refusal::Refusal;

/// The four streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Published, delivered, passed on.
    Message,
    /// What this node could not do.
    Error,
    /// What changed in the mesh.
    Performance,
    /// What was refused.
    Security,
}

/// Something that happened at this node. `P` names a connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// This node published an envelope.
    Published {
        /// Its id.
        id: MessageId,
        /// Where.
        channel: Channel,
        /// Its first sequence number.
        seq: Seq,
        /// Payloads in it.
        payloads: usize,
        /// Neighbours it was sent to.
        recipients: usize,
    },
    /// A message was verified; subscribers here got it, or nobody here listens and it was only passed on.
    Verified {
        /// Its id.
        id: MessageId,
        /// Where it belongs.
        channel: Channel,
        /// Who signed it.
        author: NodeId,
        /// The neighbour that brought it.
        from: P,
        /// Its step.
        step: Step,
        /// Payloads in it.
        payloads: usize,
        /// From publishing to here by mesh time, in microseconds.
        latency_us: Option<u64>,
        /// True if the channel is subscribed here.
        delivered: bool,
    },
    /// A message was refused.
    Refused {
        /// Its id.
        id: MessageId,
        /// Where it came.
        channel: Option<Channel>,
        /// Who wrote it, if the tag proves that a member did.
        author: Option<NodeId>,
        /// The neighbour that brought it.
        from: P,
        /// The gate.
        reason: Refusal,
    },
    /// A neighbour sent bytes that are no frame of the protocol.
    BadFrame {
        /// Which.
        from: P,
        /// `gossip` or `control`.
        stream: &'static str,
        /// The fault.
        reason: String,
    },
    /// A peer was not let in, or was sent away.
    PeerRefused {
        /// Which.
        peer: P,
        /// A stable code.
        reason: &'static str,
        /// For people.
        detail: String,
    },
    /// A peer connected or proved its membership.
    PeerUp {
        /// Which.
        peer: P,
        /// `connected` or `admitted`.
        what: &'static str,
        /// Where, or its software.
        detail: String,
    },
    /// A peer's last connection ended.
    PeerDown {
        /// Which.
        peer: P,
        /// Why.
        detail: String,
    },
    /// A member's state changed.
    Member {
        /// Which.
        member: NodeId,
        /// `alive`, `suspect`, `dead`, `left`.
        state: &'static str,
    },
    /// The mesh's step was found, or moved otherwise than by time.
    Step {
        /// `synchronised`, `jumped`, `holding`, `ahead` …
        what: &'static str,
        /// For people.
        detail: String,
    },
    /// A new phase began: patterns are re-keyed.
    Phase {
        /// Which.
        phase: Phase,
        /// Its first step seen here.
        step: Step,
    },
    /// A metric came to another level.
    Alert {
        /// The code of the metric.
        metric: &'static str,
        /// `normal` (it is over), `warning` or `critical`.
        level: &'static str,
        /// The number of the incident.
        incident: u64,
        /// For people.
        detail: String,
    },
    /// Somebody did what it ought not to: the first time, the tenth, the hundredth, and whenever it is proved.
    Found {
        /// The code of the kind.
        kind: &'static str,
        /// Who.
        accused: String,
        /// For people.
        detail: String,
    },
    /// A key is shut out, or no longer.
    Quarantine {
        /// Whose.
        node: NodeId,
        /// `quarantined` or `released`.
        what: &'static str,
        /// For people.
        detail: String,
    },
    /// Something that this node could not do.
    Error {
        /// A stable code.
        kind: &'static str,
        /// Cause and remedy.
        detail: String,
    },
}

impl<P: Display> Event<P> {
    /// The stream it belongs to.
    pub fn stream(&self) -> Stream {
        match self {
            Event::Published { .. } | Event::Verified { .. } => Stream::Message,
            Event::Refused { .. }
            | Event::BadFrame { .. }
            | Event::PeerRefused { .. }
            | Event::Found { .. }
            | Event::Quarantine { .. } => Stream::Security,
            Event::Error { .. } => Stream::Error,
            Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::Member { .. }
            | Event::Step { .. }
            | Event::Phase { .. }
            | Event::Alert { .. } => Stream::Performance,
        }
    }

    /// A stable code.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Published { .. } => "published",
            Event::Verified { delivered: true, .. } => "delivered",
            Event::Verified { delivered: false, .. } => "forwarded",
            Event::Refused { reason, .. } => reason.code(),
            Event::BadFrame { .. } => "bad_frame",
            Event::PeerRefused { reason, .. } => reason,
            Event::PeerUp { what, .. } => match *what {
                "admitted" => "peer_admitted",
                _ => "peer_connected",
            },
            Event::PeerDown { .. } => "peer_disconnected",
            Event::Member { state, .. } => match *state {
                "alive" => "member_alive",
                "suspect" => "member_suspect",
                "left" => "member_left",
                _ => "member_dead",
            },
            Event::Step { what, .. } => what,
            Event::Phase { .. } => "phase",
            Event::Alert { level: "normal", .. } => "alert_resolved",
            Event::Alert { .. } => "alert",
            Event::Found { .. } => "finding",
            Event::Quarantine { what, .. } => what,
            Event::Error { kind, .. } => kind,
        }
    }

    /// The peer it is about, as text.
    pub fn peer(&self) -> Option<String> {
        match self {
            Event::Verified { from, .. } | Event::Refused { from, .. } | Event::BadFrame { from, .. } => {
                Some(from.to_string())
            }
            Event::PeerRefused { peer, .. } | Event::PeerUp { peer, .. } | Event::PeerDown { peer, .. } => {
                Some(peer.to_string())
            }
            Event::Member { member, .. } => Some(member.to_string()),
            Event::Found { accused, .. } => Some(accused.clone()),
            Event::Quarantine { node, .. } => Some(node.to_string()),
            Event::Published { .. }
            | Event::Step { .. }
            | Event::Phase { .. }
            | Event::Alert { .. }
            | Event::Error { .. } => None,
        }
    }

    /// The metric, level and incident of an alert.
    pub fn alert(&self) -> Option<(&'static str, &'static str, u64)> {
        match self {
            Event::Alert { metric, level, incident, .. } => Some((*metric, *level, *incident)),
            _ => None,
        }
    }

    /// The message it is about.
    pub fn message(&self) -> Option<MessageId> {
        match self {
            Event::Published { id, .. } | Event::Verified { id, .. } | Event::Refused { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The channel it is about.
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Event::Published { channel, .. } | Event::Verified { channel, .. } => Some(channel),
            Event::Refused { channel, .. } => channel.as_ref(),
            _ => None,
        }
    }
}

impl<P: Display> Display for Event<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Published { channel, seq, payloads, recipients, .. } => {
                write!(
                    f,
                    "published {payloads} payloads from seq {seq} on {channel} to {recipients} neighbours"
                )
            }
            Event::Verified { channel, author, step, payloads, delivered, .. } => {
                let what = if *delivered { "delivered" } else { "passed on" };
                write!(f, "{what} {payloads} payloads of {author} on {channel}, written in step {step}")
            }
            Event::Refused { from, author: Some(author), reason, .. } => {
                write!(f, "refused a message of {author} brought by {from}: {reason}")
            }
            Event::Refused { from, author: None, reason, .. } => {
                write!(f, "refused a message brought by {from}: {reason}")
            }
            Event::BadFrame { from, stream, reason } => {
                write!(f, "{from} sent a bad frame on its {stream} stream: {reason}")
            }
            Event::PeerRefused { peer, detail, .. } => write!(f, "refused {peer}: {detail}"),
            Event::PeerUp { peer, what, detail } => write!(f, "{peer} {what}: {detail}"),
            Event::PeerDown { peer, detail } => write!(f, "{peer} disconnected: {detail}"),
            Event::Member { member, state } => write!(f, "{member} is {state}"),
            Event::Step { detail, .. } | Event::Error { detail, .. } | Event::Alert { detail, .. } => {
                f.write_str(detail)
            }
            Event::Found { kind, accused, detail } => write!(f, "{kind} of {accused}: {detail}"),
            Event::Quarantine { node, what, detail } => write!(f, "{node} is {what}: {detail}"),
            Event::Phase { phase, step } => write!(f, "phase {phase} began with step {step}"),
        }
    }
}
