//! In whatever order, how often and in how many parts entries arrive: the same state.

use omnimesh_protocol::projection::{Projection, Replay};
use omnimesh_protocol::registry::{Action, Change};
use omnimesh_protocol::registry::{FIELDS_MAX, FieldName, Fields, State, VERSIONS_MAX};
use omnimesh_protocol::{Outbox, Seq, Step};
use proptest::prelude::*;

use crate::history::{
    AUTHORS, Author, Written, any_history, apply_all, author, cut, fold, key, shuffled, value,
};
use crate::model::{assert_same, of_state, shown};

/// Merges, and checks that the changes lead from the one to the other.
fn merged(a: &State, b: &State) -> State {
    let mut state = a.clone();
    let mut out = Outbox::new();
    assert_eq!(state.merge(b, &mut out), Replay::NotNeeded);
    state.check_invariants();
    let (mut entries, mut links) = of_state(a);
    for change in out.drain() {
        match change {
            Change::Entry { old, new: None } => drop(entries.remove(&old.unwrap().key)),
            Change::Entry { new: Some(new), .. } => {
                let fields = new.fields.iter().map(|(name, field)| (name.to_string(), field.value.clone()));
                entries.insert(new.key.clone(), (new.expires, fields.collect()));
            }
            Change::Linked(link) => assert!(links.insert(link)),
            Change::Unlinked(link) => assert!(links.remove(&link)),
        }
    }
    assert_eq!((entries, links), of_state(&state));
    state
}

/// What a log that ends before `from` leaves of a history.
fn without(history: &[Written], from: (u8, Seq)) -> Vec<Written> {
    let is_lost = |written: &Written| written.author == author(from.0) && written.seq >= from.1;
    history.iter().filter(|written| !is_lost(written)).cloned().collect()
}

proptest! {
    #[test]
    fn the_state_is_what_the_model_says(history in any_history(40)) {
        let state = fold(&history);
        state.check_invariants();
        prop_assert_eq!(of_state(&state), shown(&history));
    }

    #[test]
    fn order_and_repetition_do_not_matter((history, order) in any_history(40).prop_flat_map(shuffled)) {
        let state = fold(&order);
        state.check_invariants();
        assert_same(&state, &fold(&history));
    }

    #[test]
    fn merging_is_applying(history in any_history(30), parts in proptest::collection::vec(1_u8..8, 30)) {
        // Each entry is in one, two or all of three parts.
        let part = |n: u8| {
            let chosen = history.iter().zip(&parts).filter(|(_, mask)| **mask & (1 << n) != 0);
            fold(chosen.map(|(written, _)| written))
        };
        let [a, b, c] = [part(0), part(1), part(2)];
        let whole = fold(&history);
        assert_same(&merged(&merged(&a, &b), &c), &whole);
        assert_same(&merged(&a, &merged(&b, &c)), &whole);
        assert_same(&merged(&c, &merged(&b, &a)), &whole);
        assert_same(&merged(&whole, &whole), &whole);
        assert_same(&merged(&whole, &b), &whole);
    }

    #[test]
    fn changes_add_up((history, order) in any_history(40).prop_flat_map(shuffled)) {
        let mut state = State::new();
        let (mut entries, mut links) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
        for change in apply_all(&mut state, &order) {
            match change {
                Change::Entry { old, new } => {
                    let key = new.as_ref().or(old.as_ref()).unwrap().key.clone();
                    let known = entries.remove(&key);
                    let fields = |entry: &omnimesh_protocol::registry::Entry| entry.fields.clone();
                    prop_assert_eq!(known.as_ref().map(fields), old.as_deref().map(fields));
                    entries.extend(new.map(|new| (key, *new)));
                }
                Change::Linked(link) => prop_assert!(links.insert(link)),
                Change::Unlinked(link) => prop_assert!(links.remove(&link)),
            }
        }
        let (expected, expected_links) = shown(&history);
        prop_assert!(entries.keys().eq(expected.keys()));
        prop_assert_eq!(links, expected_links);
    }

    #[test]
    fn a_cut_takes_back_whenever_it_comes(
        (history, order) in any_history(40).prop_flat_map(shuffled),
        cuts in proptest::collection::vec((0..AUTHORS, 1_u64..8, 0_usize..60), 1..4),
    ) {
        let mut state = State::new();
        let mut needs_replay = false;
        for (place, written) in order.iter().enumerate() {
            for (n, from, _) in cuts.iter().filter(|(.., at)| *at == place) {
                needs_replay |= cut(&mut state, author(*n), Seq(*from)) == Replay::Needed;
                state.check_invariants();
            }
            apply_all(&mut state, [written]);
        }
        for (n, from, at) in &cuts {
            if *at >= order.len() {
                needs_replay |= cut(&mut state, author(*n), Seq(*from)) == Replay::Needed;
            }
        }
        let kept = cuts.iter().fold(history.clone(), |kept, (n, from, _)| without(&kept, (*n, Seq(*from))));
        if needs_replay {
            // The log has dropped them; that it might not have makes no difference.
            apply_all(&mut state, &order);
        }
        state.check_invariants();
        prop_assert_eq!(of_state(&state), shown(&kept));
        // A node that has never seen the lost entries.
        let mut other = fold(&kept);
        for (n, from, _) in &cuts {
            prop_assert_eq!(cut(&mut other, author(*n), Seq(*from)), Replay::NotNeeded);
        }
        assert_same(&state, &other);
    }

    #[test]
    fn a_cut_that_only_one_knows_of_holds_in_the_merged_state(
        history in any_history(30),
        parts in proptest::collection::vec(any::<bool>(), 30),
        (n, from) in (0..AUTHORS, 1_u64..8),
    ) {
        let part = |side: bool| {
            let chosen = history.iter().zip(&parts).filter(|(_, part)| **part == side);
            fold(chosen.map(|(written, _)| written))
        };
        let [mut knows, other] = [part(true), part(false)];
        let mut needs = cut(&mut knows, author(n), Seq(from)) == Replay::Needed;
        let mut expected = fold(&without(&history, (n, Seq(from))));
        let _ = cut(&mut expected, author(n), Seq(from));
        for (a, b) in [(&knows, &other), (&other, &knows)] {
            let mut state = a.clone();
            needs |= state.merge(b, &mut Outbox::new()) == Replay::Needed;
            state.check_invariants();
            prop_assert!(state.heads().get(&author(n)).is_none_or(|head| head.seq < Seq(from)));
            if needs {
                apply_all(&mut state, &history);
            }
            assert_same(&state, &expected);
        }
    }

    #[test]
    fn compacting_is_not_seen(
        (_, order) in any_history(50).prop_flat_map(shuffled),
        floor in 0_u64..12,
        parts in proptest::collection::vec(any::<bool>(), 100),
    ) {
        let floor = Step(floor);
        let (early, late): (Vec<_>, Vec<_>) = order.into_iter().partition(|written| written.step < floor);
        let mut compacted = fold(&early);
        let hash = compacted.hash();
        compacted.compact(floor);
        compacted.check_invariants();
        prop_assert_eq!(compacted.hash(), hash);
        let base = compacted.clone();
        // Who compacts early, late, and never: all agree.
        apply_all(&mut compacted, &late);
        compacted.check_invariants();
        let mut whole = fold(early.iter().chain(&late));
        prop_assert_eq!(of_state(&compacted), of_state(&whole));
        prop_assert_eq!(compacted.hash(), whole.hash());
        // Entries from below the floor change nothing any more.
        apply_all(&mut compacted, &early);
        prop_assert_eq!(compacted.hash(), whole.hash());
        // A base joined with what came later, on either side, is the whole.
        let tail = fold(&late);
        prop_assert_eq!(merged(&base, &tail).hash(), whole.hash());
        prop_assert_eq!(merged(&tail, &base).hash(), whole.hash());
        prop_assert_eq!(merged(&whole, &base).hash(), whole.hash());
        prop_assert_eq!(merged(&base, &whole).hash(), whole.hash());
        // So it is for who has seen a part of the early ones only: a put, say, and not its delete.
        let some = early.iter().zip(&parts).filter(|(_, part)| **part).map(|(written, _)| written);
        let part = fold(some.chain(&late));
        prop_assert_eq!(merged(&part, &base).hash(), whole.hash());
        prop_assert_eq!(merged(&base, &part).hash(), whole.hash());
        whole.compact(floor);
        prop_assert_eq!(compacted.hash(), whole.hash());
        prop_assert_eq!(of_state(&compacted), of_state(&whole));
    }

    #[test]
    fn a_cut_above_the_floor_is_repaired_from_the_base(
        (_, order) in any_history(50).prop_flat_map(shuffled),
        floor in 0_u64..8,
        (n, from) in (0..AUTHORS, 1_u64..10),
    ) {
        let floor = Step(floor);
        let (early, late): (Vec<_>, Vec<_>) = order.into_iter().partition(|written| written.step < floor);
        // No cut below the floor is honoured.
        let final_seqs = early.iter().filter(|written| written.author == author(n)).map(|written| written.seq);
        let from = Seq(from).max(final_seqs.max().unwrap_or(Seq(0)).saturating_add(1));
        let mut base = fold(&early);
        base.compact(floor);
        let mut state = base.clone();
        apply_all(&mut state, &late);
        state.compact(floor);
        if cut(&mut state, author(n), from) == Replay::Needed {
            let _ = state.merge(&base, &mut Outbox::new());
            apply_all(&mut state, &late);
        }
        state.check_invariants();
        let kept = without(&[early, late].concat(), (n, from));
        prop_assert_eq!(of_state(&state), shown(&kept));
        prop_assert_eq!(state.hash(), fold(&kept).hash());
    }

    #[test]
    fn snapshots_return(history in any_history(40), floor in 0_u64..12) {
        let mut state = fold(&history);
        let _ = cut(&mut state, author(1), Seq(3));
        state.compact(Step(floor));
        let mut restored = State::new();
        restored.restore(&state.snapshot()).unwrap();
        restored.check_invariants();
        assert_same(&restored, &state);
        prop_assert_eq!(restored.floor(), state.floor());
    }
}

#[test]
fn bounds_within_an_entry_do_not_depend_on_the_order() {
    let authors = u8::try_from(VERSIONS_MAX + 8).unwrap();
    let mut history = Vec::new();
    for n in 0..authors {
        let mut writer = Author::new(n);
        let mut step = u64::from(n % 5);
        for i in 0..4 {
            step += u64::from((n ^ i) % 3);
            let name =
                FieldName::new(&format!("field {}", (u16::from(n) * 7 + u16::from(i) * 31) % 90)).unwrap();
            let fields = Fields::from([(name, value(i64::from(i)))]);
            let key = key("agent/a");
            history.push(match (n, i) {
                (3, 0) => writer.blind(step, Action::Put { key, ttl: None, fields }),
                _ => writer.blind(step, Action::Update { key, ttl: None, fields }),
            });
        }
    }
    let forwards = fold(&history);
    let entry = forwards.get(&key("agent/a"), Step(0)).value.unwrap();
    assert_eq!((entry.fields.len(), entry.versions.iter().count()), (FIELDS_MAX, VERSIONS_MAX));
    let backwards = fold(history.iter().rev());
    assert_same(&forwards, &backwards);
    let odd = fold(history.iter().step_by(2));
    let even = fold(history.iter().skip(1).step_by(2));
    assert_same(&merged(&odd, &even), &forwards);
    // An author that the version vector has left out may be in there.
    let left_out = (0..authors).find(|n| entry.versions.get(&author(*n)).is_none()).unwrap();
    let mut state = forwards.clone();
    assert_eq!(cut(&mut state, author(left_out), Seq(4)), Replay::Needed);
    apply_all(&mut state, &history);
    let kept = without(&history, (left_out, Seq(4)));
    assert_eq!(state.hash(), fold(&kept).hash());
}
