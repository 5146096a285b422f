//! Which of two writes counts.

use crate::id::{NodeId, Seq, Step};
use crate::projection::Stamp;

use super::cbor::{Reader, Writer};
use super::fault::Fault;

/// How far ahead of its own step a write may claim to come. Default 16: guess; honest nodes see each other's steps at
/// most `node.step_window_future` (2) ahead. Higher lets a liar's writes win for longer, lower refuses honest ones.
pub const AHEAD_STEPS_MAX: u64 = 16;

/// A moment in the order of writes: a step, and a count of writes that followed one another within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick {
    /// The step.
    pub step: Step,
    /// How many writes in this step it comes after.
    pub count: u32,
}

impl Tick {
    /// The moment a step begins.
    pub const fn start_of(step: Step) -> Self {
        Tick { step, count: 0 }
    }

    const fn next(self) -> Self {
        match self.count.checked_add(1) {
            Some(count) => Tick { step: self.step, count },
            None => Tick { step: self.step.saturating_add(1), count: 0 },
        }
    }

    /// The latest that a write of this step may come after.
    pub(super) const fn last_allowed(step: Step) -> Self {
        Tick { step: step.saturating_add(AHEAD_STEPS_MAX), count: u32::MAX - 1 }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array_of(2)?;
        let step = Step(reader.unsigned()?);
        Ok(Tick { step, count: u32::try_from(reader.unsigned()?).map_err(|_| Fault::BadNumber)? })
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.array(2);
        writer.unsigned(self.step.0);
        writer.unsigned(u64::from(self.count));
    }
}

/// The place of a write in the total order of writes; of two the higher counts.
///
/// It is the [`Stamp`] of the entry, with the step replaced by the writer's *tick*: the start of the step, or, if the
/// writer had already seen a write of that moment or later on the same thing, the moment after that one. (A hybrid
/// logical clock: Kulkarni et al., *Logical physical clocks*, 2014.) Without it, who corrects within one step what
/// another has written would win or lose by the bytes of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// When.
    pub tick: Tick,
    /// Who wrote it; compared as bytes.
    pub author: NodeId,
    /// Its place in the author's log.
    pub seq: Seq,
}

impl Rank {
    /// The rank of the write of this stamp whose writer had seen `after`.
    pub(super) fn new(stamp: &Stamp, after: Option<Tick>) -> Result<Self, Fault> {
        if after.is_some_and(|after| after > Tick::last_allowed(stamp.step)) {
            return Err(Fault::TooFarAhead);
        }
        let start = Tick::start_of(stamp.step);
        let tick = after.map_or(start, |after| start.max(after.next()));
        Ok(Rank { tick, author: stamp.author, seq: stamp.seq })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array(4);
        writer.unsigned(self.tick.step.0);
        writer.unsigned(u64::from(self.tick.count));
        writer.bytes(self.author.as_bytes());
        writer.unsigned(self.seq.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(step: u64, author: u8, after: Option<(u64, u32)>) -> Result<Rank, Fault> {
        let stamp = Stamp { step: Step(step), author: NodeId::from_bytes([author; 32]), seq: Seq(1) };
        Rank::new(&stamp, after.map(|(step, count)| Tick { step: Step(step), count }))
    }

    #[test]
    fn a_write_that_saw_another_comes_after_it() {
        let first = rank(10, 9, None).unwrap();
        let seen = (first.tick.step.0, first.tick.count);
        assert!(rank(10, 1, None).unwrap() < first);
        assert!(rank(10, 1, Some(seen)).unwrap() > first);
        // From a clock that is a little behind, too.
        assert!(rank(9, 1, Some(seen)).unwrap() > first);
        // What is long ago makes no difference.
        assert_eq!(rank(11, 1, Some(seen)), rank(11, 1, None));
    }

    #[test]
    fn nobody_gets_far_ahead() {
        rank(10, 1, Some((26, u32::MAX - 1))).unwrap();
        assert_eq!(rank(10, 1, Some((26, u32::MAX))), Err(Fault::TooFarAhead));
        assert_eq!(rank(10, 1, Some((27, 0))), Err(Fault::TooFarAhead));
        assert_eq!(rank(u64::MAX, 1, Some((u64::MAX, 5))).unwrap().tick.count, 6);
        // Whoever pushes the clock as far as it goes is passed one step later.
        let liar = rank(10, 9, Some((26, u32::MAX - 1))).unwrap();
        assert!(rank(11, 1, Some((liar.tick.step.0, 0))).unwrap() < liar);
        assert!(rank(11, 1, Some((27, 0))).unwrap() > liar);
    }
}
