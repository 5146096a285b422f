//! Range-based set reconciliation of heads: what differs between two nodes, in few bytes and round trips.
//!
//! After Meyer, *Range-Based Set Reconciliation* (2023, arXiv:2212.13567). The items are heads, sorted by author. Both sides
//! compute the *fingerprint* of a range of authors; if it is equal, so is all in it. Where it differs, the range is
//! cut into [`FANOUT`] parts of equally many heads, whose fingerprints the other side compares in turn; a range of at most
//! [`LEAF`] heads is told outright.
//!
//! ```text
//!  A                                                             B
//!  │ ── all: fp ──────────────────────────────────────────────►  │   equal: an answer without ranges, and that is all
//!  │ ◄─ [..07: fp] [07..1a: fp] … [f1..: fp] ─────────────────── │   16 parts of B's heads
//!  │ ── [07..1a: 5 heads] [c2..d0: 3 heads] ──────────────────►  │   those that differ, with A's heads
//!  │ ◄─ Heads: those of B's that are news to A; no ranges ────── │   both know what the other has more
//! ```
//!
//! ```text
//! hash of a head = derive_key("omnimesh 2026-11 log head", head as on the wire)
//! fingerprint    = first 16 bytes of derive_key("omnimesh 2026-11 log fingerprint", LE64(count) ‖ sum)
//! sum            = sum of the hashes as numbers of 256 bits, least significant byte first, mod 2^256
//! ```
//!
//! A sum can be kept up to date with every new head, so that nothing has to be computed when all is equal, and hashing it
//! with the count is what the `negentropy` crate does against chosen items. Why not Merkle search trees: they walk one level of
//! the tree at a time from the root, with a fan-out that is fixed by the hashes, and need the tree on both
//! sides; here each side cuts as it likes. Measured figures are in the test `table`.
//!
//! # Not here
//! Who asks when, and fetching what is missing.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::id::{Hash, NodeId, Seq};

use super::record::AuthorHead;

/// Parts into which a range is cut. Source: measured, see the test `table`.
pub const FANOUT: usize = 16;
/// Heads that are told outright. Source: measured: a head takes 74 bytes, three times a fingerprint with its range.
pub const LEAF: usize = 6;
/// Bytes of a fingerprint.
pub const FINGERPRINT_BYTES: usize = 16;
/// Bytes of ranges in one frame, about; what does not fit is put off as one range. Source: guess; it fits the smallest
/// frame that meshes may allow, and [`RANGES_MAX`](super::wire::RANGES_MAX).
pub const RANGES_BYTES_MAX: usize = 160 << 10;

const FINGERPRINT_CONTEXT: &str = "omnimesh 2026-11 log fingerprint";

/// A fingerprint of some heads.
pub type Fingerprint = [u8; FINGERPRINT_BYTES];

/// Authors from `lower` on and below `upper`, which are prefixes of author ids; compared byte by byte, so that a
/// prefix comes before all that begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub lower: Box<[u8]>,
    /// The first behind; `None` is the end of all.
    pub upper: Option<Box<[u8]>>,
    /// What the sender has there.
    pub content: Content,
}

/// What a node has in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Heads with this fingerprint.
    Fingerprint(Fingerprint),
    /// These heads and no others.
    Heads(Vec<AuthorHead>),
}

impl Range {
    /// True if it is in order: bounds of at most 32 bytes, the lower below the upper, heads ascending and within.
    pub fn is_good(&self) -> bool {
        let bounds = self.lower.len() <= 32
            && self.upper.as_ref().is_none_or(|upper| upper.len() <= 32 && self.lower < *upper);
        let content = match &self.content {
            Content::Fingerprint(_) => true,
            Content::Heads(heads) => {
                heads.iter().all(|head| self.contains(&head.author))
                    && heads.is_sorted_by(|a, b| a.author < b.author)
            }
        };
        bounds && content
    }

    fn contains(&self, author: &NodeId) -> bool {
        let author = author.as_bytes().as_slice();
        author >= &*self.lower && self.upper.as_ref().is_none_or(|upper| author < &**upper)
    }

    /// About how many bytes it takes in a frame.
    fn room(&self) -> usize {
        let content = match &self.content {
            Content::Fingerprint(_) => FINGERPRINT_BYTES + 1,
            Content::Heads(heads) => 3 + 106 * heads.len(),
        };
        3 + self.lower.len() + self.upper.as_ref().map_or(1, |upper| 2 + upper.len()) + content
    }
}

/// A sum of hashes, mod 2^256, least significant word first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum([u64; 4]);

impl Sum {
    fn of(hash: &[u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(hash.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Sum(words)
    }

    fn add(&mut self, other: &Sum) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(other.0) {
            let (sum, over) = word.overflowing_add(other);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, over | over_again);
        }
    }

    fn subtract(&mut self, other: &Sum) {
        let mut borrow = false;
        for (word, other) in self.0.iter_mut().zip(other.0) {
            let (rest, under) = word.overflowing_sub(other);
            let (rest, under_again) = rest.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (rest, under | under_again);
        }
    }

    fn fingerprint(&self, count: usize) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_derive_key(FINGERPRINT_CONTEXT);
        hasher.update(&(count as u64).to_le_bytes());
        for word in self.0 {
            hasher.update(&word.to_le_bytes());
        }
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        hasher.finalize_xof().fill(&mut fingerprint);
        fingerprint
    }
}

/// What there is to say to a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// To be compared in turn by the other side; none if it knows all that differs.
    pub ranges: Vec<Range>,
    /// Own heads that are news to the other side.
    pub ours: Vec<AuthorHead>,
    /// The other side's heads that we do not have.
    pub theirs: Vec<AuthorHead>,
}

/// All heads of a node, ready to be compared.
#[derive(Clone, Debug, Default)]
pub struct HeadSet {
    heads: BTreeMap<NodeId, (AuthorHead, Sum)>,
    sum: Sum,
}

impl HeadSet {
    /// No heads.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a head in place of the author's earlier one. An empty log without a proof is none.
    pub fn put(&mut self, head: AuthorHead) {
        if let Some((_, old)) = self.heads.remove(&head.author) {
            self.sum.subtract(&old);
        }
        if head.head.seq > Seq(0) || head.proof.is_some() {
            let new = Sum::of(&head.hash());
            self.sum.add(&new);
            self.heads.insert(head.author, (head, new));
        }
    }

    /// The head of this author.
    pub fn get(&self, author: &NodeId) -> Option<&AuthorHead> {
        self.heads.get(author).map(|(head, _)| head)
    }

    /// All of them, in the order of authors.
    pub fn iter(&self) -> impl Iterator<Item = &AuthorHead> {
        self.heads.values().map(|(head, _)| head)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The fingerprint of all.
    pub fn fingerprint(&self) -> Fingerprint {
        self.sum.fingerprint(self.heads.len())
    }

    /// One hash of all.
    pub fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(FINGERPRINT_CONTEXT);
        hasher.update(&(self.heads.len() as u64).to_le_bytes());
        for word in self.sum.0 {
            hasher.update(&word.to_le_bytes());
        }
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// How a comparison begins.
    pub fn all(&self) -> Range {
        Range { lower: [].into(), upper: None, content: Content::Fingerprint(self.fingerprint()) }
    }

    /// What to say to ranges of another node: in order, and each [`Range::is_good`]. Costs a look at each head in ranges
    /// that differ.
    pub fn answer(&self, ranges: &[Range]) -> Answer {
        let mut answer = Answer::default();
        let mut room = RANGES_BYTES_MAX;
        for (index, range) in ranges.iter().enumerate() {
            if room == 0 {
                // The rest later, as one range with our own fingerprint, which will differ if anything in it does.
                let upper = ranges.last().and_then(|last| last.upper.clone());
                answer.ranges.push(self.fingerprint_of(range.lower.clone(), upper));
                break;
            }
            let before = answer.ranges.len();
            match &range.content {
                Content::Fingerprint(theirs) => self.compare(range, theirs, &mut answer.ranges),
                Content::Heads(theirs) => self.merge(range, theirs, &mut answer),
            }
            let used: usize = answer.ranges.iter().skip(before).map(Range::room).sum();
            room = room.saturating_sub(used);
            debug_assert!(index < ranges.len());
        }
        answer
    }

    fn within<'a>(
        &'a self,
        lower: &[u8],
        upper: Option<&'a [u8]>,
    ) -> impl Iterator<Item = &'a (AuthorHead, Sum)> + use<'a> {
        // A prefix comes before all that it begins: fill it up with zeros.
        let mut first = [0; 32];
        first.iter_mut().zip(lower).for_each(|(to, from)| *to = *from);
        let from = (Bound::Included(NodeId::from_bytes(first)), Bound::Unbounded);
        let is_within = move |author: &NodeId| upper.is_none_or(|upper| author.as_bytes().as_slice() < upper);
        self.heads.range(from).take_while(move |(author, _)| is_within(author)).map(|(_, head)| head)
    }

    fn fingerprint_of(&self, lower: Box<[u8]>, upper: Option<Box<[u8]>>) -> Range {
        let (mut sum, mut count) = (Sum::default(), 0);
        for (_, hash) in self.within(&lower, upper.as_deref()) {
            sum.add(hash);
            count += 1;
        }
        Range { lower, upper, content: Content::Fingerprint(sum.fingerprint(count)) }
    }

    fn compare(&self, range: &Range, theirs: &Fingerprint, answer: &mut Vec<Range>) {
        let is_all = range.lower.is_empty() && range.upper.is_none();
        if is_all && self.fingerprint() == *theirs {
            return;
        }
        let heads: Vec<&(AuthorHead, Sum)> = self.within(&range.lower, range.upper.as_deref()).collect();
        let mut sum = Sum::default();
        heads.iter().for_each(|(_, hash)| sum.add(hash));
        if sum.fingerprint(heads.len()) == *theirs {
            return;
        }
        if heads.len() <= LEAF {
            let content = Content::Heads(heads.iter().map(|(head, _)| *head).collect());
            answer.push(Range { lower: range.lower.clone(), upper: range.upper.clone(), content });
            return;
        }
        let mut lower = range.lower.clone();
        let mut parts = heads.chunks(heads.len().div_ceil(FANOUT)).peekable();
        while let Some(part) = parts.next() {
            let last = part.last().map(|(head, _)| head.author);
            let next = parts.peek().and_then(|next| next.first()).map(|(head, _)| head.author);
            let upper = match (last, next) {
                (Some(last), Some(next)) => Some(shortest_between(&last, &next)),
                _ => range.upper.clone(),
            };
            let mut sum = Sum::default();
            part.iter().for_each(|(_, hash)| sum.add(hash));
            let content = Content::Fingerprint(sum.fingerprint(part.len()));
            answer.push(Range { lower, upper: upper.clone(), content });
            lower = upper.unwrap_or_default();
        }
    }

    fn merge(&self, range: &Range, theirs: &[AuthorHead], answer: &mut Answer) {
        let mut theirs = theirs.iter().peekable();
        for (ours, _) in self.within(&range.lower, range.upper.as_deref()) {
            while let Some(only_theirs) = theirs.next_if(|theirs| theirs.author < ours.author) {
                answer.theirs.push(*only_theirs);
            }
            match theirs.next_if(|theirs| theirs.author == ours.author) {
                Some(same) if same == ours => {}
                Some(other) => {
                    answer.theirs.push(*other);
                    if other.head.seq <= ours.head.seq || other.proof != ours.proof {
                        answer.ours.push(*ours);
                    }
                }
                None => answer.ours.push(*ours),
            }
        }
        answer.theirs.extend(theirs);
    }
}

/// The shortest prefix of `next` that lies behind `last`.
fn shortest_between(last: &NodeId, next: &NodeId) -> Box<[u8]> {
    let (last, next) = (last.as_bytes(), next.as_bytes());
    let same = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    next.iter().take(same + 1).copied().collect()
}

#[cfg(test)]
mod tests;
