//! Runs repeat bit for bit.

use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::ScenarioFile;

/// Of `quickstart` with 40 nodes. It changes when the protocol, the simulator or the scenario behaves otherwise: look at
/// why, then put the new one here.
const TRACE_HASH: &str = "331ba01cd9ce22e68a5e8ecbb567dbcc1a0963b3b5fdbd801d48bc93ecef572f";

fn hash(name: &str, nodes: u32, threads: usize) -> String {
    let mut scenario = ScenarioFile::load(name, &[]).expect("it is shipped").scenario;
    scenario.network.nodes = nodes;
    let outcome = model::run(&scenario, Options { threads, ..Options::default() });
    outcome.trace_hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn quickstart_behaves_as_it_did() {
    assert_eq!(hash("quickstart", 40, 1), TRACE_HASH);
}

#[test]
fn threads_change_nothing() {
    for (name, nodes) in [("quickstart", 40), ("churn", 40), ("every-fault", 24)] {
        let one = hash(name, nodes, 1);
        assert_eq!(one, hash(name, nodes, 2), "{name} on one thread and on two");
        assert_eq!(one, hash(name, nodes, 3), "{name} on one thread and on three");
    }
}
