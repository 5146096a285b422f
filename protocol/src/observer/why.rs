//! The answers to `why peer` and `why step`: the reasons, what they rest on, how it came to be, and the way back.

use std::time::Duration;

use super::finding::{Finding, Severity};
use super::quarantine::Sentence;
use super::trust::{Change, STRANGER, SUSPICION_FLOOR};
use crate::id::Step;
use crate::time::Time;

/// Why this node thinks of a peer what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct WhyPeer {
    /// Who.
    pub accused: String,
    /// Trust, 0 to 1.
    pub trust: f64,
    /// What gossip is told.
    pub score: f64,
    /// What trust is made of: good, suspicion, fault.
    pub sums: [f64; 3],
    /// How much this node doubts itself.
    pub doubt: f64,
    /// In which ways.
    pub doubts: Vec<(&'static str, f64)>,
    /// What it did, the last one last.
    pub findings: Vec<Finding>,
    /// How trust came to be what it is, oldest first.
    pub history: Vec<Change>,
    /// If it is in quarantine.
    pub quarantine: Option<Sentence>,
    /// What it signed up to this step is pardoned.
    pub pardoned_until: Option<Step>,
    /// The step here.
    pub step: Option<Step>,
    /// The length of a step.
    pub step_interval: Duration,
    /// When it is like a stranger again, if nothing else happens.
    pub stranger_again_s: Option<u64>,
    /// When its score is no longer below zero, if nothing else happens.
    pub in_mesh_again_s: Option<u64>,
    /// When this was asked.
    pub at: Time,
}

impl WhyPeer {
    /// What follows from it, in one sentence.
    pub fn standing(&self) -> String {
        if let Some(sentence) = &self.quarantine {
            let since = sentence.since;
            return match (sentence.kind, sentence.evidence) {
                (Some(kind), Some(id)) => {
                    format!("in quarantine since step {since} for {}: evidence {id} proves it", kind.code())
                }
                _ => format!("in quarantine since step {since}: an operator said so"),
            };
        }
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        let text = match worst {
            _ if self.trust < SUSPICION_FLOOR => "not trusted: it did what no honest node does",
            _ if self.score < 0.0 => "trusted little: it is kept out of the gossip mesh",
            Some(Severity::Warning | Severity::Critical) if self.trust < STRANGER => {
                "trusted less than a stranger, without consequences"
            }
            _ if self.trust > STRANGER + 0.05 => "trusted: it brings its part",
            _ => match self.pardoned_until {
                Some(step) => return format!("like a stranger: what it did up to step {step} is pardoned"),
                None => "like a stranger: nothing is held against it",
            },
        };
        text.to_owned()
    }

    /// How it comes back, one sentence each; none if it need not.
    pub fn way_back(&self) -> Vec<String> {
        let mut ways = Vec::new();
        if let Some(sentence) = &self.quarantine {
            match (sentence.until, self.step) {
                (Some(until), Some(step)) => {
                    let left = until.0.saturating_sub(step.0);
                    let seconds = u128::from(left) * self.step_interval.as_millis() / 1000;
                    ways.push(format!("the quarantine ends at step {until}, in about {}", duration(seconds)));
                }
                (Some(until), None) => ways.push(format!("the quarantine ends at step {until}")),
                (None, _) => ways
                    .push("the quarantine does not end by itself (`observer.quarantine_steps`)".to_owned()),
            }
            ways.push(format!("`omnimesh quarantine lift {}` ends it on this node now", self.accused));
            ways.push("after that the same evidence does not count again; new misdeeds do".to_owned());
        }
        match (self.score < 0.0, self.in_mesh_again_s) {
            (true, Some(seconds)) => {
                ways.push(format!(
                    "if nothing else happens, its score is not below zero in {}",
                    duration(seconds.into())
                ));
            }
            (true, None) => ways.push("its score stays below zero for more than a day".to_owned()),
            (false, _) => {}
        }
        if self.trust < STRANGER - 0.02
            && let Some(seconds) = self.stranger_again_s
        {
            ways.push(format!("what was held against it is forgotten in {}", duration(seconds.into())));
        }
        ways
    }
}

/// Why this node is in its step.
#[derive(Clone, Debug, PartialEq)]
pub struct WhyStep {
    /// The step; `None` while not synchronised.
    pub step: Option<Step>,
    /// How far this node doubts itself, and why.
    pub doubts: Vec<(&'static str, f64)>,
    /// What happened to the step lately, oldest first.
    pub events: Vec<(Time, String)>,
    /// When this was asked.
    pub at: Time,
}

fn duration(seconds: u128) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
