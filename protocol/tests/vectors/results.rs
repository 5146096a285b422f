//! `wrong_results.json`

use omnimesh_protocol::Identity;
use omnimesh_protocol::compute::statement::Evidence;
use serde::{Deserialize, Serialize};

use crate::compute::{Stated, own_mesh, signature, statements};
use crate::specs::blob;
use crate::{GOOD, Hex, Listed, cbor, curve, settle};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Case {
    comment: String,
    evidence: Hex,
    /// `good`, the fault, or `proves_nothing`.
    outcome: String,
    /// Of good evidence, as are the next: in which mesh.
    mesh_id: Option<Hex>,
    accused: Option<Hex>,
    key: Option<Hex>,
    witnesses: Option<Vec<Hex>>,
}

const PROVES_NOTHING: &str = "proves_nothing";

fn read_evidence(comment: &str, bytes: &[u8]) -> Case {
    let (outcome, good) = match Evidence::decode(bytes) {
        Ok(evidence) if evidence.verify() => {
            assert_eq!(evidence.encode(), bytes, "{comment}");
            (GOOD, Some(evidence))
        }
        Ok(_) => (PROVES_NOTHING, None),
        Err(fault) => (fault.code(), None),
    };
    let good = good.as_ref();
    Case {
        comment: comment.to_owned(),
        evidence: bytes.into(),
        outcome: outcome.to_owned(),
        mesh_id: good.map(|evidence| evidence.mesh().as_bytes().into()),
        accused: good.map(|evidence| evidence.accused().as_bytes().into()),
        key: good.map(|evidence| evidence.key.as_bytes().into()),
        witnesses: good.map(|evidence| evidence.witnesses().map(|node| node.as_bytes().into()).collect()),
    }
}

const KEY: [u8; 32] = [3; 32];
const RIGHT: Stated = (KEY, blob(7, 300));
const WRONG: Stated = (KEY, blob(8, 300));
const OTHER: Stated = ([4; 32], blob(9, 1));

/// What a worker has signed in this mesh, by its own hand.
fn signed_in(mesh: [u8; 16], seed: u8, stated: &[Stated]) -> Vec<u8> {
    let worker = Identity::from_seed(&[seed; 32]).id();
    let signature = signature(seed, mesh, stated);
    cbor::array(&[cbor::bytes(worker.as_bytes()), statements(stated), cbor::bytes(signature)])
}

fn signed(seed: u8, stated: &[Stated]) -> Vec<u8> {
    signed_in(own_mesh(), seed, stated)
}

/// The items of evidence.
fn items_of(accused: Vec<u8>, witnesses: &[Vec<u8>]) -> Vec<Vec<u8>> {
    vec![cbor::uint(1), cbor::bytes(own_mesh()), cbor::bytes(KEY), accused, cbor::array(witnesses)]
}

fn evidence_of(accused: Vec<u8>, witnesses: &[Vec<u8>]) -> Vec<u8> {
    cbor::array(&items_of(accused, witnesses))
}

/// The last byte is one of the last signature.
fn changed(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

fn evidence_that_convicts() -> Vec<Listed> {
    let witnesses: Vec<_> = (1..=16).map(|seed| signed(seed, &[RIGHT])).collect();
    let accused = || signed(20, &[WRONG]);
    let longer = signed(2, &[OTHER, (KEY, blob(7, 301)), OTHER]);
    let unsure = signed(2, &[RIGHT, WRONG]);
    let lies_twice = signed(20, &[OTHER, WRONG, RIGHT]);
    let full = signed(20, &[vec![OTHER; 255], vec![WRONG]].concat());
    let elsewhere: Vec<_> = [(20, WRONG), (1, RIGHT), (2, RIGHT)]
        .map(|(seed, stated)| signed_in([7; 16], seed, &[stated]))
        .into();
    let mut items = items_of(elsewhere[0].clone(), &elsewhere[1..]);
    items[1] = cbor::bytes([7; 16]);
    vec![
        ("two witnesses", evidence_of(accused(), &witnesses[..2]), GOOD),
        ("16 witnesses", evidence_of(accused(), &witnesses), GOOD),
        (
            "a witness that has signed several results, and another size",
            evidence_of(accused(), &[witnesses[0].clone(), longer]),
            GOOD,
        ),
        (
            "a witness that has signed two results for the key: the first counts",
            evidence_of(accused(), &[witnesses[0].clone(), unsure]),
            GOOD,
        ),
        ("an accused that has signed two: the first counts", evidence_of(lies_twice, &witnesses[..2]), GOOD),
        ("256 statements", evidence_of(full, &witnesses[..2]), GOOD),
        ("of another mesh", cbor::array(&items), GOOD),
    ]
}

fn evidence_that_cannot_be_read() -> Vec<Listed> {
    let malformed = "malformed";
    let witnesses: Vec<_> = (1..=17).map(|seed| signed(seed, &[RIGHT])).collect();
    let two = &witnesses[..2];
    let accused = || signed(20, &[WRONG]);
    let good = evidence_of(accused(), two);
    let with = |place: usize, item: Vec<u8>| {
        let mut items = items_of(accused(), two);
        items[place] = item;
        cbor::array(&items)
    };
    let worker = || cbor::bytes([7; 32]);
    let long = cbor::array(&[worker(), statements(&[OTHER; 257]), cbor::bytes([7; 64])]);
    let short = cbor::array(&[worker(), statements(&[WRONG]), cbor::bytes([7; 63])]);
    vec![
        ("no bytes", vec![], "truncated"),
        ("a number", vec![1], malformed),
        ("version 2", with(0, vec![2]), "unknown_version"),
        ("bytes for the version, as in a proof of section 14", with(0, cbor::bytes("x")), malformed),
        ("four items", cbor::array(&items_of(accused(), two)[..4]), malformed),
        ("six items", cbor::array(&[items_of(accused(), two), vec![vec![0]]].concat()), malformed),
        ("a mesh id of 15 bytes", with(1, cbor::bytes([7; 15])), malformed),
        ("a key of 31 bytes", with(2, cbor::bytes([3; 31])), malformed),
        ("an accused of two items", with(3, cbor::array(&[worker(), statements(&[WRONG])])), malformed),
        ("no statements", with(3, signed(20, &[])), malformed),
        ("257 statements", with(3, long), malformed),
        ("a signature of 63 bytes", with(3, short), malformed),
        ("17 witnesses", evidence_of(accused(), &witnesses), "too_many_fields"),
        ("cut", good[..good.len() - 1].to_vec(), "truncated"),
        ("a byte more", [good, vec![0]].concat(), "trailing_bytes"),
        ("a version in two bytes", with(0, vec![0x18, 1]), "not_canonical"),
    ]
}

fn evidence_that_proves_nothing() -> Vec<Listed> {
    let right = |seed| signed(seed, &[RIGHT]);
    let two = || [right(1), right(2)];
    let accused = || signed(20, &[WRONG]);
    let of_accused = |accused| evidence_of(accused, &two());
    let of_second = |second| evidence_of(accused(), &[right(1), second]);
    let mut elsewhere = items_of(accused(), &two());
    elsewhere[1] = cbor::bytes([7; 16]);
    // Another's signature under what it says is as good as none.
    let claimed = {
        let worker = Identity::from_seed(&[2; 32]).id();
        let signature = signature(3, own_mesh(), &[RIGHT]);
        cbor::array(&[cbor::bytes(worker.as_bytes()), statements(&[RIGHT]), cbor::bytes(signature)])
    };
    let small = {
        let key = curve::small_order_keys()[0];
        cbor::array(&[cbor::bytes(key), statements(&[RIGHT]), cbor::bytes([0; 64])])
    };
    let longer = (KEY, blob(7, 301));
    let cases = [
        ("one witness", evidence_of(accused(), &[right(1)])),
        ("no witness", evidence_of(accused(), &[])),
        ("one witness twice", of_second(right(1))),
        ("the accused is its own witness", of_second(signed(20, &[RIGHT]))),
        ("witnesses that do not agree", of_second(signed(2, &[WRONG]))),
        ("the accused agrees with the witnesses", of_accused(signed(20, &[RIGHT]))),
        ("the accused agrees, and differs in the size only", of_accused(signed(20, &[longer]))),
        ("the accused agrees first, and differs later", of_accused(signed(20, &[RIGHT, WRONG]))),
        ("the accused has signed something else", of_accused(signed(20, &[OTHER]))),
        ("a witness has signed something else", of_second(signed(2, &[OTHER]))),
        ("the accused has not signed", of_accused(changed(accused()))),
        ("a witness has not signed", of_second(changed(right(2)))),
        ("a witness with the signature of another", of_second(claimed)),
        ("a witness with a key of small order", of_second(small)),
        ("signed in another mesh", cbor::array(&elsewhere)),
    ];
    cases.map(|(comment, bytes)| (comment, bytes, PROVES_NOTHING)).into()
}

#[test]
fn wrong_results() {
    let lists = [evidence_that_convicts(), evidence_that_cannot_be_read(), evidence_that_proves_nothing()];
    let cases = lists.into_iter().flatten().map(|(comment, bytes, outcome)| {
        let case = read_evidence(comment, &bytes);
        assert_eq!(case.outcome, outcome, "{comment}");
        case
    });
    let description = "Evidence of wrong results (section 23). `outcome` is `good`, the fault, or `proves_nothing` where it can be read \
                       and does not hold. The rest is what good evidence says.";
    for case in settle("wrong_results.json", description, cases.collect()) {
        assert_eq!(read_evidence(&case.comment, &case.evidence.0), case);
    }
}
