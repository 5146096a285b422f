//! Nodes among real libp2p peers that are not OmniMesh: hostile ones and stock gossipsub.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod floods;
mod foreign;
mod forks;
mod hostile;
mod interop;
mod liars;
mod overload;
mod raw;
mod shut_out;
mod stock;
mod suspects;
mod wrong_results;
