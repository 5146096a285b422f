//! The rounds that were done, in a file: a long measurement is stopped and goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use omnimesh_protocol::Hash;
use serde::{Deserialize, Serialize};

use crate::Cli;
use crate::rows::Mesh;
use crate::table::{Line, Part};

/// Times are kept in steps of this, the page's own: many are alike, and few numbers are left.
const STEP_MS: f64 = 100.0;
/// The nodes of the meshes that show whether code does what other code did.
const PROBE_NODES: u32 = 60;

/// What the file has.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What was measured, with what: figures of another mesh or of code that does other things are not added.
    of: Of,
    /// Rounds.
    done: u64,
    /// Each attack.
    attacks: BTreeMap<String, Vec<KeptPart>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Of {
    /// The hash of what comes out of a round of small meshes.
    probe: String,
    nodes: u32,
    first_seed: u64,
    only: Vec<String>,
    no_slow: bool,
}

/// A part without its times, and how often each time was measured.
#[derive(Serialize, Deserialize)]
struct KeptPart {
    part: Part,
    times: BTreeMap<u32, u64>,
    spread: BTreeMap<u32, u64>,
}

impl KeptPart {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no run takes four billion steps"
    )]
    fn of(mut part: Part) -> Self {
        let [times, spread] = [&mut part.row.times_ms, &mut part.row.spread_ms].map(|times| {
            let mut counts = BTreeMap::new();
            for time in std::mem::take(times) {
                *counts.entry((time / STEP_MS).round() as u32).or_default() += 1;
            }
            counts
        });
        KeptPart { part, times, spread }
    }

    fn into_part(self) -> Part {
        let all = |counts: BTreeMap<u32, u64>| -> Vec<f64> {
            let times = |(time, count): (u32, u64)| (0..count).map(move |_| f64::from(time) * STEP_MS);
            counts.into_iter().flat_map(times).collect()
        };
        let mut part = self.part;
        (part.row.times_ms, part.row.spread_ms) = (all(self.times), all(self.spread));
        part
    }
}

fn of(cli: &Cli) -> Of {
    let mut small = cli.meshes();
    crate::round(PROBE_NODES, cli.first_seed, &mut small);
    let figures: Vec<_> = small.iter().flat_map(|(_, lines)| lines).map(|line| &line.parts).collect();
    let figures = serde_json::to_vec(&figures).expect("numbers and names");
    Of {
        probe: Hash::of(&figures).to_string(),
        nodes: cli.nodes,
        first_seed: cli.first_seed,
        only: cli.only.clone(),
        no_slow: cli.no_slow,
    }
}

/// The file of a measurement.
pub(crate) struct Keeper {
    file: PathBuf,
    of: Of,
}

impl Keeper {
    pub(crate) fn new(file: &Path, cli: &Cli) -> Self {
        Keeper { file: file.to_owned(), of: of(cli) }
    }

    /// Puts what is in the file into the lines, and says how many rounds that is.
    pub(crate) fn read(&self, meshes: &mut [(Mesh, Vec<Line>)]) -> Result<u64, String> {
        let file = &self.file;
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
        };
        let other = |why: String| format!("{}: {why}; use another file, or remove it", file.display());
        let mut kept: Kept = serde_json::from_str(&text).map_err(|error| other(error.to_string()))?;
        if kept.of != self.of {
            return Err(other(format!("has rounds of {:?}, and these would be of {:?}", kept.of, self.of)));
        }
        for line in meshes.iter_mut().flat_map(|(_, lines)| lines) {
            let parts = kept.attacks.remove(line.attack.name).unwrap_or_default();
            line.parts = parts.into_iter().map(KeptPart::into_part).collect();
            if line.parts.len() != usize::from(!self.of.no_slow) + 1 {
                return Err(other(format!("lacks the attack {}", line.attack.name)));
            }
        }
        Ok(kept.done)
    }

    /// Writes the file.
    pub(crate) fn write(self, done: u64, meshes: &[(Mesh, Vec<Line>)]) -> Result<Self, String> {
        let kept = |line: &Line| line.parts.iter().cloned().map(KeptPart::of).collect();
        let lines = meshes.iter().flat_map(|(_, lines)| lines);
        let attacks = lines.map(|line| (line.attack.name.to_owned(), kept(line))).collect();
        let kept = Kept { of: self.of, done, attacks };
        let mut text = serde_json::to_string(&kept).expect("numbers and names");
        text.push('\n');
        omnimesh_sim::report::replace(&self.file, &text)
            .map_err(|error| format!("cannot write {}: {error}", self.file.display()))?;
        Ok(Keeper { file: self.file, of: kept.of })
    }
}
