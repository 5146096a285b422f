//! How well those who misbehave were found, from what honest nodes held against others and from what was true.
//!
//! * A *verdict* is that an honest node holds something of one kind against another node: a finding that lowers its
//!   trust, a proof, or silence, which lowers nothing. However often it is repeated, it is one.
//! * Those who *misbehave* are those who have: who was to drop what it forwards, and had nothing to forward, has done nothing.
//! * It is *right* if the other one misbehaves, has begun to, and the kind is a name of what it does
//!   ([`crate::scenario::AdversaryKind::findings`]); *false* if the other one is honest. One against somebody who
//!   misbehaves, under another name, is neither.
//! * **Precision**: of the right and the false verdicts, the right ones. For one adversary, only kinds that name it.
//! * A *witness* of somebody who misbehaves is an honest node that can know ([`crate::scenario::Witnesses`]), is up at the
//!   end and has a step: of what is proved, or said to all, every one; else those to whom it was done often enough, and those
//!   who came to know it sooner.
//! * **Recall**: of all pairs of one that misbehaves and a witness, those in which the witness has come to the right verdict.
//! * **Found**: nodes that misbehave with a right verdict by anybody honest.
//! * **Time to detect**: from what a node first does until the first right verdict.
//! * **Spread**: from the first quarantine of a node until 99 % of the honest nodes that are up have it in
//!   quarantine, of what can be proved.
//! * **False quarantine**: an honest node that an honest node has put into quarantine or on its graylist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{DetectionFacts, Held, Outcome, Truth};
use crate::stats::percentile;

/// Of so many thousandths of the honest nodes that are up a quarantine is one everywhere.
const EVERYWHERE: u64 = 990;

/// How one adversary of a scenario was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its kind and place in the scenario: `tamper#1`.
    pub name: String,
    /// Whether what it does can be proved.
    pub is_provable: bool,
    /// Nodes of this kind that have misbehaved.
    pub nodes: u64,
    /// Nodes of it that found no occasion to.
    pub idle: u64,
    /// Of the nodes that have misbehaved, those that anybody honest has found.
    pub found: u64,
    /// Pairs of one that misbehaves and one that can know.
    pub witnesses: u64,
    /// Of these, those with a right verdict.
    pub witnesses_right: u64,
    /// Right verdicts.
    pub verdicts: u64,
    /// False ones of the kinds that name this adversary.
    pub verdicts_false: u64,
    /// Times to detect, ascending, in milliseconds.
    pub times_ms: Vec<f64>,
    /// Of what can be proved: those who were in quarantine everywhere at the end.
    pub everywhere: u64,
    /// Times to spread, ascending, in milliseconds.
    pub spread_ms: Vec<f64>,
}

impl Row {
    /// Right verdicts, of the right and the false ones.
    pub fn precision(&self) -> Option<f64> {
        crate::stats::part(self.verdicts, self.verdicts + self.verdicts_false)
    }

    /// Witnesses with a right verdict, of all.
    pub fn recall(&self) -> Option<f64> {
        crate::stats::part(self.witnesses_right, self.witnesses)
    }

    /// The time to detect at so many thousandths.
    pub fn time_ms(&self, per_mille: usize) -> Option<f64> {
        percentile(&self.times_ms, per_mille)
    }

    /// The time to spread at so many thousandths.
    pub fn spread_at_ms(&self, per_mille: usize) -> Option<f64> {
        percentile(&self.spread_ms, per_mille)
    }

    /// Adds another run's figures of the same adversary.
    pub fn add(&mut self, other: &Row) {
        self.nodes += other.nodes;
        self.idle += other.idle;
        self.found += other.found;
        self.witnesses += other.witnesses;
        self.witnesses_right += other.witnesses_right;
        self.verdicts += other.verdicts;
        self.verdicts_false += other.verdicts_false;
        self.everywhere += other.everywhere;
        self.times_ms.extend(&other.times_ms);
        self.spread_ms.extend(&other.spread_ms);
        self.times_ms.sort_unstable_by(f64::total_cmp);
        self.spread_ms.sort_unstable_by(f64::total_cmp);
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Each adversary, in the order of the scenario.
    pub rows: Vec<Row>,
    /// Verdicts against those who misbehave that are right.
    pub verdicts: u64,
    /// Verdicts against honest nodes, by kind.
    pub verdicts_false: BTreeMap<&'static str, u64>,
    /// Honest nodes that were shut out.
    pub false_quarantined: BTreeSet<u32>,
    /// Honest nodes that were shut out by what counts as proof.
    pub falsely_convicted: BTreeSet<u32>,
}

impl Scores {
    /// Counts up a run; `None` if its nodes had no observers.
    pub fn of(outcome: &Outcome) -> Option<Scores> {
        let facts = outcome.detection.as_ref()?;
        let mut scores = Scores {
            rows: rows(outcome, facts),
            false_quarantined: outcome.false_quarantines.iter().map(|(_, whom, _)| *whom).collect(),
            ..Scores::default()
        };
        let truth: BTreeMap<u32, &Truth> =
            outcome.adversary_nodes.iter().copied().zip(&facts.truth).collect();
        let honest = |node: u32| !truth.contains_key(&node);
        scores.falsely_convicted =
            facts.convicted.iter().map(|c| c.whom).filter(|whom| honest(*whom)).collect();
        let mut first: BTreeMap<u32, Duration> = BTreeMap::new();
        let mut right: BTreeSet<(u32, u32)> = BTreeSet::new();
        for held in &facts.held {
            let Held { by, against, kind, at } = *held;
            match truth.get(&against) {
                None => {
                    *scores.verdicts_false.entry(kind.code()).or_default() += 1;
                    for row in rows_of(&mut scores.rows, facts, |truth| truth.kinds.contains(&kind)) {
                        row.verdicts_false += 1;
                    }
                }
                Some(truth) if truth.from.is_some_and(|from| at >= from) && truth.kinds.contains(&kind) => {
                    scores.verdicts += 1;
                    if let Some(row) = scores.rows.get_mut(truth.adversary) {
                        row.verdicts += 1;
                    }
                    right.insert((against, by));
                    let took = first.entry(against).or_insert(at);
                    *took = at.min(*took);
                }
                Some(_) => {}
            }
        }
        for (node, at) in first {
            let Some(truth) = truth.get(&node) else { continue };
            let Some(row) = scores.rows.get_mut(truth.adversary) else { continue };
            row.found += 1;
            row.times_ms.push(at.saturating_sub(truth.from.unwrap_or(at)).as_secs_f64() * 1e3);
        }
        for (node, truth) in truth {
            let Some(row) = scores.rows.get_mut(truth.adversary).filter(|_| truth.from.is_some()) else {
                continue;
            };
            // Who knows could know: what it found out early it did not meet for long.
            let know = right.range((node, 0)..=(node, u32::MAX)).count();
            let others = truth.witnesses.iter().filter(|by| !right.contains(&(node, **by))).count();
            row.witnesses += (know + others) as u64;
            row.witnesses_right += know as u64;
        }
        scores.spread(outcome, facts);
        for row in &mut scores.rows {
            row.times_ms.sort_unstable_by(f64::total_cmp);
            row.spread_ms.sort_unstable_by(f64::total_cmp);
        }
        Some(scores)
    }

    /// How fast quarantines came to be everywhere.
    fn spread(&mut self, outcome: &Outcome, facts: &DetectionFacts) {
        let wanted = u64::from(facts.honest_up) * EVERYWHERE / 1_000;
        for (node, truth) in outcome.adversary_nodes.iter().zip(&facts.truth) {
            let of_node = facts.convicted.iter().filter(|convicted| convicted.whom == *node);
            // Somebody who was down may convict twice.
            let mut by: BTreeMap<u32, Duration> = BTreeMap::new();
            for convicted in of_node {
                by.entry(convicted.by).or_insert(convicted.at);
            }
            let mut times: Vec<Duration> = by.into_values().collect();
            times.sort_unstable();
            let place = usize::try_from(wanted.max(1) - 1).unwrap_or(usize::MAX);
            if let (Some(first), Some(last)) = (times.first(), times.get(place))
                && let Some(row) = self.rows.get_mut(truth.adversary)
            {
                row.everywhere += 1;
                row.spread_ms.push(last.saturating_sub(*first).as_secs_f64() * 1e3);
            }
        }
    }
}

fn rows(outcome: &Outcome, facts: &DetectionFacts) -> Vec<Row> {
    let of = |(place, effect): (usize, &crate::outcome::Effect)| {
        let mine = || facts.truth.iter().filter(move |truth| truth.adversary == place);
        Row {
            name: effect.name.clone(),
            is_provable: mine().any(|truth| truth.is_provable),
            nodes: mine().filter(|truth| truth.from.is_some()).count() as u64,
            idle: mine().filter(|truth| truth.from.is_none()).count() as u64,
            ..Row::default()
        }
    };
    outcome.adversaries.iter().enumerate().map(of).collect()
}

fn rows_of<'a>(
    rows: &'a mut [Row],
    facts: &'a DetectionFacts,
    is_named: impl Fn(&Truth) -> bool + 'a,
) -> impl Iterator<Item = &'a mut Row> {
    let named: BTreeSet<usize> =
        facts.truth.iter().filter(|truth| is_named(truth)).map(|truth| truth.adversary).collect();
    rows.iter_mut().enumerate().filter(move |(place, _)| named.contains(place)).map(|(_, row)| row)
}

#[cfg(test)]
mod tests {
    use omnimesh_protocol::observer::AnomalyKind;

    use super::*;
    use crate::outcome::{Convicted, Effect};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn effect(name: &str) -> Effect {
        Effect { name: name.into(), planned: 1, effective: 1, at: MS(0), until: None }
    }

    fn held(by: u32, against: u32, kind: AnomalyKind, at: u64) -> Held {
        Held { by, against, kind, at: MS(at) }
    }

    /// Node 4 tampers from 1 s on, 5 and 6 equivocate from 2 s on, and 7 never found an occasion.
    fn outcome(held: Vec<Held>, convicted: Vec<Convicted>) -> Outcome {
        let truth = |adversary, kinds: &[AnomalyKind], is_provable, from| Truth {
            adversary,
            kinds: kinds.to_vec(),
            is_provable,
            from,
            witnesses: vec![0, 1, 2, 3],
        };
        let equivocates = truth(1, &[AnomalyKind::Equivocation], true, Some(MS(2_000)));
        let idle = truth(1, &[AnomalyKind::Equivocation], true, None);
        let mut tampers = truth(0, &[AnomalyKind::BadSignature], false, Some(MS(1_000)));
        tampers.witnesses = vec![0, 2];
        let truth = vec![tampers, equivocates.clone(), equivocates, idle];
        Outcome {
            nodes: 8,
            adversaries: vec![effect("tamper#1"), effect("equivocate#2")],
            adversary_nodes: vec![4, 5, 6, 7],
            detection: Some(DetectionFacts { held, convicted, truth, honest_up: 5, connections_refused: 0 }),
            ..Outcome::default()
        }
    }

    #[test]
    fn verdicts_are_right_false_or_neither() {
        use AnomalyKind::{BadSignature, Equivocation, Latency, NeverForwards};
        let scores = Scores::of(&outcome(
            vec![
                held(0, 4, BadSignature, 900), // before it began
                held(1, 4, BadSignature, 1_500),
                held(0, 4, BadSignature, 1_200),
                held(2, 4, NeverForwards, 1_300), // another name
                held(0, 5, Equivocation, 5_000),
                held(0, 1, BadSignature, 3_000), // honest
                held(1, 2, Latency, 3_000),      // honest, and no name of these
            ],
            Vec::new(),
        ))
        .unwrap();
        let [tamper, equivocate] = &scores.rows[..] else { panic!("two rows") };
        assert_eq!((tamper.nodes, tamper.found, tamper.verdicts, tamper.verdicts_false), (1, 1, 2, 1));
        assert_eq!(tamper.times_ms, [200.0]);
        // Of two that can know one has the wrong name for it, and a third one knows; of twice four one has a verdict.
        assert_eq!((tamper.recall(), tamper.witnesses), (Some(2.0 / 3.0), 3));
        assert_eq!((equivocate.precision(), equivocate.recall()), (Some(1.0), Some(0.125)));
        assert_eq!((equivocate.found, equivocate.nodes), (1, 2));
        assert_eq!((tamper.is_provable, equivocate.is_provable), (false, true));
        assert_eq!((tamper.idle, equivocate.idle), (0, 1));
        assert_eq!(scores.verdicts, 3);
        assert_eq!(scores.verdicts_false, BTreeMap::from([("bad_signature", 1), ("latency", 1)]));
        assert_eq!(Scores::of(&Outcome::default()), None);
    }

    #[test]
    fn a_quarantine_is_everywhere_when_nearly_all_have_it() {
        let convicted = |by, whom, at| Convicted { by, whom, at: MS(at) };
        let mut all: Vec<Convicted> =
            (0..5).map(|by| convicted(by, 6, 3_000 + u64::from(by) * 100)).collect();
        all.extend([convicted(0, 7, 4_000), convicted(0, 7, 9_000), convicted(1, 2, 5_000)]);
        let scores = Scores::of(&outcome(Vec::new(), all)).unwrap();
        // Four of five are 99 %, rounded down.
        assert_eq!((scores.rows[1].everywhere, &scores.rows[1].spread_ms[..]), (1, &[300.0][..]));
        assert_eq!(scores.falsely_convicted, BTreeSet::from([2]));
    }
}
