//! What a valid configuration is. Each rule has a remedy.

use std::fmt;

use super::budget::{Budget, MEMORY_MIN};
use super::{ComputeConfig, Config, MESH_NAME_DEFAULT, MeshConfig, SecretHex};
use crate::compute::job::{LABELS_MAX, Quota, is_name};
use crate::id::NodeId;
use crate::mesh::{ADDRESS_BYTES_MAX, Mesh};

/// Room that an envelope needs beside its payloads: keys, tag, signature, channel name, CBOR heads.
const ENVELOPE_BYTES: usize = 1024;

/// What every Yamux stream may send unasked (Yamux specification, "Flow control").
const YAMUX_STREAM_WINDOW: usize = 256 << 10;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} = {value}: {message}; {remedy}")]
pub struct Problem {
    /// The setting, `section.key`.
    pub place: &'static str,
    /// Its value as text; secrets are hidden.
    pub value: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// All that is wrong with a configuration; at least one problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidConfig {
    /// In the order of the sections.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

pub(super) fn validate(config: &Config) -> Result<(), InvalidConfig> {
    let mut check = Check::default();
    check.mesh(&config.mesh);
    check.node(config);
    check.network(config);
    check.gossip(config);
    check.checkpoints(config);
    check.compute(&config.compute);
    check.observer(config);
    check.limits(config);
    check.api(config);
    check.log(config);
    if check.problems.is_empty() { Ok(()) } else { Err(InvalidConfig { problems: check.problems }) }
}

pub(super) fn mesh(config: &MeshConfig, secret: Option<&SecretHex>) -> Result<Option<Mesh>, Problem> {
    let name_error = |place, name: &str, error: crate::mesh::MeshNameError| Problem {
        place,
        value: format!("{name:?}"),
        message: error.to_string(),
        remedy: "choose another name".to_owned(),
    };
    if let Some(open) = &config.open {
        return Mesh::open(open).map(Some).map_err(|error| name_error("mesh.open", open, error));
    }
    let name = config.name.as_deref().unwrap_or(MESH_NAME_DEFAULT);
    let Some(secret) = secret.or(config.secret.as_ref()) else {
        return Mesh::open(name).map(|_| None).map_err(|error| name_error("mesh.name", name, error));
    };
    let secret = secret.decode().ok_or_else(|| Problem {
        place: "mesh.secret",
        value: super::REDACTED.to_owned(),
        message: "not 64 hexadecimal digits".to_owned(),
        remedy: "copy it whole, or join with an invite instead".to_owned(),
    })?;
    Mesh::new(name, secret).map(Some).map_err(|error| name_error("mesh.name", name, error))
}

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn fail(
        &mut self,
        place: &'static str,
        value: impl fmt::Display,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem {
            place,
            value: value.to_string(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    fn range<T: Copy + PartialOrd + fmt::Display>(&mut self, place: &'static str, value: T, min: T, max: T) {
        if value < min || value > max {
            self.fail(place, value, "out of range", format!("use {min} to {max}"));
        }
    }

    fn compute(&mut self, compute: &ComputeConfig) {
        self.range("compute.blob_bytes", compute.blob_bytes, 1 << 20, 1 << 50);
        if compute.transfer_bytes_per_s != 0 {
            let (least, most) = (64 << 10, 1 << 40);
            // A piece of a blob has 1 MiB, and whoever asks for it does not wait for ever.
            if !(least..=most).contains(&compute.transfer_bytes_per_s) {
                let remedy = format!("use {least} to {most}, or 0 for no limit");
                self.fail(
                    "compute.transfer_bytes_per_s",
                    compute.transfer_bytes_per_s,
                    "out of range",
                    remedy,
                );
            }
        }
        self.range("compute.slots", compute.slots, 0, 1024);
        self.range("compute.queue", compute.queue, 0, 1024);
        self.range("compute.threads", compute.threads, 0, 1024);
        self.range("compute.memory_bytes", compute.memory_bytes, 1 << 20, 1 << 50);
        self.range("compute.input_bytes", compute.input_bytes, 1 << 20, 1 << 40);
        self.range("compute.breaker_failures_max", compute.breaker_failures_max, 1, 1000);
        self.range("compute.breaker_failure_per_mille", compute.breaker_failure_per_mille, 1, 1000);
        self.range("compute.breaker_open_ms", compute.breaker_open_ms, 100, 3_600_000);
        self.range("compute.breaker_open_ms_max", compute.breaker_open_ms_max, 100, 3_600_000);
        self.order(
            ("compute.breaker_open_ms", compute.breaker_open_ms),
            ("compute.breaker_open_ms_max", compute.breaker_open_ms_max),
        );
        self.range("compute.input_copies", compute.input_copies, 0, 16);
        self.range("compute.jobs_max", compute.jobs_max, 1, 100_000);
        self.range("compute.job_tasks_max", compute.job_tasks_max, 1, Quota::MOST.tasks_max);
        let (remedy, name) = ("use NAME=VALUE, each 1 to 64 of A-Z a-z 0-9 _ - .", is_name);
        let is_label = |label: &&String| label.split_once('=').is_some_and(|(a, b)| name(a) && name(b));
        for label in compute.labels.iter().filter(|label| !is_label(label)) {
            self.fail("compute.labels", format!("{label:?}"), "not a label", remedy);
        }
        if let Some(region) = compute.region.as_ref().filter(|region| !is_name(region)) {
            let remedy = "use 1 to 64 of A-Z a-z 0-9 _ - .";
            self.fail("compute.region", format!("{region:?}"), "not a name", remedy);
        }
        if compute.labels.len() > LABELS_MAX {
            let remedy = format!("use {LABELS_MAX} at most");
            self.fail("compute.labels", compute.labels.len(), "too many labels", remedy);
        }
    }

    /// `low` must not be above `high`.
    fn order(&mut self, low: (&'static str, u64), high: (&str, u64)) {
        if low.1 > high.1 {
            let (name, value) = high;
            self.fail(low.0, low.1, format!("above {name} = {value}"), format!("lower it, or raise {name}"));
        }
    }

    fn mesh(&mut self, mesh: &MeshConfig) {
        if let Err(problem) = mesh.mesh(None) {
            self.problems.push(problem);
        }
        let secret = if mesh.secret.is_some() { "mesh.secret" } else { "mesh.secret_file" };
        if mesh.secret.is_some() && mesh.secret_file.is_some() {
            self.fail(
                "mesh.secret",
                super::REDACTED,
                "set together with mesh.secret_file",
                "remove one of them",
            );
        }
        if let Some(open) = &mesh.open {
            if mesh.secret.is_some() || mesh.secret_file.is_some() {
                self.fail(
                    "mesh.open",
                    format!("{open:?}"),
                    format!("set together with {secret}"),
                    "an open mesh has no secret of its own: remove one of them",
                );
            }
            if mesh.name.as_ref().is_some_and(|name| name != open) {
                self.fail(
                    "mesh.name",
                    format!("{:?}", mesh.name.as_deref().unwrap_or_default()),
                    "differs from mesh.open",
                    "remove mesh.name: mesh.open is the name",
                );
            }
        }
    }

    fn node(&mut self, config: &Config) {
        let node = &config.node;
        self.range("node.phase_interval", node.phase_interval, 1, 1 << 32);
        self.range("node.cache_size", node.cache_size, 1, 1 << 20);
        self.range("node.step_interval_ms", node.step_interval_ms, 10, 86_400_000);
        self.range("node.step_window_past", node.step_window_past, 1, 1 << 20);
        self.range("node.step_window_future", node.step_window_future, 1, 1 << 20);
        self.range("node.sequence_window", node.sequence_window, 64, 1 << 20);
        self.range("node.authors_max", node.authors_max, 16, 1 << 24);
        self.range("node.sync_round_ms", node.sync_round_ms, 50, 3_600_000);
        self.range("node.sync_peers", node.sync_peers, 1, 64);
        self.range("node.sync_timeout_ms", node.sync_timeout_ms, 10, 60_000);
        self.range("node.sync_retries", node.sync_retries, 0, 100);
        self.range("node.bundle_payloads_max", node.bundle_payloads_max, 1, 1024);
        self.range("node.bundle_bytes_max", node.bundle_bytes_max, 1, 1 << 24);
        self.order(
            ("node.sync_timeout_ms", node.sync_timeout_ms),
            ("node.sync_round_ms", node.sync_round_ms),
        );
        let room = config.gossip.message_bytes_max.saturating_sub(ENVELOPE_BYTES);
        if node.bundle_bytes_max > room {
            self.fail(
                "node.bundle_bytes_max",
                node.bundle_bytes_max,
                format!("an envelope of that many bytes and {ENVELOPE_BYTES} of its own is above gossip.message_bytes_max"),
                format!("use at most {room}, or raise gossip.message_bytes_max on all nodes"),
            );
        }
    }

    fn network(&mut self, config: &Config) {
        let network = &config.network;
        if network.listen.is_empty() {
            self.fail(
                "network.listen",
                "[]",
                "no address",
                "give at least one, such as /ip4/0.0.0.0/tcp/7411",
            );
        }
        for address in &network.listen {
            self.address("network.listen", address);
            if address.contains("/p2p/") {
                self.fail(
                    "network.listen",
                    format!("{address:?}"),
                    "an address to listen on has no peer id",
                    "remove the /p2p/ part",
                );
            }
        }
        for address in &network.external {
            self.address("network.external", address);
        }
        for address in &network.bootstrap {
            if self.address("network.bootstrap", address) {
                self.bootstrap_peer(address);
            }
        }
        // The router counts twice as many in 15 bits.
        self.range("network.peers_max", network.peers_max, 1, 15_000);
        self.range("network.peers_target", network.peers_target, 1, 65_536);
        self.range("network.pending_max", network.pending_max, 1, 65_536);
        self.range("network.max_nodes", network.max_nodes, 2, 1 << 20);
        self.range("network.heartbeat_ms", network.heartbeat_ms, 50, 600_000);
        self.range("network.suspect_ms", network.suspect_ms, 50, 3_600_000);
        self.order(
            ("network.peers_target", network.peers_target as u64),
            ("network.peers_max", network.peers_max as u64),
        );
        self.order(
            ("network.heartbeat_ms", network.heartbeat_ms),
            ("network.suspect_ms", network.suspect_ms),
        );
    }

    /// Checks the shape of a multiaddress; true if it may be one.
    fn address(&mut self, place: &'static str, address: &str) -> bool {
        let value = format!("{address:?}");
        if address.len() > ADDRESS_BYTES_MAX {
            self.fail(place, value, format!("longer than {ADDRESS_BYTES_MAX} bytes"), "shorten it");
            return false;
        }
        if let Some((host, port)) = address.rsplit_once(':').filter(|_| !address.starts_with('/')) {
            let host = host.trim_matches(['[', ']']);
            let kind = match host.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(_)) => "ip4",
                Ok(std::net::IpAddr::V6(_)) => "ip6",
                Err(_) => "dns",
            };
            self.fail(place, value, "not a multiaddress", format!("write /{kind}/{host}/tcp/{port}"));
            return false;
        }
        let shaped = address.starts_with('/') && address.split('/').skip(1).all(|part| !part.is_empty());
        if !shaped {
            self.fail(
                place,
                value,
                "not a multiaddress",
                "write it like /ip4/192.0.2.1/tcp/7411 or /dns/host.example/udp/7411/quic-v1",
            );
        }
        shaped
    }

    fn bootstrap_peer(&mut self, address: &str) {
        let value = format!("{address:?}");
        let mut parts = address.rsplit('/');
        let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if before != "p2p" {
            self.fail(
                "network.bootstrap",
                value,
                "does not end in /p2p/<peer id>",
                "add the peer id, which the other node prints when it starts, so that nobody else can answer in its place",
            );
        } else if last.parse::<NodeId>().is_err() {
            self.fail(
                "network.bootstrap",
                value,
                format!("{last:?} is not the peer id of an Ed25519 key"),
                "copy the whole address again; a peer id looks like 12D3KooW…",
            );
        }
    }

    fn checkpoints(&mut self, config: &Config) {
        let checkpoints = &config.checkpoints;
        self.range("checkpoints.every_steps", checkpoints.every_steps, 0, 1 << 40);
        self.range("checkpoints.delay_steps", checkpoints.delay_steps, 0, 1 << 40);
        self.range("checkpoints.signers", checkpoints.signers, 0, 2048);
        self.range("checkpoints.bytes_max", checkpoints.bytes_max, 1 << 16, 1 << 40);
        let keep = [
            ("checkpoints.keep_steps", checkpoints.keep_steps),
            ("checkpoints.keep_bytes", checkpoints.keep_bytes),
        ];
        for (name, value) in keep.into_iter().filter(|(_, value)| *value > 0) {
            if checkpoints.every_steps == 0 {
                self.fail(
                    name,
                    value,
                    "nothing is dropped without checkpoints",
                    "set checkpoints.every_steps, the same on all nodes",
                );
            }
        }
    }

    fn observer(&mut self, config: &Config) {
        const DAY_MS: u64 = 86_400_000;
        let observer = &config.observer;
        self.range("observer.quarantine_steps", observer.quarantine_steps, 0, 1 << 40);
        self.range("observer.address_keys", observer.address_keys, 1, 1 << 20);
        self.range("observer.network_keys", observer.network_keys, 1, 1 << 20);
        self.order(
            ("observer.address_keys", observer.address_keys.into()),
            ("observer.network_keys", observer.network_keys.into()),
        );
        if observer.probe_interval_ms > 0 {
            self.range("observer.probe_interval_ms", observer.probe_interval_ms, 100, DAY_MS);
        }
        self.range("observer.sample_interval_ms", observer.sample_interval_ms, 100, 3_600_000);
        self.range("observer.alert_hold_ms", observer.alert_hold_ms, 0, DAY_MS);
        self.range("observer.alert_calm_ms", observer.alert_calm_ms, 0, DAY_MS);
        self.range("observer.audit_days", observer.audit_days, 0, 36_500);
        if let Err((text, (message, remedy))) = observer.telemetry() {
            self.fail("observer.thresholds", format!("{text:?}"), message, remedy);
        }
        if let Some(url) = &observer.webhook_url {
            let rest = url.strip_prefix("http://").unwrap_or_default();
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            // `[::1]` has colons and no port.
            let port =
                host.rsplit_once(':').filter(|(name, _)| !name.starts_with('[') || name.ends_with(']'));
            let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
            let has_bad_port = port.is_some_and(|(name, port)| name.is_empty() || !is_port(port));
            if host.is_empty() || has_bad_port || url.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                self.fail(
                    "observer.webhook_url",
                    format!("{url:?}"),
                    "not an address that alerts can be posted to",
                    "write it like http://alertmanager.example:9093/api/v2/alerts; for https, put a proxy before it",
                );
            }
        }
    }

    fn gossip(&mut self, config: &Config) {
        let gossip = &config.gossip;
        self.range("gossip.mesh_n", gossip.mesh_n, 1, 1000);
        self.range("gossip.mesh_n_high", gossip.mesh_n_high, 1, 1000);
        self.range("gossip.gossip_lazy", gossip.gossip_lazy, 0, 1000);
        self.range("gossip.heartbeat_ms", gossip.heartbeat_ms, 50, 60_000);
        self.range("gossip.history_length", gossip.history_length, 1, 1024);
        self.range("gossip.tree_repair_ms", gossip.tree_repair_ms, 1, 10_000);
        self.range("gossip.seen_ms", gossip.seen_ms, 1000, 86_400_000);
        if gossip.cache_bytes_max > 0 {
            self.range("gossip.cache_bytes_max", gossip.cache_bytes_max, 1 << 20, 1 << 34);
        }
        self.range("gossip.message_bytes_max", gossip.message_bytes_max, 4096, 1 << 24);
        let count = |name, value: usize| (name, value as u64);
        let mesh_n = count("gossip.mesh_n", gossip.mesh_n);
        self.order(count("gossip.mesh_n_low", gossip.mesh_n_low), mesh_n);
        self.order(mesh_n, count("gossip.mesh_n_high", gossip.mesh_n_high));
        self.order(
            count("gossip.history_gossip", gossip.history_gossip),
            count("gossip.history_length", gossip.history_length),
        );
        // Gossipsub v1.1: D_out < D_lo and D_out <= D / 2.
        let outbound_max = (gossip.mesh_n / 2).min(gossip.mesh_n_low.saturating_sub(1));
        if gossip.mesh_outbound_min > outbound_max {
            self.fail(
                "gossip.mesh_outbound_min",
                gossip.mesh_outbound_min,
                "must be below gossip.mesh_n_low and at most half of gossip.mesh_n",
                format!("use at most {outbound_max}"),
            );
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        self.range("limits.memory", limits.memory, MEMORY_MIN, 1 << 40);
        if (MEMORY_MIN..=1 << 40).contains(&limits.memory)
            && let Err(misfit) = Budget::of(config)
        {
            self.fail("limits.memory", limits.memory, misfit.message, misfit.remedy);
        }
        self.range("limits.inbound_queue", limits.inbound_queue, 16, 1 << 20);
        self.range("limits.verify_batch", limits.verify_batch, 1, 4096);
        self.range("limits.outbound_queue", limits.outbound_queue, 16, 1 << 20);
        self.range("limits.outbound_bytes", limits.outbound_bytes, 1 << 16, 1 << 30);
        self.range("limits.subscriber_queue", limits.subscriber_queue, 1, 1 << 20);
        self.range("limits.streams_per_connection", limits.streams_per_connection, 8, 1024);
        self.range("limits.connection_window_bytes", limits.connection_window_bytes, 1 << 21, 1 << 30);
        let window_min = limits.streams_per_connection.saturating_mul(YAMUX_STREAM_WINDOW);
        if limits.connection_window_bytes < window_min {
            self.fail(
                "limits.connection_window_bytes",
                limits.connection_window_bytes,
                "below 256 KiB for each of limits.streams_per_connection streams",
                format!("use at least {window_min}, or fewer streams"),
            );
        }
        self.order(
            ("gossip.message_bytes_max", config.gossip.message_bytes_max as u64),
            ("limits.outbound_bytes", limits.outbound_bytes as u64),
        );
    }

    fn api(&mut self, config: &Config) {
        let api = &config.api;
        self.range("api.body_bytes_max", api.body_bytes_max, 1024, 1 << 26);
        self.range("api.requests_per_s", api.requests_per_s, 1, 1_000_000);
        self.range("api.requests_burst", api.requests_burst, 1, 1_000_000);
        self.range("api.connections_max", api.connections_max, 1, 65_536);
        self.range("api.streams_max", api.streams_max, 1, 65_536);
        for host in &api.allowed_hosts {
            if host.is_empty() || host.contains(['/', ' ', '*']) {
                self.fail(
                    "api.allowed_hosts",
                    format!("{host:?}"),
                    "not a host name",
                    "write the name alone, as in node1.example or node1.example:7412",
                );
            }
        }
        for origin in &api.allowed_origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.contains(['/', ' ', '*'])) {
                self.fail(
                    "api.allowed_origins",
                    format!("{origin:?}"),
                    "not a web origin",
                    "write scheme, host and port without a path, as in https://ops.example:8443",
                );
            }
        }
    }

    fn log(&mut self, config: &Config) {
        let level = config.log.level.as_str();
        let known = ["error", "warn", "info", "debug", "trace", "off"];
        let bad = level.split(',').map(|directive| directive.rsplit('=').next().unwrap_or_default().trim());
        if bad.into_iter().any(|word| !known.contains(&word)) {
            self.fail(
                "log.level",
                format!("{level:?}"),
                "no such level",
                format!("use one of {}, or directives such as info,omnimesh_node=debug", known.join(", ")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(change: impl FnOnce(&mut Config)) -> Vec<&'static str> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().err().map_or_else(Vec::new, |e| e.problems.iter().map(|p| p.place).collect())
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn every_key_is_refused_if_unknown() {
        for text in [r#"{"nod":{}}"#, r#"{"node":{"phase":1}}"#, r#"{"log":{"format":"xml"}}"#] {
            assert!(serde_json::from_str::<Config>(text).is_err(), "{text}");
        }
        let text = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), Config::default());
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    }

    #[test]
    fn a_bootstrap_address_needs_its_peer_id() {
        let bootstrap = |address: &str| {
            let mut config = Config::default();
            config.network.bootstrap = vec![address.to_owned()];
            config.validate().map_err(|e| e.to_string())
        };
        let error = bootstrap("/ip4/10.0.0.1/tcp/7411").unwrap_err();
        assert!(
            error.starts_with(r#"network.bootstrap = "/ip4/10.0.0.1/tcp/7411": does not end in /p2p/"#),
            "{error}"
        );
        assert!(bootstrap("/ip4/10.0.0.1/tcp/7411/p2p/12D3KooWx").unwrap_err().contains("copy the whole"));
        assert!(bootstrap("10.0.0.1:7411").unwrap_err().contains("write /ip4/10.0.0.1/tcp/7411"));
        assert!(bootstrap("[::1]:7411").unwrap_err().contains("write /ip6/::1/tcp/7411"));
        let id = crate::Identity::from_seed(&[1; 32]).id();
        bootstrap(&format!("/dns/a.example/udp/7411/quic-v1/p2p/{id}")).unwrap();
    }

    #[test]
    fn problems_name_their_places() {
        assert_eq!(places(|c| c.network.listen = vec![]), ["network.listen"]);
        assert_eq!(places(|c| c.network.listen = vec!["//tcp".into()]), ["network.listen"]);
        assert_eq!(places(|c| c.node.phase_interval = 0), ["node.phase_interval"]);
        assert_eq!(places(|c| c.node.bundle_bytes_max = 65_536), ["node.bundle_bytes_max"]);
        assert_eq!(places(|c| c.gossip.mesh_n_low = 7), ["gossip.mesh_n_low"]);
        assert_eq!(places(|c| c.gossip.mesh_outbound_min = 4), ["gossip.mesh_outbound_min"]);
        assert_eq!(places(|c| c.gossip.history_gossip = 6), ["gossip.history_gossip"]);
        assert_eq!(places(|c| c.gossip.tree_repair_ms = 0), ["gossip.tree_repair_ms"]);
        assert_eq!(places(|c| c.network.peers_target = 200), ["network.peers_target"]);
        assert_eq!(places(|c| c.limits.streams_per_connection = 128), ["limits.connection_window_bytes"]);
        assert_eq!(places(|c| c.compute.breaker_failures_max = 0), ["compute.breaker_failures_max"]);
        assert_eq!(
            places(|c| c.compute.breaker_failure_per_mille = 1001),
            ["compute.breaker_failure_per_mille"]
        );
        assert_eq!(places(|c| c.compute.breaker_open_ms = 200_000), ["compute.breaker_open_ms"]);
        assert_eq!(places(|c| c.api.allowed_origins = vec!["*".into()]), ["api.allowed_origins"]);
        assert_eq!(places(|c| c.observer.thresholds = vec!["disk".into()]), ["observer.thresholds"]);
        assert_eq!(places(|c| c.observer.probe_interval_ms = 5), ["observer.probe_interval_ms"]);
        assert!(places(|c| c.observer.probe_interval_ms = 0).is_empty());
        let ports = ["http://a:99999/b", "http://a:0", "http://a:", "http://:80", "http://[::1]:x/"];
        for bad in
            ["https://a/b", "alerts.example", "http://", "http:///x", "http://a b"].into_iter().chain(ports)
        {
            assert_eq!(places(|c| c.observer.webhook_url = Some(bad.into())), ["observer.webhook_url"]);
        }
        for good in ["http://a:9093/api/v2/alerts", "http://a", "http://[::1]/b", "http://[::1]:80/b"] {
            assert!(places(|c| c.observer.webhook_url = Some(good.into())).is_empty(), "{good}");
        }
        assert_eq!(places(|c| c.log.level = "loud".into()), ["log.level"]);
        assert!(places(|c| c.log.level = "info,omnimesh_node=debug".into()).is_empty());
        // All problems at once.
        assert_eq!(
            places(|c| {
                c.node.cache_size = 0;
                c.limits.verify_batch = 0;
            }),
            ["node.cache_size", "limits.verify_batch"]
        );
    }

    #[test]
    fn a_mesh_comes_from_one_source() {
        let secret = || Some(SecretHex::new("ab".repeat(32)));
        assert_eq!(places(|c| c.mesh.secret = Some(SecretHex::new("abc"))), ["mesh.secret"]);
        assert_eq!(places(|c| c.mesh.open = Some("a b".into())), ["mesh.open"]);
        assert_eq!(places(|c| c.mesh.name = Some(String::new())), ["mesh.name"]);
        assert_eq!(
            places(|c| {
                c.mesh.open = Some("a".into());
                c.mesh.secret = secret();
            }),
            ["mesh.open"]
        );
        let config = MeshConfig { secret: secret(), ..MeshConfig::default() };
        assert_eq!(config.mesh(None).unwrap().unwrap().name(), "omnimesh");
        assert_eq!(MeshConfig::default().mesh(None).unwrap(), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = Config::default();
        config.mesh.secret = Some(SecretHex::new("ab".repeat(32)));
        for text in [format!("{config:?}"), serde_json::to_string(&config.redacted()).unwrap()] {
            assert!(!text.contains("abab"), "{text}");
        }
    }
}
