//! Nodes among real libp2p peers that are not OmniMesh: hostile ones and stock gossipsub.

mod common;
mod floods;
mod foreign;
mod hostile;
mod liars;
mod raw;
