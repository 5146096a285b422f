//! The detectors: streams of small facts in, suspicions out; bounded memory for each peer.
//!
//! | finding | seen in | method |
//! |---|---|---|
//! | `bad_pattern` `bad_signature` `malformed` `wrong_mesh` | refusals, frames | each one counts; only a bringer that forwards unread can do it |
//! | `replay` `stale_step` `future_step` | refusals | a token bucket forgives what honest paths do ([`messages`]) |
//! | `flood` | accepted messages of an author; all messages and refused ones of a bringer | token buckets ([`flood`]) |
//! | `silence` | accepted messages of an author | its own usual gap, by Jacobson and Karels ([`rhythm`]) |
//! | `latency` | time stamps of accepted messages | modified z-score with median and MAD over all authors ([`latency`]) |
//! | `step_drift` | rounds of the step protocol | two-sided CUSUM of the distance to the median clock ([`drift`]) |
//! | `never_forwards` | what mesh neighbours brought and told of | against the median neighbour ([`forwarding`]) |
//! | `duplicate_identity` | connections; messages with the own key | one key from two hosts ([`identity`]) |
//! | `equivocation` | accepted messages, and refused ones of the same number | both are kept: a proof ([`equivocation`]) |
//!
//! A detector holds nothing against anybody by itself: [`super::State`] weighs what it says, by its kind and by this
//! node's doubt in itself.

pub mod drift;
pub mod equivocation;
pub mod flood;
pub mod forwarding;
pub mod identity;
pub mod latency;
pub mod messages;
pub mod rhythm;
