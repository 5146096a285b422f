//! What the registry shows, computed anew from all operations, without any of its cleverness.

use std::collections::{BTreeMap, BTreeSet};

use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::registry::{
    AHEAD_STEPS_MAX, Action, CATEGORY, Direction, Encoded, EntryKey, Link, ListQuery, State,
};
use omnimesh_protocol::{NodeId, Seq, Step};

use crate::history::Written;

/// (step, count), author, number.
pub(crate) type Place = ((u64, u32), NodeId, Seq);

pub(crate) type Shown = (BTreeMap<EntryKey, (Option<Step>, BTreeMap<String, Encoded>)>, BTreeSet<Link>);

/// The operations that count, with their places.
fn operations(history: &[Written]) -> Vec<(Place, Step, Action)> {
    let places = history.iter().filter(|written| written.category == CATEGORY).filter_map(|written| {
        let operation = written.operation.clone()?;
        let mut tick = (written.step.0, 0);
        if let Some(after) = operation.after {
            if after.step.0 > written.step.0 + AHEAD_STEPS_MAX {
                return None;
            }
            tick = tick.max((after.step.0, after.count + 1));
        }
        Some(((tick, written.author, written.seq), written.step, operation.action))
    });
    let mut all: Vec<_> = places.collect();
    all.sort_by_key(|(place, ..)| *place);
    all.dedup_by_key(|(place, ..)| *place);
    all
}

/// What there is to be seen after all of these, expired entries included.
pub(crate) fn shown(history: &[Written]) -> Shown {
    let all = operations(history);
    let mut entries: BTreeMap<EntryKey, (Option<Step>, BTreeMap<String, Encoded>)> = BTreeMap::new();
    let mut links = BTreeSet::new();
    // From the lowest to the highest, as if it had happened in this order.
    for (_, step, action) in all {
        match action {
            Action::Put { key, ttl, fields } => {
                let fields = fields.into_iter().map(|(name, v)| (name.as_str().to_owned(), v)).collect();
                entries.insert(key, (ttl.map(|ttl| Step(step.0 + ttl)), fields));
            }
            Action::Update { key, ttl, fields } => {
                let Some((expires, known)) = entries.get_mut(&key) else { continue };
                if let Some(ttl) = ttl {
                    *expires = Some(Step(step.0 + ttl));
                }
                for (name, v) in fields {
                    if v.is_null() {
                        known.remove(name.as_str());
                    } else {
                        known.insert(name.as_str().to_owned(), v);
                    }
                }
            }
            Action::Delete { key } => {
                entries.remove(&key);
                links.retain(|link: &Link| link.from != key && link.to != key);
            }
            Action::Link(link) => {
                links.insert(link);
            }
            Action::Unlink(link) => {
                links.remove(&link);
            }
        }
    }
    (entries, links)
}

/// What the state shows.
pub(crate) fn of_state(state: &State) -> Shown {
    // Before all steps nothing has expired yet.
    let page = state.list(&ListQuery { limit: 1000, ..ListQuery::default() }, Step(0)).value;
    assert_eq!(page.next, None);
    let mut links = BTreeSet::new();
    for key in state.counts_keys() {
        links.extend(state.links(&key, Direction::Out, &[], Step(0)).value.into_iter().map(|view| view.link));
    }
    let entries = page.entries.into_iter().map(|entry| {
        let fields = entry.fields.into_iter().map(|(name, field)| (name.as_str().to_owned(), field.value));
        (entry.key, (entry.expires, fields.collect()))
    });
    (entries.collect(), links)
}

/// The keys that the histories use.
trait Keys {
    fn counts_keys(&self) -> Vec<EntryKey>;
}

impl Keys for State {
    fn counts_keys(&self) -> Vec<EntryKey> {
        ["agent/a", "agent/b", "model/a", "service/a"].map(crate::history::key).into()
    }
}

/// Equal in all that may be compared.
pub(crate) fn assert_same(a: &State, b: &State) {
    assert_eq!(of_state(a), of_state(b));
    assert_eq!(a.heads(), b.heads());
    assert_eq!(a.hash(), b.hash());
    assert!(a.snapshot() == b.snapshot(), "the snapshots differ");
}
