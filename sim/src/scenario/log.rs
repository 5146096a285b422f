//! The durable log: what is appended to it, and the disks that it is written to.

use std::time::Duration;

use omnimesh_protocol::config::CheckpointsConfig;
use omnimesh_protocol::log::Config;

/// Checkpoints of logs: the settings of the node, by the same names.
pub type Checkpoints = CheckpointsConfig;

/// What a scenario does not say of them. More often than in a node, as runs are short.
pub const CHECKPOINTS: Checkpoints = Checkpoints {
    every_steps: 10,
    delay_steps: 5,
    signers: 0,
    bytes_max: 256 << 20,
    keep_steps: 0,
    keep_bytes: 0,
};
/// What is appended by default, and when.
const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(20);

/// What honest nodes append to their logs. Nodes of a scenario without it keep none.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// When the first entry is appended.
    pub start: Duration,
    /// Nothing is appended from then on.
    pub end: Duration,
    /// Appends in a second, of all nodes together, evenly.
    pub rate_per_s: f64,
    /// Bytes of a payload. One of the registry has some more.
    pub payload_bytes: usize,
    /// So many nodes, fixed and random, take turns; who is down is left out. None: each time another random node.
    pub authors: Option<u32>,
    /// This part of the appends are writes to the registry.
    pub registry_share: f64,
    /// The entries of the registry that they fight over.
    pub registry_keys: u32,
    /// How many other nodes must have an entry on disk before it is acknowledged.
    pub replicas: usize,
    /// Between two rounds of reconciliation.
    pub interval: Duration,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            start: START,
            end: END,
            rate_per_s: 5.0,
            payload_bytes: 64,
            authors: None,
            registry_share: 0.3,
            registry_keys: 8,
            replicas: 0,
            interval: Config::default().interval,
        }
    }
}

impl Log {
    /// The default of a run so long: in a short one nodes append earlier, so that there is time to catch up.
    pub fn within(duration: Duration) -> Log {
        Log { start: START.min(duration / 3), end: END.min(duration / 3 * 2), ..Log::default() }
    }

    /// How many appends there are.
    pub fn appends(&self) -> u32 {
        let seconds = self.end.saturating_sub(self.start).as_secs_f64();
        let count = (seconds * self.rate_per_s).ceil().clamp(0.0, f64::from(u32::MAX));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was clamped")]
        let count = count as u32;
        count
    }

    /// When an append happens.
    pub(crate) fn time_of(&self, number: u32) -> Duration {
        self.start + Duration::from_secs_f64(f64::from(number) / self.rate_per_s.max(1e-9))
    }
}

/// The disks. A write is on disk, and answered, when it was synced; what comes meanwhile is the next write, so that
/// one sync serves many.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// Half of the syncs take less.
    pub sync: Duration,
    /// Standard deviation of the logarithm of that time, which is normal.
    pub sync_sigma: f64,
    /// No sync takes longer, but on a slow disk.
    pub sync_max: Duration,
    /// Bytes written in a second, in addition to that.
    pub bytes_per_s: u64,
    /// What a read takes.
    pub read: Duration,
    /// This part of the nodes has a slow disk.
    pub slow_share: f64,
    /// On which everything takes so many times as long.
    pub slow_factor: f64,
    /// In this time a node reads all that it has stored once and compares it with what was written;
    /// zero: never, and damage is found at a start or when somebody asks for the record.
    pub verify: Duration,
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            // Guesses: a solid-state disk in a server.
            sync: Duration::from_millis(4),
            sync_sigma: 0.5,
            sync_max: Duration::from_millis(200),
            bytes_per_s: 200_000_000,
            read: Duration::from_micros(200),
            slow_share: 0.0,
            slow_factor: 20.0,
            verify: Duration::from_secs(10),
        }
    }
}
