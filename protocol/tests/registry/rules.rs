//! Which write counts, case by case, as the table of the module says.

use omnimesh_protocol::projection::{Head, Outcome, Projection, Replay};
use omnimesh_protocol::registry::{
    Action, Change, Direction, FIELDS_MAX, Fault, FieldName, Fields, Operation, State, Tick, Value,
    WriteError,
};
use omnimesh_protocol::{Hash, Outbox, Seq, Step};

use crate::history::{Author, Written, author, cut, fields, fold, key, link, value};

fn put(name: &str, pairs: impl IntoIterator<Item = (&'static str, i64)>) -> Action {
    Action::Put { key: key(name), ttl: None, fields: fields(pairs) }
}

fn update(name: &str, pairs: impl IntoIterator<Item = (&'static str, i64)>) -> Action {
    Action::Update { key: key(name), ttl: None, fields: fields(pairs) }
}

fn delete(name: &str) -> Action {
    Action::Delete { key: key(name) }
}

/// What a fresh node sees of an entry's fields after these.
fn seen(written: &[&Written], name: &str) -> Option<Vec<(String, Value)>> {
    let entry = fold(written.iter().copied()).get(&key(name), Step(0)).value?;
    Some(entry.fields.iter().map(|(name, field)| (name.to_string(), field.value.decode())).collect())
}

fn is(pairs: &[(&str, i64)]) -> Option<Vec<(String, Value)>> {
    Some(pairs.iter().map(|(name, n)| ((*name).to_owned(), Value::from(*n))).collect())
}

#[test]
fn of_two_puts_the_higher_counts_with_all_its_fields() {
    let [mut a, mut b] = [1, 2].map(Author::new);
    let early = a.blind(10, put("tool/t", [("x", 1), ("y", 1)]));
    let late = b.blind(11, put("tool/t", [("x", 2)]));
    assert_eq!(seen(&[&early, &late], "tool/t"), is(&[("x", 2)]));
    // In one step the author decides.
    let same = a.blind(11, put("tool/t", [("x", 3)]));
    assert_eq!(seen(&[&late, &same], "tool/t"), is(&[("x", 2)]));
}

#[test]
fn updates_merge_field_by_field() {
    let [mut a, mut b] = [1, 2].map(Author::new);
    let made = a.blind(10, put("tool/t", [("x", 1), ("y", 1), ("z", 1)]));
    let ours = a.blind(12, update("tool/t", [("x", 2), ("y", 2)]));
    let theirs = b.blind(13, update("tool/t", [("y", 3)]));
    assert_eq!(seen(&[&made, &ours, &theirs], "tool/t"), is(&[("x", 2), ("y", 3), ("z", 1)]));
    let removed = Fields::from([(FieldName::new("x").unwrap(), value(Value::Null))]);
    let removal = b.blind(14, Action::Update { key: key("tool/t"), ttl: None, fields: removed });
    assert_eq!(seen(&[&removal, &made, &ours, &theirs], "tool/t"), is(&[("y", 3), ("z", 1)]));
}

#[test]
fn delete_and_put_go_by_rank_and_a_delete_wins_over_updates() {
    let [mut a, mut b] = [1, 2].map(Author::new);
    let made = a.blind(10, put("tool/t", [("x", 1)]));
    let gone = b.blind(12, delete("tool/t"));
    let late_update = a.blind(14, update("tool/t", [("x", 2)]));
    let anew = a.blind(13, put("tool/t", [("y", 1)]));
    assert_eq!(seen(&[&made, &gone], "tool/t"), None);
    assert_eq!(seen(&[&made, &gone, &late_update], "tool/t"), None);
    assert_eq!(seen(&[&made, &gone, &anew], "tool/t"), is(&[("y", 1)]));
    // An update above a put that made the entry anew counts, whatever it was meant for.
    assert_eq!(seen(&[&made, &gone, &anew, &late_update], "tool/t"), is(&[("x", 2), ("y", 1)]));
    assert_eq!(seen(&[&late_update], "tool/t"), None);
}

#[test]
fn who_corrects_another_within_a_step_wins() {
    // Author 9 would win every tie.
    let (mut low, mut high) = (Author::new(1), Author::new(9));
    let mut state = State::new();
    let first = high.write(&mut state, 10, put("tool/t", [("x", 1)]));
    let second = low.write(&mut state, 10, put("tool/t", [("x", 2)]));
    assert_eq!(state.get(&key("tool/t"), Step(10)).value.unwrap().value("x"), Some(2.into()));
    // A clock that is a step behind makes no difference, nor does who comes first elsewhere.
    let third = Author::new(0).write(&mut state, 9, delete("tool/t"));
    assert_eq!(seen(&[&third, &second, &first], "tool/t"), None);
    assert_eq!(state.hash(), fold([&third, &first, &second]).hash());
}

#[test]
fn a_delete_takes_its_links_with_it() {
    let (mut low, mut high) = (Author::new(1), Author::new(9));
    let mut state = State::new();
    let uses = link("agent/a", "uses", "tool/t");
    let links = |state: &State| state.links(&key("agent/a"), Direction::Out, &[], Step(10)).value.len();
    high.write(&mut state, 10, put("agent/a", []));
    high.write(&mut state, 10, put("tool/t", []));
    high.write(&mut state, 10, Action::Link(uses.clone()));
    assert_eq!(links(&state), 1);
    low.write(&mut state, 10, delete("tool/t"));
    assert_eq!(links(&state), 0);
    // Nothing of the old entry comes back with a new one.
    low.write(&mut state, 10, put("tool/t", []));
    assert_eq!(links(&state), 0);
    low.write(&mut state, 10, Action::Link(uses.clone()));
    assert_eq!(links(&state), 1);
    high.write(&mut state, 10, Action::Unlink(uses.clone()));
    assert_eq!((links(&state), state.counts().links, state.counts().link_tombstones), (0, 0, 1));
    assert_eq!(
        state.write(Action::Unlink(uses.clone()), Step(10)),
        Err(WriteError::NotFound("agent/a -uses-> tool/t".to_owned()))
    );
    // Also those that came within the step of the delete, from who wins every tie; and a link after the delete stays.
    high.write(&mut state, 12, Action::Link(uses.clone()));
    low.write(&mut state, 12, delete("tool/t"));
    assert_eq!(links(&state), 0);
    low.write(&mut state, 13, put("tool/t", []));
    high.write(&mut state, 13, delete("tool/t"));
    low.write(&mut state, 13, Action::Link(link("agent/a", "runs", "tool/t")));
    assert_eq!(links(&state), 1);
    let itself = link("agent/a", "runs", "agent/a");
    low.write(&mut state, 14, Action::Link(itself));
    low.write(&mut state, 14, delete("agent/a"));
    assert_eq!(links(&state), 0);
}

#[test]
fn entries_expire_at_an_exact_step_and_come_back_by_renewal() {
    let mut a = Author::new(1);
    let mut state = State::new();
    let key = key("service/s");
    a.write(&mut state, 10, Action::Put { key: key.clone(), ttl: Some(5), fields: fields([("x", 1)]) });
    let hash = state.hash();
    let entry = state.get(&key, Step(14)).value.unwrap();
    assert_eq!((entry.is_live(Step(14)), entry.is_live(Step(15))), (true, false));
    assert!(state.get(&key, Step(15)).value.is_none());
    assert_eq!(state.hash(), hash);
    assert_eq!(state.expired(Step(17), 2, 10), std::slice::from_ref(&key));
    assert!(state.expired(Step(16), 2, 10).is_empty());
    let renewal = Action::Update { key: key.clone(), ttl: Some(5), fields: Fields::new() };
    a.write(&mut state, 14, renewal.clone());
    assert!(state.get(&key, Step(18)).value.is_some());
    assert!(matches!(state.write(renewal.clone(), Step(19)), Err(WriteError::NotFound(_))));
    // One that was written in time elsewhere, or by who did not look, counts nevertheless.
    let late = a.blind(19, renewal);
    state.apply(&late.as_entry(), &mut Outbox::new());
    assert!(state.get(&key, Step(23)).value.is_some());
    // A put without a time-to-live is for ever, and a time-to-live does not overflow.
    a.write(&mut state, 20, put("service/s", []));
    assert!(state.get(&key, Step(u64::MAX)).value.is_some());
    a.write(&mut state, 21, Action::Update { key: key.clone(), ttl: Some(u64::MAX), fields: Fields::new() });
    assert!(state.get(&key, Step(u64::MAX - 1)).value.is_some());
    a.write(&mut state, 30, delete("service/s"));
    assert!(state.expired(Step(1000), 0, 10).is_empty());
}

#[test]
fn who_pushes_the_clock_does_not_stop_others_from_writing() {
    let mut state = State::new();
    let mut liar = Author::new(9);
    let mut far = liar.blind(10, put("tool/t", [("x", 1)]));
    let after = Some(Tick { step: Step(26), count: u32::MAX - 1 });
    far.payload = Operation { after, ..far.operation.clone().unwrap() }.encode().unwrap();
    assert_eq!(state.apply(&far.as_entry(), &mut Outbox::new()), Outcome::Applied);
    let mut honest = Author::new(1);
    let shown = |state: &State| state.get(&key("tool/t"), Step(0)).value.unwrap().value("x");
    // Taken, if without effect yet; one step later it counts.
    honest.write(&mut state, 9, put("tool/t", [("x", 2)]));
    honest.write(&mut state, 10, put("tool/t", [("x", 2)]));
    assert_eq!(shown(&state), Some(1.into()));
    honest.write(&mut state, 11, put("tool/t", [("x", 2)]));
    assert_eq!(shown(&state), Some(2.into()));
}

#[test]
fn what_cannot_be_written_is_refused_before_it_is() {
    let mut a = Author::new(1);
    let mut state = State::new();
    for action in [update("tool/t", [("x", 1)]), delete("tool/t")] {
        assert_eq!(state.write(action, Step(1)), Err(WriteError::NotFound("tool/t".to_owned())));
    }
    let many = |from: usize, n: usize| -> Fields {
        (from..from + n).map(|i| (FieldName::new(&format!("f{i}")).unwrap(), value(1))).collect()
    };
    let full = Action::Put { key: key("tool/t"), ttl: None, fields: many(0, FIELDS_MAX) };
    a.write(&mut state, 1, full);
    let one_more = Action::Update { key: key("tool/t"), ttl: None, fields: many(FIELDS_MAX, 1) };
    assert_eq!(state.write(one_more, Step(1)), Err(Fault::TooManyFields.into()));
    a.write(&mut state, 1, Action::Update { key: key("tool/t"), ttl: None, fields: many(0, FIELDS_MAX) });
    let too_many = Action::Put { key: key("tool/t"), ttl: None, fields: many(0, FIELDS_MAX + 1) };
    assert_eq!(state.write(too_many, Step(1)), Err(Fault::TooManyFields.into()));
    let no_time = Action::Put { key: key("tool/t"), ttl: Some(0), fields: Fields::new() };
    assert_eq!(state.write(no_time, Step(1)), Err(Fault::Malformed.into()));
    let big = Value::Bytes(vec![0; 16_000]).encode().unwrap();
    let fields = many(0, 4).into_keys().map(|name| (name, big.clone())).collect();
    let too_large = Action::Put { key: key("tool/t"), ttl: None, fields };
    assert_eq!(state.write(too_large, Step(1)), Err(Fault::TooLarge.into()));
}

#[test]
fn every_entry_has_an_outcome() {
    let mut a = Author::new(1);
    let mut state = State::new();
    let mut out = Outbox::new();
    let written = a.blind(10, put("tool/t", []));
    assert_eq!(state.apply(&written.as_entry(), &mut out), Outcome::Applied);
    assert_eq!(out.len(), 1);
    assert_eq!(state.apply(&written.as_entry(), &mut out), Outcome::Applied);
    assert_eq!(out.len(), 1);
    let mut foreign = a.blind(10, put("tool/u", []));
    foreign.category = "log";
    assert_eq!(state.apply(&foreign.as_entry(), &mut out), Outcome::OtherCategory);
    let mut garbage = a.blind(10, put("tool/u", []));
    garbage.payload.push(0);
    assert_eq!(state.apply(&garbage.as_entry(), &mut out), Outcome::Refused("trailing_bytes"));
    let mut far = a.blind(10, put("tool/u", []));
    let after = Some(Tick { step: Step(27), count: 0 });
    far.payload = Operation { after, ..far.operation.clone().unwrap() }.encode().unwrap();
    assert_eq!(state.apply(&far.as_entry(), &mut out), Outcome::Refused("too_far_ahead"));
    let refused: Vec<_> = state.refused().filter(|(_, n)| *n > 0).collect();
    assert_eq!(refused, [(Fault::TrailingBytes, 1), (Fault::TooFarAhead, 1)]);
    // Heads count what was seen, not what was taken.
    assert_eq!(state.heads()[&author(1)].seq, Seq(4));
    assert_eq!(state.as_of(Step(10)).authors, 1);
    state.compact(Step(11));
    assert_eq!(state.apply(&written.as_entry(), &mut out), Outcome::BelowFloor);
    assert_eq!(cut(&mut state, author(1), Seq(5)), Replay::NotNeeded);
    let lost = (0..1).map(|_| a.blind(12, put("tool/v", []))).next_back().unwrap();
    assert_eq!(state.apply(&lost.as_entry(), &mut out), Outcome::CutOff);
    assert_eq!(out.len(), 1);
}

#[test]
fn a_cut_drops_what_it_touches_and_nothing_else() {
    let [mut a, mut b] = [1, 2].map(Author::new);
    let history = [
        a.blind(10, put("tool/ours", [("x", 1)])),
        b.blind(10, put("tool/theirs", [("x", 1)])),
        b.blind(11, update("tool/ours", [("x", 2)])),
        b.blind(12, Action::Link(link("tool/ours", "uses", "tool/theirs"))),
    ];
    let mut state = fold(&history);
    let mut out = Outbox::new();
    let end = Head { seq: Seq(1), hash: Hash::of(b"the end") };
    assert_eq!(state.cut(author(2), Some(end), &mut out), Replay::Needed);
    assert!(state.get(&key("tool/theirs"), Step(0)).value.is_some());
    assert!(state.get(&key("tool/ours"), Step(0)).value.is_none());
    assert!(
        matches!(out.as_slice(), [Change::Entry { old: Some(_), new: None }, Change::Unlinked(_)]),
        "{out:?}"
    );
    assert_eq!(state.heads()[&author(2)], end);
    for written in &history {
        state.apply(&written.as_entry(), &mut out);
    }
    assert_eq!(state.get(&key("tool/ours"), Step(0)).value.unwrap().value("x"), Some(1.into()));
    assert!(state.links(&key("tool/ours"), Direction::Both, &[], Step(0)).value.is_empty());
    // A higher cut is none; a lower one takes more.
    assert_eq!(cut(&mut state, author(2), Seq(9)), Replay::NotNeeded);
    assert_eq!(state.cut(author(2), None, &mut out), Replay::Needed);
    assert!(state.get(&key("tool/theirs"), Step(0)).value.is_none());
    assert!(!state.heads().contains_key(&author(2)));
    state.check_invariants();
}

#[test]
fn tombstones_go_when_they_may_and_not_before() {
    let mut a = Author::new(1);
    let mut state = State::new();
    a.write(&mut state, 10, put("tool/t", []));
    a.write(&mut state, 10, put("agent/a", []));
    a.write(&mut state, 10, Action::Link(link("agent/a", "uses", "tool/t")));
    a.write(&mut state, 12, delete("tool/t"));
    let hash = state.hash();
    state.compact(Step(12));
    assert_eq!((state.counts().entry_tombstones, state.counts().link_tombstones), (1, 0));
    state.compact(Step(13));
    assert_eq!((state.counts().entry_tombstones, state.counts().link_tombstones), (0, 0));
    assert_eq!((state.counts().entries, state.hash(), state.floor()), (1, hash, Step(13)));
    state.compact(Step(1));
    assert_eq!(state.floor(), Step(13));
    state.check_invariants();
}

#[test]
fn versions_name_the_writes_that_lost_too() {
    let [mut a, mut b] = [1, 2].map(Author::new);
    let history = [
        a.blind(10, put("tool/t", [("x", 1)])),
        b.blind(9, put("tool/t", [("x", 0)])),
        a.blind(11, put("tool/u", [])),
    ];
    let answer = fold(&history).get(&key("tool/t"), Step(11));
    let entry = answer.value.unwrap();
    let versions: Vec<_> = entry.versions.iter().collect();
    assert_eq!(versions, [(author(1), Seq(1)), (author(2), Seq(1))]);
    assert_eq!(entry.created.author, author(1));
    assert!(entry.versions.is_complete());
    assert_eq!((answer.as_of.step, answer.as_of.authors), (Step(11), 2));
    assert_ne!(answer.as_of.heads, fold(&history[..2]).as_of(Step(11)).heads);
}
