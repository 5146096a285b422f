//! Which blobs are kept: the least recently used goes first, what is pinned stays.

use std::collections::{BTreeMap, BTreeSet};

use crate::compute::id::BlobRef;
use crate::id::Hash;

/// Why a blob is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// What is pinned leaves no room for it.
    #[error(
        "no room for {wanted} bytes: {pinned} of {max} bytes are pinned; unpin some, or raise compute.blob_bytes"
    )]
    Full {
        /// What it takes.
        wanted: u64,
        /// What is pinned.
        pinned: u64,
        /// What there is.
        max: u64,
    },
    /// It is not there.
    #[error("there is no such blob here")]
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    size: u64,
    used: u64,
    pins: u32,
}

/// The books of a blob store. It says what has to be deleted; the caller does that.
#[derive(Clone, Debug)]
pub struct Cache {
    bytes_max: u64,
    count_max: usize,
    bytes: u64,
    pinned: u64,
    blobs: BTreeMap<Hash, Kept>,
    /// What can go, the least recently used first.
    order: BTreeSet<(u64, Hash)>,
    clock: u64,
}

impl Cache {
    /// Empty books for a store of so many bytes, in so many blobs. What is pinned is bound by its bytes alone.
    pub fn new(bytes_max: u64, count_max: usize) -> Self {
        let (blobs, order) = Default::default();
        Cache { bytes_max, count_max, bytes: 0, pinned: 0, blobs, order, clock: 0 }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes there is room for.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that are pinned.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// How many blobs are kept.
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// True if nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// True if this blob is kept; does not count as a use.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.blobs.contains_key(hash)
    }

    /// All that is kept, with its size and pins.
    pub fn iter(&self) -> impl Iterator<Item = (BlobRef, u32)> + '_ {
        self.blobs.iter().map(|(hash, kept)| (BlobRef { hash: *hash, size: kept.size }, kept.pins))
    }

    /// The blobs that were used last, the last first.
    pub fn newest(&self, count: usize) -> Vec<Hash> {
        let mut all: Vec<_> = self.blobs.iter().map(|(hash, kept)| (kept.used, *hash)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(count).map(|(_, hash)| hash).collect()
    }

    /// Makes room for a blob and enters it, pinned so many times; answers what has to be deleted.
    ///
    /// # Errors
    /// [`CacheError::Full`]; nothing is changed then.
    pub fn insert(&mut self, blob: BlobRef, pins: u32) -> Result<Vec<Hash>, CacheError> {
        if self.blobs.contains_key(&blob.hash) {
            self.touch(&blob.hash);
            for _ in 0..pins {
                self.pin(&blob.hash)?;
            }
            return Ok(Vec::new());
        }
        let room = self.bytes_max.saturating_sub(self.pinned);
        if blob.size > room {
            return Err(CacheError::Full { wanted: blob.size, pinned: self.pinned, max: self.bytes_max });
        }
        let mut gone = Vec::new();
        while self.bytes.saturating_add(blob.size) > self.bytes_max || self.blobs.len() >= self.count_max {
            let Some((_, hash)) = self.order.pop_first() else { break };
            if let Some(kept) = self.blobs.remove(&hash) {
                self.bytes -= kept.size;
                gone.push(hash);
            }
        }
        self.clock += 1;
        self.blobs.insert(blob.hash, Kept { size: blob.size, used: self.clock, pins });
        self.bytes += blob.size;
        if pins == 0 {
            self.order.insert((self.clock, blob.hash));
        } else {
            self.pinned += blob.size;
        }
        Ok(gone)
    }

    /// A blob was used.
    pub fn touch(&mut self, hash: &Hash) {
        self.clock += 1;
        if let Some(kept) = self.blobs.get_mut(hash) {
            if kept.pins == 0 {
                self.order.remove(&(kept.used, *hash));
                self.order.insert((self.clock, *hash));
            }
            kept.used = self.clock;
        }
    }

    /// Keeps a blob until it is unpinned as often.
    ///
    /// # Errors
    /// [`CacheError::Unknown`].
    pub fn pin(&mut self, hash: &Hash) -> Result<(), CacheError> {
        let kept = self.blobs.get_mut(hash).ok_or(CacheError::Unknown)?;
        if kept.pins == 0 {
            self.order.remove(&(kept.used, *hash));
            self.pinned += kept.size;
        }
        kept.pins = kept.pins.saturating_add(1);
        Ok(())
    }

    /// Takes a pin back.
    ///
    /// # Errors
    /// [`CacheError::Unknown`] if it is not there or not pinned.
    pub fn unpin(&mut self, hash: &Hash) -> Result<(), CacheError> {
        let kept = self.blobs.get_mut(hash).filter(|kept| kept.pins > 0).ok_or(CacheError::Unknown)?;
        kept.pins -= 1;
        if kept.pins == 0 {
            self.order.insert((kept.used, *hash));
            self.pinned -= kept.size;
        }
        Ok(())
    }

    /// Forgets a blob, pinned or not; the caller has deleted it, or found it damaged.
    pub fn remove(&mut self, hash: &Hash) {
        if let Some(kept) = self.blobs.remove(hash) {
            self.order.remove(&(kept.used, *hash));
            self.bytes -= kept.size;
            if kept.pins > 0 {
                self.pinned -= kept.size;
            }
        }
    }

    /// For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        assert_eq!(self.bytes, self.blobs.values().map(|kept| kept.size).sum::<u64>());
        let pinned = self.blobs.values().filter(|kept| kept.pins > 0);
        assert_eq!(self.pinned, pinned.clone().map(|kept| kept.size).sum::<u64>());
        assert_eq!(self.order.len() + pinned.count(), self.blobs.len());
        assert!(self.bytes <= self.bytes_max, "never more than there is room for");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob(n: u8) -> BlobRef {
        BlobRef { hash: Hash::from_bytes([n; 32]), size: u64::from(n) }
    }

    #[test]
    fn the_least_recently_used_goes_and_the_pinned_stays() {
        let mut cache = Cache::new(60, 9);
        for n in [10, 20, 30] {
            assert_eq!(cache.insert(blob(n), 0), Ok(Vec::new()));
        }
        cache.touch(&blob(10).hash);
        cache.pin(&blob(20).hash).unwrap();
        assert_eq!(cache.insert(blob(15), 0), Ok(vec![blob(30).hash]));
        assert_eq!(cache.insert(blob(31), 0), Ok(vec![blob(10).hash, blob(15).hash]));
        assert!(matches!(cache.insert(blob(41), 0), Err(CacheError::Full { pinned: 20, .. })));
        assert_eq!(cache.len(), 2);
        cache.unpin(&blob(20).hash).unwrap();
        assert_eq!(cache.insert(blob(41), 0), Ok(vec![blob(20).hash, blob(31).hash]));
        cache.check_invariants();
    }

    #[test]
    fn there_are_never_more_than_so_many_but_for_the_pinned() {
        let mut cache = Cache::new(100, 3);
        for n in 1..=9 {
            let gone = cache.insert(blob(n), 0).unwrap();
            assert_eq!(gone, Vec::from_iter((n > 3).then(|| blob(n - 3).hash)));
        }
        [7, 8].iter().for_each(|n| cache.pin(&blob(*n).hash).unwrap());
        assert_eq!(cache.insert(blob(10), 0), Ok(vec![blob(9).hash]));
        assert_eq!(cache.insert(blob(11), 1), Ok(vec![blob(10).hash]));
        assert_eq!(cache.insert(blob(12), 1), Ok(Vec::new()));
        // What is not pinned any more goes with the next.
        cache.unpin(&blob(7).hash).unwrap();
        assert_eq!(cache.insert(blob(13), 1), Ok(vec![blob(7).hash]));
        assert_eq!(cache.len(), 4);
        cache.check_invariants();
    }

    proptest! {
        #[test]
        fn the_books_are_right(operations in proptest::collection::vec((0_u8..5, 1_u8..12), 0..200)) {
            let mut cache = Cache::new(40, 5);
            for (operation, n) in operations {
                let hash = blob(n).hash;
                match operation {
                    0 | 1 => drop(cache.insert(blob(n), u32::from(operation))),
                    2 => drop(cache.pin(&hash)),
                    3 => drop(cache.unpin(&hash)),
                    _ if n % 2 == 0 => cache.touch(&hash),
                    _ => cache.remove(&hash),
                }
                cache.check_invariants();
            }
        }
    }
}
