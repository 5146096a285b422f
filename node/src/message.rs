//! A delivered message.

use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::{MessageId, NodeId, Seq, Step};

/// A payload that some member published and this node has verified. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of its envelope. Payloads that travelled in one envelope share it; `seq` tells them apart.
    pub id: MessageId,
    /// Where it was published.
    pub channel: Channel,
    /// Who signed it.
    pub author: NodeId,
    /// The author's count.
    pub seq: Seq,
    /// The step it was published in.
    pub step: Step,
    /// What it says.
    pub payload: Bytes,
    /// From publishing to here by mesh time, as exact as the clocks agree; `None` if the author gave no time.
    pub latency: Option<Duration>,
    /// The neighbour that brought it, a libp2p peer id; `None` for the node's own.
    pub from: Option<libp2p::PeerId>,
}
