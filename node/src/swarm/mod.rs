//! The libp2p swarm.
