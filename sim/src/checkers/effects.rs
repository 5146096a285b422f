//! Whether what was planned to go wrong went wrong.

use super::Verdict;
use crate::outcome::{Effect, Outcome};
use crate::scenario::Scenario;
use crate::words::{count, counted, time};

pub(super) fn took_effect(scenario: &Scenario, outcome: &Outcome) -> Verdict {
    let faults: Vec<&str> = scenario.faults.iter().map(|fault| fault.kind.name()).collect();
    let adversaries: Vec<&str> = scenario.adversaries.iter().map(|adversary| adversary.kind.name()).collect();
    let mut idle = Vec::new();
    for (planned, recorded) in [(faults, &outcome.faults), (adversaries, &outcome.adversaries)] {
        let effects = recorded.iter().filter(|effect| effect.effective == 0);
        idle.extend(effects.map(|effect| idle_because(effect, outcome)));
        let unrecorded = planned.iter().zip(1..).skip(recorded.len());
        idle.extend(
            unrecorded.map(|(kind, number)| format!("{kind}#{number} (the engine did not record it)")),
        );
    }
    if !idle.is_empty() {
        return Err(format!("Without effect, so that the run shows nothing about it: {}.", idle.join("; ")));
    }
    let effects: Vec<&Effect> = outcome.faults.iter().chain(&outcome.adversaries).collect();
    if effects.is_empty() {
        return Ok("No fault and no adversary was planned.".into());
    }
    let each: Vec<String> =
        effects.iter().map(|effect| format!("{}: {}", effect.name, count(effect.effective))).collect();
    let each = each.join(", ");
    Ok(match effects.len() {
        1 => format!("The planned one took effect. How often: {each}."),
        all => format!("All {all} planned ones took effect. How often: {each}."),
    })
}

fn idle_because(effect: &Effect, outcome: &Outcome) -> String {
    let name = &effect.name;
    if effect.at >= outcome.ended {
        let (at, ended) = (time(effect.at), time(outcome.ended));
        format!("{name} (it begins at {at}, but the run ended at {ended}: begin earlier or run longer)")
    } else if effect.planned == 0 {
        format!("{name} (it hits no node: look at its `who`)")
    } else {
        let planned = counted(effect.planned, "time", "times");
        let from = time(effect.at);
        let until = effect.until.map_or_else(|| "the end".into(), time);
        format!("{name} (planned {planned}, from {from} to {until}: was there traffic for it to act on?)")
    }
}
