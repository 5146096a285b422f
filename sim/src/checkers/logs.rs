//! What must be true of the durable log.
//!
//! All look at the honest nodes that are up at the end and have been for some time, in the largest group of them that
//! is connected: whoever came back just now needs time to catch up.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Verdict;
use crate::outcome::{Answer, Append, AuthorLog, Frozen, LogFacts, NodeLog, Offence, Outcome};
use crate::words::{bytes, count, counted, list, time};

/// So many nodes or authors are named in one sentence.
const NAMED_MAX: usize = 5;

/// The facts, and the nodes that are to be looked at.
fn settled(outcome: &Outcome, within: Duration) -> Result<(&LogFacts, Vec<&NodeLog>), String> {
    let Some(facts) = &outcome.log else {
        return Err("Nodes kept no log: add `[log]` to the scenario.".into());
    };
    let since = outcome.ended.saturating_sub(within);
    let mut islands: BTreeMap<u32, Vec<&NodeLog>> = BTreeMap::new();
    for node in facts.nodes.iter().filter(|node| node.up_since <= since) {
        islands.entry(node.island).or_default().push(node);
    }
    let largest = islands.into_values().rev().max_by_key(Vec::len).unwrap_or_default();
    if largest.len() < 2 {
        return Err(format!(
            "At the end no two connected honest nodes had been up for {}: end faults earlier, or run longer.",
            time(within)
        ));
    }
    Ok((facts, largest))
}

/// The place of an author's log among the distinct ones.
fn place_of(facts: &LogFacts, node: &NodeLog, author: u32) -> Option<u32> {
    let author_at = |place: &u32| facts.logs.get(*place as usize).map(|log| log.author);
    let at = node.logs.binary_search_by_key(&Some(author), author_at).ok()?;
    node.logs.get(at).copied()
}

fn log_of<'a>(facts: &'a LogFacts, node: &NodeLog, author: u32) -> Option<&'a AuthorLog> {
    facts.logs.get(place_of(facts, node, author)? as usize)
}

/// Entries are promised to last once they are on so many other nodes.
pub(super) fn no_lost_entry(outcome: &Outcome, replicas_asked: usize, within: Duration) -> Verdict {
    let (facts, nodes) = settled(outcome, within)?;
    let due = outcome.ended.saturating_sub(within);
    let (mut acknowledged, mut partly) = (0, 0);
    let mut lost: Vec<(&Append, u64, Vec<u32>)> = Vec::new();
    // What was found of each distinct log need not be looked for again.
    let mut known: BTreeMap<u32, bool> = BTreeMap::new();
    for append in &facts.appends {
        let Some(Answer::Acknowledged { seq, hash, at, replicas }) = &append.answer else { continue };
        if *at > due {
            continue;
        }
        // The author was told that too few have it: nothing was promised.
        if *replicas < replicas_asked {
            partly += 1;
            continue;
        }
        acknowledged += 1;
        known.clear();
        let mut without = Vec::new();
        for node in &nodes {
            let is_there = place_of(facts, node, append.author).is_some_and(|place| {
                let of_log = |log: &AuthorLog| log.has(*seq, (*hash, append.data));
                *known.entry(place).or_insert_with(|| facts.logs.get(place as usize).is_some_and(of_log))
            });
            if !is_there {
                without.push(node.node);
            }
        }
        if !without.is_empty() {
            lost.push((append, *seq, without));
        }
    }
    let partly = match partly {
        0 => String::new(),
        partly => format!(" {} fewer replicas than asked for.", counted(partly, "other had", "others had")),
    };
    if acknowledged == 0 {
        let asked = counted(facts.appends.len() as u64, "append", "appends");
        return Err(format!("Of {asked} none was acknowledged, so nothing can be said about it.{partly}"));
    }
    let entries = counted(acknowledged, "acknowledged entry", "acknowledged entries");
    let of = counted(nodes.len() as u64, "honest node", "honest nodes");
    let Some((append, seq, without)) = lost.iter().max_by_key(|(_, _, without)| without.len()) else {
        return Ok(format!(
            "{entries}: each is on the disk of each of {of}, as it was acknowledged.{partly}"
        ));
    };
    Err(format!(
        "{} of {entries} are not on all of {of}; worst is entry {seq} of node {}, appended at {}, which {} lack \
         (nodes {}). Look at what the author and its peers did from then on.{partly}",
        count(lost.len() as u64),
        append.author,
        time(append.at),
        count(without.len() as u64),
        list(without, NAMED_MAX),
    ))
}

pub(super) fn equal_logs(outcome: &Outcome, within: Duration) -> Verdict {
    let (facts, nodes) = settled(outcome, within)?;
    if let Some(broken) = facts.logs.iter().find_map(broken_chain) {
        return Err(broken);
    }
    let unnoticed: Vec<u32> = nodes.iter().filter(|node| node.unnoticed > 0).map(|node| node.node).collect();
    if !unnoticed.is_empty() {
        return Err(format!(
            "Damage on the disks of nodes {} was not noticed until the end: lower disk.verify_ms, or run longer.",
            list(&unnoticed, NAMED_MAX)
        ));
    }
    let groups = groups(&nodes, |node| (&node.logs, node.fingerprint));
    let of = counted(nodes.len() as u64, "honest node", "honest nodes");
    if let [_] = groups.as_slice() {
        let logs = nodes.first().map_or(0, |node| node.logs.len() as u64);
        let entries: usize = nodes
            .first()
            .into_iter()
            .flat_map(|node| &node.logs)
            .filter_map(|place| facts.logs.get(*place as usize))
            .flat_map(|log| &log.records)
            .map(|record| record.entries.len())
            .sum();
        return Ok(format!(
            "{of} have the same {} with {}.",
            counted(logs, "log", "logs"),
            counted(entries as u64, "entry", "entries")
        ));
    }
    Err(format!(
        "{of} have {} different sets of logs; {}. {}",
        groups.len(),
        smallest(&groups),
        difference(facts, &groups)
    ))
}

/// Nodes of which something is equal, the largest group first.
fn groups<'a, K: Ord>(nodes: &[&'a NodeLog], key: impl Fn(&'a NodeLog) -> K) -> Vec<Vec<&'a NodeLog>> {
    let mut groups: BTreeMap<K, Vec<&NodeLog>> = BTreeMap::new();
    for node in nodes {
        groups.entry(key(node)).or_default().push(node);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group.first().map(|node| node.node)));
    groups
}

/// Who is not of the largest group.
fn smallest(groups: &[Vec<&NodeLog>]) -> String {
    let others: Vec<u32> = groups.iter().skip(1).flatten().map(|node| node.node).collect();
    format!("others than most have nodes {}", list(&others, NAMED_MAX))
}

/// An author of whom the first two groups have different logs.
fn difference(facts: &LogFacts, groups: &[Vec<&NodeLog>]) -> String {
    let (Some(one), Some(other)) =
        (groups.first().and_then(|group| group.first()), groups.get(1).and_then(|group| group.first()))
    else {
        return String::new();
    };
    let authors: BTreeSet<u32> = [one, other]
        .into_iter()
        .flat_map(|node| &node.logs)
        .filter_map(|place| facts.logs.get(*place as usize))
        .map(|log| log.author)
        .collect();
    let last = |node: &NodeLog, author| log_of(facts, node, author).map_or(0, AuthorLog::end);
    let differing =
        authors.iter().find(|author| log_of(facts, one, **author) != log_of(facts, other, **author));
    differing.map_or_else(
        || format!("The disks of nodes {} and {} are equal, and their heads are not.", one.node, other.node),
        |author| {
            format!(
                "Of node {author} node {} has entries up to {}, and node {} up to {}.",
                one.node,
                last(one, *author),
                other.node,
                last(other, *author)
            )
        },
    )
}

/// What is wrong with a log that is no chain from its beginning.
pub(super) fn broken_chain(log: &AuthorLog) -> Option<String> {
    let (mut next, mut prev) = (1, None);
    for record in &log.records {
        if record.first != next || record.prev != prev || record.entries.is_empty() {
            return Some(format!(
                "The log of node {} is no chain: entry {} does not follow the one before it.",
                log.author, record.first
            ));
        }
        next = record.first + record.entries.len() as u64;
        prev = Some(record.digest);
    }
    None
}

pub(super) fn equal_registries(outcome: &Outcome, within: Duration) -> Verdict {
    let (_, nodes) = settled(outcome, within)?;
    let most = nodes.iter().map(|node| node.registry_entries).max().unwrap_or(0);
    if most == 0 {
        return Err("No registry has an entry: raise log.registry_share, or append more.".into());
    }
    let groups = groups(&nodes, |node| (node.registry, node.registry_entries));
    let of = counted(nodes.len() as u64, "honest node", "honest nodes");
    match groups.as_slice() {
        [_] => Ok(format!("{of} have the same registry with {}.", counted(most as u64, "entry", "entries"))),
        _ => Err(format!("{of} have {} different registries; {}.", groups.len(), smallest(&groups))),
    }
}

pub(super) fn same_freeze(outcome: &Outcome, within: Duration) -> Verdict {
    let (facts, nodes) = settled(outcome, within)?;
    let is_honest = |author: u32| outcome.adversary_nodes.binary_search(&author).is_err();
    let frozen = || nodes.iter().flat_map(|node| node.frozen.iter().map(move |frozen| (*node, frozen)));
    if let Some((node, Frozen { author, fork, .. })) = frozen().find(|(_, frozen)| is_honest(frozen.author)) {
        return Err(format!(
            "Node {} holds the log of node {author} for frozen at entry {fork}, and node {author} is honest. \
             Look at how that came to use a number twice.",
            node.node
        ));
    }
    // What a sealed checkpoint covers stays, whatever is proved.
    let mut cuts: BTreeMap<u32, u64> = BTreeMap::new();
    for log in &facts.cut_logs {
        let cut = cuts.entry(log.author).or_default();
        *cut = (*cut).max(log.end());
    }
    for (node, frozen) in frozen() {
        let log = log_of(facts, node, frozen.author).filter(|log| log.end() >= frozen.fork);
        let is_covered = |log: &AuthorLog| cuts.get(&frozen.author).is_some_and(|cut| log.end() <= *cut);
        let behind = log.filter(|log| !is_covered(log)).and_then(|log| log.records.last());
        if let Some(last) = behind {
            return Err(format!(
                "Node {} has entries from {} on of node {}, whose log it holds for frozen at entry {}.",
                node.node, last.first, frozen.author, frozen.fork
            ));
        }
    }
    let groups = groups(&nodes, |node| &node.frozen);
    let authors: BTreeSet<u32> = frozen().map(|(_, frozen)| frozen.author).collect();
    let of = counted(nodes.len() as u64, "honest node", "honest nodes");
    if groups.len() > 1 {
        return Err(format!(
            "{of} hold {} different sets of logs for frozen; {}.",
            groups.len(),
            smallest(&groups)
        ));
    }
    if authors.is_empty() && !facts.forkers.is_empty() {
        return Err(format!(
            "Nodes {} have signed two records for one place, and no honest node has noticed.",
            list(&facts.forkers, NAMED_MAX)
        ));
    }
    Ok(format!(
        "{of} hold the same {} for frozen, by the same proofs; {} signed two records for one place.",
        counted(authors.len() as u64, "log", "logs"),
        counted(facts.forkers.len() as u64, "adversary", "adversaries")
    ))
}

pub(super) fn only_written(outcome: &Outcome) -> Verdict {
    let Some(facts) = &outcome.log else {
        return Err("Nodes kept no log: add `[log]` to the scenario.".into());
    };
    if facts.served_unwritten > 0 {
        let first = facts.first_served_unwritten.map_or_else(String::new, |Offence { node, at }| {
            format!(" (first by node {node} at {})", time(at))
        });
        let records = counted(facts.served_unwritten, "record was", "records were");
        return Err(format!("{records} given out that nobody had written so{first}."));
    }
    // How often each was asked to write what: two deletions of one thing read alike.
    let mut asked: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    let appends = facts.appends.iter().map(|append| (append.author, append.data));
    for entry in appends.chain(facts.operations.iter().copied()) {
        *asked.entry(entry).or_default() += 1;
    }
    let mut seen = 0_u64;
    for log in facts.logs.iter().filter(|log| outcome.adversary_nodes.binary_search(&log.author).is_err()) {
        let mut written: BTreeMap<u64, u32> = BTreeMap::new();
        for record in &log.records {
            for (index, (_, data)) in (0..).zip(&record.entries) {
                seen += 1;
                let (author, seq) = (log.author, record.first + index);
                let times = written.entry(*data).or_default();
                *times += 1;
                match asked.get(&(author, *data)) {
                    None => {
                        return Err(format!(
                            "Nobody asked node {author} to write what entry {seq} of its log says."
                        ));
                    }
                    Some(most) if *times > *most => {
                        return Err(format!(
                            "What entry {seq} of node {author} says is in its log {times} times, and it was asked for {most}."
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    if seen == 0 {
        return Err("The logs are empty, so nothing can be said about what is in them.".into());
    }
    Ok(format!(
        "{} in {}: all as their authors were asked to write them.",
        counted(seen, "entry", "entries"),
        counted(facts.logs.len() as u64, "distinct log", "distinct logs")
    ))
}

pub(super) fn bounded_buffers(outcome: &Outcome, most: u64) -> Verdict {
    let Some(facts) = &outcome.log else {
        return Err("Nodes kept no log: add `[log]` to the scenario.".into());
    };
    let held = bytes(facts.buffered_max);
    let limit = bytes(most);
    let Some(Offence { node, at }) = facts.buffered_at else {
        return Err("What logs held in their buffers was not recorded.".into());
    };
    if facts.buffered_max <= most {
        return Ok(format!("The buffers of no log held more than {held} (limit {limit})."));
    }
    Err(format!("The buffers of the log of node {node} held {held} at {} (limit {limit}).", time(at)))
}
