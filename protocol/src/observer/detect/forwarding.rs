//! Never forwarding: a mesh neighbour that brings nothing of what the others bring.
//!
//! In a window, or the rest of it since it came, for each neighbour: the messages of others that it brought, whether first
//! or as one more copy, or told of by a lazy link, against all that came in topics while it was in their mesh, and that it
//! did not write. It is told if that share is below 2 %, and below a twentieth of the median of those that bring 10 % and
//! more. Of those alone: with the median of all, nobody would be told where half of a mesh withholds. What it wrote
//! itself, what was refused and what it sent again does not count.
//!
//! An honest neighbour may look the same: one that is near gets everything from this node first, and so has nothing to
//! bring. So who brings nothing is put on trial before anything is held against it: for the next window it is sent nothing that
//! others wrote, but told of it with the next heartbeat, so that it loses nothing. What it then gets from others it brings. Who
//! brings nothing on trial either withholds, and stays on trial.
//!
//! A neighbour that is far away brings nothing in time even then: what it has, this node has long had and forgotten. If its answers to
//! the step protocol take twice as long as those of the median neighbour, or do not come although those of most do, that
//! is told as latency, of less weight ([`is_far`]). One answer says little: busy processors have a part in it. So of the last
//! eight the quickest counts, as in the clock filter of NTP (RFC 5905, section 10). Anybody can answer late, so being far is
//! an excuse for few: if more than a quarter of the neighbours are far and bring nothing, it is none for any of them
//! ([`are_excused`]). Whoever hides behind it has at most that part of a mesh, which cuts nobody off; an honest node that is
//! far among many that lie loses its place in the mesh for some minutes, and still gets everything by gossip.
//!
//! A neighbour whose only link is this node has nothing to bring and looks the same: that is a suspicion, which takes it
//! out of the mesh, where it still gets everything by gossip. So there must be three neighbours that bring something.

use std::time::Duration;

use super::super::statistics::lower_median;
use crate::time::Time;

/// How long a window is at least. Two of them, the second on trial, and one that was under way are over well within a minute;
/// guess.
pub const WINDOW: Duration = Duration::from_secs(10);
/// How long a trial is that is not renewed: a window may be longer if little comes, but a part of it is enough.
pub const TRIAL: Duration = Duration::from_secs(20);
/// Messages in a window at least: of fewer, honest ones may have brought none.
pub const MESSAGES_MIN: u64 = 40;
/// After so long the window begins anew, whatever came.
const WINDOW_MAX: Duration = Duration::from_secs(600);
/// Neighbours that bring something, to compare the others with.
const NEIGHBOURS_MIN: usize = 3;
/// The share in thousandths below which one is looked at.
const LITTLE: u64 = 20;
/// The share in thousandths of one that brings something.
const BRINGS_MIN: i64 = 100;

/// What is counted of a neighbour, always growing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies and words of messages.
    pub brought: u64,
    /// Of these, refused ones and those that it wrote itself.
    pub void: u64,
    /// Messages that came in topics while it was in their mesh.
    pub expected: u64,
    /// Messages that it wrote, whoever brought them.
    pub wrote: u64,
}

/// A neighbour's part of the window, or of the rest of it since it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// The counts when it began.
    begun: Counts,
}

impl Share {
    /// Begins a window.
    pub fn begin(&mut self, counts: Counts) {
        self.begun = counts;
    }

    /// What it brought, and what there was of others.
    pub fn end(&self, counts: Counts) -> (u64, u64) {
        let since = |field: fn(&Counts) -> u64| field(&counts).saturating_sub(field(&self.begun));
        let brought = since(|c| c.brought).saturating_sub(since(|c| c.void));
        (brought, since(|c| c.expected).saturating_sub(since(|c| c.wrote)))
    }
}

/// The window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    since: Time,
    heard: u64,
}

/// Whether the window is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No.
    Open,
    /// Enough messages came: compare.
    Over,
    /// Too little came for too long.
    Stale,
}

impl Window {
    /// A message came.
    pub fn on_message(&mut self) {
        self.heard = self.heard.saturating_add(1);
    }

    /// Where it stands.
    pub fn phase(&self, now: Time) -> Phase {
        match now.since(self.since) {
            passed if passed >= WINDOW && self.heard >= MESSAGES_MIN => Phase::Over,
            passed if passed >= WINDOW_MAX => Phase::Stale,
            _ => Phase::Open,
        }
    }

    /// Begins anew.
    pub fn begin(&mut self, now: Time) {
        *self = Window { since: now, heard: 0 };
    }
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too little came to tell.
    Unknown,
    /// It brings its part.
    Useful,
    /// Not much, but not nothing.
    Poor,
    /// It brought so much of so much; the median in percent.
    Withholds {
        /// What it brought.
        brought: u64,
        /// What there was.
        of: u64,
        /// What the median neighbour brought, in percent.
        others_percent: u64,
    },
}

/// A neighbour that takes so many times as long as the median one is far away.
const FAR_TIMES: u64 = 2;
/// One in so many neighbours may be far.
const FAR_PART: usize = 4;
/// Answers that are quicker than this are alike: a timer and two processors have the larger part in them. Guess.
const NEAR_NS: u64 = 2_000_000;
/// How old an answer may be that says how far a neighbour is.
const ANSWER_FRESH: Duration = Duration::from_secs(60);
/// Answers of which the quickest counts.
const ANSWERS: usize = 8;

/// How long the last answers of a neighbour took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    last: [Option<(Time, u64)>; ANSWERS],
    next: usize,
}

impl Answers {
    /// One took so long, in nanoseconds.
    pub fn add(&mut self, now: Time, ns: u64) {
        if let Some(place) = self.last.get_mut(self.next) {
            *place = Some((now, ns));
        }
        self.next = (self.next + 1) % ANSWERS;
    }

    /// The quickest of late, in nanoseconds; `None` if there was none.
    pub fn quickest(&self, now: Time) -> Option<u64> {
        let fresh = self.last.iter().flatten().filter(|(at, _)| now.since(*at) <= ANSWER_FRESH);
        fresh.map(|(_, ns)| *ns).min()
    }
}

/// How long the answers of the median neighbour take, if most have answered lately; in nanoseconds.
pub fn median_answer(answers: &[Option<u64>]) -> Option<u64> {
    let mut known: Vec<i64> =
        answers.iter().flatten().map(|ns| i64::try_from(*ns).unwrap_or(i64::MAX)).collect();
    if known.len() < NEIGHBOURS_MIN || known.len() * 2 <= answers.len() {
        return None;
    }
    lower_median(&mut known).and_then(|median| u64::try_from(median).ok())
}

/// Whether a neighbour whose answers take so long is too far away to be the first with anything.
pub fn is_far(answer_ns: Option<u64>, median_ns: u64) -> bool {
    answer_ns.is_none_or(|ns| ns > median_ns.max(NEAR_NS).saturating_mul(FAR_TIMES))
}

/// Whether so many that are far and bring nothing, of so many that were compared, are few enough to be taken for what they
/// say: one is, and more are up to a quarter.
pub fn are_excused(far: usize, compared: usize) -> bool {
    far <= (compared / FAR_PART).max(1)
}

/// Compares neighbours: what each brought, of how much. As many verdicts; none if there is too little to compare.
pub fn compare(shares: &[(u64, u64)]) -> Vec<Verdict> {
    let per_mille = |(brought, of): &(u64, u64)| {
        // More was told of than came: all of it and more.
        i64::try_from(brought.saturating_mul(1000).checked_div(*of).unwrap_or(0).min(1_000_000)).unwrap_or(0)
    };
    let tells = |share: &&(u64, u64)| share.1 >= MESSAGES_MIN / 2;
    // Not of all: where most withhold, they are not to set the measure.
    let brings = |per_mille: &i64| *per_mille >= BRINGS_MIN;
    let mut bring: Vec<i64> = shares.iter().filter(tells).map(per_mille).filter(brings).collect();
    if bring.len() < NEIGHBOURS_MIN {
        return Vec::new();
    }
    let median = lower_median(&mut bring).unwrap_or(0);
    let verdict = |share: &(u64, u64)| {
        let (brought, of) = *share;
        let part = per_mille(share);
        if !tells(&share) {
            Verdict::Unknown
        } else if part * 2 >= median {
            Verdict::Useful
        } else if part < i64::try_from(LITTLE).unwrap_or(0) && part * 20 < median {
            let others_percent = u64::try_from(median / 10).unwrap_or(0);
            Verdict::Withholds { brought, of, others_percent }
        } else {
            Verdict::Poor
        }
    };
    shares.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_brings_nothing_is_told() {
        let verdicts = compare(&[(500, 1000), (300, 1000), (5, 1000), (80, 1000), (700, 1000)]);
        let withholds = Verdict::Withholds { brought: 5, of: 1000, others_percent: 50 };
        assert_eq!(verdicts, [Verdict::Useful, Verdict::Useful, withholds, Verdict::Poor, Verdict::Useful]);
        assert_eq!(compare(&[(0, 100), (90, 100), (90, 100)]), [], "two are too few");
        assert_eq!(
            compare(&[(0, 100), (1, 100), (2, 100), (90, 100)]),
            [],
            "where nobody brings, nobody withholds"
        );
        let mesh = [(0, 60), (35, 60), (0, 60), (55, 60), (0, 60), (0, 60), (0, 60), (60, 60)];
        let told = compare(&mesh).iter().filter(|v| matches!(v, Verdict::Withholds { .. })).count();
        assert_eq!(told, 5, "those who withhold do not set the measure, though they are most");
        assert_eq!(
            compare(&[(1, 10), (0, 0), (u64::MAX, 100), (100, 100), (90, 100)])[..2],
            [Verdict::Unknown; 2]
        );
    }

    #[test]
    fn who_answers_late_or_not_at_all_is_far() {
        let ms = |ms: u64| Some(ms * 1_000_000);
        let median = median_answer(&[ms(40), ms(50), ms(60), ms(700), None]).unwrap();
        assert_eq!(median, 50_000_000);
        assert_eq!(
            [ms(60), ms(100), ms(101), None].map(|answer| is_far(answer, median)),
            [false, false, true, true]
        );
        assert_eq!(
            median_answer(&[ms(40), ms(50), ms(60), None, None, None]),
            None,
            "where few answer, nobody is far"
        );
        assert_eq!(median_answer(&[ms(40), ms(50)]), None);
        assert!(!is_far(ms(4), 10_000) && is_far(ms(5), 10_000), "what is near is alike");
    }

    #[test]
    fn one_late_answer_takes_nobody_away() {
        let at = |s: u64| Time::from_millis(s * 1_000);
        let mut answers = Answers::default();
        assert_eq!(answers.quickest(at(1)), None);
        for (s, ns) in [(1, 900), (2, 500), (3, 80_000), (4, 70_000)] {
            answers.add(at(s), ns);
        }
        assert_eq!(answers.quickest(at(5)), Some(500));
        (5..12).for_each(|s| answers.add(at(s), 60_000));
        assert_eq!(answers.quickest(at(12)), Some(60_000), "what was long ago says nothing");
        assert_eq!(
            answers.quickest(at(72)),
            None,
            "nor do answers of a neighbour that has stopped answering"
        );
    }

    #[test]
    fn few_may_be_far() {
        assert_eq!([1, 2].map(|far| are_excused(far, 7)), [true, false]);
        assert_eq!([2, 3].map(|far| are_excused(far, 8)), [true, false]);
        assert!(are_excused(1, 3) && are_excused(0, 0));
    }

    #[test]
    fn own_words_and_junk_are_no_forwarding() {
        let (mut share, mut window) = (Share::default(), Window::default());
        let begun = Time::from_millis(1_000);
        window.begin(begun);
        share.begin(Counts { brought: 10, void: 5, expected: 100, wrote: 5 });
        (0..100).for_each(|_| window.on_message());
        assert_eq!(window.phase(begun + (WINDOW - Duration::from_millis(1))), Phase::Open);
        assert_eq!(window.phase(begun + WINDOW), Phase::Over);
        let counts = Counts { brought: 60, void: 45, expected: 200, wrote: 35 };
        assert_eq!(share.end(counts), (10, 70));
        assert_eq!(Share::default().end(counts), (15, 165), "who came later is counted from then on");
        window.begin(begun);
        assert_eq!(window.phase(Time::from_millis(601_000)), Phase::Stale);
    }
}
