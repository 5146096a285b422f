//! What cannot be simulated, and why.

mod compute;
mod engine;
mod hits;
mod log;

pub(super) use hits::how_many;

use std::fmt::Display;
use std::time::Duration;

use omnimesh_protocol::{envelope, gossip};

use super::{Latency, Links, Network, Problem, Scenario, Topology, Workload};

/// The model advances in windows as long as the smallest latency: a tiny one would make it crawl.
const LATENCY_MIN: Duration = Duration::from_micros(100);
/// The largest mesh that is simulated.
const NODES_MAX: u32 = 10_000_000;
/// A node sees no more than a drift of this many millionths: a tenth.
const DRIFT_PPM_MAX: f64 = 100_000.0;

impl Scenario {
    /// Everything that keeps it from being simulated; none if it is valid.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        if self.duration.is_zero() {
            problems.push("duration_ms", "must be above 0", "set it to the length of the run: 30000 is 30 s");
        }
        if self.name.is_empty() || self.name.contains(['/', '\\', '\0']) || self.name.starts_with('.') {
            let message = "cannot be part of a folder's name";
            problems.push("name", message, "take letters, digits, `-` and `_`");
        }
        problems.network(&self.network, self.duration);
        problems.topology(&self.network, &self.gossip);
        problems.links(&self.links, self.network.regions.len());
        problems.gossip(&self.gossip, self.network.nodes);
        problems.workload(&self.workload, self.duration);
        problems.log(self);
        problems.compute(self);
        problems.hits(self);
        problems.0
    }
}

/// A list that grows.
struct Problems(Vec<Problem>);

impl Problems {
    fn push(&mut self, path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::new(path, message, remedy));
    }

    fn require(&mut self, ok: bool, path: impl Into<String>, message: &str, remedy: &str) {
        if !ok {
            self.push(path, message, remedy);
        }
    }

    fn positive(&mut self, time: Duration, path: impl Into<String>) {
        self.require(!time.is_zero(), path, "must be above 0", "set it to some milliseconds");
    }

    /// Part of a whole, the whole included or not.
    fn share(&mut self, share: f64, is_all_allowed: bool, path: impl Into<String>) {
        let ok = (0.0..=1.0).contains(&share) && (share < 1.0 || is_all_allowed);
        let range = if is_all_allowed { "must be from 0 to 1" } else { "must be from 0 to below 1" };
        self.require(ok, path, range, "0.1 is 10 %");
    }

    fn network(&mut self, network: &Network, duration: Duration) {
        if network.nodes < 2 {
            let message = format!("{} is no mesh", count(network.nodes, "node"));
            self.push("network.nodes", message, "set it to 2 at least");
        }
        if network.nodes > NODES_MAX {
            let message = format!("is more than {NODES_MAX}");
            self.push("network.nodes", message, "lower it; one machine holds some millions at most");
        }
        let joins = network.join_over < duration || network.join_over.is_zero();
        let remedy = "let all nodes join before the end: lower it, or raise duration_ms";
        self.require(joins, "network.join_over_ms", "is not before the end of the run", remedy);
        self.positive(network.step_interval, "network.step_interval_ms");
        self.positive(network.sync_interval, "network.sync_interval_ms");
        self.positive(network.silence, "network.silence_ms");
        self.positive(network.redial, "network.redial_ms");
        let remedy = "set it to 1 at least, or `step_sync = false`";
        self.require(network.sync_peers > 0, "network.sync_peers", "must be at least 1", remedy);
        let is_drift = (0.0..=DRIFT_PPM_MAX).contains(&network.clock_drift_ppm);
        let remedy = "set it from 0 to 100000; clocks are usually within 100";
        self.require(is_drift, "network.clock_drift_ppm", "is no drift of a clock", remedy);
        for (i, region) in network.regions.iter().enumerate() {
            let path = |key| format!("network.regions[{i}].{key}");
            let ok = region.share > 0.0 && region.share.is_finite();
            self.require(ok, path("share"), "must be above 0", "0.25 is a quarter of the nodes");
            self.require(!region.name.is_empty(), path("name"), "is empty", "give it a name");
            let is_second = network.regions.iter().take(i).any(|other| other.name == region.name);
            self.require(!is_second, path("name"), "is the name of another region too", "give each its own");
        }
    }

    fn topology(&mut self, network: &Network, gossip: &gossip::Config) {
        if network.nodes < 2 {
            return;
        }
        let others = network.nodes - 1;
        let (path, number, most) = match network.topology {
            Topology::Random { dials } => ("network.dials", dials, others),
            Topology::Ring { neighbours } => ("network.neighbours", neighbours, others),
            Topology::Full => {
                if usize::try_from(others).unwrap_or(usize::MAX) > gossip.peers_max {
                    let message = format!(
                        "connects each node with {others} others, of which it refuses all above {}",
                        gossip.peers_max
                    );
                    let remedy = "take `topology = \"random\"`, fewer nodes, or raise gossip.peers_max";
                    self.push("network.topology", message, remedy);
                }
                return;
            }
        };
        if number == 0 {
            self.push(path, "nobody would be connected", "set it to 1 at least");
        } else if number > most {
            let message = format!("is more than the {} there are for each node", count(most, "other"));
            self.push(path, message, format!("lower it to {most} at most, or raise network.nodes"));
        }
    }

    fn links(&mut self, links: &Links, regions: usize) {
        self.latency(&links.latency, regions);
        let remedy = "0.1 adds up to 10 % of the latency";
        let ok = (0.0..=100.0).contains(&links.jitter);
        self.require(ok, "links.jitter", "must be from 0 to 100", remedy);
        // With all packets lost, a retransmission never ends.
        self.share(links.loss, false, "links.loss");
        let ok = (1.0..=1e6).contains(&links.loss_burst);
        self.require(ok, "links.loss_burst", "must be at least 1", "1 is independent losses");
        self.share(links.duplication, true, "links.duplication");
        self.share(links.reordering, true, "links.reordering");
        let ok = links.bandwidth_bps.is_none_or(|bps| bps >= 1_000);
        let remedy = "set it to 1000 at least (bits per second), or leave it out for no limit";
        self.require(ok, "links.bandwidth_bps", "is too little for any frame", remedy);
    }

    fn latency(&mut self, latency: &Latency, regions: usize) {
        let least = |problems: &mut Self, time: Duration, key: &str| {
            let remedy = "set it to 0.1 at least: the engine advances by the smallest latency";
            problems.require(time >= LATENCY_MIN, format!("links.{key}"), "is below 0.1 ms", remedy);
        };
        match latency {
            Latency::Constant(time) => least(self, *time, "latency_ms"),
            Latency::Uniform { min, max } => {
                least(self, *min, "latency_min_ms");
                if min > max {
                    let message = format!("is above latency_max_ms, which is {}", ms(*max));
                    self.push("links.latency_min_ms", message, "swap them, or set both");
                }
            }
            Latency::LogNormal { median, sigma, max } => {
                least(self, *median, "latency_median_ms");
                let ok = (0.0..=10.0).contains(sigma);
                let remedy = "0.5 is usual: two thirds are within a factor of 1.65";
                self.require(ok, "links.latency_sigma", "must be from 0 to 10", remedy);
                if median > max {
                    let message = format!("is above latency_max_ms, which is {}", ms(*max));
                    self.push("links.latency_median_ms", message, "raise latency_max_ms");
                }
            }
            Latency::Matrix { ms, spread } => {
                self.matrix(ms, regions);
                self.share(*spread, false, "links.latency_spread");
                let least_ms = LATENCY_MIN.as_secs_f64() * 1_000.0;
                let ok = ms.iter().flatten().all(|ms| ms * (1.0 - spread) >= least_ms && *ms <= 60_000.0);
                let remedy = "each must be 0.1 at least, also less the spread, and 60000 at most";
                self.require(ok, "links.latency_matrix_ms", "has a latency out of range", remedy);
            }
        }
    }

    fn matrix(&mut self, rows: &[Vec<f64>], regions: usize) {
        let path = "links.latency_matrix_ms";
        if regions == 0 {
            let remedy = "add `regions = [{ name = …, share = … }]` to `[network]`, one for each row";
            self.push(path, "there are no regions", remedy);
        } else if rows.len() != regions || rows.iter().any(|row| row.len() != regions) {
            let columns: Vec<_> = rows.iter().map(Vec::len).collect();
            let message = format!("has {} of {columns:?} columns", count(rows.len(), "row"));
            let remedy = format!("write {regions} rows of {regions} numbers, in the order of the regions");
            self.push(path, message, remedy);
        }
    }

    fn gossip(&mut self, config: &gossip::Config, nodes: u32) {
        if let Err(error) = config.validate() {
            self.push(gossip_path(error.field), error.problem, "set it so");
        }
        let others = usize::try_from(nodes.saturating_sub(1)).unwrap_or(usize::MAX);
        if config.mesh_degree > others && others > 0 {
            let message = format!("no node has {} peers: there are {nodes} nodes", config.mesh_degree);
            let remedy = format!("lower it to {others} at most, or raise network.nodes");
            self.push("gossip.mesh_degree", message, remedy);
        }
    }

    fn workload(&mut self, workload: &Workload, duration: Duration) {
        let path = "workload.rate_per_s";
        let is_rate = (1e-6..=1e6).contains(&workload.rate_per_s);
        self.require(is_rate, path, "is no rate", "10 is a message each 100 ms; from 0.000001 to 1000000");
        let most = envelope::payload_bytes_max(gossip::wire::Limits::default().frame_bytes_max);
        if workload.payload_bytes > most {
            let message = format!("is more than an envelope holds, which is {most}");
            self.push("workload.payload_bytes", message, format!("lower it to {most} at most"));
        }
        let remedy = "set it to 1 at least, or leave it out for a random author each time";
        self.require(workload.authors != Some(0), "workload.authors", "nobody would publish", remedy);
        if workload.messages == 0 || !is_rate || duration.is_zero() {
            return;
        }
        if workload.start >= duration {
            let message = format!("is not before the end of the run at {}", ms(duration));
            self.push("workload.start_ms", message, "start earlier, or raise duration_ms");
            return;
        }
        let last = workload.start.as_secs_f64() + f64::from(workload.messages - 1) / workload.rate_per_s;
        if last >= duration.as_secs_f64() {
            let message = format!(
                "the last of {} would be published at {:.0} ms, and the run ends at {}",
                count(workload.messages, "message"),
                last * 1_000.0,
                ms(duration)
            );
            let remedy = "publish fewer messages, raise workload.rate_per_s, or raise duration_ms";
            self.push("workload.messages", message, remedy);
        }
    }
}

/// The key in a file of a setting of the router.
fn gossip_path(field: &str) -> String {
    let of_score = field.strip_prefix("score.topic.").or_else(|| field.strip_prefix("score."));
    let field = match (of_score, field.strip_prefix("tree.")) {
        (Some(parameter), _) => format!("score_parameters.{parameter}"),
        (None, Some(parameter)) => format!("tree_parameters.{parameter}"),
        (None, None) => field.to_owned(),
    };
    // Times end in their unit.
    let name = match field.as_str() {
        "heartbeat_interval" => "heartbeat_ms".to_owned(),
        "seen_ttl"
        | "score_parameters.decay_interval"
        | "score_parameters.time_in_mesh_quantum"
        | "tree_parameters.repair_timeout" => format!("{field}_ms"),
        _ => field,
    };
    format!("gossip.{name}")
}

/// `1 node`, `3 nodes`.
fn count(number: impl Display, thing: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A time as in a file.
fn ms(time: Duration) -> String {
    format!("{} ms", time.as_secs_f64() * 1_000.0)
}
