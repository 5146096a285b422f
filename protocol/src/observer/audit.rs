//! The audit log: what this node and its operators did, as a chain of signed entries that shows every later change.
//!
//! ```text
//! file      = ( LE32(length of entry) ‖ entry )…
//! entry     = CBOR [ body: bytes, signature: bytes(64) ]
//! body      = CBOR [ 1, index, prev: bytes(32), time_ms, step | null, kind: text, actor: text, detail: text ]
//! hash      = BLAKE3(body)
//! signature = Ed25519(node, "omnimesh/1/audit" ‖ hash)
//!
//! mark      = CBOR [ body: bytes, signature: bytes(64) ]        beside the file: where the log begins and ends
//! body      = CBOR [ 1, first, next, head: bytes(32) ]
//! signature = Ed25519(node, "omnimesh/1/audit-mark" ‖ BLAKE3(body))
//! ```
//!
//! `prev` is the hash of the entry before, of the first entry of all [`GENESIS`]; `index` counts from 0. Old entries are
//! dropped at the front: the first that is left still names the one before it.
//!
//! A changed byte breaks the signature of its entry, so [`verify`] names the entry, and where in the file it stands; an
//! entry that was taken out or put in breaks the chain behind it; entries that are missing at either end are missed by the
//! [`Mark`]. The log may have more than that: it is written first, and shortened last. Whoever has the node's key can
//! write another history; whoever puts back an older log with its mark shows less of this one: compare
//! [`Summary::head`] with one that was written down elsewhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::Blob;
use crate::id::{Hash, NodeId, Step};
use crate::identity::{Identity, PublicKey};
use crate::shape;

/// The version of the format.
pub const VERSION: u64 = 1;
/// What the first entry of all names as the one before it.
pub const GENESIS: Hash = Hash::from_bytes([0; 32]);
/// Bytes of an entry, at most.
pub const ENTRY_BYTES_MAX: usize = 16_384;
/// Bytes of each text in an entry; what is longer is cut.
const TEXT_BYTES_MAX: usize = 4_096;
const ENTRY_CONTEXT: &[u8] = b"omnimesh/1/audit";
const MARK_CONTEXT: &[u8] = b"omnimesh/1/audit-mark";

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// When, in milliseconds of Unix time by this node's clock.
    pub time_ms: u64,
    /// In which step; `None` while not synchronised.
    pub step: Option<Step>,
    /// What, such as `quarantine`, `lift`, `config`, `key`.
    pub kind: String,
    /// By whom: `node`, or the name of a token.
    pub actor: String,
    /// The rest, for people.
    pub detail: String,
}

/// An entry, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the whole log.
    pub index: u64,
    /// The hash of the entry before.
    pub prev: Hash,
    /// Its hash.
    pub hash: Hash,
    /// What was done.
    pub action: Action,
}

/// The end of the log, to which entries are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    next: u64,
    head: Hash,
}

impl Default for Chain {
    /// A log without entries.
    fn default() -> Self {
        Chain { next: 0, head: GENESIS }
    }
}

impl Chain {
    /// The end of a log that was read.
    pub fn after(summary: &Summary) -> Self {
        Chain { next: summary.next, head: summary.head }
    }

    /// The bytes to add at the end of the file.
    pub fn append(&mut self, identity: &Identity, action: &Action) -> Bytes {
        let Action { time_ms, step, kind, actor, detail } = action;
        let wire =
            BodyWire(VERSION, self.next, self.head, *time_ms, *step, cut(kind), cut(actor), cut(detail));
        let (entry, hash) = seal(identity, ENTRY_CONTEXT, &wire);
        (self.next, self.head) = (self.next.saturating_add(1), hash);
        let length = u32::try_from(entry.len()).expect("three texts are short");
        [&length.to_le_bytes()[..], &entry].concat().into()
    }

    /// The hash of the last entry.
    pub fn head(&self) -> Hash {
        self.head
    }

    /// The mark of a log that ends here and begins with the entry `first`.
    pub fn mark(&self, first: u64) -> Mark {
        Mark { first, next: self.next, head: self.head }
    }
}

/// Where a log begins and ends, as the node signs it: what is missing there breaks no chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The index of the first entry.
    pub first: u64,
    /// The index after the last.
    pub next: u64,
    /// The hash of the last.
    pub head: Hash,
}

impl Mark {
    /// Its bytes.
    pub fn seal(&self, identity: &Identity) -> Vec<u8> {
        seal(identity, MARK_CONTEXT, &MarkWire(VERSION, self.first, self.next, self.head)).0
    }

    /// Reads one; `None` if the node has not signed it.
    pub fn open(bytes: &[u8], node: &NodeId) -> Option<Self> {
        let (body, signature) = unseal(bytes)?;
        let is_signed =
            PublicKey::new(node)?.verify(&signature_input(MARK_CONTEXT, &Hash::of(body)), &signature);
        let MarkWire(version, first, next, head) = serde_cbor::from_slice(body).ok()?;
        (is_signed && version == VERSION && first <= next).then_some(Mark { first, next, head })
    }

    fn summary(&self) -> Summary {
        Summary { entries: 0, first: self.next, next: self.next, head: self.head }
    }

    /// What a log without damage within lacks at its ends. `at_end` is the hash of its entry before `next`, if it has one.
    fn missed(&self, summary: &Summary, length: usize, at_end: Option<Hash>) -> Option<Damage> {
        let damage = |index, at, what| Damage { index, from: at, to: at, what };
        if self.first == self.next {
            None
        } else if summary.entries == 0 || summary.first > self.first {
            Some(damage(self.first, 0, Wrong::Missing))
        } else if summary.next < self.next {
            Some(damage(summary.next, length, Wrong::Missing))
        } else {
            (at_end != Some(self.head)).then_some(damage(self.next - 1, length, Wrong::Broken))
        }
    }
}

/// A log that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries in it.
    pub entries: u64,
    /// The index of the first; those before it were dropped.
    pub first: u64,
    /// The index that the next will have.
    pub next: u64,
    /// The hash of the last.
    pub head: Hash,
}

/// Where a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} at bytes {from} to {to}: {what}")]
pub struct Damage {
    /// The index of the entry, counted from those before it.
    pub index: u64,
    /// Its first byte in the file.
    pub from: usize,
    /// The byte after its last, as far as that is known.
    pub to: usize,
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The file ends within it, or its length is damaged.
    #[error("the file ends within the entry, or its length was changed")]
    CutOff,
    /// It cannot be read.
    #[error("the entry was changed: it cannot be read")]
    Unreadable,
    /// It is not what the node signed.
    #[error("the entry was changed, or another key has signed it")]
    Changed,
    /// It does not follow on the one before.
    #[error("entries before this one were taken out, put in or exchanged")]
    Broken,
    /// It is not there, although the mark says that it was written.
    #[error("this entry, or more from here on, was written and is missing")]
    Missing,
}

/// Reads a log and checks that it is whole, at its ends only with a mark; `each` gets the entries up to the first damage.
///
/// # Errors
/// The first damage.
pub fn verify(
    file: &[u8],
    node: &NodeId,
    mark: Option<&Mark>,
    mut each: impl FnMut(Entry),
) -> Result<Summary, Damage> {
    let key = PublicKey::new(node);
    let mut summary: Option<Summary> = None;
    let mut at_end = None;
    let mut from = 0;
    while from < file.len() {
        let index = summary.map_or(0, |summary| summary.next);
        let damage = |to: usize, what| Damage { index, from, to, what };
        let rest = file.get(from..).unwrap_or_default();
        let (entry, length) = take_entry(rest).ok_or(damage(file.len(), Wrong::CutOff))?;
        let to = from + length;
        let (entry, signature) = read(entry).ok_or(damage(to, Wrong::Unreadable))?;
        if !key
            .as_ref()
            .is_some_and(|key| key.verify(&signature_input(ENTRY_CONTEXT, &entry.hash), &signature))
        {
            return Err(damage(to, Wrong::Changed));
        }
        let expected = match &summary {
            Some(summary) => (summary.next, summary.head),
            None if entry.index == 0 => (0, GENESIS),
            None => (entry.index, entry.prev),
        };
        if (entry.index, entry.prev) != expected {
            return Err(damage(to, Wrong::Broken));
        }
        let before = summary.unwrap_or(Summary { entries: 0, first: entry.index, next: 0, head: GENESIS });
        summary = Some(Summary {
            entries: before.entries + 1,
            first: before.first,
            next: entry.index.saturating_add(1),
            head: entry.hash,
        });
        if mark.is_some_and(|mark| mark.next == entry.index.saturating_add(1)) {
            at_end = Some(entry.hash);
        }
        each(entry);
        from = to;
    }
    let none = Summary { entries: 0, first: 0, next: 0, head: GENESIS };
    // Of a log whose entries are all dropped the mark knows how it went on.
    let summary = summary.unwrap_or_else(|| mark.map_or(none, Mark::summary));
    mark.and_then(|mark| mark.missed(&summary, file.len(), at_end)).map_or(Ok(summary), Err)
}

/// The entries that are older than `time_ms`, at the front: how many bytes, and how many they are. It must be a whole log.
pub fn older(file: &[u8], time_ms: u64) -> (usize, u64) {
    let (mut bytes, mut entries) = (0, 0);
    while let Some((entry, length)) = take_entry(file.get(bytes..).unwrap_or_default()) {
        match read(entry) {
            Some((entry, _)) if entry.action.time_ms < time_ms => {
                (bytes, entries) = (bytes + length, entries + 1);
            }
            _ => break,
        }
    }
    (bytes, entries)
}

/// The first entry in these bytes, and how long it is with its length.
fn take_entry(rest: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= ENTRY_BYTES_MAX)?;
    Some((rest.get(..length)?, length + 4))
}

fn read(bytes: &[u8]) -> Option<(Entry, [u8; 64])> {
    let (body, signature) = unseal(bytes)?;
    let BodyWire(version, index, prev, time_ms, step, kind, actor, detail) =
        serde_cbor::from_slice(body).ok()?;
    let [kind, actor, detail] = [kind, actor, detail].map(str::to_owned);
    let action = Action { time_ms, step, kind, actor, detail };
    let entry = Entry { index, prev, hash: Hash::of(body), action };
    (version == VERSION).then_some((entry, signature))
}

/// A body with the node's signature, and the body's hash.
fn seal(identity: &Identity, context: &[u8], body: &impl Serialize) -> (Vec<u8>, Hash) {
    let body = serde_cbor::to_vec(body).expect("writing numbers and text to memory does not fail");
    let hash = Hash::of(&body);
    let signature = identity.sign(&signature_input(context, &hash));
    let sealed = serde_cbor::to_vec(&SealWire(Blob(&body), Blob(&signature)))
        .expect("writing bytes to memory does not fail");
    (sealed, hash)
}

/// The body and the signature, which is not checked yet.
fn unseal(bytes: &[u8]) -> Option<(&[u8], [u8; 64])> {
    shape::check(bytes).ok()?;
    let SealWire(body, signature) = serde_cbor::from_slice(bytes).ok()?;
    shape::check(body.0).ok()?;
    Some((body.0, signature.0.try_into().ok()?))
}

/// As much of a text as fits.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn signature_input(context: &[u8], hash: &Hash) -> Vec<u8> {
    [context, hash.as_bytes()].concat()
}

#[derive(Serialize, Deserialize)]
struct SealWire<'a>(#[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct BodyWire<'a>(u64, u64, Hash, u64, Option<Step>, &'a str, &'a str, &'a str);

#[derive(Serialize, Deserialize)]
struct MarkWire(u64, u64, u64, Hash);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    fn action(n: u64) -> Action {
        Action {
            time_ms: 1_000 * n,
            step: (!n.is_multiple_of(3)).then_some(Step(n)),
            kind: "quarantine".into(),
            actor: "node".into(),
            detail: format!("the {n}th"),
        }
    }

    fn log(entries: u64) -> Vec<Bytes> {
        let mut chain = Chain::default();
        (0..entries).map(|n| chain.append(&identity(), &action(n))).collect()
    }

    fn check(file: &[u8]) -> Result<Summary, Damage> {
        verify(file, &identity().id(), None, |_| {})
    }

    #[test]
    fn what_was_written_is_read_and_goes_on() {
        let mut file = log(5).concat();
        let mut read = Vec::new();
        let summary = verify(&file, &identity().id(), None, |entry| read.push(entry.action)).unwrap();
        assert_eq!(read, (0..5).map(action).collect::<Vec<_>>());
        assert_eq!((summary.entries, summary.first, summary.next), (5, 0, 5));
        let mut chain = Chain::after(&summary);
        file.extend_from_slice(&chain.append(&identity(), &action(5)));
        assert_eq!(check(&file).unwrap().head, chain.head());
        let long = Action { detail: "ä".repeat(10_000), ..action(6) };
        file.extend_from_slice(&chain.append(&identity(), &long));
        assert_eq!(check(&file).unwrap().entries, 7);
        assert_eq!(check(b"").unwrap().entries, 0);
    }

    #[test]
    fn old_entries_are_dropped_and_the_rest_is_still_proved() {
        let file = log(10).concat();
        let (from, dropped) = older(&file, 4_000);
        let summary = check(&file[from..]).unwrap();
        assert_eq!((summary.first, summary.entries, dropped), (4, 6, 4));
        assert_eq!(older(&file, 0), (0, 0));
        assert_eq!(older(&file, u64::MAX), (file.len(), 10));
    }

    #[test]
    fn what_is_missing_at_an_end_is_missed() {
        let (entries, mut chain) = (log(6), Chain::default());
        (0..6).for_each(|n| drop(chain.append(&identity(), &action(n))));
        let mark = chain.mark(2);
        let sealed = mark.seal(&identity());
        assert_eq!(Mark::open(&sealed, &identity().id()), Some(mark));
        assert_eq!(Mark::open(&sealed, &Identity::from_seed(&[2; 32]).id()), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Mark::open(&changed, &identity().id()), None, "byte {at}");
        }
        let check = |range: std::ops::Range<usize>, mark: Mark| {
            let found = verify(&entries[range].concat(), &identity().id(), Some(&mark), |_| {});
            found.map(|summary| (summary.first, summary.next)).map_err(|damage| (damage.index, damage.what))
        };
        assert_eq!(check(2..6, mark), Ok((2, 6)));
        assert_eq!(check(0..6, mark), Ok((0, 6)), "it is shortened after the mark");
        assert_eq!(check(2..6, Mark { next: 5, head: Hash::of(b""), ..mark }), Err((4, Wrong::Broken)));
        assert_eq!(check(3..6, mark), Err((2, Wrong::Missing)));
        assert_eq!(check(2..5, mark), Err((5, Wrong::Missing)));
        assert_eq!(check(0..0, mark), Err((2, Wrong::Missing)));
        assert_eq!(check(0..0, Mark { first: 6, ..mark }), Ok((6, 6)), "all are dropped, and it goes on");
        assert_eq!(check(0..2, chain.mark(0)), Err((2, Wrong::Missing)));
        let early = Chain::after(&verify(&entries[..2].concat(), &identity().id(), None, |_| {}).unwrap());
        assert_eq!(check(0..6, early.mark(0)), Ok((0, 6)), "it is written before the mark");
    }

    #[test]
    fn what_was_taken_out_or_exchanged_is_seen() {
        let entries = log(6);
        let file = |order: &[usize]| order.iter().flat_map(|n| entries[*n].to_vec()).collect::<Vec<u8>>();
        for (order, index) in [(&[0, 1, 3, 4][..], 2), (&[0, 2, 1], 1), (&[0, 1, 1], 2)] {
            let damage = check(&file(order)).unwrap_err();
            assert_eq!((damage.index, damage.what), (index, Wrong::Broken), "{order:?}");
        }
        let other = Chain::default().append(&Identity::from_seed(&[2; 32]), &action(0));
        assert_eq!(check(&other).unwrap_err().what, Wrong::Changed);
        let cut = file(&[0, 1]);
        assert_eq!(check(&cut[..cut.len() - 1]).unwrap_err().what, Wrong::CutOff);
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_found_where_it_is(at in any::<prop::sample::Index>(), by in 1_u8..) {
            let entries = log(5);
            let mut file = entries.concat();
            let at = at.index(file.len());
            file[at] ^= by;
            let mut from = 0;
            let place = entries.iter().position(|entry| {
                let is_here = at < from + entry.len();
                from += if is_here { 0 } else { entry.len() };
                is_here
            });
            let damage = check(&file).unwrap_err();
            prop_assert_eq!(usize::try_from(damage.index).ok(), place);
            prop_assert_eq!(damage.from, from);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes);
            let _ = older(&bytes, 5);
            let _ = Mark::open(&bytes, &identity().id());
        }
    }
}
