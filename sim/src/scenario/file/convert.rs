//! From the sections of a file to the typed scenario. Every default is that of the type.

use std::time::Duration;

use omnimesh_protocol::gossip::{self, ScoreConfig, TreeConfig};
use omnimesh_protocol::observer::AnomalyKind;

use super::Engine;
use super::compute::compute;
use super::hits::{adversary, check, fault};
use super::read::{Section, set, to_number};
use crate::scenario::{
    CHECKPOINTS, Check, Checkpoints, Crypto, Disk, Latency, Links, Log, Network, Observer, Region, Repair,
    Scenario, Topology, Workload,
};

/// What a file says.
pub(super) struct Converted {
    pub(super) scenario: Scenario,
    pub(super) engine: Engine,
    pub(super) memory_bytes: Option<u64>,
}

pub(super) fn convert(root: Section<'_, '_>) -> Converted {
    let mut scenario = Scenario::default();
    set(&mut scenario.name, root.text("name"));
    set(&mut scenario.description, root.text("description"));
    // Seeds are signed in TOML.
    set(&mut scenario.seed, root.whole("seed"));
    set(&mut scenario.duration, root.ms("duration_ms"));
    scenario.crypto = match root.word("crypto", &["real", "skip"]) {
        Some("skip") => Crypto::Skip,
        _ => Crypto::Real,
    };
    let engine = match root.word("engine", &Engine::NAMES) {
        Some("libp2p") => Engine::Libp2p,
        _ => Engine::Model,
    };
    scenario.network = network(root.section("network"));
    scenario.links = links(root.section("links"));
    scenario.gossip = gossip(root.section("gossip"), scenario.network.nodes);
    scenario.workload = workload(root.section("workload"), scenario.duration);
    scenario.log = root.has("log").then(|| log(root.section("log"), scenario.duration));
    scenario.checkpoints = root.has("checkpoints").then(|| checkpoints(root.section("checkpoints")));
    if scenario.log.is_none() {
        // Asked for in any case, so that the key is known.
        root.section("log").finish();
        // Jobs are written to disks without a log, too.
        let idle = |key: &&str| root.has(key) && !(*key == "disk" && root.has("compute"));
        for key in ["disk", "checkpoints"].into_iter().filter(idle) {
            root.problem(key, "has no effect without a log", "add `[log]`, or remove it");
        }
    }
    if scenario.checkpoints.is_none() {
        root.section("checkpoints").finish();
    }
    // Nodes have the time that there is to catch up.
    let last = scenario.log.as_ref().map_or(scenario.duration, |log| log.end);
    let of_log = Check::of_log_within(scenario.duration.saturating_sub(last));
    scenario.disk = disk(root.section("disk"));
    // Asked for in any case, so that the keys are known.
    let of_jobs = compute(root.section("compute"), scenario.duration);
    scenario.compute = root.has("compute").then_some(of_jobs);
    scenario.observer = observer(&root, root.section("observer"));
    let regions = &scenario.network.regions;
    if let Some(faults) = root.sections("faults") {
        scenario.faults = faults.into_iter().map(|section| fault(section, regions)).collect();
    }
    if let Some(adversaries) = root.sections("adversaries") {
        scenario.adversaries = adversaries.into_iter().map(|section| adversary(section, regions)).collect();
    }
    if let Some(checks) = root.sections("checks") {
        scenario.checks = checks.into_iter().filter_map(|section| check(section, &of_log)).collect();
    } else {
        if scenario.log.is_some() {
            scenario.checks.extend(of_log);
        }
        if scenario.log.is_some() && scenario.checkpoints.is_some() {
            scenario.checks.extend(Check::of_checkpoints());
        }
        if scenario.compute.is_some() {
            let is_asked = |check: &Check| !matches!(check, Check::Makespan { .. });
            scenario.checks.extend(Check::of_compute().into_iter().filter(is_asked));
        }
        let all = std::mem::take(&mut scenario.checks);
        scenario.checks = all.into_iter().filter(|check| is_meant(check, &scenario)).collect();
    }
    let limits = root.section("limits");
    let memory_bytes = limits.whole("memory_bytes");
    limits.finish();
    root.finish();
    Converted { scenario, engine, memory_bytes }
}

/// Nodes of which on average what the process itself holds outweighs what they hold. A guess.
const FEW_NODES: u32 = 16;

/// Whether a check that nobody asked for can say something here.
fn is_meant(check: &Check, scenario: &Scenario) -> bool {
    match check {
        Check::Delivery { .. } => scenario.workload.messages > 0,
        Check::EqualRegistries { .. } => scenario.log.as_ref().is_none_or(|log| log.registry_share > 0.0),
        Check::BoundedMemory { .. } => scenario.network.nodes >= FEW_NODES,
        _ => true,
    }
}

fn observer(root: &Section<'_, '_>, section: Section<'_, '_>) -> Observer {
    let names =
        section.list("ignore", "a list of kinds of findings", "[\"latency\"]", |value| value.as_str());
    let mut ignore = Vec::new();
    for name in names.unwrap_or_default() {
        match AnomalyKind::from_code(name) {
            Some(kind) => ignore.push(kind),
            None => {
                let codes = || AnomalyKind::ALL.iter().map(|kind| kind.code());
                let remedy = match crate::suggest::nearest(name, codes()) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("there are {}", codes().collect::<Vec<_>>().join(", ")),
                };
                root.problem("observer.ignore", format!("there is no finding \"{name}\""), remedy);
            }
        }
    }
    let (enabled, flood_per_s) = (section.flag("enabled"), section.whole("flood_per_s"));
    section.finish();
    Observer { enabled, ignore, flood_per_s }
}

fn network(section: Section<'_, '_>) -> Network {
    let mut network = Network::default();
    set(&mut network.nodes, section.whole("nodes"));
    // What is not set fits the number of nodes.
    let others = network.nodes.saturating_sub(1).max(1);
    let kind = section.word("topology", &["random", "ring", "full"]);
    network.topology = match kind {
        Some("ring") => Topology::Ring { neighbours: section.whole("neighbours").unwrap_or(4.min(others)) },
        Some("full") => Topology::Full,
        _ => Topology::Random { dials: section.whole("dials").unwrap_or(8.min(others)) },
    };
    set(&mut network.join_over, section.ms("join_over_ms"));
    set(&mut network.step_sync, section.flag("step_sync"));
    set(&mut network.step_interval, section.ms("step_interval_ms"));
    set(&mut network.sync_peers, section.whole("sync_peers"));
    set(&mut network.sync_interval, section.ms("sync_interval_ms"));
    set(&mut network.membership, section.flag("membership"));
    set(&mut network.clock_offset, section.ms("clock_offset_ms"));
    set(&mut network.clock_drift_ppm, section.number("clock_drift_ppm"));
    set(&mut network.silence, section.ms("silence_ms"));
    set(&mut network.redial, section.ms("redial_ms"));
    if let Some(regions) = section.sections("regions") {
        network.regions = regions.into_iter().filter_map(region).collect();
    }
    section.finish_kind(kind.unwrap_or("random"), &["dials", "neighbours"]);
    network
}

fn region(section: Section<'_, '_>) -> Option<Region> {
    let name = section.text("name");
    if !section.has("name") {
        section.problem("", "has no name", "add `name = \"…\"`");
    }
    let share = section.number("share").unwrap_or(1.0);
    section.finish();
    Some(Region { name: name?, share })
}

fn links(section: Section<'_, '_>) -> Links {
    let mut links = Links::default();
    let kind = section.word("latency", &["uniform", "constant", "lognormal", "matrix"]).unwrap_or("uniform");
    links.latency = latency(&section, kind);
    set(&mut links.jitter, section.number("jitter"));
    set(&mut links.loss, section.number("loss"));
    set(&mut links.loss_burst, section.number("loss_burst"));
    links.repair = match section.word("repair", &["retransmit", "none"]) {
        Some("none") => Repair::None,
        _ => Repair::Retransmit,
    };
    set(&mut links.duplication, section.number("duplication"));
    set(&mut links.reordering, section.number("reordering"));
    links.bandwidth_bps = section.whole("bandwidth_bps");
    let of_some = [
        "latency_ms",
        "latency_min_ms",
        "latency_max_ms",
        "latency_median_ms",
        "latency_sigma",
        "latency_matrix_ms",
        "latency_spread",
    ];
    section.finish_kind(kind, &of_some);
    links
}

fn latency(section: &Section<'_, '_>, kind: &str) -> Latency {
    let ms = |key, default| section.ms(key).unwrap_or(Duration::from_millis(default));
    match kind {
        "constant" => Latency::Constant(ms("latency_ms", 50)),
        "lognormal" => Latency::LogNormal {
            median: ms("latency_median_ms", 50),
            sigma: section.number("latency_sigma").unwrap_or(0.5),
            max: ms("latency_max_ms", 1_000),
        },
        "matrix" => {
            let row = |value: &_| match value {
                toml::de::DeValue::Array(cells) => {
                    cells.iter().map(|cell| to_number(cell.get_ref())).collect::<Option<Vec<_>>>()
                }
                _ => None,
            };
            let rows =
                section.list("latency_matrix_ms", "a list of rows of numbers", "[[5, 40], [40, 5]]", row);
            Latency::Matrix {
                ms: rows.unwrap_or_default(),
                spread: section.number("latency_spread").unwrap_or(0.1),
            }
        }
        _ => Latency::Uniform { min: ms("latency_min_ms", 10), max: ms("latency_max_ms", 100) },
    }
}

fn workload(section: Section<'_, '_>, duration: Duration) -> Workload {
    let rate_per_s = section.number("rate_per_s");
    let mut workload = Workload::within(duration, rate_per_s);
    set(&mut workload.start, section.ms("start_ms"));
    set(&mut workload.messages, section.whole("messages"));
    set(&mut workload.payload_bytes, section.whole("payload_bytes"));
    workload.authors = section.whole("authors");
    section.finish();
    workload
}

fn checkpoints(section: Section<'_, '_>) -> Checkpoints {
    let mut checkpoints = CHECKPOINTS;
    set(&mut checkpoints.every_steps, section.whole("every_steps"));
    set(&mut checkpoints.delay_steps, section.whole("delay_steps"));
    set(&mut checkpoints.signers, section.whole("signers"));
    set(&mut checkpoints.bytes_max, section.whole("bytes_max"));
    set(&mut checkpoints.keep_steps, section.whole("keep_steps"));
    set(&mut checkpoints.keep_bytes, section.whole("keep_bytes"));
    section.finish();
    checkpoints
}

fn log(section: Section<'_, '_>, duration: Duration) -> Log {
    let mut log = Log::within(duration);
    set(&mut log.start, section.ms("start_ms"));
    set(&mut log.end, section.ms("end_ms"));
    set(&mut log.rate_per_s, section.number("rate_per_s"));
    set(&mut log.payload_bytes, section.whole("payload_bytes"));
    log.authors = section.whole("authors");
    set(&mut log.registry_share, section.number("registry_share"));
    set(&mut log.registry_keys, section.whole("registry_keys"));
    set(&mut log.replicas, section.whole("replicas"));
    set(&mut log.interval, section.ms("interval_ms"));
    section.finish();
    log
}

fn disk(section: Section<'_, '_>) -> Disk {
    let mut disk = Disk::default();
    set(&mut disk.sync, section.ms("sync_ms"));
    set(&mut disk.sync_sigma, section.number("sync_sigma"));
    set(&mut disk.sync_max, section.ms("sync_max_ms"));
    set(&mut disk.bytes_per_s, section.whole("bytes_per_s"));
    set(&mut disk.read, section.ms("read_ms"));
    set(&mut disk.slow_share, section.number("slow_share"));
    set(&mut disk.slow_factor, section.number("slow_factor"));
    set(&mut disk.verify, section.ms("verify_ms"));
    section.finish();
    disk
}

fn gossip(section: Section<'_, '_>, nodes: u32) -> gossip::Config {
    let mut config = gossip::Config::default();
    degrees(&section, &mut config, nodes);
    set(&mut config.lazy_degree, section.whole("lazy_degree"));
    set(&mut config.gossip_factor, section.number("gossip_factor"));
    set(&mut config.heartbeat_interval, section.ms("heartbeat_ms"));
    set(&mut config.history_length, section.whole("history_length"));
    set(&mut config.history_gossip, section.whole("history_gossip"));
    if !section.has("history_gossip") {
        config.history_gossip = config.history_gossip.min(config.history_length);
    }
    set(&mut config.flood_publish, section.flag("flood_publish"));
    set(&mut config.graft_newcomers, section.flag("graft_newcomers"));
    set(&mut config.heartbeat_initial_delay, section.ms("heartbeat_initial_delay_ms"));
    set(&mut config.fanout_ttl, section.ms("fanout_ttl_ms"));
    set(&mut config.prune_backoff, section.ms("prune_backoff_ms"));
    set(&mut config.unsubscribe_backoff, section.ms("unsubscribe_backoff_ms"));
    set(&mut config.backoff_slack, section.ms("backoff_slack_ms"));
    set(&mut config.graft_flood_threshold, section.ms("graft_flood_threshold_ms"));
    set(&mut config.seen_ttl, section.ms("seen_ttl_ms"));
    set(&mut config.seen_entries_max, section.whole("seen_entries_max"));
    set(&mut config.validating_max, section.whole("validating_max"));
    set(&mut config.validating_beats_max, section.whole("validating_beats_max"));
    set(&mut config.cache_bytes_max, section.whole("cache_bytes_max"));
    set(&mut config.ihave_ids_max, section.whole("ihave_ids_max"));
    set(&mut config.ihave_messages_max, section.whole("ihave_messages_max"));
    set(&mut config.retransmissions_max, section.whole("retransmissions_max"));
    set(&mut config.iwant_followup, section.ms("iwant_followup_ms"));
    set(&mut config.idontwant_bytes_min, section.whole("idontwant_bytes_min"));
    set(&mut config.idontwant_ids_max, section.whole("idontwant_ids_max"));
    set(&mut config.idontwant_beats, section.whole("idontwant_beats"));
    set(&mut config.opportunistic_graft_beats, section.whole("opportunistic_graft_beats"));
    set(&mut config.opportunistic_graft_peers, section.whole("opportunistic_graft_peers"));
    set(&mut config.peers_max, section.whole("peers_max"));
    set(&mut config.topics_per_peer_max, section.whole("topics_per_peer_max"));
    limits(section.section("limits"), &mut config.limits);
    if section.flag("score") == Some(false) {
        config.score = None;
    }
    let parameters = section.section("score_parameters");
    if let Some(score) = &mut config.score {
        score_parameters(parameters, score);
    } else if section.has("score_parameters") {
        section.problem("score_parameters", "has no effect without scores", "remove it, or `score = false`");
    }
    if section.flag("tree") == Some(false) {
        config.tree = None;
    }
    let parameters = section.section("tree_parameters");
    if let Some(tree) = &mut config.tree {
        tree_parameters(parameters, tree);
    } else if section.has("tree_parameters") {
        section.problem("tree_parameters", "has no effect without trees", "remove it, or `tree = false`");
    }
    section.finish();
    config
}

/// The degrees of the mesh. Those that are not set follow the others, and the number of nodes.
fn degrees(section: &Section<'_, '_>, config: &mut gossip::Config, nodes: u32) {
    let others = usize::try_from(nodes).unwrap_or(usize::MAX).saturating_sub(1).max(1);
    let degree = section.whole("mesh_degree").unwrap_or(config.mesh_degree.min(others));
    let low = section.whole("mesh_degree_low").unwrap_or(config.mesh_degree_low.min(degree));
    let out = config.mesh_degree_out.min(degree / 2).min(low.saturating_sub(1));
    config.mesh_degree = degree;
    config.mesh_degree_low = low;
    config.mesh_degree_high =
        section.whole("mesh_degree_high").unwrap_or(config.mesh_degree_high.max(degree));
    config.mesh_degree_score =
        section.whole("mesh_degree_score").unwrap_or(config.mesh_degree_score.min(degree));
    config.mesh_degree_out = section.whole("mesh_degree_out").unwrap_or(out);
}

fn limits(section: Section<'_, '_>, limits: &mut omnimesh_protocol::gossip::wire::Limits) {
    set(&mut limits.frame_bytes_max, section.whole("frame_bytes_max"));
    set(&mut limits.batch_bytes_max, section.whole("batch_bytes_max"));
    set(&mut limits.control_bytes_max, section.whole("control_bytes_max"));
    set(&mut limits.messages_max, section.whole("messages_max"));
    set(&mut limits.entries_max, section.whole("entries_max"));
    set(&mut limits.ids_max, section.whole("ids_max"));
    section.finish();
}

fn tree_parameters(section: Section<'_, '_>, tree: &mut TreeConfig) {
    set(&mut tree.repair_timeout, section.ms("repair_timeout_ms"));
    set(&mut tree.announce_delay, section.ms("announce_delay_ms"));
    set(&mut tree.shortcut_gain, section.ms("shortcut_gain_ms"));
    set(&mut tree.per_author, section.flag("per_author"));
    set(&mut tree.missing_max, section.whole("missing_max"));
    section.finish();
}

fn score_parameters(section: Section<'_, '_>, score: &mut ScoreConfig) {
    set(&mut score.gossip_threshold, section.number("gossip_threshold"));
    set(&mut score.publish_threshold, section.number("publish_threshold"));
    set(&mut score.graylist_threshold, section.number("graylist_threshold"));
    set(&mut score.opportunistic_graft_threshold, section.number("opportunistic_graft_threshold"));
    set(&mut score.topic_score_cap, section.number("topic_score_cap"));
    set(&mut score.app_weight, section.number("app_weight"));
    set(&mut score.colocation_weight, section.number("colocation_weight"));
    set(&mut score.colocation_threshold, section.whole("colocation_threshold"));
    set(&mut score.behaviour_weight, section.number("behaviour_weight"));
    set(&mut score.behaviour_threshold, section.number("behaviour_threshold"));
    set(&mut score.behaviour_decay, section.number("behaviour_decay"));
    set(&mut score.decay_interval, section.ms("decay_interval_ms"));
    set(&mut score.decay_to_zero, section.number("decay_to_zero"));
    set(&mut score.retain, section.ms("retain_ms"));
    set(&mut score.retained_max, section.whole("retained_max"));
    let topic = &mut score.topic;
    set(&mut topic.topic_weight, section.number("topic_weight"));
    set(&mut topic.time_in_mesh_weight, section.number("time_in_mesh_weight"));
    set(&mut topic.time_in_mesh_quantum, section.ms("time_in_mesh_quantum_ms"));
    set(&mut topic.time_in_mesh_cap, section.number("time_in_mesh_cap"));
    set(&mut topic.first_deliveries_weight, section.number("first_deliveries_weight"));
    set(&mut topic.first_deliveries_decay, section.number("first_deliveries_decay"));
    set(&mut topic.first_deliveries_cap, section.number("first_deliveries_cap"));
    set(&mut topic.mesh_deliveries_weight, section.number("mesh_deliveries_weight"));
    set(&mut topic.mesh_deliveries_decay, section.number("mesh_deliveries_decay"));
    set(&mut topic.mesh_deliveries_cap, section.number("mesh_deliveries_cap"));
    set(&mut topic.mesh_deliveries_threshold, section.number("mesh_deliveries_threshold"));
    set(&mut topic.mesh_deliveries_window, section.ms("mesh_deliveries_window_ms"));
    set(&mut topic.mesh_deliveries_activation, section.ms("mesh_deliveries_activation_ms"));
    set(&mut topic.mesh_failure_weight, section.number("mesh_failure_weight"));
    set(&mut topic.mesh_failure_decay, section.number("mesh_failure_decay"));
    set(&mut topic.invalid_weight, section.number("invalid_weight"));
    set(&mut topic.invalid_decay, section.number("invalid_decay"));
    section.finish();
}
