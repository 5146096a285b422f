//! The log and the registry of two islands become one again. Nobody gives a command.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use omnimesh_tests::accept::{is_full, size};
use omnimesh_tests::{Node, SOON, check, lab, wait_for};
use serde_json::{Value, json};

use crate::hosts::{Hosts, tell};
use crate::mesh::Mesh;

/// What a full run has to do within this time of the moment when all are connected again.
const EQUAL_MAX: Duration = Duration::from_secs(10);
/// As in `cut`.
const DEAD_MAX: Duration = Duration::from_secs(25);
/// Bytes of an entry.
const ENTRY_BYTES: usize = 100;

/// Appends so many entries at one node.
fn append(node: &Node<'_>, what: &str, count: usize) {
    let lines: String = (0..count)
        .map(|number| format!("{:x<ENTRY_BYTES$}\n", format!("{what} {number} of {} ", node.name())))
        .collect();
    let run = node.run_with_input(&["log", "append", "-", "--lines", "--output", "ndjson"], lines.as_bytes());
    run.expect(0, &[]);
    assert_eq!(run.lines().len(), count);
}

/// What has to be the same everywhere.
fn summary(node: &Node<'_>) -> Result<Value, String> {
    let status = node.try_json(&["log", "status"])?;
    check(status["behind"] == 0, || status.to_string())?;
    let registry = node.try_json(&["registry", "list"])?;
    Ok(json!([status["fingerprint"], status["entries"], registry["entries"], registry["as_of"]["heads"]]))
}

fn equal(nodes: &[&Node<'_>]) -> Result<Value, String> {
    let first = summary(nodes[0])?;
    for node in &nodes[1..] {
        let other = summary(node)?;
        check(other == first, || format!("{} has\n{other}\nand {}\n{first}", node.name(), nodes[0].name()))?;
    }
    Ok(first)
}

fn heads(node: &Node<'_>) -> BTreeMap<String, u64> {
    let heads = node.json(&["log", "heads"]);
    let head = |head: &Value| Some((head["author"].as_str()?.to_owned(), head["seq"].as_u64()?));
    heads.as_array().into_iter().flatten().filter_map(head).collect()
}

/// Conflicting changes of the registry, as one island makes them.
fn change_registry(island: &[&Node<'_>], name: &str) {
    let [first, last] = [island[0], island[island.len() - 1]];
    first.json(&["registry", "put", "model/shared", &format!("owner={name}"), &format!("{name}=1")]);
    last.json(&["registry", "update", "service/both", &format!("by={name}"), &format!("{name}=true")]);
    last.json(&["registry", "put", &format!("agent/{name}"), "--replicas", "1"]);
    first.json(&["registry", "link", &format!("agent/{name}"), "uses", "model/shared"]);
    match name {
        "left" => first.json(&["registry", "delete", "tool/doomed"]),
        _ => first.json(&["registry", "update", "tool/doomed", "still=used"]),
    };
}

/// What the reports of a node since then say of each author: how many entries it missed and got.
fn missed(node: &Node<'_>, reports_before: usize) -> BTreeMap<String, u64> {
    let gaps = node.json(&["log", "gaps"]);
    let mut missed: BTreeMap<String, u64> = BTreeMap::new();
    for report in gaps.as_array().expect("a list").iter().skip(reports_before) {
        assert_eq!(report["nobody_has"], 0, "{report}");
        let (mut sum, mut given) = (0, report["entries_gossip"].as_u64().unwrap_or_default());
        for author in report["authors"].as_array().expect("a list") {
            let recovered = author["recovered"].as_u64().expect("a number");
            sum += recovered;
            *missed.entry(author["author"].as_str().expect("an author").to_owned()).or_default() += recovered;
        }
        for source in report["sources"].as_array().expect("a list") {
            given += source["entries"].as_u64().expect("a number");
            assert_ne!(source["peer_id"], node.peer_id(), "{report}");
        }
        assert_eq!(report["entries"], sum, "what was recovered adds up: {report}");
        assert_eq!(report["entries"], given, "what was given adds up: {report}");
        assert!(report["bytes_received"].as_u64() >= report["record_bytes"].as_u64(), "{report}");
    }
    missed
}

#[test]
fn islands_that_wrote_have_one_log_and_registry_again() {
    let Some(hosts) = Hosts::new(5) else { return };
    let count = size(300, 5_000);
    let lab = lab!();
    let mesh = Mesh::start(&lab, &hosts);
    let all: Vec<&Node<'_>> = mesh.nodes.iter().collect();
    for key in ["model/shared", "service/both", "tool/doomed"] {
        all[0].json(&["registry", "put", key, "owner=nobody", "--replicas", "1"]);
    }
    all.iter().for_each(|node| append(node, "before", 3));
    wait_for("equal logs before the cut", SOON, || equal(&all));

    let islands: [&[usize]; 2] = [&[0, 1, 2], &[3, 4]];
    hosts.part(&islands);
    let dead = mesh.wait_islands(&islands, DEAD_MAX);
    let before = heads(all[0]);
    let reports: Vec<usize> =
        all.iter().map(|node| node.json(&["log", "gaps"]).as_array().map_or(0, Vec::len)).collect();
    let began = Instant::now();
    for (island, name) in islands.iter().zip(["left", "right"]) {
        let nodes: Vec<&Node<'_>> = island.iter().map(|host| all[*host]).collect();
        change_registry(&nodes, name);
    }
    thread::scope(|scope| {
        for island in islands {
            for host in island {
                let node = all[*host];
                scope.spawn(move || append(node, "meanwhile", count.div_ceil(island.len())));
            }
        }
    });
    for island in islands {
        let nodes: Vec<&Node<'_>> = island.iter().map(|host| all[*host]).collect();
        wait_for("equal logs within an island", SOON, || equal(&nodes));
    }
    let wrote = began.elapsed();
    let ends: Vec<BTreeMap<String, u64>> = islands.iter().map(|island| heads(all[island[0]])).collect();

    let lost = hosts.mend();
    assert!(lost.iter().all(|lost| *lost > 0), "the cut took no effect: {lost:?}");
    let mended = Instant::now();
    let connected = |node: &&Node<'_>| {
        let peers = node.try_json(&["peers"])?;
        let count = peers.as_array().map_or(0, Vec::len);
        check(count == all.len() - 1, || format!("{} has {count} peers", node.name()))
    };
    wait_for("all to be connected again", SOON, || all.iter().try_for_each(connected));
    let back = Instant::now();
    let same = wait_for("equal logs and registries", SOON, || equal(&all));
    let healed = back.elapsed();
    tell(&format!(
        "log of two islands: held for dead after {dead:.1?}, each wrote {count} entries (both in {wrote:.1?}), connections back {:.1?} \
         after the heal, {} entries and the registry equal {healed:.1?} after that",
        back.duration_since(mended),
        same[1],
    ));
    if is_full() {
        assert!(healed <= EQUAL_MAX, "it took {healed:?}");
    }
    // Everything that one side wrote is what the other missed, author by author.
    for (island, (mine, theirs)) in islands.iter().zip([(&ends[0], &ends[1]), (&ends[1], &ends[0])]) {
        let expected: BTreeMap<String, u64> = theirs
            .iter()
            .map(|(author, seq)| {
                (author.clone(), seq.saturating_sub(mine.get(author).copied().unwrap_or_default()))
            })
            .filter(|(_, entries)| *entries > 0)
            .collect();
        assert_eq!(
            expected.values().sum::<u64>() + before.values().sum::<u64>(),
            theirs.values().sum::<u64>()
        );
        for host in *island {
            wait_for(&format!("the account of what {} missed", all[*host].name()), SOON, || {
                let missed = missed(all[*host], reports[*host]);
                check(missed == expected, || format!("{missed:?}, not {expected:?}"))
            });
        }
    }
    // One truth about what both changed, whichever it is.
    let get = |key: &str| all[0].json(&["registry", "get", key])["entry"]["fields"].clone();
    let shared = get("model/shared");
    let owner = shared["owner"].as_str().expect("an owner").to_owned();
    assert_eq!(shared, json!({"owner": owner, owner.clone(): 1}), "a put replaces the whole entry");
    let both = get("service/both");
    assert_eq!(
        (&both["left"], &both["right"]),
        (&json!(true), &json!(true)),
        "updates of different fields both count"
    );
    all[0].run(&["registry", "get", "tool/doomed"]).expect(6, &["there is no tool/doomed"]);
    let links = all[4].json(&["registry", "links", "model/shared", "--direction", "in"]);
    assert_eq!(links["links"].as_array().map(Vec::len), Some(2), "{links}");
}
