//! Blobs: content named by its BLAKE3 hash, fetched from several peers at once and checked piece by piece.
//!
//! ```text
//!   root hash = name of the blob
//!        ├────────────┬─────── …          chaining values: the outline, 32 bytes for each MiB,
//!      group 0      group 1               checked against the name when it comes
//!      1 MiB        1 MiB                 each group is checked against its chaining value
//! ```
//!
//! BLAKE3 is a tree: the hash of a blob follows from the chaining values of its *groups* of [`GROUP_BYTES`]. Whoever
//! has these ([`Outline`]) can check each group by itself, whoever it comes from and in whatever order. An outline that
//! does not give the name of the blob is a lie, found before anything is fetched by it.
//!
//! [`Fetch`] plans who is asked for what, [`Cache`] what is kept, [`Pace`] when others are answered. What travels is in [`wire`].
//!
//! # Not here
//! Streams and files: the shell stores what [`Fetch`] has checked.

mod cache;
mod fetch;
mod outline;
mod pace;
pub mod wire;

pub use cache::{Cache, CacheError};
pub use fetch::{Fetch, FetchConfig, FetchError, Input, Output, Timer};
pub use outline::{GROUP_BYTES, Groups, Outline, OutlineBuilder, OutlineError, groups_of};
pub use pace::Pace;
