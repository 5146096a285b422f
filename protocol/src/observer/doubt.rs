//! Doubt: a node that is itself slow, behind or cut off suspects itself before it suspects others.
//!
//! After Lifeguard (Dadgar, Phillips, Currey, 2017): *local health awareness*. Five things make a node doubt itself,
//! each 0 (all well) to 1; the whole is 1 minus the product of what is left of each:
//!
//! ```text
//! lag      how late the last timers came: 0 below 0.25 s, 1 from 2 s on; fades by half in 10 s
//! step     1 without a step, else how far the own clock is from the mesh's: 0 below a quarter of a step, 1 from a step on
//! company  what is missing of three connected peers, or of all members if those are fewer
//! health   the score of failed probes of the membership protocol, of 8
//! ```
//!
//! What is held against others by suspicion counts `1 − doubt` of its weight. What no honest node does, and what is
//! proved, does not depend on who looks.

use std::time::Duration;

use super::statistics::decay;
use crate::membership::HEALTH_MAX;
use crate::time::Time;

/// Timers this late are nothing.
const LAG_MIN_MS: u64 = 250;
/// From here on they are all.
const LAG_MAX_MS: u64 = 2_000;
/// Half of a lag is forgotten after so many seconds.
const LAG_HALF_LIFE_S: u32 = 10;
/// So many peers are company. Three can outvote one.
const COMPANY: usize = 3;

/// What a node knows against itself.
#[derive(Clone, Debug)]
pub struct Doubt {
    lag: f64,
    lag_at: Time,
    step: f64,
    company: f64,
    health: f64,
}

impl Default for Doubt {
    /// A node that has just started has no step and no company.
    fn default() -> Self {
        Doubt { lag: 0.0, lag_at: Time::ZERO, step: 1.0, company: 1.0, health: 0.0 }
    }
}

impl Doubt {
    /// A timer came so late.
    pub fn on_lag(&mut self, now: Time, lag: Duration) {
        let ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let new = share(ms.saturating_sub(LAG_MIN_MS), LAG_MAX_MS - LAG_MIN_MS);
        self.lag = self.lag_at(now).max(new);
        self.lag_at = now;
    }

    /// Where the own clock is among the mesh's; `None`: nowhere.
    pub fn on_skew(&mut self, skew: Option<Duration>, step: Duration) {
        let quarter = step / 4;
        self.step = skew.map_or(1.0, |skew| {
            let whole = u64::try_from((step - quarter).as_micros()).unwrap_or(u64::MAX);
            share(u64::try_from(skew.saturating_sub(quarter).as_micros()).unwrap_or(u64::MAX), whole)
        });
    }

    /// Who is connected, of how many others there are.
    pub fn on_company(&mut self, peers: usize, others: usize) {
        let wanted = COMPANY.min(others.max(1));
        self.company = 1.0 - share(peers as u64, wanted as u64);
    }

    /// The membership protocol's health score.
    pub fn on_health(&mut self, score: u8) {
        self.health = share(u64::from(score), u64::from(HEALTH_MAX));
    }

    /// How much this node doubts itself, 0 to 1.
    pub fn value(&self, now: Time) -> f64 {
        1.0 - self.parts(now).iter().map(|(_, part)| 1.0 - part).product::<f64>()
    }

    /// What it doubts, by name.
    pub fn parts(&self, now: Time) -> [(&'static str, f64); 4] {
        [("lag", self.lag_at(now)), ("step", self.step), ("company", self.company), ("health", self.health)]
    }

    fn lag_at(&self, now: Time) -> f64 {
        self.lag * decay(now.since(self.lag_at).as_secs(), LAG_HALF_LIFE_S)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { (part as f64 / whole as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Doubt {
        let mut doubt = Doubt::default();
        doubt.on_skew(Some(Duration::from_millis(3)), Duration::from_secs(1));
        doubt.on_company(6, 100);
        doubt
    }

    #[test]
    fn each_cause_makes_it_doubt_itself() {
        let now = Time::from_millis(100_000);
        let second = Duration::from_secs(1);
        assert_eq!(well().value(now), 0.0);
        assert_eq!(Doubt::default().value(now), 1.0);
        let cases: [fn(&mut Doubt); 5] = [
            |d| d.on_lag(Time::from_millis(100_000), Duration::from_secs(10)),
            |d| d.on_skew(None, Duration::from_secs(1)),
            |d| d.on_skew(Some(Duration::from_secs(1)), Duration::from_secs(1)),
            |d| d.on_company(0, 100),
            |d| d.on_health(HEALTH_MAX),
        ];
        for case in cases {
            let mut doubt = well();
            case(&mut doubt);
            assert_eq!(doubt.value(now), 1.0);
        }
        let mut doubt = well();
        doubt.on_lag(now, Duration::from_millis(200));
        doubt.on_skew(Some(second / 8), second);
        doubt.on_company(1, 1);
        assert_eq!(doubt.value(now), 0.0, "small things are none");
        doubt.on_health(4);
        doubt.on_company(2, 3);
        let value = doubt.value(now);
        assert!((value - (1.0 - 0.5 * 2.0 / 3.0)).abs() < 1e-9, "{value}");
    }

    #[test]
    fn after_a_stop_it_doubts_itself_for_a_while() {
        let mut doubt = well();
        let woke = Time::from_millis(100_000);
        doubt.on_lag(woke, Duration::from_secs(10));
        let after = |s| doubt.value(woke + Duration::from_secs(s));
        assert!(after(1) > 0.9 && after(10) > 0.45 && after(60) < 0.05);
    }
}
