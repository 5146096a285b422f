//! The detectors: streams of small facts in, suspicions out; bounded memory for each peer.
//!
//! | finding | seen in | by |
//! |---|---|---|
//! | `bad_pattern` `bad_signature` `malformed` `wrong_mesh` | refusals, frames | each one counts |
//! | `replay` `stale_step` `future_step` | refusals | [`messages`] |
//! | `flood` | accepted messages of an author; all messages and refused ones of a bringer | [`flood`] |
//! | `silence` | accepted messages of an author | [`rhythm`] |
//! | `latency` | time stamps of accepted messages | [`latency`] |
//! | `step_drift` | rounds of the step protocol | [`drift`] |
//! | `never_forwards` | what mesh neighbours brought and told of | [`forwarding`] |
//! | `duplicate_identity` | connections; messages with the own key | [`identity`] |
//! | `equivocation` | accepted messages, and refused ones of the same number | [`equivocation`] |
//!
//! Methods, thresholds and their sources stand in `docs/observer.md`.
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
