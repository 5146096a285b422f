//! When to tell the mesh what others may have found at the same moment.
//!
//! Whoever sees a contradiction finds it: in a mesh of a thousand, hundreds within the same second. If each of them told
//! of it at once, one liar would cause as many messages as there are nodes, and everybody would forward and remember all of
//! them. So each waits for a random time, and says nothing if it hears the same from another in the meantime. The times
//! are exponentially distributed with few early ones, so that however many wait, only a few are first: Nonnenmacher and
//! Biersack, "Scalable Feedback for Large Groups" (IEEE/ACM Transactions on Networking 7(3), 1999); RFC 5401, section 4.2.
//!
//! ```text
//! slot of 250 ms   0      1      2      3    …    n          n = log2(members)
//! chance          1/2ⁿ   1/2ⁿ   2/2ⁿ   4/2ⁿ  …   1/2
//! ```
//!
//! So a lone finder of a small mesh tells within a second, and of a mesh of a thousand within three.

use std::time::Duration;

use rand::RngExt;
use rand_core::Rng;

use crate::time::nanos;

/// About the time in which a message comes to most of a mesh. Guess: four hops of 60 ms.
const SLOT: Duration = Duration::from_millis(250);
/// Slots of the largest group: nobody waits for longer than four seconds and a slot.
const SLOTS_MAX: u32 = 16;

/// How long to wait, where so many may have found the same.
pub(super) fn wait(members: usize, rng: &mut impl Rng) -> Duration {
    let slots = members.max(1).ilog2().min(SLOTS_MAX);
    let drawn = rng.random_range(0..1_u64 << slots);
    let slot = drawn.checked_ilog2().map_or(0, |log| log + 1);
    SLOT * slot + Duration::from_nanos(rng.random_range(0..nanos(SLOT)))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    /// Who speaks: whoever's time is over before the first one is heard, a slot later.
    fn speakers(finders: usize, members: usize, rng: &mut ChaCha8Rng) -> usize {
        let waits: Vec<Duration> = (0..finders).map(|_| wait(members, rng)).collect();
        let first = waits.iter().min().copied().unwrap_or_default();
        waits.iter().filter(|wait| **wait <= first + SLOT).count()
    }

    #[test]
    fn however_many_find_it_a_few_tell() {
        for seed in 0..20 {
            println!("seed {seed}: cargo test -p omnimesh-protocol however_many_find_it_a_few_tell");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for (finders, members) in [(1, 1_000), (7, 7), (30, 1_000), (1_000, 1_000), (50_000, 50_000)] {
                let speakers = speakers(finders, members, &mut rng);
                assert!((1..=40).contains(&speakers), "{speakers} of {finders}");
            }
        }
    }

    #[test]
    fn nobody_waits_for_long() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let longest = |members, rng: &mut ChaCha8Rng| (0..10_000).map(|_| wait(members, rng)).max();
        assert!(longest(1, &mut rng) <= Some(SLOT));
        assert!(longest(7, &mut rng) <= Some(SLOT * 3));
        assert!(longest(usize::MAX, &mut rng) <= Some(SLOT * (SLOTS_MAX + 1)));
    }
}
