//! What goes in and what comes out.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use foca::PeriodicParams;
use serde::Serialize;

use super::health::HealthCause;
use super::wire::PACKET_BYTES_MAX;
use crate::id::{NodeId, Step};
use crate::time::Time;

/// Times and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// One member is probed in each period. 1 s: Hashicorp memberlist's LAN default. Shorter finds the dead
    /// sooner and costs packets.
    pub probe_period: Duration,
    /// How long a direct answer may take before others are asked to probe; less than half of the period, so that they
    /// have time. 400 ms: the longest round trips on earth and some. Too short costs packets only.
    pub probe_rtt: Duration,
    /// How long a suspect has to answer. 4 s: memberlist's LAN default for up to ten members (4 periods).
    /// Too short declares slow nodes dead, too long keeps the dead on the list.
    pub suspect_to_down: Duration,
    /// When a dead or gone member is forgotten. 24 h: foca's default. Until then it is knocked at.
    pub forget_after: Duration,
    /// How often the dead are knocked at. 5 s (guess): islands find each other in seconds, for one small
    /// packet each second or so.
    pub knock_period: Duration,
    /// A timer that comes later than this makes the node doubt itself. 250 ms (guess): no scheduler delays a
    /// healthy process by that much.
    pub late_after: Duration,
    /// Most members, dead ones and all. 4,096 (guess): some 2 MiB at worst. Too low and newcomers are refused.
    pub members_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(400),
            suspect_to_down: Duration::from_secs(4),
            forget_after: Duration::from_secs(24 * 60 * 60),
            knock_period: Duration::from_secs(5),
            late_after: Duration::from_millis(250),
            members_max: 4096,
        }
    }
}

/// The configuration cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Indirect probes would have no time.
    #[error("probe_rtt must be above zero and below half of probe_period")]
    ProbeRtt,
    /// A period or bound of zero.
    #[error("suspect_to_down, knock_period and members_max must be above zero")]
    Zero,
}

impl Config {
    /// Checks what the docs of the fields demand.
    ///
    /// # Errors
    /// Names the fields that are wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.probe_rtt.is_zero() || self.probe_rtt >= self.probe_period / 2 {
            return Err(ConfigError::ProbeRtt);
        }
        if self.suspect_to_down.is_zero() || self.knock_period.is_zero() || self.members_max == 0 {
            return Err(ConfigError::Zero);
        }
        Ok(())
    }

    pub(super) fn swim(&self) -> foca::Config {
        const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: THREE,
            // memberlist: 4 * log10(n + 1), which is 12 for a thousand members.
            max_transmissions: const { NonZeroU8::new(12).unwrap() },
            suspect_to_down_after: self.suspect_to_down,
            // Forgetting is done here, where the number of timers is bounded.
            remove_down_after: None,
            max_packet_size: const { NonZeroUsize::new(PACKET_BYTES_MAX).unwrap() },
            notify_down_members: true,
            periodic_announce: Some(PeriodicParams {
                frequency: Duration::from_secs(15),
                num_members: NonZeroUsize::MIN,
            }),
            // Knocking does it, also when nobody is left alive.
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(PeriodicParams {
                frequency: Duration::from_millis(300),
                num_members: THREE,
            }),
        }
    }
}

/// What happens to membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An admitted peer is connected, and these are its addresses as far as they are known.
    Connected {
        /// Who.
        peer: NodeId,
        /// Shown until the peer tells its own.
        addresses: Vec<String>,
    },
    /// The connection is gone. Says nothing about the peer's life.
    Disconnected {
        /// Who.
        peer: NodeId,
    },
    /// A packet of an admitted peer.
    Packet {
        /// Who sent it, as the transport authenticated it.
        from: NodeId,
        /// The bytes.
        bytes: Bytes,
    },
    /// A timer that was asked for.
    Timer(Timer),
    /// This node's own addresses changed.
    Addresses(Vec<String>),
    /// This node leaves; afterwards it does nothing.
    Leave,
    /// What this peer says of others is to be ignored.
    Quarantine {
        /// Who.
        peer: NodeId,
    },
    /// The end of a quarantine.
    Lift {
        /// Who.
        peer: NodeId,
    },
    /// A member, or this node itself, was heard to be at this step.
    Claim {
        /// Who.
        peer: NodeId,
        /// The step.
        step: Step,
    },
    /// Something came directly from this peer just now.
    Seen {
        /// Who.
        peer: NodeId,
    },
    /// The round trip to this peer was measured.
    Rtt {
        /// Who.
        peer: NodeId,
        /// How long it took.
        rtt: Duration,
    },
}

/// The one timer that is pending; an older one does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    pub(super) token: u64,
}

/// Why a member is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpCause {
    /// It was not known before.
    Joined,
    /// It had been dead or gone.
    Returned,
    /// It was up and started anew, or has new addresses.
    Changed,
}

/// What membership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this packet to a peer that may not be connected.
    Send {
        /// To whom.
        to: NodeId,
        /// At most [`PACKET_BYTES_MAX`] bytes.
        packet: Bytes,
    },
    /// Give back this timer at this moment.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
    /// A member is up.
    MemberUp {
        /// Who.
        peer: NodeId,
        /// Where.
        addresses: Vec<String>,
        /// Why.
        cause: UpCause,
    },
    /// A member did not answer somebody's probe.
    MemberSuspect {
        /// Who.
        peer: NodeId,
    },
    /// A suspect turned out to be alive.
    MemberRefuted {
        /// Who.
        peer: NodeId,
    },
    /// A member is dead.
    MemberDown {
        /// Who.
        peer: NodeId,
    },
    /// A member went of its own will.
    MemberLeft {
        /// Who.
        peer: NodeId,
    },
    /// This node was held for dead and took a new life.
    Rejoined {
        /// The new life.
        generation: u64,
    },
    /// For the log.
    Event(Event),
}

/// What an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node began or ceased to doubt itself.
    LocalHealth {
        /// 0 is healthy, [`HEALTH_MAX`](super::HEALTH_MAX) the worst.
        score: u8,
        /// Why.
        cause: HealthCause,
    },
    /// Something of a peer's packet was refused.
    Refused {
        /// Whose.
        from: NodeId,
        /// Why.
        reason: Refusal,
    },
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The packet is longer than [`PACKET_BYTES_MAX`].
    TooLong,
    /// The bytes are not a packet.
    Malformed,
    /// It names another node as its sender.
    NotTheSender,
    /// It comes from this node itself.
    FromOurselves,
    /// It tells of a life that only its owner could be believed.
    Implausible,
    /// There is no room for another member.
    Full,
    /// It wants us to probe somebody we do not know.
    UnknownTarget,
    /// SWIM found it out of place.
    OutOfPlace,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its key.
    pub node: NodeId,
    /// Which of its lives this is; higher than any before. The shell gives Unix milliseconds.
    pub generation: u64,
    /// Where it can be reached; the first [`ADDRESSES_MAX`](super::ADDRESSES_MAX) count.
    pub addresses: Vec<String>,
}
