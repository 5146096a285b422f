//! Frames of the log stream: what two nodes say to each other about logs.
//!
//! Between two members there is one long-lived stream in each direction under [`protocol_name`], as for the control
//! stream: an unsigned varint with its length before each frame. Frames carry no signature of their own: the transport has
//! authenticated the peer, records and proofs are signed by their authors, and a head is only ever a reason to ask.
//!
//! A frame is one array in canonical CBOR (see [`crate::shape`]): its kind, then its fields in this order.
//!
//! | kind | frame    | fields                                                                             |
//! |------|----------|------------------------------------------------------------------------------------|
//! | 0    | Compare  | round: uint · ranges: array of `[lower: bytes, upper: bytes or null, fingerprint: bytes(16) or heads: array of bytes]` |
//! | 1    | Heads    | heads: array of bytes                                                               |
//! | 2    | Fetch    | id: uint · author: bytes(32) · from: uint · to: uint · bytes: uint                  |
//! | 3    | Records  | id: uint · next: uint · records: array of bytes                                     |
//! | 4    | Decline  | id: uint · reason: uint · seq: uint                                                 |
//! | 5    | Find     | id: uint · author: bytes(32) · seq: uint                                            |
//! | 6    | AskProof | author: bytes(32)                                                                   |
//! | 7    | Proof    | proof: bytes                                                                        |
//! | 8    | AskHead  | author: bytes(32)                                                                   |
//! | 9    | HeadOf   | author: bytes(32) · head: bytes or null                                             |
//! | 10   | AskCheckpoint | author: bytes(32) · seq: uint                                                  |
//! | 11   | Offer    | sealed: bytes or null                                                               |
//! | 12   | Votes    | step: uint · checkpoint: bytes(32) · votes: array of bytes(96)                      |
//! | 13   | AskChunk | id: uint · checkpoint: bytes(32) · part: uint · index: uint                         |
//! | 14   | Chunk    | id: uint · chunk: bytes                                                             |
//!
//! A head is the bytes of [`AuthorHead::to_wire`], a sealed checkpoint those of [`Sealed::encode`]. A frame of an unknown kind is dropped; every other fault is one of
//! a broken or hostile peer.

use bytes::Bytes;

use crate::id::{Hash, MeshId, NodeId, Seq, Step};
use crate::shape;

use super::checkpoint::{Sealed, VOTES_MAX, Vote};
use super::proof::proof_bytes_max;
use super::reconcile::{Content, FINGERPRINT_BYTES, Range};
use super::record::AuthorHead;

/// Bytes of records that a node gives in one answer, at most, unless a single record is longer.
pub const SERVE_BYTES_MAX: usize = 256 << 10;
/// Ranges in one frame of comparison, at most. Far above what fits our own.
pub const RANGES_MAX: u64 = 8192;
/// Heads in one frame, at most.
pub const HEADS_MAX: u64 = 8192;
/// Records in one frame, at most: the smallest have some 240 bytes.
pub const RECORDS_MAX: u64 = 4096;

/// The name under which the log streams of this mesh are negotiated.
pub fn protocol_name(mesh: MeshId) -> String {
    format!("/omnimesh/1/{mesh}/log")
}

/// The longest frame where envelopes have at most `message_bytes_max` bytes; the shell refuses a longer one by its length.
pub const fn frame_bytes_max(message_bytes_max: usize) -> usize {
    proof_bytes_max(message_bytes_max).saturating_add(SERVE_BYTES_MAX + 4096)
}

/// Why a peer does not answer with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decline {
    /// 0: it does not have them.
    Missing,
    /// 1: it answers as many requests as it can; ask later.
    Busy,
    /// 2: it has truncated them; `seq` is its first entry of that author.
    Truncated,
    /// Any other code: one of a later version.
    Other(u64),
}

impl Decline {
    const fn code(self) -> u64 {
        match self {
            Decline::Missing => 0,
            Decline::Busy => 1,
            Decline::Truncated => 2,
            Decline::Other(code) => code,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            0 => Decline::Missing,
            1 => Decline::Busy,
            2 => Decline::Truncated,
            code => Decline::Other(code),
        }
    }
}

/// One message on a log stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What the sender has in these ranges of authors. Answered by one with the same round, unless it has no ranges.
    Compare {
        /// Of the node that began it.
        round: u64,
        /// Ascending, without overlap.
        ranges: Vec<Range>,
    },
    /// Heads on the sender's disk that may be news to the receiver. Not answered.
    Heads(Vec<AuthorHead>),
    /// Asks for the records of an author whose first sequence number is in `from..=to`.
    Fetch {
        /// Comes back in the answer.
        id: u64,
        /// Whose.
        author: NodeId,
        /// From here.
        from: Seq,
        /// To here.
        to: Seq,
        /// No more than so many bytes of records, unless the first alone has more.
        bytes_max: u64,
    },
    /// Answers `Fetch` and `Find`.
    Records {
        /// That of the request.
        id: u64,
        /// Where to go on: the records before it that were asked for are all in this frame.
        next: Seq,
        /// Envelopes, in order.
        records: Vec<Bytes>,
    },
    /// Answers `Fetch`, `Find` and `AskChunk` with nothing.
    Decline {
        /// That of the request.
        id: u64,
        /// Why.
        reason: Decline,
        /// See the reason.
        seq: Seq,
    },
    /// Asks for the one record of an author that covers `seq`.
    Find {
        /// Comes back in the answer.
        id: u64,
        /// Whose.
        author: NodeId,
        /// What it covers.
        seq: Seq,
    },
    /// Asks for the proof that froze an author's log. Answered by `Proof` if there is one.
    AskProof(NodeId),
    /// A proof of equivocation.
    Proof(Bytes),
    /// Asks where an author's log ends.
    AskHead(NodeId),
    /// Answers `AskHead`.
    HeadOf {
        /// Whose log.
        author: NodeId,
        /// Where it ends here; `None` if there is nothing of it.
        head: Option<AuthorHead>,
    },
    /// Asks for a sealed checkpoint that covers an entry. Answered by `Offer`.
    AskCheckpoint {
        /// Whose entry.
        author: NodeId,
        /// Which.
        seq: Seq,
    },
    /// The newest sealed checkpoint that covers it and that the sender holds whole, if any.
    Offer(Option<Sealed>),
    /// Signatures of a checkpoint, the sender's own and others'.
    Votes {
        /// The step of the checkpoint.
        step: Step,
        /// Its id.
        checkpoint: Hash,
        /// Who has signed it.
        votes: Vec<Vote>,
    },
    /// Asks for a chunk of a part of a checkpoint. Answered by `Chunk` or `Decline`.
    AskChunk {
        /// Comes back in the answer.
        id: u64,
        /// Which checkpoint.
        checkpoint: Hash,
        /// Which part.
        part: u64,
        /// Which chunk of it.
        index: u64,
    },
    /// Answers `AskChunk`.
    Chunk {
        /// That of the request.
        id: u64,
        /// The bytes.
        bytes: Bytes,
    },
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not exactly as a frame has to be.
    #[error("malformed frame of the log")]
    Malformed,
    /// A kind of a later version. Nobody's fault.
    #[error("unknown kind of log frame: {0}")]
    UnknownKind(u64),
}

const COMPARE: u64 = 0;
const HEADS: u64 = 1;
const FETCH: u64 = 2;
const RECORDS: u64 = 3;
const DECLINE: u64 = 4;
const FIND: u64 = 5;
const ASK_PROOF: u64 = 6;
const PROOF: u64 = 7;
const ASK_HEAD: u64 = 8;
const HEAD_OF: u64 = 9;
const ASK_CHECKPOINT: u64 = 10;
const OFFER: u64 = 11;
const VOTES: u64 = 12;
const ASK_CHUNK: u64 = 13;
const CHUNK: u64 = 14;

impl Frame {
    /// The bytes of the frame, without the length before it.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        match self {
            Frame::Compare { round, ranges } => {
                out.open(3).uint(COMPARE).uint(*round).open(ranges.len());
                ranges.iter().for_each(|range| out.range(range));
            }
            Frame::Heads(heads) => {
                out.open(2).uint(HEADS);
                out.heads(heads);
            }
            Frame::Fetch { id, author, from, to, bytes_max } => {
                out.open(6).uint(FETCH).uint(*id).bytes(author.as_bytes());
                out.uint(from.0).uint(to.0).uint(*bytes_max);
            }
            Frame::Records { id, next, records } => {
                out.0.reserve(records.iter().map(|record| record.len() + 5).sum::<usize>() + 32);
                out.open(4).uint(RECORDS).uint(*id).uint(next.0).open(records.len());
                for record in records {
                    out.bytes(record);
                }
            }
            Frame::Decline { id, reason, seq } => {
                out.open(4).uint(DECLINE).uint(*id).uint(reason.code()).uint(seq.0);
            }
            Frame::Find { id, author, seq } => {
                out.open(4).uint(FIND).uint(*id).bytes(author.as_bytes()).uint(seq.0);
            }
            Frame::AskProof(author) => {
                out.open(2).uint(ASK_PROOF).bytes(author.as_bytes());
            }
            Frame::Proof(proof) => {
                out.open(2).uint(PROOF).bytes(proof);
            }
            Frame::AskHead(author) => {
                out.open(2).uint(ASK_HEAD).bytes(author.as_bytes());
            }
            Frame::HeadOf { author, head } => {
                out.open(3).uint(HEAD_OF).bytes(author.as_bytes());
                match head {
                    Some(head) => out.bytes(&head.to_wire()),
                    None => out.null(),
                };
            }
            Frame::AskCheckpoint { author, seq } => {
                out.open(3).uint(ASK_CHECKPOINT).bytes(author.as_bytes()).uint(seq.0);
            }
            Frame::Offer(sealed) => {
                out.open(2).uint(OFFER);
                match sealed {
                    Some(sealed) => out.bytes(&sealed.encode()),
                    None => out.null(),
                };
            }
            Frame::Votes { step, checkpoint, votes } => {
                out.open(4).uint(VOTES).uint(step.0).bytes(checkpoint.as_bytes()).open(votes.len());
                for vote in votes {
                    out.bytes(&vote.to_wire());
                }
            }
            Frame::AskChunk { id, checkpoint, part, index } => {
                out.open(5).uint(ASK_CHUNK).uint(*id).bytes(checkpoint.as_bytes()).uint(*part).uint(*index);
            }
            Frame::Chunk { id, bytes } => drop(out.open(3).uint(CHUNK).uint(*id).bytes(bytes)),
        }
        out.finish()
    }

    /// Reads the bytes of one frame. Records are slices of them.
    ///
    /// # Errors
    /// Says whether the peer is to blame. Memory stays bounded by the bytes given.
    pub fn decode(bytes: &Bytes) -> Result<Frame, DecodeError> {
        shape::check(bytes).map_err(|_| DecodeError::Malformed)?;
        let kind = shape::first_unsigned(bytes).ok_or(DecodeError::Malformed)?;
        if kind > CHUNK {
            return Err(DecodeError::UnknownKind(kind));
        }
        let mut reader = Reader::new(bytes);
        reader.frame().filter(|_| reader.rest.is_empty()).ok_or(DecodeError::Malformed)
    }
}

const UINT: u8 = 0;
const BYTES: u8 = 2;
const ARRAY: u8 = 4;
const NULL: u8 = 0xf6;

/// Writes items in canonical CBOR.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, kind: u8, value: u64) -> &mut Self {
        let kind = kind << 5;
        // In a reader's eyes there is one form only: the shortest.
        match value {
            0..24 => self.0.push(kind | value.to_le_bytes()[0]),
            24..0x100 => self.0.extend([kind | 24, value.to_le_bytes()[0]]),
            0x100..0x1_0000 => {
                self.0.push(kind | 25);
                self.0.extend(&value.to_be_bytes()[6..]);
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(kind | 26);
                self.0.extend(&value.to_be_bytes()[4..]);
            }
            _ => {
                self.0.push(kind | 27);
                self.0.extend(value.to_be_bytes());
            }
        }
        self
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.into()
    }

    pub(super) fn open(&mut self, items: usize) -> &mut Self {
        self.head(ARRAY, items as u64)
    }

    pub(super) fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UINT, value)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(BYTES, bytes.len() as u64).0.extend(bytes);
        self
    }

    fn null(&mut self) -> &mut Self {
        self.0.push(NULL);
        self
    }

    fn heads(&mut self, heads: &[AuthorHead]) {
        self.open(heads.len());
        for head in heads {
            self.bytes(&head.to_wire());
        }
    }

    fn range(&mut self, range: &Range) {
        self.open(3).bytes(&range.lower);
        match &range.upper {
            Some(upper) => self.bytes(upper),
            None => self.null(),
        };
        match &range.content {
            Content::Fingerprint(fingerprint) => drop(self.bytes(fingerprint)),
            Content::Heads(heads) => self.heads(heads),
        }
    }
}

/// Reads items of a document whose shape is good.
pub(super) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a Bytes) -> Self {
        Reader { whole, rest: whole }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn head(&mut self, kind: u8) -> Option<u64> {
        let (&first, after) = self.rest.split_first()?;
        if first >> 5 != kind {
            return None;
        }
        let (value, after) = shape::argument(first, after).ok()?;
        self.rest = after;
        Some(value)
    }

    pub(super) fn uint(&mut self) -> Option<u64> {
        self.head(UINT)
    }

    pub(super) fn seq(&mut self) -> Option<Seq> {
        self.uint().map(Seq)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.head(BYTES)?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn is_null(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&NULL, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn next_is_bytes(&self) -> bool {
        self.rest.first().is_some_and(|first| first >> 5 == BYTES)
    }

    pub(super) fn array(&mut self, items_max: u64) -> Option<u64> {
        self.head(ARRAY).filter(|items| *items <= items_max)
    }

    pub(super) fn author(&mut self) -> Option<NodeId> {
        Some(NodeId::from_bytes(self.bytes()?.try_into().ok()?))
    }

    pub(super) fn hash(&mut self) -> Option<Hash> {
        Some(Hash::from_bytes(self.bytes()?.try_into().ok()?))
    }

    pub(super) fn votes(&mut self) -> Option<Vec<Vote>> {
        (0..self.array(VOTES_MAX as u64)?).map(|_| Vote::from_wire(self.bytes()?)).collect()
    }

    fn author_head(&mut self) -> Option<AuthorHead> {
        AuthorHead::from_wire(self.bytes()?)
    }

    fn heads(&mut self) -> Option<Vec<AuthorHead>> {
        (0..self.array(HEADS_MAX)?).map(|_| self.author_head()).collect()
    }

    fn range(&mut self) -> Option<Range> {
        self.array(3).filter(|items| *items == 3)?;
        let lower = self.bytes()?.into();
        let upper = if self.is_null() { None } else { Some(self.bytes()?.into()) };
        let content = if self.next_is_bytes() {
            let fingerprint: [u8; FINGERPRINT_BYTES] = self.bytes()?.try_into().ok()?;
            Content::Fingerprint(fingerprint)
        } else {
            Content::Heads(self.heads()?)
        };
        Some(Range { lower, upper, content }).filter(Range::is_good)
    }

    fn ranges(&mut self) -> Option<Vec<Range>> {
        let ranges: Vec<Range> = (0..self.array(RANGES_MAX)?).map(|_| self.range()).collect::<Option<_>>()?;
        let in_order = ranges.windows(2).all(|pair| match pair {
            [one, next] => one.upper.as_ref().is_some_and(|upper| *upper <= next.lower),
            _ => true,
        });
        in_order.then_some(ranges)
    }

    fn frame(&mut self) -> Option<Frame> {
        let items = self.array(6)?;
        let kind = self.uint()?;
        let expected = match kind {
            HEADS | ASK_PROOF | PROOF | ASK_HEAD | OFFER => 2,
            COMPARE | HEAD_OF | ASK_CHECKPOINT | CHUNK => 3,
            RECORDS | DECLINE | FIND | VOTES => 4,
            ASK_CHUNK => 5,
            _ => 6,
        };
        if items != expected {
            return None;
        }
        Some(match kind {
            COMPARE => Frame::Compare { round: self.uint()?, ranges: self.ranges()? },
            HEADS => Frame::Heads(self.heads()?),
            FETCH => Frame::Fetch {
                id: self.uint()?,
                author: self.author()?,
                from: self.seq()?,
                to: self.seq()?,
                bytes_max: self.uint()?,
            },
            RECORDS => Frame::Records {
                id: self.uint()?,
                next: self.seq()?,
                records: (0..self.array(RECORDS_MAX)?)
                    .map(|_| self.bytes().map(|record| self.whole.slice_ref(record)))
                    .collect::<Option<_>>()?,
            },
            DECLINE => Frame::Decline {
                id: self.uint()?,
                reason: Decline::from_code(self.uint()?),
                seq: self.seq()?,
            },
            FIND => Frame::Find { id: self.uint()?, author: self.author()?, seq: self.seq()? },
            ASK_PROOF => Frame::AskProof(self.author()?),
            PROOF => Frame::Proof(self.bytes().map(|proof| self.whole.slice_ref(proof))?),
            ASK_HEAD => Frame::AskHead(self.author()?),
            ASK_CHECKPOINT => Frame::AskCheckpoint { author: self.author()?, seq: self.seq()? },
            OFFER if self.is_null() => Frame::Offer(None),
            OFFER => {
                let sealed = self.bytes().map(|sealed| self.whole.slice_ref(sealed))?;
                Frame::Offer(Some(Sealed::decode(&sealed)?))
            }
            VOTES => {
                Frame::Votes { step: Step(self.uint()?), checkpoint: self.hash()?, votes: self.votes()? }
            }
            ASK_CHUNK => Frame::AskChunk {
                id: self.uint()?,
                checkpoint: self.hash()?,
                part: self.uint()?,
                index: self.uint()?,
            },
            CHUNK => Frame::Chunk {
                id: self.uint()?,
                bytes: self.bytes().map(|bytes| self.whole.slice_ref(bytes))?,
            },
            _ => {
                let author = self.author()?;
                let head = if self.is_null() { None } else { Some(self.author_head()?) };
                if head.is_some_and(|head| head.author != author) {
                    return None;
                }
                Frame::HeadOf { author, head }
            }
        })
    }
}

#[cfg(test)]
mod tests;
