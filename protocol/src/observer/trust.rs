//! Trust: what this node expects of another one, from what it has seen of it, 0 (nothing good) to 1.
//!
//! ```text
//! earned = (good + 2) / (good + suspicion + 4)                          0.5 for a stranger
//! trust  = max(0.2, earned) · 20 / (20 + fault)
//! score  = 20 · (trust − 0.5) above 0.5, 0 down to 0.4, 300 · (trust − 0.4) below      gossipsub's P5
//! ```
//!
//! `earned` is the expectation of a beta distribution, as in the beta reputation system (Jøsang, Ismail: "The Beta
//! Reputation System", 2002), with its forgetting: all three sums fade by half in their half-life. *Good* is messages
//! of others that it brought first, *suspicion* what honest nodes on bad days do too, and *fault* what no honest node
//! does, but what cannot be proved to others.
//!
//! Suspicion alone never takes trust below [`SUSPICION_FLOOR`]: that is out of the gossip mesh (a score below zero)
//! and above the threshold of gossip, so that whoever has no other link still gets everything. Faults go lower, to the
//! graylist, which ends the connection. Neither quarantines: that takes evidence, see [`super::quarantine`]. Trust is
//! local: it is told to nobody, so nobody can talk it down.

use std::collections::VecDeque;

use super::finding::AnomalyKind;
use super::statistics::decay;
use crate::time::Time;

/// What suspicion alone leaves of trust.
pub const SUSPICION_FLOOR: f64 = 0.2;
/// Trust in a stranger.
pub const STRANGER: f64 = 0.5;
/// Down to here a loss of trust has no effect: one late message puts nobody out of the mesh.
pub const INDIFFERENT: f64 = 0.4;
/// The weight of knowing nothing; one suspicion of weight 1 takes 0.1 off a stranger. Guess.
const PRIOR: f64 = 2.0;
/// Faults of this weight halve trust. Guess: two forged messages.
const FAULT_HALF: f64 = 20.0;
/// Most good that counts, so that nobody saves up for a crime: less than five forged messages take away. Guess.
const GOOD_MAX: f64 = 20.0;
/// Most of the other sums, so that there is an end to making up for it: an hour after a long attack half of a
/// stranger's trust is back.
const BAD_MAX: f64 = 1_000.0;
/// Changes that are remembered of one accused, the last ones.
pub const HISTORY_MAX: usize = 32;

/// How fast trust fades, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Half of what was good is forgotten after so many seconds. Default 600 (guess).
    pub good_half_life_s: u32,
    /// Half of a suspicion is. Default 60: what a bad minute did is made up for in five (guess).
    pub suspicion_half_life_s: u32,
    /// Half of a fault is. Default 600 (guess).
    pub fault_half_life_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { good_half_life_s: 600, suspicion_half_life_s: 60, fault_half_life_s: 600 }
    }
}

/// What an observation does to trust.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weight {
    /// It did something of use.
    Good(f64),
    /// Nothing.
    None,
    /// It may have done something wrong; own doubt takes from it.
    Suspicion(f64),
    /// It did something wrong.
    Fault(f64),
}

impl Weight {
    /// What one finding of this kind weighs. All are guesses, held by the tests of this module and of the parent.
    pub const fn of(kind: AnomalyKind, is_fault: bool) -> Self {
        match kind {
            AnomalyKind::BadPattern
            | AnomalyKind::BadSignature
            | AnomalyKind::Malformed
            | AnomalyKind::WrongMesh
                if is_fault =>
            {
                Weight::Fault(10.0)
            }
            // Proved: whoever is in quarantine is not connected. This is for after its end.
            AnomalyKind::Equivocation | AnomalyKind::FalseAccusation => Weight::Fault(60.0),
            AnomalyKind::ResultMismatch | AnomalyKind::StepDrift | AnomalyKind::Flood => {
                Weight::Suspicion(2.0)
            }
            // Nothing in two windows, in the second of them while it had to get it from others.
            AnomalyKind::NeverForwards => Weight::Suspicion(8.0),
            AnomalyKind::Replay | AnomalyKind::StaleStep | AnomalyKind::FutureStep => Weight::Suspicion(1.0),
            AnomalyKind::Latency => Weight::Suspicion(0.5),
            // Who is silent has nothing to say, or cannot: membership finds out.
            AnomalyKind::Silence
            | AnomalyKind::DuplicateIdentity
            | AnomalyKind::BadPattern
            | AnomalyKind::BadSignature
            | AnomalyKind::Malformed
            | AnomalyKind::WrongMesh => Weight::None,
        }
    }
}

/// Trust in one other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trust {
    good: f64,
    suspicion: f64,
    fault: f64,
    /// The second up to which the sums have faded.
    faded_to_s: u64,
}

impl Trust {
    /// Takes an observation; `doubt` is this node's in itself.
    pub fn add(&mut self, now: Time, weight: Weight, doubt: f64, config: &Config) {
        *self = self.at(now, config);
        match weight {
            Weight::Good(by) => self.good = (self.good + by).min(GOOD_MAX),
            Weight::None => {}
            Weight::Suspicion(by) => {
                self.suspicion = (self.suspicion + by * (1.0 - doubt.clamp(0.0, 1.0))).min(BAD_MAX);
            }
            Weight::Fault(by) => self.fault = (self.fault + by).min(BAD_MAX),
        }
    }

    /// The trust at `now`.
    pub fn value(&self, now: Time, config: &Config) -> f64 {
        let Trust { good, suspicion, fault, .. } = self.at(now, config);
        let earned = (good + PRIOR) / (good + suspicion + 2.0 * PRIOR);
        earned.max(SUSPICION_FLOOR) * FAULT_HALF / (FAULT_HALF + fault)
    }

    /// The three sums at `now`: good, suspicion, fault.
    pub fn sums(&self, now: Time, config: &Config) -> [f64; 3] {
        let Trust { good, suspicion, fault, .. } = self.at(now, config);
        [good, suspicion, fault]
    }

    /// In how many seconds it will be at least `wanted`, if nothing else happens; `None` if not within a day.
    pub fn seconds_until(&self, now: Time, wanted: f64, config: &Config) -> Option<u64> {
        let later = |s: u64| self.value(now + std::time::Duration::from_secs(s), config);
        (0..=86_400 / 5).map(|n| n * 5).find(|s| later(*s) >= wanted)
    }

    fn at(&self, now: Time, config: &Config) -> Self {
        let now_s = now.as_millis() / 1000;
        let passed = now_s.saturating_sub(self.faded_to_s);
        if passed == 0 {
            return *self;
        }
        Trust {
            good: self.good * decay(passed, config.good_half_life_s),
            suspicion: self.suspicion * decay(passed, config.suspicion_half_life_s),
            fault: self.fault * decay(passed, config.fault_half_life_s),
            faded_to_s: now_s,
        }
    }
}

/// What gossipsub is told of a peer that is trusted so much.
pub fn app_score(trust: f64) -> f64 {
    if trust >= STRANGER { 20.0 * (trust - STRANGER) } else { 300.0 * (trust - INDIFFERENT).min(0.0) }
}

/// A change of trust.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: Time,
    /// To what.
    pub trust: f64,
    /// By what; `None`: by good conduct or time.
    pub cause: Option<AnomalyKind>,
}

/// The last changes, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Change>);

impl History {
    /// Remembers a change. Several of one cause within ten seconds are one, or a burst would push out the rest.
    pub fn push(&mut self, change: Change) {
        if let Some(last) = self.0.back_mut()
            && last.cause == change.cause
            && change.at.since(last.at).as_secs() < 10
        {
            last.trust = change.trust;
            return;
        }
        if self.0.len() >= HISTORY_MAX {
            self.0.pop_front();
        }
        self.0.push_back(change);
    }

    /// The changes.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.0.iter()
    }

    /// Bytes of the table behind it.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Change>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::ScoreConfig;
    use proptest::prelude::*;

    const CONFIG: Config =
        Config { good_half_life_s: 600, suspicion_half_life_s: 60, fault_half_life_s: 600 };
    const GRAYLIST: f64 = -80.0;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn a_forged_message_weighs_and_ten_are_the_graylist() {
        let mut trust = Trust::default();
        assert_eq!(trust.value(at(5), &CONFIG), STRANGER);
        let weight = Weight::of(AnomalyKind::BadSignature, true);
        let scores: Vec<f64> = (0..10)
            .map(|_| {
                trust.add(at(5), weight, 1.0, &CONFIG);
                app_score(trust.value(at(5), &CONFIG))
            })
            .collect();
        assert!(scores[0] < 0.0 && scores[0] > GRAYLIST, "{scores:?}");
        assert!(scores[9] < GRAYLIST, "{scores:?}");
        assert!(trust.value(at(7_200), &CONFIG) > 0.4, "and is forgotten in the end");
    }

    #[test]
    fn what_takes_trust_away_is_said_with_the_time_that_gives_it_back() {
        let mut trust = Trust::default();
        trust.add(at(10), Weight::Suspicion(6.0), 0.0, &CONFIG);
        let seconds = trust.seconds_until(at(10), 0.4, &CONFIG).unwrap();
        assert!(trust.value(at(10 + seconds), &CONFIG) >= 0.4);
        assert!(trust.value(at(10 + seconds - 6), &CONFIG) < 0.4);
        assert_eq!(trust.seconds_until(at(10), 0.6, &CONFIG), None, "time alone makes nobody a friend");
    }

    #[test]
    fn history_is_bounded_and_joins_bursts() {
        let mut history = History::default();
        for s in 0..1_000 {
            let change = Change { at: at(s * 11), trust: 0.5, cause: Some(AnomalyKind::Replay) };
            history.push(change);
            history.push(Change { at: at(s * 11 + 1), ..change });
        }
        assert_eq!(history.iter().count(), HISTORY_MAX);
        assert!(history.bytes() < 2 * HISTORY_MAX * size_of::<Change>());
    }

    proptest! {
        #[test]
        fn suspicion_alone_takes_neither_gossip_nor_the_connection(
            notes in proptest::collection::vec((0_u64..30, 0.0_f64..50.0), 1..200)
        ) {
            let mut trust = Trust::default();
            let mut now = 0;
            for (wait, weight) in notes {
                now += wait;
                trust.add(at(now), Weight::Suspicion(weight), 0.0, &CONFIG);
                let value = trust.value(at(now), &CONFIG);
                prop_assert!((SUSPICION_FLOOR..=1.0).contains(&value));
                prop_assert!(app_score(value) > ScoreConfig::default().gossip_threshold);
            }
            prop_assert!(trust.value(at(now + 600), &CONFIG) > 0.45);
        }

        #[test]
        fn trust_stays_between_zero_and_one_and_comes_back(
            notes in proptest::collection::vec((0_u64..100, 0_u8..3, -1.0_f64..2.0), 1..200)
        ) {
            let mut trust = Trust::default();
            let mut now = 0;
            for (wait, kind, doubt) in notes {
                now += wait;
                let weight = [Weight::Good(1.0), Weight::Suspicion(3.0), Weight::Fault(10.0)][usize::from(kind)];
                trust.add(at(now), weight, doubt, &CONFIG);
                prop_assert!((0.0..=1.0).contains(&trust.value(at(now), &CONFIG)));
            }
            prop_assert!(trust.value(at(now + 86_400), &CONFIG) > 0.49);
        }

        #[test]
        fn one_that_never_forwards_cannot_keep_a_good_score(saved in 0.0_f64..1e6, every in 5_u64..11) {
            // Whatever it has earned before, a minute after it has stopped its score is below zero, which is out of
            // the mesh; time in the mesh adds at most 6.
            let mut trust = Trust::default();
            trust.add(at(0), Weight::Good(saved), 0.0, &CONFIG);
            for round in 0..(60 / every) {
                let weight = Weight::of(AnomalyKind::NeverForwards, false);
                trust.add(at(round * every), weight, 0.0, &CONFIG);
            }
            let score = app_score(trust.value(at(60), &CONFIG));
            prop_assert!(saved > 4.0 || score < -6.0, "{score}");
            prop_assert!(score < 3.0, "{score}");
        }
    }
}
