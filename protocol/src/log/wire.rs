//! Frames of the log stream.

use crate::id::MeshId;

/// The name under which the log streams of this mesh are negotiated.
pub fn protocol_name(mesh: MeshId) -> String {
    format!("/omnimesh/1/{mesh}/log")
}

/// Bytes of records that a node gives in one answer, at most, unless a single record is longer.
pub const SERVE_BYTES_MAX: usize = 256 << 10;

/// The longest frame where envelopes have at most `message_bytes_max` bytes; the shell refuses a longer one by its length.
pub const fn frame_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(2).saturating_add(SERVE_BYTES_MAX + 4096)
}
