//! One entry: what is kept of all writes to it, and what is seen of it.

use std::collections::BTreeMap;

use crate::id::Step;

use super::cbor::Writer;
use super::name::{EntryKey, FieldName};
use super::operation::{FIELDS_MAX, Fields};
use super::rank::{Rank, Tick};
use super::value::{Encoded, Value};
use super::versions::Versions;

/// A field of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The write that set it; its author is who said so.
    pub rank: Rank,
    /// What it holds.
    pub value: Encoded,
}

/// An entry as it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is known by.
    pub key: EntryKey,
    /// The put that made it what it is, but for later updates.
    pub created: Rank,
    /// The highest write that it shows.
    pub updated: Rank,
    /// From this step on it is not shown any more.
    pub expires: Option<Step>,
    /// What it says.
    pub fields: BTreeMap<FieldName, Field>,
    /// Whose writes it contains, those that lost included.
    pub versions: Versions,
}

impl Entry {
    /// True if its time-to-live, if it has one, has not run out at this step.
    pub fn is_live(&self, now: Step) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// The value of a field.
    pub fn value(&self, field: &str) -> Option<Value> {
        // The few fields of an entry are walked faster than a name is made.
        self.fields.iter().find(|(name, _)| name.as_str() == field).map(|(_, field)| field.value.decode())
    }

    /// What the hash of the state is made of: all that is seen, but not the version vector, which differs between
    /// nodes that have dropped tombstones and those that have not. Values by their hashes, so that a small update of an
    /// entry with large values is cheap.
    pub(super) fn item(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(6);
        writer.unsigned(0);
        self.key.write(&mut writer);
        self.created.write(&mut writer);
        match self.expires {
            Some(step) => writer.unsigned(step.0),
            None => writer.null(),
        }
        writer.array(self.fields.len());
        for (name, field) in &self.fields {
            writer.array(3);
            writer.text(name.as_str());
            field.rank.write(&mut writer);
            writer.bytes(field.value.hash().as_bytes());
        }
        writer.bytes
    }
}

/// What is kept of all writes to an entry: the highest of each sort. Joining takes the maximum of each, so that
/// neither order nor repetition matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryCell {
    /// The highest put, if it is above the highest delete.
    pub(super) created: Option<Rank>,
    /// The highest delete.
    pub(super) deleted: Option<Rank>,
    /// The highest write that says when the entry expires: every put, and updates with a time-to-live.
    pub(super) expires: Option<(Rank, Option<Step>)>,
    /// The highest write of each field, above the highest put and delete. A null is a field that was removed.
    /// Sorted by name. (A tree would take 1.3 KB for a single field.)
    pub(super) fields: Vec<(FieldName, Field)>,
    pub(super) versions: Versions,
}

impl EntryCell {
    /// What a put alone leaves.
    pub(super) fn put(rank: Rank, expires: Option<Step>, fields: Fields) -> Self {
        let mut cell = EntryCell::update(rank, None, fields);
        (cell.created, cell.expires) = (Some(rank), Some((rank, expires)));
        cell
    }

    /// What an update alone leaves.
    pub(super) fn update(rank: Rank, expires: Option<Step>, fields: Fields) -> Self {
        EntryCell {
            expires: expires.map(|step| (rank, Some(step))),
            fields: fields.into_iter().map(|(name, value)| (name, Field { rank, value })).collect(),
            ..EntryCell::default()
        }
    }

    /// What a delete alone leaves.
    pub(super) fn delete(rank: Rank) -> Self {
        EntryCell { deleted: Some(rank), ..EntryCell::default() }
    }

    pub(super) fn join(&mut self, other: EntryCell) {
        self.created = self.created.max(other.created);
        self.deleted = self.deleted.max(other.deleted);
        self.expires = self.expires.max(other.expires);
        for (name, theirs) in other.fields {
            match self.place(&name) {
                Ok(place) if self.fields[place].1.rank >= theirs.rank => {}
                Ok(place) => self.fields[place].1 = theirs,
                Err(place) => self.fields.insert(place, (name, theirs)),
            }
        }
        self.versions.join(&other.versions);
        self.normalise();
    }

    /// The field, unless it is removed.
    pub(super) fn shown(&self, name: &FieldName) -> Option<&Field> {
        let (_, field) = self.fields.get(self.place(name).ok()?)?;
        (!field.value.is_null()).then_some(field)
    }

    /// Where the field is, or would be.
    pub(super) fn place(&self, name: &FieldName) -> Result<usize, usize> {
        self.fields.binary_search_by(|(known, _)| known.cmp(name))
    }

    /// Drops what can never be seen: so equal writes leave equal cells.
    pub(super) fn normalise(&mut self) {
        let floor = self.created.max(self.deleted);
        self.created = self.created.filter(|_| self.created > self.deleted);
        self.expires = self.expires.filter(|(rank, _)| Some(*rank) >= floor);
        self.fields.retain(|(_, field)| Some(field.rank) >= floor);
        // As the rank of a field only grows, one that was pushed out stays out until it is written again, whatever
        // the order in which writes arrive. Removed fields count, or it would depend on the order.
        while self.fields.len() > FIELDS_MAX {
            let ranks =
                self.fields.iter().enumerate().map(|(place, (name, field))| (field.rank, name, place));
            let Some((_, _, place)) = ranks.min() else { break };
            self.fields.remove(place);
        }
    }

    /// The entry as it is seen, if there is one.
    pub(super) fn view(&self, key: &EntryKey) -> Option<Entry> {
        let created = self.created?;
        let shown = self.fields.iter().filter(|(_, field)| !field.value.is_null());
        Some(Entry {
            key: key.clone(),
            created,
            updated: self.top().unwrap_or(created),
            expires: self.expires.and_then(|(_, step)| step),
            fields: shown.cloned().collect(),
            versions: self.versions.clone(),
        })
    }

    /// True if the entry is seen at this step.
    pub(super) fn is_live(&self, now: Step) -> bool {
        let expires = self.expires.and_then(|(_, step)| step);
        self.created.is_some() && expires.is_none_or(|expires| now < expires)
    }

    /// The highest write that it holds.
    pub(super) fn top(&self) -> Option<Rank> {
        let fields = self.fields.iter().map(|(_, field)| field.rank).max();
        self.created.max(self.deleted).max(self.expires.map(|(rank, _)| rank)).max(fields)
    }

    /// True if there is no entry, and no write from `floor` on can be below any of these.
    pub(super) fn is_garbage(&self, floor: Tick) -> bool {
        self.created.is_none() && self.top().is_none_or(|top| top.tick < floor)
    }

    /// Drops every write before the tick.
    pub(super) fn forget_before(&mut self, floor: Tick) {
        self.created = self.created.filter(|rank| rank.tick >= floor);
        self.deleted = self.deleted.filter(|rank| rank.tick >= floor);
        self.expires = self.expires.filter(|(rank, _)| rank.tick >= floor);
        self.fields.retain(|(_, field)| field.rank.tick >= floor);
    }
}

/// What is kept of all writes to a link: the highest, and the authors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkCell {
    pub(super) rank: Rank,
    /// The highest write made the link; else it removed it.
    pub(super) is_linked: bool,
    pub(super) versions: Versions,
}

impl LinkCell {
    pub(super) fn join(&mut self, other: &LinkCell) {
        if other.rank > self.rank {
            (self.rank, self.is_linked) = (other.rank, other.is_linked);
        }
        self.versions.join(&other.versions);
    }
}
