//! Quarantine: who is shut out, by key, on evidence that convinces everybody.
//!
//! ```text
//!  evidence ──► is its step behind the pardon of its accused? ──yes──► nothing: that has been served
//!                    │ no
//!                    ▼
//!                in quarantine ── its end, `quarantine lift`, or one more than fits ──► pardoned up to the step of then
//! ```
//!
//! A quarantine ends after [`Config::steps`], when an operator lifts it, or never. Either way the key is *pardoned* for
//! all that it signed up to the step of then, so that the same evidence, or other evidence of the same days, does not
//! shut it out again; what it signs later does. The end is counted in steps, which all nodes share and which go on
//! while a node is down.
//!
//! **Bounds.** [`crate::validate::QUARANTINED_MAX`] keys; one more pushes out the one that would end
//! first, and one that this node had never heard of before any other: keys that were made to be convicted push out
//! each other only. As many pardons; one more pushes out the one with the lowest step.

use std::collections::BTreeMap;

use crate::id::{Hash, NodeId, Step};
use crate::validate::QUARANTINED_MAX;

use super::finding::AnomalyKind;

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Steps that a quarantine lasts; `None`: until somebody lifts it. Default 86,400: a day, at a second each
    /// (guess). Too short and a liar is back while its lies are still believed elsewhere.
    pub steps: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Config { steps: Some(86_400) }
    }
}

/// One quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// For what; `None`: an operator said so.
    pub kind: Option<AnomalyKind>,
    /// The id of the evidence; none if an operator said so.
    pub evidence: Option<Hash>,
    /// Since when.
    pub since: Step,
    /// The first step in which it is over; `None`: never by itself.
    pub until: Option<Step>,
    /// True if this node had heard of the key before.
    pub is_known: bool,
}

/// For what somebody is to be quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crime {
    /// What it was; `None`: an operator says so.
    pub kind: Option<AnomalyKind>,
    /// The id of the evidence; none if an operator says so.
    pub evidence: Option<Hash>,
    /// The last step that the accused has signed in it.
    pub signed: Step,
    /// True if this node had heard of the key before.
    pub is_known: bool,
}

/// Why a quarantine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Its time was over.
    Served,
    /// An operator lifted it.
    Lifted,
    /// There were too many.
    PushedOut,
}

impl Released {
    /// A stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Released::Served => "served",
            Released::Lifted => "lifted",
            Released::PushedOut => "pushed_out",
        }
    }
}

/// Who is in quarantine, and up to which step everybody who was is pardoned.
#[derive(Clone, Debug, Default)]
pub struct Quarantines {
    config: Config,
    sentences: BTreeMap<NodeId, Sentence>,
    pardons: BTreeMap<NodeId, Step>,
}

/// What came of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in quarantine from now on; so many had to make room for it: none or one.
    Quarantined {
        /// Who made room.
        pushed_out: Option<NodeId>,
    },
    /// It was before.
    Already,
    /// That was pardoned.
    Pardoned,
}

impl Quarantines {
    /// Nobody is in quarantine.
    pub fn new(config: Config) -> Self {
        Quarantines { config, ..Quarantines::default() }
    }

    /// Puts back what was there before a restart; whatever is too much is left out.
    pub fn restore(&mut self, sentences: BTreeMap<NodeId, Sentence>, pardons: BTreeMap<NodeId, Step>) {
        self.sentences = sentences.into_iter().take(QUARANTINED_MAX).collect();
        self.pardons = pardons.into_iter().take(QUARANTINED_MAX).collect();
    }

    /// Shuts `node` out.
    pub fn convict(&mut self, now: Step, node: NodeId, crime: Crime) -> Outcome {
        let Crime { kind, evidence, signed, is_known } = crime;
        if self.sentences.contains_key(&node) {
            return Outcome::Already;
        }
        if self.pardons.get(&node).is_some_and(|pardoned| signed <= *pardoned) {
            return Outcome::Pardoned;
        }
        let pushed_out = (self.sentences.len() >= QUARANTINED_MAX).then(|| self.first_to_end()).flatten();
        if let Some(node) = pushed_out {
            self.end(now, &node);
        }
        let until = self.config.steps.map(|steps| now.saturating_add(steps));
        self.sentences.insert(node, Sentence { kind, evidence, since: now, until, is_known });
        Outcome::Quarantined { pushed_out }
    }

    /// Ends a quarantine; true if there was one. All that the key has signed up to `now` is pardoned.
    pub fn lift(&mut self, now: Step, node: &NodeId) -> bool {
        self.end(now, node)
    }

    /// Those whose quarantine is over at `now`, which ends with this.
    pub fn poll_served(&mut self, now: Step) -> Vec<NodeId> {
        let is_over = |sentence: &Sentence| sentence.until.is_some_and(|until| until <= now);
        let over: Vec<NodeId> =
            self.sentences.iter().filter(|(_, s)| is_over(s)).map(|(node, _)| *node).collect();
        for node in &over {
            self.end(now, node);
        }
        over
    }

    /// The quarantine of `node`.
    pub fn get(&self, node: &NodeId) -> Option<&Sentence> {
        self.sentences.get(node)
    }

    /// The step up to which what `node` signed is pardoned.
    pub fn pardon(&self, node: &NodeId) -> Option<Step> {
        self.pardons.get(node).copied()
    }

    /// All that are in quarantine.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Sentence)> {
        self.sentences.iter()
    }

    /// All pardons.
    pub fn pardons(&self) -> impl Iterator<Item = (&NodeId, &Step)> {
        self.pardons.iter()
    }

    /// Panics if an invariant is broken.
    pub fn check_invariants(&self) {
        assert!(self.sentences.len() <= QUARANTINED_MAX, "quarantines are bounded");
        assert!(self.pardons.len() <= QUARANTINED_MAX, "pardons are bounded");
    }

    fn end(&mut self, now: Step, node: &NodeId) -> bool {
        let was_there = self.sentences.remove(node).is_some();
        if was_there {
            if self.pardons.len() >= QUARANTINED_MAX && !self.pardons.contains_key(node) {
                let oldest = self.pardons.iter().min_by_key(|(_, step)| **step).map(|(node, _)| *node);
                oldest.map(|oldest| self.pardons.remove(&oldest));
            }
            self.pardons.insert(*node, now);
        }
        was_there
    }

    fn first_to_end(&self) -> Option<NodeId> {
        let ends = |s: &Sentence| (s.is_known, s.until.unwrap_or(Step(u64::MAX)), s.since);
        self.sentences.iter().min_by_key(|(_, sentence)| ends(sentence)).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(bytes)
    }

    fn convict(state: &mut Quarantines, now: u64, n: u64, signed: u64) -> Outcome {
        let evidence = Some(Hash::of(&signed.to_le_bytes()));
        let crime = Crime {
            kind: Some(AnomalyKind::Equivocation),
            evidence,
            signed: Step(signed),
            is_known: n.is_multiple_of(2),
        };
        state.convict(Step(now), node(n), crime)
    }

    const IN: Outcome = Outcome::Quarantined { pushed_out: None };

    #[test]
    fn it_ends_by_time_and_the_same_evidence_does_not_begin_it_again() {
        let mut state = Quarantines::new(Config { steps: Some(100) });
        assert_eq!(convict(&mut state, 10, 1, 9), IN);
        assert_eq!(convict(&mut state, 11, 1, 11), Outcome::Already);
        assert_eq!(state.poll_served(Step(109)), []);
        assert_eq!(state.poll_served(Step(110)), [node(1)]);
        assert_eq!(convict(&mut state, 111, 1, 9), Outcome::Pardoned);
        assert_eq!(convict(&mut state, 111, 1, 110), Outcome::Pardoned);
        assert_eq!(convict(&mut state, 112, 1, 111), IN);
    }

    #[test]
    fn it_ends_by_lift_or_never() {
        let mut state = Quarantines::new(Config { steps: None });
        assert_eq!(convict(&mut state, 10, 1, 9), IN);
        assert_eq!(state.poll_served(Step(u64::MAX)), []);
        assert!(state.lift(Step(12), &node(1)) && !state.lift(Step(13), &node(1)));
        assert_eq!(state.pardon(&node(1)), Some(Step(12)));
        assert_eq!(convict(&mut state, 14, 1, 12), Outcome::Pardoned);
        assert_eq!(convict(&mut state, 14, 1, 13), IN);
    }

    #[test]
    fn any_number_of_keys_is_bounded() {
        let mut state = Quarantines::new(Config::default());
        for n in 0..3 * QUARANTINED_MAX as u64 {
            let outcome = convict(&mut state, n, n, n);
            let Outcome::Quarantined { pushed_out } = outcome else { panic!("{outcome:?}") };
            assert_eq!(pushed_out.is_some(), n >= QUARANTINED_MAX as u64);
            // Strangers go first, while there are any.
            assert!(
                n + 1 >= 2 * QUARANTINED_MAX as u64
                    || pushed_out.is_none_or(|out| out.as_bytes()[0] % 2 == 1)
            );
            if n % 1000 == 0 {
                state.check_invariants();
            }
        }
        state.check_invariants();
    }
}
