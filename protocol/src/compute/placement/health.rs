//! What a driver has learned of a worker.

use std::time::Duration;

use super::times::Times;

/// How many durations are remembered for each worker. Default: guess; 20 more or less make P95 mean something.
const TIMES_MAX: usize = 64;
/// How much the newest outcome counts in rolling means, in 1/256.
const WEIGHT: u64 = 32;

/// A worker's record. Its size is bounded.
#[derive(Clone, Debug)]
pub struct Health {
    times: Times,
    /// Rolling mean of durations in nanoseconds.
    mean: Option<u64>,
    /// Rolling mean of how much longer it takes than others for the same, in thousandths: 1,000 is as long.
    slowness: Option<u64>,
    /// Rolling share of failures, in 1/65,536.
    errors: u64,
    succeeded: u64,
    failed: u64,
    dissents: u32,
}

/// A worker's record, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthView {
    /// Attempts under way.
    pub active: u32,
    /// Rolling mean of durations.
    pub mean: Option<Duration>,
    /// The median of the last ones.
    pub p50: Option<Duration>,
    /// What 95 % of the last ones do not exceed.
    pub p95: Option<Duration>,
    /// Rolling share of failures, in thousandths.
    pub error_per_mille: u16,
    /// How long it takes compared with others, in thousandths: 1,000 is as long.
    pub slowness_per_mille: u64,
    /// Attempts that went well.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Results that the majority did not have.
    pub dissents: u32,
}

impl Health {
    /// A worker of which nothing is known but how often it was wrong.
    pub fn new(dissents: u32) -> Self {
        Health {
            times: Times::new(TIMES_MAX),
            mean: None,
            slowness: None,
            errors: 0,
            succeeded: 0,
            failed: 0,
            dissents,
        }
    }
}

fn roll(mean: u64, value: u64) -> u64 {
    (mean.saturating_mul(256 - WEIGHT) / 256).saturating_add(value.saturating_mul(WEIGHT) / 256)
}

impl Health {
    /// An attempt has gone well. `typical` is what the same task takes elsewhere, if that is known.
    pub fn on_success(&mut self, time: Duration, typical: Option<Duration>) {
        let nanos = crate::time::nanos(time);
        self.times.add(time);
        self.mean = Some(self.mean.map_or(nanos, |mean| roll(mean, nanos)));
        if let Some(typical) = typical.map(crate::time::nanos).filter(|typical| *typical > 0) {
            self.note_slowness(nanos.saturating_mul(1000) / typical);
        }
        self.errors = roll(self.errors, 0);
        self.succeeded += 1;
    }

    /// An attempt has failed.
    pub fn on_failure(&mut self) {
        self.errors = roll(self.errors, 1 << 16);
        self.failed += 1;
    }

    /// An attempt was given up after so long because others were done before it.
    pub fn on_overtaken(&mut self, time: Duration, typical: Option<Duration>) {
        if let Some(typical) = typical.map(crate::time::nanos).filter(|typical| *typical > 0) {
            let ratio = crate::time::nanos(time).saturating_mul(1000) / typical;
            // It would have taken at least so long: that can only make it slower than it looks.
            if ratio > self.slowness() {
                self.note_slowness(ratio);
            }
        }
    }

    /// It has signed a wrong result.
    pub fn on_dissent(&mut self) {
        self.dissents = self.dissents.saturating_add(1);
    }

    fn note_slowness(&mut self, ratio: u64) {
        let ratio = ratio.min(1_000_000);
        self.slowness = Some(self.slowness.map_or(ratio, |mean| roll(mean, ratio)));
    }

    /// How long it takes compared with others, in thousandths; 1,000 while nothing is known.
    pub fn slowness(&self) -> u64 {
        self.slowness.unwrap_or(1000).max(1)
    }

    /// True if it has done something well: what is known of it is not a guess.
    pub fn is_proven(&self) -> bool {
        self.succeeded > 0
    }

    /// True if it has failed, and never done anything well.
    pub fn has_only_failed(&self) -> bool {
        self.failed > 0 && self.succeeded == 0
    }

    /// How willingly it is given work, from 1 to 1,000: slow, failing and lying workers get less.
    pub fn worth(&self) -> u64 {
        let reliable = 1000 - u64::from(self.error_per_mille()).min(999);
        let fast = (1_000_000 / self.slowness()).clamp(1, 1000);
        let honest = 1000_u64 >> self.dissents.min(9);
        (reliable * fast / 1000 * honest / 1000).max(1)
    }

    fn error_per_mille(&self) -> u16 {
        u16::try_from((self.errors * 1000) >> 16).unwrap_or(1000)
    }

    /// Rolling mean of durations.
    pub fn mean(&self) -> Option<Duration> {
        self.mean.map(Duration::from_nanos)
    }

    /// The record, with so many attempts under way.
    pub fn view(&self, active: u32) -> HealthView {
        HealthView {
            active,
            mean: self.mean(),
            p50: self.times.quantile(500),
            p95: self.times.quantile(950),
            error_per_mille: self.error_per_mille(),
            slowness_per_mille: self.slowness(),
            succeeded: self.succeeded,
            failed: self.failed,
            dissents: self.dissents,
        }
    }
}
