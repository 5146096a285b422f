//! What must be true of checkpoints of the durable log.

use std::collections::BTreeMap;

use super::Verdict;
use super::logs::broken_chain;
use crate::outcome::{Answer, AuthorLog, Covered, LogFacts, Outcome, SealedCheckpoint};
use crate::words::{count, counted, time};

/// So many must have signed what is taken in place of entries.
const SIGNERS_MIN: usize = 2;

pub(super) fn true_checkpoints(outcome: &Outcome) -> Verdict {
    let Some(facts) = &outcome.log else {
        return Err("Nodes kept no log: add `[log]` to the scenario.".into());
    };
    // Who has never met anybody signs alone, and nobody takes it.
    let is_taken = |sealed: &&SealedCheckpoint| sealed.signers.len() >= SIGNERS_MIN;
    let Some(newest) = facts.checkpoints.iter().rfind(is_taken) else {
        return Err(
            "No checkpoint was sealed by two nodes: lower checkpoints.every_steps, or run longer.".into()
        );
    };
    if let Some(broken) = facts.cut_logs.iter().find_map(broken_chain) {
        return Err(format!("A checkpoint covers what was never written. {broken}"));
    }
    let cuts = cuts(facts);
    let forked = contradicted(&cuts);
    let is_honest = |author: &&u32| outcome.adversary_nodes.binary_search(author).is_err();
    if let Some(author) = forked.iter().find(is_honest) {
        return Err(format!("Checkpoints cut the log of node {author}, which is honest, on two branches."));
    }
    contradicts_none(facts, &cuts)?;
    // Whoever joins two branches of a fork has both states, and is not what either comes to.
    if forked.is_empty() {
        fold_alike(facts)?;
    }
    let dropped = facts.nodes.iter().filter(|node| node.dropped > 0);
    let most = dropped.clone().map(|node| node.dropped).max().unwrap_or(0);
    Ok(format!(
        "{}, the last of step {}, are what the entries in their cuts come to; so is what stands for dropped entries at {} \
         (up to {} of them).",
        counted(facts.checkpoints.len() as u64, "checkpoint", "checkpoints"),
        newest.step,
        counted(dropped.count() as u64, "node", "nodes"),
        counted(most, "entry", "entries"),
    ))
}

fn name(sealed: &SealedCheckpoint) -> String {
    format!("The checkpoint of step {} that node {} sealed at {}", sealed.step, sealed.node, time(sealed.at))
}

/// All cuts of each author's log.
fn cuts(facts: &LogFacts) -> BTreeMap<u32, Vec<&AuthorLog>> {
    let mut cuts: BTreeMap<u32, Vec<&AuthorLog>> = BTreeMap::new();
    for log in &facts.cut_logs {
        cuts.entry(log.author).or_default().push(log);
    }
    cuts
}

/// Authors whose cuts are not all on one chain.
fn contradicted(cuts: &BTreeMap<u32, Vec<&AuthorLog>>) -> Vec<u32> {
    let is_split = |logs: &[&AuthorLog]| {
        let longest = logs.iter().max_by_key(|log| log.records.len());
        longest.is_some_and(|longest| !logs.iter().all(|log| longest.records.starts_with(&log.records)))
    };
    cuts.iter().filter(|(_, logs)| is_split(logs)).map(|(author, _)| *author).collect()
}

/// What was acknowledged is in every cut that reaches so far.
fn contradicts_none(facts: &LogFacts, cuts: &BTreeMap<u32, Vec<&AuthorLog>>) -> Result<(), String> {
    for append in &facts.appends {
        let Some(Answer::Acknowledged { seq, hash, .. }) = append.answer else { continue };
        let mut cuts = cuts.get(&append.author).into_iter().flatten().filter(|log| log.end() >= seq);
        if cuts.any(|log| !log.has(seq, (hash, append.data))) {
            return Err(format!(
                "A checkpoint covers entry {seq} of node {}, and it is not the one that was acknowledged there.",
                append.author
            ));
        }
    }
    Ok(())
}

/// Everything that stands for entries is what these come to.
fn fold_alike(facts: &LogFacts) -> Result<(), String> {
    let is_false = |covered: &Covered| covered.is != covered.should_be;
    let wrong: Vec<_> = facts.checkpoints.iter().filter(|sealed| is_false(&sealed.covered)).collect();
    if let Some(sealed) = wrong.first() {
        return Err(format!(
            "{} is not what the entries in its cut come to; so are {} of {}.",
            name(sealed),
            count(wrong.len() as u64),
            count(facts.checkpoints.len() as u64),
        ));
    }
    let base_of = |place: u32| facts.bases.get(place as usize);
    let wrong = facts.nodes.iter().find(|node| node.base.and_then(base_of).is_some_and(is_false));
    match wrong {
        None => Ok(()),
        Some(node) => Err(format!(
            "What stands for the {} that node {} has dropped is not what they come to.",
            counted(node.dropped, "entry", "entries"),
            node.node
        )),
    }
}
