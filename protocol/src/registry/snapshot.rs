//! The bytes of a whole state.
//!
//! ```text
//! snapshot = body ‖ derive_key("omnimesh 2026-11 registry snapshot", body)
//! body     = [ 1, floor, [ author, … ], [ head, … ], [ cut, … ], [ entry, … ], [ link, … ] ]
//! head     = [ author, seq, hash ]              cut = [ author, seq, hash ] | [ author, 0, null ]
//! entry    = [ kind, name, created, deleted, expires, { field: [ rank, value ], … }, versions ]
//! link     = [ kind, name, relation, kind, name, rank, is linked, versions ]
//! created, deleted = rank | null                expires = [ rank, step | null ] | null
//! rank     = [ step, count, author, seq ]       versions = [ is cut short, [ author, step, seq ], … ]
//! ```
//!
//! Authors are listed once, sorted, and named by their place in the list elsewhere. Every list is sorted. There is
//! one encoding only: a reader encodes what it has read once more and compares.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Hash, NodeId, Seq, Step};
use crate::machine::Outbox;
use crate::projection::{Head, SnapshotError};

use super::cbor::{Reader, Writer, key_order};
use super::entry::{EntryCell, Field, LinkCell};
use super::fault::Fault;
use super::name::{EntryKey, FieldName, Link};
use super::rank::{Rank, Tick};
use super::state::State;
use super::value::Encoded;
use super::versions::Versions;

const VERSION: u64 = 1;
const CONTEXT: &str = "omnimesh 2026-11 registry snapshot";

fn checksum(body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(CONTEXT).update(body).finalize().as_bytes()
}

pub(super) fn encode(state: &State) -> Vec<u8> {
    let authors = authors(state);
    let places = authors.iter().zip(0_u64..).map(|(author, place)| (*author, place)).collect();
    let mut encoder = Encoder { writer: Writer::default(), places };
    encoder.writer.array(7);
    encoder.writer.unsigned(VERSION);
    encoder.writer.unsigned(state.frontier.floor.0);
    encoder.writer.array(authors.len());
    for author in &authors {
        encoder.writer.bytes(author.as_bytes());
    }
    encoder.writer.array(state.frontier.heads.len());
    for (author, head) in &state.frontier.heads {
        encoder.head(author, Some(head));
    }
    encoder.writer.array(state.frontier.cuts.len());
    for (author, end) in &state.frontier.cuts {
        encoder.head(author, end.as_ref());
    }
    encoder.writer.array(state.entries.len());
    for (key, cell) in &state.entries {
        encoder.entry(key, cell);
    }
    encoder.writer.array(state.links.len());
    for (link, cell) in &state.links {
        encoder.link(link, cell);
    }
    let mut bytes = encoder.writer.bytes;
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// All authors that the state names.
fn authors(state: &State) -> BTreeSet<NodeId> {
    let mut authors: BTreeSet<_> =
        state.frontier.heads.keys().chain(state.frontier.cuts.keys()).copied().collect();
    for cell in state.entries.values() {
        authors.extend(cell.versions.iter().map(|(author, _)| author));
        authors.extend([cell.created, cell.deleted].into_iter().flatten().map(|rank| rank.author));
        authors.extend(cell.expires.map(|(rank, _)| rank.author));
        authors.extend(cell.fields.iter().map(|(_, field)| field.rank.author));
    }
    for cell in state.links.values() {
        authors.extend(cell.versions.iter().map(|(author, _)| author));
        authors.insert(cell.rank.author);
    }
    authors
}

struct Encoder {
    writer: Writer,
    places: BTreeMap<NodeId, u64>,
}

impl Encoder {
    fn author(&mut self, author: &NodeId) {
        let place = self.places.get(author).expect("the list has all authors that the state names");
        self.writer.unsigned(*place);
    }

    fn head(&mut self, author: &NodeId, head: Option<&Head>) {
        self.writer.array(3);
        self.author(author);
        match head {
            Some(head) => {
                self.writer.unsigned(head.seq.0);
                self.writer.bytes(head.hash.as_bytes());
            }
            None => {
                self.writer.unsigned(0);
                self.writer.null();
            }
        }
    }

    fn rank(&mut self, rank: Option<Rank>) {
        let Some(rank) = rank else { return self.writer.null() };
        self.writer.array(4);
        self.writer.unsigned(rank.tick.step.0);
        self.writer.unsigned(u64::from(rank.tick.count));
        self.author(&rank.author);
        self.writer.unsigned(rank.seq.0);
    }

    fn versions(&mut self, versions: &Versions) {
        self.writer.array(1 + versions.last.len());
        self.writer.bool(versions.is_cut_short);
        for (author, step, seq) in &versions.last {
            self.writer.array(3);
            self.author(author);
            self.writer.unsigned(step.0);
            self.writer.unsigned(seq.0);
        }
    }

    fn entry(&mut self, key: &EntryKey, cell: &EntryCell) {
        self.writer.array(7);
        key.write(&mut self.writer);
        self.rank(cell.created);
        self.rank(cell.deleted);
        match cell.expires {
            Some((rank, step)) => {
                self.writer.array(2);
                self.rank(Some(rank));
                match step {
                    Some(step) => self.writer.unsigned(step.0),
                    None => self.writer.null(),
                }
            }
            None => self.writer.null(),
        }
        self.writer.map(cell.fields.len());
        let mut fields: Vec<_> = cell.fields.iter().collect();
        fields.sort_by(|(a, _), (b, _)| key_order(a.as_str(), b.as_str()));
        for (name, field) in fields {
            self.writer.text(name.as_str());
            self.writer.array(2);
            self.rank(Some(field.rank));
            self.writer.raw(field.value.as_bytes());
        }
        self.versions(&cell.versions);
    }

    fn link(&mut self, link: &Link, cell: &LinkCell) {
        self.writer.array(8);
        link.write(&mut self.writer);
        self.rank(Some(cell.rank));
        self.writer.bool(cell.is_linked);
        self.versions(&cell.versions);
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let (body, check) = bytes.split_last_chunk::<32>().ok_or(SnapshotError::Checksum)?;
    if checksum(body) != *check {
        return Err(SnapshotError::Checksum);
    }
    let malformed = |fault: Fault| SnapshotError::Malformed(fault.code());
    let mut decoder = Decoder { reader: Reader::new(body), authors: Vec::new() };
    decoder.reader.array_of(7).map_err(malformed)?;
    let version = decoder.reader.unsigned().map_err(malformed)?;
    if version != VERSION {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let mut state = decoder.state().map_err(malformed)?;
    state.derive(&mut Outbox::new());
    // One check for the order of every list, doubles, authors that nobody names, and cells that are not normal.
    if encode(&state) != bytes {
        return Err(SnapshotError::Malformed(Fault::NotCanonical.code()));
    }
    Ok(state)
}

struct Decoder<'a> {
    reader: Reader<'a>,
    authors: Vec<NodeId>,
}

impl Decoder<'_> {
    fn state(&mut self) -> Result<State, Fault> {
        let mut state = State::new();
        state.frontier.floor = Step(self.reader.unsigned()?);
        // Nothing is allocated by what a head claims: each item takes a byte at least.
        for _ in 0..self.reader.array()? {
            self.authors.push(NodeId::from_bytes(self.reader.fixed_bytes()?));
        }
        for _ in 0..self.reader.array()? {
            let (author, head) = self.head()?;
            state.frontier.heads.insert(author, head.ok_or(Fault::Malformed)?);
        }
        for _ in 0..self.reader.array()? {
            let (author, end) = self.head()?;
            state.frontier.cuts.insert(author, end);
        }
        for _ in 0..self.reader.array()? {
            let (key, cell) = self.entry()?;
            state.entries.insert(key, cell);
        }
        for _ in 0..self.reader.array()? {
            let (link, cell) = self.link()?;
            state.links.insert(link, cell);
        }
        if self.reader.rest().is_empty() { Ok(state) } else { Err(Fault::TrailingBytes) }
    }

    fn author(&mut self) -> Result<NodeId, Fault> {
        let place = usize::try_from(self.reader.unsigned()?).map_err(|_| Fault::Malformed)?;
        self.authors.get(place).copied().ok_or(Fault::Malformed)
    }

    fn head(&mut self) -> Result<(NodeId, Option<Head>), Fault> {
        self.reader.array_of(3)?;
        let author = self.author()?;
        let seq = Seq(self.reader.unsigned()?);
        if self.reader.null() {
            return Ok((author, None));
        }
        if seq.0 == 0 {
            return Err(Fault::Malformed);
        }
        Ok((author, Some(Head { seq, hash: Hash::from_bytes(self.reader.fixed_bytes()?) })))
    }

    fn rank(&mut self) -> Result<Rank, Fault> {
        self.reader.array_of(4)?;
        let step = Step(self.reader.unsigned()?);
        let count = u32::try_from(self.reader.unsigned()?).map_err(|_| Fault::BadNumber)?;
        let author = self.author()?;
        Ok(Rank { tick: Tick { step, count }, author, seq: Seq(self.reader.unsigned()?) })
    }

    fn rank_or_null(&mut self) -> Result<Option<Rank>, Fault> {
        if self.reader.null() { Ok(None) } else { self.rank().map(Some) }
    }

    fn versions(&mut self) -> Result<Versions, Fault> {
        let authors = self.reader.array()?.checked_sub(1).ok_or(Fault::Malformed)?;
        let mut versions = Versions { is_cut_short: self.reader.bool()?, ..Versions::default() };
        for _ in 0..authors {
            self.reader.array_of(3)?;
            let author = self.author()?;
            let step = Step(self.reader.unsigned()?);
            versions.last.push((author, step, Seq(self.reader.unsigned()?)));
        }
        if versions.is_normal() { Ok(versions) } else { Err(Fault::NotCanonical) }
    }

    fn entry(&mut self) -> Result<(EntryKey, EntryCell), Fault> {
        self.reader.array_of(7)?;
        let key = EntryKey::read(&mut self.reader)?;
        let mut cell = EntryCell {
            created: self.rank_or_null()?,
            deleted: self.rank_or_null()?,
            ..EntryCell::default()
        };
        if !self.reader.null() {
            self.reader.array_of(2)?;
            let rank = self.rank()?;
            let step = if self.reader.null() { None } else { Some(Step(self.reader.unsigned()?)) };
            cell.expires = Some((rank, step));
        }
        for _ in 0..self.reader.map()? {
            let name = FieldName::new(self.reader.text()?)?;
            self.reader.array_of(2)?;
            let rank = self.rank()?;
            cell.fields.push((name, Field { rank, value: Encoded::read(&mut self.reader)? }));
        }
        cell.fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        cell.versions = self.versions()?;
        cell.normalise();
        Ok((key, cell))
    }

    fn link(&mut self) -> Result<(Link, LinkCell), Fault> {
        self.reader.array_of(8)?;
        let link = Link::read(&mut self.reader)?;
        let rank = self.rank()?;
        let is_linked = self.reader.bool()?;
        Ok((link, LinkCell { rank, is_linked, versions: self.versions()? }))
    }
}
