//! Where time enters: the process's monotonic clock, the wall clock once, and the mesh's clock for all to read.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use omnimesh_protocol::step::StepClock;
use omnimesh_protocol::{Step, Time};
use tokio::sync::Notify;

/// The origin of this node's [`Time`], and how fast that goes. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    started: Instant,
    slowdown: u32,
}

impl Epoch {
    /// Begins now. A second of its time takes `slowdown` real ones: 1, but for the nodes of an emulated network
    /// that have to share a processor.
    pub(crate) fn begin(slowdown: NonZeroU32) -> Self {
        Epoch { started: Instant::now(), slowdown: slowdown.get() }
    }

    /// The moment, for the state machines. Never decreases.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed() / self.slowdown
    }

    /// How long a timer of the runtime is to run that is due `at`.
    pub(crate) fn until(&self, at: Time) -> Duration {
        at.since(self.now()).saturating_mul(self.slowdown)
    }
}

/// The wall clock, in nanoseconds of Unix time. May be wrong, may jump: only for the first guess at mesh
/// time, and for people.
pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The same in milliseconds.
pub(crate) fn wall_ms() -> u64 {
    wall_ns() / 1_000_000
}

/// The mesh's clock as step synchronisation last left it; every actor reads it without asking anybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedClock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    clock: RwLock<Option<StepClock>>,
    changed: Notify,
    /// The last step of which messages may be accepted.
    accept_until: AtomicU64,
}

impl SharedClock {
    /// Replaces the clock.
    pub(crate) fn set(&self, clock: Option<StepClock>) {
        *self.0.clock.write().unwrap_or_else(PoisonError::into_inner) = clock;
        self.0.changed.notify_waiters();
    }

    /// From now on messages of steps up to this one may be accepted: a later run will know that they were.
    pub(crate) fn accept_until(&self, step: Step) {
        self.0.accept_until.store(step.0, Ordering::Release);
    }

    /// The step at `now`, unless messages of up to `future` steps later may not be accepted.
    pub(crate) fn step_to_judge(&self, now: Time, future: u64) -> Option<Step> {
        let until = self.0.accept_until.load(Ordering::Acquire);
        self.step(now).filter(|step| step.saturating_add(future).0 <= until)
    }

    /// Waits until `is_there` holds for the clock.
    pub(crate) async fn wait_until(&self, is_there: impl Fn(&StepClock) -> bool) {
        loop {
            // Asked for before the look, so that no change falls between the two.
            let changed = self.0.changed.notified();
            if self.read(&is_there) == Some(true) {
                return;
            }
            changed.await;
        }
    }

    /// When the next step begins.
    pub(crate) fn next_step_at(&self, now: Time) -> Option<Time> {
        self.read(|clock| clock.next_step_at(now))
    }

    /// The step at `now`; `None` while the node is not synchronised.
    pub(crate) fn step(&self, now: Time) -> Option<Step> {
        self.read(|clock| clock.step(now))
    }

    /// Mesh time in microseconds at `now`.
    pub(crate) fn mesh_time_us(&self, now: Time) -> Option<u64> {
        self.read(|clock| clock.mesh_time(now) / 1000)
    }

    fn read<T>(&self, f: impl FnOnce(&StepClock) -> T) -> Option<T> {
        self.0.clock.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_time_is_slow_both_ways() {
        let begun = Instant::now();
        let epoch = Epoch::begin(NonZeroU32::new(1000).unwrap());
        let at = Time::ZERO + Duration::from_secs(60);
        assert!(epoch.until(at) <= Duration::from_secs(60_000));
        assert!(epoch.until(at) + begun.elapsed() >= Duration::from_secs(59_999));
        assert!(epoch.now().since(Time::ZERO) * 1000 <= begun.elapsed());
        assert_eq!(epoch.until(Time::ZERO), Duration::ZERO);
    }

    #[test]
    fn nothing_is_judged_beyond_what_a_later_run_will_know() {
        let (clock, now) = (SharedClock::default(), Time::ZERO);
        assert_eq!(clock.step_to_judge(now, 0), None);
        clock.set(Some(StepClock::new(Duration::from_secs(1), now, 10_000_000_000)));
        assert_eq!((clock.step(now), clock.step_to_judge(now, 0)), (Some(Step(10)), None));
        clock.accept_until(Step(12));
        assert_eq!(clock.step_to_judge(now, 2), Some(Step(10)));
        assert_eq!(clock.step_to_judge(now, 3), None);
        assert_eq!(clock.step_to_judge(now + Duration::from_secs(1), 2), None);
        clock.accept_until(Step(u64::MAX));
        assert_eq!(clock.step_to_judge(now, u64::MAX), Some(Step(10)));
    }
}
