//! What was published and what came of it.

use std::time::Duration;

use omnimesh_protocol::config::NodeConfig;

use super::Verdict;
use crate::outcome::{Offence, Outcome, Published};
use crate::scenario::Scenario;
use crate::words::{count, counted, list, percent, time};

/// So many nodes or messages are named in one sentence.
const NAMED_MAX: usize = 5;

pub(super) fn authentic(scenario: &Scenario, outcome: &Outcome) -> Verdict {
    let mut wrong = Vec::new();
    if outcome.forged > 0 {
        let deliveries = counted(outcome.forged, "delivery", "deliveries");
        wrong.push(format!("{deliveries} of a message that nobody published{}", first(outcome.first_forged)));
    }
    if outcome.delivered_twice > 0 {
        let deliveries = counted(outcome.delivered_twice, "delivery", "deliveries");
        let first = first(outcome.first_delivered_twice);
        wrong.push(format!("{deliveries} of a message to a node that had it{first}"));
    }
    wrong.extend(twice_in_the_record(outcome));
    wrong.extend(stale(scenario, outcome));
    if wrong.is_empty() {
        let deliveries = outcome.deliveries.iter().map(|of_message| of_message.len() as u64).sum();
        let deliveries = counted(deliveries, "delivery", "deliveries");
        let messages = counted(outcome.messages.len() as u64, "message", "messages");
        return Ok(format!("{deliveries} of {messages}: each once, each as its author published it."));
    }
    Err(format!(
        "{}. Look at what the validator and the router of that node did just before.",
        wrong.join("; ")
    ))
}

/// The delivery that came latest, if no node should have taken the message any more: the window of the validator,
/// a step for what its author's clock may be ahead, and one for the steps that are under way.
fn stale(scenario: &Scenario, outcome: &Outcome) -> Option<String> {
    let steps = NodeConfig::default().step_window_past + 2;
    let window = scenario.network.step_interval * u32::try_from(steps).unwrap_or(u32::MAX);
    let (number, latest) = outcome
        .deliveries
        .iter()
        .enumerate()
        .flat_map(|(number, deliveries)| deliveries.iter().map(move |delivery| (number, delivery)))
        .max_by_key(|(_, delivery)| delivery.latency_us)?;
    let latency = Duration::from_micros(u64::from(latest.latency_us));
    (latency > window).then(|| {
        format!(
            "message {number} was delivered to node {} only after {}, when it was stale",
            latest.node,
            time(latency)
        )
    })
}

fn first(offence: Option<Offence>) -> String {
    offence.map_or_else(String::new, |Offence { node, at }| format!(" (first at node {node}, {})", time(at)))
}

/// The first node that the record has twice for one message, or that got its own.
fn twice_in_the_record(outcome: &Outcome) -> Option<String> {
    if outcome.deliveries.len() > outcome.messages.len() {
        let (lists, messages) = (outcome.deliveries.len(), outcome.messages.len());
        return Some(format!(
            "deliveries of {lists} messages are recorded, but only {messages} were published"
        ));
    }
    let nodes = outcome.deliveries.iter().flatten().map(|delivery| delivery.node as usize + 1).max()?;
    // Which message each node got last, counted from 1.
    let mut last = vec![0; nodes];
    for (number, (message, deliveries)) in outcome.messages.iter().zip(&outcome.deliveries).enumerate() {
        for delivery in deliveries {
            let (node, at) = (delivery.node, time(delivered_at(message, delivery.latency_us)));
            if node == message.author {
                return Some(format!(
                    "message {number} was delivered to its own author, node {node}, at {at}"
                ));
            }
            if std::mem::replace(&mut last[node as usize], number + 1) == number + 1 {
                return Some(format!("message {number} was delivered to node {node} twice, again at {at}"));
            }
        }
    }
    None
}

fn delivered_at(message: &Published, latency_us: u32) -> std::time::Duration {
    message.at + std::time::Duration::from_micros(latency_us.into())
}

pub(super) fn delivery(scenario: &Scenario, outcome: &Outcome, least: f64) -> Verdict {
    if outcome.messages.is_empty() {
        let planned = counted(scenario.workload.messages.into(), "message was", "messages were");
        return Err(format!(
            "Nothing was published ({planned} planned from {} on; the run ended at {}).",
            time(scenario.workload.start),
            time(outcome.ended)
        ));
    }
    contradiction(outcome)?;
    let expected: u64 = outcome.messages.iter().map(|message| u64::from(message.audience)).sum();
    let missed: u64 = outcome.messages.iter().map(|message| u64::from(message.missed)).sum();
    if expected == 0 {
        return Err("No message had an audience: no honest node was connected to its author. \
                    Look at the topology, and at faults and adversaries at the time of the workload."
            .into());
    }
    let arrived = expected.saturating_sub(missed);
    let ratio = arrived as f64 / expected as f64;
    let messages = counted(outcome.messages.len() as u64, "message", "messages");
    let planned = u64::from(scenario.workload.messages);
    let fewer = if (outcome.messages.len() as u64) < planned {
        format!(" Of {} planned messages only {} were published.", count(planned), outcome.messages.len())
    } else {
        String::new()
    };
    let figures = format!(
        "{} of {} expected deliveries of {messages} took place: {} (at least {} must).{fewer}",
        count(arrived),
        count(expected),
        percent(ratio),
        percent(least)
    );
    if ratio >= least {
        return Ok(if missed == 0 { figures } else { format!("{figures} {}", worst(outcome)) });
    }
    Err(format!(
        "{figures} {} Look at faults and adversaries at that time, and at what the routers of those nodes shed.",
        worst(outcome)
    ))
}

/// The two records of what arrived must be of one mind.
fn contradiction(outcome: &Outcome) -> Result<(), String> {
    let (lists, messages) = (outcome.deliveries.len(), outcome.messages.len());
    if lists != messages {
        return Err(format!("The record is incomplete: {messages} messages, but deliveries of {lists}."));
    }
    for (number, (message, deliveries)) in outcome.messages.iter().zip(&outcome.deliveries).enumerate() {
        let (audience, missed) = (u64::from(message.audience), u64::from(message.missed));
        let arrived = deliveries.iter().filter(|delivery| delivery.is_expected).count() as u64;
        if audience.checked_sub(missed) != Some(arrived) {
            return Err(format!(
                "The record contradicts itself: message {number} has an audience of {audience}, of which {missed} \
                 missed it, but {arrived} deliveries to its audience. This is an error of the engine."
            ));
        }
    }
    Ok(())
}

/// The message that most missed, and who.
fn worst(outcome: &Outcome) -> String {
    let incomplete = outcome.messages.iter().filter(|message| message.missed > 0).count() as u64;
    let worst = outcome.messages.iter().zip(&outcome.deliveries).enumerate();
    // The first of those that are equally bad.
    let Some((number, (message, deliveries))) = worst.rev().max_by_key(|(_, (message, _))| message.missed)
    else {
        return String::new();
    };
    let mut got: Vec<u32> = deliveries.iter().map(|delivery| delivery.node).collect();
    got.sort_unstable();
    let without: Vec<u32> = (0..outcome.nodes)
        .filter(|node| {
            *node != message.author
                && got.binary_search(node).is_err()
                && outcome.adversary_nodes.binary_search(node).is_err()
        })
        .collect();
    // The audience is not recorded by name: others may have been cut off from the author.
    let who = if without.len() as u64 == u64::from(message.missed) { "" } else { "among these: " };
    format!(
        "{} incomplete; worst is message {number} (author {}, published at {}), which {} of {} nodes missed \
         ({who}{}).",
        counted(incomplete, "message is", "messages are"),
        message.author,
        time(message.at),
        count(message.missed.into()),
        count(message.audience.into()),
        list(&without, NAMED_MAX),
    )
}
