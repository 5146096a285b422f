//! `probes.json`

use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::observer::probe;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, NodeId, Step};
use serde::{Deserialize, Serialize};

use crate::draft::PHASE_INTERVAL;
use crate::{Hex, Num, cbor, draft, secret, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    mesh_secret: Hex,
    phase_interval: Num,
    author: Hex,
    run: Num,
    number: Num,
    step: Num,
    content: Hex,
    payload: Hex,
}

/// By hand.
fn case(seed: u8, run: u64, number: u64, step: u64) -> Case {
    let author = Identity::from_seed(&[seed; 32]).id();
    let input =
        [&b"omnimesh probe"[..], author.as_bytes(), &run.to_le_bytes(), &number.to_le_bytes()].concat();
    let content = *blake3::keyed_hash(&draft::tag_key(&secret(), step), &input).as_bytes();
    let items = [run, number, step].map(cbor::uint);
    let payload = cbor::array(&[&[cbor::uint(1)][..], &items, &[cbor::bytes(content)]].concat());
    Case {
        mesh_secret: secret().as_bytes().into(),
        phase_interval: Num(PHASE_INTERVAL),
        author: author.as_bytes().into(),
        run: Num(run),
        number: Num(number),
        step: Num(step),
        content: content.into(),
        payload: payload.into(),
    }
}

#[test]
fn probes() {
    let cases = vec![case(1, 0, 1, 0), case(1, u64::MAX, 24, 99), case(2, 0x0102_0304_0506_0708, 300, 100)];
    let description = "Probes (section 21): what one of this author, run and number must say in this step.";
    for case in settle("probes.json", description, cases) {
        let (interval, one) = (case.phase_interval.0.try_into().unwrap(), 1.try_into().unwrap());
        let secret = MeshSecret::from_bytes(case.mesh_secret.array());
        let mut patterns = PatternGenerator::new(secret, interval, one);
        let author = NodeId::from_bytes(case.author.array());
        let (run, number, step, content) = probe::decode(&case.payload.0).unwrap();
        assert_eq!((run, number, step), (case.run.0, case.number.0, Step(case.step.0)));
        assert_eq!(*content, probe::content(patterns.at(step), &author, run, number));
        assert_eq!(probe::encode(run, number, step, content), case.payload.0);
    }
}
