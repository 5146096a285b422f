//! The results, for people and for machines.

use std::fmt::Write as _;
use std::fs;

use serde::Serialize;

use crate::compute;
use crate::engine::Engine;
use crate::gates::Gates;
use crate::gossip::Cell;
use crate::log::append::Append;
use crate::log::reconcile::{Reconcile, Row};
use crate::log::replicate::Replicate;
use crate::stats::Spread;
use crate::trees::Trees;

/// Everything; of a section that was not asked for, nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) gates: Vec<Gates>,
    pub(crate) gossip: Vec<Cell>,
    pub(crate) engine: Vec<Engine>,
    pub(crate) trees: Vec<Trees>,
    pub(crate) append: Vec<Append>,
    pub(crate) replicate: Vec<Replicate>,
    pub(crate) reconcile: Option<Reconcile>,
    pub(crate) compute: Vec<compute::Row>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) version: &'static str,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl Report {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let Machine { cpu, cores, kernel, version } = &self.machine;
        let head = format!("OmniMesh {version}; {cores} cores of {cpu}, Linux {kernel}\n");
        let sections = [
            gates(&self.gates),
            gossip(&self.gossip),
            engine(&self.engine),
            trees(&self.trees),
            append(&self.append),
            replicate(&self.replicate),
            self.reconcile.as_ref().map(reconcile).unwrap_or_default(),
            compute(&self.compute),
        ];
        let asked_for = sections.into_iter().filter(|section| !section.is_empty());
        [head].into_iter().chain(asked_for).collect::<Vec<_>>().join("\n")
    }
}

/// The gates as tables.
pub(crate) fn gates(all: &[Gates]) -> String {
    let mut text = String::new();
    for Gates { message, payloads, verify_strict_ns, gates, observer_share } in all {
        let bare = spread(verify_strict_ns, 0);
        // Writing to a string does not fail.
        let _ = writeln!(text, "### Gates: {message}\n\nBare `verify_strict`: {bare} ns.\n");
        let per_payload = if *payloads > 1 { " ratio per payload |" } else { "" };
        let line = if *payloads > 1 { "---:|" } else { "" };
        let _ = writeln!(text, "| gate | ns | ratio to `verify_strict` |{per_payload}");
        let _ = writeln!(text, "|---|---:|---:|{line}");
        for gate in gates {
            let _ = write!(text, "| {} | {} | {} |", gate.name, spread(&gate.ns, 0), spread(&gate.ratio, 3));
            if *payloads > 1 {
                #[expect(clippy::cast_precision_loss, reason = "a share for people")]
                let share = gate.ratio.median / *payloads as f64;
                let _ = write!(text, " {share:.4} |");
            }
            text.push('\n');
        }
        let share = spread(observer_share, 3);
        let _ = writeln!(text, "\nThe observer's part of the whole: **{share}**.");
        text.push('\n');
    }
    text
}

/// The comparisons as tables.
pub(crate) fn gossip(cells: &[Cell]) -> String {
    let mut text = String::new();
    for Cell { nodes, bytes, rows } in cells {
        let _ = writeln!(text, "### Gossip: {nodes} nodes, {bytes} B\n");
        let _ = writeln!(text, "| | OmniMesh | gossipsub | ratio |\n|---|---:|---:|---:|");
        for row in rows {
            let (ours, stock) = (spread(&row.omnimesh, 0), spread(&row.gossipsub, 0));
            let _ = writeln!(text, "| {} | {ours} | {stock} | **{}** |", row.what, spread(&row.ratio, 2));
        }
        text.push('\n');
    }
    text
}

/// The engine as tables.
pub(crate) fn engine(all: &[Engine]) -> String {
    let mut text = String::new();
    for engine in all {
        let Engine { nodes, events, queue, bytes_per_node, touches, .. } = engine;
        let _ = writeln!(text, "### Engine: {nodes} nodes\n");
        let _ = writeln!(
            text,
            "{events} events; {queue} waiting on average; {bytes_per_node} bytes for a node; {touches} lines touched for an event.\n"
        );
        let _ = writeln!(text, "| | ns for an event | engine / bare |\n|---|---:|---:|");
        let _ =
            writeln!(text, "| engine `model`, `crypto = \"skip\"` | {} | |", spread(&engine.engine_ns, 0));
        let rows = [
            ("bare event loop", &engine.bare_ns, &engine.ratio),
            ("the same, each touch waits for the one before", &engine.chained_ns, &engine.chained_ratio),
        ];
        for (name, ns, ratio) in rows {
            let _ = writeln!(text, "| {name} | {} | **{}** |", spread(ns, 0), spread(ratio, 2));
        }
        text.push('\n');
    }
    text
}

/// The trees as tables.
pub(crate) fn trees(all: &[Trees]) -> String {
    let mut text = String::new();
    for Trees { nodes, sides } in all {
        let _ = writeln!(text, "### Trees: {nodes} nodes\n");
        let _ = writeln!(
            text,
            "| messages | | RMR | LDH | ms to the last | missed |\n|---|---|---:|---:|---:|---:|"
        );
        let phases = sides.iter().map(|side| side.phases.len()).max().unwrap_or(0);
        for (at, side) in (0..phases).flat_map(|at| sides.iter().map(move |side| (at, side))) {
            let Some(phase) = side.phases.get(at) else { continue };
            let (rmr, ldh, ms) = (spread(&phase.rmr, 3), spread(&phase.ldh, 0), spread(&phase.ms, 0));
            let _ = writeln!(
                text,
                "| {} | {} | {rmr} | {ldh} | {ms} | {} |",
                phase.name, side.name, phase.missed
            );
        }
        text.push('\n');
    }
    text
}

/// The appends as tables.
pub(crate) fn append(all: &[Append]) -> String {
    let mut text = String::new();
    for Append { bytes, callers, entries, records, transaction_us, rows } in all {
        let _ = writeln!(text, "### Appends: {bytes} B, {callers} callers\n");
        let _ = writeln!(
            text,
            "{} entries in {} records in a transaction, for which redb takes {} µs.\n",
            spread(entries, 0),
            spread(records, 1),
            spread(transaction_us, 0)
        );
        let _ = writeln!(text, "| | OmniMesh | redb | ratio |\n|---|---:|---:|---:|");
        for row in rows {
            let (ours, bare) = (spread(&row.omnimesh, 0), spread(&row.redb, 0));
            let _ = writeln!(text, "| {} | {ours} | {bare} | **{}** |", row.what, spread(&row.ratio, 2));
        }
        text.push('\n');
    }
    text
}

/// Replication as tables.
pub(crate) fn replicate(all: &[Replicate]) -> String {
    let mut text = String::new();
    for shape in all {
        let Replicate { bytes, entries, per_record, record_bytes, overhead, seconds, cores, .. } = shape;
        let _ =
            writeln!(text, "### Replication: {entries} entries of {bytes} B, {per_record:.1} in a record\n");
        let [full, behind] = cores;
        let _ = writeln!(
            text,
            "{} s; {} MB/s of entries in {} MB/s of records ({record_bytes:.0} B each, {overhead:.3} bytes received for \
             each of theirs); {} MB in a transaction; cores used: {} by who has all, {} by who catches up.\n",
            spread(seconds, 2),
            spread(&shape.entry_rate, 1),
            spread(&shape.record_rate, 1),
            spread(&shape.write_mb, 2),
            spread(full, 2),
            spread(behind, 2)
        );
        let _ = writeln!(
            text,
            "| against | MB/s | share, bytes of records | share, bytes of entries |\n|---|---:|---:|---:|"
        );
        for bound in &shape.bounds {
            let (records, entries) = (spread(&bound.record_share, 2), spread(&bound.entry_share, 2));
            let _ =
                writeln!(text, "| {} | {} | **{records}** | {entries} |", bound.what, spread(&bound.rate, 1));
        }
        text.push('\n');
    }
    text
}

/// Reconciliation as tables.
pub(crate) fn reconcile(all: &Reconcile) -> String {
    let mut text = "### Reconciliation: the same items\n\n".to_owned();
    reconcile_rows(&mut text, &all.heads, true);
    text.push_str("### Reconciliation: the same logs of 1000 authors, the latest entries missing\n\n");
    reconcile_rows(&mut text, &all.entries, false);
    let round = &all.round;
    text.push_str("### Reconciliation: a round in which nothing is missing\n\n");
    let _ = writeln!(
        text,
        "{} authors, {} entries: {} frames, {} bytes, {} µs of CPU on both nodes together.",
        round.authors,
        round.entries,
        round.frames,
        round.bytes,
        spread(&round.us, 1)
    );
    text
}

fn reconcile_rows(text: &mut String, rows: &[Row], with_bound: bool) {
    let (bound, line) = if with_bound { (" bound |", "---:|") } else { ("", "") };
    let _ = writeln!(
        text,
        "| items | differ |{bound} OmniMesh, bytes | negentropy, bytes | ratio | round trips | CPU ms | ratio |"
    );
    let _ = writeln!(text, "|---:|---:|{line}---:|---:|---:|---:|---:|---:|");
    for row in rows {
        let Row { items, differ, ours, theirs, .. } = row;
        let bound = if with_bound { format!(" {:.0} |", row.bound) } else { String::new() };
        let _ = writeln!(
            text,
            "| {items} | {differ} |{bound} {:.0} | {:.0} | **{}** | {:.0} / {:.0} | {:.2} / {:.2} | {} |",
            ours.bytes.median,
            theirs.bytes.median,
            spread(&row.bytes_ratio, 2),
            ours.round_trips.median,
            theirs.round_trips.median,
            ours.ms.median,
            theirs.ms.median,
            spread(&row.time_ratio, 2)
        );
    }
    text.push('\n');
}

/// Compute as a table.
pub(crate) fn compute(rows: &[compute::Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "### Compute\n\n| | OmniMesh | against | | ratio |\n|---|---:|---|---:|---:|\n".to_owned();
    for row in rows {
        let (ours, other) = (spread(&row.omnimesh, 1), spread(&row.other, 1));
        let ratio = spread(&row.ratio, 2);
        let _ = writeln!(text, "| {} | {ours} | {} | {other} | **{ratio}** |", row.what, row.against);
    }
    text.push('\n');
    text
}

fn spread(of: &Spread, digits: usize) -> String {
    let Spread { median, low, high } = of;
    format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
}
