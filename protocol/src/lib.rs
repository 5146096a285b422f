//! The protocol of OmniMesh: pure state machines and wire formats.
//!
//! Nothing here reads a clock, draws randomness, opens a socket or a file, or starts a thread: time,
//! randomness and input are arguments, and what is to be done comes back in an [`Outbox`]. The node
//! runs these machines over libp2p, the simulator runs them by the thousand in virtual time.
//!
//! ```text
//!              to be said                                                              heard
//!                  │                                                                     ▲
//!  author: bundles, tags with the step's pattern, signs            validate: shape, mesh, step, tag, replay, signature
//!                  │                                                                     │
//!                  └─► relay ─► gossip: who gets which message ─► (frames, peers) ─► gossip ─► relay
//!                                                                                        │ verified
//!     admission, dialer: who may come in, whom to call                                   ├─► observer: who misbehaves, on what evidence
//!     step: what time it is in the mesh                                                  └─► log: one chained log per author
//!     membership: who is there, who is alive                                                     │ in order
//!                                                                            registry, compute ◄─┘ projections: folds over the log
//! ```
//!
//! # The words
//!
//! | word | what it is | where |
//! |---|---|---|
//! | mesh | nodes that share a name and a secret; nobody coordinates them | [`mesh`] |
//! | node id | an Ed25519 public key; who has its seed is that node | [`identity`], [`id`] |
//! | step | the mesh's common time, counted in intervals; nodes agree on it without a clock in common | [`step`] |
//! | pattern | what only members can compute, for any step; a message's *tag* is keyed with it | [`pattern`] |
//! | envelope | what is signed, tagged and gossiped: up to [`envelope::PAYLOADS_MAX`] payloads of one author on one channel | [`envelope`] |
//! | sequence number | an author's count of its payloads; each is used once in the life of a key | [`author`], [`replay`] |
//! | refusal | why a message is not believed: a code, the same in metrics, events and documents | [`refusal`] |
//! | record, entry | durable messages: a record is a signed link of its author's chain and holds entries | [`mod@log`] |
//! | projection | state that is a fold over the log, and so the same on every node | [`projection`], [`registry`], [`compute`] |
//! | finding, evidence | that somebody misbehaves, and what proves it to anybody | [`observer`] |
//!
//! Every machine has [one shape](machine): a `State` with one mutator, `handle(now, input, rng, out)`.
//!
//! # One message, from its author to who believes it
//!
//! ```
//! use bytes::Bytes;
//! use omnimesh_protocol::author::{self, Input, Output, Ticket};
//! use omnimesh_protocol::envelope::{Channel, PAYLOADS_MAX};
//! use omnimesh_protocol::pattern::PatternGenerator;
//! use omnimesh_protocol::refusal::Refusal;
//! use omnimesh_protocol::validate::{self, Validator};
//! use omnimesh_protocol::{Identity, Mesh, Outbox, Seq, Step, Time, replay};
//! use rand_chacha::ChaCha20Rng;
//! use rand_core::SeedableRng;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::open("example")?;
//! let (phase_interval, cache) = (100.try_into()?, 16.try_into()?);
//! let step = Step(5);
//!
//! // Alice says something. What she wants done comes back in the outbox.
//! let config = author::Config {
//!     message_bytes_max: 64 << 10,
//!     bundle_payloads_max: PAYLOADS_MAX,
//!     bundle_bytes_max: 16 << 10,
//!     pending_max: 1024,
//!     pending_bytes_max: 1 << 20,
//! };
//! let patterns = PatternGenerator::new(mesh.secret().clone(), phase_interval, cache);
//! let mut alice = author::State::new(config, Identity::from_seed(&[1; 32]), &mesh, patterns, Seq(1));
//! let (mut rng, mut out) = (ChaCha20Rng::from_seed([7; 32]), Outbox::new());
//! let channel = Channel::new("news")?;
//! for input in [
//!     Input::Reserved { up_to: Seq(100) },
//!     Input::Submit { channel: channel.clone(), payload: Bytes::from("hello"), ticket: Ticket(1) },
//!     Input::Flush { step: Some(step), mesh_time_us: 5_000_000 },
//! ] {
//!     alice.handle(Time::ZERO, input, &mut rng, &mut out);
//! }
//! let sealed = out.drain().find_map(|output| match output {
//!     Output::Sealed { envelope, .. } => Some(envelope),
//!     _ => None,
//! });
//! let bytes = sealed.ok_or("nothing was sealed")?.as_bytes().clone();
//!
//! // Bob, who knows the same mesh secret, believes it, once.
//! let config = validate::Config {
//!     phase_interval,
//!     pattern_cache: cache,
//!     message_bytes_max: 64 << 10,
//!     step_window_past: 10,
//!     step_window_future: 2,
//!     replay: replay::Config { window: 1024, authors_max: 64.try_into()? },
//! };
//! let mut bob = Validator::new(mesh, config, None);
//! let refused = |(reason, _author): (Refusal, _)| reason;
//! let unverified = bob.precheck(Some(step), &channel, &bytes).map_err(refused)?;
//! let message = bob.commit(step, unverified.verify()?)?;
//! assert_eq!(message.header().author, Identity::from_seed(&[1; 32]).id());
//! assert_eq!(bob.precheck(Some(step), &channel, &bytes).map_err(refused).err(), Some(Refusal::Replay));
//!
//! // Another word in it, and the tag is not the one that the step's pattern makes. No signature is checked for that.
//! let at = bytes.windows(5).position(|part| part == b"hello").ok_or("payloads travel as they are")?;
//! let mut forged = bytes.to_vec();
//! forged[at] = b'j';
//! assert_eq!(bob.precheck(Some(step), &channel, &forged.into()).map_err(refused).err(), Some(Refusal::BadPattern));
//! # Ok(())
//! # }
//! ```

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
