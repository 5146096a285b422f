//! The gossip router.
