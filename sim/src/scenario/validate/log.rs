//! The durable log: times within the run, disks that work, and time to catch up.

use omnimesh_protocol::{envelope, gossip};

use super::{Problems, ms};
use crate::scenario::{Check, Disk, Log, Scenario};

impl Problems {
    pub(super) fn log(&mut self, scenario: &Scenario) {
        let Some(log) = &scenario.log else {
            let of_log = [Check::of_log(), Check::of_checkpoints()].concat();
            let of_log: Vec<_> = of_log.iter().map(Check::name).collect();
            for (i, check) in scenario.checks.iter().enumerate() {
                let message = format!("`{}` looks at logs, and nodes keep none", check.name());
                let ok = !of_log.contains(&check.name());
                self.require(ok, format!("checks[{i}].kind"), &message, "add `[log]`, or remove it");
            }
            return;
        };
        self.load(scenario, log);
        self.disk(&scenario.disk);
        self.checkpoints(scenario);
        for (i, check) in scenario.checks.iter().enumerate() {
            let Some(within) = check.within() else { continue };
            if !scenario.duration.is_zero() && log.end.saturating_add(within) > scenario.duration {
                let message = format!(
                    "is more than there is from the last append at {} to the end of the run at {}",
                    ms(log.end),
                    ms(scenario.duration)
                );
                self.push(
                    format!("checks[{i}].within_ms"),
                    message,
                    "lower it or log.end_ms, or raise duration_ms",
                );
            }
        }
    }

    fn load(&mut self, scenario: &Scenario, log: &Log) {
        if log.start >= log.end {
            let message = format!("is not after start_ms, which is {}", ms(log.start));
            self.push("log.end_ms", message, "end later, or begin earlier");
        } else if log.end > scenario.duration && !scenario.duration.is_zero() {
            let message = format!("is after the end of the run at {}", ms(scenario.duration));
            self.push("log.end_ms", message, "end earlier, or raise duration_ms");
        }
        let is_rate = (1e-6..=1e6).contains(&log.rate_per_s);
        self.require(is_rate, "log.rate_per_s", "is no rate", "5 is five appends in a second");
        let most = envelope::payload_bytes_max(gossip::wire::Limits::default().frame_bytes_max);
        if log.payload_bytes > most {
            let message = format!("is more than an envelope holds, which is {most}");
            self.push("log.payload_bytes", message, format!("lower it to {most} at most"));
        }
        let remedy = "set it to 1 at least, or leave it out for a random author each time";
        self.require(log.authors != Some(0), "log.authors", "nobody would append", remedy);
        self.share(log.registry_share, true, "log.registry_share");
        let remedy = "set it to 1 at least, or registry_share to 0";
        self.require(log.registry_keys > 0, "log.registry_keys", "must be at least 1", remedy);
        let others = usize::try_from(scenario.network.nodes.saturating_sub(1)).unwrap_or(usize::MAX);
        let message = format!("is more than the {others} others there are");
        self.require(log.replicas <= others, "log.replicas", &message, "lower it, or raise network.nodes");
        self.positive(log.interval, "log.interval_ms");
    }

    fn checkpoints(&mut self, scenario: &Scenario) {
        let Some(checkpoints) = &scenario.checkpoints else {
            let of_checkpoints = Check::of_checkpoints();
            for (i, check) in scenario.checks.iter().enumerate() {
                let ok = !of_checkpoints.iter().any(|of| of.name() == check.name());
                let message = format!("`{}` looks at checkpoints, and nodes make none", check.name());
                self.require(ok, format!("checks[{i}].kind"), &message, "add `[checkpoints]`, or remove it");
            }
            return;
        };
        let remedy = "10 is one every ten steps; for none remove `[checkpoints]`";
        let ok = (1..=1 << 40).contains(&checkpoints.every_steps);
        self.require(ok, "checkpoints.every_steps", "must be from 1 to 2^40", remedy);
        let ok = checkpoints.delay_steps <= 1 << 40;
        self.require(ok, "checkpoints.delay_steps", "must be at most 2^40", "5 is usual here");
        let nodes = usize::try_from(scenario.network.nodes).unwrap_or(usize::MAX);
        let message = format!("is more than the {nodes} nodes there are");
        self.require(checkpoints.signers <= nodes, "checkpoints.signers", &message, "lower it");
        let ok = (1 << 16..=1 << 40).contains(&checkpoints.bytes_max);
        self.require(ok, "checkpoints.bytes_max", "must be from 2^16 to 2^40", "leave it out for 256 MiB");
    }

    fn disk(&mut self, disk: &Disk) {
        self.positive(disk.sync, "disk.sync_ms");
        let ok = (0.0..=10.0).contains(&disk.sync_sigma);
        self.require(ok, "disk.sync_sigma", "must be from 0 to 10", "0.5 is usual");
        if disk.sync > disk.sync_max {
            let message = format!("is above sync_max_ms, which is {}", ms(disk.sync_max));
            self.push("disk.sync_ms", message, "raise disk.sync_max_ms");
        }
        self.require(disk.bytes_per_s > 0, "disk.bytes_per_s", "must be above 0", "200000000 is 200 MB/s");
        self.share(disk.slow_share, true, "disk.slow_share");
        let ok = (1.0..=1e6).contains(&disk.slow_factor);
        self.require(ok, "disk.slow_factor", "must be at least 1", "20 makes it twenty times as slow");
    }
}
