//! The documents of the registry.

use std::collections::BTreeMap;

use omnimesh_protocol::id::{Hash, NodeId, Seq, Step};
use omnimesh_protocol::registry::{
    self, AsOf, Change, FIELDS_MAX, FieldName, Fields, Found, Hit, Link, LinkView, Page, Rank, Reached,
    Walked,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::LogAppended;
use super::strict::{whole, whole_or_null};
use super::value::{ValueError, encode, to_json};
use crate::api::error::{QUOTED_CHARS_MAX, cut};

/// Which state an answer of the registry is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOfView {
    /// The step for which it is true: what had expired by then is left out.
    pub step: Step,
    /// How many authors' entries the state contains.
    pub authors: usize,
    /// The hash of all authors' heads: equal on nodes that have the same entries.
    pub heads: Hash,
}

impl From<AsOf> for AsOfView {
    fn from(as_of: AsOf) -> Self {
        let AsOf { step, authors, heads } = as_of;
        AsOfView { step, authors, heads }
    }
}

/// Who wrote something, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteView {
    /// The step that the write counts for.
    pub step: Step,
    /// Who.
    pub author: NodeId,
    /// The write's place in the author's log.
    pub seq: Seq,
}

impl From<Rank> for WriteView {
    fn from(rank: Rank) -> Self {
        WriteView { step: rank.tick.step, author: rank.author, seq: rank.seq }
    }
}

/// The last write of one author that an entry contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// Who.
    pub author: NodeId,
    /// The write's place in the author's log.
    pub seq: Seq,
}

/// An entry of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryView {
    /// `kind/name`.
    pub key: String,
    /// Its kind.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
    /// What it says: JSON, with bytes as `{"base64": "…"}`.
    pub fields: BTreeMap<String, Json>,
    /// The write that made it.
    pub created: WriteView,
    /// The last write that changed it.
    pub updated: WriteView,
    /// The step from which on it is shown no more; none if it does not expire.
    pub expires_step: Option<Step>,
    /// The version vector: whose writes it contains, those that lost included.
    pub versions: Vec<VersionView>,
    /// False if it had more authors than are remembered.
    pub versions_complete: bool,
}

impl From<&registry::Entry> for EntryView {
    fn from(entry: &registry::Entry) -> Self {
        let fields = entry.fields.iter();
        EntryView {
            key: entry.key.to_string(),
            kind: entry.key.kind.to_string(),
            name: entry.key.name.to_string(),
            fields: fields.map(|(name, field)| (name.to_string(), to_json(&field.value.decode()))).collect(),
            created: entry.created.into(),
            updated: entry.updated.into(),
            expires_step: entry.expires,
            versions: entry.versions.iter().map(|(author, seq)| VersionView { author, seq }).collect(),
            versions_complete: entry.versions.is_complete(),
        }
    }
}

/// One entry: `GET /api/v1/registry/{kind}/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryEntry {
    /// Which state it is from.
    pub as_of: AsOfView,
    /// The entry.
    pub entry: EntryView,
}

/// Entries by key: `GET /api/v1/registry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryPage {
    /// Which state they are from.
    pub as_of: AsOfView,
    /// The entries.
    pub entries: Vec<EntryView>,
    /// What to give as `after` for more; none if this is all. A page may be empty and yet not the last.
    pub next: Option<String>,
}

impl From<registry::Answer<Page>> for RegistryPage {
    fn from(answer: registry::Answer<Page>) -> Self {
        RegistryPage {
            as_of: answer.as_of.into(),
            entries: answer.value.entries.iter().map(EntryView::from).collect(),
            next: answer.value.next.map(|next| next.to_string()),
        }
    }
}

/// An entry that a search has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HitView {
    /// How well it fits; higher is better.
    pub score: u64,
    /// The entry.
    pub entry: EntryView,
}

/// Entries that have all words of a text: `GET /api/v1/registry/search`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryFound {
    /// Which state they are from.
    pub as_of: AsOfView,
    /// The best first.
    pub hits: Vec<HitView>,
    /// How many entries fit, those beyond the limit included.
    pub matches: usize,
    /// True if there were more entries than a search looks at.
    pub cut_short: bool,
}

impl From<registry::Answer<Found>> for RegistryFound {
    fn from(answer: registry::Answer<Found>) -> Self {
        let Found { hits, matches, is_cut_short: cut_short } = answer.value;
        let view = |hit: &Hit| HitView { score: hit.score, entry: EntryView::from(&hit.entry) };
        RegistryFound {
            as_of: answer.as_of.into(),
            hits: hits.iter().map(view).collect(),
            matches,
            cut_short,
        }
    }
}

/// A link between two entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkName {
    /// From this entry.
    pub from: String,
    /// Of this sort.
    pub relation: String,
    /// To this entry.
    pub to: String,
}

impl From<&Link> for LinkName {
    fn from(link: &Link) -> Self {
        LinkName { from: link.from.to_string(), relation: link.relation.to_string(), to: link.to.to_string() }
    }
}

/// A link, and who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkOfEntry {
    /// Which.
    #[serde(flatten)]
    pub link: LinkName,
    /// The write that made it.
    pub created: WriteView,
    /// False if the entry at the other end is not there, or has expired.
    pub whole: bool,
}

/// The links of an entry: `GET /api/v1/registry/{kind}/{name}/links`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLinks {
    /// Which state they are from.
    pub as_of: AsOfView,
    /// The links; a bounded number of them.
    pub links: Vec<LinkOfEntry>,
}

impl From<registry::Answer<Vec<LinkView>>> for RegistryLinks {
    fn from(answer: registry::Answer<Vec<LinkView>>) -> Self {
        let view = |view: &LinkView| LinkOfEntry {
            link: LinkName::from(&view.link),
            created: view.rank.into(),
            whole: view.is_whole,
        };
        RegistryLinks { as_of: answer.as_of.into(), links: answer.value.iter().map(view).collect() }
    }
}

/// An entry that a walk has reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReachedView {
    /// How many links away from the beginning.
    pub depth: usize,
    /// The link by which it was reached first.
    pub via: LinkName,
    /// The entry.
    pub entry: EntryView,
}

/// What can be reached along links: `GET /api/v1/registry/{kind}/{name}/walk`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryWalk {
    /// Which state it is from.
    pub as_of: AsOfView,
    /// Each entry once, the nearest first.
    pub reached: Vec<ReachedView>,
    /// True if a limit on entries or links ended the walk.
    pub cut_short: bool,
}

impl From<registry::Answer<Walked>> for RegistryWalk {
    fn from(answer: registry::Answer<Walked>) -> Self {
        let view = |reached: &Reached| ReachedView {
            depth: reached.depth,
            via: LinkName::from(&reached.via),
            entry: EntryView::from(&reached.entry),
        };
        RegistryWalk {
            as_of: answer.as_of.into(),
            reached: answer.value.reached.iter().map(view).collect(),
            cut_short: answer.value.is_cut_short,
        }
    }
}

/// What an entry is to be, or which fields are to be set: the body of `PUT` and `PATCH` on
/// `/api/v1/registry/{kind}/{name}`. Read strictly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryWriteRequest {
    /// The fields, as JSON. In a `PATCH`, null removes one.
    #[serde(default)]
    pub fields: BTreeMap<String, Json>,
    /// For how many steps from the write on it is shown; for ever if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_or_null")]
    pub ttl: Option<u64>,
    /// How many other nodes must have it on disk before it is answered.
    #[serde(default, deserialize_with = "whole")]
    pub replicas: usize,
}

impl RegistryWriteRequest {
    /// The fields as the registry has them.
    ///
    /// # Errors
    /// If a name or value is not allowed, or there are too many.
    pub fn to_fields(&self) -> Result<Fields, FieldError> {
        if self.fields.len() > FIELDS_MAX {
            return Err(FieldError::TooMany(self.fields.len()));
        }
        let field = |(name, value): (&String, &Json)| {
            let known =
                FieldName::new(name).map_err(|_| FieldError::Name(cut(name, QUOTED_CHARS_MAX).into()))?;
            let value = encode(value).map_err(|error| FieldError::Value { name: name.clone(), error })?;
            Ok((known, value))
        };
        self.fields.iter().map(field).collect()
    }
}

/// Why fields cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// That is no name.
    #[error("{0:?} is not the name of a field")]
    Name(String),
    /// There are more than an entry may have.
    #[error("{0} fields are over the limit of {FIELDS_MAX}")]
    TooMany(usize),
    /// The value is none.
    #[error("the field {name:?}: {error}")]
    Value {
        /// Of this field.
        name: String,
        /// Why.
        error: ValueError,
    },
}

/// A link to make: the body of `POST /api/v1/registry/links`. Read strictly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRequest {
    /// From this entry, `kind/name`.
    pub from: String,
    /// Of this sort.
    pub relation: String,
    /// To this entry, `kind/name`.
    pub to: String,
    /// How many other nodes must have it on disk before it is answered.
    #[serde(default, deserialize_with = "whole")]
    pub replicas: usize,
}

/// A change of the registry that is on this node's disk and that what is asked of this node contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryWritten {
    /// A state that contains it.
    pub as_of: AsOfView,
    /// The entry of the log that it is.
    #[serde(flatten)]
    pub appended: LogAppended,
}

/// A change of the registry as it happens: the `data` of the events in `GET /api/v1/registry/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryEvent {
    /// What happened; also the name of the server-sent event.
    pub change: RegistryChange,
    /// The entry it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The entry as it is now, or as it was before it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryView>,
    /// The link it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkName>,
}

/// What can happen in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryChange {
    /// There is an entry that was not there.
    Created,
    /// An entry has changed.
    Changed,
    /// An entry is gone.
    Deleted,
    /// There is a link.
    Linked,
    /// There is a link no more.
    Unlinked,
}

impl RegistryChange {
    /// Its name in JSON and in the event stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            RegistryChange::Created => "created",
            RegistryChange::Changed => "changed",
            RegistryChange::Deleted => "deleted",
            RegistryChange::Linked => "linked",
            RegistryChange::Unlinked => "unlinked",
        }
    }
}

impl From<&Change> for RegistryEvent {
    fn from(change: &Change) -> Self {
        let link = |change, link: &Link| RegistryEvent {
            change,
            key: None,
            entry: None,
            link: Some(LinkName::from(link)),
        };
        match change {
            Change::Linked(changed) => link(RegistryChange::Linked, changed),
            Change::Unlinked(changed) => link(RegistryChange::Unlinked, changed),
            Change::Entry { old, new } => {
                let change = match (old, new) {
                    (None, _) => RegistryChange::Created,
                    (Some(_), Some(_)) => RegistryChange::Changed,
                    (Some(_), None) => RegistryChange::Deleted,
                };
                let entry = new.as_deref().or(old.as_deref());
                RegistryEvent {
                    change,
                    key: entry.map(|entry| entry.key.to_string()),
                    entry: entry.map(EntryView::from),
                    link: None,
                }
            }
        }
    }
}
