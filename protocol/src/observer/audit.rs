//! The audit log: what this node and its operators did, as a chain of signed entries that shows every later change.
//!
//! ```text
//! file      = ( LE32(length of entry) ‖ entry )…
//! entry     = CBOR [ body: bytes, signature: bytes(64) ]
//! body      = CBOR [ 1, index, prev: bytes(32), time_ms, step | null, kind: text, actor: text, detail: text ]
//! hash      = BLAKE3(body)
//! signature = Ed25519(node, "omnimesh/1/audit" ‖ hash)
//! ```
//!
//! `prev` is the hash of the entry before, of the first entry of all [`GENESIS`]; `index` counts from 0. Old entries are
//! dropped at the front: the first that is left still names the one before it.
//!
//! A changed byte breaks the signature of its entry, so [`verify`] names the entry, and where in the file it stands; an
//! entry that was taken out or put in breaks the chain behind it. Whoever has the node's key can write another history;
//! whoever cuts off the end shows less of this one: compare [`Summary::head`] with one that was written down elsewhere.

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
const SIGNATURE_CONTEXT: &[u8] = b"omnimesh/1/audit";

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
        let body = serde_cbor::to_vec(&wire).expect("writing numbers and text to memory does not fail");
        let hash = Hash::of(&body);
        let signature = identity.sign(&signature_input(&hash));
        let entry = serde_cbor::to_vec(&EntryWire(Blob(&body), Blob(&signature)))
            .expect("writing bytes to memory does not fail");
        (self.next, self.head) = (self.next.saturating_add(1), hash);
        let length = u32::try_from(entry.len()).expect("three texts are short");
        [&length.to_le_bytes()[..], &entry].concat().into()
    }

    /// The hash of the last entry.
    pub fn head(&self) -> Hash {
        self.head
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
}

/// Reads a log and checks that it is whole; `each` gets the entries up to the first damage.
///
/// # Errors
/// The first damage.
pub fn verify(file: &[u8], node: &NodeId, mut each: impl FnMut(Entry)) -> Result<Summary, Damage> {
    let key = PublicKey::new(node);
    let mut summary: Option<Summary> = None;
    let mut from = 0;
    while from < file.len() {
        let index = summary.map_or(0, |summary| summary.next);
        let damage = |to: usize, what| Damage { index, from, to, what };
        let rest = file.get(from..).unwrap_or_default();
        let (entry, length) = take_entry(rest).ok_or(damage(file.len(), Wrong::CutOff))?;
        let to = from + length;
        let (entry, signature) = read(entry).ok_or(damage(to, Wrong::Unreadable))?;
        if !key.as_ref().is_some_and(|key| key.verify(&signature_input(&entry.hash), &signature)) {
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
        each(entry);
        from = to;
    }
    Ok(summary.unwrap_or(Summary { entries: 0, first: 0, next: 0, head: GENESIS }))
}

/// The first byte of the first entry that is not older than `time_ms`: what is before it may be dropped. It must
/// be a whole log.
pub fn retain_from(file: &[u8], time_ms: u64) -> usize {
    let mut from = 0;
    while let Some((entry, length)) = take_entry(file.get(from..).unwrap_or_default()) {
        match read(entry) {
            Some((entry, _)) if entry.action.time_ms < time_ms => from += length,
            _ => break,
        }
    }
    from
}

/// The first entry in these bytes, and how long it is with its length.
fn take_entry(rest: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= ENTRY_BYTES_MAX)?;
    Some((rest.get(..length)?, length + 4))
}

fn read(bytes: &[u8]) -> Option<(Entry, [u8; 64])> {
    shape::check(bytes).ok()?;
    let EntryWire(body, signature) = serde_cbor::from_slice(bytes).ok()?;
    shape::check(body.0).ok()?;
    let BodyWire(version, index, prev, time_ms, step, kind, actor, detail) =
        serde_cbor::from_slice(body.0).ok()?;
    let [kind, actor, detail] = [kind, actor, detail].map(str::to_owned);
    let action = Action { time_ms, step, kind, actor, detail };
    let entry = Entry { index, prev, hash: Hash::of(body.0), action };
    (version == VERSION).then_some((entry, signature.0.try_into().ok()?))
}

/// As much of a text as fits.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn signature_input(hash: &Hash) -> [u8; SIGNATURE_CONTEXT.len() + Hash::LEN] {
    let mut input = [0; SIGNATURE_CONTEXT.len() + Hash::LEN];
    let (context, rest) = input.split_at_mut(SIGNATURE_CONTEXT.len());
    context.copy_from_slice(SIGNATURE_CONTEXT);
    rest.copy_from_slice(hash.as_bytes());
    input
}

#[derive(Serialize, Deserialize)]
struct EntryWire<'a>(#[serde(borrow)] Blob<'a>, #[serde(borrow)] Blob<'a>);

#[derive(Serialize, Deserialize)]
struct BodyWire<'a>(u64, u64, Hash, u64, Option<Step>, &'a str, &'a str, &'a str);

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
        verify(file, &identity().id(), |_| {})
    }

    #[test]
    fn what_was_written_is_read_and_goes_on() {
        let mut file = log(5).concat();
        let mut read = Vec::new();
        let summary = verify(&file, &identity().id(), |entry| read.push(entry.action)).unwrap();
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
        let from = retain_from(&file, 4_000);
        let summary = check(&file[from..]).unwrap();
        assert_eq!((summary.first, summary.entries), (4, 6));
        assert_eq!(retain_from(&file, 0), 0);
        assert_eq!(retain_from(&file, u64::MAX), file.len());
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
            let _ = retain_from(&bytes, 5);
        }
    }
}
