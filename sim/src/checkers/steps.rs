//! The shared step: agreement, order, and recovery.

use std::time::Duration;

use super::Verdict;
use crate::outcome::{Offence, Outcome, Sample};
use crate::scenario::{Check, Scenario};
use crate::words::{count, counted, millis, percent, time};

/// Steps for which agreement is not looked at after a disturbance, where the scenario asks for no
/// `convergence`.
const CONVERGENCE_STEPS: u32 = 10;

/// A fault, or an attack on the step.
struct Disturbance {
    /// As in [`crate::outcome::Effect::name`].
    name: String,
    from: Duration,
    /// `None`: it lasts.
    over: Option<Duration>,
}

impl Disturbance {
    /// When the mesh begins to recover from it: what has no end must be lived with from its beginning.
    fn recovery_from(&self) -> Duration {
        self.over.unwrap_or(self.from)
    }
}

/// All of them, in the order of the scenario.
fn disturbances(scenario: &Scenario) -> Vec<Disturbance> {
    let faults = scenario.faults.iter().zip(1..).map(|(fault, number)| Disturbance {
        name: format!("{}#{number}", fault.kind.name()),
        from: fault.at,
        over: fault.over(),
    });
    let attacks = scenario.adversaries.iter().zip(1..).filter(|(adversary, _)| adversary.kind.is_on_step());
    let attacks = attacks.map(|(adversary, number)| Disturbance {
        name: format!("{}#{number}", adversary.kind.name()),
        from: adversary.at,
        over: adversary.until,
    });
    faults.chain(attacks).collect()
}

fn is_synchronised(sample: &Sample) -> bool {
    sample.up > 0 && sample.synchronised >= sample.up
}

/// The first sample after the last start in which all that are up have a step.
fn all_synchronised<'a>(scenario: &Scenario, outcome: &'a Outcome) -> Result<&'a Sample, String> {
    let Some(last) = outcome.samples.last() else {
        return Err("No samples of the mesh were recorded, so nothing can be said about its steps.".into());
    };
    let started = scenario.network.join_over;
    outcome.samples.iter().find(|sample| sample.at >= started && is_synchronised(sample)).ok_or_else(|| {
        let (had, up, ended) =
            (count(last.synchronised.into()), counted(last.up.into(), "node", "nodes"), time(last.at));
        format!(
            "There was no moment at which all nodes had a step: at the end ({ended}) {had} of {up} that were up had \
             one. Look at connections and at step synchronisation."
        )
    })
}

pub(super) fn agreement(scenario: &Scenario, outcome: &Outcome, within: Duration) -> Verdict {
    let limit = within.as_secs_f64() * 1e3;
    let from = all_synchronised(scenario, outcome)?.at;
    let settle = scenario.network.step_interval.saturating_mul(convergence_steps(scenario));
    let disturbances = disturbances(scenario);
    let disturbed = |sample: &Sample| {
        disturbances
            .iter()
            .find(|d| d.from <= sample.at && sample.at <= d.recovery_from().saturating_add(settle))
    };
    let relevant = || outcome.samples.iter().filter(|sample| sample.at >= from);
    let looked_at: Vec<&Sample> = relevant().filter(|sample| disturbed(sample).is_none()).collect();
    let Some(worst) = looked_at.iter().max_by(|a, b| a.island_skew_ms.total_cmp(&b.island_skew_ms)) else {
        return Err(format!(
            "Nothing to look at: every sample since all nodes have a step ({}) lies in a disturbance or the {} after \
             it. Run longer, or leave this check out.",
            time(from),
            time(settle)
        ));
    };
    let mut notes = format!(
        "{} of {} samples were looked at, from {} on, when all had a step",
        count(looked_at.len() as u64),
        count(outcome.samples.len() as u64),
        time(from)
    );
    let elsewhere = relevant().filter_map(|sample| disturbed(sample).map(|d| (sample, d)));
    if let Some((sample, d)) =
        elsewhere.max_by(|(a, _), (b, _)| a.island_skew_ms.total_cmp(&b.island_skew_ms))
    {
        notes += &format!(
            "; left out are disturbances and the {} after them (up to {} apart, at {}: {})",
            time(settle),
            millis(sample.island_skew_ms),
            time(sample.at),
            d.name
        );
    }
    let (apart, at, limit_text) = (millis(worst.island_skew_ms), time(worst.at), millis(limit));
    // A distance that is not a number is not within anything.
    let outside: Vec<&&Sample> = looked_at.iter().filter(|s| !is_within(s, limit)).collect();
    let (Some(first), Some(last)) = (outside.first(), outside.last()) else {
        return Ok(format!(
            "Mesh times of connected honest nodes were at most {apart} apart (limit {limit_text}), at {at}. {notes}."
        ));
    };
    let before = disturbances.iter().filter(|d| d.from <= first.at).max_by_key(|d| d.recovery_from());
    let before = before.map_or_else(String::new, |d| format!(" The last disturbance before was {}.", d.name));
    Err(format!(
        "Mesh times of connected honest nodes were {apart} apart at {at} (limit {limit_text}), and too far apart in {} \
         from {} to {}. {notes}.{before} Look at the plot of step skew.",
        counted(outside.len() as u64, "sample", "samples"),
        time(first.at),
        time(last.at)
    ))
}

fn is_within(sample: &Sample, limit_ms: f64) -> bool {
    sample.island_skew_ms <= limit_ms
}

fn convergence_steps(scenario: &Scenario) -> u32 {
    let asked = scenario.checks.iter().filter_map(|check| match check {
        Check::Convergence { steps } => Some(*steps),
        _ => None,
    });
    asked.max().unwrap_or(CONVERGENCE_STEPS)
}

pub(super) fn monotone(outcome: &Outcome) -> Verdict {
    if outcome.samples.iter().all(|sample| sample.synchronised == 0) {
        return Err("No node was ever seen to have a step, so none could fall.".into());
    }
    if outcome.steps_fell == 0 {
        return Ok(format!("No step fell in {} of the mesh.", time(outcome.ended)));
    }
    let first = outcome.first_step_fell.map_or_else(String::new, |Offence { node, at }| {
        format!("; first at node {node}, {}. Look at what that node heard in the round before", time(at))
    });
    Err(format!("A step fell {}{first}.", counted(outcome.steps_fell, "time", "times")))
}

pub(super) fn convergence(scenario: &Scenario, outcome: &Outcome, steps: u32) -> Verdict {
    let disturbances = disturbances(scenario);
    let Some(last) = disturbances.iter().max_by_key(|d| d.recovery_from()) else {
        return Ok("There was no fault and no attack on the step to recover from.".into());
    };
    let from = last.recovery_from().max(scenario.network.join_over);
    let (allowed, name) = (scenario.network.step_interval.saturating_mul(steps), &last.name);
    let (lasts, allowed_text) = (lasts(last), time(allowed));
    if outcome.ended < from {
        return Err(format!(
            "{name} is over at {}, but the run ended at {}. Run longer, or end the fault earlier.",
            time(from),
            time(outcome.ended)
        ));
    }
    let steps_text = counted(steps.into(), "step", "steps");
    let agreed = steps_agree_from(scenario, outcome, from)?;
    if agreed - from > allowed {
        return Err(format!(
            "Steps agreed again {} after {name} was over ({}), and had to within {allowed_text} ({steps_text}).{lasts} \
             Look at the plot of step skew.",
            time(agreed - from),
            time(from),
        ));
    }
    let mut done = format!(
        "After {name} (over at {}) steps agreed again {} (allowed: {allowed_text}, {steps_text})",
        time(from),
        took(agreed - from),
    );
    if scenario.network.membership {
        let whole = membership_whole_from(outcome, from)?;
        let since = whole.saturating_sub(from);
        if since > allowed {
            return Err(format!(
                "Membership was whole again {} after {name} was over ({}), and had to be within {allowed_text} \
                 ({steps_text}).{lasts} Look at the plot of membership.",
                time(since),
                time(from)
            ));
        }
        done += &format!(", and membership was whole {}", took(since));
    }
    Ok(format!("{done}.{lasts}"))
}

fn took(since: Duration) -> String {
    if since.is_zero() { "at once".into() } else { format!("within {}", time(since)) }
}

fn lasts(disturbance: &Disturbance) -> String {
    match disturbance.over {
        Some(_) => String::new(),
        None => format!(" {} has no end: it counts as over when it begins.", disturbance.name),
    }
}

/// When all had a step again and were within the bound, to stay so.
fn steps_agree_from(scenario: &Scenario, outcome: &Outcome, from: Duration) -> Result<Duration, String> {
    let limits = scenario.checks.iter().filter_map(|check| match check {
        Check::Agreement { within } => Some(*within),
        _ => None,
    });
    let limit = limits.min().unwrap_or(scenario.network.step_interval).as_secs_f64() * 1e3;
    let after: Vec<&Sample> = outcome.samples.iter().filter(|sample| sample.at >= from).collect();
    let Some(last) = after.last() else {
        return Err(format!("Nothing to look at: there is no sample after {}. Run longer.", time(from)));
    };
    let apart = after.iter().rposition(|sample| !is_within(sample, limit));
    let since = &after[apart.map_or(0, |index| index + 1)..];
    since.iter().find(|sample| is_synchronised(sample)).map(|sample| sample.at).ok_or_else(|| {
        format!(
            "Steps did not agree again after {}: at the end ({}) {} of {} had a step, and mesh times were {} apart \
             (limit {}). Look at the plot of step skew.",
            time(from),
            time(last.at),
            count(last.synchronised.into()),
            counted(last.up.into(), "node", "nodes"),
            millis(last.island_skew_ms),
            millis(limit)
        )
    })
}

/// When every live honest node knew every other again, to stay so.
fn membership_whole_from(outcome: &Outcome, from: Duration) -> Result<Duration, String> {
    let after: Vec<&Sample> = outcome.samples.iter().filter(|sample| sample.at >= from).collect();
    let broken = || {
        let known = after.last().map_or(0.0, |sample| sample.membership);
        format!(
            "Membership is not whole at the end: of all pairs of live honest nodes {} know each other as alive. \
             Look at the plot of membership, and whether islands could still reach each other.",
            percent(known)
        )
    };
    if outcome.membership_whole == Some(false) {
        return Err(broken());
    }
    if let Some(at) = outcome.membership_whole_at {
        return Ok(at);
    }
    let since = after.iter().rposition(|sample| sample.membership < 1.0).map_or(0, |index| index + 1);
    after.get(since).map(|sample| sample.at).ok_or_else(broken)
}
