//! What is looked at every second, and every few.

use std::fmt::Display;
use std::hash::Hash as StdHash;
use std::time::Duration;

use rand_core::Rng;

use super::super::detect::drift::{self, Reading};
use super::super::detect::forwarding::{self, Phase, Verdict};
use super::super::detect::latency;
use super::super::finding::{AnomalyKind, Detail, Subject};
use super::super::{Output, trust};
use super::State;
use crate::gossip::Contribution;
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::{Time, nanos};

/// Time between two comparisons of all authors.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// What a message of somebody else is worth to who brings it first.
const GOOD_PER_FIRST: f64 = 0.02;
/// What it is worth to have brought one's part in a window.
const GOOD_PER_WINDOW: f64 = 0.25;
/// Changes of a score that are not worth telling.
const SCORE_STEP: f64 = 0.5;

impl<P: Display + Clone + Ord + StdHash> State<P> {
    pub(super) fn on_tick(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.doubt.on_lag(now, now.since(self.due));
        self.on_scores(now, out);
        if now.since(self.compared) >= COMPARE_EVERY {
            self.compared = now;
            self.compare_authors(now, out);
        }
        self.announced = 0;
        self.announce_due(now, rng, out);
        self.arm(now, out);
    }

    /// Tells the router what has changed in trust, and sees that who is connected is forgotten last.
    fn on_scores(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let peers: Vec<P> = self.neighbours.keys().cloned().collect();
        for peer in peers {
            let subject = self.subject(&peer);
            let Some(neighbour) = self.neighbours.get_mut(&peer) else { continue };
            let first = std::mem::take(&mut neighbour.first);
            if first > 0 {
                self.records.praise(now, &subject, GOOD_PER_FIRST * f64::from(first));
            }
            self.records.touch(&subject);
            if neighbour.node.is_some_and(|node| self.quarantines.get(&node).is_some()) {
                // It is being disconnected, and what the router is told would outlive the quarantine.
                continue;
            }
            let score = trust::app_score(self.records.trust(now, &subject));
            if (score - neighbour.told_score).abs() >= SCORE_STEP {
                neighbour.told_score = score;
                out.push(Output::AppScore { peer, score });
            }
        }
    }

    /// Silence and latency.
    fn compare_authors(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let (mut silent, mut expected, mut old) = (Vec::new(), 0_usize, 0_usize);
        let mut levels: Vec<(NodeId, i64)> = Vec::new();
        for (author, stats) in self.authors.iter_mut() {
            expected += usize::from(stats.rhythm.is_expected());
            old += usize::from(stats.rhythm.is_silent());
            if let Some(found) = stats.rhythm.poll_silence(now) {
                silent.push((*author, found));
            }
            levels.extend(stats.pace.take_level().map(|level| (*author, level)));
        }
        // If most are silent, it is this node that does not hear.
        if (silent.len() + old) * 2 <= expected {
            for (author, (for_ms, usual_ms)) in silent {
                let detail = Detail::Silent { for_ms, usual_ms };
                self.suspect(now, &Subject::Node(author), AnomalyKind::Silence, detail, out);
            }
        }
        let mut sorted: Vec<i64> = levels.iter().map(|(_, level)| *level).collect();
        let Some((median, limit)) = latency::slow_limit(&mut sorted) else { return };
        for (author, level) in levels.into_iter().filter(|(_, level)| *level > limit) {
            let detail = Detail::Slow { ms: latency::level_ms(level), median_ms: latency::level_ms(median) };
            self.suspect(now, &Subject::Node(author), AnomalyKind::Latency, detail, out);
        }
    }

    pub(super) fn on_clocks(&mut self, now: Time, readings: &[Reading<P>], out: &mut Outbox<Output<P>>) {
        let Some(middle_ns) = drift::middle(readings) else { return };
        let step_ns = nanos(self.step_interval);
        for reading in readings {
            let Some(neighbour) = self.neighbours.get_mut(&reading.peer) else { continue };
            neighbour.answers.add(now, reading.error_ns.saturating_mul(2));
            if let Some(ahead_ns) = neighbour.drift.add(reading, middle_ns, step_ns) {
                let detail = Detail::Drift { ahead_ms: ahead_ns / 1_000_000 };
                let subject = self.subject(&reading.peer);
                self.suspect(now, &subject, AnomalyKind::StepDrift, detail, out);
            }
        }
    }

    pub(super) fn on_contributions(
        &mut self,
        now: Time,
        contributions: &[Contribution<P>],
        out: &mut Outbox<Output<P>>,
    ) {
        for contribution in contributions {
            let Some(neighbour) = self.neighbours.get_mut(&contribution.peer) else { continue };
            neighbour.counts.brought = contribution.copies.saturating_add(contribution.told);
            let wrote = neighbour.node.and_then(|node| self.authors.peek(&node)).map(|stats| stats.wrote);
            // An author that was forgotten begins anew; what it wrote never counts down.
            neighbour.counts.wrote = neighbour.counts.wrote.max(wrote.unwrap_or(0));
            neighbour.counts.expected = contribution.expected;
        }
        match self.window.phase(now) {
            Phase::Open => return,
            Phase::Stale => self.neighbours.values_mut().for_each(|neighbour| neighbour.is_on_trial = false),
            Phase::Over => self.compare_neighbours(now, out),
        }
        self.window.begin(now);
        for neighbour in self.neighbours.values_mut() {
            neighbour.share.begin(neighbour.counts);
        }
    }

    /// Who brings nothing may have got all of it from this node. So it is put on trial before anything is held against it, and stays
    /// there as long as it brings nothing.
    fn try_suspects(
        &mut self,
        peers: &[(P, Option<u64>)],
        verdicts: &mut [Verdict],
        out: &mut Outbox<Output<P>>,
    ) {
        for ((peer, _), verdict) in peers.iter().zip(verdicts) {
            let Some(neighbour) = self.neighbours.get_mut(peer) else { continue };
            let withholds = matches!(verdict, Verdict::Withholds { .. });
            let was_tried = std::mem::replace(&mut neighbour.is_on_trial, withholds);
            if withholds {
                out.push(Output::Trial { peer: peer.clone(), duration: forwarding::TRIAL });
            }
            if withholds && !was_tried {
                *verdict = Verdict::Unknown;
            }
        }
    }

    fn compare_neighbours(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let answer = |n: &super::Neighbour| n.answers.quickest(now);
        let answers: Vec<Option<u64>> = self.neighbours.values().map(answer).collect();
        let median_ns = forwarding::median_answer(&answers);
        let of = |(peer, n): (&P, &super::Neighbour)| ((peer.clone(), answer(n)), n.share.end(n.counts));
        let (peers, shares): (Vec<_>, Vec<_>) = self.neighbours.iter().map(of).unzip();
        let mut verdicts = forwarding::compare(&shares);
        self.try_suspects(&peers, &mut verdicts, out);
        let is_far = |answer_ns: Option<u64>| {
            median_ns.is_some_and(|median_ns| forwarding::is_far(answer_ns, median_ns))
        };
        let withholds = |verdict: &Verdict| matches!(verdict, Verdict::Withholds { .. });
        let far = peers.iter().zip(&verdicts).filter(|((_, ns), verdict)| withholds(verdict) && is_far(*ns));
        let compared = verdicts.iter().filter(|verdict| **verdict != Verdict::Unknown).count();
        let are_excused = forwarding::are_excused(far.count(), compared);
        for ((peer, answer_ns), verdict) in peers.iter().zip(verdicts) {
            let subject = self.subject(peer);
            match verdict {
                Verdict::Useful => self.records.praise(now, &subject, GOOD_PER_WINDOW),
                Verdict::Poor | Verdict::Unknown => {}
                Verdict::Withholds { .. } if are_excused && is_far(*answer_ns) => {
                    let ms = answer_ns.map(|ns| ns / 1_000_000);
                    let detail = Detail::Far { ms, median_ms: median_ns.unwrap_or(0) / 1_000_000 };
                    self.suspect(now, &subject, AnomalyKind::Latency, detail, out);
                }
                Verdict::Withholds { brought, of, others_percent } => {
                    let detail = Detail::Withheld { brought, of, others_percent };
                    self.suspect(now, &subject, AnomalyKind::NeverForwards, detail, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_no_rarer_than_windows() {
        assert!(COMPARE_EVERY <= forwarding::WINDOW);
    }
}
