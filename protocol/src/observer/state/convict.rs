//! Evidence: found here or brought by others, judged, kept, told of again; and who is in quarantine for it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::Hash as StdHash;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand_core::Rng;

use super::super::Output;
use super::super::accusation::Accusation;
use super::super::backoff;
use super::super::evidence::{Evidence, EvidenceError, Pair};
use super::super::finding::{AnomalyKind, Detail, Subject};
use super::super::quarantine::{Crime, Outcome, Released};
use super::super::records::Note;
use super::super::saved::{self, Part, Saved};
use super::super::statistics::{Bucket, Rate};
use super::super::trust::Weight;
use super::State;
use crate::envelope::Envelope;
use crate::id::{Hash, NodeId, Step};
use crate::log::Proof;
use crate::machine::Outbox;
use crate::refusal::Refusal;
use crate::time::Time;
use crate::validate::QUARANTINED_MAX;

/// Reporters whose rate is remembered.
pub(super) const REPORTERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Payloads of one reporter that are looked at. An accusation has four at most. Guess.
const PER_REPORTER: Rate = Rate::once_in(2, 64);
/// Checks of what others bring, some 100 µs each: 1 % of a processor. Guess.
const CHECKS: Rate = Rate::per_second(100, 400);
/// Accusations that are published in one tick.
const ANNOUNCED_PER_TICK: usize = 4;
/// Evidence is told of again after a random time in this range, if nobody else did: for those who were away.
const ANNOUNCE_AGAIN_S: std::ops::Range<u64> = 1_800..5_400;
/// When somebody new is connected, evidence is told within this time.
const ANNOUNCE_SOON_MS: u64 = 5_000;
/// But one node is prompted no more often than this.
const PROMPTED_EVERY: Duration = Duration::from_secs(60);
/// And what somebody told is not told again so soon, or in a mesh of many, where somebody new comes all the time, all
/// would hear it all the time. Guess.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// What keeping evidence costs beside its bytes.
const KNOWN_BYTES: usize = 192;

/// Evidence that is kept.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: Hash,
    pub(super) reporter: NodeId,
    pub(super) evidence: Bytes,
    announce_at: Time,
    /// When somebody told it last, as far as was heard here.
    told: Option<Time>,
}

impl<P: Display + Clone + Ord + StdHash> State<P> {
    /// Takes what was saved. Who is in quarantine is told again, as nobody else remembers.
    pub(super) fn restore(&mut self, now: Time, entries: Vec<(Bytes, Bytes)>, out: &mut Outbox<Output<P>>) {
        let (mut sentences, mut pardons) = (BTreeMap::new(), BTreeMap::new());
        let mut damaged = 0;
        for (key, value) in entries {
            match Saved::from_entry(&key, &value) {
                Some((node, Saved::Quarantine(sentence))) => drop(sentences.insert(node, sentence)),
                Some((node, Saved::Pardon(step))) => drop(pardons.insert(node, step)),
                Some((node, Saved::Evidence { reporter, evidence })) => {
                    match Evidence::decode(&evidence, self.message_bytes_max) {
                        Ok(read) if read.accused() == node => {
                            let at = now + Duration::from_secs(ANNOUNCE_AGAIN_S.start);
                            let known =
                                Known { id: read.id(), reporter, evidence, announce_at: at, told: None };
                            self.keep(node, known);
                        }
                        _ => damaged += 1,
                    }
                }
                None => damaged += 1,
            }
        }
        self.shed = self.shed.saturating_add(damaged);
        self.quarantines.restore(sentences, pardons);
        for (node, sentence) in self.quarantines.iter() {
            out.push(Output::Quarantine { node: *node, sentence: *sentence });
        }
    }

    /// A message came whose number was used before: if it says something else, there is a proof.
    pub(super) fn on_replayed(
        &mut self,
        now: Time,
        from: &P,
        data: &Bytes,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Ok(envelope) = Envelope::decode(data, self.message_bytes_max) else { return };
        let Some(kept) = self.memory.contradicts(&envelope) else { return };
        let Some(pair) = Pair::new(&kept, &envelope) else { return };
        if !self.checks.take(now, &CHECKS) {
            self.shed = self.shed.saturating_add(1);
            return;
        }
        let evidence = Evidence::Pair(pair);
        match evidence.verify(self.mesh.id(), &mut self.patterns, self.message_bytes_max) {
            Ok(()) => self.convict(now, &evidence, None, rng, out),
            Err(EvidenceError::Envelope(reason @ (Refusal::BadSignature | Refusal::BadPattern))) => {
                // The kept one was checked. So somebody has made the other up, and the bringer did not check it.
                let kind = AnomalyKind::BadSignature;
                let detail = Detail::Refused { reason, message: envelope.id(), author: None };
                let weight = Weight::of(kind, true);
                self.note(now, &self.subject(from), (kind, true, detail), (weight, 0.0), out);
            }
            Err(_) => {}
        }
    }

    pub(super) fn on_proof(
        &mut self,
        now: Time,
        proof: Proof,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        // It spreads with the log as well; whoever has it makes an accusation of it, and the first is enough.
        let evidence = Evidence::Log(proof);
        let is_new = !self.is_settled(&evidence);
        if is_new && evidence.verify(self.mesh.id(), &mut self.patterns, self.message_bytes_max).is_ok() {
            self.convict(now, &evidence, None, rng, out);
        }
    }

    pub(super) fn on_accused(
        &mut self,
        now: Time,
        author: NodeId,
        payload: &Bytes,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let bucket = self.reporters.get_or_insert_mut(author, Bucket::default);
        if author == self.identity.id() || !bucket.take(now, &PER_REPORTER) {
            self.shed = self.shed.saturating_add(u64::from(author != self.identity.id()));
            return;
        }
        // Bytes that are no accusation are signed by nobody but as a message: too little to convict.
        let Ok(Some(accusation)) = self.assembler.take(now, author, payload, self.message_bytes_max) else {
            return;
        };
        // Nobody speaks for somebody else, or in another mesh.
        if accusation.reporter() != author || accusation.mesh() != self.mesh.id() {
            return;
        }
        if let Ok(evidence) = Evidence::decode(accusation.evidence(), self.message_bytes_max)
            && self.is_settled(&evidence)
        {
            let again = now + Duration::from_secs(rng.random_range(ANNOUNCE_AGAIN_S));
            if let Some(known) = self.known.get_mut(&evidence.accused()).filter(|k| k.id == evidence.id()) {
                known.announce_at = known.announce_at.max(again);
                known.told = Some(now);
            }
            return;
        }
        if !self.checks.take(now, &CHECKS) || !accusation.is_signed() {
            self.shed = self.shed.saturating_add(1);
            return;
        }
        match accusation.judge(self.mesh.id(), &mut self.patterns, self.message_bytes_max) {
            Ok(evidence) => self.convict(now, &evidence, Some(author), rng, out),
            Err(error) if error.is_conclusive() => {
                let evidence = Evidence::FalseAccusation(Box::new(accusation));
                self.convict(now, &evidence, None, rng, out);
            }
            Err(_) => {}
        }
    }

    /// Shuts out whom verified evidence convicts. `told_by` nobody: this node found it, and tells others, unless one of
    /// them does first.
    fn convict(
        &mut self,
        now: Time,
        evidence: &Evidence,
        told_by: Option<NodeId>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let (node, id, kind) = (evidence.accused(), evidence.id(), evidence.kind());
        let reporter = told_by.unwrap_or(self.identity.id());
        if self.config.ignored.contains(&kind) {
            return;
        }
        let detail = Detail::Proved { what: evidence.says(), by: reporter };
        let note = Note {
            kind,
            is_fault: true,
            detail,
            weight: Weight::of(kind, true),
            doubt: 0.0,
            evidence: Some(id),
            reporter,
        };
        if node == self.identity.id() {
            // Nobody shuts itself out. Others will; people have to know.
            self.note_proved(now, node, note, out);
            return;
        }
        // A node without a step takes that of the evidence.
        let step = self.step.unwrap_or_default().max(evidence.step());
        let crime = Crime {
            kind: Some(kind),
            evidence: Some(id),
            signed: evidence.step(),
            is_known: self.is_known(&node),
        };
        match self.quarantines.convict(step, node, crime) {
            Outcome::Already | Outcome::Pardoned => {}
            Outcome::Quarantined { pushed_out } => {
                if let Some(node) = pushed_out {
                    self.on_released(node, Released::PushedOut, out);
                }
                self.note_proved(now, node, note, out);
                // Others may have found it as well; and what somebody told is told by it.
                let wait = match told_by {
                    None => backoff::wait(self.group(), rng),
                    Some(_) => Duration::from_secs(ANNOUNCE_AGAIN_S.start),
                };
                let (announce_at, evidence) = (now + wait, evidence.encode());
                let saved = Saved::Evidence { reporter, evidence: evidence.clone() };
                let told = told_by.map(|_| now);
                if self.keep(node, Known { id, reporter, evidence, announce_at, told }) {
                    self.put(saved.to_entry(&node), out);
                    self.wake_for_announcements(now, out);
                }
                self.on_quarantined(now, node, out);
            }
        }
    }

    pub(super) fn on_quarantine(&mut self, now: Time, node: NodeId, out: &mut Outbox<Output<P>>) {
        if node == self.identity.id() {
            return;
        }
        let step = self.step.unwrap_or_default();
        let signed = Step(u64::MAX);
        let crime = Crime { kind: None, evidence: None, signed, is_known: true };
        if let Outcome::Quarantined { pushed_out } = self.quarantines.convict(step, node, crime) {
            if let Some(node) = pushed_out {
                self.on_released(node, Released::PushedOut, out);
            }
            self.on_quarantined(now, node, out);
        }
    }

    pub(super) fn on_lift(&mut self, node: NodeId, out: &mut Outbox<Output<P>>) {
        if self.quarantines.lift(self.step.unwrap_or_default(), &node) {
            // What weighs so much that it ends every connection would shut it out all the same.
            self.records.pardon(&Subject::Node(node));
            self.on_released(node, Released::Lifted, out);
        }
    }

    pub(super) fn on_step(&mut self, step: Step, out: &mut Outbox<Output<P>>) {
        if self.step.is_some_and(|known| known >= step) || step == Step(0) {
            return;
        }
        self.step = Some(step);
        for node in self.quarantines.poll_served(step) {
            self.on_released(node, Released::Served, out);
        }
    }

    fn on_quarantined(&mut self, now: Time, node: NodeId, out: &mut Outbox<Output<P>>) {
        let Some(sentence) = self.quarantines.get(&node).copied() else { return };
        self.put(Saved::Quarantine(sentence).to_entry(&node), out);
        out.push(Output::Quarantine { node, sentence });
        self.memory.forget(&node);
        let ip = self.neighbours.values().find(|n| n.node == Some(node)).and_then(|n| n.whereabouts.any());
        self.places.on_quarantined(now, &node, ip);
    }

    fn on_released(&mut self, node: NodeId, reason: Released, out: &mut Outbox<Output<P>>) {
        for part in [Part::Quarantine, Part::Evidence] {
            out.push(Output::Delete { key: saved::key(part, &node) });
        }
        if let Some(known) = self.known.remove(&node) {
            self.known_bytes -= known.evidence.len() + KNOWN_BYTES;
        }
        if let Some(step) = self.quarantines.pardon(&node) {
            self.put(Saved::Pardon(step).to_entry(&node), out);
        }
        out.push(Output::Release { node, reason });
    }

    /// True if this evidence changes nothing: whom it convicts is in quarantine, or pardoned for it.
    fn is_settled(&self, evidence: &Evidence) -> bool {
        let node = evidence.accused();
        self.quarantines.get(&node).is_some()
            || self.quarantines.pardon(&node).is_some_and(|pardoned| evidence.step() <= pardoned)
    }

    fn is_known(&self, node: &NodeId) -> bool {
        self.authors.contains(node) || self.neighbours.values().any(|n| n.node.as_ref() == Some(node))
    }

    fn note_proved(&mut self, now: Time, node: NodeId, note: Note, out: &mut Outbox<Output<P>>) {
        let step = self.step.unwrap_or_default();
        if let Some(finding) = self.records.note(now, step, &Subject::Node(node), note) {
            out.push(Output::Found(finding));
        }
    }

    /// Keeps evidence, if there is room; says whether there was.
    fn keep(&mut self, node: NodeId, mut known: Known) -> bool {
        let cost = known.evidence.len() + KNOWN_BYTES;
        let has_room = self.known_bytes + cost <= self.config.evidence_bytes_max;
        if self.known.len() >= QUARANTINED_MAX || !has_room || self.known.contains_key(&node) {
            self.shed = self.shed.saturating_add(1);
            return false;
        }
        self.known_bytes += cost;
        // A copy: the evidence is a slice of a larger buffer.
        known.evidence = Bytes::copy_from_slice(&known.evidence);
        self.known.insert(node, known);
        true
    }

    /// Somebody is here who may have been away: tell what is known, unless that was just done.
    pub(super) fn prompt_announcements(&mut self, now: Time, rng: &mut impl Rng) {
        if self.known.is_empty() || self.prompted.is_some_and(|at| now.since(at) < PROMPTED_EVERY) {
            return;
        }
        self.prompted = Some(now);
        for known in self.known.values_mut() {
            let from = known.told.map_or(now, |told| now.max(told + TOLD_AGAIN));
            let soon = from + Duration::from_millis(rng.random_range(0..ANNOUNCE_SOON_MS));
            known.announce_at = known.announce_at.min(soon);
        }
    }

    pub(super) fn announce_due(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(step) = self.step else { return };
        let mesh = self.mesh.id();
        let due = self.known.values_mut().filter(|known| known.announce_at <= now);
        for known in due.take(ANNOUNCED_PER_TICK.saturating_sub(self.announced)) {
            self.announced += 1;
            known.announce_at = now + Duration::from_secs(rng.random_range(ANNOUNCE_AGAIN_S));
            known.told = Some(now);
            let accusation = Accusation::sign(&self.identity, mesh, step, known.evidence.clone());
            for payload in accusation.to_payloads(self.message_bytes_max) {
                out.push(Output::Publish(payload));
            }
        }
    }
    /// When evidence is to be told of next, if that is before `until`. What is overdue waits for the next tick.
    pub(super) fn next_announcement(&self, now: Time, until: Time) -> Option<Time> {
        self.known.values().map(|known| known.announce_at).filter(|at| *at > now && *at < until).min()
    }

    /// Who may find what this node finds.
    fn group(&self) -> usize {
        self.sizes.members_known.max(self.neighbours.len() + 1)
    }
}
