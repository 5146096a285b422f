//! Who a node is, as it follows from the seed of the run: its key, its address, its wall clock.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use omnimesh_protocol::Identity;

use super::link::nanos;
use super::random::Draw;

/// The address that a node seems to connect from: each in a network (a /24) of its own.
pub(super) fn ip_of(number: u32) -> IpAddr {
    let [a, b, c, d] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(11 + (b & 63), c, d, 1 + a))
}

/// The identity of a node follows from the seed of the run.
pub(super) fn identity(seed: u64, node: u32) -> Identity {
    let mut bytes = [0; 32];
    let mut draw = Draw::new(seed, u64::from(node), 0x6b65_7973);
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&draw.next().to_le_bytes());
    }
    Identity::from_seed(&bytes)
}

/// The wall clock of the founder at the start of every run: 2026-01-01T00:00:00Z.
pub(super) const WALL_NS: u64 = 1_767_225_600_000_000_000;

pub(super) fn wall_of(seed: u64, node: u32, offset: Duration, now: u64) -> u64 {
    let mut draw = Draw::new(seed, u64::from(node), 0x7761_6c6c);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "an offset is far below 2^52 ns"
    )]
    let off = (nanos(offset) as f64 * (2.0 * draw.unit() - 1.0)) as i64;
    WALL_NS.saturating_add(now).saturating_add_signed(off)
}
