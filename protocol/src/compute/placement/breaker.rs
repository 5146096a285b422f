//! A circuit breaker: who fails again and again is left alone for a while (Nygard, *Release It!*, 2007).
//!
//! ```text
//!            failures_max in a row, or                     cool-down is over
//!            too many of the last 20      ┌──────────┐   ┌───────────┐
//!   CLOSED ─────────────────────────────► │   OPEN   │──►│ HALF OPEN │  one attempt at a time
//!      ▲                                  └──────────┘   └───────────┘
//!      │                                        ▲   failure    │
//!      │                                        └──────────────┤  (the next cool-down is twice as long)
//!      └──────────────────────── success ──────────────────────┘
//! ```

use std::time::Duration;

use crate::time::Time;

/// When a breaker opens and closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// So many failures in a row open it. Default 5 (guess; Hystrix and resilience4j count rates over windows, see below).
    pub failures_max: u32,
    /// So many failures of the last 20 attempts, in thousandths, open it. Default 500, resilience4j's.
    pub failure_per_mille: u16,
    /// How long it stays open at first. Default 5 s, Hystrix's sleep window.
    pub cool_down: Duration,
    /// How long at most: it doubles with each failure in between. Default 2 min (guess).
    pub cool_down_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            failures_max: 5,
            failure_per_mille: 500,
            cool_down: Duration::from_secs(5),
            cool_down_max: Duration::from_secs(120),
        }
    }
}

/// The three states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything goes through.
    Closed,
    /// Nothing does.
    Open,
    /// One attempt at a time.
    HalfOpen,
}

impl BreakerState {
    /// The stable name.
    pub const fn code(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// The breaker of one worker.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// Open until then; `None` while it is closed.
    until: Option<Time>,
    cool_down: Duration,
    in_a_row: u32,
    /// The last 20 outcomes, the newest in the lowest bit; 1 is a failure.
    last: u32,
    counted: u32,
}

const WINDOW: u32 = 20;

impl Breaker {
    /// A closed one.
    pub fn new(config: &BreakerConfig) -> Self {
        Breaker { until: None, cool_down: config.cool_down, in_a_row: 0, last: 0, counted: 0 }
    }

    /// Its state.
    pub fn state(&self, now: Time) -> BreakerState {
        match self.until {
            None => BreakerState::Closed,
            Some(until) if now < until => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// True if everything goes through.
    pub fn is_closed(&self) -> bool {
        self.until.is_none()
    }

    /// When it lets the first attempt through; `None` if it is not open.
    pub fn opens_until(&self, now: Time) -> Option<Time> {
        self.until.filter(|until| now < *until)
    }

    /// An attempt has gone well.
    pub fn on_success(&mut self, config: &BreakerConfig) {
        if self.until.is_some() {
            *self = Breaker::new(config);
        }
        self.in_a_row = 0;
        self.note(false);
    }

    /// An attempt has failed; true if the breaker opened.
    pub fn on_failure(&mut self, config: &BreakerConfig, now: Time) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.note(true);
        let was_half_open = match self.state(now) {
            // What was under way when it opened says nothing new.
            BreakerState::Open => return false,
            BreakerState::HalfOpen => true,
            BreakerState::Closed => false,
        };
        let is_over = self.counted >= WINDOW
            && self.last.count_ones() * 1000 >= u32::from(config.failure_per_mille) * WINDOW;
        if was_half_open {
            self.cool_down = (self.cool_down * 2).min(config.cool_down_max);
        } else if self.in_a_row < config.failures_max && !is_over {
            return false;
        }
        self.until = Some(now + self.cool_down);
        true
    }

    fn note(&mut self, is_failure: bool) {
        self.last = (self.last << 1 | u32::from(is_failure)) & ((1 << WINDOW) - 1);
        self.counted = (self.counted + 1).min(WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_probes_and_closes() {
        let config = BreakerConfig { failures_max: 3, ..BreakerConfig::default() };
        let mut breaker = Breaker::new(&config);
        let mut now = Time::ZERO;
        assert!(!breaker.on_failure(&config, now));
        assert!(!breaker.on_failure(&config, now));
        breaker.on_success(&config);
        assert!(!breaker.on_failure(&config, now));
        assert!(!breaker.on_failure(&config, now));
        assert!(breaker.on_failure(&config, now));
        assert_eq!(breaker.state(now), BreakerState::Open);
        // Late failures of what was under way do not make it longer.
        assert!(!breaker.on_failure(&config, now));
        now = now + config.cool_down;
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        assert!(breaker.on_failure(&config, now));
        assert_eq!(breaker.state(now + config.cool_down), BreakerState::Open);
        assert_eq!(breaker.state(now + config.cool_down * 2), BreakerState::HalfOpen);
        breaker.on_success(&config);
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn half_of_the_last_twenty_open_it() {
        let config = BreakerConfig { failures_max: 100, ..BreakerConfig::default() };
        let mut breaker = Breaker::new(&config);
        for place in 0..19 {
            if place % 2 == 0 {
                assert!(!breaker.on_failure(&config, Time::ZERO));
            } else {
                breaker.on_success(&config);
            }
        }
        assert!(breaker.on_failure(&config, Time::ZERO));
    }
}
