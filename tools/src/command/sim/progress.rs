//! How far a simulation is, for people who look at a terminal; nothing is drawn elsewhere.

use std::borrow::Cow;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use omnimesh_sim::model::Progress;

/// A bar along virtual time, with events per second and the time left.
pub(super) struct Bar {
    bar: ProgressBar,
    began: Instant,
}

impl Bar {
    /// A bar for something of this name.
    pub(super) fn new(name: impl Into<Cow<'static, str>>) -> Self {
        let bar = ProgressBar::new(1).with_prefix(name);
        bar.set_style(style("{prefix} {bar:30} {percent:>3} %  {msg}  {eta} left"));
        Bar { bar, began: Instant::now() }
    }

    /// Tells how far it is.
    pub(super) fn set(&self, now: Progress) {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.bar.set_length(millis(now.duration).max(1));
        self.bar.set_position(millis(now.virtual_time));
        let rate = now.events as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let (virtual_s, end_s) = (now.virtual_time.as_secs_f64(), now.duration.as_secs_f64());
        self.bar.set_message(format!("{virtual_s:.1} of {end_s:.1} s, {} events/s", short(rate)));
    }
}

/// It vanishes with the thing it shows.
impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar along a number of runs.
pub(super) fn of_runs(runs: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(runs).unwrap_or(u64::MAX));
    bar.set_style(style("{bar:30} {pos} of {len} runs  {msg}  {eta} left"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A number for people: `1.2 M`.
pub(super) fn short(number: f64) -> String {
    for (unit, of) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if number.abs() >= of {
            return format!("{:.1} {unit}", number / of);
        }
    }
    format!("{number:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_short() {
        assert_eq!([12.4, 1_234.0, 2.5e6, 3e10].map(short), ["12", "1.2 k", "2.5 M", "30.0 G"]);
    }
}
