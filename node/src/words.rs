//! Moments and durations as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds of Unix time, as RFC 3339 writes it: in UTC, to the second.
pub fn moment(ms: u64) -> String {
    humantime::format_rfc3339_seconds(since_1970(ms)).to_string()
}

/// The same to the millisecond.
pub fn precise_moment(ms: u64) -> String {
    humantime::format_rfc3339_millis(since_1970(ms)).to_string()
}

fn since_1970(ms: u64) -> SystemTime {
    // What is beyond the year 9999 cannot be written so.
    UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000))
}

/// A duration in milliseconds, in the unit that fits.
#[expect(clippy::cast_precision_loss, reason = "below two minutes")]
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        120_000..7_200_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_form_at_both_ends() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(precise_moment(1), "1970-01-01T00:00:00.001Z");
        assert_eq!(moment(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(precise_moment(u64::MAX), "9999-12-31T23:59:59.000Z");
        let all = [0, 999, 1000, 119_999, 120_000, 7_199_999, 7_200_000].map(duration);
        assert_eq!(all, ["0 ms", "999 ms", "1.0 s", "120.0 s", "2 min 0 s", "119 min 59 s", "2 h 0 min"]);
    }
}
