//! Flood: more than anybody has reason to write or to bring. Token buckets (the generic cell rate algorithm).

use super::super::statistics::{Bucket, Rate};
use crate::author;
use crate::time::Time;

/// Limits of what is no flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Envelopes of one author. Default 5,000 a second and 10,000 at once: an author of ours writes no more than
    /// [`author::PROMPT_FLUSHES`] in a [`author::PACE`], 4,000 a second, and bundles what is more.
    pub author: Rate,
    /// New messages from one bringer, good or bad. Default 20,000 a second and 40,000 at once: what one processor
    /// core can check (measured).
    pub bringer: Rate,
    /// Refused messages from one bringer. Default 50 a second and 500 at once (guess).
    pub in_vain: Rate,
}

const _: () = assert!(author::PROMPT_FLUSHES as u128 * 1_000 / author::PACE.as_millis() < 5_000);

impl Default for Config {
    fn default() -> Self {
        Config {
            author: Rate::per_second(5_000, 10_000),
            bringer: Rate::per_second(20_000, 40_000),
            in_vain: Rate::per_second(50, 500),
        }
    }
}

/// The buckets of a bringer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bringer {
    all: Bucket,
    in_vain: Bucket,
}

impl Bringer {
    /// It brought a message; what limit that breaks, if any.
    pub fn on_message(
        &mut self,
        now: Time,
        is_in_vain: bool,
        config: &Config,
    ) -> Option<(&'static str, Rate)> {
        if is_in_vain && !self.in_vain.take(now, &config.in_vain) {
            return Some(("brought in vain", config.in_vain));
        }
        (!self.all.take(now, &config.bringer)).then_some(("brought", config.bringer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_vain_is_sooner_too_much() {
        let (mut bringer, config) = (Bringer::default(), Config::default());
        let over = |bringer: &mut Bringer, in_vain| {
            (0..1_000)
                .filter(|_| bringer.on_message(Time::from_millis(1), in_vain, &config).is_some())
                .count()
        };
        assert_eq!(over(&mut bringer, false), 0);
        assert_eq!(over(&mut bringer, true), 500);
    }
}
