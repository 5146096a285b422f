//! What honest nodes do against an attack does not cut off other honest nodes.

use omnimesh_sim::model::{self, Options};
use omnimesh_sim::summary::Summary;

#[expect(dead_code, reason = "the example has all of them")]
#[path = "../examples/attacks/rows.rs"]
mod rows;

use rows::Sizes;

#[test]
fn whoever_has_one_honest_neighbour_that_suspects_it_still_gets_everything() {
    // The sybils are sent away within half a minute. Some honest nodes are left with one neighbour, have nothing to bring to
    // it, and look as if they withheld everything: out of its mesh, they get all by gossip.
    let attack = rows::attacks(10).into_iter().find(|attack| attack.name == "one_address").expect("a row");
    for seed in 1..=3 {
        println!("seed {seed}");
        let scenario = attack.scenario(Sizes { honest: 50, sybils: 200 }, seed, true);
        let outcome = model::run(&scenario, Options::default());
        let summary = Summary::new(&outcome, &[]);
        assert!(summary.expected > 1_000, "{summary:?}");
        assert_eq!(summary.deliveries, summary.expected, "seed {seed}");
        let suspected = outcome.detection.expect("nodes have observers").held;
        let honest = |node: &u32| !outcome.adversary_nodes.contains(node);
        assert!(
            suspected.iter().any(|held| honest(&held.against)),
            "seed {seed}: nobody honest was suspected"
        );
    }
}
