//! Two runs side by side.

use serde::Serialize;

use super::metrics::{METRICS, MetricKind};
use crate::summary::Summary;

/// The numbers by which two runs are judged to be alike.
pub const JUDGED: [&str; 3] = ["latency_ms.p50", "latency_ms.p95", "duplicates"];

/// One number of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its path in `summary.json`.
    pub metric: &'static str,
    /// In the first run.
    pub a: Option<f64>,
    /// In the second one.
    pub b: Option<f64>,
    /// How much more it is in the second one, in percent of the first; `None` if the first is zero or has no value.
    pub difference_percent: Option<f64>,
}

/// All numbers of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// In the order of [`METRICS`]. Those that neither has are left out, but for those in [`JUDGED`].
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Of the numbers in [`JUDGED`], those that differ by more than so many percent, or that a run lacks: of two
    /// runs that delivered nothing nobody can say that they are alike.
    pub fn beyond(&self, percent: f64) -> Vec<&Row> {
        let is_beyond =
            |row: &&Row| row.difference_percent.is_none_or(|difference| difference.abs() > percent);
        let judged = self.rows.iter().filter(|row| JUDGED.contains(&row.metric));
        judged.filter(is_beyond).collect()
    }
}

/// Sets two runs side by side. What a run holds in memory is left out if they were not `alone` in their processes.
pub fn compare(a: &Summary, b: &Summary, alone: bool) -> Comparison {
    let metrics = METRICS.iter().filter(|metric| alone || metric.kind != MetricKind::Memory);
    let rows = metrics.map(|metric| {
        let (a, b) = ((metric.of)(a), (metric.of)(b));
        let difference_percent = a.zip(b).and_then(|(a, b)| difference_percent(a, b));
        Row { metric: metric.name, a, b, difference_percent }
    });
    let is_shown = |row: &Row| row.a.is_some() || row.b.is_some() || JUDGED.contains(&row.metric);
    Comparison { rows: rows.filter(is_shown).collect() }
}

fn difference_percent(a: f64, b: f64) -> Option<f64> {
    if a == b {
        return Some(0.0);
    }
    (a != 0.0).then(|| (b - a) / a * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn summary(p50: Option<f64>, duplicates: u64) -> Summary {
        let mut summary = Summary::new(&Outcome::default(), &[]);
        summary.latency_ms.p50 = p50;
        summary.duplicates = duplicates;
        summary
    }

    fn alike() -> Summary {
        let mut summary = summary(Some(100.0), 200);
        summary.latency_ms.p95 = Some(200.0);
        summary
    }

    fn beyond(a: &Summary, b: &Summary, percent: f64) -> Vec<&'static str> {
        compare(a, b, false).beyond(percent).iter().map(|row| row.metric).collect()
    }

    #[test]
    fn differences_are_in_percent_of_the_first() {
        let comparison = compare(&summary(Some(100.0), 200), &summary(Some(120.0), 150), true);
        let difference =
            |name| comparison.rows.iter().find(|row| row.metric == name).unwrap().difference_percent;
        assert_eq!(difference("latency_ms.p50"), Some(20.0));
        assert_eq!(difference("duplicates"), Some(-25.0));
        assert!(comparison.rows.iter().all(|row| row.metric != "latency_ms.p99"), "neither has one");
    }

    #[test]
    fn what_differs_by_more_is_found() {
        let a = alike();
        let with = |p50, duplicates| {
            let mut b = alike();
            (b.latency_ms.p50, b.duplicates) = (p50, duplicates);
            b
        };
        assert!(beyond(&a, &a, 0.0).is_empty());
        assert!(beyond(&a, &with(Some(115.0), 170), 15.0).is_empty());
        assert_eq!(beyond(&a, &with(Some(116.0), 160), 15.0), ["latency_ms.p50", "duplicates"]);
        // What a run lacks is no agreement; nor is something against nothing, nor nothing against nothing.
        assert_eq!(beyond(&a, &with(None, 200), 15.0), ["latency_ms.p50"]);
        assert_eq!(beyond(&with(Some(1.0), 0), &with(Some(1.0), 1), 15.0), ["duplicates"]);
        assert_eq!(beyond(&with(None, 5), &with(None, 5), 15.0), ["latency_ms.p50"]);
    }
}
