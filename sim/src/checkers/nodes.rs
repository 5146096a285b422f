//! What nodes hold, and whom they shut out.

use super::Verdict;
use crate::outcome::Outcome;
use crate::words::{bytes, counted, time};

pub(super) fn bounded_memory(outcome: &Outcome, most: u64) -> Verdict {
    let held = outcome.bytes_per_node;
    if held == 0 {
        return Err("What nodes hold was not recorded, so nothing can be said about it.".into());
    }
    let (held_text, most_text) = (bytes(held), bytes(most));
    if held <= most {
        return Ok(format!("A node holds {held_text} on average at the end (limit {most_text})."));
    }
    let messages = counted(outcome.messages.len() as u64, "message", "messages");
    let ended = time(outcome.ended);
    Err(format!(
        "A node holds {held_text} on average at the end, {:.1} times the limit of {most_text}, after {messages} \
         in {ended}. Look at the bounds of caches and queues, and run twice as long: what still grows is not bounded.",
        held as f64 / most.max(1) as f64
    ))
}

pub(super) fn no_false_quarantine(outcome: &Outcome) -> Verdict {
    let all = &outcome.false_quarantines;
    let Some(&(by, whom, at)) = all.iter().min_by_key(|(_, _, at)| *at) else {
        let honest = u64::from(outcome.nodes).saturating_sub(outcome.adversary_nodes.len() as u64);
        return Ok(format!(
            "None of {} was shut out by another.",
            counted(honest, "honest node", "honest nodes")
        ));
    };
    let mut victims: Vec<u32> = all.iter().map(|&(_, whom, _)| whom).collect();
    victims.sort_unstable();
    // The one that most others shut out.
    let worst = victims.chunk_by(|a, b| a == b).max_by_key(|same| same.len()).and_then(|same| {
        same.first().map(|node| format!("node {node}, by {}", counted(same.len() as u64, "other", "others")))
    });
    let times = counted(all.len() as u64, "time", "times");
    victims.dedup();
    let victims = counted(victims.len() as u64, "honest node was", "honest nodes were");
    Err(format!(
        "{victims} shut out by honest ones, {times}; first node {whom} by node {by} at {}; most often {}. \
         Look at the findings of node {by} about node {whom} before that.",
        time(at),
        worst.unwrap_or_default(),
    ))
}
