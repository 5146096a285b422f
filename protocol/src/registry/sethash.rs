//! The hash of a set that changes: adding and removing an item cost the same however large the set is.
//!
//! LtHash with 1,024 lanes of 16 bits (Bellare and Micciancio 1997; Lewi et al., *Securing update propagation with
//! homomorphic hashing*, 2019): each item is expanded to 2,048 bytes, and the lanes of all items are added up. A plain
//! sum of 256-bit hashes would be cheaper, but whoever may choose items can find two sets with the same sum.

use crate::id::Hash;

const LANES: usize = 1024;
/// Names this use of the hash.
const ITEM_CONTEXT: &str = "omnimesh 2026-11 registry item";
const STATE_CONTEXT: &str = "omnimesh 2026-11 registry state";

/// The hash of a set of byte strings.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SetHash {
    lanes: Box<[u16; LANES]>,
}

impl Default for SetHash {
    fn default() -> Self {
        SetHash { lanes: Box::new([0; LANES]) }
    }
}

impl SetHash {
    pub(super) fn add(&mut self, item: &[u8]) {
        self.combine(item, u16::wrapping_add);
    }

    /// Takes out an item that is in the set.
    pub(super) fn remove(&mut self, item: &[u8]) {
        self.combine(item, u16::wrapping_sub);
    }

    pub(super) fn digest(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(STATE_CONTEXT);
        let mut bytes = [0; 2 * LANES];
        for (to, lane) in bytes.chunks_exact_mut(2).zip(self.lanes.iter()) {
            to.copy_from_slice(&lane.to_le_bytes());
        }
        hasher.update(&bytes);
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    fn combine(&mut self, item: &[u8], with: fn(u16, u16) -> u16) {
        let mut bytes = [0; 2 * LANES];
        blake3::Hasher::new_derive_key(ITEM_CONTEXT).update(item).finalize_xof().fill(&mut bytes);
        for (lane, from) in self.lanes.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = with(*lane, u16::from_le_bytes([from[0], from[1]]));
        }
    }
}

impl std::fmt::Debug for SetHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetHash({})", self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let of = |items: &[&[u8]]| {
            let mut hash = SetHash::default();
            items.iter().for_each(|item| hash.add(item));
            hash
        };
        assert_eq!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"a", b"b"]).digest(), of(&[b"a", b"c"]).digest());
        let mut hash = of(&[b"a", b"b"]);
        hash.remove(b"b");
        assert_eq!(hash, of(&[b"a"]));
        hash.remove(b"a");
        assert_eq!(hash.digest(), SetHash::default().digest());
    }
}
