//! The version vector of an entry or link: whose writes it contains, up to which.

use smallvec::SmallVec;

use crate::id::{NodeId, Seq, Step};
use crate::projection::Stamp;

/// Most authors in one version vector. Beyond it those that wrote longest ago are left out. Default: guess; fewer make
/// a cut of a log drop and replay more than it touched, more cost 56 bytes each.
pub const VERSIONS_MAX: usize = 32;

/// Whose writes an entry or link contains: the last of each author, also of those that lost against a higher one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Sorted by author; most often there is one.
    pub(super) last: SmallVec<[(NodeId, Step, Seq); 1]>,
    pub(super) is_cut_short: bool,
}

impl Versions {
    /// The authors and the last sequence number of each, by author.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Seq)> + '_ {
        self.last.iter().map(|(author, _, seq)| (*author, *seq))
    }

    /// The last sequence number of this author that it contains.
    pub fn get(&self, author: &NodeId) -> Option<Seq> {
        self.place(author).ok().map(|place| self.last[place].2)
    }

    /// False if more than [`VERSIONS_MAX`] authors have written, so that some are left out.
    pub fn is_complete(&self) -> bool {
        !self.is_cut_short
    }

    /// True if it may contain a write of the author with this number or a later one.
    pub(super) fn may_contain(&self, author: &NodeId, from: Seq) -> bool {
        self.get(author).map_or(self.is_cut_short, |last| last >= from)
    }

    fn place(&self, author: &NodeId) -> Result<usize, usize> {
        self.last.binary_search_by(|(known, ..)| known.cmp(author))
    }

    pub(super) fn note(&mut self, stamp: &Stamp) {
        match self.place(&stamp.author) {
            Ok(place) => {
                let (_, step, seq) = &mut self.last[place];
                (*step, *seq) = (*step, *seq).max((stamp.step, stamp.seq));
            }
            Err(place) => self.last.insert(place, (stamp.author, stamp.step, stamp.seq)),
        }
        self.shorten();
    }

    pub(super) fn join(&mut self, other: &Versions) {
        self.is_cut_short |= other.is_cut_short;
        for &(author, step, seq) in &other.last {
            self.note(&Stamp { step, author, seq });
        }
    }

    /// True if it is as joining leaves it.
    pub(super) fn is_normal(&self) -> bool {
        self.last.is_sorted_by(|a, b| a.0 < b.0) && self.last.len() <= VERSIONS_MAX
    }

    /// Keeps the authors with the highest last stamps. As an author's last stamp only grows, one that was left out
    /// comes back when it has written again and not before, whatever the order in which writes arrive.
    fn shorten(&mut self) {
        while self.last.len() > VERSIONS_MAX {
            let stamps =
                self.last.iter().enumerate().map(|(place, (author, step, seq))| (step, author, seq, place));
            let Some((.., place)) = stamps.min() else { break };
            self.last.remove(place);
            self.is_cut_short = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(step: u64, author: u8, seq: u64) -> Stamp {
        Stamp { step: Step(step), author: NodeId::from_bytes([author; 32]), seq: Seq(seq) }
    }

    #[test]
    fn the_authors_that_wrote_last_are_kept_in_whatever_order_they_come() {
        let max = u8::try_from(VERSIONS_MAX).unwrap();
        let mut stamps: Vec<_> = (0..2 * max).map(|author| stamp(u64::from(author), author, 1)).collect();
        stamps.push(stamp(1000, 0, 2));
        let mut forwards = Versions::default();
        let mut backwards = Versions::default();
        stamps.iter().for_each(|stamp| forwards.note(stamp));
        stamps.iter().rev().for_each(|stamp| backwards.note(stamp));
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.last.len(), VERSIONS_MAX);
        assert!(!forwards.is_complete());
        assert_eq!(forwards.get(&NodeId::from_bytes([0; 32])), Some(Seq(2)));
        // Who joins it learns that some are left out.
        let mut joined = Versions::default();
        joined.join(&forwards);
        assert_eq!(joined, forwards);
        // One that was left out may have written anything.
        assert!(forwards.may_contain(&NodeId::from_bytes([1; 32]), Seq(99)));
        assert!(!forwards.may_contain(&NodeId::from_bytes([0; 32]), Seq(3)));
    }
}
