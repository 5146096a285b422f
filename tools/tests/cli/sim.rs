//! The simulator as a person or a script meets it.

use std::fs;
use std::path::Path;

use crate::common::{Run, run};

/// A scenario that takes a moment.
const SMALL: &str = "# Small.\nname = \"small\"\nduration_ms = 15000\n[network]\nnodes = 12\ndials = 4\n\
                     [workload]\nstart_ms = 10000\nmessages = 5\n";

/// Runs `omnimesh sim …` in a home with `small.toml`.
fn sim(home: &Path, arguments: &[&str]) -> Run {
    let file = home.join("small.toml");
    fs::write(&file, SMALL).unwrap();
    let file = file.to_str().unwrap();
    let arguments = arguments.iter().map(|argument| if *argument == "SMALL" { file } else { argument });
    run(home, &["--output", "json", "sim"].into_iter().chain(arguments).collect::<Vec<_>>())
}

fn path(home: &Path, name: &str) -> String {
    home.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_run_leaves_a_folder_and_can_be_done_again() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let out = path(home, "out");
    let first = sim(home, &["run", "SMALL", "--seed", "7", "--out", &out]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains("out/report.html"), "{}", first.stderr);
    let summary = first.json();
    assert_eq!(
        (&summary["nodes"], &summary["deliveries"], &summary["delivery_ratio"]),
        (&12.into(), &55.into(), &1.0.into())
    );
    assert!(summary["checkers"].as_array().unwrap().iter().all(|checked| checked["ok"] == true));
    for name in ["manifest.json", "summary.json", "scenario.toml", "messages.csv", "report.html"] {
        assert!(home.join("out").join(name).is_file(), "{name}");
    }
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(home.join("out/manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["seed"], &manifest["engine"]), (&7.into(), &"model".into()));
    assert_eq!(manifest["trace_hash"], summary["manifest"]["trace_hash"]);

    let again = sim(home, &["rerun", &out, "--threads", "2"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!((&again.json()["is_same"], &again.json()["after"]), (&true.into(), &manifest["trace_hash"]));

    let other = manifest.to_string().replace(manifest["trace_hash"].as_str().unwrap(), &"0".repeat(64));
    fs::write(home.join("out/manifest.json"), other).unwrap();
    let differs = sim(home, &["rerun", &out]);
    assert_eq!((differs.code, &differs.json()["is_same"]), (1, &false.into()));
    fs::write(home.join("out/scenario.toml"), "seed = 1").unwrap();
    assert_eq!(sim(home, &["rerun", &out]).code, 6);
}

#[test]
fn a_scenario_that_cannot_be_is_refused_with_its_line() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("bad.toml");
    fs::write(&file, "[network]\nnodes = 10\ndials = 12\n\n[gossip]\nmesh_degre = 3\n").unwrap();
    let bad = run(home.path(), &["sim", "run", file.to_str().unwrap()]);
    assert_eq!(bad.code, 3, "{}", bad.stderr);
    assert!(
        bad.stderr.contains("bad.toml:3: network.dials = 12: is more than the 9 others"),
        "{}",
        bad.stderr
    );
    assert!(bad.stderr.contains("bad.toml:6: gossip.mesh_degre = 3: unknown key"), "{}", bad.stderr);
    assert!(bad.stderr.contains("bad.toml:6: did you mean `mesh_degree`?"), "{}", bad.stderr);
    let flag = sim(home.path(), &["run", "SMALL", "--nodes", "1"]);
    assert_eq!(flag.code, 3);
    assert!(flag.stderr.contains("--nodes 1: network.nodes = 1: 1 node is no mesh"), "{}", flag.stderr);
    let unknown = sim(home.path(), &["run", "quikstart"]);
    assert_eq!(unknown.code, 6);
    let endless = sim(home.path(), &["run", "/dev/zero"]);
    assert_eq!(
        (endless.code, endless.stderr.contains("more than 1048576 bytes")),
        (9, true),
        "{}",
        endless.stderr
    );
    assert!(unknown.stderr.contains("did you mean the shipped scenario `quickstart`?"), "{}", unknown.stderr);
    assert!(bad.stdout.is_empty() && flag.stdout.is_empty() && unknown.stdout.is_empty());
}

#[test]
fn more_threads_than_the_machine_has_a_use_for_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let cores = std::thread::available_parallelism().unwrap().to_string();
    for arguments in [
        &["run", "SMALL", "--threads", "100000"][..],
        &["verify", "SMALL", "--threads", "2,100000"],
        &["compare", "SMALL", "SMALL", "--threads", "100000"],
        &["rerun", "SMALL", "--threads", "100000"],
        &["sweep", "SMALL", "--jobs", "100000"],
    ] {
        let refused = sim(home.path(), arguments);
        assert_eq!(refused.code, 2, "{arguments:?}: {}", refused.stderr);
        let hint = format!("the machine has {cores} cores");
        assert!(refused.stderr.contains("100000") && refused.stderr.contains(&hint), "{}", refused.stderr);
    }
}

#[test]
fn a_check_that_fails_is_named() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let check = "checks=[{ kind = 'agreement', within_ms = 0.000001 }]";
    let failed = sim(home, &["run", "SMALL", "--set", check, "--out", &path(home, "out")]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(failed.stderr.contains("the check `agreement` failed: "), "{}", failed.stderr);
    assert_eq!(failed.json()["checkers"][0]["ok"], false);
    assert!(home.join("out/report.html").is_file());
}

#[test]
fn others_folders_are_not_written_to() {
    let home = tempfile::tempdir().unwrap();
    let refused = sim(home.path(), &["run", "SMALL", "--out", home.path().to_str().unwrap()]);
    assert_eq!(refused.code, 9, "{}", refused.stderr);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_scenario_is_verified_on_one_thread_and_on_more() {
    let home = tempfile::tempdir().unwrap();
    let verified = sim(home.path(), &["verify", "SMALL", "--threads", "2,3"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let json = verified.json();
    let runs = json["runs"].as_array().unwrap();
    assert_eq!((runs.len(), &json["equal"]), (4, &true.into()));
    assert!(runs.iter().all(|run| run["trace_hash"] == runs[0]["trace_hash"]));
}

#[test]
fn a_sweep_has_a_row_for_each_combination() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let out = path(home, "out");
    let arguments =
        ["sweep", "SMALL", "--set", "network.nodes=10,20", "--set", "links.loss=0,0.1,0.2", "--seeds", "2"];
    let swept = sim(home, &[&arguments[..], &["--out", &out]].concat());
    assert_eq!(swept.code, 0, "{}", swept.stderr);
    let json = swept.json();
    let combinations = json["combinations"].as_array().unwrap();
    assert_eq!((combinations.len(), json["runs"].as_array().unwrap().len()), (6, 12));
    assert_eq!(combinations[4]["values"]["links.loss"], "0.1");
    assert!(combinations[0]["metrics"]["latency_ms.p50"]["half_width"].as_f64().unwrap() > 0.0);
    assert_eq!(fs::read_to_string(home.join("out/runs.csv")).unwrap().lines().count(), 13);
    let wrong = sim(home, &["sweep", "SMALL", "--set", "network.nodes"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
}

#[test]
fn runs_are_set_side_by_side() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (a, b) = (path(home, "a"), path(home, "b"));
    assert_eq!(sim(home, &["run", "SMALL", "--out", &a]).code, 0);
    let slower = ["run", "SMALL", "--set", "links.latency_min_ms=90", "--out", &b];
    assert_eq!(sim(home, &slower).code, 0);
    assert_eq!(sim(home, &["compare", &a, "SMALL", "--within", "0"]).code, 0);
    let differs = sim(home, &["compare", &a, &b, "--within", "15"]);
    assert_eq!(differs.code, 1);
    assert!(differs.stderr.contains("latency_ms.p50 differs by +"), "{}", differs.stderr);
    let rows = differs.json();
    let row = rows["metrics"].as_array().unwrap().iter().find(|row| row["metric"] == "latency_ms.p50");
    assert!(row.unwrap()["difference_percent"].as_f64().unwrap() > 15.0);
    assert_eq!(sim(home, &["compare", &a, &b]).code, 0);
    assert_eq!(sim(home, &["compare", &a]).code, 2);
    assert_eq!(sim(home, &["compare", &a, "nodir"]).code, 6);
    assert_eq!(sim(home, &["compare", &a, home.to_str().unwrap()]).code, 6);
}

#[test]
fn shipped_scenarios_are_listed_and_shown() {
    let home = tempfile::tempdir().unwrap();
    let listed = sim(home.path(), &["list"]).json();
    assert!(listed.as_array().unwrap().iter().any(|item| item["name"] == "quickstart"));
    let shown = run(home.path(), &["sim", "show", "quickstart"]);
    assert!(shown.stdout.starts_with("# A hundred nodes"), "{}", shown.stdout);
    assert_eq!(run(home.path(), &["sim", "show", "nothing"]).code, 6);
}
