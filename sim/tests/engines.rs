//! The same scenario on the model and on real nodes.

use omnimesh_sim::experiment::{self, Engines, Run};
use omnimesh_sim::model::Options;
use omnimesh_sim::scenario::{Engine, Override, ScenarioError, ScenarioFile};

fn file(engine: Engine, others: &[(&str, &str)]) -> Result<ScenarioFile, ScenarioError> {
    let mut overrides = vec![Override::new("engine", format!("{:?}", engine.name()), "the test")];
    overrides.extend(others.iter().map(|(path, value)| Override::new(*path, value, "the test")));
    ScenarioFile::load("quickstart", &overrides)
}

fn run(engine: Engine) -> Run {
    let file = file(engine, &[("network.nodes", "40"), ("workload.messages", "10")]).expect("it can be run");
    experiment::run(&Engines, &file, Options::default()).expect("it runs")
}

/// How near the times are is for `sim compare --engines` on a machine that does nothing else; what cannot be on any
/// machine is that real nodes are faster than the links of the model.
#[test]
fn real_nodes_do_what_the_model_says() {
    let (model, real) = (run(Engine::Model), run(Engine::Libp2p));
    for run in [&model, &real] {
        assert_eq!(run.failed().map(|checked| &checked.detail).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(run.summary.deliveries, 10 * 39);
        assert_eq!(run.outcome.degrees.iter().sum::<u32>(), 40);
    }
    let authors = |run: &Run| run.outcome.messages.iter().map(|message| message.author).collect::<Vec<_>>();
    assert_eq!(authors(&model), authors(&real));
    let length = |run: &Run| run.outcome.messages[0].bytes;
    assert!(length(&model).abs_diff(length(&real)) <= 16, "{} and {}", length(&model), length(&real));
    let p50 = |run: &Run| run.summary.latency_ms.p50.unwrap();
    assert!(p50(&real) > 0.7 * p50(&model), "{} ms, but {} ms in the model", p50(&real), p50(&model));
    let (a, b) = (model.summary.duplicates, real.summary.duplicates);
    assert!(a / 2 < b && b < a * 2, "{a} duplicates in the model, {b} in truth");
}

#[test]
fn what_real_nodes_cannot_do_is_named_with_its_line() {
    let refused = |others: &[(&str, &str)]| file(Engine::Libp2p, others).unwrap_err().to_string();
    assert!(refused(&[("network.membership", "true")]).contains("network.membership"));
    let both = refused(&[("links.duplication", "0.1"), ("network.nodes", "20000")]);
    assert!(both.contains("links.duplication = 0.1") && both.contains("network.nodes = 20000"), "{both}");
    let faults = ScenarioFile::load("churn", &[Override::new("engine", "\"libp2p\"", "--engine libp2p")]);
    let faults = faults.unwrap_err();
    assert!(faults.to_string().contains("there are faults"), "{faults}");
    assert!(faults.hint().contains("the engine `model`"), "{}", faults.hint());
}

#[test]
fn real_time_is_not_verified() {
    let file = file(Engine::Libp2p, &[]).unwrap();
    let refused = experiment::verify(&Engines, &file, &[], |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains("no two of its runs are the same"), "{refused}");
}
