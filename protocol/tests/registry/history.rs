//! Logs of a few authors who write to the same few things, as a list of operations that proptest can shrink.

use omnimesh_protocol::projection::{EntryRef, Head, Outcome, Projection, Replay};
use omnimesh_protocol::registry::{
    Action, CATEGORY, Change, Encoded, EntryKey, FieldName, Fields, Link, Operation, Relation, State, Tick,
    Value,
};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
use proptest::prelude::*;

pub(crate) const AUTHORS: u8 = 4;

/// One entry of a log.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) author: NodeId,
    pub(crate) seq: Seq,
    pub(crate) step: Step,
    pub(crate) category: &'static str,
    pub(crate) payload: Vec<u8>,
    /// `None` if the payload is none.
    pub(crate) operation: Option<Operation>,
}

impl Written {
    pub(crate) fn hash(&self) -> Hash {
        let name = [self.author.as_bytes().as_slice(), &self.seq.0.to_le_bytes()].concat();
        Hash::of(&name)
    }

    pub(crate) fn as_entry(&self) -> EntryRef<'_> {
        EntryRef {
            author: self.author,
            seq: self.seq,
            step: self.step,
            hash: self.hash(),
            category: self.category,
            payload: &self.payload,
        }
    }
}

pub(crate) fn author(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

pub(crate) fn key(text: &str) -> EntryKey {
    text.parse().unwrap()
}

pub(crate) fn link(from: &str, relation: &str, to: &str) -> Link {
    Link { from: key(from), relation: Relation::new(relation).unwrap(), to: key(to) }
}

pub(crate) fn value(value: impl Into<Value>) -> Encoded {
    value.into().encode().unwrap()
}

pub(crate) fn fields<V: Into<Value>>(pairs: impl IntoIterator<Item = (&'static str, V)>) -> Fields {
    pairs.into_iter().map(|(name, v)| (FieldName::new(name).unwrap(), value(v))).collect()
}

/// Applies entries and checks the state after each.
pub(crate) fn apply_all<'a>(
    state: &mut State,
    entries: impl IntoIterator<Item = &'a Written>,
) -> Vec<Change> {
    let mut out = Outbox::new();
    for entry in entries {
        state.apply(&entry.as_entry(), &mut out);
    }
    out.drain().collect()
}

pub(crate) fn fold<'a>(entries: impl IntoIterator<Item = &'a Written>) -> State {
    let mut state = State::new();
    apply_all(&mut state, entries);
    state
}

pub(crate) fn cut(state: &mut State, author: NodeId, from: Seq) -> Replay {
    let end = (from > Seq(1)).then(|| {
        let seq = from.saturating_sub(1);
        let name = [author.as_bytes().as_slice(), &seq.0.to_le_bytes()].concat();
        Head { seq, hash: Hash::of(&name) }
    });
    state.cut(author, end, &mut Outbox::new())
}

/// A writer of a log, for tests that say what is written one by one.
pub(crate) struct Author {
    id: NodeId,
    seq: Seq,
}

impl Author {
    pub(crate) fn new(n: u8) -> Self {
        Author { id: author(n), seq: Seq(0) }
    }

    /// Writes blindly: as if nothing had been seen.
    pub(crate) fn blind(&mut self, step: u64, action: Action) -> Written {
        self.written(step, Operation { action, after: None })
    }

    /// Writes after what the state contains, and applies it there.
    pub(crate) fn write(&mut self, state: &mut State, step: u64, action: Action) -> Written {
        let operation = state.write(action, Step(step)).unwrap();
        let written = self.written(step, operation);
        assert_eq!(state.apply(&written.as_entry(), &mut Outbox::new()), Outcome::Applied);
        state.check_invariants();
        written
    }

    fn written(&mut self, step: u64, operation: Operation) -> Written {
        self.seq = self.seq.saturating_add(1);
        Written {
            author: self.id,
            seq: self.seq,
            step: Step(step),
            category: CATEGORY,
            payload: operation.encode().unwrap(),
            operation: Some(operation),
        }
    }
}

const KEYS: [&str; 4] = ["agent/a", "agent/b", "model/a", "service/a"];
const FIELDS: [&str; 3] = ["x", "y", "longer name"];

fn any_key() -> impl Strategy<Value = EntryKey> {
    proptest::sample::select(&KEYS[..]).prop_map(key)
}

fn any_link() -> impl Strategy<Value = Link> {
    let relation = proptest::sample::select(&["uses", "runs"][..]);
    (any_key(), relation, any_key()).prop_map(|(from, relation, to)| Link {
        from,
        relation: Relation::new(relation).unwrap(),
        to,
    })
}

fn any_fields(nulls: bool) -> impl Strategy<Value = Fields> {
    let name = proptest::sample::select(&FIELDS[..]).prop_map(|name| FieldName::new(name).unwrap());
    let least = i64::from(!nulls);
    let value = (least..4).prop_map(|n| if n == 0 { value(Value::Null) } else { value(n) });
    proptest::collection::btree_map(name, value, 0..3)
}

fn any_action() -> impl Strategy<Value = Action> {
    let ttl = || proptest::option::weighted(0.3, 1_u64..6);
    prop_oneof![
        3 => (any_key(), ttl(), any_fields(false)).prop_map(|(key, ttl, fields)| Action::Put { key, ttl, fields }),
        4 => (any_key(), ttl(), any_fields(true))
            .prop_filter("an update of something", |(_, ttl, fields)| ttl.is_some() || !fields.is_empty())
            .prop_map(|(key, ttl, fields)| Action::Update { key, ttl, fields }),
        2 => any_key().prop_map(|key| Action::Delete { key }),
        3 => any_link().prop_map(Action::Link),
        2 => any_link().prop_map(Action::Unlink),
    ]
}

/// Author, steps since its last entry, what it does, and what it claims to have seen (relative to its step).
type Draft = (u8, u64, Action, Option<(u64, u32)>, u8);

fn any_draft() -> impl Strategy<Value = Draft> {
    let after = proptest::option::weighted(0.4, (0_u64..3, 0_u32..3));
    (0..AUTHORS, 0_u64..3, any_action(), after, 0_u8..20)
}

/// Logs that keep the rules of logs: contiguous numbers, steps that never decrease. One in twenty payloads is no
/// operation, one is of another category, and one claims too much.
pub(crate) fn any_history(entries_max: usize) -> impl Strategy<Value = Vec<Written>> {
    proptest::collection::vec(any_draft(), 0..entries_max).prop_map(|drafts| {
        let mut logs = [(0_u64, 1_u64); AUTHORS as usize];
        let written = drafts.into_iter().map(|(n, steps, action, after, chance)| {
            let (seq, step) = &mut logs[usize::from(n)];
            *seq += 1;
            *step += steps;
            let far = if chance == 0 { 40 } else { 0 };
            let after = after.map(|(ahead, count)| Tick { step: Step(*step + ahead + far), count });
            let operation = Operation { action, after };
            let is_garbage = chance == 1;
            Written {
                author: author(n),
                seq: Seq(*seq),
                step: Step(*step),
                category: if chance == 2 { "log" } else { CATEGORY },
                payload: if is_garbage { vec![0xff] } else { operation.encode().unwrap() },
                operation: (!is_garbage).then_some(operation),
            }
        });
        written.collect()
    })
}

/// A history, and an order of it in which some entries come twice.
pub(crate) fn shuffled(history: Vec<Written>) -> impl Strategy<Value = (Vec<Written>, Vec<Written>)> {
    let again = proptest::sample::subsequence(history.clone(), 0..=history.len());
    let all = again.prop_map(move |again| [history.clone(), again].concat());
    all.prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
}
