//! What survives a restart: evidence, quarantines and pardons, as keys and values that the shell keeps.
//!
//! ```text
//! key   = "e" | "q" | "p" ‖ node id (32 bytes)
//! value = e: CBOR [ 1, reporter: bytes(32), evidence: bytes ]
//!         q: CBOR [ 1, kind: text | null, evidence: bytes(32) | null, since, until | null, known: 0 | 1 ]
//!         p: CBOR [ 1, step ]
//! ```
//!
//! What cannot be read is left out, and named.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::Blob;
use crate::id::{Hash, NodeId, Step};

use super::finding::AnomalyKind;
use super::quarantine::Sentence;

const VERSION: u64 = 1;

/// One thing that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The evidence against somebody.
    Evidence {
        /// Who sent it, or this node.
        reporter: NodeId,
        /// In bytes.
        evidence: Bytes,
    },
    /// It is in quarantine.
    Quarantine(Sentence),
    /// All that it signed up to this step is pardoned.
    Pardon(Step),
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Evidence.
    Evidence,
    /// A quarantine.
    Quarantine,
    /// A pardon.
    Pardon,
}

/// The key of a part about `node`.
pub fn key(part: Part, node: &NodeId) -> Bytes {
    let letter = match part {
        Part::Evidence => b'e',
        Part::Quarantine => b'q',
        Part::Pardon => b'p',
    };
    [&[letter][..], node.as_bytes()].concat().into()
}

impl Saved {
    /// Key and value.
    pub fn to_entry(&self, node: &NodeId) -> (Bytes, Bytes) {
        let (part, value) = match self {
            Saved::Evidence { reporter, evidence } => {
                (Part::Evidence, serde_cbor::to_vec(&EvidenceWire(VERSION, *reporter, Blob(evidence))))
            }
            Saved::Quarantine(Sentence { kind, evidence, since, until, is_known }) => {
                let wire = SentenceWire(VERSION, *kind, *evidence, *since, *until, u8::from(*is_known));
                (Part::Quarantine, serde_cbor::to_vec(&wire))
            }
            Saved::Pardon(step) => (Part::Pardon, serde_cbor::to_vec(&(VERSION, step))),
        };
        (key(part, node), value.expect("writing numbers and bytes to memory does not fail").into())
    }

    /// Reads an entry; `None` if it is none.
    pub fn from_entry(key: &[u8], value: &Bytes) -> Option<(NodeId, Self)> {
        let (letter, node) = key.split_first()?;
        let node = NodeId::from_bytes(node.try_into().ok()?);
        let saved = match letter {
            b'e' => {
                let EvidenceWire(version, reporter, evidence) = serde_cbor::from_slice(value).ok()?;
                (version == VERSION)
                    .then(|| Saved::Evidence { reporter, evidence: value.slice_ref(evidence.0) })?
            }
            b'q' => {
                let SentenceWire(version, kind, evidence, since, until, known) =
                    serde_cbor::from_slice(value).ok()?;
                let sentence = Sentence { kind, evidence, since, until, is_known: known != 0 };
                (version == VERSION).then_some(Saved::Quarantine(sentence))?
            }
            b'p' => {
                let (version, step): (u64, Step) = serde_cbor::from_slice(value).ok()?;
                (version == VERSION).then_some(Saved::Pardon(step))?
            }
            _ => return None,
        };
        Some((node, saved))
    }
}

#[derive(Serialize, Deserialize)]
struct EvidenceWire<'a>(u64, NodeId, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct SentenceWire(u64, Option<AnomalyKind>, Option<Hash>, Step, Option<Step>, u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_left_out() {
        let node = NodeId::from_bytes([7; 32]);
        let sentence = |until| Sentence {
            kind: Some(AnomalyKind::Equivocation),
            evidence: Some(Hash::of(b"x")),
            since: Step(5),
            until,
            is_known: true,
        };
        let all = [
            Saved::Evidence {
                reporter: NodeId::from_bytes([1; 32]),
                evidence: Bytes::from_static(b"evidence"),
            },
            Saved::Quarantine(sentence(None)),
            Saved::Quarantine(sentence(Some(Step(9)))),
            Saved::Pardon(Step(77)),
        ];
        for saved in all {
            let (key, value) = saved.to_entry(&node);
            assert_eq!(Saved::from_entry(&key, &value), Some((node, saved)));
            for cut in 0..value.len() {
                assert_eq!(Saved::from_entry(&key, &value.slice(..cut)), None);
            }
            assert_eq!(Saved::from_entry(&key[1..], &value), None);
            assert_eq!(Saved::from_entry(b"", &value), None);
        }
    }
}
