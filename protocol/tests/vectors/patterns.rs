//! `patterns.json`

use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Phase, Step};
use serde::{Deserialize, Serialize};

use crate::{Hex, Num, chacha, secret, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    mesh_secret: Hex,
    phase_interval: Num,
    step: Num,
    phase: Num,
    phase_key: Hex,
    block: Num,
    tag_key: Hex,
    value: Num,
}

/// The largest interval that a node accepts (`node.phase_interval`).
const INTERVAL_MAX: u64 = 1 << 32;

fn generator(secret: &MeshSecret, phase_interval: u64) -> PatternGenerator {
    PatternGenerator::new(secret.clone(), phase_interval.try_into().unwrap(), 4.try_into().unwrap())
}

fn phase_key(secret: &MeshSecret, phase: u64) -> [u8; 32] {
    let material = [&secret.as_bytes()[..], &phase.to_le_bytes()].concat();
    blake3::derive_key("omnimesh 2026-11 phase key", &material)
}

fn case(secret: &MeshSecret, phase_interval: u64, step: u64) -> Case {
    let mut generator = generator(secret, phase_interval);
    let Phase(phase) = generator.phase_of(Step(step));
    let pattern = generator.at(Step(step));
    Case {
        mesh_secret: secret.as_bytes().into(),
        phase_interval: Num(phase_interval),
        step: Num(step),
        phase: Num(phase),
        phase_key: phase_key(secret, phase).into(),
        block: Num(step % phase_interval),
        tag_key: pattern.tag_key().into(),
        value: Num(pattern.value()),
    }
}

#[test]
fn patterns() {
    let steps: [(u64, &[u64]); 4] = [
        (100, &[0, 1, 98, 99, 100, 101, 199, 200, 1_000_000_007, 1 << 32, (1 << 63) - 1, u64::MAX]),
        (1, &[0, 1, 12_345, u64::MAX]),
        (7, &[6, 7, 8]),
        (INTERVAL_MAX, &[0, INTERVAL_MAX - 1, INTERVAL_MAX, INTERVAL_MAX + 1, u64::MAX]),
    ];
    let mut cases = Vec::new();
    for (interval, steps) in steps {
        cases.extend(steps.iter().map(|step| case(&secret(), interval, *step)));
    }
    cases.extend([99, 100].map(|step| case(&MeshSecret::open("demo"), 100, step)));
    let description = "Secret, interval and step give phase, phase key, block, tag key and pattern value. Numbers are \
                       decimal text, bytes lower-case hex. The last two cases are of the open mesh `demo`.";
    for case in settle("patterns.json", description, cases) {
        let secret = MeshSecret::from_bytes(case.mesh_secret.array());
        assert_eq!(case.phase, Num(case.step.0 / case.phase_interval.0));
        assert_eq!(case.block, Num(case.step.0 % case.phase_interval.0));
        let key = phase_key(&secret, case.phase.0);
        assert_eq!(case.phase_key, key.into());
        let block = chacha::block(&key, case.block.0);
        assert_eq!(case.tag_key, block[..32].into());
        assert_eq!(case.value, Num(u64::from_le_bytes(block[32..40].try_into().unwrap())));
    }
}
