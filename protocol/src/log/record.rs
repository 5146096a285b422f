//! Records, entries and heads: the words of the log.

use std::sync::{Arc, LazyLock};

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use bytes::Bytes;

use crate::envelope::{Channel, Envelope, Header, Kind};
use crate::id::{Hash, MeshId, NodeId, Seq, Step};

/// The name of the gossip channel on which all durable envelopes travel, whatever their category.
pub const CHANNEL: &str = "_log";
/// What the hash of an entry that is not its record's last is derived with.
const ENTRY_CONTEXT: &str = "omnimesh/1/entry";
/// The same, hashed: it is needed for every entry.
static ENTRY_KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(ENTRY_CONTEXT));
/// What the hash of a head in a fingerprint is derived with.
const HEAD_CONTEXT: &str = "omnimesh 2026-11 log head";
/// Bytes of a head on the wire whose log is not frozen.
const HEAD_BYTES: usize = 32 + 8 + 32;
/// Bytes of a head on the wire whose log is frozen.
const FROZEN_HEAD_BYTES: usize = HEAD_BYTES + 32;

/// One durable envelope: what is stored, gossiped and fetched as a whole. It holds one or more entries. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    envelope: Envelope,
    digest: Hash,
}

/// One payload of a record, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose log it is in.
    pub author: NodeId,
    /// Its place there, from 1 on.
    pub seq: Seq,
    /// The hash of the author's entry before it; `None` for the first.
    pub prev: Option<Hash>,
    /// Its hash: [`Record::entry_hash`].
    pub hash: Hash,
    /// The mesh's step when it was written.
    pub step: Step,
    /// Who is meant to read it.
    pub category: Channel,
    /// The author's mesh time when it was written, in microseconds.
    pub timestamp_us: Option<u64>,
    /// What it says.
    pub data: Bytes,
}

impl Record {
    /// The record in a durable envelope; `None` of any other, and of one that begins a log and names a
    /// predecessor or the other way round. Whether to believe the envelope was for others to judge.
    pub fn new(envelope: Envelope) -> Option<Self> {
        Self::is_record(envelope.header())
            .then(|| Record(Arc::new(Inner { digest: envelope.digest(), envelope })))
    }

    pub(crate) fn is_record(header: &Header) -> bool {
        let is_first = header.seq == Seq(1);
        header.kind == Kind::Durable && header.prev.is_none() == is_first
    }

    /// The envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }

    /// The bytes to be stored and sent, as received or as sealed.
    pub fn as_bytes(&self) -> &Bytes {
        self.0.envelope.as_bytes()
    }

    /// The mesh it is for.
    pub fn mesh(&self) -> MeshId {
        self.0.envelope.header().mesh
    }

    /// Who wrote it.
    pub fn author(&self) -> NodeId {
        self.0.envelope.header().author
    }

    /// The sequence number of its first entry.
    pub fn first(&self) -> Seq {
        self.0.envelope.header().seq
    }

    /// The sequence number of its last entry.
    pub fn last(&self) -> Seq {
        self.first().saturating_add(self.entries() - 1)
    }

    /// How many entries it has, at least one.
    pub fn entries(&self) -> u64 {
        self.0.envelope.payloads().len() as u64
    }

    /// The digest of the author's record before it; `None` for the first.
    pub fn prev(&self) -> Option<Hash> {
        self.0.envelope.header().prev
    }

    /// The mesh's step when it was written.
    pub fn step(&self) -> Step {
        self.0.envelope.header().step
    }

    /// Who is meant to read it.
    pub fn category(&self) -> &Channel {
        &self.0.envelope.header().channel
    }

    /// The hash of its signed bytes, which the author's next record names.
    pub fn digest(&self) -> Hash {
        self.0.digest
    }

    /// The hash of entry `index`: the record's digest for the last, and for an earlier one
    /// `derive_key("omnimesh/1/entry", digest ‖ LE64(index))`. So the chain of records is a chain of entries too.
    pub fn entry_hash(&self, index: u64) -> Hash {
        if index.saturating_add(1) >= self.entries() {
            return self.0.digest;
        }
        let mut hasher = blake3::Hasher::new_from_context_key(&ENTRY_KEY);
        hasher.update(self.0.digest.as_bytes()).update(&index.to_le_bytes());
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Its entries, in order.
    pub fn to_entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let header = self.0.envelope.header();
        let mut before = header.prev;
        (0_u64..).zip(self.0.envelope.payloads()).map(move |(index, payload)| {
            let hash = self.entry_hash(index);
            Entry {
                author: header.author,
                seq: header.seq.saturating_add(index),
                prev: before.replace(hash),
                hash,
                step: header.step,
                category: header.channel.clone(),
                timestamp_us: header.timestamp_us,
                data: payload.clone(),
            }
        })
    }

    /// The head of a log that ends with this record.
    pub fn head(&self) -> Head {
        Head { seq: self.last(), digest: self.0.digest }
    }

    /// True if the two have a sequence number in common.
    pub fn overlaps(&self, other: &Record) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// True if `seq` is one of its entries'.
    pub fn covers(&self, seq: Seq) -> bool {
        self.first() <= seq && seq <= self.last()
    }
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// The sequence number of its last entry; 0 of an empty log.
    pub seq: Seq,
    /// The digest of its last record; zeros of an empty log.
    pub digest: Hash,
}

impl Head {
    /// The head of an empty log.
    pub const EMPTY: Head = Head { seq: Seq(0), digest: Hash::from_bytes([0; 32]) };

    /// What the next record has to name as its predecessor.
    pub fn as_prev(&self) -> Option<Hash> {
        (self.seq > Seq(0)).then_some(self.digest)
    }
}

/// What a node says of one author's log: where it ends, and which proof froze it. The unit of reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorHead {
    /// Whose log.
    pub author: NodeId,
    /// Where it ends.
    pub head: Head,
    /// [`Proof::id`](super::Proof::id) of the proof that froze it; `None` of a log that goes on.
    pub proof: Option<Hash>,
}

impl AuthorHead {
    /// `author ‖ LE64(seq) ‖ digest`, and `‖ proof` if the log is frozen.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FROZEN_HEAD_BYTES);
        bytes.extend(self.author.as_bytes());
        bytes.extend(self.head.seq.0.to_le_bytes());
        bytes.extend(self.head.digest.as_bytes());
        bytes.extend(self.proof.iter().flat_map(|proof| proof.as_bytes()));
        bytes
    }

    /// Reads what [`Self::to_wire`] wrote; `None` of anything else.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let (author, rest) = bytes.split_first_chunk::<32>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let proof = match rest {
            [] => None,
            rest => Some(Hash::from_bytes(rest.try_into().ok()?)),
        };
        let head = Head { seq: Seq(u64::from_le_bytes(*seq)), digest: Hash::from_bytes(*digest) };
        // No log is empty but one that is frozen from its first entry on, and that has one head only.
        let is_head = if head.seq == Seq(0) {
            proof.is_some() && head == Head::EMPTY
        } else {
            head.seq < Seq(u64::MAX)
        };
        is_head.then(|| AuthorHead { author: NodeId::from_bytes(*author), head, proof })
    }

    /// What it adds to a fingerprint.
    pub(super) fn hash(&self) -> [u8; 32] {
        blake3::derive_key(HEAD_CONTEXT, &self.to_wire())
    }
}
