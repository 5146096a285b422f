//! Questions to the registry. Every answer says as of which step, and of which entries of the log.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::id::{Hash, Step};

use super::entry::{Entry, EntryCell};
use super::name::{EntryKey, EntryKind, FieldName, Link, Relation};
use super::rank::Rank;
use super::state::State;
use super::value::Encoded;
use super::versions::Versions;

/// Most entries in a page. Default: guess.
pub const PAGE_MAX: usize = 1000;
/// Most entries that a list looks at for one page, so that a filter that matches nothing ends. Default: guess, some
/// milliseconds.
pub const SCAN_MAX: usize = 20_000;
/// Furthest that a walk goes. Default: guess.
pub const WALK_DEPTH_MAX: usize = 32;
/// Most entries that a walk reaches, and ten times as many links that it looks at. Default: guess.
pub const WALK_ENTRIES_MAX: usize = 10_000;

/// Which state an answer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The step for which it is true: what had expired by then is left out.
    pub step: Step,
    /// How many authors' entries the state contains.
    pub authors: usize,
    /// The hash of all authors and their heads: equal on nodes that have the same entries.
    pub heads: Hash,
}

/// An answer, and which state it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// Which state.
    pub as_of: AsOf,
    /// The answer.
    pub value: T,
}

/// What the field of an entry must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The field has this value; of this type, too: 1 is not 1.0.
    Equals(FieldName, Encoded),
    /// There is such a field.
    Exists(FieldName),
}

impl Filter {
    fn matches(&self, cell: &EntryCell) -> bool {
        match self {
            Filter::Equals(name, value) => cell.shown(name).is_some_and(|field| field.value == *value),
            Filter::Exists(name) => cell.shown(name).is_some(),
        }
    }
}

/// Which entries to list, by key.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only those of this kind.
    pub kind: Option<EntryKind>,
    /// Only those whose name begins with this.
    pub prefix: String,
    /// Only those that match all of these.
    pub filters: Vec<Filter>,
    /// Only those after this key: where the last page ended.
    pub after: Option<EntryKey>,
    /// At most so many; at least 1 and at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Some entries, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, by key.
    pub entries: Vec<Entry>,
    /// What to give as `after` for the next page; `None` if this is the last. A page may have fewer entries than
    /// asked for, even none, and yet not be the last.
    pub next: Option<EntryKey>,
}

/// Which way along links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From an entry to those that it links to.
    #[default]
    Out,
    /// From an entry to those that link to it.
    In,
    /// Both ways.
    Both,
}

/// Where to walk.
#[derive(Clone, Debug)]
pub struct WalkQuery {
    /// Where to begin.
    pub from: EntryKey,
    /// Only along these relations; along all if there is none.
    pub relations: Vec<Relation>,
    /// Which way.
    pub direction: Direction,
    /// At most so many links away, and at most [`WALK_DEPTH_MAX`].
    pub depth_max: usize,
    /// At most so many entries, and at most [`WALK_ENTRIES_MAX`].
    pub limit: usize,
}

/// An entry that a walk has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The entry.
    pub entry: Entry,
    /// How many links away from the beginning.
    pub depth: usize,
    /// The link by which it was reached first.
    pub via: Link,
}

/// What a walk has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Each entry once, the nearest first; not the one where the walk began.
    pub reached: Vec<Reached>,
    /// A limit on entries or links ended the walk (the depth does not count).
    pub is_cut_short: bool,
}

/// A link as it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// The link.
    pub link: Link,
    /// The write that made it; its author is who said so.
    pub rank: Rank,
    /// Whose writes it contains, those that lost included.
    pub versions: Versions,
    /// False if the entry at the other end is not there, or has expired: a link may come before what it links.
    pub is_whole: bool,
}

impl State {
    /// The entry with this key, if there is one that has not expired at step `now`.
    pub fn get(&self, key: &EntryKey, now: Step) -> Answer<Option<Entry>> {
        self.answer(now, self.live(key, now))
    }

    /// Entries by key, page by page.
    pub fn list(&self, query: &ListQuery, now: Step) -> Answer<Page> {
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut page = Page { entries: Vec::new(), next: None };
        // Within one kind, the names that begin with the prefix follow one another.
        let first = query.kind.clone().map(|kind| EntryKey::lowest(kind, &query.prefix));
        let start = match (&query.after, first) {
            (Some(after), Some(first)) if *after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let mut last_seen = None;
        for (looked_at, (key, cell)) in self.entries.range((start, Bound::Unbounded)).enumerate() {
            let is_of_kind = query.kind.as_ref().is_none_or(|kind| key.kind == *kind);
            let has_prefix = key.name.as_str().starts_with(&query.prefix);
            if let Some(kind) = &query.kind
                && (key.kind > *kind
                    || (is_of_kind && !has_prefix && key.name.as_str() > query.prefix.as_str()))
            {
                break;
            }
            if page.entries.len() == limit || looked_at == SCAN_MAX {
                page.next = last_seen;
                break;
            }
            last_seen = Some(key.clone());
            if is_of_kind
                && has_prefix
                && cell.is_live(now)
                && query.filters.iter().all(|filter| filter.matches(cell))
                && let Some(entry) = cell.view(key)
            {
                page.entries.push(entry);
            }
        }
        self.answer(now, page)
    }

    /// The links of an entry, at most [`PAGE_MAX`]: outgoing ones first, by relation and other end.
    pub fn links(
        &self,
        of: &EntryKey,
        direction: Direction,
        relations: &[Relation],
        now: Step,
    ) -> Answer<Vec<LinkView>> {
        let views = self.ends(of, direction, relations).take(PAGE_MAX).filter_map(|(link, other)| {
            let is_whole = self.entries.get(&other).is_some_and(|cell| cell.is_live(now));
            let cell = self.links.get(&link)?;
            Some(LinkView { rank: cell.rank, versions: cell.versions.clone(), link, is_whole })
        });
        self.answer(now, views.collect())
    }

    /// The entries that can be reached along links, the nearest first. Each is reached once, so circles end. Entries
    /// that are not there or have expired are not walked through; nothing is reached from one.
    pub fn walk(&self, query: &WalkQuery, now: Step) -> Answer<Walked> {
        let depth_max = query.depth_max.min(WALK_DEPTH_MAX);
        let limit = query.limit.min(WALK_ENTRIES_MAX);
        let mut walked = Walked { reached: Vec::new(), is_cut_short: false };
        let mut links_left = WALK_ENTRIES_MAX * 10;
        let mut seen = BTreeSet::from([query.from.clone()]);
        let mut next = VecDeque::new();
        if self.live(&query.from, now).is_some() {
            next.push_back((query.from.clone(), 0));
        }
        'walk: while let Some((key, depth)) = next.pop_front() {
            if depth == depth_max {
                continue;
            }
            for (via, other) in self.ends(&key, query.direction, &query.relations) {
                if links_left == 0 {
                    walked.is_cut_short = true;
                    break 'walk;
                }
                links_left -= 1;
                if seen.contains(&other) {
                    continue;
                }
                let Some(entry) = self.live(&other, now) else { continue };
                if walked.reached.len() == limit {
                    walked.is_cut_short = true;
                    break 'walk;
                }
                seen.insert(other.clone());
                walked.reached.push(Reached { entry, depth: depth + 1, via });
                next.push_back((other, depth + 1));
            }
        }
        self.answer(now, walked)
    }

    /// Entries that expired at least `grace` steps before `now`, at most `limit`. They stay until they are deleted;
    /// whoever has written them should do that.
    pub fn expired(&self, now: Step, grace: u64, limit: usize) -> Vec<EntryKey> {
        let past = now.saturating_sub(grace);
        let expired = self.entries.iter().filter(|(_, cell)| cell.created.is_some() && !cell.is_live(past));
        expired.map(|(key, _)| key.clone()).take(limit).collect()
    }

    /// Which state answers are from, for this step.
    pub fn as_of(&self, now: Step) -> AsOf {
        AsOf { step: now, authors: self.frontier.heads.len(), heads: self.heads_digest() }
    }

    fn live(&self, key: &EntryKey, now: Step) -> Option<Entry> {
        self.entries.get(key).filter(|cell| cell.is_live(now)).and_then(|cell| cell.view(key))
    }

    /// Links of an entry and the entry at the other end.
    fn ends<'a>(
        &'a self,
        of: &EntryKey,
        direction: Direction,
        relations: &'a [Relation],
    ) -> impl Iterator<Item = (Link, EntryKey)> + 'a {
        let outgoing = (direction != Direction::In).then(|| self.links_from(of));
        let incoming = (direction != Direction::Out).then(|| self.links_to(of));
        let outgoing = outgoing.into_iter().flatten().map(|link| (link.clone(), link.to.clone()));
        let incoming = incoming.into_iter().flatten().map(|link| (link.clone(), link.from.clone()));
        let all = outgoing.chain(incoming);
        all.filter(|(link, _)| relations.is_empty() || relations.contains(&link.relation))
    }

    fn answer<T>(&self, now: Step, value: T) -> Answer<T> {
        Answer { as_of: self.as_of(now), value }
    }
}
