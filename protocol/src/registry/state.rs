//! The state of the registry, and how entries of the log change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::id::{Hash, NodeId, Step};
use crate::machine::Outbox;
use crate::projection::{EntryRef, Frontier, Head, Outcome, Projection, Replay, SnapshotError, Stamp};

use super::cbor::Writer;
use super::entry::{Entry, EntryCell, LinkCell};
use super::fault::Fault;
use super::name::{EntryKey, Link, Reverse};
use super::operation::{Action, FIELDS_MAX, Operation};
use super::rank::{Rank, Tick};
use super::sethash::SetHash;
use super::versions::Versions;
use super::{CATEGORY, snapshot};

/// What an entry of the log changed for those who look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry is there (no `old`), is another, or is gone (no `new`). Running out of time is no change: watchers
    /// see in the entry when it expires.
    Entry {
        /// The entry as it was.
        old: Option<Box<Entry>>,
        /// The entry as it is.
        new: Option<Box<Entry>>,
    },
    /// There is a link.
    Linked(Link),
    /// There is a link no more.
    Unlinked(Link),
}

/// Why an action cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Only what is there can be updated or deleted.
    #[error("there is no {0}")]
    NotFound(String),
    /// It would not be a good operation.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries, expired ones included.
    pub entries: usize,
    /// Entries and latent updates of which only tombstones or nothing is seen.
    pub entry_tombstones: usize,
    /// Links.
    pub links: usize,
    /// Links that are kept only to stay removed.
    pub link_tombstones: usize,
}

/// All entries and links. See the [module](super).
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) entries: BTreeMap<EntryKey, EntryCell>,
    pub(super) links: BTreeMap<Link, LinkCell>,
    pub(super) frontier: Frontier,
    /// The links that are seen, from both ends. Follows from the above, as does what comes below.
    pub(super) outgoing: BTreeSet<Link>,
    pub(super) incoming: BTreeSet<Reverse>,
    entry_count: usize,
    link_count: usize,
    set: SetHash,
    heads_digest: OnceLock<Hash>,
    refused: [u64; Fault::COUNT],
}

impl State {
    /// An empty registry.
    pub fn new() -> Self {
        State::default()
    }

    /// The operation that does this, written at step `now`: it comes after all writes on the same thing that this
    /// state contains, and so wins over them on every node.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] for an update or delete of an entry, or an unlink of a link, that is not there (for
    /// an update: not there at `now`), and [`WriteError::Fault`] if the action is over a limit.
    pub fn write(&self, action: Action, now: Step) -> Result<Operation, WriteError> {
        let after = match &action {
            Action::Put { key, .. } => self.entries.get(key).and_then(EntryCell::top),
            Action::Update { key, fields, .. } => {
                let cell = self.entries.get(key).filter(|cell| cell.is_live(now));
                let cell = cell.ok_or_else(|| WriteError::NotFound(key.to_string()))?;
                let added = fields.keys().filter(|name| cell.place(name).is_err()).count();
                if cell.fields.len() + added > FIELDS_MAX {
                    return Err(Fault::TooManyFields.into());
                }
                cell.top()
            }
            Action::Delete { key } => {
                let cell = self.entries.get(key).filter(|cell| cell.created.is_some());
                let cell = cell.ok_or_else(|| WriteError::NotFound(key.to_string()))?;
                cell.top().max(self.links_of(key).filter_map(|link| self.link_rank(link)).max())
            }
            Action::Link(link) => self.link_floor(link).max(self.link_rank(link)),
            Action::Unlink(link) if self.is_linked(link) => self.link_rank(link),
            Action::Unlink(link) => return Err(WriteError::NotFound(link.to_string())),
        };
        let after = after.map(|rank| rank.tick.min(Tick::last_allowed(now)));
        let operation = Operation { action, after };
        operation.encode()?;
        Ok(operation)
    }

    /// The step below which all entries of the log are contained or void.
    pub fn floor(&self) -> Step {
        self.frontier.floor
    }

    /// True if this author's log was cut.
    pub fn is_cut(&self, author: &NodeId) -> bool {
        self.frontier.cuts.contains_key(author)
    }

    /// True if it is a fold of entries and nothing else: no log was cut, and nothing compacted. Only then does it hold
    /// the same bytes on all nodes with the same entries.
    pub fn is_bare(&self) -> bool {
        self.frontier.cuts.is_empty() && self.frontier.floor == Step(0)
    }

    /// How many entries and links there are, and how many are kept only to stay away.
    pub fn counts(&self) -> Counts {
        Counts {
            entries: self.entry_count,
            entry_tombstones: self.entries.len() - self.entry_count,
            links: self.link_count,
            link_tombstones: self.links.len() - self.link_count,
        }
    }

    /// How many payloads were refused for each reason since the start; one that is applied twice counts twice.
    pub fn refused(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.iter().copied().zip(self.refused.iter().copied())
    }

    /// Joins another state into this one, as if every entry that it has seen had been applied here.
    ///
    /// Answers [`Replay::Needed`] if one of the two had taken back entries that the other has.
    pub fn merge(&mut self, other: &State, out: &mut Outbox<Change>) -> Replay {
        let mut other = other.clone();
        let mut nobody = Outbox::new();
        let mut replay = Replay::NotNeeded;
        for (author, end) in self.frontier.cuts.clone() {
            if other.cut(author, end, &mut nobody) == Replay::Needed {
                replay = Replay::Needed;
            }
        }
        for (author, end) in other.frontier.cuts.clone() {
            if self.cut(author, end, out) == Replay::Needed {
                replay = Replay::Needed;
            }
        }
        let floor = self.frontier.floor.max(other.frontier.floor);
        let mut olds: BTreeMap<EntryKey, Option<Entry>> = BTreeMap::new();
        if self.frontier.floor < floor {
            olds.extend(self.entries.iter().map(|(key, cell)| (key.clone(), cell.view(key))));
        }
        // Whoever has the higher floor knows all that there was before it; what it does not have is void.
        for state in [&mut *self, &mut other] {
            if state.frontier.floor < floor {
                state.forget_before(Tick::start_of(floor));
            }
        }
        self.frontier.floor = floor;
        for (author, head) in other.frontier.heads {
            let ours = self.frontier.heads.entry(author).or_insert(head);
            *ours = (*ours).max(head);
        }
        for (key, theirs) in other.entries {
            let cell = self.entries.entry(key.clone()).or_default();
            olds.entry(key.clone()).or_insert_with(|| cell.view(&key));
            cell.join(theirs);
        }
        for (key, old) in olds {
            push_entry(old, self.entries.get(&key).and_then(|cell| cell.view(&key)), out);
        }
        for (link, theirs) in other.links {
            match self.links.get_mut(&link) {
                Some(ours) => ours.join(&theirs),
                None => {
                    self.links.insert(link, theirs);
                }
            }
        }
        self.derive(out);
        self.collect();
        replay
    }

    /// Raises the floor and drops what no write from there on can be below: tombstones, and updates of entries that
    /// are not there. The hash stays the same.
    ///
    /// Only for who knows that no log will take an entry with a step below `floor` any more, nor be cut below it.
    pub fn compact(&mut self, floor: Step) {
        self.frontier.floor = self.frontier.floor.max(floor);
        self.collect();
    }

    fn collect(&mut self) {
        let floor = Tick::start_of(self.frontier.floor);
        // A link that only a delete keeps away is older than the delete: it goes no later than that does.
        let outgoing = &self.outgoing;
        self.links.retain(|link, cell| cell.rank.tick >= floor || outgoing.contains(link));
        self.entries.retain(|_, cell| !cell.is_garbage(floor));
    }

    /// Drops every write before the tick.
    fn forget_before(&mut self, floor: Tick) {
        for cell in self.entries.values_mut() {
            cell.forget_before(floor);
        }
        self.links.retain(|_, cell| cell.rank.tick >= floor);
    }

    /// Applies an operation of this rank.
    fn perform(&mut self, action: Action, stamp: &Stamp, rank: Rank, out: &mut Outbox<Change>) {
        let expires = |ttl: Option<u64>| ttl.map(|steps| stamp.step.saturating_add(steps));
        let (key, delta) = match action {
            Action::Put { key, ttl, fields } => (key, EntryCell::put(rank, expires(ttl), fields)),
            Action::Update { key, ttl, fields } => (key, EntryCell::update(rank, expires(ttl), fields)),
            Action::Delete { key } => (key, EntryCell::delete(rank)),
            Action::Link(link) => return self.perform_link(&link, true, stamp, rank, out),
            Action::Unlink(link) => return self.perform_link(&link, false, stamp, rank, out),
        };
        let cell = self.entries.entry(key.clone()).or_default();
        let (old, old_deleted) = (cell.view(&key), cell.deleted);
        cell.join(delta);
        cell.versions.note(stamp);
        let (new, deleted) = (cell.view(&key), cell.deleted);
        self.count_entry(old.as_ref(), new.as_ref());
        push_entry(old, new, out);
        if deleted != old_deleted {
            for link in self.links_of(&key).cloned().collect::<Vec<_>>() {
                let rank = self.link_rank(&link);
                self.settle_link(&link, rank, out);
            }
        }
    }

    fn perform_link(
        &mut self,
        link: &Link,
        is_linked: bool,
        stamp: &Stamp,
        rank: Rank,
        out: &mut Outbox<Change>,
    ) {
        let delta = LinkCell { rank, is_linked, versions: Versions::default() };
        let old = self.link_rank(link);
        let cell = self.links.entry(link.clone()).or_insert_with(|| delta.clone());
        cell.join(&delta);
        cell.versions.note(stamp);
        self.settle_link(link, old, out);
    }

    /// Brings what follows from a link up to date; it was written by `old` before, if at all.
    fn settle_link(&mut self, link: &Link, old: Option<Rank>, out: &mut Outbox<Change>) {
        let was = self.is_linked(link);
        let Some(cell) = self.links.get(link) else { return };
        let new = cell.rank;
        let is = cell.is_linked && Some(new) > self.link_floor(link);
        if let (true, Some(old)) = (was, old)
            && (!is || old != new)
        {
            self.set.remove(&link_item(link, &old));
        }
        if is && (!was || old != Some(new)) {
            self.set.add(&link_item(link, &new));
        }
        if is && !was {
            self.outgoing.insert(link.clone());
            self.incoming.insert(Reverse(link.clone()));
            self.link_count += 1;
            out.push(Change::Linked(link.clone()));
        } else if was && !is {
            self.outgoing.remove(link);
            self.incoming.remove(&Reverse(link.clone()));
            self.link_count -= 1;
            out.push(Change::Unlinked(link.clone()));
        }
    }

    /// The highest delete of either end: a link below it is removed.
    fn link_floor(&self, link: &Link) -> Option<Rank> {
        let deleted = |key| self.entries.get(key).and_then(|cell: &EntryCell| cell.deleted);
        deleted(&link.from).max(deleted(&link.to))
    }

    pub(super) fn link_rank(&self, link: &Link) -> Option<Rank> {
        self.links.get(link).map(|cell| cell.rank)
    }

    pub(super) fn is_linked(&self, link: &Link) -> bool {
        self.outgoing.contains(link)
    }

    /// The links that are seen from an entry.
    pub(super) fn links_from<'a>(&'a self, key: &EntryKey) -> impl Iterator<Item = &'a Link> + use<'a> {
        let key = key.clone();
        self.outgoing.range(Link::first_from(&key)..).take_while(move |link| link.from == key)
    }

    /// The links that are seen to an entry.
    pub(super) fn links_to<'a>(&'a self, key: &EntryKey) -> impl Iterator<Item = &'a Link> + use<'a> {
        let key = key.clone();
        let first = Reverse(Link::first_to(&key));
        self.incoming.range(first..).map(|reverse| &reverse.0).take_while(move |link| link.to == key)
    }

    /// The links that are seen of an entry, in both directions; one to itself comes twice.
    fn links_of<'a>(&'a self, key: &EntryKey) -> impl Iterator<Item = &'a Link> + use<'a> {
        self.links_from(key).chain(self.links_to(key))
    }

    fn count_entry(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let [old, new] = [old, new].map(|entry| entry.map(Entry::item));
        if old == new {
            return;
        }
        if let Some(item) = old {
            self.set.remove(&item);
            self.entry_count -= 1;
        }
        if let Some(item) = new {
            self.set.add(&item);
            self.entry_count += 1;
        }
    }

    /// Makes anew what follows from entries and links, and says which links have come and gone.
    pub(super) fn derive(&mut self, out: &mut Outbox<Change>) {
        let before = std::mem::take(&mut self.outgoing);
        self.incoming.clear();
        (self.set, self.entry_count, self.link_count) = (SetHash::default(), 0, 0);
        for (key, cell) in &self.entries {
            if let Some(entry) = cell.view(key) {
                self.set.add(&entry.item());
                self.entry_count += 1;
            }
        }
        for (link, cell) in &self.links {
            if cell.is_linked && Some(cell.rank) > self.link_floor(link) {
                self.set.add(&link_item(link, &cell.rank));
                self.link_count += 1;
                self.outgoing.insert(link.clone());
                self.incoming.insert(Reverse(link.clone()));
            }
        }
        self.heads_digest = OnceLock::new();
        for link in before.difference(&self.outgoing) {
            out.push(Change::Unlinked(link.clone()));
        }
        for link in self.outgoing.difference(&before) {
            out.push(Change::Linked(link.clone()));
        }
    }

    /// Which entries of the log are contained, as one hash: equal on nodes with the same heads.
    pub(super) fn heads_digest(&self) -> Hash {
        *self.heads_digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new_derive_key("omnimesh 2026-11 registry heads");
            for (author, head) in &self.frontier.heads {
                hasher.update(author.as_bytes());
                hasher.update(&head.seq.0.to_le_bytes());
                hasher.update(head.hash.as_bytes());
            }
            Hash::from_bytes(*hasher.finalize().as_bytes())
        })
    }

    /// For tests: everything that follows from entries and links is as if made anew.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let mut anew = self.clone();
        let mut changes = Outbox::new();
        anew.derive(&mut changes);
        assert!(changes.is_empty(), "links that are seen follow from what is kept: {changes:?}");
        assert_eq!(anew.incoming, self.incoming);
        assert_eq!(anew.set, self.set, "the hash follows from what is seen");
        assert_eq!(anew.counts(), self.counts());
        assert_eq!(anew.heads_digest(), self.heads_digest());
        for cell in self.entries.values() {
            let mut normal = cell.clone();
            normal.normalise();
            assert_eq!(normal, *cell);
        }
    }
}

impl Projection for State {
    type Change = Change;

    fn apply(&mut self, entry: &EntryRef<'_>, out: &mut Outbox<Change>) -> Outcome {
        match self.frontier.admit(entry) {
            Err(outcome) => return outcome,
            Ok(true) => self.heads_digest = OnceLock::new(),
            Ok(false) => {}
        }
        if entry.category != CATEGORY {
            return Outcome::OtherCategory;
        }
        let stamp = entry.stamp();
        let decoded = Operation::decode(entry.payload)
            .and_then(|operation| Ok((Rank::new(&stamp, operation.after)?, operation.action)));
        match decoded {
            Ok((rank, action)) => {
                self.perform(action, &stamp, rank, out);
                Outcome::Applied
            }
            Err(fault) => {
                self.refused[fault as usize] += 1;
                Outcome::Refused(fault.code())
            }
        }
    }

    fn cut(&mut self, author: NodeId, end: Option<Head>, out: &mut Outbox<Change>) -> Replay {
        let Some(from) = self.frontier.cut(author, end) else { return Replay::NotNeeded };
        let counted = (self.entries.len(), self.links.len());
        self.entries.retain(|key, cell| {
            let is_touched = cell.versions.may_contain(&author, from);
            if is_touched {
                push_entry(cell.view(key), None, out);
            }
            !is_touched
        });
        self.links.retain(|_, cell| !cell.versions.may_contain(&author, from));
        self.heads_digest = OnceLock::new();
        if counted == (self.entries.len(), self.links.len()) {
            return Replay::NotNeeded;
        }
        self.derive(out);
        Replay::Needed
    }

    fn hash(&self) -> Hash {
        self.set.digest()
    }

    fn heads(&self) -> &BTreeMap<NodeId, Head> {
        &self.frontier.heads
    }

    fn snapshot(&self) -> Vec<u8> {
        snapshot::encode(self)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        *self = snapshot::decode(bytes)?;
        Ok(())
    }
}

fn link_item(link: &Link, rank: &Rank) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(7);
    writer.unsigned(1);
    link.write(&mut writer);
    rank.write(&mut writer);
    writer.bytes
}

fn push_entry(old: Option<Entry>, new: Option<Entry>, out: &mut Outbox<Change>) {
    // The version vector grows with writes that lose, too; that alone is no change.
    let is_same = match (&old, &new) {
        (Some(old), Some(new)) => {
            (old.created, old.expires, &old.fields) == (new.created, new.expires, &new.fields)
        }
        (None, None) => true,
        _ => false,
    };
    if !is_same {
        out.push(Change::Entry { old: old.map(Box::new), new: new.map(Box::new) });
    }
}
