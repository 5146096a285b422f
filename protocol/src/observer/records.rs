//! What is remembered of the accused: findings by kind, trust, and how that changed. Bounded.

use std::fmt::Display;
use std::hash::Hash as StdHash;
use std::num::NonZeroUsize;

use lru::LruCache;
use smallvec::SmallVec;

use super::finding::{AnomalyKind, Detail, Finding, Severity, Subject};
use super::statistics::{Bucket, Rate};
use super::trust::{self, Change, History, Trust, Weight};
use crate::id::{Hash, NodeId, Step};
use crate::time::Time;

/// New accused in a second: more than a node meets in peace, and few enough that those whom it knows are not
/// forgotten, as they are looked at every second.
const FRESH: Rate = Rate::per_second(256, 1024);
/// A suspicion of one kind counts once in this time, or the one who acts faster is judged harder for the same.
const WEIGHED_EVERY_MS: u64 = 1_000;

/// A suspicion of which a node doubts more than this is told as no warning.
const DOUBTED: f64 = 0.5;

/// What is kept of a kind of finding.
#[derive(Clone, Debug)]
pub(super) struct Count {
    pub(super) kind: AnomalyKind,
    first_step: Step,
    last_step: Step,
    count: u64,
    is_fault: bool,
    severity: Severity,
    evidence: Option<Hash>,
    reporter: NodeId,
    detail: Detail,
    /// Findings of all accused are ordered by this.
    order: u64,
    weighed: Option<Time>,
}

impl Count {
    fn to_finding(&self, accused: String) -> Finding {
        Finding {
            kind: self.kind,
            accused,
            reporter: self.reporter,
            first_step: self.first_step,
            last_step: self.last_step,
            count: self.count,
            severity: self.severity,
            is_fault: self.is_fault,
            evidence: self.evidence,
            reason: self.detail.to_string(),
        }
    }
}

/// What is remembered of one accused.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) trust: Trust,
    pub(super) history: History,
    counts: SmallVec<[Count; 1]>,
}

impl Record {
    /// Its findings, in the order in which they came last.
    pub(super) fn findings(&self, accused: &str) -> Vec<Finding> {
        let mut counts: Vec<&Count> = self.counts.iter().collect();
        counts.sort_by_key(|count| count.order);
        counts.into_iter().map(|count| count.to_finding(accused.to_owned())).collect()
    }
}

/// Something to be noted.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) kind: AnomalyKind,
    pub(super) is_fault: bool,
    pub(super) detail: Detail,
    pub(super) weight: Weight,
    /// This node's doubt in itself.
    pub(super) doubt: f64,
    pub(super) evidence: Option<Hash>,
    pub(super) reporter: NodeId,
}

/// All records.
#[derive(Debug)]
pub(super) struct Records<P: StdHash + Eq> {
    table: LruCache<Subject<P>, Record>,
    trust: trust::Config,
    fresh: Bucket,
    order: u64,
    /// Findings about accused for whom there was no room.
    shed: u64,
}

impl<P: Display + Clone + StdHash + Eq> Records<P> {
    pub(super) fn new(subjects_max: NonZeroUsize, trust: trust::Config) -> Self {
        let mut table = LruCache::unbounded();
        table.resize(subjects_max);
        Records { table, trust, fresh: Bucket::default(), order: 0, shed: 0 }
    }

    /// Notes something; the finding, if people should be told: the first, the tenth, the hundredth.
    pub(super) fn note(
        &mut self,
        now: Time,
        step: Step,
        subject: &Subject<P>,
        note: Note,
    ) -> Option<Finding> {
        self.order += 1;
        let order = self.order;
        let config = self.trust;
        let record = self.entry(now, subject)?;
        let severity = match (note.evidence, note.weight) {
            (Some(_), _) => Severity::Critical,
            // What this node doubts more than not is no warning.
            (None, Weight::Suspicion(_)) if note.doubt > DOUBTED => Severity::Info,
            (None, Weight::Suspicion(_) | Weight::Fault(_)) => Severity::Warning,
            (None, _) => Severity::Info,
        };
        let place = record.counts.iter().position(|count| count.kind == note.kind);
        let place = place.unwrap_or_else(|| {
            record.counts.push(Count {
                kind: note.kind,
                first_step: step,
                last_step: step,
                count: 0,
                is_fault: false,
                severity: Severity::Info,
                evidence: None,
                reporter: note.reporter,
                detail: note.detail.clone(),
                order,
                weighed: None,
            });
            record.counts.len() - 1
        });
        let count = record.counts.get_mut(place)?;
        let was = (count.severity, count.count);
        count.last_step = step;
        count.count = count.count.saturating_add(1);
        count.is_fault |= note.is_fault;
        count.severity = count.severity.max(severity);
        count.evidence = note.evidence.or(count.evidence);
        (count.detail, count.order, count.reporter) = (note.detail, order, note.reporter);
        let is_due = count.weighed.is_none_or(|at| now.since(at).as_millis() >= u128::from(WEIGHED_EVERY_MS));
        let weight = match note.weight {
            Weight::Suspicion(_) if !is_due => Weight::None,
            weight => weight,
        };
        if matches!(weight, Weight::Suspicion(_) | Weight::Fault(_)) {
            count.weighed = Some(now);
            record.trust.add(now, weight, note.doubt, &config);
            let trust = record.trust.value(now, &config);
            record.history.push(Change { at: now, trust, cause: Some(note.kind) });
        }
        let is_new = count.severity > was.0 || is_power_of_ten(count.count);
        is_new.then(|| count.to_finding(subject.to_string()))
    }

    /// It did something of use.
    pub(super) fn praise(&mut self, now: Time, subject: &Subject<P>, good: f64) {
        let config = self.trust;
        if let Some(record) = self.entry(now, subject) {
            record.trust.add(now, Weight::Good(good), 0.0, &config);
            let trust = record.trust.value(now, &config);
            // Once a minute is enough of what goes well.
            let last = record.history.iter().last();
            if last.is_none_or(|last| now.since(last.at).as_secs() >= 60) {
                record.history.push(Change { at: now, trust, cause: None });
            }
        }
    }

    /// Trusts somebody like a stranger. What it did stays told.
    pub(super) fn pardon(&mut self, subject: &Subject<P>) {
        if let Some(record) = self.table.peek_mut(subject) {
            record.trust = Trust::default();
        }
    }

    /// The trust in somebody.
    pub(super) fn trust(&self, now: Time, subject: &Subject<P>) -> f64 {
        self.table.peek(subject).map_or(trust::STRANGER, |record| record.trust.value(now, &self.trust))
    }

    pub(super) fn get(&self, subject: &Subject<P>) -> Option<&Record> {
        self.table.peek(subject)
    }

    /// Sees that somebody is forgotten last.
    pub(super) fn touch(&mut self, subject: &Subject<P>) {
        self.table.promote(subject);
    }

    /// All findings, in the order in which they came last.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<(&Subject<P>, &Count)> = self
            .table
            .iter()
            .flat_map(|(subject, record)| record.counts.iter().map(move |count| (subject, count)))
            .collect();
        all.sort_by_key(|(_, count)| count.order);
        all.into_iter().map(|(subject, count)| count.to_finding(subject.to_string())).collect()
    }

    /// Accused that are remembered, and findings about others that are not.
    pub(super) fn sizes(&self) -> (usize, u64) {
        (self.table.len(), self.shed)
    }

    /// Bytes in use, at most by a little.
    pub(super) fn bytes(&self) -> usize {
        let of_record = |record: &Record| {
            let spilled =
                if record.counts.spilled() { record.counts.capacity() * size_of::<Count>() } else { 0 };
            let texts: usize = record
                .counts
                .iter()
                .map(
                    |count| {
                        if let Detail::BadFrame { reason, .. } = &count.detail { reason.len() } else { 0 }
                    },
                )
                .sum();
            spilled + texts + record.history.bytes()
        };
        // An entry of the table, and its part of the index.
        let entry = size_of::<Subject<P>>() + size_of::<Record>() + 64;
        self.table.len() * entry + self.table.iter().map(|(_, record)| of_record(record)).sum::<usize>()
    }

    fn entry(&mut self, now: Time, subject: &Subject<P>) -> Option<&mut Record> {
        if !self.table.contains(subject) && !self.fresh.take(now, &FRESH) {
            self.shed = self.shed.saturating_add(1);
            return None;
        }
        Some(self.table.get_or_insert_mut(subject.clone(), Record::default))
    }
}

fn is_power_of_ten(mut n: u64) -> bool {
    while n >= 10 && n.is_multiple_of(10) {
        n /= 10;
    }
    n == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_are_told() {
        let told: Vec<u64> = (0..2_000).filter(|n| is_power_of_ten(*n)).collect();
        assert_eq!(told, [1, 10, 100, 1_000]);
    }
}
