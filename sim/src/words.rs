//! Numbers as people read them, for the details of checks and the report.

use std::time::Duration;

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts: `1 node`, `1,200 nodes`.
pub(crate) fn counted(number: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", count(number), if number == 1 { singular } else { plural })
}

/// With so many decimals at most, without trailing zeros: `12.5`, `3`. What is no number is a `?`.
pub(crate) fn decimal(number: f64, decimals: usize) -> String {
    if !number.is_finite() {
        return "?".into();
    }
    let text = format!("{number:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, rest) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), count);
    match rest {
        Some(rest) => format!("{sign}{whole}.{rest}"),
        None if whole == "0" => whole,
        None => format!("{sign}{whole}"),
    }
}

/// A moment or a length in virtual time: `31.5 s`, `250 ms`.
pub(crate) fn time(time: Duration) -> String {
    if time.is_zero() {
        "0 s".into()
    } else if time < Duration::from_secs(1) {
        millis(time.as_secs_f64() * 1e3)
    } else {
        format!("{} s", decimal(time.as_secs_f64(), 3))
    }
}

/// Three or more digits that count: `42.1 ms`, `0.035 ms`, `1,520 ms`, `12.5 s`.
pub(crate) fn millis(ms: f64) -> String {
    if ms.abs() >= 10_000.0 {
        return format!("{} s", decimal(ms / 1e3, 1));
    }
    let decimals = match ms.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{} ms", decimal(ms, decimals))
}

/// `99.87 %`. What is not all is not shown as 100, and what is not nothing not as 0.
pub(crate) fn percent(part: f64) -> String {
    let percent = part * 100.0;
    let decimals = (2..8).find(|&decimals| {
        let shown = decimal(percent, decimals);
        (shown != "100" || part == 1.0) && (shown != "0" || part == 0.0)
    });
    format!("{} %", decimal(percent, decimals.unwrap_or(8)))
}

/// `1.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    mean_bytes(bytes as f64)
}

/// The same of a number that is not whole.
pub(crate) fn mean_bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024.0 {
        let number = decimal(bytes, 0);
        return format!("{number} {}", if number == "1" { "byte" } else { "bytes" });
    }
    let mut value = bytes / 1024.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", decimal(value, 1), UNITS[unit])
}

/// `3, 7 and 9`, `3, 7, 9 and 12 more`: so many at most.
pub(crate) fn list<T: ToString>(items: &[T], most: usize) -> String {
    let shown: Vec<String> = items.iter().take(most).map(ToString::to_string).collect();
    match (shown.split_last(), items.len().saturating_sub(most)) {
        (None, _) => String::new(),
        (Some((last, [])), 0) => last.clone(),
        (Some((last, first)), 0) => format!("{} and {last}", first.join(", ")),
        (Some(_), more) => format!("{} and {} more", shown.join(", "), count(more as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [12.50, 3.0, -0.001, 1234.25, -1234.0].map(|x| decimal(x, 2)),
            ["12.5", "3", "0", "1,234.25", "-1,234"]
        );
        assert_eq!(
            [0.0346, 4.256, 42.07, 1520.2, 12_514.0].map(millis),
            ["0.035 ms", "4.26 ms", "42.1 ms", "1,520 ms", "12.5 s"]
        );
        assert_eq!([0, 250, 31_500].map(|ms| time(Duration::from_millis(ms))), ["0 s", "250 ms", "31.5 s"]);
        assert_eq!(
            [0, 1, 1000, 1 << 20, 1_289_748].map(bytes),
            ["0 bytes", "1 byte", "1,000 bytes", "1 MiB", "1.2 MiB"]
        );
    }

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!([0.0, 1.0, 0.9987, 0.25].map(percent), ["0 %", "100 %", "99.87 %", "25 %"]);
        assert_eq!([0.999_999, 0.000_001].map(percent), ["99.9999 %", "0.0001 %"]);
    }

    #[test]
    fn lists_are_cut() {
        assert_eq!(list(&[3], 3), "3");
        assert_eq!(list(&[3, 7, 9], 3), "3, 7 and 9");
        assert_eq!(list(&[3, 7, 9, 1, 1], 3), "3, 7, 9 and 2 more");
        assert_eq!(list::<u32>(&[], 3), "");
    }
}
