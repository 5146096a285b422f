//! A scenario's settings, in words.

use crate::scenario::{
    AdversaryKind, Checkpoints, Crypto, Disk, FaultKind, Latency, Log, Repair, Scenario, Topology, Victims,
};
use crate::words::{bytes, count, counted, decimal, millis, percent, time};

/// Settings that belong together: their title, and names with values.
pub(super) type Group = (&'static str, Vec<(&'static str, String)>);

/// All but what has a table of its own.
pub(super) fn groups(scenario: &Scenario) -> Vec<Group> {
    let mut groups = vec![
        ("Network", network(scenario)),
        ("Links", links(scenario)),
        ("Workload", workload(scenario)),
        ("Gossip", gossip(scenario)),
    ];
    if let Some(log) = &scenario.log {
        groups.push(("Log", self::log(log)));
        groups.extend(
            scenario.checkpoints.as_ref().map(|checkpoints| ("Checkpoints", self::checkpoints(checkpoints))),
        );
        groups.push(("Disks", disk(&scenario.disk)));
    }
    groups
}

fn log(log: &Log) -> Vec<(&'static str, String)> {
    let authors = log.authors.map_or_else(
        || "a random node each time".into(),
        |n| counted(n.into(), "fixed random node", "fixed random nodes, in turn"),
    );
    let registry = format!(
        "{} of the appends, on {}",
        percent(log.registry_share),
        counted(log.registry_keys.into(), "key", "keys")
    );
    vec![
        ("Appends", count(log.appends().into())),
        ("Rate", format!("{} each second", decimal(log.rate_per_s, 3))),
        ("From, to", format!("{}, {}", time(log.start), time(log.end))),
        ("Payload", bytes(log.payload_bytes as u64)),
        ("Authors", authors),
        ("Writes to the registry", registry),
        ("Replicas before an answer", count(log.replicas as u64)),
        ("Reconciliation", format!("each {}", time(log.interval))),
    ]
}

fn checkpoints(checkpoints: &Checkpoints) -> Vec<(&'static str, String)> {
    let steps = |steps| counted(steps, "step", "steps");
    let signers = match checkpoints.signers {
        0 => "a majority of those alive".into(),
        signers => counted(signers as u64, "node", "nodes"),
    };
    let keep = |kept: u64, text: String| if kept == 0 { "all".into() } else { text };
    vec![
        ("Each", steps(checkpoints.every_steps)),
        ("Made after", steps(checkpoints.delay_steps)),
        ("Signed by", signers),
        ("Entries kept", keep(checkpoints.keep_steps, steps(checkpoints.keep_steps))),
        ("Bytes kept", keep(checkpoints.keep_bytes, bytes(checkpoints.keep_bytes))),
    ]
}

fn disk(disk: &Disk) -> Vec<(&'static str, String)> {
    let verify = if disk.verify.is_zero() { "never".into() } else { format!("each {}", time(disk.verify)) };
    vec![
        ("Sync, median, at most", format!("{}, {}", time(disk.sync), time(disk.sync_max))),
        ("Read", time(disk.read)),
        ("Throughput", format!("{}/s", bytes(disk.bytes_per_s))),
        (
            "Slow disks",
            format!("{}, {} times as slow", percent(disk.slow_share), decimal(disk.slow_factor, 2)),
        ),
        ("Compared with what was written", verify),
    ]
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.into()
}

fn network(scenario: &Scenario) -> Vec<(&'static str, String)> {
    let network = &scenario.network;
    let topology = match network.topology {
        Topology::Random { dials } => format!("random, each node dials {dials}"),
        Topology::Ring { neighbours } => format!("ring, each node dials the next {neighbours}"),
        Topology::Full => "everybody to everybody".into(),
    };
    let shares: f64 = network.regions.iter().map(|region| region.share).sum();
    let regions: Vec<String> = network
        .regions
        .iter()
        .map(|region| format!("{} {}", &region.name, percent(region.share / shares)))
        .collect();
    let sync = if network.step_sync {
        format!("each {} with {} peers", time(network.sync_interval), network.sync_peers)
    } else {
        "off: all have the true step".into()
    };
    let crypto = match scenario.crypto {
        Crypto::Real => "signatures and tags are made and checked",
        Crypto::Skip => "skipped: authenticity is a fact of the model",
    };
    vec![
        ("Nodes", count(network.nodes.into())),
        ("Topology", topology),
        ("Regions", if regions.is_empty() { "one".into() } else { regions.join(", ") }),
        ("Virtual time", time(scenario.duration)),
        ("Nodes start over", time(network.join_over)),
        ("Cryptography", crypto.into()),
        ("Step", time(network.step_interval)),
        ("Step synchronisation", sync),
        ("Clocks off by up to", time(network.clock_offset)),
        ("Clocks drift by up to", format!("{} ppm", decimal(network.clock_drift_ppm, 3))),
        ("Membership protocol", yes(network.membership)),
        ("Silence before hanging up", time(network.silence)),
        ("Redial", format!("each {}", time(network.redial))),
    ]
}

fn links(scenario: &Scenario) -> Vec<(&'static str, String)> {
    let links = &scenario.links;
    let latency = match &links.latency {
        Latency::Constant(latency) => time(*latency),
        Latency::Uniform { min, max } => format!("uniform, {} to {}", time(*min), time(*max)),
        Latency::LogNormal { median, sigma, max } => {
            format!(
                "log-normal, median {}, sigma {}, at most {}",
                time(*median),
                decimal(*sigma, 3),
                time(*max)
            )
        }
        Latency::Matrix { ms, spread } => {
            let all = || ms.iter().flatten().copied();
            let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
            format!("by region, {} to {}, within {}", millis(least), millis(most), percent(*spread))
        }
    };
    let repair = match links.repair {
        Repair::Retransmit => "sent again, as TCP and QUIC do",
        Repair::None => "gone",
    };
    let bandwidth = links.bandwidth_bps.map_or_else(
        || "unlimited".into(),
        |bps| format!("{} Mbit/s for each node", decimal(bps as f64 / 1e6, 3)),
    );
    vec![
        ("One-way latency", latency),
        ("Jitter", format!("up to {} of the latency", percent(links.jitter))),
        ("Loss of packets", percent(links.loss)),
        ("Lost in a row", decimal(links.loss_burst, 2)),
        ("A lost packet is", repair.into()),
        ("Duplication", percent(links.duplication)),
        ("Reordering", percent(links.reordering)),
        ("Bandwidth", bandwidth),
    ]
}

fn workload(scenario: &Scenario) -> Vec<(&'static str, String)> {
    let workload = &scenario.workload;
    let authors = workload.authors.map_or_else(
        || "a random node each time".into(),
        |n| counted(n.into(), "fixed random node", "fixed random nodes, in turn"),
    );
    vec![
        ("Messages", count(workload.messages.into())),
        ("Rate", format!("{} each second", decimal(workload.rate_per_s, 3))),
        ("From", time(workload.start)),
        ("Payload", bytes(workload.payload_bytes as u64)),
        ("Authors", authors),
    ]
}

fn gossip(scenario: &Scenario) -> Vec<(&'static str, String)> {
    let gossip = &scenario.gossip;
    let size = |number: usize| count(number as u64);
    let never = gossip.idontwant_bytes_min == usize::MAX;
    let idontwant = if never { "never".into() } else { bytes(gossip.idontwant_bytes_min as u64) };
    let degrees = [gossip.mesh_degree, gossip.mesh_degree_low, gossip.mesh_degree_high].map(size);
    vec![
        ("Mesh degree D, low, high", degrees.join(", ")),
        ("Kept for score, outbound", [gossip.mesh_degree_score, gossip.mesh_degree_out].map(size).join(", ")),
        (
            "Lazy degree",
            format!("{}, or {} of the others", gossip.lazy_degree, percent(gossip.gossip_factor)),
        ),
        ("Heartbeat", time(gossip.heartbeat_interval)),
        (
            "History, of it gossiped",
            format!("{}, {} heartbeats", gossip.history_length, gossip.history_gossip),
        ),
        ("Flood publish", yes(gossip.flood_publish)),
        ("IDONTWANT above", idontwant),
        ("Backoff after PRUNE", time(gossip.prune_backoff)),
        ("Peer scores", yes(gossip.score.is_some())),
    ]
}

/// What a fault does.
pub(super) fn fault(kind: &FaultKind) -> String {
    match *kind {
        FaultKind::Partition { one_way: false } => "cut off from the others".into(),
        FaultKind::Partition { one_way: true } => "not heard by the others".into(),
        FaultKind::Crash { restart_after: None } => "die".into(),
        FaultKind::Crash { restart_after: Some(after) } => {
            format!("die, and start again after {}", time(after))
        }
        FaultKind::Churn { per_s, away } => {
            format!("{} each second die, and start again after {}", decimal(per_s, 3), time(away))
        }
        FaultKind::Degrade { loss, latency_factor } => {
            format!(
                "links lose {} more, and take {} times as long",
                percent(loss),
                decimal(latency_factor, 2)
            )
        }
        FaultKind::Slow { frame_time } => format!("each frame received takes {}", time(frame_time)),
        FaultKind::ClockJump { by } => format!("clocks leap forward by {}", time(by)),
        FaultKind::ClockDrift { ppm } => format!("clocks run fast by {} ppm", decimal(ppm, 3)),
        FaultKind::CrashInWrite { restart_after } => {
            format!("die between write and sync, and start again after {}", time(restart_after))
        }
        FaultKind::LostTail { restart_after } => {
            format!("die and lose what was not synced, and start again after {}", time(restart_after))
        }
        FaultKind::BitFlip { records } => {
            format!("a bit flips in each of {} on disk", counted(records.into(), "record", "records"))
        }
        FaultKind::SlowDisk { factor } => format!("disks take {} times as long", decimal(factor, 2)),
        FaultKind::FullDisk => "disks are full".into(),
    }
}

/// What an adversary does.
pub(super) fn adversary(kind: &AdversaryKind) -> String {
    match *kind {
        AdversaryKind::Tamper => "flip a bit in what they forward".into(),
        AdversaryKind::Replay { after } => format!("send messages again after {}", time(after)),
        AdversaryKind::Rush { by } => format!("claim a mesh time {} ahead", time(by)),
        AdversaryKind::Freeze => "claim that mesh time stands still".into(),
        AdversaryKind::TwoFaced { by } => format!("claim to each another mesh time, up to {} off", time(by)),
        AdversaryKind::Equivocate { rate_per_s } => {
            format!("publish two messages with one number, {} each second", decimal(rate_per_s, 3))
        }
        AdversaryKind::Outsider { rate_per_s } => {
            format!("publish {} each second under another mesh secret", decimal(rate_per_s, 3))
        }
        AdversaryKind::Flood { rate_per_s } => format!("publish {} each second", decimal(rate_per_s, 3)),
        AdversaryKind::Silence { rate_per_s } if rate_per_s > 0.0 => {
            format!("say nothing, and before {} messages a second", decimal(rate_per_s, 3))
        }
        AdversaryKind::Silence { .. } => "say nothing".into(),
        AdversaryKind::Slander { rate_per_s } => {
            format!("accuse honest nodes of what they did not do, {} times a second", decimal(rate_per_s, 3))
        }
        AdversaryKind::NeverForward => "forward nothing".into(),
        AdversaryKind::Eclipse { victims } => format!("surround {}", whom(victims)),
        AdversaryKind::Censor { victims } => format!("drop the messages of {}", whom(victims)),
        AdversaryKind::Sybil { dials } => format!("dial {dials} each from one address, forward nothing"),
        AdversaryKind::ColdBoot { dials } => format!("dial {dials} each as the mesh forms, forward nothing"),
        AdversaryKind::CovertFlash => "behave well, then all stop forwarding at once".into(),
        AdversaryKind::Fork { rate_per_s } => {
            format!("sign two records for one place in their logs, {} each second", decimal(rate_per_s, 3))
        }
    }
}

fn whom(victims: Victims) -> &'static str {
    match victims {
        Victims::One => "one honest node",
        Victims::Publishers => "the publishers",
        Victims::All => "every honest node",
    }
}
