//! The protocol of OmniMesh: pure state machines and wire formats.
//!
//! Nothing here reads a clock, draws randomness, opens a socket or a file, or starts a thread: time,
//! randomness and input are arguments, and what is to be done comes back in an [`Outbox`]. The node
//! runs these machines over libp2p, the simulator runs them by the thousand in virtual time.

pub mod admission;
pub mod author;
pub mod compute;
pub mod config;
pub mod control;
pub mod dialer;
pub mod envelope;
pub mod event;
pub mod gossip;
pub mod id;
pub mod identity;
pub mod log;
pub mod machine;
pub mod membership;
pub mod mesh;
pub mod observer;
pub mod pattern;
pub mod projection;
pub mod refusal;
pub mod registry;
pub mod relay;
pub mod replay;
pub mod shape;
pub mod step;
pub mod time;
pub mod validate;

pub use id::{Hash, MeshId, MessageId, NodeId, Phase, Seq, Step};
pub use identity::Identity;
pub use machine::Outbox;
pub use mesh::Mesh;
pub use time::Time;
