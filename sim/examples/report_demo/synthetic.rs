//! A made-up outcome that looks like that of a run: shortest paths on a random graph, with a partition, a
//! crash and adversaries. No protocol runs. It exercises checkers and reports without an engine.

#![expect(clippy::cast_possible_truncation, reason = "all numbers are small")]

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use omnimesh_sim::outcome::{Cost, Delivery, Effect, Outcome, Published, Sample, Traffic};
use omnimesh_sim::scenario::{
    Adversary, AdversaryKind, Check, Fault, FaultKind, Latency, Links, Network, Region, Scenario, Who,
    Workload,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// Mesh links that each node makes; it gets about as many by others.
const LINKS: u32 = 4;
const PARTITION: (Duration, Duration) = (Duration::from_secs(22), Duration::from_secs(30));
const ATTACK: Duration = Duration::from_secs(35);

/// A scenario with something of everything.
pub(crate) fn scenario(nodes: u32) -> Scenario {
    let region = |name: &str, share| Region { name: name.into(), share };
    Scenario {
        name: "three-regions".into(),
        description: "Three regions, of which one is cut off for eight seconds. Later some nodes publish two \
                      messages with one sequence number, and honest nodes must find and shut out those, and only those."
            .into(),
        seed: 7,
        duration: Duration::from_secs(60),
        network: Network {
            nodes,
            membership: true,
            regions: vec![region("europe", 0.4), region("america", 0.35), region("asia", 0.25)],
            ..Network::default()
        },
        links: Links {
            latency: Latency::Matrix {
                ms: vec![vec![12.0, 45.0, 90.0], vec![45.0, 15.0, 70.0], vec![90.0, 70.0, 18.0]],
                spread: 0.3,
            },
            loss: 0.005,
            ..Links::default()
        },
        workload: Workload { messages: 160, rate_per_s: 4.0, ..Workload::default() },
        faults: vec![
            Fault {
                at: PARTITION.0,
                until: Some(PARTITION.1),
                who: Who::Regions(vec![2]),
                kind: FaultKind::Partition { one_way: false },
            },
            Fault {
                at: Duration::from_secs(33),
                until: None,
                who: Who::Share(0.05),
                kind: FaultKind::Crash { restart_after: Some(Duration::from_secs(4)) },
            },
        ],
        adversaries: vec![Adversary {
            at: ATTACK,
            until: None,
            who: Who::Share(0.06),
            kind: AdversaryKind::Equivocate { rate_per_s: 1.0 },
        }],
        checks: Check::all(),
        ..Scenario::default()
    }
}

/// What such a run could have recorded.
pub(crate) fn outcome(scenario: &Scenario) -> Outcome {
    let rng = &mut ChaCha8Rng::seed_from_u64(scenario.seed);
    let nodes = scenario.network.nodes;
    let regions = regions(nodes);
    let (links, graph) = graph(nodes, &regions, rng);
    let adversary_nodes: Vec<u32> = (0..nodes).filter(|node| node % 17 == 5).collect();
    let mut outcome = Outcome {
        nodes,
        ended: scenario.duration,
        faults: vec![
            effect("partition#1", 1, 18_431, PARTITION.0, Some(PARTITION.1)),
            effect("crash#2", u64::from(nodes / 20), u64::from(nodes / 20), Duration::from_secs(33), None),
        ],
        adversaries: vec![effect("equivocate#1", 25 * adversary_nodes.len() as u64, 312, ATTACK, None)],
        quarantines: adversary_nodes
            .iter()
            .map(|&node| (node, ATTACK + Duration::from_millis(rng.random_range(1_200..7_000))))
            .collect(),
        misbehave_from: vec![ATTACK; adversary_nodes.len()],
        mesh_links: links,
        degrees: degrees(&graph),
        refusals: vec![("bad_tag", 0), ("replay", 212), ("too_old", 31)],
        bytes_per_node: 183_440,
        membership_whole: Some(true),
        events: 4_211_873,
        trace_hash: *blake3::hash(b"synthetic").as_bytes(),
        cost: Cost { wall: Duration::from_millis(5_310), peak_rss_bytes: 412 << 20, threads: 2 },
        ..Outcome::default()
    };
    publish(scenario, &mut outcome, &graph, &regions, &adversary_nodes, rng);
    outcome.regions = regions;
    outcome.adversary_nodes = adversary_nodes;
    outcome.samples = samples(scenario, &outcome);
    count(&mut outcome);
    outcome
}

type Graph = Vec<Vec<(u32, u32)>>;

fn effect(name: &str, planned: u64, effective: u64, at: Duration, until: Option<Duration>) -> Effect {
    Effect { name: name.into(), planned, effective, at, until }
}

fn regions(nodes: u32) -> Vec<u16> {
    let share = |node: u32| f64::from(node) / f64::from(nodes);
    (0..nodes).map(|node| if share(node) < 0.4 { 0 } else { 1 + u16::from(share(node) >= 0.75) }).collect()
}

/// Links both ways, and of each node its neighbours with the latency in microseconds.
fn graph(nodes: u32, regions: &[u16], rng: &mut ChaCha8Rng) -> (Vec<(u32, u32)>, Graph) {
    const MS: [[u32; 3]; 3] = [[12, 45, 90], [45, 15, 70], [90, 70, 18]];
    let mut pairs = BTreeSet::new();
    for node in 0..nodes {
        for _ in 0..LINKS {
            let other = rng.random_range(0..nodes);
            if other != node {
                pairs.insert((node.min(other), node.max(other)));
            }
        }
    }
    let mut graph: Graph = vec![Vec::new(); nodes as usize];
    for &(a, b) in &pairs {
        let ms = MS[usize::from(regions[a as usize])][usize::from(regions[b as usize])];
        let latency = ms * rng.random_range(700..1_300);
        graph[a as usize].push((b, latency));
        graph[b as usize].push((a, latency));
    }
    let links = pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).collect();
    (links, graph)
}

fn degrees(graph: &Graph) -> Vec<u32> {
    let most = graph.iter().map(Vec::len).max().unwrap_or(0);
    (0..=most).map(|degree| graph.iter().filter(|peers| peers.len() == degree).count() as u32).collect()
}

fn publish(
    scenario: &Scenario,
    outcome: &mut Outcome,
    graph: &Graph,
    regions: &[u16],
    adversaries: &[u32],
    rng: &mut ChaCha8Rng,
) {
    let honest = |node: u32| adversaries.binary_search(&node).is_err();
    for number in 0..scenario.workload.messages {
        let author = loop {
            let node = rng.random_range(0..scenario.network.nodes);
            if honest(node) {
                break node;
            }
        };
        let at = scenario.workload.start + Duration::from_millis(250) * number;
        let is_cut = PARTITION.0 <= at && at < PARTITION.1;
        let island = |node: u32| is_cut && regions[node as usize] == 2;
        let mut deliveries = flood(graph, author, rng);
        deliveries.retain(|delivery| honest(delivery.node));
        for delivery in &mut deliveries {
            if island(delivery.node) != island(author) {
                delivery.is_expected = false;
                let heals_us = (PARTITION.1 - at).as_micros() as u32;
                delivery.latency_us += heals_us + rng.random_range(0..2_000_000);
            }
        }
        deliveries.sort_unstable_by_key(|delivery| (delivery.latency_us, delivery.node));
        let audience = deliveries.iter().filter(|delivery| delivery.is_expected).count() as u32;
        outcome.copies.push(deliveries.len() as u32 * 2 + rng.random_range(0..deliveries.len() as u32));
        outcome.messages.push(Published { author, at, bytes: 254, audience, missed: 0 });
        outcome.deliveries.push(deliveries);
    }
}

/// First arrivals at everybody else: shortest paths, with each link now a little slower, now a little faster.
fn flood(graph: &Graph, author: u32, rng: &mut ChaCha8Rng) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    let mut seen = vec![false; graph.len()];
    let mut arriving = BinaryHeap::from([Reverse((0u32, author, author, 0u16))]);
    while let Some(Reverse((latency_us, node, from, hops))) = arriving.pop() {
        if std::mem::replace(&mut seen[node as usize], true) {
            continue;
        }
        if node != author {
            deliveries.push(Delivery { node, from, latency_us, hops, is_expected: true });
        }
        for &(peer, link_us) in &graph[node as usize] {
            let jitter = if rng.random_bool(0.005) { 200_000 } else { rng.random_range(0..=link_us / 10) };
            arriving.push(Reverse((latency_us + link_us + jitter, peer, node, hops + 1)));
        }
    }
    deliveries
}

fn samples(scenario: &Scenario, outcome: &Outcome) -> Vec<Sample> {
    let mut arrivals: Vec<Duration> = Vec::new();
    for (message, deliveries) in outcome.messages.iter().zip(&outcome.deliveries) {
        arrivals.extend(deliveries.iter().map(|d| message.at + Duration::from_micros(d.latency_us.into())));
    }
    arrivals.sort_unstable();
    let honest = scenario.network.nodes - outcome.adversary_nodes.len() as u32;
    (0..=scenario.duration.as_secs() * 2)
        .map(|half_seconds| {
            let at = Duration::from_millis(500 * half_seconds);
            let seconds = at.as_secs_f64();
            let away = (33.0..37.0).contains(&seconds);
            let wobble = (seconds * 2.1).sin() + (seconds * 0.7).cos();
            let island_skew_ms = 60_000.0 * (-1.9 * seconds).exp() + 14.0 + 3.0 * wobble;
            let cut = (seconds - PARTITION.0.as_secs_f64()).clamp(0.0, 8.0);
            let healed = (-(seconds - PARTITION.1.as_secs_f64()).max(0.0)).exp();
            let deliveries = arrivals.partition_point(|arrival| *arrival <= at) as u64;
            let up = if away { honest - honest / 20 } else { honest };
            Sample {
                at,
                up,
                synchronised: if seconds < 3.0 { up * half_seconds as u32 / 6 } else { up },
                skew_ms: island_skew_ms + 11.0 * cut * healed,
                island_skew_ms,
                links: 4_000,
                deliveries,
                copies: deliveries * 5 / 2,
                duplicates: deliveries * 3 / 2,
                membership: (seconds / 4.0).min(1.0) * if away { 0.96 } else { 1.0 },
                quarantined: outcome.quarantines.iter().filter(|(_, first)| *first <= at).count() as u32,
            }
        })
        .collect()
}

fn count(outcome: &mut Outcome) {
    let copies: u64 = outcome.copies.iter().map(|&copies| u64::from(copies)).sum();
    let deliveries: u64 = outcome.deliveries.iter().map(|of_message| of_message.len() as u64).sum();
    outcome.gossip.copies_received = copies;
    outcome.gossip.duplicates = copies - deliveries;
    outcome.gossip.published = outcome.messages.len() as u64;
    outcome.gossip.copies_sent_forwarded = copies;
    outcome.traffic = Traffic {
        frames: copies * 3,
        bytes: copies * 410,
        gossip_bytes: copies * 360,
        lost: copies * 3 / 200,
        cut: 18_431,
        copies,
        ihave_frames: copies / 2,
        ..Traffic::default()
    };
}
