//! Attacks on the shape of the mesh, with the defences and without: writes `docs/attacks.md`.
//!
//! ```text
//! cargo run --release -p omnimesh-sim --example attacks                            100 honest nodes, 400 sybils
//! cargo run --release -p omnimesh-sim --example attacks -- --honest 1000 --sybils 4000
//! ```
//!
//! After the evaluation of gossipsub v1.1 (Vyzovitis, Napora, McCormick, Dias, Psaras: *Gossipsub-v1.1 Evaluation Report*,
//! PL-TechRep-2020-001).

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use omnimesh_sim::checkers;
use omnimesh_sim::model::{self, Options};
use omnimesh_sim::scenario::{Adversary, AdversaryKind, Scenario, Topology, Victims, Who};
use omnimesh_sim::summary::Summary;
use rayon::prelude::*;

/// Attacks on the mesh.
#[derive(Debug, Parser)]
struct Cli {
    /// Honest nodes.
    #[arg(long, default_value_t = 100)]
    honest: u32,
    /// Nodes of the attacker.
    #[arg(long, default_value_t = 400)]
    sybils: u32,
    /// Runs of each cell.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Honest nodes that each sybil dials, where it dials particular ones.
    #[arg(long, default_value_t = 10)]
    dials: u32,
    /// Of these attacks only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the page goes; `-`: to standard output.
    #[arg(long, default_value = "docs/attacks.md")]
    out: PathBuf,
}

/// One attack.
struct Attack {
    name: &'static str,
    text: &'static str,
    kind: AdversaryKind,
    at: Duration,
    /// Of the sybils so many take part, in hundredths; the others are not there.
    share: u32,
}

/// What came of some runs.
#[derive(Clone, Debug, Default)]
struct Cell {
    ratio: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: Vec<f64>,
    false_quarantined: u64,
    /// Runs in which messages were forged, delivered twice, or steps fell.
    broken: Vec<String>,
}

fn attacks(dials: u32) -> Vec<Attack> {
    let secs = Duration::from_secs;
    let attack = |name, text, kind, at, share| Attack { name, text, kind, at, share };
    let all = Victims::All;
    vec![
        attack("none", "nobody attacks; honest nodes alone", AdversaryKind::NeverForward, secs(0), 0),
        attack(
            "eclipse_one",
            "a tenth of the sybils connect to one node, and pass on nothing to it or from it",
            AdversaryKind::Eclipse { victims: Victims::One },
            secs(0),
            10,
        ),
        attack(
            "eclipse_publishers",
            "a tenth of the sybils connect to every author, and pass on nothing to them or from them",
            AdversaryKind::Eclipse { victims: Victims::Publishers },
            secs(0),
            10,
        ),
        attack(
            "eclipse_network",
            "a tenth of the sybils connect to every honest node, and pass on nothing",
            AdversaryKind::Eclipse { victims: all },
            secs(0),
            10,
        ),
        attack(
            "censor",
            "all sybils drop the messages of one node, and forward all others",
            AdversaryKind::Censor { victims: Victims::One },
            secs(5),
            100,
        ),
        attack(
            "degrade",
            "sybils do everything but forward messages, from the beginning",
            AdversaryKind::NeverForward,
            secs(0),
            100,
        ),
        attack(
            "cold_boot",
            "sybils graft everybody while the mesh forms, each dials some more, and forward nothing",
            AdversaryKind::ColdBoot { dials },
            secs(0),
            100,
        ),
        attack(
            "covert_flash",
            "sybils behave well for half a minute, and then all stop forwarding at once",
            AdversaryKind::CovertFlash,
            secs(30),
            100,
        ),
        attack(
            "dawn",
            "sybils behave well while the mesh forms, and stop forwarding as the first message is published",
            AdversaryKind::CovertFlash,
            secs(12),
            100,
        ),
        attack(
            "one_address",
            "sybils come from one address, dial some honest nodes each, graft them, and forward nothing",
            AdversaryKind::Sybil { dials },
            secs(5),
            100,
        ),
    ]
}

impl Attack {
    fn scenario(&self, cli: &Cli, seed: u64, is_defended: bool) -> Scenario {
        let mut scenario = Scenario { name: self.name.into(), seed, ..Scenario::default() };
        let sybils = cli.sybils * self.share / 100;
        scenario.network.nodes = cli.honest + sybils;
        scenario.network.topology = Topology::Random { dials: 8 };
        scenario.network.sync_peers = 4;
        // Clocks are not what these attacks are about.
        scenario.network.step_sync = false;
        scenario.duration = Duration::from_secs(75);
        scenario.workload.start = Duration::from_secs(12);
        scenario.workload.messages = 120;
        scenario.workload.rate_per_s = 2.5;
        scenario.workload.authors = Some(10.min(cli.honest / 2));
        if sybils > 0 {
            let kind = match &self.kind {
                AdversaryKind::Sybil { dials } => AdversaryKind::Sybil { dials: *dials.min(&cli.honest) },
                AdversaryKind::ColdBoot { dials } => {
                    AdversaryKind::ColdBoot { dials: *dials.min(&cli.honest) }
                }
                kind => kind.clone(),
            };
            scenario.adversaries =
                vec![Adversary { at: self.at, until: None, who: Who::Count(sybils), kind }];
        }
        scenario.observer.enabled = Some(is_defended);
        if !is_defended {
            let gossip = &mut scenario.gossip;
            (gossip.score, gossip.mesh_degree_out, gossip.flood_publish) = (None, 0, false);
        }
        scenario.checks =
            vec![omnimesh_sim::scenario::Check::Monotone, omnimesh_sim::scenario::Check::Authentic];
        scenario
    }

    fn cell(&self, cli: &Cli, is_defended: bool) -> Cell {
        let seeds: Vec<u64> = (1..=cli.seeds).collect();
        let run = |seed: &u64| self.run(cli, *seed, is_defended);
        seeds.par_iter().map(run).reduce(Cell::default, Cell::merge)
    }

    fn run(&self, cli: &Cli, seed: u64, is_defended: bool) -> Cell {
        let scenario = self.scenario(cli, seed, is_defended);
        let problems = scenario.problems();
        assert!(problems.is_empty(), "{}: {problems:?}", self.name);
        let outcome = model::run(&scenario, Options { threads: 1, ..Options::default() });
        let checked = checkers::check(&scenario, &outcome);
        let summary = Summary::new(&outcome, &checked);
        let failed = checked.iter().filter(|checked| !checked.ok && cli.sybils > 0);
        let latency = &summary.latency_ms;
        Cell {
            ratio: summary.delivery_ratio.into_iter().collect(),
            p50: latency.p50.into_iter().collect(),
            p99: latency.p99.into_iter().collect(),
            max: latency.max.into_iter().collect(),
            false_quarantined: summary.detector.false_quarantined,
            broken: failed
                .map(|checked| format!("seed {seed}: {}: {}", checked.name, checked.detail))
                .collect(),
        }
    }
}

impl Cell {
    fn merge(mut self, other: Cell) -> Cell {
        self.ratio.extend(other.ratio);
        self.p50.extend(other.p50);
        self.p99.extend(other.p99);
        self.max.extend(other.max);
        self.false_quarantined += other.false_quarantined;
        self.broken.extend(other.broken);
        self
    }

    fn columns(&self) -> String {
        let mean = |values: &[f64]| {
            #[expect(clippy::cast_precision_loss, reason = "a few runs")]
            let count = values.len() as f64;
            (count > 0.0).then(|| values.iter().sum::<f64>() / count)
        };
        let text =
            |value: Option<f64>, digits: usize| value.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"));
        let greatest = self.max.iter().copied().reduce(f64::max);
        format!(
            "{} % | {} | {} | {}",
            text(mean(&self.ratio).map(|ratio| (ratio * 1e5).floor() / 1e3), 3),
            text(mean(&self.p50), 0),
            text(mean(&self.p99), 0),
            text(greatest, 0)
        )
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut text = head(&cli);
    let mut notes = String::new();
    for attack in attacks(cli.dials) {
        if !cli.only.is_empty() && !cli.only.iter().any(|name| name == attack.name) {
            continue;
        }
        for is_defended in [true, false] {
            let cell = attack.cell(&cli, is_defended);
            let (with, what) = if is_defended { ("with", attack.text) } else { ("without", "") };
            let row = format!(
                "| {} | {what} | {with} | {} |",
                if is_defended { attack.name } else { "" },
                cell.columns()
            );
            eprintln!("{row} {} honest nodes shut out", cell.false_quarantined);
            let _ = writeln!(text, "{row}");
            for broken in &cell.broken {
                let _ = writeln!(notes, "- `{}` {with} defences: {broken}", attack.name);
            }
            if cell.false_quarantined > 0 {
                let _ = writeln!(
                    notes,
                    "- `{}` {with} defences: {} honest nodes shut out",
                    attack.name, cell.false_quarantined
                );
            }
        }
    }
    text.push_str("\n## What went wrong beside\n\n");
    text.push_str(if notes.is_empty() {
        "Nothing: no message was forged or delivered twice, no honest node was shut out.\n"
    } else {
        &notes
    });
    if cli.out.as_os_str() == "-" {
        println!("{text}");
    } else if let Err(error) = std::fs::write(&cli.out, text) {
        eprintln!("error: cannot write {}: {error}", cli.out.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn head(cli: &Cli) -> String {
    let Cli { honest, sybils, seeds, dials, .. } = cli;
    format!(
        "# Attacks on the mesh\n\nWhat arrives, and when, while many nodes of one attacker try to keep messages from honest ones. Written by\n\n```\n\
         cargo run --release -p omnimesh-sim --example attacks -- --honest {honest} --sybils {sybils} --seeds {seeds} --dials {dials}\n```\n\n\
         The attacks are named after those of the evaluation of gossipsub v1.1 (Vyzovitis, Napora, McCormick, Dias, Psaras: \
         *Gossipsub-v1.1 Evaluation Report*, PL-TechRep-2020-001, 2020), which has 1,000 honest nodes and up to 4,000 sybils; what each does \
         here is said in the table, and need not be what it does there. {honest} honest nodes, {sybils} sybils; each node dials 8 others at \
         random, whoever they are, so that of a node's connections most are the attacker's; where sybils dial in addition, they dial {dials} \
         honest nodes each. Links of 10 to 100 ms. 120 messages, 2.5 a second, by 10 honest authors. Means of {seeds} runs; the greatest of the maxima.\n\n\
         *With* defences: the router's scores, two links of each mesh dialled by the node itself, own messages to all peers, and the \
         observer. *Without*: none of these; signatures and tags stay.\n\n\
         *Delivered*: of all pairs of a message and an honest node that was connected to its author through honest nodes, those that came \
         before the run ended, at least 15 s later.\n\n\
         | attack | what they do | defences | delivered | p50 ms | p99 ms | max ms |\n|---|---|---|---:|---:|---:|---:|\n"
    )
}
