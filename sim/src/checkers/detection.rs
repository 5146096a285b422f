//! Whether those who misbehave were found, and nobody else.

use super::Verdict;
use crate::detection::{Row, Scores};
use crate::outcome::Outcome;
use crate::words::{counted, decimal};

pub(super) fn detection(
    outcome: &Outcome,
    precision_min: f64,
    recall_min: f64,
    false_quarantined_max: u64,
) -> Verdict {
    let Some(scores) = Scores::of(outcome) else {
        return Err(
            "Nodes had no observers, so nobody could find anybody: set `enabled = true` in `[observer]`."
                .into(),
        );
    };
    if scores.rows.iter().all(|row| row.nodes == 0) {
        return Err("Nobody misbehaved, so nobody could be found: add `[[adversaries]]`.".into());
    }
    let mut wrong = Vec::new();
    for row in scores.rows.iter().filter(|row| row.nodes > 0) {
        // Where nobody could know there is no recall.
        let Some(recall) = row.recall() else { continue };
        if recall < recall_min {
            wrong.push(format!(
                "{}: {} of {} found, by {} of {} that could know (recall {})",
                row.name,
                row.found,
                row.nodes,
                row.witnesses_right,
                row.witnesses,
                decimal(recall, 4)
            ));
        }
        // Of somebody whom nobody saw there is no precision; that is the recall's.
        if let Some(precision) = row.precision().filter(|precision| *precision < precision_min) {
            let all = row.verdicts + row.verdicts_false;
            let text = format!(
                "{} of {all} verdicts false (precision {})",
                row.verdicts_false,
                decimal(precision, 4)
            );
            wrong.push(format!("{}: {text}", row.name));
        }
    }
    let shut_out = scores.false_quarantined.len() as u64;
    if shut_out > false_quarantined_max {
        let first = scores.false_quarantined.first().copied().unwrap_or_default();
        wrong.push(format!(
            "{} shut out, among them {first}",
            counted(shut_out, "honest node", "honest nodes")
        ));
    }
    let summary = |row: &Row| {
        let precision = row.precision().map_or_else(|| "none".to_owned(), |p| decimal(p, 4));
        let recall = row.recall().map_or_else(|| "none".to_owned(), |recall| decimal(recall, 4));
        format!("{} {}/{} (precision {precision}, recall {recall})", row.name, row.found, row.nodes)
    };
    if wrong.is_empty() {
        let rows: Vec<String> = scores.rows.iter().filter(|row| row.nodes > 0).map(summary).collect();
        return Ok(format!(
            "Found {}; {}.",
            rows.join(", "),
            counted(shut_out, "honest node shut out", "honest nodes shut out")
        ));
    }
    Err(format!(
        "{}. Wanted: precision {}, recall {} for each, at most {}. Look at `detector.kinds` of the summary.",
        wrong.join("; "),
        decimal(precision_min, 4),
        decimal(recall_min, 4),
        counted(false_quarantined_max, "honest node shut out", "honest nodes shut out"),
    ))
}
