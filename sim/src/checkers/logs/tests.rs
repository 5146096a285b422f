//! Each check of the log passes good facts and fails doctored ones, and says what is wrong with them.

use omnimesh_protocol::Hash;

use super::*;
use crate::checkers::checkpoints::true_checkpoints;
use crate::outcome::{Covered, SealedCheckpoint, StoredRecord};

const WITHIN: Duration = Duration::from_secs(20);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hash(name: &str) -> Hash {
    Hash::of(name.as_bytes())
}

/// The log of an author: a record of two entries, and so many of one.
fn log(author: u32, singles: u64) -> AuthorLog {
    let digest = |first: u64| hash(&format!("{author} {first}"));
    let mut records = vec![StoredRecord {
        first: 1,
        prev: None,
        digest: digest(1),
        entries: vec![(hash("inner"), u64::from(author) * 100 + 1), (digest(1), u64::from(author) * 100 + 2)],
    }];
    for first in (3..).take(usize::try_from(singles).unwrap()) {
        let prev = Some(records.last().unwrap().digest);
        let entries = vec![(digest(first), u64::from(author) * 100 + first)];
        records.push(StoredRecord { first, prev, digest: digest(first), entries });
    }
    AuthorLog { author, records }
}

fn appends(log: &AuthorLog) -> Vec<Append> {
    let entries = log.records.iter().flat_map(|record| (record.first..).zip(&record.entries));
    let append = |(seq, (hash, data)): (u64, &(Hash, u64))| Append {
        author: log.author,
        at: seconds(10 + seq),
        data: *data,
        answer: Some(Answer::Acknowledged { seq, hash: *hash, replicas: 0, at: seconds(11 + seq) }),
    };
    entries.map(append).collect()
}

/// Four honest nodes that hold the logs of nodes 0 and 1, and of node 9, which is frozen.
fn good() -> Outcome {
    let logs = vec![log(0, 3), log(1, 1), log(9, 0)];
    let node = |node| NodeLog {
        node,
        up_since: Duration::ZERO,
        island: 0,
        logs: vec![0, 1, 2],
        frozen: vec![Frozen { author: 9, fork: 3, proof: hash("proof") }],
        fingerprint: hash("heads"),
        registry: hash("registry"),
        registry_entries: 7,
        unnoticed: 0,
        base: Some(0),
        dropped: 2,
    };
    let covered = Covered { cut: vec![0, 1], is: hash("state"), should_be: hash("state") };
    let facts = LogFacts {
        appends: [appends(&logs[0]), appends(&logs[1])].concat(),
        logs,
        nodes: (0..4).map(node).collect(),
        forkers: vec![9],
        checkpoints: vec![SealedCheckpoint {
            step: 20,
            node: 2,
            at: seconds(25),
            nodes: 4,
            signers: vec![0, 1, 2],
            covered: covered.clone(),
        }],
        bases: vec![covered],
        cut_logs: vec![log(0, 1), log(1, 0)],
        buffered_max: 4_000,
        buffered_at: Some(Offence { node: 2, at: seconds(12) }),
        ..LogFacts::default()
    };
    Outcome {
        nodes: 10,
        ended: seconds(60),
        adversary_nodes: vec![9],
        log: Some(facts),
        ..Outcome::default()
    }
}

/// What the check says of the good facts with a change.
fn after(change: impl FnOnce(&mut LogFacts), check: impl Fn(&Outcome) -> Verdict) -> Verdict {
    let mut outcome = good();
    change(outcome.log.as_mut().unwrap());
    check(&outcome)
}

#[track_caller]
fn assert_fails(verdict: Verdict, says: &[&str]) {
    let detail = verdict.expect_err("it passes");
    for part in says {
        assert!(detail.contains(part), "{part:?} is not in: {detail}");
    }
}

type Named = (&'static str, fn(&Outcome) -> Verdict);

const ALL: [Named; 7] = [
    ("no_lost_entry", |outcome| no_lost_entry(outcome, 0, WITHIN)),
    ("equal_logs", |outcome| equal_logs(outcome, WITHIN)),
    ("equal_registries", |outcome| equal_registries(outcome, WITHIN)),
    ("same_freeze", |outcome| same_freeze(outcome, WITHIN)),
    ("only_written", only_written),
    ("bounded_buffers", |outcome| bounded_buffers(outcome, 4_096)),
    ("true_checkpoints", true_checkpoints),
];

#[test]
fn good_facts_pass_and_no_facts_fail() {
    for (name, check) in ALL {
        let verdict = check(&good());
        assert!(verdict.as_ref().is_ok_and(|detail| detail.ends_with('.')), "{name}: {verdict:?}");
        assert!(check(&Outcome { log: None, ..good() }).is_err(), "{name}");
    }
}

#[test]
fn who_came_back_just_now_or_is_cut_off_is_not_looked_at() {
    let change = |facts: &mut LogFacts| {
        for (node, up_since, island) in [(2, seconds(50), 0), (3, Duration::ZERO, 3)] {
            let held = &mut facts.nodes[node];
            (held.up_since, held.island, held.logs) = (up_since, island, Vec::new());
            (held.registry, held.frozen) = (hash("other"), Vec::new());
        }
    };
    for (name, check) in ALL {
        assert!(after(change, check).is_ok(), "{name}");
    }
    let alone = |facts: &mut LogFacts| facts.nodes.truncate(1);
    assert_fails(after(alone, |outcome| equal_logs(outcome, WITHIN)), &["no two connected honest nodes"]);
}

#[test]
fn a_lost_entry_is_named() {
    let check = |outcome: &Outcome| no_lost_entry(outcome, 0, WITHIN);
    // One node has less of the first log.
    let shorter = |facts: &mut LogFacts| {
        facts.logs.push(log(0, 1));
        facts.nodes[3].logs[0] = 3;
    };
    assert_fails(after(shorter, check), &["2 of 8 acknowledged", "of node 0", "nodes 3"]);
    // Something else is in its place.
    let other = |facts: &mut LogFacts| facts.logs[1].records[0].entries[0].1 += 1;
    assert_fails(after(other, check), &["entry 1 of node 1", "4 lack"]);
    // What was acknowledged in the last moments may be on its way.
    let late = |facts: &mut LogFacts| {
        facts.logs[1].records.truncate(1);
        if let Some(Answer::Acknowledged { at, .. }) = &mut facts.appends[7].answer {
            *at = seconds(41);
        }
    };
    assert!(after(late, check).is_ok());
    // Of what has fewer replicas than asked for nothing was promised.
    let few = |outcome: &Outcome| no_lost_entry(outcome, 1, WITHIN);
    let one_has = |facts: &mut LogFacts| {
        shorter(facts);
        for append in &mut facts.appends[3..] {
            if let Some(Answer::Acknowledged { replicas, .. }) = &mut append.answer {
                *replicas = 1;
            }
        }
    };
    assert_fails(after(one_has, few), &["2 of 5 acknowledged", "3 others had fewer replicas"]);
    assert_fails(after(shorter, few), &["none was acknowledged", "8 others had"]);
    let none = |facts: &mut LogFacts| facts.appends.iter_mut().for_each(|append| append.answer = None);
    assert_fails(after(none, check), &["none was acknowledged"]);
}

#[test]
fn unequal_logs_are_named() {
    let check = |outcome: &Outcome| equal_logs(outcome, WITHIN);
    let longer = |facts: &mut LogFacts| {
        facts.logs.push(log(1, 2));
        facts.nodes[2].logs[1] = 3;
    };
    assert_fails(
        after(longer, check),
        &["2 different sets", "nodes 2", "Of node 1 node 0 has entries up to 3"],
    );
    let head = |facts: &mut LogFacts| facts.nodes[1].fingerprint = hash("other");
    assert_fails(after(head, check), &["heads are not"]);
    let gap = |facts: &mut LogFacts| drop(facts.logs[0].records.remove(1));
    assert_fails(after(gap, check), &["node 0 is no chain", "entry 4"]);
    assert_fails(after(|facts| facts.nodes[1].unnoticed = 1, check), &["disks of nodes 1"]);
}

#[test]
fn unequal_registries_are_named() {
    let check = |outcome: &Outcome| equal_registries(outcome, WITHIN);
    let other = |facts: &mut LogFacts| facts.nodes[1].registry = hash("other");
    assert_fails(after(other, check), &["2 different registries", "nodes 1"]);
    let empty = |facts: &mut LogFacts| facts.nodes.iter_mut().for_each(|node| node.registry_entries = 0);
    assert_fails(after(empty, check), &["No registry has an entry"]);
}

#[test]
fn frozen_logs_are_the_same_and_of_nobody_honest() {
    let check = |outcome: &Outcome| same_freeze(outcome, WITHIN);
    let other = |facts: &mut LogFacts| facts.nodes[1].frozen[0].proof = hash("other proof");
    assert_fails(after(other, check), &["2 different sets", "nodes 1"]);
    let honest = |facts: &mut LogFacts| facts.nodes[1].frozen[0].author = 1;
    assert_fails(after(honest, check), &["node 1 is honest"]);
    let behind = |facts: &mut LogFacts| facts.nodes.iter_mut().for_each(|node| node.frozen[0].fork = 2);
    assert_fails(after(behind, check), &["entries from 1 on of node 9"]);
    let unseen = |facts: &mut LogFacts| facts.nodes.iter_mut().for_each(|node| node.frozen.clear());
    assert_fails(after(unseen, check), &["Nodes 9", "no honest node has noticed"]);
}

#[test]
fn what_nobody_wrote_is_named() {
    let unasked = |facts: &mut LogFacts| drop(facts.appends.remove(2));
    assert_fails(after(unasked, only_written), &["Nobody asked node 0", "entry 3"]);
    let twice = |facts: &mut LogFacts| facts.logs[0].records[2].entries[0].1 = 1;
    assert_fails(after(twice, only_written), &["entry 4 of node 0 says", "2 times"]);
    let served = |facts: &mut LogFacts| {
        facts.served_unwritten = 2;
        facts.first_served_unwritten = Some(Offence { node: 3, at: seconds(30) });
    };
    assert_fails(after(served, only_written), &["2 records were given out", "node 3 at 30 s"]);
}

#[test]
fn full_buffers_are_named() {
    let full = |facts: &mut LogFacts| facts.buffered_max = 5_000;
    let check = |outcome: &Outcome| bounded_buffers(outcome, 4_096);
    assert_fails(after(full, check), &["node 2", "4.9 KiB", "12 s"]);
}

#[test]
fn false_checkpoints_are_named() {
    let none = |facts: &mut LogFacts| facts.checkpoints.clear();
    assert_fails(after(none, true_checkpoints), &["No checkpoint was sealed by two"]);
    let alone = |facts: &mut LogFacts| facts.checkpoints[0].signers.truncate(1);
    assert_fails(after(alone, true_checkpoints), &["No checkpoint was sealed by two"]);
    let hollow = |facts: &mut LogFacts| facts.checkpoints[0].covered.is = hash("nothing");
    assert_fails(after(hollow, true_checkpoints), &["step 20", "is not what the entries in its cut come to"]);
    let forgetful = |facts: &mut LogFacts| facts.bases[0].is = hash("nothing");
    assert_fails(after(forgetful, true_checkpoints), &["2 entries that node 0 has dropped"]);
    let unwritten = |facts: &mut LogFacts| drop(facts.cut_logs[0].records.remove(0));
    assert_fails(after(unwritten, true_checkpoints), &["never written", "node 0"]);
    let other = |facts: &mut LogFacts| facts.cut_logs[0].records[1].entries[0].1 = 77;
    assert_fails(after(other, true_checkpoints), &["entry 3 of node 0", "not the one that was acknowledged"]);
    let split = |facts: &mut LogFacts| {
        let mut other = log(0, 1);
        other.records[1].digest = hash("other");
        facts.cut_logs.push(other);
    };
    assert_fails(after(split, true_checkpoints), &["node 0", "two branches"]);
}

#[test]
fn a_fork_that_checkpoints_took_both_branches_of_is_the_forkers_doing() {
    let split = |facts: &mut LogFacts| {
        let mut branches = [log(9, 1), log(9, 1)];
        branches[1].records[1].digest = hash("other");
        facts.cut_logs.extend(branches);
        facts.bases[0].is = hash("both");
    };
    assert!(after(split, true_checkpoints).is_ok());
}
