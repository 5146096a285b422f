//! Whole folders: of a good run, of a bad one, of one with hostile names, of one in which nothing happened.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::*;
use crate::outcome::{Delivery, Published};
use crate::scenario::Region;
use crate::{checkers, synthetic};

/// Writes the folder of such a run; gives its files by name.
fn folder(scenario: &Scenario, outcome: &Outcome, text: &str) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    write_into(dir.path(), scenario, outcome, text);
    files(dir.path())
}

fn write_into(dir: &Path, scenario: &Scenario, outcome: &Outcome, text: &str) -> Summary {
    let checked = checkers::check(scenario, outcome);
    let run = Run {
        scenario,
        scenario_text: text,
        engine: "model",
        code_version: "0.1.0",
        command: text,
        outcome,
        checked: &checked,
    };
    write(dir, &run).unwrap()
}

fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    named.collect()
}

fn good() -> (Scenario, Outcome) {
    let scenario = synthetic::scenario(60);
    let outcome = synthetic::outcome(&scenario);
    (scenario, outcome)
}

/// Every plot is well-formed; the page needs nothing else and has no number that is none.
fn assert_sound(files: &BTreeMap<String, String>) {
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".svg")) {
        let document =
            roxmltree::Document::parse(text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        assert_eq!(document.root_element().tag_name().name(), "svg");
        assert!(document.descendants().any(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text"))));
    }
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".svg") || name.ends_with(".html")) {
        for bad in
            ["NaN", "inf ", "inf<", "inf\"", "<script", "<link", "src=", "@import", "url(http", "href="]
        {
            assert!(!text.contains(bad), "{bad:?} in {name}");
        }
    }
}

#[test]
fn the_folder_has_everything_and_can_be_read_again() {
    let (scenario, outcome) = good();
    let dir = tempfile::tempdir().unwrap();
    // It is made if it is missing.
    let path = dir.path().join("runs/1");
    let summary = write_into(&path, &scenario, &outcome, "seed = 7\n");
    let files = files(&path);
    let mut wanted = vec!["manifest.json", "summary.json", "scenario.toml", "report.html"];
    wanted.extend(tables::ALL.map(|(name, _)| name));
    let plots = plots::IDS.map(file_name);
    wanted.extend(plots.iter().map(String::as_str));
    wanted.sort_unstable();
    assert_eq!(files.keys().collect::<Vec<_>>(), wanted);
    assert_sound(&files);
    for id in plots::IDS {
        assert_eq!(files["report.html"].matches(&format!("<figure id=\"{id}\">")).count(), 1, "{id}");
    }
    assert!(files["report.html"].contains("All 8 checks passed"));

    let stored = read(&path).unwrap();
    assert_eq!((stored.summary, stored.scenario_text.as_str()), (summary, "seed = 7\n"));
    assert_eq!((stored.manifest.scenario.as_str(), stored.manifest.seed), ("three-regions", 7));
    // The same run leaves the same folder.
    assert_eq!(folder(&scenario, &outcome, "seed = 7\n"), files);
}

#[test]
fn an_unfinished_folder_is_refused() {
    let (scenario, outcome) = good();
    let dir = tempfile::tempdir().unwrap();
    write_into(dir.path(), &scenario, &outcome, "");
    fs::write(dir.path().join(SUMMARY), "{}").unwrap();
    assert!(matches!(read(dir.path()), Err(ReportError::Parse { path, .. }) if path.ends_with(SUMMARY)));
    fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    assert!(matches!(read(dir.path()), Err(ReportError::Read { path, .. }) if path.ends_with(MANIFEST)));
    // One that never ends is not read to its end.
    std::os::unix::fs::symlink("/dev/zero", dir.path().join(MANIFEST)).unwrap();
    assert!(matches!(read(dir.path()), Err(ReportError::Read { path, .. }) if path.ends_with(MANIFEST)));
    let not_a_folder = dir.path().join(SUMMARY).join("run");
    let (scenario, outcome) = (&scenario, &outcome);
    let (engine, code_version, command) = ("model", "0.1.0", "");
    let run = Run { scenario, scenario_text: "", engine, code_version, command, outcome, checked: &[] };
    assert!(matches!(write(&not_a_folder, &run), Err(ReportError::Write { .. })));
}

#[test]
fn what_no_longer_applies_is_removed() {
    let (scenario, mut outcome) = good();
    let dir = tempfile::tempdir().unwrap();
    write_into(dir.path(), &scenario, &outcome, "");
    outcome.adversary_nodes.clear();
    outcome.mesh_links.clear();
    write_into(dir.path(), &scenario, &outcome, "");
    let files = files(dir.path());
    assert!(!files.contains_key("plot-detector.svg") && !files.contains_key("plot-topology.svg"));
    assert!(!files["report.html"].contains("plot-detector.svg"));
}

#[test]
fn a_failure_comes_first() {
    let (scenario, mut outcome) = good();
    outcome.steps_fell = 3;
    outcome.faults[0].effective = 0;
    let page = &folder(&scenario, &outcome, "")["report.html"];
    assert!(page.contains("2 of 8 checks failed: monotone and faults_took_effect"));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing"));
    assert!(at("A step fell 3 times") < at("Mesh times of connected honest nodes"));
    assert!(at("no effect") > at("Faults and adversaries"));
}

#[test]
fn hostile_names_stay_text() {
    const EVIL: &str = "<script>alert(1)</script>\"'&amp;<b>\u{0}\u{1b}]]>";
    let (mut scenario, mut outcome) = good();
    scenario.name = EVIL.into();
    scenario.description = format!("{EVIL}\n\n{EVIL}");
    for region in &mut scenario.network.regions {
        *region = Region { name: EVIL.into(), share: region.share };
    }
    for effect in outcome.faults.iter_mut().chain(&mut outcome.adversaries) {
        effect.name = EVIL.into();
    }
    outcome.faults[0].effective = 0;
    outcome.refusals = vec![(EVIL, 1)];
    let files = folder(&scenario, &outcome, EVIL);
    assert_sound(&files);
    let page = &files["report.html"];
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;amp;&lt;b&gt;"));
    assert!(!page.contains("<b>") && !page.contains('\u{1b}') && !page.contains('\u{0}'));
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page_too() {
    let (scenario, mut outcome) = good();
    let files = folder(&Scenario::default(), &Outcome::default(), "");
    assert_sound(&files);
    assert!(files["report.html"].contains("checks failed"));
    assert_eq!(files["messages.csv"].lines().count(), 1);
    // Nor does what is no number or has no length get into the page.
    for sample in &mut outcome.samples {
        sample.island_skew_ms = f64::NAN;
        sample.membership = f64::INFINITY;
    }
    outcome.ended = Duration::ZERO;
    outcome.cost = Default::default();
    assert_sound(&folder(&scenario, &outcome, ""));
}

#[test]
fn tables_have_names_and_a_line_for_each_fact() {
    let published =
        Published { author: 2, at: Duration::from_micros(1_500_250), bytes: 99, audience: 3, missed: 1 };
    let delivery =
        |node, latency_us, is_expected| Delivery { node, from: 2, latency_us, hops: 2, is_expected };
    let outcome = Outcome {
        messages: vec![published, published],
        deliveries: vec![
            vec![delivery(0, 10_000, true), delivery(1, 30_500, true), delivery(5, 90_000, false)],
            vec![],
        ],
        copies: vec![7],
        samples: vec![crate::outcome::Sample { at: Duration::from_millis(500), up: 4, ..Default::default() }],
        ..Outcome::default()
    };
    let files = folder(&Scenario::default(), &outcome, "");
    assert_eq!(
        files["messages.csv"],
        "number,author,published_ms,bytes,audience,delivered,missed,unexpected,latency_p50_ms,latency_p95_ms,\
         latency_max_ms,copies,ldh\n\
         0,2,1500.25,99,3,2,1,1,10.0,30.5,30.5,7,2\n\
         1,2,1500.25,99,3,2,1,0,,,,,\n"
    );
    assert_eq!(
        files["deliveries.csv"],
        "message,node,from,latency_ms,hops,is_expected\n0,0,2,10.0,2,true\n0,1,2,30.5,2,true\n0,5,2,90.0,2,false\n"
    );
    let samples: Vec<&str> = files["samples.csv"].lines().collect();
    assert_eq!(samples.len(), 2);
    assert!(
        samples[0].starts_with("at_ms,up,synchronised,skew_ms,island_skew_ms,links,")
            && samples[1].starts_with("500.0,4,")
    );
}

#[test]
fn too_many_deliveries_are_cut_and_the_page_says_so() {
    let delivery = Delivery { node: 1, from: 0, latency_us: 1, hops: 1, is_expected: false };
    let outcome = Outcome {
        messages: vec![Published { author: 0, at: Duration::ZERO, bytes: 1, audience: 0, missed: 0 }],
        deliveries: vec![vec![delivery; DELIVERIES_ROWS_MAX + 1]],
        ..Outcome::default()
    };
    let files = folder(&Scenario::default(), &outcome, "");
    assert_eq!(files["deliveries.csv"].lines().count(), DELIVERIES_ROWS_MAX + 1);
    let page = &files["report.html"];
    assert!(page.contains("Of 1,000,001 deliveries <code>deliveries.csv</code> has the first 1,000,000"));
}
