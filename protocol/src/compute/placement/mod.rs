//! Who gets a task: the pool of workers as one driver sees it.
//!
//! ```text
//!   offers ───► Pool ◄─── outcomes of attempts
//!                │
//!   Wanted ──────┤ 1. eligible: alive, breaker not open, room, constraints, operation, not excluded
//!                │ 2. one that holds the longest input, if it has room
//!                │ 3. else by the strategy, among those with an idle slot if there are any
//!                ▼
//!        worker, or why there is none
//! ```
//!
//! Workers say what they are and how much room they have ([`Offer`]); what they are worth is learned from what comes of
//! the attempts they get: [`Health`], and a circuit [`Breaker`] for each.
//!
//! # Invariants ([`Pool::check_invariants`])
//! A worker is in the list of those with room exactly if it has room and its breaker lets something through. Nothing is
//! drawn from a map's order.
//!
//! # Not here
//! What a task is, who is asked how often ([`driver`](super::driver)), and what a worker really does
//! ([`worker`](super::worker)).

mod breaker;
mod health;
mod offer;
mod pool;
mod times;

pub use breaker::{Breaker, BreakerConfig, BreakerState};
pub use health::{Health, HealthView};
pub use offer::{HELD_MAX, Offer};
pub use pool::{Pool, PoolConfig, Strategy, Unplaced, Wanted, WorkerView};
pub use times::Times;
