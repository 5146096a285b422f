//! One budget of memory for the whole node, `limits.memory`, shared out to the parts that hold what others send.
//!
//! ```text
//!   limits.memory ─► parts that are set keep their value ─► the rest, by weight ─► parts that are not set
//!                                                              │
//!                                      every part has what it cannot do without, or the configuration is refused
//! ```
//!
//! What is shared out is what grows with what peers, clients and the mesh do. Code, threads and the libraries' own tables
//! are beside it: some tens of MiB, the same for every budget. So is the memory of tasks, which has a budget of its
//! own (`compute.memory_bytes`), and that of a checkpoint while it is opened (`checkpoints.bytes_max`).
//!
//! **Invariant.** The shares together are at most `limits.memory`.

use serde::{Deserialize, Serialize};

use super::Config;

/// The least that `limits.memory` may be: below it, not even one message has room in every part.
pub const MEMORY_MIN: usize = 32 << 20;

/// What every connection may hold, whatever the others do: buffers of its streams and of its encryption.
pub const CONNECTION_BYTES: usize = 64 << 10;

/// Connections for each of `network.peers_max`: two nodes may dial each other at the same moment.
pub const CONNECTIONS_PER_PEER: usize = 2;

/// An author in the replay windows (200 bytes) and in the log (400).
pub const AUTHOR_BYTES: usize = 600;
/// A member, with its addresses.
const MEMBER_BYTES: usize = 512;
/// A pattern in one of the caches.
const PATTERN_BYTES: usize = 128;
/// The largest messages that a queue or cache has room for, at least.
const MESSAGES_MIN: usize = 16;

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What connections hold that is not read yet, or is part of a frame.
    Connections,
    /// Frames that wait for the part of the node that they are for.
    Inbound,
    /// Frames that wait to be sent, of all peers together.
    Outbound,
    /// Messages that can be asked for, and those that wait for their verification.
    Cache,
    /// Messages, entries and events that wait for subscribers.
    Subscribers,
    /// Entries of the log that wait: to be written, for those before them, for an answer.
    Log,
    /// What the observer remembers, evidence included.
    Observer,
    /// Parts of blobs on their way to the disk.
    Blobs,
    /// Pages of the databases.
    Store,
    /// Authors, members, patterns, and ids of messages that were seen.
    Tables,
}

impl Part {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them.
    pub const ALL: [Part; Part::COUNT] = [
        Part::Connections,
        Part::Inbound,
        Part::Outbound,
        Part::Cache,
        Part::Subscribers,
        Part::Log,
        Part::Observer,
        Part::Blobs,
        Part::Store,
        Part::Tables,
    ];

    /// A word for metrics and people.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Connections => "connections",
            Part::Inbound => "inbound",
            Part::Outbound => "outbound",
            Part::Cache => "cache",
            Part::Subscribers => "subscribers",
            Part::Log => "log",
            Part::Observer => "observer",
            Part::Blobs => "blobs",
            Part::Store => "store",
            Part::Tables => "tables",
        }
    }

    /// Its share among the parts that are not set; together 100. Source: guesses, which give 1 GiB about the bounds
    /// that the parts had each for itself before there was a budget.
    const fn weight(self) -> u64 {
        match self {
            Part::Connections => 27,
            Part::Inbound => 12,
            Part::Outbound => 14,
            Part::Cache => 8,
            Part::Subscribers => 5,
            Part::Log => 6,
            Part::Observer => 8,
            Part::Blobs => 4,
            Part::Store => 4,
            Part::Tables => 12,
        }
    }

    /// The setting that fixes it, and its value if it does.
    fn set(self, config: &Config) -> Option<(&'static str, usize)> {
        let limits = &config.limits;
        let (name, value) = match self {
            Part::Inbound => ("limits.inbound_bytes", limits.inbound_bytes),
            Part::Outbound => ("limits.outbound_bytes_total", limits.outbound_bytes_total),
            Part::Cache => ("gossip.cache_bytes_max", config.gossip.cache_bytes_max),
            Part::Subscribers => ("limits.subscriber_bytes", limits.subscriber_bytes),
            _ => return None,
        };
        (value > 0).then_some((name, value))
    }

    /// What it cannot do without, the setting that makes it so, and one unit of that.
    fn least(self, config: &Config) -> (usize, &'static str, usize) {
        let message = config.gossip.message_bytes_max;
        let messages = (message.saturating_mul(MESSAGES_MIN), "gossip.message_bytes_max", MESSAGES_MIN);
        match self {
            Part::Connections => {
                let each = CONNECTION_BYTES * CONNECTIONS_PER_PEER;
                (config.network.peers_max.saturating_mul(each), "network.peers_max", each)
            }
            Part::Inbound | Part::Outbound | Part::Log => messages,
            Part::Cache | Part::Subscribers => (message.saturating_mul(4), "gossip.message_bytes_max", 4),
            Part::Tables => {
                let members = config.network.max_nodes.saturating_mul(MEMBER_BYTES);
                let patterns = config.node.cache_size.saturating_mul(2 * PATTERN_BYTES);
                let authors = config.node.authors_max.saturating_mul(AUTHOR_BYTES);
                let least = authors.saturating_add(members).saturating_add(patterns);
                (least, "node.authors_max", AUTHOR_BYTES)
            }
            Part::Observer => (2 << 20, "limits.memory", 1),
            Part::Blobs | Part::Store => (1 << 20, "limits.memory", 1),
        }
    }
}

/// How many bytes each part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    memory: usize,
    shares: [usize; Part::COUNT],
}

/// Why a budget cannot be shared out: two settings that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct Misfit {
    /// What is wrong, with the other setting and its value.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Budget {
    /// Shares out `limits.memory`.
    ///
    /// # Errors
    /// Says which settings do not fit together, with their values, and what would.
    pub fn of(config: &Config) -> Result<Budget, Misfit> {
        let memory = config.limits.memory;
        let set: Vec<_> = Part::ALL.iter().filter_map(|part| part.set(config)).collect();
        let taken = set.iter().fold(0_usize, |sum, (_, value)| sum.saturating_add(*value));
        let list =
            || set.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ");
        let Some(left) = memory.checked_sub(taken) else {
            return Err(Misfit {
                message: format!("less than the parts that are set: {}", list()),
                remedy: format!("use more than {taken}, lower them, or leave them to the budget with 0"),
            });
        };
        let weights: u64 = Part::ALL.iter().filter(|p| p.set(config).is_none()).map(|p| p.weight()).sum();
        let mut budget = Budget { memory, shares: [0; Part::COUNT] };
        for part in Part::ALL {
            let (least, because, unit) = part.least(config);
            let set = part.set(config);
            let share = set.map_or_else(|| portion(left, part.weight(), weights), |(_, value)| value);
            budget.shares[part as usize] = share;
            if share >= least {
                continue;
            }
            let name = part.name();
            let most = share / unit;
            return Err(match set {
                Some((setting, value)) => Misfit {
                    message: format!("{setting} = {value} is not enough for {because}, which needs {least}"),
                    remedy: format!("use at least {least} for {setting}, or 0 for a share of limits.memory"),
                },
                None => {
                    let needed = taken.saturating_add(whole(least, part.weight(), weights)).max(MEMORY_MIN);
                    let beside = if taken == 0 { String::new() } else { format!(", beside {}", list()) };
                    Misfit {
                        message: format!(
                            "{name} get {share} of it{beside}, and {because} needs {least} there"
                        ),
                        remedy: format!(
                            "use at least {needed}, or lower {because} (to about {most} at most)"
                        ),
                    }
                }
            });
        }
        Ok(budget)
    }

    /// The whole, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// What a part has, in bytes.
    pub fn share(&self, part: Part) -> usize {
        self.shares[part as usize]
    }
}

/// `weight / weights` of `whole`, rounded down.
fn portion(whole: usize, weight: u64, weights: u64) -> usize {
    let share = whole as u128 * u128::from(weight) / u128::from(weights.max(1));
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// Of what `share` is that portion at least.
fn whole(share: usize, weight: u64, weights: u64) -> usize {
    let whole = (share as u128 * u128::from(weights)).div_ceil(u128::from(weight.max(1)));
    usize::try_from(whole).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl FnOnce(&mut Config)) -> Result<Budget, Misfit> {
        let mut config = Config::default();
        change(&mut config);
        Budget::of(&config)
    }

    fn sum(budget: &Budget) -> usize {
        Part::ALL.iter().map(|part| budget.share(*part)).sum()
    }

    #[test]
    fn the_weights_are_percent() {
        assert_eq!(Part::ALL.iter().map(|part| part.weight()).sum::<u64>(), 100);
        for (at, part) in Part::ALL.iter().enumerate() {
            assert_eq!(*part as usize, at);
        }
    }

    #[test]
    fn all_is_shared_out_and_never_more() {
        for memory in [1 << 30, (1 << 30) + 7, 3 << 30, 700_000_001] {
            let budget = of(|c| c.limits.memory = memory).unwrap();
            let sum = sum(&budget);
            assert!(sum <= memory && memory - sum < Part::COUNT, "{sum} of {memory}");
        }
    }

    #[test]
    fn what_is_set_keeps_its_value_and_the_others_share_the_rest() {
        let set = |c: &mut Config| {
            (c.gossip.cache_bytes_max, c.limits.outbound_bytes_total) = (200 << 20, 100 << 20);
        };
        let (plain, budget) = (of(|_| {}).unwrap(), of(set).unwrap());
        assert_eq!(budget.share(Part::Cache), 200 << 20);
        assert_eq!(budget.share(Part::Outbound), 100 << 20);
        assert!(sum(&budget) <= budget.memory());
        assert!(budget.share(Part::Connections) < plain.share(Part::Connections));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_settings_and_a_way_out() {
        let error = of(|c| c.gossip.cache_bytes_max = 2 << 30).unwrap_err().to_string();
        assert!(error.contains("gossip.cache_bytes_max = 2147483648"), "{error}");
        let error = of(|c| c.network.peers_max = 10_000).unwrap_err().to_string();
        assert!(error.contains("connections get") && error.contains("network.peers_max"), "{error}");
        let error = of(|c| c.limits.subscriber_bytes = 1000).unwrap_err().to_string();
        assert!(error.contains("limits.subscriber_bytes = 1000 is not enough"), "{error}");
    }

    #[test]
    fn the_remedies_are_enough_and_no_more_than_that() {
        let small = |memory: usize, authors: usize, peers: usize| {
            of(|c| (c.limits.memory, c.node.authors_max, c.network.peers_max) = (memory, authors, peers))
        };
        let error = small(64 << 20, 65_536, 32).unwrap_err().to_string();
        let number = |after: &str| {
            let text = error.split(after).nth(1).unwrap_or_else(|| panic!("{error}"));
            text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap()
        };
        let needed = number("use at least ");
        assert!(small(needed, 65_536, 32).is_ok() && small(needed - 100, 65_536, 32).is_err(), "{error}");
        // Members and patterns are in the same part, so that it is a little less.
        assert!(small(64 << 20, number("(to about ") - 4096, 32).is_ok(), "{error}");
        assert!(small(MEMORY_MIN, 1000, 16).is_ok());
    }
}
