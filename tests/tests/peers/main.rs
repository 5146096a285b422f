//! Nodes among real libp2p peers that are not OmniMesh: hostile ones and stock gossipsub.

mod interop;
mod stock;
