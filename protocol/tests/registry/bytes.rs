//! Operations and snapshots in bytes: one encoding each, and no bytes do harm.

use omnimesh_protocol::projection::{Projection, SnapshotError};
use omnimesh_protocol::registry::{Fault, OPERATION_BYTES_MAX, Operation, State};
use omnimesh_protocol::{Outbox, Step};
use proptest::prelude::*;

use crate::history::{any_history, apply_all, fold, shuffled};

const CHECKSUM_CONTEXT: &str = "omnimesh 2026-11 registry snapshot";

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT);
    hasher.update(body);
    [body, hasher.finalize().as_bytes()].concat()
}

/// Bytes changed, removed or added in a few places.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..4);
    edits.prop_map(move |edits| {
        let mut bytes = bytes.clone();
        for (place, byte, sort) in edits {
            let place = place.index(bytes.len() + 1);
            match sort {
                0 if place < bytes.len() => bytes[place] = byte,
                1 if place < bytes.len() => drop(bytes.remove(place)),
                _ => bytes.insert(place, byte),
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn operations_return(history in any_history(8)) {
        for written in history {
            if let Some(operation) = written.operation {
                prop_assert_eq!(Operation::decode(&written.payload), Ok(operation));
            }
        }
    }

    #[test]
    fn any_bytes_are_an_operation_in_one_encoding_or_none(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            any_history(2).prop_flat_map(|history| {
                damaged(history.first().map(|written| written.payload.clone()).unwrap_or_default())
            }),
        ],
    ) {
        if let Ok(operation) = Operation::decode(&bytes) {
            prop_assert_eq!(operation.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn hostile_payloads_make_no_difference_between_nodes(
        histories in any_history(12).prop_flat_map(|history| {
            // All payloads at once, with damage here and there.
            let lengths: Vec<_> = history.iter().map(|written| written.payload.len()).collect();
            let all: Vec<u8> = history.iter().flat_map(|written| written.payload.clone()).collect();
            damaged(all).prop_flat_map(move |all| {
                let mut history = history.clone();
                let mut rest = all.as_slice();
                for (written, length) in history.iter_mut().zip(&lengths) {
                    let (payload, after) = rest.split_at((*length).min(rest.len()));
                    (written.payload, rest) = (payload.to_vec(), after);
                }
                shuffled(history)
            })
        }),
    ) {
        let (history, order) = histories;
        let mut state = State::new();
        apply_all(&mut state, &order);
        state.check_invariants();
        prop_assert_eq!(state.snapshot(), fold(&history).snapshot());
    }

    #[test]
    fn a_damaged_snapshot_is_refused(
        (snapshot, bad) in any_history(12).prop_flat_map(|history| {
            let snapshot = fold(&history).snapshot();
            (Just(snapshot.clone()), damaged(snapshot))
        }),
    ) {
        prop_assume!(bad != snapshot);
        prop_assert_eq!(State::new().restore(&bad), Err(SnapshotError::Checksum));
    }

    #[test]
    fn a_snapshot_with_a_good_checksum_is_one_we_would_write_or_refused(
        bytes in any_history(12).prop_flat_map(|history| {
            let mut body = fold(&history).snapshot();
            body.truncate(body.len() - 32);
            damaged(body)
        }),
    ) {
        let snapshot = sealed(&bytes);
        let mut state = State::new();
        if state.restore(&snapshot).is_ok() {
            state.check_invariants();
            prop_assert_eq!(state.snapshot(), snapshot);
        } else {
            prop_assert_eq!(state.snapshot(), State::new().snapshot());
        }
    }
}

#[test]
fn an_empty_state_has_a_snapshot() {
    let snapshot = State::new().snapshot();
    assert_eq!(snapshot, sealed(&[0x87, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x80]));
    State::new().restore(&snapshot).unwrap();
    assert_eq!(State::new().restore(&[]), Err(SnapshotError::Checksum));
    let newer = sealed(&[0x87, 2, 0, 0x80, 0x80, 0x80, 0x80, 0x80]);
    assert_eq!(State::new().restore(&newer), Err(SnapshotError::UnknownVersion(2)));
    let stray = sealed(&[0x87, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0]);
    assert_eq!(State::new().restore(&stray), Err(SnapshotError::Malformed("trailing_bytes")));
    // An author that nobody names.
    let idle = [&[0x87, 1, 0, 0x81, 0x58, 32][..], &[7; 32], &[0x80; 4]].concat();
    assert_eq!(State::new().restore(&sealed(&idle)), Err(SnapshotError::Malformed("not_canonical")));
}

#[test]
fn operations_have_exact_bounds() {
    assert_eq!(Operation::decode(&[0x80; OPERATION_BYTES_MAX + 1]), Err(Fault::TooLarge));
    assert_eq!(Operation::decode(&[0x80]), Err(Fault::Truncated));
    assert_eq!(Operation::decode(&[0x81, 2]), Err(Fault::UnknownVersion));
    assert_eq!(Operation::decode(&[0x82, 1, 5]), Err(Fault::UnknownOperation));
    assert_eq!(Operation::decode(&[0x82, 1, 2]), Err(Fault::Malformed));
    let mut state = State::new();
    state.compact(Step(3));
    assert!(
        state.merge(&State::new(), &mut Outbox::new()) == omnimesh_protocol::projection::Replay::NotNeeded
    );
}
