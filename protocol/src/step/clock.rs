//! The mesh's clock as one node keeps it: local monotonic time plus an offset that changes only gently.
//!
//! ```text
//!  mesh time │          ╱      a: slews forward (a little steeper than local time)
//!            │        ╱·       b: slews back (a little flatter), never falls
//!            │   a ╱··  b      c: held: flat until it has lost what it was ahead
//!            │  ╱·    ·  ┈┈ c  jump: straight up, the only break, and only forward
//!            └──────────────── local time
//! ```
//!
//! Between two changes mesh time is a line of one or two pieces: first the correction is worked off at
//! its pace, then mesh time runs as local time does. So it can be computed for any moment without ticking.
//!
//! Invariant: for `a <= b`, `mesh_time(a) <= mesh_time(b)`, whatever happens to the clock in between. The
//! clock knows nothing of peers; what to correct is [`super::StepSync`]'s to say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::Step;
use crate::time::{Time, nanos};

/// Latest mesh time there is, in nanoseconds: in the year 2262 after the Unix epoch. Claims beyond it are
/// refused, so differences of mesh times fit 64 signed bits.
pub const MESH_TIME_NS_MAX: u64 = i64::MAX.unsigned_abs();

/// One million parts per million: a clock corrected backwards at this pace stands still.
const PPM: u64 = 1_000_000;

/// Mesh time less the wall clock of this node, to be kept over a restart.
///
/// The wall clock may be wrong by hours; as long as it goes on being wrong by as much, the offset brings
/// back the mesh's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedOffset {
    /// In nanoseconds.
    pub offset_ns: i64,
}

impl SavedOffset {
    /// Mesh time by a wall clock that shows `wall_ns`.
    pub fn apply(self, wall_ns: u64) -> u64 {
        wall_ns.saturating_add_signed(self.offset_ns).min(MESH_TIME_NS_MAX)
    }
}

/// A running clock. See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepClock {
    interval_ns: u64,
    /// The moment of the last change, and mesh time then.
    anchor: Time,
    anchor_ns: u64,
    /// What is to be worked off from the anchor on, and at which pace.
    correction_ns: i64,
    pace_ppm: u64,
}

impl StepClock {
    /// A clock that shows `mesh_time_ns` at `now`, with steps of `interval` (taken as 1 ns if it is zero).
    pub fn new(interval: Duration, now: Time, mesh_time_ns: u64) -> Self {
        StepClock {
            interval_ns: nanos(interval).max(1),
            anchor: now,
            anchor_ns: mesh_time_ns.min(MESH_TIME_NS_MAX),
            correction_ns: 0,
            pace_ppm: 0,
        }
    }

    /// Mesh time in nanoseconds. For moments before the last change: as at that change.
    pub fn mesh_time(&self, now: Time) -> u64 {
        self.after(now.as_nanos().saturating_sub(self.anchor.as_nanos()))
    }

    /// The step of that mesh time.
    pub fn step(&self, now: Time) -> Step {
        Step(self.mesh_time(now) / self.interval_ns)
    }

    /// When the next step begins if the clock is left alone: the first moment after `now` with a later step.
    pub fn next_step_at(&self, now: Time) -> Time {
        let start = now.as_nanos().saturating_sub(self.anchor.as_nanos());
        let target_ns = self.step_start(self.step(now).saturating_add(1));
        // Mesh time never falls and gets there, at the latest, once it has lost the whole correction.
        let missing = target_ns.saturating_sub(self.after(start));
        let (mut low, mut high) = (start, start.saturating_add(missing));
        if self.correction_ns < 0 {
            high = high.saturating_add(self.correction_ns.unsigned_abs());
        }
        if self.correction_ns == 0 {
            low = high;
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.after(middle) < target_ns {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Time::from_nanos(self.anchor.as_nanos().saturating_add(high)).max(now)
    }

    /// Mesh time at which a step begins.
    pub fn step_start(&self, step: Step) -> u64 {
        step.0.saturating_mul(self.interval_ns)
    }

    /// What of the last correction has not been worked off yet, in nanoseconds; negative if mesh time is
    /// too late.
    pub fn pending(&self, now: Time) -> i64 {
        let elapsed = now.as_nanos().saturating_sub(self.anchor.as_nanos());
        let done = self.worked_off(elapsed);
        let rest = i64::try_from(self.correction_ns.unsigned_abs() - done).unwrap_or(i64::MAX);
        if self.correction_ns < 0 { -rest } else { rest }
    }

    /// Changes mesh time by `correction_ns`, little by little: at most `pace_ppm` millionths of the time that
    /// passes. Replaces what was left of an earlier correction.
    pub fn slew(&mut self, now: Time, correction_ns: i64, pace_ppm: u64) {
        self.anchor_ns = self.mesh_time(now);
        self.anchor = now.max(self.anchor);
        self.correction_ns = correction_ns;
        self.pace_ppm = pace_ppm.min(PPM);
    }

    /// Stands still for as long as mesh time is ahead.
    pub fn hold(&mut self, now: Time, ahead_ns: u64) {
        self.slew(now, i64::try_from(ahead_ns).map_or(i64::MIN, |ns| -ns), PPM);
    }

    /// Sets mesh time forward to `mesh_time_ns`; does nothing if that is not later. Ends any correction.
    pub fn jump_to(&mut self, now: Time, mesh_time_ns: u64) {
        let current_ns = self.mesh_time(now);
        if mesh_time_ns > current_ns {
            self.anchor_ns = mesh_time_ns.min(MESH_TIME_NS_MAX).max(current_ns);
            self.anchor = now.max(self.anchor);
            self.correction_ns = 0;
        }
    }

    /// What to keep over a restart, given what the wall clock shows now.
    pub fn saved_offset(&self, now: Time, wall_ns: u64) -> SavedOffset {
        // What is still to be worked off belongs to the mesh's time.
        let mesh_ns = self.mesh_time(now).saturating_add_signed(self.pending(now));
        SavedOffset { offset_ns: difference(mesh_ns, wall_ns) }
    }

    /// Mesh time `elapsed` nanoseconds after the anchor.
    fn after(&self, elapsed: u64) -> u64 {
        // What is worked off is at most `elapsed`, so going back never gets before the anchor.
        let done = self.worked_off(elapsed);
        if self.correction_ns < 0 {
            self.anchor_ns.saturating_add(elapsed - done)
        } else {
            self.anchor_ns.saturating_add(elapsed).saturating_add(done)
        }
    }

    fn worked_off(&self, elapsed: u64) -> u64 {
        let most = u128::from(elapsed) * u128::from(self.pace_ppm) / u128::from(PPM);
        u64::try_from(most).unwrap_or(u64::MAX).min(self.correction_ns.unsigned_abs())
    }
}

/// `a - b`, as near as 64 signed bits allow.
pub(super) fn difference(a: u64, b: u64) -> i64 {
    let distance = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a < b { -distance } else { distance }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn clock(mesh_time_ns: u64) -> StepClock {
        StepClock::new(Duration::from_secs(1), at(0), mesh_time_ns)
    }

    #[test]
    fn steps_begin_exactly_on_the_interval() {
        let clock = clock(10 * SECOND - 1);
        assert_eq!(clock.step(at(0)), Step(9));
        assert_eq!(clock.next_step_at(at(0)), Time::from_nanos(1));
        assert_eq!(clock.step(Time::from_nanos(1)), Step(10));
        assert_eq!(clock.next_step_at(Time::from_nanos(1)), Time::from_nanos(SECOND + 1));
    }

    #[test]
    fn slews_at_its_pace_and_then_runs_evenly() {
        let mut ahead = clock(0);
        ahead.slew(at(0), 50_000_000, 100_000);
        assert_eq!(ahead.mesh_time(at(100)), 110_000_000);
        assert_eq!(ahead.pending(at(100)), 40_000_000);
        assert_eq!(ahead.mesh_time(at(500)), 550_000_000);
        assert_eq!(ahead.mesh_time(at(900)), 950_000_000);
        assert_eq!(ahead.next_step_at(at(0)), at(950));

        let mut back = clock(0);
        back.slew(at(0), -50_000_000, 100_000);
        assert_eq!(back.mesh_time(at(100)), 90_000_000);
        assert_eq!(back.mesh_time(at(900)), 850_000_000);
        assert_eq!(back.next_step_at(at(0)), at(1050));
    }

    #[test]
    fn a_held_clock_stands_and_then_runs() {
        let mut clock = clock(5 * SECOND);
        clock.hold(at(0), 3 * SECOND);
        assert_eq!(clock.mesh_time(at(3000)), 5 * SECOND);
        assert_eq!(clock.mesh_time(at(3500)), 5 * SECOND + SECOND / 2);
        assert_eq!(clock.next_step_at(at(10)), at(4000));
        // A later correction replaces the rest.
        clock.slew(at(1000), 0, 100_000);
        assert_eq!(clock.mesh_time(at(2000)), 6 * SECOND);
    }

    #[test]
    fn jumps_only_forward() {
        let mut clock = clock(5 * SECOND);
        clock.jump_to(at(1000), 5 * SECOND);
        assert_eq!(clock.mesh_time(at(1000)), 6 * SECOND);
        clock.jump_to(at(1000), 9 * SECOND);
        assert_eq!(clock.mesh_time(at(1000)), 9 * SECOND);
        clock.jump_to(at(1000), u64::MAX);
        assert_eq!(clock.mesh_time(at(1000)), MESH_TIME_NS_MAX);
    }

    #[test]
    fn the_saved_offset_brings_mesh_time_back() {
        let mut clock = clock(100 * SECOND);
        clock.slew(at(0), 10_000_000, 100_000);
        let saved = clock.saved_offset(at(0), 40 * SECOND);
        assert_eq!(saved.offset_ns, 60_010_000_000);
        assert_eq!(saved.apply(50 * SECOND), 110_010_000_000);
        assert_eq!(SavedOffset { offset_ns: -5 }.apply(3), 0);
        assert_eq!(serde_json::to_string(&saved).unwrap(), "60010000000");
        assert_eq!(SavedOffset { offset_ns: i64::MAX }.apply(u64::MAX), MESH_TIME_NS_MAX);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Wait(u64),
        Slew(i64, u64),
        Hold(u64),
        Jump(u64),
    }

    fn ops() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..5 * SECOND).prop_map(Op::Wait),
            any::<u64>().prop_map(Op::Wait),
            (-(1i64 << 34)..1 << 34, 0u64..=2 * PPM).prop_map(|(ns, ppm)| Op::Slew(ns, ppm)),
            (any::<i64>(), any::<u64>()).prop_map(|(ns, ppm)| Op::Slew(ns, ppm)),
            any::<u64>().prop_map(Op::Hold),
            (0..1u64 << 40).prop_map(Op::Jump),
        ]
    }

    proptest! {
        #[test]
        fn mesh_time_never_falls(
            start in 0..1u64 << 40,
            ops in prop::collection::vec(ops(), 1..40),
        ) {
            let (mut now, mut clock) = (Time::ZERO, clock(start));
            let mut last = clock.mesh_time(now);
            for op in ops {
                match op {
                    Op::Wait(ns) => now = now + Duration::from_nanos(ns),
                    Op::Slew(ns, ppm) => clock.slew(now, ns, ppm),
                    Op::Hold(ns) => clock.hold(now, ns),
                    Op::Jump(ns) => clock.jump_to(now, ns),
                }
                prop_assert!(clock.mesh_time(now) >= last);
                last = clock.mesh_time(now);
                clock.saved_offset(now, last / 2);
            }
        }

        #[test]
        fn the_next_step_is_the_first_moment_of_it(
            start in 0..1u64 << 40,
            correction in -(1i64 << 34)..1 << 34,
            ppm in 0u64..=PPM,
            wait in 0..10 * SECOND,
        ) {
            let mut clock = clock(start);
            clock.slew(Time::ZERO, correction, ppm);
            let now = Time::from_nanos(wait);
            let next = clock.next_step_at(now);
            prop_assert!(next > now);
            prop_assert_eq!(clock.step(next), clock.step(now).saturating_add(1));
            prop_assert_eq!(clock.step(next - Duration::from_nanos(1)), clock.step(now));
        }
    }
}
