//! Where a metric goes, and whether it is unusual, from what it was itself.
//!
//! * The *trend* is the median of the slopes between all pairs of minutes of the last hour (Theil 1950, Sen 1968): up to 29 %
//!   of them may be wild. It is told if it is none by chance, at one in a hundred, by the test of Mann (1945) and Kendall
//!   (1975), which counts how many pairs rise and how many fall.
//! * A metric *reaches* a level of its threshold when the trend, from the median of the last minutes, crosses that limit
//!   within [`HORIZON`].
//! * It is *unusual* if the last minute is farther from the median of the hour before than 3.5 times its median deviation,
//!   made comparable with a standard deviation (the modified z-score of Iglewicz and Hoaglin, 1993).

use std::time::Duration;

use super::series::{Series, Slot};
use super::threshold::{Direction, Level, Metric, Threshold};
use crate::time::Time;

/// Minutes that are looked at.
const SLOTS: usize = 60;
/// Of fewer nothing is said.
const SLOTS_MIN: usize = 15;
/// The last minutes, the median of which is where the trend begins.
const LATELY: usize = 5;
/// How far ahead is looked: what an hour says of a day is little, of more nothing.
const HORIZON: Duration = Duration::from_secs(24 * 3_600);
/// The quantile of the normal distribution that is exceeded, in either direction, one time in a hundred.
const SIGNIFICANT: f64 = 2.576;
/// The score above which a minute is unusual.
const UNUSUAL: f64 = 3.5;
/// The median deviation of a normal distribution, of its standard deviation.
const MAD_OF_NORMAL: f64 = 0.6745;
/// A deviation is taken for at least this part of the limit of warning: what hardly ever moves is not unusual when it does a
/// little. Guess.
const DEVIATION_MIN: f64 = 0.01;

/// Where a metric goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// How much it changes in an hour; none: chance would do as much.
    pub per_hour: Option<f64>,
    /// The next worse level, and in how long it is reached if this goes on.
    pub reaches: Option<(Level, Duration)>,
    /// The score of the last minute, if that is unusual; below zero: it is less than usual.
    pub unusual: Option<f64>,
}

impl Outlook {
    /// From what a metric was, with its level now. The minute that is not over yet does not count: it may be a single sample.
    pub fn of(series: &Series, level: Level, threshold: &Threshold) -> Outlook {
        let mut slots: Vec<&Slot> = series.slots().rev().skip(1).take(SLOTS + 1).collect();
        slots.reverse();
        if slots.len() < SLOTS_MIN {
            return Outlook::default();
        }
        let minutes: Vec<(f64, f64)> =
            slots.iter().map(|slot| (slot.since.since(Time::ZERO).as_secs_f64(), slot.mean())).collect();
        let slope = trend(&minutes);
        let reaches = slope.and_then(|slope| {
            let next = match level {
                Level::Normal => Level::Warning,
                Level::Warning => Level::Critical,
                Level::Critical => return None,
            };
            let mut lately: Vec<f64> = minutes.iter().rev().take(LATELY).map(|(_, value)| *value).collect();
            let left = threshold.limit(next) - median(&mut lately)?;
            let is_worse = match threshold.direction {
                Direction::Above => slope > 0.0,
                Direction::Below => slope < 0.0,
            };
            let seconds = (left / slope).max(0.0);
            (is_worse && seconds <= HORIZON.as_secs_f64()).then(|| (next, Duration::from_secs_f64(seconds)))
        });
        Outlook {
            per_hour: slope.map(|slope| slope * 3_600.0),
            reaches,
            unusual: unusual(&minutes, threshold.warning.abs() * DEVIATION_MIN),
        }
    }

    /// For people; `None` if there is nothing to say.
    pub fn sentence(&self, metric: Metric) -> Option<String> {
        // What is sure but too small to be seen is not worth a word.
        let is_seen =
            |per_hour: &f64| self.reaches.is_some() || metric.show(per_hour.abs()) != metric.show(0.0);
        let trend = self.per_hour.filter(is_seen).map(|per_hour| {
            let sign = if per_hour < 0.0 { '-' } else { '+' };
            let reaches = self.reaches.map_or_else(String::new, |(level, left)| {
                let (left, unit) = match left.as_secs() {
                    seconds @ 0..5_400 => (seconds.div_ceil(60), "min"),
                    seconds => (seconds.div_ceil(3_600), "h"),
                };
                format!(", {} in about {left} {unit}", level.code())
            });
            format!("{sign}{} an hour{reaches}", metric.show(per_hour.abs()))
        });
        let unusual = self.unusual.map(|score| {
            let way = if score < 0.0 { "low" } else { "high" };
            format!("unusually {way} ({:.1} deviations)", score.abs())
        });
        let parts: Vec<String> = [trend, unusual].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The slope per second, if it is one.
fn trend(minutes: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(minutes.len() * minutes.len().saturating_sub(1) / 2);
    let mut rising = 0.0_f64;
    for (place, (at, value)) in minutes.iter().enumerate() {
        for (later_at, later) in minutes.iter().skip(place + 1) {
            let slope = (later - value) / (later_at - at).max(1.0);
            rising += if slope > 0.0 {
                1.0
            } else if slope < 0.0 {
                -1.0
            } else {
                0.0
            };
            slopes.push(slope);
        }
    }
    let n = f64::from(u32::try_from(minutes.len()).ok()?);
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    if rising.abs() <= SIGNIFICANT * deviation {
        return None;
    }
    median(&mut slopes).filter(|slope| *slope != 0.0)
}

fn unusual(minutes: &[(f64, f64)], deviation_min: f64) -> Option<f64> {
    let (last, before) = minutes.split_last()?;
    let mut values: Vec<f64> = before.iter().map(|(_, value)| *value).collect();
    let usual = median(&mut values)?;
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - usual).abs()).collect();
    let deviation = median(&mut deviations)?.max(deviation_min).max(f64::MIN_POSITIVE);
    let score = MAD_OF_NORMAL * (last.1 - usual) / deviation;
    (score.abs() > UNUSUAL).then_some(score)
}

/// The lower one of two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    /// A metric that has this value in each minute, and in the first seconds of the next one what it never had before.
    fn outlook(minutes: u64, value: impl Fn(u64) -> f64) -> Outlook {
        let mut series = Series::default();
        for second in (0..minutes * 60).step_by(5) {
            series.add(Time::from_millis(second * 1_000), value(second / 60));
        }
        series.add(Time::from_millis(minutes * 60_000), 1e6);
        Outlook::of(&series, Level::Normal, &Metric::Disk.default_threshold())
    }

    fn minute(n: u64) -> f64 {
        f64::from(u32::try_from(n).unwrap())
    }

    #[test]
    fn a_disk_that_fills_is_told_before_it_is_full() {
        // 6 % in an hour, from 50 %: 85 % is reached after 350 minutes.
        let filling = outlook(60, |n| 0.5 + 0.001 * minute(n));
        assert!((filling.per_hour.unwrap() - 0.06).abs() < 1e-9, "{filling:?}");
        let (level, left) = filling.reaches.unwrap();
        assert_eq!(level, Level::Warning);
        assert!((286..=294).contains(&(left.as_secs() / 60)), "{left:?}");
        assert_eq!(filling.unusual, None);
        assert_eq!(filling.sentence(Metric::Disk).unwrap(), "+6.00 % an hour, warning in about 5 h");
        assert_eq!(outlook(14, |n| 0.5 + 0.001 * minute(n)), Outlook::default(), "too little is known");
    }

    #[test]
    fn what_gets_better_or_would_take_days_reaches_nothing() {
        let emptying = outlook(60, |n| 0.8 - 0.001 * minute(n));
        assert!(emptying.per_hour.unwrap() < 0.0 && emptying.reaches.is_none(), "{emptying:?}");
        let slow = outlook(60, |n| 0.5 + 0.000_01 * minute(n));
        assert!(slow.per_hour.unwrap() > 0.0 && slow.reaches.is_none(), "{slow:?}");
        assert_eq!(slow.sentence(Metric::Disk).unwrap(), "+0.06 % an hour");
        assert_eq!(outlook(60, |n| 0.5 + 1e-8 * minute(n)).sentence(Metric::Disk), None, "nobody sees that");
    }

    #[test]
    fn a_few_wild_minutes_make_no_trend_and_do_not_hide_one() {
        let wild = |n: u64| n % 7 == 3;
        let flat = outlook(60, |n| if wild(n) { 0.9 } else { 0.5 });
        assert_eq!((flat.per_hour, flat.reaches), (None, None), "{flat:?}");
        let filling = outlook(60, |n| if wild(n) { 0.0 } else { 0.5 + 0.001 * minute(n) });
        assert!((filling.per_hour.unwrap() - 0.06).abs() < 0.01, "{filling:?}");
    }

    #[test]
    fn a_minute_like_no_other_is_unusual() {
        let jump =
            |to: f64| outlook(60, move |n| if n == 59 { to } else { 0.5 + 0.02 * (minute(n % 3) - 1.0) });
        assert!(jump(0.8).unusual.unwrap() > UNUSUAL);
        assert!(jump(0.2).unusual.unwrap() < -UNUSUAL);
        assert!(jump(0.2).sentence(Metric::Disk).unwrap().starts_with("unusually low ("));
        assert_eq!(jump(0.53).unusual, None);
        let still = |to: f64| outlook(60, move |n| if n == 59 { to } else { 0.5 }).unusual;
        assert_eq!(still(0.52), None, "what hardly ever moves may move a little");
        assert!(still(0.6).is_some());
    }

    #[test]
    fn noise_is_a_trend_once_in_a_hundred_times() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let told = (0..1_000).filter(|_| {
            let values: Vec<f64> = (0..60).map(|_| f64::from(rng.next_u32() % 1_000) / 1_000.0).collect();
            let minutes: Vec<(f64, f64)> =
                (0_u32..).zip(values).map(|(n, value)| (f64::from(n * 60), value)).collect();
            trend(&minutes).is_some()
        });
        let told = told.count();
        assert!((2..=25).contains(&told), "{told} of 1,000 (seed 7)");
    }

    proptest! {
        #[test]
        fn whatever_comes_no_outlook_panics(values in proptest::collection::vec(-1e300_f64..1e300, 0..100)) {
            let mut series = Series::default();
            for (second, value) in (0_u64..).step_by(60).zip(values) {
                series.add(Time::from_millis(second * 1_000), value);
            }
            for metric in Metric::ALL {
                let outlook = Outlook::of(&series, Level::Normal, &metric.default_threshold());
                prop_assert!(outlook.reaches.is_none_or(|(_, left)| left <= HORIZON));
            }
        }
    }
}
