//! The ledger: what happened to each of the last messages.

use std::num::NonZeroUsize;

use lru::LruCache;
use smallvec::SmallVec;

use crate::envelope::Channel;
use crate::event::Event;
use crate::id::{MessageId, NodeId, Step};
use crate::refusal::Refusal;
use crate::time::Time;

/// Things remembered of one message; later ones are counted only.
pub(super) const RECORDS_MAX: usize = 8;

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This node published it to so many neighbours.
    Published {
        /// How many.
        recipients: usize,
    },
    /// Subscribers here got it.
    Delivered,
    /// It was passed on; nobody here subscribes.
    Forwarded,
    /// It was dropped without blame.
    Ignored(Refusal),
    /// It was wrong, and who brought it was blamed.
    Refused(Refusal),
}

/// One thing that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<P> {
    /// What.
    pub outcome: Outcome,
    /// The neighbour that brought it; `None` for an own message.
    pub from: Option<P>,
    /// The step here.
    pub step: Step,
    /// When.
    pub at: Time,
}

/// What happened to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story<P> {
    /// Who wrote it, if that is proved.
    pub author: Option<NodeId>,
    /// Where it came.
    pub channel: Option<Channel>,
    /// The step it names, if that is proved.
    pub step: Option<Step>,
    /// How often it came to the validator.
    pub copies: u64,
    /// The first things that happened, in order; never empty.
    pub records: SmallVec<[Record<P>; 1]>,
}

impl<P> Story<P> {
    fn spilled(&self) -> usize {
        if self.records.spilled() { self.records.capacity() * size_of::<Record<P>>() } else { 0 }
    }
}

/// Stories of the last messages.
#[derive(Debug)]
pub struct Ledger<P> {
    stories: LruCache<MessageId, Story<P>>,
    /// Bytes of records that have no room in their stories.
    spilled: usize,
}

impl<P: Clone> Ledger<P> {
    /// An empty ledger of at most `messages_max` stories.
    pub fn new(messages_max: NonZeroUsize) -> Self {
        let mut stories = LruCache::unbounded();
        stories.resize(messages_max);
        Ledger { stories, spilled: 0 }
    }

    /// How many stories there are.
    pub fn len(&self) -> usize {
        self.stories.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.stories.is_empty()
    }

    /// Bytes in use, at most by a little.
    pub fn bytes(&self) -> usize {
        // An entry of the table, and its part of the index.
        let entry = size_of::<MessageId>() + size_of::<Story<P>>() + 64;
        self.stories.len() * entry + self.spilled
    }

    /// The story of a message.
    pub fn story(&self, id: &MessageId) -> Option<&Story<P>> {
        self.stories.peek(id)
    }

    /// Adds what an event says of a message.
    pub fn on_event(&mut self, now: Time, here: Step, event: &Event<P>) {
        let (id, outcome, from, author, channel, step) = match event {
            Event::Published { id, channel, recipients, .. } => {
                (id, Outcome::Published { recipients: *recipients }, None, None, Some(channel), Some(here))
            }
            Event::Verified { id, channel, author, from, step, delivered, .. } => {
                let outcome = if *delivered { Outcome::Delivered } else { Outcome::Forwarded };
                (id, outcome, Some(from), Some(author), Some(channel), Some(*step))
            }
            Event::Refused { id, channel, author, from, reason } => {
                let outcome = if reason.is_forwarders_fault() {
                    Outcome::Refused(*reason)
                } else {
                    Outcome::Ignored(*reason)
                };
                (id, outcome, Some(from), author.as_ref(), channel.as_ref(), None)
            }
            _ => return,
        };
        if self.stories.len() >= self.stories.cap().get() && !self.stories.contains(id) {
            self.spilled -= self.stories.pop_lru().map_or(0, |(_, oldest)| oldest.spilled());
        }
        let story = self.stories.get_or_insert_mut(*id, || Story {
            author: None,
            channel: None,
            step: None,
            copies: 0,
            records: SmallVec::new(),
        });
        story.author = story.author.or(author.copied());
        story.channel = story.channel.take().or_else(|| channel.cloned());
        story.step = story.step.or(step);
        story.copies += 1;
        if story.records.len() < RECORDS_MAX {
            let before = story.spilled();
            story.records.push(Record { outcome, from: from.cloned(), step: here, at: now });
            self.spilled += story.spilled() - before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(n: u8) -> Event<u32> {
        Event::Refused {
            id: MessageId::of(&[n]),
            channel: None,
            author: None,
            from: 1,
            reason: Refusal::BadSignature,
        }
    }

    #[test]
    fn stories_and_their_records_are_bounded() {
        let mut ledger = Ledger::new(NonZeroUsize::new(3).unwrap());
        for n in 0..10 {
            ledger.on_event(Time::ZERO, Step(1), &refused(n));
        }
        assert!(ledger.story(&MessageId::of(&[6])).is_none());
        for _ in 0..100 {
            ledger.on_event(Time::ZERO, Step(1), &refused(9));
        }
        let story = ledger.story(&MessageId::of(&[9])).unwrap();
        assert_eq!((story.copies, story.records.len()), (101, RECORDS_MAX));
        let spilled =
            |ledger: &Ledger<u32>| ledger.stories.iter().map(|(_, story)| story.spilled()).sum::<usize>();
        assert!(spilled(&ledger) > 0 && spilled(&ledger) == ledger.spilled);
        for n in 20..23 {
            ledger.on_event(Time::ZERO, Step(1), &refused(n));
        }
        assert_eq!((ledger.len(), spilled(&ledger), ledger.spilled), (3, 0, 0));
    }
}
