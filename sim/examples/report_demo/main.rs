//! Judges a made-up outcome and writes the folder of its run:
//! `cargo run -p omnimesh-sim --example report_demo -- DIR [NODES]`.

mod synthetic;

use std::path::Path;

use omnimesh_sim::checkers;
use omnimesh_sim::report::{self, ReportError, Run};

fn main() -> Result<(), ReportError> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| "report-demo".into());
    let nodes = arguments.next().and_then(|nodes| nodes.parse().ok()).unwrap_or(200);
    let scenario = synthetic::scenario(nodes);
    let outcome = synthetic::outcome(&scenario);
    let checked = checkers::check(&scenario, &outcome);
    let run = Run {
        scenario: &scenario,
        scenario_text: &format!("name = {:?}\nseed = {}\n", scenario.name, scenario.seed),
        engine: "model",
        code_version: env!("CARGO_PKG_VERSION"),
        command: "",
        outcome: &outcome,
        checked: &checked,
    };
    let summary = report::write(Path::new(&dir), &run)?;
    for checked in &summary.checkers {
        println!("{} {}: {}", if checked.ok { "ok  " } else { "FAIL" }, checked.name, checked.detail);
    }
    println!("{dir}/report.html");
    Ok(())
}
