//! A bounded queue from the node to one slow reader.
//!
//! ```text
//!   node ── FeedSender::offer ──►  [ newest … oldest ]  ──► Feed (a stream) ── client
//!            never waits            over a bound: the       Lagged(n), then what is left
//!                                   oldest is dropped
//! ```
//!
//! Bounded in items and in bytes, and all feeds of a node together by their part of its memory (see [`crate::memory`]):
//! a feed whose reader is behind then holds less. What a reader is too slow for is dropped from the old end and counted, and the
//! count comes before the next item, so a reader knows what it has not seen and where. Neither end outlives
//! its use: a [`Feed`] ends after the last item when its sender is dropped, and a sender can wait for its reader
//! to go ([`FeedSender::closed`]), to unsubscribe.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use tokio::sync::Notify;

use crate::memory::{Account, Meter, Priority};

/// How much a feed holds for a reader that is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// Items. Too few: a burst makes a reader lag; too many: a stuck reader costs memory. Default 1,024 (guess).
    pub items_max: usize,
    /// Bytes, as said by who offers; one item is always held, whatever its size. Default 4 MiB (guess).
    pub bytes_max: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        FeedLimits { items_max: 1024, bytes_max: 4 << 20 }
    }
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedItem<T> {
    /// So many items were dropped since the one before.
    Lagged(u64),
    /// The next item.
    Next(T),
}

/// Makes a feed that shares its memory with no other.
pub fn feed<T>(limits: FeedLimits) -> (FeedSender<T>, Feed<T>) {
    feed_within(limits, Priority::Own, Arc::new(Meter::new(usize::MAX)))
}

/// Makes a feed that shares this memory with others.
pub fn feed_within<T>(
    limits: FeedLimits,
    priority: Priority,
    memory: Arc<Meter>,
) -> (FeedSender<T>, Feed<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            items: VecDeque::new(),
            memory: Account::new(memory),
            lost: 0,
            is_ended: false,
            is_closed: false,
            reader: None,
        }),
        closed: Notify::new(),
        limits,
        priority,
    });
    (FeedSender(Arc::clone(&shared)), Feed(shared))
}

/// The node's end.
#[derive(Debug)]
pub struct FeedSender<T>(Arc<Shared<T>>);

impl<T> FeedSender<T> {
    /// Puts an item of so many bytes into the queue; never waits. Answers how many older ones were dropped for it.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn offer(&self, item: T, bytes: usize) -> Result<u64, FeedClosed> {
        let FeedLimits { items_max, bytes_max } = self.0.limits;
        let priority = self.0.priority;
        let (dropped, reader) = {
            let mut queue = self.0.lock();
            if queue.is_closed {
                return Err(FeedClosed);
            }
            let (mut dropped, mut shed) = (0, 0);
            loop {
                let held = queue.memory.held();
                let is_full = queue.items.len() >= items_max.max(1) || held.saturating_add(bytes) > bytes_max;
                let has_share = queue.memory.meter().over(priority, held, bytes) == 0;
                if !is_full && has_share && queue.memory.grow(bytes) {
                    break;
                }
                let Some((_, freed)) = queue.items.pop_front() else {
                    // One is always held.
                    queue.memory.force(bytes);
                    break;
                };
                queue.memory.shrink(freed);
                dropped += 1;
                shed += u64::from(!is_full);
            }
            queue.memory.meter().shed(priority, shed);
            queue.lost += dropped;
            queue.items.push_back((item, bytes));
            (dropped, queue.reader.take())
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(dropped)
    }

    /// Tells the reader of items that were lost before they came here.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn lose(&self, lost: u64) -> Result<(), FeedClosed> {
        let reader = {
            let mut queue = self.0.lock();
            if queue.is_closed {
                return Err(FeedClosed);
            }
            queue.lost += lost;
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }

    /// Waits until the reader is gone.
    pub async fn closed(&self) {
        while !self.is_closed() {
            // The permit is kept if the reader goes between the question and the wait.
            self.0.closed.notified().await;
        }
        self.0.closed.notify_one();
    }
}

impl<T> Drop for FeedSender<T> {
    fn drop(&mut self) {
        let reader = {
            let mut queue = self.0.lock();
            queue.is_ended = true;
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The reader of a feed is gone; unsubscribe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the feed is gone")]
pub struct FeedClosed;

/// The reader's end: a stream of [`FeedItem`]s.
#[derive(Debug)]
pub struct Feed<T>(Arc<Shared<T>>);

impl<T> Stream for Feed<T> {
    type Item = FeedItem<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.0.lock();
        if queue.lost > 0 {
            return Poll::Ready(Some(FeedItem::Lagged(std::mem::take(&mut queue.lost))));
        }
        if let Some((item, bytes)) = queue.items.pop_front() {
            queue.memory.shrink(bytes);
            return Poll::Ready(Some(FeedItem::Next(item)));
        }
        if queue.is_ended {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        let items = {
            let mut queue = self.0.lock();
            queue.is_closed = true;
            queue.memory.shrink(usize::MAX);
            std::mem::take(&mut queue.items)
        };
        drop(items);
        self.0.closed.notify_one();
    }
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    closed: Notify,
    limits: FeedLimits,
    priority: Priority,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // No code that can panic runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<(T, usize)>,
    memory: Account,
    lost: u64,
    /// The sender is gone: nothing more comes.
    is_ended: bool,
    /// The reader is gone: nothing more is wanted.
    is_closed: bool,
    reader: Option<Waker>,
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn drain<T>(feed: &mut Feed<T>) -> Vec<FeedItem<T>> {
        std::iter::from_fn(|| feed.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_first() {
        let (sender, mut feed) = feed(FeedLimits { items_max: 2, bytes_max: 100 });
        let dropped: Vec<_> = (0..5).map(|i| sender.offer(i, 1).unwrap()).collect();
        assert_eq!(dropped, [0, 0, 1, 1, 1]);
        assert_eq!(drain(&mut feed), [FeedItem::Lagged(3), FeedItem::Next(3), FeedItem::Next(4)]);
        sender.offer(5, 1).unwrap();
        assert_eq!(drain(&mut feed), [FeedItem::Next(5)]);
    }

    #[test]
    fn bytes_are_bounded_and_a_huge_item_stands_alone() {
        let (sender, mut feed) = feed(FeedLimits { items_max: 10, bytes_max: 100 });
        assert_eq!(sender.offer("a", 60), Ok(0));
        assert_eq!(sender.offer("b", 40), Ok(0));
        assert_eq!(sender.offer("c", 1), Ok(1));
        assert_eq!(sender.offer("huge", 1000), Ok(2));
        assert_eq!(sender.offer("d", usize::MAX), Ok(1));
        assert_eq!(drain(&mut feed), [FeedItem::Lagged(4), FeedItem::Next("d")]);
        assert_eq!(sender.offer("e", 100), Ok(0));
        assert_eq!(drain(&mut feed), [FeedItem::Next("e")]);
    }

    #[tokio::test]
    async fn each_end_sees_the_other_go() {
        let (sender, mut feed_a) = feed(FeedLimits::default());
        sender.offer(1, 1).unwrap();
        drop(sender);
        assert_eq!(feed_a.next().await, Some(FeedItem::Next(1)));
        assert_eq!(feed_a.next().await, None);

        let (sender, feed_b) = feed::<u8>(FeedLimits::default());
        assert!(sender.closed().now_or_never().is_none());
        drop(feed_b);
        sender.closed().await;
        sender.closed().await;
        assert_eq!(sender.offer(1, 1), Err(FeedClosed));
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes() {
        let (sender, mut feed) = feed(FeedLimits::default());
        let reader = tokio::spawn(async move { feed.next().await });
        tokio::task::yield_now().await;
        sender.offer(7, 1).unwrap();
        assert_eq!(reader.await.unwrap(), Some(FeedItem::Next(7)));
    }
}
