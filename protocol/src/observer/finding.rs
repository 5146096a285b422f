//! Findings: what somebody did that it ought not to, said so that a person understands.

use std::fmt::{self, Display};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::compute::{JobId, TaskRef};
use crate::id::{Hash, MessageId, NodeId, Step};
use crate::refusal::Refusal;

/// Declares the kinds once: variant and code.
macro_rules! anomaly_kinds {
    ($($(#[$doc:meta])* $variant:ident => $code:literal;)*) => {
        /// The kinds of anomalies.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum AnomalyKind {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl AnomalyKind {
            /// All of them.
            pub const ALL: &[AnomalyKind] = &[$(AnomalyKind::$variant),*];

            /// The stable name.
            pub const fn code(self) -> &'static str {
                match self { $(AnomalyKind::$variant => $code),* }
            }

            /// The kind with this name.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.code() == code)
            }
        }
    };
}

anomaly_kinds! {
    /// A tag that does not fit the step's pattern.
    BadPattern => "bad_pattern";
    /// A signature that is not the author's.
    BadSignature => "bad_signature";
    /// A message that was seen before.
    Replay => "replay";
    /// A step before the window.
    StaleStep => "stale_step";
    /// A step after the window.
    FutureStep => "future_step";
    /// Two messages of one author with one sequence number.
    Equivocation => "equivocation";
    /// More than the limits allow.
    Flood => "flood";
    /// Nothing from one who should speak.
    Silence => "silence";
    /// Far slower than its like.
    Latency => "latency";
    /// Bytes that are no message.
    Malformed => "malformed";
    /// A result that the majority does not have.
    ResultMismatch => "result_mismatch";
    /// A message or a peer of another mesh.
    WrongMesh => "wrong_mesh";
    /// A clock that claims another time than the mesh's.
    StepDrift => "step_drift";
    /// A neighbour that brings nothing of what the others bring.
    NeverForwards => "never_forwards";
    /// One key in two places at once.
    DuplicateIdentity => "duplicate_identity";
    /// A signed accusation that does not hold.
    FalseAccusation => "false_accusation";
}

impl AnomalyKind {
    /// Its place in [`AnomalyKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What a refusal says about who brought the message; `None` if nothing.
    pub fn of(reason: Refusal) -> Option<Self> {
        Some(match reason {
            Refusal::TooLarge
            | Refusal::Truncated
            | Refusal::TrailingBytes
            | Refusal::TooDeep
            | Refusal::NotCanonical
            | Refusal::Malformed
            | Refusal::UnknownVersion
            | Refusal::WrongChannel
            | Refusal::WrongKind => AnomalyKind::Malformed,
            Refusal::WrongMesh => AnomalyKind::WrongMesh,
            Refusal::StaleStep => AnomalyKind::StaleStep,
            Refusal::FutureStep => AnomalyKind::FutureStep,
            Refusal::BadPattern => AnomalyKind::BadPattern,
            Refusal::Replay | Refusal::NotProvablyNew => AnomalyKind::Replay,
            Refusal::BadKey | Refusal::BadSignature => AnomalyKind::BadSignature,
            Refusal::NotSynchronised | Refusal::Quarantined => return None,
        })
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It happens to honest nodes too. Nothing is held against anybody.
    Info,
    /// It lowers this node's trust.
    Warning,
    /// It is proved to everybody.
    Critical,
}

/// Whom something is held against: a key, or a connected peer whose name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject<P> {
    /// A key.
    Node(NodeId),
    /// A peer without one, such as a stock gossipsub peer with an RSA key.
    Peer(P),
}

impl<P> Subject<P> {
    /// The key.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Subject::Node(node) => Some(*node),
            Subject::Peer(_) => None,
        }
    }
}

impl<P: Display> Display for Subject<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => Display::fmt(node, f),
            Subject::Peer(peer) => Display::fmt(peer, f),
        }
    }
}

/// What one accused did in one way, as far as this node has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which way.
    pub kind: AnomalyKind,
    /// Who: the text of a peer id.
    pub accused: String,
    /// Who says so: this node, or who sent the evidence.
    pub reporter: NodeId,
    /// When first.
    pub first_step: Step,
    /// When last.
    pub last_step: Step,
    /// How often.
    pub count: u64,
    /// How bad.
    pub severity: Severity,
    /// True if an honest peer cannot have done it.
    pub is_fault: bool,
    /// What proves it to anybody.
    pub evidence: Option<Hash>,
    /// The last one, for people.
    pub reason: String,
}

/// The last one of a kind, in numbers. Its text is made only when somebody reads it: under a flood of bad messages,
/// making it would cost several times as much as refusing them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// It brought a message that was refused.
    Refused {
        /// Why.
        reason: Refusal,
        /// Which.
        message: MessageId,
        /// Who wrote it, if that is proved.
        author: Option<NodeId>,
    },
    /// It sent bytes that are no frame.
    BadFrame {
        /// On which stream.
        stream: &'static str,
        /// The fault.
        reason: Box<str>,
    },
    /// It was not let in.
    NotAdmitted {
        /// A stable code.
        reason: &'static str,
    },
    /// More messages than the limit, as an author or as a bringer.
    Rate {
        /// `wrote`, `brought` or `brought in vain`.
        what: &'static str,
        /// The limit, in a second.
        per_second: u64,
    },
    /// Nothing for so long.
    Silent {
        /// How long, in milliseconds.
        for_ms: u64,
        /// What is usual for it.
        usual_ms: u64,
    },
    /// Slower than the others.
    Slow {
        /// How long its messages take.
        ms: u64,
        /// How long those of half the others take at most.
        median_ms: u64,
    },
    /// It brought nothing, as it is far away: whatever it has, this node has long had.
    Far {
        /// How long its answers take, in milliseconds; `None`: longer than any are waited for.
        ms: Option<u64>,
        /// How long those of half of the neighbours take at most.
        median_ms: u64,
    },
    /// It brought little of what there was.
    Withheld {
        /// Messages it brought or told of that others wrote.
        brought: u64,
        /// Messages that came, of others.
        of: u64,
        /// What half of the other neighbours brought at least, in percent.
        others_percent: u64,
    },
    /// Its clock is elsewhere.
    Drift {
        /// Ahead of the median of its like, in milliseconds.
        ahead_ms: i64,
    },
    /// It has signed another result for a task than others.
    WrongResult {
        /// Of which job.
        job: JobId,
        /// Which task.
        task: TaskRef,
        /// How many have signed the one that counts.
        others: usize,
    },
    /// It is connected from two hosts.
    Places {
        /// One.
        one: IpAddr,
        /// The other.
        other: IpAddr,
    },
    /// Somebody else uses this node's key.
    OwnKey {
        /// The message that this node did not write.
        message: MessageId,
    },
    /// Evidence says so.
    Proved {
        /// What it says.
        what: &'static str,
        /// Who sent it.
        by: NodeId,
    },
}

impl Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Refused { reason, message, author: Some(author) } => {
                write!(f, "it brought message {message} of {author}: {reason}")
            }
            Detail::Refused { reason, message, author: None } => {
                write!(f, "it brought message {message}: {reason}")
            }
            Detail::BadFrame { stream, reason } => {
                write!(f, "it sent a bad frame on its {stream} stream: {reason}")
            }
            Detail::NotAdmitted { reason } => write!(f, "it was not let in: {reason}"),
            Detail::Rate { what, per_second } => {
                write!(f, "it {what} more than {per_second} messages a second, for longer than a burst")
            }
            Detail::Silent { for_ms, usual_ms } => write!(
                f,
                "it has written nothing for {:.1} s; until now it wrote every {:.1} s",
                seconds(*for_ms),
                seconds(*usual_ms)
            ),
            Detail::Slow { ms, median_ms } => {
                write!(f, "its messages take {ms} ms, those of half of the others at most {median_ms} ms")
            }
            Detail::Far { ms: Some(ms), median_ms } => write!(
                f,
                "it brings nothing, and its answers take {ms} ms, those of half of the neighbours at most {median_ms} ms"
            ),
            Detail::Far { ms: None, median_ms } => write!(
                f,
                "it brings nothing, and does not answer in time; half of the neighbours take at most {median_ms} ms"
            ),
            Detail::Withheld { brought, of, others_percent } => write!(
                f,
                "it brought or offered {brought} of {of} messages of others; half of the other neighbours have \
                 {others_percent} % or more"
            ),
            Detail::Drift { ahead_ms } if *ahead_ms < 0 => {
                write!(f, "its clock has stayed {} ms behind those of the others", ahead_ms.unsigned_abs())
            }
            Detail::Drift { ahead_ms } => {
                write!(f, "its clock has stayed {ahead_ms} ms ahead of those of the others")
            }
            Detail::WrongResult { job, task, others } => write!(
                f,
                "it has signed another result for task {task} of job {job} than {others} others, who agree"
            ),
            Detail::Places { one, other } => write!(f, "it is connected from {one} and from {other} at once"),
            Detail::OwnKey { message } => {
                write!(f, "message {message} is signed with this node's key, and this node did not write it")
            }
            Detail::Proved { what, by } => write!(f, "{what}; the evidence came from {by}"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_docs() {
        let page = include_str!("../../../docs/observer.md");
        let seen = page.split("\n## ").find(|part| part.starts_with("What is seen")).expect("it is there");
        let cells: Vec<&str> =
            seen.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next()).collect();
        for kind in AnomalyKind::ALL {
            let name = format!("`{}`", kind.code());
            assert!(cells.iter().any(|cell| cell.contains(&name)), "{name} has no row under What is seen");
        }
    }

    #[test]
    fn codes_are_those_of_the_contract_and_found_again() {
        let contract = "bad_pattern bad_signature replay stale_step future_step equivocation flood silence latency \
                        malformed result_mismatch wrong_mesh";
        for code in contract.split(' ') {
            assert!(AnomalyKind::from_code(code).is_some(), "{code}");
        }
        for (index, kind) in AnomalyKind::ALL.iter().enumerate() {
            assert_eq!((kind.index(), AnomalyKind::from_code(kind.code())), (index, Some(*kind)));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.code());
        }
    }
}
