//! The memory of a node.

use omnimesh_protocol::config::Part;
use serde::{Deserialize, Serialize};

use crate::memory::Usage;

/// A part of the node's memory (`limits.memory`): a part of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPart {
    /// Which.
    pub part: Part,
    /// What it may hold.
    pub budget_bytes: usize,
    /// What it holds; nothing where that is kept within the budget and not counted.
    pub used_bytes: Option<usize>,
    /// Frames, messages or items that were shed because it had no room.
    pub shed: u64,
}

impl From<&Usage> for MemoryPart {
    fn from(usage: &Usage) -> Self {
        let shed = usage.shed.iter().map(|(_, count)| count).sum();
        MemoryPart { part: usage.part, budget_bytes: usage.budget, used_bytes: usage.used, shed }
    }
}
