//! The page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use omnimesh_sim::detection::Row;
use serde::{Deserialize, Serialize};

use crate::rows::{Attack, Mesh};

/// What is wanted of what can be proved, and of the rest.
const AIM_PROVABLE: f64 = 0.99;
const AIM: f64 = 0.95;
/// Honest nodes that may be shut out, of all.
const FALSE_MAX: f64 = 0.001;

/// All runs of an attack, without slow nodes or with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) row: Row,
    pub(crate) honest: u64,
    pub(crate) false_quarantined: u64,
    pub(crate) falsely_convicted: u64,
    pub(crate) false_verdicts: BTreeMap<String, u64>,
    /// Runs in which the attack did nothing.
    pub(crate) failed: u64,
}

/// An attack: without slow nodes, and with.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) attack: Attack,
    pub(crate) parts: Vec<Part>,
}

impl Part {
    /// The runs of both.
    pub(crate) fn merge(mut self, other: Part) -> Part {
        if self.row.name.is_empty() {
            (self.row.name, self.row.is_provable) = (other.row.name.clone(), other.row.is_provable);
        }
        self.row.add(&other.row);
        self.honest += other.honest;
        self.false_quarantined += other.false_quarantined;
        self.falsely_convicted += other.falsely_convicted;
        for (kind, count) in other.false_verdicts {
            *self.false_verdicts.entry(kind).or_default() += count;
        }
        self.failed += other.failed;
        self
    }
}

/// The aims that a line misses, in words. How well they are found is measured without slow nodes, who is shut out with them, too.
pub(crate) fn missed(line: &Line) -> Vec<String> {
    let mut missed = below(line, 0);
    for (part, with) in line.parts.iter().zip(["", " with slow nodes"]) {
        let name = format!("{}{with}", line.attack.name);
        if ratio(part.false_quarantined, part.honest) >= FALSE_MAX || part.falsely_convicted > 0 {
            missed.push(format!("{name}: {} honest nodes shut out", part.false_quarantined));
        }
        if part.failed > 0 {
            missed.push(format!("{name}: did nothing in {} runs", part.failed));
        }
    }
    missed
}

/// The same figures as the aims of finding, missed in one of the parts.
fn below(line: &Line, place: usize) -> Vec<String> {
    let (aim, name) = (aim(line), line.attack.name);
    let Some(part) = line.parts.get(place) else { return Vec::new() };
    let figures = [("precision", part.row.precision()), ("recall", part.row.recall())];
    let below = figures.into_iter().filter(|(_, value)| value.is_none_or(|value| value < aim));
    below.map(|(what, value)| format!("{name}: {what} {} below {aim}", share(value))).collect()
}

fn aim(line: &Line) -> f64 {
    if line.attack.kind.is_provable() { AIM_PROVABLE } else { AIM }
}

/// For those who wait.
pub(crate) fn short(line: &Line) -> String {
    let part = |part: &Part| {
        format!(
            "precision {} recall {} of {} found {}/{} p50 {} p99 {} out {} false {:?}",
            share(part.row.precision()),
            share(part.row.recall()),
            part.row.witnesses,
            part.row.found,
            part.row.nodes,
            seconds(part.row.time_ms(500)),
            seconds(part.row.time_ms(990)),
            part.false_quarantined,
            part.false_verdicts
        )
    };
    let parts: Vec<String> = line.parts.iter().map(part).collect();
    format!("{}: {}", line.attack.name, parts.join(" | slow: "))
}

/// The page.
pub(crate) fn page(meshes: &[(Mesh, Vec<Line>)], sizes: (u32, u64, u64), command: &str) -> String {
    let lines: Vec<&Line> = meshes.iter().flat_map(|(_, lines)| lines).collect();
    let lines = &lines[..];
    let mut text = head(meshes, sizes, command);
    table(&mut text, lines, 0);
    if lines.iter().any(|line| line.parts.len() > 1) {
        text.push_str(
            "\n## With 5 % of the nodes ten times slower\n\nTheir links take ten times as long (0.1 to 1 s one way), and \
             each frame takes them 2 ms.\n\n",
        );
        table(&mut text, lines, 1);
    }
    text.push_str("\n## What honest nodes held against honest nodes\n\nAll kinds of findings, in all runs: pairs of nodes.\n\n");
    text.push_str("| adversary | | with slow nodes |\n|---|---|---|\n");
    for line in lines {
        let list = |part: Option<&Part>| {
            let kinds = part.map(|part| &part.false_verdicts).into_iter().flatten();
            let kinds: Vec<String> = kinds.map(|(kind, count)| format!("`{kind}` {count}")).collect();
            if kinds.is_empty() { "–".to_owned() } else { kinds.join(", ") }
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            line.attack.name,
            list(line.parts.first()),
            list(line.parts.get(1))
        );
    }
    text.push_str("\n## Aims that are missed\n\n");
    list(&mut text, lines.iter().copied().flat_map(missed).collect());
    text.push_str("\nThe same figures with slow nodes, for which there is no aim:\n\n");
    list(&mut text, lines.iter().flat_map(|line| below(line, 1)).collect());
    text.push_str(NOTES);
    text
}

fn list(text: &mut String, items: Vec<String>) {
    if items.is_empty() {
        text.push_str("None.\n");
    }
    for item in items {
        let _ = writeln!(text, "- {item}");
    }
}

fn head(meshes: &[(Mesh, Vec<Line>)], (nodes, seeds, first_seed): (u32, u64, u64), command: &str) -> String {
    let last = first_seed + seeds.max(1) - 1;
    let meshes: Vec<String> = meshes.iter().map(|(mesh, _)| mesh.to_string()).collect();
    let meshes = meshes.join(", ");
    format!(
        "# Detection\n\nHow well honest nodes find those who misbehave, in the simulator. Written by\n\n```\n{command}\n```\n\n{nodes} nodes, 8 dials each, links of 10 to 100 ms; \
         three messages a second by twelve authors (nine where somebody is to be missed); 5 % of the nodes misbehave in each way (1 % where \
         they publish themselves); seeds {first_seed} to {last}. The full form is 1,000 nodes and 200 seeds. Attacks that do not hide each other \
         share a mesh: {meshes}.\n\n*Precision*: of the verdicts under a name of what they do, \
         those against them. *Recall*: of all pairs of one who misbehaves and an honest node that can know (*witnesses*: up and in step at the \
         end; all of them of what is proved or said to all, else those to whom it was done often enough), those in which that node has come to \
         a right verdict. *Found*: those who misbehave against whom anybody honest has one. *Time*: from the first misdeed to the first right \
         verdict. *Everywhere*: of what can be proved, those whom 99 % of all honest nodes have in quarantine at the end, and how long \
         that took from the first quarantine. *Shut out*: honest nodes in quarantine or on a graylist of an honest node. The module \
         `omnimesh_sim::detection` has the definitions, [`observer.md`](observer.md) the detectors.\n\nAims: precision and recall 0.99 for \
         what can be proved, 0.95 for the rest; fewer than 0.1 % of the honest nodes shut out, also where some are slow, and none by proof.\n\n"
    )
}

fn table(text: &mut String, lines: &[&Line], place: usize) {
    text.push_str(
        "| adversary | | proof | precision | recall | witnesses | found | time p50 | p99 | everywhere | in p99 | shut out |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for line in lines {
        let Some(part) = line.parts.get(place) else { continue };
        let row = &part.row;
        let proof = if line.attack.kind.is_provable() { "yes" } else { "" };
        let (everywhere, spread) = if line.attack.kind.is_provable() {
            (share(Some(ratio(row.everywhere, row.nodes))), seconds(row.spread_at_ms(990)))
        } else {
            (String::new(), String::new())
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {proof} | {} | {} | {} | {} of {} | {} | {} | {everywhere} | {spread} | {} of {} |",
            line.attack.name,
            line.attack.remark,
            share(row.precision()),
            share(row.recall()),
            row.witnesses,
            row.found,
            row.nodes,
            seconds(row.time_ms(500)),
            seconds(row.time_ms(990)),
            part.false_quarantined,
            part.honest,
        );
    }
}

const NOTES: &str = "
## What to know

- The figures of a mesh that attacks share count for each of them: who was shut out, and what was held against honest nodes.
- A rate cannot be scaled by the size of the mesh: two nodes that flood a thousand others with 5,000 messages a second are not simulated.
  The limits of that row are 1/250 of the built-in ones.
- Who sends again what routers still remember is not heard at all; so routers forget earlier in that mesh than by default (120 s).
- Verdicts are local: what one node suspects it tells nobody. What is proved is known everywhere.
";

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn ratio(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.4}"))
}

fn seconds(ms: Option<f64>) -> String {
    ms.map_or_else(|| "–".into(), |ms| format!("{:.1} s", ms / 1e3))
}
