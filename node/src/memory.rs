//! Who holds how much of the node's memory; the shares are those of [`omnimesh_protocol::config::budget`].
//!
//! ```text
//!   Memory ─► one Meter for each part: limit, used, shed ─► Account: what one queue, feed or buffer holds of it
//! ```
//!
//! A meter is exact: `used` never exceeds the limit by what was asked for with [`Account::grow`]. Who finds no room
//! sheds, by its own rule, and says so with [`Meter::shed`]. Machines that keep to their share by themselves (the cache,
//! the log, tables) tell the meter what they hold ([`Meter::report`]), for people.
//!
//! **Fair, and by priority.** Queues that share a meter may each hold a multiple of what is free, and the multiple is
//! the greater the more a frame matters ([`Priority`]). So a few that are slow may hold much, many that are
//! slow hold little each, and there is always room for those that are not, and for control before all else. (Choudhury
//! and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998, where the multiple is α.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use omnimesh_protocol::config::{Budget, Part};

/// What goes first when there is no room for all, from what is kept to what goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Membership, step, admission, and what keeps gossip together.
    Control,
    /// The log: what is shed is fetched again.
    Log,
    /// This node's own messages and tasks, and what its own subscribers get.
    Own,
    /// Others' messages, passed on.
    Forwarded,
    /// Blobs, which are asked for again.
    Bulk,
}

impl Priority {
    /// All, from what is kept longest.
    pub const ALL: [Priority; 5] =
        [Priority::Control, Priority::Log, Priority::Own, Priority::Forwarded, Priority::Bulk];

    /// A word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Priority::Control => "control",
            Priority::Log => "log",
            Priority::Own => "own",
            Priority::Forwarded => "forwarded",
            Priority::Bulk => "bulk",
        }
    }

    /// One queue may hold this many halves of what is free. Guesses; what matters is that they fall.
    const fn halves(self) -> usize {
        match self {
            Priority::Control => 16,
            Priority::Log => 8,
            Priority::Own => 4,
            Priority::Forwarded => 2,
            Priority::Bulk => 1,
        }
    }
}

/// The memory of a node, by part. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory(Arc<[Arc<Meter>; Part::COUNT]>);

impl Memory {
    /// With the shares of a budget.
    pub fn new(budget: &Budget) -> Self {
        Memory(Arc::new(Part::ALL.map(|part| Arc::new(Meter::new(budget.share(part))))))
    }

    /// Of one part.
    pub fn part(&self, part: Part) -> &Arc<Meter> {
        &self.0[part as usize]
    }

    /// All parts, as they are now.
    pub fn usage(&self) -> Vec<Usage> {
        let usage = |part: Part| {
            let meter = self.part(part);
            let is_counted = !matches!(part, Part::Observer | Part::Blobs | Part::Store);
            let shed = Priority::ALL.map(|priority| (priority, meter.shed_of(priority)));
            Usage { part, budget: meter.limit(), used: is_counted.then(|| meter.used()), shed }
        };
        Part::ALL.into_iter().map(usage).collect()
    }
}

impl Default for Memory {
    /// That of the default configuration.
    fn default() -> Self {
        let budget = Budget::of(&omnimesh_protocol::config::Config::default());
        Memory::new(&budget.expect("the default configuration has a budget"))
    }
}

/// A part of the memory at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Which.
    pub part: Part,
    /// What it may use, in bytes.
    pub budget: usize,
    /// What it uses; `None` where that is kept within the budget and not counted.
    pub used: Option<usize>,
    /// What was shed for want of room, by priority.
    pub shed: [(Priority, u64); Priority::ALL.len()],
}

/// The memory of one part.
#[derive(Debug)]
pub struct Meter {
    limit: usize,
    used: AtomicUsize,
    shed: [AtomicU64; Priority::ALL.len()],
}

impl Meter {
    /// An empty one that holds so many bytes.
    pub fn new(limit: usize) -> Self {
        Meter { limit, used: AtomicUsize::new(0), shed: Default::default() }
    }

    /// How many bytes there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many are used.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many are not.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    /// Counts what was shed for want of room here.
    pub fn shed(&self, priority: Priority, count: u64) {
        self.shed[priority as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How much of this priority was shed.
    pub fn shed_of(&self, priority: Priority) -> u64 {
        self.shed[priority as usize].load(Ordering::Relaxed)
    }

    /// Says what is held, and what was shed of one priority in all: of a part that one machine counts by itself.
    pub fn report(&self, used: usize, priority: Priority, shed: u64) {
        self.used.store(used, Ordering::Relaxed);
        self.shed[priority as usize].store(shed, Ordering::Relaxed);
    }

    /// The most that one queue may hold now, in bytes, with a new frame of this priority.
    fn room(&self, priority: Priority) -> usize {
        (self.free() / 2).saturating_mul(priority.halves())
    }

    /// How much a queue that holds `held` bytes has to shed before one more frame of `bytes` fits.
    pub fn over(&self, priority: Priority, held: usize, bytes: usize) -> usize {
        let over = held.saturating_add(bytes).saturating_sub(self.room(priority));
        // What is shed is free again, so that there is more room for what is kept.
        let shed = over.saturating_mul(2).div_ceil(2 + priority.halves());
        shed.max(bytes.saturating_sub(self.free()))
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one holder has of a part. All of it is given back on drop.
#[derive(Debug)]
pub struct Account {
    meter: Arc<Meter>,
    held: usize,
}

impl Account {
    /// An empty one.
    pub fn new(meter: Arc<Meter>) -> Self {
        Account { meter, held: 0 }
    }

    /// Whose part it is of.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// How many bytes it has.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes more, if there is room.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let is_taken = self.meter.take(bytes);
        self.held += if is_taken { bytes } else { 0 };
        is_taken
    }

    /// Takes more in any case: it is there already, or a floor that everybody has.
    pub fn force(&mut self, bytes: usize) {
        self.meter.force(bytes);
        self.held += bytes;
    }

    /// Gives back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.meter.give(bytes);
        self.held -= bytes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.meter.give(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_never_over_its_limit_and_gets_all_back() {
        let meter = Arc::new(Meter::new(100));
        let (mut a, mut b) = (Account::new(Arc::clone(&meter)), Account::new(Arc::clone(&meter)));
        assert!(a.grow(60) && !b.grow(50) && b.grow(40) && !a.grow(1));
        assert_eq!((meter.used(), meter.free(), a.held(), b.held()), (100, 0, 60, 40));
        a.shrink(10);
        assert!(b.grow(10));
        drop(a);
        assert_eq!(meter.used(), 50);
        b.shrink(1000);
        assert_eq!(meter.used(), 0);
        b.force(150);
        assert_eq!((meter.free(), b.grow(1)), (0, false));
    }

    #[test]
    fn the_more_it_matters_the_more_it_may_take_and_many_leave_room_for_one_more() {
        let meter = Arc::new(Meter::new(1000));
        let rooms = Priority::ALL.map(|priority| meter.room(priority));
        assert!(rooms.is_sorted_by(|more, less| more > less), "{rooms:?}");
        // A hundred queues that nobody empties, each filled as far as it goes.
        let meter = Arc::new(Meter::new(1_000_000));
        let mut greedy: Vec<_> = (0..100).map(|_| Account::new(Arc::clone(&meter))).collect();
        for _ in 0..1_000 {
            for queue in &mut greedy {
                if queue.held() + 100 <= meter.room(Priority::Forwarded) {
                    assert!(queue.grow(100));
                }
            }
        }
        let (least, most) = (greedy.iter().map(Account::held).min(), greedy.iter().map(Account::held).max());
        assert!(most.unwrap() - least.unwrap() <= 200, "{least:?} {most:?}");
        assert!(meter.room(Priority::Forwarded) >= 9_000, "{}", meter.free());
        assert!(meter.room(Priority::Control) > meter.free());
    }
}
