//! Patterns: what only members of a mesh can compute, for any step, in constant time.
//!
//! ```text
//! phase      = step / phase_interval
//! phase_key  = BLAKE3.derive_key("omnimesh 2026-11 phase key", mesh_secret ‖ phase as u64, little endian)
//! block      = ChaCha20(key = phase_key, nonce = 0) at block (step mod phase_interval)    64 bytes
//! tag_key    = block[0..32]        value = block[32..40] as u64, little endian
//! ```
//!
//! The generator is random access: a step's pattern depends on nothing but the secret and the step. The
//! cache in front of it is bounded. ChaCha20 rather than a variant of fewer rounds, because every
//! language has it and the cache hides its cost.
//!
//! Not here: the tag of a message, see [`crate::envelope`].

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};

use lru::LruCache;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::id::{Phase, Step};
use crate::mesh::MeshSecret;

/// Domain of the phase keys.
const PHASE_KEY_CONTEXT: &str = "omnimesh 2026-11 phase key";

/// 32-bit words in a ChaCha block, the unit in which `rand_chacha` counts.
const WORDS_PER_BLOCK: u128 = 16;

/// The pattern of one step.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    tag_key: [u8; 32],
    value: u64,
}

impl Pattern {
    /// The key of the tags of this step's messages. Secret to the mesh.
    pub fn tag_key(&self) -> &[u8; 32] {
        &self.tag_key
    }

    /// The number that members may show each other as proof that they know the step's pattern.
    pub fn value(&self) -> u64 {
        self.value
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern {{ value: {:#018x} }}", self.value)
    }
}

/// How well the cache serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups answered from the cache.
    pub hits: u64,
    /// Look-ups that had to compute.
    pub misses: u64,
    /// Entries now.
    pub len: usize,
    /// Entries at most.
    pub capacity: usize,
}

impl CacheStats {
    /// Share of look-ups answered from the cache, 0..=1; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        let total = self.hits + self.misses;
        if total == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let rate = self.hits as f64 / total as f64;
        rate
    }
}

/// Computes the pattern of any step, behind a bounded cache.
///
/// ```
/// use omnimesh_protocol::{mesh::MeshSecret, pattern::PatternGenerator, Step};
///
/// let secret = MeshSecret::from_bytes([7; 32]);
/// let mut here = PatternGenerator::new(secret.clone(), 100.try_into().unwrap(), 16.try_into().unwrap());
/// let mut there = PatternGenerator::new(secret, 100.try_into().unwrap(), 1.try_into().unwrap());
/// assert_eq!(here.at(Step(1_000_000)), there.at(Step(1_000_000)));
/// ```
#[derive(Debug)]
pub struct PatternGenerator {
    secret: MeshSecret,
    phase_interval: NonZeroU64,
    cache: LruCache<Step, Pattern>,
    hits: u64,
    misses: u64,
}

impl PatternGenerator {
    /// A generator that re-keys every `phase_interval` steps and remembers at most `cache_size` patterns.
    pub fn new(secret: MeshSecret, phase_interval: NonZeroU64, cache_size: NonZeroUsize) -> Self {
        // `LruCache::new` would reserve all the room at once; a configured bound is not a working set.
        let mut cache = LruCache::unbounded();
        cache.resize(cache_size);
        PatternGenerator { secret, phase_interval, cache, hits: 0, misses: 0 }
    }

    /// The phase that `step` lies in. A phase's first step is the exact multiple of the interval.
    pub fn phase_of(&self, step: Step) -> Phase {
        Phase(step.0 / self.phase_interval)
    }

    /// The pattern of `step`.
    pub fn at(&mut self, step: Step) -> &Pattern {
        if self.cache.contains(&step) {
            self.hits += 1;
        } else {
            self.misses += 1;
        }
        let (secret, phase_interval) = (&self.secret, self.phase_interval);
        self.cache.get_or_insert(step, || compute(secret, phase_interval, step))
    }

    /// How well the cache serves.
    pub fn cache_stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits,
            misses: self.misses,
            len: self.cache.len(),
            capacity: self.cache.cap().get(),
        }
    }
}

/// The pattern of `step`, without a cache.
fn compute(secret: &MeshSecret, phase_interval: NonZeroU64, step: Step) -> Pattern {
    let mut material = Zeroizing::new([0; 40]);
    material[..32].copy_from_slice(secret.as_bytes());
    material[32..].copy_from_slice(&(step.0 / phase_interval).to_le_bytes());
    let phase_key = Zeroizing::new(blake3::derive_key(PHASE_KEY_CONTEXT, material.as_slice()));

    let mut stream = ChaCha20Rng::from_seed(*phase_key);
    stream.set_word_pos(u128::from(step.0 % phase_interval) * WORDS_PER_BLOCK);
    let mut tag_key = [0; 32];
    stream.fill_bytes(&mut tag_key);
    Pattern { tag_key, value: stream.next_u64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(cache: usize) -> PatternGenerator {
        PatternGenerator::new(
            MeshSecret::from_bytes([1; 32]),
            NonZeroU64::new(10).unwrap(),
            NonZeroUsize::new(cache).unwrap(),
        )
    }

    #[test]
    fn random_access_equals_any_other_order() {
        let mut forward = generator(1000);
        let mut backward = generator(1);
        let there: Vec<_> = (0..50).map(|s| forward.at(Step(s)).clone()).collect();
        for s in (0..50).rev() {
            assert_eq!(backward.at(Step(s as u64)), &there[s]);
        }
    }

    #[test]
    fn every_step_differs_and_the_phase_boundary_is_exact() {
        let mut generator = generator(64);
        let values: std::collections::BTreeSet<_> = (0..40).map(|s| generator.at(Step(s)).value()).collect();
        assert_eq!(values.len(), 40);
        assert_eq!(generator.phase_of(Step(9)), Phase(0));
        assert_eq!(generator.phase_of(Step(10)), Phase(1));
        // The last step there is has a pattern too.
        generator.at(Step(u64::MAX));
    }

    #[test]
    fn the_cache_never_outgrows_its_bound_and_counts() {
        let mut generator = generator(8);
        for s in 0..100 {
            generator.at(Step(s));
            assert!(generator.cache_stats().len <= 8);
        }
        generator.at(Step(99));
        let stats = generator.cache_stats();
        assert_eq!((stats.hits, stats.misses, stats.capacity), (1, 100, 8));
        assert!((stats.hit_rate() - 1.0 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn another_secret_has_other_patterns() {
        let mut one = generator(8);
        let mut other = PatternGenerator::new(
            MeshSecret::from_bytes([2; 32]),
            NonZeroU64::new(10).unwrap(),
            NonZeroUsize::new(8).unwrap(),
        );
        assert_ne!(one.at(Step(3)), other.at(Step(3)));
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", generator(8).at(Step(1)));
        assert!(!text.contains("tag_key"), "{text}");
    }
}
