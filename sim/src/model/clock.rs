//! A node's monotonic clock: it may drift, and leap forward.

use std::time::Duration;

use omnimesh_protocol::Time;

/// Drift is counted in parts of 2⁴⁰, so that applying it takes no division.
const SCALE_BITS: u32 = 40;
const SCALE: i128 = 1 << SCALE_BITS;

/// Local time as a function of global time, both in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: u64,
    base: u64,
    /// How much faster than global time it runs, in parts of 2⁴⁰.
    drift: i64,
}

impl Clock {
    /// A clock that shows 0 at `origin`.
    pub(super) fn new(origin: u64, drift_ppm: f64) -> Self {
        Clock { origin, base: 0, drift: scaled(drift_ppm) }
    }

    pub(super) fn local(&self, global: u64) -> Time {
        let elapsed = global.saturating_sub(self.origin);
        if self.drift == 0 {
            return Time::from_nanos(self.base + elapsed);
        }
        let drifted = i128::from(elapsed) + ((i128::from(elapsed) * i128::from(self.drift)) >> SCALE_BITS);
        Time::from_nanos(self.base + u64::try_from(drifted).unwrap_or(0))
    }

    /// The first moment at which it shows `local` or more.
    pub(super) fn global(&self, local: Time) -> u64 {
        let elapsed = local.as_nanos().saturating_sub(self.base);
        if self.drift == 0 {
            return self.origin.saturating_add(elapsed);
        }
        let wide = (i128::from(elapsed) * SCALE).div_euclid(SCALE + i128::from(self.drift));
        // Rounding may be off by one either way.
        let wide = u64::try_from(wide).unwrap_or(u64::MAX).saturating_sub(1);
        let mut global = self.origin.saturating_add(wide);
        while self.local(global) < local {
            global = global.saturating_add(1);
        }
        global
    }

    /// Leaps forward at `global`.
    pub(super) fn leap(&mut self, global: u64, by: Duration) {
        let base = self.local(global) + by;
        *self = Clock { origin: global, base: base.as_nanos(), drift: self.drift };
    }

    /// Drifts otherwise from `global` on.
    pub(super) fn set_drift(&mut self, global: u64, ppm: f64) {
        *self = Clock { origin: global, base: self.local(global).as_nanos(), drift: scaled(ppm) };
    }
}

fn scaled(ppm: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "saturates; a drift is far smaller")]
    let scaled = (ppm.clamp(-500_000.0, 500_000.0) / 1e6 * (1_u64 << SCALE_BITS) as f64).round() as i64;
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for ppm in [0.0, 50.0, -50.0, 100_000.0, -300_000.0] {
            let clock = Clock::new(1_000, ppm);
            for local in [0, 1, 999, 1_000_000_007, 86_400_000_000_000] {
                let local = Time::from_nanos(local);
                let global = clock.global(local);
                assert!(clock.local(global) >= local, "{ppm} {local}");
                assert!(global == 1_000 || clock.local(global - 1) < local, "{ppm} {local}");
            }
        }
    }

    #[test]
    fn it_never_goes_back() {
        let mut clock = Clock::new(0, 200.0);
        let before = clock.local(5_000_000);
        clock.leap(5_000_000, Duration::from_secs(1));
        assert_eq!(clock.local(5_000_000), before + Duration::from_secs(1));
        clock.set_drift(6_000_000, -200.0);
        assert!(clock.local(6_000_000) > before);
    }
}
