//! What a round's answers say about the own clock: pure arithmetic, no state.
//!
//! All times here are nanoseconds relative to the own clock: 5 means that a peer is 5 ns ahead. The rules:
//!
//! * **Budget.** Of the `asked` peers that claim to know the time, `asked / 3` may lie in any way and
//!   differently to everybody. Peers that did not answer count as asked, or silence would lower the guard.
//! * **Reading.** A reading allows any value within its error. The one nearest to the own clock is taken:
//!   it lies between the own and the peer's true clock, so that delays on the way, be they ever so uneven,
//!   never move an honest clock beyond the honest ones. (With the likeliest value, one-sided liars made use
//!   of the noise: seven clocks ran 1.6 % fast at latencies of 1 to 100 ms; now 0.1 %, and no farther
//!   apart.)
//! * **Midpoint** (Welch and Lynch 1988, "A new fault-tolerant algorithm for clock synchronization"): of all
//!   readings and the own clock, drop the `budget` lowest and highest, take the middle of the extremes that
//!   remain. What remains lies between honest clocks, and from one round to the next the spread of honest
//!   clocks at least halves, with fewer than a third liars. With three clocks (a budget of none) the middle
//!   one is taken all the same: then one mad clock of three moves nobody.
//! * **Jump.** At least `budget + 1` peers, and at least two, are *surely* ahead by more than the threshold:
//!   even if their answer was read without delay. At least one of them is honest. The jump goes to the
//!   least of these, so never beyond every honest clock.
//! * **Hold.** The same with *surely behind*, and the midpoint is behind by more than the threshold.
//!
//! With a single connected peer there is nobody else to believe, so its word alone is enough.

/// One peer's clock, read in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// How far it is ahead of the own clock; negative if it is behind.
    pub(super) ahead_ns: i64,
    /// How far the reading may be off on either side: half the round trip.
    pub(super) error_ns: i64,
}

impl Reading {
    /// Of the values that the reading allows, the one nearest to the own clock.
    fn nearest(&self) -> i64 {
        let surely = self.ahead_ns.saturating_abs().saturating_sub(self.error_ns).max(0);
        if self.ahead_ns < 0 { -surely } else { surely }
    }
}

/// What to do about the own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Correction {
    /// Change it by this much, gently.
    Slew(i64),
    /// Set it forward by this much.
    Jump(u64),
    /// Stand still until the others have made up this much.
    Hold(u64),
}

/// The outcome of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) correction: Correction,
    /// The fault-tolerant midpoint.
    pub(super) midpoint_ns: i64,
    /// The distance of the extremes that it is the middle of.
    pub(super) skew_ns: u64,
}

/// Judges a round in which `asked` peers were asked that claim, or did not deny, to know the time. `sole`
/// if no more than one peer is connected. `None` if so few answered that all of these may be liars.
pub(super) fn judge(readings: &[Reading], asked: usize, sole: bool, threshold_ns: i64) -> Option<Verdict> {
    judge_within(asked.max(readings.len()) / 3, readings, sole, threshold_ns)
}

/// The same for a given budget of liars.
pub(super) fn judge_within(
    budget: usize,
    readings: &[Reading],
    sole: bool,
    threshold_ns: i64,
) -> Option<Verdict> {
    if readings.len() <= budget {
        return None;
    }
    let peers: Vec<i64> = readings.iter().map(Reading::nearest).collect();
    let mut clocks = peers.clone();
    clocks.push(0);
    let trim = if clocks.len() == 3 { 1 } else { budget };
    let (low, high) = trimmed_extremes(&mut clocks, trim)?;
    let midpoint_ns = low.midpoint(high);
    let skew_ns = high.abs_diff(low);

    let witnesses = if sole { 1 } else { (budget + 1).max(2) };
    let ahead = nth_largest(peers.iter().copied(), witnesses);
    let behind = nth_largest(peers.iter().map(|ns| ns.saturating_neg()), witnesses);
    let correction = match (ahead, behind) {
        (Some(by), _) if by > threshold_ns => Correction::Jump(by.unsigned_abs()),
        (_, Some(by)) if by > threshold_ns && midpoint_ns < -threshold_ns => {
            Correction::Hold(midpoint_ns.unsigned_abs())
        }
        _ => Correction::Slew(midpoint_ns),
    };
    Some(Verdict { correction, midpoint_ns, skew_ns })
}

/// The fault-tolerant midpoint: drops the `faults` lowest and highest values (fewer, if nothing would
/// remain) and gives the middle of the lowest and the highest that are left. `None` of no values. Sorts them.
pub fn fault_tolerant_midpoint(values: &mut [i64], faults: usize) -> Option<i64> {
    trimmed_extremes(values, faults).map(|(low, high)| low.midpoint(high))
}

/// The lower median: between honest values if fewer than half are lies, and of two the one that is easier to
/// leave, since a clock can be set forward but not back.
pub(super) fn lower_median(values: &mut [i64]) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

fn trimmed_extremes(values: &mut [i64], faults: usize) -> Option<(i64, i64)> {
    values.sort_unstable();
    let trim = faults.min(values.len().saturating_sub(1) / 2);
    let last = values.len().checked_sub(trim + 1)?;
    Some((*values.get(trim)?, *values.get(last)?))
}

fn nth_largest(values: impl Iterator<Item = i64>, n: usize) -> Option<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(n)?).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn readings(ahead: &[i64]) -> Vec<Reading> {
        ahead.iter().map(|&ahead_ns| Reading { ahead_ns, error_ns: 5 }).collect()
    }

    fn correction(ahead: &[i64], asked: usize) -> Option<Correction> {
        judge(&readings(ahead), asked, asked == 1, 100).map(|verdict| verdict.correction)
    }

    #[test]
    fn midpoint_drops_the_extremes() {
        assert_eq!(fault_tolerant_midpoint(&mut [], 0), None);
        assert_eq!(fault_tolerant_midpoint(&mut [7], 3), Some(7));
        assert_eq!(fault_tolerant_midpoint(&mut [0, 10], 0), Some(5));
        assert_eq!(fault_tolerant_midpoint(&mut [i64::MAX, 4, i64::MIN, 0], 1), Some(2));
        assert_eq!(fault_tolerant_midpoint(&mut [i64::MAX, 4, i64::MIN, 0, 9], 2), Some(4));
        assert_eq!(lower_median(&mut [9, 1]), Some(1));
        assert_eq!(lower_median(&mut [9, 1, 1000]), Some(9));
        assert_eq!(lower_median(&mut []), None);
    }

    #[test]
    fn small_differences_are_slewed() {
        assert_eq!(correction(&[45], 1), Some(Correction::Slew(20)));
        // The own 0 is the middle of three.
        assert_eq!(correction(&[-90, 40], 2), Some(Correction::Slew(0)));
        assert_eq!(correction(&[35, 40], 2), Some(Correction::Slew(30)));
        // Four clocks, one of them mad.
        assert_eq!(correction(&[35, 40, i64::MIN], 3), Some(Correction::Slew(15)));
        // Within the error of the reading, there may be no difference, or none above the threshold.
        assert_eq!(correction(&[5, -5], 2), Some(Correction::Slew(0)));
        assert_eq!(correction(&[105, 105], 2), Some(Correction::Slew(100)));
    }

    #[test]
    fn jumps_need_witnesses() {
        assert_eq!(correction(&[1000], 1), Some(Correction::Jump(995)));
        // Two are connected, one answered: not enough.
        assert_eq!(correction(&[1005], 2), Some(Correction::Slew(500)));
        assert_eq!(correction(&[1000, 0], 2), Some(Correction::Slew(0)));
        // To the lesser of the two.
        assert_eq!(correction(&[1000, 5000], 2), Some(Correction::Jump(995)));
        // Of six, three are needed; two liars are not enough, and the third word decides how far.
        let liars = [i64::MAX, i64::MAX, 0, 0, 0, 0];
        assert_eq!(correction(&liars, 6), Some(Correction::Slew(0)));
        assert_eq!(correction(&[i64::MAX, i64::MAX, 600, 0, 0, 0], 6), Some(Correction::Jump(595)));
    }

    #[test]
    fn holds_need_witnesses() {
        assert_eq!(correction(&[-1005], 1), Some(Correction::Hold(500)));
        assert_eq!(correction(&[-1000, 0], 2), Some(Correction::Slew(0)));
        assert_eq!(correction(&[-1005, -3000], 2), Some(Correction::Hold(1000)));
        assert_eq!(correction(&[i64::MIN, i64::MIN, 0, 0, 0, 0], 6), Some(Correction::Slew(0)));
        assert_eq!(correction(&[i64::MIN; 6], 6), Some(Correction::Hold((1 << 63) - 6)));
    }

    #[test]
    fn too_few_answers_decide_nothing() {
        assert_eq!(correction(&[], 0), None);
        assert_eq!(correction(&[], 3), None);
        assert_eq!(correction(&[7], 3), None);
        assert_eq!(correction(&[7, 7], 6), None);
        assert_eq!(correction(&[12, 12, 12], 6), Some(Correction::Slew(7)));
    }

    proptest! {
        /// Welch and Lynch's lemma: with f < n/3 two-faced liars, the new spread is at most half the old one
        /// (rounding aside), and nobody leaves the old range.
        #[test]
        fn one_round_halves_the_spread_of_honest_clocks(
            faults in 0usize..6,
            spare in 1usize..4,
            seed in prop::collection::vec(-1_000_000i64..1_000_000, 40),
            lies in prop::collection::vec(prop_oneof![any::<i64>(), -2_000_000i64..2_000_000], 200),
        ) {
            let honest_count = 2 * faults + spare;
            let honest = &seed[..honest_count];
            let (min, max) = (*honest.iter().min().unwrap(), *honest.iter().max().unwrap());
            let mut lies = lies.iter().copied().cycle();
            let new: Vec<i64> = (0..honest_count)
                .map(|_| {
                    let mut seen = honest.to_vec();
                    seen.extend(lies.by_ref().take(faults));
                    fault_tolerant_midpoint(&mut seen, faults).unwrap()
                })
                .collect();
            let (new_min, new_max) = (*new.iter().min().unwrap(), *new.iter().max().unwrap());
            prop_assert!(new_min >= min && new_max <= max);
            prop_assert!(new_max - new_min <= (max - min) / 2 + 1, "{honest:?} became {new:?}");
        }

        /// Whatever as many liars as the budget say, a correction stays between honest clocks.
        #[test]
        fn liars_within_the_budget_never_win(
            honest in prop::collection::vec(-1000i64..1000, 2..12),
            lies in prop::collection::vec(any::<i64>(), 0..6),
        ) {
            let faults = lies.len().min((honest.len() - 1) / 2);
            // The first honest clock is the own one.
            let own = honest[0];
            let mut seen: Vec<i64> = honest[1..].iter().map(|c| c - own).collect();
            seen.extend(&lies[..faults]);
            let (min, max) = (honest.iter().min().unwrap() - own, honest.iter().max().unwrap() - own);
            let asked = seen.len();
            prop_assume!(faults <= asked / 3);
            match judge(&readings(&seen), asked, asked == 1, 100).unwrap().correction {
                Correction::Slew(by) => prop_assert!((min..=max).contains(&by)),
                Correction::Jump(by) => prop_assert!(i64::try_from(by).unwrap() <= max),
                Correction::Hold(by) => prop_assert!(-i64::try_from(by).unwrap() >= min),
            }
        }
    }
}
