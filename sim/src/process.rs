//! What this process holds.

use std::fs;

/// Memory that the process holds, in bytes; 0 where it cannot be told.
pub(crate) fn resident_bytes() -> u64 {
    held("VmRSS:")
}

/// The most memory the process has held, in bytes; 0 where it cannot be told.
pub(crate) fn peak_bytes() -> u64 {
    held("VmHWM:")
}

fn held(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
