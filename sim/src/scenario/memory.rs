//! How much memory a run takes, before it takes it.

use std::fs;

use super::{AdversaryKind, Engine, Problem, Scenario, Topology, validate};

// Measured: the most memory that runs of 5,000 and 20,000 nodes held, with 3 to 12 dials and 5 to 40 messages, and of
// 200 and 800 nodes with membership.

/// The program itself, its tables and its threads.
const BASE: u64 = 16 << 20;
/// A node with its machines, without connections.
const PER_NODE: u64 = 7_000;
/// One side of a connection: the peer in the router, its score, the link, frames on their way.
const PER_SIDE: u64 = 670;
/// A message that a node remembers: in its set of seen ones, in its history, and as a delivery of the outcome.
const PER_COPY: u64 = 780;
/// A member that a node knows, with membership.
const PER_MEMBER: u64 = 750;
/// What an observer remembers of a message, and of a peer.
const PER_STORY: u64 = 1_000;
const PER_NEIGHBOUR: u64 = 1_000;
/// An author's log at a node, an entry of it, and an entry of the registry.
const PER_LOG: u64 = 800;
const PER_ENTRY: u64 = 120;
const PER_REGISTERED: u64 = 1_300;
/// Of what the machine has, so much is left to others.
const LEFT_FREE: f64 = 0.1;

/// A real node without connections, and one side of a connection of it with its buffers. Measured: 200 and 1,000 nodes
/// with 16 connections each.
const PER_SWARM: u64 = 700_000;
const PER_SWARM_SIDE: u64 = 50_000;

/// What a run takes at its peak, in bytes: within a factor of two.
pub fn estimate_bytes(scenario: &Scenario, engine: Engine) -> u64 {
    match engine {
        Engine::Model => estimate_model(scenario),
        Engine::Libp2p => {
            let nodes = u64::from(scenario.network.nodes);
            let copies = nodes.saturating_mul(scenario.workload.messages.into()).saturating_mul(PER_COPY);
            let sides = links(scenario).saturating_mul(2 * PER_SWARM_SIDE);
            BASE.saturating_add(nodes.saturating_mul(PER_SWARM)).saturating_add(sides).saturating_add(copies)
        }
    }
}

fn estimate_model(scenario: &Scenario) -> u64 {
    let nodes = u64::from(scenario.network.nodes);
    let messages = u64::from(scenario.workload.messages);
    let per_node = PER_NODE.saturating_add(messages.saturating_mul(PER_COPY));
    let members = if scenario.network.membership { nodes.saturating_mul(nodes) } else { 0 };
    let payloads = messages.saturating_mul(scenario.workload.payload_bytes as u64);
    BASE.saturating_add(nodes.saturating_mul(per_node))
        .saturating_add(links(scenario).saturating_mul(2 * PER_SIDE))
        .saturating_add(members.saturating_mul(PER_MEMBER))
        .saturating_add(payloads)
        .saturating_add(nodes.saturating_mul(estimate_log(scenario)))
        .saturating_add(estimate_observers(scenario))
}

/// What all observers take.
fn estimate_observers(scenario: &Scenario) -> u64 {
    if !scenario.has_observer() {
        return 0;
    }
    let messages = u64::from(scenario.workload.messages).saturating_mul(scenario.network.nodes.into());
    messages
        .saturating_mul(PER_STORY + scenario.workload.payload_bytes as u64)
        .saturating_add(links(scenario).saturating_mul(2 * PER_NEIGHBOUR))
}

/// What the log takes at each node.
fn estimate_log(scenario: &Scenario) -> u64 {
    let Some(log) = &scenario.log else { return 0 };
    let appends = u64::from(log.appends());
    let authors = log.authors.unwrap_or(scenario.network.nodes).min(log.appends());
    u64::from(authors) * PER_LOG + appends * PER_ENTRY + u64::from(log.registry_keys) * PER_REGISTERED
}

/// Connections.
fn links(scenario: &Scenario) -> u64 {
    let nodes = u64::from(scenario.network.nodes);
    let honest = match scenario.network.topology {
        Topology::Random { dials } => nodes.saturating_mul(u64::from(dials)),
        Topology::Ring { neighbours } => nodes.saturating_mul(u64::from(neighbours)),
        Topology::Full => nodes.saturating_mul(nodes.saturating_sub(1)) / 2,
    };
    let of_adversaries = scenario.adversaries.iter().map(|adversary| match adversary.kind {
        AdversaryKind::Sybil { dials } | AdversaryKind::ColdBoot { dials } => {
            validate::how_many(scenario, &adversary.who).saturating_mul(u64::from(dials))
        }
        _ => 0,
    });
    honest.saturating_add(of_adversaries.sum())
}

/// What is free, of the machine and of the group of processes we belong to; `None` where nobody says.
pub fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemAvailable:"));
    [machine, cgroup_free()].into_iter().flatten().min()
}

/// The field of `/proc/meminfo`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What a container may still take (cgroup v2).
fn cgroup_free() -> Option<u64> {
    let number = |name| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

/// Says so if a run does not fit into what is available. `limit` takes its place.
pub(super) fn problem(
    scenario: &Scenario,
    engine: Engine,
    limit: Option<u64>,
    available: Option<u64>,
) -> Option<Problem> {
    let needed = estimate_bytes(scenario, engine);
    let (allowed, whose) = match (limit, available) {
        (Some(limit), _) => (limit, "limits.memory_bytes allows"),
        (None, Some(available)) => (less_a_reserve(available), "this machine has free"),
        (None, None) => return None,
    };
    if needed <= allowed {
        return None;
    }
    let message = format!("a run takes about {}, and {whose} {}", for_people(needed), for_people(allowed));
    let remedy =
        "lower network.nodes or the links of each node, or set limits.memory_bytes if you know better";
    Some(Problem::new("network.nodes", message, remedy))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of a number of bytes, for comparison with an estimate"
)]
fn less_a_reserve(bytes: u64) -> u64 {
    (bytes as f64 * (1.0 - LEFT_FREE)) as u64
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn for_people(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib >= 1.0 { format!("{gib:.1} GiB") } else { format!("{:.0} MiB", gib * 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Network;

    fn of(nodes: u32, topology: Topology) -> Scenario {
        Scenario { network: Network { nodes, topology, ..Network::default() }, ..Scenario::default() }
    }

    #[test]
    fn a_mesh_that_cannot_fit_is_refused() {
        let small = of(100, Topology::Random { dials: 8 });
        assert_eq!(problem(&small, Engine::Model, Some(1 << 30), None), None);
        assert_eq!(problem(&small, Engine::Model, None, None), None);
        let large = of(1_000_000, Topology::Random { dials: 8 });
        let refused = problem(&large, Engine::Model, Some(1 << 30), Some(u64::MAX)).unwrap();
        assert!(refused.message.ends_with("limits.memory_bytes allows 1.0 GiB"), "{refused}");
        let refused = problem(&large, Engine::Model, None, Some(10 << 30)).unwrap();
        assert!(refused.message.ends_with("this machine has free 9.0 GiB"), "{refused}");
        assert!(estimate_bytes(&of(10_000_000, Topology::Full), Engine::Model) > 1 << 50);
    }

    #[test]
    fn the_machine_says_what_is_free() {
        let text = "MemTotal:       100 kB\nMemAvailable:      64 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(65_536));
        assert_eq!(field(text, "MemFree:"), None);
    }
}
