//! Which task is to get a worker next.
//!
//! Tasks that others wait for longest come first: by the families that follow one after the other behind theirs. Among
//! those, where results are compared:
//!
//! ```text
//!   1  those that turned out to be long, the longest first, and what cannot wait: checks, ties, copies of stragglers
//!   2  those that nobody has done or is at
//!   3  the other workers for those that turned out to be short, the longest first
//! ```
//!
//! How long a task takes is known only when somebody has done it, or has been at it for a while; but then it has to be done by
//! others as well. To keep the short ones back until the end fills the gaps there: the longest first, as far as can be known (Graham,
//! *Bounds on multiprocessing timing anomalies*, 1969). That the long half is done at once keeps little of the work from the log: what is
//! not decided is lost with its driver.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::compute::id::TaskRef;

/// How soon a task is to get a worker: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Families that follow on its own.
    pub(super) height: Reverse<u16>,
    pub(super) class: Class,
    /// How long it takes at least, in nanoseconds.
    pub(super) takes: Reverse<u64>,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Long,
    New,
    Short,
}

/// A task in its place.
pub(super) type Place = (Rank, TaskRef);

/// Tasks that want a worker.
#[derive(Debug, Default)]
pub(super) struct Wants {
    ranks: BTreeMap<TaskRef, Rank>,
    queue: BTreeSet<Place>,
    /// Where the search for one that can be placed goes on, if those at the front cannot.
    cursor: Option<Place>,
}

impl Wants {
    /// Puts a task in, or elsewhere.
    pub(super) fn insert(&mut self, task: TaskRef, rank: Rank) {
        match self.ranks.insert(task, rank) {
            Some(old) if old == rank => return,
            Some(old) => drop(self.queue.remove(&(old, task))),
            None => {}
        }
        self.queue.insert((rank, task));
    }

    pub(super) fn remove(&mut self, task: TaskRef) {
        if let Some(rank) = self.ranks.remove(&task) {
            self.queue.remove(&(rank, task));
        }
    }

    pub(super) fn class(&self, task: TaskRef) -> Option<Class> {
        self.ranks.get(&task).map(|rank| rank.class)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// From where the search goes on.
    pub(super) fn next(&self) -> impl Iterator<Item = Place> {
        let cursor = self.cursor;
        let (front, behind) = match &cursor {
            Some(cursor) => (self.queue.range(..*cursor), self.queue.range(*cursor..)),
            None => (self.queue.range(..), self.queue.range(..)),
        };
        // Without a cursor all of them are in front.
        let behind = behind.take(if cursor.is_some() { usize::MAX } else { 0 });
        behind.chain(front).copied()
    }

    /// All up to here could not be placed: others are tried first. `None`: from the front again.
    pub(super) fn go_on(&mut self, last: Option<Place>) {
        self.cursor = last.and_then(|last| {
            use std::ops::Bound::{Excluded, Unbounded};
            self.queue.range((Excluded(last), Unbounded)).next().copied()
        });
    }

    /// For tests.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.ranks.len(), self.queue.len(), "each task is in the queue once");
        assert!(self.queue.iter().all(|(rank, task)| self.ranks.get(task) == Some(rank)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn rank(height: u16, class: Class, takes: u64) -> Rank {
        Rank { height: Reverse(height), class, takes: Reverse(takes) }
    }

    fn order(wants: &Wants) -> Vec<u32> {
        wants.next().map(|(_, task)| task.chunk).collect()
    }

    #[test]
    fn the_highest_come_first_then_the_long_the_new_and_the_short() {
        let mut wants = Wants::default();
        let ranks = [
            rank(1, Class::Short, 5),
            rank(1, Class::New, 0),
            rank(1, Class::Long, 20),
            rank(1, Class::Long, 30),
            rank(1, Class::Short, 7),
            rank(1, Class::New, 0),
            rank(0, Class::Long, 99),
            rank(2, Class::Short, 1),
        ];
        for (chunk, rank) in (0..).zip(ranks) {
            wants.insert(TaskRef::new(0, chunk), rank);
        }
        assert_eq!(order(&wants), [7, 3, 2, 1, 5, 4, 0, 6]);
        wants.insert(TaskRef::new(0, 0), rank(1, Class::Long, 25));
        wants.remove(TaskRef::new(0, 7));
        wants.remove(TaskRef::new(0, 7));
        assert_eq!(order(&wants), [3, 0, 2, 1, 5, 4, 6]);
        assert_eq!((wants.len(), wants.class(TaskRef::new(0, 0))), (7, Some(Class::Long)));
        wants.check_invariants();
    }

    #[test]
    fn the_search_goes_on_behind_those_that_could_not_be_placed() {
        let mut wants = Wants::default();
        assert_eq!(order(&wants), [0; 0]);
        (0..5).for_each(|chunk| wants.insert(TaskRef::new(0, chunk), rank(0, Class::New, 0)));
        let third = wants.next().nth(2);
        wants.go_on(third);
        assert_eq!(order(&wants), [3, 4, 0, 1, 2]);
        let last = wants.next().nth(1);
        wants.remove(TaskRef::new(0, 4));
        wants.go_on(last);
        assert_eq!(order(&wants), [0, 1, 2, 3], "behind the last one it begins anew");
        wants.go_on(None);
        assert_eq!(order(&wants), [0, 1, 2, 3]);
    }
}
