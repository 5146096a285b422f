//! Where time enters: the process's monotonic clock, the wall clock once, and the mesh's clock for all to read.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use omnimesh_protocol::step::StepClock;
use omnimesh_protocol::{Step, Time};

/// The origin of this node's [`Time`]. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    started: Instant,
}

impl Epoch {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Epoch { started: Instant::now() }
    }

    /// The moment, for the state machines. Never decreases.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
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
pub(crate) struct SharedClock(Arc<RwLock<Option<StepClock>>>);

impl SharedClock {
    /// Replaces the clock.
    pub(crate) fn set(&self, clock: Option<StepClock>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = clock;
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
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(f)
    }
}
