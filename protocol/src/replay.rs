//! The replay window: an author's sequence number is accepted once.
//!
//! For each author a sliding window of the last `window` sequence numbers says which were used. A
//! window is needed only while its author's messages still lie in the step window: older ones are stale
//! anyway. So authors are forgotten least recently used first, and when one is forgotten early (there are
//! more than `authors_max`), or the node restarts without its windows, the *floor* rises to the last step
//! that might be missing: messages at or below the floor are refused, of an author whose window began
//! after that, because nobody can tell whether they are new. No message is ever accepted twice; the price of forgetting is a refusal.
//!
//! ```text
//!            top-window        top
//!   ─────────────┤■■■□■■■■□□■■■■├──────────►  seq
//!     refused         by bit        accepted, top moves
//! ```
//!
//! Reading (`is_new`) and writing (`commit`) are apart: the gate looks early, and writes only after the
//! signature was good; otherwise anybody could use up another's numbers.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::id::{NodeId, Seq, Step};
use crate::refusal::Refusal;

/// Smallest window: one machine word.
pub const WINDOW_MIN: u64 = 64;

/// Bounds of the replay windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sequence numbers remembered for each author, rounded up to 64. Too low: messages that overtake each
    /// other by more are refused; too high: an author costs `window / 8` bytes.
    pub window: u64,
    /// Authors remembered. Too low: with more active authors, late messages are refused as not provably
    /// new; too high: memory.
    pub authors_max: NonZeroUsize,
}

/// What is known about one author.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// The highest number used.
    top: u64,
    /// Bit `seq % bits` tells whether `seq` was used, for the last `bits` numbers up to `top`.
    used: Box<[u64]>,
    /// The highest step of a message of this author.
    last_step: Step,
    /// The floor when this window began: what it does not know of this author.
    floor: Option<Step>,
}

/// All authors' windows.
#[derive(Debug)]
pub struct ReplayWindows {
    words: usize,
    authors: LruCache<NodeId, Window>,
    floor: Option<Step>,
}

impl ReplayWindows {
    /// No author known. `floor` is the last step of which an earlier run of this node may have accepted
    /// messages that these windows do not know; `None` for a node that never ran.
    pub fn new(config: &Config, floor: Option<Step>) -> Self {
        let mut authors = LruCache::unbounded();
        authors.resize(config.authors_max);
        let words = usize::try_from(config.window.max(WINDOW_MIN).div_ceil(64)).unwrap_or(usize::MAX);
        ReplayWindows { words, authors, floor }
    }

    /// The last step at or below which messages of unknown authors are refused.
    pub fn floor(&self) -> Option<Step> {
        self.floor
    }

    /// How many authors are known.
    pub fn authors(&self) -> usize {
        self.authors.len()
    }

    /// Looks whether all of `seq .. seq + count` of `author` are new.
    ///
    /// # Errors
    /// [`Refusal::Replay`], or [`Refusal::NotProvablyNew`] at or below the floor under which the author's window began.
    pub fn is_new(&self, author: &NodeId, seq: Seq, count: u64, step: Step) -> Result<(), Refusal> {
        match self.authors.peek(author) {
            None if is_at_or_below(step, self.floor) => Err(Refusal::NotProvablyNew),
            None => Ok(()),
            Some(window) if is_at_or_below(step, window.floor) => Err(Refusal::NotProvablyNew),
            Some(window) => window.is_new(seq.0, count),
        }
    }

    /// Looks once more and, if all are new, marks them as used. `stale_before` is the first step that is
    /// not yet stale: authors whose last message is older are forgotten at no cost.
    ///
    /// # Errors
    /// As [`Self::is_new`]; then nothing has changed.
    pub fn commit(
        &mut self,
        author: &NodeId,
        seq: Seq,
        count: u64,
        step: Step,
        stale_before: Step,
    ) -> Result<(), Refusal> {
        self.is_new(author, seq, count, step)?;
        if !self.authors.contains(author) {
            self.make_room(stale_before);
        }
        let (words, floor) = (self.words, self.floor);
        let window = self.authors.get_or_insert_mut(*author, || Window {
            top: 0,
            used: vec![0; words].into_boxed_slice(),
            last_step: Step(0),
            floor,
        });
        window.mark(seq.0, count);
        window.last_step = window.last_step.max(step);
        Ok(())
    }

    /// Forgets the authors that are of no use any more, and one that is if there is no room.
    fn make_room(&mut self, stale_before: Step) {
        while let Some((_, oldest)) = self.authors.peek_lru() {
            let stale = oldest.last_step < stale_before;
            let full = self.authors.len() >= self.authors.cap().get();
            if !stale && !full {
                break;
            }
            if !stale {
                self.floor = self.floor.max(Some(oldest.last_step));
            }
            self.authors.pop_lru();
        }
    }
}

fn is_at_or_below(step: Step, floor: Option<Step>) -> bool {
    floor.is_some_and(|floor| step <= floor)
}

impl Window {
    fn bits(&self) -> u64 {
        self.used.len() as u64 * 64
    }

    fn is_new(&self, seq: u64, count: u64) -> Result<(), Refusal> {
        let last = seq.saturating_add(count.saturating_sub(1));
        let oldest = self.top.saturating_sub(self.bits() - 1).max(1);
        if seq < oldest {
            return Err(Refusal::Replay);
        }
        // What lies above `top` was never used.
        let used = (seq..=last.min(self.top)).any(|seq| self.is_used(seq));
        if used { Err(Refusal::Replay) } else { Ok(()) }
    }

    fn is_used(&self, seq: u64) -> bool {
        let (word, bit) = self.place(seq);
        self.used[word] & bit != 0
    }

    fn mark(&mut self, seq: u64, count: u64) {
        let last = seq.saturating_add(count.saturating_sub(1));
        if last > self.top {
            // The numbers between the old top and the new one take over the places of the oldest.
            let fresh = self.top + 1;
            if last - self.top >= self.bits() {
                self.used.fill(0);
            } else {
                for seq in fresh..=last {
                    let (word, bit) = self.place(seq);
                    self.used[word] &= !bit;
                }
            }
            self.top = last;
        }
        // A bundle longer than the window marks what the window holds.
        for seq in seq.max(self.top.saturating_sub(self.bits() - 1))..=last {
            let (word, bit) = self.place(seq);
            self.used[word] |= bit;
        }
    }

    fn place(&self, seq: u64) -> (usize, u64) {
        let at = seq % self.bits();
        let word = usize::try_from(at / 64).expect("a window has fewer words than usize counts");
        (word, 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn windows(window: u64, authors_max: usize, floor: Option<Step>) -> ReplayWindows {
        ReplayWindows::new(&Config { window, authors_max: authors_max.try_into().unwrap() }, floor)
    }

    fn author(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn a_number_is_accepted_once_in_any_order() {
        let mut windows = windows(64, 4, None);
        for seq in [5, 3, 4, 10, 9] {
            windows.commit(&author(1), Seq(seq), 1, Step(1), Step(0)).unwrap();
            assert_eq!(windows.commit(&author(1), Seq(seq), 1, Step(1), Step(0)), Err(Refusal::Replay));
        }
        windows.commit(&author(2), Seq(5), 1, Step(1), Step(0)).unwrap();
    }

    #[test]
    fn below_the_window_everything_is_a_replay() {
        let mut windows = windows(64, 4, None);
        windows.commit(&author(1), Seq(100), 1, Step(1), Step(0)).unwrap();
        assert_eq!(windows.is_new(&author(1), Seq(36), 1, Step(1)), Err(Refusal::Replay));
        windows.is_new(&author(1), Seq(37), 1, Step(1)).unwrap();
    }

    #[test]
    fn a_bundle_is_new_as_a_whole() {
        let mut windows = windows(64, 4, None);
        windows.commit(&author(1), Seq(10), 5, Step(1), Step(0)).unwrap();
        assert_eq!(windows.commit(&author(1), Seq(14), 3, Step(1), Step(0)), Err(Refusal::Replay));
        windows.commit(&author(1), Seq(15), 200, Step(1), Step(0)).unwrap();
        assert_eq!(windows.is_new(&author(1), Seq(214), 1, Step(1)), Err(Refusal::Replay));
        windows.commit(&author(1), Seq(u64::MAX - 1), 1, Step(1), Step(0)).unwrap();
    }

    #[test]
    fn after_a_restart_what_may_be_old_is_refused() {
        let mut windows = windows(64, 4, Some(Step(100)));
        assert_eq!(windows.commit(&author(1), Seq(1), 1, Step(100), Step(95)), Err(Refusal::NotProvablyNew));
        windows.commit(&author(1), Seq(1), 1, Step(101), Step(95)).unwrap();
        // Known again, but what came before its new window is not.
        assert_eq!(windows.commit(&author(1), Seq(2), 1, Step(100), Step(95)), Err(Refusal::NotProvablyNew));
    }

    #[test]
    fn a_forgotten_author_raises_the_floor_unless_its_messages_are_stale() {
        let mut windows = windows(64, 2, None);
        windows.commit(&author(1), Seq(1), 1, Step(10), Step(0)).unwrap();
        windows.commit(&author(2), Seq(1), 1, Step(20), Step(0)).unwrap();
        windows.commit(&author(3), Seq(1), 1, Step(20), Step(15)).unwrap();
        assert_eq!(windows.floor(), None, "author 1 was stale");
        windows.commit(&author(4), Seq(1), 1, Step(21), Step(15)).unwrap();
        assert_eq!(windows.floor(), Some(Step(20)), "author 2 was not");
        assert_eq!(windows.is_new(&author(2), Seq(1), 1, Step(20)), Err(Refusal::NotProvablyNew));
        assert_eq!(windows.authors(), 2);
    }

    proptest! {
        /// Against a model that remembers everything: no message twice (a number in the same step), and
        /// nothing new is called a replay.
        #[test]
        fn never_twice(messages in proptest::collection::vec((0_u8..6, 1_u64..400, 1_u64..20, 0_u64..30), 1..300)) {
            let mut windows = windows(128, 3, None);
            let mut used = BTreeSet::new();
            let mut tops = [0_u64; 6];
            let mut now = 0;
            for (who, seq, count, step) in messages {
                now = now.max(step);
                let stale_before = now.saturating_sub(8);
                if step < stale_before {
                    continue;
                }
                let accepted = windows.commit(&author(who), Seq(seq), count, Step(step), Step(stale_before));
                let numbers = (seq..seq + count).map(|seq| (who, seq));
                match accepted {
                    Ok(()) => {
                        for number in numbers {
                            prop_assert!(used.insert((number, step)), "accepted twice: {number:?}");
                        }
                        tops[usize::from(who)] = tops[usize::from(who)].max(seq + count - 1);
                    }
                    Err(Refusal::Replay) => {
                        let fresh = !used.iter().any(|(used, _)| numbers.clone().any(|number| number == *used));
                        prop_assert!(!fresh || seq + 128 <= tops[usize::from(who)], "{who} {seq} was new");
                    }
                    Err(_) => {}
                }
                prop_assert!(windows.authors() <= 3);
            }
        }
    }
}
