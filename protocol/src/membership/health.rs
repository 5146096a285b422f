//! Local health: who fails often should first doubt itself.
//!
//! After Lifeguard (Dadgar, Phillips, Currey: "Lifeguard: Local Health Awareness for More Accurate Failure
//! Detection", 2017, section IV.A): a score goes up when our own timers come late or our probes fail, and
//! down when a probe is answered. A single dead member raises it by one probe in a round; a slow or cut-off
//! observer raises it with every probe. The higher the score, the longer we wait before we declare a
//! suspect dead.
//!
//! Unlike Lifeguard, the score does not slow the probes, and the wait at most doubles (there: ninefold), so
//! that the last survivor of a small mesh, whose probes all fail for a good reason, still finds the others
//! dead in time.

use std::time::Duration;

/// The worst score. Lifeguard's S, table I.
pub const HEALTH_MAX: u8 = 8;
/// From here on a node says that it doubts itself. Guess: two failures in a row are common in a mesh that
/// has just lost members, three are not.
pub const HEALTH_DEGRADED: u8 = 3;

/// Why the local health changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCause {
    /// Our own timers came late, the last one by this much.
    LateTimers(Duration),
    /// Probes fail one after the other.
    ProbesFail,
    /// Timers are on time and probes are answered again.
    Recovered,
}

/// The score and whether it was reported as bad.
#[derive(Debug, Default)]
pub(super) struct Health {
    score: u8,
    reported: bool,
}

impl Health {
    pub(super) fn score(&self) -> u8 {
        self.score
    }

    /// A timer came late by this much.
    pub(super) fn on_late(&mut self, by: Duration) -> Option<HealthCause> {
        self.worsen(2, HealthCause::LateTimers(by))
    }

    /// A probe got no answer, neither directly nor by others.
    pub(super) fn on_probe_failed(&mut self) -> Option<HealthCause> {
        self.worsen(1, HealthCause::ProbesFail)
    }

    /// A probe was answered, or there is nobody to probe.
    pub(super) fn on_good(&mut self) -> Option<HealthCause> {
        self.score = self.score.saturating_sub(1);
        (self.score == 0 && std::mem::take(&mut self.reported)).then_some(HealthCause::Recovered)
    }

    fn worsen(&mut self, by: u8, cause: HealthCause) -> Option<HealthCause> {
        self.score = self.score.saturating_add(by).min(HEALTH_MAX);
        let report = self.score >= HEALTH_DEGRADED && !self.reported;
        self.reported |= report;
        report.then_some(cause)
    }

    /// How long a suspect has to answer: `base` when all is well, twice that at worst.
    pub(super) fn suspicion(&self, base: Duration) -> Duration {
        base.saturating_add(base.saturating_mul(u32::from(self.score)) / u32::from(HEALTH_MAX))
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.score <= HEALTH_MAX, "health score {} above its maximum", self.score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_said_once_and_taken_back_once() {
        let mut health = Health::default();
        let second = Duration::from_secs(1);
        assert_eq!(health.suspicion(second), second);
        assert_eq!(health.on_late(second), None);
        assert_eq!(health.on_late(second), Some(HealthCause::LateTimers(second)));
        assert_eq!(health.on_probe_failed(), None);
        for _ in 0..9 {
            health.on_probe_failed();
        }
        assert_eq!(health.score(), HEALTH_MAX);
        assert_eq!(health.suspicion(second), 2 * second);
        let said: Vec<_> = (0..9).filter_map(|_| health.on_good()).collect();
        assert_eq!(said, [HealthCause::Recovered]);
        assert_eq!(health.on_good(), None);
    }
}
