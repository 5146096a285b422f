//! The results, for people and for machines.

use std::fmt::Write as _;
use std::fs;

use serde::Serialize;

use crate::gates::Gates;
use crate::gossip::Cell;
use crate::stats::Spread;

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) gates: Vec<Gates>,
    pub(crate) gossip: Vec<Cell>,
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
        [head, gates(&self.gates), gossip(&self.gossip)].join("\n")
    }
}

/// The gates as tables.
pub(crate) fn gates(all: &[Gates]) -> String {
    let mut text = String::new();
    for Gates { message, payloads, verify_strict_ns, gates } in all {
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

fn spread(of: &Spread, digits: usize) -> String {
    let Spread { median, low, high } = of;
    format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
}
