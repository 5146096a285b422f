//! `evidence.json`

use bytes::Bytes;
use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::observer::accusation::Accusation;
use omnimesh_protocol::observer::evidence::{Evidence, EvidenceError};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh};
use serde::{Deserialize, Serialize};

use crate::draft::{self, Draft, PHASE_INTERVAL};
use crate::{Hex, Num, cbor, secret, settle};

const BYTES_MAX: usize = 65_536;

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    mesh_name: String,
    mesh_secret: Hex,
    phase_interval: Num,
    message_bytes_max: u64,
    evidence: Hex,
    /// `good`, or the fault.
    outcome: String,
    /// True if an accusation with this evidence convicts its reporter.
    is_false: bool,
    /// Of good evidence, as are the next.
    convicts: Option<Hex>,
    step: Option<Num>,
    id: Option<Hex>,
}

fn judge(secret: MeshSecret, name: &str, evidence: &[u8]) -> Result<Evidence, EvidenceError> {
    let mesh = Mesh::new(name, secret).unwrap();
    let interval = PHASE_INTERVAL.try_into().unwrap();
    let mut patterns = PatternGenerator::new(mesh.secret().clone(), interval, 4.try_into().unwrap());
    let evidence = Evidence::decode(&Bytes::copy_from_slice(evidence), BYTES_MAX)?;
    evidence.verify(mesh.id(), &mut patterns, BYTES_MAX)?;
    Ok(evidence)
}

fn case(comment: &str, evidence: Vec<u8>) -> Case {
    let judged = judge(secret(), "kitchen", &evidence);
    let good = judged.as_ref().ok();
    Case {
        comment: comment.to_owned(),
        mesh_name: "kitchen".to_owned(),
        mesh_secret: secret().as_bytes().into(),
        phase_interval: Num(PHASE_INTERVAL),
        message_bytes_max: BYTES_MAX as u64,
        evidence: evidence.into(),
        outcome: judged.as_ref().map_or_else(|error| error.code(), |_| "good").to_owned(),
        is_false: judged.as_ref().is_err_and(|error| error.is_conclusive()),
        convicts: good.map(|evidence| evidence.accused().as_bytes().into()),
        step: good.map(|evidence| Num(evidence.step().0)),
        id: good.map(|evidence| evidence.id().as_bytes().into()),
    }
}

fn draft(change: impl FnOnce(&mut Draft)) -> Draft {
    let mut draft = draft::draft();
    change(&mut draft);
    draft
}

/// Two drafts, signed by the author of seed 1, in their order.
fn ordered(one: &Draft, other: &Draft) -> [Vec<u8>; 2] {
    let rank = |draft: &Draft| (draft.seq, *blake3::hash(&draft.signed()).as_bytes());
    let (first, second) = if rank(one) < rank(other) { (one, other) } else { (other, one) };
    [first.sealed(1), second.sealed(1)]
}

fn pair([first, second]: [Vec<u8>; 2]) -> Vec<u8> {
    cbor::array(&[cbor::uint(1), cbor::uint(1), cbor::bytes(first), cbor::bytes(second)])
}

/// An accusation by the author of this seed, made by hand.
fn accusation(seed: u8, step: u64, evidence: &[u8]) -> Vec<u8> {
    let reporter = Identity::from_seed(&[seed; 32]);
    let body = cbor::array(&[
        cbor::uint(1),
        cbor::bytes(draft::mesh().id().as_bytes()),
        cbor::bytes(reporter.id().as_bytes()),
        cbor::uint(step),
        cbor::bytes(evidence),
    ]);
    let signed = [&b"omnimesh/1/accusation"[..], blake3::hash(&body).as_bytes()].concat();
    cbor::array(&[cbor::bytes(&body), cbor::bytes(reporter.sign(&signed))])
}

fn of_false(accusation: &[u8]) -> Vec<u8> {
    cbor::array(&[cbor::uint(1), cbor::uint(2), cbor::bytes(accusation)])
}

fn changed(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

fn cases() -> Vec<Case> {
    let one = draft(|_| {});
    let two = draft(|d| d.payloads = vec![b"goodbye".to_vec()]);
    let envelopes = ordered(&one, &two);
    let good = pair(envelopes.clone());
    let [first, second] = envelopes.clone();
    let durable = |salt: u8| draft(|d| (d.seq, d.kind, d.payloads) = (1, 1, vec![vec![salt]]));
    let log = |[first, second]: [Vec<u8>; 2]| {
        let both = [&first[..], &second[..]].concat();
        let check = blake3::derive_key("omnimesh 2026-11 equivocation check", &both);
        cbor::array(&[cbor::uint(1), cbor::bytes(first), cbor::bytes(second), cbor::bytes(&check[..16])])
    };
    let records = ordered(&durable(1), &durable(2));
    let bundle = draft(|d| (d.seq, d.payloads) = (5, vec![vec![1], vec![2], vec![3]]));
    let news = draft(|d| d.channel = "sport".to_owned());
    let later = draft(|d| (d.step, d.payloads) = (1_101, vec![vec![9]]));
    let forged = pair([first.clone(), changed(second.clone())]);
    let right = accusation(2, 1_005, &good);
    vec![
        case("one number, two payloads", good.clone()),
        case("a number of a bundle, used again", pair(ordered(&bundle, &one))),
        case("one number on two channels", pair(ordered(&one, &news))),
        case("one number in two steps, of two phases", pair(ordered(&one, &later))),
        case("a forked log, as section 14 has it", log(records.clone())),
        case("a forked log, changed afterwards", changed(log(records.clone()))),
        case("a false accusation", of_false(&accusation(2, 1_005, &forged))),
        case("an accusation with bytes that are no evidence", of_false(&accusation(2, 1_005, b""))),
        case(
            "a right accusation, called false by another, who is convicted",
            of_false(&accusation(3, 1_006, &of_false(&right))),
        ),
        case("no bytes", Vec::new()),
        case("an item too many", [cbor::array(&[cbor::uint(1), cbor::uint(1)]), good.clone()].concat()),
        case(
            "another version",
            cbor::array(&[cbor::uint(2), cbor::uint(1), cbor::bytes(&first), cbor::bytes(&second)]),
        ),
        case(
            "another kind",
            cbor::array(&[cbor::uint(1), cbor::uint(3), cbor::bytes(&first), cbor::bytes(&second)]),
        ),
        case("the second item is text", cbor::array(&[cbor::uint(1), cbor::text("x")])),
        case("the wrong order", pair([second.clone(), first.clone()])),
        case("the same message twice", pair([first.clone(), first.clone()])),
        case("no number in common", pair(ordered(&one, &draft(|d| d.seq = 8)))),
        case(
            "a durable and an ephemeral one",
            pair(ordered(&one, &draft(|d| (d.kind, d.prev) = (1, Some([5; 32]))))),
        ),
        case("a changed signature", forged),
        case("a record among the two of a log that is ephemeral", log([first.clone(), records[1].clone()])),
        case("of another mesh", {
            let other = |payload: &[u8]| draft(|d| (d.mesh, d.payloads) = ([9; 16], vec![payload.to_vec()]));
            pair(ordered(&other(b"one"), &other(b"two")))
        }),
        case("tagged by somebody who does not know the secret", {
            let [first, _] = envelopes;
            let signed = if first == one.sealed(1) { two.signed() } else { one.signed() };
            pair([first, draft::outer(&signed, &[7; 32], &draft::signature(1, &signed))])
        }),
        case("a right accusation, called false", of_false(&right)),
        case("an accusation that its reporter has not signed", of_false(&changed(accusation(2, 1_005, b"")))),
        case("an accusation of another version", of_false(&accusation(2, 1_005, b"\x82\x02\x00"))),
        case(
            "accusations nested too deeply to be judged",
            of_false(&accusation(4, 1_007, &of_false(&accusation(3, 1_006, &of_false(&right))))),
        ),
    ]
}

#[test]
fn evidence() {
    let description = "Evidence (section 19) and what comes of it in the mesh of this name and secret. `is_false`: an \
                       accusation with this evidence convicts its reporter.";
    for case in settle("evidence.json", description, cases()) {
        let secret = MeshSecret::from_bytes(case.mesh_secret.array());
        let judged = judge(secret, &case.mesh_name, &case.evidence.0);
        let outcome = judged.as_ref().map_or_else(|error| error.code(), |_| "good");
        assert_eq!(outcome, case.outcome, "{}", case.comment);
        assert_eq!(judged.is_err_and(|error| error.is_conclusive()), case.is_false, "{}", case.comment);
    }
    let made = Accusation::decode(&accusation(2, 5, b"x").into(), BYTES_MAX).unwrap();
    assert!(made.is_signed());
    assert_eq!(made.encode(), accusation(2, 5, b"x"));
}
