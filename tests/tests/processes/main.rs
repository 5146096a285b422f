//! Nodes as real processes on one machine, as an operator runs them.

mod clock;
mod common;
mod devnet;
mod failure;
mod inspect;
mod join;
mod misuse;
